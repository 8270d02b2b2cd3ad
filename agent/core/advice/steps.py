"""What to do, in the order to try it: who holds most and what stops it there, then the limits, then what else helps.

Each step says what it costs on this host. Nothing is lowered that is meant to be raised, and no time-wait setting is
offered: TIME_WAIT and CLOSE_WAIT are no orphans (Documentation/networking/ip-sysctl.rst, and net/ipv4/tcp.c).
"""

from collections.abc import Iterable
from itertools import zip_longest

from agent.core.advice.main_holder import find_culprit, mend_culprit
from agent.core.advice.memory import (
    look_at_memory,
    mend_byte_limits,
    mend_holders,
    raise_cgroup_limit,
    raise_tcp_mem,
    trim_buffers,
)
from agent.core.advice.orphans import (
    look_at_orphans,
    mend_closing_programs,
    raise_max_orphans,
    restore_fin_timeout,
    shorten_orphan_retries,
)
from agent.core.advice.sysctl import change
from agent.core.facts import Case, first_of
from agent.core.model import Advice, Finding


def advise(case: Case, findings: tuple[Finding, ...]) -> tuple[Advice, ...]:
    """Give the steps for the verdict, which is the first finding, and then for what else was found."""
    cause, claims = findings[0].cause, {finding.claim for finding in findings}
    steps: list[Advice | None] = []
    if cause != "none" and "openvz_container_limit" in claims:
        steps.append(_look_at_container())
    if cause in ("both", "tcp_memory") and "orphans_fill_memory" in claims:
        steps += _steps_for_one_root(case, findings)
    elif cause == "orphans":
        steps += _orphan_steps(case, findings)
        if claims & {"memory_at_limit", "memory_over_limit"}:
            steps += _memory_steps(case, findings)
    elif cause == "tcp_memory":
        steps += _memory_steps(case, findings)
    elif cause == "both":
        orphans, memory = _orphan_steps(case, findings), _memory_steps(case, findings)
        steps += [each for pair in zip_longest(orphans[:4], memory[:4]) for each in pair] + orphans[4:] + memory[4:]
    elif cause == "undetermined":
        steps += [_watch(case), look_at_orphans(), look_at_memory()]
    steps += [mend_byte_limits(case), _warn_of_recycle(case)]
    return _once(steps)


def _orphan_steps(case: Case, findings: tuple[Finding, ...]) -> list[Advice | None]:
    culprit = find_culprit(case, "orphans")
    return [
        mend_culprit(culprit, findings) if culprit else None,
        look_at_orphans(),
        None if culprit else mend_closing_programs(),
        raise_max_orphans(case),
        shorten_orphan_retries(case),
        restore_fin_timeout(case),
    ]


def _memory_steps(case: Case, findings: tuple[Finding, ...]) -> list[Advice | None]:
    culprit = find_culprit(case, "tcp_memory")
    refused = [finding.evidence for finding in findings if finding.claim == "cgroup_limit"]
    failed = [each for evidence in refused for each in evidence if each.name == "memory.kmem.tcp.failcnt"]
    limit = raise_cgroup_limit(failed[0]) if failed else mend_byte_limits(case) or raise_tcp_mem(case)
    return [
        mend_culprit(culprit, findings) if culprit else None,
        look_at_memory(),
        None if culprit else mend_holders(findings),
        limit,
        *trim_buffers(case),
    ]


def _steps_for_one_root(case: Case, findings: tuple[Finding, ...]) -> list[Advice | None]:
    """Advise where unsent data of orphans fills the memory: their number and life come first.

    More room for orphans would only fill the memory faster, and is left out.
    """
    mend, look, generic, _, *shorter = _orphan_steps(case, findings)
    _, look_at_all, _, limit, *trim = _memory_steps(case, findings)
    return [mend, look, generic, *shorter, *trim, look_at_all, limit]


def _look_at_container() -> Advice:
    return Advice(
        action="Look at the limits of the OpenVZ container that the line names.",
        why="OpenVZ counts sockets and their buffers for each container: numtcpsock, tcpsndbuf and tcprcvbuf. Where "
        "failcnt has risen, that limit was hit, and the limits of the host are not what was short.",
        risk="None, it only reads. A higher limit lets the container hold more memory that cannot be swapped.",
        commands=("grep -E 'uid|numtcpsock|tcpsndbuf|tcprcvbuf' /proc/user_beancounters",),
    )


def _watch(case: Case) -> Advice:
    old = case.kernel is not None and case.kernel.ambiguous_text
    newer = " Kernels from 3.3 on name the cause in the message itself." if old or not case.named else ""
    return Advice(
        action="Watch the gauges, so that the next time is seen while it lasts.",
        why="The reading at hand does not show which limit was hit: the moment had passed or was not recorded. The "
        f"service keeps readings from before and after each message.{newer}",
        risk="None, it only reads.",
        commands=(
            "systemctl enable --now sockmem-agent",
            "while sleep 1; do date; grep TCP: /proc/net/sockstat; done",
            "sysctl net.ipv4.tcp_max_orphans net.ipv4.tcp_mem",
        ),
    )


def _warn_of_recycle(case: Case) -> Advice | None:
    key = "net.ipv4.tcp_tw_recycle"
    current = first_of(case.snapshot, key)
    if not current:
        return None
    return change(
        key,
        current,
        0,
        action="Warning: switch tcp_tw_recycle off.",
        why="It has no part in this, and silently drops connections of clients behind NAT. Linux 4.12 has removed it.",
        risk="None that is known; it costs no memory to speak of.",
        reason="drops connections of clients behind NAT.",
    )


def _once(steps: Iterable[Advice | None]) -> tuple[Advice, ...]:
    """Leave out what was said already, and what does not apply."""
    return tuple(dict.fromkeys(step for step in steps if step is not None))
