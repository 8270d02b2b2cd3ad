"""Files that are whole or not there: write aside, fsync, rename, fsync the directory (rename(2), fsync(2))."""

import contextlib
import errno
import fcntl
import os
import shutil
import stat
from pathlib import Path
from typing import TypeVar

import msgspec

T = TypeVar("T")

FILE_MODE = 0o640
DIRECTORY_MODE = 0o750


class StoreError(Exception):
    """Something in the state directory cannot be read or written; the text is one clear line with the mend."""


def make_directory(path: Path) -> None:
    """Make a directory of mode 0750 and the ones above it, and see to it that the name survives a power cut."""
    missing = [p for p in (path, *path.parents) if not p.exists()]
    for directory in reversed(missing):
        directory.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
        directory.chmod(DIRECTORY_MODE)
        sync_directory(directory.parent)


def sync_directory(path: Path) -> None:
    """Flush a directory, so that the names in it are on disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, data: bytes) -> None:
    """Put a file in place in one step, mode 0640; its directory still has to be flushed by the caller."""
    aside = path.with_name(f".{path.name}.new")
    try:
        _write_through(aside, data)
        aside.rename(path)
    except OSError as error:
        error.filename = str(path)  # write(2) and fsync(2) do not say which file it was.
        with contextlib.suppress(OSError):
            aside.unlink()  # A full disk must not stay full because of us.
        raise


def _write_through(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE)
    try:
        os.fchmod(descriptor, FILE_MODE)
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def reserve(path: Path, size: int) -> None:
    """Make sure of the room for a file that ``fill`` puts in place later: blanks, flushed, under the name aside."""
    aside = path.with_name(f".{path.name}.new")
    try:
        _write_through(aside, b" " * size)
    except OSError as error:
        error.filename = str(path)
        with contextlib.suppress(OSError):
            aside.unlink()
        raise


def fill(path: Path, data: bytes, room: Path) -> None:
    """Put a file in place as ``write_whole`` does, in what was reserved under the name ``room``, if anything was.

    A failure leaves that room alone: the next try needs it.
    """
    aside = room.with_name(f".{room.name}.new")
    try:
        descriptor = os.open(aside, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        write_whole(path, data)
        return
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.ftruncate(descriptor, len(data))
        os.fsync(descriptor)
        aside.rename(path)
    except OSError as error:
        error.filename = str(path)
        raise
    finally:
        os.close(descriptor)


def encode_json(value: msgspec.Struct) -> bytes:
    """Encode a struct as JSON that a person can read in an editor."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"


def write_json(path: Path, value: msgspec.Struct) -> None:
    """Put a struct in place as JSON that a person can read in an editor."""
    write_whole(path, encode_json(value))


def read_json(path: Path, decoder: msgspec.json.Decoder[T]) -> T:
    """Read a struct back, or say in one line which file is broken and what to do."""
    try:
        return decoder.decode(_read_regular(path))
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise StoreError(f"{path}: cannot be read ({why}); move it away, or restore it from a backup") from error


def _read_regular(path: Path) -> bytes:
    """Read a regular file; a FIFO in its place would wait for a writer for ever."""
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:  # noqa: PTH123 - a descriptor
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        return file.read()


def set_aside(path: Path) -> Path:
    """Move a file that cannot be read out of the way, next to where it was."""
    aside = path.with_name(f"{path.name}.broken")
    path.rename(aside)
    return aside


def hold_lock(directory: Path) -> int:
    """Take the lock of a state directory for the life of this process: one writer for every file."""
    descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise StoreError(f"{directory}: another sockmem-agent uses this state directory; stop it first") from error
    return descriptor


def size_of(directory: Path) -> int:
    """Add up the bytes of the files in one directory."""
    total = 0
    with contextlib.suppress(FileNotFoundError):
        for entry in os.scandir(directory):
            with contextlib.suppress(FileNotFoundError):
                total += entry.stat(follow_symlinks=False).st_size
    return total


def remove_tree(directory: Path) -> None:
    """Remove a directory and what is in it, though somebody else may be at it as well."""
    while directory.exists():
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(directory)
