"""Readers of foreign bytes: what broke one once is read now, and none takes longer than its input is long.

`make fuzz` looks for more (fuzz.py); this needs no atheris.
"""

import time
from itertools import product
from pathlib import Path

import pytest
from targets import TARGETS, TOKENS, Target, take

FOUND = sorted(Path(__file__).parent.glob("found/*"))
# What takes less is not looked at more closely: something quadratic takes seconds.
CHEAP_SECONDS = 0.05
PART = 4
# Of linear work it is PART, of quadratic PART * PART.
MOST_TIMES = 9


@pytest.mark.parametrize("path", FOUND, ids=lambda path: path.name)
def test_what_broke_a_reader_once_is_read_or_refused(path: Path) -> None:
    take(TARGETS[path.name.partition("-")[0]], path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_examples_are_read_or_refused(name: str) -> None:
    for seed in TARGETS[name].seeds():
        take(TARGETS[name], seed)


def seconds(target: Target, data: bytes) -> float:
    """Take the processor's time, of all threads, for a reading."""
    began = time.process_time()
    take(target, data)
    return time.process_time() - began


def repeated(token: bytes, frame: tuple[bytes, bytes], size: int) -> bytes:
    return frame[0] + token * (size // len(token)) + frame[1]


@pytest.mark.parametrize("name", TARGETS)
def test_time_grows_as_the_input_does(name: str) -> None:
    target = TARGETS[name]
    for frame, token in product(target.frames, TOKENS):
        whole, part = (repeated(token, frame, size) for size in (target.long_bytes, target.long_bytes // PART))
        if seconds(target, whole) < CHEAP_SECONDS:
            continue
        of_whole, of_part = (min(seconds(target, data) for _ in range(3)) for data in (whole, part))
        assert of_whole < max(MOST_TIMES * of_part, CHEAP_SECONDS), (frame, token, of_whole, of_part)
