"""The witness against this kernel: real tracing instances, real resets.

A socket killed for want of memory needs a host that runs out of it. The tests take another reason, which every program
may cause (a connection closed with data unread), through the same code. tracefs is mounted in a namespace of its own
where this host has it not; the instances are the kernel's, so they have names of their own.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import pytest

from agent.core.kernel.tracing import Kills
from agent.probe import witness
from agent.probe.witness import Instances, Reader, make, remove

REASON = "TCP_ABORT_ON_CLOSE"
SMALLEST_KIB = "1"


@pytest.fixture
def them(tracefs: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Instances]:
    """Two instances that are not made yet, of kills for another reason."""
    monkeypatch.setattr(witness, "KILL_REASON", REASON)
    if REASON not in (tracefs / "events/tcp/tcp_send_reset/format").read_text():
        pytest.skip("NOT TESTED: this kernel does not say why it resets a connection")
    place = tracefs / "instances"
    instances = Instances(place / f"sockmem-test-{os.getpid()}-kills", place / f"sockmem-test-{os.getpid()}-refusals")
    yield instances
    remove(instances)


class Subject:
    """A program that closes its connections with data unread, each of which resets it."""

    def __init__(self) -> None:
        script = Path(__file__).with_name("subject.py")
        self._process = subprocess.Popen(
            [sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self.pid = self._process.pid
        self.port = int(self.ask("listen 200"))

    def ask(self, command: str) -> str:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{command}\n")
        return self._process.stdout.readline().strip()

    def is_reset(self, times: int) -> None:
        """Have so many of its connections reset, from its own side."""
        for begun in range(0, times, 100):
            count = min(100, times - begun)
            self.ask(f"connect {self.port} {count}")
            self.ask(f"accept {count}")
            self.ask("say 1")
            self.ask("close")

    def end(self) -> None:
        self._process.communicate()


@pytest.fixture
def subject() -> Iterator[Subject]:
    made = Subject()
    yield made
    made.end()


def of(subject: Subject, kills: tuple[Kills, ...]) -> list[Kills]:
    """Pick those of the subject; others on this host may be reset at the same time."""
    return [each for each in kills if each.pid == subject.pid]


def test_resets_are_witnessed_with_the_program_both_ends_and_the_time(them: Instances, subject: Subject) -> None:
    assert () == make(them)
    reader = Reader(them)
    before = datetime.now(timezone.utc)
    subject.is_reset(3)
    seen = reader.read()
    reader.close()

    kills = of(subject, seen.kills)
    assert {("127.0.0.1", "127.0.0.1")} == {(each.address, each.peer) for each in kills}
    assert {subject.port} <= {each.port for each in kills} | {each.peer_port for each in kills}
    assert 3 <= sum(each.count for each in kills)
    assert {Path(f"/proc/{subject.pid}/comm").read_text().strip()} == {each.name for each in kills}
    assert seen.since is not None
    assert -0.05 < (seen.since - before).total_seconds() < 60
