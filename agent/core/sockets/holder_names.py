"""One name for whoever holds sockets, and whether they hold enough to be named.

Names are chosen by whoever may make a cgroup or a process: they are made printable, and the kernel's own words are
taken out, so that no text of ours can look like a kernel record to our own detector.
"""

import re

from agent.core.format import printable
from agent.core.model import Cause, Holder

# The least that anybody is named for: so many orphans, or this part of the memory that TCP may use.
ORPHANS_WORTH_NAMING = 16
_PART_WORTH_NAMING = 1 / 32
_NAME_AT_MOST = 120
_KERNEL_TEXT = re.compile(
    r"out of socket memory|too many (of )?orphaned sockets|consider tuning tcp_mem|callbacks suppressed", re.IGNORECASE
)


def matters(holder: Holder, cause: Cause, limits_bytes: tuple[int, int, int] | None) -> bool:
    """Tell whether somebody holds enough to be named for it; ``limits_bytes`` is tcp_mem in bytes."""
    heavy = limits_bytes is not None and holder.bytes >= _PART_WORTH_NAMING * limits_bytes[2]
    if cause == "orphans":
        return heavy or holder.orphans >= ORPHANS_WORTH_NAMING
    return heavy or limits_bytes is None


def name_of(holder: Holder) -> str | None:
    """Say a holder in one name that may stand in any text; None for the remainder."""
    place = " in ".join(filter(None, (holder.unit, holder.container)))
    if place and holder.unit is None and holder.process:
        place += f" ({holder.process})"
    name = place or holder.process
    return _KERNEL_TEXT.sub("…", printable(name, _NAME_AT_MOST)) if name else None


def guess_text(holder: Holder) -> str:
    """Say that a holder is a guess, and by what; nothing where a cgroup or an open socket names it."""
    if not holder.guess:
        return ""
    return f"a guess: it serves port {holder.ports[0]}" if holder.ports else "a guess: no cgroup says so"


def marked(name: str, holder: Holder) -> str:
    """Put the mark of a guess behind the name of a holder."""
    return f"{name} ({mark})" if (mark := guess_text(holder)) else name
