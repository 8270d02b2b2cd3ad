"""A real rsyslogd writes, the real logrotate rotates, and the log is followed."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path

import pytest
from harness import LOGROTATE, ROTATIONS, RSYSLOGD, Rsyslog

from agent.core.cursor import Cursor
from agent.sources.file.source import LogFileSource

PATIENCE_SECONDS = 20.0

pytestmark = pytest.mark.skipif(not (RSYSLOGD and LOGROTATE), reason="rsyslog or logrotate is not installed")


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture
def rsyslog(tmp_path: Path) -> Iterator[Rsyslog]:
    directory = tmp_path / "log"
    directory.mkdir(mode=0o755)
    daemon = Rsyslog(directory)
    yield daemon
    daemon.stop()


def open_source(log: Path, cursor: Cursor | None = None) -> LogFileSource:
    return LogFileSource([str(log)], cursor, "now", lambda: datetime.now(timezone.utc))


def follow(source: LogFileSource, found: list[int], until: int) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while len(found) < until and time.monotonic() < deadline:
        found += [int(record.uptime or -1) for record in source.read()]
        if len(found) < until:
            source.wait(1)


def wait_for_another_second(options: str) -> None:
    """Wait where the second is in the name of the rotated file: logrotate does not rotate twice into one name."""
    second = int(time.time())
    wait_until(lambda: "%s" not in options or int(time.time()) > second)


@pytest.mark.parametrize("options", ROTATIONS.values(), ids=ROTATIONS)
def test_nothing_is_lost_or_read_twice_while_logrotate_rotates(options: str, rsyslog: Rsyslog) -> None:
    found: list[int] = []
    with closing(open_source(rsyslog.log)) as source:
        for _ in range(4):
            rsyslog.say(20)
            follow(source, found, rsyslog.sent)
            # In flight while logrotate works; with copytruncate that may be lost by logrotate(8)'s own account.
            rsyslog.say(0 if "copytruncate" in options else 20)
            rsyslog.rotate(options)
            wait_for_another_second(options)
        rsyslog.say(5)
        follow(source, found, rsyslog.sent)
        assert list(range(rsyslog.sent)) == found
        assert ["no such file yet; following starts when it appears"] == [gap.why for gap in source.gaps()]


@pytest.mark.parametrize("options", ROTATIONS.values(), ids=ROTATIONS)
def test_what_was_rotated_while_we_were_away_is_caught_up_with(options: str, rsyslog: Rsyslog) -> None:
    found: list[int] = []
    with closing(open_source(rsyslog.log)) as source:
        rsyslog.say(20)
        follow(source, found, rsyslog.sent)
        cursor = source.position()
    for _ in range(3):
        rsyslog.say(20)
        wait_until(lambda: count_hits(rsyslog.log.parent) == rsyslog.sent)
        rsyslog.rotate(options)
        wait_for_another_second(options)
    rsyslog.say(5)
    with closing(open_source(rsyslog.log, cursor)) as source:
        follow(source, found, rsyslog.sent)
        assert list(range(rsyslog.sent)) == found
        assert [] == [gap.why for gap in source.gaps() if "there" not in gap.why]


@pytest.mark.parametrize("options", ROTATIONS.values(), ids=ROTATIONS)
@pytest.mark.parametrize("name", ["messages.0", "messages.1", "messages.5", "messages-20261101"])
def test_what_was_there_before_the_start_is_no_news_after_a_rotation(options: str, name: str, rsyslog: Rsyslog) -> None:
    old = rsyslog.log.with_name(name)
    old.write_text("Nov  1 10:00:00 web1 kernel: [90000.000001] TCP: too many orphaned sockets\n")
    old.chmod(0o640)
    os.utime(old, (0, time.time() - 2 * 86_400))
    rsyslog.say(3)
    wait_until(lambda: rsyslog.log.exists() and rsyslog.log.read_text().count("orphaned") == rsyslog.sent)
    found: list[int] = []
    with closing(open_source(rsyslog.log)) as source:
        rsyslog.rotate(options)
        rsyslog.say(5)
        follow(source, found, rsyslog.sent - 3)
        assert [3, 4, 5, 6, 7] == found


def count_hits(directory: Path) -> int:
    """Count what rsyslogd has written, whatever logrotate has made of it."""
    command = ["zgrep", "-hc", "orphaned", *(str(path) for path in directory.glob("messages*"))]
    counted = subprocess.run(command, check=False, capture_output=True, text=True)
    return sum(int(number) for number in counted.stdout.split())


def test_a_line_is_seen_long_before_the_next_look_of_the_clock(rsyslog: Rsyslog) -> None:
    found: list[int] = []
    rsyslog.say(1)
    wait_until(rsyslog.log.exists)
    with closing(open_source(rsyslog.log, Cursor())) as source:
        source.wait(0.1)
        list(source.read())
        delays = []
        for _ in range(5):
            rsyslog.say(1)
            began = time.monotonic()
            follow(source, found, len(found) + 1)
            delays.append(time.monotonic() - began)
    assert sorted(delays)[2] < 0.5
