"""The agent as it is installed, for two rounds or, by ``make soak``, for an hour: in each, all happens that may.

A real rsyslogd writes and the real logrotate rotates, in every way; receivers fail in every way; the wall clock is set
back and ahead, by hours; the configuration is reloaded, good and bad; notifications are silenced; retention is reached.
At the end of a round everything is counted once and told, and what the process and its directory take is noted.
"""

import contextlib
import itertools
import json
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections import defaultdict
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import NamedTuple

import pytest
from harness import LOGROTATE, ROTATIONS, RSYSLOGD, AgentProcess, Rsyslog, wait_for
from soak_receiver import OUTAGES, Receiver

from agent.store import Outbox, StoreError

HOUR, MINUTE = 3600, 60
KEPT = 20
GROWTH_AT_MOST_BYTES = 5 << 18  # in twenty minutes; Python takes memory by the megabyte
# For a measure of growth: what is bounded (the samples of thirty days; lru_caches) is full after a third.
MINUTES_AT_LEAST = 45
AT_REST = 6  # readings half a second apart
SECONDS_AHEAD = (-5 * HOUR, -400, -30, 30, 700, 7 * HOUR)
CONFIG = """\
[source]
kind = "file"
paths = [{paths}]

[store]
keep_count = {kept}

[incident]
quiet_seconds = {quiet}
pressure = false

[metrics]
textfile = "{folder}/agent.prom"

[[notify]]
name = "hook"
type = "webhook"
url = "http://127.0.0.1:{port}/hook"

[[notify]]
name = "team"
type = "slack"
url = "http://127.0.0.1:{port}/team"

[[notify]]
name = "pager"
type = "alertmanager"
urls = ["http://127.0.0.1:{port}/pager"]

[[notify]]
name = "run"
type = "command"
command = ["/bin/sh", "-c", "cat > /dev/null"]
"""

pytestmark = pytest.mark.skipif(
    not (RSYSLOGD and LOGROTATE and shutil.which("cc")), reason="rsyslog, logrotate or a C compiler is not installed"
)


class Figures(NamedTuple):
    """What the agent takes at the end of a round, with nothing to do."""

    at: float
    pss_bytes: int
    descriptors: int
    threads: int
    incidents: int
    disk_bytes: int


class Soak:
    """The agent, its log, its receivers and its clock, and the troubles that a round is made of."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.chance = folder, random.Random("soak")
        self.receiver = Receiver()
        logs = folder / "log"
        logs.mkdir()
        self.rsyslog = Rsyslog(logs)
        self.clock = folder / "wall_clock"
        self.furthest = 0
        self.set_clock(0)
        self.paths, self.quiet = [self.rsyslog.log], 2
        self.agent = AgentProcess(folder, self.config())
        self.agent.program = [str(Path(sys.executable).with_name("sockmem-agent"))]
        self.agent.environ = {"LD_PRELOAD": self.build_clock(), "WALL_CLOCK": str(self.clock), "TZ": "UTC"}
        self.agent.environ["MALLOC_ARENA_MAX"] = "1"  # As packaging/launcher does.
        self.counted: dict[str, int] = {}
        self.outcomes: dict[str, str] = {}
        self.figures: list[Figures] = []
        self.ways = itertools.cycle(ROTATIONS.values())
        self.outages = itertools.cycle(OUTAGES)
        self.begun = time.monotonic()

    def config(self) -> str:
        paths = ", ".join(f'"{path}"' for path in self.paths)
        values = {"kept": KEPT, "quiet": self.quiet, "folder": self.folder, "port": self.receiver.port}
        return CONFIG.format(paths=paths, **values)

    def build_clock(self) -> str:
        library = self.folder / "wall_clock.so"
        source = Path(__file__).with_name("wall_clock.c")
        subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", library, source], check=True)
        return str(library)

    def round(self) -> None:
        """Let everything happen, in another order each time, then come to rest."""
        way = next(self.ways)
        for old in self.rsyslog.directory.glob("messages?*"):
            old.unlink()  # The administrator rotates in another way from now on.
        troubles = [self.outage, self.silence, self.reload_good, self.reload_bad, self.reload_paths]
        troubles += [lambda: self.rotate(way)] * 3 + [self.step_clock] * 3 + [self.noise, self.calm]
        self.chance.shuffle(troubles)
        for trouble in troubles:
            self.hits()
            trouble()
            self.hits()
            self.look()
        self.rest()
        self.measure()

    # --- what happens -----------------------------------------------------------------------------------------------

    def hits(self) -> None:
        """Let the kernel say it some times, and wait until each of these lines is counted."""
        self.rsyslog.say(self.chance.randrange(1, 40))
        self.wait_until_counted()

    def noise(self) -> None:
        for number in range(5_000):
            self.rsyslog.socket.send(f"<38>Nov 22 15:05:39 sshd[{number}]: Accepted publickey for root".encode())

    def calm(self) -> None:
        wait_for("the incident to be over", lambda: not self.open_incidents())

    def rotate(self, way: str) -> None:
        if "copytruncate" not in way:  # What is in flight then may be lost, by logrotate(8)'s own account.
            self.rsyslog.say(10)
        second = int(time.time())
        wait_for("another second, which is in the name", lambda: "%s" not in way or int(time.time()) > second)
        self.rsyslog.rotate(way)

    def outage(self) -> None:
        """Let all receivers fail until a channel says so, and come back."""
        self.receiver.fall_ill(next(self.outages))
        self.calm()
        self.hits()
        wait_for("a channel to say that it fails", self.has_trouble, seconds=90)
        self.receiver.recover()

    def step_clock(self) -> None:
        self.look()  # Retention may take what is over.
        self.set_clock(self.ahead + self.chance.choice(SECONDS_AHEAD))

    def silence(self) -> None:
        self.command("silence", "1h", "--reason", "soak")
        self.hits()
        self.command("silence", "--end")

    def reload_good(self) -> None:
        self.quiet = self.chance.randrange(1, 4)
        self.reload(self.config(), "configuration reloaded")

    def reload_bad(self) -> None:
        self.reload("[source]\nkind = 3\n", "the new configuration is invalid")
        self.agent.config.write_text(self.config())

    def reload_paths(self) -> None:
        """Follow another log, too, or no longer."""
        other = self.folder / "log" / "kern.log"
        self.paths = [self.rsyslog.log, *([] if other in self.paths else [other])]
        self.reload(self.config(), "configuration reloaded")

    def rest(self) -> None:
        """Bring everything to its end: hours pass by the wall clock, and reloads look at it, until digests are sent."""
        self.pass_an_hour()
        self.calm()
        wait_for("all to be told", self.is_all_told_after_an_hour, seconds=240)
        wait_for("the channels to be well", lambda: not self.has_trouble(), seconds=120)
        self.look()
        self.set_clock(self.furthest + 11 * MINUTE)
        wait_for("retention", lambda: len(self.agent.store.ids()) <= KEPT)

    def pass_an_hour(self) -> None:
        self.furthest += HOUR + 10 * MINUTE
        self.set_clock(self.furthest)

    def is_all_told_after_an_hour(self) -> bool:
        self.pass_an_hour()
        self.reload_good()
        deadline = time.monotonic() + 15
        while Outbox(self.agent.store).owing() and time.monotonic() < deadline:
            time.sleep(0.1)
        return not Outbox(self.agent.store).owing()

    # --- what is seen -----------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Note how many lines each incident has, and what became of each notice, before retention removes them."""
        store = self.agent.store
        for each in store.ids():
            with contextlib.suppress(StoreError):
                self.counted[each] = sum(store.load(each).events.values())
                for file, notice, receipts in store.notices(each):
                    for channel, receipt in receipts.items():
                        self.outcomes[f"{channel} {notice.id} {each}/{file}"] = receipt.outcome

    def open_incidents(self) -> list[str]:
        store = self.agent.store
        return [each for each in store.ids()[-5:] if store.load(each).closed_at is None]

    def has_trouble(self) -> bool:
        return bool(Outbox(self.agent.store).troubles())

    def wait_until_counted(self) -> None:
        wait_for(f"{self.rsyslog.sent} lines to be counted", lambda: self.metric() >= self.rsyslog.sent)
        assert self.rsyslog.sent == self.metric()

    def metric(self) -> int:
        """Return how many lines the agent says it has counted since its start."""
        with contextlib.suppress(FileNotFoundError):
            text = (self.folder / "agent.prom").read_text()
            return sum(map(int, re.findall(r"^sockmem_events_total\{.*\} (\d+)$", text, re.MULTILINE)))
        return 0

    def measure(self) -> None:
        """Note what the agent takes, once it is at rest: as many threads and descriptors for three seconds."""
        proc = Path(f"/proc/{self.agent.pid}")
        seen: list[tuple[int, int]] = []

        def is_at_rest() -> bool:
            seen.append((len(list((proc / "fd").iterdir())), len(list((proc / "task").iterdir()))))
            time.sleep(0.5)
            return len(seen) > AT_REST and len(set(seen[-AT_REST:])) == 1

        wait_for("the agent to be at rest", is_at_rest)
        descriptors, threads = seen[-1]
        pss = re.search(r"^Pss: +(\d+) kB", (proc / "smaps_rollup").read_text(), re.MULTILINE)
        assert pss
        files = [path for path in self.agent.state.rglob("*") if path.is_file()]
        self.figures.append(
            Figures(
                at=time.monotonic() - self.begun,
                pss_bytes=int(pss[1]) * 1024,
                descriptors=descriptors,
                threads=threads,
                incidents=len(self.agent.store.ids()),
                disk_bytes=sum(path.stat().st_blocks * 512 for path in files),
            )
        )
        print(json.dumps(self.figures[-1]._asdict()), flush=True)  # noqa: T201 - for who waits an hour

    # --- means ------------------------------------------------------------------------------------------------------

    def set_clock(self, seconds: int) -> None:
        """Set the wall clock of the agent, and of the log, this far ahead of the host's."""
        self.ahead, self.furthest = seconds, max(self.furthest, seconds)
        self.rsyslog.ahead = timedelta(seconds=seconds)
        with os.fdopen(os.open(self.clock, os.O_RDWR | os.O_CREAT, 0o644), "r+b") as file:
            file.write(struct.pack("l", seconds))

    def command(self, *words: str) -> None:
        environ = {**os.environ, **self.agent.environ, "STATE_DIRECTORY": str(self.agent.state)}
        subprocess.run([*self.agent.program, *words], env=environ, check=True, capture_output=True)

    def reload(self, config: str, said: str) -> None:
        before = self.agent.said().count(said)
        self.agent.config.write_text(config)
        self.agent.signal(signal.SIGHUP)
        wait_for(said, lambda: self.agent.said().count(said) > before)


def test_whatever_happens_each_line_is_counted_each_notice_sent_and_nothing_grows(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    minutes = pytestconfig.getoption("--soak-minutes")
    soak = Soak(tmp_path)
    try:
        soak.agent.start()
        while len(soak.figures) < 2 or soak.figures[-1].at < minutes * MINUTE:
            soak.round()
        assert 0 == soak.agent.stop()
    finally:
        soak.agent.stop()
        soak.rsyslog.stop()
        soak.receiver.end()

    check_counted_and_told(soak)
    check_growth(soak.figures, minutes)


def check_counted_and_told(soak: Soak) -> None:
    """Check that the incidents have all lines, and that what has a receipt as delivered came, and in order."""
    assert soak.rsyslog.sent == sum(soak.counted.values())
    delivered: dict[str, set[str]] = defaultdict(set)
    for each, outcome in soak.outcomes.items():
        channel, notice, _ = each.split()
        assert outcome in {"delivered", "superseded", "digested", "skipped"}
        if outcome == "delivered":
            delivered[channel].add(notice)
    answered = soak.receiver.answered["hook"]
    assert set() == delivered["hook"] - set(answered)
    assert {1} == set(answered.values())
    assert len(delivered["team"]) <= sum(soak.receiver.answered["team"].values())
    assert all(types[0] == "opened" or types == ["resolved"] for types in soak.receiver.types.values())
    assert "Traceback" not in soak.agent.said()


def check_growth(figures: list[Figures], minutes: float) -> None:
    """Check that incidents stay within retention and, where it lasts, that the last third takes what the middle did."""
    assert all(each.incidents <= KEPT for each in figures)
    if minutes < MINUTES_AT_LEAST:
        return
    third = len(figures) // 3
    middle, last = figures[-2 * third : -third], figures[-third:]
    grown = {
        name: median(getattr(each, name) for each in last) - median(getattr(each, name) for each in middle)
        for name in Figures._fields
    }
    assert grown["descriptors"] <= 0
    assert grown["threads"] <= 0
    assert grown["pss_bytes"] < GROWTH_AT_MOST_BYTES
    assert grown["disk_bytes"] < GROWTH_AT_MOST_BYTES
