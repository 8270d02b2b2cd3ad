"""Orphans that count fourfold: 120 of 400 allowed, with the route to some peers gone and TCP_RTO_MAX at one second.

tcp_out_of_resources() (net/ipv4/tcp_timer.c) shifts the count once for an error noted, as in penalised.py, and once
more for a socket that sent no data for two tcp_rto_max, or whose time for retransmissions is up. Without a route
nothing is sent, so both are so after two seconds. The limit is reached at a quarter of it.
"""

LIMIT = 400
ORPHANS = 120
LOST = ORPHANS // 10  # More than a quarter of the limit is left when all of these are killed.
CONSTANT = (
    "tcp_out_of_resources() (net/ipv4/tcp_timer.c) takes the second shift after 2 * TCP_RTO_MAX = 240 s without data, "
    "and TCP_RTO_MAX is a constant before tcp_rto_max_ms"
)
CANNOT = {"5.10": CONSTANT, "6.1": CONSTANT, "6.12": CONSTANT}


def act(rig):
    rig.listen()
    rig.far_hosts("10.9.0.1", ("10.9.0.2", "10.9.0.3"))
    rig.sysctl("net.ipv4.tcp_max_orphans", str(LIMIT))
    # A connection has it from its listener, and that when it is made.
    rig.sysctl("net.ipv4.tcp_rto_max_ms", "1000")
    # With so small a maximum an orphan would be given up at once: no retries are the default.
    rig.sysctl("net.ipv4.tcp_orphan_retries", "200")
    rig.start("shop.service", "serve", "--port", 8080, "--count", ORPHANS, "--bytes", 110_000)
    rig.hear("shop", "listening")
    peers = [f"--own={address}" for address in (*["10.9.0.2"] * 9, "10.9.0.3")]
    where = ("-pNetworkNamespacePath=/run/netns/far",)
    size = ("--count", ORPHANS, "--rcvbuf", 4096)
    rig.start("phones.service", "clients", "--port", 8080, *size, "--address", "10.9.0.1", *peers, settings=where)
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
    assert found.notes["peaks"]["orphan"] <= ORPHANS < LIMIT // 2
    assert ("orphans", "certain", "kernel") == found.verdict(incident)
    assert 2 == incident["diagnosis"]["mechanism"]["penalty_shift"]
    assert LIMIT // 4 == incident["diagnosis"]["mechanism"]["limit_reached"]
    assert 0 < found.notes["killed"] <= LOST
    assert found.lines("too many orphaned") == incident["events"]["too_many_orphans"]
    assert "shop.service" == found.first_named(incident)["unit"]
    told = found.told(incident)
    assert ("opened", "resolved") == (told[0], told[-1])
    assert len(told) <= 3
