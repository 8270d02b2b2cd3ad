"""What is sent when, by a virtual clock: outages of a day, without a thread, a disk or a socket."""

import heapq
import random
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from material import make_digest_notice, make_incident, make_notice, make_sent_incident

from agent.core import dispatch
from agent.core.cursor import Cursor, Resume
from agent.core.delivery import Delivered, Delivery, Rejected, Retry
from agent.core.dispatch import Ledger, Now, Rules, Said, Step, Story, compose, plan, rules_of
from agent.core.model import Notice, NoticeType, Provenance, Remark, Silence, Standing
from agent.core.report import title
from agent.core.settings import AlertmanagerSettings, PagerDutySettings, Severity, SlackSettings

START = datetime(2026, 11, 22, 0, tzinfo=timezone.utc)
HOUR, DAY = 3600.0, 86_400.0
ALERTMANAGER = Rules(senders=2, repeat_seconds=60.0, after_end_seconds=900.0)
PAGERDUTY = Rules(senders=1)
PLAIN = Rules()
BUSY = Retry(why="HTTP 503")
AWAY = Retry(why="connection refused")
LOST = Retry(why="no answer within 20 s", may_be_taken=True)
TAKEN = Delivered()
SOME = Retry(why="SMTP 452", taken="taken for 1 of 2 recipients")
# What people read: at which second, of which incident, and how it was told.
Told = tuple[float, str, str]


def moment(second: float) -> datetime:
    return START + timedelta(seconds=second)


class Channel:
    """One channel on a virtual clock, with the receipts on a disk that is not there."""

    def __init__(self, rules: Rules = PLAIN, dice: Callable[[], float] = lambda: 1.0) -> None:
        self.rules, self.dice = rules, dice
        self.second = 0.0
        self.stories: dict[str, Story] = {}
        self.receiver: Callable[[float, Step], Delivery] = lambda *_: Delivered()
        self.silence: Silence | None = None
        self.told: list[Told] = []
        self.taken: list[tuple[str, str]] = []
        self.tried: list[tuple[float, Step]] = []
        self.closed: list[dispatch.Close] = []
        self.is_killed = False
        self.restart()

    def restart(self) -> None:
        """Forget what only the process knew."""
        self.ledger = Ledger(self.now, self.rules.senders)
        self.held: set[tuple[str, str]] = set()

    @property
    def now(self) -> Now:
        return Now(self.second, moment(self.second))

    def say(
        self,
        incident: str,
        kind: str = "opened",
        *,
        severity: Severity = "critical",
        proof: Provenance = "kernel",
        to: bool = True,
        past: bool = False,
        at: float | None = None,
    ) -> None:
        """Let the recorder write a notice."""
        before = self.stories.get(incident, Story(incident, (), proof))
        number, type_ = len(before.notices) + 1, f"sockmem.incident.{kind}"
        due = moment(self.second if at is None else at)
        said = Said(f"notice-{number:03}", f"{incident}-{number}", type_, due, severity, to)  # type: ignore[arg-type]
        is_over = kind == "resolved"
        self.stories[incident] = before._replace(
            notices=(*before.notices, said), proof=proof, is_over=is_over, is_past=past
        )

    def settle(self, incident: str, outcome: str, files: Iterable[str]) -> None:
        story = self.stories[incident]
        at = self.now.time
        self.stories[incident] = story._replace(
            notices=tuple(
                said._replace(outcome=outcome, settled_at=at) if said.file in files else said for said in story.notices
            )
        )

    def turn(self) -> float:
        """Do one step, and return the second of the next."""
        self.ledger.note(self.stories, self.now)
        todo = plan(self.stories, self.ledger, self.rules, self.silence, self.now, held=self.held)
        if self.silence and self.silence.is_on(self.now.time):
            self.ledger.rest(self.stories.values(), self.now)
        self.closed += todo.closing
        for incident, outcome, _ in todo.closing:
            if not self.stories[incident].owed:
                del self.ledger.lacking[incident]
            self.settle(incident, outcome, {said.file for said in self.stories[incident].owed})
        for incident in todo.holding:
            self.held |= {(incident, said.file) for said in self.stories[incident].owed}
        for incident in todo.done:
            del self.stories[incident]
        if todo.closing:
            return self.second
        if todo.step is None:
            return todo.at
        self.attempt(todo.step)
        return self.second

    def attempt(self, step: Step) -> None:
        story = self.stories[step.incident_id]
        self.tried.append((self.second, step))
        files = [said.file for said in story.notices]
        said = next((said for said in story.notices if said.file == step.file), story.last)
        is_first = step.how != "again" and step.is_whole and said.outcome is None
        if is_first:
            notices = tuple(each._replace(has_room=each is said or each.has_room) for each in story.notices)
            self.stories[step.incident_id] = story._replace(notices=notices)
        delivery = self.receiver(self.second, step)
        is_taken = isinstance(delivery, Delivered) or (isinstance(delivery, Retry) and delivery.taken)
        if is_taken and not step.is_rest:
            how = f"again {step.remark}" if step.how == "again" else said.type if step.how == "plain" else step.how
            how = "+".join(step.severities) + (" ended" if story.is_over else "") if step.how == "state" else how
            self.told.append((self.second, step.incident_id, how.removeprefix("sockmem.incident.")))
            self.taken.append((step.incident_id, step.file))
        if self.is_killed:
            self.is_killed = False
            self.restart()
            return
        self.ledger.enter(step, delivery, self.now, self.dice())
        if is_taken and is_first:
            earlier = {each.file for each in story.owed} & {*files[: files.index(said.file)]}
            self.settle(step.incident_id, "superseded", earlier)
            self.settle(step.incident_id, "delivered", {said.file})

    def run(self, until: float) -> None:
        """Turn until that second."""
        while self.second < until:
            self.second = min(until, max(self.turn(), self.second))

    def read(self) -> list[tuple[str, str]]:
        """Return what people read, in order."""
        return [(incident, how) for _, incident, how in self.told]

    def outcomes(self, incident: str) -> list[str | None]:
        return [said.outcome for said in self.stories[incident].notices]


def down(first: float, last: float, answer: Delivery = AWAY) -> Callable[[float, Step], Delivery]:
    """Make a receiver that is out of reach for some time."""
    return lambda second, _: answer if first <= second < last else Delivered()


# --- message channels: an ordinary day ------------------------------------------------------------------------------


def test_what_opens_gets_worse_and_ends_is_sent_as_it_is() -> None:
    channel = Channel()
    for second, kind in ((0, "opened"), (1000, "updated"), (2000, "resolved")):
        channel.run(second)
        channel.say("a", kind)
    channel.run(3000)

    assert [(0.0, "a", "opened"), (1000.0, "a", "updated"), (2000.0, "a", "resolved")] == channel.told
    assert {} == channel.stories


def test_nothing_to_do_means_a_look_in_a_minute() -> None:
    assert 60.0 == Channel().turn()


# --- message channels: after an outage ------------------------------------------------------------------------------


def test_after_a_night_each_incident_that_is_over_is_one_late_message_oldest_first() -> None:
    channel = Channel()
    channel.receiver = down(0, 8 * HOUR)
    for number in range(5):
        channel.run(number * HOUR)
        channel.say(f"i{number}", "opened")
        channel.run(channel.second + 600)
        channel.say(f"i{number}", "updated")
        channel.run(channel.second + 600)
        channel.say(f"i{number}", "resolved")
    channel.run(9 * HOUR)

    assert [(f"i{number}", "late") for number in range(5)] == channel.read()
    assert 8 * HOUR <= channel.told[0][0] <= 8 * HOUR + 300


def test_the_oldest_is_what_began_first_though_it_ended_last() -> None:
    channel = Channel()
    channel.receiver = down(0, HOUR)
    for second, incident, kind in (
        (0, "a", "opened"),
        (9, "b", "opened"),
        (20, "b", "resolved"),
        (99, "a", "resolved"),
    ):
        channel.run(second)
        channel.say(incident, kind)
    channel.run(2 * HOUR)

    assert [("a", "late"), ("b", "late")] == channel.read()


def test_what_is_still_open_after_an_outage_is_opened_once_and_its_updates_are_overtaken() -> None:
    channel = Channel()
    channel.receiver = down(0, HOUR)
    channel.say("a", "opened")
    for _ in range(3):
        channel.run(channel.second + 900)
        channel.say("a", "updated")
    channel.run(HOUR + 300)

    assert [("a", "opened")] == channel.read()
    assert ["superseded"] * 3 + ["delivered"] == channel.outcomes("a")


def unanswered(answer: Delivery, *, is_killed: bool = False) -> Channel:
    """Open an incident at a receiver whose answer is lost, or the process is killed first; then there is an update."""
    channel = Channel()
    channel.say("a")
    channel.is_killed = is_killed
    channel.receiver = lambda *_: answer
    channel.turn()
    channel.receiver = lambda *_: Delivered()
    channel.second = 30.0
    channel.say("a", "updated")
    return channel


def killed_in_flight(answer: Delivery = TAKEN) -> Channel:
    return unanswered(answer, is_killed=True)


def test_an_opening_in_flight_when_the_agent_was_killed_comes_again_under_its_id_before_the_update() -> None:
    channel = killed_in_flight()

    channel.run(60)

    assert [("a", "notice-001"), ("a", "notice-001"), ("a", "notice-002")] == channel.taken
    assert [("a", "opened"), ("a", "opened"), ("a", "updated")] == channel.read()
    assert ["delivered", "delivered"] == channel.outcomes("a")


def test_an_opening_in_flight_comes_again_under_its_id_though_the_receiver_is_away_at_first() -> None:
    channel = killed_in_flight()
    channel.receiver = down(30, 100, BUSY)

    channel.run(200)

    assert [("a", "notice-001"), ("a", "notice-001"), ("a", "notice-002")] == channel.taken


@pytest.mark.parametrize("answer", [Rejected(why="HTTP 400"), Retry(why="HTTP 500", may_be_the_notice=True)])
def test_an_opening_in_flight_that_the_receiver_does_not_want_gives_way_to_the_newest(answer: Delivery) -> None:
    channel = killed_in_flight(answer)
    channel.receiver = lambda _, step: answer if step.file == "notice-001" else Delivered()

    channel.run(200)

    assert [("a", "opened")] == channel.read()
    assert [("a", "notice-002")] == channel.taken


def test_an_opening_whose_answer_was_lost_comes_again_under_its_id_before_the_update() -> None:
    channel = unanswered(LOST)

    channel.run(60)

    assert [("a", "notice-001"), ("a", "notice-002")] == channel.taken
    assert [("a", "opened"), ("a", "updated")] == channel.read()
    assert ["delivered", "delivered"] == channel.outcomes("a")


def test_an_opening_that_did_not_reach_the_receiver_is_overtaken_by_the_update() -> None:
    channel = unanswered(AWAY)

    channel.run(60)

    assert [("a", "notice-002")] == channel.taken


@pytest.mark.parametrize("answer", [Rejected(why="HTTP 400"), Retry(why="HTTP 500", may_be_the_notice=True)])
def test_an_opening_whose_answer_was_lost_gives_way_when_the_receiver_does_not_want_it_after_all(
    answer: Delivery,
) -> None:
    channel = unanswered(LOST)
    channel.receiver = lambda _, step: answer if step.file == "notice-001" else Delivered()

    channel.run(200)

    assert [("a", "notice-002")] == channel.taken


def test_an_update_whose_answer_was_lost_is_overtaken() -> None:
    channel = Channel()
    channel.say("a")
    channel.run(10)
    channel.say("a", "updated")
    channel.receiver = down(10, 11, LOST)
    channel.turn()
    channel.say("a", "updated")

    channel.run(60)

    assert [("a", "notice-001"), ("a", "notice-003")] == channel.taken


def test_what_is_over_when_the_receiver_answers_again_does_not_come_again_as_opened() -> None:
    channel = unanswered(LOST)
    channel.say("a", "resolved")

    channel.run(60)

    assert [("a", "late")] == channel.read()


def test_what_is_over_when_the_agent_is_back_does_not_come_again_as_opened() -> None:
    channel = killed_in_flight()
    channel.say("a", "resolved")

    channel.run(60)

    assert [("a", "opened"), ("a", "late")] == channel.read()


def test_an_update_in_flight_when_the_agent_was_killed_is_overtaken() -> None:
    channel = Channel()
    channel.say("a")
    channel.run(10)
    channel.say("a", "updated")
    channel.is_killed = True
    channel.turn()
    channel.say("a", "updated")

    channel.run(60)

    assert [("a", "notice-001"), ("a", "notice-002"), ("a", "notice-003")] == channel.taken


def test_an_opening_in_flight_is_given_up_with_the_newest() -> None:
    channel = killed_in_flight(AWAY)
    channel.receiver = lambda *_: AWAY

    channel.run(DAY + 29)
    assert [None, None] == channel.outcomes("a")
    channel.run(DAY + 400)
    assert ["gave_up", "gave_up"] == channel.outcomes("a")


def test_an_outage_between_opened_and_resolved_overtakes_the_updates() -> None:
    channel = Channel()
    channel.receiver = down(10, 3 * HOUR)
    channel.say("a", "opened")
    channel.run(100)
    channel.say("a", "updated")
    channel.run(HOUR)
    channel.say("a", "resolved")
    channel.run(3 * HOUR + 300)

    assert [("a", "opened"), ("a", "resolved")] == channel.read()


@pytest.mark.parametrize(
    ("expected", "lasted", "failed"),
    [
        (dispatch.DOWN, 50, "now"),
        (dispatch.DOWN, 50, "before a restart"),
        (dispatch.DELAYED, 50, "never"),
        (dispatch.DELAYED, 1, "never"),
        (dispatch.READ_LATE, 0.9, "never"),
    ],
)
def test_the_late_message_says_why_it_is_late(expected: str, lasted: float, failed: str) -> None:
    channel = Channel()
    channel.receiver = lambda *_: AWAY
    channel.say("a")
    if failed != "never":
        channel.turn()
    channel.second += lasted
    channel.say("a", "resolved")
    if failed == "before a restart":
        channel.restart()
    channel.run(channel.second + 40)

    assert expected == next(step.remark for _, step in channel.tried if step.how == "late")


def test_a_line_from_before_the_last_boot_is_sent_once_when_it_is_over() -> None:
    channel = Channel()
    channel.say("a", "opened", past=True)
    channel.run(300)
    assert [] == channel.told
    channel.say("a", "resolved", past=True)
    channel.run(400)

    assert [("a", "late")] == channel.read()
    assert "the log was read afterwards" == channel.tried[-1][1].remark


@pytest.mark.parametrize("rules", [PLAIN, PAGERDUTY])
def test_a_storm_that_a_log_stamps_with_another_year_is_sent_as_open_after_an_hour(rules: Rules) -> None:
    channel = Channel(rules)
    channel.say("a", "opened", past=True)
    channel.run(2 * HOUR)

    assert (HOUR, "a", "critical" if rules.senders else "opened") == channel.told[0]


def test_an_old_line_that_the_gauges_confirm_is_sent_at_once() -> None:
    channel = Channel()
    channel.say("a", "opened", past=True)
    channel.run(60)
    channel.say("a", "updated")
    channel.run(61)

    assert [("a", "opened")] == channel.read()


def test_pauses_are_30_seconds_at_most_for_ten_minutes_and_then_5_minutes() -> None:
    channel = Channel()
    channel.receiver = lambda *_: AWAY
    channel.say("a")
    channel.run(2000)
    pauses = [round(later - earlier) for (earlier, _), (later, _) in pairwise(channel.tried)]

    assert [2, 4, 8, 16] + [30] * 19 + [300] * 4 == pauses


def test_jitter_is_full_and_never_below_a_second() -> None:
    channel = Channel(dice=lambda: 0.0)
    channel.receiver = lambda *_: BUSY
    channel.say("a")
    channel.run(5)

    assert [0.0, 1.0, 2.0, 3.0, 4.0] == [second for second, _ in channel.tried]


def test_a_retry_after_is_kept_to_and_lengthens_nothing_else() -> None:
    channel = Channel()
    answers = iter(
        [Retry(why="HTTP 429", after_seconds=3600.0)] + [Retry(why="HTTP 429", after_seconds=2.0)] * 9 + [AWAY] * 2
    )
    channel.receiver = lambda *_: next(answers, Delivered())
    channel.say("a")
    channel.run(4000)
    pauses = [later - earlier for (earlier, _), (later, _) in pairwise(channel.tried)]

    assert [3601.0] + [3.0] * 9 + [2.0, 4.0] == pauses


def test_40_agents_at_one_webhook_with_a_message_a_second_are_all_heard_within_a_minute() -> None:
    for seed in range(20):
        chance = random.Random(seed)
        taken: list[float] = []

        def receive(second: float, step: Step, taken: list[float] = taken) -> Delivery:
            if taken and second - taken[-1] < 1.0:
                return Retry(why="HTTP 429", after_seconds=1.0)
            taken.append(second)
            return Delivered()

        channels = [Channel(dice=chance.random) for _ in range(40)]
        turns = []
        for number, channel in enumerate(channels):
            channel.receiver = receive
            channel.say("a")
            heapq.heappush(turns, (chance.random(), number))
        while len(taken) < 40:
            second, number = heapq.heappop(turns)
            channels[number].second = second
            heapq.heappush(turns, (max(channels[number].turn(), second + 0.001), number))

        assert taken[-1] < 60.0, seed


@pytest.mark.parametrize("answer", [BUSY, Retry(why="HTTP 500", may_be_the_notice=True), Rejected(why="HTTP 400")])
def test_64_notices_that_are_never_taken_hide_no_other(answer: Delivery) -> None:
    channel = Channel(Rules(give_up_after=30 * DAY))
    channel.receiver = lambda _, step: Delivered() if step.incident_id.startswith("new") else answer
    for number in range(64):
        channel.say(f"bad{number}")
    channel.run(2 * HOUR)
    channel.say("new1")
    channel.run(2.5 * HOUR)
    channel.say("new2")
    channel.run(3 * HOUR)

    assert [("new1", "opened"), ("new2", "opened")] == channel.read()


def test_of_what_is_due_the_oldest_is_first_though_it_was_refused() -> None:
    channel = Channel()
    channel.receiver = down(0, 10, Rejected(why="HTTP 404"))
    channel.say("a")
    channel.run(300)
    channel.say("b")
    channel.run(301)

    assert [("a", "opened"), ("b", "opened")] == channel.read()


def test_after_ten_minutes_of_trouble_each_fourth_attempt_is_with_what_was_tried_least() -> None:
    channel = Channel()
    channel.receiver = lambda *_: AWAY
    for incident in "abc":
        channel.second += 1
        channel.say(incident)
    start = channel.second = 5000.0
    channel.run(start + HOUR)
    tried = [(second - start, step.incident_id) for second, step in channel.tried]

    assert ["a"] * 23 == [incident for second, incident in tried if second < 600]
    assert list("caaabaaaca") == [incident for second, incident in tried if second >= 600]


def test_one_on_which_the_receiver_chokes_comes_behind_the_others_at_once() -> None:
    channel = Channel()
    channel.receiver = lambda _, step: (
        Retry(why="HTTP 500", may_be_the_notice=True) if step.incident_id == "a" else Delivered()
    )
    channel.say("a")
    channel.say("b")
    channel.run(3)

    assert [("b", "opened")] == channel.read()


def test_during_an_outage_the_oldest_is_tried_so_that_it_is_read_first() -> None:
    for length in range(30, 600, 30):
        channel = Channel()
        channel.receiver = down(0, length)
        for incident in ("a", "b", "c"):
            channel.say(incident, at=float(channel.second))
            channel.run(channel.second + 5)
        channel.run(length + 60)

        assert [("a", "opened"), ("b", "opened"), ("c", "opened")] == channel.read()


# --- taken by some of its recipients --------------------------------------------------------------------------------


def rests(channel: Channel) -> list[float]:
    return [second for second, step in channel.tried if step.is_rest]


def test_those_who_lack_a_mail_are_tried_alone_with_pauses_of_their_own() -> None:
    channel = Channel(Rules(reminders=False))
    channel.receiver = lambda *_: SOME
    channel.say("a")
    channel.run(HOUR)
    channel.say("b")
    channel.run(HOUR + 1)

    assert [(0.0, "a", "opened"), (HOUR, "b", "opened")] == channel.told
    pauses = [later - earlier for earlier, later in pairwise([0.0, *rests(channel)])]
    assert [2.0, 4.0, 8.0, 16.0, 30.0] == pauses[:5]
    assert {30.0} == {pause for pause, at in zip(pauses[5:], rests(channel)[4:], strict=False) if at < 600}
    assert 300.0 == pauses[-1]
    assert ("SMTP 452", 0.0) == (channel.ledger.senders[1].why, channel.ledger.senders[1].since)
    assert (None, float("-inf")) == (channel.ledger.senders[0].why, channel.ledger.senders[0].resume_at)


def test_an_update_takes_the_place_of_the_mail_that_some_lack_and_ends_the_trouble() -> None:
    channel = Channel()
    channel.receiver = lambda *_: SOME
    channel.say("a")
    channel.run(60)
    channel.receiver = lambda *_: TAKEN
    channel.say("a", "updated")
    channel.run(61)

    assert ["opened", "updated"] == [how for _, _, how in channel.told]
    assert [dispatch.Sender()] == channel.ledger.senders[:1]
    assert {} == channel.ledger.lacking
    channel.run(600)
    assert [dispatch.Sender()] == channel.ledger.senders
    assert {(0, "a", "notice-002")} == set(channel.ledger.tries)
    assert 60 >= max(rests(channel))


def test_an_update_that_some_lack_too_is_the_only_one_that_is_tried_on() -> None:
    channel = Channel()
    channel.receiver = lambda *_: SOME
    for kind in ("opened", "updated", "resolved"):
        channel.say("a", kind)
        channel.run(channel.second + 300)

    assert ["opened", "updated", "resolved"] == [how for _, _, how in channel.told]
    assert ["notice-001", "notice-002", "notice-003"] == sorted({step.file for _, step in channel.tried})
    for second, step in channel.tried:
        assert int(second // 300 + 1) == int(step.file[-1])
    channel.receiver = lambda *_: TAKEN
    channel.run(DAY / 2)
    assert {} == channel.stories


def test_those_who_lack_a_mail_are_given_up_alone_and_what_is_over_leaves_nothing() -> None:
    channel = Channel(Rules(give_up_after=2 * HOUR))
    channel.receiver = lambda *_: SOME
    channel.say("a")
    channel.run(HOUR)
    channel.say("a", "resolved")
    channel.run(3 * HOUR - 1)
    assert [] == channel.closed
    channel.run(3 * HOUR + 301)

    assert [("a", "gave_up", "SMTP 452")] == channel.closed
    assert {} == channel.stories


def test_those_who_lack_a_mail_wait_for_the_end_of_a_silence_and_are_not_given_up_for_it() -> None:
    channel = Channel(Rules(give_up_after=2 * HOUR, reminders=False))
    channel.receiver = lambda *_: SOME
    channel.say("a")
    channel.say("b")
    channel.run(1)
    channel.say("b", "resolved")
    channel.run(2)
    hush(channel, 5 * HOUR)
    tried = len(channel.tried)
    channel.run(5 * HOUR)
    assert tried == len(channel.tried)
    channel.receiver = lambda *_: TAKEN
    channel.run(6 * HOUR)

    assert [] == channel.closed
    assert {"a", "b"} == {step.incident_id for _, step in channel.tried[tried:] if step.is_rest}
    assert {"a"} == set(channel.stories)


def test_a_reminder_goes_to_those_who_take_it_and_the_opening_to_the_others_still() -> None:
    channel = Channel()
    channel.receiver = lambda *_: SOME
    channel.say("a")
    channel.run(HOUR + 400)

    assert ["opened", "again still open after 1 h"] == [how for _, _, how in channel.told]
    assert HOUR < rests(channel)[-1]
    assert {"notice-001"} == {step.file for _, step in channel.tried if step.is_rest}


def test_what_some_took_counts_once_in_the_hours_messages() -> None:
    channel = Channel(Rules(reminders=False))
    channel.receiver = lambda *_: SOME
    for number in range(20):
        channel.say(f"a{number}")
    channel.run(HOUR / 2)
    assert 20 == len(channel.ledger.sent["kernel"])
    channel.say("b")
    channel.run(HOUR / 2 + 1)

    assert {("b", "notice-001")} == channel.held
    assert HOUR / 2 - 300 <= max(rests(channel))  # And what follows costs nothing.


def test_the_trouble_of_those_who_lack_a_mail_is_over_at_once_when_all_take_the_next() -> None:
    channel = Channel()
    channel.receiver = lambda *_: SOME
    channel.say("a")
    channel.turn()
    channel.say("a", "updated")
    channel.receiver = lambda *_: TAKEN
    channel.turn()

    assert [dispatch.Sender()] * 2 == channel.ledger.senders


def test_the_opening_that_some_lack_is_tried_on_while_it_is_open_and_there() -> None:
    channel = Channel(Rules(updates=False, resolved=False))
    channel.receiver = lambda *_: SOME
    for incident in ("a", "b"):
        channel.say(incident)
        channel.run(channel.second + 1)
        channel.say(incident, "updated")
    channel.run(3000)
    assert {"a": "notice-001", "b": "notice-001"} == {each: step.file for each, step in channel.ledger.lacking.items()}
    assert 2700 <= max(rests(channel))
    channel.say("a", "resolved")
    del channel.stories["b"]  # Somebody removed it.
    channel.run(3600)

    assert ({}, {}, [dispatch.Sender()]) == (channel.stories, channel.ledger.lacking, channel.ledger.senders)
    assert 3000 >= max(rests(channel))


# --- refused, given up ----------------------------------------------------------------------------------------------


def test_a_refused_notice_is_tried_again_after_5_minutes_doubling_to_an_hour() -> None:
    channel = Channel()
    channel.receiver = lambda *_: Rejected(why="HTTP 404")
    channel.say("a")
    channel.run(17_000)

    pauses = [round(later - earlier) for (earlier, _), (later, _) in pairwise(channel.tried)]
    assert [300, 600, 1200, 2400, 3600, 3600, 3600] == pauses


def test_a_dead_endpoint_is_not_hammered_with_everything_that_waits() -> None:
    channel = Channel()
    channel.receiver = lambda *_: Rejected(why="HTTP 404")
    for number in range(50):
        channel.say(f"i{number:02}")
    channel.run(299)

    assert len(channel.tried) <= 14


def test_a_newer_notice_of_a_refused_incident_is_tried_at_once() -> None:
    channel = Channel()
    channel.receiver = lambda second, _: Rejected(why="HTTP 404") if second < 350 else Delivered()
    channel.say("a")
    channel.run(400)
    channel.say("a", "updated")
    channel.run(401)

    assert [("a", "opened")] == channel.read()


def test_a_notice_is_given_up_when_its_time_has_passed_and_the_next_is_not_sent() -> None:
    channel = Channel(Rules(give_up_after=HOUR))
    channel.receiver = down(0, 2 * HOUR)
    channel.say("a")
    channel.run(HOUR + 60)
    assert ["gave_up"] == channel.outcomes("a")
    channel.say("a", "resolved")
    channel.run(3 * HOUR)

    assert [] == channel.told


def test_what_is_old_at_the_start_is_tried_for_an_hour_and_no_longer() -> None:
    for hours, expected in ((0.9, "delivered"), (3, "gave_up")):
        channel = Channel(Rules(give_up_after=2 * HOUR))
        channel.say("a", at=-10 * HOUR)
        channel.receiver = down(0, hours * HOUR)
        channel.run(HOUR + 61)

        assert [expected] == channel.outcomes("a")


def test_a_channel_that_is_gone_gives_up_at_once() -> None:
    channel = Channel(Rules(is_absent=True))
    channel.say("a")
    channel.turn()

    assert ["gave_up"] == channel.outcomes("a")
    assert [] == channel.tried


# --- what the table of a channel says -------------------------------------------------------------------------------


def test_the_tables_of_all_channels_make_rules() -> None:
    slack = SlackSettings(name="s", url="https://s", updates=False, resolved=False, reminders=False, give_up_after=60)
    am = AlertmanagerSettings(name="a", urls=("http://a", "http://b"), severity="critical")

    assert Rules("warning", False, False, False, 60) == rules_of(slack)  # noqa: FBT003 - as they stand in the table
    assert Rules("critical", senders=2, repeat_seconds=60.0, after_end_seconds=900.0) == rules_of(am)
    assert Rules(senders=1) == rules_of(PagerDutySettings(name="p", routing_key_file="/k"))


def test_a_channel_for_critical_incidents_gets_a_warning_as_opened_once_it_is_critical() -> None:
    channel = Channel(Rules(severity="critical"))
    channel.say("a", severity="warning")
    channel.run(100)
    assert ["skipped"] == channel.outcomes("a")
    channel.say("a", "updated", severity="warning")
    channel.run(200)
    channel.say("a", "updated")
    channel.run(300)
    channel.say("a", "resolved")
    channel.run(400)

    assert [("a", "opened"), ("a", "resolved")] == channel.read()


def test_a_warning_that_never_becomes_critical_is_none_of_its_business() -> None:
    channel = Channel(Rules(severity="critical"))
    channel.say("a", severity="warning")
    channel.run(100)
    channel.say("a", "resolved", severity="warning")
    channel.run(200)

    assert [] == channel.told
    assert {} == channel.stories


def test_without_updates_an_update_only_opens_what_was_not_sent_before() -> None:
    channel = Channel(Rules(updates=False))
    channel.say("a")
    channel.run(10)
    channel.say("a", "updated")
    channel.receiver = down(10, 100)
    channel.run(11)
    channel.say("b")
    channel.run(50)
    channel.say("b", "updated")
    channel.run(200)

    assert [("a", "opened"), ("b", "opened")] == channel.read()
    assert ["delivered", "skipped"] == channel.outcomes("a")


def test_without_resolved_the_end_is_not_sent_but_a_late_message_is() -> None:
    channel = Channel(Rules(resolved=False))
    channel.say("a")
    channel.run(10)
    channel.say("a", "resolved")
    channel.receiver = down(10, 100)
    channel.say("b")
    channel.run(50)
    channel.say("b", "resolved")
    channel.run(200)

    assert [("a", "opened"), ("b", "late")] == channel.read()


def test_a_channel_added_while_an_incident_is_open_gets_nothing_more_of_it() -> None:
    channel = Channel()
    channel.say("a", to=False)
    channel.run(10)
    channel.say("a", "updated")
    channel.run(20)
    assert [None, "skipped"] == channel.outcomes("a")
    channel.say("a", "resolved")
    channel.run(30)

    assert [] == channel.told
    assert {} == channel.stories


def test_a_receipt_settles_the_notice_it_names_and_no_other() -> None:
    channel = Channel()
    channel.say("a")
    channel.say("a", "updated")
    story = channel.stories["a"].with_outcome("notice-002", "delivered", moment(7))

    assert [None, "delivered"] == [said.outcome for said in story.notices]
    assert [None, moment(7)] == [said.settled_at for said in story.notices]


@pytest.mark.parametrize("rules", [PLAIN, ALERTMANAGER, PAGERDUTY])
def test_what_a_later_notice_has_said_is_settled_as_overtaken_by_that(rules: Rules) -> None:
    channel = Channel(rules)
    channel.say("a")
    channel.say("a", "updated")
    channel.settle("a", "delivered", {"notice-002"})
    channel.say("a", "updated", to=False)
    channel.ledger.note(channel.stories, channel.now)
    todo = plan(channel.stories, channel.ledger, rules, None, channel.now)

    assert (dispatch.Close("a", "superseded", "notice-002"),) == todo.closing


# --- trouble: since when a channel fails, and until when --------------------------------------------------------------


def test_the_trouble_is_over_when_the_newest_notice_is_taken_though_an_older_one_had_failed() -> None:
    channel = Channel()
    channel.receiver = down(0, 100)
    channel.say("a")
    channel.run(100)
    channel.say("a", "updated")
    channel.run(200)

    assert [("a", "opened")] == channel.read()
    assert [dispatch.Sender()] == channel.ledger.senders


def test_the_trouble_is_over_when_a_reminder_is_taken_though_the_one_before_it_was_refused() -> None:
    channel = Channel()
    channel.say("a")
    channel.run(10)
    channel.receiver = lambda _, step: Rejected(why="HTTP 400") if step.file == "still_open_1h" else Delivered()
    channel.run(1.9 * HOUR)
    assert "HTTP 400" == channel.ledger.senders[0].why
    channel.run(2.1 * HOUR)

    assert ("a", "again still open after 2 h") == channel.read()[-1]
    assert [dispatch.Sender()] == channel.ledger.senders


@pytest.mark.parametrize("answer", [AWAY, Rejected(why="HTTP 400")])
def test_the_trouble_is_over_when_what_failed_is_given_up_though_its_incident_is_open(answer: Delivery) -> None:
    channel = Channel(Rules(give_up_after=HOUR))
    channel.receiver = down(0, 2 * HOUR, answer)
    channel.say("a")
    channel.run(2 * HOUR)
    assert ["gave_up"] == [close.outcome for close in channel.closed]
    assert [(None, None)] == [(sender.why, sender.since) for sender in channel.ledger.senders]
    channel.say("b")
    channel.run(3 * HOUR)

    assert ("b", "opened") == channel.read()[0]
    assert [dispatch.Sender()] == channel.ledger.senders


def test_the_trouble_is_over_when_an_update_is_taken_after_a_reminder_that_was_refused() -> None:
    channel = Channel()
    channel.say("a")
    channel.run(10)
    channel.receiver = lambda _, step: Rejected(why="HTTP 400") if step.how == "again" else Delivered()
    channel.run(1.1 * HOUR)
    channel.say("a", "updated")
    channel.run(1.2 * HOUR)

    assert ("a", "updated") == channel.read()[-1]
    assert [dispatch.Sender()] == channel.ledger.senders


def test_the_trouble_is_over_when_a_reminder_is_taken_though_an_update_was_skipped_meanwhile() -> None:
    channel = Channel(Rules(updates=False))
    channel.say("a")
    channel.receiver = down(HOUR, HOUR + 60, Rejected(why="HTTP 400"))
    channel.run(HOUR + 10)
    channel.say("a", "updated")
    channel.run(HOUR + 1000)

    assert ["opened", "again still open after 1 h"] == [how for _, _, how in channel.told]
    assert [dispatch.Sender()] == channel.ledger.senders


def test_a_message_channel_is_one_sender_and_each_instance_of_a_state_channel_another() -> None:
    assert [1, 1, 3] == [len(Ledger(Now(0.0, START), senders).senders) for senders in (0, 1, 3)]


def test_the_attempts_before_a_reload_count() -> None:
    before, between, after = (Ledger(Now(0.0, START), senders) for senders in (2, 0, 0))
    for sender, file in ((0, "notice-001"), (1, "notice-001"), (0, "notice-002")):
        before.enter(Step("a", file, "state", sender), BUSY, Now(0.0, START), 0.0)
    between.count_on(before)
    after.count_on(between)
    after.enter(Step("a", "notice-001", "opened"), BUSY, Now(0.0, START), 0.0)

    assert [3, 1, 0] == [after.attempts("a", f"notice-00{number}") for number in (1, 2, 3)]


def test_the_trouble_lasts_as_long_as_anything_that_failed_waits() -> None:
    channel = Channel()
    troubles = []

    def receive(_: float, step: Step) -> Delivery:
        troubles.append((channel.ledger.senders[0].why, channel.ledger.senders[0].since))
        return Retry(why="HTTP 500", may_be_the_notice=True) if step.incident_id == "a" else Delivered()

    channel.receiver = receive
    channel.say("a")
    channel.run(10)
    channel.say("b")
    channel.run(100)

    assert [("b", "opened")] == channel.read()
    assert {("HTTP 500", 0.0)} == set(troubles[1:])


def test_the_trouble_is_over_when_nothing_waits_any_more() -> None:
    channel = Channel()
    channel.receiver = down(0, HOUR)
    channel.say("a")
    channel.run(100)
    channel.stories.clear()
    channel.ledger.note({}, channel.now)

    assert [(None, None)] == [(sender.why, sender.since) for sender in channel.ledger.senders]


def test_an_outage_is_one_outage_though_a_newer_notice_takes_the_place_of_the_one_that_failed() -> None:
    channel = Channel()
    channel.say("told")
    channel.run(10)
    channel.receiver = down(10, HOUR)
    channel.say("a")
    channel.run(700)
    channel.say("a", "updated")
    channel.ledger.note(channel.stories, channel.now)

    assert ("connection refused", 10.0) == (channel.ledger.senders[0].why, channel.ledger.senders[0].since)


def test_an_outage_of_one_instance_is_one_outage_though_the_other_takes_a_newer_notice() -> None:
    channel = Channel(ALERTMANAGER)
    channel.receiver = lambda second, step: AWAY if step.sender == 0 and second < HOUR else Delivered()
    channel.say("a")
    channel.run(100)
    channel.say("a", "updated")
    channel.run(101)
    assert ["delivered", "delivered"] == channel.outcomes("a")

    assert ["connection refused", None] == [sender.why for sender in channel.ledger.senders]
    assert [0.0, None] == [sender.since for sender in channel.ledger.senders]
    channel.run(2 * HOUR)
    assert [dispatch.Sender()] * 2 == channel.ledger.senders


def test_an_instance_that_has_failed_once_is_tried_behind_the_healthy_one() -> None:
    channel = Channel(ALERTMANAGER)
    channel.receiver = lambda _, step: AWAY if step.sender == 0 else Delivered()
    channel.say("a")
    channel.run(1)
    channel.second = 10
    channel.say("b")
    channel.turn()

    assert (10, 1, "b") == (channel.tried[-1][0], channel.tried[-1][1].sender, channel.tried[-1][1].incident_id)


def test_one_instance_in_trouble_is_not_the_others() -> None:
    channel = Channel(ALERTMANAGER)
    channel.receiver = lambda second, step: AWAY if step.sender == 0 or second < 10 else Delivered()
    channel.say("a")
    channel.run(70)

    assert ["connection refused", None] == [sender.why for sender in channel.ledger.senders]


@pytest.mark.parametrize("rules", [PLAIN, ALERTMANAGER, PAGERDUTY])
def test_an_incident_that_is_over_leaves_nothing_in_memory(rules: Rules) -> None:
    channel = Channel(rules)
    channel.say("a")
    channel.run(3 * HOUR)
    channel.say("a", "resolved")
    channel.run(5 * HOUR)
    channel.turn()

    assert ({}, {}, {}) == (channel.ledger.tries, channel.ledger.reminded, channel.ledger.doubts)


def test_how_often_a_digest_was_tried_is_not_forgotten_from_turn_to_turn() -> None:
    ledger = Ledger(Now(0, START))
    ledger.enter(Step(*dispatch.DIGEST, "digest"), AWAY, Now(0, START), 0.5)
    ledger.note({}, Now(1, moment(1)))

    assert 1 == ledger.attempts(*dispatch.DIGEST)
    assert "connection refused" == ledger.senders[0].why
    assert 0 == ledger.attempts("a", "notice-001")


def test_what_was_due_before_the_start_has_waited_since_then_and_nothing_has_by_a_clock_set_back() -> None:
    for due, time, expected in ((40, 105, 65.0), (100, 105, 0.0), (50, 10, 0.0)):
        channel = Channel()
        channel.say("a", at=due)
        ledger = Ledger(Now(0, moment(100)))
        ledger.note(channel.stories, Now(5, moment(time)))

        assert [(5, expected)] == [(tries.seen, tries.waited) for tries in ledger.tries.values()]


def test_after_an_outage_a_refused_notice_waits_five_minutes_again() -> None:
    ledger, step = Ledger(Now(0, START)), Step("a", "notice-001", "opened")
    for answer in (Rejected(why="HTTP 400"), Rejected(why="HTTP 400"), BUSY, Rejected(why="HTTP 400")):
        ledger.enter(step, answer, Now(100, moment(100)), 0.5)

    assert 400 == ledger.tries[step.key].due


# --- reminders ------------------------------------------------------------------------------------------------------


def test_what_is_still_open_is_repeated_after_1_2_4_8_16_hours_and_then_each_day() -> None:
    channel = Channel()
    channel.say("a")
    channel.run(100 * HOUR)
    hours = [round(second / HOUR) for second, _, how in channel.told if how.startswith("again")]

    assert [1, 2, 4, 8, 16, 40, 64, 88] == hours
    assert "again still open after 2 h" == channel.told[2][2]


def test_an_update_is_as_good_as_a_reminder_within_the_hour() -> None:
    channel = Channel()
    channel.say("a")
    channel.run(0.9 * HOUR)
    channel.say("a", "updated")
    channel.run(2.1 * HOUR)

    assert ["opened", "updated", "again still open after 2 h"] == [how for _, _, how in channel.told]


@pytest.mark.parametrize("outcome", ["skipped", "digested"])
def test_the_hours_of_reminders_count_from_what_was_delivered(outcome: str) -> None:
    channel = Channel(Rules(severity="critical") if outcome == "skipped" else PLAIN)
    channel.say("a", severity="warning", proof="claimed")
    channel.settle("a", outcome, {"notice-001"})
    channel.run(0.5 * HOUR)
    channel.say("a", "updated")
    channel.run(2 * HOUR)

    assert [(0.5 * HOUR, "a", "opened"), (1.5 * HOUR, "a", "again still open after 1 h")] == channel.told


def test_a_restart_repeats_no_reminder_and_the_next_one_comes() -> None:
    channel = Channel()
    channel.say("a")
    channel.run(1.5 * HOUR)
    channel.restart()
    channel.run(2.5 * HOUR)

    assert ["opened", "again still open after 1 h", "again still open after 2 h"] == [how for _, _, how in channel.told]


@pytest.mark.parametrize("rules", [Rules(reminders=False), ALERTMANAGER, PAGERDUTY])
def test_there_are_no_reminders_without_the_key_or_of_a_state(rules: Rules) -> None:
    channel = Channel(rules)
    channel.say("a")
    channel.run(5 * HOUR)

    assert not any(how.startswith("again") for _, _, how in channel.told)


def test_after_an_outage_there_is_one_reminder_and_not_all_that_fell_due() -> None:
    channel = Channel()
    channel.say("a")
    channel.run(10)
    channel.receiver = down(10, 9 * HOUR)
    channel.run(10 * HOUR)

    assert [("a", "opened"), ("a", "again still open after 8 h")] == channel.read()


# --- a silence ------------------------------------------------------------------------------------------------------


def hush(channel: Channel, seconds: float) -> None:
    channel.silence = Silence(since=moment(channel.second), until=moment(channel.second + seconds), reason="upgrade")


@pytest.mark.parametrize("rules", [Rules(), PAGERDUTY, ALERTMANAGER])
def test_what_is_still_open_when_a_silence_ends_is_sent_then_and_what_is_over_never(rules: Rules) -> None:
    channel = Channel(rules)
    hush(channel, HOUR)
    channel.say("over")
    channel.say("open")
    channel.run(600)
    channel.say("over", "resolved")
    channel.run(HOUR - 1)
    assert [] == channel.tried
    channel.run(HOUR + 10)

    assert ["open"] * len(channel.told) == [incident for _, incident, _ in channel.told]
    assert (HOUR, "open") == channel.told[0][:2]


@pytest.mark.parametrize(
    ("expected", "opened", "ended"), [("late", 50, 150), (None, 110, 150), (None, 100, 200), ("late", 110, 250)]
)
def test_only_what_began_and_ended_within_a_silence_is_never_sent(
    expected: str | None, opened: int, ended: int
) -> None:
    channel = Channel()
    channel.receiver = down(0, 260)
    for second, what in sorted([(100, "hush"), (opened, "opened"), (ended, "resolved")]):
        channel.run(second)
        if what == "hush":
            hush(channel, 100)
        else:
            channel.say("a", what)
    channel.run(HOUR)

    assert ([] if expected is None else [("a", expected)]) == channel.read()
    assert ([dispatch.Close("a", "skipped", "silenced: upgrade")] if expected is None else []) == channel.closed


def test_the_end_of_what_was_sent_waits_for_the_end_of_the_silence() -> None:
    channel = Channel()
    channel.say("a")
    channel.run(10)
    hush(channel, HOUR)
    channel.run(20)
    channel.say("a", "resolved")
    channel.run(2 * HOUR)

    assert [(0.0, "a", "opened"), (HOUR + 10, "a", "resolved")] == channel.told


def test_a_silence_gives_nothing_up_and_sends_no_reminder() -> None:
    channel = Channel(Rules(give_up_after=HOUR))
    channel.receiver = down(0, 100)
    channel.say("told")
    channel.run(300)
    channel.receiver = down(300, 5.5 * HOUR)
    channel.say("new")
    channel.run(310)
    hush(channel, 5 * HOUR)
    channel.run(5.2 * HOUR)
    assert [("told", "opened")] == channel.read()
    channel.run(6 * HOUR)

    assert {("told", "opened"), ("new", "opened"), ("told", "again still open after 4 h")} == set(channel.read())


def test_what_was_old_at_the_start_is_not_given_up_for_the_time_of_a_silence() -> None:
    channel = Channel()
    channel.say("a", at=-23 * HOUR)
    hush(channel, 2 * HOUR)
    channel.receiver = down(0, 5 * HOUR)
    channel.run(6 * HOUR)

    assert [("a", "opened")] == channel.read()


def test_an_end_that_pagerduty_does_not_take_is_given_up_after_a_day_though_people_are_spared() -> None:
    channel = Channel(PAGERDUTY)
    channel.say("a")
    channel.run(10)
    channel.receiver = down(10, 10 * DAY)
    channel.say("a", "resolved")
    hush(channel, 5 * DAY)
    channel.run(2 * DAY)

    assert {} == channel.stories


def test_what_a_state_channel_fires_is_kept_firing_through_a_silence_and_its_end_is_sent() -> None:
    channel = Channel(Rules(senders=1, repeat_seconds=60.0, after_end_seconds=900.0))
    channel.say("a", severity="warning")
    channel.run(30)
    hush(channel, HOUR)
    channel.say("a", "updated")
    channel.run(600)
    assert {"warning"} == {how for _, _, how in channel.told}
    assert 10 == len(channel.told[1:])
    channel.say("a", "resolved")
    channel.run(601)

    assert "warning ended" == channel.told[-1][2]


def test_an_end_during_a_silence_is_sent_for_a_quarter_of_an_hour_all_the_same() -> None:
    channel = Channel(ALERTMANAGER)
    channel.say("a")
    channel.run(30)
    hush(channel, 2 * HOUR)
    channel.say("a", "resolved")
    channel.run(3 * HOUR)

    assert 2 * 15 == len([how for _, _, how in channel.told if how == "critical ended"])


def test_a_warning_that_becomes_critical_during_a_silence_is_that_after_it() -> None:
    for rules, expected in ((PAGERDUTY, "warning+critical"), (ALERTMANAGER, "warning+critical")):
        channel = Channel(rules)
        channel.say("a", severity="warning")
        channel.run(30)
        hush(channel, HOUR)
        channel.say("a", "updated")
        channel.run(HOUR)
        assert {"warning"} == {how for _, _, how in channel.told}
        channel.run(HOUR + 60)

        assert expected == channel.told[-1][2]


# --- state channels -------------------------------------------------------------------------------------------------


def by_sender(channel: Channel, number: int) -> list[float]:
    return [second for second, step in channel.tried if step.sender == number]


def test_each_instance_is_sent_what_is_open_every_minute_and_its_end_for_a_quarter_of_an_hour() -> None:
    channel = Channel(ALERTMANAGER)
    channel.say("a")
    channel.run(600)
    channel.say("a", "resolved")
    channel.run(3600)

    expected = [60.0 * minute for minute in range(25)]
    assert [expected, expected] == [by_sender(channel, 0), by_sender(channel, 1)]
    assert ["critical"] * 20 + ["critical ended"] * 30 == [how for _, _, how in channel.told]
    assert {} == channel.stories


def test_a_dead_instance_keeps_the_healthy_one_from_nothing() -> None:
    channel = Channel(ALERTMANAGER)
    channel.receiver = lambda _, step: AWAY if step.sender == 0 else Delivered()
    channel.say("a")
    channel.run(600)
    assert ["delivered"] == channel.outcomes("a")
    channel.say("a", "resolved")
    channel.run(3600)

    assert [60.0 * minute for minute in range(25)] == by_sender(channel, 1)
    assert 25 <= len(by_sender(channel, 0)) <= 60
    assert {} == channel.stories


def test_an_instance_that_is_back_is_sent_what_is_so_now() -> None:
    channel = Channel(ALERTMANAGER)
    channel.receiver = lambda second, step: AWAY if step.sender == 0 and second < 500 else Delivered()
    channel.say("a", severity="warning")
    channel.run(100)
    channel.say("a", "updated")
    channel.run(600)
    heard = [step.severities for second, step in channel.tried if step.sender == 0 and second >= 500]

    assert [("warning", "critical")] * len(heard) == heard
    assert heard


@pytest.mark.parametrize("rules", [ALERTMANAGER, PAGERDUTY])
def test_what_is_over_pages_no_one(rules: Rules) -> None:
    channel = Channel(rules)
    channel.say("a")
    channel.say("a", "resolved")
    channel.say("past", past=True)
    channel.run(300)
    channel.say("past", "resolved", past=True)
    channel.run(3600)

    assert [] == channel.tried
    assert {} == channel.stories
    assert [("skipped", dispatch.NOT_FIRED)] * 2 == [close[1:] for close in channel.closed]


def test_the_end_of_what_may_have_been_taken_is_sent_though_no_answer_came() -> None:
    channel = Channel(PAGERDUTY)
    channel.receiver = down(0, 100, Retry(why="no answer within 20 s"))
    channel.say("a")
    channel.run(50)
    channel.restart()
    channel.say("a", "resolved")
    channel.run(300)

    assert [("a", "critical ended")] == channel.read()


def test_pagerduty_gets_changes_only_also_after_a_restart() -> None:
    channel = Channel(PAGERDUTY)
    channel.say("a", severity="warning")
    channel.run(HOUR)
    channel.restart()
    channel.run(2 * HOUR)
    channel.say("a", "updated")
    channel.run(3 * HOUR)
    channel.say("a", "resolved")
    channel.run(4 * HOUR)

    assert [("a", "warning"), ("a", "warning+critical"), ("a", "warning+critical ended")] == channel.read()


def test_of_an_incident_that_did_not_reach_pagerduty_only_the_newest_is_sent() -> None:
    channel = Channel(PAGERDUTY)
    channel.receiver = down(0, 3 * HOUR)
    channel.say("a", severity="warning")
    channel.run(HOUR)
    channel.say("a", "updated")
    channel.run(4 * HOUR)

    assert [("a", "warning+critical")] == channel.read()
    assert ["superseded", "delivered"] == channel.outcomes("a")


def test_an_alertmanager_hears_at_once_what_is_open_when_the_agent_restarts() -> None:
    channel = Channel(ALERTMANAGER)
    channel.say("a")
    channel.run(90)
    channel.restart()
    channel.run(91)
    assert 90.0 in by_sender(channel, 0)
    channel.say("a", "resolved")
    channel.run(200)
    channel.restart()
    channel.run(201)

    assert (200.0, "a", "critical ended") == channel.told[-1]


@pytest.mark.parametrize("rules", [ALERTMANAGER, PAGERDUTY])
def test_a_state_channel_added_while_an_incident_is_open_gets_the_current_state(rules: Rules) -> None:
    channel = Channel(rules)
    channel.say("a", to=False)
    channel.run(100)

    assert ("a", "critical") == channel.read()[0]


def test_an_open_incident_is_never_given_up_on_a_state_channel() -> None:
    channel = Channel(PAGERDUTY)
    channel.receiver = down(0, 3 * DAY, Rejected(why="HTTP 400"))
    channel.say("a")
    channel.run(3 * DAY + 2 * HOUR)

    assert [("a", "critical")] == channel.read()


def test_an_end_that_no_instance_takes_is_given_up_when_the_alert_has_ended_anyway() -> None:
    channel = Channel(ALERTMANAGER)
    channel.say("a")
    channel.run(60)
    channel.receiver = lambda *_: AWAY
    channel.say("a", "resolved")
    channel.run(59 + 900)
    assert ["delivered", None] == channel.outcomes("a")
    channel.run(62 + 900)
    channel.turn()

    assert {} == channel.stories
    assert [dispatch.Close("a", "gave_up", "connection refused")] == channel.closed


def test_an_end_that_is_given_up_says_why_though_one_instance_was_never_asked() -> None:
    channel = Channel(ALERTMANAGER)
    channel.receiver = lambda _, step: AWAY if step.sender else Retry(why="HTTP 429", after_seconds=DAY)
    channel.say("a")
    channel.run(60)
    channel.say("a", "resolved")
    channel.run(HOUR)

    assert [dispatch.Close("a", "gave_up", "connection refused")] == channel.closed


def test_an_end_that_was_sent_for_a_quarter_of_an_hour_is_not_sent_again_after_a_restart() -> None:
    channel = Channel(ALERTMANAGER)
    channel.say("a")
    channel.run(60)
    channel.say("a", "resolved")
    channel.run(70)
    before = len(channel.told)
    channel.second = DAY
    channel.restart()
    channel.run(DAY + 100)

    assert before == len(channel.told)
    assert {} == channel.stories


def test_the_end_of_a_warning_is_sent_though_only_the_notice_after_it_was_taken() -> None:
    channel = Channel(ALERTMANAGER)
    channel.receiver = down(0, 100)
    channel.say("a", severity="warning")
    channel.run(60)
    channel.say("a", "updated")
    channel.run(300)
    assert ["superseded", "delivered"] == channel.outcomes("a")
    story = channel.stories["a"]  # As the commit of the end is read: what has a receipt has no room.
    notices = tuple(said._replace(has_room=False) for said in story.notices)
    channel.stories["a"] = story._replace(notices=notices)
    channel.say("a", "resolved")
    channel.run(301)

    assert [("a", "warning+critical ended")] * 2 == channel.read()[-2:]


def test_an_end_that_was_owed_when_the_agent_went_down_for_days_is_sent_when_it_is_back() -> None:
    channel = Channel(PAGERDUTY)
    channel.say("a")
    channel.run(60)
    channel.receiver = down(0, 2 * DAY + 600)
    channel.say("a", "resolved")
    channel.run(70)
    channel.second = 2 * DAY
    channel.restart()
    channel.run(2 * DAY + HOUR)

    assert [("a", "critical"), ("a", "critical ended")] == channel.read()
    assert [] == channel.closed  # It was not given up meanwhile.


def test_a_state_channel_for_what_is_critical_shows_that_alone() -> None:
    channel = Channel(ALERTMANAGER._replace(severity="critical"))
    channel.say("a", severity="warning")
    channel.run(100)
    assert ([], ["skipped"]) == (channel.tried, channel.outcomes("a"))
    channel.say("a", "updated")
    channel.run(101)

    assert [("a", "critical")] * 2 == channel.read()


# --- the budget of an hour ------------------------------------------------------------------------------------------


def test_beyond_the_hours_messages_all_is_held_and_reminders_wait() -> None:
    channel = Channel()
    for number in range(30):
        channel.say(f"i{number:02}")
    channel.run(10)

    assert [(f"i{number:02}", "opened") for number in range(20)] == channel.read()
    assert {f"i{number:02}" for number in range(20, 30)} == {incident for incident, _ in channel.held}


def test_a_reminder_beyond_the_hours_messages_is_in_no_digest() -> None:
    channel = Channel()
    channel.say("a")
    channel.run(HOUR - 10)
    channel.ledger.sent["kernel"].extend([HOUR - 10] * 20)
    channel.run(1.5 * HOUR)

    assert () == plan(channel.stories, channel.ledger, PLAIN, None, channel.now).holding
    assert [("a", "opened")] == channel.read()


def test_the_budget_of_an_hour_is_free_again_an_hour_after_the_first_message() -> None:
    ledger = Ledger(Now(0, START))
    ledger.sent["claimed"].extend([0.0, 10.0, 10.0, 10.0, 10.0])
    assert not ledger.is_spent("claimed", Now(20, moment(20)))
    ledger.sent["claimed"].append(20.0)

    assert [True, False] == [ledger.is_spent("claimed", Now(second, moment(second))) for second in (3599, 3600)]


def test_what_waits_for_the_digest_waits_on_when_the_hour_is_over_and_holds_up_nothing_else() -> None:
    channel = Channel()
    channel.say("held")
    channel.held = {("held", "notice-001")}
    channel.say("free")
    channel.run(10)

    assert [("free", "opened")] == channel.read()


def test_what_a_digest_was_to_have_when_the_agent_ended_is_in_it_again_though_there_is_room() -> None:
    channel = Channel()
    channel.say("a")
    channel.stories["a"] = channel.stories["a"]._replace(in_digest=True)
    channel.turn()

    assert [] == channel.tried
    assert {("a", "notice-001")} == channel.held


def test_a_digest_is_sent_behind_what_the_kernel_says_and_not_in_a_silence_and_is_given_up_in_time() -> None:
    channel, digest = Channel(), make_digest_notice()

    def planned() -> dispatch.Plan:
        channel.ledger.note(channel.stories, channel.now)
        return plan(channel.stories, channel.ledger, PLAIN, channel.silence, channel.now, digest=digest)

    assert Step(*dispatch.DIGEST, "digest") == planned().step
    channel.say("a", at=digest.at.timestamp() - START.timestamp() + 60)
    assert "a" == planned().step.incident_id
    channel.stories.clear()
    hush(channel, HOUR)
    assert None is planned().step
    channel.silence = None
    channel.ledger.enter(Step(*dispatch.DIGEST, "digest"), AWAY, channel.now, 0.5)
    channel.second = DAY - 1
    assert "digest" == planned().step.how
    channel.second = DAY
    assert ((dispatch.Close("", "gave_up", "connection refused"),), None) == (planned().closing, planned().step)


def test_claimed_and_proven_incidents_have_budgets_of_their_own_and_the_proven_are_first() -> None:
    channel = Channel()
    for number in range(10):
        channel.say(f"c{number}", proof="claimed")
    channel.say("k")
    channel.run(10)

    assert [("k", "opened")] + [(f"c{number}", "opened") for number in range(6)] == channel.read()


@pytest.mark.parametrize("proof", ["kernel", "claimed"])
@pytest.mark.parametrize(
    ("expected", "kind", "earlier", "spent"),
    [
        ("opened", "opened", (), False),
        ("held", "opened", (), True),
        ("updated", "updated", ("delivered",), False),
        ("held", "updated", ("delivered",), True),
        ("resolved", "resolved", ("delivered",), True),
        ("resolved", "resolved", ("delivered", "digested"), True),
        ("skipped", "resolved", ("digested",), False),
        ("skipped", "resolved", ("gave_up",), False),
        ("late", "resolved", (None,), False),
        ("held", "resolved", (None,), True),
        ("late", "resolved", ("superseded",), False),
    ],
)
def test_what_becomes_of_a_notice_by_what_became_of_those_before_it(
    proof: Provenance, expected: str, kind: str, earlier: tuple[str | None, ...], *, spent: bool
) -> None:
    channel = Channel()
    channel.ledger.sent[proof].extend([0.0] * 20 if spent else [])
    for number, outcome in enumerate(earlier):
        channel.say("a", "updated" if number else "opened", proof=proof)
        if outcome:
            channel.settle("a", outcome, {f"notice-{number + 1:03}"})
    channel.say("a", kind, proof=proof)
    channel.turn()

    came = channel.told[0][2] if channel.told else "held" if channel.held else channel.outcomes("a")[-1]
    assert expected == came


def test_of_what_was_in_a_digest_only_the_kernels_word_is_sent_and_as_an_opening() -> None:
    for proof, expected in (("claimed", []), ("kernel", [("a", "opened")])):
        channel = Channel()
        channel.say("a", proof="claimed")
        channel.settle("a", "digested", {"notice-001"})
        channel.say("a", "updated", proof=proof)  # type: ignore[arg-type]
        channel.turn()

        assert expected == channel.read()


def test_the_end_of_what_was_sent_costs_nothing() -> None:
    channel = Channel()
    for number in range(6):
        channel.say(f"c{number}", proof="claimed")
    channel.run(10)
    for number in range(6):
        channel.say(f"c{number}", "resolved", proof="claimed")
    channel.run(20)

    assert 12 == len(channel.told)


def test_what_the_kernel_confirms_is_sent_as_opened_though_its_opening_is_held() -> None:
    channel = Channel()
    for number in range(7):
        channel.say(f"c{number}", proof="claimed")
    channel.run(10)
    channel.say("c6", "updated", proof="kernel")
    channel.run(20)

    assert ("c6", "opened") == channel.read()[-1]


# --- properties -----------------------------------------------------------------------------------------------------


def events(*kinds: str) -> st.SearchStrategy[list[tuple[float, str, int]]]:
    both = st.sampled_from(["say", "down", "up", *kinds])
    return st.lists(st.tuples(st.floats(1, 4000), both, st.integers(0, 3)), max_size=40)


@settings(max_examples=300, deadline=None)
@given(
    events("restart", "choke", "refuse") | events("kill"),
    st.sampled_from([Rules(), Rules(updates=False), PAGERDUTY, ALERTMANAGER]),
)
def test_whatever_happens_nothing_is_lost_and_nothing_is_sent_twice(
    happened: list[tuple[float, str, int]], rules: Rules
) -> None:
    channel = Channel(rules, random.Random(1).random)
    kinds: dict[str, list[str]] = {}
    ended: dict[str, float] = {}
    modes = {"down": AWAY, "choke": Retry(why="HTTP 500", may_be_the_notice=True), "refuse": Rejected(why="HTTP 404")}
    for pause, what, number in happened:
        channel.run(channel.second + pause)
        incident = f"i{number}"
        if what == "say":
            said = kinds.setdefault(incident, [])
            if not said or said[-1] != "resolved":
                said.append(["opened", "updated", "resolved"][min(len(said), 2)])
                channel.say(incident, said[-1])
                ended |= {incident: channel.second} if said[-1] == "resolved" else {}
        elif what == "restart":
            channel.restart()
        elif what == "kill":
            channel.is_killed = True
        else:
            answer = modes.get(what)
            channel.receiver = lambda *_, answer=answer: answer or Delivered()
    channel.receiver = lambda *_: Delivered()
    channel.run(channel.second + 2 * HOUR)

    # Each as often as it was killed in flight, and with the same id.
    taken = list(dict.fromkeys(zip(channel.taken, (how for _, _, how in channel.told), strict=True)))
    kills = [what for _, what, _ in happened].count("kill")
    assert rules.senders or len(channel.taken) - len(taken) <= kills
    for incident, said in kinds.items():
        heard = [how for _, each, how in channel.told if each == incident and not how.startswith("again")]
        if rules.senders:
            if said[-1] != "resolved":
                assert "critical" == heard[-1]
            elif "critical" in heard and rules.repeat_seconds is None:
                assert "critical ended" == heard[-1]
                assert len(heard) <= len(said) + kills
            late = [how for second, each, how in channel.told if each == incident and second > ended.get(each, 1e9)]
            assert "critical" not in late
        else:
            heard = [how for (each, _), how in taken if each == incident and not how.startswith("again")]
            assert len(heard) == len(set(heard))
            assert heard in (
                ["opened"],
                ["opened", "late"],  # In flight when it was killed, and over when it was back.
                ["opened", "updated"],
                ["opened", "resolved"],
                ["late"],
                ["opened", "updated", "resolved"],
            )
            assert (said[-1] == "resolved") == (heard[-1] in ("late", "resolved"))


# --- what is sent ---------------------------------------------------------------------------------------------------


def composed(how: str, kind: NoticeType = "sockmem.incident.opened", **changes: Any) -> Notice:
    incident = make_sent_incident(resume=Resume(generation=1, cursor=Cursor()), beside=(make_incident(),), **changes)
    said = Said("notice-001", "n-1", kind, START, "critical")
    story = Story(incident.id, (said,), "kernel", cause="orphans", is_over=incident.closed_at is not None)
    file = "still_open_2h" if how == "again" else "notice-001"
    step = Step(incident.id, file, how, remark="why", severities=("critical",))  # type: ignore[arg-type]
    return compose(step, story, make_notice(make_incident(), kind), incident)


def test_what_is_sent_has_the_id_of_the_newest_notice_and_a_reminder_one_of_its_own() -> None:
    assert make_notice(make_incident(), "sockmem.incident.updated") == composed("plain", "sockmem.incident.updated")
    opened = composed("opened", "sockmem.incident.updated")
    assert ("n-1", "sockmem.incident.opened", "opened") == (opened.id, opened.type, opened.reason)
    late = composed("late", closed_at=START)
    assert isinstance(late, Remark)
    assert ("n-1", "sockmem.incident.resolved", "reported late: why") == (late.id, late.type, late.remark)
    again = composed("again")
    assert isinstance(again, Remark)
    assert ("msg_20261122T150539Z-7f3a_still_open_2h", "sockmem.incident.updated") == (again.id, again.type)
    assert ("why", "why") == (again.reason, again.remark)
    shown = composed("state", closed_at=START)
    assert isinstance(shown, Standing)
    assert ("sockmem.incident.resolved", ("critical",)) == (shown.type, shown.severities)


@pytest.mark.parametrize("how", ["late", "state"])
def test_what_is_late_or_a_state_shows_the_incident_as_it_is_now_without_what_is_the_agents_own(
    how: str,
) -> None:
    assert make_sent_incident(closed_at=START) == composed(how, closed_at=START).data


def test_a_state_is_no_update_though_it_is_first_shown_at_one() -> None:
    shown = composed("state", "sockmem.incident.updated")

    assert title(make_notice(make_sent_incident())) == title(shown)


def test_a_reminder_shows_the_incident_as_it_is_now_or_as_its_last_notice_where_it_has_just_ended() -> None:
    assert make_sent_incident() == composed("again").data
    assert make_incident() == composed("again", closed_at=START).data


def test_what_is_opened_late_shows_the_incident_as_it_is_now() -> None:
    assert make_sent_incident() == composed("opened").data


def test_an_opening_is_as_its_notice_where_a_newer_one_follows_or_the_incident_has_ended_meanwhile() -> None:
    incident = make_sent_incident()
    first, second = (Said(f"notice-00{n}", f"n-{n}", dispatch.OPENED, START, "critical") for n in (1, 2))
    story = Story(incident.id, (first, second), "kernel", cause="orphans")
    notice = make_notice(make_incident())
    assert notice == compose(Step(incident.id, first.file, "opened"), story, notice, incident)
    assert notice == composed("opened", closed_at=START)


def test_the_constants_are_those_of_the_contract() -> None:
    assert (30.0, 300.0, 600.0) == (
        dispatch.EARLY_PAUSE_SECONDS,
        dispatch.LONGEST_PAUSE_SECONDS,
        dispatch.EARLY_SECONDS,
    )
