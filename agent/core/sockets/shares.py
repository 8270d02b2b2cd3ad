"""Who has most of one kind of sockets, under the names of core.sockets.holders; sums over a table of sockets.

A kind is picked out of the tallies ("orphans that wait for a zero window"), and what is left of the table goes through
holders() like the whole.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

from msgspec.structs import replace

from agent.core.model import Holder
from agent.core.readings import ROOT_CGROUP, SocketGroup, SocketTable, Sockstat, State, Tally, TcpSockstat
from agent.core.sockets.holder_names import name_of
from agent.core.sockets.holders import holders

Where = Literal["held", "queued", "orphaned"]
Pick = Callable[[Where, State, Tally], Tally | None]
HELD_BY = "held by"
FULL_GROUP, ITS_MEMORY = "full cgroup", "its memory"
SOCK_DIAG = "sock_diag"


class Share(NamedTuple):
    """The largest holder of one kind of sockets, and what there is of the kind in sight.

    ``name`` is None where most of it is unattributed. ``holder.guess`` says that no cgroup names it.
    """

    name: str | None
    holder: Holder
    all_sockets: int
    all_bytes: int


class Totals(NamedTuple):
    """Orphans and bytes that the dump saw, and what the host counted around it (at least as much)."""

    seen_orphans: int
    seen_bytes: int
    orphans: int
    bytes: int


def largest(table: SocketTable, pick: Pick, by: Literal["sockets", "bytes"] = "sockets") -> Share | None:
    """Name who has most of a kind; None where there is none of it."""
    groups = tuple(group for each in table.groups if (group := _narrowed(each, pick)).sockets)
    found = _named(table, groups, 1, by)
    if not groups or not found:
        return None
    return Share(
        name=name_of(found[0]),
        holder=found[0],
        all_sockets=sum(group.sockets for group in groups),
        all_bytes=sum(group.bytes for group in groups),
    )


def losers(table: SocketTable, most: int) -> tuple[Holder, ...]:
    """Name who lost most of the segments that the kernel dropped, ``sockets`` being their number."""
    groups = tuple(
        replace(each, held={"established": Tally(sockets=each.drops)}, queued={}, orphaned={}, peers=())
        for each in table.groups
        if each.drops
    )
    return tuple(each for each in _named(table, groups, most, "sockets")[:most] if name_of(each))


def _named(
    table: SocketTable, groups: tuple[SocketGroup, ...], most: int, by: Literal["sockets", "bytes"]
) -> tuple[Holder, ...]:
    # Listeners are there for their names alone, and count nothing.
    nameless = {group.port for group in groups if group.cgroup in (None, ROOT_CGROUP)}
    listeners = tuple(replace(each, sockets=0) for each in table.listeners if each.port in nameless)
    return holders(replace(table, groups=groups, listeners=listeners, sockstat=None), None, most, by=by)[0]


def only(*where: Where, state: State | None = None) -> Pick:
    """Pick the sockets that are held, queued or orphaned, or of these the ones in one state."""
    return lambda place, its_state, tally: tally if place in where and state in (None, its_state) else None


def add_up(table: SocketTable, pick: Pick) -> Tally:
    """Add up one kind of sockets over all groups."""
    picked = [tally for group in table.groups for tally in _narrowed(group, pick).tallies()]
    return Tally(**{field: sum(getattr(tally, field) for tally in picked) for field in Tally.__struct_fields__})


def totals(table: SocketTable, sockstat: Sockstat | None, mem_unit_bytes: int | None) -> Totals:
    """Return what the dump saw, and what it should have seen by the gauges of its own moment, else by ``sockstat``."""
    sockstat = table.sockstat or sockstat
    tcp = sockstat.tcp if sockstat else TcpSockstat()
    orphans, size = table.orphans, sum(group.bytes for group in table.groups)
    return Totals(orphans, size, max(tcp.orphan or 0, orphans), max((tcp.mem or 0) * (mem_unit_bytes or 0), size))


def _narrowed(group: SocketGroup, pick: Pick) -> SocketGroup:
    def narrow(where: Where) -> dict[State, Tally]:
        tallies: dict[State, Tally] = getattr(group, where)
        picked = {state: pick(where, state, tally) for state, tally in tallies.items()}
        return {state: tally for state, tally in picked.items() if tally is not None}

    return replace(group, held=narrow("held"), queued=narrow("queued"), orphaned=narrow("orphaned"))
