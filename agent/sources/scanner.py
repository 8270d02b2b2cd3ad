"""Log files already written, plain, compressed or from standard input: block by block, to records with line numbers.

Memory stays flat whatever the file holds, and ordinary lines are neither split nor counted nor decoded. What spreads
an entry over several lines is brought to one line first: agent.sources.multiline.
"""

import bz2
import gzip
import lzma
import os
import re
import stat
import zlib
from collections.abc import Callable, Iterator
from datetime import datetime
from io import BufferedIOBase, BufferedReader
from typing import NamedTuple

from agent.core.logs.envelope import STEERING
from agent.core.logs.prefilter import MARKERS, MAX_LINE_BYTES, TOO_LONG, candidates
from agent.core.logs.records import spread, to_record
from agent.core.model import LogRecord
from agent.core.times import from_epoch
from agent.sources.localzone import LocalZone, is_second_pass
from agent.sources.multiline import PEEK_BYTES, Entries
from agent.sources.search import HOLDS, newlines
from agent.sources.unpack import open_gzip, open_xz, open_zstd

# Larger blocks leave the processor's second level cache, where the needles are searched for: 256 KiB took half as
# long again as 64 KiB.
BLOCK_BYTES = 64 * 1024
MAGIC_BYTES = 8
UNPACKED: tuple[tuple[bytes, str, Callable[[BufferedReader], BufferedIOBase]], ...] = (
    (b"\x1f\x8b", ".gz", open_gzip),
    (b"\xfd7zXZ\0", ".xz", open_xz),
    (b"]\0\0", ".lzma", open_xz),
    (b"BZh", ".bz2", bz2.BZ2File),
    (b"\x28\xb5\x2f\xfd", ".zst", open_zstd),
)
FOREIGN = {
    b"\x04\x22\x4d\x18": "is compressed by lz4: lz4cat FILE | sockmem-agent scan -",
    b"PK\x03\x04": "is a zip archive: unzip -p FILE | sockmem-agent scan -",
    b"7z\xbc\xaf": "is a 7-Zip archive: 7z x -so FILE | sockmem-agent scan -",
    b"\x1f\x9d": "is compressed by compress: zcat FILE | sockmem-agent scan -",
    b"LPKSHHRH": "is a journal file: name its directory with --directory",
}
# As PowerShell's > writes it, and without a mark of the order of its bytes.
UTF_16 = re.compile(rb"\A(?:\xff\xfe|\xfe\xff)|(?P<LE>(?:[^\0]\0){4})|(?P<BE>(?:\0[^\0]){4})", re.DOTALL)
_STEERING = re.compile(STEERING.pattern.encode())


FIRST_PASS, SECOND_PASS = LocalZone(), LocalZone(fold=1)


class UnreadableError(Exception):
    """An input that cannot be read, or not to its end: one line that names it and the fix."""


class Candidate(NamedTuple):
    """A line that could matter, and the kernel's record in it, if it is one."""

    source: str
    line: str
    record: LogRecord | None


class Scanner:
    """Reads inputs one after the other; its records are numbered over all of them, as one log that was rotated."""

    def __init__(self) -> None:
        self._lines_before = 0
        self._record_before: LogRecord | None = None

    def read(self, path: str, now: datetime) -> Iterator[Candidate]:
        """Yield the lines of one input that could matter, ``-`` for standard input.

        ``now`` is the newest moment for an input without an mtime. Raises UnreadableError, after what could be read.
        """
        name = os.fsencode(path).decode(errors="replace")
        try:
            with open(0 if path == "-" else path, "rb", closefd=path != "-") as raw:
                status = os.fstat(raw.fileno())
                written = from_epoch(status.st_mtime) if stat.S_ISREG(status.st_mode) else None
                newest = written.astimezone(LocalZone()) if written else now
                stream = _decompressed(raw, name)
                _refuse_utf_16(stream, "" if stream is raw else "unpack it, then ")
                entries = Entries(stream)
                lines = entries if entries.are_here else Lines(stream)
                try:
                    for number, line in lines:
                        ordinal = self._lines_before + number
                        source = f"{name}:{number}"
                        for part in spread(line):
                            record = self._record(part, newest, source, ordinal)
                            yield Candidate(source, part.decode(errors="replace"), record)
                finally:
                    self._lines_before += lines.read
        except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            self._lines_before += 1  # What was not read stands between.
            raise UnreadableError(f"{name}: {_explain(error, name)}") from error

    def _record(self, line: bytes, newest: datetime, source: str, ordinal: int) -> LogRecord | None:
        """Make a record of a line; one of the hour that comes twice is dated by the record before it."""
        record = to_record(line, now=newest, source=source, ordinal=ordinal, console=True)
        if record is None or record.at is None:
            return record
        if FIRST_PASS.utcoffset(record.at) != SECOND_PASS.utcoffset(record.at):
            again = newest.astimezone(SECOND_PASS)
            second = to_record(line, now=again, source=source, ordinal=ordinal, console=True)
            before = self._record_before
            if second and second.at and is_second_pass(record.at, second.at, record.uptime, before, newest):
                record = second
        self._record_before = record
        return record


class Lines:
    """The lines of one input that could matter, with their numbers from 1; ``read`` is how many there were so far."""

    def __init__(self, stream: BufferedIOBase) -> None:
        self._stream = stream
        self.read = 0

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        """Read to the end."""
        block = b""
        for whole in blocks(self._stream):
            # grep colors the words that it looked for, which tears markers apart.
            block = _STEERING.sub(b"", whole) if b"\x1b" in whole else whole
            counted = 0
            for start, line in candidates(block, HOLDS):
                self.read += newlines(block[counted:start])
                counted = start
                yield self.read + 1, line
            self.read += newlines(block[counted:])
        self.read += bool(block) and not block.endswith(b"\n")


def blocks(stream: BufferedIOBase) -> Iterator[bytes]:
    """Yield complete lines until the end; of a line over MAX_LINE_BYTES only its messages and the newline.

    NUL bytes before a line are left out: a crash leaves a run of them where the file had grown.
    """
    rest = b""
    overlong = False
    while chunk := stream.read1(BLOCK_BYTES):
        cut = chunk.rfind(b"\n") + 1
        if not cut:
            rest += chunk
            if len(rest) > MAX_LINE_BYTES:
                overlong = overlong or bool(rest.strip(b"\0"))
                yield _messages(rest)
                rest = b""
            continue
        block = b"".join((rest, memoryview(chunk)[:cut]))
        rest = chunk[cut:]
        skipped, end = len(block) - len(block.lstrip(b"\0")), block.find(b"\n")
        if overlong or end - skipped > MAX_LINE_BYTES:
            skipped = end
            yield _messages(block[:end])
        overlong = False
        yield block[skipped:]
    if overlong:
        yield _messages(rest)
    elif rest:
        yield rest


def _messages(part: bytes) -> bytes:
    """Return the first message in a part of a line that is too long, behind what shows that it is no whole line."""
    at = min((at for marker in MARKERS if (at := part.find(marker)) >= 0), default=-1)
    return TOO_LONG + (part[max(at - 200, 0) : at + 60] if at >= 0 else b"")


def _decompressed(raw: BufferedReader, name: str) -> BufferedIOBase:
    """Choose the reader by the first bytes, and by the name where these say nothing."""
    magic = raw.peek(MAGIC_BYTES)[:MAGIC_BYTES]
    for start, fix in FOREIGN.items():
        if magic.startswith(start):
            raise OSError(fix)
    for start, ending, unpacked in UNPACKED:
        if magic.startswith(start) or name.endswith(ending):
            return unpacked(raw)
    return raw


def _refuse_utf_16(stream: BufferedIOBase, first: str) -> None:
    """Raise OSError with the fix for a text of two bytes a character, which has no marker in it: a quarter are NULs."""
    start = stream.peek(PEEK_BYTES)[:PEEK_BYTES]  # type: ignore[attr-defined]
    behind_hole, match = start.lstrip(b"\0"), UTF_16.match(start) or UTF_16.search(start)
    if match and (match.start() == 0 or 4 * behind_hole.count(0) > len(behind_hole)):
        raise OSError(f"is UTF-16: {first}iconv -f UTF-16{match.lastgroup or ''} -t UTF-8 FILE | sockmem-agent scan -")


def _explain(error: Exception, name: str) -> str:
    """Say in one line what is wrong with an input, and the fix."""
    if isinstance(error, FileNotFoundError):
        return "no such file; check the name"
    if isinstance(error, PermissionError):
        return "permission denied; read it as root or as a member of its group (adm on Debian)"
    if isinstance(error, IsADirectoryError):
        return "is a directory; name the files in it, or journal files with --directory"
    if isinstance(error, EOFError):
        return "ends in the middle of its compressed data; what came before is shown, fetch the file again for the rest"
    # bz2 has no exception of its own.
    if isinstance(error, gzip.BadGzipFile | zlib.error | lzma.LZMAError) or str(error) == "Invalid data stream":
        kind = "gzip" if name.endswith(".gz") else "compressed"
        return f"damaged {kind} data ({error}); fetch the file again, or rename it if it is plain text"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
