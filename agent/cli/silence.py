"""``sockmem-agent silence``: hold back notifications for a while; incidents are recorded all the same."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import click

from agent.cli import config_option
from agent.cli.common import EX_FAILED, exits, find_store
from agent.cli.faults import is_missing
from agent.cli.printing import fail, stamp
from agent.cli.since import read_span
from agent.config.load import ConfigError
from agent.core.format import printable
from agent.core.model import LONGEST_SILENCE, Silence
from agent.sources import local_now
from agent.store import StoreError, end_silence, read_silence, write_silence

LONGEST_REASON = 200


def read_duration(ctx: click.Context, param: click.Parameter, value: str | None) -> timedelta | None:
    """Parse DURATION: a silence ends."""
    if value is None:
        return None
    with suppress(OverflowError):
        span = read_span(value)
        if span and span <= LONGEST_SILENCE:
            return span
    raise click.BadParameter(f"must be like 30m, 2h or 1d, up to {LONGEST_SILENCE.days}d, not {value!r}", ctx, param)


@click.command(name="silence", epilog='Example: sockmem-agent silence 2h --reason "moving the load balancer"')
@click.argument("duration", callback=read_duration, required=False)
@click.option("--reason", metavar="TEXT", help="Why: shown by status and incidents show.")
@click.option("--end", "is_end", is_flag=True, help="End the silence now.")
@config_option
def command(duration: timedelta | None, reason: str | None, config_path: Path | None, *, is_end: bool) -> None:
    """Hold back notifications for DURATION: 30m, 2h, 1d.

    Incidents are recorded. What is still open at the end is sent then; what an Alertmanager or PagerDuty already shows
    is kept up to date meanwhile. Needs root or the service's user. Exit status: 0, 2 usage, 1 cannot be written.
    """
    reason = (reason or "").strip()
    if is_end == (duration is not None) or is_end == bool(reason):
        raise click.UsageError("give DURATION and --reason TEXT, or --end alone")
    if len(reason) > LONGEST_REASON:
        raise click.BadParameter(f"longer than {LONGEST_REASON} characters", param_hint="--reason")
    try:
        directory = find_store(config_path).directory
    except ConfigError as error:
        fail(EX_FAILED, *error.errors)
    if is_missing(directory):
        fix = "start the service first, or name its configuration with --config"
        fail(EX_FAILED, f"sockmem-agent: {directory}: no such directory; {fix}")
    with exits(EX_FAILED), as_owner(directory):
        before, now = _in_effect(directory), local_now()
        if duration is None:
            end_silence(directory)
            click.echo(f"ended the silence {_text(before)}" if before else "nothing was silenced")
            return
        # One that replaces another goes on with it: what opened in that and is over in this one was silenced.
        until = now + duration
        since = max(before.since, until - LONGEST_SILENCE) if before else now
        silence = Silence(since=since, until=until, reason=printable(reason))
        write_silence(directory, silence)
    click.echo(f"silenced {_text(silence)}")
    if before:
        click.echo(f"replaced the silence {_text(before)}")


@contextmanager
def as_owner(directory: Path) -> Iterator[None]:
    """Write as the owner of the state directory if this is root: a file of root's the service could not read."""
    owner = directory.stat()
    if os.geteuid() == 0:
        os.setegid(owner.st_gid)
        os.seteuid(owner.st_uid)
    try:
        yield
    finally:
        if os.getuid() == 0:
            os.seteuid(0)
            os.setegid(os.getgid())


def _in_effect(directory: Path) -> Silence | None:
    """Read the silence in effect; a damaged one is none, and is replaced."""
    with suppress(StoreError):
        silence = read_silence(directory)
        return silence if silence and silence.is_on(local_now()) else None
    return None


def _text(silence: Silence) -> str:
    return f"until {stamp(silence.until)}: {silence.reason}"
