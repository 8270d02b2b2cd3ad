"""The network namespaces of a host: namespaces(7), network_namespaces(7), setns(2).

Each has its own /proc/PID/net, which needs no privilege: the inode number of a file there identifies the namespace,
sockstat counts its sockets, tcp and tcp6 list them. To see what memory they have takes CAP_SYS_ADMIN for setns(), and
CAP_SYS_PTRACE to open the namespace of another user's process (ptrace(2), PTRACE_MODE_READ_FSCREDS).
"""

import ctypes
import errno
import os
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterable
from ipaddress import ip_address
from pathlib import Path

from agent.core.format import counted
from agent.core.kernel import procfs
from agent.core.readings import Gap, Namespace, Process
from agent.core.sockets.nettcp import Lines
from agent.probe import sockdiag
from agent.probe.files import read_head, read_text
from agent.probe.owners import process_ids, read_process, table

NAMESPACES_AT_MOST = 1024
# A pod has a handful of containers.
_CGROUPS_AT_MOST = 8
_LINES_A_LOOK = 256
_PAUSE = "pause"
_CLONE_NEWNET = 0x40000000
_WHAT = "sockets of other network namespaces"
LATE = Gap(what=_WHAT, why="reading them did not finish in time: the counts are incomplete")
HIDDEN = Gap(
    what="other network namespaces",
    why="/proc hides the processes of other users (hidepid): their namespaces cannot be seen",
)

Clock = Callable[[], float]


def find_namespaces(proc_root: Path, deadline: float, clock: Clock = time.monotonic) -> list[Namespace]:
    """List the other network namespaces that have a process, with the cgroups of their processes."""
    home = identity(proc_root, "self")
    found: dict[int, dict[str | None, Process]] = {}
    for pid in process_ids(proc_root):
        if clock() > deadline:
            break
        space = identity(proc_root, pid)
        if space is None or space == home or (space not in found and len(found) >= NAMESPACES_AT_MOST):
            continue
        members = found.setdefault(space, {})
        if len(members) < _CGROUPS_AT_MOST:
            process = read_process(proc_root, pid)
            members.setdefault(process.cgroup, process)
    return [_namespace(proc_root, list(members.values())) for members in found.values()]


def _namespace(proc_root: Path, members: list[Process]) -> Namespace:
    """Name a namespace by the oldest of its processes that does more than hold it open."""
    busy = [each for each in members if each.name != _PAUSE] or members
    others = tuple(each.cgroup for each in busy[1:] if each.cgroup)
    return Namespace(process=busy[0], inuse=count_sockets(proc_root, busy[0].pid), others=others)


def find_by_address(proc_root: Path, spaces: Iterable[Namespace], wanted: Collection[str]) -> dict[str, Namespace]:
    """Find the other namespace whose own an address is; what several have is nobody's, as every loopback address is."""
    left = {each for each in wanted if not ip_address(each).is_loopback} - _addresses(proc_root, "self")
    known = [(space, _addresses(proc_root, space.process.pid)) for space in spaces] if left else []
    owners = {each: [space for space, own in known if each in own] for each in left}
    return {address: having[0] for address, having in owners.items() if len(having) == 1}


def _addresses(proc_root: Path, process: int | str) -> set[str]:
    """Read the addresses of a process's network namespace, which any user may."""
    trie, inet6 = (read_head(proc_root / str(process) / "net" / name) or "" for name in ("fib_trie", "if_inet6"))
    return procfs.parse_fib_trie(trie) | procfs.parse_if_inet6(inet6)


def hides_processes(proc_root: Path) -> bool:
    """Return whether /proc keeps other users' processes from this one: proc(5), hidepid."""
    return identity(proc_root, "self") is not None and identity(proc_root, "1") is None


def count_lines(proc_root: Path, namespace: Namespace, lines: Lines, deadline: float, clock: Clock) -> Gap | None:
    """Count the sockets of a namespace from the files that every user may read, in constant memory."""
    for number, line in enumerate(table(proc_root, namespace.process.pid)):
        if number % _LINES_A_LOOK == 0 and not clock() <= deadline:
            return LATE
        lines.count(line)
    return (
        Gap(what=_WHAT, why=f"{counted(lines.malformed, 'line')} of unknown format skipped")
        if lines.malformed
        else None
    )


def open_in(proc_root: Path, namespace: Namespace) -> socket.socket | Gap:
    """Open a sock_diag socket in another network namespace.

    A socket stays in the namespace it was created in, so a separate thread enters it, creates the socket and ends: the
    rest of this program never changes its namespace.
    """
    made: list[socket.socket | Gap] = []

    def go_and_make() -> None:
        made.append(_enter(f"{proc_root}/{namespace.process.pid}/ns/net") or sockdiag.open_socket())

    thread = threading.Thread(target=go_and_make)
    try:
        thread.start()
    except RuntimeError as error:  # The unit's TasksMax= is reached, or the host's.
        return Gap(what=_WHAT, why=f"cannot be entered: {error}")
    thread.join()
    return made[0]


def _enter(path: str) -> Gap | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        return _refused(error.errno)
    try:
        # os.setns() needs Python 3.12.
        library = ctypes.CDLL(None, use_errno=True)
        if library.setns(descriptor, _CLONE_NEWNET):
            return _refused(ctypes.get_errno())
    finally:
        os.close(descriptor)
    return None


def _refused(code: int | None) -> Gap:
    return Gap(what=_WHAT, why=f"cannot be entered: {os.strerror(code or 0)}")


FORBIDDEN = (_refused(errno.EPERM), _refused(errno.EACCES))


def identity(proc_root: Path, process: int | str) -> int | None:
    """Return what tells the network namespace of a process from others: ns/net is not for other users to read."""
    try:
        return os.stat(f"{proc_root}/{process}/net/tcp").st_ino  # noqa: PTH116 - of thousands, Path would cost most
    except OSError:
        return None


def count_sockets(proc_root: Path, pid: int) -> int | None:
    """Read how many sockets are in the tables of a process's namespace."""
    texts = (read_text(f"{proc_root}/{pid}/net/{name}") for name in ("sockstat", "sockstat6"))
    counts = [procfs.parse_inuse(text) for text in texts if isinstance(text, str)]
    return sum(each or 0 for each in counts) if any(each is not None for each in counts) else None
