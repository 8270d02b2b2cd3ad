"""A million lines in one write: what they cost. A local user can do that, and a restart may find them.

Work is counted, not timed: calls of functions a line. `make bench` has the seconds.
"""

import gzip
import sys
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import FrameType

import pytest
from harness import AgentProcess, wait_for, write_proc
from msgspec.structs import replace

from agent.core.settings import Settings, SourceSettings
from agent.service.daemon import Daemon
from agent.service.outside import Outside
from agent.service.signals import Signals
from agent.store import Store

MILLION = 1_000_000
# The unit's MemoryMax= is 256 MB.
MEMORY_AT_MOST_MB = 64
BEGUN = datetime(2026, 11, 1, tzinfo=timezone.utc)
CONFIG = """\
[source]
kind = "file"
paths = ["{log}"]

[incident]
quiet_seconds = 300
"""


def said_again(number: int) -> str:
    return f"Nov 22 15:05:39 web1 kernel: [{1000 + number // 1_000_000}.{number % 1_000_000:06}] Out of socket memory\n"


def unlike_its_neighbour(number: int) -> str:
    return "kernel: " * (number % 2) + "Out of socket memory\n"


def each_another(number: int) -> str:
    return f"{BEGUN + timedelta(seconds=number):%b %d %H:%M:%S} web1 kernel: Out of socket memory\n"


def of_two_hosts(number: int) -> str:
    return f"{BEGUN + timedelta(seconds=number // 100):%b %d %H:%M:%S} web{number % 2} kernel: Out of socket memory\n"


def not_the_kernels(number: int) -> str:
    return f"Nov 22 15:05:39 web1 app[{number}]: Out of socket memory\n"


def suppressed(number: int) -> str:
    return f"Nov 22 15:05:39 web1 kernel: [{number}.000001] net_ratelimit: 22 callbacks suppressed\n"


def write(log: Path, line: Callable[[int], str], count: int) -> None:
    with log.open("a") as file:
        file.write("".join(map(line, range(count))))


@pytest.mark.parametrize(
    ("line", "count"), [(said_again, MILLION), (unlike_its_neighbour, MILLION), (each_another, 60_000)]
)
def test_a_flood_is_counted_whole_far_below_the_units_memory(
    line: Callable[[int], str], count: int, tmp_path: Path
) -> None:
    log = tmp_path / "messages"
    log.touch()
    agent = AgentProcess(tmp_path, CONFIG.format(log=log))
    agent.start()
    try:
        write(log, line, count)
        wait_for("all lines to be counted", lambda: agent.events() == count or agent.ended(), seconds=120)
        peak_mb = agent.peak_bytes() / 1024**2
    finally:
        agent.stop()

    assert count == agent.events()
    assert peak_mb < MEMORY_AT_MOST_MB


def test_a_flood_in_rotated_logs_and_a_line_without_an_end_need_no_more(tmp_path: Path) -> None:
    log = tmp_path / "messages"
    log.touch()
    agent = AgentProcess(tmp_path, CONFIG.format(log=log))
    agent.start()
    write(log, said_again, 1)
    wait_for("the first line to be counted", agent.events)
    agent.stop()
    with gzip.open(tmp_path / "messages.2.gz", "wb", compresslevel=1) as packed:
        packed.write(log.read_bytes())
        for _ in range(64):
            packed.write(b"x" * (1 << 20))
        packed.write(b"\n" + "".join(map(unlike_its_neighbour, range(20_000))).encode())
    log.unlink()
    write(tmp_path / "messages.1", unlike_its_neighbour, 20_000)
    write(log, unlike_its_neighbour, 1)
    agent.start()
    try:
        wait_for("all lines to be counted", lambda: agent.events() == 40_002 or agent.ended(), seconds=120)
        peak_mb = agent.peak_bytes() / 1024**2
    finally:
        agent.stop()

    assert 40_002 == agent.events()
    assert peak_mb < MEMORY_AT_MOST_MB


@pytest.mark.parametrize(
    ("line", "calls"),
    [
        (said_again, 12),
        (unlike_its_neighbour, 12),
        (of_two_hosts, 17),
        (each_another, 125),
        (not_the_kernels, 80),
        (suppressed, 120),
    ],
)
def test_the_work_for_a_line_is_bounded(line: Callable[[int], str], calls: int, tmp_path: Path) -> None:
    log = tmp_path / "messages"
    log.touch()
    store = Store(tmp_path / "state")
    store.open_for_writing()
    settings = replace(Settings(), source=SourceSettings(kind="file", paths=(str(log),)))
    daemon = Daemon(settings, store, Signals(), Outside(write_proc(tmp_path / "proc")))
    write(log, line, 1000)
    daemon.turn()
    made = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal made
        del frame, argument
        made += event in {"call", "c_call"}

    write(log, line, 20_000)
    sys.setprofile(count)
    try:
        while daemon._source.position().files[str(log)].offset < log.stat().st_size:
            daemon.turn()
    finally:
        sys.setprofile(None)
    assert made / 20_000 < calls
