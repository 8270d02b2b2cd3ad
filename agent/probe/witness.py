"""The kernel's own witness: two tracing instances, made by root and read by the service without any privilege.

    /sys/kernel/tracing/instances/sockmem-agent-kills       tcp:tcp_send_reset if reason == 13
    /sys/kernel/tracing/instances/sockmem-agent-refusals    sock:sock_exceed_buf_limit if name ~ "TCP*"

Each has switches, filters and buffers of its own (Documentation/trace/ftrace.rst, "Instances"), so that no other tracer
is disturbed and a flood of refusals overwrites no kill. The kernel filters before it records, and counts refusals in
histograms where it can: then they take no room, however many there are.
"""

import errno
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from re import Pattern
from typing import NamedTuple

from agent.core.kernel.procfs import ParseError
from agent.core.kernel.tracing import (
    KILL_EVENT,
    KILL_REASON,
    REFUSAL_EVENT,
    REFUSAL_FILTER,
    Format,
    Hist,
    KillText,
    Refusals,
    Seen,
    hist_triggers,
    kill_pattern,
    kill_reason,
    parse_format,
    parse_hist,
    parse_kills,
    parse_refusals,
    refusal_pattern,
    risen,
)
from agent.core.readings import Gap
from agent.core.times import from_epoch
from agent.probe.files import REASONS, Unreadable, read_bytes, read_text

TRACEFS = Path("/sys/kernel/tracing")
# A program that ends closes all its sockets on one CPU, between two readings: 1 MiB holds 11,000 kills. All CPUs
# together take 16 MiB at most, which leaves 64 KiB, or 700 kills, to each of 256.
KILLS_KIB, KILLS_KIB_OF_A_CPU = 16 * 1024, 1024
# Refusals that are overwritten are counted, too; what the buffer holds is a sample.
REFUSALS_KIB, REFUSALS_KIB_OF_A_CPU = 1024, 64
# One reading takes 15,000 kills, of IPv6 12,000, and 300 refusals at most.
KILLS_AT_MOST_BYTES, REFUSALS_AT_MOST_BYTES = 3 * 1024 * 1024, 64 * 1024
BLOCK_BYTES = 64 * 1024
# CLOCK_BOOTTIME: it runs on while the host sleeps, as the wall clock does, and is the same on all CPUs; "local" is not.
CLOCK = "boot"
# A new instance takes the options of the global one, whatever they are; these make the lines that are parsed.
OPTIONS = (
    *("overwrite", "context-info", "irq-info", "record-cmd", "noverbose", "noraw", "nohex", "nobin", "nofields"),
    *("nolatency-format", "nostacktrace", "nouserstacktrace"),
)
DIRECTORY_MODE, FILE_MODE = 0o750, 0o440
NO_REASON = "this kernel does not say why it resets a connection; Linux 6.12 and newer do"
NO_TRACEFS = "tracefs is not mounted; run: mount -t tracefs tracefs /sys/kernel/tracing"
WHY = REASONS | {
    errno.EBUSY: "in use: another program reads it, and only one can",
    errno.EPERM: "refused by the kernel's lockdown",
    errno.EACCES: "permission denied: run as root, or let this user read it",
}


class Instances(NamedTuple):
    """The directories of the two."""

    kills: Path
    refusals: Path


def instances(name: str = "sockmem-agent") -> Instances:
    """Name two instances of this host."""
    return Instances(*(TRACEFS / "instances" / f"{name}-{what}" for what in Instances._fields))


# As root sees them, and where the drop-in of the unit shows them to the service.
HOST = instances()
SERVICE = Instances(Path("/run/sockmem-agent/witness/kills"), Path("/run/sockmem-agent/witness/refusals"))


def make(them: Instances = HOST, gid: int | None = None) -> tuple[Gap, ...]:
    """Make the two instances, or repair those that exist; return what they do not witness, and why.

    The group ``gid`` may read them. Takes root. An instance that cannot be made whole is removed again.
    """
    gaps = []
    for path, event, prepare in ((them.kills, KILL_EVENT, _make_kills), (them.refusals, REFUSAL_EVENT, _make_refusals)):
        with suppress(OSError):  # One that a program still reads is set right as it is.
            _remove(path, event)
        try:
            prepare(path, gid)
        except (OSError, ParseError) as error:
            with suppress(OSError):
                _remove(path, event)
            gaps.append(Gap(what=str(path), why=_why(error)))
    return tuple(gaps)


def remove(them: Instances = HOST) -> tuple[Gap, ...]:
    """Remove the two instances; one that a program still reads is switched off instead, and a gap."""
    gaps = []
    for path, event in ((them.kills, KILL_EVENT), (them.refusals, REFUSAL_EVENT)):
        try:
            _remove(path, event)
        except OSError as error:
            gaps.append(Gap(what=str(path), why=_why(error)))
    return tuple(gaps)


@contextmanager
def own_instances() -> Iterator[tuple[Instances, tuple[Gap, ...]]]:
    """Make two instances with this process's number in their names for a block; with them, what they do not witness.

    What processes that were killed have left is removed with them. Takes root.
    """
    for left in (TRACEFS / "instances").glob("sockmem-agent-[0-9]*-*"):
        name = left.name.rpartition("-")[0]
        if not Path("/proc", name.rpartition("-")[2]).exists():
            remove(instances(name))
    them = instances(f"sockmem-agent-{os.getpid()}")
    try:
        yield them, make(them)
    finally:
        remove(them)


def _make_kills(path: Path, gid: int | None) -> None:
    form = _format(path.parent.parent, KILL_EVENT)
    number = kill_reason(form, KILL_REASON)
    if number is None:
        raise ParseError(form.event, NO_REASON)
    _new_instance(path, KILLS_KIB, KILLS_KIB_OF_A_CPU)
    _write(path / "trace_clock", CLOCK)
    _write(path / "events" / KILL_EVENT / "filter", f"reason == {number}")
    _share(path, KILL_EVENT, gid)
    _write(path / "events" / KILL_EVENT / "enable", "1")


def _make_refusals(path: Path, gid: int | None) -> None:
    form = _format(path.parent.parent, REFUSAL_EVENT)
    _new_instance(path, REFUSALS_KIB, REFUSALS_KIB_OF_A_CPU)
    event = path / "events" / REFUSAL_EVENT
    _share(path, REFUSAL_EVENT, gid)
    try:
        _write(event / "trigger", *hist_triggers(form))
    except OSError:  # This kernel counts nothing (CONFIG_HIST_TRIGGERS), or not so.
        _write(event / "trigger", "")
        _write(event / "filter", REFUSAL_FILTER)
        _write(event / "enable", "1")


def _new_instance(path: Path, kib: int, kib_of_a_cpu: int) -> None:
    with suppress(FileExistsError):
        path.mkdir(DIRECTORY_MODE)
    _write(path / "buffer_size_kb", str(max(1, min(kib_of_a_cpu, kib // (os.cpu_count() or 1)))))
    for option in OPTIONS:
        with suppress(OSError):  # Which ones there are depends on the kernel.
            _write(path / "trace_options", option)
    _write(path / "tracing_on", "1")


def _share(path: Path, event: str, gid: int | None) -> None:
    """Let the group into the directories and read what the Reader opens."""
    if gid is None:
        return
    directory = path / "events" / event
    for file in (path / "trace_pipe", directory / "format", directory / "hist"):
        with suppress(FileNotFoundError):  # Not every kernel has histograms.
            os.chown(file, -1, gid)
            file.chmod(FILE_MODE)
    for each in (directory, directory.parent, path / "events", path):
        os.chown(each, -1, gid)
        each.chmod(DIRECTORY_MODE)


def _remove(path: Path, event: str) -> None:
    if not path.is_dir():
        return
    # EBUSY, where a program still reads it, leaves it as good as gone: it records nothing and holds no memory.
    for file, text in (("enable", "0"), ("trigger", "")):
        with suppress(OSError):
            _write(path / "events" / event / file, text)
    with suppress(OSError):
        _write(path / "buffer_size_kb", "1")
    path.rmdir()


def _format(tracing: Path, event: str) -> Format:
    text = read_text(tracing / "events" / event / "format")
    if isinstance(text, Unreadable):
        raise ParseError(event, text.why if (tracing / "events").exists() else NO_TRACEFS)
    return parse_format(text, event)


def _write(path: Path, *texts: str) -> None:
    # O_TRUNC takes away the histograms that are there (event_trigger_regex_open).
    descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
    try:
        for text in texts:
            os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _why(error: OSError | ParseError) -> str:
    if isinstance(error, ParseError):
        return error.why
    return WHY.get(error.errno or 0, f"failed: {error.strerror}")


class Reader:
    """Reads the two instances; what cannot be opened is tried again at each reading."""

    def __init__(self, them: Instances = SERVICE) -> None:
        """Open what there is; what a histogram has counted until now is not told."""
        self._kills = _Pipe(them.kills, KILL_EVENT, lambda form: kill_pattern(form, KILL_REASON), KILLS_AT_MOST_BYTES)
        self._refusals = _Pipe(them.refusals, REFUSAL_EVENT, refusal_pattern, REFUSALS_AT_MOST_BYTES)
        self._counts = _Counts(them.refusals)
        self._kills.open()
        if self._counts.read() is None:
            self._refusals.open()

    @property
    def sees_kills(self) -> bool:
        """Whether kills are witnessed now."""
        return self._kills.is_open

    @property
    def sees_refusals(self) -> bool:
        """Whether refusals are witnessed now."""
        return self._counts.are_there or self._refusals.is_open

    def read(self) -> Seen:
        """Return what happened since the reading before; it never waits, and leaves what is too much to the next."""
        text = self._kills.read()
        killed = parse_kills(*text) if text else KillText((), 0, None)
        return Seen(killed.kills, self._refused(), killed.lost, _moment(killed.first_uptime))

    def _refused(self) -> tuple[Refusals, ...]:
        counted = None if self._refusals.is_open else self._counts.read()
        if counted is not None:
            return counted
        text = self._refusals.read()
        return parse_refusals(*text) if text else ()

    def gaps(self) -> tuple[Gap, ...]:
        """Return what is out of sight now, and why."""
        unseen = (self._kills, *(() if self._counts.are_there else (self._refusals,)))
        return tuple(Gap(what=str(pipe.path), why=pipe.why) for pipe in unseen if not pipe.is_open)

    def close(self) -> None:
        """Close both."""
        self._kills.close("closed")
        self._refusals.close("closed")


class _Pipe:
    """The trace_pipe of one instance: a read takes what it returns, so that two readers would see half each."""

    def __init__(self, path: Path, event: str, expression: Callable[[Format], Pattern[bytes]], most_bytes: int) -> None:
        self.path, self.why = path, ""
        self._file = str(path / "trace_pipe")
        self._event, self._expression, self._most_bytes = event, expression, most_bytes
        self._descriptor: int | None = None
        self._pattern: Pattern[bytes] | None = None

    @property
    def is_open(self) -> bool:
        return self._descriptor is not None

    def open(self) -> None:
        try:
            # The pipe first: while it is open the instance stays, and with it the format.
            self._descriptor = os.open(self._file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            self._pattern = self._expression(_format(self.path, self._event))
        except (OSError, ParseError) as error:
            self.close(_why(error))

    def read(self) -> tuple[Pattern[bytes], bytes] | None:
        """Return whole lines and the expression for them; None where nothing lies ready."""
        if self._descriptor is None:
            self.open()
        text = b"".join(self._blocks())
        return (self._pattern, text) if text and self._pattern else None

    def _blocks(self) -> Iterator[bytes]:
        left = self._most_bytes
        while left > 0 and self._descriptor is not None:
            try:
                block = os.read(self._descriptor, BLOCK_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                self.close(_why(error))
                return
            if not block:
                return
            left -= len(block)
            yield block

    def close(self, why: str) -> None:
        self.why = why
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class _Counts:
    """The histograms of refusals, where this kernel has them (CONFIG_HIST_TRIGGERS); opened anew at each reading."""

    def __init__(self, path: Path) -> None:
        self.are_there = False
        self._path = path
        self._file = str(path / "events" / REFUSAL_EVENT / "hist")
        self._text: bytes = b""
        self._hist: Hist = {}

    def read(self) -> tuple[Refusals, ...] | None:
        """Return what was counted since the reading before, and nothing at the first; None: there are none."""
        text = read_bytes(self._file)
        if isinstance(text, Unreadable) or not text:
            self.are_there = False
            return None
        if self.are_there and text == self._text:
            return ()
        return self._risen(text)

    def _risen(self, text: bytes) -> tuple[Refusals, ...] | None:
        try:
            hist = parse_hist(_format(self._path, REFUSAL_EVENT), text)
        except ParseError:
            return None
        refusals = risen(self._hist, hist) if self.are_there else ()
        self.are_there, self._text, self._hist = True, text, hist
        return refusals


def _moment(uptime: float | None) -> datetime | None:
    return None if uptime is None else from_epoch(time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + uptime)
