"""The incident directories: ``<state>/incidents/<id>/``.

``incident.json`` is written last and is the commit point: a snapshot or notice that it does not name does not exist
yet. A crash may leave a directory without it: its evidence is kept, and the replay of the same record finds it by id.
"""

import errno
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import datetime, timezone
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from msgspec.json import Decoder
from msgspec.structs import replace

from agent.core import model
from agent.core.cursor import Cursor, Resume
from agent.core.delivery import Receipt
from agent.core.model import BriefNotice, Incident, Notice, Snapshot
from agent.core.readings import Gap
from agent.core.recurrence import Past, past_of
from agent.core.settings import StoreSettings
from agent.core.stored import YEARS
from agent.store.access import explain
from agent.store.disk import (
    StoreError,
    UnreadableError,
    encode_json,
    hold_lock,
    make_directory,
    make_unflushed_directory,
    point,
    read_json,
    read_regular,
    set_aside,
    sync_directory,
    write_json,
    write_together,
    write_unflushed,
    write_whole,
)
from agent.store.history import History

log = logging.getLogger("sockmem-agent")

T = TypeVar("T")
N = TypeVar("N", Notice, BriefNotice)

INCIDENT_FILE = "incident.json"
SUMMARY_FILE = "summary.txt"
LAST = "last"
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}
# Incidents that even the slowest disk reads within seconds.
PROGRESS_SPACING = 100
INTERRUPTED = "interrupted before it was committed; the evidence in it is kept"
_ID = re.compile(r"(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z-[0-9a-f]{4}", re.ASCII)
_SNAPSHOT_FILE = re.compile(r"snapshot-\d{3,9}\.json", re.ASCII)


class NoSuchIncident(Exception):  # noqa: N818 - not an error of the program
    """No incident has this id, or several begin with it; the text is one clear line."""


class Store:
    """The state directory: commands read it, one service writes it.

    ``on_progress`` is called while many incidents are read, which may take minutes.
    """

    def __init__(
        self,
        directory: Path,
        settings: StoreSettings | None = None,
        *,
        on_progress: Callable[[], None] = lambda: None,
    ) -> None:
        self.directory = directory
        self.settings = settings or StoreSettings()
        self._on_progress = on_progress
        self._incidents = directory / "incidents"
        self.samples = History(directory / "history")
        # What the next commit puts in place before its incident, and the directories with names that it flushes.
        self._staged: dict[Path, bytes] = {}
        self._unflushed: set[Path] = set()
        self._meanwhile = _nothing

    def open_for_writing(self) -> int:
        """Make the directories and take the lock (the returned descriptor); StoreError says why that fails."""
        try:
            for directory in (self._incidents, self.samples.directory):
                if os.path.lexists(directory) and not directory.is_dir():
                    set_aside(directory, "not a directory")
                make_directory(directory)
            return hold_lock(self.directory)
        except OSError as error:
            raise StoreError(f"{self.directory}: not writable ({explain(error)}); see sockmem-agent doctor") from error

    # --- reading ----------------------------------------------------------------------------------------------------

    def ids(self) -> list[str]:
        """List the committed incidents, oldest first."""
        return sorted(name for name in self.names() if os.path.lexists(self.path(name) / INCIDENT_FILE))

    def path(self, incident_id: str) -> Path:
        """Return the directory of an incident."""
        return self._incidents / incident_id

    def resolve(self, text: str) -> str:
        """Return the one id that begins with this text, or the ``last`` one."""
        ids = self.ids()
        found = ids[-1:] if text == "last" else [i for i in ids if i == text] or [i for i in ids if i.startswith(text)]
        if not text or not found:
            raise NoSuchIncident(f"no incident {text!r} in {self._incidents}; see sockmem-agent incidents list")
        if len(found) > 1:
            shown = ", ".join(found[:5]) + (", ..." if len(found) > 5 else "")  # noqa: PLR2004 - enough to choose from
            raise NoSuchIncident(f"{text!r} begins {len(found)} incidents: {shown}; type more of the id")
        return found[0]

    def load(self, incident_id: str) -> Incident:
        """Read an incident."""
        path = self._file(incident_id, INCIDENT_FILE)
        incident = read_json(path, model.INCIDENT)
        if incident.id != incident_id:
            raise UnreadableError(path, f"it is that of incident {incident.id!r}", is_damage=True)
        return incident

    def past(self, incident_id: str) -> Past:
        """Read the little of an incident that is kept to count its kind; before 0.3 that takes the whole of it."""
        signed = read_json(self._file(incident_id, INCIDENT_FILE), model.SIGNED)
        if signed.signature is None or signed.id != incident_id:
            return past_of(self.load(incident_id))
        return past_of(signed)

    def snapshots(self, incident_id: str, unread: list[Gap] | None = None) -> list[tuple[str, Snapshot]]:
        """Read the snapshots an incident names, oldest first, each with its name; ``unread`` takes what cannot be."""
        return self.snapshots_of(self.load(incident_id), unread)

    def snapshots_of(self, incident: Incident, unread: list[Gap] | None = None) -> list[tuple[str, Snapshot]]:
        """Read the snapshots that an incident names, also of one that only another's commit holds."""
        return list(self._readable(incident.id, incident.snapshots, model.SNAPSHOT, unread))

    def newest_snapshot(self, incident: Incident) -> list[tuple[str, Snapshot]]:
        """Read the newest snapshot that an incident names, with its name; none where it cannot be read."""
        return list(self._readable(incident.id, incident.snapshots[-1:], model.SNAPSHOT, None))

    def notices(
        self, incident_id: str, unread: list[Gap] | None = None
    ) -> list[tuple[str, Notice, dict[str, Receipt]]]:
        """Read an incident's notices, each with its name and the receipts by channel; ``unread`` takes what cannot be.

        A receipt counts by its name: one that cannot be read is shown as given up, and its notice is not sent again. A
        state channel that was added later has one of a notice that does not name it.
        """
        return list(self._notices(self.load(incident_id), model.NOTICE, unread))

    def notices_of(self, incident: Incident, unread: list[Gap] | None = None) -> Iterator[tuple[str, Notice]]:
        """Read the notices that an incident names, also of one that only another's commit holds."""
        return self._readable(incident.id, incident.notices, model.NOTICE, unread)

    def brief_notices(
        self, incident: Incident, unread: list[Gap] | None = None
    ) -> list[tuple[str, BriefNotice, dict[str, Receipt]]]:
        """Do as ``notices``, with the little of each that tells what became of it."""
        return list(self._notices(incident, model.BRIEF_NOTICE, unread))

    def read_each(self, unread: dict[str, str]) -> Iterator[Incident]:
        """Read every incident, one at a time, oldest first; ``unread`` takes why others cannot be.

        One that was pruned meanwhile is neither.
        """
        for name in sorted(self.names()):
            try:
                yield self.load(name)
            except StoreError as error:
                if not isinstance(error.__cause__, FileNotFoundError):
                    closed = isinstance(error.__cause__, PermissionError)
                    unread[name] = "permission denied; use sudo" if closed else str(error)
                elif self.path(name).is_dir():
                    unread[name] = INTERRUPTED

    # --- writing ----------------------------------------------------------------------------------------------------

    def new_directory(self, incident_id: str) -> bool:
        """Make the directory of an incident; False when a committed incident has this id already."""
        path = self.path(incident_id)
        if (path / INCIDENT_FILE).exists():
            return False
        if not self._incidents.is_dir():
            self._make_again(self._incidents)
        make_unflushed_directory(path)
        self._unflushed.add(self._incidents)
        return True

    def left_behind(self, incident_id: str, named: tuple[str, ...] = ()) -> list[tuple[str, Snapshot]]:
        """Read the snapshots that a crash left in the directory of an incident whose commit names these only.

        The next commit flushes their names, as it does those of ``write_snapshot``.
        """
        unread: list[Gap] = []
        names = sorted({*filter(_SNAPSHOT_FILE.fullmatch, self.files(incident_id))} - {*named})
        found = list(self._readable(incident_id, names, model.SNAPSHOT, unread))
        for gap in unread:
            log.warning("%s", gap.why)
        self._unflushed.add(self.path(incident_id))
        return found

    def write_snapshot(self, incident_id: str, number: int, snapshot: Snapshot, *, at_commit: bool = False) -> str:
        """Write a snapshot under the next free number from ``number`` on, and return its name.

        One that a crash left under this number is nearer to the event, and stays. ``at_commit``: the next commit, of
        whatever incident, writes it.
        """
        while os.path.lexists(path := self.path(incident_id) / f"snapshot-{number:03}.json"):
            number += 1
        self._staged[path] = encode_json(snapshot)
        if not at_commit and path.parent.is_dir():  # Where it is not, a commit makes it again.
            write_whole(path, self._staged.pop(path))
            self._unflushed.add(path.parent)
        return path.name

    def amend_snapshot(self, incident_id: str, name: str, snapshot: Snapshot) -> None:
        """Rewrite a snapshot with what was found since."""
        path = self.path(incident_id) / name
        if path in self._staged or not path.parent.is_dir():  # As above.
            self._staged[path] = encode_json(snapshot)
        else:
            write_json(path, snapshot)

    def write_notice(self, incident_id: str, number: int, notice: Notice) -> str:
        """Have the next commit, of whatever incident, write a notice; return its name."""
        path = self.path(incident_id) / f"notice-{number:03}.json"
        self._staged[path] = encode_json(notice)
        return path.name

    def do_meanwhile(self, work: Callable[[], None]) -> None:
        """Have the next commit do this while the disk works; it must not raise."""
        self._meanwhile = work

    def commit(self, incident: Incident) -> None:
        """Write what waits for a commit, and then incident.json: from now on all it names exists.

        Where there is no room, summary.txt makes some; directories that somebody has removed are made again.
        """
        path = self.path(incident.id) / INCIDENT_FILE
        files, names = {**self._staged, path: encode_json(incident)}, sorted(self._unflushed)
        meanwhile, self._meanwhile = self._meanwhile, _nothing
        try:
            write_together(files, names, meanwhile)
        except FileNotFoundError:
            for directory in {path.parent for path in files}:
                self._make_again(directory)
            write_together(files, names, _nothing)
        except OSError as error:
            if error.errno not in _NO_ROOM or not self._give_up_summary(incident.id):
                raise
            write_together(files, names, _nothing)
        self._staged.clear()
        self._unflushed.clear()

    def point_last(self, incident_id: str) -> None:
        """Make the link ``last`` lead to an incident that was committed, unless a newer one is there.

        It is a convenience, for which nothing waits or ends: the next start and retention put it right, too.
        """
        link = self._incidents / LAST
        with suppress(OSError):
            at = os.readlink(link) if link.is_symlink() else ""  # noqa: PTH115 - as below
            if not is_id(at) or not os.path.lexists(self.path(at) / INCIDENT_FILE):
                self.point_to_newest()
            elif at < incident_id:
                point(link, incident_id)

    def write_summary(self, incident_id: str, text: str) -> None:
        """Write summary.txt, which is made of the other files: what a power cut takes of it, a start writes again."""
        write_unflushed(self.path(incident_id) / SUMMARY_FILE, text.encode("ascii"))

    def has_summary(self, incident_id: str) -> bool:
        """Return whether summary.txt is there to its last line, which ends with the incident's id."""
        try:
            return read_regular(self.path(incident_id) / SUMMARY_FILE).endswith(f"{incident_id}\n".encode())
        except OSError:
            return False

    def save_cursor(self, resume: Resume) -> None:
        """Write cursor.json."""
        if not self.directory.is_dir():
            self._make_again(self.directory)
        write_json(self.directory / "cursor.json", resume)
        sync_directory(self.directory)

    def has_cursor(self) -> bool:
        """Return whether cursor.json is there: somebody may empty the directory."""
        return os.path.lexists(self.directory / "cursor.json")

    # --- start and upkeep -------------------------------------------------------------------------------------------

    def set_broken_aside(self) -> None:
        """Set aside, when the service starts, what would stop every start, and log what else is broken.

        What a chown may make readable, or the replay of its record finds again, is logged and stays.
        """
        self.samples.set_broken_aside()
        for entry in self.one_by_one(sorted(os.scandir(self._incidents), key=lambda entry: entry.name)):
            path = self._incidents / entry.name
            try:
                if not _ID.fullmatch(entry.name):
                    continue
                if not entry.is_dir(follow_symlinks=False) or not is_id(entry.name):
                    set_aside(path, "no directory of an incident" if is_id(entry.name) else "there is no such date")
                elif not os.path.lexists(path / INCIDENT_FILE):
                    log.warning("%s: %s", path, INTERRUPTED)
                else:
                    self._check(entry.name)
            except UnreadableError as error:
                log.error("%s", error)  # noqa: TRY400 - the text is the whole story
            except OSError as error:
                log.error("%s: cannot be set aside: %s", error.filename, error.strerror)  # noqa: TRY400 - as above

    def _check(self, incident_id: str) -> None:
        """Set a damaged incident aside, or the damaged ones of its notices that are still owed."""
        directory, files = self.path(incident_id), self.files(incident_id)
        try:
            self.load(incident_id)
        except UnreadableError as error:
            if not error.is_damage:
                raise
            set_aside(directory, f"{INCIDENT_FILE}: {error.why}")
            return
        for stem in notice_stems(files):
            path = directory / f"{stem}.json"
            try:
                channels = read_json(path, model.ADDRESSED).channels
                if any(f"{stem}.{channel}.json" not in files for channel in channels):
                    read_json(path, model.NOTICE)
            except UnreadableError as error:
                if not error.is_damage:
                    raise
                set_aside(path, error.why, "; it is not sent")

    def newest_commit(self) -> tuple[Resume, list[Incident], str]:
        """Find where to resume, the open incidents, the newest commit first: at most one a host, and who has the first.

        The last is the id of the incident that says where to resume, "" where cursor.json does.

        The highest generation of cursor.json and all incidents is the truth, also for what stands beside it of other
        incidents: those have no ``resume``, since no file of their own has them so. A cursor.json that cannot be read
        is set aside: a host watched from a little later on is better than one not watched.
        """
        newest, holder = Resume(generation=0, cursor=Cursor()), ""
        path = self.directory / "cursor.json"
        try:
            newest = read_json(path, model.RESUME) if os.path.lexists(path) else newest
        except UnreadableError as error:
            set_aside(path, error.why, ": reading resumes from the newest incident")
        still_open: dict[str, int] = {}
        for incident_id in self.one_by_one(self.ids()):
            with suppress(StoreError):  # Logged at every start; one bad file must not stop the service.
                commit = read_json(self.path(incident_id) / INCIDENT_FILE, model.COMMIT)
                if commit.resume and commit.resume.generation > newest.generation:
                    newest, holder = commit.resume, incident_id
                if commit.closed_at is None:
                    still_open[incident_id] = commit.resume.generation if commit.resume else -1
        beside = dict[str, Incident]()
        with suppress(StoreError):
            beside = {each.id: replace(each, resume=None) for each in self.load(holder).beside} if holder else beside
        # Of one generation an incident's own file is the newer: it has the notices.
        beside = {each: found for each, found in beside.items() if still_open.get(each, -1) < newest.generation}
        in_order = sorted(still_open.keys() | beside.keys(), key=lambda each: (still_open.get(each, -1), each))
        return newest, [beside.get(each) or self.load(each) for each in reversed(in_order)], holder

    def flush_commits(self, incident_ids: Iterable[str]) -> None:
        """Flush the names in these incidents, for a start; logs what cannot be flushed.

        A process that was killed may have left its last rename in memory. A position that is written from now on is
        behind the lines which that rename counts, and must not outlive it in a power cut.
        """
        for incident_id in incident_ids:
            try:
                sync_directory(self.path(incident_id))
            except OSError as error:
                log.warning("%s cannot be flushed: %s", self.path(incident_id), error.strerror)

    def newest(self) -> Incident | None:
        """Read the newest incident that can be read."""
        for incident_id in reversed(self.ids()):
            try:
                return self.load(incident_id)
            except StoreError:
                continue  # Logged at every start.
        return None

    def covered(self) -> int:
        """Return the newest generation that retention cannot remove: cursor.json's or the last incident's."""
        found: list[Resume | None] = []
        with suppress(StoreError):
            found.append(read_json(self.directory / "cursor.json", model.RESUME))
        with suppress(StoreError, IndexError):
            found.append(read_json(self.path(self.ids()[-1]) / INCIDENT_FILE, model.COMMIT).resume)
        return max((resume.generation for resume in found if resume), default=0)

    def point_to_newest(self) -> None:
        """Make the link ``last`` lead to the newest incident, as ``resolve`` does; without one there is none."""
        link, newest = self._incidents / LAST, max(self.ids(), default=None)
        if newest and not (link.is_symlink() and newest == os.readlink(link)):  # noqa: PTH115 - Path's makes a Path
            point(link, newest)
        elif not newest and link.is_symlink():
            link.unlink()

    # --- inside -----------------------------------------------------------------------------------------------------

    def _make_again(self, directory: Path) -> None:
        """Make a directory that somebody has removed while the service runs: an event has to be stored."""
        if not directory.is_dir():
            make_directory(directory)
            log.warning("%s: was removed, and is made again", directory)

    def _give_up_summary(self, incident_id: str) -> bool:
        path = self.path(incident_id) / SUMMARY_FILE
        try:
            path.unlink()
        except OSError:
            return False
        log.warning("%s: deleted to make room for %s", path, INCIDENT_FILE)
        return True

    def one_by_one(self, incidents: Iterable[T]) -> Iterator[T]:
        """Iterate, and report progress meanwhile: there may be thousands."""
        for number, incident in enumerate(incidents, start=1):
            if number % PROGRESS_SPACING == 0:
                self._on_progress()
            yield incident

    def names(self) -> list[str]:
        """List the directories that are incidents by their name, committed or not."""
        try:
            return [e.name for e in os.scandir(self._incidents) if is_id(e.name) and e.is_dir(follow_symlinks=False)]
        except FileNotFoundError:
            return []

    def unchecked_names(self) -> set[str]:
        """List what is in the directory of the incidents, an incident or not."""
        try:
            return set(os.listdir(self._incidents))  # noqa: PTH208 - of thousands, Path would cost most
        except FileNotFoundError:
            return set()

    def is_incident(self, name: str) -> bool:
        """Return whether this is the directory of an incident, committed or not."""
        path = self.path(name)
        return is_id(name) and path.is_dir() and not path.is_symlink()

    def _file(self, incident_id: str, name: str = "") -> str:
        """Return the path of a file of an incident: to join Path objects takes as long as to read the file."""
        return f"{self._incidents}/{incident_id}/{name}"

    def files(self, incident_id: str) -> set[str]:
        """Return the names of the files of an incident."""
        try:
            return set(os.listdir(self._file(incident_id)))  # noqa: PTH208 - of thousands, Path would cost most
        except FileNotFoundError:
            return set()  # Pruned since it was listed.

    def _notices(
        self, incident: Incident, decoder: Decoder[N], unread: list[Gap] | None
    ) -> Iterator[tuple[str, N, dict[str, Receipt]]]:
        parts = [file.split(".") for file in sorted(self.files(incident.id))]
        for name, notice in self._readable(incident.id, incident.notices, decoder, unread):
            stem = name.removesuffix(".json")
            names = {part[1]: ".".join(part) for part in parts if part[0] == stem and part[2:] == ["json"]}
            readable = dict(self._readable(incident.id, names.values(), model.RECEIPT, unread))
            yield stem, notice, {each: readable.get(file) or _lost(notice, each) for each, file in names.items()}

    def _readable(
        self, incident_id: str, names: Iterable[str], decoder: Decoder[T], unread: list[Gap] | None
    ) -> Iterator[tuple[str, T]]:
        """Read files of an incident, each with its name; ``unread`` takes what cannot be read, and why."""
        for name in names:
            try:
                yield name, read_json(self._file(incident_id, name), decoder)
            except StoreError as error:
                if unread is not None and self.path(incident_id).is_dir():  # Not pruned since it was listed.
                    unread.append(Gap(what=name, why=str(error)))

    def receipt_path(self, incident_id: str, stem: str, channel: str) -> Path:
        """Return the path of a channel's receipt for a notice."""
        return self.path(incident_id) / f"{stem}.{channel}.json"


def _nothing() -> None:
    """Do nothing meanwhile."""


@lru_cache(maxsize=4096)
def is_id(name: str) -> bool:
    """Return whether this is the name of an incident's directory, with a possible date."""
    match = _ID.fullmatch(name)
    try:
        year, month, day, hour, minute, second = map(int, match.groups() if match else ())
        return datetime(year, month, day, hour, minute, second, tzinfo=timezone.utc).year in YEARS
    except ValueError:
        return False


def _lost(notice: Notice | BriefNotice, channel: str) -> Receipt:
    """Stand in for a receipt that cannot be read."""
    why = "its receipt cannot be read"
    return Receipt(notice=notice.id, channel=channel, outcome="gave_up", at=notice.at, attempts=0, detail=why)


def notice_stems(names: set[str]) -> list[str]:
    """Return the notices among the files of an incident, without the ending."""
    return sorted(name.removesuffix(".json") for name in names if name.startswith("notice-") and name.count(".") == 1)
