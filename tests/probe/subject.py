"""A service that treats its connections badly, as a process of its own: ``python subject.py``, commands on stdin.

Each command is a line and is answered by one: ``listen [BACKLOG]`` (the port), ``accept N``, ``connect PORT N``,
``fill`` (send until every socket is full), ``say BYTES`` (send so much on each), ``close`` (all but the listener). It
ends with its standard input, and all sockets with it.
"""

import os
import socket
import sys


def main() -> None:
    listener: socket.socket | None = None
    kept: list[socket.socket] = []
    for line in sys.stdin:
        command, *arguments = line.split()
        answer = "done"
        if command == "listen":
            listener = create_listener(int(arguments[0]) if arguments else 128)
            answer = str(listener.getsockname()[1])
        elif command == "accept" and listener:
            kept += [listener.accept()[0] for _ in range(int(arguments[0]))]
        elif command == "connect":
            kept += [socket.create_connection(("127.0.0.1", int(arguments[0]))) for _ in range(int(arguments[1]))]
        elif command == "fill":
            fill(kept)
        elif command == "say":
            for each in kept:
                each.sendall(bytes(int(arguments[0])))
        elif command == "close":
            for each in kept:
                each.close()
            kept.clear()
        print(answer, flush=True)  # noqa: T201 - the answer


def create_listener(backlog: int) -> socket.socket:
    """Listen on a port that is no ephemeral one, as a service does: it still names the service when that has ended."""
    for port in range(20000 + os.getpid() * 7 % 8000, 32000):
        try:
            return socket.create_server(("127.0.0.1", port), backlog=backlog)
        except OSError:
            continue
    raise SystemExit("no port is free")


def fill(sockets: list[socket.socket]) -> None:
    for each in sockets:
        each.settimeout(0)
        try:
            while True:
                each.send(bytes(65536))
        except BlockingIOError:
            continue


if __name__ == "__main__":
    main()
