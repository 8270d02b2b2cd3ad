"""Where journal files are, and which of them libsystemd silently skips because it cannot read them.

sd_journal_open(3), systemd-journald.service(8), FILES. Of the host's journal it reads

    /var/log/journal/MACHINE_ID/system.journal              /run/log/journal/MACHINE_ID/system.journal
    /var/log/journal/MACHINE_ID/system@SEQUENCE_ID-NUMBER-TIME.journal           (rotated)
    /var/log/journal/MACHINE_ID/system@...journal~                               (found unclean)

and keeps every file it reads open; one that it could not start, or gave up halfway, is not open.
"""

import os
import re
from pathlib import Path

HOST_ROOTS = (Path("/run/log/journal"), Path("/var/log/journal"))
_MACHINE_ID = re.compile(r"[0-9a-f]{32}")
# Users' own journals hold no kernel record.
_FILE = re.compile(r"(?!user-).*\.journal~?")
# A path and its inode: journald rotates system.journal at any moment, and another file then has its name.
Place = tuple[str, int]


def roots(directory: str) -> tuple[Path, ...]:
    """Return the directories above journal files; "" stands for the host's own journal."""
    return (Path(directory),) if directory else HOST_ROOTS


def identities(directory: str) -> tuple[tuple[int, int], ...]:
    """Return device and inode of each root that exists now."""
    found = []
    for root in roots(directory):
        try:
            stat = root.stat()
        except OSError:
            continue
        found.append((stat.st_dev, stat.st_ino))
    return tuple(found)


def has_any(directory: str) -> bool:
    """Return whether there is a journal file, or a directory closed to us that may hold one."""
    places = _places(directory)
    return any(map(_is_closed, places)) or any(map(_files, places))


def unread(directory: str) -> frozenset[Place]:
    """Return the journal files that this process does not hold open, and the directories closed to it."""
    held = set(map(_target, Path("/proc/self/fd").iterdir()))
    places = _places(directory)
    closed = [place for place in places if _is_closed(place)]
    let_go = [file for place in places for file in _files(place) if str(file.resolve()) not in held]
    return frozenset(map(_identified, closed + let_go))


def is_empty(directory: str) -> bool:
    """Return whether this process holds open all there is, so that nothing else is hidden."""
    try:
        return not unread(directory)
    except OSError:  # A directory above is closed to us.
        return False


def why_unread(path: str) -> str:
    """Return what is wrong with a path from ``unread``, and the fix."""
    if not os.access(path, os.R_OK, effective_ids=True):
        return "permission denied: add this user to the group systemd-journal"
    return "damaged, or written by a newer systemd: its records are missing (see journalctl --verify)"


def _places(directory: str) -> list[Path]:
    if directory:
        return [Path(directory), *(path for path in _listing(Path(directory)) if _MACHINE_ID.fullmatch(path.name))]
    machine = Path("/etc/machine-id")
    return [root / machine.read_text().strip() for root in HOST_ROOTS] if machine.exists() else []


def _files(place: Path) -> list[Path]:
    return [path for path in _listing(place) if _FILE.fullmatch(path.name)]


def _is_closed(place: Path) -> bool:
    return place.is_dir() and not os.access(place, os.R_OK | os.X_OK, effective_ids=True)


def _listing(place: Path) -> list[Path]:
    """List a directory; one that is gone or closed to us is empty."""
    try:
        return sorted(place.iterdir())
    except OSError:
        return []


def _target(link: Path) -> str:
    """Read a link of /proc/self/fd; the descriptor may be closed by now."""
    try:
        return str(link.readlink())
    except OSError:
        return ""


def _identified(path: Path) -> Place:
    try:
        return str(path), path.stat().st_ino
    except OSError:
        return str(path), 0
