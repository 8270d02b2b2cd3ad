"""Where every source was read to, and which commit on disk is the newest."""

from typing import Annotated

import msgspec
from msgspec.structs import replace

from agent.core.stored import Natural

NOTHING_YET = "nothing-yet"


class FileCursor(msgspec.Struct, frozen=True, kw_only=True):
    """A place in a log file that survives rename, copy and truncation.

    ``marker`` is a digest of the bytes just before ``offset``: a file truncated and grown past the old offset, or an
    inode used again, has other bytes there. ``written_ns`` is when the file had last been written (st_mtime_ns) when
    it was read up to there: whatever was finished before that is older news (None: an older release wrote this).
    ``head`` is a digest of the file's first bytes: one that has lost its end, as by a power cut, still has them, one
    that was truncated has others ("": not known).
    """

    device: int
    inode: int
    offset: Natural
    marker: str
    written_ns: int | None = None
    head: str = ""


class KmsgCursor(msgspec.Struct, frozen=True, kw_only=True):
    """The last record read from /dev/kmsg, -1 before the first of a boot: numbers start again at every boot."""

    boot_id: str
    sequence: Annotated[int, msgspec.Meta(ge=-1)]


class Cursor(msgspec.Struct, frozen=True, kw_only=True):
    """Where every source was read to; ``files`` is keyed by the path as configured.

    ``journal`` is libsystemd's cursor, or NOTHING_YET where there was no entry at all: all of it is news then.
    ``machines`` has another for each machine, by its id, where a directory holds the journals of several.
    """

    files: dict[str, FileCursor] = {}
    journal: str | None = None
    machines: dict[str, str] = {}
    kmsg: KmsgCursor | None = None


class Resume(msgspec.Struct, frozen=True, kw_only=True):
    """Where to read on after a crash: the position that this file's content covers.

    Of cursor.json and the newest incidents, the highest ``generation`` is the truth: an incident and the position
    behind its last event are therefore committed by one rename, and no event is lost or counted twice.
    """

    generation: Natural
    cursor: Cursor


def merge(old: Cursor, new: Cursor) -> Cursor:
    """Keep the positions of logs that are not followed today, but none of another kind of source.

    A log that is followed again goes on where it was left. Another kind has the same events under other names, and
    what was reported from one must not be reported again from the other. A source without any position, because it
    cannot be read, has reported nothing: it takes nothing away, of whatever kind it is.
    """
    if new.files:
        return replace(new, files=old.files | new.files)
    return new if new.journal or new.machines or new.kmsg else old
