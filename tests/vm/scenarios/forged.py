"""Forged lines: by logger, by a write to /dev/kmsg, in a text file. Journal and kmsg know the kernel; a file cannot.

The service reads the file, and the kernel's trace contradicts it: where that shows kills, the messages say so in the
first line, and real kills, which are never in this file, open an incident all the same.
"""

import time
from datetime import datetime
from pathlib import Path

WARNS = True  # Where the trace tells of no kills, the gauges warn of the real ones.
LINE = "TCP: too many orphaned sockets"


def act(rig):
    rig.listen()
    log = Path("/var/log/messages")
    log.write_text("")
    rig.configure(f'[source]\nkind = "file"\n{rig.CONFIG}')
    kmsg, journal = (
        rig.second_agent(kind, f'[source]\nkind = "{kind}"\n[incident]\nquiet_seconds = 6\n')
        for kind in ("kmsg", "journal")
    )
    rig.run("logger", "-t", "kernel", "-p", "kern.info", LINE)
    rig.run(
        "logger",
        "--journald=/dev/stdin",
        given=f"MESSAGE={LINE}\nSYSLOG_IDENTIFIER=kernel\nSYSLOG_FACILITY=0\nPRIORITY=6\n",
    )
    Path("/dev/kmsg").write_text(f"<6>{LINE}\n")
    with log.open("a") as file:
        file.write(f"{time.strftime('%b %e %H:%M:%S')} vm kernel: [{time.monotonic():12.6f}] {LINE}\n")
    rig.wait_for_posts("opened", "resolved")
    # A reader of the journal or kmsg has read the forged lines when the true ones come behind them.
    rig.note("forged_at", time.time())
    rig.burst(200, limit=64)
    for state in (kmsg, journal):
        rig.wait_until_named(state)
    if "sockmem-agent-kills" in rig.instances():  # Otherwise the service cannot know of it.
        rig.wait_until_named(unit="shop.service")
    rig.stop("phones", "shop")
    for state in (kmsg, journal):
        rig.wait(f"{state.name}: it is over", lambda state=state: rig.incidents(state)[0]["closed_at"])
    rig.wait_until_all_is_told()


def check(found):
    for state in ("agent-journal", "agent-kmsg"):
        true = found.the_incident(state=state)
        found.check_orphans(true, unit="shop.service")
        assert datetime.fromisoformat(true["opened_at"].replace("Z", "+00:00")).timestamp() > found.notes["forged_at"]
    claimed, *silent = [incident for incident in found.incidents if incident["class"] == "event"]
    assert ("orphans", "possible", "claimed") == found.verdict(claimed)
    assert {"too_many_orphans": 1} == claimed["events"]
    found.check_told(claimed)
    if found.sees_kills(claimed):
        assert (0, 0) == (claimed["witness"]["kills"], claimed["witness"]["lost"])
        # On the lock screen.
        assert found.posts_of("team")[0]["body"]["text"].endswith("vm: log claims kills; the kernel reports none")
        [killed] = silent
        assert ("kernel", None, {0}) == (killed["provenance"], killed["first_event"], set(killed["events"].values()))
        found.check_witnessed(killed, "shop.service")
        found.check_told(killed)
    # All three were really there to be seen, beside the kernel's; what agents say of theirs is none of them.
    said = [line for line in found.journal() if LINE in line and "agent" not in line]
    assert 3 == len(said) - found.lines("too many orphaned")
