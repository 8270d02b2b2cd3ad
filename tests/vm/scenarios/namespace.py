"""The culprit lives in a network namespace of its own, where the service may not look: the gap says how many."""


def act(rig):
    rig.listen()
    rig.run("ip", "netns", "add", "box")
    rig.run("ip", "-n", "box", "link", "set", "lo", "up")
    rig.burst(200, limit=64, settings=("-pNetworkNamespacePath=/run/netns/box",))
    rig.wait_for_posts("opened")
    rig.pause(2)
    rig.stop("phones", "shop")
    rig.wait_for_posts("resolved")


def check(found):
    incident = found.the_incident()
    found.check_orphans(incident)
    gaps = {gap["what"]: gap["why"] for gap in incident["diagnosis"]["gaps"]}
    assert "shop.service" in gaps["sockets of other network namespaces"]
    # Their sockets are out of sight, so no orphan is given to anybody.
    named = [holder for holder in incident["diagnosis"]["holders"] if holder["unit"] or holder["container"]]
    assert 0 == sum(holder["orphans"] for holder in named)
    found.check_told_in_three(incident)
