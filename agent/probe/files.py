"""Reads small files of the kernel whole, and says in plain words why one could not be had: proc(5), open(2), read(2).

Nothing here hangs or raises for what a tree can hold: a named pipe, a directory, a link to nowhere, a file without
end, bytes that are no text.
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

MENDS = {
    errno.ENOENT: "not there",
    errno.ENOTDIR: "not there: something above it is no directory",
    errno.EOPNOTSUPP: "switched off in this kernel",
    errno.EACCES: "permission denied: run as root, or let this user read it",
    errno.EPERM: "permission denied: run as root, or let this user read it",
    errno.ELOOP: "symbolic links in a circle: put the file itself there",
}


class Unreadable(NamedTuple):
    """Why a file could not be had; ``absent``: this kernel, or this tree, simply has no such file."""

    why: str
    absent: bool = False


def read_text(path: Path | str) -> str | Unreadable:
    """Read a whole text file of at most 256 KiB, or say why not."""
    data = read_bytes(path)
    if isinstance(data, Unreadable):
        return data
    if len(data) > CAP_BYTES:
        return Unreadable(f"larger than {CAP_BYTES // 1024} KiB: the kernel writes no such file")
    if not data.strip():
        return Unreadable("empty")
    try:
        return data.decode()
    except UnicodeDecodeError:
        return Unreadable("not text (no valid UTF-8)")


def read_head(path: Path) -> str | None:
    """Read the beginning of a text file that may be long and is not needed whole."""
    data = read_bytes(path)
    return None if isinstance(data, Unreadable) else data[:CAP_BYTES].decode(errors="replace")


def read_bytes(path: Path | str) -> bytes | Unreadable:
    """Read a regular file, at most one byte more than 256 KiB of it, or say why not.

    The first read() asks for more than any of these files holds: the kernel then writes them in one go, and the
    values belong to one moment.
    """
    try:
        # O_NONBLOCK: opening a named pipe that nobody writes to would wait for ever.
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
    """Write a path so that JSON and terminals can hold it: bytes that are no UTF-8 as backslash escapes."""
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
    if error.errno == errno.ENOENT and Path(path).is_symlink():
        return Unreadable("a symbolic link to nowhere")
    why = MENDS.get(error.errno or 0, f"cannot be read: {error.strerror}")
    return Unreadable(why, absent=error.errno in ABSENT)


def _species(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a directory"
    return "a named pipe" if stat.S_ISFIFO(mode) else "a device or socket"
