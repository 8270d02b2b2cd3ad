"""What people read through real Alertmanagers: a courier, two instances that gossip, and the receiver behind them.

Only the courier's pauses run on a clock of their own, so that its minutes take no time; what an Alertmanager does with
what it was sent, it does by its own clock.
"""

import contextlib
import json
import shutil
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from harness import Handler, Tray, hold_port, port_of, read_request, wait_for
from material import make_sent_incident
from msgspec.structs import replace

from agent.core.delivery import Delivered
from agent.core.dispatch import OPENED, rules_of
from agent.core.model import Incident, Notice
from agent.core.settings import AlertmanagerSettings
from agent.notifiers.alertmanager import AlertmanagerNotifier
from agent.service.courier import Courier

PROGRAM = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Alertmanager: apt-get install prometheus-alertmanager")

ONE = "20261129T150000Z-0001"
RULES = """
route: {receiver: people, group_by: [incident], group_wait: 100ms, group_interval: 200ms, repeat_interval: 1h}
receivers: [{name: people, webhook_configs: [{url: "http://{people}/", send_resolved: true}]}]
inhibit_rules:
- source_matchers: [severity="critical"]
  target_matchers: [severity="warning"]
  equal: [alertname, host, incident]
"""
SHIPPED = Path(__file__).parents[2] / "contrib/prometheus/alertmanager.yml"
ON_CALL = """
receivers:
- {name: page, pagerduty_configs: [{routing_key: key, url: "http://{people}/", send_resolved: true}]}
- {name: chat}
"""
HOSTS = 400


class People:
    """The receiver behind the Alertmanagers: what was read, in order."""

    def __init__(self, serve: Callable[[Handler], str]) -> None:
        self.read: list[str] = []
        self.place = serve(self.take)

    def take(self, connection: socket.socket) -> None:
        body = json.loads(read_request(connection).partition(b"\r\n\r\n")[2])
        alerts = [(each["status"], each["labels"]["severity"]) for each in body["alerts"]]
        self.read += [f"{severity} {status}" for status, severity in sorted(alerts, reverse=True)]
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


class OnCall:
    """PagerDuty behind the Alertmanagers: the details of each event."""

    def __init__(self, serve: Callable[[Handler], str]) -> None:
        self.events: list[bytes] = []
        self.place = serve(self.take)

    def take(self, connection: socket.socket) -> None:
        self.events.append(read_request(connection).partition(b"\r\n\r\n")[2])
        answer = b'{"status": "success", "message": "Event processed", "dedup_key": "key"}'
        connection.sendall(b"HTTP/1.1 202 Accepted\r\nContent-Length: %d\r\n\r\n%b" % (len(answer), answer))


class Instance:
    """One Alertmanager as a process, with its data; its ports are held while it is down, too."""

    def __init__(self, folder: Path, people: "People | OnCall", rules: str = RULES) -> None:
        self.folder, self.held = folder, (hold_port(), hold_port())
        self.port, self.gossip = map(port_of, self.held)
        self.url = f"http://127.0.0.1:{self.port}"
        self.peers: list[Instance] = []
        self.process: subprocess.Popen[bytes] | None = None
        folder.mkdir()
        (folder / "config.yml").write_text(rules.replace("{people}", people.place))

    def start(self) -> None:
        options = [
            f"--config.file={self.folder / 'config.yml'}",
            f"--storage.path={self.folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            f"--cluster.listen-address=127.0.0.1:{self.gossip}",
            *(f"--cluster.peer=127.0.0.1:{peer.gossip}" for peer in self.peers),
            "--cluster.peer-timeout=1s",
            "--cluster.settle-timeout=1s",
            "--cluster.pushpull-interval=1s",
            "--cluster.reconnect-interval=1s",
        ]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen([str(PROGRAM), *options], stdout=log, stderr=log)
        wait_for("an Alertmanager", self.is_ready)

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=1):
                return True
        except OSError:
            return False

    def kill(self) -> None:
        if self.process:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(10)
        self.process = None

    def shows(self) -> list[dict[str, Any]]:
        with urllib.request.urlopen(f"{self.url}/api/v2/alerts", timeout=5) as answer:
            found: list[dict[str, Any]] = json.load(answer)
        return [each for each in found if each["status"]["state"] != "unprocessed"]

    def severities(self) -> list[str]:
        return sorted(each["labels"]["severity"] for each in self.shows())


class Host:
    """The agent's side: incidents in memory, and a courier whose minutes pass on demand."""

    def __init__(self, *urls: str, ahead: timedelta = timedelta(0)) -> None:
        self.tray, self.ahead, self.second = Tray(), ahead, 0.0
        self.settings = AlertmanagerSettings(name="am", urls=urls)
        self.start()

    def now(self) -> datetime:
        return datetime.now(timezone.utc) + self.ahead

    def start(self) -> None:
        """Start the agent; it knows what is on disk."""
        notifier = AlertmanagerNotifier(self.settings, deadline_seconds=4.0, now=self.now)
        self.courier = Courier(
            notifier,
            self.tray,
            rules_of(self.settings),
            monotonic=lambda: self.second,
            now=self.now,
            random=lambda: 0.0,
        )

    def say(self, kind: str, incident_id: str = ONE, **changes: Any) -> None:
        """Let the recorder write a notice, and the courier do what is to be done."""
        before = [notice.data for (owner, _), notice in self.tray.notices.items() if owner == incident_id]
        data: Incident = before[-1] or make_sent_incident() if before else make_sent_incident(opened_at=self.now())
        changes |= {"closed_at": self.now()} if kind == "resolved" else {}
        data = replace(data, id=incident_id, last_seen_at=self.now(), **changes)
        type_: Any = f"sockmem.incident.{kind}"
        notice = Notice(id=f"n-{len(before)}", type=type_, at=self.now(), reason="", channels=("am",), data=data)
        self.tray.put(incident_id, notice)
        self.work()

    def work(self) -> None:
        while self.courier.step() == 0.0:
            pass

    def minutes(self, count: float) -> None:
        """Let minutes pass on the courier's clock."""
        end = self.second + 60 * count
        while self.second < end:
            self.second = min(end, self.second + max(self.courier.step(), 0.001))
        self.work()


@pytest.fixture
def people(serve: Callable[[Handler], str]) -> People:
    return People(serve)


@pytest.fixture
def two(people: People, tmp_path: Path) -> Iterator[tuple[Instance, Instance]]:
    with running(Instance(tmp_path / "1", people), Instance(tmp_path / "2", people)) as both:
        yield both


@contextlib.contextmanager
def running(first: Instance, second: Instance) -> Iterator[tuple[Instance, Instance]]:
    first.peers, second.peers = [second], [first]
    try:
        first.start()
        second.start()
        yield first, second
    finally:
        for each in (first, second):
            each.kill()
            for held in each.held:
                held.close()


def test_an_incident_is_read_once_as_firing_and_once_as_resolved(
    two: tuple[Instance, Instance], people: People
) -> None:
    host = Host(two[0].url, two[1].url)
    host.say("opened")
    wait_for("the page", lambda: people.read)
    host.minutes(30)
    assert [["critical"], ["critical"]] == [each.severities() for each in two]
    host.say("resolved")
    wait_for("the end", lambda: len(people.read) == 2)
    host.minutes(20)

    assert ["critical firing", "critical resolved"] == people.read
    assert [[], []] == [each.shows() for each in two]
    assert [] == host.tray.waiting


def test_a_warning_that_becomes_critical_is_read_as_that_and_never_as_resolved(
    two: tuple[Instance, Instance], people: People
) -> None:
    host = Host(two[0].url, two[1].url)
    host.say("opened", class_="pressure")
    wait_for("the warning", lambda: people.read == ["warning firing"])
    host.say("updated", class_="event")
    wait_for("the page", lambda: "critical firing" in people.read)
    host.minutes(5)

    assert "critical resolved" not in people.read
    states = {each["labels"]["severity"]: each["status"]["state"] for each in two[0].shows()}
    assert {"warning": "suppressed", "critical": "active"} == states


@pytest.mark.parametrize("keeps_data", [True, False])
def test_an_instance_that_restarts_knows_the_alert_again_and_hears_its_end(
    two: tuple[Instance, Instance], people: People, *, keeps_data: bool
) -> None:
    host = Host(two[0].url, two[1].url)
    host.say("opened")
    wait_for("the page", lambda: people.read)
    two[0].kill()
    if not keeps_data:
        shutil.rmtree(two[0].folder / "data")
    two[0].start()
    assert [] == two[0].shows()
    host.minutes(1)
    assert [["critical"], ["critical"]] == [each.severities() for each in two]
    host.say("resolved")
    wait_for("the end", lambda: "critical resolved" in people.read)

    assert [[], []] == [each.shows() for each in two]
    assert "critical firing" == people.read[0]


def test_an_instance_that_is_down_at_the_opening_keeps_nothing_from_the_other_and_is_up_to_date_when_back(
    two: tuple[Instance, Instance], people: People
) -> None:
    two[0].kill()
    host = Host(two[0].url, two[1].url)
    host.say("opened")
    wait_for("the page", lambda: people.read == ["critical firing"])
    assert ["delivered"] == [receipt.outcome for receipt in host.tray.receipts]
    two[0].start()
    host.minutes(1)
    assert ["critical"] == two[0].severities()
    two[0].kill()
    host.say("resolved")
    wait_for("the end", lambda: people.read == ["critical firing", "critical resolved"])

    assert [] == two[1].shows()


def test_of_what_began_and_ended_while_both_were_down_nobody_reads(
    two: tuple[Instance, Instance], people: People
) -> None:
    for each in two:
        each.kill()
    host = Host(two[0].url, two[1].url)
    host.say("opened")
    host.minutes(60)
    host.say("resolved")
    host.minutes(1)
    for each in two:
        each.start()
    host.minutes(14)
    host.say("opened", "20261129T160000Z-0002")
    wait_for("another page", lambda: people.read)

    assert ["critical firing"] == people.read
    assert [["20261129T160000Z-0002"]] * 2 == [[a["labels"]["incident"] for a in each.shows()] for each in two]


def test_the_alert_of_an_agent_that_is_gone_ends_within_five_minutes(
    two: tuple[Instance, Instance], people: People
) -> None:
    host = Host(two[0].url)
    host.say("opened")
    (alert,) = two[0].shows()
    left = datetime.fromisoformat(alert["endsAt"].replace("Z", "+00:00")) - datetime.now(timezone.utc)

    assert timedelta(minutes=3, seconds=30) < left < timedelta(minutes=5)


def test_an_agent_that_restarts_while_it_is_open_pages_nobody_again(
    two: tuple[Instance, Instance], people: People
) -> None:
    host = Host(two[0].url, two[1].url)
    host.say("opened")
    wait_for("the page", lambda: people.read)
    host.start()
    host.minutes(2)
    host.say("resolved")
    host.start()
    host.minutes(2)
    wait_for("the end", lambda: len(people.read) == 2)

    assert ["critical firing", "critical resolved"] == people.read


@pytest.mark.parametrize("hours", [-2, 2])
def test_a_host_whose_clock_is_wrong_by_two_hours_fires_and_resolves(
    two: tuple[Instance, Instance], people: People, hours: int
) -> None:
    host = Host(two[0].url, two[1].url, ahead=timedelta(hours=hours))
    host.say("opened")
    wait_for("the page", lambda: people.read == ["critical firing"])
    (alert,) = two[0].shows()
    assert datetime.fromisoformat(alert["startsAt"].replace("Z", "+00:00")) <= datetime.now(timezone.utc)
    host.minutes(3)
    host.say("resolved")
    wait_for("the end", lambda: people.read == ["critical firing", "critical resolved"])

    assert [[], []] == [each.shows() for each in two]


def test_400_hosts_with_one_cause_are_two_pages_at_most_that_name_them_all(
    serve: Callable[[Handler], str], tmp_path: Path
) -> None:
    on_call, fleet = OnCall(serve), SHIPPED.read_text().partition("\nreceivers:")[0] + ON_CALL
    longest = "The kernel resets connections. " * 20
    with running(Instance(tmp_path / "1", on_call, fleet), Instance(tmp_path / "2", on_call, fleet)) as both:

        def fire(number: int) -> None:
            incident = make_sent_incident(
                id=f"20261129T150000Z-{number:04x}",
                host=f"web{number:03}",
                opened_at=datetime.now(timezone.utc),
                summary=longest,
            )
            notice = Notice(id="n", type=OPENED, at=incident.opened_at, reason="", channels=("am",), data=incident)
            notifier = AlertmanagerNotifier(AlertmanagerSettings(name="am", urls=(both[0].url, both[1].url)))
            assert isinstance(notifier.notify(notice), Delivered)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(fire, range(HOSTS)))
        wait_for("the page", lambda: named(on_call) == HOSTS, 90)

        assert 1 <= len(on_call.events) <= 2
        assert all(len(event) < 512 * 1024 for event in on_call.events)


def named(on_call: OnCall) -> int:
    """Count the hosts that the pages name in their details."""
    text = b"".join(on_call.events).decode()
    return len({host for host in (f"web{number:03}" for number in range(HOSTS)) if f"instance = {host}" in text})
