"""Lines that hold a literal marker, found in blocks of bytes before anything is decoded or split.

Mirrors ``grep -F``: ordinary lines cost one search for each marker, and the caller brings the search
(agent.sources.search). Every text of core.kernel.messages, in every envelope, holds one of the markers; most lines that
hold one are no events, and core.kernel.messages decides.
"""

import re
from collections.abc import Callable, Iterator

# Whether a block holds a marker.
Holds = Callable[[bytes, bytes], bool]
# A candidate's offset, itself, and how many that say the same it stands for.
Run = tuple[int, bytes, int]

MAX_LINE_BYTES = 64 * 1024
# Stands before what is shown of a line that is longer, and makes it no line of the kernel's.
TOO_LONG = b'"... '

# Few and long needles are the fast ones. "message repeated 3 times: [ ... ]" quotes its message, so it needs none.
MARKERS = (
    b"Out of socket memory",
    b"orphaned sockets",
    b"consider tuning tcp_mem",
    b"s suppressed",
)
# journald writes text that is not clean as an array of bytes, which holds no text to look for.
JSON_MARKERS = (*MARKERS, b'"MESSAGE":[', b'"MESSAGE" : [', b'"MESSAGE": [')
# "last message repeated 3 times" means something only directly behind a line that holds a marker.
REPEATS = (b"ast message ", b"ast output ")
# Printk's stamp, the fraction of a second of another, and RFC 5424's number of a message (7.3.1).
_FINE_STAMPS = re.compile(
    rb"[\[.,=](?:(?<=\[) *\d{1,12}\.\d{6}\]|(?<=\d\d:\d\d:\d\d.)\d{3,9}(?![\d.])|(?<=sequenceId=)\"\d+\")"
)
# The same in journalctl -o json, where times are microseconds, and its seconds.
_JOURNAL_NUMBERS = re.compile(
    rb"_(?:CURSOR\":\"[\w=;]+|SEQNUM\":\"\d+|MONOTONIC_TIMESTAMP\":\"\d+|REALTIME_TIMESTAMP\":\"\d{16})(?=\")"
)
_JOURNAL_SECONDS = re.compile(rb"_REALTIME_TIMESTAMP\":\"(\d{10})\d{6}\"")


def candidates(block: bytes, holds: Holds) -> Iterator[tuple[int, bytes]]:
    """Yield (offset, line without its newline) of each line of a block of complete lines that could matter.

    That is a line with a marker, and a line that may repeat one: directly behind it, or first in the block, where
    what stood before is not known here. Lines over MAX_LINE_BYTES are no kernel's and are left out.
    """
    markers = JSON_MARKERS if block[:1] == b"{" else MARKERS
    size = len(block)
    ahead = [(_find(block, marker, 0), marker) for marker in markers if holds(block, marker)]
    nearest = min(ahead, default=(size, b""))[0]
    start = 0
    while start < size:
        end = _find(block, b"\n", start)
        if nearest >= end and all(block.find(repeat, start, end) < 0 for repeat in REPEATS):
            if nearest == size:
                return
            start = block.rfind(b"\n", start, nearest) + 1 or start
            end = _find(block, b"\n", nearest)
        if end - start <= MAX_LINE_BYTES:
            yield start, block[start:end]
        start = end + 1
        if nearest < end:
            ahead = [(at if at >= end else _find(block, marker, end), marker) for at, marker in ahead]
            nearest = min(ahead)[0]


def _find(block: bytes, what: bytes, start: int) -> int:
    at = block.find(what, start)
    return at if at >= 0 else len(block)


def runs(block: bytes, holds: Holds) -> Iterator[list[Run]]:
    """Yield the candidates, where what is said again within the same second is counted, whatever stands between.

    Of lines that differ in nothing but their fine stamps and own numbers, the first comes alone, so that what stood
    before has its neighbor, and all others as the last of them, before anything new is said. The lines of one list
    stand among each other: a position lies behind them all. A flood costs little more than finding it.
    """
    known: set[bytes] = set()
    again: dict[bytes, Run] = {}
    for start, line in candidates(block, holds):
        said = _unstamped(line)
        if said in known:
            before = again.pop(said, None)
            again[said] = start, line, before[2] + 1 if before else 1
            continue
        if again:
            yield [*again.values()]
            again = {}
        yield [(start, line, 1)]
        if said:
            known.add(said)
        else:
            known.clear()
    if again:
        yield [*again.values()]


def _unstamped(line: bytes) -> bytes:
    """Take off what tells a message of one second from its like; b"" where it matters what stands around the line."""
    if REPEATS[0] in line or not (MARKERS[0] in line or MARKERS[1] in line or MARKERS[2] in line):
        return b""
    if b"__CURSOR" in line:
        return b"".join(_JOURNAL_SECONDS.findall(line)) + _JOURNAL_NUMBERS.sub(b"", line)
    return _FINE_STAMPS.sub(b"", line)
