"""All TCP sockets of a network namespace, streamed from the kernel: sock_diag(7), netlink(7).

Four dumps on one socket: the listeners of IPv4 and IPv6 (the kernel looks at nothing else for them), then everything
connected. No privilege is needed, memory included. At most 64 KiB of answers are in memory at a time. Like ss(8), the
first dump since boot makes the kernel load its modules inet_diag and tcp_diag where they are not built in; nothing
else on the host changes. A dump is no snapshot: sockets that come and go meanwhile may be missed or seen twice.
"""

import errno
import os
import socket
import time
from collections.abc import Callable

from agent.core.format import counted
from agent.core.readings import Gap
from agent.core.sockets.census import Census
from agent.core.sockets.inetdiag import (
    AF_INET,
    AF_INET6,
    BUFFER_BYTES,
    STATES_CONNECTED,
    STATES_LISTEN,
    Reader,
    request,
)

NETLINK_SOCK_DIAG = 4
DUMPS = (
    (AF_INET, STATES_LISTEN),
    (AF_INET6, STATES_LISTEN),
    (AF_INET, STATES_CONNECTED),
    (AF_INET6, STATES_CONNECTED),
)
WHAT = "sockets (sock_diag)"
LATE = Gap(what=WHAT, why="the dump did not finish in time: the counts are incomplete")
_NO_MODULE = "this kernel has no tcp_diag: load the module (modprobe tcp_diag), or use kernel 3.3 or newer"
_FORBIDDEN = "not permitted: RestrictAddressFamilies= of the service must include AF_NETLINK"
_OVERRUN = "the kernel dropped answers (ENOBUFS): the counts are incomplete"
_REASONS = {
    errno.ENOENT: _NO_MODULE,
    errno.EINVAL: _NO_MODULE,
    errno.EOPNOTSUPP: _NO_MODULE,
    errno.EPROTONOSUPPORT: _NO_MODULE,
    errno.EPERM: _FORBIDDEN,
    errno.EACCES: _FORBIDDEN,
    errno.EAFNOSUPPORT: _FORBIDDEN,
    errno.ENOBUFS: _OVERRUN,
}

Clock = Callable[[], float]


def open_socket() -> socket.socket | Gap:
    """Open a netlink socket in the network namespace of this thread, or return why not."""
    try:
        return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_SOCK_DIAG)
    except OSError as error:
        return _failed(error.errno)


def dump(netlink: socket.socket, census: Census, deadline: float, clock: Clock = time.monotonic) -> list[Gap]:
    """Count every TCP socket into the census; without gaps the count is complete.

    ``deadline`` is in seconds of ``clock``: a dump that does not finish before it is incomplete and leaves a gap. No
    answer of the kernel raises.
    """
    reader = Reader(census)
    gaps: list[Gap] = []
    for sequence, (family, states) in enumerate(DUMPS, start=1):
        gap = _dump_one(netlink, reader, request(family, states, sequence), deadline, clock)
        # After an error the next dump would read the rest of this one.
        if gap is not None:
            gaps.append(gap)
            break
    if reader.interrupted:
        gaps.append(
            Gap(
                what=WHAT,
                why="the kernel's tables changed during the dump: some sockets may be missing or counted twice",
            )
        )
    if reader.malformed:
        gaps.append(Gap(what=WHAT, why=f"{counted(reader.malformed, 'message')} of unknown format skipped"))
    return gaps


def _dump_one(netlink: socket.socket, reader: Reader, asked: bytes, deadline: float, clock: Clock) -> Gap | None:
    buffer = bytearray(BUFFER_BYTES)
    try:
        netlink.sendall(asked)
        while True:
            left = deadline - clock()
            # NaN counts as late too: a stopped clock and its deadline are both infinite.
            if not left > 0:
                return LATE
            netlink.settimeout(left)
            size, _, flags, _ = netlink.recvmsg_into([buffer])
            if flags & socket.MSG_TRUNC:
                return Gap(
                    what=WHAT,
                    why=f"an answer of more than {BUFFER_BYTES} bytes was truncated: the counts are incomplete",
                )
            if not size:
                return Gap(what=WHAT, why="the kernel ended the dump without marking it complete")
            end = reader.feed(buffer, size)
            if end is not None:
                return _failed(end.errno) if end.errno else None
    except TimeoutError:
        return LATE
    except OSError as error:
        return _failed(error.errno)


def _failed(code: int | None) -> Gap:
    return Gap(what=WHAT, why=_REASONS.get(code or 0) or f"the kernel refused: {os.strerror(code or 0)}")
