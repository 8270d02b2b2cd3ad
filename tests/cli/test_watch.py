"""`diagnose --watch` on this machine's own kernel, by resets that any program may cause (closed with data unread)."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from harness import Subject, as_nobody, wait_for

from agent.cli import group
from agent.cli.watch import OPTION
from agent.probe import witness
from agent.probe.witness import own_instances

ROOT = Path(__file__).parents[2]
# The command, where tracefs is mounted here, for another reason of a reset than a lack of memory.
SCRIPT = """
import sys
from pathlib import Path
from agent.cli import main
from agent.probe import witness
witness.KILL_REASON, witness.TRACEFS = sys.argv.pop(1), Path(sys.argv.pop(1))
main()
"""
REASON = "TCP_ABORT_ON_CLOSE"
USAGE_ERROR = 2


class Watching:
    """The command at work."""

    def __init__(self, tracefs: Path, *arguments: str, reason: str = REASON) -> None:
        command = [sys.executable, "-u", "-c", SCRIPT, reason, str(tracefs), "diagnose", "--watch", *arguments]
        self._place = tracefs / "instances"
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
        )

    def instances(self) -> list[str]:
        return sorted(path.name for path in self._place.glob(f"sockmem-agent-{self.process.pid}-*"))

    def end(self, number: int = signal.SIGINT) -> tuple[str, str]:
        """End it by a signal; return what it said on both streams."""
        self.process.send_signal(number)
        return self.process.communicate()


@pytest.fixture
def watch(tracefs: Path) -> Iterator[Callable[..., Watching]]:
    """Start the command and wait until its instances are there; that of refusals is made when the other is on."""
    begun: list[Watching] = []

    def begin(*arguments: str, reason: str = REASON) -> Watching:
        begun.append(Watching(tracefs, *arguments, reason=reason))
        wait_for("its instances", lambda: any(name.endswith("-refusals") for name in begun[-1].instances()))
        return begun[-1]

    yield begin
    for each in begun:
        each.process.kill()
        each.process.communicate()


@pytest.fixture
def subject() -> Iterator[Subject]:
    made = Subject()
    yield made
    made.end()


def test_who_is_killed_is_printed_at_once_and_in_a_table_at_the_end(
    watch: Callable[..., Watching], subject: Subject
) -> None:
    watching = watch("60")
    assert watching.process.stdout
    assert "Watching for 1 min" in watching.process.stdout.readline()
    subject.is_reset(12)
    line = next(line for line in watching.process.stdout if f"port {subject.port}" in line)
    said, complained = watching.end()

    assert "  killed " in line
    assert ("", 0, []) == (complained, watching.process.returncode, watching.instances())
    [row] = [line for line in said.splitlines() if str(subject.port) in line]
    assert row.endswith(f"  127.0.0.1 port {subject.port}")
    assert ["12", "0"] == row.split()[-5:-3]


def test_json_is_one_document_with_what_an_incident_has(watch: Callable[..., Watching], subject: Subject) -> None:
    watching = watch("60", "--json")
    subject.is_reset(5)
    document = json.loads(watching.end()[0])

    assert ["since", "until", "witness", "gaps"] == list(document)
    assert {"kills", "refusals", "lost", "unseen", "by"} == set(document["witness"])
    [ours] = [each for each in document["witness"]["by"] if f"127.0.0.1 port {subject.port}" in each["peers"]]
    assert 5 == ours["kills"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_with_its_table_and_without_its_instances(watch: Callable[..., Watching], number: int) -> None:
    watching = watch("60")
    said, complained = watching.end(number)

    assert ("", 0, []) == (complained, watching.process.returncode, watching.instances())
    assert "the kernel killed" in said


def test_a_reader_that_hangs_up_ends_it_too(watch: Callable[..., Watching], subject: Subject) -> None:
    watching = watch("60")
    assert watching.process.stdout
    watching.process.stdout.readline()
    watching.process.stdout.close()
    while watching.process.poll() is None:
        subject.is_reset(1)

    assert 1 == watching.process.returncode
    assert [] == watching.instances()


def test_it_ends_by_itself(watch: Callable[..., Watching]) -> None:
    watching = watch("1", "--json")
    said, _ = watching.process.communicate()

    assert 0 == watching.process.returncode
    assert json.loads(said)["witness"]["refusals"] >= 0
    assert [] == watching.instances()


def test_a_kernel_that_tells_no_reason_shows_refusals_and_says_so(watch: Callable[..., Watching]) -> None:
    watching = watch("1", "--json", reason="NO_SUCH_REASON")
    said, complained = watching.process.communicate()

    assert json.loads(said)["witness"]["kills"] is None
    assert "Linux 6.12 and newer do" in complained
    assert ["this kernel does not say why it resets a connection; Linux 6.12 and newer do"] == [
        gap["why"] for gap in json.loads(said)["gaps"]
    ]


def test_what_a_killed_one_left_goes_with_the_next(
    watch: Callable[..., Watching], tracefs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(witness, "TRACEFS", tracefs)
    left = watch("60")
    left.end(signal.SIGKILL)
    others = watch("60")
    with own_instances():
        pass

    assert ([], 2) == (left.instances(), len(others.instances()))


def test_a_host_without_a_trace_gets_a_line_for_each_and_66(tmp_path: Path) -> None:
    watching = Watching(tmp_path / "tracing", "5")
    _, complained = watching.process.communicate()

    assert os.EX_NOINPUT == watching.process.returncode
    assert [True, True] == ["tracefs is not mounted" in line for line in complained.splitlines()]


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(group, ["diagnose", *arguments])


def test_only_root_may() -> None:
    invoke("--help")  # Nobody may not read root's Python.

    said = as_nobody(lambda: (done := invoke("--watch", "5")).stderr + str(done.exit_code))

    assert f"{OPTION}: only root can read the kernel's trace; use sudo\n2" == said


@pytest.mark.parametrize(
    "arguments", [("--watch", "0"), ("--watch", "soon"), ("--watch", "5", "--incident", "last"), ("--watch", "86401")]
)
def test_what_makes_no_sense_is_a_usage_error(arguments: tuple[str, ...]) -> None:
    assert USAGE_ERROR == invoke(*arguments).exit_code
