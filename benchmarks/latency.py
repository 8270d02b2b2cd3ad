"""Measure the time from a line in a log to the incident on disk, and to the POST received.

Every hit is an incident of its own: a line is appended, the incident, its POST and its end are awaited. The pause
before the next hit is random, so that no phase of the agent's main loop is favored.

Then the same beside many established sockets, which the agent counts after each notice: the notice must not be slower.

    python -m benchmarks.latency [HITS [SOCKETS...]]
"""

import json
import platform
import random
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path
from statistics import median, quantiles
from typing import Any, NamedTuple

from benchmarks.sockdiag import held
from benchmarks.table import Row, print_table
from contrib.stage import Receiver, next_post, running_agent, wait_for

HITS = 50
SOCKETS = (80_000, 200_000)
# How much two medians of the same thing differ on a busy machine.
RATIO_TARGET = 1.25
TURNS = 3
HITS_BESIDE_AT_MOST = 24
# A channel gets six messages an hour for incidents that a text log claims, and each of ours is opened and updated.
HITS_A_START = 3
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


class Measured(NamedTuple):
    """Milliseconds to incident.json and to the POST, one of each for every hit; ``attributed`` hits had holders."""

    stored: list[float]
    posted: list[float]
    attributed: int

    def and_also(self, more: "Measured") -> "Measured":
        """Combine two."""
        return Measured(self.stored + more.stored, self.posted + more.posted, self.attributed + more.attributed)


def measure(hits: int) -> Measured:
    """Hit the agent ``hits`` times, a few in each run of it."""
    measured = Measured([], [], 0)
    for done in range(0, hits, HITS_A_START):
        measured = measured.and_also(measure_one_start(min(HITS_A_START, hits - done)))
    return measured


def measure_one_start(hits: int) -> Measured:
    """Start the agent and hit it ``hits`` times."""
    stored, posted, attributed = [], [], 0
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
                known = {path.parent.name for path in state.glob("incidents/[0-9]*/incident.json")}
                written = time.perf_counter()
                with log.open("a") as file:
                    file.write(kernel_line(number))
                wait_for(lambda known=known: new_incident(state, known), "incident", said)  # type: ignore[misc]
                stored.append(1000 * (time.perf_counter() - written))
                posted.append(1000 * (next_post(receiver, "notification", said).at - written))
                attributed += bool(await_end(receiver, said)["diagnosis"]["holders"])
    return Measured(stored, posted, attributed)


def await_end(receiver: Receiver, said: Path) -> dict[str, Any]:
    """Take the POSTs of an incident up to its last, and return the data of that."""
    while (told := json.loads(next_post(receiver, "end", said).body))["type"] != "sockmem.incident.resolved":
        pass
    data: dict[str, Any] = told["data"]
    return data


def kernel_line(number: int) -> str:
    """Write a line as rsyslog does with its high-precision stamps; each is another, as in a real log."""
    stamp = datetime.now(timezone.utc).isoformat()
    return f"{stamp} {platform.node()} kernel: [{1000 + number}.500000] TCP: too many orphaned sockets\n"


def new_incident(state: Path, known: set[str]) -> bool:
    """Return whether there is an incident.json that was not there."""
    directories = (state / "incidents").glob("[0-9]*")
    return any(d.name not in known and (d / "incident.json").exists() for d in directories)


def main() -> None:
    """Print the medians beside their targets, the 95th percentiles, and the slowdown beside many sockets."""
    hits, *counts = [int(each) for each in sys.argv[1:]] or [HITS]
    stored, posted, _ = measure(hits)
    rows = [
        Row(f"line to incident.json, median of {hits}", median(stored), "ms", STORED_TARGET_MS),
        Row(f"line to POST received, median of {hits}", median(posted), "ms", POSTED_TARGET_MS),
        Row("line to incident.json, 95th percentile", quantiles(stored, n=20)[-1], "ms"),
        Row("line to POST received, 95th percentile", quantiles(posted, n=20)[-1], "ms"),
    ]
    print_table(rows)
    for count in counts or SOCKETS:
        print_table(rows_beside(count, *take_turns(min(hits, HITS_BESIDE_AT_MOST), count)))


def take_turns(hits: int, count: int) -> tuple[Measured, Measured]:
    """Measure with ``count`` sockets and without, in turns, so that other work on the machine affects both alike."""
    many, few = Measured([], [], 0), Measured([], [], 0)
    for _ in range(TURNS):
        with held(count):
            many = many.and_also(measure(-(-hits // TURNS)))
        few = few.and_also(measure(-(-hits // TURNS)))
    return many, few


def rows_beside(count: int, many: Measured, few: Measured) -> list[Row]:
    """Compare the results beside many sockets with those without."""
    what = f"{count:,} sockets: "
    rows = [
        Row(f"{what}to incident.json, median", median(many.stored), "ms", STORED_TARGET_MS),
        Row(f"{what}to POST, median", median(many.posted), "ms", POSTED_TARGET_MS),
        Row(f"{what}hits with holders", many.attributed, "hits", len(many.posted), at_least=True),
    ]
    pairs = {"to incident.json": (many.stored, few.stored), "to POST": (many.posted, few.posted)}
    for name, (beside, without) in pairs.items():
        quarter = quantiles(beside, n=4)[0] / quantiles(without, n=4)[0]
        rows += [
            Row(f"{what}{name}, ratio of medians", median(beside) / median(without), "times", RATIO_TARGET),
            Row(f"{what}{name}, of lower quartiles", quarter, "times", RATIO_TARGET),
        ]
    return rows


if __name__ == "__main__":
    main()
