"""What stands behind the two causes, by who holds which sockets: one small rule each, facts -> finding or None.

Silent without a table of sockets (sock_diag(7), INET_DIAG_SKMEMINFO). States are of net/ipv4/tcp.c:
CLOSE-WAIT is a socket that its program has not closed, and never an orphan. Those of orphans are in rules_orphans.
"""

from ipaddress import IPv4Network, IPv6Network, ip_network

from msgspec.structs import replace

from agent.core.diagnosis.evidence import count_evidence, counted, delta_evidence, finding_about, is_most, size_evidence
from agent.core.facts import Facts
from agent.core.model import Cause, Confidence, Evidence, Finding
from agent.core.readings import PeerTally, SocketGroup, SocketTable
from agent.core.sockets.holders import SLACK_ORPHANS
from agent.core.sockets.shares import SOCK_DIAG, Pick, Share, largest, only

# As many bytes as a dump may miss by being late.
_SLACK_BYTES = 16 << 20
# A proxy has some dozens in passing; a leak has hundreds, and more than one in fifty of all sockets.
_MANY_CLOSE_WAIT = 256
_LEAK_SHARE = 50
# The accept queue's bound was 128 for decades (somaxconn before 5.4): more than that waiting is no passing crowd.
_MANY_WAITING = 128
# A page or two each is what a request that was not read yet takes: with so little, only their number counts.
_MANY_OPEN, _SMALL_SOCKET_PAGES = 256, 2
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


def one_owner_leaks_connections(facts: Facts) -> Finding | None:
    """Claim that one owner does not close: most CLOSE-WAIT sockets are its own, and they are many."""
    table = facts.sockets
    share = largest(table, only("held", state="close_wait"))
    if share is None or 2 * share.holder.sockets < share.all_sockets:
        return None
    all_sockets = sum(group.sockets for group in table.groups)
    if share.holder.sockets < max(_MANY_CLOSE_WAIT, all_sockets // _LEAK_SHARE):
        return None
    proof = count_evidence("CLOSE-WAIT", share.holder.sockets, share.all_sockets, "of all in CLOSE-WAIT")
    return finding_about("one_owner_leaks_connections", "tcp_memory", "likely", share, proof)


def one_owner_holds_very_many_connections(facts: Facts) -> Finding | None:
    """Claim that the number of one owner's open sockets is what most of the memory is: each holds next to nothing."""
    share = _holder_of_most(facts, only("held"))
    if share is None or share.holder.sockets < _MANY_OPEN:
        return None
    each = share.holder.bytes // share.holder.sockets
    if each > _SMALL_SOCKET_PAGES * (facts.page_bytes or 0):
        return None
    proof = [
        count_evidence("open sockets", share.holder.sockets, share.all_sockets, "of all open sockets"),
        Evidence(name="one of them", value=each, unit="bytes", source=SOCK_DIAG),
    ]
    return finding_about("one_owner_holds_very_many_connections", "tcp_memory", "possible", share, *proof)


def one_owner_does_not_read(facts: Facts) -> Finding | None:
    """Claim that data which arrived and waits for one owner is what most of the memory is."""
    share = _holder_of_most(facts, counted("rmem_bytes", "held", by="bytes"))
    if share is None:
        return None
    unread = largest(facts.sockets, counted("unread_bytes", "held", by="bytes"), by="bytes")
    proof = [size_evidence("received and not read", share.holder.bytes, facts.totals.bytes)]
    if unread is not None and unread.name == share.name:
        proof.append(size_evidence("unread", unread.holder.bytes, None))
    return finding_about("one_owner_does_not_read", "tcp_memory", "likely", share, *proof)


def accept_queue_not_drained(facts: Facts) -> Finding | None:
    """Claim that connections wait to be accepted: at least half of a queue, or most of the memory."""
    table = facts.sockets
    listener = max(table.listeners, key=lambda each: each.waiting, default=None)
    share = largest(table, only("queued"), by="bytes")
    full = listener is not None and listener.waiting >= _MANY_WAITING and 2 * listener.waiting >= listener.backlog
    heavy = share is not None and is_most(facts, share.holder.bytes)
    if not full and not heavy:
        return None
    proof = []
    if full and listener is not None:
        name = f"connections waiting on port {listener.port}"
        proof.append(Evidence(name=name, value=listener.waiting, limit=listener.backlog, source=SOCK_DIAG))
    if share is not None:
        proof.append(size_evidence("held by connections nobody accepted", share.all_bytes, facts.totals.bytes))
    if facts.deltas.get("ListenOverflows", 0) > 0:
        proof.append(delta_evidence(facts, "ListenOverflows"))
    return finding_about("accept_queue_not_drained", "tcp_memory", "likely", share, *proof)


def peers_take_data_slowly(facts: Facts) -> Finding | None:
    """Claim that data which the peers of one owner do not take is what most of the memory is."""
    share = _holder_of_most(facts, counted("wmem_bytes", "held", by="bytes"))
    if share is None:
        return None
    its = share.holder.sockets
    probing, retransmitting = (_of_owner(facts.sockets, share, what) for what in ("probing", "retransmitting"))
    proof = [
        size_evidence("queued to be sent", share.holder.bytes, facts.totals.bytes),
        count_evidence("peers with a zero window", probing, its, "of its open sockets"),
        count_evidence("retransmitting", retransmitting, its, "of its open sockets"),
    ]
    # What is on its way is queued as well: only a closed window proves that a peer does not take it.
    sure: Confidence = "likely" if 4 * probing >= its else "possible"
    return finding_about("peers_take_data_slowly", "tcp_memory", sure, share, *proof)


def one_network_holds_most(facts: Facts) -> Finding | None:
    """Claim that one foreign network has most connections of a service: a broken client, a gateway, or an attack."""
    table = facts.sockets
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
    return finding_about("one_network_holds_most", cause, "possible", share, *proof)


def attribution_incomplete(facts: Facts) -> Finding | None:
    """Remark that the host counts more than twice of what is in sight: the largest in sight may not be it."""
    sums, error = facts.totals, facts.inexact_bytes
    proof = []
    if sums.orphans > 2 * sums.seen_orphans + SLACK_ORPHANS:
        proof.append(count_evidence("orphans in sight", sums.seen_orphans, sums.orphans, "of all orphans"))
    if sums.bytes > 2 * sums.seen_bytes + error + _SLACK_BYTES:
        proof.append(size_evidence("memory in sight", sums.seen_bytes, sums.bytes))
    if not proof:
        return None
    return Finding(claim="attribution_incomplete", cause="none", confidence="likely", evidence=tuple(proof))


def memory_without_sockets(facts: Facts) -> Finding | None:
    """Claim that memory is charged which no socket has, although all are in sight: the kernel's own account is off."""
    table = facts.sockets
    sums, error = facts.totals, facts.inexact_bytes
    hidden = not table.complete or any(each.number is None or each.queues_only for each in table.namespaces)
    if hidden or facts.kernel is None or sums.bytes <= 2 * sums.seen_bytes + error + _SLACK_BYTES:
        return None
    alloc = table.sockstat.tcp.alloc if table.sockstat else None
    in_sight = sum(group.sockets for group in table.groups) + table.listening
    # Sockets that no table lists may be what has it: then nothing speaks against the kernel.
    if alloc is None or 10 * in_sight < 9 * alloc:
        return None
    return Finding(
        claim="memory_without_sockets",
        cause="tcp_memory",
        confidence="possible",
        evidence=(
            size_evidence("memory in sight", sums.seen_bytes, sums.bytes),
            count_evidence("sockets in sight", in_sight, alloc, "of all sockets"),
        ),
    )


# --- parts ----------------------------------------------------------------------------------------------------------


def _holder_of_most(facts: Facts, pick: Pick) -> Share | None:
    """Find the owner of one kind of sockets whose bytes are most of the memory."""
    share = largest(facts.sockets, pick, by="bytes")
    return share if share and is_most(facts, share.holder.bytes) else None


def _of_owner(table: SocketTable, owner: Share, what: str) -> int:
    """Count how many open sockets of an owner are ``probing`` or ``retransmitting``; of those where it has most."""
    most = largest(table, counted(what, "held"))
    return most.holder.sockets if most and most.name == owner.name else 0


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
