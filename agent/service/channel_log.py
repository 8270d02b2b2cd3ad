"""What a channel says of itself: in the log once for each reason, in the status, and in <state>/channels/."""

import contextlib
import logging
import traceback
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from agent.core.delivery import Trouble
from agent.core.dispatch import Now, Sender
from agent.core.format import duration_text, printable
from agent.core.status import Waiting
from agent.store import Outbox

LONGEST_WHY = 500
SURPRISE_FRAMES = 20  # the innermost ones: of a recursion without end there are a thousand


class ChannelLog:
    """The words of one channel; the main thread reads ``status`` and ``waiting`` without a lock.

    ``status`` says what is wrong ("ops: 3 waiting, HTTP 503 since 14:02"), or is None.
    """

    def __init__(self, channel: str, outbox: Outbox, log: logging.Logger) -> None:
        self.status: str | None = None
        self.waiting = Waiting()
        self._channel, self._outbox, self._log = channel, outbox, log
        self._said: set[str] = set()
        # What a process before this one left there is replaced, whatever it says.
        self._shown: str | None = ""

    def failed(self, why: str) -> None:
        """Log why something was not delivered, once."""
        if why not in self._said:
            self._said.add(why)
            self._log.warning("%s: not delivered, will be tried again: %s", self._channel, why)

    def surprised(self, surprise: BaseException) -> str:
        """Name an unexpected exception, and log its frames once, without its text: requests quotes the address."""
        frames = traceback.format_tb(surprise.__traceback__, -SURPRISE_FRAMES)
        why = surprise_text(surprise)
        if why not in self._said:
            self._said.add(why)
            text = "%s: %s; this channel pauses, the service continues\n%s"
            self._log.error(text, self._channel, why, "".join(frames))
        return why

    def recovered(self, seconds: float) -> None:
        """Log that nothing that failed is left."""
        self._log.info("%s: delivered again after %s", self._channel, duration_text(seconds))

    def show(self, owed: int, due_since: datetime | None, senders: Sequence[Sender], now: Now) -> None:
        """Set the status and what waits, each in one assignment; write why it waits to disk when that changes."""
        failing = [(sender.since, sender.why) for sender in senders if sender.since is not None and sender.why]
        why = printable("; ".join(sorted({why for _, why in failing})), LONGEST_WHY) or None
        self.waiting = Waiting(owed, due_since, why)
        # By the clock of now: it may have been corrected since.
        since = now.time - timedelta(seconds=now.second - min((second for second, _ in failing), default=now.second))
        self.status = f"{self._channel}: {owed} waiting, {why} since {since.astimezone():%H:%M}" if why else None
        if why is None:
            self._said.clear()
        if why != self._shown:
            self._shown = why
            with contextlib.suppress(OSError):  # It is in the log and the status, too.
                trouble = Trouble(channel=self._channel, why=why, since=since, at=now.time) if why else None
                self._outbox.write_trouble(self._channel, trouble)


def surprise_text(surprise: BaseException) -> str:
    """Name an unexpected exception and where it was raised, without its text."""
    innermost = traceback.extract_tb(surprise.__traceback__, -1)
    place = f" in {Path(innermost[0].filename).name}:{innermost[0].lineno}" if innermost else ""
    return f"unexpected {type(surprise).__name__}{place}"
