"""The gauges every ten seconds: the history before an event, and the warnings that need no line."""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from msgspec.structs import replace

from agent.core.history.downsample import downsample
from agent.core.history.early_warning import Refused, assess, find_refusals
from agent.core.model import Pressure, Sample, UnitShare
from agent.core.times import second_of
from agent.probe import Counters, page_bytes, pages_per_unit, take_sample
from agent.service.survey import Survey
from agent.service.troubles import Troubles
from agent.store import Store, explain

log = logging.getLogger("sockmem-agent")

SAMPLE_SECONDS = 10
# What a warning looks at: an hour.
RECENT_SAMPLES = 360
THIN_SPACING = timedelta(minutes=5)
# Samples are not worth the service: they are in memory still.
UNWRITTEN, NOT_SUMMED_UP = "the history cannot be written", "the history of past days cannot be written"


class Sampler:
    """Holds the samples of thirty days, ever fewer as they grow old, and what they warn of."""

    def __init__(
        self,
        store: Store,
        now: Callable[[], datetime],
        proc_root: Path,
        troubles: Troubles,
        make_survey: Callable[[Path, datetime], Survey] = Survey,
    ) -> None:
        self.pressure: Pressure | None = None
        self.due = self._thinned_at = now()
        self.survey = make_survey(proc_root, self.due)
        self._is_of_a_snapshot = False
        self._troubles = troubles
        self._store = store
        self._proc_root = proc_root
        self._hour = _hour_of(self.due)
        # The hour in which the process before us ended is over by now, it may be.
        with troubles.survived(NOT_SUMMED_UP):
            store.samples.write_hourly_extremes(self.due)
        self._samples: list[Sample] = []
        self._read_again(self.due)
        self.page_bytes, self.pages_per_unit = page_bytes(proc_root), pages_per_unit(proc_root)
        self.counters = Counters(proc_root, self._samples)
        self._refused: Sequence[Refused] = ()

    @property
    def history(self) -> tuple[Sample, ...]:
        """The samples, oldest first."""
        return tuple(self._samples)

    @property
    def newest(self) -> Sample | None:
        """The newest gauges."""
        return self._samples[-1] if self._samples else None

    def remember(self, sample: Sample) -> None:
        """Take in the gauges of a snapshot; of snapshots within a second the highest are kept, and the first counters.

        A storm takes many snapshots, and must not push the time before it out of the history. A sample that was taken
        by the clock stays as it is: an event is held against the one before it.
        """
        last = self.newest
        if last and self._is_of_a_snapshot and timedelta(0) <= sample.at - last.at < timedelta(seconds=1):
            self._samples[-1] = replace(
                sample,
                at=last.at,
                orphan=_highest(last.orphan, sample.orphan),
                mem=_highest(last.mem, sample.mem),
                counters=last.counters or sample.counters,
                moved=_together(last.moved, sample.moved),
                units=sample.units or last.units,
            )
        else:
            self._samples.append(sample)
            self._is_of_a_snapshot = True

    def name_units(self, units: tuple[UnitShare, ...]) -> None:
        """Add to the newest sample who held the sockets."""
        if self._samples and units:
            self._samples[-1] = replace(self._samples[-1], units=units)

    def note_refusals(self, refused: Sequence[Refused], now: datetime) -> None:
        """Note what the kernel's trace told of refusals; where it is news, the next sample is due now."""
        self._refused = refused
        tcp_mem, level = self.newest.tcp_mem if self.newest else None, self.pressure.level if self.pressure else 0
        if any(each.level > level for each in find_refusals(refused, now, tcp_mem, self.pages_per_unit)):
            self.due = now

    def clock_set_back(self, now: datetime) -> None:
        """Follow a clock that was set back; what a clock far ahead has thinned away is read again."""
        self.due = now
        self.survey.clock_set_back(now)
        if self.newest and self.newest.at - now >= THIN_SPACING:
            self._read_again(now)

    def tick(self, now: datetime) -> bool:
        """Take a sample if it is time; True when one was taken."""
        if now < self.due:
            return False
        self.due = now + timedelta(seconds=SAMPLE_SECONDS)
        sample = replace(take_sample(self._proc_root, now, self.counters), units=self.survey.collect(now))
        self._samples.append(sample)
        self._is_of_a_snapshot = False
        with self._troubles.survived(UNWRITTEN):
            self._store.samples.append(sample)
        if abs(now - self._thinned_at) >= THIN_SPACING:
            self._thinned_at = now
            self._samples = list(downsample(self._samples, now))
        if _hour_of(now) != self._hour:
            self._hour = _hour_of(now)
            with self._troubles.survived(NOT_SUMMED_UP):
                self._store.samples.write_hourly_extremes(now, self.history)
        recent = self._samples[-RECENT_SAMPLES:]
        self.pressure = assess(recent, self.pressure, self.pages_per_unit, self.survey.groups, self._refused)
        return True

    def _read_again(self, now: datetime) -> None:
        """Put what is on disk to what is in memory."""
        whole: dict[float, Sample] = {}
        try:
            whole = {second_of(sample.at): sample for sample in self._store.samples.read_thinned(now)}
        except OSError as error:  # Nor is the time before us worth the service.
            log.warning("the history cannot be read: %s", explain(error))
        for sample in self._samples:
            other = whole.get(second_of(sample.at))
            if other is None or len(sample.counters) >= len(other.counters):
                whole[second_of(sample.at)] = sample
        self._samples = list(downsample(whole.values(), now))


def _hour_of(at: datetime) -> datetime:
    return at.replace(minute=0, second=0, microsecond=0)


def _together(one: dict[str, dict[str, int]], other: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    """Add up what two readings saw moving."""
    return {name: dict(Counter(one.get(name, {})) + Counter(other.get(name, {}))) for name in one | other}


def _highest(one: int | None, other: int | None) -> int | None:
    return max((value for value in (one, other) if value is not None), default=None)
