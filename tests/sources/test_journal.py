"""The journal, with real journal files that systemd-journal-remote makes from export-format text."""

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from harness import fill_disk
from msgspec.structs import replace

from agent.core.cursor import NOTHING_YET, Cursor
from agent.core.model import LogRecord

pytest.importorskip("systemd.journal", reason="systemd-python is not installed")

from agent.core.format import count_text
from agent.sources import journal as journal_module
from agent.sources import journal_files
from agent.sources.journal import BATCH, JournalSource
from agent.sources.kmsg import KmsgSource

REMOTE = Path("/lib/systemd/systemd-journal-remote")
pytestmark = pytest.mark.skipif(not REMOTE.exists(), reason="Debian's package systemd-journal-remote is not installed")

START = 1_790_000_000_000_000  # 2026-09-21T14:13:20Z
ORPHANS = "TCP: too many orphaned sockets"
BOOT = Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")


def entry(number: int, fields: dict[str, str | bytes], boot: str = BOOT) -> bytes:
    """One entry in the Journal Export Format; ``number`` is its second since START."""
    micros = number * 1_000_000
    lines: list[tuple[str, str | bytes]] = [
        ("__REALTIME_TIMESTAMP", str(START + micros)),
        ("__MONOTONIC_TIMESTAMP", str(9_000_000 + micros)),
        ("_BOOT_ID", boot),
        *fields.items(),
    ]
    return b"".join(field(name, value) for name, value in lines) + b"\n"


def field(name: str, value: str | bytes) -> bytes:
    if isinstance(value, str):
        return f"{name}={value}\n".encode()
    return name.encode() + b"\n" + len(value).to_bytes(8, "little") + value + b"\n"


def kernel(number: int, text: str | bytes = ORPHANS, **more: str) -> bytes:
    fields: dict[str, str | bytes] = {
        "_HOSTNAME": "web1",
        "_TRANSPORT": "kernel",
        "SYSLOG_FACILITY": "0",
        "SYSLOG_IDENTIFIER": "kernel",
        "PRIORITY": "6",
        "_SOURCE_MONOTONIC_TIMESTAMP": str(8_000_000 + number * 1_000_000),
        "MESSAGE": text,
    }
    return entry(number, fields | more)


def ordinary(number: int) -> bytes:
    return entry(number, {"_TRANSPORT": "syslog", "SYSLOG_IDENTIFIER": "sshd", "MESSAGE": f"session {number} opened"})


def of_old(entry: bytes) -> bytes:
    """The same entry of an earlier boot."""
    return entry.replace(BOOT.encode(), b"f" * 32)


def write(file: Path, *entries: bytes) -> None:
    """Append entries to a journal file, as journald would."""
    command = [str(REMOTE), f"--output={file}", "-"]
    subprocess.run(command, input=b"".join(entries), check=True, capture_output=True)


def texts(source: JournalSource) -> list[str]:
    return [record.text for record in source.read()]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "journal").mkdir()
    return tmp_path / "journal"


@pytest.fixture
def reading(directory: Path) -> Iterator[JournalSource]:
    source = JournalSource(str(directory), "beginning")
    yield source
    source.close()


def restarted(directory: Path, cursor: Cursor, start: str = "now") -> tuple[list[LogRecord], JournalSource]:
    source = JournalSource(str(directory), start, cursor)
    records = list(source.read())
    source.close()
    return records, source


# --- what a record is -----------------------------------------------------------------------------------------------


def test_a_kernel_record_is_handed_over_with_all_that_the_journal_knows(directory: Path) -> None:
    write(directory / "system.journal", ordinary(0), kernel(1), ordinary(2))
    source = JournalSource(str(directory), "beginning")

    (record,) = source.read()

    assert record.cursor is not None
    assert record == LogRecord(
        text=ORPHANS,
        line=f"2026-09-21T14:13:21.000000+00:00 web1 kernel: {ORPHANS}",
        source=f"journal:{record.cursor.journal}",
        provenance="kernel",
        ordinal=1,
        at=datetime(2026, 9, 21, 14, 13, 21, tzinfo=timezone.utc),
        uptime=9.0,
        host="web1",
        cursor=record.cursor,
    )
    assert record.cursor == source.position()
    source.close()


def test_the_cursor_in_source_is_one_that_journalctl_takes(directory: Path) -> None:
    write(directory / "system.journal", kernel(1, "one"), kernel(2, "two"))
    source = JournalSource(str(directory), "beginning")
    second = list(source.read())[1]
    source.close()

    command = ["journalctl", f"--directory={directory}", f"--cursor={second.source.removeprefix('journal:')}", "-ocat"]

    assert "two\n" == subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize(
    "fields",
    [
        {"_TRANSPORT": "syslog", "SYSLOG_FACILITY": "0", "SYSLOG_IDENTIFIER": "kernel", "MESSAGE": ORPHANS},
        {"_TRANSPORT": "journal", "SYSLOG_FACILITY": "0", "MESSAGE": ORPHANS},
        {"_TRANSPORT": "stdout", "SYSLOG_FACILITY": "3", "MESSAGE": ORPHANS},
        {"TRANSPORT": "kernel", "SYSLOG_FACILITY": "0", "MESSAGE": ORPHANS},
        # What root writes to /dev/kmsg: journald takes "TCP: " off into the identifier.
        {"_TRANSPORT": "kernel", "SYSLOG_FACILITY": "1", "SYSLOG_IDENTIFIER": "TCP", "MESSAGE": ORPHANS[5:]},
        {"_TRANSPORT": "kernel", "SYSLOG_FACILITY": "1", "MESSAGE": ORPHANS},
        {"_TRANSPORT": "kernel", "MESSAGE": ORPHANS},
    ],
    ids=lambda fields: " ".join(f"{k}={v}" for k, v in fields.items() if k != "MESSAGE"),
)
def test_what_the_kernel_did_not_write_itself_is_never_yielded(directory: Path, fields: dict[str, str | bytes]) -> None:
    write(directory / "system.journal", entry(1, fields), kernel(2, "the kernel's own"))
    source = JournalSource(str(directory), "beginning")

    assert ["the kernel's own"] == texts(source)
    source.close()


def test_a_binary_message_is_text_with_replacement_characters(directory: Path, reading: JournalSource) -> None:
    write(directory / "system.journal", kernel(1, b"\x00\xff\nTCP: two lines"))

    assert ["\x00\ufffd\nTCP: two lines"] == texts(reading)


def test_of_a_message_given_twice_the_first_counts(directory: Path, reading: JournalSource) -> None:
    write(directory / "system.journal", kernel(1, "one")[:-1] + field("MESSAGE", "other") + b"\n")

    assert ["one"] == texts(reading)


def test_a_huge_message_costs_no_more_than_the_bound(directory: Path, reading: JournalSource) -> None:
    write(directory / "system.journal", kernel(1, b"A" * 700_000 + b"\n"), kernel(2))

    huge, after = texts(reading)

    assert len(huge) <= journal_module.FIELD_AT_MOST_BYTES
    assert ORPHANS == after


def test_records_without_a_message_are_counted_as_a_gap(directory: Path, reading: JournalSource) -> None:
    write(directory / "system.journal", *[kernel(n).replace(b"MESSAGE=", b"MASSAGE=") for n in (1, 2)], kernel(3))

    assert [ORPHANS] == texts(reading)
    assert ["2 kernel records could not be read: their file may be damaged"] == [gap.why for gap in reading.gaps()]
    assert () == reading.gaps()


def test_what_cannot_be_read_counts_to_a_batch_too(directory: Path, reading: JournalSource) -> None:
    nothing = [kernel(n).replace(b"MESSAGE=", b"MASSAGE=") for n in range(BATCH + 5)]
    write(directory / "system.journal", *nothing)
    whys = []
    for _ in range(2):
        assert [] == texts(reading)
        whys += [gap.why.partition(" ")[0] for gap in reading.gaps()]
    assert [count_text(BATCH), "5"] == whys


def test_a_batch_of_the_largest_fields_fits_into_a_small_part_of_the_units_memory() -> None:
    # Text, line and event of each, four bytes a character at worst, of MemoryMax=256M.
    assert BATCH * journal_module.FIELD_AT_MOST_BYTES * 3 * 4 <= 100 << 20


def test_stamps_that_are_no_numbers_leave_the_entrys_own(directory: Path, reading: JournalSource) -> None:
    stamps = {"_SOURCE_REALTIME_TIMESTAMP": str(10**30), "_SOURCE_MONOTONIC_TIMESTAMP": "soon"}
    huge = {"_SOURCE_REALTIME_TIMESTAMP": "9" * 4000, "_SOURCE_MONOTONIC_TIMESTAMP": "9" * 4000}
    write(
        directory / "system.journal",
        kernel(1, **stamps),
        entry(2, {"_TRANSPORT": "kernel", "SYSLOG_FACILITY": "0", "MESSAGE": "bare"}),
        kernel(3, **huge),
    )

    absurd, bare, larger = reading.read()

    assert [(None, None)] * 2 == [(each.at, each.uptime) for each in (absurd, larger)]
    assert (bare.at, bare.uptime, bare.host) == (datetime(2026, 9, 21, 14, 13, 22, tzinfo=timezone.utc), 11.0, None)


# --- where reading starts and goes on -------------------------------------------------------------------------------


def test_start_now_is_silent_about_what_is_there_already(directory: Path) -> None:
    write(directory / "system.journal", kernel(1, "old"), ordinary(2))
    source = JournalSource(str(directory), "now")
    before = texts(source)
    write(directory / "system.journal", ordinary(3), kernel(4, "new"))

    assert ([], ["new"], []) == (before, texts(source), texts(source))
    source.close()


def test_start_now_in_an_empty_journal_misses_nothing(directory: Path) -> None:
    source = JournalSource(str(directory), "now")
    assert [] == texts(source)
    write(directory / "system.journal", kernel(1, "first"))
    source.wait(1.0)

    assert ["first"] == texts(source)
    source.close()


def test_a_batch_is_bounded_and_wait_does_not_delay_the_next(directory: Path, reading: JournalSource) -> None:
    write(directory / "system.journal", *(kernel(n, str(n)) for n in range(BATCH + 5)))
    first = texts(reading)
    waits = []
    reading._reader, reader = type("Spy", (), {"wait": lambda _, s: waits.append(s)})(), reading._reader
    reading.wait(1.0)
    reading._reader = reader

    assert [0.0] == waits
    assert [str(n) for n in range(BATCH + 5)] == first + texts(reading)


def test_wait_never_takes_longer_than_a_second(reading: JournalSource) -> None:
    waits = []
    reading.close()
    reading._reader = type("Spy", (), {"wait": lambda _, s: waits.append(s), "close": lambda _: None})()
    reading.wait(30.0)

    assert [1.0] == waits


def test_a_restart_goes_on_behind_each_record_in_turn(directory: Path, reading: JournalSource) -> None:
    write(directory / "system.journal", *(kernel(n, str(n)) if n % 3 else ordinary(n) for n in range(12)))
    records = list(reading.read())

    for number, record in enumerate(records):
        assert record.cursor is not None
        rest, source = restarted(directory, record.cursor)
        assert [later.text for later in records[number + 1 :]] == [record.text for record in rest]
        assert () == source.gaps()


def test_the_position_moves_on_although_nothing_matches(directory: Path, reading: JournalSource) -> None:
    write(directory / "system.journal", kernel(1, "old"), *(ordinary(n) for n in range(2, 9)))
    texts(reading)
    at_the_record = reading.position()
    texts(reading)

    assert reading.position() != at_the_record
    write(directory / "system.journal", kernel(10, "new"))
    records, source = restarted(directory, reading.position())
    assert (["new"], ()) == ([r.text for r in records], source.gaps())


def test_a_record_that_comes_while_a_batch_is_read_is_not_passed_over(directory: Path, reading: JournalSource) -> None:
    write(directory / "system.journal", kernel(1, "one"))
    batch = reading.read()
    seen = [next(batch).text]
    write(directory / "system.journal", ordinary(2), kernel(3, "two"), ordinary(4))
    seen += [record.text for record in batch]

    assert ["one", "two"] == seen + texts(reading)


def test_a_batch_given_up_halfway_is_gone_on_with(directory: Path, reading: JournalSource) -> None:
    write(directory / "system.journal", kernel(1, "one"), kernel(2, "two"))
    batch = reading.read()
    next(batch)
    batch.close()

    assert ["two"] == texts(reading)


# --- rotation, vacuum, damage ---------------------------------------------------------------------------------------


def archive(file: Path) -> Path:
    """Give a journal file the name of a rotated one, as journald does: NAME@SEQNUM_ID-SEQNUM-REALTIME.journal."""
    header = subprocess.run(["journalctl", f"--file={file}", "--header"], check=True, capture_output=True, text=True)
    seqnum_id = next(line.split()[-1] for line in header.stdout.splitlines() if line.startswith("Sequential number ID"))
    number = len(list(file.parent.iterdir()))
    return file.rename(file.with_name(f"{file.stem}@{seqnum_id}-{number:016x}-{number:016x}.journal"))


def vacuum(directory: Path) -> None:
    command = ["journalctl", f"--directory={directory}", "--vacuum-files=1", "--quiet"]
    subprocess.run(command, check=True, capture_output=True)


def test_rotation_loses_and_repeats_nothing(directory: Path, reading: JournalSource) -> None:
    seen = []
    for turn in range(6):
        write(directory / "system.journal", ordinary(turn * 10), kernel(turn * 10 + 1, f"{turn} read"))
        seen += texts(reading)
        write(directory / "system.journal", kernel(turn * 10 + 2, f"{turn} unread"))
        archive(directory / "system.journal")

    assert [f"{turn} {how}" for turn in range(6) for how in ("read", "unread")] == seen + texts(reading)
    assert () == reading.gaps()


def test_a_rotation_while_the_files_are_looked_through_damages_none(
    directory: Path, reading: JournalSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = journal_files.unread
    active = directory / "system.journal"

    def rotate_and_look(where: str) -> object:
        archive(active)
        write(active, kernel(2, "2"))
        return look(where)

    write(active, kernel(1, "1"))
    with monkeypatch.context() as patched:
        patched.setattr(journal_files, "unread", rotate_and_look)
        seen = texts(reading) + texts(reading)

    assert ["1", "2"] == seen + texts(reading)
    assert () == reading.gaps()


def test_vacuuming_what_is_being_read_is_a_gap(directory: Path, reading: JournalSource) -> None:
    write(directory / "system.journal", kernel(0, "0"))
    seen = texts(reading)
    write(directory / "system.journal", *(kernel(n, str(n)) for n in range(1, 400)))
    archive(directory / "system.journal")
    write(directory / "system.journal", kernel(400, "400"))
    for number, record in enumerate(reading.read()):
        seen.append(record.text)
        if number == 10:
            vacuum(directory)
    seen += texts(reading)

    assert "400" == seen[-1]
    assert len(seen) < 401
    assert ["records may be lost"] == [gap.why.partition(":")[0] for gap in reading.gaps()]


def test_vacuuming_what_was_read_is_no_gap(directory: Path, reading: JournalSource) -> None:
    for number in range(3):
        write(directory / "system.journal", kernel(number, str(number)))
        archive(directory / "system.journal")
    write(directory / "system.journal", kernel(7, "7"))
    seen = texts(reading)
    vacuum(directory)

    assert ["0", "1", "2", "7"] == seen + texts(reading)
    assert 1 == len(list(directory.iterdir()))
    assert () == reading.gaps()


def test_a_cursor_vacuumed_away_is_a_gap_told_once_and_reading_goes_on(directory: Path, reading: JournalSource) -> None:
    write(directory / "system.journal", of_old(kernel(1, "read")))
    texts(reading)
    for number in (2, 3):
        write(directory / "system.journal", of_old(kernel(number, f"vacuumed {number}")))
        archive(directory / "system.journal")
    write(directory / "system.journal", of_old(kernel(4, "kept")))
    for file in directory.glob("*@*"):
        file.unlink()

    write(directory / "system.journal", kernel(5, "of this boot"))

    records, source = restarted(directory, reading.position())

    assert ["kept", "of this boot"] == [record.text for record in records]
    (gap,) = source.gaps()
    assert "no longer in it" in gap.why
    assert () == source.gaps()


@pytest.mark.parametrize("second", [10, -8], ids=["the clock goes on", "the clock goes back"])
@pytest.mark.parametrize("sent_before", [0, 1, 5])
def test_what_a_power_cut_took_of_the_journal_hides_nothing_of_the_next_boot(
    directory: Path, reading: JournalSource, sent_before: int, second: int
) -> None:
    file = directory / "system.journal"
    write(file, of_old(kernel(1, "kept")))
    flushed = file.read_bytes()
    write(file, of_old(kernel(2, "taken")), of_old(kernel(3, "taken, too")))
    seen = texts(reading)
    file.write_bytes(flushed)
    later = [kernel(second + n, f"later {n}") for n in range(6)]
    write(file, *later[:sent_before])

    records, source = restarted(directory, reading.position())
    seen += [record.text for record in records]
    write(file, *later[sent_before:])
    records, _ = restarted(directory, source.position())

    assert ["kept", "taken", "taken, too"] == seen[:3]
    assert [f"later {n}" for n in range(6)] == seen[3:] + [record.text for record in records]
    assert [True] == ["records may be lost" in gap.why for gap in source.gaps()]


@pytest.fixture
def clock_behind(directory: Path) -> list[str]:
    """The journal after an unclean shutdown: this boot has a file with numbers of its own, and its clock began behind.

    The texts are in the order in which the kernel said them.
    """
    write(directory / "system.journal", *[of_old(kernel(n, f"old {n}")) for n in (1, 2, 3)])
    (directory / "system.journal").rename(directory / "system@00000000000000000000000000000000-01.journal~")
    write(directory / "system.journal", *[kernel(n - 8, f"behind {n}") for n in range(3)])
    write(directory / "system.journal", ordinary(-5), kernel(60, "set right"))
    return ["old 1", "old 2", "old 3", "behind 0", "behind 1", "behind 2", "set right"]


def test_a_boot_whose_clock_is_behind_is_read_behind_the_boot_before_from_wherever_it_is_resumed(
    directory: Path, clock_behind: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = JournalSource(str(directory), "beginning")
    records = list(source.read())
    assert clock_behind == [record.text for record in records]
    monkeypatch.setattr(journal_module, "BATCH", 2)
    for number, record in enumerate(records, start=1):
        again = JournalSource(str(directory), "now", record.cursor)
        assert clock_behind[number:] == [text for _ in range(5) for text in texts(again)]
        assert () == again.gaps()
        again.close()
    source.close()


@pytest.mark.usefixtures("clock_behind")
def test_start_now_is_the_end_of_this_boot_though_its_clock_is_behind(directory: Path) -> None:
    (directory / "system.journal").unlink()
    write(directory / "system.journal", kernel(-8, "before the start"))
    source = JournalSource(str(directory), "now")
    write(directory / "system.journal", kernel(-7, "behind"))

    assert ["behind"] == texts(source)
    source.close()


@pytest.mark.usefixtures("clock_behind")
def test_a_boot_without_a_kernel_record_takes_the_position_along(directory: Path) -> None:
    (directory / "system.journal").unlink()
    write(directory / "system.journal", ordinary(-8))
    source = JournalSource(str(directory), "beginning")
    seen = texts(source)
    seen += texts(source)

    assert ["old 1", "old 2", "old 3"] == seen
    assert f"b={BOOT};" in (source.position().journal or "")
    source.close()


def test_files_removed_while_following_are_a_gap_when_the_place_went_with_them(
    directory: Path, reading: JournalSource
) -> None:
    write(directory / "system.journal", kernel(1, "read"))
    seen = texts(reading)
    (directory / "system.journal").unlink()
    reading.wait(1.0)
    seen += texts(reading)
    assert [gap.why for gap in reading.gaps()] == [f"{directory}: no journal file yet; waiting for one"]
    assert [f"the journal: {directory}: no journal file yet; waiting for one"] == reading.troubles()
    write(directory / "system.journal", kernel(5, "new"))
    reading.wait(1.0)

    assert ["read", "new"] == seen + texts(reading) + texts(reading)
    assert [] == reading.troubles()
    assert [True] == ["no longer in it" in gap.why for gap in reading.gaps()]


@pytest.mark.parametrize("read_before", [1, 2])
@pytest.mark.parametrize("restarts", [False, True])
def test_an_entry_that_is_copied_to_another_file_is_not_read_again(
    directory: Path, reading: JournalSource, *, read_before: int, restarts: bool
) -> None:
    """As `journalctl --flush` does."""
    said = [kernel(n, f"at {n}") for n in range(1, 5)]
    write(directory / "system.journal", *said[:read_before])
    assert read_before == len(texts(reading))
    (directory / "system.journal").unlink()
    write(directory / "flushed.journal", ordinary(0), *said)
    reading.wait(0)
    source = JournalSource(str(directory), "now", reading.position()) if restarts else reading

    assert ["at 1", "at 2", "at 3", "at 4"][read_before:] == texts(source)
    assert () == source.gaps()
    source.close()


def test_a_place_that_went_is_no_gap_when_the_very_next_entry_is_there() -> None:
    place = "s=" + "a" * 32 + ";i=%x;b=0;m=0;t=0;x=0"

    assert journal_module.is_next(place % 0x15C, place % 0x15D)
    assert not journal_module.is_next(place % 0x15C, place % 0x15E)
    assert not journal_module.is_next(place % 0x15C, (place % 0x15D).replace("aa;", "ab;"))
    assert not journal_module.is_next("elsewhere", "elsewhere")


def test_an_entry_is_older_by_its_number_in_one_sequence_and_not_by_another() -> None:
    place = "s=aa;i=%x;b=bb;m=1;t=2;x=3".replace("aa", "a" * 32)

    assert journal_module.goes_back(place % 0x15C, place % 0x9)
    assert not journal_module.goes_back(place % 0x15C, place % 0x15C)
    assert not journal_module.goes_back(place % 0x15C, place % 0x15D)
    assert not journal_module.goes_back(place % 0x15C, (place % 0x9).replace("aa;", "ab;"))


def test_a_cursor_of_another_machine_goes_on_at_its_time_and_with_all_of_this_boot(directory: Path) -> None:
    write(directory / "system.journal", of_old(kernel(1, "before")), of_old(kernel(20, "after")))
    archive(directory / "system.journal")
    write(directory / "system.journal", kernel(2, "this boot"))
    foreign = f"s={'9' * 32};i=5;b={'8' * 32};m=1;t={START + 10_000_000:x};x=1"

    records, source = restarted(directory, Cursor(journal=foreign))

    assert ["after", "this boot"] == [record.text for record in records]
    assert "another machine" in source.gaps()[0].why


def test_a_cursor_from_the_future_does_not_deafen(directory: Path) -> None:
    write(directory / "system.journal", of_old(kernel(1, "before")))
    foreign = f"s={'9' * 32};i=5;b={'8' * 32};m=1;t={START * 2:x};x=1"
    source = JournalSource(str(directory), "now", Cursor(journal=foreign))
    before = texts(source)
    write(directory / "system.journal", kernel(3, "new"))

    assert ([], ["new"]) == (before, texts(source))
    source.close()


@pytest.mark.parametrize(("start", "expected"), [("now", []), ("beginning", [ORPHANS])])
def test_a_position_that_is_no_cursor_falls_back_to_start(directory: Path, start: str, expected: list[str]) -> None:
    write(directory / "system.journal", kernel(1))

    records, source = restarted(directory, Cursor(journal="somewhere"), start)

    assert expected == [record.text for record in records]
    assert [f"the saved position is no journal cursor: reading from {start}"] == [gap.why for gap in source.gaps()]


def test_a_directory_that_comes_later_is_read_from_its_beginning(tmp_path: Path) -> None:
    source = JournalSource(str(tmp_path / "later"), "now")
    before = texts(source)
    (gap,) = source.gaps()
    assert [f"{gap.what}: {gap.why}"] == source.troubles()
    (tmp_path / "later").mkdir()
    write(tmp_path / "later" / "system.journal", kernel(1))

    assert ([], [ORPHANS]) == (before, texts(source))
    assert [] == source.troubles()
    assert f"{tmp_path}/later: no such directory yet" in gap.why
    assert () == source.gaps()
    source.close()


def test_a_directory_that_comes_while_the_agent_is_away_is_read_from_its_beginning(tmp_path: Path) -> None:
    before, source = restarted(tmp_path / "later", Cursor())
    (tmp_path / "later").mkdir()
    write(tmp_path / "later" / "system.journal", kernel(1))
    after, again = restarted(tmp_path / "later", source.position())

    assert ([], [ORPHANS]) == (before, [record.text for record in after])
    assert () == again.gaps()
    assert NOTHING_YET not in (again.position().journal, None)


def test_a_journal_that_was_empty_is_read_from_its_beginning_after_restarts(directory: Path) -> None:
    _, source = restarted(directory, Cursor())
    _, source = restarted(directory, source.position())
    write(directory / "system.journal", kernel(1))
    after, _ = restarted(directory, source.position())

    assert [ORPHANS] == [record.text for record in after]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_what_was_closed_to_us_does_not_become_new_by_a_restart(directory: Path) -> None:
    write(directory / "system.journal", kernel(1))
    for place in (directory, *directory.parents[:3]):
        place.chmod(0o755)
    (directory / "system.journal").chmod(0o600)
    os.seteuid(65534)
    try:
        closed, source = restarted(directory, Cursor())
    finally:
        os.seteuid(0)
    after, _ = restarted(directory, source.position())

    assert ([], []) == (closed, after)


def test_a_directory_removed_and_made_again_is_followed(directory: Path, reading: JournalSource) -> None:
    write(directory / "system.journal", kernel(1, "old"))
    seen = texts(reading)
    shutil.rmtree(directory)
    seen += texts(reading)
    directory.mkdir()
    write(directory / "system.journal", kernel(2, "new"))

    assert ["old", "new"] == seen + texts(reading)


def test_files_in_a_machines_own_folder_are_found(directory: Path, reading: JournalSource) -> None:
    (directory / ("c" * 32)).mkdir()
    write(directory / ("c" * 32) / "system.journal", kernel(1))

    assert [ORPHANS] == texts(reading)


# A file may be just being made: one more look is needed.
@pytest.mark.parametrize("damage", ["header", "truncated", "middle", "emptied"])
def test_a_damaged_file_is_a_gap_and_the_others_are_read(directory: Path, damage: str) -> None:
    bad, good = directory / "system@bad.journal", directory / "system.journal"
    write(bad, *(kernel(n, f"bad {n}") for n in range(300)))
    write(good, kernel(400, "good"))
    size = bad.stat().st_size
    with bad.open("r+b") as file:
        if damage == "header":
            file.write(b"not a journal file")
        elif damage == "middle":
            data = file.read()
            file.seek(data.index(b"MESSAGE=bad 20"))
            file.write(b"\0" * 40_000)
        else:
            file.truncate(0 if damage == "emptied" else size // 2)
    source = JournalSource(str(directory), "beginning")

    seen = [text for _ in range(3) for text in texts(source)]

    assert "good" == seen[-1]
    assert str(bad) in [gap.what for gap in source.gaps()]
    source.close()


def of_300(directory: Path) -> tuple[Path, bytes]:
    """Write 300 entries, and 100 more aside: return the file that is there, and all of what it will be."""
    file = directory / "system.journal"
    write(file, *(kernel(n, str(n)) if n % 3 else ordinary(n) for n in range(300)))
    (directory / "more").mkdir()
    more = directory / "more" / "system.journal"
    shutil.copy(file, more)
    write(more, *(kernel(n, str(n)) if n % 3 else ordinary(n) for n in range(300, 400)))
    return file, more.read_bytes()


def end_of_content(journal: bytes) -> int:
    """Return where the newest object of a journal file begins: struct Header, systemd's journal-def.h."""
    return int.from_bytes(journal[136:144], "little")


def overwrite(file: Path, journal: bytes) -> None:
    """Put other bytes into the file that a reader has open."""
    with file.open("r+b") as opened:
        opened.write(journal)


def test_an_end_that_is_damaged_makes_nothing_that_was_read_new_again(directory: Path) -> None:
    file, whole = of_300(directory)
    overwrite(file, whole)
    source = JournalSource(str(directory), "beginning")
    seen = texts(source)
    end = end_of_content(whole)
    overwrite(file, whole[: end - 37_000] + bytes(37_000) + whole[end:])
    for _ in range(3):
        seen += texts(source)
    place = source.position()
    source.close()
    overwrite(file, whole)  # The disk has had a bad moment.
    again, _ = restarted(directory, place)

    assert 266 == len(seen) == len(set(seen))
    assert [] == again


@pytest.mark.parametrize("before_the_end", [36_632, 53_639, 63_686])
def test_damage_to_what_is_being_read_ends_no_process(directory: Path, before_the_end: int) -> None:
    file, whole = of_300(directory)
    place = end_of_content(whole) - before_the_end
    damaged = whole[:place] + bytes(65_536) + whole[place + 65_536 :]
    child = os.fork()
    if child == 0:  # libsystemd's assertions abort.
        source = JournalSource(str(directory), "beginning")
        texts(source)
        overwrite(file, damaged)
        for _ in range(5):
            texts(source)
            source.wait(0.0)
        os._exit(0)

    assert 0 == os.waitpid(child, 0)[1]


@pytest.mark.parametrize("left", [0, 4096, 50_000])
def test_a_file_cut_while_it_is_read_is_a_gap_and_the_others_are_read(directory: Path, left: int) -> None:
    cut, good = directory / "system@cut.journal", directory / "system.journal"
    write(cut, *(kernel(n, f"cut {n}") for n in range(300)))
    write(good, kernel(400, "good"))

    seen, gaps = apart(partial(follow_through, directory, partial(os.truncate, cut, left)))

    assert ["cut 0", "good"] == [seen[0], seen[-1]]
    assert {str(cut)} == set(gaps)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_a_file_with_a_hole_on_a_full_tmpfs_is_a_gap_and_the_others_are_read(directory: Path) -> None:
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", directory], check=False)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        bad, good = directory / "system@bad.journal", directory / "system.journal"
        write(bad, *(kernel(n, f"bad {n}") for n in range(300)))
        write(good, kernel(400, "good"))

        seen, gaps = apart(partial(follow_through, directory, partial(empty_on_full_disk, bad)))
    finally:
        subprocess.run(["umount", directory], check=True)

    assert ["bad 0", "good"] == [seen[0], seen[-1]]
    assert {str(bad)} == set(gaps)


def empty_on_full_disk(file: Path) -> None:
    """Take the content out of a journal file, as journald does, and let its file system be full."""
    subprocess.run(["fallocate", "--punch-hole", "--length=8MiB", file], check=True)
    fill_disk(file.parent)


def follow_through(directory: Path, change: Callable[[], None]) -> tuple[list[str], list[str]]:
    """Follow a journal that changes within the first batch: return the texts seen, and what has gaps."""
    source = JournalSource(str(directory), "beginning")
    batch = source.read()
    seen = [next(batch).text]
    change()
    seen += [record.text for record in batch]
    for _ in range(3):
        seen += texts(source)
    return seen, [gap.what for gap in source.gaps()]


def apart(call: Callable[[], Any]) -> Any:
    """Call it in a process of its own, which a signal may end, and return its answer."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
        return pool.submit(call).result()


def test_intact_files_are_no_gap(directory: Path, reading: JournalSource) -> None:
    write(directory / "system.journal", kernel(1))
    for _ in range(4):
        texts(reading)
        reading.wait(0.0)

    assert () == reading.gaps()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("closed", ["system.journal", "."])
def test_what_is_closed_to_us_is_a_gap_that_names_the_group(directory: Path, closed: str) -> None:
    machine = directory / ("c" * 32)
    machine.mkdir()
    write(machine / "system.journal", kernel(1))
    for place in (machine, directory, *directory.parents[:3]):
        place.chmod(0o755)
    (machine / "system.journal").chmod(0o644)
    (machine / closed).chmod(0o600)
    os.seteuid(65534)
    try:
        source = JournalSource(str(directory), "beginning")
        seen = texts(source) + texts(source)
        gaps = source.gaps()
        source.close()
    finally:
        os.seteuid(0)

    assert [] == seen
    assert [(gap.what, gap.why) for gap in gaps] == [
        (str(machine / closed), "permission denied: add this user to the group systemd-journal")
    ]


def test_a_reader_that_fails_is_opened_anew(directory: Path, reading: JournalSource) -> None:
    write(directory / "system.journal", kernel(1))
    reader = reading._reader
    reading._reader = type("Failing", (), {"process": failing, "close": lambda _: reader.close()})()
    before = texts(reading)

    assert ([], [ORPHANS]) == (before, texts(reading))
    assert "reading failed (Bad message)" in reading.gaps()[0].why


def failing(_: object) -> int:
    raise OSError(74, "Bad message")


def test_a_host_without_a_journal_is_a_gap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module.journal_files, "HOST_ROOTS", (tmp_path / "run", tmp_path / "var"))
    source = JournalSource()

    assert [] == texts(source)
    assert [f"{tmp_path}/run and {tmp_path}/var: no such directory yet; waiting for it (journald.conf: Storage=)"] == [
        gap.why for gap in source.gaps()
    ]
    source.close()


class Unwatched(journal_module.Reader):
    """A reader for a user who has no instance of inotify left, which libsystemd needs for nothing but waiting."""

    def fileno(self) -> int:
        raise OSError(24, "Too many open files")

    def process(self) -> int:
        raise AssertionError

    def wait(self, timeout: float) -> int:
        raise AssertionError


def test_a_journal_that_cannot_be_watched_is_read_all_the_same(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "Reader", Unwatched)
    write(directory / "system.journal", kernel(1, "TCP: first"))
    source = JournalSource(str(directory), "beginning")
    read = texts(source)
    source.wait(0.01)
    (directory / "system.journal").rename(directory / "system@old.journal")
    write(directory / "system.journal", ordinary(2), kernel(3, "TCP: second"))

    assert ["TCP: first", "TCP: second"] == read + texts(source)
    why = "the journal cannot be watched (Too many open files); checking once a second instead"
    assert [("inotify", why)] == [(gap.what, gap.why) for gap in source.gaps()]
    assert ([], ()) == (texts(source), source.gaps())
    source.close()


# --- what journald could not read -----------------------------------------------------------------------------------


def missed(number: int, **more: str) -> bytes:
    fields: dict[str, str | bytes] = {
        "_TRANSPORT": "driver",
        "SYSLOG_IDENTIFIER": "systemd-journald",
        "MESSAGE_ID": "e9bf28e6e834481bb6f48f548ad13606",
        "MESSAGE": "Missed 5400 kernel messages",
    }
    return entry(number, fields | more)


@pytest.mark.parametrize("old", [False, True], ids=["this boot", "an earlier one"])
def test_records_that_journald_missed_are_a_gap_told_once(directory: Path, *, old: bool) -> None:
    entries = kernel(1, "before"), missed(2), kernel(3, "after")
    write(directory / "system.journal", *(map(of_old, entries) if old else entries))
    records, source = restarted(directory, Cursor(), "beginning")
    first, last = records

    assert ["before", "after"] == [first.text, last.text]
    assert 1 < last.ordinal - first.ordinal
    lost = "kernel records are lost: journald says 'Missed 5400 kernel messages' at 2026-09-21 14:13:22 UTC"
    assert [("the journal", lost)] == [(gap.what, gap.why) for gap in source.gaps()]
    for place, gaps in ((first.cursor, 1), (last.cursor, 0), (source.position(), 0)):
        _, again = restarted(directory, place or Cursor())
        assert gaps == len(again.gaps())


def test_what_any_program_says_that_journald_missed_is_none(directory: Path, reading: JournalSource) -> None:
    write(directory / "system.journal", missed(1, _TRANSPORT="journal"), kernel(2))

    assert [ORPHANS] == texts(reading)
    assert () == reading.gaps()


def test_who_only_reads_what_is_there_hears_nothing_of_what_is_not(directory: Path) -> None:
    write(directory / "system.journal", missed(1), kernel(2))
    source = JournalSource(str(directory), "beginning", follows=False)

    assert [ORPHANS] == texts(source)
    assert () == source.gaps()
    source.close()


# --- a log server's directory ---------------------------------------------------------------------------------------


def of_machine(letter: str, *entries: bytes) -> list[bytes]:
    """The same entries of another machine."""
    ids = f"_BOOT_ID={letter * 32}\n_MACHINE_ID={letter * 32}\n_HOSTNAME=host-{letter}\n"
    return [
        each.replace(f"_BOOT_ID={BOOT}\n".encode(), ids.encode()).replace(b"_HOSTNAME=web1\n", b"") for each in entries
    ]


def upload(directory: Path, letter: str, *entries: bytes) -> None:
    """Append to what systemd-journal-remote keeps of a machine."""
    write(directory / f"remote-host-{letter}.journal", *of_machine(letter, *entries))


def said(number: int) -> bytes:
    return kernel(number, f"at {number}")


def restart(directory: Path, source: JournalSource) -> JournalSource:
    source.close()
    return JournalSource(str(directory), "now", source.position())


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("behind", [0, 2, 3600], ids=["same clock", "clock behind", "sent late"])
def test_what_one_machine_says_hides_nothing_of_another(directory: Path, behind: int, *, restarts: bool) -> None:
    upload(directory, "a", said(5000))
    upload(directory, "b", said(5000 - behind))
    source = JournalSource(str(directory), "beginning")
    seen = [texts(source)]
    for number in range(5001, 5005):
        source = restart(directory, source) if restarts else source
        upload(directory, "a", ordinary(number))
        seen.append(texts(source))
        upload(directory, "b", said(number - behind))
        seen.append(texts(source))

    assert sorted([f"at {5000 - behind}", "at 5000"]) == sorted(seen[0])
    assert [line for n in range(5001, 5005) for line in ([], [f"at {n - behind}"])] == seen[1:]
    assert () == source.gaps()
    source.close()


def test_start_now_is_the_end_of_each_machine_by_itself(directory: Path) -> None:
    upload(directory, "a", said(1))
    upload(directory, "b", said(5000))
    source = JournalSource(str(directory), "now")
    assert source.position() == restart(directory, source).position()
    upload(directory, "a", said(2))
    upload(directory, "b", said(5001))

    assert ["at 2", "at 5001"] == texts(source)
    assert [] == texts(source)
    source.close()


def test_every_record_of_several_machines_is_where_a_restart_goes_on(directory: Path) -> None:
    for number in range(3):
        for letter in "abc":
            upload(directory, letter, said(10 * number + ord(letter)))
    source = JournalSource(str(directory), "beginning")
    records = list(source.read())
    source.close()

    assert 9 == len({record.text for record in records})
    for number, record in enumerate(records, start=1):
        again, reopened = restarted(directory, record.cursor or Cursor())
        assert records[number:] == [replace(each, ordinal=records[number].ordinal + n) for n, each in enumerate(again)]
        assert () == reopened.gaps()


@pytest.mark.parametrize("restarts", [False, True])
def test_a_machine_that_comes_later_is_read_from_its_beginning(directory: Path, *, restarts: bool) -> None:
    upload(directory, "a", said(5000))
    upload(directory, "b", said(5000))
    source = JournalSource(str(directory), "now")
    assert [] == texts(source)
    source = restart(directory, source) if restarts else source
    upload(directory, "c", said(1))

    assert ["at 1"] == texts(source)
    assert [] == texts(restart(directory, source))


def test_a_second_machine_is_read_from_its_beginning_and_the_first_is_gone_on_with(
    directory: Path, reading: JournalSource
) -> None:
    upload(directory, "a", said(5000))
    assert ["at 5000"] == texts(reading)
    upload(directory, "b", said(1))
    upload(directory, "a", said(5001))

    assert ["at 1", "at 5001"] == sorted(texts(reading))
    assert [] == texts(reading)


def test_the_position_of_an_older_release_is_that_of_every_machine_there(directory: Path) -> None:
    upload(directory, "a", said(5000))
    upload(directory, "b", said(1))
    source = JournalSource(str(directory), "now")
    old = Cursor(journal=source.position().journal)
    source.close()
    upload(directory, "b", said(6000))
    source = JournalSource(str(directory), "now", old)

    assert ["at 6000"] == texts(source)
    upload(directory, "b", said(2))
    assert ["at 2"] == texts(source)
    assert () == source.gaps()
    source.close()


def test_a_machine_whose_files_were_removed_and_that_is_back_is_gone_on_with(
    directory: Path, reading: JournalSource
) -> None:
    upload(directory, "a", said(1))
    upload(directory, "b", said(1))
    assert 2 == len(texts(reading))
    (directory / "remote-host-b.journal").rename(directory.parent / "elsewhere")
    reading.wait(0)
    upload(directory, "a", said(2))
    assert ["at 2"] == texts(reading)
    (directory.parent / "elsewhere").rename(directory / "remote-host-b.journal")
    upload(directory, "b", said(3))

    assert ["at 3"] == texts(reading)


def test_where_this_hosts_own_journal_comes_nothing_is_read_again(directory: Path, reading: JournalSource) -> None:
    upload(directory, "a", said(1))
    upload(directory, "b", said(2))
    assert ["at 1", "at 2"] == texts(reading)
    assert [] == texts(reading)
    write(directory / "system.journal", said(0))

    assert ["at 0"] == texts(reading)
    assert [] == texts(reading)
    assert {} == reading.position().machines


def test_a_machines_place_that_is_no_cursor_is_told_and_the_common_one_counts(directory: Path) -> None:
    upload(directory, "a", said(1))
    upload(directory, "b", said(2))
    source = JournalSource(str(directory), "now")
    common = source.position().journal
    source.close()
    records, again = restarted(directory, Cursor(journal=common, machines={"a" * 32: "somewhere"}))

    assert [] == records
    assert ["the saved position is no journal cursor: reading from now"] == [gap.why for gap in again.gaps()]


def test_more_machines_than_can_be_told_apart_are_a_gap(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "MACHINES_AT_MOST", 1)
    upload(directory, "a", said(1))
    upload(directory, "b", said(2))
    source = JournalSource(str(directory), "beginning")

    assert ["at 1", "at 2"] == texts(source)
    assert [True] == ["more than 1 machines" in gap.why for gap in source.gaps()]
    source.close()


def test_who_only_reads_what_is_there_gets_each_machines_lines_in_their_order(directory: Path) -> None:
    """libsystemd 252 goes by the time alone, 257 by the boots first."""
    for number in range(1, 7):
        upload(directory, "ab"[number % 2], said(number))
    source = JournalSource(str(directory), "beginning", follows=False)

    seen = texts(source)
    for first in (1, 2):
        its = [f"at {number}" for number in range(first, 7, 2)]
        assert its == [text for text in seen if text in its]
    assert 6 == len(seen)
    source.close()


# --- the real journald ----------------------------------------------------------------------------------------------

JOURNALD = Path("/lib/systemd/systemd-journald")
PRIVATE = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]
REAL = r"""
import json, os, pathlib, subprocess, sys, time

def sh(*command, **more):
    return subprocess.run(command, check=True, capture_output=True, text=True, **more).stdout

sh("mount", "--make-rprivate", "/")
for place in ("/run", "/var/log"):
    sh("mount", "-t", "tmpfs", "tmpfs", place)
os.makedirs("/run/systemd/journal")
if not pathlib.Path("/etc/machine-id").exists() or not pathlib.Path("/etc/machine-id").read_text().strip():
    sys.exit("no machine-id")
journald = subprocess.Popen([sys.argv[1]], stderr=subprocess.DEVNULL)

def until(done):
    deadline = time.monotonic() + 20
    while not done():
        assert time.monotonic() < deadline, "journald did not get there in time"
        time.sleep(0.02)

from systemd.journal import send

def log(text):
    send(text, SYSLOG_IDENTIFIER="real")
    until(lambda: text in sh("journalctl", "-q", "-t", "real", "-o", "cat"))

until(lambda: pathlib.Path("/run/systemd/journal/socket").exists())
log("ready")
from agent.sources.journal import JournalSource
source = JournalSource(start="beginning")
texts = []
def drain():
    while batch := [r.text for r in source.read()]:
        texts.extend(batch)
drain()
first = source.position()
# The kernel may say so itself meanwhile, because of another test.
pathlib.Path("/dev/kmsg").write_text("<6>TCP: too many orphaned sockets, says a user\n")
for turn in range(3):
    log(f"before {turn}")
    drain()
    sh("journalctl", "--rotate")
    if turn == 1:
        sh("journalctl", "--vacuum-files=1")
    log(f"after {turn}")
    source.wait(1.0)
    drain()
print(json.dumps({
    "texts": texts, "gaps": [g.why for g in source.gaps()], "moved": source.position() != first,
}))
journald.terminate()
"""


def real_journald() -> bool:
    """Root, namespaces, a journald and a kernel ring that can be read are not everywhere."""
    try:
        ring = os.open("/dev/kmsg", os.O_RDWR | os.O_NONBLOCK)
        os.close(ring)
        machine = Path("/etc/machine-id").read_text().strip()
        private = subprocess.run([*PRIVATE, "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False
    return bool(machine) and JOURNALD.exists() and private


def in_the_ring() -> list[LogRecord]:
    """The kernel's lines now. A full ring drops its oldest for each new one, journald's own among them."""
    ring = KmsgSource(start="beginning")
    records = [record for _ in range(100) for record in ring.read()]
    ring.close()
    return records


@pytest.mark.skipif(not real_journald(), reason="journald cannot be run in namespaces of its own here (needs root)")
def test_the_real_journald_is_followed_through_rotation_and_vacuum_without_loss() -> None:
    before = in_the_ring()

    done = subprocess.run(
        [*PRIVATE, sys.executable, "-c", REAL, str(JOURNALD)], capture_output=True, text=True, check=False, timeout=60
    )

    assert 0 == done.returncode, done.stderr
    found = json.loads(done.stdout)
    numbers = {record.source for record in in_the_ring()}
    kept = [record.text for record in before if record.source in numbers]
    pushed_out, texts = len(before) - len(kept), found["texts"]
    starts = [n for n in range(pushed_out + 1) if texts[n : n + len(kept)] == kept]
    if not kept:
        pytest.skip("user space has filled the kernel's ring: nothing of the kernel's own is in it")
    assert starts, "the journal holds what the kernel's ring holds"
    assert "too many orphaned sockets, says a user" not in "\n".join(texts[starts[0] + len(kept) :])
    assert ([], True) == (found["gaps"], found["moved"])
