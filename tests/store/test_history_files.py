import errno
import os
from datetime import datetime, timedelta, timezone

import pytest
from harness import read_remains

from agent.core.model import Sample, UnitShare
from agent.core.settings import StoreSettings
from agent.store import Store, keep_samples, prune, read_around
from agent.store.history import KEEP_DAYS
from agent.store.incident_samples import AT_MOST

BOOT = "5a8ad4f6-3f0e-4f5c-9f3e-2b9a6f6a7c10"


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "state", StoreSettings(min_free_bytes=0))
    store.open_for_writing()
    return store


def fill(store, clock, hours, *, step=600):
    """Write the samples of a host that was watched for so long up to now; orphan counts the steps."""
    start = clock.time - timedelta(hours=hours)
    for number in range(int(hours * 3600 / step)):
        at = start + timedelta(seconds=step * number)
        store.samples.append(Sample(at=at, boot_id=BOOT, orphan=number, mem=7, counters={"TCPAbortOnMemory": number}))


def names(store):
    return sorted(path.name for path in (store.directory / "history").iterdir())


def test_every_hour_that_is_over_leaves_its_remains_in_the_file_of_its_day(store, clock):
    fill(store, clock, 30)
    store.samples.write_hourly_extremes(clock.time)
    left = read_remains(store, clock.time - timedelta(days=2), clock.time)

    assert ["day-20261121.jsonl", "day-20261122.jsonl"] == [n for n in names(store) if n.startswith("day")]
    # Six samples an hour: the highest and newest, and the lowest.
    assert 2 * 30 <= len(left) <= 2 * 31 + 1
    assert clock.time.replace(minute=0, second=0) > left[-1].at
    assert 0 == left[0].orphan


def test_an_hour_is_written_once_however_often_it_is_asked_for(store, clock):
    fill(store, clock, 3)
    store.samples.write_hourly_extremes(clock.time)
    path = store.directory / "history" / "day-20261122.jsonl"
    before = path.read_bytes()
    store.samples.write_hourly_extremes(clock.time)
    Store(store.directory).samples.write_hourly_extremes(clock.time)

    assert before == path.read_bytes()


def test_what_was_only_in_memory_is_among_the_remains_of_its_hour(store, clock):
    fill(store, clock, 3)
    peak = Sample(at=clock.time - timedelta(hours=2), orphan=9_999)
    store.samples.write_hourly_extremes(clock.time, [peak])

    assert peak in read_remains(store, clock.time - timedelta(hours=4), clock.time)


def test_days_outlast_the_hours_and_are_bounded_as_well(store, clock):
    fill(store, clock, 5)
    store.samples.write_hourly_extremes(clock.time)
    later = clock.advance(60 * 86_400)
    prune(store, later)
    assert ["day-20261122.jsonl"] == names(store)

    prune(store, clock.advance((KEEP_DAYS - 59) * 86_400))
    assert [] == names(store)


def test_a_dry_run_removes_no_history(store, clock):
    fill(store, clock, 5)
    prune(store, clock.advance(400 * 86_400), dry_run=True)
    assert [] != names(store)


def test_the_thinned_history_reaches_from_the_last_sample_to_the_days(store, clock):
    fill(store, clock, 47)
    store.samples.write_hourly_extremes(clock.time)
    clock.advance(5 * 86_400)
    prune(store, clock.time)
    fill(store, clock, 2, step=10)
    found = Store(store.directory).samples.read_thinned(clock.time)

    assert found == tuple(sorted(found, key=lambda sample: sample.at))
    assert timedelta(days=6) < clock.time - found[0].at < timedelta(days=7)
    assert 281 in {sample.orphan for sample in found}
    assert clock.time - found[-1].at == timedelta(seconds=10)
    assert len(found) < 300


def test_torn_and_foreign_lines_of_a_day_are_passed_over(store, clock):
    fill(store, clock, 2)
    store.samples.write_hourly_extremes(clock.time)
    path = store.directory / "history" / "day-20261122.jsonl"
    whole = read_remains(store, clock.time - timedelta(days=1), clock.time)
    path.write_bytes(path.read_bytes() + b'{"at": "2026-11-22T09:00:00"}\n\xff\xfe\n[]\n{"at":"2026-')

    assert whole == read_remains(store, clock.time - timedelta(days=1), clock.time)


def test_a_sample_without_units_takes_no_room_for_them(store, clock):
    share = UnitShare(name="nginx.service", sockets=1, orphans=0, bytes=0)
    store.samples.append(Sample(at=clock.time, orphan=1))
    store.samples.append(Sample(at=clock.advance(10), orphan=1, units=(share,)))
    lines = next((store.directory / "history").iterdir()).read_text().split()

    assert [False, True] == ["units" in line for line in lines]
    assert (share,) == store.samples.read(clock.time, clock.time)[0].units


def test_what_is_kept_with_an_incident_is_read_when_the_history_is_gone(store, clock):
    directory = store.path("20261122T150539Z-7f3a")
    directory.mkdir()
    start = clock.time - timedelta(hours=2)
    fill(store, clock, 2)
    samples = store.samples.read(start, clock.time)
    keep_samples(directory, samples)
    assert samples == read_around(store, directory.name, start, clock.time)

    prune(store, clock.advance(90 * 86_400))
    assert () == store.samples.read(start, clock.time)
    assert samples == read_around(store, directory.name, start, clock.time)
    assert samples[3:] == read_around(store, directory.name, samples[3].at, clock.time)
    assert 0o640 == (directory / "samples.jsonl").stat().st_mode & 0o777


def test_an_incident_of_before_has_only_what_the_history_has(store, clock):
    fill(store, clock, 1)
    assert 6 == len(read_around(store, "20261122T150539Z-7f3a", clock.time - timedelta(hours=1), clock.time))


def test_a_long_incident_is_kept_thinned_with_its_peak(store, clock):
    directory = store.path("20261122T150539Z-7f3a")
    directory.mkdir()
    samples = [Sample(at=clock.time + timedelta(seconds=10 * n), orphan=n % 50, mem=n % 70) for n in range(9000)]
    samples[4321] = Sample(at=samples[4321].at, orphan=60_000)
    keep_samples(directory, samples)
    kept = read_around(store, directory.name, samples[0].at, samples[-1].at)

    assert 60_000 == max(sample.orphan for sample in kept)
    assert AT_MOST / 4 < len(kept) <= AT_MOST
    assert samples[-1] == kept[-1]
    keep_samples(directory, [])
    assert kept == read_around(store, directory.name, samples[0].at, samples[-1].at)


def grow(store, clock, minutes, peak=None):
    """Add a sample for each of these minutes of the hour; orphan is high in the one that is the peak."""
    for minute in minutes:
        store.samples.append(Sample(at=clock.time.replace(minute=minute), orphan=60_000 if minute == peak else 10))


def test_an_hour_that_went_on_after_it_was_kept_is_kept_anew_with_its_later_peak(store, clock):
    ahead = clock.time + timedelta(hours=1)
    grow(store, clock, range(20))
    unwritten = Sample(at=clock.time.replace(minute=7, second=1), orphan=9_999)
    store.samples.write_hourly_extremes(ahead, [unwritten])
    grow(store, clock, range(20, 60), peak=30)
    store.samples.write_hourly_extremes(ahead)
    store.samples.write_hourly_extremes(ahead)
    left = read_remains(store, clock.time.replace(minute=0), ahead)

    assert 60_000 == max(sample.orphan for sample in left)
    assert 59 == left[-1].at.minute
    assert len(left) == len({sample.at for sample in left}) <= 5


def test_retention_goes_by_a_clock_only_when_samples_were_taken_a_day_before_it(store, clock):
    fill(store, clock, 1)
    hour = clock.time.replace(hour=14, minute=0, second=0)
    before = names(store)

    assert clock.time == store.samples.believe(clock.time)
    assert clock.time + timedelta(hours=30) == store.samples.believe(clock.time + timedelta(hours=30))
    ahead = clock.time + timedelta(days=365)
    store.samples.append(Sample(at=ahead, orphan=1))
    assert hour == store.samples.believe(ahead)
    prune(store, store.samples.believe(ahead))
    assert set(before) < set(names(store))
    # After more than a day with this clock it is the time.
    assert ahead + timedelta(hours=26) == store.samples.believe(ahead + timedelta(hours=26))


def test_no_history_and_a_foreign_file_leave_the_time_as_it_is(store, clock):
    assert clock.time == store.samples.believe(clock.time)
    (store.directory / "history" / "20260101Tab.jsonl").touch()
    assert clock.time == store.samples.believe(clock.time)


def test_a_write_that_is_cut_short_is_finished(store, clock, monkeypatch):
    whole = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: whole(descriptor, bytes(data)[:20]))
    for number in range(3):
        store.samples.append(Sample(at=clock.advance(1), orphan=number))
    assert [0, 1, 2] == [sample.orphan for sample in store.samples.read(clock.time - timedelta(hours=1), clock.time)]


def test_a_line_that_a_full_disk_cut_spoils_no_other(store, clock, monkeypatch):
    whole, written = os.write, []

    def fill_up(descriptor, data):
        if written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.append(whole(descriptor, bytes(data)[:20]))
        return written[0]

    monkeypatch.setattr(os, "write", fill_up)
    with pytest.raises(OSError, match="No space"):
        store.samples.append(Sample(at=clock.time, orphan=1))
    monkeypatch.setattr(os, "write", whole)
    store.samples.append(Sample(at=clock.advance(1), orphan=2))

    assert [2] == [sample.orphan for sample in store.samples.read(clock.time - timedelta(hours=1), clock.time)]


def test_a_file_that_cannot_be_read_is_told_once_and_the_others_are_read(store, clock, caplog):
    fill(store, clock, 5)
    store.samples.write_hourly_extremes(clock.time)
    for name in ("20261122T13.jsonl", "day-20261122.jsonl", "day-20261101.jsonl"):
        path = store.directory / "history" / name
        path.unlink(missing_ok=True)
        path.mkdir()
    found = store.samples.read_thinned(clock.time)
    store.samples.write_hourly_extremes(clock.time)

    assert {12, 14} <= {sample.at.hour for sample in found}
    assert 13 not in {sample.at.hour for sample in found}
    assert 1 == caplog.text.count("cannot be read: not a regular file")


def test_what_cannot_be_removed_keeps_retention_from_nothing_else(store, clock, caplog):
    fill(store, clock, 3)
    (store.directory / "history" / "20261101T00.jsonl").mkdir()
    prune(store, clock.advance(5 * 86_400))
    assert ["20261101T00.jsonl"] == names(store)
    assert "cannot be removed" in caplog.text


def test_a_day_that_cannot_be_read_is_not_written_over(store, clock, monkeypatch):
    fill(store, clock, 3)
    store.samples.write_hourly_extremes(clock.time)
    path = store.directory / "history" / "day-20261122.jsonl"
    before, read = path.read_bytes(), type(path).read_bytes

    def fail_once(its):
        if its == path:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(its))
        return read(its)

    monkeypatch.setattr(type(path), "read_bytes", fail_once)
    store.samples.write_hourly_extremes(clock.time + timedelta(hours=1))
    monkeypatch.undo()
    assert before == path.read_bytes()


def test_a_long_time_is_read_whole_at_its_ends_and_in_little_between(store, clock):
    fill(store, clock, 46, step=60)
    store.samples.write_hourly_extremes(clock.time)
    found = store.samples.read(clock.time - timedelta(hours=46), clock.time)

    assert 0 == found[0].orphan
    assert 46 * 60 - 1 == found[-1].orphan
    assert 60 == sum(each.at.hour == 14 and each.at.day == 22 for each in found)
    assert {each.at.replace(minute=0) for each in found} == {
        (clock.time - timedelta(hours=hour)).replace(minute=0) for hour in range(47)
    }
    assert len(found) < 46 * 60 / 4


def test_an_incident_of_1970_is_read_from_the_files_that_there_are(store, clock, monkeypatch):
    fill(store, clock, 1)
    looked: list[object] = []
    read = store.samples._samples
    monkeypatch.setattr(store.samples, "_samples", lambda path: looked.append(path) or read(path))
    found = read_around(store, "20261122T150539Z-7f3a", datetime(1970, 1, 1, tzinfo=timezone.utc), clock.time)

    assert 6 == len(found)
    assert 1 == len(looked)


def test_no_file_of_the_history_has_an_empty_line(store, clock):
    fill(store, clock, 2)
    Store(store.directory).samples.append(Sample(at=clock.time, orphan=1))
    store.samples.write_hourly_extremes(clock.time)

    files = list((store.directory / "history").iterdir())
    assert len(files) > 2
    assert [] == [path.name for path in files if b"" in path.read_bytes().removesuffix(b"\n").split(b"\n")]


@pytest.mark.parametrize("same_process", [True, False], ids=["after-a-full-disk", "after-a-crash"])
def test_a_torn_last_line_costs_the_next_sample_nothing(store, clock, same_process):
    store.samples.append(Sample(at=clock.time, orphan=1))
    (path,) = (store.directory / "history").iterdir()
    with path.open("ab") as file:
        file.write(b'{"at": "2026-')
    later = Sample(at=clock.time + timedelta(seconds=10), orphan=2)
    (store if same_process else Store(store.directory)).samples.append(later)

    assert [1, 2] == [sample.orphan for sample in store.samples.read(clock.time, later.at)]


def test_a_sample_with_a_number_that_no_float_holds_is_passed_over(store, clock):
    store.samples.append(Sample(at=clock.time, orphan=1, mem=10**400))
    store.samples.append(Sample(at=clock.advance(10), orphan=2, mem=2**63))

    assert [2] == [sample.orphan for sample in store.samples.read_thinned(clock.advance(10))]
