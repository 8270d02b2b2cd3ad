"""A burst that is over before the first reading: the agent is stopped meanwhile, and finds calm numbers."""

import os
import signal


def act(rig):
    rig.listen()
    agent = rig.agent_pid()
    os.kill(agent, signal.SIGSTOP)
    with rig.watching():
        rig.burst(250, limit=64)
    rig.stop("phones", "shop")
    rig.wait("no orphan is left", lambda: rig.sockstat()["orphan"] == 0)
    os.kill(agent, signal.SIGCONT)
    rig.wait_for_posts("opened", "resolved")


def check(found):
    incident = found.the_incident()
    assert 0 == found.snapshots(incident)[0]["sockstat"]["tcp"]["orphan"]
    found.check_orphans(incident)
    assert incident["diagnosis"]["mechanism"]["penalty_shift"] is None
    # In between: who was hit, where most died in an interrupt, which has no program until there is a dump.
    found.check_told(incident)
    # Nobody is left to be named, so nobody is.
    assert 0 == sum(holder["orphans"] for holder in incident["diagnosis"]["holders"])
    assert ".service" not in incident["summary"]
