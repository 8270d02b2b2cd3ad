from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.kernel.messages import MESSAGES
from agent.core.logs.prefilter import MARKERS, MAX_LINE_BYTES, REPEATS, candidates, runs
from agent.sources.search import HOLDS, holds_by_find

PIECES = [*MARKERS, *REPEATS, b"\n", b"\n\n", b"\0", b"x" * 50, b"Out of socket", b" memory", b"\xff"]


def by_splitting(block: bytes) -> list[tuple[int, bytes]]:
    """What candidates() has to find, in the slow and obvious way."""
    found, offset, follows = [], 0, True
    for line in block.split(b"\n"):
        follows = any(marker in line for marker in MARKERS) or (follows and any(repeat in line for repeat in REPEATS))
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
OTHER = b"Nov 22 15:05:39 web2 kernel: [7.%06d] TCP: too many orphaned sockets"
NUMBERED = b'<6>1 2024-08-18T08:33:14.%03dZ jp58 kernel - - [meta sequenceId="%d"] Out of socket memory'
JOURNAL = (
    b'{"__CURSOR":"s=5ad8;i=%x","__REALTIME_TIMESTAMP":"1723962794%06d","__MONOTONIC_TIMESTAMP":"%d",'
    b'"_TRANSPORT":"kernel","_SOURCE_MONOTONIC_TIMESTAMP":"%d","MESSAGE":"Out of socket memory"}'
)

SOURCED = (JOURNAL % (1, 1, 1, 1)).replace(b'"MESSAGE"', b'"_SOURCE_REALTIME_TIMESTAMP":"%b","MESSAGE"')


def counts(block: bytes) -> list[list[int]]:
    return [[count for _, _, count in together] for together in runs(block, HOLDS)]


@pytest.mark.parametrize(
    ("line", "again"),
    [
        (b"kernel: Out of socket memory", b"kernel: Out of socket memory"),
        (SAME % 1, SAME % 2),
        (SAME % 1, SAME.replace(b"[7", b"[8") % 1),
        (b"2024-08-18T08:33:14.204518+02:00 a kernel: " + SAME, b"2024-08-18T08:33:14.204519+02:00 a kernel: " + SAME),
        (NUMBERED % (204, 8), NUMBERED % (205, 10)),
        (JOURNAL % (7, 204518, 85047, 85046), JOURNAL % (9, 204611, 112233, 112200)),
        (SOURCED % b"1723962794000001", SOURCED % b"1723962794000002"),
    ],
)
def test_what_is_said_again_within_a_second_is_counted(line: bytes, again: bytes) -> None:
    block = b"\n".join((line, line, again, again))

    assert [[(0, line, 1)], [(2 * len(line) + len(again) + 3, again, 3)]] == list(runs(block, HOLDS))


def test_what_is_said_again_is_counted_whatever_stands_between() -> None:
    lines = (SAME % 1, OTHER % 2, b"Nov 22 15:05:39 web1 sshd[7]: closed", SAME % 3, OTHER % 4, OTHER % 5, SAME % 6)
    at = list(accumulate((len(line) + 1 for line in lines), initial=0))

    assert [
        [(at[0], lines[0], 1)],
        [(at[1], lines[1], 1)],
        [(at[5], lines[5], 2), (at[6], lines[6], 2)],
    ] == list(runs(b"\n".join(lines), HOLDS))


def test_what_was_counted_comes_before_anything_new() -> None:
    lines = (SAME % 1, SAME % 2, SAME % 3, OTHER % 4, SAME % 5, OTHER % 6)

    assert [[1], [2], [1], [1, 1]] == counts(b"\n".join(lines))


@pytest.mark.parametrize(
    ("line", "other"),
    [
        (SAME % 1, SAME.replace(b"39", b"40") % 1),  # Another second
        (SAME % 1, SAME.replace(b"web1", b"web2") % 1),
        (SAME % 1, SAME.replace(b"web1", b"10.000001") % 1),
        (SAME % 1, SAME % 1 + b" "),
        (SAME % 1, SAME.replace(b"TCP", b"DCC") % 1),
        (SAME.replace(b"web1", b"::10:20:30.104.5.6") % 1, SAME.replace(b"web1", b"::10:20:30.105.5.6") % 1),
        (NUMBERED % (1, 1), NUMBERED.replace(b"33:14", b"33:15") % (1, 1)),
        (JOURNAL % (1, 1, 1, 1), JOURNAL.replace(b"1723962794", b"1723962795") % (1, 1, 1, 1)),
        (SOURCED % b"1723962794000001", SOURCED % b"1723962795000001"),
    ],
)
def test_what_differs_in_more_than_fine_stamps_stays_apart(line: bytes, other: bytes) -> None:
    assert [[1], [1]] == counts(line + b"\n" + other)


@pytest.mark.parametrize(
    "line",
    [
        b"kernel: net_ratelimit: 22 callbacks suppressed",
        b"last message repeated 3 times",
        b"                - Last output repeated 3 times -",
        b"Last message 'Out of socket memory' repeated 3 times",
    ],
)
def test_what_depends_on_its_neighbours_is_never_taken_together_nor_left_out(line: bytes) -> None:
    said = b"Out of socket memory"

    assert [[1], [1], [1], [1], [1], [1]] == counts(b"\n".join([said, line, line, said, said, line]))


@given(
    st.lists(st.sampled_from([*PIECES, b"\n" + SAME % 1 + b"\n", SAME % 2 + b"\n", OTHER % 3 + b"\n"])).map(b"".join)
)
def test_runs_are_the_candidates_and_their_number(block: bytes) -> None:
    found = list(candidates(block, HOLDS))
    taken = [run for together in runs(block, HOLDS) for run in together]

    assert len(found) == sum(count for _, _, count in taken)
    assert sorted(start for start, _, _ in taken) == [start for start, _, _ in taken]
    assert set(found) >= {(start, line) for start, line, _ in taken}
    assert found[:1] + found[-1:] == [each[:2] for each in taken[:1] + taken[-1:]]


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
