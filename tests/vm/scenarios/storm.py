"""A storm: thousands of kills, of which the kernel prints ten in five seconds. One incident, and little said."""

LIMIT = 16
ROUNDS = 40
CONNECTIONS = 100
# The kernel says how much it did not print when it prints again, five seconds after it began, which is some time after
# the storm's own beginning.
LIMITER_SECONDS = 8
# One incident over that pause.
QUIET_SECONDS = 20


def act(rig):
    rig.configure(rig.CONFIG.replace("quiet_seconds = 6", f"quiet_seconds = {QUIET_SECONDS}"))
    rig.listen()
    rig.sysctl("net.ipv4.tcp_max_orphans", str(LIMIT))
    rig.sysctl("net.ipv4.tcp_mem", "200000 300000 400000")
    rig.wait("the service follows the journal", rig.has_imported, seconds=60)
    rig.note("memory_before", rig.agent_memory())
    with rig.watching():
        storm = ("--count", CONNECTIONS, "--rounds", ROUNDS, "--bytes", 110_000, "--last-after", LIMITER_SECONDS)
        rig.start("shop.service", "churn", "--port", 8080, *storm)
        rig.hear("shop", "done", seconds=120)
    rig.wait_until_named()
    rig.stop("shop")
    rig.note("memory_after", rig.agent_memory())
    rig.wait_for_posts("opened", "resolved", seconds=60)


def check(found):
    incident = found.the_incident()
    found.check_orphans(incident, unit="shop.service")
    assert found.notes["killed"] > 3000
    found.check_killed(incident)
    assert found.suppressed() == incident["suppressed_at_least"]
    assert found.suppressed() > 1500
    found.check_witnessed(incident, "shop.service")
    found.check_told(incident)
    assert found.notes["memory_after"] - found.notes["memory_before"] < 6 << 20
    assert found.notes["memory_after"] < 64 << 20
