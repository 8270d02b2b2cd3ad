"""The gauges every ten seconds: the history before an event, and the warnings that need no line."""

import logging
from collections import deque
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

from msgspec.structs import replace

from agent.core.gauge import mem_unit_bytes, parse_kernel
from agent.core.model import Pressure, Sample
from agent.core.pressure import assess
from agent.probe import take_sample, take_snapshot
from agent.store import Store

log = logging.getLogger("sockmem-agent")

SAMPLE_SECONDS = 10
HISTORY_SAMPLES = 360


class Sampler:
    """Holds the samples of the last hour and what they warn of."""

    def __init__(self, store: Store, now: Callable[[], datetime], proc_root: Path) -> None:
        self.pressure: Pressure | None = None
        self.due = now()
        self._is_failing = False
        self._store = store
        self._proc_root = proc_root
        self._samples: deque[Sample] = deque(
            store.history(self.due - timedelta(seconds=SAMPLE_SECONDS * HISTORY_SAMPLES), self.due),
            maxlen=HISTORY_SAMPLES,
        )
        snapshot = take_snapshot(proc_root, self.due, "command", None)
        page = snapshot.page_size_bytes
        self._pages_per_unit = mem_unit_bytes(parse_kernel(snapshot.kernel), page) / page if page else 1.0

    @property
    def history(self) -> tuple[Sample, ...]:
        """The samples, oldest first."""
        return tuple(self._samples)

    def remember(self, sample: Sample) -> None:
        """Take in the gauges of a snapshot; of those within a second the highest are kept.

        A storm takes many snapshots, and must not push the time before it out of the history.
        """
        last = self._samples[-1] if self._samples else None
        if last and timedelta(0) <= sample.at - last.at < timedelta(seconds=1):
            self._samples[-1] = replace(
                sample, at=last.at, orphan=_highest(last.orphan, sample.orphan), mem=_highest(last.mem, sample.mem)
            )
        else:
            self._samples.append(sample)

    def tick(self, now: datetime) -> bool:
        """Take a sample if it is time; True when one was taken."""
        if now < self.due:
            return False
        self.due = now + timedelta(seconds=SAMPLE_SECONDS)
        sample = take_sample(self._proc_root, now)
        self._samples.append(sample)
        try:
            self._store.append_sample(sample)
            self._is_failing = False
        except OSError as error:
            if not self._is_failing:  # Samples are not worth the service: they are in memory still.
                log.warning("the history cannot be written: %s: %s", error.filename, error.strerror)
            self._is_failing = True
        self.pressure = assess(self.history, self.pressure, self._pages_per_unit)
        return True


def _highest(one: int | None, other: int | None) -> int | None:
    return max((value for value in (one, other) if value is not None), default=None)
