"""Metrics for Prometheus as a text file, for node_exporter's textfile collector.

Mirrors Prometheus' text-based exposition format 0.0.4. A sample::

    # HELP sockmem_events_total Kernel messages since the agent started, by kind.
    # TYPE sockmem_events_total counter
    sockmem_events_total{kind="too_many_orphans"} 7

Counters start at zero with the service, as Prometheus expects. No label can hold a character that has to be escaped.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple, get_args

from agent import __version__
from agent.core.model import CAUSES, Incident, Kind, Sample

if TYPE_CHECKING:
    from agent.service.courier import Courier

CLASSES = ("event", "pressure")
OUTCOMES = ("delivered", "failed", "gave_up", "digested", "superseded", "skipped")

Labels = Mapping[str, str]


class Family(NamedTuple):
    """A metric with its samples; one without any is left out."""

    name: str
    kind: str
    help: str
    samples: Sequence[tuple[Labels, float]]


class Gauges(NamedTuple):
    """The newest sample, with the bytes of one of its ``mem`` and of a page; None where the host does not show it."""

    sample: Sample | None
    mem_unit_bytes: int | None
    page_bytes: int | None


def counters(
    events: Mapping[str, int], opened: Mapping[tuple[str, str], int], channels: Iterable["Courier"]
) -> Iterator[Family]:
    """Count events by kind, incidents by class and cause, attempts to notify by outcome."""
    yield Family("sockmem_build_info", "gauge", "The version of the agent.", [({"version": __version__}, 1)])
    kinds = [({"kind": kind}, events.get(kind, 0)) for kind in get_args(Kind)]
    yield Family("sockmem_events_total", "counter", "Kernel messages since the agent started, by kind.", kinds)
    by = [({"class": each, "cause": cause}, opened.get((each, cause), 0)) for each in CLASSES for cause in CAUSES]
    yield Family(
        "sockmem_incidents_total",
        "counter",
        "Incidents since the agent started, by class and cause at the opening; a confirmed warning counts in both.",
        by,
    )
    outcomes = [({"channel": each.name, "outcome": out}, each.counts[out]) for each in channels for out in OUTCOMES]
    yield Family("sockmem_notifications_total", "counter", "Attempts to notify, by outcome.", outcomes)


def still_open(incidents: Iterable[Incident]) -> Iterator[Family]:
    """Count the open incidents by class, and say since when there is one."""
    found = [(incident.class_, incident.opened_at.timestamp()) for incident in incidents]
    count = [({"class": each}, sum(class_ == each for class_, _ in found)) for each in CLASSES]
    yield Family("sockmem_incident_open", "gauge", "Open incidents, by class.", count)
    since: list[tuple[Labels, float]] = [({}, min(at for _, at in found))] if found else []
    yield Family("sockmem_incident_opened_timestamp_seconds", "gauge", "When the oldest open incident opened.", since)


def host(gauges: Gauges) -> Iterator[Family]:
    """Say how many orphans and how much TCP memory there is, and the limits."""
    sample, unit, page = gauges
    if sample is None:
        return
    yield _gauge("sockmem_tcp_orphan_sockets", "Orphaned TCP sockets.", sample.orphan)
    yield _gauge("sockmem_tcp_orphan_limit_sockets", "net.ipv4.tcp_max_orphans.", sample.tcp_max_orphans)
    memory = None if sample.mem is None or unit is None else sample.mem * unit
    yield _gauge("sockmem_tcp_memory_bytes", "Memory of TCP sockets.", memory)
    limits = sample.tcp_mem if page else None
    levels = zip(("low", "pressure", "high"), limits or (), strict=False)
    thresholds = [({"threshold": name}, pages * (page or 0)) for name, pages in levels]
    yield Family("sockmem_tcp_memory_limit_bytes", "gauge", "The three limits of net.ipv4.tcp_mem.", thresholds)


def waiting(channels: Iterable["Courier"], now: datetime) -> Iterator[Family]:
    """Count what each channel has not delivered yet, and say how long the oldest has been due."""
    found = [({"channel": each.name}, each.waiting) for each in channels]
    counts = [(labels, owed.notices) for labels, owed in found]
    yield Family("sockmem_notices_pending", "gauge", "Notifications not delivered yet, by channel.", counts)
    ages = [(labels, (now - owed.since).total_seconds() if owed.since else 0) for labels, owed in found]
    text = "How long the oldest of them has been due; 0 where a silence or the hourly limit holds them back."
    yield Family("sockmem_notice_oldest_pending_seconds", "gauge", text, [(each, max(0, age)) for each, age in ages])


def written(now: datetime) -> Iterator[Family]:
    """Say when the file was written: an agent that is gone leaves it behind."""
    text = "When the agent last wrote this file; at least once a minute while it runs."
    yield _gauge("sockmem_last_write_timestamp_seconds", text, round(now.timestamp(), 3))


def render(families: Iterable[Family]) -> str:
    """Return the text of these metrics."""
    return "".join(
        f"# HELP {name} {text}\n# TYPE {name} {kind}\n" + "".join(_lines(name, samples))
        for name, kind, text, samples in families
        if samples
    )


def _gauge(name: str, text: str, value: float | None) -> Family:
    return Family(name, "gauge", text, [] if value is None else [({}, value)])


def _lines(name: str, samples: Sequence[tuple[Labels, float]]) -> Iterator[str]:
    for labels, value in samples:
        braces = ",".join(f'{key}="{text}"' for key, text in labels.items())
        yield f"{name}{{{braces}}} {value}\n" if braces else f"{name} {value}\n"
