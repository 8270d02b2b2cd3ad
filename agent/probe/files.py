"""Reads small kernel files whole, or returns in plain words why not: proc(5), open(2), read(2).

Nothing in a tree makes it hang or raise: a named pipe, a directory, a dangling link, an endless file, bytes that are
not text.
"""

import errno
import os
import stat
from pathlib import Path
from typing import NamedTuple

CAP_BYTES = 256 * 1024
BLOCK_BYTES = 64 * 1024

# What "this kernel, or this tree, does not have it" looks like: psi=0 answers reads of /proc/pressure with EOPNOTSUPP.
ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EOPNOTSUPP})

REASONS = {
    errno.ENOENT: "does not exist",
    errno.ENOTDIR: "does not exist: part of its path is not a directory",
    errno.EOPNOTSUPP: "disabled in this kernel",
    errno.EACCES: "permission denied: run as root, or let this user read it",
    errno.EPERM: "permission denied: run as root, or let this user read it",
    errno.ELOOP: "a loop of symbolic links: replace it with the file",
}


class Unreadable(NamedTuple):
    """Why a file could not be read; ``absent``: this kernel, or this tree, has no such file."""

    why: str
    absent: bool = False


def read_text(path: Path | str) -> str | Unreadable:
    """Read a whole text file of at most 256 KiB, or return why not."""
    data = read_bytes(path)
    if isinstance(data, Unreadable):
        return data
    if len(data) > CAP_BYTES:
        return Unreadable(f"larger than {CAP_BYTES // 1024} KiB: the kernel writes no such file")
    if not data or data.isspace():
        return Unreadable("empty")
    try:
        return data.decode()
    except UnicodeDecodeError:
        return Unreadable("not text (invalid UTF-8)")


def read_head(path: Path) -> str | None:
    """Read the beginning of a text file that may be long."""
    data = read_bytes(path)
    return None if isinstance(data, Unreadable) else data[:CAP_BYTES].decode(errors="replace")


def read_bytes(path: Path | str) -> bytes | Unreadable:
    """Read a regular file, at most one byte more than 256 KiB of it, or return why not.

    The first read() asks for more than any of these files holds, so that the kernel writes it in one go and its values
    are of one moment.
    """
    try:
        # O_NONBLOCK: opening a named pipe without a writer would block forever.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        return _failed(path, error)
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            return Unreadable(f"{_species(mode)}, not a file")
        return _drain(descriptor)
    except OSError as error:
        return _failed(path, error)
    finally:
        os.close(descriptor)


def readable_name(path: Path | str) -> str:
    """Format a path for JSON and terminals: bytes that are not UTF-8 as backslash escapes."""
    return os.fsencode(path).decode(errors="backslashreplace")


def _drain(descriptor: int) -> bytes:
    data = os.read(descriptor, BLOCK_BYTES)
    block = data
    # A file of many records comes one kernel buffer at a time, so only an empty read is the end.
    while block and len(data) <= CAP_BYTES:
        block = os.read(descriptor, min(BLOCK_BYTES, CAP_BYTES + 1 - len(data)))
        data += block
    return data


def _failed(path: Path | str, error: OSError) -> Unreadable:
    if error.errno == errno.ENOENT and os.path.islink(path):  # noqa: PTH114 - Path takes as long as the reading
        return Unreadable("a dangling symbolic link")
    why = REASONS.get(error.errno or 0, f"cannot be read: {error.strerror}")
    return Unreadable(why, absent=error.errno in ABSENT)


def _species(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a directory"
    return "a named pipe" if stat.S_ISFIFO(mode) else "a device or socket"
