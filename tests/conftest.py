"""What several tests share: a clock to turn by hand, and the kernel's words."""

import functools
import inspect
import os
import subprocess
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import click.testing
import pytest
from harness import write_proc
from hypothesis import settings
from material import make_event

from agent.core.cursor import Cursor, FileCursor
from agent.core.model import Event, Kind, LogRecord, Provenance

# No test is timed: these machines are busy with something else, too.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# Before click 8.2 the runner mixes standard error into the output, unless told otherwise.
if "mix_stderr" in inspect.signature(click.testing.CliRunner).parameters:
    click.testing.CliRunner = functools.partial(click.testing.CliRunner, mix_stderr=False)

TEXT: dict[Kind, str] = {
    "out_of_socket_memory": "Out of socket memory",
    "too_many_orphans": "TCP: too many orphaned sockets",
    "tcp_mem": "TCP: out of memory -- consider tuning tcp_mem",
    "suppressed": "net_ratelimit: 273 callbacks suppressed",
}


@pytest.fixture(scope="session", autouse=True)
def no_configuration_of_this_host() -> Iterator[None]:
    """The tester may have the agent in use: commands in this process that name no file get the defaults."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("agent.config.load.DEFAULT_PATH", Path("/none/config.toml"))
        yield


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what chooses among the tests in booted kernels; `make vm-test` sets it (KERNEL=, SCENARIO=)."""
    group = parser.getgroup("vm", "real kernels under QEMU")
    group.addoption("--vm", action="store_true", help="boot kernels; without it these tests are left out")
    group.addoption("--kernel", default="", help="only these kernels of 5.10, 6.1, 6.12 and 7.3: 6.12,6.1")
    group.addoption("--scenario", default="", help="only this scenario, a file of tests/vm/scenarios")
    group.addoption("--on-demand", action="store_true", help="the scenarios that take long, and no others")
    group.addoption("--all-scenarios-on", default="", help="every scenario on this kernel, the main ones on others")
    group.addoption(
        "--vm-minutes", type=float, default=600, help="after so long the scenarios that are left are skipped"
    )
    soak = parser.getgroup("soak", "the agent for an hour")
    soak.addoption("--soak-minutes", type=float, default=0, help="how long; without it, two rounds")
    fuzz = parser.getgroup("fuzz", "receivers that answer at random")
    fuzz.addoption("--fuzz-answers", type=int, default=2000, help="how many answers")
    fuzz.addoption("--fuzz-seed", default="", help="the seed of a run that failed; else another every time")


class FakeClock:
    """A clock that moves only when told to: the wall's, which can be set, and the monotonic one, which cannot."""

    def __init__(self, start: datetime) -> None:
        self.time = start
        self.seconds = 0.0

    def __call__(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return self.seconds

    def advance(self, seconds: float) -> datetime:
        self.seconds += seconds
        return self.set(seconds)

    def set(self, seconds: float) -> datetime:
        """Set the wall's clock by so much."""
        self.time += timedelta(seconds=seconds)
        return self.time


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(datetime(2026, 11, 22, 15, 5, 39, tzinfo=timezone.utc))


MakeDecided = Callable[..., tuple[LogRecord, Event]]


@pytest.fixture
def make_decided(clock: FakeClock) -> MakeDecided:
    """Make what the detector hands on: a record with the position behind it, and its event."""

    def make(
        kind: Kind = "too_many_orphans",
        *,
        at: datetime | None = None,
        offset: int = 100,
        suppressed: int | None = None,
        count: int = 1,
        provenance: Provenance = "kernel",
    ) -> tuple[LogRecord, Event]:
        at = at or clock.time
        line = f"{at:%b %d %H:%M:%S} web1 kernel: [{offset}.000001] {TEXT[kind]}"
        source = f"/var/log/messages@{offset}"
        cursor = Cursor(files={"/var/log/messages": FileCursor(device=1, inode=2, offset=offset, marker="m")})
        record = LogRecord(
            text=TEXT[kind],
            line=line,
            source=source,
            provenance=provenance,
            ordinal=offset,
            at=at,
            host="web1",
            cursor=cursor,
        )
        event = make_event(
            provenance=provenance,
            at=at,
            uptime=float(offset),
            kind=kind,
            suppressed=suppressed,
            count=count,
            source=source,
            line=line,
        )
        return record, event

    return make


@pytest.fixture
def proc_root(tmp_path: Path) -> Path:
    return write_proc(tmp_path / "proc")


@pytest.fixture(scope="session")
def tracefs() -> Iterator[Path]:
    """Where this kernel's tracefs is: mounted in a namespace of its own, where this host has it not."""
    if os.geteuid() != 0:
        pytest.skip("NOT TESTED: only root may trace")
    if Path("/sys/kernel/tracing/instances").is_dir():
        yield _telling(Path("/sys/kernel/tracing"))
        return
    script = "mount -t tracefs tracefs /sys/kernel/tracing && echo mounted && exec cat"
    command = ["unshare", "--mount", "sh", "-c", script]
    made = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert made.stdout
    try:
        if not made.stdout.readline():
            pytest.skip("NOT TESTED: no tracefs can be mounted here")
        yield _telling(Path(f"/proc/{made.pid}/root", "sys/kernel/tracing"))
    finally:
        made.communicate()


def _telling(tracefs: Path) -> Path:
    if "TCP_ABORT_ON_" not in (tracefs / "events/tcp/tcp_send_reset/format").read_text():
        pytest.skip("NOT TESTED: this kernel does not say why it resets a connection")
    return tracefs


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Make a state directory on a file system of 1 MiB, which can really be filled."""
    place = tmp_path / "state"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], check=False)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)
