"""Network namespaces for real: a process in one of its own, made by unshare(1)."""

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import wait_for

from agent.core.readings import Gap, Namespace, Process
from agent.probe import namespaces, take_sockets
from agent.probe.namespaces import find_by_address, find_namespaces, open_in

PROC = Path("/proc")


@pytest.fixture
def stranger() -> Iterator[int]:
    """A process in a network namespace of its own."""
    made = subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert made.stdin
    assert made.stdout
    try:
        made.stdin.write(b"ready\n")
        made.stdin.flush()
        if not made.stdout.readline():
            pytest.skip("no permission to make a network namespace")
        yield made.pid
    finally:
        made.stdin.close()
        made.stdout.close()
        made.wait()


def test_namespace_is_found_with_its_sockets_and_a_process(stranger: int) -> None:
    found = {each.process.pid: each for each in find_namespaces(PROC, 1, lambda: 0)}

    assert "cat" == found[stranger].process.name
    assert 0 == found[stranger].inuse
    assert os.getpid() not in found


def test_sockets_of_both_families_are_counted(tmp_path: Path) -> None:
    net = tmp_path / "7/net"
    net.mkdir(parents=True)
    (net / "sockstat6").write_text("TCP6: inuse 2\n")
    assert 2 == namespaces.count_sockets(tmp_path, 7)
    (net / "sockstat").write_text("sockets: used 9\nTCP: inuse 5 orphan 0 tw 0 alloc 6 mem 1\n")
    assert 7 == namespaces.count_sockets(tmp_path, 7)


def test_namespace_is_found_once_however_many_live_in_it(stranger: int) -> None:
    again = subprocess.Popen(
        ["nsenter", "--net", "--target", str(stranger), "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert again.stdin
    assert again.stdout
    home = (PROC / "self/net/sockstat").stat().st_ino
    try:
        wait_for("the second process to be there", lambda: (PROC / f"{again.pid}/net/sockstat").stat().st_ino != home)
        pids = {each.process.pid for each in find_namespaces(PROC, 1, lambda: 0)}
    finally:
        again.communicate()

    assert {stranger} == pids & {stranger, again.pid}


def test_search_ends_when_its_time_is_over(stranger: int) -> None:
    assert [] == find_namespaces(PROC, 1, lambda: 2)


def test_socket_of_another_namespace_stays_there_and_we_stay_here(stranger: int) -> None:
    home = (PROC / "self/ns/net").readlink()
    opened = open_in(PROC, Namespace(process=Process(pid=stranger, name="cat")))
    if isinstance(opened, Gap):
        pytest.skip(f"not permitted: {opened.why}")
    with opened:
        assert socket.AF_NETLINK == opened.family
    assert home == (PROC / "self/ns/net").readlink()


def test_namespace_that_is_gone_is_a_gap(tmp_path: Path) -> None:
    found = open_in(tmp_path, Namespace(process=Process(pid=1, name="x")))

    assert Gap(what="sockets of other network namespaces", why="cannot be entered: No such file or directory") == found


def test_no_room_for_a_thread_is_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(namespaces.threading.Thread, "start", refuse)
    found = open_in(PROC, Namespace(process=Process(pid=os.getpid(), name="x")))

    assert Gap(what="sockets of other network namespaces", why="cannot be entered: can't start new thread") == found


def test_what_is_no_namespace_cannot_be_entered(tmp_path: Path) -> None:
    (tmp_path / "1/ns").mkdir(parents=True)
    (tmp_path / "1/ns/net").touch()

    found = open_in(tmp_path, Namespace(process=Process(pid=1, name="x")))
    assert isinstance(found, Gap)
    assert found.why in {"cannot be entered: Invalid argument", "cannot be entered: Operation not permitted"}


def test_bound_on_their_number_is_kept(stranger: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(namespaces, "NAMESPACES_AT_MOST", 0)

    assert [] == find_namespaces(PROC, 1, lambda: 0)


def test_without_permission_one_namespace_is_tried_and_all_are_read(
    stranger: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = Process(pid=stranger, name="cat")
    spaces = [Namespace(process=process, inuse=5), Namespace(process=process, inuse=7)]
    tried: list[Namespace] = []

    def refuse(_: Path, space: Namespace) -> Gap:
        tried.append(space)
        return namespaces.FORBIDDEN[0]

    monkeypatch.setattr(namespaces, "find_namespaces", lambda *_: spaces)
    monkeypatch.setattr(namespaces, "open_in", refuse)
    table = take_sockets(PROC, 10)

    assert [7] == [each.inuse for each in tried]
    assert [(7, 1, True), (5, 2, True)] == [(each.inuse, each.number, each.queues_only) for each in table.namespaces]
    assert [] == [gap for gap in table.gaps if "namespaces" in gap.what]


def test_namespace_without_sockets_is_not_entered(monkeypatch: pytest.MonkeyPatch) -> None:
    empty = Namespace(process=Process(pid=os.getpid(), name="cat"), inuse=0)
    monkeypatch.setattr(namespaces, "find_namespaces", lambda *_: [empty])
    monkeypatch.setattr(namespaces, "open_in", lambda *_: pytest.fail("it was entered"))

    assert (empty,) == take_sockets(PROC, 10).namespaces


def test_an_address_belongs_to_the_namespace_that_has_it_alone(stranger: int) -> None:
    for words in ("link set lo up", "address add 10.231.7.9/32 dev lo", "address add fd31::7/128 dev lo"):
        subprocess.run(["nsenter", "-t", str(stranger), "-n", "ip", *words.split()], check=True)
    space = Namespace(process=Process(pid=stranger, name="cat"))
    wanted = {"10.231.7.9", "fd31::7", "127.0.0.1", "192.0.2.1"}
    assert {"10.231.7.9": space, "fd31::7": space} == find_by_address(PROC, [space], wanted)
    assert {} == find_by_address(PROC, [space, space], wanted)
