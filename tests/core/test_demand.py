import pytest
from material import make_event, make_sample, make_snapshot

from agent.core.case import build_case
from agent.core.demand import beyond_limit, orphan_demand_above_limit, orphan_life_seconds, resets_per_second
from agent.core.diagnose import diagnose
from agent.core.model import Sample

RETRIES = {"net.ipv4.tcp_orphan_retries": (0,)}
BEFORE = (make_sample(10, TCPAbortOnMemory=0),)


@pytest.mark.parametrize(
    ("retries", "seconds"), [(1, 0.6), (2, 1.4), (3, 3.0), (4, 6.2), (5, 12.6), (7, 51.0), (8, 102.2), (0, 102.2)]
)
def test_an_orphan_lives_as_long_as_its_retries_last(retries: int, seconds: float) -> None:
    assert seconds == pytest.approx(orphan_life_seconds(retries))


def test_retries_stop_doubling_at_two_minutes() -> None:
    assert 120.0 == pytest.approx(orphan_life_seconds(12) - orphan_life_seconds(11))


def demand(
    kills: int, orphan: int = 65600, text: str = "orphans", history: tuple[Sample, ...] = BEFORE, **others: int
) -> int | None:
    counters = {"TCPAbortOnMemory": kills}
    snapshot = make_snapshot(orphan=orphan, sysctls=RETRIES, counters=counters, **others)
    return beyond_limit(build_case(snapshot, (make_event(text),), history))


def test_demand_beyond_the_limit_is_resets_a_second_times_life() -> None:
    assert 30660 == demand(3000)


def test_a_burst_within_one_interval_is_no_rate() -> None:
    assert demand(300) == demand(300, history=(make_sample(0.5, TCPAbortOnMemory=0),))


@pytest.mark.parametrize(
    "case",
    [{"text": "tcp_memory"}, {"mem": 390_000}, {"text": "timer", "orphan": 3}, {"history": ()}],
)
def test_resets_that_may_be_for_the_memory_or_of_another_time_say_nothing(case: dict[str, int]) -> None:
    assert None is demand(3000, **case)  # type: ignore[arg-type]


def test_of_a_long_incident_the_killed_of_its_last_ten_minutes_count() -> None:
    bursts = {3010: 0, 2990: 9000, 620: 9000, 10: 9200}
    history = tuple(make_sample(ago, TCPAbortOnMemory=killed) for ago, killed in bursts.items())
    snapshot = make_snapshot(orphan=65600, sysctls=RETRIES, counters={"TCPAbortOnMemory": 9310})
    case = build_case(snapshot, (make_event(), make_event(seconds_ago=3000)), history)
    assert 310 == case.kills
    assert 0.5 == resets_per_second(case)


def test_no_resets_and_no_known_life_say_nothing() -> None:
    assert None is demand(0)
    case = build_case(make_snapshot(orphan=65600, counters={"TCPAbortOnMemory": 90}), (make_event(),), BEFORE)
    assert 9.0 == resets_per_second(case)
    assert (None, None) == (beyond_limit(case), orphan_demand_above_limit(case))


def proposed(kills: int, ram: int = 16 << 30) -> int | None:
    snapshot = make_snapshot(
        4097, 5000, alloc=4500, max_orphans=4096, sysctls=RETRIES, ram=ram, counters={"TCPAbortOnMemory": kills}
    )
    steps = diagnose(snapshot, (make_event(),), BEFORE).advice
    found = [each.sysctl.proposed for each in steps if each.sysctl and each.sysctl.key == "net.ipv4.tcp_max_orphans"]
    assert all(isinstance(each, int) for each in found)
    return next((each for each in found if isinstance(each, int)), None)


def test_the_limit_is_raised_to_the_demand_where_that_is_more_than_four_times_the_peak() -> None:
    assert 17408 == proposed(100)
    assert 34816 == proposed(3000)


def test_the_demand_is_bounded_by_ram_as_everything_is() -> None:
    assert (proposed(3_000_000, ram=1 << 30) or 0) * 4500 < 1 << 28
