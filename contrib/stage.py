"""What the demo and the benchmarks stand on: the real agent as a process, and a receiver on loopback."""

# Scripts are run with -m from the top of the repository, as a namespace package.

import http.server
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

T = TypeVar("T")
# The last would have every start compile anew what the packages carry as byte-code.
NOT_INHERITED = (
    *("STATE_DIRECTORY", "CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"),
    "PYTHONDONTWRITEBYTECODE",
)


class Post(NamedTuple):
    """One POST as it arrived; ``at`` is time.perf_counter() once the body was read."""

    at: float
    path: str
    headers: Mapping[str, str]
    body: bytes


class Receiver:
    """An HTTP server on loopback: every POST is taken (``ok``, as Slack says it) and put into ``posts``."""

    def __init__(self) -> None:
        posts: queue.SimpleQueue[Post] = queue.SimpleQueue()

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                posts.put(Post(time.perf_counter(), self.path, dict(self.headers.items()), body))
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, *_: object) -> None:
                """Keep the terminal for the story."""

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                """Keep it: a sender that ends resets its connection."""

        self.posts = posts
        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "Receiver":  # noqa: PYI034 - typing.Self is of Python 3.11
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def agent_command(*arguments: str) -> list[str]:
    """Name the program as this interpreter would run it."""
    return [sys.executable, "-m", "agent", *arguments]


def clean_environment() -> dict[str, str]:
    """Copy the environment without what would lead the agent elsewhere: another state directory, a proxy."""
    kept = {k: v for k, v in os.environ.items() if k not in NOT_INHERITED and not k.lower().endswith("_proxy")}
    return kept | {"NO_COLOR": "1"}


@contextmanager
def running_agent(config: Path, log: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run the service on a configuration until the block ends; what it prints goes to ``log``."""
    with log.open("wb") as output:
        command = agent_command("run", "--config", str(config), *options)
        process = subprocess.Popen(command, stdout=output, stderr=output, env=clean_environment())
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(look: Callable[[], T | None], what: str, log: Path, seconds: float = 60.0) -> T:
    """Look every half millisecond until there is something; end the program with the agent's last words if not."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        if time.monotonic() > deadline:
            sys.exit(
                f"no {what} within {seconds:.0f} s; the agent's last words:\n{log.read_text(errors='replace')[-2000:]}"
            )
        time.sleep(0.0005)
    return found


def next_post(receiver: Receiver, what: str, log: Path, seconds: float = 60.0) -> Post:
    """Take the next POST, or end the program with the agent's last words."""
    try:
        return receiver.posts.get(timeout=seconds)
    except queue.Empty:
        sys.exit(
            f"no {what} within {seconds:.0f} s; the agent's last words:\n{log.read_text(errors='replace')[-2000:]}"
        )
