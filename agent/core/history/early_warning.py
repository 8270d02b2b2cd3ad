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
"""

from collections.abc import Sequence
from datetime import timedelta
from statistics import fmean, median
from typing import NamedTuple

from agent.core.model import Cause, Pressure, Sample

AT_LIMIT = 0.95
ORPHAN_LEAVE = 0.8
GROWTH_WINDOW = timedelta(minutes=10)
GROWTH_SAMPLES = 30
# Growth is worth a word only from here on: below, the limit is far and the reading of mem inexact.
GROWTH_FROM = 0.10
GROWTH_STEP = 0.02
HOUR = 3600.0


class _Side(NamedTuple):
    """One gauge over time against its limit; thresholds by level, and below which value each is left."""

    cause: Cause
    name: str
    values: list[float]
    limit: float
    enter: dict[int, float]
    leave: dict[int, float]


def assess(samples: Sequence[Sample], before: Pressure | None, pages_per_unit: float = 1.0) -> Pressure | None:
    """Tell the worst warning that the samples (oldest first, of one boot) call for, None when all is well.

    ``before`` is what the last call said. ``pages_per_unit`` is how many pages one unit of ``mem`` is: less than 1 on
    4.10 to 5.19 with pages larger than 4096 bytes.
    """
    if not samples:
        return None
    recent = [s for s in samples if s.boot_id == samples[-1].boot_id]
    found = [
        Pressure(level=level, cause=side.cause, claim=_claim(side, level), value=round(side.values[-1]), limit=limit)
        for side in _sides(recent, pages_per_unit)
        if (level := _level(side, recent, before))
        for limit in [round(side.enter.get(level, side.limit))]
    ]
    return max(found, key=lambda pressure: pressure.level, default=None)


def _sides(samples: Sequence[Sample], pages_per_unit: float) -> list[_Side]:
    sides = []
    last = samples[-1]
    mem = [s.mem * pages_per_unit for s in samples if s.mem is not None]
    if mem and last.tcp_mem and last.tcp_mem[2] > 0:
        low, pressure, high = last.tcp_mem
        sides.append(
            _Side("tcp_memory", "mem", mem, high, {3: AT_LIMIT * high, 2: pressure}, {3: pressure, 2: low}),
        )
    orphan = [float(s.orphan) for s in samples if s.orphan is not None]
    if orphan and last.tcp_max_orphans and last.tcp_max_orphans > 0:
        limit = last.tcp_max_orphans
        enter = {3: limit / 2, 2: limit / 4}
        leave = {level: ORPHAN_LEAVE * value for level, value in enter.items()}
        sides.append(_Side("orphans", "orphan", orphan, limit, enter, leave))
    return sides


def _level(side: _Side, samples: Sequence[Sample], before: Pressure | None) -> int:
    """Find the level of one gauge: entered by two samples in a row, or not left yet."""
    held = before.level if before and before.cause == side.cause else 0
    for level in (3, 2):
        if len(side.values) > 1 and min(side.values[-2:]) > side.enter[level]:
            return level
        if held >= level and side.values[-1] > side.leave[level]:
            return level
    within = 2 * HOUR if held else HOUR
    return 1 if _seconds_left(side, samples) <= within else 0


def _seconds_left(side: _Side, samples: Sequence[Sample]) -> float:
    """Project when a steady growth reaches the limit, in seconds; infinity when there is none worth a word."""
    window = [s.at for s in samples if samples[-1].at - s.at <= GROWTH_WINDOW]
    values = side.values[-len(window) :]
    if len(values) < GROWTH_SAMPLES or values[-1] < GROWTH_FROM * side.limit:
        return float("inf")
    third = len(values) // 3
    steps = [median(values[:third]), median(values[third : 2 * third]), median(values[2 * third :])]
    grown = steps[2] - steps[0]
    if not steps[0] < steps[1] < steps[2] or grown < GROWTH_STEP * side.limit:
        return float("inf")
    seconds = (window[-1] - window[0]).total_seconds()
    ages = [seconds * i / (len(values) - 1) for i in range(len(values))]
    mean_age, mean_value = fmean(ages), fmean(values)
    rate = sum((a - mean_age) * (v - mean_value) for a, v in zip(ages, values, strict=True)) / sum(
        (a - mean_age) ** 2 for a in ages
    )
    return (side.limit - values[-1]) / rate if rate > 0 else float("inf")


def _claim(side: _Side, level: int) -> str:
    words = {
        ("mem", 3): "TCP memory is at its limit",
        ("mem", 2): "TCP memory is above its pressure threshold",
        ("mem", 1): "TCP memory grows and reaches its limit within the hour",
        ("orphan", 3): "orphaned sockets are above half of their limit",
        ("orphan", 2): "orphaned sockets are above a quarter of their limit",
        ("orphan", 1): "orphaned sockets grow and reach their limit within the hour",
    }
    return words[side.name, level]
