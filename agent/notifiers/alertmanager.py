"""Alerts for Prometheus Alertmanager, API v2 (prometheus/alertmanager api/v2/openapi.yaml, ``postAlerts``).

    POST /api/v2/alerts
    [{"labels": {"alertname": "SockmemIncident", "incident": "...", ...}, "annotations": {"summary": "...", ...},
      "startsAt": "2026-11-22T15:05:39Z", "endsAt": "..."}]

The labels are an alert's identity: they are the same from opened to resolved, so what may change (the cause) is an
annotation.
"""

import platform
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import msgspec

from agent.core.delivery import Delivered, Delivery, Rejected, Retry
from agent.core.model import Incident, Notice
from agent.core.report import notice_text, title
from agent.notifiers import ChannelError
from agent.notifiers.answer import sort_answer
from agent.notifiers.http import DEADLINE_SECONDS, Poster

PATH = "/api/v2/alerts"
TEST_LASTS = timedelta(minutes=5)
HEADERS = {"Content-Type": "application/json"}


class AlertmanagerNotifier:
    """Posts to every listed instance; all are told again until all took it, for Alertmanager drops what it has seen.

    ``stays_for`` (seconds) is how long an alert stays up without another word from here.
    """

    def __init__(
        self,
        name: str,
        urls: tuple[str, ...],
        *,
        stays_for: float,
        deadline_seconds: float = DEADLINE_SECONDS,
        now: Callable[[], datetime] = lambda: datetime.now(tz=UTC),
    ) -> None:
        if not urls:
            raise ChannelError(f"{name}: urls is empty: name at least one Alertmanager")
        self.name = name
        # One notify() must not take longer than one deadline, however many instances hang.
        share = deadline_seconds / len(urls)
        self._posters = [Poster(name, _address(name, url), deadline_seconds=share) for url in urls]
        self._stays_for = timedelta(seconds=stays_for)
        self._now = now

    def notify(self, notice: Notice) -> Delivery:
        """Tell every instance; delivered only when all of them took it."""
        body = msgspec.json.encode([alert(notice, self._stays_for)])
        answers = [(poster.place, sort_answer(poster.post(body, HEADERS), self._now())) for poster in self._posters]
        failed = [(place, answer) for place, answer in answers if not isinstance(answer, Delivered)]
        if not failed:
            return Delivered(detail=f"taken by {len(answers)} of {len(answers)} instances")
        why = "; ".join(f"{place}: {answer.why}" for place, answer in failed)
        busy = [answer for _, answer in failed if isinstance(answer, Retry)]
        if not busy:
            return Rejected(why=why)
        return Retry(why=why, after_seconds=max((a.after_seconds for a in busy if a.after_seconds), default=None))


def alert(notice: Notice, stays_for: timedelta) -> dict[str, Any]:
    """Make the alert of a notice; a resolved one has ended, any other ends by itself when nothing more is heard."""
    incident = notice.data
    if incident is None:
        host = platform.node() or "unknown"
        labels = {"alertname": "SockmemTest", "severity": "info", "host": host, "instance": host}
        starts, ends = notice.at, notice.at + TEST_LASTS
    else:
        labels = _labels(incident)
        starts = incident.opened_at
        resolved = notice.type == "sockmem.incident.resolved"
        ends = max(starts, incident.closed_at or notice.at) if resolved else notice.at + stays_for
    return {
        "labels": labels,
        "annotations": _annotations(notice),
        "startsAt": starts,
        "endsAt": ends,
    }


def _labels(incident: Incident) -> dict[str, str]:
    host = incident.host or "unknown"
    return {
        "alertname": "SockmemIncident",
        "severity": "critical" if incident.class_ == "event" else "warning",
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
    """Complete an instance's address; a path before /api is kept, as Alertmanager's --web.route-prefix wants it."""
    try:
        parts = urlsplit(url.strip())
    except ValueError:
        parts = None
    if parts is None:
        raise ChannelError(f"{name}: one of urls is not well-formed: it must be http:// or https:// with a host")
    path = parts.path.rstrip("/")
    return parts._replace(path=path if path.endswith(PATH) else path + PATH, query="", fragment="").geturl()
