import gzip
import os
import resource
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from harness import wanting_4_gib

from agent.core.cursor import Cursor
from agent.core.model import LogRecord
from agent.sources.file import follower, reader
from agent.sources.file import source as logfile
from agent.sources.file.rotated import NamedFile
from agent.sources.file.source import LogFileSource
from agent.sources.file.waker import DirectoryWaker

NOISE = "Nov 22 15:05:38 web1 sshd[812]: Accepted publickey for root\n"


def hit(number: int) -> str:
    """Write a line of a second of its own: what is said again within the same one is taken together."""
    stamp = datetime(2026, 11, 1, tzinfo=timezone.utc) + timedelta(seconds=number)
    return f"{stamp:%b %d %H:%M:%S} web1 kernel: [{number}.000001] TCP: too many orphaned sockets\n"


def hits(first: int, count: int) -> str:
    return "".join(hit(number) for number in range(first, first + count))


def numbers(records: list[LogRecord]) -> list[int]:
    return [int(record.uptime or -1) for record in records]


def now() -> datetime:
    return datetime.now(timezone.utc)


class FakeWaker:
    def __init__(self, trouble: str | None = None) -> None:
        self.trouble = trouble
        self.directories: Mapping[str, tuple[int, int]] = {}
        self.waits: list[float] = []
        self.closed = False

    def watch(self, directories: Mapping[str, tuple[int, int]]) -> str | None:
        self.directories = directories
        return self.trouble

    def wait(self, timeout: float) -> None:
        self.waits.append(timeout)

    def close(self) -> None:
        self.closed = True


Open = Callable[..., LogFileSource]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log" / "messages"
    path.parent.mkdir()
    return path


@pytest.fixture
def open_source(log: Path) -> Iterator[Open]:
    opened: list[LogFileSource] = []

    def open_one(
        *paths: Path,
        cursor: Cursor | None = None,
        start: str = "beginning",
        waker: FakeWaker | None = None,
        on_progress: Callable[[], None] = lambda: None,
    ) -> LogFileSource:
        names = [str(path) for path in paths or (log,)]
        source = LogFileSource(names, cursor, start, now, waker or FakeWaker(), on_progress=on_progress)  # type: ignore[arg-type]
        opened.append(source)
        return source

    yield open_one
    for source in opened:
        source.close()


def read(source: LogFileSource) -> list[int]:
    return numbers(list(source.read()))


def append(path: Path, text: str | bytes) -> None:
    with path.open("ab") as file:
        file.write(text.encode() if isinstance(text, str) else text)


def whys(source: LogFileSource) -> list[str]:
    return [gap.why for gap in source.gaps()]


# --- where it begins ------------------------------------------------------------------------------------------------


def test_start_now_leaves_out_what_is_there_and_reads_what_comes(log: Path, open_source: Open) -> None:
    append(log, hits(1, 3))
    source = open_source(start="now")
    assert [] == read(source)
    append(log, hit(4))
    assert [4] == read(source)


def stamped(moment: datetime) -> str:
    return f"{moment:%b %d %H:%M:%S} web1 kernel: TCP: too many orphaned sockets\n"


@pytest.mark.parametrize(("off", "ahead"), [(3600, 3600), (-3600, -3600), (1800, 1800), (400, 400), (-400, 0), (0, 0)])
def test_a_line_that_comes_now_is_of_now_though_its_stamp_is_of_another_zone(
    log: Path, clock, off: int, ahead: int
) -> None:
    log.write_text(NOISE)
    with closing(LogFileSource([str(log)], None, "now", clock, FakeWaker())) as source:
        for _ in range(2):  # The first line that comes counts as well as one after a read.
            with log.open("a") as file:
                file.write(stamped(clock.time + timedelta(seconds=off)))
            (record,) = source.read()
            moved = timedelta(seconds=off - ahead)
            assert (clock.time + moved, ahead) == (record.at, record.ahead_seconds)
            clock.advance(2)


def test_a_line_that_is_read_while_catching_up_stays_old(log: Path, clock) -> None:
    log.write_text(NOISE)
    with closing(LogFileSource([str(log)], None, "now", clock, FakeWaker())) as source:
        assert [] == list(source.read())
        place = source.position()
    hour = timedelta(hours=1)
    log.write_text(NOISE + stamped(clock.time - hour) + stamped(clock.time + hour))
    with closing(LogFileSource([str(log)], place, "now", clock, FakeWaker())) as source:
        old, ahead = source.read()
    assert (clock.time - hour, 0) == (old.at, old.ahead_seconds)
    assert (clock.time, 3600) == (ahead.at, ahead.ahead_seconds)  # Nothing is from the future.


def test_a_stamp_that_names_its_zone_is_of_no_other(log: Path, clock) -> None:
    log.write_text(NOISE)
    with closing(LogFileSource([str(log)], None, "now", clock, FakeWaker())) as source:
        late = clock.time - timedelta(hours=1)
        log.write_text(f"{NOISE}{late.isoformat()} web1 kernel: TCP: too many orphaned sockets\n")
        (record,) = source.read()
    assert (late, 0) == (record.at, record.ahead_seconds)


def test_lines_behind_a_full_batch_came_as_lately_as_those_in_it(
    log: Path, clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logfile, "BATCH_LINES", 2)
    log.write_text(NOISE)
    with closing(LogFileSource([str(log)], None, "now", clock, FakeWaker())) as source:
        clock.advance(30)
        moments = [clock.time - timedelta(seconds=3625 - 5 * n) for n in range(5)]
        log.write_text(NOISE + "".join(map(stamped, moments)))
        records = [record for _ in range(4) for record in source.read()]
    assert [-3600] * 5 == [record.ahead_seconds for record in records]


@pytest.mark.parametrize("at", ["2027-01-01T00:00:05", "2026-12-31T23:59:58", "2028-02-29T00:00:00"])
def test_a_stamp_without_a_year_is_of_another_zone_at_new_year_and_on_a_leap_day_too(log: Path, clock, at: str) -> None:
    clock.time = datetime.fromisoformat(f"{at}+00:00")
    log.write_text(NOISE)
    with closing(LogFileSource([str(log)], None, "now", clock, FakeWaker())) as source:
        for hours in (-1, 1):
            with log.open("a") as file:
                file.write(stamped(clock.time + timedelta(hours=hours)))
            (record,) = source.read()
            assert (clock.time, 3600 * hours) == (record.at, record.ahead_seconds)


def test_start_now_reads_the_line_that_is_half_written(log: Path, open_source: Open) -> None:
    append(log, hit(1) + hit(2)[:40])
    source = open_source(start="now")
    append(log, hit(2)[40:])
    assert [2] == read(source)


def test_start_now_drops_the_rest_of_an_endless_line(log: Path, open_source: Open) -> None:
    append(log, b"x" * 200_000)
    source = open_source(start="now")
    append(log, b" kernel: TCP: too many orphaned sockets\n" + hit(2).encode())
    assert [2] == read(source)


def test_a_log_that_was_not_there_at_the_first_start_is_news_after_a_restart_too(log: Path, open_source: Open) -> None:
    first = open_source(start="now")
    assert [] == read(first)
    position = first.position()
    append(log, hits(1, 3))
    again = open_source(start="now", cursor=position)

    assert [1, 2, 3] == read(again)
    assert [] == whys(again)


def test_start_beginning_reads_what_is_there(log: Path, open_source: Open) -> None:
    append(log, NOISE + hits(1, 3))
    assert [1, 2, 3] == read(open_source())


def test_a_file_that_appears_later_is_read_from_its_beginning(log: Path, open_source: Open) -> None:
    source = open_source(start="now")
    assert ["no such file yet; following starts when it appears"] == whys(source)
    assert [] == read(source)
    assert [] == whys(source)
    assert [f"{log}: no such file yet; following starts when it appears"] == source.troubles()
    append(log, hit(1))
    assert [1] == read(source)
    assert [] == source.troubles()


def test_a_directory_that_appears_later_is_read_too(log: Path, open_source: Open) -> None:
    log.parent.rmdir()
    waker = FakeWaker()
    source = open_source(start="now", waker=waker)
    assert {} == waker.directories
    log.parent.mkdir()
    append(log, hit(1))
    assert [1] == read(source)
    source.wait(1)
    assert {str(log.parent)} == set(waker.directories)


def test_a_record_says_where_it_stands_and_what_is_behind_it(log: Path, open_source: Open) -> None:
    append(log, NOISE + hit(1) + hit(2))
    source = open_source()
    first = next(iter(source.read()))
    assert f"{log}@{len(NOISE)}" == first.source
    assert "claimed" == first.provenance
    assert first.cursor
    assert len(NOISE + hit(1)) == first.cursor.files[str(log)].offset
    assert first.cursor == source.position()
    assert [2] == read(open_source(cursor=first.cursor))


@pytest.mark.parametrize("chunk", [60, 90, 150, 1 << 20])
@pytest.mark.parametrize("between", [1, 2, 3])
def test_ordinals_of_neighbours_and_of_no_others_follow_each_other(
    between: int, chunk: int, log: Path, open_source: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "CHUNK_BYTES", max(chunk, len(hit(1))))
    append(log, hit(1) + hit(2) + NOISE * between + hit(3))
    source, records = open_source(), list[LogRecord]()
    while len(records) < 3:
        records += source.read()
    first, second, third = (record.ordinal for record in records)
    assert 1 == second - first
    assert 1 < third - second


# --- lines ----------------------------------------------------------------------------------------------------------


def test_a_half_line_waits_for_its_newline(log: Path, open_source: Open) -> None:
    append(log, NOISE + hit(1)[:-1])
    source = open_source()
    assert [] == read(source)
    assert len(NOISE) == source.position().files[str(log)].offset
    append(log, "\n")
    assert [1] == read(source)


def test_the_position_moves_on_although_nothing_matched(log: Path, open_source: Open) -> None:
    source = open_source()
    append(log, NOISE * 100)
    assert [] == read(source)
    assert log.stat().st_size == source.position().files[str(log)].offset


def test_a_line_of_many_megabytes_is_passed_over_in_flat_memory(log: Path, open_source: Open) -> None:
    with log.open("wb") as file:
        for _ in range(48):
            file.write(b"kernel: TCP: too many orphaned sockets " + b"x" * (1 << 20))
        file.write(b"\n" + hit(2).encode())
    source = open_source()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found: list[int] = []
    batches = 0
    while 2 not in found:
        found += read(source)
        batches += 1
    assert [2] == found
    assert batches > 10  # Bounded batches: the main loop stays responsive.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 * 1024
    assert ["1 line longer than 65536 bytes skipped: the kernel writes none as long"] == whys(source)


def test_a_batch_that_was_cut_off_is_gone_on_with_at_once(log: Path, open_source: Open) -> None:
    append(log, NOISE * (logfile.BATCH_BYTES // len(NOISE) + 20_000) + hit(1))
    waker = FakeWaker()
    source = open_source(waker=waker)
    assert [] == read(source)
    source.wait(1)
    assert [] == waker.waits
    assert [1] == read(source)
    source.wait(5)
    assert [1.0] == waker.waits


def test_a_batch_has_so_many_lines_at_most_and_is_gone_on_with_at_once(log: Path, open_source: Open) -> None:
    append(log, hits(0, logfile.BATCH_LINES + 1))
    waker = FakeWaker()
    source = open_source(waker=waker)
    first = list(source.read())
    source.wait(1)
    assert list(range(logfile.BATCH_LINES)) == numbers(first)
    assert first[-1].cursor == source.position()
    assert [] == waker.waits
    assert [logfile.BATCH_LINES] == read(source)


def test_lines_of_other_speakers_count_to_a_batch_too(log: Path, open_source: Open) -> None:
    said = [NOISE.replace("Accepted", f"{n} orphaned sockets") for n in range(logfile.BATCH_LINES)]
    append(log, "".join(said) + hit(1))
    source = open_source()
    assert [] == read(source)
    assert [1] == read(source)


def test_a_log_in_flood_starves_no_other(log: Path, open_source: Open) -> None:
    other = log.with_name("kern.log")
    append(log, hits(0, 2 * logfile.BATCH_LINES))
    append(other, hit(7))
    assert 7 == read(open_source(log, other))[-1]


def test_what_is_said_again_within_a_second_is_one_record_with_its_count(log: Path, open_source: Open) -> None:
    said = [f"Nov 22 15:05:39 web1 kernel: [{n}.{n:06}] TCP: too many orphaned sockets\n" for n in range(1000)]
    append(log, "".join(said) + hit(8))
    source = open_source()
    first, rest, last = source.read()
    assert [1, 999, 1] == [each.count for each in (first, rest, last)]
    assert [said[0].rstrip(), said[-1].rstrip()] == [first.line, rest.line]
    assert 1 == last.ordinal - rest.ordinal < rest.ordinal - first.ordinal
    assert [8] == read(open_source(cursor=rest.cursor))
    assert rest.count == sum(each.count for each in open_source(cursor=first.cursor).read()) - 1


def test_a_batch_that_is_full_while_a_file_is_left_holds_no_file_open(
    log: Path, open_source: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logfile, "BATCH_LINES", 1)
    append(log, hit(1) + hit(2)[:-1])
    source = open_source()
    held = len([*Path("/proc/self/fd").iterdir()])
    log.rename(log.with_name("messages.1"))
    append(log, hit(3))
    assert [[1], [2], [3], []] == [read(source) for _ in range(4)]
    assert held == len([*Path("/proc/self/fd").iterdir()])


def test_invalid_utf8_and_crlf_do_no_harm(log: Path, open_source: Open) -> None:
    append(log, b"\xff\xfe\x00\xc3\n" + hit(1).encode().replace(b"\n", b"\r\n") + hit(2).encode())
    assert [1, 2] == read(open_source())


def test_a_hole_of_nuls_is_passed_over(log: Path, open_source: Open) -> None:
    with log.open("wb") as file:
        file.seek(8 << 30)
        file.write(hit(1).encode())
    began = time.monotonic()
    assert [1] == read(open_source())
    assert time.monotonic() - began < 5


def test_written_nuls_are_passed_over_and_end_a_half_line(log: Path, open_source: Open) -> None:
    append(log, hit(1) + "Nov 22 15:05:38 web1 ker" + "\0" * 5000 + hit(2) + "\0" * (9 << 20) + hit(3))
    source = open_source()
    assert [1, 2] == read(source)
    assert [[], [3]] == [read(source), read(source)]


def test_space_allocated_in_advance_is_read_when_it_is_written(log: Path, open_source: Open) -> None:
    append(log, hit(1) + "\0" * 4096)
    source = open_source()
    assert [1] == read(source)
    assert [] == read(source)
    with log.open("r+b") as file:
        file.seek(len(hit(1)))
        file.write(hit(2).encode())
    os.utime(log, ns=(1, 1))  # The clock of the file system may not have ticked since.
    assert [2] == read(source)


# --- rotation while running -----------------------------------------------------------------------------------------


def test_the_renamed_file_is_read_until_the_new_one_has_content(log: Path, open_source: Open) -> None:
    append(log, hit(1))
    source = open_source()
    assert [1] == read(source)
    old = log.rename(log.with_name("messages.1"))
    log.touch()
    append(old, hit(2))
    assert [2] == read(source)
    append(old, hit(3))
    append(log, hit(4))
    assert [3, 4] == read(source)
    assert log.stat().st_ino == source.position().files[str(log)].inode
    assert [] == whys(source)


def test_what_the_old_file_got_last_is_read_before_it_is_left(
    log: Path, open_source: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(log, hit(1))
    source = open_source()
    assert [1] == read(source)
    old = log.rename(log.with_name("messages.1"))
    look = Path.stat

    def write_then_look(path: Path, **kwargs: bool) -> os.stat_result:
        if path == log and not os.path.lexists(log):
            append(old, hit(2))  # Between the last read of the old file and the look at the new one.
            append(log, hit(3))
        return look(path, **kwargs)

    monkeypatch.setattr(Path, "stat", write_then_look)
    assert [2, 3] == read(source)


def test_a_log_truncated_written_and_renamed_since_its_end_was_read_is_not_left(
    log: Path, open_source: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(log, hit(1) + NOISE)
    source = open_source()
    assert [1] == read(source)
    look = Path.stat

    def rotate_then_look(path: Path, **kwargs: bool) -> os.stat_result:
        if path == log:
            monkeypatch.undo()
            shutil.copy(log, log.with_name("messages.1"))
            log.write_text(hit(2))
            rotate(log)
            append(log, hit(3))
        return look(path, **kwargs)

    monkeypatch.setattr(Path, "stat", rotate_then_look)
    assert [2, 3] == read(source)
    assert [] == whys(source)


def test_an_old_file_that_ends_in_half_a_line_hands_it_out_when_it_is_left(log: Path, open_source: Open) -> None:
    append(log, hit(1)[:-1])
    source = open_source()
    log.rename(log.with_name("messages.1"))
    append(log, hit(2))
    assert [1, 2] == read(source)


def test_several_renames_between_two_looks_lose_nothing(log: Path, open_source: Open) -> None:
    append(log, hit(1))
    source = open_source()
    assert [1] == read(source)
    for number in range(2, 6):
        append(log, hit(number))
        rotate(log)
    append(log, hit(6))
    assert [2, 3, 4, 5, 6] == read(source)


def test_copytruncate_goes_on_in_the_copy_and_then_in_the_log(log: Path, open_source: Open) -> None:
    append(log, hit(1))
    source = open_source()
    assert [1] == read(source)
    append(log, hit(2))
    shutil.copy(log, log.with_name("messages.1"))
    os.truncate(log, 0)
    assert [2] == read(source)
    append(log, hit(3))
    assert [3] == read(source)
    assert [] == whys(source)


def test_copies_made_before_the_directory_is_looked_at_are_read(
    log: Path, open_source: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(log, hit(1))
    source = open_source()
    look, rotations = os.scandir, iter([2, 3])

    def rotate_then_look(path: Path) -> object:
        for number in rotations:
            shift(log)
            shutil.copy(log, log.with_name("messages.1"))
            log.write_text(hit(number))
        return look(path)

    monkeypatch.setattr(os, "scandir", rotate_then_look)
    assert [1] == read(source)
    assert [2, 3] == read(source)


def test_a_log_truncated_and_grown_past_the_old_offset_is_noticed(log: Path, open_source: Open) -> None:
    append(log, hit(1))
    source = open_source()
    assert [1] == read(source)
    log.write_text(hits(2, 5))
    assert [2, 3, 4, 5, 6] == read(source)
    assert "it was truncated or rewritten" in whys(source)[0]


def test_a_writer_without_append_leaves_a_hole_after_truncation(log: Path, open_source: Open) -> None:
    with log.open("wb", buffering=0) as writer:
        writer.write(hits(1, 500).encode())
        source = open_source()
        assert 500 == len(read(source))
        shutil.copy(log, log.with_name("messages.1"))
        os.truncate(log, 0)
        writer.write(hit(501).encode())
        assert [501] == read(source)
        assert [] == whys(source)


def test_a_log_deleted_and_created_again_is_read_to_its_end_first(log: Path, open_source: Open) -> None:
    append(log, hit(1))
    source = open_source()
    append(log, hit(2))
    log.unlink()
    assert [1, 2] == read(source)
    append(log, hit(3))
    assert [3] == read(source)
    assert [] == whys(source)


def test_a_log_deleted_as_soon_as_it_was_opened_is_read_to_its_end(
    log: Path, open_source: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(log, hit(1))
    source = open_source()
    old = log.open("ab")
    assert [1] == read(source)
    log.unlink()
    append(log, hit(2))
    opened = os.open

    def delete_once_opened(path: str, *args: int, **more: int) -> int:
        handle = opened(path, *args, **more)
        if path == str(log):
            monkeypatch.undo()
            old.write((hits(3, 2) + hit(5)[:-1]).encode())
            old.close()
            log.unlink()
            append(log, hit(6))
        return handle

    monkeypatch.setattr(os, "open", delete_once_opened)
    assert [3, 4, 5, 2, 6] == read(source)
    assert [] == whys(source)


def test_siblings_from_before_are_not_read_when_the_log_is_deleted(log: Path, open_source: Open) -> None:
    append(log.with_name("messages.1"), hit(90))
    os.utime(log.with_name("messages.1"), ns=(1, 1))
    append(log, hit(1))
    source = open_source()
    assert [1] == read(source)
    log.unlink()
    append(log, hit(2))
    assert [2] == read(source)


def test_a_log_deleted_and_written_again_with_the_same_lines_is_news_where_they_have_no_times(
    log: Path, open_source: Open
) -> None:
    append(log, "TCP: too many orphaned sockets\n" * 20)
    source = open_source()
    assert 20 == sum(record.count for record in source.read())
    log.unlink()
    append(log, "TCP: too many orphaned sockets\n" * 25)
    assert 25 == sum(record.count for record in source.read())


def copy_over(log: Path) -> None:
    """Put a copy in place, as rsync and editors do."""
    shutil.copy2(log, log.with_name("copy"))
    log.with_name("copy").rename(log)


def copy_directory(log: Path) -> None:
    """Move the directory to another disk: the old one is hidden or renamed."""
    shutil.copytree(log.parent, log.parent.with_name("new"))
    log.parent.rename(log.parent.with_name("old"))
    log.parent.with_name("new").rename(log.parent)


@pytest.mark.parametrize("copy", [copy_over, copy_directory])
@pytest.mark.parametrize("start", ["now", "beginning"])
@pytest.mark.parametrize("line", [hit, lambda number: hit(number)[29:]], ids=["syslog", "dmesg"])
def test_a_copy_in_the_place_of_a_log_that_is_followed_is_gone_on_with(
    copy: Callable[[Path], None], start: str, line: Callable[[int], str], log: Path, open_source: Open
) -> None:
    append(log, "".join(map(line, range(1, 6))))
    source = open_source(start=start)
    assert (5 if start == "beginning" else 0) == sum(record.count for record in source.read())
    for number in range(6, 12, 2):
        copy(log)
        if log.parent.with_name("old").exists():
            shutil.rmtree(log.parent.with_name("old"))
        assert [] == read(source)
        append(log, line(number))
        assert [number] == read(source)
        copy(log)
        append(log, line(number + 1))
        if log.parent.with_name("old").exists():
            shutil.rmtree(log.parent.with_name("old"))
        assert [number + 1] == read(source)
    assert [] == whys(source)


def test_a_copy_that_is_not_truncated_yet_is_not_read_twice(log: Path, open_source: Open) -> None:
    append(log, hits(1, 2))
    source = open_source()
    cursor = source.position()
    assert [1, 2] == read(source)
    log.rename(log.with_name("messages.2"))
    append(log, hits(3, 2))
    shutil.copy(log, log.with_name("messages.1"))
    again = open_source(cursor=cursor)
    assert [1, 2, 3, 4] == read(again)
    os.truncate(log, 0)
    append(log, hit(5))
    assert [5] == read(again)
    assert [] == whys(again)


def test_numbers_that_count_up_are_read_once(log: Path, open_source: Open) -> None:
    source = open_source()
    for number in range(6):
        append(log, hit(number))
        assert [number] == read(source)
        log.rename(log.with_name(f"messages.{number}"))
    assert [] == whys(source)[1:]


def test_several_numbers_that_count_up_between_two_looks_lose_nothing(log: Path, open_source: Open) -> None:
    count_up(log, 0, 2)
    append(log, hit(2))
    source = open_source(start="now")
    count_up(log, 2, 6, first_hit=3)
    append(log, hit(7))
    assert [3, 4, 5, 6, 7] == read(source)
    assert [] == whys(source)


def test_a_log_moved_by_hand_to_a_higher_number_wakes_nobody_for_old_news(log: Path, open_source: Open) -> None:
    old = log.with_name("messages.1")
    append(old, hits(1, 5))
    append(log, NOISE)
    source = open_source(start="now")
    assert [] == read(source)
    log.rename(log.with_name("messages.2"))
    append(log, hit(6))
    assert [6] == read(source)


@pytest.mark.parametrize("name", ["messages.1", "messages-20261101", "messages.old"])
def test_an_old_sibling_from_before_the_start_wakes_nobody_whatever_its_time(
    name: str, log: Path, open_source: Open
) -> None:
    log.touch()
    append(log.with_name(name), hits(1, 5))  # As by a daemon that was not told of the last rotation.
    os.utime(log, ns=(1, 1))
    source = open_source(start="now")
    assert [] == read(source)
    log.rename(log.with_name("messages.2"))
    append(log, hit(6))
    assert [6] == read(source)


def test_a_rotated_log_that_is_put_back_goes_on_where_it_was_left(log: Path, open_source: Open) -> None:
    append(log, hits(1, 3))
    source = open_source()
    assert [1, 2, 3] == read(source)
    rotate(log)
    append(log, hit(4))
    assert [4] == read(source)
    log.with_name("messages.1").rename(log)
    append(log, hit(5))
    assert [5] == read(source)


def test_a_symbolic_link_that_is_turned_to_another_file_is_followed(log: Path, open_source: Open) -> None:
    first, second = log.with_name("day-1"), log.with_name("other")
    append(first, hit(1))
    log.symlink_to(first)
    waker = FakeWaker()
    source = open_source(waker=waker)
    assert [1] == read(source)
    append(first, hit(2))
    second.write_text(hit(3))
    log.unlink()
    log.symlink_to(second)
    assert [2, 3] == read(source)


def test_the_directories_of_a_link_and_of_its_target_are_watched(log: Path, tmp_path: Path, open_source: Open) -> None:
    target = tmp_path / "elsewhere" / "messages"
    target.parent.mkdir()
    target.touch()
    log.symlink_to(target)
    waker = FakeWaker()
    list(open_source(waker=waker).read())
    assert {str(log.parent), str(target.parent)} == set(waker.directories)


def test_a_log_that_stays_away_is_told_once(log: Path) -> None:
    times = iter([*([0.0] * 3), *range(1, 30)])
    append(log, hit(1))
    clock = now()
    source = LogFileSource(
        [str(log)],
        None,
        "beginning",
        lambda: datetime.fromtimestamp(clock.timestamp() + next(times), timezone.utc),
        FakeWaker(),
    )
    with closing(source):
        assert [1] == read(source)
        log.unlink()
        told = [len(source.gaps()) for _ in range(12) if read(source) == []]
        assert 1 == sum(told)
        assert 0 == told[0]


# --- what cannot be read --------------------------------------------------------------------------------------------


def test_a_directory_a_fifo_and_a_device_are_gaps(log: Path, tmp_path: Path, open_source: Open) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    source = open_source(log.parent, fifo, Path("/dev/zero"))
    assert [] == read(source)
    assert [
        (str(log.parent), "is a directory: name a log file in it"),
        (str(fifo), "is a FIFO, socket or device: name a log file"),
        ("/dev/zero", "is a FIFO, socket or device: name a log file"),
    ] == [(gap.what, gap.why) for gap in source.gaps()]
    assert [] == read(source)
    assert () == source.gaps()


@pytest.mark.parametrize(
    ("put", "why"),
    [
        (Path.mkdir, "is a directory: name a log file in it"),
        (os.mkfifo, "is a FIFO, socket or device: name a log file"),
        (lambda path: path.symlink_to("/dev/null"), "is a FIFO, socket or device: name a log file"),
    ],
    ids=["directory", "FIFO", "device"],
)
def test_what_takes_a_logs_place_and_is_none_is_told_once_and_hides_no_line(
    put: Callable[[Path], None], why: str, log: Path, open_source: Open
) -> None:
    append(log, hit(1))
    source = open_source()
    assert [1] == read(source)
    log.rename(log.with_name("messages.1"))
    put(log)
    append(log.with_name("messages.1"), hit(2))
    assert [2] == read(source)
    assert [] == read(source)
    assert [(str(log), why)] == [(gap.what, gap.why) for gap in source.gaps()]
    log.rmdir() if log.is_dir() else log.unlink()
    append(log, hit(3))
    assert [3] == read(source)
    assert ["can be read now"] == whys(source)


class Disk:
    """Refuses blocks of a file as the kernel passes it on: what stands before one is given, and then EIO."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.refused: set[tuple[int, int]] = set()
        self._really = os.pread
        monkeypatch.setattr(os, "pread", self._pread)

    def refuse(self, path: Path, first: int, blocks: int) -> None:
        self.refused |= {(path.stat().st_ino, block) for block in range(first, first + blocks)}

    def _pread(self, fd: int, size: int, offset: int) -> bytes:
        there = os.fstat(fd)
        size = max(0, min(size, there.st_size - offset))
        bad = [block * 4096 for inode, block in self.refused if inode == there.st_ino]
        first = min((at for at in bad if at + 4096 > offset and at < offset + size), default=offset + size)
        if size and first <= offset:
            raise OSError(5, "Input/output error")
        return self._really(fd, first - offset, offset)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


@pytest.fixture
def open_later(log: Path) -> Iterator[tuple[Callable[..., LogFileSource], Callable[[float], None]]]:
    """A source by a clock that is set, and what sets it."""
    began, opened, passed = now(), list[LogFileSource](), [0.0]

    def open_one(cursor: Cursor | None = None) -> LogFileSource:
        clock = lambda: began + timedelta(seconds=passed[0])  # noqa: E731 - a clock
        opened.append(LogFileSource([str(log)], cursor, "beginning", clock, FakeWaker()))
        return opened[-1]

    def wait(seconds: float) -> None:
        passed[0] += seconds

    yield open_one, wait
    for source in opened:
        source.close()


WITH_HITS_FAR_APART = hits(1, 2) + NOISE * 1000 + hit(3) + NOISE * 5000 + hit(4)


@pytest.mark.parametrize(
    ("bad", "blocks", "before", "after"),
    [(0, 1, [], [3, 4]), (5, 1, [1, 2], [3, 4]), (5, 3, [1, 2], [3, 4]), (5, 30, [1, 2], [4])],
)
@pytest.mark.parametrize("restarts", [False, True])
def test_a_bad_sector_in_a_log_is_told_and_passed_by_after_a_minute(
    log: Path,
    disk: Disk,
    open_later: Any,
    *,
    bad: int,
    blocks: int,
    before: list[int],
    after: list[int],
    restarts: bool,
) -> None:
    append(log, WITH_HITS_FAR_APART)
    disk.refuse(log, bad, blocks)
    open_one, wait = open_later
    source = open_one()
    assert before == read(source)
    if restarts:
        source = open_one(source.position())
        assert [] == read(source)
    assert ["Input/output error"] == whys(source)
    wait(59)
    assert [] == read(source)
    assert [] == whys(source)
    wait(2)
    assert after == read(source)
    (why,) = whys(source)
    assert why.startswith("lines may be lost: ")
    assert why.endswith(f" from offset {bad * 4096} on cannot be read (Input/output error)")
    append(log, hit(9))
    assert [9] == read(source)
    assert [] == read(open_one(source.position()))


@pytest.mark.parametrize(("bad", "blocks", "after"), [(5, 1, [3, 4, 5]), (5, 500, [5])])
def test_a_bad_sector_in_a_rotated_file_does_not_keep_the_log_from_being_read(
    log: Path, disk: Disk, open_later: Any, *, bad: int, blocks: int, after: list[int]
) -> None:
    open_one, wait = open_later
    append(log, hits(1, 2))
    source = open_one()
    assert [1, 2] == read(source)
    append(log, WITH_HITS_FAR_APART.removeprefix(hits(1, 2)))
    disk.refuse(log, bad, blocks)
    log.rename(log.with_name("messages.1"))
    append(log, hit(5))
    assert [] == read(source)
    wait(61)
    assert after == read(source)
    assert [1] == [why.count("cannot be read") for why in whys(source) if "lost" in why]
    append(log, hit(6))
    assert [6] == read(source)


def test_a_bad_sector_at_the_end_of_a_log_is_told_once_and_passed_by_when_more_comes(
    log: Path, disk: Disk, open_later: Any
) -> None:
    open_one, wait = open_later
    append(log, hits(1, 2) + NOISE * 100)
    disk.refuse(log, 1, 1)
    source = open_one()
    assert [1, 2] == read(source)
    for _ in range(5):
        wait(61)
        assert [] == read(source)
    assert ["Input/output error"] == whys(source)
    append(log, NOISE * 100 + hit(3))
    assert [3] == read(source)


def test_what_a_disk_refuses_for_less_than_a_minute_loses_nothing(log: Path, disk: Disk, open_later: Any) -> None:
    open_one, wait = open_later
    append(log, WITH_HITS_FAR_APART)
    disk.refuse(log, 5, 30)
    source = open_one()
    assert [1, 2] == read(source)
    wait(50)
    assert [] == read(source)
    disk.refused.clear()
    wait(50)
    assert [3, 4] == read(source)
    assert ["Input/output error", "can be read now"] == whys(source)


def test_a_bad_sector_where_the_log_begins_costs_no_descriptor_and_is_passed_by(
    log: Path, disk: Disk, open_later: Any
) -> None:
    open_one, wait = open_later
    append(log, hit(1))
    source = open_one()
    assert [1] == read(source)
    log.rename(log.with_name("messages.1"))
    append(log, WITH_HITS_FAR_APART)
    disk.refuse(log, 0, 1)
    read(source)
    held = len([*Path("/proc/self/fd").iterdir()])
    for _ in range(5):
        assert [] == read(source)
    assert held == len([*Path("/proc/self/fd").iterdir()])
    wait(61)
    assert [3, 4] == read(source)


def test_permission_given_later_reads_what_came_since_the_start(
    log: Path, open_source: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(log, hit(1))
    really_open = os.open
    forbidden = True

    def refuse(path: str, flags: int, mode: int = 0o777) -> int:
        if forbidden and path == str(log):
            raise PermissionError(13, "Permission denied")  # Root would not be refused, and tests may be root.
        return really_open(path, flags, mode)

    monkeypatch.setattr(os, "open", refuse)
    source = open_source(start="now")
    append(log, hit(2))
    assert [] == read(source)
    assert [] == read(source)
    assert ["permission denied: let the agent's user read it (group adm, or setfacl)"] == whys(source)
    forbidden = False
    assert [2] == read(source)


def test_a_new_log_that_may_not_be_read_yet_is_waited_for(
    log: Path, open_source: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(log, hit(1))
    source = open_source()
    assert [1] == read(source)
    log.rename(log.with_name("messages.1"))
    append(log, hit(2))
    really_open = os.open
    forbidden = True

    def refuse(path: str, flags: int, mode: int = 0o777) -> int:
        if forbidden and path == str(log):
            raise PermissionError(13, "Permission denied")
        return really_open(path, flags, mode)

    monkeypatch.setattr(os, "open", refuse)
    assert [] == read(source)
    assert 1 == len(whys(source))
    assert ([], []) == (read(source), whys(source))
    again = open_source(cursor=source.position())
    assert [] == read(again)
    forbidden = False
    assert [2] == read(source)
    assert [2] == read(again)


def test_a_disk_error_is_told_once_and_reading_goes_on_where_it_was(
    log: Path, open_source: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(log, hit(1))
    source = open_source()
    assert [1] == read(source)
    append(log, hit(2))

    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(os, "pread", fail)
        assert [[], []] == [read(source), read(source)]
        assert ["Input/output error"] == whys(source)
        assert log.stat().st_size == source.position().files[str(log)].offset + len(hit(2))
    assert [2] == read(source)
    assert ["can be read now"] == whys(source)


def test_a_directory_that_may_not_be_entered_any_more_is_told(
    log: Path, open_source: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(log, hit(1))
    source = open_source()
    look = Path.stat

    def refuse(path: Path, **kwargs: bool) -> os.stat_result:
        if path == log:
            raise PermissionError(13, "Permission denied")
        return look(path, **kwargs)

    monkeypatch.setattr(Path, "stat", refuse)
    assert [1] == read(source)
    append(log, hit(2))
    assert [2] == read(source)
    assert ["permission denied: let the agent's user read it (group adm, or setfacl)"] == whys(source)
    blind = open_source(start="now")
    monkeypatch.undo()
    assert ([], ["can be read now"]) == (read(source), whys(source))
    assert [] == read(blind)
    append(log, hit(3))
    assert [3] == read(blind)


@contextmanager
def nobody(directory: Path, mode: int) -> Iterator[None]:
    """Go on as a user to whom root's directory of this mode is closed."""
    for place in directory.parents[:3]:
        place.chmod(0o755)
    directory.chmod(mode)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        directory.chmod(0o755)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_directory_that_may_not_be_listed_is_told_once_and_so_is_its_end(log: Path, open_source: Open) -> None:
    append(log, hit(1))
    source = open_source(waker=(waker := FakeWaker()))
    with nobody(log.parent, 0o711):
        assert [[1], []] == [read(source), read(source)]
        source.wait(1.0)
        told, watched = source.gaps(), dict(waker.directories)
        assert [f"{log.parent}: {logfile.UNLISTED}"] == source.troubles()
    source.wait(1.0)

    assert [] == source.troubles()
    assert [(str(log.parent), logfile.UNLISTED)] == [(gap.what, gap.why) for gap in told]
    assert ({}, [str(log.parent)]) == (watched, list(waker.directories))
    assert ["can be listed again"] == whys(source)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("mode", [0o744, 0o700])
def test_a_log_in_a_directory_that_may_not_be_entered_is_told_with_the_directory_and_so_is_its_end(
    log: Path, open_source: Open, mode: int
) -> None:
    append(log, hit(1))
    with nobody(log.parent, mode):
        source = open_source(start="now")
        assert [[], []] == [read(source), read(source)]
        told, place, troubles = source.gaps(), source.position(), source.troubles()
    append(log, hit(2))
    again = open_source(cursor=place, start="now")

    why = f"permission denied: let the agent's user enter {log.parent} (chmod o+x, or setfacl)"
    assert f"{log}: {why}" in troubles
    assert [(str(log), why)] == [(gap.what, gap.why) for gap in told]
    assert [] == read(source) + read(again)  # Old news in both.
    assert [] == source.troubles()
    assert ["can be read now"] == whys(source)
    append(log, hit(3))
    assert ([3], [3]) == (read(source), read(again))


def test_a_rotation_under_way_is_waited_for_without_a_word(
    log: Path, open_source: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(log, hit(1))
    source = open_source()
    rotate(log)
    append(log, hit(2))

    def change(*_: object) -> None:
        raise BlockingIOError(11, "is being rotated")

    with monkeypatch.context() as busy:
        busy.setattr("agent.sources.file.rotated.list_family", change)
        assert [1] == read(source)
        again = open_source(cursor=source.position())
        assert [] == read(again)
        assert [] == whys(source) + whys(again)
    assert [[2], [2]] == [read(source), read(again)]


def test_an_endless_line_does_not_outlive_its_file(log: Path, open_source: Open) -> None:
    append(log, b"x" * 100_000)
    source = open_source()
    assert [] == read(source)
    log.write_text(hit(1))
    assert [] == read(source)  # Seen to be truncated, there being no bytes before the line to tell it by.
    append(log, hit(2) + "x" * 100_000)
    assert [1, 2] == read(source)
    rotate(log)
    append(log, hit(3))
    assert [3] == read(source)
    assert 1 == len(whys(source))


# --- several paths --------------------------------------------------------------------------------------------------


def test_several_logs_are_read_and_each_has_its_place(log: Path, open_source: Open) -> None:
    other = log.with_name("kern.log")
    append(log, hit(1))
    append(other, hit(2))
    source = open_source(log, other)
    records = list(source.read())
    assert [1, 2] == numbers(records)
    assert abs(records[0].ordinal - records[1].ordinal) > 1
    assert {str(log), str(other)} == set(source.position().files)
    append(log, hit(3))
    append(other, hit(4))
    assert [3, 4] == read(open_source(log, other, cursor=source.position()))


def test_one_file_under_several_names_is_read_once(log: Path, open_source: Open) -> None:
    append(log, hit(1))
    link, hard = log.with_name("link"), log.with_name("hard")
    link.symlink_to(log)
    hard.hardlink_to(log)
    source = open_source(log, log, link, hard)
    assert [1] == read(source)
    assert 2 == len(source.gaps())
    rotate(log)
    append(log.with_name("messages.1"), hit(2))
    append(log, hit(3))
    assert [2, 3] == read(source)
    assert [] == read(open_source(log, link, hard, cursor=source.position()))


# --- opened again ---------------------------------------------------------------------------------------------------


def test_a_cursor_goes_on_where_it_ended(log: Path, open_source: Open) -> None:
    append(log, hits(1, 3))
    source = open_source()
    read(source)
    append(log, hit(4))
    assert [4] == read(open_source(cursor=source.position(), start="now"))


@pytest.mark.parametrize("before", [b"", NOISE.encode(), b"\0" * 300], ids=["first", "behind another", "behind NULs"])
def test_a_source_that_is_opened_again_numbers_the_line_before_it(log: Path, open_source: Open, before: bytes) -> None:
    append(log, before + (hits(1, 2) + NOISE).encode())
    first, second = open_source().read()
    for record in (first, second):
        assert {record.source: 0} == open_source(cursor=record.cursor).before()
    assert [1] == [record.ordinal for record in open_source(cursor=first.cursor).read()]


def test_a_line_before_that_is_longer_than_a_marker_is_not_known(log: Path, open_source: Open) -> None:
    append(log, "x" * 300 + hit(1))
    source = open_source()
    list(source.read())
    assert {} == open_source(cursor=source.position()).before()


def test_a_log_of_which_nothing_was_read_is_not_mistaken_for_one_that_takes_its_name_at_a_start(
    log: Path, open_source: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(log, "")
    source = open_source()
    assert [] == read(source)
    append(log, hit(1))
    log.rename(log.with_name("messages.1"))
    append(log, hit(2))
    find = follower.locate

    def find_and_rotate(*args: Any, **named: Any) -> NamedFile | None:
        found = find(*args, **named)
        monkeypatch.undo()
        log.with_name("messages.1").rename(log.with_name("messages.2"))
        log.rename(log.with_name("messages.1"))
        append(log, hit(3))
        return found

    monkeypatch.setattr(follower, "locate", find_and_rotate)
    source = open_source(cursor=source.position())

    assert [1, 2, 3] == read(source)
    assert [] == whys(source)


def test_rotations_while_away_are_caught_up_with(log: Path, open_source: Open) -> None:
    append(log, hit(1))
    source = open_source()
    read(source)
    append(log, hit(2))
    rotate(log)
    append(log, hit(3))
    rotate(log)
    append(log, hit(4))
    pack(log.with_name("messages.2"))
    again = open_source(cursor=source.position())
    assert [2, 3, 4] == read(again)
    assert [] == whys(again)
    assert [] == read(open_source(cursor=again.position()))


@pytest.mark.parametrize(
    "renamed",
    [
        ("@4000000066c195b40c30a9f8.s", "@4000000066c195b41c00a9f8.u"),
        ("log-2026-11-20-08:33:14", "log-2026-11-20-08:33:15"),
    ],
    ids=["svlogd", "metalog"],
)
def test_what_is_renamed_to_its_time_while_away_is_caught_up_with(
    renamed: tuple[str, str], log: Path, open_source: Open
) -> None:
    log = log.with_name("current")
    append(log, hit(1))
    source = open_source(log)
    assert [1] == read(source)
    append(log, hit(2))
    for number, name in enumerate(renamed, start=3):
        log.rename(log.with_name(name))
        append(log, hit(number))
    again = open_source(log, cursor=source.position())

    assert [2, 3, 4] == read(again)
    assert [] == whys(again)


def test_where_the_file_read_last_has_an_unknown_kind_of_name_it_is_told_that_others_may_be_between(
    log: Path, open_source: Open
) -> None:
    append(log, hit(1))
    source = open_source()
    assert [1] == read(source)
    append(log, hit(2))
    for number, name in enumerate(("monday-messages", "tuesday-messages"), start=3):
        log.rename(log.with_name(name))
        append(log, hit(number))
    again = open_source(cursor=source.position())

    assert [2, 4] == read(again)
    between = (
        f"the file read last has this name now, which no known rotation gives: lines between it and {log} may be lost"
    )
    assert [(str(log.with_name("monday-messages")), between)] == [(gap.what, gap.why) for gap in again.gaps()]


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_numbers_that_count_up_while_away_are_caught_up_with(ending: str, log: Path, open_source: Open) -> None:
    count_up(log, 0, 2)
    append(log, hit(2))
    age(log, 98 * 60)
    source = open_source()
    assert [2] == read(source)
    count_up(log, 2, 5, first_hit=3)
    append(log, hit(6))
    for number in range(4 if ending else 0):
        pack(log.with_name(f"messages.{number}"))
    again = open_source(cursor=source.position())
    assert [3, 4, 5, 6] == read(again)
    assert [] == whys(again)


def test_a_log_moved_by_hand_while_away_is_gone_on_with_and_nothing_older(log: Path, open_source: Open) -> None:
    for number in (3, 2, 1):
        append(log.with_name(f"messages.{number}"), hit(10 - number))
        age(log.with_name(f"messages.{number}"), number * 1000)
    append(log, hits(10, 2))
    cursor = next(iter(open_source().read())).cursor
    log.rename(log.with_name("messages.7"))
    append(log, hit(12))
    assert [11, 12] == read(open_source(cursor=cursor, start="now"))


def test_what_is_compressed_later_than_its_successor_was_written_hides_nothing(log: Path, open_source: Open) -> None:
    append(log, hits(1, 2))
    age(log, 3000)
    cursor = next(iter(open_source().read())).cursor
    rotate(log)
    append(log, hit(3))
    age(log, 2000)
    rotate(log)
    append(log, hit(4))
    pack(log.with_name("messages.2"))
    log.with_name("messages.2.gz").touch()
    assert [2, 3, 4] == read(open_source(cursor=cursor))


def test_a_cursor_in_a_compressed_sibling_is_a_cursor_like_others(log: Path, open_source: Open) -> None:
    append(log, hits(1, 4))
    source = open_source()
    cursor = next(iter(source.read())).cursor
    rotate(log)
    pack(log.with_name("messages.1"))
    records = open_source(cursor=cursor).read()
    second = next(iter(records))
    assert [2] == numbers([second])
    assert [3, 4] == read(open_source(cursor=second.cursor))


def test_a_record_has_the_same_source_before_and_after_rotation(log: Path, open_source: Open) -> None:
    append(log, hits(1, 2))
    first, second = list(open_source().read())
    rotate(log)
    pack(log.with_name("messages.1"))
    assert [second.source] == [record.source for record in open_source(cursor=first.cursor).read()]


def test_a_log_truncated_and_grown_while_away_is_noticed(log: Path, open_source: Open) -> None:
    append(log, hit(1))
    source = open_source()
    read(source)
    append(log, hit(2))
    shutil.copy(log, log.with_name("messages.1"))
    log.write_text(hits(3, 5))
    again = open_source(cursor=source.position())
    assert [2, 3, 4, 5, 6, 7] == read(again)
    assert [] == whys(again)


@pytest.mark.parametrize("since", [0, 2, 9])
@pytest.mark.parametrize("zeros", [0, 500])
def test_what_a_power_cut_took_of_a_log_makes_nothing_before_it_new(
    since: int, zeros: int, log: Path, open_source: Open
) -> None:
    append(log, hits(1, 5))
    source = open_source()
    read(source)
    with log.open("r+b") as file:
        file.truncate(len(hits(1, 2)))
    append(log, bytes(zeros) + hits(10, since).encode())
    again = open_source(cursor=source.position())
    seen = read(again)
    append(log, hits(30, 2))
    assert [30, 31] == (seen + read(again))[-2:]
    assert set() == set(seen) - set(range(10, 19))
    assert [True] == ["may be lost" in why for why in whys(again)]


@pytest.mark.parametrize("count", [2, 9], ids=["shorter", "longer"])
def test_a_file_rewritten_in_place_while_away_that_begins_as_before_is_told_and_read_on_behind_its_old_end(
    count: int, log: Path, open_source: Open
) -> None:
    banner = "[    0.000000] Linux version 6.1.0-26-amd64 (debian-kernel@lists.debian.org)\n"
    append(log, banner + hits(11, 5))
    source = open_source()
    read(source)
    log.write_text(banner + hits(20, count))
    again = open_source(cursor=source.position())
    seen = read(again)
    append(log, hit(50))

    assert [*range(25, 20 + count), 50] == seen + read(again)
    assert [True] == ["rewritten in place; whatever is in it by now" in why for why in whys(again)]


def test_a_file_rewritten_in_place_while_it_is_followed_is_told_and_read_from_its_beginning(
    log: Path, open_source: Open
) -> None:
    append(log, hits(1, 5))
    source = open_source()
    read(source)
    log.write_text(hits(4, 5))

    assert [4, 5, 6, 7, 8] == read(source)
    assert [True] == ["truncated or rewritten" in why for why in whys(source)]


def test_the_first_line_behind_the_zeros_of_a_power_cut_is_read_however_many_they_are(
    log: Path, open_source: Open
) -> None:
    append(log, hits(1, 2) + "x" * 60_000 + "\n" + "x" * 40_000 + "\n")
    source = open_source()
    read(source)
    size = log.stat().st_size
    with log.open("r+b") as file:
        file.truncate(len(hits(1, 2)) + 20)
        file.truncate(size)
    append(log, hits(10, 2))
    assert [10, 11] == read(open_source(cursor=source.position()))


def test_a_copy_put_in_the_place_of_the_log_while_away_is_not_read_again(log: Path, open_source: Open) -> None:
    append(log, hits(1, 5))
    source = open_source()
    read(source)
    copy = log.with_name("edited")
    shutil.copy(log, copy)
    copy.rename(log)
    append(log, hit(6))
    assert [6] == read(open_source(cursor=source.position()))


def test_an_inode_used_again_is_noticed(log: Path, open_source: Open) -> None:
    append(log, hits(1, 3))
    source = open_source()
    read(source)
    cursor = source.position()
    log.write_text(hits(4, 4))
    assert [4, 5, 6, 7] == read(open_source(cursor=cursor))


def test_a_file_that_is_gone_is_told_and_the_log_is_read_from_its_beginning(log: Path, open_source: Open) -> None:
    append(log, hit(1))
    source = open_source()
    read(source)
    source.close()
    append(log.with_name("other"), "")  # Takes no part: the old inode may be used again below, the content differs.
    log.unlink()
    append(log, hit(2))
    again = open_source(cursor=source.position())
    assert [2] == read(again)
    assert [True] == ["lines may be lost" in why for why in whys(again)]
    assert [] == read(open_source(cursor=again.position()))


def test_a_cursor_outlives_a_log_that_is_missing_for_a_while(log: Path, open_source: Open) -> None:
    append(log, hit(1))
    source = open_source()
    read(source)
    away = log.rename(log.parent.parent / "away")
    again = open_source(cursor=source.position())
    assert [] == read(again)
    assert source.position() == again.position()
    append(away, hit(2))
    away.rename(log)
    assert [2] == read(again)


def test_while_there_is_no_log_compressed_files_are_searched_once_and_again_when_others_come(
    log: Path, open_source: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(log, hits(1, 3))
    source = open_source()
    assert [1, 2, 3] == read(source)
    place = source.position()
    log.unlink()
    with gzip.open(log.with_name("messages.2.gz"), "wb") as file:
        file.write(NOISE.encode() * 9)
    searched: list[object] = []
    find = follower.locate

    def count(*args: Any, **named: Any) -> NamedFile | None:
        searched.append(args)
        return find(*args, **named)

    monkeypatch.setattr(follower, "locate", count)
    again = open_source(cursor=place)
    for _ in range(5):
        assert [] == read(again)
    assert 1 == len(searched)
    with gzip.open(log.with_name("messages.1.gz"), "wb") as file:
        file.write(hits(1, 4).encode())
    assert [4] == read(again)
    append(log, hit(5))
    assert [5] == read(again)
    assert [] == [why for why in whys(again) if "lost" in why]


@pytest.mark.parametrize("closed", [False, True], ids=["no line yet", "closed to us"])
def test_until_the_new_log_is_read_the_old_one_is_not_unpacked_in_each_turn(
    log: Path, open_source: Open, monkeypatch: pytest.MonkeyPatch, *, closed: bool
) -> None:
    append(log, hits(1, 3))
    source = open_source()
    assert [1, 2, 3] == read(source)
    really_open, opened = os.open, list[str]()

    def open_one(path: str, flags: int, mode: int = 0o777) -> int:
        opened.append(str(path))
        if closed and path == str(log):
            raise PermissionError(13, "Permission denied")  # Root would not be refused, and tests may be root.
        return really_open(path, flags, mode)

    monkeypatch.setattr(os, "open", open_one)
    times = log.stat().st_atime_ns, log.stat().st_mtime_ns
    pack(log)
    packed = log.with_name("messages.1.gz")
    log.with_name("messages.gz").rename(packed)
    os.utime(packed, ns=times)
    log.touch()
    for number in range(5):
        append(log, hit(4 + number) if closed else "")
        assert [] == read(source)
    assert 1 == opened.count(str(packed))
    closed = False
    append(log, hit(9))
    assert 9 == read(source)[-1]


def test_a_log_that_comes_after_a_search_in_vain_is_searched_for_the_place_itself(log: Path, open_source: Open) -> None:
    append(log, hits(1, 3))
    source = open_source()
    assert [1, 2, 3] == read(source)
    log.rename(log.with_name("elsewhere"))
    log.with_name("elsewhere").rename(log.parent.with_name("elsewhere"))
    again = open_source(cursor=source.position())
    assert [] == read(again)
    log.parent.with_name("elsewhere").rename(log)
    append(log, hit(4))
    assert [4] == read(again)


def test_a_damaged_sibling_is_told_and_what_is_whole_in_it_is_read(log: Path, open_source: Open) -> None:
    append(log, hits(1, 20_000))
    source = open_source()
    cursor = next(iter(source.read())).cursor
    rotate(log)
    pack(log.with_name("messages.1"))
    packed = log.with_name("messages.1.gz")
    os.truncate(packed, packed.stat().st_size * 3 // 4)
    append(log, hit(20_001))
    again = open_source(cursor=cursor)
    found = [number for batch in iter(lambda: read(again), []) for number in batch]
    assert list(range(2, 5_000)) == found[:4998]
    assert 20_001 == found[-1]
    assert "damaged" in whys(again)[0]


def test_a_sibling_that_wants_too_much_memory_is_told_and_passed_over(log: Path, open_source: Open) -> None:
    append(log, hit(1))
    source = open_source()
    assert [1] == read(source)
    rotate(log)
    append(log.with_name("messages.2.xz"), wanting_4_gib(hit(2).encode()))
    log.with_name("messages.1").rename(log.with_name("messages.3"))
    append(log, hit(3))
    assert [3] == [number for _ in range(3) for number in read(source)]
    assert [
        "needs more than 100 MiB of memory to unpack: xzcat FILE | sockmem-agent scan -; not read from offset 0 on"
    ] == [why for why in whys(source) if "memory" in why]


@pytest.mark.parametrize("filling", [b"x", b"\0"])
def test_an_endless_line_in_a_compressed_sibling_is_unpacked_once(filling: bytes, log: Path, open_source: Open) -> None:
    append(log, hit(1))
    cursor = next(iter(open_source().read())).cursor
    append(log, filling * (8 << 20) + b"\n" + hit(2).encode())
    rotate(log)
    pack(log.with_name("messages.1"))
    append(log, hit(3))
    went_back: list[int] = []
    again = open_source(cursor=cursor, on_progress=lambda: went_back.append(1))
    found: list[int] = []
    while len(found) < 2:
        found += read(again)
    assert [2, 3] == found
    assert [] == went_back


def test_a_sibling_compressed_in_a_foreign_way_is_told(log: Path, open_source: Open) -> None:
    append(log, hit(1))
    source = open_source()
    read(source)
    for token in ("3", "2"):
        append(log, hit(int(token)))
        rotate(log)
    append(log, hit(9))
    log.with_name("messages.1").rename(log.with_name("messages.1.zst"))
    again = open_source(cursor=source.position())
    assert [3, 9] == read(again)
    assert "(.zst)" in whys(again)[0]


# --- waking ---------------------------------------------------------------------------------------------------------


def test_a_line_that_comes_after_the_first_read_is_hinted_at_and_none_waits_for_a_look_at_directories(
    log: Path, open_source: Open
) -> None:
    waker = FakeWaker()
    source = open_source(waker=waker)
    read(source)
    assert {str(log.parent)} == set(waker.directories)
    waker.directories = {}
    read(source)
    assert {} == waker.directories


def test_without_inotify_it_is_told_once_each_time_and_polling_goes_on(log: Path, open_source: Open) -> None:
    waker = FakeWaker("inotify watch limit reached")
    source = open_source(waker=waker, start="now")
    append(log, hit(1))
    source.wait(1)
    assert [1] == read(source)
    told = ["inotify watch limit reached; checking once a second instead"]
    assert told == [gap.why for gap in source.gaps() if gap.what == "inotify"]
    for trouble, expected in ((waker.trouble, []), (None, []), (waker.trouble, told)):
        waker.trouble = trouble
        source._watch()
        assert expected == [gap.why for gap in source.gaps() if gap.what == "inotify"]


def test_closing_closes_the_waker_and_every_file(log: Path, open_source: Open) -> None:
    append(log, hit(1))
    before = len(list(Path("/proc/self/fd").iterdir()))
    waker = FakeWaker()
    source = open_source(waker=waker)
    read(source)
    source.close()
    assert waker.closed
    assert before == len(list(Path("/proc/self/fd").iterdir()))


def identities(directory: Path) -> dict[str, tuple[int, int]]:
    status = directory.stat()
    return {str(directory): (status.st_dev, status.st_ino)}


def wakes(waker: DirectoryWaker, act: Callable[[], object]) -> bool:
    """Return whether the waker woke long before its timeout; what came before is slept off first."""
    waker.wait(0.2)
    act()
    began = time.monotonic()
    waker.wait(5)
    return time.monotonic() - began < 4


def test_watchdog_wakes_at_a_write_a_rename_and_a_deletion(log: Path) -> None:
    log.touch()
    with closing(DirectoryWaker()) as waker:
        assert None is waker.watch(identities(log.parent))
        assert wakes(waker, lambda: append(log, hit(1)))
        assert wakes(waker, lambda: log.rename(log.with_name("messages.1")))
        assert wakes(waker, log.with_name("messages.1").unlink)


def test_watchdog_does_not_wake_because_we_read(log: Path) -> None:
    append(log, hit(1))
    with closing(DirectoryWaker()) as waker:
        waker.watch(identities(log.parent))
        waker.wait(0.2)
        log.read_text()
        list(log.parent.iterdir())
        began = time.monotonic()
        waker.wait(0.3)
        assert time.monotonic() - began > 0.25


def test_watchdog_watches_a_directory_that_was_replaced(log: Path) -> None:
    with closing(DirectoryWaker()) as waker:
        waker.watch(identities(log.parent))
        log.parent.rmdir()
        assert None is waker.watch({})
        log.parent.mkdir()
        waker.watch(identities(log.parent))
        assert wakes(waker, lambda: append(log, hit(1)))


def test_watchdog_says_why_it_cannot_watch(monkeypatch: pytest.MonkeyPatch, log: Path) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "inotify watch limit reached")

    with closing(DirectoryWaker()) as waker:
        waker.watch({})
        monkeypatch.setattr("watchdog.observers.api.BaseObserver.schedule", refuse)
        trouble = waker.watch(identities(log.parent))
    assert "a directory cannot be watched (inotify watch limit reached)" == trouble


def test_where_a_directory_cannot_be_watched_that_is_tried_ever_more_rarely(
    monkeypatch: pytest.MonkeyPatch, log: Path
) -> None:
    """Each failed try costs watchdog 6 three descriptors that it never closes."""
    tried, second = list[float](), 0.0

    def refuse(*_: object, **__: object) -> None:
        tried.append(second)
        raise OSError(28, "inotify watch limit reached")

    monkeypatch.setattr("watchdog.observers.api.BaseObserver.schedule", refuse)
    monkeypatch.setattr("time.monotonic", lambda: second)
    with closing(DirectoryWaker()) as waker:
        for minute in range(7 * 24 * 60):
            second = minute * 60.0
            waker.watch(identities(log.parent))

    assert [0, 1, 3, 7, 15] == [at / 60 for at in tried[:5]]
    assert 14 == len(tried)


def test_a_directory_that_could_not_be_watched_and_is_gone_is_no_trouble_any_longer(
    monkeypatch: pytest.MonkeyPatch, log: Path
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "inotify watch limit reached")

    with closing(DirectoryWaker()) as waker, monkeypatch.context() as patch:
        patch.setattr("watchdog.observers.api.BaseObserver.schedule", refuse)
        assert waker.watch(identities(log.parent)) is not None
        assert waker.watch({}) is None
        patch.undo()
        assert waker.watch(identities(log.parent)) is None
        assert wakes(waker, lambda: append(log, hit(1)))


def test_a_directory_that_can_be_watched_again_is_tried_as_soon_as_at_first(
    monkeypatch: pytest.MonkeyPatch, log: Path
) -> None:
    tried, second, is_refused = list[float](), 0.0, True

    def schedule(*_: object, **__: object) -> object:
        tried.append(second)
        if is_refused:
            raise OSError(28, "inotify watch limit reached")
        return object()

    monkeypatch.setattr("watchdog.observers.api.BaseObserver.schedule", schedule)
    monkeypatch.setattr("watchdog.observers.api.BaseObserver.unschedule", lambda *_: None)
    monkeypatch.setattr("time.monotonic", lambda: second)
    with closing(DirectoryWaker()) as waker:
        for minute in range(40):
            second, is_refused = minute * 60.0, minute not in range(7, 20)
            waker.watch(identities(log.parent) if minute < 20 else {str(log.parent): (0, 0)})

    assert [0, 1, 3, 7, 20, 21, 23] == [at / 60 for at in tried if at / 60 < 25]


def test_where_no_thread_can_be_started_the_log_is_looked_at_once_a_second(
    monkeypatch: pytest.MonkeyPatch, log: Path
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("threading.Thread.start", refuse)
    with closing(DirectoryWaker()) as waker:
        trouble = waker.watch(identities(log.parent))

    assert "a directory cannot be watched (can't start new thread)" == trouble


# --- nothing lost, nothing twice ------------------------------------------------------------------------------------

HITS = 2000
ROTATIONS = 50
REOPENED = 10


def shift(log: Path) -> None:
    """Make room for a new messages.1 as logrotate does."""
    for number in range(ROTATIONS, 0, -1):
        for ending in ("", ".gz"):
            sibling = log.with_name(f"{log.name}.{number}{ending}")
            if sibling.exists():
                sibling.rename(log.with_name(f"{log.name}.{number + 1}{ending}"))


def rotate(log: Path) -> None:
    shift(log)
    log.rename(log.with_name(f"{log.name}.1"))


def count_up(log: Path, number: int, until: int, *, first_hit: int = 0) -> None:
    """Rotate to numbers that grow, as files of minutes long gone; what the log has already is in the first of them."""
    for each in range(number, until):
        append(log, hit(first_hit + each - number))
        log.rename(log.with_name(f"messages.{each}"))
        age(log.with_name(f"messages.{each}"), (100 - each) * 60)


def age(path: Path, seconds: int) -> None:
    written_ns = time.time_ns() - seconds * 1_000_000_000
    os.utime(path, ns=(written_ns, written_ns))


def pack(path: Path) -> None:
    times = path.stat()
    with path.open("rb") as plain, gzip.open(f"{path}.gz", "wb") as packed:
        shutil.copyfileobj(plain, packed)
    os.utime(f"{path}.gz", ns=(times.st_atime_ns, times.st_mtime_ns))
    path.unlink()


class Writer(threading.Thread):
    """Writes numbered hits among noise and rotates, as fast as it can."""

    def __init__(self, log: Path, kind: str, standing: threading.Lock, has_open: Callable[[], bool]) -> None:
        super().__init__()
        self.log, self.kind, self.standing, self.has_open = log, kind, standing, has_open
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            for number in range(ROTATIONS + 1):
                first = max(1, number * HITS // (ROTATIONS + 1))
                self.write_and_rotate(first, (number + 1) * HITS // (ROTATIONS + 1) - first, last=number == ROTATIONS)
        except BaseException as error:  # noqa: BLE001 - handed to the test
            self.failure = error

    def write(self, path: Path, first: int, count: int) -> None:
        with path.open("ab", buffering=0) as file:
            for number in range(first, first + count):
                text = (NOISE * (number % 7) + hit(number)).encode()
                file.write(text[:33])
                file.write(text[33:])

    def write_and_rotate(self, first: int, count: int, *, last: bool) -> None:
        log, old = self.log, self.log.with_name(f"{self.log.name}.1")
        half = count // 2
        self.write(log, first, half)
        if self.kind.startswith("count up"):
            self.write(log, first + half, count - half)
            if not last:
                log.rename(log.with_name(f"{log.name}.{first}"))
        elif self.kind.startswith("rename"):
            rotate(log)
            log.touch()
            self.write(old, first + half, count - half)  # rsyslog, before its HUP
        elif self.kind.startswith("copytruncate"):
            self.write(log, first + half, count - half)
            shift(log)
            shutil.copy(log, old)
            os.truncate(log, 0)
        else:
            while not last and not self.has_open():
                time.sleep(0.001)
            with self.standing:
                self.write(log, first + half, count - half)
                if not last:
                    log.unlink()
        second = log.with_name(f"{log.name}.2")
        if self.kind.endswith("compress") and second.exists():
            pack(second)


@pytest.mark.parametrize("lines", [logfile.BATCH_LINES, 7])
@pytest.mark.parametrize(
    "kind", ["rename", "rename, compress", "count up", "copytruncate", "copytruncate, compress", "delete"]
)
def test_two_thousand_hits_through_fifty_rotations_and_ten_restarts(
    kind: str, lines: int, log: Path, open_source: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logfile, "BATCH_LINES", lines)
    standing = threading.Lock()
    append(log, hit(0))
    source = open_source(start="beginning")
    found = read(source)
    due = [HITS * (number + 1) // (REOPENED + 1) for number in range(REOPENED)]

    def is_due() -> bool:
        return bool(due) and len(found) >= due[0]

    def is_home() -> bool:
        place = source.position().files.get(str(log))
        return bool(place and log.exists() and log.stat().st_ino == place.inode)

    writer = Writer(log, kind, standing, lambda: is_home() and not is_due())
    writer.start()
    deadline = time.monotonic() + 60
    while len(found) < HITS and time.monotonic() < deadline and not writer.failure:
        cursor = None
        for record in source.read():
            found += numbers([record])
            if is_due() and kind != "delete":
                cursor = record.cursor  # Killed in the middle of a batch.
                break
        with standing:
            # What was deleted is in nobody's hands but the reader's, until it has read it.
            if is_due() and (kind != "delete" or is_home()):
                due.pop(0)
                cursor = cursor or source.position()
                source.close()
                source = open_source(cursor=cursor, start="now")
    writer.join()
    assert None is writer.failure
    while more := read(source):
        found += more
    assert list(range(HITS)) == found
    assert [] == due
