"""Retention by age, number, bytes and free space; the oldest goes first."""

import logging
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Literal

from agent.store.disk import StoreError, remove_tree, size_of
from agent.store.incidents import INCIDENT_FILE, Store

log = logging.getLogger("sockmem-agent")

# Unsent claimed incidents that stay however short space is: more than a day's budget sends.
CLAIMED_KEPT = 100


def prune(store: Store, now: datetime | None, *, dry_run: bool = False) -> list[str]:
    """Remove what is no longer kept and return the ids; without a ``now``, not by age.

    Never removed: an open incident, one with an unsent notice, the newest one, and one that alone holds the newest
    position, without which its events would be read again. The position is not saved elsewhere first: a full disk has
    no room for it, and the service's user could not read what root writes by hand.

    Where space is short, unsent claimed incidents go first, except the newest ones: any local user can forge a hundred
    thousand. A disk full of them would have no room for receipts, so nothing would ever be sent; and a restart learns
    from the sent ones how much was sent within the hour.
    """
    if not store.path("").is_dir():
        return []
    if now:
        store.samples.prune(now, dry_run=dry_run)
    keep = store.settings
    oldest = now - timedelta(days=keep.keep_days) if now else datetime.min.replace(tzinfo=timezone.utc)
    ids = store.ids()
    sizes = {incident_id: size_of(store.path(incident_id)) for incident_id in ids}
    total = sum(sizes.values())
    free = shutil.disk_usage(store.path("")).free
    covered = store.covered()
    missing = max(total - keep.keep_bytes, keep.min_free_bytes - free)
    removed = list(_flood(store, ids[:-1], sizes, covered, missing)) if missing > 0 else []
    flood, flood_bytes = set(removed), sum(sizes[incident_id] for incident_id in removed)
    total, free = total - flood_bytes, free + flood_bytes
    for incident_id in store.one_by_one(incident_id for incident_id in ids[:-1] if incident_id not in flood):
        too_old = _opened_at(incident_id) < oldest
        too_many = len(ids) - len(removed) > keep.keep_count
        if not (too_old or too_many or total > keep.keep_bytes or free < keep.min_free_bytes):
            break
        if _fate(store, incident_id, covered) == "done":
            removed.append(incident_id)
            total -= sizes[incident_id]
            free += sizes[incident_id]
    interrupted = [name for name in set(store.names()) - set(ids) if _opened_at(name) < oldest]
    if not dry_run:
        if flood:
            log.error("claimed incidents removed unsent, since space is short: %d", len(flood))
        _remove(store.path(name) for name in (*removed, *interrupted))
    return sorted(removed)


def _flood(
    store: Store, ids: Iterable[str], sizes: Mapping[str, int], covered: int, missing_bytes: int
) -> Iterator[str]:
    """Yield the oldest unsent claimed incidents, except those that stay, until enough bytes are freed."""
    owed = [incident_id for incident_id in store.one_by_one(ids) if _fate(store, incident_id, covered) == "claimed"]
    for incident_id in owed[:-CLAIMED_KEPT]:
        if missing_bytes <= 0:
            return
        yield incident_id
        missing_bytes -= sizes[incident_id]


def _remove(directories: Iterable[Path]) -> None:
    for directory in directories:
        with suppress(IsADirectoryError):  # Damage, which goes with the rest.
            (directory / INCIDENT_FILE).unlink(missing_ok=True)  # First, so that half a directory is no incident.
        remove_tree(directory)


def _fate(store: Store, incident_id: str, covered: int) -> Literal["done", "claimed", "kept"]:
    """Return "done" if an incident is closed, its position older and all its notices sent, or if it is broken.

    "claimed": all but sent, and any local user can have forged it.
    """
    try:
        incident = store.load(incident_id)
        if incident.closed_at is None or (incident.resume and incident.resume.generation > covered):
            return "kept"
        if all(set(notice.channels) <= set(receipts) for _, notice, receipts in store.notices(incident_id)):
            return "done"
    except StoreError:
        return "done"
    return "claimed" if incident.provenance == "claimed" else "kept"


def _opened_at(incident_id: str) -> datetime:
    return datetime.strptime(incident_id[:16], "%Y%m%dT%H%M%S%z")
