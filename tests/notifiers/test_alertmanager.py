import json
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import msgspec
import pytest
from harness import Handler, hang
from material import OPENED_AT, make_sent_incident, make_sent_notice
from msgspec.structs import replace
from pytest_httpserver import HTTPServer

from agent.core.delivery import Delivered, Rejected, Retry
from agent.core.model import Notice, NoticeType, Pressure
from agent.core.settings import AlertmanagerSettings
from agent.notifiers import ChannelError, build
from agent.notifiers.alertmanager import STAYS_UP, AlertmanagerNotifier, alerts

WARNED = Pressure(level=2, cause="orphans", claim="orphans above a quarter of their limit", value=40_000, limit=32_768)


def alert(notice: Notice) -> dict[str, Any]:
    (only,) = alerts(notice, notice.at)
    return only


def sent(notice: Notice) -> list[tuple[str, datetime]]:
    return [(each["labels"]["severity"], each["endsAt"]) for each in alerts(notice, notice.at)]


# --- the alert ------------------------------------------------------------------------------------------------------


def test_labels_are_the_same_from_opened_to_resolved_whatever_the_cause_became() -> None:
    opened = alert(make_sent_notice(cause="orphans"))
    updated = alert(make_sent_notice("sockmem.incident.updated", cause="both", confidence="likely"))
    resolved = alert(make_sent_notice("sockmem.incident.resolved", cause="tcp_memory"))

    expected = {
        "alertname": "SockmemIncident",
        "severity": "critical",
        "host": "web1",
        "instance": "web1",
        "incident": "20261122T150539Z-7f3a",
    }
    assert [expected] * 3 == [each["labels"] for each in (opened, updated, resolved)]
    assert [OPENED_AT] * 3 == [each["startsAt"] for each in (opened, updated, resolved)]


def test_pressure_alone_is_a_warning() -> None:
    opened = make_sent_notice(class_="pressure", pressure=WARNED)
    resolved = make_sent_notice("sockmem.incident.resolved", class_="pressure", pressure=WARNED)

    assert resolved.data is not None
    assert resolved.data.closed_at is not None
    assert [("warning", opened.at + STAYS_UP)] == sent(opened)
    assert [("warning", resolved.data.closed_at)] == sent(resolved)


def test_a_warning_ends_when_the_kernel_says_it_and_both_end_with_the_incident() -> None:
    warned = make_sent_notice(class_="pressure", pressure=WARNED)
    worse = make_sent_notice("sockmem.incident.updated", pressure=WARNED)
    resolved = make_sent_notice("sockmem.incident.resolved", pressure=WARNED)

    assert resolved.data is not None
    assert resolved.data.closed_at is not None
    assert [("critical", worse.at + STAYS_UP), ("warning", worse.at)] == sent(worse)
    assert [("critical", resolved.data.closed_at), ("warning", resolved.at)] == sent(resolved)
    assert (
        alerts(warned, warned.at)[0]["labels"]
        == alerts(worse, worse.at)[1]["labels"]
        == alerts(resolved, resolved.at)[1]["labels"]
    )
    assert [OPENED_AT] * 4 == [each["startsAt"] for each in (*alerts(worse, worse.at), *alerts(resolved, resolved.at))]


def test_annotations_say_what_it_is() -> None:
    annotations = alert(make_sent_notice())["annotations"]

    assert "web1" in annotations["summary"]
    assert "sockmem-agent incidents show" in annotations["description"]
    assert ("orphans", "certain") == (annotations["cause"], annotations["confidence"])


def test_an_open_incident_stays_up_and_a_resolved_one_has_ended() -> None:
    assert OPENED_AT + timedelta(days=7) == alert(make_sent_notice())["endsAt"]
    resolved = make_sent_notice("sockmem.incident.resolved")
    assert resolved.data is not None
    assert alert(resolved)["endsAt"] == resolved.data.closed_at


def test_an_open_incident_stays_up_however_soon_its_notices_are_given_up(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/api/v2/alerts", method="POST").respond_with_data("")
    urls = (httpserver.url_for("/"),)
    settings = AlertmanagerSettings(name="am", urls=urls)

    build(settings).notify(make_sent_notice())

    ((request, _),) = httpserver.log
    (posted,) = request.get_json()
    assert datetime.now(timezone.utc) + timedelta(days=6) < msgspec.convert(posted["endsAt"], datetime)


def test_an_alert_never_ends_before_it_starts() -> None:
    notice = make_sent_notice("sockmem.incident.resolved", closed_at=OPENED_AT - timedelta(hours=1))
    early = replace(make_sent_notice(pressure=WARNED), at=OPENED_AT - timedelta(hours=1))

    assert OPENED_AT == alert(notice)["endsAt"]
    assert OPENED_AT == alerts(early, early.at)[1]["endsAt"]


def test_a_test_is_another_alert_that_goes_away_by_itself() -> None:
    made = alert(make_sent_notice("sockmem.test"))

    assert "SockmemTest" == made["labels"]["alertname"]
    assert "info" == made["labels"]["severity"]
    assert made["endsAt"] - made["startsAt"] == timedelta(minutes=5)


# --- several instances ----------------------------------------------------------------------------------------------


def test_it_is_delivered_only_when_every_instance_took_it(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/a/api/v2/alerts", method="POST").respond_with_data("")
    httpserver.expect_request("/b/api/v2/alerts", method="POST").respond_with_data("", status=503)
    both = (httpserver.url_for("/a"), httpserver.url_for("/b/"))

    mixed = AlertmanagerNotifier(AlertmanagerSettings(name="am", urls=both)).notify(make_sent_notice())
    taken = AlertmanagerNotifier(AlertmanagerSettings(name="am", urls=both[:1])).notify(make_sent_notice())

    assert mixed == Retry(why=f"localhost:{httpserver.port}: HTTP 503")
    assert taken == Delivered(detail="taken by 1 of 1 instances")


def test_the_longest_retry_after_counts(httpserver: HTTPServer) -> None:
    for path, seconds in (("/a", "5"), ("/b", "50")):
        httpserver.expect_request(f"{path}/api/v2/alerts").respond_with_data(
            "", status=429, headers={"Retry-After": seconds}
        )
    urls = (httpserver.url_for("/a"), httpserver.url_for("/b"))

    delivery = AlertmanagerNotifier(AlertmanagerSettings(name="am", urls=urls)).notify(make_sent_notice())

    assert isinstance(delivery, Retry)
    assert 50.0 == delivery.after_seconds


def test_it_is_rejected_when_no_instance_is_worth_another_try(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/api/v2/alerts").respond_with_data("", status=400)

    delivery = AlertmanagerNotifier(AlertmanagerSettings(name="am", urls=(httpserver.url_for("/"),))).notify(
        make_sent_notice()
    )

    assert isinstance(delivery, Rejected)


def test_instances_that_hang_share_one_deadline(serve: Callable[[Handler], str]) -> None:
    urls = tuple(f"http://{serve(hang)}" for _ in range(4))
    notifier = AlertmanagerNotifier(AlertmanagerSettings(name="am", urls=urls), deadline_seconds=0.8)

    started = time.monotonic()
    delivery = notifier.notify(make_sent_notice())

    assert isinstance(delivery, Retry)
    assert time.monotonic() - started < 2


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ("/", "/api/v2/alerts"),
        ("", "/api/v2/alerts"),
        ("/am/", "/am/api/v2/alerts"),
        ("/api/v2/alerts", "/api/v2/alerts"),
        ("/?x=1#y", "/api/v2/alerts"),
    ],
)
def test_an_address_is_completed(httpserver: HTTPServer, given: str, asked: str) -> None:
    httpserver.expect_request(asked, method="POST").respond_with_data("")

    delivery = AlertmanagerNotifier(
        AlertmanagerSettings(name="am", urls=(f"http://localhost:{httpserver.port}{given}",))
    ).notify(make_sent_notice())

    assert isinstance(delivery, Delivered)


@pytest.mark.parametrize("urls", [(), ("am:9093",), ("http://[::1",), ("http://ok/", "")])
def test_a_bad_list_is_a_configuration_error(urls: tuple[str, ...]) -> None:
    with pytest.raises(ChannelError, match=r"^am: "):
        AlertmanagerNotifier(AlertmanagerSettings(name="am", urls=urls))


# --- the real one ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start Debian's Alertmanager on loopback."""
    program = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
    if program is None:
        pytest.skip("no Alertmanager here: apt-get install prometheus-alertmanager")
    directory = tmp_path_factory.mktemp("alertmanager")
    (directory / "config.yml").write_text("route: {receiver: nobody}\nreceivers: [{name: nobody}]\n")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                program,
                f"--config.file={directory / 'config.yml'}",
                f"--storage.path={directory / 'data'}",
                f"--web.listen-address={address}",
                "--cluster.listen-address=",
            ],
            stdout=log,
            stderr=log,
        )
        try:
            wait_until_ready(address, process, directory / "log")
            yield f"http://{address}"
        finally:
            process.terminate()
            process.wait(10)


def wait_until_ready(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://{address}/-/ready", timeout=1):
                return
        except OSError:
            threading.Event().wait(0.05)
    pytest.fail(f"Alertmanager did not start: {log.read_text()}")


def current(kind: NoticeType, incident_id: str, **changes: Any) -> Notice:
    """Make a notice of now: Alertmanager sorts by its own clock."""
    now = datetime.now(tz=timezone.utc)
    data = make_sent_incident(id=incident_id, opened_at=now - timedelta(minutes=1), **changes)
    return Notice(id=incident_id, type=kind, at=now, reason="", channels=("am",), data=data)


def shown_by(url: str, incident_id: str) -> list[Any]:
    with urllib.request.urlopen(f"{url}/api/v2/alerts?filter=incident=%22{incident_id}%22", timeout=5) as answer:
        found: list[Any] = json.load(answer)
    return found


def test_a_real_alertmanager_shows_the_alert_once_and_resolves_it(real: str) -> None:
    notifier = AlertmanagerNotifier(AlertmanagerSettings(name="am", urls=(real,)))

    opened = notifier.notify(current("sockmem.incident.opened", "one"))
    again = notifier.notify(current("sockmem.incident.updated", "one", cause="both"))
    shown = shown_by(real, "one")
    resolved = notifier.notify(current("sockmem.incident.resolved", "one", closed_at=datetime.now(tz=timezone.utc)))

    assert [Delivered(detail="taken by 1 of 1 instances")] * 3 == [opened, again, resolved]
    assert 1 == len(shown)
    assert "active" == shown[0]["status"]["state"]
    assert "both" == shown[0]["annotations"]["cause"]
    assert [] == shown_by(real, "one")


def test_a_real_alertmanager_shows_one_alert_when_a_warning_came_true_and_none_at_the_end(real: str) -> None:
    notifier = AlertmanagerNotifier(AlertmanagerSettings(name="am", urls=(real,)))

    def severities(notice: Notice) -> list[str]:
        assert isinstance(notifier.notify(notice), Delivered)
        return [each["labels"]["severity"] for each in shown_by(real, "three")]

    assert ["warning"] == severities(
        current("sockmem.incident.opened", "three", class_="pressure", pressure=WARNED, events={})
    )
    assert ["critical"] == severities(current("sockmem.incident.updated", "three", pressure=WARNED))
    assert [] == severities(
        current("sockmem.incident.resolved", "three", pressure=WARNED, closed_at=datetime.now(tz=timezone.utc))
    )


def test_a_real_alertmanager_takes_every_kind_of_notice(real: str) -> None:
    notifier = AlertmanagerNotifier(AlertmanagerSettings(name="am", urls=(real,)))
    bare = current("sockmem.incident.opened", "two", host=None, kernel=None, events={})

    for notice in (make_sent_notice("sockmem.test"), make_sent_notice("sockmem.incident.resolved"), bare):
        assert isinstance(notifier.notify(notice), Delivered)


def test_an_alert_that_is_taken_weeks_late_is_not_an_ended_one() -> None:
    late = OPENED_AT + timedelta(days=20)
    assert late + timedelta(days=7) == alerts(make_sent_notice(), late)[0]["endsAt"]
