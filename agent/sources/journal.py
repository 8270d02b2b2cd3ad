"""Follow the kernel's records in the systemd journal; the only module that imports systemd-python's reader.

sd-journal(3), sd_journal_seek_cursor(3), sd_journal_wait(3), systemd.journal-fields(7). journald reads /dev/kmsg
(journald-kmsg.c) and writes for a real kernel message

    _TRANSPORT=kernel  SYSLOG_FACILITY=0  SYSLOG_IDENTIFIER=kernel  MESSAGE=TCP: too many orphaned sockets

and for what root wrote to /dev/kmsg facility 1, with ``TCP: `` moved from MESSAGE to SYSLOG_IDENTIFIER=TCP. Both fields
are matched, so such lines never get here, and ordinary entries cost nothing: the journal is indexed by field. What the
kernel's ring overwrote before journald had read it, as in a flood, journald counts in an entry of its own

    _TRANSPORT=driver  MESSAGE_ID=e9bf28e6e834481bb6f48f548ad13606  MESSAGE=Missed 5400 kernel messages

Every batch seeks from the last position instead of trusting where the reader stands: rotation, vacuuming, a damaged
file dropped and a directory created again are then one case. Measured: 0.25 ms with 60 journal files.

Within a boot libsystemd's order is right. Between two that do not share a sequence of numbers it goes by the wall
clock (compare_with_location(), and find_location_with_matches() for a file that lacks the cursor's boot), which may
have gone back: so all that is not of this boot is read first, and this boot then alone.

A log server's directory (systemd-journal-remote(8)) has the entries of many machines, whose clocks differ, and what one
of them could not send for an hour comes late, with the stamps of that hour: a position in the order of all would be
behind it. There each machine has a position of its own.
"""

# ruff: noqa: SLF001 - Reader's public get_next() converts every field of every entry: 14 times slower, measured.

import re
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from uuid import UUID

from systemd.journal import INVALIDATE, Reader

from agent.core.cursor import NOTHING_YET, Cursor
from agent.core.format import counted, printable
from agent.core.model import LogRecord
from agent.core.readings import Gap
from agent.core.times import YEARS
from agent.sources import bus_error, journal_files
from agent.sources.gaps import Gaps

BATCH = 1000
# A signal restarts sd_journal_wait, so a longer wait would delay SIGTERM.
WAIT_AT_MOST_SECONDS = 1.0
# The kernel's records end at 2 KiB; this bounds the cost of forged or damaged fields.
FIELD_AT_MOST_BYTES = 8 * 1024
# libsystemd looks into every file for every machine: with a hundred of each an idle turn takes 8 ms.
MACHINES_AT_MOST = 1000
ALL = ""
JOURNAL = "the journal"
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
MATCHES = ("_TRANSPORT=kernel", "SYSLOG_FACILITY=0")
MISSED = ("_TRANSPORT=driver", "MESSAGE_ID=e9bf28e6e834481bb6f48f548ad13606")
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_SEQUENCE = re.compile(r"s=([0-9a-f]{32});i=([0-9a-f]{1,16});")


class JournalSource:
    """The kernel's records of this host's journal, or of the journal files in ``directory``.

    ``cursor`` wins over ``start``. A directory that does not exist yet is waited for; all of it is new, even after a
    restart. ``follows``: what comes late counts, too, and what is lost; who reads only what is there gets it in
    libsystemd's order.
    """

    def __init__(
        self, directory: str = "", start: str = "now", cursor: Cursor | None = None, *, follows: bool = True
    ) -> None:
        self._directory = directory
        self._may_be_several = follows and bool(directory)
        self._matches = (MATCHES, MISSED) if follows else (MATCHES,)
        saved = cursor.journal if cursor else None
        self._all_is_new = saved == NOTHING_YET
        self._start = "beginning" if self._all_is_new else start
        self._position = None if self._all_is_new else saved
        # Of the machines that are read separately, by their ids; and which machines there were at the last look.
        self._places = dict(cursor.machines) if cursor else {}
        self._known: frozenset[str] | None = None
        self._reader: Reader = None
        self._is_watched = False
        self._boot = this_boot()
        self._roots: tuple[tuple[int, int], ...] = ()
        self._trouble: str | None = None
        self._ordinal = 0
        self._more = False
        self._check_due = True
        self._unread_before: frozenset[journal_files.Place] = frozenset()
        self._unreadable = 0
        self._gaps = Gaps()
        if self._open() is None:
            self._start = "beginning"
        # Not if something is closed to us or damaged: a restart does not make its old records new.
        self._all_is_new |= self._position is None and journal_files.is_empty(directory)

    def read(self) -> Iterator[LogRecord]:
        """Yield one batch of unread kernel records, oldest first."""
        self._more = False
        try:
            reader = self._open()
            if reader is not None:
                yield from self._batch(reader)
        except OSError as error:
            self._gaps.state(JOURNAL, f"reading failed ({error.strerror or error}); reopening it")
            self.close()
        if not self._is_watched:  # Such a reader notices no new file.
            self.close()
        for path in bus_error.drain():
            why = (
                "could not be read to its end: truncated while open, or its disk fails (see dmesg); records may be lost"
            )
            if self._gaps.state(path, why):
                self.close()

    def wait(self, timeout: float) -> None:
        """Return when the journal changed, or after ``timeout`` seconds, one at most."""
        seconds = 0.0 if self._more else min(timeout, WAIT_AT_MOST_SECONDS)
        if self._reader is None or self._places:  # Some machine always says something.
            time.sleep(seconds)
        elif self._reader.wait(seconds) == INVALIDATE:
            self._check_due = True

    def position(self) -> Cursor:
        """Return the place behind the last entry that was read, or skipped by the journal's index."""
        common = self._position or (NOTHING_YET if self._all_is_new else None)
        return Cursor(journal=common, machines=dict(self._places))

    def before(self) -> dict[str, int]:
        """Return nothing: entries are compared by their times, and nobody writes "repeated" into a journal."""
        return {}

    def gaps(self) -> tuple[Gap, ...]:
        """Return what could not be read, each once."""
        if self._unreadable:
            one, many = "record could not be read: its file", "records could not be read: their file"
            why = f"{counted(self._unreadable, f'kernel {one}', f'kernel {many}')} may be damaged"
            self._gaps.occurrence(JOURNAL, why)
        self._unreadable = 0
        return self._gaps.drain()

    def troubles(self) -> list[str]:
        """Say so where there is no journal to read."""
        return [self._trouble] if self._trouble else []

    def close(self) -> None:
        """Close the journal's files."""
        if self._reader is not None:
            self._reader.close()
        self._reader = None

    # --- opening ----------------------------------------------------------------------------------------------------

    def _open(self) -> Reader | None:
        """Return the reader, reopened if the journal's directories have changed."""
        roots = journal_files.identities(self._directory)
        if self._reader is not None and roots == self._roots:
            return self._reader
        self.close()
        bus_error.survive()
        self._roots = roots
        if not roots:
            where = " and ".join(map(str, journal_files.roots(self._directory)))
            self._fail(f"{where}: no such directory yet; waiting for it (journald.conf: Storage=)")
            return None
        try:
            reader = Reader(path=self._directory or None)
        except OSError as error:
            self._fail(f"{self._directory or 'the host'}: cannot be opened: {error.strerror}")
            return None
        self._trouble = None
        try:
            reader.fileno()  # Starts inotify now, so that no change before the first wait is missed.
            self._is_watched = True
            self._gaps.fixed("inotify")
        except OSError as error:  # A user may have 128 instances (fs.inotify.max_user_instances).
            self._is_watched = False
            why = f"the journal cannot be watched ({error.strerror}); checking once a second instead"
            self._gaps.state("inotify", why)
        reader.data_threshold = FIELD_AT_MOST_BYTES
        self._reader = reader
        self._check_due = True
        self._settle(reader)
        return reader

    def _fail(self, why: str) -> None:
        self._trouble = f"{JOURNAL}: {why}"
        self._gaps.state(JOURNAL, why)

    def _settle(self, reader: Reader) -> None:
        """Choose the first positions: the cursor's, the end or the beginning."""
        for machine, place in ((None, self._position), *self._places.items()):
            try:
                if place is not None:
                    reader.seek_cursor(place)
            except ValueError:
                self._gaps.state(JOURNAL, f"the saved position is no journal cursor: reading from {self._start}")
                self._position, self._places = (None if machine is None else self._position), {}
        if self._position is None and self._start == "now":
            self._position, self._known = self._end(reader), frozenset()
            ends = ((machine, self._end(reader, machine)) for machine in self._machines_apart(reader))
            self._places = {machine: end for machine, end in ends if end}
        elif self._known is None:  # Those that were there share the position of an older release.
            self._known = machines_in(reader) if self._position and self._may_be_several else frozenset()
        self._start = "beginning"  # From here on, whatever appears in an empty journal is new.

    def _machines_apart(self, reader: Reader) -> list[str]:
        """List the machines that are read separately; none where they are one, or this host's journal is here.

        A machine that comes later is read from its beginning.
        """
        if not self._may_be_several or (self._boot and end_of(reader, f"_BOOT_ID={self._boot}")):
            self._places.clear()
            return []
        known, self._known = self._known or frozenset(), machines_in(reader)
        if len(self._known) > MACHINES_AT_MOST:
            many = f"it has the entries of more than {MACHINES_AT_MOST} machines: those that come late are not read"
            self._gaps.state(self._directory, many)
            self._places.clear()
            return []
        if not self._places and len(self._known) > 1 and self._position:
            there = ((machine, place_before(reader, machine, self._position)) for machine in known & self._known)
            self._places = {machine: place for machine, place in there if place}
        return sorted(self._known) if self._places or len(self._known) > 1 else []

    # --- reading ----------------------------------------------------------------------------------------------------

    def _batch(self, reader: Reader) -> Iterator[LogRecord]:
        if self._is_watched and reader.process() == INVALIDATE:
            self._check_due = True
        machines, end = self._machines_apart(reader), self._end(reader)
        is_idle = True
        for machine in machines or [ALL]:
            if self._reader is not None:
                before = self._place(machine)
                yield from self._batch_of(self._reader, machine, BATCH // max(1, len(machines)))
                is_idle &= self._place(machine) == before
        if machines and not self._more:
            self._position = end
        if is_idle:
            self._check_files()

    def _batch_of(self, reader: Reader, machine: str, most: int) -> Iterator[LogRecord]:
        # Taken before the search for kernel records: if there are none, none precedes this end.
        end, before = self._end(reader, machine), self._place(machine)
        is_here = is_of(before, self._boot)
        if before is not None and self._is_lost(reader, before, end, machine):
            # libsystemd 252 remembers where it was in a file's arrays, and aborts the process when it comes back to one
            # that was overwritten: Assertion 'last_index <= right' failed, generic_array_bisect().
            self.close()
            reader = self._open()
            if reader is None:
                return
        # From a position of this boot on, only this boot's records matter; from any other on, first all but these.
        add_matches(reader, self._matches, self._boot if is_here else "", machine)
        if before is None:
            reader.seek_head()
        else:
            reader.seek_cursor(before)
        left = yield from self._records(reader, most, machine, passed_over="" if is_here else self._boot)
        begins = left > 0 and not is_here and is_of(end, self._boot)
        if begins:
            add_matches(reader, self._matches, self._boot)
            reader.seek_head()
            left = yield from self._records(reader, left, machine)
        self._more |= left == 0
        is_idle = self._place(machine) == before
        if is_idle and end and (begins or not (before and goes_back(before, end))):
            self._move(machine, end)
        self._check_due |= self._is_watched and reader.process() == INVALIDATE
        # libsystemd lets go of a file that is removed while it is read, and goes on in the next one.
        is_off = before is not None and self._place(machine) != before and self._check_due
        if before is not None and is_off and self._is_lost(reader, before, end, machine):
            self.close()

    def _place(self, machine: str) -> str | None:
        return self._position if machine == ALL else self._places.get(machine)

    def _move(self, machine: str, place: str) -> None:
        if machine == ALL:
            self._position = place
        else:
            self._places[machine] = place

    def _end(self, reader: Reader, machine: str = ALL) -> str | None:
        """Return the cursor of the last entry of this boot, or where there is none, of all; or of a machine."""
        if machine != ALL:
            return end_of(reader, f"_MACHINE_ID={machine}")
        return (end_of(reader, f"_BOOT_ID={self._boot}") if self._boot else None) or end_of(reader)

    def _is_lost(self, reader: Reader, place: str, end: str | None, machine: str) -> bool:
        """Return whether the entry at a place is gone, and report it if records may be lost with it: True once."""
        reader.flush_matches()
        if is_of(place, self._boot):
            reader.add_match(f"_BOOT_ID={self._boot}")  # Among all, systemd 257 may find another boot's.
        elif machine != ALL:
            reader.add_match(f"_MACHINE_ID={machine}")
        reader.seek_cursor(place)
        found = reader._get_cursor() if reader._next() else None
        # If nothing follows a place that is gone, nothing is known to be lost: the next entry will show.
        kept = found is None and end is None
        if kept or (found and (reader.test_cursor(place) or is_copy(place, found) or is_next(place, found))):
            return False
        return self._gaps.state(
            JOURNAL,
            "records may be lost: the entry read last is no longer in it (vacuumed, damaged, or another machine's "
            f"cursor); reading resumes at the nearest later entry [{place}]",
        )

    def _records(
        self, reader: Reader, most: int, machine: str, passed_over: str = ""
    ) -> Generator[LogRecord, None, int]:
        """Yield up to ``most`` records behind the position, leaving one boot out; return how many fewer they were."""
        before, left = self._place(machine), most
        while left and reader._next():
            cursor = reader._get_cursor()
            if left == most and before is not None and (reader.test_cursor(before) or is_copy(before, cursor)):
                continue
            if is_of(cursor, passed_over):
                continue
            self._move(machine, cursor)
            self._ordinal += 1
            left -= 1
            record = self._record(reader, cursor)
            if record is not None:
                yield record
        return left

    def _record(self, reader: Reader, cursor: str) -> LogRecord | None:
        try:
            fields = reader._get_all()
            text = first(fields, "MESSAGE")[:FIELD_AT_MOST_BYTES].decode(errors="replace")
            is_kernels = first(fields, "_TRANSPORT") == b"kernel"
        except (OSError, KeyError):
            self._unreadable += 1
            return None
        at = time_of(field_or(fields, "_SOURCE_REALTIME_TIMESTAMP", reader._get_realtime))
        if not is_kernels:
            when = f"{at:%Y-%m-%d %H:%M:%S} UTC" if at else "an unknown time"
            self._gaps.occurrence(JOURNAL, f"kernel records are lost: journald says {printable(text, 100)!r} at {when}")
            return None
        micros = field_or(fields, "_SOURCE_MONOTONIC_TIMESTAMP", lambda: reader._get_monotonic()[0])
        host = first(fields, "_HOSTNAME").decode(errors="replace") if "_HOSTNAME" in fields else None
        return LogRecord(
            text=text,
            line=f"{at.isoformat(timespec='microseconds') if at else '-'} {host or '-'} kernel: {text}",
            source=f"journal:{cursor}",
            provenance="kernel",
            ordinal=self._ordinal,
            at=at,
            uptime=micros / 1e6 if micros is not None else None,
            host=host,
            cursor=self.position(),
        )

    # --- what could not be read -------------------------------------------------------------------------------------

    def _check_files(self) -> None:
        """Report files that libsystemd skips, when seen twice: one in the making is skipped, too."""
        if not self._check_due:
            return
        self._trouble = None
        if not journal_files.has_any(self._directory):
            self._fail(f"{self._directory or 'this host'}: no journal file yet; waiting for one")
        unread = journal_files.unread(self._directory)
        for path, _ in sorted(unread & self._unread_before):
            self._gaps.state(path, journal_files.why_unread(path))
        self._check_due = bool(unread - self._unread_before)
        self._unread_before = unread


def this_boot() -> str:
    """Return the id of this boot as the journal writes it; "" where it cannot be read."""
    try:
        return BOOT_ID.read_text().strip().replace("-", "")
    except OSError:
        return ""


def is_of(cursor: str | None, boot: str) -> bool:
    """Return whether an entry is of a boot: ``...;b=BOOT_ID;...``, in a format that nobody promises, as below."""
    return bool(boot and cursor and f";b={boot};" in cursor)


def machines_in(reader: Reader) -> frozenset[str]:
    """Return the ids of the machines whose entries there are; what is no id is nobody's."""
    return frozenset(each.hex for each in reader.query_unique("_MACHINE_ID") if isinstance(each, UUID))


def end_of(reader: Reader, *matches: str) -> str | None:
    """Return the cursor of the last entry of any kind, of those that match or of all; None if there is none."""
    reader.flush_matches()
    for match in matches:
        reader.add_match(match)
    reader.seek_tail()
    # seek_tail stays behind everything, whatever is appended: one step back is needed.
    return str(reader._get_cursor()) if reader._previous() else None


def place_before(reader: Reader, machine: str, place: str) -> str | None:
    """Return the cursor of a machine's last entry up to a place in the order of all; None if there is none."""
    reader.flush_matches()
    reader.add_match(f"_MACHINE_ID={machine}")
    reader.seek_cursor(place)
    return str(reader._get_cursor()) if reader._previous() else None


def is_copy(one: str, other: str) -> bool:
    """Return whether two cursors are of one entry: `journalctl --flush` copies it from /run to /var, with a new number.

    Boot, both times and content are the same: ``...;b=BOOT_ID;m=...;t=...;x=...``.
    """
    content = one.partition(";b=")[2]
    return bool(content) and content == other.partition(";b=")[2]


def is_next(before: str, after: str) -> bool:
    """Return whether an entry was written directly after another: same sequence, next number.

    ``s=SEQUENCE_ID;i=NUMBER;...``: sd_journal_get_cursor(3) promises no format, so anything else is a no; a change of
    format would cost a needless gap.
    """
    old, new = _SEQUENCE.match(before), _SEQUENCE.match(after)
    return bool(old and new and old[1] == new[1] and int(old[2], 16) + 1 == int(new[2], 16))


def goes_back(before: str, after: str) -> bool:
    """Return whether an entry was written before another of the same sequence: the newer ones cannot be read."""
    old, new = _SEQUENCE.match(before), _SEQUENCE.match(after)
    return bool(old and new and old[1] == new[1] and int(new[2], 16) < int(old[2], 16))


def add_matches(reader: Reader, matches: Iterable[tuple[str, ...]], boot: str, machine: str = ALL) -> None:
    """Match entries that have all fields of one of the matches, of one boot and of one machine or of all."""
    also = [f"_BOOT_ID={boot}"] if boot else []
    also += [f"_MACHINE_ID={machine}"] if machine != ALL else []
    reader.flush_matches()
    for fields in matches:
        for field in (*fields, *also):
            reader.add_match(field)
        reader.add_disjunction()


def first(fields: dict[str, Any], name: str) -> bytes:
    """Return a field's first value; KeyError if it is missing."""
    value = fields[name]
    return bytes(value[0] if isinstance(value, list) else value)


def field_or(fields: dict[str, Any], name: str, otherwise: Callable[[], int]) -> int | None:
    """Return a field of microseconds as a number, else the entry's own time; None for what no kernel counts."""
    try:
        micros = int(first(fields, name)) if name in fields else int(otherwise())
    except (ValueError, OSError):
        return None
    return micros if 0 <= micros < 2**64 else None


def time_of(micros: int | None) -> datetime | None:
    """Convert microseconds since 1970; None for a year without Linux (core.times.YEARS)."""
    try:
        time = _EPOCH + timedelta(microseconds=micros or 0)
    except OverflowError:
        return None
    return time if micros is not None and time.year in YEARS else None
