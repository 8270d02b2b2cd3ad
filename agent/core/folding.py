"""Folding events into an incident, and every rule of noise in one place.

Theory of operation
-------------------
An incident is opened by the first event, takes in every further one, and is closed when none has come for
``quiet_seconds``. Two clocks are at work, and they are kept apart. The *log's* clock stamps the events: two events
further apart than the quiet period are two incidents, also when both are read in one batch after a restart. The
*agent's* clock says when the last event arrived: only that one may close an incident that is still being fed, since
a log written in another time zone, or stamped with no year, would otherwise close everything at once.

The kernel's own trace may see sockets killed of which no line tells: they open an incident, too, and keep it open.

A ``suppressed`` line never opens an incident; it says how many messages the kernel swallowed before it: of the kind of
the lines before it in the same burst, else of some network message.

What people are notified of: that an incident opened; that it got worse (another cause, or ten times the events); that
it is over. A further "ten times" waits fifteen minutes after the last notification, so that a storm makes three
notifications and not thirty.
"""

import hashlib
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta, timezone

from msgspec.structs import replace

from agent.core.facts import BURST_SECONDS
from agent.core.format import count_text
from agent.core.hosts import may_be_same, other_host
from agent.core.kernel.tracing import KILL_EVENT
from agent.core.model import (
    CAUSES,
    KINDS,
    Diagnosis,
    Event,
    Incident,
    Kind,
    LogRecord,
    Notice,
    NoticeType,
    Peak,
    Pressure,
    Sample,
    Snapshot,
)
from agent.core.settings import Claimed
from agent.core.sockets.holder_names import losers_named, main_holder, main_victim

WORSE_FACTOR = 10
# Messages that were suppressed are of the lines before them, no further back than this.
BURST = timedelta(seconds=BURST_SECONDS)
UPDATE_SPACING = timedelta(minutes=15)
# The opening of a burst says one line, and seconds later there are hundreds: that alone is no news.
COUNT_SPACING = timedelta(minutes=1)


def incident_id(opened_at: datetime, line: str, attempt: int = 0) -> str:
    """Make the id that the first record of an incident always gets, whenever it is read again.

    ``opened_at`` is UTC. ``attempt`` counts the ids that other incidents have already taken.
    """
    digest = hashlib.sha256(f"{attempt}\n{line}".encode()).hexdigest()
    return f"{opened_at:%Y%m%dT%H%M%SZ}-{digest[:4]}"


def open_incident(event: Event, at: datetime, snapshot: Snapshot, diagnosis: Diagnosis, attempt: int = 0) -> Incident:
    """Open an incident with its first event, which happened ``at`` (timezone.utc)."""
    return replace(
        _opened(event.line, at, snapshot, diagnosis, attempt),
        host=event.host or snapshot.host,
        read_on=snapshot.host if other_host(event.host, snapshot.host) else None,
        events={event.kind: event.count},
        provenance=event.provenance,
        first_event=event,
        last_of_kind=(event,),
    )


def open_pressure(
    pressure: Pressure, at: datetime, snapshot: Snapshot, diagnosis: Diagnosis, attempt: int = 0
) -> Incident:
    """Open an incident because the gauges are high ``at`` (timezone.utc), before or without a line."""
    opened = _opened(pressure.claim, at.astimezone(timezone.utc), snapshot, diagnosis, attempt)
    return replace(opened, class_="pressure", pressure=pressure)


def open_killed(at: datetime, snapshot: Snapshot, diagnosis: Diagnosis, attempt: int = 0) -> Incident:
    """Open an incident because the kernel's trace saw sockets killed from ``at`` on, and no line says so."""
    opened = _opened(KILL_EVENT, at.astimezone(timezone.utc), snapshot, diagnosis, attempt)
    return replace(opened, events=dict.fromkeys(KINDS, 0))


def _opened(claim: str, at: datetime, snapshot: Snapshot, diagnosis: Diagnosis, attempt: int) -> Incident:
    return Incident(
        id=incident_id(at, claim, attempt),
        host=snapshot.host,
        kernel=snapshot.kernel,
        boot_id=snapshot.boot_id,
        opened_at=at,
        last_seen_at=at,
        events={},
        provenance="kernel",
        cause=diagnosis.cause,
        confidence=diagnosis.confidence,
        summary=diagnosis.summary,
        diagnosis=diagnosis,
    )


def note_pressure(incident: Incident, pressure: Pressure, at: datetime) -> Incident:
    """Note that the gauges are high: the incident goes on, and the worst warning of it is kept."""
    worst = incident.pressure
    if worst is None or pressure.level > worst.level:
        worst = pressure
    return replace(incident, last_seen_at=max(incident.last_seen_at, at.astimezone(timezone.utc)), pressure=worst)


def note_kills(incident: Incident, at: datetime) -> Incident:
    """Note that the kernel's trace saw sockets killed ``at``: that proves an incident, whatever opened it."""
    return replace(
        incident,
        class_="event",
        provenance="kernel",
        events=incident.events or dict.fromkeys(KINDS, 0),
        last_seen_at=max(incident.last_seen_at, at.astimezone(timezone.utc)),
    )


def fold(incident: Incident, event: Event, at: datetime, *, leading: bool = False) -> Incident:
    """Take one more event into an incident; one that the gauges opened becomes the kernel's own.

    The host stays that of the opening: receivers tell incidents apart by it. ``leading``: it was logged before the
    incident's first line.
    """
    events = dict(incident.events)
    events[event.kind] = events.get(event.kind, 0) + event.count
    said = event.kind != "suppressed"
    suppressed, at_least = incident.suppressed, incident.suppressed_at_least
    if event.suppressed:
        source, more = _source_of_suppressed(incident, at, leading=leading), event.suppressed * event.count
        suppressed = suppressed | {source: suppressed.get(source, 0) + more}
        at_least += 0 if source == "suppressed" else more
    before = incident.provenance if incident.class_ == "event" else event.provenance
    others = tuple(e for e in incident.last_of_kind if e.kind != event.kind)
    return replace(
        incident,
        class_="event" if said else incident.class_,
        first_event=incident.first_event or (event if said else None),
        last_seen_at=max(incident.last_seen_at, at),
        events=events,
        suppressed_at_least=at_least,
        suppressed=suppressed,
        provenance="kernel" if "kernel" in (before, event.provenance) else "claimed",
        last_of_kind=(*others, event),
    )


def _source_of_suppressed(incident: Incident, at: datetime, *, leading: bool) -> Kind:
    """Return the kind of the lines before a suppressed line in its burst; "suppressed" where there are none.

    net_ratelimit() reports what it swallowed with the next message of any kind: minutes later, just ahead of another.
    """
    *_, before = (None, *(each for each in incident.last_of_kind if each.kind != "suppressed"))
    if before is None or leading or (before.at and at - before.at > BURST):
        return "suppressed"
    return before.kind


def together(decided: Iterable[tuple[LogRecord, Event]], span: timedelta) -> Iterator[tuple[LogRecord, Event]]:
    """Count neighbours that say the same in one event: the first stays alone, all others become the last of them.

    Incidents come out as if each had been folded alone: the first may open one, and by the log's clock, which
    does not go back among them, the others are within ``span`` of it.
    """
    first: Event | None = None
    last: tuple[LogRecord, Event] | None = None
    before: Event | None = None
    count = 0
    for record, event in decided:
        if first and before and _says_the_same(first, before, event, span):
            last, count = (record, event), count + event.count
        else:
            if last:
                yield last[0], replace(last[1], count=count)
            yield record, event
            first, last, count = event, None, 0
        before = event
    if last:
        yield last[0], replace(last[1], count=count)


def _says_the_same(first: Event, before: Event, event: Event, span: timedelta) -> bool:
    if event.kind != first.kind or event.kind == "suppressed" or event.provenance != first.provenance:
        return False
    if not may_be_same(event.host, first.host):
        return False
    if event.at is None or before.at is None or first.at is None:
        return event.at is before.at is first.at
    return before.at <= event.at and event.at - first.at <= span


def events_to_diagnose(incident: Incident) -> tuple[Event, ...]:
    """Return the events that a diagnosis needs: the newest of each kind, and the first, before which it all began.

    Another host's lines may spell its name in several ways; an incident has one.
    """
    first, events = incident.first_event, incident.last_of_kind
    events = events if first is None or first in events else (*events, first)
    return tuple(replace(event, host=incident.host) for event in events) if incident.read_on else events


def is_another(last: datetime, at: datetime, quiet: timedelta) -> bool:
    """Return whether an event is too far from the last of an incident, by the log's own clock, to be part of it."""
    return at - last > quiet


def close(incident: Incident, now: datetime, quiet: timedelta) -> Incident:
    """Close an incident: at the end of its quiet period by the log's clock, or now where that lies ahead.

    A log whose clock is ahead of ours closes with its last event, never before it.
    """
    return replace(incident, closed_at=max(incident.last_seen_at, min(now, incident.last_seen_at + quiet)))


def with_diagnosis(incident: Incident, diagnosis: Diagnosis) -> Incident:
    """Put a new diagnosis into an incident."""
    return replace(
        incident,
        cause=diagnosis.cause,
        confidence=diagnosis.confidence,
        summary=diagnosis.summary,
        diagnosis=diagnosis,
    )


def raise_peak(peak: Peak, sample: Sample) -> Peak:
    """Raise the peaks to a sample's gauges where those are higher."""
    if sample.orphan is not None and (peak.orphan is None or sample.orphan > peak.orphan):
        peak = replace(peak, orphan=sample.orphan, orphan_at=sample.at)
    if sample.mem is not None and (peak.mem is None or sample.mem > peak.mem):
        peak = replace(peak, mem=sample.mem, mem_at=sample.at)
    return peak


def events_total(incident: Incident) -> int:
    """Count the kernel's messages, with those that it says it suppressed."""
    return sum(n for kind, n in incident.events.items() if kind != "suppressed") + incident.suppressed_at_least


def notice(incident: Incident, reason: tuple[NoticeType, str], channels: tuple[str, ...], now: datetime) -> Notice:
    """Make the next notice of an incident, which holds the incident as it is with this notice in it."""
    number = len(incident.notices) + 1
    return Notice(
        id=f"msg_{incident.id}_{number:03}",
        type=reason[0],
        at=now,
        reason=reason[1],
        channels=channels,
        data=replace(incident, notices=(*incident.notices, f"notice-{number:03}.json"), resume=None, beside=()),
    )


def is_hearsay(incident: Incident, claimed: Claimed) -> bool:
    """Return whether its lines send no notification: any user can forge them, and the configuration says "record"."""
    return claimed == "record" and incident.class_ == "event" and incident.provenance == "claimed"


def notify_reason(
    incident: Incident, told: Notice | None, now: datetime, claimed: Claimed = "notify"
) -> tuple[NoticeType, str] | None:
    """Decide whether a notification is due, and why.

    ``told`` is the last notice of this incident, None when there was none. ``claimed`` is the configuration's.
    """
    hearsay = is_hearsay(incident, claimed)
    if told is None or told.data is None:
        if incident.class_ == "pressure" or hearsay:
            return ("sockmem.incident.opened", incident.pressure.claim) if incident.pressure else None
        who = "a text log claims that " if incident.provenance == "claimed" else ""
        return "sockmem.incident.opened", f"{who}the kernel hit a TCP limit"
    if incident.closed_at is not None:
        return None if told.data.closed_at is not None else ("sockmem.incident.resolved", _over(incident))
    # By its size: a clock that was set back would keep the next word waiting for as long.
    since = abs(now - told.at)
    spaced = told.type.endswith("opened") or since >= UPDATE_SPACING
    counted = since >= (COUNT_SPACING if told.type.endswith("opened") else UPDATE_SPACING)
    worse = _worse(incident, told.data, spaced=spaced, counted=counted)
    worse = _gauges_worse(incident, told.data) if hearsay else worse
    return ("sockmem.incident.updated", worse) if worse else None


def _over(incident: Incident) -> str:
    return "no further resets" if _kills(incident) and not events_total(incident) else "no further messages"


def _gauges_worse(incident: Incident, before: Incident) -> str | None:
    if incident.pressure and (before.pressure is None or incident.pressure.level > before.pressure.level):
        return incident.pressure.claim
    lost, told = (losers_named(each.diagnosis.findings) for each in (incident, before))
    return f"data is being lost by {lost}" if incident.class_ == "pressure" and lost and not told else None


def _confirmed(incident: Incident, before: Incident) -> str | None:
    if incident.class_ != before.class_ and incident.provenance == "claimed":
        return "a text log claims what the gauges warned of"
    if incident.class_ != before.class_:
        return "the kernel has confirmed the warning"
    if incident.provenance == "kernel" != before.provenance:
        return f"confirmed by the kernel's own {'message' if incident.is_logged_by_kernel else 'trace'}"
    return None


def _worse(incident: Incident, before: Incident, *, spaced: bool, counted: bool) -> str | None:
    """Return in what an incident is worse than its last notification said, if it is.

    ``spaced``: the last notification is not recent. A change that may revert waits for that; others need not.
    ``counted``: nor is it so recent that more lines are no news.
    """
    if confirmed := _confirmed(incident, before):
        return confirmed
    if incident.cause != before.cause and (spaced or incident.cause == "both"):
        return f"the cause is now {CAUSES[incident.cause]} (was {CAUSES[before.cause]})"
    # Claimed lines may be forged: where they told of nothing that the gauges warn of, the warning is news.
    is_news = before.pressure or replace(before, pressure=incident.pressure).is_warning
    if is_news and (claim := _gauges_worse(incident, before)):
        return claim
    if spaced and (identified := _identified(incident, before)):
        return identified
    return _many_more(incident, before) if counted else None


def _identified(incident: Incident, before: Incident) -> str | None:
    """Name the culprit if none is named yet: the largest holder may not be the one with most resets."""
    if main_holder(before.diagnosis, before.witness):
        return None
    told = main_victim(before.witness)
    if main := main_holder(incident.diagnosis, incident.witness):
        return f"largest holder identified: {main.name}" if told is None or told[0] != main.name else None
    victim = None if told else main_victim(incident.witness)
    return f"most resets hit {victim[0]}" if victim else None


def _many_more(incident: Incident, before: Incident) -> str | None:
    """Return that there are ten times as many messages, or kills where no message tells of them."""
    what, amounts = "kernel messages", (events_total(incident), events_total(before))
    if not amounts[0]:
        what, amounts = "resets", (_kills(incident), _kills(before))
    if not amounts[0] or amounts[0] < WORSE_FACTOR * max(1, amounts[1]):
        return None
    return f"{count_text(amounts[0])} {what} so far, {count_text(amounts[1])} at the last notification"


def _kills(incident: Incident) -> int:
    return (incident.witness.kills if incident.witness else None) or 0
