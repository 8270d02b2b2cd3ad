"""Measure the processor time and memory that the real agent needs for a million kernel lines in one write.

Any local user can write them into a text log. Three floods: one line repeated, lines that differ only in printk's
timestamp, and the expensive one, in which no line can be combined with the one before.

    python -m benchmarks.flood [LINES]
"""

import sys
import tempfile
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import msgspec

from benchmarks.idle import cpu_seconds, status_fields
from benchmarks.latency import CONFIG
from benchmarks.table import Row, print_table
from contrib.stage import Receiver, running_agent, wait_for

LINES = 1_000_000
CPU_TARGET_SECONDS = 5
MEMORY_TARGET_MB = 100
PATIENCE_SECONDS = 600
BEGUN = datetime(2026, 11, 22, tzinfo=timezone.utc)


def same(number: int) -> str:
    del number
    return "Nov 22 15:05:39 web1 kernel: Out of socket memory\n"


def restamped(number: int) -> str:
    return f"Nov 22 15:05:39 web1 kernel: [{number}.000001] Out of socket memory\n"


def each_another(number: int) -> str:
    return f"{BEGUN + timedelta(milliseconds=number):%b %d %H:%M:%S} web{number % 2} kernel: Out of socket memory\n"


def flood(line: Callable[[int], str], lines: int) -> tuple[float, float]:
    """Let the agent read the lines; return its processor time in seconds and its peak memory in megabytes."""
    with tempfile.TemporaryDirectory(prefix="sockmem-bench-") as directory, Receiver() as receiver:
        work = Path(directory)
        log, said, state = work / "messages", work / "agent.log", work / "state"
        log.touch()
        config = work / "config.toml"
        config.write_text(CONFIG.format(work=work, url=receiver.url).replace("quiet_seconds = 1\n", ""))
        with running_agent(config, said) as agent:
            wait_for(lambda: list(state.glob("history/*")), "first sample", said)
            before = cpu_seconds(agent.pid)
            with log.open("a") as file:
                file.write("".join(map(line, range(lines))))
            wait_for(lambda: counted(state) == lines, "end of the flood", said, PATIENCE_SECONDS)
            status = status_fields(Path(f"/proc/{agent.pid}/status"))
            return cpu_seconds(agent.pid) - before, status["VmHWM"] * 1024 / 1e6


def counted(state: Path) -> int:
    """Count the events in all incidents."""
    incidents = [msgspec.json.decode(path.read_bytes()) for path in state.glob("incidents/[0-9]*/incident.json")]
    return sum(sum(incident["events"].values()) for incident in incidents)


def main() -> None:
    """Print each flood beside its targets."""
    lines = int(sys.argv[1]) if len(sys.argv) > 1 else LINES
    for line, what in ((same, "all the same"), (restamped, "but for printk's stamp"), (each_another, "each another")):
        seconds, megabytes = flood(line, lines)
        target = CPU_TARGET_SECONDS if line is not each_another else None
        rows = [
            Row(f"{lines:,} lines, {what}: processor", seconds, "s", target),
            Row(f"{lines:,} lines, {what}: memory at most", megabytes, "MB", MEMORY_TARGET_MB),
        ]
        print_table(rows)


if __name__ == "__main__":
    main()
