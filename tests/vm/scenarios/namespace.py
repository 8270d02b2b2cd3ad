"""The culprit lives in a network namespace of its own, where the service may not look: the gap says how many."""

LIMIT = 64
CONNECTIONS = 200


def act(rig):
    rig.listen()
    rig.run("ip", "netns", "add", "box")
    rig.run("ip", "-n", "box", "link", "set", "lo", "up")
    rig.sysctl("net.ipv4.tcp_max_orphans", str(LIMIT))
    where = ("-pNetworkNamespacePath=/run/netns/box",)
    rig.start(
        "shop.service",
        "serve",
        "--port",
        8080,
        "--count",
        CONNECTIONS,
        "--bytes",
        110_000,
        "--pause",
        0.002,
        settings=where,
    )
    rig.hear("shop", "listening")
    rig.start("phones.service", "clients", "--port", 8080, "--count", CONNECTIONS, settings=where)
    rig.hear("shop", "connected")
    rig.tell("shop", "send", then="full")
    rig.tell("shop", "close", then="closed")
    rig.wait_for_lines()
    rig.wait_for_posts("opened")
    rig.pause(2)
    rig.stop("phones", "shop")
    rig.wait_for_posts("resolved")


def check(found):
    incident = found.the_incident()
    assert ("orphans", "certain", "kernel") == found.verdict(incident)
    assert found.lines("too many orphaned") == incident["events"]["too_many_orphans"]
    gaps = {gap["what"]: gap["why"] for gap in incident["diagnosis"]["gaps"]}
    assert "shop.service" in gaps["sockets of other network namespaces"]
    # Their sockets are out of sight, so no orphan is given to anybody.
    named = [holder for holder in incident["diagnosis"]["holders"] if holder["unit"] or holder["container"]]
    assert 0 == sum(holder["orphans"] for holder in named)
    told = found.told(incident)
    assert ("opened", "resolved") == (told[0], told[-1])
    assert len(told) <= 3
