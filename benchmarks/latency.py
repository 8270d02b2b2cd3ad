"""The time from a line in a log to the POST received, every hit an incident of its own; beside other programs.

Agents with a log each are hit in turn, since an incident has to end before the next one opens; only the one that is hit
has something to do at that moment. The pauses are random, so that no phase of a main loop is favored.

    python -m benchmarks.latency [HITS [SOCKETS]]
"""

import platform
import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timezone
from pathlib import Path
from statistics import median
from typing import NamedTuple

import msgspec

from benchmarks.peers import Peer, await_count, followers, following, free_url
from benchmarks.sockdiag import held
from benchmarks.table import Row, p50_p99, run
from contrib.stage import Receiver, next_post, running_agent, wait_for

HITS, HITS_BESIDE, SOCKETS = 96, 24, 200_000
AGENTS = 8
# A channel gets six messages an hour for incidents that a text log claims.
HITS_A_START = 6
POSTED_REACH_MS, STORED_REACH_MS = (5, 12), (10, 20)
# The notice is not to wait for the count of the sockets; two medians of the same thing differ by this much.
RATIO_REACH = 1.25
# The agent counts the sockets a quarter of a second after its notice; that is not to meet the next hit.
PAUSE_SECONDS, PAUSE_BESIDE_SECONDS = 0.4, 1.6
WARM_UP_SECONDS = 30.0
CONFIG = """\
[source]
kind = "file"
paths = ["{work}/messages"]

[store]
directory = "{work}/state"

[incident]
quiet_seconds = {quiet_seconds}

[[notify]]
name = "hook"
type = "webhook"
url = "{url}/hook"
"""
ONLY_OPENED = "updates = false\nresolved = false\n"


class Agent(NamedTuple):
    """An agent that follows its own log and posts to its own receiver."""

    work: Path
    receiver: Receiver

    @property
    def log(self) -> Path:
        """Return the log it follows."""
        return self.work / "messages"

    @property
    def said(self) -> Path:
        """Return what it printed."""
        return self.work / "agent.log"

    def incidents(self) -> set[Path]:
        """List its committed incidents."""
        return set(self.work.glob("state/incidents/[0-9]*/incident.json"))

    def is_at_rest(self) -> bool:
        """Return whether all its incidents are over."""
        return all(msgspec.json.decode(path.read_bytes())["closed_at"] for path in self.incidents())


class Measured(NamedTuple):
    """Milliseconds to incident.json and to the POST, one of each for every hit; ``attributed`` hits had holders."""

    stored: list[float]
    posted: list[float]
    attributed: int

    def and_also(self, more: "Measured") -> "Measured":
        """Combine two."""
        return Measured(self.stored + more.stored, self.posted + more.posted, self.attributed + more.attributed)


@contextmanager
def agents(count: int) -> Iterator[list[Agent]]:
    """Run some until the block ends."""
    with ExitStack() as stack:
        them = []
        for _ in range(count):
            work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sockmem-bench-")))
            agent = Agent(work, stack.enter_context(Receiver()))
            agent.log.touch()
            config = work / "config.toml"
            config.write_text(CONFIG.format(work=work, url=agent.receiver.url, quiet_seconds=1) + ONLY_OPENED)
            stack.enter_context(running_agent(config, agent.said))
            them.append(agent)
        for agent in them:
            wait_for(lambda agent=agent: list(agent.work.glob("state/history/*")), "first sample", agent.said)  # type: ignore[misc]
        yield them


def measure(hits: int, pause_seconds: float = PAUSE_SECONDS) -> Measured:
    """Hit agents ``hits`` times, each a few times in each run of it."""
    measured = Measured([], [], 0)
    while len(measured.posted) < hits:
        with agents(AGENTS) as them:
            for _ in range(min(HITS_A_START, -(-(hits - len(measured.posted)) // AGENTS))):
                for agent in them:
                    time.sleep(random.uniform(pause_seconds, 1.5 * pause_seconds))
                    measured = measured.and_also(hit(agent))
                for agent in them:
                    wait_for(agent.is_at_rest, "end of the incidents", agent.said)
            named = sum(
                bool(msgspec.json.decode(path.read_bytes())["diagnosis"]["holders"])
                for a in them
                for path in a.incidents()
            )
            measured = measured._replace(attributed=measured.attributed + named)
    return measured


def hit(agent: Agent) -> Measured:
    """Write a line, and wait for what comes of it."""
    known = agent.incidents()
    line = kernel_line()
    written = time.perf_counter()
    append(agent.log, line)
    wait_for(lambda: agent.incidents() - known, "incident", agent.said)
    stored = time.perf_counter()
    posted = next_post(agent.receiver, "notification", agent.said).at
    return Measured([1000 * (stored - written)], [1000 * (posted - written)], 0)


def measure_peer(peer: Peer, hits: int) -> list[float]:
    """Let another program follow a log; return the milliseconds to its POST, or to what mtail counts."""
    with tempfile.TemporaryDirectory(prefix="sockmem-bench-") as directory, Receiver() as receiver:
        work, log = Path(directory), Path(directory, "messages")
        log.touch()
        url = free_url() if peer.name == "mtail" else receiver.url
        with following(peer, work, log, url):
            begun = warm_up(peer, log, url, receiver)
            took = []
            for number in range(hits):
                time.sleep(random.uniform(PAUSE_SECONDS / 2, PAUSE_SECONDS))
                line = kernel_line()
                written = time.perf_counter()
                append(log, line)
                if peer.name == "mtail":
                    seen = await_count(url, begun + number + 1)
                else:
                    seen = next_post(receiver, f"POST of {peer.name}", work / "peer.log").at
                took.append(1000 * (seen - written))
    return took


def warm_up(peer: Peer, log: Path, url: str, receiver: Receiver) -> int:
    """Write lines until one arrives, and wait for what is still on its way; return what mtail has counted."""
    deadline = time.monotonic() + WARM_UP_SECONDS
    time.sleep(1)
    if peer.name == "mtail":
        append(log, kernel_line())
        await_count(url, 1)
        return 1
    while receiver.posts.empty():
        if time.monotonic() > deadline:
            raise SystemExit(f"{peer.name} does not POST:\n{(log.parent / 'peer.log').read_text()[-2000:]}")
        append(log, kernel_line())
        time.sleep(1)
    time.sleep(1)
    while not receiver.posts.empty():
        receiver.posts.get()
    return 0


def append(log: Path, line: str) -> None:
    with log.open("a") as file:
        file.write(line)


def kernel_line() -> str:
    """Write a line as rsyslog does with its high-precision stamps; each is another, as in a real log."""
    now = datetime.now(timezone.utc)
    stamp = f"{time.monotonic():.6f}"
    return f"{now.isoformat()} {platform.node()} kernel: [{stamp}] TCP: too many orphaned sockets\n"


def rows(hits: int = HITS, sockets: int = SOCKETS) -> Iterator[Row]:
    """Compare with the peers, and with the same beside many sockets."""
    ours = measure(hits)
    peers = {peer.name: p50_p99(measure_peer(peer, hits // 2)) for peer in followers()}
    yield Row(f"line to POST, {hits} hits: p50 / p99", p50_p99(ours.posted), "ms", POSTED_REACH_MS, peers)
    yield Row("line to incident on disk: p50 / p99", p50_p99(ours.stored), "ms", STORED_REACH_MS)
    with held(sockets):
        beside = measure(HITS_BESIDE, PAUSE_BESIDE_SECONDS)
    assert beside.attributed == len(beside.posted), (
        f"only {beside.attributed} of {len(beside.posted)} incidents have holders"
    )
    reach = (RATIO_REACH * median(ours.posted),)
    yield Row(f"line to POST beside {sockets:,} sockets: p50", (median(beside.posted),), "ms", reach)


if __name__ == "__main__":
    run(rows)
