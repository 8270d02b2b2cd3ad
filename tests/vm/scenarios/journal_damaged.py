"""Files of the journal are damaged or cut while they are read: it goes on, and tells.

What the service says goes to a file here, since the journal is not to be trusted.
"""

import os
import struct
from pathlib import Path

ON_DEMAND = True
WARNS = True
LIMIT = 16
QUIET_SECONDS = 30
SECONDS = 400
TAIL_OBJECT_OFFSET = 136  # in struct Header, systemd's journal-def.h
SAID = Path("/var/lib/vm/said.txt")


def act(rig):
    drop_in = Path("/etc/systemd/system/sockmem-agent.service.d/said.conf")
    drop_in.write_text(f"[Service]\nStandardError=append:{SAID}\n")
    rig.run("systemctl", "daemon-reload")
    rig.configure(rig.CONFIG.replace("quiet_seconds = 6", f"quiet_seconds = {QUIET_SECONDS}"))
    rig.listen()
    rig.print_every_kill(LIMIT)
    rig.provoke("first")
    rig.wait("they are counted", lambda: rig.counted() == rig.said())
    rig.run("journalctl", "--rotate")
    damage(archived(), archived().stat().st_size // 4, archived().stat().st_size // 2)
    rig.provoke("second")
    rig.wait("they are counted, too", lambda: rig.counted() == rig.said())
    # Not the damaged one: libsystemd may have let go of that. This one's pages are mapped: a SIGBUS.
    rig.run("journalctl", "--rotate")
    os.truncate(archived(), 4096)
    rig.provoke("after_the_cut")
    rig.wait("these are counted, too", lambda: rig.counted() == rig.said())
    rig.note("told_of_the_cut", SAID.read_text())

    # Where the active file has its newest records, and journald goes on.
    with active().open("rb") as file:
        file.seek(TAIL_OBJECT_OFFSET)
        [tail] = struct.unpack("<Q", file.read(8))
    rig.provoke("third")
    damage(active(), tail, 1 << 16)
    rig.provoke("fourth")
    rig.pause(5)
    rig.note("amid", [rig.counted(), rig.said()])
    rig.note("told_amid", SAID.read_text())
    rig.run("journalctl", "--rotate")
    before = rig.said() - rig.counted()
    rig.provoke("last")
    rig.wait("the last are counted", lambda: rig.said() - rig.counted() == before, seconds=60)
    rig.note("files", sorted(path.name for path in active().parent.iterdir()))
    rig.wait_for_posts("opened", "resolved", seconds=90)
    rig.note("told", SAID.read_text())
    # What it follows is said to the journal again.
    drop_in.unlink()
    rig.run("systemctl", "daemon-reload")
    rig.run("systemctl", "restart", "sockmem-agent")


def active():
    [found] = Path("/var/log/journal").glob("*/system.journal")
    return found


def archived():
    """Return the file that was rotated last."""
    return max(active().parent.glob("system@*.journal"))


def damage(path, begin, size):
    with path.open("r+b") as file:
        file.seek(begin)
        file.write(b"\xa5" * size)


def check(found):
    counted, said = found.notes["amid"]
    assert "Traceback" not in found.notes["told"]
    assert "damaged" in found.notes["told"]
    assert "truncated while open" in found.notes["told_of_the_cut"]
    assert "BUS" not in (found.folder / "journal.txt").read_text()
    # What the journal lost before it was read is told.
    assert counted == said or "lost" in found.notes["told_amid"] or "system.journal" in found.notes["told_amid"]
