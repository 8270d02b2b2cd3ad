"""The culprit runs in a container: a cgroup of the shape that Docker makes with systemd."""

ID = "0f3c" * 16


def act(rig):
    rig.listen()
    rig.burst(200, limit=64, manager=("systemd-run", "--quiet", "--scope", f"--unit=docker-{ID}.scope"))
    rig.wait_until_named()
    rig.stop("phones")
    rig.wait_for_posts("opened", "resolved")


def check(found):
    incident = found.the_incident()
    found.check_orphans(incident)
    first = found.first_named(incident)
    assert f"docker {ID[:12]}" == first["container"]
    others = [each for each in incident["diagnosis"]["holders"] if each["unit"] != "sockmem-agent.service"]
    assert first["orphans"] == max(holder["orphans"] for holder in others)
    assert first["sockets"] > 0
    assert 8080 in first["ports"]
    found.check_witnessed(incident, f"docker {ID[:12]}", key="container")
    found.check_told(incident)
    assert ID[:12] in str(found.posts[-1]["body"]["data"]["diagnosis"]["holders"])
