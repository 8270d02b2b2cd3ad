"""What the shells ask for completion, by the protocol of click's scripts, which the packages install."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from click.shell_completion import get_completion_class
from msgspec.structs import replace

from agent.cli import COMMANDS, group
from agent.core import folding
from agent.core.cursor import Cursor, Resume
from agent.core.model import Diagnosis, Event, LogRecord, Snapshot
from agent.store import Store

Complete = Callable[..., list[str]]
VARIABLE = "_SOCKMEM_AGENT_COMPLETE"


@pytest.fixture
def ids(
    tmp_path: Path, make_decided: Callable[..., tuple[LogRecord, Event]], clock: Callable[[], datetime]
) -> list[str]:
    """Keep two incidents, and give their ids, the newest first."""
    store = Store(tmp_path / "state")
    store.open_for_writing()
    found = []
    for _ in range(2):
        _, event = make_decided(at=clock.advance(3600))
        snapshot = Snapshot(taken_at=clock.time, trigger="event")
        diagnosis = Diagnosis(cause="undetermined", confidence="possible", summary="")
        incident = folding.open_incident(event, clock.time, snapshot, diagnosis)
        store.new_directory(incident.id)
        store.commit(replace(incident, resume=Resume(generation=1, cursor=Cursor())))
        found.append(incident.id)
    return found[::-1]


@pytest.fixture(params=["bash", "zsh", "fish"])
def complete(request: pytest.FixtureRequest, tmp_path: Path) -> Complete:
    """Ask as a shell does, and give the words that it would offer."""
    shell: str = request.param

    def ask(line: str, **environ: str) -> list[str]:
        words = line.split(" ")
        done = subprocess.run(
            [sys.executable, "-m", "agent"],
            capture_output=True,
            text=True,
            check=False,
            env={
                **os.environ,
                "STATE_DIRECTORY": str(tmp_path / "state"),
                VARIABLE: f"{shell}_complete",
                "COMP_WORDS": line,
                "COMP_CWORD": words[-1] if shell == "fish" else str(len(words) - 1),
                **environ,
            },
        )
        assert done.stderr == ""
        lines = done.stdout.splitlines()
        if shell == "zsh":  # Three lines a word: type, word, help.
            return lines[1::3]
        return [line.partition(",")[2].partition("\t")[0] for line in lines if line]

    return ask


@pytest.mark.parametrize("command", ["incidents show", "incidents report", "incidents export", "diagnose --incident"])
def test_an_id_is_completed_the_newest_first(complete: Complete, ids: list[str], command: str) -> None:
    assert ["last", *ids] == complete(f"sockmem-agent {command} ")


def test_what_was_typed_is_how_it_begins(complete: Complete, ids: list[str]) -> None:
    assert [ids[0]] == complete(f"sockmem-agent incidents show {ids[0][:14]}")
    assert ["last"] == complete("sockmem-agent incidents show l")
    assert [] == complete("sockmem-agent incidents show 1999")


def test_the_configuration_that_was_typed_before_counts(complete: Complete, ids: list[str], tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f'[store]\ndirectory = "{tmp_path / "state"}"\n')

    assert ["last", *ids] == complete(f"sockmem-agent incidents show --config {config} ", STATE_DIRECTORY="")


def test_without_incidents_nothing_is_offered(complete: Complete) -> None:
    assert [] == complete("sockmem-agent incidents show ")


def test_what_cannot_be_read_completes_to_nothing_and_is_no_noise(
    complete: Complete, ids: list[str], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.toml"
    broken.write_text("[store]\nkeep_days = 0\n")
    file = tmp_path / "state" / "incidents"
    file.rename(tmp_path / "elsewhere")
    file.write_text("no directory")

    assert ids
    assert [] == complete("sockmem-agent incidents show ")
    assert [] == complete(f"sockmem-agent incidents show --config {broken} ")


def test_the_commands_and_options_are_completed(complete: Complete) -> None:
    assert list(COMMANDS) == complete("sockmem-agent ")
    assert ["--log-level"] == complete("sockmem-agent --log")
    assert {"--since", "--limit", "--open"} <= set(complete("sockmem-agent incidents list --"))


def test_no_command_is_imported_to_complete_their_names() -> None:
    ask = "c.group.shell_complete(click.Context(c.group), '')"
    code = f"import sys, click, agent.cli as c; {ask}; print('agent.service.daemon' in sys.modules)"

    assert b"False\n" == subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout


def test_bash_itself_takes_the_script_and_completes(ids: list[str], tmp_path: Path) -> None:
    bash, completion = shutil.which("bash"), get_completion_class("bash")
    if bash is None or completion is None:
        pytest.skip("no bash here")
    program = tmp_path / "sockmem-agent"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m agent "$@"\n')
    program.chmod(0o755)
    source = completion(group, {}, "sockmem-agent", VARIABLE).source()
    script = f"""{source}
COMP_WORDS=(sockmem-agent incidents show {ids[0][:14]}) COMP_CWORD=3
_sockmem_agent_completion sockmem-agent
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    environ = {**os.environ, "STATE_DIRECTORY": str(tmp_path / "state"), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run([bash, "-c", script], capture_output=True, text=True, check=True, env=environ)

    assert f"{ids[0]}\n" == done.stdout
