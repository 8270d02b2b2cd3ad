"""Follow /dev/kmsg, the kernel's ring of records: kernel/printk/printk.c (devkmsg_read), ABI/testing/dev-kmsg.

One read() is one record, ``PRIORITY,SEQUENCE,MICROSECONDS,FLAGS;TEXT`` and perhaps lines `` KEY=value``:

    6,1234,261096028929,-;TCP: too many orphaned sockets

The first read after open() returns the oldest record in the ring. EAGAIN: no more; EPIPE: records were overwritten
before they were read, and the next read returns the oldest left; EINVAL: the record was larger than our buffer, or the
device cannot be read at all. Only facility 0 is the kernel's: user space cannot write it.
"""

import os
import select
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

from agent.core.cursor import Cursor, KmsgCursor
from agent.core.format import counted
from agent.core.kernel.devkmsg import DevKmsg, parse_devkmsg
from agent.core.kernel.procfs import parse_stat_boot
from agent.core.model import LogRecord
from agent.core.readings import Gap
from agent.core.times import from_epoch
from agent.sources.gaps import Gaps

BATCH = 1000
WAIT_AT_MOST_SECONDS = 1.0
# CONSOLE_EXT_LOG_MAX, and PRINTKRB's own limit, are below this in every kernel read.
RECORD_AT_MOST_BYTES = 16 * 1024
# A device that refuses this often in a row cannot be read.
REFUSALS_AT_MOST = 16
KERNEL_FACILITY = 0
BEFORE_THE_FIRST = -1
# The error from whole seconds of boot time and lag, and from early boot, which CLOCK_MONOTONIC_RAW misses.
SLACK = timedelta(seconds=2)
UNREADABLE = "cannot be read on this host (kernel before 3.5, or a sandbox): follow the journal or a file instead"


class KmsgSource:
    """The kernel's records of this boot; OSError when ``path`` cannot be opened.

    A ``cursor`` of this boot wins over ``start``; after another boot the whole ring is read. A record's ``at`` is
    /proc/stat's boot time plus its timestamp plus the lag of that clock: the same after a restart, so that an incident
    keeps its id, and right to about a second, except that a record from before a suspend, read after it, is dated late
    by the suspend. A time that cannot be right, since the record came after our last look, becomes now.
    """

    def __init__(
        self,
        path: str = "/dev/kmsg",
        proc_root: Path = Path("/proc"),
        start: str = "now",
        cursor: Cursor | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
    ) -> None:
        self._path = path
        self._proc_root = proc_root
        self._now = now
        self._looked_at: datetime | None = None
        self._gaps = Gaps()
        self._ordinal = 0
        self._overrun = False
        self._unreadable = False
        self._boot_id = self._host_text("sys/kernel/random/boot_id")
        self._host: str | None = None
        self._last: int | None = None
        self._fd = open_device(path)
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)
        saved = cursor.kmsg if cursor else None
        if saved is not None and saved.boot_id == self._boot_id:
            self._last = saved.sequence
        elif saved is not None:
            self._last = BEFORE_THE_FIRST
            self._gaps.occurrence(
                self._path,
                "the host was rebooted: the last kernel messages before that are lost",
            )
        elif start == "now":
            # Reading to the end, unlike seeking, gives the sequence from which a restart resumes.
            for _ in self._records():
                pass

    def read(self) -> Iterator[LogRecord]:
        """Yield one batch of unread records of the kernel's own, oldest first."""
        # For every batch: the host may be renamed.
        booted_at, self._host = self._booted_at(), self._host_text("sys/kernel/hostname") or None
        for number, (raw, parsed) in enumerate(self._records(), start=1):
            record = self._record(raw, parsed, booted_at)
            if record is not None:
                yield record
            if number == BATCH:
                return

    def wait(self, timeout: float) -> None:
        """Return when there is a record, or after ``timeout`` seconds, one at most."""
        seconds = min(timeout, WAIT_AT_MOST_SECONDS)
        if self._unreadable:  # Such a device may always be ready, and we would spin.
            time.sleep(seconds)
        else:
            self._poll.poll(int(seconds * 1000))

    def position(self) -> Cursor:
        """Return the last record read; none if the boot is unknown.

        After another boot it is the place before the first: otherwise a restart would begin with "now".
        """
        if self._last is None or not self._boot_id:
            return Cursor()
        return Cursor(kmsg=KmsgCursor(boot_id=self._boot_id, sequence=self._last))

    def before(self) -> dict[str, int]:
        """Return nothing: records are compared by their times, and the kernel never says "repeated"."""
        return {}

    def gaps(self) -> tuple[Gap, ...]:
        """Return what could not be read, each once."""
        return self._gaps.drain()

    def troubles(self) -> list[str]:
        """Say so where every read of the device fails."""
        return [f"{self._path}: {UNREADABLE}"] if self._unreadable else []

    def close(self) -> None:
        """Close the device."""
        os.close(self._fd)

    # --- inside -----------------------------------------------------------------------------------------------------

    def _records(self) -> Iterator[tuple[str, DevKmsg]]:
        """Yield every record behind the last one, the kernel's and others', as text and parsed."""
        refusals, newest = 0, None
        while refusals < REFUSALS_AT_MOST:
            try:
                raw = read_record(self._fd).decode(errors="replace")
            except BlockingIOError:
                self._unreadable = False
                self._looked_at = self._now()
                if newest is not None and self._last is not None and newest < self._last:
                    self._gaps.occurrence(
                        self._path, "the saved position is ahead of the kernel's newest record; reading resumes there"
                    )
                    self._last = newest
                return
            except BrokenPipeError:
                self._overrun = True
                continue
            except OSError as error:
                refusals += 1
                self._gaps.state(self._path, f"a record is lost: it could not be read ({error.strerror})")
                continue
            if not raw:
                break
            refusals = 0
            try:
                record = parse_devkmsg(raw)
            except ValueError as error:
                self._gaps.occurrence(self._path, f"a record is lost: {error}")
                continue
            newest = record.sequence
            if self._is_new(record.sequence):
                yield raw, record
        self._unreadable = True
        self._gaps.state(self._path, UNREADABLE)

    def _is_new(self, sequence: int) -> bool:
        """Move the position to a record and report those missing before it; False for one read before a restart."""
        if self._last is not None and sequence <= self._last:
            return False
        lost = sequence - self._last - 1 if self._last is not None else 0
        if lost:
            one, many = "record was overwritten before it", "records were overwritten before they"
            self._gaps.occurrence(self._path, f"{counted(lost, f'kernel {one}', f'kernel {many}')} could be read")
        elif self._overrun and self._last is None:
            self._gaps.occurrence(
                self._path, "an unknown number of kernel records were overwritten before they could be read"
            )
        self._overrun = False
        self._last = sequence
        return True

    def _record(self, raw: str, parsed: DevKmsg, booted_at: int | None) -> LogRecord | None:
        if parsed.facility != KERNEL_FACILITY:
            return None
        self._ordinal += 1
        at = None if booted_at is None else from_epoch(booted_at + parsed.timestamp)
        return LogRecord(
            text=parsed.text,
            line=raw.partition("\n")[0],
            source=f"kmsg:{self._boot_id}:{parsed.sequence}",
            provenance="kernel",
            ordinal=self._ordinal,
            at=self._moment(at) if at else None,
            uptime=parsed.timestamp,
            host=self._host,
            cursor=self.position(),
        )

    def _booted_at(self) -> int | None:
        """Return the second in which printk's clock started; for every batch: the host's clock may have been set."""
        booted = parse_stat_boot(self._host_text("stat"))
        return None if booted is None else booted + lag_seconds()

    def _moment(self, at: datetime) -> datetime:
        """Return the computed time of a record, or now if it is before the last look, which did not see the record.

        Within the slack it stays, so that a replay, which has no last look, gets the same time.
        """
        now = self._now().astimezone(timezone.utc)
        came_since = self._looked_at is not None and at < self._looked_at - SLACK
        return now if came_since or at > now + SLACK else at

    def _host_text(self, name: str) -> str:
        try:
            return (self._proc_root / name).read_text(errors="replace").strip()
        except OSError as error:
            self._gaps.state(
                str(self._proc_root / name), f"{error.strerror}; record times and the saved position are unreliable"
            )
            return ""


def lag_seconds() -> int:
    """Return how far printk's clock is behind the time since boot, in whole seconds.

    It stops during a suspend and NTP does not steer it: minutes after some weeks. CLOCK_MONOTONIC_RAW equals it where
    it is the processor's counter, which is nearly everywhere (kernel/sched/clock.c).
    """
    return round(time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC_RAW))


def open_device(path: str) -> int:
    """Open it so that reading past the newest record does not block."""
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def read_record(fd: int) -> bytes:
    """Read one whole record; the device returns neither part of one nor two."""
    return os.read(fd, RECORD_AT_MOST_BYTES)
