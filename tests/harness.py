"""Builders for the tests of the edges: the agent as a process, its host and terminal, receivers, stored documents."""

import contextlib
import functools
import json
import lzma
import os
import pty
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path

from jsonschema import Draft202012Validator

from agent.core.budget import proof_of
from agent.core.delivery import Receipt, Trouble
from agent.core.dispatch import Said, Story
from agent.core.kernel.tracing import KILL_EVENT, REFUSAL_EVENT
from agent.core.model import Incident, Notice, Sample, Silence
from agent.probe.witness import Instances
from agent.store import Commit, Outbox, Store
from agent.store.history import read_lines
from agent.store.outbox import Settled

PATIENCE_SECONDS = 30.0
Handler = Callable[[socket.socket], None]


def wait_for(what: str, condition: Callable[[], object], seconds: float = PATIENCE_SECONDS) -> None:
    """Look until something is so; fail with its name when it never is."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds} s in vain for: {what}")
        time.sleep(0.02)


def hold_port() -> socket.socket:
    """Hold a loopback port while the socket is open: nobody gets it but a server that is told to listen there.

    The socket does not listen. A search for a free port passes by what is bound, and SO_REUSEADDR, which servers set
    (Go's, asyncio's, exim's), lets them in: inet_csk_bind_conflict().
    """
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    return held


def port_of(held: socket.socket) -> int:
    port: int = held.getsockname()[1]
    return port


def just_now(line: str) -> str:
    """Give a line of a log the stamp of this moment: what is old is reported when it is over."""
    return line.replace("Nov 22 15:05:39", f"{datetime.now():%b %e %H:%M:%S}")  # noqa: DTZ005 - as rsyslog does


def fill(listener: socket.socket) -> int:
    """Send to a datagram socket that nobody reads until it is full; return how many datagrams that took."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.settimeout(0)
        for sent in range(100_000):
            try:
                sender.sendto(b"STATUS=of somebody else", listener.getsockname())
            except BlockingIOError:
                return sent
    raise AssertionError("the socket never got full")


def on_terminal(program: list[str], columns: int, **environ: str) -> str:
    """Run a program on a terminal of this width, and return what it wrote, with the escape sequences in it."""
    leader, follower = pty.openpty()
    clean = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "FORCE_COLOR")}
    process = subprocess.Popen(
        program, stdout=follower, env={**clean, "TERM": "xterm", "COLUMNS": str(columns), **environ}
    )
    os.close(follower)
    output = b""
    with contextlib.suppress(OSError), open(leader, "rb", buffering=0) as terminal:  # noqa: PTH123 - a descriptor
        while piece := terminal.read(4096):
            output += piece  # The other side of a pty ends with an error.
    assert process.wait() == 0
    return output.decode().replace("\r\n", "\n")


def plain(output: str) -> list[str]:
    """Give the lines of a terminal's output without colours."""
    return re.sub(r"\x1b\[[\d;]*m", "", output).splitlines()


SOCKSTAT = """sockets: used 290
TCP: inuse {inuse} orphan {orphan} tw 12 alloc 340 mem {mem}
UDP: inuse 4 mem 2
UDPLITE: inuse 0
RAW: inuse 0
FRAG: inuse 0 memory 0
"""


def write_proc(root: Path, *, orphan: int = 3, mem: int = 150, aborts: int = 0, inuse: int = 20) -> Path:
    """Make a small tree shaped like /proc of a host with tcp_max_orphans 8192 and 16 GiB."""
    files = {
        "net/sockstat": SOCKSTAT.format(inuse=inuse, orphan=orphan, mem=mem),
        "net/netstat": f"TcpExt: TCPAbortOnMemory TCPMemoryPressures\nTcpExt: {aborts} 0\n",
        "net/snmp": "Tcp: CurrEstab OutRsts\nTcp: 12 3\n",
        "sys/net/ipv4/tcp_mem": "190686\t254251\t381372\n",
        "sys/net/ipv4/tcp_max_orphans": "8192\n",
        "sys/kernel/osrelease": "6.1.0-37-amd64\n",
        "sys/kernel/hostname": "web1\n",
        "sys/kernel/random/boot_id": "7f3a1c52-0000-4000-8000-000000000001\n",
        "meminfo": "MemTotal:       16303156 kB\nMemFree:         8151578 kB\nMemAvailable:   12000000 kB\n",
        "uptime": "86400.00 170000.00\n",
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


TRACE_FORMATS = Path(__file__).parent / "core/kernel/tracing"


class Trace:
    """The two tracing instances as text files: what the kernel would write is appended, the real Reader reads it."""

    def __init__(self, folder: Path, release: str = "6.18") -> None:
        self.instances = Instances(folder / "kills", folder / "refusals")
        for path, event in zip(self.instances, (KILL_EVENT, REFUSAL_EVENT), strict=True):
            (path / "events" / event).mkdir(parents=True)
            (path / "events" / event / "format").write_text((TRACE_FORMATS / release / Path(event).name).read_text())
            (path / "trace_pipe").touch()

    def kill(self, count: int = 1, *, comm: str = "nginx", pid: int = 4711, flags: str = "b..1.", **ends: str) -> None:
        """Let the kernel kill ``count`` sockets; with "s" among the ``flags`` in an interrupt."""
        src, dest = ends.get("src", "10.0.0.5:443"), ends.get("dest", "192.0.2.7:40001")
        line = (
            f"  {comm}-{pid}   [001] {flags}  5505.345442: tcp_send_reset: skbaddr=0000000000000000 "
            f"skaddr=00000000fdcd7b81 src={src} dest={dest} state=TCP_CLOSE reason=TCP_ABORT_ON_MEMORY\n"
        )
        self._append(self.instances.kills, line * count)

    def lose(self, count: int) -> None:
        """Let the ring overwrite this many kills."""
        self._append(self.instances.kills, f"CPU:1 [LOST {count} EVENTS]\n")

    def refuse(
        self, count: int, *, comm: str = "rsync", pid: int = 4712, kind: str = "SK_MEM_SEND", allocated: int = 381_400
    ) -> None:
        """Let the kernel refuse memory to living sockets, of a writer or (in an interrupt) of a receiver."""
        flags = "b..1." if kind == "SK_MEM_SEND" else "..s2."
        line = (
            f"  {comm}-{pid}   [000] {flags}  5611.000123: sock_exceed_buf_limit: proto:TCP "
            f"sysctl_mem=190686,254251,381372 allocated={allocated} sysctl_rmem=4096 rmem_alloc=0 sysctl_wmem=4096 "
            f"wmem_alloc=1 wmem_queued=0 kind={kind}\n"
        )
        self._append(self.instances.refusals, line * count)

    def _append(self, instance: Path, text: str) -> None:
        with (instance / "trace_pipe").open("a") as pipe:
            pipe.write(text)


def write_process(root: Path, pid: int, name: str, cgroup: str, started_seconds: float = 100.0) -> None:
    """Add a process to a tree shaped like /proc, which started so long after boot."""
    folder = root / str(pid)
    folder.mkdir(exist_ok=True)
    ticks = round(started_seconds * os.sysconf("SC_CLK_TCK"))
    (folder / "comm").write_text(f"{name}\n")
    (folder / "cgroup").write_text(f"0::{cgroup}\n")
    (folder / "stat").write_text(f"{pid} ({name}) S {'0 ' * 18}{ticks} 0\n")


def fill_disk(place: Path) -> Path:
    """Take all the room that a file system has left, with one file; it is returned."""
    filler = place / "somebody-elses"
    with contextlib.suppress(OSError), filler.open("ab", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    return filler


def wanting_4_gib(data: bytes, form: int = lzma.FORMAT_XZ) -> bytes:
    """Compress data, and say in the header that its dictionary has 4 GiB: xz-file-format.txt, 3.1 and 5.3.1."""
    packed = bytearray(lzma.compress(data, format=form))
    if form == lzma.FORMAT_ALONE:
        packed[1:5] = b"\xff\xff\xff\xff"
        return bytes(packed)
    end = 12 + 4 * packed[12] + 4
    packed[packed.index(b"\x21\x01", 12, end) + 2] = 40
    packed[end - 4 : end] = zlib.crc32(packed[12 : end - 4]).to_bytes(4, "little")
    return bytes(packed)


class Subject:
    """A program that closes its connections with data unread, each of which resets it."""

    def __init__(self) -> None:
        script = Path(__file__).parent / "probe/subject.py"
        self._process = subprocess.Popen(
            [sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self.pid = self._process.pid
        self.port = int(self.ask("listen 200"))

    def ask(self, command: str) -> str:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{command}\n")
        return self._process.stdout.readline().strip()

    def is_reset(self, times: int) -> None:
        """Reset this many of its connections, from its own side."""
        for begun in range(0, times, 100):
            count = min(100, times - begun)
            self.ask(f"connect {self.port} {count}")
            self.ask(f"accept {count}")
            self.ask("say 1")
            self.ask("close")

    def end(self) -> None:
        self._process.communicate()


def as_nobody(work: Callable[[], str]) -> str:
    """Do something as the user nobody, in a process of its own; return what it says, an exception included."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            nobody = pwd.getpwnam("nobody")
            os.setgroups([])
            os.setresgid(*[nobody.pw_gid] * 3)
            os.setresuid(*[nobody.pw_uid] * 3)
            said = work()
        except BaseException as surprise:  # noqa: BLE001 - the parent's test shall see it
            said = repr(surprise)
        os.write(write_end, said.encode())
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said


class AgentProcess:
    """``python -m agent run`` with a configuration and a state directory in a temporary folder."""

    def __init__(self, folder: Path, config: str) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.config = folder / "config.toml"
        self.config.write_text(config)
        self.log = folder / "agent.log"
        self.store = Store(self.state)
        self.environ: dict[str, str] = {}
        self.program = [sys.executable, "-m", "agent"]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str, ready: str = "following ") -> None:
        """Start, and return once the service says what it follows."""
        before = self.said().count(ready)
        self.spawn(*options)
        wait_for("the agent to follow", lambda: self.said().count(ready) > before or self.ended())
        assert not self.ended(), self.said()

    def spawn(self, *options: str) -> None:
        """Start, and return at once."""
        environ = {**os.environ, "STATE_DIRECTORY": str(self.state), "PYTHONDONTWRITEBYTECODE": "1", **self.environ}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self.program, "run", "--config", str(self.config), *options],
                stdout=log,
                stderr=log,
                env=environ,
            )

    def said(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it as a power cut would: no handler runs."""
        self.signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait()

    def stop(self) -> int:
        """End it as systemd would, and return the exit status."""
        assert self._process is not None
        if not self.ended():
            self.signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        """Wait for its end, and return the exit status."""
        assert self._process is not None
        return self._process.wait(PATIENCE_SECONDS)

    def has_open(self, path: Path) -> bool:
        """Return whether the process has this very file open, and not one that had its name before."""
        assert self._process is not None
        now = path.stat()
        for link in Path(f"/proc/{self._process.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                held = link.stat()
                if (held.st_dev, held.st_ino) == (now.st_dev, now.st_ino):
                    return True
        return False

    def peak_bytes(self) -> int:
        """Return the most memory that the process had resident so far."""
        assert self._process is not None
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024

    def events(self) -> int:
        """Count the events in all incidents on disk."""
        return sum(sum(self.store.load(i).events.values()) for i in self.store.ids())


def read_remains(store: Store, start: datetime, end: datetime) -> tuple[Sample, ...]:
    """Read what the hours from ``start`` to ``end`` have left behind, oldest first."""
    lines = b"".join(path.read_bytes() for path in store.samples.directory.glob("day-*.jsonl"))
    return tuple(sorted((s for s in read_lines(lines) if start <= s.at <= end), key=lambda sample: sample.at))


def owed(store: Store, channel: str) -> list[tuple[str, str]]:
    """List what a channel still owes, oldest first: the incident and the notice's file."""
    outbox = Outbox(store)
    stories = [story for each in sorted(outbox.names()) if (story := outbox.story(channel, each))]
    return [(story.incident_id, said.file) for story in stories for said in story.owed]


# --- a syslog daemon and its rotation -------------------------------------------------------------------------------

RSYSLOGD = shutil.which("rsyslogd", path="/usr/sbin:/usr/bin:/sbin")
LOGROTATE = shutil.which("logrotate", path="/usr/sbin:/usr/bin:/sbin")
RSYSLOG_CONF = """\
global(workDirectory="{directory}")
module(load="imuxsock" SysSock.Use="off")
input(type="imuxsock" Socket="{directory}/socket" UseSpecialParser="on" UseSysTimeStamp="off"
      IgnoreTimestamp="off" ParseHostname="off")
*.* action(type="omfile" file="{log}" template="RSYSLOG_TraditionalFileFormat")
"""

LOGROTATE_CONF = """\
{log} {{
    rotate 20
    missingok
    nocreate
    {options}
    {script}
}}
"""
HUP = """postrotate
        kill -HUP $(cat {directory}/pid)
    endscript"""

ROTATIONS = {
    "create": "create 0640",
    "create, dateext, compress": "create 0640\n    dateext\n    dateformat -%Y%m%d-%s\n    compress",
    "create, start 0": "create 0640\n    start 0",
    "create, start 5, compress": "create 0640\n    start 5\n    compress",
    "create, delaycompress": "create 0640\n    compress\n    delaycompress",
    "nocreate": "",
    "copytruncate": "copytruncate",
    "copytruncate, compress": "copytruncate\n    compress",
}


class Rsyslog:
    """A syslog daemon of our own, in a directory of our own, fed through its socket; its clock is ``ahead``."""

    ahead = timedelta()

    def __init__(self, directory: Path) -> None:
        self.directory, self.log = directory, directory / "messages"
        conf = directory / "rsyslog.conf"
        conf.write_text(RSYSLOG_CONF.format(directory=directory, log=self.log))
        command = [str(RSYSLOGD), "-n", "-f", str(conf), "-i", str(directory / "pid")]
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        wait_for("rsyslogd", lambda: (directory / "socket").exists() and (directory / "pid").exists())
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.connect(str(directory / "socket"))
        self.sent = 0

    def say(self, count: int) -> None:
        for _ in range(count):
            stamp = (datetime.now(timezone.utc) + self.ahead).strftime("%b %d %H:%M:%S")
            # OpenVZ's count tells each from the others, which would be counted at once.
            text = f"<6>{stamp} kernel: [{self.sent:5}.000001] TCP: too many of orphaned sockets ({self.sent} in CT7)"
            self.socket.send(text.encode())
            self.socket.send(f"<38>{stamp} sshd[812]: Accepted publickey for root".encode())
            self.sent += 1

    def rotate(self, options: str) -> None:
        script = "" if "copytruncate" in options else HUP.format(directory=self.directory)
        conf = self.directory / "logrotate.conf"
        conf.write_text(LOGROTATE_CONF.format(log=self.log, options=options, script=script))
        conf.chmod(0o644)
        command = [str(LOGROTATE), "-f", "-s", str(self.directory / "state"), str(conf)]
        subprocess.run(command, check=True, capture_output=True)

    def stop(self) -> None:
        self.socket.close()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(PATIENCE_SECONDS)


# --- receivers with bad manners -------------------------------------------------------------------------------------


class Tray:
    """An outbox in memory: notices that wait until there is a receipt for them. It can be made to fail."""

    def __init__(self, *notices: Notice) -> None:
        self.notices: dict[tuple[str, str], Notice] = {}
        self.closed: dict[str, datetime] = {}
        self.receipts: list[Receipt] = []
        self.settled: dict[tuple[str, str], Receipt] = {}
        self.rooms: set[tuple[str, str]] = set()
        self.silenced: Silence | None = None
        self.trouble: Trouble | None = None
        self.reserve_error: OSError | None = None
        self.write_error: Exception | None = None
        self.read_error: OSError | None = None
        for notice in notices:
            self.put("20261122T150539Z-7f3a", notice)

    def put(self, incident_id: str, notice: Notice) -> None:
        number = 1 + sum(owner == incident_id for owner, _ in self.notices)
        self.notices[incident_id, f"notice-{number:03}"] = notice

    @property
    def waiting(self) -> list[str]:
        return [notice.id for key, notice in self.notices.items() if key not in self.settled]

    def names(self) -> set[str]:
        if self.read_error:
            raise self.read_error
        return {incident_id for incident_id, _ in self.notices}

    def changed(self, names: Collection[str], known: Mapping[str, Commit | None]) -> Iterator[tuple[str, Commit]]:
        for incident_id in sorted(names):
            commit = (1, sum(owner == incident_id for owner, _ in self.notices))
            if known.get(incident_id, (0, 0)) not in (commit, None):
                yield incident_id, commit

    def story(self, channel: str, incident_id: str) -> Story | None:
        said = []
        for key, notice in self.notices.items():
            if key[0] == incident_id:
                receipt = self.settled.get(key)
                is_addressed = channel in notice.channels
                each = Said(
                    key[1], notice.id, notice.type, notice.at, self.incident(incident_id).severity, is_addressed
                )
                came = (receipt.outcome, receipt.at) if receipt else (None, None)
                said.append(each._replace(outcome=came[0], settled_at=came[1], has_room=key in self.rooms))
        incident = self.incident(incident_id)
        is_over = incident.closed_at is not None
        return Story(incident_id, tuple(said), proof_of(incident), incident.host, incident.cause, is_over)

    def notice(self, incident_id: str, file: str) -> Notice:
        return self.notices[incident_id, file]

    def incident(self, incident_id: str) -> Incident:
        *_, newest = (notice for (owner, _), notice in self.notices.items() if owner == incident_id)
        assert newest.data is not None
        return newest.data

    def flush(self, incident_id: str) -> None:
        pass  # Memory has nothing to flush.

    def silence(self) -> Silence | None:
        return self.silenced

    def settled_since(self, channel: str, since: datetime) -> Iterator[Settled]:
        yield from ()

    def reserve_receipt(self, incident_id: str, file: str, channel: str, *, in_digest: bool = False) -> None:
        assert (incident_id, file) in self.notices
        if self.reserve_error:
            raise self.reserve_error
        self.rooms.add((incident_id, file))

    def write_receipt(self, incident_id: str, file: str, receipt: Receipt) -> None:
        if self.write_error:
            raise self.write_error
        before = self.settled.get((incident_id, file))
        assert before is None or before.detail.startswith("taken for ")  # That of a mail some lack is written again.
        self.settled[incident_id, file] = receipt
        self.receipts = [each for each in self.receipts if each is not before] + [receipt]

    def write_trouble(self, channel: str, trouble: Trouble | None) -> None:
        self.trouble = trouble


def read_request(connection: socket.socket) -> bytes:
    """Read one request, or what there is of it."""
    received = b""
    while not is_whole(received):
        try:
            chunk = connection.recv(65536)
        except TimeoutError:
            break
        if not chunk:
            break
        received += chunk
    return received


def is_whole(request: bytes) -> bool:
    head, end, body = request.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    return bool(end) and len(body) >= int(length[1] if length else 0)


def drip(connection: socket.socket, text: bytes) -> None:
    """Send a byte every tenth of a second, which no timeout per read will ever notice."""
    pause = threading.Event()
    for byte in text:
        connection.sendall(bytes([byte]))
        pause.wait(0.1)


def hang(connection: socket.socket) -> None:
    """Take everything and never answer, until the client has gone."""
    while True:
        with contextlib.suppress(TimeoutError):
            if not connection.recv(65536):
                return


# --- scenarios ------------------------------------------------------------------------------------------------------

# The scenarios: one file each, in the form of Go's txtar (a comment, then "path, then text"), over one common host.
#
#     Row 2: stuck orphans count twice.
#
#     -- expected.json --
#     {"cause": "orphans", ...}
#     -- proc/net/sockstat --
#     sockets: used 1240
#     ...
#     -- proc/sys/net/ipv4/tcp_mem (absent) --
#     -- proc/self/auxv (hex) --
#     0600...
#
# The comment says what the scenario is about. Its files replace those of base.txtar; ``(absent)`` takes a file of the
# base away, or a folder; ``(hex)`` is for bytes that are no text.

SCENARIOS = Path(__file__).parent / "scenarios"
BASE = "base"
_FILE_HEADER = re.compile(r"^-- (?P<path>\S+)(?: \((?P<how>absent|hex)\))? --\n", re.MULTILINE)


def scenario_names() -> list[str]:
    """Return the names of all scenarios."""
    return sorted(path.stem for path in SCENARIOS.glob("*.txtar") if path.stem != BASE)


@functools.cache
def reason(name: str) -> str:
    """Return what a scenario is about."""
    return _FILE_HEADER.split((SCENARIOS / f"{name}.txtar").read_text(), maxsplit=1)[0].strip()


@functools.cache
def lay_out(name: str) -> Path:
    """Write a scenario's files into a folder of their own, over the common host, and return the folder."""
    files = _apply(BASE, {})
    files = _apply(name, files)
    folder = Path(_scenario_folder().name, name)
    (folder / "proc").mkdir(parents=True)
    for path, data in files.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return folder


@functools.cache
def _scenario_folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="sockmem-scenarios-")


def _apply(name: str, files: dict[str, bytes]) -> dict[str, bytes]:
    """Return ``files`` as an archive changes them."""
    text = (SCENARIOS / f"{name}.txtar").read_text()
    headers = list(_FILE_HEADER.finditer(text))
    for header, end in zip(headers, [*(later.start() for later in headers[1:]), len(text)], strict=True):
        path, how, body = header["path"], header["how"], text[header.end() : end]
        if how == "absent":
            kept = {known: data for known, data in files.items() if not f"{known}/".startswith(f"{path}/")}
            assert kept != files, f"{name}: the base has no {path}"
            files = kept
        else:
            files = {**files, path: bytes.fromhex(body) if how == "hex" else body.encode()}
    return files


# --- what an independent validator says -----------------------------------------------------------------------------

SCHEMAS = Path(__file__).parent.parent / "docs" / "schemas"


@functools.cache
def validator(name: str) -> Draft202012Validator:
    return Draft202012Validator(json.loads((SCHEMAS / f"{name}.json").read_text()))


def schema_errors(name: str, document: bytes) -> list[str]:
    """Say in what a JSON document differs from its schema in docs/schemas."""
    return [f"{error.json_path}: {error.message}" for error in validator(name).iter_errors(json.loads(document))]
