import bz2
import gzip
import lzma
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from agent.core.cursor import FileCursor
from agent.sources.file.content import Content
from agent.sources.file.reader import Reader
from agent.sources.file.rotated import KnownOlder, list_family, list_younger, locate

LINES = "".join(f"line {number}\n" for number in range(200)).encode()
SECOND = 1_000_000_000


def make(directory: Path, *names: str) -> None:
    """Make files, each written a second after the one before."""
    for number, name in enumerate(names):
        (directory / name).write_text(name)
        os.utime(directory / name, ns=(0, (1000 + number) * SECOND))


def nothing() -> None:
    """Hear of no progress."""


def place_in(path: Path, offset: int) -> FileCursor:
    content = Content(str(path))
    try:
        return Reader(content, offset).place()
    finally:
        content.close()


def names(path: Path) -> list[str]:
    return [Path(file.path).name for file in list_family(str(path))]


def found(path: Path, place: FileCursor) -> str | None:
    file = locate(str(path), place, nothing)
    return Path(file.path).name if file else None


@pytest.mark.parametrize(
    ("log", "family"),
    [
        ("messages", ["messages.10.gz", "messages.2.gz", "messages.1", "messages"]),
        ("messages", ["messages-20261120.gz", "messages-20261121", "messages"]),
        ("messages", ["messages-30112026", "messages-01122026", "messages"]),
        ("messages", ["messages-2026-11-20.xz", "messages-2026-11-21T13", "messages"]),
        ("messages", ["messages.2026.11.20.bz2", "messages.2026.11.21", "messages"]),
        ("messages", ["messages-20261120-1795132800", "messages-20261120-1795132801", "messages"]),
        ("messages", ["messages.old", "messages"]),
        ("messages", ["messages-20261120", "messages.1", "messages"]),
        ("messages", ["messages.0", "messages.1", "messages.2", "messages"]),
        ("messages", ["messages.8.gz", "messages.9.gz", "messages.10", "messages"]),
        ("messages", ["messages.99.xz", "messages.100", "messages"]),
        ("messages", ["messages.7.gz", "messages.6.gz", "messages.5", "messages"]),
        ("kern.log", ["kern.log.2.gz", "kern.log.1", "kern.log"]),
        ("kern.log", ["kern-20261120.log.xz", "kern-20261121.log", "kern.log"]),
        ("kern.log", ["kern.2.log.zst", "kern.1.log", "kern.log"]),
        ("current", ["@4000000066c195b40c30a9f8.u", "@4000000066c195c40b30a9f8.s", "current"]),
        ("current", ["log-2026-11-20-08:33:14", "log-2026-11-20-18:33:14", "current"]),
    ],
)
def test_a_family_is_listed_in_the_order_of_writing(log: str, family: list[str], tmp_path: Path) -> None:
    make(tmp_path, *family)
    assert family == names(tmp_path / log)


def test_rotation_numbers_are_believed_before_times(tmp_path: Path) -> None:
    make(tmp_path, "messages", "messages.1", "messages.2.gz", "messages.10")
    assert ["messages.10", "messages.2.gz", "messages.1", "messages"] == names(tmp_path / "messages")


def test_a_compressed_file_that_looks_younger_is_no_evidence_for_numbers_that_count_up(tmp_path: Path) -> None:
    make(tmp_path, "messages.1", "messages.2.gz", "messages")
    assert ["messages.2.gz", "messages.1", "messages"] == names(tmp_path / "messages")


def test_other_files_are_no_siblings(tmp_path: Path) -> None:
    names_of_others = [
        "messages-errors",
        "messages2",
        "messages.1.tmp",
        "mail.1",
        "messages.save",
        "message.1",
        "messages-2",
    ]
    make(tmp_path, "messages", *names_of_others)
    (tmp_path / "messages.1").mkdir()
    assert ["messages"] == names(tmp_path / "messages")
    make(tmp_path, "app.log", "app-2.log", "app-errors-20261120.log")
    assert ["app.log"] == names(tmp_path / "app.log")
    make(tmp_path, "current", "@4000000066c195b40c30a9f8.s", "log-2026-11-20-08:33:14")
    assert ["app.log"] == names(tmp_path / "app.log")
    (tmp_path / "@4000000066c195b40c30a9f8.t").touch()
    assert "@4000000066c195b40c30a9f8.t" not in names(tmp_path / "current")


def test_a_half_compressed_sibling_is_left_out_while_the_plain_one_is_there(tmp_path: Path) -> None:
    make(tmp_path, "messages.2.gz", "messages.1", "messages.1.gz", "messages")
    assert ["messages.2.gz", "messages.1", "messages"] == names(tmp_path / "messages")


def test_dated_files_behind_a_link_are_a_family(tmp_path: Path) -> None:
    make(tmp_path, "messages-20261120", "messages-20261121")
    (tmp_path / "messages").symlink_to("messages-20261121")
    assert ["messages-20261120", "messages"] == names(tmp_path / "messages")


def test_a_family_without_its_log_is_still_one(tmp_path: Path) -> None:
    make(tmp_path, "messages.2", "messages.1")
    assert ["messages.2", "messages.1"] == names(tmp_path / "messages")
    assert [] == names(tmp_path / "nowhere" / "messages")


# --- a place in the family ------------------------------------------------------------------------------------------


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "messages"
    path.write_bytes(LINES)
    return path


def test_a_renamed_file_is_found_by_its_inode(log: Path) -> None:
    place = place_in(log, 500)
    log.rename(log.with_name("messages.1"))
    shutil.copy(log.with_name("messages.1"), log)
    assert "messages.1" == found(log, place)


def test_a_file_under_a_name_of_its_own_is_found_by_its_inode(log: Path) -> None:
    place = place_in(log, 500)
    log.rename(log.with_name("set-aside"))
    log.write_bytes(b"another\n" * 100)
    assert "set-aside" == found(log, place)


def test_a_copy_is_found_by_its_content_when_the_log_is_truncated(log: Path) -> None:
    place = place_in(log, 500)
    shutil.copy(log, log.with_name("messages.1"))
    log.write_bytes(b"another\n" * 200)
    assert "messages.1" == found(log, place)


@pytest.mark.parametrize(("ending", "open_packed"), [(".gz", gzip.open), (".xz", lzma.open), (".bz2", bz2.open)])
def test_a_compressed_file_is_found_by_its_content(
    ending: str, open_packed: Callable[..., gzip.GzipFile], log: Path
) -> None:
    place = place_in(log, 500)
    for number in (1, 2, 3):
        with open_packed(f"{log}.{number}{ending}", "wb") as packed:
            packed.write(LINES if number == 2 else LINES.replace(b"line", b"LINE"))
    log.write_bytes(b"another\n" * 200)
    assert f"messages.2{ending}" == found(log, place)


def test_another_device_number_does_no_harm(log: Path) -> None:
    place = replace(place_in(log, 500), device=1)
    assert "messages" == found(log, place)


def test_the_same_inode_with_other_content_is_another_file(log: Path) -> None:
    place = place_in(log, 500)
    log.write_bytes(LINES.replace(b"line", b"LINE"))
    assert None is found(log, place)


def test_a_place_at_the_beginning_is_known_by_inode_alone(log: Path) -> None:
    place = place_in(log, 0)
    log.rename(log.with_name("messages.1"))
    log.write_bytes(LINES)
    assert "messages.1" == found(log, place)
    log.with_name("messages.1").unlink()
    assert None is found(log, replace(place, inode=1))


def test_a_damaged_file_is_passed_over_in_the_search(log: Path) -> None:
    place = place_in(log, 500)
    with gzip.open(f"{log}.2.gz", "wb") as packed:
        packed.write(LINES)
    log.with_name("messages.1.gz").write_bytes(b"\x1f\x8b" + b"\0" * 100)
    log.write_bytes(b"")
    assert "messages.2.gz" == found(log, place)


def test_a_log_that_cannot_be_read_is_not_said_to_be_gone(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = place_in(log, 500)

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(PermissionError):
        locate(str(log), place, nothing)


def test_a_directory_that_changes_all_the_time_says_nothing(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    look = os.scandir
    looks = iter(range(1000))

    def shuffle(path: Path) -> object:
        (log.with_name(f"messages.{next(looks)}")).touch()
        return look(path)

    monkeypatch.setattr(os, "scandir", shuffle)
    with pytest.raises(BlockingIOError):
        locate(str(log), place_in(log, 500), nothing)


# --- what follows a file --------------------------------------------------------------------------------------------


def younger(log: Path, place: FileCursor, written_seconds: int) -> list[str]:
    return [Path(file.path).name for file in list_younger(str(log), place, written_seconds * SECOND, nothing)]


def test_what_is_younger_follows_the_inode(tmp_path: Path) -> None:
    make(tmp_path, "messages.3", "messages.2", "messages.1", "messages")
    place = place_in(tmp_path / "messages.2", 3)
    assert ["messages.1", "messages"] == younger(tmp_path / "messages", place, 1001)
    assert [] == younger(tmp_path / "messages", place_in(tmp_path / "messages", 3), 1003)


def test_what_is_younger_follows_the_compressed_file(tmp_path: Path) -> None:
    make(tmp_path, "messages.3", "messages.2", "messages.1", "messages")
    place = place_in(tmp_path / "messages.2", 10)
    with gzip.open(tmp_path / "messages.2.gz", "wb") as packed:
        packed.write((tmp_path / "messages.2").read_bytes())
    (tmp_path / "messages.2").unlink()
    assert ["messages.1", "messages"] == younger(tmp_path / "messages", place, 1001)


def test_what_is_younger_than_a_deleted_file_is_told_by_time(tmp_path: Path) -> None:
    make(tmp_path, "messages.3", "gone", "messages.1", "messages")
    place = place_in(tmp_path / "gone", 4)
    (tmp_path / "gone").unlink()
    assert ["messages.1", "messages"] == younger(tmp_path / "messages", place, 1001)


def test_what_is_younger_in_numbers_that_count_up_has_the_higher_one(tmp_path: Path) -> None:
    make(tmp_path, "messages.0", "messages.1", "messages.2", "messages.3", "messages")
    place = place_in(tmp_path / "messages.1", 3)
    assert ["messages.2", "messages.3", "messages"] == younger(tmp_path / "messages", place, 1001)


def test_a_file_moved_by_hand_to_a_higher_number_has_only_the_log_behind_it(tmp_path: Path) -> None:
    make(tmp_path, "messages.3", "messages.2", "messages.1", "messages.9", "messages")
    place = place_in(tmp_path / "messages.9", 3)
    assert ["messages"] == younger(tmp_path / "messages", place, 1003)


def test_what_ended_in_the_same_second_is_younger_where_only_seconds_are_kept(tmp_path: Path) -> None:
    make(tmp_path, "messages.2", "messages.1", "messages")
    place = place_in(tmp_path / "messages.2", 3)
    os.utime(tmp_path / "messages.2", ns=(0, 1001 * SECOND + 5))
    files = list_younger(str(tmp_path / "messages"), place, 1001 * SECOND + 5, nothing)
    assert ["messages.1", "messages"] == [Path(file.path).name for file in files]


def test_what_lay_beside_the_log_is_never_younger_than_it(log: Path) -> None:
    os.utime(log, ns=(1, 1))
    make(log.parent, "messages.1")
    known_older, place = KnownOlder(str(log)), place_in(log, 500)
    known_older.look((place.device, place.inode), lambda: True)
    log.rename(log.with_name("messages.2"))
    make(log.parent, "messages.0")
    assert ["messages.1", "messages.0"] == [Path(file.path).name for file in list_younger(str(log), place, 0, nothing)]
    assert ["messages.0"] == [Path(file.path).name for file in list_younger(str(log), place, 0, nothing, known_older)]


def test_an_inode_of_an_older_file_that_is_used_again_is_no_older_file(log: Path) -> None:
    os.utime(log, ns=(1, 1))
    make(log.parent, "messages.1")
    known_older, place = KnownOlder(str(log)), place_in(log, 500)
    known_older.look((place.device, place.inode), lambda: True)
    log.rename(log.with_name("messages.2"))
    log.with_name("messages.1").write_bytes(LINES)
    assert ["messages.1"] == [Path(file.path).name for file in list_younger(str(log), place, 0, nothing, known_older)]


def test_a_log_that_changed_since_it_was_read_says_nothing_about_what_is_beside_it(log: Path) -> None:
    os.utime(log, ns=(1, 1))
    make(log.parent, "messages.1")
    known_older, place = KnownOlder(str(log)), place_in(log, 500)
    known_older.look((place.device, place.inode), lambda: False)
    log.rename(log.with_name("messages.2"))
    assert ["messages.1"] == [Path(file.path).name for file in list_younger(str(log), place, 0, nothing, known_older)]


# --- compressed content by offset -----------------------------------------------------------------------------------


def test_a_compressed_file_is_read_by_offset_back_and_forth(tmp_path: Path) -> None:
    text = bytes(range(256)) * 40_000
    with gzip.open(tmp_path / "messages.1.gz", "wb") as packed:
        packed.write(text)
    content = Content(str(tmp_path / "messages.1.gz"))
    for offset, size in [(0, 10), (5, 1 << 20), (1_000_000, 1 << 20), (999_900, 300), (12, 5), (len(text) - 3, 10)]:
        assert text[offset : offset + size] == content.read_at(offset, size)
    assert b"" == content.read_at(len(text) + 5, 10)
    content.close()


def test_damage_is_known_behind_what_was_whole(tmp_path: Path) -> None:
    packed = tmp_path / "messages.1.gz"
    with gzip.open(packed, "wb") as file:
        file.write(os.urandom(200_000))
    os.truncate(packed, 150_000)
    content = Content(str(packed))
    whole = content.read_at(0, 1 << 20)
    assert 100_000 < len(whole) < 150_000
    assert whole[100:] == content.read_at(100, 1 << 20)
    assert b"" == content.read_at(len(whole), 1)
    assert content.damage.startswith("damaged: ")
    content.close()


def test_progress_is_reported_while_a_large_file_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.sources.file.content.STEP_BYTES", 100_000)
    with gzip.open(tmp_path / "messages.1.gz", "wb") as packed:
        packed.write(b"x" * 1_000_000 + b"end")
    steps: list[int] = []
    content = Content(str(tmp_path / "messages.1.gz"), lambda: steps.append(1))
    assert b"end" == content.read_at(1_000_000, 10)
    assert 10 == len(steps)
    assert b"xend" == content.read_at(999_999, 10)
    assert b"" == content.read_at(2_000_000, 10)
    assert b"xxx" == content.read_at(400_000, 3)
    content.close()
