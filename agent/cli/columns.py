"""Rows for people: in columns where they fit the terminal, and another way where they do not.

A table that is squeezed into a narrow terminal breaks words and numbers; so whoever prints one has a second form.
"""

from collections.abc import Collection, Sequence

GAP = "  "


def in_columns(rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> list[str]:
    """Pad the cells so that they stand below each other, those of the columns ``right`` to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        GAP.join(
            cell.rjust(width) if number in right else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
