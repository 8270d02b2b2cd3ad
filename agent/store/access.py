"""What this process may not use in a state directory, and whose it is: a run as root may have left it.

access(2) decides, so access lists and read-only file systems count. Links in the directory are not followed.
"""

import errno
import os
import pwd
from collections.abc import Iterator
from pathlib import Path


def blocking(directory: Path) -> Iterator[Path]:
    """Yield what the service needs to start and may not use."""
    if not directory.is_dir():
        return
    inside = [directory / name for name in ("incidents", "history", "cursor.json", "lock")]
    for path in (directory, *inside, *_entries(directory / "incidents")):
        if not _may_use(path):
            yield path


def unusable(directory: Path) -> Iterator[Path]:
    """Yield all that the service would read or write and may not; not what is below such a directory."""
    if not _may_use(directory):
        yield directory
    elif directory.is_dir():
        for path in _entries(directory):
            yield from unusable(path)


def owner(path: Path) -> str:
    """Return the owner of a file, or of the nearest directory above it that can be read."""
    try:
        name = user(path.lstat().st_uid)
    except (FileNotFoundError, PermissionError):
        return owner(path.parent)
    return f"uid {name} (no such user)" if name.isdecimal() else name


def user(uid: int) -> str:
    """Return a user as chown(1) takes it: the number if there is no name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def refusal(path: Path, directory: Path) -> str:
    """Return one line: this process may not use the file, whose it is, and the fix."""
    me, other = user(os.geteuid()), owner(path)
    if os.statvfs(directory).f_flag & os.ST_RDONLY:
        return f"{directory} is read-only for {me}: sudo sockmem-agent doctor shows the mount, or the unit's setting"
    if other == me:
        return f"{path} belongs to {me}, but its mode forbids access: chmod -R u+rwX {directory}"
    return f"{path} belongs to {other}; the service runs as {me}: chown -hR {me}: {directory}"


def explain(error: OSError) -> str:
    """Describe an error, with the file if known; without permission also its owner."""
    why = error.strerror or str(error)
    text = f"{error.filename}: {why}" if error.filename else why
    if error.filename and error.errno in {errno.EACCES, errno.EPERM}:
        text += f"; it belongs to {owner(Path(error.filename))}, the service runs as {user(os.geteuid())}"
    return text


def _entries(directory: Path) -> list[Path]:
    try:
        return sorted(Path(entry) for entry in os.scandir(directory) if not entry.is_symlink())
    except OSError:
        return []


def _may_use(path: Path) -> bool:
    """Return whether access suffices: a file is written aside and renamed, but in history/ appended to."""
    need = os.R_OK
    if path.is_dir():
        need |= os.W_OK | os.X_OK
    elif path.parent.name == "history":
        need |= os.W_OK
    # A broken link is damage, which a start sets aside.
    return os.access(path, need) or not os.access(path, os.F_OK)
