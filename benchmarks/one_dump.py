"""One dump of this host's sockets alone and one with names, as JSON; its memory is theirs, so that little is imported.

python -m benchmarks.one_dump
"""

import os
import socket
import time
from pathlib import Path

import msgspec

from agent.core.sockets.census import Census
from agent.core.sockets.holders import holders
from agent.probe import sockdiag
from agent.probe.attribution import take_sockets

PATIENCE_SECONDS = 60
RESERVE_BYTES = 1 << 20


def measure() -> None:
    """Dump once alone and once with names; print what it took and what was seen, as JSON."""
    began = time.perf_counter()
    census = Census()
    netlink = sockdiag.open_socket()
    assert isinstance(netlink, socket.socket), netlink
    gaps = sockdiag.dump(netlink, census, time.monotonic() + PATIENCE_SECONDS)
    dumped = time.perf_counter() - began
    netlink.close()
    began = time.perf_counter()
    table = take_sockets(Path("/proc"), PATIENCE_SECONDS)
    named = time.perf_counter() - began
    assert not gaps, gaps
    assert table.sockstat is not None
    tcp = table.sockstat.tcp
    assert None not in (tcp.orphan, tcp.mem)
    mem = (tcp.mem or 0) * os.sysconf("SC_PAGE_SIZE")
    held_by, _ = holders(table, None, mem_unit_bytes=os.sysconf("SC_PAGE_SIZE"))
    size = sum(group.bytes for group in table.groups)
    took = {
        "dumped": dumped,
        "named": named,
        "seen": sum(group.sockets for group in table.groups),
        "orphans off": abs(sum(group.orphans for group in table.groups) - (tcp.orphan or 0)),
        "holders' orphans off": abs(sum(each.orphans for each in held_by) - (tcp.orphan or 0)),
        # Kernels from 6.0 keep up to 1 MiB of mem back for each CPU, whatever it really is.
        "bytes off": percent_off(size, mem),
        "holders' bytes off": percent_off(sum(each.bytes for each in held_by), mem),
        # Not ru_maxrss, which begins with what the process that started this one had (exec_mmap in fs/exec.c).
        "peak": int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024 / 1e6,
    }
    print(msgspec.json.encode(took).decode())


def percent_off(size: int, mem: int) -> float:
    """Return by which percentage a sum differs from ``mem``, beyond what the CPUs hold back."""
    return max(0.0, abs(size - mem) - RESERVE_BYTES * (os.cpu_count() or 1)) * 100 / max(mem, 1)


if __name__ == "__main__":
    measure()
