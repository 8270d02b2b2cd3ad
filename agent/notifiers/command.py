"""Run a program for each notice: smartd's ``-M exec`` (smartd.conf(5)) is the model, sysexits(3) names the refusals.

Its standard input is a file in memory: nobody waits until it is read. What it prints is read at a bounded pace, and the
beginning is logged. It leads a process group, which is killed when the program ends or its time is over; what leaves
the group is left to systemd. Nobody waits until its pipes are closed.
"""

import contextlib
import errno
import logging
import os
import signal
import subprocess
import time
from io import FileIO
from pathlib import Path

from agent.core.delivery import Delivered, Delivery, Rejected, Retry
from agent.core.format import printable
from agent.core.model import Notice
from agent.core.report import body_text, title
from agent.core.settings import CommandSettings
from agent.notifiers.body import encode, in_short

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
TICK_SECONDS = 0.02
CHUNK_BYTES = 64 * 1024  # read in a tick: what prints without end is slowed down, and costs no processor
LOGGED_BYTES = 256
KILLED_WITHIN_SECONDS = 1.0
# A shell's words for "cannot be run" and "not found" are the last two.
REFUSALS = frozenset({os.EX_USAGE, os.EX_DATAERR, os.EX_NOPERM, os.EX_CONFIG, 126, 127})
UNRUNNABLE = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.ENOEXEC}
)

# Until Python 3.11.4 vfork() keeps Python's lock while the program is loaded (python/cpython#104372): one on a dead NFS
# server would stop the whole agent.
subprocess._USE_VFORK = False  # type: ignore[attr-defined]  # noqa: SLF001 - the subprocess module documents it

log = logging.getLogger("sockmem-agent")


class CommandNotifier:
    """Runs one program for one courier."""

    def __init__(self, settings: CommandSettings) -> None:
        self.name = settings.name
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self._printed = ""

    def notify(self, notice: Notice) -> Delivery:
        """Run the program once; its exit status says whether the notice was delivered."""
        if self._process is not None and self._process.poll() is None:
            return Retry(why="an earlier run hangs in the kernel and cannot be killed")
        try:
            delivery, printed = self._run(notice)
        except OSError as error:
            why = f"cannot be run: {os.strerror(error.errno or 0).lower()}"
            if error.errno == errno.ENOENT:
                why += " (the program, or the interpreter that its first line names)"
            return Rejected(why=why) if error.errno in UNRUNNABLE else Retry(why=why)
        if printed and printed != self._printed:
            level = logging.INFO if isinstance(delivery, Delivered) else logging.WARNING
            # The quotation marks: whatever follows the log must not take the end of this for a line of the kernel's.
            log.log(level, "%s: the command printed «%s»", self.name, printed)
        self._printed = printed
        return delivery

    def _run(self, notice: Notice) -> tuple[Delivery, str]:
        """Return what the run ended in and the beginning of what it printed; OSError when it could not be started."""
        settings = self._settings
        deadline = time.monotonic() + settings.timeout_seconds
        ours, theirs = os.pipe()
        with FileIO(ours) as pipe, FileIO(theirs, "w") as output, FileIO(os.memfd_create("notice"), "r+") as given:
            os.set_blocking(ours, False)
            given.write(self._content(notice))
            given.seek(0)
            process = self._process = subprocess.Popen(
                settings.command,
                stdin=given,
                stdout=output,
                stderr=output,
                env={"PATH": PATH, "LANG": "C.UTF-8", **in_short(notice)},  # and nothing of ours
                cwd="/",
                start_new_session=True,
            )
            with contextlib.suppress(OSError):
                # Where memory is short the kernel ends the program, not the agent.
                Path(f"/proc/{process.pid}/oom_score_adj").write_text("500")
            printed = _watch(process.pid, pipe, deadline)
            # With its pipe open: else SIGPIPE could come first.
            return self._end(process), printable(printed.decode("utf-8", "replace").strip(), LOGGED_BYTES)

    def _content(self, notice: Notice) -> bytes:
        url = self._settings.runbook_url
        if self._settings.input == "json":
            return encode(notice, runbook_url=url)
        return f"{title(notice)}\n\n{body_text(notice, url)}".encode()

    def _end(self, process: "subprocess.Popen[bytes]") -> Delivery:
        is_late = not _has_ended(process.pid)
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)  # its number is not free before wait()
        try:
            status = process.wait(KILLED_WITHIN_SECONDS)
        except subprocess.TimeoutExpired:
            return Retry(why="the command hangs in the kernel and cannot be killed", may_be_taken=True)
        if is_late:
            return _again(f"killed: not done within {self._settings.timeout_seconds} s", may_be_taken=True)
        if status == 0:
            return Delivered(detail="exit status 0")
        if status < 0:
            return _again(f"the command was ended by signal {-status}", may_be_taken=True)
        return Rejected(why=f"exit status {status}") if status in REFUSALS else _again(f"exit status {status}")


def _again(why: str, *, may_be_taken: bool = False) -> Retry:
    return Retry(why=why, may_be_the_notice=True, may_be_taken=may_be_taken)  # The next notice may get through.


def _watch(pid: int, pipe: FileIO, deadline: float) -> bytes:
    """Return the beginning of what a program prints until it ends or its time is over."""
    printed = b""
    while True:
        is_over = _has_ended(pid) or time.monotonic() >= deadline
        printed = (printed + (pipe.read(CHUNK_BYTES) or b""))[:LOGGED_BYTES]
        if is_over:
            return printed
        time.sleep(TICK_SECONDS)


def _has_ended(pid: int) -> bool:
    """Look without taking the exit status: until then no other process gets its number."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
