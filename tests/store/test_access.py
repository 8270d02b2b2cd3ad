"""A state directory with files of another user, as a run as root leaves it, seen by a process of the user nobody."""

import importlib
import logging
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import as_nobody

from agent.cli.run import build
from agent.core.settings import Settings, SourceSettings, StoreSettings
from agent.store import Store, explain, unusable

INCIDENT = "incidents/20261122T150539Z-7f3a"
FILES = ["cursor.json", "lock", "history/20261122T15.jsonl", f"{INCIDENT}/incident.json"]

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can leave another user's files behind")


@pytest.fixture
def state() -> Iterator[Path]:
    """Make a state directory of nobody's; pytest's own are closed to other users."""
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        for name in FILES:
            path = top / "state" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(0o640)
        (top / "state/cursor.json").write_text('{"generation": 1, "cursor": {}}')
        for path in (top, *top.rglob("*")):
            shutil.chown(path, "nobody", "nogroup")
            path.chmod(0o750 if path.is_dir() else 0o640)
        (top / "state/incidents/last").symlink_to("/root")
        yield top / "state"


def give_to_root(path: Path) -> Path:
    shutil.chown(path, "root", "root")
    return path


def start(state: Path) -> str:
    """Build the service as nobody would, and return what it logs, or "started"."""
    for late in ("agent.sources.file.source", "agent.notifiers.stdout"):
        importlib.import_module(late)  # Nobody may not read root's Python.
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    log = logging.getLogger("sockmem-agent")
    log.addHandler(handler)
    settings = Settings(source=SourceSettings(kind="file", paths=(str(state / "messages"),)))

    def work() -> str:
        try:
            build(settings, Store(state, StoreSettings(min_free_bytes=0)), Path("/proc"))
        except SystemExit as left:
            return f"{left.code} {said[-1]}"
        return "started"

    try:
        return as_nobody(work)
    finally:
        log.removeHandler(handler)


def test_what_belongs_to_the_service_is_no_obstacle(state: Path) -> None:
    assert "started" == start(state)
    assert "[]" == as_nobody(lambda: repr(list(unusable(state))))


@pytest.mark.parametrize("name", ["", "cursor.json", "lock", "incidents", "history", INCIDENT])
def test_the_start_names_the_file_its_owner_and_the_fix(state: Path, name: str) -> None:
    path = give_to_root(state / name)

    expected = f"1 cannot start: {path} belongs to root; the service runs as nobody: chown -hR nobody: {state}"
    assert expected == start(state)


@pytest.mark.parametrize("name", FILES)
def test_every_file_of_another_user_is_found(state: Path, name: str) -> None:
    path = give_to_root(state / name)

    assert repr([path]) == as_nobody(lambda: repr(list(unusable(state))))


def test_a_readable_file_of_another_user_is_in_the_way_only_where_it_is_appended_to(state: Path) -> None:
    for name in FILES:
        give_to_root(state / name).chmod(0o644)

    assert repr([state / "history/20261122T15.jsonl"]) == as_nobody(lambda: repr(list(unusable(state))))


def test_a_file_system_that_is_read_only_has_no_owner_to_blame(state: Path) -> None:
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,uid=nobody", "tmpfs", state], check=False).returncode:
        pytest.skip("cannot mount here")
    try:
        assert start(state).startswith(f"1 cannot start: {state} is read-only for nobody: sudo sockmem-agent doctor ")
    finally:
        subprocess.run(["umount", state], check=True)


def test_a_mode_that_shuts_out_the_owner_has_another_fix(state: Path) -> None:
    (state / "history").chmod(0o500)

    assert start(state).endswith(f"forbids access: chmod -R u+rwX {state}")


def test_an_error_of_permissions_names_the_owner_and_another_error_does_not(state: Path) -> None:
    directory = give_to_root(state / "history")
    denied = PermissionError(13, "Permission denied", str(directory / "new.jsonl"))

    assert f"{directory}/new.jsonl: Permission denied; it belongs to root, the service runs as nobody" == as_nobody(
        lambda: explain(denied)
    )
    assert "/x: No space left on device" == explain(OSError(28, "No space left on device", "/x"))


def test_an_error_without_a_file_names_none() -> None:
    assert "Invalid argument" == explain(OSError(22, "Invalid argument"))
    assert "the journal cannot be opened" == explain(OSError("the journal cannot be opened"))
