"""What there is to send on one channel, by the state directory, and the receipts that go there.

Each incident is read again only when it was committed again, and never again once nothing more is to be sent of it.
"""

from collections.abc import Callable
from datetime import datetime, timedelta, timezone

from agent.core.budget import HOUR_SECONDS
from agent.core.delivery import Outcome, Receipt
from agent.core.dispatch import Key, Said, Story
from agent.core.model import Provenance
from agent.store import UNSEEN, Commit, Outbox

# Incidents read, and receipts written, in one step: each is flushed, and a step must be short.
AT_ONCE = 64
LONGEST_DETAIL = 500  # characters, so that a receipt fits into the room that is reserved


class Stories(dict[str, Story]):
    """The stories of a channel by incident; ``unwritten`` are receipts that there was no room for."""

    def __init__(self, channel: str, outbox: Outbox) -> None:
        self.unwritten: dict[Key, Receipt] = {}
        self._channel, self._outbox = channel, outbox
        # Of which commit each incident was read; None once it is done with.
        self._known: dict[str, Commit | None] = {}

    def look(self, forget: Callable[[str], None]) -> bool:
        """Read what is new, a few incidents at a time, and return whether there are more; ``forget`` what is gone."""
        there = self._outbox.names()
        for incident_id in self._known.keys() - there:
            del self._known[incident_id]
            self.pop(incident_id, None)
            for key in [key for key in self.unwritten if key[0] == incident_id]:
                del self.unwritten[key]
            forget(incident_id)
        for number, (incident_id, commit) in enumerate(self._outbox.changed(there, self._known)):
            if number == AT_ONCE:
                return True
            self._known[incident_id] = commit
            story = self._outbox.story(self._channel, incident_id)
            if story is None or not story.notices:
                self.pop(incident_id, None)
                continue
            self[incident_id] = story
            for key, receipt in self.unwritten.items():
                self._enter(key, receipt)
        return False

    def is_removed(self, incident_id: str) -> bool:
        """Return whether an incident was removed since the look, by retention or by hand; it is then forgotten."""
        if any(self._outbox.changed([incident_id], {})):
            return False
        self.pop(incident_id, None)
        self._known[incident_id] = UNSEEN
        return True

    def finish(self, incident_id: str) -> None:
        """Note that nothing of an incident will ever be sent again."""
        del self[incident_id]
        self._known[incident_id] = None

    def reserve(self, incident_id: str, file: str) -> None:
        """Reserve room for the receipt of a notice, unless there is one or the other; OSError when there is none."""
        story = self[incident_id]
        said = next(each for each in story.notices if each.file == file)
        if said.outcome is None and not said.has_room:
            self._outbox.reserve_receipt(incident_id, file, self._channel)
            notices = (each._replace(has_room=each is said or each.has_room) for each in story.notices)
            self[incident_id] = story._replace(notices=tuple(notices))

    def receipt(self, said: Said, outcome: Outcome, at: datetime, attempts: int, detail: str) -> Receipt:
        """Make a receipt that fits into its room."""
        return Receipt(
            notice=said.id,
            channel=self._channel,
            outcome=outcome,
            at=at.astimezone(timezone.utc),
            attempts=attempts,
            detail=detail[:LONGEST_DETAIL],
        )

    def write(self, key: Key, receipt: Receipt) -> Exception | None:
        """Write a receipt, or keep it in memory, so that its notice is not sent again; return a reason that is new."""
        failure = None
        try:
            self._outbox.write_receipt(*key, receipt)
        except Exception as error:  # noqa: BLE001 - the notice was taken and must not be sent again
            if self.is_removed(key[0]):
                self.unwritten.pop(key, None)
                return None
            failure = None if key in self.unwritten else error
            self.unwritten[key] = receipt
        else:
            self.unwritten.pop(key, None)
        self._enter(key, receipt)
        return failure

    def sent_within_the_hour(self, now: datetime) -> list[tuple[float, Outcome, Provenance]]:
        """List how many seconds ago which receipts were written, and what their notices rest on, the oldest first.

        The end of an incident that was told costs nothing, and is left out.
        """
        settled = self._outbox.settled_since(self._channel, now - timedelta(seconds=HOUR_SECONDS))
        return sorted(
            (
                (abs((now - receipt.at).total_seconds()), receipt.outcome, proof)
                for receipt, proof, is_end_of_told in settled
                if not is_end_of_told
            ),
            reverse=True,
        )

    def _enter(self, key: Key, receipt: Receipt) -> None:
        if story := self.get(key[0]):
            self[key[0]] = story.with_outcome(key[1], receipt.outcome, receipt.at)
