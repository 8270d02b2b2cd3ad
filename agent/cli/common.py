"""Shared by the commands: options, the state directory, exit statuses (sysexits(3)) and printing.

Text goes to a rich console, JSON to standard output as one document, errors to standard error as single lines.
"""

import grp
import os
import pwd
import shutil
import stat
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import click
import msgspec

from agent.cli import log
from agent.cli.credentials import NextStart
from agent.cli.faults import is_missing
from agent.config import load as config
from agent.config.load import ConfigError, load_store, state_directory
from agent.core.format import columns_of, in_columns, printable, wrap
from agent.core.settings import Settings, StoreSettings
from agent.store import NoSuchIncident, Store, StoreError

if TYPE_CHECKING:
    from rich.console import Console

EX_FAILED = 1
PIPE_WIDTH = 500
TERMINAL_WIDTH = 80
# Its members can read the service's state directory.
GROUP = "sockmem-agent"


def complete_id(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Complete an incident's id, the newest first, or ``last``; on any error complete nothing."""
    del param
    with suppress(Exception):
        ids = find_store(ctx.params.get("config_path")).ids()
        return [word for word in ("last", *reversed(ids)) if ids and word.startswith(incomplete)]
    return []


id_argument = click.argument("incident_id", metavar="ID", shell_complete=complete_id)


def fail(status: int, *lines: str) -> NoReturn:
    """Print errors, one line each, to standard error and exit."""
    for line in lines:
        click.echo(line, err=True)
    sys.exit(status)


def warn(line: str) -> None:
    """Print a warning to standard error; --log-level error hides it."""
    log.warning("%s", printable(line))


def settings_or_exit(path: Path | None, status: int = os.EX_CONFIG) -> Settings:
    """Load the configuration, or print every mistake and exit."""
    try:
        return NextStart().load(path)
    except ConfigError as error:
        fail(status, *error.errors)


def open_store(path: Path | None) -> Store:
    """Open the state directory: the service's, if there is one and no other is given.

    Exit if [store] has a mistake or the caller may not read the directory.
    """
    if path is None and _is_closed(config.DEFAULT_PATH):
        warn(f"{config.DEFAULT_PATH}: permission denied; assuming the default [store] directory")
    try:
        store = find_store(path)
    except ConfigError as error:
        fail(os.EX_CONFIG, *error.errors)
    if _is_closed(store.directory):
        fail(os.EX_NOINPUT, f"sockmem-agent: {store.directory}: permission denied; {_how_to_read(store.directory)}")
    return store


def find_store(path: Path | None) -> Store:
    """Do as ``open_store``, without checking that the directory is readable; raises ConfigError."""
    is_closed = path is None and _is_closed(config.DEFAULT_PATH)
    settings = Settings(store=StoreSettings(directory="") if is_closed else load_store(path))
    directory = state_directory(settings, os.environ, 0)
    if is_missing(directory):
        directory = state_directory(settings, os.environ, os.geteuid())
    return Store(directory, settings.store)


def _is_closed(path: Path) -> bool:
    rights = os.R_OK | os.X_OK if os.path.isdir(path) else os.R_OK  # noqa: PTH112 - Path's raises EACCES
    return not os.access(path, rights) and not is_missing(path)


def _how_to_read(directory: Path) -> str:
    """Return how this user can get to read the service's state directory."""
    try:
        there = directory.stat()
        group, user = grp.getgrgid(there.st_gid), pwd.getpwuid(os.geteuid()).pw_name
    except (OSError, KeyError):
        return "use sudo"
    if group.gr_name != GROUP or not there.st_mode & stat.S_IRGRP:
        return "use sudo"
    if user in group.gr_mem:
        return f"you joined the group {GROUP} after this session started: log in again"
    return f"use sudo, or join the group: sudo usermod -aG {GROUP} {user}, then log in again"


@contextmanager
def exits(status: int) -> Iterator[None]:
    """Turn an error of the store into one line and an exit status."""
    try:
        yield
    except (NoSuchIncident, StoreError) as error:
        fail(status, f"sockmem-agent: {error}")
    except BrokenPipeError:
        raise
    except OSError as error:
        fix = "; use sudo" if isinstance(error, PermissionError) else ""
        fail(status, f"sockmem-agent: {error.filename or 'output'}: {error.strerror}{fix}")


# --- printing -------------------------------------------------------------------------------------------------------


def print_json(value: Any) -> None:  # noqa: ANN401 - whatever msgspec can encode
    """Print one JSON document."""
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2))


def console() -> "Console":
    """Create a console: color on a terminal only; lines for a pipe are not wrapped, because a program may read them."""
    from rich.console import Console  # noqa: PLC0415 - the service must not load it

    terminal = sys.stdout.isatty()
    # A serial console has no size; Python 3.10 then returns 0.
    width = (shutil.get_terminal_size().columns or TERMINAL_WIDTH) if terminal else PIPE_WIDTH
    return Console(force_terminal=terminal, width=width, highlight=False, markup=False, emoji=False)


def stamp(at: datetime) -> str:
    """Format a time in the host's time zone."""
    return f"{at.astimezone():%Y-%m-%d %H:%M:%S %Z}"


class Row(NamedTuple):
    """A row of a table; ``below`` says what follows the first cell where a terminal is too narrow for the columns."""

    cells: tuple[str, ...]
    below: str
    style: str = ""


def print_table(headings: tuple[str, ...], rows: Sequence[Row], right: Collection[int]) -> None:
    """Print a table, the columns ``right`` aligned to the right."""
    screen = console() if sys.stdout.isatty() else None
    for style, lines in groupby(lay_out(headings, rows, right, screen.width if screen else sys.maxsize), itemgetter(1)):
        text = "\n".join(line for line, _ in lines)
        # A console takes a tenth of a millisecond for each line.
        if screen and style:
            screen.print(text, style=style, soft_wrap=True)
        else:
            click.echo(text)


def lay_out(
    headings: tuple[str, ...], rows: Sequence[Row], right: Collection[int], width: int
) -> Iterator[tuple[str, str]]:
    """Yield the lines of a table with their styles; a narrow terminal breaks no word and no number of it."""
    heading, *lines = in_columns([headings, *(row.cells for row in rows)], right)
    if max(map(columns_of, (heading, *lines))) <= width:
        yield heading, "bold"
        yield from zip(lines, (row.style for row in rows), strict=True)
        return
    for row in rows:
        yield row.cells[0], row.style
        for line in wrap(row.below, width, "  "):
            yield line, row.style
