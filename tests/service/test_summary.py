"""summary.txt beside incident.json: before each commit, never at its cost, and whole after each start."""

import errno
import os
import stat
from pathlib import Path

import pytest
from harness import fill_disk, write_proc
from msgspec.structs import replace

from agent.core.settings import IncidentSettings, StoreSettings
from agent.service.open_incident import SUMMARY, write_missing_summaries
from agent.service.recorder import Recorder
from agent.service.troubles import Troubles
from agent.store import Store


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "state", StoreSettings(min_free_bytes=0))
    os.close(store.open_for_writing())
    return store


@pytest.fixture
def troubles():
    return Troubles()


@pytest.fixture
def record(store, clock, proc_root, make_decided, troubles):
    """Record a line some seconds later, with the recorder of a running process."""
    recorder = Recorder(
        store,
        settings=IncidentSettings(quiet_seconds=300),
        channels=["ops"],
        now=clock,
        on_notice=lambda _: None,
        troubles=troubles,
        proc_root=proc_root,
        monotonic=clock.monotonic,
    )

    def line(seconds: float = 0, host: str | None = None, **others) -> Recorder:
        clock.advance(seconds)
        told, event = make_decided(offset=round(100 + clock.seconds), **others)
        decided = replace(told, host=host or told.host), replace(event, host=host or event.host)
        recorder.handle([decided], recorder.take_event_snapshot(host))
        recorder.tick()
        return recorder

    return line


def summary(store: Store) -> Path:
    return store.path("last") / "summary.txt"


def test_it_is_there_with_the_first_commit_and_tells_what_was_committed(store, record, proc_root):
    write_proc(proc_root, orphan=8000)
    record()
    text = summary(store).read_text(encoding="ascii")

    assert 0o640 == stat.S_IMODE(summary(store).stat().st_mode)
    for part in (
        "web1 is resetting TCP connections: orphan limit reached (8,000 of 8,192)",
        store.resolve("last"),
        "  orphans   8,000, limit 8,192 (98 %)",
        "TCP: inuse 20 orphan 8000 tw 12 alloc 340 mem 150",
        "sys/net/ipv4/tcp_max_orphans  8192",
        "(snapshot-001.json)",
        "Advice, in the order to try it",
    ):
        assert part in text
    assert "Gauges" not in text
    assert [] == [line for line in text.splitlines() if len(line) > 80 and "$" not in line and "\\" not in line]


def test_it_is_in_place_before_the_commit(store, record, monkeypatch):
    record()
    seen = []
    rename = Path.rename

    def noted(path, target):
        if target.name == "incident.json":
            seen.append((store.path("last") / "summary.txt").read_text().count("2 x too many orphans"))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", noted)
    record(2)

    assert [1] == seen[:1]


def test_it_has_the_readings_of_the_newest_snapshot(store, record, clock, proc_root):
    recorder = record()
    write_proc(proc_root, orphan=77)
    clock.advance(1)
    recorder.tick()

    text = summary(store).read_text()
    assert "orphan 77" in text
    assert "(snapshot-002.json)" in text


def test_a_closed_one_is_described_in_the_past_tense(store, record, clock):
    recorder = record()
    clock.advance(301)
    recorder.tick()

    text = summary(store).read_text()
    assert "still open" not in text
    assert "web1 reset TCP connections" in text


def test_what_is_counted_to_a_closed_one_is_in_it(store, record, clock):
    recorder = record()
    clock.advance(301)
    recorder.tick()
    record(1, kind="suppressed", suppressed=273)

    assert 273 == store.load(store.resolve("last")).suppressed_at_least
    assert "at least 273 suppressed by its rate limit" in " ".join(summary(store).read_text().split())


def test_one_that_is_closed_as_it_stands_is_described_in_the_past_tense(store, record, clock, proc_root, troubles):
    record()
    for path in store.path("last").glob("snapshot-*"):
        path.unlink()
    Recorder(
        store,
        settings=IncidentSettings(),
        channels=["ops"],
        now=clock,
        on_notice=lambda _: None,
        troubles=troubles,
        proc_root=proc_root,
        monotonic=clock.monotonic,
    )

    assert store.load(store.resolve("last")).closed_at
    assert "web1 reset TCP connections" in summary(store).read_text()
    assert "still open" not in summary(store).read_text()


def test_another_hosts_has_no_readings_of_this_one(store, record):
    record(host="db7", provenance="claimed")

    text = summary(store).read_text()
    assert "nothing was measured on db7" in " ".join(text.split())
    assert "Raw, below /proc" not in text


def test_one_that_cannot_be_written_costs_no_commit_and_is_logged_once(store, record, troubles, monkeypatch, caplog):
    def full(*_) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "summary.txt")

    with monkeypatch.context() as patch:
        patch.setattr(store, "write_summary", full)
        record()
        record(2)

    assert {"too_many_orphans": 2} == store.load(store.resolve("last")).events
    assert not summary(store).exists()
    assert SUMMARY in troubles
    assert 1 == sum(SUMMARY in each.getMessage() for each in caplog.records)
    record(2)
    assert summary(store).exists()
    assert SUMMARY not in troubles


def test_a_slip_in_its_text_costs_no_commit(store, record, troubles, monkeypatch):
    monkeypatch.setattr("agent.service.open_incident.summary_of", lambda *_: {}["slip"])
    record()

    assert {"too_many_orphans": 1} == store.load(store.resolve("last")).events
    assert SUMMARY in troubles


def test_a_slip_in_one_is_logged_once_and_stays_in_trouble_though_others_can_be_written(
    store, record, troubles, monkeypatch, caplog
):
    def slip(incident, *_):
        return {}["slip"] if incident.host == "web1" else "text"

    monkeypatch.setattr("agent.service.open_incident.summary_of", slip)
    record()
    record(host="db7", provenance="claimed")
    record(2)

    assert SUMMARY in troubles
    assert 1 == sum(SUMMARY in each.getMessage() for each in caplog.records)


def test_where_a_commit_has_no_room_the_summary_makes_some_and_the_log_says_so(store, record, monkeypatch, caplog):
    record()
    is_full = summary(store).exists
    real = os.write

    def write(descriptor, data):
        if is_full() and "incident.json" in str(Path(f"/proc/self/fd/{descriptor}").readlink()):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, data)

    monkeypatch.setattr(os, "write", write)
    record(2)

    assert {"too_many_orphans": 2} == store.load(store.resolve("last")).events
    assert [] == list(store.path(store.resolve("last")).glob(".*"))
    assert 1 == caplog.text.count("summary.txt: deleted to make room for incident.json")


def test_a_full_disk_that_takes_the_incident_takes_it_with_its_summary_there(small_disk, record, store):
    record()
    filler = fill_disk(small_disk)
    size = (store.path("last") / "incident.json").stat().st_size
    os.truncate(filler, filler.stat().st_size - (size // 4096 + 1) * 4096)
    record(2)

    assert {"too_many_orphans": 2} == store.load(store.resolve("last")).events


@pytest.mark.parametrize("damage", [Path.unlink, lambda p: p.write_bytes(b""), lambda p: os.truncate(p, 900)])
def test_a_start_writes_what_a_power_cut_took_or_an_earlier_version_did_not_write(store, record, damage, troubles):
    record()
    before = summary(store).read_text()
    damage(summary(store))
    write_missing_summaries(store, troubles)

    assert before == summary(store).read_text()


def test_a_start_writes_one_without_its_snapshot_and_leaves_whole_ones_alone(store, record, troubles):
    record()
    whole = summary(store).stat().st_ino
    write_missing_summaries(store, troubles)
    assert whole == summary(store).stat().st_ino
    summary(store).unlink()
    (store.path("last") / "snapshot-001.json").unlink()
    write_missing_summaries(store, troubles)

    assert store.resolve("last") in summary(store).read_text()


def test_a_start_on_a_full_disk_goes_on_without_them(store, record, troubles, monkeypatch):
    record()
    summary(store).unlink()

    def full(*_) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "summary.txt")

    monkeypatch.setattr(store, "write_summary", full)
    write_missing_summaries(store, troubles)

    assert SUMMARY in troubles
