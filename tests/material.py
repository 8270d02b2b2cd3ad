"""Builders for the tests of core: one healthy host, which a test changes, and anything that the structs can hold."""

import ipaddress
import struct
from datetime import datetime, timedelta, timezone
from typing import Any

from hypothesis import strategies as st

from agent.core.diagnosis.diagnose import diagnose
from agent.core.model import (
    Advice,
    Diagnosis,
    Digest,
    DigestNotice,
    Event,
    Incident,
    Kind,
    Mechanism,
    Notice,
    NoticeType,
    Peak,
    Provenance,
    Sample,
    Snapshot,
    Sysctl,
)
from agent.core.readings import (
    STATES,
    FullGroup,
    Gap,
    Listener,
    Namespace,
    PeerTally,
    Process,
    SocketGroup,
    SocketTable,
    Sockstat,
    State,
    Tally,
    TcpProtocol,
    TcpSockstat,
)
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
        "sockstat": Sockstat(tcp=TcpSockstat(inuse=alloc, orphan=orphan, tw=20, alloc=alloc, mem=mem)),
        "protocol": TcpProtocol(press=press),
        "sysctls": values,
        "netstat": {"TCPAbortOnMemory": 37} if counters is None else counters,
        "meminfo": {} if ram is None else {"MemTotal": ram, "MemAvailable": ram // 2},
    }
    return Snapshot(**(facts | others))


def make_event(
    text: str = "orphans", provenance: Provenance = "kernel", seconds_ago: float = 0.2, **others: Any
) -> Event:
    kind, line = LINES[text]
    facts: dict[str, Any] = {
        "at": NOW - timedelta(seconds=seconds_ago),
        "uptime": None,
        "host": "web1",
        "kind": kind,
        "suppressed": None,
        "count": 1,
        "source": "kmsg:1",
        "provenance": provenance,
        "line": line,
    }
    return Event(**(facts | others))


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


# --- an incident as the channels send it ----------------------------------------------------------------------------

OPENED_AT = datetime(2026, 11, 22, 15, 5, 39, tzinfo=timezone.utc)
SENT_LINE = "Nov 22 15:05:39 web1 kernel: [261096.028929] TCP: too many orphaned sockets"


def make_sent_incident(**changes: Any) -> Incident:
    event = make_event(at=OPENED_AT, uptime=261096.028929, source="/var/log/messages@1234", line=SENT_LINE)
    summary = (
        "The limit of orphaned TCP sockets was reached: 131,080 of 131,072. The kernel resets closing connections."
    )
    advice = Advice(
        action="Raise the limit of orphans to 524,288",
        why="the peak was at the limit",
        risk="up to 2.1 GiB of memory that cannot be swapped",
        sysctl=Sysctl(key="net.ipv4.tcp_max_orphans", current=131_072, proposed=524_288),
        commands=("sysctl -w net.ipv4.tcp_max_orphans=524288",),
        persist="net.ipv4.tcp_max_orphans = 524288\n",
    )
    mechanism = Mechanism(
        penalty_shift=0,
        orphan=131_080,
        tcp_max_orphans=131_072,
        limit_reached=131_072,
        mem_pages=87_916,
        tcp_mem_pages=(287_898, 383_867, 575_796),
        mem_bytes=87_916 * 4096,
        tcp_mem_bytes=(287_898 * 4096, 383_867 * 4096, 575_796 * 4096),
        page_size_bytes=4096,
    )
    fields: dict[str, Any] = {
        "id": "20261122T150539Z-7f3a",
        "host": "web1",
        "kernel": "6.1.0-28-amd64",
        "boot_id": "0f3a",
        "opened_at": OPENED_AT,
        "last_seen_at": OPENED_AT + timedelta(minutes=12),
        "events": {"too_many_orphans": 3, "suppressed": 1},
        "suppressed_at_least": 273,
        "provenance": "kernel",
        "first_event": event,
        "cause": "orphans",
        "confidence": "certain",
        "summary": summary,
        "diagnosis": Diagnosis(
            cause="orphans", confidence="certain", summary=summary, mechanism=mechanism, advice=(advice,)
        ),
        "peak": Peak(orphan=131_080, orphan_at=OPENED_AT, mem=87_916, mem_at=OPENED_AT),
    }
    return Incident(**(fields | changes))


def make_digest_notice(count: int = 37, host: str = "web1") -> DigestNotice:
    ids = tuple(f"20261122T15{minute:02}39Z-7f3a" for minute in range(count))
    return DigestNotice(
        id="msg_digest_0123456789abcdef",
        type="sockmem.digest",
        at=OPENED_AT,
        reason="",
        channels=("ops",),
        data=None,
        host=host,
        digest=Digest(since=OPENED_AT - timedelta(hours=1), count=count, ids=ids),
    )


def make_sent_notice(kind: NoticeType = "sockmem.incident.opened", **changes: Any) -> Notice:
    if kind == "sockmem.digest":
        return make_digest_notice()
    if kind == "sockmem.test":
        data = None
    elif kind == "sockmem.incident.resolved":
        data = make_sent_incident(**({"closed_at": OPENED_AT + timedelta(minutes=17)} | changes))
    else:
        data = make_sent_incident(**changes)
    at = {"sockmem.incident.updated": 60, "sockmem.incident.resolved": 1020}.get(kind, 0)
    return Notice(
        id="20261122T150539Z-7f3a.001",
        type=kind,
        at=OPENED_AT + timedelta(seconds=at),
        reason="the kernel ran out",
        channels=("ops",),
        data=data,
    )


# --- tables of sockets ----------------------------------------------------------------------------------------------

NGINX, SHOP = 3001, 3002
PATHS = {1: "/", NGINX: "/system.slice/nginx.service", SHOP: "/system.slice/shop.service"}


def tally(sockets: int, each: int = 4096, **others: int) -> Tally:
    return Tally(sockets=sockets, bytes=sockets * each, **others)


def make_group(cgroup: int | None = NGINX, port: int | None = 443, **states: Tally | Any) -> SocketGroup:
    """Make a group; a state goes to the orphans unless it is one that only open sockets have."""
    facts: dict[str, Any] = {"cgroup": cgroup, "port": port, "held": {}, "orphaned": {}}
    for name, value in states.items():
        if name in {"established", "close_wait"}:
            facts["held"][name] = value
        elif name in STATES:
            facts["orphaned"][name] = value
        else:
            facts[name] = value
    return SocketGroup(**facts)


def make_table(
    *groups: SocketGroup, orphan: int | None = None, mem: int | None = None, alloc: int | None = None, **others: Any
) -> SocketTable:
    """Make a whole table; what sockstat says is what the groups have, unless told."""
    tcp = TcpSockstat(
        orphan=sum(group.orphans for group in groups) if orphan is None else orphan,
        mem=sum(group.bytes for group in groups) // 4096 if mem is None else mem,
        alloc=sum(group.sockets for group in groups) if alloc is None else alloc,
    )
    facts: dict[str, Any] = {"paths": PATHS, "complete": True, "sockstat": Sockstat(tcp=tcp)}
    return SocketTable(groups=groups, **(facts | others))


# --- sock_diag's messages, byte for byte as inet_sk_diag_fill() of the kernel named writes them ---------------------

ESTABLISHED, SYN_RECV, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK, LISTEN = 1, 3, 4, 5, 8, 9, 10
RETRANSMIT, KEEPALIVE, TIMEWAIT, PROBE = 1, 2, 3, 4
AF_INET, AF_INET6 = 2, 10
SKMEMINFO, SHUTDOWN, MARK, ULP_INFO, CGROUP_ID, SOCKOPT = 7, 8, 15, 17, 21, 22
MULTI, INTERRUPTED = 2, 0x10


def attribute(kind: int, payload: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(payload), kind) + payload + bytes(-len(payload) % 4)


def skmeminfo(rmem: int = 0, wmem: int = 0, forward: int = 0, words: int = 9, drops: int = 0) -> bytes:
    values = struct.pack("=IIIIiIIII", rmem, 131072, 0, 2626560, forward, wmem, 0, 0, drops)
    return attribute(SKMEMINFO, values[: 4 * words])


def cgroup(number: int) -> bytes:
    return attribute(CGROUP_ID, struct.pack("=Q", number))


def message(kind: int, payload: bytes, flags: int = MULTI) -> bytes:
    return struct.pack("=IHHII", 16 + len(payload), kind, flags, 1, 0) + payload + bytes(-len(payload) % 4)


def done(errno: int = 0) -> bytes:
    return message(3, struct.pack("=i", -errno))


def error(errno: int) -> bytes:
    return message(2, struct.pack("=i", -errno) + bytes(16))


def tcp(
    *attributes: bytes,
    state: int = ESTABLISHED,
    timer: int = 0,
    retransmits: int = 0,
    sport: int = 443,
    dport: int = 51022,
    peer: str = "192.0.2.7",
    unread: int = 0,
    unsent: int = 0,
    inode: int = 77,
    family: int | None = None,
    flags: int = MULTI,
) -> bytes:
    """Make the message of one socket; without attributes it is a minisock."""
    address = ipaddress.ip_address(peer).packed
    family = family or (AF_INET if len(address) == 4 else AF_INET6)
    if family == AF_INET6 and len(address) == 4:
        address = bytes(10) + b"\xff\xff" + address
    body = struct.pack("=BBBB", family, state, timer, retransmits) + struct.pack("!HH", sport, dport)
    body += bytes(16) + address.ljust(16, b"\0") + struct.pack("=III", 0, 1, 0)
    body += struct.pack("=IIIII", 0, unread, unsent, 33, inode)
    return message(20, body + b"".join(attributes), flags)


def usual(group: int | None = 4242, **memory: int) -> list[bytes]:
    """List the attributes of a full socket on 6.1: shutdown, cgroup, options, memory."""
    named = [] if group is None else [cgroup(group), attribute(SOCKOPT, bytes(3))]
    return [attribute(SHUTDOWN, b"\0"), *named, skmeminfo(**memory)]


# What is read of meminfo and zoneinfo.
MEMINFO = [
    "MemTotal",
    "MemFree",
    "MemAvailable",
    "Cached",
    "HighTotal",
    "LowTotal",
    "LowFree",
    "Hugetlb",
    "MovableTotal",
]

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
            "net.ipv4.tcp_rto_max_ms",
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
    meminfo=st.dictionaries(st.sampled_from(MEMINFO), numbers),
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
counts = st.integers(0, 2**40) | st.integers(0, 5000)
cgroups = st.none() | st.sampled_from([1, NGINX, SHOP, 77])
ports = st.none() | st.integers(0, 65535)
names = st.text(max_size=20) | st.sampled_from(["nginx", "haproxy", "x (pid 1), y"])
processes = st.none() | st.builds(Process, pid=counts, name=names, cgroup=st.none() | names)
tallies: st.SearchStrategy[Tally] = st.builds(Tally, **dict.fromkeys(Tally.__struct_fields__, counts))
states: st.SearchStrategy[dict[State, Tally]] = st.dictionaries(st.sampled_from(STATES), tallies, max_size=3)
peers = st.builds(
    PeerTally,
    network=st.none() | st.text(max_size=8) | st.sampled_from(["203.0.113.0/24", "10.1.2.0/24", "2001:db8::/64"]),
    sockets=counts,
    orphans=counts,
    bytes=counts,
)
groups = st.builds(
    SocketGroup,
    cgroup=cgroups,
    port=ports,
    to_port=ports,
    held=states,
    queued=states,
    orphaned=states,
    peers=st.lists(peers, max_size=2).map(tuple),
    process=processes,
    folded=st.booleans(),
)
listeners = st.builds(
    Listener, port=st.integers(0, 65535), waiting=counts, backlog=counts, cgroup=cgroups, process=processes
)
sums = st.none() | counts
tables = st.builds(
    SocketTable,
    groups=st.lists(groups, max_size=4).map(tuple),
    listeners=st.lists(listeners, max_size=2).map(tuple),
    listening=counts,
    paths=st.dictionaries(st.sampled_from([1, NGINX, SHOP]), names | st.sampled_from(list(PATHS.values()))),
    namespaces=st.lists(st.builds(Namespace, process=processes.filter(bool), inuse=sums, number=sums), max_size=1).map(
        tuple
    ),
    full_groups=st.lists(
        st.builds(FullGroup, path=names, current_bytes=counts, limit_bytes=counts, sock_bytes=sums, refused=sums),
        max_size=2,
    ).map(tuple),
    sockstat=st.none() | st.builds(Sockstat, tcp=st.builds(TcpSockstat, orphan=sums, mem=sums, alloc=sums)),
    complete=st.booleans(),
)
