"""What the service is asked to do: SIGTERM and SIGINT end it, SIGHUP reloads its configuration.

By default each of them ends a process at once (signal(7)), and systemd takes an end by SIGHUP for a clean one: the
service would stay stopped. ``listen`` therefore comes before everything else, imports included.
"""

import os
import signal
from types import FrameType


class Signals:
    """What was asked for and not done yet; ``started`` is set once there is something to tidy up before the end."""

    def __init__(self) -> None:
        self.stop = self.reload = self.started = False

    def listen(self) -> None:
        """Take the signals over."""
        signal.signal(signal.SIGTERM, self._on_stop)
        signal.signal(signal.SIGINT, self._on_stop)
        signal.signal(signal.SIGHUP, self._on_reload)

    def ignore(self) -> None:
        """End the same way whatever comes now: Python gives the default actions back before its process has ended."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)

    def _on_stop(self, signum: int, frame: FrameType | None) -> None:
        del signum, frame
        if not self.started:
            # An exception could be swallowed by what it interrupts. What is on disk is whole at every moment.
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
