from datetime import timedelta
from pathlib import Path
from threading import Event

import pytest
from harness import wait_for
from msgspec.structs import replace

from agent.core.readings import FullGroup, Gap, SocketGroup, SocketTable, Tally
from agent.probe import take_sockets
from agent.service import survey as module
from agent.service.survey import AGAIN_AFTER, CPU_SHARE, FIRST_AFTER, SPACING, Survey

TABLE = SocketTable(
    groups=(SocketGroup(cgroup=77, port=80, held={"established": Tally(sockets=40, bytes=4096)}),),
    paths={1: "/", 77: "/system.slice/nginx.service"},
    complete=True,
)


class Dump:
    """Stands for take_sockets: waits for leave to go on, or until its clock says that its time is over."""

    def __init__(self, table: SocketTable = TABLE) -> None:
        self.go_on = Event()
        self.calls = 0
        self.table = table

    def __call__(self, proc_root, deadline_seconds, *, names, clock) -> SocketTable:
        self.calls += 1
        began = clock()
        while not self.go_on.wait(0.001):
            if clock() - began > deadline_seconds:
                return SocketTable(gaps=(Gap(what="sock_diag", why="over"),))
        return self.table


@pytest.fixture
def dump():
    return Dump()


@pytest.fixture
def survey(dump, clock, monkeypatch):
    monkeypatch.setattr(module, "is_this_host", lambda root: True)
    return Survey(Path("/proc"), clock.time, dump)


def end_of(survey, now):
    """Wait for the dump under way to end, and collect what it found."""
    wait_for("the dump to end", lambda: not survey._thread.is_alive())
    return survey.collect(now)


def test_the_first_look_comes_a_minute_after_the_start(survey, dump, clock):
    survey.start(clock.time)
    assert 0 == dump.calls
    dump.go_on.set()
    survey.start(clock.advance(FIRST_AFTER.total_seconds()))

    assert ["nginx.service"] == [share.name for share in end_of(survey, clock.time)]
    assert () == survey.collect(clock.time)
    assert clock.time + SPACING == survey.due


def test_the_cgroups_at_their_limits_with_their_sockets_are_those_of_the_last_whole_look(survey, dump, clock):
    def full(**facts) -> FullGroup:
        return FullGroup(path="/a", current_bytes=100, limit_bytes=100, **facts)

    starving = full(sock_bytes=50, refused=3)
    others = (full(sock_bytes=49, refused=3), full(sock_bytes=90, refused=0), full(refused=3))
    dump.go_on.set()
    for groups, whole, expected in (((*others, starving), True, (starving,)), ((), False, (starving,)), ((), True, ())):
        dump.table = replace(TABLE, full_groups=groups, complete=whole)
        survey.start(clock.advance(600))
        end_of(survey, clock.time)
        assert expected == survey.groups


def test_while_one_is_under_way_nothing_is_found_and_no_other_begins(survey, dump, clock):
    survey.start(clock.advance(60))
    survey.start(clock.advance(600))
    assert () == survey.collect(clock.time)
    assert 1 == dump.calls
    dump.go_on.set()
    assert 40 == end_of(survey, clock.time)[0].sockets


def test_an_event_ends_the_dump_at_once_and_it_is_made_soon_again(survey, dump, clock):
    survey.start(clock.advance(60))
    survey.cancel()

    assert () == end_of(survey, clock.time)
    assert clock.time + AGAIN_AFTER == survey.due
    dump.go_on.set()
    survey.start(clock.advance(60))
    assert "nginx.service" == end_of(survey, clock.time)[0].name


def test_a_part_of_the_sockets_is_no_look_at_all(survey, dump, clock):
    dump.table = SocketTable(groups=TABLE.groups, paths=TABLE.paths, complete=False)
    dump.go_on.set()
    survey.start(clock.advance(60))
    assert () == end_of(survey, clock.time)
    assert clock.time + SPACING == survey.due


def test_sockets_without_their_names_are_no_look_either(survey, dump, clock):
    dump.table = SocketTable(groups=TABLE.groups, complete=True, cut_short=True)
    dump.go_on.set()
    survey.start(clock.advance(60))
    assert () == end_of(survey, clock.time)


def test_a_dump_that_is_stopped_before_it_begins_finds_nothing_and_breaks_nothing(clock):
    def stopped(*args, **kwargs):
        survey.cancel()
        return take_sockets(*args, **kwargs)

    survey = Survey(Path("/proc"), clock.time, stopped)
    survey.start(clock.advance(60))
    assert () == end_of(survey, clock.time)
    assert clock.time + AGAIN_AFTER == survey.due


def test_no_room_for_a_thread_is_told_once_and_tried_again(survey, dump, clock, monkeypatch, caplog):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as full:
        full.setattr(module.Thread, "start", refuse)
        for _ in range(2):
            survey.start(clock.advance(60))
            assert clock.time + AGAIN_AFTER == survey.due
            assert () == survey.collect(clock.time)
    assert ["socket survey skipped, tried again every minute: can't start new thread"] == caplog.messages

    dump.go_on.set()
    survey.start(clock.advance(60))
    assert "nginx.service" == end_of(survey, clock.time)[0].name


def test_what_it_costs_decides_when_the_next_is_due(survey, dump, clock, monkeypatch):
    spent = iter((0.0, 7.5))
    monkeypatch.setattr(module.time, "thread_time", lambda: next(spent))
    dump.go_on.set()
    survey.start(clock.advance(60))
    end_of(survey, clock.time)

    assert clock.time + timedelta(seconds=7.5 / CPU_SHARE) == survey.due


def test_a_surprise_in_the_thread_ends_the_service_and_not_only_the_thread(survey, clock, monkeypatch):
    def fail(*args, **kwargs):
        raise ZeroDivisionError

    survey._take = fail
    survey.start(clock.advance(60))
    with pytest.raises(ZeroDivisionError):
        end_of(survey, clock.time)


def test_a_clock_set_back_does_not_put_it_off(survey, clock):
    survey.clock_set_back(clock.time - timedelta(hours=5))
    assert survey.due == clock.time - timedelta(hours=5) + SPACING


def test_a_tree_that_is_not_this_hosts_is_not_asked(tmp_path, clock):
    dump = Dump()
    survey = Survey(tmp_path, clock.time, dump)
    survey.start(clock.advance(3600))
    assert 0 == dump.calls
    assert () == survey.collect(clock.time)
