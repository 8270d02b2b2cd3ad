"""Failures the service survives: each logged once, and in the status until it is over."""

import contextlib
import logging
from collections.abc import Iterator

from agent.store import explain

log = logging.getLogger("sockmem-agent")


class Troubles:
    """What fails now, in the order it started."""

    def __init__(self) -> None:
        self._lasting: dict[str, None] = {}

    def __contains__(self, what: str) -> bool:
        return what in self._lasting

    def __iter__(self) -> Iterator[str]:
        return iter(self._lasting)

    @contextlib.contextmanager
    def survived(self, what: str, surprise: type[Exception] = OSError) -> Iterator[None]:
        """Go on after an OSError that loses no event, or after any ``surprise`` in what is not needed to watch."""
        try:
            yield
        except (OSError, surprise) as error:
            if what not in self._lasting:
                why, is_slip = (explain(error), False) if isinstance(error, OSError) else (repr(error), True)
                log.error("%s; still watching: %s", what, why, exc_info=is_slip)  # noqa: TRY400 - the text says it
            self._lasting[what] = None
        else:
            self._lasting.pop(what, None)
