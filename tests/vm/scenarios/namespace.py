"""The culprit lives in a network namespace of its own, where the service may not look: the gap says how many."""

import re

LIMIT = 64
GAP = "sockets of other network namespaces"


def act(rig):
    rig.listen()
    rig.run("ip", "netns", "add", "box")
    rig.run("ip", "-n", "box", "link", "set", "lo", "up")
    rig.burst(200, limit=LIMIT, settings=("-pNetworkNamespacePath=/run/netns/box",))
    rig.wait("the gap is told", lambda: GAP in str(rig.incidents()))
    rig.stop("phones", "shop")
    rig.wait_for_posts("resolved")


def check(found):
    incident = found.the_incident()
    # What was killed in there is not counted out here, and a kernel that counts anew every 100 ms may have killed far
    # below the limit meanwhile: what is left may look like either penalty, and that is hedged then.
    # It may even have killed every single one before the first reading: then nothing out here agrees with its line.
    left = max(each["sockstat"]["tcp"]["orphan"] for each in found.snapshots(incident))
    found.check_orphans(
        incident, shifts=(0, 1, 2, None), proof=("certain" if left > LIMIT // 4 else "likely", "kernel")
    )
    looks_penalised = incident["diagnosis"]["mechanism"]["penalty_shift"] in (1, 2)
    assert looks_penalised == ("or the limit itself was reached a moment earlier" in incident["summary"])
    [why] = [gap["why"] for gap in incident["diagnosis"]["gaps"] if gap["what"] == GAP]
    assert int(re.search(r"shop\.service: (\d+)", why)[1]) > 0
    # Their sockets are out of sight, so no orphan is given to anybody.
    named = [holder for holder in incident["diagnosis"]["holders"] if holder["unit"] or holder["container"]]
    assert 0 == sum(holder["orphans"] for holder in named)
    assert ".service" not in incident["summary"]
    found.check_told(incident)
