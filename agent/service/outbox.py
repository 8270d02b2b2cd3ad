"""Where notices wait and receipts go, as a courier sees it."""

from collections.abc import Collection, Iterator
from datetime import datetime
from typing import Protocol

from agent.core.delivery import Receipt
from agent.core.model import Notice
from agent.store import Pending

Key = tuple[str, str]


class Outbox(Protocol):
    """The disk is the queue: agent.store.Store. A key is an incident's id and a notice's file."""

    def pending(self, channel: str, later: Collection[Key]) -> list[Pending]:
        """List what is committed and has no receipt of this channel, oldest first, but for those in ``later``."""
        ...

    def receipts_since(self, channel: str, since: datetime) -> Iterator[tuple[Notice, Receipt]]:
        """Read what became of this channel's notices since then."""
        ...

    def reserve_receipt(self, pending: Pending, channel: str, *, in_digest: bool = False) -> None:
        """Make sure of the room for a receipt; that of a digest's member is found again as such after a crash."""
        ...

    def write_receipt(self, pending: Pending, receipt: Receipt) -> None:
        """Put a receipt on disk."""
        ...


def key_of(pending: Pending) -> Key:
    """Name a notice."""
    return pending.incident_id, pending.file
