"""journald rotates and vacuums, again and again, while the kernel speaks and the service reads: lines count once.

First it takes only what was read, though the service's place is always in there; then whatever there is, and then what
was not read yet may be lost, which is told.
"""

import subprocess

ON_DEMAND = True
WARNS = True
LIMIT = 16
QUIET_SECONDS = 20
SECONDS = 400
ROTATIONS = 8
STORM = ("--port", 8080, "--count", 60, "--rounds", 6, "--bytes", 110_000, "--pause", 0.03)


def act(rig):
    rig.configure(rig.CONFIG.replace("quiet_seconds = 6", f"quiet_seconds = {QUIET_SECONDS}"))
    rig.listen()
    rig.print_every_kill(LIMIT)
    # What the service says is vacuumed, too.
    with (rig.results / "said.txt").open("w") as said:
        follower = subprocess.Popen(["journalctl", "-f", "-u", "sockmem-agent"], stdout=said)
        rig.start("first.service", "churn", *STORM)
        for _ in range(ROTATIONS):
            rig.run("journalctl", "--rotate")
            until_now = rig.said()
            rig.wait("what was rotated away is counted", lambda until_now=until_now: rig.counted() >= until_now)
            rig.run("journalctl", "--vacuum-files=1")
        rig.hear("first", "done", seconds=90)
        rig.wait("all is counted", lambda: rig.counted() == rig.said())
        rig.note("first", rig.counted())

        rig.start("second.service", "churn", *STORM)
        while not rig.has_said("second", "done"):
            rig.run("journalctl", "--rotate")
            rig.run("journalctl", "--vacuum-files=1")
        rig.stop("first", "second")
        rig.wait_until_all_is_told()
        follower.terminate()
    # What it follows is said again, in what is left of the journal.
    rig.run("systemctl", "restart", "sockmem-agent")


def check(found):
    total = sum(incident["events"].get("too_many_orphans", 0) for incident in found.incidents)
    lines = found.lines("too many orphaned")
    said = (found.folder / "said.txt").read_text()
    assert 0 < found.notes["first"] <= total <= lines
    assert total == lines or "may be lost" in said
    assert "Traceback" not in said
