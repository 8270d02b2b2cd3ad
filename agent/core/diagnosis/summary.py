"""One or two sentences for a human who was just woken up: what ran out, how far, and what to do first."""

from agent.core.facts import Facts
from agent.core.format import bytes_text, count_text, percent_text
from agent.core.history.look_back import Past
from agent.core.kernel.limits import is_just_below
from agent.core.model import Advice, Finding

# How a gap begins that tells of a line that a person handed over, and that says nothing of socket memory.
HANDED_OVER = "--message"
_PENALTY = {1: "twice, so it acts at a half", 2: "four times, so it acts at a quarter"}


def summarise(facts: Facts, findings: tuple[Finding, ...], advice: tuple[Advice, ...], past: Past) -> str:
    """Say the verdict in plain words, then what the history shows; the first step of the advice comes last."""
    claim = findings[0].claim
    said = _SENTENCES[claim](facts) if claim in _SENTENCES else f"Verdict: {claim.replace('_', ' ')}."
    if any(finding.claim == "orphans_fill_memory" for finding in findings):
        said += " Most of that memory is unsent data of orphaned sockets."
    if any(finding.claim == "host_ram_short" for finding in findings):
        said += " The host itself is short of RAM, which makes TCP save memory below its own limits."
    if any(finding.claim == "counters_contradict" for finding in findings) and findings[0].confidence == "possible":
        said += " The counters of this host do not confirm the message."
    claims = {finding.claim for finding in findings}
    if findings[0].cause == "orphans" and claims & {"memory_over_limit", "memory_at_limit"}:
        said += f" TCP memory is at its limit, too: {_memory(facts)}."
    if findings[0].cause == "tcp_memory" and "orphans_at_limit" in claims:
        said += f" The orphaned sockets are at theirs, too: {_orphans(facts)}."
    if past.text:
        said += f" {past.text}"
    return f"{said} First: {_lower(advice[0].action)}" if advice else said


def _orphans_at_limit(facts: Facts) -> str:
    reset = "The kernel reset connections: " if facts.lines else ""
    gauges = facts.gauges
    if gauges.orphan_limit is not None and gauges.orphan_limit <= 0:
        return f"{reset}tcp_max_orphans is {gauges.orphan_limit}, so nearly every closing connection is reset."
    if facts.lines and gauges.orphan is not None and gauges.orphan_limit is not None:
        left, allowed = count_text(gauges.orphan), count_text(gauges.orphan_limit)
        if not is_just_below(gauges.orphan, gauges.orphan_limit):
            return f"{reset}more orphaned sockets than the {allowed} that are allowed; {left} were left when we looked."
    return (
        f"{reset}{_orphans(facts)}. They are closed by their program, and not yet finished by the peer."
        if facts.lines
        else f"TCP is at its limit of orphaned sockets although nothing was logged: {_orphans(facts)}."
    )


def _orphans_penalised(facts: Facts) -> str:
    shift = facts.gauges.shift or 1
    start = "The kernel reset connections" if facts.lines else "The kernel may begin to reset connections"
    said = f"{start}: {_orphans(facts)}. Stuck ones count {_PENALTY[shift]} of the limit"
    # Killing is quick: the reading may be what was left of a full house, unless it was like that before, too.
    lasts = facts.orphans_before is not None and (facts.orphans_before << 2) > (facts.gauges.orphan_limit or 0)
    return said + (", or it was full a moment before." if facts.lines and not lasts else ".")


def _orphans_burst_passed(facts: Facts) -> str:
    now = f"{count_text(facts.gauges.orphan)} now" if facts.gauges.orphan is not None else "few now"
    limit = count_text(facts.gauges.orphan_limit) if facts.gauges.orphan_limit is not None else "not known"
    reset = "The kernel reset connections for too many orphaned sockets"
    return f"{reset}; the burst had passed when we looked ({now}, limit {limit})."


def _orphans_named_by_text(facts: Facts) -> str:
    gauges = facts.gauges
    unread = _unread("how many there were", gauges.orphan, gauges.orphan_limit)
    return f"The kernel reset connections for too many orphaned sockets; {unread} ({_orphans(facts)})."


def _memory_named_by_text(facts: Facts) -> str:
    gauges = facts.gauges
    unread = _unread("how much it used", gauges.mem_bytes, gauges.limits_bytes)
    return f"TCP ran out of the memory it may use on this host; {unread} ({_memory(facts)})."


def _unread(amount: str, used: object, limit: object) -> str:
    if used is not None:
        return "the limit could not be read"
    return f"{amount} could not be read" if limit is not None else f"neither {amount} nor the limit could be read"


def _memory_full(facts: Facts) -> str:
    told = "" if facts.lines else ", and the kernel logged nothing"
    used = f"TCP has used up the memory it may use on this host: {_memory(facts)}."
    return f"{used} Data is dropped and connections stall{told}."


def _memory_receding(facts: Facts) -> str:
    if not facts.lines:
        return f"TCP is saving memory: {_memory(facts)}, above the point where the kernel begins to press."
    ran_out = "TCP ran out of the memory it may use on this host"
    return f"{ran_out}; at the reading it had {_memory(facts)}, still under pressure."


def _memory_burst_passed(facts: Facts) -> str:
    return f"TCP ran out of the memory it may use on this host; the burst had passed when we looked ({_memory(facts)})."


def _both(facts: Facts) -> str:
    return f"TCP ran into both limits, orphaned sockets and memory: {_orphans(facts)}; {_memory(facts)}."


def _undecided(facts: Facts) -> str:
    old = {"timer", "close"} & set(facts.lines)
    calm = "both readings are low by now" if facts.gauges.calm else "the readings do not tell them apart"
    text = "this kernel's message stands for two causes, orphaned sockets or memory, and " if old else ""
    return (
        f"The kernel ran out of TCP sockets or their memory: {text}{calm}. "
        "From experience orphaned sockets are the more frequent cause; nothing here proves it."
    )


def _nothing(facts: Facts) -> str:
    handed = [gap.why for gap in facts.snapshot.gaps if gap.what.startswith(HANDED_OVER)]
    if handed:
        one = f"the line handed over is {handed[0]}"
        lines = one if len(handed) == 1 else "none of the lines handed over names a limit of socket memory"
        numbers = f"{_orphans(facts)}; {_memory(facts)}" if facts.limits_known else "not everything could be read"
        return f"Nothing that could be read is near a limit ({numbers}), but {lines}."
    if not facts.limits_known:
        return "No message, and nothing that could be read is near a limit; not everything could be read."
    return f"All is well: {_orphans(facts)}; {_memory(facts)}."


def _orphans(facts: Facts) -> str:
    orphan, limit = facts.gauges.orphan, facts.gauges.orphan_limit
    if orphan is None:
        return "the number of orphaned sockets is not known"
    if limit is None:
        return f"{count_text(orphan)} orphaned sockets, their limit is not known"
    share = percent_text(orphan, limit)
    return f"{count_text(orphan)} orphaned sockets of {count_text(limit)} allowed" + (f" ({share})" if share else "")


def _memory(facts: Facts) -> str:
    used, limits = facts.gauges.mem_bytes, facts.gauges.limits_bytes
    if used is None:
        return "its memory is not known"
    if limits is None:
        return f"{bytes_text(used)} of memory, its limit is not known"
    share = percent_text(used, limits[2])
    return f"{bytes_text(used)} of {bytes_text(limits[2])} allowed" + (f" ({share})" if share else "")


def _lower(action: str) -> str:
    return action[:1].lower() + action[1:]


_SENTENCES = {
    "orphans_at_limit": _orphans_at_limit,
    "orphans_penalised": _orphans_penalised,
    "orphans_burst_passed": _orphans_burst_passed,
    "orphans_named_by_text": _orphans_named_by_text,
    "orphans_left_over": lambda facts: (
        f"Too many orphaned sockets, as it seems: {_orphans(facts)}, while memory is far from its limit"
        f" ({_memory(facts)})."
    ),
    "orphans_within_counter_error": lambda facts: (
        f"Too many orphaned sockets, perhaps: {_orphans(facts)}, and this kernel's own count is inexact by up to "
        f"{count_text(facts.gauges.orphan_error)}."
    ),
    "memory_over_limit": _memory_full,
    "memory_at_limit": _memory_full,
    "memory_receding": _memory_receding,
    "memory_burst_passed": _memory_burst_passed,
    "memory_named_by_text": _memory_named_by_text,
    "memory_left_over": lambda facts: (
        f"TCP memory, as it seems: {_memory(facts)}, while orphaned sockets are few ({_orphans(facts)})."
    ),
    "memory_pressed_meanwhile": lambda facts: (
        "TCP memory, perhaps: the kernel came under TCP memory pressure at the time; by now it is low"
        f" ({_memory(facts)})."
    ),
    "cgroup_limit": lambda facts: (
        f"A control group ran into its own limit of TCP memory; the host's limit is far away ({_memory(facts)})."
    ),
    "both_limits_hit": _both,
    "cause_undecided": _undecided,
    "nothing_near_a_limit": _nothing,
}
