"""Real sockets made by real processes, in real cgroups where this machine lets us make one."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from math import inf
from pathlib import Path

import pytest
from harness import wait_for
from msgspec.structs import replace

from agent.core.history.unit_growth import shares_of
from agent.core.model import Holder
from agent.core.readings import (
    FullGroup,
    Gap,
    Namespace,
    Process,
    SocketGroup,
    SocketTable,
    Sockstat,
    TcpSockstat,
    Unlisted,
)
from agent.core.sockets.holders import holders
from agent.probe import attribution, cgroups, namespaces, owners, sockdiag
from agent.probe.attribution import take_sockets

PROC = Path("/proc")
SECONDS = 10.0


class Subject:
    """The process of subject.py; ``peers`` are our ends of its connections."""

    def __init__(self, cgroup: Path | None = None) -> None:
        command = [sys.executable, str(Path(__file__).with_name("subject.py"))]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if cgroup:
            (cgroup / "cgroup.procs").write_text(str(self.process.pid))
        self.port = int(self.tell("listen"))
        self.peers: list[socket.socket] = []

    def tell(self, command: str) -> str:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def serve(self, count: int) -> "Subject":
        """Make connections that nobody reads, each with all the data it can take on its way."""
        self.peers = [socket.create_connection(("127.0.0.1", self.port)) for _ in range(count)]
        self.tell(f"accept {count}")
        self.tell("fill")
        return self

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.communicate()

    def close(self) -> None:
        """End it, and let the kernel forget its orphans."""
        self.end()
        for peer in self.peers:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            peer.close()


@pytest.fixture
def start() -> Iterator[Callable[..., Subject]]:
    started: list[Subject] = []

    def make(cgroup: Path | None = None) -> Subject:
        started.append(Subject(cgroup))
        return started[-1]

    yield make
    for subject in started:
        subject.close()


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """A cgroup of version 2 named like a unit."""
    root = owners.unified_root(PROC)
    path = (root or Path("/nowhere")) / f"sockmem-test-{os.getpid()}.service"
    try:
        path.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup of version 2 can be made here: {error}")
    try:
        yield path
    finally:
        remove_group(path)


def remove_group(path: Path) -> None:
    """Remove a cgroup once its last process is really gone."""

    def gone() -> bool:
        try:
            path.rmdir()
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True

    wait_for(f"{path} to be empty", gone)


def look(*, other_namespaces: bool = True, **options: object) -> SocketTable:
    """Look as the service does, which may not enter other network namespaces, or as root."""
    with pytest.MonkeyPatch.context() as patch:
        if not other_namespaces:
            patch.setattr(namespaces, "open_in", lambda *_: next(iter(namespaces.FORBIDDEN)))
        table = take_sockets(PROC, SECONDS, **options)
    assert table.complete
    return table


def group_of(port: int, table: SocketTable) -> SocketGroup | None:
    return next((each for each in table.groups if each.port == port), None)


def holder_of(port: int, table: SocketTable) -> Holder:
    return next(each for each in holders(table, None, 1000)[0] if port in each.ports)


def test_orphans_full_of_unsent_data_are_counted_as_such(start: Callable[..., Subject]) -> None:
    subject = start().serve(20)
    subject.tell("close")
    group = group_of(subject.port, look())

    assert group
    assert (20, 20) == (group.orphans, group.sockets)
    tally = group.orphaned["fin_wait1"]
    assert 20 == tally.retransmitting + tally.probing
    assert tally.unsent_bytes > 20 * 65536
    assert tally.bytes >= tally.wmem_bytes >= tally.unsent_bytes
    assert ["127.0.0.0/24"] == [peer.network for peer in group.peers]


def test_orphans_go_to_the_process_that_still_listens_on_their_port(start: Callable[..., Subject]) -> None:
    subject = start().serve(5)
    subject.tell("close")
    table = look()
    found, gaps = holders(table, None)

    listener = next(each for each in table.listeners if each.port == subject.port)
    assert listener.process
    assert subject.process.pid == listener.process.pid
    if group_of(subject.port, table).cgroup in {None, 1}:
        assert any("owners of orphans" == gap.what and f"port {subject.port}" in gap.why for gap in gaps)
    assert 5 == sum(each.orphans for each in found if subject.port in each.ports)
    assert (None, None, None) != (found[0].unit, found[0].container, found[0].process)


def test_orphans_are_the_units_after_its_processes_have_ended(cgroup: Path, start: Callable[..., Subject]) -> None:
    subject = start(cgroup).serve(10)
    subject.end()
    holder = holder_of(subject.port, look())

    assert (cgroup.name, 10) == (holder.unit, holder.orphans)
    assert holder.bytes > 10 * 65536


def test_orphans_of_a_removed_cgroup_are_its_id_or_the_name_it_had(cgroup: Path, start: Callable[..., Subject]) -> None:
    subject = start(cgroup).serve(5)
    names = owners.Names()
    look(names=names)
    number = cgroup.stat().st_ino
    subject.end()
    remove_group(cgroup)

    assert f"cgroup {number} (removed)" == holder_of(subject.port, look()).unit
    assert cgroup.name == holder_of(subject.port, look(names=names)).unit


def test_outgoing_connections_are_the_units_too(cgroup: Path, start: Callable[..., Subject]) -> None:
    server = start()
    client = start(cgroup)
    client.tell(f"connect {server.port} 4")
    groups = [each for each in look().groups if each.to_port == server.port]

    assert [(cgroup.stat().st_ino, 4)] == [(each.cgroup, each.sockets) for each in groups]


def test_full_groups_are_looked_for_among_those_that_have_sockets(
    cgroup: Path, start: Callable[..., Subject], monkeypatch: pytest.MonkeyPatch
) -> None:
    start(cgroup).serve(1)
    full = FullGroup(path=f"/{cgroup.name}", current_bytes=99, limit_bytes=100)
    monkeypatch.setattr(cgroups, "full_groups", lambda _, paths, __: [full] if full.path in paths else [])

    assert (full,) == look().full_groups


def test_full_groups_of_other_namespaces_are_known_by_the_processes_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def space(inuse: int, cgroup: str, *others: str) -> Namespace:
        return Namespace(process=Process(pid=2**22, name="web", cgroup=cgroup), inuse=inuse, others=others)

    asked: set[str] = set()
    spaces = [space(3, "/pod/web", "/pod/proxy"), space(0, "/idle")]
    monkeypatch.setattr(owners, "unified_root", lambda _: PROC)
    monkeypatch.setattr(owners, "find_paths", lambda *_: {})
    monkeypatch.setattr(namespaces, "find_namespaces", lambda *_: spaces)
    monkeypatch.setattr(cgroups, "full_groups", lambda _, paths, __: asked.update(paths) or [])
    look(other_namespaces=False)

    assert {"/pod/web", "/pod/proxy"} == asked & {"/pod/web", "/pod/proxy", "/idle"}


def test_a_full_group_has_the_name_of_its_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    path = "/kubepods/pod7b6ab6a2-1c5b-4a57-9a3c-0c3f1c1a1f10"
    space = Namespace(process=Process(pid=2**22, name="web", cgroup=f"{path}/web"), inuse=3)
    full = FullGroup(path=path, current_bytes=99, limit_bytes=100)
    monkeypatch.setattr(owners, "unified_root", lambda _: PROC)
    monkeypatch.setattr(owners, "find_paths", lambda *_: {})
    monkeypatch.setattr(owners, "find_pods", lambda _: {"7b6ab6a2-1c5b-4a57-9a3c-0c3f1c1a1f10": "shop/web-0"})
    monkeypatch.setattr(namespaces, "find_namespaces", lambda *_: [space])
    monkeypatch.setattr(cgroups, "full_groups", lambda *_: [full, replace(full, path="/a.service")])

    assert ["shop/web-0", None] == [each.pod for each in look(other_namespaces=False).full_groups]


def test_full_groups_that_were_not_looked_at_in_time_are_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = [0.0]

    def is_late_after_the_first(_: Path, __: object, is_late: Callable[[], bool]) -> list[FullGroup]:
        late = [is_late()]
        seconds[0] = SECONDS
        assert [False, True] == [*late, is_late()]
        return [FullGroup(path="/a", current_bytes=99, limit_bytes=100)]

    monkeypatch.setattr(owners, "unified_root", lambda _: PROC)
    monkeypatch.setattr(cgroups, "full_groups", is_late_after_the_first)
    table = take_sockets(PROC, SECONDS, clock=lambda: seconds[0])

    assert ["/a"] == [each.path for each in table.full_groups]
    assert table.cut_short
    assert Gap(what="memory limits of cgroups", why="the search did not finish in time") in table.gaps


def test_pods_are_named_that_are_known_by_their_processes_alone(
    start: Callable[..., Subject], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those in the host's network namespace, where sockets have no cgroup (kernels before 5.8, cgroup version 1)."""
    start().serve(1)
    seen: list[str] = []
    pod, beside = (f"/kubepods/burstable/pod{name}" for name in ("host-network", "sidecar"))
    monkeypatch.setattr(owners, "read_process", lambda _, pid: Process(pid=pid, name="web", cgroup=pod))
    space = Namespace(process=Process(pid=2**22, name="pause"), others=(beside,))
    monkeypatch.setattr(namespaces, "find_namespaces", lambda *_: [space])
    monkeypatch.setattr(owners, "find_pods", lambda sight: seen.append(sight) or {})
    look(other_namespaces=False)

    assert [True, True] == [each in seen[0] for each in (pod, beside)]


def test_sockets_that_the_application_forgot_to_close_are_held(start: Callable[..., Subject]) -> None:
    subject = start()
    peers = [socket.create_connection(("127.0.0.1", subject.port)) for _ in range(7)]
    subject.tell("accept 7")
    for peer in peers:
        peer.close()
    group = group_of(subject.port, look())

    assert group
    assert 7 == group.held["close_wait"].sockets
    assert 0 == group.orphans


def test_connections_that_nobody_accepts_are_queued_and_the_listeners(start: Callable[..., Subject]) -> None:
    subject = start()
    subject.peers = [socket.create_connection(("127.0.0.1", subject.port)) for _ in range(5)]
    for peer in subject.peers:
        peer.send(b"hello")
    table = look()
    group = group_of(subject.port, table)

    assert group
    assert (5, 25) == (group.queued["established"].sockets, group.queued["established"].unread_bytes)
    assert {} == group.held
    (listener,) = [each for each in table.listeners if each.port == subject.port]
    assert (5, 128) == (listener.waiting, listener.backlog)
    assert holder_of(subject.port, table).sockets >= 6


def test_time_wait_is_in_no_total(start: Callable[..., Subject]) -> None:
    subject = start()
    peers = [socket.create_connection(("127.0.0.1", subject.port)) for _ in range(3)]
    subject.tell("accept 3")
    subject.tell("close")
    for peer in peers:
        assert b"" == peer.recv(1)
        peer.close()
    wait_for("three in TIME_WAIT", lambda: group_of(subject.port, look()) is None, 5)

    assert "time_wait" not in look().minisocks


def test_what_went_during_the_dump_is_no_remainder() -> None:
    before = Sockstat(tcp=TcpSockstat(inuse=186, orphan=92, alloc=294, mem=4352))
    after = Sockstat(tcp=TcpSockstat(inuse=86, orphan=42, alloc=300, mem=2304))

    assert TcpSockstat(inuse=86, orphan=42, alloc=294, mem=2304) == attribution._lower(before, after).tcp
    assert before == attribution._lower(before, None)


def test_what_went_while_other_namespaces_were_listed_is_no_remainder_either(monkeypatch: pytest.MonkeyPatch) -> None:
    now, look_elsewhere = [Sockstat(tcp=TcpSockstat(orphan=97))], attribution._look_elsewhere

    def take_long(*args: object) -> object:
        now.append(Sockstat(tcp=TcpSockstat(orphan=17)))
        return look_elsewhere(*args)

    monkeypatch.setattr(attribution, "_read_sockstat", lambda _: now[-1])
    monkeypatch.setattr(attribution, "_look_elsewhere", take_long)

    sockstat = take_sockets(PROC, SECONDS).sockstat
    assert sockstat
    assert 17 == sockstat.tcp.orphan


def test_orphans_in_all_are_those_of_sockstat(start: Callable[..., Subject]) -> None:
    start().serve(30).tell("close")

    def equal() -> bool:
        table = look()
        assert table.sockstat
        return table.sockstat.tcp.orphan == sum(group.orphans for group in table.groups) >= 30

    # Others on this machine may open and close sockets between the two readings.
    wait_for("the same number of orphans in both", equal, 5)


def test_memory_in_all_is_that_of_sockstat(start: Callable[..., Subject]) -> None:
    start().serve(40)
    # What the CPUs may hold back of it (kernel 6.0 and newer), and the 2 % that may be wrong.
    held_back = (os.cpu_count() or 1) * 2 * 2**20

    def close_enough() -> bool:
        table = look()
        assert table.sockstat
        mem = (table.sockstat.tcp.mem or 0) * os.sysconf("SC_PAGE_SIZE")
        return abs(mem - sum(group.bytes for group in table.groups)) <= mem // 50 + held_back

    wait_for("the same memory in both", close_enough, 5)
    assert sum(group.bytes for group in look().groups) > 40 * 2**20


def test_listener_in_the_table_has_its_process(start: Callable[..., Subject]) -> None:
    subject = start()

    assert {subject.process.pid} == {
        each.process.pid for each in look().listeners if each.port == subject.port and each.process
    }


def test_other_namespaces_are_read_from_proc_where_they_may_not_be_entered() -> None:
    script = Path(__file__).with_name("subject.py")
    code = (
        "import subprocess, sys; subprocess.run(['ip', 'link', 'set', 'lo', 'up'], check=True); "
        f"exec(open({str(script)!r}).read())"
    )
    made = subprocess.Popen(
        ["unshare", "--net", sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert made.stdin
    assert made.stdout
    try:
        made.stdin.write("listen\n")
        made.stdin.flush()
        port = made.stdout.readline().strip()
        if not port:
            pytest.skip("no network namespace with a loopback can be made here")
        made.stdin.write(f"connect {port} 6\nfill\nclose\n")
        made.stdin.flush()
        assert ["done\n"] * 3 == [made.stdout.readline() for _ in range(3)]
        views = [look(other_namespaces=False), look()]

        def same() -> bool:
            # What is queued moves until the peers' buffers are full.
            views[:] = [look(other_namespaces=False), look()]
            return _seen(made.pid, views[0]) == _seen(made.pid, views[1])

        wait_for("the same sockets either way", same)
    finally:
        made.communicate()

    read, dumped = views
    assert (True, False) == (_space(made.pid, read).queues_only, _space(made.pid, dumped).queues_only)
    assert 13 == _space(made.pid, read).inuse
    listening, groups = _seen(made.pid, read)
    assert [(int(port), 6)] == listening
    assert {(int(port), None, 6, 0, "127.0.0.0/24"), (None, int(port), 6, 6, "127.0.0.0/24")} == {
        each[:5] for each in groups
    }
    sizes = [sum(each.bytes for each in table.groups if each.namespace) for table in views]
    assert 0 < sizes[0] <= sizes[1]


def _space(pid: int, table: SocketTable) -> Namespace:
    return next(each for each in table.namespaces if each.process.pid == pid)


def _seen(pid: int, table: SocketTable) -> tuple[list[tuple[int, int]], set[tuple[object, ...]]]:
    number = _space(pid, table).number
    groups = [each for each in table.groups if each.namespace == number]
    return [(each.port, each.waiting) for each in table.listeners if each.namespace == number], {
        (each.port, each.to_port, each.sockets, each.orphans, each.peers[0].network, *_queued(each)) for each in groups
    }


def _queued(group: SocketGroup) -> tuple[int, int, int]:
    tallies = group.tallies()
    waiting = sum(each.probing + each.retransmitting for each in tallies)
    return sum(each.unread_bytes for each in tallies), sum(each.unsent_bytes for each in tallies), waiting


@pytest.mark.parametrize("barred", [False, True])
def test_programs_are_looked_for_where_most_sockets_are_in_no_table(
    monkeypatch: pytest.MonkeyPatch, *, barred: bool
) -> None:
    found = Unlisted(process=Process(pid=812, name="python3"), sockets=900)
    monkeypatch.setattr(attribution, "are_most_unlisted", lambda *_: True)
    monkeypatch.setattr(owners, "find_unlisted", lambda *_: ([], 3) if barred else ([found], 0))
    table = look()

    assert (() if barred else (found,)) == table.unlisted
    assert barred == any("run sockmem-agent diagnose as root" in gap.why for gap in table.gaps)


def test_tree_of_another_host_has_no_sockets(proc_root: Path) -> None:
    table = take_sockets(proc_root, SECONDS)

    assert (False, ()) == (table.complete, table.groups)
    assert ["sockets (sock_diag)"] == [gap.what for gap in table.gaps]


def test_no_time_at_all_gives_a_part_with_gaps() -> None:
    table = take_sockets(PROC, 0.0)

    assert not table.complete
    assert "did not finish in time" in table.gaps[0].why


def test_stopped_before_it_begins_it_asks_the_kernel_nothing_and_walks_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((sockdiag, "open_socket"), (namespaces, "process_ids"), (owners, "process_ids")):
        monkeypatch.setattr(module, name, lambda *_, name=name: pytest.fail(f"{name} was called"))

    assert SocketTable(gaps=(sockdiag.LATE,)) == take_sockets(PROC, SECONDS, clock=lambda: inf)


@pytest.mark.parametrize("place", ["_dump_here", "_look_elsewhere"])
def test_stopped_in_the_middle_it_groups_and_names_nothing(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    stopped: list[bool] = []
    real = getattr(attribution, place)

    def stop(*args: object) -> object:
        found = real(*args)
        stopped.append(True)
        return found

    monkeypatch.setattr(attribution, place, stop)
    monkeypatch.setattr(attribution, "group", lambda _: pytest.fail("it was grouped"))
    table = take_sockets(PROC, SECONDS, clock=lambda: inf if stopped else time.monotonic())

    assert (False, ()) == (table.complete, table.groups)
    assert sockdiag.LATE in table.gaps


@pytest.mark.parametrize("late", ["cgroups", "processes"])
def test_time_over_after_the_dump_keeps_the_sockets_but_is_no_look_for_growth(
    start: Callable[..., Subject], monkeypatch: pytest.MonkeyPatch, late: str
) -> None:
    subject = start().serve(3)
    over: list[bool] = []
    place = {"cgroups": "_find_paths", "processes": "_find_processes"}[late]
    real = getattr(attribution, place)
    if late == "cgroups":
        monkeypatch.setattr(attribution, "has_cgroup", lambda cgroup: cgroup is not None)

    def expire(*args: object) -> object:
        over.append(True)
        return real(*args)

    monkeypatch.setattr(attribution, place, expire)
    table = take_sockets(PROC, SECONDS, clock=lambda: time.monotonic() + (2 * SECONDS if over else 0))

    assert table.complete
    assert group_of(subject.port, table)
    process = Process(pid=subject.process.pid, name="python")
    seen = replace(table, groups=tuple(replace(each, cgroup=None, process=process) for each in table.groups))
    assert shares_of(replace(seen, cut_short=False))
    assert () == shares_of(seen)


def test_refused_socket_gives_gaps_and_no_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(97, "Address family not supported by protocol")

    monkeypatch.setattr(sockdiag.socket, "socket", refuse)
    table = take_sockets(PROC, SECONDS)

    assert not table.complete
    assert "RestrictAddressFamilies" in table.gaps[0].why


def test_time_is_kept_by_the_clock_that_was_given() -> None:
    began = time.monotonic()

    assert take_sockets(PROC, 5, clock=lambda: began).took_seconds == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_nobody_in_particular_sees_all_sockets_too(start: Callable[..., Subject]) -> None:
    subject = start().serve(3)
    subject.tell("close")
    # Once as root, so that everything is imported: others may not be allowed to read this code.
    code = (
        "import os; from pathlib import Path; from agent.probe.attribution import take_sockets\n"
        f"take_sockets(Path('/proc'), {SECONDS})\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        f"table = take_sockets(Path('/proc'), {SECONDS})\n"
        f"print([(g.port, g.orphans) for g in table.groups if g.port == {subject.port}], *table.gaps)"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert other.stdout.startswith(f"[({subject.port}, 3)]")
    assert "processes of other users are not readable" in other.stdout
