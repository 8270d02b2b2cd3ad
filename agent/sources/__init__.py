"""Where lines come from: a source is opened by kind and read in batches."""

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timezone
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

from agent.core.cursor import Cursor
from agent.core.model import LogRecord
from agent.core.readings import Gap
from agent.sources.localzone import LocalZone

if TYPE_CHECKING:  # `scan` reads no configuration.
    from agent.core.settings import SourceSettings


class Source(Protocol):
    """Where records come from."""

    def read(self) -> Iterator[LogRecord]:
        """Yield one batch: only records that could matter."""

    def wait(self, timeout: float) -> None:
        """Return when there may be more, or after ``timeout`` seconds."""

    def position(self) -> Cursor:
        """Return where the source was read to; moves on even when nothing matched."""

    def before(self) -> Mapping[str, int]:
        """Return the line directly before the position, where it is known: its ordinal by its source.

        A restart knows by that what the next line follows.
        """

    def gaps(self) -> tuple[Gap, ...]:
        """Return what could not be read since the last call, each once."""

    def troubles(self) -> list[str]:
        """Say what of it cannot be followed now, and why."""

    def close(self) -> None:
        """Close everything."""


def local_now() -> datetime:
    """Return the time with the local zone's current offset as a fixed one: differences are then right."""
    return datetime.now(timezone.utc).astimezone()


def open_source(
    settings: "SourceSettings",
    cursor: Cursor,
    now: Callable[[], datetime],
    on_progress: Callable[[], None] = lambda: None,
) -> Source:
    """Open the configured source; ``auto`` is already resolved.

    ``on_progress`` is called during steps that may take minutes, such as the search for the position in a large
    compressed log. The modules are imported here so that a host without libsystemd can follow a file.
    """
    if settings.kind == "journal":
        from agent.sources.journal import JournalSource  # noqa: PLC0415 - see the docstring

        return JournalSource(settings.directory, settings.start, cursor)
    if settings.kind == "file":
        from agent.sources.file.source import LogFileSource  # noqa: PLC0415 - see the docstring

        # A time without a zone has the offset of its own day, as in `scan`.
        return LogFileSource(
            settings.paths,
            cursor,
            settings.start,
            lambda: now().astimezone(LocalZone()),
            on_progress=on_progress,
        )
    from agent.sources.kmsg import KmsgSource  # noqa: PLC0415 - see the docstring

    return KmsgSource(start=settings.start, cursor=cursor, now=now)


def import_parser(settings: "SourceSettings") -> None:
    """Import what waits for a line of a text log and parses it: a tenth of all imports, which come after READY=1."""
    if settings.kind == "file":
        import_module("agent.sources.file.waker")
        import_module("agent.core.logs.records")


def describe(settings: "SourceSettings") -> str:
    """Name a source for messages."""
    if settings.kind == "file":
        return ", ".join(settings.paths)
    return "the journal" if settings.kind == "journal" else "/dev/kmsg"
