"""What a .zst file holds, unpacked by the library that is there: Python 3.14's compression.zstd, or zstandard."""

import importlib
from io import BufferedReader, RawIOBase
from typing import IO, Any

# What 512 bytes unpack to is 16 MiB at most, and some kilobytes in a log: zstandard cannot be given a limit.
_PIECE_BYTES = 512


def open_zstd(raw: IO[bytes]) -> BufferedReader:
    """Read a file unpacked, all its frames; EOFError where it ends too early, OSError where it is damaged.

    OSError, too, where there is no library, with the command that helps.
    """
    return BufferedReader(_Unpacked(raw))


class _Unpacked(RawIOBase):
    def __init__(self, raw: IO[bytes]) -> None:
        try:
            self._new = importlib.import_module("compression.zstd").ZstdDecompressor
        except ImportError:
            try:
                self._new = importlib.import_module("zstandard").ZstdDecompressor().decompressobj
            except ImportError:
                raise OSError("is compressed by zstd: zstdcat FILE | sockmem-agent scan -") from None
        self._raw, self._frame = raw, self._new()
        self._packed = self._unpacked = b""
        self._is_inside = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - a writable buffer has no name before Python 3.12
        while not self._unpacked:
            packed = self._packed or self._raw.read(_PIECE_BYTES)
            if not packed and self._is_inside:
                raise EOFError("it ends in the middle of its compressed data")
            if not packed:
                return 0
            try:
                self._unpacked = self._frame.decompress(packed)
            except Exception as error:  # Each library has an error of its own.
                raise OSError(f"damaged compressed data ({error}); fetch the file again") from error
            self._is_inside, self._packed = not self._frame.eof, self._frame.unused_data
            if self._frame.eof:
                self._frame = self._new()
        size = min(len(buffer), len(self._unpacked))
        buffer[:size], self._unpacked = self._unpacked[:size], self._unpacked[size:]
        return size
