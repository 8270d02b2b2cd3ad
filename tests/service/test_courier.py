import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from harness import Tray, fill_disk
from material import make_event, make_sent_notice
from msgspec.structs import replace

from agent.core.budget import MESSAGES_AN_HOUR
from agent.core.delivery import Delivered, Delivery, Receipt, Rejected, Retry, Trouble
from agent.core.dispatch import Rules
from agent.core.folding import open_incident
from agent.core.model import Diagnosis, Notice, NoticeType, Silence, Snapshot
from agent.core.status import Waiting
from agent.service.courier import Courier, absent
from agent.store import Outbox, Store, StoreError, end_silence, write_silence

START = datetime(2026, 11, 22, 15, 5, 39, tzinfo=timezone.utc)
LOG = logging.getLogger("test-courier")


class Clock:
    """Both clocks: monotonic seconds, and the time of day, which can be ``set``."""

    def __init__(self) -> None:
        self.seconds = 1000.0
        self.set = timedelta(0)

    def monotonic(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return START + self.set + timedelta(seconds=self.seconds - 1000.0)


class Script:
    """A receiver that answers as it is told, by notice, and Delivered when nothing was said."""

    name = "ops"

    def __init__(self, clock: Clock, took: float = 0.0) -> None:
        self.clock = clock
        self.took = took
        self.calls: list[str] = []
        self.answers: dict[str, list[Delivery]] = {}
        self.otherwise: Delivery = Delivered(detail="HTTP 200")

    def say(self, notice: str, answers: Iterable[Delivery]) -> None:
        self.answers[notice] = list(answers)

    def notify(self, notice: Notice) -> Delivery:
        self.calls.append(notice.id)
        self.clock.seconds += self.took
        script = self.answers.get(notice.id)
        return script.pop(0) if script else self.otherwise


class World:
    """A courier with everything around it in hand."""

    def __init__(self, *, give_up_after: float = 86_400, dice: float = 1.0) -> None:
        self.clock = Clock()
        self.box = Tray()
        self.receiver = Script(self.clock)
        self.give_up_after, self.dice = give_up_after, dice
        self.courier = self.start(self.box)

    def start(self, outbox: Outbox) -> Courier:
        return Courier(
            self.receiver,
            outbox,
            Rules(give_up_after=self.give_up_after, reminders=False),
            monotonic=self.clock.monotonic,
            now=self.clock.now,
            random=lambda: self.dice,
            log=LOG,
        )

    def use(self, store: Store) -> None:
        """Deliver what is in a real store instead."""
        self.courier = self.start(Outbox(store))

    def put(self, incident_id: str, *, age: float = 0.0) -> None:
        """Let the recorder write the next notice of an incident."""
        number = 1 + sum(owner == incident_id for owner, _ in self.box.notices)
        kind: NoticeType = "sockmem.incident.opened" if number == 1 else "sockmem.incident.updated"
        at = self.clock.now() - timedelta(seconds=age)
        notice = replace(make_sent_notice(kind), id=f"{incident_id}/notice-{number:03}", at=at)
        self.box.put(incident_id, notice)

    def run(self, seconds: float) -> None:
        """Turn the courier as its thread would, for so long of the fake clock."""
        end = self.clock.seconds + seconds
        while True:
            delay = self.courier.step()
            assert 0.0 <= delay <= 60.0
            if self.clock.seconds + delay > end:
                self.clock.seconds = end
                return
            self.clock.seconds += delay


@pytest.fixture(autouse=True)
def _hear(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger=LOG.name)


# --- taken ----------------------------------------------------------------------------------------------------------


def test_a_notice_that_was_taken_gets_a_receipt_and_is_not_sent_again() -> None:
    world = World()
    world.put("a")

    world.run(600)

    expected = Receipt(
        notice="a/notice-001", channel="ops", outcome="delivered", at=START, attempts=1, detail="HTTP 200"
    )
    assert [expected] == world.box.receipts
    assert ["a/notice-001"] == world.receiver.calls
    assert {"delivered": 1} == world.courier.counts


def test_the_receipt_of_the_newest_notice_is_that_of_what_was_sent_and_those_before_it_are_superseded() -> None:
    world = World()
    world.receiver.say("a/notice-001", [Retry(why="HTTP 503")])
    world.put("a")
    world.courier.step()
    world.put("a")

    world.run(600)

    assert ["a/notice-001", "a/notice-002"] == world.receiver.calls
    receipts = [(each.notice, each.outcome, each.detail) for each in world.box.receipts]
    assert [("a/notice-001", "superseded", "notice-002"), ("a/notice-002", "delivered", "HTTP 200")] == receipts


def test_nothing_to_do_means_a_minute_of_rest() -> None:
    assert 60.0 == World().courier.step()


def test_a_step_makes_one_attempt_at_most_and_asks_to_be_called_again() -> None:
    world = World()
    world.put("a")
    world.put("b")

    assert 0.0 == world.courier.step()
    assert ["a/notice-001"] == world.receiver.calls


def test_the_receipt_is_written_after_the_receiver_took_it_and_not_before() -> None:
    world = World()
    world.put("a")
    seen: list[int] = []

    def look(notice: Notice) -> Delivery:
        seen.append(len(world.box.receipts))
        return Delivered()

    world.courier._notifier.notify = look  # type: ignore[method-assign]
    world.run(1)

    assert [0] == seen
    assert 1 == len(world.box.receipts)


# --- busy -----------------------------------------------------------------------------------------------------------


def attempts_at(world: World, seconds: float) -> list[float]:
    """Run and return when attempts were made, in seconds from the start."""
    times: list[float] = []
    plain = world.receiver.notify

    def notify(notice: Notice) -> Delivery:
        times.append(world.clock.seconds - 1000.0)
        return plain(notice)

    world.courier._notifier.notify = notify  # type: ignore[method-assign]
    world.run(seconds)
    return times


def test_a_wake_up_does_not_end_a_pause() -> None:
    world = World(dice=0.0)
    world.receiver.otherwise = Retry(why="HTTP 429", after_seconds=30.0)
    world.put("a")
    world.courier.step()

    world.courier.thread.wake()

    assert 30.0 == world.courier.step()
    assert 1 == len(world.receiver.calls)


def test_a_success_ends_the_pauses() -> None:
    world = World(dice=1.0)
    world.receiver.say("a/notice-001", [Retry(why="HTTP 503")] * 3)
    world.put("a")
    world.run(100)
    world.receiver.calls.clear()
    world.receiver.say("b/notice-001", [Retry(why="HTTP 503")])
    world.put("b")

    times = attempts_at(world, 3)

    assert [2.0] == [b - a for a, b in pairwise(times)]


# --- refused --------------------------------------------------------------------------------------------------------


def test_all_refused_notices_are_given_up_when_their_time_has_passed() -> None:
    world = World(give_up_after=20_000)
    world.receiver.otherwise = Rejected(why="HTTP 400")
    for number in range(70):
        world.put(f"i{number:03}")
    world.run(21_000)  # The last ones are first seen when those before them were tried.

    assert ["gave_up"] * 70 == [receipt.outcome for receipt in world.box.receipts]
    assert [] == world.box.waiting


def test_a_channel_that_is_no_longer_configured_gives_up_what_it_owes() -> None:
    world = World()
    world.put("a")
    world.put("b")
    courier = absent("ops", world.box)
    courier.step()

    assert [("gave_up", 0, "the channel is no longer configured")] * 2 == [
        (receipt.outcome, receipt.attempts, receipt.detail) for receipt in world.box.receipts
    ]
    assert 2 == courier.counts["gave_up"]


def test_the_receipt_counts_the_attempts_before_a_reload_also_of_a_channel_that_is_gone() -> None:
    for is_gone in (False, True):
        world = World()
        world.receiver.say("a/notice-001", [Retry(why="HTTP 503")] * 3)
        world.put("a")
        world.run(8)
        between, after = (absent("ops", world.box) if is_gone else world.start(world.box) for _ in range(2))
        between.succeed(world.courier)  # It never steps: the one before it is still in its last attempt.
        after.succeed(between)
        world.courier.step()
        world.clock.seconds += 60
        world.courier = after
        world.run(60)

        outcome, attempts = ("gave_up", 3) if is_gone else ("delivered", 4)
        assert [(outcome, attempts)] == [(receipt.outcome, receipt.attempts) for receipt in world.box.receipts]


# --- given up -------------------------------------------------------------------------------------------------------


def test_a_notice_is_given_up_in_the_end_and_that_is_said(caplog: pytest.LogCaptureFixture) -> None:
    world = World(give_up_after=3600)
    world.receiver.otherwise = Retry(why="HTTP 503")
    world.put("a")

    world.run(4000)

    (receipt,) = world.box.receipts
    assert ("gave_up", "HTTP 503") == (receipt.outcome, receipt.detail)
    assert len(world.receiver.calls) == receipt.attempts
    assert 3600 <= (receipt.at - START).total_seconds() <= 3660
    assert 1 == world.courier.counts["gave_up"]
    assert ["ops: gave up sockmem.incident.opened of incident a: HTTP 503"] == [
        record.getMessage() for record in caplog.records if record.levelno == logging.ERROR
    ]


def test_what_was_old_at_the_start_is_given_up_after_an_hour_of_trying() -> None:
    world = World(give_up_after=86_400)
    world.receiver.otherwise = Retry(why="connection refused")
    for number in range(20):
        world.put(f"i{number:02}", age=100_000)

    world.run(3590)
    assert [] == world.box.receipts
    world.run(400)

    assert ["gave_up"] * 20 == [receipt.outcome for receipt in world.box.receipts]
    assert len(world.receiver.calls) > 10


def test_what_waited_before_the_start_counts() -> None:
    world = World(give_up_after=86_400)
    world.receiver.otherwise = Retry(why="connection refused")
    world.put("a", age=80_000)

    world.run(6000)
    assert [] == world.box.receipts
    world.run(800)

    assert ["gave_up"] == [receipt.outcome for receipt in world.box.receipts]


def test_a_clock_that_is_set_forward_by_years_gives_nothing_up() -> None:
    world = World(give_up_after=86_400)
    world.receiver.otherwise = Retry(why="Network is unreachable")
    world.put("a")
    world.run(100)
    world.clock.set = timedelta(days=365 * 24)
    world.put("b")
    world.run(80_000)
    assert [] == world.box.receipts
    world.receiver.otherwise = Delivered()
    world.run(400)

    assert ["delivered"] * 2 == [receipt.outcome for receipt in world.box.receipts]


def test_a_clock_that_is_set_forward_before_a_notice_is_seen_gives_nothing_up() -> None:
    world = World(give_up_after=86_400)
    world.receiver.otherwise = Retry(why="Network is unreachable")
    world.put("a")
    world.clock.set = timedelta(days=365 * 24)
    world.run(80_000)

    assert [] == world.box.receipts


def test_by_a_clock_that_was_set_forward_a_notice_is_given_up_when_its_time_has_passed() -> None:
    world = World(give_up_after=86_400)
    world.receiver.otherwise = Retry(why="Network is unreachable")
    world.put("a")
    world.run(100)
    world.clock.set = timedelta(days=365 * 24)
    world.run(86_700)

    assert ["gave_up"] == [receipt.outcome for receipt in world.box.receipts]


def test_a_refused_notice_outlasts_a_clock_that_is_set_forward() -> None:
    world = World(give_up_after=86_400)
    world.receiver.say("a/notice-001", [Rejected(why="HTTP 403")] * 3)
    world.put("a")
    world.run(10)
    world.clock.set = timedelta(days=365 * 24)
    world.run(10_000)

    assert ["delivered"] == [receipt.outcome for receipt in world.box.receipts]


def test_the_times_of_a_trouble_are_right_though_the_clock_was_set(caplog: pytest.LogCaptureFixture) -> None:
    world = World(dice=0.0)
    world.receiver.say("a/notice-001", [Retry(why="HTTP 503", after_seconds=60.0)])
    world.put("a")
    world.run(10)
    world.clock.set = timedelta(days=365, hours=5)
    world.run(40)
    began = (world.clock.now() - timedelta(seconds=50)).astimezone()
    assert f"since {began:%H:%M}" in (world.courier.status or "")
    world.run(60)

    assert "ops: delivered again after 1 min" == caplog.records[-1].getMessage()


def test_a_clock_that_was_set_back_gives_nothing_up() -> None:
    world = World(give_up_after=3600)
    world.receiver.say("a/notice-001", [Retry(why="HTTP 503")])
    world.put("a", age=-1_000_000)

    world.run(100)

    assert ["delivered"] == [receipt.outcome for receipt in world.box.receipts]


# --- receipts that cannot be written --------------------------------------------------------------------------------


def test_without_room_for_the_receipt_nothing_is_sent_and_that_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.put("a")
    world.put("b")
    world.box.reserve_error = OSError(28, "No space left on device")
    world.run(3000)
    assert [] == world.receiver.calls
    assert "ops: 2 waiting, the state directory cannot be used: No space left on device since" in (
        world.courier.status or ""
    )
    world.box.reserve_error = None
    world.run(400)

    assert ["a/notice-001", "b/notice-001"] == world.receiver.calls
    assert [1, 1] == [receipt.attempts for receipt in world.box.receipts]
    assert world.courier.status is None
    assert 1 == caplog.text.count("No space left on device")


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), StoreError("the disk is full")])
def test_on_a_full_disk_nobody_is_told_the_same_thing_twice(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.put("a")
    world.box.write_error = error
    world.run(600)

    world.box.write_error = None
    world.run(60)

    assert ["a/notice-001"] == world.receiver.calls
    assert ["a/notice-001"] == [receipt.notice for receipt in world.box.receipts]
    assert 1 == len([record for record in caplog.records if "cannot be written" in record.getMessage()])


def test_a_notice_that_cannot_be_read_any_more_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.put("a")
    world.put("b")
    read, why = world.box.notice, "a/notice-001.json: cannot be read (Input/output error)"

    def read_or_fail(incident_id: str, file: str) -> Notice:
        if incident_id == "a":
            raise StoreError(why)
        return read(incident_id, file)

    monkeypatch.setattr(world.box, "notice", read_or_fail)
    world.run(60)

    assert ["b/notice-001"] == world.receiver.calls
    assert why in (world.courier.status or "")


def test_after_a_reload_what_has_no_receipt_yet_is_not_sent_again() -> None:
    world = World()
    world.put("a")
    world.box.write_error = OSError(5, "Input/output error")
    world.run(10)
    before, world.courier = world.courier, world.start(world.box)

    world.courier.succeed(before)
    world.run(60)
    world.box.write_error = None
    world.run(60)

    assert ["a/notice-001"] == world.receiver.calls
    assert ["a/notice-001"] == [receipt.notice for receipt in world.box.receipts]


def test_a_reload_counts_on_where_the_courier_before_it_is() -> None:
    world = World()
    world.put("a")
    world.receiver.say("a/notice-001", [Retry(why="HTTP 503")])
    world.courier.step()
    before, world.courier = world.courier, world.start(world.box)

    world.courier.succeed(before)
    world.run(60)

    assert {"failed": 1, "delivered": 1} == world.courier.counts


def test_a_receipt_of_an_incident_that_was_pruned_is_forgotten() -> None:
    world = World()
    world.put("a")
    world.box.write_error = FileNotFoundError(2, "No such file or directory")
    world.run(30)

    world.box.notices.clear()
    world.run(30)

    assert {} == world.courier._stories.unwritten


def test_a_state_directory_that_cannot_be_read_is_told_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.put("a")
    world.box.read_error = OSError(24, "Too many open files")
    world.run(100)
    assert "Too many open files" in (world.courier.status or "")
    world.box.read_error = None
    world.run(400)

    assert ["a/notice-001"] == [receipt.notice for receipt in world.box.receipts]
    assert 1 == len([record for record in caplog.records if "Too many open files" in record.getMessage()])


# --- surprises ------------------------------------------------------------------------------------------------------

ADDRESS = "http://ops:T0ken@hook/services/T0ken"


def raising(surprise: BaseException) -> Callable[..., Any]:
    def slip(*args: object, **kwargs: object) -> None:
        raise surprise

    return slip


@pytest.mark.parametrize("kind", [AttributeError, ValueError, MemoryError, RecursionError, SystemExit])
def test_a_surprise_in_a_channel_is_a_failed_attempt_with_growing_pauses(kind: type[BaseException]) -> None:
    world = World(dice=1.0)
    world.put("a")
    plain, at = world.receiver.notify, []

    def slip(notice: Notice) -> Delivery:
        at.append(world.clock.seconds)
        if len(at) <= 5:
            raise kind(ADDRESS)
        return plain(notice)

    world.courier._notifier.notify = slip  # type: ignore[method-assign]
    world.run(30)

    assert [2, 4, 8] == [round(b - a) for a, b in pairwise(at)][:3]
    assert [] == world.box.receipts
    assert f"ops: 1 waiting, unexpected {kind.__name__} in test_courier.py:" in (world.courier.status or "")
    world.run(60)
    assert [("delivered", 6)] == [(receipt.outcome, receipt.attempts) for receipt in world.box.receipts]
    assert {"delivered": 1, "failed": 5} == world.courier.counts
    assert world.courier.status is None


def test_a_surprise_is_logged_once_with_its_traceback_and_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    world = World(give_up_after=3600)
    world.put("a")
    world.courier._notifier.notify = raising(ValueError(ADDRESS))  # type: ignore[method-assign]

    world.run(4000)

    (surprise, end) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert surprise.getMessage().startswith("ops: unexpected ValueError in test_courier.py:")
    assert "in slip\n    raise surprise" in surprise.getMessage()
    assert "gave up" in end.getMessage()
    assert "T0ken" not in "".join([caplog.text, *(receipt.detail for receipt in world.box.receipts)])


def test_each_distinct_surprise_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    world = World(dice=0.0)
    world.put("a")
    for surprise in (ValueError(), TypeError(), ValueError()):
        world.courier._notifier.notify = raising(surprise)  # type: ignore[method-assign]
        world.run(5)

    assert ["ValueError", "TypeError"] == [record.getMessage().split()[2] for record in caplog.records]


def test_of_an_endless_recursion_the_innermost_frames_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.put("a")

    def recurse(notice: Notice) -> Delivery:
        return recurse(notice)

    world.courier._notifier.notify = recurse  # type: ignore[method-assign]
    world.courier.step()

    assert "RecursionError" in caplog.text
    assert caplog.text.count("\n") < 60


def test_a_surprise_around_an_attempt_sets_the_channel_back_too(caplog: pytest.LogCaptureFixture) -> None:
    world = World(dice=1.0)
    world.put("a")
    plain = world.box.names
    world.box.names = raising(KeyError(ADDRESS))  # type: ignore[method-assign]
    assert [2.0, 4.0, 8.0] == [world.courier.step() for _ in range(3)]
    assert "unexpected KeyError" in (world.courier.status or "")
    world.box.names = plain  # type: ignore[method-assign]
    world.run(60)

    assert ["delivered"] == [receipt.outcome for receipt in world.box.receipts]
    assert 1 == caplog.text.count("unexpected KeyError")
    assert "T0ken" not in caplog.text


def test_after_a_surprise_in_writing_the_receipt_nobody_is_told_the_same_thing_twice(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World()
    world.put("a")
    world.box.write_error = TypeError(ADDRESS)
    world.run(600)
    world.box.write_error = None
    world.run(60)

    assert ["a/notice-001"] == world.receiver.calls
    assert ["a/notice-001"] == [receipt.notice for receipt in world.box.receipts]
    assert "T0ken" not in caplog.text


# --- what is said ---------------------------------------------------------------------------------------------------


def test_one_line_on_failure_one_on_another_reason_one_on_recovery(caplog: pytest.LogCaptureFixture) -> None:
    world = World(dice=0.0)
    reasons = ["HTTP 503"] * 5 + ["connection refused"] * 5 + ["HTTP 503"]
    busy = [Retry(why=why) for why in reasons]
    world.receiver.say("a/notice-001", busy)
    world.put("a")

    world.run(60)

    assert [
        "ops: not delivered, will be tried again: HTTP 503",
        "ops: not delivered, will be tried again: connection refused",
        "ops: delivered again after 11 s",
    ] == [record.getMessage() for record in caplog.records]


def test_recovery_is_told_when_nothing_that_failed_is_left(caplog: pytest.LogCaptureFixture) -> None:
    world = World(dice=0.0)
    world.receiver.say("a/notice-001", [Rejected(why="HTTP 400")])
    world.put("a")
    world.put("b")

    world.run(200)
    assert world.courier.status is not None
    world.run(200)

    assert [
        "ops: not delivered, will be tried again: HTTP 400",
        "ops: delivered again after 5 min",
    ] == [record.getMessage() for record in caplog.records]
    assert world.courier.status is None


def test_a_second_trouble_is_told_again(caplog: pytest.LogCaptureFixture) -> None:
    world = World(dice=0.0)
    for incident in ("a", "b"):
        world.receiver.say(f"{incident}/notice-001", [Retry(why="HTTP 503")])
        world.put(incident)
        world.run(60)

    assert ["WARNING", "INFO", "WARNING", "INFO"] == [record.levelname for record in caplog.records]


def test_why_it_waits_is_on_disk_as_long_as_it_fails_and_written_when_that_changes() -> None:
    world = World(dice=0.0)
    reasons = ["HTTP 503"] * 5 + ["connection refused"] * 5
    world.receiver.say("a/notice-001", [Retry(why=why) for why in reasons])
    written: list[Trouble | None] = []
    world.box.write_trouble = lambda _, trouble: written.append(trouble)  # type: ignore[method-assign]
    world.put("a")
    world.run(60)

    assert [("HTTP 503", 0), ("connection refused", 5)] == [
        (each.why, (each.at - START).total_seconds()) for each in written if each
    ]
    assert [START] * 2 == [each.since for each in written if each]
    assert written[-1] is None


def test_what_a_process_before_left_of_its_trouble_is_removed() -> None:
    world = World()
    world.box.trouble = Trouble(channel="ops", why="HTTP 503", since=START, at=START)
    world.courier.step()

    assert world.box.trouble is None


def test_status_says_how_many_wait_why_and_since_when() -> None:
    world = World()
    world.receiver.otherwise = Retry(why="HTTP 503")
    for incident in ("a", "b", "c"):
        world.put(incident)
    assert world.courier.status is None

    world.run(1000)

    assert f"ops: 3 waiting, HTTP 503 since {START.astimezone():%H:%M}" == world.courier.status


def test_what_a_silence_or_the_hourly_limit_holds_back_waits_but_is_not_overdue() -> None:
    world = World()
    world.box.silenced = Silence(since=START, until=START + timedelta(hours=1), reason="upgrade")
    world.put("a")
    world.run(1200)
    assert Waiting(1, None, None) == world.courier.waiting
    world.box.silenced = None
    for number in range(MESSAGES_AN_HOUR["kernel"]):
        world.put(f"b{number}")
    world.run(1200)

    assert Waiting(1, None, None) == world.courier.waiting


def test_counters_count_attempts_that_failed() -> None:
    world = World(dice=0.0)
    world.receiver.say("a/notice-001", [Retry(why="HTTP 503"), Rejected(why="HTTP 404")])
    world.put("a")

    world.run(600)

    assert {"delivered": 1, "failed": 2} == world.courier.counts


# --- with the real store --------------------------------------------------------------------------------------------


def store_with_a_notice(directory: Path) -> Store:
    store = Store(directory)
    os.close(store.open_for_writing())
    event = make_event("tcp_memory", at=START)
    snapshot = Snapshot(taken_at=START, trigger="event")
    incident = open_incident(event, START, snapshot, Diagnosis(cause="none", confidence="possible", summary=""))
    store.new_directory(incident.id)
    notice = Notice(id="n1", type="sockmem.incident.opened", at=START, reason="", channels=("ops",), data=incident)
    store.commit(replace(incident, notices=(store.write_notice(incident.id, 1, notice),)))
    return store


def receipts(store: Store) -> dict[str, Receipt]:
    return store.notices(store.resolve("last"))[0][2]


def test_a_real_store_hands_out_notices_and_keeps_the_receipts(tmp_path: Path) -> None:
    world = World()
    store = store_with_a_notice(tmp_path)
    world.use(store)

    world.run(10)

    assert ["n1"] == world.receiver.calls
    assert set() == Outbox(store).owing()
    assert "delivered" == receipts(store)["ops"].outcome


@pytest.mark.parametrize("has_room", [False, True])
def test_what_is_sent_was_flushed_although_its_commit_is_still_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, has_room: bool
) -> None:
    world = World()
    store = store_with_a_notice(tmp_path)  # Its directory may not be on disk yet when a courier reads it.
    folder = store.path(store.resolve("last"))
    if has_room:
        (folder / ".notice-001.ops.json.new").write_bytes(b" " * 4096)
    world.use(store)
    flush, flushed, before_the_post = os.fsync, list[str](), list[str]()

    def fsync(descriptor: int) -> None:
        flush(descriptor)
        flushed.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))

    def notify(_: Notice) -> Delivery:
        before_the_post.extend(flushed)
        return Delivered(detail="HTTP 200")

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(world.receiver, "notify", notify)
    world.run(10)

    assert str(folder) == before_the_post[-1]


@pytest.mark.parametrize("moment", ["look", "post"])
@pytest.mark.parametrize("file", ["", "incident.json"])  # Retention begins with that, and may be seen half-way.
def test_an_incident_that_is_removed_before_or_during_its_post_is_forgotten_without_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, moment: str, file: str
) -> None:
    world = World()
    store = store_with_a_notice(tmp_path)
    folder = store.path(store.resolve("last"))
    world.use(store)

    def remove(*_: object) -> None:
        if (folder / file).is_dir():
            shutil.rmtree(folder)
        else:
            (folder / file).unlink(missing_ok=True)

    if moment == "look":
        monkeypatch.setattr(Outbox, "silence", remove)
    else:
        monkeypatch.setattr(world.receiver, "notify", lambda _: remove() or Delivered())
    world.run(3600)

    assert [] == caplog.messages
    assert (0, None) == (world.courier.counts["failed"], world.courier.status)
    assert 0 == world.courier.waiting.notices
    assert (0 if moment == "look" else 1) == world.courier.counts["delivered"]


def test_a_silence_in_the_store_holds_back_what_is_new_until_it_ends(tmp_path: Path) -> None:
    world = World()
    store = store_with_a_notice(tmp_path)
    world.use(store)
    write_silence(tmp_path, Silence(since=START, until=START + timedelta(hours=1), reason="upgrade"))
    world.run(600)
    assert [] == world.receiver.calls
    end_silence(tmp_path)
    world.run(60)

    assert ["n1"] == world.receiver.calls


def test_on_a_disk_that_is_full_no_start_sends_anything_and_with_room_one_does(small_disk: Path) -> None:
    store = store_with_a_notice(small_disk)
    filler = fill_disk(small_disk)
    calls = []
    for _ in range(5):
        world = World()
        world.use(store)
        world.run(6)
        calls += world.receiver.calls
    assert [] == calls
    filler.unlink()
    world.run(300)

    assert ["n1"] == world.receiver.calls
    assert ("delivered", 1) == (receipts(store)["ops"].outcome, receipts(store)["ops"].attempts)


def test_room_that_a_kill_left_empty_is_none_so_nothing_is_sent_while_the_disk_is_full(small_disk: Path) -> None:
    store = store_with_a_notice(small_disk)
    (store.path(store.resolve("last")) / ".notice-001.ops.json.new").touch()
    fill_disk(small_disk)
    world = World()
    world.use(store)
    world.run(300)

    assert [] == world.receiver.calls


def test_a_disk_that_fills_up_during_the_post_has_room_for_the_receipt(small_disk: Path) -> None:
    store = store_with_a_notice(small_disk)
    world = World()
    world.use(store)
    world.receiver.otherwise = Retry(why="HTTP 503 " + "\x01" * 4000)
    world.run(1)
    plain = world.receiver.notify

    def notify(notice: Notice) -> Delivery:
        fill_disk(small_disk)
        plain(notice)
        return Delivered(detail="é" * 4000)

    world.courier._notifier.notify = notify  # type: ignore[method-assign]
    world.run(300)
    again = World()
    again.use(store)
    again.run(300)

    assert ["n1", "n1"] == world.receiver.calls
    assert [] == again.receiver.calls
    assert ("delivered", 2) == (receipts(store)["ops"].outcome, receipts(store)["ops"].attempts)
    assert {"incident.json", "notice-001.json", "notice-001.ops.json"} == {
        path.name for path in store.path(store.resolve("last")).iterdir()
    }


def test_the_room_for_a_receipt_is_kept_until_it_is_written(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_with_a_notice(small_disk)
    incident_id = store.resolve("last")
    Outbox(store).reserve_receipt(incident_id, "notice-001", "ops")
    plain = os.write

    def write(descriptor: int, data: bytes) -> int:
        fill_disk(small_disk)  # Somebody takes whatever is free at this very moment.
        return plain(descriptor, data)

    monkeypatch.setattr(os, "write", write)
    receipt = Receipt(notice="n1", channel="ops", outcome="delivered", at=START, attempts=1, detail="HTTP 200")
    Outbox(store).write_receipt(incident_id, "notice-001", receipt)

    assert receipt == receipts(store)["ops"]


def test_the_room_that_a_crash_left_is_no_receipt_and_is_used_again(tmp_path: Path) -> None:
    store = store_with_a_notice(tmp_path)
    incident_id = store.resolve("last")
    Outbox(store).reserve_receipt(incident_id, "notice-001", "ops")
    assert [".notice-001.ops.json.new"] == [path.name for path in store.path(incident_id).glob(".*")]
    assert {} == receipts(store)
    world = World()
    world.use(store)
    world.run(10)

    assert ["n1"] == world.receiver.calls
    assert "delivered" == receipts(store)["ops"].outcome
    assert [] == list(store.path(incident_id).glob(".*"))


# --- the thread -----------------------------------------------------------------------------------------------------


def until(condition: Callable[[], bool]) -> bool:
    """Wait for a real thread, five seconds at most."""
    pause = threading.Event()
    return any(condition() or pause.wait(0.005) for _ in range(1000))


def test_the_thread_delivers_when_woken_and_ends_when_told() -> None:
    world = World()
    world.courier.thread.start()
    assert until(world.courier.thread.is_alive)

    world.put("a")
    world.courier.thread.wake()

    assert until(lambda: len(world.box.receipts) == 1)
    world.courier.thread.stop(5)
    assert not world.courier.thread.is_alive()


def test_a_thread_that_died_is_started_again_and_delivers(capfd: pytest.CaptureFixture[str]) -> None:
    world = World()
    world.put("a")
    plain, steps = world.courier.step, []

    def die_once() -> float:
        steps.append(1)
        if len(steps) == 1:
            raise MemoryError(ADDRESS)
        return plain()

    world.courier.thread._step = die_once
    world.courier.thread.start()
    assert until(lambda: bool(steps) and not world.courier.thread.is_alive())
    world.courier.thread.start()

    assert until(lambda: len(world.box.receipts) == 1)
    world.courier.thread.stop(5)
    assert ("", "") == capfd.readouterr()


def test_a_thread_that_cannot_be_started_is_told_and_tried_again_after_a_pause(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(dice=1.0)
    world.put("a")
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", raising(RuntimeError("can't start new thread")))
        for _ in range(200):
            world.courier.thread.start()
            world.clock.seconds += 1
        assert "no thread could be started" in (world.courier.status or "")
        assert 0 <= world.clock.seconds - world.courier.thread.last_progress <= 1  # The watchdog is fed all the while.
    world.clock.seconds += 300
    world.courier.thread.start()

    assert until(lambda: len(world.box.receipts) == 1)
    world.courier.thread.stop(5)
    assert 1 == caplog.text.count("no thread could be started")


def test_a_surprise_in_one_channel_keeps_its_thread_and_another_channel_delivers() -> None:
    bad, good = World(), World()
    bad.put("a")
    good.put("a")
    bad.courier._notifier.notify = raising(SystemExit(1))  # type: ignore[method-assign]
    for world in (bad, good):
        world.courier.thread.start()

    assert until(lambda: bad.courier.counts["failed"] == 1)
    assert until(lambda: len(good.box.receipts) == 1)
    assert bad.courier.thread.is_alive()
    for world in (bad, good):
        world.courier.thread.stop(5)


def test_progress_stands_still_while_an_attempt_hangs_and_goes_on_after_it() -> None:
    world = World()
    world.put("a")
    inside, leave = threading.Event(), threading.Event()

    def hang(notice: Notice) -> Delivery:
        inside.set()
        leave.wait(5)
        return Delivered()

    world.courier._notifier.notify = hang  # type: ignore[method-assign]
    world.courier.thread.start()
    assert inside.wait(5)
    world.clock.seconds += 100

    assert 1000.0 == world.courier.thread.last_progress
    leave.set()
    assert until(lambda: world.courier.thread.last_progress == 1100.0)
    world.courier.thread.stop(5)


def test_a_courier_that_was_never_started_can_be_stopped() -> None:
    World().courier.thread.stop(1)
