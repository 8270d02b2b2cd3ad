"""journald rotates and vacuums, again and again, while the kernel speaks and the service reads: lines count once.

First it takes only what was read, though the service's place is always in there; then whatever there is, as fast as it
can; and at last, while the service stands still, what was not read yet: that is lost, and told.
"""

import subprocess

ON_DEMAND = True
WARNS = True
LIMIT = 16
QUIET_SECONDS = 20
SECONDS = 400
ROTATIONS = 8
STORM = ("--port", 8080, "--count", 60, "--rounds", 6, "--bytes", 110_000, "--pause", 0.03)
LOST = "records may be lost"


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
        rig.stop("first")  # Its port is the next one's.

        rig.start("second.service", "churn", *STORM)
        while not rig.has_said("second", "done"):
            rotate_and_vacuum(rig)
        rig.stop("second")
        rig.pause(2)  # What was not vacuumed is read by now.
        rig.note("fast", [rig.counted(), rig.said()])
        rig.note("lost_fast", told(rig))

        lose_some(rig)
        rig.wait_until_all_is_told()
        follower.terminate()
    # What it follows is said again, in what is left of the journal.
    rig.run("systemctl", "restart", "sockmem-agent")


def lose_some(rig):
    """Vacuum what the service cannot have read, and let the kernel speak once more."""
    before = rig.said() - rig.counted()
    rig.run("systemctl", "service-watchdogs", "no")
    rig.run("systemctl", "kill", "--signal=STOP", "sockmem-agent")
    unread = -rig.said()
    rig.provoke("third")
    rig.run("journalctl", "--sync")
    rotate_and_vacuum(rig)
    unread += rig.said()
    rig.run("systemctl", "kill", "--signal=CONT", "sockmem-agent")
    rig.provoke("last")
    rig.wait("the last are counted", lambda: rig.said() - rig.counted() == before + unread)
    rig.note("unread", unread)
    rig.note("lost_at_last", told(rig))


def rotate_and_vacuum(rig):
    rig.run("journalctl", "--rotate")
    rig.run("journalctl", "--vacuum-files=1")


def told(rig):
    """Return how often the service has said that records may be lost."""
    return (rig.results / "said.txt").read_text().count(LOST)


def check(found):
    notes = found.notes
    counted, said = notes["fast"]
    assert 0 < counted <= said
    assert counted == said or notes["lost_fast"] > 0
    assert notes["unread"] > 0
    assert notes["lost_at_last"] > notes["lost_fast"]
    total = sum(incident["events"].get("too_many_orphans", 0) for incident in found.incidents)
    assert total == found.lines("too many orphaned") - notes["unread"] - (said - counted)
    assert "Traceback" not in (found.folder / "said.txt").read_text()
