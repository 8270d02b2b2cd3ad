"""The services of a scenario: each is a real process in a unit of its own, with real sockets.

    load.py serve --port 8080 [--bytes N] [--pause S]   accept; at the word "send" queue bytes for every client, at
                                                        "close" close all but --stay, at "leave" the first half
    load.py clients --port 8080 --count 400             connect and never read
    load.py talk --port 8080 --count 50                 connect, ask, read the answer to its end, over and over
    load.py churn --port 8080 --count 100 --rounds 20   be both sides: connect, queue, close our side, again and again
    load.py answer --port 8080                          accept, read, answer and close, over and over
    load.py push --port 8080 --count 60 [--bytes N]     connect, and send whenever the kernel takes more
    load.py hoard --port 8080 --count 60                accept, and never read
    load.py drain --port 8080 --count 60 [--pause S]    accept, and read whatever comes

A word is given by making the file /run/vm/NAME.WORD; what is ready says so in /run/vm/NAME.is-WORD.
"""

import argparse
import contextlib
import selectors
import socket
import time
from pathlib import Path

RUN = Path("/run/vm")
CHUNK = b"x" * 65536
LAST_PAUSE = 0.005
UNREAD = 4096  # bytes that may wait for a client that does not read


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["serve", "clients", "talk", "answer", "churn", "push", "hoard", "drain"])
    parser.add_argument("--name", required=True)
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--stay", type=int, default=0, help="connections that are not closed at the word")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--last-after", type=float, default=0.0, help="one more round, so long after the first")
    parser.add_argument("--bytes", type=int, default=1 << 30)
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument("--own", action="append", help="our own addresses to connect from, in turn")
    options = parser.parse_args()
    works = {"serve": serve, "clients": clients, "talk": talk, "answer": answer, "churn": churn}
    (works | {"push": push, "hoard": hoard, "drain": drain})[options.what](options)


def serve(options: argparse.Namespace) -> None:
    listener = socket.create_server(("", options.port), backlog=4096)
    connections: list[socket.socket] = []
    say(options, "listening")
    listener.settimeout(0.05)
    done: set[str] = set()
    while True:
        with contextlib.suppress(TimeoutError):
            while True:
                connections.append(listener.accept()[0])
                if len(connections) == options.count:
                    say(options, "connected")
        if told(options, "send", done):
            for connection in connections:
                fill(connection, options.bytes)
            say(options, "full")
        if told(options, "leave", done):
            shut(connections[: len(connections) // 2], options.pause)
            say(options, "half-closed")
        if told(options, "close", done):
            closing = len(connections) - options.stay
            shut(connections[:closing], options.pause)
            del connections[:closing]
            say(options, "closed")


def fill(connection: socket.socket, limit: int) -> None:
    """Queue as much as the kernel takes, up to a limit of bytes."""
    connection.settimeout(0)
    sent = 0
    with contextlib.suppress(OSError):
        while sent < limit:
            sent += connection.send(CHUNK[: limit - sent])


def shut(connections: list[socket.socket], pause: float) -> None:
    for connection in connections:
        connection.close()
        if pause:
            time.sleep(pause)


def clients(options: argparse.Namespace) -> None:
    """Connect ``count`` times and do not read; connections that were reset stay where they are."""
    own = options.own or [""]
    connections = []
    for number in range(options.count):
        source = own[number % len(own)]
        connection = socket.socket()
        # Some kernels take a megabyte for a client that does not read; what was taken is not unsent any more.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, UNREAD)
        if source:
            connection.bind((source, 0))
        connection.connect((options.address, options.port))
        connections.append(connection)
    say(options, "connected")
    time.sleep(3600)


def talk(options: argparse.Namespace) -> None:
    """Ask and read answers, ``count`` of them, one connection each; this side closes last."""
    for _ in range(options.count):
        with socket.create_connection(("127.0.0.1", options.port)) as connection:
            connection.sendall(b"?")
            while connection.recv(65536):
                pass
    say(options, "satisfied")
    time.sleep(3600)


def answer(options: argparse.Namespace) -> None:
    """Answer each question with ``bytes`` and close first, so that TIME-WAIT is ours."""
    listener = socket.create_server(("", options.port), backlog=4096)
    say(options, "listening")
    while True:
        connection = listener.accept()[0]
        with connection:
            connection.recv(1)
            connection.sendall(b"x" * min(options.bytes, 10_000))


def churn(options: argparse.Namespace) -> None:
    """Close ``count`` connections with data unsent, ``rounds`` times; what is left of them stays with the kernel."""
    listener = socket.create_server(("127.0.0.1", options.port), backlog=4096)
    peers: list[socket.socket] = []
    last_at = time.monotonic() + options.last_after
    for number in range(options.rounds + 1):
        if number == options.rounds:
            time.sleep(max(0.0, last_at - time.monotonic()))
        connections = []
        for _ in range(options.count):
            peer = socket.socket()
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, UNREAD)
            peer.connect(("127.0.0.1", options.port))
            peers.append(peer)
            connections.append(listener.accept()[0])
            fill(connections[-1], options.bytes)
        # The last ones slowly: a kernel that counts anew every 100 ms would let them all pass between two counts.
        shut(connections, options.pause if number < options.rounds else LAST_PAUSE)
    say(options, "done")
    time.sleep(3600)


def push(options: argparse.Namespace) -> None:
    """Connect ``count`` times and send ``bytes`` at a time without end; of a little, little waits on this side."""
    waiting = selectors.DefaultSelector()
    for _ in range(options.count):
        connection = socket.socket()
        if options.bytes <= UNREAD:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UNREAD)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.connect((options.address, options.port))
        connection.settimeout(0)
        waiting.register(connection, selectors.EVENT_WRITE)
    say(options, "connected")
    while True:
        for key, _ in waiting.select():
            with contextlib.suppress(BlockingIOError):
                key.fileobj.send(CHUNK[: options.bytes])


def hoard(options: argparse.Namespace) -> None:
    """Accept ``count`` connections and read nothing, into buffers as large as may be."""
    connections = accept(options, 1 << 20)
    say(options, "connected")
    time.sleep(3600)
    del connections


def drain(options: argparse.Namespace) -> None:
    """Accept ``count`` connections and read all that comes, with a pause between one look and the next."""
    waiting = selectors.DefaultSelector()
    for connection in accept(options, 0):
        waiting.register(connection, selectors.EVENT_READ)
    say(options, "connected")
    while True:
        for key, _ in waiting.select():
            key.fileobj.recv(1 << 20)
        time.sleep(options.pause)


def accept(options: argparse.Namespace, buffer: int) -> list[socket.socket]:
    """Accept ``count`` connections; a ``buffer`` of so many bytes is asked for, unless 0."""
    listener = socket.create_server(("", options.port), backlog=4096)
    if buffer:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    say(options, "listening")
    return [listener.accept()[0] for _ in range(options.count)]


def told(options: argparse.Namespace, word: str, done: set[str]) -> bool:
    """Return whether this word was given and not yet obeyed."""
    if word in done or not (RUN / f"{options.name}.{word}").exists():
        return False
    done.add(word)
    return True


def say(options: argparse.Namespace, word: str) -> None:
    (RUN / f"{options.name}.is-{word}").touch()


if __name__ == "__main__":
    main()
