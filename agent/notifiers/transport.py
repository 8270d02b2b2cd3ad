"""One POST by requests, and what its failure means; the only module that uses requests.

An answer may be anything. The request goes through requests' adapter, not its Session, which would compute where a
redirect leads and unpack the whole body for it; nothing is decoded, no cookie read; at most ANSWER_BYTES are read,
whatever length the answer claims; and whatever http.client raises over an answer means that it is not HTTP.

The address reaches no text: requests quotes it in its exceptions, so none of them leaves this file, and urllib3 in its
log, which is disabled. Only ``host[:port]`` is shown. HTTPS_PROXY, NO_PROXY and REQUESTS_CA_BUNDLE are honored.
"""

import contextlib
import http.client
import io
import logging
import re
import socket
import ssl
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import urllib3
import urllib3.connection
import urllib3.exceptions

from agent.core.delivery import Rejected, Retry
from agent.core.settings import HttpChannel
from agent.notifiers.answer import Answer
from agent.notifiers.network import Attempt, Attempts, load_certificates, network_words, no_answer, this_attempt

with warnings.catch_warnings():
    # requests guesses encodings with one of these where it finds one: a megabyte, and nothing here is decoded.
    warnings.simplefilter("ignore")
    for _guesser in ("chardet", "charset_normalizer"):
        sys.modules.setdefault(_guesser, None)  # type: ignore[arg-type]
    import requests
    import requests.adapters

BODY_BYTES = 64 * 1024
ANSWER_BYTES = 2 * BODY_BYTES  # with status line, headers, chunk sizes and trailers

# At DEBUG urllib3 logs the path of every request, at WARNING the whole address when headers are odd.
for _name in [name for name in logging.root.manager.loggerDict if name.partition(".")[0] == "urllib3"]:
    logging.getLogger(_name).disabled = True


class _Wire(io.RawIOBase):
    """Reads a connection, but no more than an answer may have."""

    def __init__(self, raw: io.RawIOBase) -> None:
        self._raw = raw
        self._left = ANSWER_BYTES
        self.has_ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:  # noqa: ANN401 - a writable buffer has no name before Python 3.12
        if not self._left:
            raise http.client.LineTooLong("answer")
        size = self._raw.readinto(memoryview(buffer)[: self._left])
        self._left -= size or 0
        self.has_ended = size == 0
        return size

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Lines(io.BufferedReader):
    """Reads status line, headers and chunk sizes, and hides the content type.

    email.parser, which reads the headers, takes the remainder of a damaged head for content. For a multipart it
    compiles the boundary into an expression that stays in memory (1 MiB for one of 60 kB, up to 512 of them), and
    multiparts nested hundreds deep take it seconds, which no deadline cuts.
    """

    def readline(self, size: int | None = -1) -> bytes:
        line = super().readline(size)
        return b"X-" + line if line[:13].lower() == b"content-type:" else line


class _Response(http.client.HTTPResponse):
    """http.client's answer, which rejects all that is not HTTP and skips interim answers (1xx)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - handed through as they come
        super().__init__(*args, **kwargs)
        self._wire = _Wire(self.fp.detach())
        self.fp = _Lines(self._wire)
        this_attempt().on_end = self.close  # urllib3 leaves it open when it does not like a header
        this_attempt().was_sent = kwargs.get("method") is not None  # None: the answer of a proxy to CONNECT

    def begin(self) -> None:
        try:
            super().begin()
            while self.status < http.HTTPStatus.OK:
                self.headers = None  # type: ignore[assignment]  # as before the first; else it would have begun already
                super().begin()
        except (OSError, http.client.HTTPException):
            raise
        except Exception as odd:  # of int(), email.parser, and what the next Python adds
            raise http.client.HTTPException from odd
        if self._wire.has_ended:  # http.client takes truncated headers for complete ones
            raise http.client.IncompleteRead(b"")


class _Connection(urllib3.connection.HTTPConnection):
    response_class = _Response

    def _new_conn(self) -> socket.socket:
        return this_attempt().adopt(super()._new_conn())


class _TlsConnection(urllib3.connection.HTTPSConnection):
    response_class = _Response

    def _new_conn(self) -> socket.socket:
        return this_attempt().adopt(super()._new_conn())


class _Adapter(requests.adapters.HTTPAdapter):
    """requests' own adapter, with connections that can be cut; through a proxy as well."""

    def __init__(self, tls: ssl.SSLContext | None) -> None:
        super().__init__()
        self._tls = tls

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as they come
        pool: Any = super().get_connection_with_tls_context(*args, **kwargs)
        pool.ConnectionCls = _TlsConnection if pool.scheme == "https" else _Connection
        if pool.scheme == "https" and self._tls:
            pool.conn_kw["ssl_context"] = self._tls  # to which urllib3 adds the system's certificates
        return pool

    def build_response(self, req: requests.PreparedRequest, resp: urllib3.BaseHTTPResponse) -> requests.Response:  # noqa: ARG002 - requests' own signature
        """Wrap urllib3's answer and read no cookie: Python's cookiejar warns with a traceback over odd ones."""
        response = requests.Response()
        response.raw = resp
        return response


class Sender:
    """Sends to one address for one courier; not shared between threads."""

    def __init__(self, settings: HttpChannel, url: str, headers: Mapping[str, str], deadline_seconds: float) -> None:
        self._url, self._attempts = url, Attempts[Answer](deadline_seconds)
        self._session = session = requests.Session()
        session.mount("http://", _Adapter(None))
        # With certificates of its own; where the channel has none, there is none: a context takes memory.
        own = urllib3.util.ssl_.create_urllib3_context() if settings.ca_file or settings.cert_file else None
        session.mount("https://", _Adapter(load_certificates(own, settings) if own else None))
        # Without an auth of its own, requests would look one up in ~/.netrc.
        session.auth = lambda request: request
        # A connection kept for hours is dead when needed, and takes a socket until then.
        session.headers.update({"Accept-Encoding": "identity", "Connection": "close", **headers})

    def post(self, body: bytes, headers: Mapping[str, str]) -> Answer | Retry | Rejected:
        """Make one attempt within the deadline; return the answer, or why there is none."""
        try:
            return self._attempts.make(lambda attempt: self._send(attempt, body, headers))
        except BaseException as failure:  # noqa: BLE001 - what is not expected is raised again
            return _explain(failure, self._attempts)

    def _send(self, attempt: Attempt[Answer], body: bytes, headers: Mapping[str, str]) -> Answer:
        request = requests.Request("POST", self._url, headers=dict(headers), data=body)
        prepared = self._session.prepare_request(request)
        address = str(prepared.url)
        # The proxies and trusted certificates that the environment names.
        found = self._session.merge_environment_settings(address, {}, stream=True, verify=None, cert=None)
        settings = cast("dict[str, Any]", found)
        # Closed: a server that ignores "Connection: close" would keep the connection.
        with (
            contextlib.closing(self._session.get_adapter(address)) as adapter,
            adapter.send(prepared, timeout=self._attempts.deadline_seconds, **settings) as response,
        ):
            content, said = _read_body(response.raw), response.raw.headers
            whole = None if attempt.expired else content
            return Answer(response.raw.status, said.get("Retry-After"), whole, said.get("Date"))


def _read_body(raw: urllib3.BaseHTTPResponse) -> bytes | None:
    try:
        body = raw.read(BODY_BYTES, decode_content=False)
        raw.read(1, decode_content=False)  # Only here does urllib3 notice a body shorter than announced.
    except Exception:  # noqa: BLE001 - http.client reads chunk sizes with int(), unchecked
        return None
    return body


def _explain(failure: BaseException, attempts: Attempts[Answer]) -> Retry | Rejected:
    """Describe an exception of requests in other words than its own, which quote the address."""
    chain = list(_chain(failure))
    expected = (OSError, urllib3.exceptions.HTTPError, http.client.HTTPException, requests.RequestException)
    if not any(isinstance(error, expected) for error in chain):
        # A bug here or in a library, logged by the courier without its text, which may hold the address.
        failure.args = ()
        raise failure from None
    if any(isinstance(error, requests.exceptions.InvalidURL) for error in chain):
        return Rejected(
            why="the url, or the proxy set in the environment, cannot be used: check it for blanks and odd characters"
        )
    text = next(
        (text for error in chain if (text := _words(error, attempts.deadline_seconds))), type(chain[0]).__name__
    )
    through_proxy = any(isinstance(error, requests.exceptions.ProxyError) for error in chain)
    return Retry(why=f"proxy: {text}" if through_proxy else text, may_be_taken=attempts.was_sent)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and all it wraps, innermost first: the operating system's words are the clearest."""
    inner = [error.__cause__, error.__context__, getattr(error, "reason", None), *error.args]
    for wrapped in inner:
        if isinstance(wrapped, BaseException):
            yield from _chain(wrapped)
    yield error


def _words(error: BaseException, deadline_seconds: float) -> str | None:
    if isinstance(error, TimeoutError | urllib3.exceptions.TimeoutError):
        return no_answer(deadline_seconds)
    return next((say(error) for kind, say in _WORDS if isinstance(error, kind)), None)


def _operating_system(error: Any) -> str | None:  # noqa: ANN401 - an OSError
    """Describe an OSError; of a library's, which have no number, only known ones."""
    if words := network_words(error):
        return words
    if refused := re.search(r"Tunnel connection failed: (\d{3})\b", str(error)):
        return f"HTTP {refused[1]}"
    return "the file named by REQUESTS_CA_BUNDLE is not there" if "TLS CA certificate bundle" in str(error) else None


BAD_PROXY = "the proxy setting in the environment cannot be used"
# The first match counts.
_WORDS: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], Callable[[Any], str | None]], ...] = (
    ((ssl.SSLError, socket.gaierror), network_words),
    (http.client.RemoteDisconnected, lambda _: "connection closed without an answer"),
    (http.client.IncompleteRead, lambda _: "the answer broke off"),
    (urllib3.exceptions.InvalidHeader, lambda _: "the answer is not HTTP"),
    (UnicodeError, lambda _: "the host name has a label that is empty or too long"),
    (requests.exceptions.InvalidHeader, lambda _: "the token or one of the headers has a character that HTTP forbids"),
    ((requests.exceptions.InvalidSchema, requests.exceptions.InvalidProxyURL), lambda _: BAD_PROXY),
    (http.client.HTTPException, lambda _: "the answer is not HTTP"),
    (OSError, _operating_system),
)
