"""The table of sockets behind the holders, in rows: groups as they were counted, states, networks and listeners.

Mirrors core.readings.SocketTable. Rows are bounded; omissions are shown.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from agent.core.format import bytes_text, count_text, counted
from agent.core.model import Snapshot
from agent.core.readings import ROOT_CGROUP, Gap, Listener, Process, SocketGroup, SocketTable, Tally, has_cgroup

GROUPS_AT_MOST = 40
OTHERS_AT_MOST = 20
_PEERS_AT_MOST = 4


class Row(NamedTuple):
    """One line: what it is, how much, and further details."""

    name: str
    amount: str
    details: str


class SocketLists(NamedTuple):
    """A socket dump as lists of rows with titles."""

    taken_at: datetime
    size: str
    lists: tuple[tuple[str, tuple[Row, ...]], ...]
    gaps: tuple[Gap, ...]


def socket_counts(snapshots: Sequence[Snapshot]) -> SocketLists | None:
    """Return the table of the newest snapshot that has one; None if there is none, or it is empty."""
    for snapshot in reversed(snapshots):
        table = snapshot.sockets
        if table is not None and (table.groups or table.listeners):
            lists = (
                ("By cgroup and port", _bounded((_group(each, table) for each in table.groups), GROUPS_AT_MOST)),
                ("By state", tuple(_states(table))),
                ("By network of the peer", _bounded(_peers(table), OTHERS_AT_MOST)),
                ("Listening", _bounded((_listener(each, table) for each in table.listeners), OTHERS_AT_MOST)),
            )
            total = sum(group.sockets for group in table.groups)
            size = counted(total, "socket") + ("" if table.complete else ", incomplete")
            return SocketLists(snapshot.taken_at, size, tuple(each for each in lists if each[1]), table.gaps)
    return None


def _bounded(rows: Iterable[Row], most: int) -> tuple[Row, ...]:
    every = tuple(rows)
    if len(every) <= most:
        return every
    return (
        *every[:most],
        Row(f"{count_text(len(every) - most)} more", "", "omitted for size: see the snapshot's file"),
    )


def _group(group: SocketGroup, table: SocketTable) -> Row:
    states = Counter[str]()
    for part in (group.held, group.queued, group.orphaned):
        states.update({state: tally.sockets for state, tally in part.items()})
    side = "others" if group.folded else "port unknown"
    if group.port is not None:
        side = f"port {group.port}"
    elif group.to_port is not None:
        side = f"to port {group.to_port}"
    parts = [
        side,
        f"{count_text(group.orphans)} orphaned" if group.orphans else "",
        f"{count_text(sum(each.sockets for each in group.queued.values()))} not accepted" if group.queued else "",
        ", ".join(f"{state.replace('_', ' ')} {count_text(count)}" for state, count in states.most_common()),
        *_trouble(group.tallies()),
        _networks(group),
    ]
    amount = f"{counted(group.sockets, 'socket')}, {bytes_text(group.bytes)}"
    return Row(_owner(group.cgroup, group.process, table), amount, " · ".join(filter(None, parts)))


def _trouble(tallies: Iterable[Tally]) -> list[str]:
    every = tuple(tallies)
    unread, unsent = sum(each.unread_bytes for each in every), sum(each.unsent_bytes for each in every)
    again, probing = sum(each.retransmitting for each in every), sum(each.probing for each in every)
    return [
        f"{bytes_text(unread)} unread" if unread else "",
        f"{bytes_text(unsent)} unacknowledged" if unsent else "",
        f"{count_text(again)} retransmitting" if again else "",
        f"{count_text(probing)} facing a closed window" if probing else "",
    ]


def _networks(group: SocketGroup) -> str:
    known = [f"{peer.network} {count_text(peer.sockets)}" for peer in group.peers if peer.network][:_PEERS_AT_MOST]
    if not known:
        return ""
    more = group.peers_counted - len(known)
    return "peers " + ", ".join(known) + (f" and {counted(more, 'more network')}" if more > 0 else "")


def _states(table: SocketTable) -> Iterable[Row]:
    sums = Counter[str]()
    sizes = Counter[str]()
    orphans = Counter[str]()
    for group in table.groups:
        for part in (group.held, group.queued, group.orphaned):
            for state, tally in part.items():
                sums[state] += tally.sockets
                sizes[state] += tally.bytes
        orphans.update({state: tally.sockets for state, tally in group.orphaned.items()})
    for name, count in sums.most_common():
        orphaned = f"{count_text(orphans[name])} orphaned" if orphans[name] else ""
        yield Row(name.replace("_", " "), f"{counted(count, 'socket')}, {bytes_text(sizes[name])}", orphaned)
    for small, count in table.minisocks.items():
        yield Row(small.replace("_", " "), counted(count, "socket"), "not in any memory total")


def _peers(table: SocketTable) -> Iterable[Row]:
    for peer in table.peers:
        orphaned = f"{count_text(peer.orphans)} orphaned" if peer.orphans else ""
        amount = f"{counted(peer.sockets, 'socket')}, {bytes_text(peer.bytes)}"
        yield Row(peer.network or "all other networks", amount, orphaned)


def _listener(listener: Listener, table: SocketTable) -> Row:
    waiting = f"{count_text(listener.waiting)} of {count_text(listener.backlog)} waiting"
    return Row(f"port {listener.port}", waiting, _owner(listener.cgroup, listener.process, table))


def _owner(cgroup: int | None, process: Process | None, table: SocketTable) -> str:
    name = f"{process.name} ({process.pid})" if process else ""
    if cgroup is None or not has_cgroup(cgroup):
        return name or ("no cgroup" if cgroup == ROOT_CGROUP else "unattributed")
    path = table.paths.get(cgroup, f"cgroup {cgroup}, removed since")
    return f"{path} {name}".rstrip()
