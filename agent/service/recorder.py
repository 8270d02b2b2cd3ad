"""From decided events to a committed incident: snapshot, diagnose, fold, store, in the one main thread.

The order on disk is what makes a crash harmless (ARCHITECTURE.md, "What is on disk, and in which order"): snapshots
and notices first, incident.json last, with the position behind its last event inside it. As long as an incident has
uncommitted events, nobody may save a position beyond them.
"""

import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path

import msgspec
from msgspec.structs import replace

from agent.core import folding
from agent.core.cursor import Cursor, Resume, merge
from agent.core.diagnosis.diagnose import diagnose
from agent.core.history.unit_growth import shares_of
from agent.core.kernel.detector import Decided
from agent.core.kernel.limits import sample_of
from agent.core.model import Diagnosis, Event, Incident, LogRecord, Notice, Pressure, Sample, Snapshot
from agent.core.settings import Claimed
from agent.probe import Names, take_sample, take_snapshot, take_sockets
from agent.service.open_incident import (
    ATTRIBUTION_DELAY,
    COMMIT_SPACING,
    Opened,
    begin,
    has_missed_the_orphans,
    keep_window,
    peak_around,
    take_up,
)
from agent.service.sampler import Sampler
from agent.store import Store, StoreError

# A backlog of many incidents is worked off in portions, since each costs several fsyncs and systemd waits for us.
PORTION = 50


log = logging.getLogger("sockmem-agent")

SNAPSHOT_SPACING = timedelta(seconds=60)
SNAPSHOTS_AT_MOST = 60
# By so much a clock was set; less than that is steered.
CLOCK_STEP = timedelta(seconds=1)
LOOK_SPACING = timedelta(seconds=1)
ATTRIBUTION_SECONDS = 3.0
DAMAGED = "closed at a restart: its files are damaged"


class Recorder:
    """Holds the one open incident; the samples around it are the sampler's."""

    def __init__(
        self,
        store: Store,
        *,
        quiet_seconds: int,
        channels: Sequence[str],
        now: Callable[[], datetime],
        told: Callable[[Notice], None],
        warns: bool = True,
        claimed: Claimed = "notify",
        proc_root: Path = Path("/proc"),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the newest commit of the store up; ``told`` is called with a notice that has been committed.

        ``warns``: whether the gauges may open an incident of their own. ``claimed``: whether lines that only a text log
        claims notify anybody.
        """
        self.quiet = timedelta(seconds=quiet_seconds)
        self.channels = tuple(channels)
        self.warns = warns
        self.claimed = claimed
        self._store = store
        self._now = now
        self._told = told
        self._proc_root = proc_root
        self.resume, incident = store.newest_commit()
        self._sampler = Sampler(store, now, proc_root)
        self._names = Names()
        self._monotonic = monotonic
        self._ticked_at, self._ticked_second = now(), monotonic()
        self._looked: Snapshot | None = None
        self._judged: tuple[tuple[Snapshot, tuple[Event, ...], Sample | None], Diagnosis] | None = None
        self.counted: Counter[str] = Counter()
        self.last = incident or store.newest()
        for other in store.open_besides(incident):
            self._conclude(other, now(), StoreError("a newer incident is open"))
        self._open = self._take_up(incident) if incident else None
        self.trouble: str | None = None

    @property
    def sample(self) -> Sample | None:
        """The newest gauges."""
        return self._sampler.newest

    @property
    def dirty(self) -> bool:
        """Tell whether events wait for their commit: no position may be saved meanwhile."""
        return self._open is not None and self._open.dirty

    # --- the main thread calls these --------------------------------------------------------------------------------

    def look(self) -> Snapshot:
        """Take the snapshot of an event, before any thinking; in a storm one a second is enough."""
        self._sampler.survey.give_way()
        now = self._now()
        self._follow_the_clock(now)
        if not (self._open and self._looked and timedelta(0) <= now - self._looked.taken_at < LOOK_SPACING):
            self._looked = take_snapshot(self._proc_root, now, "event")
        return self._looked

    def handle(self, decided: Sequence[Decided], snapshot: Snapshot) -> None:
        """Fold events that were read in one batch; ``snapshot`` was taken when the first of them was seen."""
        self._sampler.remember(sample_of(snapshot))
        leading: list[Decided] = []
        for record, event in folding.together(decided, self.quiet):
            log.debug("%s at %s, %d times", event.kind, event.source, event.count)
            self.counted[event.kind] += event.count
            at = (event.at or snapshot.taken_at).astimezone(timezone.utc)
            if self._open and folding.is_another(self._open.incident, at, self.quiet):
                self._close(snapshot.taken_at)
            if self._open is None:
                if event.kind == "suppressed":
                    leading.append((record, event))
                    continue
                self._begin(record, event, at, snapshot)
                for _, held in leading:
                    self._fold(record, held, at, snapshot)
                leading.clear()
            else:
                self._fold(record, event, at, snapshot)
        self._amend_last(leading)
        if self._open and self._open.dirty and snapshot.taken_at - self._open.committed_at >= COMMIT_SPACING:
            self._commit(snapshot.taken_at)

    def tick(self) -> None:
        """Do what is due by the clock: samples, follow-ups, commits, the end of an incident."""
        now = self._now()
        self._follow_the_clock(now)
        if self._sampler.tick(now) and self._sampler.pressure and self.warns and not self._is_event():
            self._feel(self._sampler.pressure, now)
        if not self.dirty and not (self._open and self._open.attribute_at):
            self._sampler.survey.begin(now)
        if self._open is None:
            return
        if self._open.attribute_at and now >= self._open.attribute_at and not self._open.dirty:
            self._attribute()
        if self._open.follow_ups and now >= self._open.follow_ups[0]:
            self._follow_up(now)
        if now - self._open.committed_at >= COMMIT_SPACING:
            self._commit_what_waits(now)
        if now - self._open.arrived_at >= self.quiet:
            # A warning lasts as long as the gauges are high, also where the quiet period is shorter than a sample's.
            if self.warns and self._sampler.pressure and not self._is_event():
                self._feel(self._sampler.pressure, now)
            else:
                self._close(now)

    def _follow_the_clock(self, now: datetime) -> None:
        """Notice that somebody set the clock: that neither ends an incident nor keeps one open."""
        second = self._monotonic()
        set_by = now - self._ticked_at - timedelta(seconds=second - self._ticked_second)
        if now < self._ticked_at:
            self._sampler.back_to(now)
        if self._open and abs(set_by) >= CLOCK_STEP:
            self._open = self._open.moved(set_by, now)
        self._ticked_at, self._ticked_second = now, second

    def next_due(self) -> float:
        """Tell in how many seconds ``tick`` has something to do."""
        due: list[datetime] = [self._sampler.due, *(self._open.due() if self._open else ())]
        return max(0.0, (min(due) - self._now()).total_seconds())

    def flush(self) -> None:
        """Commit what waits: the service stops."""
        if self._open:
            self._commit_what_waits(self._now())

    def save_position(self, cursor: Cursor) -> None:
        """Write cursor.json; only right while nothing is ``dirty``."""
        resume = Resume(generation=self.resume.generation + 1, cursor=cursor)
        # Its number is used up even where the write fails: after an fsync that failed the file may be there, and an
        # incident of the same number would be held against it.
        self.resume = replace(self.resume, generation=resume.generation)
        self._store.save_cursor(resume)
        self.resume = resume

    # --- inside -----------------------------------------------------------------------------------------------------

    def _take_up(self, incident: Incident) -> Opened | None:
        """Go on with the incident that was open when the process before us ended."""
        now = self._now()
        try:
            opened = take_up(self._store, incident, now)
            # The next commit would do the same, and a surprise there would come back at every start.
            msgspec.json.encode(self._judge(opened.snapshot, folding.events_to_diagnose(incident)))
        except Exception as error:  # noqa: BLE001 - whatever damage comes up, the host is watched
            self._conclude(incident, now, error)
            return None
        return opened

    def _conclude(self, incident: Incident, now: datetime, why: Exception) -> None:
        """Close as it stands an incident that cannot be gone on with, and say so where its opening was to be said."""
        log.error("incident %s is closed as it stands: %s", incident.id, why, exc_info=not isinstance(why, StoreError))
        incident = folding.close(incident, now, self.quiet)
        if incident.notices:
            told = folding.notice(incident, ("sockmem.incident.resolved", DAMAGED), self.channels, now)
            name = self._store.write_notice(incident.id, len(incident.notices) + 1, told)
            incident = replace(incident, notices=(*incident.notices, name))
        self.resume = Resume(generation=self.resume.generation + 1, cursor=self.resume.cursor)
        self.last = folding.commit(incident, self.resume.generation, self.resume.cursor)
        self._store.commit(self.last)

    def _is_event(self) -> bool:
        """Tell whether the open incident goes by its events, whatever the gauges say; lines that are not told do not.

        Else a forged line every few minutes would keep the gauges from warning.
        """
        incident = self._open.incident if self._open else None
        return incident is not None and incident.class_ == "event" and not folding.is_hearsay(incident, self.claimed)

    def _feel(self, pressure: Pressure, now: datetime) -> None:
        """Open a warning because of the gauges, or keep the open one from closing while they are high."""
        if self._open is None:
            snapshot = take_snapshot(self._proc_root, now, "pressure")
            judged = self._judge(snapshot, ())
            self._start(lambda attempt: folding.open_pressure(pressure, now, snapshot, judged, attempt), snapshot)
            self._commit(now)
            return
        incident = folding.note_pressure(self._open.incident, pressure, now)
        worse = incident.pressure != self._open.incident.pressure
        self._open = self._open._replace(incident=incident, arrived_at=now, amended=self._open.amended or worse)

    def _begin(self, record: LogRecord, event: Event, at: datetime, snapshot: Snapshot) -> None:
        judged = self._judge(snapshot, (event,))
        self._start(lambda attempt: folding.open_incident(event, at, snapshot, judged, attempt), snapshot)
        self._cover(record)
        if self._open and folding.is_hearsay(self._open.incident, self.claimed):
            log.info(
                "incident %s: recorded without notification: only a text log claims it ([incident] claimed)",
                self._open.incident.id,
            )

    def _start(self, make: Callable[[int], Incident], snapshot: Snapshot) -> None:
        """Open an incident under the first id that is free, with its first snapshot on disk."""
        attempt = 0
        while not self._store.new_directory((incident := make(attempt)).id):
            attempt += 1
        # What a crash left here was taken nearer to the event than ours.
        left = self._store.left_behind(incident.id)
        name = self._store.write_snapshot(incident.id, 1, snapshot)
        incident = replace(incident, snapshots=(*(n for n, _ in left), name))
        self._open = begin(incident, *(left[0] if left else (name, snapshot)), now=snapshot.taken_at)

    def _fold(self, record: LogRecord, event: Event, at: datetime, snapshot: Snapshot) -> None:
        assert self._open is not None  # noqa: S101 - the callers have looked
        known = event.kind in self._open.incident.events
        incident = folding.fold(self._open.incident, event, at)
        spaced = snapshot.taken_at - self._open.snapshot_at >= SNAPSHOT_SPACING
        if (spaced or not known) and event.kind != "suppressed":
            incident = self._keep(incident, snapshot)
            self._open = self._open._replace(
                snapshot=snapshot,
                snapshot_name=incident.snapshots[-1],
                snapshot_at=snapshot.taken_at,
                attribute_at=snapshot.taken_at + ATTRIBUTION_DELAY,
                unsaved=False,
            )
        self._open = self._open._replace(incident=incident, arrived_at=self._now(), dirty=True)
        self._cover(record)

    def _amend_last(self, held: Sequence[Decided]) -> None:
        """Count suppressed messages whose incident is closed already: they open none of their own."""
        if not held or self.last is None:
            return
        incident = self.last
        for record, event in held:
            incident = folding.fold(incident, event, incident.last_seen_at)
            self._cover(record)
        self.last = folding.commit(incident, self.resume.generation, self.resume.cursor)
        self._store.commit(self.last)

    def _cover(self, record: LogRecord) -> None:
        """Note that everything up to this record is counted."""
        cursor = merge(self.resume.cursor, record.cursor) if record.cursor else self.resume.cursor
        self.resume = Resume(generation=self.resume.generation + 1, cursor=cursor)

    def _attribute(self) -> None:
        """Add to the newest snapshot who holds the sockets; the next commit judges it."""
        assert self._open is not None  # noqa: S101 - the caller has looked
        self._sampler.survey.give_way()
        # The orphans may be back at their limit by now: since 5.16 the kernel kills by a count of 100 ms ago, too far.
        self._sampler.remember(take_sample(self._proc_root, self._now()))
        table = take_sockets(self._proc_root, ATTRIBUTION_SECONDS, names=self._names)
        seen = self._open.snapshot.sockets
        if seen and (self._open.incident.cause != "orphans" or table.orphans <= seen.orphans):
            self._open = self._open._replace(attribute_at=None)
            return
        snapshot = replace(self._open.snapshot, sockets=table)
        self._open = self._open._replace(snapshot=snapshot, attribute_at=None, amended=True, unsaved=True)
        with self._evidence():
            self._save_snapshot()
        self._sampler.name_units(shares_of(table))

    def _follow_up(self, now: datetime) -> None:
        assert self._open is not None  # noqa: S101 - the caller has looked
        snapshot = take_snapshot(self._proc_root, now, "follow_up")
        self._sampler.remember(sample_of(snapshot))
        self._open = self._open._replace(follow_ups=tuple(at for at in self._open.follow_ups if at > now))
        with self._evidence():
            self._open = self._open._replace(incident=self._keep(self._open.incident, snapshot), amended=True)
        if has_missed_the_orphans(self._open, snapshot):
            self._open = self._open._replace(attribute_at=now)

    def _keep(self, incident: Incident, snapshot: Snapshot) -> Incident:
        if len(incident.snapshots) >= SNAPSHOTS_AT_MOST:
            # The newest gives way: evidence stays bounded, and what is judged is never older than the events.
            self._store.amend_snapshot(incident.id, incident.snapshots[-1], snapshot)
            return incident
        name = self._store.write_snapshot(incident.id, len(incident.snapshots) + 1, snapshot)
        return replace(incident, snapshots=(*incident.snapshots, name))

    def _judge(self, snapshot: Snapshot, events: tuple[Event, ...]) -> Diagnosis:
        """Diagnose, once for the opening of an incident and its first commit."""
        asked = (snapshot, events, self._sampler.newest)
        if self._judged is None or self._judged[0] != asked:
            self._judged = asked, diagnose(snapshot, events, self._sampler.history)
        return self._judged[1]

    @contextlib.contextmanager
    def _evidence(self) -> Iterator[None]:
        """Go on where evidence cannot be written: no event is lost. It is told once until it can be written again."""
        try:
            yield
        except OSError as error:
            if self.trouble is None:
                log.error("evidence cannot be written; still watching: %s: %s", error.filename, error.strerror)  # noqa: TRY400 - the text says it
            self.trouble = "evidence cannot be written"
        else:
            self.trouble = None

    def _save_snapshot(self) -> None:
        assert self._open is not None  # noqa: S101 - the callers have looked
        if self._open.unsaved:
            self._store.amend_snapshot(self._open.incident.id, self._open.snapshot_name, self._open.snapshot)
            self._open = self._open._replace(unsaved=False)

    def _commit_what_waits(self, now: datetime) -> None:
        """Commit events, or raise: nothing may be announced that is not stored. What is no event is tried again."""
        assert self._open is not None  # noqa: S101 - the callers have looked
        if self._open.dirty:
            self._commit(now)
        elif self._open.amended:
            self._open = self._open._replace(committed_at=now)
            with self._evidence():
                self._commit(now)

    def _commit(self, now: datetime) -> None:
        """Judge what is known by now, and commit: evidence and notice first, incident last."""
        assert self._open is not None  # noqa: S101 - the callers have looked
        self._save_snapshot()
        incident = self._open.incident
        judged = self._judge(self._open.snapshot, folding.events_to_diagnose(incident))
        incident = folding.with_diagnosis(
            replace(incident, peak=peak_around(incident, self._sampler.history, self.quiet)), judged
        )
        told = self._open.told
        reason = folding.notify_reason(incident, told, now, self.claimed)
        if reason:
            told = folding.notice(incident, reason, self.channels, now)
            name = self._store.write_notice(incident.id, len(incident.notices) + 1, told)
            incident = replace(incident, notices=(*incident.notices, name))
        incident = folding.commit(incident, self.resume.generation, self.resume.cursor)
        self._store.commit(incident)
        self.last = incident
        self._open = self._open._replace(incident=incident, committed_at=now, told=told, dirty=False, amended=False)
        if reason and told:
            self._told(told)

    def _close(self, now: datetime) -> None:
        assert self._open is not None  # noqa: S101 - the callers have looked
        if self._open.told is None:
            self._commit(now)  # Opened and over in one batch: both are told.
        closed = folding.close(self._open.incident, now, self.quiet)
        # A closing is a commit like any other and needs a generation of its own.
        self.resume = Resume(generation=self.resume.generation + 1, cursor=self.resume.cursor)
        self._open = self._open._replace(incident=closed)
        keep_window(self._store, closed, self._sampler.history)
        self._commit(now)
        self._open = None


def portions(decided: list[Decided]) -> Iterator[list[Decided]]:
    """Cut a batch into portions; a suppressed line stays with the event behind it."""
    start = 0
    while start < len(decided):
        end = start + PORTION
        while end < len(decided) and decided[end - 1][1].kind == "suppressed":
            end += 1
        yield decided[start:end]
        start = end
