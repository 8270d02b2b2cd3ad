"""What the doctor says about attribution: asked of the real kernel, and of what systemd would answer."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from agent.cli import checks_attribution as reach
from agent.cli.checks_attribution import (
    SHIPPED,
    UNIT,
    Rights,
    ask_own_cgroup,
    check_group_memory,
    check_namespaces,
    check_processes,
    check_socket_cgroups,
    read_rights,
)
from agent.core.readings import Gap, Namespace, Process

SHIPPED_UNIT = Path(__file__).parents[2] / "systemd" / UNIT
REDIS = Process(pid=9, name="redis", cgroup="/system.slice/docker-" + "3f2a9c1be07d" + "0" * 52 + ".scope")
SPACES = [Namespace(process=REDIS, inuse=1200), Namespace(process=Process(pid=8, name="x"), inuse=0)]


def shown(**properties: str) -> str:
    """Write what ``systemctl show`` answers for the unit as shipped, but for these."""
    facts = {
        "LoadState": "loaded",
        "User": "sockmem-agent",
        "CapabilityBoundingSet": "",
        "AmbientCapabilities": "",
        "RestrictNamespaces": "yes",
    }
    return "".join(f"{name}={value}\n" for name, value in (facts | properties).items())


@pytest.mark.parametrize("answer", ["", shown(LoadState="not-found", RestrictNamespaces="no")])
def test_without_the_unit_the_rights_are_those_that_it_ships_with(answer: str) -> None:
    assert SHIPPED == read_rights(lambda: answer)


def test_shipped_rights_are_those_of_the_unit_file() -> None:
    lines = SHIPPED_UNIT.read_text().splitlines()

    assert {"CapabilityBoundingSet=", "AmbientCapabilities=", "RestrictNamespaces=yes"} <= set(lines)
    assert (frozenset(), False) == SHIPPED[:2]


def test_rights_are_what_is_both_allowed_and_given_drop_ins_included() -> None:
    both = "cap_sys_ptrace cap_dac_read_search"
    rights = read_rights(lambda: shown(CapabilityBoundingSet=f"{both} cap_syslog", AmbientCapabilities=both))

    assert frozenset({"CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"}) == rights.capabilities
    assert not rights.enters_namespaces
    assert read_rights(lambda: shown(CapabilityBoundingSet=both)).capabilities == frozenset()


def test_root_has_what_is_not_taken_away() -> None:
    rights = read_rights(lambda: shown(User="", CapabilityBoundingSet="cap_sys_admin"))

    assert frozenset({"CAP_SYS_ADMIN"}) == rights.capabilities


@pytest.mark.parametrize(("value", "expected"), [("yes", False), ("no", True), ("ipc net", True), ("ipc mnt", False)])
def test_namespaces_can_be_entered_when_networks_are_not_restricted(value: str, *, expected: bool) -> None:
    assert expected == read_rights(lambda: shown(RestrictNamespaces=value)).enters_namespaces


def test_without_systemctl_there_is_no_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    assert "" == reach.ask_systemd()


def test_kernel_tells_the_same_cgroup_as_for_the_listeners_of_this_process() -> None:
    answer = subprocess.run(["ss", "-tlnH", "--cgroup"], capture_output=True, text=True, check=False)
    if answer.returncode:
        pytest.skip("this ss does not know cgroups")

    assert ("cgroup:" in answer.stdout or not answer.stdout) == isinstance(ask_own_cgroup(), int)


@pytest.mark.parametrize(
    ("own", "status", "words"),
    [
        (4242, "ok", "orphans included"),
        (1, "warn", "a guess"),
        (None, "warn", "a guess"),
        (Gap(what="sockets", why="not permitted"), "warn", "not permitted"),
    ],
)
def test_where_no_cgroup_names_an_orphan_its_unit_is_a_guess(own: int | Gap | None, status: str, words: str) -> None:
    check = check_socket_cgroups(own)

    assert status == check.status
    assert words in check.detail
    assert bool(check.fix) == (status == "warn")


def test_group_memory_is_found_where_memory_stat_tells_it(tmp_path: Path) -> None:
    assert "warn" == check_group_memory(tmp_path).status

    (tmp_path / "cgroup.controllers").write_text("memory\n")
    (tmp_path / "memory.stat").write_text("anon 4096\nsock 8192\n")
    check = check_group_memory(tmp_path)
    assert ("ok", "socket memory of 1 cgroup can be read") == (check.status, check.detail)


def test_processes_need_two_capabilities_and_the_lines_to_add_are_told() -> None:
    half = Rights(frozenset({"CAP_SYS_PTRACE"}), enters_namespaces=True, source="test")
    check = check_processes(half)

    assert "the service lacks CAP_DAC_READ_SEARCH" in check.detail
    assert "AmbientCapabilities=CAP_DAC_READ_SEARCH CAP_SYS_PTRACE" in check.drop_in
    assert () == check_processes(half._replace(capabilities=frozenset(reach.TO_SEE_PROCESSES))).drop_in


def test_memory_of_other_namespaces_takes_rights_that_their_sockets_do_not() -> None:
    check = check_namespaces(SHIPPED, SPACES)

    assert "ok" == check.status
    assert (
        "the service sees 1,200 sockets in 1 namespace (docker 3f2a9c1be07d: 1,200), but of their memory only queued "
        "data without CAP_SYS_ADMIN, CAP_SYS_PTRACE, RestrictNamespaces=net" == check.detail
    )
    assert "RestrictNamespaces=net" in check.drop_in


def test_namespaces_that_are_in_sight_or_empty_are_no_warning() -> None:
    rights = Rights(frozenset(reach.TO_ENTER_NAMESPACES), enters_namespaces=True, source="test")

    assert ("ok", ()) == (check_namespaces(rights, SPACES).status, check_namespaces(rights, SPACES).drop_in)
    assert "ok" == check_namespaces(SHIPPED, SPACES[1:]).status


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_lines_to_add_give_the_unit_what_they_say_and_nothing_else(tmp_path: Path) -> None:
    def open_checks(lines: tuple[str, ...]) -> set[str]:
        unit = tmp_path / UNIT
        unit.write_text("\n".join([SHIPPED_UNIT.read_text(), *lines, ""]))
        command = ["systemd-analyze", "security", "--offline=true", "--json=short", unit]
        judged = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        return {each["name"] for each in judged if each["set"] is False}

    shipped = open_checks(())

    processes = open_checks(check_processes(SHIPPED).drop_in) - shipped
    spaces = open_checks(check_namespaces(SHIPPED, SPACES).drop_in) - shipped
    assert {"CapabilityBoundingSet=~CAP_SYS_PTRACE", "CapabilityBoundingSet=~CAP_SYS_ADMIN"} & processes == {
        "CapabilityBoundingSet=~CAP_SYS_PTRACE"
    }
    assert {
        "CapabilityBoundingSet=~CAP_SYS_ADMIN",
        "CapabilityBoundingSet=~CAP_SYS_PTRACE",
        "RestrictNamespaces=~net",
    } <= spaces
    assert not {
        each for each in spaces if each.startswith("RestrictNamespaces=~") and each != "RestrictNamespaces=~net"
    }


@pytest.mark.parametrize(
    ("capabilities", "sees", "enters"),
    [
        ((), False, False),
        (("CAP_SYS_PTRACE",), False, False),
        (reach.TO_SEE_PROCESSES, True, False),
        (reach.TO_ENTER_NAMESPACES, False, True),
    ],
)
def test_kernel_asks_for_just_these_capabilities(capabilities: tuple[str, ...], *, sees: bool, enters: bool) -> None:
    names = ",".join(f"+{each.removeprefix('CAP_').lower()}" for each in capabilities)
    given = ["--inh-caps", names, "--ambient-caps", names] if names else []
    target = subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert target.stdin
    assert target.stdout
    try:
        target.stdin.write(b"ready\n")
        target.stdin.flush()
        if not target.stdout.readline():
            pytest.skip("no permission to make a network namespace")

        def can(*command: str) -> bool:
            nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *given, *command]
            return subprocess.run(nobody, capture_output=True, check=False).returncode == 0

        assert sees == (can("ls", f"/proc/{target.pid}/fd/") and can("readlink", f"/proc/{target.pid}/fd/0"))
        assert enters == can("nsenter", f"--net=/proc/{target.pid}/ns/net", "true")
    finally:
        target.communicate()


def test_a_host_without_loopback_is_a_warning(monkeypatch):
    def fail(address):
        raise OSError(99, "Cannot assign requested address")

    monkeypatch.setattr(reach.socket, "create_server", fail)
    found = check_socket_cgroups(ask_own_cgroup())
    assert ("warn", True) == (found.status, "Cannot assign requested address" in found.detail)
