"""Signals to the service: SIGTERM and SIGINT end it, SIGHUP reloads its configuration.

By default each ends a process at once (signal(7)), and systemd takes an end by SIGHUP for a clean one: the service
would stay stopped. So ``listen`` comes before everything else, imports included.
"""

import os
import signal
from types import FrameType


class Signals:
    """What was requested and not done yet; ``started`` is set once an end needs tidying up."""

    def __init__(self) -> None:
        self.stop = self.reload = self.started = False

    def listen(self) -> None:
        """Install the handlers."""
        signal.signal(signal.SIGTERM, self._on_stop)
        signal.signal(signal.SIGINT, self._on_stop)
        signal.signal(signal.SIGHUP, self._on_reload)

    def ignore(self) -> None:
        """Ignore signals from now on: Python restores the default actions before its process has ended."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)

    def _on_stop(self, signum: int, frame: FrameType | None) -> None:
        del signum, frame
        if not self.started:
            # What it interrupts could swallow an exception. The disk is consistent at every moment.
            os._exit(0)
        self.stop = True

    def _on_reload(self, signum: int, frame: FrameType | None) -> None:
        del signum, frame
        self.reload = True


asked = Signals()


def is_run(arguments: list[str]) -> bool:
    """Return whether the command line means the service: ``run`` comes first, or right after ``--log-level LEVEL``."""
    if arguments[:1] == ["--log-level"]:
        arguments = arguments[2:]
    elif arguments and arguments[0].startswith("--log-level="):
        arguments = arguments[1:]
    return arguments[:1] == ["run"]
