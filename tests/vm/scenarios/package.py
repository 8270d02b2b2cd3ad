"""The package: an upgrade keeps the state and a changed configuration, and what runs goes on with the new version."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import packages


def act(rig):
    rig.listen()
    with ThreadPoolExecutor() as beside:
        newer = beside.submit(packages.newer, rig, "9.9.9")
        rig.burst(200, limit=64)
        rig.wait_until_named()
        rig.stop("phones", "shop")
        rig.wait_for_posts("opened", "resolved")
    before, incidents = rig.agent_pid(), packages.contents(rig.STATE / "incidents")
    # As an administrator answers when asked: the configuration that was changed here stays.
    rig.run("apt-get", "install", "-y", "-oDpkg::Options::=--force-confold", str(newer.result()))
    rig.note("restarted", rig.agent_pid() not in (0, before))
    rig.note("version", rig.run("dpkg-query", "-W", "-f", "${Version}", "sockmem-agent"))
    rig.note("state_kept", packages.contents(rig.STATE / "incidents") == incidents)
    rig.note("config_kept", Path("/etc/sockmem-agent/config.toml").read_text() == rig.CONFIG)


def check(found):
    notes = found.notes
    incident = found.the_incident()
    found.check_orphans(incident, unit="shop.service")
    found.check_told(incident)
    assert notes["restarted"]
    assert notes["version"].startswith("9.9.9")
    assert notes["state_kept"]
    assert notes["config_kept"]
