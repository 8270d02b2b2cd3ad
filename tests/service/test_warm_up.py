"""What is done once before any event, so that the first is not the slowest."""

import gc
import os
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

import pytest
from harness import write_proc
from material import make_event

from agent.core import folding, report
from agent.core.diagnosis.diagnose import diagnose
from agent.core.settings import IncidentSettings, Settings, SourceSettings
from agent.page import text
from agent.probe import take_snapshot
from agent.service.daemon import Daemon
from agent.service.open_incident import summary_of
from agent.service.outside import Outside
from agent.service.signals import Signals
from agent.store import Store


def run(tmp_path: Path, turns: int) -> tuple[Daemon, Store]:
    """Run the service for some turns beside a log in which nothing happens."""
    log = tmp_path / "messages"
    log.touch()
    store = Store(tmp_path / "state")
    os.close(store.open_for_writing())
    source = SourceSettings(kind="file", paths=(str(log),))
    settings = Settings(source=source, incident=IncidentSettings(pressure=False))
    asked = Signals()
    daemon = Daemon(settings, store, asked, Outside(tmp_path / "proc"))
    left = iter(range(turns - 1))

    def wait(timeout: float) -> None:
        del timeout
        asked.stop = next(left, None) is None

    daemon._source.wait = wait  # type: ignore[method-assign]
    daemon.run(lambda: None)
    return daemon, store


@pytest.mark.parametrize("kind", ["orphans", "tcp_memory"])
def test_the_first_event_finds_done_what_can_be_done_before_it(tmp_path: Path, kind: str) -> None:
    proc = write_proc(tmp_path / "proc")
    for cached in (text._fold, report._wrapped):
        cached.cache_clear()
    run(tmp_path, 1)
    filled = text._fold.cache_info().misses

    snapshot = take_snapshot(proc, datetime.now(timezone.utc), "event")
    event = make_event(kind, provenance="claimed", at=snapshot.taken_at)
    incident = folding.open_incident(event, snapshot.taken_at, snapshot, diagnose(snapshot, (event,), ()), 0)
    summary_of(incident, ("snapshot-001.json", snapshot))

    assert filled > 0
    # What is of this event alone: the title and the line.
    assert text._fold.cache_info().misses - filled <= filled // 3


def test_the_warm_up_leaves_nothing_behind(tmp_path: Path) -> None:
    write_proc(tmp_path / "proc")
    daemon, store = run(tmp_path, 3)

    assert [] == store.names()
    assert ({}, "") == (dict(daemon._recorder.counted), "".join(daemon._troubles))


def test_no_event_waits_while_what_was_imported_is_looked_through_for_garbage(tmp_path: Path) -> None:
    write_proc(tmp_path / "proc")
    before = gc.get_freeze_count()
    run(tmp_path, 1)

    assert gc.get_freeze_count() > max(before, 10_000)


def test_a_start_does_not_look_for_garbage_until_the_service_has_begun_and_other_commands_do(tmp_path: Path) -> None:
    code = "import gc, sys; sys.argv = ['sockmem-agent', {!r}]; import agent.cli; print(gc.isenabled())"
    imported = [
        subprocess.run([sys.executable, "-c", code.format(command)], capture_output=True, text=True, check=True).stdout
        for command in ("run", "scan")
    ]
    write_proc(tmp_path / "proc")
    gc.disable()
    try:
        run(tmp_path, 1)
        is_on = gc.isenabled()
    finally:
        gc.enable()

    assert (["False\n", "True\n"], True) == (imported, is_on)


def test_a_surprise_in_the_warm_up_is_logged_and_the_service_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("odd")

    monkeypatch.setattr("agent.service.recorder.warm_up", fail)
    write_proc(tmp_path / "proc")
    daemon, _ = run(tmp_path, 3)

    assert ["what an event needs failed without one"] == [*daemon._troubles]


@pytest.mark.parametrize("name", ["agent.core.logs.envelope", "agent.core.logs.timestamps", "watchdog"])
def test_what_waits_for_lines_of_a_text_log_and_parses_them_is_loaded_for_one_alone_and_not_to_open_it(
    name: str,
) -> None:
    is_loaded = f"print({name!r} in sys.modules)"
    code = f"""
import agent.service.daemon, agent.sources.file.source, sys
from agent.core.settings import SourceSettings
from agent.sources import import_parser
{is_loaded}
import_parser(SourceSettings(kind="journal"))
{is_loaded}
import_parser(SourceSettings(kind="file"))
{is_loaded}
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert ["False", "False", "True"] == found.split()
