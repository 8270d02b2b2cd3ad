"""A disk that fails once, at every place in turn: the service may stop, but the next start has every event, once."""

import contextlib
import errno
import os
from datetime import UTC, datetime, timedelta

import pytest

from agent.core.settings import IncidentSettings, Settings, SourceSettings, StoreSettings
from agent.daemon import Daemon
from agent.store import Store, StoreError

TEXTS = ["TCP: too many orphaned sockets"] * 4 + ["TCP: out of memory -- consider tuning tcp_mem"] * 3
INCIDENTS = 3
FIRST = datetime(2026, 11, 22, 10, tzinfo=UTC)


@pytest.fixture
def make_daemon(tmp_path, proc_root):
    """Build the service on a log with three incidents, as a process that starts would."""
    log = tmp_path / "messages"
    with log.open("w") as file:
        for incident in range(INCIDENTS):
            for number, text in enumerate(TEXTS):
                stamp = (FIRST + timedelta(minutes=20 * incident, seconds=number)).isoformat()
                file.write(f"{stamp} web1 kernel: [{number:5}.000001] {text}\n{stamp} web1 cron[1]: ordinary\n")
    settings = Settings(
        source=SourceSettings(kind="file", paths=(str(log),), start="beginning"),
        store=StoreSettings(min_free_bytes=0),
        incident=IncidentSettings(pressure=False),
    )

    def make() -> Daemon:
        store = Store(tmp_path / "state", settings.store)
        os.close(store.open_for_writing())
        return Daemon(settings, store, proc_root=proc_root)

    return make


def run(daemon: Daemon) -> None:
    """Turn twice and stop as SIGTERM would."""
    turns = iter((False, True))

    def wait(timeout: float) -> None:
        daemon._stopping = next(turns)

    daemon._source.wait = wait
    daemon.run(lambda: None)


class FailingDisk:
    """Counts the calls of the os module that reach the state directory, and fails one of them."""

    CALLS = ("open", "write", "fsync", "rename", "mkdir", "fchmod")

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
        for path in sorted((tmp_path / "state").rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        with pytest.MonkeyPatch.context() as patch:
            FailingDisk(patch, fail_at)
            with contextlib.suppress(OSError, StoreError):
                run(make_daemon())
        run(make_daemon())

        store = Store(tmp_path / "state")
        events = [store.load(i).events for i in store.ids()]
        assert [{"too_many_orphans": 4, "tcp_mem": 3}] * INCIDENTS == events, fail_at
        assert [] == list((tmp_path / "state").rglob(".*.new")), fail_at
