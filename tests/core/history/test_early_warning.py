from datetime import datetime, timedelta, timezone
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from agent.core.history.early_warning import Refused, assess, find_refusals
from agent.core.kernel.limits import COUNTERS
from agent.core.model import Pressure, Sample
from agent.core.readings import FullGroup

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


def test_a_warning_has_the_newest_number():
    assert 2_300 == assess(samples(orphan=[2_100, 2_200, 2_300]), None).value


def test_one_sample_is_no_warning_and_two_are():
    assert 0 == level(orphan=[5, 2_100])
    assert 2 == level(orphan=[2_100, 2_100])
    assert 3 == level(orphan=[4_200, 4_200])


def test_orphans_at_exactly_a_quarter_are_silent_as_the_kernel_is():
    assert 0 == level(orphan=[2_048, 2_048])
    assert 2 == level(orphan=[2_049, 2_049])


def test_memory_of_an_unknown_unit_warns_of_nothing_and_orphans_all_the_same():
    assert assess(samples(mem=[11_500] * 3), None, None) is None
    found = assess(samples(orphan=[2_100] * 3, mem=[11_500] * 3), None, None)
    assert "orphans" == (found and found.cause)


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


def grown(*seconds: float, pages_per_minute: float) -> list[Sample]:
    """Take samples so many seconds before now, of a memory that grows steadily up to half of its limit."""
    first = samples(mem=[0])[0]
    at = AT + timedelta(hours=1)
    return [
        replace(first, at=at - timedelta(seconds=each), mem=round(6_000 - each * pages_per_minute / 60))
        for each in seconds
    ]


# 6,000 pages are left: at 120 a minute 50 minutes, at 80 a minute 75.
@pytest.mark.parametrize(
    "seconds",
    [
        # By the clock, as in a storm whose snapshots are of every second, and where the service stood still meanwhile.
        range(590, -1, -10),
        [*range(590, 60, -10), *range(60, -1, -1)],
        [*range(590, 300, -10), *range(300, 200, -1), *range(200, -1, -10)],
        [*range(590, 400, -10), *range(150, -1, -10)],
    ],
)
def test_growth_is_projected_by_when_each_sample_was_taken(seconds) -> None:
    found = assess(grown(*seconds, pages_per_minute=120), None)
    assert found
    assert "will reach its limit within an hour" in found.claim
    assert assess(grown(*seconds, pages_per_minute=80), None) is None


def test_growth_of_half_a_minute_is_projected_to_nothing() -> None:
    assert assess(grown(*range(40, -1, -1), pages_per_minute=600), None) is None


def test_samples_without_the_gauge_put_no_other_of_before_in_their_place() -> None:
    long_ago = [replace(each, mem=1_300) for each in grown(*range(1_800, 600, -10), pages_per_minute=0)]
    missing = [replace(each, mem=None) for each in grown(*range(600, 300, -10), pages_per_minute=0)]
    assert assess([*long_ago, *missing, *grown(*range(300, -1, -10), pages_per_minute=0)], None) is None


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


def counted(*moves, press=False, seconds=10, boot="b") -> list[Sample]:
    """Samples whose counters move by so much from one to the next, with memory far below its limits."""
    found = [Sample(at=AT, boot_id=boot, orphan=3, mem=150, tcp_mem=TCP_MEM, press=press, counters={})]
    names = {name for each in moves for name in each}
    totals = dict.fromkeys(names, 1_000)
    for number, each in enumerate([{}, *moves]):
        totals = {name: total + each.get(name, 0) for name, total in totals.items()}
        at = AT + timedelta(seconds=seconds * number)
        found.append(replace(found[0], at=at, counters=totals))
    return found[1:]


def claim(samples_, before: Pressure | None = None) -> str | None:
    found = assess(samples_, before)
    return found and found.claim


REFUSED = "the kernel is dropping received TCP data for lack of socket memory"
ENTRIES = "TCP keeps running into memory pressure"
FLAG = "the kernel's TCP memory-pressure flag stays up"


@pytest.mark.parametrize(
    "moved",
    [
        {"TCPRcvQDrop": 20_000, "PruneCalled": 20_000},
        {"TCPOFODrop": 1_200},
        {"PruneCalled": 5_000},  # up to 4.18, and where the queue was empty
        {"PruneCalled": 9_000, "RcvPruned": 500, "TCPRcvCollapsed": 2_000, "TCPRcvQDrop": 700},
    ],
)
def test_refused_segments_warn_at_once_although_memory_looks_calm(moved):
    assert REFUSED == claim(counted(moved))
    assert 3 == assess(counted(moved), None).level


def test_a_few_refused_segments_warn_when_they_go_on():
    some = {"TCPRcvQDrop": 150, "PruneCalled": 160}

    assert None is claim(counted(some, {}))
    assert None is claim(counted({}, some))
    assert REFUSED == claim(counted(some, some))


def test_what_slow_readers_lose_is_no_warning():
    full = {"PruneCalled": 40_000, "RcvPruned": 30_000, "TCPRcvQDrop": 30_000, "TCPRcvCollapsed": 20_000}

    assert None is claim(counted(*[full] * 6))


def test_a_warning_of_refused_segments_lasts_until_a_quiet_minute_has_passed():
    before = assess(counted({"TCPRcvQDrop": 20_000}), None)

    assert REFUSED == claim(counted({"TCPRcvQDrop": 20_000}, *[{}] * 5), before)
    assert None is claim(counted({"TCPRcvQDrop": 20_000}, *[{}] * 6), before)
    assert REFUSED == claim(counted(*[{}] * 5, {"TCPRcvQDrop": 150}), before)
    assert None is claim(counted(*[{}] * 5, {"TCPRcvQDrop": 99}), before)


def test_entries_into_pressure_warn_though_the_flag_is_down_in_every_sample():
    assert ENTRIES == claim(counted({"TCPMemoryPressures": 50}))
    assert ENTRIES == claim(counted({"TCPMemoryPressures": 5}, {"TCPMemoryPressures": 6}))
    assert None is claim(counted({"TCPMemoryPressures": 2}, {"TCPMemoryPressures": 2}))


def test_the_pressure_flag_warns_when_it_stays_up():
    up = counted({}, press=True)

    assert FLAG == claim(up)
    assert 2 == assess(up, None).level
    assert None is claim([replace(up[0], press=False), up[1]])
    assert None is claim(up[1:])


def test_rates_are_of_ten_seconds_however_far_apart_the_samples_are():
    assert None is claim(counted(*[{"TCPRcvQDrop": 900}] * 3, seconds=3600))
    assert None is claim(counted(*[{"TCPRcvQDrop": 30}] * 15, seconds=1))
    assert REFUSED == claim(counted(*[{"TCPRcvQDrop": 30}] * 40, seconds=1))


def test_counters_that_start_anew_show_nothing():
    first, last = counted({"TCPRcvQDrop": 20_000})

    assert None is claim([last, replace(first, at=last.at + timedelta(seconds=10))])


def test_samples_of_an_older_version_count_other_namespaces_less_and_show_nothing():
    first, last = counted({"TCPRcvQDrop": 20_000})

    assert None is claim([replace(first, press=None), last])
    assert REFUSED == claim([replace(first, press=None), replace(last, press=None)])


def test_full_memory_outranks_what_it_does():
    full = [replace(each, mem=11_900) for each in counted({"TCPRcvQDrop": 20_000}, press=True)]

    assert "TCP memory is at its limit" == claim(full)


def test_a_warning_of_refused_segments_does_not_hold_up_one_of_memory():
    before = assess(counted({"TCPRcvQDrop": 20_000}), None)

    assert None is claim([replace(each, mem=8_500) for each in counted({})][1:], before)


def test_a_cgroup_at_its_own_limit_with_its_sockets_warns_by_its_name():
    group = FullGroup(path="/system.slice/shop.service", current_bytes=99, limit_bytes=100, sock_bytes=60, refused=4)
    found = assess(counted({}), None, groups=(group,))

    assert "shop.service is at its own memory limit, most of it socket memory" == found.claim
    assert (2, 99, 100, "bytes") == (found.level, found.value, found.limit, found.unit)
    assert None is assess(counted({}), found)


def test_a_busy_healthy_host_is_quiet_for_an_hour():
    chance = Random(11)
    moves, kept = [], None
    for _ in range(360):
        burst = chance.random() < 0.1
        pruned = chance.randrange(30_000 if burst else 400)
        rcv_pruned = pruned // 3
        moves.append(
            {
                "PruneCalled": pruned,
                "RcvPruned": rcv_pruned,
                "TCPRcvCollapsed": 2 * pruned,
                "TCPRcvQDrop": rcv_pruned // 2,
                "TCPOFODrop": rcv_pruned // 3 + (400 if chance.random() < 0.02 and not burst else 0),
                "TCPMemoryPressures": int(burst and chance.random() < 0.2),
                "TCPZeroWindowDrop": chance.randrange(900),
                "ListenDrops": chance.randrange(50),
            }
        )
    hour = counted(*moves)
    hour = [replace(each, mem=7_000 + chance.randrange(900), press=chance.random() < 0.01) for each in hour]
    for end in range(1, len(hour) + 1):
        kept = assess(hour[:end], kept)
        assert None is kept, end


@given(
    st.lists(
        st.builds(
            Sample,
            at=st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1), timezones=st.just(timezone.utc)),  # noqa: DTZ001
            orphan=st.none() | st.integers(-5, 2**40),
            mem=st.none() | st.integers(-5, 2**40),
            tcp_mem=st.none() | st.tuples(*[st.integers(-5, 2**40)] * 3),
            tcp_max_orphans=st.none() | st.integers(-5, 2**40),
            press=st.none() | st.booleans(),
            counters=st.dictionaries(st.sampled_from(COUNTERS), st.integers(-5, 2**64)),
        ),
        max_size=80,
    )
)
def test_any_history_gives_an_answer(history):
    found = assess(sorted(history, key=lambda s: s.at), None)

    assert found is None or 1 <= found.level <= 3


# --- refusals in the kernel's trace ---------------------------------------------------------------------------------


def refused(*looks: tuple[float, int, int]) -> list[Refused]:
    """Make looks from their age in seconds, refusals, and pages that TCP had."""
    return [Refused(AT - timedelta(seconds=ago), times, pages) for ago, times, pages in looks]


def refusals(*looks: tuple[float, int, int], before: Pressure | None = None) -> list[tuple[int, int]]:
    found = find_refusals(refused(*looks), AT, TCP_MEM, before=before)
    return [(each.level, each.value) for each in found]


def test_refusals_warn_by_what_tcp_had_allocated():
    assert [(3, 10)] == refusals((1, 10, 12_001))
    assert [(2, 10)] == refusals((1, 10, 12_000))
    assert [(2, 10)] == refusals((1, 10, 6_001))
    assert [] == refusals((1, 99, 6_000))
    assert [(2, 100)] == refusals((1, 100, 6_000))


def test_refusals_too_few_to_notice_warn_of_nothing():
    assert [] == refusals(*((second, 1, 13_000) for second in range(0, 60, 2)))
    assert [(3, 10)] == refusals(*((second, 1, 13_000) for second in range(10)))


def test_refusals_are_left_after_a_quiet_minute():
    [before] = find_refusals(refused((1, 178, 13_000)), AT, TCP_MEM)
    assert [(3, 178)] == refusals((59, 178, 13_000), before=before)
    assert [] == refusals((61, 178, 13_000), before=before)
    assert [] == refusals((30, 178, 13_000))


def test_refusals_are_reported_with_their_number_and_sizes():
    [found] = find_refusals(refused((1, 178, 13_000)), AT, TCP_MEM)
    assert "the kernel refuses memory to open TCP connections: 178 times in 10 s; 13,000 pages allocated of 12,000" == (
        found.claim
    )


def test_refusals_go_by_the_limits_of_their_own_moment():
    looks = [Refused(AT, 10, 700, (500, 600, 650))]
    assert [3] == [each.level for each in find_refusals(looks, AT, TCP_MEM)]


def test_refusals_of_unknown_size_or_unit_warn_of_nothing():
    assert [] == find_refusals([Refused(AT, 1000, None)], AT, TCP_MEM)
    assert [] == find_refusals(refused((1, 1000, 13_000)), AT, None)
    assert [] == find_refusals(refused((1, 1000, 13_000)), AT, TCP_MEM, None)


def test_refusals_open_a_warning_where_the_gauges_are_calm():
    calm = samples(mem=[150, 150])
    looks = [Refused(calm[-1].at, 20, 12_001)]
    found = assess(calm, None, refused=looks)
    assert 3 == (found and found.level)
