"""One record of /dev/kmsg taken apart (Documentation/ABI/testing/dev-kmsg).

6,1842,84211114207,-;TCP: too many orphaned sockets
"""

import re
from typing import NamedTuple

DEVKMSG = re.compile(r"(\d{1,9}),(\d{1,20}),(\d{1,20}),([^,;\n]*)(?:,[^;\n]*)?;([^\n]*)(?:\n.*)?", re.DOTALL)
ESCAPE = re.compile(rb"\\x([0-9a-fA-F]{2})")


class DevKmsg(NamedTuple):
    """One record of /dev/kmsg; ``priority`` is the level 0 to 7, ``timestamp`` seconds since boot."""

    priority: int
    facility: int
    sequence: int
    timestamp: float
    flags: str
    text: str


def parse_devkmsg(raw: str) -> DevKmsg:
    """Take one /dev/kmsg record apart (Documentation/ABI/testing/dev-kmsg); its dictionary lines are left out.

    Raises ValueError that quotes the record when it is not ``PRI,SEQ,TS_USEC,FLAGS[,KEY=VALUE...];TEXT``.
    """
    match = DEVKMSG.fullmatch(raw)
    if match is None:
        raise ValueError(f"not a /dev/kmsg record: {raw[:200]!r}")
    priority, sequence, microseconds, flags, text = match.groups()
    return DevKmsg(
        priority=int(priority) & 7,
        facility=int(priority) >> 3,
        sequence=int(sequence),
        timestamp=int(microseconds) / 1e6,
        flags=flags,
        text=_unescape(text),
    )


def _unescape(text: str) -> str:
    if "\\x" not in text:
        return text
    raw = ESCAPE.sub(lambda match: bytes([int(match[1], 16)]), text.encode(errors="surrogateescape"))
    return raw.decode(errors="replace")
