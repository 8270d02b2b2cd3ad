"""Orphans: a service closes 220 of 240 connections whose peers do not read, where the host may keep 128 orphans.

What the advice says is done: its first look shows them, and under the setting it proposes the same load is no trouble.
"""

MAIN = True
LIMIT = 128


def act(rig):
    rig.listen()
    rig.sysctl("net.ipv4.tcp_max_orphans", str(LIMIT))
    rig.connect(240, stay=20)  # As in a burst: should the kernel kill every orphan, there is somebody to name.
    rig.tell("shop", "send", then="full")
    with rig.watching():
        rig.tell("shop", "close", then="closed")
        rig.wait_for_lines()
        rig.note("inet_diag", rig.orphans_in_inet_diag())
    rig.wait_until_named()
    rig.look_as_advised()
    rig.stop("phones", "shop")
    rig.wait_for_posts("opened", "resolved")
    rig.set_as_advised()
    rig.again(240)


def check(found):
    incident = found.the_incident()
    found.check_orphans(incident, unit="shop.service")
    assert incident["events"].get("tcp_mem", 0) == 0
    assert LIMIT == incident["diagnosis"]["mechanism"]["tcp_max_orphans"]
    assert found.notes["killed"] > 0
    found.check_witnessed(incident, "shop.service")
    found.check_told(incident)
    found.check_advice_helped(closed=220)
