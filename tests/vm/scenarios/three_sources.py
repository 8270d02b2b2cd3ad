"""All three sources at once: the journal, /dev/kmsg and a log file tell of one event and come to the same verdict."""

from pathlib import Path

LIMIT = 64
CONNECTIONS = 200
QUIET = "[incident]\nquiet_seconds = 6\n"


def act(rig):
    rig.listen()
    rig.start_rsyslog()
    states = [
        rig.second_agent("kmsg", '[source]\nkind = "kmsg"\n' + QUIET),
        rig.second_agent("file", '[source]\nkind = "file"\n' + QUIET),
    ]
    rig.sysctl("net.ipv4.tcp_max_orphans", str(LIMIT))
    rig.start("shop.service", "serve", "--port", 8080, "--count", CONNECTIONS, "--bytes", 110_000, "--pause", 0.002)
    rig.hear("shop", "listening")
    rig.start("phones.service", "clients", "--port", 8080, "--count", CONNECTIONS)
    rig.hear("shop", "connected")
    rig.tell("shop", "send", then="full")
    rig.tell("shop", "close", then="closed")
    rig.wait_for_lines()
    for state in (Path("/var/lib/sockmem-agent"), *states):
        rig.wait(
            f"{state.name}: closed", lambda state=state: [i for i in rig.incidents(state) if i["closed_at"]], seconds=60
        )
    rig.wait_for_posts("opened", "resolved")


def check(found):
    incidents = {name: found.the_incident(state=name) for name in ("sockmem-agent", "agent-kmsg", "agent-file")}
    expected = {
        "sockmem-agent": ("orphans", "certain", "kernel"),
        "agent-kmsg": ("orphans", "certain", "kernel"),
        "agent-file": ("orphans", "likely", "claimed"),
    }
    assert expected == {name: found.verdict(incident) for name, incident in incidents.items()}
    for incident in incidents.values():
        assert found.lines("too many orphaned") == incident["events"]["too_many_orphans"]
        assert "shop.service" == found.first_named(incident)["unit"]
    told = found.told(incidents["sockmem-agent"])
    assert ("opened", "resolved") == (told[0], told[-1])
    assert len(told) <= 3
