"""A million of the kernel's lines at once, which any local user can write into a text log; beside other programs.

The expensive flood is that in which nothing is said twice in a second: a line for each of eleven days' seconds. The
other programs read the second one through.

    python -m benchmarks.flood [LINES]
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.latency import CONFIG
from benchmarks.peers import Peer, count, readers
from benchmarks.processes import children_seconds, cpu_seconds, status_fields
from benchmarks.table import Row, run
from contrib.stage import Receiver, running_agent, wait_for

LINES = 1_000_000
# What takes longer reads a part, and what that takes is multiplied.
PART = {"fail2ban": 10}
CPU_REACH_SECONDS, MESSAGES_REACH, MEMORY_REACH_MB = 5, 3, 64
PATIENCE_SECONDS = 300
BEGUN = datetime(2026, 11, 1, tzinfo=timezone.utc)


def same(number: int) -> str:
    del number
    return "Nov 22 15:05:39 web1 kernel: Out of socket memory\n"


def restamped(number: int) -> str:
    return f"Nov 22 15:05:39 web1 kernel: [{number}.000001] Out of socket memory\n"


def of_two_kinds(number: int) -> str:
    text = "Out of socket memory" if number % 2 else "TCP: too many orphaned sockets"
    return f"{BEGUN + timedelta(milliseconds=number):%b %d %H:%M:%S} web1 kernel: [{number}.000001] {text}\n"


def rfc5424(number: int) -> str:
    at = BEGUN + timedelta(milliseconds=number)
    return f'<6>1 {at:%Y-%m-%dT%H:%M:%S}.{at:%f}Z web1 kernel - - [meta sequenceId="{number}"] Out of socket memory\n'


def json_lines(number: int) -> str:
    return (
        f'{{"__CURSOR":"s=5ad8;i={number:x}","__REALTIME_TIMESTAMP":"{1_793_500_000_000_000 + 1000 * number}",'
        f'"_TRANSPORT":"kernel","SYSLOG_FACILITY":"0","SYSLOG_IDENTIFIER":"kernel","_HOSTNAME":"web1",'
        f'"_SOURCE_MONOTONIC_TIMESTAMP":"{1000 * number}","MESSAGE":"Out of socket memory"}}\n'
    )


def a_second_each(number: int) -> str:
    return f"{BEGUN + timedelta(seconds=number):%b %d %H:%M:%S} web1 kernel: Out of socket memory\n"


FLOODS = {
    same: "alike",
    restamped: "but for printk's stamp alike",
    of_two_kinds: "two kinds in turn",
    rfc5424: "RFC 5424",
    json_lines: "journalctl -o json",
    a_second_each: "each of another second",
}


def flood(line: Callable[[int], str], lines: int) -> tuple[float, int, float]:
    """Let the agent read the lines; return its processor seconds, its messages, and its memory at most in megabytes."""
    with tempfile.TemporaryDirectory(prefix="sockmem-bench-") as directory, Receiver() as receiver:
        work = Path(directory)
        log, said, state = work / "messages", work / "agent.log", work / "state"
        log.touch()
        config = work / "config.toml"
        config.write_text(CONFIG.format(work=work, url=receiver.url, quiet_seconds=1))
        with running_agent(config, said) as agent:
            wait_for(lambda: list(state.glob("history/*")), "first sample", said)
            text = "".join(map(line, range(lines)))
            before = cpu_seconds([agent.pid])
            with log.open("a") as file:
                file.write(text)
            wait_for(lambda: counted(state) == lines, "end of the flood", said, PATIENCE_SECONDS)
            used, status = cpu_seconds([agent.pid]) - before, status_fields(Path(f"/proc/{agent.pid}/status"))
            wait_for(lambda: all_over(state), "end of the incidents", said, PATIENCE_SECONDS)
            time.sleep(1)  # and its messages
        return used, receiver.posts.qsize(), status["VmHWM"] * 1024 / 1e6


def incidents(state: Path) -> list[dict[str, Any]]:
    return [msgspec.json.decode(path.read_bytes()) for path in state.glob("incidents/[0-9]*/incident.json")]


def counted(state: Path) -> int:
    """Count the events in all incidents."""
    return sum(sum(incident["events"].values()) for incident in incidents(state))


def all_over(state: Path) -> bool:
    """Return whether each incident has ended."""
    return all(incident["closed_at"] for incident in incidents(state))


def peer_seconds(peer: Peer, lines: int) -> float:
    """Let another program read the lines through; return its processor time in seconds."""
    lines_read = lines // PART.get(peer.name, 1)
    with tempfile.TemporaryDirectory(prefix="sockmem-bench-") as directory:
        work, log = Path(directory), Path(directory, "messages")
        with log.open("w") as file:
            file.writelines(map(restamped, range(lines_read)))
        before = children_seconds()
        found = count(peer, log, work)
        used = children_seconds() - before
    assert found == lines_read, f"{peer.name} found {found} of {lines_read} lines"
    return used * PART.get(peer.name, 1)


def rows(lines: int = LINES) -> Iterator[Row]:
    """Compare with the peers."""
    peers = {peer.name: (peer_seconds(peer, lines),) for peer in readers()}
    most_messages, most_megabytes = 0, 0.0
    for line, what in FLOODS.items():
        used, messages, megabytes = flood(line, lines)
        most_messages, most_megabytes = max(most_messages, messages), max(most_megabytes, megabytes)
        beside = peers if line is restamped else {}
        yield Row(f"{lines:,} matching lines, {what}: processor", (used,), "s", (CPU_REACH_SECONDS,), beside)
    yield Row(f"{lines:,} matching lines of each sort: messages at most", (most_messages,), "", (MESSAGES_REACH,))
    yield Row(f"{lines:,} matching lines of each sort: memory at most", (most_megabytes,), "MB", (MEMORY_REACH_MB,))


if __name__ == "__main__":
    run(rows)
