"""One log followed by its name, through every way of rotating it. The reader owns the truth: device, inode, offset.

Theory of operation. One file is open, and everything before the offset in it has been handed out.

- More bytes behind the offset: hand out the lines that are complete.
- Other bytes before the offset than before: the file was truncated or written anew. Go on in the copy that has our
  bytes (``copytruncate``), else from the beginning, with a gap.
- The end, and the name means another inode: the next younger of the family that has content is where to go on, after
  one more look at the file we hold: rsyslog writes into the renamed file until its HUP, and into the new one only then.
  Step by step this leads through any number of rotations that happened while nobody looked. Which files are younger
  is told by rotated.list_younger, whichever way the numbers count; what was read and is met again goes on where it was
  left, under whatever name.
- At start the cursor's file is found again by inode or content (rotated.locate), and the same steps follow. Not found:
  a gap, and the log from its beginning. Rotated files older and younger than the lost one cannot be told apart then,
  and an old event told as new at night is worse than a gap that names what to scan.

What cannot be seen is lost: what a writer adds to an old file after it began the new one, what is written between a
copy and its truncation, a file that came and went between two looks, and one that was written and rotated away between
two looks while the clock was behind.
"""

import errno
from collections.abc import Callable, Generator, Iterator
from datetime import datetime, timedelta
from typing import Literal, NamedTuple

from agent.core.cursor import FileCursor
from agent.core.format import counted
from agent.core.logs.prefilter import MAX_LINE_BYTES
from agent.core.logs.timestamps import from_epoch
from agent.sources.file.content import Content, Identity, OnProgress, digest, identity_of, say
from agent.sources.file.name import InitialContent, WatchedPath, look_at_initial_content
from agent.sources.file.reader import Found, Reader
from agent.sources.file.rotated import KnownOlder, NamedFile, list_younger, locate
from agent.sources.gaps import Gaps

# logrotate may rename or compress what we are about to open.
ATTEMPTS = 3
# Enough for what one may find again; a place is small.
REMEMBERED_FILES = 100


class Line(NamedTuple):
    """What the reader found, and the newest moment that it can stem from."""

    found: Found
    newest: datetime


class Follower:
    """Follows one path. ``more`` tells after read() whether it stopped only because its budget was spent."""

    def __init__(
        self,
        path: str,
        cursor: FileCursor | None,
        start: Literal["now", "beginning"],
        now: Callable[[], datetime],
        gaps: Gaps,
        *,
        on_progress: OnProgress,
        first_ordinal: int = 0,
    ) -> None:
        self.path = path
        self.more = False
        self._last = cursor
        self._now = now
        self._gaps = gaps
        self._on_progress = on_progress
        self._name = WatchedPath(path, now, gaps, on_progress)
        self._first_ordinal = first_ordinal
        self._reader: Reader | None = None
        self._is_home = self._was_home = False
        self._unreadable: set[Identity] = set()
        self._older = KnownOlder(path)
        self._left: dict[Identity, FileCursor] = {}
        self._initial = look_at_initial_content(path) if start == "now" and cursor is None else None
        try:
            self._open()
        except BlockingIOError:
            pass
        except OSError as error:
            gaps.state(path, say(error))

    def read(self, budget: int) -> Generator[Line, None, None]:
        """Yield the lines that are there, reading about ``budget`` bytes at most.

        Whoever has enough closes the generator: the position is behind the last line that was taken.
        """
        self.more = True
        try:
            yield from self._read(budget)
        except BlockingIOError:
            self.more = False
        except OSError as error:
            self._gaps.state(self.path, say(error))
            self.close()
            self.more = False

    def position(self) -> FileCursor | None:
        """Return where the path was read to: in the file before, until a line of the next one was handed out."""
        if self._reader and (self._reader.offset or self._last is None):
            return self._reader.place()
        return self._last

    def identities(self) -> set[Identity]:
        """Name the file that is open and the one that the path means now."""
        named = identity_of(self.path)
        return ({named} if named else set()) | ({self._reader.content.identity} if self._reader else set())

    def rest(self) -> None:
        """Stop reading what another path reads; taken up again, it begins with what is written then."""
        self.close()
        self.more = False
        self._last, self._initial = None, InitialContent(None, 0)

    def close(self) -> None:
        """Let go of the file; the position stays."""
        self._last = self.position()
        if self._reader:
            self._first_ordinal = self._reader.ordinal
            self._reader.content.close()
        self._reader = None

    # --- what to read -----------------------------------------------------------------------------------------------

    def _read(self, budget: int) -> Iterator[Line]:
        while (reader := self._reader or self._open()) is not None:
            if budget <= 0:
                return
            block = self._take(reader)
            budget -= reader.cost
            if block is None:
                self._recover(reader)
            elif block:
                yield from self._hand_out(reader, reader.lines(block))
            elif reader.at_end:
                file = self._next_file(reader)
                entered = self._enter(reader, file) if file else None
                if entered:
                    try:
                        yield from self._leave(reader)
                    except GeneratorExit:  # The batch is full: the rest comes first next time.
                        entered[0].content.close()
                        raise
                    yield from self._hand_out(*self._switch(reader, *entered))
                elif file is None or not (file.identity in self._unreadable or reader.grew()):
                    break
        self.more = False

    def _leave(self, reader: Reader) -> Iterator[Line]:
        """Hand out what is still in a file that is left for good: what came at the last moment, and half a line."""
        while reader.grew() and (block := self._take(reader)) is not None:
            yield from self._hand_out(reader, reader.lines(block))
        yield from self._hand_out(reader, reader.last_lines())

    def _take(self, reader: Reader) -> bytes | None:
        """Read on; damage ends a compressed file, because nobody will mend it."""
        try:
            block = reader.take()
            damage = reader.content.damage if reader.at_end else ""
        except OSError as error:
            if not reader.content.packed:
                raise
            block, damage, reader.at_end = b"", say(error), True
        if damage and block == b"":
            self._gaps.state(reader.content.path, f"{damage}; not read from offset {reader.offset} on")
        return block

    def _open(self) -> Reader | None:
        """Open the file of the cursor, or the log where there is no cursor; None until that works."""
        self._reader = self._resume(self._last) if self._last else self._open_log()
        return self._reader

    def _open_log(self) -> Reader | None:
        content = self._name.open(patience=timedelta(0))
        if content is None:
            return None
        reader = Reader(content, 0, self._first_ordinal)
        if self._initial and self._initial.identity in {None, content.identity}:
            size = content.status().st_size
            try:
                reader.move_behind(min(self._initial.size, size) if self._initial.identity else size)
            except OSError:
                content.close()
                raise
        self._initial, self._is_home, self._was_home = None, True, True
        return reader

    def _resume(self, place: FileCursor) -> Reader | None:
        for _ in range(ATTEMPTS):
            found = locate(self.path, place, self._on_progress)
            if found is None:
                break
            content = self._name.open(found.path)
            if content is None:
                continue
            reader = Reader(content, place.offset, self._first_ordinal)
            if reader.place().marker == place.marker:
                reader.read_ns = min(reader.read_ns, place.written_ns or reader.read_ns)
                self._is_home = self._was_home = not found.token
                return reader
            content.close()  # Renamed or truncated since it was found.
        else:
            return None
        beginning = self._open_log()
        if beginning:
            self._last = None
            self._gaps.occurrence(
                self.path,
                "the file that was read last is neither here nor among its rotated siblings: lines may be lost, "
                "and reading goes on at the beginning of this one; `sockmem-agent scan` reads older files",
            )
        return beginning

    def _next_file(self, reader: Reader) -> NamedFile | None:
        """Find what to read when the open file has ended: None while it is the log, or nothing younger has content."""
        meant = self._name.means(reader.content.identity)
        self._is_home = bool(meant)
        self._was_home |= self._is_home
        if meant:
            self._older.look(reader.content.identity, reader.is_unchanged)
        if meant is not False:
            return None
        younger = list_younger(self.path, reader.place(), reader.read_ns, self._on_progress, self._older)
        return next((file for file in younger if file.size and file.identity not in self._unreadable), None)

    def _enter(self, reader: Reader, file: NamedFile) -> tuple[Reader, bytes] | None:
        """Read the first lines of the next file, unless something came in between; a log must have a whole line.

        The directory and the open file are looked at once more behind that reading: so no copy was made and truncated
        before we had these lines, and whatever the open file got before they were written is seen. A file that was
        deleted meanwhile is entered whatever came in between: we have it open, and nobody can open it again.
        """
        content = self._name.open(file.path)
        if content is None:
            if file.token and identity_of(file.path) == file.identity:
                self._unreadable.add(file.identity)  # Not the log, which would be waited for.
            return None
        younger = self._begin(reader, content)
        block = self._take(younger)
        if block is not None and (block or file.token or not younger.at_end) and content.identity == file.identity:
            again = self._next_file(reader)
            is_next = again is not None and again.identity == file.identity and not reader.grew()
            if is_next or content.status().st_nlink == 0:
                return younger, block
        content.close()
        return None

    def _begin(self, reader: Reader, content: Content) -> Reader:
        """Begin a younger file behind what was read in a copy of it: copytruncate copies first, then truncates.

        A file that was left before, because somebody put it back, goes on where it was left.
        """
        if not self._was_home and reader.offset and not content.packed:
            younger = Reader(content, reader.offset, reader.ordinal)
            if younger.agrees_with(reader):
                return younger
        left = self._left.get(content.identity)
        if left and digest(content.marker_at(left.offset)) == left.marker:
            return Reader(content, left.offset, reader.ordinal)
        return Reader(content, 0, reader.ordinal)

    def _recover(self, reader: Reader) -> None:
        """Go on after the open file was truncated or written anew: in the copy that has our bytes, if there is one."""
        for _ in range(ATTEMPTS):
            found = locate(
                self.path,
                reader.place(),
                self._on_progress,
                since_ns=reader.written_ns,
                but=reader.content.identity,
            )
            if found is None:
                break
            content = self._name.open(found.path)
            copy = Reader(content, reader.offset, reader.ordinal) if content else None
            if copy and copy.agrees_with(reader):
                self._switch(reader, copy, b"")
                return
            if content:
                content.close()
        else:
            raise BlockingIOError(errno.EAGAIN, "is being rotated")
        reader.move_to(0)
        self._last = None
        self._gaps.occurrence(
            self.path,
            "was truncated or written anew, and there is no copy of it: lines written since the last look may be lost",
        )

    def _switch(self, reader: Reader, other: Reader, block: bytes) -> tuple[Reader, Iterator[Found]]:
        self._last = reader.place()
        self._left = dict([*self._left.items(), (reader.content.identity, self._last)][-REMEMBERED_FILES:])
        self._is_home = self._was_home = False
        self._unreadable.clear()
        self._gaps.mend(self.path)
        other.ordinal = reader.ordinal
        self._reader = other
        reader.content.close()
        return other, other.lines(block)

    # --- looking ----------------------------------------------------------------------------------------------------

    def _hand_out(self, reader: Reader, found: Iterator[Found]) -> Iterator[Line]:
        newest = self._now()
        if not self._is_home:
            written = from_epoch(reader.written_ns / 1e9)
            newest = min(newest, written.astimezone(newest.tzinfo)) if written else newest
        for each in found:
            yield Line(each, newest)
        if reader.skipped:
            length = f"longer than {MAX_LINE_BYTES} bytes"
            what = counted(reader.skipped, f"line {length} was passed over", f"lines {length} were passed over")
            what += ": no kernel writes those"
            self._gaps.occurrence(self.path, what)
            reader.skipped = 0
