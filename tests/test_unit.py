"""The unit file and its fragments, judged by systemd's own checkers."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from harness import wait_for
from material import make_sent_notice

from agent.cli.checks_witness import LINES
from agent.core.delivery import Delivered
from agent.core.settings import CommandSettings
from agent.notifiers.command import CommandNotifier

SYSTEMD = Path(__file__).parents[1] / "systemd"
UNIT = SYSTEMD / "sockmem-agent.service"
WITNESS = SYSTEMD / "witness.conf"
EXPOSURE_AT_MOST = "15"  # In tenths, as --threshold= takes it.

pytestmark = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


def assignments(file: Path) -> list[tuple[str, str]]:
    lines = [line for line in file.read_text().splitlines() if re.match(r"[A-Z]\w+=", line)]
    return [(key, value) for key, _, value in (line.partition("=") for line in lines)]


def settings() -> dict[str, str]:
    return dict(assignments(UNIT))


def installed(folder: Path, *drop_ins: Path) -> Path:
    """Lay out the unit as on a host where its program is there, with these drop-ins; return its file."""
    (folder / f"{UNIT.name}.d").mkdir()
    for file, place in ((UNIT, folder), *((each, folder / f"{UNIT.name}.d") for each in drop_ins)):
        (place / file.name).write_text(file.read_text().replace("/usr/bin/sockmem-agent", "/bin/true"))
    return folder / UNIT.name


def exposed() -> list[str]:
    """Name what systemd-analyze finds not to be taken away: ``PrivateNetwork=``, ``RootDirectory=/RootImage=``."""
    checked = run("systemd-analyze", "security", "--offline=true", "--json=short", UNIT)
    return [check["name"] for check in json.loads(checked.stdout) if check["set"] is False]


def test_every_key_is_one_that_systemd_knows(tmp_path: Path) -> None:
    verified = run("systemd-analyze", "verify", "--man=no", installed(tmp_path, WITNESS))

    assert "" == verified.stderr
    assert 0 == verified.returncode


@pytest.mark.parametrize("drop_ins", [(), (WITNESS,)], ids=["as shipped", "with the witness"])
def test_the_exposure_is_one_point_five_at_most(tmp_path: Path, drop_ins: tuple[Path, ...]) -> None:
    unit = installed(tmp_path, *drop_ins)
    judged = run("systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE_AT_MOST}", unit)

    assert 0 == judged.returncode, judged.stdout.splitlines()[-1]


def test_the_witness_grants_nothing_but_the_sight_of_two_instances_and_never_stops_the_service() -> None:
    added = assignments(WITNESS)

    assert ("TimeoutStopSec", "60") == added.pop()
    assert {"ExecStartPre", "BindReadOnlyPaths", "ExecStopPost"} == {key for key, _ in added}
    # "-" on each: what fails, or is missing, must not keep the service from starting.
    assert ["-"] * 4 == [value[0] for _, value in added]
    # What the doctor looks for.
    assert list(LINES) == [(key, value.lstrip("-+")) for key, value in added]


def test_everything_the_unit_keeps_has_its_reason() -> None:
    names = {key for name in exposed() for key in re.findall(r"[A-Z]\w+=", name)}
    reasons = set(re.findall(r"[A-Z]\w+=", UNIT.read_text().split("what it keeps, and why")[1]))

    assert len(names) > 5
    assert names - reasons == set()


def test_what_we_read_and_need_is_not_hidden() -> None:
    hiding = {"PrivateNetwork", "PrivateUsers", "ProtectProc", "ProcSubset", "IPAddressDeny", "ProtectHostname"}
    assert set(settings()) & hiding == set()


def test_a_core_dump_with_secrets_in_it_is_never_written() -> None:
    assert "0" == settings()["LimitCORE"]


def test_systemd_before_239_is_given_no_list_of_allowed_calls() -> None:
    assert settings()["SystemCallFilter"].startswith("~")


def test_the_service_is_watched_and_a_bad_configuration_not_tried_again() -> None:
    expected = {
        "Type": "notify",
        "ExecStart": "/usr/bin/sockmem-agent run",
        "ExecReload": "/bin/kill -HUP $MAINPID",
        "WatchdogSec": "60",
        "Restart": "on-failure",
        "RestartPreventExitStatus": "78",
        "RestartForceExitStatus": "SIGHUP",
        "StateDirectory": "sockmem-agent",
        "StateDirectoryMode": "0750",
        "RuntimeDirectory": "sockmem-agent",
        "RuntimeDirectoryMode": "0755",
        "RuntimeDirectoryPreserve": "yes",
    }

    assert {key: settings().get(key) for key in expected} == expected


@pytest.mark.skipif(shutil.which("systemd-sysusers") is None, reason="systemd-sysusers is not installed")
def test_the_fragments_make_the_user_its_groups_and_its_directory(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    sysusers = run("systemd-sysusers", f"--root={tmp_path}", SYSTEMD / "sockmem-agent.sysusers")
    groups = {line.split(":")[0]: line.split(":")[3] for line in (tmp_path / "etc" / "group").read_text().splitlines()}

    assert 0 == sysusers.returncode, sysusers.stderr
    assert (tmp_path / "etc" / "passwd").read_text().startswith(f"{settings()['User']}:x:")
    assert {name for name, members in groups.items() if members == "sockmem-agent"} == set(
        settings()["SupplementaryGroups"].split()
    )


def test_the_directories_are_the_same_in_unit_and_fragment() -> None:
    lines = [line for line in (SYSTEMD / "sockmem-agent.tmpfiles").read_text().splitlines() if not line.startswith("#")]
    state, run = f"/var/lib/{settings()['StateDirectory']}", f"/run/{settings()['RuntimeDirectory']}"
    owner = f"{settings()['User']} {settings()['Group']} -"

    assert lines == [
        f"d {state} {settings()['StateDirectoryMode']} {owner}",
        f"d {run} {settings()['RuntimeDirectoryMode']} {owner}",
        f"Z {state} - {owner}",
    ]
    assert {f"-{state}", f"-{run}"} == set(settings()["ReadWritePaths"].split())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.skipif(shutil.which("systemd-tmpfiles") is None, reason="systemd-tmpfiles is not installed")
def test_the_fragment_gives_what_root_left_to_the_service_and_follows_no_link(tmp_path: Path) -> None:
    state, outside = tmp_path / "var/lib/sockmem-agent", tmp_path / "etc"
    outside.mkdir()
    (outside / "passwd").write_text("sockmem-agent:x:4711:4711::/:/bin/false\n")
    (outside / "group").write_text("sockmem-agent:x:4711:\n")
    (state / "incidents/20261122T150539Z-7f3a").mkdir(parents=True)
    (state / "incidents/20261122T150539Z-7f3a/incident.json").touch(0o640)
    (state / "cursor.json").touch(0o640)
    (state / "incidents/last").symlink_to(outside)
    (state / "link").symlink_to(outside / "passwd")
    shutil.chown(state, 4711, 4711)  # As a first installation left it: what is below it is still root's.

    done = run("systemd-tmpfiles", f"--root={tmp_path}", "--create", SYSTEMD / "sockmem-agent.tmpfiles")

    assert (0, "") == (done.returncode, done.stderr)
    assert {4711} == {path.lstat().st_uid for path in (state, *state.rglob("*"))}
    assert {0} == {path.lstat().st_uid for path in (outside, *outside.rglob("*"))}
    assert 0o640 == (state / "cursor.json").stat().st_mode & 0o777


# --- what a command cannot do there ---------------------------------------------------------------------------------

NOTIFICATIONS = (Path(__file__).parents[1] / "docs" / "notifications.md").read_text()


def forbidden() -> list[tuple[str, str, str]]:
    """Read the table: what it cannot, because of which line of the unit, which line allows it."""
    table = NOTIFICATIONS.partition("| it cannot |")[2].partition("\n\n")[0]
    return re.findall(r"^\| (.*) \| `(.*?)` \| (.*) \|$", table, re.MULTILINE)


def test_every_line_that_keeps_a_command_from_something_is_the_units() -> None:
    lines = UNIT.read_text().splitlines()

    assert len(forbidden()) > 6
    for _, line, _ in forbidden():
        assert any(each.startswith(line.removesuffix(" …")) for each in lines), line


def test_every_drop_in_for_a_command_is_one_that_systemd_takes(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("ExecStart=/usr/bin/sockmem-agent", "ExecStart=/bin/true"))
    (tmp_path / f"{UNIT.name}.d").mkdir()
    added = [line for *_, drop_in in forbidden() for line in re.findall(r"`(.*)`", drop_in)]
    (tmp_path / f"{UNIT.name}.d" / "command.conf").write_text("\n".join(["[Service]", *added, ""]))
    verified = run("systemd-analyze", "verify", "--man=no", unit)

    assert len(added) > 5
    assert ("", 0) == (verified.stderr, verified.returncode)


def test_a_program_that_is_killed_for_lack_of_memory_takes_nobody_along() -> None:
    assert "continue" == settings()["OOMPolicy"]


@pytest.mark.skipif(shutil.which("socat") is None, reason="no socat here: apt-get install socat")
def test_the_units_to_hand_over_to_are_valid_and_get_the_notice(tmp_path: Path) -> None:
    units = re.findall(r"^```ini\n# /etc/systemd/system/(\S+)\n(.*?)^```$", NOTIFICATIONS, re.DOTALL | re.MULTILINE)
    program = tmp_path / "tell-ops"
    program.write_text(f"#!/bin/sh\ncat > {tmp_path}/new && mv {tmp_path}/new {tmp_path}/got\n")
    program.chmod(0o755)
    here = {"/usr/local/bin/tell-ops": str(program), "User=ops": "User=daemon", "Group=sockmem-agent": "Group=daemon"}
    for name, text in units:
        (tmp_path / name).write_text(re.sub("|".join(here), lambda found: here[found[0]], text))
    verified = run("systemd-analyze", "verify", "--man=no", *(tmp_path / name for name, _ in units))
    assert ("", 0) == (verified.stderr, verified.returncode)

    command = json.loads(re.search(r'`command = (\["/usr/bin/socat".*?\])`', NOTIFICATIONS)[1])
    place = str(tmp_path / "sock")
    listener = subprocess.Popen(
        ["systemd-socket-activate", "--accept", "--inetd", f"--listen={place}", program], stderr=subprocess.DEVNULL
    )
    try:
        wait_for("the socket", Path(place).exists)
        settings = CommandSettings(
            name="run", command=tuple(word.replace("/run/tell-ops.sock", place) for word in command)
        )
        assert isinstance(CommandNotifier(settings).notify(make_sent_notice()), Delivered)
        wait_for("the notice to arrive", (tmp_path / "got").exists)
    finally:
        listener.kill()
        listener.wait()
    assert "sockmem.incident.opened" == json.loads((tmp_path / "got").read_text())["type"]
