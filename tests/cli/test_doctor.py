import itertools
import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from harness import on_terminal, plain

from agent.cli import checks, doctor, group
from agent.cli.checks import Check
from agent.cli.checks_attribution import SHIPPED
from agent.cli.doctor import as_lines

Run = Callable[..., Result]

NAMES = [
    "configuration",
    "service user",
    "source",
    "log level",
    "state directory",
    "/proc",
    "sock_diag",
    "cgroup ids",
    "unit of orphans",
    "memory of groups",
    "processes",
    "other namespaces",
    "witness",
    "clock",
    "channel term",
]


@pytest.fixture
def run(tmp_path: Path, proc_root: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the doctor with this configuration, on a log of its own."""
    log = tmp_path / "messages"
    log.write_text("")
    path = tmp_path / "config.toml"
    # This machine's own limits and gauges are not the test's business.
    monkeypatch.setattr(checks, "check_proc", lambda: Check("/proc", "ok", "as the test wants it"))
    good = f'[source]\nkind = "file"\npaths = ["{log}"]\n[[notify]]\nname = "term"\ntype = "stdout"\n'

    def invoke(*args: str, config: str = good) -> Result:
        path.write_text(config)
        environ = {"STATE_DIRECTORY": str(tmp_path / "state")}
        return CliRunner().invoke(group, ["doctor", "--config", str(path), *args], env=environ)

    return invoke


def test_there_is_one_line_a_check_and_the_fix_on_it_or_below_it(run: Run) -> None:
    lines = run().stdout.splitlines()
    first = [line for line in lines if not line.startswith(" ")][: len(NAMES)]

    for name, line in zip(NAMES, first, strict=True):
        status, rest = line[:4].strip(), line[6:]
        assert status in {"ok", "warn", "fail"}
        assert rest.startswith(name)
        below = itertools.takewhile(lambda each: each.startswith(" "), lines[lines.index(line) + 1 :])
        assert status == "ok" or "; fix: " in line or any(each.startswith("      fix: ") for each in below)
    # A path in a fix stays in one piece, however long the directory of the tests is.
    assert [] == [line for line in lines if len(line) > 100 and len(line.removeprefix("      fix: ").split()) > 1]


def test_what_does_not_fit_into_the_line_stands_below_it_and_no_path_is_broken() -> None:
    path = "/srv/" + "x" * 120
    short = Check("clock", "warn", "it is late", "go home")
    long = Check(
        "state directory", "fail", "one two three " * 10, f"chown -hR nobody: {path}", drop_in=("[Service]", "A=b")
    )
    ok = Check("source", "ok", f"{path} can be read")

    first, second, third = as_lines([short, long, ok], 100)

    assert ["warn  clock            it is late; fix: go home"] == first
    assert second[0].startswith("fail  state directory  one two three one two")
    assert [True, True] == [len(second[0]) <= 100, second[1].startswith(" " * 23)]
    assert [
        "      fix: chown -hR nobody:",
        f"           {path}",
        "      with systemctl edit sockmem-agent, then systemctl restart sockmem-agent:",
        "          [Service]",
        "          A=b",
    ] == second[2:]
    assert all(len(line) <= 100 for line in third)
    assert f"{path} can be read" == "".join(line[23:] for line in third)


def test_a_terminal_of_80_columns_breaks_no_line_in_a_word() -> None:
    lines = plain(on_terminal([sys.executable, "-m", "agent", "doctor", "--config", "/dev/null"], 80))

    assert any(line.startswith("Service permissions read from ") for line in lines)
    assert [] == [line for line in lines if len(line) > 80 and " " in line.strip()]


def test_json_is_one_document_with_every_check(run: Run) -> None:
    document = json.loads(run("--json").stdout)

    assert NAMES == [check["name"] for check in document["checks"]]
    assert {"name", "status", "detail", "mend", "drop_in"} == set(document["checks"][0])


def test_the_lines_that_would_add_something_are_told_whole(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "read_rights", lambda: SHIPPED)
    shown, document = run().stdout, json.loads(run("--json").stdout)

    (processes,) = [check for check in document["checks"] if check["name"] == "processes"]
    added = "".join(f"          {line}\n" for line in processes["drop_in"])
    assert f"with systemctl edit sockmem-agent, then systemctl restart sockmem-agent:\n{added}" in shown
    assert {"capabilities": [], "enters_namespaces": False, "source": SHIPPED.source} == document["service"]
    assert SHIPPED.source in shown


def test_the_exit_status_is_1_with_a_fail_and_0_without(run: Run, tmp_path: Path) -> None:
    good, bad = run("--json"), run("--json", config='[source]\nkind = "file"\npaths = ["/does/not/exist"]\n')

    assert (0, True) == (good.exit_code, json.loads(good.stdout)["ok"])
    assert (1, False) == (bad.exit_code, json.loads(bad.stdout)["ok"])


def test_a_bad_configuration_fails_with_every_mistake_and_the_other_checks_go_on(run: Run) -> None:
    document = json.loads(run("--json", config="[incident]\nquiet_seconds = 0\nfoo = 1\n").stdout)

    failed = [check for check in document["checks"] if check["name"] == "configuration"]
    assert ["fail", "fail"] == [check["status"] for check in failed]
    assert "clock" in [check["name"] for check in document["checks"]]


def test_a_file_that_a_channel_cannot_use_fails_with_its_name(run: Run, tmp_path: Path) -> None:
    (tmp_path / "pem").write_text("-----BEGIN CERTIFICATE-----\nT0ken\n")
    table = '[[notify]]\nname = "ops"\ntype = "webhook"\nurl = "https://h.example/"\n'

    result = run("--json", config=f'{table}ca_file = "{tmp_path}/pem"\n')

    (check,) = [check for check in json.loads(result.stdout)["checks"] if check["name"] == "channel ops"]
    assert "fail" == check["status"]
    assert check["detail"].startswith(f"ca_file {tmp_path}/pem: ")
    assert "T0ken" not in result.output


def test_a_url_that_everybody_can_read_warns(run: Run, tmp_path: Path) -> None:
    config = '[[notify]]\nname = "ops"\ntype = "slack"\nurl = "https://hooks.slack.com/verysecret"\n'
    (tmp_path / "config.toml").touch(0o644)

    result = run("--json", config=config)

    first = json.loads(result.stdout)["checks"][0]
    assert ("configuration", "warn") == (first["name"], first["status"])
    assert first["mend"].startswith("chmod 0640 ")
    assert "verysecret" not in result.output

    (tmp_path / "config.toml").chmod(0o640)
    assert "ok" == json.loads(run("--json", config=config).stdout)["checks"][0]["status"]


def test_its_help_has_an_example() -> None:
    result = CliRunner().invoke(group, ["doctor", "--help"])

    assert "Example: sockmem-agent doctor" in result.stdout


def in_a_terminal(environ: dict[str, str]) -> bytes:
    """Run the doctor on a pseudo-terminal, and return what it would show."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "agent", "doctor"],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        env={key: value for key, value in os.environ.items() if key != "NO_COLOR"} | {"TERM": "xterm"} | environ,
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # The end of a pseudo-terminal is an error of its own.
            break
        if not part:
            break
        shown += part
    os.close(ours)
    process.wait(timeout=30)
    return shown


def test_a_terminal_gets_colour_unless_no_color_is_set() -> None:
    assert b"\x1b[32mok" in in_a_terminal({})
    assert b"\x1b[3" not in in_a_terminal({"NO_COLOR": "1"})


def test_a_pipe_gets_no_colour_even_when_forced() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "agent", "doctor", "--config", "/dev/null"],
        capture_output=True,
        check=False,
        env=os.environ | {"FORCE_COLOR": "1"},
        stdin=subprocess.DEVNULL,
    )

    assert done.stdout.startswith(b"ok")
    assert b"\x1b" not in done.stdout
