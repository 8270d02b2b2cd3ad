from datetime import datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from agent.core.history.early_warning import assess
from agent.core.model import Pressure, Sample

AT = datetime(2026, 11, 22, 15, tzinfo=timezone.utc)
TCP_MEM = (6_000, 8_000, 12_000)
MAX_ORPHANS = 8_192


def samples(*, orphan=(), mem=(), boot="b") -> list[Sample]:
    count = max(len(orphan), len(mem))
    pad = [None] * count
    return [
        Sample(
            at=AT + timedelta(seconds=10 * i),
            boot_id=boot,
            orphan=(list(orphan) or pad)[i],
            mem=(list(mem) or pad)[i],
            tcp_mem=TCP_MEM,
            tcp_max_orphans=MAX_ORPHANS,
        )
        for i in range(count)
    ]


def level(before: Pressure | None = None, **gauges) -> int:
    found = assess(samples(**gauges), before)
    return found.level if found else 0


def warning(level_: int, cause="orphans") -> Pressure:
    return Pressure(level=level_, cause=cause, claim="c", value=1, limit=1)


def test_a_quiet_host_and_an_empty_history_warn_of_nothing():
    assert assess([], None) is None
    assert 0 == level(orphan=[3] * 60, mem=[150] * 60)


def test_one_sample_is_no_warning_and_two_are():
    assert 0 == level(orphan=[5, 2_100])
    assert 2 == level(orphan=[2_100, 2_100])
    assert 3 == level(orphan=[4_200, 4_200])


def test_orphans_at_exactly_a_quarter_are_silent_as_the_kernel_is():
    assert 0 == level(orphan=[2_048, 2_048])
    assert 2 == level(orphan=[2_049, 2_049])


def test_memory_warns_above_pressure_and_at_its_limit():
    assert 0 == level(mem=[8_000, 8_000])
    assert 2 == level(mem=[8_001, 8_001])
    assert 3 == level(mem=[11_500, 11_500])


def test_memory_stays_in_pressure_until_the_kernel_leaves_it():
    before = warning(2, "tcp_memory")

    assert 2 == level(before, mem=[8_100, 6_001])
    assert 0 == level(before, mem=[8_100, 6_000])


def test_orphans_are_left_below_four_fifths_of_the_threshold():
    assert 2 == level(warning(2), orphan=[2_100, 1_700])
    assert 0 == level(warning(2), orphan=[2_100, 1_600])
    assert 2 == level(warning(3), orphan=[4_200, 3_000])


def test_a_warning_of_memory_does_not_hold_up_one_of_orphans():
    assert 0 == level(warning(2, "tcp_memory"), orphan=[2_100, 1_700])


def test_growth_that_reaches_the_limit_within_the_hour_is_told_early():
    rise = [1_300 + 40 * i for i in range(60)]

    assert 1 == level(mem=rise)
    assert "TCP memory is growing and will reach its limit within an hour" == assess(samples(mem=rise), None).claim


def test_slow_growth_and_noise_are_not_told():
    assert 0 == level(mem=[1_300 + i for i in range(60)])
    assert 0 == level(mem=[1_300 + 300 * (i % 2) for i in range(60)])
    assert 0 == level(mem=[10 + 10 * i for i in range(60)])


def test_the_worst_of_both_sides_is_told():
    found = assess(samples(orphan=[2_100] * 2, mem=[11_900] * 2), None)

    assert ("tcp_memory", 3) == (found.cause, found.level)


def test_units_of_4096_bytes_are_held_against_pages_of_64_kib():
    assert assess(samples(mem=[16 * 8_000, 16 * 8_000]), None, 1 / 16) is None
    assert 2 == assess(samples(mem=[16 * 8_001, 16 * 8_001]), None, 1 / 16).level


def test_samples_of_another_boot_do_not_count():
    assert assess([*samples(orphan=[4_200], boot="a"), *samples(orphan=[4_200], boot="b")], None) is None


def test_unknown_limits_warn_of_nothing():
    assert assess([Sample(at=AT, orphan=10**6, mem=10**6)] * 2, None) is None


@given(
    st.lists(
        st.builds(
            Sample,
            at=st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1), timezones=st.just(timezone.utc)),  # noqa: DTZ001
            orphan=st.none() | st.integers(-5, 2**40),
            mem=st.none() | st.integers(-5, 2**40),
            tcp_mem=st.none() | st.tuples(*[st.integers(-5, 2**40)] * 3),
            tcp_max_orphans=st.none() | st.integers(-5, 2**40),
        ),
        max_size=80,
    )
)
def test_any_history_gives_an_answer(history):
    found = assess(sorted(history, key=lambda s: s.at), None)

    assert found is None or 1 <= found.level <= 3
