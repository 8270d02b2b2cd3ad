"""TCP memory is so exhausted that the agent's own POST fails: it is stored, and delivered once memory is back."""

CONNECTIONS = 60


def act(rig):
    rig.listen()
    rig.start("exporter.service", "serve", "--port", 9000, "--count", CONNECTIONS, "--pause", 0.01)
    rig.hear("exporter", "listening")
    rig.start("readers.service", "clients", "--port", 9000, "--count", CONNECTIONS)
    rig.hear("exporter", "connected")
    rig.tell("exporter", "send", then="full")
    rig.sysctl("net.ipv4.tcp_mem", "1 1 1")
    rig.tell("exporter", "leave", then="half-closed")
    rig.wait_for_lines()
    rig.wait("the incident is stored", rig.incidents)
    rig.pause(10)
    rig.note("posts_while_exhausted", len(rig.receiver.posts))
    rig.note("shown", rig.run("sockmem-agent", "incidents", "show", "last"))
    rig.stop("readers", "exporter")
    rig.sysctl("net.ipv4.tcp_mem", "20000 30000 40000")
    rig.wait_for_posts("opened", "resolved", seconds=120)


def check(found):
    incident = found.the_incident()
    assert ("tcp_memory", "certain", "kernel") == found.verdict(incident)
    assert 0 == found.notes["posts_while_exhausted"]
    assert "pending" in found.notes["shown"]
    assert "opened" == found.told(incident)[0]
