"""The package: an upgrade in the middle of an incident keeps state and configuration, and the new version goes on."""

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
    before, written = rig.agent_pid(), packages.written_once(rig.STATE)
    # As an administrator answers when asked: the configuration that was changed here stays.
    rig.run("apt-get", "install", "-y", "-oDpkg::Options::=--force-confold", str(newer.result()))
    rig.note("restarted", rig.agent_pid() not in (0, before))
    rig.note("version", rig.run("dpkg-query", "-W", "-f", "${Version}", "sockmem-agent"))
    rig.wait_until_all_is_told()
    rig.note("written", len(written))
    rig.note("state_kept", written.items() <= packages.written_once(rig.STATE).items())
    rig.note("config_kept", Path("/etc/sockmem-agent/config.toml").read_text() == rig.CONFIG)


def check(found):
    notes = found.notes
    incident = found.the_incident()
    found.check_orphans(incident, unit="shop.service")
    found.check_told(incident)
    assert notes["restarted"]
    assert notes["version"].startswith("9.9.9")
    assert notes["written"] > 0
    assert notes["state_kept"]
    assert notes["config_kept"]
