"""Machines in which the package is installed and runs, kept in the cache under a hash of all that they are made of."""

import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

import vm_build
import vm_machine
from vm_apt import run

HERE = Path(__file__).parent
# The kernel of the root file system's own release: what its users have when they install the package.
INSTALLED_ON = "6.1"


class Prepared(NamedTuple):
    """A machine of one kernel, saved when the service runs; ``base`` is the disk that the package was installed on."""

    parts: vm_build.Parts
    disk: Path
    base: Path


def prepare(kernel: str, package: Path) -> Prepared:
    """Make, or find in the cache, the machine of a kernel with this package in it."""
    with tempfile.TemporaryDirectory(prefix="vm-jobs-") as folder:
        first = vm_build.parts(INSTALLED_ON)
        install = job_of("install", Path(folder), package)
        key = vm_build.digest(
            Path(vm_machine.__file__).read_bytes(),
            run("qemu-system-x86_64", "--version").encode(),
            first.root.parent.name.encode(),
            first.kernel.parent.name.encode(),
            *sorted(file.read_bytes() for file in install.iterdir()),
        )
        base = vm_machine.installed(first, f"installed-{key}", install)
        parts = vm_build.parts(kernel)
        wake = job_of("wake", Path(folder))
        key = vm_build.digest(base.name.encode(), parts.kernel.parent.name.encode(), (wake / "job.py").read_bytes())
        return Prepared(parts, vm_machine.prepared(parts, f"machine-{parts.release}-{key}", base, wake), base)


def job_of(name: str, jobs: Path, *files: Path) -> Path:
    """Lay out a job of one guest file, with what it needs."""
    folder = jobs / name
    folder.mkdir()
    shutil.copy(HERE / "guest" / f"{name}.py", folder / "job.py")
    for file in files:
        shutil.copy(file, folder)
    return folder
