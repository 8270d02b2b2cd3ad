"""The machine's power is cut in an incident: QEMU is killed, and the same disk is booted again.

The disk is one with a volatile cache that keeps its word (QEMU's cache=writeback): what the guest has flushed is in the
image, and of all else there is what happened to be: what the guest had not written yet is gone, and so may be what it
had written, since QEMU itself keeps the map of new clusters in memory until a flush.
"""

import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
import vm_apt
import vm_machine
from test_vm import SECONDS, lay_out
from vm_checks import COMPLAINTS
from vm_found import Found

NAME = "power_cut"
CUTS = 20
# From the kernel's first line on: the commit, the deliveries, the holders, the end, each at its own moment.
STEP_SECONDS = 0.6
LINE = "too many orphaned sockets"

pytestmark = pytest.mark.vm


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Twenty cuts on each kernel that was asked for; conftest.py leaves them out unless they are, too."""
    kernels = vm_apt.kernels(metafunc.config.getoption("--kernel"))
    metafunc.parametrize(("kernel", "cut"), [(kernel, cut) for kernel in kernels for cut in range(CUTS)])


def test_what_was_told_before_the_power_is_cut_is_on_disk_and_told_to_its_end(
    kernel, cut, results, machine_of, tmp_path
):
    machine = machine_of(kernel, NAME)
    folder = results / kernel / f"{NAME}-{cut:02}"
    shutil.rmtree(folder, ignore_errors=True)
    disk, console, later = (tmp_path / name for name in ("disk.qcow2", "console.txt", "later.txt"))
    subprocess.run(["cp", "--reflink=auto", "--sparse=always", machine.disk, disk], check=True)
    provoke, go_on = (lay_out_guest(name, tmp_path / name) for name in ("cut_before", "cut_after"))

    with vm_machine.running(machine.parts, disk, console, resume=True, cache="writeback") as running:
        running.send(provoke)
        wait_for_line(console)
        time.sleep(cut * STEP_SECONDS)
    with vm_machine.running(machine.parts, disk, later, resume=False, cache="writeback") as running:
        deadline = time.monotonic() + 2 * SECONDS
        running.wait_for(b"READY", deadline)
        vm_machine.unpack(running.job(go_on, deadline), folder)
    for file in (console, later):
        shutil.copy(file, folder)
    disk.unlink()

    check(Found(folder), console.read_text(errors="replace"))


def lay_out_guest(name: str, folder: Path) -> Path:
    folder.mkdir()
    lay_out(Path(__file__).parent / "guest" / f"{name}.py", folder)
    return folder


def wait_for_line(console: Path) -> None:
    deadline = time.monotonic() + SECONDS
    while LINE not in console.read_text(errors="replace"):
        assert time.monotonic() < deadline, "the kernel has not said its line"
        time.sleep(0.02)


def check(found: Found, console: str) -> None:
    """Check what is on disk against what the receiver took before the cut, and what it took after."""
    error = found.folder / "error.txt"
    assert not error.exists(), f"in the machine: {error.read_text()}"
    assert [] == found.notes["broken"]
    complaints = [line for line in found.journal() if any(word in line for word in COMPLAINTS)]
    assert [] == [line for line in complaints if " sockmem-agent[" in line]
    said = console.count(LINE)
    taken = re.findall(r"^TAKEN (\S+) sockmem\.incident\.(\S+) (\S+) (\d+)\r?$", console, re.MULTILINE)
    incidents = {incident["id"]: incident for incident in found.incidents}
    for _, _, incident_id, events in taken:
        assert int(events) <= sum(incidents[incident_id]["events"].values()) <= said
    after = [(post["headers"]["webhook-id"], post["body"]["type"].rpartition(".")[2]) for post in found.posts]
    for incident_id, incident in incidents.items():
        story = [(webhook_id, kind) for webhook_id, kind, owner, _ in taken if owner == incident_id]
        story += [(webhook_id, kind) for webhook_id, kind in after if incident_id in webhook_id]
        ids = [webhook_id for webhook_id, _ in story]
        # Only the one that was under way at the cut may come again.
        assert len(ids) - len(set(ids)) <= 1
        kinds = list(dict(story).values())
        assert ["resolved"] == kinds or ("opened", "resolved") == (kinds[0], kinds[-1])
        assert incident["closed_at"]
