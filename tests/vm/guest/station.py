"""In the machine: wait for a job on the second serial line, run it, send its results back.

A job is a line "JOB <bytes> <seconds since the epoch>" and a tar archive of that size with a file job.py in it, whose
``main(folder, results)`` is called. The answer is "DONE <bytes>" and a tar archive of the folder of results; "READY"
is said whenever a job may come. A job that restarts the machine leaves RESUME behind, with its folder in it, and is
called again after the boot, before anything is read.
"""

import importlib.util
import io
import os
import shutil
import sys
import tarfile
import time
import traceback
import tty
from pathlib import Path

LINE = "/dev/ttyS1"
JOB = Path("/var/lib/vm/job")
RESULTS = Path("/var/lib/vm/results")
RESUME = Path("/var/lib/vm/resume")


def main() -> None:
    line = os.open(LINE, os.O_RDWR | os.O_NOCTTY)
    tty.setraw(line)
    if RESUME.exists():
        answer(line)
    while True:
        send(line, b"READY\n")
        take(line)
        answer(line)


def take(line: int) -> None:
    """Read one job and lay it out; the clock is set, for the machine may have slept in a file for days."""
    header = b""
    while not (header.startswith(b"JOB ") and header.endswith(b"\n")):
        header = (b"" if header.endswith(b"\n") else header) + os.read(line, 1)
    size, now = header.split()[1:]
    time.clock_settime(time.CLOCK_REALTIME, float(now))
    body = bytearray()
    while len(body) < int(size):
        body += os.read(line, 65536)
    for folder in (JOB, RESULTS):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    with tarfile.open(fileobj=io.BytesIO(bytes(body))) as archive:
        archive.extractall(JOB)


def answer(line: int) -> None:
    """Run the job in a process of its own and send what it left in the folder of results."""
    child = os.fork()
    if child == 0:
        try:
            run()
        except BaseException:  # noqa: BLE001 - whatever it was, the host is told
            (RESULTS / "error.txt").write_text(traceback.format_exc())
        sys.stdout.flush()
        os._exit(0)
    os.waitpid(child, 0)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as archive:
        archive.add(RESULTS, arcname=".")
    send(line, b"DONE %d\n" % len(buffer.getbuffer()))
    send(line, buffer.getvalue())


def run() -> None:
    sys.path.insert(0, str(JOB))
    spec = importlib.util.spec_from_file_location("job", JOB / "job.py")
    job = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(job)
    job.main(JOB, RESULTS)


def send(line: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(line, view) :]


if __name__ == "__main__":
    main()
