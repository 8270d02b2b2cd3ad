"""What the other network namespaces counted: from a tree in which they come and go, and from real ones."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from material import BOOT, make_sample
from msgspec.structs import replace

from agent.core.readings import Elsewhere
from agent.probe import counters as reader
from agent.probe.counters import Counters

KILLED = "TCPAbortOnMemory"


class Tree:
    """A tree like /proc; processes of one namespace share the files below net, as they do there."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "sys/kernel/random").mkdir(parents=True)
        (root / "sys/kernel/random/boot_id").write_text(BOOT + "\n")
        self.start("self")
        self.start("1", beside="self")

    def start(self, pid: str, cgroup: str = "/", beside: str = "", **counters: int) -> None:
        net = self.root / pid / "net"
        net.mkdir(parents=True)
        (self.root / pid / "comm").write_text("python3\n")
        (self.root / pid / "cgroup").write_text(f"0::{cgroup}\n")
        if beside:
            for file in (self.root / beside / "net").iterdir():
                (net / file.name).hardlink_to(file)
            return
        (net / "tcp").touch()
        (net / "sockstat").write_text("sockets: used 9\nTCP: inuse 5 orphan 0 tw 0 alloc 900 mem 9\n")
        self.count(pid, **counters)

    def count(self, pid: str, **counters: int) -> None:
        names, values = " ".join(counters), " ".join(map(str, counters.values()))
        (self.root / pid / "net/netstat").write_text(f"TcpExt: X {names}\nTcpExt: 1 {values}\n")

    def refuse(self, pid: str, datagrams: int) -> None:
        (self.root / pid / "net/snmp").write_text(f"Udp: InDatagrams MemErrors\nUdp: 12 {datagrams}\n")

    def end(self, *pids: str) -> None:
        for pid in pids:
            shutil.rmtree(self.root / pid)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def total(told: Elsewhere) -> int:
    return told.counters.get(KILLED, 0)


def test_counters_are_summed_over_the_other_namespaces_and_each_is_named_by_its_cgroup(tree: Tree) -> None:
    pod = f"/kubepods/pod8c5e7b1a-0c3d-4e5f-8a9b-0c1d2e3f4a5b/{'ab' * 32}"
    tree.start("50", "/system.slice/shop.service", TCPAbortOnMemory=7)
    tree.start("51", beside="50")
    tree.start("60", pod, TCPAbortOnMemory=30, ListenDrops=2)
    counters = Counters(tree.root)
    first = counters.read(sockets=True)
    tree.count("50", TCPAbortOnMemory=157)
    tree.count("60", TCPAbortOnMemory=31, ListenDrops=9, PruneCalled=4)
    second = counters.read()

    assert (2, 10, True) == (first.namespaces, first.inuse, first.is_whole)
    assert (2, 0, True) == (second.namespaces, second.inuse, second.is_whole)
    assert ({KILLED: 37, "ListenDrops": 2}, {}) == (first.counters, first.moved)
    assert {KILLED: 188, "ListenDrops": 9, "PruneCalled": 4} == second.counters
    assert {
        "shop.service": {KILLED: 150},
        "pod 8c5e7b1a-0c3d-4e5f-8a9b-0c1d2e3f4a5b": {KILLED: 1, "PruneCalled": 4},
    } == second.moved


def test_refused_datagrams_are_counted_like_the_others_within_six_looks(tree: Tree) -> None:
    tree.start("50", TCPAbortOnMemory=7)
    tree.refuse("50", 5)
    counters = Counters(tree.root)
    first = counters.read()
    tree.refuse("50", 8)
    looks = [counters.read() for _ in range(reader.DATAGRAM_LOOKS)]

    assert {KILLED: 7, "UdpMemErrors": 5} == first.counters
    assert [5, 8] == sorted({each.counters["UdpMemErrors"] for each in looks})


def test_refused_datagrams_of_a_namespace_are_not_counted_to_the_next_with_its_number(tree: Tree) -> None:
    tree.start("50", TCPAbortOnMemory=7)
    tree.refuse("50", 5)
    tree.start("51", beside="50")
    counters = Counters(tree.root)
    counters.read()
    tree.end("50")
    tree.count("51", TCPAbortOnMemory=2)
    tree.refuse("51", 1)

    assert {KILLED: 9, "UdpMemErrors": 6} == counters.read().counters


def test_sum_stays_when_a_namespace_ends_and_grows_when_one_begins(tree: Tree) -> None:
    tree.start("50", "/system.slice/old.service", TCPAbortOnMemory=40)
    counters = Counters(tree.root)
    counters.read()
    tree.end("50")
    ended = counters.read()
    tree.start("70", "/system.slice/new.service", TCPAbortOnMemory=3)
    begun = counters.read()

    assert (40, {KILLED: 40}, 0, {}) == (total(ended), ended.gone, ended.namespaces, ended.moved)
    assert (43, {"new.service": {KILLED: 3}}) == (total(begun), begun.moved)


def test_namespace_that_gets_the_number_of_one_that_ended_is_another(tree: Tree) -> None:
    tree.start("50", TCPAbortOnMemory=40)
    counters = Counters(tree.root)
    counters.read()
    tree.count("50", TCPAbortOnMemory=2)
    told = counters.read()

    assert (42, {KILLED: 40}) == (total(told), told.gone)
    assert [{KILLED: 2}] == list(told.moved.values())


def test_namespace_is_followed_when_the_process_that_it_was_found_by_ends(tree: Tree) -> None:
    tree.start("50", TCPAbortOnMemory=40)
    tree.start("51", beside="50")
    counters = Counters(tree.root)
    counters.read()
    tree.end("50")

    told = counters.read()
    assert (1, 40, {}) == (told.namespaces, total(told), told.gone)


def test_process_that_has_moved_to_another_namespace_is_noticed_in_time(tree: Tree) -> None:
    tree.start("50", beside="self")
    counters = Counters(tree.root)
    counters.read()
    tree.end("50")
    tree.start("50", TCPAbortOnMemory=4)

    looks = [total(counters.read()) for _ in range(reader.FULL_LOOKS)]
    assert [0, 4] == sorted(set(looks))


def test_restart_goes_on_with_what_ended_before_it_and_a_reboot_does_not(tree: Tree) -> None:
    tree.start("50", TCPAbortOnMemory=40)
    last = replace(make_sample(10), boot_id=BOOT, gone={KILLED: 9})

    assert 49 == total(Counters(tree.root, (last,)).read())
    assert 40 == total(Counters(tree.root, (replace(last, boot_id="another"),)).read())


def test_time_that_is_over_leaves_what_was_known_and_says_that_it_is_not_whole(tree: Tree) -> None:
    tree.start("50", TCPAbortOnMemory=40)
    counters = Counters(tree.root)
    counters.read()
    tree.count("50", TCPAbortOnMemory=50)
    late = counters.read(deadline_seconds=-1)
    tree.start("60", TCPAbortOnMemory=1000)
    told = counters.read()

    assert (40, False) == (total(late), late.is_whole)
    # What a namespace had counted before anybody could look is not news of now.
    assert (50, True) == (total(told), told.is_whole)
    assert 1 == len(told.moved)


def test_hidden_processes_make_it_not_whole(tree: Tree) -> None:
    tree.end("1")

    assert not Counters(tree.root).read().is_whole


def test_namespaces_named_are_few_and_those_that_moved_most(tree: Tree) -> None:
    for number in range(20):
        tree.start(str(100 + number), f"/system.slice/s{number}.service")
    counters = Counters(tree.root)
    counters.read()
    for number in range(20):
        tree.count(str(100 + number), TCPAbortOnMemory=number)

    assert [f"s{number}.service" for number in range(19, 11, -1)] == list(counters.read().moved)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a network namespace")
def test_real_namespace_is_read_as_nobody_in_particular() -> None:
    code = (
        "import os, socket, subprocess, sys\n"
        "subprocess.run(['ip', 'link', 'set', 'lo', 'up'], check=True)\n"
        "print('up', flush=True)\n"
        "for line in sys.stdin:\n"
        "    server = socket.create_server(('127.0.0.1', 0))\n"
        "    one = socket.create_connection(server.getsockname()); two = server.accept()[0]\n"
        "    one.send(b'x'); two.recv(1, socket.MSG_PEEK); two.close()\n"
        "    print('reset', flush=True)\n"
    )
    made = subprocess.Popen(
        ["unshare", "--net", sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert made.stdin
    assert made.stdout
    asked = (
        "import os, sys; from pathlib import Path; from agent.probe.counters import Counters\n"
        "counters = Counters(Path('/proc')); counters.read()\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        f"name = counters._known[os.stat('/proc/{made.pid}/net/tcp').st_ino]\n"
        "before = counters.read().counters.get('TCPAbortOnClose', 0)\n"
        "print('asked', flush=True); sys.stdin.readline()\n"
        "print(counters.read().counters.get('TCPAbortOnClose', 0) - before)"
    )
    try:
        if made.stdout.readline() != "up\n":
            pytest.skip("no network namespace with a loopback can be made here")
        nobody = subprocess.Popen(
            [sys.executable, "-c", asked], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert nobody.stdout
        assert "asked\n" == nobody.stdout.readline()
        for _ in range(3):
            made.stdin.write("again\n")
            made.stdin.flush()
            assert "reset\n" == made.stdout.readline()
        answer, _ = nobody.communicate("go\n")
    finally:
        made.communicate()

    # Others on this machine may have namespaces, too.
    assert int(answer) >= 3
