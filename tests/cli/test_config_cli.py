import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec.toml
import pytest
from click.testing import CliRunner, Result

from agent.cli import config as config_command
from agent.cli import group
from agent.config import load as config
from agent.config.load import load

Run = Callable[..., Result]

SECRET_URL = "https://hooks.slack.com/services/T0/B0/verysecret"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(f'[incident]\nquiet_seconds = 60\n[[notify]]\nname = "ops"\ntype = "slack"\nurl = "{SECRET_URL}"\n')
    return path


@pytest.fixture
def run() -> Run:
    def invoke(*args: str, **environ: str | None) -> Result:
        clean = {"STATE_DIRECTORY": None, "CREDENTIALS_DIRECTORY": None} | environ
        return CliRunner().invoke(group, ["config", *args], env=clean)

    return invoke


def test_check_says_ok_for_a_good_file(run: Run, file: Path) -> None:
    for args in ([str(file)], ["--config", str(file)]):
        result = run("check", *args)

        assert (result.exit_code, result.stdout, result.stderr) == (0, f"{file}: ok\n", "")


def test_check_without_any_file_says_that_the_defaults_apply(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = tmp_path / "none.toml"
    monkeypatch.setattr(config, "DEFAULT_PATH", missing)
    monkeypatch.setattr(config_command, "DEFAULT_PATH", missing)

    result = run("check")

    assert 0 == result.exit_code
    assert f"{missing}: does not exist, the built-in defaults apply: ok\n" == result.stdout


def test_check_of_a_named_file_that_is_not_there_is_78(run: Run, tmp_path: Path) -> None:
    result = run("check", str(tmp_path / "none.toml"))

    assert (result.exit_code, result.stderr) == (78, f"{tmp_path}/none.toml: no such file\n")


def test_check_of_a_directory_is_one_line(run: Run, tmp_path: Path) -> None:
    result = run("check", str(tmp_path))

    assert (result.exit_code, result.stderr) == (78, f"{tmp_path}: cannot be read: Is a directory\n")


def test_check_says_every_mistake_on_standard_error(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text('[source]\nkind = "fil"\n[incident]\nquiet_secnds = 3\n')

    result = run("check", str(path))

    assert (78, "") == (result.exit_code, result.stdout)
    assert [True, True] == [line.startswith(f"{path}: [") for line in result.stderr.splitlines()]


def test_check_names_every_file_that_a_channel_cannot_use_and_quotes_none(run: Run, tmp_path: Path) -> None:
    pem = tmp_path / "pem"
    pem.write_text("-----BEGIN CERTIFICATE-----\nT0ken\n-----BEGIN PRIVATE KEY-----\n")
    table = '[[notify]]\nname = "{0}"\ntype = "webhook"\nurl = "https://h.example/"\n{1} = "{2}"\n'
    path = tmp_path / "config.toml"
    path.write_text(table.format("a", "ca_file", pem) + table.format("b", "cert_file", pem))

    result = run("check", str(path))

    lines = result.stderr.splitlines()
    assert (78, "") == (result.exit_code, result.stdout)
    assert [True] * 2 == [
        line.startswith(f"{path}: channel {name}: {key} {pem}: ")
        for line, name, key in zip(lines, "ab", ("ca_file", "cert_file"), strict=True)
    ]
    assert "T0ken" not in result.output


def test_show_is_toml_of_what_is_in_effect(run: Run, file: Path) -> None:
    result = run("show", "--config", str(file), STATE_DIRECTORY="/srv/a:/srv/b")

    shown = msgspec.toml.decode(result.stdout)
    assert result.stdout.startswith(f"# {file}\n")
    assert {"quiet_seconds": 60, "pressure": True, "claimed": "notify"} == shown["incident"]
    assert "/srv/a" == shown["store"]["directory"]
    assert ["/var/log/messages"] == shown["source"]["paths"]
    assert "https://hooks.slack.com/…" == shown["notify"][0]["url"]


def test_show_json_is_one_document_with_the_same_content(run: Run, file: Path) -> None:
    as_toml = msgspec.toml.decode(run("show", "--config", str(file)).stdout)
    result = run("show", "--config", str(file), "--json")

    assert json.loads(result.stdout) == as_toml
    assert "" == result.stderr


def test_show_names_the_channel_that_is_there_when_none_is_configured(run: Run, tmp_path: Path) -> None:
    empty = tmp_path / "empty.toml"
    empty.write_text("")

    shown = json.loads(run("show", "--config", str(empty), "--json").stdout)

    assert [("stdout", "stdout")] == [(channel["name"], channel["type"]) for channel in shown["notify"]]


def test_nothing_of_a_secret_is_shown(run: Run, file: Path, tmp_path: Path) -> None:
    (tmp_path / "url").write_text(SECRET_URL)
    file.write_text('[[notify]]\nname = "ops"\ntype = "slack"\nurl_file = "$CREDENTIALS_DIRECTORY/url"\n')

    for args in (["show"], ["show", "--json"]):
        result = run(*args, "--config", str(file), CREDENTIALS_DIRECTORY=str(tmp_path))

        assert 0 == result.exit_code
        assert "verysecret" not in result.output


def test_show_of_a_bad_file_is_78(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text("[incident]\nquiet_seconds = 0\n")

    result = run("show", "--config", str(path), "--json")

    assert (78, "") == (result.exit_code, result.stdout)
    assert (
        result.stderr == f"{path}: [incident]: key `quiet_seconds` must be a whole number, 1 to 86400 seconds, not 0\n"
    )


def test_a_real_process_shows_its_defaults_as_a_file_that_is_valid(tmp_path: Path) -> None:
    environ = {key: value for key, value in os.environ.items() if key != "STATE_DIRECTORY"} | {"FORCE_COLOR": "1"}
    empty = tmp_path / "empty.toml"
    empty.write_text("")
    done = subprocess.run(
        [sys.executable, "-m", "agent", "config", "show", "--config", str(empty)],
        capture_output=True,
        check=True,
        text=True,
        env=environ,
        stdin=subprocess.DEVNULL,
    )
    copied = tmp_path / "copied.toml"
    copied.write_text(done.stdout)

    assert "\x1b" not in done.stdout
    assert load(empty, {}).source == load(copied, {}).source


@pytest.mark.parametrize("args", [[], ["check"], ["show"]])
def test_every_help_of_config_has_an_example(run: Run, args: list[str]) -> None:
    result = run(*args, "--help")

    assert 0 == result.exit_code
    assert "Example: sockmem-agent config" in result.stdout


def test_too_many_arguments_are_a_usage_error(run: Run) -> None:
    for args in (["a", "b"], ["a", "--config", "b"]):
        result = run("check", *args)

        assert 2 == result.exit_code
        assert "Traceback" not in result.output
