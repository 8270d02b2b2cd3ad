"""The budget of an hour, as people see it: real incidents on disk, and a receiver in memory."""

import errno
import logging
import os
from collections import Counter
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from harness import owed

from agent.core.delivery import Delivered, Delivery, Rejected, Retry
from agent.core.dispatch import Rules
from agent.core.model import DigestNotice, Notice, Provenance, Remark
from agent.core.settings import IncidentSettings, StoreSettings
from agent.service.courier import Courier, absent
from agent.service.recorder import Recorder
from agent.service.stories import AT_ONCE
from agent.service.troubles import Troubles
from agent.store import Outbox, Store

TEN_MINUTES = timedelta(minutes=10)


class Receiver:
    """Takes everything, unless told otherwise, and remembers when it was taken."""

    name = "ops"

    def __init__(self, clock: Any) -> None:
        self.took: list[tuple[datetime, Notice]] = []
        self.posts = 0
        self.answer: Delivery = Delivered()
        self._clock = clock

    def notify(self, notice: Notice) -> Delivery:
        self.posts += 1
        if isinstance(self.answer, Delivered):
            self.took.append((self._clock(), notice))
        return self.answer

    def types(self, after: int = 0) -> Counter[str]:
        return Counter(notice.type.rpartition(".")[2] for _, notice in self.took[after:])

    def digests(self) -> list[DigestNotice]:
        return [notice for _, notice in self.took if isinstance(notice, DigestNotice)]


class Host:
    """A recorder, its store and a courier on one clock."""

    def __init__(self, folder: Path, proc_root: Path, clock: Any, make_decided: Any) -> None:
        self.clock, self.make_decided = clock, make_decided
        self.store = Store(folder / "state", StoreSettings(min_free_bytes=0))
        self.store.open_for_writing()
        self.receiver = Receiver(clock)
        self.recorder = Recorder(
            self.store,
            settings=IncidentSettings(),
            channels=("ops",),
            now=clock,
            on_notice=lambda _: None,
            troubles=Troubles(),
            proc_root=proc_root,
            monotonic=clock.monotonic,
        )
        self.offset = 0
        self.restart()

    def restart(self) -> None:
        """Begin with a courier that remembers nothing."""
        self.courier = Courier(
            self.receiver,
            Outbox(self.store),
            Rules(reminders=False),
            monotonic=self.clock.monotonic,
            now=self.clock,
            random=lambda: 1.0,
            log=logging.getLogger("test-budget"),
        )

    def read(self, count: int, provenance: Provenance = "claimed", days_ago: float = 30) -> None:
        """Read lines that stand ten minutes apart in a log, as one batch."""
        begin = self.clock.time - timedelta(days=days_ago)
        lines = []
        for number in range(count):
            self.offset += 100
            at = begin + number * TEN_MINUTES
            lines.append(self.make_decided(at=at, offset=self.offset, provenance=provenance))
        self.recorder.handle(lines, self.recorder.take_event_snapshot())
        self.clock.advance(300)
        self.recorder.tick()  # The last one ends, too.

    def run(self, seconds: float) -> None:
        """Turn the courier as its thread would, for so long of the fake clock."""
        end = self.clock.time + timedelta(seconds=seconds)
        while True:
            delay = self.courier.step()
            if self.clock.time + timedelta(seconds=delay) >= end:
                self.clock.advance((end - self.clock.time).total_seconds())
                return
            self.clock.advance(delay)

    def outcomes(self) -> Counter[str]:
        return Counter(
            receipts["ops"].outcome if "ops" in receipts else "pending"
            for incident_id in self.store.ids()
            for _, _, receipts in self.store.notices(incident_id)
        )


@pytest.fixture
def host(tmp_path: Path, proc_root: Path, clock: Any, make_decided: Any) -> Host:
    return Host(tmp_path, proc_root, clock, make_decided)


def most_within_an_hour(took: list[tuple[datetime, Notice]], provenance: Provenance) -> int:
    times = [
        at for at, notice in took if notice.data and notice.data.provenance == provenance and isinstance(notice, Remark)
    ]
    return max((sum(at <= other < at + timedelta(hours=1) for other in times) for at in times), default=0)


@pytest.fixture
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flush nothing: what thousands of incidents need of a real disk is no matter here."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.mark.usefixtures("quick_disk")
def test_2000_old_lines_are_six_late_messages_and_one_digest(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.read(2000)
    opened: list[int] = [0]
    plain_open, plain_step = os.open, host.courier.step

    def count(*args: Any, **kwargs: Any) -> int:
        opened[-1] += 1
        return plain_open(*args, **kwargs)

    def step() -> float:
        opened.append(0)
        return plain_step()

    monkeypatch.setattr(os, "open", count)
    monkeypatch.setattr(host.courier, "step", step)
    host.run(3 * 3600)
    monkeypatch.undo()

    assert 2000 == len(host.store.ids())
    assert {"resolved": 6, "digest": 1} == host.receiver.types()
    (digest,) = host.receiver.digests()
    assert (1994, tuple(host.store.ids()[6:])) == (digest.digest.count, digest.digest.ids)
    assert {"delivered": 6, "superseded": 6, "digested": 3988} == host.outcomes()
    assert (7, 3988) == (host.courier.counts["delivered"], host.courier.counts["digested"])
    assert max(opened) <= 4 * AT_ONCE, max(opened)


def test_lines_that_keep_coming_are_six_messages_and_one_digest_an_hour(host: Host) -> None:
    for _ in range(15):
        host.read(8)
        host.run(900)
    host.run(7200)
    at = [at for at, notice in host.receiver.took if isinstance(notice, DigestNotice)]

    assert 6 == most_within_an_hour(host.receiver.took, "claimed")
    assert 5 == len(at)
    assert all(later - earlier >= timedelta(hours=1) for earlier, later in pairwise(at))
    told = [set(notice.digest.ids) for notice in host.receiver.digests()]
    assert set(host.store.ids()) == {n.data.id for _, n in host.receiver.took if n.data}.union(*told)
    assert 120 == len(host.store.ids())


def test_forged_lines_never_spend_the_budget_of_the_kernels(host: Host) -> None:
    host.read(30)
    host.run(60)
    host.read(25, "kernel", days_ago=1)
    host.run(60)

    opened = Counter(
        notice.data.provenance for _, notice in host.receiver.took if notice.data and isinstance(notice, Remark)
    )
    assert {"claimed": 6, "kernel": 20} == opened
    host.run(2 * 3600)
    assert [24 + 5] == [notice.digest.count for notice in host.receiver.digests()]


def test_a_pile_of_claimed_incidents_delays_no_message_of_the_kernels(host: Host) -> None:
    host.read(100)
    host.run(60)
    host.read(1, "kernel", days_ago=1)
    host.receiver.took.clear()
    host.courier.step()

    assert ["kernel"] == [notice.data.provenance for _, notice in host.receiver.took if notice.data]


def test_of_what_was_never_tried_the_kernels_is_sent_first(host: Host) -> None:
    host.read(5)
    host.read(1, "kernel", days_ago=1)
    host.courier.step()

    assert ["kernel"] == [notice.data.provenance for _, notice in host.receiver.took if notice.data]


def test_the_end_of_what_was_told_is_told_though_nothing_is_left_of_the_budget(host: Host) -> None:
    host.read(5)
    host.recorder.handle([host.make_decided(offset=77_000, provenance="claimed")], host.recorder.take_event_snapshot())
    host.run(60)
    assert {"opened": 1, "resolved": 5} == host.receiver.types()
    host.clock.advance(300)
    host.recorder.tick()
    host.run(60)

    assert {"opened": 1, "resolved": 6} == host.receiver.types()


def test_a_restart_knows_what_the_hour_has_seen(host: Host) -> None:
    host.read(30)
    start = host.clock.time
    for _ in range(9):
        host.restart()
        host.run(1200)

    assert {"resolved": 6, "digest": 1} == host.receiver.types()
    (at,) = [at for at, notice in host.receiver.took if isinstance(notice, DigestNotice)]
    assert 3600 - 300 <= (at - start).total_seconds() <= 3600 + 60


def test_a_restart_sends_no_second_digest_in_an_hour(host: Host) -> None:
    host.read(10)
    host.run(3000)
    host.receiver.answer = Retry(why="HTTP 503")
    host.run(1000)  # The first digest is due and cannot be sent; what comes now is of the second.
    host.read(10)
    host.run(3900)
    host.receiver.answer = Delivered()
    host.run(400)
    assert 1 == len(host.receiver.digests())
    host.restart()
    host.run(2900)
    assert 1 == len(host.receiver.digests())
    host.run(800)

    assert 2 == len(host.receiver.digests())


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_a_crash_after_the_digest_repeats_that_one_at_most(host: Host, steps: int) -> None:
    host.read(70)
    while not host.receiver.digests():
        host.clock.advance(host.courier.step())
    for _ in range(steps):
        host.courier.step()  # Writes 64 of the 128 receipts.
    host.restart()
    host.run(7200)

    first, *others = host.receiver.digests()
    assert [[first.id], [], []][steps] == [other.id for other in others if other.digest == first.digest]
    assert [1, 1, 0][steps] == len(others)
    assert {"resolved": 6, "digest": 1 + len(others)} == host.receiver.types()
    assert {"delivered": 6, "superseded": 6, "digested": 128} == host.outcomes()
    assert [] == [*(host.store.directory / "incidents").rglob(".*.new")]


def test_a_stop_or_a_reload_just_after_the_digest_repeats_nothing(host: Host) -> None:
    host.read(70)
    while not host.receiver.digests():
        host.clock.advance(host.courier.step())
    host.courier.thread.start()
    host.courier.thread.stop(timeout=60)
    host.restart()
    host.run(7200)

    assert 1 == len(host.receiver.digests())
    assert {"delivered": 6, "superseded": 6, "digested": 128} == host.outcomes()


def test_a_digest_stays_the_same_however_often_it_is_tried(host: Host) -> None:
    host.read(10)
    host.run(3000)
    host.receiver.answer = Retry(why="HTTP 503")
    tried: list[Notice] = []
    plain = host.receiver.notify
    host.receiver.notify = lambda notice: (tried.append(notice), plain(notice))[1]  # type: ignore[method-assign]
    host.run(1000)
    host.read(10)
    host.run(1000)
    host.receiver.answer = Delivered()
    host.run(400)
    digests = [notice for notice in tried if isinstance(notice, DigestNotice)]

    assert len(digests) > 5
    assert [digests[0]] * len(digests) == digests
    assert {"digest": 1} == Counter(n.type.rpartition(".")[2] for _, n in host.receiver.took if n.data is None)
    assert 4 == digests[0].digest.count
    assert 8 == host.courier.counts["digested"]


def test_a_refused_digest_holds_up_nothing_and_is_given_up_in_the_end(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    host.read(10)
    plain = host.receiver.notify

    def notify(notice: Notice) -> Delivery:
        return Rejected(why="HTTP 400") if isinstance(notice, DigestNotice) else plain(notice)

    host.receiver.notify = notify  # type: ignore[method-assign]
    host.run(3 * 3600)
    host.read(1, "kernel", days_ago=1)
    host.run(3600)
    assert {"resolved": 7} == host.receiver.types()
    assert 8 == host.outcomes()["pending"]
    host.run(86_400)

    assert {"delivered": 7, "superseded": 7, "gave_up": 8} == host.outcomes()
    assert 1 == caplog.text.count("gave up sockmem.digest of 8 notices: HTTP 400")
    assert 8 == host.courier.counts["gave_up"]


def open_until_after_the_digest(host: Host) -> None:
    """Have an incident told in the digest alone, and still open."""
    host.read(6)
    host.recorder.settings = IncidentSettings(quiet_seconds=18_000)
    host.recorder.handle([host.make_decided(offset=77_000, provenance="claimed")], host.recorder.take_event_snapshot())
    host.run(4000)
    assert [1] == [notice.digest.count for notice in host.receiver.digests()]
    host.receiver.took.clear()


def test_what_was_not_told_is_not_told_how_it_went_on(host: Host) -> None:
    open_until_after_the_digest(host)
    host.recorder.handle(
        [host.make_decided(offset=78_000, provenance="claimed", count=500)], host.recorder.take_event_snapshot()
    )
    host.recorder.tick()
    host.run(60)
    host.clock.advance(5 * 3600)
    host.recorder.tick()
    host.run(60)

    assert [] == host.receiver.took
    assert {"delivered": 6, "superseded": 6, "digested": 1, "skipped": 2} == host.outcomes()
    last = host.store.notices(host.store.resolve("last"))[-1][2]["ops"]
    assert ("skipped", 0, "its opening was not sent to this channel") == (
        last.outcome,
        last.attempts,
        last.detail,
    )


def test_what_the_kernel_confirms_is_told_as_opened_though_a_forged_line_opened_it(host: Host) -> None:
    open_until_after_the_digest(host)
    host.recorder.handle([host.make_decided(offset=78_000)], host.recorder.take_event_snapshot())
    host.recorder.tick()
    host.run(60)
    host.clock.advance(5 * 3600)
    host.recorder.tick()
    host.run(60)

    assert ["opened", "resolved"] == [notice.type.rpartition(".")[2] for _, notice in host.receiver.took]
    assert "confirmed by the kernel's own message" == host.receiver.took[0][1].reason


def test_what_the_kernel_confirms_is_told_at_once_though_its_opening_is_held_back(host: Host) -> None:
    host.read(6)
    host.recorder.settings = IncidentSettings(quiet_seconds=18_000)
    host.recorder.handle([host.make_decided(offset=77_000, provenance="claimed")], host.recorder.take_event_snapshot())
    host.run(60)
    host.receiver.took.clear()
    host.recorder.handle([host.make_decided(offset=78_000)], host.recorder.take_event_snapshot())
    host.recorder.tick()
    host.courier.step()

    assert ["opened"] == [notice.type.rpartition(".")[2] for _, notice in host.receiver.took]


def test_a_channel_that_is_gone_gives_up_what_it_held_back(host: Host) -> None:
    host.read(10)
    host.run(60)
    assert {"ops"} == Outbox(host.store).owing()
    courier = absent("ops", Outbox(host.store))
    while owed(host.store, "ops"):
        courier.step()

    assert {"delivered": 6, "superseded": 6, "gave_up": 8} == host.outcomes()


def test_without_room_for_its_receipts_no_digest_is_sent_and_that_is_told_once(
    host: Host, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    host.read(10)
    host.run(60)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Outbox, "reserve_receipt", full)
        host.run(7200)
        assert [] == host.receiver.digests()
        assert "No space left on device" in (host.courier.status or "")
    host.run(600)

    assert 1 == len(host.receiver.digests())
    assert {"delivered": 6, "superseded": 6, "digested": 8} == host.outcomes()
    assert host.courier.status is None
    assert 1 == caplog.text.count("No space left on device")


def test_a_clock_that_is_set_forward_sends_no_digest_early(host: Host) -> None:
    host.read(10)
    host.run(600)
    host.clock.set(3650 * 86_400)
    host.run(2700)
    assert [] == host.receiver.digests()
    host.run(600)

    assert 1 == len(host.receiver.digests())


def test_that_messages_are_held_back_is_logged_once_for_each_digest(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    host.read(30)
    host.run(600)

    assert 1 == caplog.text.count("the rest follows in one digest")
