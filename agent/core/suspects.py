"""What stands behind the two causes, by who holds which sockets: one small judge each, case -> finding or None.

Silent without a table of sockets (sock_diag(7), INET_DIAG_SKMEMINFO). What the states mean is in net/ipv4/tcp.c: an
orphan in FIN-WAIT-1 with a probe timer has a peer that stopped reading, one with a retransmit timer a peer that has
not answered yet; CLOSE-WAIT is a socket that its program has not closed, and never an orphan.
"""

from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network, ip_network

from msgspec.structs import replace

from agent.core.case import Case
from agent.core.evidence import delta_evidence
from agent.core.model import Cause, Confidence, Evidence, Finding
from agent.core.owned import HELD_BY, SOCK_DIAG, Share, add_up, count_evidence, largest, only, size_evidence, totals
from agent.core.sight import attribution_incomplete, memory_without_sockets
from agent.core.sockets import PeerTally, SocketGroup, SocketTable, State, Tally

# A proxy has some dozens in passing; a leak has hundreds, and more than one in fifty of all sockets.
_MANY_CLOSE_WAIT = 256
_LEAK_SHARE = 50
# The accept queue's bound was 128 for decades (somaxconn before 5.4): more than that waiting is no passing crowd.
_MANY_WAITING = 128
# Fewer orphans than this reach no limit that a kernel gives itself (4096 and a quarter of it); a few may hold much.
_MANY_ORPHANS = 256
# An orphan whose FIN alone is out is charged one page, one with a small answer two.
_SMALL_ORPHAN_PAGES = 2
# Below an eighth of its limit, nobody's memory is the trouble.
_WEIGHT = 8
_WEIGHT_WITHOUT_LIMIT_BYTES = 64 << 20
_MANY_OF_ONE_NETWORK = 1000
_OWN_NETWORKS = tuple(
    map(
        ip_network,
        [
            *("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "100.64.0.0/10"),
            *("::1/128", "fc00::/7", "fe80::/10"),
        ],
    )
)


def one_owner_leaks_connections(case: Case) -> Finding | None:
    """Claim that one owner does not close: most CLOSE-WAIT sockets are its own, and they are many."""
    table = _table(case)
    share = largest(table, only("held", state="close_wait"))
    if share is None or 2 * share.holder.sockets < share.all_sockets:
        return None
    all_sockets = sum(group.sockets for group in table.groups)
    if share.holder.sockets < max(_MANY_CLOSE_WAIT, all_sockets // _LEAK_SHARE):
        return None
    proof = count_evidence("CLOSE-WAIT", share.holder.sockets, share.all_sockets, "of all in CLOSE-WAIT")
    return _finding("one_owner_leaks_connections", "tcp_memory", "likely", share, proof)


def one_owner_does_not_read(case: Case) -> Finding | None:
    """Claim that data which arrived and waits for one owner is what most of the memory is."""
    table = _table(case)
    share = largest(table, _received, by="bytes")
    if share is None or not _is_most(case, table, share.holder.bytes):
        return None
    unread = largest(table, _unread, by="bytes")
    proof = [size_evidence("received and not read", share.holder.bytes, totals(case, table).bytes)]
    if unread is not None and unread.name == share.name:
        proof.append(size_evidence("unread", unread.holder.bytes, None))
    return _finding("one_owner_does_not_read", "tcp_memory", "likely", share, *proof)


def accept_queue_not_drained(case: Case) -> Finding | None:
    """Claim that connections wait to be accepted: at least half of a queue, or most of the memory."""
    table = _table(case)
    listener = max(table.listeners, key=lambda each: each.waiting, default=None)
    share = largest(table, only("queued"), by="bytes")
    full = listener is not None and listener.waiting >= _MANY_WAITING and 2 * listener.waiting >= listener.backlog
    heavy = share is not None and _is_most(case, table, share.holder.bytes)
    if not full and not heavy:
        return None
    proof = []
    if full and listener is not None:
        name = f"connections waiting on port {listener.port}"
        proof.append(Evidence(name=name, value=listener.waiting, limit=listener.backlog, source=SOCK_DIAG))
    if share is not None:
        proof.append(size_evidence("held by connections nobody accepted", share.all_bytes, totals(case, table).bytes))
    if case.deltas.get("ListenOverflows", 0) > 0:
        proof.append(delta_evidence(case, "ListenOverflows"))
    return _finding("accept_queue_not_drained", "tcp_memory", "likely", share, *proof)


def peers_take_data_slowly(case: Case) -> Finding | None:
    """Claim that data which the peers of one owner do not take is what most of the memory is."""
    table = _table(case)
    share = largest(table, _queued_to_send, by="bytes")
    if share is None or not _is_most(case, table, share.holder.bytes):
        return None
    live = add_up(table, only("held"))
    proof = [
        size_evidence("queued to be sent", share.holder.bytes, totals(case, table).bytes),
        count_evidence("peers with a zero window", live.probing, live.sockets, "of all open sockets"),
        count_evidence("retransmitting", live.retransmitting, live.sockets, "of all open sockets"),
    ]
    # What is on its way is queued as well: only a closed window proves that a peer does not take it.
    sure: Confidence = "likely" if 4 * live.probing >= live.sockets else "possible"
    return _finding("peers_take_data_slowly", "tcp_memory", sure, share, *proof)


def orphans_wait_for_stalled_peers(case: Case) -> Finding | None:
    """Claim that most orphans probe a zero window: their peers are alive and do not read."""
    table = _table(case)
    orphans = add_up(table, only("orphaned"))
    if 2 * orphans.probing < orphans.sockets or not _are_many_orphans(case, table, orphans):
        return None
    proof = count_evidence("orphans with a zero-window probe", orphans.probing, orphans.sockets, "of all orphans")
    share = largest(table, _counted("probing"))
    return _finding("orphans_wait_for_stalled_peers", "orphans", "likely", share, proof)


def orphans_wait_for_vanished_peers(case: Case) -> Finding | None:
    """Claim that most orphans have data or a FIN out that nobody acknowledged.

    A socket that sent its last byte a moment ago looks the same; sockets that gave up meanwhile make it likely.
    """
    table = _table(case)
    orphans = add_up(table, only("orphaned"))
    if 2 * orphans.retransmitting <= orphans.sockets or not _are_many_orphans(case, table, orphans):
        return None
    proof = [
        count_evidence("orphans with a retransmit timer", orphans.retransmitting, orphans.sockets, "of all orphans")
    ]
    gave_up = case.deltas.get("TCPAbortOnTimeout", 0) > 0
    if gave_up:
        proof.append(delta_evidence(case, "TCPAbortOnTimeout"))
    sure: Confidence = "likely" if gave_up else "possible"
    share = largest(table, _counted("retransmitting"))
    return _finding("orphans_wait_for_vanished_peers", "orphans", sure, share, *proof)


def orphans_come_of_short_connections(case: Case) -> Finding | None:
    """Claim a flood: many orphans with next to nothing in them, in several states, of one port."""
    table = _table(case)
    share = largest(table, only("orphaned"))
    limit = case.gauges.orphan_limit
    if share is None or share.all_sockets < max(_MANY_ORPHANS, (limit or 0) // _WEIGHT):
        return None
    states: dict[State, int] = {}
    for group in table.groups:
        for state, tally in group.orphaned.items():
            states[state] = states.get(state, 0) + tally.sockets
    mixed = sum(10 * count >= share.all_sockets for count in states.values()) > 1
    small = share.all_bytes <= _SMALL_ORPHAN_PAGES * case.gauges.page_bytes * share.all_sockets
    port, on_port = max(_orphans_by_port(table).items(), key=lambda item: item[1], default=(0, 0))
    if not mixed or not small or 2 * on_port < share.all_sockets:
        return None
    each = Evidence(name="one orphan", value=share.all_bytes // share.all_sockets, unit="bytes", source=SOCK_DIAG)
    spread = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    proof = Evidence(name="states", value=spread, source=SOCK_DIAG)
    there = count_evidence(f"orphans on port {port}", on_port, share.all_sockets, "of all orphans")
    return _finding("orphans_come_of_short_connections", "orphans", "likely", share, there, each, proof)


def one_network_holds_most(case: Case) -> Finding | None:
    """Claim that one foreign network has most connections of a service: a broken client, a gateway, or an attack."""
    table = _table(case)
    found = [(peer, group) for group in table.groups if group.port is not None for peer in _prevailing(group)]
    peer, group = max(found, key=lambda each: each[0].sockets, default=(None, None))
    if peer is None or group is None:
        return None
    proof = [
        Evidence(name="network", value=peer.network or "", source=SOCK_DIAG),
        count_evidence(f"connections to port {group.port}", peer.sockets, group.sockets, "of that service"),
        count_evidence("orphans of it", peer.orphans, group.orphans, "of that service's orphans"),
    ]
    cause: Cause = "orphans" if 2 * peer.orphans >= peer.sockets else "tcp_memory"
    share = largest(replace(table, groups=(group,)), only("held", "queued", "orphaned"))
    return _finding("one_network_holds_most", cause, "possible", share, *proof)


SUSPECTS: tuple[Callable[[Case], Finding | None], ...] = (
    one_owner_leaks_connections,
    one_owner_does_not_read,
    accept_queue_not_drained,
    peers_take_data_slowly,
    orphans_wait_for_stalled_peers,
    orphans_wait_for_vanished_peers,
    orphans_come_of_short_connections,
    one_network_holds_most,
    attribution_incomplete,
    memory_without_sockets,
)


def suspect(case: Case) -> tuple[Finding, ...]:
    """All findings that the table of sockets allows; none without a table."""
    if case.snapshot.sockets is None or not case.snapshot.sockets.groups:
        return ()
    return tuple(finding for each in SUSPECTS if (finding := each(case)) is not None)


# --- parts ----------------------------------------------------------------------------------------------------------


def _table(case: Case) -> SocketTable:
    return case.snapshot.sockets or SocketTable()


def _received(where: str, state: State, tally: Tally) -> Tally | None:
    return replace(tally, bytes=tally.rmem_bytes) if where == "held" and state != "listen" else None


def _unread(where: str, state: State, tally: Tally) -> Tally | None:
    return replace(tally, bytes=tally.unread_bytes) if where == "held" and state != "listen" else None


def _queued_to_send(where: str, _: State, tally: Tally) -> Tally | None:
    return replace(tally, bytes=tally.wmem_bytes) if where == "held" else None


def _counted(what: str) -> Callable[[str, State, Tally], Tally | None]:
    return lambda where, _, tally: replace(tally, sockets=getattr(tally, what)) if where == "orphaned" else None


def _is_most(case: Case, table: SocketTable, size: int) -> bool:
    """Say whether these bytes are at least half of all, and all of them enough to matter."""
    total, limits = totals(case, table).bytes, case.gauges.limits_bytes
    enough = limits[2] // _WEIGHT if limits and limits[2] > 0 else _WEIGHT_WITHOUT_LIMIT_BYTES
    return total >= enough and 2 * size >= total


def _are_many_orphans(case: Case, table: SocketTable, orphans: Tally) -> bool:
    return orphans.sockets >= _MANY_ORPHANS or (orphans.sockets > 0 and _is_most(case, table, orphans.bytes))


def _orphans_by_port(table: SocketTable) -> dict[int, int]:
    ports: dict[int, int] = {}
    for group in table.groups:
        if group.port is not None:
            ports[group.port] = ports.get(group.port, 0) + group.orphans
    return ports


def _prevailing(group: SocketGroup) -> list[PeerTally]:
    """Find the foreign network that has most connections of a service, and many."""
    least = max(_MANY_OF_ONE_NETWORK, -(-group.sockets // 2))
    return [each for each in group.peers if each.sockets >= least and each.network and not _is_own(each.network)]


def _is_own(network: str) -> bool:
    try:
        named = ip_network(network, strict=False)
    except ValueError:
        return True  # No network of any kind proves nothing.
    return any(_covers(own, named) for own in _OWN_NETWORKS)


def _covers(own: IPv4Network | IPv6Network, named: IPv4Network | IPv6Network) -> bool:
    return own.version == named.version and named.network_address in own


def _finding(claim: str, cause: Cause, sure: Confidence, share: Share | None, *proof: Evidence) -> Finding:
    """Put a claim together with its numbers, and the name behind them where there is one."""
    named = share is not None and share.name is not None
    owner = (Evidence(name=HELD_BY, value=share.name or "", source=SOCK_DIAG),) if share and named else ()
    return Finding(claim=claim, cause=cause, confidence=sure, evidence=(*owner, *proof))
