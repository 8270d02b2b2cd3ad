import io
import os
import sys
from pathlib import Path
from typing import get_args

import pytest
from material import make_sent_notice

from agent.core.delivery import Delivered, Retry
from agent.core.model import NoticeType
from agent.core.report import notice_text
from agent.core.settings import StdoutSettings
from agent.notifiers.stdout import StdoutNotifier


def test_a_notice_is_one_readable_block(capsys: pytest.CaptureFixture[str]) -> None:
    delivery = StdoutNotifier(StdoutSettings(name="out")).notify(make_sent_notice())

    assert delivery == Delivered(detail="printed")
    printed = capsys.readouterr().out
    assert notice_text(make_sent_notice()).strip() == printed.strip()
    assert printed.endswith("\n\n")
    assert "20261122T150539Z-7f3a" in printed


@pytest.mark.parametrize("kind", get_args(NoticeType))
def test_the_runbook_is_the_last_line(capsys: pytest.CaptureFixture[str], kind: NoticeType) -> None:
    settings = StdoutSettings(name="out", runbook_url="https://wiki.example/x")

    StdoutNotifier(settings).notify(make_sent_notice(kind))

    assert capsys.readouterr().out.endswith("\nrunbook: https://wiki.example/x\n\n")


def test_a_digest_is_one_short_block(capsys: pytest.CaptureFixture[str]) -> None:
    StdoutNotifier(StdoutSettings(name="out")).notify(make_sent_notice("sockmem.digest"))

    lines = capsys.readouterr().out.splitlines()
    assert "web1: 37 more incidents since 14:05 UTC" == lines[0]
    assert "list them: sockmem-agent incidents list --since 2026-11-22T15:00:39Z" == lines[-2]
    assert "and 27 more" in "".join(lines)
    assert max(map(len, lines)) <= 100


def test_a_pipe_that_nobody_reads_is_worth_another_try(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    raw = io.FileIO(writing, "w")
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BufferedWriter(raw), encoding="utf-8"))

    delivery = StdoutNotifier(StdoutSettings(name="out")).notify(make_sent_notice())

    assert delivery == Retry(why="standard output: broken pipe")
    raw.close()


def test_a_full_device_is_worth_another_try(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.FileIO("/dev/full", "w")
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BufferedWriter(raw), encoding="utf-8"))

    delivery = StdoutNotifier(StdoutSettings(name="out")).notify(make_sent_notice())

    assert delivery == Retry(why="standard output: no space left on device")
    raw.close()


def test_a_closed_output_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stdout", closed)

    assert StdoutNotifier(StdoutSettings(name="out")).notify(make_sent_notice()) == Retry(
        why="standard output is closed"
    )


def test_an_old_terminal_gets_question_marks_and_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    ascii_only = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
    monkeypatch.setattr(sys, "stdout", ascii_only)

    assert StdoutNotifier(StdoutSettings(name="out")).notify(make_sent_notice(summary="größer")) == Delivered(
        detail="printed"
    )
    written = ascii_only.buffer
    assert isinstance(written, io.BytesIO)
    assert b"gr??er" in written.getvalue()


@pytest.mark.parametrize(("to_journal", "mark"), [(True, "<4>"), (False, "")])
def test_the_journal_knows_the_first_line_for_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, to_journal: bool, mark: str
) -> None:
    path = tmp_path / "out"
    with path.open("w") as file:
        monkeypatch.setattr(sys, "stdout", file)
        there = path.stat()
        monkeypatch.setenv("JOURNAL_STREAM", f"{there.st_dev}:{there.st_ino if to_journal else 0}")
        StdoutNotifier(StdoutSettings(name="out")).notify(make_sent_notice())

    lines = path.read_text().splitlines()
    assert lines[0].startswith(f"{mark}web1 is resetting TCP connections: ")
    assert [] == [line for line in lines[1:] if line.startswith("<")]
