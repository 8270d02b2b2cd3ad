from collections.abc import Callable, Iterable
from datetime import timedelta, timezone

import pytest
from material import NOW, make_event, make_sample, make_snapshot
from msgspec.structs import replace

from agent.core.facts import Facts, gather_facts
from agent.core.history.downsample import downsample
from agent.core.history.look_back import look_back
from agent.core.model import Sample

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


def facts_of(samples: Iterable[Sample], orphan: int = LIMIT) -> Facts:
    return gather_facts(make_snapshot(orphan=orphan), (make_event(),), downsample(samples, NOW))


def records(facts: Facts) -> list[str]:
    return [finding.claim for finding in look_back(facts).findings if finding.claim.endswith("highest_in_days")]


def test_what_never_was_is_called_the_highest_with_the_highest_before_and_its_day() -> None:
    facts = facts_of(days(lambda n: 14_210 if n == 10 else 1200 + n, range(1, 15)))
    assert ["orphans_highest_in_days"] == records(facts)
    assert "This is the highest in 14 days (previous high: 14,210 on 12 Nov)." in look_back(facts).text


def test_the_day_is_that_of_the_hosts_clock() -> None:
    local = NOW.astimezone(timezone(timedelta(hours=13)))
    samples = downsample(days(lambda n: 14_210 if n == 10 else 1200 + n, range(1, 15)), NOW)
    facts = gather_facts(make_snapshot(orphan=LIMIT, taken_at=local), (make_event(),), samples)
    assert "14,210 on 13 Nov)." in look_back(facts).text


@pytest.mark.parametrize("known", [range(1, 3), range(0)])
def test_two_days_are_too_few_to_call_it_the_highest(known: range) -> None:
    assert [] == records(facts_of(days(lambda _: 1200, known)))


def test_a_day_like_this_before_makes_it_no_highest() -> None:
    assert [] == records(facts_of(days(lambda n: 60_000 if n == 6 else 1200, range(1, 15))))


def test_yesterday_evening_is_the_same_incident_shortly_after_midnight() -> None:
    found = [*days(lambda _: 1200, range(2, 10)), *(make_sample(ago, orphan=60_000) for ago in range(60, 6 * HOUR, 60))]
    assert ["orphans_highest_in_days"] == records(facts_of(found))


def test_a_reboot_in_between_changes_nothing() -> None:
    found = [
        replace(s, boot_id="another" if s.at < NOW - timedelta(days=4) else s.boot_id)
        for s in days(lambda n: 14_210 if n == 10 else 1200 + n, range(1, 15))
    ]
    assert ["orphans_highest_in_days"] == records(facts_of(found))


def test_memory_is_compared_in_bytes() -> None:
    samples = [make_sample(n * DAY + q * HOUR, mem=80_000) for n in range(1, 9) for q in range(-11, 12)]
    facts = gather_facts(make_snapshot(mem=380_900), (make_event("tcp_memory"),), downsample(samples, NOW))
    assert ["memory_highest_in_days"] == records(facts)
    assert "previous high: 313 MiB" in look_back(facts).text


@pytest.mark.parametrize(
    ("page", "boot", "expected"),
    [(4096, "another", 1), (65536, "another", 0), (65536, None, 1)],
)
def test_memory_of_another_boot_is_compared_only_where_pages_are_the_smallest(
    page: int, boot: str | None, expected: int
) -> None:
    samples = [replace(make_sample(n * DAY, mem=80_000), boot_id=boot) for n in range(1, 9)]
    snapshot = make_snapshot(mem=380_900, kernel="6.1.0-28-arm64", page_size_bytes=page)
    assert expected == len(records(gather_facts(snapshot, (make_event("tcp_memory"),), downsample(samples, NOW))))


def test_a_calm_gauge_is_not_compared() -> None:
    assert [] == records(
        gather_facts(make_snapshot(orphan=40), (), downsample(days(lambda _: 12, range(1, 15), low=3), NOW))
    )


def test_two_samples_of_one_second_need_no_order() -> None:
    sample = make_sample(9 * DAY, orphan=0)
    facts = gather_facts(make_snapshot(orphan=LIMIT), (), (sample, replace(sample, at=sample.at.replace(tzinfo=None))))
    assert ["orphans_highest_in_days"] == records(facts)
