import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from harness import AgentProcess, as_nobody

from agent.cli import group, log

LINE = "Nov 22 15:05:39 web1 kernel: [  123.000001] TCP: too many orphaned sockets\n"


@pytest.fixture(autouse=True)
def level_of_the_other_tests() -> Iterator[None]:
    yield
    log.setLevel("INFO")


@pytest.fixture
def damaged(tmp_path: Path) -> list[str]:
    """Give the arguments of a command that has one thing to say beside its output."""
    directory = tmp_path / "incidents" / "20261122T150539Z-7f3a"
    directory.mkdir(parents=True)
    config = tmp_path / "config.toml"
    config.write_text(f'[store]\ndirectory = "{tmp_path}"\n')
    return ["--config", str(config)]


def all_commands(path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    command: click.Command | None = group
    for name in path:
        assert isinstance(command, click.Group)
        command = command.get_command(click.Context(command), name)
    yield path
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            yield from all_commands((*path, name))


@pytest.mark.parametrize("path", list(all_commands()), ids=" ".join)
def test_every_command_takes_the_log_level(path: tuple[str, ...]) -> None:
    result = CliRunner().invoke(group, [*path, "--log-level", "ERROR", "--help"])

    assert 0 == result.exit_code
    assert 1 == result.stdout.count("--log-level")


@pytest.mark.parametrize("path", list(all_commands()), ids=" ".join)
def test_no_help_cuts_a_sentence_short(path: tuple[str, ...]) -> None:
    result = CliRunner().invoke(group, [*path, "--help"], terminal_width=80)

    assert [] == [line for line in result.stdout.splitlines()[1:] if line.endswith("...")]


@pytest.mark.parametrize("path", list(all_commands()), ids=" ".join)
def test_every_example_is_one_line_that_can_be_copied(path: tuple[str, ...]) -> None:
    result = CliRunner().invoke(group, [*path, "--help"], terminal_width=80)

    assert re.fullmatch(r"  Example: (sudo )?sockmem-agent .*", result.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("status", "arguments"),
    [
        (78, "run"),
        (78, "config check"),
        (78, "config show"),
        (78, "incidents list"),
        (1, "notify test"),
        (1, "silence 1m --reason test"),
        (1, "doctor"),
        (3, "status --check"),
        (3, "status --nagios"),
        (0, "diagnose"),
    ],
)
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_a_configuration_that_may_not_be_read_is_no_usage_error(tmp_path: Path, status: int, arguments: str) -> None:
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(folder.stat().st_mode | 0o011)
    config = tmp_path / "config.toml"
    config.touch(0o600)

    def ask(option: str = f"--config={config}") -> str:
        result = CliRunner().invoke(group, [*arguments.split(), option])
        return f"{result.exit_code} {result.output}"

    ask("--help")  # Nobody may not read root's Python.
    code, _, said = as_nobody(ask).partition(" ")

    assert (status, False) == (int(code), "Usage:" in said), said


@pytest.mark.parametrize("level", ["debug", "info", "warning"])
def test_diagnostics_are_one_line_each_on_standard_error(damaged: list[str], level: str) -> None:
    result = CliRunner().invoke(
        group, ["--log-level", level, "incidents", "list", *damaged], env={"STATE_DIRECTORY": None}
    )

    assert result.stderr.startswith("sockmem-agent: incident 20261122T150539Z-7f3a: ")
    assert 1 == result.stderr.count("\n")


def test_less_severe_diagnostics_are_left_out_whether_asked_before_or_behind_the_command(damaged: list[str]) -> None:
    before = CliRunner().invoke(group, ["--log-level", "error", "incidents", "list", *damaged])
    behind = CliRunner().invoke(group, ["incidents", "list", *damaged, "--log-level", "error"])

    assert ("", "") == (before.stderr, behind.stderr)


def test_what_ends_a_command_is_said_at_every_level(damaged: list[str]) -> None:
    result = CliRunner().invoke(group, ["--log-level", "error", "incidents", "show", "last", *damaged])

    assert 66 == result.exit_code
    assert 1 == result.stderr.count("\n")


def test_a_level_that_is_none_is_wrong_usage() -> None:
    result = CliRunner().invoke(group, ["--log-level", "loud", "doctor"])

    assert 2 == result.exit_code
    assert "'debug', 'info', 'warning', 'error'" in result.stderr


@pytest.mark.parametrize(("level", "words"), [("debug", {"DEBUG", "INFO"}), ("info", {"INFO"}), ("warning", set())])
def test_the_service_says_as_much_as_was_asked_for(tmp_path: Path, level: str, words: set[str]) -> None:
    log_file = tmp_path / "messages"
    log_file.write_text(LINE)
    agent = AgentProcess(tmp_path, f'[source]\nkind = "file"\npaths = ["{log_file}"]\nstart = "beginning"\n')
    agent.start("--log-level", level, ready="  source  ")

    assert 0 == agent.stop()
    assert words == {word for word in ("DEBUG", "INFO") if f" {word} " in agent.said()}
    assert (level == "debug") == ("DEBUG stdout: an attempt of msg_" in agent.said())


def test_standard_error_that_is_closed_ends_no_command(damaged: list[str]) -> None:
    program = [sys.executable, "-m", "agent", "incidents", "list", *damaged]
    done = subprocess.run(["/bin/sh", "-c", 'exec "$@" 2>&-', "sh", *program], capture_output=True, check=False)

    assert (0, b"no incidents") == (done.returncode, done.stdout[:12])
