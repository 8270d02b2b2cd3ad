"""Which source ``kind = "auto"`` selects on this host, for the service and ``doctor`` alike.

The journal where systemd runs (sd_booted(3): /run/systemd/system is a directory) and systemd-python can be loaded,
else the first log file that can be read, else /dev/kmsg.
"""

import importlib
from collections.abc import Callable
from pathlib import Path

from msgspec.structs import replace

from agent.core.settings import SourceSettings

LOG_FILES = ("/var/log/messages", "/var/log/syslog", "/var/log/kern.log")


def runs_systemd() -> bool:
    """Return whether systemd booted this host; its journal then has the kernel's messages."""
    return Path("/run/systemd/system").is_dir()


def has_bindings() -> bool:
    """Return whether this Python can read the journal: a distribution ships the bindings only for its own python3."""
    try:
        importlib.import_module("systemd.journal")
    except ImportError:
        return False
    return True


def has_journal() -> bool:
    """Return whether this host runs systemd and this Python can read its journal."""
    return runs_systemd() and has_bindings()


def is_readable(path: str) -> bool:
    """Return whether a log file exists and opens; a FIFO would block until it has a writer."""
    try:
        if not Path(path).is_file():
            return False
        with Path(path).open("rb"):
            return True
    except OSError:
        return False


def choose(
    settings: SourceSettings,
    has_journal: Callable[[], bool] = has_journal,
    is_readable: Callable[[str], bool] = is_readable,
) -> SourceSettings:
    """Resolve ``auto``; any other kind comes back as it is.

    Configured paths are followed even if they cannot be read yet: the administrator asked for them.
    """
    if settings.kind != "auto":
        return settings
    if has_journal():
        return replace(settings, kind="journal")
    if settings.paths != SourceSettings().paths:
        return replace(settings, kind="file")
    path = next(filter(is_readable, LOG_FILES), None)
    return replace(settings, kind="file", paths=(path,)) if path else replace(settings, kind="kmsg")
