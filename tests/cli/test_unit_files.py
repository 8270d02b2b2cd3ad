"""The unit and its drop-ins as files, and what `config check` says of a configuration that they do not fit."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from agent.cli import credentials, group, unit
from agent.cli.unit import read_unit

SHIPPED = Path(__file__).parents[2] / "systemd/sockmem-agent.service"
URL = "https://hooks.slack.com/services/T0/B0/verysecret"
OVERRIDE = "etc/systemd/system/sockmem-agent.service.d/override.conf"
CONFIG = '[[notify]]\nname = "team"\ntype = "slack"\nurl_file = "${CREDENTIALS_DIRECTORY}/slack-url"\n'

Write = Callable[[str, str], Path]
Check = Callable[..., Result]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write files of a host on which the service is installed."""
    monkeypatch.setattr(unit, "ROOT", tmp_path)

    def put(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    put("usr/lib/systemd/system/sockmem-agent.service", SHIPPED.read_text())
    return put


@pytest.fixture
def check(write: Write) -> Check:
    def invoke(config: str = CONFIG, *, command: tuple[str, ...] = ("check",)) -> Result:
        arguments = ["config", *command, "--config", str(write("config.toml", config))]
        return CliRunner().invoke(group, arguments, env={"CREDENTIALS_DIRECTORY": None, "STATE_DIRECTORY": None})

    return invoke


def values(key: str) -> list[str]:
    service = read_unit()
    assert service is not None
    return [setting.value for setting in service.all(key)]


# --- reading a unit ---------------------------------------------------------------------------------------------------


def test_a_host_without_the_service_has_no_unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unit, "ROOT", tmp_path)
    assert read_unit() is None


def test_a_masked_unit_is_none(write: Write, tmp_path: Path) -> None:
    (tmp_path / "etc/systemd/system").mkdir(parents=True)
    (tmp_path / "etc/systemd/system/sockmem-agent.service").symlink_to("/dev/null")

    assert read_unit() is None


def test_the_administrators_unit_and_drop_ins_overrule_those_of_the_package(write: Write) -> None:
    assert ["64"] == values("TasksMax")
    write("usr/lib/systemd/system/sockmem-agent.service.d/50-a.conf", "[Service]\nTasksMax=1\n")
    write("usr/lib/systemd/system/sockmem-agent.service.d/60-b.conf", "[Service]\nTasksMax=2\n")
    write("etc/systemd/system/sockmem-agent.service.d/50-a.conf", "[Service]\nTasksMax=3\n")
    write("etc/systemd/system/service.d/55-all.conf", "[Service]\nTasksMax=4\n")
    assert ["64", "3", "4", "2"] == values("TasksMax")

    write("etc/systemd/system/sockmem-agent.service", "[Service]\nTasksMax=7\n")
    assert ["7", "3", "4", "2"] == values("TasksMax")


def test_a_drop_in_that_is_masked_says_nothing(write: Write, tmp_path: Path) -> None:
    write("usr/lib/systemd/system/sockmem-agent.service.d/50-a.conf", "[Service]\nTasksMax=1\n")
    (tmp_path / "etc/systemd/system/sockmem-agent.service.d").mkdir(parents=True)
    (tmp_path / "etc/systemd/system/sockmem-agent.service.d/50-a.conf").symlink_to("/dev/null")

    assert ["64"] == values("TasksMax")


def test_an_empty_assignment_takes_back_those_before_it(write: Write) -> None:
    write(OVERRIDE, "[Service]\nLoadCredential=a:/a\nLoadCredential=\nLoadCredential=b:/b\n")

    assert ["b:/b"] == values("LoadCredential")


def test_comments_continued_lines_and_other_sections_are_read_as_systemd_reads_them(write: Write) -> None:
    write(OVERRIDE, "[Unit]\nTasksMax=1\n[Service]\n# TasksMax=2\n;TasksMax=3\nTasksMax = \\\n# between\n   5\n")

    assert ["64", "5"] == values("TasksMax")


# --- credentials ------------------------------------------------------------------------------------------------------


def test_a_configuration_without_credentials_is_checked_as_ever(check: Check) -> None:
    assert (0, "") == ((result := check("")).exit_code, result.stderr)


def test_a_credential_that_the_unit_lacks_is_told_with_the_lines_to_add(check: Check, tmp_path: Path) -> None:
    result = check()

    assert (78, "") == (result.exit_code, result.stdout)
    first, *lines = result.stderr.splitlines()
    assert (
        f"{tmp_path}/config.toml: [[notify]] #1 (team): key `url_file`: the unit has no credential slack-url" in first
    )
    assert f"({tmp_path}/usr/lib/systemd/system/sockmem-agent.service); systemctl edit sockmem-agent.service" in first
    assert ["    [Service]", "    LoadCredential=slack-url:/etc/sockmem-agent/slack-url"] == lines


def test_the_drop_in_that_lacks_it_is_named(check: Check, write: Write) -> None:
    override = write(OVERRIDE, "[Service]\nLoadCredential=other-url:/etc/hostname\n")

    assert f", {override}); systemctl edit" in check().stderr


def test_a_drop_in_is_enough_before_the_restart(check: Check, write: Write) -> None:
    url = write("etc/sockmem-agent/slack-url", f"{URL}\n")
    write(OVERRIDE, f"[Service]\nLoadCredential=slack-url:{url}\n")
    # The set that the running service got before does not have it.
    write("run/credentials/sockmem-agent.service/old-url", URL)

    result = check()

    assert (0, "") == (result.exit_code, result.stderr)


def test_a_source_that_is_not_there_is_told_with_its_drop_in(check: Check, write: Write, tmp_path: Path) -> None:
    override = write(OVERRIDE, f"[Service]\nLoadCredential=slack-url:{tmp_path}/none\n")

    result = check()

    assert 78 == result.exit_code
    assert f"{tmp_path}/none` cannot be read: No such file or directory" in result.stderr
    assert f"(LoadCredential=slack-url in {override})" in result.stderr
    assert 1 == len(result.stderr.splitlines())


def test_a_source_of_a_credential_that_nothing_uses_keeps_the_service_from_starting_too(
    check: Check, write: Write, tmp_path: Path
) -> None:
    override = write(OVERRIDE, f"[Service]\nLoadCredential=old-url:{tmp_path}/none\n")

    result = check("")

    assert (78, 1) == (result.exit_code, len(result.stderr.splitlines()))
    assert f"LoadCredential=old-url in {override}: {tmp_path}/none does not exist" in result.stderr


def test_what_a_credential_holds_is_checked_and_never_quoted(check: Check, write: Write) -> None:
    url = write("etc/sockmem-agent/slack-url", "verysecret without a scheme\n")
    write(OVERRIDE, f"[Service]\nLoadCredential=slack-url:{url}\n")

    result = check()

    assert 78 == result.exit_code
    assert "key `url_file`: its file must hold http" in result.stderr
    assert "verysecret" not in result.output


def test_a_source_that_is_no_file_holds_nothing_up(check: Check, write: Write, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    write("run/credentials/sockmem-agent.service/slack-url", URL)
    write(OVERRIDE, f"[Service]\nLoadCredential=slack-url:{tmp_path}/fifo\n")

    assert 0 == check().exit_code


@pytest.mark.parametrize(
    ("setting", "file"),
    [
        (f"SetCredential=slack-url:{URL}", None),
        ("LoadCredential=slack-url", "etc/credstore/slack-url"),
        ("LoadCredential=slack-url:named-otherwise", "run/credentials/@system/named-otherwise"),
        ("ImportCredential=slack-*", "etc/credstore/slack-url"),
        ("LoadCredential=slack:{root}/etc/keys", "etc/keys/url"),
    ],
)
def test_every_way_to_pass_a_credential_is_known(
    check: Check, write: Write, tmp_path: Path, setting: str, file: str | None
) -> None:
    if file:
        write(file, URL)
    write(OVERRIDE, f"[Service]\n{setting.format(root=tmp_path)}\n")
    config = CONFIG.replace("/slack-url", "/slack_url") if "keys" in setting else CONFIG

    result = check(config)

    assert (0, "") == (result.exit_code, result.stderr)


def test_an_encrypted_credential_is_decrypted_by_systemd_creds(check: Check, write: Write, tmp_path: Path) -> None:
    if shutil.which("systemd-creds") is None:
        pytest.skip("systemd-creds is not installed")
    command = ["systemd-creds", "encrypt", "--with-key=tpm2-absent", "--name=slack-url", "-", tmp_path / "url.cred"]
    if subprocess.run(command, input=URL.encode(), capture_output=True, check=False).returncode:
        pytest.skip("systemd-creds cannot encrypt without a key here")
    override = write(OVERRIDE, f"[Service]\nLoadCredentialEncrypted=slack-url:{tmp_path}/url.cred\n")
    assert (0, "") == ((result := check()).exit_code, result.stderr)

    write("url.cred", "broken")
    result = check()
    assert 78 == result.exit_code
    assert f"LoadCredentialEncrypted=slack-url in {override} cannot be decrypted" in result.stderr


def test_what_is_shown_has_the_variable_and_not_the_place_of_the_check(check: Check, write: Write) -> None:
    write(OVERRIDE, f"[Service]\nSetCredential=slack-url:{URL}\n")

    result = check(command=("show",))

    assert 'url_file = "${CREDENTIALS_DIRECTORY}/slack-url"' in result.stdout
    assert "verysecret" not in result.output


def test_nothing_of_a_credential_is_written_to_a_disk(write: Write) -> None:
    url = write("etc/sockmem-agent/slack-url", URL)
    write(OVERRIDE, f"[Service]\nLoadCredential=slack-url:{url}\n")
    credentials.NextStart().load(write("config.toml", CONFIG))

    (provided,) = Path(credentials._kept[-1].name).iterdir()
    assert provided.is_symlink()
    assert provided.resolve().as_posix().startswith("/memfd:")


def test_an_environment_with_credentials_of_its_own_is_taken_as_it_is(write: Write, tmp_path: Path) -> None:
    write("mine/slack-url", URL)
    arguments = ["config", "check", str(write("config.toml", CONFIG))]

    assert 0 == CliRunner().invoke(group, arguments, env={"CREDENTIALS_DIRECTORY": f"{tmp_path}/mine"}).exit_code


# --- threads, and the state directory ---------------------------------------------------------------------------------


def stdout_channels(number: int) -> str:
    return "".join(f'[[notify]]\nname = "c{index}"\ntype = "stdout"\n' for index in range(number))


def test_more_channels_than_the_unit_has_threads_for_are_told_with_the_line_to_add(check: Check, write: Write) -> None:
    source = '[source]\nkind = "file"\n'
    assert 0 == check(source + stdout_channels(29)).exit_code

    result = check(source + stdout_channels(30))
    first, *lines = result.stderr.splitlines()
    assert 78 == result.exit_code
    assert first.startswith("30 channels need up to 66 threads, and ")
    assert "sockmem-agent.service allows TasksMax=64" in first
    assert ["    [Service]", "    TasksMax=128"] == lines

    write(OVERRIDE, "[Service]\nTasksMax=128\n")
    assert 0 == check(source + stdout_channels(30)).exit_code


@pytest.mark.parametrize("value", ["infinity", "10%", ""])
def test_a_limit_that_is_no_number_is_not_judged(check: Check, write: Write, value: str) -> None:
    write(OVERRIDE, f"[Service]\nTasksMax={value}\n")

    assert 0 == check(stdout_channels(100)).exit_code


def test_a_state_directory_that_the_unit_overrules_is_said(check: Check) -> None:
    result = check('[store]\ndirectory = "/srv/other"\n')

    assert 0 == result.exit_code
    assert "[store] directory has no effect on the service" in result.stderr
