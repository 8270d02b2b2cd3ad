"""Silence: receivers do not read, tcp_mem is full, nothing closes. No kernel message; the agent warns and names."""

import re
import time

TCP_MEM = "3000 4500 6000"
WARNS = True
# Seconds from the first refusal until people are warned, and until a message names who holds the memory.
IN_TIME, NAMED_IN_TIME = 10, 30


LOOKS_SECONDS = 8  # until both looks at the sockets are on disk


def act(rig):
    rig.listen()
    rig.sysctl("net.ipv4.tcp_mem", TCP_MEM)
    rig.start("backup.service", "drain", "--port", 8081, "--count", 6)
    rig.hear("backup", "listening")
    rig.start("sources.service", "push", "--port", 8081, "--count", 6)
    rig.hear("backup", "connected")
    rig.start("importer.service", "hoard", "--port", 8080, "--count", 120)
    rig.hear("importer", "listening")
    rig.start("feeds.service", "push", "--port", 8080, "--count", 120, "--bytes", 4096)
    # Once TCP is under pressure, whoever has more than the average is refused, so mem need not reach the last limit.
    rig.wait("the kernel refuses data", lambda: refused(rig), 60)
    rig.note("refused_at", time.time())
    rig.wait("the holder is known", lambda: "importer.service holds" in str(rig.incidents()))
    rig.pause(LOOKS_SECONDS)
    rig.wait_for_posts("opened", "updated")
    rig.note("refused", refused(rig))
    rig.note("diagnosis", rig.json("sockmem-agent", "diagnose", "--json"))


def refused(rig):
    return rig.counter("TCPRcvQDrop") + rig.counter("PruneCalled") - rig.counter("TCPRcvCollapsed")


def check(found):
    assert [] == found.notes["kernel_lines"]
    incident = found.the_incident("pressure")
    assert ("tcp_memory", {}, None) == (incident["cause"], incident["events"], incident["first_event"])
    assert incident["pressure"]["level"] >= 2
    assert found.notes["refused"] > 0
    told = {"opened": [], "updated": []}
    for post in found.posts:
        told[post["body"]["type"].rpartition(".")[2]].append((post["at"], post["body"]["data"]))
    assert told["opened"][0][0] - found.notes["refused_at"] < IN_TIME
    # The kernel's trace has what TCP held at each refusal.
    sizes = re.search(r"([0-9,]+) pages allocated of 6,000", told["opened"][0][1]["pressure"]["claim"])
    assert int(sizes[1].replace(",", "")) > 3000
    assert incident["witness"]["refusals"] > 0
    named = [at for at, data in told["updated"] if "importer.service holds" in data["summary"]]
    assert named[0] - found.notes["refused_at"] < NAMED_IN_TIME
    first = found.first_named(incident)
    assert ("importer.service", False) == (first["unit"], first["guess"])
    assert 8080 in first["ports"]
    steps = [step["action"] for step in incident["diagnosis"]["advice"]]
    assert any(step.startswith("Fix importer.service") for step in steps)
    # What is refused comes again later and later, so between two looks there may be nothing; whoever lost is named.
    table = found.snapshots(incident)[0]["sockets"]
    assert table["drops_seconds"] > 0
    lost = any(group.get("drops") for group in table["groups"])
    assert lost == ("Data is being lost by" in incident["summary"])
    assert "tcp_memory" == found.notes["diagnosis"]["cause"]
