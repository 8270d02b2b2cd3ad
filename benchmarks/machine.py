"""The machine that is measured on, and whether others use it meanwhile."""

import os
import platform
import subprocess
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks.peers import PEERS

LOOK_SECONDS = 2.0
BUSY_PERCENT, STOLEN_PERCENT = 5.0, 2.0


class Ticks(NamedTuple):
    """Time of all processors since the boot, from the first line of /proc/stat (proc(5))."""

    total: int
    idle: int
    stolen: int


def ticks() -> Ticks:
    user, nice, system, idle, iowait, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    return Ticks(user + nice + system + idle + iowait + irq + softirq + steal, idle + iowait, steal)


def percent(part: int, whole: int) -> float:
    return 100 * part / max(whole, 1)


def busy() -> float:
    """Look for two seconds, in which we do nothing, how much of the processors others use or the hypervisor takes."""
    before = ticks()
    time.sleep(LOOK_SECONDS)
    after = ticks()
    passed = after.total - before.total
    return percent(passed - (after.idle - before.idle), passed)


class Watch:
    """Whether a measurement had the machine to itself: nobody else ran before or after it, and no time was stolen."""

    def __init__(self) -> None:
        self._before, self._at = busy(), ticks()

    def trouble(self) -> str:
        """Return what was in the way since the start, "" for nothing."""
        now = ticks()
        stolen = percent(now.stolen - self._at.stolen, now.total - self._at.total)
        others = max(self._before, busy())
        if others <= BUSY_PERCENT and stolen <= STOLEN_PERCENT:
            return ""
        return f"others used {others:.0f} % of the processors, and {stolen:.0f} % was stolen"


def describe() -> str:
    """Name the machine: processors, memory, kernel, distribution, Python and file system."""
    models = [
        line.partition(": ")[2] for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    system = platform.freedesktop_os_release()["PRETTY_NAME"]
    files = output("findmnt", "-n", "-o", "FSTYPE", "-T", tempfile.gettempdir())
    model = models[0] if models else platform.machine()
    return (
        f"{os.cpu_count()} x {model}, {memory:.0f} GiB, Linux {platform.release()}, {system}, "
        f"Python {platform.python_version()}, {files}"
    )


def versions() -> str:
    """Name the packages that were there, with their versions."""
    there = [peer.package for peer in PEERS if peer.installed]
    return ", ".join(output("dpkg-query", "-W", "-f", "${Package} ${Version}\\n", *there).splitlines())


def missing() -> list[str]:
    """List the packages that are not there."""
    return [peer.package for peer in PEERS if not peer.installed]


def output(*command: str) -> str:
    return subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False
    ).stdout.strip()
