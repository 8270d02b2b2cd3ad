"""The commands of the drop-in, and what the doctor says of it, on this machine's own kernel."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from harness import as_nobody

from agent.cli import checks_witness, group, unit
from agent.cli.checks_witness import ENABLE, ask_main_pid, check_running, check_witness
from agent.cli.unit import Unit, read_unit
from agent.probe import witness
from agent.probe.witness import NO_REASON, SERVICE, Instances, Reader, make, remove

SYSTEMD = Path(__file__).parents[2] / "systemd"
GROUP = "nogroup"


@pytest.fixture
def them(tracefs: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Instances]:
    """The two instances of the service, under names of this test's."""
    place = tracefs / "instances"
    instances = Instances(place / f"sockmem-cli-{os.getpid()}-kills", place / f"sockmem-cli-{os.getpid()}-refusals")
    monkeypatch.setattr(witness, "HOST", instances)
    monkeypatch.setattr(witness, "TRACEFS", tracefs)
    yield instances
    remove(instances)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host on which the service is installed, for a group that this one has."""
    monkeypatch.setattr(unit, "ROOT", tmp_path)
    put(tmp_path, "usr/lib/systemd/system/sockmem-agent.service", (SYSTEMD / "sockmem-agent.service").read_text())
    put(tmp_path, "etc/systemd/system/sockmem-agent.service.d/group.conf", f"[Service]\nGroup={GROUP}\n")
    return tmp_path


def put(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


def installed() -> Unit:
    service = read_unit()
    assert service is not None
    return service


def run(*arguments: str) -> Result:
    return CliRunner().invoke(group, ["witness", *arguments])


# --- the commands -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("host")
def test_start_makes_both_for_the_services_group_again_and_again_and_stop_removes_them(them: Instances) -> None:
    for _ in range(2):
        started = run("start")
        modes = [(path.group(), f"{path.stat().st_mode & 0o777:o}") for path in (*them, them.kills / "trace_pipe")]

        assert (0, "") == (started.exit_code, started.output)
        assert [(GROUP, "750"), (GROUP, "750"), (GROUP, "440")] == modes

    stopped = run("stop")

    assert (0, "") == (stopped.exit_code, stopped.output)
    assert [False, False] == [path.exists() for path in them]
    assert 0 == run("stop").exit_code


@pytest.mark.usefixtures("host")
def test_what_a_program_still_reads_is_named_and_the_next_start_takes_it_over(them: Instances) -> None:
    run("start")
    with (them.kills / "trace_pipe").open("rb"):
        stopped = run("stop")
        kills, refusals = (path.exists() for path in them)
        again = run("start")

    assert 1 == stopped.exit_code
    assert f"sockmem-agent: {them.kills}: in use: another program reads it, and only one can\n" == stopped.stderr
    assert (True, False) == (kills, refusals)
    assert (0, "") == (again.exit_code, again.output)
    assert "1" == (them.kills / "events/tcp/tcp_send_reset/enable").read_text().strip()


@pytest.mark.usefixtures("host")
def test_without_tracefs_start_says_so_in_a_line_for_each_and_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(witness, "TRACEFS", tmp_path / "tracing")
    monkeypatch.setattr(
        witness, "HOST", Instances(tmp_path / "tracing/instances/x-kills", tmp_path / "tracing/instances/x-refusals")
    )
    started = run("start")

    assert 1 == started.exit_code
    assert [True, True] == ["tracefs is not mounted" in line for line in started.stderr.splitlines()]


def test_without_the_services_group_start_says_how_to_make_it(host: Path) -> None:
    put(host, "etc/systemd/system/sockmem-agent.service.d/group.conf", "[Service]\nGroup=no-such-group\n")
    started = run("start")

    assert 1 == started.exit_code
    assert (
        "sockmem-agent: the group no-such-group does not exist: run systemd-sysusers sockmem-agent.conf\n"
        == started.stderr
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("action", ["start", "stop"])
def test_only_root_may(action: str) -> None:
    said = as_nobody(lambda: (result := run(action)).stderr + str(result.exit_code))

    assert f"sockmem-agent: only root can change the kernel's trace; run sudo sockmem-agent witness {action}\n1" == said


# --- the doctor -------------------------------------------------------------------------------------------------------


@pytest.fixture
def service(host: Path, them: Instances, monkeypatch: pytest.MonkeyPatch) -> Unit:
    """The service with the drop-in enabled by the doctor's own command; it does not run."""
    del them
    monkeypatch.setattr(checks_witness, "ask_main_pid", lambda: None)
    command = ENABLE.partition(" && ")[0].replace("/etc/", f"{host}/etc/").split()
    subprocess.run([*command[:-1], SYSTEMD / "witness.conf"], check=True)
    return installed()


@pytest.mark.usefixtures("host")
def test_without_the_drop_in_it_is_off_which_is_no_failure() -> None:
    for service in (installed(), None):
        check = check_witness(service)

        assert ("witness", "ok", ENABLE) == (check.name, check.status, check.fix)
        assert check.detail.startswith("off; ")


@pytest.mark.parametrize(
    ("edited", "lacking"),
    [
        ("[Service]\nBindReadOnlyPaths=\n", "BindReadOnlyPaths"),
        ("[Service]\nExecStartPre=\nExecStartPre=/bin/true\nExecStopPost=\n", "ExecStartPre, ExecStopPost"),
    ],
)
@pytest.mark.usefixtures("service")
def test_what_another_drop_in_took_away_of_it_is_named(host: Path, edited: str, lacking: str) -> None:
    put(host, "etc/systemd/system/sockmem-agent.service.d/zz-edited.conf", edited)
    check = check_witness(installed())

    assert ("warn", ENABLE) == (check.status, check.fix)
    assert check.detail.endswith(f": {lacking}")


def test_who_is_not_root_is_sent_to_root(service: Unit) -> None:
    assert "ok: on; only root can check what the service sees" == as_nobody(
        lambda: f"{(check := check_witness(service)).status}: {check.detail}"
    )


def test_what_a_service_that_does_not_run_will_see_is_tried_out(service: Unit, tracefs: Path) -> None:
    check = check_witness(service)

    assert ("ok", "on: kills and refusals") == (check.status, check.detail)
    assert [] == list((tracefs / "instances").glob(f"sockmem-agent-{os.getpid()}-*"))


def test_before_6_12_refusals_are_all_there_is_and_that_is_fine(service: Unit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(witness, "KILL_REASON", "NO_SUCH_REASON")
    check = check_witness(service)

    assert ("ok", f"on: refusals, no kills: {NO_REASON}") == (check.status, check.detail)


def test_a_host_that_cannot_trace_gets_the_reason(
    service: Unit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(witness, "TRACEFS", tmp_path / "tracing")
    check = check_witness(service)

    assert "warn" == check.status
    assert "tracefs is not mounted" in check.detail


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (b"MainPID=4711\nActiveState=active\n", 4711),
        (b"MainPID=4711\nActiveState=activating\n", None),
        (b"MainPID=0\nActiveState=inactive\n", None),
        (b"", None),
    ],
)
def test_a_service_runs_when_it_is_ready(said: bytes, expected: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks_witness, "ask", lambda *_: said)

    assert expected == ask_main_pid()


@pytest.fixture
def root(tmp_path: Path, them: Instances) -> Path:
    """What /proc/PID/root of the running service is: the two instances where its unit shows them."""
    for path, place in zip(them, SERVICE, strict=True):
        shown = tmp_path / "root" / place.relative_to("/")
        shown.parent.mkdir(parents=True, exist_ok=True)
        shown.symlink_to(path)
    return tmp_path / "root"


def test_a_trace_that_the_service_reads_is_in_use_which_is_as_it_should_be(root: Path, them: Instances) -> None:
    make(them)
    with closing(Reader(them)):
        check = check_running(os.getpid(), "on: kills and refusals", sees_kills=True, root=root)

    assert ("ok", "on: kills and refusals; in use by the service itself") == (check.status, check.detail)


def test_another_reader_is_named(root: Path, them: Instances) -> None:
    make(them)
    with (them.kills / "trace_pipe").open("rb") as pipe:
        other = subprocess.Popen(["sleep", "60"], stdin=pipe)
    try:
        check = check_running(os.getpid(), "on", sees_kills=True, root=root)
    finally:
        other.kill()
        other.wait()

    assert "warn" == check.status
    assert check.detail.startswith(f"in use by sleep (PID {other.pid}): ")


def test_who_reads_refusals_that_the_kernel_counts_takes_nothing_away(tmp_path: Path) -> None:
    place = tmp_path / SERVICE.refusals.relative_to("/")
    put(place, "events/sock/sock_exceed_buf_limit/hist", "# event histogram\n")
    put(place, "trace_pipe", "")
    with (place / "trace_pipe").open("rb"):
        counted = check_running(os.getppid(), "on: refusals", sees_kills=False, root=tmp_path)
        (place / "events/sock/sock_exceed_buf_limit/hist").unlink()
        uncounted = check_running(os.getppid(), "on: refusals", sees_kills=False, root=tmp_path)

    assert ("ok", "on: refusals") == (counted.status, counted.detail)
    assert "warn" == uncounted.status


def test_a_service_that_was_started_before_the_drop_in_has_to_be_restarted(root: Path, them: Instances) -> None:
    before = check_running(os.getpid(), "on", sees_kills=True, root=root)
    make(them)
    unread = check_running(os.getpid(), "on", sees_kills=True, root=root)

    assert ("warn", "the service runs without its trace") == (before.status, before.detail)
    assert ("warn", "the service has not opened its trace") == (unread.status, unread.detail)
    assert before.fix.startswith("systemctl daemon-reload && systemctl restart sockmem-agent")
