"""The package: remove keeps state and configuration for the next installation; purge leaves nothing."""

import packages

REMOVED = True


def act(rig):
    rig.wait("a position is saved", (rig.STATE / "cursor.json").exists)
    files = set(packages.contents(rig.STATE))
    rig.run("apt-get", "remove", "-y", "sockmem-agent")
    rig.note("after_remove", packages.leftovers())
    rig.note("state_kept", files <= set(packages.contents(rig.STATE)))
    rig.note("active_after_remove", rig.run("systemctl", "is-active", "sockmem-agent", check=False).strip())
    rig.run("apt-get", "install", "-y", str(packages.installed()))
    rig.note("enabled_again", rig.run("systemctl", "is-enabled", "sockmem-agent", check=False).strip())
    rig.collect_state()
    rig.run("apt-get", "purge", "-y", "sockmem-agent")
    rig.note("after_purge", packages.leftovers())
    rig.note("user_after_purge", rig.run("getent", "passwd", "sockmem-agent", check=False))
    rig.note("group_after_purge", rig.run("getent", "group", "sockmem-agent", check=False))


def check(found):
    notes = found.notes
    assert [
        "/etc/sockmem-agent",
        "/etc/systemd/system/multi-user.target.wants/sockmem-agent.service",
        "/var/lib/sockmem-agent",
    ] == notes["after_remove"]
    assert notes["state_kept"]
    assert notes["active_after_remove"] in ("inactive", "unknown", "failed")
    # As Debian does it: what is installed again is enabled as before.
    assert "enabled" == notes["enabled_again"]
    assert [] == notes["after_purge"]
    assert ("", "") == (notes["user_after_purge"], notes["group_after_purge"])
