"""``sockmem-agent status``: what the service says of itself, for people and for monitoring systems.

``--nagios`` mirrors the Monitoring Plugins' guidelines: exit status 0 ok, 1 warning, 2 critical, 3 unknown.
"""

import os
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import click

from agent.cli import config_option, json_option
from agent.cli.common import find_store, how_to_read, is_closed
from agent.cli.printing import console, print_json, stamp
from agent.config.load import SYSTEM_RUNTIME, ConfigError
from agent.core.format import printable
from agent.core.status import (
    HEARTBEAT_SECONDS,
    STATUS,
    Level,
    Reader,
    Status,
    check,
    one_line,
    open_text,
    silence_text,
    waiting_text,
    why_not_running,
)
from agent.service.status import STATUS_FILE, boot_id, pid_namespace
from agent.sources import local_now
from agent.store import StoreError
from agent.store.disk import UnreadableError, read_json

NOT_RUNNING = 3
EXITS: dict[Level, int] = {"OK": 0, "CRITICAL": 1, "WARNING": 2, "UNKNOWN": NOT_RUNNING}
NAGIOS: dict[Level, int] = {"OK": 0, "WARNING": 1, "CRITICAL": 2, "UNKNOWN": NOT_RUNNING}
LABEL_COLUMNS = 10
WIDTH = 100


@click.command(name="status", epilog="Example: sockmem-agent status --check --nagios")
@click.option("--check", "only_check", is_flag=True, help="Print one line of at most 80 characters, and exit by it.")
@click.option("--nagios", is_flag=True, help="Like --check, with the exit status of a monitoring plugin.")
@config_option
@json_option
def command(config_path: Path | None, *, only_check: bool, nagios: bool, as_json: bool) -> None:
    """Show whether the service is running, what it follows, open incidents, and what waits for which channel and why.

    Any user may ask. Exit status: 0; with --check 0 fine, 1 an incident is open that the kernel reported, 2 only an
    early warning is open, 3 not running or unknown; with --nagios 0 ok, 1 warning, 2 critical, 3 unknown.
    """
    try:
        status, error = find_status(config_path), None
    except ConfigError as mistakes:
        status, error = None, printable("; ".join(mistakes.errors))
    except (StoreError, LookupError) as problem:
        status, error = None, printable(str(problem))
    reader = make_reader(status.pid if status else 0)
    level, line = check(status, reader) if status else ("UNKNOWN", one_line("UNKNOWN", str(error)))
    why = why_not_running(status, reader) if status else error
    if as_json:
        print_json({"running": why is None, "why": why, "status": status})
    elif only_check or nagios:
        click.echo(line)
    else:
        _print(status, why, reader)
    sys.exit(NAGIOS[level] if nagios else EXITS[level] if only_check else 0)


def find_status(config_path: Path | None) -> Status:
    """Read the status of the service; of that with this configuration, if one is named.

    Raises LookupError without a file, StoreError for a damaged one, ConfigError for a bad [store].
    """
    runtime = Path(os.environ.get("RUNTIME_DIRECTORY", "").split(":")[0] or SYSTEM_RUNTIME) / STATUS_FILE
    if config_path is None and os.path.lexists(runtime):
        return _read(runtime)
    directory = find_store(config_path).directory
    if os.access(directory / STATUS_FILE, os.F_OK):
        return _read(directory / STATUS_FILE)
    if os.path.lexists(runtime):
        status = _read(runtime)
        if status.directory == printable(str(directory)):
            return status
    if (config_path or "STATE_DIRECTORY" in os.environ) and is_closed(directory):
        denied = f"{directory}: permission denied; {how_to_read(directory)}"
        raise LookupError(f"unknown: no {STATUS_FILE} in {runtime.parent}, and {denied}")
    where = f"no {STATUS_FILE} in {runtime.parent} or {directory}"
    raise LookupError(f"not running: {where}; to start it: systemctl start sockmem-agent")


def _read(path: Path) -> Status:
    try:
        return read_json(path, STATUS)
    except UnreadableError as error:
        if not error.is_damage:
            raise
        anew = f"a running service writes it anew within {HEARTBEAT_SECONDS:g} s"
        raise StoreError(f"{path}: cannot be read ({error.why}); {anew}") from error


def make_reader(pid: int) -> Reader:
    """Say when and where the file is read, and whether there is a process with its pid."""
    return Reader(local_now(), time.monotonic(), boot_id(), pid_namespace(), _exists(pid))


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True  # Another user's.
    return True


def _print(status: Status | None, why: str | None, reader: Reader) -> None:
    screen = console()
    if status is None:
        screen.print(str(why), style="bold red", soft_wrap=True)
        return
    alive = f"running since {stamp(status.started_at)} (version {status.version}, pid {status.pid})"
    screen.print(f"not running: {why}" if why else alive, style="bold red" if why else "bold green", soft_wrap=True)
    if why:
        screen.print(f"What it said last, {stamp(status.written_at)}:", soft_wrap=True)
    for label, text in _rows(status, reader):
        wrapped = textwrap.wrap(
            printable(text),
            min(WIDTH, screen.width),
            initial_indent=f"{label:<{LABEL_COLUMNS}}",
            subsequent_indent=" " * LABEL_COLUMNS,
            break_on_hyphens=False,
            break_long_words=False,
        )
        for line in wrapped:
            screen.print(line, soft_wrap=True)


def _rows(status: Status, reader: Reader) -> Iterator[tuple[str, str]]:
    yield "Follows", status.following
    yield "Files", status.directory
    for incident in status.open:
        yield "Open", f"{incident.id}: {open_text(incident, reader.now)}"
    if not status.open:
        yield "Open", f"no incident; the last is {status.last}" if status.last else "no incident yet"
    if status.silence:
        yield "Silence", silence_text(status.silence, reader.now)
    for channel in status.channels:
        kind = channel.type or "no longer configured"
        waits = waiting_text(channel, reader.now) if channel.waiting else channel.why or "nothing waits"
        yield "Channel", f"{channel.name} ({kind}): {waits}"
    for trouble in status.troubles:
        yield "Trouble", trouble
