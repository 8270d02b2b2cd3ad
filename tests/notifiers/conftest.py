"""Servers on loopback that behave as they are told."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import pytest
from harness import Handler


@pytest.fixture
def serve() -> Iterator[Callable[[Handler], str]]:
    """Start servers that do with every connection what a function says; the address is that of a loopback port."""
    stopping = threading.Event()
    threads: list[threading.Thread] = []
    listeners: list[socket.socket] = []

    def start(handler: Handler) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listener.settimeout(0.05)
        listeners.append(listener)

        def handle(connection: socket.socket) -> None:
            with connection, contextlib.suppress(OSError):
                connection.settimeout(5)
                handler(connection)

        def accept() -> None:
            while not stopping.is_set():
                with contextlib.suppress(TimeoutError):
                    connection, _ = listener.accept()
                    thread = threading.Thread(target=handle, args=(connection,))
                    threads.append(thread)
                    thread.start()

        thread = threading.Thread(target=accept)
        threads.append(thread)
        thread.start()
        return f"127.0.0.1:{listener.getsockname()[1]}"

    yield start
    stopping.set()
    for thread in threads:
        thread.join(5)
    for listener in listeners:
        listener.close()
