"""Which source ``kind = "auto"`` means on this host; the service and ``doctor`` ask the same function.

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
    """Tell whether this host was booted by systemd, whose journal then has the kernel's lines."""
    return Path("/run/systemd/system").is_dir()


def has_bindings() -> bool:
    """Tell whether this Python can read the journal: a distribution has the bindings for its own python3 alone."""
    try:
        importlib.import_module("systemd.journal")
    except ImportError:
        return False
    return True


def has_journal() -> bool:
    """Tell whether this host runs systemd and we can read its journal's format."""
    return runs_systemd() and has_bindings()


def is_readable(path: str) -> bool:
    """Tell whether a log file is there and opens; a FIFO would make us wait for its writer."""
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

    Paths that were configured are followed even where they cannot be read yet: whoever names them means them.
    """
    if settings.kind != "auto":
        return settings
    if has_journal():
        return replace(settings, kind="journal")
    if settings.paths != SourceSettings().paths:
        return replace(settings, kind="file")
    path = next(filter(is_readable, LOG_FILES), None)
    return replace(settings, kind="file", paths=(path,)) if path else replace(settings, kind="kmsg")
