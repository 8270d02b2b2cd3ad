"""The real agent as a process of its own, for tests that kill it, and a host for it to look at."""

import contextlib
import os
import pty
import pwd
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from agent.core.model import Sample
from agent.store import Store
from agent.store.history import read_lines

PATIENCE_SECONDS = 30.0


def wait_for(what: str, condition: Callable[[], object], seconds: float = PATIENCE_SECONDS) -> None:
    """Look until something is so; fail with its name when it never is."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds} s in vain for: {what}")
        time.sleep(0.02)


def fill(listener: socket.socket) -> int:
    """Send to a datagram socket that nobody reads until it is full; tell how many datagrams that took."""
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


def fill_disk(place: Path) -> Path:
    """Take all the room that a file system has left, with one file; it is returned."""
    filler = place / "somebody-elses"
    with contextlib.suppress(OSError), filler.open("ab", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    return filler


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
                [sys.executable, "-m", "agent", "run", "--config", str(self.config), *options],
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
        """Tell whether the process has this very file open, and not one that had its name before."""
        assert self._process is not None
        now = path.stat()
        for link in Path(f"/proc/{self._process.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                held = link.stat()
                if (held.st_dev, held.st_ino) == (now.st_dev, now.st_ino):
                    return True
        return False

    def peak_bytes(self) -> int:
        """Tell the most memory that the process had resident so far."""
        assert self._process is not None
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024

    def events(self) -> int:
        """Count the events in all incidents on disk."""
        return sum(sum(self.store.load(i).events.values()) for i in self.store.ids())

    def peak_memory_mb(self) -> float:
        """Tell the most that was ever resident: VmHWM of proc(5)."""
        assert self._process is not None
        fields = Path(f"/proc/{self._process.pid}/status").read_text().split()
        return int(fields[fields.index("VmHWM:") + 1]) / 1024


def read_remains(store: Store, start: datetime, end: datetime) -> tuple[Sample, ...]:
    """Read what the hours from ``start`` to ``end`` have left behind, oldest first."""
    lines = b"".join(path.read_bytes() for path in store.samples.directory.glob("day-*.jsonl"))
    return tuple(sorted((s for s in read_lines(lines) if start <= s.at <= end), key=lambda sample: sample.at))
