"""What to do about TCP memory at its limit, with the price of each step on this host.

tcp_mem is three numbers in pages (ip-sysctl): below the first all is well, above the second the kernel presses, above
the third it refuses. The memory cannot be swapped, so the third limit is never raised above a quarter of RAM. The
defaults are those of tcp_init() (net/ipv4/tcp.c) by era.
"""

from agent.core.advice.sysctl import change
from agent.core.facts import Facts
from agent.core.format import bytes_text, percent_text
from agent.core.kernel.release import Kernel
from agent.core.model import Advice, Evidence, Finding

_SHARE_OF_RAM = 4
_GAIN_PERCENT = 10
# Of RAM, for the second limit where the kernel's own is not known: the smallest part that there was.
_SMALLEST_PART = 16
_KEY = "net.ipv4.tcp_mem"
_USUAL_WMEM = 4 << 20
_TRIPLE = 3


def look_at_memory() -> Advice:
    """Advise how to see which sockets hold the memory."""
    return Advice(
        action="Find the sockets that hold the memory, in every network namespace.",
        why="A large Recv-Q means a program that does not read or accept; a large Send-Q a peer that does not read or "
        "is gone; CLOSE-WAIT with data a program that forgot to close. Containers have their own namespaces and "
        "share this limit.",
        risk="None: read-only.",
        commands=(
            "cat /proc/net/sockstat",
            "ss -tanp | sort -rnk2 | head -20   # largest Recv-Q",
            "ss -tanp | sort -rnk3 | head -20   # largest Send-Q",
            "ss -tanp state close-wait",
            "lsns -t net -o NS,PID,COMMAND",
            "nsenter -n -t PID ss -tanp   # PID: one of each namespace",
        ),
    )


def fix_holders(findings: tuple[Finding, ...]) -> Advice:
    """Advise what programs can do so that their sockets hold less."""
    slow = any(finding.claim == "memory_rose_slowly" for finding in findings)
    grew = "The memory grew slowly, like a leak: a higher limit only delays the next incident. "
    return Advice(
        action="Fix or restart the program that holds the memory.",
        why=(grew if slow else "If sockets leak, a higher limit only delays the next incident. ")
        + "Read and close promptly (an unread response holds its buffer), bound unsent data "
        "(TCP_NOTSENT_LOWAT, SO_SNDBUF), give up on dead peers (TCP_USER_TIMEOUT, keepalive).",
        risk="A restart drops that program's connections and frees the leaked ones at once.",
    )


def raise_cgroup_limit(failed: Evidence) -> Advice:
    """Advise where a cgroup's own limit is what was hit; raising tcp_mem would not help."""
    return Advice(
        action="Find the cgroup whose TCP limit was reached; raise that limit or fix its program.",
        why=f"TCP is far below tcp_mem, and cgroups refused {failed.value} charges: kernels 3.3 to 4.4 log the same "
        "message for memory.kmem.tcp.limit_in_bytes. Raising tcp_mem would change nothing.",
        risk="A higher limit lets this cgroup hold more unswappable memory.",
        commands=(
            "find /sys/fs/cgroup -name memory.kmem.tcp.failcnt -exec grep -H -v '^0$' {} +",
            "cat /sys/fs/cgroup/memory/GROUP/memory.kmem.tcp.max_usage_in_bytes   # GROUP: a path found above",
        ),
    )


def raise_tcp_mem(facts: Facts) -> Advice:
    """Advise to raise all three limits in proportion, within a quarter of RAM."""
    ram, limits = facts.ram_bytes, facts.limits
    page = facts.page_bytes
    if ram is None or limits is None or page is None or limits[2] <= 0:
        return _raise_without_numbers(limits)
    high, most = limits[2], ram // _SHARE_OF_RAM // page
    peak = (facts.memory.value or 0) // page
    target = min(2 * max(high, peak), most)
    if target * 100 < high * (100 + _GAIN_PERCENT):
        return _leave_limit(high * page, ram)
    raised = [max(value, min(value * target // high, target)) for value in limits]
    # The kernel does not check the order; nothing is lowered to fix it.
    proposed = (raised[0], max(raised[:2]), max(raised))
    extra = (proposed[2] - high) * page
    return change(
        _KEY,
        limits,
        proposed,
        action=f"Raise tcp_mem, all three in proportion, to {' '.join(map(str, proposed))} pages.",
        why=f"The last limit goes from {bytes_text(high * page)} to {bytes_text(proposed[2] * page)}, "
        f"{percent_text(proposed[2] * page, ram)} of RAM. The values are in pages of {page} bytes. First find "
        "what holds the memory: against a leak this only buys time. Success: mem stays below the last value.",
        risk=f"Sockets can take up to {bytes_text(extra)} more RAM, which cannot be swapped.",
        reason="room for TCP buffers, in pages.",
    )


def fix_byte_limits(facts: Facts) -> Advice | None:
    """Advise sane limits where tcp_mem allows more than the host has, as when bytes were written; else None.

    Also None where so much is in use that no limit fits between it and RAM: then its holders come first.
    """
    ram, limits, page = facts.ram_bytes, facts.limits, facts.page_bytes
    if not ram or limits is None or page is None or limits[2] * page <= ram:
        return None
    part, peak = facts.kernel.default_part_of_ram if facts.kernel else None, _highest_use(facts)
    usual = _limits_by(max(ram // (part or _SMALLEST_PART) // page, 128))
    # With the peak as the pressure limit, the last one is half as much again.
    proposed = max(usual, _limits_by(4 * -(-(peak or 0) // (4 * page))))
    if proposed[2] * page > ram:
        return None
    numbers, own = " ".join(map(str, proposed)), " ".join(map(str, usual))
    default = f" The kernel's own default for this host is about {own}." if part else ""
    used = f"the highest known use is {bytes_text(peak)}" if peak is not None else "current use is unknown"
    return change(
        _KEY,
        limits,
        proposed,
        action=f"Write tcp_mem in pages: {numbers}.",
        why=f"Its last value means {bytes_text(limits[2] * page)}, but the host has {bytes_text(ram)}: someone wrote "
        f"bytes, and the kernel counts pages of {page} bytes. RAM runs out before this limit stops TCP."
        f"{default}",
        risk=f"This sets a limit where there was effectively none: {bytes_text(proposed[2] * page)} for all TCP, "
        f"{percent_text(proposed[2] * page, ram)} of RAM; {used}. At that limit connections stall and data is "
        "dropped.",
        reason="the numbers are pages; before, the limit was above RAM.",
    )


def trim_buffers(facts: Facts) -> tuple[Advice, ...]:
    """Advise the usual ceilings for one socket's buffers where they were raised above them."""
    steps = []
    for name, usual in (("tcp_rmem", _usual_rmem(facts.kernel)), ("tcp_wmem", _USUAL_WMEM)):
        key = f"net.ipv4.{name}"
        current = facts.snapshot.sysctls.get(key)
        if usual is None or current is None or len(current) != _TRIPLE or current[2] <= usual or current[1] > usual:
            continue
        proposed = (current[0], current[1], usual)
        steps.append(
            change(
                key,
                current,
                proposed,
                action=f"Lower the ceiling of {name} from {bytes_text(current[2])} to {bytes_text(usual)} per socket.",
                why="It limits how far the kernel grows one socket's buffer. Grown buffers keep their size.",
                risk="Lower throughput for single connections over long, fast paths. It costs no memory.",
                reason="how far one TCP socket's buffer may grow, in bytes.",
            ),
        )
    return tuple(steps)


def _usual_rmem(kernel: Kernel | None) -> int | None:
    """Return how far a receive buffer may grow by default; None for the releases where the step was not read."""
    if kernel is None or (6, 14) < kernel.version[:2] < (6, 18):
        return None
    return 6 << 20 if kernel.version[:2] <= (6, 14) else 32 << 20


def _limits_by(pressure: int) -> tuple[int, int, int]:
    """Make the three limits from the second, in pages, as tcp_init() does."""
    low = pressure // 4 * 3
    return low, pressure, 2 * low


def _highest_use(facts: Facts) -> int | None:
    """Return the most bytes that TCP has been seen to hold, now or in the history of this boot."""
    past = [each.value for each in facts.memory.over_time(facts.samples)]
    known = (facts.memory.value, facts.memory.now, *past)
    return max((each for each in known if each is not None), default=None)


def _raise_without_numbers(limits: tuple[int, int, int] | None) -> Advice:
    known = "could not be read" if limits is None else f"is {' '.join(map(str, limits))} pages"
    return Advice(
        action="Raise tcp_mem only after finding what holds the memory, all three values in proportion.",
        why=f"tcp_mem {known}, and RAM, the limits or the page size is unknown here, so this cannot propose a value. "
        "The unit is pages, not bytes; keep the last value well below RAM.",
        risk="The memory cannot be swapped. Against a leak a higher limit only buys time.",
        commands=(f"sysctl {_KEY}", "grep MemTotal /proc/meminfo", "getconf PAGESIZE"),
    )


def _leave_limit(high_bytes: int, ram: int) -> Advice:
    return Advice(
        action="Leave tcp_mem as it is and fix what holds the memory.",
        why=f"It lets TCP take {bytes_text(high_bytes)}, {percent_text(high_bytes, ram)} of RAM, which cannot be "
        "swapped: more would starve everything else.",
        risk="None: it changes nothing. TCP keeps dropping data until its holders release memory.",
    )
