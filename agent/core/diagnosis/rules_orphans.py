"""What stands behind many orphans, by their states and timers: rules, facts -> finding or None.

Silent without a table of sockets (sock_diag(7)). What the states mean is in net/ipv4/tcp.c: an orphan in FIN-WAIT-1
with a probe timer has a peer that stopped reading, one with a retransmit timer a peer that has not answered yet.
"""

from collections import Counter

from agent.core.diagnosis.evidence import WEIGHT, count_evidence, counted, delta_evidence, finding_about, is_most
from agent.core.facts import Facts
from agent.core.model import Confidence, Evidence, Finding
from agent.core.readings import State, Tally
from agent.core.sockets.shares import SOCK_DIAG, add_up, largest, only

# Fewer orphans than this reach no limit that a kernel gives itself (4096 and a quarter of it); a few may hold much.
_MANY_ORPHANS = 256
# An orphan whose FIN alone is out is charged one page, one with a small answer two.
_SMALL_ORPHAN_PAGES = 2


def orphans_wait_for_stalled_peers(facts: Facts) -> Finding | None:
    """Claim that most orphans probe a zero window: their peers are alive and do not read."""
    table = facts.sockets
    orphans = add_up(table, only("orphaned"))
    if 2 * orphans.probing < orphans.sockets or not _are_many_orphans(facts, orphans):
        return None
    proof = count_evidence("orphans with a zero-window probe", orphans.probing, orphans.sockets, "of all orphans")
    share = largest(table, counted("probing", "orphaned"))
    return finding_about("orphans_wait_for_stalled_peers", "orphans", "likely", share, proof)


def orphans_wait_for_vanished_peers(facts: Facts) -> Finding | None:
    """Claim that most orphans have data or a FIN out that nobody acknowledged.

    A socket that sent its last byte a moment ago looks the same. It is likely when half of them have sent the same
    three times again, or when sockets gave up meanwhile.
    """
    table = facts.sockets
    orphans = add_up(table, only("orphaned"))
    if 2 * orphans.retransmitting <= orphans.sockets or not _are_many_orphans(facts, orphans):
        return None
    proof = [
        count_evidence("orphans with a retransmit timer", orphans.retransmitting, orphans.sockets, "of all orphans"),
        count_evidence("unanswered three times or more", orphans.unanswered, orphans.retransmitting, "of these"),
    ]
    gave_up = facts.deltas.get("TCPAbortOnTimeout", 0) > 0
    if gave_up:
        proof.append(delta_evidence(facts, "TCPAbortOnTimeout"))
    sure: Confidence = "likely" if gave_up or 2 * orphans.unanswered >= orphans.retransmitting else "possible"
    share = largest(table, counted("retransmitting", "orphaned"))
    return finding_about("orphans_wait_for_vanished_peers", "orphans", sure, share, *proof)


def orphans_come_of_short_connections(facts: Facts) -> Finding | None:
    """Claim a flood: many orphans with next to nothing in them, in several states, of one port."""
    table = facts.sockets
    share = largest(table, only("orphaned"))
    limit = facts.orphans.limit
    if share is None or share.all_sockets < max(_MANY_ORPHANS, (limit or 0) // WEIGHT):
        return None
    states, ports = Counter[State](), Counter[int]()
    for group in table.groups:
        states.update({state: tally.sockets for state, tally in group.orphaned.items()})
        ports.update({} if group.port is None else {group.port: group.orphans})
    mixed = sum(10 * count >= share.all_sockets for count in states.values()) > 1
    small = share.all_bytes <= _SMALL_ORPHAN_PAGES * (facts.page_bytes or 0) * share.all_sockets
    port, on_port = max(ports.items(), key=lambda item: item[1], default=(0, 0))
    if not mixed or not small or 2 * on_port < share.all_sockets:
        return None
    each = Evidence(name="one orphan", value=share.all_bytes // share.all_sockets, unit="bytes", source=SOCK_DIAG)
    spread = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    proof = Evidence(name="states", value=spread, source=SOCK_DIAG)
    there = count_evidence(f"orphans on port {port}", on_port, share.all_sockets, "of all orphans")
    return finding_about("orphans_come_of_short_connections", "orphans", "likely", share, there, each, proof)


def _are_many_orphans(facts: Facts, orphans: Tally) -> bool:
    return orphans.sockets >= _MANY_ORPHANS or (orphans.sockets > 0 and is_most(facts, orphans.bytes))
