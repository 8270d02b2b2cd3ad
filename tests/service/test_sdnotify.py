"""sd_notify to a real datagram socket: read, full, gone or never there."""

import contextlib
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from harness import fill

from agent.service import sdnotify


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield listener


def in_time(call: Callable[[], bool]) -> bool:
    """Give what a call returns, or fail when it still blocks after five seconds."""
    results: list[bool] = []
    thread = threading.Thread(target=lambda: results.append(call()), daemon=True)
    thread.start()
    thread.join(5)
    assert results
    return results[0]


def test_assignments_arrive_as_they_were_written(systemd: socket.socket) -> None:
    sent = sdnotify.notify("READY=1")
    sdnotify.notify("WATCHDOG=1\nSTATUS=following the journal; no incident yet äöü")

    assert sent
    assert b"READY=1" == systemd.recv(4096)
    assert "WATCHDOG=1\nSTATUS=following the journal; no incident yet äöü" == systemd.recv(4096).decode()


def test_the_kernel_says_with_it_who_sent_it_as_notifyaccess_main_needs(systemd: socket.socket) -> None:
    systemd.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    sdnotify.notify("READY=1")

    _, ((_, kind, credentials),), _, _ = systemd.recvmsg(4096, socket.CMSG_SPACE(12))
    assert socket.SCM_CREDENTIALS == kind
    assert (os.getpid(), os.getuid(), os.getgid()) == struct.unpack("3i", credentials)


def test_every_turn_can_notify_again(systemd: socket.socket) -> None:
    for _ in range(3):
        sdnotify.notify("WATCHDOG=1")

    assert [b"WATCHDOG=1"] * 3 == [systemd.recv(4096) for _ in range(3)]


def test_an_abstract_address_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"sockmem-agent-test-{uuid4().hex}"
    monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0{name}")
        listener.settimeout(5)

        assert sdnotify.notify("READY=1")
        assert b"READY=1" == listener.recv(4096)


def test_a_full_socket_is_not_waited_for_and_takes_what_is_said_again(systemd: socket.socket) -> None:
    fill(systemd)
    assert not in_time(lambda: sdnotify.notify("READY=1"))

    systemd.recv(4096)

    assert in_time(lambda: sdnotify.notify("READY=1"))


def test_a_full_socket_is_waited_for_no_longer_than_patience_lasts(systemd: socket.socket) -> None:
    fill(systemd)

    assert not in_time(lambda: sdnotify.notify("STOPPING=1", patience_seconds=0.1))


def test_with_patience_a_word_is_taken_as_soon_as_there_is_room(systemd: socket.socket) -> None:
    fill(systemd)
    thread = threading.Timer(0.1, systemd.recv, [4096])
    thread.start()

    assert in_time(lambda: sdnotify.notify("STOPPING=1", patience_seconds=4))
    thread.join(5)


def test_what_is_too_large_for_systemd_is_cut_and_still_feeds_the_watchdog(systemd: socket.socket) -> None:
    assert sdnotify.notify("WATCHDOG=1\nSTATUS=" + "x" * 10_000)

    received = systemd.recv(65536)
    assert 4096 == len(received)
    assert received.startswith(b"WATCHDOG=1\n")


def test_a_text_that_is_no_unicode_is_escaped(systemd: socket.socket) -> None:
    sdnotify.notify("STATUS=following /var/log/caf\udce9")

    assert b"STATUS=following /var/log/caf\\udce9" == systemd.recv(4096)


@pytest.mark.parametrize("address", [None, "", "vsock:2:1234", "notify", "@" + "x" * 200])
def test_nothing_is_said_where_systemd_did_not_ask(address: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if address is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", address)

    assert not sdnotify.notify("READY=1")


def test_a_listener_that_is_gone_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    assert not sdnotify.notify("READY=1")

    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as listener:
        listener.bind(str(tmp_path / "gone"))

    assert not sdnotify.notify("READY=1")


@pytest.mark.parametrize("word", [b"EXTEND_TIMEOUT_USEC=60000000", b"WATCHDOG=1"])
def test_work_that_takes_long_extends_the_start_or_feeds_the_watchdog(
    word: bytes, systemd: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.service.signals.asked.started", word == b"WATCHDOG=1")
    sdnotify.work_goes_on()
    assert word == systemd.recv(4096)
