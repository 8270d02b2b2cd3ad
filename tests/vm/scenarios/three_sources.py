"""All three sources at once: the journal, /dev/kmsg and a log file tell of one event and come to the same verdict."""

QUIET = "[incident]\nquiet_seconds = 6\n"
PROOF = {
    "sockmem-agent": ("certain", "kernel"),
    "agent-kmsg": ("certain", "kernel"),
    "agent-file": ("likely", "claimed"),
}


def act(rig):
    rig.listen()
    rig.start_rsyslog()
    states = [
        rig.second_agent("kmsg", '[source]\nkind = "kmsg"\n' + QUIET),
        rig.second_agent("file", '[source]\nkind = "file"\n' + QUIET),
    ]
    rig.burst(200, limit=64)
    states = [rig.STATE, *states]
    for state in states:
        rig.wait_until_named(state)
    rig.stop("phones", "shop")
    for state in states:
        rig.wait(f"{state.name}: closed", lambda state=state: rig.incidents(state)[0]["closed_at"], seconds=60)
    rig.wait_for_posts("opened", "resolved")


def check(found):
    # One incident each, which has every line once: check_orphans counts.
    for state, proof in PROOF.items():
        [incident] = found.incidents_of(state)
        found.check_orphans(incident, unit="shop.service", proof=proof)
    found.check_told(found.the_incident())
