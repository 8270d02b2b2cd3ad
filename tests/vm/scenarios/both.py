"""Both in one burst: orphans of an earlier moment stay, then both limits are passed by the same closes.

The service runs as the package installs it, without the witness.
"""

CONNECTIONS = 120
LIMIT = 16


def act(rig):
    rig.do_without_witness()
    rig.listen()
    rig.connect(CONNECTIONS, size=400_000, pause=0.005)
    rig.tell("shop", "send", then="full")
    rig.tell("shop", "leave", then="half-closed")
    rig.wait("sixty orphans", lambda: rig.sockstat()["orphan"] >= CONNECTIONS // 2)
    rig.sysctl("net.ipv4.tcp_mem", "300 400 500")
    rig.sysctl("net.ipv4.tcp_max_orphans", str(LIMIT))
    with rig.watching():
        rig.tell("shop", "close", then="closed")
        rig.wait_for_lines(2)
    # A listener is a holder, if of nothing: once the agent has asked there are some, and the service may go.
    rig.wait("it was asked who holds what", lambda: [i for i in rig.incidents() if i["diagnosis"]["holders"]])
    rig.stop("phones", "shop")
    rig.wait_for_posts("opened", "resolved")


def check(found):
    incident = found.the_incident()
    assert ("both", "certain", "kernel") == found.verdict(incident)
    assert incident["witness"] is None
    assert incident["events"]["too_many_orphans"] >= 1
    assert incident["events"]["tcp_mem"] >= 1
    assert found.lines("too many orphaned") == incident["events"]["too_many_orphans"]
    assert found.lines("consider tuning") == incident["events"]["tcp_mem"]
    # Where all of its connections were killed before the agent asked, its listener is left.
    assert "shop.service" in [holder["unit"] for holder in incident["diagnosis"]["holders"]]
    assert found.suppressed() == incident["suppressed_at_least"]
    found.check_told(incident)
