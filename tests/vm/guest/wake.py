"""In the machine, once a kernel: wait until the service is ready, which the boot started. Scenarios begin here."""

import subprocess
import time
from pathlib import Path


def main(_folder: Path, results: Path) -> None:
    deadline = time.monotonic() + 120
    while _said("systemctl", "is-active", "sockmem-agent").strip() != "active":
        if time.monotonic() > deadline:
            raise AssertionError(_said("systemctl", "status", "--no-pager", "sockmem-agent"))
        time.sleep(0.2)
    (results / "status.txt").write_text(_said("systemctl", "status", "--no-pager", "sockmem-agent"))
    # Less to save: what was only read comes back when it is needed.
    subprocess.run(["sync"], check=True)
    Path("/proc/sys/vm/drop_caches").write_text("3")


def _said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout
