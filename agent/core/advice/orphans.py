"""What to do about too many orphaned sockets, with the price of each step on this host.

An orphan is a socket that its program has closed and whose peer has not yet taken everything: FIN-WAIT-1, LAST-ACK,
CLOSING, and FIN-WAIT-2 only where tcp_fin_timeout is above 60 s. No program owns it any more. More of them than tcp_mem
holds would fill it, and turn resets into living connections that stall: the two limits are raised together.
"""

from collections import Counter
from itertools import count

from msgspec.structs import replace

from agent.core.advice.budget import Budget, Price, free_ram, price_of_orphans, room_for_orphans
from agent.core.advice.memory import raised_to
from agent.core.advice.namespaces import check_kills, run_where
from agent.core.advice.options import socket_options
from agent.core.advice.sysctl import (
    FIN_SECONDS,
    FIN_TIMEOUT,
    MAX_ORPHANS,
    TCP_MEM,
    change,
    tcp_mem_after,
    unless_raised,
    value_text,
)
from agent.core.facts import Facts
from agent.core.format import count_text
from agent.core.model import Advice

_INT_MAX = 2**31 - 1
_ROUND, _ROUND_FEW = 1024, 64
_RETRIES_OF_ZERO = 8
_GOOD_RETRIES = 5
# The first timeout on a quick network: TCP_RTO_MIN and a little.
_FIRST_RTO_SECONDS = 0.21
_RTO_MIN_SECONDS = 0.2
_RTO_MAX_SECONDS = 120.0
_ENDLESS_RETRIES = 100
_STATES = {"fin_wait1": "fin-wait-1", "fin_wait2": "fin-wait-2", "last_ack": "last-ack", "closing": "closing"}
_RETRIES = "net.ipv4.tcp_orphan_retries"
_TcpMem = tuple[int, int, int]


def look_at_orphans(facts: Facts) -> Advice:
    """Advise how to see whom the orphans belong to, in the network namespace that most of them are in."""
    run, seen = run_where(facts, "orphans"), orphan_states(facts)
    waiting = ("fin-wait-2",) if (facts.snapshot.sysctl(FIN_TIMEOUT) or 0) > FIN_SECONDS else ()
    states = dict.fromkeys(("fin-wait-1", "last-ack", "closing", *waiting, *seen))
    # Each namespace prints a line of names first.
    unseen, total = facts.unseen_orphans, facts.totals.orphans
    hidden, named = "", list[str]()
    if 2 * unseen > total:
        hidden = (
            f" {count_text(unseen)} of {count_text(total)} orphans are in network namespaces with no visible process: "
            "of containers that have ended (orphans outlive them), of names alone (ip netns), or of processes hidden "
            "from here (hidepid, a container without the host's PIDs)."
        )
        named = [f"ip -all netns exec ss -tanoe state {state}" for state in ("fin-wait-1", "last-ack")]
    peers = "awk '$1 ~ /^[0-9]/ {sub(/:[^:]*$/, \"\", $4); print $4}' | sort | uniq -c | sort -rn | head"
    return Advice(
        action="List the orphaned sockets and their peers while they exist.",
        why="Orphans belong to no program: only the local port and the peer's address show where they came from. "
        "FIN-WAIT-1 with a persist timer means a peer that stopped reading; with retransmits, or LAST-ACK, a peer "
        "that is gone or a firewall that drops the closing packets; all states at once a mass close (restart, "
        f"deploy, load balancer). ss and nstat show one network namespace.{hidden}",
        risk="None: read-only.",
        commands=(
            "cat /proc/net/sockstat",
            *(run(f"ss -tanoemi state {state}") for state in states),
            *named,
            f"{run(f'ss -tan state {next(iter(seen or states))}')} | {peers}",
            check_kills(run),
        ),
    )


def orphan_states(facts: Facts, port: int | None = None) -> list[str]:
    """List the states that orphans are in, or those of one service's port, most first, as ss(8) spells them."""
    sockets = Counter[str]()
    for group in facts.sockets.groups:
        if port in (None, group.port):
            sockets.update({_STATES[state]: each.sockets for state, each in group.orphaned.items() if state in _STATES})
    return [state for state, number in sockets.most_common() if number]


def fix_closing_programs(facts: Facts) -> Advice:
    """Advise what programs can do so that fewer orphans come to be."""
    return Advice(
        action="Fix the program that closes connections before their data is delivered.",
        why="A limit only decides how many can pile up. In the program: "
        f"{socket_options(facts)}, abort with SO_LINGER(1, 0) where the "
        "remaining data does not matter, close in small batches on a restart. In the network: let firewalls and "
        "connection tracking pass FIN and ACK of connections they no longer know.",
        risk="Requires changing and testing the program or the network; nothing changes on this host.",
    )


def raise_max_orphans(facts: Facts, budget: Budget, before: Advice | None) -> tuple[Advice, ...]:
    """Advise four times the peak, as far as tcp_mem holds it; else both limits in one step, within the budget.

    Twice the peak is enough where tcp_mem holds no more: every stuck orphan counts double. The limit caps the peak
    where stuck ones count more than once, so it is never less than twice the limit that is wanted.
    ``before`` is a step before, which sets tcp_mem. Nothing in a container, which has no limits.
    """
    if facts.lacks_limits:
        return ()
    current, page, price = facts.orphans.limit, facts.page_bytes, price_of_orphans(facts)
    limits = tcp_mem_after(facts, before)
    if current is None or limits is None or page is None or limits[2] <= 0:
        return (_raise_without_numbers(current),)
    wanted = _wanted(facts, current)
    others = (facts.memory.now or 0) - (facts.orphans.now or 0) * price.charged_bytes
    needed = wanted * price.charged_bytes + max(others, 0)
    raised = None if limits != facts.limits else raised_to(facts, budget, -(-needed // page))
    alone, together = (_most(facts, price, budget, each[2] * page) for each in (limits, raised or limits))
    enough = 2 * max(_peak(facts), current)
    new, memory = (together, raised) if alone < enough and together > alone else (alone, None)
    proposed = min(wanted, _rounded_down(new), _INT_MAX)
    if proposed <= current or (proposed < wanted and proposed - current < max(_ROUND_FEW, current // 20)):
        return (free_ram(facts, budget) or _leave_limit(facts, price, budget),)
    step = _raise(facts, price, budget, proposed, wanted)
    today = room_for_orphans(facts, price, (facts.limits_bytes or (0, 0, 0))[2])
    if memory is None and today < proposed:
        first = (
            f"Raise tcp_mem first: today's holds only {count_text(today)} of them, and living connections would stall."
        )
        return (replace(step, risk=f"{step.risk} {first}"),)
    if memory is None:
        return (step,)
    return _raise_both(facts, step, (limits, memory), (alone, proposed))


def shorten_orphan_retries(facts: Facts) -> Advice | None:
    """Advise a shorter life for orphans whose peer is gone; None where fewer retries are not shorter, or not known."""
    current = facts.snapshot.sysctl(_RETRIES)
    if current is None:
        return None
    now, then = (orphan_life_seconds(each, _rto_max(facts)) for each in (current, _GOOD_RETRIES))
    # An eighth is within what the round-trip time makes of it.
    if then > now * 7 / 8:
        return None
    said = "0, which means 8," if current == 0 else str(current)
    return change(
        facts,
        _RETRIES,
        current,
        _GOOD_RETRIES,
        action=f"Free orphans of dead peers sooner: set tcp_orphan_retries from {current} to {_GOOD_RETRIES}.",
        why=f"At {said} an orphan whose peer is gone stays about {now:.0f} s; at {_GOOD_RETRIES} about {then:.0f} s. "
        "This frees memory.",
        risk="May cut off replies to slow or lossy clients. No effect on peers that answer but do not read.",
        reason="frees orphaned TCP sockets of dead peers sooner (0 would mean 8 retries).",
    )


def orphan_life_seconds(retries: int, rto_max: float = _RTO_MAX_SECONDS) -> float:
    """Return how long an orphan lives whose peer is gone: tcp_write_timeout() of net/ipv4/tcp_timer.c, played through.

    0 retries mean 8 while the timeout is below its maximum, and none from then on.
    """
    at = rto = first = min(_FIRST_RTO_SECONDS, rto_max)
    for timeout in count():
        until = _RETRIES_OF_ZERO if retries == 0 and rto < rto_max else min(max(retries, 0), _ENDLESS_RETRIES)
        if timeout and at - first >= _model_timeout(until, rto_max):
            return at
        rto = min(2 * rto, rto_max)
        at += rto
    raise AssertionError


def stalled_life_seconds(retries: int, rto_max: float = _RTO_MAX_SECONDS) -> float:
    """Return how long an orphan lives whose peer answers and does not read: tcp_probe_timer(), from 3.19 on."""
    at, rto = 0.0, _FIRST_RTO_SECONDS
    for backoff in count():
        at += min(rto, rto_max)
        if rto >= rto_max and backoff >= min(retries, _ENDLESS_RETRIES):
            break
        rto = min(2 * rto, rto_max)
    return at


def life_text(facts: Facts) -> str:
    """Return how long orphans keep their memory here, as the end of a sentence.

    A peer that answers and does not read is given up from 3.19 on, and on RHEL 7.
    """
    current, kernel = facts.snapshot.sysctl(_RETRIES), facts.kernel
    lives = [("a peer that is gone", orphan_life_seconds)]
    if kernel is not None and (kernel.version >= (3, 19) or kernel.el == 7):  # noqa: PLR2004 - a release's name
        lives.append(("one that does not read", stalled_life_seconds))
    given_up = [
        peer + ("" if current is None else f" (about {seconds(current, _rto_max(facts)):.0f} s)")
        for peer, seconds in lives
    ]
    return f"until their peers read it, or the kernel gives up {' or '.join(given_up)}"


def _rto_max(facts: Facts) -> float:
    """Return how far the timeout may grow: a setting from 6.15 on."""
    longest = facts.snapshot.sysctl("net.ipv4.tcp_rto_max_ms")
    return longest / 1000 if longest and longest > 0 else _RTO_MAX_SECONDS


def _model_timeout(boundary: int, rto_max: float) -> float:
    """tcp_model_timeout(): the least timeout doubled with each retry, up to the most."""
    doubled = min(boundary, max(int(rto_max / _RTO_MIN_SECONDS), 1).bit_length() - 1)
    return ((2 << doubled) - 1) * _RTO_MIN_SECONDS + (boundary - doubled) * rto_max


def _peak(facts: Facts) -> int:
    """Return the highest orphan count where the limit was at work; a calm count says nothing of the peak."""
    return facts.orphans.value or 0 if facts.orphans.is_high else 0


def _wanted(facts: Facts, current: int) -> int:
    """Return four times the peak, and twice the limit at least: the peak was not seen, or penalties capped it."""
    return -(-max(4 * _peak(facts), 2 * current) // _ROUND) * _ROUND


def _rounded_down(number: int) -> int:
    step = _ROUND if number >= 10 * _ROUND else _ROUND_FEW
    return number // step * step


def _most(facts: Facts, price: Price, budget: Budget, high_bytes: int) -> int:
    """Return how many orphans fit into a tcp_mem of that size beside the other sockets, and into the budget."""
    room = room_for_orphans(facts, price, high_bytes)
    if budget.bytes is not None:
        room = min(room, min(facts.orphans.now or 0, facts.orphans.limit or 0) + budget.bytes // price.ram_bytes)
    return max(room, 0)


def _raise_both(
    facts: Facts, step: Advice, of_memory: tuple[_TcpMem, _TcpMem], of_orphans: tuple[int, int]
) -> tuple[Advice, Advice]:
    """Advise both limits by the command of tcp_mem's; each pair is what holds today, and what is proposed."""
    (tcp_mem, raised), (held, orphans) = of_memory, of_orphans
    both = change(
        facts,
        TCP_MEM,
        tcp_mem,
        raised,
        action=f"Raise tcp_mem to {value_text(raised)} pages, and tcp_max_orphans with it to {count_text(orphans)}.",
        why=f"{step.why} Today's tcp_mem holds only {count_text(held)} of them.",
        risk=f"{step.risk} Raised alone, tcp_max_orphans would let orphans fill tcp_mem, and living connections stall.",
        reason="room for orphaned TCP sockets, tcp_mem in pages.",
        also={MAX_ORPHANS: orphans},
    )
    action = f"{step.action[:-1]} together with tcp_mem, by the command of the step above."
    part = replace(step, action=action, risk=both.risk, commands=(), persist=None)
    return replace(both, persist=f"{both.persist}{step.persist}"), part


def _raise(facts: Facts, price: Price, budget: Budget, proposed: int, wanted: int) -> Advice:
    current, peak = facts.orphans.limit or 0, _peak(facts)
    seen = f"Orphans peaked at {count_text(peak)}" if peak else "The peak is unknown"
    safe = "so a safe limit is four times the peak."
    if 2 * current > 4 * peak > 0:
        safe = "and capped the peak by that: twice today's limit is the least that helps."
    less = "" if proposed >= wanted else f" This host has no room for that many ({count_text(wanted)})."
    extra = proposed - min(max(current, 0), facts.orphans.now or 0)
    return change(
        facts,
        MAX_ORPHANS,
        current,
        proposed,
        action=f"Raise tcp_max_orphans to {count_text(proposed)}.",
        # Who reads this in an old report may have a higher one by now.
        why=f"{seen} (limit {count_text(current)}); the kernel counts a stuck orphan up to four times, {safe}{less}"
        f"{unless_raised(facts, facts.orphans)} Success: TCPAbortOnMemory stops rising.",
        risk=f"Unswappable memory: {count_text(extra)} more orphans than now take {price.of(extra)}. {budget.sentence}",
        reason="room for orphaned TCP sockets; the kernel counts a stuck one up to four times.",
    )


def _raise_without_numbers(current: int | None) -> Advice:
    known = "its value could not be read" if current is None else f"it is {count_text(current)}"
    return Advice(
        action="Compare tcp_max_orphans with the orphan count; never set it below its current value.",
        why=f"Today {known}, and what tcp_mem holds is unknown, so this cannot propose a value. Four times the highest "
        "orphan count is safe where tcp_mem holds that many: the kernel counts a stuck orphan up to four times.",
        risk="A value below the current one resets connections at once. Each orphan holds unswappable memory.",
        commands=(f"sysctl {MAX_ORPHANS} {TCP_MEM}", "cat /proc/net/sockstat"),
    )


def _leave_limit(facts: Facts, price: Price, budget: Budget) -> Advice:
    current = facts.orphans.limit or 0
    held = count_text(room_for_orphans(facts, price, (facts.limits_bytes or (0, 0, 0))[2]))
    return Advice(
        action=f"Leave tcp_max_orphans at {count_text(current)}: this host has no room for more.",
        why=f"{budget.sentence} Today's tcp_mem holds {held} orphans {price.words}.",
        risk="None: it changes nothing. The kernel keeps resetting connections until fewer orphans appear.",
    )
