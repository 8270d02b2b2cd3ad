"""Everything on disk about one incident, as it was read: what its page is made of."""

from collections.abc import Mapping
from datetime import tzinfo
from typing import NamedTuple

from agent.core.delivery import Receipt
from agent.core.model import Incident, Notice, Sample, Snapshot
from agent.core.readings import Gap


class IncidentFiles(NamedTuple):
    """An incident with its evidence.

    ``snapshots`` and ``notices`` have their file names, notices their receipts by channel. ``samples`` reach from an
    hour before the incident to ten minutes after it, as far as history or the incident has them. ``unread`` says which
    files could not be read, ``holdups`` by channel why notices wait. Times are shown in ``zone``; None is this host's.
    """

    incident: Incident
    snapshots: tuple[tuple[str, Snapshot], ...] = ()
    samples: tuple[Sample, ...] = ()
    notices: tuple[tuple[str, Notice, dict[str, Receipt]], ...] = ()
    unread: tuple[Gap, ...] = ()
    holdups: Mapping[str, str] = {}
    zone: tzinfo | None = None
