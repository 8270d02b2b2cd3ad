"""The files of one log after rotation, in the order they were written, and the place of a cursor in them.

Mirrors logrotate(8): ``create``, ``copytruncate``, ``dateext``, ``extension``, ``compress``, ``delaycompress``; also
savelog(8) and dated files behind a symbolic link (cronolog); also svlogd, multilog, s6-log and metalog, which call the
log ``current`` and rename it to its time. Families, oldest first::

    messages.3.gz  messages.2.gz  messages.1  messages
    kern-20261120.log.xz  kern-20261121.log  kern.log

    messages.0  messages.1  messages.2  messages          (numbers that count up)
    @4000000066c195b40c30a9f8.s  @4000000066c1a3c41b2f0a10.u  current
    log-2026-11-20-08:33:14  current

Names alone do not give the order: numbers count down (logrotate) or up, dates come in every notation, and people move
files by hand. So names and times together do; a file last written before ours is not younger than ours; and a file that
lay beside the log while it was the log never is.

A cursor's file is recognized by device and inode if its content at the cursor is the same, else by that content alone:
a copy, a compressed file, a file system mounted again under another device number.
"""

import contextlib
import errno
import itertools
import os
import re
import stat
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from agent.core.cursor import FileCursor
from agent.sources.file.content import PACKED_ENDINGS, Content, Identity, OnProgress, digest

# A compressed file has to be unpacked up to the offset; more than this would delay reading too long.
SEARCH_BYTES = 2 << 30
# Some tools copy a file's time in whole seconds.
CLOCK_SLACK_NS = 2_000_000_000

_TOKEN = re.compile(r"(?P<behind>[._-])(?P<token>\d[\w:+-]*(?:\.\d+)*|old)")
_DIGITS_OF_A_DATE = 6
_CURRENT = "current"
_OF_CURRENT = re.compile(r"@([0-9a-f]{24})\.[su]|log-(\d{4}-\d\d-\d\d-\d\d:\d\d:\d\d)")
_TAI64N = re.compile(r"[0-9a-f]{24}")
_ROTATION_NUMBER = re.compile(r"\d{1,5}")
_LOOKS = 5
# The token of a file that has none.
STRANGER = "?"
_SECOND_NS = 1_000_000_000


class NamedFile(NamedTuple):
    """A file as listed; ``token`` is what the rotation added to its name, "" for the log itself."""

    path: str
    token: str
    device: int
    inode: int
    size: int
    written_ns: int

    @property
    def identity(self) -> Identity:
        """Device and inode: what a rename keeps."""
        return self.device, self.inode


def list_family(path: str) -> tuple[NamedFile, ...]:
    """List the rotated files of a log and, last, the log itself if it exists; in the order of writing.

    A file renamed while its directory is read can be missed, so two equal listings are needed. Raises BlockingIOError
    when there are none: try again later.
    """
    seen = _look(path)
    for _ in range(_LOOKS):
        again = _look(path)
        if _names(again) == _names(seen):
            return again
        seen = again
    raise BlockingIOError(errno.EAGAIN, "is being rotated")


def locate(
    path: str, place: FileCursor, on_progress: OnProgress, *, since_ns: int = 0, but: Identity | None = None
) -> NamedFile | None:
    """Find the file that holds a place, or None; neither ``but`` nor a file last written before ``since_ns`` does.

    Raises BlockingIOError as list_family does, and another OSError if it may be the log and that cannot be read.
    """
    for _ in range(_LOOKS):
        family = list_family(path)
        found = _locate([file for file in family if file.identity != but], place, since_ns, on_progress)
        # A file renamed between listing and opening would seem to be missing.
        if found or _names(list_family(path)) == _names(family):
            return found or _find_stranger(path, place, but, on_progress)
    raise BlockingIOError(errno.EAGAIN, "is being rotated")


class KnownOlder:
    """The files beside a log while it is read under its own name: older than it, whatever their names later."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._changed_ns = -1
        self._known: dict[Identity, tuple[int, int]] = {}

    def look(self, log: Identity, is_unchanged: Callable[[], bool]) -> None:
        """List the directory if it has changed; raises as list_family does.

        It counts if the path still means this log and the log is unchanged since it was read to its end: after
        copytruncate it is the same file, and the files beside it may be copies that were not read.
        """
        changed_ns = Path(os.path.realpath(self._path)).parent.stat().st_mtime_ns
        if changed_ns == self._changed_ns:
            return
        family = list_family(self._path)
        if family and family[-1].identity == log and is_unchanged():
            self._changed_ns = changed_ns
            self._known = {file.identity: (file.size, file.written_ns) for file in family[:-1]}

    def __contains__(self, file: object) -> bool:
        """Return whether the file is known and unchanged: an inode may have been reused."""
        return isinstance(file, NamedFile) and self._known.get(file.identity) == (file.size, file.written_ns)


def list_younger(
    path: str, place: FileCursor, written_ns: int, on_progress: OnProgress, known_older: Container[NamedFile] = ()
) -> list[NamedFile]:
    """List the files started after that of ``place``, oldest first, without ``known_older``.

    ``written_ns`` is when that file was last written, or earlier if it was already being written then.
    """
    family = list_family(path)
    return [
        file
        for file in _behind(family, place, written_ns, on_progress)
        if not file.token or not (file in known_older or _ended_before(file, written_ns))
    ]


def _behind(
    family: tuple[NamedFile, ...], place: FileCursor, written_ns: int, on_progress: OnProgress
) -> Sequence[NamedFile]:
    """Return what follows our file; by the times if it no longer has a name."""
    identities = [file.identity for file in family]
    own = (place.device, place.inode)
    if own in identities:
        return family[identities.index(own) + 1 :]
    if not any(file.size for file in family if not file.token or file.written_ns >= written_ns):
        return ()
    # It may be compressed by now. A log that starts with the same bytes is another one: ours was deleted.
    packed = _locate_packed(tuple(file for file in family if file.token), place, written_ns, on_progress)
    if packed:
        return family[family.index(packed) + 1 :]
    return [file for file in family if not file.token or file.written_ns > written_ns]


def _ended_before(file: NamedFile, written_ns: int) -> bool:
    # Times kept in whole seconds make a file look older than it is.
    resolution = 1 if file.written_ns % _SECOND_NS else _SECOND_NS
    return file.written_ns // resolution < written_ns // resolution


def _locate(family: Sequence[NamedFile], place: FileCursor, since_ns: int, on_progress: OnProgress) -> NamedFile | None:
    for file in family:
        if file.inode == place.inode and _holds(file, place, on_progress):
            return file
    if place.offset == 0:
        return None  # Nothing was read, so there is no content to compare.
    return next((file for file in _worth_a_look(family, place, since_ns) if _holds(file, place, on_progress)), None)


# Asked in each turn until a new log has its first line, which may take days.
@lru_cache(maxsize=8)
def _locate_packed(
    rotated: tuple[NamedFile, ...], place: FileCursor, since_ns: int, on_progress: OnProgress
) -> NamedFile | None:
    return _locate(rotated, place, since_ns, on_progress)


def _find_stranger(path: str, place: FileCursor, but: Identity | None, on_progress: OnProgress) -> NamedFile | None:
    """Find the inode under any other name, in the directories of the log and of what it links to."""
    for directory in {Path(path).absolute().parent, Path(os.path.realpath(path)).parent}:
        with contextlib.suppress(OSError), os.scandir(directory) as entries:
            for entry in entries:
                file = _named(entry.path, STRANGER) if entry.inode() == place.inode else None
                if file and file.identity != but and _holds(file, place, on_progress):
                    return file
    return None


def _holds(file: NamedFile, place: FileCursor, on_progress: OnProgress) -> bool:
    try:
        with contextlib.closing(Content(file.path, on_progress)) as content:
            if content.packed or content.status().st_size >= place.offset:
                return digest(content.marker_at(place.offset)) == place.marker
    except OSError:
        if not file.token and file.identity == (place.device, place.inode):
            raise
    return False


def _worth_a_look(family: Sequence[NamedFile], place: FileCursor, since_ns: int) -> Iterator[NamedFile]:
    """Yield the youngest first, and only as many compressed ones as can be unpacked in reasonable time."""
    left = max(2, SEARCH_BYTES // place.offset)
    for file in reversed(family):
        if file.written_ns < since_ns - CLOCK_SLACK_NS:
            continue
        left -= _is_packed(file)
        if left >= 0:
            yield file


def _look(path: str) -> tuple[NamedFile, ...]:
    log = _named(path, "")
    siblings: dict[tuple[int, int], NamedFile] = {}
    for name in {str(Path(path).absolute()), os.path.realpath(path)}:
        for file in _siblings(name):
            if log is None or file.identity != log.identity:
                siblings[file.identity] = file
    ordered = _in_order(_without_duplicates(siblings.values()), log)
    return (*ordered, log) if log else tuple(ordered)


def _names(family: Iterable[NamedFile]) -> list[tuple[str, Identity]]:
    return [(file.path, file.identity) for file in family]


def _siblings(path: str) -> Iterator[NamedFile]:
    log = Path(path)
    with contextlib.suppress(OSError), os.scandir(log.parent) as entries:
        for entry in entries:
            token = _token(entry.name, log.name) or (log.suffix and _token(entry.name, log.stem, log.suffix))
            file = _named(entry.path, token) if token else None
            if file:
                yield file


def _token(name: str, stem: str, extension: str = "") -> str:
    """Read what a rotation added to a name: ``1`` of messages.1.gz, ``20261121`` of kern-20261121.log.

    A number follows a dot, a hyphen only precedes a date: app-2.log is the log of another app.
    """
    if stem == _CURRENT and (renamed := _OF_CURRENT.fullmatch(name)):
        return renamed[1] or renamed[2]
    if not name.startswith(stem):
        return ""
    if _ending(name) in PACKED_ENDINGS:
        name = name.removesuffix(_ending(name))
    if not name.endswith(extension):
        return ""
    match = _TOKEN.fullmatch(name[len(stem) :].removesuffix(extension))
    if match is None or (match["behind"] != "." and len(re.findall(r"\d", match["token"])) < _DIGITS_OF_A_DATE):
        return ""
    return match["token"]


def _without_duplicates(files: Iterable[NamedFile]) -> Iterator[NamedFile]:
    """Leave out a compressed file while its original exists: it may be half written."""
    by_token: dict[str, NamedFile] = {}
    for file in files:
        known = by_token.get(file.token)
        if known is None or _is_packed(known):
            by_token[file.token] = file
    return iter(by_token.values())


def _in_order(files: Iterable[NamedFile], log: NamedFile | None) -> list[NamedFile]:
    """Sort by rotation number if all have one, else by time: dates in names come in every notation."""
    files = list(files)
    if all(_ROTATION_NUMBER.fullmatch(file.token) for file in files):
        falling = sorted(files, key=lambda file: -int(file.token))
        return falling[::-1] if _counts_up(falling, log) else falling
    return sorted(files, key=lambda file: (file.written_ns // _SECOND_NS, _natural(file.token)))


def _counts_up(falling: Sequence[NamedFile], log: NamedFile | None) -> bool:
    """Return whether the times of most pairs make the higher number the younger; logrotate's is the older.

    Some tools do not keep the time of what they compress, which then looks younger: that is no evidence. Nor are times
    that make the log older than a rotated file: the directory is a copy, made in the order of names.
    """
    if log and log.size and any(file.written_ns > log.written_ns for file in falling):
        return False
    votes = 0
    for higher, lower in itertools.pairwise(falling):
        older, younger = sorted((higher, lower), key=lambda file: file.written_ns)
        if _ended_before(older, younger.written_ns) and (_is_packed(older) or not _is_packed(younger)):
            votes += 1 if younger is higher else -1
    return votes > 0


def _natural(token: str) -> list[int]:
    if _ROTATION_NUMBER.fullmatch(token):
        return [-int(token)]
    if _TAI64N.fullmatch(token):
        return [int(token, 16)]
    return [int(number) for number in re.findall(r"\d+", token)]


def _named(path: str, token: str) -> NamedFile | None:
    try:
        status = Path(path).stat()
    except OSError:
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    return NamedFile(path, token, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def _ending(path: str) -> str:
    return Path(path).suffix


def _is_packed(file: NamedFile) -> bool:
    return _ending(file.path) in PACKED_ENDINGS
