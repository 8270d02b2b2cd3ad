"""/dev/kmsg in a flood of 10,000 records a second beside the kernel's lines, and the agent killed in it, three times.

The service reads /dev/kmsg by the drop-in that its unit names. What the ring overwrote before it was read is told, and
the rest is counted once. The console has all of the kernel's own lines, whatever becomes of the ring.
"""

import os
import re
import signal
import subprocess
from pathlib import Path

ON_DEMAND = True
RESTARTS = 3
WARNS = True
QUIET_SECONDS = 30
LIMIT = 16
RATE, FLOOD_SECONDS = 10_000, 40
SECONDS = 400
IDLE_TICKS = 20  # of the 200 that two seconds have
TEXT = "TCP: too many orphaned sockets"
DROP_IN = """\
[Service]
PrivateDevices=no
DevicePolicy=closed
DeviceAllow=/dev/kmsg r
ProtectKernelLogs=no
CapabilityBoundingSet=CAP_SYSLOG
AmbientCapabilities=CAP_SYSLOG
"""


def act(rig):
    prepare(rig)
    # Gusts, which the ring keeps: after a kill, too, nothing is lost.
    rig.provoke("first", rounds=2)
    rig.run("python3", str(rig.folder / "flood.py"), str(RATE), "0.1")
    kill(rig)
    rig.provoke("second", rounds=2)
    rig.run("python3", str(rig.folder / "flood.py"), str(RATE), "0.1")
    rig.wait("all is counted", lambda: rig.counted() == rig.said(), seconds=60)
    rig.note("kept", rig.counted())

    flood = subprocess.Popen(
        ["python3", rig.folder / "flood.py", str(RATE), str(FLOOD_SECONDS)], stdout=subprocess.PIPE, text=True
    )
    for name in ("third", "fourth"):
        rig.provoke(name, rounds=2)
        kill(rig)
    rig.provoke("fifth", rounds=2)
    rig.note("rate", int(flood.communicate()[0]))
    rig.wait("the service has read all", lambda: rests(rig), seconds=90)
    before, said = rig.counted(), rig.said()
    rig.note("left", before)
    rig.provoke("last", rounds=2)
    rig.wait("the last are counted", lambda: rig.counted() - before == rig.said() - said > 0, seconds=60)
    rig.note("after", rig.counted() - before)
    # Nobody was told so far, so that no delivery is cut off.
    rig.listen()
    rig.wait_until_all_is_told()


def prepare(rig):
    unit = Path("/usr/lib/systemd/system/sockmem-agent.service").read_text()
    assert all(f"#   {line}\n" in unit for line in DROP_IN.splitlines())
    Path("/etc/systemd/system/sockmem-agent.service.d/kmsg.conf").write_text(DROP_IN)
    # journald reads the same ring; under emulation it would have the machine to itself.
    folder = Path("/etc/systemd/journald.conf.d")
    folder.mkdir(exist_ok=True)
    (folder / "kmsg.conf").write_text("[Journal]\nReadKMsg=no\n")
    rig.run("systemctl", "restart", "systemd-journald")
    rig.do_without_witness()
    rig.configure(
        '[source]\nkind = "kmsg"\n' + rig.CONFIG.replace("quiet_seconds = 6", f"quiet_seconds = {QUIET_SECONDS}")
    )
    rig.sysctl("kernel.printk_devkmsg", "on\n")
    rig.sysctl("kernel.printk", "7 4 1 7")
    rig.print_every_kill(LIMIT)


def kill(rig):
    before = rig.agent_pid()
    os.kill(before, signal.SIGKILL)
    rig.wait("systemd started it again", lambda: rig.agent_pid() not in (0, before), seconds=60)


def rests(rig):
    """Return whether the service did nothing for two seconds."""
    before = ticks(rig)
    rig.pause(2)
    return ticks(rig) - before < IDLE_TICKS


def ticks(rig):
    return int(Path(f"/proc/{rig.agent_pid()}/stat").read_text().rpartition(")")[2].split()[11])


def check(found):
    said = sum(TEXT in line for line in (found.folder / "console.txt").read_text(errors="replace").splitlines())
    total = sum(incident["events"].get("too_many_orphans", 0) for incident in found.incidents)
    notes = found.notes
    assert notes["rate"] > 0.9 * RATE
    assert notes["kept"] + notes["after"] < total == notes["left"] + notes["after"]
    gaps = [line for line in found.journal() if "overwritten before" in line]
    overwritten = sum(int(re.search(r"([0-9,]+) kernel record", line)[1].replace(",", "")) for line in gaps)
    assert overwritten > 0.1 * RATE * FLOOD_SECONDS
    assert total <= said <= total + overwritten
