"""Control: a flood of TIME-WAIT and ordinary traffic. Nothing is wrong, and nothing is said."""


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
    rig.note("diagnosis", rig.json("sockmem-agent", "diagnose", "--json"))
    rig.pause(3)


def check(found):
    assert found.notes["peaks"]["tw"] > 1000
    assert [] == found.incidents
    assert [] == found.posts
    assert ("none", "certain") == (found.notes["diagnosis"]["cause"], found.notes["diagnosis"]["confidence"])
    assert (0, 0) == (found.notes["killed"], found.notes["pressures"])
    assert [] == found.notes["kernel_lines"]
