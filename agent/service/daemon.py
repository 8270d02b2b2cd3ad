"""The composition root, which knows all other modules: main loop, signals, watchdog, status.

One turn: read a batch, record its events, do what is due by the clock, save the position, wait at most a second. The
disk is the queue and every wake-up is a hint, so a turn too many or too late changes nothing.
"""

import logging
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

from agent.config.load import channels
from agent.core.dispatch import rules_of
from agent.core.format import counted, printable
from agent.core.kernel.detector import Decided, Detector
from agent.core.model import LogRecord, Notice, Silence, Snapshot
from agent.core.settings import Settings, SourceSettings
from agent.core.status import silence_text
from agent.notifiers import ChannelError, build
from agent.service import metrics, sdnotify, threads
from agent.service.courier import Courier, absent
from agent.service.open_incident import write_missing_summaries
from agent.service.published import Published
from agent.service.recorder import Recorder
from agent.service.signals import Signals
from agent.service.silence import Silencer
from agent.service.status import StatusFile, channel_of
from agent.service.troubles import Troubles
from agent.sources import Source, describe, local_now, open_source
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
# A POST may take its whole deadline; a courier without progress for longer than this is stuck.
COURIER_PATIENCE_SECONDS = 90.0
NO_ROOM = "TasksMax= leaves no threads for these channels"
UNSAVED = "the position cannot be saved"


class Daemon:
    """The service: built once, turned until told to stop."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        *,
        now: Callable[[], datetime] = local_now,
        proc_root: Path = Path("/proc"),
        runtime: Path | None = None,
    ) -> None:
        """Open everything; what cannot be opened raises before READY=1.

        ``runtime`` is the directory of status.json: by default the state directory.
        """
        self._settings = settings
        self._store = store
        self._outbox = Outbox(store)
        self._now = now
        self._channels = channels(settings)
        self._notifiers = [build(channel) for channel in self._channels]
        self._troubles = Troubles()
        store.set_broken_aside()
        # Before anything is written: this makes room if a full disk ended the previous process. Nothing goes by age
        # yet, since the clock of a booting host may be wrong.
        self._prune(None)
        write_missing_summaries(store, self._troubles)
        self._recorder = self._make_recorder(proc_root)
        self._source = open_source(settings.source, self._recorder.position.resume.cursor, now, sdnotify.work_goes_on)
        self._detector = self._informed_detector()
        self._couriers: list[Courier] = []
        self._leaving: list[Courier] = []
        self._unserved = ""
        self._pruned_at = now()
        self._silencer = Silencer(store.directory)
        self._silence: Silence | None = None
        self._status_file = StatusFile(runtime or store.directory, store.directory)
        self._metrics_file = self._open_metrics()
        self._ready = False
        self._has_told = self._is_warm = False
        # Notices that our own log does not have yet.
        self._unlogged: list[Notice] = []
        self._asked = Signals()

    # --- life -------------------------------------------------------------------------------------------------------

    def run(self, reread: Callable[[], Settings | None], asked: Signals) -> None:
        """Turn until asked to stop; when asked to reload, apply what ``reread`` returns, unless that is None."""
        asked.started = True
        self._asked = asked
        self._couriers = self._make_couriers()
        self._serve()
        # "now" is the time of the first start: a crash a second later must not move it.
        self._save_position()
        self._feed()
        log.info("following %s; incidents in %s", describe(self._settings.source), self._store.directory)
        try:
            is_whole = True
            while not asked.stop:
                is_whole = self.turn()
                self._serve()
                self._feed()
                self._measure()
                if not self._is_warm and not self._has_told:
                    self._is_warm = True
                    self._recorder.warm_up()
                if asked.reload:
                    asked.reload = False
                    self._take_over(reread())
                # The head start may have used up a hint.
                self._source.wait(0.0 if self._has_told else min(WAIT_SECONDS, self._recorder.next_due()))
            sdnotify.notify("STOPPING=1", patience_seconds=STOPPING_SECONDS)
            # Not after an unexpected exception: what it interrupted was read but not stored.
            self._recorder.flush()
            if is_whole:
                self._save_position()
        finally:
            self._end()
        self._say_stopped()

    def _end(self) -> None:
        """Close everything; the couriers share one deadline."""
        self._log_notices()
        couriers = [*self._couriers, *self._leaving]
        for courier in couriers:
            courier.thread.stop(timeout=0.0)
        self._source.close()
        deadline = time.monotonic() + STOP_SECONDS
        for courier in couriers:
            courier.thread.stop(timeout=max(0.0, deadline - time.monotonic()))

    def turn(self) -> bool:
        """Read and record one batch, then do what is due by the clock; False if a stop cut the batch off."""
        snapshot: Snapshot | None = None
        decided: list[Decided] = []
        self._has_told = False
        for record in self._source.read():
            found = self._detector.feed(record)
            if found:
                snapshot = self._recorder.take_event_snapshot(found[-1][1].host, snapshot)
                decided += found
        for gap in self._source.gaps():
            log.warning("%s: %s", gap.what, gap.why)
        self._recorder.watch()
        if snapshot and not self._recorder.handle(decided, snapshot, self._may_continue):
            return False
        if self._has_told and self._couriers:
            self._source.wait(HEAD_START_SECONDS)
        self._recorder.tick()
        now = self._now()
        if self._recorder.position.is_due(now):
            self._save_position()
        if abs(now - self._pruned_at) >= PRUNE_SPACING and not self._recorder.position.dirty:
            self._pruned_at = now
            self._prune(self._store.samples.believe(now))
            self._recorder.forget_removed()
        return True

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

    def _prune(self, now: datetime | None) -> None:
        """Apply retention, which needs no space and spares the incident with the newest position."""
        with self._troubles.survived("retention cannot be applied"):
            for incident_id in prune(self._store, now):
                log.info("incident %s removed: retention", incident_id)

    def _open_metrics(self) -> Published | None:
        path = self._settings.metrics.textfile
        return Published(Path(path), METRICS_SECONDS) if path else None

    def _measure(self, *, stopped: bool = False) -> None:
        """Write the metrics if they changed; once ``stopped``, only what was counted: the rest is so no longer."""
        if self._metrics_file is None:
            return
        recorder, couriers, now = self._recorder, self._couriers, self._now()
        families = [*metrics.counters(recorder.counted, recorder.opened, couriers)]
        families += metrics.still_open(() if stopped else recorder.still_open)
        owed = () if stopped else [courier.waiting for courier in couriers]
        families += () if stopped else metrics.host(recorder.gauges)
        changing = [*metrics.waiting(() if stopped else couriers, now), *metrics.written(now)]
        text = metrics.render(families)
        with self._troubles.survived("the metrics cannot be written"):
            self._metrics_file.update((text, owed), (text + metrics.render(changing)).encode)

    def _publish(self, *, is_running: bool = True) -> None:
        """Write status.json, if what it says has changed."""
        types = {channel.name: channel.type for channel in self._channels}
        with self._troubles.survived("status.json cannot be written"):
            self._status_file.update(
                describe(self._settings.source),
                still_open=self._recorder.still_open,
                last=self._recorder.last,
                channels=[channel_of(each, types, hangs=self._hangs(each)) for each in self._couriers],
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
        detector = Detector()
        last = self._recorder.last
        for event in last.last_of_kind if last else ():
            remembered = LogRecord(
                text="",
                line=event.line,
                source=event.source,
                provenance=event.provenance,
                ordinal=-2,  # Near by the clock only: whether it was the line before is no longer known.
                at=event.at,
                uptime=event.uptime,
                host=event.host,
            )
            detector.remember(remembered, event)
        return detector

    def _make_recorder(self, proc_root: Path) -> Recorder:
        return Recorder(
            self._store,
            settings=self._settings.incident,
            channels=[c.name for c in self._channels],
            now=self._now,
            on_notice=self._on_notice,
            troubles=self._troubles,
            proc_root=proc_root,
        )

    def _make_couriers(self) -> list[Courier]:
        couriers = [
            Courier(notifier, self._outbox, rules_of(channel))
            for notifier, channel in zip(self._notifiers, self._channels, strict=True)
        ]
        gone = self._outbox.owing() - {channel.name for channel in self._channels}
        couriers += [absent(name, self._outbox) for name in sorted(gone)]
        served = couriers[: self._room()]
        self._unserved = ", ".join(courier.name for courier in couriers[len(served) :])
        if self._unserved:
            log.error("%s: %s; see sockmem-agent config check", NO_ROOM, self._unserved)
        return served

    def _serve(self) -> None:
        """Start the couriers, each after its predecessor has ended: two must not send one notice."""
        self._leaving = [courier for courier in self._leaving if courier.thread.is_alive()]
        leaving = {courier.name for courier in self._leaving}
        for courier in self._couriers:
            if courier.name not in leaving:
                courier.thread.start()

    def _room(self) -> int | None:
        """Return how many channels have threads: were all started, none would have one for its POST."""
        allowed = threads.allowed()
        if allowed is None:
            return None
        return max(0, allowed - threads.needed(self._settings.source, 0)) // threads.EACH_CHANNEL

    def _on_notice(self, notice: Notice) -> None:
        """Wake the couriers; what else is to be done about a notice waits until it is out."""
        self._has_told = True
        self._wake_couriers()
        self._unlogged.append(notice)

    def _log_notices(self) -> None:
        """Log what was told, unless standard output has it anyway."""
        is_shown = any(channel.type == "stdout" for channel in self._channels)
        for notice in self._unlogged:
            if notice.data and not is_shown:
                log.warning("incident %s %s: %s", notice.data.id, notice.type.rpartition(".")[2], notice.data.summary)
        self._unlogged.clear()

    def _wake_couriers(self) -> None:
        for courier in self._couriers:
            courier.thread.wake()

    def _feed(self) -> None:
        """Feed systemd's watchdog, with the status in one line; say the same to everyone else."""
        self._log_notices()
        before, self._silence = self._silence, self._silencer.current(self._now())
        if self._silence != before:
            self._wake_couriers()
        self._ready = self._ready or sdnotify.notify("READY=1")
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
        channels = [trouble for courier in self._couriers if (trouble := courier.status)]
        channels += [f"{each.name}: hangs in an attempt" for each in self._couriers if self._hangs(each)]
        # It holds foreign text: a line break would be another assignment to systemd.
        return printable("; ".join([state, *silence, *self._troubles_now(), *channels]), STATUS_CHARACTERS)

    def _troubles_now(self) -> list[str]:
        """List what fails, channels excepted."""
        silence = [self._silencer.trouble] if self._silencer.trouble else []
        return [*self._troubles, *silence, *([f"{NO_ROOM}: {self._unserved}"] if self._unserved else [])]

    def _hangs(self, courier: Courier) -> bool:
        return courier.thread.last_progress <= time.monotonic() - COURIER_PATIENCE_SECONDS

    def _take_over(self, settings: Settings | None) -> None:
        """Apply a new configuration; None means that it was bad, and the old one stays."""
        if settings is None:
            return
        try:
            notifiers = [build(channel) for channel in channels(settings)]
            source = self._open_again(settings.source)
        except (ChannelError, ImportError, OSError) as error:
            log.error("%s; the old configuration stays in effect", error)  # noqa: TRY400 - the text is the whole story
            return
        if source:
            self._source.close()
            self._source, self._detector = source, self._informed_detector()
        for courier in self._couriers:
            courier.thread.stop(timeout=0.0)
        self._leaving += self._couriers
        self._notifiers = notifiers
        if settings.metrics != self._settings.metrics:
            self._settings = settings
            self._metrics_file = self._open_metrics()
        self._settings = settings
        self._store.settings = settings.store
        self._channels = channels(settings)
        self._couriers = self._make_couriers()
        self._recorder.settings = settings.incident
        self._recorder.channels = tuple(c.name for c in self._channels)
        log.info("configuration reloaded; following %s", describe(settings.source))

    def _open_again(self, settings: SourceSettings) -> Source | None:
        """Open the source of a new configuration before the old one is closed; None if it is the same."""
        if settings == self._settings.source:
            return None
        self._recorder.flush()
        self._save_position()
        return open_source(settings, self._recorder.position.resume.cursor, self._now, self._work_goes_on)
