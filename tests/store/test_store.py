import errno
import fcntl
import os
import shutil
import stat
from datetime import timedelta
from pathlib import Path

import pytest
from harness import owed
from msgspec.structs import replace

from agent.core import folding
from agent.core.cursor import Cursor, Resume
from agent.core.delivery import Receipt, Trouble
from agent.core.model import Diagnosis, Incident, Notice, Provenance, Sample, Snapshot
from agent.core.settings import StoreSettings
from agent.store import NoSuchIncident, Outbox, Store, StoreError, prune, unusable
from agent.store.disk import hold_lock, set_aside, size_of
from agent.store.history import read_lines
from agent.store.incidents import PROGRESS_SPACING
from agent.store.retention import CLAIMED_KEPT

DIAGNOSIS = Diagnosis(cause="orphans", confidence="likely", summary="s")


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "state", StoreSettings(min_free_bytes=0))
    store.open_for_writing()
    return store


@pytest.fixture
def keep(store, clock, make_decided):
    """Commit an incident that opened ``seconds`` from now."""

    def commit(
        seconds: float = 0,
        *,
        closed: bool = True,
        generation: int = 1,
        channels: tuple[str, ...] = (),
        provenance: Provenance = "kernel",
    ) -> str:
        at = clock.time + timedelta(seconds=seconds)
        record, event = make_decided(at=at, provenance=provenance)
        snapshot = Snapshot(taken_at=at, trigger="event", host="web1", raw={"net/sockstat": "TCP: inuse 1\n"})
        incident = folding.open_incident(event, at, snapshot, DIAGNOSIS)
        store.new_directory(incident.id)
        name = store.write_snapshot(incident.id, 1, snapshot)
        incident = replace(incident, snapshots=(name,), closed_at=at if closed else None)
        if channels:
            notice = Notice(
                id="msg", type="sockmem.incident.opened", at=at, reason="r", channels=channels, data=incident
            )
            incident = replace(incident, notices=(store.write_notice(incident.id, 1, notice),))
        store.commit(replace(incident, resume=Resume(generation=generation, cursor=record.cursor)))
        store.point_last(incident.id)
        return incident.id

    return commit


def test_what_was_committed_is_read_back(store, keep):
    incident_id = keep()

    assert store.ids() == [incident_id]
    assert ("snapshot-001.json",) == store.load(incident_id).snapshots
    assert {"net/sockstat": "TCP: inuse 1\n"} == store.snapshots(incident_id)[0][1].raw


def test_files_are_0640_in_directories_0750_whatever_the_umask(store, keep):
    directory = store.path(keep())

    assert {0o640} == {stat.S_IMODE(p.stat().st_mode) for p in directory.iterdir()}
    assert {0o750} == {stat.S_IMODE(p.stat().st_mode) for p in (directory, directory.parent, store.directory)}


def test_an_id_may_be_shortened_as_long_as_it_is_unambiguous(store, keep):
    first, second = keep(), keep(3600)

    assert store.resolve(first[:14]) == first
    assert store.resolve(second) == second
    assert store.resolve("last") == second
    with pytest.raises(NoSuchIncident, match=f"begins 2 incidents: {first}, {second}"):
        store.resolve("2026")
    with pytest.raises(NoSuchIncident, match="no incident 'x'"):
        store.resolve("x")


def test_no_incident_is_the_last_of_none(store):
    with pytest.raises(NoSuchIncident, match="no incident 'last'"):
        store.resolve("last")


def test_a_notice_is_owed_only_once_its_incident_is_committed(store, keep, clock):
    incident_id = keep(channels=("ops",))
    late = Notice(id="x", type="sockmem.incident.updated", at=clock.time, reason="r", channels=("ops",), data=None)
    store.write_notice(incident_id, 2, late)

    assert [(incident_id, "notice-001")] == owed(store, "ops")


def test_a_receipt_ends_what_is_owed_to_that_channel_alone(store, keep, clock):
    incident_id = keep(channels=("ops", "dev"))
    receipt = Receipt(notice="msg", channel="ops", outcome="delivered", at=clock.time, attempts=1, detail="taken")
    Outbox(store).write_receipt(incident_id, "notice-001", receipt)

    assert [] == owed(store, "ops")
    assert [(incident_id, "notice-001")] == owed(store, "dev")
    assert store.notices(incident_id)[0][2] == {"ops": receipt}


def test_a_channel_that_was_configured_later_owes_nothing(store, keep):
    keep(channels=("ops",))

    assert [] == owed(store, "new")


def test_one_broken_incident_is_told_and_hides_nothing_else(store, keep):
    broken, good = keep(channels=("ops",)), keep(3600, channels=("ops",))
    (store.path(broken) / "incident.json").write_bytes(b'{"id": ')

    assert owed(store, "ops") == [(good, "notice-001")]
    unread: dict[str, str] = {}
    assert [good] == [each.id for each in store.read_each(unread)]
    assert [broken] == list(unread)
    assert 1 == store.newest_commit()[0].generation
    with pytest.raises(StoreError, match=r"incident\.json: cannot be read .*; move it away"):
        store.load(broken)


def test_a_directory_without_incident_json_is_told_and_is_no_incident(store):
    store.new_directory("20261122T150539Z-7f3a")

    assert [] == store.ids()
    assert [] == list(store.read_each(unread := {}))
    assert {"20261122T150539Z-7f3a": "interrupted before it was committed; the evidence in it is kept"} == unread


def test_evidence_that_a_crash_left_is_not_overwritten(store, clock):
    store.new_directory("20261122T150539Z-7f3a")
    first = Snapshot(taken_at=clock.time, trigger="event")
    store.write_snapshot("20261122T150539Z-7f3a", 1, first)

    assert "snapshot-002.json" == store.write_snapshot("20261122T150539Z-7f3a", 1, first)
    assert store.new_directory("20261122T150539Z-7f3a")


def test_a_committed_id_is_taken(store, keep):
    assert not store.new_directory(keep())


def test_the_highest_generation_is_where_to_read_on(store, keep, make_decided):
    open_id = keep(closed=False, generation=7)
    store.save_cursor(Resume(generation=5, cursor=Cursor(journal="old")))
    resume, (incident,), holder = store.newest_commit()

    assert (7, open_id) == (resume.generation, holder)
    assert incident == store.load(open_id)
    assert resume.cursor == make_decided()[0].cursor

    store.save_cursor(Resume(generation=8, cursor=Cursor(journal="new")))
    assert (Cursor(journal="new"), "") == (store.newest_commit()[0].cursor, store.newest_commit()[2])


def test_a_cursor_that_cannot_be_read_is_set_aside_and_the_newest_incident_says_where_to_read_on(store, keep, caplog):
    keep(generation=4)
    (store.directory / "cursor.json").write_bytes(b"")

    assert 4 == store.newest_commit()[0].generation
    assert "cursor.json: cannot be read" in caplog.text
    assert (store.directory / "cursor.json.broken").exists()


def test_a_file_that_comes_in_pieces_is_read_to_its_end(store, keep, monkeypatch):
    """As read(2) does on a file system in user space, or a network's, that a signal interrupts."""
    incident_id, read = keep(), os.read
    monkeypatch.setattr(os, "read", lambda descriptor, size: read(descriptor, min(size, 100)))

    assert incident_id == store.load(incident_id).id


def test_a_fifo_in_the_place_of_an_incident_does_not_hang(store, keep):
    path = store.path(keep()) / "incident.json"
    path.unlink()
    os.mkfifo(path)

    assert [] == list(store.read_each(unread := {}))
    assert [path.parent.name] == list(unread)


def test_a_write_that_fails_names_the_file_and_leaves_nothing_behind(store, keep, monkeypatch):
    directory = store.path(keep())
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device")))

    with pytest.raises(OSError, match=r"No space left on device: .*/cursor\.json"):
        store.save_cursor(Resume(generation=1, cursor=Cursor()))
    assert [] == [p for p in (*store.directory.iterdir(), *directory.iterdir()) if p.name.endswith(".new")]


def test_snapshots_that_can_be_read_are_read_and_the_others_are_gaps(store, keep):
    incident_id = keep()
    (store.path(incident_id) / "snapshot-001.json").write_text("null")
    gaps = []
    found = store.snapshots(incident_id, gaps)

    assert [] == found
    assert ["snapshot-001.json"] == [gap.what for gap in gaps]


def test_a_second_service_is_refused(store):
    with pytest.raises(StoreError, match="another sockmem-agent uses this state directory"):
        Store(store.directory).open_for_writing()


def test_a_state_directory_that_cannot_be_made_is_an_error_with_the_mend(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(StoreError, match="not writable"):
        Store(tmp_path / "file" / "state").open_for_writing()


def test_retention_by_age_spares_the_newest_the_open_and_the_untold(store, keep, clock):
    old = keep(-400 * 86400)
    keep(-399 * 86400, closed=False)
    keep(-398 * 86400, channels=("ops",))
    newest = keep(-397 * 86400)

    assert prune(store, clock.time, dry_run=True) == [old]
    assert old in store.ids()
    assert prune(store, clock.time) == [old]
    assert old not in store.ids()
    assert newest in store.ids()


def test_without_a_time_nothing_goes_by_its_age(store, keep, clock):
    old = keep(-400 * 86400)
    keep()

    assert [] == prune(store, None)
    assert [old] == prune(store, clock.time)


def test_retention_by_count_removes_the_oldest(store, keep, clock):
    ids = [keep(n * 1000) for n in range(5)]
    store.settings = StoreSettings(keep_count=2, min_free_bytes=0)

    assert prune(store, clock.time) == ids[:3]


def test_retention_by_bytes_removes_the_oldest(store, keep, clock):
    ids = [keep(n * 1000) for n in range(3)]
    store.settings = StoreSettings(keep_bytes=1, min_free_bytes=0)

    assert prune(store, clock.time) == ids[:2]


def test_retention_by_free_space_removes_the_oldest(store, keep, clock):
    ids = [keep(n * 1000) for n in range(2)]
    store.settings = StoreSettings(min_free_bytes=2**62)

    assert prune(store, clock.time) == ids[:1]


def test_claimed_incidents_go_before_they_are_told_where_so_many_leave_no_room(store, keep, clock, caplog):
    told = keep(0)
    claimed = [keep(1000 + n, channels=("ops",), provenance="claimed") for n in range(CLAIMED_KEPT + 2)]
    kernel = keep(2000, channels=("ops",))
    opened = keep(3000, channels=("ops",), provenance="claimed", closed=False)
    newest = keep(4000)
    store.settings = StoreSettings(keep_count=1, min_free_bytes=0)
    assert [told, *claimed[:2]] == prune(store, clock.time, dry_run=True)

    total = sum(size_of(store.path(incident_id)) for incident_id in store.ids())
    store.settings = StoreSettings(keep_bytes=total - 1, min_free_bytes=0)
    assert claimed[:1] == prune(store, clock.time)
    assert "claimed incidents removed unsent, to stay within [store]: 1" in caplog.text
    store.settings = StoreSettings(min_free_bytes=2**62)
    assert [told, claimed[1]] == prune(store, clock.time)
    assert [*claimed[2:], kernel, opened, newest] == store.ids()


def test_claimed_incidents_sent_or_not_push_none_out_that_the_kernel_proves(store, keep, clock):
    kernel, told = keep(0), keep(500, channels=("ops",), provenance="claimed")
    give_receipt(store, told, "delivered")
    held = [keep(1000 + n, channels=("ops",), provenance="claimed") for n in range(6)]
    for incident_id in held:
        give_receipt(store, incident_id, "digested")
    unsent = [keep(2000 + n, channels=("ops",), provenance="claimed") for n in range(2 * CLAIMED_KEPT)]
    newest = keep(4000)
    store.settings = StoreSettings(keep_count=3, min_free_bytes=0)

    assert sorted([*held, *unsent[:CLAIMED_KEPT]]) == prune(store, clock.time)
    assert [kernel, told, *unsent[CLAIMED_KEPT:], newest] == store.ids()
    store.settings = StoreSettings(keep_count=2, min_free_bytes=0)
    assert [told] == prune(store, clock.time)


def give_receipt(store: Store, incident_id: str, outcome) -> None:
    at = Outbox(store).notice(incident_id, "notice-001").at
    receipt = Receipt(notice="msg", channel="ops", outcome=outcome, at=at, attempts=1, detail="")
    Outbox(store).write_receipt(incident_id, "notice-001", receipt)


def test_progress_is_reported_while_many_incidents_are_read(store, keep, clock):
    for n in range(2 * PROGRESS_SPACING + 1):
        keep(n, channels=("ops",), provenance="claimed")
    reports = []
    again = Store(store.directory, StoreSettings(min_free_bytes=2**62), on_progress=lambda: reports.append(1))

    for read in (again.set_broken_aside, again.newest_commit, Outbox(again).owing, lambda: prune(again, clock.time)):
        reports.clear()
        read()
        assert len(reports) >= 2, read


def test_retention_spares_the_incident_that_alone_holds_the_newest_position(store, keep, clock):
    old = keep(-400 * 86400, generation=9)
    keep(generation=3)

    assert [] == prune(store, clock.time)
    store.save_cursor(Resume(generation=10, cursor=Cursor()))
    assert prune(store, clock.time) == [old]
    assert 10 == store.newest_commit()[0].generation


def test_an_incident_is_read_again_when_it_was_committed_again(store, keep):
    ids, outbox = [keep(n * 1000, channels=("ops",)) for n in range(3)], Outbox(store)
    known = dict(outbox.changed(outbox.names(), {}))
    assert ids == list(known)
    assert [] == list(outbox.changed(outbox.names(), known))
    store.commit(store.load(ids[1]))
    store.commit(store.load(ids[2]))

    assert [ids[1]] == [incident_id for incident_id, _ in outbox.changed(outbox.names(), known | {ids[2]: None})]


def test_what_only_looks_like_an_incident_is_none_to_a_courier_and_what_is_known_is_not_checked_again(
    store, keep, monkeypatch
):
    incident_id, outbox = keep(channels=("ops",)), Outbox(store)
    store.point_last(incident_id)
    store.path("20261122T150539Z-0001").symlink_to(incident_id)
    store.path("20261122T150539Z-0002").write_text("")
    shutil.copytree(store.path(incident_id), store.path("20261399T150539Z-7f3a"))
    known = dict(outbox.changed(outbox.names(), {}))
    assert [incident_id] == list(known)
    monkeypatch.setattr(Store, "is_incident", lambda _, name: pytest.fail(name) if name in known else False)

    assert [] == list(outbox.changed(outbox.names(), known))


def test_a_story_says_what_became_of_each_notice_on_a_channel(store, keep, clock):
    incident_id = keep(channels=("ops", "dev"))
    outbox = Outbox(store)
    assert (None, False) == (outbox.story("ops", incident_id).last.outcome, outbox.story("ops", incident_id).in_digest)
    outbox.reserve_receipt(incident_id, "notice-001", "ops")
    assert outbox.story("ops", incident_id).last.has_room
    assert not outbox.story("dev", incident_id).last.has_room
    outbox.reserve_receipt(incident_id, "notice-001", "dev", in_digest=True)
    assert outbox.story("dev", incident_id).in_digest
    give_receipt(store, incident_id, "superseded")

    told = outbox.story("ops", incident_id)
    assert ("superseded", ()) == (told.last.outcome, told.owed)


def test_a_story_of_another_hosts_lines_is_that_of_the_host_that_has_its_files(store, keep):
    incident_id = keep(channels=("ops",))
    store.commit(replace(store.load(incident_id), host="db1", read_on="log1"))

    assert "log1" == Outbox(store).story("ops", incident_id).host


def test_why_a_channel_fails_is_kept_until_it_does_not(store, clock):
    outbox = Outbox(store)
    trouble = Trouble(channel="ops", why="HTTP 503", since=clock.time, at=clock.time)
    outbox.write_trouble("ops", trouble)
    assert {"ops": trouble} == Outbox(store).troubles()
    assert 0o640 == (store.directory / "channels/ops.json").stat().st_mode & 0o777
    outbox.write_trouble("ops", None)
    outbox.write_trouble("ops", None)

    assert {} == Outbox(store).troubles()


def test_every_channel_that_owes_a_notice_is_named_whoever_is_configured(store, keep, clock):
    incident_id = keep(channels=("ops", "dev"))
    assert {"ops", "dev"} == Outbox(store).owing()
    give_receipt(store, incident_id, "delivered")

    assert {"dev"} == Outbox(store).owing()


def test_a_notice_that_a_crash_left_and_no_incident_names_is_owed_to_nobody(store, keep):
    incident_id = keep(channels=("ops",))
    give_receipt(store, incident_id, "delivered")
    path = store.path(incident_id)
    (path / "notice-002.json").write_bytes((path / "notice-001.json").read_bytes())

    assert set() == Outbox(store).owing()


def test_history_survives_and_a_torn_line_is_passed_over(store, clock):
    store.samples.append(Sample(at=clock.time, orphan=1))
    path = next((store.directory / "history").iterdir())
    with path.open("ab") as file:
        file.write(b'{"at": "2026-11')
    again = Store(store.directory)
    again.samples.append(Sample(at=clock.advance(10), orphan=2))

    assert [1, 2] == [s.orphan for s in again.samples.read(clock.time - timedelta(hours=1), clock.time)]
    assert [2] == [s.orphan for s in again.samples.read(clock.time, clock.time)]


def test_history_is_bounded(store, clock):
    store.samples.append(Sample(at=clock.time - timedelta(hours=50), orphan=1))
    store.samples.append(Sample(at=clock.time, orphan=2))
    prune(store, clock.time)

    assert [2] == [s.orphan for s in store.samples.read(clock.time - timedelta(hours=60), clock.time)]


def test_the_files_can_be_read_by_a_person(store, keep):
    text = (store.path(keep()) / "incident.json").read_text()

    assert text.startswith('{\n  "schema": "sockmem-agent/incident/1",\n  "id": "2026')
    assert isinstance(store.load(store.resolve("last")), Incident)


def test_the_lock_needs_no_write_access(store, tmp_path):
    lock = tmp_path / "other" / "lock"
    lock.parent.mkdir()
    lock.touch(0o440)
    opened = []

    def remember(path, flags, *mode):
        opened.append(flags & os.O_ACCMODE)
        return real(path, flags, *mode)

    real = os.open
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", remember)
        held = hold_lock(lock.parent)

    assert {os.O_RDONLY} == set(opened)
    with pytest.raises(StoreError, match="another sockmem-agent"):
        hold_lock(lock.parent)
    os.close(held)
    os.close(hold_lock(lock.parent))


def test_the_lock_is_taken_for_writing_where_the_file_system_asks_for_it(tmp_path, monkeypatch):
    def flock(descriptor, operation):
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "as on NFS")
        real(descriptor, operation)

    real = fcntl.flock
    monkeypatch.setattr(fcntl, "flock", flock)
    held = hold_lock(tmp_path)

    with pytest.raises(StoreError, match="another sockmem-agent"):
        hold_lock(tmp_path)
    os.close(held)


def test_what_is_set_aside_again_gets_another_name(tmp_path, caplog):
    path = tmp_path / "cursor.json"
    for text in ("first", "second", "third"):
        path.write_text(text)
        set_aside(path, "damaged")

    found = {each.name: each.read_text() for each in tmp_path.iterdir()}
    assert {"cursor.json.broken": "first", "cursor.json.broken.2": "second", "cursor.json.broken.3": "third"} == found
    assert f"{path}: cannot be read (damaged); set aside as cursor.json.broken.3" in caplog.text


def test_names_that_lead_out_of_the_directory_are_not_followed(store, keep, tmp_path):
    path = store.path(keep(channels=("ops",))) / "incident.json"
    secret = tmp_path / "secret.json"
    secret.write_bytes((path.parent / "notice-001.json").read_bytes())
    path.write_text(path.read_text().replace('"notice-001.json"', f'"../../../{secret.name}"'))

    with pytest.raises(StoreError, match=r"incident\.json: cannot be read"):
        store.load(path.parent.name)
    assert [] == owed(store, "ops")


def test_a_link_in_the_place_of_a_file_is_not_followed(store, keep, tmp_path):
    path = store.path(keep()) / "snapshot-001.json"
    path.rename(tmp_path / "elsewhere.json")
    path.symlink_to(tmp_path / "elsewhere.json")
    gaps = []
    found = store.snapshots(path.parent.name, gaps)

    assert [] == found
    assert "a symbolic link, not a regular file" in gaps[0].why


def test_of_two_incidents_that_were_never_closed_the_older_one_is_found(store, keep):
    older, newer = keep(closed=False), keep(1000, closed=False, generation=2)
    assert [newer, older] == [incident.id for incident in store.newest_commit()[1]]


def test_the_lines_of_a_day_that_are_damaged_are_kept_aside_before_it_is_written_anew(store, clock):
    store.samples.append(Sample(at=clock.time, orphan=1))
    store.samples.write_hourly_extremes(clock.advance(3600))
    (day,) = (store.directory / "history").glob("day-*")
    day.write_bytes(day.read_bytes() + b"damage\n")
    store.samples.append(Sample(at=clock.time, orphan=2))
    store.samples.write_hourly_extremes(clock.advance(3600))

    assert [1, 2] == [sample.orphan for sample in read_lines(day.read_bytes())]
    assert b"damage\n" in day.with_name(f"{day.name}.broken").read_bytes()


def test_a_damaged_file_of_any_size_makes_retention_remove_nothing(store, keep, clock):
    ids = [keep(n * 1000) for n in range(3)]
    os.truncate(store.path(ids[2]) / "snapshot-001.json", 3 * 1024**3)
    os.truncate(store.path(ids[0]) / "snapshot-001.json", 3 * 1024**3)

    assert [] == prune(store, clock.time)


def test_a_number_that_no_float_holds_is_damage_but_not_a_text_of_digits(store, keep):
    path = store.path(keep()) / "incident.json"
    text = path.read_text()
    path.write_text(text.replace('"host": "web1"', f'"host": "\\":[1,{"9" * 50}"', 1))
    assert store.load(path.parent.name).host == f'":[1,{"9" * 50}'

    for old, new in (("1", "9" * 50), ("1", "1" + "0" * 400)):
        assert f'"too_many_orphans": {old}' in text
        path.write_text(text.replace(f'"too_many_orphans": {old}', f'"too_many_orphans": {new}'))
        with pytest.raises(StoreError, match="a number of 40 digits or more"):
            store.load(path.parent.name)


def test_a_number_of_40_digits_is_damage_wherever_it_stands(store, keep):
    path = store.path(keep()) / "incident.json"
    text = path.read_text()

    for shift in range(8):
        path.write_text(text.replace('"too_many_orphans": 1', f'"too_many_orphans": {" " * shift}{"9" * 40}'))
        with pytest.raises(StoreError, match="a number of 40 digits or more"):
            store.load(path.parent.name)


def test_limits_without_a_bound_can_be_read_again(store, keep):
    """Some administrators write 2**63 - 1 pages: in bytes that has more than 64 bits."""
    path = store.path(keep()) / "incident.json"
    path.write_text(path.read_text().replace('"tcp_mem_bytes": null', f'"tcp_mem_bytes": [1, 2, {2**63 * 4096}]'))

    assert 2**63 * 4096 == store.load(path.parent.name).diagnosis.mechanism.tcp_mem_bytes[2]


def last_of(store: Store) -> str:
    return str(store.path("last").readlink())


def test_last_leads_to_the_newest_incident_as_the_commands_name_it(store, keep):
    first, second = keep(), keep(3600)

    assert second == last_of(store) == store.resolve("last")
    assert store.path("last").is_symlink()
    keep()  # The clock was set back: of two names the later one is the newest, for the commands, too.
    assert second == last_of(store) == store.resolve("last")
    assert first < second


def test_a_commit_of_an_older_incident_leaves_last_where_it_is(store, keep):
    first, second = keep(closed=False), keep(3600)
    store.point_last(first)

    assert second == last_of(store)


def test_last_follows_retention_and_is_gone_with_the_last_incident(store, keep, clock):
    first, second = keep(), keep(3600)
    (store.path(second) / "incident.json").unlink()  # By hand: retention itself keeps the newest.
    prune(store, clock.time)
    assert first == last_of(store)
    (store.path(first) / "incident.json").unlink()
    prune(store, clock.time)

    assert not os.path.lexists(store.path("last"))


def test_a_dry_run_of_prune_leaves_last_alone(store, keep, clock):
    second = (keep(), keep(3600))[1]
    (store.path(second) / "incident.json").unlink()
    prune(store, clock.time, dry_run=True)

    assert second == last_of(store)


def test_last_is_no_incident_to_whatever_lists_them(store, keep, clock):
    incident_id = keep(channels=("ops",))

    assert [incident_id] == store.ids() == store.names()
    assert 1 == len(list(store.read_each({})))
    assert 1 == len(owed(store, "ops"))
    assert [incident_id] == [each.id for each in [store.newest()] if each]
    assert [] == list(unusable(store.directory))


@pytest.mark.parametrize("link", ["gone", "20991122T150539Z-7f3a", "../../etc", "last", "/dev/zero", "restored"])
def test_a_link_that_leads_to_no_incident_is_put_right_by_the_next_commit(store, keep, link):
    first = keep(closed=False)
    shutil.copytree(store.path(first), store.path("restored"))
    store.path("last").unlink()
    store.path("last").symlink_to(link)
    store.point_last(first)

    assert first == last_of(store)


def test_what_else_is_called_last_is_set_aside(store, keep):
    store.path("last").mkdir()
    (store.path("last") / "mine").touch()
    incident_id = keep()

    assert incident_id == last_of(store)
    assert store.path("last.broken/mine").exists()


def test_a_commit_writes_all_that_waits_for_it_and_nothing_before(store, keep, make_decided, clock):
    first = keep(closed=False)
    _, event = make_decided(at=clock.time + timedelta(hours=1))
    snapshot = Snapshot(taken_at=clock.time, trigger="event", host="web1")
    second = folding.open_incident(event, event.at, snapshot, DIAGNOSIS)
    store.new_directory(second.id)
    name = store.write_snapshot(second.id, 1, snapshot, at_commit=True)
    store.amend_snapshot(second.id, name, replace(snapshot, host="web2"))
    before = store.files(second.id)
    store.commit(store.load(first))

    assert set() == before
    assert {name} == store.files(second.id)
    assert '"web2"' in (store.path(second.id) / name).read_text()


def note_calls(monkeypatch, root):
    """Note each fsync and rename below the root from now on, with the path."""
    calls = []

    def noted(owner, name):
        real = getattr(owner, name)

        def call(what, *rest, **others):
            path = Path(f"/proc/self/fd/{what}").readlink() if isinstance(what, int) else rest[0]
            calls.append((name, Path(path).relative_to(root).as_posix()))
            return real(what, *rest, **others)

        monkeypatch.setattr(owner, name, call)

    noted(os, "fsync")
    noted(Path, "rename")  # Of os it is known to pathlib alone, up to Python 3.10.
    return calls


def test_the_incident_is_renamed_when_all_it_names_is_flushed_with_the_names_of_its_directory(store, keep, monkeypatch):
    calls = note_calls(monkeypatch, store.directory)
    incident_id = keep(channels=("ops",))
    monkeypatch.undo()

    folder = f"incidents/{incident_id}"
    point = calls.index(("rename", f"{folder}/incident.json"))
    assert {
        ("fsync", f"{folder}/.snapshot-001.json.new"),
        ("fsync", f"{folder}/.notice-001.json.new"),
        ("fsync", f"{folder}/.incident.json.new"),
        ("rename", f"{folder}/notice-001.json"),
        ("fsync", "incidents"),
        ("fsync", folder),
    } <= set(calls[:point])
    assert calls.index(("fsync", f"{folder}/.notice-001.json.new")) < calls.index(
        ("rename", f"{folder}/notice-001.json")
    )
    assert calls.index(("rename", f"{folder}/notice-001.json")) < calls.index(("fsync", folder))
    assert ("fsync", folder) in calls[point:]


@pytest.mark.parametrize("is_left_by_a_kill", [False, True])
def test_of_an_incident_that_anothers_commit_takes_along_the_names_of_snapshots_are_flushed_before(
    is_left_by_a_kill, store, keep, clock, monkeypatch
):
    first, other = keep(closed=False), keep(3600, closed=False)
    name = store.write_snapshot(first, 2, Snapshot(taken_at=clock.time, trigger="event", host="web1"))
    if is_left_by_a_kill:
        store = Store(store.directory)
        assert [name] == [each for each, _ in store.left_behind(first, ("snapshot-001.json",))]
    calls = note_calls(monkeypatch, store.directory)
    along = replace(store.load(first), snapshots=("snapshot-001.json", name))
    store.commit(replace(store.load(other), beside=(along,)))
    monkeypatch.undo()

    assert ("fsync", f"incidents/{first}") in calls[: calls.index(("rename", f"incidents/{other}/incident.json"))]


def test_what_a_commit_that_failed_had_to_write_is_written_by_the_next(store, keep, clock, monkeypatch):
    incident_id = keep(closed=False)
    notice = Notice(id="x", type="sockmem.incident.updated", at=clock.time, reason="r", channels=("ops",), data=None)
    incident = store.load(incident_id)
    incident = replace(incident, notices=(store.write_notice(incident_id, 1, notice),))

    def full(_) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="Input/output error"):
            store.commit(incident)
    left = {path.name for path in store.path(incident_id).iterdir()}
    store.commit(incident)

    assert {"incident.json", "snapshot-001.json"} == left
    assert ["notice-001"] == [file for _, file in owed(store, "ops")]
