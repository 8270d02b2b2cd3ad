"""A service at idle: resident memory, processor time and wake-ups a second; beside other programs.

It follows an empty log with one webhook configured, as on most hosts. A wake-up is a voluntary context switch of any
thread, as /proc/PID/task/*/status counts them.

    python -m benchmarks.idle [SECONDS]
"""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks.latency import CONFIG
from benchmarks.peers import Peer, followers, following, free_url
from benchmarks.processes import cpu_seconds, group, status_fields, wakeups
from benchmarks.table import Row, run
from contrib.stage import Receiver, running_agent, wait_for

SETTLE_SECONDS, SECONDS = 12, 30
SETTLE_PEER_SECONDS, PEER_SECONDS = 3, 5
MEMORY_REACH_MB, CPU_REACH_PERCENT, WAKEUPS_REACH = 30, 0.03, 1.2


class Idle(NamedTuple):
    """What processes at idle cost."""

    megabytes: float
    cpu_percent: float
    wakeups: float


def watch(pids: list[int], seconds: float) -> Idle:
    """Look at processes for a while."""
    woken, used, began = wakeups(pids), cpu_seconds(pids), time.monotonic()
    time.sleep(seconds)
    passed = time.monotonic() - began
    woken, used = wakeups(pids) - woken, cpu_seconds(pids) - used
    resident = sum(status_fields(Path(f"/proc/{pid}/status"))["VmRSS"] for pid in pids)
    return Idle(resident * 1024 / 1e6, 100 * used / passed, woken / passed)


@contextmanager
def idle_agent() -> Iterator[int]:
    """Run the service until the block ends; give its process."""
    with tempfile.TemporaryDirectory(prefix="sockmem-bench-") as directory, Receiver() as receiver:
        work = Path(directory)
        (work / "messages").touch()
        config = work / "config.toml"
        config.write_text(CONFIG.format(work=work, url=receiver.url, quiet_seconds=300))
        with running_agent(config, work / "agent.log") as agent:
            wait_for(lambda: list(work.glob("state/history/*")), "first sample", work / "agent.log")
            yield agent.pid


def idle_peer(peer: Peer) -> Idle:
    """Let another program follow an empty log."""
    with tempfile.TemporaryDirectory(prefix="sockmem-bench-") as directory:
        work, log = Path(directory), Path(directory, "messages")
        log.touch()
        with following(peer, work, log, free_url()) as leader:
            time.sleep(SETTLE_PEER_SECONDS)
            return watch(group(leader), PEER_SECONDS)


def rows(seconds: int = SECONDS) -> Iterator[Row]:
    """Compare with the peers."""
    with idle_agent() as pid:
        time.sleep(SETTLE_SECONDS)
        ours = watch([pid], seconds)
    peers = {peer.name: idle_peer(peer) for peer in followers()}
    yield Row(
        "idle, one webhook: resident memory",
        (ours.megabytes,),
        "MB",
        (MEMORY_REACH_MB,),
        {name: (each.megabytes,) for name, each in peers.items()},
    )
    yield Row(
        "idle: processor",
        (ours.cpu_percent,),
        "% of one",
        (CPU_REACH_PERCENT,),
        {name: (each.cpu_percent,) for name, each in peers.items()},
    )
    yield Row(
        "idle: wake-ups",
        (ours.wakeups,),
        "a second",
        (WAKEUPS_REACH,),
        {name: (each.wakeups,) for name, each in peers.items()},
    )


if __name__ == "__main__":
    run(rows)
