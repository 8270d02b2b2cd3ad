"""In the machine, after the cut: the service comes back, brings to its end what there was, and counts what comes."""

LIMIT = 16


def act(rig):
    rig.listen()
    rig.wait("the service is up", rig.has_started, seconds=90)
    rig.pause(5)  # What the journal has kept of the lines is read by now.
    if rig.incidents():
        rig.wait_until_all_is_told()
    before = rig.counted()
    rig.print_every_kill(LIMIT)
    rig.provoke("again")
    rig.wait("what the kernel says after the cut is counted", lambda: rig.counted() - before == rig.said() > 0)
    rig.wait_until_all_is_told()
    rig.note("broken", sorted(str(path) for path in rig.STATE.rglob("*.broken*")))
