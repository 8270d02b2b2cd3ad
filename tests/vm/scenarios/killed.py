"""The agent is killed with -9 at the first line, and again in the middle of a delivery. Each line counts once."""

import os
import signal
from pathlib import Path

LIMIT = 64
CONNECTIONS = 200


def act(rig):
    receiver = rig.listen()
    first = rig.agent_pid()
    rig.sysctl("net.ipv4.tcp_max_orphans", str(LIMIT))
    rig.start("shop.service", "serve", "--port", 8080, "--count", CONNECTIONS, "--bytes", 110_000, "--pause", 0.002)
    rig.hear("shop", "listening")
    rig.start("phones.service", "clients", "--port", 8080, "--count", CONNECTIONS)
    rig.hear("shop", "connected")
    rig.tell("shop", "send", then="full")
    rig.tell("shop", "close")
    rig.wait_for_lines()
    os.kill(first, signal.SIGKILL)
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


def check(found):
    incident = found.the_incident()
    assert 2 == len(set(found.notes["killed_pids"]))
    assert ("orphans", "certain", "kernel") == found.verdict(incident)
    assert found.lines("too many orphaned") == incident["events"]["too_many_orphans"]
    # It was killed before it had asked who holds what: it asked when it was back.
    assert "shop.service" == found.first_named(incident)["unit"]
    # The notice whose POST was cut off came again, under the same id.
    ids = [post["headers"]["webhook-id"] for post in found.posts]
    assert len(ids) > len(set(ids))
    assert "opened" == found.told(incident)[0]
    assert "resolved" == found.told(incident)[-1]
    assert len(found.told(incident)) <= 3
