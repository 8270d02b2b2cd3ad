import shutil
from datetime import timedelta

import msgspec
import pytest
from harness import write_proc
from msgspec.structs import replace

from agent.core.readings import SocketGroup, SocketTable, Tally
from agent.core.recurrence import kind_of, recurrence_text
from agent.core.report import title
from agent.core.settings import IncidentSettings, Settings, SourceSettings
from agent.service import recorder as module
from agent.service.daemon import Daemon
from agent.service.earlier import EARLIER, SEEN_LAST, Earlier
from agent.service.outside import Outside
from agent.service.recorder import Recorder
from agent.service.signals import Signals
from agent.service.troubles import Troubles
from agent.store import Store

DAY = 86_400


@pytest.fixture
def holder(proc_root, monkeypatch):
    """Whose orphans the next dumps see, while the gauge stands at 700 orphans."""
    write_proc(proc_root, orphan=700)
    named = ["web"]
    monkeypatch.setattr(module, "take_sockets", lambda *_, **__: orphans_of(named[0]))
    return named


def orphans_of(unit: str) -> SocketTable:
    group = SocketGroup(cgroup=7, port=8080, orphaned={"fin_wait1": Tally(sockets=700, bytes=700 * 4096)})
    return SocketTable(groups=(group,), paths={1: "/", 7: f"/system.slice/{unit}.service"}, complete=True)


@pytest.fixture
def make_recorder(store, clock, proc_root, holder):
    def make(**kwargs) -> Recorder:
        return Recorder(
            store,
            settings=IncidentSettings(**kwargs),
            channels=("ops",),
            now=clock,
            on_notice=lambda _: None,
            troubles=Troubles(),
            proc_root=proc_root,
            monotonic=clock.monotonic,
        )

    return make


@pytest.fixture
def happen(clock, make_decided):
    """Let a line come and pass: the incident opens, is looked at, and closes after its quiet period."""

    def happen(recorder: Recorder, *, days: float = 1.0) -> None:
        open_one(recorder, clock, make_decided)
        run_for(recorder, clock, 310)
        clock.advance(days * DAY - 310)

    return happen


def open_one(recorder: Recorder, clock, make_decided) -> None:
    recorder.handle([make_decided(offset=int(clock.seconds) + 100)], recorder.take_event_snapshot())
    recorder.tick()


def run_for(recorder: Recorder, clock, seconds: int) -> None:
    for _ in range(seconds):
        clock.advance(1)
        recorder.tick()


def remove_oldest(store: Store, count: int) -> None:
    for name in store.ids()[:count]:
        shutil.rmtree(store.path(name))


def numbers(store: Store) -> list[int | None]:
    return [each.recurrence and each.recurrence.count for each in (store.load(name) for name in store.ids())]


def titles(store: Store) -> list[str]:
    return [title(notice).rpartition("(")[2] for _, notice, _ in store.notices(store.resolve("last"))]


def test_the_notice_that_knows_the_holder_says_how_many_of_its_kind_there_were(store, make_recorder, happen):
    recorder = make_recorder()
    happen(recorder)
    happen(recorder)
    happen(recorder)

    assert [1, 2, 3] == numbers(store)
    assert ["update, 3rd since 22 Nov)", "resolved, 3rd since 22 Nov)"] == titles(store)[1:]
    opened = store.notices(store.resolve("last"))[0][1].data
    assert opened.recurrence is None
    assert opened.signature != store.load(opened.id).signature
    assert kind_of(store.load(opened.id)).signature == store.load(opened.id).signature


def test_another_holder_is_another_kind(store, make_recorder, happen, holder):
    recorder = make_recorder()
    happen(recorder)
    holder[0] = "shop"
    happen(recorder)
    holder[0] = "web"
    happen(recorder)

    assert [1, 1, 2] == numbers(store)


def test_earlier_incidents_are_read_once_when_the_service_starts(store, make_recorder, happen, monkeypatch):
    happen(make_recorder())
    happen(make_recorder())
    read = []
    monkeypatch.setattr(store, "past", lambda name, past=store.past: read.append(name) or past(name))
    recorder = make_recorder()

    assert store.ids() == sorted(read)
    happen(recorder)
    happen(recorder)
    assert 2 == len(read)
    assert [1, 2, 3, 4] == numbers(store)


def test_what_was_committed_last_is_known_at_a_start_though_the_clock_was_set_back(store, make_recorder, happen, clock):
    recorder = make_recorder()
    for _ in range(SEEN_LAST):
        happen(recorder)
    clock.set(-30 * DAY)
    happen(recorder)
    last = min(store.ids())
    earlier = Earlier(store, Troubles())

    assert last == earlier.newest(None).id
    assert last == earlier.seen_last()[0].id


def test_while_thousands_are_read_progress_is_reported(store, make_recorder, happen, monkeypatch):
    happen(make_recorder())
    past, told = store.past(store.ids()[0]), []
    monkeypatch.setattr(store, "names", lambda: [f"x{number}" for number in range(1000)])
    monkeypatch.setattr(store, "past", lambda name: past._replace(id=name))
    monkeypatch.setattr(store, "_on_progress", lambda: told.append(1))
    earlier = Earlier(store, Troubles())

    assert 10 == len(told)
    assert 1001 == earlier.recurrence(store.load(past.id)).count


def test_one_whose_kind_cannot_be_told_stops_no_start(store, make_recorder, happen, monkeypatch):
    happen(make_recorder())
    monkeypatch.setattr(store, "past", lambda _: {}["slip"])
    recorder = make_recorder()
    monkeypatch.undo()
    happen(recorder)

    assert [1, 1] == numbers(store)


@pytest.mark.parametrize("surprise", [KeyError("slip"), OSError(5, "Input/output error", "incident.json")])
def test_one_whose_kind_cannot_be_told_stays_in_trouble_though_others_can(
    store, make_recorder, happen, monkeypatch, surprise
):
    recorder = make_recorder()
    happen(recorder)
    happen(recorder)
    first, past = min(store.names()), store.past

    def fail(name):
        if name == first:
            raise surprise
        return past(name)

    monkeypatch.setattr(store, "past", fail)
    recorder = make_recorder()
    recorder.forget_removed()

    assert EARLIER in recorder._troubles


def test_the_first_notice_says_it_where_no_holder_is_looked_for(store, make_recorder, make_decided, clock):
    recorder = make_recorder()
    old = [make_decided(at=clock.time + timedelta(days=days), offset=200 - days) for days in (-3, -2, -1)]
    recorder.handle(old, recorder.take_event_snapshot())

    assert [1, 2, 3] == numbers(store)
    assert ["3rd since 19 Nov)"] == titles(store)[:1]


def test_incidents_of_versions_without_signatures_count(store, make_recorder, happen):
    happen(make_recorder())
    path = store.path(store.ids()[0]) / "incident.json"
    old = msgspec.json.decode(path.read_bytes())
    del old["signature"], old["recurrence"]
    path.write_bytes(msgspec.json.encode(old))
    happen(make_recorder())

    assert [None, 2] == numbers(store)


def test_what_retention_removed_is_not_counted_and_since_is_the_oldest_kept(store, make_recorder, happen):
    recorder = make_recorder()
    for _ in range(3):
        happen(recorder)
    remove_oldest(store, 2)
    recorder.forget_removed()
    happen(recorder)

    assert [3, 2] == numbers(store)
    assert store.load(store.ids()[0]).opened_at == store.load(store.ids()[1]).recurrence.since


def test_what_somebody_removes_while_the_service_runs_is_forgotten_with_the_hourly_retention(
    store, make_recorder, happen, clock, proc_root, *, tmp_path
):
    for _ in range(3):
        happen(make_recorder())
    (tmp_path / "messages").touch()
    source = SourceSettings(kind="file", paths=(str(tmp_path / "messages"),))
    daemon = Daemon(Settings(source=source, store=store.settings), store, Signals(), Outside(proc_root, now=clock))
    remove_oldest(store, 2)
    clock.advance(3601)
    daemon.turn()
    daemon._source.close()

    incident = store.load(store.ids()[0])
    assert 2 == daemon._recorder._earlier.recurrence(replace(incident, id=f"{incident.id[:-4]}ffff")).count


def test_one_that_a_clock_set_back_dates_before_the_others_is_no_first_of_its_kind(store, make_recorder, happen, clock):
    recorder = make_recorder()
    for _ in range(3):
        happen(recorder)
    clock.set(-30 * DAY)
    happen(recorder)
    fourth = store.load(store.ids()[0])
    happen(recorder)

    assert [4, 5, 1, 2, 3] == numbers(store)
    assert "4th since 26 Oct, same unit" == recurrence_text(fourth)
    assert fourth.opened_at == store.load(store.ids()[1]).recurrence.since


def test_a_restart_and_retention_change_no_number_that_was_said(store, make_recorder, happen, make_decided, clock):
    recorder = make_recorder()
    happen(recorder)
    happen(recorder)
    open_one(recorder, clock, make_decided)
    run_for(recorder, clock, 5)
    remove_oldest(store, 2)
    run_for(make_recorder(), clock, 310)

    assert [3] == numbers(store)
    assert ["update, 3rd since 22 Nov)", "resolved, 3rd since 22 Nov)"] == titles(store)[1:]


def test_a_holder_that_changes_unsaid_takes_the_number_back_and_the_old_holder_restores_it(
    store, make_recorder, happen, make_decided, *, clock, holder
):
    recorder = make_recorder()
    happen(recorder)
    open_one(recorder, clock, make_decided)
    run_for(recorder, clock, 5)
    holder[0] = "shop"
    clock.advance(60)
    open_one(recorder, clock, make_decided)
    recorder.flush()
    # Judged anew, and nobody has looked yet: that is no other kind.
    assert [1, 2] == numbers(store)
    run_for(recorder, clock, 5)
    assert [1, None] == numbers(store)
    assert kind_of(store.load(store.resolve("last"))).signature == store.load(store.resolve("last")).signature
    holder[0] = "web"
    clock.advance(60)
    open_one(recorder, clock, make_decided)
    run_for(recorder, clock, 310)

    assert [1, 2] == numbers(store)


def test_a_warning_that_the_kernel_confirms_is_numbered_as_what_it_is_now(
    store, make_recorder, make_decided, clock, proc_root
):
    recorder = make_recorder()
    write_proc(proc_root, orphan=2_100)
    run_for(recorder, clock, 20)
    write_proc(proc_root, orphan=700)
    run_for(recorder, clock, 400)
    write_proc(proc_root, orphan=2_100)
    run_for(recorder, clock, 20)
    assert [1, 2] == numbers(store)
    open_one(recorder, clock, make_decided)
    run_for(recorder, clock, 1)
    assert "update)" == titles(store)[-1]
    write_proc(proc_root, orphan=700)
    run_for(recorder, clock, 400)

    assert [1, 1] == numbers(store)
    assert titles(store)[-1].endswith(", first of its kind)")


def test_suppressed_lines_after_the_end_count_no_incident_twice(store, make_recorder, happen, make_decided, clock):
    recorder = make_recorder()
    happen(recorder)
    recorder.handle([make_decided("suppressed", offset=9_000, suppressed=5)], recorder.take_event_snapshot())
    happen(recorder)

    assert [1, 2] == numbers(store)


def test_an_earlier_incident_that_cannot_be_read_is_left_out(store, make_recorder, happen):
    happen(make_recorder())
    (store.path(store.ids()[0]) / "incident.json").write_text("{")
    recorder = make_recorder()
    happen(recorder)

    assert 1 == store.load(store.resolve("last")).recurrence.count
