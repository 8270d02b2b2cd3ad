"""The file source: rsyslog writes /var/log/messages, and logrotate takes it away between bursts."""

from pathlib import Path

ROTATION = """\
/var/log/messages {
    rotate 4
    create 0640 root adm
    compress
    delaycompress
    postrotate
        /usr/lib/rsyslog/rsyslog-rotate
    endscript
}
"""


QUIET_SECONDS = 20
# The kernel prints ten network messages in five seconds; the next burst has to find some left.
LIMITER_SECONDS = 6
PORTS = (8080, 8081)


def act(rig):
    rig.start_rsyslog()
    # One incident over both bursts, whatever the pauses between them under emulation.
    rig.configure(
        '[source]\nkind = "file"\n' + rig.CONFIG.replace("quiet_seconds = 6", f"quiet_seconds = {QUIET_SECONDS}")
    )
    rig.listen()
    Path("/run/vm/logrotate.conf").write_text(ROTATION)
    for port in PORTS:
        rig.burst(120, limit=64, service=f"shop{port}", clients=f"phones{port}", port=port)
        rig.run("logrotate", "-f", "-s", "/run/vm/logrotate.state", "/run/vm/logrotate.conf")
        rig.pause(LIMITER_SECONDS)
    rig.wait_until_named()
    # Orphans that outlast the incident would be warned of.
    rig.stop(*(f"{name}{port}" for name in ("phones", "shop") for port in PORTS))
    rig.wait_for_posts("opened", "resolved", seconds=60)
    rig.note("logs", sorted(path.name for path in Path("/var/log").glob("messages*")))


def check(found):
    incident = found.the_incident()
    assert ["messages", "messages.1", "messages.2.gz"] == found.notes["logs"]
    # Whose orphans are the most depends on when it was asked, and whom the kernel had killed by then.
    port = found.first_named(incident)["ports"][0]
    assert port in PORTS
    # Kills in the trace prove what the file claims; which limit it was they do not say.
    proof = "likely", "kernel" if found.sees_kills(incident) else "claimed"
    found.check_orphans(incident, unit=f"shop{port}.service", port=port, proof=proof)
    found.check_told(incident)
