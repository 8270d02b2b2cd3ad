"""What a node with 200 network namespaces (pods) costs the agent: 20,000 sockets in them, and no privilege.

Each namespace is real, and holds connections between its own programs. The agent's own code runs beside them as
nobody: the counters of every namespace, as every ten seconds, and the count of all sockets, as every five minutes.

    python -m benchmarks.namespaces [NAMESPACES]
"""

import ctypes
import fcntl
import os
import resource
import socket
import struct
import sys
import time
from collections import Counter
from pathlib import Path

from agent.probe.attribution import take_sockets
from agent.probe.counters import Counters
from agent.service.sampler import SAMPLE_SECONDS
from agent.service.survey import CPU_SHARE, DEADLINE_SECONDS, SPACING
from benchmarks.table import Row, print_table

NAMESPACES, SOCKETS_EACH = 200, 100
CPU_TARGET_PERCENT, MEMORY_TARGET_MB = 1, 10
READINGS, WARM = 20, 3
NOBODY = 65534
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


def peak_bytes() -> int:
    """Read the most memory that this process had so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure() -> None:
    """Print the costs, as nobody."""
    # It imports something when it is first called, which nobody may not be allowed to read.
    Counter("x").most_common(1)
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    before = peak_bytes()
    counters = Counters(PROC)
    for _ in range(WARM):
        counters.read()
    began = time.process_time()
    for _ in range(READINGS):
        told = counters.read()
    each = (time.process_time() - began) / READINGS
    began = time.process_time()
    table = take_sockets(PROC, DEADLINE_SECONDS)
    survey = time.process_time() - began
    spacing = max(SPACING.total_seconds(), survey / CPU_SHARE)
    seen = sum(space.inuse or 0 for space in table.namespaces if space.number)
    print_table(
        [
            Row(f"counters of {told.namespaces} namespaces", 1000 * each, "ms"),
            Row(f"count of {seen} sockets in them", 1000 * survey, "ms"),
            Row("namespaces left out", sum(space.number is None for space in table.namespaces), ""),
            Row("processor time", 100 * (each / SAMPLE_SECONDS + survey / spacing), "% of one", CPU_TARGET_PERCENT),
            Row("memory on top", (peak_bytes() - before) / 1e6, "MB", MEMORY_TARGET_MB),
        ]
    )


def main() -> None:
    """Make the namespaces, measure, and let them go; without root, say that it was left out."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else NAMESPACES
    if os.geteuid() != 0:
        print("SKIPPED: network namespaces take root")
        return
    ready, stop = os.pipe(), os.pipe()
    for _ in range(count):
        if os.fork() == 0:
            os.close(stop[1])
            live_apart(ready[1], stop[0])
    os.close(ready[1])
    up = 0
    while up < count and (said := os.read(ready[0], count)):
        up += len(said)
    if up < count:
        print(f"SKIPPED: only {up} of {count} network namespaces could be made")
    elif os.fork() == 0:
        measure()
        sys.stdout.flush()
        os._exit(0)
    else:
        os.wait()
    os.close(stop[1])
    for _ in range(count):
        os.wait()


if __name__ == "__main__":
    main()
