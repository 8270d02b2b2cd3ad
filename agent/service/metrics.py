"""Metrics for Prometheus as a text file, for node_exporter's textfile collector.

Counters start at zero with the service, as Prometheus expects. prometheus_client is imported only if ``[metrics]
textfile`` is set: it takes ten megabytes.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, write_to_textfile

from agent.core.model import Incident, Sample

if TYPE_CHECKING:
    from agent.service.courier import Courier


def write_metrics(
    path: Path, channels: Iterable["Courier"], events: dict[str, int], last: Incident | None, sample: Sample | None
) -> None:
    """Write the file in one step; raises OSError.

    ``events`` counts the kernel's messages by kind since the start, ``last`` is the newest incident.
    """
    registry = CollectorRegistry()
    said = Counter("sockmem_events", "Messages of the kernel, by kind", ["kind"], registry=registry)
    for kind, count in events.items():
        said.labels(kind).inc(count)
    sent = Counter("sockmem_notifications", "Attempts to notify, by outcome", ["channel", "outcome"], registry=registry)
    for channel in channels:
        for outcome in ("delivered", "failed", "gave_up", "digested", "skipped"):
            sent.labels(channel.name, outcome).inc(getattr(channel, outcome))
    still_open = Gauge("sockmem_incident_open", "Whether an incident is open", registry=registry)
    still_open.set(last is not None and last.closed_at is None)
    gauges = {"orphan": sample.orphan, "mem": sample.mem} if sample else {}
    for name, value in gauges.items():
        if value is not None:
            Gauge(f"sockmem_{name}", f"TCP {name} of /proc/net/sockstat", registry=registry).set(value)
    write_to_textfile(str(path), registry)
