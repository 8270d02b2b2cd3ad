"""Which incident an event belongs to: from decided events to committed incidents, in the one main thread.

As long as an incident has uncommitted events, the position is dirty, and nobody may save one beyond them.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path

from agent.core import folding
from agent.core.history.unit_growth import shares_of
from agent.core.kernel.detector import Decided
from agent.core.kernel.limits import sample_of
from agent.core.model import Diagnosis, Event, Incident, Notice, NoticeType, Sample, Snapshot
from agent.core.settings import IncidentSettings
from agent.probe import Names, take_sample, take_snapshot, take_sockets
from agent.service.open_incident import COMMIT_SPACING, EVIDENCE, OpenIncident, write_notice
from agent.service.position import Position
from agent.service.sampler import Sampler
from agent.service.troubles import Troubles
from agent.store import Store, StoreError

log = logging.getLogger("sockmem-agent")

# By so much a clock was set; less than that is steered.
CLOCK_STEP = timedelta(seconds=1)
EVENT_SNAPSHOT_SPACING = timedelta(seconds=1)
ATTRIBUTION_SECONDS = 3.0
DAMAGED: tuple[NoticeType, str] = ("sockmem.incident.resolved", "closed at a restart: its files are damaged")


class Recorder:
    """Holds the one open incident and the position; the samples around it are the sampler's."""

    def __init__(
        self,
        store: Store,
        *,
        settings: IncidentSettings,
        channels: Sequence[str],
        now: Callable[[], datetime],
        on_notice: Callable[[Notice], None],
        troubles: Troubles,
        proc_root: Path = Path("/proc"),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Resume from the newest commit of the store; ``on_notice`` is called with a notice that has been committed."""
        self.settings = settings
        self.channels = tuple(channels)
        self.counted: Counter[str] = Counter()
        self._store = store
        self._now = now
        self._on_notice = on_notice
        self._troubles = troubles
        self._proc_root = proc_root
        self._sampler = Sampler(store, now, proc_root, troubles)
        self._names = Names()
        self._monotonic = monotonic
        self._ticked_at, self._ticked_second = now(), monotonic()
        self._event_snapshot: Snapshot | None = None
        resume, still_open = store.newest_commit()
        self.position = Position(store, resume, now())
        self.last = still_open[0] if still_open else store.newest()
        for other in still_open[1:]:
            self._conclude(other, StoreError("a newer incident is open"))
        self._open = self._resume(still_open[0]) if still_open else None

    @property
    def sample(self) -> Sample | None:
        """The newest gauges."""
        return self._sampler.newest

    # --- the main thread calls these --------------------------------------------------------------------------------

    def take_event_snapshot(self) -> Snapshot:
        """Take the snapshot of an event, before any thinking; in a storm one a second is enough."""
        self._sampler.survey.cancel()
        now = self._now()
        self._follow_the_clock(now)
        last = self._event_snapshot
        if not (self._open and last and timedelta(0) <= now - last.taken_at < EVENT_SNAPSHOT_SPACING):
            last = self._event_snapshot = take_snapshot(self._proc_root, now, "event", counters=self._sampler.counters)
        return last

    def handle(
        self, decided: Sequence[Decided], snapshot: Snapshot, may_continue: Callable[[], bool] = lambda: True
    ) -> bool:
        """Fold the events of one batch; ``snapshot`` was taken when the first of them was seen.

        ``may_continue`` is asked behind every incident that opens, since each costs several fsyncs; after its no the
        position is behind the last event that was folded, and False is returned.
        """
        self._sampler.remember(sample_of(snapshot))
        leading: list[Decided] = []
        for record, event in folding.together(decided, self.settings.quiet):
            log.debug("%s at %s, %d times", event.kind, event.source, event.count)
            self.counted[event.kind] += event.count
            at = (event.at or snapshot.taken_at).astimezone(timezone.utc)
            if self._open and folding.is_another(self._open.incident, at, self.settings.quiet):
                self._close(self._open, snapshot.taken_at)
            if self._open:
                self._open.fold((record, event), at, snapshot, self._now())
            elif event.kind == "suppressed":
                leading.append((record, event))
            else:
                opened = self._open_incident(partial(folding.open_incident, event, at, snapshot), snapshot, (event,))
                for held in leading:
                    opened.fold(held, at, snapshot, self._now())
                leading.clear()
                self.position.cover(record.cursor)  # Last: those before it in the log have older positions.
                if not may_continue():
                    return False
        self._amend_last(leading)
        if self._open and self.position.dirty and snapshot.taken_at - self._open.committed_at >= COMMIT_SPACING:
            self._commit(self._open, snapshot.taken_at)
        return True

    def tick(self) -> None:
        """Do what is due by the clock: samples, follow-ups, commits, the end of an incident."""
        now = self._now()
        self._follow_the_clock(now)
        if self._sampler.tick(now):
            self._note_pressure(now)
        opened = self._open
        if not self.position.dirty and not (opened and opened.attribute_at):
            self._sampler.survey.start(now)
        if opened is None:
            return
        if opened.attribute_at and now >= opened.attribute_at and not self.position.dirty:
            self._attribute(opened)
        if opened.follow_ups and now >= opened.follow_ups[0]:
            self._follow_up(opened, now)
        if now - opened.committed_at >= COMMIT_SPACING:
            self._commit_what_waits(opened, now)
        # A warning lasts as long as the gauges are high, also where the quiet period is shorter than a sample's.
        if now - opened.arrived_at >= self.settings.quiet and not self._note_pressure(now):
            self._close(opened, now)

    def next_due(self) -> float:
        """Return in how many seconds ``tick`` has something to do."""
        due: list[datetime] = [self._sampler.due, *(self._open.due() if self._open else ())]
        return max(0.0, (min(due) - self._now()).total_seconds())

    def flush(self) -> None:
        """Commit what waits: the service stops."""
        if self._open:
            self._commit_what_waits(self._open, self._now())

    # --- one incident after the other -------------------------------------------------------------------------------

    def _open_incident(
        self, make: Callable[[Diagnosis, int], Incident], snapshot: Snapshot, events: tuple[Event, ...]
    ) -> OpenIncident:
        self._open = opened = OpenIncident.open(
            make,
            snapshot,
            events,
            self._sampler.history,
            store=self._store,
            position=self.position,
            troubles=self._troubles,
        )
        if folding.is_hearsay(opened.incident, self.settings.claimed):
            log.info(
                "incident %s: recorded without notification: only a text log claims it ([incident] claimed)",
                opened.incident.id,
            )
        return opened

    def _resume(self, incident: Incident) -> OpenIncident | None:
        """Go on with the incident that was open when the process before us ended."""
        try:
            return OpenIncident.resume(
                incident,
                self._sampler.history,
                store=self._store,
                position=self.position,
                troubles=self._troubles,
                now=self._now(),
            )
        except Exception as error:  # noqa: BLE001 - whatever damage comes up, the host is watched
            self._conclude(incident, error)
            return None

    def _conclude(self, incident: Incident, why: Exception) -> None:
        """Close as it stands an incident that cannot be resumed, and say so where its opening was to be said."""
        log.error("incident %s is closed as it stands: %s", incident.id, why, exc_info=not isinstance(why, StoreError))
        now = self._now()
        incident = folding.close(incident, now, self.settings.quiet)
        if incident.notices:
            incident, _ = write_notice(self._store, incident, DAMAGED, self.channels, now)
        self.position.close()
        self.last = self.position.commit(incident)

    def _amend_last(self, leading: Sequence[Decided]) -> None:
        """Count suppressed messages whose incident is closed already: they open none of their own."""
        if not leading or self.last is None:
            return
        incident = self.last
        for record, event in leading:
            incident = folding.fold(incident, event, incident.last_seen_at)
            self.position.cover(record.cursor)
        self.last = self.position.commit(incident)

    def _commit_what_waits(self, opened: OpenIncident, now: datetime) -> None:
        """Commit events, or raise: nothing may be announced that is not stored. What is no event is tried again."""
        if self.position.dirty:
            self._commit(opened, now)
        elif opened.amended:
            opened.committed_at = now
            with self._troubles.survived(EVIDENCE):
                self._commit(opened, now)

    def _commit(self, opened: OpenIncident, now: datetime) -> None:
        notice = opened.commit(now, self._sampler.history, self.settings, self.channels)
        self.last = opened.incident
        if notice:
            self._on_notice(notice)

    def _close(self, opened: OpenIncident, now: datetime) -> None:
        if opened.last_notice is None:
            self._commit(opened, now)  # Opened and over in one batch: both are announced.
        opened.close(now, self._sampler.history, self.settings.quiet)
        self._commit(opened, now)
        self._open = None

    # --- what the clock asks for ------------------------------------------------------------------------------------

    def _note_pressure(self, now: datetime) -> bool:
        """Open a warning because of the gauges, or keep the open one from closing while they are high.

        Not while an incident goes by its events. Lines that notify nobody do not count as such: else a forged line
        every few minutes would keep the gauges from warning.
        """
        pressure = self._sampler.pressure if self.settings.pressure else None
        opened = self._open
        if pressure is None or (
            opened
            and opened.incident.class_ == "event"
            and not folding.is_hearsay(opened.incident, self.settings.claimed)
        ):
            return False
        if opened:
            opened.note_pressure(pressure, now)
        else:
            snapshot = take_snapshot(self._proc_root, now, "pressure", counters=self._sampler.counters)
            make = partial(folding.open_pressure, pressure, now, snapshot)
            self._commit(self._open_incident(make, snapshot, ()), now)
        return True

    def _attribute(self, opened: OpenIncident) -> None:
        """Find out who holds the sockets; the next commit diagnoses it."""
        self._sampler.survey.cancel()
        # The orphans may be back at their limit by now: since 5.16 the kernel kills by a count of 100 ms ago, too far.
        self._sampler.remember(take_sample(self._proc_root, self._now(), self._sampler.counters))
        table = take_sockets(self._proc_root, ATTRIBUTION_SECONDS, names=self._names)
        if opened.attribute(table, self._now()):
            self._sampler.name_units(shares_of(table))

    def _follow_up(self, opened: OpenIncident, now: datetime) -> None:
        snapshot = take_snapshot(self._proc_root, now, "follow_up", counters=self._sampler.counters)
        self._sampler.remember(sample_of(snapshot))
        opened.follow_up(snapshot)

    def _follow_the_clock(self, now: datetime) -> None:
        """Notice that somebody set the clock: that neither ends an incident nor keeps one open."""
        second = self._monotonic()
        set_by = now - self._ticked_at - timedelta(seconds=second - self._ticked_second)
        if now < self._ticked_at:
            self._sampler.clock_set_back(now)
        if self._open and abs(set_by) >= CLOCK_STEP:
            self._open.move_clock(set_by, now)
        self._ticked_at, self._ticked_second = now, second
