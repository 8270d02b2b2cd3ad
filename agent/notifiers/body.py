"""A notice as JSON: the body of a webhook, and what a command reads and the journal keeps.

{"type": "sockmem.incident.opened", "timestamp": "2026-11-22T15:05:39Z", "data": {...incident.json...}}
"""

import platform
from collections.abc import Mapping
from typing import Any

import msgspec

from agent.core.model import DigestNotice, Notice


def encode(notice: Notice, labels: Mapping[str, str] | None = None, runbook_url: str = "") -> bytes:
    """Encode the body: type, timestamp (when due) and the incident or digest; a test says that it is one.

    ``labels`` and ``runbook_url`` are added to ``data`` where they are configured.
    """
    digest = notice.digest if isinstance(notice, DigestNotice) else None
    data: Any = (
        notice.data
        or digest
        or {
            "test": True,
            "message": "This is a test of sockmem-agent. Nothing is wrong.",
            "host": platform.node() or None,
        }
    )
    if added := {key: value for key, value in (("labels", labels), ("runbook_url", runbook_url)) if value}:
        data = msgspec.to_builtins(data) | added
    return msgspec.json.encode({"type": notice.type, "timestamp": notice.at, "data": data})
