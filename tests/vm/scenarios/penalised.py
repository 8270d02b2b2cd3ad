"""Penalised orphans: 240 of 400 allowed, and the route to some peers is gone, so they count double.

tcp_out_of_resources() (net/ipv4/tcp_timer.c) shifts the count by one for a socket with an error noted (sk_err_soft),
which inet_sk_rebuild_header() does when a retransmission finds no route. The limit is reached at a half of it.
"""

import lost_route

LIMIT = 400
ORPHANS = 240
EVERY = 4

WARNS = True  # So many stay above what is warned of when the kernel has long said its line.


def act(rig):
    rig.listen()
    rig.sysctl("net.ipv4.tcp_max_orphans", str(LIMIT))
    lost_route.act(rig, ORPHANS, EVERY)


def check(found):
    incident = found.the_incident()
    assert found.first_named(incident)["orphans"] > 0
    found.check_orphans(incident, unit="shop.service", shifts=(1,))
    found.check_penalty(incident, 1, ORPHANS, LIMIT)
    assert 0 < found.notes["killed"] <= ORPHANS // EVERY
    found.check_killed(incident)
    found.check_told(incident)
