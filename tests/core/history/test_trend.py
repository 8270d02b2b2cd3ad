from collections.abc import Callable
from math import cos

import pytest
from material import NOW, make_event, make_sample, make_snapshot

from agent.core.facts import Facts, gather_facts
from agent.core.history.downsample import downsample
from agent.core.history.trend import Trend, trends
from agent.core.model import Sample

PEAK = 65600


def history(value: Callable[[int], float], span: int = 3590, step: int = 10) -> tuple[Sample, ...]:
    """Make samples of orphans: ``value`` of the seconds before the snapshot."""
    return tuple(make_sample(ago, orphan=round(value(ago))) for ago in range(span, 0, -step))


def noise(ago: int) -> float:
    return ago * 7919 % 97


def trend_of(samples: tuple[Sample, ...], orphan: int = PEAK) -> Trend | None:
    facts = gather_facts(make_snapshot(orphan=orphan), (make_event(),), samples)
    return next(iter(trends(facts)), None)


def said(facts: Facts) -> str:
    return next((each.sentence(facts.snapshot.taken_at) for each in trends(facts)), "")


@pytest.mark.parametrize(
    ("shape", "value"),
    [
        ("at_once", lambda _: 500),
        ("at_once", lambda ago: 40_000 + noise(ago)),
        ("at_once", lambda ago: 500 if ago > 30 else 64_000),
        ("in_a_step", lambda ago: 500 + noise(ago) if ago > 1200 else 64_000 + noise(ago)),
        ("within_minutes", lambda ago: max(500.0, PEAK - 150 * ago)),
        ("slowly", lambda ago: PEAK - 15 * ago + noise(ago)),
        ("slowly", lambda ago: 5000 + noise(ago) if ago > 2500 else PEAK - 24 * ago),
        ("slowly", lambda ago: max(1000.0, min(65_500.0, PEAK - 25 * (ago - 900)))),
        (None, lambda ago: 64_000 + noise(ago)),
        (None, lambda ago: 60_000 + 50 * noise(ago)),
    ],
)
def test_the_way_to_the_peak_has_a_shape(shape: str | None, value: Callable[[int], float]) -> None:
    trend = trend_of(history(value))
    assert shape == (trend and trend.shape)


def test_a_night_that_was_low_does_not_make_a_leak_of_a_burst() -> None:
    trend = trend_of(history(lambda ago: 200 if ago > 3000 else 30_000 + noise(ago)))
    assert trend
    assert "at_once" == trend.shape


def test_a_peak_of_another_hour_is_not_what_is_asked() -> None:
    trend = trend_of(history(lambda ago: 200_000 if 2000 < ago < 2100 else 500))
    assert trend
    assert ("at_once", PEAK) == (trend.shape, trend.peak.value)


@pytest.mark.parametrize("first", [4.1, 1.0, 9.9])
@pytest.mark.parametrize("seconds", [13, 45, 300])
def test_a_rise_begins_at_the_last_reading_that_is_really_low(seconds: int, first: float) -> None:
    agos = [10 * n + first for n in range(120, -1, -1)]
    samples = tuple(make_sample(ago, orphan=500 + max(0, round((PEAK - 500) * (1 - ago / seconds)))) for ago in agos)
    begun = min(ago for ago in agos if ago >= 0.9 * seconds)
    trend = trend_of(samples)
    assert trend
    assert begun == pytest.approx(trend.seconds)


def test_a_rise_over_13_seconds_that_was_sampled_halfway_is_not_one_of_4() -> None:
    samples = (*history(lambda _: 500, step=100), make_sample(14.1, orphan=500), make_sample(4.1, orphan=45_000))
    assert "Orphans rose within 14 s after 15:05:25 UTC." == said(
        gather_facts(make_snapshot(orphan=PEAK), (make_event(),), samples)
    )


def test_a_dip_long_before_a_burst_is_not_its_beginning() -> None:
    samples = history(lambda ago: 100 if 290 <= ago <= 310 else 20_000 + noise(ago))
    trend = trend_of(samples)
    assert trend
    assert 10 == trend.seconds


def test_slow_growth_begins_where_the_line_begins() -> None:
    trend = trend_of(history(lambda ago: 5000 + noise(ago) if ago > 2500 else 5000 + (2500 - ago) * 24))
    assert trend
    assert abs(trend.seconds - 2500) < 120
    assert not trend.at_least


def test_growth_that_is_older_than_the_history_is_told_as_at_least() -> None:
    samples = history(lambda ago: PEAK - 15 * ago)
    trend = trend_of(samples)
    assert trend
    assert (True, samples[0].at) == (trend.at_least, trend.start.at)


def test_a_hole_in_the_history_shows_nothing() -> None:
    assert None is trend_of((make_sample(3500, orphan=100),))
    assert None is trend_of((make_sample(3500, orphan=100), make_sample(5, orphan=PEAK)), orphan=65_000)


def test_growth_by_next_to_nothing_is_none() -> None:
    assert None is trend_of(history(lambda ago: PEAK - 20 + ago % 3))


def test_calm_gauges_have_no_trend() -> None:
    assert None is trend_of(history(lambda ago: 3 if ago > 60 else 100), orphan=100)


def test_no_history_has_no_trend() -> None:
    assert None is trend_of(())


@pytest.mark.parametrize(
    ("samples", "sentence"),
    [
        (history(lambda _: 500), "Orphans rose within 10 s after 15:05:30 UTC."),
        (
            history(lambda ago: 500 if ago > 1200 else 64_000),
            "Orphans rose in a step after 14:45 UTC, and stayed high.",
        ),
        (
            history(lambda ago: PEAK - 15 * ago),
            "Orphans have grown steadily since at least 14:05 UTC, by 54,000 an hour.",
        ),
        ((make_sample(90_000, orphan=100), make_sample(5, orphan=300)), "Orphans rose within 5 s after 15:05:35 UTC."),
        ((), ""),
    ],
)
def test_since_when_is_one_sentence(samples: tuple[Sample, ...], sentence: str) -> None:
    assert sentence == said(gather_facts(make_snapshot(orphan=PEAK), (make_event(),), samples))


def test_another_day_is_named() -> None:
    samples = history(lambda ago: PEAK - ago / 2, span=100_000, step=1000)
    assert "2026-11-21 1" in said(gather_facts(make_snapshot(orphan=PEAK), (make_event(),), samples))


def test_memory_is_told_in_bytes_whatever_the_kernel_counts_in() -> None:
    samples = tuple(make_sample(ago, mem=390_000 - 90 * ago) for ago in range(3590, 0, -10))
    text = said(gather_facts(make_snapshot(mem=390_000), (make_event("tcp_memory"),), samples))
    assert "TCP memory has grown steadily since at least 14:05 UTC, by 1.2 GiB an hour." == text


def test_the_side_that_the_kernel_named_comes_first() -> None:
    samples = (make_sample(30, orphan=9, mem=1000),)
    facts = gather_facts(make_snapshot(orphan=PEAK, mem=390_000), (make_event("tcp_memory"),), samples)
    findings = [each.finding for each in trends(facts)]
    assert ["memory_rose_at_once", "orphans_rose_at_once"] == [finding.claim for finding in findings]
    # A peak is no limit, and none is printed as one.
    assert {None} == {each.limit for finding in findings for each in finding.evidence}


HOUR = 3600


@pytest.mark.parametrize(
    ("hours", "text"),
    [(5, "10:0"), (20, "2026-11-21 19:"), (40, "2026-11-20 23:"), (24 * 12, "2026-11-10 ")],
)
def test_a_leak_of_many_hours_or_days_is_told_with_its_beginning(hours: int, text: str) -> None:
    def value(ago: int) -> float:
        return 2000 + noise(ago) if ago > hours * HOUR else PEAK - (PEAK - 2000) * ago / HOUR / hours

    samples = downsample(history(value, span=29 * 24 * HOUR, step=300), NOW)
    trend = trend_of(samples)

    assert trend
    assert "slowly" == trend.shape
    assert not trend.at_least
    assert f"Orphans have grown steadily since {text}" in said(gather_facts(make_snapshot(orphan=PEAK), (), samples))


def test_a_step_of_yesterday_is_told_although_the_last_hours_are_flat() -> None:
    samples = downsample(history(lambda ago: (500 if ago > 26 * HOUR else 64_000) + noise(ago), span=48 * HOUR), NOW)
    trend = trend_of(samples)
    assert trend
    assert "in_a_step" == trend.shape
    assert 26 * HOUR <= trend.seconds < 28 * HOUR
    assert "Orphans rose in a step after 2026-11-21 1" in said(gather_facts(make_snapshot(orphan=PEAK), (), samples))


def test_the_last_hour_outweighs_the_days_before() -> None:
    samples = downsample(
        history(lambda ago: 500 + ago % 86_400 / 10 if ago > 300 else 600, span=9 * 86_400, step=60), NOW
    )
    trend = trend_of(samples)
    assert trend
    assert "at_once" == trend.shape


def test_days_that_rise_and_fall_are_no_leak() -> None:
    samples = downsample(history(lambda ago: 50_000 + 14_000 * cos(ago / 13_751), span=10 * 86_400, step=60), NOW)
    trend = trend_of(samples)
    assert trend is None or trend.seconds < 12 * HOUR
