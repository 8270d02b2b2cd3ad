"""What a source could not read, skipped or lost: reported once, not every second."""

from collections.abc import Iterator

from agent.core.readings import Gap


class Gaps:
    """Collects gaps until they are drained."""

    def __init__(self) -> None:
        self._lasting: dict[Gap, None] = {}
        self._pending: dict[Gap, None] = {}

    def state(self, what: str, why: str) -> bool:
        """Report what lasts: once, and again only after ``fixed``; return whether it is news."""
        gap = Gap(what=what, why=why)
        is_news = gap not in self._lasting
        if is_news:
            self._lasting[gap] = None
            self._pending[gap] = None
        return is_news

    def occurrence(self, what: str, why: str) -> None:
        """Report what happened, once per drain."""
        self._pending[Gap(what=what, why=why)] = None

    def fixed(self, what: str, how: str = "") -> None:
        """Forget the lasting gaps of what works again; report ``how``, if there were any."""
        before, self._lasting = self._lasting, {gap: None for gap in self._lasting if gap.what != what}
        if how and self._lasting != before:
            self.occurrence(what, how)

    def lasting(self) -> Iterator[Gap]:
        """Yield what has lasted since it was reported, the oldest first."""
        return iter(self._lasting)

    def drain(self) -> tuple[Gap, ...]:
        """Return what was reported since the last call."""
        drained = tuple(self._pending)
        self._pending.clear()
        return drained
