import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.format import (
    bytes_text,
    columns_of,
    count_text,
    counted,
    duration_text,
    in_columns,
    percent_text,
    printable,
    wrap,
)

MIB = 1 << 20


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, "0 B"),
        (1023, "1,023 B".replace(",", "")),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (4096, "4 KiB"),
        (87916 * 4096, "343 MiB"),
        (MIB - 1, "1 MiB"),
        (1023 * 1024, "1,023 KiB"),
        (3 * MIB * MIB // 2, "1.5 TiB"),
        (-2048, "-2 KiB"),
        (1 << 80, "1,048,576 EiB"),
    ],
)
def test_bytes_are_said_with_a_binary_unit(size: int, expected: str) -> None:
    assert expected == bytes_text(size)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "0 s"),
        (0.25, "0.2 s"),
        (9.96, "10 s"),
        (12.6, "13 s"),
        (60, "1 min"),
        (102.2, "1 min 42 s"),
        (7384, "2 h 3 min"),
        (86400, "1 day"),
        (200000, "2 days 7 h"),
        (float("inf"), "an unknown time"),
        (float("nan"), "an unknown time"),
    ],
)
def test_a_span_is_said_with_its_two_largest_units(seconds: float, expected: str) -> None:
    assert expected == duration_text(seconds)


@pytest.mark.parametrize(
    ("value", "limit", "expected"),
    [
        (87916, 86514, "102 %"),
        (1, 3, "33 %"),
        (102910, 6961536, "1.5 %"),
        (5, 0, None),
        (5, -1, None),
        (0, 9, "0.0 %"),
        (-400, 393_216, "-0.1 %"),
        (-100, 393_216, "0.0 %"),
        (-1, 3, "-33 %"),
    ],
)
def test_a_share_needs_a_limit_that_measures(value: int, limit: int, expected: str | None) -> None:
    assert expected == percent_text(value, limit)


def test_one_is_not_counted_in_the_plural() -> None:
    assert ["0 sockets", "1 socket", "1,024 sockets"] == [counted(each, "socket") for each in (0, 1, 1024)]
    assert ["1 line was", "2 lines were"] == [counted(each, "line was", "lines were") for each in (1, 2)]


def test_counts_are_grouped() -> None:
    assert "1,048,576" == count_text(1 << 20)


@given(st.text())
def test_nothing_printable_steers_a_terminal(text: str) -> None:
    shown = printable(text)
    assert not any(unicodedata.category(char) in ("Cc", "Cf", "Zl", "Zp", "Cs") for char in shown)


def test_what_is_not_printable_is_shown_as_an_escape() -> None:
    assert r"a\x1b[2Jb\x9bc\u202ed e\U000e0001" == printable("a\x1b[2Jb\x9bc\u202ed\te\U000e0001")


def test_what_is_too_long_is_cut_visibly() -> None:
    assert "abc…" == printable("abcdef", 3)


def test_a_text_takes_as_many_columns_as_a_terminal_gives_it() -> None:
    assert [3, 6, 4, 1] == [columns_of(text) for text in ("web", "数据库", "\uff57b1", "e\u0301")]


def test_columns_stay_aligned_below_wide_characters() -> None:
    table = in_columns([("数据库.service", "9", "web1"), ("nginx.service", "10", "db7"), ("é", "1", "")], {1})

    assert ["数据库.service   9  web1", "nginx.service   10  db7", "é                1"] == table


def test_lines_are_broken_at_blanks_by_their_width_and_what_has_to_stay_together_stays() -> None:
    assert ["数据 数据", "数据"] == wrap("数据 数据 数据", 9)
    assert ["one two", "three\u00a0four five"] == wrap("one  two three\u00a0four five", 15)
