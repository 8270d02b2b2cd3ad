"""What a node with 200 network namespaces (pods) costs the agent, at idle and at a hit: 20,000 sockets in them.

Each namespace is real, and holds connections between its own programs. The service reads the counters of all of them
every ten seconds; the count of all sockets, every five minutes, is made here once more and its share added.

    python -m benchmarks.namespaces [NAMESPACES]
"""

import ctypes
import fcntl
import os
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from agent.probe.attribution import take_sockets
from agent.service.survey import CPU_SHARE, DEADLINE_SECONDS, SPACING
from benchmarks.idle import CPU_REACH_PERCENT, WAKEUPS_REACH, idle_agent, watch
from benchmarks.latency import HITS_BESIDE, PAUSE_BESIDE_SECONDS, measure
from benchmarks.table import Row, run

NAMESPACES, SOCKETS_EACH = 200, 100
SETTLE_SECONDS, SECONDS = 12, 30
CLONE_NEWNET = 0x40000000
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
PROC = Path("/proc")


def live_apart(ready: int, stop: int) -> None:
    """Enter a namespace of its own, hold connections in it, say so in ``ready``, and stay until ``stop`` ends."""
    if ctypes.CDLL(None).unshare(CLONE_NEWNET):
        os._exit(1)
    with socket.create_server(("127.0.0.1", 0), backlog=SOCKETS_EACH) as server:
        fcntl.ioctl(server, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))
        kept = []
        for _ in range(SOCKETS_EACH // 2):
            kept += [socket.create_connection(server.getsockname()), server.accept()[0]]
        os.write(ready, b"1")
        os.read(stop, 1)
    os._exit(0)


def survey() -> tuple[float, int]:
    """Count all sockets, as every five minutes; return the percentage of a processor, and the namespaces left out."""
    began = time.process_time()
    table = take_sockets(PROC, DEADLINE_SECONDS)
    used = time.process_time() - began
    share = 100 * used / max(SPACING.total_seconds(), used / CPU_SHARE)
    return share, sum(space.number is None for space in table.namespaces)


@contextmanager
def namespaces(count: int) -> Iterator[int]:
    """Keep network namespaces with sockets in them while the block runs; give how many could be made."""
    ready, stop = os.pipe(), os.pipe()
    for _ in range(count):
        if os.fork() == 0:
            os.close(stop[1])
            live_apart(ready[1], stop[0])
    os.close(ready[1])
    up = 0
    while up < count and (said := os.read(ready[0], count)):
        up += len(said)
    try:
        yield up
    finally:
        os.close(stop[1])
        for _ in range(count):
            os.wait()


def rows(count: int = NAMESPACES) -> Iterator[Row]:
    """Look at the idle service beside them."""
    with namespaces(count) as up:
        if up < count:
            print(f"left out: {up} of {count} network namespaces could be made (that takes root)")
            return
        with idle_agent() as pid:
            time.sleep(SETTLE_SECONDS)
            idle = watch([pid], SECONDS)
        counting, left_out = survey()
        took, _ = measure(HITS_BESIDE, PAUSE_BESIDE_SECONDS)
    beside = f"idle beside {count} network namespaces"
    yield Row(f"{beside}: processor", (idle.cpu_percent,), "% of one", (CPU_REACH_PERCENT,))
    yield Row(f"{beside}: processor for counting all sockets", (counting,), "% of one", (100 * CPU_SHARE,))
    yield Row(f"{beside}: left out of that count", (left_out,), "namespaces", (0,))
    yield Row(f"{beside}: wake-ups", (idle.wakeups,), "a second", (WAKEUPS_REACH,))
    yield Row(f"{beside}: resident memory", (idle.megabytes,), "MB")
    yield Row(f"line to POST beside {count} network namespaces: p50", (median(took),), "ms")


if __name__ == "__main__":
    run(rows)
