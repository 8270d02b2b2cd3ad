"""What the page is made of: everything that is on disk about one incident, as it was read."""

from datetime import tzinfo
from typing import NamedTuple

from agent.core.delivery import Receipt
from agent.core.model import Incident, Notice, Sample, Snapshot
from agent.core.readings import Gap


class Story(NamedTuple):
    """An incident with its evidence.

    ``snapshots`` go by file name, ``notices`` too, each with its receipts by channel. ``samples`` reach from an hour
    before the incident to ten minutes behind it, as far as history or the incident still has them. ``unread`` tells
    which of the files could not be read. Times are shown in ``zone``; None is the zone of this host.
    """

    incident: Incident
    snapshots: tuple[tuple[str, Snapshot], ...] = ()
    samples: tuple[Sample, ...] = ()
    notices: tuple[tuple[str, Notice, dict[str, Receipt]], ...] = ()
    unread: tuple[Gap, ...] = ()
    zone: tzinfo | None = None
