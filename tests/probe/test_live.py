"""Troubles as they come, made by real processes in real cgroups: the right unit comes first, the right claim is made.

Each scenario has a network namespace of its own, so that nothing on this machine disturbs it and it disturbs nothing.
The limits are judged as if they were just reached by what the scenario holds: the real ones are the whole machine's.
"""

import ctypes
import fcntl
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path

import pytest
from harness import wait_for
from msgspec.structs import replace

from agent.core.diagnosis.diagnose import diagnose
from agent.core.model import Confidence, Diagnosis, Event, Finding, Kind
from agent.core.readings import SocketTable, Sockstat, TcpSockstat
from agent.core.sockets.holder_names import name_of
from agent.core.sockets.shares import HELD_BY
from agent.probe import namespaces, owners, take_snapshot, take_sockets

PROC = Path("/proc")
SECONDS = 10.0
PAGE = os.sysconf("SC_PAGE_SIZE")
CLONE_NEWNET = 0x40000000
SIOCSIFFLAGS, IFF_UP = 0x8914, 0x1
SO_ATTACH_FILTER = 26
ID = "3f2a9c1be07d" + "0" * 52
DOCKER = (f"system.slice/docker-{ID}.scope", "docker 3f2a9c1be07d")
POD_UID = "8f6bd9c1_5c3c_4c38_9d7e_3f9f1b2a7c10"
PODS = "kubepods.slice/kubepods-burstable.slice"
POD = (
    f"{PODS}/kubepods-burstable-pod{POD_UID}.slice/cri-containerd-{ID}.scope",
    f"containerd 3f2a9c1be07d (pod {POD_UID.replace('_', '-')})",
)
LINES: dict[Kind, str] = {
    "too_many_orphans": "TCP: too many orphaned sockets",
    "tcp_mem": "TCP: out of memory -- consider tuning tcp_mem",
}


class Unit:
    """The process of subject.py in a cgroup; ``peers`` are our ends of its connections."""

    def __init__(self, cgroup: Path, *, backlog: int = 128, alone: bool = False) -> None:
        inner = [sys.executable, str(Path(__file__).with_name("subject.py"))]
        command = ["unshare", "--net", sys.executable, "-c", LOOPBACK, *inner] if alone else inner
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        (cgroup / "cgroup.procs").write_text(str(self.process.pid))
        self.peers: list[socket.socket] = []
        self.port = int(self.tell(f"listen {backlog}"))

    def tell(self, command: str) -> str:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().strip()
        assert answer, f"no answer to: {command}"
        return answer

    def meet(self, count: int, *, accepted: bool = True, **buffers: int) -> list[socket.socket]:
        """Connect to it so many times; ``buffers`` are options of our ends (SO_RCVBUF=4096)."""
        made: list[socket.socket] = []
        # In portions: a full accept queue would let the next one wait.
        while accepted and len(made) < count:
            portion = min(100, count - len(made))
            made += [connect(self.port, **buffers) for _ in range(portion)]
            self.tell(f"accept {portion}")
        if not accepted:
            made = [connect(self.port, **buffers) for _ in range(count)]
        self.peers += made
        return made

    def close(self) -> None:
        """End it, and let the kernel forget its orphans."""
        if self.process.poll() is None:
            self.process.communicate()
        for peer in self.peers:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            peer.close()


LOOPBACK = f"""
import fcntl, os, socket, struct, sys
with socket.socket() as any_socket:
    fcntl.ioctl(any_socket, {SIOCSIFFLAGS}, struct.pack("16sH14x", b"lo", {IFF_UP}))
os.execv(sys.argv[1], sys.argv[1:])
"""

Start = Callable[..., Unit]


@pytest.fixture
def own_network() -> Iterator[None]:
    """A network namespace of our own for this thread and all that it starts."""
    library = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    if library.unshare(CLONE_NEWNET):
        os.close(home)
        pytest.skip(f"no network namespace can be made here: {os.strerror(ctypes.get_errno())}")
    try:
        with socket.socket() as any_socket:
            fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))
        yield
    finally:
        assert 0 == library.setns(home, CLONE_NEWNET)
        os.close(home)


@pytest.fixture
def top() -> Iterator[Path]:
    """A cgroup of version 2, to make those of units in."""
    root = owners.unified_root(PROC)
    path = (root or Path("/nowhere")) / f"sockmem-live-{os.getpid()}"
    try:
        path.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup of version 2 can be made here: {error}")
    try:
        yield path
    finally:
        # The deepest first, each once its last process is really gone.
        groups = (each for each in path.rglob("*") if each.is_dir())
        for group in sorted(groups, key=lambda each: len(each.parts), reverse=True):
            wait_for(f"{group} to be empty", lambda group=group: removed(group))
        wait_for(f"{path} to be empty", lambda: removed(path))


@pytest.fixture
def start(own_network: None, top: Path) -> Iterator[Start]:
    started: list[Unit] = []

    def make(name: str, **options: int) -> Unit:
        cgroup = top / name
        cgroup.mkdir(parents=True, exist_ok=True)
        started.append(Unit(cgroup, **options))
        return started[-1]

    yield make
    for unit in started:
        unit.close()


def removed(group: Path) -> bool:
    try:
        group.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def connect(port: int, **buffers: int) -> socket.socket:
    made = socket.socket()
    for name, size in buffers.items():
        made.setsockopt(socket.SOL_SOCKET, getattr(socket, name), size)
    made.connect(("127.0.0.1", port))
    return made


def vanish(peer: socket.socket) -> None:
    """Let the kernel drop whatever arrives for it, unanswered: a filter of one instruction, "return 0"."""
    drop = ctypes.create_string_buffer(struct.pack("=HBBI", 0x06, 0, 0, 0))
    peer.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("@HP", 1, ctypes.addressof(drop)))


def pour(peers: list[socket.socket]) -> None:
    """Send until nothing more is taken for now."""
    for peer in peers:
        peer.settimeout(0)
        try:
            while True:
                peer.send(bytes(65536))
        except BlockingIOError:
            continue


def look(*, other_namespaces: bool = False) -> SocketTable:
    """Look as the service does, which may not enter other network namespaces, or as root."""
    with pytest.MonkeyPatch.context() as patch:
        if not other_namespaces:
            patch.setattr(namespaces, "open_in", lambda *_: next(iter(namespaces.FORBIDDEN)))
        table = take_sockets(PROC, SECONDS)
    assert table.complete
    return table


def judge(table: SocketTable, *kinds: Kind, all_of: SocketTable | None = None) -> Diagnosis:
    """Diagnose what the kernel told, with its limits just reached by all that there is: ``all_of`` this table."""
    now = datetime.now(timezone.utc)
    groups = (all_of or table).groups
    orphans, size = sum(each.orphans for each in groups), sum(each.bytes for each in groups)
    sockstat = Sockstat(tcp=TcpSockstat(orphan=orphans, mem=size // PAGE, alloc=sum(each.sockets for each in groups)))
    snapshot = take_snapshot(PROC, now, "event")
    pages = max(size // PAGE, 1)
    limits = {
        "net.ipv4.tcp_max_orphans": (max(orphans, 1) if "too_many_orphans" in kinds else 65_536,),
        "net.ipv4.tcp_mem": (pages // 2, pages * 3 // 4, pages)
        if "tcp_mem" in kinds
        else (10**6, 2 * 10**6, 3 * 10**6),
    }
    return diagnose(
        replace(
            snapshot,
            meminfo={},  # Limits as low as these are no host's: nothing is known that they could be held against.
            sockstat=sockstat,
            sysctls=snapshot.sysctls | limits,
            sockets=replace(table, sockstat=sockstat),
        ),
        tuple(event(kind, now) for kind in kinds),
        (),
    )


def event(kind: Kind, now: datetime) -> Event:
    return Event(
        at=now,
        uptime=None,
        host=None,
        kind=kind,
        suppressed=None,
        count=1,
        source="kmsg:1",
        provenance="kernel",
        line=LINES[kind],
    )


def find(claim: str, diagnosis: Diagnosis) -> Finding | None:
    return next((each for each in diagnosis.findings if each.claim == claim), None)


def blame(diagnosis: Diagnosis) -> tuple[str | None, str]:
    """Return who is named first, and whom the first step is about."""
    return name_of(diagnosis.holders[0]), diagnosis.advice[0].action.removeprefix("Fix ").partition(": it holds")[0]


def held_by(finding: Finding | None) -> list[object]:
    return [each.value for each in finding.evidence if each.name == HELD_BY] if finding else []


def await_claim(claim: str, *kinds: Kind, sure: Confidence | None = None) -> Diagnosis:
    """Look until it is claimed: timers and windows take a moment to become what they are."""
    found: list[Diagnosis] = []

    def claimed() -> bool:
        found[:] = [judge(look(), *kinds)]
        finding = find(claim, found[0])
        return finding is not None and sure in {None, finding.confidence}

    wait_for(claim, claimed, 20)
    return found[0]


def await_last_acknowledgements() -> None:
    """Let the ends that were closed become minisocks: an acknowledgement may be delayed by 40 ms."""
    wait_for("no orphans any more", lambda: not any(each.orphans for each in look().groups))


def test_unit_that_leaks_connections_is_named_among_others(start: Start) -> None:
    for other in ("mail.service", "cache.service", "web.service"):
        for peer in start(other).meet(20):
            peer.send(b"hello")
    leaky = start("shop.service")
    for peer in leaky.meet(300):
        peer.send(b"hello")

    diagnosis = await_claim("one_owner_holds_very_many_connections", "tcp_mem")

    assert ("shop.service", "shop.service") == blame(diagnosis)
    assert ["shop.service"] == held_by(find("one_owner_holds_very_many_connections", diagnosis))
    assert (301, 0) == (diagnosis.holders[0].sockets, diagnosis.holders[0].orphans)


def test_unit_that_does_not_read_is_named(start: Start) -> None:
    start("web.service").meet(20)
    peers = start("shop.service").meet(30, SO_SNDBUF=4608)
    pour(peers)

    diagnosis = await_claim("one_owner_does_not_read", "tcp_mem")

    assert ("shop.service", "shop.service") == blame(diagnosis)
    assert ["shop.service"] == held_by(find("one_owner_does_not_read", diagnosis))


def test_unit_whose_peers_do_not_read_is_named(start: Start) -> None:
    start("web.service").meet(20)
    writer = start("nginx.service")
    writer.meet(30, SO_RCVBUF=4096)
    writer.tell("fill")

    diagnosis = await_claim("peers_take_data_slowly", "tcp_mem", sure="likely")

    assert ("nginx.service", "nginx.service") == blame(diagnosis)
    assert ["nginx.service"] == held_by(find("peers_take_data_slowly", diagnosis))
    assert "sndbuf=" in diagnosis.advice[0].why


def test_unit_whose_clients_stopped_reading_is_named_for_its_orphans(start: Start) -> None:
    start("web.service").meet(20)
    writer = start("nginx.service")
    writer.meet(30, SO_RCVBUF=4096)
    writer.tell("fill")
    writer.tell("close")

    diagnosis = await_claim("orphans_wait_for_stalled_peers", "too_many_orphans", "tcp_mem")

    assert ("nginx.service", "nginx.service") == blame(diagnosis)
    assert ["nginx.service"] == held_by(find("orphans_wait_for_stalled_peers", diagnosis))
    assert find("orphans_fill_memory", diagnosis)


def test_unit_whose_clients_vanished_is_named_for_its_orphans(start: Start) -> None:
    start("web.service").meet(20)
    server = start("haproxy.service")
    for peer in server.meet(260):
        vanish(peer)
    server.tell("say 100")
    server.tell("close")

    diagnosis = await_claim("orphans_wait_for_vanished_peers", "too_many_orphans", sure="likely")

    assert "orphans" == diagnosis.cause
    assert ("haproxy.service", "haproxy.service") == blame(diagnosis)
    assert ["haproxy.service"] == held_by(find("orphans_wait_for_vanished_peers", diagnosis))
    assert 260 == diagnosis.holders[0].orphans


def test_flood_of_short_connections_is_the_units_that_served_them(start: Start) -> None:
    start("mail.service").meet(20)
    server = start("web.service")
    peers = server.meet(280)
    for number, peer in enumerate(peers):
        if number % 2:
            peer.shutdown(socket.SHUT_WR)
        vanish(peer)
    server.tell("say 100")
    server.tell("close")

    diagnosis = await_claim("orphans_come_of_short_connections", "too_many_orphans")
    finding = find("orphans_come_of_short_connections", diagnosis)

    assert ("web.service", "web.service") == blame(diagnosis)
    assert ["web.service"] == held_by(finding)
    assert finding
    assert "140 fin_wait1, 140 last_ack" in [each.value for each in finding.evidence]


def test_unit_that_forgets_to_close_is_named(start: Start) -> None:
    start("web.service").meet(20)
    shop = start("shop.service")
    for peer in shop.meet(300):
        peer.send(b"bye")
        peer.close()
    shop.peers.clear()
    await_last_acknowledgements()

    diagnosis = await_claim("one_owner_leaks_connections", "tcp_mem")

    assert ("shop.service", "shop.service") == blame(diagnosis)
    assert ["shop.service"] == held_by(find("one_owner_leaks_connections", diagnosis))
    assert "only a restart frees them" in diagnosis.advice[0].why


def test_unit_that_does_not_accept_is_named(start: Start) -> None:
    start("web.service").meet(20)
    for peer in start("shop.service", backlog=200).meet(160, accepted=False):
        peer.send(bytes(2000))

    diagnosis = await_claim("accept_queue_not_drained", "tcp_mem")

    assert ("shop.service", "shop.service") == blame(diagnosis)
    assert ["shop.service"] == held_by(find("accept_queue_not_drained", diagnosis))
    assert not diagnosis.holders[0].guess


def test_client_that_leaks_is_named_and_not_the_database_that_it_went_to(start: Start) -> None:
    database, client = start("postgresql.service"), start("shop.service")
    for _ in range(3):
        client.tell(f"connect {database.port} 90")
        database.tell("accept 90")
    database.tell("say 100")
    database.tell("close")
    await_last_acknowledgements()

    diagnosis = await_claim("one_owner_leaks_connections", "tcp_mem")

    assert ("shop.service", "shop.service") == blame(diagnosis)
    assert ["shop.service"] == held_by(find("one_owner_leaks_connections", diagnosis))
    assert (f"127.0.0.0/24 port {database.port}",) == diagnosis.holders[0].peers


@pytest.mark.parametrize(("path", "name"), [DOCKER, POD], ids=["docker", "kubernetes"])
def test_container_is_named_by_its_id(start: Start, path: str, name: str) -> None:
    start("web.service").meet(20)
    writer = start(path)
    writer.meet(30, SO_RCVBUF=4096)
    writer.tell("fill")
    writer.tell("close")

    diagnosis = await_claim("orphans_wait_for_stalled_peers", "too_many_orphans", "tcp_mem")

    assert name == diagnosis.holders[0].container
    assert [name_of(diagnosis.holders[0])] == held_by(find("orphans_wait_for_stalled_peers", diagnosis))
    assert diagnosis.advice[0].action.startswith(f"Fix {name}")


def test_culprit_in_another_network_namespace_is_named_with_and_without_privilege(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = start("web.service")
    here.meet(20)
    here.tell("say 100")
    there = start("pod.service", alone=True)
    there.tell(f"connect {there.port} 100")
    there.tell("accept 100")
    there.tell("fill")
    # Where the rest of this machine lives is another namespace, too, and not the scenario's.
    find_all = namespaces.find_namespaces
    monkeypatch.setattr(
        namespaces,
        "find_namespaces",
        lambda *given: [each for each in find_all(*given) if each.process.pid == there.process.pid],
    )
    everywhere = look(other_namespaces=True)

    seen = judge(everywhere, "tcp_mem")
    hidden = judge(look(), "tcp_mem", all_of=everywhere)

    assert ("pod.service", "pod.service") == blame(seen)
    assert not find("attribution_incomplete", seen)
    # Without privilege its queues are read, and they are most of the memory.
    assert ("pod.service", "pod.service") == blame(hidden)
    assert [there.process.pid] * 2 == [each.holders[0].netns_pid for each in (seen, hidden)]
    assert [seen.holders[0].sockets] == [each.sockets for each in hidden.holders if each.unit == "pod.service"]
    assert any("memory of other network namespaces" == gap.what and "pod.service" in gap.why for gap in hidden.gaps)


def test_unit_with_few_heavy_orphans_outweighs_one_with_many_idle_sockets(start: Start) -> None:
    start("chat.service").meet(400)
    writer = start("nginx.service")
    writer.meet(40, SO_RCVBUF=4096)
    writer.tell("fill")
    writer.tell("close")

    diagnosis = await_claim("orphans_fill_memory", "too_many_orphans", "tcp_mem")
    first, *others = diagnosis.holders

    assert ("nginx.service", "nginx.service") == blame(diagnosis)
    assert (40, 41) == (first.orphans, first.sockets)
    assert [("chat.service", 401)] == [(each.unit, each.sockets) for each in others if each.unit == "chat.service"]
