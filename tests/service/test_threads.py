"""How many threads are needed and allowed, and a service with more channels than it has threads for."""

import os
from pathlib import Path

import pytest

from agent.core.settings import Settings, SourceSettings, StdoutSettings
from agent.service import threads
from agent.service.daemon import Daemon
from agent.service.outside import Outside
from agent.service.signals import Signals
from agent.store import Store


def test_every_thread_of_the_service_is_counted() -> None:
    files = SourceSettings(kind="file", paths=("/var/log/messages", "/var/log/kern.log", "/srv/log/messages"))

    # Main, survey, another namespace; a courier and its POST; watchdog's own, and two a directory.
    assert 3 + 2 == threads.needed(SourceSettings(kind="journal"), 1)
    assert 3 + 4 + 1 + 2 * 2 == threads.needed(files, 2)


@pytest.mark.parametrize(
    ("cgroup", "file", "limit", "expected"),
    [
        ("0::/system.slice/sockmem-agent.service\n", "system.slice/sockmem-agent.service", "64\n", 64),
        ("0::/system.slice/sockmem-agent.service\n", "system.slice/sockmem-agent.service", "max\n", None),
        ("8:pids:/a\n1:name=systemd:/a\n0::/a\n", "pids/a", "64\n", 64),
        ("0::/\n", "elsewhere", "64\n", None),
        ("0::/lxc/k\udcfcche\n", "lxc/k\udcfcche", "64\n", 64),
    ],
)
def test_the_limit_is_that_of_the_own_cgroup(
    tmp_path: Path, cgroup: str, file: str, limit: str, expected: int | None
) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_bytes(os.fsencode(cgroup))
    (tmp_path / "sys/fs/cgroup" / file).mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup" / file / "pids.max").write_text(limit)

    assert expected == threads.allowed(tmp_path)


def test_channels_beyond_the_limit_are_named_and_every_other_has_a_thread_for_its_post(
    tmp_path: Path, proc_root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(
        source=SourceSettings(kind="file", paths=(str(tmp_path / "messages"),)),
        notify=tuple(StdoutSettings(name=f"c{number}") for number in range(40)),
    )
    store = Store(tmp_path / "state")
    os.close(store.open_for_writing())
    daemon = Daemon(settings, store, Signals(), Outside(proc_root))
    monkeypatch.setattr(threads, "allowed", lambda: 64)

    daemon._couriers.take_over()
    daemon._couriers.serve()
    daemon.end()

    assert [f"c{number}" for number in range(29)] == [courier.name for courier in daemon._couriers]
    unserved = ", ".join(f"c{number}" for number in range(29, 40))
    said = f"TasksMax= leaves no threads for these channels: {unserved}"
    assert f"{said}; see sockmem-agent config check" in caplog.text
    assert said in daemon.status()
