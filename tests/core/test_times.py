from datetime import datetime, timedelta, timezone

import pytest

from agent.core.times import put_right

NOW = datetime(2026, 10, 25, 1, 30, 0, 400_000, tzinfo=timezone.utc)
LOOKED = NOW - timedelta(seconds=1)


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


@pytest.mark.parametrize("off", [0, 3600, -3600, 1800, -12 * 3600, 14 * 3600, -19800, -20700, 45_900])
def test_a_line_of_now_with_the_stamp_of_another_zone_is_of_now(off: int) -> None:
    written = NOW.replace(microsecond=0)
    assert (written, off) == put_right(written + seconds(off), LOOKED, NOW)


@pytest.mark.parametrize("ahead", [3, 300, 7204, 86_400 * 400])
def test_nothing_is_from_the_future(ahead: int) -> None:
    for after in (LOOKED, None):
        at, _ = put_right(NOW + seconds(ahead), after, NOW)
        assert at <= NOW


def test_how_far_a_clock_is_ahead_is_told() -> None:
    assert (NOW, 300) == put_right(NOW + seconds(300), LOOKED, NOW)


@pytest.mark.parametrize("late", [2.5, 61, 1000, 3600 + 30, 1800 + 9, 27 * 3600])
def test_a_line_that_was_delivered_late_stays_old(late: float) -> None:
    assert (NOW - seconds(late), 0) == put_right(NOW - seconds(late), LOOKED, NOW)


@pytest.mark.parametrize("after", [None, NOW - seconds(3600), NOW + seconds(60)])
def test_a_line_that_may_have_been_there_before_stays_old(after: datetime | None) -> None:
    """Read while catching up, after a suspend, or after the clock was set back."""
    assert (NOW - seconds(3600), 0) == put_right(NOW - seconds(3600), after, NOW)
