from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from material import make_snapshot

from agent.core.kernel.limits import (
    COUNTERS,
    Zone,
    are_buffer_sizes,
    counter_deltas,
    default_limits,
    is_far_below,
    is_just_below,
    is_much,
    limits_of,
    modest_limits,
    most_orphans,
    penalty_shift,
    refused_segments,
    reserve_bytes,
    sample_of,
    zone,
)
from agent.core.kernel.procfs import UDP_ERRORS
from agent.core.kernel.release import (
    Kernel,
    has_small_pages,
    inexact_pages,
    orphan_error,
    parse_kernel,
    units_per_page,
)
from agent.core.model import Sample, Snapshot
from agent.core.readings import Elsewhere

MIB = 1 << 20


@pytest.mark.parametrize(
    ("release", "version", "el"),
    [
        ("2.6.32-431.el6.x86_64", (2, 6, 32), 6),
        ("3.10.0-1160.el7.x86_64", (3, 10, 0), 7),
        ("4.18.0-147.el8.x86_64", (4, 18, 0), 8),
        ("5.10.0-30-cloud-amd64", (5, 10, 0), None),
        ("5.4.17-2102.201.3.el7uek.x86_64", (5, 4, 17), 7),
        ("4.14.355-196.639.amzn1.x86_64", (4, 14, 355), 6),
        ("4.14.355-275.572.amzn2.x86_64", (4, 14, 355), None),
        ("6.19", (6, 19, 0), None),
        ("Linux version 2.4.1 (gcc)", (2, 4, 1), None),
    ],
)
def test_kernel_release_is_read(release: str, version: tuple[int, int, int], el: int | None) -> None:
    assert Kernel(version, el) == parse_kernel(release)


@pytest.mark.parametrize("release", [None, "", "not stated (2022, EC2)", "GNU", "x.y.z"])
def test_no_kernel_release_is_made_up(release: str | None) -> None:
    assert None is parse_kernel(release)


@pytest.mark.parametrize(
    ("release", "expected"),
    [("4.9.0", 1), ("4.10.17", 16), ("4.18.0-240.el8", 16), ("5.19.0", 16), ("6.0.0", 1), (None, None)],
)
def test_mem_is_in_4096_bytes_from_4_10_to_5_19(release: str | None, expected: int | None) -> None:
    assert expected == units_per_page(parse_kernel(release), 65536)


def test_the_file_of_the_reserves_proves_pages_and_reserves_whatever_the_release_says() -> None:
    el9 = parse_kernel("5.14.0-503.11.1.el9_5.aarch64+64k", has_reserve_file=True)
    assert (1, 4 * 16) == (units_per_page(el9, 65536), inexact_pages(el9, 4, 65536, 16))


@pytest.mark.parametrize(
    ("release", "page", "expected"),
    [
        ("6.1.0", None, 1),
        ("4.9.0", None, 1),
        ("4.18.0", 65536, 16),
        ("4.18.0", None, None),
        ("4.18.0", 1024, None),
        (None, 4096, 1),
        (None, 65536, None),
        (None, None, None),
    ],
)
def test_without_a_page_size_only_a_kernel_that_counts_pages_can_be_held_against_tcp_mem(
    release: str | None, page: int | None, expected: int | None
) -> None:
    assert expected == units_per_page(parse_kernel(release), page)


@pytest.mark.parametrize(
    "release",
    [
        "5.14.0-427.13.1.el9_4.aarch64+64k",
        "4.18.0-553.el8_10.aarch64",
        "4.18.0-240.el8.ppc64le",
        "3.10.0-1160.el7.ppc64",
        "6.1.0-28-arm64",
        "6.1.0-28-arm64-16k",
        "6.8.0-60-generic-64k",
        "6.1.0-28-powerpc64le",
        "6.1.0-28-mips64el",
        "6.1.0-28-5kc-malta",
        "6.1.0-28-octeon",
        "6.1.0-28-loongson-3",
        "6.12.0-1-loong64",
        "4.19.0-1-itanium",
        "5.10.0-8-sparc64-smp",
        "6.6.31+rpt-rpi-2712",
        "6.11.0-asahi-1-1-edge-ARCH",
        "6.1.21-v8-16k+",
    ],
)
def test_a_release_that_can_have_large_pages_is_known_by_its_name(release: str) -> None:
    assert not has_small_pages(release)


@pytest.mark.parametrize(
    "release",
    [
        None,
        "5.10.0-30-amd64",
        "3.10.0-1160.el7.x86_64",
        "6.8.0-60-generic",
        "6.1.170",
        "2.6.32-042stab120.11",
        "6.1.0-28-686-pae",
        "6.1.0-28-s390x",
        "6.1.0-28-armmp-lpae",
        "6.4.0-150600.23-default",
        "6.12.107+deb13-cloud-amd64",
    ],
)
def test_other_releases_have_pages_of_4096_bytes(release: str | None) -> None:
    assert has_small_pages(release)


@pytest.mark.parametrize(
    ("release", "cpus", "reserve", "expected"),
    [
        ("5.19.0", 192, None, 0),
        ("6.1.0", 192, None, 192 * MIB),
        ("6.12.0", 2, 16, 2 * 16 * 4096),
        ("6.12.0", None, 16, 0),
        (None, 4, None, 0),
    ],
)
def test_mem_is_inexact_by_what_the_cpus_hold_back(
    release: str | None, cpus: int | None, reserve: int | None, expected: int
) -> None:
    assert expected == 4096 * inexact_pages(parse_kernel(release), cpus, 4096, reserve)


@pytest.mark.parametrize(
    ("mem", "expected"),
    [
        (0, "calm"),
        (43256, "calm"),
        (43257, "hysteresis"),
        (57676, "hysteresis"),
        (57677, "pressure"),
        (82188, "pressure"),
        (82189, "at_limit"),
        (86514, "at_limit"),
        (86515, "over"),
    ],
)
def test_zone_follows_the_three_limits(mem: int, expected: Zone) -> None:
    assert expected == zone(mem, (43257, 57676, 86514))


@pytest.mark.parametrize(
    ("orphan", "limit", "expected"),
    [
        (0, 65536, None),
        (16384, 65536, None),
        (16385, 65536, 2),
        (32768, 65536, 2),
        (32769, 65536, 1),
        (62259, 65536, 1),
        (62260, 65536, 0),
        (65536, 65536, 0),
        (65537, 65536, 0),
        (242, 400, 1),
        (0, 0, 0),
        (5, -1, 0),
        (0, 1, None),
    ],
)
def test_penalty_shift_is_the_kernels_own_arithmetic(orphan: int, limit: int, expected: int | None) -> None:
    assert expected == penalty_shift(orphan, limit)


def test_orphans_killed_before_the_reading_count_for_the_limit_that_was_reached() -> None:
    # A booted 6.1: 240 of 400, 45 killed at a half of the limit, 195 left when it was read.
    assert 2 == penalty_shift(195, 400)
    assert 1 == penalty_shift(195, 400, most=240)


def test_a_kernel_that_counts_anew_every_100_ms_kills_far_below_its_limit_without_a_penalty() -> None:
    # A booted 5.10: 134 of 128, and timers went on killing by the count of a moment ago.
    assert 1 == penalty_shift(84, 128)
    assert 0 == penalty_shift(84, 128, most=190, exact=False)
    assert 1 == penalty_shift(84, 128, most=190)
    # What a storm killed in a minute was not there at once.
    assert penalty_shift(3, 128, most=5000, exact=False) is None
    assert penalty_shift(20, 128, most=190, exact=False) is None
    assert penalty_shift(32, 128, most=190, exact=False) is None


def test_orphans_that_reached_the_limit_and_not_more_needed_no_penalty() -> None:
    assert 0 == penalty_shift(84, 128, most=128)
    assert penalty_shift(0, 1, most=5) is None
    assert penalty_shift(0, 3, most=5) is None


@pytest.mark.parametrize(
    ("release", "anew"),
    [("5.10.0-32-cloud-amd64", True), ("5.15.16", True), ("6.1.0", True), ("5.4.0", False), ("4.18.0-240.el8", False)],
)
def test_which_kernels_count_the_orphans_anew_every_100_ms(release: str, anew: bool) -> None:  # noqa: FBT001 - a table
    kernel = parse_kernel(release)
    assert kernel is not None
    assert anew == kernel.counts_orphans_anew


def test_a_kernel_with_the_reserves_of_2022_has_the_orphan_count_of_2021_too() -> None:
    kernel = parse_kernel("5.14.0-427.el9.x86_64", has_reserve_file=True)
    assert kernel
    assert kernel.counts_orphans_anew


def read(second: int, orphan: int | None, killed: int | None) -> Sample:
    counters = {} if killed is None else {"TCPAbortOnMemory": killed}
    at = datetime(2026, 11, 22, 15, 5, tzinfo=timezone.utc) + timedelta(seconds=second)
    return Sample(at=at, orphan=orphan, counters=counters)


def test_most_orphans_are_those_of_a_reading_and_the_killed_since_the_one_before() -> None:
    assert 0 == most_orphans([], 128)
    assert 0 == most_orphans([read(0, 84, 106)], 128)
    assert 190 == most_orphans([read(0, 0, 0), read(3, None, 50), read(5, 84, 106), read(6, 90, None)], 128)
    # A booted 6.12: half of 400 was passed, and read again when the kernel had killed a few too many.
    rising = [read(0, 0, 0), read(10, 164, 0), read(12, 198, 42)]
    assert 240 == most_orphans(rising, 400)
    assert 0 == most_orphans(rising[1:], 400)
    assert 1 == penalty_shift(198, 400, most=240, exact=False)


def test_what_is_killed_while_the_orphans_hover_was_not_there_at_once() -> None:
    hovering = [read(10 * n, 195, 1000 * n) for n in range(30)]
    assert 0 == most_orphans(hovering, 400)
    assert 295 == most_orphans([read(-10, 12, 900), read(-9, 195, 1000), *hovering[1:]], 400)


def test_orphans_came_up_where_they_grew_by_a_tenth_or_from_a_quarter_of_the_limit() -> None:
    quiet = [read(0, 100, 0), read(1, 100, 0)]
    assert 115 == most_orphans([*quiet, read(2, 110, 5)], 128)
    assert 0 == most_orphans([*quiet, read(2, 109, 5)], 128)
    assert 185 == most_orphans([read(0, 20, 5), read(5, 84, 106)], 128)
    assert 185 == most_orphans([read(0, 32, 5), read(5, 84, 106)], 128)
    assert 0 == most_orphans([read(0, 33, 5), read(5, 84, 106)], 128)


@given(st.integers(0, 2**31), st.integers(1, 2**31))
def test_penalty_shift_is_none_exactly_where_four_times_the_count_fits(orphan: int, limit: int) -> None:
    assert (4 * orphan <= limit) == (penalty_shift(orphan, limit) is None)


def test_orphans_are_counted_inexactly_on_el6_alone() -> None:
    assert 48 * 96 == orphan_error(parse_kernel("2.6.32-358.el6.x86_64"), 48)
    assert 0 == orphan_error(parse_kernel("2.6.32-5-amd64"), 48)
    assert 0 == orphan_error(parse_kernel("3.10.0-1160.el7.x86_64"), 48)


def test_counters_that_ran_backwards_or_are_missing_are_left_out_and_one_that_stood_still_is_not() -> None:
    before = {"TCPAbortOnMemory": 5, "PruneCalled": 7, "RcvPruned": 1, "TCPOFODrop": 2}
    after = {"TCPAbortOnMemory": 9, "PruneCalled": 0, "New": 3, "TCPOFODrop": 2}
    assert {"TCPAbortOnMemory": 4, "TCPOFODrop": 0} == counter_deltas(before, after)


@pytest.mark.parametrize(
    ("deltas", "expected"),
    [
        ({}, 0),
        ({"TCPRcvQDrop": 9}, 9),
        ({"TCPOFODrop": 5}, 5),
        ({"TCPRcvQDrop": 9, "TCPOFODrop": 5, "RcvPruned": 4}, 10),
        ({"PruneCalled": 10}, 10),
        ({"PruneCalled": 10, "RcvPruned": 1, "OfoPruned": 3, "TCPRcvCollapsed": 2}, 4),
        ({"PruneCalled": 3, "TCPRcvCollapsed": 700}, 0),
    ],
)
def test_what_a_full_buffer_of_one_socket_explains_is_no_refusal(deltas: dict[str, int], expected: int) -> None:
    assert expected == refused_segments(deltas)


def test_a_reading_from_95_percent_of_the_limit_on_is_the_limit_at_work() -> None:
    assert [False, True, True] == [is_just_below(value, 1000) for value in (949, 950, 1001)]


def test_a_limit_below_a_third_of_the_default_was_lowered_by_somebody() -> None:
    assert [True, False] == [is_far_below(limit, 300) for limit in (99, 100)]
    assert not is_far_below(1, None)


@pytest.mark.parametrize("values", [None, (), (1,), (1, 2), (1, 2, 3, 4)])
def test_limits_that_are_not_three_are_none(values: tuple[int, ...] | None) -> None:
    assert None is limits_of(values)


def test_limits_from_2_to_the_63rd_on_are_negative_to_the_kernel() -> None:
    assert (2**63 - 1, -(2**63), -1) == limits_of((2**63 - 1, 2**63, 2**64 - 1))


def test_sample_keeps_absent_apart_from_zero() -> None:
    snapshot = make_snapshot(orphan=0, mem=None, counters={"TCPAbortOnMemory": 0, "IgnoredName": 4})
    sample = sample_of(snapshot)
    assert (0, None, {"TCPAbortOnMemory": 0}) == (sample.orphan, sample.mem, sample.counters)


def test_sample_of_an_empty_snapshot_is_empty() -> None:
    sample = sample_of(Snapshot(taken_at=make_snapshot().taken_at, trigger="event"))
    assert (None, None, {}) == (sample.orphan, sample.mem, sample.counters)


def test_a_sample_has_every_gauge_and_the_counters_of_all_namespaces() -> None:
    moved = {"pod": {"TCPAbortOnMemory": 4}}
    snapshot = make_snapshot(
        orphan=7,
        mem=1200,
        alloc=900,
        press=True,
        counters={"TCPAbortOnMemory": 3, "PruneCalled": 1},
        elsewhere=Elsewhere(counters={"TCPAbortOnMemory": 4}, gone={"TCPAbortOnMemory": 1}, moved=moved),
        snmp={UDP_ERRORS: 2},
    )
    expected = Sample(
        at=snapshot.taken_at,
        boot_id=snapshot.boot_id,
        orphan=7,
        mem=1200,
        tw=20,
        alloc=900,
        inuse=900,
        tcp_mem=(190455, 253940, 380910),
        tcp_max_orphans=65536,
        press=True,
        counters={"TCPAbortOnMemory": 7, "PruneCalled": 1, UDP_ERRORS: 2},
        gone={"TCPAbortOnMemory": 1},
        moved=moved,
    )
    assert expected == sample_of(snapshot)


def test_counters_are_named_once() -> None:
    assert len(set(COUNTERS)) == len(COUNTERS)
    assert "TCPAbortOnMemory" in COUNTERS


GIB = 1 << 30


@pytest.mark.parametrize(
    ("release", "meminfo", "page", "tcp_mem", "orphans"),
    [
        # Seen: 24 GiB gives itself 287898 383867 575796 and 131,072, RHEL 5 the same at any size.
        ("6.18.44", {"MemTotal": 24570628 << 10}, 4096, (287937, 383916, 575874), 131072),
        ("2.4.21-60.EL", {"MemTotal": 1 * GIB}, 4096, None, None),
        ("2.6.18-419.el5", {"MemTotal": 64 * GIB}, 4096, (196608, 262144, 393216), 65536),
        ("2.6.18-419.el5", {"MemTotal": 1 * GIB}, 4096, (196608, 262144, 393216), 65536),
        ("2.6.18-419.el5PAE", {"MemTotal": 8 * GIB, "HighTotal": 7 * GIB}, 4096, (98304, 131072, 196608), 32768),
        ("2.6.18-419.el5", {"MemTotal": 128 * MIB}, 4096, (12288, 16384, 24576), 4096),
        ("2.6.18-419.el5", {"MemTotal": 64 * MIB}, 4096, (6144, 8192, 12288), 8192),
        ("2.6.18-419.el5", {"MemTotal": 32 * MIB}, 4096, (3072, 4096, 6144), 4096),
        ("2.6.18-419.el5.ppc64", {"MemTotal": 256 * MIB}, 65536, (1536, 2048, 3072), 2048),
        ("2.6.19", {"MemTotal": 4 * GIB}, 4096, None, 65536),
        ("2.6.20", {"MemTotal": 4 * GIB}, 4096, None, 65536),
        ("2.6.21", {"MemTotal": 4 * GIB}, 4096, (393216, 524288, 786432), 65536),
        ("2.6.24", {"MemTotal": 256 * MIB}, 4096, (24576, 32768, 49152), 8192),
        ("2.6.24", {"MemTotal": 512 * MIB}, 4096, (49152, 65536, 98304), 65536),
        (
            "2.6.24-i686",
            {"MemTotal": 4 * GIB, "LowTotal": 256 * MIB, "HighTotal": 3840 * MIB},
            4096,
            (24576, 32768, 49152),
            16384,
        ),
        ("2.6.24", {"MemTotal": 4 * GIB}, 4096, (393216, 524288, 786432), 65536),
        ("2.6.32-754.el6.x86_64", {"MemTotal": 16 * GIB}, 4096, (1572864, 2097152, 3145728), 262144),
        ("2.6.32", {"MemTotal": 128 << 20}, 4096, (6144, 8192, 12288), None),
        ("2.6.32", {"MemTotal": 4 * MIB}, 4096, (96, 128, 192), None),
        ("2.6.35", {"MemTotal": 4 * GIB}, 4096, (393216, 524288, 786432), None),
        ("2.6.36", {"MemTotal": 4 * GIB}, 4096, (393216, 524288, 786432), 262144),
        ("3.0.27", {"MemTotal": GIB}, 4096, (24576, 32768, 49152), 65536),
        ("3.4.0", {"MemTotal": GIB}, 4096, (24576, 32768, 49152), 65536),
        ("3.5.0", {"MemTotal": GIB}, 4096, (24576, 32768, 49152), None),
        ("3.10.0-1160.el7.ppc64", {"MemTotal": 16 * GIB}, None, None, 65536),
        ("3.10.0-1160.el7.x86_64", {"MemTotal": 16 * GIB}, 4096, (393216, 524288, 786432), 65536),
        ("4.1.6", {"MemTotal": 16 * GIB}, 4096, (393216, 524288, 786432), 65536),
        ("4.2.0", {"MemTotal": 16 * GIB}, 4096, (196608, 262144, 393216), 65536),
        ("5.10.103-v7l+", {"MemTotal": 3989504 << 10, "LowTotal": 798720 << 10}, 4096, (9360, 12480, 18720), 4096),
        ("4.18.0-553.el8.aarch64", {"MemTotal": 16 * GIB}, 65536, (12288, 16384, 24576), 65536),
        ("4.18.0-553.el8.aarch64", {"MemTotal": 16 * GIB}, None, None, 65536),
        ("2.6.18-419.el5.ppc64", {"MemTotal": 16 * GIB}, None, None, None),
        ("2.6.32-754.el6.ppc64", {"MemTotal": 16 * GIB}, None, None, None),
        ("6.12.0", {"MemTotal": 16 * GIB, "MovableTotal": 8 * GIB}, 4096, (98304, 131072, 196608), 65536),
        ("6.12.0", {"MemTotal": 1024 * GIB}, 4096, (12582912, 16777216, 25165824), 262144),
        # The number of slots is rounded up to a power of two.
        ("6.12.0", {"MemTotal": 8 * GIB + 128 * 1024}, 4096, (98304, 131074, 196608), 65536),
        ("6.12.0", {"MemTotal": 4 * MIB}, 4096, (96, 128, 192), 16),
        ("6.12.0", {}, 4096, None, None),
        (None, {"MemTotal": 16 * GIB}, 4096, None, None),
    ],
)
def test_a_default_is_what_tcp_init_works_out(
    release: str | None,
    meminfo: dict[str, int],
    page: int | None,
    tcp_mem: tuple[int, ...] | None,
    orphans: int | None,
) -> None:
    assert (tcp_mem, orphans) == default_limits(parse_kernel(release), meminfo, page)


def test_the_smallest_limits_that_a_kernel_gives_itself_are_of_a_sixteenth_of_ram() -> None:
    assert (196608, 262144, 393216) == modest_limits(16 * GIB, 4096)
    assert (12288, 16384, 24576) == modest_limits(16 * GIB, 65536)
    assert (96, 128, 192) == modest_limits(4 * MIB, 4096)


@given(st.integers(0, 2**64), st.integers(0, 2**64), st.sampled_from([None, 4096, 65536]), st.integers(0, 20))
def test_a_default_is_worked_out_for_any_host(total: int, low: int, page: int | None, minor: int) -> None:
    for major in ("2.6", "3", "4", "7"):
        default_limits(parse_kernel(f"{major}.{minor}"), {"MemTotal": total, "LowTotal": low, "HighTotal": low}, page)


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ((4096, 87380, 16777216), True),
        ((4096, 16384, 4194304), True),
        ((10240, 87380, 12582912), True),
        ((4096, 131072, 6291456), True),
        ((190455, 253940, 380910), False),
        ((65536, 131072, 1048576), False),
        ((2048, 3072, 4096), False),
        ((0, 0, 0), False),
        ((4, 5, 6), True),
        ((7, 8, 9), True),
        ((65536, 65536, 1048576), True),
        ((131072, 262144, 16777216), False),
    ],
)
def test_sizes_of_a_buffer_are_no_pages(numbers: tuple[int, int, int], *, expected: bool) -> None:
    assert expected == are_buffer_sizes(numbers, {"net.ipv4.tcp_rmem": (4, 5, 6), "net.ipv4.tcp_wmem": (7, 8, 9)})


@pytest.mark.parametrize(
    ("ram", "kept"), [(0, 0), (1_000, 50), (64 << 30, 3_435_973_836), ((64 << 30) + 1_000, 3_435_973_846)]
)
def test_a_twentieth_of_ram_has_to_stay_free_and_a_hundredth_of_what_is_beyond_64_gib(ram: int, kept: int) -> None:
    assert kept == reserve_bytes(ram)


def test_from_a_quarter_of_ram_on_much_is_available() -> None:
    assert is_much(250, 1000)
    assert not is_much(249, 1000)
