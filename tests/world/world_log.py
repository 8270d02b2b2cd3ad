"""The log and who writes it: numbered lines of the kernel, ordinary ones, half lines, and every kind of rotation.

Only what nobody could find again is left out (sources.file.follower says what that is): a log is deleted, or cut after
a copy of it was made, only when all of it is on record, one after a deleted log is rotated only when it was found, and
none while the clock is behind what was written.
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
NOISE = ("sshd[7]: session opened", "systemd[1]: Started.", "app[9]: it said TCP: too many orphaned sockets, twice")
KEPT = 6


class Writer:
    """Writes for hosts by their names; ``written`` counts the kernel's lines by host and kind."""

    def __init__(self, path: Path, chance: Random, now: Callable[[], datetime], uptime: Callable[[], float]) -> None:
        self.path, self._chance, self._now, self._uptime = path, chance, now, uptime
        self.written: Counter[tuple[str, str]] = Counter()
        self.hosts, self.is_stamp_off = ("web1",), False
        self._newest = now()
        self._lines_at_deletion = -1
        self._half = b""
        # All that was ever written, whatever became of the files; where each line ends in it, and whose and what it is.
        self._stream = b""
        self._lines: list[tuple[int, tuple[str, str] | None]] = []
        # Where in it the file of an inode begins.
        self._begins: dict[int, int] = {}
        path.parent.mkdir()
        path.touch()

    def hit(self) -> None:
        """Write some of the kernel's lines, with others between them."""
        for _ in range(self._chance.choice((1, 1, 2, 3, 8))):
            host, kind = self._chance.choice(self.hosts), self._chance.choice(list(TEXTS))
            self.written[host, kind] += 1
            self._line(host, f"kernel: [{self._uptime():12.6f}] {TEXTS[kind]}", kind)
            if self._chance.random() < 0.3:
                self.noise()

    def noise(self) -> None:
        self._line("web1", self._chance.choice(NOISE))

    def before(self, place: FileCursor) -> Counter[tuple[str, str]]:
        """Count the kernel's lines before a place, which the bytes before it name, wherever they are by now."""
        if place.offset:
            at = next((end for end, _ in reversed(self._lines) if self._marker(end, place.offset) == place.marker), 0)
        else:
            at = self._begins.get(place.inode, 0)
        return Counter(said for end, said in self._lines if said and end <= at)

    def rest(self) -> None:
        """Write the other half of a line that was begun."""
        self._append(b"")

    def rotate(self, *, is_all_recorded: bool) -> str:
        """Rotate the log in one of the ways of logrotate; return which."""
        if self._now() < self._newest or not self.path.stat().st_size:
            return "not now"
        lines = sum(self.written.values())
        if lines == self._lines_at_deletion or (self._lines_at_deletion >= 0 and not is_all_recorded):
            return "not now"
        self._lines_at_deletion = -1
        self._append(b"")
        ways = ["rename", "rename", "compress", *(["cut", "delete"] if is_all_recorded else [])]
        way = self._chance.choice(ways)
        if way == "delete":
            self._lines_at_deletion = lines
            self.path.unlink()
            self._append(b"")
            return way
        self._shift()
        if way == "cut":
            shutil.copy2(self.path, self._numbered(1))
            os.truncate(self.path, 0)
            return way
        self.path.rename(self._numbered(1))
        if way == "compress" and (old := self._numbered(2)).exists():
            status = old.stat()
            packed = old.with_name(f"{old.name}.gz")
            packed.write_bytes(gzip.compress(old.read_bytes(), mtime=0))
            os.utime(packed, ns=(status.st_mtime_ns, status.st_mtime_ns))
            old.unlink()
        self._append(b"")
        return way

    def _shift(self) -> None:
        for number in range(KEPT, 0, -1):
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

    def _line(self, host: str, text: str, kind: str = "") -> None:
        at = self._now()
        if self.is_stamp_off and self._chance.random() < 0.3:
            at = at.astimezone(timezone(timedelta(hours=self._chance.randrange(-9, 10))))
        line = f"{at.isoformat()} {host} {text}\n".encode()
        self._lines.append((len(self._stream) + len(self._half) + len(line), (host, kind) if kind else None))
        self._append(line)

    def _append(self, line: bytes) -> None:
        data, self._half = self._half + line, b""
        if line and self._chance.random() < 0.1:
            cut = self._chance.randrange(len(data))
            data, self._half = data[:cut], data[cut:]
        with self.path.open("ab") as log:
            if not log.tell():
                self._begins[os.fstat(log.fileno()).st_ino] = len(self._stream)
            self._stream += data
            log.write(data)
        self._newest = max(self._newest, self._now())
        written = int(self._now().timestamp()) * 10**9
        os.utime(self.path, ns=(written, written))
