"""What is true besides the verdict, and helps to understand it: one small function per rule, facts -> finding or None.

A remark never decides the cause. Counters are TcpExt of /proc/net/netstat, read by name.
"""

from itertools import islice
from math import isfinite

from agent.core.diagnosis.evidence import SOCKSTAT, count_evidence, kill_evidence, memory_evidence, trace_evidence
from agent.core.facts import Facts
from agent.core.model import Cause, Confidence, Evidence, Finding
from agent.core.readings import Sockstat
from agent.core.sockets.holder_names import name_of
from agent.core.sockets.holders import are_most_unlisted, count_unlisted, program_text
from agent.core.sockets.shares import SOCK_DIAG, add_up, only

REFUSED_TRACE = "sock:sock_exceed_buf_limit"
_WRITERS_AT_MOST = 3


def orphans_fill_memory(facts: Facts) -> Finding | None:
    """Claim that memory is full and orphans hold most of it: what they could not send is what fills it.

    With a table of sockets that has them it is measured; else most sockets have to be orphans, and many.
    """
    table = facts.sockets
    if not facts.memory_full and not ("tcp_memory" in facts.lines and facts.zone == "pressure"):
        return None
    if table.groups and 2 * facts.unseen_orphans <= facts.totals.orphans:
        orphans, sums = add_up(table, only("orphaned")), facts.totals
        if 2 * orphans.bytes < sums.bytes or orphans.bytes == 0:
            return None
        proof = Evidence(
            name="held by orphans", value=orphans.bytes, limit=sums.bytes, unit="bytes of TCP memory", source=SOCK_DIAG
        )
        return _orphans_fill_memory(facts, "likely", proof)
    if not facts.memory_full or not facts.orphans.is_high or facts.orphans.value is None or not facts.now.alloc:
        return None
    if 2 * facts.orphans.value < facts.now.alloc:
        return None
    share = Evidence(
        name="orphan", value=facts.orphans.value, limit=facts.now.alloc, unit="of all sockets", source=SOCKSTAT
    )
    return _orphans_fill_memory(facts, "possible", share)


def _orphans_fill_memory(facts: Facts, sure: Confidence, proof: Evidence) -> Finding:
    cause: Cause = "both" if facts.orphans.is_high else "tcp_memory"
    evidence = (proof, *memory_evidence(facts))
    return Finding(claim="orphans_fill_memory", cause=cause, confidence=sure, evidence=evidence)


def counters_contradict(facts: Facts) -> Finding | None:
    """Remark that no socket was killed in any network namespace: the line is not this kernel's, or of another time."""
    if not facts.lines or facts.kills != 0:
        return None
    return Finding(claim="counters_contradict", cause="none", confidence="possible", evidence=(kill_evidence(facts),))


def trace_contradicts(facts: Facts) -> Finding | None:
    """Remark that a text log claims kills and the kernel reports none: its trace, nothing of it lost, is empty."""
    if not facts.is_denied:
        return None
    evidence = (*trace_evidence(facts), kill_evidence(facts))
    return Finding(claim="trace_contradicts", cause="none", confidence="likely", evidence=evidence)


def living_sockets_refused(facts: Facts) -> Finding | None:
    """Claim that living sockets were refused memory, and who wrote: the trace has no name for what is received."""
    witness = facts.witness
    if witness is None or not witness.refusals:
        return None
    proof = [Evidence(name="refusals in the trace", value=witness.refusals, unit="times", source=REFUSED_TRACE)]
    writers = ((name_of(each), each.refusals) for each in witness.by if each.refusals)
    proof += [
        Evidence(name=f"of {name}", value=count, limit=witness.refusals, unit="times", source=REFUSED_TRACE)
        for name, count in islice(((name, count) for name, count in writers if name), _WRITERS_AT_MOST)
    ]
    cause: Cause = "tcp_memory" if facts.memory.is_high or facts.press else "none"
    return Finding(claim="living_sockets_refused", cause=cause, confidence="certain", evidence=tuple(proof))


def earlier_burst(facts: Facts) -> Finding | None:
    """Remark that the kernel reported another cause in an earlier burst: the two did not run out together."""
    if not facts.earlier:
        return None
    proof = []
    for seconds, event in facts.earlier:
        proof.append(Evidence(name=f"line ({event.provenance})", value=event.line, source=event.source))
        if isfinite(seconds):
            proof.append(Evidence(name="earlier by", value=round(seconds), unit="seconds", source="stamps"))
    return Finding(claim="earlier_burst", cause="none", confidence="likely", evidence=tuple(proof))


def text_of_another_kernel(facts: Facts) -> Finding | None:
    """Remark that this kernel cannot have printed the line: the texts changed in 3.3."""
    if not facts.is_alien:
        return None
    proof = Evidence(name="kernel", value=facts.snapshot.kernel or "", source="sys/kernel/osrelease")
    return Finding(claim="text_of_another_kernel", cause="none", confidence="likely", evidence=(proof,))


def sockets_in_no_table(facts: Facts) -> Finding | None:
    """Claim that most sockets are in no table, where memory is short: reset or closed by the peer, and not read.

    Their program has them open still, and the data charged; tcp_done() takes them out of every table (net/ipv4/tcp.c).
    Without a table of sockets, those of other network namespaces look the same.
    """
    if not facts.memory.is_high and "tcp_memory" not in facts.lines:
        return None
    table, sockstat = facts.sockets, facts.sockets.sockstat or facts.snapshot.sockstat
    tcp = (sockstat or Sockstat()).tcp
    missing = count_unlisted(table, tcp) if table.complete else facts.unlisted
    # Orphans and TIME-WAIT may be in another namespace's tables.
    others = 0 if table.complete else (tcp.orphan or 0) + (tcp.tw or 0)
    if missing is None or not are_most_unlisted(missing - others, sockstat):
        return None
    proof = [count_evidence("sockets in no table", missing, tcp.alloc or 0, "of all sockets", SOCKSTAT)]
    proof += [
        count_evidence(f"open in {program_text(each.process)}", each.sockets, missing, "of these", "/proc/PID/fd")
        for each in table.unlisted
    ]
    sure: Confidence = "likely" if table.unlisted else "possible"
    return Finding(claim="sockets_in_no_table", cause="tcp_memory", confidence=sure, evidence=tuple(proof))
