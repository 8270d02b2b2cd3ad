"""One thread a channel: pending notice -> notify -> receipt, at least once.

The disk is the queue: a committed notice without a receipt is pending. What is sent when is decided in core.dispatch;
a courier reads what there is to tell, carries out the one next step, and enters what came of it. The receipt follows
the receiver's answer, so a crash repeats a notice and loses none; its room is reserved before the first attempt, since
on a full disk every start would send the notice again. What a courier remembers (attempts, pauses) may be lost.

An unexpected exception, of the channel or here, is a failed attempt: logged with its traceback, it pauses this channel.
"""

import contextlib
import logging
import random
import threading
import time
import traceback
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

from agent.core.budget import HOUR_SECONDS, MESSAGES_AN_HOUR
from agent.core.delivery import Delivered, Delivery, Outcome, Receipt, Rejected, Retry, Trouble
from agent.core.dispatch import ABSENT, DIGEST, Close, Key, Ledger, Now, Rules, Said, Step, Story, compose, plan
from agent.core.format import counted, duration_text, printable
from agent.core.model import Notice, Standing
from agent.core.status import Waiting
from agent.notifiers import Notifier, StateNotifier
from agent.service.held import AT_ONCE, Held
from agent.store import Commit, Outbox, StoreError

IDLE_SECONDS = 60.0
RECEIPT_PAUSE_SECONDS = 5.0
LONGEST_DETAIL = 500  # characters, so that a receipt fits into the room that is reserved
SURPRISE_FRAMES = 20  # the innermost ones: of a recursion without end there are a thousand


class Courier:
    """Delivers the notices of one channel by its ``rules``.

    The clock ``now`` (aware) may be set at any time, as by NTP on a host that boots in 1970. ``random`` yields [0, 1).
    ``status`` says what is wrong ("ops: 3 waiting, HTTP 503 since 14:02"), or is None; the main thread reads it and
    ``waiting`` without a lock.
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
        log: logging.Logger = logging.getLogger("sockmem-agent"),  # noqa: B008 - the same object every time
    ) -> None:
        self.name = notifier.name
        self.delivered = self.failed = self.gave_up = self.digested = self.superseded = self.skipped = 0
        self.last_progress = monotonic()
        self._notifier, self._outbox, self._rules = notifier, outbox, rules
        self._monotonic, self._clock, self._random, self._log = monotonic, now, random, log
        self._held = Held(self.name, outbox)
        self._ledger = Ledger(self._now(), rules.senders)
        self._has_recalled = False
        # What there is to tell, and of which commit each incident was read: None once nothing of it is left to tell.
        self._stories: dict[str, Story] = {}
        self._known: dict[str, Commit | None] = {}
        self._unwritten: dict[Key, Receipt] = {}
        self._logged: set[str] = set()
        self._trouble: Trouble | None = None
        self.status: str | None = None
        self.waiting = Waiting()
        self._wake, self._stop = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    # --- seen from the main thread ----------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread unless it runs; one that died or could not start is started again after the pause."""
        if self.is_alive():
            return
        self.last_progress = self._monotonic()
        if self.last_progress < self._ledger.senders[0].resume_at:
            return
        self._thread = threading.Thread(target=self._run, name=f"courier-{self.name}", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            self._set_back("no thread could be started; see sockmem-agent config check")
            self._show()

    def wake(self) -> None:
        """Hint that there is something new; it ends no pause."""
        self._wake.set()

    def stop(self, timeout: float) -> None:
        """Ask the thread to end, and wait for it and its current attempt up to ``timeout`` seconds."""
        self._stop.set()
        self._wake.set()
        if self._thread and self._thread.is_alive():
            self._thread.join(timeout)

    def is_alive(self) -> bool:
        """Return whether the thread runs."""
        return self._thread is not None and self._thread.is_alive()

    # --- the thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        # What gets here was raised while another exception was handled. The daemon restarts the thread; Python would
        # print the exception's text, which may quote the address.
        with contextlib.suppress(BaseException):
            while not self._stop.is_set():
                self._wake.clear()
                delay = self.step()
                self.last_progress = self._monotonic()
                self._wake.wait(delay)
                self.last_progress = self._monotonic()

    def step(self) -> float:
        """Make at most one attempt; return the seconds until there is more to do, 60 at most."""
        try:
            delay = self._step()
        except OSError as error:
            delay = self._set_back(f"the state directory cannot be used: {error.strerror}")
        except BaseException as surprise:  # noqa: BLE001 - logged with its traceback; SystemExit, too, ends no thread
            delay = self._set_back(self._log_surprise(surprise))
        self._show()
        return min(max(delay, 0.0), IDLE_SECONDS)

    def _step(self) -> float:
        """Do what ``step`` says; OSError when the state directory cannot be read, or has no room for a receipt."""
        self._recall_the_hour()
        is_busy = self._look()
        for key, receipt in list(self._unwritten.items()):
            self._write(key, receipt)
        now, silence = self._now(), self._outbox.silence()
        self._ledger.note(self._stories, now)
        todo = plan(self._stories, self._ledger, self._rules, silence, now, held=self._held, digest=self._held.digest)
        if silence and silence.is_on(now.time):
            self._ledger.rest(self._stories.values(), now)
        for close in todo.closing[:AT_ONCE]:
            self._close(close)
        for incident_id in todo.holding:
            self._hold(self._stories[incident_id], now)
        for incident_id in todo.done:
            del self._stories[incident_id]
            self._known[incident_id] = None
        is_busy = is_busy or bool(todo.closing)
        # A digest is closed once everything that waits was seen, so that after a crash it is the same again.
        is_busy = is_busy or self._held.work(now.second, now.time)
        if todo.step and not todo.closing:
            self._attempt(todo.step)
            return 0.0
        return 0.0 if is_busy else min(todo.at - now.second, RECEIPT_PAUSE_SECONDS if self._unwritten else IDLE_SECONDS)

    def _now(self) -> Now:
        return Now(self._monotonic(), self._clock())

    def _look(self) -> bool:
        """Read the incidents that are new or were committed again, a few at a time; return whether there are more."""
        there = self._outbox.names()
        for incident_id in [each for each in self._known if each not in there]:
            del self._known[incident_id]
            self._stories.pop(incident_id, None)
            self._held.release(incident_id)
            self._unwritten = {key: kept for key, kept in self._unwritten.items() if key[0] != incident_id}
        for number, (incident_id, commit) in enumerate(self._outbox.changed(self._known)):
            if number == AT_ONCE:
                return True
            self._read(incident_id)
            self._known[incident_id] = commit
        return False

    def _read(self, incident_id: str) -> None:
        story = self._outbox.story(self.name, incident_id)
        if story is None or not story.notices:
            self._stories.pop(incident_id, None)
            return
        self._stories[incident_id] = story
        for (owner, file), receipt in self._unwritten.items():
            if owner == incident_id:
                self._enter(owner, file, receipt)

    def _enter(self, incident_id: str, file: str, receipt: Receipt) -> None:
        if story := self._stories.get(incident_id):
            self._stories[incident_id] = story.with_outcome(file, receipt.outcome, receipt.at)

    def _recall_the_hour(self) -> None:
        """Read from the receipts, once, what was sent in the hour before the start."""
        if self._has_recalled:
            return
        now = self._now()
        sent = []
        since = now.time - timedelta(seconds=HOUR_SECONDS)
        for receipt, proof, is_exempt in () if self._rules.senders else self._outbox.settled_since(self.name, since):
            then = now.second - abs((now.time - receipt.at).total_seconds())
            if receipt.outcome == "digested":
                self._held.sent_at = max(self._held.sent_at, then)
            elif receipt.outcome == "delivered" and not is_exempt:
                sent.append((then, proof))
        for then, proof in sorted(sent):
            self._ledger.sent[proof].append(then)
        self._has_recalled = True

    def _hold(self, story: Story, now: Now) -> None:
        if not self._held:
            limits = ", ".join(f"{most} messages for {budget} incidents" for budget, most in MESSAGES_AN_HOUR.items())
            self._log.warning("%s: hourly limit reached (%s); the rest follows in one digest", self.name, limits)
        tries = self._ledger.tries[0, story.incident_id, story.last.file]
        self._held.hold(story, min(now.second, tries.seen - tries.waited))

    # --- one attempt ------------------------------------------------------------------------------------------------

    def _attempt(self, step: Step) -> None:
        notice = self._compose(step)
        tries = self._ledger.tries.get(step.key)
        if step.how not in ("again", "digest") and step.is_whole and not (tries and tries.attempts):
            self._reserve(step)
        delivery = self._notify(notice, step)
        now, before = self._now(), self._ledger.senders[step.sender].since
        self._log.debug("%s: an attempt of %s: %s", self.name, notice.id, delivery)
        self._ledger.enter(step, delivery, now, self._random())
        if not isinstance(delivery, Delivered):
            self.failed += 1
            self._log_once(delivery.why)
            return
        self.delivered += 1
        self._settle(step, delivery.detail)
        if before is not None and all(sender.since is None for sender in self._ledger.senders):
            self._log.info("%s: delivered again after %s", self.name, duration_text(now.second - before))
            self._logged.clear()

    def _compose(self, step: Step) -> Notice:
        if step.how == "digest" and self._held.digest:
            return self._held.digest
        story = self._stories[step.incident_id]
        notice = self._outbox.notice(step.incident_id, story.last.file)
        return compose(step, story, notice, self._outbox.incident(step.incident_id))

    def _reserve(self, step: Step) -> None:
        story = self._stories[step.incident_id]
        if story.last.outcome is None and not story.last.has_room:
            self._outbox.reserve_receipt(step.incident_id, step.file, self.name)
            last = story.last._replace(has_room=True)
            self._stories[step.incident_id] = story._replace(notices=(*story.notices[:-1], last))

    def _notify(self, notice: Notice, step: Step) -> Delivery:
        try:
            if isinstance(notice, Standing) and isinstance(self._notifier, StateNotifier):
                return self._notifier.show(notice, step.sender)
            return self._notifier.notify(notice)
        except BaseException as surprise:  # noqa: BLE001 - as in step()
            return Retry(why=self._log_surprise(surprise), may_be_the_notice=True)

    def _settle(self, step: Step, detail: str) -> None:
        """Write the receipts that a delivery brings: the newest notice's last, since it stands for those before it."""
        if step.how == "digest":
            self._end_digest("digested", detail)
            return
        story = self._stories[step.incident_id]
        if step.how == "again" or not step.is_whole or story.last.outcome is not None:
            return
        members = self._held.in_digest(step.incident_id)
        for said in story.owed:
            if said.file not in {story.last.file, *members}:
                self._record(story, said, "superseded", story.last.file)
        self._record(story, story.last, "delivered", detail)
        self._held.release(step.incident_id)

    # --- receipts ---------------------------------------------------------------------------------------------------

    def _close(self, close: Close) -> None:
        """Write receipts without an attempt, and say in the log what is given up."""
        owed = self._stories[close.incident_id].owed if close.incident_id else ()
        if close.outcome == "gave_up":
            what = f"incident {close.incident_id}" if owed else counted(self._held.members, "notice")
            kind = owed[-1].type if owed else "sockmem.digest"
            self._log.error("%s: gave up %s of %s: %s", self.name, kind, what, close.detail)
        if not close.incident_id:
            self._end_digest("gave_up", close.detail)
            return
        for said in owed:
            self._record(self._stories[close.incident_id], said, close.outcome, close.detail)
        self._held.release(close.incident_id)

    def _record(self, story: Story, said: Said, outcome: Outcome, detail: str) -> None:
        keys = [(number, story.incident_id, said.file) for number in range(len(self._ledger.senders))]
        attempts = sum(self._ledger.tries[key].attempts for key in keys if key in self._ledger.tries)
        if outcome != "delivered":
            setattr(self, outcome, getattr(self, outcome) + 1)
        self._write((story.incident_id, said.file), self._receipt(said, outcome, detail, attempts))

    def _receipt(self, said: Said, outcome: Outcome, detail: str, attempts: int) -> Receipt:
        return Receipt(
            notice=said.id,
            channel=self.name,
            outcome=outcome,
            at=self._clock().astimezone(timezone.utc),
            attempts=attempts,
            detail=detail[:LONGEST_DETAIL],
        )

    def _end_digest(self, outcome: Outcome, detail: str) -> None:
        digest, key = self._held.digest, (0, *DIGEST)
        attempts = self._ledger.tries.pop(key).attempts
        if outcome == "digested":
            self._held.sent_at = self._monotonic()
        setattr(self, outcome, getattr(self, outcome) + self._held.members)
        about = f"{digest.id if digest else ''}: {detail}"
        self._held.end(lambda key, said: self._write(key, self._receipt(said, outcome, about, attempts)))

    def _write(self, key: Key, receipt: Receipt) -> None:
        """Write a receipt, or keep it in memory, so that its notice is not sent again every second."""
        try:
            self._outbox.write_receipt(*key, receipt)
        except Exception as error:  # noqa: BLE001 - the notice was taken and must not be sent again
            if key not in self._unwritten:
                why = error if isinstance(error, OSError | StoreError) else self._log_surprise(error)
                self._log.error("%s: the receipt of %s cannot be written: %s", self.name, key, why)
            self._unwritten[key] = receipt
        else:
            self._unwritten.pop(key, None)
        self._enter(*key, receipt)

    # --- what is said -----------------------------------------------------------------------------------------------

    def _set_back(self, why: str) -> float:
        """Pause all senders for what is no receiver's fault, and return the seconds."""
        for number in range(len(self._ledger.senders)):
            self._ledger.set_back(number, why, self._now(), self._random())
        self._log_once(why)
        return min(sender.resume_at for sender in self._ledger.senders) - self._monotonic()

    def _log_once(self, why: str) -> None:
        if why not in self._logged:
            self._logged.add(why)
            self._log.warning("%s: not delivered, will be tried again: %s", self.name, why)

    def _log_surprise(self, surprise: BaseException) -> str:
        """Name an unexpected exception, and log its frames once, without its text: requests quotes the address."""
        frames = traceback.format_tb(surprise.__traceback__, -SURPRISE_FRAMES)
        why = surprise_text(surprise)
        if why not in self._logged:
            self._logged.add(why)
            self._log.error("%s: %s; this channel pauses, the service continues\n%s", self.name, why, "".join(frames))
        return why

    def _show(self) -> None:
        """Set the status and what waits, each in one assignment; write why it waits to disk when that changes."""
        now = self._now()
        owed = [said.at for story in self._stories.values() for said in story.owed]
        failing = [sender for sender in self._ledger.senders if sender.since is not None]
        why = printable("; ".join(sorted({each.why for each in failing if each.why})), LONGEST_DETAIL) or None
        self.waiting = Waiting(len(owed), min(owed, default=None), why)
        # By the clock of now: it may have been corrected since.
        since = now.time - timedelta(
            seconds=now.second - min((each.since or now.second for each in failing), default=0)
        )
        self.status = f"{self.name}: {len(owed)} waiting, {why} since {since.astimezone():%H:%M}" if why else None
        was = self._trouble.why if self._trouble else None
        if why != was:
            self._trouble = Trouble(channel=self.name, why=why, since=since, at=now.time) if why else None
            with contextlib.suppress(OSError):  # It is the log's, too, and the status'.
                self._outbox.write_trouble(self.name, self._trouble)


def surprise_text(surprise: BaseException) -> str:
    """Name an unexpected exception and where it was raised, without its text."""
    innermost = traceback.extract_tb(surprise.__traceback__, -1)
    place = f" in {Path(innermost[0].filename).name}:{innermost[0].lineno}" if innermost else ""
    return f"unexpected {type(surprise).__name__}{place}"


class _Absent:
    """The notifier of a channel that is no longer configured."""

    def __init__(self, name: str) -> None:
        self.name = name

    def notify(self, notice: Notice) -> Delivery:
        """Deliver nothing."""
        del notice
        return Rejected(why=ABSENT)


def absent(name: str, outbox: Outbox) -> Courier:
    """Make the courier that gives up, without an attempt, what a channel no longer configured owes."""
    return Courier(_Absent(name), outbox, Rules(is_absent=True))
