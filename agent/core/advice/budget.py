"""How much more RAM sockets may take on this host, and what one of them costs here: no number is proposed beyond it.

Socket memory is neither swapped nor moved, so it has to fit into what is available now (MemAvailable of proc(5)). Huge
pages set aside and ZONE_MOVABLE are no room for it, and on 32 bit only low memory is.
"""

from typing import NamedTuple

from agent.core.facts import Facts
from agent.core.format import bytes_text, count_text
from agent.core.model import Advice
from agent.core.sockets.shares import add_up, only

# Below this part of RAM a host is short of it; the kernel's own reserves are part of what is not available.
_RESERVE_PERCENT = 5
# No default since 3.0 lets sockets take more than a fifth: nobody else can have what they hold.
_MOST_PERCENT = 25
# An average over fewer sockets says nothing about the next thousand.
_ENOUGH_TO_MEASURE = 300
_ASSUMED_BYTES = 16 << 10
# struct tcp_sock and what hangs on it, in slab and outside of mem: 2368 to 2496 bytes were measured.
_STRUCT_BYTES = 2560


class Budget(NamedTuple):
    """The bytes that sockets may take beyond those that they hold; None: not known. ``why``: in a clause.

    ``short``: RAM is what bounds it, and not the part of RAM that sockets may have at most.
    """

    bytes: int | None
    why: str
    short: bool = False

    @property
    def sentence(self) -> str:
        """Why, as a sentence."""
        return f"{self.why[:1].upper()}{self.why[1:]}."


class Price(NamedTuple):
    """What one socket is charged in tcp_mem, ``measured_on`` so many sockets of this host; None: assumed."""

    charged_bytes: int
    measured_on: int | None

    @property
    def ram_bytes(self) -> int:
        """What it takes of RAM, with what the kernel keeps about it outside of tcp_mem."""
        return self.charged_bytes + _STRUCT_BYTES

    @property
    def words(self) -> str:
        """The price and where it comes from."""
        how = f"measured here on {count_text(self.measured_on)}" if self.measured_on else "assumed"
        return f"at {bytes_text(self.charged_bytes)} a socket, {how}"

    def of(self, sockets: int) -> str:
        """Return what so many sockets take."""
        charged, beside = bytes_text(sockets * self.charged_bytes), bytes_text(sockets * _STRUCT_BYTES)
        return f"{charged} {self.words}, and {beside} for the sockets themselves"


def find_budget(facts: Facts) -> Budget:
    """Work out what is left: available RAM less a reserve, a quarter of RAM at most; nothing where tasks wait."""
    meminfo, ram = facts.snapshot.meminfo, facts.ram_bytes
    available, how = _available(meminfo)
    if ram is None or available is None:
        return Budget(None, "how much RAM is available could not be read")
    usable = max(ram - meminfo.get("Hugetlb", 0) - meminfo.get("MovableTotal", 0), 0)
    of_ram = f"of {bytes_text(usable)}" + (" that are not set aside" if usable < ram else "")
    for percent in facts.stalls.values():
        wait = f"tasks wait for memory {percent:g} % of the time"
        return Budget(0, f"{bytes_text(available)} {of_ram} are {how} and {wait}: RAM is what is short", short=True)
    reserve = usable * _RESERVE_PERCENT // 100
    if available <= reserve:
        return Budget(0, f"only {bytes_text(available)} {of_ram} are {how}: RAM is what is short", short=True)
    bound = usable * _MOST_PERCENT // 100 - (facts.memory.now or 0)
    if bound <= 0:
        return Budget(0, f"TCP holds {bytes_text(facts.memory.now or 0)} {of_ram} already, a quarter or more")
    left = min(available - reserve, bound)
    why = f"{bytes_text(available)} {of_ram} are {how}, and {bytes_text(left)} of that may go to sockets"
    return Budget(left, why, short=left < bound)


def find_price(facts: Facts) -> Price:
    """Return what a socket is charged on average, at least a page: at the orphans themselves where they are many."""
    orphans = add_up(facts.sockets, only("orphaned"))
    mem, alloc = facts.memory.now, facts.now.alloc or 0
    for size, sockets in ((orphans.bytes, orphans.sockets), (mem, alloc)):
        if size is not None and size >= 0 and sockets >= _ENOUGH_TO_MEASURE:
            return Price(max(facts.page_bytes or 0, -(-size // sockets)), sockets)
    return Price(max(facts.page_bytes or 0, _ASSUMED_BYTES), None)


def free_ram(budget: Budget) -> Advice:
    """Advise what makes room where the host has none: a higher limit would bring the OOM killer."""
    return Advice(
        action="Free RAM, and leave the limits as they are.",
        why=f"{budget.sentence} Socket memory cannot be swapped: a higher limit would bring the OOM killer. Stop or "
        "limit the largest processes, give back huge pages that are free, move work to another host; swap helps by "
        "what it takes out of RAM.",
        risk="What is stopped is gone. TCP keeps dropping data until RAM is free.",
        commands=(
            "grep -E 'MemTotal|MemFree|MemAvailable|LowFree|Huge|Slab|Shmem:' /proc/meminfo",
            "ps -eo rss,pid,comm --sort=-rss | head   # in KiB",
            "grep -H . /proc/pressure/memory   # tasks that wait for memory",
        ),
    )


def _available(meminfo: dict[str, int]) -> tuple[int | None, str]:
    """Return what is available to sockets; kernels before 3.14 do not say, and the estimate is on the low side."""
    available, how = meminfo.get("MemAvailable"), "available"
    if available is None and "MemFree" in meminfo:
        cache = meminfo.get("Active(file)", 0) + meminfo.get("Inactive(file)", 0)
        cache = cache or max(meminfo.get("Cached", 0) - meminfo.get("Shmem", 0), 0)
        available, how = meminfo["MemFree"] + cache // 2, "available (free memory and half of the file cache)"
    if available is None:
        return None, how
    if meminfo.get("HighTotal", 0) > 0 and meminfo.get("LowFree", available) < available:
        available, how = meminfo["LowFree"], "free in low memory, where sockets have to lie"
    return max(available - meminfo.get("MovableFree", 0), 0), how
