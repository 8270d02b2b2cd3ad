"""The words of this program, as frozen structs: JSON in and out needs no code of ours (msgspec).

record -> event -> snapshot -> diagnosis -> incident -> notice -> receipt
(a line)  (the kernel said it)  (what the host looked like)  (why)  (events folded)  (to be said)  (proof it was)

Kernel field names stay the kernel's (``inuse orphan tw alloc mem``, ``tcp_mem``, ``tcp_max_orphans``); every other
quantity carries its unit in its name. ``None`` means "not there", never zero. Times are timezone-aware.

The decoders of what is stored are made at the end, at import: msgspec builds a type's description when it first meets
the type, and crashes where two couriers do at once (tests/core/test_decoders.py).
"""

from datetime import datetime, timedelta
from typing import Literal

import msgspec

from agent.core.cursor import Cursor, Resume
from agent.core.delivery import Receipt, Trouble
from agent.core.readings import (
    SMALL_PAGE_BYTES,
    UNMEASURED,
    Elsewhere,
    Gap,
    PressureStall,
    SocketTable,
    Sockstat,
    TcpProtocol,
)
from agent.core.stored import ChannelName, HeaderText, Natural, NoticeName, SnapshotName, Time, check_years

Kind = Literal["out_of_socket_memory", "too_many_orphans", "tcp_mem", "suppressed"]
Provenance = Literal["kernel", "claimed"]
# The two counts that the kernel holds against a limit; as causes they are called the same.
GaugeName = Literal["orphans", "tcp_memory"]
Cause = Literal["tcp_memory", "orphans", "both", "undetermined", "none"]
# Both in words, for every text that people read.
CAUSES: dict[Cause, str] = {
    "tcp_memory": "TCP memory",
    "orphans": "orphans",
    "both": "orphans and TCP memory",
    "undetermined": "undetermined",
    "none": "none",
}
KINDS: dict[Kind, str] = {
    "out_of_socket_memory": "out of socket memory",
    "too_many_orphans": "too many orphans",
    "tcp_mem": "out of TCP memory",
    "suppressed": "suppressed messages",
}
Confidence = Literal["certain", "likely", "possible"]
NoticeType = Literal[
    "sockmem.incident.opened",
    "sockmem.incident.updated",
    "sockmem.incident.resolved",
    "sockmem.digest",
    "sockmem.test",
]
TEST_ID = "test-"
LONGEST_SILENCE = timedelta(days=30)
# By so much a clock is corrected after a silence has begun without ending it.
CLOCK_SLACK = timedelta(minutes=5)
Trigger = Literal["event", "follow_up", "command", "pressure"]


class Dated(msgspec.Struct, frozen=True, kw_only=True):
    """Holds times, none of which is in an impossible year."""

    def __post_init__(self) -> None:
        """Refuse such a year; msgspec calls this when it decodes, too."""
        check_years(self)


# --- record and event -----------------------------------------------------------------------------------------------


class LogRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that the kernel said, or that a log claims it said, with the envelope taken off.

    ``text`` is the message alone; ``line`` is what stood in the source; ``source`` is ``FILE:LINE`` (scan),
    ``FILE@OFFSET`` (following), ``journal:CURSOR`` or ``kmsg:BOOT_ID:SEQUENCE``. ``ordinal`` numbers the lines or
    records of a source: those of neighbors, and of no others, follow each other. ``cursor`` is the position just behind
    this record, and behind those before it that have none: where lines are counted among others, none lies between.
    ``uptime`` is the kernel's own stamp in seconds since boot. ``ahead_seconds`` is how far the stamp in the log was
    ahead of this host's clock when the line came, negative behind it; ``at`` is put right by that.
    """

    text: str
    line: str
    source: str
    provenance: Provenance
    ordinal: int
    at: datetime | None = None
    uptime: float | None = None
    host: str | None = None
    count: int = 1
    ahead_seconds: int = 0
    cursor: Cursor | None = None


class Event(Dated, frozen=True, kw_only=True, omit_defaults=True):
    """The kernel said that it ran out. This is the object that ``scan --json`` prints, one a line.

    ``ahead_seconds`` is that of the record, and is left out where the stamp was right.
    """

    at: Time | None
    uptime: float | None
    host: str | None
    kind: Kind
    suppressed: int | None
    count: int
    source: str
    provenance: Provenance
    line: str
    ahead_seconds: int = 0


# --- snapshot -------------------------------------------------------------------------------------------------------


class Snapshot(Dated, frozen=True, kw_only=True):
    """What the host looked like at one moment: parsed values, the raw text they came from, and what is missing.

    ``sysctls`` maps ``net.ipv4.tcp_mem`` to its integers. ``netstat`` is the TcpExt counters, ``snmp`` the Tcp ones
    (of this network namespace, since its creation), ``elsewhere`` has those of the others. ``meminfo`` is in bytes,
    ZONE_MOVABLE of zoneinfo included (``MovableTotal``, ``MovableFree``). ``pressure`` maps ``memory some`` and
    the like. ``cgroup_sock_bytes`` maps a cgroup path to its socket memory; ``kmem_tcp_failcnt`` is the sum over
    cgroup v1 groups that have a kmem.tcp limit. ``sockets`` says who holds them
    (None: not asked). ``raw`` maps a path below /proc to its text.
    """

    schema: Literal["sockmem-agent/snapshot/1"] = "sockmem-agent/snapshot/1"
    taken_at: Time
    trigger: Trigger
    host: str | None = None
    kernel: str | None = None
    boot_id: str | None = None
    uptime_seconds: float | None = None
    page_size_bytes: int | None = None
    cpus: int | None = None
    sockstat: Sockstat | None = None
    protocol: TcpProtocol | None = None
    sysctls: dict[str, tuple[int, ...]] = {}
    netstat: dict[str, int] = {}
    elsewhere: Elsewhere | None = None
    snmp: dict[str, int] = {}
    meminfo: dict[str, int] = {}
    pressure: dict[str, PressureStall] = {}
    cgroup_sock_bytes: dict[str, int] = {}
    kmem_tcp_failcnt: int | None = None
    sockets: SocketTable | None = None
    raw: dict[str, str] = {}
    gaps: tuple[Gap, ...] = ()

    def sysctl(self, key: str, index: int = 0) -> int | None:
        """Return one number of a setting, None when the file or the number was not there."""
        return next(iter(self.sysctls.get(key, ())[index:]), None)


class UnitShare(msgspec.Struct, frozen=True, kw_only=True):
    """What one unit, container or process held when a sample was taken; ``orphans`` are among its ``sockets``."""

    name: str
    sockets: int
    orphans: int
    bytes: int


class Sample(Dated, frozen=True, kw_only=True, omit_defaults=True):
    """The gauges and the counters that matter at one moment: what history is made of.

    ``counters`` holds the TcpExt counters of core.kernel.limits.COUNTERS that this kernel has, summed over the network
    namespaces; ``gone`` and ``moved`` are as in Elsewhere. ``tcp_mem`` and
    ``tcp_max_orphans`` are the limits as they were then, ``press`` is the kernel's pressure flag. ``units`` are the
    largest holders, where they were looked for lately: most sockets first, and all there were when they are fewer than
    core.history.unit_growth.UNITS_AT_MOST.
    """

    at: Time
    boot_id: str | None = None
    orphan: int | None = None
    mem: int | None = None
    tw: int | None = None
    alloc: int | None = None
    inuse: int | None = None
    tcp_mem: tuple[int, int, int] | None = None
    tcp_max_orphans: int | None = None
    press: bool | None = None
    counters: dict[str, int] = {}
    gone: dict[str, int] = {}
    moved: dict[str, dict[str, int]] = {}
    units: tuple[UnitShare, ...] = ()


# --- diagnosis ------------------------------------------------------------------------------------------------------


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """One number or text that a claim rests on, with the limit it is held against and where it was read."""

    name: str
    value: int | float | str
    limit: int | float | None = None
    unit: str | None = None
    source: str


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """A claim, the cause it speaks for, and what it rests on."""

    claim: str
    cause: Cause
    confidence: Confidence
    evidence: tuple[Evidence, ...] = ()


class Mechanism(msgspec.Struct, frozen=True, kw_only=True):
    """How the kernel's own test came out.

    Orphans: ``orphan << penalty_shift`` against ``tcp_max_orphans``; ``limit_reached`` is the effective limit
    (``tcp_max_orphans >> penalty_shift``). ``penalty_shift`` is None where the burst had passed before the reading.
    Memory: pages against the three limits of ``tcp_mem``, and both in bytes by the host's own page size; None where
    that is not known. ``mem_unit_bytes`` is what one of sockstat's ``mem`` stands for.
    """

    penalty_shift: Literal[0, 1, 2] | None = None
    orphan: int | None = None
    tcp_max_orphans: int | None = None
    limit_reached: int | None = None
    mem_pages: int | None = None
    tcp_mem_pages: tuple[int, int, int] | None = None
    mem_bytes: int | None = None
    mem_unit_bytes: int | None = None
    tcp_mem_bytes: tuple[int, int, int] | None = None
    page_size_bytes: int | None = None

    @property
    def unit_bytes(self) -> int | None:
        """What one of sockstat's ``mem`` stands for; incidents of 0.1 know it where a page is the smallest there is."""
        return self.mem_unit_bytes or (SMALL_PAGE_BYTES if self.page_size_bytes == SMALL_PAGE_BYTES else None)


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """Who holds sockets; the last of a list is the unattributed remainder.

    ``guess``: no cgroup says so, it was named by its port; the first of ``ports`` is that port. Ports and peers
    come in the order of what is short there. ``netns_pid``: a process in the network namespace that has most of it
    (``nsenter -t PID -n``); None where that is the host's own.
    """

    unit: str | None = None
    container: str | None = None
    process: str | None = None
    sockets: int
    orphans: int
    bytes: int
    ports: tuple[int, ...] = ()
    peers: tuple[str, ...] = ()
    guess: bool = False
    netns_pid: int | None = None


class Sysctl(msgspec.Struct, frozen=True, kw_only=True):
    """A kernel setting, as it is and as it should be: one integer, or three for tcp_mem."""

    key: str
    current: int | tuple[int, ...] | None
    proposed: int | tuple[int, ...]


class Advice(msgspec.Struct, frozen=True, kw_only=True):
    """One step, why it helps here and what it costs; ``persist`` is the text of a sysctl.d file."""

    action: str
    why: str
    risk: str
    sysctl: Sysctl | None = None
    commands: tuple[str, ...] = ()
    persist: str | None = None


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """Why it happened, as far as the evidence goes. Lists are in order: best finding and first step come first."""

    schema: Literal["sockmem-agent/diagnosis/1"] = "sockmem-agent/diagnosis/1"
    cause: Cause
    confidence: Confidence
    summary: str
    mechanism: Mechanism = Mechanism()
    findings: tuple[Finding, ...] = ()
    holders: tuple[Holder, ...] = ()
    advice: tuple[Advice, ...] = ()
    gaps: tuple[Gap, ...] = ()


# --- incident, notice, receipt --------------------------------------------------------------------------------------


class Peak(Dated, frozen=True, kw_only=True):
    """The highest gauges seen around an incident: ``orphan`` sockets and ``mem`` in the unit of sockstat."""

    orphan: int | None = None
    orphan_at: Time | None = None
    mem: int | None = None
    mem_at: Time | None = None


class Pressure(msgspec.Struct, frozen=True, kw_only=True):
    """What the gauges warn of, before or without a line: ``level`` 1 growing, 2 pressure, 3 at the limit's edge.

    ``value`` against the threshold ``limit``: sockets for orphans, pages for TCP memory, or what ``unit`` says ("": the
    claim says it all).
    """

    level: int
    cause: Cause
    claim: str
    value: int
    limit: int
    unit: str | None = None


class WitnessedBy(msgspec.Struct, frozen=True, kw_only=True):
    """Whose sockets the kernel reset or refused memory, as its trace showed; the last of a list may have no name.

    ``ports`` are local ones, most first, ``peers`` addresses. ``guess``: named by its port or address alone.
    ``pro_rata``: a part of its counts are lost events, given to each by its share.
    """

    unit: str | None = None
    container: str | None = None
    process: str | None = None
    kills: int = 0
    refusals: int = 0
    ports: tuple[int, ...] = ()
    peers: tuple[str, ...] = ()
    guess: bool = False
    pro_rata: bool = False


class Witness(msgspec.Struct, frozen=True, kw_only=True):
    """What the kernel's own trace showed over an incident, without a rate limit.

    ``kills`` are sockets reset for lack of memory or too many orphans (tcp:tcp_send_reset; None: before 6.12 the trace
    does not tell, or nobody read it when the incident began), ``refusals`` how often a living socket was refused
    memory (sock:sock_exceed_buf_limit). ``lost`` kills were overwritten unread: they are in the counts, given to each
    name by its share. ``unseen`` is how much further TCPAbortOnMemory rose, since the kernel's timer may kill without a
    reset and the trace is not read all the time; None where that is not known. ``by`` adds up to ``kills`` and
    ``refusals``.
    """

    kills: int | None = None
    refusals: int = 0
    lost: int = 0
    unseen: int | None = None
    by: tuple[WitnessedBy, ...] = ()


class Recurrence(Dated, frozen=True, kw_only=True):
    """How many of its kind there are on record, this one included.

    ``since`` is when the oldest of them that is kept was opened; ``previous_at`` is when the one before was last seen.
    """

    count: int
    since: Time
    previous_at: Time | None = None


class Incident(Dated, frozen=True, kw_only=True):
    """Events folded: the content of incident.json, and ``data`` of the webhook.

    ``events`` counts by kind; ``suppressed`` counts what the rate limit swallowed, by the kind of the lines before it,
    and under "suppressed" what may be of any network message; ``suppressed_at_least`` is the sum of the others.
    ``last_of_kind`` keeps the newest of each for the diagnosis. ``read_on`` is the host whose log had the lines, where
    ``host`` is another: nothing was measured there. ``pressure`` is the worst that the gauges warned of (None: they did
    not). ``witness`` is what the kernel's trace showed (None: nobody read it). ``signature`` is the hash of its kind
    (core.recurrence; None before 0.3); ``recurrence`` is None until that is known, or where people were told of another
    kind. ``beside`` are incidents of other hosts with lines that are on disk here alone: the position in ``resume`` is
    behind them. ``snapshots`` and ``notices`` name the files that this commit covers: a notice that is not listed here
    does not exist yet.
    """

    schema: Literal["sockmem-agent/incident/1"] = "sockmem-agent/incident/1"
    id: str
    class_: Literal["event", "pressure"] = msgspec.field(default="event", name="class")
    host: str | None
    read_on: str | None = None
    kernel: str | None
    boot_id: str | None
    opened_at: Time
    last_seen_at: Time
    closed_at: Time | None = None
    events: dict[Kind, int]
    suppressed_at_least: int = 0
    suppressed: dict[Kind, int] = {}
    provenance: Provenance
    first_event: Event | None = None
    pressure: Pressure | None = None
    last_of_kind: tuple[Event, ...] = ()
    cause: Cause
    confidence: Confidence
    summary: str
    diagnosis: Diagnosis
    signature: str | None = None
    recurrence: Recurrence | None = None
    peak: Peak = Peak()
    witness: Witness | None = None
    snapshots: tuple[SnapshotName, ...] = ()
    notices: tuple[NoticeName, ...] = ()
    resume: Resume | None = None
    beside: "tuple[Incident, ...]" = ()

    @property
    def severity(self) -> Literal["warning", "critical"]:
        """A warning rests on the gauges alone; it never comes back to that."""
        return "warning" if self.class_ == "pressure" else "critical"

    @property
    def is_test(self) -> bool:
        """Whether it never happened: ``notify test --incident`` plays it, and nothing stores it."""
        return self.id.startswith(TEST_ID)

    @property
    def is_past(self) -> bool:
        """Whether nothing was measured near its lines, and the gauges warned of nothing since."""
        return self.pressure is None and any(gap.what == UNMEASURED for gap in self.diagnosis.gaps)

    @property
    def is_logged_by_kernel(self) -> bool:
        """Whether one of its lines is proven to be the kernel's: its trace may prove it where no line does."""
        return any(each.provenance == "kernel" for each in self.last_of_kind)

    @property
    def is_warning(self) -> bool:
        """Whether it rests on the gauges: no line, or claimed ones that are unconfirmed or of another cause."""
        if self.pressure is None or self.class_ == "pressure":
            return self.class_ == "pressure"
        confirmed = self.confidence != "possible" and self.cause in (self.pressure.cause, "both")
        return self.provenance == "claimed" and not confirmed

    @property
    def is_unconfirmed(self) -> bool:
        """Whether it rests on a text log alone: no number of this host agrees with the line."""
        return self.provenance == "claimed" and not self.is_warning and self.confidence == "possible"

    @property
    def cause_shown(self) -> Cause:
        """The cause that every text names: of a warning, what the gauges warned of."""
        return self.pressure.cause if self.is_warning and self.pressure else self.cause


class Notice(Dated, frozen=True, kw_only=True):
    """Something to be said, to the ``channels`` that were configured when it fell due.

    ``id`` is the webhook-id, the same over every retry and restart; ``data`` is None for a test.
    """

    schema: Literal["sockmem-agent/notice/1"] = "sockmem-agent/notice/1"
    id: HeaderText
    type: NoticeType
    at: Time
    reason: str
    channels: tuple[ChannelName, ...]
    data: Incident | None


class Digest(msgspec.Struct, frozen=True, kw_only=True):
    """The incidents of an hour that were not told one by one: ``data`` of the webhook's ``sockmem.digest``."""

    since: datetime
    count: int
    ids: tuple[str, ...]


class DigestNotice(Notice, frozen=True, kw_only=True):
    """A notice for message channels alone; it is made of others, sent, and never stored."""

    host: str | None
    digest: Digest


class Remark(Notice, frozen=True, kw_only=True):
    """A notice with a word on how it comes: late, or once more. It is made when it is sent, and never stored."""

    remark: str


class Standing(Notice, frozen=True, kw_only=True):
    """What is so now, for a state channel: ``severities`` are shown, the first from the opening on; never stored."""

    severities: tuple[Literal["warning", "critical"], ...]
    opening_cause: Cause


class Silence(Dated, frozen=True, kw_only=True):
    """No new notifications ``until`` then: the content of silence.json."""

    schema: Literal["sockmem-agent/silence/1"] = "sockmem-agent/silence/1"
    until: Time
    reason: str
    since: Time

    def __post_init__(self) -> None:
        """Refuse one that never ends: it would be a mistake, or damage."""
        super().__post_init__()
        if not timedelta(0) < self.until - self.since <= LONGEST_SILENCE:
            raise ValueError("until: must be after since, by 30 days at most")

    def is_on(self, now: datetime) -> bool:
        """Return whether it is in effect; a clock set back to long before it does not make it last longer."""
        return self.since - CLOCK_SLACK <= now < self.until


class Addressed(msgspec.Struct, frozen=True):
    """The little of a notice that is needed to find who owes it."""

    channels: tuple[ChannelName, ...]


class Brief(msgspec.Struct, frozen=True):
    """The little of an incident that tells how severe it was when a notice fell due, and of what cause."""

    class_: Literal["event", "pressure"] = msgspec.field(default="event", name="class")
    cause: Cause = "none"

    @property
    def severity(self) -> Literal["warning", "critical"]:
        """As that of the incident."""
        return "warning" if self.class_ == "pressure" else "critical"


class BriefNotice(msgspec.Struct, frozen=True):
    """The little of a notice that is needed to decide whether it is sent."""

    id: HeaderText
    type: NoticeType
    at: Time
    channels: tuple[ChannelName, ...]
    data: Brief | None


class Commit(msgspec.Struct, frozen=True):
    """The little of incident.json that is needed to find the newest commit."""

    closed_at: Time | None = None
    resume: Resume | None = None


class Numbered(msgspec.Struct, frozen=True):
    """The little of a commit's position that says which commit it was."""

    generation: Natural


class Signed(Dated, frozen=True):
    """The little of incident.json that is needed to count its kind."""

    id: str
    host: str | None
    opened_at: Time
    last_seen_at: Time
    read_on: str | None = None
    signature: str | None = None
    resume: Numbered | None = None


ADDRESSED = msgspec.json.Decoder(Addressed)
BRIEF_NOTICE = msgspec.json.Decoder(BriefNotice)
COMMIT = msgspec.json.Decoder(Commit)
INCIDENT = msgspec.json.Decoder(Incident)
NOTICE = msgspec.json.Decoder(Notice)
RECEIPT = msgspec.json.Decoder(Receipt)
RESUME = msgspec.json.Decoder(Resume)
SAMPLE = msgspec.json.Decoder(Sample)
SILENCE = msgspec.json.Decoder(Silence)
SIGNED = msgspec.json.Decoder(Signed)
SNAPSHOT = msgspec.json.Decoder(Snapshot)
TROUBLE = msgspec.json.Decoder(Trouble)
