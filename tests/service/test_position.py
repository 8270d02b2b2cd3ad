import shutil
from datetime import timedelta

import pytest
from material import NOW, make_incident
from msgspec.structs import replace

from agent.core.cursor import Cursor, FileCursor
from agent.service.position import Position
from agent.store import Store


@pytest.fixture
def position(store):
    return start(store)


def start(store: Store) -> Position:
    """Do what a process does when it starts."""
    return Position(store, store.newest_commit()[0], NOW)


def at(offset: int) -> Cursor:
    return Cursor(files={"/var/log/messages": FileCursor(device=1, inode=2, offset=offset, marker="m")})


def incident(store: Store, name: str):
    store.new_directory(name)
    return make_incident(id=name)


@pytest.mark.parametrize(("seconds", "expected"), [(4.9, False), (5, True), (-4.9, False), (-5, True)])
def test_a_position_is_saved_every_five_seconds_also_where_the_clock_was_set_back(position, seconds, expected):
    position.save(at(100), NOW)

    assert expected == position.is_due(NOW + timedelta(seconds=seconds))


def test_a_start_writes_no_position_at_once(position):
    assert not position.is_due(NOW + timedelta(seconds=4))
    assert position.is_due(NOW + timedelta(seconds=5))


@pytest.mark.parametrize(("seconds", "expected"), [(59.9, False), (60, True), (-59.9, False), (-60, True)])
def test_a_suppressed_line_that_nobody_decides_keeps_the_position_back_for_a_minute(position, seconds, expected):
    position.save(at(100), NOW)

    assert expected == position.may_be_saved(NOW + timedelta(seconds=seconds), is_undecided=True)
    assert position.may_be_saved(NOW, is_undecided=False)


def test_while_an_event_is_not_on_disk_nothing_behind_it_is_saved_however_long_that_takes(store, position):
    opened = incident(store, "20261129T090000Z-0001")
    position.cover(at(100), opened)

    assert not position.may_be_saved(NOW + timedelta(days=1), is_undecided=False)
    assert position.is_waiting(opened)
    position.commit(opened)
    assert position.may_be_saved(NOW, is_undecided=False)
    assert not position.is_waiting(opened)


def test_a_quiet_log_costs_no_write(store, position):
    assert position.save(at(100), NOW)
    written = store.newest_commit()[0]

    assert not position.save(at(100), NOW)
    assert not start(store).save(at(100), NOW)
    assert written == store.newest_commit()[0]
    assert position.save(at(200), NOW)
    assert at(200) == store.newest_commit()[0].cursor


@pytest.mark.parametrize("whole", [False, True])
def test_a_position_that_somebody_has_removed_is_written_again_though_the_log_is_quiet(store, position, whole):
    position.save(at(100), NOW)
    shutil.rmtree(store.directory) if whole else (store.directory / "cursor.json").unlink()

    assert position.save(at(100), NOW)
    assert at(100) == store.newest_commit()[0].cursor
    assert not position.save(at(100), NOW)


def test_the_first_start_on_an_empty_log_is_written_down(store, position):
    assert position.save(Cursor(), NOW)
    assert 1 == store.newest_commit()[0].generation


def test_a_write_that_failed_is_tried_again_though_no_line_has_come_since(store, position, monkeypatch):
    position.save(at(100), NOW)
    with monkeypatch.context() as patch:
        patch.setattr(store, "save_cursor", fail)
        with pytest.raises(OSError, match="broken"):
            position.save(at(200), NOW)

    assert position.save(at(100), NOW)
    assert position.resume == store.newest_commit()[0]
    assert not position.save(at(100), NOW)


def fail(*_) -> None:
    raise OSError("broken")


def test_a_save_that_fails_is_not_tried_in_every_turn(store, position, monkeypatch):
    monkeypatch.setattr(store, "save_cursor", fail)
    with pytest.raises(OSError, match="broken"):
        position.save(at(100), NOW + timedelta(seconds=60))

    assert not position.is_due(NOW + timedelta(seconds=61))


def test_a_position_outranks_the_incident_that_was_committed_before_it(store, position):
    opened = incident(store, "20261129T090000Z-0001")
    position.cover(at(100), opened)
    position.commit(opened)
    position.save(at(200), NOW)

    assert at(200) == start(store).resume.cursor


def test_a_commit_that_covers_no_line_leaves_the_position_where_it_was(store, position):
    opened = incident(store, "20261129T090000Z-0001")
    position.cover(at(100), opened)
    position.cover(None, opened)
    position.commit(opened)

    assert at(100) == store.newest_commit()[0].cursor


def test_the_events_of_every_host_survive_a_crash_behind_the_commit_of_one(store, position):
    web1, web2 = incident(store, "20261129T080000Z-0001"), incident(store, "20261129T090000Z-0002")
    position.cover(at(100), web1)
    position.cover(at(200), web2)
    committed = position.commit(web1)

    resume, still_open, _ = store.newest_commit()
    assert at(200) == resume.cursor
    assert {web1.id, web2.id} == {each.id for each in still_open}
    assert resume == committed.resume


def test_an_incident_that_another_commit_held_as_open_stays_closed_after_a_restart(store, position):
    other, first = incident(store, "20261129T080000Z-0001"), incident(store, "20261129T090000Z-0002")
    position.cover(at(100), first)
    position.cover(at(200), other)
    position.commit(other)
    position.close()
    position.commit(replace(first, closed_at=NOW))

    resume, still_open, _ = store.newest_commit()
    assert [other.id] == [each.id for each in still_open]
    assert at(200) == resume.cursor
