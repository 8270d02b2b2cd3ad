"""The witness: two instances while the service runs, none after it ends; without them it starts all the same."""

import json
import os
import signal
import subprocess
from pathlib import Path

MAIN = True
RESTARTS = 1
TRACING = "/sys/kernel/tracing"
PAIR = ["sockmem-agent-kills", "sockmem-agent-refusals"]


def act(rig):
    rig.listen()
    look(rig, "running")
    watch(rig)
    rig.wait_for_posts("opened", "resolved")

    rig.run("systemctl", "stop", "sockmem-agent")
    look(rig, "stopped")

    rig.run("sockmem-agent", "witness", "start")
    with Path(TRACING, "instances", PAIR[0], "trace_pipe").open():
        rig.run("systemctl", "start", "sockmem-agent")
        look(rig, "taken")
    rig.run("systemctl", "stop", "sockmem-agent")

    rig.run("mount", "-t", "tmpfs", "-o", "mode=0700", "hidden", TRACING)
    Path(TRACING, "instances").mkdir()
    rig.run("systemctl", "start", "sockmem-agent")
    look(rig, "hidden")
    rig.run("umount", TRACING)

    rig.do_without_witness()
    look(rig, "off")
    rig.take_witness()
    before = rig.agent_pid()
    os.kill(before, signal.SIGKILL)
    rig.wait("systemd started it again", lambda: rig.agent_pid() not in (0, before), seconds=60)
    look(rig, "killed")


def look(rig, when):
    """Note the instances, and what the doctor says."""
    doctor = json.loads(rig.run("sockmem-agent", "doctor", "--json", check=False))
    [line] = [check for check in doctor["checks"] if check["name"] == "witness"]
    rig.note(when, [rig.instances(), line["status"], line["detail"]])


def watch(rig):
    """Look who is killed during a burst, beside the service."""
    watching = subprocess.Popen(
        ["sockmem-agent", "diagnose", "--watch", "60", "--json"], stdout=subprocess.PIPE, text=True
    )
    rig.wait("its instances are there", lambda: len(rig.instances()) == 4)
    rig.burst(200, limit=64)
    watching.send_signal(signal.SIGINT)
    rig.note("watched", json.loads(watching.communicate(timeout=30)[0]))
    rig.note("after_watching", rig.instances())
    rig.stop("phones", "shop")


def check(found):
    incident = found.the_incident()
    found.check_witnessed(incident, "shop.service")
    notes = found.notes
    assert [PAIR, "ok"] == notes["running"][:2]
    assert [[], "ok"] == notes["stopped"][:2]
    assert [PAIR, "warn"] == notes["taken"][:2]
    assert "python3" in notes["taken"][2]
    assert [[], "warn"] == notes["hidden"][:2]
    assert [[], "ok"] == notes["off"][:2]
    assert notes["off"][2].startswith("off")
    assert [PAIR, "ok"] == notes["killed"][:2]
    assert PAIR == notes["after_watching"]
