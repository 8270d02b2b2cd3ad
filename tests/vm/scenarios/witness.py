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
    with Path(TRACING, "instances", rig.instances()[0], "trace_pipe").open():
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
    rig.wait("systemd started it again", lambda: rig.agent_pid() not in (0, before) and rig.has_started(), seconds=60)
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
    rig.wait("it has its own", lambda: any(str(watching.pid) in name for name in rig.instances()))
    rig.burst(200, limit=64)
    rig.pause(3)  # The kernel's timers kill more.
    watching.send_signal(signal.SIGINT)
    rig.note("watched", json.loads(watching.communicate(timeout=30)[0]))
    rig.note("after_watching", rig.instances())
    rig.stop("phones", "shop")


def check(found):
    incident = found.the_incident()
    found.check_witnessed(incident, "shop.service")
    notes, sees_kills = found.notes, found.sees_kills(incident)
    made = PAIR if sees_kills else PAIR[1:]
    for when in ("running", "killed"):
        assert [made, "ok"] == notes[when][:2]
        assert ("in use by the service itself" if sees_kills else "refusals, no kills: ") in notes[when][2]
    assert [[], "ok"] == notes["stopped"][:2]
    if sees_kills:
        assert [made, "warn"] == notes["taken"][:2]
        assert notes["taken"][2].startswith("in use by python3 (PID ")
    assert [[], "warn"] == notes["hidden"][:2]
    assert "tracefs is not mounted" in notes["hidden"][2]
    assert [[], "ok"] == notes["off"][:2]
    assert notes["off"][2].startswith("off; ")
    watched = notes["watched"]["witness"]
    assert made == notes["after_watching"]
    if sees_kills:
        assert "shop.service" == watched["by"][0]["unit"]
        assert watched["kills"] > 0.9 * found.killed(incident)
    else:
        assert watched["kills"] is None
