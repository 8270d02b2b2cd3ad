"""Which incident an event belongs to: from decided events to committed incidents, in the one main thread.

As long as an incident has uncommitted events, the position is dirty, and nobody may save one beyond them.
"""

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone
from functools import cached_property, partial
from pathlib import Path

from msgspec.structs import replace

from agent.core import folding
from agent.core.budget import HOUR_SECONDS, OTHER_HOSTS_AN_HOUR, THE_REST
from agent.core.cursor import Cursor
from agent.core.facts import unmeasured
from agent.core.history.unit_growth import shares_of
from agent.core.hosts import is_of_boot, is_same, other_host
from agent.core.kernel.detector import Decided
from agent.core.kernel.limits import sample_of
from agent.core.model import Diagnosis, Event, Incident, Notice, NoticeType, Sample, Snapshot
from agent.core.settings import IncidentSettings
from agent.core.witness import Account
from agent.probe import Names, read_boot_id, take_sample, take_snapshot, take_sockets
from agent.probe.witness import SERVICE, Instances, Reader
from agent.service.earlier import Earlier
from agent.service.metrics import Gauges
from agent.service.open_incident import COMMIT_SPACING, EVIDENCE, OpenIncident, write_notice, write_summary
from agent.service.position import Position
from agent.service.sampler import Sampler
from agent.service.survey import Survey
from agent.service.troubles import Troubles
from agent.service.warm_up import warm_up
from agent.service.witness import Traced, Watch
from agent.store import Store, StoreError

log = logging.getLogger("sockmem-agent")

# By so much a clock was set; less than that is steered.
CLOCK_STEP = timedelta(seconds=1)
# A log server sees many hosts, and a forged line may name any: beyond these the one that was quiet longest is closed.
OTHER_HOSTS_AT_MOST = 8
EVENT_SNAPSHOT_SPACING = timedelta(seconds=1)
ATTRIBUTION_SECONDS = 3.0
UNREHEARSED = "what an event needs failed without one"
# A kill's line takes as long to come through the log: people get one message, with the line.
LINE_PATIENCE = timedelta(seconds=2)
DAMAGED: tuple[NoticeType, str] = ("sockmem.incident.resolved", "closed at a restart: its files are damaged")


class Recorder:
    """Holds the open incidents, one a host, and the position; the samples around them are the sampler's.

    Other hosts' lines stand in the log of a log server; their incidents never mix with this host's own.
    """

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
        trace: Instances = SERVICE,
        monotonic: Callable[[], float] = time.monotonic,
        make_survey: Callable[[Path, datetime], Survey] = Survey,
    ) -> None:
        """Resume from the newest commit of the store; ``on_notice`` is called with a notice that has been committed."""
        self.settings = settings
        self.channels = tuple(channels)
        self.counted: Counter[str] = Counter()
        self.opened: Counter[tuple[str, str]] = Counter()
        self._store = store
        self._now, self._monotonic = now, monotonic
        self._on_notice = on_notice
        self._troubles = troubles
        self._proc_root = proc_root
        self._sampler = Sampler(store, now, proc_root, troubles, make_survey)
        self._names = Names()
        self._earlier = Earlier(store, troubles)
        self._watch = Watch(proc_root, Reader(trace))
        self._ticked_at, self._ticked_second = now(), monotonic()
        self._event_snapshot: Snapshot | None = None
        # Whether the batch that is being read has a snapshot for a line of this host.
        self._is_seen = False
        resume, still_open, holder = store.newest_commit()
        self.position = Position(store, resume, now())
        self._last = still_open[0] if still_open else store.newest()
        # Which incident was committed, until the link ``last`` is looked at.
        self._to_point_at: str | None = None
        self._open: list[OpenIncident] = []
        self._others_opened = deque[float](maxlen=OTHER_HOSTS_AN_HOUR)
        self._resume_all(still_open, holder)

    @property
    def last(self) -> Incident | None:
        """The incident that is open, this host's own first; else the newest."""
        own = self._find(None)
        return own.incident if own else self._open[-1].incident if self._open else self._last

    @property
    def still_open(self) -> tuple[Incident, ...]:
        """The open incidents, this host's own first."""
        return tuple(opened.incident for opened in self._open)

    def seen_last(self) -> list[Incident]:
        """Return what is open and the few others that were committed last, the newest events last."""
        known = {each.id: each for each in (*self._earlier.seen_last(), *self.still_open)}
        return sorted(known.values(), key=lambda each: each.last_seen_at)

    @property
    def gauges(self) -> Gauges:
        """The newest sample, and what it counts in."""
        page, pages = self._sampler.page_bytes, self._sampler.pages_per_unit
        return Gauges(self._sampler.newest, round(page * pages) if page and pages else None, page)

    # --- the main thread calls these --------------------------------------------------------------------------------

    @cached_property
    def _boot_id(self) -> str | None:
        return read_boot_id(self._proc_root)

    def host_of(self, event: Event) -> str | None:
        """Return the host of an event, None where it is of this boot, by whatever name."""
        return None if is_of_boot(event.source, self._boot_id) else event.host

    def take_event_snapshot(self, host: str | None = None, batch: Snapshot | None = None) -> Snapshot:
        """Take the snapshot of an event, before any thinking; in a storm one a second is enough.

        ``batch`` is the one that its batch has so far. Of another ``host`` it shows nothing: any will do. A line whose
        kills were seen before it has theirs.
        """
        if self._watch.at_sight and not other_host(host, self._watch.at_sight.host):
            return self._watch.at_sight
        if batch and (self._is_seen or other_host(host, batch.host)):
            return batch
        self._sampler.survey.cancel()
        now = self._now()
        self._follow_the_clock(now)
        last = self._event_snapshot
        is_recent = last is not None and timedelta(0) <= now - last.taken_at < EVENT_SNAPSHOT_SPACING
        if last is None or not is_recent or not (other_host(host, last.host) or self._find(None)):
            last = self._event_snapshot = take_snapshot(self._proc_root, now, "event", counters=self._sampler.counters)
            self._sampler.remember(sample_of(last))
        self._is_seen = not other_host(host, last.host)
        return last

    def watch(self) -> None:
        """Read the kernel's trace: after the snapshot of a line, and before its incident is written."""
        now, counted = self._now(), self._sampler.newest
        self._follow_the_clock(now)
        seen, opened = self._watch.look(now), self._find(None)
        if seen.refusals:
            self._sampler.note_refusals(self._watch.refused, now)
        if opened and self._watch.since and opened.is_over_at(now, self.settings.quiet):
            self._close(opened, now)
            opened = None
        if opened:
            if self._watch.has_news:
                self._witness(opened, self._watch.take(), now)
            if not seen.kills and not seen.lost:
                opened.count(counted)
        elif self._watch.since and self._watch.at_sight is None and not self._is_seen:
            self._watch.at_sight = self._take_kill_snapshot()

    def _witness(self, opened: OpenIncident, account: Account, now: datetime) -> None:
        if account.kills and opened.needs_sight(now):
            with self._troubles.survived(EVIDENCE, is_part=True):
                opened.judge(self._take_kill_snapshot())
        opened.witness(account, now)
        self._name(opened)

    def _take_kill_snapshot(self) -> Snapshot:
        """Take the snapshot of kills; whether a line of the batch has one is as before."""
        is_seen = self._is_seen
        snapshot = self.take_event_snapshot()
        self._is_seen = is_seen
        return snapshot

    def handle(
        self, decided: Sequence[Decided], snapshot: Snapshot, may_continue: Callable[[], bool] = lambda: True
    ) -> bool:
        """Fold the events of one batch; ``snapshot`` was taken when the first of them was seen.

        ``may_continue`` is asked between an incident that opens and the next event, since each costs several fsyncs;
        after its no the position is behind the last event that was folded, and False is returned.
        """
        self._is_seen = has_opened = False
        # Whether a position lies between the event before and this one; where none does, nothing is committed.
        is_between, behind, leading = True, None, list[tuple[str | None, Decided]]()
        now, quiet = self._now(), self.settings.quiet
        for record, said in folding.together(decided, quiet):
            # The host may have been renamed since, and a UTS namespace of our own keeps the old name.
            is_own = said.host != snapshot.host and is_of_boot(said.source, snapshot.boot_id)
            event = replace(said, host=snapshot.host) if is_own else said
            if has_opened and is_between and not may_continue():
                self._amend_closed(leading, behind)
                return False
            has_opened = has_opened and not is_between
            log.debug("%s at %s, %d times", event.kind, event.source, event.count)
            self.counted[event.kind] += event.count
            at = min(now, event.at or snapshot.taken_at).astimezone(timezone.utc)
            host = other_host(event.host, snapshot.host)
            host, opened = self._find_open(host, at, snapshot.taken_at, may_close=is_between)
            is_between, behind = record.cursor is not None, record.cursor or behind
            if opened:
                opened.fold((record, event), at, snapshot, now)
            elif event.kind == "suppressed":
                leading.append((host, (record, event)))
            else:
                leading = self._open_by((record, event), host, at, snapshot, leading)
                has_opened = True
        self._amend_closed(leading, behind)
        self._commit_what_is_due(snapshot.taken_at)
        return True

    def _open_by(
        self,
        decided: Decided,
        host: str | None,
        at: datetime,
        snapshot: Snapshot,
        leading: list[tuple[str | None, Decided]],
    ) -> list[tuple[str | None, Decided]]:
        """Open an incident by its first line and what was suppressed on its host before; return what was on others."""
        (record, event), now = decided, self._now()
        seen = unmeasured(snapshot) if host else snapshot
        first = replace(event, host=host) if host == THE_REST else event
        traced = Traced() if host else self._watch.open(at, self._sampler.history)
        opened = self._open_incident(partial(folding.open_incident, first, at, seen), seen, (first,), traced)
        for held_host, held in leading:
            if is_same(held_host, host):
                opened.fold(held, at, snapshot, now, leading=True)
        # Last: those before it in the log have older positions.
        self.position.cover(record.cursor, opened.incident)
        return [each for each in leading if not is_same(each[0], host)]

    def _find_open(
        self, host: str | None, at: datetime, now: datetime, *, may_close: bool
    ) -> tuple[str | None, OpenIncident | None]:
        """Find the incident of a line by its host and stamp, and the name by which the host has one."""
        opened = self._find(host)
        is_over = opened is not None and may_close and opened.is_over_at(at, self.settings.quiet)
        if host and (opened is None or is_over) and self._is_hour_spent():
            # However they are dated: what is beyond the hour's number costs no more than a count.
            return THE_REST, self._find(THE_REST)
        if opened and is_over:
            self._close(opened, now)
            return host, None
        return host, opened

    def _is_hour_spent(self) -> bool:
        """Return whether the hour's incidents of other hosts are used up, so that one incident counts the rest."""
        opened = self._others_opened
        return len(opened) == OTHER_HOSTS_AN_HOUR and self._monotonic() - opened[0] < HOUR_SECONDS

    def _commit_what_is_due(self, now: datetime) -> None:
        for opened in self._open:
            if self.position.is_waiting(opened.incident) and now - opened.committed_at >= COMMIT_SPACING:
                self._commit(opened, now)
        others = sorted((each for each in self._open if each.is_elsewhere), key=lambda each: each.arrived_at)
        for opened in others[:-OTHER_HOSTS_AT_MOST]:
            self._close(opened, now)

    def tick(self) -> None:
        """Do what is due by the clock: samples, follow-ups, commits, the end of an incident."""
        now = self._now()
        self._follow_the_clock(now)
        if self._watch.at_sight and abs(now - self._watch.at_sight.taken_at) >= LINE_PATIENCE:
            self._open_killed(self._watch.at_sight, now)
        if self._sampler.tick(now):
            self._note_pressure(now)
        if not self.position.dirty and not any(opened.attribute_at for opened in self._open):
            self._sampler.survey.start(now)
        for opened in tuple(self._open):
            self._tend(opened, now)
        self._point_last()

    def _point_last(self) -> None:
        if self._to_point_at:
            self._store.point_last(self._to_point_at)
            self._to_point_at = None

    def _tend(self, opened: OpenIncident, now: datetime) -> None:
        if opened.attribute_at and now >= opened.attribute_at and not self.position.dirty:
            self._attribute(opened)
        if opened.follow_ups and now >= opened.follow_ups[0]:
            self._follow_up(opened, now)
        if now - opened.committed_at >= COMMIT_SPACING:
            self._commit_what_waits(opened, now)
        # A warning lasts as long as the gauges are high, also where the quiet period is shorter than a sample's.
        is_quiet = now - opened.arrived_at >= self.settings.quiet
        if is_quiet and (opened.is_elsewhere or not self._note_pressure(now)):
            self._close(opened, now)

    def next_due(self) -> float:
        """Return in how many seconds ``tick`` has something to do."""
        due = [self._sampler.due, *(at for opened in self._open for at in opened.due())]
        due += [self._watch.at_sight.taken_at + LINE_PATIENCE] if self._watch.at_sight else []
        return max(0.0, (min(due) - self._now()).total_seconds())

    def forget_removed(self) -> None:
        """Count no incident any longer that retention, or somebody else, has removed."""
        self._earlier.forget_removed()

    def warm_up(self) -> None:
        """Do in memory what the first event will need."""
        with self._troubles.survived(UNREHEARSED, Exception):
            warm_up(take_snapshot(self._proc_root, self._now(), "event"), self._sampler.history)

    def flush(self) -> None:
        """Commit what waits: the service stops."""
        if self._watch.at_sight:
            self._open_killed(self._watch.at_sight, self._now())
        for opened in self._open:
            self._commit_what_waits(opened, self._now())
        self._point_last()

    # --- one incident a host ----------------------------------------------------------------------------------------

    def _find(self, host: str | None) -> OpenIncident | None:
        """Find the open incident of another host, or this host's own for None."""
        for opened in self._open:
            if is_same(opened.incident.host if opened.is_elsewhere else None, host):
                return opened
        return None

    def _open_incident(
        self, make: Callable[[Diagnosis, int], Incident], snapshot: Snapshot, events: tuple[Event, ...], traced: Traced
    ) -> OpenIncident:
        opened = OpenIncident.open(
            make, snapshot, events, self._sampler.history, self.position, troubles=self._troubles, traced=traced
        )
        self._add(opened)
        if opened.is_elsewhere and not self._is_hour_spent():
            self._others_opened.append(self._monotonic())
        if folding.is_hearsay(opened.incident, self.settings.claimed):
            log.info(
                "incident %s: recorded without notification: only a text log claims it ([incident] claimed)",
                opened.incident.id,
            )
        return opened

    def _open_killed(self, snapshot: Snapshot, now: datetime) -> None:
        """Open an incident for kills without a line: the rate limit took it, or nobody keeps the kernel's log."""
        at = min(snapshot.taken_at, self._watch.since or snapshot.taken_at)
        traced = self._watch.open(at, self._sampler.history)
        make = partial(folding.open_killed, at, snapshot)
        self._commit(self._open_incident(make, snapshot, (), traced), now)

    def _resume_all(self, still_open: Sequence[Incident], holder: str) -> None:
        self._store.flush_commits(sorted({each.id for each in still_open} | {holder} - {""}))
        for incident in still_open:
            if incident.resume is None:
                # Only another's commit holds it so: each next one does, too, until its own file has it.
                self.position.cover(None, incident)
        for incident in still_open:
            self._resume(incident)

    def _resume(self, incident: Incident) -> None:
        """Go on with an incident that was open when the process before us ended."""
        try:
            if self._find(incident.host if incident.read_on else None):
                raise StoreError("a newer incident is open")  # noqa: TRY301 - one way to conclude
            incident = replace(incident, beside=())
            history = self._sampler.history
            traced = Traced() if incident.read_on else self._watch.resume(incident, history)
            opened = OpenIncident.resume(
                incident, history, self._now(), self.position, troubles=self._troubles, traced=traced
            )
        except Exception as error:  # noqa: BLE001 - whatever damage comes up, the host is watched
            self._conclude(incident, error)
        else:
            self._add(opened)

    def _add(self, opened: OpenIncident) -> None:
        """Put this host's own before the others': it is committed and told first."""
        self._watch.at_sight = self._watch.at_sight if opened.is_elsewhere else None
        self._open.insert(len(self._open) if opened.is_elsewhere else 0, opened)

    def _conclude(self, incident: Incident, why: Exception) -> None:
        """Close as it stands an incident that cannot be resumed, and say so where its opening was to be said."""
        log.error("incident %s is closed as it stands: %s", incident.id, why, exc_info=not isinstance(why, StoreError))
        now = self._now()
        incident = folding.close(incident, now, self.settings.quiet)
        if incident.notices:
            incident, _ = write_notice(self._store, incident, DAMAGED, self.channels, now)
        self.position.close()
        self._last = self._commit_closed(incident)

    def _amend_closed(self, leading: Sequence[tuple[str | None, Decided]], behind: Cursor | None) -> None:
        """Count suppressed messages to the last incident of their host, which is closed: they open none of their own.

        ``behind`` is the position behind what is counted of the batch. One host's after the other: what stands beside a
        commit is open. A kill between two costs the second's count, which is "at least" anyway.
        """
        of_host = dict[str | None, list[Event]]()
        for host, (_, event) in leading:
            of_host.setdefault(host, []).append(event)
        for host, events in of_host.items():
            if incident := self._earlier.newest(host):
                for event in events:
                    incident = folding.fold(incident, event, incident.last_seen_at)
                self.position.cover(behind, incident)
                incident = self._commit_closed(incident)
                self._last = incident if self._last and self._last.id == incident.id else self._last

    def _commit_closed(self, incident: Incident) -> Incident:
        self._store.do_meanwhile(lambda: write_summary(self._store, incident, self._troubles))
        return self.position.commit(incident)

    def _commit_what_waits(self, opened: OpenIncident, now: datetime) -> None:
        """Commit events, or raise: nothing may be announced that is not stored. What is no event is tried again."""
        if self.position.is_waiting(opened.incident):
            self._commit(opened, now)
        elif opened.amended:
            opened.committed_at = now
            with self._troubles.survived(EVIDENCE):
                self._commit(opened, now)

    def _commit(self, opened: OpenIncident, now: datetime) -> None:
        notice = opened.commit(now, self._history(opened), self.settings, self.channels, self._earlier)
        self._last = incident = opened.incident
        self._earlier.note(incident)
        if opened.counted_as != incident.class_:
            opened.counted_as = incident.class_
            self.opened[incident.class_, incident.cause] += 1
        if notice:
            self._on_notice(notice)
        self._to_point_at = incident.id

    def _close(self, opened: OpenIncident, now: datetime) -> None:
        if opened.last_notice is None:
            self._commit(opened, now)  # Opened and over in one batch: both are announced.
        opened.close(now, self._sampler.history, self.settings.quiet)
        self._commit(opened, now)
        self._open.remove(opened)

    def _history(self, opened: OpenIncident) -> Sequence[Sample]:
        return () if opened.is_elsewhere else self._sampler.history

    # --- what the clock asks for ------------------------------------------------------------------------------------

    def _note_pressure(self, now: datetime) -> bool:
        """Open a warning because of the gauges, or keep the open one from closing while they are high.

        Not while an incident goes by the kernel's own lines. What only a text log claims does not count as such: else a
        forged line every few minutes would keep the gauges from warning.
        """
        pressure = self._sampler.pressure if self.settings.pressure else None
        opened = self._find(None)
        if pressure is None or (
            opened and opened.incident.class_ == "event" and opened.incident.provenance == "kernel"
        ):
            return False
        if opened:
            if opened.incident.pressure is None:
                opened.judge(take_snapshot(self._proc_root, now, "pressure", counters=self._sampler.counters))
            opened.note_pressure(pressure, now)
        else:
            snapshot = take_snapshot(self._proc_root, now, "pressure", counters=self._sampler.counters)
            make = partial(folding.open_pressure, pressure, now, snapshot)
            traced = self._watch.open(now, self._sampler.history)
            self._commit(self._open_incident(make, snapshot, (), traced), now)
        return True

    def _attribute(self, opened: OpenIncident) -> None:
        """Find out who holds the sockets; the next commit diagnoses it."""
        self._sampler.survey.cancel()
        # The orphans may be back at their limit by now: since 5.16 the kernel kills by a count of 100 ms ago, too far.
        self._sampler.remember(take_sample(self._proc_root, self._now(), self._sampler.counters))
        table = take_sockets(self._proc_root, ATTRIBUTION_SECONDS, names=self._names)
        if opened.attribute(table, self._now()):
            self._sampler.name_units(shares_of(table))
            self._watch.forget_homes()
            self._name(opened)

    def _name(self, opened: OpenIncident) -> None:
        """Name by the dump whom the trace could not name."""
        account, table = opened.traced.account, opened.table
        if account and table:
            self._watch.name(account, table)

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
        for opened in self._open if abs(set_by) >= CLOCK_STEP else ():
            opened.move_clock(set_by, now)
        self._ticked_at, self._ticked_second = now, second
