"""The culprit lives in a network namespace of its own, where the service may not go: it is named all the same."""

LIMIT = 64
BOX = ("-pNetworkNamespacePath=/run/netns/box",)


def act(rig):
    rig.listen()
    rig.run("ip", "netns", "add", "box")
    rig.run("ip", "-n", "box", "link", "set", "lo", "up")
    rig.burst(200, limit=LIMIT, settings=BOX)
    rig.wait_until_named()
    rig.look_as_advised()
    rig.stop("phones", "shop")
    rig.wait_for_posts("resolved")
    rig.set_as_advised()
    rig.again(200, settings=BOX)


def check(found):
    incident = found.the_incident()
    found.check_orphans(incident, unit="shop.service")
    first = found.first_named(incident)
    assert first["netns_pid"]
    # Who was reset in there is counted out here, and it is named where.
    found.check_killed(incident)
    [where] = [each for each in incident["diagnosis"]["findings"][0]["evidence"] if " in shop.service" in each["name"]]
    assert where["value"] > 0
    # Its memory is what is queued: the gap tells that there is more.
    gaps = {gap["what"]: gap["why"] for gap in incident["diagnosis"]["gaps"]}
    assert "shop.service" in gaps["memory of other network namespaces"]
    found.check_witnessed(incident, "shop.service")
    found.check_told(incident)
    found.check_advice_helped(closed=180)
    # A slow machine reads its first numbers when nearly all orphans are reset: there is nothing left to look at.
    if found.is_to_blame(first):
        assert found.notes["look"].startswith(f"nsenter -t {first['netns_pid']} -n ss ")
