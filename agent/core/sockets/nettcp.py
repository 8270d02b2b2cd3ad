"""The lines of /proc/PID/net/tcp and tcp6: sockets of a network namespace that may not be entered, counted one by one.

Any user may read them; sock_diag answers only inside the namespace. Mirrors get_tcp4_sock() (net/ipv4/tcp_ipv4.c) and
get_tcp6_sock() (net/ipv6/tcp_ipv6.c)::

      sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
       0: 0100007F:1F90 00000000:0000 0A 00000000:00000003 00:00000000 00000000     0        0 5150 1 0000000...
       1: 0100007F:1F90 0100007F:D4A2 04 0000C350:00000000 01:00000014 00000002     0        0 0 4 0000000...

Addresses are words of this machine, ports plain numbers. An inode of 0 is an orphan, by its state, or not accepted yet.
There is no memory in it, only what is queued: each socket is charged for at least that, in whole pages.
"""

import sys

from agent.core.readings import SMALL_PAGE_BYTES
from agent.core.sockets.census import (
    LISTEN,
    NAMESPACE_SHIFT,
    OFTEN,
    OUTGOING,
    SLASH_24,
    SYN_RECV,
    TIMER_TIMEWAIT,
    UNKNOWN,
    Census,
)

_FIELDS = 10
_IPV4_DIGITS = 8
_BASE = 16


class Lines:
    """Counts the lines of one namespace into a census; listening sockets come first in each file."""

    def __init__(self, census: Census, namespace: int, ephemeral: tuple[int, int]) -> None:
        self.malformed = 0
        self._census = census
        self._namespace = namespace
        self._base = namespace << NAMESPACE_SHIFT
        self._ephemeral = range(ephemeral[0], ephemeral[1] + 1)
        self._listening: set[int] = set()

    def count(self, line: bytes) -> None:
        """Count the socket of one line; garbage is counted, not raised."""
        try:
            self._count(line.split(None, _FIELDS))
        except (ValueError, IndexError, OverflowError):
            self.malformed += 1

    def _count(self, fields: list[bytes]) -> None:
        state, timer = int(fields[3], _BASE), int(fields[5][:2], _BASE)
        inode, port = int(fields[9]), int(fields[1][-4:], _BASE)
        unsent, unread = (int(queue, _BASE) for queue in fields[4].split(b":"))
        if state == LISTEN:
            self._listening.add(port)
            self._census.add_listener((self._namespace, port, None), waiting=unread, backlog=0, inode=inode)
            return
        if timer == TIMER_TIMEWAIT or (state == SYN_RECV and not inode):
            self._census.minisocks[state] = self._census.minisocks.get(state, 0) + 1
            return
        both = int.from_bytes((state, timer), sys.byteorder)
        service = self._service(port, int(fields[2][-4:], _BASE))
        key = (both, service, _network(fields[2][:-5]), b"", not inode)
        row = self._census.rows.get(key) or self._census.admit(key, inode)
        size = -(-(unread + unsent) // SMALL_PAGE_BYTES) * SMALL_PAGE_BYTES
        for index, value in enumerate((1, size, unread, unsent, unread, unsent)):
            row[index] += value
        row[6] = min(row[6], inode)
        row[7] += int(fields[6], _BASE) >= OFTEN

    def _service(self, near: int, far: int) -> int:
        """Find the service as the census does: the port of this side, of the other side, or neither."""
        if self._is_service(near):
            return self._base | near
        return self._base | (OUTGOING | far if self._is_service(far) else UNKNOWN)

    def _is_service(self, port: int) -> bool:
        return port in self._listening or (port > 0 and port not in self._ephemeral)


def inode_of(line: bytes) -> int:
    """Take the inode out of a line; 0 where there is none."""
    try:
        return int(line.split(None, _FIELDS)[9])
    except (ValueError, IndexError):
        return 0


def _network(address: bytes) -> int:
    """Return the front of an address as it lies in a sock_diag message: see core.sockets.inetdiag."""
    if len(address) == _IPV4_DIGITS:
        return int(address, _BASE) & SLASH_24
    words = [int(address[at : at + 8], _BASE).to_bytes(4, sys.byteorder) for at in range(0, 32, 8)]
    upper = int.from_bytes(words[0] + words[1], sys.byteorder)
    return ~upper if upper else int.from_bytes(words[3], sys.byteorder) & SLASH_24
