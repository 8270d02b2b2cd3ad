"""The package: purge leaves nothing of it, neither files nor user."""

import packages

STOPPED = True


def act(rig):
    rig.wait("a position is saved", (rig.STATE / "cursor.json").exists)
    rig.note("manual", rig.run("man", "-P", "cat", "sockmem-agent")[:2000])
    rig.collect_state()
    rig.note("before", packages.leftovers())
    rig.run("apt-get", "purge", "-y", "sockmem-agent")
    rig.note("after", packages.leftovers())
    rig.note("user", rig.run("getent", "passwd", "sockmem-agent", check=False))
    rig.note("group", rig.run("getent", "group", "sockmem-agent", check=False))


def check(found):
    notes = found.notes
    assert "SOCKMEM-AGENT" in notes["manual"].upper()
    assert sorted(packages.PLACES) == notes["before"]
    assert [] == notes["after"]
    assert ("", "") == (notes["user"], notes["group"])
