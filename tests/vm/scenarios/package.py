"""The package: an upgrade keeps the state and a changed configuration; remove keeps both; purge leaves nothing."""

import hashlib
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
    before, incidents = rig.agent_pid(), contents(rig.STATE / "incidents")
    newer = newer_package(rig, "9.9.9")
    # As an administrator answers when asked: the configuration that was changed here stays.
    install = ("apt-get", "install", "-y", "-oDpkg::Options::=--force-confold", newer)
    rig.run(*install)
    rig.note("restarted", rig.agent_pid() not in (0, before))
    rig.note("state_kept", contents(rig.STATE / "incidents") == incidents)
    rig.note("version", rig.run("dpkg-query", "-W", "-f", "${Version}", "sockmem-agent"))
    rig.note("config_kept", Path("/etc/sockmem-agent/config.toml").read_text() == rig.CONFIG)
    rig.note("manual", rig.run("man", "-P", "cat", "sockmem-agent")[:2000])
    rig.collect_state()
    rig.run("apt-get", "remove", "-y", "sockmem-agent")
    rig.note("after_remove", leftovers())
    rig.note("state_kept_by_remove", contents(rig.STATE / "incidents") == incidents)
    rig.note("active_after_remove", rig.run("systemctl", "is-active", "sockmem-agent", check=False).strip())
    rig.run(*install)
    rig.note("enabled_again", rig.run("systemctl", "is-enabled", "sockmem-agent", check=False).strip())
    rig.note("incidents_listed_again", len(rig.json("sockmem-agent", "incidents", "list", "--json")))
    rig.run("apt-get", "purge", "-y", "sockmem-agent")
    rig.note("after_purge", leftovers())
    rig.note("user_after_purge", rig.run("getent", "passwd", "sockmem-agent", check=False))


def newer_package(rig, version):
    """Make the installed package's archive again with a higher version, and a configuration that is another too."""
    [archive] = Path("/var/lib/vm").glob("*.deb")
    folder, made = Path("/run/vm/newer"), "/run/vm/newer.deb"
    rig.run("dpkg-deb", "-R", str(archive), str(folder))
    control = folder / "DEBIAN" / "control"
    control.write_text(re.sub(r"^Version:.*$", f"Version: {version}", control.read_text(), flags=re.MULTILINE))
    config = folder / "etc" / "sockmem-agent" / "config.toml"
    config.write_text(f"{config.read_text()}\n# of the newer package\n")
    rig.run("dpkg-deb", "-Znone", "-b", str(folder), made)
    return made


def contents(folder):
    """Return a digest of every file, by name."""
    return {str(f): hashlib.sha256(f.read_bytes()).hexdigest() for f in folder.rglob("*") if f.is_file()}


def leftovers():
    return sorted(place for place in PLACES if os.path.lexists(place))


def check(found):
    notes = found.notes
    incident = found.the_incident()
    found.check_orphans(incident, unit="shop.service")
    found.check_told(incident, updated=True, most=4)
    assert notes["restarted"]
    assert notes["version"].startswith("9.9.9")
    assert notes["state_kept"]
    assert notes["config_kept"]
    assert "SOCKMEM-AGENT" in notes["manual"].upper()
    assert [
        "/etc/sockmem-agent",
        "/etc/systemd/system/multi-user.target.wants/sockmem-agent.service",
        "/var/lib/sockmem-agent",
    ] == notes["after_remove"]
    assert notes["active_after_remove"] in ("inactive", "unknown", "failed")
    # As Debian does it: what is installed again is enabled as before.
    assert notes["state_kept_by_remove"]
    assert "enabled" == notes["enabled_again"]
    assert notes["incidents_listed_again"] >= 1
    assert [] == notes["after_purge"]
    assert "" == notes["user_after_purge"]
