"""``sockmem-agent scan``: find the events in log files already written, or in the journal.

What people see is a table by day, kind and source. A sample::

    day         kind                 count  first     last      source
    2024-08-18  suppressed messages    142  08:33:10  08:33:10  /var/log/messages
    2024-08-18  too many orphans         7  08:33:14  08:33:15  /var/log/messages
"""

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

import click

from agent.cli.printing import Row, console, print_table, stamp, to_json, warn
from agent.cli.since import since_option
from agent.core.format import count_text, counted, printable
from agent.core.kernel.detector import Detector
from agent.core.logs.explain import is_refused
from agent.core.model import KINDS, Event, Kind, LogRecord
from agent.sources import journal_files
from agent.sources.localzone import LocalZone
from agent.sources.scanner import Candidate, Scanner, UnreadableError

HEADINGS = ("day", "kind", "count", "first", "last", "source")


@dataclass(slots=True)
class Sum:
    """What one day, kind and source come to; first and last are as the log has them."""

    first: Event
    last: Event
    count: int = 0

    def add(self, event: Event) -> None:
        """Count one event; of a line on suppressed messages, those."""
        self.last = event
        self.count += event.count * (event.suppressed or 0 if event.kind == "suppressed" else 1)


@click.command(epilog="Example: sockmem-agent scan --since 2d /var/log/messages.1 /var/log/messages")
@click.argument("files", nargs=-1, metavar="[FILE]...")
@click.option("--json", "as_json", is_flag=True, help="Print JSON Lines: one object per event.")
@click.option("--journal", is_flag=True, help="Read this host's journal.")
@click.option("--directory", default="", metavar="DIR", help="Read the journal files in DIR.")
@since_option("events")
@click.option("--explain", is_flag=True, help="Explain for each line that holds a kernel message why it counts or not.")
@click.pass_context
def command(
    ctx: click.Context,
    *,
    files: tuple[str, ...],
    as_json: bool,
    journal: bool,
    directory: str,
    since: datetime | None,
    explain: bool,
) -> None:
    """Find the kernel's messages in existing log files.

    FILEs are plain, .gz, .xz, .bz2 or .zst, or - for standard input; name the oldest first. Events without a date are
    always shown. Lines that contain the kernel's words but do not count are reported on standard error. Exit
    status: 0 events found, 1 none found, 66 unreadable input.
    """
    from_journal = journal or bool(directory)
    if from_journal == bool(files):
        raise click.UsageError("name log files, or - for standard input, or use --journal; not both", ctx)
    if explain and (from_journal or as_json or since):
        raise click.UsageError("--explain reads log files and goes with no other option", ctx)
    trouble: list[str] = []
    if explain:
        ctx.exit(_explain(files, trouble))
    records = _read_journal(directory, trouble) if from_journal else _read_records(files, trouble)
    events = _detect(records)
    undated: list[Event] = []
    if since:
        events = _newer(events, since, undated)
    found = _print_json(events) if as_json else _print_events(events)
    if not found and not trouble and not as_json:
        click.echo("no events found" + (f" since {stamp(since)}" if since else ""))
    if undated:
        warn(f"--since does not apply to events without a date; kept: {len(undated)}")
    ctx.exit(_status(found, trouble))


def _explain(files: tuple[str, ...], trouble: list[str]) -> int:
    from agent.cli.scan_explain import print_steps  # noqa: PLC0415 - the reasons are for those who ask

    return _status(print_steps(_read_files(files, trouble)), trouble)


def _status(found: int, trouble: list[str]) -> int:
    for line in trouble:
        click.echo(f"sockmem-agent: {line}", err=True)
    return os.EX_NOINPUT if trouble else int(not found)


def _read_records(files: tuple[str, ...], trouble: list[str]) -> Iterator[LogRecord]:
    """Read the kernel's records, and report how many lines only hold its words: nothing is passed over in silence."""
    first: Candidate | None = None
    refused = 0
    for candidate in _read_files(files, trouble):
        if candidate.record is not None:
            yield candidate.record
        if is_refused(candidate.line, candidate.record):
            first = first or candidate
            refused += 1
    if first is not None:
        lines = counted(refused, "line contains", "lines contain")
        which = "it is" if refused == 1 else "the first is"
        warn(
            f"not counted: {lines} the kernel's words but cannot be read as its messages; {which} {first.source}: "
            f"{printable(first.line.strip(), 200)}"
        )
        warn("scan --explain shows why")


def _read_files(files: tuple[str, ...], trouble: list[str]) -> Iterator[Candidate]:
    scanner = Scanner()
    now = datetime.now(LocalZone())
    for path in files:
        try:
            yield from scanner.read(path, now)
        except UnreadableError as error:
            trouble.append(str(error))


def _read_journal(directory: str, trouble: list[str]) -> Iterator[LogRecord]:
    """Read the whole journal; what it could not give is said."""
    if directory and not Path(directory).is_dir():
        trouble.append(f"{directory}: no such directory; name one that holds journal files (*.journal)")
        return
    if not journal_files.has_any(directory):
        where = " or ".join(map(str, journal_files.roots(directory)))
        trouble.append(f"no journal file in {where}; name a directory with --directory, or log files")
        return
    try:
        from agent.sources.journal import JournalSource  # noqa: PLC0415 - systemd-python may be missing
    except ImportError as error:
        trouble.append(f"the journal cannot be read without systemd-python ({error}); install it, or name log files")
        return
    try:
        source = JournalSource(directory, start="beginning", follows=False)
    except OSError as error:
        trouble.append(f"{directory or 'journal'}: {error.strerror or error}; name a directory of journal files")
        return
    try:
        while batch := list(source.read()):
            yield from batch
        yield from source.read()  # Which files are skipped is known at the second look.
        # Nothing is waited for here.
        trouble.extend(f"{gap.what}: {gap.why}" for gap in source.gaps() if gap.what != "inotify")
    finally:
        source.close()


def _detect(records: Iterator[LogRecord]) -> Iterator[Event]:
    detector = Detector()
    for record in records:
        for _, event in detector.feed(record):
            yield event


def _newer(events: Iterator[Event], since: datetime, undated: list[Event]) -> Iterator[Event]:
    """Leave out what is older; what has no date stays, for it may be new, and is counted."""
    for event in events:
        if event.at is None:
            undated.append(event)
        if event.at is None or event.at >= since:
            yield event


def _print_json(events: Iterator[Event]) -> int:
    """Print one object a line as soon as it is known; count them."""
    found = 0
    for event in events:
        sys.stdout.buffer.write(to_json(event) + b"\n")
        found += 1
    sys.stdout.buffer.flush()
    return found


def _print_events(events: Iterator[Event]) -> int:
    """Print the table, if there is anything for it; count the events."""
    sums: dict[tuple[date | None, Kind, str], Sum] = {}
    found = 0
    for event in events:
        key = (event.at.date() if event.at else None, event.kind, _source(event))
        sums.setdefault(key, Sum(event, event)).add(event)
        found += 1
    if found:
        in_order = sorted(sums.items(), key=lambda item: (item[0][0] or date.min, *item[0][1:]))
        print_table(HEADINGS, [_row(*key, each) for key, each in in_order], right={2})
        console().print(_total(sums), style="bold")
    return found


def _row(day: date | None, kind: Kind, source: str, each: Sum) -> Row:
    first, last, count, words = _moment(each.first), _moment(each.last), count_text(each.count), KINDS[kind]
    return Row(
        (str(day or "no date"), words, count, first, last, printable(source)),
        f"{count} {words}, {' to '.join(dict.fromkeys((first, last)))}, {printable(source)}",
        "" if kind == "suppressed" else "yellow",
    )


def _total(sums: dict[tuple[date | None, Kind, str], Sum]) -> str:
    events = sum(each.count for key, each in sums.items() if key[1] != "suppressed")
    suppressed = sum(each.count for key, each in sums.items() if key[1] == "suppressed")
    total = counted(events, "event")
    return f"{total}, and {count_text(suppressed)} net messages suppressed next to them" if suppressed else total


def _source(event: Event) -> str:
    return "journal" if event.source.startswith("journal:") else event.source.rpartition(":")[0]


def _moment(event: Event) -> str:
    if event.at is not None:
        return event.at.strftime("%H:%M:%S")
    return f"up {event.uptime:.0f} s" if event.uptime is not None else "unknown"
