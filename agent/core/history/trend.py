"""Since when: how the gauges came to their peak, from the samples before it.

Theory of operation
-------------------
Growth over more than ten minutes comes first: each third of the time has to bring its part of it. Else the last part
of the rise counts, from the last reading that is as low as before it to the first at 90 % of the peak.

    slowly            more than 10 min, a part in each third        a leak, or load that grows
    at once           within 60 s, the peak just reached            a burst: a mass close, a restart, a flood
    in a step         within 10 min, and high ever since            a deployment, a peer or a firewall that changed
    within minutes    within 10 min, the peak just reached          a pool that fills up

The last hour is asked first; where it is flat, or begins in the middle of a growth, the six hours before the event, two
days, two weeks and thirty days, in which the samples are ever fewer (core.history.downsample).

A history that is flat, or has a hole where the rise was, shows nothing, and nothing is said.
"""

from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from statistics import median
from typing import Literal, NamedTuple

from agent.core.facts import Facts
from agent.core.format import duration_text, moment_text
from agent.core.gauge import Gauge, Reading
from agent.core.model import Evidence, Finding

Shape = Literal["at_once", "in_a_step", "within_minutes", "slowly"]

_LOW, _HIGH, _TOP = 0.7, 0.9, 0.97
_AT_ONCE_SECONDS = 60.0
_SLOWLY_SECONDS = 600.0
_STAYED_SECONDS = 300.0
# The peak that counts is that of the event, not yesterday's.
_AROUND_SECONDS = 60.0
_LEAST_GROWTH = 0.1
_LEAST_READINGS = 3
# A line brings a third in each third of its time.
_LEAST_PART = 0.15
# Where the last third is mostly lower than this, a burst came on top.
_LAST_THIRD = 0.6
_HOUR = 3600.0
# What the last hour does not show is looked for in the longer times that the thinned history still has.
_SPANS = (_HOUR, 6 * _HOUR, 48 * _HOUR, 14 * 24 * _HOUR, 30 * 24 * _HOUR)
_STEP = 6
_NEAR_BEGIN = 0.2


class Trend(NamedTuple):
    """One gauge's way from ``start`` to its ``peak``; ``at_least`` where the history begins in the middle of it."""

    gauge: Gauge
    shape: Shape
    start: Reading
    peak: Reading
    at_least: bool

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.peak.second - self.start.second

    @property
    def grown(self) -> int:
        """How much more it became, in sockets or bytes."""
        return self.peak.value - self.start.value

    @property
    def claim(self) -> str:
        """The claim of the finding."""
        return f"{self.gauge.noun}_rose_{self.shape}"

    @property
    def an_hour(self) -> int:
        """How much more it became in an hour."""
        return round(self.grown * _HOUR / self.seconds)

    @property
    def finding(self) -> Finding:
        """The claim with its evidence."""
        unit = self.gauge.unit
        proof = [
            Evidence(name="low until", value=self.start.at.isoformat(timespec="seconds"), source="history"),
            Evidence(name="from there to the peak", value=round(self.seconds, 1), unit="seconds", source="history"),
            Evidence(name="grown by", value=self.grown, unit=unit, source="history"),
            Evidence(name="peak", value=self.peak.value, unit=unit, source="history"),
        ]
        if self.shape == "slowly":
            proof.append(Evidence(name="rate", value=self.an_hour, unit=f"{unit} an hour", source="history"))
        return Finding(claim=self.claim, cause=self.gauge.name, confidence="possible", evidence=tuple(proof))

    def sentence(self, now: datetime) -> str:
        """Say since when it has been so."""
        what, have = ("Orphans", "have") if self.gauge.name == "orphans" else ("TCP memory", "has")
        since = moment_text(self.start.at, now)
        if self.shape == "slowly":
            least = "at least " if self.at_least else ""
            return f"{what} {have} grown steadily since {least}{since}, by {self.gauge.words(self.an_hour)} an hour."
        if self.shape == "in_a_step":
            return f"{what} rose in a step after {since}, and stayed high."
        within = duration_text(max(self.seconds, 1.0))
        return f"{what} rose within {within} after {moment_text(self.start.at, now, seconds=True)}."


def trends(facts: Facts) -> tuple[Trend, ...]:
    """Return how the gauges that are high came to be; the one of the named cause first."""
    times = [*facts.samples, facts.last]
    found = [_trend(facts, gauge, gauge.over_time(times)) for gauge in facts.high]
    return tuple(trend for trend in found if trend is not None)


def _trend(facts: Facts, gauge: Gauge, series: list[Reading]) -> Trend | None:
    """Find the way to the peak in the shortest time that shows it: the last hour, else ever longer ones."""
    age = facts.age_seconds
    moment = -age if age is not None and abs(age) <= _AROUND_SECONDS else 0.0
    series.sort(key=lambda each: (each.second, each.value))
    ends = [each for each in series if each.second >= moment - _AROUND_SECONDS]
    peak = max(ends, key=lambda each: each.value, default=None)
    if peak is None or peak.value <= 0:
        return None
    found: Trend | None = None
    for seconds in _SPANS:
        span = [each for each in series if each.second >= moment - seconds]
        found = _trend_in(gauge, span, peak, seconds) or found
        if found and not _may_be_older(found, span):
            break
    return found


def _may_be_older(trend: Trend, span: Sequence[Reading]) -> bool:
    """Return whether a growth begins so near the beginning of the readings that it may have begun before them."""
    return trend.shape == "slowly" and trend.start.second - span[0].second <= _NEAR_BEGIN * trend.seconds


def _trend_in(gauge: Gauge, series: list[Reading], peak: Reading, span: float) -> Trend | None:
    before = [each for each in series if each.second < peak.second]
    if not before:
        return None
    low = _onset(before, peak)
    slow = _slow_growth(gauge, before, peak)
    shape = _shape_of_rise(series, low, peak, span) if low else None
    return Trend(gauge, shape, low, peak, at_least=False) if low and shape and not slow else slow


def _onset(before: list[Reading], peak: Reading) -> Reading | None:
    """Find the last reading from before the rise; the last at 70 % of the peak may be on the way up.

    It is within a tenth of the rise above what was usual: the lower quartile of the ten minutes up to there, so that
    neither a dip nor the way up itself passes for it.
    """
    low = next((each for each in reversed(before) if each.value <= _LOW * peak.value), None)
    way = [each for each in before if low and low.second - _SLOWLY_SECONDS <= each.second <= low.second]
    usual = sorted(each.value for each in way)[len(way) // 4] if way else 0
    return next((each for each in reversed(way) if each.value <= usual + _LEAST_GROWTH * (peak.value - usual)), None)


def _shape_of_rise(series: list[Reading], low: Reading, peak: Reading, span: float) -> Shape | None:
    """Name a rise of at most ten minutes, or a step long ago; None when it took longer."""
    high = next(each for each in series if each.second > low.second and each.value >= _HIGH * peak.value)
    rise = high.second - low.second
    last_high = max(each.second for each in series if each.value >= _LOW * peak.value)
    stayed = last_high - high.second
    # Old readings are half an hour apart: what has stayed for much longer than it took to come is a step all the same.
    is_step = stayed >= _STAYED_SECONDS and (rise <= _SLOWLY_SECONDS or (span > _HOUR and stayed >= _STEP * rise))
    if is_step:
        return "in_a_step"
    if rise > _SLOWLY_SECONDS:
        return None
    return "at_once" if rise <= _AT_ONCE_SECONDS else "within_minutes"


def _slow_growth(gauge: Gauge, before: list[Reading], peak: Reading) -> Trend | None:
    """Find since when it has grown: from the last time that it was low, and steadily."""
    base = min(each.value for each in before)
    grown = peak.value - base
    if grown < _LEAST_GROWTH * peak.value:
        return None
    low = next(each for each in reversed(before) if each.value <= base + _LEAST_GROWTH * grown)
    # At a limit it grows no more, however long it stays there: the growth ends where the top is reached.
    top = next(each for each in (*before, peak) if each.second > low.second and each.value >= _TOP * peak.value)
    # The first tenth of the growth is lost in the noise of the readings before it: a line through the rest finds it.
    begun = low.second - (top.second - low.second) * (low.value - base) / (top.value - low.value)
    way = [each for each in before if begun <= each.second < top.second]
    start, seconds = way[0], top.second - way[0].second
    if seconds < _SLOWLY_SECONDS or not _is_steady([*way, top], grown):
        return None
    return Trend(gauge, "slowly", start, top, at_least=start == before[0])


def _is_steady(way: list[Reading], grown: int) -> bool:
    """Return whether each third of the time brought its part: two thirds with readings will do, one jump will not."""
    start, length, peak = way[0].second, way[-1].second - way[0].second, way[-1].value
    thirds: list[list[int]] = [[], [], []]
    for each in way:
        thirds[min(2, int(3 * (each.second - start) / length))].append(each.value)
    steps = [median(third) for third in thirds if third]
    parts = all(later - earlier >= _LEAST_PART * grown for earlier, later in pairwise(steps))
    return len(way) >= _LEAST_READINGS and len(steps) > 1 and parts and steps[-1] >= _LAST_THIRD * peak
