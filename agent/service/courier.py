"""One thread a channel: pending notice -> notify -> receipt, at least once.

The disk is the queue: a committed notice without a receipt is pending. The receipt follows the receiver's answer, so a
crash repeats a notice and loses none; its room is reserved before the first attempt, since on a full disk every start
would send the notice again. What a courier remembers (attempts, pauses) may be lost.

The order: within an incident the oldest notice first, so that "opened" is read before "resolved"; among incidents the
one that waited longest, so that a notice the receiver chokes on delays no other. A busy receiver pauses the channel,
1 s to 300 s with full jitter. A refused notice waits alone, 5 min to 1 h, while later ones of its incident pass; a new
one of them makes it due once more. Until then it is not opened, so that refused notices, however many, cost nothing.

A message channel has an hourly budget (core.budget); what exceeds it is held for a digest (agent.service.held), which
is tried and given up like any notice.

An unexpected exception, of the channel or here, is a failed attempt: logged with its traceback, it pauses this channel.
"""

import contextlib
import logging
import random
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

from agent.core.budget import HOUR_SECONDS, MESSAGES_AN_HOUR, as_told, budget_of, decide
from agent.core.delivery import Delivered, Delivery, Outcome, Receipt, Rejected, Retry
from agent.core.format import counted, duration_text
from agent.core.model import Notice, Provenance
from agent.core.status import Waiting
from agent.notifiers import Notifier
from agent.service.held import Held
from agent.store import OWED_AT_MOST, Key, Outbox, Pending, StoreError

IDLE_SECONDS = 60.0
RECEIPT_PAUSE_SECONDS = 5.0
SHORTEST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 300.0
TRIED_AT_LEAST_SECONDS = 3600.0
SHORTEST_REFUSAL_SECONDS, LONGEST_REFUSAL_SECONDS = 300.0, 3600.0
LONGEST_DETAIL = 500  # characters, so that a receipt fits into the room that is reserved
SURPRISE_FRAMES = 20  # the innermost ones: of a recursion without end there are a thousand
NOT_OPENED = "its opening was not sent to this channel"
ABSENT = "the channel is no longer configured"

DIGEST: Key = ("", "digest")


class _Tries:
    """What this process remembers of one notice; times are monotonic.

    ``seen``: when this process first read it; ``waited``: seconds it had been due by then, by the wall clock.
    """

    def __init__(self, seen: float, waited: float) -> None:
        self.seen = seen
        self.waited = waited
        self.attempts = 0
        self.tried = float("-inf")
        self.refusals = 0
        self.due = seen
        self.why: str | None = None
        self.has_room = False


class Courier:
    """Delivers the notices of one channel.

    ``give_up_after`` counts seconds since this process saw the notice. The clock ``now`` (aware) may be set at any
    time, as by NTP on a host that boots in 1970: it counts across a restart only, and not before an hour of trying.
    ``random`` yields [0, 1). ``trouble`` is why nothing can be delivered, if known before the first attempt. ``status``
    says what is wrong ("ops: 3 waiting, HTTP 503 since 14:02"), or is None; the main thread reads it and ``waiting``
    without a lock.
    """

    def __init__(
        self,
        notifier: Notifier,
        outbox: Outbox,
        *,
        give_up_after: float,
        trouble: str | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(tz=timezone.utc),
        random: Callable[[], float] = random.random,
        log: logging.Logger = logging.getLogger("sockmem-agent"),  # noqa: B008 - the same object every time
    ) -> None:
        self.name = notifier.name
        self.delivered = self.failed = self.gave_up = self.digested = self.skipped = 0
        self.last_progress = monotonic()
        self._notifier, self._outbox, self._give_up_after = notifier, outbox, give_up_after
        self._monotonic, self._now, self._random, self._log = monotonic, now, random, log
        self._started = now()
        self._held = Held(self.name, outbox)
        self._sent: dict[Provenance, deque[float]] | None = None
        self._tries: dict[Key, _Tries] = {}
        self._unwritten: dict[Key, tuple[Pending, Receipt]] = {}
        self._resume_at = float("-inf")
        self._failures = 0
        self._named_a_time = False
        self._trouble = trouble
        self._trouble_since: float | None = None
        self._logged: set[str] = set()
        self.status: str | None = None
        self.waiting = Waiting(why=trouble)
        self._wake, self._stop = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    # --- seen from the main thread ----------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread unless it runs; one that died or could not start is started again after the pause."""
        if self.is_alive():
            return
        self.last_progress = self._monotonic()
        if self.last_progress < self._resume_at:
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
        waiting, later = self._look()
        waiting = self._keep_books(waiting, later)
        waiting = [pending for pending in waiting if not self._gave_up(pending)]
        chosen = self._ration(waiting)
        # A digest is closed once everything that waits was seen, so that after a crash it is the same again.
        is_busy = len(chosen) < len(waiting) or self._held.work(self._monotonic(), self._now())
        delay = self._attempt_next([*chosen, *self._due_digest(later)])
        return 0.0 if is_busy else delay

    def _look(self) -> tuple[list[Pending], set[Key]]:
        """Read what waits; return the refused notices left unread, too."""
        later = self._not_yet()
        waiting = self._outbox.pending(self.name, {*later, *self._held})
        arrived = {p.incident_id for p in waiting if p.key not in self._tries}
        if any(incident_id in arrived for incident_id, _ in later):
            later = {key for key in later if key[0] not in arrived}
            waiting = self._outbox.pending(self.name, {*later, *self._held})
        return waiting, later

    def _not_yet(self) -> set[Key]:
        """Return the refused notices that are not due.

        Due are those to be given up, those with a newer notice behind them, and the first whose time has come.
        """
        now = self._monotonic()
        news: dict[str, float] = {}
        for (incident_id, _), tries in self._tries.items():
            news[incident_id] = max(news.get(incident_id, tries.seen), tries.seen)
        refused = {
            key: tries
            for key, tries in self._tries.items()
            if tries.refusals and tries.tried >= news[key[0]] and not self._is_old(tries)
        }
        due = [key for key, tries in refused.items() if now >= tries.due]
        first = min(due, key=lambda key: refused[key].tried, default=None)
        return {key for key in refused if key != first}

    # --- the budget of an hour --------------------------------------------------------------------------------------

    def _recall_the_hour(self) -> None:
        """Read from the receipts, once, what was sent in the hour before the start."""
        if self._sent is not None:
            return
        sent: dict[Provenance, list[float]] = {budget: [] for budget in MESSAGES_AN_HOUR}
        now, second = self._now(), self._monotonic()
        if not self._notifier.is_state:
            for notice, receipt in self._outbox.receipts_since(self.name, now - timedelta(seconds=HOUR_SECONDS)):
                then = second - abs((now - receipt.at).total_seconds())
                budget = budget_of(notice, is_told=True)
                if receipt.outcome == "digested":
                    self._held.sent_at = max(self._held.sent_at, then)
                elif receipt.outcome == "delivered" and budget:
                    sent[budget].append(then)
        self._sent = {budget: deque(sorted(sent[budget]), most) for budget, most in MESSAGES_AN_HOUR.items()}

    def _sent_within_the_hour(self) -> dict[Provenance, int]:
        since = self._monotonic() - HOUR_SECONDS
        return {budget: sum(then > since for then in times) for budget, times in (self._sent or {}).items()}

    def _ration(self, waiting: list[Pending]) -> list[Pending]:
        """Choose what may be sent within the hourly budget; hold the others, or close them with a receipt."""
        if self._notifier.is_state:
            return waiting
        sent = self._sent_within_the_hour()
        held = self._held.incidents()
        sending: set[str] = set()
        for pending in waiting:
            incident_id = pending.incident_id
            if incident_id in sending:
                continue  # It follows the one before it.
            decision = decide(pending.notice, pending.earlier, is_held=incident_id in held, sent=sent)
            match "hold" if pending.in_digest else decision:
                case "send":
                    sending.add(incident_id)
                    if budget := budget_of(pending.notice, is_told="delivered" in pending.earlier):
                        sent[budget] += 1
                case "hold":
                    held.add(incident_id)
                    self._hold(pending)
                case "skip":
                    self.skipped += 1
                    self._record(pending, "skipped", NOT_OPENED)
        return [pending for pending in waiting if pending.key in self._tries and pending.incident_id in sending]

    def _hold(self, pending: Pending) -> None:
        if self._held.is_first:
            limits = ", ".join(f"{most} messages for {budget} incidents" for budget, most in MESSAGES_AN_HOUR.items())
            self._log.warning("%s: hourly limit reached (%s); the rest follows in one digest", self.name, limits)
        tries = self._tries.pop(pending.key)
        self._held.hold(pending, tries.seen - tries.waited)

    def _due_digest(self, later: set[Key]) -> list[Pending]:
        digest = self._held.digest
        if digest is None or DIGEST in later:
            return []
        self._tries.setdefault(DIGEST, _Tries(self._monotonic(), 0.0)).has_room = True
        pending = Pending(*DIGEST, digest)
        return [] if self._gave_up(pending) else [pending]

    # --- one attempt ------------------------------------------------------------------------------------------------

    def _attempt_next(self, waiting: list[Pending]) -> float:
        now = self._monotonic()
        if self._unwritten and not waiting:
            return RECEIPT_PAUSE_SECONDS
        if now < self._resume_at:
            return self._resume_at - now
        chosen = self._choose(waiting)
        if chosen is None:
            dues = [tries.due - now for key, tries in self._tries.items() if key not in self._unwritten]
            return min(dues, default=IDLE_SECONDS)
        tries = self._tries[chosen.key]
        if not tries.has_room:
            self._outbox.reserve_receipt(chosen, self.name)
            tries.has_room = True
        tries.attempts += 1
        is_held = chosen.incident_id in self._held.incidents()
        delivery = self._notify(as_told(chosen.notice, chosen.earlier, is_held=is_held))
        self._log.debug("%s: attempt %d of %s: %s", self.name, tries.attempts, chosen.notice.id, delivery)
        tries.tried = self._monotonic()
        self._settle(chosen, tries, delivery)
        return self._resume_at - self._monotonic()

    def _notify(self, notice: Notice) -> Delivery:
        try:
            return self._notifier.notify(notice)
        except BaseException as surprise:  # noqa: BLE001 - as in step()
            return Retry(why=self._log_surprise(surprise))

    def _choose(self, waiting: list[Pending]) -> Pending | None:
        """Choose among the oldest notices of each incident."""
        oldest: dict[str, Pending] = {}
        for pending in waiting:
            oldest.setdefault(pending.incident_id, pending)
        # The kernel's first: whatever a local user has written into a log delays none of them.
        return min(oldest.values(), key=lambda each: (self._tries[each.key].tried, _is_claimed(each)), default=None)

    # --- its outcome ------------------------------------------------------------------------------------------------

    def _settle(self, pending: Pending, tries: _Tries, delivery: Delivery) -> None:
        match delivery:
            case Delivered():
                self.delivered += 1
                self._failures, self._resume_at, self._named_a_time = 0, float("-inf"), False
                if self._sent and (budget := budget_of(pending.notice, is_told="delivered" in pending.earlier)):
                    self._sent[budget].append(tries.tried)
                self._record(pending, "delivered", delivery.detail)
                self._recover()
            case Retry():
                tries.refusals = 0
                names_a_time = delivery.after_seconds is not None
                if names_a_time and not self._named_a_time:
                    self._failures = 0  # It is back and says when: its absence no longer counts.
                self._named_a_time = names_a_time
                self._fail(tries, delivery.why, delivery.after_seconds)
            case Rejected():
                tries.refusals += 1
                pause = SHORTEST_REFUSAL_SECONDS * 2.0 ** min(tries.refusals - 1, 10)
                tries.due = tries.tried + min(pause, LONGEST_REFUSAL_SECONDS)
                self._fail(tries, delivery.why)

    def _fail(self, tries: _Tries, why: str, at_least: float | None = None) -> None:
        self.failed += 1
        tries.why = why
        self._set_back(why, at_least or 0.0)

    def _set_back(self, why: str, at_least: float = 0.0) -> float:
        """Pause the channel, longer after each failure in a row, and return the seconds; a new reason is logged."""
        self._failures += 1
        most = min(LONGEST_PAUSE_SECONDS, 2.0 ** min(self._failures, 10))
        pause = max(at_least, SHORTEST_PAUSE_SECONDS + self._random() * (most - SHORTEST_PAUSE_SECONDS))
        self._resume_at = self._monotonic() + pause
        self._trouble = why
        self._trouble_since = self._trouble_since or self._monotonic()
        if why not in self._logged:
            self._logged.add(why)
            self._log.warning("%s: not delivered, will be tried again: %s", self.name, why)
        return pause

    def _log_surprise(self, surprise: BaseException) -> str:
        """Name an unexpected exception, and log its frames once, without its text: requests quotes the address."""
        frames = traceback.format_tb(surprise.__traceback__, -SURPRISE_FRAMES)
        why = surprise_text(surprise)
        if why not in self._logged:
            self._logged.add(why)
            self._log.error("%s: %s; this channel pauses, the service continues\n%s", self.name, why, "".join(frames))
        return why

    def _recover(self) -> None:
        """End the trouble once nothing that failed is left, and log that."""
        if self._trouble_since is None or any(other.why for other in self._tries.values()):
            return
        lasted = self._monotonic() - self._trouble_since
        self._log.info("%s: delivered again after %s", self.name, duration_text(lasted))
        self._end_trouble()

    def _end_trouble(self) -> None:
        self._trouble = self._trouble_since = None
        self._logged.clear()

    def _gave_up(self, pending: Pending) -> bool:
        """Give up a notice whose time has passed, but never without an attempt since the start."""
        tries = self._tries[pending.key]
        why = tries.why or self._trouble
        if why is None or not self._is_old(tries):
            return False
        is_digest = pending.key == DIGEST
        self.gave_up += self._held.members if is_digest else 1
        what = counted(self._held.members, "notice") if is_digest else f"incident {pending.incident_id}"
        self._log.error("%s: gave up %s of %s: %s", self.name, pending.notice.type, what, why)
        self._record(pending, "gave_up", why)
        return True

    def _is_old(self, tries: _Tries) -> bool:
        tried = self._monotonic() - tries.seen
        return tried >= self._give_up_after or (
            tried >= TRIED_AT_LEAST_SECONDS and tried + tries.waited >= self._give_up_after
        )

    def _waited(self, at: datetime) -> float:
        return max(0.0, (self._now() - at).total_seconds()) if at < self._started else 0.0

    # --- books ------------------------------------------------------------------------------------------------------

    def _keep_books(self, waiting: list[Pending], later: set[Key]) -> list[Pending]:
        """Note what is new and forget what is gone; write the receipts that could not be written before."""
        now = self._monotonic()
        # A list that was cut does not say what is gone.
        is_cut = len(waiting) >= OWED_AT_MOST
        kept_in_mind = dict(self._tries) if is_cut else {key: self._tries[key] for key in later}
        if DIGEST in self._tries:
            kept_in_mind[DIGEST] = self._tries[DIGEST]
        for pending in waiting:
            key = pending.key
            kept_in_mind[key] = self._tries.get(key) or _Tries(now, self._waited(pending.notice.at))
        self._tries = kept_in_mind
        self._unwritten = {key: kept for key, kept in self._unwritten.items() if key in self._tries}
        settled = set(self._unwritten)
        for kept in list(self._unwritten.values()):
            self._write(*kept)
        if not self._tries and not self._held:
            self._end_trouble()
        return [pending for pending in waiting if pending.key not in settled]

    def _record(self, pending: Pending, outcome: Outcome, detail: str) -> None:
        tries = self._tries.pop(pending.key)
        at = self._now().astimezone(timezone.utc)

        def receipt(of: Pending, outcome: Outcome, detail: str) -> Receipt:
            return Receipt(
                notice=of.notice.id,
                channel=self.name,
                outcome=outcome,
                at=at,
                attempts=tries.attempts,
                detail=detail[:LONGEST_DETAIL],
            )

        if pending.key != DIGEST:
            self._write(pending, receipt(pending, outcome, detail))
            return
        if outcome == "delivered":
            outcome, self._held.sent_at = "digested", self._monotonic()
            self.digested += self._held.members
        self._held.end(lambda member: receipt(member, outcome, f"{pending.notice.id}: {detail}"))

    def _write(self, pending: Pending, receipt: Receipt) -> None:
        """Write a receipt, or keep it in memory, so that its notice is not sent again every second."""
        key = pending.key
        try:
            self._outbox.write_receipt(pending, receipt)
        except Exception as error:  # noqa: BLE001 - the notice was taken and must not be sent again
            if key not in self._unwritten:
                why = error if isinstance(error, OSError | StoreError) else self._log_surprise(error)
                self._log.error("%s: the receipt of %s cannot be written: %s", self.name, key, why)
            self._unwritten[key] = (pending, receipt)
        else:
            self._unwritten.pop(key, None)

    def _show(self) -> None:
        """Set the status and what waits, each in one assignment."""
        waited = [self._monotonic() - (tries.seen - tries.waited) for tries in self._tries.values()]
        waited += [self._monotonic() - self._held.oldest] if len(self._held) else []
        oldest = (self._now() - timedelta(seconds=max(waited))).replace(microsecond=0) if waited else None
        self.waiting = Waiting(len(self._tries) + len(self._held), oldest, self._trouble)
        if self._trouble is None or self._trouble_since is None:
            self.status = None
            return
        # By the clock of now: it may have been corrected since.
        lasted = timedelta(seconds=self._monotonic() - self._trouble_since)
        since = (self._now() - lasted).astimezone().strftime("%H:%M")
        self.status = f"{self.name}: {len(self._tries) + len(self._held)} waiting, {self._trouble} since {since}"


def _is_claimed(pending: Pending) -> bool:
    return pending.notice.data is None or pending.notice.data.provenance == "claimed"


def surprise_text(surprise: BaseException) -> str:
    """Name an unexpected exception and where it was raised, without its text."""
    innermost = traceback.extract_tb(surprise.__traceback__, -1)
    place = f" in {Path(innermost[0].filename).name}:{innermost[0].lineno}" if innermost else ""
    return f"unexpected {type(surprise).__name__}{place}"


class _Absent:
    """The notifier of a channel that is no longer configured."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_state = True

    def notify(self, notice: Notice) -> Delivery:
        """Deliver nothing."""
        del notice
        return Rejected(why=ABSENT)


def absent(name: str, outbox: Outbox) -> Courier:
    """Make the courier that gives up, without an attempt, what a channel no longer configured owes."""
    return Courier(_Absent(name), outbox, give_up_after=float("-inf"), trouble=ABSENT)
