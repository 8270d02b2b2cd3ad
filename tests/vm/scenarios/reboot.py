"""The machine restarts in the middle of an incident, with the journal kept: nothing is lost, nothing is told twice."""


def act(rig):
    rig.listen()
    rig.burst(200, limit=64)
    rig.wait_for_posts("opened")
    rig.reboot()


def after_reboot(rig):
    said = rig.run("journalctl", "-k", "-b", "-1", "-o", "cat").splitlines()
    rig.note("lines_of_first_boot", sum("too many orphaned" in line for line in said))
    rig.listen()
    rig.wait("the service is up", rig.has_started, seconds=90)
    rig.wait_for_posts("resolved", seconds=60)
    rig.burst(200, limit=64, service="later", port=8090)
    rig.wait_until_named(unit="later.service")
    # Orphans that outlast the incident would be warned of.
    rig.stop("phones", "later")
    rig.wait("the second incident is closed", lambda: [i for i in rig.incidents() if i["closed_at"]][1:], seconds=60)
    rig.wait("and told", lambda: rig.receiver.types().count("resolved") == 2 and not rig.owed())


def check(found):
    first, second = [incident for incident in found.incidents if incident["class"] == "event"]
    assert first["boot_id"] != second["boot_id"]
    found.check_orphans(first, unit="shop.service", lines=found.notes["lines_of_first_boot"])
    found.check_orphans(second, unit="later.service", port=8090)
    for incident in (first, second):
        found.check_told(incident)
