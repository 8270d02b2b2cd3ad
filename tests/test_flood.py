"""A million lines in one write: what they cost. A local user can do that, and a restart may find them."""

from collections.abc import Callable
from pathlib import Path

import pytest
from harness import AgentProcess, wait_for

MILLION = 1_000_000
# The unit's MemoryMax= is 256 MB.
MEMORY_AT_MOST_MB = 100
CONFIG = """\
[source]
kind = "file"
paths = ["{log}"]

[incident]
quiet_seconds = 300
"""


def said_again(number: int) -> str:
    return f"Nov 22 15:05:39 web1 kernel: [{1000 + number // 1_000_000}.{number % 1_000_000:06}] Out of socket memory\n"


def short(number: int) -> str:
    return f"kernel: [{number}.000001] Out of socket memory\n"


def write(log: Path, line: Callable[[int], str], count: int) -> None:
    with log.open("a") as file:
        file.write("".join(map(line, range(count))))


@pytest.mark.parametrize(("line", "count"), [(said_again, MILLION), (short, 100_000)])
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
        peak_mb = agent.peak_memory_mb()
    finally:
        agent.stop()

    assert count == agent.events()
    assert peak_mb < MEMORY_AT_MOST_MB
