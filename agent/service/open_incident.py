"""The incident that is being fed, and what is not in it: its evidence, its clocks, its last word to people."""

import logging
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from agent.core import folding
from agent.core.facts import NEAR_SECONDS
from agent.core.model import Incident, Notice, Peak, Sample, Snapshot
from agent.core.sockets.holder_names import ORPHANS_WORTH_NAMING
from agent.store import Store, StoreError, keep_samples

if TYPE_CHECKING:
    from agent.core.readings import Gap

log = logging.getLogger("sockmem-agent")

FOLLOW_UPS = (timedelta(seconds=1), timedelta(seconds=5), timedelta(seconds=30))
COMMIT_SPACING = timedelta(seconds=1)
# Who holds the sockets is asked when the notice is on its way: it may take seconds, and people are told first.
ATTRIBUTION_DELAY = timedelta(milliseconds=250)
# Of an event that is older, the sockets of now say nothing; samples so near to it belong to its peak, as they do to its
# diagnosis.
NEAR = timedelta(seconds=NEAR_SECONDS)
# The samples that are kept with an incident begin this long before it.
KEPT_LEAD = timedelta(hours=1)


class Opened(NamedTuple):
    """An open incident; ``snapshot`` is the one that is judged.

    ``dirty``: events wait for their commit, which has to succeed. ``amended``: evidence or a warning does, and no event
    is lost where that fails. ``unsaved``: the snapshot with who holds the sockets could not be written yet.
    """

    incident: Incident
    snapshot: Snapshot
    snapshot_name: str
    arrived_at: datetime
    committed_at: datetime
    snapshot_at: datetime
    follow_ups: tuple[datetime, ...]
    attribute_at: datetime | None
    told: Notice | None
    dirty: bool
    amended: bool = False
    unsaved: bool = False

    def due(self) -> list[datetime]:
        """Tell when there is something to do."""
        if self.dirty or self.amended:
            return [*self.follow_ups[:1], self.committed_at + COMMIT_SPACING]
        return [*self.follow_ups[:1], *([self.attribute_at] if self.attribute_at else [])]

    def moved(self, by: timedelta, now: datetime) -> "Opened":
        """Follow a clock that was set ``by`` so much: what is waited for comes neither at once nor in an hour.

        What was noted after it had been set is moved, too, and must not land in the future.
        """
        return self._replace(
            arrived_at=min(now, self.arrived_at + by),
            committed_at=min(now, self.committed_at + by),
            snapshot_at=min(now, self.snapshot_at + by),
            attribute_at=min(now + ATTRIBUTION_DELAY, self.attribute_at + by) if self.attribute_at else None,
            follow_ups=tuple(min(now + FOLLOW_UPS[-1], at + by) for at in self.follow_ups),
        )


def begin(incident: Incident, name: str, snapshot: Snapshot, now: datetime) -> Opened:
    """Open an incident, whose snapshot to judge has this name."""
    return Opened(
        incident=incident,
        snapshot=snapshot,
        snapshot_name=name,
        arrived_at=now,
        committed_at=now - COMMIT_SPACING,
        snapshot_at=now,
        follow_ups=tuple(now + after for after in FOLLOW_UPS),
        attribute_at=None if _is_old(incident, now) else now + ATTRIBUTION_DELAY,
        told=None,
        dirty=True,
    )


def _is_old(incident: Incident, now: datetime) -> bool:
    return abs(now - incident.last_seen_at) > NEAR


def take_up(store: Store, incident: Incident, now: datetime) -> Opened:
    """Go on with an incident that was open when the process before us ended; StoreError without any snapshot."""
    unread: list[Gap] = []
    notices = store.notices(incident.id, unread)
    named = store.named_snapshots(incident.id, unread)
    for gap in unread:
        log.warning("%s", gap.why)
    if not named:
        raise StoreError(f"{store.path(incident.id)}: no snapshot can be read")
    name, snapshot = next(
        ((name, each) for name, each in reversed(named) if each.trigger in {"event", "pressure"}), named[-1]
    )
    return Opened(
        incident=incident,
        snapshot=snapshot,
        snapshot_name=name,
        arrived_at=now,
        committed_at=now - COMMIT_SPACING,
        snapshot_at=named[-1][1].taken_at,
        follow_ups=(),
        # The process before us may have ended before it could ask.
        attribute_at=None if snapshot.sockets or _is_old(incident, now) else now + ATTRIBUTION_DELAY,
        told=notices[-1][1] if notices else None,
        dirty=False,
    )


def has_missed_the_orphans(opened: Opened, later: Snapshot) -> bool:
    """Tell whether orphans are the cause and the dump saw less than half of those that there are again.

    The orphans of a storm come and go. Memory is held for longer, and whoever held it is not to be forgotten.
    """
    table = opened.snapshot.sockets
    orphan = later.sockstat.tcp.orphan if later.sockstat else None
    if opened.incident.cause != "orphans" or table is None or orphan is None:
        return False
    return orphan >= ORPHANS_WORTH_NAMING and 2 * table.orphans < orphan


def peak_around(incident: Incident, samples: Iterable[Sample], quiet: timedelta) -> Peak:
    """Raise the peak to the samples around the events; those of a catch-up's own moment say nothing of the past."""
    peak, end = incident.peak, incident.last_seen_at + max(quiet, NEAR)
    for sample in samples:
        if incident.opened_at - NEAR <= sample.at <= end:
            peak = folding.raise_peak(peak, sample)
    return peak


def keep_window(store: Store, incident: Incident, remembered: Iterable[Sample]) -> None:
    """Put the samples around an incident beside it: the history forgets them after two days."""
    start, end = incident.opened_at - KEPT_LEAD, incident.closed_at or incident.last_seen_at
    try:
        # Those on disk are whole; those in memory have the gauges of the snapshots, too.
        samples = {sample.at: sample for sample in store.history(start, end)}
        samples |= {sample.at: sample for sample in remembered if start <= sample.at <= end}
        keep_samples(store.path(incident.id), samples.values())
    except OSError as error:
        log.warning("the samples around %s are not kept: %s: %s", incident.id, error.filename, error.strerror)
