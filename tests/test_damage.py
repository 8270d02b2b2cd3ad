"""A damaged state directory: whatever is broken in it, the service starts, watches, and says what it set aside."""

import contextlib
import logging
import os
import random
import re
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from types import FrameType

import damage
import pytest
from click.testing import CliRunner
from damage import CHANNEL, Case, State
from harness import AgentProcess, owed, wait_for, write_proc
from pytest_httpserver import HTTPServer

from agent.cli import group
from agent.core.settings import IncidentSettings, Settings, SourceSettings, StoreSettings, WebhookSettings
from agent.service.daemon import Daemon
from agent.service.outside import Outside
from agent.service.signals import Signals
from agent.store import Store, StoreError

DEADLINE_SECONDS = 60
MARK = "4711.000001"
FIELDS_OF_THE_OPEN = 100
FIELDS_OF_THE_CLOSED = 400
FIELDS_SHOWN = 100


class Hung(BaseException):
    """Something waits for ever: no except clause of the program takes this."""


@pytest.fixture(autouse=True)
def deadline() -> Iterator[Callable[[], None]]:
    """End what hangs; the returned function begins the time anew."""

    def give_up(signum: int, frame: FrameType | None) -> None:
        raise Hung

    def again() -> None:
        signal.setitimer(signal.ITIMER_REAL, DEADLINE_SECONDS)

    before = signal.signal(signal.SIGALRM, give_up)
    again()
    yield again
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


class Bench:
    """Healthy states to damage, the service to start on them, and what it said."""

    def __init__(self, folder: Path, hook: str) -> None:
        self.folder, self.log = folder, folder / "messages"
        self.log.write_text("")
        self.proc_root = write_proc(folder / "proc")
        self.healthy = damage.build_state(folder / "healthy", self.proc_root, self.log, datetime.now(timezone.utc))
        self.state = self.healthy._replace(directory=folder / "state")
        self.settings = Settings(
            source=SourceSettings(kind="file", paths=(str(self.log),), start="beginning"),
            store=StoreSettings(min_free_bytes=0),
            # However slow the machine: the line belongs to the open incident, and is worth a snapshot.
            incident=IncidentSettings(pressure=False, quiet_seconds=86_400),
            notify=(WebhookSettings(name=CHANNEL, url=hook),),
        )
        self.config = folder / "config.toml"
        self.config.write_text(f'[store]\ndirectory = "{self.state.directory}"\nmin_free_bytes = 0\n')

    def damaged(self, case: Case) -> Path:
        """Make a state with this one damage, and a log with nothing in it."""
        shutil.rmtree(self.state.directory, ignore_errors=True)
        shutil.copytree(self.healthy.directory, self.state.directory, symlinks=True)
        self.log.write_text("")
        path = self.state.directory / case.path
        case.damage(path)
        return path

    def start(self) -> Store:
        """Start the service, say a line, and stop it when that is recorded and everybody was told."""
        store = Store(self.state.directory, self.settings.store)
        lock = store.open_for_writing()
        asked, pause = Signals(), threading.Event()
        daemon = Daemon(self.settings, store, asked, Outside(self.proc_root))
        turns = iter(range(10_000))

        def wait(timeout: float) -> None:
            if next(turns) == 0:
                with self.log.open("a") as log:
                    log.write(line())
            asked.stop = is_recorded(store) and not owed(store, CHANNEL)
            pause.wait(min(timeout, 0.01))

        daemon._source.wait = wait  # type: ignore[method-assign]
        try:
            daemon.run(lambda: None)
        finally:
            os.close(lock)
        return store


def line() -> str:
    """Give the line of the kernel that is said now."""
    return f"{datetime.now(timezone.utc).isoformat()} web1 kernel: [{MARK}] TCP: too many orphaned sockets\n"


def is_recorded(store: Store) -> bool:
    """Return whether the line is in an incident."""
    for name in reversed(store.ids()):
        with contextlib.suppress(StoreError):
            if any(MARK in event.line for event in store.load(name).last_of_kind):
                return True
    return False


@pytest.fixture
def bench(tmp_path: Path, httpserver: HTTPServer) -> Bench:
    httpserver.expect_request("/hook").respond_with_data("ok")
    return Bench(tmp_path, httpserver.url_for("/hook"))


def survives(bench: Bench, case: Case, caplog: pytest.LogCaptureFixture) -> None:
    """Hold that the service starts twice on this damage and watches, and tells and moves it once."""
    path = bench.damaged(case)
    evidence = os.open(path, os.O_PATH | os.O_NOFOLLOW) if os.path.lexists(path) else None
    caplog.clear()
    bench.start()
    said = complaints(caplog)
    moved = set_aside(bench.state)
    assert [] == [text for text in said if "Traceback" in text], case.name
    about = [text for text in said if is_about(path, text)]
    if case.told:
        assert about, (case.name, said)
    if evidence is not None and any("set aside" in text for text in about):
        assert os.fstat(evidence).st_ino in {each.lstat().st_ino for each in tree(bench.state)}, case.name
    if evidence is not None:
        os.close(evidence)

    caplog.clear()
    bench.start()
    again = [text for text in complaints(caplog) if is_about(path, text)]
    assert [] == [text for text in again if "set aside" in text], case.name
    assert moved == set_aside(bench.state), case.name


def is_about(path: Path, text: str) -> bool:
    """Return whether a line names this file, or the incident that is closed because of it."""
    return str(path.parent) in text and (path.name in text or "closed as it stands" in text)


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Give what was logged, but for the incidents and the place in the log file, which was lost by intent."""
    records = [record for record in caplog.records if record.levelno > logging.INFO]
    texts = [record.getMessage() + ("\nTraceback" if record.exc_info else "") for record in records]
    return [text for text in texts if not re.match(r"incident \S+ (opened|updated|resolved): ", text)]


def set_aside(state: State) -> set[Path]:
    return {path for path in tree(state) if ".broken" in path.name}


def tree(state: State) -> list[Path]:
    found = os.walk(state.directory)
    return [Path(folder) / name for folder, folders, files in found for name in (*folders, *files)]


def test_every_file_damaged_as_a_whole_is_survived(bench, caplog, deadline):
    for case in (*damage.whole_files(bench.healthy), *damage.names(bench.healthy)):
        deadline()
        survives(bench, case, caplog)


def test_what_once_ended_the_service_in_a_loop_is_survived(bench, caplog, deadline):
    for case in damage.known(bench.healthy):
        deadline()
        survives(bench, case, caplog)


def fields_of_the_open(state: State) -> list[Case]:
    opened = f"incidents/{state.open}"
    depths = {"cursor.json": 4, f"{opened}/incident.json": 2, f"{opened}/snapshot-001.json": 3}
    return list(damage.fields(state, depths | {f"{opened}/notice-001.json": 2}))


def fields_of_the_closed(state: State) -> list[Case]:
    depths = {"incident": 3, "snapshot-001": 3, "notice-001": 2, "notice-001.ops": 1}
    closed = f"incidents/{state.closed}"
    return list(damage.fields(state, {f"{closed}/{name}.json": depth for name, depth in depths.items()}))


def some(cases: list[Case], number: int) -> list[Case]:
    """Take some of the cases, always the same."""
    return random.Random(9).sample(cases, min(number, len(cases)))


def test_any_value_in_any_field_of_what_is_open_is_survived(bench, caplog, deadline):
    for case in some(fields_of_the_open(bench.healthy), FIELDS_OF_THE_OPEN):
        deadline()
        survives(bench, case, caplog)


def test_hundreds_of_incidents_each_with_another_value_in_a_field_are_survived(bench, caplog, deadline):
    cases = some(fields_of_the_closed(bench.healthy), FIELDS_OF_THE_CLOSED)
    bench.damaged(Case("", "incidents/none", lambda _: None))
    made = damage.multiply(bench.state, cases)
    store = bench.start()

    assert [] == [text for text in complaints(caplog) if "Traceback" in text]
    # What was not set aside can be loaded.
    for name, _ in made:
        assert not store.path(name).exists() or store.load(name).id == name


def every_case(state: State) -> list[Case]:
    return [*damage.whole_files(state), *damage.names(state), *damage.known(state)]


READ = (
    ("incidents", "list"),
    ("incidents", "list", "--json"),
    ("incidents", "show", "ID"),
    ("incidents", "show", "ID", "--json"),
    ("incidents", "report", "ID", "--output", "-"),
    ("incidents", "export", "ID", "--output", "-"),
    ("incidents", "prune", "--dry-run"),
    ("diagnose", "--incident", "ID"),
)


def read_with(bench: Bench, incident_id: str, *commands: tuple[str, ...]) -> None:
    """Run the commands that read, and hold that each ends with a status and no traceback."""
    environ = {"STATE_DIRECTORY": None}
    for words in commands:
        name, *rest = [incident_id if word == "ID" else word for word in words]
        rest = rest if name == "diagnose" else rest[1:]
        head = [name] if name == "diagnose" else [name, words[1]]
        result = CliRunner().invoke(group, [*head, "--config", str(bench.config), *rest], env=environ)
        assert result.exception is None or isinstance(result.exception, SystemExit), (words, result.exc_info)
        assert "Traceback" not in result.stderr, words


def test_the_commands_that_read_survive_every_file_damaged_as_a_whole(bench, deadline):
    for case in every_case(bench.healthy):
        deadline()
        bench.damaged(case)
        shown = bench.state.closed if bench.state.closed in case.path else bench.state.open
        read_with(bench, shown, *(READ if shown in case.path else READ[:3]))


def test_the_commands_that_read_survive_any_value_in_any_field(bench, deadline):
    bench.damaged(Case("", "incidents/none", lambda _: None))
    for name, _ in damage.multiply(bench.state, some(fields_of_the_closed(bench.healthy), FIELDS_SHOWN)):
        deadline()
        read_with(bench, name, *(words for words in READ if "ID" in words))


PEAK_BYTES = 80 * 1024**2


@pytest.fixture
def agent(bench: Bench) -> Iterator[AgentProcess]:
    """Make the service a process of its own, on the state directory that is damaged."""
    hook = bench.settings.notify[0]
    process = AgentProcess(
        bench.folder,
        f'[source]\nkind = "file"\npaths = ["{bench.log}"]\nstart = "beginning"\n'
        f'[[notify]]\nname = "{CHANNEL}"\ntype = "webhook"\nurl = "{getattr(hook, "url", "")}"\n',
    )
    yield process
    if not process.ended():
        process.kill()


def test_a_process_with_files_of_3_gb_everywhere_starts_in_bounded_memory(bench, agent):
    opened, closed = bench.state.open, bench.state.closed
    paths = ["cursor.json", "lock", f"history/{bench.state.hour}", f"history/{bench.state.day}"]
    paths += [f"incidents/{closed}/{name}" for name in ("incident.json", "samples.jsonl", "snapshot-001.json")]
    paths += [f"incidents/{opened}/{name}-001.json" for name in ("snapshot", "notice")]
    bench.damaged(Case("", "incidents/none", lambda _: None))
    for path in paths:
        os.truncate(bench.state.directory / path, damage.SPARSE_BYTES)
    agent.start()
    with bench.log.open("a") as log:
        log.write(line())
    wait_for("the event", lambda: is_recorded(agent.store))

    assert agent.peak_bytes() < PEAK_BYTES
    assert 0 == agent.stop()
    assert "Traceback" not in agent.said()


@pytest.mark.parametrize("kind", damage.NO_FILES)
def test_a_process_with_no_file_in_any_place_of_a_file_starts_and_watches(bench, agent, kind):
    opened, closed = bench.state.open, bench.state.closed
    bench.damaged(Case("", "incidents/none", lambda _: None))
    files = [path for path in bench.state.directory.rglob("*") if path.is_file() and opened not in str(path)]
    files += [bench.state.directory / f"incidents/{opened}/{name}-001.json" for name in ("snapshot", "notice")]
    asides = [path.with_name(f".{path.name}.new") for path in files if closed not in str(path)]
    for path in (*files, *asides):
        damage.clear(path)
        damage.NO_FILES[kind](path)
    agent.start()
    with bench.log.open("a") as log:
        log.write(line())
    wait_for("the event", lambda: is_recorded(agent.store))

    assert 0 == agent.stop()
    assert "Traceback" not in agent.said()
