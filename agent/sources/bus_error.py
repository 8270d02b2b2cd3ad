"""Survive SIGBUS: a page of a mapped journal file that is not there anymore, or that the disk does not give.

libsystemd maps journal files into memory. Where such a page lies behind the end of a file that was cut meanwhile
(systemd 251 to 254 cut what they archive, others what they vacuum on a file system without holes), in a hole of a full
tmpfs or on a bad sector, reading it ends the process: systemd issues 24320, 33277 and 2323. libsystemd leaves that to
its callers. journald and journalctl put zeros in the page's place (src/basic/sigbus.c), and so do we: libsystemd finds
no object in them, and goes on in the next file.
"""

import ctypes
import mmap
import os
import re
import signal
from pathlib import Path

# The machines on which the C library orders struct sigaction, and the kernel siginfo_t, as below.
MACHINES = ("x86_64", "aarch64", "ppc64le", "riscv64")
SA_SIGINFO = 4  # <bits/sigaction.h>
MAP_FIXED = 0x10  # <bits/mman.h>
# 7f5c...-7f5d... r--s 00000000 fe:00 1311 /var/log/journal/MACHINE_ID/system@....journal (deleted): proc_pid_maps(5)
_MAPPED = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (?:\S+ +){4}(/.*\.journal~?)(?: \(deleted\))?", re.MULTILINE)
_lost: dict[str, None] = {}
_kept: list[object] = []  # What C calls must not be freed.


class _Info(ctypes.Structure):
    """siginfo_t, as far as SIGBUS needs it: sigaction(2)."""

    _fields_ = (("number", ctypes.c_int), ("error", ctypes.c_int), ("code", ctypes.c_int), ("at", ctypes.c_void_p))


_Handler = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.POINTER(_Info), ctypes.c_void_p)


class _Action(ctypes.Structure):
    """struct sigaction: sigaction(2); sigset_t has 1,024 bits."""

    _fields_ = (
        ("handler", _Handler),
        ("mask", ctypes.c_ubyte * 128),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    )


def survive() -> None:
    """Put zeros in place of what cannot be read of a mapped journal file; any other SIGBUS ends the process."""
    if _kept or os.uname().machine not in MACHINES:
        return
    library = ctypes.CDLL(None)
    library.mmap.restype = ctypes.c_void_p
    library.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *3 * (ctypes.c_int,), ctypes.c_long)

    def put_zeros(number: int, info: "ctypes._Pointer[_Info]", _: int) -> None:
        page = (info[0].at or 0) // mmap.PAGESIZE * mmap.PAGESIZE
        path = journal_at(page)
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_FIXED
        if path and library.mmap(page, mmap.PAGESIZE, mmap.PROT_READ, flags, -1, 0) == page:
            _lost[path] = None
        else:
            library.signal(number, None)  # SIG_DFL; Python's own belongs to the main thread.
            signal.raise_signal(number)

    try:
        handler = _Handler(put_zeros)
    except MemoryError:  # An old libffi cannot make one under MemoryDenyWriteExecute=.
        return
    _kept.append(handler)
    library.sigaction(signal.SIGBUS, ctypes.byref(_Action(handler=handler, flags=SA_SIGINFO)), None)


def journal_at(address: int) -> str:
    """Return the path of the journal file that is mapped at an address of this process; "" if none is."""
    for begin, end, path in _MAPPED.findall(Path("/proc/self/maps").read_text(errors="surrogateescape")):
        if int(begin, 16) <= address < int(end, 16):
            return str(path)
    return ""


def drain() -> tuple[str, ...]:
    """Return the journal files of which a page could not be read since the last call."""
    lost = tuple(_lost)
    for path in lost:
        del _lost[path]
    return lost
