"""PagerDuty, the Events API v2 (developer.pagerduty.com, "Send an event").

    POST /v2/enqueue
    {"routing_key": "...", "event_action": "trigger", "dedup_key": "web1/20261122T150539Z-7f3a",
     "payload": {"summary": "...", "source": "web1", "severity": "critical", ...}}
    -> 202 {"status": "success", ...}; 400 an invalid event or key; 429 too many

All events with one ``dedup_key`` are one incident there: a trigger opens or updates it, a resolve ends it, and does
nothing where nothing was triggered. A summary has 1024 characters at most, a key 255, an event 512 KB.
"""

from datetime import datetime, timezone
from typing import Any

import msgspec

from agent.core.delivery import Delivered, Delivery, Rejected
from agent.core.model import CAUSES, Incident, Notice
from agent.core.report import brief_text, held_by, title
from agent.core.settings import PagerDutySettings
from agent.notifiers import read_secret, this_host
from agent.notifiers.answer import Answer, sort_answer
from agent.notifiers.http import DEADLINE_SECONDS, Poster

SUMMARY_CHARACTERS, KEY_CHARACTERS, DETAIL_BYTES = 1024, 255, 4096


class PagerDutyNotifier:
    """Triggers, updates and resolves one incident there for each of ours."""

    def __init__(self, settings: PagerDutySettings, *, deadline_seconds: float = DEADLINE_SECONDS) -> None:
        self.name = settings.name
        self._settings = settings
        self._key = read_secret(settings.name, "routing_key_file", settings.routing_key_file)
        self._poster = Poster(settings, settings.url, deadline_seconds=deadline_seconds)

    def notify(self, notice: Notice) -> Delivery:
        """Send what the notice says; a test is triggered and resolved."""
        sent = event(notice, self._settings)
        delivery = self._send(sent)
        if notice.data is None and isinstance(delivery, Delivered):
            delivery = self._send({"event_action": "resolve", "dedup_key": sent["dedup_key"]})
        return delivery

    def show(self, notice: Notice, instance: int) -> Delivery:
        """Send what is so now: there is one receiver."""
        del instance
        return self.notify(notice)

    def _send(self, event: dict[str, Any]) -> Delivery:
        answer = self._poster.post(msgspec.json.encode({"routing_key": self._key} | event))
        if isinstance(answer, Answer) and answer.status == 400:  # noqa: PLR2004 - see the top
            return Rejected(why="HTTP 400: the integration key is wrong (routing_key_file), or the event is invalid")
        return sort_answer(answer, datetime.now(timezone.utc))


def event(notice: Notice, settings: PagerDutySettings) -> dict[str, Any]:
    """Make the event of a notice, without the routing key."""
    incident = notice.data
    host = (incident.host or "unknown") if incident else this_host()
    key = f"{host}/{incident.id if incident else notice.id}"[-KEY_CHARACTERS:]
    if notice.type == "sockmem.incident.resolved":
        return {"event_action": "resolve", "dedup_key": key}
    payload = {
        "summary": title(notice)[:SUMMARY_CHARACTERS],
        "source": host,
        "severity": incident.severity if incident else "info",
        "timestamp": incident.opened_at if incident else notice.at,
        "component": "TCP",
        "class": incident.cause if incident else "test",
        "custom_details": settings.labels | (_details(incident) if incident else {}),
    }
    links = [{"href": settings.runbook_url, "text": "Runbook"}] if settings.runbook_url else []
    return {"event_action": "trigger", "dedup_key": key, "client": "sockmem-agent", "payload": payload, "links": links}


def _details(incident: Incident) -> dict[str, str]:
    held = held_by(incident.diagnosis, incident.witness)
    return {
        "incident": incident.id,
        "cause": f"{CAUSES[incident.cause]} ({incident.confidence})",
        **({"held by": held} if held else {}),
        "details": brief_text(incident, DETAIL_BYTES),
    }
