"""Lines that hold a literal marker, found in blocks of bytes before anything is decoded or split.

Mirrors ``grep -F``: ordinary lines cost one search for each marker, and the caller brings the search
(agent.sources.search). Every text of core.kernel.messages, in every envelope, holds one of the markers; most lines that
hold one are no events, and core.kernel.messages decides.
"""

import re
from collections.abc import Callable, Iterator

# Whether a block holds a marker.
Holds = Callable[[bytes, bytes], bool]

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
REPEAT = b"ast message "
# Printk's stamp, and the microseconds of another.
_FINE_STAMPS = re.compile(rb"\[ *\d{1,12}\.\d{6}\]|(?<=:\d\d[.,])\d{6}(?!\d)")


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
        if nearest >= end and block.find(REPEAT, start, end) < 0:
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


def runs(block: bytes, holds: Holds) -> Iterator[tuple[int, bytes, int]]:
    """Yield (offset, line, count) of the candidates, where what is said again within the same second is counted.

    Of lines in a row that differ in nothing but microseconds and printk's stamp, the first comes alone, so that what
    stood before has its neighbour, and all others as the last of them. A flood costs little more than finding it.
    """
    start, line, alike, count = 0, b"", b"", 0
    for following, text in candidates(block, holds):
        is_next = following == start + len(line) + 1
        unstamped = alike if text == line else _unstamped(text)
        if is_next and alike and unstamped == alike:
            count += 1
        else:
            if count:
                yield start, line, count
            yield following, text, 1
            count = 0
        start, line, alike = following, text, unstamped
    if count:
        yield start, line, count


def _unstamped(line: bytes) -> bytes:
    """Take off what tells a message of one second from its like; b"" where it matters what stands around the line."""
    said = MARKERS[0] in line or MARKERS[1] in line or MARKERS[2] in line
    return _FINE_STAMPS.sub(b"", line) if said else b""
