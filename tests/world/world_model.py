"""What is always to be so: safety at every moment, and in the calm at the end that all is settled."""

import contextlib
import errno
import logging
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from world_receivers import Receiver, messages_of

from agent.core.model import Incident
from agent.store import Outbox, Store

if TYPE_CHECKING:
    from world import World

# Their errors are silent on purpose: what is derived, and why a channel fails, which is in the log and the status, too.
DERIVED = ("incidents/last", "incidents/.last", "channels")
SHOWN_LINES = 60


class Violation(AssertionError):  # noqa: N818 - what it is
    """Something is so that must never be."""


class Model:
    """Holds what was sent and what went wrong against what is on disk and what the service says."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.story: list[str] = []
        self.violation: Violation | None = None
        # Of each message that was taken: channel, type, incident, id.
        self.taken: list[tuple[str, str, str, str]] = []
        self._in_flight: dict[str, set[str]] = {}
        self._excused: Counter[tuple[str, str]] = Counter()
        # What may be sent again after the end of this process: its receipt could not be written.
        self._unwritten: set[tuple[str, str]] = set()
        # Errors of the disk by whom they met, and the places of which somebody was told.
        self._errors: dict[str, dict[Path, str]] = {}
        self._told: set[Path] = set()
        self.said = 0
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
            self.said += 1
            self.story.append(f"{'':10} says: {record.getMessage().splitlines()[0]}")

    # --- messages -----------------------------------------------------------------------------------------------------

    def take(self, receiver: Receiver, body: dict | list, identity: str) -> None:
        """Judge what a receiver took."""
        channel = receiver.place[:-1]
        kind = {"ops": "webhook", "pager": "pagerduty"}.get(channel, "alertmanager")
        for type_, incident, notice in messages_of(kind, body, identity, self._world.true_time()):
            self._world.note(f"{receiver.place} took {type_} {incident} {notice}")
            if kind == "webhook":
                self._judge_message(channel, type_, incident, notice)
                if receiver.answered == "lost":
                    self._excused[channel, notice] += 1
            elif kind == "pagerduty":
                self._judge_state(channel, type_, incident)
            self.taken.append((channel, type_, incident, notice))
            if incident:
                self._known.add(incident)
            self._in_flight.setdefault(channel, set()).add(notice)

    def _judge_message(self, channel: str, type_: str, incident: str, notice: str) -> None:
        before = [each for each in self.taken if each[0] == channel and each[2] == incident]
        times = sum(1 for each in self.taken if each[0] == channel and each[3] == notice)
        if times > self._excused[channel, notice]:
            self.fail(f"{channel}: {notice} was sent {times + 1} times")
        if type_ == "digest":
            return
        others = [each for each in before if each[3] != notice]
        if any(each[1] == "resolved" for each in others):
            self.fail(f"{channel}: {type_} of {incident} after its end")
        if type_ == "opened" and any(each[1] == "opened" for each in others):
            self.fail(f"{channel}: {incident} was opened twice, under two ids")
        if type_ == "updated" and not any(each[1] == "opened" for each in others):
            self.fail(f"{channel}: an update of {incident}, which was not opened")

    def _judge_state(self, channel: str, type_: str, incident: str) -> None:
        states = [each[1] for each in self.taken if each[0] == channel and each[2] == incident]
        if type_ == "trigger" and "resolve" in states:
            self.fail(f"{channel}: {incident} was triggered after its end")

    def forgive(self) -> None:
        """The process ends: what was taken in a step that has not ended may be sent once more."""
        self._excused.update(self._unwritten)
        self._unwritten.clear()
        for actor in self._world.actors:
            if actor.is_busy and actor.name.startswith("courier "):
                channel = actor.name.removeprefix("courier ")
                for notice in self._in_flight.pop(channel, ()):
                    self._excused[channel, notice] += 1

    def after_step(self, channel: str, status: str | None) -> None:
        """An attempt that failed, and an error of the disk, are in the status or the log."""
        self._in_flight.pop(channel, None)
        self._judge_errors(is_told=bool(status))

    # --- the disk -----------------------------------------------------------------------------------------------------

    def note_error(self, kind: str, call: str, at: Path) -> None:
        """Raise an error of the disk."""
        self._world.note(f"{kind} in {call} of {at}")
        if not str(at).startswith(DERIVED):
            self._errors.setdefault(self._world.acting.name, {})[at] = f"{kind} in {call} of {at}"
        if kind == "EIO" and ".ops." in at.name:
            self._excuse_receipt(at)
        number = {"EIO": errno.EIO, "ENOSPC": errno.ENOSPC}[kind]
        raise OSError(number, os.strerror(number), str(at))

    def _excuse_receipt(self, at: Path) -> None:
        """A receipt that could not be written is in memory only."""
        for channel, _, incident, notice in self.taken:
            if incident == at.parent.name:
                self._unwritten.add((channel, notice))

    def after_turn(self, status: str) -> None:
        """An error that the service survived is told."""
        self._judge_errors(is_told="cannot be" in status)

    def _judge_errors(self, *, is_told: bool) -> None:
        actor = self._world.acting
        errors = self._errors.pop(actor.name, {})
        if is_told or self.said > actor.said_before:
            self._told |= errors.keys()
        if untold := errors.keys() - self._told:
            self.fail(f"{actor.name} swallows {[errors[at] for at in untold]}")

    def note_end(self) -> None:
        """A process has ended: what was announced is on disk."""
        self._errors.clear()
        self._in_flight.clear()
        there = set(self._world.store.ids())
        if lost := self._known - there:
            self.fail(f"announced, and not on disk: {sorted(lost)}")

    def counted(self) -> Counter[tuple[str, str]]:
        """Count the events on disk by host and kind."""
        found: Counter[tuple[str, str]] = Counter()
        for incident in self._incidents():
            for kind, count in incident.events.items():
                found[incident.host or "", kind] += count
        return +found

    def is_all_recorded(self) -> bool:
        """Return whether every line of the log is in an incident."""
        counted = self.counted()
        for key, count in counted.items():
            if count > self._world.writer.written[key]:
                self.fail(f"{key}: {count} counted, {self._world.writer.written[key]} written")
        return counted == +self._world.writer.written

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
            yield f"counted {dict(self.counted())} of {dict(world.writer.written)}"
        yield from (f"{each.id} is open on disk" for each in self._incidents() if each.closed_at is None)
        yield from (f"{channel} is owed something" for channel in Outbox(world.store).owing())
        saved = world.store.newest_commit()[0].cursor.files.get(str(world.writer.path))
        if saved is None or saved.offset != world.writer.path.stat().st_size:
            yield f"the cursor is at {saved and saved.offset} of {world.writer.path.stat().st_size}"

    def is_settled(self) -> bool:
        return next(self.unsettled(), None) is None

    def check_end(self) -> None:
        """Everything was told, and the last word on every channel is that it is over."""
        digested = " ".join(notice for _, type_, _, notice in self.taken if type_ == "digest")
        for incident in self._incidents():
            for file, notice, receipts in self._world.store.notices(incident.id):
                outcomes = {channel: receipts[channel].outcome for channel in notice.channels if channel in receipts}
                if outcomes.get("ops") == "delivered" and not self._was_taken("ops", notice.id):
                    self.fail(f"{incident.id} {file}: a receipt for what was never taken")
            told = [each[1] for each in self.taken if each[0] == "ops" and each[2] == incident.id]
            if incident.notices and not told and not digested:
                self.fail(f"{incident.id} was never told")
            states = [each[1] for each in self.taken if each[0] == "pager" and each[2] == incident.id]
            if states and states[-1] != "resolve":
                self.fail(f"{incident.id} is still triggered")
        last = {(each[2], each[3]): each[1] for each in self.taken if each[0] == "alerts"}
        if firing := [incident for (incident, _), state in last.items() if state == "firing"]:
            self.fail(f"still firing: {firing}")

    def told(self) -> int:
        """Count what was sent; the end of an alert is repeated."""
        return sum(channel != "alerts" for channel, *_ in self.taken)

    def _was_taken(self, channel: str, notice: str) -> bool:
        return any(each[0] == channel and each[3] == notice for each in self.taken)

    def _incidents(self) -> list[Incident]:
        store: Store = self._world.store
        return [store.load(each) for each in store.ids()]


class _Ear(logging.Handler):
    def __init__(self, hear) -> None:
        super().__init__()
        self.emit = hear
