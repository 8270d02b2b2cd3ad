"""Alerts for Prometheus Alertmanager, API v2 (prometheus/alertmanager api/v2/openapi.yaml, ``postAlerts``).

    POST /api/v2/alerts
    [{"labels": {"alertname": "SockmemIncident", "incident": "...", ...}, "annotations": {"summary": "...", ...},
      "startsAt": "2026-11-22T15:05:39Z", "endsAt": "..."}]

The labels identify an alert: they stay the same from opened to resolved, so what may change is an annotation. Only a
warning that becomes critical is a second alert beside the first; an inhibit rule mutes the warning.

An Alertmanager keeps alerts in memory: each is sent again and again, with an end soon after the next time, so that an
instance that restarts knows it again, and a host that is gone ends it. A time that lies ahead of the receiver's clock
would keep it from ending: ours may be wrong, so the receiver's Date counts, and an instance is asked for it first.
"""

import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import urlsplit

import msgspec

from agent.core.delivery import Delivered, Delivery, Rejected, Retry
from agent.core.model import Notice, Standing
from agent.core.report import brief_text, title
from agent.core.settings import AlertmanagerSettings
from agent.core.stored import YEARS
from agent.notifiers import ChannelError, this_host
from agent.notifiers.answer import Answer, moment_of, sort_answer
from agent.notifiers.http import DEADLINE_SECONDS, Poster

PATH = "/api/v2/alerts"
TEST_LASTS = timedelta(minutes=5)
# Four times as long as until it is sent again.
STAYS_UP = timedelta(minutes=4)
DESCRIPTION_BYTES = 400


class AlertmanagerNotifier:
    """Posts to the instances of one Alertmanager, which share their deadline: a test goes to all in one attempt."""

    def __init__(
        self,
        settings: AlertmanagerSettings,
        *,
        deadline_seconds: float = DEADLINE_SECONDS,
        now: Callable[[], datetime] = lambda: datetime.now(tz=timezone.utc),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = settings.name
        self._settings = settings
        share = deadline_seconds / max(1, len(settings.urls))
        self._posters = [Poster(settings, _address(self.name, url), deadline_seconds=share) for url in settings.urls]
        self._now, self._monotonic = now, monotonic
        # What the receiver's clock said, and when by ours that stands still for nobody; None if it showed none yet.
        self._clocks: dict[int, tuple[datetime, float] | None] = {}

    def notify(self, notice: Notice) -> Delivery:
        """Post to every instance; delivered when all took it."""
        answers = [self.show(notice, number) for number in range(len(self._posters))]
        failed = [answer for answer in answers if not isinstance(answer, Delivered)]
        if not failed:
            return Delivered(detail=f"taken by {len(answers)} of {len(answers)} instances")
        why = "; ".join(answer.why for answer in failed)
        return Retry(why=why) if any(isinstance(answer, Retry) for answer in failed) else Rejected(why=why)

    def show(self, notice: Notice, instance: int) -> Delivery:
        """Post the alerts to one instance."""
        answer = Answer(200, None, b"") if instance in self._clocks else self._post(b"[]", instance)
        if isinstance(answer, Answer):
            body = msgspec.json.encode(alerts(notice, self._settings, self._their_now(instance)))
            answer = self._post(body, instance)
        place = self._posters[instance].place
        match sort_answer(answer, self._now()):
            case Delivered():
                return Delivered(detail=f"taken by {place}")
            case Retry() as busy:
                return msgspec.structs.replace(busy, why=f"{place}: {busy.why}")
            case refused:
                return Rejected(why=f"{place}: {refused.why}")

    def _post(self, body: bytes, instance: int) -> Answer | Retry | Rejected:
        answer = self._posters[instance].post(body)
        if isinstance(answer, Answer):
            there = moment_of(answer.date)
            # At an end of the calendar nothing can be added to a clock.
            if there and there.year in YEARS:
                self._clocks[instance] = there, self._monotonic()
            self._clocks.setdefault(instance, None)
        return answer

    def _their_now(self, instance: int) -> datetime:
        """Return the receiver's time; ours only if it never showed its own, as a proxy's 502 may not."""
        known = self._clocks[instance]
        return known[0] + timedelta(seconds=self._monotonic() - known[1]) if known else self._now()


def alerts(notice: Notice, settings: AlertmanagerSettings, now: datetime) -> list[dict[str, Any]]:
    """Make the alerts of a notice, one for each severity that it shows; ``now`` is the receiver's."""
    incident, annotations = notice.data, {"summary": title(notice)}
    annotations |= {"runbook_url": settings.runbook_url} if settings.runbook_url else {}
    if incident is None:
        labels = {"alertname": "SockmemTest", "severity": "info", "host": this_host(), "instance": this_host()}
        return [_alert(labels | settings.labels, annotations, now, now + TEST_LASTS)]
    annotations["description"] = brief_text(incident, DESCRIPTION_BYTES)
    is_over = notice.type == "sockmem.incident.resolved"
    ends = min(incident.closed_at or notice.at, now) if is_over else now + STAYS_UP
    shown = notice.severities if isinstance(notice, Standing) else (incident.severity,)
    cause = notice.opening_cause if isinstance(notice, Standing) else incident.cause
    host = incident.host or "unknown"
    labels = {"alertname": "SockmemIncident", "host": host, "instance": host, "incident": incident.id, "cause": cause}
    starts = min(incident.opened_at, ends, now)
    return [_alert(labels | {"severity": severity} | settings.labels, annotations, starts, ends) for severity in shown]


def _alert(labels: dict[str, str], annotations: dict[str, str], starts: datetime, ends: datetime) -> dict[str, Any]:
    return {"labels": labels, "annotations": annotations, "startsAt": starts, "endsAt": ends}


def _address(name: str, url: str) -> str:
    """Complete an instance's address; a path before /api is kept, for Alertmanager's --web.route-prefix."""
    try:
        parts = urlsplit(url.strip())
    except ValueError:
        why = f"{name}: one of urls is not well-formed: it must be http:// or https:// with a host"
        raise ChannelError(why) from None
    path = parts.path.rstrip("/")
    return parts._replace(path=path if path.endswith(PATH) else path + PATH, query="", fragment="").geturl()
