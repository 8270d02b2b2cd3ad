"""Samples of the gauges and counters, one JSON line each: two days of all, and ninety of what is left of them.

``<state>/history/20261122T15.jsonl`` is a file an hour. Samples are not worth an fsync: what a power cut takes are the
last seconds before it, and a torn last line is passed over by the reader. ``<state>/history/day-20261122.jsonl`` holds
what is left of each hour of a day (core.thinning.remains), in UTC; it is written anew, whole or not at all, when an
hour is over. The space is bounded by the number of hours and days kept.
"""

import os
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from agent.core.model import Sample
from agent.core.thinning import DAYS, WHOLE_SECONDS, remains, second_of, thin
from agent.store.disk import FILE_MODE, sync_directory, write_whole

KEEP_HOURS = 48
KEEP_DAYS = 90
_HOURS = "????????T??.jsonl"
_DAYS = "day-????????.jsonl"


class History:
    """The samples on disk."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._begin = b"\n"  # Ends a line that a crash of the process before us may have torn.

    def append(self, sample: Sample) -> None:
        """Add a sample to the file of its hour."""
        path = self._path(sample.at)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, FILE_MODE)
        try:
            os.fchmod(descriptor, FILE_MODE)
            os.write(descriptor, self._begin + msgspec.json.encode(sample) + b"\n")
        except OSError as error:
            self._begin, error.filename = b"\n", str(path)
            raise
        finally:
            os.close(descriptor)
        self._begin = b""

    def read(self, start: datetime, end: datetime) -> tuple[Sample, ...]:
        """Read the samples from ``start`` to ``end``, oldest first; a line that a crash tore is passed over."""
        found: list[Sample] = []
        hour = _hour_of(start)
        while hour <= end:
            found += [sample for sample in _samples(self._path(hour)) if start <= sample.at <= end]
            hour += timedelta(hours=1)
        return tuple(sorted(found, key=lambda sample: sample.at))

    def read_remains(self, start: datetime, end: datetime) -> tuple[Sample, ...]:
        """Read what the hours from ``start`` to ``end`` have left behind, oldest first."""
        found: list[Sample] = []
        day = _hour_of(start).replace(hour=0)
        while day <= end:
            found += [sample for sample in _samples(self._day_path(day)) if start <= sample.at <= end]
            day += timedelta(days=1)
        return tuple(sorted(found, key=lambda sample: sample.at))

    def read_thinned(self, now: datetime) -> tuple[Sample, ...]:
        """Read what the hours have left, and the last ones whole, thinned by age; day by day, in little memory."""
        kept: dict[float, Sample] = {}
        day = _hour_of(now - timedelta(days=DAYS)).replace(hour=0)
        while day <= now:
            kept |= {second_of(sample.at): sample for sample in thin(_samples(self._day_path(day)), now)}
            day += timedelta(days=1)
        hour = _hour_of(now - timedelta(seconds=WHOLE_SECONDS))
        while hour <= now:
            # Whole samples take the place of what was left of them.
            kept |= {second_of(sample.at): sample for sample in thin(_samples(self._path(hour)), now)}
            hour += timedelta(hours=1)
        return thin(kept.values(), now)

    def keep_remains(self, now: datetime, also: Sequence[Sample] = ()) -> None:
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
            path.unlink(missing_ok=True)

    def _keep_day(self, path: Path, hours: Iterable[str], also: Sequence[Sample]) -> None:
        """Add to a day the hours that are not in it yet."""
        known = _samples(path)
        there = {self._path(sample.at).name for sample in known}
        new: list[Sample] = []
        for name in hours:
            if name not in there:
                unwritten = [sample for sample in also if self._path(sample.at).name == name]
                new += remains([*_samples(self.directory / name), *unwritten])
        if new:
            lines = sorted((*known, *new), key=lambda sample: sample.at)
            write_whole(path, b"".join(msgspec.json.encode(sample) + b"\n" for sample in lines))
            sync_directory(self.directory)

    def _path(self, at: datetime) -> Path:
        return self.directory / f"{at.astimezone(UTC):%Y%m%dT%H}.jsonl"

    def _day_path(self, at: datetime) -> Path:
        return self.directory / f"day-{at.astimezone(UTC):%Y%m%d}.jsonl"


def read_lines(data: bytes) -> list[Sample]:
    """Decode a sample a line; a line that a crash tore is passed over."""
    decoder, found = msgspec.json.Decoder(Sample), []
    for line in data.splitlines():
        try:
            sample = decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
        if sample.at.tzinfo is not None:
            found.append(sample)
    return found


def _samples(path: Path) -> list[Sample]:
    try:
        return read_lines(path.read_bytes())
    except FileNotFoundError:
        return []


def _hour_of(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
