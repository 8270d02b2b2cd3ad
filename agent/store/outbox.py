"""Pending notices and their receipts: all a courier needs of the state directory.

The disk is the queue: a notice that its incident names is pending for a channel until there is a receipt. Why a channel
fails is beside it: <state>/channels/<name>.json, there as long as something waits for it and fails.
"""

import os
import stat
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from agent.core import model
from agent.core.budget import proof_of
from agent.core.delivery import Receipt, Trouble
from agent.core.dispatch import Said, Story
from agent.core.model import Brief, Incident, Notice, Provenance, Silence
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
from agent.store.silence import read_silence

# A block of most file systems; a receipt is smaller, since the courier cuts its detail.
RECEIPT_BYTES = 4096
DIGEST_ROOM = "digest"

# Which commit of an incident was read: each is a new file.
Commit = tuple[int, int]
UNSEEN: Commit = (0, 0)


class Settled(NamedTuple):
    """A receipt of a channel, what its notice rests on, and whether the incident's end was told of before."""

    receipt: Receipt
    proof: Provenance
    is_end_of_told: bool


class Outbox:
    """The notices and receipts in the incident directories; each channel's receipts have one writer, its courier."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._channels = store.directory / "channels"

    # --- reading ----------------------------------------------------------------------------------------------------

    def names(self) -> set[str]:
        """Return the names beside which an incident's would be: a notice waits, and there may be thousands to check."""
        return self._store.unchecked_names()

    def changed(self, names: Collection[str], known: Mapping[str, Commit | None]) -> Iterator[tuple[str, Commit]]:
        """List those with another commit than the known one, oldest first; None is that of one done with."""
        for name in sorted(name for name in names if known.get(name, UNSEEN) is not None):
            if name not in known and not self._store.is_incident(name):
                continue
            with suppress(OSError):  # Not committed yet, or removed since.
                there = os.stat(self._store.path(name) / INCIDENT_FILE)  # noqa: PTH116 - half the time of Path's
                if (commit := (there.st_ino, there.st_mtime_ns)) != known.get(name):
                    yield name, commit

    def story(self, channel: str, incident_id: str) -> Story | None:
        """Read an incident as a channel stands to it; None if it cannot be read, which is logged at every start."""
        try:
            incident = self._store.load(incident_id)
        except StoreError:
            return None
        files = self._store.files(incident_id)
        found = [self._said(channel, incident_id, stem, files) for stem in notice_stems(files)]
        said = tuple(each for each in found if each and f"{each[0].file}.json" in incident.notices)
        return Story(
            incident_id,
            tuple(each for each, _ in said),
            proof_of(incident),
            incident.read_on or incident.host,
            cause=said[0][1].cause if said else incident.cause,
            is_over=incident.closed_at is not None,
            is_past=incident.is_past,
            in_digest=any(f".{each.file}.{channel}.{DIGEST_ROOM}.new" in files for each, _ in said),
        )

    def notice(self, incident_id: str, file: str) -> Notice:
        """Read a notice; StoreError says why that fails."""
        return read_json(self._store.path(incident_id) / f"{file}.json", model.NOTICE)

    def incident(self, incident_id: str) -> Incident:
        """Read an incident; StoreError says why that fails."""
        return self._store.load(incident_id)

    def silence(self) -> Silence | None:
        """Read the silence; one that cannot be read holds back nothing."""
        with suppress(StoreError):
            return read_silence(self._store.directory)
        return None

    def settled_since(self, channel: str, since: datetime) -> Iterator[Settled]:
        """Read a channel's receipts since then; those that cannot be read are skipped."""
        for incident_id in self._store.names():
            files, is_told = self._store.files(incident_id), False
            for stem in (each for each in notice_stems(files) if f"{each}.{channel}.json" in files):
                with suppress(StoreError):
                    receipt = read_json(self._store.receipt_path(incident_id, stem, channel), model.RECEIPT)
                    if receipt.at >= since:
                        notice = self.notice(incident_id, stem)
                        proof = proof_of(notice.data) if notice.data else "claimed"
                        yield Settled(receipt, proof, is_told and notice.type.endswith("resolved"))
                    is_told = is_told or receipt.outcome == "delivered"

    def owing(self) -> set[str]:
        """Return the channels, configured or not, that lack a receipt for one of their notices."""
        found: set[str] = set()
        for incident_id in self._store.one_by_one(self._store.names()):
            files = self._store.files(incident_id)
            for stem in notice_stems(files) if INCIDENT_FILE in files else ():
                with suppress(StoreError):  # Set aside or logged at every start.
                    channels = read_json(self._store.path(incident_id) / f"{stem}.json", model.ADDRESSED).channels
                    owing = {channel for channel in channels if f"{stem}.{channel}.json" not in files} - found
                    if owing and f"{stem}.json" in self._store.load(incident_id).notices:
                        found |= owing
        return found

    def troubles(self) -> dict[str, Trouble]:
        """Read why channels fail, by their names."""
        found = {}
        with suppress(OSError):
            for path in self._channels.glob("*.json"):
                with suppress(StoreError):
                    found[path.stem] = read_json(path, model.TROUBLE)
        return found

    # --- writing ----------------------------------------------------------------------------------------------------

    def reserve_receipt(self, incident_id: str, file: str, channel: str, *, in_digest: bool = False) -> None:
        """Reserve room for a receipt before its notice is sent."""
        path = self._store.receipt_path(incident_id, file, channel)
        write_aside(path.with_suffix(f".{DIGEST_ROOM}") if in_digest else path, b" " * RECEIPT_BYTES)

    def flush(self, incident_id: str) -> None:
        """Flush an incident's names before it is sent: it may have been read while its commit was under way."""
        sync_directory(self._store.path(incident_id))

    def write_receipt(self, incident_id: str, file: str, receipt: Receipt) -> None:
        """Write the receipt of a notice."""
        path = self._store.receipt_path(incident_id, file, receipt.channel)
        in_digest = path.with_suffix(f".{DIGEST_ROOM}")
        room = in_digest if in_digest.with_name(f".{in_digest.name}.new").exists() else path
        fill(path, encode_json(receipt), room)
        sync_directory(self._store.path(incident_id))

    def write_trouble(self, channel: str, trouble: Trouble | None) -> None:
        """Write why a channel fails, or remove that when it does not any more."""
        path = self._channels / f"{channel}.json"
        if trouble is None:
            path.unlink(missing_ok=True)
            return
        make_directory(path.parent)
        write_json(path, trouble)

    # --- inside -----------------------------------------------------------------------------------------------------

    def _said(self, channel: str, incident_id: str, stem: str, files: set[str]) -> tuple[Said, Brief] | None:
        """Read a notice and what became of it; one with a receipt that cannot be read is done."""
        folder, room = self._store.path(incident_id), f".{stem}.{channel}.json.new"
        try:
            notice = read_json(folder / f"{stem}.json", model.BRIEF_NOTICE)
        except StoreError:
            return None
        brief = notice.data or Brief()
        has_room = room in files and not _is_empty(folder / room)
        said = Said(
            stem, notice.id, notice.type, notice.at, brief.severity, channel in notice.channels, has_room=has_room
        )
        if f"{stem}.{channel}.json" not in files:
            return said, brief
        try:
            receipt = read_json(self._store.receipt_path(incident_id, stem, channel), model.RECEIPT)
        except StoreError:
            return said._replace(outcome="delivered"), brief
        return said._replace(outcome=receipt.outcome, settled_at=receipt.at), brief


def _is_empty(room: Path) -> bool:
    """Return whether a kill left the room for a receipt empty, before anything was sent; what is no file is not."""
    try:
        found = room.lstat()
    except FileNotFoundError:
        return True
    return stat.S_ISREG(found.st_mode) and found.st_size == 0
