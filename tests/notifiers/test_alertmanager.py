import json
import socket
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any

import msgspec
import pytest
from harness import Handler, hang, read_request
from material import OPENED_AT, make_sent_notice
from pytest_httpserver import HTTPServer

from agent.core.delivery import Delivered, Rejected, Retry
from agent.core.model import Notice, Pressure, Standing
from agent.core.settings import AlertmanagerSettings
from agent.notifiers import ChannelError
from agent.notifiers.alertmanager import AlertmanagerNotifier, alerts

WARNED = Pressure(level=2, cause="orphans", claim="orphans above a quarter of their limit", value=40_000, limit=32_768)
NOW = OPENED_AT + timedelta(hours=2)


def table(*urls: str, **keys: Any) -> AlertmanagerSettings:
    return AlertmanagerSettings(name="am", urls=urls, **keys)


def standing(kind: str = "opened", *severities: str, **changes: Any) -> Standing:
    """Make what a courier shows a state channel."""
    notice = make_sent_notice(f"sockmem.incident.{kind}", **changes)  # type: ignore[arg-type]
    fields = {name: getattr(notice, name) for name in notice.__struct_fields__}
    shown: Any = severities or ("critical",)
    return Standing(**fields, severities=shown, opening_cause="orphans")


def alert(notice: Notice, **keys: Any) -> dict[str, Any]:
    (only,) = alerts(notice, table("http://h", **keys), NOW)
    return only


def sent(notice: Notice, now: datetime = NOW) -> list[tuple[str, datetime]]:
    return [(each["labels"]["severity"], each["endsAt"]) for each in alerts(notice, table("http://h"), now)]


# --- the alert ------------------------------------------------------------------------------------------------------


def test_labels_are_the_same_from_opened_to_resolved_whatever_the_cause_became() -> None:
    opened = alert(standing(cause="orphans"), labels={"team": "net"})
    updated = alert(standing("updated", cause="both", confidence="likely"), labels={"team": "net"})
    resolved = alert(standing("resolved", cause="tcp_memory"), labels={"team": "net"})

    expected = {
        "alertname": "SockmemIncident",
        "severity": "critical",
        "host": "web1",
        "instance": "web1",
        "cause": "orphans",
        "incident": "20261122T150539Z-7f3a",
        "team": "net",
    }
    assert [expected] * 3 == [each["labels"] for each in (opened, updated, resolved)]
    assert [OPENED_AT] * 3 == [each["startsAt"] for each in (opened, updated, resolved)]


def test_a_warning_that_became_critical_keeps_firing_beside_it_and_both_end_together() -> None:
    resolved = standing("resolved", "warning", "critical")

    assert resolved.data is not None
    assert [("warning", NOW + timedelta(minutes=4))] == sent(standing("opened", "warning"))
    assert [("warning", NOW + timedelta(minutes=4)), ("critical", NOW + timedelta(minutes=4))] == sent(
        standing("updated", "warning", "critical")
    )
    assert [("warning", resolved.data.closed_at), ("critical", resolved.data.closed_at)] == sent(resolved)


def test_no_time_is_later_than_the_receivers_clock_and_no_alert_ends_before_it_starts() -> None:
    early = OPENED_AT - timedelta(hours=2)
    (opened,) = alerts(standing(), table("http://h"), early)
    (resolved,) = alerts(standing("resolved"), table("http://h"), early)
    backwards = alert(standing("resolved", closed_at=OPENED_AT - timedelta(hours=1)))

    assert (early, early + timedelta(minutes=4)) == (opened["startsAt"], opened["endsAt"])
    assert (early, early) == (resolved["startsAt"], resolved["endsAt"])
    assert backwards["startsAt"] == backwards["endsAt"]


def test_annotations_say_what_who_and_the_first_command_in_400_bytes() -> None:
    summary = "Die Verbindungen häufen sich. " * 40
    annotations = alert(standing(summary=summary), runbook_url="https://wiki/sockmem")["annotations"]

    assert "web1" in annotations["summary"]
    assert len(annotations["description"].encode()) <= 400
    assert annotations["description"].endswith("… First: sysctl -w net.ipv4.tcp_max_orphans=524288")
    assert "https://wiki/sockmem" == annotations["runbook_url"]
    assert "runbook_url" not in alert(standing())["annotations"]


def test_a_test_is_another_alert_that_goes_away_by_itself() -> None:
    made = alert(make_sent_notice("sockmem.test"))

    assert "SockmemTest" == made["labels"]["alertname"]
    assert "info" == made["labels"]["severity"]
    assert made["endsAt"] - made["startsAt"] == timedelta(minutes=5)


# --- the receiver's clock -------------------------------------------------------------------------------------------


class Instance:
    """An Alertmanager whose clock is another, or which says so; it keeps what it was sent."""

    def __init__(self, serve: Callable[[Handler], str], ahead: timedelta, date: str = "") -> None:
        self.alerts: list[dict[str, Any]] = []
        self.ahead, self.date = ahead, date
        self.url = f"http://{serve(self.take)}/"

    def now(self) -> datetime:
        return datetime.now(timezone.utc) + self.ahead

    def take(self, connection: socket.socket) -> None:
        self.alerts += json.loads(read_request(connection).partition(b"\r\n\r\n")[2])
        date = (self.date or format_datetime(self.now(), usegmt=True)).encode()
        connection.sendall(b"HTTP/1.1 200 OK\r\nDate: %b\r\nContent-Length: 0\r\n\r\n" % date)

    def times(self, name: str) -> list[datetime]:
        return [msgspec.convert(each[name], datetime) for each in self.alerts]


@pytest.mark.parametrize("hours", [-2, 0, 2])
def test_from_the_first_post_on_the_times_are_those_of_the_receivers_clock(
    serve: Callable[[Handler], str], hours: int
) -> None:
    instance = Instance(serve, timedelta(hours=hours))
    notifier = AlertmanagerNotifier(table(instance.url))
    now = datetime.now(timezone.utc)
    for kind, closed_at in (("opened", None), ("resolved", now)):
        assert isinstance(notifier.show(standing(kind, opened_at=now, closed_at=closed_at), 0), Delivered)

    assert all(start <= instance.now() for start in instance.times("startsAt"))
    opened, resolved = instance.times("endsAt")
    assert abs(opened - instance.now() - timedelta(minutes=4)) < timedelta(seconds=10)
    assert resolved <= instance.now()


def test_a_clock_that_is_set_between_two_posts_ends_no_alert(serve: Callable[[Handler], str]) -> None:
    instance, set_by = Instance(serve, timedelta(0)), [timedelta(hours=2)]
    notifier = AlertmanagerNotifier(table(instance.url), now=lambda: datetime.now(timezone.utc) + set_by[0])
    notifier.show(standing(), 0)
    set_by[0] = timedelta(hours=-2)
    notifier.show(standing(), 0)

    assert all(end > instance.now() + timedelta(minutes=3) for end in instance.times("endsAt"))


@pytest.mark.parametrize("date", ["Fri, 31 Dec 9999 23:59:59 GMT", "Mon, 01 Jan 99999999999999 00:00:00 GMT", "soon"])
def test_a_date_that_no_clock_shows_is_none_and_ours_has_to_do(serve: Callable[[Handler], str], date: str) -> None:
    instance = Instance(serve, timedelta(0), date)
    notifier = AlertmanagerNotifier(table(instance.url))

    assert [Delivered(detail=f"taken by {instance.url[7:-1]}")] * 2 == [notifier.show(standing(), 0) for _ in range(2)]
    assert all(timedelta(minutes=3) < end - instance.now() < timedelta(minutes=5) for end in instance.times("endsAt"))


def test_an_answer_without_a_date_leaves_the_receivers_clock_as_it_was_known(serve: Callable[[Handler], str]) -> None:
    instance = Instance(serve, timedelta(0))
    notifier = AlertmanagerNotifier(table(instance.url), now=lambda: datetime.now(timezone.utc) + timedelta(days=2))
    for date in ("", "soon", "soon"):
        instance.date = date
        notifier.show(standing("resolved", closed_at=datetime.now(timezone.utc) + timedelta(days=2)), 0)

    assert all(end <= instance.now() for end in instance.times("endsAt"))


# --- several instances ----------------------------------------------------------------------------------------------


def test_each_instance_is_shown_the_alert_by_itself_and_a_test_all_of_them(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/a/api/v2/alerts", method="POST").respond_with_data("")
    httpserver.expect_request("/b/api/v2/alerts", method="POST").respond_with_data(
        "", status=503, headers={"Retry-After": "50"}
    )
    notifier, place = AlertmanagerNotifier(table(httpserver.url_for("/a"), httpserver.url_for("/b/"))), httpserver.port

    assert Delivered(detail=f"taken by localhost:{place}") == notifier.show(standing(), 0)
    assert Retry(why=f"localhost:{place}: HTTP 503", after_seconds=50.0) == notifier.show(standing(), 1)
    assert Retry(why=f"localhost:{place}: HTTP 503") == notifier.notify(make_sent_notice("sockmem.test"))
    both = AlertmanagerNotifier(table(httpserver.url_for("/a"), httpserver.url_for("/a")))
    assert Delivered(detail="taken by 2 of 2 instances") == both.notify(make_sent_notice("sockmem.test"))


def test_it_is_rejected_when_no_instance_is_worth_another_try(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/api/v2/alerts").respond_with_data("", status=400)

    delivery = AlertmanagerNotifier(table(httpserver.url_for("/"))).notify(make_sent_notice())

    assert isinstance(delivery, Rejected)


def test_instances_that_hang_share_one_deadline(serve: Callable[[Handler], str]) -> None:
    urls = tuple(f"http://{serve(hang)}" for _ in range(4))
    notifier = AlertmanagerNotifier(table(*urls), deadline_seconds=0.8)

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

    delivery = AlertmanagerNotifier(table(f"http://localhost:{httpserver.port}{given}")).notify(make_sent_notice())

    assert isinstance(delivery, Delivered)


@pytest.mark.parametrize("urls", [("am:9093",), ("http://[::1",), ("http://ok/", "")])
def test_a_bad_list_is_a_configuration_error(urls: tuple[str, ...]) -> None:
    with pytest.raises(ChannelError, match=r"^am: "):
        AlertmanagerNotifier(table(*urls))
