"""Measure the real agent at idle: resident memory, and wake-ups a second of all its threads.

It follows an empty log with one webhook configured, so that the HTTP library is in memory as on most hosts. A wake-up
is a context switch, voluntary or not, as /proc/PID/task/*/status counts them.

    python -m benchmarks.idle [SECONDS]
"""

import os
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.latency import CONFIG
from benchmarks.table import Row, print_table
from contrib.stage import Receiver, running_agent, wait_for

SETTLE_SECONDS = 15
SECONDS = 30
RSS_TARGET_MB = 45
WAKEUPS_TARGET = 2


def status_fields(path: Path) -> dict[str, int]:
    """Read the numbers of a status file: ``VmRSS:   38212 kB`` (proc(5))."""
    fields = (line.split()[:2] for line in path.read_text().splitlines())
    return {field[0].rstrip(":"): int(field[1]) for field in fields if len(field) > 1 and field[1].isdigit()}


def switches(pid: int) -> int:
    """Count the context switches of all threads until now."""
    tasks = [status_fields(task / "status") for task in Path(f"/proc/{pid}/task").iterdir()]
    return sum(task["voluntary_ctxt_switches"] + task["nonvoluntary_ctxt_switches"] for task in tasks)


def cpu_seconds(pid: int) -> float:
    """Read the processor time used until now: fields 14 and 15 of /proc/PID/stat."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Print the results beside their targets."""
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else SECONDS
    with tempfile.TemporaryDirectory(prefix="sockmem-bench-") as directory, Receiver() as receiver:
        work = Path(directory)
        (work / "messages").touch()
        config = work / "config.toml"
        config.write_text(CONFIG.format(work=work, url=receiver.url))
        with running_agent(config, work / "agent.log") as agent:
            wait_for(lambda: list(work.glob("state/history/*")), "first sample", work / "agent.log")
            time.sleep(SETTLE_SECONDS)
            woken, used, began = switches(agent.pid), cpu_seconds(agent.pid), time.monotonic()
            time.sleep(seconds)
            passed = time.monotonic() - began
            woken, used = switches(agent.pid) - woken, cpu_seconds(agent.pid) - used
            rss = status_fields(Path(f"/proc/{agent.pid}/status"))["VmRSS"]
    print_table(
        [
            Row("resident memory at idle, one webhook", rss * 1024 / 1e6, "MB", RSS_TARGET_MB),
            Row(f"wake-ups a second over {seconds} s, all threads", woken / passed, "1/s", WAKEUPS_TARGET),
            Row("processor time at idle", 100 * used / passed, "% of one"),
        ]
    )


if __name__ == "__main__":
    main()
