"""The bytes of one log file by offset, plain (pread(2), lseek(2) SEEK_DATA) or compressed.

A line has the same offset in ``messages``, ``messages.1`` and ``messages.2.gz``: a compressed file is read unpacked.
"""

import bz2
import contextlib
import errno
import gzip
import hashlib
import lzma
import os
import stat
import zlib
from collections.abc import Callable
from io import BufferedReader
from pathlib import Path
from typing import IO

from agent.sources.unpack import open_xz

MARKER_BYTES = 256
HEAD_BYTES = 64
# How much is unpacked between two reports of progress: seconds on the slowest host.
STEP_BYTES = 1 << 20

Identity = tuple[int, int]
OnProgress = Callable[[], None]
_Stream = gzip.GzipFile | BufferedReader | bz2.BZ2File
_UNPACKERS: dict[str, Callable[[IO[bytes]], _Stream]] = {
    ".gz": lambda raw: gzip.GzipFile(fileobj=raw),
    ".xz": open_xz,
    ".lzma": open_xz,
    ".bz2": bz2.BZ2File,
}
_FOREIGN = frozenset({".zst", ".lz4", ".lzo", ".Z"})
PACKED_ENDINGS = frozenset(_UNPACKERS) | _FOREIGN


class Content:
    """One open log file. Every method raises OSError where the disk or the compression fails."""

    def __init__(self, path: str, on_progress: OnProgress = lambda: None) -> None:
        """Open a regular file; OSError says why not. ``on_progress`` is called now and then while unpacking."""
        # A FIFO or a device is not even opened: that alone affects its other end.
        check_regular(Path(path).stat())
        self.path = path
        self._on_progress = on_progress
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            status = self.status()
            check_regular(status)
            self.identity = (status.st_dev, status.st_ino)
            self._stream = _unpacker(path, self._fd)
        except OSError:
            os.close(self._fd)
            raise
        self._kept_at, self._kept = 0, b""
        self.damage = ""

    @property
    def packed(self) -> bool:
        """Whether the file is compressed: nothing is appended to it, and its size says nothing about offsets."""
        return self._stream is not None

    def status(self) -> os.stat_result:
        """Return size, times and links of the open file, whatever its name is now."""
        return os.fstat(self._fd)

    def read_at(self, offset: int, size: int) -> bytes:
        """Read up to ``size`` bytes at ``offset``; fewer mean the end, or ``damage`` behind them."""
        if self._stream is None:
            return os.pread(self._fd, size, offset)
        if not self._kept_at <= offset <= self._kept_at + len(self._kept):
            self._go_to(offset)
        missing = offset + size - self._kept_at - len(self._kept)
        if missing > 0:
            # A reader goes back to the start of an unfinished line, unpacking cannot: what is still needed is kept.
            dropped = max(0, offset - self._kept_at - MARKER_BYTES)
            self._kept = self._kept[dropped:] + self._unpack(self._stream, missing)
            self._kept_at += dropped
        start = offset - self._kept_at
        return self._kept[start : start + size]

    def marker_at(self, offset: int) -> bytes:
        """Read the bytes just before ``offset``, which identify a place."""
        return self.read_at(max(0, offset - MARKER_BYTES), min(MARKER_BYTES, offset))

    def data_from(self, offset: int) -> int:
        """Return where data starts at or after ``offset``: the hole of a sparse file is skipped."""
        if self._stream is None:
            with contextlib.suppress(OSError):  # ENXIO: a hole up to the end; EINVAL: this file system cannot tell
                return os.lseek(self._fd, offset, os.SEEK_DATA)
        return offset

    def close(self) -> None:
        """Close the file."""
        if self._stream is not None:
            self._stream.close()
        os.close(self._fd)

    def _go_to(self, offset: int) -> None:
        """Unpack up to an offset, where a restart resumes; it takes minutes in a large file."""
        at = self._kept_at + len(self._kept)
        if offset < at:
            os.lseek(self._fd, 0, os.SEEK_SET)
            self._stream, at = _unpacker(self.path, self._fd), 0
        try:
            while self._stream and at < offset and (piece := self._stream.read(min(offset - at, STEP_BYTES))):
                at += len(piece)
                self._on_progress()
        except (EOFError, zlib.error, lzma.LZMAError) as error:
            raise OSError(errno.EIO, _fault(error)) from error
        finally:
            self._kept_at, self._kept = at, b""

    def _unpack(self, stream: _Stream, size: int) -> bytes:
        """Read on; what was unpacked before damage is good, and the end."""
        pieces: list[bytes] = []
        while size > 0 and not self.damage:
            try:
                piece = stream.read1(size)
            except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
                self.damage = _fault(error)
            else:
                if not piece:
                    break
                pieces.append(piece)
                size -= len(piece)
        return b"".join(pieces)


def identity_of(path: str) -> Identity | None:
    """Return device and inode of the file a path means now, or None if none can be seen."""
    try:
        status = os.stat(path)  # noqa: PTH116 - asked every second
    except OSError:
        return None
    return status.st_dev, status.st_ino


def say(error: OSError) -> str:
    """Describe an error, with the fix if there is one."""
    if isinstance(error, PermissionError):
        closed = _closed_directory(error.filename or "/")
        way = f"enter {closed} (chmod o+x, or setfacl)" if closed else "read it (group adm, or setfacl)"
        return f"permission denied: let the agent's user {way}"
    return error.strerror or str(error)


def _closed_directory(path: str) -> Path | None:
    """Return the first directory on the way to a path that this user may not enter."""
    ways = (Path(path).absolute(), Path(os.path.realpath(path)))
    for directory in (parent for way in ways for parent in reversed(way.parents)):
        try:
            (directory / "..").stat()
        except PermissionError:
            return directory
        except OSError:
            break
    return None


def _fault(error: Exception) -> str:
    """Return why unpacking ended; for damage gzip and bz2 raise an OSError without a number."""
    return say(error) if isinstance(error, OSError) and error.errno else f"damaged: {error}"


def digest(marker: bytes) -> str:
    """Make the marker of a cursor from the bytes just before its offset."""
    return hashlib.blake2b(marker, digest_size=16).hexdigest()


def check_regular(status: os.stat_result) -> None:
    """Raise OSError that says what else than a file this is."""
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "is a directory: name a log file in it")
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "is a FIFO, socket or device: name a log file")


def _unpacker(path: str, fd: int) -> _Stream | None:
    ending = Path(path).suffix
    if ending in _FOREIGN:
        raise OSError(errno.ENOTSUP, f"is in an unsupported compression ({ending}): unpack it and scan it")
    if ending not in _UNPACKERS:
        return None
    return _UNPACKERS[ending](os.fdopen(fd, "rb", closefd=False))
