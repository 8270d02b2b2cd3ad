"""Which records are events: one after the other, with what stands around them.

A suppressed line is shared by all net messages and printed lazily, so it is ours only close to one of ours.
"""

from collections import deque
from dataclasses import dataclass
from datetime import datetime, timedelta

from msgspec.structs import replace

from agent.core.hosts import may_be_same
from agent.core.kernel.messages import REPEATED, detect, make_event
from agent.core.model import Event, LogRecord

WINDOW_SECONDS = 60.0
MAX_UNDECIDED = 64
# Of a host, and hosts: one that floods must not push out what another said.
MAX_RECENT = MAX_HOSTS = 16
Decided = tuple[LogRecord, Event]


@dataclass(slots=True)
class Undecided:
    """A suppressed line or a repeat of it, with no event close to it so far; ``chain`` is the first one's ordinal."""

    record: LogRecord
    event: Event
    chain: int
    since: datetime | None = None


class Detector:
    """Decide records one after the other: pure, without a clock, and with bounded state.

    A suppressed line counts when it stands directly next to an event, or within 60 seconds of one by comparable
    clocks of the same host. "last message repeated n times" directly after a line shares that line's fate.
    """

    def __init__(self) -> None:
        # By host, that of the newest event last.
        self._recent: dict[str | None, deque[LogRecord]] = {}
        self._undecided: deque[Undecided] = deque(maxlen=MAX_UNDECIDED)
        # The newest lines that count, by their ordinals: a repeat is of the one before it, whatever came in between.
        self._newest: dict[int, Decided] = {}

    def feed(self, record: LogRecord) -> list[Decided]:
        """Take the next record of the log; give back the events that are decided now, in the order of the log."""
        self._forget_before(record)
        said = detect(record)
        before = None if said else self._newest.get(record.ordinal - 1)
        event = repeat_of(before[1], record) if before else said
        if event is None:
            return []
        self._newest[record.ordinal] = record, event
        if len(self._newest) > 2 * MAX_RECENT:
            self._newest = dict([*self._newest.items()][-MAX_RECENT:])
        if event.kind != "suppressed":
            released = self._release(record)
            self._note(record)
            return [*released, (record, event)]
        if self._is_close_to_recent(record):
            return [(record, event)]
        chain: int | None = record.ordinal
        if before:
            chain = next((held.chain for held in self._undecided if held.record is before[0]), None)
        if chain is None:
            return [(record, event)]
        self._undecided.append(Undecided(record, event, chain))
        return []

    def remember(self, record: LogRecord, event: Event) -> None:
        """Take in an event that was decided before a restart: what follows may be close to it."""
        self._newest[record.ordinal] = record, event
        if event.kind != "suppressed":
            self._note(record)

    def waiting(self, now: datetime) -> bool:
        """Return whether a suppressed line is undecided; none stays so for longer than the window.

        ``now`` is the reader's clock: the stamps of a log that is being caught up with may be days old.
        """
        for held in self._undecided:
            held.since = held.since or now
        limit = timedelta(seconds=WINDOW_SECONDS)
        self._keep([held for held in self._undecided if held.since is None or now - held.since <= limit])
        return bool(self._undecided)

    def is_undecided(self, record: LogRecord) -> bool:
        """Return whether a record may still become an event, by what follows."""
        return any(held.record is record for held in self._undecided)

    def _note(self, record: LogRecord) -> None:
        recent = self._recent.pop(record.host, None) or deque(maxlen=MAX_RECENT)
        recent.append(record)
        self._recent[record.host] = recent
        if len(self._recent) > MAX_HOSTS:
            del self._recent[next(iter(self._recent))]

    def _is_close_to_recent(self, record: LogRecord) -> bool:
        recent = (
            other for host, of_host in self._recent.items() if may_be_same(host, record.host) for other in of_host
        )
        return any(_near(record, other) or _adjacent(other, record) for other in recent)

    def _release(self, record: LogRecord) -> list[Decided]:
        """Return what was undecided and is close to this event; what belongs to another host stays.

        Other hosts' events behind it may have been counted since: no position lies between it and this event.
        """
        chain = self._chain_before(record)
        released = [held for held in self._undecided if held.chain == chain or _near(held.record, record)]
        self._keep([held for held in self._undecided if held not in released])
        return [(replace(held.record, cursor=None), held.event) for held in released]

    def _forget_before(self, record: LogRecord) -> None:
        """Drop what the log's own clock has left behind, but never the line directly before.

        The oldest are looked at, not all: what stays behind one of another clock is held against the clock again.
        """
        chain = self._chain_before(record)
        while self._undecided and self._undecided[0].chain != chain:
            if (_seconds(self._undecided[0].record, record) or 0.0) <= WINDOW_SECONDS:
                return
            self._undecided.popleft()

    def _chain_before(self, record: LogRecord) -> int | None:
        """Name the held line, with its repeats, that stands directly before this record."""
        last = self._undecided[-1] if self._undecided else None
        return last.chain if last is not None and _adjacent(last.record, record) else None

    def _keep(self, held: list[Undecided]) -> None:
        if len(held) != len(self._undecided):
            self._undecided = deque(held, maxlen=MAX_UNDECIDED)


def repeat_of(first: Event, record: LogRecord) -> Event | None:
    """Return what a line is if it repeats the one directly before it."""
    match = REPEATED.fullmatch(record.text)
    if match is None or not may_be_same(first.host, record.host):
        return None
    count = int(next(filter(None, match.groups()), 1))
    if record.at is None and record.host is None:  # metalog's
        record = replace(record, at=first.at, uptime=first.uptime, host=first.host)
    return make_event(record, first.kind, suppressed=first.suppressed, count=count)


def _adjacent(one: LogRecord, following: LogRecord) -> bool:
    return following.ordinal - one.ordinal == 1 and may_be_same(one.host, following.host)


def _seconds(one: LogRecord, other: LogRecord) -> float | None:
    """Return the seconds from one record to the other, or None when their clocks cannot be compared."""
    if not may_be_same(one.host, other.host):
        return None
    if one.at is not None and other.at is not None:
        return (other.at - one.at).total_seconds()
    if one.uptime is not None and other.uptime is not None:
        return other.uptime - one.uptime
    return None


def _near(one: LogRecord, other: LogRecord) -> bool:
    seconds = _seconds(one, other)
    return seconds is not None and abs(seconds) <= WINDOW_SECONDS
