"""Files that a command writes for its caller: open(2), O_EXCL and O_NOFOLLOW."""

import os
import stat
from pathlib import Path
from typing import BinaryIO

import click

from agent.cli.common import EX_FAILED, exits, fail

FILE_MODE = 0o640


def write_file(name: str, output: Path | None, data: bytes) -> None:
    """Write to ``output``, into it if it is a directory, or to ``name`` here; print the path."""
    target = Path(name) if output is None else output / name if _is_directory(output) else output
    with exits(EX_FAILED), _open_own(target) as file:
        file.write(data)
    click.echo(str(target))


def _is_directory(path: Path) -> bool:
    """Return whether this is a directory, and not another user's link to one."""
    return path.is_dir() and (not path.is_symlink() or path.lstat().st_uid in {0, os.geteuid()})


def _open_own(path: Path) -> BinaryIO:
    """Open a new file, or a regular one of the caller's: a link planted in /tmp would make root overwrite any file."""
    flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        return open(os.open(path, flags | os.O_CREAT | os.O_EXCL, FILE_MODE), "wb")  # noqa: PTH123 - a descriptor
    except FileExistsError:
        pass
    status = path.lstat()
    if stat.S_ISREG(status.st_mode):
        descriptor = os.open(path, flags)
        status = os.fstat(descriptor)
    why = _why_not_own(status)
    if why:
        fail(
            EX_FAILED, f"sockmem-agent: {path}: not overwritten, {why}; remove it, or choose another file with --output"
        )
    os.ftruncate(descriptor, 0)
    return open(descriptor, "wb")  # noqa: PTH123 - as above


def _why_not_own(status: os.stat_result) -> str | None:
    if stat.S_ISLNK(status.st_mode):
        return "it is a symbolic link"
    if not stat.S_ISREG(status.st_mode):
        return "it is not a regular file"
    if status.st_uid != os.geteuid():
        return "it belongs to another user"
    return "it has another hard link" if status.st_nlink > 1 else None
