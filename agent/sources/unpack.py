"""What a .gz, .xz, .lzma or .zst file holds, unpacked in bounded memory.

python-isal and zlib-ng unpack .gz three times as fast as Python's zlib, but say less, and in other words, about damage:
what they cannot read is left to Python's gzip.

lzma.LZMAFile cannot be given a limit: the dictionary may have up to 4 GiB, as the file itself says; ``xz -9`` needs
65 MiB (xz(1), --memlimit-decompress). Zstandard's library is Python 3.14's compression.zstd, or zstandard.
"""

import errno
import gzip
import importlib
import lzma
from collections.abc import Callable
from contextlib import suppress
from io import BufferedIOBase, BufferedReader, RawIOBase
from typing import IO, Any

MEMORY_BYTES = 100 << 20
_PIECE_BYTES = _UNPACKED_BYTES = 64 * 1024
# zstandard cannot be given a limit: what 512 bytes unpack to is 16 MiB at most, and some kilobytes in a log.
_UNLIMITED_PIECE_BYTES = 512
_FAST_GZIP = ("isal.igzip", "zlib_ng.gzip_ng")
_XZ_MAGIC = b"\xfd7zXZ\0"
_TOO_LARGE = f"needs more than {MEMORY_BYTES >> 20} MiB of memory to unpack: xzcat FILE | sockmem-agent scan -"


def open_gzip(raw: BufferedReader) -> BufferedIOBase:
    """Read a file unpacked, all its members, and fail as gzip.GzipFile does."""
    for fast in _FAST_GZIP if raw.seekable() else ():
        with suppress(ImportError):
            return BufferedReader(_Gzip(raw, importlib.import_module(fast).GzipFile))
    return gzip.GzipFile(fileobj=raw)


def open_xz(raw: IO[bytes]) -> BufferedReader:
    """Read a file unpacked, all its streams; LZMAError where it is damaged, EOFError where it ends too early.

    OSError says that it needs more memory than it may have.
    """
    return BufferedReader(_Unpacked(raw, lambda: lzma.LZMADecompressor(memlimit=MEMORY_BYTES), _XZ_MAGIC))


def open_zstd(raw: IO[bytes]) -> BufferedReader:
    """Read a file unpacked, all its frames; EOFError where it ends too early, OSError where it is damaged.

    OSError, too, where there is no library, with the command that helps.
    """
    with suppress(ImportError):
        return BufferedReader(_Unpacked(raw, importlib.import_module("compression.zstd").ZstdDecompressor, b""))
    try:
        new = importlib.import_module("zstandard").ZstdDecompressor().decompressobj
    except ImportError:
        raise OSError("is compressed by zstd: zstdcat FILE | sockmem-agent scan -") from None
    return BufferedReader(_Unpacked(raw, lambda: _Unlimited(new()), b"", _UNLIMITED_PIECE_BYTES))


class _Gzip(RawIOBase):
    """A file unpacked by a fast reader; where that finds damage, by Python's, read by read, again from the start."""

    def __init__(self, raw: BufferedReader, fast: Callable[..., gzip.GzipFile]) -> None:
        self._raw, self._start, self._at = raw, raw.tell(), 0
        self._file = fast(fileobj=raw, mode="rb")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - a writable buffer has no name before Python 3.12
        try:
            piece = self._file.read1(len(buffer))
        except Exception:  # Each library has its own.
            if type(self._file) is gzip.GzipFile:
                raise
            piece = self._read_again(len(buffer))
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)

    def _read_again(self, size: int) -> bytes:
        """Go back to the start with Python's reader; return what it reads beyond what was given already."""
        self._raw.seek(self._start)
        self._file, at = gzip.GzipFile(fileobj=self._raw), 0
        while piece := self._file.read1(size):
            at += len(piece)
            if at > self._at:
                return piece[self._at - at :]
        return b""


class _Unlimited:
    """What zstandard unpacks a frame by, with the methods of Python's own, but no limit."""

    needs_input = True

    def __init__(self, frame: Any) -> None:  # noqa: ANN401 - zstandard may be missing
        self._frame = frame

    def decompress(self, packed: bytes, _: int) -> bytes:
        return bytes(self._frame.decompress(packed))

    @property
    def eof(self) -> bool:
        return bool(self._frame.eof)

    @property
    def unused_data(self) -> bytes:
        return bytes(self._frame.unused_data)


class _Unpacked(RawIOBase):
    """One compressed stream after the other; each but the first begins with ``magic``, and what does not is left."""

    def __init__(self, raw: IO[bytes], new: Callable[[], Any], magic: bytes, piece_bytes: int = _PIECE_BYTES) -> None:
        self._raw, self._new, self._magic, self._piece_bytes = raw, new, magic, piece_bytes
        self._stream = new()
        self._packed = self._unpacked = b""
        self._is_inside = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - a writable buffer has no name before Python 3.12
        while not self._unpacked:
            if self._stream.eof and not self._begin_next():
                return 0
            if self._stream.needs_input and not self._packed:
                self._packed = self._raw.read(self._piece_bytes)
                if not self._packed and self._is_inside:
                    raise EOFError("it ends in the middle of its compressed data")
                if not self._packed:
                    return 0
            self._unpacked, self._packed, self._is_inside = self._unpack(self._packed), b"", True
        size = min(len(buffer), len(self._unpacked))
        buffer[:size], self._unpacked = self._unpacked[:size], self._unpacked[size:]
        return size

    def _begin_next(self) -> bool:
        """Begin with the next stream, if there is one; zeros may stand between."""
        self._packed = (self._packed or self._stream.unused_data).lstrip(b"\0")
        while len(self._packed) < len(self._magic) and (more := self._raw.read(self._piece_bytes)):
            self._packed = (self._packed + more).lstrip(b"\0")
        if not self._packed.startswith(self._magic):
            return False
        self._stream, self._is_inside = self._new(), False
        return True

    def _unpack(self, packed: bytes) -> bytes:
        try:
            return bytes(self._stream.decompress(packed, _UNPACKED_BYTES))
        except Exception as error:  # Each library of zstd has an error of its own.
            if "Memory usage limit" in str(error):
                raise OSError(errno.ENOMEM, _TOO_LARGE) from error
            if isinstance(error, lzma.LZMAError):
                raise
            raise OSError(f"damaged compressed data ({error}); fetch the file again") from error
