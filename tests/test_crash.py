"""The promise of the store, with the real process: killed at arbitrary points, nothing is lost or counted twice."""

import json
import random
import shutil
from datetime import datetime, timedelta, timezone

import pytest
from harness import AgentProcess, wait_for

from agent.store import Outbox

HITS = 2_000
ROTATIONS = 50
KILLS = 10
INCIDENTS = 5


class Writer:
    """A syslog daemon of few words: numbered kernel lines into a log that is rotated in one of three ways."""

    def __init__(self, path):
        self.path = path
        self.file = path.open("ab", buffering=0)
        self.written = 0
        self.start = datetime.now(timezone.utc) - timedelta(hours=INCIDENTS)

    def write(self, hits):
        for _ in range(hits):
            hour = self.written * INCIDENTS // HITS
            stamp = (self.start + timedelta(hours=hour)).isoformat()
            line = f"{stamp} web1 kernel: [{self.written:5}.000001] TCP: too many orphaned sockets\n"
            self.file.write(b"%b web1 sshd[1]: ordinary line\n" % stamp.encode() + line.encode())
            self.written += 1

    def shift(self):
        for number in range(ROTATIONS, 0, -1):
            old = self.path.with_name(f"{self.path.name}.{number}")
            if old.exists():
                old.rename(self.path.with_name(f"{self.path.name}.{number + 1}"))

    def rename(self):
        self.shift()
        self.path.rename(self.path.with_name(f"{self.path.name}.1"))
        self.write(3)  # As rsyslog does until it is told to reopen.
        self.file.close()
        self.file = self.path.open("ab", buffering=0)

    def copytruncate(self):
        self.shift()
        shutil.copy2(self.path, self.path.with_name(f"{self.path.name}.1"))
        self.file.truncate(0)

    def delete(self):
        self.path.unlink()
        self.file.close()
        self.file = self.path.open("ab", buffering=0)


@pytest.mark.parametrize("way", ["rename", "copytruncate", "delete"])
def test_2000_hits_through_50_rotations_and_10_kills_are_all_counted_once(way, tmp_path, httpserver):
    httpserver.expect_request("/hook").respond_with_data("ok")
    log = tmp_path / "messages"
    writer = Writer(log)
    agent = AgentProcess(
        tmp_path,
        f'[source]\nkind = "file"\npaths = ["{log}"]\n[incident]\npressure = false\n'
        f'[[notify]]\nname = "ops"\ntype = "webhook"\nurl = "{httpserver.url_for("/hook")}"\n',
    )
    chance = random.Random(way)
    kills = sorted(chance.sample(range(ROTATIONS), KILLS))
    agent.start()
    try:
        # A log that is rotated before one line of it was read is nobody's that can be told from another.
        writer.write(1)
        wait_for("the first event", agent.events)
        for rotation in range(ROTATIONS):
            writer.write(chance.randrange(1, 30))
            if rotation in kills:
                agent.kill()
                writer.write(chance.randrange(1, 10))
                agent.start()
                writer.write(chance.randrange(1, 10))
            if way == "delete":
                # A file that came and went between two looks, or was deleted and then its reader killed, is gone for
                # everybody: it must have been opened, and before a kill it must have been read.
                wait_for("the agent to have opened the file", lambda: agent.has_open(log))
                if rotation in kills or rotation + 1 in kills:
                    wait_for("the agent to have read the file", lambda: agent.events() == writer.written)
            getattr(writer, way)()
        writer.write(HITS - writer.written)
        wait_for("every hit to be counted", lambda: agent.events() >= HITS)
        agent.kill()
        config = agent.config.read_text().replace("pressure = false", "pressure = false\nquiet_seconds = 1")
        agent.config.write_text(config)  # The last is over, too.
        agent.start()
        wait_for("the end of the last", lambda: all(agent.store.load(i).closed_at for i in agent.store.ids()))
        wait_for("everybody to be told", lambda: "ops" not in Outbox(agent.store).owing())
        assert 0 == agent.stop()
    finally:
        agent.stop()
        writer.file.close()

    counts = [agent.store.load(i).events["too_many_orphans"] for i in agent.store.ids()]
    told = {json.loads(request.data)["data"]["id"] for request, _ in httpserver.log}
    assert [HITS // INCIDENTS] * INCIDENTS == counts
    assert set(agent.store.ids()) == told
    assert len(httpserver.log) <= 2 * INCIDENTS + KILLS
    assert "Traceback" not in agent.said()
