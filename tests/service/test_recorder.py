import errno
import os
import re
import shutil
from collections import Counter
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from harness import fill_disk, owed, read_remains, schema_errors, write_proc
from msgspec.structs import replace

from agent.core import folding
from agent.core.budget import OTHER_HOSTS_AN_HOUR, THE_REST
from agent.core.kernel.detector import Detector
from agent.core.model import Peak
from agent.core.readings import SocketGroup, SocketTable, Tally
from agent.core.report import diagnosis_text, messages_text, title
from agent.core.settings import IncidentSettings
from agent.notifiers import slack
from agent.probe.snapshot import take_snapshot
from agent.service import open_incident
from agent.service import recorder as module
from agent.service.open_incident import EVIDENCE, SNAPSHOTS_AT_MOST
from agent.service.recorder import Recorder
from agent.service.troubles import Troubles
from agent.store import Outbox, Store, prune, read_around
from agent.store.history import read_lines


@pytest.fixture
def store(store, tmp_path):
    yield store
    for path in tmp_path.glob("state/incidents/[0-9]*/incident.json"):
        assert [] == schema_errors("incident", path.read_bytes())


@pytest.fixture
def make_recorder(store, clock, proc_root):
    """Build a recorder on the store as it is: what a process does when it starts."""

    def make(on_notice=lambda _: None, **kwargs) -> Recorder:
        return Recorder(
            store,
            settings=IncidentSettings(**kwargs),
            channels=("ops",),
            now=clock,
            on_notice=on_notice,
            troubles=Troubles(),
            proc_root=proc_root,
            monotonic=clock.monotonic,
        )

    return make


def run_for(recorder: Recorder, clock, seconds: int) -> None:
    for _ in range(seconds):
        clock.advance(1)
        recorder.tick()


@pytest.fixture
def dumps(proc_root, monkeypatch):
    """What the dumps of the sockets see, one after the other, while the gauge stands at 700 orphans."""
    write_proc(proc_root, orphan=700)
    tables: list[SocketTable] = []
    monkeypatch.setattr(module, "take_sockets", lambda *_, **__: tables.pop(0))
    return tables


def orphans_of(unit: str, count: int) -> SocketTable:
    tally = Tally(sockets=count, bytes=4096 * count)
    group = SocketGroup(cgroup=7, port=8080, orphaned={"fin_wait1": tally} if count else {})
    return SocketTable(groups=(group,), paths={1: "/", 7: f"/system.slice/{unit}.service"}, complete=True)


def told(store: Store) -> list[str]:
    return [n.type.rsplit(".", 1)[-1] for i in store.ids() for _, n, _ in store.notices(i)]


def test_the_first_event_is_on_disk_and_told_when_handle_returns(store, make_recorder, make_decided):
    calls = []
    recorder = make_recorder(on_notice=lambda _: calls.append(owed(store, "ops")))
    recorder.handle([make_decided()], recorder.take_event_snapshot())
    incident = store.load(store.resolve("last"))

    assert {"too_many_orphans": 1} == incident.events
    assert "orphans" == incident.cause
    assert ("snapshot-001.json",) == incident.snapshots
    assert [[(incident.id, "notice-001")]] == calls
    assert "sockmem.incident.opened" == Outbox(store).notice(incident.id, "notice-001").type
    assert not recorder.position.dirty


def test_each_line_is_counted_by_its_kind_and_a_batch_that_is_done_is_true(make_recorder, make_decided):
    recorder = make_recorder()
    lines = [make_decided(count=3), make_decided("tcp_mem", offset=200)]

    assert recorder.handle(lines, recorder.take_event_snapshot())
    assert {"too_many_orphans": 3, "tcp_mem": 1} == recorder.counted


def test_the_gauges_are_the_newest_sample_and_what_its_numbers_count_in(make_recorder, clock, proc_root):
    recorder = make_recorder()
    write_proc(proc_root, orphan=321)
    run_for(recorder, clock, 10)
    recorder._sampler.page_bytes, recorder._sampler.pages_per_unit = 65536, 1 / 16

    assert 321 == recorder.gauges.sample.orphan
    assert (4096, 65536) == recorder.gauges[1:]
    recorder._sampler.pages_per_unit = None
    assert (None, 65536) == recorder.gauges[1:]


def test_every_reading_of_this_host_has_what_other_network_namespaces_count_and_the_names_of_the_dump_before(
    make_recorder, make_decided, clock, proc_root, monkeypatch
):
    readings, dumped, real = {}, [], take_snapshot

    def read(*args, counters=None):
        readings.setdefault(args[2], []).append(counters)
        return real(*args, counters=counters)

    monkeypatch.setattr(module, "take_snapshot", read)
    monkeypatch.setattr(module, "take_sockets", lambda *_, names=None: dumped.append(names) or SocketTable())
    recorder = make_recorder(quiet_seconds=5)
    recorder.handle([make_decided(provenance="claimed")], recorder.take_event_snapshot())
    write_proc(proc_root, orphan=2_100)
    run_for(recorder, clock, 40)
    write_proc(proc_root, orphan=0)
    run_for(recorder, clock, 40)
    write_proc(proc_root, orphan=2_100)
    run_for(recorder, clock, 20)

    assert {"event", "follow_up", "pressure"} == set(readings)
    assert 2 == len(readings["pressure"])  # Of an incident that is open, and the one that opens a warning.
    assert {recorder._sampler.counters} == {each for counters in readings.values() for each in counters}
    assert dumped
    assert None not in dumped


def test_further_events_are_folded_and_committed_within_a_second(store, make_recorder, make_decided, clock):
    recorder = make_recorder()
    recorder.handle([make_decided()], recorder.take_event_snapshot())
    clock.advance(0.2)
    recorder.handle([make_decided(offset=200), make_decided(offset=300)], recorder.take_event_snapshot())

    assert recorder.position.dirty
    run_for(recorder, clock, 1)
    assert not recorder.position.dirty
    assert {"too_many_orphans": 3} == store.load(store.resolve("last")).events
    assert 300 == store.newest_commit()[0].cursor.files["/var/log/messages"].offset


def test_a_restart_before_the_commit_reads_the_uncommitted_events_again(store, make_recorder, make_decided, clock):
    recorder = make_recorder()
    recorder.handle([make_decided()], recorder.take_event_snapshot())
    clock.advance(0.2)
    recorder.handle([make_decided(offset=200)], recorder.take_event_snapshot())
    again = make_recorder()

    assert 100 == again.position.resume.cursor.files["/var/log/messages"].offset
    again.handle([make_decided(offset=200)], again.take_event_snapshot())
    again.flush()
    assert {"too_many_orphans": 2} == store.load(store.resolve("last")).events
    assert ["opened"] == told(store)


def uncovered(decided):
    """Take away the position: the line was counted among others, and the last of them has it."""
    return replace(decided[0], cursor=None), decided[1]


def test_nothing_is_committed_between_lines_that_were_counted_together(store, make_recorder, make_decided, clock):
    recorder = make_recorder(quiet_seconds=5)
    recorder.handle([make_decided()], recorder.take_event_snapshot())
    clock.advance(60)
    late = [uncovered(make_decided("tcp_mem", at=clock.time - timedelta(seconds=58))), make_decided(offset=300)]
    recorder.handle(late, recorder.take_event_snapshot())
    recorder.flush()

    assert [{"too_many_orphans": 2, "tcp_mem": 1}] == [store.load(each).events for each in store.ids()]


def test_a_stop_waits_for_the_last_of_the_lines_that_were_counted_together(store, make_recorder, make_decided):
    recorder = make_recorder()
    decided = [uncovered(make_decided()), make_decided("tcp_mem", offset=200), make_decided(offset=300)]

    assert not recorder.handle(decided, recorder.take_event_snapshot(), lambda: False)
    recorder.flush()
    assert {"too_many_orphans": 1, "tcp_mem": 1} == store.load(store.resolve("last")).events
    assert 200 == store.newest_commit()[0].cursor.files["/var/log/messages"].offset


def test_whether_to_stop_is_asked_once_after_an_incident_opens(make_recorder, make_decided):
    recorder = make_recorder()
    decided = [make_decided(), make_decided("tcp_mem", offset=200), make_decided(offset=300)]
    answers = iter([True])

    assert recorder.handle(decided, recorder.take_event_snapshot(), lambda: next(answers))


def test_follow_ups_come_at_1_5_and_30_seconds(store, make_recorder, make_decided, clock):
    recorder = make_recorder()
    start = clock.time
    recorder.handle([make_decided()], recorder.take_event_snapshot())
    run_for(recorder, clock, 40)
    snapshots = [snapshot for _, snapshot in store.snapshots(store.resolve("last"))]

    assert [0, 1, 5, 30] == [(s.taken_at - start).total_seconds() for s in snapshots]
    assert ["event", "follow_up", "follow_up", "follow_up"] == [s.trigger for s in snapshots]


def test_the_next_turn_comes_in_time_for_whatever_is_due_first(store, make_recorder, make_decided, clock):
    recorder = make_recorder()
    recorder.tick()
    assert 10.0 == recorder.next_due()
    clock.advance(4)
    assert 6.0 == recorder.next_due()
    recorder.handle([make_decided()], recorder.take_event_snapshot())
    assert 0.25 == recorder.next_due()  # Who holds the sockets.
    clock.advance(0.1)
    recorder.handle([make_decided(offset=200)], recorder.take_event_snapshot())
    assert 0.9 == pytest.approx(recorder.next_due())  # The commit, and the first follow-up.
    clock.advance(5)
    assert 0.0 == recorder.next_due()


def test_the_incident_closes_after_the_quiet_period_and_that_is_told(store, make_recorder, make_decided, clock):
    recorder = make_recorder()
    recorder.handle([make_decided()], recorder.take_event_snapshot())
    run_for(recorder, clock, 299)
    assert ["opened"] == told(store)
    run_for(recorder, clock, 1)

    incident = store.load(store.resolve("last"))
    assert ["opened", "resolved"] == told(store)
    assert incident.closed_at - incident.opened_at == timedelta(seconds=300)


def test_two_events_far_apart_by_the_log_are_two_incidents_though_read_together(
    store, make_recorder, make_decided, clock
):
    recorder = make_recorder()
    old = clock.time - timedelta(hours=3)
    recorder.handle(
        [make_decided(at=old), make_decided(at=old + timedelta(hours=1), offset=200)], recorder.take_event_snapshot()
    )

    first, second = (store.load(i) for i in store.ids())
    assert first.closed_at == old + timedelta(seconds=300)
    assert second.closed_at is None
    assert ["opened", "resolved", "opened"] == told(store)


def test_a_log_in_another_time_zone_does_not_close_its_incident_at_once(store, make_recorder, make_decided, clock):
    recorder = make_recorder()
    recorder.handle([make_decided(at=clock.time - timedelta(hours=2))], recorder.take_event_snapshot())
    run_for(recorder, clock, 299)

    assert ["opened"] == told(store)


def test_gauges_of_a_catch_up_are_no_peak_of_the_past(store, make_recorder, make_decided, clock):
    recorder = make_recorder()
    recorder.handle([make_decided(at=clock.time - timedelta(hours=2))], recorder.take_event_snapshot())

    assert store.load(store.resolve("last")).peak.orphan is None


def test_the_peak_is_the_highest_sample_around_the_event(store, make_recorder, make_decided, clock, proc_root):
    recorder = make_recorder()
    write_proc(proc_root, orphan=8100, mem=5000)
    recorder.tick()
    clock.advance(5)
    write_proc(proc_root, orphan=90, mem=7000)
    recorder.handle([make_decided()], recorder.take_event_snapshot())
    peak = store.load(store.resolve("last")).peak

    assert (8100, 7000) == (peak.orphan, peak.mem)
    assert peak.orphan_at == clock.time - timedelta(seconds=5)


def test_the_peak_has_the_readings_that_the_diagnosis_has(store, make_recorder, make_decided, clock, proc_root):
    recorder = make_recorder(quiet_seconds=6)
    recorder.tick()
    write_proc(proc_root, orphan=8100)
    clock.advance(8)
    recorder.handle([make_decided(at=clock.time - timedelta(seconds=7))], recorder.take_event_snapshot())
    incident = store.load(store.resolve("last"))

    assert 8100 == incident.diagnosis.mechanism.orphan == incident.peak.orphan


def test_the_peak_may_be_a_minute_before_the_line(store, make_recorder, make_decided, clock, proc_root):
    recorder = make_recorder()
    write_proc(proc_root, orphan=8100)
    recorder.tick()
    write_proc(proc_root, orphan=300)
    run_for(recorder, clock, 50)
    recorder.handle([make_decided()], recorder.take_event_snapshot())
    incident = store.load(store.resolve("last"))

    assert 8100 == incident.diagnosis.mechanism.orphan == incident.peak.orphan


def test_the_peak_may_be_in_a_follow_up_between_two_samples(store, make_recorder, make_decided, clock, proc_root):
    recorder = make_recorder()
    run_for(recorder, clock, 2)
    recorder.handle([make_decided()], recorder.take_event_snapshot())
    run_for(recorder, clock, 4)
    write_proc(proc_root, orphan=8100)
    run_for(recorder, clock, 1)
    write_proc(proc_root, orphan=300)
    run_for(recorder, clock, 310)

    assert 8100 == store.load(store.resolve("last")).peak.orphan


def test_what_was_killed_counts_from_before_the_first_line(store, make_recorder, make_decided, clock, proc_root):
    recorder = make_recorder()
    recorder.tick()
    clock.advance(5)
    write_proc(proc_root, orphan=8190, aborts=12)
    recorder.handle([make_decided()], recorder.take_event_snapshot())
    clock.advance(0.2)
    recorder.handle([make_decided(offset=200)], recorder.take_event_snapshot())
    run_for(recorder, clock, 2)
    incident = store.load(store.resolve("last"))
    killed = [each.value for each in incident.diagnosis.findings[0].evidence if "TCPAbortOnMemory" in each.name]

    assert {"too_many_orphans": 2} == incident.events
    assert [12] == killed
    assert "counters_contradict" not in [finding.claim for finding in incident.diagnosis.findings]


def test_the_quiet_period_begins_with_the_last_event_and_not_with_its_snapshot(
    store, make_recorder, make_decided, clock
):
    recorder = make_recorder(quiet_seconds=6)
    recorder.handle([make_decided()], recorder.take_event_snapshot())
    clock.advance(0.5)
    recorder.handle([make_decided(offset=200)], recorder.take_event_snapshot())
    last = clock.time
    run_for(recorder, clock, 5)
    clock.advance(0.5)
    recorder.tick()
    assert store.load(store.resolve("last")).closed_at is None
    clock.advance(0.5)
    recorder.tick()

    assert last + timedelta(seconds=6) == store.load(store.resolve("last")).closed_at


def test_a_suppressed_line_opens_nothing(store, make_recorder, make_decided):
    recorder = make_recorder()
    recorder.handle([make_decided("suppressed", suppressed=9)], recorder.take_event_snapshot())

    assert [] == store.ids()


def test_what_was_suppressed_before_a_line_is_counted_once_though_the_line_comes_again_later(
    store, make_recorder, make_decided, clock
):
    recorder = make_recorder(quiet_seconds=5)
    lines = [
        make_decided("suppressed", suppressed=40, at=clock.time - timedelta(hours=2)),
        make_decided(offset=200, at=clock.time - timedelta(hours=2)),
        make_decided("tcp_mem", offset=300, at=clock.time - timedelta(hours=1)),
    ]
    recorder.handle(lines, recorder.take_event_snapshot())
    run_for(recorder, clock, 10)

    assert [{"suppressed": 40}, {}] == [store.load(each).suppressed for each in store.ids()]


def test_what_was_suppressed_before_the_first_line_may_be_of_any_network_message(store, make_recorder, make_decided):
    recorder = make_recorder()
    recorder.handle(
        [make_decided("suppressed", suppressed=273), make_decided(offset=200)], recorder.take_event_snapshot()
    )
    incident = store.load(store.resolve("last"))

    assert (0, {"suppressed": 273}) == (incident.suppressed_at_least, incident.suppressed)
    assert "273 of some network message suppressed" in messages_text(incident)
    assert "too_many_orphans" == incident.first_event.kind


def test_what_was_suppressed_is_of_the_cause_of_the_lines_before_it_in_their_burst(
    store, make_recorder, make_decided, clock
):
    recorder = make_recorder(quiet_seconds=3600)
    start = clock.time

    def say(kind, seconds, **what):
        at = clock.time = start + timedelta(seconds=seconds)
        recorder.handle([make_decided(kind, at=at, offset=seconds + 100, **what)], recorder.take_event_snapshot())

    say("too_many_orphans", 0)
    say("suppressed", 180, suppressed=142)  # As seen live: minutes later, just ahead of a memory line.
    say("tcp_mem", 180)
    say("suppressed", 185, suppressed=7)
    say("suppressed", 600, suppressed=9)
    recorder.flush()
    incident = store.load(store.resolve("last"))

    assert {"too_many_orphans": 142, "tcp_mem": 7, "suppressed": 9} == incident.suppressed
    assert 149 == incident.suppressed_at_least
    assert (
        "1 x out of TCP memory, 1 x too many orphans, at least 7 x out of TCP memory suppressed by its rate limit, "
        "at least 142 x too many orphans suppressed by its rate limit, 9 of some network message suppressed"
    ) == messages_text(incident)


@pytest.mark.parametrize("is_over", [False, True])
def test_a_start_flushes_the_last_commit_which_a_killed_process_may_have_left_in_memory(
    make_recorder, make_decided, clock, monkeypatch, is_over
):
    """Killed between the rename and the flush: the next position would be behind lines that a power cut takes."""
    recorder = make_recorder(quiet_seconds=5)
    for offset in (100, 200):
        recorder.handle([make_decided(offset=offset)], recorder.take_event_snapshot())
        run_for(recorder, clock, 10 if is_over or offset == 100 else 1)
    store = recorder.position.store
    older, newest = store.ids()
    flushed, fsync = list[Path](), os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: flushed.append(Path(f"/proc/self/fd/{fd}").readlink()) or fsync(fd))
    make_recorder()

    assert is_over == (store.load(newest).closed_at is not None)
    assert (True, False) == tuple(store.path(each) in flushed for each in (newest, older))


def test_a_last_commit_that_cannot_be_flushed_is_told(store, make_recorder, make_decided, monkeypatch, caplog):
    recorder = make_recorder()
    recorder.handle([make_decided()], recorder.take_event_snapshot())

    def refuse(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", refuse)
    make_recorder()

    assert f"{store.path(store.ids()[0])} cannot be flushed" in caplog.text


def test_a_suppressed_line_after_the_end_is_counted_to_the_last_incident(store, make_recorder, make_decided, clock):
    recorder = make_recorder(quiet_seconds=5)
    recorder.handle([make_decided()], recorder.take_event_snapshot())
    run_for(recorder, clock, 10)
    recorder.handle([make_decided("suppressed", suppressed=40, offset=200)], recorder.take_event_snapshot())
    resume, still_open, _ = store.newest_commit()

    assert 40 == store.load(store.resolve("last")).suppressed_at_least == recorder.last.suppressed_at_least
    assert "at least 40 suppressed" in (store.path(store.resolve("last")) / "summary.txt").read_text()
    assert 200 == resume.cursor.files["/var/log/messages"].offset
    assert [] == still_open
    assert ["opened", "resolved"] == told(store)


def test_what_another_host_suppressed_after_the_end_is_not_counted_to_this_ones_incident(
    store, make_recorder, make_decided, clock
):
    recorder = make_recorder(quiet_seconds=5)
    recorder.handle([make_decided()], recorder.take_event_snapshot())
    run_for(recorder, clock, 10)
    late = from_host(make_decided("suppressed", suppressed=40, offset=200), "db7")
    recorder.handle([late], recorder.take_event_snapshot())

    assert [0] == [store.load(each).suppressed_at_least for each in store.ids()]


def test_a_line_after_the_quiet_period_is_another_incident_though_no_turn_came_between(
    store, make_recorder, make_decided, clock
):
    recorder = make_recorder(quiet_seconds=5)
    recorder.handle([make_decided()], recorder.take_event_snapshot())
    clock.advance(60)
    recorder.handle([make_decided(offset=200)], recorder.take_event_snapshot())

    assert [False, True] == [store.load(each).closed_at is None for each in store.ids()]


def test_the_same_line_again_after_the_end_is_an_incident_of_its_own(store, make_recorder, make_decided, clock):
    recorder = make_recorder(quiet_seconds=2)
    recorder.handle([make_decided()], recorder.take_event_snapshot())
    run_for(recorder, clock, 3)
    recorder.handle([make_decided(at=clock.time - timedelta(seconds=3), offset=100)], recorder.take_event_snapshot())

    assert 2 == len(store.ids())


def test_a_storm_makes_three_notifications_and_few_snapshots(store, make_recorder, make_decided, clock):
    recorder = make_recorder()
    for second in range(120):
        clock.advance(1)
        lines = [make_decided(offset=second * 100 + n) for n in range(2)]
        recorder.handle(
            [*lines, make_decided("suppressed", suppressed=400, offset=second * 100 + 50)],
            recorder.take_event_snapshot(),
        )
        recorder.tick()
    run_for(recorder, clock, 301)
    incident = store.load(store.resolve("last"))

    assert {"too_many_orphans": 240, "suppressed": 120} == incident.events
    assert 48_000 == incident.suppressed_at_least
    assert ["opened", "updated", "resolved"] == told(store)
    assert len(incident.snapshots) <= 10


def test_in_a_storm_there_is_a_snapshot_a_second_by_a_clock_that_may_be_set_back(make_recorder, make_decided, clock):
    recorder = make_recorder()
    first = recorder.take_event_snapshot()
    recorder.handle([make_decided()], first)
    assert first is recorder.take_event_snapshot()
    clock.advance(0.9)
    assert first is recorder.take_event_snapshot()
    clock.advance(0.1)
    second = recorder.take_event_snapshot()
    assert clock.time == second.taken_at
    clock.set(-3600)
    assert clock.time == recorder.take_event_snapshot().taken_at


def test_after_an_hour_of_lines_what_is_judged_is_still_fresh(store, make_recorder, make_decided, clock, proc_root):
    recorder = make_recorder()
    for minute in range(90):
        clock.advance(61)
        write_proc(proc_root, orphan=8_000 + minute, inuse=20 + minute)
        recorder.handle([make_decided(offset=minute)], recorder.take_event_snapshot())
        clock.advance(2)
        recorder.tick()
    recorder.flush()
    clock.advance(61)
    recorder.handle([make_decided(offset=90)], recorder.take_event_snapshot())
    incident = store.load(store.resolve("last"))
    snapshots = [snapshot for _, snapshot in store.snapshots(incident.id)]
    assert clock.time == snapshots[-1].taken_at
    run_for(recorder, clock, 2)
    snapshots = [snapshot for _, snapshot in store.snapshots(incident.id)]

    assert SNAPSHOTS_AT_MOST == len(incident.snapshots) == len(list(store.path(incident.id).glob("snapshot-*")))
    assert sorted(snapshots, key=lambda snapshot: snapshot.taken_at) == snapshots
    assert 8_089 == snapshots[-1].sockstat.tcp.orphan
    assert snapshots[-1].sockets is not None
    assert clock.time - snapshots[-1].taken_at < timedelta(minutes=1)
    assert 8_089 == incident.diagnosis.mechanism.orphan


def test_a_position_that_could_not_be_written_is_none(store, make_recorder, make_decided, clock, monkeypatch):
    recorder = make_recorder()
    decided = make_decided()
    with monkeypatch.context() as patch:
        patch.setattr(store, "save_cursor", fail)
        with pytest.raises(OSError, match="No space"):
            recorder.position.save(decided[0].cursor, clock.time)
    assert {} == recorder.position.resume.cursor.files

    recorder.position.save(decided[0].cursor, clock.time)
    assert recorder.position.resume == store.newest_commit()[0]
    assert recorder.position.resume.cursor == decided[0].cursor


def test_a_position_that_is_there_though_its_fsync_failed_takes_nothing_back(
    store, make_recorder, make_decided, clock, monkeypatch
):
    recorder = make_recorder()
    really = store.save_cursor
    cursor = make_decided()[0].cursor
    with monkeypatch.context() as patch:
        patch.setattr(store, "save_cursor", lambda resume: (really(resume), fail()))
        with pytest.raises(OSError, match="No space"):
            recorder.position.save(cursor, clock.time)
    recorder.handle([make_decided(offset=200)], recorder.take_event_snapshot())

    assert 200 == store.newest_commit()[0].cursor.files["/var/log/messages"].offset


def fail(*_) -> None:
    raise OSError(errno.ENOSPC, "No space left on device", "cursor.json")


def test_both_causes_in_one_burst_are_one_incident_that_is_told_again(store, make_recorder, make_decided, clock):
    recorder = make_recorder()
    recorder.handle([make_decided()], recorder.take_event_snapshot())
    clock.advance(2)
    recorder.handle([make_decided("tcp_mem", offset=200)], recorder.take_event_snapshot())

    assert "both" == store.load(store.resolve("last")).cause
    assert ["opened", "updated"] == told(store)


def test_an_open_incident_is_taken_up_after_a_restart(store, make_recorder, make_decided, clock):
    recorder = make_recorder()
    recorder.handle([make_decided()], recorder.take_event_snapshot())
    clock.advance(60)
    again = make_recorder()
    again.handle([make_decided("tcp_mem", offset=200)], again.take_event_snapshot())

    assert 1 == len(store.ids())
    assert {"too_many_orphans": 1, "tcp_mem": 1} == store.load(store.resolve("last")).events
    assert ["opened", "updated"] == told(store)
    run_for(again, clock, 300)
    assert ["opened", "updated", "resolved"] == told(store)


def test_an_incident_whose_evidence_is_gone_is_closed_and_the_service_goes_on(
    store, make_recorder, make_decided, clock, caplog
):
    recorder = make_recorder()
    recorder.handle([make_decided()], recorder.take_event_snapshot())
    (store.path(store.resolve("last")) / "snapshot-001.json").unlink()
    make_recorder()

    assert store.load(store.resolve("last")).closed_at is not None
    assert "snapshot-001.json: cannot be read" in caplog.text


def test_samples_are_taken_every_ten_seconds_and_kept_over_a_restart(store, make_recorder, clock):
    recorder = make_recorder()
    start = clock.time
    run_for(recorder, clock, 60)

    assert 6 == len(store.samples.read(start, clock.time))
    assert 6 == len(make_recorder()._sampler.history)


def test_a_clock_set_back_by_an_hour_delays_nothing(store, make_recorder, make_decided, clock):
    recorder = make_recorder()
    recorder.handle([make_decided()], recorder.take_event_snapshot())
    clock.set(-3600)
    run_for(recorder, clock, 301)

    assert ["opened", "resolved"] == told(store)


def test_lines_of_another_kind_within_a_second_share_the_snapshot(store, make_recorder, make_decided, clock):
    recorder = make_recorder()
    recorder.handle([make_decided()], recorder.take_event_snapshot())
    clock.advance(0.5)
    recorder.handle([make_decided("tcp_mem", offset=200)], recorder.take_event_snapshot())
    clock.advance(0.5)
    recorder.tick()

    incident = store.load(store.resolve("last"))
    assert {"too_many_orphans": 1, "tcp_mem": 1} == incident.events
    assert ["event", "follow_up"] == [snapshot.trigger for _, snapshot in store.snapshots(incident.id)]


@pytest.mark.parametrize("by", [24 * 365 * 86_400, -3600])
def test_a_clock_that_is_set_ends_no_incident_and_loses_no_follow_up(store, make_recorder, make_decided, clock, by):
    recorder = make_recorder()
    recorder.handle([make_decided()], recorder.take_event_snapshot())
    clock.advance(0.5)
    clock.set(by)
    run_for(recorder, clock, 40)
    assert ["opened"] == told(store)
    assert 4 == len(store.load(store.resolve("last")).snapshots)
    run_for(recorder, clock, 258)
    assert ["opened"] == told(store)
    run_for(recorder, clock, 2)

    assert ["opened", "resolved"] == told(store)


@pytest.mark.parametrize("by", [24 * 365 * 86_400, 301, -3600])
def test_a_line_after_the_clock_was_set_goes_on_with_the_incident(store, make_recorder, make_decided, clock, by):
    recorder = make_recorder()
    recorder.handle([make_decided(at=clock.time)], recorder.take_event_snapshot())
    clock.advance(60)
    clock.set(by)
    for offset in (200, 300):
        clock.advance(60)
        recorder.handle([make_decided(at=clock.time, offset=offset)], recorder.take_event_snapshot())
    run_for(recorder, clock, 301)

    assert ["opened", "resolved"] == told(store)
    assert {"too_many_orphans": 3} == store.load(store.resolve("last")).events


def test_an_incident_that_begins_just_after_the_clock_was_set_ends_in_time(store, make_recorder, make_decided, clock):
    recorder = make_recorder()
    run_for(recorder, clock, 5)
    clock.set(24 * 365 * 86_400)
    recorder.handle([make_decided()], recorder.take_event_snapshot())
    run_for(recorder, clock, 299)
    assert ["opened"] == told(store)
    assert 4 == len(store.load(store.resolve("last")).snapshots)
    run_for(recorder, clock, 2)

    assert ["opened", "resolved"] == told(store)


def test_counters_from_before_the_event_become_rates(store, make_recorder, make_decided, clock, proc_root):
    recorder = make_recorder()
    run_for(recorder, clock, 20)
    write_proc(proc_root, orphan=8190, aborts=57)
    recorder.handle([make_decided()], recorder.take_event_snapshot())
    incident = store.load(store.resolve("last"))
    found = [e for f in incident.diagnosis.findings for e in f.evidence if "TCPAbortOnMemory" in e.name]

    assert "certain" == incident.confidence
    assert any(e.value == 57 for e in found)


def test_the_webhook_data_holds_no_position(store, make_recorder, make_decided):
    recorder = make_recorder()
    recorder.handle([make_decided()], recorder.take_event_snapshot())
    [key] = owed(store, "ops")
    notice = Outbox(store).notice(*key)

    assert notice.data.resume is None
    assert ("notice-001.json",) == notice.data.notices


def test_gauges_above_a_quarter_open_a_warning_without_a_line(store, make_recorder, clock, proc_root):
    recorder = make_recorder()
    write_proc(proc_root, orphan=2_100)
    run_for(recorder, clock, 20)
    incident = store.load(store.resolve("last"))

    assert ("pressure", "orphans", {}) == (incident.class_, incident.cause, incident.events)
    assert incident.first_event is None
    assert "certain" != incident.confidence
    assert ["opened"] == told(store)
    assert "orphaned sockets are above a quarter of their limit" == store.notices(incident.id)[0][1].reason


def test_refused_data_and_a_pressure_flag_open_a_warning_though_memory_looks_calm(
    store, make_recorder, clock, proc_root
):
    recorder = make_recorder()
    netstat, names = proc_root / "net/netstat", "TCPAbortOnMemory TCPMemoryPressures TCPRcvQDrop PruneCalled"
    for refused in range(0, 90_000, 30_000):
        netstat.write_text(f"TcpExt: {names}\nTcpExt: 0 0 {refused} {refused}\n")
        run_for(recorder, clock, 10)
    incident = store.load(store.resolve("last"))

    assert ("pressure", 3, 30_000) == (incident.class_, incident.pressure.level, incident.pressure.value)
    assert "All is well" not in incident.summary
    assert ["opened"] == told(store)
    run_for(recorder, clock, 400)
    assert ["opened", "resolved"] == told(store)


def test_a_warning_lasts_as_long_as_the_gauges_are_high_and_is_told_again_when_worse(
    store, make_recorder, clock, proc_root
):
    recorder = make_recorder()
    write_proc(proc_root, orphan=2_100)
    run_for(recorder, clock, 400)
    assert ["opened"] == told(store)
    write_proc(proc_root, orphan=4_200)
    run_for(recorder, clock, 20)
    assert ["opened", "updated"] == told(store)
    write_proc(proc_root, orphan=3)
    run_for(recorder, clock, 310)

    assert ["opened", "updated", "resolved"] == told(store)
    assert 4_200 == store.load(store.resolve("last")).peak.orphan


def test_a_quiet_period_shorter_than_the_samples_does_not_open_a_warning_anew_every_ten_seconds(
    store, make_recorder, clock, proc_root
):
    recorder = make_recorder(quiet_seconds=6)
    write_proc(proc_root, orphan=2_100)
    run_for(recorder, clock, 120)
    assert ["opened"] == told(store)
    write_proc(proc_root, orphan=3)
    run_for(recorder, clock, 30)

    assert ["opened", "resolved"] == told(store)


def test_an_incident_of_events_ends_by_its_events_and_a_warning_follows_where_the_gauges_are_high(
    store, make_recorder, make_decided, clock, proc_root
):
    recorder = make_recorder(quiet_seconds=60)
    write_proc(proc_root, orphan=2_100)
    recorder.handle([make_decided()], recorder.take_event_snapshot())
    run_for(recorder, clock, 120)
    said, warned = (store.load(each) for each in store.ids())

    assert ("event", "pressure") == (said.class_, warned.class_)
    assert said.closed_at is not None
    assert warned.closed_at is None


def test_an_incident_is_counted_once_in_each_class_and_not_again_after_a_restart(
    store, make_recorder, make_decided, clock, proc_root
):
    recorder = make_recorder()
    write_proc(proc_root, orphan=2_100)
    run_for(recorder, clock, 20)
    assert {("pressure", "orphans"): 1} == recorder.opened
    recorder.handle([make_decided(), make_decided(offset=200)], recorder.take_event_snapshot())
    run_for(recorder, clock, 20)

    assert {("pressure", "orphans"): 1, ("event", "orphans"): 1} == recorder.opened
    again = make_recorder()
    run_for(again, clock, 20)
    assert {} == again.opened


def test_who_holds_the_sockets_is_asked_after_a_restart_where_nobody_was_asked_before(
    store, make_recorder, make_decided, clock
):
    recorder = make_recorder()
    recorder.handle([make_decided()], recorder.take_event_snapshot())
    assert store.snapshots(store.resolve("last"))[0][1].sockets is None
    again = make_recorder()
    run_for(again, clock, 3)

    assert store.snapshots(store.resolve("last"))[0][1].sockets is not None


def test_a_snapshot_that_a_kill_left_before_its_commit_is_named_after_the_restart(
    store, make_recorder, make_decided, clock, proc_root
):
    recorder = make_recorder()
    recorder.handle([make_decided()], recorder.take_event_snapshot())
    incident_id = store.resolve("last")
    write_proc(proc_root, orphan=4_200)
    store.write_snapshot(incident_id, 2, take_snapshot(proc_root, clock(), "follow_up"))
    run_for(make_recorder(), clock, 2)

    assert ["event", "follow_up"] == [each.trigger for _, each in store.snapshots(incident_id)][:2]
    assert [name for name, _ in store.snapshots(incident_id)] == [
        file for file in sorted(store.files(incident_id)) if file.startswith("snapshot")
    ]


def test_who_held_the_sockets_is_in_the_history(make_recorder, make_decided, clock, dumps):
    dumps += [orphans_of("web", 700)]
    recorder = make_recorder()
    recorder.handle([make_decided()], recorder.take_event_snapshot())
    run_for(recorder, clock, 4)

    assert [("web.service",)] == [
        tuple(unit.name for unit in each.units) for each in recorder._sampler.history if each.units
    ]


def test_who_holds_the_orphans_is_asked_again_where_the_first_dump_came_between_two_waves(
    store, make_recorder, make_decided, clock, dumps
):
    dumps += [orphans_of("shop", 0), orphans_of("shop", 0), orphans_of("shop", 400), orphans_of("shop", 900)]
    recorder = make_recorder()
    recorder.handle([make_decided()], recorder.take_event_snapshot())
    run_for(recorder, clock, 60)
    incident = store.load(store.resolve("last"))

    # At 1, 5 and 30 seconds: the third dump saw more than half, so the fourth was not asked for.
    assert 1 == len(dumps)
    assert ("shop.service", 400) == (incident.diagnosis.holders[0].unit, incident.diagnosis.holders[0].orphans)


def test_who_held_the_memory_is_not_forgotten_for_orphans_that_came_later(
    store, make_recorder, make_decided, clock, dumps
):
    dumps += [orphans_of("exporter", 5), orphans_of("web", 300)]
    recorder = make_recorder()
    recorder.handle([make_decided("tcp_mem")], recorder.take_event_snapshot())
    run_for(recorder, clock, 60)

    assert [] == dumps
    assert "exporter.service" == store.load(store.resolve("last")).diagnosis.holders[0].unit


def test_who_loses_data_is_found_by_a_second_dump_five_seconds_later(
    store, make_recorder, clock, proc_root, monkeypatch
):
    at, dropped = [], iter((100, 350, 9_000))

    def look(*_, **__) -> SocketTable:
        at.append(clock.time)
        group = SocketGroup(
            cgroup=7, port=8081, held={"established": Tally(sockets=6, bytes=4096)}, drops=next(dropped)
        )
        return SocketTable(groups=(group,), paths={1: "/", 7: "/system.slice/backup.service"}, complete=True)

    monkeypatch.setattr(module, "take_sockets", look)
    recorder = make_recorder()
    for refused in range(0, 60_000, 30_000):
        (proc_root / "net/netstat").write_text(f"TcpExt: TCPAbortOnMemory TCPRcvQDrop\nTcpExt: 0 {refused}\n")
        run_for(recorder, clock, 10)
    run_for(recorder, clock, 20)
    incident = store.load(store.resolve("last"))

    assert 5 == round((at[1] - at[0]).total_seconds())
    assert 2 == len(at)
    assert "Data is being lost by backup.service." in incident.summary
    assert [250] == [each.drops for each in store.snapshots(incident.id)[0][1].sockets.groups]
    assert ["opened", "updated"] == told(store)
    assert "data is being lost by backup.service" == store.notices(incident.id)[1][1].reason


def test_a_dump_that_saw_fewer_orphans_does_not_replace_one_that_saw_more(
    store, make_recorder, make_decided, clock, dumps
):
    dumps += [orphans_of("shop", 300), orphans_of("shop", 2), orphans_of("shop", 0)]
    recorder = make_recorder()
    recorder.handle([make_decided()], recorder.take_event_snapshot())
    run_for(recorder, clock, 29)

    assert [] == dumps
    assert 300 == store.load(store.resolve("last")).diagnosis.holders[0].orphans


def test_a_later_dump_names_another_holder_but_makes_nobody_forget_the_one_whose_orphans_were_killed(
    store, make_recorder, make_decided, clock, dumps
):
    dumps += [orphans_of("shop", 4_000), orphans_of("receiver", 0), orphans_of("mail", 3_000)]
    recorder, named = make_recorder(), []
    while dumps:
        recorder.handle([make_decided()], recorder.take_event_snapshot())
        run_for(recorder, clock, 61)
        named.append(store.load(store.resolve("last")).diagnosis.holders[0].unit)

    assert ["shop.service", "shop.service", "mail.service"] == named


def test_who_held_orphans_that_were_killed_is_named_for_ten_minutes_also_after_a_restart(
    store, make_recorder, make_decided, clock, dumps
):
    dumps += [orphans_of("shop", 4_000), *[orphans_of("receiver", 0)] * 11]
    recorder, named = make_recorder(), []
    while dumps:
        recorder.handle([make_decided()], recorder.take_event_snapshot())
        run_for(recorder, clock, 61)
        named.append(store.load(store.resolve("last")).diagnosis.holders[0].unit)
        recorder = make_recorder() if len(named) == 5 else recorder

    assert [*["shop.service"] * 10, None, None] == named


@pytest.mark.parametrize("seconds", [200, -3_600])
def test_who_held_orphans_that_were_killed_is_named_for_ten_minutes_also_when_the_clock_is_set(
    store, make_recorder, make_decided, clock, dumps, *, seconds
):
    dumps += [orphans_of("shop", 4_000), *[orphans_of("receiver", 0)] * 11]
    recorder, named = make_recorder(), []
    while dumps:
        recorder.handle([make_decided()], recorder.take_event_snapshot())
        run_for(recorder, clock, 61)
        named.append(store.load(store.resolve("last")).diagnosis.holders[0].unit)
        clock.set(seconds if len(named) == 5 else 0)

    assert [*["shop.service"] * 10, None, None] == named


def test_the_orphans_are_counted_again_when_it_is_asked_who_holds_them(
    store, make_recorder, make_decided, clock, proc_root
):
    recorder = make_recorder()
    recorder.tick()
    write_proc(proc_root, orphan=5400, aborts=9000)
    recorder.handle([make_decided()], recorder.take_event_snapshot())
    clock.advance(0.5)
    write_proc(proc_root, orphan=8400, aborts=9000)
    recorder.tick()
    write_proc(proc_root, orphan=5400, aborts=9000)
    run_for(recorder, clock, 2)
    incident = store.load(store.resolve("last"))

    assert 8400 == incident.peak.orphan
    assert 8400 == incident.diagnosis.mechanism.orphan
    assert 0 == incident.diagnosis.mechanism.penalty_shift


def test_a_line_makes_a_warning_the_kernels_own_incident(store, make_recorder, make_decided, clock, proc_root):
    recorder = make_recorder()
    write_proc(proc_root, orphan=2_100)
    run_for(recorder, clock, 20)
    recorder.handle([make_decided(provenance="claimed")], recorder.take_event_snapshot())
    run_for(recorder, clock, 2)
    incident = store.load(store.resolve("last"))

    assert 1 == len(store.ids())
    assert ("event", "claimed") == (incident.class_, incident.provenance)
    assert incident.first_event.kind == "too_many_orphans"
    assert ["opened", "updated"] == told(store)


def test_a_warning_is_taken_up_after_a_restart(store, make_recorder, clock, proc_root):
    recorder = make_recorder()
    write_proc(proc_root, orphan=2_100)
    run_for(recorder, clock, 20)
    again = make_recorder()
    run_for(again, clock, 60)

    assert 1 == len(store.ids())
    assert ["opened"] == told(store)


def test_warnings_can_be_switched_off(store, make_recorder, clock, proc_root):
    recorder = make_recorder(pressure=False)
    write_proc(proc_root, orphan=8_000)
    run_for(recorder, clock, 60)

    assert [] == store.ids()


def test_a_storm_does_not_push_the_time_before_it_out_of_the_history(store, make_recorder, make_decided, clock):
    recorder = make_recorder()
    run_for(recorder, clock, 600)
    start = clock.time
    for number in range(2_000):
        clock.advance(0.01)
        recorder.handle([make_decided(offset=number)], recorder.take_event_snapshot())
    history = recorder._sampler.history

    assert history[0].at <= start - timedelta(seconds=580)
    recorder.flush()
    assert {"too_many_orphans": 2_000} == store.load(store.resolve("last")).events


def test_a_cause_that_goes_to_and_fro_is_told_once_in_a_while(store, make_recorder, make_decided, clock, monkeypatch):
    recorder = make_recorder()
    causes = iter(["orphans", "tcp_memory"] * 1_000)
    real = open_incident.diagnose
    monkeypatch.setattr(
        open_incident, "diagnose", lambda *args: replace(real(*args), cause=next(causes), confidence="likely")
    )
    for number in range(120):
        clock.advance(1)
        recorder.handle([make_decided(offset=number)], recorder.take_event_snapshot())
        recorder.tick()

    assert ["opened", "updated"] == told(store)


def test_a_snapshot_that_a_crash_left_is_named_by_the_replay(store, make_recorder, make_decided, proc_root):
    first = make_recorder()
    write_proc(proc_root, orphan=8_190)
    snapshot = first.take_event_snapshot()
    decided = make_decided()
    incident_id = folding.incident_id(decided[1].at, decided[1].line)
    store.new_directory(incident_id)
    store.write_snapshot(incident_id, 1, snapshot)
    write_proc(proc_root, orphan=3)
    recorder = make_recorder()
    recorder.handle([decided], recorder.take_event_snapshot())
    incident = store.load(store.resolve("last"))

    assert ("snapshot-001.json", "snapshot-002.json") == incident.snapshots
    assert 8_190 == incident.diagnosis.mechanism.orphan


def test_a_log_whose_clock_is_ahead_opens_nothing_in_the_future(store, make_recorder, make_decided, clock):
    start = clock.time
    recorder = make_recorder()
    recorder.handle([make_decided(at=clock.time + timedelta(hours=2))], recorder.take_event_snapshot())
    run_for(recorder, clock, 301)
    incident = store.load(store.resolve("last"))

    assert (start, start) == (incident.opened_at, incident.last_seen_at)
    assert start + timedelta(seconds=300) == incident.closed_at


def test_a_history_that_cannot_be_written_is_told_once_and_stops_nothing(
    store, make_recorder, make_decided, clock, caplog
):
    recorder = make_recorder()
    for path in (store.directory / "history").iterdir():
        path.unlink()
    (store.directory / "history").rmdir()
    (store.directory / "history").touch()
    run_for(recorder, clock, 60)
    recorder.handle([make_decided()], recorder.take_event_snapshot())

    assert ["opened"] == told(store)
    assert 1 == caplog.text.count("the history cannot be written")


def test_the_history_reaches_back_for_days_over_restarts(store, make_recorder, clock, proc_root):
    recorder = make_recorder()
    write_proc(proc_root, orphan=1500)
    run_for(recorder, clock, 20)
    write_proc(proc_root, orphan=3)
    run_for(recorder, clock, 20)
    clock.advance(5 * 86_400)
    again = make_recorder()
    run_for(again, clock, 20)
    prune(store, clock.time)
    history = make_recorder()._sampler.history

    assert 1500 == max(sample.orphan for sample in history)
    assert clock.time - history[0].at >= timedelta(days=5)


def test_an_hour_that_is_over_leaves_the_peak_of_a_snapshot_behind(
    store, make_recorder, make_decided, clock, proc_root
):
    recorder = make_recorder()
    run_for(recorder, clock, 15)
    write_proc(proc_root, orphan=8190)
    recorder.handle([make_decided()], recorder.take_event_snapshot())
    write_proc(proc_root, orphan=3)
    run_for(recorder, clock, 3700)
    left = read_remains(store, clock.time - timedelta(hours=2), clock.time)

    assert 8190 == max(sample.orphan for sample in left)


def test_the_samples_of_the_last_diagnosis_are_kept_with_it(store, make_recorder, make_decided, clock, proc_root):
    recorder = make_recorder(quiet_seconds=6)
    run_for(recorder, clock, 60)
    clock.advance(4)
    recorder.handle([make_decided()], recorder.take_event_snapshot())
    write_proc(proc_root, aborts=4064)
    clock.advance(6.5)
    recorder.tick()  # A sample is due, and the quiet period is over since half a second.
    incident = store.load(store.resolve("last"))

    assert incident.closed_at < clock.time
    kept = read_lines((store.path(incident.id) / "samples.jsonl").read_bytes())
    assert 4064 == max(sample.counters["TCPAbortOnMemory"] for sample in kept)


def test_the_samples_around_an_incident_are_kept_with_it_when_it_closes(store, make_recorder, make_decided, clock):
    recorder = make_recorder()
    run_for(recorder, clock, 60)
    recorder.handle([make_decided()], recorder.take_event_snapshot())
    kept = store.path(store.resolve("last")) / "samples.jsonl"
    assert not kept.exists()

    run_for(recorder, clock, 301)
    incident = store.load(store.resolve("last"))
    start, end = incident.opened_at - timedelta(hours=1), incident.closed_at
    prune(store, clock.time + timedelta(days=3))
    found = read_around(store, incident.id, start, end)

    assert () == store.samples.read(start, end)
    assert len(found) >= 30
    assert found[0].at < incident.opened_at < found[-1].at


def test_an_incident_closes_even_if_its_samples_cannot_be_kept(make_recorder, make_decided, clock, caplog, monkeypatch):
    recorder = make_recorder()
    recorder.handle([make_decided()], recorder.take_event_snapshot())
    store = recorder._store
    full = OSError(errno.ENOSPC, "No space left on device", "samples.jsonl")
    monkeypatch.setattr("agent.service.open_incident.keep_samples", lambda *_: (_ for _ in ()).throw(full))
    run_for(recorder, clock, 301)

    assert store.load(store.resolve("last")).closed_at
    assert "the samples around" in caplog.text


def test_a_look_at_the_sockets_gives_way_to_an_event(make_recorder, make_decided, clock, monkeypatch):
    recorder = make_recorder()
    calls = []
    monkeypatch.setattr(recorder._sampler.survey, "cancel", lambda: calls.append(clock.time))
    recorder.take_event_snapshot()
    assert [clock.time] == calls


def test_a_look_at_the_sockets_in_quiet_time_waits_for_what_is_uncommitted_or_about_to_be_asked(
    make_recorder, make_decided, clock, monkeypatch, dumps
):
    dumps += [orphans_of("web", 700)] * 2
    recorder = make_recorder()
    starts, cancels = [], []
    monkeypatch.setattr(recorder._sampler.survey, "start", starts.append)
    monkeypatch.setattr(recorder._sampler.survey, "cancel", lambda: cancels.append(clock.time))
    recorder.tick()
    assert [clock.time] == starts
    recorder.handle([make_decided()], recorder.take_event_snapshot())
    recorder.tick()
    assert 1 == len(starts)  # Who holds the sockets is asked soon.
    while len(dumps) == 2:
        run_for(recorder, clock, 1)
    asked = clock.time
    assert [asked] == cancels[1:]
    run_for(recorder, clock, 1)
    assert 2 == len(starts)
    recorder.handle([make_decided(offset=200)], recorder.take_event_snapshot())
    clock.advance(0.1)
    recorder.handle([make_decided(offset=300)], recorder.take_event_snapshot())
    assert recorder.position.dirty
    recorder.tick()
    assert 2 == len(starts)


def test_the_link_to_the_newest_incident_is_set_once_a_commit_and_before_the_service_ends(
    store, make_recorder, make_decided, clock, monkeypatch
):
    recorder, real = make_recorder(), store.point_last
    pointed = []
    monkeypatch.setattr(store, "point_last", lambda each: (pointed.append(each), real(each)))
    recorder.handle([from_host(make_decided(), "db7")], recorder.take_event_snapshot())
    recorder.flush()
    assert list(store.ids()) == pointed
    clock.advance(0.1)
    recorder.tick()
    assert list(store.ids()) == pointed
    recorder.handle([from_host(make_decided(offset=200), "db8")], recorder.take_event_snapshot())
    recorder.tick()
    assert list(store.ids()) == pointed


def test_the_opening_of_an_incident_is_judged_once(store, make_recorder, make_decided, monkeypatch):
    recorder = make_recorder()
    calls = []
    judge = open_incident.diagnose
    monkeypatch.setattr(open_incident, "diagnose", lambda *args: calls.append(args) or judge(*args))
    recorder.handle([make_decided()], recorder.take_event_snapshot())

    assert 1 == len(calls)
    assert "orphans" == store.load(store.resolve("last")).diagnosis.cause


def test_a_clock_set_back_leaves_no_samples_in_the_future(make_recorder, clock):
    recorder = make_recorder()
    run_for(recorder, clock, 60)
    clock.set(-7200)
    run_for(recorder, clock, 320)

    assert clock.time >= max(sample.at for sample in recorder._sampler.history)


# --- lines that any local user can forge ----------------------------------------------------------------------------


def test_a_claimed_incident_is_recorded_and_notifies_nobody_where_that_is_configured(
    store, make_recorder, make_decided, clock, caplog
):
    caplog.set_level("INFO", "sockmem-agent")
    recorder = make_recorder(claimed="record")
    recorder.handle([make_decided(provenance="claimed")], recorder.take_event_snapshot())
    run_for(recorder, clock, 2)
    recorder.handle(
        [make_decided(offset=n, provenance="claimed", count=50) for n in (2, 3)], recorder.take_event_snapshot()
    )
    run_for(recorder, clock, 310)
    incident = store.load(store.resolve("last"))

    assert {"too_many_orphans": 101} == incident.events
    assert incident.closed_at is not None
    assert [] == told(store)
    text = "recorded without notification: only a text log claims it ([incident] claimed)"
    assert [f"incident {incident.id}: {text}"] == [each for each in caplog.messages if "without" in each]


def test_a_claimed_incident_notifies_by_default(store, make_recorder, make_decided, clock, caplog):
    caplog.set_level("INFO", "sockmem-agent")
    recorder = make_recorder()
    recorder.handle([make_decided(provenance="claimed")], recorder.take_event_snapshot())
    run_for(recorder, clock, 310)

    assert ["opened", "resolved"] == told(store)
    assert "without notification" not in caplog.text


def test_a_claimed_incident_is_told_as_opened_when_the_kernel_confirms_it(store, make_recorder, make_decided, clock):
    recorder = make_recorder(claimed="record")
    recorder.handle([make_decided(provenance="claimed")], recorder.take_event_snapshot())
    run_for(recorder, clock, 5)
    recorder.handle([make_decided(offset=200)], recorder.take_event_snapshot())
    run_for(recorder, clock, 310)

    assert ["opened", "resolved"] == told(store)
    assert "the kernel hit a TCP limit" == store.notices(store.resolve("last"))[0][1].reason


def test_a_claimed_incident_that_was_told_is_told_again_when_the_kernel_confirms_it(
    store, make_recorder, make_decided, clock
):
    recorder = make_recorder()
    recorder.handle([make_decided(provenance="claimed")], recorder.take_event_snapshot())
    run_for(recorder, clock, 5)
    recorder.handle([make_decided(offset=200)], recorder.take_event_snapshot())
    run_for(recorder, clock, 2)

    assert "confirmed by the kernel's own message" == store.notices(store.resolve("last"))[-1][1].reason


def test_forged_lines_keep_the_gauges_from_no_warning(store, make_recorder, make_decided, clock, proc_root):
    recorder = make_recorder(claimed="record")
    recorder.handle([make_decided(provenance="claimed")], recorder.take_event_snapshot())
    write_proc(proc_root, orphan=2_100)
    run_for(recorder, clock, 30)
    assert ["opened"] == told(store)
    assert "orphaned sockets are above a quarter of their limit" == store.notices(store.resolve("last"))[0][1].reason
    recorder.handle([make_decided(offset=200, provenance="claimed", count=500)], recorder.take_event_snapshot())
    write_proc(proc_root, orphan=4_200)
    run_for(recorder, clock, 30)
    write_proc(proc_root, orphan=3)
    run_for(recorder, clock, 310)

    assert ["opened", "updated", "resolved"] == told(store)


def test_claimed_lines_that_notify_keep_the_gauges_from_no_warning(
    store, make_recorder, make_decided, clock, proc_root
):
    recorder = make_recorder()
    recorder.handle([make_decided(provenance="claimed")], recorder.take_event_snapshot())
    run_for(recorder, clock, 90)
    recorder.handle([make_decided(offset=150, provenance="claimed")], recorder.take_event_snapshot())
    write_proc(proc_root, mem=300_000)
    run_for(recorder, clock, 30)
    notices = [notice for _, notice, _ in store.notices(store.resolve("last"))]
    assert ["opened", "updated"] == told(store)
    assert "TCP memory is above its pressure threshold" in notices[-1].reason
    assert title(notices[-1]).startswith("web1 early warning: ")
    assert 300_000 == store.snapshots(store.resolve("last"))[-1][1].sockstat.tcp.mem
    for minute in range(6):  # As long as they are high it stays open, and another line changes nothing.
        run_for(recorder, clock, 60)
        recorder.handle([make_decided(offset=200 + minute, provenance="claimed")], recorder.take_event_snapshot())
    write_proc(proc_root)
    run_for(recorder, clock, 320)

    assert ["opened", "updated", "resolved"] == told(store)


def test_what_judges_a_claim_has_the_counters_of_other_namespaces_too(
    make_recorder, make_decided, clock, proc_root, monkeypatch
):
    recorder = make_recorder()
    recorder.handle([make_decided(provenance="claimed")], recorder.take_event_snapshot())
    judged, take = [], module.take_snapshot
    monkeypatch.setattr(module, "take_snapshot", lambda *args, **kwargs: judged.append(kwargs) or take(*args, **kwargs))
    write_proc(proc_root, orphan=2_100)
    run_for(recorder, clock, 20)

    assert {"counters": recorder._sampler.counters} in judged
    assert {} not in judged


def test_claimed_lines_that_the_gauges_confirm_are_not_told_twice(store, make_recorder, make_decided, clock, proc_root):
    recorder = make_recorder()
    write_proc(proc_root, orphan=8_200, aborts=9)
    recorder.handle([make_decided(provenance="claimed")], recorder.take_event_snapshot())
    run_for(recorder, clock, 60)

    assert ["opened"] == told(store)


def test_a_claimed_line_behind_a_warning_is_not_said_to_be_the_kernels(
    store, make_recorder, make_decided, clock, proc_root
):
    recorder = make_recorder()
    write_proc(proc_root, orphan=2_100)
    run_for(recorder, clock, 20)
    recorder.handle([make_decided(provenance="claimed")], recorder.take_event_snapshot())
    run_for(recorder, clock, 2)
    assert "a text log claims what the gauges warned of" == store.notices(store.resolve("last"))[-1][1].reason
    recorder.handle([make_decided(offset=200)], recorder.take_event_snapshot())
    run_for(recorder, clock, 2)
    assert "confirmed by the kernel's own message" == store.notices(store.resolve("last"))[-1][1].reason


def test_a_forged_line_neither_raises_nor_hides_the_end_of_a_warning(
    store, make_recorder, make_decided, clock, proc_root
):
    recorder = make_recorder(claimed="record")
    write_proc(proc_root, orphan=2_100)
    run_for(recorder, clock, 20)
    write_proc(proc_root, orphan=3)
    recorder.handle([make_decided(provenance="claimed")], recorder.take_event_snapshot())
    run_for(recorder, clock, 20)
    assert ["opened"] == told(store)
    run_for(recorder, clock, 310)

    assert ["opened", "resolved"] == told(store)


# --- a log server ---------------------------------------------------------------------------------------------------


def from_host(decided, host):
    record, event = decided
    return replace(record, host=host), replace(event, host=host)


@pytest.mark.parametrize("kind", ["too_many_orphans", "tcp_mem"])
def test_a_claimed_line_of_before_the_last_boot_is_told_as_past(
    store, make_recorder, make_decided, clock, *, proc_root, kind
):
    write_proc(proc_root, orphan=7_000)
    recorder = make_recorder(pressure=False)
    line = make_decided(kind, at=clock.time - timedelta(days=3), provenance="claimed")
    recorder.handle([line], recorder.take_event_snapshot())
    run_for(recorder, clock, 320)
    incident = store.load(store.resolve("last"))
    (_, opened, _), (_, resolved, _) = store.notices(incident.id)

    assert "possible" == opened.data.confidence == resolved.data.confidence
    assert "on 19 Nov 2026 at" in title(opened)
    assert "web1: log claimed" in title(opened)
    assert slack.message(opened)["text"].startswith(slack.UNCONFIRMED_SIGN)
    assert opened.data.summary.startswith("A text log claims that")
    assert [] == [advice.sysctl for advice in opened.data.diagnosis.advice if advice.sysctl]
    assert [] == [advice.sysctl for advice in resolved.data.diagnosis.advice if advice.sysctl]


def test_a_line_of_another_host_has_an_incident_without_any_number_of_this_one(
    store, make_recorder, make_decided, clock, proc_root, *, dumps
):
    write_proc(proc_root, orphan=7_000)
    dumps += [orphans_of("web", 7_000)]
    recorder = make_recorder()
    line = from_host(make_decided(provenance="claimed"), "db7")
    recorder.handle([line], recorder.take_event_snapshot())
    run_for(recorder, clock, 40)
    (incident_id,) = [each for each in store.ids() if store.load(each).class_ == "event"]
    recorder.handle([from_host(make_decided(offset=200), "db7.example.org")], recorder.take_event_snapshot())
    run_for(recorder, clock, 310)
    incident = store.load(incident_id)

    assert ("db7", "web1", None, None) == (incident.host, incident.read_on, incident.kernel, incident.boot_id)
    assert {"too_many_orphans": 2} == incident.events
    assert Peak() == incident.peak
    assert incident.closed_at is not None
    assert [None] == [snapshot.sockstat for _, snapshot in store.snapshots(incident_id)]
    assert not (store.path(incident_id) / "samples.jsonl").exists()
    titles = [title(notice) for _, notice, _ in store.notices(incident_id)]
    reached = "db7: log on web1 claims orphan limit reached; nothing was measured on db7"
    assert f"{reached} (first of its kind)" == titles[0]
    files = [each for each in store.path(incident_id).iterdir() if each.is_file()]
    assert [] == [file.name for file in files if "7000" in file.read_text() or "8192" in file.read_text()]


OWN_BOOT = "7f3a1c52-0000-4000-8000-000000000001"


@pytest.mark.parametrize(
    ("source", "is_own"),
    [
        (f"journal:s=5ad8;i=1;b={OWN_BOOT.replace('-', '')};m=1;t=2;x=3", True),
        (f"kmsg:{OWN_BOOT}:1842", True),
        (f"journal:s=5ad8;i=1;b={'f' * 32};m=1;t=2;x=3", False),
        ("/var/log/messages@100", False),
    ],
)
def test_a_line_of_this_boot_is_of_this_host_by_whatever_name_it_goes_since_it_was_renamed(
    source: str, store, make_recorder, make_decided, proc_root, *, is_own: bool
) -> None:
    write_proc(proc_root, orphan=7_000)
    recorder = make_recorder()
    record, event = from_host(make_decided(), "web-new")
    event = replace(event, source=source)
    assert (None if is_own else "web-new") == recorder.host_of(event)
    recorder.handle([(record, event)], recorder.take_event_snapshot(recorder.host_of(event)))
    incident = store.load(store.resolve("last"))

    assert (("web1", None) if is_own else ("web-new", "web1")) == (incident.host, incident.read_on)
    assert is_own == (incident.cause == "orphans" and incident.peak.orphan == 7_000)
    assert [incident.host] == [each.host for each in incident.last_of_kind]


def test_a_storm_of_another_host_takes_a_snapshot_a_second_and_a_line_of_this_one_its_own(
    make_recorder, make_decided, clock, proc_root
):
    recorder = make_recorder()
    first = recorder.take_event_snapshot("db7")
    recorder.handle([from_host(make_decided(), "db7")], first)
    clock.advance(0.5)
    write_proc(proc_root, orphan=7_000)
    other = recorder.take_event_snapshot("db7")
    own = recorder.take_event_snapshot("web1", other)

    assert other is first
    assert (7_000, clock.time) == (own.sockstat.tcp.orphan, own.taken_at)
    assert own is recorder.take_event_snapshot("db7", own)
    assert own is recorder.take_event_snapshot("web1", own)
    recorder = make_recorder()
    other = recorder.take_event_snapshot("db7")
    assert other is not recorder.take_event_snapshot("web1", other)


def test_another_host_has_one_name_in_an_incident_however_its_lines_spell_it(store, make_recorder, make_decided, clock):
    recorder = make_recorder()
    spelled = ("web-7.example.org", "WEB-7", "web-7")
    for number, name in enumerate(spelled):
        line = make_decided(("too_many_orphans", "tcp_mem")[number % 2], offset=100 + number, provenance="claimed")
        recorder.handle([from_host(line, name)], recorder.take_event_snapshot())
        run_for(recorder, clock, 2)
    (incident,) = map(store.load, store.ids())
    shown = diagnosis_text(incident.diagnosis) + incident.summary

    assert {"too_many_orphans": 2, "tcp_mem": 1} == incident.events
    assert "web-7.example.org" == incident.host
    assert "On web-7.example.org, run" in shown
    assert [] == [each for each in re.findall(r"web-7\S*", shown, re.IGNORECASE) if not each.startswith(spelled[0])]


def test_each_host_has_its_own_incident_however_their_lines_alternate(store, make_recorder, make_decided, clock):
    recorder = make_recorder()
    for second in range(5):
        own = make_decided(offset=100 + 10 * second)
        others = [from_host(make_decided(offset=101 + 10 * second + n), host) for n, host in enumerate(("db7", "db8"))]
        recorder.handle([own, *others, from_host(others[0], "db7.lan")], recorder.take_event_snapshot())
        run_for(recorder, clock, 1)
    run_for(recorder, clock, 320)
    incidents = {incident.host: incident for incident in map(store.load, store.ids())}

    assert {"web1": 5, "db7": 10, "db8": 5} == {
        host: each.events["too_many_orphans"] for host, each in incidents.items()
    }
    assert {"web1": None, "db7": "web1", "db8": "web1"} == {host: each.read_on for host, each in incidents.items()}
    assert "6.1.0-37-amd64" == incidents["web1"].kernel
    assert all(each.closed_at for each in incidents.values())
    assert 6 == len(told(store))


def test_no_line_of_any_host_is_lost_or_counted_twice_whenever_the_process_ends(
    store, make_recorder, make_decided, clock
):
    hosts = ("web1", "db7", "db8")
    lines = [from_host(make_decided(offset=100 + n), hosts[n % 3 if n % 4 else 0]) for n in range(30)]
    recorder = make_recorder()
    done = 0
    for step in range(30):
        recorder.handle(lines[done : done + 3], recorder.take_event_snapshot())
        done += 3
        clock.advance(0.4)
        recorder.tick()
        if step % 3 == 2:  # Killed: what is on disk says where to read on.
            recorder = make_recorder()
            place = recorder.position.resume.cursor.files.get("/var/log/messages")
            done = place.offset - 99 if place else 0
        if done >= len(lines):
            break
    recorder.flush()
    wanted = Counter(event.host for _, event in lines)

    assert wanted == {each.host: each.events["too_many_orphans"] for each in map(store.load, store.ids())}
    assert 3 == len(store.ids())


def test_a_killed_process_forgets_no_notice_of_an_incident_that_was_committed_beside_another(
    store, make_recorder, make_decided
):
    recorder = make_recorder()
    lines = [from_host(make_decided(offset=100 + n), host) for n, host in enumerate(("db7", "db8"))]
    recorder.handle(lines, recorder.take_event_snapshot())
    make_recorder().flush()

    assert [["opened"], ["opened"]] == [
        [notice.type.rpartition(".")[2] for _, notice, _ in store.notices(each)] for each in store.ids()
    ]


def test_an_incident_that_only_the_commit_of_another_holds_when_the_process_ends_is_resumed_and_told(
    store, make_recorder, make_decided, monkeypatch
):
    lines = [from_host(make_decided(offset=100 + n), host) for n, host in enumerate(("db7", "db8"))]
    recorder, real = make_recorder(), store.commit

    def commit_the_first(incident) -> None:
        if store.ids():
            raise KeyboardInterrupt
        real(incident)

    monkeypatch.setattr(store, "commit", commit_the_first)
    with pytest.raises(KeyboardInterrupt):
        recorder.handle(lines, recorder.take_event_snapshot())
    monkeypatch.setattr(store, "commit", real)
    make_recorder().flush()

    assert [["opened"], ["opened"]] == [
        [notice.type.rpartition(".")[2] for _, notice, _ in store.notices(each)] for each in store.ids()
    ]
    assert [None, None] == [store.load(each).closed_at for each in store.ids()]


def test_a_suppressed_line_of_a_closed_incident_does_not_take_back_the_position_of_another_hosts_event(
    store, make_recorder, make_decided, clock
):
    recorder = make_recorder(quiet_seconds=5)
    recorder.handle([from_host(make_decided(), "db7")], recorder.take_event_snapshot())
    run_for(recorder, clock, 10)
    late = from_host(make_decided("suppressed", suppressed=40, offset=200), "db7")
    recorder.handle([late, from_host(make_decided(offset=300), "db8")], recorder.take_event_snapshot())
    recorder.flush()
    db7, db8 = map(store.load, store.ids())

    assert (40, {"too_many_orphans": 1}) == (db7.suppressed_at_least, db8.events)
    assert 300 == store.newest_commit()[0].cursor.files["/var/log/messages"].offset


def test_a_line_that_is_decided_late_does_not_take_back_the_position_of_another_hosts_event(
    store, make_recorder, make_decided, clock, monkeypatch
):
    committed, real = [], store.commit
    recorder, detector = make_recorder(quiet_seconds=30), Detector()
    recorder.handle([make_decided()], recorder.take_event_snapshot())
    clock.advance(20)
    for line in (make_decided("suppressed", offset=200), from_host(make_decided(offset=300), "db7")):
        recorder.handle(detector.feed(line[0]), recorder.take_event_snapshot())
    monkeypatch.setattr(store, "commit", lambda incident: committed.append(incident) or real(incident))
    clock.advance(40)
    recorder.handle(detector.feed(make_decided(offset=400)[0]), recorder.take_event_snapshot())
    recorder.flush()

    assert {400} == {each.resume.cursor.files["/var/log/messages"].offset for each in committed}
    assert [(2, 273), (1, 0)] == [
        (each.events["too_many_orphans"], each.suppressed_at_least) for each in map(store.load, store.ids())
    ]


@pytest.fixture
def only_beside(store, make_recorder, make_decided, clock, monkeypatch):
    """Kill the service when only the commit that closes db7's incident holds db8's; this host's own is open, too."""
    recorder, real = make_recorder(quiet_seconds=5), store.commit
    recorder.handle([make_decided(), from_host(make_decided(offset=150), "db7")], recorder.take_event_snapshot())
    clock.advance(60)

    def commit_one(incident) -> None:
        real(incident)
        raise KeyboardInterrupt

    lines = [from_host(make_decided(offset=200), "db8"), from_host(make_decided(offset=300), "db7")]
    snapshot = recorder.take_event_snapshot()
    monkeypatch.setattr(store, "commit", commit_one)
    with pytest.raises(KeyboardInterrupt):
        recorder.handle(lines, snapshot)
    monkeypatch.setattr(store, "commit", real)
    held = {store.load(each).host: each for each in store.ids()}
    assert {"web1", "db7"} == held.keys()
    return held["web1"]


@pytest.mark.usefixtures("only_beside")
def test_an_incident_that_only_the_commit_of_a_closed_one_holds_outlasts_a_later_position(
    make_recorder, make_decided, clock
):
    recorder = make_recorder()
    recorder.flush()
    assert recorder.position.save(make_decided(offset=400)[0].cursor, clock.time)
    assert ["web1", "db8"] == [each.host for each in make_recorder().still_open]


def test_an_incident_that_only_another_holds_outlasts_the_end_of_one_that_cannot_be_resumed(
    store, make_recorder, only_beside
):
    for each in store.path(only_beside).glob("snapshot-*.json"):
        each.unlink()
    make_recorder()
    assert ["db8"] == [each.host for each in make_recorder().still_open]


def test_a_stop_in_the_middle_of_a_batch_loses_no_suppressed_line_of_a_closed_incident(
    store, make_recorder, make_decided, clock
):
    recorder = make_recorder(quiet_seconds=5)
    recorder.handle([from_host(make_decided(), "db7")], recorder.take_event_snapshot())
    run_for(recorder, clock, 10)
    late = from_host(make_decided("suppressed", suppressed=40, offset=200), "db7")
    others = [from_host(make_decided(offset=300 + n), f"db{8 + n}") for n in range(2)]
    assert not recorder.handle([late, *others], recorder.take_event_snapshot(), lambda: False)
    recorder.flush()

    assert [("db7", 40), ("db8", 0)] == sorted(
        (each.host, each.suppressed_at_least) for each in map(store.load, store.ids())
    )
    assert 300 == store.newest_commit()[0].cursor.files["/var/log/messages"].offset


@pytest.mark.parametrize("pause", [10, 1], ids=["whose incident is over", "whose incident is open"])
def test_what_was_suppressed_is_counted_to_its_hosts_last_incident_also_after_another_hosts(
    store, make_recorder, make_decided, clock, pause
):
    recorder = make_recorder(quiet_seconds=5)
    for offset, host in enumerate(("db7", "db7.example.org", "db8"), start=100):
        recorder.handle([from_host(make_decided(offset=offset), host)], recorder.take_event_snapshot())
        run_for(recorder, clock, pause if host == "db8" else 10)
    last = recorder.last
    spelled = {40: "db7", 42: "db7.example.org"}
    late = [from_host(make_decided("suppressed", suppressed=n, offset=100 + n), host) for n, host in spelled.items()]
    recorder.handle(late, recorder.take_event_snapshot())

    assert [0, 82, 0] == [store.load(each).suppressed_at_least for each in store.ids()]
    assert 142 == store.newest_commit()[0].cursor.files["/var/log/messages"].offset
    assert last == recorder.last


def test_what_was_suppressed_on_two_hosts_after_the_end_opens_none_of_their_incidents_at_the_next_start(
    store, make_recorder, make_decided, clock
):
    recorder = make_recorder(quiet_seconds=5)
    for offset, host in enumerate(("db7", "db8"), start=100):
        recorder.handle([from_host(make_decided(offset=offset), host)], recorder.take_event_snapshot())
        run_for(recorder, clock, 10)
    late = [
        from_host(make_decided("suppressed", suppressed=n, offset=100 + n), host)
        for n, host in ((40, "db7"), (42, "db8"))
    ]
    recorder.handle(late, recorder.take_event_snapshot())

    assert [40, 42] == [store.load(each).suppressed_at_least for each in store.ids()]
    assert [] == store.newest_commit()[1]


def test_what_was_suppressed_is_counted_to_the_incident_opened_last_also_when_the_clock_was_set_back(
    store, make_recorder, make_decided, clock
):
    recorder = make_recorder(quiet_seconds=5)
    recorder.handle([make_decided()], recorder.take_event_snapshot())
    run_for(recorder, clock, 10)
    clock.set(-86_400)
    recorder.handle([make_decided(offset=200)], recorder.take_event_snapshot())
    run_for(recorder, clock, 10)
    recorder.handle([make_decided("suppressed", suppressed=40, offset=300)], recorder.take_event_snapshot())

    assert [40, 0] == [store.load(each).suppressed_at_least for each in store.ids()]


def test_what_was_suppressed_on_a_host_whose_incident_was_removed_is_counted_nowhere(
    store, make_recorder, make_decided, clock
):
    recorder = make_recorder(quiet_seconds=5)
    for offset, host in enumerate(("db7", "db8"), start=100):
        recorder.handle([from_host(make_decided(offset=offset), host)], recorder.take_event_snapshot())
        run_for(recorder, clock, 10)
    shutil.rmtree(store.path(store.ids()[0]))
    late = from_host(make_decided("suppressed", suppressed=40, offset=200), "db7")
    recorder.handle([late], recorder.take_event_snapshot())

    assert [("db8", 0)] == [(each.host, each.suppressed_at_least) for each in map(store.load, store.ids())]


def test_what_was_suppressed_on_a_host_is_not_counted_to_another(store, make_recorder, make_decided, clock):
    recorder = make_recorder(quiet_seconds=5)
    recorder.handle([from_host(make_decided(), "db7")], recorder.take_event_snapshot())
    run_for(recorder, clock, 10)
    late = from_host(make_decided("suppressed", suppressed=40, offset=200), "db7")
    recorder.handle([late, from_host(make_decided(offset=300), "db8")], recorder.take_event_snapshot())
    recorder.flush()

    assert [40, 0] == [store.load(each).suppressed_at_least for each in store.ids()]


def test_the_lines_of_six_hundred_hosts_do_not_delay_this_hosts_own(
    store, make_recorder, make_decided, clock, monkeypatch
):
    committed: list[str | None] = []
    real = store.commit
    monkeypatch.setattr(store, "commit", lambda incident: (committed.append(incident.host), real(incident)))
    recorder = make_recorder()
    apart = timedelta(hours=1)  # By their stamps each begins an incident of its own, under any name.
    lines = [
        from_host(make_decided(offset=100 + n, at=clock.time - (600 - n) * apart, provenance="claimed"), f"x{n % 590}")
        for n in range(600)
    ]
    own = make_decided(offset=900, provenance="claimed")
    assert recorder.handle([*lines, own], recorder.take_event_snapshot())
    incidents = {incident.host: incident for incident in map(store.load, store.ids())}

    assert "web1" == committed[0]
    assert {"web1", THE_REST, *(f"x{n}" for n in range(OTHER_HOSTS_AN_HOUR))} == set(incidents)
    run_for(recorder, clock, 310)
    assert 601 == sum(store.load(each).events["too_many_orphans"] for each in store.ids())
    rest = store.load(incidents[THE_REST].id)
    assert rest.summary.startswith("Besides the 20 hosts that have incidents of this hour, other hosts reset TCP")
    assert ["hosts of the lines"] == [gap.what for gap in rest.diagnosis.gaps]
    assert "scan --json /var/log/messages |" in rest.diagnosis.advice[0].commands[0]
    assert "other hosts: log on web1 claims orphan limit reached" in title(store.notices(rest.id)[0][1])

    clock.advance(3600)
    recorder.handle([from_host(make_decided(offset=1000), "db7")], recorder.take_event_snapshot())
    assert "db7" in {incident.host for incident in map(store.load, store.ids())}


def test_other_hosts_have_so_many_incidents_of_their_own_in_any_hour_and_one_more_counts_the_rest(
    store, make_recorder, make_decided, clock, monkeypatch
):
    monkeypatch.setattr(module, "OTHER_HOSTS_AN_HOUR", 2)
    recorder = make_recorder()
    own = {0: "a", 100: "b", 3600: "e", 3700: "g"}
    start, lines = clock.seconds, own | {110: "c", 111: "a", 3599: "d", 3601: "f"}
    for second, host in sorted(lines.items()):
        clock.advance(start + second - clock.seconds)
        recorder.handle([make_decided(offset=99 + second)], recorder.take_event_snapshot())
        recorder.handle([from_host(make_decided(offset=100 + second), host)], recorder.take_event_snapshot())
    recorder.flush()
    incidents = [each for each in map(store.load, store.ids()) if each.read_on]

    assert [*own.values()] == [each.host for each in incidents if each.host != THE_REST]
    assert {"a": 2, "b": 1, THE_REST: 3, "e": 1, "g": 1} == sum(
        (Counter({each.host: each.events["too_many_orphans"]}) for each in incidents), Counter()
    )


def test_beside_other_hosts_incidents_the_last_is_this_hosts_own_and_without_it_the_newest_that_is_open(
    make_recorder, make_decided
):
    recorder = make_recorder()
    lines = [from_host(make_decided(offset=100 + n), host) for n, host in enumerate(("db7", "db8"))]
    recorder.handle(lines, recorder.take_event_snapshot())
    assert "db8" == recorder.last.host
    recorder.handle([make_decided(offset=200)], recorder.take_event_snapshot())
    assert "web1" == recorder.last.host


def test_what_a_repeat_may_stand_behind_is_ordered_by_its_newest_event(make_recorder, make_decided, clock):
    recorder = make_recorder()
    for n, host in enumerate(("db7", "web1", "db8", "db7")):
        recorder.handle([from_host(make_decided(offset=100 + n), host)], recorder.take_event_snapshot())
        clock.advance(1)

    assert ["web1", "db8", "db7"] == [incident.host for incident in recorder.seen_last()]


def test_this_hosts_own_incident_is_none_of_the_bounded_number_of_others(
    make_recorder, make_decided, clock, monkeypatch
):
    monkeypatch.setattr(module, "OTHER_HOSTS_AT_MOST", 2)
    recorder = make_recorder()
    for n, host in enumerate(("web1", "db7", "db8")):
        recorder.handle([from_host(make_decided(offset=100 + n), host)], recorder.take_event_snapshot())
        clock.advance(1)

    assert ["web1", "db7", "db8"] == [each.host for each in recorder.still_open]


def test_the_lines_of_many_hosts_keep_a_bounded_number_of_incidents_open(store, make_recorder, make_decided, clock):
    recorder = make_recorder()
    recorder.handle([make_decided(offset=99)], recorder.take_event_snapshot())
    for n in range(20):
        clock.advance(1)
        recorder.handle([from_host(make_decided(offset=100 + n), f"db{n}")], recorder.take_event_snapshot())
    still_open = [incident.host for incident in map(store.load, store.ids()) if incident.closed_at is None]

    assert {"web1", *(f"db{n}" for n in range(12, 20))} == set(still_open)
    assert 9 == len(make_recorder()._open)


def test_another_hosts_incident_keeps_the_gauges_from_no_warning(store, make_recorder, make_decided, clock, proc_root):
    recorder = make_recorder()
    recorder.handle([from_host(make_decided(), "db7")], recorder.take_event_snapshot())
    write_proc(proc_root, orphan=2_100)
    run_for(recorder, clock, 20)

    assert {"db7": "event", "web1": "pressure"} == {each.host: each.class_ for each in map(store.load, store.ids())}
    assert "web1" == recorder.last.host


# --- a full disk ----------------------------------------------------------------------------------------------------


def test_evidence_that_cannot_be_written_ends_nothing_and_is_committed_when_there_is_room(
    small_disk, store, make_recorder, make_decided, *, clock, dumps, caplog, monkeypatch
):
    recorder = make_recorder()
    recorder.handle([make_decided()], recorder.take_event_snapshot())
    filler = fill_disk(small_disk)
    dumps += [orphans_of("web", 700)] * 9
    run_for(recorder, clock, 40)
    full = store.load(store.resolve("last"))
    assert full.snapshots == tuple(path.name for path in sorted(store.path(full.id).glob("snapshot-*")))
    assert ["opened"] == told(store)
    assert not recorder.position.dirty
    assert ["the history cannot be written", "evidence cannot be written"] == list(recorder._troubles)
    with monkeypatch.context() as patch:
        attempts = []
        patch.setattr(recorder, "_commit", lambda *_: attempts.append(clock.time))
        for _ in range(20):
            clock.advance(0.1)
            recorder.tick()
    assert 2 == len(attempts)
    assert 1 == caplog.text.count("evidence cannot be written; still watching")
    filler.unlink()
    run_for(recorder, clock, 2)

    assert ["opened", "updated"] == told(store)
    assert store.snapshots(full.id)[0][1].sockets == orphans_of("web", 700)
    assert "evidence cannot be written" not in recorder._troubles


@pytest.fixture
def no_room():
    """Make a method of an object raise ENOSPC inside the block."""

    @contextmanager
    def no_room(thing, method):
        def full(*_, **__):
            raise OSError(errno.ENOSPC, "No space left on device", "a file")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(thing, method, full)
            yield

    return no_room


def test_the_last_follow_up_that_could_not_be_written_is_no_trouble_once_there_is_room(
    store, make_recorder, make_decided, clock, no_room
):
    recorder = make_recorder()
    recorder.handle([make_decided()], recorder.take_event_snapshot())
    run_for(recorder, clock, 29)
    with no_room(store, "write_snapshot"), no_room(store, "commit"):
        run_for(recorder, clock, 1)
        assert EVIDENCE in recorder._troubles
    run_for(recorder, clock, 1)

    assert EVIDENCE not in recorder._troubles


def test_an_incident_that_cannot_be_written_is_in_trouble_though_its_snapshot_can(
    store, make_recorder, make_decided, *, clock, no_room, caplog
):
    recorder = make_recorder()
    recorder.handle([make_decided()], recorder.take_event_snapshot())
    with no_room(store, "commit"):
        run_for(recorder, clock, 6)

        assert EVIDENCE in recorder._troubles
        assert 1 == caplog.text.count(f"{EVIDENCE}; still watching")


def test_a_follow_up_that_cannot_be_written_has_no_name(store, make_recorder, make_decided, clock, monkeypatch):
    recorder = make_recorder()
    recorder.handle([make_decided()], recorder.take_event_snapshot())
    clock.advance(1)

    def full(*_) -> str:
        raise OSError(errno.ENOSPC, "No space left on device", "snapshot-002.json")

    with monkeypatch.context() as patch:
        patch.setattr(store, "write_snapshot", full)
        recorder.tick()
    run_for(recorder, clock, 40)
    incident = store.load(store.resolve("last"))

    assert ("snapshot-001.json", "snapshot-002.json", "snapshot-003.json") == incident.snapshots
    assert [0, 5, 30] == [
        round((s.taken_at - incident.opened_at).total_seconds()) for _, s in store.snapshots(incident.id)
    ]


def test_an_event_that_cannot_be_written_ends_the_process(store, make_recorder, make_decided, clock, monkeypatch):
    recorder = make_recorder()
    recorder.handle([make_decided()], recorder.take_event_snapshot())
    clock.advance(0.5)
    recorder.handle([make_decided(offset=200)], recorder.take_event_snapshot())
    clock.advance(1)

    def full(_) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "incident.json")

    monkeypatch.setattr(store, "commit", full)
    with pytest.raises(OSError, match="No space left"):
        recorder.tick()


@pytest.mark.parametrize("lines", [("too_many_orphans",), ("tcp_mem", "too_many_orphans")], ids="-".join)
@pytest.mark.parametrize("seconds_before", [None, 0, 2, 70])
def test_an_event_is_stored_though_somebody_has_emptied_the_state_directory(
    store, make_recorder, make_decided, *, clock, dumps, seconds_before, lines, caplog
):
    recorder = make_recorder()
    if seconds_before is not None:
        dumps += [orphans_of("web", 700)] * 9
        recorder.handle([make_decided(lines[0], offset=100)], recorder.take_event_snapshot())
        run_for(recorder, clock, seconds_before)
    for path in store.directory.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    recorder.handle([make_decided(lines[-1], offset=200)], recorder.take_event_snapshot())
    dumps += [orphans_of("web", 700)] * 9
    run_for(recorder, clock, 40)

    (incident,) = [store.load(name) for name in store.ids()]
    assert incident.events[lines[-1]] >= 1
    assert 200 == store.newest_commit()[0].cursor.files["/var/log/messages"].offset
    assert "was removed, and is made again" in caplog.text
    assert incident.snapshots == tuple(name for name, _ in store.snapshots(incident.id))
    assert (incident.id, "notice-001") == owed(store, "ops")[0]
    assert incident.notices == tuple(f"{name}.json" for name, _, _ in store.notices(incident.id))
    assert [] == [*recorder._troubles]
    assert 1 < len(make_recorder()._sampler.history)


def test_an_open_incident_without_a_readable_snapshot_is_closed_and_its_end_is_told(
    store, make_recorder, make_decided, caplog
):
    recorder = make_recorder()
    recorder.handle([make_decided()], recorder.take_event_snapshot())
    incident_id = store.resolve("last")
    for path in store.path(incident_id).glob("snapshot-*"):
        path.write_text("{")
    before = store.newest_commit()[0].generation
    recorder = make_recorder()

    assert ["opened", "resolved"] == told(store)
    assert before < store.newest_commit()[0].generation
    assert store.load(incident_id).closed_at
    assert f"incident {incident_id} is closed as it stands" in caplog.text
    recorder.handle([make_decided(offset=200)], recorder.take_event_snapshot())
    assert 2 == len(store.ids())


def test_a_surprise_in_the_open_incident_closes_it_and_the_service_starts(
    store, make_recorder, make_decided, monkeypatch, caplog
):
    recorder = make_recorder()
    recorder.handle([make_decided()], recorder.take_event_snapshot())
    with monkeypatch.context() as patch:
        patch.setattr(open_incident, "diagnose", lambda *_: 1 / 0)
        make_recorder()

    assert ["opened", "resolved"] == told(store)
    assert "ZeroDivisionError" in caplog.text
    assert [] == store.newest_commit()[1]


def test_of_two_open_incidents_the_newer_one_goes_on(store, make_recorder, make_decided, clock, caplog):
    recorder = make_recorder(quiet_seconds=5)
    recorder.handle([make_decided()], recorder.take_event_snapshot())
    run_for(recorder, clock, 10)
    recorder.handle([make_decided(offset=200)], recorder.take_event_snapshot())
    older, newer = store.ids()
    store.commit(replace(store.load(older), closed_at=None))
    make_recorder()

    assert store.load(older).closed_at
    assert store.load(newer).closed_at is None
    assert f"incident {older} is closed as it stands: a newer incident is open" in caplog.messages
