"""The sampler under a clock that jumps, and on a disk that does not read."""

from datetime import timedelta

import pytest
from harness import write_proc

from agent.core.diagnosis.diagnose import diagnose
from agent.core.kernel.limits import sample_of
from agent.core.model import Sample
from agent.core.settings import Settings, SourceSettings
from agent.probe import take_snapshot
from agent.service.daemon import Daemon
from agent.service.outside import Outside
from agent.service.sampler import Sampler
from agent.service.signals import Signals
from agent.service.troubles import Troubles


def fill(store, clock, hours):
    """Write a sample a minute up to now."""
    for minutes in range(hours * 60, 0, -1):
        store.samples.append(Sample(at=clock.time - timedelta(minutes=minutes), orphan=minutes, mem=7))


def test_a_clock_a_year_ahead_for_one_tick_takes_nothing_from_memory(store, clock, proc_root):
    fill(store, clock, 3)
    sampler = Sampler(store, clock, proc_root, Troubles())
    before = sampler.history
    sampler.tick(clock.time + timedelta(days=365))
    assert 1 == len(sampler.history)
    sampler.clock_set_back(clock.time)

    assert len(before) > 60
    assert before == sampler.history


def test_a_clock_that_steps_back_a_little_reads_nothing_again(store, clock, proc_root, monkeypatch):
    sampler = Sampler(store, clock, proc_root, Troubles())
    sampler.tick(clock.time)
    monkeypatch.setattr(store.samples, "read_thinned", lambda now: pytest.fail("read"))
    sampler.clock_set_back(clock.time - timedelta(seconds=2))
    assert clock.time == sampler.newest.at


def test_a_history_that_cannot_be_read_at_all_stops_no_start(store, clock, proc_root, monkeypatch, caplog):
    def deny(now):
        raise PermissionError(13, "Permission denied", "/var/lib/x")

    monkeypatch.setattr(store.samples, "read_thinned", deny)
    assert () == Sampler(store, clock, proc_root, Troubles()).history
    assert "the history cannot be read: /var/lib/x: Permission denied" in caplog.text


def test_one_file_that_cannot_be_read_stops_no_start(store, clock, proc_root):
    fill(store, clock, 3)
    path = store.directory / "history" / "20261122T14.jsonl"
    path.unlink()
    path.mkdir()
    history = Sampler(store, clock, proc_root, Troubles()).history
    assert {12, 13, 15} == {sample.at.hour for sample in history}


def test_samples_that_cannot_be_written_stay_a_trouble_though_an_hour_was_summed_up(
    store, clock, proc_root, monkeypatch
):
    troubles = Troubles()
    sampler = Sampler(store, clock, proc_root, troubles)
    sampler.tick(clock.time)
    monkeypatch.setattr(store.samples, "append", lambda _: (_ for _ in ()).throw(OSError(28, "full", "history")))
    sampler.tick(clock.advance(3600))

    assert ["the history cannot be written"] == list(troubles)


def test_a_service_whose_clock_is_set_a_year_ahead_keeps_its_history(store, clock, proc_root, tmp_path):
    fill(store, clock, 60)
    store.samples.write_hourly_extremes(clock.time)
    source = SourceSettings(kind="file", paths=(str(tmp_path / "messages"),))
    (tmp_path / "messages").touch()
    daemon = Daemon(Settings(source=source, store=store.settings), store, Signals(), Outside(proc_root, now=clock))
    before = {path.name for path in store.samples.directory.iterdir()}
    clock.advance(700)
    daemon.turn()
    within = {path.name for path in store.samples.directory.iterdir()}
    clock.advance(365 * 86_400)
    daemon.turn()
    daemon._source.close()

    # What two days do not keep goes, with a clock that runs on.
    assert within < before
    assert within < {path.name for path in store.samples.directory.iterdir()}


def test_what_is_killed_just_after_a_sample_is_counted_from_it(store, clock, proc_root, make_decided):
    sampler = Sampler(store, clock, proc_root, Troubles())
    write_proc(proc_root, orphan=8100, aborts=7)
    sampler.tick(clock.time)
    _, event = make_decided(at=clock.advance(0.45))
    write_proc(proc_root, orphan=8190, aborts=407)
    snapshot = take_snapshot(proc_root, clock.advance(0.05), "event")
    sampler.remember(sample_of(snapshot))
    diagnosis = diagnose(snapshot, (event,), sampler.history)

    assert [8100, 8190] == [sample.orphan for sample in sampler.history]
    assert 8190 == sampler.newest.orphan
    assert ("orphans", "certain") == (diagnosis.cause, diagnosis.confidence)
    assert not {"counters_contradict"} & {finding.claim for finding in diagnosis.findings}


def test_what_moved_elsewhere_is_added_up_where_snapshots_of_a_storm_become_one_sample(store, clock, proc_root):
    sampler = Sampler(store, clock, proc_root, Troubles())
    for moved in (
        {"docker abc": {"TCPAbortOnMemory": 5}},
        {"docker abc": {"TCPAbortOnMemory": 2}, "x": {"PruneCalled": 1}},
    ):
        sampler.remember(Sample(at=clock.advance(0.2), moved=moved))

    assert {"docker abc": {"TCPAbortOnMemory": 7}, "x": {"PruneCalled": 1}} == sampler.newest.moved


def test_a_sample_without_counters_takes_those_of_the_snapshot(store, clock, proc_root):
    sampler = Sampler(store, clock, proc_root, Troubles())
    sampler.remember(Sample(at=clock.time, orphan=1))
    sampler.remember(Sample(at=clock.advance(0.2), counters={"TCPAbortOnMemory": 5}))

    assert {"TCPAbortOnMemory": 5} == sampler.newest.counters
