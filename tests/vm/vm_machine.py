"""A machine under QEMU without KVM: booted once for each kernel and package, then resumed for every scenario.

The first boot installs the package as a user would. Each kernel then boots that disk, and is saved with all its memory
when the service runs (QEMU's ``savevm``). A scenario works on a copy and goes on from the saved moment, so that what it
does to the kernel is gone with it, and it costs seconds instead of a boot. The guest's console is the first serial
line and goes to a file; jobs and results go over the second (guest/station.py).
"""

import contextlib
import io
import os
import shutil
import socket
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vm_build import Parts

MEMORY_MIB = 2048
CPUS = 2
# The oldest 64-bit model: newer instructions are no gain under emulation, and QEMU 7.2 gets cmpxchg16b wrong, on which
# the allocator of 6.12 dies (double fault in __kmalloc).
CPU = "qemu64,cx16=off"
SAVED = "ready"
APPEND = "console=ttyS0 panic=-1 net.ifnames=0 mitigations=off random.trust_cpu=on systemd.show_status=0"


class MachineError(Exception):
    """The machine did not do what it must; the message says what was waited for, and where its console is."""


@dataclass
class Machine:
    """A running QEMU: ``folder`` has the socket of its monitor, ``link`` is the second serial line."""

    folder: Path
    console: Path
    process: subprocess.Popen[bytes]
    link: socket.socket

    def job(self, folder: Path, deadline: float) -> bytes:
        """Send a folder with its job.py, wait for it to be done, and return the archive of its results."""
        self.send(folder)
        header = self.wait_for(b"DONE ", deadline)
        return self._read(int(header.split()[1]), deadline)

    def send(self, folder: Path) -> None:
        """Send a folder with its job.py, which the guest begins."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            archive.add(folder, arcname=".", filter=_owned_by_root)
        body = buffer.getvalue()
        self.link.sendall(b"JOB %d %.3f\n" % (len(body), time.time()))
        self.link.sendall(body)

    def wait_for(self, word: bytes, deadline: float) -> bytes:
        """Return the first line from the guest that begins with ``word``; lines before it are skipped."""
        while True:
            line = b""
            while not line.endswith(b"\n"):
                line += self._read(1, deadline)
            if line.startswith(word):
                return line

    def _read(self, size: int, deadline: float) -> bytes:
        got = bytearray()
        while len(got) < size:
            self.link.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                part = self.link.recv(size - len(got))
            except TimeoutError:
                part = b""
            if not part:
                raise MachineError(f"the guest did not answer in time, or ended; see {self.console}")
            got += part
        return bytes(got)

    def save(self) -> None:
        """Keep the machine, memory and all, in its disk; it can be ended then."""
        answer = self._monitor(f"savevm {SAVED}")
        if "Error" in answer:
            raise MachineError(f"QEMU could not save the machine: {answer}")

    def _monitor(self, command: str) -> str:
        with socket.socket(socket.AF_UNIX) as monitor:
            monitor.connect(str(self.folder / "monitor"))
            monitor.settimeout(120)
            _until_prompt(monitor)
            monitor.sendall(command.encode() + b"\n")
            return _until_prompt(monitor)


def _until_prompt(monitor: socket.socket) -> str:
    said = b""
    while not said.endswith(b"(qemu) "):
        part = monitor.recv(4096)
        if not part:
            raise MachineError(f"QEMU ended while its monitor was asked; it said: {said.decode(errors='replace')}")
        said += part
    return said.decode(errors="replace")


def _owned_by_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    return member


@contextlib.contextmanager
def running(parts: Parts, disk: Path, console: Path, *, resume: bool, cache: str = "unsafe") -> Iterator[Machine]:
    """Run a machine on a disk, from its saved moment or from power-on; QEMU is killed at the end of the block.

    ``cache`` is QEMU's: "unsafe" is quick and does not flush.
    """
    folder = Path(tempfile.mkdtemp(prefix="vm-", dir="/tmp"))
    command = [
        # QEMU ends with these tests, however they end.
        *(("setpriv", "--pdeathsig", "KILL") if shutil.which("setpriv") else ()),
        "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", CPU, "-smp", str(CPUS), "-m", str(MEMORY_MIB),
        "-nodefaults", "-display", "none", "-rtc", "base=utc",
        "-kernel", parts.kernel, "-initrd", parts.initramfs, "-append", APPEND,
        "-drive", f"file={disk},format=qcow2,if=virtio,cache={cache}",
        "-serial", f"file:{console}",
        "-serial", f"unix:{folder}/link,server=on,wait=on",
        "-monitor", f"unix:{folder}/monitor,server=on,wait=off",
        *(("-loadvm", SAVED) if resume else ()),
    ]  # fmt: skip
    errors = (folder / "qemu.txt").open("wb")
    process = subprocess.Popen([str(word) for word in command], stdout=errors, stderr=errors)
    link = socket.socket(socket.AF_UNIX)
    try:
        _connect(link, folder / "link", process)
        yield Machine(folder, console, process, link)
    finally:
        link.close()
        process.kill()
        process.wait()
        errors.close()
        shutil.rmtree(folder, ignore_errors=True)


def _connect(link: socket.socket, path: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            link.connect(str(path))
        except OSError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                said = (path.parent / "qemu.txt").read_text(errors="replace")
                raise MachineError(f"QEMU did not start: {said or error}") from error
            time.sleep(0.05)
        else:
            return


def installed(parts: Parts, name: str, job: Path) -> Path:
    """Boot, run the job that installs the package and powers off, and return the disk."""
    disk = parts.root.parent.parent / f"{name}.qcow2"
    if disk.exists():
        return disk
    # The machines of earlier packages are of no more use, nor is what a run that was killed left.
    for pattern in ("installed-*", "machine-*", "vm-disk-*"):
        for old in disk.parent.glob(pattern):
            shutil.rmtree(old) if old.is_dir() else old.unlink()
    with _new_disk(disk, parts.root, "raw") as partial, _booted(parts, partial, disk, job) as machine:
        machine.process.wait(120)
    return disk


def prepared(parts: Parts, name: str, base: Path, job: Path) -> Path:
    """Boot an installed disk, wait for the service, save the machine, and return its disk, ready to be copied."""
    disk = base.with_name(f"{name}.qcow2")
    if disk.exists():
        return disk
    with _new_disk(disk, base, "qcow2") as partial, _booted(parts, partial, disk, job) as machine:
        machine.wait_for(b"READY", time.monotonic() + 60)
        machine.save()
    return disk


@contextlib.contextmanager
def _new_disk(disk: Path, base: Path, form: str) -> Iterator[Path]:
    """Make a disk on top of another; it gets its name only when the block has succeeded."""
    partial = disk.with_suffix(f".{os.getpid()}.partial")
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", form, "-b", str(base), str(partial)]
    subprocess.run(command, check=True)
    try:
        yield partial
        partial.rename(disk)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def _booted(parts: Parts, partial: Path, disk: Path, job: Path) -> Iterator[Machine]:
    """Boot a disk and run a job on it, whose results stay beside the disk."""
    results = disk.with_suffix(".results")
    deadline = time.monotonic() + 600
    with running(parts, partial, disk.with_suffix(".console.txt"), resume=False) as machine:
        machine.wait_for(b"READY", deadline)
        unpack(machine.job(job, deadline), results)
        error = results / "error.txt"
        if error.exists():
            raise MachineError(f"the machine could not be prepared; {error} says: {error.read_text()[-1500:]}")
        yield machine


def unpack(archive: bytes, folder: Path) -> None:
    """Lay out the results of a job, with the modes and owners they had in the machine."""
    # Any other filter clears bits that vm_checks.wrong_modes() is there to see.
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        opened.extractall(folder, filter="fully_trusted", numeric_owner=True)


def run_job(parts: Parts, disk: Path, job: Path, results: Path, seconds: float) -> None:
    """Run one job on a copy of a prepared machine; its results and console are in the folder ``results``."""
    # What the run before left is kept beside it: of a second try, why there was one.
    earlier = results.with_name(f"{results.name}.earlier")
    shutil.rmtree(earlier, ignore_errors=True)
    if results.exists():
        results.rename(earlier)
    with tempfile.TemporaryDirectory(prefix="vm-disk-", dir=disk.parent) as folder:
        copy = Path(folder) / "disk.qcow2"
        subprocess.run(["cp", "--reflink=auto", "--sparse=always", str(disk), str(copy)], check=True)
        console = Path(folder) / "console.txt"
        try:
            with running(parts, copy, console, resume=True) as machine:
                archive = machine.job(job, time.monotonic() + seconds)
                unpack(archive, results)
        finally:
            results.mkdir(parents=True, exist_ok=True)
            if console.exists():
                shutil.copy(console, results / "console.txt")
