"""The time from the start of the service until it tells systemd READY=1.

python -m benchmarks.start [STARTS]
"""

import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from benchmarks.latency import CONFIG
from benchmarks.table import Row, run
from contrib.stage import Receiver, agent_command, clean_environment

STARTS, WARM_UP = 15, 2
READY_REACH_MS = 120


def start(work: Path, url: str) -> float:
    """Start it once on what the last start left; return the milliseconds until it is ready."""
    config, told = work / "config.toml", work / "notify"
    config.write_text(CONFIG.format(work=work, url=url, quiet_seconds=300))
    told.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd, (work / "agent.log").open("wb") as said:
        systemd.bind(str(told))
        systemd.settimeout(20)
        environment = clean_environment() | {"NOTIFY_SOCKET": str(told)}
        began = time.perf_counter()
        agent = subprocess.Popen(
            agent_command("run", "--config", str(config)), env=environment, stdout=said, stderr=said
        )
        while b"READY=1" not in systemd.recv(4096):
            pass
        took = time.perf_counter() - began
        agent.send_signal(signal.SIGTERM)
        agent.wait()
    return 1000 * took


def rows(starts: int = STARTS) -> Iterator[Row]:
    """Start it again and again, with its byte-code written and its files in the cache."""
    with tempfile.TemporaryDirectory(prefix="sockmem-bench-") as directory, Receiver() as receiver:
        work = Path(directory)
        (work / "messages").touch()
        took = [start(work, receiver.url) for _ in range(WARM_UP + starts)][WARM_UP:]
    yield Row(f"start to READY, {starts} starts: p50", (median(took),), "ms", (READY_REACH_MS,))


if __name__ == "__main__":
    run(rows)
