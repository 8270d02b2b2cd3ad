"""How sure the evidence makes of a cause, and the numbers and lines that a claim is shown with.

``certain`` needs the kernel's own line (a text log only claims), a text that names the cause, and a gauge or a counter
that agrees. TCPAbortOnMemory (net/ipv4/tcp.c, __tcp_close) moves by one for each socket killed, for either cause.
"""

from msgspec.structs import replace

from agent.core.facts import Case, Side
from agent.core.model import Cause, Confidence, Evidence, Finding
from agent.core.readings import SocketTable
from agent.core.sockets.shares import (
    HELD_BY,
    SOCK_DIAG,
    Pick,
    Share,
    Where,
    totals,
)

# Below an eighth of its limit, nobody's memory is the trouble.
WEIGHT = 8
_WEIGHT_WITHOUT_LIMIT_BYTES = 64 << 20


SOCKSTAT = "net/sockstat"
DOUBT: tuple[Confidence, ...] = ("certain", "likely", "possible")


def confidence(case: Case, side: Side, *, likely: bool = False, most: Confidence = "certain") -> Confidence:
    """How sure the evidence makes of one cause; ``likely`` is what numbers alone are worth, ``most`` the ceiling."""
    event = case.said.get(side)
    if event is None:
        # Another cause was named by the kernel itself: this one is only what else is true.
        return "possible" if case.named else by_numbers(case, likely=likely)
    agrees = _gauge_agrees(case, side) or bool(case.kills)
    if event.provenance == "kernel":
        return max("certain" if agrees else "likely", most, key=DOUBT.index)
    return "possible" if case.kills == 0 and not agrees else "likely"


def by_numbers(case: Case, *, likely: bool) -> Confidence:
    """Say what numbers alone are worth; those read long after the line are worth little."""
    return "likely" if likely and not case.stale else "possible"


def _gauge_agrees(case: Case, side: Side) -> bool:
    if case.stale and case.snapshot.trigger == "command":
        return False
    return case.gauges.shift is not None if side == "orphans" else case.gauges.memory_full


def build_finding(case: Case, claim: str, cause: Cause, sure: Confidence, *more: Evidence) -> Finding:
    """Put a claim together with the kernel's lines and the numbers that its cause is about."""
    orphans = orphan_evidence(case) if cause != "tcp_memory" else ()
    memory = memory_evidence(case) if cause != "orphans" else ()
    kills = (kill_evidence(case),) if case.said and case.kills is not None else ()
    evidence = (*_lines(case, cause), *more, *orphans, *memory, *kills)
    return Finding(claim=claim, cause=cause, confidence=sure, evidence=evidence)


def _lines(case: Case, cause: Cause) -> tuple[Evidence, ...]:
    other = {"orphans": "tcp_memory", "tcp_memory": "orphans"}.get(cause)
    return tuple(
        Evidence(name=f"line ({event.provenance})", value=event.line, source=event.source)
        for text, event in sorted(case.said.items())
        if text != other
    )


def orphan_evidence(case: Case) -> tuple[Evidence, ...]:
    """Show the orphans against the limit that counts, with the peak where that was higher."""
    gauges = case.gauges
    if gauges.orphan is None:
        return ()
    limit = gauges.orphan_limit
    effective = limit >> gauges.shift if limit is not None and gauges.shift else limit
    peak = Evidence(name="orphan", value=gauges.orphan, limit=effective, unit="sockets", source=SOCKSTAT)
    if gauges.orphan_now is None or gauges.orphan_now == gauges.orphan:
        return (peak,)
    return (
        Evidence(name="orphan at peak", value=gauges.orphan, limit=effective, unit="sockets", source="history"),
        Evidence(name="orphan", value=gauges.orphan_now, limit=effective, unit="sockets", source=SOCKSTAT),
    )


def memory_evidence(case: Case) -> tuple[Evidence, ...]:
    """Show the pages against tcp_mem[2], the kernel's own flag, and how far the count may be off."""
    gauges = case.gauges
    if gauges.mem_bytes is None:
        return ()
    limit = gauges.limits[2] if gauges.limits else None
    shown = [("mem", gauges.mem_bytes, SOCKSTAT)]
    if gauges.mem_bytes_now is not None and gauges.mem_bytes_now != gauges.mem_bytes:
        shown = [("mem at peak", gauges.mem_bytes, "history"), ("mem", gauges.mem_bytes_now, SOCKSTAT)]
    evidence = [
        Evidence(name=name, value=value // gauges.page_bytes, limit=limit, unit="pages", source=source)
        for name, value, source in shown
    ]
    if gauges.press is not None:
        flag = "yes" if gauges.press else "no"
        evidence.append(Evidence(name="press", value=flag, source="net/protocols"))
    if gauges.inexact_bytes:
        error = gauges.inexact_bytes // gauges.page_bytes
        evidence.append(Evidence(name="mem may be off by", value=error, unit="pages", source="cpus x mem_pcpu_rsv"))
    return tuple(evidence)


def kill_evidence(case: Case) -> Evidence:
    """Show how many sockets of this namespace the kernel killed, for either cause."""
    kills = case.kills if case.kills is not None else 0
    name = "TCPAbortOnMemory over the event" if case.has_baseline else "TCPAbortOnMemory since boot"
    return Evidence(name=name, value=kills, unit="sockets", source="net/netstat")


def delta_evidence(case: Case, name: str) -> Evidence:
    """Show how far a counter moved over the event."""
    return Evidence(name=f"{name} moved by", value=case.deltas.get(name, 0), source="net/netstat")


def count_evidence(name: str, value: int, limit: int, unit: str) -> Evidence:
    """Show a number of sockets as a part of others."""
    return Evidence(name=name, value=value, limit=limit, unit=unit, source=SOCK_DIAG)


def size_evidence(name: str, value: int, limit: int | None) -> Evidence:
    """Show bytes as a part of all TCP memory."""
    return Evidence(name=name, value=value, limit=limit, unit="bytes", source=SOCK_DIAG)


def table_of(case: Case) -> SocketTable:
    """Take the table of sockets; an empty one where there is none."""
    return case.snapshot.sockets or SocketTable()


def counted(what: str, wanted: Where = "orphaned") -> Pick:
    """Count only the sockets of a tally that are ``probing``, ``retransmitting`` or the like."""
    return lambda where, _, tally: replace(tally, sockets=getattr(tally, what)) if where == wanted else None


def is_most(case: Case, table: SocketTable, size: int) -> bool:
    """Say whether these bytes are at least half of all, and all of them enough to matter."""
    total, limits = totals(case, table).bytes, case.gauges.limits_bytes
    enough = limits[2] // WEIGHT if limits and limits[2] > 0 else _WEIGHT_WITHOUT_LIMIT_BYTES
    return total >= enough and 2 * size >= total


def finding_about(claim: str, cause: Cause, sure: Confidence, share: Share | None, *proof: Evidence) -> Finding:
    """Put a claim together with its numbers, and the name behind them where there is one."""
    named = share is not None and share.name is not None
    owner = (Evidence(name=HELD_BY, value=share.name or "", source=SOCK_DIAG),) if share and named else ()
    return Finding(claim=claim, cause=cause, confidence=sure, evidence=(*owner, *proof))
