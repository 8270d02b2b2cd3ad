from datetime import datetime, timedelta, timezone

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from agent.core import status
from agent.core.model import Silence
from agent.core.status import STALE_SECONDS, Channel, OpenIncident, Reader, Status, check, one_line, why_not_running

NOW = datetime(2026, 11, 29, 14, 30, tzinfo=timezone.utc)
STATUS = Status(
    version="0.3.0",
    is_running=True,
    written_at=NOW,
    monotonic_seconds=1000.0,
    boot_id="b1",
    pid=4711,
    pid_namespace=7,
    started_at=NOW,
    following="the journal",
    directory="/var/lib/sockmem-agent",
    open=(),
    last=None,
    channels=(),
    silence=None,
    troubles=(),
)
READER = Reader(NOW, 1030.0, "b1", 7, has_process=True)
ORPHANS = OpenIncident(
    id="20261129T142500Z-7f3a",
    class_="event",
    host="web1",
    is_elsewhere=False,
    cause="orphans",
    confidence="certain",
    opened_at=NOW - timedelta(minutes=5),
)
WARNING = replace(ORPHANS, class_="pressure", cause="tcp_memory", confidence="possible")
OPS = Channel(name="ops", type="slack", waiting=2, since=NOW - timedelta(minutes=3), why="HTTP 503")


@pytest.mark.parametrize(
    ("status", "reader", "why"),
    [
        (STATUS, READER, None),
        (replace(STATUS, is_running=False), READER, "stopped 14:30 UTC"),
        (STATUS, READER._replace(boot_id="b2"), "not started since the host booted"),
        (STATUS, READER._replace(has_process=False), "ended unexpectedly after 14:30 UTC"),
        (STATUS, READER._replace(has_process=False, pid_namespace=8), None),  # In a container, a pid of elsewhere.
        (STATUS, READER._replace(monotonic_seconds=1000.0 + STALE_SECONDS + 1), "no sign of life for 1 min 31 s"),
        (STATUS, READER._replace(monotonic_seconds=500.0), "no sign of life for 8 min 20 s"),
        # The wall's clock says nothing, back or ahead, nor does the time for which the host was suspended.
        (STATUS, READER._replace(now=NOW + timedelta(days=9)), None),
        (STATUS, READER._replace(now=NOW - timedelta(days=9)), None),
    ],
)
def test_a_file_is_believed_while_its_boot_its_process_and_its_age_say_so(
    status: Status, reader: Reader, why: str | None
) -> None:
    assert why == why_not_running(status, reader)


@pytest.mark.parametrize(
    ("changes", "level", "line"),
    [
        ({}, "OK", "OK: no open incident"),
        ({"channels": (OPS,)}, "OK", "OK: no open incident; ops: 2 waiting"),
        ({"open": (ORPHANS,)}, "CRITICAL", "CRITICAL: orphans (certain) since 14:25 UTC"),
        ({"open": (WARNING,)}, "WARNING", "WARNING: early warning, TCP memory (possible) since 14:25 UTC"),
        ({"open": (WARNING, ORPHANS)}, "CRITICAL", "CRITICAL: orphans (certain) since 14:25 UTC; 1 more"),
        (
            {"open": (replace(ORPHANS, host="db7", is_elsewhere=True),)},
            "CRITICAL",
            "CRITICAL: orphans (certain) on db7 since 14:25 UTC",
        ),
        (
            {"silence": Silence(since=NOW, until=NOW + timedelta(hours=1), reason="deploying")},
            "OK",
            "OK: no open incident; silenced",
        ),
        ({"troubles": ("the history cannot be written",)}, "OK", "OK: no open incident; the history cannot be written"),
        ({"is_running": False, "open": (ORPHANS,)}, "UNKNOWN", "UNKNOWN: not running: stopped 14:30 UTC"),
    ],
)
def test_the_check_says_the_worst_first(changes: dict[str, object], level: str, line: str) -> None:
    assert (level, line) == check(replace(STATUS, **changes), READER)


@given(st.text())
def test_the_check_is_one_line_of_80_plain_characters_at_most(text: str) -> None:
    line = one_line("CRITICAL", text)

    assert line.isascii()
    assert line.isprintable()
    assert len(line) <= 80


@pytest.mark.parametrize("pid", [-1, 0])
def test_a_number_that_stands_for_all_processes_is_no_pid(pid: int) -> None:
    with pytest.raises(msgspec.ValidationError, match="pid"):
        status.STATUS.decode(msgspec.json.encode(replace(STATUS, pid=pid)))


def test_what_waits_is_said_with_since_when_and_why_or_that_it_is_held_back() -> None:
    channel = Channel(name="ops", type="slack", waiting=2, since=NOW - timedelta(minutes=28), why="HTTP 503")

    assert "2 waiting since 14:02 UTC: HTTP 503" == status.waiting_text(channel, NOW)
    held = replace(channel, since=None, why=None)
    assert "2 waiting, held back by a silence or hourly limit" == status.waiting_text(held, NOW)
