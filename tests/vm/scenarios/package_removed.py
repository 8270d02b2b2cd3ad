"""The package: remove keeps state and configuration for the next installation, which is enabled as before."""

import packages

STOPPED = True


def act(rig):
    rig.wait("a position is saved", (rig.STATE / "cursor.json").exists)
    files = set(packages.contents(rig.STATE))
    rig.run("apt-get", "remove", "-y", "sockmem-agent")
    rig.note("after_remove", packages.leftovers())
    rig.note("instances_after_remove", rig.instances())
    rig.note("state_kept", files <= set(packages.contents(rig.STATE)))
    rig.note("active_after_remove", rig.run("systemctl", "is-active", "sockmem-agent", check=False).strip())
    rig.run("apt-get", "install", "-y", str(packages.installed()))
    rig.note("enabled_again", rig.run("systemctl", "is-enabled", "sockmem-agent", check=False).strip())


def check(found):
    notes = found.notes
    assert packages.KEPT == notes["after_remove"]
    assert [] == notes["instances_after_remove"]
    assert notes["state_kept"]
    assert notes["active_after_remove"] in ("inactive", "unknown", "failed")
    # As Debian does it: what is installed again is enabled as before.
    assert "enabled" == notes["enabled_again"]
