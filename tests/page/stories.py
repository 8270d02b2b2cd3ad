"""Incidents for the tests of the page: an hour of rise, a step, a burst; and one whose every text is hostile."""

from datetime import datetime, timedelta, timezone
from math import sin
from typing import Any

import material
import msgspec
from harness import lay_out
from msgspec.structs import replace

from agent.core.delivery import Receipt
from agent.core.diagnosis.diagnose import diagnose
from agent.core.kernel.limits import sample_of
from agent.core.model import (
    Event,
    Evidence,
    Finding,
    Holder,
    Incident,
    Kind,
    Notice,
    Peak,
    Provenance,
    Sample,
    Snapshot,
    Trigger,
)
from agent.core.readings import (
    Gap,
    Listener,
    PeerTally,
    Process,
    SocketGroup,
    SocketTable,
    Sockstat,
    Tally,
    TcpProtocol,
    TcpSockstat,
)
from agent.page.incident_files import IncidentFiles

OPENED = datetime(2026, 11, 22, 15, 5, 39, tzinfo=timezone.utc)
BOOT = "5f0c9a3e-7d41-4e0b-9a65-1d2c3b4a5968"
LIMIT, TCP_MEM = 16_384, (46_098, 61_465, 92_196)
TEXTS: dict[Kind, str] = {
    "too_many_orphans": "TCP: too many orphaned sockets",
    "tcp_mem": "TCP: out of memory -- consider tuning tcp_mem",
}
HOLDERS = (
    Holder(
        unit="nginx.service",
        sockets=15_902,
        orphans=13_120,
        bytes=96_468_992,
        ports=(443, 80),
        peers=("203.0.113.0/24", "198.51.100.0/24"),
    ),
    Holder(container="shop-api (docker 4f1c09d2a7be)", sockets=3_411, orphans=2_204, bytes=18_874_368, ports=(8080,)),
    Holder(process="rsync", sockets=12, orphans=0, bytes=3_145_728, ports=(873,)),
    Holder(sockets=6_577, orphans=1_067, bytes=6_081_741),
)
HOSTILE = "</script><img src=x onerror=alert(1)>\x1b[31m\u202e<!channel>javascript:alert(1)\x00'\"&{{7*7}}"


def make_story(cause: Kind = "too_many_orphans", **others: Any) -> IncidentFiles:
    """Make an incident of seven minutes on a web server of 4 GiB, with an hour of samples before it."""
    until = timedelta(minutes=7)
    event = make_event(cause)
    snapshots = tuple(_snapshots(cause))
    snapshots = (*snapshots[:-1], (snapshots[-1][0], replace(snapshots[-1][1], sockets=make_table())))
    samples = make_samples(cause)
    last = replace(event, at=OPENED + until)
    judged = diagnose(replace(snapshots[-1][1], sockets=None), (last,), samples[:-72])
    gaps = tuple(gap for gap in judged.gaps if gap.what != "holders")
    judged = replace(judged, holders=HOLDERS, gaps=gaps)
    top = max((s for s in map(sample_of, (s for _, s in snapshots))), key=lambda s: s.orphan or 0)
    incident = Incident(
        id="20261122T150539Z-7f3a",
        host="shop-1",
        kernel="6.1.0-30-amd64",
        boot_id=BOOT,
        opened_at=OPENED,
        last_seen_at=OPENED + until,
        closed_at=OPENED + until + timedelta(minutes=5),
        events={cause: 37, "suppressed": 4},
        suppressed_at_least=4_071,
        provenance="kernel",
        first_event=event,
        last_of_kind=(last,),
        cause=judged.cause,
        confidence=judged.confidence,
        summary=judged.summary,
        diagnosis=judged,
        peak=Peak(orphan=top.orphan, orphan_at=top.at, mem=top.mem, mem_at=top.at),
        snapshots=tuple(name for name, _ in snapshots),
        notices=("notice-001.json", "notice-002.json"),
    )
    incident = replace(incident, **others)
    return IncidentFiles(incident, snapshots, samples, tuple(_notices(incident)), zone=timezone.utc)


def make_table() -> SocketTable:
    """Take the sockets of a scenario: nginx with clients that have stalled."""
    sockets = lay_out("held-by-nginx-stalled-clients") / "sockets.json"
    return msgspec.json.decode(sockets.read_bytes(), type=SocketTable)


def make_event(cause: Kind = "too_many_orphans", provenance: Provenance = "kernel") -> Event:
    """Make what the kernel said."""
    return material.make_event(
        provenance=provenance,
        at=OPENED,
        uptime=84_211.114,
        host="shop-1",
        kind=cause,
        source="journal:s=3b1c;i=51ac",
        line=f"Nov 22 15:05:39 shop-1 kernel: [84211.114207] {TEXTS[cause]}",
    )


def gauges_at(seconds: float, cause: Kind = "too_many_orphans") -> tuple[int, int, int]:
    """Say orphans, pages and kills so many seconds after the first event: rise, step, burst, calm."""
    wave = sin(seconds / 61) + sin(seconds / 17) / 2
    rise = max(0.0, 1 + (seconds + 3600) / 3600)
    orphan = 260 * rise + 60 * wave
    if seconds >= -1500:
        orphan += 2900 + 240 * wave
    if -240 <= seconds <= 420:
        orphan += min(1.0, (seconds + 240) / 230) * 13_600
    elif seconds > 420:
        orphan *= 0.5
    killed = int(min(max(seconds + 20, 0), 440) * 9.7)
    if cause == "tcp_mem":
        return int(orphan / 12), int(min(92_190 + 40 * wave, 8_000 + orphan * 5.4)), killed
    return int(min(orphan, 16_391)), int(7_900 + orphan * 1.55), killed


def make_samples(cause: Kind = "too_many_orphans", hours: float = 1) -> tuple[Sample, ...]:
    """Make a sample every ten seconds, from ``hours`` before the first event to twenty minutes after."""
    found = []
    for number in range(int(hours * 360) + 120):
        seconds = number * 10 - hours * 3600
        orphan, mem, killed = gauges_at(seconds, cause)
        counters = {"TCPAbortOnMemory": killed}
        at = OPENED + timedelta(seconds=seconds)
        found.append(Sample(at=at, boot_id=BOOT, orphan=orphan, mem=mem, tw=1_900, alloc=9_511, counters=counters))
    return tuple(found)


def make_snapshot(
    seconds: float, cause: Kind = "too_many_orphans", trigger: Trigger = "event", **others: Any
) -> Snapshot:
    """Make what the host looked like so many seconds after the first event."""
    orphan, mem, killed = gauges_at(seconds, cause)
    sockstat = (
        f"sockets: used 11824\nTCP: inuse {9406 + orphan} orphan {orphan} tw 2207 alloc {9511 + orphan} mem {mem}"
    )
    snapshot = Snapshot(
        taken_at=OPENED + timedelta(seconds=seconds),
        trigger=trigger,
        host="shop-1",
        kernel="6.1.0-30-amd64",
        boot_id=BOOT,
        uptime_seconds=84_211.3 + seconds,
        page_size_bytes=4096,
        cpus=4,
        sockstat=Sockstat(tcp=TcpSockstat(inuse=9406 + orphan, orphan=orphan, tw=2207, alloc=9511 + orphan, mem=mem)),
        protocol=TcpProtocol(press=cause == "tcp_mem"),
        sysctls={
            "net.ipv4.tcp_max_orphans": (LIMIT,),
            "net.ipv4.tcp_mem": TCP_MEM,
            "net.ipv4.tcp_orphan_retries": (0,),
            "net.ipv4.tcp_wmem": (4096, 16_384, 4_194_304),
            "net.ipv4.tcp_rmem": (4096, 131_072, 6_291_456),
        },
        netstat={"TCPAbortOnMemory": killed},
        meminfo={"MemTotal": 4 << 30, "MemAvailable": 2 << 30},
        raw={
            "net/sockstat": sockstat + "\nUDP: inuse 6 mem 3\n",
            "net/netstat": f"TcpExt: SyncookiesSent TCPAbortOnMemory\nTcpExt: 0 {killed}\n",
            "sys/net/ipv4/tcp_mem": "46098\t61465\t92196\n",
            "sys/net/ipv4/tcp_max_orphans": "16384\n",
        },
        gaps=(Gap(what="/proc/pressure/memory", why="not there: PSI is off in this kernel"),),
    )
    return replace(snapshot, **others)


def make_hostile_story() -> IncidentFiles:
    """Put a hostile text wherever the host, a sender of logs or a peer can choose one."""
    story, bad = make_story(), HOSTILE
    gap = Gap(what=bad, why=bad)
    holder = Holder(unit=bad, sockets=1, orphans=1, bytes=4096, peers=(bad,))
    evidence = Evidence(name=bad, value=bad, unit=bad, source=bad)
    finding = Finding(claim=bad, cause="orphans", confidence="likely", evidence=(evidence,))
    advice = tuple(
        replace(step, action=bad, why=bad, risk=bad, commands=(bad,), persist=f"{bad}\n{bad}")
        for step in story.incident.diagnosis.advice
    )
    judged = replace(
        story.incident.diagnosis, summary=bad, findings=(finding,), holders=(holder,), advice=advice, gaps=(gap,)
    )
    event = replace(story.incident.first_event, line=bad, source=bad, host=bad)
    incident = replace(
        story.incident, host=bad, kernel=bad, summary=bad, diagnosis=judged, first_event=event, boot_id=bad
    )
    table = make_hostile_table(bad)
    snapshot = replace(
        story.snapshots[0][1], host=bad, kernel=bad, raw={bad: f"{bad}\n{bad}"}, gaps=(gap,), sockets=table
    )
    name, notice, receipts = story.notices[0]
    told = {key: replace(receipt, detail=bad) for key, receipt in receipts.items()}
    return story._replace(
        incident=incident,
        snapshots=((bad, snapshot),),
        notices=((name, replace(notice, reason=bad, channels=(*notice.channels, bad)), told),),
        unread=(gap,),
    )


def make_hostile_table(bad: str) -> SocketTable:
    """Put a hostile text into every name of a table."""
    process = Process(pid=1, name=bad, cgroup=bad)
    group = SocketGroup(
        cgroup=77,
        port=443,
        held={"established": Tally(sockets=3, bytes=4096)},
        peers=(PeerTally(network=bad, sockets=3),),
        peers_counted=1,
        process=process,
    )
    return SocketTable(
        groups=(group,),
        listeners=(Listener(port=443, cgroup=77, process=process),),
        paths={77: bad},
        peers=(PeerTally(network=bad, sockets=3),),
        complete=True,
        gaps=(Gap(what=bad, why=bad),),
    )


def _snapshots(cause: Kind) -> list[tuple[str, Snapshot]]:
    moments: list[tuple[float, Trigger]] = [(0.2, "event"), (1.2, "follow_up"), (5.2, "follow_up"), (30.2, "follow_up")]
    moments += [(60.0 * minute, "event") for minute in range(1, 8)]
    return [
        (f"snapshot-{number:03}.json", make_snapshot(seconds, cause, trigger))
        for number, (seconds, trigger) in enumerate(moments, 1)
    ]


def _notices(incident: Incident) -> list[tuple[str, Notice, dict[str, Receipt]]]:
    found = []
    for number, (kind, seconds, reason) in enumerate(
        (("opened", 0.3, "the kernel hit a TCP limit"), ("resolved", 720, "no further messages")), 1
    ):
        at = OPENED + timedelta(seconds=seconds)
        notice = Notice(
            id=f"msg_{incident.id}_{number:03}",
            type="sockmem.incident.opened" if kind == "opened" else "sockmem.incident.resolved",
            at=at,
            reason=reason,
            channels=("team", "ops"),
            data=None,
        )
        taken = Receipt(
            notice=notice.id,
            channel="team",
            outcome="delivered",
            at=at + timedelta(seconds=1),
            attempts=1,
            detail="HTTP 200",
        )
        late = replace(
            taken,
            channel="ops",
            outcome="delivered" if number == 1 else "gave_up",
            attempts=3,
            detail="HTTP 200" if number == 1 else "HTTP 503",
        )
        found.append((f"notice-{number:03}", notice, {"team": taken, "ops": late}))
    return found
