"""Standard streams that are closed, full, no longer read, or lack a character: one line at most, and no traceback."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from harness import AgentProcess, just_now, wait_for, write_proc

LINE = "Nov 22 15:05:39 web1 kernel: [  123.000001] TCP: too many orphaned sockets\n"
FOREIGN = "Nov 22 15:05:39 хост kernel: TCP: too many orphaned sockets"
COMMANDS = (
    ("--version",),
    ("--help",),
    ("diagnose", "--proc-root", "PROC"),
    ("diagnose", "--proc-root", "PROC", "--json"),
    ("scan", "LOG"),
    ("scan", "LOG", "--json"),
    ("incidents", "list"),
    ("config", "show"),
    ("config", "check"),
    ("doctor",),
)


@pytest.fixture
def shell(tmp_path: Path):
    """Run a command through a shell that redirects its streams."""
    write_proc(tmp_path / "proc")
    (tmp_path / "messages").write_text(LINE)

    def run(words: tuple[str, ...], redirection: str, state: Path | None = None) -> subprocess.CompletedProcess[str]:
        files = {"PROC": "proc", "LOG": "messages", "FOREIGN": "foreign", "CONFIG": "config.toml"}
        names = {word: str(tmp_path / name) for word, name in files.items()}
        command = [sys.executable, "-m", "agent", *(names.get(word, word) for word in words)]
        return subprocess.run(
            ["sh", "-c", f'"$@" {redirection}', "sh", *command],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=60,
            env={**os.environ, "STATE_DIRECTORY": str(state or tmp_path / "state")},
        )

    return run


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("where", [">&-", ">/dev/full"])
def test_an_output_that_cannot_be_written_is_one_line(shell, words, where):
    result = shell(words, where)

    assert 1 == result.returncode
    assert "Traceback" not in result.stderr
    assert result.stderr.splitlines()[-1].startswith("sockmem-agent: standard output: ")


@pytest.mark.parametrize("words", [("status", "--check"), ("status", "--nagios")], ids=" ".join)
def test_an_output_that_cannot_be_written_is_unknown_to_what_monitors(shell, words):
    result = shell(words, ">/dev/full")

    assert 3 == result.returncode
    assert "Traceback" not in result.stderr
    assert result.stderr.splitlines()[-1].startswith("sockmem-agent: standard output: ")


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("where", ["2>&-", "<&-", "<&- 2>&-"])
def test_a_closed_input_or_error_stream_changes_nothing(shell, words, where):
    result, usual = shell(words, where), shell(words, "</dev/null")

    assert usual.returncode == result.returncode
    assert len(usual.stdout.splitlines()) == len(result.stdout.splitlines())
    assert "Traceback" not in result.stderr


C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
LOCALES = [{"PYTHONIOENCODING": "latin-1"}, {"PYTHONIOENCODING": "ascii"}, C_LOCALE]


def into(locale, monkeypatch):
    for name, value in locale.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("locale", LOCALES)
@pytest.mark.parametrize(
    "words",
    [
        ("config", "show", "--config", "CONFIG"),
        ("doctor", "--config", "CONFIG"),
        ("diagnose", "--proc-root", "PROC", "--message", FOREIGN),
        ("scan", "--explain", "FOREIGN"),
        ("silence", "1m", "--reason", "деплой"),
    ],
    ids=" ".join,
)
def test_a_character_that_the_terminal_lacks_is_shown_by_its_number(shell, monkeypatch, tmp_path, words, locale):
    into(locale, monkeypatch)
    (tmp_path / "state").mkdir()
    (tmp_path / "foreign").write_text(FOREIGN)
    (tmp_path / "config.toml").write_text('[[notify]]\nname = "ops"\ntype = "slack"\nurl = "http://127.0.0.1/деплой"\n')

    result = shell(words, "")

    assert "Traceback" not in result.stderr
    assert len(result.stdout) > 20


@pytest.mark.parametrize("locale", LOCALES)
@pytest.mark.parametrize("name", ["лог".encode(), b"l\xf6g"])
def test_json_is_utf_8_in_every_locale_and_whatever_a_file_is_called(shell, monkeypatch, tmp_path, name, locale):
    into(locale, monkeypatch)
    place = tmp_path / os.fsdecode(name)
    place.mkdir()
    (place / "log").write_text(LINE)

    for words in (("doctor", "--json"), ("scan", str(place / "log"), "--json")):
        result = shell(words, "", place)
        assert "" == result.stderr
        assert f"/{name.decode(errors='replace')}" in str(json.loads(result.stdout))


def test_a_file_name_that_the_locale_lacks_is_one_line(shell, monkeypatch, tmp_path):
    into(C_LOCALE, monkeypatch)
    (tmp_path / "config.toml").write_text('[[notify]]\nname = "ops"\ntype = "slack"\nurl_file = "/etc/деплой"\n')

    for words in (("config", "check", "CONFIG"), ("doctor", "--config", "CONFIG")):
        result = shell(words, "")
        what = "'/etc/\\u0434\\u0435\\u043f\\u043b\\u043e\\u0439' cannot be encoded in this locale (ascii)"
        assert (1, f"sockmem-agent: {what}; set LC_ALL=C.UTF-8, or use another name\n") == (
            result.returncode,
            result.stderr,
        )


def test_with_all_streams_closed_a_command_only_fails(shell):
    assert 1 == shell(("diagnose", "--proc-root", "PROC"), "<&- >&- 2>&-").returncode


def test_a_closed_input_cannot_be_scanned(shell):
    result = shell(("scan", "-"), "<&-")

    assert 66 == result.returncode
    assert "Traceback" not in result.stderr


def test_a_pipe_that_nobody_reads_any_more_is_silent(shell):
    result = shell(("incidents", "--help"), "| true")

    assert "" == result.stderr


def test_what_the_service_prints_lands_in_no_file_of_its_own(tmp_path):
    log = tmp_path / "messages"
    log.write_text("")
    agent = AgentProcess(tmp_path, f'[source]\nkind = "file"\npaths = ["{log}"]\n')
    environ = {**os.environ, "STATE_DIRECTORY": str(agent.state)}
    command = [sys.executable, "-m", "agent", "run", "--config", str(agent.config)]
    with (tmp_path / "agent.log").open("ab") as said:
        process = subprocess.Popen(["sh", "-c", 'exec "$@" <&- >&-', "sh", *command], stderr=said, env=environ)
    try:
        wait_for("the agent to follow", lambda: "following " in agent.said())
        with log.open("a") as file:
            file.write(just_now(LINE))
        wait_for("the trouble to be told", lambda: "standard output" in agent.said())
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)

    assert "Traceback" not in agent.said()
    # summary.txt says the same, in a place of its own.
    files = [path for path in agent.state.rglob("*") if path.is_file() and path.name != "summary.txt"]
    assert [] == [path for path in files if b"web1 " in path.read_bytes()[:100]]
    assert [agent.store.resolve("last")] == [each.id for each in agent.store.read_each({})]
    assert {} == agent.store.notices(agent.store.resolve("last"))[0][2]
