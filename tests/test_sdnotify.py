"""sd_notify to a real datagram socket, and its silence where nobody listens."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import sdnotify

needs_systemd = pytest.mark.skipif(sdnotify.send is None, reason="systemd-python is not installed")


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield listener


@needs_systemd
def test_assignments_arrive_as_they_were_written(systemd: socket.socket) -> None:
    sent = sdnotify.notify("READY=1")
    sdnotify.notify("WATCHDOG=1\nSTATUS=following the journal; no incident yet äöü")

    assert sent
    assert b"READY=1" == systemd.recv(4096)
    assert "WATCHDOG=1\nSTATUS=following the journal; no incident yet äöü" == systemd.recv(4096).decode()


@needs_systemd
def test_every_turn_can_notify_again(systemd: socket.socket) -> None:
    for _ in range(3):
        sdnotify.notify("WATCHDOG=1")

    assert [b"WATCHDOG=1"] * 3 == [systemd.recv(4096) for _ in range(3)]


def test_nothing_is_said_where_systemd_did_not_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)

    assert not sdnotify.notify("READY=1")


@needs_systemd
def test_a_listener_that_is_gone_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))

    assert not sdnotify.notify("READY=1")


def test_without_systemd_python_nothing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sdnotify, "send", None)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))

    assert not sdnotify.notify("READY=1")
