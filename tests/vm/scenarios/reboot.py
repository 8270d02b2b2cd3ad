"""The machine restarts in the middle of an incident, with the journal kept: nothing is lost, nothing is told twice."""

LIMIT = 64
CONNECTIONS = 200


def burst(rig, port):
    rig.sysctl("net.ipv4.tcp_max_orphans", str(LIMIT))
    rig.start(
        f"shop{port}.service", "serve", "--port", port, "--count", CONNECTIONS, "--bytes", 110_000, "--pause", 0.002
    )
    rig.hear(f"shop{port}", "listening")
    rig.start(f"phones{port}.service", "clients", "--port", port, "--count", CONNECTIONS)
    rig.hear(f"shop{port}", "connected")
    rig.tell(f"shop{port}", "send", then="full")
    rig.tell(f"shop{port}", "close", then="closed")
    rig.wait_for_lines()


def act(rig):
    rig.listen()
    burst(rig, 8080)
    rig.wait_for_posts("opened")
    rig.note("lines_of_first_boot", len([line for line in rig.kernel_lines() if "orphaned" in line]))
    rig.reboot()


def after_reboot(rig):
    rig.listen()
    rig.wait(
        "the service is up",
        lambda: rig.run("systemctl", "is-active", "sockmem-agent", check=False).strip() == "active",
        seconds=90,
    )
    rig.wait_for_posts("resolved", seconds=60)
    burst(rig, 8090)
    rig.wait("the second incident is closed", lambda: [i for i in rig.incidents() if i["closed_at"]][1:], seconds=60)
    rig.wait("and told", lambda: rig.receiver.types().count("resolved") == 2)


def check(found):
    first, second = [incident for incident in found.incidents if incident["class"] == "event"]
    assert first["boot_id"] != second["boot_id"]
    assert found.notes["lines_of_first_boot"] == first["events"]["too_many_orphans"]
    assert found.lines("too many orphaned") == second["events"]["too_many_orphans"]
    for incident in (first, second):
        assert ("orphans", "certain", "kernel") == found.verdict(incident)
        assert 1 == found.told(incident).count("opened")
        assert 1 == found.told(incident).count("resolved")
    assert "shop8080.service" == found.first_named(first)["unit"]
    assert "shop8090.service" == found.first_named(second)["unit"]
