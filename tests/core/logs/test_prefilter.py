import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.kernel.messages import MESSAGES
from agent.core.logs.prefilter import MARKERS, MAX_LINE_BYTES, REPEAT, candidates, runs
from agent.sources.search import HOLDS, holds_by_find

PIECES = [*MARKERS, REPEAT, b"\n", b"\n\n", b"\0", b"x" * 50, b"Out of socket", b" memory", b"\xff"]


def by_splitting(block: bytes) -> list[tuple[int, bytes]]:
    """What candidates() has to find, in the slow and obvious way."""
    found, offset, follows = [], 0, True
    for line in block.split(b"\n"):
        follows = any(marker in line for marker in MARKERS) or (follows and REPEAT in line)
        if follows:
            found.append((offset, line))
        offset += len(line) + 1
    return found


@given(st.lists(st.sampled_from(PIECES)).map(b"".join))
def test_candidates_are_what_splitting_would_find(block: bytes) -> None:
    assert by_splitting(block) == list(candidates(block, HOLDS))


@given(st.lists(st.sampled_from(PIECES)).map(b"".join), st.sampled_from(MARKERS))
def test_both_ways_of_searching_agree(block: bytes, marker: bytes) -> None:
    assert holds_by_find(block, marker) == HOLDS(block, marker)


SAME = b"Nov 22 15:05:39 web1 kernel: [7.%06d] TCP: too many orphaned sockets"


@pytest.mark.parametrize(
    ("line", "again"),
    [
        (b"kernel: Out of socket memory", b"kernel: Out of socket memory"),
        (SAME % 1, SAME % 2),
        (SAME % 1, SAME.replace(b"[7", b"[8") % 1),
        (b"2024-08-18T08:33:14.204518+02:00 a kernel: " + SAME, b"2024-08-18T08:33:14.204519+02:00 a kernel: " + SAME),
    ],
)
def test_what_is_said_again_within_a_second_is_counted(line: bytes, again: bytes) -> None:
    block = b"\n".join((line, line, again, again))

    assert [(0, line, 1), (3 * len(line) + 3, again, 3)] == list(runs(block, HOLDS))


@pytest.mark.parametrize(
    "other",
    [
        SAME.replace(b"39", b"40") % 1,  # Another second
        SAME.replace(b"web1", b"web2") % 1,
        SAME.replace(b"web1", b"10.000001") % 1,
        b"\n" + SAME % 1,
        SAME % 1 + b" ",
        SAME.replace(b"TCP", b"DCC") % 1,
    ],
)
def test_what_differs_in_more_than_fine_stamps_stays_apart(other: bytes) -> None:
    assert [1, 1] == [count for _, _, count in runs(SAME % 1 + b"\n" + other, HOLDS)]


@pytest.mark.parametrize("line", [b"kernel: net_ratelimit: 22 callbacks suppressed", b"last message repeated 3 times"])
def test_what_depends_on_its_neighbours_is_never_taken_together(line: bytes) -> None:
    assert [1, 1, 1, 1] == [count for _, _, count in runs(b"Out of socket memory\n" + b"\n".join([line] * 3), HOLDS)]


@given(st.lists(st.sampled_from([*PIECES, b"\n" + SAME % 1 + b"\n", SAME % 2 + b"\n"])).map(b"".join))
def test_runs_are_the_candidates_and_their_number(block: bytes) -> None:
    found = list(candidates(block, HOLDS))

    assert len(found) == sum(count for _, _, count in runs(block, HOLDS))
    assert set(found) >= {(start, line) for start, line, _ in runs(block, HOLDS)}
    assert found[:1] + found[-1:] == [each[:2] for each in [*runs(block, HOLDS)][:1] + [*runs(block, HOLDS)][-1:]]


def test_a_block_without_markers_gives_nothing() -> None:
    assert [] == list(candidates(b"", HOLDS))
    assert [] == list(
        candidates(b"kernel: eth0: link up\nkernel: all sockets are fine\nlast message was lost\n", HOLDS)
    )


def test_a_line_too_long_for_the_kernel_is_left_out() -> None:
    exact = MARKERS[0].ljust(MAX_LINE_BYTES, b"x")
    assert [(0, exact)] == list(candidates(exact + b"\n" + exact + b"x\n", HOLDS))


@pytest.mark.parametrize(
    "text",
    [
        "Out of socket memory",
        "TCP: too many of orphaned sockets",
        "TCP: too many orphaned sockets",
        "TCP: out of memory -- consider tuning tcp_mem",
        "printk: 58 messages suppressed.",
        "__ratelimit: 8552 callbacks suppressed",
        "net_ratelimit: 142 callbacks suppressed",
    ],
)
def test_every_message_of_the_kernel_holds_a_marker(text: str) -> None:
    assert any(pattern.fullmatch(text) for _, pattern in MESSAGES)
    assert [(0, text.encode())] == list(candidates(text.encode(), HOLDS))


def test_text_that_journald_writes_as_an_array_of_bytes_is_found_in_json_only() -> None:
    line = b'{"_TRANSPORT":"kernel","MESSAGE":[84,67,80]}'

    assert [(0, line)] == list(candidates(line + b"\n", HOLDS))
    assert [] == list(candidates(b"Nov 22 " + line + b"\n", HOLDS))
