"""The package: an upgrade keeps the state and a changed configuration; remove keeps both; purge leaves nothing."""

import os
import re
from pathlib import Path

PLACES = (
    "/etc/sockmem-agent", "/usr/lib/sockmem-agent", "/usr/bin/sockmem-agent", "/var/lib/sockmem-agent",
    "/usr/lib/systemd/system/sockmem-agent.service", "/usr/lib/sysusers.d/sockmem-agent.conf",
    "/usr/lib/tmpfiles.d/sockmem-agent.conf", "/usr/share/doc/sockmem-agent",
    "/etc/systemd/system/multi-user.target.wants/sockmem-agent.service",
)  # fmt: skip


def act(rig):
    rig.listen()
    rig.burst(200, limit=64)
    rig.wait_until_named()
    rig.stop("phones", "shop")
    rig.wait_for_posts("opened", "resolved")
    before = rig.agent_pid()
    rig.run("apt-get", "install", "-y", newer_package(rig, "9.9.9"))
    rig.note("restarted", rig.agent_pid() not in (0, before))
    rig.note("version", rig.run("dpkg-query", "-W", "-f", "${Version}", "sockmem-agent"))
    rig.note("incidents_after_upgrade", len(rig.json("sockmem-agent", "incidents", "list", "--json")))
    rig.note("config_kept", Path("/etc/sockmem-agent/config.toml").read_text() == rig.CONFIG)
    rig.note("manual", rig.run("man", "-P", "cat", "sockmem-agent")[:2000])
    rig.collect_state()
    rig.run("apt-get", "remove", "-y", "sockmem-agent")
    rig.note("after_remove", leftovers())
    rig.note("active_after_remove", rig.run("systemctl", "is-active", "sockmem-agent", check=False).strip())
    rig.run("apt-get", "purge", "-y", "sockmem-agent")
    rig.note("after_purge", leftovers())
    rig.note("user_after_purge", rig.run("getent", "passwd", "sockmem-agent", check=False))


def newer_package(rig, version):
    """Make the installed package's archive again with a higher version."""
    [archive] = Path("/var/lib/vm").glob("*.deb")
    folder, made = Path("/run/vm/newer"), "/run/vm/newer.deb"
    rig.run("dpkg-deb", "-R", str(archive), str(folder))
    control = folder / "DEBIAN" / "control"
    control.write_text(re.sub(r"^Version:.*$", f"Version: {version}", control.read_text(), flags=re.MULTILINE))
    rig.run("dpkg-deb", "-Znone", "-b", str(folder), made)
    return made


def leftovers():
    return sorted(place for place in PLACES if os.path.lexists(place))


def check(found):
    notes = found.notes
    incident = found.the_incident()
    found.check_orphans(incident, unit="shop.service")
    assert ["opened", "updated", "resolved"] == found.told(incident)
    assert notes["restarted"]
    assert notes["version"].startswith("9.9.9")
    assert 1 == notes["incidents_after_upgrade"]
    assert notes["config_kept"]
    assert "SOCKMEM-AGENT" in notes["manual"].upper()
    assert [
        "/etc/sockmem-agent",
        # As Debian does it: what is installed again is enabled as before.
        "/etc/systemd/system/multi-user.target.wants/sockmem-agent.service",
        "/var/lib/sockmem-agent",
    ] == notes["after_remove"]
    assert notes["active_after_remove"] in ("inactive", "unknown", "failed")
    assert [] == notes["after_purge"]
    assert "" == notes["user_after_purge"]
