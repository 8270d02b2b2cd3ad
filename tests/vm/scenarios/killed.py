"""The agent is killed with -9 at the first line, and again in the middle of a delivery. Each line counts once."""

import os
import signal
from pathlib import Path

RESTARTS = 2
TOLD_AGAIN = True
WARNS = True
# It is still open when the agent is back: what is over would not be told as opened again.
QUIET_SECONDS = 30


def act(rig):
    rig.configure(rig.CONFIG.replace("quiet_seconds = 6", f"quiet_seconds = {QUIET_SECONDS}"))
    first = rig.agent_pid()
    rig.burst(200, limit=64, until="")
    os.kill(first, signal.SIGKILL)
    # Nothing was taken before, so that the delivery that is cut off is the opening's.
    receiver = rig.listen()
    killed = []

    def kill_in_delivery():
        if not killed:
            killed.append(rig.agent_pid())
            os.kill(killed[0], signal.SIGKILL)
            rig.wait("it is gone", lambda: not Path(f"/proc/{killed[0]}").exists())

    receiver.before_answer = kill_in_delivery
    rig.wait("systemd started it again", lambda: rig.agent_pid() not in (0, first), seconds=60)
    rig.wait("a delivery was cut off", lambda: killed, seconds=60)
    rig.wait_for_posts("opened", "resolved", seconds=90)
    rig.note("killed_pids", [first, *killed])
    rig.note("instances", rig.instances())


def check(found):
    incident = found.the_incident()
    assert 2 == len(set(found.notes["killed_pids"]))
    # One of each.
    made = ["sockmem-agent-kills"] * found.sees_kills(incident) + ["sockmem-agent-refusals"]
    assert made == found.notes["instances"]
    # Where it was killed before it had asked who holds what, it asked when it was back.
    found.check_orphans(incident, unit="shop.service")
    # The notice whose POST was cut off came again, under the same id, and it alone.
    posts = [post for post in found.posts if post["body"]["data"]["id"] == incident["id"]]
    ids = [post["headers"]["webhook-id"] for post in posts]
    assert ids[0] == ids[1]
    assert len(ids) - 1 == len(set(ids))
    opened = [post["body"]["type"] == "sockmem.incident.opened" for post in posts]
    assert [True, True, *[False] * (len(ids) - 2)] == opened
    found.check_told(incident)
