"""`make bench` runs, each program beside ours does the same job, and the page is from a quiet machine."""

from datetime import datetime, timezone
from pathlib import Path

import pytest

from benchmarks import all as everything
from benchmarks import flood, latency, listing, scan, start
from benchmarks.machine import Ticks, Watch
from benchmarks.peers import PEERS, Peer, count, told
from benchmarks.table import Row, p50_p99

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "performance.md"
NOW = datetime(2026, 11, 29, tzinfo=timezone.utc)
BESIDE = {"SEC": (21.0, 42.0)}


def needs(peer: Peer) -> None:
    if not peer.installed:
        pytest.skip(f"{peer.package} is not installed: contrib/setup.sh bench")


@pytest.mark.parametrize("peer", [peer for peer in PEERS if peer.follow], ids=lambda peer: peer.name)
def test_each_program_that_follows_a_log_sends_a_line_of_the_kernels(peer: Peer) -> None:
    needs(peer)
    (milliseconds,) = latency.measure_peer(peer, 1)
    assert milliseconds > 0


@pytest.mark.parametrize("peer", [peer for peer in PEERS if peer.read], ids=lambda peer: peer.name)
def test_each_program_that_reads_a_log_finds_all_lines_of_the_kernels(peer: Peer, tmp_path: Path) -> None:
    needs(peer)
    log = tmp_path / "messages"
    assert scan.write_log(log, 12) == count(peer, log, tmp_path)


def test_a_million_is_a_million_as_mtail_prints_it() -> None:
    assert 1_000_000 == told('# TYPE lines counter\nlines{prog="sockets.mtail"} 1e+06\n')


@pytest.mark.parametrize(
    ("benchmark", "sizes"),
    [(start, (1,)), (flood, (200,)), (scan, (5, 5)), (listing, (3,))],
)
def test_a_benchmark_runs_on_a_small_scale(benchmark, sizes: tuple[int, ...]) -> None:
    rows = list(benchmark.rows(*sizes))
    assert [] == [row for row in rows if min(row.measured) <= 0]
    assert any(row.reach for row in rows)


def test_a_row_has_what_was_measured_what_to_reach_and_how_many_times_others_take() -> None:
    row = Row("line to POST: p50 / p99", (4.84, 11.2), "ms", (5, 12), BESIDE)
    assert "| line to POST: p50 / p99 | 4.8 / 11 ms | 5 / 12 ms | SEC 21 / 42 (4.3 x) |" == str(row)


def test_a_row_says_when_one_of_its_targets_is_missed() -> None:
    assert "5 / 12 ms: **missed**" in str(Row("line to POST", (4.84, 12.3), "ms", (5, 12)))


def test_a_percentile_is_of_what_was_measured() -> None:
    assert (50.5, pytest.approx(99.01)) == p50_p99([float(each) for each in range(1, 101)])


def test_a_machine_is_busy_when_others_run_before_or_after_or_time_is_stolen(monkeypatch) -> None:
    def trouble(before: float, after: float, stolen: int) -> str:
        busy, ticks = iter((before, after)), iter((Ticks(0, 0, 0), Ticks(1000, 500, stolen)))
        monkeypatch.setattr("benchmarks.machine.busy", busy.__next__)
        monkeypatch.setattr("benchmarks.machine.ticks", ticks.__next__)
        return Watch().trouble()

    assert "" == trouble(4.0, 4.0, 10)
    assert "others used 30 % of the processors, and 1 % was stolen" == trouble(30.0, 4.0, 10)
    assert "others used 30 % of the processors, and 1 % was stolen" == trouble(4.0, 30.0, 10)
    assert "others used 4 % of the processors, and 5 % was stolen" == trouble(4.0, 4.0, 50)


def test_the_page_has_the_rows_and_says_above_them_when_the_machine_was_busy() -> None:
    row = Row("line to POST", (4.84,), "ms", (5,), BESIDE)
    quiet = everything.page([row], {}, NOW)
    busy = everything.page([row], {"latency": "others used 30 %"}, NOW)
    assert str(row) in quiet
    assert everything.UNFIT not in quiet
    assert busy.index(everything.UNFIT) < busy.index("* latency: others used 30 %") < busy.index(str(row))


@pytest.mark.skipif(not PAGE.exists(), reason="docs/performance.md is not written yet")
def test_the_page_in_the_repository_is_from_a_quiet_machine_and_has_todays_prose() -> None:
    written = PAGE.read_text()
    assert everything.UNFIT not in written
    prose = [part for part in everything.TEMPLATE.read_text().split("\n\n") if "$" not in part]
    assert [] == [part for part in prose if part.strip() not in written]
