"""The rows that every benchmark prints: a measurement and its target."""

from collections.abc import Iterable
from typing import NamedTuple


class Row(NamedTuple):
    """One measurement; a target is met from below, unless ``at_least``."""

    what: str
    value: float
    unit: str
    target: float | None = None
    at_least: bool = False


def print_table(rows: Iterable[Row]) -> None:
    """Print one line a measurement."""
    for row in rows:
        line = f"{row.what:<58} {row.value:>9.2f} {row.unit:<10}"
        if row.target is not None:
            met = row.value >= row.target if row.at_least else row.value <= row.target
            line += f" target {'>=' if row.at_least else '<='} {row.target:g}: {'met' if met else 'MISSED'}"
        print(line.rstrip())
