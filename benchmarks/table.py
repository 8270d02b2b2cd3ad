"""A row of the table: what was measured, what it is to reach, and the same of other programs.

Printed as in docs/performance.md::

    | line to POST, p50 / p99 | 4.8 / 11 ms | 5 / 12 ms | SEC 21 / 42 (4.4 x), mtail 116 / 251 (24 x) |
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from statistics import median, quantiles
from typing import NamedTuple

HEAD = "| measure | measured | reach | beside |\n| --- | --- | --- | --- |"


class Row(NamedTuple):
    """One measurement or several with the same unit; each is to be at most what ``reach`` has in its place."""

    measure: str
    measured: tuple[float, ...]
    unit: str
    reach: tuple[float, ...] = ()
    beside: Mapping[str, tuple[float, ...]] = {}

    @property
    def met(self) -> bool:
        """Return whether all that is to be reached was."""
        return all(value <= most for value, most in zip(self.measured, self.reach, strict=False))

    def __str__(self) -> str:
        """Write it as a line of the table; behind another program's figure, how often ours goes into its first."""
        reach = f"{self.figures(self.reach)}{'' if self.met else ': **missed**'}" if self.reach else ""
        beside = [
            f"{name} {numbers(theirs)} ({figure(theirs[0] / self.measured[0])} x)"
            for name, theirs in self.beside.items()
        ]
        return f"| {self.measure} | {self.figures(self.measured)} | {reach} | {', '.join(beside)} |"

    def figures(self, values: tuple[float, ...]) -> str:
        """Write values with their unit."""
        return f"{numbers(values)} {self.unit}".rstrip()


def numbers(values: tuple[float, ...]) -> str:
    return " / ".join(map(figure, values))


def figure(value: float) -> str:
    """Write two digits, or all before the point: 0.023, 1.2, 24, 1,234."""
    return f"{value:,.0f}" if abs(value) >= 10 else f"{float(f'{value:.2g}'):g}"


def p50_p99(milliseconds: list[float]) -> tuple[float, float]:
    """Return the median and the 99th percentile."""
    return median(milliseconds), quantiles(milliseconds, n=100, method="inclusive")[-1]


def run(rows: Callable[..., Iterator[Row]]) -> None:
    """Print the rows of one benchmark; sizes may be on the command line."""
    print(HEAD)
    for row in rows(*map(int, sys.argv[1:])):
        print(row, flush=True)
