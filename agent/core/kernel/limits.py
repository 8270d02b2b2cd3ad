"""The kernel's own arithmetic: units of memory, zones of tcp_mem, the orphan penalty, counters.

Mirrors net/ipv4/tcp.c (tcp_init, tcp_check_oom, tcp_too_many_orphans), net/ipv4/tcp_timer.c (tcp_out_of_resources)
and net/core/sock.c (sk_prot_mem_limits, __sk_mem_raise_allocated). What it is fed, as text:

    TCP: inuse 24 orphan 0 tw 58 alloc 863 mem 87916      /proc/net/sockstat
    43257   57676   86514                                 /proc/sys/net/ipv4/tcp_mem, in pages
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from itertools import pairwise
from typing import Literal, NamedTuple

from agent.core.kernel.procfs import UDP_ERRORS
from agent.core.kernel.release import Kernel
from agent.core.model import Sample, Snapshot
from agent.core.readings import Elsewhere, Sockstat, TcpProtocol, TcpSockstat

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
# Those that move because memory or orphans ran out, or a buffer did: by these the namespace is named where they moved.
REFUSALS: tuple[str, ...] = (
    KILLED,
    "TCPMemoryPressures",
    "TCPAbortFailed",
    "PruneCalled",
    "RcvPruned",
    "OfoPruned",
    "TCPOFODrop",
    "TCPRcvQDrop",
)
# The kernel resets sockets at the limit and refuses charges at it, so a reading just below is the limit at work.
AT_LIMIT_PERCENT = 95
_LIMITS = 3
# No default since 3.0 lets sockets take more of RAM than a fifth: nobody else can have what they hold.
MOST_PERCENT = 25
# Of RAM, for the second limit: the smallest part that there was.
_SMALLEST_PART = 16
# With less than this part of RAM available a host is short of it: of much RAM, a smaller part of what is beyond.
_RESERVE_PERCENT, _LARGE_BYTES, _RESERVE_BEYOND_PERCENT = 5, 64 << 30, 1
_MUCH = 4


def limits_of(values: tuple[int, ...] | None) -> tuple[int, int, int] | None:
    """Take the three limits of tcp_mem as the kernel does; None when the file did not hold three numbers.

    The file takes and shows unsigned numbers, and they are compared as signed ones (sysctl_tcp_mem is long): 2^64 - 1,
    meant as unlimited, allows less than nothing.
    """
    if values is None or len(values) != _LIMITS:
        return None
    low, pressure, high = (each - 2**64 if each >= 2**63 else each for each in values)
    return low, pressure, high


class Defaults(NamedTuple):
    """The limits that a kernel gives itself at boot, tcp_mem in pages; None where no source of its era was read."""

    tcp_mem: tuple[int, int, int] | None = None
    tcp_max_orphans: int | None = None


def default_limits(kernel: Kernel | None, meminfo: Mapping[str, int], page: int | None) -> Defaults:
    """Work out what tcp_init() gave itself on a host like this: read in 2.6.18, 2.6.24, el6, 3.0, 3.4, 3.10 and 4.2.

    MemTotal stands for nr_free_buffer_pages() and nr_kernel_pages, which are a few percent off it; on 32 bit LowTotal.
    """
    ram = low_memory(meminfo)
    if kernel is None or kernel.version < (2, 6, 18) or ram is None:
        return Defaults()
    if page is None:
        # Only from 3.10 on the hash tables do not depend on it.
        return Defaults(tcp_max_orphans=_hash_slots(ram, 17) // 2 if kernel.version >= (3, 10) else None)
    # All RAM decides how fine the hash tables of older kernels are; they have 8 bytes a bucket on 32 bit.
    scale = 13 if meminfo.get("MemTotal", ram) // page >= 128 * 1024 else 15
    slots = _hash_slots(ram, scale)
    ports_bytes = min(slots, 65_536) * (8 if meminfo.get("HighTotal") else 16)
    by_order = (-(-ports_bytes // page) - 1).bit_length()
    if kernel.version < (2, 6, 19):
        return Defaults((768 << by_order, 1024 << by_order, 1536 << by_order), _orphans_by_order(by_order))
    # What is in ZONE_MOVABLE counts for the hash tables, and not for buffers.
    pressure = _default_pressure(kernel.version, max(ram - meminfo.get("MovableTotal", 0), 0), page)
    return Defaults(limits_by(pressure) if pressure else None, _default_orphans(kernel, ram, slots, by_order))


def low_memory(meminfo: Mapping[str, int]) -> int | None:
    """Return the RAM that sockets can lie in: on 32 bit low memory alone; None where it is not known."""
    ram = meminfo.get("LowTotal") or meminfo.get("MemTotal", 0)
    return ram if ram > 0 else None


def reserve_bytes(ram: int) -> int:
    """Return how much of this RAM has to stay available, beside the kernel's own reserves."""
    return (
        min(ram, _LARGE_BYTES) * _RESERVE_PERCENT // 100 + max(ram - _LARGE_BYTES, 0) * _RESERVE_BEYOND_PERCENT // 100
    )


def is_much(available: int, ram: int) -> bool:
    """Return whether so much of RAM is available that neither waiting nor failing for memory proves a lack of it."""
    return _MUCH * available >= ram


def is_far_below(limit: int, default: int | None) -> bool:
    """Return whether a limit is less than a third of the default: that is no rounding, somebody has lowered it."""
    return default is not None and 3 * limit < default


def are_buffer_sizes(limits: tuple[int, int, int], sysctls: Mapping[str, tuple[int, ...]]) -> bool:
    """Return whether three numbers are bytes of one socket's buffer, as in tcp_rmem and tcp_wmem, and no pages.

    They are the host's own, or the first is a few whole KiB and the last far above the second; of tcp_mem's default the
    last is half as much again.
    """
    own = [sysctls.get("net.ipv4.tcp_rmem"), sysctls.get("net.ipv4.tcp_wmem")]
    low, pressure, high = limits
    return limits in own or (0 < low <= min(pressure, 65_536) and low % 1024 == 0 and high >= 16 * pressure)


def limits_by(pressure: int) -> tuple[int, int, int]:
    """Make the three limits from the second, in pages, as tcp_init() does."""
    low = pressure // 4 * 3
    return low, pressure, 2 * low


def modest_limits(ram: int, page: int) -> tuple[int, int, int]:
    """Make the limits that every kernel since 4.2 gives itself, in pages."""
    return limits_by(max(ram // _SMALLEST_PART // page, 128))


def _default_pressure(version: tuple[int, int, int], ram: int, page: int) -> int | None:
    if version < (2, 6, 21):
        return None
    if version < (3, 0):
        # Half of RAM, and less of it below 256 MiB.
        return max((min(ram, 256 << 20) >> 20) * (ram >> 20) * 2048 // page, 128)
    return max(ram // page // (8 if version < (4, 2) else 16), 128)


def _default_orphans(kernel: Kernel, ram: int, slots: int, by_order: int) -> int | None:
    """Half the slots of the hash of established connections; up to 2.6.31 by the size of the one of bound ports."""
    if kernel.version < (2, 6, 32):
        return _orphans_by_order(by_order)
    if kernel.approximate_orphans or (2, 6, 36) <= kernel.version < (3, 5):
        return slots // 2
    return _hash_slots(ram, 17) // 2 if kernel.version >= (3, 10) else None


def _orphans_by_order(order: int) -> int:
    return 4096 << (order - 4) if order >= 4 else 8192 >> (3 - order)  # noqa: PLR2004 - the source's own numbers


def _hash_slots(ram: int, scale: int) -> int:
    """How many slots alloc_large_system_hash() makes: one for each 2^scale bytes, as a power of two, and a limit."""
    return min(1 << max((ram >> scale) - 1, 0).bit_length(), 512 * 1024)


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
    came while some were killed. Where few are left, how many there were at once is unknown.
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
    return 100 * value >= AT_LIMIT_PERCENT * limit


def sample_of(snapshot: Snapshot) -> Sample:
    """Take the gauges and the counters that matter out of a snapshot."""
    return make_sample(
        snapshot.taken_at,
        snapshot.boot_id,
        snapshot.sockstat,
        snapshot.sysctls,
        {**snapshot.netstat, **snapshot.snmp},
        protocol=snapshot.protocol,
        elsewhere=snapshot.elsewhere,
    )


def make_sample(
    at: datetime,
    boot_id: str | None,
    sockstat: Sockstat | None,
    sysctls: Mapping[str, tuple[int, ...]],
    netstat: Mapping[str, int],
    *,
    protocol: TcpProtocol | None,
    elsewhere: Elsewhere | None = None,
) -> Sample:
    """Make a sample of what was read; its counters are those of all network namespaces together."""
    others = elsewhere or Elsewhere()
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
        counters={name: netstat[name] + others.counters.get(name, 0) for name in COUNTERS if name in netstat},
        gone=others.gone,
        moved=others.moved,
    )
