"""Lines that hold a literal marker, found in blocks of bytes before anything is decoded or split.

Mirrors ``grep -F``: ordinary lines cost one pass of the C library's memmem(3) for each marker. Every text of core.kmsg,
in every envelope, holds one of the markers; most lines that hold one are no events, and core.kmsg decides.
"""

import ctypes
import re
from collections.abc import Callable, Iterator

MAX_LINE_BYTES = 64 * 1024

# Few and long needles are the fast ones. "message repeated 3 times: [ ... ]" quotes its message, so it needs none.
MARKERS = (
    b"Out of socket memory",
    b"orphaned sockets",
    b"out of memory -- consider tuning tcp_mem",
    b"s suppressed",
)
# journald writes text that is not clean as an array of bytes, which holds no text to look for.
JSON_MARKERS = (*MARKERS, b'"MESSAGE":[', b'"MESSAGE" : [', b'"MESSAGE": [')
# "last message repeated 3 times" means something only directly behind a line that holds a marker.
REPEAT = b"ast message "
# The markers of events: their lines say the same whatever stands around them.
SAID = MARKERS[:3]
# Of a stamp, printk's or another's.
_MICROSECONDS = re.compile(rb"(?<=\d[.,])\d{6}(?!\d)")


def candidates(block: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (offset, line without its newline) of each line of a block of complete lines that could matter.

    That is a line with a marker, and a line that may repeat one: directly behind it, or first in the block, where
    nobody here can tell what stood before. Lines over MAX_LINE_BYTES are no kernel's and are left out.
    """
    markers = JSON_MARKERS if block[:1] == b"{" else MARKERS
    ahead = {marker: block.find(marker) for marker in markers if HOLDS(block, marker)}
    start = 0
    while start < len(block):
        end = _line_end(block, start)
        if block.find(REPEAT, start, end) < 0:
            if not ahead:
                return
            at = min(ahead.values())
            start, end = block.rfind(b"\n", start, at) + 1 or start, _line_end(block, at)
        if end - start <= MAX_LINE_BYTES:
            yield start, block[start:end]
        start = end + 1
        for marker in [marker for marker, at in ahead.items() if at < end]:
            ahead[marker] = block.find(marker, end)
            if ahead[marker] < 0:
                del ahead[marker]


def _line_end(block: bytes, at: int) -> int:
    end = block.find(b"\n", at)
    return end if end >= 0 else len(block)


def runs(block: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Yield (offset, line, count) of the candidates, where what is said again within the same second is counted.

    Of lines one behind the other that differ in nothing but microseconds, the first comes alone, so that what stood
    before has its neighbour, and all others as the last of them. A flood costs little more than the search for it.
    """
    last: tuple[int, bytes] | None = None
    count = 0
    for start, line in candidates(block):
        if last and start == last[0] + len(last[1]) + 1 and _is_said_again(last[1], line):
            count += 1
        else:
            if last and count:
                yield *last, count
            yield start, line, 1
            count = 0
        last = start, line
    if last and count:
        yield *last, count


def _is_said_again(line: bytes, following: bytes) -> bool:
    """Tell whether two neighbours are one message of one second; what depends on its neighbours is no message."""
    if len(line) != len(following) or not any(marker in line for marker in SAID):
        return False
    return line == following or _MICROSECONDS.sub(b"", line) == _MICROSECONDS.sub(b"", following)


def holds_by_find(block: bytes, marker: bytes) -> bool:
    """Say whether a block holds a marker, by Python's own search."""
    return marker in block


def _choose() -> Callable[[bytes, bytes], bool]:
    """Choose the C library's memmem where there is one.

    Measured with Python 3.11 and glibc 2.36 on 300 MB of ordinary log in blocks of 64 KiB: the four needles take
    0.10 s by memmem, 0.36 s by ``in``, and 1.9 s as one ``re``. benchmarks/scan.py holds it against ``grep -F``.
    """
    try:
        memmem = ctypes.CDLL(None).memmem
    except (AttributeError, OSError, TypeError):
        return holds_by_find
    memmem.argtypes = (ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t)
    memmem.restype = ctypes.c_void_p

    def holds_by_memmem(block: bytes, marker: bytes) -> bool:
        return memmem(block, len(block), marker, len(marker)) is not None

    return holds_by_memmem


HOLDS = _choose()
