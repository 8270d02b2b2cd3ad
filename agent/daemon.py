"""The composition root: the one module that knows all the others. Main loop, signals, watchdog, status.

One turn: read a batch, record what the kernel said, do what the clock asks for, save the position, wait at most a
second. The disk is the queue and every wake-up is a hint, so a turn too many or too late changes nothing.
"""

import logging
import signal
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import Protocol

from msgspec.structs import replace

from agent import sdnotify
from agent.config import channels
from agent.core.kmsg import Detector
from agent.core.model import Cursor, LogRecord, Snapshot
from agent.core.readings import Gap
from agent.core.settings import Settings, SourceSettings
from agent.courier import Courier
from agent.notifiers import ChannelError, build
from agent.recorder import Decided, Recorder
from agent.store import Store

log = logging.getLogger("sockmem-agent")

WAIT_SECONDS = 1.0
SAVE_SPACING = timedelta(seconds=5)
PRUNE_SPACING = timedelta(minutes=10)
# A POST may take its whole deadline; a courier silent for longer than this is stuck, and systemd shall know.
COURIER_PATIENCE_SECONDS = 90.0


class Source(Protocol):
    """Where records come from."""

    def read(self) -> Iterator[LogRecord]:
        """Yield one batch: only records that could matter."""

    def wait(self, timeout: float) -> None:
        """Return when there may be more, or after ``timeout`` seconds."""

    def position(self) -> Cursor:
        """Tell where the source was read to; moves on even when nothing matched."""

    def gaps(self) -> tuple[Gap, ...]:
        """Hand over what could not be read since the last call, each thing once."""

    def close(self) -> None:
        """Let go of everything."""


def local_now() -> datetime:
    """Tell the time with the local zone, which stamps without a zone are read in."""
    return datetime.now(UTC).astimezone()


def open_source(settings: SourceSettings, cursor: Cursor, now: Callable[[], datetime]) -> Source:
    """Open the source that is configured; ``auto`` has been resolved before.

    The modules are imported here so that a host without libsystemd can follow a file.
    """
    if settings.kind == "journal":
        from agent.sources.journal import JournalSource  # noqa: PLC0415 - see the docstring

        return JournalSource(settings.directory, settings.start, cursor)
    if settings.kind == "file":
        from agent.sources.logfile import LogFileSource  # noqa: PLC0415 - see the docstring

        return LogFileSource(settings.paths, cursor, settings.start, now)
    from agent.sources.kmsg import KmsgSource  # noqa: PLC0415 - see the docstring

    return KmsgSource(start=settings.start, cursor=cursor)


def merge(old: Cursor, new: Cursor) -> Cursor:
    """Keep the positions of the sources that are not followed today."""
    return Cursor(files=new.files or old.files, journal=new.journal or old.journal, kmsg=new.kmsg or old.kmsg)


class Daemon:
    """The service: built once, turned until told to stop."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        *,
        now: Callable[[], datetime] = local_now,
        proc_root: Path = Path("/proc"),
    ) -> None:
        """Open everything; what cannot be opened raises before READY is said."""
        self._settings = settings
        self._store = store
        self._now = now
        self._channels = channels(settings)
        self._notifiers = [build(channel) for channel in self._channels]
        self._recorder = Recorder(
            store,
            quiet_seconds=settings.incident.quiet_seconds,
            channels=[c.name for c in self._channels],
            now=now,
            told=self._wake_couriers,
            warns=settings.incident.pressure,
            proc_root=proc_root,
        )
        self._source = open_source(settings.source, self._recorder.resume.cursor, now)
        self._detector = Detector()
        self._couriers: list[Courier] = []
        self._leaving: list[Courier] = []
        self._saved_at = self._pruned_at = now()
        self._stopping = self._reload = False
        for name, why in store.broken():
            log.warning("incident directory %s: %s", name, why)

    # --- life -------------------------------------------------------------------------------------------------------

    def run(self, reread: Callable[[], Settings | None]) -> None:
        """Turn until SIGTERM or SIGINT; at SIGHUP take over what ``reread`` returns, unless that is None."""
        signal.signal(signal.SIGTERM, self._on_stop)
        signal.signal(signal.SIGINT, self._on_stop)
        signal.signal(signal.SIGHUP, self._on_reload)
        self._couriers = self._start_couriers()
        # "now" is the moment of the first start: a crash a second later must not make it a later one.
        self._save_position()
        sdnotify.notify("READY=1")
        log.info("following %s; incidents in %s", describe(self._settings.source), self._store.directory)
        try:
            while not self._stopping:
                self.turn()
                self._report()
                if self._reload:
                    self._reload = False
                    self._take_over(reread())
                self._source.wait(min(WAIT_SECONDS, self._recorder.next_due()))
        finally:
            sdnotify.notify("STOPPING=1")
            self._recorder.flush()
            self._save_position()
            self._source.close()
            for courier in [*self._couriers, *self._leaving]:
                courier.stop(timeout=2.0)

    def turn(self) -> None:
        """Read one batch and record what it says, then do what the clock asks for."""
        snapshot: Snapshot | None = None
        decided: list[Decided] = []
        for record in self._source.read():
            found = self._detector.feed(record)
            if found and snapshot is None:
                snapshot = self._recorder.look()
            decided += found
        for gap in self._source.gaps():
            log.warning("%s: %s", gap.what, gap.why)
        if snapshot:
            kept = self._recorder.resume.cursor
            self._recorder.handle(
                [(replace(r, cursor=merge(kept, r.cursor)) if r.cursor else r, e) for r, e in decided], snapshot
            )
        self._recorder.tick()
        now = self._now()
        if abs(now - self._saved_at) >= SAVE_SPACING:
            self._save_position()
        if abs(now - self._pruned_at) >= PRUNE_SPACING:
            self._pruned_at = now
            for incident_id in self._store.prune(now):
                log.info("incident %s removed: retention", incident_id)

    # --- inside -----------------------------------------------------------------------------------------------------

    def _save_position(self) -> None:
        """Save where the source was read to, unless something before that point is not decided or stored yet."""
        self._saved_at = self._now()
        if self._recorder.dirty or self._detector.waiting(self._now()):
            return
        kept = self._recorder.resume.cursor
        cursor = merge(kept, self._source.position())
        if cursor != kept:
            self._recorder.save_position(cursor)

    def _start_couriers(self) -> list[Courier]:
        couriers = [
            Courier(notifier, self._store, give_up_after=channel.give_up_after)
            for notifier, channel in zip(self._notifiers, self._channels, strict=True)
        ]
        for courier in couriers:
            courier.start()
        return couriers

    def _wake_couriers(self) -> None:
        for courier in self._couriers:
            courier.wake()

    def _report(self) -> None:
        """Feed the watchdog while everybody makes progress, and say in one line how it is."""
        if self._leaving and not any(courier.is_alive() for courier in self._leaving):
            # Only now, so that no two of them ever write the same receipt or send the same notice.
            self._leaving, self._couriers = [], self._start_couriers()
        for courier in self._couriers:
            if courier.failure:
                raise courier.failure
        if all(time.monotonic() - c.last_progress < COURIER_PATIENCE_SECONDS for c in self._couriers):
            sdnotify.notify(f"WATCHDOG=1\nSTATUS={self.status()}")

    def status(self) -> str:
        """Say in one line what ``systemctl status`` shows."""
        last = self._recorder.last
        state = f"following {describe(self._settings.source)}"
        if last is None:
            state += "; no incident yet"
        else:
            still = "OPEN" if last.closed_at is None else "last"
            state += (
                f"; {still} incident {last.id}: {last.cause} ({last.confidence}), {sum(last.events.values())} lines"
            )
        troubles = [trouble for courier in self._couriers if (trouble := courier.status())]
        return "; ".join([state, *troubles])

    def _take_over(self, settings: Settings | None) -> None:
        """Go on with a new configuration; None means that it was bad, and the old one stays."""
        if settings is None:
            return
        try:
            notifiers = [build(channel) for channel in channels(settings)]
        except ChannelError as error:
            log.error("%s; the old configuration stays", error)  # noqa: TRY400 - the text is the whole story
            return
        if settings.source != self._settings.source:
            self._recorder.flush()
            self._save_position()
            self._source.close()
            self._source = open_source(settings.source, self._recorder.resume.cursor, self._now)
            self._detector = Detector()
        for courier in self._couriers:
            courier.stop(timeout=0.0)
        self._leaving, self._couriers = [*self._leaving, *self._couriers], []
        self._notifiers = notifiers
        self._settings = settings
        self._store.settings = settings.store
        self._channels = channels(settings)
        self._recorder.quiet = timedelta(seconds=settings.incident.quiet_seconds)
        self._recorder.warns = settings.incident.pressure
        self._recorder.channels = tuple(c.name for c in self._channels)
        log.info("configuration reloaded; following %s", describe(settings.source))

    def _on_stop(self, signum: int, frame: FrameType | None) -> None:
        del signum, frame
        self._stopping = True

    def _on_reload(self, signum: int, frame: FrameType | None) -> None:
        del signum, frame
        self._reload = True


def describe(settings: SourceSettings) -> str:
    """Name a source as people know it."""
    if settings.kind == "file":
        return ", ".join(settings.paths)
    return "the journal" if settings.kind == "journal" else "/dev/kmsg"
