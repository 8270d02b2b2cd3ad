"""In the machine, after the cut: the service comes back, and brings to its end what there was."""


def act(rig):
    rig.listen()
    rig.wait("the service is up", rig.has_started, seconds=90)
    rig.pause(5)  # What the journal has kept of the lines is read by now.
    if rig.incidents():
        rig.wait_until_all_is_told()
    rig.note("broken", sorted(str(path) for path in rig.STATE.rglob("*.broken*")))
