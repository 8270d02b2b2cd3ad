"""An incident that never happened, for ``notify test --incident``: this host as it is now, and made-up messages.

It goes through the service's own code, from the event to the notice, and is not stored.
"""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from uuid import uuid4

from msgspec.structs import replace

from agent.core import folding
from agent.core.diagnosis.diagnose import diagnose
from agent.core.model import TEST_ID, Event, Incident, Notice, NoticeType, Snapshot
from agent.core.report import TEST_MARK

NO_QUIET = timedelta(0)


def rehearse(snapshot: Snapshot, channels: tuple[str, ...], now: Callable[[], datetime]) -> Iterator[Notice]:
    """Yield the notices of a test incident: opened, updated, resolved, each as of the moment it is asked for.

    ``now`` returns times in UTC.
    """
    at = now()
    event = Event(
        at=at,
        uptime=snapshot.uptime_seconds,
        host=snapshot.host,
        kind="too_many_orphans",
        suppressed=None,
        count=1,
        source="sockmem-agent notify test --incident",
        provenance="kernel",
        line="TEST: TCP: too many orphaned sockets",
    )

    def tell(incident: Incident, kind: NoticeType, reason: str) -> tuple[Incident, Notice]:
        notice = folding.notice(incident, (kind, reason), channels, now())
        return notice.data or incident, notice

    incident = _marked(folding.open_incident(event, at, snapshot, diagnose(snapshot, (event,), ())))
    incident, notice = tell(incident, "sockmem.incident.opened", "test")
    yield notice
    incident = folding.fold(incident, replace(event, count=9), now())
    incident, notice = tell(incident, "sockmem.incident.updated", "test: ten times the messages")
    yield notice
    incident = folding.close(replace(incident, last_seen_at=now()), now(), NO_QUIET)
    _, notice = tell(incident, "sockmem.incident.resolved", "test")
    yield notice


def _marked(incident: Incident) -> Incident:
    """Mark it wherever a person or a program looks."""
    summary = f"{TEST_MARK}{incident.summary}"
    return replace(
        incident,
        id=f"{TEST_ID}{incident.id[:-4]}{uuid4().hex[:4]}",
        summary=summary,
        diagnosis=replace(incident.diagnosis, summary=summary),
    )
