"""One small rule per cause: facts -> finding or None. The tuples at the end rank these, and what stands behind them.

Mirrors the decision table of the project's kernel facts, which follows tcp_check_oom() in net/ipv4/tcp.c: the kernel's
own text outranks numbers read a moment later, and calm numbers rule nothing out. To add a cause, write one function,
put it into the tuple where it belongs, and add a file to tests/scenarios.
"""

from agent.core.diagnosis import rules_counters as counters
from agent.core.diagnosis import rules_holders as by_holder
from agent.core.diagnosis import rules_host as host
from agent.core.diagnosis import rules_old_texts as old_texts
from agent.core.diagnosis import rules_orphans as orphans
from agent.core.diagnosis import rules_silence as silence
from agent.core.diagnosis import rules_sysctls as sysctls
from agent.core.diagnosis.evidence import DOUBT, build_finding, by_numbers, confidence, delta_evidence
from agent.core.facts import Facts, Rule
from agent.core.gauge import CALM
from agent.core.model import Confidence, Evidence, Finding

# --- both -----------------------------------------------------------------------------------------------------------


def both_limits_hit(facts: Facts) -> Finding | None:
    """Claim that both texts were printed, or neither names a cause and both gauges are at a limit.

    Orphans that only a penalty brings to theirs are no more than a warning until the kernel acts.
    """
    if len(facts.named_causes) > 1:
        confidences = (confidence(facts, "orphans"), confidence(facts, "tcp_memory"))
        return build_finding(facts, "both_limits_hit", "both", max(confidences, key=DOUBT.index))
    # close() knows no penalty, so its text at half the limit leaves the memory alone to blame.
    reached = facts.shift == 0 or (facts.has_happened and facts.orphans.is_high and "close" not in facts.lines)
    if facts.named_causes or not reached or not facts.memory_full:
        return None
    return build_finding(facts, "both_limits_hit", "both", by_numbers(facts, likely=facts.shift == 0))


# --- orphans --------------------------------------------------------------------------------------------------------


def orphans_at_limit(facts: Facts) -> Finding | None:
    """Claim that the orphans are over tcp_max_orphans, or just below it, as when the kernel resets those above it."""
    if facts.shift != 0:
        return None
    return build_finding(facts, "orphans_at_limit", "orphans", confidence(facts, "orphans", likely=True))


def orphans_penalised(facts: Facts) -> Finding | None:
    """Claim that the orphans are over a half or a quarter of the limit, where stuck ones count two- or fourfold."""
    if not facts.shift:
        return None
    likely = facts.has_happened and "close" not in facts.lines
    return build_finding(facts, "orphans_penalised", "orphans", confidence(facts, "orphans", likely=likely))


def orphans_burst_passed(facts: Facts) -> Finding | None:
    """Claim that the text names the orphan limit and the count is low again: the burst was over before the reading.

    Without a text the trace or counters show kills, and memory that was never pressed cannot have been their reason: on
    its way to the last limit the kernel counts an entry into pressure (sk_enter_memory_pressure, net/core/sock.c).
    """
    gauge = facts.orphans
    if None in (gauge.value, gauge.limit) or gauge.is_high:
        return None
    never_pressed = facts.zone == "calm" and facts.press is False and facts.deltas.get("TCPMemoryPressures") == 0
    left_over = bool(facts.killed_silently) and never_pressed
    if "orphans" not in facts.lines and not left_over:
        return None
    return build_finding(facts, "orphans_burst_passed", "orphans", confidence(facts, "orphans", likely=left_over))


def orphans_named_by_text(facts: Facts) -> Finding | None:
    """Claim that the text names the orphan limit; the count or the limit at that moment is unknown."""
    if "orphans" not in facts.lines or None not in (facts.orphans.value, facts.orphans.limit):
        return None
    return build_finding(facts, "orphans_named_by_text", "orphans", confidence(facts, "orphans"))


# --- memory ---------------------------------------------------------------------------------------------------------


def memory_over_limit(facts: Facts) -> Finding | None:
    """Claim that TCP holds more than tcp_mem[2]: forced charges go past it."""
    if facts.zone != "over":
        return None
    return build_finding(facts, "memory_over_limit", "tcp_memory", confidence(facts, "tcp_memory", likely=True))


def memory_at_limit(facts: Facts) -> Finding | None:
    """Claim that TCP holds just below tcp_mem[2]: refused charges are undone, so exhaustion hovers there."""
    if facts.zone != "at_limit":
        return None
    return build_finding(facts, "memory_at_limit", "tcp_memory", confidence(facts, "tcp_memory", likely=True))


def cgroup_limit(facts: Facts) -> Finding | None:
    """Claim a cgroup's limit: 3.3 to 4.4 test sockets of limited cgroups against those, with the same text.

    Later kernels refuse such a group's data without any text.
    """
    failcnt = facts.snapshot.kmem_tcp_failcnt
    if not facts.lines:
        return silence.cgroup_starves_alone(facts)
    if "tcp_memory" not in facts.lines or facts.kernel is None or not facts.kernel.tests_memcg:
        return None
    if facts.zone not in ("calm", "hysteresis", None) or not failcnt:
        return None
    proof = Evidence(name="memory.kmem.tcp.failcnt", value=failcnt, limit=0, unit="refusals", source="cgroup")
    return build_finding(facts, "cgroup_limit", "tcp_memory", confidence(facts, "tcp_memory", most="likely"), proof)


def memory_receding(facts: Facts) -> Finding | None:
    """Claim that TCP holds more than the pressure limit and less than the last: on its way down, or up.

    Where the text names tcp_mem, the flag that is still up shows the same, however little TCP holds by then.
    """
    flagged = ("hysteresis", "calm") if "tcp_memory" in facts.lines else ("hysteresis",)
    between = facts.zone == "pressure" or (facts.press is True and facts.zone in flagged)
    # Below the pressure limit the flag can stand for a host short of RAM, and without an event nothing speaks for TCP.
    if not between or (not facts.has_happened and facts.zone == "hysteresis" and host.host_ram_short(facts)):
        return None
    likely = facts.has_happened and facts.zone == "pressure" and facts.press is True
    return build_finding(facts, "memory_receding", "tcp_memory", confidence(facts, "tcp_memory", likely=likely))


def memory_burst_passed(facts: Facts) -> Finding | None:
    """Claim that the text names tcp_mem and the use is low again: who held it has let go."""
    if "tcp_memory" not in facts.lines or facts.zone not in CALM:
        return None
    if memory_receding(facts) or cgroup_limit(facts):
        return None
    # On kernels that test cgroups too, a calm total may mean that it never was tcp_mem.
    most: Confidence = "likely" if facts.kernel is None or facts.kernel.tests_memcg else "certain"
    return build_finding(facts, "memory_burst_passed", "tcp_memory", confidence(facts, "tcp_memory", most=most))


def memory_named_by_text(facts: Facts) -> Finding | None:
    """Claim that the text names tcp_mem; the use or the limits at that moment are unknown."""
    if "tcp_memory" not in facts.lines or facts.zone is not None:
        return None
    return build_finding(facts, "memory_named_by_text", "tcp_memory", confidence(facts, "tcp_memory"))


# --- nothing else fits ----------------------------------------------------------------------------------------------


def memory_pressure_flag(facts: Facts) -> Finding | None:
    """Claim that the kernel's pressure flag is up although TCP holds little, while which it shrinks windows.

    A failed allocation sets it, too (sk_stream_alloc_skb, net/ipv4/tcp.c), and only the next charge takes it down.
    """
    if facts.press is not True or facts.zone not in (*CALM, None) or memory_receding(facts):
        return None
    entries = (delta_evidence(facts, "TCPMemoryPressures"),) if facts.deltas.get("TCPMemoryPressures") else ()
    return build_finding(facts, "memory_pressure_flag", "none", by_numbers(facts, likely=facts.limits_known), *entries)


def nothing_near_a_limit(facts: Facts) -> Finding | None:
    """No event, and no gauge that could be read is near a limit."""
    if facts.has_happened or memory_pressure_flag(facts):
        return None
    # Below a limit that is above RAM, or that not every socket counts toward, is no proof.
    unbound = facts.is_bypassed or sysctls.tcp_mem_above_ram(facts)
    sure: Confidence = "likely" if facts.press is not False or unbound else "certain"
    return build_finding(facts, "nothing_near_a_limit", "none", sure if facts.limits_known else "possible")


RULES: tuple[Rule, ...] = (
    both_limits_hit,
    orphans_at_limit,
    memory_over_limit,
    memory_at_limit,
    orphans_penalised,
    cgroup_limit,
    memory_receding,
    silence.memory_short_between_readings,
    orphans_burst_passed,
    memory_burst_passed,
    orphans_named_by_text,
    memory_named_by_text,
    old_texts.orphans_left_over,
    old_texts.memory_left_over,
    old_texts.orphans_within_counter_error,
    old_texts.memory_pressed_meanwhile,
    old_texts.cause_undecided,
    memory_pressure_flag,
    nothing_near_a_limit,
)


# Who stands behind it: these need a table of sockets.
HOLDER_RULES: tuple[Rule, ...] = (
    by_holder.one_owner_leaks_connections,
    by_holder.one_owner_holds_very_many_connections,
    by_holder.one_owner_does_not_read,
    by_holder.accept_queue_not_drained,
    by_holder.peers_take_data_slowly,
    orphans.orphans_wait_for_stalled_peers,
    orphans.orphans_wait_for_vanished_peers,
    orphans.orphans_come_of_short_connections,
    by_holder.one_network_holds_most,
    by_holder.attribution_incomplete,
    by_holder.memory_without_sockets,
)

# What else is known; none of these decides the cause.
REMARKS: tuple[Rule, ...] = (
    counters.earlier_burst,
    counters.text_of_another_kernel,
    counters.orphans_fill_memory,
    counters.counters_contradict,
    counters.trace_contradicts,
    counters.living_sockets_refused,
    counters.sockets_in_no_table,
    sysctls.tcp_mem_holds_buffer_sizes,
    sysctls.tcp_mem_above_ram,
    sysctls.tcp_mem_out_of_order,
    sysctls.orphan_limit_holds_pages,
    host.host_ram_short,
    silence.sockets_lose_data,
    silence.receivers_too_slow,
    silence.data_dropped_without_message,
    silence.cgroup_presses_its_sockets,
    host.openvz_container_limit,
    sysctls.tcp_mem_below_default,
    sysctls.orphan_limit_below_default,
    sysctls.tcp_mem_above_half_of_ram,
    host.host_stalls_for_memory,
    host.mptcp_takes_part,
)


def apply_rules(facts: Facts) -> tuple[Finding, ...]:
    """All findings, best first. The first is the verdict; there is always one.

    A gauge of the cause that the kernel's text did not name stands behind the verdict, as what else is true; then come
    who stands behind it, and what else is known. What the history shows is core.history.look_back's.
    """
    found = _claims(RULES, facts)
    fallback = [finding for finding in found if finding.cause in ("undetermined", "none")]
    causes = [finding for finding in found if finding not in fallback]
    if causes:
        # Findings about memory show the flag themselves.
        alone = all(finding.cause == "orphans" for finding in causes)
        fallback = [finding for finding in fallback if alone and finding.claim == "memory_pressure_flag"]
    if facts.named_causes:
        causes.sort(key=lambda finding: finding.cause != "both" and finding.cause not in facts.named_causes)
    behind = _claims(HOLDER_RULES, facts) if facts.sockets.groups else []
    return (*causes, *fallback, *behind, *_claims(REMARKS, facts))


def _claims(rules: tuple[Rule, ...], facts: Facts) -> list[Finding]:
    return [finding for each in rules if (finding := each(facts)) is not None]
