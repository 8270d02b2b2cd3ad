"""Failures the service survives: each logged once, and in the status until it is over."""

import contextlib
import logging
from collections.abc import Iterator

from agent.store import explain

log = logging.getLogger("sockmem-agent")


class Troubles:
    """What fails now, in the order it started."""

    def __init__(self) -> None:
        # And whether it is a slip of ours.
        self._lasting: dict[str, bool] = {}

    def __contains__(self, what: str) -> bool:
        return what in self._lasting

    def __iter__(self) -> Iterator[str]:
        return iter(self._lasting)

    def begin(self, what: str) -> None:
        """Note what lasts until ``end``; the caller has logged why."""
        self._lasting.setdefault(what, False)

    @contextlib.contextmanager
    def survived(self, what: str, surprise: type[Exception] = OSError, *, is_part: bool = False) -> Iterator[None]:
        """Go on after an OSError that loses no event, or after any ``surprise`` in what is not needed to watch.

        What goes well ends the trouble, unless it ``is_part`` of what failed.
        """
        try:
            yield
        except (OSError, surprise) as error:
            why, is_slip = (explain(error), False) if isinstance(error, OSError) else (repr(error), True)
            if what not in self._lasting:
                log.error("%s; still watching: %s", what, why, exc_info=is_slip)  # noqa: TRY400 - the text says it
            self._lasting[what] = is_slip or self._lasting.get(what, False)
        else:
            if not is_part:
                self.end(what)

    def end(self, what: str) -> None:
        """End a trouble. A slip stays until the next start: what went well since was something else."""
        if not self._lasting.get(what):
            self._lasting.pop(what, None)
