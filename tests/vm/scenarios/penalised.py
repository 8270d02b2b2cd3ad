"""Penalised orphans: 240 of 400 allowed, and the route to some peers is gone, so they count double.

tcp_out_of_resources() (net/ipv4/tcp_timer.c) shifts the count by one for a socket with an error noted (sk_err_soft),
which inet_sk_rebuild_header() does when a retransmission finds no route. The limit is reached at a half of it.
"""

LIMIT = 400
ORPHANS = 240
LOST = ORPHANS // 4


def act(rig):
    rig.listen()
    rig.far_hosts("10.9.0.1", ("10.9.0.2", "10.9.0.3"))
    rig.sysctl("net.ipv4.tcp_max_orphans", str(LIMIT))
    rig.start("shop.service", "serve", "--port", 8080, "--count", ORPHANS, "--bytes", 110_000)
    rig.hear("shop", "listening")
    peers = [f"--own={address}" for address in ("10.9.0.2", "10.9.0.2", "10.9.0.2", "10.9.0.3")]
    where = ("-pNetworkNamespacePath=/run/netns/far",)
    rig.start(
        "phones.service",
        "clients",
        "--port",
        8080,
        "--count",
        ORPHANS,
        "--rcvbuf",
        4096,
        "--address",
        "10.9.0.1",
        *peers,
        settings=where,
    )
    rig.hear("shop", "connected")
    # Its acknowledgements do not come back, so the retransmission timer runs when its route is taken away.
    rig.run("ip", "-n", "far", "rule", "add", "from", "10.9.0.3", "blackhole")
    rig.tell("shop", "send", then="full")
    rig.tell("shop", "close", then="closed")
    rig.wait("all are orphans", lambda: rig.sockstat()["orphan"] >= ORPHANS)
    rig.note("lines_before", rig.kernel_lines())
    with rig.watching():
        rig.run("ip", "route", "add", "unreachable", "10.9.0.3")
        rig.wait_for_lines(seconds=60)
        rig.note("sockstat_at_line", rig.sockstat())
        rig.note("inet_diag", rig.orphans_in_inet_diag())
    rig.wait_for_posts("opened", "resolved", seconds=60)


def check(found):
    incident = found.the_incident()
    assert [] == found.notes["lines_before"]
    assert found.notes["peaks"]["orphan"] <= ORPHANS < LIMIT
    assert ("orphans", "certain", "kernel") == found.verdict(incident)
    assert 1 == incident["diagnosis"]["mechanism"]["penalty_shift"]
    assert LIMIT // 2 == incident["diagnosis"]["mechanism"]["limit_reached"]
    assert 0 < found.notes["killed"] <= LOST
    assert found.lines("too many orphaned") == incident["events"]["too_many_orphans"]
    told = found.told(incident)
    assert ("opened", "resolved") == (told[0], told[-1])
    assert len(told) <= 3
    assert "shop.service" == found.first_named(incident)["unit"]
