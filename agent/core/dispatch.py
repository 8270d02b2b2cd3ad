"""What a channel sends next, and when: ``plan``, a pure function, so that a day's outage is tested in milliseconds.

    plan(stories, ledger, rules, silence, now) -> receipts to write now, the one next attempt, and its second

Of an incident only the newest notice counts: it says what the earlier ones would have said, and they are superseded.
One may have been taken, though: an opening whose answer was lost, or that was in flight when the process before this
one was killed. Then people would read of two openings, so this one is sent again first, with its id.

A message channel is read by people. What it was not told is opened with the newest notice; what began and ended unsaid
is one late message; what was not told that it opened is not told how it went on, unless the kernel itself speaks. It
has an hourly budget (core.budget), and what is still open is repeated after 1, 2, 4 ... hours.

A state channel shows what is so now. Each of its instances is a sender of its own, is sent an open incident again and
again, and its end for some time; what is over and was never sent is not sent at all.

A sender in trouble pauses 1 to 30 s, with full jitter, and after ten minutes up to five. It tries the oldest first, so
that this is read first when the receiver is back; one on which a receiver chokes comes after all others. A refused
notice waits alone, 5 min to 1 h, and a notice is given up after ``give_up_after``.

What some recipients of a mail took is delivered. Those that the server refused for now are a second sender, with pauses
of its own: the newest mail of an incident that they lack is tried for them alone.
"""

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Literal, NamedTuple, TypeVar

from msgspec.structs import replace

from agent.core.budget import HOUR_SECONDS, MESSAGES_AN_HOUR
from agent.core.delivery import Delivered, Delivery, Outcome, Rejected, Retry
from agent.core.format import duration_text
from agent.core.model import Cause, DigestNotice, Incident, Notice, NoticeType, Provenance, Remark, Silence, Standing
from agent.core.settings import AlertmanagerSettings, ChannelSettings, PagerDutySettings, Severity

SHORTEST_PAUSE_SECONDS, EARLY_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 30.0, 300.0
EARLY_SECONDS = 600.0
RETRY_SPREAD_SECONDS = 1.0  # Those who were given the same time must not all come at once.
SHORTEST_REFUSAL_SECONDS, LONGEST_REFUSAL_SECONDS = 300.0, 3600.0
TRIED_AT_LEAST_SECONDS = 3600.0
IDLE_SECONDS = 60.0
ROTATION = 4
LACKING = 1  # The sender for those recipients of mails that were refused for now.
REMINDER_HOURS, DAY_HOURS = (1, 2, 4, 8, 16), 24
REMINDER = "still_open_"
# After this long, a storm that a log stamps with another year is sent as opened.
LONGEST_PAST = timedelta(hours=1)
# Two notices of one batch of lines: the log was read afterwards.
AT_ONCE = timedelta(seconds=1)
SEVERITIES: tuple[Severity, ...] = ("warning", "critical")
# A channel whose notice ended like this did not get it, and will not.
UNHEARD: tuple[Outcome, ...] = ("gave_up", "digested", "skipped")

NOT_OPENED = "its opening was not sent to this channel"
NOT_ADDRESSED = "the channel was added after the incident opened"
NOT_FIRED = "over before it could be sent"
LESS_SEVERE = "a warning, and this channel is for what is critical"
NO_UPDATES, NO_RESOLVED = "updates = false", "resolved = false"
ABSENT = "the channel is no longer configured"
DOWN, READ_LATE, DELAYED = "the channel was down", "the log was read afterwards", "it could not be sent earlier"

OPENED: NoticeType = "sockmem.incident.opened"
UPDATED: NoticeType = "sockmem.incident.updated"
RESOLVED: NoticeType = "sockmem.incident.resolved"
DIGEST = ("", "digest")

How = Literal["plain", "opened", "late", "again", "digest", "state"]
ONCE: tuple[How, ...] = ("again", "digest")  # What is not tried on for some of its recipients.
# The incident, and the file of a notice, or a name for a reminder.
Key = tuple[str, str]


class Now(NamedTuple):
    """The two clocks: ``second`` is monotonic, for pauses and ages; ``time`` may be set, and outlasts a restart."""

    second: float
    time: datetime


class Rules(NamedTuple):
    """What of a channel's table decides; ``senders`` counts a state channel's instances, 0 for a message channel.

    A state channel is sent what it has every ``repeat_seconds`` (None: changes only), and an end until
    ``after_end_seconds`` have passed.
    """

    severity: Severity = "warning"
    updates: bool = True
    resolved: bool = True
    reminders: bool = True
    give_up_after: float = 86_400.0
    senders: int = 0
    repeat_seconds: float | None = None
    after_end_seconds: float = 86_400.0
    is_absent: bool = False


def rules_of(channel: ChannelSettings) -> Rules:
    """Return the rules of a channel's table."""
    match channel:
        case AlertmanagerSettings():
            return Rules(channel.severity, senders=len(channel.urls), repeat_seconds=60.0, after_end_seconds=900.0)
        case PagerDutySettings():
            return Rules(channel.severity, senders=1)
    return Rules(channel.severity, channel.updates, channel.resolved, channel.reminders, channel.give_up_after)


# --- what there is to send ------------------------------------------------------------------------------------------


class Said(NamedTuple):
    """A notice and what became of it on this channel; ``has_room``: it was attempted, or was about to be."""

    file: str
    id: str
    type: NoticeType
    at: datetime
    severity: Severity
    is_addressed: bool = True
    outcome: Outcome | None = None
    settled_at: datetime | None = None
    has_room: bool = False


class Story(NamedTuple):
    """An incident as this channel stands to it, its committed notices oldest first: at least one.

    ``proof`` is what it rests on, ``host`` where its files are, ``cause`` that of its opening; ``is_past``: nothing was
    measured then; ``in_digest``: a digest with it was about to be sent when the process before this one ended.
    """

    incident_id: str
    notices: tuple[Said, ...]
    proof: Provenance
    host: str | None = None
    cause: Cause = "none"
    is_over: bool = False
    is_past: bool = False
    in_digest: bool = False

    def with_outcome(self, file: str, outcome: Outcome, at: datetime) -> "Story":
        """Note what became of one of its notices."""
        notices = (
            each._replace(outcome=outcome, settled_at=at) if each.file == file else each for each in self.notices
        )
        return self._replace(notices=tuple(notices))

    @property
    def last(self) -> Said:
        """The newest notice."""
        return self.notices[-1]

    @property
    def owed(self) -> tuple[Said, ...]:
        """The notices to this channel without a receipt."""
        return tuple(each for each in self.notices if each.is_addressed and each.outcome is None)

    @property
    def overtaken_by(self) -> str:
        """The newest notice to this channel, where it has its receipt while others are owed one; else ""."""
        addressed = [each for each in self.notices if each.is_addressed]
        return addressed[-1].file if self.owed and addressed[-1].outcome else ""


class Step(NamedTuple):
    """An attempt due at the second ``at``: of which notice, how, by which sender.

    ``severities`` are those that a state channel shows, and ``is_whole`` says that a silence holds none back;
    ``is_rest``: for those recipients that lack what others took.
    """

    incident_id: str
    file: str
    how: How
    sender: int = 0
    at: float = float("-inf")
    remark: str = ""
    budget: Provenance | None = None
    severities: tuple[Severity, ...] = ()
    is_whole: bool = True
    is_rest: bool = False

    @property
    def key(self) -> tuple[int, str, str]:
        """The key of its tries."""
        return self.sender, self.incident_id, self.file


class Close(NamedTuple):
    """Receipts to be written without an attempt, for all that is owed of an incident."""

    incident_id: str
    outcome: Outcome
    detail: str


class Plan(NamedTuple):
    """``closing`` and ``holding`` (incidents for the digest) come first, then ``step``; without one, look at ``at``.

    ``done`` are incidents of which nothing will ever be sent again.
    """

    closing: tuple[Close, ...]
    holding: tuple[str, ...]
    done: tuple[str, ...]
    step: Step | None
    at: float


# --- what this process remembers ------------------------------------------------------------------------------------


class Tries(NamedTuple):
    """The attempts with one notice; seconds are monotonic.

    ``seen``: when this process first read it; ``waited``: seconds it had been due by then, by the wall clock;
    ``taken``: the severities that a state channel's instance was last sent.
    """

    seen: float
    waited: float = 0.0
    attempts: int = 0
    tried: float = float("-inf")
    refusals: int = 0
    due: float = float("-inf")
    why: str | None = None
    is_choking: bool = False
    taken: tuple[Severity, ...] = ()


class Sender(NamedTuple):
    """How a receiver, or an instance of one, answers: failures in a row, and since when something that failed waits.

    ``growth`` counts those after which nobody named a time: they lengthen the pause.
    """

    failures: int = 0
    growth: int = 0
    resume_at: float = float("-inf")
    why: str | None = None
    since: float | None = None


class Ledger:
    """All attempts of one channel since the start, and the messages of the last hour by their budget."""

    def __init__(self, now: Now, senders: int = 0) -> None:
        self.started = now.time
        self._is_state = senders > 0
        self.senders = [Sender()] * max(1, senders)
        self.tries: dict[tuple[int, str, str], Tries] = {}
        self.sent: dict[Provenance, deque[float]] = {
            budget: deque(maxlen=most) for budget, most in MESSAGES_AN_HOUR.items()
        }
        self.reminded: dict[str, datetime] = {}
        # By incident: the opening, if any, of which it is not known whether it was taken.
        self.doubts: dict[str, str | None] = {}
        # By incident: the newest mail that some recipients took and others lack.
        self.lacking: dict[str, Step] = {}
        self._before: dict[Key, int] = {}

    def note(self, stories: Mapping[str, Story], now: Now) -> None:
        """Note what there is to send, and forget what was sent or is gone."""
        doubts = self.doubts
        self.doubts = {each: doubts[each] if each in doubts else _in_flight(story) for each, story in stories.items()}
        # The opening of what is over is not sent.
        self.lacking = {
            each: step
            for each, step in self.lacking.items()
            if (story := stories.get(each)) and (step.file == story.last.file or not story.is_over)
        }
        if not self.lacking and not self._is_state:
            del self.senders[LACKING:]
        kept = {key: tries for key, tries in self.tries.items() if key[1:] == DIGEST or self._is_news(key, stories)}
        # An instance that fails was not sent the newer notice either, though another one took it.
        failing = {key[:2]: tries.why for key, tries in self.tries.items() if tries.why and self._is_state}
        for story in stories.values():
            said = story.last
            for sender in range(len(self.senders) if self._is_state else 1):
                waited = max(0.0, (now.time - said.at).total_seconds()) if said.at < self.started else 0.0
                key = (sender, story.incident_id, said.file)
                kept.setdefault(key, Tries(now.second, waited, why=failing.get(key[:2])))
        self.tries = kept
        self.reminded = {each: at for each, at in self.reminded.items() if each in stories}
        is_owing = any(story.owed for story in stories.values())
        for number, each in enumerate(self.senders):
            if not is_owing and not self._has_failed(number):
                self.senders[number] = each._replace(why=None, since=None)

    def rest(self, stories: Iterable[Story], now: Now) -> None:
        """Let no time pass for what a silence holds back from people: it is not given up for that."""
        for story in () if self._is_state else stories:
            lacking = self.lacking.get(story.incident_id)
            for key in {(0, story.incident_id, story.last.file), *([lacking.key] if lacking else [])}:
                self.tries[key] = self.tries[key]._replace(seen=now.second, waited=0.0)

    def foremost(self, story: Story) -> Said:
        """Return the notice to send of an incident on a message channel: the newest, but for one in doubt."""
        doubt = None if story.is_over else self.doubts.get(story.incident_id)
        return next((said for said in story.owed if said.file == doubt), story.last)

    def enter(self, step: Step, delivery: Delivery, now: Now, dice: float) -> None:
        """Enter the outcome of an attempt; ``dice`` is in [0, 1)."""
        tries = self.tries.get(step.key) or Tries(now.second)
        tries = tries._replace(attempts=tries.attempts + 1, tried=now.second)
        if isinstance(delivery, Retry) and delivery.may_be_taken and step.how == "opened":
            self.doubts[step.incident_id] = step.file
        elif not isinstance(delivery, Retry) or delivery.may_be_the_notice:
            self.doubts[step.incident_id] = None  # Taken; or read and not taken, and the newest may fare better.
        match delivery:
            case Delivered():
                self._take(step, tries, now)
                lacking = self.lacking.pop(step.incident_id, step)
                if lacking != step:
                    self.tries.pop(lacking.key, None)
                    self._recover(LACKING)
            case Retry() if delivery.taken and not step.is_rest:
                self._take(step, tries, now)
                if step.how not in ONCE:
                    lacking = step._replace(sender=LACKING, budget=None, is_rest=True)
                    self.lacking[step.incident_id] = lacking
                    self.tries[lacking.key] = self.tries.pop(step.key)._replace(why=delivery.why)
                    self.senders[LACKING:] = self.senders[LACKING:] or [Sender()]
                    self.set_back(LACKING, delivery.why, now, dice)
            case Retry():
                is_choking = tries.is_choking or delivery.may_be_the_notice
                self.tries[step.key] = tries._replace(refusals=0, why=delivery.why, is_choking=is_choking)
                self.set_back(step.sender, delivery.why, now, dice, delivery.after_seconds)
            case Rejected():
                pause = min(SHORTEST_REFUSAL_SECONDS * 2.0 ** min(tries.refusals, 10), LONGEST_REFUSAL_SECONDS)
                due = now.second + pause
                self.tries[step.key] = tries._replace(refusals=tries.refusals + 1, due=due, why=delivery.why)
                self.set_back(step.sender, delivery.why, now, dice)

    def set_back(self, number: int, why: str, now: Now, dice: float, after_seconds: float | None = None) -> None:
        """Pause a sender, longer after each failure in a row; a time that the receiver named is kept to instead."""
        sender = self.senders[number]
        since = now.second if sender.since is None else sender.since
        growth = sender.growth + (after_seconds is None)
        longest = EARLY_PAUSE_SECONDS if now.second - since < EARLY_SECONDS else LONGEST_PAUSE_SECONDS
        spread = min(longest, 2.0 ** min(growth, 10)) - SHORTEST_PAUSE_SECONDS
        pause = SHORTEST_PAUSE_SECONDS + dice * spread
        if after_seconds is not None:
            pause = after_seconds + dice * RETRY_SPREAD_SECONDS
        self.senders[number] = Sender(sender.failures + 1, growth, now.second + pause, why, since)

    def _take(self, step: Step, tries: Tries, now: Now) -> None:
        """Enter that the receiver took it."""
        self._forget_reminders(step.incident_id)
        self.tries[step.key] = Tries(tries.seen, tries.waited, tries.attempts, now.second, taken=step.severities)
        self._recover(step.sender)
        if step.budget:
            self.sent[step.budget].append(now.second)
        if step.how == "again":
            self.reminded[step.incident_id] = now.time

    def _forget_reminders(self, incident_id: str) -> None:
        """Forget the reminders that were not taken: what was taken now says more."""
        self.tries = {
            key: tries for key, tries in self.tries.items() if key[1] != incident_id or not key[2].startswith(REMINDER)
        }

    def _recover(self, number: int) -> None:
        sender = self.senders[number]
        self.senders[number] = Sender(why=sender.why, since=sender.since) if self._has_failed(number) else Sender()

    def _has_failed(self, number: int) -> bool:
        """Return whether anything that failed still waits."""
        return any(tries.why for key, tries in self.tries.items() if key[0] == number)

    def _is_news(self, key: tuple[int, str, str], stories: Mapping[str, Story]) -> bool:
        story, lacking = stories.get(key[1]), self.lacking.get(key[1])
        if key[0] and not self._is_state:
            return lacking is not None and lacking.key == key
        if story is None or key[2].startswith(REMINDER):
            return story is not None
        # What was given up does not wait any more.
        is_waiting = self._is_state or bool(story.owed)
        return is_waiting and key[2] in (story.last.file, self.foremost(story).file)

    def is_owing(self, story: Story) -> bool:
        """Return whether somebody is owed a notice of an incident."""
        return bool(story.owed) or story.incident_id in self.lacking

    def attempts(self, incident_id: str, file: str) -> int:
        """Count the attempts of all senders with a notice."""
        here = sum(tries.attempts for key, tries in self.tries.items() if key[1:] == (incident_id, file))
        return here + self._before.get((incident_id, file), 0)

    def count_on(self, before: "Ledger") -> None:
        """Count the attempts before a reload, too, and those before that one if nothing was noted in between."""
        self._before = {key[1:]: before.attempts(*key[1:]) for key in before.tries} or before._before  # noqa: SLF001

    def is_spent(self, budget: Provenance, now: Now) -> bool:
        """Return whether the messages of an hour are used up."""
        times = self.sent[budget]
        return len(times) == times.maxlen and now.second - times[0] < HOUR_SECONDS


def _in_flight(story: Story) -> str | None:
    """Return the notice that may have opened an incident, in an attempt of which the outcome is not known."""
    if any(said.outcome == "delivered" for said in story.notices):
        return None
    return next((said.file for said in reversed(story.owed) if said.has_room), None)


# --- what is to be done ---------------------------------------------------------------------------------------------


def plan(
    stories: Mapping[str, Story],
    ledger: Ledger,
    rules: Rules,
    silence: Silence | None,
    now: Now,
    *,
    held: Collection[Key] = (),
    digest: DigestNotice | None = None,
) -> Plan:
    """Decide what a channel does next.

    The ledger has noted the stories, each with something that may be to be done; ``held`` are notices that wait for the
    next digest, and ``digest`` is the one that is due.
    """
    closing, holding, done = list[Close](), list[str](), list[str]()
    ready = list[tuple[tuple[bool, datetime], Step]]()
    held_of = {incident_id for incident_id, _ in held}
    for story in stories.values():
        is_held = story.incident_id in held_of
        if is_held and all((story.incident_id, said.file) in held for said in story.owed):
            continue
        kind = _state_steps if rules.senders else partial(_message_steps, is_held=is_held)
        steps = list(kind(story, ledger, rules, silence, now))
        done += [story.incident_id] if story.is_over and not ledger.is_owing(story) and not steps else []
        for step in steps:
            if isinstance(step, Close):
                closing.append(step)
            elif step.budget and (step.how == "digest" or ledger.is_spent(step.budget, now)):
                holding += [] if step.how == "again" else [story.incident_id]
            else:
                ready.append(((story.proof == "claimed", story.notices[0].at), step))
    is_silent = silence is not None and silence.is_on(now.time)
    if digest is not None and not is_silent:
        why = _given_up(ledger, (0, *DIGEST), rules, now)
        closing += [Close("", "gave_up", why)] if why else []
        ready += [] if why else [((True, digest.at), Step(*DIGEST, "digest"))]
    chosen, at = _next(ready, ledger, now)
    end = now.second + (silence.until - now.time).total_seconds() if silence and is_silent else at
    return Plan(tuple(closing), tuple(holding), tuple(done), chosen, min(at, end))


def _next(ready: list[tuple[tuple[bool, datetime], Step]], ledger: Ledger, now: Now) -> tuple[Step | None, float]:
    """Choose among what may be sent: what is due now, or when something will be."""
    fresh = Tries(now.second)
    rated = []
    for rank, step in ready:
        tries, sender = ledger.tries.get(step.key, fresh), ledger.senders[step.sender]
        at = max(step.at, tries.due, sender.resume_at)
        rated.append((at, (sender.failures > 0, bool(tries.taken), tries.is_choking, *rank), tries.tried, step))
    due = [each for each in rated if each[0] <= now.second]
    if not due:
        return None, min([each[0] for each in rated] + [now.second + IDLE_SECONDS])
    first = min(due, key=lambda each: each[1])
    sender = ledger.senders[first[3].sender]
    # In a long trouble the receiver may be well and choke on the oldest: now and then the newest untried one is tried.
    is_long = sender.since is not None and now.second - sender.since >= EARLY_SECONDS
    if is_long and sender.failures % ROTATION == ROTATION - 1:
        first = min(sorted(due, key=lambda each: each[1], reverse=True), key=lambda each: each[2])
    return first[3], now.second


# --- message channels -----------------------------------------------------------------------------------------------


def _message_steps(
    story: Story, ledger: Ledger, rules: Rules, silence: Silence | None, now: Now, *, is_held: bool
) -> Iterator[Step | Close]:
    """Say what becomes of an incident on a message channel: one attempt, the digest, receipts, or nothing yet."""
    owed, is_silent = story.owed, silence is not None and silence.is_on(now.time)
    lacking = None if owed or is_silent else ledger.lacking.get(story.incident_id)
    if lacking:
        why = _given_up(ledger, lacking.key, rules, now)
        yield Close(story.incident_id, "gave_up", why) if why else lacking
    closed = _why_closed(story, rules, silence, is_held=is_held) if owed else None
    if closed:
        yield Close(story.incident_id, *closed)
    elif owed and (story.in_digest or (is_held and not _is_news_of_the_kernel(story))):
        yield Step(story.incident_id, story.last.file, "digest", budget=story.proof)
    elif is_silent or (owed and not _told(story, rules) and _is_unfinished(story, now)):
        return
    elif owed:
        step = _telling(story, ledger, rules)
        why = _given_up(ledger, (0, story.incident_id, story.last.file), rules, now)
        yield Close(story.incident_id, "gave_up", why) if why else step
    elif rules.reminders and not story.is_over and (hours := _reminder_hours(story, ledger, rules, now)):
        remark = f"still open after {duration_text(hours * HOUR_SECONDS)}"
        yield Step(story.incident_id, f"{REMINDER}{hours}h", "again", remark=remark, budget=story.proof)


def _why_closed(story: Story, rules: Rules, silence: Silence | None, *, is_held: bool) -> tuple[Outcome, str] | None:
    """Return why nothing is sent of what is owed, with the outcome; None if it is to be sent."""
    relevant = [said for said in story.notices if _is_for(said.severity, rules)]
    if rules.is_absent:
        return "gave_up", ABSENT
    if story.overtaken_by:
        return "superseded", story.overtaken_by
    if not relevant:
        return "skipped", LESS_SEVERE
    if not _told(story, rules):
        why = _why_unheard(story, relevant, silence, is_held=is_held)
    elif story.is_over:
        why = None if rules.resolved else NO_RESOLVED
    else:
        why = None if rules.updates else NO_UPDATES
    return ("skipped", why) if why else None


def _why_unheard(story: Story, relevant: list[Said], silence: Silence | None, *, is_held: bool) -> str | None:
    """Return why a channel that got nothing of an incident will get nothing."""
    if not relevant[0].is_addressed:
        return NOT_ADDRESSED
    is_missed = any(said.outcome in UNHEARD for said in relevant)
    if is_missed and not is_held and not _is_news_of_the_kernel(story):
        return NOT_OPENED
    if silence and story.is_over and silence.since <= relevant[0].at and story.last.at <= silence.until:
        return f"silenced: {silence.reason}"
    return None


def _telling(story: Story, ledger: Ledger, rules: Rules) -> Step:
    """Choose the notice, how it is sent, and the budget it counts in: none for the end of what was sent."""
    step = Step(story.incident_id, ledger.foremost(story).file, "plain", budget=story.proof)
    if _told(story, rules):
        return step._replace(budget=None) if story.is_over else step
    if not story.is_over:
        return step._replace(how="opened")
    is_read_late = story.is_past or story.last.at - story.notices[0].at < AT_ONCE
    has_failed = ledger.senders[0].why or any(said.has_room for said in story.notices)
    return step._replace(how="late", remark=READ_LATE if is_read_late else DOWN if has_failed else DELAYED)


def _is_unfinished(story: Story, now: Now) -> bool:
    """Return whether a log of the past may go on: it is sent once that is known to be all, or takes long."""
    return story.is_past and not story.is_over and now.time - story.notices[0].at < LONGEST_PAST


def _told(story: Story, rules: Rules) -> list[Said]:
    return [said for said in story.notices if said.outcome == "delivered" and _is_for(said.severity, rules)]


def _is_news_of_the_kernel(story: Story) -> bool:
    return story.proof == "kernel" and not story.is_over


def _is_for(severity: Severity, rules: Rules) -> bool:
    return severity == "critical" or rules.severity == "warning"


def _given_up(ledger: Ledger, key: tuple[int, str, str], rules: Rules, now: Now) -> str | None:
    """Return why a notice whose time has passed was never taken; it was tried since the start, for an hour at least."""
    tries = ledger.tries.get(key)
    if tries is None or not _has_passed(rules.give_up_after, tries, now):
        return None
    return tries.why or ledger.senders[key[0]].why


def _has_passed(seconds: float, tries: Tries, now: Now, at_least: float = TRIED_AT_LEAST_SECONDS) -> bool:
    """Return whether so much time has passed since a notice fell due, of which it was tried ``at_least`` so long."""
    here = now.second - tries.seen
    return here >= min(seconds, at_least) and here + tries.waited >= seconds


def _reminder_hours(story: Story, ledger: Ledger, rules: Rules, now: Now) -> int | None:
    """Return the hours after which what is still open is to be repeated now: 1, 2, 4, 8, 16, and each day's."""
    times = [said.settled_at for said in _told(story, rules) if said.settled_at]
    if not times:
        return None
    first, newest = min(times), max([*times, ledger.reminded.get(story.incident_id, min(times))])
    passed = (now.time - first).total_seconds() / HOUR_SECONDS
    hours = max((each for each in REMINDER_HOURS if each <= passed), default=0)
    hours += max(0, int(passed) - REMINDER_HOURS[-1]) // DAY_HOURS * DAY_HOURS
    due = first + timedelta(hours=hours)
    # What fell due before the start was sent then, if it could be.
    return hours if hours and due >= newest + timedelta(hours=1) and due > ledger.started else None


# --- state channels -------------------------------------------------------------------------------------------------


def _state_steps(
    story: Story, ledger: Ledger, rules: Rules, silence: Silence | None, now: Now
) -> Iterator[Step | Close]:
    """Say what a state channel is sent of an incident by each of its senders, and when."""
    if story.overtaken_by:
        yield Close(story.incident_id, "superseded", story.overtaken_by)
        return
    sent = [said for said in story.notices if said.outcome == "delivered" or said.has_room]
    fired = {said.severity for said in sent if said.type != RESOLVED} or {said.severity for said in sent}
    # Whatever was sent showed the severity of the opening, too, which a later notice may have overtaken.
    fired |= {story.notices[0].severity} if sent else set()
    closed = _why_no_state(story, ledger, rules, fired, now)
    if closed:
        if story.owed:
            yield Close(story.incident_id, *closed)
        return
    shown = fired if story.is_over else {story.notices[0].severity, story.last.severity}
    whole = tuple(each for each in SEVERITIES if each in shown and _is_for(each, rules))
    is_held_back = not story.is_over and silence is not None and silence.is_on(now.time)
    wanted = tuple(each for each in whole if each in fired) if is_held_back else whole
    if not wanted or (is_held_back and rules.repeat_seconds is None) or (not fired and _is_unfinished(story, now)):
        return
    for number in range(rules.senders):
        step = Step(story.incident_id, story.last.file, "state", number, severities=wanted, is_whole=wanted == whole)
        tries = ledger.tries[step.key]
        if rules.repeat_seconds is None and (tries.taken == wanted or story.last.outcome == "delivered"):
            continue
        yield step._replace(at=tries.tried + (rules.repeat_seconds or 0.0)) if tries.taken == wanted else step


def _why_no_state(
    story: Story, ledger: Ledger, rules: Rules, fired: set[Severity], now: Now
) -> tuple[Outcome, str] | None:
    """Return why a state channel is sent nothing more of an incident, with the outcome of what is owed."""
    if not _is_for(story.last.severity, rules):
        return "skipped", LESS_SEVERE
    if not story.is_over:
        return None
    if not fired:
        return "skipped", NOT_FIRED
    tries = [ledger.tries[number, story.incident_id, story.last.file] for number in range(rules.senders)]
    at_least = TRIED_AT_LEAST_SECONDS if story.owed else 0.0
    if not _has_passed(rules.after_end_seconds, tries[0], now, at_least):
        return None
    return "gave_up", next((each.why for each in tries if each.attempts and each.why), DELAYED)


# --- what is sent ---------------------------------------------------------------------------------------------------


def compose(step: Step, story: Story, notice: Notice, incident: Incident) -> Notice:
    """Make what an attempt sends, of the newest notice and the incident as it is now."""
    now = replace(incident, resume=None, beside=())
    match step.how:
        case "opened":
            # One in doubt is sent as it was: the next one says what is new.
            is_as_it_was = step.file != story.last.file or now.closed_at is not None
            return replace(notice, type=OPENED, data=notice.data if is_as_it_was else now)
        case "late":
            return _with(Remark, notice, type=RESOLVED, data=now, remark=f"reported late: {step.remark}")
        case "again":
            again = f"msg_{incident.id}_{step.file}"
            data = notice.data if now.closed_at else now
            return _with(Remark, notice, id=again, type=UPDATED, reason=step.remark, data=data, remark=step.remark)
        case "state":
            kind = RESOLVED if story.is_over else notice.type
            return _with(Standing, notice, type=kind, data=now, severities=step.severities, opening_cause=story.cause)
    return notice


AnyNotice = TypeVar("AnyNotice", bound=Notice)


def _with(kind: type[AnyNotice], notice: Notice, **others: Any) -> AnyNotice:  # noqa: ANN401 - the fields of the kind
    return kind(**({name: getattr(notice, name) for name in notice.__struct_fields__} | others))
