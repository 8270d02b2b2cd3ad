"""Alerts for Prometheus Alertmanager, API v2 (prometheus/alertmanager api/v2/openapi.yaml, ``postAlerts``).

    POST /api/v2/alerts
    [{"labels": {"alertname": "SockmemIncident", "incident": "...", ...}, "annotations": {"summary": "...", ...},
      "startsAt": "2026-11-22T15:05:39Z", "endsAt": "..."}]

The labels identify an alert: they stay the same from opened to resolved, so what may change (the cause) is an
annotation. Only the severity, used for routing, changes when the kernel confirms a warning: to Alertmanager that is
another alert, so every POST from then on ends the warning's.
"""

import platform
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import urlsplit

import msgspec

from agent.core.delivery import Delivered, Delivery, Rejected, Retry
from agent.core.model import Incident, Notice
from agent.core.report import notice_text, title
from agent.core.settings import AlertmanagerSettings
from agent.notifiers import ChannelError
from agent.notifiers.answer import sort_answer
from agent.notifiers.http import DEADLINE_SECONDS, Poster

PATH = "/api/v2/alerts"
TEST_LASTS = timedelta(minutes=5)
# Nothing is sent while an incident neither gets worse nor ends, which may take days, as may a receiver's outage.
# Without an end Alertmanager would drop the alert after its resolve_timeout, five minutes; a dead agent's has to end.
STAYS_UP = timedelta(days=7)
HEADERS = {"Content-Type": "application/json"}


class AlertmanagerNotifier:
    """Posts to every listed instance, and again to all until all took it: Alertmanager drops duplicates."""

    is_state = True

    def __init__(
        self,
        settings: AlertmanagerSettings,
        *,
        deadline_seconds: float = DEADLINE_SECONDS,
        now: Callable[[], datetime] = lambda: datetime.now(tz=timezone.utc),
    ) -> None:
        if not settings.urls:
            raise ChannelError(f"{settings.name}: urls is empty: name at least one Alertmanager")
        self.name = settings.name
        # One notify() takes at most one deadline, however many instances hang.
        share = deadline_seconds / len(settings.urls)
        addresses = [_address(settings.name, url) for url in settings.urls]
        self._posters = [Poster(settings, address, deadline_seconds=share) for address in addresses]
        self._now = now

    def notify(self, notice: Notice) -> Delivery:
        """Post to every instance; delivered when all took it."""
        body = msgspec.json.encode(alerts(notice, self._now()))
        answers = [(poster.place, sort_answer(poster.post(body, HEADERS), self._now())) for poster in self._posters]
        failed = [(place, answer) for place, answer in answers if not isinstance(answer, Delivered)]
        if not failed:
            return Delivered(detail=f"taken by {len(answers)} of {len(answers)} instances")
        why = "; ".join(f"{place}: {answer.why}" for place, answer in failed)
        busy = [answer for _, answer in failed if isinstance(answer, Retry)]
        if not busy:
            return Rejected(why=why)
        return Retry(why=why, after_seconds=max((a.after_seconds for a in busy if a.after_seconds), default=None))


def alerts(notice: Notice, now: datetime) -> list[dict[str, Any]]:
    """Make the alert of a notice, and end the warning it started as, if any.

    ``now`` is the time of this attempt: a late one, after an outage of the receiver, must not send an ended alert.
    """
    incident = notice.data
    if incident is None:
        host = platform.node() or "unknown"
        labels = {"alertname": "SockmemTest", "severity": "info", "host": host, "instance": host}
        return [_alert(notice, labels, notice.at, notice.at + TEST_LASTS)]
    starts = incident.opened_at
    if notice.type == "sockmem.incident.resolved":
        ends = max(starts, incident.closed_at or notice.at)
    else:
        ends = max(notice.at, now) + STAYS_UP
    if incident.class_ == "pressure":
        return [_alert(notice, _labels(incident, "warning"), starts, ends)]
    made = [_alert(notice, _labels(incident, "critical"), starts, ends)]
    if incident.pressure is not None:
        made.append(_alert(notice, _labels(incident, "warning"), starts, max(starts, notice.at)))
    return made


def _alert(notice: Notice, labels: dict[str, str], starts: datetime, ends: datetime) -> dict[str, Any]:
    return {"labels": labels, "annotations": _annotations(notice), "startsAt": starts, "endsAt": ends}


def _labels(incident: Incident, severity: str) -> dict[str, str]:
    host = incident.host or "unknown"
    return {
        "alertname": "SockmemIncident",
        "severity": severity,
        "host": host,
        "instance": host,
        "incident": incident.id,
    }


def _annotations(notice: Notice) -> dict[str, str]:
    annotations = {"summary": title(notice), "description": notice_text(notice)}
    if notice.data is not None:
        annotations |= {"cause": notice.data.cause, "confidence": notice.data.confidence}
    return annotations


def _address(name: str, url: str) -> str:
    """Complete an instance's address; a path before /api is kept, for Alertmanager's --web.route-prefix."""
    try:
        parts = urlsplit(url.strip())
    except ValueError:
        parts = None
    if parts is None:
        raise ChannelError(f"{name}: one of urls is not well-formed: it must be http:// or https:// with a host")
    path = parts.path.rstrip("/")
    return parts._replace(path=path if path.endswith(PATH) else path + PATH, query="", fragment="").geturl()
