"""What processes cost, as the kernel counts it."""

import os
import resource
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from contrib.stage import clean_environment

# A small process of its own, since the memory at most is that of the largest child.
MEASURE = """
import resource, subprocess, sys, time
began = time.perf_counter()
ran = subprocess.run(sys.argv[1:], capture_output=True)
seconds = time.perf_counter() - began
if ran.returncode:
    sys.exit(ran.stderr.decode())
print(seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e6, ran.stdout.count(b"\\n"))
"""


class Command(NamedTuple):
    """What a command took, and how many lines it printed."""

    seconds: float
    megabytes: float
    lines: int


def measure_command(command: list[str]) -> Command:
    """Run a command."""
    measure = [sys.executable, "-S", "-c", MEASURE, *command]
    run = subprocess.run(measure, stdout=subprocess.PIPE, check=True, env=clean_environment())
    seconds, megabytes, lines = run.stdout.split()
    return Command(float(seconds), float(megabytes), int(lines))


def children_seconds() -> float:
    """Read the processor time of the children waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def status_fields(path: Path) -> dict[str, int]:
    """Read the numbers of a status file: ``VmRSS:   38212 kB`` (proc(5))."""
    fields = (line.split()[:2] for line in path.read_text().splitlines())
    return {field[0].rstrip(":"): int(field[1]) for field in fields if len(field) > 1 and field[1].isdigit()}


def wakeups(pids: Iterable[int]) -> int:
    """Count how often a thread waited until now; when another program takes its processor, it does not."""
    tasks = (status_fields(task / "status") for pid in pids for task in Path(f"/proc/{pid}/task").iterdir())
    return sum(task["voluntary_ctxt_switches"] for task in tasks)


def cpu_seconds(pids: Iterable[int]) -> float:
    """Add up the processor time of all threads until now, to the nanosecond: the first field of schedstat."""
    tasks = (task for pid in pids for task in Path(f"/proc/{pid}/task").iterdir())
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def group(leader: int) -> list[int]:
    """List the processes of a group."""
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    return [pid for pid in pids if is_of(pid, leader)]


def is_of(pid: int, leader: int) -> bool:
    """Return whether a process is of a group; one that has just ended is of none."""
    try:
        return os.getpgid(pid) == leader
    except ProcessLookupError:
        return False
