"""The smallest words: what one kernel file said, and what is missing.

A module of its own because both the snapshot and the table of sockets in it are made of them.
"""

from typing import Literal, get_args

import msgspec

# In the order of the kernel's numbers, from TCP_ESTABLISHED = 1 on.
State = Literal[
    "unknown",
    "established",
    "syn_sent",
    "syn_recv",
    "fin_wait1",
    "fin_wait2",
    "time_wait",
    "close",
    "close_wait",
    "last_ack",
    "listen",
    "closing",
    "new_syn_recv",
]
STATES: tuple[State, ...] = get_args(State)
ROOT_CGROUP = 1
# The smallest page there is, and what 4.10 to 5.19 count memory in.
SMALL_PAGE_BYTES = 4096
# What a gap is about, where that is no file.
PAGE_SIZE = "page size"


# What a gap says of an event near which nothing was measured.
UNMEASURED = "any reading from the time of the event"


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """Missing evidence, and the reason: ``what`` is a file's path, or one of the names above."""

    what: str
    why: str

    def is_about(self, file: str) -> bool:
        """Return whether this is about a file below /proc, wherever that was read from."""
        return self.what == file or self.what.endswith(f"/{file}")


class UnreadLine(Gap, frozen=True, kw_only=True):
    """A line that a person passed in, and that is no kernel message about socket memory."""


class OtherLimit(UnreadLine, frozen=True, kw_only=True):
    """Such a line that is about another limit: nothing was missed."""


class TcpSockstat(msgspec.Struct, frozen=True, kw_only=True):
    """The ``TCP:`` line of /proc/net/sockstat. ``orphan alloc mem`` count the host, ``inuse tw`` the namespace.

    ``mem`` is in pages of the host (in 4096-byte units on kernels 4.10 to 5.19, whatever the page size).
    """

    inuse: int | None = None
    orphan: int | None = None
    tw: int | None = None
    alloc: int | None = None
    mem: int | None = None


class Sockstat(msgspec.Struct, frozen=True, kw_only=True):
    """/proc/net/sockstat and, where IPv6 is there, the TCP6 line of sockstat6; ``udp_mem`` counts as ``mem`` does."""

    sockets_used: int | None = None
    tcp: TcpSockstat = TcpSockstat()
    udp_mem: int | None = None
    tcp6_inuse: int | None = None


class TcpProtocol(msgspec.Struct, frozen=True, kw_only=True):
    """The ``TCP`` row of /proc/net/protocols; ``press`` is the kernel's own memory pressure flag."""

    sockets: int | None = None
    memory: int | None = None
    press: bool | None = None


class PressureStall(msgspec.Struct, frozen=True, kw_only=True):
    """One line of /proc/pressure/*: share of time stalled, in percent over 10, 60 and 300 seconds."""

    avg10: float | None = None
    avg60: float | None = None
    avg300: float | None = None
    total_usec: int | None = None


def has_cgroup(cgroup: int | None) -> bool:
    """Return whether a socket belongs to a group: kernels before 5.8 do not say, hosts of v1 name the root."""
    return cgroup is not None and cgroup != ROOT_CGROUP


class Tally(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Sockets counted together; in JSON what is zero is left out.

    ``bytes`` is what the kernel charges for them; ``rmem_bytes`` and ``wmem_bytes`` are the received and the queued
    part of it. ``unread_bytes`` were not read by the application, ``unsent_bytes`` not acknowledged by the peer.
    ``retransmitting`` have a retransmission timer running, ``unanswered`` of them have sent the same again three times
    or more without an answer, ``probing`` wait for a peer whose window is zero.
    """

    sockets: int = 0
    bytes: int = 0
    rmem_bytes: int = 0
    wmem_bytes: int = 0
    unread_bytes: int = 0
    unsent_bytes: int = 0
    retransmitting: int = 0
    unanswered: int = 0
    probing: int = 0


class PeerTally(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Sockets towards one network, "192.0.2.0/24" or "2001:db8::/64"; None: the networks not counted one by one."""

    network: str | None
    sockets: int = 0
    orphans: int = 0
    bytes: int = 0


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """A process that has the socket open; ``cgroup`` is its path, as /proc/PID/cgroup says it."""

    pid: int
    name: str
    cgroup: str | None = None


class Listener(msgspec.Struct, frozen=True, kw_only=True):
    """Who listens on a port: ``waiting`` connections nobody has accepted yet, of ``backlog`` that may.

    ``sockets`` of one cgroup may share a port (SO_REUSEPORT); their queues are added up.
    """

    port: int
    sockets: int = 1
    waiting: int = 0
    backlog: int = 0
    cgroup: int | None = None
    process: Process | None = None
    namespace: int = 0


class SocketGroup(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Sockets of one cgroup and one service.

    ``port`` is the local port of connections that came in, ``to_port`` the peer's of those that went out; both None:
    unknown. ``held`` sockets are open in a process, ``queued`` ones wait for accept(), ``orphaned`` ones
    were closed and still belong to the kernel: each by state. ``drops`` are the received segments that the kernel
    dropped (sk_drops, without those of orphans) since each socket was made, or between two dumps. ``peers`` are the
    largest of ``peers_counted`` networks, with one entry for all others last. ``process`` has one of the sockets open.
    ``folded`` groups came when the table was full: their cgroup or port is "others".
    """

    cgroup: int | None = None
    port: int | None = None
    to_port: int | None = None
    held: dict[State, Tally] = {}
    queued: dict[State, Tally] = {}
    orphaned: dict[State, Tally] = {}
    drops: int = 0
    peers: tuple[PeerTally, ...] = ()
    peers_counted: int = 0
    process: Process | None = None
    namespace: int = 0
    folded: bool = False

    @property
    def orphans(self) -> int:
        """How many of the sockets are orphans."""
        return sum(tally.sockets for tally in self.orphaned.values())

    @property
    def sockets(self) -> int:
        """How many sockets there are, orphans included."""
        return sum(tally.sockets for tally in self.tallies())

    @property
    def bytes(self) -> int:
        """What the kernel charges for all of them."""
        return sum(tally.bytes for tally in self.tallies())

    def tallies(self) -> tuple[Tally, ...]:
        """All tallies, no matter who has the sockets."""
        return (*self.held.values(), *self.queued.values(), *self.orphaned.values())


class Namespace(msgspec.Struct, frozen=True, kw_only=True):
    """A network namespace other than ours: ``inuse`` sockets, and its oldest process, but for a pod's "pause".

    ``number`` is what groups and listeners refer to when it was counted too; None: its sockets are out of sight.
    ``queues_only``: they were read from /proc/PID/net/tcp, so their bytes are what is queued, which is less than what
    the kernel charges. ``others`` are more cgroups that have processes in it.
    """

    process: Process
    inuse: int | None = None
    number: int | None = None
    queues_only: bool = False
    others: tuple[str, ...] = ()


class Elsewhere(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The TcpExt counters of the other network namespaces, and how many those are.

    ``inuse`` is their sockets, which a snapshot counts and a sample does not. ``counters`` are sums that no namespace's
    end lets fall: ``gone`` is the part of them that belongs to none of now. ``moved`` tells by the name of a namespace
    what moved there since the reading before. ``is_whole``: each namespace that has a process was read.
    """

    namespaces: int = 0
    inuse: int = 0
    counters: dict[str, int] = {}
    gone: dict[str, int] = {}
    moved: dict[str, dict[str, int]] = {}
    is_whole: bool = False


class FullGroup(msgspec.Struct, frozen=True, kw_only=True):
    """A cgroup of version 2 whose memory is close to a limit of its own: the kernel takes it from its sockets.

    ``limit_bytes`` is the smaller of memory.max and memory.high; ``sock_bytes`` is the part of sockets;
    ``refused`` counts how often the limit was hit (``max`` and ``high`` in memory.events), ``refused_meanwhile`` how
    often between the two dumps. ``stalled_percent`` is the share of time that some task of it waited for memory
    (memory.pressure, avg10). ``pod`` is the "NAMESPACE/NAME" of the pod that it belongs to, where that is known.
    """

    path: str
    current_bytes: int
    limit_bytes: int
    sock_bytes: int | None = None
    refused: int | None = None
    refused_meanwhile: int | None = None
    stalled_percent: float | None = None
    pod: str | None = None

    @property
    def hits(self) -> int:
        """How often the limit was hit, lately where that is known."""
        return (self.refused if self.refused_meanwhile is None else self.refused_meanwhile) or 0

    @property
    def is_of_sockets(self) -> bool:
        """Whether it hit its limit and most is socket memory, which cannot be reclaimed: that presses its sockets.

        From 6.1 on the kernel refuses them nothing for it (try_charge_memcg lets GFP_ATOMIC pass), and only clamps
        their windows (mem_cgroup_under_socket_pressure): no counter of TCP moves.
        """
        return bool(self.refused) and 2 * (self.sock_bytes or 0) >= self.current_bytes


class Unlisted(msgspec.Struct, frozen=True, kw_only=True):
    """A process with ``sockets`` TCP sockets open that are in no table: reset or closed by the peer, and not read."""

    process: Process
    sockets: int


class SocketTable(msgspec.Struct, frozen=True, kw_only=True):
    """All TCP sockets in sight at one moment, counted in groups, the largest first.

    ``listening`` counts all listening sockets, also those that ``listeners`` has no room for. ``paths`` maps cgroup
    ids to the paths of their directories; one that is missing was removed, if the root (1) is there. ``pods`` are
    names of pods in sight by their UID, "NAMESPACE/NAME", where the kubelet leaves them to read. ``minisocks`` are
    TIME_WAIT and the like: no orphans, and in no memory total. ``sockstat`` is the lower of each gauge just before and
    after the dump: what went meanwhile is nobody's. ``complete``: all were counted; ``cut_short``: there was no time
    left to name all of them. ``peers`` are the largest networks over all groups.
    ``drops_seconds``: the ``drops`` of the groups are those between this dump and another one, so far apart.
    ``unlisted`` are the processes that most of the sockets in no table belong to; looked for where those are most.
    ``full_groups`` are of ``paths`` and of what is above them.
    """

    groups: tuple[SocketGroup, ...] = ()
    listeners: tuple[Listener, ...] = ()
    listening: int = 0
    paths: dict[int, str] = {}
    pods: dict[str, str] = {}
    peers: tuple[PeerTally, ...] = ()
    minisocks: dict[State, int] = {}
    namespaces: tuple[Namespace, ...] = ()
    full_groups: tuple[FullGroup, ...] = ()
    unlisted: tuple[Unlisted, ...] = ()
    sockstat: Sockstat | None = None
    took_seconds: float | None = None
    drops_seconds: float | None = None
    complete: bool = False
    cut_short: bool = False
    gaps: tuple[Gap, ...] = ()

    @property
    def orphans(self) -> int:
        """How many orphans were seen, no matter whose."""
        return sum(group.orphans for group in self.groups)
