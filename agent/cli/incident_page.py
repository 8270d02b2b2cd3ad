"""One incident as a page for a terminal: what, when, why, what to do, and who was told.

The words of the diagnosis are agent.core.report's; this module puts the incident's own facts around them.
"""

from datetime import datetime
from typing import Literal

import msgspec
from msgspec.structs import replace

from agent.cli.common import console, stamp, warn
from agent.core.model import Incident, NoticeType, Outcome, Snapshot, TcpSockstat
from agent.core.report import diagnosis_text
from agent.core.words import count_text, duration_text, printable
from agent.store import Store, StoreError

PROOF = {
    "kernel": "the source proves that the kernel wrote it",
    "claimed": "a text log says so, which any local user can write to",
}


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What was to be said to one channel, and what came of it; ``at`` is the time of the receipt."""

    notice: str
    type: NoticeType
    reason: str
    due_at: datetime
    channel: str
    outcome: Outcome | Literal["pending"] = "pending"
    at: datetime | None = None
    attempts: int | None = None
    detail: str | None = None


def deliveries(store: Store, incident_id: str) -> tuple[list[Told], str | None]:
    """List who was to be told what; and why not, where that cannot be read."""
    found = []
    try:
        notices = store.notices(incident_id)
    except StoreError as error:
        return [], str(error)
    for stem, notice, receipts in notices:
        for channel in notice.channels:
            told = Told(notice=stem, type=notice.type, reason=notice.reason, due_at=notice.at, channel=channel)
            receipt = receipts.get(channel)
            if receipt:
                told = replace(
                    told, outcome=receipt.outcome, at=receipt.at, attempts=receipt.attempts, detail=receipt.detail
                )
            found.append(told)
    return found, None


def told_text(told: list[Told]) -> str:
    """Sum deliveries up: "2/3, 1 pending"; what was given up is louder."""
    counts = {word: sum(entry.outcome == word for entry in told) for word in ("delivered", "pending", "gave_up")}
    parts = [f"{counts['delivered']}/{len(told)}"]
    parts += [f"{counts['pending']} pending"] if counts["pending"] else []
    parts += [f"{counts['gave_up']} GIVEN UP"] if counts["gave_up"] else []
    return ", ".join(parts) if told else "-"


def lasted(incident: Incident) -> str:
    """Say how long the kernel complained, from the first event to the last; "OPEN" as long as it may go on."""
    span = duration_text((incident.last_seen_at - incident.opened_at).total_seconds())
    return span if incident.closed_at else "OPEN"


def suppressed_text(incident: Incident) -> str:
    """Say how many events were swallowed at least: what the kernel counts is a lower bound for the incident."""
    return f"{count_text(incident.suppressed_at_least)}+" if incident.suppressed_at_least else "-"


def print_page(store: Store, incident: Incident, told: list[Told]) -> None:
    """Print the page."""
    screen = console()
    for title, lines in (
        (f"Incident {incident.id}: {incident.cause} ({incident.confidence})", _facts(incident)),
        ("Timeline", _timeline(store, incident, told)),
        ("Diagnosis", diagnosis_text(incident.diagnosis).splitlines()),
        ("Told", [_told_line(entry) for entry in told] or ["nobody: no channel was to be told yet"]),
    ):
        screen.print(title, style="bold")
        for line in lines:
            screen.print(f"  {line}".rstrip(), soft_wrap=True)
        screen.print()
    screen.print(f"Files: {store.path(incident.id)}", style="dim", soft_wrap=True)


def _facts(incident: Incident) -> list[str]:
    closed = f"closed {stamp(incident.closed_at)}" if incident.closed_at else "still OPEN"
    events = ", ".join(f"{kind} {count_text(n)}" for kind, n in incident.events.items() if kind != "suppressed")
    return [
        f"host      {printable(incident.host or 'unknown')}, Linux {printable(incident.kernel or 'unknown')}",
        f"lasted    {duration_text((incident.last_seen_at - incident.opened_at).total_seconds())}, {closed}",
        f"events    {events or 'none'}; suppressed at least {count_text(incident.suppressed_at_least)}",
        f"proof     {incident.provenance}: {PROOF[incident.provenance]}",
        f"peak      {_peak(incident)}",
        f"source    {printable(incident.first_event.source)}",
        f"line      «{printable(incident.first_event.line, 400)}»",
    ]


def _peak(incident: Incident) -> str:
    peak = incident.peak
    parts = [
        f"{name} {count_text(value)}{unit}" + (f" at {stamp(at)}" if at else "")
        for name, value, unit, at in (
            ("orphan", peak.orphan, "", peak.orphan_at),
            ("mem", peak.mem, " pages", peak.mem_at),
        )
        if value is not None
    ]
    return "; ".join(parts) or "not known"


def _timeline(store: Store, incident: Incident, told: list[Told]) -> list[str]:
    """Put everything that has a time into one order."""
    moments: list[tuple[datetime, str]] = [(incident.opened_at, "first event")]
    if incident.last_seen_at != incident.opened_at:
        moments.append((incident.last_seen_at, "last event"))
    try:
        names = zip(incident.snapshots, store.snapshots(incident.id), strict=True)
        moments += [
            (snapshot.taken_at, f"{name} ({snapshot.trigger}): {_gauges(snapshot)}") for name, snapshot in names
        ]
    except StoreError as error:
        warn(str(error))
    notices = {entry.notice: entry for entry in told}
    moments += [(e.due_at, f"{name}: {_type(e)}, because {printable(e.reason)}") for name, e in notices.items()]
    if incident.closed_at:
        moments.append((incident.closed_at, "closed"))
    moments.sort(key=lambda moment: moment[0])
    return [f"{stamp(at)}  {_since((at - incident.opened_at).total_seconds()):>12}  {text}" for at, text in moments]


def _since(seconds: float) -> str:
    """Say how long after the first event: the first readings are milliseconds behind it, and that matters."""
    return f"+{seconds:.3f} s" if abs(seconds) < 1 else f"+{duration_text(seconds)}"


def _gauges(snapshot: Snapshot) -> str:
    tcp = snapshot.sockstat.tcp if snapshot.sockstat else TcpSockstat()
    values = {"orphan": tcp.orphan, "mem": tcp.mem, "alloc": tcp.alloc}
    return ", ".join(f"{name} {count_text(n)}" for name, n in values.items() if n is not None) or "no numbers"


def _type(entry: Told) -> str:
    return entry.type.rpartition(".")[2]


def _told_line(entry: Told) -> str:
    head = f"{entry.notice}  {_type(entry):<8}  {entry.channel}: "
    if entry.at is None:
        return head + f"pending since {stamp(entry.due_at)}"
    attempts = f"{entry.attempts} attempt" + ("" if entry.attempts == 1 else "s")
    word = "delivered" if entry.outcome == "delivered" else "GIVEN UP"
    return head + f"{word} {stamp(entry.at)} after {attempts}: {printable(entry.detail or '-')}"
