"""The channels: one file each, which turns a notice into what its receiver reads.

A channel is imported only when configured: `stdout` alone must not take the memory of requests.
"""

from pathlib import Path
from typing import Protocol

from agent.core.delivery import Delivery
from agent.core.model import Notice
from agent.core.settings import (
    AlertmanagerSettings,
    ChannelSettings,
    CommandSettings,
    JournalSettings,
    SlackSettings,
    StdoutSettings,
    WebhookSettings,
)


class ChannelError(Exception):
    """A channel cannot work as configured; the text is one line without a secret."""


class Notifier(Protocol):
    """A receiver of notices. ``notify`` makes one attempt in bounded time; no expected failure is an exception.

    ``is_state``: it shows the current state. Otherwise people read each message, an hourly budget limits them, and what
    exceeds it becomes a digest.
    """

    name: str
    is_state: bool

    def notify(self, notice: Notice) -> Delivery:
        """Try once to deliver the notice."""
        ...


def build(settings: ChannelSettings) -> Notifier:
    """Make the notifier of one ``[[notify]]`` table; a new channel is one file and one line here.

    Raises ChannelError when an address, a secret or a certificate cannot be used.
    """
    # ruff: noqa: PLC0415 - lazy on purpose, see the top
    match settings:
        case SlackSettings():
            from agent.notifiers.slack import SlackNotifier

            return SlackNotifier(settings)
        case WebhookSettings():
            from agent.notifiers.webhook import WebhookNotifier

            return WebhookNotifier(settings)
        case AlertmanagerSettings():
            from agent.notifiers.alertmanager import AlertmanagerNotifier

            return AlertmanagerNotifier(settings)
        case CommandSettings():
            from agent.notifiers.command import CommandNotifier

            return CommandNotifier(settings)
        case JournalSettings():
            from agent.notifiers.journal import JournalNotifier

            return JournalNotifier(settings)
        case StdoutSettings():
            from agent.notifiers.stdout import StdoutNotifier

            return StdoutNotifier(settings)
        case _:
            raise ChannelError(f"{settings.name}: type {settings.type} comes with the next version")


def read_secret(channel: str, key: str, file: str) -> str:
    """Read the one line that a channel's file holds; ChannelError does not quote it."""
    try:
        return Path(file).read_text(encoding="utf-8-sig").strip()
    except OSError as error:
        raise ChannelError(f"{channel}: {key} {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ChannelError(f"{channel}: {key} {file}: not text") from None
