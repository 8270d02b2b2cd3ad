"""Sixty worlds of ten minutes each; `make world` plays a thousand of an hour. See world.py."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from play import in_memory, play
from world_bugs import BUGS, Bug, put_back

SEEDS = 60
MINUTES = 10.0


@pytest.fixture(scope="module")
def memory() -> Iterator[Path]:
    with in_memory() as folder:
        yield folder


@pytest.mark.parametrize("seed", range(SEEDS))
def test_whatever_happens_each_line_is_counted_once_and_everybody_is_told(seed: int, memory: Path) -> None:
    play(seed, memory, MINUTES)


@pytest.mark.parametrize("seed", [3, 21])
def test_a_seed_is_one_world_whatever_process_plays_it(seed: int, memory: Path) -> None:
    command = [sys.executable, Path(__file__).with_name("play.py"), f"--first={seed}", "--seeds=1", "--minutes=10"]
    elsewhere = {
        subprocess.run(
            command, env={**os.environ, "PYTHONHASHSEED": salt}, capture_output=True, text=True, check=True
        ).stdout
        for salt in ("1", "2")
    }
    assert {f"{seed} {play(seed, memory, MINUTES)}\n"} == elsewhere


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_each_bug_can_still_be_put_back(bug: Bug, tmp_path: Path) -> None:
    put_back(bug, tmp_path)
    compile((tmp_path / "agent" / bug.file).read_text(), bug.file, "exec")
