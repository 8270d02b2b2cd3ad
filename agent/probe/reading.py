"""Reads a tree shaped like /proc and collects the raw text and the gaps.

A file that every kernel has (``needed``) leaves a gap if it is missing; one that only some kernels have leaves a gap
only if it exists but cannot be read or parsed.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from agent.core.kernel.procfs import ParseError
from agent.core.readings import Gap
from agent.probe.files import Unreadable, read_text, readable_name

T = TypeVar("T")


class Reading:
    """The raw text (by path below the root) and the gaps of one snapshot."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.raw: dict[str, str] = {}
        self.gaps: list[Gap] = []

    def parse(self, name: str, parser: Callable[[str, str], T], *, needed: bool = False) -> T | None:
        """Read a file below the root, keep its text, and parse it; None leaves its reason among the gaps."""
        text = read_text(f"{self.root}/{name}")  # Joining Path objects costs as much as reading the file.
        if isinstance(text, Unreadable):
            if needed or not text.absent:
                self.miss(name, text.why)
            return None
        self.raw[name] = text
        try:
            return parser(text, name)
        except ParseError as error:
            self.miss(name, error.why)
            return None

    def miss(self, name: str, why: str) -> None:
        """Add a gap for a file below the root."""
        self.gaps.append(Gap(what=readable_name(self.root / name), why=why))

    def has_missed(self, name: str) -> bool:
        """Return whether a file below the root left a gap."""
        what = readable_name(self.root / name)
        return any(gap.what == what for gap in self.gaps)
