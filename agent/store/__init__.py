"""Incidents, the cursor and the history on disk. See ARCHITECTURE.md, "What is on disk, and in which order"."""

from agent.store.access import blocking, explain, owner, refusal, unusable, user
from agent.store.disk import StoreError
from agent.store.incident_samples import keep_samples, read_around
from agent.store.incidents import NoSuchIncident, Store
from agent.store.outbox import UNSEEN, Commit, Outbox
from agent.store.retention import prune
from agent.store.silence import end_silence, read_silence, write_silence

__all__ = [
    "UNSEEN",
    "Commit",
    "NoSuchIncident",
    "Outbox",
    "Store",
    "StoreError",
    "blocking",
    "end_silence",
    "explain",
    "keep_samples",
    "owner",
    "prune",
    "read_around",
    "read_silence",
    "refusal",
    "unusable",
    "user",
    "write_silence",
]
