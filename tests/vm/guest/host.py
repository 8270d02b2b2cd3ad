"""In the machine: what the kernel says of itself, as a scenario notes it beside what the agent makes of it."""

import contextlib
import os
from pathlib import Path

from install import sh

TEXTS = ("too many orphaned sockets", "out of memory -- consider tuning tcp_mem", "callbacks suppressed")


def sockstat() -> dict[str, int]:
    """Return the line TCP: of /proc/net/sockstat."""
    line = next(line for line in Path("/proc/net/sockstat").read_text().splitlines() if line.startswith("TCP:"))
    words = line.split()[1:]
    return dict(zip(words[::2], map(int, words[1::2]), strict=True))


def counter(name: str, file: str = "netstat", table: str = "TcpExt") -> int:
    """Return one counter, of TcpExt unless another table is named."""
    lines = Path(f"/proc/net/{file}").read_text().splitlines()
    names, values = (line.split()[1:] for line in lines if line.startswith(f"{table}:"))
    return int(dict(zip(names, values, strict=True))[name])


def segments() -> int:
    """Return how many TCP segments were received."""
    return counter("InSegs", "snmp", "Tcp")


def kernel_lines() -> list[str]:
    """Return the kernel's own lines of our family, as /dev/kmsg has them."""
    found = []
    kmsg = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        while True:
            try:
                record = os.read(kmsg, 8192).decode(errors="replace").partition("\n")[0]
            except BrokenPipeError:  # the record was overwritten; the next read goes on behind it
                continue
            # Facility 0 is the kernel's, which nobody else can write with.
            if int(record.split(",")[0]) < 8 and any(text in record for text in TEXTS):
                found.append(record)
    os.close(kmsg)
    return found


def instances() -> list[str]:
    """Name the tracing instances that there are."""
    return sorted(path.name for path in Path("/sys/kernel/tracing/instances").iterdir())


def orphans_in_inet_diag(most: int = 5) -> list[str]:
    """Return what ss (inet_diag) says of some orphans: full sockets without an inode that are closing."""
    said = sh("ss", "-tanmoeH", "--cgroup", "-O", "state", "fin-wait-1", "state", "last-ack", "state", "closing")
    return [line for line in said.splitlines() if "ino:0" in line or "ino:" not in line][:most]
