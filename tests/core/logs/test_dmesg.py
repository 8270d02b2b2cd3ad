from datetime import datetime, timezone

import pytest

from agent.core.logs.envelope import Envelope, parse

NOW = datetime(2026, 11, 23, tzinfo=timezone.utc)
AT = datetime(2026, 11, 22, 18, 50, 14, tzinfo=timezone.utc)
T = "TCP: too many orphaned sockets"


@pytest.mark.parametrize(
    ("stamps", "at", "uptime"),
    [
        ("[  179.636034]", None, 179.636034),
        ("[  179.636034 <    0.000000>]", None, 179.636034),
        ("[  179.636034 <    0,000000>]", None, 179.636034),
        ("[ 4999.000000                ]", None, 4999.0),
        ("[ 4999.000025 <    0.000025 >]", None, 4999.000025),
        ("[<    0,000025>]", None, None),
        ("[  +0.000089]", None, None),
        ("[  +0,000089]", None, None),
        ("[Nov22 18:50]", None, None),
        ("[nov.22 18:50]", None, None),
        ("[févr. 2 06:53]", None, None),
        ("[ноя22 18:50]", None, None),  # noqa: RUF001 - Cyrillic is meant
        ("[ 1月22 18:50]", None, None),
        ("[Sun Nov 22 18:50:14 2026]", AT, None),
        ("[Sun Nov 22 18:50:14 2026 <  100.000000>]", AT, None),
        ("[So Nov 22 18:50:14 2026]", AT, None),
        ("[So Nov 22 18:50:14 2026 <    0,000000>]", AT, None),
        ("[dim. nov. 22 18:50:14 2026]", AT, None),
        ("[Вс ноя 22 18:50:14 2026]", AT, None),  # noqa: RUF001 - Cyrillic is meant
        ("[v nov 22 18:50:14 2026]", AT, None),
        ("[日 11月 22 18:50:14 2026]", AT, None),
        ("[일 11월 22 18:50:14 2026]", AT, None),
        ("[Κυρ Νοε 22 18:50:14 2026]", None, None),  # noqa: RUF001 - Greek is meant, whose months are not in the table
        ("2026-11-22T18:50:14,000000+00:00", AT, None),
        ("2026-11-22T19:50:14,000000+0100", AT, None),
        ("[  179.636034] [Sun Nov 22 18:50:14 2026]", AT, 179.636034),
        ("[  179.636034] [  +0.000000]", None, 179.636034),
        ("[  179.636034] 2026-11-22T18:50:14,000000+00:00", AT, 179.636034),
        ("[Nov22 18:50] [Sun Nov 22 18:50:14 2026] [  179.636034]", AT, 179.636034),
    ],
)
def test_the_stamps_of_dmesg_are_read(stamps: str, at: datetime | None, uptime: float | None) -> None:
    assert Envelope(T, at=at, uptime=uptime) == parse(f"{stamps} {T}", NOW)


@pytest.mark.parametrize(
    "line",
    [
        f"[alice 12 08:40] {T}",
        f"[alice12 08:40] {T}",
        f"[12 08:40] {T}",
        f"[Nov22 18:50:14] {T}",
        f"[Foo22 18:50] {T}",
        f"[So Nov 22 18:50 2026] {T}",
        f"[Nov 22 18:50:14 2026] {T}",
        f"[alice nov 22 18:50:14] {T}",
        f"[INFO Nov 22 18:50:14 2026] {T}",
        f"[error Nov 22 18:50:14 2026] {T}",
        f"[W Nov 22 18:50:14 2026] {T}",
        f"[10.0.0.5 Nov 22 18:50:14 2026] {T}",
        f"[179,636034] {T}",
        f"[179.636034 0.000000] {T}",
        f"[+0] {T}",
        f"2026-11-22T18:50:14,000+00:00 {T}",
        f"2026-11-22T18:50:14,000000+00:00: {T}",
        f"2026-11-22T18:50:14,000000 {T}",
        f"[  179.636034] [alice 12 08:40] {T}",
    ],
)
def test_what_dmesg_does_not_write_is_no_stamp(line: str) -> None:
    assert parse(line, NOW) is None


def test_the_caller_behind_a_stamp_is_no_text() -> None:
    assert Envelope(T, uptime=179.636034) == parse(f"[  179.636034] [   C3] {T}", NOW)
