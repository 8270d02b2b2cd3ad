"""The speed of a catch-up scan compared with ``grep -F``, and its memory.

Run it with ``python -m benchmarks.scan [MEGABYTES]``. It makes an ordinary log, warms the cache, and alternates between
grep, the scanner in this process and the whole command, so that other work on the machine affects all alike. The best
of the rounds counts.
"""

import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

from agent.core.logs.prefilter import MARKERS
from agent.sources.scanner import Scanner

ROUNDS = 9
LINES = (
    "sshd[{pid}]: Accepted publickey for deploy from 10.0.{a}.7 port 51022 ssh2: ED25519 SHA256:Tm9ib2R5",
    "systemd[1]: Started Session {pid} of user root.",
    'kernel: [{pid}.0{pid}] audit: type=1400 apparmor="ALLOWED" operation="open" profile="/usr/sbin/sssd"',
    "CRON[{pid}]: (root) CMD (test -x /usr/sbin/anacron || ( cd / && run-parts --report /etc/cron.hourly ))",
    "dhclient[{pid}]: DHCPREQUEST for 10.0.0.{a} on eth0 to 255.255.255.255 port 67",
    "postfix/smtpd[{pid}]: connect from unknown[203.0.113.{a}]",
    'haproxy[{pid}]: 10.0.0.{a}:51022 [18/Aug/2024:08:40:10.123] http-in web/s1 0/0/1/2/3 200 512 - - ---- "GET /"',
)


def write_log(path: Path, megabytes: int) -> None:
    dice = random.Random(1)
    some = "".join(
        f"Aug {dice.randrange(10, 29)} 08:33:{dice.randrange(10, 60)} jp58 "
        + dice.choice(LINES).format(pid=dice.randrange(30_000), a=dice.randrange(255))
        + "\n"
        for _ in range(50_000)
    ).encode()
    with path.open("wb") as log:
        while log.tell() < megabytes * 1_000_000:
            log.write(some)


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    megabytes = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "messages"
        write_log(path, megabytes)
        os.sync()
        patterns = [argument for marker in MARKERS for argument in ("-e", marker.decode())]
        works: dict[str, Callable[[], object]] = {
            "grep -F, one marker": lambda: subprocess.run(["grep", "-F", "Out of socket memory", path], check=False),
            "grep -F, the same markers": lambda: subprocess.run(["grep", "-F", *patterns, path], check=False),
            "scan, in this process": lambda: sum(1 for _ in Scanner().read(str(path), datetime.now(timezone.utc))),
            "scan, the whole command": lambda: subprocess.run(
                [sys.executable, "-m", "agent", "scan", "--json", path], check=False
            ),
        }
        best = dict.fromkeys(works, float("inf"))
        for _ in range(ROUNDS):
            for name, work in works.items():
                best[name] = min(best[name], seconds(work))
    for name, took in best.items():
        ratios = ", ".join(f"{best[grep] / took:.2f} of the speed of {grep}" for grep in list(works)[:2])
        print(f"{name:28} {took:6.3f} s  {megabytes / took:7.0f} MB/s   {ratios if name.startswith('scan') else ''}")
    for who, whose in ((resource.RUSAGE_SELF, "this process"), (resource.RUSAGE_CHILDREN, "the command")):
        print(f"resident memory of {whose:12} {resource.getrusage(who).ru_maxrss / 1024:5.1f} MB at most")


if __name__ == "__main__":
    main()
