"""Incidents on a terminal: the tables of ``incidents list``, and ``incidents show``, whose text is agent.page.text."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import msgspec
from msgspec.structs import replace

from agent.cli.printing import Row, console, print_table
from agent.core.delivery import OUTCOMES, Receipt
from agent.core.folding import events_total
from agent.core.format import count_text, counted, duration_text, printable
from agent.core.model import BriefNotice, Cause, Incident, Notice
from agent.core.readings import Gap
from agent.core.recurrence import Manner, is_news, kind_of, past_of, recurrence_text
from agent.core.status import silence_text
from agent.page.incident_files import IncidentFiles
from agent.page.series import window
from agent.page.text import bearable, incident_text
from agent.sources import local_now
from agent.store import Outbox, Store, StoreError, read_around, read_silence

HEADINGS = ("ID", "OPENED", "LASTED", "CAUSE", "EVENTS", "SUPPR.", "SENT", "SEEN", "HOST")
COUNTS = {4, 5}
OPEN = "OPEN"

Notices = Sequence[tuple[str, Notice, dict[str, Receipt]]]
BriefNotices = Sequence[tuple[str, BriefNotice, dict[str, Receipt]]]


class OfKind(msgspec.Struct, frozen=True, kw_only=True):
    """The incidents of one kind on one host: ``holder`` has * for what changes from start to start."""

    signature: str
    cause: Cause
    mechanism: Manner
    holder: str | None
    host: str | None
    incidents: int
    first_at: datetime
    last_at: datetime


# --- what is on disk ------------------------------------------------------------------------------------------------


def read_files(store: Store, incident: Incident) -> IncidentFiles:
    """Read all files of an incident; what cannot be read becomes a gap."""
    gaps, notices = list[Gap](), list[tuple[str, Notice, dict[str, Receipt]]]()
    snapshots = store.snapshots(incident.id, gaps)
    try:
        notices = store.notices(incident.id, gaps)
    except StoreError as error:
        if store.path(incident.id).is_dir():  # Not pruned since the incident was read.
            gaps.append(Gap(what="notices", why=str(error)))
    samples = () if incident.read_on else read_around(store, incident.id, *window(incident))
    unread = tuple(replace(gap, what="a file of this incident") for gap in gaps)
    channels = {channel for _, notice, _ in notices for channel in notice.channels}
    return IncidentFiles(incident, tuple(snapshots), samples, tuple(notices), unread, read_holdups(store, channels))


def read_holdups(store: Store, channels: Collection[str]) -> dict[str, str]:
    """Read why notices wait for these channels: what fails, or a silence that is in effect."""
    found = {}
    with suppress(StoreError):  # The service says so.
        silence, now = read_silence(store.directory), local_now()
        if silence and silence.is_on(now):
            found = dict.fromkeys(channels, f"silenced {silence_text(silence, now)}")
    return found | {name: trouble.why for name, trouble in Outbox(store).troubles().items() if name in channels}


def deliveries(notices: Notices, holdups: Mapping[str, str]) -> list[dict[str, object]]:
    """List the notifications of an incident by channel, with what came of each; ``at`` is the time of the receipt.

    The ``detail`` of a pending one is why it waits.
    """
    came = ("outcome", "at", "attempts", "detail")
    pending = {"outcome": "pending", "at": None, "attempts": None}
    return [
        {"notice": stem, "type": notice.type, "reason": notice.reason, "due_at": notice.at, "channel": channel}
        | (
            {name: getattr(receipts[channel], name) for name in came}
            if channel in receipts
            else pending | {"detail": holdups.get(channel)}
        )
        for stem, notice, receipts in notices
        for channel in dict.fromkeys((*notice.channels, *receipts))
    ]


def count_outcomes(notices: BriefNotices) -> dict[str, int]:
    """Count the notifications of an incident by outcome."""
    found = [
        receipts[channel].outcome if channel in receipts else "pending"
        for _, notice, receipts in notices
        for channel in {*notice.channels, *receipts}
    ]
    return {word: found.count(word) for word in ("pending", *OUTCOMES)}


# --- incidents list -------------------------------------------------------------------------------------------------


def print_incidents(rows: Sequence[Row]) -> None:
    """Print one incident per row."""
    print_table(HEADINGS, rows, COUNTS)


def row_of(incident: Incident, notices: BriefNotices) -> Row:
    """Make the row of an incident: open ones in bold, the first of a kind or one that is back after weeks in color."""
    is_open = incident.closed_at is None
    opened = _minute(incident.opened_at)
    lasted = OPEN if is_open else duration_text((incident.last_seen_at - incident.opened_at).total_seconds())
    cause = f"{incident.cause} ({incident.confidence})"
    events = events_total(incident) - incident.suppressed_at_least
    # The kernel's count is a lower bound.
    suppressed = f"{count_text(incident.suppressed_at_least)}+" if incident.suppressed_at_least else "-"
    sent, seen, host = _sent(notices), recurrence_text(incident, None), printable(incident.host or "-", 40)
    span = lasted if is_open else f"lasted {lasted}"
    again = f"{seen}, " if seen else ""
    also = "" if suppressed == "-" else f", {suppressed} suppressed"
    return Row(
        (incident.id, opened, lasted, cause, count_text(events), suppressed, sent, seen or "-", host),
        f"{cause}, opened {opened}, {span}, {counted(events, 'event')}{also}, sent {sent}, {again}{host}",
        " ".join(["bold"] * is_open + ["yellow"] * is_news(incident)),
    )


def _sent(notices: BriefNotices) -> str:
    """Summarize deliveries: "2/3, 1 pending", with failures in capitals."""
    counts = count_outcomes(notices)
    words = {"pending": "pending", "digested": "digested"}
    words |= {"superseded": "overtaken", "skipped": "not sent", "gave_up": "GIVEN UP"}
    others = [f"{counts[outcome]} {word}" for outcome, word in words.items() if counts[outcome]]
    return ", ".join([f"{counts['delivered']}/{sum(counts.values())}", *others]) if notices else "-"


def count_kinds(incidents: Iterable[Incident]) -> list[OfKind]:
    """Group incidents, oldest first, by kind and host; the kind that was seen last comes last."""
    spans: dict[tuple[str, str], tuple[int, datetime, datetime]] = {}
    newest: dict[tuple[str, str], Incident] = {}
    for each in incidents:
        past = past_of(each)
        key = past.host, past.signature
        count, first, last = spans.get(key, (0, past.opened_at, past.last_seen_at))
        spans[key] = count + 1, min(first, past.opened_at), max(last, past.last_seen_at)
        newest[key] = each
    kinds = [_of_kind(newest[key], *span) for key, span in spans.items()]
    return sorted(kinds, key=lambda each: each.last_at)


def _of_kind(newest: Incident, incidents: int, first_at: datetime, last_at: datetime) -> OfKind:
    kind = kind_of(newest)
    return OfKind(
        signature=past_of(newest).signature,
        cause=kind.cause,
        mechanism=kind.mechanism,
        holder=kind.holder,
        host=newest.host,
        incidents=incidents,
        first_at=first_at,
        last_at=last_at,
    )


def print_kinds(kinds: Iterable[OfKind]) -> None:
    """Print one row per kind."""
    table = []
    for k in kinds:
        cause, holder, host = f"{k.cause} ({k.mechanism})", k.holder or "-", printable(k.host or "-", 40)
        first, last = _minute(k.first_at), _minute(k.last_at)
        held = [f"held by {k.holder}"] if k.holder else []
        span = " to ".join(dict.fromkeys((first, last)))
        below = ", ".join([cause, *held, counted(k.incidents, "incident"), span, host])
        table.append(Row((k.signature, count_text(k.incidents), first, last, cause, holder, host), below))
    print_table(("KIND", "INCIDENTS", "FIRST", "LAST", "CAUSE", "HELD BY", "HOST"), table, {1})


def _minute(at: datetime) -> str:
    return f"{at.astimezone():%Y-%m-%d %H:%M}"


# --- incidents show -------------------------------------------------------------------------------------------------


def print_page(files: IncidentFiles, directory: Path) -> None:
    """Print what is known about an incident, and the directory of its files."""
    screen = console()
    for line in incident_text(files, screen.encoding, screen.width):
        screen.print(line.text, style="bold" if line.is_title else "", soft_wrap=True)
    screen.print(f"Files: {bearable(printable(str(directory)), screen.encoding)}", style="dim", soft_wrap=True)
