"""How much more RAM sockets may take on this host, and what one of them costs here: no number is proposed beyond it.

Socket memory is neither swapped nor moved, so it has to fit into what is available now (MemAvailable of proc(5)). Huge
pages set aside, ZONE_MOVABLE and what is kept for CMA are no room for it, and on 32 bit only low memory is.
"""

from typing import NamedTuple

from msgspec.structs import replace

from agent.core.facts import STALL_PERCENT, Facts
from agent.core.format import bytes_text, count_text
from agent.core.kernel.limits import MOST_PERCENT, is_much, reserve_bytes
from agent.core.model import Advice
from agent.core.sockets.cgroup_names import text_of_group
from agent.core.sockets.shares import add_up, only

# An average over fewer sockets says nothing about the next thousand.
_ENOUGH_TO_MEASURE = 300
_ASSUMED_BYTES = 16 << 10
# A sum that may be off by more than a quarter is no measurement.
_EXACT = 4
# struct tcp_sock and what hangs on it, in slab and outside of mem: 2368 to 2496 bytes were measured.
_STRUCT_BYTES = 2560
# Those that wait most come first.
_STALLED_GROUPS = (
    "find /sys/fs/cgroup -name memory.pressure -exec grep -Hs ^some {} + | sort -t= -k2 -rn | head   # tasks that wait"
)


class Budget(NamedTuple):
    """The bytes that sockets may take beyond those that they hold; None: not known. ``why``: in a clause.

    ``short``: RAM is what bounds it, and not the part of RAM that sockets may have at most; or that part would be more
    without huge pages that nobody uses. ``unstalled``: what it is but for tasks that wait for memory; ``may_be_group``:
    much is available, and they may as well wait in a control group at a limit of its own.
    """

    bytes: int | None
    why: str
    short: bool = False
    unstalled: int | None = None
    may_be_group: bool = False

    @property
    def sentence(self) -> str:
        """Why, as a sentence."""
        return f"{self.why[:1].upper()}{self.why[1:]}."


class Price(NamedTuple):
    """What one socket is charged in tcp_mem, and ``how`` that is known."""

    charged_bytes: int
    how: str

    @property
    def is_assumed(self) -> bool:
        """Whether it was not measured here."""
        return self.how == "assumed"

    @property
    def ram_bytes(self) -> int:
        """What it takes of RAM, with what the kernel keeps about it outside of tcp_mem."""
        return self.charged_bytes + _STRUCT_BYTES

    @property
    def words(self) -> str:
        """The price and where it comes from."""
        return f"at {bytes_text(self.charged_bytes)} a socket, {self.how}"

    def of(self, sockets: int) -> str:
        """Return what this many sockets take, in words."""
        charged, beside = bytes_text(sockets * self.charged_bytes), bytes_text(sockets * _STRUCT_BYTES)
        return f"{charged} {self.words}, and {beside} for the sockets themselves"


def find_budget(facts: Facts) -> Budget:
    """Return available RAM less a reserve, at most a quarter of RAM, and nothing where tasks wait for memory."""
    meminfo, ram = facts.snapshot.meminfo, facts.ram_bytes
    available, how = _available(meminfo)
    if ram is None or available is None:
        return Budget(None, "how much RAM is available could not be read")
    usable = max(ram - sum(meminfo.get(kept, 0) for kept in ("Hugetlb", "MovableTotal", "CmaTotal")), 0)
    if not usable:
        return Budget(0, "all of RAM is set aside", short=bool(meminfo.get("HugePages_Free")))
    of_ram = f"of {bytes_text(usable)}" + (" that are not set aside" if usable < ram else "")
    reserve = reserve_bytes(usable)
    bound = usable * MOST_PERCENT // 100 - (facts.memory.now or 0)
    left = max(min(available - reserve, bound), 0)
    for percent in facts.stalls.values():
        # The host's PSI counts tasks of control groups, too (psi_memstall_enter() of try_to_free_mem_cgroup_pages()).
        may_be_group = is_much(available, usable)
        wait = f"tasks wait for memory {percent:g} % of the time"
        said = f"{bytes_text(available)} {of_ram} are {how}"
        why = f"{said} and {wait}: RAM is what is short"
        if may_be_group:
            why = f"{said}, but {wait}: RAM is short, or a control group is at its own limit"
        return Budget(0, why, short=True, unstalled=left, may_be_group=may_be_group)
    if available <= reserve:
        return Budget(0, f"only {bytes_text(available)} {of_ram} are {how}: RAM is what is short", short=True)
    if bound <= 0:
        held = f"TCP holds {bytes_text(facts.memory.now or 0)} {of_ram} already, a quarter or more"
        return Budget(0, held, short=bool(meminfo.get("HugePages_Free")))
    why = f"{bytes_text(available)} {of_ram} are {how}, and {bytes_text(left)} of that may go to sockets"
    return Budget(left, why, short=left < bound)


def price_of_sockets(facts: Facts) -> Price:
    """Return what a socket is charged on average, where what each CPU may keep back makes little of the sum."""
    size, sockets, error = facts.memory.now, facts.now.alloc or 0, facts.inexact_bytes
    if size is not None and 0 <= size < _EXACT * error and sockets >= _ENOUGH_TO_MEASURE:
        bound = -(-(size + error) // sockets)
        return Price(max(_least(facts), min(bound, _ASSUMED_BYTES)), "assumed")
    return _price(facts, size, sockets)


def price_of_orphans(facts: Facts) -> Price:
    """Return what an orphan is charged: by the table, or as all sockets are where most of them are orphans.

    Where only what is queued could be read, the table does not show what is charged.
    """
    queued = {each.number for each in facts.sockets.namespaces if each.queues_only}
    charged = tuple(group for group in facts.sockets.groups if group.namespace not in queued)
    seen = add_up(replace(facts.sockets, groups=charged), only("orphaned"))
    orphans = facts.orphans.now or 0
    if seen.bytes is not None and seen.sockets >= _ENOUGH_TO_MEASURE:
        return _price(facts, seen.bytes, seen.sockets)
    if orphans >= _ENOUGH_TO_MEASURE and 2 * orphans >= (facts.now.alloc or 0):
        return price_of_sockets(facts)
    # They never took more than all that TCP held.
    most, peak = facts.memory.value, facts.orphans.value or 0
    bound = (
        (max(most, 0) + facts.inexact_bytes) // peak
        if most is not None and peak >= _ENOUGH_TO_MEASURE
        else _ASSUMED_BYTES
    )
    return Price(max(_least(facts), min(bound, _ASSUMED_BYTES)), "assumed")


def room_for_orphans(facts: Facts, price: Price, high_bytes: int) -> int:
    """Return how many orphans fit into a tcp_mem of that size beside the other sockets of today."""
    others = max((facts.memory.now or 0) - (facts.orphans.now or 0) * price.charged_bytes, 0)
    return max(high_bytes - others, 0) // price.charged_bytes


def free_ram(facts: Facts, budget: Budget) -> Advice | None:
    """Advise what makes room where RAM is short: a higher limit would bring the OOM killer. None where it is not."""
    if not budget.short:
        return None
    huge = facts.snapshot.meminfo.get("HugePages_Free", 0)
    unused = f"give back the {bytes_text(huge)} of huge pages that are free (vm.nr_hugepages), " if huge else ""
    action, which, risk = "Free RAM before you raise a limit further.", "", ""
    if budget.may_be_group:
        action = "Find out what waits for memory before you raise a limit further."
        which = _stalled_group(facts) + (
            "The first command lists the groups that stall most; the innermost of them is the cause (cgroup v1 only "
            "counts, in memory.failcnt, how often a group hit its limit). Raise its memory limit or reduce its work; "
            "once it no longer stalls, the TCP limit may be raised. If no group with a limit stalls, RAM is short. "
        )
        risk = "A higher limit lets a group take more of the host's memory. "
    return Advice(
        action=action,
        why=f"{budget.sentence} {which}Socket memory cannot be swapped: a higher limit would bring the OOM killer. To "
        f"free RAM, {unused}stop or limit the largest processes, or move work to another host; swap helps by what it "
        "takes out of RAM.",
        risk=f"{risk}A process that is stopped loses its work. Nothing changes for TCP until RAM is free.",
        commands=(
            *([_STALLED_GROUPS] if budget.may_be_group else []),
            "grep -E 'MemTotal|MemFree|MemAvailable|LowFree|Huge|Slab|Shmem:' /proc/meminfo",
            "ps -eo rss,pid,comm --sort=-rss | head   # in KiB",
            *(["grep -H . /proc/pressure/memory   # tasks that wait for memory"] if facts.snapshot.pressure else []),
        ),
    )


def _stalled_group(facts: Facts) -> str:
    """Return which group that has sockets waits most at its own limit, as a sentence; "" where none is seen to."""
    waits = {group: group.stalled_percent or 0 for group in facts.sockets.full_groups}
    most = max(waits, key=lambda group: waits[group], default=None)
    if most is None or waits[most] < STALL_PERCENT["memory some"]:
        return ""
    return (
        f"{text_of_group(most)} is at its own limit and waits for memory {waits[most]:g} % of the time: start there. "
    )


def _price(facts: Facts, size: int | None, sockets: int) -> Price:
    """Return the average, where it is one of enough sockets."""
    least = _least(facts)
    if size is None or size < 0 or sockets < _ENOUGH_TO_MEASURE:
        return Price(max(least, _ASSUMED_BYTES), "assumed")
    each = -(-size // sockets)
    if each < least:
        return Price(least, "one page" if least == facts.page_bytes else "the least")
    return Price(max(each, 1), f"measured here on {count_text(sockets)}")


def _least(facts: Facts) -> int:
    """Return what each socket is charged at least: a page; on 4.10 to 5.19 4096 bytes, whatever a page is."""
    return facts.memory.sample_unit or facts.page_bytes or 0


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
    return max(available - meminfo.get("MovableFree", 0) - meminfo.get("CmaFree", 0), 0), how
