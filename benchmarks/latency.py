"""Measure how long the real agent takes from a line in a log to the incident on disk, and to the POST received.

Every hit is an incident of its own: a line is appended, the incident and the POST are awaited, then its end. The pause
before the next hit is random, so that no phase of the agent's main loop is favoured.

    python -m benchmarks.latency [HITS]
"""

import json
import random
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import median, quantiles

from benchmarks.table import Row, print_table
from contrib.stage import Receiver, next_post, running_agent, wait_for

HITS = 50
STORED_TARGET_MS = 20
POSTED_TARGET_MS = 50
CONFIG = """\
[source]
kind = "file"
paths = ["{work}/messages"]

[store]
directory = "{work}/state"

[incident]
quiet_seconds = 1

[[notify]]
name = "hook"
type = "webhook"
url = "{url}/hook"
"""


def measure(hits: int) -> tuple[list[float], list[float]]:
    """Return the milliseconds to incident.json and to the POST, one of each for every hit."""
    stored, posted = [], []
    with tempfile.TemporaryDirectory(prefix="sockmem-bench-") as directory, Receiver() as receiver:
        work = Path(directory)
        log, said, state = work / "messages", work / "agent.log", work / "state"
        log.touch()
        config = work / "config.toml"
        config.write_text(CONFIG.format(work=work, url=receiver.url))
        with running_agent(config, said):
            wait_for(lambda: list(state.glob("history/*")), "first sample", said)
            for number in range(hits):
                time.sleep(random.uniform(0.0, 1.0))  # any phase of the main loop
                known = {path.parent.name for path in state.glob("incidents/*/incident.json")}
                written = time.perf_counter()
                with log.open("a") as file:
                    file.write(kernel_line(number))
                wait_for(lambda known=known: new_incident(state, known), "incident", said)  # type: ignore[misc]
                stored.append(1000 * (time.perf_counter() - written))
                posted.append(1000 * (next_post(receiver, "notification", said).at - written))
                while json.loads(next_post(receiver, "end", said).body)["type"] != "sockmem.incident.resolved":
                    pass
    return stored, posted


def kernel_line(number: int) -> str:
    """Write a line as rsyslog does with its high-precision stamps; each is another, as in a real log."""
    return f"{datetime.now(UTC).isoformat()} bench kernel: [{1000 + number}.500000] TCP: too many orphaned sockets\n"


def new_incident(state: Path, known: set[str]) -> bool:
    """Tell whether there is an incident.json that was not there."""
    directories = (state / "incidents").glob("*")
    return any(d.name not in known and (d / "incident.json").exists() for d in directories)


def main() -> None:
    """Print the medians beside their targets, and the 95th percentiles."""
    hits = int(sys.argv[1]) if len(sys.argv) > 1 else HITS
    stored, posted = measure(hits)
    rows = [
        Row(f"line to incident.json, median of {hits}", median(stored), "ms", STORED_TARGET_MS),
        Row(f"line to POST received, median of {hits}", median(posted), "ms", POSTED_TARGET_MS),
        Row("line to incident.json, 95th percentile", quantiles(stored, n=20)[-1], "ms"),
        Row("line to POST received, 95th percentile", quantiles(posted, n=20)[-1], "ms"),
    ]
    print_table(rows)


if __name__ == "__main__":
    main()
