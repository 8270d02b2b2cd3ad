"""The incidents before the open one, in memory by their kind: read from disk a little at a time, once each.

What an incident needs to be told, diagnosed and stored never waits for this. A look takes up what came and forgets
what retention removed, so that every number can be found again in `incidents list`.
"""

import sys
import time
from collections.abc import Callable
from contextlib import suppress

from agent.core.model import Incident, Recurrence
from agent.core.recurrence import Past, past_of
from agent.store import Store, StoreError

# Of each turn of the main loop.
READ_SECONDS = 0.05


class Earlier:
    """The kinds of the incidents in the store."""

    def __init__(self, store: Store, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._monotonic = monotonic
        self._known: dict[str, Past] = {}
        self._unread: list[str] = []
        self._is_due = False

    @property
    def is_reading(self) -> bool:
        """Whether there is more to read."""
        return self._is_due or bool(self._unread)

    def look(self) -> None:
        """Have the directories listed again."""
        self._is_due = True

    def note(self, incident: Incident) -> None:
        """Remember an incident as it was just committed."""
        self._known[incident.id] = _small(past_of(incident))

    def read_on(self) -> bool:
        """Read for a moment; return whether that was the last of it."""
        if self._is_due:
            self._is_due = False
            names = set(self._store.names())
            self._known = {name: past for name, past in self._known.items() if name in names}
            self._unread = [*(names - self._known.keys())]
        until = self._monotonic() + READ_SECONDS
        while self._unread:
            with suppress(StoreError):  # Logged at every start.
                past = self._store.past(self._unread.pop())
                self._known[past.id] = _small(past)
            if self._monotonic() >= until:
                break
        return not self._unread

    def recurrence(self, incident: Incident) -> Recurrence | None:
        """Return how many of its kind there are, this one included; None while not all are read.

        What is on record was before it, whatever a clock that was set since says.
        """
        if self.is_reading:
            return None
        own = past_of(incident)
        kind = own.signature, own.host
        before = [each for each in self._known.values() if (each.signature, each.host) == kind and each.id != own.id]
        return Recurrence(
            count=len(before) + 1,
            since=min(each.opened_at for each in (*before, own)),
            previous_at=max((each.last_seen_at for each in before), default=None),
        )


def _small(past: Past) -> Past:
    """Share the names that thousands of incidents have in common."""
    return past._replace(host=sys.intern(past.host), signature=sys.intern(past.signature))
