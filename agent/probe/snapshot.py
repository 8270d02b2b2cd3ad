"""The host, or a tree shaped like its /proc, to a Snapshot: proc(5), cgroups(7).

``net/sockstat`` comes first: at the limit the kernel kills, and the gauge falls within milliseconds.
"""

from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

from msgspec.structs import replace

from agent.core.kernel import procfs
from agent.core.kernel.release import Kernel, parse_kernel, units_per_page
from agent.core.model import Snapshot, Trigger
from agent.core.readings import Gap, PressureStall
from agent.probe.cgroups import CGROUP_ROOT, socket_memory
from agent.probe.counters import Counters
from agent.probe.files import read_head
from agent.probe.pagesize import find_page_size, is_this_host
from agent.probe.reading import Reading

T = TypeVar("T")
# How many integers each holds. Some came or went with a kernel, so only the limits themselves are missed. ip_forward is
# in each network namespace of every kernel: before 4.9 a container has no other of them, but for a copy of tcp_mem.
SYSCTLS = {
    "net.ipv4.tcp_mem": 3,
    "net.ipv4.tcp_max_orphans": 1,
    "net.ipv4.udp_mem": 3,
    "net.ipv4.tcp_orphan_retries": 1,
    "net.ipv4.tcp_retries2": 1,
    "net.ipv4.tcp_rto_max_ms": 1,
    "net.ipv4.tcp_fin_timeout": 1,
    "net.ipv4.tcp_rmem": 3,
    "net.ipv4.tcp_wmem": 3,
    "net.ipv4.tcp_notsent_lowat": 1,
    "net.ipv4.tcp_max_tw_buckets": 1,
    "net.ipv4.tcp_tw_reuse": 1,
    "net.ipv4.tcp_tw_recycle": 1,
    "net.core.rmem_max": 1,
    "net.core.wmem_max": 1,
    "net.core.mem_pcpu_rsv": 1,
    "net.core.bypass_prot_mem": 1,
    "net.core.message_burst": 1,
    "net.core.message_cost": 1,
    "net.ipv4.ip_forward": 1,
}
# All others are int.
_WITHIN = {
    "net.ipv4.tcp_mem": procfs.UNSIGNED_LONG,
    "net.ipv4.udp_mem": procfs.UNSIGNED_LONG,
    "net.ipv4.tcp_notsent_lowat": procfs.ANY,
}
TCP_MEM, MAX_ORPHANS = LIMITS = ("net.ipv4.tcp_mem", "net.ipv4.tcp_max_orphans")
STALLS = ("memory", "cpu", "io")
OTHER_NAMESPACE = (
    "does not exist, although other net.ipv4 settings do: a container's network namespace has no such file; "
    "run on the host, or in a container that shares the host's network"
)
A_COPY = (
    "not used: tcp_max_orphans does not exist, so this is a container's network namespace, with a tcp_mem of its own "
    "on this kernel; only the host's is enforced: run there"
)

COVERED = (
    "not used: something is mounted over the kernel's file (lxcfs in a container?) and shows the container's own "
    "share or time; sockets, their limits and the kernel's messages are the host's"
)


def take_snapshot(
    proc_root: Path,
    now: datetime,
    trigger: Trigger,
    cgroup_root: Path | None = CGROUP_ROOT,
    counters: Counters | None = None,
) -> Snapshot:
    """Read what a diagnosis needs, in the order in which it decays, other namespaces last; what is missing is a gap.

    For a tree that is not this host's own /proc nothing comes from this host: no name, page size, cgroups, namespaces.
    """
    reading, live = Reading(proc_root), is_this_host(proc_root)
    sockstat = reading.parse("net/sockstat", procfs.parse_sockstat, needed=True)
    meminfo = _read_of_host(reading, "meminfo", procfs.parse_meminfo, live=live, needed=True) or {}
    cgroups = cgroup_root if live or cgroup_root != CGROUP_ROOT else None
    sock_bytes, failcnt = socket_memory(cgroups, reading.gaps) if cgroups else ({}, None)
    kernel = _read_kernel(reading)
    page = find_page_size(reading, meminfo, kernel, live=live)
    return Snapshot(
        taken_at=now,
        trigger=trigger,
        sockstat=None if sockstat is None else replace(sockstat, tcp6_inuse=_read_tcp6(reading)),
        netstat=reading.parse("net/netstat", procfs.parse_netstat, needed=True) or {},
        protocol=reading.parse("net/protocols", procfs.parse_protocols),
        snmp=reading.parse("net/snmp", procfs.parse_snmp) or {},
        sysctls=_read_sysctls(reading, parse_kernel(kernel)),
        host=_read_host(reading),
        kernel=kernel,
        boot_id=reading.parse("sys/kernel/random/boot_id", procfs.parse_word),
        uptime_seconds=_read_of_host(reading, "uptime", procfs.parse_uptime, live=live),
        page_size_bytes=page,
        cpus=procfs.parse_stat_cpus(read_head(proc_root / "stat") or ""),
        meminfo=meminfo | _read_movable(proc_root, page),
        pressure=_read_pressure(reading, live=live),
        cgroup_sock_bytes=sock_bytes,
        kmem_tcp_failcnt=failcnt,
        elsewhere=counters.read(sockets=True) if counters and live else None,
        raw=reading.raw,
        gaps=tuple(reading.gaps),
    )


def page_bytes(proc_root: Path) -> int | None:
    """Read how large a page is; None where that is not known."""
    reading = Reading(proc_root)
    meminfo = reading.parse("meminfo", procfs.parse_meminfo) or {}
    return find_page_size(reading, meminfo, _read_kernel(reading), live=is_this_host(proc_root))


def pages_per_unit(proc_root: Path) -> float | None:
    """Read how many pages one of ``mem`` is; None where that is not known."""
    reading = Reading(proc_root)
    release, page = _read_kernel(reading), page_bytes(proc_root)
    reserve = read_sysctl(reading, "net.core.mem_pcpu_rsv")
    units = units_per_page(parse_kernel(release, has_reserve_file=reserve is not None), page)
    return 1 / units if units else None


def read_sysctl(reading: Reading, key: str) -> tuple[int, ...] | None:
    """Read one setting by its sysctl(8) name."""
    within = _WITHIN.get(key, procfs.INT)
    return reading.parse(
        f"sys/{key.replace('.', '/')}", partial(procfs.parse_sysctl, count=SYSCTLS[key], within=within)
    )


def _read_sysctls(reading: Reading, kernel: Kernel | None) -> dict[str, tuple[int, ...]]:
    """Read the settings, keyed by their sysctl(8) names; a limit that is missing, or not the host's, leaves a gap."""
    found = {key: value for key in SYSCTLS if (value := read_sysctl(reading, key)) is not None}
    others = any(key not in LIMITS for key in found)
    paths = {key: f"sys/{key.replace('.', '/')}" for key in LIMITS}
    absent = [key for key, path in paths.items() if key not in found and not reading.has_missed(path)]
    if absent == [MAX_ORPHANS] and kernel and kernel.copies_tcp_mem and found.pop(TCP_MEM, None):
        reading.miss(paths[TCP_MEM], A_COPY)
    for key in absent:
        reading.miss(paths[key], OTHER_NAMESPACE if others else "does not exist")
    return found


def _read_movable(proc_root: Path, page: int | None) -> dict[str, int]:
    """Read what is in ZONE_MOVABLE, where no socket can lie; the text is long, and only this of it is kept."""
    total, spare = procfs.parse_movable(read_head(proc_root / "zoneinfo") or "")
    return {"MovableTotal": total * page, "MovableFree": spare * page} if page and total else {}


def read_boot_id(proc_root: Path) -> str | None:
    """Read which boot this is."""
    return Reading(proc_root).parse("sys/kernel/random/boot_id", procfs.parse_word)


def _read_tcp6(reading: Reading) -> int | None:
    return reading.parse("net/sockstat6", procfs.parse_sockstat6)


def _read_host(reading: Reading) -> str | None:
    name = reading.parse("sys/kernel/hostname", procfs.parse_word)
    # The kernel's host name until it is set.
    return None if name == "(none)" else name


def _read_kernel(reading: Reading) -> str | None:
    release = reading.parse("sys/kernel/osrelease", procfs.parse_word)
    release = release or reading.parse("version", procfs.parse_version)
    if release is None:
        reading.gaps.append(Gap(what="kernel release", why="in neither sys/kernel/osrelease nor version"))
    return release


def _read_pressure(reading: Reading, *, live: bool) -> dict[str, PressureStall]:
    found: dict[str, PressureStall] = {}
    for resource in STALLS:
        lines = _read_of_host(reading, f"pressure/{resource}", procfs.parse_pressure, live=live) or {}
        found |= {f"{resource} {share}": stall for share, stall in lines.items()}
    return found


def _read_of_host(
    reading: Reading, name: str, parser: Callable[[str, str], T], *, live: bool, needed: bool = False
) -> T | None:
    """Read a file of the kernel's; one that something is mounted over is another's, and leaves a gap."""
    try:
        is_covered = live and (reading.root / name).stat().st_dev != reading.root.stat().st_dev
    except OSError:
        is_covered = False
    if is_covered:
        reading.miss(name, COVERED)
        return None
    return reading.parse(name, parser, needed=needed)
