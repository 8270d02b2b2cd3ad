"""Webhooks by the Standard Webhooks specification (github.com/standard-webhooks/standard-webhooks, spec v1).

webhook-id: msg_20261122T150539Z-7f3a_001    the same over every retry: the receiver drops what it has seen
webhook-timestamp: 1795359939                 unix seconds of this attempt
webhook-signature: v1,K5oZfzN95Z9UVu1EsfQm... base64 of the HMAC-SHA256 over "id.timestamp.body"

{"type": "sockmem.incident.opened", "timestamp": "2026-11-22T15:05:39Z", "data": {...incident.json...}}
"""

import base64
import hashlib
import hmac
import platform
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

import msgspec

from agent.core.delivery import Delivery
from agent.core.model import DigestNotice, Notice
from agent.core.settings import signing_key
from agent.notifiers import ChannelError
from agent.notifiers.answer import sort_answer
from agent.notifiers.http import DEADLINE_SECONDS, Poster


class WebhookNotifier:
    """Posts a notice as JSON, signed when there is a secret."""

    is_state = False

    def __init__(
        self,
        name: str,
        url: str,
        secret: bytes | None,
        *,
        deadline_seconds: float = DEADLINE_SECONDS,
        now: Callable[[], datetime] = lambda: datetime.now(tz=timezone.utc),
    ) -> None:
        self.name = name
        self._poster = Poster(name, url, deadline_seconds=deadline_seconds)
        self._secret = secret
        self._now = now

    def notify(self, notice: Notice) -> Delivery:
        """Post the notice; any 2xx means delivered."""
        body = encode(notice)
        now = self._now()
        headers = {
            "Content-Type": "application/json",
            "webhook-id": notice.id,
            "webhook-timestamp": str(int(now.timestamp())),
        }
        if self._secret is not None:
            headers["webhook-signature"] = sign(self._secret, notice.id, int(now.timestamp()), body)
        return sort_answer(self._poster.post(body, headers), now)


def encode(notice: Notice) -> bytes:
    """Encode the body: type, timestamp (when due) and the incident or digest; a test says that it is one."""
    digest = notice.digest if isinstance(notice, DigestNotice) else None
    data = (
        notice.data
        or digest
        or {
            "test": True,
            "message": "This is a test of sockmem-agent. Nothing is wrong.",
            "host": platform.node() or None,
        }
    )
    return msgspec.json.encode({"type": notice.type, "timestamp": notice.at, "data": data})


def sign(secret: bytes, identifier: str, timestamp: int, body: bytes) -> str:
    """Sign one attempt, in the format of the header."""
    digest = hmac.digest(secret, f"{identifier}.{timestamp}.".encode() + body, hashlib.sha256)
    return "v1," + base64.b64encode(digest).decode()


def read_secret(channel: str, file: Path) -> bytes:
    """Read a signing secret; ChannelError does not quote what the file holds."""
    try:
        key = signing_key(file.read_text(encoding="ascii", errors="replace").strip())
    except OSError as error:
        raise ChannelError(f"{channel}: secret_file {file}: {error.strerror}") from None
    if not key:
        raise ChannelError(f"{channel}: secret_file {file}: expected whsec_ and base64, on one line")
    return key
