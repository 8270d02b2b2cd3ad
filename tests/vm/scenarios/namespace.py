"""The culprit lives in a network namespace of its own, where the service may not go: it is named all the same."""

LIMIT = 64


def act(rig):
    rig.listen()
    rig.run("ip", "netns", "add", "box")
    rig.run("ip", "-n", "box", "link", "set", "lo", "up")
    rig.burst(200, limit=LIMIT, settings=("-pNetworkNamespacePath=/run/netns/box",))
    rig.wait_until_named()
    rig.stop("phones", "shop")
    rig.wait_for_posts("resolved")


def check(found):
    incident = found.the_incident()
    found.check_orphans(incident, unit="shop.service")
    first = found.first_named(incident)
    assert first["netns_pid"]
    # Its memory is what is queued: the gap tells that there is more.
    gaps = {gap["what"]: gap["why"] for gap in incident["diagnosis"]["gaps"]}
    assert "shop.service" in gaps["memory of other network namespaces"]
    found.check_told(incident)
