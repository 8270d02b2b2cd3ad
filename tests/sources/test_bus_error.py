"""SIGBUS, in processes of their own: what follows a journal file that is cut stands in test_journal.py."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from agent.sources import bus_error

pytestmark = pytest.mark.skipif(os.uname().machine not in bus_error.MACHINES, reason="not on this machine")

BEGIN = """
import ctypes, mmap, os, signal, sys, threading
from agent.sources import bus_error

file = open(sys.argv[1], "r+b")
file.truncate(3 * mmap.PAGESIZE)
file.write(b"x" * 3 * mmap.PAGESIZE)
file.flush()
mapped = mmap.mmap(file.fileno(), 0, mmap.MAP_SHARED, mmap.PROT_READ)
"""


def run(path: Path, act: str) -> subprocess.CompletedProcess[str]:
    path.touch()
    return subprocess.run([sys.executable, "-c", BEGIN + act, path], capture_output=True, text=True, check=False)


CUT = "bus_error.survive(); file.truncate(mmap.PAGESIZE)\n"
READ = "print(mapped[0], mapped[mmap.PAGESIZE], mapped[-1], mapped[-2], *bus_error.drain(), *bus_error.drain())\n"


@pytest.mark.parametrize("name", ["system.journal", "system@1.journal~", "with a space.journal"])
def test_what_is_gone_of_a_journal_file_is_zeros_and_the_file_is_named_once(tmp_path: Path, name: str) -> None:
    done = run(tmp_path / name, CUT + READ)

    assert (f"120 0 0 0 {tmp_path / name}\n", "") == (done.stdout, done.stderr)


def test_the_name_is_that_of_before_it_was_deleted(tmp_path: Path) -> None:
    done = run(tmp_path / "system.journal", "os.unlink(sys.argv[1])\n" + CUT + READ)

    assert f"120 0 0 0 {tmp_path / 'system.journal'}\n" == done.stdout


def test_another_thread_survives_too(tmp_path: Path) -> None:
    in_a_thread = f"thread = threading.Thread(target=lambda: {READ.strip()}); thread.start(); thread.join()"
    done = run(tmp_path / "system.journal", CUT + in_a_thread)

    assert f"120 0 0 0 {tmp_path / 'system.journal'}\n" == done.stdout


# Of <sys/prctl.h>: systemd's MemoryDenyWriteExecute= does the same.
def test_it_works_where_no_memory_may_become_executable(tmp_path: Path) -> None:
    done = run(tmp_path / "system.journal", "print(ctypes.CDLL(None).prctl(65, 1, 0, 0, 0))\n" + CUT + READ)

    if done.stdout.startswith("-1"):
        pytest.skip("Linux 6.3 or later is needed")
    assert f"0\n120 0 0 0 {tmp_path / 'system.journal'}\n" == done.stdout


@pytest.mark.parametrize(
    "act",
    [
        "file.truncate(0); mapped[0]",
        "os.kill(os.getpid(), signal.SIGBUS)",
        "it = threading.Thread(target=lambda: (file.truncate(0), mapped[0])); it.start(); it.join()",
    ],
)
def test_any_other_bus_error_ends_the_process(tmp_path: Path, act: str) -> None:
    done = run(tmp_path / "messages", f"bus_error.survive(); {act}\nprint('went on')")

    assert ("", -signal.SIGBUS) == (done.stdout, done.returncode)


def test_a_machine_whose_structures_are_not_known_is_left_alone(tmp_path: Path) -> None:
    done = run(tmp_path / "system.journal", "bus_error.MACHINES = ()\n" + CUT + READ)

    assert ("", -signal.SIGBUS) == (done.stdout, done.returncode)
