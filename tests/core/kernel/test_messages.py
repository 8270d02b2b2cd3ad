from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from agent.core.cursor import Cursor
from agent.core.kernel.detector import MAX_HOSTS, MAX_RECENT, MAX_UNDECIDED, Detector
from agent.core.kernel.devkmsg import DevKmsg, parse_devkmsg
from agent.core.kernel.messages import OTHER_LIMITS, detect, other_limit
from agent.core.model import LogRecord

START = datetime(2024, 8, 18, 8, 33, 14, tzinfo=timezone.utc)
ORPHANS = "TCP: too many orphaned sockets"
MEMORY = "TCP: out of memory -- consider tuning tcp_mem"
SUPPRESSED = "net_ratelimit: 142 callbacks suppressed"


def record(
    text: str,
    ordinal: int = 1,
    *,
    at: float | None = None,
    uptime: float | None = None,
    host: str | None = None,
    count: int = 1,
) -> LogRecord:
    return LogRecord(
        text=text,
        line=text,
        source=f"log:{ordinal}",
        provenance="claimed",
        ordinal=ordinal,
        at=None if at is None else START + timedelta(seconds=at),
        uptime=uptime,
        host=host,
        count=count,
    )


def told(*records: LogRecord) -> list[tuple[int, str, int | None, int]]:
    """What a Detector makes of a log: (line, kind, suppressed, count)."""
    detector = Detector()
    events = [pair for each in records for pair in detector.feed(each)]
    return [(each.ordinal, event.kind, event.suppressed, event.count) for each, event in events]


@pytest.mark.parametrize(
    ("text", "kind", "suppressed"),
    [
        ("Out of socket memory", "out_of_socket_memory", None),
        ("TCP: too many of orphaned sockets", "too_many_orphans", None),
        ("TCP: too many of orphaned sockets (512 in CT1023)", "too_many_orphans", None),
        ("MPTCP: too many of orphaned sockets", "too_many_orphans", None),
        (ORPHANS, "too_many_orphans", None),
        (f"{MEMORY} (CT0)", "tcp_mem", None),
        (f"{MEMORY}   \r", "tcp_mem", None),
        (f"{MEMORY}#012", "tcp_mem", None),
        ("printk: 58 messages suppressed.", "suppressed", 58),
        ("__ratelimit: 8552 callbacks suppressed", "suppressed", 8552),
        (SUPPRESSED, "suppressed", 142),
    ],
)
def test_every_era_is_recognised(text: str, kind: str, suppressed: int | None) -> None:
    event = detect(record(text, count=3))
    assert event is not None
    assert (kind, suppressed, 3) == (event.kind, event.suppressed, event.count)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "out of socket memory",
        "TCP: Out of socket memory",
        "MPTCP: too many orphaned sockets",
        "TCP: out of memory",
        "printk: 58 messages suppressed",
        "netratelimit: 1 callbacks suppressed",
        "___ratelimit: 1 callbacks suppressed",
        "kauditd_printk_skb: 10 callbacks suppressed",
        "last message repeated 3 times",
        f"{MEMORY} {MEMORY}",
        "Out of socket memory" + " " * 60_000 + "x",
    ],
)
def test_anything_else_is_not(text: str) -> None:
    assert detect(record(text)) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("TCP: time wait bucket table overflow (CT0)", "TIME_WAIT"),
        ("TCP: request_sock_TCP: Possible SYN flooding on port 8080. Sending cookies.", "SYN backlog"),
        ("nf_conntrack: nf_conntrack: table full, dropping packet", "connection tracking"),
        ("neighbour: arp_cache: neighbor table overflow!", "neighbour"),
        ("MPTCP: out of memory: force closing socket", "MPTCP"),
        ("Out of memory: Killed process 267303 (python3) total-vm:3600048kB", "RAM"),
        ("Memory cgroup out of memory: Killed process 42 (java) total-vm:3600048kB", "control group"),
        ("Memory cgroup out of memory: Kill process 42 (java) score 1000 or sacrifice child", "control group"),
    ],
)
def test_another_limit_is_named(text: str, expected: str) -> None:
    assert expected in (other_limit(text) or "")


@pytest.mark.parametrize("text", ["Out of socket memory", ORPHANS, MEMORY, SUPPRESSED, "eth0: link up"])
def test_what_is_ours_is_no_neighbour(text: str) -> None:
    assert other_limit(text) is None
    assert not any(pattern.fullmatch(text) for pattern, _ in OTHER_LIMITS)


def test_a_suppressed_line_far_from_any_event_stays_silent() -> None:
    assert [] == told(record(SUPPRESSED, 1, at=0))
    assert [(9, "tcp_mem", None, 1)] == told(record(SUPPRESSED, 1, at=0), record(MEMORY, 9, at=61))
    assert [(1, "tcp_mem", None, 1)] == told(record(MEMORY, 1, at=0), record(SUPPRESSED, 9, at=61))


def test_a_suppressed_line_within_a_minute_counts_before_and_after_an_event() -> None:
    before = told(record(SUPPRESSED, 1, at=0), record(MEMORY, 9, at=60))
    assert [(1, "suppressed", 142, 1), (9, "tcp_mem", None, 1)] == before
    after = told(record(MEMORY, 1, at=0), record(SUPPRESSED, 9, at=60))
    assert [(1, "tcp_mem", None, 1), (9, "suppressed", 142, 1)] == after


def test_a_suppressed_line_that_an_event_decides_has_no_position_of_its_own() -> None:
    detector = Detector()
    held, deciding = (replace(record(each), cursor=Cursor()) for each in (SUPPRESSED, MEMORY))
    assert [] == detector.feed(held)
    assert [None, Cursor()] == [each.cursor for each, _ in detector.feed(replace(deciding, ordinal=2))]


def test_the_kernels_own_clock_serves_where_there_is_no_other() -> None:
    near = told(record(SUPPRESSED, 1, uptime=1591.9), record(MEMORY, 9, uptime=1600.0))
    assert [1, 9] == [line for line, *_ in near]
    far = told(record(SUPPRESSED, 1, uptime=1591.9), record(MEMORY, 9, uptime=1700.0))
    assert [9] == [line for line, *_ in far]


def test_clocks_that_cannot_be_compared_are_not() -> None:
    assert [9] == [line for line, *_ in told(record(SUPPRESSED, 1, uptime=1.0), record(MEMORY, 9, at=1))]
    hosts = told(record(SUPPRESSED, 1, at=0, host="a"), record(MEMORY, 2, at=0, host="b"))
    assert [2] == [line for line, *_ in hosts]


def test_a_neighbour_in_the_log_counts_whatever_the_clocks_say() -> None:
    assert [1, 2] == [line for line, *_ in told(record(SUPPRESSED, 1), record(MEMORY, 2))]
    assert [1, 2] == [line for line, *_ in told(record(MEMORY, 1), record(SUPPRESSED, 2))]
    assert [1, 2] == [line for line, *_ in told(record(SUPPRESSED, 1, at=0), record(MEMORY, 2, at=9999))]
    assert [2] == [line for line, *_ in told(record(SUPPRESSED, 0), record(MEMORY, 2))]


def test_a_suppressed_line_of_another_host_waits_on() -> None:
    log = (record(SUPPRESSED, 1, at=0, host="b"), record(MEMORY, 3, at=1, host="a"), record(MEMORY, 5, at=2, host="b"))
    assert [3, 1, 5] == [line for line, *_ in told(*log)]


def test_time_that_jumps_back_a_microsecond_does_not_matter() -> None:
    assert [1, 2] == [
        line for line, *_ in told(record(SUPPRESSED, 1, uptime=5.000002), record(MEMORY, 2, uptime=5.000001))
    ]


@pytest.mark.parametrize(
    "repeat",
    [
        "last message repeated 6 times",
        "last message buffered 6 times",
        "- Last output repeated 6 times -",
        "Last message 'TCP: out of memory -' repeated 6 times, suppressed by syslog-ng on jp58",
    ],
)
def test_a_repeat_directly_behind_an_event_is_n_more_of_it(repeat: str) -> None:
    assert [(1, "tcp_mem", None, 1), (2, "tcp_mem", None, 6)] == told(record(MEMORY, 1), record(repeat, 2))
    assert [(1, "tcp_mem", None, 1)] == told(record(MEMORY, 1), record(repeat, 3))
    assert [(1, "tcp_mem", None, 1)] == told(record(MEMORY, 1, host="a"), record(repeat, 2, host="b"))
    assert [] == told(record(repeat, 2))


def test_metalog_says_twice_where_a_message_came_once_more() -> None:
    assert [1, 1] == [count for *_, count in told(record(MEMORY, 1), record("- Last output repeated twice -", 2))]


def test_a_repeat_without_a_date_or_a_host_has_those_of_the_line_it_repeats() -> None:
    detector = Detector()
    ((_, said),) = detector.feed(record(MEMORY, 1, at=5, uptime=1.5, host="a"))
    ((_, again),) = detector.feed(record("- Last output repeated 9 times -", 2))

    assert (said.at, said.uptime, "a", 9) == (again.at, again.uptime, again.host, again.count)


def test_a_repeat_is_of_the_line_before_it_in_its_own_log_whatever_was_read_of_another() -> None:
    log = (record(MEMORY, 1), record(ORPHANS, 1001), record("last message repeated 6 times", 2))
    assert [(1, "tcp_mem", None, 1), (1001, "too_many_orphans", None, 1), (2, "tcp_mem", None, 6)] == told(*log)
    here, elsewhere, again = record(SUPPRESSED, 1), record(SUPPRESSED, 1001), record("last message repeated 6 times", 2)
    assert [1, 2, 3] == [line for line, *_ in told(here, elsewhere, again, record(MEMORY, 3))]
    assert [1, 2, 3] == [line for line, *_ in told(elsewhere, here, again, record(MEMORY, 3))]


def test_a_repeat_of_a_suppressed_line_shares_its_fate() -> None:
    repeat = "Last message 'printk: 58 messages ' repeated 2 times, suppressed by syslog-ng on jp58"
    log = (record("printk: 58 messages suppressed.", 1), record(repeat, 2))
    assert [] == told(*log)
    together = [(1, "suppressed", 58, 1), (2, "suppressed", 58, 2), (3, "tcp_mem", None, 1)]
    assert together == told(*log, record(MEMORY, 3))
    behind = told(record(MEMORY, 0), *log)
    assert [0, 1, 2] == [line for line, *_ in behind]


def test_waiting_ends_with_an_event_and_never_lasts_longer_than_the_window() -> None:
    detector = Detector()
    assert not detector.waiting(START)
    detector.feed(record(SUPPRESSED, 1, at=-99_999))
    assert detector.waiting(START)
    assert detector.waiting(START + timedelta(seconds=60))
    assert not detector.waiting(START + timedelta(seconds=61))
    assert [9] == [each.ordinal for each, _ in detector.feed(record(MEMORY, 9, at=-99_999))]
    detector.feed(record(SUPPRESSED, 11, at=5000))
    detector.feed(record(MEMORY, 12, at=5000))
    assert not detector.waiting(START)


@given(
    st.lists(st.tuples(st.sampled_from([SUPPRESSED, MEMORY, "last message repeated 2 times", "x"]), st.integers(1, 3)))
)
def test_no_log_makes_the_state_grow_or_tells_a_record_twice(log: list[tuple[str, int]]) -> None:
    detector = Detector()
    ordinal, seen = 0, []
    for text, step in log * 5:
        ordinal += step
        seen += [each.ordinal for each, _ in detector.feed(record(text, ordinal, at=ordinal))]
        assert MAX_UNDECIDED >= len(detector._undecided)
    assert len(set(seen)) == len(seen)
    assert sorted(seen) == seen


def test_a_storm_of_events_is_remembered_in_bounded_space() -> None:
    detector = Detector()
    for ordinal in range(1000):
        detector.feed(record(ORPHANS, ordinal, at=ordinal))
    assert [MAX_RECENT] == [len(of_host) for of_host in detector._recent.values()]
    assert 2 * MAX_RECENT >= len(detector._newest)
    assert 1 == len(detector.feed(record("last message repeated 6 times", 1000)))
    for ordinal in range(1000):
        detector.feed(replace(record(ORPHANS, ordinal, at=ordinal), host=f"db{ordinal}"))
    assert MAX_HOSTS == len(detector._recent)


def test_a_host_that_floods_does_not_make_another_hosts_suppressed_line_forgotten() -> None:
    detector = Detector()
    detector.feed(replace(record(MEMORY, 1, at=0), host="db7"))
    for ordinal in range(2, 100):
        detector.feed(replace(record(ORPHANS, ordinal, at=ordinal // 10), host="db8"))
    assert [100] == [each.ordinal for each, _ in detector.feed(replace(record(SUPPRESSED, 100, at=30), host="db7"))]


def test_a_suppressed_line_that_the_log_has_left_behind_holds_the_position_back_no_longer() -> None:
    detector = Detector()
    detector.feed(record(SUPPRESSED, 1, at=0))
    detector.feed(record("eth0: link up", 3, at=60))
    assert detector.waiting(START)
    detector.feed(record("eth0: link up", 4, at=61))
    assert not detector.waiting(START)


def test_what_was_decided_before_a_restart_decides_what_follows_it() -> None:
    def resumed(text: str) -> Detector:
        detector = Detector()
        before = record(text, 1, at=0)
        event = detect(before)
        assert event is not None
        detector.remember(before, event)
        return detector

    again = resumed(ORPHANS).feed(record("last message repeated 7 times", 2, at=5))
    assert [("too_many_orphans", 7)] == [(event.kind, event.count) for _, event in again]
    assert 1 == len(resumed(ORPHANS).feed(record(SUPPRESSED, 9, at=50)))
    assert 0 == len(resumed(SUPPRESSED).feed(record(SUPPRESSED, 9, at=50)))


@pytest.mark.parametrize("first", [(), (record(SUPPRESSED, -5, at=-1000), record(MEMORY, -3, at=-1000))])
def test_a_flood_of_suppressed_lines_is_held_in_bounded_space(first: tuple[LogRecord, ...]) -> None:
    detector = Detector()
    assert len(first) == sum(len(detector.feed(each)) for each in first)
    for ordinal in range(1000):
        detector.feed(record(SUPPRESSED, ordinal * 2, at=0))
    assert MAX_UNDECIDED + 1 == len(detector.feed(record(MEMORY, 5000, at=0)))


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("6,1234,5678901,-;TCP: x\n", DevKmsg(6, 0, 1234, 5.678901, "-", "TCP: x")),
        ("30,1,0,-,caller=T12;a;b", DevKmsg(6, 3, 1, 0.0, "-", "a;b")),
        ("4,1,0,c;x\n SUBSYSTEM=net\n DEVICE=+net:eth0\n", DevKmsg(4, 0, 1, 0.0, "c", "x")),
        ("4,1,0,-;caf\\xc3\\xa9 \\x5cx", DevKmsg(4, 0, 1, 0.0, "-", "caf\u00e9 \\x")),
    ],
)
def test_a_devkmsg_record_is_taken_apart(raw: str, expected: DevKmsg) -> None:
    assert expected == parse_devkmsg(raw)


@pytest.mark.parametrize("raw", ["", "6,1,2;x", "x,1,2,-;x", "TCP: too many orphaned sockets"])
def test_what_is_no_devkmsg_record_is_quoted_in_the_error(raw: str) -> None:
    with pytest.raises(ValueError, match="not a /dev/kmsg record: "):
        parse_devkmsg(raw)
