"""Each reader of foreign bytes, called as the program calls it, and what is then done with its result.

``make fuzz`` feeds them at random; test_targets.py what once broke one, and ever longer repetitions.
"""

import bz2
import contextlib
import copy
import gzip
import io
import json
import lzma
import os
import re
import socket
import tempfile
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import cache, partial
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, TypeVar

import material as wire
import msgspec
import urllib3.util.connection
from harness import TRACE_FORMATS
from material import NOW, make_digest_notice, make_sample, make_sent_incident, make_sent_notice, make_snapshot

from agent.config import keys
from agent.config.load import ConfigError, channels, load, masked
from agent.core import folding, model
from agent.core.cursor import Cursor, FileCursor, Resume
from agent.core.delivery import Receipt, Trouble
from agent.core.diagnosis.diagnose import diagnose
from agent.core.kernel import procfs, tracing
from agent.core.kernel.detector import Detector
from agent.core.kernel.messages import detect, other_limit
from agent.core.kernel.release import has_small_pages, parse_kernel
from agent.core.logs.explain import explain, is_refused
from agent.core.logs.pasted import respellings
from agent.core.logs.prefilter import MAX_LINE_BYTES, runs
from agent.core.logs.records import spread, to_record
from agent.core.model import Event, LogRecord, Silence
from agent.core.recurrence import past_of
from agent.core.report import body_text, title
from agent.core.settings import EmailSettings, SlackSettings
from agent.core.sockets.census import Census
from agent.core.sockets.cgroup_names import name_cgroup, parse_proc_cgroup
from agent.core.sockets.grouping import group
from agent.core.sockets.inetdiag import BUFFER_BYTES, Reader
from agent.core.sockets.nettcp import Lines, inode_of
from agent.core.status import STATUS, Status, check
from agent.core.status import Reader as StatusReader
from agent.notifiers import ChannelError, build, email, network, transport
from agent.notifiers.answer import Answer, sort_answer
from agent.notifiers.body import encode
from agent.notifiers.email import EmailNotifier
from agent.notifiers.slack import SlackNotifier
from agent.notifiers.transport import ANSWER_BYTES
from agent.page.incident_files import IncidentFiles
from agent.page.text import incident_text
from agent.probe.files import CAP_BYTES
from agent.sources import kmsg
from agent.sources.journal import FIELD_AT_MOST_BYTES, JournalSource
from agent.sources.multiline import Entries, lines_of
from agent.sources.scanner import Scanner, UnreadableError
from agent.sources.search import HOLDS
from agent.store.disk import StoreError, read_json
from agent.store.history import read_lines

T = TypeVar("T")

TESTS = Path(__file__).parent.parent
ORPHANS = b"TCP: too many orphaned sockets"
SNAPSHOT, INCIDENT, NOTICE, DIGEST = make_snapshot(), make_sent_incident(), make_sent_notice(), make_digest_notice()
MIB = 1 << 20
MANY = 2**64 - 1
# A type is the same for every input, and to look at it takes msgspec longer than all else that reads a configuration.
keys.type_info = cache(keys.type_info)


class Target(NamedTuple):
    """A reader, examples of what it reads, and the only errors that it may raise.

    Long input has ``long_bytes``: the most that the reader takes, or several of its blocks. It is something repeated
    between the two parts of each of the ``frames``, where the reader looks closely.
    """

    read: Callable[[bytes], object]
    seeds: Callable[[], list[bytes]]
    long_bytes: int
    declared: tuple[type[Exception], ...] = ()
    frames: tuple[tuple[bytes, bytes], ...] = ((b"", b""),)


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    """Make a folder for readers of files, which lasts as long as this process."""
    return tempfile.TemporaryDirectory(prefix="sockmem-fuzz-")


@cache
def _open(name: str) -> tuple[Path, int]:
    path = Path(_folder().name, name)
    return path, os.open(path, os.O_WRONLY | os.O_CREAT)


def _file(name: str, data: bytes) -> Path:
    path, descriptor = _open(name)
    os.truncate(descriptor, os.pwrite(descriptor, data, 0))
    return path


@contextlib.contextmanager
def _instead(*changes: tuple[Any, str, object]) -> Iterator[None]:
    """Have attributes of modules be something else; mock.patch takes longer for that than some readers to read."""
    before = [getattr(module, name) for module, name, _ in changes]
    for module, name, value in changes:
        setattr(module, name, value)
    try:
        yield
    finally:
        for (module, name, _), value in zip(changes, before, strict=True):
            setattr(module, name, value)


def _as_json(value: object) -> None:
    """What is read of the host is stored, and read again."""
    msgspec.json.decode(msgspec.json.encode(value))


# --- what logs hold -------------------------------------------------------------------------------------------------


def _corpus() -> list[bytes]:
    lines = (TESTS / "corpus/lines.jsonl").read_text().splitlines()
    return [json.loads(line)["line"].encode() for line in lines] + _forgeries()


def _forgeries() -> list[bytes]:
    return (TESTS / "corpus/forgeries.txt").read_bytes().splitlines()


def read_log(data: bytes) -> None:
    """As the file source reads a log, and ``scan --explain`` after it."""
    detector, kept = Detector(), list[tuple[LogRecord, Event]]()
    for offset, line, count in chain.from_iterable(runs(data, HOLDS)):
        for part in spread(line):
            record = to_record(part, now=NOW, source="log", ordinal=offset, times=count, console=True)
            decided = detector.feed(record) if record else []
            explain(part.decode(errors="replace"), record, decided[-1][1] if decided else None)
            is_refused(part.decode(errors="replace"), record)
            kept += decided
    detector.waiting(NOW)
    _keep(kept)


def _keep(decided: list[tuple[LogRecord, Event]]) -> None:
    """Make an incident of all events, and tell of it."""
    if not decided:
        return
    records, events = zip(*decided, strict=True)
    found = diagnose(SNAPSHOT, events, ())
    incident = folding.open_incident(events[0], events[0].at or NOW, SNAPSHOT, found)
    for event in events:
        incident = folding.fold(incident, event, event.at or NOW)
    model.INCIDENT.decode(msgspec.json.encode(incident))
    _as_json(records)


def read_pasted(data: bytes) -> None:
    """As ``diagnose --message`` reads what a person hands over."""
    for line in lines_of(data.decode(errors="replace")):
        for reading in (line, *respellings(line)):
            record = to_record(reading.encode(), now=NOW, source="argument", ordinal=1)
            if record:
                detect(record)
        other_limit(line)


def read_entries(data: bytes) -> None:
    """As ``scan`` reads records that are spread over lines."""
    entries = Entries(io.BufferedReader(io.BytesIO(data)))
    for number, line in entries if entries.are_here else ():
        for part in spread(line):
            to_record(part, now=NOW, source="entry", ordinal=number)


def _entries() -> list[bytes]:
    fields = {"_TRANSPORT": "kernel", "SYSLOG_FACILITY": "0", "_HOSTNAME": "web1", "MESSAGE": ORPHANS.decode()}
    lines = "".join(f"{name}={value}\n" for name, value in fields.items())
    heading = "Sun 2024-08-18 06:33:14.204518 UTC [s=5ad8;i=1;b=1;m=2a;t=3b9aca00;x=1]\n"
    return [
        f"__CURSOR=s=5ad8;i=1\n{lines}\n".encode(),
        b"__CURSOR=s=5ad8;i=1\nMESSAGE\n" + len(ORPHANS).to_bytes(8, "little") + ORPHANS + b"\n\n",
        (heading + "".join(f"    {line}\n" for line in lines.splitlines())).encode(),
        json.dumps(fields, indent=1).encode(),
        json.dumps([fields, {"data": [{"values": [["1", ORPHANS.decode()]], "stream": {"job": "kernel"}}]}]).encode(),
        json.dumps({"dmesg": [{"pri": 6, "time": 85.04, "msg": ORPHANS.decode()}]}, indent=1).encode(),
        b'"timestamp","source","message"\n"2024-08-18T06:33:14.204Z","jp58","Aug 18 08:33:14 jp58 kernel: %b"\n'
        % ORPHANS,
    ]


def read_packed(data: bytes) -> None:
    """As ``scan FILE`` reads a file that may be compressed."""
    list(Scanner().read(str(_file("log", data)), NOW))


def _packed() -> list[bytes]:
    line = b"Aug 18 08:33:14 jp58 kernel: " + ORPHANS + b"\n"
    whole = [
        line,
        gzip.compress(line),
        lzma.compress(line),
        bz2.compress(line),
        _zstd(line),
        line.decode().encode("utf-16"),
    ]
    return [*whole, *(each[:-3] for each in whole), lzma.compress(line) * 2, gzip.compress(line) + b"\0\0junk"]


def _zstd(line: bytes) -> bytes:
    import zstandard  # noqa: PLC0415 - only this seed needs it

    return zstandard.compress(line)


def read_kmsg(data: bytes) -> None:
    """As the source reads /dev/kmsg: /proc/stat first, then a record each, all separated by NUL bytes."""
    stat, *records = data.split(b"\0")
    proc = _file("stat", stat).parent
    waiting = iter(records)

    def read_record(_: int) -> bytes:
        try:
            return next(waiting)
        except StopIteration:
            raise BlockingIOError from None

    with _instead((kmsg, "read_record", read_record)):
        source = kmsg.KmsgSource(os.devnull, proc, start="beginning", now=lambda: NOW)
        detector = Detector()
        _keep(list(chain.from_iterable(map(detector.feed, source.read()))))
        _as_json((source.position(), source.gaps()))
        source.close()


@cache
def _journal_source() -> JournalSource:
    return JournalSource(f"{_folder().name}/none")


def read_journal(data: bytes) -> None:
    """As the source reads an entry: fields as NAME=VALUE, separated by NUL bytes; a name twice is a list."""
    given: dict[str, list[bytes]] = {}
    for field in data.split(b"\0"):
        name, _, value = field[:FIELD_AT_MOST_BYTES].partition(b"=")
        given.setdefault(name.decode("ascii", "replace"), []).append(value)
    fields = {name: values if len(values) > 1 else values[0] for name, values in given.items()}
    reader = SimpleNamespace(_get_all=lambda: fields, _get_realtime=lambda: MANY, _get_monotonic=lambda: (MANY, b""))
    record = _journal_source()._record(reader, "s=1;i=1")
    if record:
        _keep(Detector().feed(record))


# --- what the kernel holds ------------------------------------------------------------------------------------------

PROC_PARSERS: tuple[Callable[[str], object], ...] = (
    procfs.parse_sockstat,
    procfs.parse_inuse,
    procfs.parse_sockstat6,
    procfs.parse_netstat,
    partial(procfs.parse_netstat, only=("TCPAbortOnMemory", "PruneCalled")),
    procfs.parse_snmp,
    procfs.parse_protocols,
    procfs.parse_meminfo,
    procfs.parse_movable,
    procfs.parse_pressure,
    partial(procfs.parse_sysctl, file="sysctl"),
    partial(procfs.parse_sysctl, file="tcp_mem", count=3, within=procfs.UNSIGNED_LONG),
    procfs.parse_uptime,
    procfs.parse_stat_cpus,
    procfs.parse_stat_boot,
    procfs.parse_memory_stat,
    partial(procfs.parse_word, file="hostname"),
    procfs.parse_version,
    procfs.parse_fib_trie,
    procfs.parse_if_inet6,
    procfs.parse_process_stat,
    procfs.parse_smaps,
    lambda text: procfs.infer_page_size(text, {"MemFree": 2**33}),
    procfs.parse_memory_events,
    lambda text: name_cgroup(parse_proc_cgroup(text) or text),
    parse_kernel,
    has_small_pages,
)


def read_proc(data: bytes) -> None:
    """Each parser of a file below /proc or of a cgroup; only a ParseError is declared."""
    text = data.decode(errors="replace")
    procfs.parse_auxv(data)
    for parse in PROC_PARSERS:
        with contextlib.suppress(procfs.ParseError):
            _as_json(parse(text))


def _proc() -> list[bytes]:
    return [
        *(path.read_bytes() for path in _base_host()),
        b"sockets: used 1540\nTCP: inuse 893 orphan 3 tw 310 alloc 900 mem 1200\nUDP: inuse 12 mem 3\n",
        b"TCP6: inuse 5\n",
        b"some avg10=0.87 avg60=0.23 avg300=0.10 total=5798710\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
        b"Node 0, zone  Movable\n  pages free     9042\n        managed  262144\n      nr_zone_inactive_file 5021\n",
        b"anon 4096\nsock 8192\n",
        b"low 0\nhigh 3\nmax 12\noom 0\n",
        b"Linux version 2.6.32-754.el6.x86_64 (builder@kbuilder) (gcc) #1 SMP\n",
        b"  |-- 10.88.0.7\n     /32 host LOCAL\n",
        b"fe800000000000000000000000000001 02 40 20 80     eth0\n",
        b"4711 (a) b) S 1 4711 4711 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 123456 1 1\n",
        b"KernelPageSize:        4 kB\nKernelPageSize:     2048 kB\n",
        b"nr_free_pages 2097152\n",
        b"0::/system.slice/docker-" + b"0123456789abcdef" * 4 + b".scope\n",
        b"4:memory:/kubepods.slice/kubepods-pod0a1b2c3d_0000_1111_2222_333344445555.slice/x.scope\n1:name=systemd:/\n",
        (6).to_bytes(8, "little") + (4096).to_bytes(8, "little") + bytes(16),
        b"MemTotal: 24570628 kB\nHugePages_Total: 512\nHugePages_Free: 12\nHugePages_Rsvd: 1\nHugepagesize: 2048 kB\n",
    ]


def _base_host() -> list[Path]:
    from harness import lay_out, scenario_names  # noqa: PLC0415 - written to disk, when they are asked for

    return sorted(path for path in (lay_out(scenario_names()[0]) / "proc").rglob("*") if path.is_file())


def read_trace(data: bytes) -> None:
    """A tracepoint's format file, a NUL byte, and what is then read of its instance."""
    form, _, text = data.partition(b"\0")
    found = tracing.parse_format(form.decode(errors="replace"))
    tracing.hist_triggers(found)
    tracing.kill_reason(found, tracing.KILL_REASON)
    hist = tracing.parse_hist(found, text)
    _as_json((tracing.risen({}, hist), tracing.risen(hist, hist)))
    with contextlib.suppress(procfs.ParseError):
        _as_json(tracing.parse_kills(tracing.kill_pattern(found, tracing.KILL_REASON), text))
    _as_json(tracing.parse_refusals(tracing.refusal_pattern(found), text))


def _trace() -> list[bytes]:
    kill = (
        b"         python3-20257   [001] b..1.  5505.345442: tcp_send_reset: skbaddr=0000000000000000 "
        b"skaddr=00000000fdcd7b81 src=127.0.0.1:42102 dest=[::1]:8898 state=TCP_CLOSE reason=TCP_ABORT_ON_MEMORY\n"
    )
    refusal = (
        b"         python3-20257   [000] .....  5611.000123: sock_exceed_buf_limit: proto:TCP sysctl_mem=500,800,1000 "
        b"allocated=1217 sysctl_rmem=4096 rmem_alloc=0 sysctl_wmem=4096 wmem_alloc=1 wmem_queued=0 kind=SK_MEM_SEND\n"
    )
    hist = (
        b"# event histogram\n#\n"
        b"{ common_pid: python3         [     20257] } hitcount:        178  allocated:     216626\n"
        b"{ kind:          1 } hitcount:         10  allocated:      12170\n    Dropped: 3\n"
    )
    lost = b"CPU:1 [LOST 12 EVENTS]\n"
    forms = sorted(TRACE_FORMATS.rglob("*_*"))
    texts = {"tcp_send_reset": kill + lost, "sock_exceed_buf_limit": refusal + lost + hist}
    return [path.read_bytes() + b"\0" + texts[path.name] for path in forms]


@cache
def _ports() -> Census:
    return Census()


def _census() -> Census:
    """Make a census; its tables of ports take milliseconds, copies of them do not."""
    made = copy.copy(_ports())
    made.rows, made.minisocks, made.listeners = {}, {}, {}
    made.near, made.far = made.near[:], made.far[:]
    return made


def read_netlink(data: bytes) -> None:
    """A dump of sock_diag, and what is made of it."""
    census = _census()
    Reader(census).feed(data, len(data))
    _as_json(group(census))


def _netlink() -> list[bytes]:
    full = wire.tcp(*wire.usual(rmem=4096, wmem=832))
    return [
        full * 2 + wire.done(),
        wire.tcp(wire.skmeminfo(drops=3), peer="2001:db8::7") + wire.error(2),
        wire.tcp(state=wire.LISTEN, sport=443) + full,
        wire.tcp(*wire.usual(None), flags=wire.INTERRUPTED) + wire.tcp(),
    ]


def read_net_tcp(data: bytes) -> None:
    """/proc/PID/net/tcp and tcp6, and what is made of them."""
    census = _census()
    lines = Lines(census, 1, (32768, 60999))
    for line in data.split(b"\n"):
        lines.count(line)
        inode_of(line)
    _as_json(group(census))


NET_TCP = (
    b"   0: 0100007F:1F90 00000000:0000 0A 00000000:00000003 00:00000000 00000000     0        0 5150 1 0000000\n"
    b"   1: 0100007F:1F90 0100007F:D4A2 04 0000C350:00000000 01:00000014 00000002     0        0 0 4 0000000\n"
    b"   2: 0000000000000000FFFF00000100007F:1F90 B80D0120000000000000000001000000:D4A2 01 00000001:00000002 "
    b"01:00000014 00000005     0        0 77 4 0000000\n"
)


# --- what is stored -------------------------------------------------------------------------------------------------


def _tell(incident: model.Incident) -> None:
    incident_text(IncidentFiles(incident))
    past_of(incident)
    if incident.diagnosis.cause:
        encode(folding.notice(incident, ("sockmem.incident.opened", "x"), ("ops",), NOW))


def _look_at(snapshot: model.Snapshot) -> None:
    found = diagnose(snapshot, (), ())
    incident = folding.open_killed(NOW, snapshot, found)
    incident_text(IncidentFiles(incident, snapshots=(("snapshot-001.json", snapshot),)))


def _send(notice: model.Notice) -> None:
    title(notice), body_text(notice), encode(notice)


READER = StatusReader(NOW, 1000.0, "b", 1, has_process=True)
STORED: dict[bytes, tuple[msgspec.json.Decoder[Any], Callable[[Any], object]]] = {
    b"incident": (model.INCIDENT, _tell),
    b"snapshot": (model.SNAPSHOT, _look_at),
    b"notice": (model.NOTICE, _send),
    b"brief": (model.BRIEF_NOTICE, _as_json),
    b"signed": (model.SIGNED, past_of),
    b"receipt": (model.RECEIPT, _as_json),
    b"resume": (model.RESUME, _as_json),
    b"silence": (model.SILENCE, lambda silence: silence.is_on(NOW)),
    b"trouble": (model.TROUBLE, _as_json),
    b"status": (STATUS, lambda status: check(status, READER)),
}


def read_stored(data: bytes) -> None:
    """The name of a kind of file, a line break, and the file; ``samples`` are read with the incident they surround."""
    name, _, content = data.partition(b"\n")
    if name == b"samples":
        samples = tuple(read_lines(content))
        diagnose(SNAPSHOT, (), samples)
        incident_text(IncidentFiles(INCIDENT, samples=samples))
    elif name in STORED:
        decoder, use = STORED[name]
        use(read_json(_file("stored.json", content), decoder))


def _stored() -> list[bytes]:
    place = FileCursor(device=1, inode=2, offset=3, marker="m", written_ns=4)
    values: dict[str, msgspec.Struct] = {
        "incident": INCIDENT,
        "snapshot": SNAPSHOT,
        "notice": NOTICE,
        "brief": NOTICE,
        "signed": INCIDENT,
        "receipt": Receipt(notice="n", channel="ops", outcome="delivered", at=NOW, attempts=1, detail="taken"),
        "resume": Resume(generation=3, cursor=Cursor(files={"/var/log/messages": place})),
        "silence": Silence(until=NOW + timedelta(hours=1), since=NOW, reason="deploying"),
        "trouble": Trouble(channel="ops", why="HTTP 503", since=NOW, at=NOW),
        "samples": make_sample(60, TCPAbortOnMemory=3),
    }
    status = Status(
        version="1",
        is_running=True,
        written_at=NOW,
        monotonic_seconds=990.0,
        boot_id="b",
        pid=7,
        pid_namespace=1,
        started_at=NOW,
        following="the journal",
        directory="/x",
        open=(),
        last=None,
        channels=(),
        silence=None,
        troubles=(),
    )
    return [name.encode() + b"\n" + msgspec.json.encode(value) for name, value in {**values, "status": status}.items()]


def read_config(data: bytes) -> None:
    """As ``config check`` and ``config show`` read it, and the service builds its channels."""
    settings = load(_file("config.toml", data), {})
    _as_json(masked(settings))
    for channel in channels(settings):
        build(channel)


def _config() -> list[bytes]:
    example = re.sub(rb"(?m)^#.*\n", b"", (TESTS.parent / "config.example.toml").read_bytes())
    return [
        b'[source]\nkind = "file"\npaths = ["/var/log/messages"]\n[incident]\nquiet_seconds = 300\n',
        b'[[notify]]\nname = "ops"\ntype = "webhook"\nurl = "https://u:p@[::1]:8443/x?y#z"\nheaders = {a = "b"}\n',
        b'[[notify]]\nname = "m"\ntype = "email"\nto = ["a@b"]\nfrom = "c@d"\nsmtp = "localhost:25"\n',
        b'[[notify]]\nname = "a"\ntype = "alertmanager"\nurls = ["http://h:1"]\nlabels = {team = "net"}\n',
        example,
    ]


# --- what receivers answer ------------------------------------------------------------------------------------------


class _Attempt(network.Attempt[Any]):
    """An attempt in the thread that waits for it: to start another takes as long as to read the answer."""

    def start(self) -> None:
        _attempts.append(self)
        self.run()
        _attempts.pop()

    def is_alive(self) -> bool:
        return False

    def join(self, timeout: float | None = None) -> None:
        del timeout


_attempts: list[_Attempt] = []


@contextlib.contextmanager
def _answering(module: Any, answer: bytes) -> Iterator[None]:
    """Connect to one who has answered before it is asked, and hangs up."""
    ours, theirs = socket.socketpair()

    def connect(*_: object, **__: object) -> socket.socket:
        return ours

    with theirs:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MIB)
        with contextlib.suppress(BlockingIOError):
            theirs.send(answer, socket.MSG_DONTWAIT)
        theirs.shutdown(socket.SHUT_WR)
        in_this_thread = (network, "Attempt", _Attempt), (transport, "this_attempt", lambda: _attempts[-1])
        with ours, _instead((module, "create_connection", connect), *in_this_thread):
            yield


def _once(make: Callable[..., T]) -> Callable[..., T]:
    """Make the first result every one: what is sent is the same for every answer, and takes longer than to read it."""
    made: list[T] = []

    def again(*args: object, **named: object) -> T:
        if not made:
            made.append(make(*args, **named))
        return made[0]

    return again


@cache
def _slack() -> SlackNotifier:
    notifier = SlackNotifier(SlackSettings(name="ops", url="http://receiver.example/"))
    notifier._poster._sender = sender = notifier._poster._make_sender()
    session = sender._session
    session.prepare_request = _once(session.prepare_request)  # type: ignore[method-assign]
    session.merge_environment_settings = _once(session.merge_environment_settings)  # type: ignore[method-assign]
    return notifier


@cache
def _email() -> EmailNotifier:
    return EmailNotifier(EmailSettings(name="mail", to=("a@example.org",), from_="b@example.org", tls="none"))


_compose_once = _once(email.compose)


def read_http(data: bytes) -> None:
    """An answer over HTTP, from its status line to the end of its body."""
    with _answering(urllib3.util.connection, data):
        _as_json(_slack().notify(DIGEST))


def _http() -> list[bytes]:
    return [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 429 Too Many\r\nRetry-After: 120\r\nDate: Sun, 22 Nov 2026 15:07:39 GMT\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 503 x\r\nContent-Type: multipart/mixed; boundary=x\r\n a: b\r\n\r\n--x",
        b"HTTP/1.1 301 x\r\nLocation: http://h/\r\nContent-Encoding: gzip\r\nSet-Cookie: a=b\r\n\r\n\x1f\x8b",
    ]


def read_smtp(data: bytes) -> None:
    """A mail server's answers, all of them."""
    with _instead((email, "compose", _compose_once)), _answering(email.socket, data):
        _as_json(_email().notify(NOTICE))


def read_headers(data: bytes) -> None:
    """Status, Retry-After, Date and body of an answer, one a line, without the HTTP around them."""
    status, after, date, body = (*data.split(b"\n", 3), b"", b"", b"")[:4]
    code = int(status) if status.isdigit() and len(status) <= 3 else 429  # http.client lets no others by
    header, moment = after.decode("latin-1"), date.decode("latin-1")
    _as_json(sort_answer(Answer(code, header, body, moment), NOW))


LOG_FRAMES = (
    (b"", b""),
    (b"", b" " + ORPHANS),
    (b"Aug 18 08:33:14 jp58 ", b"kernel: " + ORPHANS),
    (b"Aug 18 08:33:14 jp58 kernel: " + ORPHANS, b""),
    (b'{"MESSAGE":"' + ORPHANS + b'","a":', b"}"),
    (b'[{"MESSAGE":"' + ORPHANS + b'"},', b"]"),
)
TARGETS = {
    "log": Target(read_log, _corpus, MAX_LINE_BYTES, frames=LOG_FRAMES),
    "pasted": Target(read_pasted, _corpus, MAX_LINE_BYTES // 2, frames=LOG_FRAMES),
    "entries": Target(
        read_entries,
        _entries,
        2 * MAX_LINE_BYTES,
        frames=(
            (b'{"MESSAGE":"' + ORPHANS, b""),
            (b'[{"MESSAGE":"' + ORPHANS + b'"},', b"]"),
            (b"__CURSOR=s=5ad8;i=1\n", b""),
        ),
    ),
    "packed": Target(read_packed, _packed, 4 * MAX_LINE_BYTES, (UnreadableError,)),
    "kmsg": Target(
        read_kmsg,
        lambda: [
            b"btime 1790000000\n\0" + b"6,1842,84211114207,-;" + ORPHANS + b"\n SUBSYSTEM=x\n\0" + b"6,1844,9,c;x\\x0a"
        ],
        kmsg.RECORD_AT_MOST_BYTES,
        frames=(
            (b"btime 1\n\x006,1,2,-;", b""),
            (b"btime 1\n\x006,", b",2,-;" + ORPHANS),
            (b"btime ", b"\n\x006,1,2,-;"),
        ),
    ),
    "journal": Target(
        read_journal,
        lambda: [
            b"MESSAGE=" + ORPHANS + b"\0_HOSTNAME=web1\0_SOURCE_REALTIME_TIMESTAMP=1790000000000000\0"
            b"_SOURCE_MONOTONIC_TIMESTAMP=84211114207\0_HOSTNAME=b"
        ],
        2 * FIELD_AT_MOST_BYTES,
        frames=(
            (b"MESSAGE=" + ORPHANS, b""),
            (b"MESSAGE=" + ORPHANS + b"\0_SOURCE_MONOTONIC_TIMESTAMP=", b""),
            (b"MESSAGE=" + ORPHANS + b"\0_SOURCE_REALTIME_TIMESTAMP=", b""),
        ),
    ),
    "proc": Target(
        read_proc,
        _proc,
        CAP_BYTES // 16,
        frames=tuple(
            (before, b"\n")
            for before in (
                b"",
                b"TCP: ",
                b"TcpExt: ",
                b"sock ",
                b"MemTotal: ",
                b"0::/",
                b"some avg10=",
                b"\nNode 0, zone Movable\n",
            )
        ),
    ),
    "trace": Target(
        read_trace,
        _trace,
        MIB // 4,
        (procfs.ParseError,),
        frames=tuple((seed, b"") for seed in _trace()[-2:]),
    ),
    "netlink": Target(read_netlink, _netlink, BUFFER_BYTES, frames=((b"", b""), (_netlink()[0], b""))),
    "net_tcp": Target(
        read_net_tcp, lambda: [NET_TCP], MIB // 16, frames=((b"", b""), (b"   1: ", b""), (NET_TCP[:-1], b""))
    ),
    "stored": Target(
        read_stored,
        _stored,
        MIB // 4,
        (StoreError,),
        frames=((b"resume\n", b""), (b'incident\n{"a":', b"}"), (b"samples\n", b""), (b'samples\n{"at":"', b'"}')),
    ),
    "config": Target(
        read_config, _config, 4096, (ConfigError, ChannelError), frames=((b"", b""), (b"[source]\npaths = ", b""))
    ),
    "http": Target(
        read_http,
        _http,
        ANSWER_BYTES,
        frames=((b"", b""), (b"HTTP/1.1 200 OK\r\n", b"\r\n\r\n"), (b"HTTP/1.1 200 OK\r\n\r\n", b"")),
    ),
    "smtp": Target(
        read_smtp,
        lambda: [
            b"220 x\r\n250-x\r\n250 SIZE 9\r\n250 ok\r\n250 ok\r\n354 go\r\n250 2.0.0 taken\r\n",
            b"220 x\r\n550 5.7.1 no\r\n",
        ],
        ANSWER_BYTES,
        frames=((b"", b""), (b"220 ", b"\r\n"), (b"220 x\r\n250-", b"\r\n250 x\r\n")),
    ),
    "headers": Target(
        read_headers,
        lambda: [b"429\n120\nSun, 22 Nov 2026 15:07:39 GMT\nok", b"503\nSun, 22 Nov 2026 15:09:39 GMT\n\n"],
        MAX_LINE_BYTES,
        frames=(
            (b"429\n", b""),
            (b"429\nSun, ", b" 15:07:39 GMT\nSun, 22 Nov 2026 15:07:39 GMT\n"),
            (b"429\n1\n", b""),
        ),
    ),
}
# What readers look for, each by itself and repeated.
TOKENS = (
    *(bytes([byte]) for byte in b"[]{}\"'\\()<>/ \t\n\0=:,;.-+@%#|09aA_\xff"),
    *(b"\r\n", b"1 ", b"-1 ", b"a ", b"a: ", b"a=1 ", b"1e400,", b"NaN,", b"1" * 400 + b","),
    *(b'{"a":', b'[{"a":', b'{"a":[', b'"a",', b'"a":1,', b"[["),
    *(b'\\"', b"\\u0000", b"\\ud800", b"\\x0a", b"\x1b[", b"\x1b[0m"),
    *(b"\xc3\xa9", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\xe6\x9c\x88", b"\xd9\xa3"),
    *(b"<6>", b"<6>1 ", b"[1.000000] ", b"[1.000000", b"kernel: ", b"kern.info "),
    *(b"Aug 18 08:33:14 ", b"2024-08-18T08:33:14Z ", b'[a@1 b="c"]', b"s suppressed", b"TCP: out of memory ", b"CT1"),
    *(b"message repeated 2 times: [ ", b"Last message '", b"last message repeated 2 times\n"),
    *(ORPHANS, ORPHANS + b"\n", ORPHANS + b" ", b"net_ratelimit: 9 callbacks suppressed\n"),
    *(b"TCP: a 1\n", b"TcpExt: a\nTcpExt: 1\n", b"Node 0, zone  Movable\n"),
    *(b"a kB\n", b"|-- 1.2.3.4\n", b"a::/b\n", b"pod"),
    *(b"CPU:1 [LOST 1 EVENTS]\n", b"# event histogram\n", b"[  1] ", b"%s ", b"REC->a, "),
    *(b"{ kind: 1 } hitcount: 1  allocated: 1\n", b"a.b.c=1\n", b"[a.b]\n", b"[[notify]]\n", b'"""', b"a = [", b"{a="),
    *(b"HTTP/1.1 100 x\r\n\r\n", b"a: b\r\n", b"250-a\r\n"),
)


def take(target: Target, data: bytes) -> None:
    """Have a target read; only what it declares may come out."""
    with contextlib.suppress(*target.declared):
        target.read(data)
