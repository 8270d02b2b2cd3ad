"""Orphans: a service closes 240 connections whose peers do not read, where the host may keep 128 orphans."""

MAIN = True
LIMIT = 128
CONNECTIONS = 240


def act(rig):
    rig.listen()
    rig.sysctl("net.ipv4.tcp_max_orphans", str(LIMIT))
    rig.start("shop.service", "serve", "--port", 8080, "--count", CONNECTIONS, "--bytes", 110_000, "--pause", 0.002)
    rig.hear("shop", "listening")
    rig.start("phones.service", "clients", "--port", 8080, "--count", CONNECTIONS)
    rig.hear("shop", "connected")
    rig.tell("shop", "send", then="full")
    with rig.watching():
        rig.tell("shop", "close", then="closed")
        rig.wait_for_lines()
        rig.note("sockstat_after", rig.sockstat())
        rig.note("inet_diag", rig.orphans_in_inet_diag())
    rig.wait_until_named()
    rig.stop("phones", "shop")
    rig.wait_for_posts("opened", "resolved")


def check(found):
    incident = found.the_incident()
    assert ("orphans", "certain", "kernel") == found.verdict(incident)
    assert found.lines("too many orphaned") == incident["events"]["too_many_orphans"] >= 1
    assert incident["events"].get("tcp_mem", 0) == 0
    assert LIMIT == incident["diagnosis"]["mechanism"]["tcp_max_orphans"]
    assert 0 == incident["diagnosis"]["mechanism"]["penalty_shift"]
    assert "shop.service" == found.first_named(incident)["unit"]
    assert 8080 in found.first_named(incident)["ports"]
    assert found.notes["killed"] > 0
    assert found.told(incident) == ["opened", "updated", "resolved"]
