"""``sockmem-agent notify test``: send a clearly marked test notification to every channel with the service's code."""

import sys
from contextlib import redirect_stdout
from datetime import datetime, timezone
from pathlib import Path
from uuid import uuid4

import click

from agent.cli import config_option, json_option
from agent.cli.common import EX_FAILED, console, fail, print_json, settings_or_exit
from agent.config.load import channels
from agent.core.delivery import Delivered, Delivery, Rejected, Retry
from agent.core.format import printable
from agent.core.model import Notice
from agent.core.settings import ChannelSettings
from agent.notifiers import ChannelError, build
from agent.service.courier import surprise_text

STYLES = {"delivered": "green", "retry": "yellow", "rejected": "red"}


@click.group(name="notify", epilog="Example: sockmem-agent notify test")
def command() -> None:
    """Send a test notification to the configured channels."""


@command.command(epilog="Example: sockmem-agent notify test --channel ops")
@click.option("--channel", "name", metavar="NAME", help="Only this channel.")
@config_option
@json_option
def test(name: str | None, config_path: Path | None, *, as_json: bool) -> None:
    """Send a test notification to each channel, and report whether it was delivered.

    Without a configured channel it goes to standard output. Exit status: 0 all delivered, 1 otherwise.
    """
    known = channels(settings_or_exit(config_path, EX_FAILED))
    chosen = [channel for channel in known if name in (None, channel.name)]
    if not chosen:
        names = ", ".join(channel.name for channel in known)
        fail(EX_FAILED, f"sockmem-agent: no channel {printable(str(name))!r}; configured channels: {names}")
    results = []
    for channel in chosen:
        result = _describe(channel, _send(channel, as_json=as_json))
        results.append(result)
        if not as_json:
            _print(result)
    if as_json:
        print_json({"channels": results})
    sys.exit(0 if all(result["outcome"] == "delivered" for result in results) else EX_FAILED)


def _send(channel: ChannelSettings, *, as_json: bool) -> Delivery:
    """Send one notice; the stdout channel must not write into the JSON document."""
    notice = Notice(
        id=f"test-{uuid4().hex}",
        type="sockmem.test",
        at=datetime.now(timezone.utc),
        reason="test",
        channels=(channel.name,),
        data=None,
    )
    with redirect_stdout(sys.stderr if as_json else sys.stdout):
        try:
            return build(channel).notify(notice)
        except ChannelError as error:
            return Rejected(why=str(error))
        except Exception as surprise:  # noqa: BLE001 - the other channels still get theirs
            return Retry(why=surprise_text(surprise))


def _describe(channel: ChannelSettings, delivery: Delivery) -> dict[str, str]:
    if isinstance(delivery, Delivered):
        outcome, detail = "delivered", delivery.detail
    elif isinstance(delivery, Retry):
        outcome, detail = "retry", f"{delivery.why} (the service would retry)"
    else:
        outcome, detail = "rejected", f"{delivery.why} (retrying will not help)"
    return {"channel": channel.name, "type": channel.type, "outcome": outcome, "detail": printable(detail)}


def _print(result: dict[str, str]) -> None:
    word = "delivered" if result["outcome"] == "delivered" else "NOT delivered"
    line = f"{result['channel']} ({result['type']}): {word}: {result['detail']}"
    console().print(line, style=STYLES[result["outcome"]], soft_wrap=True)
