"""A notice for programs: the body of a webhook, which a command reads and the journal keeps, too, and in short.

{"type": "sockmem.incident.opened", "timestamp": "2026-11-22T15:05:39Z", "data": {...incident.json...}}
"""

import platform
from collections.abc import Mapping
from typing import Any

import msgspec

from agent.core.format import printable
from agent.core.model import DigestNotice, Notice
from agent.core.report import title


def encode(notice: Notice, labels: Mapping[str, str] | None = None, runbook_url: str = "") -> bytes:
    """Encode the body: type, timestamp (when due) and the incident or digest; a test says that it is one.

    ``labels`` and ``runbook_url`` are added to ``data`` where they are configured.
    """
    digest = notice.digest if isinstance(notice, DigestNotice) else None
    said = "This is a test of sockmem-agent. Nothing is wrong."
    test = {"test": True, "message": said, "host": platform.node() or None}
    data: Any = notice.data or digest or test
    if added := {key: value for key, value in (("labels", labels), ("runbook_url", runbook_url)) if value}:
        data = msgspec.to_builtins(data) | added
    return msgspec.json.encode({"type": notice.type, "timestamp": notice.at, "data": data})


def in_short(notice: Notice) -> dict[str, str]:
    """Return the notice as variables, "" where it has none; foreign text is printable."""
    incident = notice.data
    host = notice.host if isinstance(notice, DigestNotice) else incident.host if incident else platform.node()
    return {
        "SOCKMEM_TYPE": notice.type,
        "SOCKMEM_SEVERITY": incident.severity if incident else "info",
        "SOCKMEM_HOST": printable(host or "", 64),
        "SOCKMEM_CAUSE": incident.cause if incident else "",
        "SOCKMEM_TITLE": title(notice),
        "SOCKMEM_INCIDENT": incident.id if incident else "",
        "SOCKMEM_NOTICE": notice.id,
    }
