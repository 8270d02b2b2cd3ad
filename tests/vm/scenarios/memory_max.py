"""A million matching lines at once, under the unit's own MemoryMax=: all are counted, nothing is killed for memory."""

import time
from pathlib import Path

ON_DEMAND = True
SECONDS = 700
MILLION = 1_000_000
QUIET_SECONDS = 30
MESSAGES_AT_MOST = 3
LOG = Path("/var/log/messages")
CGROUP = Path("/sys/fs/cgroup/system.slice/sockmem-agent.service")


def act(rig):
    rig.listen()
    LOG.write_text("")
    rig.configure(
        '[source]\nkind = "file"\n' + rig.CONFIG.replace("quiet_seconds = 6", f"quiet_seconds = {QUIET_SECONDS}")
    )
    stamp = time.strftime("%b %e %H:%M:%S")
    second = int(time.monotonic())
    with LOG.open("a") as log:
        log.writelines(f"{stamp} vm kernel: [{second}.{n:06}] TCP: too many orphaned sockets\n" for n in range(MILLION))
    begun = time.monotonic()
    rig.wait("all are counted", lambda: rig.counted() == MILLION, seconds=500)
    rig.note("seconds", time.monotonic() - begun)
    for name in ("memory.max", "memory.peak", "memory.events", "memory.stat"):
        rig.note(name, (CGROUP / name).read_text())
    rig.note("resident", rig.agent_memory())
    rig.wait_until_all_is_told()


def check(found):
    incident = found.the_incident()
    assert {"too_many_orphans": MILLION} == incident["events"]
    assert 256 << 20 == int(found.notes["memory.max"])
    assert "\noom 0\noom_kill 0\n" in found.notes["memory.events"]
    assert found.told(incident)[0] == "opened"
    assert len(found.told(incident)) <= MESSAGES_AT_MOST
