"""The channels: one file each, which turns a notice into what its receiver reads.

A channel is imported only when configured: `stdout` alone must not take the memory of requests.
"""

import platform
import sys
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast, runtime_checkable

from agent.core.delivery import Delivery
from agent.core.model import Notice
from agent.core.settings import ChannelSettings


class ChannelError(Exception):
    """A channel cannot work as configured; the text is one line without a secret."""


class Notifier(Protocol):
    """A receiver of notices. ``notify`` makes one attempt in bounded time; no expected failure is an exception.

    People read each message: an hourly budget limits them, and what exceeds it becomes a digest.
    """

    name: str

    def notify(self, notice: Notice) -> Delivery:
        """Try once to deliver the notice."""
        ...


@runtime_checkable
class StateNotifier(Notifier, Protocol):
    """A receiver that shows the current state, in one or several instances; ``notify`` is for tests alone."""

    def show(self, notice: Notice, instance: int) -> Delivery:
        """Try once to show one instance what is so now: a ``Standing``."""
        ...


def this_host() -> str:
    """Return the name of this host, for what is about no incident."""
    return platform.node() or "unknown"


def build(settings: ChannelSettings) -> Notifier | StateNotifier:
    """Make the notifier of one ``[[notify]]`` table: for SlackSettings, of type slack, slack.SlackNotifier.

    Raises ChannelError when an address, a secret or a certificate cannot be used.
    """
    module = import_module(f"agent.notifiers.{settings.type}")
    notifier = getattr(module, type(settings).__name__.replace("Settings", "Notifier"))
    return cast("Notifier | StateNotifier", notifier(settings))


def import_late() -> None:
    """Import what built channels need only to send: a third of all imports, for which READY=1 need not wait."""
    if "agent.notifiers.http" in sys.modules:
        import_module("agent.notifiers.transport")


def read_secret(channel: str, key: str, file: str) -> str:
    """Read the one line that a channel's file holds; ChannelError does not quote it."""
    try:
        return Path(file).read_text(encoding="utf-8-sig").strip()
    except OSError as error:
        raise ChannelError(f"{channel}: {key} {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ChannelError(f"{channel}: {key} {file}: not text") from None
