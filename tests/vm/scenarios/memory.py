"""TCP memory: a service queues more for peers that do not read than tcp_mem allows, and then closes some of them.

What the advice says is done: its first look shows them, and the setting it proposes takes that much without a word.
"""

MAIN = True
PAGES = (3000, 4500, 6000)
CONNECTIONS = 150
UNLIMITED = 1 << 30  # what the kernel takes
AGAIN = 300_000  # bytes a connection: more than PAGES allow, and far less than what the kernel takes


def act(rig):
    rig.listen()
    rig.sysctl("net.ipv4.tcp_mem", " ".join(map(str, PAGES)))
    rig.connect(CONNECTIONS, service="exporter", size=UNLIMITED, pause=0.01)
    with rig.watching():
        rig.tell("exporter", "send", then="full")
        rig.tell("exporter", "leave", then="half-closed")
        rig.wait_for_lines()
        rig.note("inet_diag", rig.orphans_in_inet_diag())
    rig.wait_until_named()
    rig.look_as_advised()
    rig.stop("phones", "exporter")
    rig.wait_for_posts("opened", "resolved", seconds=60)
    rig.set_as_advised()
    rig.again(CONNECTIONS, size=AGAIN)


def check(found):
    incident = found.the_incident()
    assert ("tcp_memory", "certain", "kernel") == found.verdict(incident)
    assert found.lines("consider tuning") == incident["events"]["tcp_mem"] >= 1
    assert incident["events"].get("too_many_orphans", 0) == 0
    assert list(PAGES) == incident["diagnosis"]["mechanism"]["tcp_mem_pages"]
    assert found.suppressed() == incident["suppressed_at_least"]
    first = found.first_named(incident)
    assert "exporter.service" == first["unit"]
    assert 8080 in first["ports"]
    assert first["bytes"] > first["orphans"] * 1000 > 0
    assert found.notes["killed"] > 0
    assert found.notes["pressures"] > 0
    found.check_told(incident, updated=True)
    assert ":8080" in found.notes["shown"]
    assert [] == found.notes["lines_again"]
    assert found.notes["mem_again"] > PAGES[-1]
