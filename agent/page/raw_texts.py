"""The raw texts of the snapshots, within a budget: a day-long incident has sixty snapshots, and a page must stay small.

The first snapshot and the one at the peak come first; of the others as many as fit. What is left out is said.
"""

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup, escape

from agent.core.format import printable
from agent.core.model import Snapshot
from agent.core.readings import TcpSockstat

_BUDGET_CHARS = 400_000
_TEXT_CHARS = 60_000
_LINE_CHARS = 20_000


class Raw(NamedTuple):
    """One snapshot: its file, what it is, and its escaped texts by path; none of them where the budget was spent."""

    name: str
    snapshot: Snapshot
    gauges: TcpSockstat
    texts: tuple[tuple[str, Markup], ...]
    spent: bool


def raw_evidence(snapshots: Sequence[tuple[str, Snapshot]]) -> list[Raw]:
    """Choose the texts, in the order of time."""
    left, chosen = _BUDGET_CHARS, dict[str, tuple[tuple[str, Markup], ...]]()
    for name, snapshot in sorted(snapshots, key=lambda pair: _rank(pair[1], snapshots)):
        texts = tuple((path, visible(text)) for path, text in sorted(snapshot.raw.items()))
        size = sum(len(path) + len(text) for path, text in texts)
        chosen[name] = texts if size <= left else ()
        left -= size if size <= left else 0
    return [_raw(name, snapshot, chosen[name]) for name, snapshot in snapshots]


def visible(text: str) -> Markup:
    """Escape a text of several lines, make control and bidi characters visible, and cut what is too long."""
    shown = "\n".join(printable(line, _LINE_CHARS) for line in text[:_TEXT_CHARS].rstrip("\n").split("\n"))
    return escape(shown + "\n…" if len(text) > _TEXT_CHARS else shown)


def _rank(snapshot: Snapshot, snapshots: Sequence[tuple[str, Snapshot]]) -> tuple[int, float]:
    first = snapshots[0][1]
    orphan = _gauges(snapshot).orphan or 0
    return (0 if snapshot is first else 1, -orphan)


def _raw(name: str, snapshot: Snapshot, texts: tuple[tuple[str, Markup], ...]) -> Raw:
    return Raw(name, snapshot, _gauges(snapshot), texts, spent=bool(snapshot.raw) and not texts)


def _gauges(snapshot: Snapshot) -> TcpSockstat:
    return snapshot.sockstat.tcp if snapshot.sockstat else TcpSockstat()
