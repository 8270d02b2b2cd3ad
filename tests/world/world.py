"""A world under one seed: a host, its log, a disk, receivers and clocks around the real service, in one process.

No thread, no sleep, no network: the service is turned, its couriers and its survey are stepped, in an order drawn from
the seed, each also in the middle of another's system call. Which kinds of faults there are is drawn first, so that rare
ones meet. What is always to be so is in world_model. A failure names its seed; the same seed is the same world:

    make world SEED=17 MINUTES=10
"""

import hashlib
import os
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from random import Random
from unittest import mock

from harness import SOCKSTAT, write_proc
from world_disk import Disk, Killed
from world_log import Writer
from world_model import Model
from world_receivers import BAD, Receiver

from agent.core.model import Silence
from agent.core.readings import SocketGroup, SocketTable, Tally
from agent.core.settings import (
    AlertmanagerSettings,
    IncidentSettings,
    PagerDutySettings,
    Settings,
    SlackSettings,
    SourceSettings,
    StoreSettings,
    WebhookSettings,
)
from agent.notifiers import build
from agent.service.courier import Courier
from agent.service.daemon import Daemon
from agent.service.outside import Outside
from agent.service.signals import Signals
from agent.service.survey import Survey
from agent.sources.file.source import LogFileSource
from agent.store import Store, StoreError, write_silence

START = datetime(2026, 11, 22, 15, 55, 39, tzinfo=timezone.utc)
FAULTS = (
    *("kill", "power", "full", "EIO", "slow", "receivers", "clock"),
    *("rotate", "reload", "hosts", "stamps", "gauges", "stop", "silence", "race"),
)
# These come before a call on the disk, the n-th of all; what harms a file, also of those on a kind of file, which is
# drawn, so that each has its turn.
AT_A_CALL = ("kill", "power", "EIO", "clock", "reload", "stop")
ENDS_AT = ("", "incident", "notice", ".ops.", "snapshot", "cursor", "jsonl", "fsync state")
CALLS = (1, 1, 1, 2, 2, 3, 4, 5, 6, 8, 20, 50)
FILES = {"kill": ENDS_AT, "power": ENDS_AT, "EIO": ("", ".ops.", "jsonl", "fsync state", "fsync state")}
# A digest that a kill interrupted goes alone, what else was held an hour after it; both count from what a start sees.
CLOSE_SECONDS, SETTLE_SECONDS = 180.0, 2 * 3600.0 + 60
SOCKETS = SocketTable(
    groups=(SocketGroup(cgroup=77, port=80, held={"established": Tally(sockets=40, bytes=4096)}),),
    paths={1: "/", 77: "/system.slice/nginx.service"},
    complete=True,
)
NETSTAT = "TcpExt: TCPLostRetransmit TCPAbortOnMemory TCPMemoryPressures\nTcpExt: {} {} {}\n"
SNMP = "Tcp: CurrEstab OutSegs RetransSegs\nTcp: {} {} {}\n"
FOREVER = float("inf")
_PREAD = os.pread


class Actor:
    """Something that acts when it is due, and says when it is due again."""

    def __init__(self, name: str, act: Callable[[], float], due: float = 0.0) -> None:
        self.name, self.act, self.due = name, act, due
        self.is_busy = self.has_said = self.was_silenced = False

    def is_in_trouble(self, at: Path) -> bool:
        """Return whether its status says that something fails at a place on the disk."""
        return False


class Served(Actor):
    """Stands for the thread of a channel: agent.service.channel_thread.ChannelThread."""

    def __init__(self, world: "World", channel: str, step: Callable[[], float], *_: object) -> None:
        super().__init__(f"courier {channel}", self._step, world.second)
        self._channel, self._world, self._courier = channel, world, step.__self__
        self._is_served = self._is_stopped = False

    def is_in_trouble(self, at: Path) -> bool:
        return self._courier.status is not None

    def _step(self) -> float:
        rest = self._courier.step()
        self._world.model.after_step(self._channel)
        return FOREVER if self._is_stopped and not self._courier.is_settling() else rest

    @property
    def last_progress(self) -> float:
        return self._world.uptime()

    def start(self) -> None:
        if not self._is_served:
            self._is_served, self.due = True, self._world.second + self._world.chance.choice((0.0, 0.05, 1.0))
            self._world.actors.append(self)

    def wake(self) -> None:
        self.due = self.due if self._is_stopped else min(self.due, self._world.second)

    def stop(self, timeout: float) -> None:
        self._is_stopped = True
        while timeout and not self.is_busy and self._courier.is_settling() and self._courier.step() == 0:
            pass  # Nothing else acts while the main thread waits for this one.
        if not self._is_at_work() and self in self._world.actors:
            self._world.actors.remove(self)

    def is_alive(self) -> bool:
        return self._is_served and (self._is_at_work() or not self._is_stopped)

    def _is_at_work(self) -> bool:
        return self.is_busy or self._courier.is_settling()


class Surveyed(Actor):
    """Stands for the thread of a survey."""

    def __init__(self, world: "World", target: Callable[[], None]) -> None:
        super().__init__("survey", lambda: target() or FOREVER, world.second)
        self._world = world

    def start(self) -> None:
        self._world.actors.append(self)

    def is_alive(self) -> bool:
        return self.due < FOREVER


class World:
    """One run; ``seconds`` of faults, then calm until all is settled."""

    def __init__(self, seed: int, folder: Path, seconds: float) -> None:
        self.seed, self.folder, self.seconds = seed, folder.resolve(), seconds
        self.chance = Random(seed)
        self.second = self._booted = 0.0
        self._ahead = timedelta(0)
        self._hash = hashlib.sha256()
        self.faults = {each for each in FAULTS if self.chance.random() < 0.4}
        self.is_calm = False
        # Of each fault that waits: the kind of file, and how many calls on it are still to come.
        self._awaited: dict[str, tuple[str, int]] = {}
        self._full_until = 0.0
        self._silence: Silence | None = None
        self._is_dead = False
        self.actors: list[Actor] = []
        self.store = Store(self.folder / "state", StoreSettings(min_free_bytes=0))
        self.disk = Disk(self.folder / "state", self._before, self._after)
        self.writer = Writer(self.folder / "log/messages", self.chance, self.now, self.uptime)
        self.writer.hosts = ("web1", "db2", "db3") if "hosts" in self.faults else ("web1",)
        self.writer.is_stamp_off = "stamps" in self.faults
        self.proc = write_proc(self.folder / "proc")
        self.model = Model(self)
        self._receivers: list[Receiver] = []
        self._settings = self._make_settings()
        self._signals = Signals()
        self._lock: int | None = None
        self.daemon: Daemon | None = None
        self._service = self.acting = Actor("service", self._turn)
        self._service.is_in_trouble = self._is_in_trouble
        self._gap = self.chance.choice((25.0, 60.0, 120.0, 240.0))

    def run(self) -> str:
        """Let it run, and return the digest of all that happened."""
        self._writing = Actor("writer", self._write, 1.0)
        self.actors = [
            self._service,
            self._writing,
            Actor("host", self._measure, 5.0),
            Actor("fate", self._decree, 3.0),
        ]
        with self.disk.installed(), self.model.listening(), mock.patch("os.pread", self._read):
            self.let(self.seconds)
            self._calm_down()
            self._settle()
        return self._hash.hexdigest()

    def note(self, what: str) -> None:
        """Note what happened; without paths and inodes, which the seed does not decide."""
        self._hash.update(f"{self.second:.3f} {what}\n".encode())
        self.model.story.append(f"{self.second:10.3f} {what}")

    # --- clocks -------------------------------------------------------------------------------------------------------

    def true_time(self) -> datetime:
        return START + timedelta(seconds=self.second)

    def now(self) -> datetime:
        return self.true_time() + self._ahead

    def is_silenced(self) -> bool:
        return self._silence is not None and self._silence.is_on(self.now())

    def uptime(self) -> float:
        return 100.0 + self.second - self._booted

    def let(self, seconds: float) -> None:
        """Let all who are not busy act for so long, in an order drawn from the seed."""
        end = self.second + seconds
        is_top = not any(actor.is_busy for actor in self.actors)
        while True:
            idle = [actor for actor in self.actors if not actor.is_busy and actor.due <= end]
            if not idle:
                break
            self.second = max(self.second, min(actor.due for actor in idle))
            due = [actor for actor in idle if actor.due <= self.second]
            try:
                self._act(self.chance.choice(due))
            except Killed:
                if not is_top:
                    raise
                self._bury()
        self.second = max(self.second, end)

    def _act(self, actor: Actor) -> None:
        before, self.acting, actor.is_busy, actor.has_said = self.acting, actor, True, False
        actor.was_silenced = self.is_silenced()
        try:
            actor.due = max(self.second + actor.act(), self.second + 0.001)
        finally:
            actor.is_busy, self.acting = False, before
        if self.model.violation:
            raise self.model.violation
        if self._is_dead:
            raise Killed
        self.model.after_act(actor)

    # --- the service --------------------------------------------------------------------------------------------------

    def _turn(self) -> float:
        try:
            if self.daemon is None:
                self._start()
                return 0.0
            rest = self.daemon.turn()
            if self._signals.reload:
                self._signals.reload = False
                self.daemon.take_over(self._settings)
            if self._signals.stop:
                self._stop()
                return 0.0
        except (OSError, StoreError) as error:
            self.note(f"service ends: {type(error).__name__}")
            if self.daemon:
                self.daemon.end()
            self._die()
            return 0.0
        return rest * (10.0 if self.is_calm else 3.0)  # A turn too late changes nothing.

    def _start(self) -> None:
        self.note("start")
        if (ends := sorted(self.faults & {"kill", "power"})) and not self.is_calm and self.chance.random() < 0.2:
            self._await(self.chance.choice(ends))
        self._signals = Signals()
        self._receivers = []
        self._lock = self.store.open_for_writing()
        outside = Outside(
            self.proc,
            runtime=self.folder,
            now=self.now,
            monotonic=self.uptime,
            open_source=lambda settings, cursor, now, _: LogFileSource(
                settings.paths, cursor, settings.start, now, _Waker(self)
            ),
            build=self._build,
            make_courier=lambda notifier, outbox, rules: Courier(
                notifier,
                outbox,
                rules,
                monotonic=self.uptime,
                now=self.now,
                random=self.chance.random,
                make_thread=lambda channel, step, *_: Served(self, channel, step),
            ),
            make_survey=self._make_survey,
        )
        self.daemon = Daemon(self._settings, self.store, self._signals, outside)
        self.daemon.begin()

    def _stop(self) -> None:
        self.note("stop")
        self.daemon.finish()
        self.daemon.end()
        self._die()

    def _die(self) -> None:
        """End the process, with the steps that are under way."""
        self._awaited.clear()
        self._is_dead = True
        self.model.forgive()

    def _bury(self) -> None:
        """Take away what is left of the process."""
        self.model.note_end()
        self._clear()
        self._is_dead = False
        self._service.due = self.second + self.chance.uniform(0.1, 15.0)

    def _clear(self) -> None:
        if self.daemon:
            self.daemon._source.close()
        self.daemon = None
        self.store = Store(self.store.directory, self.store.settings)
        self.disk.abandon()
        if self._lock is not None:
            os.close(self._lock)
        self._lock = None
        self.actors = [each for each in self.actors if not isinstance(each, Served | Surveyed)]

    def _is_in_trouble(self, at: Path) -> bool:
        what = "history" if str(at).startswith("history") else "cannot be"
        return self.daemon is not None and what in self.daemon.status()

    def _make_settings(self) -> Settings:
        key = self.folder / "key"
        key.write_text("0" * 32)
        return Settings(
            source=SourceSettings(kind="file", paths=(str(self.writer.path),), start="beginning"),
            store=self.store.settings,
            incident=IncidentSettings(quiet_seconds=60, pressure="gauges" in self.faults),
            notify=(
                WebhookSettings(name="ops", url="http://ops/hook"),
                AlertmanagerSettings(name="alerts", urls=("http://a:9093", "http://b:9093")),
                PagerDutySettings(name="pager", routing_key_file=str(key)),
                SlackSettings(name="chat", url="http://chat/services/T/B/X"),
            ),
        )

    def _build(self, settings):
        """Make the real notifier, with the world's clock and receivers behind it."""
        notifier = build(settings)
        notifier._now = self.now
        made = [
            Receiver(f"{settings.name}{number}", self.chance, self.model.judge, self.let, self.true_time)
            for number in range(2)
        ]
        if settings.type == "alertmanager":
            notifier._monotonic, notifier._posters = self.uptime, made
        else:
            notifier._poster = made.pop()
        self._receivers += made if settings.type == "alertmanager" else [notifier._poster]
        self._weather()
        return notifier

    def _make_survey(self, root: Path, now: datetime) -> Survey:
        def take(*_: object, **__: object) -> SocketTable:
            self.let(self.chance.choice((0.0, 0.2)))
            return SOCKETS

        with mock.patch("agent.service.survey.is_this_host", return_value=True):
            return Survey(root, now, take, lambda target, **_: Surveyed(self, target))

    # --- what happens -------------------------------------------------------------------------------------------------

    def _write(self) -> float:
        draw = self.chance.random()
        if draw < 0.6:
            self.writer.hit()
            self.note(f"hits {sum(self.writer.written.values())}")
            if (ends := sorted(self.faults & {"kill", "power"})) and self.chance.random() < 0.5:
                self._await(self.chance.choice(ends))
        elif draw < 0.8 and "rotate" in self.faults:
            is_begun, recorded = bool(self.store.ids()), self.model.is_all_recorded()
            is_followed = is_begun or self.disk.is_durable(Path("cursor.json"))
            way = self.writer.rotate(is_followed=is_followed, is_begun=is_begun, is_all_recorded=recorded)
            self.note(f"rotate {way}")
        else:
            self.writer.noise()
        if self.chance.random() < 0.8:  # A hint may be lost.
            self._service.due = min(self._service.due, self.second + 0.01)
        return self.chance.choice((0.3, *[self.chance.expovariate(1 / self._gap)] * 4))

    def _read(self, descriptor: int, size: int, offset: int) -> bytes:
        """Read from the log; much may be written until the next call of the same look."""
        data = _PREAD(descriptor, size, offset)
        if "race" in self.faults and not self.is_calm and self.chance.random() < 0.03:
            for _ in range(self.chance.choice((1, 2, 4))):
                self._write()
        return data

    def _measure(self) -> float:
        is_high = "gauges" in self.faults and not self.is_calm and self.chance.random() < 0.1
        orphan, mem = 8000 if is_high else self.chance.randrange(30), self.chance.randrange(100, 999)
        (self.proc / "net/sockstat").write_text(SOCKSTAT.format(inuse=20, orphan=orphan, mem=mem))
        counted = int(self.uptime())  # Each since the boot.
        (self.proc / "net/netstat").write_text(NETSTAT.format(50 * counted, counted // 7, counted // 90))
        (self.proc / "net/snmp").write_text(SNMP.format(20 + orphan, 9000 * counted, 50 * counted))
        (self.proc / "uptime").write_text(f"{self.uptime():.2f} 1.00\n")
        (self.proc / "sys/kernel/random/boot_id").write_text(f"00000000-0000-4000-8000-{int(self._booted):012}\n")
        return 10.0

    def _decree(self) -> float:
        """Let the next fault happen, or be over."""
        kind = self.chance.choice(sorted(self.faults)) if self.faults else ""
        if kind in AT_A_CALL:
            self._await(kind)
        elif kind == "full":
            self._full_until = self.second + self.chance.choice((1.0, 30.0, 120.0, 400.0))
        elif kind == "receivers":
            self._weather()
        elif kind == "silence":
            until = self.now() + timedelta(seconds=self.chance.choice((60, 300, 1200)))
            self._silence = Silence(since=self.now(), until=until, reason="upgrade")
            write_silence(self.store.directory, self._silence)
        self.note(f"fate: {kind}")
        return self.chance.expovariate(1 / 8.0)

    def _weather(self) -> None:
        for receiver in self._receivers:
            bad = self.chance.sample(BAD, 2) if "receivers" in self.faults and not self.is_calm else []
            receiver.answers = self.chance.choice((("ok",), ("ok", *bad), (*bad, "refused"))) if bad else ("ok",)

    def _before(self, call: str, at: Path, *, grows: bool = False) -> None:
        """Decide what becomes of a change on the disk."""
        if self._is_dead:
            raise Killed
        if self.acting.name == "fate":  # `sockmem-agent silence` is another process.
            return
        for kind, (name, calls) in list(self._awaited.items()):
            if name in f"{call} {at.name or 'state'}":
                self._awaited[kind] = name, calls - 1
                if calls == 1:
                    del self._awaited[kind]
                    self._strike(kind, call, at)
        if grows and self.second < self._full_until:
            self.model.note_error("ENOSPC", call, at)
        # A disk is slow where it is waited for.
        if "slow" in self.faults and not self.is_calm and self.chance.random() < (0.2 if call == "fsync" else 0.03):
            self.let(self.chance.choice((0.001, 0.05, 0.3)))

    def _after(self, at: Path) -> None:
        if at.name in ("cursor.json", "incident.json"):
            self.model.check_start()

    def _await(self, kind: str) -> None:
        self._awaited[kind] = self.chance.choice(FILES.get(kind, ("",))), self.chance.choice(CALLS)

    def _strike(self, kind: str, call: str, at: Path) -> None:
        """Let a fault happen before a call on the disk, and often the next lines soon after it."""
        self.note(f"{kind} before {call} of {at}")
        if self.chance.random() < 0.8:
            self._writing.due = min(self._writing.due, self.second + self.chance.choice((0.01, 0.5, 3.0)))
        if kind == "EIO":
            self.model.note_error(kind, call, at)
        elif kind == "clock":
            seconds = self.chance.choice((2, 50, 400, 4000, 90_000))
            self._ahead += self.chance.choice((-1, 1)) * timedelta(seconds=seconds)
        elif kind == "reload":
            self._signals.reload = True
        elif kind == "stop":
            self._signals.stop = True
        else:
            self._die()
            if kind == "power":
                self.disk.cut_power(self.chance)
                self._booted = self.second
            raise Killed

    # --- the end ------------------------------------------------------------------------------------------------------

    def _calm_down(self) -> None:
        self.note("calm")
        self.is_calm = True
        self._awaited.clear()
        self._full_until = 0.0
        self._signals.reload = self._signals.stop = False
        self._weather()
        self.writer.noise()
        self.writer.rest()
        self.actors = [each for each in self.actors if each.name not in ("writer", "fate")]

    def _settle(self) -> None:
        """Within three minutes no incident is open, within two hours nothing is owed; another start changes nothing."""
        end = self.second + SETTLE_SECONDS
        self.let(CLOSE_SECONDS)
        if still_open := self.model.still_open():
            self.model.fail(f"open three minutes after the last line: {still_open}")
        while not self.model.is_settled():
            if self.second > end:
                self.model.fail(f"not settled within two hours: {[*self.model.unsettled()]}")
            self.let(60.0)
        self.model.check_end()
        before = self.model.told()
        self._signals.stop = True
        self.let(120.0)
        if self.model.told() != before:
            self.model.fail("something was sent again after all was settled")
        if self.daemon:
            self._stop()
            self._bury()


class _Waker:
    """Stands for watchdog: the world decides when somebody looks; a head start lets the others act."""

    def __init__(self, world: World) -> None:
        self._world = world

    def watch(self, directories: object) -> None:
        pass

    def wait(self, timeout: float) -> None:
        self._world.let(timeout)

    def close(self) -> None:
        pass
