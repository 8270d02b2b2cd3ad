"""The raw texts of the snapshots, within a budget: sixty snapshots of a long incident would make the page too large.

The first snapshot and the one at the peak come first; of the others as many as fit. What is left out is said.
"""

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup, escape

from agent.core.format import printable
from agent.core.kernel.limits import sample_of
from agent.core.model import Sample, Snapshot

_BUDGET_CHARS = 400_000
_TEXT_CHARS = 60_000
_LINE_CHARS = 20_000


class Raw(NamedTuple):
    """One snapshot: file, content, and its escaped texts by path, or none if the budget was spent."""

    name: str
    snapshot: Snapshot
    gauges: Sample
    texts: tuple[tuple[str, Markup], ...]
    spent: bool


def raw_evidence(snapshots: Sequence[tuple[str, Snapshot]]) -> list[Raw]:
    """Choose the texts within the budget, oldest snapshot first."""
    left, chosen = _BUDGET_CHARS, dict[str, tuple[tuple[str, Markup], ...]]()
    others = sorted(snapshots[1:], key=lambda pair: -(sample_of(pair[1]).orphan or 0))
    for name, snapshot in (*snapshots[:1], *others):
        texts = tuple((path, visible(text)) for path, text in sorted(snapshot.raw.items()))
        size = sum(len(path) + len(text) for path, text in texts)
        if size <= left:
            chosen[name], left = texts, left - size
    return [
        Raw(name, snapshot, sample_of(snapshot), chosen.get(name, ()), spent=name not in chosen)
        for name, snapshot in snapshots
    ]


def visible(text: str) -> Markup:
    """Escape a text of several lines, show control and bidi characters, and cut what is too long."""
    shown = "\n".join(printable(line, _LINE_CHARS) for line in text[:_TEXT_CHARS].rstrip("\n").split("\n"))
    return escape(shown + "\n…" if len(text) > _TEXT_CHARS else shown)
