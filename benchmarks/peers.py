"""What an administrator would use instead, each with the smallest configuration that does the same job.

Following a log, each POSTs the kernel's lines to the same receiver as the agent. mtail sends nothing: there a line has
arrived when the counter that Prometheus would read shows it. Reading a log through, each counts the lines. All are
packages of Debian; one that is not installed is left out.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from contrib.stage import clean_environment

# The kernel's three lines, as a program that knows fixed strings looks for them, and one that knows expressions.
STRINGS = ("Out of socket memory", "too many orphaned sockets", "out of memory -- consider tuning tcp_mem")
LINES = f"(?:{'|'.join(STRINGS)})"
SAID = f"kernel: .*{LINES}"
GREP = [argument for text in STRINGS for argument in ("-e", text)]
PATIENCE_SECONDS = 60.0


class Peer(NamedTuple):
    """A program and its package; the commands that follow a log, and that read one through, if it can."""

    name: str
    program: str
    package: str
    follow: Callable[[Path, Path, str], list[str]] | None = None
    read: Callable[[Path, Path], list[str]] | None = None

    @property
    def installed(self) -> bool:
        """Return whether it can be run here."""
        return shutil.which(self.program) is not None


def shell_follows(work: Path, log: Path, url: str) -> list[str]:
    del work
    strings = " ".join(f"-e '{text}'" for text in STRINGS)
    each = f'while read -r line; do curl -s -o /dev/null --data-binary "$line" {url}; done'
    return ["sh", "-c", f"tail -n 0 -F {log} | grep --line-buffered -F {strings} | {each}"]


def sec_follows(work: Path, log: Path, url: str) -> list[str]:
    action = f"pipe '$0' curl -s -o /dev/null --data-binary @- {url}"
    return ["sec", f"--conf={sec_rule(work, action)}", f"--input={log}"]


def sec_reads(work: Path, log: Path) -> list[str]:
    return ["sec", f"--conf={sec_rule(work, 'write - $0')}", f"--input={log}", "--notail"]


def sec_rule(work: Path, action: str) -> Path:
    rule = work / "sec.conf"
    rule.write_text(f"type=Single\nptype=RegExp\npattern={SAID}\ndesc=sockets\naction={action}\n")
    return rule


def swatchdog_follows(work: Path, log: Path, url: str) -> list[str]:
    rules = work / "swatch.conf"
    rules.write_text(f'watchfor /{SAID}/\n    pipe "curl -s -o /dev/null --data-binary \\@- {url}"\n')
    return ["swatchdog", f"--config-file={rules}", f"--script-dir={work}", f"--tail-file={log}"]


# Printk's stamp stands for the address that fail2ban would ban: no two hits have the same.
BANNED = rf"kernel: \[<F-ID>[\d.]+</F-ID>\] .*{LINES}"
FAIL2BAN = {
    "fail2ban.conf": """\
[Definition]
logtarget = {work}/fail2ban.log
socket = {work}/f2b.sock
pidfile = {work}/f2b.pid
dbfile = None
""",
    "jail.conf": """\
[sockets]
enabled = true
filter = sockets
action = post
logpath = {log}
backend = auto
maxretry = 1
findtime = 1d
bantime = 1h
""",
    "filter.d/sockets.conf": "[Definition]\nfailregex = {banned}\n",
    "action.d/post.conf": "[Definition]\nactionban = curl -s -o /dev/null --data-binary '<ip>' {url}\n",
}


def fail2ban_follows(work: Path, log: Path, url: str) -> list[str]:
    for name, text in FAIL2BAN.items():
        (work / name).parent.mkdir(exist_ok=True)
        (work / name).write_text(text.format(work=work, log=log, url=url, banned=BANNED))
    return ["fail2ban-server", "-f", "-c", str(work), "-s", f"{work}/f2b.sock", "-p", f"{work}/f2b.pid", "start"]


def fail2ban_reads(work: Path, log: Path) -> list[str]:
    del work
    return ["fail2ban-regex", str(log), BANNED]


def mtail_follows(work: Path, log: Path, url: str) -> list[str]:
    return [*mtail(work, log), f"--port={url.rpartition(':')[2].partition('/')[0]}"]


def mtail_reads(work: Path, log: Path) -> list[str]:
    return [*mtail(work, log), "--port=0", "--one_shot", "--one_shot_format=prometheus"]


def mtail(work: Path, log: Path) -> list[str]:
    programs = work / "mtail"
    programs.mkdir(exist_ok=True)
    (programs / "sockets.mtail").write_text(f"counter lines\n/{SAID}/ {{\n  lines++\n}}\n")
    return ["mtail", f"--progs={programs}", f"--logs={log}", "--address=127.0.0.1", f"--log_dir={work}"]


PEERS = (
    Peer("tail, grep, curl", "curl", "curl", shell_follows),
    Peer("SEC", "sec", "sec", sec_follows, sec_reads),
    Peer("swatchdog", "swatchdog", "swatch", swatchdog_follows),
    Peer("fail2ban", "fail2ban-server", "fail2ban", fail2ban_follows, fail2ban_reads),
    Peer("mtail", "mtail", "mtail", mtail_follows, mtail_reads),
    Peer("grep -F", "grep", "grep", None, lambda _, log: ["grep", "-F", *GREP, str(log)]),
    Peer("ripgrep", "rg", "ripgrep", None, lambda _, log: ["rg", "--no-config", "-F", *GREP, str(log)]),
    Peer("ss", "ss", "iproute2"),
)


def followers() -> list[Peer]:
    """List those that are here and follow a log."""
    return [peer for peer in PEERS if peer.follow and peer.installed]


def readers() -> list[Peer]:
    """List those that are here and read a log through."""
    return [peer for peer in PEERS if peer.read and peer.installed]


def count(peer: Peer, log: Path, work: Path) -> int:
    """Let it read a log through; return how many lines it found."""
    assert peer.read is not None
    run = subprocess.run(peer.read(work, log), capture_output=True, text=True, check=True, env=clean_environment())
    return told(run.stdout) or run.stdout.count("\n")


def told(text: str) -> int | None:
    """Return the count of lines that mtail (``lines{prog="sockets.mtail"} 1e+06``) or fail2ban has printed."""
    found = re.search(r"^lines\{.*\} (\S+)$|^Lines: .* (\d+) matched", text, re.MULTILINE)
    return int(float(found[1] or found[2])) if found else None


@contextmanager
def following(peer: Peer, work: Path, log: Path, url: str) -> Iterator[int]:
    """Let it follow a log; give its process group, which ends with the block."""
    assert peer.follow is not None
    with (work / "peer.log").open("wb") as said:
        process = subprocess.Popen(
            peer.follow(work, log, url),
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            cwd=work,
            env=clean_environment(),
            start_new_session=True,
        )
    try:
        yield process.pid
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=3)


def counted(url: str) -> int:
    """Ask mtail how many lines it has counted; 0 while it does not answer."""
    with suppress(OSError), urllib.request.urlopen(f"{url}/metrics", timeout=1) as answer:
        return told(answer.read().decode()) or 0
    return 0


def await_count(url: str, count: int) -> float:
    """Wait until mtail's counter, as a scraper reads it, has reached this; return when, by time.perf_counter()."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if counted(url) >= count:
            return time.perf_counter()
        time.sleep(0.001)
    raise SystemExit(f"mtail has not counted {count} lines within {PATIENCE_SECONDS:.0f} s")


def free_url() -> str:
    """Name a port on loopback that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}"
