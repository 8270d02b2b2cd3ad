"""Control: a flood of TIME-WAIT, and transfers as fast as they go. Nothing is wrong, and nothing is said."""

LOAD_SECONDS = 25  # two samples of it at least


def act(rig):
    rig.listen()
    rig.start("shop.service", "answer", "--port", 8080, "--bytes", 9000)
    rig.hear("shop", "listening")
    rig.start("phones.service", "talk", "--port", 8080, "--count", 1500)
    rig.start("idle.service", "serve", "--port", 8081, "--count", 100)
    rig.hear("idle", "listening")
    rig.start("watchers.service", "clients", "--port", 8081, "--count", 100)
    with rig.watching():
        rig.hear("phones", "satisfied", seconds=90)
        rig.hear("idle", "connected")
        received = rig.segments()
        transfer(rig, "backup", 8082)
        # Of single bytes a slow reader's buffer fills with overhead and is pruned: that is no shortage of memory.
        transfer(rig, "chat", 8083, "--bytes", 1, pause=0.2)
        rig.pause(LOAD_SECONDS)
        rig.note("received", rig.segments() - received)
    rig.note("diagnosis", rig.json("sockmem-agent", "diagnose", "--json"))
    rig.pause(3)


def transfer(rig, name, port, *sending, pause=0):
    rig.start(f"{name}.service", "drain", "--port", port, "--count", 6, "--pause", pause)
    rig.hear(name, "listening")
    rig.start(f"{name}-peers.service", "push", "--port", port, "--count", 6, *sending)
    rig.hear(name, "connected")


def check(found):
    assert found.notes["peaks"]["tw"] > 1000
    assert found.notes["received"] > 5_000
    assert [] == found.incidents
    assert [] == found.posts
    assert ("none", "certain") == (found.notes["diagnosis"]["cause"], found.notes["diagnosis"]["confidence"])
    assert (0, 0) == (found.notes["killed"], found.notes["pressures"])
    assert [] == found.notes["kernel_lines"]
