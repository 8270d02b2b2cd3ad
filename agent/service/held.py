"""The notices that one message channel holds back, and their hourly digest; core.budget decides what is held.

Held notices stay pending on disk, where a restart finds them; only their names are kept in memory. When the oldest has
waited an hour they become the members of one digest, the same however often it is tried: their receipts get room, the
courier sends the digest, each member gets its receipt. A crash in between leaves that room, which marks them as members
again: at most that one digest is repeated.
"""

import contextlib
from collections.abc import Callable, Iterator
from datetime import datetime

from msgspec.structs import replace

from agent.core.budget import HOUR_SECONDS, make_digest
from agent.core.delivery import Receipt
from agent.core.model import DigestNotice
from agent.store import Key, Outbox, Pending

# Receipts reserved or written in one step: each is flushed, and a step must be short.
AT_ONCE = 64


class Held:
    """The held notices of one channel; seconds are those of the monotonic clock."""

    digest: DigestNotice | None = None

    def __init__(self, channel: str, outbox: Outbox) -> None:
        self.sent_at = float("-inf")
        self._channel, self._outbox = channel, outbox
        self._next: dict[Key, Pending] = {}
        self._oldest = self._members_since = float("inf")
        self._host: str | None = None
        self._members: dict[Key, Pending] = {}
        self._without_room: list[Key] = []
        self._receipt: Callable[[Pending], Receipt] | None = None

    def __len__(self) -> int:
        return len(self._next) + len(self._members)

    def __iter__(self) -> Iterator[Key]:
        yield from self._next
        yield from self._members

    def incidents(self) -> set[str]:
        """Return the incidents of which something is held."""
        return {incident_id for incident_id, _ in self}

    @property
    def members(self) -> int:
        """How many notices are in the digest under way."""
        return len(self._members)

    @property
    def oldest(self) -> float:
        """The second at which the oldest fell due."""
        return self._members_since if self._members else self._oldest

    @property
    def is_first(self) -> bool:
        """Return whether the next one is the first of its digest."""
        return not self._next

    def hold(self, pending: Pending, since: float) -> None:
        """Hold back a notice that fell due at the second ``since``."""
        self._host = pending.notice.data.host if pending.notice.data else None
        self._next[pending.key] = pending._replace(notice=replace(pending.notice, data=None))
        self._oldest = min(self._oldest, since)

    def work(self, second: float, now: datetime) -> bool:
        """Do the next bit of work; return whether there is more. OSError: no room for the receipts, so no digest."""
        if self._receipt:
            return self._write_receipts(self._receipt)
        if not self._members and self._next and second >= max(self._oldest, self.sent_at) + HOUR_SECONDS:
            self._members, self._next = self._next, {}
            self._members_since, self._oldest = self._oldest, float("inf")
            self._without_room = list(self._members)
        if self._without_room:
            return self._make_room()
        if self._members and self.digest is None:
            held = [(pending.incident_id, pending.notice) for pending in self._members.values()]
            self.digest = make_digest(held, self._channel, self._host, now)
        return False

    def end(self, receipt: Callable[[Pending], Receipt]) -> None:
        """Note that the digest was delivered or given up: each of its members gets this receipt."""
        self.digest = None
        self._receipt = receipt

    def _make_room(self) -> bool:
        for _ in range(min(AT_ONCE, len(self._without_room))):
            key = self._without_room[-1]
            try:
                self._outbox.reserve_receipt(self._members[key], self._channel, in_digest=True)
            except FileNotFoundError:
                del self._members[key]  # Somebody removed the incident.
            self._without_room.pop()
        return True

    def _write_receipts(self, receipt: Callable[[Pending], Receipt]) -> bool:
        for key, pending in list(self._members.items())[:AT_ONCE]:
            with contextlib.suppress(FileNotFoundError):  # As above.
                self._outbox.write_receipt(pending, receipt(pending))
            del self._members[key]
        if not self._members:
            self._receipt = None
        return True
