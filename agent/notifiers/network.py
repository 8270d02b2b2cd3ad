"""What all channels over a network share: a total deadline, certificates of their own, words for what went wrong.

Timeouts of sockets are per read: a server that drips a byte a second holds a client forever. So an attempt runs in a
short-lived thread. The courier waits until the deadline, then shuts down the thread's sockets, which ends a connect
through a proxy, a TLS handshake and an answer alike; it holds a dup of each descriptor, since ssl takes the original. A
name lookup cannot be cut: its thread is left to the resolver's timeouts, and no other attempt starts before it has
ended, so at most one is left behind.
"""

import contextlib
import os
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Generic, TypeVar, cast

from agent.core.delivery import Retry
from agent.core.settings import EmailSettings, HttpChannel
from agent.notifiers import ChannelError

GRACE_SECONDS = 1.0  # for the thread to notice that its socket was shut down

T = TypeVar("T")


class Attempt(threading.Thread, Generic[T]):
    """One attempt in its own thread, so that its sockets can be shut down from outside."""

    def __init__(self, send: "Callable[[Attempt[T]], T]") -> None:
        super().__init__(name="attempt", daemon=True)
        self.result: T | None = None
        self.failure: BaseException | None = None
        self.expired = self.was_sent = False  # Once sent, it may have been taken.
        self.on_end: Callable[[], object] = lambda: None
        self._send = send
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []

    def run(self) -> None:
        """Send, and close what is still open."""
        try:
            self.result = self._send(self)
        except BaseException as error:  # noqa: BLE001 - for the courier's thread, which knows the expected ones
            self.failure = error
        with self._lock:
            while self._sockets:
                self._sockets.pop().close()
        self.on_end()
        del self._send, self.on_end  # They hold what holds this attempt, until the next one.

    def adopt(self, connected: socket.socket) -> socket.socket:
        """Keep a handle on a new connection; after the deadline nothing may be sent."""
        with self._lock:
            if self.expired:
                connected.close()
                raise TimeoutError
            self._sockets.append(connected.dup())
        return connected

    def cut(self) -> None:
        """End the attempt, whatever it is waiting for."""
        with self._lock:
            self.expired = True
            for held in self._sockets:
                with contextlib.suppress(OSError):
                    held.shutdown(socket.SHUT_RDWR)


def this_attempt() -> Attempt[object]:
    """Return the attempt whose thread this is."""
    return cast("Attempt[object]", threading.current_thread())


class Attempts(Generic[T]):
    """The attempts of one courier, one at a time."""

    def __init__(self, deadline_seconds: float) -> None:
        self.deadline_seconds, self.was_sent = deadline_seconds, False
        self.last: Attempt[T] | None = None

    def make(self, send: Callable[[Attempt[T]], T]) -> T | Retry:
        """Make one attempt within the deadline; return or raise what it ended in."""
        if self.last is not None and self.last.is_alive():
            return Retry(why="an earlier attempt still hangs in the name lookup or in connecting")
        attempt = self.last = Attempt(send)
        try:
            attempt.start()
        except RuntimeError:
            self.last = None
            return Retry(why="no thread could be started")
        attempt.join(self.deadline_seconds)
        if attempt.is_alive():
            attempt.cut()
            attempt.join(GRACE_SECONDS)
        self.was_sent = attempt.was_sent
        if attempt.result is not None:
            return attempt.result
        if attempt.expired or attempt.failure is None:
            return Retry(why=no_answer(self.deadline_seconds), may_be_taken=self.was_sent)
        failure, attempt.failure = attempt.failure, None  # It holds the frames of the whole attempt.
        raise failure


def no_answer(deadline_seconds: float) -> str:
    """Say that the deadline has passed."""
    return f"no answer within {deadline_seconds:g} s"


def network_words(error: BaseException) -> str | None:
    """Say what the network or TLS had against an attempt; None for any other error, and for one without a number."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate not trusted: {error.verify_message}"
    if isinstance(error, socket.gaierror):
        return f"name lookup failed: {error.strerror}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason or 'connection closed'}"
    return os.strerror(error.errno).lower() if isinstance(error, OSError) and isinstance(error.errno, int) else None


def load_certificates(context: ssl.SSLContext, settings: HttpChannel | EmailSettings) -> ssl.SSLContext:
    """Add a channel's own certificates; ChannelError names the file that cannot be used."""
    key = "ca_file"
    try:
        if settings.ca_file:
            context.load_verify_locations(settings.ca_file)
        key = "cert_file"
        if isinstance(settings, HttpChannel) and settings.cert_file:
            # Without a passphrase of our own OpenSSL would ask the terminal for that of an encrypted key.
            context.load_cert_chain(settings.cert_file, settings.key_file or None, password="")
    except OSError as error:
        reason = error.reason if isinstance(error, ssl.SSLError) else error.strerror
        said = (reason or "not PEM, or encrypted").replace("_", " ").lower()
        raise ChannelError(f"{settings.name}: {key} {getattr(settings, key)}: {said}") from None
    return context
