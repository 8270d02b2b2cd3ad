"""The network namespaces of a host: namespaces(7), network_namespaces(7), setns(2).

Each has its own /proc/PID/net. The inode number of a file there identifies the namespace, and sockstat counts its
sockets, both without privilege. To see the sockets themselves takes CAP_SYS_ADMIN for setns(), and CAP_SYS_PTRACE to
open the namespace of another user's process (ptrace(2), PTRACE_MODE_READ_FSCREDS).
"""

import ctypes
import errno
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

from agent.core.kernel import procfs
from agent.core.readings import Gap, Namespace
from agent.probe import sockdiag
from agent.probe.owners import process_ids, read_process
from agent.probe.reading import Reading

NAMESPACES_AT_MOST = 256
_CLONE_NEWNET = 0x40000000
_WHAT = "sockets of other network namespaces"

Clock = Callable[[], float]


def find_namespaces(proc_root: Path, deadline: float, clock: Clock = time.monotonic) -> list[Namespace]:
    """List the other network namespaces that have a process, each with its oldest one."""
    known = {_identity(proc_root, "self")}
    found: list[Namespace] = []
    for pid in process_ids(proc_root):
        if clock() > deadline or len(found) >= NAMESPACES_AT_MOST:
            break
        identity = _identity(proc_root, str(pid))
        if identity is None or identity in known:
            continue
        known.add(identity)
        found.append(Namespace(process=read_process(proc_root, pid), inuse=_inuse(proc_root / str(pid))))
    return found


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


def _identity(proc_root: Path, process: str) -> int | None:
    try:
        return os.stat(f"{proc_root}/{process}/net/sockstat").st_ino  # noqa: PTH116 - of thousands, Path would cost most
    except OSError:
        return None


def _inuse(process: Path) -> int | None:
    reading = Reading(process)
    sockstat = reading.parse("net/sockstat", procfs.parse_sockstat)
    tcp6 = reading.parse("net/sockstat6", procfs.parse_sockstat6)
    if sockstat is None or sockstat.tcp.inuse is None:
        return tcp6
    return sockstat.tcp.inuse + (tcp6 or 0)
