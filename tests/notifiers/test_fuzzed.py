"""A receiver that answers at random, before the real channels and the real courier: every attempt ends in a value.

pytest tests/notifiers/test_fuzzed.py --fuzz-answers 100000      for longer
pytest tests/notifiers/test_fuzzed.py --fuzz-seed 7f3a           the answers of a run that failed
"""

import contextlib
import secrets
import socket
import struct
import threading
import tracemalloc
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from harness import Tray, is_whole
from material import make_sent_notice
from msgspec.structs import replace
from odd_answers import odd_answer

from agent.core.delivery import Delivered, Delivery, Rejected, Retry
from agent.core.dispatch import Rules
from agent.core.model import Notice
from agent.core.settings import AlertmanagerSettings, PagerDutySettings, SlackSettings, WebhookSettings
from agent.notifiers import Notifier, build
from agent.service.courier import Courier

TOKEN = "T0kenT0ken"
SECRET = f"user:{TOKEN}@/services/{TOKEN}?token={TOKEN}".encode()
START = datetime(2026, 11, 22, 15, 5, 39, tzinfo=timezone.utc)
PEAK_BYTES = 6_000_000  # of one attempt: 128 KiB of answer, and what the parsers make of it


class Receiver:
    """Answers one connection after another with what it was given last, and hangs up."""

    def __init__(self) -> None:
        self.text = b""
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.thread = threading.Thread(target=self.serve)

    def serve(self) -> None:
        while True:
            connection, _ = self.listener.accept()
            with connection, contextlib.suppress(OSError):
                if not self.text:
                    return
                connection.settimeout(5)
                if not self.text.startswith(b"\0\0"):
                    self.listen(connection)
                connection.sendall(self.text)
                if self.text.endswith(b"x"):  # A reset instead of an end.
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    @staticmethod
    def listen(connection: socket.socket) -> None:
        """Read a request, or the beginning of TLS."""
        heard = b""
        while heard[:1] != b"\x16" and not is_whole(heard) and (more := connection.recv(65536)):
            heard += more


class Witness:
    """A channel that remembers what its attempts ended in."""

    def __init__(self, notifier: Notifier) -> None:
        self.name = notifier.name
        self.notifier = notifier
        self.delivery: Delivery | None = None

    def notify(self, notice: Notice) -> Delivery:
        self.delivery = None
        self.delivery = self.notifier.notify(notice)
        return self.delivery


class Mail:
    """A courier with a notice that waits, and a clock that is always past the pause."""

    def __init__(self, notifier: Notifier) -> None:
        self.witness = Witness(notifier)
        self.tray = Tray(replace(make_sent_notice(), channels=(notifier.name,)))
        self.seconds = 0.0
        self.courier = Courier(
            self.witness,
            self.tray,
            Rules(give_up_after=float("inf"), reminders=False),
            monotonic=lambda: self.seconds,
            now=lambda: START + timedelta(seconds=self.seconds),
        )

    def attempt(self) -> Delivery | None:
        """Make one attempt, and return what it ended in: None when that was an exception."""
        self.seconds += 7200.0
        self.courier.step()
        if not self.tray.waiting:
            self.tray.settled.clear()
            self.courier._stories._known.clear()
        return self.witness.delivery


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    receiver.thread.start()
    yield receiver
    receiver.text = b""
    socket.create_connection(receiver.listener.getsockname()).close()
    receiver.thread.join(10)
    receiver.listener.close()


@pytest.fixture
def mails(receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Mail]:
    """Make every HTTP channel, one behind a proxy, and one that expects TLS."""
    for name in ("http_proxy", "all_proxy", "no_proxy", "ALL_PROXY", "HTTP_PROXY", "NO_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("https_proxy", f"http://{receiver.address}")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    (tmp_path / "secret").write_text("whsec_VDBrZW5UMGtlbg==\n")
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    path = f"services/{TOKEN}?token={TOKEN}"
    url = f"http://user:{TOKEN}@{receiver.address}/{path}"
    settings = [
        SlackSettings(name="slack", url=url),
        WebhookSettings(name="webhook", url=url, secret_file=str(tmp_path / "secret")),
        AlertmanagerSettings(name="alertmanager", urls=(url, url)),
        PagerDutySettings(name="pagerduty", url=url, routing_key_file=str(tmp_path / "token")),
        WebhookSettings(name="proxy", url=f"https://hook.example/{path}"),
        WebhookSettings(name="tls", url=f"https://{receiver.address}/{path}", token_file=str(tmp_path / "token")),
    ]
    turns = {"slack": 6, "webhook": 6, "alertmanager": 2}
    made = {setting.name: Mail(build(setting)) for setting in settings}
    return [mail for name, mail in made.items() for _ in range(turns.get(name, 1))]


def told(delivery: Delivery | None) -> str:
    """Give what an attempt says of itself."""
    match delivery:
        case Delivered():
            return delivery.detail
        case Retry() | Rejected():
            return delivery.why
        case _:
            return ""


def faults(mail: Mail, delivery: Delivery | None, peak_bytes: int, logged: str) -> list[str]:
    """Name what may not be after an attempt, whatever was answered."""
    texts = [told(delivery), mail.courier.status or "", *(receipt.detail for receipt in mail.tray.receipts)]
    after_seconds = getattr(delivery, "after_seconds", None) or 0.0
    checks = {
        "it ends in an exception": not texts[0] or "unexpected" in texts[1] + logged,
        "the server hangs up, and it thinks on": "no answer within" in texts[0],
        "it waits for ever or backwards": not 0.0 <= after_seconds <= 3600.0,
        "it fills memory": peak_bytes > PEAK_BYTES,
        "it tells a secret": TOKEN in "".join([*texts, logged]),
        "its words break a line or a terminal": not all(text.isprintable() and len(text) < 500 for text in texts),
    }
    return [name for name, is_so in checks.items() if is_so]


# Python's ssl leaves a socket to the garbage collector that was reset between connecting and the handshake.
@pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning")
def test_no_answer_is_a_surprise_fills_memory_or_makes_us_tell_a_secret(
    receiver: Receiver, mails: list[Mail], pytestconfig: pytest.Config, caplog: pytest.LogCaptureFixture
) -> None:
    seed = pytestconfig.getoption("fuzz_seed") or secrets.token_hex(4)
    count = pytestconfig.getoption("fuzz_answers")
    outcomes: dict[str, int] = {}
    most_bytes = 0
    tracemalloc.start()
    try:
        for number in range(count):
            mail = mails[number % len(mails)]
            receiver.text = odd_answer(f"{seed}:{number}", SECRET) or b"\n"
            tracemalloc.reset_peak()
            before_bytes = tracemalloc.get_traced_memory()[0]
            delivery = mail.attempt()
            peak_bytes = tracemalloc.get_traced_memory()[1] - before_bytes

            found = faults(mail, delivery, peak_bytes, caplog.text)
            where = f"answer {number} of --fuzz-seed {seed} to {mail.courier.name}: {receiver.text[:300]!r}"
            assert [] == found, f"{where}\n{delivery}, {peak_bytes} bytes\n{caplog.text}"
            most_bytes = max(most_bytes, peak_bytes)
            caplog.clear()
            mail.tray.receipts.clear()
            outcomes[type(delivery).__name__] = outcomes.get(type(delivery).__name__, 0) + 1
    finally:
        tracemalloc.stop()
    print(f"\n{count} answers of --fuzz-seed {seed}: {outcomes}, at most {most_bytes} bytes")  # noqa: T201 - for pytest -s
    assert {"Delivered", "Retry", "Rejected"} == set(outcomes)
