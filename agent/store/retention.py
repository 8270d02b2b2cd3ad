"""Retention by age, number, bytes and free space; what is only claimed goes first, then the oldest."""

import logging
import os
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Literal

from agent.core.budget import proof_of
from agent.store.disk import StoreError, remove_tree, size_of
from agent.store.incidents import INCIDENT_FILE, Store

log = logging.getLogger("sockmem-agent")

# Unsent claimed incidents that stay however short space is: more than a day's budget sends.
CLAIMED_KEPT = 100
# Claimed ones that are "untold" or "told" go before what is "done": proven by the kernel or the gauges, or broken.
_Fate = Literal["kept", "claimed", "untold", "told", "done"]
_RANK: dict[_Fate, int] = {"untold": 0, "told": 1, "done": 2}


def prune(store: Store, now: datetime | None, *, dry_run: bool = False) -> list[str]:
    """Remove what is no longer kept and return the ids; without a ``now``, not by age.

    Never removed: an open incident, one with an unsent notice, the newest one, and one that alone holds the newest
    position, without which its events would be read again. The position is not saved elsewhere first: a full disk has
    no room for it, and the service's user could not read what root writes by hand.

    Where there are too many or space is short, claimed incidents go first: any local user can forge a hundred thousand.
    Of the unsent ones the newest stay. A disk full of them would have no room for receipts, so nothing would ever be
    sent; and a restart learns from the sent ones how much was sent within the hour.
    """
    if not store.path("").is_dir():
        return []
    if now:
        store.samples.prune(now, dry_run=dry_run)
    ids = store.ids()
    oldest = now - timedelta(days=store.settings.keep_days) if now else datetime.min.replace(tzinfo=timezone.utc)
    removed, flood = _choose(store, ids, oldest)
    if not dry_run:
        if flood:
            log.error("claimed incidents removed unsent, to stay within [store]: %d", flood)
        interrupted = [name for name in set(store.names()) - set(ids) if _opened_at(name) < oldest]
        _remove(store.path(name) for name in (*removed, *interrupted))
        store.point_to_newest()
    return sorted(removed)


def _choose(store: Store, ids: list[str], oldest: datetime) -> tuple[list[str], int]:
    """Choose what is no longer kept, and count what of it was not sent."""
    keep, covered = store.settings, store.covered()
    sizes = {incident_id: size_of(store.path(incident_id)) for incident_id in ids}
    room = os.statvfs(store.path(""))
    missing = max(sum(sizes.values()) - keep.keep_bytes, keep.min_free_bytes - room.f_bavail * room.f_frsize)
    old = [incident_id for incident_id in ids[:-1] if _opened_at(incident_id) < oldest]
    is_short = missing > 0 or len(ids) > keep.keep_count
    fates = {each: _fate(store, each, covered) for each in store.one_by_one(ids[:-1] if is_short else old)}
    removed = [incident_id for incident_id in old if fates[incident_id] in _RANK]
    missing -= sum(sizes[incident_id] for incident_id in removed)
    unsent = [incident_id for incident_id, fate in fates.items() if fate == "claimed"]
    done = [each for each in fates.keys() - set(removed) if fates[each] in _RANK]
    done.sort(key=lambda each: (_RANK[fates[each]], each))
    surplus = len(ids) - len(removed) - keep.keep_count
    for incident_id in (*unsent[:-CLAIMED_KEPT], *done):
        # Those that stay unsent cost no other incident its place.
        exempt = 0 if fates[incident_id] == "claimed" else min(len(unsent), CLAIMED_KEPT)
        if missing > 0 or surplus > exempt:
            removed.append(incident_id)
            missing -= sizes[incident_id]
            surplus -= 1
    return removed, len(set(removed) & set(unsent))


def _remove(directories: Iterable[Path]) -> None:
    for directory in directories:
        with suppress(IsADirectoryError):  # Damage, which goes with the rest.
            (directory / INCIDENT_FILE).unlink(missing_ok=True)  # First, so that half a directory is no incident.
        remove_tree(directory)


def _fate(store: Store, incident_id: str, covered: int) -> _Fate:
    """Return what may become of an incident; what is done with is closed, its position older and all its notices sent.

    "claimed": all but sent, and any local user can have forged it.
    """
    try:
        incident = store.load(incident_id)
        if incident.closed_at is None or (incident.resume and incident.resume.generation > covered):
            return "kept"
        is_claim, notices = proof_of(incident) == "claimed", store.brief_notices(incident)
        if not all(set(notice.channels) <= set(receipts) for _, notice, receipts in notices):
            return "claimed" if is_claim else "kept"
        is_told = any(receipt.outcome == "delivered" for _, _, receipts in notices for receipt in receipts.values())
    except StoreError:
        return "done"
    return ("told" if is_told else "untold") if is_claim else "done"


def _opened_at(incident_id: str) -> datetime:
    return datetime.strptime(incident_id[:16], "%Y%m%dT%H%M%S%z")
