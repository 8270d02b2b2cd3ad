"""What the tests of the channels share: manners of bad servers, and an incident to tell them about."""

import contextlib
import re
import socket
import threading
from collections.abc import Callable, Collection, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

from agent.core.delivery import Receipt
from agent.core.model import (
    Advice,
    Diagnosis,
    Digest,
    DigestNotice,
    Event,
    Incident,
    Mechanism,
    Notice,
    NoticeType,
    Peak,
    Sysctl,
)
from agent.store import Pending

Handler = Callable[[socket.socket], None]
OPENED_AT = datetime(2026, 11, 22, 15, 5, 39, tzinfo=timezone.utc)
LINE = "Nov 22 15:05:39 web1 kernel: [261096.028929] TCP: too many orphaned sockets"


def make_incident(**changes: Any) -> Incident:
    event = Event(
        at=OPENED_AT,
        uptime=261096.028929,
        host="web1",
        kind="too_many_orphans",
        suppressed=None,
        count=1,
        source="/var/log/messages@1234",
        provenance="kernel",
        line=LINE,
    )
    summary = (
        "The limit of orphaned TCP sockets was reached: 131,080 of 131,072. The kernel resets closing connections."
    )
    advice = Advice(
        action="Raise the limit of orphans to 524,288",
        why="the peak was at the limit",
        risk="up to 2.1 GiB of memory that cannot be swapped",
        sysctl=Sysctl(key="net.ipv4.tcp_max_orphans", current=131_072, proposed=524_288),
        commands=("sysctl -w net.ipv4.tcp_max_orphans=524288",),
        persist="net.ipv4.tcp_max_orphans = 524288\n",
    )
    mechanism = Mechanism(
        penalty_shift=0,
        orphan=131_080,
        tcp_max_orphans=131_072,
        limit_reached=131_072,
        mem_pages=87_916,
        tcp_mem_pages=(287_898, 383_867, 575_796),
        mem_bytes=87_916 * 4096,
        tcp_mem_bytes=(287_898 * 4096, 383_867 * 4096, 575_796 * 4096),
        page_size_bytes=4096,
    )
    fields: dict[str, Any] = {
        "id": "20261122T150539Z-7f3a",
        "host": "web1",
        "kernel": "6.1.0-28-amd64",
        "boot_id": "0f3a",
        "opened_at": OPENED_AT,
        "last_seen_at": OPENED_AT + timedelta(minutes=12),
        "events": {"too_many_orphans": 3, "suppressed": 1},
        "suppressed_at_least": 273,
        "provenance": "kernel",
        "first_event": event,
        "cause": "orphans",
        "confidence": "certain",
        "summary": summary,
        "diagnosis": Diagnosis(
            cause="orphans", confidence="certain", summary=summary, mechanism=mechanism, advice=(advice,)
        ),
        "peak": Peak(orphan=131_080, orphan_at=OPENED_AT, mem=87_916, mem_at=OPENED_AT),
    }
    return Incident(**(fields | changes))


def make_digest_notice(count: int = 37, host: str = "web1") -> DigestNotice:
    ids = tuple(f"20261122T15{minute:02}39Z-7f3a" for minute in range(count))
    return DigestNotice(
        id="msg_digest_0123456789abcdef",
        type="sockmem.digest",
        at=OPENED_AT,
        reason="",
        channels=("ops",),
        data=None,
        host=host,
        digest=Digest(since=OPENED_AT - timedelta(hours=1), count=count, ids=ids),
    )


def make_notice(kind: NoticeType = "sockmem.incident.opened", **changes: Any) -> Notice:
    if kind == "sockmem.digest":
        return make_digest_notice()
    if kind == "sockmem.test":
        data = None
    elif kind == "sockmem.incident.resolved":
        data = make_incident(**({"closed_at": OPENED_AT + timedelta(minutes=17)} | changes))
    else:
        data = make_incident(**changes)
    at = {"sockmem.incident.updated": 60, "sockmem.incident.resolved": 1020}.get(kind, 0)
    return Notice(
        id="20261122T150539Z-7f3a.001",
        type=kind,
        at=OPENED_AT + timedelta(seconds=at),
        reason="the kernel ran out",
        channels=("ops",),
        data=data,
    )


class Tray:
    """An outbox in memory: one notice that waits until there is a receipt for it."""

    def __init__(self, notice: Notice) -> None:
        self.waiting = [Pending("20261122T150539Z-7f3a", "notice-001", notice)]
        self.receipts: list[Receipt] = []

    def pending(self, channel: str, later: Collection[tuple[str, str]]) -> list[Pending]:
        return [pending for pending in self.waiting if (pending.incident_id, pending.file) not in later]

    def receipts_since(self, channel: str, since: datetime) -> Iterator[tuple[Notice, Receipt]]:
        yield from ()

    def reserve_receipt(self, pending: Pending, channel: str, *, in_digest: bool = False) -> None:
        pass

    def write_receipt(self, pending: Pending, receipt: Receipt) -> None:
        self.waiting.remove(pending)
        self.receipts.append(receipt)


def read_request(connection: socket.socket) -> bytes:
    """Read one request, or what there is of it."""
    received = b""
    while not is_whole(received):
        try:
            chunk = connection.recv(65536)
        except TimeoutError:
            break
        if not chunk:
            break
        received += chunk
    return received


def is_whole(request: bytes) -> bool:
    head, end, body = request.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    return bool(end) and len(body) >= int(length[1] if length else 0)


def drip(connection: socket.socket, text: bytes) -> None:
    """Send a byte every tenth of a second, which no timeout per read will ever notice."""
    pause = threading.Event()
    for byte in text:
        connection.sendall(bytes([byte]))
        pause.wait(0.1)


def hang(connection: socket.socket) -> None:
    """Take everything and never answer, until the client has gone."""
    while True:
        with contextlib.suppress(TimeoutError):
            if not connection.recv(65536):
                return
