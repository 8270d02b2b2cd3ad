"""All three sources at once: the journal, /dev/kmsg and a log file tell of one event and come to the same verdict."""

from pathlib import Path

QUIET = "[incident]\nquiet_seconds = 6\n"


def act(rig):
    rig.listen()
    rig.start_rsyslog()
    states = [
        rig.second_agent("kmsg", '[source]\nkind = "kmsg"\n' + QUIET),
        rig.second_agent("file", '[source]\nkind = "file"\n' + QUIET),
    ]
    rig.burst(200, limit=64)
    for state in (Path("/var/lib/sockmem-agent"), *states):
        rig.wait(
            f"{state.name}: closed", lambda state=state: [i for i in rig.incidents(state) if i["closed_at"]], seconds=60
        )
    rig.wait_for_posts("opened", "resolved")


def check(found):
    for state in ("sockmem-agent", "agent-kmsg"):
        found.check_orphans(found.the_incident(state=state), unit="shop.service")
    found.check_orphans(found.the_incident(state="agent-file"), unit="shop.service", proof=("likely", "claimed"))
    found.check_told_in_three(found.the_incident())
