"""What the commands share: their options, the state directory, the exits of sysexits(3), and how things are printed.

Human text goes to a rich console, which knows terminals; JSON goes to standard output as one document, and whatever
went wrong goes to standard error as single lines.
"""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
import msgspec

from agent.cli.credentials import load_as_service
from agent.cli.diagnostics import log
from agent.config import ConfigError, load_store, state_directory
from agent.core.settings import Settings
from agent.core.words import printable
from agent.store import NoSuchIncident, Store, StoreError

if TYPE_CHECKING:
    from rich.console import Console

EX_FAILED = 1
EX_NOINPUT = 66
EX_CONFIG = 78
PIPE_WIDTH = 500

config_option = click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Read this file instead of /etc/sockmem-agent/config.toml.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")


def fail(status: int, *lines: str) -> NoReturn:
    """Say what is wrong, one line each on standard error, and leave."""
    for line in lines:
        click.echo(line, err=True)
    sys.exit(status)


def warn(line: str) -> None:
    """Say something that the reader has to know, beside the output; --log-level error leaves it out."""
    log.warning("%s", printable(line))


def settings_or_exit(path: Path | None, status: int = EX_CONFIG) -> Settings:
    """Load the configuration, or say every mistake and leave."""
    try:
        return load_as_service(path)
    except ConfigError as error:
        fail(status, *error.errors)


def open_store(path: Path | None) -> Store:
    """Find the state directory of this caller, for reading; a mistake in [store] ends the command."""
    try:
        settings = Settings(store=load_store(path))
    except ConfigError as error:
        fail(EX_CONFIG, *error.errors)
    return Store(state_directory(settings, os.environ, os.geteuid()), settings.store)


@contextmanager
def exits(status: int) -> Iterator[None]:
    """Turn what the store cannot do into one line and an exit status."""
    try:
        yield
    except (NoSuchIncident, StoreError) as error:
        fail(status, f"sockmem-agent: {error}")
    except BrokenPipeError:
        raise
    except PermissionError as error:
        fail(
            status,
            f"sockmem-agent: {error.filename or 'output'}: {error.strerror}; run this as root or as the agent's user",
        )
    except OSError as error:
        fail(status, f"sockmem-agent: {error.filename or 'output'}: {error.strerror}")


def print_json(value: Any) -> None:  # noqa: ANN401 - whatever msgspec can encode
    """Print one JSON document."""
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2))


def console(least_width: int = 0) -> "Console":
    """Make a console: colour on a terminal only.

    Lines for a pipe are never folded, where a program may read them; a table is laid out for ``least_width`` columns
    even on a narrower terminal, since a line that continues below is better to read than one with its end cut off.
    """
    from rich.console import Console  # noqa: PLC0415 - the service must not load it

    terminal = sys.stdout.isatty()
    width = max(least_width, shutil.get_terminal_size().columns) if terminal else PIPE_WIDTH
    return Console(force_terminal=terminal, width=width, highlight=False, markup=False, emoji=False)


def stamp(at: datetime) -> str:
    """Write a time as the host's own clock shows it."""
    return f"{at.astimezone():%Y-%m-%d %H:%M:%S %Z}"
