"""The culprit runs in a container: a cgroup of the shape that Docker makes with systemd."""

ID = "0f3c" * 16
LIMIT = 64
CONNECTIONS = 200


def act(rig):
    rig.listen()
    rig.sysctl("net.ipv4.tcp_max_orphans", str(LIMIT))
    rig.start_in_scope(
        f"docker-{ID}.scope",
        "shop",
        "serve",
        "--port",
        8080,
        "--count",
        CONNECTIONS,
        "--bytes",
        110_000,
        "--pause",
        0.002,
    )
    rig.hear("shop", "listening")
    rig.start("phones.service", "clients", "--port", 8080, "--count", CONNECTIONS)
    rig.hear("shop", "connected")
    rig.tell("shop", "send", then="full")
    rig.tell("shop", "close", then="closed")
    rig.wait_for_lines()
    rig.wait_until_named()
    rig.stop("phones")
    rig.wait_for_posts("opened", "resolved")


def check(found):
    incident = found.the_incident()
    assert ("orphans", "certain", "kernel") == found.verdict(incident)
    assert f"docker {ID[:12]}" == found.first_named(incident)["container"]
    assert found.lines("too many orphaned") == incident["events"]["too_many_orphans"]
    assert ["opened", "updated", "resolved"] == found.told(incident)
    assert 8080 in found.first_named(incident)["ports"]
    last = [post["body"]["data"]["summary"] for post in found.posts][-1]
    assert ID[:12] in last
