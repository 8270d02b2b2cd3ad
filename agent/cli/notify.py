"""``sockmem-agent notify test``: send what is clearly marked as a test to every channel with the service's code."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout, suppress
from datetime import datetime, timezone
from itertools import islice
from pathlib import Path
from uuid import uuid4

import click

from agent.cli import config_option, json_option
from agent.cli.common import EX_FAILED, settings_or_exit
from agent.cli.printing import console, fail, print_json
from agent.cli.rehearsal import rehearse
from agent.config.load import channels
from agent.core.delivery import Delivered, Delivery, Rejected, Retry
from agent.core.format import printable
from agent.core.model import Notice
from agent.core.settings import ChannelSettings
from agent.notifiers import ChannelError, build
from agent.probe import take_snapshot
from agent.probe.pagesize import PROC
from agent.service.channel_log import surprise_text

STYLES = {"delivered": "green", "retry": "yellow", "rejected": "red"}


@click.group(name="notify", epilog="Example: sockmem-agent notify test")
def command() -> None:
    """Send a test notification to the configured channels."""


@command.command(epilog="Example: sockmem-agent notify test --channel ops --incident")
@click.option("--channel", "name", metavar="NAME", help="Only this channel.")
@click.option("--incident", "is_incident", is_flag=True, help="Play a whole incident: opened, updated, resolved.")
@click.option(
    "--hold",
    type=click.IntRange(0, 3600),
    default=0,
    metavar="SECONDS",
    help="Leave the test incident open for this long (an Alertmanager notifies after its group_wait), or until Ctrl-C.",
)
@config_option
@json_option
def test(name: str | None, config_path: Path | None, *, is_incident: bool, hold: int, as_json: bool) -> None:
    """Send a test to each channel and report what came of it.

    It is one notification; with --incident, an incident that is marked as a test and stored nowhere. Without a
    configured channel it goes to standard output. Exit status: 0 all delivered, 1 otherwise.
    """
    if hold and not is_incident:
        raise click.UsageError("--hold needs --incident")
    known = channels(settings_or_exit(config_path, EX_FAILED))
    chosen = [channel for channel in known if name in (None, channel.name)]
    if not chosen:
        names = ", ".join(channel.name for channel in known)
        fail(EX_FAILED, f"sockmem-agent: no channel {printable(str(name))!r}; configured channels: {names}")
    results = []
    for notice in _play(chosen, hold) if is_incident else _one(chosen):
        for channel in chosen:
            if _is_wanted(channel, notice):
                results.append(_describe(channel, notice, _send(channel, notice, as_json=as_json)))
                if not as_json:
                    _print(results[-1])
    if as_json:
        print_json({"channels": results})
    sys.exit(0 if all(result["outcome"] == "delivered" for result in results) else EX_FAILED)


def _one(chosen: Sequence[ChannelSettings]) -> Iterator[Notice]:
    """Yield the one notice of a simple test."""
    names = tuple(channel.name for channel in chosen)
    yield Notice(id=f"test-{uuid4().hex}", type="sockmem.test", at=_now(), reason="test", channels=names, data=None)


def _play(chosen: Sequence[ChannelSettings], hold: int) -> Iterator[Notice]:
    """Yield the notices of a test incident, the last after it was held open."""
    snapshot = take_snapshot(PROC, _now(), "command")
    notices = rehearse(snapshot, tuple(channel.name for channel in chosen), _now)
    yield from islice(notices, 2)
    with suppress(KeyboardInterrupt):  # It is resolved all the same: PagerDuty would keep it triggered.
        time.sleep(hold)
    yield from notices


def _is_wanted(channel: ChannelSettings, notice: Notice) -> bool:
    """Return whether the service would send such a notice to this channel, by the keys of its table."""
    keys = {"sockmem.incident.updated": "updates", "sockmem.incident.resolved": "resolved"}
    return notice.type not in keys or getattr(channel, keys[notice.type], True)


def _send(channel: ChannelSettings, notice: Notice, *, as_json: bool) -> Delivery:
    """Send one notice; the stdout channel must not write into the JSON document."""
    with redirect_stdout(sys.stderr if as_json else sys.stdout):
        try:
            return build(channel).notify(notice)
        except ChannelError as error:
            return Rejected(why=str(error))
        except Exception as surprise:  # noqa: BLE001 - the other channels still get theirs
            return Retry(why=surprise_text(surprise))


def _describe(channel: ChannelSettings, notice: Notice, delivery: Delivery) -> dict[str, str]:
    if isinstance(delivery, Delivered):
        outcome, detail = "delivered", delivery.detail
    elif isinstance(delivery, Retry):
        outcome, detail = "retry", f"{delivery.why} (the service would retry)"
    else:
        outcome, detail = "rejected", f"{delivery.why} (retrying will not help)"
    sent = notice.type.rpartition(".")[2]
    described = {"channel": channel.name, "type": channel.type, "notice": sent, "outcome": outcome}
    return described | {"detail": printable(detail)}


def _print(result: dict[str, str]) -> None:
    word = "delivered" if result["outcome"] == "delivered" else "NOT delivered"
    step = "" if result["notice"] == "test" else f"{result['notice']} "
    line = f"{result['channel']} ({result['type']}): {step}{word}: {result['detail']}"
    console().print(line, style=STYLES[result["outcome"]], soft_wrap=True)


def _now() -> datetime:
    return datetime.now(timezone.utc)
