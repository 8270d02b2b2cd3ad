"""What every channel promises, held against servers that behave badly: bounded time, a value, and no secret told."""

import base64
import logging
import socket
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
from harness import Handler, Tray, drip, hang, read_request
from material import make_sent_notice

from agent import notifiers
from agent.core.delivery import Delivered, Delivery, Rejected, Retry
from agent.core.dispatch import Rules
from agent.core.model import NoticeType
from agent.core.settings import (
    AlertmanagerSettings,
    ChannelSettings,
    CommandSettings,
    EmailSettings,
    JournalSettings,
    PagerDutySettings,
    SlackSettings,
    StdoutSettings,
    WebhookSettings,
)
from agent.notifiers import ChannelError, Notifier, build, journal
from agent.notifiers import http as http_module
from agent.service.courier import Courier

TOKEN = "T0kenT0ken"
SIGNING = base64.b64encode(TOKEN.encode()).decode()
STATE_CHANNELS = ["alertmanager", "pagerduty"]
HTTP_CHANNELS = ["slack", "webhook", *STATE_CHANNELS]
SHORT, LONG = 0.4, 10.0  # seconds: for servers that hang, and for those that answer
BEYOND = b"Retry-After: Mon, 01 Jan 99999999999999 00:00:00 GMT\r\n"
HANGING = {"hang", "drip headers", "drip body"}

Serve = Callable[[Handler], str]


def close_at_once(connection: socket.socket) -> None:
    read_request(connection)


def reset(connection: socket.socket) -> None:
    read_request(connection)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")


def drip_headers(connection: socket.socket) -> None:
    read_request(connection)
    drip(connection, b"HTTP/1.1 200 OK\r\n" * 10)


def drip_body(connection: socket.socket) -> None:
    read_request(connection)
    connection.sendall(b"HTTP/1.1 503 Busy\r\nContent-Length: 50\r\n\r\n")
    drip(connection, b"x" * 50)


def talk_rubbish(connection: socket.socket) -> None:
    read_request(connection)
    connection.sendall(b"\0\xff" * 1000 + b"\r\n\r\n")


def odd_headers(connection: socket.socket) -> None:
    request = read_request(connection)
    path = request.split(b" ")[1]
    connection.sendall(b"HTTP/1.1 404 " + path + b"\r\nno colon " + path + b"\r\nX: " + path + b"\r\n\r\n" + path)


def answer(status: int, *, header: bytes = b"") -> Handler:
    """Answer with a status, and the address said back in reason, header and body."""

    def handle(connection: socket.socket) -> None:
        path = read_request(connection).split(b" ")[1]
        head = b"HTTP/1.1 %d " % status + path + b"\r\n" + (header or b"Location: " + path + b"\r\n")
        connection.sendall(head + b"Content-Length: %d\r\n\r\n" % len(path) + path)

    return handle


FAILURES: dict[str, tuple[Handler, type[Delivery]]] = {
    "closed": (close_at_once, Retry),
    "reset": (reset, Retry),
    "hang": (hang, Retry),
    "drip headers": (drip_headers, Retry),
    "drip body": (drip_body, Retry),
    "rubbish": (talk_rubbish, Retry),
    "odd headers": (odd_headers, Rejected),
    "301": (answer(301), Rejected),
    "400": (answer(400), Rejected),
    "401": (answer(401), Rejected),
    "403": (answer(403), Rejected),
    "404": (answer(404), Rejected),
    "410": (answer(410), Rejected),
    "413": (answer(413), Rejected),
    "429": (answer(429, header=b"Retry-After: T0kenT0ken\r\n"), Retry),
    "429 until after the end of time": (answer(429, header=BEYOND), Retry),
    "302 to Latin-1": (answer(302, header=b"Location: /caf\xe9\r\n"), Rejected),
    "302 to no end": (answer(302, header=b"Location: http://[::1/\r\n"), Rejected),
    "503 in chunks of -5": (answer(503, header=b"Transfer-Encoding: chunked\r\n\r\n-5\r\n"), Retry),
    "500": (answer(500), Retry),
    "999": (answer(999), Retry),
    "503": (answer(503), Retry),
}


@pytest.fixture(autouse=True)
def _no_proxy_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def set_deadline(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Change the deadline of what build() makes from now on."""
    plain = http_module.Poster.__init__

    def change(seconds: float) -> None:
        def init(self: http_module.Poster, channel: str, url: str, *, deadline_seconds: float = 0) -> None:
            plain(self, channel, url, deadline_seconds=seconds)

        monkeypatch.setattr(http_module.Poster, "__init__", init)

    return change


def make(kind: str, url: str, directory: Path) -> Notifier:
    secret = directory / "secret"
    secret.write_text(f"whsec_{SIGNING}\n")
    address = url.partition("//")[2].rstrip("/")
    settings: dict[str, Callable[[], ChannelSettings]] = {
        "slack": lambda: SlackSettings(name="ops", url=url),
        "webhook": lambda: WebhookSettings(name="ops", url=url, secret_file=str(secret)),
        "alertmanager": lambda: AlertmanagerSettings(name="ops", urls=(url,)),
        "pagerduty": lambda: PagerDutySettings(name="ops", url=url, routing_key_file=str(secret)),
        "email": lambda: EmailSettings(name="ops", to=("root",), from_="agent@h", smtp=address),
        "command": lambda: CommandSettings(name="ops", command=("/bin/sh", "-c", "cat")),
        "journal": lambda: JournalSettings(name="ops"),
        "stdout": lambda: StdoutSettings(name="ops"),
    }
    return build(settings[kind]())


def secret_url(scheme: str, address: str) -> str:
    return f"{scheme}://user:{TOKEN}@{address}/services/{TOKEN}?token={TOKEN}"


def told_nothing(*texts: str) -> None:
    for text in texts:
        assert TOKEN not in text
        assert SIGNING not in text
        assert "/services/" not in text


@pytest.fixture
def bad_server(failure: str, serve: Serve, set_deadline: Callable[[float], None]) -> str:
    """Start the server that fails in this way, and set a deadline that suits it."""
    set_deadline(SHORT if failure in HANGING else LONG)
    return serve(FAILURES[failure][0])


@pytest.fixture
def heard(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """Tell everything that was logged, at any level, or printed."""
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, logger="urllib3")
    return lambda: caplog.text + "".join(capfd.readouterr())


@pytest.mark.parametrize("kind", HTTP_CHANNELS)
@pytest.mark.parametrize("failure", FAILURES)
def test_every_failure_is_a_value_in_bounded_time_that_tells_no_secret(
    kind: str, failure: str, bad_server: str, tmp_path: Path, heard: Callable[[], str]
) -> None:
    expected = FAILURES[failure][1]
    notifier = make(kind, secret_url("http", bad_server), tmp_path)

    started = time.monotonic()
    delivery = notifier.notify(make_sent_notice())

    assert time.monotonic() - started < (SHORT + 2 if failure in HANGING else LONG)
    assert type(delivery) is expected
    assert not isinstance(delivery, Delivered)
    assert delivery.why
    told_nothing(repr(delivery), repr(notifier), heard())


@pytest.mark.parametrize("kind", HTTP_CHANNELS)
@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "https://127.0.0.1:9", "http://no host", "http://h..x"])
def test_an_endpoint_that_cannot_be_reached_is_a_value_too(
    kind: str, url: str, tmp_path: Path, heard: Callable[[], str]
) -> None:
    scheme, _, address = url.partition("://")

    delivery = make(kind, secret_url(scheme, address), tmp_path).notify(make_sent_notice())

    assert not isinstance(delivery, Delivered)
    told_nothing(repr(delivery), heard())


@pytest.mark.parametrize("kind", HTTP_CHANNELS)
def test_a_surprise_in_a_library_leaves_no_secret_in_its_traceback(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notifier = make(kind, secret_url("http", "127.0.0.1:9"), tmp_path)

    def slip(*args: object, **kwargs: object) -> None:
        raise AttributeError(secret_url("http", "127.0.0.1:9"))

    monkeypatch.setattr("requests.Session.prepare_request", slip)

    with pytest.raises(AttributeError) as caught:
        notifier.notify(make_sent_notice())
    told_nothing("".join(traceback.format_exception(caught.value)))


@pytest.mark.parametrize("kind", HTTP_CHANNELS)
def test_a_surprise_is_logged_with_its_traceback_by_the_courier_and_tells_no_secret(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, heard: Callable[[], str]
) -> None:
    rules = Rules(senders=int(kind in STATE_CHANNELS))
    courier = Courier(make(kind, secret_url("http", "127.0.0.1:9"), tmp_path), Tray(make_sent_notice()), rules)

    def slip(*args: object, **kwargs: object) -> None:
        raise AttributeError(secret_url("http", "127.0.0.1:9"))

    monkeypatch.setattr("requests.Session.prepare_request", slip)
    courier.step()

    logged = heard()
    assert "ops: unexpected AttributeError in test_all_channels.py:" in logged
    assert f"agent/notifiers/{kind}.py" in logged
    assert "unexpected AttributeError" in (courier.status or "")
    told_nothing(logged, courier.status or "")


@pytest.mark.parametrize("kind", HTTP_CHANNELS)
@pytest.mark.parametrize("url", ["", TOKEN, f"ftp://x/{TOKEN}", f"http://[{TOKEN}", f"http://h:{TOKEN}/"])
def test_a_bad_address_is_a_configuration_error_that_tells_no_secret(kind: str, url: str, tmp_path: Path) -> None:
    with pytest.raises(ChannelError) as caught:
        make(kind, url, tmp_path)
    told_nothing("".join(traceback.format_exception(caught.value)))


@pytest.mark.parametrize(
    ("kind", "notice"),
    [
        (kind, notice)
        for kind in [*HTTP_CHANNELS, "stdout", "command", "journal", "email"]
        for notice in get_args(NoticeType)
        if kind not in STATE_CHANNELS or notice != "sockmem.digest"  # They are kept up to what is so, and need none.
    ],
)
def test_every_channel_delivers_every_kind_of_notice(
    kind: str, notice: NoticeType, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journald = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    journald.bind(str(tmp_path / "journald"))
    monkeypatch.setattr(journal, "SOCKET", str(tmp_path / "journald"))

    def take(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    def take_mail(connection: socket.socket) -> None:
        connection.settimeout(LONG)
        lines = connection.makefile("rb")
        for reply in (b"220", b"250", b"250", b"250", b"354"):
            connection.sendall(reply + b" go on\r\n")
            lines.readline()
        while lines.readline() != b".\r\n":
            pass
        connection.sendall(b"250 taken\r\n")

    notifier = make(kind, f"http://{serve(take_mail if kind == 'email' else take)}/", tmp_path)

    assert "ops" == notifier.name
    assert isinstance(notifier.notify(make_sent_notice(notice)), Delivered)
    journald.close()


def test_the_code_of_all_channels_together_stays_below_1600_lines() -> None:
    files = Path(notifiers.__file__).parent.glob("*.py")

    assert sum(len(file.read_text().splitlines()) for file in files) < 1600
