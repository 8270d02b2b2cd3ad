"""Samples of the gauges and counters, one JSON line each: two days of all, and ninety of what is left of them.

``<state>/history/20261122T15.jsonl`` is a file an hour. Samples are not worth an fsync: what a power cut takes are the
last seconds before it, and a torn last line is passed over by the reader. ``<state>/history/day-20261122.jsonl`` holds
what is left of each hour of a day (core.history.downsample.hourly_extremes), in UTC; it is written anew, whole or
not at all, when an hour is over. The space is bounded by the number of hours and days kept.
"""

import contextlib
import logging
import os
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta, timezone
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
# Of a long time the hours at both ends are read whole, and of those between what they have left behind.
_EDGE_HOURS = 3
# The newest samples of an hour are among its last lines, of which each has a kilobyte or two.
_TAIL_BYTES = 65_536


class History:
    """The samples on disk."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._told: set[str] = set()

    def append(self, sample: Sample) -> None:
        """Add a sample to the file of its hour."""
        path = self._path(sample.at)
        clear_way(path)
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with naming(path), closing_descriptor(os.open(path, flags, FILE_MODE)) as descriptor:
            os.fchmod(descriptor, FILE_MODE)
            begin = b"\n" if _is_torn(descriptor) else b""
            write_all(descriptor, begin + msgspec.json.encode(sample) + b"\n")

    def read(self, start: datetime, end: datetime) -> tuple[Sample, ...]:
        """Read the samples from ``start`` to ``end``, oldest first; a line that a crash tore is passed over.

        Of a time longer than six hours, those in the middle are what their hours have left behind, where that is kept.
        """
        first, last = self._path(start).name, self._path(end).name
        names = sorted(path.name for path in self.directory.glob(_HOURS) if first <= path.name <= last)
        middle = names[_EDGE_HOURS:-_EDGE_HOURS]
        left: dict[str, list[Sample]] = {}
        for day in sorted({name[:8] for name in middle}):
            for sample in self._samples(self.directory / f"day-{day}.jsonl"):
                left.setdefault(self._path(sample.at).name, []).append(sample)
        found: list[Sample] = []
        for name in names:
            found += left[name] if name in middle and name in left else self._samples(self.directory / name)
        return tuple(sorted((each for each in found if start <= each.at <= end), key=lambda sample: sample.at))

    def read_thinned(self, now: datetime) -> tuple[Sample, ...]:
        """Read what the hours have left, and the last ones whole, thinned by age; day by day, in little memory."""
        kept: dict[float, Sample] = {}
        day = _hour_of(now - timedelta(days=DAYS)).replace(hour=0)
        while day <= now:
            kept |= {second_of(sample.at): sample for sample in downsample(self._samples(self._day_path(day)), now)}
            day += timedelta(days=1)
        hour = _hour_of(now - timedelta(seconds=WHOLE_SECONDS))
        while hour <= now:
            # Whole samples take the place of what was left of them.
            kept |= {second_of(sample.at): sample for sample in downsample(self._samples(self._path(hour)), now)}
            hour += timedelta(hours=1)
        return downsample(kept.values(), now)

    def write_hourly_extremes(self, now: datetime, also: Sequence[Sample] = ()) -> None:
        """Write what is left of the hours that are over; ``also`` are samples that were never appended."""
        current = self._path(now).name
        names = sorted(path.name for path in self.directory.glob(_HOURS))
        days: dict[str, list[str]] = {}
        for name in names:
            if name < current:
                days.setdefault(name[:8], []).append(name)
        for day, hours in days.items():
            self._keep_day(self.directory / f"day-{day}.jsonl", hours, also)

    def prune(self, now: datetime, *, dry_run: bool = False) -> None:
        """Remove the hours and the days that are no longer kept."""
        oldest = self._path(now - timedelta(hours=KEEP_HOURS)).name
        oldest_day = self._day_path(now - timedelta(days=KEEP_DAYS)).name
        old = [path for path in self.directory.glob(_HOURS) if path.name < oldest]
        old += [path for path in self.directory.glob(_DAYS) if path.name < oldest_day]
        for path in () if dry_run else old:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                self._tell("removed", path, error)

    def set_broken_aside(self) -> None:
        """Set aside, when the service starts, what no sample can be read from or added to."""
        for path in sorted((*self.directory.glob(_HOURS), *self.directory.glob(_DAYS))):
            try:
                why = _damage(path)
                if why:
                    set_aside(path, why)
            except OSError as error:
                self._tell("read", path, error)

    def believe(self, now: datetime) -> datetime:
        """Return which time retention may go by: ``now``, if samples were taken a day or two before it, too.

        Else the clock was set far ahead, or the host was off: until a day has passed, it is the newest hour before.
        """
        day_ago = self._path(now - timedelta(days=1)).name
        before = max((path.name for path in self.directory.glob(_HOURS) if path.name < day_ago), default=None)
        if before is None or before >= self._path(now - timedelta(days=2)).name:
            return now
        try:
            return datetime.strptime(before, "%Y%m%dT%H.jsonl").replace(tzinfo=timezone.utc)
        except ValueError:
            return now  # Somebody else's file.

    def _keep_day(self, path: Path, hours: Iterable[str], also: Sequence[Sample]) -> None:
        """Add to a day the hours that are not in it yet, or that went on since: a clock was ahead, and set back."""
        try:
            data = read_regular(path) if os.path.lexists(path) else b""
        except OSError as error:
            self._tell("read", path, error)  # What cannot be read now must not be written over.
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
            # What is left of a sample has fewer counters, and is no second one.
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
        """Read a file; without it, when it cannot be read: no start may depend on one file of the history."""
        try:
            return _read(path)
        except OSError as error:
            if not os.access(self.directory, os.X_OK):
                raise  # Another user's history is no trouble of one file.
            self._tell("read", path, error)
            return []

    def _newest(self, path: Path) -> float:
        """Find the second of the newest sample among the last lines of an hour."""
        try:
            with open_regular(path) as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
                tail = read_lines(file.read())
        except OSError as error:
            self._tell("read", path, error)
            return 0.0
        return max((second_of(sample.at) for sample in tail), default=0.0)

    def _tell(self, what: str, path: Path, error: OSError) -> None:
        """Say once a reason which file it was: where one may not be read, hardly any may."""
        text = f"{what}: {reason(error)}"
        if text not in self._told:
            log.warning("%s of the history cannot be %s; going on without it", path, text)
        self._told.add(text)

    def _path(self, at: datetime) -> Path:
        return self.directory / f"{at.astimezone(timezone.utc):%Y%m%dT%H}.jsonl"

    def _day_path(self, at: datetime) -> Path:
        return self.directory / f"day-{at.astimezone(timezone.utc):%Y%m%d}.jsonl"


def read_lines(data: bytes) -> list[Sample]:
    """Decode a sample a line; a line that a crash tore is passed over."""
    found = []
    for line in data.splitlines():
        with contextlib.suppress(msgspec.DecodeError, UnicodeError, RecursionError, OverflowError):
            sample = SAMPLE.decode(line)
            msgspec.msgpack.encode(sample)  # It has no number of more than 64 bits, and no kernel counts so far.
            found.append(sample)
    return found


def _is_torn(descriptor: int) -> bool:
    """Return whether the last line of a file has no end: a crash or a full disk cut it off."""
    size = os.fstat(descriptor).st_size
    return size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"


def _read(path: Path) -> list[Sample]:
    try:
        return read_lines(read_regular(path))
    except FileNotFoundError:
        return []


def _damage(path: Path) -> str | None:
    """Say what is wrong with a file of samples, as far as its size and its beginning tell."""
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


def _hour_of(at: datetime) -> datetime:
    return at.astimezone(timezone.utc).replace(minute=0, second=0, microsecond=0)
