from datetime import timedelta
from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st
from material import BOOT, NOW, make_sample

from agent.core.history.downsample import DAYS, LASTING_COUNTERS, downsample, extremes, hourly_extremes
from agent.core.model import Sample, UnitShare

HOUR, DAY = 3600, 86_400
SHARE = UnitShare(name="nginx.service", sockets=3, orphans=1, bytes=4096)

samples = st.builds(
    lambda ago, orphan, mem, boot: Sample(
        at=NOW - timedelta(seconds=ago), boot_id=boot, orphan=orphan, mem=mem, counters={"TCPAbortOnMemory": 7}
    ),
    st.integers(0, DAYS * DAY),
    st.none() | st.integers(0, 70_000),
    st.none() | st.integers(0, 70_000),
    st.sampled_from([BOOT, "another", None]),
)


def every(seconds: int, since: int, value: int = 100) -> list[Sample]:
    """Make samples of a calm host, every so many seconds from so long ago on."""
    return [make_sample(ago, orphan=value, mem=value) for ago in range(since, -1, -seconds)]


def unknown_boot_between() -> list[Sample]:
    """Make a reboot whose sides are parted by a sample that knows no boot."""
    boots = [BOOT, "another", None, BOOT]
    return [Sample(at=NOW - timedelta(seconds=9344 - number), boot_id=boot) for number, boot in enumerate(boots)]


@given(st.lists(samples, max_size=60, unique_by=lambda sample: sample.at))
@example(unknown_boot_between())
def test_no_peak_is_thinned_away_and_thinning_again_takes_nothing_more(found: list[Sample]) -> None:
    thinned = downsample(found, NOW)

    for name in ("orphan", "mem"):
        highest = max((getattr(each, name) for each in found if getattr(each, name) is not None), default=None)
        assert highest == max((getattr(s, name) for s in thinned if getattr(s, name) is not None), default=None)
    assert list(thinned) == sorted(thinned, key=lambda sample: sample.at)
    assert thinned == downsample(thinned, NOW)


@given(st.lists(samples, max_size=60, unique_by=lambda sample: sample.at), st.integers(0, 60))
def test_what_is_thinned_piece_by_piece_keeps_the_peak_of_the_whole(found: list[Sample], cut: int) -> None:
    earlier = downsample(found[:cut], NOW - timedelta(hours=2))
    late = [each for each in found[:cut] if each.at > NOW - timedelta(hours=2)]
    whole = [each.orphan for each in downsample(found, NOW) if each.orphan is not None]
    pieces = [each.orphan for each in downsample([*earlier, *late, *found[cut:]], NOW) if each.orphan is not None]

    assert max(whole, default=None) == max(pieces, default=None)


def test_the_last_ten_minutes_stay_whole_and_a_month_is_some_hundred_samples() -> None:
    dense = every(10, 3 * DAY)
    old = every(600, DAYS * DAY + DAY)
    thinned = downsample({each.at: each for each in (*old, *dense)}.values(), NOW)

    assert 61 == sum(NOW - each.at <= timedelta(minutes=10) for each in thinned)
    assert len(thinned) < 400
    assert timedelta(days=DAYS) - (NOW - thinned[0].at) < timedelta(minutes=10)


def test_a_short_peak_and_a_short_trough_of_yesterday_are_still_there() -> None:
    found = [*every(10, DAY), make_sample(20 * HOUR + 5, orphan=9_000), make_sample(9 * HOUR + 5, orphan=1)]
    assert {9_000, 1} < {each.orphan for each in downsample(found, NOW)}


def test_both_sides_of_a_reboot_and_of_a_counter_that_began_anew_are_kept() -> None:
    hour = [
        make_sample(HOUR * 8 - 10 * number, orphan=5, TCPAbortOnMemory=900 + number if number < 50 else number)
        for number in range(100)
    ]
    kept = downsample(hour, NOW)

    counts = [sample.counters["TCPAbortOnMemory"] for sample in kept]
    assert [(949, 50)] == [(before, after) for before, after in pairwise(counts) if after < before]


def test_a_reboot_is_found_across_a_sample_that_knows_no_boot() -> None:
    before, at_reboot, _, after = unknown_boot_between()
    assert (at_reboot, after) == downsample([before, at_reboot, *unknown_boot_between()[2:]], NOW)


def test_a_counter_that_is_not_kept_leaves_no_mark_that_is_lost_later() -> None:
    lasting = dict.fromkeys(LASTING_COUNTERS, 7)
    found = [make_sample(9 * HOUR - n, orphan=5, PruneCalled=9 - n, **lasting) for n in range(5)]
    thinned = downsample(found, NOW)
    assert thinned == downsample(thinned, NOW)


def test_a_host_that_boots_every_minute_does_not_fill_the_history() -> None:
    found = [
        Sample(at=NOW - timedelta(seconds=ago), boot_id=str(ago // 60), orphan=5) for ago in range(2 * DAY, 0, -10)
    ]
    assert len(downsample(found, NOW)) < 500


def test_the_newest_look_at_the_units_is_kept() -> None:
    named = [Sample(at=NOW - timedelta(hours=9, minutes=m), orphan=5, units=(SHARE,)) for m in (50, 40, 30)]
    kept = [each for each in downsample([*every(60, 12 * HOUR), *named], NOW) if each.units]
    assert named[-1] in kept


def test_old_samples_keep_the_counters_that_last() -> None:
    found = make_sample(DAY, TCPAbortOnMemory=7, TCPMemoryPressures=1, PruneCalled=3, OfoPruned=1)
    assert set(LASTING_COUNTERS) == set(downsample([found], NOW)[0].counters)


def test_what_is_too_old_goes_and_what_a_clock_set_back_has_left_in_the_future() -> None:
    found = [make_sample((DAYS + 1) * DAY), make_sample(5), make_sample(-3600)]
    assert (found[1],) == downsample(found, NOW)


def test_an_hour_leaves_its_peaks_of_four_gauges_behind() -> None:
    hour = [
        Sample(at=NOW - timedelta(seconds=10 * n), orphan=n == 9, mem=n == 99, tw=n == 199, alloc=n == 299)
        for n in range(360)
    ]
    left = hourly_extremes(hour)

    assert {1} == {max(getattr(each, name) for each in left) for name in ("orphan", "mem", "tw", "alloc")}
    assert len(left) <= 10
    assert [] == hourly_extremes([])


def test_stretches_of_any_length_keep_their_extremes() -> None:
    found = extremes([*every(10, HOUR), make_sample(1805, orphan=7_000)], 600)
    assert 7_000 in {each.orphan for each in found}
    assert len(found) < 30
