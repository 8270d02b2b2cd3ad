"""A disk that fails once, at every place in turn: the service may stop, but the next start has every event, once."""

import contextlib
import errno
import os
import shutil
from datetime import datetime, timedelta, timezone

import pytest
from harness import fill_disk, owed

from agent.core.dispatch import Rules
from agent.core.settings import IncidentSettings, Settings, SourceSettings, StdoutSettings, StoreSettings
from agent.notifiers.stdout import StdoutNotifier
from agent.service.courier import Courier
from agent.service.daemon import Daemon
from agent.service.outside import Outside
from agent.service.signals import Signals
from agent.store import Outbox, Store, StoreError

TEXTS = ["TCP: too many orphaned sockets"] * 4 + ["TCP: out of memory -- consider tuning tcp_mem"] * 3
INCIDENTS = 3
FIRST = datetime(2026, 11, 22, 10, tzinfo=timezone.utc)


@pytest.fixture
def make_daemon(tmp_path, proc_root):
    """Build the service on a log with three incidents, as a process that starts would."""
    log = tmp_path / "messages"
    with log.open("w") as file:
        for incident in range(INCIDENTS):
            for number, text in enumerate(TEXTS):
                stamp = (FIRST + timedelta(minutes=20 * incident, seconds=number)).isoformat()
                file.write(f"{stamp} web1 kernel: [{number:5}.000001] {text}\n{stamp} web1 cron[1]: ordinary\n")

    def make(min_free_bytes: int = 0) -> tuple[Daemon, Signals]:
        settings = Settings(
            source=SourceSettings(kind="file", paths=(str(log),), start="beginning"),
            store=StoreSettings(min_free_bytes=min_free_bytes),
            incident=IncidentSettings(pressure=False),
        )
        store = Store(tmp_path / "state", settings.store)
        os.close(store.open_for_writing())
        return Daemon(settings, store, asked := Signals(), Outside(proc_root)), asked

    return make


def run(made: tuple[Daemon, Signals]) -> None:
    """Turn twice and stop as SIGTERM would."""
    (daemon, asked), turns = made, iter((False, True))

    def wait(timeout: float) -> None:
        asked.stop = next(turns)

    daemon._source.wait = wait
    daemon.run(lambda: None)


class FailingDisk:
    """Counts the calls of the os module that reach the state directory, and fails one of them."""

    CALLS = ("open", "write", "ftruncate", "fsync", "rename", "mkdir", "fchmod")

    def __init__(self, monkeypatch, fail_at: int) -> None:
        self.calls = 0
        self.fail_at = fail_at
        for name in self.CALLS:
            monkeypatch.setattr(os, name, self.wrap(name, getattr(os, name)))

    def wrap(self, name, real):
        def call(*args, **kwargs):
            if name != "open" or "state" in str(args[0]):
                self.calls += 1
                if self.calls == self.fail_at:
                    raise OSError(errno.EIO, "Input/output error", str(args[0]))
            return real(*args, **kwargs)

        return call


def calls_of_a_start_that_goes_well(make_daemon, tmp_path) -> int:
    with pytest.MonkeyPatch.context() as patch:
        disk = FailingDisk(patch, fail_at=-1)
        run(make_daemon())
    return disk.calls


def test_nothing_is_lost_or_counted_twice_wherever_the_disk_fails(make_daemon, tmp_path, capsys):
    total = calls_of_a_start_that_goes_well(make_daemon, tmp_path)
    assert total > 60

    for fail_at in range(1, total + 1):
        shutil.rmtree(tmp_path / "state")
        with pytest.MonkeyPatch.context() as patch:
            FailingDisk(patch, fail_at)
            with contextlib.suppress(OSError, StoreError):
                run(make_daemon())
        run(make_daemon())

        store = Store(tmp_path / "state")
        events = [store.load(i).events for i in store.ids()]
        assert [{"too_many_orphans": 4, "tcp_mem": 3}] * INCIDENTS == events, fail_at
        assert [] == list((tmp_path / "state").rglob(".*.new")), fail_at


def test_a_position_that_could_not_be_saved_is_saved_later_though_the_log_is_quiet(make_daemon, tmp_path, monkeypatch):
    daemon, _ = make_daemon()
    daemon.turn()
    with monkeypatch.context() as patch:
        patch.setattr(daemon._store, "save_cursor", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full", "c")))
        daemon._save_position()
    assert "the position cannot be saved" in daemon.status()
    daemon._save_position()

    assert "the position cannot be saved" not in daemon.status()
    saved = Store(tmp_path / "state").newest_commit()[0].cursor.files
    assert [(tmp_path / "messages").stat().st_size] == [each.offset for each in saved.values()]


def two_hours_later() -> datetime:
    return datetime.now(timezone.utc) + timedelta(hours=2)


def test_a_start_on_a_small_disk_makes_room_by_retention_and_records_what_was_said(make_daemon, small_disk, tmp_path):
    run(make_daemon())
    store = Store(small_disk)
    # Lines of the past are reported when they are over, or an hour later.
    courier = Courier(StdoutNotifier(StdoutSettings(name="stdout")), Outbox(store), Rules(), now=two_hours_later)
    while owed(store, "stdout"):
        courier.step()
    before = store.ids()
    with (tmp_path / "messages").open("a") as log:
        log.write(f"{(FIRST + timedelta(hours=5)).isoformat()} web1 kernel: [99.000001] {TEXTS[0]}\n")
    fill_disk(small_disk)
    with pytest.raises(OSError, match="No space left"):
        run(make_daemon())
    run(make_daemon(min_free_bytes=200_000))

    assert before[-1] in store.ids()
    assert before[0] not in store.ids()
    assert {"too_many_orphans": 1} == store.load(store.resolve("last")).events
