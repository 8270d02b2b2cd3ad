"""Who may read the service's incidents: real users and groups, under made-up names."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from agent.core import folding
from agent.core.cursor import Cursor, Resume
from agent.core.model import Diagnosis, Event, LogRecord, Snapshot
from agent.page import render
from agent.store import Store

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

ALICE, SERVICE = 54_321, 54_320
# Everything is imported before stepping down, and the page's templates are copied: the interpreter of the tests and the
# clone may live in root's own home.
AS_ALICE = f"""
import _strptime, difflib, encodings.unicode_escape, encodings.utf_8_sig, grp, heapq, os, pathlib, pwd, sys
import msgspec, rich.console
import agent.config, agent.cli.diagnose, agent.cli.incidents, agent.page.render
from agent.cli import group
msgspec.toml.decode("")
state, config, page, groups, members, *args = sys.argv[1:]
agent.page.render._HERE = pathlib.Path(page)
agent.config.load.SYSTEM_STATE, agent.config.load.DEFAULT_PATH = state, pathlib.Path(config)
grp.getgrgid = lambda gid: grp.struct_group(("sockmem-agent", "x", gid, members.split()))
pwd.getpwuid = lambda uid: pwd.struct_passwd(("alice", "x", uid, uid, "", "/none", ""))
os.setgroups([int(word) for word in groups.split()])
os.setresgid({ALICE}, {ALICE}, {ALICE})
os.setresuid({ALICE}, {ALICE}, {ALICE})
group(args, prog_name="sockmem-agent")
"""
READING = [
    ["incidents", "list"],
    ["incidents", "show", "last"],
    ["incidents", "report", "last", "--output", "-"],
    ["incidents", "export", "last", "--output", "-"],
    ["diagnose", "--incident", "last", "--json"],
]


class Host:
    """A host with the service's state directory and one incident in it."""

    def __init__(self, folder: Path, record: LogRecord, event: Event) -> None:
        self.state, self.config, self.home = folder / "state", folder / "config.toml", folder / "home"
        self.page = shutil.copytree(Path(render.__file__).parent, folder / "page")
        self.home.mkdir(mode=0o755)
        os.chown(self.home, ALICE, ALICE)
        store = Store(self.state)
        store.open_for_writing()
        assert event.at is not None
        snapshot = Snapshot(taken_at=event.at, trigger="event", host="web1", kernel="6.1.0")
        diagnosis = Diagnosis(cause="undetermined", confidence="possible", summary="Nobody knows.")
        incident = folding.open_incident(event, event.at, snapshot, diagnosis)
        store.new_directory(incident.id)
        name = store.write_snapshot(incident.id, 1, snapshot)
        resume = Resume(generation=1, cursor=record.cursor or Cursor())
        store.commit(replace(incident, snapshots=(name,), resume=resume))
        self.incident_id = incident.id
        for path in (self.state, *self.state.rglob("*")):
            os.chown(path, SERVICE, SERVICE)

    def alice(
        self, *args: str, groups: str = "", members: str = "", **environ: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as alice, whose session has these groups."""
        # Nor is alice to be measured: she may not write what coverage would.
        without = ("STATE_DIRECTORY", "XDG_STATE_HOME", "COVERAGE_PROCESS_START", "COVERAGE_FILE")
        clean = {key: value for key, value in os.environ.items() if key not in without}
        places = [str(self.state), str(self.config), str(self.page)]
        program = [sys.executable, "-c", AS_ALICE, *places, groups, members, *args]
        return subprocess.run(
            program,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            env={**clean, "HOME": str(self.home), **environ},
        )


@pytest.fixture
def host(make_decided: Callable[[], tuple[LogRecord, Event]]) -> Iterator[Host]:
    # Not below tmp_path, where only root may go.
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield Host(folder, *make_decided())
    shutil.rmtree(folder)


@pytest.mark.parametrize("args", READING, ids=" ".join)
def test_a_member_of_the_group_reads_the_services_incidents(host: Host, args: list[str]) -> None:
    done = host.alice(*args, groups=str(SERVICE))

    assert (0, "") == (done.returncode, done.stderr)
    assert len(done.stdout) > 100


def test_a_member_sees_the_very_incident(host: Host) -> None:
    done = host.alice("incidents", "list", "--json", groups=str(SERVICE))

    assert [host.incident_id] == [entry["id"] for entry in json.loads(done.stdout)]


@pytest.mark.parametrize("args", READING, ids=" ".join)
def test_who_may_not_read_them_is_told_how_to_and_that_is_66(host: Host, args: list[str]) -> None:
    done = host.alice(*args)

    assert (66, "") == (done.returncode, done.stdout)
    assert (
        f"sockmem-agent: {host.state}: permission denied; use sudo, or join the group: "
        "sudo usermod -aG sockmem-agent alice, then log in again\n"
    ) == done.stderr


def test_who_may_not_read_the_status_is_not_told_that_nothing_runs(host: Host) -> None:
    done = host.alice("status", "--json", "--check", STATE_DIRECTORY=str(host.state))

    assert 3 == done.returncode
    why = json.loads(done.stdout)["why"]
    assert why.startswith("unknown: no status.json in ")
    assert why.endswith(
        f", and {host.state}: permission denied; use sudo, or join the group: sudo usermod -aG sockmem-agent alice, "
        "then log in again"
    )


def test_a_tree_that_is_closed_is_66(host: Host) -> None:
    done = host.alice("diagnose", "--proc-root", str(host.state))

    assert (66, "") == (done.returncode, done.stdout)
    assert f"sockmem-agent: --proc-root: '{host.state}': permission denied; use sudo\n" == done.stderr


def test_a_member_whose_session_is_older_is_told_to_log_in_again(host: Host) -> None:
    done = host.alice("incidents", "list", members="bob alice")

    assert 66 == done.returncode
    assert (
        "permission denied; you joined the group sockmem-agent after this session started: log in again" in done.stderr
    )


@pytest.mark.parametrize("mode", [0o700, 0o710])
def test_nobody_is_sent_into_a_group_that_may_not_read_either(host: Host, mode: int) -> None:
    host.state.chmod(mode)

    done = host.alice("incidents", "list", groups=str(SERVICE))

    assert (66, f"sockmem-agent: {host.state}: permission denied; use sudo\n") == (done.returncode, done.stderr)


def test_a_configuration_that_is_closed_is_said_and_the_usual_directory_read(host: Host) -> None:
    host.config.write_text('[store]\ndirectory = "/none"\n')
    host.config.chmod(0o640)

    done = host.alice("incidents", "list", groups=str(SERVICE))

    assert 0 == done.returncode
    assert host.incident_id in done.stdout
    assert f"{host.config}: permission denied; assuming" in done.stderr


def test_what_the_configuration_names_is_read_by_everybody(host: Host) -> None:
    elsewhere = host.state.rename(host.state.with_name("elsewhere"))
    host.config.write_text(f'[store]\ndirectory = "{elsewhere}"\n')

    assert host.incident_id in host.alice("incidents", "list", groups=str(SERVICE)).stdout
    assert 66 == host.alice("incidents", "list").returncode


def test_a_directory_that_is_named_comes_before_the_services(host: Host) -> None:
    done = host.alice("incidents", "list", groups=str(SERVICE), STATE_DIRECTORY=str(host.home))

    assert f"no incidents in {host.home}\n" == done.stdout


def test_without_a_service_it_is_the_users_own_directory(host: Host) -> None:
    shutil.rmtree(host.state)

    done = host.alice("incidents", "list")

    assert (0, f"no incidents in {host.home}/.local/state/sockmem-agent, which does not exist\n") == (
        done.returncode,
        done.stdout,
    )


def test_a_diagnosis_of_now_needs_nobodys_samples(host: Host) -> None:
    done = host.alice("diagnose")

    assert (0, "") == (done.returncode, done.stderr)


def test_a_member_may_not_remove_and_is_told_so(host: Host) -> None:
    old = host.state / "incidents" / "20200101T000000Z-0000"
    old.mkdir(mode=0o750)
    os.chown(old, SERVICE, SERVICE)

    done = host.alice("incidents", "prune", groups=str(SERVICE))

    assert (1, "") == (done.returncode, done.stdout)
    assert (1, True) == (done.stderr.count("\n"), done.stderr.endswith(": Permission denied; use sudo\n")), done.stderr
    assert old.is_dir()


def test_one_incident_that_is_closed_is_named_and_the_others_are_shown(host: Host) -> None:
    closed = host.state / "incidents" / "20261122T150539Z-0000"
    closed.mkdir(mode=0o700)

    done = host.alice("incidents", "list", groups=str(SERVICE))

    assert 66 == done.returncode
    assert host.incident_id in done.stdout
    assert f"sockmem-agent: incident {closed.name}: permission denied; use sudo\n" == done.stderr
