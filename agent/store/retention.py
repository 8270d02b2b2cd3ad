"""What is kept: by age, by number, by bytes and by the space that others need; the oldest goes first."""

import shutil
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

from agent.core.delivery import Receipt
from agent.core.model import Incident, Notice
from agent.core.settings import StoreSettings
from agent.store.disk import StoreError, remove_tree, size_of


class Incidents(Protocol):
    """What retention has to know of the store."""

    def ids(self) -> list[str]:
        """List the committed incidents, oldest first."""

    def names(self) -> list[str]:
        """List all directories of incidents."""

    def path(self, incident_id: str) -> Path:
        """Name the directory of an incident."""

    def load(self, incident_id: str) -> Incident:
        """Read an incident."""

    def notices(self, incident_id: str) -> list[tuple[str, Notice, dict[str, Receipt]]]:
        """Read an incident's notices with their receipts."""

    def covered(self) -> int:
        """Tell the newest generation that stays whatever is removed."""


def prune(store: Incidents, keep: StoreSettings, now: datetime, *, dry_run: bool) -> list[str]:
    """Remove what is no longer kept and return the ids.

    An open incident, one with a notice still owed, and the newest one are never removed; nor is one that alone holds
    the newest position, without which its events would be read again. The position is not put elsewhere first: a full
    disk has no room for it, and what root writes by hand the service's user cannot read.
    """
    ids = store.ids()
    sizes = {incident_id: size_of(store.path(incident_id)) for incident_id in ids}
    total = sum(sizes.values())
    free = shutil.disk_usage(store.path("")).free
    covered = store.covered()
    removed: list[str] = []
    for incident_id in ids[:-1]:
        too_old = now - _opened_at(incident_id) > timedelta(days=keep.keep_days)
        too_many = len(ids) - len(removed) > keep.keep_count
        if not (too_old or too_many or total > keep.keep_bytes or free < keep.min_free_bytes):
            break
        if _is_done(store, incident_id, covered):
            removed.append(incident_id)
            total -= sizes[incident_id]
            free += sizes[incident_id]
    interrupted = [
        name for name in set(store.names()) - set(ids) if now - _opened_at(name) > timedelta(days=keep.keep_days)
    ]
    if not dry_run:
        _remove(store.path(name) for name in (*removed, *interrupted))
    return removed


def _remove(directories: Iterable[Path]) -> None:
    for directory in directories:
        with suppress(IsADirectoryError):  # Damage, which goes with the rest.
            (directory / "incident.json").unlink(missing_ok=True)  # First, so that half a directory is no incident.
        remove_tree(directory)


def _is_done(store: Incidents, incident_id: str, covered: int) -> bool:
    """Tell whether an incident is closed, its position older, and everybody told; a broken one is done with."""
    try:
        incident = store.load(incident_id)
        if incident.closed_at is None or (incident.resume and incident.resume.generation > covered):
            return False
        return all(set(notice.channels) <= set(receipts) for _, notice, receipts in store.notices(incident_id))
    except StoreError:
        return True


def _opened_at(incident_id: str) -> datetime:
    return datetime.strptime(incident_id[:16], "%Y%m%dT%H%M%S%z")
