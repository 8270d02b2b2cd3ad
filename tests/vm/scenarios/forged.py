"""Forged lines: by logger, by a write to /dev/kmsg, in a text file. Journal and kmsg know the kernel; a file cannot."""

import time
from datetime import datetime
from pathlib import Path

LINE = "TCP: too many orphaned sockets"


def act(rig):
    rig.listen()
    log = Path("/var/log/messages")
    log.write_text("")
    kmsg = rig.second_agent("kmsg", '[source]\nkind = "kmsg"\n[incident]\nquiet_seconds = 6\n')
    claimed = rig.second_agent("file", '[source]\nkind = "file"\n[incident]\nquiet_seconds = 6\n')
    rig.run("logger", "-t", "kernel", "-p", "kern.info", LINE)
    rig.run(
        "logger",
        "--journald=/dev/stdin",
        given=f"MESSAGE={LINE}\nSYSLOG_IDENTIFIER=kernel\nSYSLOG_FACILITY=0\nPRIORITY=6\n",
    )
    Path("/dev/kmsg").write_text(f"<6>{LINE}\n")
    with log.open("a") as file:
        file.write(f"Nov 22 12:00:00 vm kernel: [  100.000001] {LINE}\n")
    rig.wait("the file's incident", lambda: rig.incidents(claimed))
    # A reader of the journal or kmsg has read the forged lines when the true ones come behind them.
    rig.note("forged_at", time.time())
    rig.burst(200, limit=64)
    rig.wait_until_named(kmsg)
    rig.wait_until_named()
    rig.stop("phones", "shop")
    rig.wait_for_posts("opened", "resolved")
    rig.wait("the file's is closed", lambda: rig.incidents(claimed)[0]["closed_at"])


def check(found):
    for state in ("sockmem-agent", "agent-kmsg"):
        true = found.the_incident(state=state)
        found.check_orphans(true, unit="shop.service")
        assert datetime.fromisoformat(true["opened_at"].replace("Z", "+00:00")).timestamp() > found.notes["forged_at"]
    found.check_told(found.the_incident())
    [incident] = found.incidents_of("agent-file")
    assert "orphans" == incident["cause"]
    assert {"too_many_orphans": 1} == incident["events"]
    assert "claimed" == incident["provenance"]
    assert incident["confidence"] != "certain"
    # All three were really there to be seen, beside the kernel's; what agents say of theirs is none of them.
    said = [line for line in found.journal() if LINE in line and "agent" not in line]
    assert 3 == len(said) - found.lines("too many orphaned")
