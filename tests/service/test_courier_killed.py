"""Killed at every point between a notice and its receipt: nothing is lost, and only what was in flight comes twice."""

import contextlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from harness import owed
from material import make_sent_incident
from msgspec.structs import replace

from agent.core.budget import HOUR_SECONDS, MESSAGES_AN_HOUR
from agent.core.delivery import Delivered, Delivery
from agent.core.dispatch import OPENED, Rules
from agent.core.model import DigestNotice, Notice
from agent.service.courier import Courier
from agent.store import Outbox, Store

NOW = datetime(2026, 11, 22, 16, tzinfo=timezone.utc)
CALLS = ("open", "write", "ftruncate", "fsync", "rename", "unlink")
CLAIMED = MESSAGES_AN_HOUR["claimed"]
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
        self.heard = defaultdict[str, set[str]](set)  # of each incident, in which messages


class Line:
    """The way from a process to the receiver: it may die before or behind it."""

    name = "ops"

    def __init__(self, process: Process, receiver: Receiver) -> None:
        self.process, self.receiver = process, receiver

    def notify(self, notice: Notice) -> Delivery:
        self.process.step()
        self.receiver.taken.append((notice.id, notice.type.rpartition(".")[2]))
        told = notice.digest.ids if isinstance(notice, DigestNotice) else (notice.data.id,) if notice.data else ()
        for incident_id in told:
            self.receiver.heard[incident_id].add(notice.id)
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


def live(
    folder: Path, rules: Rules, kinds: list[str], *, dies_at: int, is_away: bool = False
) -> tuple[list[tuple[str, str]], Store, bool]:
    """Play an incident to a process that dies once and is started again; return what was taken, and whether it died.

    ``is_away``: it is started only when there is one more notice.
    """
    store, receiver = Store(folder), Receiver()
    os.close(store.open_for_writing())
    process, has_died = Process(store, rules, receiver, dies_at=dies_at), False
    for number, kind in enumerate(kinds, start=1):
        say(store, kind, number)
        if process.is_dead:
            process = Process(store, rules, receiver, dies_at=10**9)
        process.run()
        if process.is_dead:
            has_died = True
        if process.is_dead and not (is_away and number < len(kinds)):
            process = Process(store, rules, receiver, dies_at=10**9)
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


def flood(folder: Path, *, dies_at: int) -> tuple[Receiver, Store, Process]:
    """Claim three incidents more than an hour's messages to a process that dies once; a fourth opens meanwhile."""
    store, receiver = Store(folder), Receiver()
    os.close(store.open_for_writing())

    def claim(number: int) -> None:
        incident = make_sent_incident(id=f"20261122T15{number:02}00Z-0000", provenance="claimed")
        store.new_directory(incident.id)
        notice = Notice(id=f"n-{number}", type=OPENED, at=NOW, reason="", channels=("ops",), data=incident)
        name = store.write_notice(incident.id, 1, notice)
        store.commit(replace(incident, notices=(name,)))

    for number in range(CLAIMED + 3):
        claim(number)
    first = Process(store, MESSAGES, receiver, dies_at=dies_at)
    first.run(HOUR_SECONDS + 30)
    if first.is_dead:
        claim(CLAIMED + 3)
        second = Process(store, MESSAGES, receiver, dies_at=10**9)
        second.second = first.second
        second.run(3 * HOUR_SECONDS)
    return receiver, store, first


def test_wherever_it_is_killed_a_digest_comes_twice_at_most_with_the_same_id(tmp_path: Path) -> None:
    told, _, whole = flood(tmp_path / "whole", dies_at=10**9)
    assert "digest" == told.taken[-1][1]
    for dies_at in range(whole.steps, whole.steps - 30, -1):
        receiver, store, first = flood(tmp_path / str(dies_at), dies_at=dies_at)
        counts = Counter(receiver.taken)

        assert first.is_dead
        assert [1] * (CLAIMED + 4) == [len(ids) for ids in receiver.heard.values()], (dies_at, receiver.taken)
        assert sum(counts.values()) <= len(counts) + 1, (dies_at, receiver.taken)
        assert [] == owed(store, "ops"), dies_at


def test_a_notice_that_comes_while_it_is_away_is_not_sent_twice_under_two_ids(tmp_path: Path) -> None:
    kinds, dies_at, has_died = ["opened", "updated", "updated", "resolved"], 0, True
    while has_died:
        dies_at += 1
        taken, store, has_died = live(tmp_path / str(dies_at), MESSAGES, kinds, dies_at=dies_at, is_away=True)

        told = list(dict.fromkeys(taken))
        assert ("opened", "resolved") == (told[0][1], told[-1][1]), (dies_at, taken)
        assert 1 == [kind for _, kind in told].count("opened"), (dies_at, taken)
        assert len(taken) - len(told) <= 1, (dies_at, taken)
        assert [] == owed(store, "ops"), dies_at
    assert dies_at > 40
