import re
from datetime import UTC, datetime, timedelta, timezone

import pytest

from agent.core.stamps import EPOCH, NAMED, NUMBERED, from_epoch, read_stamp

NOW = datetime(2024, 3, 1, 12, tzinfo=timezone(timedelta(hours=2)))


def moment(pattern: re.Pattern[str], text: str) -> datetime | None:
    match = pattern.match(text)
    assert match is not None
    return read_stamp(match, NOW)


@pytest.mark.parametrize(
    ("text", "year"),
    [
        ("Mar  1 12:00:00 jp58", 2024),
        ("Mar  2 12:00:00 jp58", 2024),
        ("Mar  2 12:00:01 jp58", 2023),
        ("FEB 29 12:00:00 jp58", 2024),
        ("Dec 31 23:59:59 jp58", 2023),
        ("Aug 18 2017 08:33:14 jp58", 2017),
        ("Aug 18, 2017 08:33:14 jp58", 2017),
        ("Aug 18 08:33:14 2017 jp58", 2017),
        ("Aug 18 08:33:14 2017:db8::1 kernel:", 2023),
    ],
)
def test_the_year_is_the_newest_that_fits(text: str, year: int) -> None:
    at = moment(NAMED, text)
    assert at is not None
    assert (year, timedelta(hours=2)) == (at.year, at.utcoffset())


def test_a_leap_day_waits_for_its_year() -> None:
    match = NAMED.match("Feb 29 12:00:00 jp58")
    assert match is not None
    assert datetime(2020, 2, 29, 12, tzinfo=UTC) == read_stamp(match, datetime(2023, 6, 1, tzinfo=UTC))


@pytest.mark.parametrize(
    ("text", "hours"),
    [
        ("2024-02-18T08:33:14Z x", 0),
        ("2024-02-18T08:33:14,5+05:30 x", 5.5),
        ("2024-02-18T08:33:14-0330 x", -3.5),
        ("2024-02-18 08:33:14 UTC x", 0),
        ("2024-02-18 08:33:14 NAS x", 2),
        ("Sun 2024-02-18 08:33:14 CET x", 1),
        ("Sun 2024-02-18 08:33:14 -03 x", -3),
        ("2024-02-18T08:33:14 x", 2),
    ],
)
def test_zones_are_read_and_a_missing_one_is_the_readers(text: str, hours: float) -> None:
    at = moment(NUMBERED, text)
    assert at is not None
    assert timedelta(hours=hours) == at.utcoffset()


@pytest.mark.parametrize(
    "text", ["Sun 2024-02-18 08:33:14 IST x", "2024-02-30T08:33:14Z", "2024-02-18T08:33:14+99:99 x"]
)
def test_a_moment_that_nobody_can_place_is_none(text: str) -> None:
    assert moment(NUMBERED, text) is None


def test_a_reader_without_a_zone_makes_no_moment_up() -> None:
    match = NAMED.match("Aug 18 08:33:14 jp58")
    assert match is not None
    assert read_stamp(match, datetime(2024, 3, 1)) is None  # noqa: DTZ001 - the naive clock is what is tested


def test_seconds_since_1970_are_read() -> None:
    assert datetime(2024, 8, 18, 6, 33, 14, 500000, tzinfo=UTC) == moment(EPOCH, "1723962794.5 jp58")
    assert [None] * 5 == [from_epoch(value) for value in ("x", True, None, 1e300, float("nan"))]
