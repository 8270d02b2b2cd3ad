"""How much of what the host counts the dump saw: where it is too little, nobody in sight may be blamed.

Sums of sock_diag against sockstat of the same moment. Other network namespaces are out of sight, and kernels from 6.0
on hold a part of ``mem`` back on every CPU.
"""

from agent.core.case import Case
from agent.core.model import Finding
from agent.core.owned import count_evidence, size_evidence, totals
from agent.core.sockets import SocketTable

# What the dump may miss by being late, before its sums are called incomplete.
_SLACK_ORPHANS = 64
_SLACK_BYTES = 16 << 20


def attribution_incomplete(case: Case) -> Finding | None:
    """Remark that the host counts more than twice of what is in sight: the largest in sight may not be it."""
    table = case.snapshot.sockets or SocketTable()
    sums, error = totals(case, table), case.gauges.inexact_bytes
    proof = []
    if sums.orphans > 2 * sums.seen_orphans + _SLACK_ORPHANS:
        proof.append(count_evidence("orphans in sight", sums.seen_orphans, sums.orphans, "of all orphans"))
    if sums.bytes > 2 * sums.seen_bytes + error + _SLACK_BYTES:
        proof.append(size_evidence("memory in sight", sums.seen_bytes, sums.bytes))
    if not proof:
        return None
    return Finding(claim="attribution_incomplete", cause="none", confidence="likely", evidence=tuple(proof))


def memory_without_sockets(case: Case) -> Finding | None:
    """Claim that memory is charged which no socket has, although all are in sight: the kernel's own account is off."""
    table = case.snapshot.sockets or SocketTable()
    sums, error = totals(case, table), case.gauges.inexact_bytes
    hidden = not table.complete or any(each.number is None for each in table.namespaces)
    if hidden or case.kernel is None or sums.bytes <= 2 * sums.seen_bytes + error + _SLACK_BYTES:
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
