"""Whole lines out of one file that may grow, be truncated or be rewritten while it is read. See pread(2).

Only the offset and the bytes just before it are remembered: half a line stays in the file until its newline comes, and
other bytes before the offset mean other content, whatever size and inode say. A line too long for the kernel is skipped
up to its newline, and NUL bytes are, too, in flat memory: copytruncate leaves a hole of them before the next line of a
writer without O_APPEND, a power cut leaves them at the end.
"""

import contextlib
import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

from agent.core.cursor import FileCursor
from agent.core.logs.prefilter import MAX_LINE_BYTES, candidates, runs
from agent.sources.file.content import HEAD_BYTES, MARKER_BYTES, Content, digest
from agent.sources.search import HOLDS

# More leaves the processor's second level cache, where the markers are searched for; less is no whole line.
CHUNK_BYTES = 2 * MAX_LINE_BYTES
# What the disk refuses comes in blocks of this size at least.
BLOCK_BYTES = 4096
# A clock, or the seconds since boot or 1970 with their fraction: no two lines of a log have the same for long.
_STAMP = re.compile(rb"\d:[0-5]\d:[0-5]\d|\d\.\d{6}\]|\d{9}\.\d{3}")


class Found(NamedTuple):
    """A line that holds a marker: its place, a number that its neighbor follows, and how many like it it stands for."""

    offset: int
    ordinal: int
    raw: bytes
    times: int


class Reader:
    """Reads one Content. ``offset`` is the start of the first line that was not handed out.

    After take(): ``cost`` bytes were read, ``at_end`` says that there was no more, ``written_ns`` when the file was
    last written. ``read_ns`` is the same, or the cursor's time until something is written: a file that was compressed
    or restored may have the time of that. ``skipped`` counts the lines skipped; ``ordinal`` numbers the others so that
    those of neighbors, and of no others, follow each other.
    """

    def __init__(self, content: Content, offset: int, ordinal: int = 0) -> None:
        self.content = content
        self.ordinal = ordinal
        self.skipped = 0
        self.cost = 0
        self.at_end = False
        self.written_ns = self.read_ns = content.status().st_mtime_ns
        self._end = 0
        self._nuls_seen_ns = 0
        self._is_given_up = False
        self.move_to(offset)

    def move_to(self, offset: int) -> None:
        """Go to the start of a line."""
        self.offset = offset
        self._marker = self.content.marker_at(offset)
        self._head = ""
        self._skipping: Literal["", "line", "nuls", "unreadable"] = ""
        self._searched = offset

    def move_behind(self, offset: int) -> None:
        """Go to the start of the line that contains ``offset``: half a line there will be completed; NULs end one."""
        before = self.content.read_at(max(0, offset - MAX_LINE_BYTES), min(MAX_LINE_BYTES, offset))
        end = max(before.rfind(b"\n"), before.rfind(b"\0"))
        if end < 0 and len(before) == MAX_LINE_BYTES:
            self.move_to(offset)
            self._skipping = "line"
        else:
            self.move_to(offset - len(before) + end + 1)

    def line_before(self) -> int | None:
        """Return where the line before the offset starts; None where it is longer than the bytes that are kept."""
        start = max(self._marker.rfind(end, 0, -1) for end in (b"\n", b"\0")) + 1
        known = start or len(self._marker) == self.offset
        return self.offset - len(self._marker) + start if self.offset and known else None

    def place(self) -> FileCursor:
        """Return the position, in a form that survives rename, copy and compression."""
        device, inode = self.content.identity
        marker = digest(self._marker)
        return FileCursor(
            device=device,
            inode=inode,
            offset=self.offset,
            marker=marker,
            written_ns=self.read_ns,
            head=self._head,
        )

    def head(self) -> str:
        """Return the digest of the first bytes, "" while there are too few; nothing is lost of a compressed file."""
        if not self._head and not self.content.packed:
            first = b""
            with contextlib.suppress(OSError):  # A bad sector there is told where it is in the way.
                first = self.content.read_at(0, HEAD_BYTES)
            if len(first) == HEAD_BYTES and first.strip(b"\0"):
                self._head = digest(first)
        return self._head

    def has_lost(self, place: FileCursor) -> bool:
        """Return whether this is the file of a place that is not in it any more: it begins as it did."""
        return bool(place.head) and self.content.identity[1] == place.inode and self.head() == place.head

    @property
    def is_stamped(self) -> bool:
        """Whether the bytes before the offset have a time in them: no other log has the same there."""
        return _STAMP.search(self._marker) is not None

    def agrees_with(self, other: "Reader") -> bool:
        """Return whether two readers are at the same offset behind the same bytes."""
        return (self.offset, self.place().marker) == (other.offset, other.place().marker)

    def take(self) -> bytes | None:
        """Read the whole lines behind the offset; empty if there are none yet, None if the file was rewritten."""
        if self._is_given_up:
            return b""
        written_ns = self.content.status().st_mtime_ns
        self.head()
        data = self.content.read_at(self._searched, CHUNK_BYTES)
        self.cost = len(data) + 1
        # Checked after reading: then what was read follows what was read before.
        if not self._follows(self.offset, self._marker):
            return None
        if self.written_ns != written_ns:
            self.written_ns = self.read_ns = written_ns
        self.at_end = len(data) < CHUNK_BYTES
        self._end = self._searched + len(data)
        if self._skipping in {"line", "unreadable"}:
            return self._skip_line(data)
        if self._skipping == "nuls" or data.startswith(b"\0"):
            return self._skip_nuls(data)
        size = _whole_lines(data)
        if size == 0 and len(data) > MAX_LINE_BYTES:
            self._skipping, self._searched = "line", self._end
        elif size == 0 and data and self.at_end:
            # pread(2) gives what stands before a block that the disk refuses, and only then says so.
            self.content.read_at(self._end, 1)
        return data[:size]

    def skip_unreadable(self) -> tuple[int, int] | None:
        """Go on behind a block that the disk refuses, and some bytes more; return where it begins and how many.

        None: what stands behind cannot be read, either. Steps grow, since a disk may take a minute for each try.
        """
        try:
            start = self._searched + len(self.content.read_at(self._searched, CHUNK_BYTES))
        except OSError:
            start = self._searched
        step, size = BLOCK_BYTES, self.content.status().st_size
        while (behind := start - start % BLOCK_BYTES + step) + MARKER_BYTES < size:
            try:
                self.content.read_at(behind, MARKER_BYTES)
            except OSError:
                step *= 2
            else:
                self._skipping, self._searched = "unreadable", behind + MARKER_BYTES
                self.at_end = False
                return start, self._searched - start
        return None

    def give_up(self) -> None:
        """Take a file as read to its end, whose rest the disk refuses."""
        self.at_end = self._is_given_up = True

    def lines(self, block: bytes) -> Iterator[list[Found]]:
        """Yield the lines of what take() gave that hold a marker, moving on behind those of each list."""
        base, marker, passed = self.offset, self._marker, 0
        for together in runs(block, HOLDS):
            found = []
            for start, line, count in together:
                end = start + len(line) + 1
                self._pass(base, marker, block, passed, end)
                passed = end
                found.append(Found(base + start, self.ordinal, line, count))
            yield found
        if block:
            self._pass(base, marker, block, passed, len(block))

    def last_lines(self) -> Iterator[list[Found]]:
        """Yield the last line of a file that is left for good, though it has no newline."""
        if self._skipping or self._is_given_up:
            self.skipped += self._skipping == "line"
            return
        start = self.offset
        rest = self.content.read_at(start, MAX_LINE_BYTES)
        self.move_to(start + len(rest))
        self.ordinal += bool(rest)
        for _, line in candidates(rest + b"\n", HOLDS):
            yield [Found(start, self.ordinal, line, 1)]

    def has_changed(self) -> bool:
        """Return whether the file has more than at the last take(), or other bytes before the offset."""
        if self.content.packed or self._is_given_up:
            return False
        return bool(self.content.read_at(self._end, 1)) or not self._follows(self.offset, self._marker)

    def is_unchanged(self) -> bool:
        """Return whether the file is as at the last take(), neither written to nor truncated."""
        return self.content.status().st_mtime_ns == self.written_ns and not self.has_changed()

    def _follows(self, offset: int, marker: bytes) -> bool:
        # A compressed file does not change, and going back in it, as from an endless line, unpacks it again.
        return self.content.packed or self.content.read_at(offset - len(marker), len(marker)) == marker

    def _jump(self, offset: int) -> bytes | None:
        """Continue behind what is skipped, and answer for take(): the marker must be of known content."""
        known, marker = self.offset, self._marker
        self.move_to(offset)
        self.at_end = False
        if self._follows(known, marker):
            return b""
        self.offset, self._marker = known, marker
        return None

    def _pass(self, base: int, marker: bytes, block: bytes, start: int, end: int) -> None:
        # To count the lines takes longer than to search them; of several it matters only that they were no single one.
        self.ordinal += (end > start) + (block.find(b"\n", start, end - 1) >= 0)
        self.offset = self._searched = base + end
        near = block[max(0, end - MARKER_BYTES) : end]
        self._marker = near if len(near) == MARKER_BYTES else (marker + near)[-MARKER_BYTES:]

    def _skip_line(self, data: bytes) -> bytes | None:
        found = data.find(b"\n")
        if found >= 0:
            self.skipped += self._skipping == "line"
            self.ordinal += 1
            return self._jump(self._searched + found + 1)
        if data:
            self._searched = self._end
        elif not self.content.packed and self.content.status().st_size < self._searched:
            self.move_to(self.offset)  # Truncated within its first line, where there are no bytes before the offset.
        return b""

    def _skip_nuls(self, data: bytes) -> bytes | None:
        rest = data.lstrip(b"\0")
        if rest:
            return self._jump(self._end - len(rest))
        self._skipping, self._searched = "nuls", self.content.data_from(self._end)
        if self.at_end and self.written_ns != self._nuls_seen_ns:
            # A writer that allocates in advance overwrites them later: look again then.
            self._nuls_seen_ns, self._searched = self.written_ns, self.offset
            self.at_end = False
        return b""


def _whole_lines(data: bytes) -> int:
    """Return how many bytes are whole lines; a run of NULs behind a line ends them, so that it can be skipped."""
    hole = data.find(b"\n\0") if b"\0" in data else -1
    return (hole if hole >= 0 else data.rfind(b"\n")) + 1
