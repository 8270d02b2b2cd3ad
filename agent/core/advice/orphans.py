"""What to do about too many orphaned sockets, with the price of each step on this host.

An orphan is a socket that its program has closed and whose peer has not yet taken everything: FIN-WAIT-1, LAST-ACK,
CLOSING, and FIN-WAIT-2 only where tcp_fin_timeout is above 60 s. No program owns it any more. What one costs is
measured (mem / alloc of sockstat), never assumed: from a page to the whole of tcp_wmem[2].
"""

from typing import NamedTuple

from agent.core.advice.sysctl import change
from agent.core.facts import Facts, first_of
from agent.core.format import bytes_text, count_text, duration_text, percent_text
from agent.core.model import Advice
from agent.core.sockets.shares import add_up, only

# struct tcp_sock and what hangs on it, in slab and outside of mem: 2368 to 2496 bytes were measured.
_STRUCT_BYTES = 2560
_INT_MAX = 2**31 - 1
_ROUND = 1024
_FLOOR = 4096
_SHARE_OF_RAM = 4
_RETRIES_OF_ZERO = 8
_GOOD_RETRIES = 5
_RTO_SECONDS = 0.2
_RTO_MAX_SECONDS = 120.0
# The kernel doubles the first 200 ms with each retry, and stops doubling at 120 s.
_DOUBLINGS = 9
_FIN_SECONDS = 60
_ENOUGH_TO_MEASURE = 100
_KEY = "net.ipv4.tcp_max_orphans"


class Price(NamedTuple):
    """What orphans cost here: one as measured, one at worst, and what all of them together may take."""

    each_bytes: int
    worst_bytes: int | None
    budget_bytes: int
    budget_name: str


def look_at_orphans() -> Advice:
    """Advise how to see whom the orphans belong to."""
    return Advice(
        action="List the orphaned sockets and their peers while they exist.",
        why="Orphans belong to no program: only the local port and the peer's address show where they came from. "
        "FIN-WAIT-1 with a persist timer means a peer that stopped reading; with retransmits, or LAST-ACK, a peer "
        "that is gone or a firewall that drops the closing packets; all states at once a mass close (restart, "
        "deploy, load balancer).",
        risk="None: read-only.",
        commands=(
            "cat /proc/net/sockstat",
            "ss -tanoemi state fin-wait-1",
            "ss -tanoemi state last-ack",
            "ss -tanoemi state closing",
            "ss -tan state fin-wait-1 | awk 'NR>1 {sub(/:[^:]*$/, \"\", $4); print $4}' | sort | uniq -c | sort -rn",
        ),
    )


def fix_closing_programs() -> Advice:
    """Advise what programs can do so that fewer orphans come to be."""
    return Advice(
        action="Fix the program that closes connections before their data is delivered.",
        why="A limit only decides how many can pile up. In the program: bound unsent data (TCP_NOTSENT_LOWAT, a "
        "smaller SO_SNDBUF), give up on dead peers (TCP_USER_TIMEOUT), abort with SO_LINGER(1, 0) where the "
        "remaining data does not matter, close in small batches on a restart. In the network: let firewalls and "
        "connection tracking pass FIN and ACK of connections they no longer know.",
        risk="Requires changing and testing the program or the network; this host changes nothing.",
    )


def raise_max_orphans(facts: Facts) -> Advice:
    """Advise a limit of four times the peak, never below today's, and within a share of RAM."""
    current, price = facts.orphans.limit, _price(facts)
    if current is None or price is None:
        return _raise_without_numbers(current)
    proposed = _proposed_limit(facts, current, price)
    if proposed - current < max(_ROUND, current // 20) and proposed < _wanted(facts, current):
        return _leave_limit(current, price)
    peak = f"Orphans peaked at {count_text(_peak(facts))}" if _peak(facts) else "The peak is unknown"
    return change(
        _KEY,
        current,
        proposed,
        action=f"Raise tcp_max_orphans to {count_text(proposed)}.",
        why=f"{peak}; the kernel counts a stuck orphan up to four times, so a safe limit is four times the peak."
        + ("" if proposed >= _wanted(facts, current) else f" More would not fit into {price.budget_name}.")
        + " Success: TCPAbortOnMemory stops rising.",
        risk=_risk_of_raising(facts, current, proposed, price),
        reason="room for orphaned TCP sockets; the kernel counts a stuck one up to four times.",
    )


def shorten_orphan_retries(facts: Facts) -> Advice | None:
    """Advise a shorter life for orphans whose peer is dead; None where it is short already, or not known."""
    key = "net.ipv4.tcp_orphan_retries"
    current = first_of(facts.snapshot, key)
    retries = _RETRIES_OF_ZERO if current == 0 else current
    if current is None or retries is None or retries <= _GOOD_RETRIES:
        return None
    said = "0, which means 8," if current == 0 else str(current)
    now, then = (duration_text(orphan_life_seconds(each)) for each in (current, _GOOD_RETRIES))
    return change(
        key,
        current,
        _GOOD_RETRIES,
        action=f"Free orphans of dead peers sooner: lower tcp_orphan_retries from {current} to {_GOOD_RETRIES}.",
        why=f"At {said} an orphan whose peer is gone stays about {now}; at {_GOOD_RETRIES} about "
        f"{then}. This frees memory.",
        risk="May cut off replies to slow or lossy clients. No effect on peers that answer but do not read.",
        reason="frees orphaned TCP sockets of dead peers sooner (0 would mean 8 retries).",
    )


def restore_fin_timeout(facts: Facts) -> Advice | None:
    """Advise to take tcp_fin_timeout back to 60 s; None at 60 and below, where it has no part in orphans."""
    key = "net.ipv4.tcp_fin_timeout"
    current = first_of(facts.snapshot, key)
    if current is None or current <= _FIN_SECONDS:
        return None
    return change(
        key,
        current,
        _FIN_SECONDS,
        action=f"Set tcp_fin_timeout back from {current} to {_FIN_SECONDS}.",
        why=f"Above {_FIN_SECONDS} s a socket in FIN-WAIT-2 stays a full orphan for the time above "
        f"({current - _FIN_SECONDS} s here); at {_FIN_SECONDS} s it costs almost nothing. Lower gains nothing.",
        risk="Cuts off peers that take more than a minute to close their side.",
        reason="above 60 s, sockets in FIN-WAIT-2 count as orphans.",
    )


def orphan_life_seconds(retries: int) -> float:
    """Return how long an orphan lives whose peer is gone (tcp_orphan_retries() in net/ipv4/tcp_timer.c)."""
    count = _RETRIES_OF_ZERO if retries == 0 else max(retries, 0)
    doubled = min(count, _DOUBLINGS)
    return ((2 << doubled) - 1) * _RTO_SECONDS + (count - doubled) * _RTO_MAX_SECONDS


def measured_bytes(facts: Facts) -> int | None:
    """Return what an orphan of this host is charged on average, at least a page; None when it was not measured.

    Measured at the orphans themselves where a table of sockets has some; else at all sockets.
    """
    orphans = add_up(facts.snapshot.sockets, only("orphaned")) if facts.snapshot.sockets else None
    if orphans is not None and orphans.sockets >= _ENOUGH_TO_MEASURE:
        return max(facts.page_bytes or 0, -(-orphans.bytes // orphans.sockets))
    mem, alloc = facts.memory.now, facts.now.alloc
    if mem is None or mem < 0 or alloc is None or alloc <= 0:
        return None
    return max(facts.page_bytes or 0, -(-mem // alloc))


def _price(facts: Facts) -> Price | None:
    each = measured_bytes(facts)
    ram, limits = facts.ram_bytes, facts.limits_bytes
    worst = first_of(facts.snapshot, "net.ipv4.tcp_wmem", 2)
    if each is None:
        return None
    if ram is not None:
        return Price(each + _STRUCT_BYTES, worst, ram // _SHARE_OF_RAM, f"a quarter of RAM ({bytes_text(ram)})")
    # Without RAM known, the kernel's own limit on all TCP memory is a safe bound.
    if limits is not None and limits[2] > 0:
        return Price(each + _STRUCT_BYTES, worst, limits[2], f"tcp_mem ({bytes_text(limits[2])})")
    return None


def _peak(facts: Facts) -> int:
    """Return the highest orphan count where the limit was at work; a calm count says nothing of the peak."""
    return facts.orphans.value or 0 if facts.orphans.is_high else 0


def _wanted(facts: Facts, current: int) -> int:
    """Return four times the peak, or twice the limit where the peak was not seen."""
    target = 4 * _peak(facts) if _peak(facts) > 0 else 2 * current
    return max(_FLOOR if current <= 0 else _ROUND, -(-target // _ROUND) * _ROUND)


def _proposed_limit(facts: Facts, current: int, price: Price) -> int:
    most = price.budget_bytes // price.each_bytes // _ROUND * _ROUND
    return max(current, min(_wanted(facts, current), most, _INT_MAX))


def _risk_of_raising(facts: Facts, current: int, proposed: int, price: Price) -> str:
    extra = proposed - max(current, 0)
    text = (
        f"Unswappable memory: {count_text(extra)} more orphans take {bytes_text(extra * price.each_bytes)} "
        f"at {bytes_text(price.each_bytes)} per socket, as measured here"
    )
    limits = facts.limits_bytes
    bound = limits[2] if limits and limits[2] > 0 else None
    if price.worst_bytes is not None and price.worst_bytes > 0:
        worst = extra * price.worst_bytes
        most = "all that tcp_mem allows," if bound and bound < worst else bytes_text(worst)
        text += f"; at worst {most} with full send buffers of {bytes_text(price.worst_bytes)} each"
    if bound and proposed * (price.each_bytes - _STRUCT_BYTES) > bound:
        text += ". TCP memory runs out first: that many would exceed tcp_mem[2]"
    return text + "."


def _raise_without_numbers(current: int | None) -> Advice:
    known = "its value could not be read" if current is None else f"it is {count_text(current)}"
    return Advice(
        action="Compare tcp_max_orphans with the orphan count; never set it below its current value.",
        why=f"Today {known}, and the cost of a socket on this host is unknown, so this cannot propose a value. Four "
        "times the highest orphan count is safe: the kernel counts a stuck orphan up to four times.",
        risk="A value below the current one resets connections at once. Each orphan holds unswappable memory.",
        commands=(f"sysctl {_KEY}", "cat /proc/net/sockstat"),
    )


def _leave_limit(current: int, price: Price) -> Advice:
    return Advice(
        action=f"Leave tcp_max_orphans at {count_text(current)}: this host has no room for more.",
        why=f"At {bytes_text(price.each_bytes)} per socket, as measured here, {count_text(current)} orphans can take "
        f"{bytes_text(current * price.each_bytes)}, "
        f"{percent_text(current * price.each_bytes, price.budget_bytes) or 'all'} of {price.budget_name}.",
        risk="None: it changes nothing. The kernel keeps resetting connections until fewer orphans appear.",
    )
