from datetime import datetime, timezone

import pytest

from agent.core.delivery import Delivered, Rejected, Retry
from agent.notifiers.answer import Answer, retry_after_seconds, sort_answer

NOW = datetime(2026, 11, 22, 15, 5, 39, tzinfo=timezone.utc)


def test_every_2xx_is_taken() -> None:
    assert [Delivered(detail=f"HTTP {s}") for s in (200, 202, 204)] == [
        sort_answer(Answer(s, None, b""), NOW) for s in (200, 202, 204)
    ]


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 599, 600, 999])
def test_a_busy_receiver_is_tried_again(status: int) -> None:
    # Busy is 503; behind a gateway that says 504, the receiver may have taken it.
    expected = Retry(
        why=f"HTTP {status}", after_seconds=7.0, may_be_the_notice=status == 500, may_be_taken=status == 504
    )
    assert expected == sort_answer(Answer(status, "7", b""), NOW)


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308, 400, 401, 403, 404, 405, 407, 410, 413, 418])
def test_a_dead_endpoint_is_rejected_with_its_status(status: int) -> None:
    delivery = sort_answer(Answer(status, None, b""), NOW)

    assert isinstance(delivery, Rejected)
    assert delivery.why.startswith(f"HTTP {status}")


def test_what_is_no_answer_stays_as_it_is() -> None:
    assert Retry(why="connection refused") == sort_answer(Retry(why="connection refused"), NOW)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("120", 120.0),
        (" 9 ", 9.0),
        ("0", None),
        ("86400", 3600.0),
        ("999999999999999999", 3600.0),
        ("Sun, 22 Nov 2026 15:07:39 GMT", 120.0),
        ("Sun, 22 Nov 2026 15:07:39 -0000", 120.0),
        ("Sun, 22 Nov 2026 15:00:00 GMT", None),
        ("Mon, 22 Nov 2027 15:00:00 GMT", 3600.0),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("", None),
        ("Sun, 99 Nov 2026 15:07:39 GMT", None),
        ("\u0661\u0662", None),
        ("Mon, 01 Jan 99999999999999 00:00:00 GMT", None),
        ("Mon, 01 Jan 2026 00:00:00 +99999999999999", None),
        ("Mon, 01 Jan 2026 99999999999999:00:00 GMT", None),
        ("Fri, 31 Dec 9999 23:59:59 -2359", 3600.0),
        ("Mon, 01 Jan 0001 00:00:00 +2359", None),
        ("9" * 60_000, None),
        (",", None),
        ("Mon, \0 \xe9", None),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_an_hour_at_most(header: str | None, seconds: float | None) -> None:
    assert seconds == retry_after_seconds(header, NOW)


@pytest.mark.parametrize("date", ["Sun, 22 Nov 2026 15:07:09 GMT", "Sun, 22 Nov 2026 16:07:09 +0100"])
def test_a_date_to_try_again_is_held_against_the_receivers_clock(date: str) -> None:
    answer = Answer(503, "Sun, 22 Nov 2026 15:07:39 GMT", b"", date)

    for ours in (NOW, NOW.replace(year=2002), NOW.replace(year=2050)):
        assert Retry(why="HTTP 503", after_seconds=30.0) == sort_answer(answer, ours)


@pytest.mark.parametrize("date", [None, "soon", "", "Mon, 01 Jan 99999999999999 00:00:00 GMT"])
def test_without_a_clock_of_the_receivers_ours_has_to_do(date: str | None) -> None:
    answer = Answer(503, "Sun, 22 Nov 2026 15:07:39 GMT", b"", date)

    assert Retry(why="HTTP 503", after_seconds=120.0) == sort_answer(answer, NOW)
