"""Pending notices and their receipts: all a courier needs of the state directory.

The disk is the queue: a notice that its incident names is pending for a channel until there is a receipt.
"""

import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from typing import NamedTuple

from agent.core import model
from agent.core.delivery import Outcome, Receipt, Trouble
from agent.core.model import Notice
from agent.store.disk import (
    StoreError,
    encode_json,
    fill,
    make_directory,
    read_json,
    sync_directory,
    write_aside,
    write_json,
)
from agent.store.incidents import INCIDENT_FILE, Store, notice_stems

OWED_AT_MOST = 64
# A block of most file systems; a receipt is smaller, since the courier cuts its detail.
RECEIPT_BYTES = 4096
DIGEST_ROOM = "digest"

Key = tuple[str, str]


class Pending(NamedTuple):
    """A notice that a channel has not settled; ``file`` is its name without the ending.

    ``earlier``: the outcomes, on this channel, of the incident's earlier notices. ``in_digest``: a digest with it was
    about to be sent when the previous process ended.
    """

    incident_id: str
    file: str
    notice: Notice
    earlier: tuple[Outcome, ...] = ()
    in_digest: bool = False

    @property
    def key(self) -> Key:
        """The incident's id and the notice's file."""
        return self.incident_id, self.file


class Outbox:
    """The notices and receipts in the incident directories; each channel's receipts have one writer, its courier."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._channels = store.directory / "channels"

    def pending(self, channel: str, later: Collection[Key] = ()) -> list[Pending]:
        """List the committed notices without a receipt of this channel, oldest first.

        Names alone settle an incident that was sent: only the others are opened, and of a long backlog only the start,
        since a channel sends one by one. Those in ``later`` are skipped: neither opened nor counted.
        """
        found: list[Pending] = []
        for incident_id in sorted(self._store.names()):
            if len(found) >= OWED_AT_MOST:
                break
            names = self._store.files(incident_id)
            open_stems = [
                s for s in notice_stems(names) if f"{s}.{channel}.json" not in names and (incident_id, s) not in later
            ]
            if INCIDENT_FILE not in names or not open_stems:
                continue
            with suppress(StoreError):  # Logged at every start; one bad file must not stop the others.
                committed = self._store.load(incident_id).notices
                for stem in (s for s in open_stems if f"{s}.json" in committed):
                    with suppress(StoreError):
                        notice = read_json(self._store.path(incident_id) / f"{stem}.json", model.NOTICE)
                        if channel in notice.channels:
                            earlier = self._outcomes(incident_id, channel, [s for s in notice_stems(names) if s < stem])
                            in_digest = f".{stem}.{channel}.{DIGEST_ROOM}.new" in names
                            found.append(Pending(incident_id, stem, notice, earlier, in_digest))
        return sorted(found, key=lambda p: p.notice.at)

    def receipts_since(self, channel: str, since: datetime) -> Iterator[tuple[Notice, Receipt]]:
        """Read a channel's receipts since then, each with its notice; those that cannot be read are skipped."""
        for incident_id in self._store.names():
            names = self._store.files(incident_id)
            for stem in (s for s in notice_stems(names) if f"{s}.{channel}.json" in names):
                with suppress(StoreError):
                    receipt = read_json(self._store.receipt_path(incident_id, stem, channel), model.RECEIPT)
                    if receipt.at >= since:
                        yield read_json(self._store.path(incident_id) / f"{stem}.json", model.NOTICE), receipt

    def owing(self) -> set[str]:
        """Return the channels, configured or not, that lack a receipt for one of their notices."""
        found: set[str] = set()
        for incident_id in self._store.one_by_one(self._store.names()):
            files = self._store.files(incident_id)
            for stem in notice_stems(files) if INCIDENT_FILE in files else ():
                try:
                    channels = read_json(self._store.path(incident_id) / f"{stem}.json", model.ADDRESSED).channels
                except StoreError:
                    continue  # Set aside or logged at every start.
                found.update(channel for channel in channels if f"{stem}.{channel}.json" not in files)
        return found

    def troubles(self) -> dict[str, Trouble]:
        """Read why channels fail, by their names."""
        found = {}
        with suppress(OSError):
            for path in self._channels.glob("*.json"):
                with suppress(StoreError):
                    found[path.stem] = read_json(path, model.TROUBLE)
        return found

    def reserve_receipt(self, pending: Pending, channel: str, *, in_digest: bool = False) -> None:
        """Reserve room for a receipt before its notice is sent."""
        path = self._store.receipt_path(pending.incident_id, pending.file, channel)
        write_aside(path.with_suffix(f".{DIGEST_ROOM}") if in_digest else path, b" " * RECEIPT_BYTES)

    def write_receipt(self, pending: Pending, receipt: Receipt) -> None:
        """Write the receipt of a notice."""
        path = self._store.receipt_path(pending.incident_id, pending.file, receipt.channel)
        in_digest = path.with_suffix(f".{DIGEST_ROOM}")
        room = in_digest if in_digest.with_name(f".{in_digest.name}.new").exists() else path
        fill(path, encode_json(receipt), room)
        sync_directory(self._store.path(pending.incident_id))

    def write_trouble(self, channel: str, trouble: Trouble | None) -> None:
        """Write why a channel fails, or remove that when it does not any more."""
        path = self._channels / f"{channel}.json"
        if trouble is None:
            path.unlink(missing_ok=True)
            return
        make_directory(path.parent)
        write_json(path, trouble)

    def _outcomes(self, incident_id: str, channel: str, stems: Iterable[str]) -> tuple[Outcome, ...]:
        """Read the outcomes of notices; one without a receipt has none yet, one with a broken receipt is done."""
        found: list[Outcome] = []
        for stem in stems:
            path = self._store.receipt_path(incident_id, stem, channel)
            try:
                found.append(read_json(path, model.RECEIPT).outcome)
            except StoreError:
                found += ["delivered"] if os.path.lexists(path) else []
        return tuple(found)
