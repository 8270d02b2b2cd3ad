"""What an .xz or .lzma file holds, unpacked within a limit of memory, which lzma.LZMAFile cannot be given.

The dictionary may have up to 4 GiB, as the file itself says; ``xz -9`` needs 65 MiB. See xz(1), --memlimit-decompress.
"""

import errno
import lzma
from io import BufferedReader, RawIOBase
from typing import IO, Any

MEMORY_BYTES = 100 << 20
_PIECE_BYTES = 64 * 1024
_MAGIC = b"\xfd7zXZ\0"


def open_xz(raw: IO[bytes]) -> BufferedReader:
    """Read a file unpacked, all its streams; LZMAError where it is damaged, EOFError where it ends too early.

    OSError says that it needs more memory than it may have.
    """
    return BufferedReader(_Unpacked(raw))


class _Unpacked(RawIOBase):
    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        self._stream = lzma.LZMADecompressor(memlimit=MEMORY_BYTES)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - a writable buffer has no name before Python 3.12
        piece = b""
        while not piece:
            packed = self._raw.read(_PIECE_BYTES) if self._stream.eof or self._stream.needs_input else b""
            if self._stream.eof:
                packed = (self._stream.unused_data + packed).lstrip(b"\0")
                if not packed.startswith(_MAGIC):
                    return 0
                self._stream = lzma.LZMADecompressor(memlimit=MEMORY_BYTES)
            elif self._stream.needs_input and not packed:
                raise EOFError("it ends in the middle of its compressed data")
            piece = self._unpack(packed, len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)

    def _unpack(self, packed: bytes, most: int) -> bytes:
        try:
            return self._stream.decompress(packed, most)
        except lzma.LZMAError as error:
            if "Memory usage limit" in str(error):
                text = (
                    f"needs more than {MEMORY_BYTES >> 20} MiB of memory to unpack: xzcat FILE | sockmem-agent scan -"
                )
                raise OSError(errno.ENOMEM, text) from error
            raise
