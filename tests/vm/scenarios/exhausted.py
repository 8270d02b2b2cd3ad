"""TCP memory is exhausted while the agent POSTs, and the receiver is slow to read: stored first, delivered afterwards.

A receiver that reads at once gets its POST even with tcp_mem at one page: the first segment into an empty queue is
always taken (sk_forced_mem_schedule() in tcp_data_queue(), net/ipv4/tcp_input.c, and in tcp_stream_alloc_skb()). With
the headers still unread most kernels refuse the body (TCPRcvQDrop), so the receiver is one that does not read yet.
"""

import time

CONNECTIONS = 60
LIMIT = 1
READ_LATE = True
WARNS = True  # The gauges stay high for so long that they may say it first, or again.
UNLIMITED = 1 << 30  # what the kernel takes


def act(rig):
    receiver = rig.listen(reading=False)
    rig.connect(CONNECTIONS, service="exporter", size=UNLIMITED, pause=0.01)
    rig.tell("exporter", "send", then="full")
    rig.sysctl("net.ipv4.tcp_mem", f"{LIMIT} {LIMIT} {LIMIT}")
    rig.tell("exporter", "leave", then="half-closed")
    rig.wait_for_lines()
    rig.wait("the incident is stored", rig.incidents)
    rig.wait(
        "its POST has failed", lambda: "will be tried again" in rig.run("journalctl", "-u", "sockmem-agent"), seconds=90
    )
    rig.note("pages_when_it_failed", rig.sockstat()["mem"])
    rig.note("shown", rig.run("sockmem-agent", "incidents", "show", str(rig.incidents()[0]["id"])))
    rig.stop("phones", "exporter")
    rig.sysctl("net.ipv4.tcp_mem", "20000 30000 40000")
    rig.note("memory_is_back_at", time.time())
    receiver.read()
    rig.wait_until_all_is_told()


def check(found):
    assert found.notes["memory_is_back_at"] < min(post["at"] for post in found.posts)
    assert found.notes["pages_when_it_failed"] > LIMIT
    assert "waiting since" in found.notes["shown"]
    # When its services end, the kernel says it again: that may be an incident of its own.
    events = [incident for incident in found.incidents if incident["class"] == "event"]
    for incident in events:
        assert ("tcp_memory", "certain", "kernel") == found.verdict(incident)
        assert {"tcp_mem"} == found.said(incident)
        # What began and ended before it could be told is one late message.
        if found.told(incident) != ["resolved"]:
            found.check_told(incident)
    first = found.first_named(events[0])
    assert ("exporter.service", [8080]) == (first["unit"], first["ports"])
    assert sum(incident["events"]["tcp_mem"] for incident in events) == found.lines("consider tuning")
