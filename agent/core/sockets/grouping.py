"""From the rows of a census to groups that people can read: a few hundred at most, the largest first, sums unchanged.

Bytes back to words: a state number to "fin_wait1", the front of an address to "192.0.2.0/24", a service to its port.
"""

import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address
from operator import truediv
from typing import NamedTuple, TypeVar

from agent.core.readings import STATES, Listener, PeerTally, SocketGroup, State, Tally
from agent.core.sockets import census as counted
from agent.core.sockets.census import Census, Key, Row

GROUPS_AT_MOST = 128
PEERS_OF_A_GROUP, PEERS_AT_MOST = 5, 20

_SERVICE_MASK = (1 << counted.NAMESPACE_SHIFT) - 1
_PORT_MASK = 0xFFFF

T = TypeVar("T")
# namespace and service, cgroup
Place = tuple[int, int | None]


class Grouped(NamedTuple):
    """Groups and listeners, each with the inode of one of its sockets (0: none has one), and the largest networks."""

    groups: tuple[tuple[SocketGroup, int], ...]
    listeners: tuple[tuple[Listener, int], ...]
    peers: tuple[PeerTally, ...]


class _Draft:
    """A group while it is being added up."""

    def __init__(self) -> None:
        self.held: dict[State, list[int]] = {}
        self.queued: dict[State, list[int]] = {}
        self.orphaned: dict[State, list[int]] = {}
        self.peers: defaultdict[int, list[int]] = defaultdict(lambda: [0, 0, 0])
        self.inode = self.drops = 0

    def add(self, key: Key, row: Row) -> None:
        code, timer = _state_and_timer(key[0])
        state = STATES[code] if code < len(STATES) else "unknown"
        orphan = is_orphan(code, timer, closed=key[4])
        where = self.orphaned if orphan else self.queued if key[4] and code in counted.QUEUED_STATES else self.held
        sums = where.setdefault(state, [0] * 9)
        probing, retransmitting = timer == counted.TIMER_PROBE, timer == counted.TIMER_RETRANSMIT
        timers = (row[0] * retransmitting, row[7] * retransmitting, row[0] * probing)
        for index, value in enumerate((*row[:6], *timers)):
            sums[index] += value
        _add_peer(self.peers[key[2]], row, orphan=orphan)
        self.inode = min(filter(None, (self.inode, row[6])), default=0)
        # What is sent to an orphan nobody would read.
        self.drops += 0 if orphan else row[8]


def is_orphan(state: int, timer: int, *, closed: bool) -> bool:
    """Return whether it is an orphan: closed, still to be acknowledged or answered by the peer, and no minisock."""
    return closed and state in counted.ORPHAN_STATES and timer != counted.TIMER_TIMEWAIT


def group(census: Census) -> Grouped:
    """Make groups of the rows: GROUPS_AT_MOST of their own, then one for each cgroup, then one for all others."""
    places = _places(census.rows)
    drafts: defaultdict[Place, _Draft] = defaultdict(_Draft)
    networks: defaultdict[int, list[int]] = defaultdict(lambda: [0, 0, 0])
    for key, row in census.rows.items():
        drafts[places[_place(key)]].add(key, row)
        _add_peer(networks[key[2]], row, orphan=is_orphan(*_state_and_timer(key[0]), closed=key[4]))
    groups = [(_finish(place, draft), draft.inode) for place, draft in drafts.items()]
    groups.sort(key=lambda each: (each[0].bytes, each[0].orphans, each[0].sockets), reverse=True)
    return Grouped(tuple(groups), tuple(_listeners(census)), _peers(networks, PEERS_AT_MOST))


def _places(rows: dict[Key, Row]) -> dict[Place, Place]:
    """Return for every (service, cgroup) where it is counted: on its own when it is one of the largest."""
    totals: dict[Place, list[int]] = {}
    for key, row in rows.items():
        sums = totals.setdefault(_place(key), [0, 0, 0])
        _add_peer(sums, row, orphan=is_orphan(*_state_and_timer(key[0]), closed=key[4]))
    ranked = _ranked(totals)
    kept, rest = ranked[:GROUPS_AT_MOST], ranked[GROUPS_AT_MOST:]
    cgroups = [cgroup for cgroup, _ in Counter(place[1] for place in rest).most_common(GROUPS_AT_MOST)]
    others = {
        place: (counted.OTHER_SERVICE, place[1] if place[1] in cgroups else counted.OTHER_CGROUP) for place in rest
    }
    return {place: place for place in kept} | others


def _ranked(totals: dict[T, list[int]]) -> list[T]:
    """Put first what has the largest shares of sockets, orphans and bytes together: any of them may be the trouble."""
    largest = [max(column, default=0) or 1 for column in zip(*totals.values(), strict=True)]
    weights = {key: sum(map(truediv, sums, largest)) for key, sums in totals.items()}
    return sorted(weights, key=lambda key: weights[key], reverse=True)


def _place(key: Key) -> Place:
    return key[1], key[3] if isinstance(key[3], int) else None


def _finish(place: Place, draft: _Draft) -> SocketGroup:
    service, cgroup = place[0] & _SERVICE_MASK, place[1]
    kind, port = service & ~_PORT_MASK, service & _PORT_MASK
    return SocketGroup(
        cgroup=None if cgroup == counted.OTHER_CGROUP else cgroup,
        port=port if kind == 0 else None,
        to_port=port if kind == counted.OUTGOING else None,
        held=_tallies(draft.held),
        queued=_tallies(draft.queued),
        orphaned=_tallies(draft.orphaned),
        drops=draft.drops,
        peers=_peers(draft.peers, PEERS_OF_A_GROUP),
        peers_counted=len(draft.peers) - (counted.OTHER_NETWORK in draft.peers),
        namespace=place[0] >> counted.NAMESPACE_SHIFT,
        folded=kind == counted.OTHER_SERVICE,
    )


def _tallies(sums: dict[State, list[int]]) -> dict[State, Tally]:
    fields = Tally.__struct_fields__
    return {state: Tally(**dict(zip(fields, row, strict=True))) for state, row in sorted(sums.items())}


def _peers(networks: dict[int, list[int]], most: int) -> tuple[PeerTally, ...]:
    """Name the largest networks, and sum the others up under no name."""
    named = _ranked({each: sums for each, sums in networks.items() if each != counted.OTHER_NETWORK})
    tallies = [_peer(_network(each), [networks[each]]) for each in named[:most]]
    others = [networks[each] for each in named[most:]] + [networks[n] for n in networks if n == counted.OTHER_NETWORK]
    return (*tallies, _peer(None, others)) if others else tuple(tallies)


def _peer(network: str | None, sums: Iterable[list[int]]) -> PeerTally:
    sockets, orphans, size = (sum(column) for column in zip(*sums, strict=True))
    return PeerTally(network=network, sockets=sockets, orphans=orphans, bytes=size)


def _add_peer(sums: list[int], row: Row, *, orphan: bool) -> None:
    sums[0] += row[0]
    sums[1] += row[0] * orphan
    sums[2] += row[1]


def _network(front: int) -> str:
    if front < 0:
        return f"{IPv6Address((~front).to_bytes(8, sys.byteorder) + bytes(8))}/64"
    # No peer lives in 0.0.0.0/24: it is what ::1 looks like as the end of a mapped address.
    return f"{IPv4Address(front.to_bytes(4, sys.byteorder))}/24" if front else "::1/128"


def _state_and_timer(both: int) -> tuple[int, int]:
    state, timer = both.to_bytes(2, sys.byteorder)
    return state, timer


def _listeners(census: Census) -> Iterable[tuple[Listener, int]]:
    ordered = sorted(census.listeners.items(), key=lambda item: (item[0][:2], item[0][2] or 0))
    for (namespace, port, cgroup), (sockets, waiting, backlog, inode) in ordered:
        yield (
            Listener(
                port=port,
                sockets=sockets,
                waiting=waiting,
                backlog=backlog,
                cgroup=cgroup,
                namespace=namespace,
            ),
            inode,
        )
