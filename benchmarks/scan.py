"""The speed of reading a log through: plain beside grep and programs that follow logs, packed beside zcat and grep.

An ordinary log with a few of the kernel's lines, all of which each has to find. They take turns, so that other work on
the machine affects all alike; what takes more than five seconds reads it once.

    python -m benchmarks.scan [MEGABYTES [MEGABYTES-PACKED]]
"""

import random
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks.peers import GREP, count, readers
from benchmarks.processes import measure_command
from benchmarks.table import Row, run
from contrib.stage import agent_command, clean_environment

MEGABYTES, MEGABYTES_PACKED = 300, 40
PLAIN_REACH_SECONDS = 0.25
ROUNDS, LONG_SECONDS = 5, 5
HIT_EVERY = 50_000
HITS = ("Out of socket memory", "TCP: too many orphaned sockets", "TCP: out of memory -- consider tuning tcp_mem")
# Ending, what packs, what unpacks, and how many times as fast the scan is to be.
PACKED = (("gz", "gzip", "zcat", 2), ("xz", "xz", "xzcat", 1), ("bz2", "bzip2", "bzcat", 1))
Packed = tuple[str, str, str, float]
LINES = (
    "sshd[{}]: Accepted publickey for deploy from 10.0.{}.7 port 51022 ssh2: ED25519 SHA256:Tm9ib2R5",
    "systemd[1]: Started Session {} of user {}.",
    'kernel: [{}.0{}] audit: type=1400 apparmor="ALLOWED" operation="open" profile="/usr/sbin/sssd"',
    "CRON[{}]: ({}) CMD (test -x /usr/sbin/anacron || ( cd / && run-parts --report /etc/cron.hourly ))",
    "dhclient[{}]: DHCPREQUEST for 10.0.0.{} on eth0 to 255.255.255.255 port 67",
    "postfix/smtpd[{}]: connect from unknown[203.0.113.{}]",
    'haproxy[{}]: 10.0.0.{}:51022 [18/Aug/2024:08:40:10.123] http-in web/s1 0/0/1/2/3 200 512 - - ---- "GET /"',
)


def write_log(path: Path, megabytes: int) -> int:
    """Write a log without repetitions that a packer would find; return how many lines are the kernel's."""
    dice, hits = random.Random(1), 0
    with path.open("w") as log:
        while log.tell() < megabytes * 1_000_000:
            heads = map(
                "Aug {} 08:33:{} jp58 ".format,
                dice.choices(range(10, 29), k=HIT_EVERY),
                dice.choices(range(10, 60), k=HIT_EVERY),
            )
            texts = map(
                str.format,
                dice.choices(LINES, k=HIT_EVERY),
                dice.choices(range(30_000), k=HIT_EVERY),
                dice.choices(range(255), k=HIT_EVERY),
            )
            log.write("\n".join(map(str.__add__, heads, texts)))
            log.write(f"\nAug 28 08:33:14 jp58 kernel: [{100 + hits}.{hits:06}] {HITS[hits % len(HITS)]}\n")
            hits += 1
    return hits


def scan(path: Path) -> int:
    """Let the command read a log; return how many events it found."""
    run = subprocess.run(scan_command(path), stdout=subprocess.PIPE, check=True, env=clean_environment())
    return run.stdout.count(b"\n")


def scan_command(path: Path) -> list[str]:
    return agent_command("scan", "--json", str(path))


def unpack_and_grep(program: str, path: Path) -> int:
    """Let a shell do it; return how many lines it found."""
    grep = " ".join(f"'{word}'" for word in GREP)
    run = subprocess.run(["sh", "-c", f"{program} {path} | grep -F {grep}"], stdout=subprocess.PIPE, check=True)
    return run.stdout.count(b"\n")


def take_turns(works: Mapping[str, Callable[[], int]], hits: int) -> dict[str, float]:
    """Do each in turn, some times; return the median of the seconds of each, all of which have to find the same."""
    took: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(ROUNDS):
        for name, work in works.items():
            if max(took[name], default=0) < LONG_SECONDS:
                began = time.perf_counter()
                found = work()
                took[name].append(time.perf_counter() - began)
                assert found == hits, f"{name} found {found} of {hits} lines"
    return {name: median(seconds) for name, seconds in took.items()}


def plain(work: Path, megabytes: int) -> Iterator[Row]:
    """Compare with all that reads a plain log."""
    log = work / "messages"
    hits = write_log(log, megabytes)
    peers = {peer.name: partial(count, peer, log, work) for peer in readers()}
    took = take_turns({"ours": partial(scan, log), **peers}, hits)
    yield Row(
        f"scan of {megabytes} MB",
        (took.pop("ours"),),
        "s",
        (PLAIN_REACH_SECONDS,),
        {name: (each,) for name, each in took.items()},
    )
    yield Row("the same: resident memory", (measure_command(scan_command(log)).megabytes,), "MB")
    log.unlink()


def packed(work: Path, megabytes: int, ways: tuple[Packed, ...]) -> Iterator[Row]:
    """Compare with a shell's line for some ways to pack."""
    log = work / "messages"
    hits = write_log(log, megabytes)
    for ending, pack, unpack, times in ways:
        path = log.with_suffix(f".{ending}")
        with path.open("wb") as file:
            subprocess.run([pack, "--stdout", str(log)], stdout=file, check=True)
        line = f"{unpack}, grep -F"
        took = take_turns({"ours": partial(scan, path), line: partial(unpack_and_grep, unpack, path)}, hits)
        yield Row(
            f"scan of {megabytes} MB as .{ending}", (took["ours"],), "s", (took[line] / times,), {line: (took[line],)}
        )


def rows(megabytes: int = MEGABYTES, megabytes_packed: int = MEGABYTES_PACKED) -> Iterator[Row]:
    """Compare with the peers, all with the log in the cache."""
    with tempfile.TemporaryDirectory(prefix="sockmem-bench-") as directory:
        yield from plain(Path(directory), megabytes)
        yield from packed(Path(directory), megabytes, PACKED[:1])
        yield from packed(Path(directory), megabytes_packed, PACKED[1:])


if __name__ == "__main__":
    run(rows)
