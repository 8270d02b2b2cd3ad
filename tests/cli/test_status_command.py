"""``sockmem-agent status``, asked by people and by a monitoring plugin's own runner."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from harness import AgentProcess, as_nobody, just_now, on_terminal, wait_for

from agent.cli import group
from agent.core.status import STATUS

NEGATE = Path("/usr/lib/nagios/plugins/negate")
LINE = "Nov 22 15:05:39 web1 kernel: [  123.000001] TCP: too many orphaned sockets\n"
Ask = Callable[..., Result]


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[AgentProcess]:
    (tmp_path / "messages").touch()
    (tmp_path / "run").mkdir(0o755)
    config = f"""[source]\nkind = "file"\npaths = ["{tmp_path}/messages"]\n[store]\ndirectory = "{tmp_path}/state"
[incident]\npressure = false\n[[notify]]\nname = "ops"\ntype = "webhook"\nurl = "http://127.0.0.1:9/T0ken"\n"""
    process = AgentProcess(tmp_path, config)
    process.environ["RUNTIME_DIRECTORY"] = str(tmp_path / "run")
    umask = os.umask(0o027)
    yield process
    os.umask(umask)
    if not process.ended():
        process.kill()


@pytest.fixture
def ask(tmp_path: Path) -> Ask:
    """Ask as a check runner does, which knows /run/sockmem-agent alone."""

    def invoke(*arguments: str) -> Result:
        environ = {"RUNTIME_DIRECTORY": str(tmp_path / "run"), "STATE_DIRECTORY": str(tmp_path / "state")}
        return CliRunner().invoke(group, ["status", *arguments], env=environ)

    return invoke


def open_incident(agent: AgentProcess, ask: Ask) -> None:
    with (agent.folder / "messages").open("a") as log:
        log.write(just_now(LINE))
    wait_for("the open incident", lambda: "CRITICAL" in ask("--check").stdout)
    wait_for("why it waits", lambda: "refused" in ask().stdout)


def test_the_service_is_ok_then_critical_then_gone(agent: AgentProcess, ask: Ask) -> None:
    agent.start()
    wait_for("the status", (agent.folder / "run/status.json").exists)

    assert (0, "OK: no open incident\n") == (ask("--check").exit_code, ask("--check").stdout)
    open_incident(agent, ask)
    assert (1, 2) == (ask("--check").exit_code, ask("--check", "--nagios").exit_code)
    assert 0 == agent.stop()
    stopped = ask("--check", "--nagios")
    assert 3 == stopped.exit_code
    assert stopped.stdout.startswith("UNKNOWN: not running: stopped ")


def test_a_killed_service_is_not_taken_for_a_running_one(agent: AgentProcess, ask: Ask) -> None:
    agent.start()
    wait_for("the status", (agent.folder / "run/status.json").exists)
    agent.kill()

    assert (3, "UNKNOWN: not running: ended unexpectedly after") == (
        ask("--check").exit_code,
        ask("--check").stdout[:46],
    )
    assert "not running: ended unexpectedly after" in ask().stdout
    assert 0 == ask().exit_code


def test_people_read_what_is_followed_what_is_open_and_what_waits_and_why(agent: AgentProcess, ask: Ask) -> None:
    agent.start()
    open_incident(agent, ask)
    lines = ask().stdout.splitlines()

    assert lines[0].startswith("running since ")
    assert f"Follows   {agent.folder}/messages" in lines
    assert any(line.startswith("Open      20") and "orphans (" in line for line in lines)
    assert any(line.startswith("Channel   ops (webhook): 1 waiting since ") for line in lines)


def test_any_user_may_read_it_and_no_secret_is_in_it(agent: AgentProcess, ask: Ask) -> None:
    agent.start()
    open_incident(agent, ask)
    path = agent.folder / "run/status.json"

    assert 0o644 == path.stat().st_mode & 0o777
    assert "T0ken" not in path.read_text()
    if os.geteuid() == 0:
        for folder in (agent.folder, *agent.folder.parents[:2]):
            folder.chmod(folder.stat().st_mode | 0o011)
        assert path.read_text() == as_nobody(path.read_text)


def test_it_is_not_written_while_nothing_changes(agent: AgentProcess) -> None:
    agent.start()
    path = agent.folder / "run/status.json"
    wait_for("the status", path.exists)
    first = path.stat().st_ino, path.read_bytes()
    wait_for("three turns", lambda: (agent.state / "history").exists() and turns(agent) > 3)

    assert first == (path.stat().st_ino, path.read_bytes())


def turns(agent: AgentProcess) -> int:
    """Count the main thread's voluntary waits, one a turn."""
    status = Path(f"/proc/{agent.pid}/status").read_text()
    return int(status.split("\nvoluntary_ctxt_switches:")[1].split()[0])


def test_where_it_cannot_be_written_the_service_goes_on_and_says_so_once(agent: AgentProcess, ask: Ask) -> None:
    shutil.rmtree(agent.folder / "run")
    agent.start()
    with (agent.folder / "messages").open("a") as log:
        log.write(just_now(LINE))
    wait_for("the incident", agent.events)
    wait_for("the second failure", lambda: "HTTP" in agent.said() or "refused" in agent.said())
    assert 0 == agent.stop()

    assert 1 == agent.said().count("status.json cannot be written; still watching")
    assert ask("--check").stdout.startswith(f"UNKNOWN: not running: no status.json in {agent.folder}"[:77])
    assert ask().stdout.endswith("; to start it: systemctl start sockmem-agent\n")


def test_without_a_runtime_directory_it_is_in_the_state_directory(
    agent: AgentProcess, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("agent.cli.status.SYSTEM_RUNTIME", tmp_path / "none")
    del agent.environ["RUNTIME_DIRECTORY"]
    agent.start()
    wait_for("the status", (agent.state / "status.json").exists)

    asked = CliRunner().invoke(group, ["status", "--check", "--config", str(agent.config)])
    assert (0, "OK: no open incident\n") == (asked.exit_code, asked.stdout)


def test_a_named_configuration_is_not_answered_by_another_service(
    agent: AgentProcess, ask: Ask, tmp_path: Path
) -> None:
    agent.start()
    wait_for("the status", (agent.folder / "run/status.json").exists)
    other = tmp_path / "other.toml"
    other.write_text(f'[store]\ndirectory = "{tmp_path}/elsewhere"\n')
    environ = {"RUNTIME_DIRECTORY": str(tmp_path / "run"), "STATE_DIRECTORY": None}

    asked = [
        CliRunner().invoke(group, ["status", "--check", "--config", str(config)], env=environ).exit_code
        for config in (agent.config, other)
    ]

    assert [0, 3] == asked


@pytest.mark.parametrize("damage", [b"", b"{", b"null", b"\xff" * 200, b'{"schema": "sockmem-agent/status/1"}'])
def test_a_damaged_file_is_unknown_in_one_line(tmp_path: Path, ask: Ask, damage: bytes) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/status.json").write_bytes(damage)
    asked = ask("--check", "--nagios")

    assert (3, 1) == (asked.exit_code, len(asked.stdout.splitlines()))
    assert asked.stdout.startswith("UNKNOWN: ")
    said = ask().stdout
    assert "status.json: cannot be read" in said
    assert said.endswith("; a running service writes it anew within 30 s\n")


def test_what_is_no_file_is_unknown_and_not_waited_for(tmp_path: Path, ask: Ask) -> None:
    (tmp_path / "run").mkdir()
    os.mkfifo(tmp_path / "run/status.json")

    assert 3 == ask("--check").exit_code


@pytest.mark.parametrize(
    "arguments",
    [
        ["status", "--nagios", "--bogus"],
        ["status", "--nagios=1"],
        ["status", "--check", "--nagios", "surplus"],
        ["status", "--nagios", "--config"],
        ["status", "--nagios", "--log-level", "loud"],
        ["--log-level", "loud", "status", "--nagios"],
        ["--bogus", "status", "--nagios"],
        ["statsu", "--nagios"],
        ["status", "--check", "--bogus"],
        ["--log-level", "loud", "status", "--check"],
    ],
)
def test_every_usage_error_is_unknown_to_what_monitors(arguments: list[str]) -> None:
    assert 3 == CliRunner().invoke(group, arguments).exit_code
    assert 2 == CliRunner().invoke(group, ["status", "--bogus"]).exit_code
    assert 2 == CliRunner().invoke(group, ["diagnose", "--check"]).exit_code


def test_mistakes_in_the_configuration_are_one_line(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text("[store]\none = 1\ntwo = 2\n")
    (line,) = CliRunner().invoke(group, ["status", "--config", str(config)]).stdout.splitlines()

    assert "key `one` is unknown" in line
    assert f"; {config}: [store]: key `two` is unknown" in line


@pytest.mark.parametrize("text", ["[store]\nnonsense = 1\n", "[store", None])
def test_a_bad_configuration_is_unknown_to_nagios(tmp_path: Path, text: str | None) -> None:
    config = tmp_path / "config.toml"
    if text:
        config.write_text(text)
    asked = CliRunner().invoke(group, ["status", "--check", "--nagios", "--config", str(config)])

    assert 3 == asked.exit_code
    assert asked.stdout.startswith("UNKNOWN: ")


def test_json_is_one_document_with_the_verdict(agent: AgentProcess, ask: Ask) -> None:
    nothing = json.loads(ask("--json").stdout)
    agent.start()
    wait_for("the status", (agent.folder / "run/status.json").exists)
    document = json.loads(ask("--json").stdout)

    assert (False, None) == (nothing["running"], nothing["status"])
    assert (True, None, agent.pid) == (document["running"], document["why"], document["status"]["pid"])
    assert "webhook" == STATUS.decode(json.dumps(document["status"])).channels[0].type


def test_it_fits_a_terminal_of_80_columns(agent: AgentProcess, ask: Ask) -> None:
    agent.start()
    open_incident(agent, ask)
    program = [sys.executable, "-m", "agent", "status"]
    shown = on_terminal(program, 80, RUNTIME_DIRECTORY=str(agent.folder / "run"), NO_COLOR="1")
    folder = str(agent.folder)

    assert [] == [line for line in shown.splitlines() if len(line) > 80 and folder not in line]


@pytest.mark.skipif(not NEGATE.exists(), reason="monitoring-plugins-common is not installed")
def test_the_monitoring_plugins_read_line_and_exit_status(agent: AgentProcess, ask: Ask) -> None:
    def judged() -> tuple[int, str]:
        """Turn ok into warning, critical into ok, and replace the words, as Debian's negate does."""
        command = [sys.executable, "-m", "agent", "status", "--check", "--nagios"]
        done = subprocess.run(
            [NEGATE, "--substitute", "--ok=WARNING", "--critical=OK", "--unknown=CRITICAL", "/usr/bin/env", *command],
            env={**os.environ, "RUNTIME_DIRECTORY": str(agent.folder / "run")},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout.partition(":")[0]

    agent.start()
    wait_for("the status", (agent.folder / "run/status.json").exists)

    assert (1, "WARNING") == judged()
    open_incident(agent, ask)
    assert (0, "OK") == judged()
    assert 0 == agent.stop()
    assert (2, "CRITICAL") == judged()
