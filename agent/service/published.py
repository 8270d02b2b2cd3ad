"""Files that other users' programs read: status.json and the metrics.

Each is replaced in one step, mode 0644 whatever the umask, when what it says has changed, and every so often as a sign
of life. Nothing is flushed to disk: the next start writes them anew.
"""

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

from agent.store.disk import closing_descriptor, naming, write_all

MODE = 0o644


class Published:
    """One such file; a failed attempt is repeated at the next change or when one is due, and counts until then."""

    def __init__(self, path: Path, every_seconds: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.path = path
        self._every_seconds = every_seconds
        self._monotonic = monotonic
        self._content: object = None
        self._tried_at = float("-inf")
        self._error: OSError | None = None

    def update(self, content: object, encode: Callable[[], bytes]) -> None:
        """Write what ``encode`` returns if ``content`` is new, or the last attempt too long ago; raises OSError."""
        now = self._monotonic()
        if content != self._content or now - self._tried_at >= self._every_seconds:
            self._content, self._tried_at, self._error = content, now, None
            try:
                replace_public(self.path, encode())
            except OSError as error:
                self._error = error
        if self._error:
            raise self._error.with_traceback(None)  # Else it grows with every turn.


def replace_public(path: Path, data: bytes) -> None:
    """Put a file for everybody in place in one step."""
    aside = path.with_name(f".{path.name}.new")
    with naming(path):
        aside.unlink(missing_ok=True)  # What a crash left.
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            with closing_descriptor(os.open(aside, flags, MODE)) as descriptor:
                os.fchmod(descriptor, MODE)
                write_all(descriptor, data)
            aside.rename(path)
        except OSError:
            with contextlib.suppress(OSError):
                aside.unlink()
            raise
