"""The incidents on record, in memory by their kind: read when the service starts, and noted as they are committed."""

import sys
from contextlib import suppress

from agent.core.hosts import is_same
from agent.core.model import Incident, Recurrence
from agent.core.recurrence import Past, past_of
from agent.service.troubles import Troubles
from agent.store import Store, StoreError

EARLIER = "earlier incidents cannot be counted"
# In a log of several hosts the line before a restart may be of any of them.
SEEN_LAST = 8


class Earlier:
    """The kinds of the incidents in the store, in the order of their commits, whatever a clock that is set says."""

    def __init__(self, store: Store, troubles: Troubles) -> None:
        self._store = store
        found = list[Past]()
        for name in store.one_by_one(sorted(store.names())):
            with troubles.survived(EARLIER, Exception, is_part=True), suppress(StoreError):  # Logged at every start.
                found.append(_small(store.past(name)))
        self._known = {past.id: past for past in sorted(found, key=lambda each: each.generation)}

    def note(self, incident: Incident) -> None:
        """Remember an incident as it was just committed."""
        self._known.pop(incident.id, None)
        self._known[incident.id] = _small(past_of(incident))

    def forget_removed(self) -> None:
        """Forget what is on record no longer, so that every number can be found again in `incidents list`."""
        names = set(self._store.names())
        self._known = {name: past for name, past in self._known.items() if name in names}

    def newest(self, host: str | None) -> Incident | None:
        """Read the incident of another host, or this host's own for None, that was committed last, if readable."""
        ids = [each.id for each in self._known.values() if is_same(each.host or None, host)]
        with suppress(StoreError):  # Removed meanwhile, or damaged, which is logged at every start.
            return self._store.load(ids[-1]) if ids else None
        return None

    def seen_last(self) -> list[Incident]:
        """Read the few incidents that were committed last and can be read, the newest first."""
        read = []
        for name in [*reversed(self._known)][:SEEN_LAST]:
            with suppress(StoreError):
                read.append(self._store.load(name))
        return read

    def recurrence(self, incident: Incident) -> Recurrence:
        """Return how many of its kind there are, this one included.

        What is on record was before it, whatever a clock that was set since says.
        """
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
