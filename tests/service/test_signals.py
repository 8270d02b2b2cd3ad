"""Signals to the real service at every moment of its life, the first one included."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import PATIENCE_SECONDS, AgentProcess

from agent.core.settings import Settings, SourceSettings
from agent.service.daemon import Daemon
from agent.service.outside import Outside
from agent.service.signals import Signals, is_run
from agent.store import Store


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[AgentProcess]:
    log = tmp_path / "messages"
    log.touch()
    process = AgentProcess(tmp_path, f'[source]\nkind = "file"\npaths = ["{log}"]\n')
    yield process
    if not process.ended():
        process.kill()


def hears(agent: AgentProcess) -> bool:
    """Return whether the process has a handler for SIGHUP (proc_pid_status(5), SigCgt)."""
    with contextlib.suppress(FileNotFoundError):
        status = Path(f"/proc/{agent.pid}/status").read_text()
        return bool(int(re.findall(r"SigCgt:\s*(\w+)", status)[0], 16) & 1 << signal.SIGHUP - 1)
    return False


def imports(agent: AgentProcess) -> bool:
    """Return whether the process is past the first of its own imports."""
    with contextlib.suppress(FileNotFoundError):
        return "msgspec/_core" in Path(f"/proc/{agent.pid}/maps").read_text()
    return False


def opens(agent: AgentProcess) -> bool:
    return (agent.state / "lock").exists()


def follows(agent: AgentProcess) -> bool:
    return "following" in agent.said()


MOMENTS = [imports, opens, follows]


def wait_until(moment: Callable[[AgentProcess], bool], agent: AgentProcess) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not moment(agent) and not agent.ended():
        assert time.monotonic() < deadline, moment.__name__
        time.sleep(0.0005)


def test_the_handlers_come_before_every_import_that_takes_time() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "agent", "run", "--config", "/does/not/exist"],
        capture_output=True,
        text=True,
        check=False,
    )
    order = [line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")]

    assert 78 == done.returncode
    assert order.index("agent.service.signals") < min(order.index("click.core"), order.index("msgspec"))


def test_a_storm_of_sighup_from_the_first_moment_on_ends_nothing(agent: AgentProcess) -> None:
    ours = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # Inherited, as from the package's launcher.
    agent.spawn()
    signal.signal(signal.SIGHUP, ours)
    sent = 0
    while agent.said().count("configuration reloaded") < 3 and not agent.ended():
        agent.signal(signal.SIGHUP)
        sent += 1
        time.sleep(0.001)

    assert not agent.ended(), agent.said()
    assert sent > 100
    assert 0 == agent.stop()


@pytest.mark.parametrize("moment", MOMENTS)
def test_sighup_without_a_launcher_is_heard_from_the_first_import_on(
    agent: AgentProcess, moment: Callable[[AgentProcess], bool]
) -> None:
    agent.spawn()
    wait_until(moment, agent)
    agent.signal(signal.SIGHUP)
    wait_until(follows, agent)

    assert 0 == agent.stop()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("moment", [hears, *MOMENTS])
def test_a_stop_is_a_clean_end_at_every_moment(
    agent: AgentProcess, moment: Callable[[AgentProcess], bool], number: signal.Signals
) -> None:
    agent.spawn()
    wait_until(moment, agent)
    agent.signal(number)

    assert 0 == agent.wait(), agent.said()
    assert "Traceback" not in agent.said()


def test_a_reload_that_was_asked_for_during_the_start_is_done(tmp_path: Path, proc_root: Path) -> None:
    asked, read = Signals(), []
    settings = Settings(source=SourceSettings(kind="file", paths=(str(tmp_path / "messages"),)))
    store = Store(tmp_path / "state")
    os.close(store.open_for_writing())
    daemon = Daemon(settings, store, asked, Outside(proc_root))
    asked._on_reload(signal.SIGHUP, None)

    def reread() -> None:
        read.append("again")
        asked.stop = True

    daemon.run(reread)

    assert ["again"] == read


@pytest.mark.parametrize(
    ("line", "is_service"),
    [
        ("run", True),
        ("run --config x", True),
        ("--log-level debug run", True),
        ("--log-level=debug run", True),
        ("", False),
        ("scan run", False),
        ("config check run", False),
        ("--log-level", False),
        ("--log-level debug scan run", False),
    ],
)
def test_only_the_service_takes_the_signals_over(line: str, *, is_service: bool) -> None:
    assert is_service == is_run(line.split())
