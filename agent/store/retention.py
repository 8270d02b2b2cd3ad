"""Retention by age, number, bytes and free space; the oldest goes first."""

import logging
import shutil
from collections.abc import Iterable
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
    keep, ids, covered = store.settings, store.ids(), store.covered()
    oldest = now - timedelta(days=keep.keep_days) if now else datetime.min.replace(tzinfo=timezone.utc)
    sizes = {incident_id: size_of(store.path(incident_id)) for incident_id in ids}
    free = shutil.disk_usage(store.path("")).free
    missing = max(sum(sizes.values()) - keep.keep_bytes, keep.min_free_bytes - free)
    removed: dict[str, None] = {}
    for incident_id in _flood(store, ids[:-1], covered) if missing > 0 else ():
        if missing > 0:
            removed[incident_id] = None
            missing -= sizes[incident_id]
    flood = len(removed)
    for incident_id in store.one_by_one(each for each in ids[:-1] if each not in removed):
        too_many = len(ids) - len(removed) > keep.keep_count
        if not (too_many or missing > 0 or _opened_at(incident_id) < oldest):
            break
        if _fate(store, incident_id, covered) == "done":
            removed[incident_id] = None
            missing -= sizes[incident_id]
    if not dry_run:
        if flood:
            log.error("claimed incidents removed unsent, since space is short: %d", flood)
        interrupted = [name for name in set(store.names()) - set(ids) if _opened_at(name) < oldest]
        _remove(store.path(name) for name in (*removed, *interrupted))
    return sorted(removed)


def _flood(store: Store, ids: Iterable[str], covered: int) -> list[str]:
    """Return the unsent claimed incidents, oldest first, except those that stay."""
    return [each for each in store.one_by_one(ids) if _fate(store, each, covered) == "claimed"][:-CLAIMED_KEPT]


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
