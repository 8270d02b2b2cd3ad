"""A burst that is over before the first reading: the agent is stopped meanwhile, and finds calm numbers."""

import os
import signal

LIMIT = 64
CONNECTIONS = 250


def act(rig):
    rig.listen()
    rig.sysctl("net.ipv4.tcp_max_orphans", str(LIMIT))
    rig.start("shop.service", "serve", "--port", 8080, "--count", CONNECTIONS, "--bytes", 110_000, "--pause", 0.002)
    rig.hear("shop", "listening")
    rig.start("phones.service", "clients", "--port", 8080, "--count", CONNECTIONS)
    rig.hear("shop", "connected")
    rig.tell("shop", "send", then="full")
    agent = rig.agent_pid()
    os.kill(agent, signal.SIGSTOP)
    with rig.watching():
        rig.tell("shop", "close", then="closed")
        rig.wait_for_lines()
    rig.stop("phones", "shop")
    rig.wait("no orphan is left", lambda: rig.sockstat()["orphan"] == 0)
    os.kill(agent, signal.SIGCONT)
    rig.wait_for_posts("opened", "resolved")


def check(found):
    incident = found.the_incident()
    assert 0 == found.snapshots(incident)[0]["sockstat"]["tcp"]["orphan"]
    assert ("orphans", "certain", "kernel") == found.verdict(incident)
    assert incident["diagnosis"]["mechanism"]["penalty_shift"] is None
    assert found.lines("too many orphaned") == incident["events"]["too_many_orphans"]
    assert ["opened", "resolved"] == found.told(incident)
    # Nobody is left to be named, so nobody is.
    assert [] == [holder for holder in incident["diagnosis"]["holders"] if holder["orphans"]]
