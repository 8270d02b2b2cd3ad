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

    Raises ChannelError when the address or the signing secret cannot be used.
    """
    # ruff: noqa: PLC0415 - lazy on purpose, see the top
    match settings:
        case SlackSettings():
            from agent.notifiers.slack import SlackNotifier

            return SlackNotifier(settings.name, settings.url)
        case WebhookSettings():
            from agent.notifiers.webhook import WebhookNotifier, read_secret

            secret = read_secret(settings.name, Path(settings.secret_file)) if settings.secret_file else None
            return WebhookNotifier(settings.name, settings.url, secret)
        case AlertmanagerSettings():
            from agent.notifiers.alertmanager import AlertmanagerNotifier

            return AlertmanagerNotifier(settings.name, settings.urls)
        case StdoutSettings():
            from agent.notifiers.stdout import StdoutNotifier

            return StdoutNotifier(settings.name)
        case _:
            raise ChannelError(f"{settings.name}: type {settings.type} comes with the next version")
