"""What `sockmem-agent incidents list` takes over 10,000 incidents, the most that a state directory keeps; its siblings.

python -m benchmarks.listing [INCIDENTS]
"""

import json
import tempfile
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from statistics import median

from benchmarks.latency import CONFIG, append, kernel_line
from benchmarks.processes import measure_command
from benchmarks.table import Row, run
from contrib.stage import Receiver, agent_command, running_agent, wait_for

INCIDENTS, ROUNDS = 10_000, 5
SECONDS_REACH, MEMORY_REACH_MB = 1, 64
SIBLINGS = ("list --json", "list --by-kind", "list --limit 10", "show last", "prune --dry-run")


def one_incident(work: Path) -> Path:
    """Let the service make one, as it would be a moment later; return its directory."""
    (work / "messages").touch()
    config = work / "config.toml"
    with Receiver() as receiver:
        config.write_text(CONFIG.format(work=work, url=receiver.url, quiet_seconds=1))
        with running_agent(config, work / "agent.log"):
            wait_for(lambda: list(work.glob("state/history/*")), "first sample", work / "agent.log")
            append(work / "messages", kernel_line())
            incident = wait_for(
                lambda: list(work.glob("state/incidents/*/incident.json")), "incident", work / "agent.log"
            )[0]
            wait_for(lambda: json.loads(incident.read_bytes())["closed_at"], "its end", work / "agent.log")
    return incident.parent


def multiply(incident: Path, count: int) -> None:
    """Put as many beside it, an hour apart, with all their files."""
    files = {path.name: path.read_bytes() for path in incident.iterdir()}
    newest = datetime.now(timezone.utc)
    for number in range(1, count):
        name = f"{newest - timedelta(hours=number):%Y%m%dT%H%M%SZ}-{number % 0x10000:04x}"
        copy = incident.with_name(name)
        copy.mkdir(mode=0o750)
        for file, content in files.items():
            (copy / file).write_bytes(content.replace(incident.name.encode(), name.encode()))


def rows(count: int = INCIDENTS) -> Iterator[Row]:
    """List them, some times."""
    with tempfile.TemporaryDirectory(prefix="sockmem-bench-") as directory:
        work = Path(directory)
        multiply(one_incident(work), count)
        seconds, megabytes, lines = measure(work, "list")
        siblings = {each: measure(work, each) for each in SIBLINGS}
    assert min(lines) > count, f"only {min(lines)} lines were listed"
    yield Row(f"incidents list of {count:,}", (median(seconds),), "s", (SECONDS_REACH,))
    yield Row(f"incidents list of {count:,}: resident memory", (max(megabytes),), "MB", (MEMORY_REACH_MB,))
    for each, (took, peak, _) in siblings.items():
        yield Row(f"incidents {each}, of {count:,}", (median(took),), "s")
        yield Row(f"incidents {each}, of {count:,}: resident memory", (max(peak),), "MB")


def measure(work: Path, arguments: str) -> tuple[tuple[float, ...], ...]:
    """Run a command some times; return the seconds, megabytes and lines of each."""
    command = agent_command("incidents", *arguments.split(), "--config", str(work / "config.toml"))
    return tuple(zip(*(measure_command(command) for _ in range(ROUNDS)), strict=True))


if __name__ == "__main__":
    run(rows)
