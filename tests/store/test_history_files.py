from datetime import timedelta

import pytest

from agent.core.model import Sample, UnitShare
from agent.core.settings import StoreSettings
from agent.store import Store, keep_samples, read_around
from agent.store.history import KEEP_DAYS
from agent.store.kept import AT_MOST

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
        store.append_sample(Sample(at=at, boot_id=BOOT, orphan=number, mem=7, counters={"TCPAbortOnMemory": number}))


def names(store):
    return sorted(path.name for path in (store.directory / "history").iterdir())


def test_every_hour_that_is_over_leaves_its_remains_in_the_file_of_its_day(store, clock):
    fill(store, clock, 30)
    store.samples.keep_remains(clock.time)
    left = store.samples.read_remains(clock.time - timedelta(days=2), clock.time)

    assert ["day-20261121.jsonl", "day-20261122.jsonl"] == [n for n in names(store) if n.startswith("day")]
    # Six samples an hour: the highest and newest, and the lowest.
    assert 2 * 30 <= len(left) <= 2 * 31 + 1
    assert clock.time.replace(minute=0, second=0) > left[-1].at
    assert 0 == left[0].orphan


def test_an_hour_is_written_once_however_often_it_is_asked_for(store, clock):
    fill(store, clock, 3)
    store.samples.keep_remains(clock.time)
    path = store.directory / "history" / "day-20261122.jsonl"
    before = path.read_bytes()
    store.samples.keep_remains(clock.time)
    Store(store.directory).samples.keep_remains(clock.time)

    assert before == path.read_bytes()


def test_what_was_only_in_memory_is_among_the_remains_of_its_hour(store, clock):
    fill(store, clock, 3)
    peak = Sample(at=clock.time - timedelta(hours=2), orphan=9_999)
    store.samples.keep_remains(clock.time, [peak])

    assert peak in store.samples.read_remains(clock.time - timedelta(hours=4), clock.time)


def test_days_outlast_the_hours_and_are_bounded_as_well(store, clock):
    fill(store, clock, 5)
    store.samples.keep_remains(clock.time)
    later = clock.advance(60 * 86_400)
    store.prune(later)
    assert ["day-20261122.jsonl"] == names(store)

    store.prune(clock.advance((KEEP_DAYS - 59) * 86_400))
    assert [] == names(store)


def test_a_dry_run_removes_no_history(store, clock):
    fill(store, clock, 5)
    store.prune(clock.advance(400 * 86_400), dry_run=True)
    assert [] != names(store)


def test_the_thinned_history_reaches_from_the_last_sample_to_the_days(store, clock):
    fill(store, clock, 47)
    store.samples.keep_remains(clock.time)
    clock.advance(5 * 86_400)
    store.prune(clock.time)
    fill(store, clock, 2, step=10)
    found = Store(store.directory).samples.read_thinned(clock.time)

    assert found == tuple(sorted(found, key=lambda sample: sample.at))
    assert timedelta(days=6) < clock.time - found[0].at < timedelta(days=7)
    assert 281 in {sample.orphan for sample in found}
    assert clock.time - found[-1].at == timedelta(seconds=10)
    assert len(found) < 300


def test_torn_and_foreign_lines_of_a_day_are_passed_over(store, clock):
    fill(store, clock, 2)
    store.samples.keep_remains(clock.time)
    path = store.directory / "history" / "day-20261122.jsonl"
    whole = store.samples.read_remains(clock.time - timedelta(days=1), clock.time)
    path.write_bytes(path.read_bytes() + b'{"at": "2026-11-22T09:00:00"}\n\xff\xfe\n[]\n{"at":"2026-')

    assert whole == store.samples.read_remains(clock.time - timedelta(days=1), clock.time)


def test_a_sample_without_units_takes_no_room_for_them(store, clock):
    share = UnitShare(name="nginx.service", sockets=1, orphans=0, bytes=0)
    store.append_sample(Sample(at=clock.time, orphan=1))
    store.append_sample(Sample(at=clock.advance(10), orphan=1, units=(share,)))
    lines = next((store.directory / "history").iterdir()).read_text().split()

    assert [False, True] == ["units" in line for line in lines]
    assert (share,) == store.history(clock.time, clock.time)[0].units


def test_what_is_kept_with_an_incident_is_read_when_the_history_is_gone(store, clock):
    directory = store.path("20261122T150539Z-7f3a")
    directory.mkdir()
    start = clock.time - timedelta(hours=2)
    fill(store, clock, 2)
    samples = store.history(start, clock.time)
    keep_samples(directory, samples)
    assert samples == read_around(store, directory.name, start, clock.time)

    store.prune(clock.advance(90 * 86_400))
    assert () == store.history(start, clock.time)
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
