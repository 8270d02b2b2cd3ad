"""Samples of the gauges and counters, one JSON line each, in a file an hour: ``<state>/history/20261122T15.jsonl``.

Samples are not worth an fsync: what a power cut takes are the last seconds before it, and a torn last line is passed
over by the reader. The space is bounded by the number of hours kept.
"""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from agent.core.model import Sample
from agent.store.disk import FILE_MODE

KEEP_HOURS = 48


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
        decoder = msgspec.json.Decoder(Sample)
        found = []
        hour = start.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        while hour <= end:
            for line in self._lines(self._path(hour)):
                try:
                    sample = decoder.decode(line)
                except msgspec.DecodeError:
                    continue
                if start <= sample.at <= end:
                    found.append(sample)
            hour += timedelta(hours=1)
        return tuple(sorted(found, key=lambda sample: sample.at))

    def prune(self, now: datetime, *, dry_run: bool = False) -> None:
        """Remove the hours that are no longer kept."""
        oldest = self._path(now - timedelta(hours=KEEP_HOURS)).name
        for path in self.directory.glob("*.jsonl"):
            if path.name < oldest and not dry_run:
                path.unlink(missing_ok=True)

    def _path(self, at: datetime) -> Path:
        return self.directory / f"{at.astimezone(UTC):%Y%m%dT%H}.jsonl"

    @staticmethod
    def _lines(path: Path) -> list[bytes]:
        try:
            return path.read_bytes().splitlines()
        except FileNotFoundError:
            return []
