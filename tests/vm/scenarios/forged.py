"""Forged lines: by logger, by a write to /dev/kmsg, in a text file. Journal and kmsg know the kernel; a file cannot."""

from pathlib import Path

LINE = "TCP: too many orphaned sockets"


def act(rig):
    rig.listen()
    log = Path("/var/log/messages")
    log.write_text("")
    rig.second_agent("kmsg", '[source]\nkind = "kmsg"\n')
    rig.second_agent("file", '[source]\nkind = "file"\n[incident]\nquiet_seconds = 6\n')
    rig.run("logger", "-t", "kernel", "-p", "kern.info", LINE)
    rig.run(
        "logger",
        "--journald=/dev/stdin",
        given=f"MESSAGE={LINE}\nSYSLOG_IDENTIFIER=kernel\nSYSLOG_FACILITY=0\nPRIORITY=6\n",
    )
    Path("/dev/kmsg").write_text(f"<6>{LINE}\n")
    with log.open("a") as file:
        file.write(f"Nov 22 12:00:00 vm kernel: [  100.000001] {LINE}\n")
    rig.wait("the file's incident", lambda: rig.incidents(Path("/var/lib/agent-file")))
    # What journal and kmsg had to say was said before; two looks of theirs have passed when this one is closed.
    rig.wait("it is closed", lambda: rig.incidents(Path("/var/lib/agent-file"))[0]["closed_at"])


def check(found):
    assert [] == found.incidents
    assert [] == found.incidents_of("agent-kmsg")
    assert [] == found.posts
    incident = found.the_incident(state="agent-file")
    assert "orphans" == incident["cause"]
    assert {"too_many_orphans": 1} == incident["events"]
    assert "claimed" == incident["provenance"]
    assert incident["confidence"] != "certain"
    # All three were really there to be seen; what the agent of the file says of its own is not one of them.
    assert 3 == sum("too many orphaned" in line and " agent-file[" not in line for line in found.journal())
