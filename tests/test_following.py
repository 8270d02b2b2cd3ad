"""What a source is to the main loop: positions over changes of the configuration, stamps read in the host's zone."""

import time
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path

import pytest

from agent.core.cursor import NOTHING_YET, Cursor, FileCursor, KmsgCursor, merge
from agent.core.settings import SourceSettings
from agent.sources import local_now, open_source

PLACE = FileCursor(device=1, inode=2, offset=3, marker="m")
OTHER = FileCursor(device=1, inode=9, offset=8, marker="n")


def test_a_log_that_is_not_followed_today_keeps_its_place() -> None:
    assert Cursor(files={"a": PLACE, "b": OTHER}) == merge(Cursor(files={"a": PLACE}), Cursor(files={"b": OTHER}))


@pytest.mark.parametrize(
    "new", [Cursor(journal="s=1"), Cursor(journal=NOTHING_YET), Cursor(kmsg=KmsgCursor(boot_id="b", sequence=-1))]
)
def test_another_kind_of_source_ends_the_places_in_logs(new: Cursor) -> None:
    assert new == merge(Cursor(files={"a": PLACE}), new)


def test_a_log_ends_the_place_in_the_journal() -> None:
    assert Cursor(files={"a": PLACE}) == merge(Cursor(journal="s=1"), Cursor(files={"a": PLACE}))


@pytest.mark.parametrize("old", [Cursor(files={"a": PLACE}), Cursor(journal="s=1"), Cursor()])
def test_a_source_that_cannot_be_read_takes_no_place_away(old: Cursor) -> None:
    assert old == merge(old, Cursor())


def test_a_log_goes_on_where_it_was_after_another_that_could_not_be_read(tmp_path: Path) -> None:
    log, closed = tmp_path / "a", tmp_path / "b"
    log.write_text("kernel: TCP: too many orphaned sockets\n")
    closed.mkdir()  # Root may read anything, but no directory as a log.
    cursor = Cursor()
    found = []
    for path in (log, closed, log):
        with closing(open_source(SourceSettings(kind="file", paths=(str(path),)), cursor, local_now)) as source:
            found.append(len(list(source.read())))
            cursor = merge(cursor, source.position())
        with log.open("a") as file:
            file.write("kernel: Out of socket memory\n")

    assert [0, 0, 2] == found


def test_a_stamp_without_a_zone_is_read_with_the_offset_of_its_own_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "messages"
    log.write_text("Jul  1 12:00:00 jp58 kernel: TCP: too many orphaned sockets\n")
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    try:
        november = datetime(2024, 11, 22, 12, tzinfo=timezone.utc).astimezone()
        settings = SourceSettings(kind="file", paths=(str(log),), start="beginning")
        with closing(open_source(settings, Cursor(), lambda: november)) as source:
            (record,) = source.read()
    finally:
        monkeypatch.undo()
        time.tzset()

    assert record.at == datetime(2024, 7, 1, 10, tzinfo=timezone.utc)
