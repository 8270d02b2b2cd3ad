from datetime import datetime, timezone
from pathlib import Path

import pytest

from agent.core.kernel.messages import detect
from agent.core.logs.explain import explain, holds_text
from agent.core.logs.records import to_record
from agent.core.model import LogRecord

NOW = datetime(2024, 11, 22, 12, tzinfo=timezone.utc)
TEXTS = ("Out of socket memory", "TCP: too many orphaned sockets", "TCP: out of memory -- consider tuning tcp_mem")
LINES = (Path(__file__).parent.parent.parent / "corpus/forgeries.txt").read_text().splitlines()
FORGERIES = dict(line.split(" | ", 1) for line in LINES if " | " in line and not line.startswith("# "))


def read(program: str, text: str) -> tuple[str, LogRecord | None]:
    line = FORGERIES[program].format(text=text)
    return line, to_record(line.encode(), now=NOW, source="log:1", ordinal=1)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("program", FORGERIES)
def test_no_other_programs_line_that_quotes_the_kernel_is_an_event(program: str, text: str) -> None:
    _, record = read(program, text)

    assert None is (record and detect(record))


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("program", FORGERIES)
def test_each_is_refused_for_a_reason(program: str, text: str) -> None:
    line, record = read(program, text)
    *_, refused, event = explain(line, record, None)

    assert holds_text(line)
    assert (False, False) == (refused.passed, event.passed)
    assert "no order" not in refused.detail


def test_every_line_of_the_list_has_a_name_of_its_own() -> None:
    assert len(LINES) - 2 == len(FORGERIES) > 250
