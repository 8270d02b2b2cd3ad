"""One or two sentences for a human who was just woken up: what ran out, and who holds it.

A message puts the numbers into its title and the steps below; neither stands here a second time.
"""

from collections.abc import Callable
from datetime import datetime
from math import isfinite

from agent.core.advice.main_holder import MainHolders
from agent.core.diagnosis.rules_silence import udp_shortage
from agent.core.facts import Facts
from agent.core.format import bytes_text, count_text, counted, duration_text, moment_text, percent_text
from agent.core.history.look_back import Past
from agent.core.kernel.limits import KILLED, is_just_below
from agent.core.model import KINDS, Event, Finding, GaugeName, Witness, WitnessedBy
from agent.core.readings import UnreadLine
from agent.core.sockets.cgroup_names import text_of_group
from agent.core.sockets.holder_names import losers_named, marked, name_of
from agent.core.sockets.holders import program_text
from agent.core.times import second_of

_SHORT: dict[GaugeName, str] = {"orphans": "orphaned sockets", "tcp_memory": "TCP memory"}

_VICTIMS_AT_MOST, _PORTS_SHOWN = 2, 3
_WHILE_PRESSED = "the kernel shrinks windows and refuses large sends"
_FULL = frozenset({"memory_at_limit", "memory_over_limit", "both_limits_hit"})

_MISSING = "a reading or a limit is missing"

_MISTAKES = {
    "tcp_mem_holds_buffer_sizes": "it has the bytes of one socket's buffer",
    "tcp_mem_above_ram": "it allows more than this host's {ram}",
    "tcp_mem_out_of_order": "its numbers do not rise",
}


def summarise(facts: Facts, findings: tuple[Finding, ...], past: Past, main: MainHolders) -> str:
    """Return the verdict in plain words, then the main holder, then what the history shows."""
    claim, claims = findings[0].claim, {finding.claim for finding in findings}
    verdict = _SENTENCES.get(claim, f"Verdict: {claim.replace('_', ' ')}.")
    # A warning is about something that these gauges do not show, or not yet.
    if claim == "nothing_near_a_limit" and (len(findings) > 1 or facts.snapshot.trigger == "pressure"):
        verdict = _nothing_but
    sentences = [verdict if isinstance(verdict, str) else verdict(facts)]
    if "orphans_fill_memory" in claims:
        sentences.append("Most of TCP's memory is unsent data of orphaned sockets.")
    if "host_ram_short" in claims:
        sentences.append("The host itself is short of RAM, so TCP saves memory below its own limits.")
    sentences += _proof(facts, findings, claims)
    if findings[0].cause == "orphans" and claims & {"memory_over_limit", "memory_at_limit"}:
        sentences.append("TCP memory has reached its limit, too.")
    if findings[0].cause == "tcp_memory" and "orphans_at_limit" in claims:
        sentences.append("Orphaned sockets have reached their limit, too.")
    if facts.press is True and not claims & _FULL and claim not in ("memory_receding", "memory_pressure_flag"):
        sentences.append(f"The press flag is up: {_WHILE_PRESSED}.")
    if facts.is_alien:
        sentences.append(f"But kernel {facts.snapshot.kernel} does not print this text: another kernel wrote the line.")
    if facts.is_past and (newest := _newest(facts)):
        sentences.append(f"That was at {moment_text(newest, facts.snapshot.taken_at)}; nothing was measured then.")
    sentences += [_earlier(facts, seconds, event) for seconds, event in facts.earlier]
    losers = losers_named(findings)
    lost = f"Data is being lost by {losers}." if losers else ""
    held = (
        [*_killed(facts.witness), *_holders(findings, main)] or _where_killed(facts) or _where_hidden(facts, findings)
    )
    held += _refused(facts.witness)
    sentences += [_unlisted(facts, each) for each in findings if each.claim == "sockets_in_no_table"]
    return " ".join(filter(None, (*sentences, *_settings(facts, claims), *held, lost, past.text)))


def _proof(facts: Facts, findings: tuple[Finding, ...], claims: set[str]) -> list[str]:
    """Say that the kernel's own numbers deny a log, or that they alone show it."""
    if facts.is_denied:
        return ["The kernel reports no reset: neither its trace nor its counters show one."]
    if "counters_contradict" in claims and findings[0].confidence == "possible":
        return ["This host's counters do not confirm it."]
    if facts.killed_silently and not facts.is_traced and facts.before:
        span = duration_text(facts.last[0] - facts.before[0])
        return [f"{KILLED} counts {counted(facts.killed_silently, 'reset')} in the last {span}."]
    return ["The kernel logged no message."] if facts.killed_silently else []


def _newest(facts: Facts) -> datetime | None:
    return max((each.at for each in facts.lines.values() if each.at), key=second_of, default=None)


def _earlier(facts: Facts, seconds: float, event: Event) -> str:
    """Return what was reported in a burst before this one, and when both were."""
    newest, both = _newest(facts), ""
    if event.at and newest:
        then, now = (moment_text(at, facts.snapshot.taken_at) for at in (event.at, newest))
        both = f" (at {then}; the newest message is from {now})"
    before = f"{duration_text(seconds)} earlier" if isfinite(seconds) else "Before the last boot"
    said = "the kernel reported" if event.provenance == "kernel" else "a text log claimed"
    return f"{before}{both}, in another burst, {said} {KINDS[event.kind]}."


def _unlisted(facts: Facts, finding: Finding) -> str:
    """Return how many sockets are in no table, and what such sockets are."""
    count, *_ = finding.evidence
    program = program_text(facts.sockets.unlisted[0].process) if facts.sockets.unlisted else "a program"
    ipv6 = "IPv6 (net/sockstat6 is missing), " if facts.lacks_ipv6 else ""
    where = "" if facts.sockets.complete else f" of this network namespace: they are {ipv6}in another one, or"
    return (
        f"{_number(count.value)} of {_number(count.limit)} TCP sockets are in no table{where or ':'} reset or closed "
        f"by the peer, but still open in {program}, with unread data (ss and netstat do not list them)."
    )


def _number(value: object) -> str:
    return count_text(value) if isinstance(value, int) else str(value)


def _settings(facts: Facts, claims: set[str]) -> list[str]:
    """Name the settings that are wrong: they come before the holder of what they limit."""
    said, limit, default = [], facts.orphans.limit, facts.defaults
    if "nothing_near_a_limit" in claims:
        return []
    if "orphan_limit_below_default" in claims and limit and limit > 0 and default.tcp_max_orphans:
        usual = count_text(default.tcp_max_orphans)
        said.append(f"tcp_max_orphans is {count_text(limit)}, far below this kernel's default of {usual}.")
    if mistake := next((text for claim, text in _MISTAKES.items() if claim in claims), None):
        numbers = " ".join(map(str, facts.limits or ()))
        mistake = mistake.format(ram=facts.ram_name)
        said.append(f"tcp_mem is set wrongly ({numbers}): {mistake}. It must hold three rising page counts.")
    elif "tcp_mem_below_default" in claims and facts.limits_bytes and facts.usual_tcp_mem:
        allowed, usual = (
            bytes_text(max(size, 0))
            for size in (facts.limits_bytes[2], facts.usual_tcp_mem[2] * (facts.page_bytes or 0))
        )
        whose = "this kernel's" if facts.usual_tcp_mem == default.tcp_mem else "a newer kernel's"
        said.append(f"tcp_mem allows {allowed}, far below {whose} default of {usual}.")
    return said


def _holders(findings: tuple[Finding, ...], main: MainHolders) -> list[str]:
    """Name the main holder of each side that ran out, with its share."""
    cause, claims = findings[0].cause, {finding.claim for finding in findings}
    if findings[0].claim == "cgroup_limit":
        return []  # What others hold is not what ran out.
    short: dict[GaugeName, bool] = {
        "orphans": cause in ("orphans", "both") or (cause == "tcp_memory" and "orphans_fill_memory" in claims),
        "tcp_memory": cause in ("tcp_memory", "both")
        or (cause == "orphans" and bool(claims & {"memory_over_limit", "memory_at_limit"})),
    }
    return [
        f"{marked(each.name, each.holder)} holds {percent_text(each.held, each.total)} of the {_SHORT[gauge]}."
        for gauge, each in main.items()
        if short[gauge]
    ]


def _killed(witness: Witness | None) -> list[str]:
    """Name whose connections were reset, as the kernel's trace shows, and how many it does not show."""
    if witness is None or not witness.kills:
        return []
    named = [(name, each) for each in witness.by if each.kills and (name := name_of(each))][:_VICTIMS_AT_MOST]
    resets = counted(witness.kills, "connection")
    if [each.kills for _, each in named] == [witness.kills]:
        whose = f" of {_victim(*named[0])}"
    else:
        whose = "".join(
            f", {'about ' if each.pro_rata else ''}{count_text(each.kills)} of {_victim(name, each)}"
            for name, each in named
        )
    more = f"; {count_text(witness.unseen)} more are only counted" if witness.unseen else ""
    return [f"The kernel reset {resets}{whose}, seen by the trace{more}."]


def _victim(name: str, each: WitnessedBy) -> str:
    ports = " ".join(map(str, each.ports[:_PORTS_SHOWN]))
    shown = f" ({'port' if len(each.ports) == 1 else 'ports'} {ports})" if ports and not each.guess else ""
    return f"{marked(name, each)}{shown}"


def _refused(witness: Witness | None) -> list[str]:
    """Say how often living connections were refused memory, and who wrote to them."""
    if witness is None or not witness.refusals:
        return []
    writers = [(name, each) for each in witness.by if each.refusals and (name := name_of(each))][:_VICTIMS_AT_MOST]
    of_them = ", ".join(f"{count_text(each.refusals)} to {name}" for name, each in writers)
    times = "once" if witness.refusals == 1 else f"{count_text(witness.refusals)} times"
    return [f"The kernel refused memory to open connections {times}{f' ({of_them})' if of_them else ''}."]


def _where_killed(facts: Facts) -> list[str]:
    """Name the other network namespace in which at least half of the connections were reset."""
    place, kills = next(iter(facts.moved(KILLED).items()), ("", 0))
    if not kills or 2 * kills < (facts.kills or 0):
        return []
    return [f"{count_text(kills)} of the {counted(facts.kills or 0, 'reset')} hit {place}."]


def _where_hidden(facts: Facts, findings: tuple[Finding, ...]) -> list[str]:
    """Say that most orphans are where no process is seen that they could be named by."""
    if findings[0].cause not in ("orphans", "both") or 2 * facts.unseen_orphans <= facts.totals.orphans:
        return []
    ended = "of containers that have ended, or of processes hidden from here"
    return [f"Most of them are in network namespaces with no visible process: {ended}."]


def _resets(facts: Facts) -> str:
    return _as_said(facts, "the kernel reset connections")


def _ran_out(facts: Facts) -> str:
    return _as_said(facts, "TCP ran out of memory")


def _as_said(facts: Facts, what: str) -> str:
    """Begin a sentence with what happened, or with who claims it."""
    return f"A text log claims that {what}" if _is_claim(facts) else what[0].upper() + what[1:]


def _is_claim(facts: Facts) -> bool:
    """Return whether only a text log says it, and no counter shows it."""
    return (
        (facts.kills == 0 or facts.is_past)
        and bool(facts.lines)
        and all(event.provenance == "claimed" for event in facts.lines.values())
    )


def _both_limits_hit(facts: Facts) -> str:
    if facts.named_causes or not facts.shift:
        return _as_said(facts, "TCP reached both limits, orphaned sockets and memory.")
    part = "half" if facts.shift == 1 else "a quarter"
    return (
        f"TCP memory has reached its limit, and orphaned sockets {part} of theirs, which is the limit for stuck ones."
    )


def _orphans_at_limit(facts: Facts) -> str:
    if facts.orphans.limit is not None and facts.orphans.limit <= 0:
        closing = f"tcp_max_orphans is {facts.orphans.limit}, so {_what_zero_does(facts)}."
        return f"{_resets(facts)}: {closing}" if facts.has_happened else closing
    if not facts.has_happened:
        silent = ", although the kernel has logged nothing" if facts.follows_log else ""
        return f"Orphaned sockets have reached their limit{silent}."
    orphan, limit = facts.orphans.value, facts.orphans.limit
    if orphan is not None and limit is not None and not is_just_below(orphan, limit):
        return f"{_resets(facts)}: orphaned sockets exceeded tcp_max_orphans; by the reading the excess was gone."
    return (
        f"{_resets(facts)}: orphaned sockets reached tcp_max_orphans. Their programs have closed them; the peers have "
        "not acknowledged everything yet."
    )


def _what_zero_does(facts: Facts) -> str:
    """Return what happens to connections under a limit of 0; only a negative one is always exceeded."""
    if facts.orphans.limit == 0 and (facts.kernel is None or facts.kernel.counts_orphans_anew):
        return "a closing connection may be reset whenever the kernel's count of orphans, up to 100 ms old, is not zero"
    return "the kernel resets nearly every closing connection"


def _orphans_penalised(facts: Facts) -> str:
    part, times = ("half", "double") if facts.shift == 1 else ("a quarter", "fourfold")
    start = _resets(facts) if facts.has_happened else "The kernel may start to reset connections"
    if set(facts.lines) == {"close"}:
        # tcp_close() counts no orphan twice, and up to 3.2 says the same of memory.
        now = f"orphaned sockets are above {part} of tcp_max_orphans"
        return f"{start}: {now}; a moment earlier they exceeded it, or TCP memory its own limit."
    text = f"{start}: it counts stuck orphans {times}, so it may act at {part} of tcp_max_orphans"
    # Killing is quick: the limit itself may have been reached, unless it was like that before, too.
    before = facts.before[1].orphan if facts.before else None
    lasts = before is not None and (before << 2) > (facts.orphans.limit or 0)
    return text + ("; or the limit itself was reached a moment earlier." if facts.has_happened and not lasts else ".")


def _orphans_burst_passed(facts: Facts) -> str:
    if facts.killed_silently:
        return (
            f"{_resets(facts)}, probably because of too many orphaned sockets: TCP memory was not under pressure; "
            f"{_passed(facts)}."
        )
    return f"{_resets(facts)} because of too many orphaned sockets; {_passed(facts)}."


def _passed(facts: Facts) -> str:
    lag = f", {duration_text(facts.lag_seconds)} later" if facts.lag_seconds else ""
    return f"the burst had passed by the reading{lag}"


def _orphans_named_by_text(facts: Facts) -> str:
    unread = _unread("how many there were", facts.orphans.value, facts.orphans.limit)
    return f"{_resets(facts)} because of too many orphaned sockets; {unread}."


def _memory_named_by_text(facts: Facts) -> str:
    if facts.now.mem is not None and facts.limits and facts.page_bytes is None:
        return f"{_ran_out(facts)}; without the host's page size its use cannot be compared with the limit."
    return f"{_ran_out(facts)}; {_unread('how much it used', facts.memory.value, facts.limits_bytes)}."


def _unread(amount: str, used: object, limit: object) -> str:
    if used is not None:
        return "the limit could not be read"
    return f"{amount} could not be read" if limit is not None else f"neither {amount} nor the limit could be read"


def _memory_full(facts: Facts) -> str:
    silent = "" if facts.has_happened or not facts.follows_log else "; the kernel has logged nothing"
    return f"TCP has used all the memory it may use (tcp_mem). The kernel drops data and connections stall{silent}."


def _memory_receding(facts: Facts) -> str:
    if not facts.lines:
        since = "is above the kernel's threshold (tcp_mem[1])"
        left = "was above the kernel's threshold (tcp_mem[1]) and has not fallen below tcp_mem[0] since"
        drops = f" {_drops(facts)}" if facts.refused else ""
        return f"TCP is under memory pressure: its memory {since if facts.zone == 'pressure' else left}.{drops}"
    if facts.zone == "calm":
        low = "by the reading its use was low again, but the press flag was still up"
        return f"{_ran_out(facts)}; {low}: {_WHILE_PRESSED}."
    return f"{_ran_out(facts)}; at the reading it was still under memory pressure."


def _drops(facts: Facts) -> str:
    return f"The kernel drops received data{' and has logged nothing' if facts.follows_log else ''}."


def _cgroup_limit(facts: Facts) -> str:
    group = facts.starving_group
    if group is None:
        return "A control group reached its own TCP memory limit; the host's limit is far away."
    return (
        f"{text_of_group(group)} is at its own memory limit ({bytes_text(group.limit_bytes)}): the kernel holds "
        "up its connections (it shrinks their windows or drops their data) and logs nothing. TCP as a whole is far "
        "below its limits."
    )


def _undecided(facts: Facts) -> str:
    calm = "both readings are back to normal" if facts.calm else "the readings do not tell which"
    if facts.killed_silently:
        what = "its trace does" if facts.is_traced else "its counters do"
        return f"The kernel reset connections; {what} not tell which limit was reached, and {calm}."
    can = "on this kernel the message can mean orphaned sockets or memory, and " if facts.is_old else ""
    can = "up to kernel 3.2 the message can mean orphaned sockets or memory, and " if facts.is_alien else can
    return (
        f"{_as_said(facts, 'the kernel ran out of TCP sockets or memory')}: {can}{calm}. "
        "Orphans are the more common cause, but nothing here proves it."
    )


def _pressure_flag(facts: Facts) -> str:
    low = " although its use is below its limits" if facts.limits_known else ""
    why = ", set by a failed allocation or left over" if facts.zone else "; how near its use is to a limit is unknown"
    return f"TCP is under memory pressure{low}: the kernel's press flag is up{why}. Meanwhile {_WHILE_PRESSED}."


def _nothing(facts: Facts) -> str:
    return _unsure(facts) or "All is well: orphaned sockets and TCP memory are below their limits."


def _nothing_but(facts: Facts) -> str:
    return _unsure(facts) or "Orphaned sockets and TCP memory are below their limits."


def _unsure(facts: Facts) -> str | None:
    """Return why calm gauges are not all that counts."""
    handed = [gap.why for gap in facts.snapshot.gaps if isinstance(gap, UnreadLine)]
    if handed:
        one = f"the line passed in was not used: {handed[0].removesuffix('; ignored')}"
        lines = one if len(handed) == 1 else "none of the lines passed in names a limit of socket memory"
        if facts.limits_known:
            return f"No reading is near a limit, but {lines}."
        uncompared = _uncompared(facts).partition(" ")[2]
        return f"{uncompared[0].upper()}{uncompared[1:]} ({_MISSING}), and {lines}."
    if not facts.limits_known:
        return f"No kernel message, {_uncompared(facts)}: {_MISSING}."
    if facts.refused:
        return (
            f"The kernel refused {count_text(facts.refused)} received segments although TCP memory is below its limits:"
            " receivers are slow, a control group is at a limit of its own, or memory was full between two readings."
        )
    if udp_shortage(facts):
        return "UDP, not TCP, is losing data: orphaned sockets and TCP memory are below their limits."
    return None


def _uncompared(facts: Facts) -> str:
    """Return which gauge cannot be held against its limit: nobody knows how near it is."""
    if None not in (facts.orphans.value, facts.orphans.limit):
        return "and orphaned sockets are below their limit, but TCP memory cannot be compared with its limits"
    if facts.zone:
        return "and TCP memory is below its limits, but orphaned sockets cannot be compared with their limit"
    return "but neither orphaned sockets nor TCP memory can be compared with their limits"


_SENTENCES: dict[str, str | Callable[[Facts], str]] = {
    "orphans_at_limit": _orphans_at_limit,
    "orphans_penalised": _orphans_penalised,
    "orphans_burst_passed": _orphans_burst_passed,
    "orphans_named_by_text": _orphans_named_by_text,
    "orphans_left_over": "Probably too many orphaned sockets: there are many, and TCP memory is far below its limit.",
    "orphans_within_counter_error": "Possibly too many orphaned sockets: this kernel's own count is inexact and may "
    "have reached the limit.",
    "memory_over_limit": _memory_full,
    "memory_at_limit": _memory_full,
    "memory_receding": _memory_receding,
    "memory_burst_passed": lambda facts: f"{_ran_out(facts)}; {_passed(facts)}.",
    "memory_named_by_text": _memory_named_by_text,
    "memory_left_over": "Probably TCP memory: orphaned sockets are few.",
    "memory_pressed_meanwhile": "Possibly TCP memory: the kernel entered TCP memory pressure at the time; its use has "
    "dropped since.",
    "memory_short_between_readings": lambda facts: (
        "TCP memory keeps running short between readings that look calm. " + _drops(facts)
    ),
    "cgroup_limit": _cgroup_limit,
    "both_limits_hit": _both_limits_hit,
    "cause_undecided": _undecided,
    "memory_pressure_flag": _pressure_flag,
    "nothing_near_a_limit": _nothing,
}
