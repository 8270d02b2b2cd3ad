"""The receiver is down for the whole incident; then it answers 503, then 429, then it takes what is owed, in order."""

LIMIT = 64
CONNECTIONS = 200


def act(rig):
    rig.sysctl("net.ipv4.tcp_max_orphans", str(LIMIT))
    rig.start("shop.service", "serve", "--port", 8080, "--count", CONNECTIONS, "--bytes", 110_000, "--pause", 0.002)
    rig.hear("shop", "listening")
    rig.start("phones.service", "clients", "--port", 8080, "--count", CONNECTIONS)
    rig.hear("shop", "connected")
    rig.tell("shop", "send", then="full")
    rig.tell("shop", "close", then="closed")
    rig.wait_for_lines()
    rig.wait_until_named()
    rig.stop("phones", "shop")
    rig.wait("the incident is closed", lambda: rig.incidents() and rig.incidents()[0]["closed_at"], seconds=60)
    rig.note("shown", rig.run("sockmem-agent", "incidents", "show", "last"))
    rig.listen(503, 429, 200)
    rig.wait_until_all_is_told()


def check(found):
    incident = found.the_incident()
    assert ("orphans", "certain", "kernel") == found.verdict(incident)
    assert found.lines("too many orphaned") == incident["events"]["too_many_orphans"]
    assert "shop.service" == found.first_named(incident)["unit"]
    assert "pending" in found.notes["shown"]
    assert [503, 429, 200] == [post["answered"] for post in found.posts][:3]
    assert 1 == len({post["headers"]["webhook-id"] for post in found.posts[:3]})
    told = found.told(incident)
    assert ("opened", "resolved") == (told[0], told[-1])
