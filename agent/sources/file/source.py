"""Records from text logs as they are written: watchdog (inotify(7)) gives hints, the files decide.

A wait lasts a second at most and every read looks at the files first, so a lost hint, a queue overflow, a directory
that does not exist yet or an exhausted inotify limit costs a second and no line. core.logs.envelope shows sample lines;
sources.file.follower follows a file through rotation.
"""

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta, timezone
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from msgspec.structs import replace

from agent.core.cursor import Cursor, FileCursor
from agent.core.model import LogRecord
from agent.core.readings import Gap
from agent.core.times import put_right
from agent.sources.file.content import Identity, OnProgress, identity_of
from agent.sources.file.follower import Follower
from agent.sources.file.name import look_at_initial_content
from agent.sources.file.reader import Found
from agent.sources.gaps import Gaps

if TYPE_CHECKING:
    from agent.sources.file.waker import Waker

# Limits of one turn of the main loop, in bytes and in lines that could matter: short lines make large records.
BATCH_BYTES = 4 << 20
BATCH_LINES = 500
LONGEST_WAIT_SECONDS = 1.0
# Files are numbered apart: the last line of one is not next to the first line of another.
ORDINALS_PER_FILE = 1 << 40
UNLISTED = (
    "permission denied: new lines are seen up to a second late, and lines may be lost when a log in it is rotated; let "
    "the agent's user list it (chmod o+r, or setfacl)"
)

# A log that did not exist yet: all of it is new when it appears, even after a restart.
NOT_THERE = FileCursor(device=0, inode=0, offset=0, marker="")


class LogFileSource:
    """Follows several logs through every kind of rotation."""

    def __init__(
        self,
        paths: Sequence[str],
        cursor: Cursor | None,
        start: Literal["now", "beginning"],
        now: Callable[[], datetime],
        waker: "Waker | None" = None,
        *,
        on_progress: OnProgress = lambda: None,
    ) -> None:
        """Open what can be opened; the rest is a gap, and every read tries again.

        ``on_progress`` is called while a compressed file is unpacked, which may take minutes.
        """
        known = cursor.files if cursor else {}
        self._gaps = Gaps()
        self._followers = []
        for number, path in enumerate(dict.fromkeys(paths)):
            ordinal = number * ORDINALS_PER_FILE
            place, first = (None, "beginning") if known.get(path) == NOT_THERE else (known.get(path), start)
            follower = Follower(path, place, first, now, self._gaps, on_progress=on_progress, first_ordinal=ordinal)
            self._followers.append(follower)
        # A path that means the same file as one before it, and that one.
        self._duplicates: dict[str, Follower] = {}
        self._is_watching = False
        if waker:
            self._waker = waker

    def read(self) -> Iterator[LogRecord]:
        """Yield one batch of about BATCH_BYTES and BATCH_LINES, shared among the files so that none starves."""
        if not self._is_watching:
            self._watch()
        most_bytes, most_lines = BATCH_BYTES // len(self._followers), max(1, BATCH_LINES // len(self._followers))
        for follower in self._followers:
            if not self._is_duplicate(follower):
                with contextlib.closing(follower.read(most_bytes)) as lines:
                    for together in itertools.islice(lines, most_lines):
                        yield from self._records(follower, together)

    def wait(self, timeout: float) -> None:
        """Return at a hint, or after ``timeout`` seconds, one at most; at once when a batch was cut off."""
        self._watch()
        if not any(follower.more for follower in self._followers):
            self._waker.wait(min(timeout, LONGEST_WAIT_SECONDS))

    def position(self) -> Cursor:
        """Return where every file was read to, in whole lines."""
        files: dict[str, FileCursor] = {}
        for follower in self._followers:
            place = self._duplicates.get(follower.path, follower).position()
            if place:
                files[follower.path] = place
            elif look_at_initial_content(follower.path) is None:
                files[follower.path] = NOT_THERE
        return Cursor(files=files)

    def before(self) -> dict[str, int]:
        """Return the ordinals of the lines before each file's position, by their sources."""
        known = ((follower.path, follower.before()) for follower in self._followers)
        return {f"{path}@{before[0]}": before[1] for path, before in known if before}

    def gaps(self) -> tuple[Gap, ...]:
        """Return what could not be read, was skipped or may be lost since the last call."""
        return self._gaps.drain()

    def troubles(self) -> list[str]:
        """Say which log is missing or cannot be read, and which directory hides rotations, in the words of the gap."""
        paths = {follower.path for follower in self._followers} - self._duplicates.keys()
        return [f"{gap.what}: {gap.why}" for gap in self._gaps.lasting() if gap.what in paths or gap.why == UNLISTED]

    def close(self) -> None:
        """Stop watching and close the files."""
        self._waker.close()
        for follower in self._followers:
            follower.close()

    def _records(self, follower: Follower, together: Sequence[Found]) -> Iterator[LogRecord]:
        """Yield the records of lines among which there is no position: the last has the one behind them all."""
        records = [record for found in together if (record := self._record(follower, found))]
        yield from records[:-1]
        if records:
            yield replace(records[-1], cursor=self.position())

    def _record(self, follower: Follower, found: Found) -> LogRecord | None:
        record = self._parse(follower, found, follower.newest)
        if record is None or record.at is None:
            return record
        at, ahead = put_right(record.at, follower.ended_at, follower.read_at)
        if ahead and self._has_zone(follower, found, record):  # Such a stamp is right whatever zone its writer kept.
            at, ahead = put_right(record.at, None, follower.read_at)
        return replace(record, at=at, ahead_seconds=ahead) if ahead else record

    def _has_zone(self, follower: Follower, found: Found, record: LogRecord) -> bool:
        """Return whether a stamp says its zone: read in another zone it is of the same moment."""
        elsewhere = follower.newest.astimezone(
            timezone(timedelta(hours=1) + (follower.newest.utcoffset() or timedelta(0)))
        )
        other = self._parse(follower, found, elsewhere)
        return other is not None and other.at == record.at

    def _parse(self, follower: Follower, found: Found, newest: datetime) -> LogRecord | None:
        from agent.core.logs.records import to_record  # noqa: PLC0415 - see agent.sources.import_parser

        # A crash or a truncation leaves NULs: what stands before them is half of another line.
        return to_record(
            found.raw.rstrip(b"\0").rpartition(b"\0")[2],
            now=newest,
            source=f"{follower.path}@{found.offset}",
            ordinal=found.ordinal,
            times=found.times,
        )

    def _is_duplicate(self, follower: Follower) -> bool:
        """Suspend a path that means the same file as one before it, so that no line is read twice."""
        for other in self._followers[: self._followers.index(follower)]:
            if other.path not in self._duplicates and _same_file(follower, other):
                if follower.path not in self._duplicates:
                    follower.suspend()
                    self._duplicates[follower.path] = other
                self._gaps.state(follower.path, f"is the same file as {other.path}, which is already followed")
                return True
        if self._duplicates.pop(follower.path, None):
            self._gaps.fixed(follower.path)
        return False

    @cached_property
    def _waker(self) -> "Waker":
        from agent.sources.file.waker import DirectoryWaker  # noqa: PLC0415 - see agent.sources.import_parser

        return DirectoryWaker()

    def _watch(self) -> None:
        self._is_watching = True
        directories: dict[str, Identity] = {}
        for follower in self._followers:
            # watchdog would watch a symbolic link itself, not the directory behind it.
            path, real = Path(follower.path), Path(os.path.realpath(follower.path))
            for directory in {os.path.realpath(path.parent), str(real.parent)}:
                if (identity := identity_of(directory)) and self._may_list(directory):
                    directories[directory] = identity
        trouble = self._waker.watch(directories)
        if trouble:
            self._gaps.state("inotify", f"{trouble}; checking once a second instead")
        else:
            self._gaps.fixed("inotify")

    def _may_list(self, directory: str) -> bool:
        """Return whether a directory may be listed; watchdog says nothing where it may not."""
        try:
            os.close(os.open(directory, os.O_RDONLY | os.O_DIRECTORY))
        except PermissionError:
            if identity_of(f"{directory}/.."):  # Else it may not be entered either, and its log says so.
                self._gaps.state(directory, UNLISTED)
            return False
        except OSError:  # It is gone, or no directory.
            return True
        self._gaps.fixed(directory, "can be listed again")
        return True


def _same_file(follower: Follower, other: Follower) -> bool:
    if os.path.realpath(follower.path) == os.path.realpath(other.path):
        return True
    return identity_of(follower.path) in other.identities()
