"""Samples of the gauges and counters, one JSON line each: all of two days, the extremes of ninety.

``<state>/history/20261122T15.jsonl`` holds an hour. A sample gets no fsync: a power cut takes the last seconds, and the
reader skips a torn last line. ``<state>/history/day-20261122.jsonl`` holds the extremes of each hour of a day
(core.history.downsample.hourly_extremes), in UTC; it is rewritten whole when an hour is over.
"""

import contextlib
import logging
import os
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta, timezone
from itertools import groupby
from pathlib import Path

import msgspec

from agent.core.history.downsample import DAYS, WHOLE_SECONDS, downsample, hourly_extremes
from agent.core.model import SAMPLE, Sample
from agent.core.times import second_of
from agent.store.disk import (
    FILE_MODE,
    LARGEST_BYTES,
    clear_way,
    closing_descriptor,
    is_no_file,
    make_directory,
    naming,
    open_regular,
    read_regular,
    reason,
    set_aside,
    sync_directory,
    write_all,
    write_whole,
)

log = logging.getLogger("sockmem-agent")

KEEP_HOURS = 48
KEEP_DAYS = 90
_HOURS = "????????T??.jsonl"
_DAYS = "day-????????.jsonl"
# Of a long span the hours at both ends are read whole, of those between the extremes.
_EDGE_HOURS = 3
# The newest samples of an hour are among its last lines, of one or two kilobytes each.
_TAIL_BYTES = 65_536


class History:
    """The samples on disk."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._logged: set[str] = set()

    def append(self, sample: Sample) -> None:
        """Add a sample to the file of its hour."""
        path = self._path(sample.at)
        make_directory(self.directory)  # Somebody may have removed it.
        clear_way(path)
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with naming(path), closing_descriptor(os.open(path, flags, FILE_MODE)) as descriptor:
            os.fchmod(descriptor, FILE_MODE)
            begin = b"\n" if _is_torn(descriptor) else b""
            write_all(descriptor, begin + msgspec.json.encode(sample) + b"\n")

    def read(self, start: datetime, end: datetime) -> tuple[Sample, ...]:
        """Read the samples from ``start`` to ``end``, oldest first; of the middle of a long span, the extremes."""
        first, last = self._path(start), self._path(end)
        paths = sorted(path for path in self.directory.glob(_HOURS) if first <= path <= last)
        middle = paths[_EDGE_HOURS:-_EDGE_HOURS]
        found: list[Sample] = []
        for path in paths:
            samples = self._samples(path)
            found += hourly_extremes(samples) if path in middle else samples
        return tuple(sorted((each for each in found if start <= each.at <= end), key=lambda sample: sample.at))

    def read_thinned(self, now: datetime) -> tuple[Sample, ...]:
        """Read the days, then the last hours whole, downsampled by age; file by file, in little memory."""
        days = [self._day_path(now - timedelta(days=age)) for age in range(DAYS, -1, -1)]
        hours = [self._path(now - timedelta(hours=age)) for age in range(int(WHOLE_SECONDS) // 3600, -1, -1)]
        kept: dict[float, Sample] = {}
        for path in (*days, *hours):  # Whole samples replace what a day has of them.
            kept |= {second_of(sample.at): sample for sample in downsample(self._samples(path), now)}
        return downsample(kept.values(), now)

    def write_hourly_extremes(self, now: datetime, also: Sequence[Sample] = ()) -> None:
        """Write the extremes of the hours that are over; ``also`` are samples that were never appended."""
        over = sorted(path.name for path in self.directory.glob(_HOURS) if path < self._path(now))
        for day, hours in groupby(over, key=lambda name: name[:8]):
            self._write_day(self.directory / f"day-{day}.jsonl", hours, also)

    def prune(self, now: datetime, *, dry_run: bool = False) -> None:
        """Remove hours and days that are no longer kept."""
        hour, day = self._path(now - timedelta(hours=KEEP_HOURS)), self._day_path(now - timedelta(days=KEEP_DAYS))
        old = [path for path in self.directory.glob(_HOURS) if path < hour]
        old += [path for path in self.directory.glob(_DAYS) if path < day]
        for path in () if dry_run else old:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                self._tell("removed", path, error)

    def set_broken_aside(self) -> None:
        """Set aside, when the service starts, files that hold no readable sample or cannot be appended to."""
        for path in sorted((*self.directory.glob(_HOURS), *self.directory.glob(_DAYS))):
            try:
                why = _damage(path)
                if why:
                    set_aside(path, why)
            except OSError as error:
                self._tell("read", path, error)

    def believe(self, now: datetime) -> datetime:
        """Return the time retention may use: ``now``, if there are samples from a day or two before it.

        Otherwise the clock was set far ahead, or the host was off: until a day has passed, the newest hour before.
        """
        day_ago = self._path(now - timedelta(days=1)).name
        before = max((path.name for path in self.directory.glob(_HOURS) if path.name < day_ago), default=None)
        if before is None or before >= self._path(now - timedelta(days=2)).name:
            return now
        try:
            return datetime.strptime(before, "%Y%m%dT%H.jsonl").replace(tzinfo=timezone.utc)
        except ValueError:
            return now  # Somebody else's file.

    def _write_day(self, path: Path, hours: Iterable[str], also: Sequence[Sample]) -> None:
        """Add to a day the hours missing in it, or continued since: a clock was ahead, and set back."""
        try:
            data = read_regular(path) if os.path.lexists(path) else b""
        except OSError as error:
            self._tell("read", path, error)  # What cannot be read now must not be overwritten.
            return
        known = read_lines(data)
        left: dict[str, list[Sample]] = {}
        for sample in known:
            left.setdefault(self._path(sample.at).name, []).append(sample)
        is_new = False
        for name in hours:
            there = left.get(name, [])
            if there and self._newest(self.directory / name) <= max(second_of(sample.at) for sample in there):
                continue
            unwritten = [sample for sample in also if self._path(sample.at).name == name]
            pool = (*there, *unwritten, *self._samples(self.directory / name))
            # A sample of a day has fewer counters, and is the same one.
            whole = {(s.at, s.orphan, s.mem, s.tw, s.alloc, s.units): s for s in pool}
            left[name] = hourly_extremes(whole.values())
            is_new = is_new or left[name] != there
        if is_new:
            if len(known) < len(data.splitlines()):
                set_aside(path, "some of its lines are damaged", "; the others are kept")
            lines = sorted((sample for each in left.values() for sample in each), key=lambda sample: sample.at)
            write_whole(path, b"".join(msgspec.json.encode(sample) + b"\n" for sample in lines))
            sync_directory(self.directory)

    def _samples(self, path: Path) -> list[Sample]:
        """Read a file, or nothing if it cannot be read: no start may depend on one file of the history."""
        try:
            return _read(path)
        except OSError as error:
            if not os.access(self.directory, os.X_OK):
                raise  # Another user's history: not a problem of one file.
            self._tell("read", path, error)
            return []

    def _newest(self, path: Path) -> float:
        """Return the second of the newest sample among the last lines of an hour."""
        try:
            with open_regular(path) as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
                tail = read_lines(file.read())
        except OSError as error:
            self._tell("read", path, error)
            return 0.0
        return max((second_of(sample.at) for sample in tail), default=0.0)

    def _tell(self, what: str, path: Path, error: OSError) -> None:
        """Log one file per reason: where one may not be read, hardly any may."""
        text = f"{what}: {reason(error)}"
        if text not in self._logged:
            log.warning("%s of the history cannot be %s; going on without it", path, text)
        self._logged.add(text)

    def _path(self, at: datetime) -> Path:
        return self.directory / f"{at.astimezone(timezone.utc):%Y%m%dT%H}.jsonl"

    def _day_path(self, at: datetime) -> Path:
        return self.directory / f"day-{at.astimezone(timezone.utc):%Y%m%d}.jsonl"


def read_lines(data: bytes) -> list[Sample]:
    """Decode one sample per line; a line that a crash tore is skipped."""
    found = []
    for line in data.splitlines():
        with contextlib.suppress(msgspec.DecodeError, UnicodeError, RecursionError, OverflowError):
            sample = SAMPLE.decode(line)
            msgspec.msgpack.encode(sample)  # Fails for a number of more than 64 bits, which no kernel counts.
            found.append(sample)
    return found


def _is_torn(descriptor: int) -> bool:
    """Return whether the last line of a file is cut off, by a crash or a full disk."""
    size = os.fstat(descriptor).st_size
    return size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"


def _read(path: Path) -> list[Sample]:
    try:
        return read_lines(read_regular(path))
    except FileNotFoundError:
        return []


def _damage(path: Path) -> str | None:
    """Return what is wrong with a file of samples, by its size and its beginning."""
    try:
        with open_regular(path) as file:
            size, head = os.fstat(file.fileno()).st_size, file.read(_TAIL_BYTES)
    except OSError as error:
        if is_no_file(error):
            return reason(error)
        raise
    if size > LARGEST_BYTES:
        return f"larger than {LARGEST_BYTES >> 20} MiB"
    return "it holds no sample" if head.strip() and not read_lines(head) else None
