import base64
import gc
import gzip
import logging
import re
import select
import socket
import ssl
import subprocess
import sys
import threading
import time
import traceback
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest
import requests
import trustme
from harness import Handler, drip, hang, read_request
from pytest_httpserver import HTTPServer

from agent.core.delivery import Rejected, Retry
from agent.core.settings import WebhookSettings
from agent.notifiers import ChannelError, network
from agent.notifiers.answer import Answer
from agent.notifiers.http import Poster

SHORT, LONG = 0.4, 10.0  # seconds: for servers that hang, and for those that answer
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture(autouse=True)
def _no_proxy_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "requests_ca_bundle", "curl_ca_bundle"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def poster_for(url: str, *, deadline_seconds: float = LONG, **keys: Any) -> Poster:
    return Poster(WebhookSettings(name="ops", url=url, **keys), url, deadline_seconds=deadline_seconds)


def post(url: str, *, deadline_seconds: float = LONG) -> Answer | Retry | Rejected:
    """Make one attempt, and see to it that it kept to its deadline."""
    started = time.monotonic()
    result = poster_for(url, deadline_seconds=deadline_seconds).post(b"{}", {"Content-Type": "application/json"})

    assert time.monotonic() - started < deadline_seconds + 2
    return result


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def answer_with(text: bytes) -> Handler:
    def handle(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(text)

    return handle


# --- what works -----------------------------------------------------------------------------------------------------


def test_status_retry_after_body_and_date_come_back(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/hook", method="POST", data=b"{}").respond_with_data(
        "later", status=429, headers={"Retry-After": "7"}
    )
    answer = post(httpserver.url_for("/hook"))

    assert isinstance(answer, Answer)
    assert (429, "7", b"later") == answer[:3]
    assert abs(parsedate_to_datetime(answer.date or "") - datetime.now(timezone.utc)) < timedelta(minutes=1)


def test_netrc_is_never_used(httpserver: HTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine localhost login somebody password else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    httpserver.expect_request("/hook").respond_with_data("ok")

    post(httpserver.url_for("/hook"))

    assert "Authorization" not in httpserver.log[0][0].headers


def test_credentials_in_the_url_become_basic_auth_and_are_not_shown(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/hook").respond_with_data("ok")
    poster = poster_for(f"http://user:p%40ss@localhost:{httpserver.port}/hook")

    poster.post(b"{}", {})

    authorization = httpserver.log[0][0].authorization
    assert authorization is not None
    assert ("user", "p@ss") == (authorization.username, authorization.password)
    assert f"localhost:{httpserver.port}" == poster.place


def test_one_poster_serves_many_attempts_and_keeps_no_connection(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/hook").respond_with_data("ok")
    poster = poster_for(httpserver.url_for("/hook"))

    assert [(200, None, b"ok")] * 3 == [poster.post(b"{}", {})[:3] for _ in range(3)]
    assert {"close"} == {request.headers["Connection"] for request, _ in httpserver.log}


def test_cookies_are_not_sent_back(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/hook").respond_with_data("ok", headers={"Set-Cookie": "seen=1"})
    poster = poster_for(httpserver.url_for("/hook"))

    poster.post(b"{}", {})
    poster.post(b"{}", {})

    assert "Cookie" not in httpserver.log[1][0].headers


def test_a_redirect_is_not_followed(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/hook").respond_with_data("", status=307, headers={"Location": "/elsewhere"})
    httpserver.expect_request("/elsewhere").respond_with_data("ok")

    result = post(httpserver.url_for("/hook"))

    assert isinstance(result, Answer)
    assert 307 == result.status
    assert ["/hook"] == [request.path for request, _ in httpserver.log]


def test_of_a_huge_body_only_the_beginning_is_read(serve: Callable[[Handler], str]) -> None:
    sent = []

    def pour(connection: socket.socket) -> None:
        read_request(connection)
        connection.settimeout(5)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        for _ in range(1000):
            connection.sendall(b"x" * 65536)
            sent.append(65536)

    result = post(f"http://{serve(pour)}/hook")

    assert Answer(200, None, b"x" * 65536) == result
    assert sum(sent) < 30_000_000


# --- odd answers ----------------------------------------------------------------------------------------------------

NO_HTTP, BROKE_OFF = (
    Retry(why="the answer is not HTTP", may_be_taken=True),
    Retry(why="the answer broke off", may_be_taken=True),
)
BOMB = gzip.compress(b"\0" * 40_000_000)  # 39 kB
HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
ODD: dict[str, tuple[bytes, Answer | Retry]] = {
    "location in Latin-1": (b"HTTP/1.1 302 Found\r\nLocation: /caf\xe9\r\n\r\n", Answer(302, None, b"")),
    "location without an end": (b"HTTP/1.1 302 Found\r\nLocation: http://[::1/\r\n\r\n", Answer(302, None, b"")),
    "packed body of a redirect": (
        b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Encoding: gzip\r\n\r\n" + BOMB,
        Answer(302, None, BOMB),
    ),
    "packed body": (HEAD + b"Content-Encoding: gzip\r\n\r\n" + BOMB, Answer(200, None, BOMB)),
    "packed ten times": (HEAD + b"Content-Encoding: " + b"gzip, " * 9 + b"gzip\r\n\r\nok", Answer(200, None, None)),
    "chunk size -5": (CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n", Answer(200, None, None)),
    "chunk size -1": (CHUNKED + b"-1\r\n" + b"x" * 30_000_000, Answer(200, None, None)),
    "chunk size of 60,000 digits": (CHUNKED + b"f" * 60_000 + b"\r\nok", Answer(200, None, None)),
    "chunk size no number": (CHUNKED + b"two\r\nok\r\n", Answer(200, None, None)),
    "chunks of one byte": (CHUNKED + b"1\r\nx\r\n" * 1_000_000, Answer(200, None, None)),
    "trailers without end": (CHUNKED + b"0\r\n" + b"a: b\r\n" * 1_000_000, Answer(200, None, None)),
    "content-length -1": (HEAD + b"Content-Length: -1\r\n\r\nok", Answer(200, None, b"ok")),
    "content-length no number": (HEAD + b"Content-Length: two\r\n\r\nok", Answer(200, None, b"ok")),
    "content-length of 5,000 digits": (
        HEAD + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\nok",
        Answer(200, None, b"ok"),
    ),
    "two content-lengths": (HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nok", NO_HTTP),
    "body shorter than said": (HEAD + b"Content-Length: 3\r\n\r\nok", Answer(200, None, None)),
    "body longer than said": (HEAD + b"Content-Length: 2\r\n\r\nok and more", Answer(200, None, b"ok")),
    "an unknown transfer-encoding": (HEAD + b"Transfer-Encoding: T0ken\r\n\r\nok", Answer(200, None, b"ok")),
    "status 0": (b"HTTP/1.1 0 Nothing\r\n\r\n", NO_HTTP),
    "status 99": (b"HTTP/1.1 99 Little\r\n\r\n", NO_HTTP),
    "status 1000": (b"HTTP/1.1 1000 Much\r\n\r\n", NO_HTTP),
    "status -200": (b"HTTP/1.1 -200 OK\r\n\r\n", NO_HTTP),
    "status no number": (b"HTTP/1.1 OK\r\n\r\n", NO_HTTP),
    "status of 5,000 digits": (b"HTTP/1.1 " + b"2" * 5000 + b" OK\r\n\r\n", NO_HTTP),
    "status 999": (b"HTTP/1.1 999 No\r\n\r\n", Answer(999, None, b"")),
    "reason that is no text": (b"HTTP/1.1 200 \xff\x00\x1b[2J\r\n\r\nok", Answer(200, None, b"ok")),
    "HTTP/0.9": (b"<html>ok</html>", NO_HTTP),
    "HTTP/2": (b"HTTP/2 200\r\n\r\nok", NO_HTTP),
    "interim answers first": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nRetry-After: 9\r\n\r\n" + HEAD + b"\r\nok",
        Answer(200, None, b"ok"),
    ),
    "interim answers without end": (b"HTTP/1.1 100 Continue\r\n\r\n" * 100_000, NO_HTTP),
    "early hints without end": (b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100_000, NO_HTTP),
    "another protocol": (b"HTTP/1.1 101 Switching Protocols\r\n\r\n\0\1", NO_HTTP),
    "a line without end": (HEAD + b"X: " + b"x" * 5_000_000, NO_HTTP),
    "a hundred headers and one": (HEAD + b"a: b\r\n" * 101 + b"\r\nok", NO_HTTP),
    "lines within lines": (HEAD + (b"a" + b"\ra" * 30_000 + b"\r\n") * 50 + b"\r\nok", NO_HTTP),
    "a mail of many parts": (
        HEAD
        + b"Content-Type: multipart/mixed; boundary=a0\r\nno header\r\n"
        + b"".join(b"--a%d\rContent-Type: multipart/mixed; boundary=a%d\r\r" % (i, i + 1) for i in range(800))
        + b"\r\n\r\nok",
        Answer(200, None, b"ok"),
    ),
    "a boundary to compile": (
        HEAD + b"Content-Type: multipart/mixed; boundary=" + b"b" * 60_000 + b"\r\nno header\r\n\r\nok",
        Answer(200, None, b"ok"),
    ),
    "cookies of all kinds": (
        HEAD + b"Set-Cookie: a=" + b"=;" * 9000 + b" expires=" + b"1 " * 9000 + b"\r\n\r\nok",
        Answer(200, None, b"ok"),
    ),
    "a cookie that ends after all time": (
        HEAD + b"Set-Cookie: a=b; max-age=" + b"9" * 400 + b"\r\n\r\nok",
        Answer(200, None, b"ok"),
    ),
    "status line cut": (b"HTTP/1.1 20", NO_HTTP),
    "header cut": (HEAD + b"Content-Le", BROKE_OFF),
    "no empty line": (HEAD + b"Content-Length: 2\r\n", BROKE_OFF),
}


@pytest.mark.parametrize("odd", ODD)
def test_an_odd_answer_is_a_value_and_takes_little_memory(odd: str, serve: Callable[[Handler], str]) -> None:
    text, expected = ODD[odd]

    def pour(connection: socket.socket) -> None:
        read_request(connection)
        connection.settimeout(5)
        connection.sendall(text)

    address = serve(pour)
    tracemalloc.start()
    try:
        result = post(f"http://{address}/hook")
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert expected == result
    assert peak_bytes < 6_000_000


def test_a_proxy_that_says_too_much_is_cut_off(
    serve: Callable[[Handler], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    flood = b"HTTP/1.1 200 Connection established\r\n" + b"X: y\r\n" * 1_000_000
    monkeypatch.setenv("https_proxy", f"http://{serve(answer_with(flood))}")

    assert Retry(why="the answer is not HTTP") == post("https://example.org/hook")


# --- deadlines ------------------------------------------------------------------------------------------------------


def test_a_server_that_never_answers_is_left_at_the_deadline(serve: Callable[[Handler], str]) -> None:
    assert Retry(why="no answer within 0.4 s", may_be_taken=True) == post(
        f"http://{serve(hang)}/hook", deadline_seconds=SHORT
    )


def test_a_server_that_drips_headers_is_cut(serve: Callable[[Handler], str]) -> None:
    def handle(connection: socket.socket) -> None:
        read_request(connection)
        drip(connection, b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 100)

    assert Retry(why="no answer within 0.6 s", may_be_taken=True) == post(
        f"http://{serve(handle)}/hook", deadline_seconds=0.6
    )


def test_a_status_line_that_came_whole_is_no_answer_while_its_headers_drip(serve: Callable[[Handler], str]) -> None:
    def handle(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\n")
        drip(connection, b"X-Long: " + b"x" * 100)

    assert Retry(why="no answer within 0.6 s", may_be_taken=True) == post(
        f"http://{serve(handle)}/hook", deadline_seconds=0.6
    )


@pytest.mark.parametrize("length", [b"Content-Length: 60\r\n", b"", b"Transfer-Encoding: chunked\r\n"])
def test_a_server_that_drips_its_body_is_cut_and_its_status_counts(
    serve: Callable[[Handler], str], length: bytes
) -> None:
    def handle(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\n" + length + b"\r\n")
        drip(connection, b"38\r\n" + b"o" * 56)

    assert post(f"http://{serve(handle)}/hook", deadline_seconds=1.0) == Answer(200, None, None)


def test_a_server_that_never_shakes_hands_is_cut(serve: Callable[[Handler], str]) -> None:
    assert Retry(why="no answer within 0.4 s") == post(f"https://{serve(hang)}/hook", deadline_seconds=SHORT)


def test_a_server_that_does_not_read_is_cut(serve: Callable[[Handler], str]) -> None:
    gone = threading.Event()

    def ignore(connection: socket.socket) -> None:
        gone.wait(5)

    address = serve(ignore)
    poster = poster_for(f"http://{address}/hook", deadline_seconds=SHORT)

    started = time.monotonic()
    result = poster.post(b"x" * 30_000_000, {})

    # urllib3 looks for an answer whatever became of the request.
    assert Retry(why="no answer within 0.4 s", may_be_taken=True) == result
    assert time.monotonic() - started < 2
    gone.set()


def test_a_name_lookup_that_hangs_is_left_behind_and_no_second_one_started(
    serve: Callable[[Handler], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    release, lookups = threading.Event(), []
    real = socket.getaddrinfo

    def stuck(*args: Any, **kwargs: Any) -> Any:
        lookups.append(args)
        release.wait(10)
        return real(*args, **kwargs)

    requests_seen = []
    address = serve(lambda connection: requests_seen.append(read_request(connection)))
    monkeypatch.setattr(socket, "getaddrinfo", stuck)
    monkeypatch.setattr(network, "GRACE_SECONDS", 0.05)
    poster = poster_for(f"http://{address}/hook", deadline_seconds=SHORT)

    first, second = poster.post(b"{}", {}), poster.post(b"{}", {})
    release.set()
    assert poster._sender
    assert poster._sender._attempts.last
    poster._sender._attempts.last.join(5)

    assert Retry(why="no answer within 0.4 s") == first
    assert Retry(why="an earlier attempt still hangs in the name lookup or in connecting") == second
    assert 1 == len(lookups)
    assert all(seen == b"" for seen in requests_seen)  # Nothing is sent after the deadline.


# --- failures in plain words ----------------------------------------------------------------------------------------


def test_a_closed_port_is_connection_refused() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))

        assert Retry(why="connection refused") == post(f"http://127.0.0.1:{bound.getsockname()[1]}/hook")


def test_a_reset_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def reset() -> None:
            connection, _ = listener.accept()
            connection.settimeout(0.05)
            read_request(connection)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            connection.close()

        thread = threading.Thread(target=reset)
        thread.start()
        result = post(f"http://127.0.0.1:{listener.getsockname()[1]}/hook")
        thread.join(5)

    assert Retry(why="connection reset by peer", may_be_taken=True) == result


def test_a_server_that_closes_without_an_answer_is_told(serve: Callable[[Handler], str]) -> None:
    assert Retry(why="connection closed without an answer", may_be_taken=True) == post(
        f"http://{serve(answer_with(b''))}/hook"
    )


def test_what_is_not_http_is_told(serve: Callable[[Handler], str]) -> None:
    address = serve(answer_with(b"220 mail ready\r\n"))

    assert Retry(why="the answer is not HTTP", may_be_taken=True) == post(f"http://{address}/hook")


def test_a_name_that_nobody_knows_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*args: Any, **kwargs: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)

    assert Retry(why="name lookup failed: Name or service not known") == post("http://nowhere.example/hook")


def test_a_host_out_of_memory_or_descriptors_is_told_by_the_words_of_its_kernel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*args: Any, **kwargs: Any) -> Any:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(socket, "socket", full)

    assert Retry(why="too many open files") == post("http://127.0.0.1:9/hook")


def test_a_host_that_starts_no_thread_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(network.Attempt, "start", refuse)

    assert Retry(why="no thread could be started") == post("http://127.0.0.1:9/hook")


def test_a_surprise_is_loud_and_does_not_hold_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    address = "http://127.0.0.1:9/T0ken"
    poster = poster_for(address, deadline_seconds=SHORT)

    def slip(*args: Any, **kwargs: Any) -> Any:
        raise KeyError(address)

    monkeypatch.setattr(requests.Session, "prepare_request", slip)

    with pytest.raises(KeyError) as caught:
        poster.post(b"{}", {})
    assert address not in str(caught.getrepr(chain=True, style="short"))
    assert "slip" == caught.traceback[-1].name  # Where it happened, in the thread of the attempt.


def test_a_token_that_no_header_can_carry_is_told_without_it(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("T0ken\nof two lines\n")

    said = poster_for("http://127.0.0.1:9/", token_file=str(token)).post(b"{}", {})

    assert Retry(why="the token or one of the headers has a character that HTTP forbids") == said


@pytest.mark.parametrize("url", ["", "hook", "ftp://h/x", "http://", "http://[::1", "http://h:port/x", "//h/x"])
def test_an_address_that_is_none_is_a_configuration_error_that_does_not_quote_it(url: str) -> None:
    with pytest.raises(ChannelError) as caught:
        poster_for(url)
    assert "ops: the url is not well-formed: it must be http:// or https:// with a host" == str(caught.value)
    assert caught.value.__context__ is None


def test_an_address_with_odd_characters_is_rejected_without_quoting_it() -> None:
    result = post("http://exa mple/T0ken")

    assert isinstance(result, Rejected)
    assert "T0ken" not in result.why


@pytest.mark.parametrize(
    "text",
    [
        b"HTTP/1.1 500 Oh\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",  # It would be kept: the server says nothing of an end.
        b"HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n",
        b"no HTTP\r\n",
    ],
)
def test_no_descriptor_is_left_open(text: bytes, serve: Callable[[Handler], str]) -> None:
    address = serve(answer_with(text))
    posters = [poster_for(f"http://{address}/hook") for _ in range(6)]
    posters[0].post(b"{}", {})
    gc.collect()
    gc.disable()
    try:
        before = open_descriptors()
        for poster in posters[1:]:
            poster.post(b"{}", {})
        deadline = time.monotonic() + 5
        while open_descriptors() > before and time.monotonic() < deadline:
            threading.Event().wait(0.01)

        assert before >= open_descriptors()
    finally:
        gc.enable()


@pytest.mark.parametrize("text", [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", b"no HTTP\r\n"])
def test_a_channel_that_is_no_longer_configured_takes_no_memory(text: bytes, serve: Callable[[Handler], str]) -> None:
    address = serve(answer_with(text))
    gc.collect()
    gc.disable()
    try:
        poster = poster_for(f"http://{address}/hook")
        poster.post(b"{}", {})
        poster._sender._attempts.last.join(LONG)
        gc.collect(1)  # What is old now may take days to be looked at again.
        sender = weakref.ref(poster._sender)
        del poster

        assert sender() is None
    finally:
        gc.enable()


def test_a_host_with_a_label_too_long_is_told_in_words() -> None:
    result = post(f"http://{'a' * 300}.example/")

    assert not isinstance(result, Answer)
    assert "UnicodeError" not in result.why


@pytest.mark.parametrize("proxy", ["http://h:port", "http://[::1", "://", "http://" + "a" * 300])
def test_a_proxy_setting_that_makes_no_sense_is_told(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", proxy)

    result = post("http://example.org/")

    assert not isinstance(result, Answer)
    assert re.search("proxy|host name", result.why)


# --- TLS and proxies ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls_server(authority: trustme.CA) -> Iterator[HTTPServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    with HTTPServer(host="localhost", port=0, ssl_context=context) as server:
        server.expect_request("/hook").respond_with_data("ok")
        yield server


@pytest.fixture
def bundle(authority: trustme.CA, tmp_path: Path) -> Path:
    file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    return file


def test_a_private_ca_is_trusted_when_the_environment_names_it(
    tls_server: HTTPServer, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))

    assert (200, None, b"ok") == post(f"https://localhost:{tls_server.port}/hook")[:3]


def test_a_certificate_of_nobody_is_not_trusted(tls_server: HTTPServer) -> None:
    result = post(f"https://localhost:{tls_server.port}/hook")

    assert Retry(why="certificate not trusted: unable to get local issuer certificate") == result
    assert [] == tls_server.log


def test_a_certificate_for_another_host_is_not_trusted(
    tls_server: HTTPServer, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))

    result = post(f"https://127.0.0.1:{tls_server.port}/hook")

    assert isinstance(result, Retry)
    assert result.why.startswith("certificate not trusted: IP address mismatch")


def test_a_missing_ca_bundle_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/ca.pem")

    assert Retry(why="the file named by REQUESTS_CA_BUNDLE is not there") == post("https://127.0.0.1:9/hook")


def test_plain_http_behind_an_https_address_is_a_tls_failure(serve: Callable[[Handler], str]) -> None:
    def answer(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    result = post(f"https://{serve(answer)}/hook")

    assert isinstance(result, Retry)
    assert result.why.startswith("TLS failed: ")


def test_a_proxy_of_the_environment_is_asked(serve: Callable[[Handler], str], monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def proxy(connection: socket.socket) -> None:
        asked.append(read_request(connection).split(b"\r\n", 1)[0])
        connection.sendall(OK)

    monkeypatch.setenv("http_proxy", f"http://{serve(proxy)}")

    assert (200, None, b"ok") == post("http://example.org/hook")[:3]
    assert [b"POST http://example.org/hook HTTP/1.1"] == asked


def test_no_proxy_is_honoured(
    httpserver: HTTPServer, serve: Callable[[Handler], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    httpserver.expect_request("/hook").respond_with_data("ok")
    address = serve(answer_with(b"HTTP/1.1 418 No\r\n\r\n"))
    monkeypatch.setenv("http_proxy", f"http://{address}")
    monkeypatch.setenv("no_proxy", "localhost")

    assert (200, None, b"ok") == post(httpserver.url_for("/hook"))[:3]


def test_a_proxy_that_refuses_to_connect_is_told(
    serve: Callable[[Handler], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"
    monkeypatch.setenv("https_proxy", f"http://user:T0ken@{serve(answer_with(refusal))}")

    assert Retry(why="proxy: HTTP 407") == post("https://example.org/hook")


def test_a_proxy_that_drips_is_cut(serve: Callable[[Handler], str], monkeypatch: pytest.MonkeyPatch) -> None:
    def handle(connection: socket.socket) -> None:
        read_request(connection)
        drip(connection, b"HTTP/1.1 200 Connection established\r\n" * 10)

    monkeypatch.setenv("https_proxy", f"http://{serve(handle)}")

    assert Retry(why="no answer within 0.6 s") == post("https://example.org/hook", deadline_seconds=0.6)


def test_a_proxy_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")

    assert Retry(why="proxy: connection refused") == post("https://example.org/hook")


def test_a_kind_of_proxy_that_needs_another_library_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "socks5://127.0.0.1:9")

    assert Retry(why="the proxy setting in the environment cannot be used") == post("http://example.org/hook")


# --- what a channel's own keys say ------------------------------------------------------------------------------------


@pytest.fixture
def strict_server(authority: trustme.CA) -> Iterator[HTTPServer]:
    """Start a server that talks to those alone who show a certificate of the authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    with HTTPServer(host="localhost", port=0, ssl_context=context) as server:
        server.expect_request("/hook").respond_with_data("ok")
        yield server


def write_pem(directory: Path, name: str, *blobs: trustme.Blob) -> str:
    file = directory / name
    file.write_bytes(b"".join(blob.bytes() for blob in blobs))
    return str(file)


def test_a_ca_file_is_trusted_beside_what_the_system_trusts(
    tls_server: HTTPServer, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = trustme.CA()
    own = write_pem(tmp_path, "own.pem", other.cert_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    other.issue_cert("localhost").configure_cert(context)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))  # the system's list is replaced by it, not ours
    with HTTPServer(host="localhost", port=0, ssl_context=context) as server:
        server.expect_request("/hook").respond_with_data("ok")
        urls = [f"https://localhost:{each.port}/hook" for each in (server, tls_server)]

        assert isinstance(post(urls[0]), Retry)
        assert [200, 200] == [poster_for(url, ca_file=own).post(b"{}", {})[0] for url in urls]


def test_a_client_certificate_is_shown_where_one_is_asked_for(
    strict_server: HTTPServer, authority: trustme.CA, bundle: Path, tmp_path: Path
) -> None:
    url = f"https://localhost:{strict_server.port}/hook"
    issued = authority.issue_cert("agent@web1.example")
    cert, key = (
        write_pem(tmp_path, "cert.pem", *issued.cert_chain_pems),
        write_pem(tmp_path, "key.pem", issued.private_key_pem),
    )
    both = write_pem(tmp_path, "both.pem", issued.private_key_and_cert_chain_pem)

    refused = poster_for(url, ca_file=str(bundle)).post(b"{}", {})

    assert isinstance(refused, Retry)
    for keys in ({"cert_file": cert, "key_file": key}, {"cert_file": both}):
        assert (200, None, b"ok") == poster_for(url, ca_file=str(bundle), **keys).post(b"{}", {})[:3]


def test_a_client_certificate_goes_through_a_proxy_to_the_receiver(
    strict_server: HTTPServer,
    authority: trustme.CA,
    tmp_path: Path,
    serve: Callable[[Handler], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bundle = write_pem(tmp_path, "ca.pem", authority.cert_pem)
    both = write_pem(tmp_path, "both.pem", authority.issue_cert("agent@web1.example").private_key_and_cert_chain_pem)
    monkeypatch.setenv("https_proxy", f"http://{serve(tunnel)}")
    monkeypatch.delenv("no_proxy", raising=False)

    poster = poster_for(f"https://localhost:{strict_server.port}/hook", ca_file=bundle, cert_file=both)

    assert (200, None, b"ok") == poster.post(b"{}", {})[:3]


def tunnel(connection: socket.socket) -> None:
    """Be a proxy: connect to what is asked for, and carry bytes both ways until one side ends."""
    host, _, port = read_request(connection).split(b" ")[1].decode().partition(":")
    with socket.create_connection((host, int(port))) as far:
        connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        pairs = {connection: far, far: connection}
        while ready := select.select(list(pairs), [], [], LONG)[0]:
            for one in ready:
                if not (data := one.recv(65536)):
                    return
                pairs[one].sendall(data)


def test_what_was_rotated_counts_from_the_next_reload_on(
    strict_server: HTTPServer, authority: trustme.CA, bundle: Path, tmp_path: Path
) -> None:
    strange = trustme.CA().issue_cert("agent@web1.example")
    both = write_pem(tmp_path, "both.pem", strange.private_key_and_cert_chain_pem)
    keys: dict[str, Any] = {"ca_file": str(bundle), "cert_file": both}
    url = f"https://localhost:{strict_server.port}/hook"
    before = poster_for(url, **keys)

    write_pem(tmp_path, "both.pem", authority.issue_cert("agent@web1.example").private_key_and_cert_chain_pem)

    assert isinstance(before.post(b"{}", {}), Retry)
    assert (200, None, b"ok") == poster_for(url, **keys).post(b"{}", {})[:3]


def test_a_token_goes_out_as_bearer(httpserver: HTTPServer, tmp_path: Path) -> None:
    httpserver.expect_request("/hook").respond_with_data("ok")
    (tmp_path / "token").write_text("T0ken\n")

    poster_for(httpserver.url_for("/hook"), token_file=str(tmp_path / "token")).post(b"{}", {})

    assert "Bearer T0ken" == httpserver.log[0][0].headers["Authorization"]


def test_user_and_password_go_out_as_basic_in_utf_8(httpserver: HTTPServer, tmp_path: Path) -> None:
    httpserver.expect_request("/hook").respond_with_data("ok")
    (tmp_path / "password").write_text("pä: s€\n")

    poster_for(httpserver.url_for("/hook"), user="üser", password_file=str(tmp_path / "password")).post(b"{}", {})

    sent = base64.b64decode(httpserver.log[0][0].headers["Authorization"].removeprefix("Basic ")).decode()
    assert "üser:pä: s€" == sent


def test_headers_are_sent_and_change_none_of_those_the_post_needs(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/hook").respond_with_data("ok")
    own = {"X-Scope-OrgID": "net", "User-Agent": "mine", "content-type": "text/plain"}

    poster_for(httpserver.url_for("/hook"), headers=own).post(b"{}", {"Content-Type": "application/json"})

    sent = httpserver.log[0][0].headers
    assert ("net", "mine", "application/json") == (sent["X-Scope-OrgID"], sent["User-Agent"], sent["Content-Type"])


@pytest.mark.parametrize(
    ("key", "text", "expected"),
    [
        ("ca_file", "-----BEGIN CERTIFICATE-----\nT0ken\n", "ops: ca_file FILE: "),
        ("ca_file", "", "ops: ca_file FILE: no certificate or crl found"),
        ("ca_file", None, "ops: ca_file FILE: no such file or directory"),
        ("cert_file", "T0ken", "ops: cert_file FILE: not pem, or encrypted"),
        ("cert_file", None, "ops: cert_file FILE: no such file or directory"),
        ("token_file", None, "ops: token_file FILE: No such file or directory"),
    ],
)
def test_a_bad_file_is_one_line_that_quotes_nothing_of_it(
    tmp_path: Path, key: str, text: str | None, expected: str
) -> None:
    file = tmp_path / "file"
    if text is not None:
        file.write_text(text)

    with pytest.raises(ChannelError) as caught:
        poster_for("https://127.0.0.1:9/", **{key: str(file)})
    assert str(caught.value).startswith(expected.replace("FILE", str(file)))
    assert "T0ken" not in "".join(traceback.format_exception(caught.value))


def test_a_key_of_another_certificate_is_reported(authority: trustme.CA, tmp_path: Path) -> None:
    cert = write_pem(tmp_path, "cert.pem", *authority.issue_cert("a@b").cert_chain_pems)
    key = write_pem(tmp_path, "key.pem", authority.issue_cert("a@b").private_key_pem)

    with pytest.raises(ChannelError, match=r"^ops: cert_file .*: key values mismatch$"):
        poster_for("https://127.0.0.1:9/", cert_file=cert, key_file=key)


def test_an_encrypted_key_is_reported_and_asks_no_terminal(authority: trustme.CA, tmp_path: Path) -> None:
    issued = authority.issue_cert("a@b")
    cert = write_pem(tmp_path, "cert.pem", *issued.cert_chain_pems)
    plain, key = write_pem(tmp_path, "plain.pem", issued.private_key_pem), tmp_path / "key.pem"
    subprocess.run(["openssl", "pkey", "-in", plain, "-aes256", "-passout", "pass:T0ken", "-out", key], check=True)

    with pytest.raises(ChannelError, match=r"^ops: cert_file .*cert\.pem: "):
        poster_for("https://127.0.0.1:9/", cert_file=cert, key_file=str(key))


# --- the house ------------------------------------------------------------------------------------------------------


def test_urllib3_logs_nothing_even_at_debug(httpserver: HTTPServer, caplog: pytest.LogCaptureFixture) -> None:
    httpserver.expect_request("/T0ken").respond_with_data("ok")
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, logger="urllib3")

    post(httpserver.url_for("/T0ken"))

    assert [] == [record for record in caplog.records if record.name != "werkzeug"]


HEAVY = {"requests", "smtplib", "email.message", "email.utils", "subprocess", "chardet", "charset_normalizer"}


@pytest.mark.parametrize(
    ("settings", "needed"),
    [
        ('StdoutSettings(name="out")', set()),
        ('JournalSettings(name="out")', set()),
        ('CommandSettings(name="out", command=("/x",))', {"subprocess"}),
        ('EmailSettings(name="out", to=("a@b",), from_="a@b")', {"smtplib", "email.message", "email.utils"}),
        (
            'WebhookSettings(name="out", url="http://127.0.0.1:9/")',
            {"requests", "email.message", "email.utils", "subprocess"},
        ),
    ],
)
def test_a_channel_loads_what_it_needs_and_nothing_for_others(settings: str, needed: set[str]) -> None:
    program = f"""
import sys
from agent.core.settings import *
from agent.notifiers import build, import_late
import agent.service.courier
before = set(sys.modules)
build({settings})
print("requests" in sys.modules or ("email.utils" in sys.modules and "smtplib" not in sys.modules))
import_late()
print(*sorted(name for name in {HEAVY} - before if sys.modules.get(name)))
print(*sorted(name for name in sys.modules if name.startswith("agent.notifiers.")))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    early, loaded, ours = done.stdout.splitlines()
    assert "False" == early  # READY=1 does not wait for it.
    assert set(loaded.split()) <= needed
    assert "requests" not in needed or {"requests", "email.utils"} <= set(loaded.split())
    others = {"slack", "webhook", "alertmanager", "pagerduty", "command", "email", "journal", "stdout"}
    assert 1 == len({f"agent.notifiers.{name}" for name in others} & set(ours.split()))
