"""What to do, in the order to try it: who holds most and what stops it there, then the limits, then what else helps.

Each step says what it costs on this host. Nothing is lowered that is meant to be raised, and no time-wait setting is
offered: TIME_WAIT and CLOSE_WAIT are no orphans (Documentation/networking/ip-sysctl.rst, and net/ipv4/tcp.c).
"""

from collections.abc import Iterable
from itertools import zip_longest

from agent.core.advice.cgroup import relieve_group
from agent.core.advice.main_holder import find_main_holder, fix_main_holder
from agent.core.advice.memory import (
    fix_byte_limits,
    fix_holders,
    look_at_memory,
    raise_cgroup_limit,
    raise_tcp_mem,
    trim_buffers,
)
from agent.core.advice.orphans import (
    fix_closing_programs,
    look_at_orphans,
    raise_max_orphans,
    restore_fin_timeout,
    shorten_orphan_retries,
)
from agent.core.advice.sysctl import change
from agent.core.facts import Facts, first_of
from agent.core.model import Advice, Finding


def advise(facts: Facts, findings: tuple[Finding, ...]) -> tuple[Advice, ...]:
    """Return the steps for the verdict, which is the first finding, and then for what else was found."""
    cause, claims = findings[0].cause, {finding.claim for finding in findings}
    steps: list[Advice | None] = []
    if cause != "none" and "openvz_container_limit" in claims:
        steps.append(_look_at_container())
    if findings[0].claim == "cgroup_limit" and facts.starving_group:
        steps.append(relieve_group(facts.starving_group))
    elif cause in ("both", "tcp_memory") and "orphans_fill_memory" in claims:
        steps += _steps_for_one_root(facts, findings)
    elif cause == "orphans":
        steps += _orphan_steps(facts, findings, facts.orphans.limit)
        if claims & {"memory_at_limit", "memory_over_limit"}:
            steps += _memory_steps(facts, findings)
    elif cause == "tcp_memory":
        steps += _memory_steps(facts, findings)
    elif cause == "both":
        orphans = _orphan_steps(facts, findings, facts.orphans.limit)
        memory = _memory_steps(facts, findings)
        steps += [each for pair in zip_longest(orphans[:4], memory[:4]) for each in pair] + orphans[4:] + memory[4:]
    elif cause == "undetermined":
        steps += [_watch(facts), look_at_orphans(), look_at_memory()]
    steps += [fix_byte_limits(facts), _warn_of_recycle(facts)]
    return _once(steps)


def _orphan_steps(facts: Facts, findings: tuple[Finding, ...], limit: int | None) -> list[Advice | None]:
    main = find_main_holder(facts, "orphans", limit)
    return [
        fix_main_holder(main, findings) if main else None,
        look_at_orphans(),
        None if main else fix_closing_programs(),
        raise_max_orphans(facts),
        shorten_orphan_retries(facts),
        restore_fin_timeout(facts),
    ]


def _memory_steps(facts: Facts, findings: tuple[Finding, ...]) -> list[Advice | None]:
    main = find_main_holder(facts, "tcp_memory", facts.memory.limit)
    refused = [finding.evidence for finding in findings if finding.claim == "cgroup_limit"]
    failed = [each for evidence in refused for each in evidence if each.name == "memory.kmem.tcp.failcnt"]
    limit = raise_cgroup_limit(failed[0]) if failed else fix_byte_limits(facts) or raise_tcp_mem(facts)
    return [
        fix_main_holder(main, findings) if main else None,
        look_at_memory(),
        None if main else fix_holders(findings),
        limit,
        *trim_buffers(facts),
    ]


def _steps_for_one_root(facts: Facts, findings: tuple[Finding, ...]) -> list[Advice | None]:
    """Advise where unsent data of orphans fills the memory: their number and life come first.

    More room for orphans would only fill the memory faster, and is left out.
    """
    # Few of them may hold all: their limit is not what ran out.
    fix, look, generic, _, *shorter = _orphan_steps(facts, findings, limit=None)
    _, look_at_all, _, limit, *trim = _memory_steps(facts, findings)
    return [fix, look, generic, *shorter, *trim, look_at_all, limit]


def _look_at_container() -> Advice:
    return Advice(
        action="Check the limits of the OpenVZ container that the message names.",
        why="OpenVZ limits sockets and their buffers per container: numtcpsock, tcpsndbuf and tcprcvbuf. A risen "
        "failcnt means that this limit was reached, not one of the host's.",
        risk="None: read-only. A higher limit lets the container hold more unswappable memory.",
        commands=("grep -E 'uid|numtcpsock|tcpsndbuf|tcprcvbuf' /proc/user_beancounters",),
    )


def _watch(facts: Facts) -> Advice:
    old = facts.kernel is not None and facts.kernel.ambiguous_text
    newer = " Kernels from 3.3 on name the cause in the message." if old or not facts.named_causes else ""
    return Advice(
        action="Watch the gauges to catch the next occurrence.",
        why="This reading does not show which limit was reached: the moment had passed or was not recorded. The "
        f"service keeps readings from before and after each message.{newer}",
        risk="None: read-only.",
        commands=(
            "systemctl enable --now sockmem-agent",
            "while sleep 1; do date; grep TCP: /proc/net/sockstat; done",
            "sysctl net.ipv4.tcp_max_orphans net.ipv4.tcp_mem",
        ),
    )


def _warn_of_recycle(facts: Facts) -> Advice | None:
    key = "net.ipv4.tcp_tw_recycle"
    current = first_of(facts.snapshot, key)
    if not current:
        return None
    return change(
        key,
        current,
        0,
        action="Warning: turn tcp_tw_recycle off.",
        why="It is unrelated, but silently drops connections of clients behind NAT. Linux 4.12 removed it.",
        risk="None known; it costs almost no memory.",
        reason="drops connections of clients behind NAT.",
    )


def _once(steps: Iterable[Advice | None]) -> tuple[Advice, ...]:
    """Leave out what was said already, and what does not apply."""
    return tuple(dict.fromkeys(step for step in steps if step is not None))
