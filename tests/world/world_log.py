"""The log and who writes it: numbered lines of the kernel, ordinary ones, half lines, and every kind of rotation.

Only what nobody could find again is left out (sources.file.follower says what that is): a log is deleted, and a rotated
one dropped, only when all is on record, one after a deleted log is rotated only when it was found, nothing is written
between a copy and its truncation, nor to a renamed log once there is a new one, no log is rotated while the clock is
behind its lines, and none of which nothing was ever read is copied or compressed: the position in it is 0, and its
inode is all that leads to it.
"""

import gzip
import os
import shutil
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from random import Random

from agent.core.cursor import FileCursor
from agent.sources.file.content import MARKER_BYTES, digest

TEXTS = {
    "too_many_orphans": "TCP: too many orphaned sockets",
    "tcp_mem": "TCP: out of memory -- consider tuning tcp_mem",
}
SUPPRESSED = "net_ratelimit: 7 callbacks suppressed"
NOISE = ("sshd[7]: session opened", "systemd[1]: Started.", "app[9]: it said TCP: too many orphaned sockets, twice")
KEPT, MOST = 6, 12


class Writer:
    """Writes for hosts by their names; ``written`` counts what the kernel said by host and kind."""

    def __init__(self, path: Path, chance: Random, now: Callable[[], datetime], uptime: Callable[[], float]) -> None:
        self.path, self._chance, self._now, self._uptime = path, chance, now, uptime
        self.hosts, self.is_stamp_off = ("web1",), False
        self._newest = now()
        # The file that is open: a log that was renamed, until the new one is.
        self._open = path
        self._is_copied = False
        self._lines_at_deletion = -1
        self._changes = 0
        self._half = b""
        # All that was ever written, whatever became of files; where in it the file of an inode begins; where each of
        # the kernel's lines ends.
        self._stream = b""
        self._begins: list[tuple[int, int]] = []
        self._said: list[tuple[int, tuple[str, str]]] = []
        path.parent.mkdir()
        path.touch()
        self._stamp()  # The machine's clock is no part of the seed.

    @property
    def written(self) -> Counter[tuple[str, str]]:
        return Counter(said for _, said in self._said)

    def hit(self) -> None:
        """Write some of the kernel's lines, what it or rsyslog makes of more like them, and others between them."""
        for _ in range(self._chance.choice((1, 1, 2, 3, 8))):
            host, kind, more = self._chance.choice(self.hosts), self._chance.choice(list(TEXTS)), self._chance.random()
            self._line(host, f"kernel: [{self._uptime():12.6f}] {TEXTS[kind]}", kind)
            if more < 0.1:
                self._line(host, "last message repeated 3 times", kind, times=3)
            elif more < 0.2:
                self._line(host, f"kernel: [{self._uptime():12.6f}] {SUPPRESSED}", "suppressed")
            elif more < 0.5:
                self.noise()

    def noise(self) -> None:
        self._line("web1", self._chance.choice(NOISE))

    def before(self, place: FileCursor) -> Counter[tuple[str, str]]:
        """Count the kernel's lines before a place, which the bytes before it name, wherever they are by now."""
        size, inode = place.offset, place.inode
        at = (begin + size for each, begin in reversed(self._begins) if size or each == inode)
        end = next((end for end in at if self._marker(end, size) == place.marker), 0)
        return Counter(said for at, said in self._said if at <= end)

    def rest(self) -> None:
        """Write the other half of a line that was begun."""
        self._append(b"")

    def rotate(self, *, is_followed: bool, is_begun: bool, is_all_recorded: bool) -> str:
        """Rotate the log in one of the ways of logrotate; return which.

        ``is_begun``: some of it was read. Before it ``is_followed`` for what a power cut leaves, what it holds is of
        before the first start, which begins with the log as it finds it.
        """
        self._cut()
        if not is_followed:
            return "not now"
        if self._now() < self._newest or not self.path.stat().st_size:
            return "not now"
        lines = sum(self.written.values())
        if lines == self._lines_at_deletion or (self._lines_at_deletion >= 0 and not is_all_recorded):
            return "not now"
        if is_all_recorded:
            self._drop()
        elif any(self.path.parent.glob(f"*.{MOST}*")):
            return "not now"
        self._lines_at_deletion = -1
        self._append(b"")
        ways = {"rename": self._rename}
        ways |= {"compress": self._rename, "copy": self._copy} if is_begun else {}
        ways |= {"delete": self._delete} if is_all_recorded else {}
        way = self._chance.choice(list(ways))
        ways[way]()
        if way == "compress":
            self._compress(self._numbered(2))
        # When the directory changed is read from it, and the machine's clock is no part of the seed.
        self._changes += 1
        os.utime(self.path.parent, ns=(self._changes, self._changes))
        return way

    def _delete(self) -> None:
        self._lines_at_deletion = sum(self.written.values())
        self.path.unlink()
        self._append(b"")

    def _copy(self) -> None:
        """Copy the log, which is cut before anything else is done with it."""
        self._shift()
        shutil.copy2(self.path, self._numbered(1))
        self._is_copied = True

    def _cut(self) -> None:
        if self._is_copied:
            self._is_copied = False
            os.truncate(self.path, 0)
            self._stamp()

    def _rename(self) -> None:
        """Rename the log, to which lines may be written until a new one is opened."""
        self._shift()
        self.path.rename(self._numbered(1))
        if self._chance.random() < 0.3:
            self._open = self._numbered(1)
            self.hit()
            self._append(b"")
            self._open = self.path
        self._append(b"")

    def _compress(self, old: Path) -> None:
        if old.exists():
            status, packed = old.stat(), old.with_name(f"{old.name}.gz")
            packed.write_bytes(gzip.compress(old.read_bytes(), mtime=0))
            os.utime(packed, ns=(status.st_mtime_ns, status.st_mtime_ns))
            old.unlink()

    def _drop(self) -> None:
        for old in self.path.parent.glob("*.*"):
            if int(old.name.split(".")[1]) >= KEPT:
                old.unlink()

    def _shift(self) -> None:
        for number in range(MOST, 0, -1):
            for ending in ("", ".gz"):
                old = self._numbered(number)
                old = old.with_name(old.name + ending)
                if old.exists():
                    new = self._numbered(number + 1)
                    old.rename(new.with_name(new.name + ending))

    def _numbered(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")

    def _marker(self, end: int, size: int) -> str:
        return digest(self._stream[max(0, end - min(size, MARKER_BYTES)) : end])

    def _line(self, host: str, text: str, kind: str = "", *, times: int = 1) -> None:
        self._cut()
        at = self._now() + timedelta(microseconds=self._changes)  # No two files begin alike, even within a moment.
        if self.is_stamp_off and self._chance.random() < 0.3:
            at = at.astimezone(timezone(timedelta(hours=self._chance.randrange(-9, 10))))
        line = f"{at.isoformat()} {host} {text}\n".encode()
        if kind:
            self._said += [(len(self._stream) + len(self._half) + len(line), (host, kind))] * times
        self._append(line)

    def _append(self, line: bytes) -> None:
        data, self._half = self._half + line, b""
        if line and self._chance.random() < 0.1:
            cut = self._chance.randrange(len(data))
            data, self._half = data[:cut], data[cut:]
        with self._open.open("ab") as log:
            if not log.tell():
                self._begins.append((os.fstat(log.fileno()).st_ino, len(self._stream)))
            self._stream += data
            log.write(data)
        self._newest = max(self._newest, self._now())
        self._stamp()

    def _stamp(self) -> None:
        written = int(self._now().timestamp()) * 10**9
        os.utime(self._open, ns=(written, written))
