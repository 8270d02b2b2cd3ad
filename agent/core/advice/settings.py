"""What to do about a wrong setting, before anything else: the kernel's own default is put back.

That default is what the kernel has chosen for this RAM (core.kernel.limits.default_limits) when nobody used it yet. A
tcp_mem that was lowered is put back as far as there is room in the RAM that is available now: socket memory cannot be
swapped. A limit of orphans costs nothing until it is used, and then tcp_mem bounds what they hold; where they were
measured, it has to hold them all. A limit is lowered here alone, where it never was one.
"""

from collections.abc import Set as AbstractSet

from agent.core.advice.budget import Budget, Price, price_of_orphans, room_for_orphans
from agent.core.advice.memory import look_at_memory
from agent.core.advice.namespaces import check_kills, run_where
from agent.core.advice.sysctl import (
    FIN_SECONDS,
    FIN_TIMEOUT,
    MAX_ORPHANS,
    TCP_MEM,
    change,
    find_setter,
    tcp_mem_after,
    value_text,
)
from agent.core.facts import Facts
from agent.core.format import bytes_text, count_text
from agent.core.kernel.limits import limits_by, modest_limits
from agent.core.model import Advice

# Half a hash of 8,192 slots: what a host of 1 GiB gets, where nothing says what this one would.
_LEAST_ORPHANS = 4096
_LITTLE = 10
# The least that tcp_init() gives itself for the second limit.
_LEAST_PAGES = 128
# From here on FIN-WAIT-2 keeps an orphan for longer than the kernel's minute for the socket itself.
_LONG_FIN_SECONDS = 2 * FIN_SECONDS
# A limit that is hardly higher, by less than a tenth, is not worth a change.
_GAIN = 10
_DEFAULT, _SMALLEST = "back to this kernel's default", "to a sixteenth of RAM and around"
_AS_FAR = "as close to its default as available RAM allows"
_ABOVE_RAM = (
    "tcp_mem allows more than this host's {ram}: its numbers are from another host, in another unit, or meant as "
    "unlimited"
)
_MISTAKES = {
    "tcp_mem_holds_buffer_sizes": "tcp_mem holds the bytes of a socket buffer, as tcp_rmem or tcp_wmem has them",
    "tcp_mem_above_ram": _ABOVE_RAM,
    "tcp_mem_out_of_order": "tcp_mem holds its numbers in the wrong order",
}


def restore_tcp_mem(facts: Facts, claims: AbstractSet[str], budget: Budget) -> Advice | None:
    """Advise tcp_mem's default where other numbers were pasted into it, or it allows only a small part of that."""
    mistake = next((text for claim, text in _MISTAKES.items() if claim in claims), None)
    limits, page = facts.limits, facts.page_bytes
    if limits is None or (mistake is None and "tcp_mem_below_default" not in claims):
        return None
    numbers, known = _tcp_mem_to_write(facts, budget, is_pasted=mistake is not None)
    if numbers is None or page is None or (mistake == _ABOVE_RAM and _may_be_meant(facts)):
        return _find_setter_of_tcp_mem(facts, mistake, budget) if mistake else None
    mistake = mistake and mistake.format(ram=facts.ram_name)
    high, used, usual = numbers[2] * page, facts.memory.now or 0, facts.usual_tcp_mem or numbers
    kernel = "this kernel" if usual == facts.defaults.tcp_mem else "a newer kernel"
    allowed, signed = bytes_text(max(limits[2], 0) * page), ""
    if min(limits) < 0:
        signed = " To the kernel a number from 2^63 on is negative: it allows nothing, not everything."
    was = (
        f"{mistake}; it counts pages of {page} bytes. Pressure begins at {bytes_text(limits[1] * page)}, "
        f"ends below {bytes_text(limits[0] * page)}, and nothing is refused below "
        f"{allowed}."
        if mistake
        else f"It allows {allowed}, far below the {bytes_text(usual[2] * page)} that {kernel} "
        f"would give itself at this RAM. The values are in pages of {page} bytes."
    )
    return change(
        facts,
        TCP_MEM,
        limits,
        numbers,
        action=f"Set tcp_mem {known}: {value_text(numbers)} pages.",
        why=f"{was}{signed} Success: mem stays below the last value.",
        risk=f"TCP may take {bytes_text(high)}, and holds {bytes_text(used)} now: unswappable. Above that connections "
        f"stall. {budget.sentence}",
        reason=f"the numbers are pages, and fit this host's {facts.ram_name}.",
        checks=(find_setter(TCP_MEM), "grep TCP: /proc/net/sockstat   # mem stays below the last value"),
    )


def restore_max_orphans(
    facts: Facts, claims: AbstractSet[str], budget: Budget, put_back: Advice | None = None
) -> Advice | None:
    """Advise tcp_max_orphans' default where it is far below that, or where it has a number of tcp_mem.

    ``put_back`` is the step before, which sets tcp_mem.
    """
    limit, default = facts.orphans.limit, facts.defaults.tcp_max_orphans
    if limit is None or not claims & {"orphan_limit_below_default", "orphan_limit_holds_pages"}:
        return None
    pasted = "orphan_limit_holds_pages" in claims and "orphan_limit_below_default" not in claims
    # Fewer than there are would reset connections at once; and a limit that the kernel has reached is none too high.
    was_reached = facts.killed_silently or set(facts.lines) - {"tcp_memory"}
    most = max(facts.orphans.value or 0, facts.orphans.now or 0)
    if pasted and (default is None or was_reached or 4 * most > default):
        return None
    price, limits, page = price_of_orphans(facts), tcp_mem_after(facts, put_back), facts.page_bytes
    high = limits[2] * page if limits and page else None
    held = None if high is None else room_for_orphans(facts, price, high)
    proposed, known = _orphans_to_write(default, price, None if pasted else high, held if limit <= 0 else 0)
    if not proposed:
        return None
    bound = "" if high is None else f", and tcp_mem keeps all TCP data below {bytes_text(high)}"
    if held is not None and held < proposed:
        bound = f", and today's tcp_mem holds about {count_text(held)} of them: with more, living connections stall"
    return change(
        facts,
        MAX_ORPHANS,
        limit,
        proposed,
        action=f"Set tcp_max_orphans back to {known}, {count_text(proposed)}: it is {count_text(limit)}.",
        why=_why_orphans(limit, pasted=pasted) + " Success: TCPAbortOnMemory stops rising.",
        risk=f"{count_text(proposed)} orphans would take {price.of(proposed)}{bound}. This is not checked against the "
        f"RAM available now: {budget.why}.",
        reason=f"{known}.",
        checks=(find_setter(MAX_ORPHANS), check_kills(run_where(facts, "orphans"))),
    )


def restore_fin_timeout(facts: Facts) -> Advice | None:
    """Advise to take tcp_fin_timeout back to 60 s; None at 60 and below, where it has no part in orphans."""
    current = facts.snapshot.sysctl(FIN_TIMEOUT)
    if current is None or current <= FIN_SECONDS:
        return None
    return change(
        facts,
        FIN_TIMEOUT,
        current,
        FIN_SECONDS,
        action=f"Set tcp_fin_timeout back from {current} to {FIN_SECONDS}.",
        why=f"Above {FIN_SECONDS} s a socket in FIN-WAIT-2 stays a full orphan for the time above "
        f"({current - FIN_SECONDS} s here); at {FIN_SECONDS} s it costs almost nothing. Lower gains nothing.",
        risk="Cuts off peers that take more than a minute to close their side.",
        reason="above 60 s, sockets in FIN-WAIT-2 count as orphans.",
    )


def may_be_fin_timeout(facts: Facts) -> bool:
    """Return whether tcp_fin_timeout may be what made most orphans: it is far above 60 s, and none of them was seen."""
    is_long = (facts.snapshot.sysctl(FIN_TIMEOUT) or 0) > _LONG_FIN_SECONDS
    return is_long and not any(group.orphans for group in facts.sockets.groups)


def warn_of_recycle(facts: Facts) -> Advice | None:
    """Advise to switch tcp_tw_recycle off where it is on."""
    key = "net.ipv4.tcp_tw_recycle"
    current = facts.snapshot.sysctl(key)
    if not current:
        return None
    return change(
        facts,
        key,
        current,
        0,
        action="Warning: turn tcp_tw_recycle off.",
        why="It is unrelated, but silently drops connections of clients behind NAT. Linux 4.12 removed it.",
        risk="None known; it costs almost no memory.",
        reason="drops connections of clients behind NAT.",
    )


def _tcp_mem_to_write(facts: Facts, budget: Budget, *, is_pasted: bool) -> tuple[tuple[int, int, int] | None, str]:
    """Return the default, or the smallest there was for this RAM where that is not known or too much, and which it is.

    More than today's is bounded by the budget; None where that is hardly more, or too little for a kernel. Where pasted
    numbers would be followed by some that stall what TCP holds, three numbers above it: within the budget, or a little
    above it and not above those of today. None where there is no room for that.
    """
    page, used, default = facts.page_bytes, facts.memory.now or 0, facts.usual_tcp_mem
    known = _DEFAULT if default == facts.defaults.tcp_mem else _SMALLEST
    if default is None and page and facts.ram_bytes:
        default, known = modest_limits(facts.ram_bytes, page), _SMALLEST
    if default is None or page is None or facts.limits is None:
        return default, known
    held, today, numbers = used // page, facts.limits[2], default
    spare = budget.bytes if budget.unstalled is None else budget.unstalled
    most = default[2] if spare is None else max(today, held + spare // page)
    if default[2] > most:
        numbers, known = limits_by(most * 2 // 3), _AS_FAR
    if not is_pasted:
        is_more = _GAIN * numbers[2] > (_GAIN + 1) * max(today, held) and numbers[1] >= _LEAST_PAGES
        return numbers if is_more else None, known
    if 10 * used <= 9 * numbers[2] * page and numbers[1] >= _LEAST_PAGES:
        return numbers, known
    room = max(min(held, (budget.bytes or 0) // page), min(held // _LITTLE, today - held))
    above = held + room // 4, held + room // 2, held + room
    why = "which the default would stall" if numbers == default else "since there is no RAM for the default"
    return above if room >= held // _LITTLE else None, f"above what TCP holds now, {why}"


def _orphans_to_write(default: int | None, price: Price, high_bytes: int | None, held: int | None) -> tuple[int, str]:
    """Return the default of tcp_max_orphans, or ``held`` where the default, at the measured size, would fill tcp_mem.

    That is for a limit of 0, which is a mistake; 0 for others, which are raised with care.
    """
    number, known = (default, "this kernel's default") if default else (_LEAST_ORPHANS, "at least the smallest default")
    if high_bytes is None or price.is_assumed or number * price.charged_bytes <= high_bytes:
        return number, known
    return held or 0, "as many as tcp_mem holds"


def _may_be_meant(facts: Facts) -> bool:
    """Return whether numbers above RAM may be no mistake: memory is calm, and they are no default in bytes or KiB."""
    limits, default, page = facts.limits, facts.defaults.tcp_mem, facts.page_bytes
    if facts.memory.is_high or "tcp_memory" in facts.lines or limits is None:
        return False
    if not limits[0] < limits[1] < limits[2]:
        return True
    sizes = [limits[1], limits[1] * 1024]
    return not any(default and page and default[1] * page <= 3 * size <= 9 * default[1] * page for size in sizes)


def _why_orphans(limit: int, *, pasted: bool) -> str:
    if pasted:
        return "It has a number of tcp_mem, which are pages; this one counts sockets."
    if limit < 0:
        return "Any number of orphans exceeds it: it was written by mistake. Peers and programs are not the cause."
    if limit == 0:
        return (
            "No orphan is allowed. A script may have set it to 0 to flush FIN-WAIT-1 and not set it back; peers "
            "and programs are not the cause."
        )
    return (
        "It is far below what this kernel would give itself at this RAM, so that ordinary closing connections reach "
        "it. A peak that it cut off shows nothing of the real demand."
    )


def _find_setter_of_tcp_mem(facts: Facts, mistake: str, budget: Budget) -> Advice:
    return Advice(
        action="Find what set tcp_mem: its numbers are not for this host.",
        why=f"{mistake.format(ram=facts.ram_name)}. TCP holds {bytes_text(facts.memory.now or 0)}. "
        f"{budget.sentence} Every boot works the default "
        "out anew: remove what sets it, and restart the host when you can.",
        risk="None: read-only. A limit below what TCP holds drops data and stalls connections at once: find the "
        "holders first.",
        commands=(find_setter(TCP_MEM), *look_at_memory(facts).commands[:3], "grep MemTotal /proc/meminfo"),
    )
