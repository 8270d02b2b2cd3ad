"""A channel of type command, in the booted unit: a shell script with a pipe, under the unit's own system call filter.

The service runs as the package installs it, without the witness.
"""

from pathlib import Path

SCRIPT = Path("/usr/local/bin/tell")
CHANNEL = f"""
[[notify]]
name = "run"
type = "command"
command = ["{SCRIPT}", "on-call"]
input = "text"
"""


def act(rig):
    SCRIPT.write_text(
        "#!/bin/sh\nset -e\n"
        'logger -t told "$1 $SOCKMEM_TYPE $SOCKMEM_INCIDENT: $(head -n 1 | tr a-z A-Z)"\n'
        "logger -t told $(grep -E '^(Seccomp|NoNewPrivs|CapEff):' /proc/self/status)\n"
    )
    SCRIPT.chmod(0o755)
    rig.do_without_witness()
    rig.configure(rig.CONFIG + CHANNEL)
    rig.listen()
    rig.burst(200, limit=64)
    rig.wait_until_named()
    rig.stop("phones", "shop")
    rig.wait_for_posts("opened", "resolved")
    rig.wait("the command told of the end", lambda: "incident.resolved" in rig.run("journalctl", "-t", "told"))


def check(found):
    incident = found.the_incident()
    found.check_orphans(incident, unit="shop.service")
    found.check_told(incident)
    told = [line.partition(": ")[2] for line in found.journal() if " told[" in line or " told: " in line]
    said = [line for line in told if line.startswith("on-call ")]
    assert said[0].startswith(f"on-call sockmem.incident.opened {incident['id']}: ")
    assert said[-1].startswith(f"on-call sockmem.incident.resolved {incident['id']}: ")
    # A filter was in force (2), nothing can be gained, and there is nothing to lose.
    assert {"CapEff: 0000000000000000 NoNewPrivs: 1 Seccomp: 2"} == set(told) - set(said)
