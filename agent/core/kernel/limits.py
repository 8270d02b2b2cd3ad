"""The kernel's own arithmetic: units of memory, zones of tcp_mem, the orphan penalty, counters.

Mirrors net/ipv4/tcp.c (tcp_check_oom, tcp_too_many_orphans), net/ipv4/tcp_timer.c (tcp_out_of_resources) and
net/core/sock.c (sk_prot_mem_limits, __sk_mem_raise_allocated). What it is fed, as text:

    TCP: inuse 24 orphan 0 tw 58 alloc 863 mem 87916      /proc/net/sockstat
    43257   57676   86514                                 /proc/sys/net/ipv4/tcp_mem, in pages
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from itertools import pairwise
from typing import Literal

from agent.core.kernel.procfs import UDP_ERRORS
from agent.core.model import Sample, Snapshot
from agent.core.readings import Sockstat, TcpProtocol, TcpSockstat

Zone = Literal["calm", "hysteresis", "pressure", "at_limit", "over"]

# TcpExt counters that tell something about this family of messages (kernel-facts, section 4), and UDP's of the same.
COUNTERS: tuple[str, ...] = (
    "TCPAbortOnMemory",
    "TCPMemoryPressures",
    "TCPMemoryPressuresChrono",
    "TCPAbortFailed",
    "TCPAbortOnTimeout",
    "TCPAbortOnClose",
    "TCPAbortOnData",
    "TCPAbortOnLinger",
    "PruneCalled",
    "RcvPruned",
    "OfoPruned",
    "TCPRcvCollapsed",
    "TCPOFODrop",
    "TCPRcvQDrop",
    "TCPZeroWindowDrop",
    "TCPToZeroWindowAdv",
    "TCPTimeWaitOverflow",
    "TCPRetransFail",
    "ListenOverflows",
    "ListenDrops",
    "PFMemallocDrop",
    UDP_ERRORS,
)

KILLED = "TCPAbortOnMemory"
# The kernel resets sockets at the limit and refuses charges at it, so a reading just below is the limit at work.
_AT_LIMIT_PERCENT = 95
_LIMITS = 3


def limits_of(values: tuple[int, ...] | None) -> tuple[int, int, int] | None:
    """Take the three limits of tcp_mem; None when the file did not hold three numbers."""
    if values is None or len(values) != _LIMITS:
        return None
    return (values[0], values[1], values[2])


def zone(mem: int, limits: tuple[int, int, int]) -> Zone:
    """Where ``mem`` stands among the three limits; both in the same unit."""
    low, pressure, high = limits
    if mem > high:
        return "over"
    if is_just_below(mem, high):
        return "at_limit"
    if mem > pressure:
        return "pressure"
    return "hysteresis" if mem >= low else "calm"


def penalty_shift(orphan: int, max_orphans: int, most: int = 0, *, exact: bool = True) -> Literal[0, 1, 2] | None:
    """Find the least shift with which ``orphan << shift`` reaches the limit: 0, 1 (a half), 2 (a quarter), else None.

    The kernel doubles the count for a socket that is stuck and again for one that ICMP reported unreachable. A limit
    of zero or less is always reached: the kernel takes it as it is. ``most`` is how many there can have been before
    the reading (``most_orphans``). Where that is beyond the limit, a kernel that counts anew every 100 ms may have
    killed far below it meanwhile, and no penalty is needed; one whose count is ``exact`` does not, and then others
    came while some were killed. Where few are left, how many there were at once cannot be told.
    """
    if 0 < max_orphans < most:
        most = 0 if exact or orphan << 2 <= max_orphans else most
    count = max(orphan, most)
    if max_orphans <= 0 or count > max_orphans or is_just_below(count, max_orphans):
        return 0
    if count << 1 > max_orphans:
        return 1
    return 2 if count << 2 > max_orphans else None


def most_orphans(readings: Iterable[Sample], max_orphans: int) -> int:
    """How many orphans there can have been at once: those that a reading has, and the killed since the one before.

    Only on the way up: from below a quarter of the limit, or from where none had been killed yet. Later they hover, and
    are killed as others come, time and again. ``readings`` are oldest first; 0 where no two have both the gauge and
    TCPAbortOnMemory.
    """
    counted = [(r.orphan, r.counters[KILLED]) for r in readings if r.orphan is not None and KILLED in r.counters]
    most, was_quiet = 0, False
    for (low, before), (left, after) in pairwise(counted):
        if low << 2 <= max_orphans or (was_quiet and 10 * left >= 11 * low):
            most = max(most, left + after - before)
        was_quiet = after == before
    return most


def counter_deltas(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """How far every counter moved that both readings have.

    One that ran backwards was reset (a new namespace or boot) and is left out: what it did is not known.
    """
    return {name: after[name] - value for name, value in before.items() if name in after and after[name] >= value}


def refused_segments(deltas: Mapping[str, int]) -> int:
    """How many received segments were refused at least although their socket's own buffer had room.

    tcp_try_rmem_schedule (net/ipv4/tcp_input.c) refuses a segment because the buffer is full, which RcvPruned counts,
    or because TCP or the socket's cgroup may have no more memory. It always calls tcp_prune_queue first (PruneCalled);
    where only the buffer was full, that merged or dropped something. Kernels up to 4.18 have no TCPRcvQDrop, and newer
    ones take a segment by force where the queue is empty: there PruneCalled alone moves.
    """
    moved = {name: deltas.get(name, 0) for name in COUNTERS}
    dropped = moved["TCPRcvQDrop"] + moved["TCPOFODrop"] - moved["RcvPruned"]
    pruned = moved["PruneCalled"] - moved["RcvPruned"] - moved["OfoPruned"] - moved["TCPRcvCollapsed"]
    return max(dropped, pruned, 0)


def is_just_below(value: int, limit: int) -> bool:
    """Return whether a reading stands where the kernel keeps what is at its limit, or above it: from 95 % on."""
    return 100 * value >= _AT_LIMIT_PERCENT * limit


def sample_of(snapshot: Snapshot) -> Sample:
    """Take the gauges and the counters that matter out of a snapshot."""
    return make_sample(
        snapshot.taken_at,
        snapshot.boot_id,
        snapshot.sockstat,
        snapshot.sysctls,
        {**snapshot.netstat, **snapshot.snmp},
        protocol=snapshot.protocol,
    )


def make_sample(
    at: datetime,
    boot_id: str | None,
    sockstat: Sockstat | None,
    sysctls: Mapping[str, tuple[int, ...]],
    netstat: Mapping[str, int],
    *,
    protocol: TcpProtocol | None,
) -> Sample:
    """Make a sample of what was read."""
    tcp = sockstat.tcp if sockstat else TcpSockstat()
    return Sample(
        at=at,
        boot_id=boot_id,
        orphan=tcp.orphan,
        mem=tcp.mem,
        tw=tcp.tw,
        alloc=tcp.alloc,
        inuse=tcp.inuse,
        tcp_mem=limits_of(sysctls.get("net.ipv4.tcp_mem")),
        tcp_max_orphans=next(iter(sysctls.get("net.ipv4.tcp_max_orphans", ())), None),
        press=protocol.press if protocol else None,
        counters={name: netstat[name] for name in COUNTERS if name in netstat},
    )
