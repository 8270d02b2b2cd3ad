"""Who has most of one kind of sockets, under the names of core.holders; sums over a table of sockets.

A kind is picked out of the tallies ("orphans that wait for a zero window"), and what is left of the table goes through
holders() like the whole. Names are chosen by whoever may make a cgroup or a process: they are made printable, and
the kernel's own words are taken out, so that no text of ours can look like a kernel record to our own detector.
"""

import re
from collections.abc import Callable
from typing import Literal, NamedTuple

from msgspec.structs import replace

from agent.core.case import Case
from agent.core.gauge import mem_unit_bytes
from agent.core.holders import holders
from agent.core.model import Evidence, Holder
from agent.core.readings import TcpSockstat
from agent.core.sockets import ROOT_CGROUP, SocketGroup, SocketTable, State, Tally
from agent.core.words import printable

Where = Literal["held", "queued", "orphaned"]
Pick = Callable[[Where, State, Tally], Tally | None]
HELD_BY = "held by"
SOCK_DIAG = "sock_diag"
_NAME_AT_MOST = 120
_KERNEL_TEXT = re.compile(
    r"out of socket memory|too many (of )?orphaned sockets|consider tuning tcp_mem|callbacks suppressed", re.IGNORECASE
)


class Share(NamedTuple):
    """The largest holder of one kind of sockets, and what there is of the kind in sight.

    ``name`` is None where the most belong to nobody that could be named. ``holder.guess`` says that no cgroup names it.
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
    # Listeners are there for their names alone, and count nothing.
    nameless = {group.port for group in groups if group.cgroup in (None, ROOT_CGROUP)}
    listeners = tuple(replace(each, sockets=0) for each in table.listeners if each.port in nameless)
    found, _ = holders(replace(table, groups=groups, listeners=listeners, sockstat=None), None, 1, by=by)
    if not groups or not found:
        return None
    return Share(
        name=name_of(found[0]),
        holder=found[0],
        all_sockets=sum(group.sockets for group in groups),
        all_bytes=sum(group.bytes for group in groups),
    )


def only(*where: Where, state: State | None = None) -> Pick:
    """Pick the sockets that are held, queued or orphaned, or of these the ones in one state."""
    return lambda place, its_state, tally: tally if place in where and state in (None, its_state) else None


def add_up(table: SocketTable, pick: Pick) -> Tally:
    """Add up one kind of sockets over all groups."""
    picked = [tally for group in table.groups for tally in _narrowed(group, pick).tallies()]
    return Tally(**{field: sum(getattr(tally, field) for tally in picked) for field in Tally.__struct_fields__})


def totals(case: Case, table: SocketTable) -> Totals:
    """Tell what the dump saw, and what it should have seen by the gauges of its own moment."""
    sockstat = table.sockstat or case.snapshot.sockstat
    tcp = sockstat.tcp if sockstat else TcpSockstat()
    orphans, size = table.orphans, sum(group.bytes for group in table.groups)
    unit = mem_unit_bytes(case.kernel, case.gauges.page_bytes)
    return Totals(orphans, size, max(tcp.orphan or 0, orphans), max((tcp.mem or 0) * unit, size))


def name_of(holder: Holder) -> str | None:
    """Say a holder in one name that may stand in any text; None for the remainder."""
    place = " in ".join(filter(None, (holder.unit, holder.container)))
    if place and holder.unit is None and holder.process:
        place += f" ({holder.process})"
    name = place or holder.process
    return _KERNEL_TEXT.sub("…", printable(name, _NAME_AT_MOST)) if name else None


def guess_text(holder: Holder) -> str:
    """Say that a holder is a guess, and by what; nothing where a cgroup or an open socket names it."""
    if not holder.guess:
        return ""
    return f"a guess: it serves port {holder.ports[0]}" if holder.ports else "a guess: no cgroup says so"


def marked(name: str, holder: Holder) -> str:
    """Put the mark of a guess behind the name of a holder."""
    return f"{name} ({mark})" if (mark := guess_text(holder)) else name


def count_evidence(name: str, value: int, limit: int, unit: str) -> Evidence:
    """Show a number of sockets as a part of others."""
    return Evidence(name=name, value=value, limit=limit, unit=unit, source=SOCK_DIAG)


def size_evidence(name: str, value: int, limit: int | None) -> Evidence:
    """Show bytes as a part of all TCP memory."""
    return Evidence(name=name, value=value, limit=limit, unit="bytes", source=SOCK_DIAG)


def _narrowed(group: SocketGroup, pick: Pick) -> SocketGroup:
    def narrow(where: Where, tallies: dict[State, Tally]) -> dict[State, Tally]:
        picked = {state: pick(where, state, tally) for state, tally in tallies.items()}
        return {state: tally for state, tally in picked.items() if tally is not None}

    return replace(
        group,
        held=narrow("held", group.held),
        queued=narrow("queued", group.queued),
        orphaned=narrow("orphaned", group.orphaned),
    )
