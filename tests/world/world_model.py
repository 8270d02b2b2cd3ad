"""What is always to be so: safety at every moment, and in the calm at the end that all is settled."""

import contextlib
import errno
import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from world_log import TEXTS
from world_receivers import REFUSED, TAKEN, Receiver, messages_of

from agent.core.budget import HOUR_SECONDS, MESSAGES_AN_HOUR, THE_REST, proof_of
from agent.core.dispatch import REMINDER
from agent.core.model import Incident
from agent.sources.file.source import NOT_THERE
from agent.store import Outbox, Store
from agent.store.incidents import INCIDENT_FILE

if TYPE_CHECKING:
    from world import Actor, World

# Their errors are silent on purpose: what is derived, and why a channel fails, which is in the log and the status, too.
DERIVED = ("incidents/last", "incidents/.last", "channels")
SHOWN_LINES = 60
LONGEST_ATTEMPT_SECONDS = 60.0


class Violation(AssertionError):  # noqa: N818 - what it is
    """Something is so that must never be."""


class Message(NamedTuple):
    """What a receiver took: ``budget`` is that of the hour in which a message counts, "" if it costs nothing."""

    channel: str
    type: str
    incident: str
    id: str
    second: float
    budget: str


class Model:
    """Holds what was sent and what went wrong against what is on disk and what the service says."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.story: list[str] = []
        self.violation: Violation | None = None
        self.taken: list[Message] = []
        self._in_flight: dict[str, set[str]] = {}
        self._excused: Counter[tuple[str, str]] = Counter()
        # What a receiver took, and did not want when it came again: the next notice is tried instead.
        self._refused: set[tuple[str, str]] = set()
        # What may be sent again after the end of this process: its receipt could not be written.
        self._unwritten: set[tuple[str, str]] = set()
        # Errors of the disk by whom they met, and the places of which somebody was told.
        self._errors: dict[str, dict[Path, str]] = {}
        self._told: set[Path] = set()
        self._known: set[str] = set()

    def fail(self, why: str) -> None:
        told = "\n".join(self.story[-SHOWN_LINES:])
        again = f"make world SEED={self._world.seed} MINUTES={self._world.seconds / 60:g}"
        # A courier survives whatever is raised in its step: the world raises it again.
        self.violation = self.violation or Violation(f"{told}\n\nseed {self._world.seed}: {why}\nreplay it: {again}")
        raise self.violation

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Hear what the service logs."""
        log, handler = logging.getLogger("sockmem-agent"), _Ear(self._hear)
        log.addHandler(handler)
        propagates, log.propagate = log.propagate, False
        try:
            yield
        finally:
            log.removeHandler(handler)
            log.propagate = propagates

    def _hear(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            self._world.acting.has_said = True
            self.story.append(f"{'':10} says: {record.getMessage().splitlines()[0]}")
        if "closed as it stands" in record.getMessage():
            self.fail("an incident cannot be resumed, though nothing on this disk is damaged")

    # --- messages -----------------------------------------------------------------------------------------------------

    def judge(self, receiver: Receiver, body: dict | list, identity: str) -> None:
        """Judge what a receiver was sent."""
        channel = receiver.place[:-1]
        if receiver.answered in REFUSED:
            self._refused.add((channel, identity))
        if receiver.answered not in TAKEN:
            return
        self._refused.discard((channel, identity))
        kind = {"ops": "webhook", "pager": "pagerduty", "chat": "slack"}.get(channel, "alertmanager")
        if kind in ("webhook", "slack") and self._world.acting.was_silenced and self._world.is_silenced():
            self.fail(f"{channel}: something was sent in a silence")
        for type_, incident, notice in messages_of(kind, body, identity, self._world.true_time()):
            self._world.note(f"{receiver.place} took {type_} {incident} {notice}")
            budget = self._budget_of(type_, incident) if kind == "webhook" else ""
            message = Message(channel, type_, incident, notice, self._world.second, budget)
            before = [each for each in self.taken if each.channel == channel]
            if kind == "webhook":
                self._judge_message(message, before)
                if receiver.answered == "lost":
                    self._excused[channel, notice] += 1
            elif type_ == "trigger" and any((incident, "resolve") == (each.incident, each.type) for each in before):
                self.fail(f"{channel}: {incident} was triggered after its end")
            self.taken.append(message)
            if incident:
                self._known.add(incident)
                if not self._world.disk.is_durable(Path("incidents", incident, INCIDENT_FILE)):
                    self.fail(f"{channel}: {incident} was announced, and a power cut would take it")
            self._in_flight.setdefault(channel, set()).add(notice)

    def _judge_message(self, message: Message, before: list[Message]) -> None:
        channel, type_, incident, notice = message[:4]
        times = sum(each.id == notice for each in before)
        if times > self._excused[channel, notice]:
            self.fail(f"{channel}: {notice} was sent {times + 1} times")
        self._judge_hour(message, before)
        if type_ == "digest":
            return
        others = [each for each in before if each.incident == incident and each.id != notice]
        if any(each.type == "resolved" for each in others):
            self.fail(f"{channel}: {type_} of {incident} after its end")
        opened = [each for each in others if each.type == "opened"]
        if type_ == "opened" and any((channel, each.id) not in self._refused for each in opened):
            self.fail(f"{channel}: {incident} was opened twice, under two ids")
        if type_ == "updated" and not opened:
            self.fail(f"{channel}: an update of {incident}, which was not opened")

    def _judge_hour(self, message: Message, before: list[Message]) -> None:
        """Count what was sent within an hour; what the service cannot know to be taken is left out."""
        if "clock" in self._world.faults:  # A start counts by the wall clock, by which an hour may be over sooner.
            return
        since = message.second - HOUR_SECONDS + LONGEST_ATTEMPT_SECONDS
        recent = [each for each in before if each.second > since and not self._excused[each.channel, each.id]]
        sent = {each.id for each in recent if each.budget == message.budget} | {message.id}
        if len(sent) > {**MESSAGES_AN_HOUR, "digest": 1}.get(message.budget, len(sent)):
            self.fail(f"{message.channel}: {len(sent)} messages for {message.budget} within an hour")

    def _budget_of(self, type_: str, incident: str) -> str:
        if type_ == "digest":
            return type_
        is_told = any(incident == each.incident and each.channel == "ops" for each in self.taken)
        return "" if type_ == "resolved" and is_told else proof_of(self._world.store.load(incident))

    def forgive(self) -> None:
        """The process ends: what was taken in a step that has not ended may be sent once more."""
        self._excused.update(self._unwritten)
        self._unwritten.clear()
        if "clock" in self._world.faults:  # A reminder has no receipt: it falls due again by a clock that was set back.
            self._excused.update({(each.channel, each.id) for each in self.taken if f"_{REMINDER}" in each.id})
        self._excused.update((channel, notice) for channel, taken in self._in_flight.items() for notice in taken)
        self._in_flight.clear()

    def after_step(self, channel: str) -> None:
        """A courier has ended a step: what was taken has its receipt; a digest has all of them some steps later."""
        digests = {each for each in self._in_flight.pop(channel, ()) if each.startswith("msg_digest_")}
        if digests and any(self._world.store.directory.glob(f"incidents/*/.*.{channel}.digest.new")):
            self._in_flight[channel] = digests

    # --- the disk -----------------------------------------------------------------------------------------------------

    def note_error(self, kind: str, call: str, at: Path) -> None:
        """Raise an error of the disk."""
        self._world.note(f"{kind} in {call} of {at}")
        if not str(at).startswith(DERIVED):
            file = at.parent / at.name.removeprefix(".").removesuffix(".new")
            self._errors.setdefault(self._world.acting.name, {})[file] = f"{kind} in {call} of {at}"
        if kind == "EIO" and self._world.acting.name == "courier ops":  # A receipt that may not be on disk.
            self._unwritten |= {(each.channel, each.id) for each in self.taken if each.incident in at.parts}
        number = {"EIO": errno.EIO, "ENOSPC": errno.ENOSPC}[kind]
        raise OSError(number, os.strerror(number), str(at))

    def after_act(self, actor: "Actor") -> None:
        """An error of the disk that was survived is in the log or, while it lasts, in the status."""
        errors = self._errors.pop(actor.name, {})
        self._told |= {at for at in errors if actor.has_said or actor.is_in_trouble(at)}
        # Where a file, or its directory, had failed before, it is tried again, and was told then.
        if untold := {at for at in errors if not self._told & {at, at.parent}}:
            self.fail(f"{actor.name} swallows {[errors[at] for at in untold]}")

    def note_end(self) -> None:
        """A process has ended: what was announced is on disk."""
        self._errors.clear()
        self._told.clear()
        self._in_flight.clear()
        there = set(self._world.store.ids())
        if lost := self._known - there:
            self.fail(f"announced, and not on disk: {sorted(lost)}")
        self.check_start()

    def check_start(self) -> None:
        """Hold what a start would find if the process were killed now: it may be, at every moment.

        Each line before the position is counted, and only those; what an incident names is there.
        """
        store, own = self._world.store, {each.id: each for each in self._incidents()}
        resume, still_open, _ = store.newest_commit()
        found = own | {each.id: each for each in still_open}
        before = self._world.writer.before(resume.cursor.files.get(str(self._world.writer.path), NOT_THERE))
        if lost := self._uncounted(found.values(), before):
            self.fail(f"a kill would lose {dict(lost)}")
        for incident in found.values():
            named = {*incident.snapshots, *incident.notices}
            if missing := named - store.files(incident.id):
                self.fail(f"a kill would leave {incident.id} without {sorted(missing)}")
            if incident.id in own and not {*own[incident.id].notices} <= named:
                self.fail(f"after a kill {incident.id} would be resumed from an older copy")

    def is_all_recorded(self) -> bool:
        """Return whether every line of the log is in an incident."""
        return not self._uncounted(self._incidents(), self._world.writer.written)

    def _uncounted(self, incidents: Iterable[Incident], lines: Counter[tuple[str, str]]) -> Counter[str]:
        """Return by kind which of the lines are in no incident: their host's, or that of an hour's rest."""
        counted: Counter[tuple[str, str]] = Counter()
        for incident in incidents:
            counted.update({(incident.host or "", kind): count for kind, count in incident.events.items()})
        rest = Counter({kind: counted.pop((THE_REST, kind), 0) for kind in (*TEXTS, "suppressed")})
        left: Counter[str] = Counter()
        for (_, kind), count in (lines - counted).items():
            left[kind] += count
        if counted - lines or rest - left:
            self.fail(f"counted {dict(counted)} and of the rest {dict(rest)}, there are {dict(lines)}")
        return left - rest

    # --- the end ------------------------------------------------------------------------------------------------------

    def unsettled(self) -> Iterator[str]:
        """Name what is still to be done, what is in memory first."""
        world = self._world
        if world.daemon is None:
            yield "the service does not run"
            return
        yield from (f"{each.id} is open" for each in world.daemon._recorder.still_open)
        yield from (f"{each.name}: {each.waiting}" for each in world.daemon._couriers if each.waiting.notices)
        if not self.is_all_recorded():
            yield "not every line is recorded"
        yield from (f"{each} is open on disk" for each in self.still_open())
        yield from (f"{channel} is owed something" for channel in Outbox(world.store).owing())
        saved = world.store.newest_commit()[0].cursor.files.get(str(world.writer.path))
        if saved is None or saved.offset != world.writer.path.stat().st_size:
            yield f"the cursor is at {saved and saved.offset} of {world.writer.path.stat().st_size}"

    def still_open(self) -> list[str]:
        return [each.id for each in self._incidents() if each.closed_at is None]

    def is_settled(self) -> bool:
        return next(self.unsettled(), None) is None

    def check_end(self) -> None:
        """Everything was told, and the last word on every channel is that it is over."""
        last = {(each.channel, each.incident, each.id): each.type for each in self.taken}
        is_digested = any(each.type == "digest" for each in self.taken)
        for incident in self._incidents():
            told = {each.id for each in self.taken if each.channel == "ops" and each.incident == incident.id}
            outcomes, notices = set(), self._world.store.notices(incident.id)
            for file, notice, receipts in notices:
                outcomes.add(receipts["ops"].outcome if "ops" in receipts else None)
                if "ops" in receipts and receipts["ops"].outcome == "delivered" and notice.id not in told:
                    self.fail(f"{incident.id} {file}: a receipt for what was never taken")
            if incident.notices and not told and not is_digested and outcomes != {"skipped"}:
                self.fail(f"{incident.id} was never told")
            types = {each.type for each in self.taken if each.channel == "ops" and each.incident == incident.id}
            if types and "resolved" not in types and outcomes <= {"delivered", "superseded"}:
                self.fail(f"the end of {incident.id} was not sent")
            if last.get(("pager", incident.id, ""), "resolve") != "resolve":
                self.fail(f"{incident.id} is still triggered")
            of_chat = {receipts["chat"].outcome for *_, receipts in notices if "chat" in receipts}
            if last.get(("chat", incident.id, ""), "resolve") != "resolve" and of_chat <= {"delivered", "superseded"}:
                self.fail(f"{incident.id}: the chat was not told its end")
        if firing := [incident for (_, incident, _), state in last.items() if state == "firing"]:
            self.fail(f"still firing: {firing}")

    def told(self) -> int:
        """Count what was sent; the end of an alert is repeated."""
        return sum(each.channel != "alerts" for each in self.taken)

    def _incidents(self) -> list[Incident]:
        store: Store = self._world.store
        return [store.load(each) for each in store.ids()]


class _Ear(logging.Handler):
    def __init__(self, hear) -> None:
        super().__init__()
        self.emit = hear
