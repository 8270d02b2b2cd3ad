"""The package: an upgrade keeps the state and a changed configuration; remove keeps both; purge leaves nothing."""

from pathlib import Path

LIMIT = 64
CONNECTIONS = 200


def act(rig):
    rig.listen()
    rig.sysctl("net.ipv4.tcp_max_orphans", str(LIMIT))
    rig.start("shop.service", "serve", "--port", 8080, "--count", CONNECTIONS, "--bytes", 110_000, "--pause", 0.002)
    rig.hear("shop", "listening")
    rig.start("phones.service", "clients", "--port", 8080, "--count", CONNECTIONS)
    rig.hear("shop", "connected")
    rig.tell("shop", "send", then="full")
    rig.tell("shop", "close", then="closed")
    rig.wait_for_lines()
    rig.wait_until_named()
    rig.stop("phones", "shop")
    rig.wait_for_posts("opened", "resolved")
    before = rig.agent_pid()
    rig.run("apt-get", "install", "-y", str(rig.newer_package("9.9.9")))
    rig.note("restarted", rig.agent_pid() not in (0, before))
    rig.note("version", rig.run("dpkg-query", "-W", "-f", "${Version}", "sockmem-agent"))
    rig.note("incidents_after_upgrade", len(rig.json("sockmem-agent", "incidents", "list", "--json")))
    rig.note("config_kept", Path("/etc/sockmem-agent/config.toml").read_text() == rig.CONFIG)
    rig.note("manual", rig.run("man", "-P", "cat", "sockmem-agent")[:2000])
    rig.collect_state()
    rig.run("apt-get", "remove", "-y", "sockmem-agent")
    rig.note("after_remove", rig.leftovers())
    rig.note("active_after_remove", rig.run("systemctl", "is-active", "sockmem-agent", check=False).strip())
    rig.run("apt-get", "purge", "-y", "sockmem-agent")
    rig.note("after_purge", rig.leftovers())
    rig.note("user_after_purge", rig.run("getent", "passwd", "sockmem-agent", check=False))


def check(found):
    notes = found.notes
    incident = found.the_incident()
    assert ("orphans", "certain", "kernel") == found.verdict(incident)
    assert found.lines("too many orphaned") == incident["events"]["too_many_orphans"]
    assert "shop.service" == found.first_named(incident)["unit"]
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
