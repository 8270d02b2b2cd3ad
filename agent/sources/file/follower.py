"""One log followed by its name through every kind of rotation. The reader keeps the position: device, inode, offset.

One file is open, and everything before the offset in it has been handed out.

- More bytes behind the offset: hand out the complete lines.
- The bytes before the offset have changed: the file was truncated or rewritten. Continue in the copy that has our bytes
  (``copytruncate``), else from the beginning, with a gap.
- At the end, and the name means another inode: continue in the next younger file of the family that has content, after
  one more look at the open one: rsyslog writes to the renamed file until its HUP. Step by step this leads through all
  rotations that were missed. rotated.list_younger decides which files are younger, however they are numbered; a file
  that was read before continues where it was left, whatever its name is now.
- A block that the disk refuses for a minute is passed by, and so is the end of a rotated file: a bad sector stays.
- A copy that takes the log's place while it is read is gone on with where the log was.
- At start the cursor's file is found by inode or content (rotated.locate), and the same steps follow. If it is not
  found: a gap, and the log from its beginning. Older and younger files cannot be told apart then, and an old event
  reported as new at night is worse than a gap that names what to scan. Where it is the log, without the end that was
  read, as after a power cut: a gap, and what comes behind. One that was rewritten in place and begins with the same
  HEAD_BYTES, as `dmesg > FILE` does, looks just so.

What cannot be seen is lost: lines added to an old file after the new one began, lines between a copy and its
truncation, a file that came and went between two looks, one written and rotated away between two looks while the clock
was behind, lines with which a file begins just as all of the one before it, where both began between two looks, and
lines written after a power cut, before the start, in the place of those it took.
"""

import contextlib
import errno
from collections.abc import Callable, Generator, Iterator
from datetime import datetime, timedelta, timezone
from typing import Literal

from agent.core.cursor import FileCursor
from agent.core.format import counted
from agent.core.logs.prefilter import MAX_LINE_BYTES
from agent.core.times import from_epoch
from agent.sources.file.content import Content, Identity, OnProgress, digest, identity_of, say
from agent.sources.file.name import READABLE, InitialContent, WatchedPath, look_at_initial_content
from agent.sources.file.reader import Found, Reader
from agent.sources.file.rotated import STRANGER, KnownOlder, NamedFile, list_family, list_younger, locate
from agent.sources.gaps import Gaps

# logrotate may rename or compress what we are about to open.
ATTEMPTS = 3
# A disk or a server that refuses a block may be back by then, as after a path or a cable was lost for a moment.
REFUSAL_PATIENCE = timedelta(seconds=60)
REMEMBERED_FILES = 100
NOT_FOUND = (
    "lines may be lost: the file read last is neither here nor among the rotated ones; reading resumes at the "
    "beginning of this one, and `sockmem-agent scan` reads older files"
)
BETWEEN = "the file read last has this name now, which no known rotation gives: lines between it and {} may be lost"
CUT_OFF = (
    "lines may be lost: the lines read last are no longer in it, as after a power cut, or where it was rewritten in "
    "place; whatever is in it by now up to where they ended is skipped, and `sockmem-agent scan` reads it"
)


class Follower:
    """Follows one path.

    ``newest`` is the latest time at which the line read last can have been written; ``more`` says after read() whether
    it stopped only because its budget was spent.
    """

    def __init__(
        self,
        path: str,
        cursor: FileCursor | None,
        start: Literal["now", "beginning"],
        now: Callable[[], datetime],
        gaps: Gaps,
        *,
        on_progress: OnProgress,
        first_ordinal: int,
    ) -> None:
        self.path = path
        self.newest = now()
        # What is read next came since the end was seen last; a log that begins with "now" ends now. In UTC, which is
        # quick to compare.
        self.read_at = self.newest.astimezone(timezone.utc)
        self.ended_at = self.read_at if start == "now" and cursor is None else None
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
        # The rotated files in which the place was searched for in vain, while there is no log to read.
        self._in_vain: list[NamedFile] | None = None
        self._left: dict[Identity, FileCursor] = {}
        # Which place the disk refuses, and since when.
        self._refused: tuple[tuple[Identity, int], datetime] | None = None
        self._initial = look_at_initial_content(path) if start == "now" and cursor is None else None
        try:
            self._open()
        except BlockingIOError:
            pass
        except OSError as error:
            gaps.state(path, say(error))

    def read(self, budget: int) -> Generator[list[Found], None, None]:
        """Yield the lines in about ``budget`` bytes; closed early, the position is behind the last list yielded."""
        self.more, began = True, self._now().astimezone(timezone.utc)
        try:
            yield from self._read(budget)
            self.ended_at = self.ended_at if self.more else began
        except BlockingIOError:
            self.more = False
        except OSError as error:
            self._gaps.state(self.path, say(error))
            # Opened anew, it would be told anew.
            if error.errno != errno.EIO or self._reader is None or not self._is_log(self._reader):
                self.close()
            self.more = False

    def position(self) -> FileCursor | None:
        """Return where the path was read to: in the previous file until the next one has handed out a line."""
        if self._reader and (self._reader.offset or self._last is None):
            return self._reader.place()
        return self._last

    def before(self) -> tuple[int, int] | None:
        """Return offset and ordinal of the line directly before the position, if they are known."""
        start = self._reader.line_before() if self._reader else None
        return None if start is None or self._reader is None else (start, self._reader.ordinal)

    def identities(self) -> set[Identity]:
        """Return the open file and the one that the path means now."""
        both = identity_of(self.path), self._reader.content.identity if self._reader else None
        return {each for each in both if each}

    def suspend(self) -> None:
        """Stop reading what another path reads; resumed later, it starts with what is written then."""
        self.close()
        self.more = False
        self._last, self._initial = None, InitialContent(None, 0)

    def close(self) -> None:
        """Close the file; the position stays."""
        self._last = self.position()
        if self._reader:
            self._first_ordinal = self._reader.ordinal
            self._reader.content.close()
        self._reader = None

    # --- what to read -----------------------------------------------------------------------------------------------

    def _read(self, budget: int) -> Iterator[list[Found]]:
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
                    except GeneratorExit:  # The batch is full: the remainder comes first next time.
                        entered[0].content.close()
                        raise
                    yield from self._hand_out(*self._switch(reader, *entered))
                elif file is None or not (file.identity in self._unreadable or reader.has_changed()):
                    break
        self.more = False

    def _leave(self, reader: Reader) -> Iterator[list[Found]]:
        """Hand out the remainder of a file that is left for good: late lines, and a last one without a newline."""
        while reader.has_changed() and (block := self._take(reader)) is not None:
            yield from self._hand_out(reader, reader.lines(block))
        yield from self._hand_out(reader, reader.last_lines())

    def _take(self, reader: Reader) -> bytes | None:
        """Read on; damage ends a compressed file, since it does not go away."""
        try:
            block = reader.take()
            damage = reader.content.damage if reader.at_end else ""
        except OSError as error:
            if not reader.content.packed:
                self._pass_over(reader, error)
                return b""
            block, damage, reader.at_end = b"", say(error), True
        if self._refused and self._refused[0][0] == reader.content.identity:
            self._refused = None
            self._gaps.fixed(self.path, READABLE)
        if damage and block == b"":
            self._gaps.state(reader.content.path, f"{damage}; not read from offset {reader.offset} on")
        return block

    def _pass_over(self, reader: Reader, error: OSError) -> None:
        """Go on behind a block that the disk has refused for long enough, or leave a rotated file at it; or raise.

        A bad sector does not go away: each start would end at it, and after a rotation the log would wait behind it.
        """
        place, now = (reader.content.identity, reader.offset), self._now()
        if error.errno != errno.EIO:
            raise error
        if self._refused is None or self._refused[0] != place:
            self._refused = place, now
        if abs(now - self._refused[1]) < REFUSAL_PATIENCE:
            raise error
        skipped = reader.skip_unreadable()
        if skipped is None and self._is_log(reader):
            raise error  # What comes may be readable.
        if skipped is None:
            reader.give_up()
        what = "all" if skipped is None else counted(skipped[1], "byte")
        start = reader.offset if skipped is None else skipped[0]
        path = reader.content.path
        self._gaps.occurrence(path, f"lines may be lost: {what} from offset {start} on cannot be read ({say(error)})")
        self._refused = None
        self._gaps.fixed(self.path)

    def _is_log(self, reader: Reader) -> bool:
        return identity_of(self.path) == reader.content.identity

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
        rotated = [file for file in list_family(self.path) if file.token]
        if rotated == self._in_vain and not self._may_open_log():  # To unpack them again would take seconds, each time.
            return None
        for _ in range(ATTEMPTS):
            found = locate(self.path, place, self._on_progress)
            if found is None:
                break
            content = self._name.open(found.path)
            if content is None:
                continue
            reader = _reader(content, place.offset, self._first_ordinal)
            if content.identity == found.identity and reader.place().marker == place.marker:
                reader.read_ns = min(reader.read_ns, place.written_ns or reader.read_ns)
                self._is_home = self._was_home = not found.token
                if found.token == STRANGER:
                    self._gaps.occurrence(found.path, BETWEEN.format(self.path))
                return reader
            content.close()  # Renamed or truncated since it was found.
        else:
            return None
        log = self._resume_in_log(place)
        self._in_vain = None if log else rotated
        return log

    def _may_open_log(self) -> bool:
        content = self._name.open(patience=timedelta(0))
        if content:
            content.close()
        return content is not None

    def _resume_in_log(self, place: FileCursor) -> Reader | None:
        """Open the log, which does not hold the place: a power cut took its end, or it is another file."""
        reader = self._open_log()
        if reader is None:
            return None
        try:
            is_cut_off = reader.has_lost(place)
            if is_cut_off:
                reader.move_behind(min(place.offset, reader.content.status().st_size))
        except OSError:
            reader.content.close()
            raise
        self._last = None
        self._gaps.occurrence(self.path, CUT_OFF if is_cut_off else NOT_FOUND)
        return reader

    def _next_file(self, reader: Reader) -> NamedFile | None:
        """Find what to read after the open file: None while it is the log, or nothing younger has content."""
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

        Afterwards the directory and the open file are checked once more: so no copy was made and truncated before we
        had these lines, and what became of the open file before they were written is seen. A file deleted meanwhile is
        entered in any case, since it cannot be opened again.
        """
        content = self._name.open(file.path)
        if content is None:
            if file.token and identity_of(file.path) == file.identity:
                self._unreadable.add(file.identity)  # The log itself is waited for.
            return None
        try:
            younger = self._begin(reader, content)
            block = self._take(younger)
        except OSError:
            content.close()
            raise
        if block is not None and (block or file.token or not younger.at_end) and content.identity == file.identity:
            again = self._next_file(reader)
            is_next = again is not None and again.identity == file.identity and not reader.has_changed()
            if is_next or content.status().st_nlink == 0:
                return younger, block
        content.close()
        return None

    def _begin(self, reader: Reader, content: Content) -> Reader:
        """Start a younger file behind what was read in a copy of it.

        copytruncate copies first, then truncates; rsync puts a longer copy in the log's place, and so does who moves
        /var/log to another disk. Without a time in them, though, a log may begin with the same lines as the one before
        it. A file that was left before and is back continues where it was left.
        """
        if (not self._was_home or reader.is_stamped) and reader.offset and not content.packed:
            with contextlib.suppress(OSError):  # A bad sector in its first bytes: to take these will say so.
                younger = Reader(content, reader.offset, reader.ordinal)
                if younger.agrees_with(reader):
                    return younger
        left = self._left.get(content.identity)
        if left and digest(content.marker_at(left.offset)) == left.marker:
            return Reader(content, left.offset, reader.ordinal)
        return Reader(content, 0, reader.ordinal)

    def _recover(self, reader: Reader) -> None:
        """Continue after the open file was truncated or rewritten: in the copy that has our bytes, if there is one."""
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
            copy = _reader(content, reader.offset, reader.ordinal) if content else None
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
            "lines written since the last read may be lost: it was truncated or rewritten, and no copy has them",
        )

    def _switch(self, reader: Reader, other: Reader, block: bytes) -> tuple[Reader, Iterator[list[Found]]]:
        self._last = reader.place()
        self._left = dict([*self._left.items(), (reader.content.identity, self._last)][-REMEMBERED_FILES:])
        self._is_home = self._was_home = False
        self._unreadable.clear()
        self._gaps.fixed(self.path)
        other.ordinal = reader.ordinal
        self._reader = other
        reader.content.close()
        return other, other.lines(block)

    # --- looking ----------------------------------------------------------------------------------------------------

    def _hand_out(self, reader: Reader, found: Iterator[list[Found]]) -> Iterator[list[Found]]:
        now = self._now()
        written = None if self._is_home else from_epoch(reader.written_ns / 1e9)
        self.newest = min(now, written.astimezone(now.tzinfo)) if written else now
        self.read_at = self.newest.astimezone(timezone.utc)
        yield from found
        if reader.skipped:
            length = f"longer than {MAX_LINE_BYTES} bytes"
            what = counted(reader.skipped, f"line {length} skipped", f"lines {length} skipped")
            self._gaps.occurrence(self.path, f"{what}: the kernel writes none as long")
            reader.skipped = 0


def _reader(content: Content, offset: int, ordinal: int) -> Reader:
    """Begin to read a file, which is closed where that fails."""
    try:
        return Reader(content, offset, ordinal)
    except OSError:
        content.close()
        raise
