"""One incident as text for a terminal: what, when, why, what to do, and who was notified.

agent.core.report words the diagnosis; this module adds the incident's own facts.
"""

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Literal

import msgspec
from msgspec.structs import replace

from agent.cli.common import console, stamp, warn
from agent.core.delivery import OUTCOMES, Outcome
from agent.core.format import bytes_text, count_text, counted, duration_text, percent_text, printable
from agent.core.model import Event, Incident, NoticeType, Snapshot
from agent.core.readings import Gap, TcpSockstat
from agent.core.report import SOURCES, diagnosis_text
from agent.page.incident_files import Story
from agent.page.series import BLOCKS, Track, Tracks, build_tracks, sparkline, window
from agent.store import Store, StoreError, read_around

if TYPE_CHECKING:
    from rich.console import Console

MOST_COLUMNS, LEAST_COLUMNS = 72, 20
PLAIN = str.maketrans({"«": '"', "»": '"', "…": "...", "\u00a0": " "})
# The text beside the blocks: two blanks, the name, "peak 16,391 of 16,384 (100 %)".
BESIDE_COLUMNS = 46

OPEN = "OPEN"


class DeliveryRow(msgspec.Struct, frozen=True, kw_only=True):
    """A notification to one channel and its outcome; ``at`` is the time of the receipt."""

    notice: str
    type: NoticeType
    reason: str
    due_at: datetime
    channel: str
    outcome: Outcome | Literal["pending"] = "pending"
    at: datetime | None = None
    attempts: int | None = None
    detail: str | None = None


def read_deliveries(store: Store, incident_id: str) -> tuple[list[DeliveryRow], str | None]:
    """List the notifications of an incident by channel, and what of them cannot be read."""
    found, unread = [], list[Gap]()
    try:
        notices = store.notices(incident_id, unread)
    except StoreError as error:
        return [], str(error)
    for stem, notice, receipts in notices:
        for channel in notice.channels:
            deliveries = DeliveryRow(
                notice=stem, type=notice.type, reason=notice.reason, due_at=notice.at, channel=channel
            )
            receipt = receipts.get(channel)
            if receipt:
                deliveries = replace(
                    deliveries, outcome=receipt.outcome, at=receipt.at, attempts=receipt.attempts, detail=receipt.detail
                )
            found.append(deliveries)
    return found, "; ".join(gap.why for gap in unread) or None


def delivery_text(deliveries: list[DeliveryRow]) -> str:
    """Summarize deliveries: "2/3, 1 pending", with failures in capitals."""
    counts = {word: sum(entry.outcome == word for entry in deliveries) for word in ("pending", *OUTCOMES)}
    parts = [f"{counts['delivered']}/{len(deliveries)}"]
    parts += [f"{counts['pending']} pending"] if counts["pending"] else []
    parts += [f"{counts['digested']} digested"] if counts["digested"] else []
    parts += [f"{counts['skipped']} not sent"] if counts["skipped"] else []
    parts += [f"{counts['gave_up']} GIVEN UP"] if counts["gave_up"] else []
    return ", ".join(parts) if deliveries else "-"


def lasted(incident: Incident) -> str:
    """Return the time from the first event to the last; "OPEN" for an open incident."""
    span = duration_text((incident.last_seen_at - incident.opened_at).total_seconds())
    return span if incident.closed_at else OPEN


def suppressed_text(incident: Incident) -> str:
    """Return how many messages were suppressed at least: the kernel's count is a lower bound."""
    return f"{count_text(incident.suppressed_at_least)}+" if incident.suppressed_at_least else "-"


def tell_story(store: Store, incident: Incident) -> Story:
    """Read all files of an incident; what cannot be read becomes a gap."""
    gaps = list[Gap]()
    snapshots = store.named_snapshots(incident.id, gaps)
    try:
        notices = store.notices(incident.id, gaps)
    except StoreError as error:
        notices = []
        gaps.append(Gap(what="notices", why=str(error)))
    return Story(
        incident=incident,
        snapshots=tuple(snapshots),
        samples=read_around(store, incident.id, *window(incident)),
        notices=tuple(notices),
        unread=tuple(replace(gap, what="a file of this incident") for gap in gaps),
    )


def print_page(store: Store, incident: Incident, deliveries: list[DeliveryRow]) -> None:
    """Print the page."""
    screen = console()
    gaps = list[Gap]()
    snapshots = store.named_snapshots(incident.id, gaps)
    for gap in gaps:
        warn(gap.why)
    drawn = _gauges_over_time(store, incident, [snapshot for _, snapshot in snapshots], screen)
    for title, lines in (
        (f"Incident {incident.id}: {incident.cause} ({incident.confidence})", _facts(incident)),
        ("Gauges", drawn or ["no readings: history goes back 48 hours"]),
        ("Timeline", _timeline(incident, snapshots, deliveries)),
        ("Diagnosis", diagnosis_text(incident.diagnosis).splitlines()),
        ("Notifications", [_delivery_line(entry) for entry in deliveries] or ["none"]),
    ):
        screen.print(title, style="bold")
        for line in lines:
            screen.print(f"  {bearable(line, screen.encoding)}".rstrip(), soft_wrap=True)
        screen.print()
    screen.print(f"Files: {store.path(incident.id)}", style="dim", soft_wrap=True)


def _gauges_over_time(store: Store, incident: Incident, snapshots: list[Snapshot], screen: "Console") -> list[str]:
    """Draw both gauges against their limits on one time axis."""
    samples = read_around(store, incident.id, *window(incident))
    return _drawn(build_tracks(incident, snapshots, samples), screen)


def _drawn(tracks: Tracks, screen: "Console") -> list[str]:
    shown = [track for track in (tracks.orphans, tracks.memory) if track.peak]
    if not shown:
        return []
    start = min(track.points[0].at for track in shown)
    end = max(track.points[-1].at for track in shown)
    columns = max(LEAST_COLUMNS, min(MOST_COLUMNS, screen.width - BESIDE_COLUMNS))
    plain = not can_draw(screen.encoding)
    lines = [
        f"{track.gauge:<8}{sparkline(track, start, end, columns, ascii_only=plain)}  {_against(track)}"
        for track in shown
    ]
    full = "the limit" if any(track.limit for track in shown) else "the peak"
    form = "%H:%M:%S" if end - start < timedelta(days=1) else "%Y-%m-%d %H:%M"
    return [*lines, f"{'':<8}{start.astimezone():{form}} to {stamp(end)}; a full column is {full}"]


def bearable(line: str, encoding: str) -> str:
    """Replace characters that this encoding lacks by their numbers."""
    try:
        return line.encode(encoding).decode(encoding)
    except (UnicodeEncodeError, LookupError):
        return line.translate(PLAIN).encode("ascii", "backslashreplace").decode("ascii")


def can_draw(encoding: str) -> bool:
    """Return whether the terminal's encoding has the blocks of sparklines."""
    try:
        BLOCKS.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _against(track: Track) -> str:
    words = bytes_text if track.gauge == "mem" else count_text
    peak = track.peak.value if track.peak else 0
    if track.limit is None:
        return f"peak {words(peak)}, limit unknown"
    return f"peak {words(peak)} of {words(track.limit)} ({percent_text(peak, track.limit)})"


def _facts(incident: Incident) -> list[str]:
    closed = f"closed {stamp(incident.closed_at)}" if incident.closed_at else "still OPEN"
    events = ", ".join(f"{kind} {count_text(n)}" for kind, n in incident.events.items() if kind != "suppressed")
    return [
        f"host      {printable(incident.host or 'unknown')}, Linux {printable(incident.kernel or 'unknown')}",
        f"lasted    {duration_text((incident.last_seen_at - incident.opened_at).total_seconds())}, {closed}",
        f"events    {events or 'none'}; suppressed at least {count_text(incident.suppressed_at_least)}",
        f"source    {SOURCES[incident.provenance]}",
        f"peak      {_peak(incident)}",
        *_first_line(incident.first_event),
    ]


def _first_line(event: Event | None) -> list[str]:
    if event is None:
        return ["line      none: opened by the gauges"]
    return [f"log       {printable(event.source)}", f"line      «{printable(event.line, 400)}»"]


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
    return "; ".join(parts) or "unknown"


def _timeline(incident: Incident, snapshots: list[tuple[str, Snapshot]], deliveries: list[DeliveryRow]) -> list[str]:
    """List everything that has a time in order."""
    moments: list[tuple[datetime, str]] = [(incident.opened_at, "first event")]
    if incident.last_seen_at != incident.opened_at:
        moments.append((incident.last_seen_at, "last event"))
    moments += [(each.taken_at, f"{name} ({each.trigger}): {_gauges(each)}") for name, each in snapshots]
    notices = {entry.notice: entry for entry in deliveries}
    moments += [(e.due_at, f"{name}: {_type(e)}, {printable(e.reason)}") for name, e in notices.items()]
    if incident.closed_at:
        moments.append((incident.closed_at, "closed"))
    moments.sort(key=lambda moment: moment[0])
    return [f"{stamp(at)}  {_since((at - incident.opened_at).total_seconds()):>12}  {text}" for at, text in moments]


def _since(seconds: float) -> str:
    """Format the time since the first event; the first readings follow within milliseconds, which matters."""
    return f"+{seconds:.3f} s" if abs(seconds) < 1 else f"+{duration_text(seconds)}"


def _gauges(snapshot: Snapshot) -> str:
    tcp = snapshot.sockstat.tcp if snapshot.sockstat else TcpSockstat()
    values = {"orphan": tcp.orphan, "mem": tcp.mem, "alloc": tcp.alloc}
    return ", ".join(f"{name} {count_text(n)}" for name, n in values.items() if n is not None) or "no numbers"


def _type(entry: DeliveryRow) -> str:
    return entry.type.rpartition(".")[2]


def _delivery_line(entry: DeliveryRow) -> str:
    head = f"{entry.notice}  {_type(entry):<8}  {entry.channel}: "
    if entry.at is None or entry.outcome == "pending":
        return head + f"pending since {stamp(entry.due_at)}"
    word = OUTCOMES[entry.outcome].upper() if entry.outcome == "gave_up" else OUTCOMES[entry.outcome]
    return (
        head
        + f"{word} {stamp(entry.at)} after {counted(entry.attempts or 0, 'attempt')}: {printable(entry.detail or '-')}"
    )
