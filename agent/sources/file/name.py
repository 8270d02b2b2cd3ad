"""The name that a log is followed by: what it means now, and what hinders us from reading it. See stat(2), open(2)."""

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from agent.sources.file.content import Content, Identity, OnProgress, say
from agent.sources.gaps import Gaps

# A rotation leaves the name empty for milliseconds, which is nothing to tell.
MISSING_PATIENCE = timedelta(seconds=5)


class InitialContent(NamedTuple):
    """What was in a file before we began; of an unknown file, all that is there when it opens."""

    identity: Identity | None
    size: int


def look_at_initial_content(path: str) -> InitialContent | None:
    """Look what is in a log before it is followed; None where there is none yet, and all that comes is new."""
    try:
        status = Path(path).stat()
    except FileNotFoundError:
        return None
    except OSError:
        return InitialContent(None, 0)
    return InitialContent((status.st_dev, status.st_ino), status.st_size)


class WatchedPath:
    """Looks at one path, and tells each trouble once."""

    def __init__(self, path: str, now: Callable[[], datetime], gaps: Gaps, on_progress: OnProgress) -> None:
        self.path = path
        self._on_progress = on_progress
        self._now = now
        self._gaps = gaps
        self._missing_since: datetime | None = None

    def means(self, identity: Identity) -> bool | None:
        """Return whether the path means this file; None where that cannot be seen."""
        try:
            status = Path(self.path).stat()
        except FileNotFoundError:
            self._tell_missing(MISSING_PATIENCE)
            return False
        except OSError as error:
            self._gaps.state(self.path, say(error))
            return None
        self._is_there()
        return identity == (status.st_dev, status.st_ino)

    def open(self, path: str | None = None, *, patience: timedelta = MISSING_PATIENCE) -> Content | None:
        """Open the log, or another file of its family, or tell why that cannot be."""
        path = path or self.path
        try:
            content = Content(path, self._on_progress)
        except FileNotFoundError:
            if path == self.path:
                self._tell_missing(patience)
            return None
        except OSError as error:
            self._gaps.state(path, say(error))
            return None
        if path == self.path:
            self._is_there()
            self._gaps.fixed(path)
        return content

    def _tell_missing(self, patience: timedelta) -> None:
        self._missing_since = self._missing_since or self._now()
        if self._now() - self._missing_since >= patience:
            self._gaps.state(self.path, "is not there; following begins when it appears")

    def _is_there(self) -> None:
        if self._missing_since:
            self._missing_since = None
            self._gaps.fixed(self.path)
