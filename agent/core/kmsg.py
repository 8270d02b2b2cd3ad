"""What the kernel says when it runs out of socket memory, by era; and the judge of one record and of its neighbours.

Mirrors ``tcp_out_of_resources()`` (net/ipv4/tcp_timer.c), ``tcp_close()`` and ``tcp_check_oom()`` (net/ipv4/tcp.c) and
the rate limiters of kernel/printk.c and lib/ratelimit.c, 2.6 to 6.19::

    Out of socket memory                                   up to 3.2
    TCP: too many of orphaned sockets                      up to 3.2; OpenVZ adds " (512 in CT1023)"
    TCP: too many orphaned sockets                         3.3 and later
    TCP: out of memory -- consider tuning tcp_mem          3.3 and later
    printk: 58 messages suppressed.                        2.6.24
    __ratelimit: 8552 callbacks suppressed                 2.6.32
    net_ratelimit: 142 callbacks suppressed                2.6.35 and later

A suppressed line is shared by all net messages and printed lazily, so it is ours only close to one of ours.
"""

import re
from collections import deque
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from agent.core.model import Event, Kind, LogRecord

WINDOW_SECONDS = 60.0
MAX_HELD = 64
MAX_RECENT = 16

TAIL = r"(?: \((?:-?\d+ in )?CT ?[\w-]+\))?(?:\s|#0\d\d)*"
MESSAGES: tuple[tuple[Kind, re.Pattern[str]], ...] = (
    ("out_of_socket_memory", re.compile(r"Out of socket memory" + TAIL)),
    ("too_many_orphans", re.compile(r"TCP: too many (?:of )?orphaned sockets" + TAIL)),
    ("tcp_mem", re.compile(r"TCP: out of memory -- consider tuning tcp_mem" + TAIL)),
    (
        "suppressed",
        re.compile(
            r"(?:printk: (?P<messages>\d{1,10}) messages suppressed\."
            r"|(?:net_|__)ratelimit: (?P<callbacks>\d{1,10}) callbacks suppressed)" + TAIL
        ),
    ),
)
REPEATED = re.compile(r"last message repeated (\d{1,9}) times?\s*|Last message '.*' repeated (\d{1,9}) times.*")

# Other limits with the same symptoms, by era: the regex fully matches the text, the name is for people.
NEIGHBOURS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"(?:TCP|DCCP): time wait bucket table overflow" + TAIL), "the TIME_WAIT table (tcp_max_tw_buckets)"),
    (re.compile(r"(?:\w+: )*[Pp]ossible SYN flooding on port .*"), "the SYN backlog of a listener"),
    (re.compile(r"(?:nf_conntrack: |ip_conntrack: )+table full.*dropping packet\.?"), "the connection tracking table"),
    (re.compile(r"nf_conntrack: expectation table full"), "the connection tracking expectations"),
    (re.compile(r"(?:\w+: )*[Nn]eighbou?r table overflow[.!]?"), "the neighbour (ARP or NDP) table"),
    (re.compile(r"MPTCP: (?:out of memory.*|too many (?:of )?orphaned sockets)"), "memory of out-of-tree MPTCP"),
    (re.compile(r"SCTP: out of memory.*"), "SCTP memory"),
    (re.compile(r".*: page allocation failure[.:].*"), "the host's RAM (page allocation)"),
    (re.compile(r"SLUB: Unable to allocate memory on .*"), "the host's RAM (slab allocation)"),
    (re.compile(r"Out of memory: Kill(?:ed)? process .*"), "the host's RAM (OOM killer)"),
)


class DevKmsg(NamedTuple):
    """One record of /dev/kmsg; ``priority`` is the level 0 to 7, ``timestamp`` seconds since boot."""

    priority: int
    facility: int
    sequence: int
    timestamp: float
    flags: str
    text: str


DEVKMSG = re.compile(r"(\d{1,9}),(\d{1,20}),(\d{1,20}),([^,;\n]*)(?:,[^;\n]*)?;([^\n]*)(?:\n.*)?", re.DOTALL)
ESCAPE = re.compile(rb"\\x([0-9a-fA-F]{2})")


def parse_devkmsg(raw: str) -> DevKmsg:
    """Take one /dev/kmsg record apart (Documentation/ABI/testing/dev-kmsg); its dictionary lines are left out.

    Raises ValueError that quotes the record when it is not ``PRI,SEQ,TS_USEC,FLAGS[,KEY=VALUE...];TEXT``.
    """
    match = DEVKMSG.fullmatch(raw)
    if match is None:
        raise ValueError(f"not a /dev/kmsg record: {raw[:200]!r}")
    priority, sequence, microseconds, flags, text = match.groups()
    return DevKmsg(
        priority=int(priority) & 7,
        facility=int(priority) >> 3,
        sequence=int(sequence),
        timestamp=int(microseconds) / 1e6,
        flags=flags,
        text=_unescape(text),
    )


def _unescape(text: str) -> str:
    if "\\x" not in text:
        return text
    raw = ESCAPE.sub(lambda match: bytes([int(match[1], 16)]), text.encode(errors="surrogateescape"))
    return raw.decode(errors="replace")


def detect(record: LogRecord) -> Event | None:
    """Say which of the four kinds a record is, or None; a suppressed line is a candidate that only Detector decides."""
    for kind, pattern in MESSAGES:
        match = pattern.fullmatch(record.text)
        if match is not None:
            number = match["messages"] or match["callbacks"] if kind == "suppressed" else None
            return _event(record, kind, suppressed=None if number is None else int(number))
    return None


def neighbour(text: str) -> str | None:
    """Name the other limit that a kernel message speaks of, in plain English, or None."""
    return next((name for pattern, name in NEIGHBOURS if pattern.fullmatch(text.rstrip())), None)


def _event(record: LogRecord, kind: Kind, *, suppressed: int | None, count: int | None = None) -> Event:
    return Event(
        at=record.at,
        uptime=record.uptime,
        host=record.host,
        kind=kind,
        suppressed=suppressed,
        count=record.count if count is None else count,
        source=record.source,
        provenance=record.provenance,
        line=record.line,
    )


Told = tuple[LogRecord, Event]


@dataclass(slots=True)
class Held:
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
        self._recent: deque[LogRecord] = deque(maxlen=MAX_RECENT)
        self._held: deque[Held] = deque(maxlen=MAX_HELD)
        self._previous: Told | None = None

    def feed(self, record: LogRecord) -> list[Told]:
        """Take the next record of the log; give back the events that are decided now, in the order of the log."""
        self._forget_before(record)
        said = detect(record)
        event = said or self._repeat(record)
        if event is None:
            return []
        previous, self._previous = self._previous, (record, event)
        if event.kind != "suppressed":
            released = self._release(record)
            self._recent.append(record)
            return [*released, (record, event)]
        if any(_near(record, other) or _adjacent(other, record) for other in self._recent):
            return [(record, event)]
        follows = previous is not None and said is None
        if follows and not self._holds(previous):
            return [(record, event)]
        chain = self._held[-1].chain if follows else record.ordinal
        self._held.append(Held(record, event, chain))
        return []

    def remember(self, record: LogRecord, event: Event) -> None:
        """Take in an event that was decided before a restart: what follows may be close to it."""
        self._previous = (record, event)
        if event.kind != "suppressed":
            self._recent.append(record)

    def waiting(self, now: datetime) -> bool:
        """Say whether a suppressed line is undecided; nobody waits longer for one than the window.

        ``now`` is the reader's clock: the stamps of a log that is being caught up with may be days old.
        """
        for held in self._held:
            held.since = held.since or now
        limit = timedelta(seconds=WINDOW_SECONDS)
        self._keep([held for held in self._held if held.since is None or now - held.since <= limit])
        return bool(self._held)

    def _repeat(self, record: LogRecord) -> Event | None:
        match = REPEATED.fullmatch(record.text)
        if match is None or self._previous is None or not _adjacent(self._previous[0], record):
            return None
        first = self._previous[1]
        return _event(record, first.kind, suppressed=first.suppressed, count=int(match[1] or match[2]))

    def _release(self, record: LogRecord) -> list[Told]:
        """Give back what was held and is close to this event; what belongs to another host stays."""
        chain = self._chain_before(record)
        released = [held for held in self._held if held.chain == chain or _near(held.record, record)]
        self._keep([held for held in self._held if held not in released])
        return [(held.record, held.event) for held in released]

    def _forget_before(self, record: LogRecord) -> None:
        """Drop what the log's own clock has left behind, but never the line directly before.

        The oldest are looked at, not all: what stays behind one of another clock is held against the clock again.
        """
        chain = self._chain_before(record)
        while self._held and self._held[0].chain != chain:
            if (_seconds(self._held[0].record, record) or 0.0) <= WINDOW_SECONDS:
                return
            self._held.popleft()

    def _chain_before(self, record: LogRecord) -> int | None:
        """Name the held line, with its repeats, that stands directly before this record."""
        last = self._held[-1] if self._held else None
        return last.chain if last is not None and _adjacent(last.record, record) else None

    def _holds(self, told: Told | None) -> bool:
        return told is not None and any(held.record is told[0] for held in self._held)

    def _keep(self, held: list[Held]) -> None:
        if len(held) != len(self._held):
            self._held = deque(held, maxlen=MAX_HELD)


def _same_host(one: LogRecord, other: LogRecord) -> bool:
    return one.host is None or other.host is None or one.host == other.host


def _adjacent(one: LogRecord, following: LogRecord) -> bool:
    return following.ordinal - one.ordinal == 1 and _same_host(one, following)


def _seconds(one: LogRecord, other: LogRecord) -> float | None:
    """Tell the seconds from one record to the other, or None when their clocks cannot be compared."""
    if not _same_host(one, other):
        return None
    if one.at is not None and other.at is not None:
        return (other.at - one.at).total_seconds()
    if one.uptime is not None and other.uptime is not None:
        return other.uptime - one.uptime
    return None


def _near(one: LogRecord, other: LogRecord) -> bool:
    seconds = _seconds(one, other)
    return seconds is not None and abs(seconds) <= WINDOW_SECONDS
