import os
import platform
import pwd
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from harness import AgentProcess, as_nobody, wait_for
from msgspec.structs import replace

from agent.cli import group
from agent.core.model import Silence
from agent.store import read_silence, write_silence

Run = Callable[..., Result]


@pytest.fixture
def state() -> Iterator[Path]:
    """Make a state directory in a folder that any user may enter."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        path = Path(folder) / "state"
        path.mkdir(0o750)
        yield path


@pytest.fixture
def run(state: Path) -> Run:
    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(group, ["silence", *arguments], env={"STATE_DIRECTORY": str(state)})

    return invoke


@pytest.mark.parametrize(("text", "length"), [("30m", 30), ("2h", 120), ("1d", 1440), ("1h30m", 90), ("30d", 43_200)])
def test_a_silence_lasts_as_long_as_it_says(run: Run, state: Path, text: str, length: int) -> None:
    result = run(text, "--reason", "deploying")
    silence = read_silence(state)

    assert (0, "") == (result.exit_code, result.stderr)
    assert silence is not None
    assert ("deploying", timedelta(minutes=length)) == (silence.reason, silence.until - silence.since)
    assert abs(silence.since - datetime.now(timezone.utc)) < timedelta(minutes=1)
    assert f"silenced until {silence.until.astimezone():%Y-%m-%d %H:%M:%S %Z}: deploying\n" == result.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["30m"],
        ["--reason", "why"],
        ["30m", "--reason", " "],
        ["30m", "--reason", "x" * 201],
        ["--end", "30m"],
        ["--end", "--reason", "why"],
        *([text, "--reason", "why"] for text in ("0m", "31d", "-1h", "soon", "30", "999999999w", "٣m", "1h 30m")),
    ],
)
def test_a_usage_error_is_2_and_one_clear_line_and_silences_nothing(
    run: Run, state: Path, arguments: list[str]
) -> None:
    result = run(*arguments)

    assert (2, "") == (result.exit_code, result.stdout)
    assert 1 == sum(line.startswith("Error: ") for line in result.stderr.splitlines())
    assert read_silence(state) is None


def test_a_second_one_replaces_the_first_and_says_which(run: Run, state: Path) -> None:
    run("1d", "--reason", "moving")
    second = run("30m", "--reason", "deploying")

    assert "deploying" == read_silence(state).reason
    assert "replaced the silence until " in second.stdout
    assert second.stdout.endswith(": moving\n")
    assert run("--end").stdout.endswith(": deploying\n")
    assert read_silence(state) is None
    assert (0, "nothing was silenced\n") == (run("--end").exit_code, run("--end").stdout)


def test_a_second_one_goes_on_where_the_first_began(run: Run, state: Path) -> None:
    """What opened in the first and is over in the second was silenced: it is not told after it."""
    run("30m", "--reason", "moving")
    first = read_silence(state)
    run("2h", "--reason", "moving takes longer")
    assert first.since == read_silence(state).since < first.until < read_silence(state).until

    write_silence(state, replace(first, since=first.since - timedelta(days=29)))
    run("30d", "--reason", "for a month")
    assert timedelta(days=30) == read_silence(state).until - read_silence(state).since


def test_damage_and_what_is_over_are_replaced_without_a_word(run: Run, state: Path) -> None:
    (state / "silence.json").write_text("{")
    assert 1 == len(run("30m", "--reason", "deploying").stdout.splitlines())

    past = datetime.now(timezone.utc) - timedelta(hours=2)
    write_silence(state, Silence(since=past, until=past + timedelta(hours=1), reason="long ago"))
    assert 1 == len(run("30m", "--reason", "deploying").stdout.splitlines())


def test_a_reason_cannot_steer_a_terminal(run: Run, state: Path) -> None:
    run("30m", "--reason", "a\x1b[2J\nb")

    assert "a\\x1b[2J\\x0ab" == read_silence(state).reason


def test_a_state_directory_that_is_not_there_is_one_line(run: Run, state: Path) -> None:
    state.rmdir()
    result = run("30m", "--reason", "deploying")

    assert (1, "") == (result.exit_code, result.stdout)
    fix = "start the service first, or name its configuration with --config"
    assert f"sockmem-agent: {state}: no such directory; {fix}\n" == result.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_roots_silence_belongs_to_the_service_which_can_read_and_end_it(run: Run, state: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    shutil.chown(state, "nobody", nobody.pw_gid)
    assert 0 == run("30m", "--reason", "deploying").exit_code
    written = (state / "silence.json").stat()

    assert (nobody.pw_uid, nobody.pw_gid) == (written.st_uid, written.st_gid)
    assert 0o640 == stat.S_IMODE(written.st_mode)
    assert (0, 0) == (os.geteuid(), os.getegid())
    assert 0 == run("--end").exit_code


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_without_the_right_to_write_it_is_one_line_that_says_how(run: Run, state: Path) -> None:
    state.chmod(0o755)

    def ask() -> str:
        result = run("30m", "--reason", "deploying")
        return f"{result.exit_code} {result.stderr}"

    said = as_nobody(ask)

    assert said == f"1 sockmem-agent: {state}/silence.json: Permission denied; use sudo\n"


# --- what the service makes of it -----------------------------------------------------------------------------------


@pytest.fixture
def agent(state: Path) -> Iterator[AgentProcess]:
    (state.parent / "messages").touch()
    process = AgentProcess(state.parent, f'[source]\nkind = "file"\npaths = ["{state.parent}/messages"]\n')
    yield process
    if not process.ended():
        process.kill()


def status(agent: AgentProcess, *arguments: str) -> str:
    environ = {"STATE_DIRECTORY": str(agent.state)}
    return CliRunner().invoke(group, ["status", "--config", str(agent.config), *arguments], env=environ).stdout


def test_a_running_service_shows_it_at_once_and_when_it_is_over(agent: AgentProcess, run: Run) -> None:
    agent.start()
    run("30m", "--reason", "deploying")

    wait_for("the silence", lambda: "silenced" in status(agent, "--check"))
    assert "Silence   until " in status(agent)
    assert 1 == agent.said().count("silenced until ")
    run("--end")
    wait_for("its end", lambda: "silenced" not in status(agent, "--check"))
    assert "silenced no longer" in agent.said()


def test_what_is_still_open_at_the_end_is_sent_then_and_show_says_why_it_waits(agent: AgentProcess, run: Run) -> None:
    agent.start()
    run("30m", "--reason", "deploying")
    wait_for("the silence", lambda: "silenced" in status(agent, "--check"))
    with (agent.folder / "messages").open("a") as log:
        log.write(f"{datetime.now():%b %d %H:%M:%S} {platform.node()} kernel: TCP: too many orphaned sockets\n")  # noqa: DTZ005 - as syslog writes it
    wait_for("the incident", agent.events)
    environ = {"STATE_DIRECTORY": str(agent.state)}
    shown = CliRunner().invoke(group, ["incidents", "show", "last"], env=environ).stdout

    assert re.search(r"waiting since [0-9:]+: silenced until .*: deploying", shown)
    assert "details: " not in agent.said()
    run("--end")
    wait_for("the notification", lambda: "details: " in agent.said())


def test_a_damaged_file_silences_nothing_and_is_said(agent: AgentProcess) -> None:
    agent.start()
    (agent.state / "silence.json").write_text("{")

    wait_for("the trouble", lambda: "silence.json cannot be read" in status(agent))
    assert 1 == agent.said().count("nothing is silenced: ")
    assert not agent.ended()
