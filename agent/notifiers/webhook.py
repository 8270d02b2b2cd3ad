"""Webhooks by the Standard Webhooks specification (github.com/standard-webhooks/standard-webhooks, spec v1).

webhook-id: msg_20261122T150539Z-7f3a_001    the same over every retry: the receiver drops what it has seen
webhook-timestamp: 1795359939                 unix seconds of this attempt
webhook-signature: v1,K5oZfzN95Z9UVu1EsfQm... base64 of the HMAC-SHA256 over "id.timestamp.body"
"""

import base64
import hashlib
import hmac
from collections.abc import Callable
from datetime import datetime, timezone

from agent.core.delivery import Delivery
from agent.core.model import Notice
from agent.core.settings import WebhookSettings, signing_key
from agent.notifiers import ChannelError, read_secret
from agent.notifiers.answer import sort_answer
from agent.notifiers.body import encode
from agent.notifiers.http import DEADLINE_SECONDS, Poster


class WebhookNotifier:
    """Posts a notice as JSON, signed when there is a secret."""

    def __init__(
        self,
        settings: WebhookSettings,
        *,
        deadline_seconds: float = DEADLINE_SECONDS,
        now: Callable[[], datetime] = lambda: datetime.now(tz=timezone.utc),
    ) -> None:
        self.name = settings.name
        self._poster = Poster(settings, settings.url, deadline_seconds=deadline_seconds)
        self._key = _read_key(settings) if settings.secret_file else None
        self._labels, self._runbook_url = settings.labels, settings.runbook_url
        self._now = now

    def notify(self, notice: Notice) -> Delivery:
        """Post the notice; any 2xx means delivered."""
        body = encode(notice, self._labels, self._runbook_url)
        now = self._now()
        headers = {"webhook-id": notice.id, "webhook-timestamp": str(int(now.timestamp()))}
        if self._key is not None:
            headers["webhook-signature"] = sign(self._key, notice.id, int(now.timestamp()), body)
        return sort_answer(self._poster.post(body, headers), now)


def sign(key: bytes, identifier: str, timestamp: int, body: bytes) -> str:
    """Sign one attempt, in the format of the header."""
    digest = hmac.digest(key, f"{identifier}.{timestamp}.".encode() + body, hashlib.sha256)
    return "v1," + base64.b64encode(digest).decode()


def _read_key(settings: WebhookSettings) -> bytes:
    key = signing_key(read_secret(settings.name, "secret_file", settings.secret_file))
    if not key:
        raise ChannelError(f"{settings.name}: secret_file {settings.secret_file}: expected whsec_ and base64")
    return key
