"""A census of sockets in constant memory: rows while counting, groups in the report.

The table may be asked about 200,000 sockets of 100,000 networks, and takes the same few megabytes. While there is room,
every (state, service, network, cgroup) has a row of its own. Then a new network is counted under "other networks" of
its service, later a new service under "other services" of its cgroup, at last under "others": sums by cgroup and state
stay exact. A row that exists counts all of its sockets, and sockets come in the order of a hash with a random key: a
network with the share p of all of them has no row with a chance of (1 - p) ** 8192, for one in a hundred 10 ** -36.

Services: the local port where somebody listens or that is no ephemeral one (a server restarts, its orphans stay),
else the port of the peer (we went there), else neither.
"""

import sys
from array import array
from typing import NamedTuple

LISTEN = 10
ESTABLISHED, SYN_RECV, CLOSE_WAIT = 1, 3, 8
ORPHAN_STATES = frozenset({4, 5, 9, 11})
QUEUED_STATES = frozenset({ESTABLISHED, SYN_RECV, CLOSE_WAIT})
# Three retransmissions take 1.4 s at least: what is merely on its way, or lost once, has been acknowledged by then.
OFTEN = 3
TIMER_RETRANSMIT, TIMER_TIMEWAIT, TIMER_PROBE = 1, 3, 4

NETWORKS_AT_MOST, SERVICES_AT_MOST, CGROUPS_AT_MOST = 8192, 10_240, 11_264
LISTENERS_AT_MOST = 1024

OUTGOING, UNKNOWN, OTHER_SERVICE = 1 << 16, 2 << 16, 3 << 16
NAMESPACE_SHIFT = 18
OTHER_NETWORK = 1 << 40
OTHER_CGROUP = -1
# Of an IPv4 address as it lies in a message: the part that names its network.
SLASH_24 = int.from_bytes(b"\xff\xff\xff\0", sys.byteorder)
_PORTS = 1 << 16

# (state and timer as they lie in the message, service, network, cgroup, has no inode)
Key = tuple[int, int, int, int | bytes, bool]
# sockets, bytes, rmem, wmem, unread, unsent, the lowest inode (the oldest socket is among the first open files of its
# program), how many have sent often without an answer, and how many received segments the kernel has dropped
Row = list[int]


class Listening(NamedTuple):
    """Sockets that listen on one port for one cgroup, added up, and the inode of one of them."""

    sockets: int
    waiting: int
    backlog: int
    inode: int


class Census:
    """Counts sockets into ``rows``; ``near`` and ``far`` tell the service of a local and of a peer's port.

    Ports are as they lie in the message, so that they index the two tables without being turned round.
    """

    def __init__(self, ephemeral: tuple[int, int] = (32768, 60999)) -> None:
        self.rows: dict[Key, Row] = {}
        self.minisocks: dict[int, int] = {}
        self.listeners: dict[tuple[int, int, int | None], Listening] = {}
        self.listening = 0
        self._namespace = 0
        self.enter(0, ephemeral)

    def enter(self, namespace: int, ephemeral: tuple[int, int]) -> None:
        """Go on in a network namespace of its own listeners and its own range of ephemeral ports."""
        base = namespace << NAMESPACE_SHIFT
        low, high = ephemeral
        free = range(max(low, 1), min(high, _PORTS - 1) + 1)
        near, far = (array("I", range(first, first + _PORTS)) for first in (base, base | OUTGOING))
        near[free.start : free.stop] = array("I", [0] * len(free))
        far[free.start : free.stop] = array("I", [base | UNKNOWN] * len(free))
        near[0], far[0] = 0, base | UNKNOWN
        self.near, self.far = _as_in_messages(near), _as_in_messages(far)
        self._namespace = namespace

    def listen(self, raw_port: int, cgroup: int | None, *, waiting: int, backlog: int, inode: int) -> None:
        """Note a listening socket of the namespace that was entered last."""
        port = int.from_bytes(raw_port.to_bytes(2, sys.byteorder), "big")
        base = self._namespace << NAMESPACE_SHIFT
        self.near[raw_port] = base | port
        # The other end of a loopback connection went there, ephemeral or not.
        self.far[raw_port] = base | OUTGOING | port
        self.add_listener((self._namespace, port, cgroup), waiting=waiting, backlog=backlog, inode=inode)

    def add_listener(self, key: tuple[int, int, int | None], *, waiting: int, backlog: int, inode: int) -> None:
        """Add a listening socket to those of the same namespace, port and cgroup (SO_REUSEPORT)."""
        self.listening += 1
        known = self.listeners.get(key) or (Listening(0, 0, 0, 0) if len(self.listeners) < LISTENERS_AT_MOST else None)
        if known is not None:
            self.listeners[key] = Listening(
                known.sockets + 1, known.waiting + waiting, known.backlog + backlog, known.inode or inode
            )

    def admit(self, key: Key, inode: int) -> Row:
        """Give a row to a key that has none, of its own or together with others when the table is full."""
        state, service, _, cgroup, closed = key
        full = len(self.rows)
        namespace = service >> NAMESPACE_SHIFT << NAMESPACE_SHIFT
        if full >= NETWORKS_AT_MOST:
            key = (state, service, OTHER_NETWORK, cgroup, closed)
            if full >= SERVICES_AT_MOST and key not in self.rows:
                key = (state, namespace | OTHER_SERVICE, OTHER_NETWORK, cgroup, closed)
                if full >= CGROUPS_AT_MOST and key not in self.rows:
                    key = (state, OTHER_SERVICE, OTHER_NETWORK, OTHER_CGROUP, closed)
        return self.rows.setdefault(key, [0, 0, 0, 0, 0, 0, inode, 0, 0])


def _as_in_messages(by_port: "array[int]") -> "array[int]":
    """Order a table by ports as they lie in a message: network order, read as a number of this machine."""
    if sys.byteorder == "big":
        return by_port
    turned = array("I")
    for low in range(256):
        turned.extend(by_port[low::256])
    return turned
