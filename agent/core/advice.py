"""What to do, in the order to try it: see who it is, mend that, then the limits, then what else helps.

Each step says what it costs on this host. Nothing is lowered that is meant to be raised, and no time-wait setting is
offered: TIME_WAIT and CLOSE_WAIT are no orphans (Documentation/networking/ip-sysctl.rst, and net/ipv4/tcp.c).
"""

from collections.abc import Iterable

from agent.core.advice_memory import (
    look_at_memory,
    mend_byte_limits,
    mend_holders,
    raise_cgroup_limit,
    raise_tcp_mem,
    trim_buffers,
)
from agent.core.advice_orphans import (
    look_at_orphans,
    mend_closing_programs,
    raise_max_orphans,
    restore_fin_timeout,
    shorten_orphan_retries,
)
from agent.core.advice_sysctl import change
from agent.core.case import Case, first_of
from agent.core.model import Advice, Finding


def advise(case: Case, findings: tuple[Finding, ...]) -> tuple[Advice, ...]:
    """Give the steps for the verdict, which is the first finding, and then for what else was found."""
    cause = findings[0].cause
    steps: list[Advice | None] = []
    if cause == "orphans":
        steps += _orphan_steps(case)
        if any(finding.claim in ("memory_at_limit", "memory_over_limit") for finding in findings):
            steps += _memory_steps(case, findings)
    elif cause == "tcp_memory":
        steps += _memory_steps(case, findings)
    elif cause == "both":
        steps += _steps_for_both(case, findings)
    elif cause == "undetermined":
        steps += [_watch(case), look_at_orphans(), look_at_memory()]
    steps += [mend_byte_limits(case), _warn_of_recycle(case)]
    return _once(steps)


def _orphan_steps(case: Case) -> list[Advice | None]:
    return [
        look_at_orphans(),
        mend_closing_programs(),
        raise_max_orphans(case),
        shorten_orphan_retries(case),
        restore_fin_timeout(case),
    ]


def _memory_steps(case: Case, findings: tuple[Finding, ...]) -> list[Advice | None]:
    refused = [finding.evidence for finding in findings if finding.claim == "cgroup_limit"]
    failed = [each for evidence in refused for each in evidence if each.name == "memory.kmem.tcp.failcnt"]
    limit = raise_cgroup_limit(failed[0]) if failed else mend_byte_limits(case) or raise_tcp_mem(case)
    return [look_at_memory(), mend_holders(findings), limit, *trim_buffers(case)]


def _steps_for_both(case: Case, findings: tuple[Finding, ...]) -> list[Advice | None]:
    orphans, memory = _orphan_steps(case), _memory_steps(case, findings)
    if not any(finding.claim == "orphans_fill_memory" for finding in findings):
        return [orphans[0], memory[0], orphans[1], memory[1], orphans[2], memory[2], *orphans[3:], *memory[3:]]
    # One root: unsent data of orphans fills the memory. Their number and life come first; more room for orphans would
    # only fill the memory faster, and is left out.
    return [*orphans[:2], *orphans[3:], *memory[3:], memory[0], memory[2]]


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
