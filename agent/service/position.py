"""Where the source was read to, in one object: what is covered, what of that is on disk, and what may be saved.

Every write gets the next generation, whether it is an incident's or cursor.json: at a start the highest one is the
truth (agent.core.cursor.Resume).
"""

from datetime import datetime, timedelta

from msgspec.structs import replace

from agent.core.cursor import Cursor, Resume, merge
from agent.core.model import Incident
from agent.store import Store

SAVE_SPACING = timedelta(seconds=5)
# A suppressed line that nobody decided keeps the position back for no longer than this.
SAVE_PATIENCE = timedelta(seconds=60)


class Position:
    """The position, which an incident commits with itself or cursor.json holds.

    The position is behind the lines of every host, and each host has its own incident. So a commit takes those that
    wait along with it, in the same rename, until each has been written itself.
    """

    def __init__(self, store: Store, resume: Resume, now: datetime) -> None:
        self.resume = resume
        self._waiting: dict[str, Incident] = {}
        self.store = store
        self._saved_at = now
        self._is_saved = True  # As far as there is a cursor.json.

    @property
    def dirty(self) -> bool:
        """Whether events are covered that no incident's own file has yet; until their commit nothing may be saved."""
        return bool(self._waiting)

    def is_waiting(self, incident: Incident) -> bool:
        """Return whether an incident has events that its own file has not."""
        return incident.id in self._waiting

    def cover(self, cursor: Cursor | None, incident: Incident) -> None:
        """Note that an event up to here was counted in an incident; the next commit makes that true on disk."""
        self._advance(cursor)
        self._waiting[incident.id] = incident

    def commit(self, incident: Incident) -> Incident:
        """Write an incident and the position behind the last event of any in one rename."""
        others = tuple(other for identity, other in self._waiting.items() if identity != incident.id)
        incident = replace(incident, resume=self.resume)
        self.store.commit(replace(incident, beside=others))
        self._waiting.pop(incident.id, None)
        return incident

    def close(self) -> None:
        """Give the commit that closes an incident a generation of its own."""
        self._advance(None)

    def is_due(self, now: datetime) -> bool:
        """Return whether it is time to save."""
        return abs(now - self._saved_at) >= SAVE_SPACING

    def may_be_saved(self, now: datetime, *, is_undecided: bool) -> bool:
        """Return whether everything before the position is stored, and decided or waited for long enough."""
        return not self.dirty and not (is_undecided and abs(now - self._saved_at) < SAVE_PATIENCE)

    def save(self, cursor: Cursor, now: datetime) -> bool:
        """Write cursor.json, if that is news; OSError when it cannot be written, and the next call tries again."""
        self._saved_at = now
        cursor = merge(self.resume.cursor, cursor)
        if self._is_saved and cursor == self.resume.cursor and self.store.has_cursor():
            return False
        # Its number is used up even where the write fails: after an fsync that failed the file may be there, and an
        # incident of the same number would be held against it.
        self._advance(None)
        self._is_saved = False
        self.store.save_cursor(replace(self.resume, cursor=cursor))
        self.resume = replace(self.resume, cursor=cursor)
        self._is_saved = True
        return True

    def _advance(self, cursor: Cursor | None) -> None:
        merged = merge(self.resume.cursor, cursor) if cursor else self.resume.cursor
        self.resume = Resume(generation=self.resume.generation + 1, cursor=merged)
