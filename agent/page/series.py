"""The two gauges over time: readings combined, compared with their limits, thinned, and drawn as characters.

Orphans are sockets, memory is bytes: sockstat's ``mem`` counts in units that depend on the kernel, tcp_mem in pages of
the host, and only bytes can be compared (core.kernel.limits, sk_prot_mem_limits in net/core/sock.c).
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Literal, NamedTuple, TypeVar

from agent.core.format import bytes_text, count_text
from agent.core.kernel.limits import sample_of
from agent.core.model import Incident, Sample, Snapshot

T = TypeVar("T")

LEAD = timedelta(hours=1)
TAIL = timedelta(minutes=10)
# A sample is due every ten seconds; a gap longer than this is drawn as a gap.
_UNSEEN = timedelta(seconds=95)
BLOCKS = "▁▂▃▄▅▆▇█"
ASCII = ".:-=+*%#"

LevelName = Literal["limit", "half", "quarter", "pressure", "low"]


class Point(NamedTuple):
    """One reading: sockets or bytes."""

    at: datetime
    value: int


class Level(NamedTuple):
    """A threshold of a gauge, in its unit."""

    name: LevelName
    value: int


class Track(NamedTuple):
    """One gauge, a field of sockstat, over time: unbroken runs of readings, oldest first, and levels, highest first."""

    field: Literal["orphan", "mem"]
    runs: tuple[tuple[Point, ...], ...]
    levels: tuple[Level, ...]

    def text(self, value: int) -> str:
        """Write a value in the gauge's unit."""
        return bytes_text(value) if self.field == "mem" else count_text(value)

    @property
    def points(self) -> tuple[Point, ...]:
        """All readings."""
        return tuple(point for run in self.runs for point in run)

    @property
    def peak(self) -> Point | None:
        """The first of the highest readings."""
        return max(self.points, key=lambda point: point.value, default=None)

    @property
    def limit(self) -> int | None:
        """The level at which the kernel acts."""
        return next((level.value for level in self.levels if level.name == "limit"), None)


class Tracks(NamedTuple):
    """Both gauges, and the bytes of one unit of ``mem``; None, without memory, if unknown."""

    orphans: Track
    memory: Track
    mem_unit_bytes: int | None


def window(incident: Incident) -> tuple[datetime, datetime]:
    """Return the time span shown: an hour before to ten minutes after."""
    return incident.opened_at - LEAD, (incident.closed_at or incident.last_seen_at) + TAIL


def build_tracks(incident: Incident, snapshots: Sequence[Snapshot], samples: Iterable[Sample]) -> Tracks:
    """Combine samples and snapshots of the window; a reboot or a gap in readings breaks the line."""
    readings = readings_of(incident, snapshots, samples)
    mechanism = incident.diagnosis.mechanism
    page, unit = mechanism.page_size_bytes, mechanism.unit_bytes
    orphans = [None if each.orphan is None else Point(each.at, each.orphan) for each in readings]
    memory = [None if each.mem is None or unit is None else Point(each.at, each.mem * unit) for each in readings]
    boots = [each.boot_id for each in readings]
    return Tracks(
        Track("orphan", _runs(orphans, boots), _orphan_levels(incident, readings)),
        Track("mem", _runs(memory, boots), _memory_levels(incident, readings, page)),
        unit,
    )


def readings_of(incident: Incident, snapshots: Iterable[Snapshot], samples: Iterable[Sample]) -> list[Sample]:
    """List the readings of the window, oldest first, one for each time."""
    start, end = window(incident)
    both = [*samples, *(sample_of(snapshot) for snapshot in snapshots)]
    by_time = {each.at: each for each in both if each.at.tzinfo is not None and start <= each.at <= end}
    return [by_time[at] for at in sorted(by_time)]


def count_up(readings: Sequence[Sample], counter: str) -> int | None:
    """Return how far a counter rose over the readings, across falls and reboots; None if it was never read."""
    pairs = [
        (before.counters[counter], after.counters[counter])
        for before, after in pairwise(readings)
        if counter in before.counters and counter in after.counters and before.boot_id == after.boot_id
    ]
    return sum(max(0, after - before) for before, after in pairs) if pairs else None


def thin(points: Sequence[Point], most: int) -> tuple[Point, ...]:
    """Keep at most ``most`` (4 or more) points: the ends, and the highest and lowest of each stretch of time."""
    if len(points) <= most:
        return tuple(points)
    start, span = points[0].at, (points[-1].at - points[0].at) or timedelta(seconds=1)
    number = most // 2 - 1
    stretches: dict[int, list[Point]] = {}
    for point in points[1:-1]:
        stretches.setdefault(min(number - 1, int((point.at - start) / span * number)), []).append(point)
    kept = {points[0], points[-1]}
    for stretch in stretches.values():
        kept |= {max(stretch, key=lambda p: p.value), min(stretch, key=lambda p: p.value)}
    return tuple(sorted(kept))


def sparkline(track: Track, start: datetime, end: datetime, columns: int, *, ascii_only: bool = False) -> str:
    """Draw the highest reading of each column as a block; a full one is the limit, a blank one is no reading.

    Between two readings of a run the first one stands until the second.
    """
    height = max(track.limit or 0, track.peak.value if track.peak and not track.limit else 0, 1)
    blocks, span = ASCII if ascii_only else BLOCKS, (end - start) or timedelta(seconds=1)
    highest: dict[int, int] = {}
    for run in track.runs:
        places = [min(columns - 1, int((at - start) / span * columns)) for at, _ in run]
        for place, (_, value), following in zip(places, run, [*places[1:], places[-1]], strict=True):
            highest[place] = max(value, highest.get(place, value))
            highest |= dict.fromkeys(range(place + 1, following), value)
    return "".join(_block(highest.get(column), height, blocks) for column in range(columns))


def _block(value: int | None, height: int, blocks: str) -> str:
    if value is None:
        return " "
    return blocks[min(max(value, 0) * len(blocks) // height, len(blocks) - 1)]


def _runs(points: Sequence[Point | None], boots: Sequence[str | None]) -> tuple[tuple[Point, ...], ...]:
    runs: list[list[Point]] = []
    last_boot: str | None = None
    for point, boot in zip(points, boots, strict=True):
        if point is None:
            continue
        rebooted = boot is not None and last_boot is not None and boot != last_boot
        if not runs or rebooted or point.at - runs[-1][-1].at > _UNSEEN:
            runs.append([])
        runs[-1].append(point)
        last_boot = boot or last_boot
    return tuple(tuple(run) for run in runs)


def _orphan_levels(incident: Incident, readings: Sequence[Sample]) -> tuple[Level, ...]:
    limit = _nearest(incident, [(each.at, each.tcp_max_orphans) for each in readings])
    limit = incident.diagnosis.mechanism.tcp_max_orphans if limit is None else limit
    if limit is None or limit <= 0:
        return ()
    return (Level("limit", limit), Level("half", limit >> 1), Level("quarter", limit >> 2))


def _memory_levels(incident: Incident, readings: Sequence[Sample], page: int | None) -> tuple[Level, ...]:
    limits = _nearest(incident, [(each.at, each.tcp_mem) for each in readings])
    limits = limits or incident.diagnosis.mechanism.tcp_mem_pages
    if limits is None or page is None:
        return ()
    low, pressure, high = (pages * page for pages in limits)
    return (Level("limit", high), Level("pressure", pressure), Level("low", low))


def _nearest(incident: Incident, known: Iterable[tuple[datetime, T | None]]) -> T | None:
    """Return the value nearest to the opening of the incident: limits may change before and after."""
    found = [(abs(at - incident.opened_at), value) for at, value in known if value is not None]
    return min(found, key=lambda pair: pair[0])[1] if found else None
