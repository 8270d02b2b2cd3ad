"""What to do, in the order to try it: a wrong setting, then who holds most and what stops it there, then the limits.

What is not the cause is not named before it: a limit that is far below the kernel's own default is put back first, and
where nobody in particular holds what it limits, nothing else follows. Each step says what it costs on this host. No
time-wait setting is offered: TIME_WAIT and CLOSE_WAIT are no orphans (Documentation/networking/ip-sysctl.rst,
net/ipv4/tcp.c).
"""

from collections.abc import Iterable
from itertools import zip_longest
from typing import NamedTuple

from agent.core.advice.budget import Budget, find_budget, free_ram, price_of_orphans
from agent.core.advice.cgroup import raise_cgroup_limit, relieve_group
from agent.core.advice.main_holder import MainHolders, fix_main_holder, fix_main_victim
from agent.core.advice.memory import fix_holders, look_at_memory, look_at_unlisted, raise_tcp_mem
from agent.core.advice.namespaces import obey_our_settings
from agent.core.advice.orphans import (
    fix_closing_programs,
    life_text,
    look_at_orphans,
    raise_max_orphans,
    shorten_orphan_retries,
)
from agent.core.advice.settings import (
    may_be_fin_timeout,
    restore_fin_timeout,
    restore_max_orphans,
    restore_tcp_mem,
    warn_of_recycle,
)
from agent.core.facts import Facts
from agent.core.kernel.limits import is_far_below
from agent.core.model import Advice, Cause, Finding, GaugeName
from agent.core.sockets.shares import add_up, only

# Wrong on any host, and told whatever the verdict.
_PASTED = frozenset(
    {"tcp_mem_holds_buffer_sizes", "tcp_mem_above_ram", "tcp_mem_out_of_order", "orphan_limit_holds_pages"}
)
# Wrong whether or not the line is genuine; the verdict's own steps put these back.
_LOWERED = {
    "tcp_mem_below_default": "net.ipv4.tcp_mem",
    "orphan_limit_below_default": "net.ipv4.tcp_max_orphans",
}
# As many are no few that a low limit alone made a trouble of.
_THOUSANDS = 1000


class _Known(NamedTuple):
    """What every step may ask."""

    facts: Facts
    findings: tuple[Finding, ...]
    claims: frozenset[str]
    budget: Budget
    main: MainHolders

    def fix_main(self, gauge: GaugeName) -> Advice | None:
        """Advise what stops the main holder of a gauge; None where there is none."""
        main = self.main.get(gauge)
        return fix_main_holder(self.facts, main, self.findings) if main else None


class _Steps(NamedTuple):
    """The steps for one gauge; whatever does not apply is None."""

    settings: list[Advice | None]
    holders: list[Advice | None]
    capacity: list[Advice | None]


def advise(facts: Facts, findings: tuple[Finding, ...], main: MainHolders) -> tuple[Advice, ...]:
    """Return the steps for the verdict, which is the first finding, and then for what else was found."""
    cause, claims = findings[0].cause, frozenset(finding.claim for finding in findings)
    known = _Known(facts, findings, claims, find_budget(facts), main)
    memory = restore_tcp_mem(facts, claims & _PASTED, known.budget)
    pasted = memory, restore_max_orphans(facts, claims & _PASTED, known.budget, memory)
    container = _look_at_container() if "openvz_container_limit" in claims else None
    steps = [container, *_steps_for(known, cause)]
    unconfirmed = facts.killed_in_sight == 0 and (facts.kills == 0 or (facts.lacks_ipv6 and facts.limits_known))
    if facts.is_past or (facts.lines and not facts.high and (unconfirmed or facts.is_alien)):
        # Only the line speaks for a change, and no counter confirms it, it is long past, or another kernel wrote it.
        wrong = {key for claim, key in _LOWERED.items() if claim in claims and not facts.is_past}
        steps = [step for step in steps if step is None or step.sysctl is None or step.sysctl.key in wrong]
    is_trouble = cause != "none" or "memory_pressure_flag" in claims
    on_host = _look_on_host() if facts.lacks_limits and is_trouble else None
    unread = _find_message() if facts.killed_silently and not facts.follows_log else None
    return _once([on_host, *pasted, unread, *steps, warn_of_recycle(facts)])


def _steps_for(known: _Known, cause: Cause) -> list[Advice | None]:
    facts, claims = known.facts, known.claims
    if cause == "undetermined":
        put_back = restore_max_orphans(facts, claims, known.budget)
        watch = None if facts.lacks_limits else _watch(facts)
        return [put_back, fix_main_victim(facts), watch, look_at_orphans(facts), look_at_memory(facts)]
    if cause == "none":
        is_short = "host_ram_short" in claims or {"memory_pressure_flag", "host_stalls_for_memory"} <= claims
        return [free_ram(facts, known.budget)] if is_short else []
    if known.findings[0].claim == "cgroup_limit" and facts.starving_group:
        return [relieve_group(facts.starving_group)]
    if cause != "orphans" and "orphans_fill_memory" in claims:
        return _steps_for_one_root(known)
    memory = _memory_steps(known) if cause != "orphans" or claims & {"memory_at_limit", "memory_over_limit"} else None
    short = [_orphan_steps(known, memory)] if cause != "tcp_memory" else []
    short += [memory] if memory else []
    if facts.is_alien and not facts.high:
        # Another kernel ran short: nothing says that this one needs more room.
        short = [steps._replace(capacity=[]) for steps in short]
    # With two causes their steps take turns, within each kind.
    return [step for kind in zip(*short, strict=True) for turn in zip_longest(*kind) for step in turn]


def _orphan_steps(known: _Known, memory: _Steps | None) -> _Steps:
    """Advise what brings orphans down; beside the steps for ``memory``, tcp_mem is raised by those alone."""
    facts, put_back = known.facts, restore_tcp_mem(known.facts, known.claims, known.budget)
    limits, default = facts.limits, facts.usual_tcp_mem
    is_lowered = limits is not None and default is not None and is_far_below(limits[2], default[2])
    # What it allows again has to find a tcp_mem that was not lowered either, or living connections stall.
    claims = known.claims | ({"tcp_mem_below_default"} if is_lowered else set())
    before = restore_tcp_mem(facts, claims, known.budget)
    restored = restore_max_orphans(facts, known.claims, known.budget, before)
    main = known.fix_main("orphans")
    culprit = main or fix_main_victim(facts)
    holders = [culprit, look_at_orphans(facts), None if culprit else fix_closing_programs(facts)]
    shorter, closing = _shorter_lives(known)
    if restored:
        if not main and not _are_many(facts) and not facts.is_past:
            return _Steps([before, restored], [], [closing])
        return _Steps([before, restored], holders, [free_ram(facts, known.budget), shorter, closing])
    raised = memory.capacity[0] if memory else None
    higher = raise_max_orphans(facts, known.budget, put_back or raised)
    # What waits in FIN-WAIT-2 waits for nothing else.
    waiting = add_up(facts.sockets, only("orphaned", state="fin_wait2")).sockets
    alone = 2 * waiting > add_up(facts.sockets, only("orphaned")).sockets
    first = closing if may_be_fin_timeout(facts) else None
    return _Steps([put_back, closing if alone else None], holders, [first, *higher, shorter, closing])


def _are_many(facts: Facts) -> bool:
    """Return whether orphans are a problem of their own, however low their limit is: thousands, or much of tcp_mem."""
    count, usual = facts.orphans.value or 0, facts.usual_tcp_mem or facts.limits
    held = count * price_of_orphans(facts).charged_bytes
    return count >= _THOUSANDS or (usual is not None and 4 * held >= usual[2] * (facts.page_bytes or 0) > 0)


def _shorter_lives(known: _Known) -> tuple[Advice | None, Advice | None]:
    """Advise what frees orphans sooner; other network namespaces may have settings of their own, not read here."""
    if not obey_our_settings(known.facts):
        return None, None
    # A peer that answers and does not read is not given up sooner.
    answers = "orphans_wait_for_stalled_peers" in known.claims
    return None if answers else shorten_orphan_retries(known.facts), restore_fin_timeout(known.facts)


def _memory_steps(known: _Known) -> _Steps:
    facts, claims = known.facts, known.claims
    restored = restore_tcp_mem(facts, claims, known.budget)
    main = known.fix_main("tcp_memory")
    culprit = main or fix_main_victim(facts)
    failed = [each for found in known.findings for each in found.evidence if each.name == "memory.kmem.tcp.failcnt"]
    room = free_ram(facts, known.budget) if restored else raise_tcp_mem(facts, known.budget)
    limit = raise_cgroup_limit(failed[0]) if failed else room
    is_unlisted = "sockets_in_no_table" in claims
    # Where that is not known, they may be in another network namespace.
    is_listed = not is_unlisted or not facts.sockets.complete
    holders = [
        look_at_unlisted(facts) if is_unlisted else None,
        culprit,
        look_at_memory(facts) if is_listed else None,
        None if culprit else fix_holders(facts, known.findings, life_text(facts)),
    ]
    is_whole = restored is not None and restored.sysctl is not None and restored.sysctl.proposed == facts.usual_tcp_mem
    alone = is_whole and "tcp_mem_below_default" in claims and main is None and not facts.is_past
    return _Steps([restored], [] if alone else holders, [limit])


def _steps_for_one_root(known: _Known) -> list[Advice | None]:
    """Advise where unsent data of orphans fills the memory: their number and life come first.

    More room for orphans would only fill the memory faster, and is left out.
    """
    facts, memory = known.facts, _memory_steps(known)
    main = known.fix_main("orphans") or fix_main_victim(facts)
    return [
        *memory.settings,
        main,
        look_at_orphans(facts),
        None if main else fix_closing_programs(facts),
        *_shorter_lives(known),
        look_at_memory(facts),
        *memory.capacity,
    ]


def _look_on_host() -> Advice:
    return Advice(
        action="Run sockmem-agent diagnose on the host: this is a container's network namespace.",
        why="Neither limit can be read or changed here, and ss and nstat show only this container. orphan and mem of "
        "/proc/net/sockstat count the whole host: its other containers may be the cause.",
        risk="None: read-only.",
        commands=(
            "sockmem-agent diagnose   # on the host",
            "cat /proc/net/sockstat /proc/sys/net/ipv4/tcp_max_orphans /proc/sys/net/ipv4/tcp_mem   # on the host",
        ),
    )


def _find_message() -> Advice:
    return Advice(
        action="Find the kernel's message: from kernel 3.3 on it names the limit that was reached.",
        why="The counters show resets, and not why. Run sockmem-agent diagnose again with the line as --message.",
        risk="None: read-only.",
        commands=("sockmem-agent scan --journal --since 1h   # or the log file in place of --journal",),
    )


def _look_at_container() -> Advice:
    return Advice(
        action="Check the limits of the OpenVZ container that the message names.",
        why="OpenVZ limits sockets and their buffers per container: numtcpsock, tcpsndbuf and tcprcvbuf. A risen "
        "failcnt means that this limit was reached, not one of the host's.",
        risk="None: read-only. A higher limit lets the container hold more unswappable memory.",
        commands=("grep -E 'uid|numtcpsock|tcpsndbuf|tcprcvbuf' /proc/user_beancounters",),
    )


def _watch(facts: Facts) -> Advice:
    kernel = facts.kernel
    old = kernel is not None and kernel.ambiguous_text
    is_unnamed = bool(facts.lines) and not facts.named_causes
    newer = " Kernels from 3.3 on name the cause in the message." if old or is_unnamed else ""
    return Advice(
        action="Watch the gauges to catch the next occurrence.",
        why="This reading does not show which limit was reached: the moment had passed or was not recorded. The "
        f"service keeps readings from before and after each message.{newer}",
        risk="None: read-only.",
        commands=(
            # Hosts of that time have no systemd, and the service that says this runs.
            *(
                []
                if facts.follows_log or (kernel and kernel.has_old_tools)
                else ["systemctl enable --now sockmem-agent"]
            ),
            "for second in $(seq 60); do date; grep TCP: /proc/net/sockstat; sleep 1; done",
            "sysctl net.ipv4.tcp_max_orphans net.ipv4.tcp_mem",
        ),
    )


def _once(steps: Iterable[Advice | None]) -> tuple[Advice, ...]:
    """Leave out what was said already, a second number for the same setting, and what does not apply."""
    kept: dict[str | Advice, Advice] = {}
    for step in steps:
        if step is not None:
            kept.setdefault(step.sysctl.key if step.sysctl else step, step)
    return tuple(kept.values())
