from collections.abc import Callable, Iterable
from datetime import timedelta, timezone

import pytest
from material import NOW, make_event, make_sample, make_snapshot

from agent.core.case import Case, build_case
from agent.core.habits import habit_text, habits, habits_of
from agent.core.model import Sample
from agent.core.thinning import thin

LIMIT, HOUR, DAY = 65_536, 3600, 86_400


def days(peak: Callable[[int], float], known: Iterable[int], *, off_hours: float = 0.0, low: int = 300) -> list[Sample]:
    """Make days (so many days ago) whose peak lasts an hour and is this many hours off the time of the event."""
    found = []
    for number in known:
        for quarter in range(96):
            ago = number * DAY + (quarter - 48) * 900
            near = abs(ago - number * DAY + off_hours * HOUR) <= HOUR / 2
            found.append(make_sample(ago, orphan=round(peak(number)) if near else low))
    return found


def case_of(samples: Iterable[Sample], orphan: int = LIMIT, *, said: bool = True) -> Case:
    events = (make_event(),) if said else ()
    return build_case(make_snapshot(orphan=orphan), events, thin(samples, NOW))


def claims(case: Case) -> list[str]:
    return [finding.claim for finding in habits(habits_of(case), case)]


def said(case: Case) -> str:
    return habit_text(habits_of(case), case)


def test_what_never_was_is_called_the_highest_with_the_days_that_are_known() -> None:
    case = case_of(days(lambda n: 1200 + n, range(1, 15)))
    assert ["orphans_highest_in_days"] == claims(case)
    assert said(case) in {
        f"It is the highest in {known} days; an ordinary day's peak is {peak}."
        for known in (13, 14)
        for peak in ("1,207", "1,208")
    }


@pytest.mark.parametrize("known", [range(1, 3), range(0)])
def test_two_days_are_too_few_to_call_it_the_highest(known: range) -> None:
    assert [] == claims(case_of(days(lambda _: 1200, known)))


def test_a_day_like_this_before_makes_it_no_highest() -> None:
    assert [] == claims(case_of(days(lambda n: 60_000 if n == 6 else 1200, range(1, 15))))


def test_what_comes_daily_at_this_time_is_called_so() -> None:
    case = case_of(days(lambda _: 60_000, range(1, 10)))
    assert ["orphans_peak_daily"] == claims(case)
    assert "It peaks like this on most days around 15:05." == said(case)


def test_peaks_at_another_time_of_the_day_are_no_habit() -> None:
    assert [] == claims(case_of(days(lambda _: 60_000, range(2, 10), off_hours=6)))


def test_the_hour_is_told_by_the_clock_of_the_host() -> None:
    local = NOW.astimezone(timezone(timedelta(hours=2), "CEST"))
    snapshot = make_snapshot(orphan=LIMIT, taken_at=local)
    case = build_case(snapshot, (make_event(),), thin(days(lambda _: 60_000, range(1, 10)), NOW))
    assert "It peaks like this on most days around 17:05." == said(case)


def test_peaks_that_grow_tell_when_they_reach_the_limit() -> None:
    case = case_of(days(lambda n: 50_000 - 1000 * n, range(1, 15)), orphan=20, said=False)
    finding = habits(habits_of(case), case)[0]

    assert "orphans_daily_peaks_grow" == finding.claim
    proof = {each.name: each.value for each in finding.evidence}
    assert 1000 == proof["growth a day"]
    # From the 49,000 of yesterday to 65,536, a day of which has passed.
    assert proof["the limit is reached in"] in {15, 16}
    assert "But the daily peaks of orphans grow, and reach the limit in 1" in said(case)


@pytest.mark.parametrize(
    "peak",
    [
        lambda _: 50_000,
        lambda n: 50_000 + 1000 * n,
        lambda n: 40_000 + 9000 * (n * 7919 % 11) / 11,
        lambda n: 1_000 - 50 * n,
        lambda n: 30_000 - 20 * n,
        lambda n: 60_000 if n == 1 else 9_000,
    ],
    ids=["flat", "shrinking", "scattered", "far from the limit", "too slow", "one wild day"],
)
def test_peaks_that_do_not_steadily_grow_to_the_limit_are_silent(peak: Callable[[int], float]) -> None:
    case = case_of(days(peak, range(1, 15)), orphan=20, said=False)
    assert [] == claims(case)
    assert "" == said(case)


def test_six_days_are_too_few_for_a_line() -> None:
    assert [] == claims(case_of(days(lambda n: 50_000 - 3000 * n, range(1, 6)), orphan=20, said=False))


def test_a_reboot_in_between_changes_nothing() -> None:
    found = days(lambda n: 50_000 - 1000 * n, range(1, 15))
    rebooted = [
        Sample(at=s.at, boot_id="another" if s.at < NOW - timedelta(days=4) else s.boot_id, orphan=s.orphan)
        for s in found
    ]
    assert ["orphans_daily_peaks_grow"] == claims(case_of(rebooted, orphan=20, said=False))


def test_yesterday_evening_is_the_same_incident_shortly_after_midnight() -> None:
    found = [*days(lambda _: 1200, range(2, 10)), *(make_sample(ago, orphan=60_000) for ago in range(60, 6 * HOUR, 60))]
    assert "orphans_highest_in_days" in claims(case_of(found))


def test_memory_is_compared_in_bytes() -> None:
    samples = [make_sample(n * DAY + q * HOUR, mem=80_000) for n in range(1, 9) for q in range(-11, 12)]
    case = build_case(make_snapshot(mem=380_900), (make_event("tcp_memory"),), thin(samples, NOW))
    assert ["memory_highest_in_days"] == claims(case)
    assert "an ordinary day's peak is 313 MiB" in said(case)


def test_a_calm_gauge_is_not_compared() -> None:
    assert [] == claims(case_of(days(lambda _: 12, range(1, 15), low=3), orphan=40, said=False))


@pytest.mark.parametrize(
    ("peak", "known"),
    [
        (lambda n: 5_500 if n <= 2 else 60_000 - 2000 * n, range(1, 25)),
        (lambda n: 85_000 - 3000 * n, range(16, 26)),
        (lambda n: 60_000 - 1000 * n, range(3, 25)),
    ],
    ids=["mended two days ago", "off for two weeks", "nothing known of the last two days"],
)
def test_peaks_that_grew_once_and_grow_no_more_are_silent(peak: Callable[[int], float], known: Iterable[int]) -> None:
    assert "" == said(case_of(days(peak, known), orphan=100, said=False))


def test_one_low_day_ends_no_growth_when_today_is_on_the_line_again() -> None:
    found = days(lambda n: 20_000 if n == 1 else 50_000 - 1000 * n, range(1, 15))
    assert [] == claims(case_of(found, orphan=100, said=False))
    assert ["orphans_daily_peaks_grow"] == claims(case_of([*found, make_sample(HOUR, orphan=49_000)], 100, said=False))
