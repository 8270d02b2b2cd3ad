import errno
import os
import socket
from collections.abc import Iterator
from math import inf

import material as wire
import pytest
from harness import as_nobody
from material import done, error, tcp, usual

from agent.core.readings import Gap
from agent.core.sockets.census import Census
from agent.core.sockets.inetdiag import BUFFER_BYTES
from agent.probe import sockdiag
from agent.probe.sockdiag import DUMPS, LATE, WHAT, dump, open_socket


class Kernel:
    """The other end of a netlink socket: what it will answer is queued before it is asked."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.census = Census()
        self.time = 0.0

    def answer(self, *datagrams: bytes) -> "Kernel":
        for datagram in datagrams:
            self.theirs.send(datagram)
        return self

    def dump(self, deadline: float = 10.0) -> list[str]:
        gaps = dump(self.ours, self.census, deadline, lambda: self.time)
        assert {WHAT} >= {gap.what for gap in gaps}
        return [gap.why for gap in gaps]

    def asked(self) -> int:
        self.theirs.settimeout(0)
        count = 0
        try:
            while self.theirs.recv(1000):
                count += 1
        except BlockingIOError:
            pass
        return count

    @property
    def seen(self) -> int:
        return sum(row[0] for row in self.census.rows.values())


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    kernel = Kernel()
    with kernel.ours, kernel.theirs:
        yield kernel


def test_whole_dump_has_no_gap(kernel: Kernel) -> None:
    listening = tcp(*usual(), state=wire.LISTEN, sport=40001, dport=0)
    kernel.answer(listening, done(), done())
    kernel.answer(tcp(*usual()) * 3, tcp(*usual()) + done(), tcp(*usual(), peer="2001:db8::1"), done())

    assert [] == kernel.dump()
    assert (5, 1, len(DUMPS)) == (kernel.seen, kernel.census.listening, kernel.asked())


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOENT, "no tcp_diag"),
        (errno.EPERM, "not permitted"),
        (errno.EIO, "the kernel refused: Input/output error"),
    ],
)
def test_refusal_is_a_gap_with_its_mend_and_ends_the_dump(kernel: Kernel, code: int, words: str) -> None:
    kernel.answer(error(code))

    (why,) = kernel.dump()
    assert words in why
    assert 1 == kernel.asked()


def test_error_at_the_end_of_a_dump_is_a_gap(kernel: Kernel) -> None:
    kernel.answer(done(), done(), tcp(*usual()), done(errno.ENOMEM))

    assert ["the kernel refused: Cannot allocate memory"] == kernel.dump()
    assert 1 == kernel.seen


def test_dump_beyond_its_time_is_a_part_and_says_so(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel.answer(done(), done(), tcp(*usual()), tcp(*usual()), done(), done())
    times = iter([0, 1, 2, 11])
    gaps = dump(kernel.ours, kernel.census, 10, lambda: next(times))

    assert [Gap(what=WHAT, why="the dump did not finish in time: the counts are incomplete")] == gaps
    assert 1 == kernel.seen


def test_clock_and_deadline_that_are_both_infinite_leave_no_time(kernel: Kernel) -> None:
    assert [LATE] == dump(kernel.ours, kernel.census, inf, lambda: inf)
    assert 0 == kernel.seen


def test_kernel_that_does_not_answer_costs_no_more_than_the_time_there_is(kernel: Kernel) -> None:
    kernel.answer(done(), done(), tcp(*usual()))

    (why,) = kernel.dump(deadline=0.01)
    assert "did not finish in time" in why
    assert 1 == kernel.seen


def test_interrupted_dump_is_whole_but_told(kernel: Kernel) -> None:
    kernel.answer(done(), done(), tcp(*usual(), flags=wire.MULTI | wire.INTERRUPTED), done(), done())

    (why,) = kernel.dump()
    assert "changed during the dump" in why


def test_answer_larger_than_the_buffer_is_a_gap(kernel: Kernel) -> None:
    kernel.answer(done(), done(), tcp(*usual()) + bytes(BUFFER_BYTES))

    (why,) = kernel.dump()
    assert "was truncated" in why


def test_unknown_shapes_are_counted(kernel: Kernel) -> None:
    strange = tcp(*usual(), family=99)
    kernel.answer(done(), done(), strange, strange, done(), done())

    assert ["2 messages of unknown format skipped"] == kernel.dump()


def test_kernel_that_hangs_up_is_a_gap(kernel: Kernel) -> None:
    kernel.answer(done(), done())
    kernel.theirs.shutdown(socket.SHUT_WR)

    assert ["the kernel ended the dump without marking it complete"] == kernel.dump()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.EAFNOSUPPORT, "RestrictAddressFamilies"),
        (errno.EPROTONOSUPPORT, "no tcp_diag"),
        (errno.ENOBUFS, "ENOBUFS"),
    ],
)
def test_socket_that_cannot_be_had_is_a_gap(monkeypatch: pytest.MonkeyPatch, code: int, words: str) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, "no")

    monkeypatch.setattr(sockdiag.socket, "socket", refuse)

    found = open_socket()
    assert isinstance(found, Gap)
    assert words in found.why


def test_overrun_while_receiving_is_a_part(kernel: Kernel) -> None:
    class Overrun:
        sendall = settimeout = staticmethod(lambda *_: None)

        def recvmsg_into(self, _: object) -> None:
            raise OSError(errno.ENOBUFS, "No buffer space available")

    (gap,) = dump(Overrun(), kernel.census, 10, lambda: 0.0)
    assert "ENOBUFS" in gap.why


def netlink_address() -> tuple[socket.socket, int]:
    ours = open_socket()
    assert isinstance(ours, socket.socket)
    ours.bind((0, 0))
    return ours, ours.getsockname()[0]


@pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: only root can become another user")
def test_nobody_else_can_answer_in_the_kernels_place() -> None:
    ours, number = netlink_address()

    def forge() -> str:
        with netlink_address()[0] as theirs:
            theirs.sendto(done(), (number, 0))
        return "sent"

    with ours:
        assert "PermissionError" in as_nobody(forge)
