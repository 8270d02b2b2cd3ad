"""The two counts that the kernel holds against a limit, and how they read over time."""

from collections.abc import Iterable
from datetime import datetime
from typing import Literal, NamedTuple

from agent.core.format import bytes_text, count_text
from agent.core.kernel.limits import Zone
from agent.core.model import GaugeName, Sample

# A sample, and its seconds from the snapshot: negative before it.
Timed = tuple[float, Sample]
# Below the pressure threshold, or still above the first limit on the way down.
CALM = ("calm", "hysteresis")


class Reading(NamedTuple):
    """One gauge at one moment; ``second`` counts up to 0 at the snapshot, and on behind it."""

    second: float
    at: datetime
    value: int


class Gauge(NamedTuple):
    """One of the two: sockets, or bytes of TCP memory.

    ``value`` is the highest near the events, or that of now when there was no event; ``now`` is the snapshot's.
    ``sample_unit`` is what one of a sample's count stands for; None, as all values, where the host's page size is
    unknown; ``pages`` is the value of memory in pages. ``shift`` is the penalty with which orphans reach their
    limit, ``zone`` where memory stands among the three of tcp_mem; None where that is nowhere near, or not known.
    """

    name: GaugeName
    value: int | None
    now: int | None
    limit: int | None
    sample_unit: int | None
    shift: Literal[0, 1, 2] | None = None
    zone: Zone | None = None
    pages: int | None = None

    @property
    def is_high(self) -> bool:
        """Whether it is near enough to the limit to be the trouble."""
        return self.shift is not None or self.zone not in (None, *CALM)

    @property
    def noun(self) -> str:
        """What is counted, as the claims call it."""
        return "orphans" if self.name == "orphans" else "memory"

    @property
    def unit(self) -> str:
        """The unit of the values."""
        return "sockets" if self.name == "orphans" else "bytes"

    def words(self, value: int) -> str:
        """Return a value as people read it."""
        return count_text(value) if self.name == "orphans" else bytes_text(value)

    def of(self, sample: Sample) -> int | None:
        """Return the value that a sample has."""
        count = sample.orphan if self.name == "orphans" else sample.mem
        return None if count is None or self.sample_unit is None else count * self.sample_unit

    def over_time(self, samples: Iterable[Timed]) -> list[Reading]:
        """Return the readings of those samples that have one."""
        return [Reading(at, each.at, value) for at, each in samples if (value := self.of(each)) is not None]
