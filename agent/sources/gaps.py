"""What a source could not read, skipped or lost: told once, not every second."""

from agent.core.readings import Gap


class Gaps:
    """Collects gaps until they are drained."""

    def __init__(self) -> None:
        self._standing: set[Gap] = set()
        self._pending: dict[Gap, None] = {}

    def state(self, what: str, why: str) -> None:
        """Tell of something that lasts; again only after it was mended."""
        gap = Gap(what=what, why=why)
        if gap not in self._standing:
            self._standing.add(gap)
            self._pending[gap] = None

    def occurrence(self, what: str, why: str) -> None:
        """Tell of something that happened, once for each time that the gaps are drained."""
        self._pending[Gap(what=what, why=why)] = None

    def mend(self, what: str) -> None:
        """Forget the states of a thing that works again."""
        self._standing = {gap for gap in self._standing if gap.what != what}

    def drain(self) -> tuple[Gap, ...]:
        """Hand over what was told since the last time."""
        drained = tuple(self._pending)
        self._pending.clear()
        return drained
