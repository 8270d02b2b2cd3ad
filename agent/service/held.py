"""The notices that one message channel holds back, and their hourly digest; core.dispatch decides what is held.

Held notices stay pending on disk, where a restart finds them; only their names are kept in memory. When the oldest has
waited an hour they become the members of one digest, the same however often it is tried: their receipts get room, the
courier sends the digest, each member gets its receipt, the first one's last. A crash in between leaves that room, which
marks them as members again, without any others: at most that one digest is repeated, with the same id.
"""

from collections.abc import Callable, Iterator
from datetime import datetime

from agent.core.budget import HOUR_SECONDS, make_digest
from agent.core.dispatch import Key, Said, Story
from agent.core.model import DigestNotice
from agent.service.stories import AT_ONCE
from agent.store import Outbox


class Held:
    """The held notices of one channel; seconds are those of the monotonic clock."""

    digest: DigestNotice | None = None

    def __init__(self, channel: str, outbox: Outbox) -> None:
        self.sent_at = float("-inf")
        self._channel, self._outbox = channel, outbox
        self._next: dict[Key, Said] = {}
        self._oldest = self._members_since = float("inf")
        self._host: str | None = None
        self._members: dict[Key, Said] = {}
        self._again: set[str] = set()
        self._without_room: list[Key] = []
        self._write: Callable[[Key, Said], None] | None = None

    def __len__(self) -> int:
        return len(self._next) + len(self._members)

    def __iter__(self) -> Iterator[Key]:
        yield from self._next
        yield from self._members

    def __contains__(self, key: object) -> bool:
        return key in self._next or key in self._members

    @property
    def members(self) -> int:
        """How many notices are in the digest under way."""
        return len(self._members)

    @property
    def is_settling(self) -> bool:
        """Whether receipts of a digest that was delivered or given up are still to be written."""
        return self._write is not None

    @property
    def oldest(self) -> float:
        """The second at which the oldest fell due."""
        return self._members_since if self._members else self._oldest

    def in_digest(self, incident_id: str) -> set[str]:
        """Return the files of an incident that are in the digest under way."""
        return {file for owner, file in self._members if owner == incident_id}

    def hold(self, story: Story, since: float) -> None:
        """Hold back what is owed of an incident and is not held yet; the oldest fell due at the second ``since``."""
        self._host = story.host
        if story.in_digest and not self._members:
            self._again.add(story.incident_id)
        for said in story.owed:
            if (key := (story.incident_id, said.file)) not in self:
                self._next[key] = said
                self._oldest = min(self._oldest, since)

    def release(self, incident_id: str) -> None:
        """Let go of what was held of an incident: it was sent after all, or is gone."""
        self._next = {key: said for key, said in self._next.items() if key[0] != incident_id}
        if not self._next:
            self._oldest = float("inf")

    def work(self, second: float, now: datetime) -> bool:
        """Do the next bit of work; return whether there is more. OSError: no room for the receipts, so no digest."""
        if self._write:
            return self._write_receipts(self._write)
        if not self._members and self._next and second >= max(self._oldest, self.sent_at) + HOUR_SECONDS:
            chosen = {key for key in self._next if key[0] in self._again} or set(self._next)
            self._members = {key: self._next.pop(key) for key in sorted(chosen, reverse=True)}
            self._members_since, self._oldest = self._oldest, self._oldest if self._next else float("inf")
            self._without_room, self._again = list(self._members), set()
        if self._without_room:
            return self._make_room()
        if self._members and self.digest is None:
            held = {key: said.at for key, said in self._members.items()}
            self.digest = make_digest(held, self._channel, self._host, now)
            return True
        return False

    def end(self, write: Callable[[Key, Said], None]) -> None:
        """Note that the digest was delivered or given up: the receipt of each of its members is to be written."""
        self.digest = None
        self._write = write

    def _make_room(self) -> bool:
        for _ in range(min(AT_ONCE, len(self._without_room))):
            key = self._without_room[-1]
            try:
                self._outbox.reserve_receipt(*key, self._channel, in_digest=True)
            except FileNotFoundError:
                del self._members[key]  # Somebody removed the incident.
            self._without_room.pop()
        return True

    def _write_receipts(self, write: Callable[[Key, Said], None]) -> bool:
        for key, said in list(self._members.items())[:AT_ONCE]:
            del self._members[key]
            write(key, said)
        if not self._members:
            self._write = None
        return True
