"""The table of ``incidents list``.

On a wide terminal, and in a pipe::

    ID                     OPENED            LASTED  CAUSE              EVENTS  SUPPR.  SENT            HOST
    20261122T150539Z-7f3a  2026-11-22 16:05  5 min   orphans (certain)      12    240+  1/2, 1 pending  web1

Where that does not fit::

    20261122T150539Z-7f3a
      orphans (certain), opened 2026-11-22 16:05, lasted 5 min, 12 events, 240+
      suppressed, sent 1/2, 1 pending, web1
"""

import sys
import textwrap
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import NamedTuple

import msgspec

from agent.cli.columns import GAP, in_columns
from agent.cli.common import console
from agent.cli.incident_text import OPEN, DeliveryRow, delivery_text, lasted, suppressed_text
from agent.core.folding import events_total
from agent.core.format import count_text, printable
from agent.core.model import Incident

INDENT = "  "


class OfKind(msgspec.Struct, frozen=True, kw_only=True):
    """Totals of one kind; an incident with two kinds of messages counts in both."""

    kind: str
    incidents: int
    events: int
    first_at: datetime
    last_at: datetime


class Cells(NamedTuple):
    """The cells of an incident's row."""

    id: str
    opened: str
    lasted: str
    cause: str
    events: str
    suppressed: str
    sent: str
    host: str


HEADINGS = Cells("ID", "OPENED", "LASTED", "CAUSE", "EVENTS", "SUPPR.", "SENT", "HOST")
COUNTS = {Cells._fields.index("events"), Cells._fields.index("suppressed")}


def print_table(rows: list[tuple[Incident, list[DeliveryRow]]]) -> None:
    """Print incidents with their deliveries; open ones in bold."""
    screen = console()
    width = screen.width if screen.is_terminal else sys.maxsize
    for line, style in lay_out([_cells(*row) for row in rows], width):
        screen.print(line, style=style, soft_wrap=True)


def lay_out(rows: list[Cells], width: int) -> Iterator[tuple[str, str]]:
    """Yield the lines with their styles, in columns if these fit into ``width``."""
    heading, *lines = in_columns([HEADINGS, *rows], right=COUNTS)
    if max(map(len, (heading, *lines))) <= width:
        yield heading, "bold"
        yield from zip(lines, map(_style, rows), strict=True)
        return
    for row in rows:
        yield row.id, _style(row)
        for line in textwrap.wrap(_facts(row), width, initial_indent=INDENT, subsequent_indent=INDENT):
            yield line, _style(row)


def count_kinds(incidents: Iterable[Incident]) -> list[OfKind]:
    """Count by kernel message, or ``pressure`` for warnings from the gauges; the most frequent first."""
    found: dict[str, list[tuple[Incident, int]]] = {}
    for incident in incidents:
        counts = {kind: count for kind, count in incident.events.items() if kind != "suppressed"}
        suppressed = {"suppressed": incident.suppressed_at_least} if incident.suppressed_at_least else {}
        for kind, count in (*counts.items(), *suppressed.items()) if counts else (("pressure", 0),):
            found.setdefault(kind, []).append((incident, count))
    kinds = [
        OfKind(
            kind=kind,
            incidents=len(each),
            events=sum(count for _, count in each),
            first_at=min(incident.opened_at for incident, _ in each),
            last_at=max(incident.last_seen_at for incident, _ in each),
        )
        for kind, each in found.items()
    ]
    return sorted(kinds, key=lambda each: (-each.events, each.kind))


def print_kinds(kinds: list[OfKind]) -> None:
    """Print one line per kind, with the times below it on a narrow terminal."""
    screen = console()
    counts = in_columns(
        [("KIND", "INCIDENTS", "EVENTS"), *((k.kind, str(k.incidents), count_text(k.events)) for k in kinds)], {1, 2}
    )
    times = in_columns([("FIRST", "LAST"), *((_minute(k.first_at), _minute(k.last_at)) for k in kinds)])
    fits = not screen.is_terminal or max(map(len, counts)) + max(map(len, times)) + len(GAP) <= screen.width
    for number, (count, time) in enumerate(zip(counts, times, strict=True)):
        style = "" if number else "bold"
        screen.print(count + GAP + time if fits else f"{count}\n{INDENT}{time}", style=style, soft_wrap=True)


def _cells(incident: Incident, rows: list[DeliveryRow]) -> Cells:
    return Cells(
        incident.id,
        _minute(incident.opened_at),
        lasted(incident),
        f"{incident.cause} ({incident.confidence})",
        count_text(events_total(incident) - incident.suppressed_at_least),
        suppressed_text(incident),
        delivery_text(rows),
        printable(incident.host or "-", 40),
    )


def _minute(at: datetime) -> str:
    return f"{at.astimezone():%Y-%m-%d %H:%M}"


def _facts(row: Cells) -> str:
    span = row.lasted if row.lasted == OPEN else f"lasted {row.lasted}"
    counts = f"{row.events} event{'' if row.events == '1' else 's'}" + (
        f", {row.suppressed} suppressed" if row.suppressed != "-" else ""
    )
    return f"{row.cause}, opened {row.opened}, {span}, {counts}, sent {row.sent}, {row.host}"


def _style(row: Cells) -> str:
    return "bold" if row.lasted == OPEN else ""
