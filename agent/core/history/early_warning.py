"""Early warning from the sampled gauges: most starvation prints nothing.

Theory of operation
-------------------
A full tcp_mem on the receive side drops data without a line (net/core/sock.c, __sk_mem_raise_allocated), and the
orphan test is silent until it kills. So the gauges are held against the thresholds that mean something to the kernel:

    level  mem                                  orphan
    3      95 % of tcp_mem[2]: at the limit     half of tcp_max_orphans: sockets of stuck peers are reset
    2      tcp_mem[1]: pressure                 a quarter: sockets of stuck and unreachable peers are reset
    1      grows so that the limit is reached within the hour

A level is entered when two samples in a row show it, and left with hysteresis: mem as the kernel leaves its own
pressure, below tcp_mem[0]; orphans below four fifths of the threshold; growth when two hours are left.

Memory can be short between two samples and look calm in both, in one cgroup alone, or because allocations fail. Then
the counters and the kernel's own flag tell, over ten seconds each:

    3      100 segments were refused although their sockets' buffers had room (core.kernel.limits.refused_segments)
    2      TCP entered memory pressure five times
    2      the pressure flag is up

    2      a control group with sockets is at its own memory limit, most of it socket memory (seen by the survey)

The first three are entered when two intervals in a row show it, or one shows ten times as much, and left after a quiet
minute.

Where the kernel's trace is read, it tells each time that a living socket is refused memory (sock_exceed_buf_limit), and
what TCP had allocated then. Three of the ways to suppress_allocation (__sk_mem_raise_allocated, net/core/sock.c) tell
them apart; a full receive buffer is none of them:

    3      10 refusals, allocated above tcp_mem[2]: every socket is refused
    2      10 refusals, allocated above tcp_mem[0]: under pressure, sockets above the average are
    2      100 refusals, allocated below it: a control group is at a limit of its own

One interval is enough, since these are refusals and not signs of them; they, too, are left after a quiet minute.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import islice, pairwise
from statistics import linear_regression, median
from typing import NamedTuple

from agent.core.format import count_text
from agent.core.kernel.limits import AT_LIMIT_PERCENT, counter_deltas, refused_segments
from agent.core.model import GaugeName, Pressure, Sample
from agent.core.readings import FullGroup
from agent.core.sockets.cgroup_names import text_of_group

ORPHAN_LEAVE = 0.8
GROWTH_WINDOW = timedelta(minutes=10)
GROWTH_SAMPLES = 30
# Growth is worth a word only from here on: below, the limit is far and the reading of mem inexact.
GROWTH_FROM = 0.10
GROWTH_STEP = 0.02
HOUR = 3600.0
# Of samples closer together, as those of a storm are, a rate means nothing; clock ticks come a little early or late.
INTERVAL_SECONDS = 10.0
_SHORTEST = timedelta(seconds=0.9 * INTERVAL_SECONDS)
QUIET_INTERVALS = 6
REFUSALS_UNIT = "refusals in 10 s"
REFUSALS_LOOK_BACK = timedelta(seconds=(QUIET_INTERVALS + 1) * INTERVAL_SECONDS)


class _Watched(NamedTuple):
    """One gauge over time against its limit; thresholds by level, and below which value each is left."""

    name: GaugeName
    values: list[float]
    times: list[datetime]
    limit: float
    enter: dict[int, float]
    leave: dict[int, float]


class _Signal(NamedTuple):
    """What starving TCP shows between two samples; ``threshold`` is for ten seconds."""

    level: int
    claim: str
    threshold: int
    unit: str
    at_once: int


class Refused(NamedTuple):
    """How often living sockets were refused memory, as read ``at`` once.

    ``allocated`` counts as sockstat's mem does; None where not known.
    """

    at: datetime
    times: int
    allocated: int | None = None
    limits: tuple[int, int, int] | None = None


# A refused segment comes again after 200 ms at the soonest: of ten a second, two connections stand still at any moment.
# A healthy host refuses none; what slow readers cause is not counted.
_DROPPED = _Signal(
    3, "the kernel is dropping received TCP data for lack of socket memory", 100, "refused segments in 10 s", 1000
)
# Each entry means that memory rose past tcp_mem[1], or an allocation failed, and fell below tcp_mem[0] since the last
# one. A load that its limits suit does neither; a single burst does it once or twice.
_ENTRIES = _Signal(2, "TCP keeps running into memory pressure", 5, "entries in 10 s", 50)
# One sample may meet a pressure of milliseconds. While it lasts, windows are clamped, whatever mem says.
_FLAG = _Signal(2, "the kernel's TCP memory-pressure flag stays up", 1, "", 10)


# A writer that is refused tries again ten times a second (sk_stream_wait_memory), what was sent to a refused receiver
# comes five times in ten seconds: fewer refusals are a stall that nobody notices.
_AT_LIMIT = _Signal(3, "the kernel refuses memory to open TCP connections", 10, REFUSALS_UNIT, 10)
_ABOVE_AVERAGE = _Signal(
    2, "under memory pressure the kernel refuses memory to open TCP connections", 10, REFUSALS_UNIT, 10
)
# What TCP as a whole has is no trouble then, and a group that lives at its limit is often meant to.
_OF_A_GROUP = _Signal(2, "a control group's memory limit stalls its TCP connections", 100, REFUSALS_UNIT, 100)

_CLAIMS: dict[tuple[GaugeName, int], str] = {
    ("tcp_memory", 3): "TCP memory is at its limit",
    ("tcp_memory", 2): "TCP memory is above its pressure threshold",
    ("tcp_memory", 1): "TCP memory is growing and will reach its limit within an hour",
    ("orphans", 3): "orphaned sockets are above half of their limit",
    ("orphans", 2): "orphaned sockets are above a quarter of their limit",
    ("orphans", 1): "orphaned sockets are growing and will reach their limit within an hour",
}


def assess(
    samples: Sequence[Sample],
    before: Pressure | None,
    pages_per_unit: float | None = 1.0,
    groups: Sequence[FullGroup] = (),
    refused: Sequence[Refused] = (),
) -> Pressure | None:
    """Return the worst warning that the samples (oldest first, of one boot) call for, None when all is well.

    ``before`` is what the last call said. ``pages_per_unit`` is how many pages one unit of ``mem`` is: less than 1 on
    4.10 to 5.19 with pages larger than 4096 bytes, None where that is not known: then memory warns of nothing.
    ``groups`` are the cgroups at their own limits, most of it socket memory, as the last survey saw them; ``refused``
    is what the kernel's trace told.
    """
    if not samples:
        return None
    recent = [s for s in samples if s.boot_id == samples[-1].boot_id]
    found = [
        Pressure(
            level=level,
            cause=gauge.name,
            claim=_CLAIMS[gauge.name, level],
            value=round(gauge.values[-1]),
            limit=round(gauge.enter.get(level, gauge.limit)),
        )
        for gauge in _watched(recent, pages_per_unit)
        if (level := _level(gauge, recent[-1].at, before))
    ]
    found += [*_starvation(recent, before), *_full_groups(groups)]
    found += find_refusals(refused, samples[-1].at, samples[-1].tcp_mem, pages_per_unit, before)
    return max(found, key=lambda pressure: pressure.level, default=None)


def _starvation(samples: Sequence[Sample], before: Pressure | None) -> list[Pressure]:
    """Find what the counters and the pressure flag show."""
    points = _spaced(samples)
    moved = [_moved(older, newer) for newer, older in pairwise(points)]
    shown = (
        (_DROPPED, [refused_segments(each) for each in moved]),
        (_ENTRIES, [each.get("TCPMemoryPressures", 0) for each in moved]),
        (_FLAG, [int(each.press is True) for each in points]),
    )
    return [
        Pressure(
            level=signal.level,
            cause="tcp_memory",
            claim=signal.claim,
            value=values[0],
            limit=signal.threshold,
            unit=signal.unit,
        )
        for signal, values in shown
        if _is_on(signal, values, held=before is not None and before.claim == signal.claim)
    ]


def find_refusals(
    refused: Sequence[Refused],
    now: datetime,
    tcp_mem: tuple[int, int, int] | None,
    pages_per_unit: float | None = 1.0,
    before: Pressure | None = None,
) -> list[Pressure]:
    """Find what the refusals in the kernel's trace call for; ``tcp_mem`` is that of now."""
    counts: dict[_Signal, Counter[int]] = {signal: Counter() for signal in (_AT_LIMIT, _ABOVE_AVERAGE, _OF_A_GROUP)}
    sizes: dict[_Signal, str] = {}
    for each in refused:
        limits, age = each.limits or tcp_mem, (now - each.at).total_seconds()
        if limits is None or each.allocated is None or pages_per_unit is None or age < 0:
            continue
        pages = round(each.allocated * pages_per_unit)
        signal = _AT_LIMIT if pages > limits[2] else _ABOVE_AVERAGE if pages > limits[0] else _OF_A_GROUP
        counts[signal][int(age / INTERVAL_SECONDS)] += each.times
        sizes[signal] = f"{count_text(pages)} pages allocated of {count_text(limits[2])}"
    found = []
    for signal, by_interval in counts.items():
        newest_first = [by_interval[interval] for interval in range(QUIET_INTERVALS)]
        if _is_on(signal, newest_first, held=before is not None and before.claim.startswith(signal.claim)):
            most = max(newest_first)
            claim = f"{signal.claim}: {count_text(most)} times in 10 s; {sizes[signal]}"
            found.append(
                Pressure(
                    level=signal.level,
                    cause="tcp_memory",
                    claim=claim,
                    value=most,
                    limit=signal.threshold,
                    unit=signal.unit,
                )
            )
    return found


def _full_groups(groups: Sequence[FullGroup]) -> list[Pressure]:
    return [
        Pressure(
            level=2,
            cause="tcp_memory",
            claim=f"{text_of_group(group)} is at its own memory limit, most of it socket memory",
            value=group.current_bytes,
            limit=group.limit_bytes,
            unit="bytes",
        )
        for group in groups[:1]
    ]


def _is_on(signal: _Signal, newest_first: list[int], *, held: bool) -> bool:
    if held:
        return max(newest_first, default=0) >= signal.threshold
    at_once = max(newest_first[:1], default=0) >= signal.at_once
    return at_once or (len(newest_first) > 1 and min(newest_first[:2]) >= signal.threshold)


def _spaced(samples: Sequence[Sample]) -> list[Sample]:
    """Take the newest sample, and those before it for a minute that are as far apart as the clock takes them."""
    apart = _as_the_clock_takes_them([sample.at for sample in samples])
    return [samples[index] for index in islice(apart, QUIET_INTERVALS + 1)]


def _as_the_clock_takes_them(times: Sequence[datetime]) -> Iterator[int]:
    """Yield which to keep of times so that none are closer together than samples by the clock: newest first."""
    kept = len(times) - 1
    yield kept
    for index in reversed(range(kept)):
        if times[kept] - times[index] >= _SHORTEST:
            kept = index
            yield kept


def _moved(before: Sample, after: Sample) -> dict[str, int]:
    """How far the counters moved in ten seconds between two samples.

    Samples of 0.1 know no flag, and have the counters of one network namespace alone.
    """
    if (before.press is None) != (after.press is None):
        return {}
    share = min(1.0, INTERVAL_SECONDS / (after.at - before.at).total_seconds())
    return {name: round(delta * share) for name, delta in counter_deltas(before.counters, after.counters).items()}


def _watched(samples: Sequence[Sample], pages_per_unit: float | None) -> list[_Watched]:
    gauges = []
    last = samples[-1]
    mem = [s.mem * pages_per_unit for s in samples if s.mem is not None and pages_per_unit]
    if mem and last.tcp_mem and last.tcp_mem[2] > 0:
        low, pressure, high = last.tcp_mem
        times = [s.at for s in samples if s.mem is not None]
        enter = {3: AT_LIMIT_PERCENT / 100 * high, 2: pressure}
        gauges.append(_Watched("tcp_memory", mem, times, high, enter, {3: pressure, 2: low}))
    orphan = [float(s.orphan) for s in samples if s.orphan is not None]
    if orphan and last.tcp_max_orphans and last.tcp_max_orphans > 0:
        limit = last.tcp_max_orphans
        enter = {3: limit / 2, 2: limit / 4}
        leave = {level: ORPHAN_LEAVE * value for level, value in enter.items()}
        times = [s.at for s in samples if s.orphan is not None]
        gauges.append(_Watched("orphans", orphan, times, limit, enter, leave))
    return gauges


def _level(gauge: _Watched, now: datetime, before: Pressure | None) -> int:
    """Find the level of one gauge: entered by two samples in a row, or not left yet."""
    held = before.level if before and before.unit is None and before.cause == gauge.name else 0
    for level in (3, 2):
        if len(gauge.values) > 1 and min(gauge.values[-2:]) > gauge.enter[level]:
            return level
        if held >= level and gauge.values[-1] > gauge.leave[level]:
            return level
    within = 2 * HOUR if held else HOUR
    return 1 if _seconds_left(gauge, now) <= within else 0


def _seconds_left(gauge: _Watched, now: datetime) -> float:
    """Project when a steady growth reaches the limit, in seconds; infinity when there is none worth a word."""
    if gauge.values[-1] < GROWTH_FROM * gauge.limit:
        return float("inf")
    apart = reversed([*_as_the_clock_takes_them(gauge.times)])
    window = [index for index in apart if now - gauge.times[index] <= GROWTH_WINDOW]
    values = [gauge.values[index] for index in window]
    if len(values) < GROWTH_SAMPLES:
        return float("inf")
    third = len(values) // 3
    steps = [median(values[:third]), median(values[third : 2 * third]), median(values[2 * third :])]
    grown = steps[2] - steps[0]
    if not steps[0] < steps[1] < steps[2] or grown < GROWTH_STEP * gauge.limit:
        return float("inf")
    ages = [(gauge.times[index] - gauge.times[window[0]]).total_seconds() for index in window]
    rate = linear_regression(ages, values).slope
    return (gauge.limit - values[-1]) / rate if rate > 0 else float("inf")
