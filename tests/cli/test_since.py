import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

import pytest

from agent.cli.since import read_time

NOW = datetime(2026, 11, 22, 14, 5, 39, tzinfo=timezone.utc)


@pytest.fixture(params=["UTC", "Europe/Berlin", "America/New_York"])
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[timedelta]:
    """Put the host into a zone, and give how far east that lies in November."""
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield timedelta(hours={"UTC": 0, "Europe/Berlin": 1, "America/New_York": -5}[request.param])
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("2h", 7200), ("3d", 259_200), ("1w", 604_800), ("1h30m", 5400)]
)
def test_a_span_is_so_long_ago(text: str, seconds: int) -> None:
    assert NOW - timedelta(seconds=seconds) == read_time(text, NOW)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("today", (2026, 11, 22)),
        ("yesterday", (2026, 11, 21)),
        ("2026-11-20", (2026, 11, 20)),
        ("2026-11-20 07:08", (2026, 11, 20, 7, 8)),
        ("2026-11-20T07:08:09", (2026, 11, 20, 7, 8, 9)),
        ("07:08", (2026, 11, 22, 7, 8)),
        ("7:08:09", (2026, 11, 22, 7, 8, 9)),
        (" 23:59 ", (2026, 11, 21, 23, 59)),
    ],
)
def test_without_a_zone_it_is_the_local_one(zone: timedelta, text: str, plain: tuple[int, ...]) -> None:
    found = read_time(text, NOW)

    assert datetime(*plain, tzinfo=timezone(zone)) == found  # type: ignore[arg-type, misc]
    assert found is not None
    assert zone == found.utcoffset()


def test_summer_time_is_that_of_the_day(zone: timedelta) -> None:
    summer = zone + (timedelta(hours=1) if zone else timedelta())

    assert datetime(2026, 7, 1, 12, tzinfo=timezone(summer)) == read_time("2026-07-01 12:00", NOW)


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-22T13:00:00Z",
        "2026-11-22t13:00:00z",
        "2026-11-22 13:00:00 UTC",
        "2026-11-22T13:00Z",
        "2026-11-22T14:00:00+01:00",
        "2026-11-22T07:30:00.000000000-0530",
    ],
)
@pytest.mark.usefixtures("zone")
def test_a_zone_that_is_named_counts(text: str) -> None:
    assert datetime(2026, 11, 22, 13, tzinfo=timezone.utc) == read_time(text, NOW)


def test_a_fraction_of_a_second_counts() -> None:
    assert datetime(2026, 11, 22, 13, 0, 0, 204518, tzinfo=timezone.utc) == read_time(
        "2026-11-22T13:00:00.204518999Z", NOW
    )


WRONG = """
x 2 h -2h 2x ٢h 999999999w 25:00 12:60 12 tomorrow
2026-13-01 2026-02-30 2026-11-22T 2026-11-22T13:00:00+99:00 2026-11-22T13:00:00Zulu
"""


@pytest.mark.parametrize("text", ["", "2 h", *WRONG.split()])
@pytest.mark.usefixtures("zone")
def test_what_is_no_time_is_none(text: str) -> None:
    assert read_time(text, NOW) is None


@pytest.mark.parametrize("text", ["0001-01-01", "9999-12-31", "9999-12-31T23:59:59-23:59"])
@pytest.mark.usefixtures("zone")
def test_the_ends_of_the_calendar_are_no_traceback(text: str) -> None:
    found = read_time(text, NOW)
    assert found is None or found.tzinfo is not None
