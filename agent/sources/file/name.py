"""The path a log is followed by: which file it means now, and why it cannot be read. See stat(2), open(2)."""

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from agent.sources.file.content import Content, Identity, OnProgress, check_regular, say
from agent.sources.gaps import Gaps

# A rotation leaves the path without a file for milliseconds, which is no gap.
MISSING_PATIENCE = timedelta(seconds=5)
READABLE = "can be read now"


class InitialContent(NamedTuple):
    """What a file held before we started; if the file is unknown, all it holds when it opens."""

    identity: Identity | None
    size: int


def look_at_initial_content(path: str) -> InitialContent | None:
    """Look at a log before it is followed; None if there is none yet, and all of it will be new."""
    try:
        status = Path(path).stat()
    except FileNotFoundError:
        return None
    except OSError:
        return InitialContent(None, 0)
    return InitialContent((status.st_dev, status.st_ino), status.st_size)


class WatchedPath:
    """Looks at one path, and reports each problem once, and where it could not be read, that it can."""

    def __init__(self, path: str, now: Callable[[], datetime], gaps: Gaps, on_progress: OnProgress) -> None:
        self.path = path
        self._on_progress = on_progress
        self._now = now
        self._gaps = gaps
        self._missing_since: datetime | None = None
        # Its status cannot be read, and the file cannot be opened: the second may be so without the first.
        self._is_hidden = self._is_closed = False

    def means(self, identity: Identity) -> bool | None:
        """Return whether the path means this file; None if that cannot be seen, or it means no file."""
        try:
            status = Path(self.path).stat()
            check_regular(status)
        except FileNotFoundError:
            self._tell_missing(MISSING_PATIENCE)
            return False
        except OSError as error:
            self._is_hidden = True
            self._gaps.state(self.path, say(error))
            return None
        self._is_there()
        return identity == (status.st_dev, status.st_ino)

    def open(self, path: str | None = None, *, patience: timedelta = MISSING_PATIENCE) -> Content | None:
        """Open the log, or another file of its family, or report why that fails."""
        path = path or self.path
        try:
            content = Content(path, self._on_progress)
        except FileNotFoundError:
            if path == self.path:
                self._tell_missing(patience)
            return None
        except OSError as error:
            self._is_closed |= path == self.path
            self._gaps.state(path, say(error))
            return None
        if path == self.path:
            self._is_there()
            self._gaps.fixed(path, READABLE if self._is_closed else "")
            self._is_closed = False
        return content

    def _tell_missing(self, patience: timedelta) -> None:
        self._missing_since = self._missing_since or self._now()
        if self._now() - self._missing_since >= patience:
            self._gaps.state(self.path, "no such file yet; following starts when it appears")

    def _is_there(self) -> None:
        if self._missing_since or self._is_hidden:
            self._gaps.fixed(self.path, READABLE if self._is_hidden else "")
            self._missing_since, self._is_hidden = None, False
