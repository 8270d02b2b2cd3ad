"""How sure the evidence makes of a cause, and the numbers and lines that a claim is shown with.

``certain`` needs the kernel's own line (a text log only claims), a text that names the cause, and a gauge or a counter
that agrees. TCPAbortOnMemory (net/ipv4/tcp.c, __tcp_close) moves by one for each socket killed, for either cause.
"""

from itertools import islice
from typing import Literal

from msgspec.structs import replace

from agent.core.facts import Facts
from agent.core.kernel.limits import KILLED
from agent.core.model import Cause, Confidence, Evidence, Finding, GaugeName
from agent.core.sockets.shares import HELD_BY, SOCK_DIAG, Pick, Share, Where

# Below an eighth of its limit, nobody's memory is the trouble.
WEIGHT = 8
_WEIGHT_WITHOUT_LIMIT_BYTES = 64 << 20
SOCKSTAT, ELSEWHERE = "net/sockstat", "/proc/PID/net/netstat"
TRACE, TRACED_KILLS = "tcp:tcp_send_reset", "kills in the trace"
_PLACES_AT_MOST = 3
DOUBT: tuple[Confidence, ...] = ("certain", "likely", "possible")


def confidence(facts: Facts, gauge: GaugeName, *, likely: bool = False, most: Confidence = "certain") -> Confidence:
    """How sure the evidence makes of one cause; ``likely`` is what numbers alone are worth, ``most`` the ceiling."""
    event = facts.lines.get(gauge)
    if event is None:
        # Another cause was named by the kernel itself: this one is only what else is true.
        return "possible" if facts.named_causes else by_numbers(facts, likely=likely)
    if facts.is_alien:
        # Another kernel wrote it: what it says is not of this moment, and the numbers stand alone.
        return by_numbers(facts, likely=likely)
    if facts.is_denied:
        return "possible"
    agrees = _gauge_agrees(facts, gauge) or bool(facts.kills)
    if event.provenance == "kernel":
        return max("certain" if agrees else "likely", most, key=DOUBT.index)
    return "possible" if (facts.kills == 0 or facts.is_past) and not agrees else "likely"


def by_numbers(facts: Facts, *, likely: bool) -> Confidence:
    """Return what numbers alone are worth; those read long after the line are worth little."""
    return "likely" if likely and not facts.stale else "possible"


def _gauge_agrees(facts: Facts, gauge: GaugeName) -> bool:
    if facts.stale and facts.snapshot.trigger == "command":
        return False
    return facts.orphans.is_high if gauge == "orphans" else facts.memory_full


def build_finding(facts: Facts, claim: str, cause: Cause, sure: Confidence, *more: Evidence) -> Finding:
    """Put a claim together with the kernel's lines and the numbers that its cause is about."""
    orphans = orphan_evidence(facts) if cause != "tcp_memory" else ()
    memory = memory_evidence(facts) if cause != "orphans" else ()
    counted = (kill_evidence(facts), *where_moved(facts, KILLED)) if facts.killed_in_sight is not None else ()
    kills = (*counted, *trace_evidence(facts)) if facts.has_happened and facts.kills is not None else ()
    evidence = (*_lines(facts, cause), *more, *orphans, *memory, *kills)
    return Finding(claim=claim, cause=cause, confidence=sure, evidence=evidence)


def _lines(facts: Facts, cause: Cause) -> tuple[Evidence, ...]:
    other = {"orphans": "tcp_memory", "tcp_memory": "orphans"}.get(cause)
    return tuple(
        Evidence(name=f"line ({event.provenance})", value=event.line, source=event.source)
        for text, event in sorted(facts.lines.items())
        if text != other
    )


def orphan_evidence(facts: Facts) -> tuple[Evidence, ...]:
    """Show the orphans against the limit that counts, with the peak where that was higher."""
    if facts.orphans.value is None:
        return ()
    limit = facts.orphans.limit
    effective = limit >> facts.shift if limit is not None and facts.shift else limit
    peak = Evidence(name="orphan", value=facts.orphans.value, limit=effective, unit="sockets", source=SOCKSTAT)
    if facts.orphans.now is None or facts.orphans.now == facts.orphans.value:
        return (peak,)
    return (
        Evidence(name="orphan at peak", value=facts.orphans.value, limit=effective, unit="sockets", source="history"),
        Evidence(name="orphan", value=facts.orphans.now, limit=effective, unit="sockets", source=SOCKSTAT),
    )


def memory_evidence(facts: Facts) -> tuple[Evidence, ...]:
    """Show the pages against tcp_mem[2], the kernel's own flag, and how far the count may be off."""
    peak, now = facts.memory.pages, facts.pages(facts.now.mem)
    limit = facts.limits[2] if facts.limits else None
    if peak is None:
        return ()
    shown = [("mem", peak, SOCKSTAT)]
    if now is not None and now != peak:
        shown = [("mem at peak", peak, "history"), ("mem", now, SOCKSTAT)]
    evidence = [
        Evidence(name=name, value=value, limit=limit, unit="pages", source=source) for name, value, source in shown
    ]
    if facts.press is not None:
        flag = "yes" if facts.press else "no"
        evidence.append(Evidence(name="press", value=flag, source="net/protocols"))
    if error := facts.inexact_pages:
        evidence.append(Evidence(name="mem may be off by", value=error, unit="pages", source="cpus x mem_pcpu_rsv"))
    return tuple(evidence)


def kill_evidence(facts: Facts) -> Evidence:
    """Show how many sockets the kernel killed, for either cause."""
    kills = facts.killed_in_sight or 0
    name = "TCPAbortOnMemory over the event" if facts.before else "TCPAbortOnMemory since boot"
    return Evidence(name=name, value=kills, unit="sockets", source="net/netstat")


def trace_evidence(facts: Facts) -> tuple[Evidence, ...]:
    """Show how many kills the kernel's trace saw; nothing where it is not read, or shows none."""
    seen = facts.witness.kills if facts.witness else None
    return () if seen is None else (Evidence(name=TRACED_KILLS, value=seen, unit="sockets", source=TRACE),)


def delta_evidence(facts: Facts, name: str) -> Evidence:
    """Show how far a counter moved over the event."""
    return Evidence(name=f"{name} moved by", value=facts.deltas.get(name, 0), source="net/netstat")


def where_moved(facts: Facts, name: str) -> tuple[Evidence, ...]:
    """Show which part of it was in which other network namespace, the most first."""
    return tuple(
        Evidence(name=f"{name} in {place}", value=moved, limit=facts.deltas[name], source=ELSEWHERE)
        for place, moved in islice(facts.moved(name).items(), _PLACES_AT_MOST)
    )


def count_evidence(name: str, value: int, limit: int, unit: str, source: str = SOCK_DIAG) -> Evidence:
    """Show a number of sockets as a part of others."""
    return Evidence(name=name, value=value, limit=limit, unit=unit, source=source)


def size_evidence(name: str, value: int, limit: int | None) -> Evidence:
    """Show bytes as a part of all TCP memory."""
    return Evidence(name=name, value=value, limit=limit, unit="bytes", source=SOCK_DIAG)


def counted(what: str, where: Where, by: Literal["sockets", "bytes"] = "sockets") -> Pick:
    """Count as sockets or bytes only those of a tally that are ``probing``, ``wmem_bytes`` or the like."""
    return lambda place, _, tally: replace(tally, **{by: getattr(tally, what)}) if place == where else None


def is_most(facts: Facts, size: int) -> bool:
    """Return whether these bytes are at least half of all, and all of them enough to matter."""
    total, limits = facts.totals.bytes, facts.limits_bytes
    enough = limits[2] // WEIGHT if limits and limits[2] > 0 else _WEIGHT_WITHOUT_LIMIT_BYTES
    return total >= enough and 2 * size >= total


def finding_about(claim: str, cause: Cause, sure: Confidence, share: Share | None, *proof: Evidence) -> Finding:
    """Put a claim together with its numbers, and the name behind them where there is one."""
    named = share is not None and share.name is not None
    owner = (Evidence(name=HELD_BY, value=share.name or "", source=SOCK_DIAG),) if share and named else ()
    return Finding(claim=claim, cause=cause, confidence=sure, evidence=(*owner, *proof))
