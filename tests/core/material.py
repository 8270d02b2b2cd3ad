"""Snapshots, events and incidents for the tests of the judgement: a healthy host, changed where a test says so."""

from datetime import datetime, timedelta, timezone
from typing import Any

from hypothesis import strategies as st

from agent.core.diagnosis.diagnose import diagnose
from agent.core.model import Event, Incident, Kind, Notice, NoticeType, Provenance, Sample, Snapshot
from agent.core.readings import Gap, Sockstat, TcpProtocol, TcpSockstat
from agent.core.stored import YEARS

NOW = datetime(2026, 11, 22, 15, 5, 40, tzinfo=timezone.utc)
BOOT = "5a8ad4f6-3f0e-4f5c-9f3e-2b9a6f6a7c10"
GIB = 1 << 30
LINES: dict[str, tuple[Kind, str]] = {
    "timer": ("out_of_socket_memory", "Out of socket memory"),
    "close": ("too_many_orphans", "TCP: too many of orphaned sockets"),
    "orphans": ("too_many_orphans", "TCP: too many orphaned sockets"),
    "tcp_memory": ("tcp_mem", "TCP: out of memory -- consider tuning tcp_mem"),
}


def make_snapshot(
    orphan: int | None = 3,
    mem: int | None = 1200,
    *,
    max_orphans: int | None = 65536,
    tcp_mem: tuple[int, ...] | None = (190455, 253940, 380910),
    alloc: int | None = 900,
    press: bool | None = False,
    ram: int | None = 16 * GIB,
    sysctls: dict[str, tuple[int, ...]] | None = None,
    counters: dict[str, int] | None = None,
    **others: Any,
) -> Snapshot:
    values = dict(sysctls or {})
    if max_orphans is not None:
        values["net.ipv4.tcp_max_orphans"] = (max_orphans,)
    if tcp_mem is not None:
        values["net.ipv4.tcp_mem"] = tcp_mem
    facts: dict[str, Any] = {
        "taken_at": NOW,
        "trigger": "event",
        "host": "web1",
        "kernel": "5.10.0-30-amd64",
        "boot_id": BOOT,
        "uptime_seconds": 86400.0,
        "page_size_bytes": 4096,
        "cpus": 4,
        "sockstat": Sockstat(tcp=TcpSockstat(inuse=400, orphan=orphan, tw=20, alloc=alloc, mem=mem)),
        "protocol": TcpProtocol(press=press),
        "sysctls": values,
        "netstat": {"TCPAbortOnMemory": 37} if counters is None else counters,
        "meminfo": {} if ram is None else {"MemTotal": ram, "MemAvailable": ram // 2},
    }
    return Snapshot(**(facts | others))


def make_event(text: str = "orphans", provenance: Provenance = "kernel", seconds_ago: float = 0.2) -> Event:
    kind, line = LINES[text]
    return Event(
        at=NOW - timedelta(seconds=seconds_ago),
        uptime=None,
        host="web1",
        kind=kind,
        suppressed=None,
        count=1,
        source="kmsg:1",
        provenance=provenance,
        line=line,
    )


def make_sample(seconds_ago: float, orphan: int | None = 3, mem: int | None = 1200, **counters: int) -> Sample:
    return Sample(at=NOW - timedelta(seconds=seconds_ago), boot_id=BOOT, orphan=orphan, mem=mem, counters=counters)


def make_incident(snapshot: Snapshot | None = None, text: str = "orphans", **others: Any) -> Incident:
    event = make_event(text)
    diagnosis = diagnose(snapshot or make_snapshot(orphan=65600), (event,), ())
    facts: dict[str, Any] = {
        "id": "20261122T150539Z-7f3a",
        "host": "web1",
        "kernel": "5.10.0-30-amd64",
        "boot_id": BOOT,
        "opened_at": NOW,
        "last_seen_at": NOW,
        "events": {event.kind: 1},
        "provenance": "kernel",
        "first_event": event,
        "cause": diagnosis.cause,
        "confidence": diagnosis.confidence,
        "summary": diagnosis.summary,
        "diagnosis": diagnosis,
    }
    return Incident(**(facts | others))


def make_notice(incident: Incident | None, kind: NoticeType = "sockmem.incident.opened") -> Notice:
    return Notice(id="n-1", type=kind, at=NOW, reason="opened", channels=("ops",), data=incident)


# --- anything that the structs can hold -----------------------------------------------------------------------------

numbers = st.integers(-(2**31), 2**63 - 1) | st.integers(-2, 300_000)
maybe = st.none() | numbers
soon = st.floats(-7200, 7200).map(lambda seconds: NOW + timedelta(seconds=seconds))
years = {"min_value": datetime(YEARS.start, 1, 1), "max_value": datetime(YEARS.stop - 1, 12, 31)}  # noqa: DTZ001
moments = st.datetimes(**years) | st.datetimes(**years, timezones=st.just(timezone.utc)) | soon
floats = st.none() | st.floats()
counters = st.dictionaries(
    st.sampled_from(["TCPAbortOnMemory", "TCPMemoryPressures", "TCPAbortFailed", "PruneCalled", "RcvPruned", "Odd"]),
    numbers,
)
boots = st.sampled_from([None, BOOT, "another"])
kernels = (
    st.none() | st.text() | st.sampled_from(["2.6.32-431.el6", "3.10.0-1160.el7", "4.18.0-147.el8", "6.12.1", "2.4.1"])
)
sysctls = st.dictionaries(
    st.sampled_from(
        [
            "net.ipv4.tcp_mem",
            "net.ipv4.tcp_max_orphans",
            "net.ipv4.tcp_rmem",
            "net.ipv4.tcp_wmem",
            "net.ipv4.tcp_orphan_retries",
            "net.ipv4.tcp_fin_timeout",
            "net.ipv4.tcp_tw_recycle",
            "net.core.mem_pcpu_rsv",
        ],
    ),
    st.lists(numbers, max_size=4).map(tuple) | st.tuples(numbers, numbers, numbers).map(lambda t: tuple(sorted(t))),
)
tcps = st.builds(TcpSockstat, inuse=maybe, orphan=maybe, tw=maybe, alloc=maybe, mem=maybe)
snapshots = st.builds(
    Snapshot,
    taken_at=moments,
    trigger=st.sampled_from(["event", "follow_up", "command"]),
    host=st.none() | st.text(),
    kernel=kernels,
    boot_id=boots,
    uptime_seconds=floats,
    page_size_bytes=st.none() | st.sampled_from([0, -1, 4096, 65536]),
    cpus=maybe,
    sockstat=st.none() | st.builds(Sockstat, tcp=tcps),
    protocol=st.none() | st.builds(TcpProtocol, press=st.none() | st.booleans()),
    sysctls=sysctls,
    netstat=counters,
    snmp=counters,
    meminfo=st.dictionaries(st.sampled_from(["MemTotal", "MemAvailable"]), numbers),
    kmem_tcp_failcnt=maybe,
    gaps=st.lists(st.builds(Gap, what=st.text(), why=st.text()), max_size=2).map(tuple),
)
events = st.lists(
    st.builds(
        Event,
        at=st.none() | moments,
        uptime=floats,
        host=st.none() | st.text(),
        kind=st.sampled_from(["out_of_socket_memory", "too_many_orphans", "tcp_mem", "suppressed"]),
        suppressed=maybe,
        count=st.integers(1, 1000),
        source=st.text(),
        provenance=st.sampled_from(["kernel", "claimed"]),
        line=st.text() | st.sampled_from([line for _, line in LINES.values()]),
    ),
    max_size=4,
).map(tuple)
samples = st.builds(
    Sample, at=moments, boot_id=boots, orphan=maybe, mem=maybe, tw=maybe, alloc=maybe, inuse=maybe, counters=counters
)
histories = st.lists(samples, max_size=5).map(tuple)
