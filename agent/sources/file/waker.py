"""Hints that a log has changed, from watchdog (inotify(7)); the files decide."""

import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from watchdog.events import (
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer

from agent.sources.file.content import Identity

if TYPE_CHECKING:
    from watchdog.observers.api import BaseObserver, ObservedWatch

STOP_SECONDS = 1.0
# A busy log would wake us for every line: lines closer together than this are read together.
SHORTEST_TURN_SECONDS = 0.01
# The pause after a first failure; each further one doubles it, since it costs watchdog 6 three descriptors for good.
RETRY_SECONDS = 60.0


class Waker(Protocol):
    """Hints that now is a good time to look; wrong at times."""

    def watch(self, directories: Mapping[str, Identity]) -> str | None:
        """Watch exactly these directories, given with device and inode; return why that fails, or None."""

    def wait(self, timeout: float) -> None:
        """Return at a hint, or after ``timeout`` seconds."""

    def close(self) -> None:
        """Stop watching."""


class DirectoryWaker:
    """Wakes at changes in directories. watchdog's threads only set an event."""

    def __init__(self) -> None:
        self._woken = threading.Event()
        self._observer: BaseObserver | None = None
        self._watches: dict[tuple[str, Identity], ObservedWatch] = {}
        self._trouble: str | None = None
        self._retry_at, self._pause = 0.0, RETRY_SECONDS
        self._waited_at = 0.0
        self._was_hinted = False

    def watch(self, directories: Mapping[str, Identity]) -> str | None:
        """Watch these directories; a new directory of an old name is watched anew."""
        wanted = set(directories.items())
        is_new = wanted != set(self._watches)
        if is_new and self._trouble and time.monotonic() < self._retry_at:
            return self._trouble
        try:
            if is_new:
                self._change(wanted)
            self._trouble, self._pause = None, RETRY_SECONDS
        except (OSError, RuntimeError) as error:  # RuntimeError: the unit's TasksMax= is reached, or the host's limit.
            self._trouble = f"a directory cannot be watched ({getattr(error, 'strerror', None) or error})"
            self._retry_at, self._pause = time.monotonic() + self._pause, 2 * self._pause
        return self._trouble

    def wait(self, timeout: float) -> None:
        """Wait for a change."""
        if self._was_hinted:
            time.sleep(min(timeout, max(0.0, self._waited_at + SHORTEST_TURN_SECONDS - time.monotonic())))
        self._was_hinted = self._woken.wait(timeout)
        self._woken.clear()
        self._waited_at = time.monotonic()

    def close(self) -> None:
        """Stop the threads."""
        if self._observer:
            self._observer.stop()
            self._observer.join(STOP_SECONDS)
            self._observer = None

    def _change(self, wanted: set[tuple[str, Identity]]) -> None:
        if self._observer is None:
            observer = Observer()
            observer.start()
            self._observer = observer
        for key in set(self._watches) - wanted:
            self._observer.unschedule(self._watches.pop(key))
        changes: list[type[FileSystemEvent]] = [FileCreatedEvent, FileDeletedEvent, FileModifiedEvent, FileMovedEvent]
        for key in wanted - set(self._watches):
            # Without a filter our own opening and closing of files would wake us.
            self._watches[key] = self._observer.schedule(_Wake(self._woken), key[0], event_filter=changes)


class _Wake(FileSystemEventHandler):
    """Sets an event and no more: an exception in a handler silently ends watchdog's thread."""

    def __init__(self, woken: threading.Event) -> None:
        self._woken = woken

    def dispatch(self, event: FileSystemEvent) -> None:
        del event
        self._woken.set()
