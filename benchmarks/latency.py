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
from typing import Any, NamedTuple

import msgspec

from benchmarks.peers import Peer, await_count, counted, followers, following, free_url
from benchmarks.sockdiag import held
from benchmarks.table import Row, p50_p99, run
from contrib.stage import Receiver, next_post, running_agent, wait_for

HITS, HITS_BESIDE, SOCKETS = 96, 8, 200_000
PEERS_SHARE = 4
AGENTS = 8
# A channel gets six messages an hour for incidents that a text log claims.
HITS_A_START = 6
REACH_MS = (5, 12)
# The notice is not to wait for the count of the sockets; two medians of the same thing differ by this much.
RATIO_REACH = 1.25
# The agent counts the sockets a quarter of a second after its notice; that is not to meet the next hit.
SETTLE_SECONDS, PAUSE_SECONDS, PAUSE_BESIDE_SECONDS = 2.0, 0.32, 1.5
WARM_UP_SECONDS = 60.0
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

    def has_sampled(self) -> bool:
        """Return whether it has begun its work."""
        return any(self.work.glob("state/history/*"))

    def incidents(self) -> list[dict[str, Any]]:
        """Read its committed incidents."""
        paths = self.work.glob("state/incidents/[0-9]*/incident.json")
        return [msgspec.json.decode(path.read_bytes()) for path in paths]

    def is_at_rest(self) -> bool:
        """Return whether all its incidents are over."""
        return all(incident["closed_at"] for incident in self.incidents())


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
            wait_for(agent.has_sampled, "first sample", agent.said)
        yield them


def measure(hits: int, pause_seconds: float = PAUSE_SECONDS) -> tuple[list[float], int]:
    """Hit agents, each a few times in each run of it.

    Returns the milliseconds to each POST, and how many of the incidents know in the end who holds the sockets.
    """
    took: list[float] = []
    named = 0
    while len(took) < hits:
        with agents(AGENTS) as them:
            time.sleep(SETTLE_SECONDS)
            for _ in range(min(HITS_A_START, -(-(hits - len(took)) // AGENTS))):
                for agent in them:
                    time.sleep(random.uniform(pause_seconds, 1.5 * pause_seconds))
                    took.append(hit(agent))
                for agent in them:
                    wait_for(agent.is_at_rest, "end of the incidents", agent.said)
            named += sum(bool(incident["diagnosis"]["holders"]) for agent in them for incident in agent.incidents())
    return took, named


def hit(agent: Agent) -> float:
    """Write a line, and wait for its POST, before which the incident is on disk; return the milliseconds."""
    known = len(agent.incidents())
    line = kernel_line()
    written = time.perf_counter()
    append(agent.log, line)
    posted = next_post(agent.receiver, "notification", agent.said).at
    assert len(agent.incidents()) == known + 1, "the POST came before the incident"
    return 1000 * (posted - written)


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
    is_mtail = peer.name == "mtail"
    while not counted(url) if is_mtail else receiver.posts.empty():
        if time.monotonic() > deadline:
            raise SystemExit(f"{peer.name} sees no line:\n{(log.parent / 'peer.log').read_text()[-2000:]}")
        append(log, kernel_line())
        time.sleep(1)
    time.sleep(1)
    while not receiver.posts.empty():
        receiver.posts.get()
    return counted(url) if is_mtail else 0


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
    ours, _ = measure(hits)
    peers = {peer.name: p50_p99(measure_peer(peer, hits // PEERS_SHARE)) for peer in followers()}
    yield Row(f"line to POST, {hits} hits: p50 / p99", p50_p99(ours), "ms", REACH_MS, peers)
    with held(sockets):
        beside, named = measure(HITS_BESIDE, PAUSE_BESIDE_SECONDS)
    assert named == len(beside), f"only {named} of {len(beside)} incidents know the holders"
    reach = (RATIO_REACH * median(ours),)
    yield Row(f"line to POST beside {sockets:,} sockets: p50", (median(beside),), "ms", reach)


if __name__ == "__main__":
    run(rows)
