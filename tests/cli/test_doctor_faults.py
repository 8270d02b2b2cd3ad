"""The doctor on hosts where something is really wrong: what it names, and whether the fix that it gives is one."""

import importlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner
from harness import as_nobody

from agent.cli import checks, doctor, group, unit
from agent.cli import config as config_command
from agent.config import load as config
from agent.core.model import Silence
from agent.store import write_silence

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can leave another user's files behind")

USER = "nobody"
INCIDENT = "incidents/20261122T150539Z-7f3a"
UNIT = f"[Service]\nUser={USER}\nStateDirectory=sockmem-agent\nProtectSystem=strict"

Break = Callable[[Path], object]


class Host:
    """A folder that any user may enter, with the service's unit, configuration, log and state."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.state = root / "var/state"
        self.log = root / "messages"
        self.unit = root / "usr/lib/systemd/system/sockmem-agent.service"
        self.unit.parent.mkdir(parents=True)
        self.define()
        self.log.write_text("")
        self.config = root / "config.toml"
        self.config.write_text(f'[source]\nkind = "file"\npaths = ["{self.log}"]\n[store]\nmin_free_bytes = 0\n')
        for name in ("cursor.json", "lock", "history/20261122T15.jsonl", f"{INCIDENT}/incident.json"):
            path = self.state / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(0o640)
        for path in (self.state, *self.state.rglob("*")):
            shutil.chown(path, USER, "nogroup")

    def define(self, *lines: str) -> None:
        """Write the unit, with these lines at its end."""
        self.unit.write_text("\n".join([UNIT, f"ReadWritePaths={self.state}", *lines, ""]))

    def checks(self) -> list[dict[str, Any]]:
        environ = {"STATE_DIRECTORY": str(self.state), "CREDENTIALS_DIRECTORY": None}
        result = CliRunner().invoke(group, ["doctor", "--json"], env=environ)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.output
        found: list[dict[str, Any]] = json.loads(result.stdout)["checks"]
        return found

    def check(self, name: str) -> dict[str, Any]:
        return next(check for check in self.checks() if check["name"] == name)

    def shown(self) -> str:
        return CliRunner().invoke(group, ["doctor"], env={"STATE_DIRECTORY": str(self.state)}).stdout


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    # Nobody may not read root's Python: what is imported late, is imported now.
    importlib.import_module("encodings.idna")
    importlib.import_module("agent.sources.file.waker")
    for channel in ("command", "slack", "stdout", "webhook"):
        importlib.import_module(f"agent.notifiers.{channel}")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        root.chmod(0o755)
        host = Host(root)
        monkeypatch.setattr(unit, "ROOT", root)
        monkeypatch.setattr(doctor, "LIBRARIES", root / "nothing")
        for module in (config, doctor, config_command):
            monkeypatch.setattr(module, "DEFAULT_PATH", host.config)
        yield host


def move_and(make: Break) -> Break:
    """Put something else in the place of the state directory."""

    def break_it(state: Path) -> None:
        shutil.rmtree(state)
        make(state)

    return break_it


def link_loop(path: Path) -> None:
    path.symlink_to(path.with_name("other"))
    path.with_name("other").symlink_to(path)


def file_above(path: Path) -> None:
    path.parent.rmdir()
    path.parent.write_text("")


def roots(name: str, mode: int | None = None) -> Break:
    def give(state: Path) -> None:
        shutil.chown(state / name, "root", "root")
        if mode is not None:
            (state / name).chmod(mode)

    return give


FAULTS = {
    "a file": (move_and(Path.touch), "{state} is a file, not a directory"),
    "a FIFO": (move_and(os.mkfifo), "{state} is a FIFO, not a directory"),
    "a loop": (move_and(link_loop), "{state} is a loop of symbolic links"),
    "a dangling link": (
        move_and(lambda path: path.symlink_to(path.parent / "gone")),
        "{state} links to {parent}/gone, which does not exist",
    ),
    "below a file": (move_and(file_above), "{parent} is a file, not a directory"),
    "not there": (move_and(lambda path: None), "{state} does not exist, and nobody cannot create it in {parent}"),
    "another's": (roots("", 0o700), "{state} belongs to root, not to nobody"),
    "nobody's user": (lambda state: os.chown(state, 4711, 4711), "belongs to uid 4711 (no such user), not to nobody"),
    "behind a closed door": (
        lambda state: state.parent.chmod(0o700),
        "nobody cannot enter {parent} (root:root, mode 0700)",
    ),
    "its own, shut": (lambda state: state.chmod(0o500), "{state}: its mode denies access to its owner, nobody"),
    "a cursor of root's": (
        roots("cursor.json", 0o600),
        "{state}/cursor.json belongs to root, not to nobody",
    ),
    "an incident of root's": (
        roots(f"{INCIDENT}/incident.json", 0o600),
        f"{INCIDENT}/incident.json belongs to root",
    ),
    "a sample file of root's": (
        roots("history/20261122T15.jsonl"),
        "{state}/history/20261122T15.jsonl belongs to root, not",
    ),
    "a cursor that is a FIFO": (
        lambda state: ((state / "cursor.json").unlink(), os.mkfifo(state / "cursor.json")),
        "{state}/cursor.json is a FIFO, not a file: the service will set it aside",
    ),
}


def test_a_good_host_has_no_fail(host: Host) -> None:
    found = {check["name"]: (check["status"], check["detail"]) for check in host.checks()}

    assert ("ok", str(host.config)) == found["configuration"]
    assert ("ok", "nobody, in the groups nogroup") == found["service user"]
    assert ("ok", f"{host.log} can be read") == found["source"]
    assert "ok" == found["state directory"][0]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_state_directory_that_cannot_be_used_has_a_fix_that_fits(host: Host, fault: str) -> None:
    break_it, expected = FAULTS[fault]
    break_it(host.state)

    check = host.check("state directory")
    assert check["status"] == ("warn" if "set it aside" in expected else "fail"), check
    assert expected.format(state=host.state, parent=host.state.parent) in check["detail"]

    for _ in range(3):  # A fix may uncover the next fault: what a file was in the way of is not there yet.
        command = check["mend"].partition(", or ")[0]
        subprocess.run(["sh", "-c", command], check=True)
        check = host.check("state directory")
        if check["status"] == "ok":
            break
    assert "ok" == check["status"], check


def test_the_state_directory_is_that_of_the_unit(host: Host) -> None:
    checks = json.loads(CliRunner().invoke(group, ["doctor", "--json"], env={"STATE_DIRECTORY": None}).stdout)["checks"]

    assert ["/var/lib/sockmem-agent"] == [
        check["detail"].split()[0].rstrip(":") for check in checks if check["name"] == "state directory"
    ]


@pytest.mark.parametrize(("user", "expected"), [("nobody", "/var/lib/sockmem-agent"), ("daemon", "{state}")])
def test_without_root_the_services_user_is_told_of_its_directory_and_others_of_their_own(
    host: Host, user: str, expected: str
) -> None:
    host.define(f"User={user}")
    environ = {"STATE_DIRECTORY": None, "XDG_STATE_HOME": str(host.root)}
    state = host.root / "sockmem-agent"
    state.mkdir()
    shutil.chown(state, "nobody")

    said = as_nobody(lambda: CliRunner().invoke(group, ["doctor", "--json"], env=environ).stdout)

    (check,) = [check for check in json.loads(said)["checks"] if check["name"] == "state directory"]
    assert check["detail"].startswith(expected.format(state=state)), check
    assert (user == "nobody") or "ok" == check["status"]


def test_several_files_of_another_user_are_one_check(host: Host) -> None:
    for name in ("cursor.json", "lock", f"{INCIDENT}/incident.json"):
        roots(name, 0o600)(host.state)

    check = host.check("state directory")

    assert f"{host.state}/cursor.json and 2 more belong to root, not to nobody" == check["detail"]
    assert f"chown -hR nobody: {host.state}" == check["mend"]


def test_no_line_is_longer_than_a_hundred_whatever_is_wrong(host: Host) -> None:
    roots("cursor.json", 0o600)(host.state)
    host.log.unlink()
    host.define("User=no-such-user")
    host.config.write_text("[incident]\nquiet_secnds = 1\nquiet_seconds = 0\n[[notify]]\n")

    assert [] == [line for line in host.shown().splitlines() if len(line) > 100]


def test_files_are_looked_at_as_the_services_user(host: Host) -> None:
    host.log.chmod(0o600)
    host.config.chmod(0o600)
    found = {check["name"]: check for check in host.checks()}

    assert "fail" == found["source"]["status"]
    assert f"nobody cannot read {host.log} (root:root, mode 0600)" == found["source"]["detail"]
    assert f"nobody cannot read {host.config} (root:root, mode 0600)" == found["configuration"]["detail"]
    assert found["source"]["mend"].startswith(f"chmod o+r {host.log}")
    assert "Files checked as nobody, the service user" in host.shown()


def test_a_logs_directory_that_may_not_be_listed_is_told_with_what_that_costs(host: Host) -> None:
    folder = host.log.parent / "logs"
    folder.mkdir()
    link = host.log.rename(folder / host.log.name)
    host.log.symlink_to(link)
    folder.chmod(0o711)
    check = host.check("source")

    why = f"nobody cannot list {folder} (root:root, mode 0711): lines may be lost when a log in it is rotated"
    fix = f"chmod o+r {folder}, or setfacl -m u:nobody:r {folder}"
    assert ("warn", why, fix) == (check["status"], check["detail"], check["mend"])


def test_a_program_that_the_services_user_cannot_read_fails_in_both_checks(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = host.root / "libraries/closed.py"
    closed.parent.mkdir(mode=0o700)
    closed.touch()
    module = ModuleType("closed")
    module.__file__ = str(closed)
    monkeypatch.setitem(sys.modules, "closed", module)
    monkeypatch.setattr(doctor, "LIBRARIES", closed.parent)
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)

    (check,) = [check for check in host.checks() if check["status"] == "fail"]
    why = f"nobody cannot enter {closed.parent} (root:root, mode 0700)"
    fix = f"chmod -R o+rX {closed.parent}"
    assert ("program", why, fix) == (check["name"], check["detail"], check["mend"])
    assert (78, f"{host.config}: program: {why}; {fix}\n") == config_check()


def test_a_file_name_that_the_locale_lacks_is_one_line_of_the_services_user_too(
    capfd: pytest.CaptureFixture[str],
) -> None:
    def look() -> list[checks.Check]:
        "/var/log/журнал".encode("ascii")
        raise AssertionError

    with pytest.raises(SystemExit) as ended:
        doctor.look_as(doctor.Identity("nobody", 65534, 65534, ()), look)

    assert 1 == ended.value.code
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("sockmem-agent: '/var/log/\\u0436")
    assert line.endswith(" cannot be encoded in this locale (ascii); set LC_ALL=C.UTF-8, or use another name")


def test_a_group_that_may_read_is_the_fix_where_there_is_one(host: Host) -> None:
    shutil.chown(host.log, "root", "adm")
    host.log.chmod(0o640)

    assert "usermod -aG adm nobody" == host.check("source")["mend"]

    host.define("SupplementaryGroups=adm")
    assert "ok" == host.check("source")["status"]


@pytest.mark.parametrize(
    ("make", "detail"),
    [
        (Path.mkdir, "is a directory, not a file"),
        (os.mkfifo, "is a FIFO, not a file"),
        (link_loop, "is a loop of symbolic links"),
        (lambda path: path.symlink_to("/gone"), "links to /gone, which does not exist"),
    ],
)
def test_a_log_that_is_none_is_told_as_what_it_is(host: Host, make: Break, detail: str) -> None:
    host.log.unlink()
    make(host.log)

    check = host.check("source")

    assert ("fail", f"{host.log} {detail}") == (check["status"], check["detail"])
    assert "group" not in check["mend"]


@pytest.mark.parametrize(
    ("line", "what"), [("User=no-such-user", "user no-such-user"), ("Group=no-such", "group no-such")]
)
def test_a_user_or_group_that_does_not_exist_is_made_by_sysusers(host: Host, line: str, what: str) -> None:
    host.define(line)

    check = host.check("service user")

    assert ("fail", f"the {what} does not exist: the service cannot start") == (check["status"], check["detail"])
    assert "systemd-sysusers sockmem-agent.conf" == check["mend"]


def test_a_user_that_systemd_makes_is_none_that_is_missing(host: Host) -> None:
    host.define("DynamicUser=yes", "User=made-at-the-start")

    assert "ok" == host.check("service user")["status"]


def test_what_the_unit_hides_from_the_service_is_told_with_the_lines_to_add(host: Host) -> None:
    host.define("PrivateTmp=yes")
    if not host.log.is_relative_to("/tmp"):
        pytest.skip("temporary files are not in /tmp here")

    check = host.check("source")

    assert ("fail", f"PrivateTmp= hides {host.log} from the service") == (check["status"], check["detail"])
    assert ["[Service]", "PrivateTmp=no"] == check["drop_in"]


@pytest.fixture
def command(host: Host) -> Path:
    """Make a program that any user may run, and a channel that runs it."""
    program = host.root / "tell-ops"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    with host.config.open("a") as file:
        file.write(f'[[notify]]\nname = "run"\ntype = "command"\ncommand = ["{program}"]\n')
    return program


def config_check() -> tuple[int, str]:
    result = CliRunner().invoke(group, ["config", "check"], env={"CREDENTIALS_DIRECTORY": None})
    return result.exit_code, result.stderr


def test_a_command_that_the_services_user_can_run_is_fine(host: Host, command: Path) -> None:
    check = host.check("channel run")

    assert ("ok", f"command {command}") == (check["status"], check["detail"])
    assert (0, "") == config_check()


def test_a_command_that_is_not_there_or_no_program_fails_in_both_checks(host: Host, command: Path) -> None:
    command.unlink()
    assert ("fail", f"{command} does not exist") == tuple(
        host.check("channel run")[key] for key in ("status", "detail")
    )
    assert (78, f"{host.config}: channel run: {command} does not exist\n") == config_check()

    command.mkdir()
    assert f"{command} is a directory, not a file" == host.check("channel run")["detail"]


def test_a_command_that_root_alone_can_run_fails_in_both_checks(host: Host, command: Path) -> None:
    command.chmod(0o700)

    check = host.check("channel run")
    why = f"nobody cannot execute {command} (root:root, mode 0700)"
    fix = f"chmod o+x {command}, or setfacl -m u:nobody:x {command}"
    assert ("fail", why, fix) == (check["status"], check["detail"], check["mend"])
    assert (78, f"{host.config}: channel run: {why}; {fix}\n") == config_check()


def test_a_command_that_the_unit_hides_fails_in_both_checks_with_the_lines_to_add(host: Host, command: Path) -> None:
    host.define("PrivateTmp=yes")
    if not command.is_relative_to("/tmp"):
        pytest.skip("temporary files are not in /tmp here")

    check = host.check("channel run")
    assert ("fail", f"PrivateTmp= hides {command} from the service") == (check["status"], check["detail"])
    assert ["[Service]", "PrivateTmp=no"] == check["drop_in"]
    status, said = config_check()
    assert 78 == status
    assert f"PrivateTmp= hides {command} from the service; systemctl edit" in said
    assert said.endswith("    [Service]\n    PrivateTmp=no\n")


def test_a_metrics_file_that_the_unit_or_the_owner_forbids_is_told(host: Host) -> None:
    folder = host.root / "textfile"
    folder.mkdir(mode=0o755)
    with host.config.open("a") as file:
        file.write(f'[metrics]\ntextfile = "{folder}/sockmem.prom"\n')

    closed = host.check("metrics file")
    assert ("fail", f"setfacl -m u:nobody:rwx {folder}") == (closed["status"], closed["mend"])

    folder.chmod(0o777)
    assert ["[Service]", f"ReadWritePaths={folder}"] == host.check("metrics file")["drop_in"]

    host.define(f"ReadWritePaths=-{folder}")
    assert "ok" == host.check("metrics file")["status"]

    folder.chmod(0o770)
    shutil.chown(folder, USER)
    unread = host.check("metrics file")
    assert ("warn", f"node_exporter cannot read {folder}/sockmem.prom: other users cannot enter {folder}") == (
        unread["status"],
        unread["detail"],
    )


def test_a_metrics_file_that_node_exporter_ignores_is_told(host: Host) -> None:
    folder = host.root / "textfile"
    folder.mkdir()
    folder.chmod(0o777)
    host.define(f"ReadWritePaths={folder}")
    with host.config.open("a") as file:
        file.write(f'[metrics]\ntextfile = "{folder}/sockmem.txt"\n')

    check = host.check("metrics file")
    assert ("warn", f'set [metrics] textfile = "{folder}/sockmem.prom"') == (check["status"], check["mend"])
    assert f"node_exporter ignores {folder}/sockmem.txt: its name does not end in .prom" == check["detail"]


def test_the_runtime_directory_is_where_metrics_and_status_belong(host: Host) -> None:
    with host.config.open("a") as file:
        file.write('[metrics]\ntextfile = "/run/sockmem-doctor-test/sockmem.prom"\n')
    without = host.check("status file")
    assert ("warn", "RuntimeDirectory=sockmem-agent") == (without["status"], without["drop_in"][1])

    host.define("RuntimeDirectory=sockmem-doctor-test")
    assert ("ok", "/run/sockmem-doctor-test/status.json, for every user") == (
        host.check("status file")["status"],
        host.check("status file")["detail"],
    )
    assert ("ok", "/run/sockmem-doctor-test will be created by systemd") == (
        host.check("metrics file")["status"],
        host.check("metrics file")["detail"],
    )


def test_a_silence_is_reported_with_the_command_that_ends_it(host: Host) -> None:
    path, now = host.state / "silence.json", datetime.now(timezone.utc)
    write_silence(host.state, Silence(since=now, until=now + timedelta(hours=1), reason="deploying"))
    shutil.chown(path, USER)
    silenced = host.check("silence")
    assert ("warn", "sudo sockmem-agent silence --end") == (silenced["status"], silenced["mend"])
    assert re.fullmatch(r"notifications are held back until .+: deploying", silenced["detail"])

    path.write_text("{")
    assert host.check("silence")["detail"].startswith(f"nothing is silenced: {path}: cannot be read")
    path.unlink()
    assert "silence" not in {check["name"] for check in host.checks()}


def test_a_secret_that_the_service_may_not_read_is_told(host: Host) -> None:
    secret = host.root / "url"
    secret.touch(0o600)
    secret.write_text("https://hooks.slack.com/verysecret")
    with host.config.open("a") as file:
        file.write(f'[[notify]]\nname = "team"\ntype = "slack"\nurl_file = "{secret}"\n')

    check = host.check("configuration")

    assert "fail" == check["status"]
    fix = f"chgrp sockmem-agent {secret} && chmod 0640 {secret}"
    assert check["detail"].endswith(
        f"`{secret}` cannot be read: Permission denied; use sudo, or let the service read it: {fix}"
    )
    assert "verysecret" not in json.dumps(check)


def test_a_configuration_that_root_alone_can_read_fails_in_both_checks(host: Host) -> None:
    host.config.chmod(0o640)

    check = host.check("configuration")
    why = f"nobody cannot read {host.config} (root:root, mode 0640)"
    fix = f"chgrp nogroup {host.config} && chmod 0640 {host.config}"
    assert ("fail", why, fix) == (check["status"], check["detail"], check["mend"])
    assert (78, f"{why}; {fix}\n") == config_check()


@pytest.mark.parametrize("mode", [0o644, 0o600])
def test_the_fix_of_a_configuration_with_a_secret_closes_it_to_all_but_the_service(host: Host, mode: int) -> None:
    with host.config.open("a") as file:
        file.write('[[notify]]\nname = "team"\ntype = "slack"\nurl = "https://hooks.slack.com/verysecret"\n')
    host.config.chmod(mode)
    before = host.check("configuration")

    subprocess.run(before["mend"].partition(", or ")[0], shell=True, check=True)

    assert "ok" != before["status"]
    assert "ok" == host.check("configuration")["status"]
    assert 0 == host.config.stat().st_mode & stat.S_IROTH


def test_a_credential_of_a_drop_in_is_known_before_the_first_start(host: Host) -> None:
    secret = host.root / "url"
    secret.touch(0o600)
    secret.write_text("https://hooks.slack.com/verysecret")
    with host.config.open("a") as file:
        file.write('[[notify]]\nname = "team"\ntype = "slack"\nurl_file = "${CREDENTIALS_DIRECTORY}/team-url"\n')
    missing = host.check("configuration")
    host.define(f"LoadCredential=team-url:{secret}")

    assert ["[Service]", "LoadCredential=team-url:/etc/sockmem-agent/team-url"] == missing["drop_in"]
    assert "ok" == host.check("configuration")["status"]
