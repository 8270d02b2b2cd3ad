"""Real programs on loopback, ended by the id of the process that the test started."""

import contextlib
import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness import hold_port, port_of, wait_for

KIT = Path(__file__).parent.parent.parent / "contrib"


@contextlib.contextmanager
def held_address() -> Iterator[str]:
    """Keep an address for a server."""
    with hold_port() as held:
        yield f"127.0.0.1:{port_of(held)}"


@contextlib.contextmanager
def serving(address: str, ready: str, *command: str | Path) -> Iterator[str]:
    """Run a server until the block ends; it is up when it answers ``ready``."""
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        wait_for(f"{command[0]}", lambda: server.poll() is not None or answers(f"http://{address}{ready}"))
        assert server.poll() is None, server.stdout and server.stdout.read()
        yield f"http://{address}"
    finally:
        server.kill()
        server.communicate()


def answers(url: str) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
        return answer.status == 200
    return False


def ask(url: str, body: object = None) -> Any:
    """Return the JSON of an answer; ``body`` is posted."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        text = answer.read()
    return json.loads(text) if text else None
