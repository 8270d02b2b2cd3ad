"""What is left of the samples as they grow old: all of the last minutes, then the extremes of ever longer stretches.

    age up to     of each
    10 minutes    second         as it was
    1 hour        minute
    6 hours       15 minutes     highest and lowest of both gauges, the newest, the newest that names units,
    48 hours      hour           and both sides of a reboot or of a counter that began anew
    30 days       day (timezone.utc)      the highest of both gauges, the first and the newest

So a diagnosis sees thirty days in some six hundred samples, and no peak is ever thinned away: the highest of what is
left of two halves is the highest of the whole. Stretches are counted from the epoch, so that thinning again takes
nothing more. On disk every hour leaves the same behind as it does here after six hours (``hourly_extremes``), for
ninety days; of the counters that is two.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import groupby, pairwise
from operator import attrgetter
from typing import NamedTuple

from msgspec.structs import replace

from agent.core.model import Sample
from agent.core.times import second_of

DAYS = 30
# Younger samples are kept in more detail than what their hour leaves behind.
WHOLE_SECONDS = 6 * 3600.0
# What the long record keeps of the counters: that connections were reset, and that memory was short.
LASTING_COUNTERS = ("TCPAbortOnMemory", "TCPMemoryPressures")


class _Tier(NamedTuple):
    """How samples up to an age are thinned: to a few of each stretch."""

    seconds: float
    stretch_seconds: int
    ends_only: bool = False


_DAY = 86_400.0
_TIERS = (
    _Tier(600.0, 1),
    _Tier(WHOLE_SECONDS / 6, 60),
    _Tier(WHOLE_SECONDS, 900),
    _Tier(2 * _DAY, 3600),
    _Tier(DAYS * _DAY, 86_400, ends_only=True),
)


def downsample(samples: Iterable[Sample], now: datetime) -> tuple[Sample, ...]:
    """Leave of the samples, in any order, what their age allows; oldest first.

    What is too old goes, and what is later than ``now``: it was taken by a clock that has been set back since.
    """
    found: list[Sample] = []
    today = second_of(now)
    ordered = sorted(samples, key=lambda sample: second_of(sample.at))
    for (tier, _), group in groupby(ordered, key=lambda sample: _stretch(second_of(sample.at), today)):
        if tier is not None:
            # A counter that goes cannot mark a reset: it would not be found again.
            stretch = list(group)
            stretch = stretch if tier.seconds <= WHOLE_SECONDS else _few_counters(stretch)
            found += _highest_and_ends(stretch) if tier.ends_only else _extremes(stretch)
    return tuple(found)


def hourly_extremes(hour: Iterable[Sample]) -> list[Sample]:
    """Leave of one hour's samples what is kept for ninety days, oldest first."""
    ordered = _few_counters(sorted(hour, key=lambda sample: second_of(sample.at)))
    if not ordered:
        return []
    highest = [sample for name in ("tw", "alloc") for sample in _highest(ordered, name)]
    return _in_order([*_extremes(ordered), *highest], ordered)


def extremes(samples: Iterable[Sample], seconds: int) -> list[Sample]:
    """Leave the extremes of each stretch of ``seconds``, with all their counters; oldest first."""
    ordered = sorted(samples, key=lambda sample: second_of(sample.at))
    found: list[Sample] = []
    for _, group in groupby(ordered, key=lambda sample: second_of(sample.at) // seconds):
        found += _extremes(list(group))
    return found


def _is_reboot(before: Sample, after: Sample) -> bool:
    return before.boot_id is not None and after.boot_id is not None and before.boot_id != after.boot_id


def _is_fall(before: Sample, after: Sample) -> bool:
    return any(after.counters.get(name, count) < count for name, count in before.counters.items())


def _stretch(second: float, today: float) -> tuple[_Tier | None, float]:
    age = today - second
    for tier in _TIERS if age >= 0 else ():
        if age <= tier.seconds:
            return tier, second // tier.stretch_seconds
    return None, 0.0


def _extremes(stretch: list[Sample]) -> list[Sample]:
    if len(stretch) == 1:
        return stretch
    chosen = [stretch[-1], *_newest_units(stretch), *_sides_of_reset(stretch)]
    for name in ("orphan", "mem"):
        chosen += [*_highest(stretch, name), *_lowest(stretch, name)]
    return _in_order(chosen, stretch)


def _highest_and_ends(stretch: list[Sample]) -> list[Sample]:
    chosen = [stretch[0], stretch[-1], *_highest(stretch, "orphan"), *_highest(stretch, "mem")]
    return _in_order(chosen, stretch)


def _in_order(chosen: Iterable[Sample], stretch: list[Sample]) -> list[Sample]:
    kept = {id(sample) for sample in chosen}
    return [sample for sample in stretch if id(sample) in kept]


def _few_counters(samples: Iterable[Sample]) -> list[Sample]:
    return [
        replace(
            sample,
            counters={name: sample.counters[name] for name in LASTING_COUNTERS if name in sample.counters},
            gone={},
            moved={},
        )
        if len(sample.counters) > len(LASTING_COUNTERS)
        else sample
        for sample in samples
    ]


def _highest(samples: Iterable[Sample], name: str) -> list[Sample]:
    known = [sample for sample in samples if getattr(sample, name) is not None]
    return [max(known, key=attrgetter(name))] if known else []


def _lowest(samples: Iterable[Sample], name: str) -> list[Sample]:
    known = [sample for sample in samples if getattr(sample, name) is not None]
    return [min(known, key=attrgetter(name))] if known else []


def _newest_units(samples: Sequence[Sample]) -> list[Sample]:
    return [sample for sample in samples if sample.units][-1:]


def _sides_of_reset(samples: Sequence[Sample]) -> list[Sample]:
    """Find the last reset: one a stretch is kept, or a host that boots every minute would fill the history.

    Of boots and of counters, each among the samples that know them: one that knows nothing may be thinned away, and
    must not part two that differ.
    """
    booted = list(pairwise(sample for sample in samples if sample.boot_id is not None))
    counted = list(pairwise(sample for sample in samples if sample.counters))
    reboot = next((pair for pair in reversed(booted) if _is_reboot(*pair)), ())
    fall = next((pair for pair in reversed(counted) if _is_fall(*pair)), ())
    return [*reboot, *fall]
