"""The search in a block of a log by the C library: for a literal by memmem(3), for newlines by memchr(3)."""

import ctypes

from agent.core.logs.prefilter import Holds


def holds_by_find(block: bytes, marker: bytes) -> bool:
    """Return whether a block holds a marker, by Python's own search."""
    return marker in block


def newlines(block: bytes) -> int:
    """Count newlines; bytes.replace goes from one to the next by memchr, while bytes.count looks at each byte.

    Measured as below: 0.04 s instead of 0.12 s, and 0.26 s with Debian's Python 3.11.
    """
    return len(block) - len(block.replace(b"\n", b""))


def _choose() -> Holds:
    """Choose memmem, the fast one.

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
