from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from stories import LIMIT, OPENED, TCP_MEM, make_samples, make_snapshot, make_story

from agent.core.diagnosis.diagnose import diagnose
from agent.core.model import Diagnosis, Incident, Mechanism, Sample
from agent.page.series import BLOCKS, Level, Point, Track, build_tracks, count_up, sparkline, thin, window

INCIDENT = make_story().incident


def at(seconds: float) -> Sample:
    return Sample(at=OPENED + timedelta(seconds=seconds), boot_id="a", orphan=int(abs(seconds)), mem=10)


def track(*values: int, limit: int | None = 800) -> Track:
    run = tuple(Point(OPENED + timedelta(seconds=10 * n), value) for n, value in enumerate(values))
    return Track("orphan", (run,), (Level("limit", limit),) if limit else ())


def test_window_reaches_from_an_hour_before_to_ten_minutes_after() -> None:
    assert INCIDENT.closed_at is not None

    assert (OPENED - timedelta(hours=1), INCIDENT.closed_at + timedelta(minutes=10)) == window(INCIDENT)


def test_an_open_incident_is_looked_at_up_to_its_last_event() -> None:
    still = replace(INCIDENT, closed_at=None)

    assert still.last_seen_at + timedelta(minutes=10) == window(still)[1]


def test_tracks_hold_samples_and_snapshots_in_order_and_nothing_from_outside() -> None:
    outside = replace(at(0), at=OPENED - timedelta(hours=5), orphan=99_999)

    orphans = build_tracks(INCIDENT, [make_snapshot(5.2)], [at(20), outside, at(-30)]).orphans

    assert [-30.0, 5.2, 20.0] == [(point.at - OPENED).total_seconds() for point in orphans.points]


def test_levels_are_the_kernels_own_thresholds() -> None:
    tracks = build_tracks(INCIDENT, [make_snapshot(0)], make_samples())

    assert [("limit", LIMIT), ("half", LIMIT // 2), ("quarter", LIMIT // 4)] == list(tracks.orphans.levels)
    assert [4096 * pages for pages in reversed(TCP_MEM)] == [level.value for level in tracks.memory.levels]


@pytest.mark.parametrize(
    ("kernel", "unit"),
    [("3.10.0-1160.el7.ppc64", 65_536), ("4.18.0-305.el8.aarch64", 4096), ("6.1.0-30-arm64", 65_536)],
)
def test_memory_is_compared_in_bytes_whatever_the_kernel_counts_in(kernel: str, unit: int) -> None:
    snapshot = make_snapshot(0, kernel=kernel, page_size_bytes=65_536)
    incident = replace(INCIDENT, diagnosis=diagnose(snapshot, (), ()))

    memory = build_tracks(incident, [snapshot], [at(10)]).memory

    assert 10 * unit == memory.points[-1].value
    assert TCP_MEM[2] * 65_536 == memory.limit


def test_no_memory_is_drawn_where_the_page_size_is_unknown() -> None:
    snapshot = make_snapshot(0, kernel="6.1.0-30-arm64", page_size_bytes=None)
    incident = replace(INCIDENT, diagnosis=diagnose(snapshot, (), ()))

    tracks = build_tracks(incident, [snapshot], [at(10)])

    assert (None, (), ()) == (tracks.mem_unit_bytes, tracks.memory.points, tracks.memory.levels)
    assert tracks.orphans.points


def test_without_a_snapshot_the_limits_are_those_of_the_diagnosis() -> None:
    mechanism = Mechanism(tcp_max_orphans=4096, tcp_mem_pages=(1, 2, 3), page_size_bytes=4096)
    judged = Diagnosis(cause="orphans", confidence="likely", summary="", mechanism=mechanism)
    incident: Incident = replace(INCIDENT, diagnosis=judged)

    tracks = build_tracks(incident, [], [at(0)])

    assert (4096, 3 * 4096) == (tracks.orphans.limit, tracks.memory.limit)


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_that_is_no_measure_is_no_level(limit: int) -> None:
    snapshot = make_snapshot(0, sysctls={"net.ipv4.tcp_max_orphans": (limit,)})

    assert build_tracks(INCIDENT, [snapshot], ()).orphans.levels == ()


def test_a_time_that_nobody_looked_breaks_the_line() -> None:
    samples = [at(second) for second in (-300, -290, -100, -90)]

    assert [2, 2] == [len(run) for run in build_tracks(INCIDENT, (), samples).orphans.runs]


def test_a_reboot_breaks_the_line() -> None:
    samples = [at(-20), at(-10), replace(at(0), boot_id="b"), replace(at(10), boot_id="b")]

    assert [2, 2] == [len(run) for run in build_tracks(INCIDENT, (), samples).orphans.runs]


def test_a_gauge_that_was_not_read_is_no_zero() -> None:
    samples = [at(-20), replace(at(-10), orphan=None), at(0)]

    tracks = build_tracks(INCIDENT, (), samples)

    assert [20, 0] == [point.value for point in tracks.orphans.points]
    assert len(tracks.memory.points) == 3


def test_counters_count_up_over_a_reset_and_not_over_a_reboot() -> None:
    rows = [("a", 5), ("a", 8), ("a", 2), ("a", 4), ("b", 100), ("b", 101)]
    samples = [replace(at(n), boot_id=boot, counters={"X": value}) for n, (boot, value) in enumerate(rows)]

    assert 3 + 2 + 1 == count_up(samples, "X")
    assert count_up(samples, "Y") is None
    assert count_up(samples[:1], "X") is None


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=400), st.integers(4, 90))
def test_thinning_keeps_ends_and_peak_and_never_leaves_too_many(values: list[int], most: int) -> None:
    points = track(*values).points

    kept = thin(points, most)

    assert len(kept) <= max(most, 2)
    assert list(kept) == sorted(kept)
    assert set(kept) <= set(points)
    assert {points[0], points[-1]} <= set(kept)
    assert max(values) == max(point.value for point in kept)


def test_a_full_block_is_the_limit_and_a_blank_was_not_read() -> None:
    one = track(0, 100, 400, 799, 800, 5000)

    drawn = sparkline(one, OPENED - timedelta(seconds=10), OPENED + timedelta(seconds=60), 7)

    assert " ▁▂▅███" == drawn


def test_a_reading_stands_until_the_next_one_unless_nobody_looked() -> None:
    run = track(800, 100).runs[0]
    later = tuple(point._replace(at=point.at + timedelta(seconds=30)) for point in run)
    broken = Track("orphan", (run, later), track().levels)

    assert "███▂       ███▂" == sparkline(broken, OPENED, OPENED + timedelta(seconds=40), 15)


def test_a_column_shows_its_highest_reading() -> None:
    burst = track(*[0] * 50, 800, *[0] * 49)

    drawn = sparkline(burst, burst.points[0].at, burst.points[-1].at, 10)

    assert "▁▁▁▁▁█▁▁▁▁" == drawn


def test_without_a_limit_a_full_block_is_the_peak() -> None:
    drawn = sparkline(track(0, 7, limit=None), OPENED, OPENED + timedelta(seconds=10), 2)

    assert BLOCKS[0] + BLOCKS[-1] == drawn


def test_plain_characters_draw_the_same() -> None:
    drawn = sparkline(track(0, 400, 800), OPENED, OPENED + timedelta(seconds=20), 3, ascii_only=True)

    assert ".+#" == drawn
    assert drawn.isascii()
