"""The main loop, which knows all other modules of the service: signals, watchdog, status.

One turn: read a batch, record its events, do what is due by the clock, save the position, wait at most a second. The
disk is the queue and every wake-up is a hint, so a turn too many or too late changes nothing.
"""

import gc
import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

from agent.core.format import counted, printable
from agent.core.kernel.detector import Decided, Detector
from agent.core.model import LogRecord, Notice, Silence, Snapshot
from agent.core.settings import Settings, SourceSettings
from agent.core.status import silence_text
from agent.notifiers import ChannelError, import_late
from agent.service import metrics, sdnotify
from agent.service.couriers import Couriers
from agent.service.open_incident import write_missing_summaries
from agent.service.outside import Outside
from agent.service.published import Published
from agent.service.recorder import Recorder
from agent.service.signals import Signals
from agent.service.silence import Silencer
from agent.service.status import StatusFile
from agent.service.troubles import Troubles
from agent.sources import Source, describe, import_parser
from agent.store import Outbox, Store, prune

log = logging.getLogger("sockmem-agent")

WAIT_SECONDS = 1.0
# A notice goes before all that the clock asks for, which would take turns with its courier at the interpreter.
HEAD_START_SECONDS = 0.02
PRUNE_SPACING = timedelta(minutes=10)
METRICS_SECONDS = 60.0
STOP_SECONDS = 1.5
STOPPING_SECONDS = 0.5  # for systemd to take STOPPING=1
STATUS_CHARACTERS = 1000  # of four bytes each, within sdnotify.MOST_BYTES
UNSAVED, UNMEASURED = "the position cannot be saved", "the metrics cannot be written"
# The next start would fail by it.
UNUSABLE = "the new configuration cannot be used, and the old one stays in effect: see sockmem-agent config check"


class Daemon:
    """The service: built once, turned until told to stop."""

    def __init__(self, settings: Settings, store: Store, asked: Signals, outside: Outside) -> None:
        """Open everything; what cannot be opened raises before READY=1."""
        self._settings, self._store, self._asked, self._outside = settings, store, asked, outside
        self._outbox = Outbox(store)
        self._now = outside.now
        self._couriers = Couriers(settings, self._outbox, outside)
        self._troubles = Troubles()
        store.set_broken_aside()
        # Before anything is written: this makes room if a full disk ended the previous process. Nothing goes by age
        # yet, since the clock of a booting host may be wrong.
        self._prune(None)
        write_missing_summaries(store, self._troubles)
        self._recorder = self._make_recorder()
        self._source = self._open_source(settings.source, sdnotify.work_goes_on)
        self._detector = self._informed_detector()
        self._pruned_at = self._now()
        self._silencer = Silencer(store.directory)
        self._silence: Silence | None = None
        runtime = outside.runtime or store.directory
        self._status_file = StatusFile(runtime, store.directory, outside.now, outside.monotonic)
        self._metrics_file = self._open_metrics()
        self._ready = False
        self._has_told = self._is_warm = False
        self._is_whole = True
        # Notices that our own log does not have yet.
        self._unlogged: list[Notice] = []

    # --- life -------------------------------------------------------------------------------------------------------

    def run(self, reread: Callable[[], Settings | None]) -> None:
        """Turn until asked to stop; when asked to reload, apply what ``reread`` returns, unless that is None."""
        self._asked.started = True
        self.begin()
        # All that was imported stays: to look through it for garbage takes 14 ms, and may come with an event.
        gc.freeze()
        try:
            while not self._asked.stop:
                rest = self.turn()
                # Not where a stop has cut off a batch: the position is behind all of it already.
                if self._asked.reload and self._is_whole:
                    self._asked.reload = False
                    self.take_over(reread())
                self._source.wait(rest)
            self.finish()
        finally:
            self.end()
        self._say_stopped()

    def begin(self) -> None:
        """Start the couriers, and note where reading begins."""
        self._couriers.take_over()
        self._couriers.serve()
        # "now" is the time of the first start: a crash a second later must not move it.
        self._save_position()
        self._feed()
        gc.enable()
        import_late()
        import_parser(self._settings.source)
        log.info("following %s; incidents in %s", describe(self._settings.source), self._store.directory)

    def turn(self) -> float:
        """Read and record one batch, do what is due by the clock, and return for how many seconds to wait then."""
        self._has_told = False
        self._is_whole = self._record()
        if self._is_whole:
            self._do_what_is_due()
        self._couriers.serve()
        self._feed()
        self._measure()
        if not self._is_warm and not self._has_told:
            self._is_warm = True
            self._recorder.warm_up()
        # The head start may have used up a hint.
        return 0.0 if self._has_told else min(WAIT_SECONDS, self._recorder.next_due())

    def finish(self) -> None:
        """Put on disk what waits. Not after an unexpected exception: what it interrupted was read but not stored."""
        sdnotify.notify("STOPPING=1", patience_seconds=STOPPING_SECONDS)
        self._recorder.flush()
        if self._is_whole:
            self._save_position()

    def end(self) -> None:
        """Close everything."""
        self._log_notices()
        self._couriers.stop(seconds=0.0)
        self._source.close()
        self._couriers.stop(STOP_SECONDS)

    def _record(self) -> bool:
        """Read and record one batch; False if a stop cut it off."""
        snapshot: Snapshot | None = None
        decided: list[Decided] = []
        for record in self._source.read():
            found = self._detector.feed(record)
            if found:
                said = found[-1][1]
                host = said.host if snapshot and said.host == snapshot.host else self._recorder.host_of(said)
                snapshot = self._recorder.take_event_snapshot(host, snapshot)
                decided += found
        for gap in self._source.gaps():
            log.warning("%s: %s", gap.what, gap.why)
        self._recorder.watch()
        return snapshot is None or self._recorder.handle(decided, snapshot, self._may_continue)

    def _do_what_is_due(self) -> None:
        if self._has_told and any(self._couriers):
            self._source.wait(HEAD_START_SECONDS)
        self._recorder.tick()
        now = self._now()
        if self._recorder.position.is_due(now):
            self._save_position()
        if abs(now - self._pruned_at) >= PRUNE_SPACING and not self._recorder.position.dirty:
            self._pruned_at = now
            self._prune(self._store.samples.believe(now), self._recorder.forget_removed)

    # --- inside -----------------------------------------------------------------------------------------------------

    def _may_continue(self) -> bool:
        """Feed the watchdog in the middle of a batch, and look whether the service is to stop."""
        self._feed()
        self._measure()
        return not self._asked.stop

    def _save_position(self) -> None:
        """Save where the source was read to, unless something before that point is not stored or decided yet."""
        now, position = self._now(), self._recorder.position
        if position.may_be_saved(now, is_undecided=self._detector.waiting(now)):
            # Without it a restart reads a little more again: no reason to stop watching.
            with self._troubles.survived(UNSAVED):
                if position.save(self._source.position(), now):
                    log.debug("position saved: generation %d", position.resume.generation)

    def _prune(self, now: datetime | None, forget_removed: Callable[[], None] = lambda: None) -> None:
        """Apply retention, which needs no space and spares the incident with the newest position."""
        with self._troubles.survived("retention cannot be applied"):
            for incident_id in prune(self._store, now):
                log.info("incident %s removed: retention", incident_id)
            forget_removed()

    def _open_metrics(self) -> Published | None:
        path = self._settings.metrics.textfile
        return Published(Path(path), METRICS_SECONDS, self._outside.monotonic) if path else None

    def _measure(self, *, stopped: bool = False) -> None:
        """Write the metrics if they changed; once ``stopped``, only what was counted: the rest is so no longer."""
        if self._metrics_file is None:
            return
        recorder, couriers, now = self._recorder, tuple(self._couriers), self._now()
        families = [*metrics.counters(recorder.counted, recorder.opened, couriers)]
        families += metrics.still_open(() if stopped else recorder.still_open)
        owed = () if stopped else [courier.waiting for courier in couriers]
        families += () if stopped else metrics.host(recorder.gauges)
        changing = [*metrics.waiting(() if stopped else couriers, now), *metrics.written(now)]
        text = metrics.render(families)
        with self._troubles.survived(UNMEASURED):
            self._metrics_file.update((text, owed), (text + metrics.render(changing)).encode)

    def _publish(self, *, is_running: bool = True) -> None:
        """Write status.json, if what it says has changed."""
        with self._troubles.survived("status.json cannot be written"):
            self._status_file.update(
                describe(self._settings.source),
                still_open=self._recorder.still_open,
                last=self._recorder.last,
                channels=self._couriers.published,
                silence=self._silence,
                troubles=self._troubles_now(),
                is_running=is_running,
            )

    def _say_stopped(self) -> None:
        """Leave files that say so."""
        self._publish(is_running=False)
        self._measure(stopped=True)

    def _informed_detector(self) -> Detector:
        """Make a detector that knows the newest events, so that lines after a restart are compared with them."""
        detector, before = Detector(), self._source.before()
        for event in (event for incident in self._recorder.seen_last() for event in incident.last_of_kind):
            remembered = LogRecord(
                text="",
                line=event.line,
                source=event.source,
                provenance=event.provenance,
                # Where it was not the line before, it is near by the clock only.
                ordinal=before.get(event.source, -2),
                at=event.at,
                uptime=event.uptime,
                host=event.host,
            )
            detector.remember(remembered, event)
        return detector

    def _make_recorder(self) -> Recorder:
        return Recorder(
            self._store,
            settings=self._settings.incident,
            channels=self._couriers.names,
            now=self._now,
            on_notice=self._on_notice,
            troubles=self._troubles,
            proc_root=self._outside.proc_root,
            monotonic=self._outside.monotonic,
            make_survey=self._outside.make_survey,
        )

    def _open_source(self, settings: SourceSettings, on_progress: Callable[[], None]) -> Source:
        return self._outside.open_source(settings, self._recorder.position.resume.cursor, self._now, on_progress)

    def _on_notice(self, notice: Notice) -> None:
        """Wake the couriers; what else is to be done about a notice waits until it is out."""
        self._has_told = True
        self._couriers.wake()
        self._unlogged.append(notice)

    def _log_notices(self) -> None:
        """Log what was told, unless standard output has it anyway."""
        if self._unlogged and not any(channel.type == "stdout" for channel in self._couriers.channels):
            for notice in self._unlogged:
                if notice.data:
                    what = notice.type.rpartition(".")[2]
                    log.warning("incident %s %s: %s", notice.data.id, what, notice.data.summary)
        self._unlogged.clear()

    def _feed(self) -> None:
        """Feed systemd's watchdog, with the status in one line; say the same to everyone else."""
        self._log_notices()
        before, self._silence = self._silence, self._silencer.current(self._now())
        if self._silence != before:
            self._couriers.wake()
        self._ready = self._ready or sdnotify.notify("READY=1")
        if self._ready:
            sdnotify.notify(f"WATCHDOG=1\nSTATUS={self.status()}")
        self._publish()

    def _work_goes_on(self) -> None:
        """Do so in the middle of what may take minutes."""
        sdnotify.work_goes_on()
        self._publish()

    def status(self) -> str:
        """Return the line that ``systemctl status`` shows."""
        last = self._recorder.last
        state = f"following {describe(self._settings.source)}"
        if last is None:
            state += "; no incident yet"
        else:
            still = "OPEN" if last.closed_at is None else "last"
            resets = last.witness.kills if last.witness else None
            traced = f", {counted(resets, 'reset')} traced" if resets else ""
            state += (
                f"; {still} incident {last.id}: {last.cause} ({last.confidence}), "
                f"{counted(sum(last.events.values()), 'line')}{traced}"
            )
        silence = [f"silenced {silence_text(self._silence, self._now())}"] if self._silence else []
        # It holds foreign text: a line break would be another assignment to systemd.
        found = [state, *silence, *self._troubles_now(), *self._couriers.statuses]
        return printable("; ".join(found), STATUS_CHARACTERS)

    def _troubles_now(self) -> list[str]:
        """List what fails, channels excepted."""
        others = filter(None, (self._silencer.trouble, self._couriers.trouble))
        return [*self._source.troubles(), *self._troubles, *others]

    def take_over(self, settings: Settings | None) -> None:
        """Apply a new configuration; None means that it was bad, and the old one stays."""
        if settings is None:
            self._troubles.begin(UNUSABLE)
            return
        try:
            couriers = Couriers(settings, self._outbox, self._outside)
            import_late()
            import_parser(settings.source)
            source = self._open_again(settings.source)
        except (ChannelError, ImportError, OSError) as error:
            log.error("%s; the old configuration stays in effect", error)  # noqa: TRY400 - the text is the whole story
            self._troubles.begin(UNUSABLE)
            return
        if source:
            self._source.close()
            self._source, self._detector = source, self._informed_detector()
        couriers.take_over(self._couriers)
        self._couriers = couriers
        before, self._settings = self._settings, settings
        if settings.metrics != before.metrics:
            self._measure(stopped=True)  # In the file that is written no longer.
            self._metrics_file = self._open_metrics()
            self._troubles.end(UNMEASURED)
        self._store.settings = settings.store
        self._recorder.settings, self._recorder.channels = settings.incident, couriers.names
        self._troubles.end(UNUSABLE)
        log.info("configuration reloaded; following %s", describe(settings.source))

    def _open_again(self, settings: SourceSettings) -> Source | None:
        """Open the source of a new configuration before the old one is closed; None if it is the same."""
        if settings == self._settings.source:
            return None
        self._recorder.flush()
        self._save_position()
        return self._open_source(settings, self._work_goes_on)
