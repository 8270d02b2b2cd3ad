"""What is usual on this host: the peaks of the days before, from the long record of the hours (core.thinning).

    highest in days     a quarter above the highest of at least three days before
    daily peak          on most of the last days as high as now, and at this time of the day
    peaks grow          a line through the peaks of at least seven days rises, and meets the limit within ninety days;
                        the last days are still on it

Days are those of UTC, as the history is thinned by them: each has its own highest reading, wherever midnight falls.
What was in the last twelve hours is today. A day of which less than half was seen is no day. The line is the median of
the slopes between all pairs of days (Theil and Sen): one wild day does not turn it.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import combinations
from statistics import median
from typing import Literal, NamedTuple

from agent.core.case import Case, seconds_between
from agent.core.gauge import mem_unit_bytes
from agent.core.model import Cause, Evidence, Finding
from agent.core.thinning import second_of
from agent.core.words import bytes_text, count_text, duration_text, in_zone_of

What = Literal["orphans", "memory"]

_DAY = 86_400.0
_LEAST_DAYS_OF_HIGHEST = 3
_ABOVE = 1.25
_LEAST_DAYS_OF_HABIT = 3
_HABIT_DAYS = 7
_AS_HIGH = 0.8
_SAME_TIME_SECONDS = 5400.0
_LEAST_DAYS_OF_LINE = 7
_LINE_DAYS = 30
# A rise that the scatter of the days could have made is none.
_LEAST_PARTS_RISING = 0.75
_LEAST_RISE = 0.2
_LEAST_SHARE_OF_LIMIT = 0.05
_HORIZON_DAYS = 90
# What was mended, or was switched off, has left the line or has no newer days.
_NEWEST_DAYS = 2
_ON_THE_LINE = 0.8
_LEAST_SEEN = _DAY / 2
_TODAY_SECONDS = _DAY / 2


class Day(NamedTuple):
    """The peak of one day, so many days ago, so many seconds before the event (a negative number)."""

    ago: int
    value: int
    second: float

    @property
    def off_seconds(self) -> float:
        """How far the peak was from the event's time of the day."""
        return (self.second + _DAY / 2) % _DAY - _DAY / 2


class Habit(NamedTuple):
    """One gauge over the days: ``now`` is the highest of today. Sockets, or bytes."""

    what: What
    now: int
    limit: int | None
    days: tuple[Day, ...]
    hour: str

    @property
    def cause(self) -> Cause:
        """The cause that this gauge speaks for."""
        return "orphans" if self.what == "orphans" else "tcp_memory"

    @property
    def unit(self) -> str:
        """What is counted."""
        return "sockets" if self.what == "orphans" else "bytes"

    @property
    def words(self) -> Callable[[int], str]:
        """How a value is said."""
        return count_text if self.what == "orphans" else bytes_text

    @property
    def usual(self) -> int:
        """The peak of an ordinary day."""
        return round(median(day.value for day in self.days))


def habits_of(case: Case) -> tuple[Habit, ...]:
    """Put the days together for both gauges; the one of the named cause first, none without days."""
    unit = mem_unit_bytes(case.kernel, case.gauges.page_bytes)
    taken = case.snapshot.taken_at
    times = [*case.past, (-seconds_between(case.last.at, taken), case.last)]
    limits = case.gauges.limits_bytes
    orphans = [(second, each.orphan) for second, each in times if each.orphan is not None]
    memory = [(second, each.mem * unit) for second, each in times if each.mem is not None]
    found = [
        _habit("orphans", orphans, case.gauges.orphan_limit, case),
        _habit("memory", memory, limits[2] if limits else None, case),
    ]
    if "orphans" not in case.named and "tcp_memory" in case.named:
        found.reverse()
    return tuple(habit for habit in found if habit is not None)


def habits(known: Sequence[Habit], case: Case) -> tuple[Finding, ...]:
    """Show for both gauges what is known of their days; one that is calm can only be seen to grow."""
    found: list[Finding | None] = []
    for habit in known:
        if _is_high(case, habit):
            found.append(highest_in_days(habit) or daily_peak(habit))
        found.append(daily_peaks_grow(habit))
    return tuple(finding for finding in found if finding is not None)


def habit_text(known: Sequence[Habit], case: Case) -> str:
    """Say in one sentence how this compares with the days before; "" where it does not, or nobody knows."""
    for habit in known:
        if not _is_high(case, habit):
            continue
        if highest_in_days(habit):
            return f"It is the highest in {len(habit.days)} days; an ordinary day's peak is {habit.words(habit.usual)}."
        if daily_peak(habit):
            return f"It peaks like this on most days around {habit.hour}."
    return next((_outlook(habit) for habit in known if not case.said and daily_peaks_grow(habit)), "")


def highest_in_days(habit: Habit) -> Finding | None:
    """Claim that there was nothing like it in the days before."""
    if len(habit.days) < _LEAST_DAYS_OF_HIGHEST or habit.now <= 0:
        return None
    highest = max(day.value for day in habit.days)
    if habit.now < _ABOVE * highest:
        return None
    return _finding(
        f"{habit.what}_highest_in_days",
        habit,
        Evidence(name="peak", value=habit.now, unit=habit.unit, source="history"),
        Evidence(name="highest before", value=highest, unit=habit.unit, source="history"),
        Evidence(name="peak of an ordinary day", value=habit.usual, unit=habit.unit, source="history"),
        Evidence(name="days known", value=len(habit.days), unit="days", source="history"),
    )


def daily_peak(habit: Habit) -> Finding | None:
    """Claim that it is like this on most days at this time: load, and no accident."""
    lately = [day for day in habit.days if day.ago <= _HABIT_DAYS]
    same = [day for day in lately if day.value >= _AS_HIGH * habit.now and abs(day.off_seconds) <= _SAME_TIME_SECONDS]
    if len(same) < _LEAST_DAYS_OF_HABIT or 2 * len(same) <= len(lately) or habit.now <= 0:
        return None
    return _finding(
        f"{habit.what}_peak_daily",
        habit,
        Evidence(name="as high at this time of the day", value=len(same), unit="days", source="history"),
        Evidence(name="days known", value=len(lately), unit="days", source="history"),
        Evidence(name="around", value=habit.hour, source="history"),
        Evidence(name="peak of an ordinary day", value=habit.usual, unit=habit.unit, source="history"),
    )


def daily_peaks_grow(habit: Habit) -> Finding | None:
    """Claim that the peaks of the days grow towards the limit, and tell when they reach it."""
    slope, left = _slope(habit), _days_left(habit)
    if slope is None or left is None:
        return None
    days = [day for day in habit.days if day.ago <= _LINE_DAYS]
    return _finding(
        f"{habit.what}_daily_peaks_grow",
        habit,
        Evidence(name="growth a day", value=round(slope), unit=f"{habit.unit} a day", source="history"),
        Evidence(
            name="peak of the last day", value=days[0].value, limit=habit.limit, unit=habit.unit, source="history"
        ),
        Evidence(name="the limit is reached in", value=round(left), unit="days", source="estimate"),
        Evidence(name="days known", value=len(days), unit="days", source="history"),
    )


# --- parts ----------------------------------------------------------------------------------------------------------


def _habit(what: What, readings: Sequence[tuple[float, int]], limit: int | None, case: Case) -> Habit | None:
    midnight = second_of(case.snapshot.taken_at) % _DAY
    by_day: defaultdict[int, list[tuple[float, int]]] = defaultdict(list)
    for second, value in readings:
        by_day[-int((second + midnight) // _DAY)].append((second, value))
    days = tuple(day for ago in sorted(by_day) if ago > 0 and (day := _day(by_day[ago], ago)))
    today = [value for second, value in readings if abs(second) <= _TODAY_SECONDS]
    if not today or not days:
        return None
    at = in_zone_of(case.last.at, case.snapshot.taken_at)
    return Habit(what, max(today), limit, days, f"{at:%H:%M}")


def _day(seen: Sequence[tuple[float, int]], ago: int) -> Day | None:
    second, value = max(seen, key=lambda pair: pair[1])
    if max(seen)[0] - min(seen)[0] < _LEAST_SEEN or second >= -_TODAY_SECONDS:
        return None
    return Day(ago, value, second)


def _is_high(case: Case, habit: Habit) -> bool:
    if habit.what == "orphans":
        return case.gauges.shift is not None
    return case.gauges.zone in ("pressure", "at_limit", "over")


def _slope(habit: Habit) -> float | None:
    """Tell by how much the peaks grow a day; None where they do not, or their scatter could be all there is."""
    days = [day for day in habit.days if day.ago <= _LINE_DAYS]
    if len(days) < _LEAST_DAYS_OF_LINE or days[0].ago > _NEWEST_DAYS:
        return None
    slopes = [(new.value - old.value) / (old.ago - new.ago) for new, old in combinations(days, 2)]
    slope = median(slopes)
    risen = slope * (days[-1].ago - days[0].ago)
    rising = sum(each > 0 for each in slopes) >= _LEAST_PARTS_RISING * len(slopes)
    rises = rising and risen >= _LEAST_RISE * max(day.value for day in days)
    line = median(day.value + slope * day.ago for day in days) - slope * days[0].ago
    return slope if rises and max(days[0].value, habit.now) >= _ON_THE_LINE * line else None


def _days_left(habit: Habit) -> float | None:
    slope, limit = _slope(habit), habit.limit
    if slope is None or slope <= 0 or not limit or limit <= 0:
        return None
    newest = habit.days[0]
    if newest.value < _LEAST_SHARE_OF_LIMIT * limit:
        return None
    left = (limit - newest.value) / slope - newest.ago
    return max(left, 0.0) if left <= _HORIZON_DAYS else None


def _outlook(habit: Habit) -> str:
    left = _days_left(habit)
    name = "orphans" if habit.what == "orphans" else "TCP memory"
    when = f"in {duration_text(round(left) * _DAY)}" if left and left >= 1 else "within a day"
    return f"But the daily peaks of {name} grow, and reach the limit {when}."


def _finding(claim: str, habit: Habit, *proof: Evidence) -> Finding:
    return Finding(claim=claim, cause=habit.cause, confidence="possible", evidence=proof)
