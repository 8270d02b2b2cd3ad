"""One thread a channel: pending notice -> notify -> receipt, at least once.

The disk is the queue: a committed notice without a receipt is pending. What is sent when is decided in core.dispatch; a
courier carries out the one next step and enters what came of it. The receipt follows the receiver's answer, so a crash
repeats a notice and loses none; its room is reserved before the first attempt, since on a full disk every start would
send the notice again. What a courier remembers (attempts, pauses) may be lost.

An unexpected exception, of the channel or here, is a failed attempt: logged with its traceback, it pauses this channel.
"""

import logging
import random
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timezone
from itertools import takewhile

from agent.core.budget import MESSAGES_AN_HOUR
from agent.core.delivery import Delivered, Delivery, Outcome, Rejected, Retry
from agent.core.dispatch import ABSENT, DIGEST, ONCE, Close, Ledger, Now, Rules, Said, Step, Story, compose, plan
from agent.core.format import counted
from agent.core.model import Notice, Standing
from agent.core.status import Waiting
from agent.notifiers import Notifier, StateNotifier
from agent.service.channel_log import ChannelLog
from agent.service.channel_thread import ChannelThread
from agent.service.held import Held
from agent.service.stories import AT_ONCE, Stories
from agent.store import Outbox, StoreError

IDLE_SECONDS = 60.0
RECEIPT_PAUSE_SECONDS = 5.0


class Courier:
    """Delivers the notices of one channel by its ``rules``.

    The clock ``now`` (aware) may be set at any time, as by NTP on a host that boots in 1970. ``random`` yields [0, 1).
    """

    def __init__(
        self,
        notifier: Notifier | StateNotifier,
        outbox: Outbox,
        rules: Rules,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(tz=timezone.utc),
        random: Callable[[], float] = random.random,
        make_thread: type[ChannelThread] = ChannelThread,
        log: logging.Logger = logging.getLogger("sockmem-agent"),  # noqa: B008 - the same object every time
    ) -> None:
        self.name = notifier.name
        # By outcome, and the attempts that "failed", since the service started.
        self.counts = Counter[str]()
        self._notifier, self._outbox, self._rules = notifier, outbox, rules
        self._monotonic, self._clock, self._random, self._log = monotonic, now, random, log
        self._voice = ChannelLog(self.name, outbox, log)
        self._stories = Stories(self.name, outbox)
        self._held = Held(self.name, outbox)
        self._ledger = Ledger(self._now(), rules.senders)
        self._has_recalled = bool(rules.senders)
        self._is_silent = False
        self._predecessor: Courier | None = None
        self.thread = make_thread(self.name, self.step, self._cannot_start, self.is_settling, monotonic)

    @property
    def status(self) -> str | None:
        """What is wrong: "ops: 3 waiting, HTTP 503 since 14:02"."""
        return self._voice.status

    @property
    def waiting(self) -> Waiting:
        """What is not delivered yet, since when and why."""
        return self._voice.waiting

    def is_settling(self) -> bool:
        """Return whether a digest was taken, or given up, while notices in it have no receipt yet."""
        return self._held.is_settling

    def succeed(self, predecessor: "Courier") -> None:
        """Take over the counts, and at the first step, when that one has ended, what it left to do."""
        self.counts = predecessor.counts
        self._predecessor = predecessor

    def _take_over(self) -> None:
        """Go on with the receipts that could not be written yet, and count on the attempts."""
        before, self._predecessor = self._predecessor, None
        if before:
            before._take_over()  # noqa: SLF001 - of the same class, and it may have had no step
            self._stories.unwritten = before._stories.unwritten  # noqa: SLF001
            self._ledger.count_on(before._ledger)  # noqa: SLF001

    # --- the thread -------------------------------------------------------------------------------------------------

    def step(self) -> float:
        """Make at most one attempt; return the seconds until there is more to do, 60 at most."""
        try:
            delay = self._step()
        except OSError as error:
            delay = self._set_back(f"the state directory cannot be used: {error.strerror}")
        except BaseException as surprise:  # noqa: BLE001 - logged with its traceback; SystemExit, too, ends no thread
            delay = self._set_back(self._voice.surprised(surprise))
        self._show()
        return min(max(delay, 0.0), IDLE_SECONDS)

    def _step(self) -> float:
        """Do what ``step`` says; OSError when the state directory cannot be read, or has no room for a receipt."""
        self._take_over()
        self._recall_the_hour()
        is_busy = self._stories.look(self._held.release)
        for key, receipt in list(self._stories.unwritten.items()):
            self._stories.write(key, receipt)
        now, silence = self._now(), self._outbox.silence()
        self._ledger.note(self._stories, now)
        todo = plan(self._stories, self._ledger, self._rules, silence, now, held=self._held, digest=self._held.digest)
        self._is_silent = silence is not None and silence.is_on(now.time)
        if self._is_silent:
            self._ledger.rest(self._stories.values(), now)
        for close in todo.closing[:AT_ONCE]:
            self._close(close)
        for incident_id in todo.holding:
            self._hold(self._stories[incident_id], now)
        for incident_id in todo.done:
            self._stories.finish(incident_id)
        # A digest is closed once everything that waits was seen, so that after a crash it is the same again.
        is_busy = is_busy or bool(todo.closing) or self._held.work(now.second, now.time)
        if todo.step and not todo.closing:
            self._attempt(todo.step)
            return 0.0
        idle = RECEIPT_PAUSE_SECONDS if self._stories.unwritten else IDLE_SECONDS
        return 0.0 if is_busy else min(todo.at - now.second, idle)

    def _now(self) -> Now:
        return Now(self._monotonic(), self._clock())

    def _cannot_start(self) -> float:
        delay = self._set_back("no thread could be started; see sockmem-agent config check")
        self._show()
        return delay

    def _set_back(self, why: str) -> float:
        """Pause all senders for what is no receiver's fault, and return the seconds."""
        for number in range(len(self._ledger.senders)):
            self._ledger.set_back(number, why, self._now(), self._random())
        self._voice.failed(why)
        return min(sender.resume_at for sender in self._ledger.senders) - self._monotonic()

    def _show(self) -> None:
        owed = [(story, said) for story in self._stories.values() for said in story.owed]
        lacking = [
            (self._stories[each], step.file) for each, step in self._ledger.lacking.items() if each in self._stories
        ]
        owed += [(story, said) for story, file in lacking for said in story.notices if said.file == file]
        due = [said.at for story, said in owed if not self._is_held_back(story, said)]
        self._voice.show(len(owed), min(due, default=None), self._ledger.senders, self._now())

    def _is_held_back(self, story: Story, said: Said) -> bool:
        """Return whether a notice waits because it is to: for the digest, or the end of a silence."""
        is_sent_anyway = bool(self._rules.senders) and story.is_over
        is_in_no_digest_yet = (story.incident_id, said.file) in self._held and self._held.digest is None
        return is_in_no_digest_yet or (self._is_silent and not is_sent_anyway)

    # --- the budget of an hour --------------------------------------------------------------------------------------

    def _recall_the_hour(self) -> None:
        """Read from the receipts, once, what was sent in the hour before the start."""
        if self._has_recalled:
            return
        now = self._now()
        for seconds_ago, outcome, proof in self._stories.sent_within_the_hour(now.time):
            if outcome == "digested":
                self._held.sent_at = now.second - seconds_ago
            elif outcome == "delivered":
                self._ledger.sent[proof].append(now.second - seconds_ago)
        self._has_recalled = True

    def _hold(self, story: Story, now: Now) -> None:
        if not self._held:
            limits = ", ".join(f"{most} messages for {budget} incidents" for budget, most in MESSAGES_AN_HOUR.items())
            self._log.warning("%s: hourly limit reached (%s); the rest follows in one digest", self.name, limits)
        tries = self._ledger.tries[0, story.incident_id, story.last.file]
        self._held.hold(story, min(now.second, tries.seen - tries.waited))

    # --- one attempt ------------------------------------------------------------------------------------------------

    def _attempt(self, step: Step) -> None:
        delivery = self._send(step)
        if delivery is None:
            return
        now = self._now()
        since = min([sender.since for sender in self._ledger.senders if sender.since is not None], default=None)
        self._ledger.enter(step, delivery, now, self._random())
        taken = delivery.detail if isinstance(delivery, Delivered) else None
        if isinstance(delivery, Retry) and delivery.taken:
            taken = f"{delivery.taken}; {delivery.why}"
        if not isinstance(delivery, Delivered):
            self.counts["failed"] += 1
            if taken and step.how in ONCE:
                self._log.warning("%s: %s", self.name, taken)
            else:
                self._voice.failed(delivery.why)
        if taken is not None:
            self.counts["delivered"] += not step.is_rest
            self._settle(step, taken)
        if since is not None and all(sender.since is None for sender in self._ledger.senders):
            self._voice.recovered(now.second - since)

    def _send(self, step: Step) -> Delivery | None:
        """Make what is to be sent, and room for its receipt, and send it; None where its incident was removed."""
        try:
            notice = self._compose(step)
            if step.how not in ("again", "digest"):
                if step.is_whole:
                    self._stories.reserve(step.incident_id, step.file)
                self._outbox.flush(step.incident_id)
        except (OSError, StoreError) as error:
            if self._stories.is_removed(step.incident_id):
                return None
            if isinstance(error, OSError):
                raise
            # Its file was damaged since the start: all others are sent before it.
            return Retry(why=str(error), may_be_the_notice=True)
        delivery = self._notify(notice, step)
        self._log.debug("%s: an attempt of %s: %s", self.name, notice.id, delivery)
        return delivery

    def _compose(self, step: Step) -> Notice:
        if step.how == "digest" and self._held.digest:
            return self._held.digest
        story = self._stories[step.incident_id]
        notice = self._outbox.notice(step.incident_id, story.last.file if step.how == "again" else step.file)
        return compose(step, story, notice, self._outbox.incident(step.incident_id))

    def _notify(self, notice: Notice, step: Step) -> Delivery:
        try:
            if isinstance(notice, Standing) and isinstance(self._notifier, StateNotifier):
                return self._notifier.show(notice, step.sender)
            return self._notifier.notify(notice)
        except BaseException as surprise:  # noqa: BLE001 - as in step()
            return Retry(why=self._voice.surprised(surprise), may_be_the_notice=True)

    # --- its receipts -----------------------------------------------------------------------------------------------

    def _settle(self, step: Step, detail: str) -> None:
        """Write the receipts that a delivery brings: that of the notice last, since it stands for those before it."""
        if step.how == "digest":
            self._end_digest("digested", detail)
            return
        story = self._stories[step.incident_id]
        its = [said for said in story.notices if said.file == step.file and (step.is_rest or said.outcome is None)]
        told = its[0] if its else None
        if told is None or not step.is_whole:  # A reminder, or what a state channel was told before.
            return
        apart = self._held.in_digest(step.incident_id)
        for said in takewhile(lambda each: each is not told, story.notices):
            if said in story.owed and said.file not in apart:
                self._record(step.incident_id, said, "superseded", told.file)
        self._record(step.incident_id, told, "delivered", detail)
        self._held.release(step.incident_id)

    def _close(self, close: Close) -> None:
        """Write receipts without an attempt, and say in the log what is given up."""
        story = self._stories[close.incident_id] if close.incident_id else None
        owed = story.owed if story else ()
        if close.outcome == "gave_up":
            what = f"incident {close.incident_id}" if story else counted(self._held.members, "notice")
            kind = (owed or story.notices)[-1].type if story else "sockmem.digest"
            self._log.error("%s: gave up %s of %s: %s", self.name, kind, what, close.detail)
        if story is None:
            self._end_digest("gave_up", close.detail)
            return
        if not owed:  # Some recipients have it: its receipt says who has not.
            del self._ledger.lacking[close.incident_id]
            self.counts["gave_up"] += 1
        for said in owed:
            self._record(close.incident_id, said, close.outcome, close.detail)
        self._held.release(close.incident_id)

    def _record(self, incident_id: str, said: Said, outcome: Outcome, detail: str) -> None:
        if outcome != "delivered":
            self.counts[outcome] += 1
        self._write(incident_id, said, outcome, self._ledger.attempts(incident_id, said.file), detail)

    def _end_digest(self, outcome: Outcome, detail: str) -> None:
        about = f"{self._held.digest.id if self._held.digest else ''}: {detail}"
        attempts = self._ledger.tries.pop((0, *DIGEST)).attempts
        if outcome == "digested":
            self._held.sent_at = self._monotonic()
        self.counts[outcome] += self._held.members
        self._held.end(lambda key, said: self._write(key[0], said, outcome, attempts, about))

    def _write(self, incident_id: str, said: Said, outcome: Outcome, attempts: int, detail: str) -> None:
        key = (incident_id, said.file)
        # What the first recipients have was delivered then.
        at = said.settled_at or self._clock()
        if error := self._stories.write(key, self._stories.receipt(said, outcome, at, attempts, detail)):
            why = error if isinstance(error, OSError | StoreError) else self._voice.surprised(error)
            self._log.error("%s: the receipt of %s cannot be written: %s", self.name, key, why)


class _Absent:
    """The notifier of a channel that is no longer configured."""

    def __init__(self, name: str) -> None:
        self.name = name

    def notify(self, notice: Notice) -> Delivery:
        """Deliver nothing."""
        del notice
        return Rejected(why=ABSENT)


def absent(name: str, outbox: Outbox, make: Callable[[Notifier, Outbox, Rules], Courier] = Courier) -> Courier:
    """Make the courier that gives up, without an attempt, what a channel no longer configured owes."""
    return make(_Absent(name), outbox, Rules(is_absent=True))
