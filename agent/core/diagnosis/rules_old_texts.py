"""What an old text can mean that no number at a limit explains: kernels up to 3.2 print each text for both causes.

A kill that only the trace or a counter shows is the same: both stand for either cause (tcp_check_oom, net/ipv4/tcp.c).

Rules like those of rules_cause, which rank behind them: causes that are left over, and no cause at all.
"""

from agent.core.diagnosis.evidence import build_finding, delta_evidence
from agent.core.facts import Facts
from agent.core.gauge import CALM
from agent.core.kernel.release import orphan_error
from agent.core.model import Finding

# The smallest limit that a kernel up to 3.2 gives itself is 4096, and the penalty bites at a quarter of it.
_MANY_ORPHANS = 1024
_DEFAULT_TCP_MEM_PERCENT = 9


def orphans_left_over(facts: Facts) -> Finding | None:
    """Claim the orphans by elimination: old text, memory far from its limit, many orphans and an unknown limit."""
    if not _is_ambiguous(facts) or facts.orphans.limit is not None or facts.orphans.value is None:
        return None
    if facts.orphans.value < _MANY_ORPHANS or facts.zone not in CALM:
        return None
    return build_finding(facts, "orphans_left_over", "orphans", "possible")


def memory_left_over(facts: Facts) -> Finding | None:
    """Claim the memory by elimination: old text, few orphans, unknown tcp_mem, and pressure or much RAM in use."""
    if not _is_ambiguous(facts) or facts.zone is not None or facts.orphans.limit is None:
        return None
    if facts.orphans.value is None or facts.orphans.is_high:
        return None
    ram, used = facts.ram_bytes, facts.memory.value
    large = ram is not None and used is not None and 100 * used >= _DEFAULT_TCP_MEM_PERCENT * ram
    if facts.press is not True and not large:
        return None
    return build_finding(facts, "memory_left_over", "tcp_memory", "possible")


def orphans_within_counter_error(facts: Facts) -> Finding | None:
    """Claim that el6's own count, which is inexact, can have been over the limit where the exact one is not."""
    count, limit, error = facts.orphans.value, facts.orphans.limit, orphan_error(facts.kernel, facts.snapshot.cpus)
    if not count or limit is None or facts.orphans.is_high or not facts.lines:
        return None
    if error == 0 or count + error <= limit:
        return None
    return build_finding(facts, "orphans_within_counter_error", "orphans", "possible")


def memory_pressed_meanwhile(facts: Facts) -> Finding | None:
    """Claim the memory for an old text with calm gauges: the kernel entered memory pressure over the event."""
    pressures = facts.deltas.get("TCPMemoryPressures", 0)
    if not _is_ambiguous(facts) or pressures == 0 or facts.orphans.is_high:
        return None
    return build_finding(
        facts, "memory_pressed_meanwhile", "tcp_memory", "possible", delta_evidence(facts, "TCPMemoryPressures")
    )


def cause_undecided(facts: Facts) -> Finding | None:
    """Claim that the kernel said it in words that stand for two causes, and no number tells which."""
    return build_finding(facts, "cause_undecided", "undetermined", "possible") if facts.has_happened else None


def _is_ambiguous(facts: Facts) -> bool:
    """Return whether the kernel said it in words that stand for both causes, or only its trace or counters show it."""
    return facts.has_happened and not facts.named_causes
