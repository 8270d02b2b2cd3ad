"""The file source: rsyslog writes /var/log/messages, and logrotate takes it away between two bursts."""

from pathlib import Path

LIMIT = 64
CONNECTIONS = 120
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


def act(rig):
    rig.start_rsyslog()
    # One incident over all three bursts, whatever the pauses between them under emulation.
    rig.configure('[source]\nkind = "file"\n' + rig.CONFIG.replace("quiet_seconds = 6", "quiet_seconds = 20"))
    rig.listen()
    rig.sysctl("net.ipv4.tcp_max_orphans", str(LIMIT))
    Path("/run/vm/logrotate.conf").write_text(ROTATION)
    for port in (8080, 8081, 8082):
        rig.start(
            f"shop{port}.service", "serve", "--port", port, "--count", CONNECTIONS, "--bytes", 110_000, "--pause", 0.002
        )
        rig.hear(f"shop{port}", "listening")
        rig.start(f"phones{port}.service", "clients", "--port", port, "--count", CONNECTIONS)
        rig.hear(f"shop{port}", "connected")
        rig.tell(f"shop{port}", "send", then="full")
        said = len(rig.kernel_lines())
        rig.tell(f"shop{port}", "close", then="closed")
        rig.wait_for_lines(said + 1)
        rig.run("logrotate", "-f", "-s", "/run/vm/logrotate.state", "/run/vm/logrotate.conf")
        rig.pause(2.5)
    rig.wait_for_posts("opened", "resolved", seconds=60)
    rig.note("logs", sorted(path.name for path in Path("/var/log").glob("messages*")))


def check(found):
    incident = found.the_incident()
    assert ["messages", "messages.1", "messages.2.gz", "messages.3.gz"] == found.notes["logs"]
    assert ("orphans", "likely", "claimed") == found.verdict(incident)
    assert found.lines("too many orphaned") == incident["events"]["too_many_orphans"]
    told = found.told(incident)
    assert ("opened", "resolved") == (told[0], told[-1])
    assert "shop8080.service" in str(incident["diagnosis"]["holders"])
