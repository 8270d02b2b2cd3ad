"""What to do about TCP memory at its limit, with the price of each step on this host.

tcp_mem is three numbers in pages (ip-sysctl): below the first all is well, above the second the kernel presses, above
the third it refuses. The memory cannot be swapped, so the third limit is raised within the budget of this host alone.
"""

from agent.core.advice.budget import Budget, free_ram, price_of_sockets
from agent.core.advice.namespaces import run_where
from agent.core.advice.options import socket_options
from agent.core.advice.sysctl import TCP_MEM, change, unless_raised, value_text
from agent.core.facts import Facts
from agent.core.format import bytes_text, count_text, percent_text
from agent.core.model import Advice, Finding

_GAIN_PERCENT = 10


def look_at_memory(facts: Facts) -> Advice:
    """Advise how to see which sockets hold the memory."""
    run = run_where(facts, "tcp_memory")
    return Advice(
        action="Find the sockets that hold the memory, in every network namespace.",
        why="A large Recv-Q means a program that does not read or accept; a large Send-Q a peer that does not read or "
        "is gone; CLOSE-WAIT with data a program that forgot to close. Containers have their own namespaces and "
        "share this limit.",
        risk="None: read-only.",
        commands=(
            "cat /proc/net/sockstat",
            f"{run('ss -tanp')} | sort -rnk2 | head -20   # largest Recv-Q",
            f"{run('ss -tanp')} | sort -rnk3 | head -20   # largest Send-Q",
            run("ss -tanp state close-wait"),
        ),
    )


def look_at_unlisted(facts: Facts) -> Advice:
    """Advise how to see sockets that no table has, by the descriptors of the programs that have them open."""
    pids = [each.process.pid for each in facts.sockets.unlisted]
    return Advice(
        action="Find the open sockets that no table lists, by their descriptors.",
        why="A socket that the peer has reset or closed is in no table, and keeps its data until its program reads or "
        "closes it. ss and netstat do not list it; the files below /proc/PID/fd do.",
        risk="None: read-only.",
        commands=(
            *(f"ls -l /proc/{pid}/fd | grep -c socket:" for pid in pids),
            "for fd in /proc/[0-9]*/fd; do echo $(ls -l $fd 2>/dev/null | grep -c socket:) $fd; done | sort -rn | head",
            "lsof -nP | grep 'protocol: TCP' | awk '{print $1, $2}' | sort | uniq -c | sort -rn | head",
        ),
    )


def fix_holders(facts: Facts, findings: tuple[Finding, ...], kept: str) -> Advice:
    """Advise what programs can do so that their sockets hold less; ``kept`` is how long orphans keep theirs."""
    slow = any(finding.claim == "memory_rose_slowly" for finding in findings)
    grew = "The memory grew slowly, like a leak: a higher limit only delays the next incident. "
    return Advice(
        action="Fix or restart the program that holds the memory.",
        why=(grew if slow else "If sockets leak, a higher limit only delays the next incident. ")
        + f"Read and close promptly (an unread response holds its buffer), {socket_options(facts)}.",
        risk="A restart drops that program's connections. What it has not read is freed at once; what its peers have "
        f"not read stays in orphans {kept}.",
    )


def raise_tcp_mem(facts: Facts, budget: Budget) -> Advice | None:
    """Advise to raise all three limits in proportion, to twice of what was reached, within the budget.

    None in a container, which has no limits.
    """
    limits, page = facts.limits, facts.page_bytes
    if facts.lacks_limits:
        return None
    if limits is not None and limits[2] <= 0 and (room := free_ram(facts, budget)):
        return room  # It would have been put back to its default.
    if limits is None or page is None or limits[2] <= 0 or budget.bytes is None or facts.memory.now is None:
        return _raise_without_numbers(limits, budget)
    high = limits[2]
    proposed = raised_to(facts, budget)
    if proposed is None or proposed[2] * 100 < high * (100 + _GAIN_PERCENT):
        is_full = facts.memory.is_high or budget.bytes == 0
        return (free_ram(facts, budget) if is_full else None) or _leave_limit(facts, budget)
    extra, price = (proposed[2] - high) * page, price_of_sockets(facts)
    return change(
        facts,
        TCP_MEM,
        limits,
        proposed,
        action=f"Raise tcp_mem, all three in proportion, to {value_text(proposed)} pages.",
        why=f"The last limit goes from {bytes_text(high * page)} to {bytes_text(proposed[2] * page)}, "
        f"{percent_text(proposed[2] * page, facts.ram_bytes or 0)} of {facts.ram_name}. The values are in pages of "
        f"{page} bytes. First find what holds the memory: against a leak this only buys time."
        f"{unless_raised(facts, facts.memory)} Success: mem stays below the last one.",
        risk=f"Sockets can take up to {bytes_text(extra)} more RAM, which cannot be swapped: "
        f"{count_text(extra // price.charged_bytes)} sockets {price.words}. {budget.sentence}",
        reason="room for TCP buffers, in pages.",
    )


def raised_to(facts: Facts, budget: Budget, wanted: int | None = None) -> tuple[int, int, int] | None:
    """Raise tcp_mem in proportion, its last value to twice of what was reached, or the ``wanted`` pages if fewer.

    At most to what the budget allows beyond what sockets hold; None where that is no more than today's.
    """
    limits, used, page = facts.limits, facts.memory.now, facts.page_bytes
    if limits is None or page is None or limits[2] <= 0 or budget.bytes is None or used is None:
        return None
    high = limits[2]
    most = (min(max(used, 0), high * page) + budget.bytes) // page
    target = min(2 * max(high, (facts.memory.value or 0) // page), most, most if wanted is None else wanted)
    if target <= high:
        return None
    low, pressure = (max(value, min(value * target // high, target)) for value in limits[:2])
    # The kernel does not check the order; nothing is lowered to fix it.
    return low, max(low, pressure), max(low, pressure, target)


def _raise_without_numbers(limits: tuple[int, int, int] | None, budget: Budget) -> Advice:
    known = "could not be read" if limits is None else f"is {value_text(limits)} pages"
    unknown = budget.why if budget.bytes is None else "the limits, their use or the page size could not be read"
    return Advice(
        action="Raise tcp_mem only after finding what holds the memory, all three values in proportion.",
        why=f"tcp_mem {known}, and {unknown}, so this cannot propose a value. The unit is pages, not bytes; keep the "
        "last value within what is available.",
        risk="The memory cannot be swapped. Against a leak a higher limit only buys time.",
        commands=(f"sysctl {TCP_MEM}", "grep -E 'MemTotal|MemAvailable' /proc/meminfo", "getconf PAGESIZE"),
    )


def _leave_limit(facts: Facts, budget: Budget) -> Advice:
    more = "" if facts.memory.is_high else " tcp_mem already allows more than there is RAM for."
    return Advice(
        action="Leave tcp_mem as it is and fix what holds the memory.",
        why=f"{budget.sentence}{more} Socket memory cannot be swapped: more would starve everything else.",
        risk="None: it changes nothing. TCP keeps dropping data until its holders release memory.",
    )
