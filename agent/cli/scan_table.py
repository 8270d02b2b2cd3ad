"""The table that ``scan`` shows to people: events by day, kind and source."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from agent.core.model import Event, Kind

WIDE = 1000
KINDS: dict[Kind, str] = {
    "out_of_socket_memory": "out of socket memory",
    "too_many_orphans": "too many orphans",
    "tcp_mem": "tcp_mem exhausted",
    "suppressed": "suppressed lines",
}


@dataclass(slots=True)
class Row:
    """What one day, kind and source come to; first and last are as the log has them."""

    first: Event
    last: Event
    count: int = 0
    suppressed: int = 0

    def add(self, event: Event) -> None:
        """Count one event."""
        self.last = event
        self.count += event.count
        self.suppressed += (event.suppressed or 0) * event.count


def print_table(events: Iterator[Event]) -> int:
    """Print the table of at least one event; say how many events there were."""
    rows: dict[tuple[date | None, Kind, str], Row] = {}
    found = 0
    for event in events:
        key = (event.at.date() if event.at else None, event.kind, _source(event))
        rows.setdefault(key, Row(event, event)).add(event)
        found += 1
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDE)
    console.print(_table(rows, console))
    console.print(_total(rows), style="bold", soft_wrap=True)
    return found


def _table(rows: dict[tuple[date | None, Kind, str], Row], console: Console) -> Table:
    frame = box.SIMPLE_HEAD if console.is_terminal else None
    table = Table(
        box=frame, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0) if frame else (0, 1), header_style="bold"
    )
    table.add_column("day", no_wrap=True)
    table.add_column("kind", no_wrap=True)
    table.add_column("source", overflow="fold")
    for heading in ("count", "suppressed"):
        table.add_column(heading, justify="right", no_wrap=True)
    for heading in ("first", "last"):
        table.add_column(heading, no_wrap=True)
    for (day, kind, source), row in sorted(rows.items(), key=lambda item: (item[0][0] or date.min, *item[0][1:])):
        cells = [
            str(day or "no date"),
            KINDS[kind],
            _printable(source),
            "" if kind == "suppressed" else f"{row.count:,}",
            f"{row.suppressed:,}" if kind == "suppressed" else "",
            _moment(row.first),
            _moment(row.last),
        ]
        table.add_row(*(Text(cell) for cell in cells), style="" if kind == "suppressed" else "yellow")
    return table


def _total(rows: dict[tuple[date | None, Kind, str], Row]) -> str:
    events = sum(row.count for key, row in rows.items() if key[1] != "suppressed")
    suppressed = sum(row.suppressed for row in rows.values())
    total = f"{events:,} {'event' if events == 1 else 'events'}"
    return f"{total}, and {suppressed:,} net messages suppressed next to them" if suppressed else total


def _source(event: Event) -> str:
    return "journal" if event.source.startswith("journal:") else event.source.rpartition(":")[0]


def _moment(event: Event) -> str:
    if event.at is not None:
        return event.at.strftime("%H:%M:%S")
    return f"up {event.uptime:.0f} s" if event.uptime is not None else "unknown"


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)
