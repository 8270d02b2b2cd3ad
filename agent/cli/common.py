"""Shared by the commands that read the configuration or the state directory: how they open it, and exit statuses."""

import grp
import os
import pwd
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import click

from agent.cli.credentials import NextStart
from agent.cli.faults import is_missing
from agent.cli.printing import fail, warn
from agent.config import load as config
from agent.config.load import ConfigError, load_store, state_directory
from agent.core.settings import Settings, StoreSettings
from agent.store import NoSuchIncident, Store, StoreError

EX_FAILED = 1
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


def settings_or_exit(path: Path | None, status: int = os.EX_CONFIG, start: NextStart | None = None) -> Settings:
    """Load the configuration, or print every mistake and exit."""
    try:
        return (start or NextStart()).load(path)
    except ConfigError as error:
        fail(status, *error.errors)


def open_store(path: Path | None) -> Store:
    """Open the state directory: the service's, if there is one and no other is given.

    Exit if [store] has a mistake or the caller may not read the directory.
    """
    if path is None and is_closed(config.DEFAULT_PATH):
        warn(f"{config.DEFAULT_PATH}: permission denied; assuming the default [store] directory")
    try:
        store = find_store(path)
    except ConfigError as error:
        fail(os.EX_CONFIG, *error.errors)
    if is_closed(store.directory):
        fail(os.EX_NOINPUT, f"sockmem-agent: {store.directory}: permission denied; {how_to_read(store.directory)}")
    return store


def find_store(path: Path | None) -> Store:
    """Do as ``open_store``, without checking that the directory is readable; raises ConfigError."""
    is_hidden = path is None and is_closed(config.DEFAULT_PATH)
    settings = Settings(store=StoreSettings(directory="") if is_hidden else load_store(path))
    directory = state_directory(settings, os.environ, 0)
    if is_missing(directory):
        directory = state_directory(settings, os.environ, os.geteuid())
    return Store(directory, settings.store)


def is_closed(path: Path) -> bool:
    """Return whether this user may not read what is there."""
    rights = os.R_OK | os.X_OK if os.path.isdir(path) else os.R_OK  # noqa: PTH112 - Path's raises EACCES
    return not os.access(path, rights) and not is_missing(path)


def how_to_read(directory: Path) -> str:
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
