"""The table that ``scan`` shows to people: events by day, kind and source.

On 80 columns and more::

    day         kind                 count  first     last      source
    2024-08-18  suppressed messages    142  08:33:10  08:33:10  /var/log/messages
    2024-08-18  too many orphans         7  08:33:14  08:33:15  /var/log/messages

Where that does not fit, the source becomes a heading; where that is too wide still, count and kind come first::

    /var/log/messages
      142 suppressed messages
          2024-08-18 08:33:10 to 08:33:10
        7 too many orphans
          2024-08-18 08:33:14 to 08:33:15
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import NamedTuple

from agent.cli.common import console, in_columns
from agent.core.format import count_text, counted, printable
from agent.core.model import KINDS, Event, Kind

INDENT = "  "


@dataclass(slots=True)
class Row:
    """What one day, kind and source come to; first and last are as the log has them."""

    first: Event
    last: Event
    count: int = 0

    def add(self, event: Event) -> None:
        """Count one event; of a line on suppressed messages, those."""
        self.last = event
        self.count += event.count * (event.suppressed or 0 if event.kind == "suppressed" else 1)


class Cells(NamedTuple):
    """A row as it is shown."""

    day: str
    kind: str
    total: str
    first: str
    last: str
    source: str


HEADINGS = Cells("day", "kind", "count", "first", "last", "source")
COUNT = Cells._fields.index("total")


def print_table(events: Iterator[Event]) -> int:
    """Print the table of at least one event; say how many events there were."""
    rows: dict[tuple[date | None, Kind, str], Row] = {}
    found = 0
    for event in events:
        key = (event.at.date() if event.at else None, event.kind, _source(event))
        rows.setdefault(key, Row(event, event)).add(event)
        found += 1
    screen = console()
    in_order = sorted(rows.items(), key=lambda item: (item[0][0] or date.min, *item[0][1:]))
    width = screen.width if screen.is_terminal else sys.maxsize
    for line, style in lay_out([_cells(*key, row) for key, row in in_order], width):
        screen.print(line, style=style, soft_wrap=True)
    screen.print(_total(rows), style="bold")
    return found


def lay_out(rows: list[Cells], width: int) -> Iterator[tuple[str, str]]:
    """Return the lines, each with its style, in the first form that fits into ``width`` columns."""
    whole = in_columns([HEADINGS, *rows], right={COUNT})
    if max(map(len, whole)) <= width:
        yield whole[0], "bold"
        yield from zip(whole[1:], map(_style, rows), strict=True)
        return
    heading, *lines = in_columns([row[:-1] for row in (HEADINGS, *rows)], right={COUNT})
    fits = max(map(len, (heading, *lines))) + len(INDENT) <= width
    if fits:
        yield INDENT + heading, "bold"
    counts = max(len(row.total) for row in rows)
    for source in dict.fromkeys(row.source for row in rows):
        yield source, "bold"
        for line, row in zip(lines, rows, strict=True):
            if row.source == source and fits:
                yield INDENT + line, _style(row)
            elif row.source == source:
                yield f"{INDENT}{row.total:>{counts}} {row.kind}", _style(row)
                yield f"{INDENT * 3}{row.day} {row.first} to {row.last}", ""


def _cells(day: date | None, kind: Kind, source: str, row: Row) -> Cells:
    first, last = _moment(row.first), _moment(row.last)
    return Cells(str(day or "no date"), KINDS[kind], count_text(row.count), first, last, printable(source))


def _style(row: Cells) -> str:
    return "" if row.kind == KINDS["suppressed"] else "yellow"


def _total(rows: dict[tuple[date | None, Kind, str], Row]) -> str:
    events = sum(row.count for key, row in rows.items() if key[1] != "suppressed")
    suppressed = sum(row.count for key, row in rows.items() if key[1] == "suppressed")
    total = counted(events, "event")
    return f"{total}, and {count_text(suppressed)} net messages suppressed next to them" if suppressed else total


def _source(event: Event) -> str:
    return "journal" if event.source.startswith("journal:") else event.source.rpartition(":")[0]


def _moment(event: Event) -> str:
    if event.at is not None:
        return event.at.strftime("%H:%M:%S")
    return f"up {event.uptime:.0f} s" if event.uptime is not None else "unknown"
