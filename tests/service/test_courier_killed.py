"""Killed at every point between a notice and its receipt: nothing is lost, and only what was in flight comes twice."""

import contextlib
import os
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from harness import owed
from material import make_sent_incident
from msgspec.structs import replace

from agent.core.delivery import Delivered, Delivery
from agent.core.dispatch import Rules
from agent.core.model import Notice
from agent.service.courier import Courier
from agent.store import Outbox, Store

NOW = datetime(2026, 11, 22, 16, tzinfo=timezone.utc)
CALLS = ("open", "write", "ftruncate", "fsync", "rename", "unlink")
MESSAGES, STATE = Rules(reminders=False), Rules(senders=1)


class Killed(BaseException):
    """The process ended here."""


class Process:
    """A process that is killed at its n-th step towards disk or receiver: nothing it does then has effect."""

    def __init__(self, store: Store, rules: Rules, receiver: "Receiver", *, dies_at: int) -> None:
        self.steps, self.dies_at, self.second = 0, dies_at, 0.0
        self.courier = Courier(
            Line(self, receiver), Outbox(store), rules, monotonic=lambda: self.second, now=self.now, random=lambda: 0.0
        )

    @property
    def is_dead(self) -> bool:
        return self.steps >= self.dies_at

    def now(self) -> datetime:
        return NOW + timedelta(seconds=self.second)

    def step(self) -> None:
        """Count a step, and die at the last one."""
        self.steps += 1
        if self.is_dead:
            raise Killed

    def run(self, seconds: float = 10.0) -> None:
        """Turn the courier until its work is done, or it is dead."""
        end = self.second + seconds
        with pytest.MonkeyPatch.context() as patch, contextlib.suppress(Killed):
            for name in CALLS:
                patch.setattr(os, name, self.counting(getattr(os, name)))
            while self.second < end and not self.is_dead:
                self.second += max(self.courier.step(), 0.001)

    def counting(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.step()
            return real(*args, **kwargs)

        return call


class Receiver:
    """What was taken, in order."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, str]] = []


class Line:
    """The way from a process to the receiver: it may die before or behind it."""

    name = "ops"

    def __init__(self, process: Process, receiver: Receiver) -> None:
        self.process, self.receiver = process, receiver

    def notify(self, notice: Notice) -> Delivery:
        self.process.step()
        self.receiver.taken.append((notice.id, notice.type.rpartition(".")[2]))
        self.process.step()
        return Delivered()

    def show(self, notice: Notice, instance: int) -> Delivery:
        return self.notify(notice)


def say(store: Store, kind: str, number: int) -> None:
    """Let the recorder write a notice, and commit it."""
    closed = {"closed_at": NOW} if kind == "resolved" else {}
    incident = make_sent_incident(**closed)
    if number == 1:
        store.new_directory(incident.id)
    type_: Any = f"sockmem.incident.{kind}"
    notice = Notice(id=f"n-{number}", type=type_, at=NOW, reason="", channels=("ops",), data=incident)
    store.write_notice(incident.id, number, notice)
    names = tuple(f"notice-{each:03}.json" for each in range(1, number + 1))
    store.commit(replace(incident, notices=names))


def live(folder: Path, rules: Rules, kinds: list[str], *, dies_at: int) -> tuple[list[tuple[str, str]], Store, bool]:
    """Play an incident to a process that dies once and is started again; return what was taken, and whether it died."""
    store, receiver = Store(folder), Receiver()
    os.close(store.open_for_writing())
    process, has_died = Process(store, rules, receiver, dies_at=dies_at), False
    for number, kind in enumerate(kinds, start=1):
        say(store, kind, number)
        process.run()
        if process.is_dead:
            process, has_died = Process(store, rules, receiver, dies_at=10**9), True
            process.run()
    return receiver.taken, store, has_died


@pytest.mark.parametrize("rules", [MESSAGES, STATE], ids=["messages", "state"])
def test_wherever_it_is_killed_nothing_is_lost_and_one_thing_at_most_comes_twice(tmp_path: Path, rules: Rules) -> None:
    kinds, dies_at, has_died = ["opened", "updated", "resolved"], 0, True
    while has_died:
        dies_at += 1
        taken, store, has_died = live(tmp_path / str(dies_at), rules, kinds, dies_at=dies_at)

        assert kinds == [
            kind for number, (_, kind) in enumerate(taken) if taken[number - 1 : number] != [taken[number]]
        ]
        assert sorted(Counter(taken).values()) in ([1, 1, 1], [1, 1, 2]), (dies_at, taken)
        assert [] == owed(store, "ops"), dies_at
        assert [] == [*(tmp_path / str(dies_at) / "incidents").rglob(".*.new")]
    assert dies_at > 40
