"""The owners of sockets: cgroup ids to paths, inodes to processes. proc(5), cgroups(7).

A cgroup id is the inode number of its directory in the unified hierarchy, so a walk through the directories finds it.
A process has a socket open when one of /proc/PID/fd/* is a link to "socket:[INODE]"; other users' links can be read
only with CAP_SYS_PTRACE. A deadline limits every search: what it does not reach in time stays unknown.
"""

import os
import re
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from agent.core.format import printable
from agent.core.kernel import procfs
from agent.core.readings import ROOT_CGROUP, Process, Unlisted
from agent.core.sockets.cgroup_names import PATH_AT_MOST, parse_proc_cgroup
from agent.core.sockets.nettcp import inode_of
from agent.probe.files import Unreadable, read_bytes, readable_name
from agent.probe.reading import Reading

GROUPS_AT_MOST = 50_000
FILES_A_LOOK = 256
NAMES_AT_MOST = 1024
POD_LOGS = Path("/var/log/pods")
PODS_AT_MOST = 4096
# 8 MB of numbers; a process is worth naming that has a tenth of what is looked for.
SOCKETS_AT_MOST = 131_072
UNLISTED_AT_MOST, UNLISTED_SHARE = 3, 10
NAME_AT_MOST = 32

_UNNAMED, _SYSTEMD = "?", 1
_ENDED = frozenset("ZX")
_ESCAPED = re.compile(r"\\([0-7]{3})", re.ASCII)
_SOCKET_LINK = "socket:["

Clock = Callable[[], float]


class Names:
    """Paths of known cgroups, so that one that has been removed still has a name."""

    def __init__(self, most: int = NAMES_AT_MOST) -> None:
        self._paths: OrderedDict[int, str] = OrderedDict()
        self._most = most

    def remember(self, paths: dict[int, str]) -> None:
        """Keep these paths; drop the least recently seen ones."""
        for number, path in paths.items():
            self._paths[number] = path
            self._paths.move_to_end(number)
        while len(self._paths) > self._most:
            self._paths.popitem(last=False)

    def recall(self, numbers: Collection[int]) -> dict[int, str]:
        """Return the known paths of these ids."""
        return {number: self._paths[number] for number in numbers if number in self._paths}


class Found(NamedTuple):
    """What a search found; ``whole`` if it finished, ``refused`` counts the unreadable processes."""

    processes: dict[int, Process]
    whole: bool
    refused: int


def unified_root(proc_root: Path) -> Path | None:
    """Find the mount point of the unified cgroup hierarchy in /proc/self/mountinfo.

    Sample: "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw".
    """
    data = read_bytes(proc_root / "self/mountinfo")
    for line in [] if isinstance(data, Unreadable) else os.fsdecode(data).splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        if after.startswith("cgroup2 ") and len(fields) > 4:  # noqa: PLR2004 - mount point is the fifth
            return Path(_ESCAPED.sub(lambda match: chr(int(match[1], 8)), fields[4]))
    return None


def find_paths(root: Path, wanted: Collection[int], deadline: float, clock: Clock = time.monotonic) -> dict[int, str]:
    """Find the paths of these cgroup ids below the mount; the root (1) is included if the search finished."""
    paths: dict[int, str] = {}
    left = set(wanted) - {ROOT_CGROUP}
    waiting = deque([(str(root), "/")])
    looked_at = 0
    while waiting and left:
        directory, path = waiting.popleft()
        looked_at += 1
        if clock() > deadline or looked_at > GROUPS_AT_MOST:
            return paths
        for number, child, name in _subgroups(directory):
            child_path = f"{path.rstrip('/')}/{name}"
            waiting.append((child, child_path))
            if number in left:
                left.discard(number)
                paths[number] = printable(readable_name(child_path), PATH_AT_MOST)
    return paths | {ROOT_CGROUP: "/"}


def find_processes(
    proc_root: Path,
    wanted: Collection[int],
    deadline: float,
    *,
    files_each: int | None = None,
    clock: Clock = time.monotonic,
) -> Found:
    """Find a process for each of these socket inodes in the open files of all readable processes.

    systemd comes last: it keeps the listeners open that it has handed to services.
    ``files_each`` limits the files per process, the oldest first, which include its listening sockets.
    """
    processes: dict[int, Process] = {}
    left, refused = set(wanted) - {0}, 0
    for pid in sorted(process_ids(proc_root), key=_SYSTEMD.__eq__):
        if not left:
            break
        try:
            for count, (inode, _) in enumerate(islice(_sockets(f"{proc_root}/{pid}/fd"), files_each)):
                if inode in left:
                    left.discard(inode)
                    processes[inode] = read_process(proc_root, pid)
                if count % FILES_A_LOOK == 0 and (not left or clock() > deadline):
                    break
        except PermissionError:
            refused += 1
        except OSError:
            continue  # It has ended.
        if clock() > deadline:
            return Found(processes, whole=not left, refused=refused)
    return Found(processes, whole=True, refused=refused)


def find_unlisted(
    proc_root: Path, missing: int, deadline: float, clock: Clock = time.monotonic
) -> tuple[list[Unlisted], int]:
    """Find the processes that have most of ``missing`` TCP sockets open which are in no table, the most first.

    Also return how many processes may not be looked at. One process at a time is in memory, and of it the numbers of
    its sockets; a tenth of those that are missing is worth a look at the tables.
    """
    found: list[Unlisted] = []
    refused = 0
    for pid in process_ids(proc_root):
        if clock() > deadline:
            break
        directory = f"{proc_root}/{pid}/fd"
        try:
            inodes = set(islice((inode for inode, _ in _sockets(directory)), SOCKETS_AT_MOST))
            if UNLISTED_SHARE * len(inodes) < missing:
                continue
            inodes.difference_update(map(inode_of, table(proc_root, pid)))
            count = sum(inode in inodes and _is_tcp(path) for inode, path in _sockets(directory))
        except PermissionError:
            refused += 1
            continue
        except OSError:
            continue  # It has ended.
        if UNLISTED_SHARE * count >= missing:
            found.append(Unlisted(process=read_process(proc_root, pid), sockets=count))
    return sorted(found, key=lambda each: each.sockets, reverse=True)[:UNLISTED_AT_MOST], refused


def find_pods(sight: str, directory: Path = POD_LOGS) -> dict[str, str]:
    """Name the pods whose UID is in a text of cgroup paths: the kubelet names their logs "NAMESPACE_NAME_UID".

    CRI's own state is for root to read, and these names are for everybody.
    """
    if "pod" not in sight:
        return {}
    try:
        found = [entry.split("_") for entry in islice(sorted(os.listdir(directory)), PODS_AT_MOST)]  # noqa: PTH208
    except OSError:
        return {}
    pods = {parts[2]: f"{parts[0]}/{parts[1]}" for parts in found if len(parts) == 3}  # noqa: PLR2004 - as above
    return {uid: name for uid, name in pods.items() if uid in sight or uid.replace("-", "_") in sight}


def table(proc_root: Path, pid: int) -> Iterator[bytes]:
    """Yield the lines of /proc/PID/net/tcp and tcp6; none of a process that has ended, or of what a kernel lacks.

    The kernel walks the host's whole hash table for each, 9 ms on 262,144 buckets: not for a family without a socket.
    """
    for name, stat, label in (("tcp", "sockstat", b"TCP"), ("tcp6", "sockstat6", b"TCP6")):
        counts = read_bytes(f"{proc_root}/{pid}/net/{stat}")
        if not isinstance(counts, Unreadable) and re.search(rb"^%s: inuse 0\b" % label, counts, re.MULTILINE):
            continue
        with suppress(OSError), open(f"{proc_root}/{pid}/net/{name}", "rb") as file:  # noqa: PTH123 - of many hundreds
            next(file, None)
            yield from file


def read_process(proc_root: Path, pid: int) -> Process:
    """Read the name and cgroup of a process, which may have ended and chooses its own name."""
    comm = read_bytes(f"{proc_root}/{pid}/comm")
    cgroup = read_bytes(f"{proc_root}/{pid}/cgroup")
    return Process(
        pid=pid,
        name=_UNNAMED if isinstance(comm, Unreadable) else printable(_text(comm).rstrip("\n"), NAME_AT_MOST),
        cgroup=None if isinstance(cgroup, Unreadable) else parse_proc_cgroup(_text(cgroup)),
    )


def read_actor(proc_root: Path, pid: int, name: str, seconds_ago: float) -> Process | None:
    """Read the process of a thread that acted ``seconds_ago`` as ``name``; None where it has ended.

    Its number may be another's by now: one that started later and has another name did not do it. A name alone proves
    nothing, since a program that is executed changes it. A zombie may have left its cgroup.
    """
    process, reading = read_process(proc_root, pid), Reading(proc_root)
    uptime = reading.parse("uptime", procfs.parse_uptime)
    stat = reading.parse(f"{pid}/stat", procfs.parse_process_stat)
    if uptime is None or stat is None or process.name == _UNNAMED:
        return None
    state, ticks = stat
    is_left = state in _ENDED and process.cgroup is None
    is_older = uptime - ticks / os.sysconf("SC_CLK_TCK") >= seconds_ago
    return process if not is_left and (is_older or process.name == printable(name, NAME_AT_MOST)) else None


def process_ids(proc_root: Path) -> list[int]:
    """List the visible processes, lowest id first."""
    try:
        names = os.listdir(proc_root)  # noqa: PTH208 - a host has thousands: no Path for each
    except OSError:
        return []
    return sorted(map(int, filter(str.isdecimal, names)))


def _subgroups(directory: str) -> list[tuple[int, str, str]]:
    """List inode, path and name of the child groups."""
    try:
        with os.scandir(directory) as entries:
            return [(entry.inode(), entry.path, entry.name) for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []  # Removed: its sockets have no path any more.


def _is_tcp(path: str) -> bool:
    """Ask a descriptor for its protocol: other sockets are in no table of TCP's either (sockfs, net/socket.c)."""
    try:
        return os.getxattr(path, "system.sockprotoname").startswith(b"TCP")
    except OSError:
        return False


def _sockets(directory: str) -> Iterator[tuple[int, str]]:
    """Yield inode and path of the sockets among the open files of a process."""
    with os.scandir(directory) as entries:
        for entry in entries:
            try:
                target = os.readlink(entry.path)  # noqa: PTH115 - a host has 100,000s: no Path for each
            except FileNotFoundError:
                continue  # Closed.
            if target.startswith(_SOCKET_LINK):
                yield int(target[len(_SOCKET_LINK) : -1]), entry.path


def _text(data: bytes) -> str:
    return data.decode(errors="backslashreplace")
