"""Records out of text logs as they are written: watchdog (inotify(7)) gives hints, and the files are the truth.

Every wait is bounded by a second and every read begins with a look at the files, so a lost hint, a queue overflow, a
directory that is not there yet or an exhausted inotify limit cost a second and no line. Samples of what is read are in
core.logs.envelope; how a file is followed through rotation is in sources.file.follower.
"""

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Literal

from agent.core.cursor import Cursor, FileCursor
from agent.core.logs.records import to_record
from agent.core.model import LogRecord
from agent.core.readings import Gap
from agent.sources.file.content import Identity, OnProgress, identity_of
from agent.sources.file.follower import Follower, Line
from agent.sources.file.waker import LONGEST_WAIT_SECONDS, DirectoryWaker, Waker
from agent.sources.gaps import Gaps

# What one turn of the main loop reads at most, in bytes and in lines that could matter: short lines make large records.
BATCH_BYTES = 4 << 20
BATCH_LINES = 500
# Files are numbered apart, so that the last line of one is no neighbour of the first line of another.
ORDINALS_PER_FILE = 1 << 40

# A log that was not there when everything else was: all of it is news when it appears, after a restart as well.
NOT_THERE = FileCursor(device=0, inode=0, offset=0, marker="")


class LogFileSource:
    """Follows several logs, each through every kind of rotation."""

    def __init__(
        self,
        paths: Sequence[str],
        cursor: Cursor | None,
        start: Literal["now", "beginning"],
        now: Callable[[], datetime],
        waker: Waker | None = None,
        *,
        on_progress: OnProgress = lambda: None,
    ) -> None:
        """Open what can be opened; what cannot is a gap, and is tried again with every read.

        ``on_progress`` is called while a compressed file is unpacked, which may take minutes.
        """
        known = cursor.files if cursor else {}
        self._gaps = Gaps()
        self._followers = [
            Follower(
                path,
                None if known.get(path) == NOT_THERE else known.get(path),
                "beginning" if known.get(path) == NOT_THERE else start,
                now,
                self._gaps,
                on_progress=on_progress,
                first_ordinal=number * ORDINALS_PER_FILE,
            )
            for number, path in enumerate(dict.fromkeys(paths))
        ]
        self._twins: dict[str, Follower] = {}
        self._waker = waker or DirectoryWaker()
        self._watch()

    def read(self) -> Iterator[LogRecord]:
        """Yield the records of one batch, of about BATCH_BYTES and BATCH_LINES over all files, so that none starves."""
        for follower in self._followers:
            if not self._is_twin(follower):
                with contextlib.closing(follower.read(BATCH_BYTES // len(self._followers))) as lines:
                    for line in itertools.islice(lines, max(1, BATCH_LINES // len(self._followers))):
                        record = self._record(follower, line)
                        if record:
                            yield record

    def wait(self, timeout: float) -> None:
        """Return at a hint of more or after ``timeout`` seconds, a second at most; at once when a batch was cut off."""
        self._watch()
        if not any(follower.more for follower in self._followers):
            self._waker.wait(min(timeout, LONGEST_WAIT_SECONDS))

    def position(self) -> Cursor:
        """Return where every file was read to; only whole lines are behind it."""
        files: dict[str, FileCursor] = {}
        for follower in self._followers:
            place = self._twins.get(follower.path, follower).position()
            if place:
                files[follower.path] = place
            elif not os.path.lexists(follower.path):
                files[follower.path] = NOT_THERE
        return Cursor(files=files)

    def gaps(self) -> tuple[Gap, ...]:
        """Hand over what could not be read, was passed over or may be lost since the last call, each once."""
        return self._gaps.drain()

    def close(self) -> None:
        """Stop watching and close the files."""
        self._waker.close()
        for follower in self._followers:
            follower.close()

    def _record(self, follower: Follower, line: Line) -> LogRecord | None:
        # NULs are the mark of a crash or a truncation: what stands before them is the half of another line.
        found = line.found
        raw = found.raw.rstrip(b"\0").rpartition(b"\0")[2]
        return to_record(
            raw,
            now=line.newest,
            source=f"{follower.path}@{found.offset}",
            ordinal=found.ordinal,
            times=found.times,
            position=self.position,
        )

    def _is_twin(self, follower: Follower) -> bool:
        """Let a path rest that means the same file as one before it: no line is read twice."""
        for other in self._followers[: self._followers.index(follower)]:
            if other.path not in self._twins and _same_file(follower, other):
                if follower.path not in self._twins:
                    follower.rest()
                    self._twins[follower.path] = other
                self._gaps.state(follower.path, f"is the same file as {other.path}, which is read already")
                return True
        if self._twins.pop(follower.path, None):
            self._gaps.mend(follower.path)
        return False

    def _watch(self) -> None:
        directories: dict[str, Identity] = {}
        for follower in self._followers:
            for path in (follower.path, os.path.realpath(follower.path)):
                # watchdog looks at a symbolic link itself, not at the directory behind it.
                directory = os.path.realpath(Path(path).parent)
                identity = identity_of(directory)
                if identity:
                    directories[directory] = identity
        trouble = self._waker.watch(directories)
        if trouble:
            self._gaps.state("inotify", f"{trouble}: looking once a second instead")
        else:
            self._gaps.mend("inotify")


def _same_file(follower: Follower, other: Follower) -> bool:
    if os.path.realpath(follower.path) == os.path.realpath(other.path):
        return True
    return identity_of(follower.path) in other.identities()
