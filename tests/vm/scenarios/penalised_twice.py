"""Orphans that count fourfold: 120 of 400 allowed, with the route to some peers gone and TCP_RTO_MAX at one second.

tcp_out_of_resources() (net/ipv4/tcp_timer.c) shifts the count once for an error noted, as in penalised.py, and once
more for a socket that sent no data for two tcp_rto_max, or whose time for retransmissions is up. Without a route
nothing is sent, so both are so after two seconds. The limit is reached at a quarter of it.
"""

import lost_route

LIMIT = 400
ORPHANS = 120
EVERY = 10  # More than a quarter of the limit is left when all that have lost their route are killed.
CONSTANT = (
    "tcp_out_of_resources() (net/ipv4/tcp_timer.c) takes the second shift after 2 * TCP_RTO_MAX = 240 s without data, "
    "and TCP_RTO_MAX is a constant before tcp_rto_max_ms"
)
CANNOT = {"5.10": CONSTANT, "6.1": CONSTANT, "6.12": CONSTANT}

WARNS = True  # So many stay above what is warned of when the kernel has long said its line.


def act(rig):
    rig.listen()
    rig.sysctl("net.ipv4.tcp_max_orphans", str(LIMIT))
    # A connection has it from its listener, and that when it is made.
    rig.sysctl("net.ipv4.tcp_rto_max_ms", "1000")
    # With so small a maximum an orphan would be given up at once: no retries are the default.
    rig.sysctl("net.ipv4.tcp_orphan_retries", "200")
    lost_route.act(rig, ORPHANS, EVERY)


def check(found):
    incident = found.the_incident()
    assert found.first_named(incident)["orphans"] > 0
    found.check_orphans(incident, unit="shop.service", shifts=(2,))
    found.check_penalty(incident, 2, ORPHANS, LIMIT)
    assert 0 < found.notes["killed"] <= ORPHANS // EVERY
    found.check_killed(incident)
    found.check_told(incident)
