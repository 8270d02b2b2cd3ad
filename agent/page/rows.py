"""The texts and rows of the page: every number with its unit, every gap with its reason."""

import re
from collections.abc import Iterable, Iterator
from datetime import datetime, tzinfo
from typing import NamedTuple

from agent.core.delivery import OUTCOMES
from agent.core.format import bytes_text, count_text, counted, duration_text, percent_text
from agent.core.model import CAUSES, Holder, Incident, Pressure, Snapshot
from agent.core.recurrence import recurrence_text
from agent.core.report import holder_row, messages_text, source_text, witness_rows
from agent.core.sockets.holder_names import guess_text
from agent.core.times import seconds_between
from agent.page.incident_files import IncidentFiles
from agent.page.series import Track, Tracks, count_up, readings_of, thin

_TABLE_ROWS = 48
_UNIT = re.compile(r"(?<=\d) (?=(?:%|[KMGTPE]iB|B|s|min|h|days?)(?:\W|$))")


class Clock(NamedTuple):
    """The reader's clock: the day of ``opened_at`` is not repeated."""

    zone: tzinfo | None
    opened_at: datetime

    def stamp(self, at: datetime) -> str:
        """Format a time with date and zone."""
        return f"{at.astimezone(self.zone):%Y-%m-%d %H:%M:%S %Z}"

    def moment(self, at: datetime) -> str:
        """Format a time of day, with the date on other days than the first."""
        local = at.astimezone(self.zone)
        same = local.date() == self.opened_at.astimezone(self.zone).date()
        return f"{local:%H:%M:%S}" if same else f"{local:%d %b %H:%M:%S}"


class Figure(NamedTuple):
    """One large number, what it is, and what to compare it with."""

    number: str
    what: str
    beside: str


def figures(files: IncidentFiles, tracks: Tracks) -> list[Figure]:
    """Return the numbers that show how bad it was: peaks, connections reset, how long."""
    incident, found = files.incident, []
    unit = tracks.mem_unit_bytes
    mem = None if incident.peak.mem is None or unit is None else incident.peak.mem * unit
    for track, what, peak in (
        (tracks.orphans, "orphaned sockets", incident.peak.orphan),
        (tracks.memory, "TCP memory", mem),
    ):
        known = [value for value in (peak, track.peak.value if track.peak else None) if value is not None]
        if known:
            found.append(Figure(track.text(max(known)), f"{what} at the peak", _share(max(known), track)))
    killed = count_up(readings_of(incident, _snapshots(files), files.samples), "TCPAbortOnMemory")
    if killed is not None:
        found.append(
            Figure(
                count_text(killed),
                "connections reset",
                "TCPAbortOnMemory over the time shown, all network namespaces",
            )
        )
    found.append(Figure(*_lasted(incident)))
    return found


def facts(files: IncidentFiles, clock: Clock) -> list[tuple[str, str]]:
    """List host, times, cause and source."""
    incident = files.incident
    said = _is_dated_by_messages(incident)
    rows = [
        ("Host", incident.host or "unknown"),
        ("Kernel", f"Linux {incident.kernel}" if incident.kernel else "unknown"),
        ("First message" if said else "Opened", clock.stamp(incident.opened_at)),
        ("Last message" if said else "Last sign", clock.stamp(incident.last_seen_at)),
        ("Cause", f"{CAUSES[incident.cause]}, {incident.confidence}"),
        *([("Recurrence", often)] if (often := recurrence_text(incident, clock.zone)) else []),
        ("Closed", clock.stamp(incident.closed_at) if incident.closed_at else "still open"),
        ("Source", source_text(incident)),
        ("Kernel messages", messages_text(incident) or "none"),
        *(
            (label.capitalize(), text)
            for label, text in (*witness_rows(incident), *holder_row(incident.diagnosis, incident.witness))
        ),
    ]
    warning = incident.pressure
    if warning:
        measured = _measured(warning)
        rows.append(("Early warning", f"{warning.claim.replace('_', ' ')}{f': {measured}' if measured else ''}"))
    return rows


def _measured(warning: Pressure) -> str:
    value, limit = count_text(warning.value), count_text(warning.limit)
    if value in warning.claim:
        return ""
    if warning.unit is None:
        return f"{value} of {limit} {'sockets' if warning.cause == 'orphans' else 'pages'}"
    return f"{value} {warning.unit} (threshold {limit})" if warning.unit else ""


def caption(track: Track, clock: Clock) -> str:
    """Describe a chart in one sentence, which is also its text alternative."""
    words, peak = track.text, track.peak
    if peak is None:
        return ""
    points, limit = track.points, track.limit
    share = percent_text(peak.value, limit) if limit is not None else None
    against = f", {share} of the limit {words(limit)}" if share and limit is not None else ", limit unknown"
    return (
        f"From {clock.moment(points[0].at)} to {clock.moment(points[-1].at)}: {words(points[0].value)} at first, "
        f"{words(peak.value)} at the peak ({clock.moment(peak.at)}){against}, {words(points[-1].value)} at the end."
    )


def penalty(files: IncidentFiles) -> str:
    """Return at which part of the orphan limit the kernel acted; "" if at all of it."""
    mechanism = files.incident.diagnosis.mechanism
    if not mechanism.penalty_shift or mechanism.limit_reached is None:
        return ""
    times = "twice" if mechanism.penalty_shift == 1 else "four times"
    return f"The kernel counted stuck sockets {times}: it acted at {count_text(mechanism.limit_reached)}."


def changes(files: IncidentFiles, clock: Clock) -> Iterator[str]:
    """Yield the limits that changed in the time the charts show."""
    last: dict[str, tuple[int, ...]] = {}
    for reading in readings_of(files.incident, _snapshots(files), files.samples):
        orphans = None if reading.tcp_max_orphans is None else (reading.tcp_max_orphans,)
        for key, now in (("net.ipv4.tcp_max_orphans", orphans), ("net.ipv4.tcp_mem", reading.tcp_mem)):
            if now is None:
                continue
            if last.get(key, now) != now:
                at = clock.moment(reading.at)
                yield f"{key} changed from {numbers(last[key])} to {numbers(now)}, seen at {at}."
            last[key] = now


def table(tracks: Tracks, clock: Clock) -> list[tuple[str, str, str]]:
    """List readings of both gauges, peaks included: time, orphans, memory."""
    orphans, memory = dict(tracks.orphans.points), dict(tracks.memory.points)
    most = _TABLE_ROWS // 2
    moments = {p.at for p in (*thin(tracks.orphans.points, most), *thin(tracks.memory.points, most))}
    return [
        (
            clock.moment(at),
            count_text(orphans[at]) if at in orphans else "no reading",
            bytes_text(memory[at]) if at in memory else "no reading",
        )
        for at in sorted(moments)
    ]


class HolderRow(NamedTuple):
    """Who holds sockets, in words; ``share`` is the length of the bar, as a part of the longest."""

    name: str
    kind: str
    amount: str
    details: str
    share: float


def holder_rows(incident: Incident) -> list[HolderRow]:
    """List who holds what: bars by orphans where those are the cause, by bytes elsewhere."""
    by_orphans = incident.cause == "orphans"
    values = [max(0, each.orphans if by_orphans else each.bytes) for each in incident.diagnosis.holders]
    longest = max([1, *values])
    return [
        _holder_row(holder, value / longest, by_orphans=by_orphans)
        for holder, value in zip(incident.diagnosis.holders, values, strict=True)
    ]


def notifications(files: IncidentFiles, clock: Clock) -> list[tuple[str, str, str, str]]:
    """List the notifications: when due, channel, what, and the outcome, or since when it waits and why."""
    rows = []
    for _, notice, receipts in files.notices:
        for channel in dict.fromkeys((*notice.channels, *receipts)):
            receipt = receipts.get(channel)
            why = files.holdups.get(channel)
            outcome = f"waiting since {clock.moment(notice.at)}" + (f": {why}" if why else "")
            if receipt:
                came = f"{OUTCOMES[receipt.outcome]} {clock.moment(receipt.at)}"
                # How often a notice was tried that a later one overtook is not kept.
                tried = f", {counted(receipt.attempts, 'attempt')}" if receipt.attempts else ""
                outcome = f"{came}{tried}: {receipt.detail}"
            what = f"{notice.type.rpartition('.')[2]}: {notice.reason}"
            rows.append((clock.moment(notice.at), channel, what, outcome))
    return rows


def prose(text: str) -> str:
    """Keep a number and its unit on one line."""
    return _UNIT.sub("\u00a0", text)


def numbers(values: int | Iterable[int] | None) -> str:
    """Write one or several integers with grouped digits."""
    if values is None:
        return "unknown"
    return count_text(values) if isinstance(values, int) else " / ".join(count_text(each) for each in values)


# --- parts ----------------------------------------------------------------------------------------------------------


def _snapshots(files: IncidentFiles) -> list[Snapshot]:
    return [snapshot for _, snapshot in files.snapshots]


def _share(value: int, track: Track) -> str:
    if track.limit is None:
        return "limit unknown"
    share = percent_text(value, track.limit)
    return f"{share} of the limit, {track.text(track.limit)}" if share else f"limit {track.text(track.limit)}"


def _is_dated_by_messages(incident: Incident) -> bool:
    """Return whether its times are those of messages: kills in the trace and gauges date it, too."""
    traced = incident.witness is not None and incident.witness.kills
    return incident.first_event is not None and not traced and incident.pressure is None


def _lasted(incident: Incident) -> tuple[str, str, str]:
    seconds = seconds_between(incident.opened_at, incident.last_seen_at)
    said = duration_text(seconds) if seconds > 0 else "under a second"
    what = "message" if _is_dated_by_messages(incident) else "sign"
    return said, f"from the first to the last {what}", "resolved" if incident.closed_at else "still open"


def _holder_row(holder: Holder, share: float, *, by_orphans: bool) -> HolderRow:
    name = holder.unit or holder.container or holder.process
    kind = "unit" if holder.unit else "container" if holder.container else "process" if name else ""
    amounts = [counted(holder.orphans, "orphan"), bytes_text(holder.bytes)]
    ports = (
        f"{'port' if len(holder.ports) == 1 else 'ports'} {', '.join(map(str, holder.ports))}" if holder.ports else ""
    )
    peers = f"peers {', '.join(holder.peers)}" if holder.peers else ""
    details = [guess_text(holder), amounts[by_orphans], counted(holder.sockets, "socket"), ports, peers]
    return HolderRow(
        name or "unattributed",
        kind,
        amounts[not by_orphans],
        " · ".join(each for each in details if each),
        share,
    )
