"""What the commands print: text to a rich console, JSON as one document, errors as single lines.

It is not in agent.cli.common because ``scan`` needs no configuration and no state directory: importing what reads them
took a third of its start.
"""

import shutil
import sys
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import click
import msgspec

from agent.cli import log
from agent.core.format import columns_of, in_columns, printable, wrap

if TYPE_CHECKING:
    from rich.console import Console

PIPE_WIDTH = 500
TERMINAL_WIDTH = 80


def fail(status: int, *lines: str) -> NoReturn:
    """Print errors, one line each, to standard error and exit."""
    for line in lines:
        click.echo(line, err=True)
    sys.exit(status)


def warn(line: str) -> None:
    """Print a warning to standard error; --log-level error hides it."""
    log.warning("%s", printable(line))


def print_json(value: Any) -> None:  # noqa: ANN401 - whatever msgspec can encode
    """Print one JSON document, in UTF-8 in every locale."""
    click.echo(msgspec.json.format(to_json(value), indent=2))


def to_json(value: Any) -> bytes:  # noqa: ANN401 - as above
    """Encode in JSON; of a path's bytes that the locale does not know, those that are not UTF-8 are replaced."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:  # They are surrogates, which JSON does not have.
        import json  # noqa: PLC0415 - a millisecond, for nearly nobody

        text = json.dumps(msgspec.to_builtins(value), ensure_ascii=False)
        return text.encode(errors="surrogateescape").decode(errors="replace").encode()


def console() -> "Console":
    """Create a console: color on a terminal only; lines for a pipe are not wrapped, because a program may read them."""
    from rich.console import Console  # noqa: PLC0415 - the service must not load it

    terminal = sys.stdout.isatty()
    # A serial console has no size; Python 3.10 then returns 0.
    width = (shutil.get_terminal_size().columns or TERMINAL_WIDTH) if terminal else PIPE_WIDTH
    return Console(force_terminal=terminal, width=width, highlight=False, markup=False, emoji=False)


def stamp(at: datetime) -> str:
    """Format a time in the host's time zone."""
    return f"{at.astimezone():%Y-%m-%d %H:%M:%S %Z}"


class Row(NamedTuple):
    """A row of a table; ``below`` says what follows the first cell where a terminal is too narrow for the columns."""

    cells: tuple[str, ...]
    below: str
    style: str = ""


def print_table(headings: tuple[str, ...], rows: Sequence[Row], right: Collection[int]) -> None:
    """Print a table, the columns ``right`` aligned to the right."""
    screen = console() if sys.stdout.isatty() else None
    for style, lines in groupby(lay_out(headings, rows, right, screen.width if screen else sys.maxsize), itemgetter(1)):
        text = "\n".join(line for line, _ in lines)
        # A console takes a tenth of a millisecond for each line.
        if screen and style:
            screen.print(text, style=style, soft_wrap=True)
        else:
            click.echo(text)


def lay_out(
    headings: tuple[str, ...], rows: Sequence[Row], right: Collection[int], width: int
) -> Iterator[tuple[str, str]]:
    """Yield the lines of a table with their styles; a narrow terminal breaks no word and no number of it."""
    heading, *lines = in_columns([headings, *(row.cells for row in rows)], right)
    if max(map(columns_of, (heading, *lines))) <= width:
        yield heading, "bold"
        yield from zip(lines, (row.style for row in rows), strict=True)
        return
    for row in rows:
        yield row.cells[0], row.style
        for line in wrap(row.below, width, "  "):
            yield line, row.style
