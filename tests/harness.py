"""The real agent as a process of its own, for tests that kill it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from agent.store import Store

PATIENCE_SECONDS = 30.0


def wait_for(what: str, condition: Callable[[], object], seconds: float = PATIENCE_SECONDS) -> None:
    """Look until something is so; fail with its name when it never is."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds} s in vain for: {what}")
        time.sleep(0.02)


class AgentProcess:
    """``python -m agent run`` with a configuration and a state directory in a temporary folder."""

    def __init__(self, folder: Path, config: str) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.config = folder / "config.toml"
        self.config.write_text(config)
        self.log = folder / "agent.log"
        self.store = Store(self.state)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and return once the service says what it follows."""
        before = self.said().count("following ")
        environ = {**os.environ, "STATE_DIRECTORY": str(self.state), "PYTHONDONTWRITEBYTECODE": "1"}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "agent", "run", "--config", str(self.config)],
                stdout=log,
                stderr=log,
                env=environ,
            )
        wait_for("the agent to follow", lambda: self.said().count("following ") > before or self.ended())
        assert not self.ended(), self.said()

    def said(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it as a power cut would: no handler runs."""
        self.signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait()

    def stop(self) -> int:
        """End it as systemd would, and return the exit status."""
        assert self._process is not None
        if not self.ended():
            self.signal(signal.SIGTERM)
        return self._process.wait(PATIENCE_SECONDS)

    def events(self) -> int:
        """Count the events in all incidents on disk."""
        return sum(sum(self.store.load(i).events.values()) for i in self.store.ids())
