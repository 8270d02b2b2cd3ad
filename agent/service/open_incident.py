"""The open incident: what is folded into it, its evidence, its clocks, and its commits.

The order on disk is what makes a crash harmless (ARCHITECTURE.md, "What is on disk, and in which order"): snapshots
and notices first, incident.json last, with the position behind its last event inside it.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta

import msgspec
from msgspec.structs import replace

from agent.core import folding
from agent.core.diagnosis.diagnose import diagnose
from agent.core.facts import NEAR_SECONDS
from agent.core.kernel.detector import Decided
from agent.core.model import (
    Diagnosis,
    Event,
    Incident,
    Notice,
    NoticeType,
    Peak,
    Pressure,
    Recurrence,
    Sample,
    Snapshot,
    Witness,
)
from agent.core.readings import Gap, SocketTable
from agent.core.recurrence import IncidentKind, kind_of
from agent.core.settings import IncidentSettings
from agent.core.sockets.holder_names import ORPHANS_WORTH_NAMING
from agent.core.sockets.second_look import look_twice
from agent.core.witness import Account
from agent.page.incident_files import IncidentFiles
from agent.page.text import incident_text
from agent.service.earlier import Earlier
from agent.service.position import Position
from agent.service.troubles import Troubles
from agent.service.witness import Traced
from agent.store import Store, StoreError, keep_samples

log = logging.getLogger("sockmem-agent")

SNAPSHOT_SPACING = timedelta(seconds=60)
SNAPSHOTS_AT_MOST = 60
FOLLOW_UPS = (timedelta(seconds=1), timedelta(seconds=5), timedelta(seconds=30))
COMMIT_SPACING = timedelta(seconds=1)
# Who holds the sockets is asked when the notice is on its way: it may take seconds, and people are told first.
ATTRIBUTION_DELAY = timedelta(milliseconds=250)
# Whose sockets lose data shows between two dumps: a segment that was refused comes again within seconds.
SECOND_LOOK = timedelta(seconds=5)
# Who held the orphans that were killed before says little of those that are killed later.
REMEMBERED = timedelta(minutes=10)
# Of an event that is older, the sockets of now say nothing; samples so near to it belong to its peak, as they do to its
# diagnosis.
NEAR = timedelta(seconds=NEAR_SECONDS)
# The samples that are kept with an incident begin this long before it.
KEPT_LEAD = timedelta(hours=1)
EVIDENCE = "evidence cannot be written"
SUMMARY = "summary.txt cannot be written"


class OpenIncident:
    """An incident that events are still folded into.

    ``amended``: evidence or a warning waits for a commit, and no event is lost where that fails. While events wait,
    the position is ``dirty``, and their commit has to succeed.
    """

    def __init__(
        self,
        incident: Incident,
        named: tuple[str, Snapshot],
        now: datetime,
        position: Position,
        *,
        troubles: Troubles,
        traced: Traced,
    ) -> None:
        """Hold an incident; ``named`` is the snapshot that its diagnosis rests on, with its name.

        Of another host's nothing is looked up here: no follow-ups, holders, samples or trace.
        """
        self.incident = incident
        self.traced = traced
        # Another host's lines opened it.
        self.is_elsewhere = incident.read_on is not None
        self.last_notice: Notice | None = None
        # As which class it was counted in the metrics.
        self.counted_as: str | None = None
        self._kind: IncidentKind | None = None
        self._kind_said: Incident | None = None
        self.amended = False
        self.arrived_at = self.snapshot_at = now
        # When its last event was, by the clock as it was set since.
        self._seen_at = incident.last_seen_at
        self.committed_at = now - COMMIT_SPACING
        self.follow_ups: tuple[datetime, ...] = ()
        self._snapshot_name, self._snapshot = self._newest = named
        is_old = abs(now - incident.last_seen_at) > NEAR
        self._looked_at: datetime | None = None
        # The newest dump for an earlier snapshot, with the time of that.
        self._earlier: tuple[datetime, SocketTable] | None = None
        is_settled = bool(self._snapshot.sockets) or is_old or self.is_elsewhere
        self.attribute_at = None if is_settled else now + ATTRIBUTION_DELAY
        self._store, self._position, self._troubles = position.store, position, troubles
        # What the diagnosis was made of, and whether the snapshot with who holds the sockets is on disk.
        self._diagnosed: tuple[Snapshot, tuple[Event, ...], Sample | None, Witness | None] | None = None
        self._is_unsaved = False

    @classmethod
    def open(
        cls,
        make: Callable[[Diagnosis, int], Incident],
        snapshot: Snapshot,
        events: tuple[Event, ...],
        samples: Sequence[Sample],
        position: Position,
        *,
        troubles: Troubles,
        traced: Traced,
    ) -> "OpenIncident":
        """Open an incident under the first id that is free, with its first snapshot on disk."""
        store, witness, attempt = position.store, traced.witness(), 0
        diagnosis = diagnose(snapshot, events, tuple(samples), witness, traced.gaps)
        while not store.new_directory((incident := make(diagnosis, attempt)).id):
            attempt += 1
        # What a crash left here was taken nearer to the event than ours.
        left = store.left_behind(incident.id)
        name = store.write_snapshot(incident.id, 1, snapshot, at_commit=True)
        incident = replace(incident, snapshots=(*(n for n, _ in left), name), witness=witness)
        now = snapshot.taken_at
        incident = folding.note_kills(incident, now) if witness and witness.kills else incident
        opened = cls(incident, left[0] if left else (name, snapshot), now, position, troubles=troubles, traced=traced)
        opened.follow_ups = () if opened.is_elsewhere else tuple(now + after for after in FOLLOW_UPS)
        opened._diagnosed = snapshot, events, samples[-1] if samples else None, witness
        return opened

    @classmethod
    def resume(
        cls,
        incident: Incident,
        samples: Sequence[Sample],
        now: datetime,
        position: Position,
        *,
        troubles: Troubles,
        traced: Traced,
    ) -> "OpenIncident":
        """Go on with an incident that was open when the process before us ended; StoreError without any snapshot."""
        store, unread = position.store, list[Gap]()
        notices = list(store.notices_of(incident, unread))
        left = store.left_behind(incident.id, incident.snapshots)
        for name, _ in left:
            log.warning("%s/incident.json does not name %s, which is taken up", store.path(incident.id), name)
        named = [*store.snapshots_of(incident, unread), *left]
        incident = replace(incident, snapshots=(*incident.snapshots, *(name for name, _ in left)))
        for gap in unread:
            log.warning("%s", gap.why)
        if not named:
            raise StoreError(f"{store.path(incident.id)}: no snapshot can be read")
        newest = next((each for each in reversed(named) if each[1].trigger in {"event", "pressure"}), named[-1])
        opened = cls(incident, newest, now, position, troubles=troubles, traced=traced)
        opened.snapshot_at, opened._newest = named[-1][1].taken_at, named[-1]
        dumps = [(each.taken_at, each.sockets) for _, each in named if each.sockets]
        opened._earlier = next((each for each in dumps if each[1] == dumps[-1][1]), None)
        opened.counted_as = incident.class_
        opened._kind = kind_of(incident)
        for _, notice in notices:
            opened._remember(notice)
        opened._diagnose(samples)
        # The next commit would do the same, and a surprise there would come back at every start.
        msgspec.json.encode(opened.incident)
        return opened

    # --- what comes in ----------------------------------------------------------------------------------------------

    def fold(self, decided: Decided, at: datetime, snapshot: Snapshot, now: datetime, *, leading: bool = False) -> None:
        """Take in one more event, and now and then the snapshot that was taken at its sight.

        ``leading``: it was logged before the incident's first line.
        """
        record, event = decided
        is_new = not self.incident.events.get(event.kind) and snapshot.taken_at != self._snapshot.taken_at
        is_spaced = snapshot.taken_at - self.snapshot_at >= SNAPSHOT_SPACING
        self.incident = folding.fold(self.incident, event, at, leading=leading)
        if (is_spaced or is_new) and event.kind != "suppressed" and not self.is_elsewhere:
            self.judge(snapshot)
        self.arrived_at = now
        self._position.cover(record.cursor, self.incident)

    def judge(self, snapshot: Snapshot) -> None:
        """Keep a snapshot that the diagnosis rests on from now on."""
        self._keep(snapshot)
        if (table := self._snapshot.sockets) and not (self._earlier and self._earlier[1] == table):
            self._earlier = self._snapshot.taken_at, table
        self._snapshot_name, self._snapshot = self.incident.snapshots[-1], snapshot
        self._is_unsaved = False
        self.snapshot_at = snapshot.taken_at
        self.attribute_at = snapshot.taken_at + ATTRIBUTION_DELAY

    def note_pressure(self, pressure: Pressure, now: datetime) -> None:
        """Stay open while the gauges are high."""
        before = self.incident.pressure
        self.incident = folding.note_pressure(self.incident, pressure, now)
        self.arrived_at = now
        self.amended = self.amended or self.incident.pressure != before

    def needs_sight(self, now: datetime) -> bool:
        """Return whether kills need a snapshot of their own: those before are of no kills, or old."""
        account = self.traced.account
        return account is None or not account.kills or now - self.snapshot_at >= SNAPSHOT_SPACING

    def witness(self, account: Account, now: datetime) -> None:
        """Take in what the kernel's trace showed lately; the next commit diagnoses it."""
        if account.kills:
            self.incident = folding.note_kills(self.incident, now)
            self.arrived_at = now
        self.traced.take(account)
        self.amended = True

    @property
    def table(self) -> SocketTable | None:
        """Who holds the sockets, as the diagnosis has it."""
        return self._snapshot.sockets

    def count(self, sample: Sample | None) -> None:
        """Hold TCPAbortOnMemory, as it stood before the trace was read, against what was seen by now."""
        if sample is not self.traced.counted:
            self.traced.counted = sample
            self.amended = self.amended or self.traced.witness() != self.incident.witness

    def attribute(self, table: SocketTable, now: datetime) -> bool:
        """Add to the newest snapshot who holds the sockets, unless an earlier dump saw more of them.

        A dump may come when the kernel has killed them all: for ten minutes, who held them is what the one before saw.
        Where it is not about orphans, a second dump shows who loses data meanwhile.
        """
        seen, looked_at = self._snapshot.sockets, self._looked_at
        self.attribute_at = self._looked_at = None
        if self.incident.cause == "orphans":
            if seen and table.orphans <= seen.orphans:
                return False
            at, earlier = self._earlier or (now, table)
            if abs(now - at) < REMEMBERED and table.orphans < min(ORPHANS_WORTH_NAMING, earlier.orphans):
                table = earlier
        elif seen is None:
            self._looked_at, self.attribute_at = now, now + SECOND_LOOK
        elif looked_at is None:
            return False
        else:
            table = look_twice(seen, table, (now - looked_at).total_seconds())
        self._snapshot = replace(self._snapshot, sockets=table)
        self.amended = self._is_unsaved = True
        with self._troubles.survived(EVIDENCE, is_part=True):
            self._save_snapshot()
        return True

    def follow_up(self, snapshot: Snapshot) -> None:
        """Keep what the host looks like a little later; where more orphans are back than were seen, ask whose they are.

        The orphans of a storm come and go. Memory is held for longer, and its holder is not to be forgotten.
        """
        now = snapshot.taken_at
        self.follow_ups = tuple(at for at in self.follow_ups if at > now)
        self.amended = True  # Also where it fails: a commit shows whether there is room by then.
        with self._troubles.survived(EVIDENCE, is_part=True):
            self._keep(snapshot)
        table, orphan = self._snapshot.sockets, (snapshot.sockstat.tcp.orphan if snapshot.sockstat else None) or 0
        if self.incident.cause == "orphans" and table and orphan >= max(ORPHANS_WORTH_NAMING, 2 * table.orphans + 1):
            self.attribute_at = now

    # --- its clocks -------------------------------------------------------------------------------------------------

    def is_over_at(self, at: datetime, quiet: timedelta) -> bool:
        """Return whether an event ``at`` is another incident's; the log's clock may have been set since the last."""
        return folding.is_another(max(self.incident.last_seen_at, self._seen_at), at, quiet)

    def due(self) -> list[datetime]:
        """List when there is something to do."""
        if self._position.is_waiting(self.incident) or self.amended:
            return [*self.follow_ups[:1], self.committed_at + COMMIT_SPACING]
        return [*self.follow_ups[:1], *([self.attribute_at] if self.attribute_at else [])]

    def move_clock(self, by: timedelta, now: datetime) -> None:
        """Follow a clock that was set ``by`` so much: what is waited for comes neither at once nor in an hour.

        What was noted after it had been set is moved, too, and must not land in the future.
        """
        self._seen_at = max(self.incident.last_seen_at, self._seen_at) + by
        self.arrived_at = min(now, self.arrived_at + by)
        self.committed_at = min(now, self.committed_at + by)
        self.snapshot_at = min(now, self.snapshot_at + by)
        self.attribute_at = min(now + SECOND_LOOK, self.attribute_at + by) if self.attribute_at else None
        self._looked_at = self._looked_at + by if self._looked_at else None
        self._earlier = (self._earlier[0] + by, self._earlier[1]) if self._earlier else None
        self.follow_ups = tuple(min(now + FOLLOW_UPS[-1], at + by) for at in self.follow_ups)

    # --- onto the disk ----------------------------------------------------------------------------------------------

    def commit(
        self,
        now: datetime,
        samples: Sequence[Sample],
        settings: IncidentSettings,
        channels: tuple[str, ...],
        earlier: Earlier,
    ) -> Notice | None:
        """Diagnose what is known by now and commit it; return the notice that is on disk with it, if one is due."""
        if not self._store.is_incident(self.incident.id):
            self._begin_again()
        self._save_snapshot()
        self._diagnose(samples)
        self._recognize(earlier)
        self.incident = replace(self.incident, peak=peak_around(self.incident, samples, settings.quiet))
        incident, notice = self.incident, None
        reason = folding.notify_reason(incident, self.last_notice, now, settings.claimed)
        if reason:
            incident, notice = write_notice(self._store, incident, reason, channels, now)
        self._store.do_meanwhile(lambda: write_summary(self._store, incident, self._troubles, self._newest))
        self.incident = self._position.commit(incident)
        self.committed_at, self.amended = now, False
        if not self.is_elsewhere:
            self._troubles.end(EVIDENCE)
        self._remember(notice)
        return notice

    def _recognize(self, earlier: Earlier) -> None:
        """Name its kind, and number it once it is known who holds the sockets."""
        before, kind = self.incident, kind_of(self.incident)
        is_known = self._snapshot.sockets is not None or self.attribute_at is None
        if not is_known and self._kind and kind._replace(holder=None) == self._kind._replace(holder=None):
            return  # Judged anew: who holds them now is asked in a moment.
        self._kind = kind
        recurrence = before.recurrence if kind.signature == before.signature else None
        self.incident = replace(before, signature=kind.signature, recurrence=recurrence)
        if is_known and recurrence is None:
            self.incident = replace(self.incident, recurrence=self._recurrence(earlier))

    def _recurrence(self, earlier: Earlier) -> Recurrence | None:
        """Return its number as last sent, or none where that was for another kind and nothing sent has changed."""
        incident, said = self.incident, self._kind_said
        if said and said.signature == incident.signature:
            return said.recurrence
        if said and _announced(said) == _announced(incident):
            return None
        return earlier.recurrence(incident)

    def close(self, now: datetime, samples: Sequence[Sample], quiet: timedelta) -> None:
        """End the incident, with the samples around it beside it; what is left is the commit that says so."""
        self.incident = folding.close(self.incident, now, quiet)
        self._position.close()
        if not self.is_elsewhere:
            keep_window(self._store, self.incident, samples)

    # --- inside -----------------------------------------------------------------------------------------------------

    def _remember(self, notice: Notice | None) -> None:
        """Remember the last notice, and the last that said how many of its kind there were."""
        self.last_notice = notice or self.last_notice
        if notice and notice.data and notice.data.recurrence:
            self._kind_said = notice.data

    def _diagnose(self, samples: Sequence[Sample]) -> None:
        """Diagnose, unless it would be of the same once more: an incident that was just opened is diagnosed once."""
        snapshot, events, witness = self._snapshot, folding.events_to_diagnose(self.incident), self.traced.witness()
        asked = snapshot, events, samples[-1] if samples else None, witness
        if asked != self._diagnosed:
            diagnosis = diagnose(snapshot, events, tuple(samples), witness, self.traced.gaps)
            self.incident = replace(folding.with_diagnosis(self.incident, diagnosis), witness=witness)
            self._diagnosed = asked

    def _keep(self, snapshot: Snapshot) -> None:
        names = self.incident.snapshots
        if len(names) >= SNAPSHOTS_AT_MOST:
            # The newest gives way: evidence stays bounded, and what is judged is never older than the events.
            self._store.amend_snapshot(self.incident.id, names[-1], snapshot)
        else:
            name = self._store.write_snapshot(self.incident.id, len(names) + 1, snapshot)
            self.incident = replace(self.incident, snapshots=(*names, name))
        self._newest = self.incident.snapshots[-1], snapshot

    def _begin_again(self) -> None:
        """Make the files anew that somebody has removed with their directory; people may not have been told yet."""
        self.incident, self.last_notice = replace(self.incident, snapshots=(), notices=()), None
        self._keep(self._snapshot)
        self._snapshot_name, self._is_unsaved = self.incident.snapshots[-1], False

    def _save_snapshot(self) -> None:
        if self._is_unsaved:
            self._store.amend_snapshot(self.incident.id, self._snapshot_name, self._snapshot)
            self._is_unsaved = False


def summary_of(incident: Incident, *newest: tuple[str, Snapshot]) -> str:
    """Return the text of summary.txt; it is written while an event waits, and so of what is at hand."""
    lines = incident_text(IncidentFiles(incident, newest), is_whole=False)
    return "".join(f"{line.text}\n" for line in lines)


def write_summary(
    store: Store, incident: Incident, troubles: Troubles, newest: tuple[str, Snapshot] | None = None
) -> None:
    """Write the summary of an incident; its ``newest`` snapshot is read where it is not at hand."""
    with troubles.survived(SUMMARY, Exception):
        named = [newest] if newest else store.newest_snapshot(incident)
        store.write_summary(incident.id, summary_of(incident, *named))


def write_missing_summaries(store: Store, troubles: Troubles) -> None:
    """Write, when the service starts, the summaries that a power cut took or that an earlier version did not write."""
    for incident_id in store.one_by_one(store.ids()):
        if not store.has_summary(incident_id):
            with suppress(StoreError):  # Logged at every start.
                write_summary(store, store.load(incident_id), troubles)


def write_notice(
    store: Store, incident: Incident, reason: tuple[NoticeType, str], channels: tuple[str, ...], now: datetime
) -> tuple[Incident, Notice]:
    """Put the next notice of an incident on disk; the incident returned names it."""
    notice = folding.notice(incident, reason, channels, now)
    name = store.write_notice(incident.id, len(incident.notices) + 1, notice)
    return replace(incident, notices=(*incident.notices, name)), notice


def _announced(incident: Incident) -> tuple[str, ...]:
    """Return what a notice says of its kind when that changes."""
    return incident.class_, incident.provenance, incident.cause_shown


def peak_around(incident: Incident, samples: Sequence[Sample], quiet: timedelta) -> Peak:
    """Raise the peak to the samples around the events; those of a catch-up's own moment say nothing of the past."""
    peak, end = incident.peak, incident.last_seen_at + max(quiet, NEAR)
    for sample in samples:
        if incident.opened_at - NEAR <= sample.at <= end:
            peak = folding.raise_peak(peak, sample)
    return peak


def keep_window(store: Store, incident: Incident, remembered: Sequence[Sample]) -> None:
    """Put the samples around an incident beside it: the history forgets them after two days."""
    # To where the last diagnosis looked: with a short quiet period that is behind the end.
    start, last = incident.opened_at - KEPT_LEAD, incident.last_seen_at
    end = max(incident.closed_at or last, last + NEAR)
    try:
        # Those on disk are whole; those in memory have the gauges of the snapshots, too.
        samples = {sample.at: sample for sample in store.samples.read(start, end)}
        samples |= {sample.at: sample for sample in remembered if start <= sample.at <= end}
        keep_samples(store.path(incident.id), samples.values())
    except OSError as error:
        log.warning("the samples around %s are not kept: %s: %s", incident.id, error.filename, error.strerror)
