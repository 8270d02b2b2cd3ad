"""Where journal files lie, and which of them libsystemd cannot read: it leaves those out without a word.

sd_journal_open(3), systemd-journald.service(8), FILES. Of the host's journal it reads

    /var/log/journal/MACHINE_ID/system.journal              /run/log/journal/MACHINE_ID/system.journal
    /var/log/journal/MACHINE_ID/system@SEQUENCE_ID-NUMBER-TIME.journal           (rotated)
    /var/log/journal/MACHINE_ID/system@...journal~                               (found unclean)

and keeps each file open that it reads; one that it could not begin with, or gave up halfway, is not open.
"""

import os
import re
from pathlib import Path

HOST_ROOTS = (Path("/run/log/journal"), Path("/var/log/journal"))
_MACHINE_ID = re.compile(r"[0-9a-f]{32}")
# Users' own journals hold no kernel record.
_FILE = re.compile(r"(?!user-).*\.journal~?")


def roots(directory: str) -> tuple[Path, ...]:
    """Name the directories below which journal files lie; "" stands for the host's own."""
    return (Path(directory),) if directory else HOST_ROOTS


def identities(directory: str) -> tuple[tuple[int, int], ...]:
    """Return which of the roots there are now: device and inode of each that exists."""
    found = []
    for root in roots(directory):
        try:
            stat = root.stat()
        except OSError:
            continue
        found.append((stat.st_dev, stat.st_ino))
    return tuple(found)


def has_any(directory: str) -> bool:
    """Return whether there is a journal file, or a place closed to us where one may be."""
    places = _places(directory)
    return any(map(_is_closed, places)) or any(map(_files, places))


def unread(directory: str) -> frozenset[str]:
    """Name the journal files that this process does not hold open, and the directories that are closed to it."""
    held = set(map(_target, Path("/proc/self/fd").iterdir()))
    places = _places(directory)
    closed = [place for place in places if _is_closed(place)]
    let_go = [file for place in places for file in _files(place) if str(file.resolve()) not in held]
    return frozenset(map(str, closed + let_go))


def settled(directory: str) -> frozenset[str]:
    """Name the journal files that have content, and closed directories; an empty file may be just being made."""
    places = _places(directory)
    full = [file for place in places for file in _files(place) if _size(file)]
    return frozenset(map(str, full + [place for place in places if _is_closed(place)]))


def is_empty(directory: str) -> bool:
    """Return whether nothing is there but what this process holds open: what is not in that is not anywhere."""
    try:
        return not unread(directory)
    except OSError:  # A directory above is closed to us.
        return False


def why_unread(path: str) -> str:
    """Say what is wrong with a path that ``unread`` named, and the fix."""
    if not os.access(path, os.R_OK, effective_ids=True):
        return "not readable for this user, who must be in the group systemd-journal"
    return "damaged, or written by a newer systemd; what it holds is missing (journalctl --verify tells where)"


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
    """List a directory; in one that is gone or closed to us there is nothing that we could name."""
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


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0
