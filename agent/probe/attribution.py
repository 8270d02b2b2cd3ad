"""The sockets of this host in groups with the names of their holders: one dump, then the walks that find the names.

The most valuable first: the sockets, the cgroups' paths, the other network namespaces, the processes.
"""

import time
from collections.abc import Callable, Iterable
from math import isfinite
from pathlib import Path

from msgspec.structs import asdict, replace

from agent.core.format import counted
from agent.core.kernel import procfs
from agent.core.readings import (
    ROOT_CGROUP,
    STATES,
    FullGroup,
    Gap,
    Namespace,
    Process,
    SocketTable,
    Sockstat,
    State,
    TcpSockstat,
    has_cgroup,
)
from agent.core.sockets.census import Census
from agent.core.sockets.cgroup_names import name_cgroup, uid_of_pod
from agent.core.sockets.grouping import Grouped, group
from agent.core.sockets.holders import are_most_unlisted, count_unlisted
from agent.core.sockets.nettcp import Lines
from agent.probe import cgroups, namespaces, owners, sockdiag
from agent.probe.pagesize import is_this_host
from agent.probe.reading import Reading

EPHEMERAL_PORTS = (32768, 60999)
# The dump's share of the time; the rest is for the names.
DUMP_SHARE = 0.75
# To enter one takes a thread and a table of all ports: 4 ms. More than these are read from /proc.
DUMPED_AT_MOST = 64
FILES_EACH = 256
NOT_IN_TIME = "the search did not finish in time"
NOT_THIS_HOST = "only the running kernel lists its sockets, and this tree is not its /proc"

BARRED = "open files of other users' processes are not readable: run sockmem-agent diagnose as root, which names them"

Clock = Callable[[], float]


def take_sockets(
    proc_root: Path, deadline_seconds: float, *, names: owners.Names | None = None, clock: Clock = time.monotonic
) -> SocketTable:
    """Count all visible TCP sockets and find their holders, within ``deadline_seconds``.

    Includes other network namespaces where permitted. ``names`` caches cgroups. A ``clock`` that returns inf stops it.
    Never raises: what is missing is among the gaps.
    """
    if not is_this_host(proc_root):
        return SocketTable(gaps=(Gap(what=sockdiag.WHAT, why=NOT_THIS_HOST),))
    if not isfinite(began := clock()):
        return SocketTable(gaps=(sockdiag.LATE,))
    deadline, before = began + deadline_seconds, _read_sockstat(proc_root)
    census, gaps = _dump_here(proc_root, began + DUMP_SHARE * deadline_seconds, clock)
    spaces, refused = _look_elsewhere(proc_root, None if gaps else census, deadline, clock)
    sockstat = _lower(before, _read_sockstat(proc_root))
    if not isfinite(clock()):  # An event stopped this and needs the CPU.
        return SocketTable(sockstat=sockstat, gaps=(*gaps, *refused, sockdiag.LATE))
    grouped = group(census)
    paths, missed = _find_paths(proc_root, grouped, names or owners.Names(), deadline, clock)
    processes, unseen = _find_processes(proc_root, grouped, deadline, clock)
    pods = _find_pods(paths, spaces, processes.values())
    full, unread = _find_full_groups(proc_root, paths, spaces, pods, lambda: clock() >= deadline)
    table = SocketTable(
        groups=tuple(replace(each, process=processes.get(inode)) for each, inode in grouped.groups),
        listeners=tuple(replace(each, process=processes.get(inode)) for each, inode in grouped.listeners),
        listening=census.listening,
        paths=paths,
        pods=pods,
        peers=grouped.peers,
        minisocks=_by_name(census.minisocks),
        namespaces=tuple(spaces),
        full_groups=full,
        sockstat=sockstat,
        took_seconds=round(clock() - began, 6),
        complete=not gaps,
        cut_short=clock() >= deadline,
        gaps=(*gaps, *refused, *missed, *unseen, *unread),
    )
    return _with_unlisted(proc_root, table, deadline, clock)


def _with_unlisted(proc_root: Path, table: SocketTable, deadline: float, clock: Clock) -> SocketTable:
    """Add who has the sockets open that are in no table, where those are most."""
    missing = count_unlisted(table, (table.sockstat or Sockstat()).tcp)
    if missing is None or not are_most_unlisted(missing, table.sockstat):
        return table
    unlisted, refused = owners.find_unlisted(proc_root, missing, deadline, clock)
    gap = [Gap(what="programs of sockets in no table", why=BARRED)] if refused and not unlisted else []
    return replace(table, unlisted=tuple(unlisted), gaps=(*table.gaps, *gap))


def _ephemeral_ports(reading: Reading) -> tuple[int, int]:
    name = "sys/net/ipv4/ip_local_port_range"
    found = reading.parse(name, lambda text, file: procfs.parse_sysctl(text, file, count=2))
    return EPHEMERAL_PORTS if found is None else (found[0], found[1])


def _dump_here(proc_root: Path, deadline: float, clock: Clock) -> tuple[Census, list[Gap]]:
    """Count the sockets of our own namespace."""
    census = Census(_ephemeral_ports(Reading(proc_root)))
    netlink = sockdiag.open_socket()
    if isinstance(netlink, Gap):
        return census, [netlink]
    with netlink:
        return census, sockdiag.dump(netlink, census, deadline, clock)


def _read_sockstat(proc_root: Path) -> Sockstat | None:
    return Reading(proc_root).parse("net/sockstat", procfs.parse_sockstat)


def _lower(before: Sockstat | None, after: Sockstat | None) -> Sockstat | None:
    """Take the lower of each gauge: sockets that came or went while they were listed are not unattributed."""
    if before is None or after is None:
        return before or after
    one, two = asdict(before.tcp), asdict(after.tcp)
    lower = {name: min(value, two[name]) for name, value in one.items() if None not in (value, two[name])}
    return replace(before, tcp=TcpSockstat(**lower))


def _look_elsewhere(
    proc_root: Path, census: Census | None, deadline: float, clock: Clock
) -> tuple[list[Namespace], list[Gap]]:
    """Find the other namespaces, and count their sockets into the census, if there is one."""
    spaces = namespaces.find_namespaces(proc_root, deadline, clock)
    hidden = [namespaces.HIDDEN] if namespaces.hides_processes(proc_root) else []
    if census is None:
        return spaces, hidden
    reached, gaps = _dump_there(proc_root, spaces, census, deadline, clock)
    return reached, [*hidden, *gaps]


def _dump_there(
    proc_root: Path, spaces: list[Namespace], census: Census, deadline: float, clock: Clock
) -> tuple[list[Namespace], list[Gap]]:
    """Count the sockets of the other namespaces, the largest first; those that were counted get a number."""
    reached: list[Namespace] = []
    gaps: dict[Gap, None] = {}
    permitted, ephemeral = True, _ephemeral_ports(Reading(proc_root))
    for number, space in enumerate(sorted(spaces, key=lambda each: each.inuse or 0, reverse=True), start=1):
        if not space.inuse or clock() > deadline:
            reached.append(space)
            continue
        netlink = namespaces.open_in(proc_root, space) if permitted and number <= DUMPED_AT_MOST else None
        if netlink is None or isinstance(netlink, Gap):
            # If one is not permitted, none is: what every user may read has to do.
            permitted = permitted and netlink not in namespaces.FORBIDDEN
            lines = Lines(census, number, ephemeral)
            gap = namespaces.count_lines(proc_root, space, lines, deadline, clock)
            gaps |= dict.fromkeys([gap] if gap else [])
            reached.append(replace(space, number=number, queues_only=True))
            continue
        census.enter(number, ephemeral)
        with netlink:
            gaps |= dict.fromkeys(sockdiag.dump(netlink, census, deadline, clock))
        reached.append(replace(space, number=number))
    return reached, list(gaps)


def _find_paths(
    proc_root: Path, grouped: Grouped, names: owners.Names, deadline: float, clock: Clock
) -> tuple[dict[int, str], list[Gap]]:
    ids = {each.cgroup for each, _ in grouped.groups} | {each.cgroup for each, _ in grouped.listeners}
    wanted = {number for number in ids if number is not None and has_cgroup(number)}
    if not wanted:
        return {}, []
    root = owners.unified_root(proc_root)
    if root is None:
        return names.recall(wanted), [Gap(what="names of cgroups", why="this process can see no cgroup2 mount")]
    paths = owners.find_paths(root, wanted, deadline, clock)
    names.remember(paths)
    gaps = []
    if ROOT_CGROUP not in paths:
        gaps.append(Gap(what="names of cgroups", why=NOT_IN_TIME))
    return names.recall(wanted) | paths, gaps


def _find_pods(paths: dict[int, str], spaces: list[Namespace], processes: Iterable[Process]) -> dict[str, str]:
    """Name the pods that hold sockets, some of which are known by a process there, or by one with a socket alone."""
    there = [path for each in spaces for path in (each.process.cgroup, *each.others)]
    sight = (*paths.values(), *there, *(each.cgroup for each in processes))
    return owners.find_pods(" ".join(filter(None, sight)))


def _find_full_groups(
    proc_root: Path,
    paths: dict[int, str],
    spaces: list[Namespace],
    pods: dict[str, str],
    is_late: Callable[[], bool],
) -> tuple[tuple[FullGroup, ...], list[Gap]]:
    """Look at the groups that hold sockets; those of other namespaces are known by their processes alone."""
    root = owners.unified_root(proc_root)
    there = {path for each in spaces if each.inuse for path in (each.process.cgroup, *each.others) if path}
    if root is None:
        return (), []
    full = cgroups.full_groups(root, {*paths.values(), *cgroups.below_mount(root, there, is_late)}, is_late)
    uids = [uid_of_pod(name_cgroup(each.path).container) for each in full]
    named = tuple(replace(each, pod=pods.get(uid) if uid else None) for each, uid in zip(full, uids, strict=True))
    return named, [Gap(what="memory limits of cgroups", why=NOT_IN_TIME)] if is_late() else []


def _find_processes(
    proc_root: Path, grouped: Grouped, deadline: float, clock: Clock
) -> tuple[dict[int, Process], list[Gap]]:
    """Find visible processes cheaply, then search thoroughly for those of groups that have no other name."""
    wanted = {inode for _, inode in (*grouped.groups, *grouped.listeners)} - {0}
    found = owners.find_processes(proc_root, wanted, deadline, files_each=FILES_EACH, clock=clock)
    needed = _needed(grouped, found.processes)
    more = owners.find_processes(proc_root, needed, deadline, clock=clock) if needed else found
    processes = found.processes | more.processes
    if not more.whole:
        return processes, [Gap(what="processes", why=NOT_IN_TIME)]
    if more.refused and len(processes) < len(wanted):
        why = (
            f"{counted(more.refused, 'process of another user is', 'processes of other users are')} not readable: "
            "units are named without their programs"
        )
        return processes, [Gap(what="processes", why=why)]
    return processes, []


def _needed(grouped: Grouped, processes: dict[int, Process]) -> set[int]:
    """Return the sockets of groups that neither a cgroup nor a listener identifies."""
    listened = {
        (each.namespace, each.port)
        for each, inode in grouped.listeners
        if inode in processes or has_cgroup(each.cgroup)
    }
    return {
        inode
        for each, inode in grouped.groups
        if inode
        and inode not in processes
        and not has_cgroup(each.cgroup)
        and (each.namespace, each.port) not in listened
    }


def _by_name(minisocks: dict[int, int]) -> dict[State, int]:
    named: dict[State, int] = {}
    for code, count in minisocks.items():
        state = STATES[code] if code < len(STATES) else "unknown"
        named[state] = named.get(state, 0) + count
    return named
