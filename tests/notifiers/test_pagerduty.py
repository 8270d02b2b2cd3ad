import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import Handler, read_request
from material import make_sent_notice

from agent.core.delivery import Delivered, Rejected, Retry
from agent.core.settings import PagerDutySettings
from agent.notifiers import ChannelError
from agent.notifiers.pagerduty import PagerDutyNotifier, event

KEY = "0123456789abcdef0123456789abcdef"


class PagerDuty:
    """Answers as its documentation says: 202 for a valid event, 400 for any other, 429 when it was told to."""

    def __init__(self, serve: Callable[[Handler], str]) -> None:
        self.events: list[dict[str, Any]] = []
        self.busy = 0
        self.url = f"http://{serve(self.take)}/v2/enqueue"

    def take(self, connection: socket.socket) -> None:
        head, _, body = read_request(connection).partition(b"\r\n\r\n")
        sent = json.loads(body)
        if self.busy:
            self.busy -= 1
            connection.sendall(b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n")
            return
        is_valid = head.startswith(b"POST /v2/enqueue ") and sent["routing_key"] == KEY and faults(sent) == []
        self.events += [sent] if is_valid else []
        connection.sendall(b"HTTP/1.1 %b\r\nContent-Length: 0\r\n\r\n" % (b"202 Accepted" if is_valid else b"400 Bad"))


def faults(sent: dict[str, Any]) -> list[str]:
    """Say what the Events API v2 would not take."""
    payload = sent.get("payload", {})
    wrong = {
        "action": sent["event_action"] not in {"trigger", "resolve"},
        "key": not 0 < len(sent["dedup_key"]) <= 255,
        "size": len(json.dumps(sent)) > 512 * 1024,
        "severity": payload.get("severity", "info") not in {"critical", "error", "warning", "info"},
        "summary": sent["event_action"] == "trigger" and not 0 < len(payload["summary"]) <= 1024,
        "source": sent["event_action"] == "trigger" and not payload["source"],
    }
    return [name for name, is_wrong in wrong.items() if is_wrong]


@pytest.fixture
def pagerduty(serve: Callable[[Handler], str]) -> PagerDuty:
    return PagerDuty(serve)


@pytest.fixture
def table(tmp_path: Path, pagerduty: PagerDuty) -> PagerDutySettings:
    path = tmp_path / "key"
    path.write_text(f"{KEY}\n")
    return PagerDutySettings(
        name="oncall",
        url=pagerduty.url,
        routing_key_file=str(path),
        labels={"team": "net"},
        runbook_url="https://wiki/sockmem",
    )


def test_an_incident_is_triggered_updated_and_resolved_under_one_key(
    pagerduty: PagerDuty, table: PagerDutySettings
) -> None:
    notifier = PagerDutyNotifier(table)
    for kind, changes in (
        ("opened", {"class_": "pressure"}),
        ("updated", {}),
        ("resolved", {}),
    ):
        notice = make_sent_notice(f"sockmem.incident.{kind}", **changes)  # type: ignore[arg-type]
        assert isinstance(notifier.show(notice, 0), Delivered)

    assert ["trigger", "trigger", "resolve"] == [each["event_action"] for each in pagerduty.events]
    assert {"web1/20261122T150539Z-7f3a"} == {each["dedup_key"] for each in pagerduty.events}
    assert ["warning", "critical"] == [each["payload"]["severity"] for each in pagerduty.events[:2]]


def test_an_event_says_what_where_and_what_to_do(table: PagerDutySettings) -> None:
    sent = event(make_sent_notice(), table)

    assert ("web1", "orphans", "2026-11-22T15:05:39Z") == (
        sent["payload"]["source"],
        sent["payload"]["class"],
        sent["payload"]["timestamp"].strftime("%Y-%m-%dT%H:%M:%SZ"),
    )
    assert "web1" in sent["payload"]["summary"]
    details = sent["payload"]["custom_details"]
    assert ("net", "20261122T150539Z-7f3a") == (details["team"], details["incident"])
    assert "sysctl -w net.ipv4.tcp_max_orphans=524288" in details["details"]
    assert [{"href": "https://wiki/sockmem", "text": "Runbook"}] == sent["links"]


def test_a_busy_pagerduty_names_its_time_and_a_wrong_key_is_refused(
    pagerduty: PagerDuty, table: PagerDutySettings
) -> None:
    pagerduty.busy = 1
    assert Retry(why="HTTP 429", after_seconds=7.0) == PagerDutyNotifier(table).notify(make_sent_notice())
    Path(table.routing_key_file).write_text("another\n")

    why = "HTTP 400: the integration key is wrong (routing_key_file), or the event is invalid"
    assert Rejected(why=why) == PagerDutyNotifier(table).notify(make_sent_notice())


def test_a_test_leaves_nothing_open(pagerduty: PagerDuty, table: PagerDutySettings) -> None:
    assert isinstance(PagerDutyNotifier(table).notify(make_sent_notice("sockmem.test")), Delivered)

    assert ["trigger", "resolve"] == [each["event_action"] for each in pagerduty.events]
    assert 1 == len({each["dedup_key"] for each in pagerduty.events})
    assert "info" == pagerduty.events[0]["payload"]["severity"]


@pytest.mark.parametrize("name", ["h" * 500, "ü" * 64, None])
def test_long_and_missing_names_are_still_valid_events(
    pagerduty: PagerDuty, table: PagerDutySettings, name: str | None
) -> None:
    notices = [make_sent_notice(host=name, summary="ü" * 5000)]
    notices.append(make_sent_notice("sockmem.incident.resolved", host=name))

    assert all(isinstance(PagerDutyNotifier(table).notify(notice), Delivered) for notice in notices)
    assert 1 == len({each["dedup_key"] for each in pagerduty.events})


def test_a_key_that_cannot_be_read_is_a_configuration_error(table: PagerDutySettings) -> None:
    Path(table.routing_key_file).unlink()

    with pytest.raises(ChannelError, match=r"^oncall: routing_key_file .*: No such file or directory$"):
        PagerDutyNotifier(table)


def test_no_text_or_answer_has_the_key(pagerduty: PagerDuty, table: PagerDutySettings) -> None:
    notice = make_sent_notice()
    notifier = PagerDutyNotifier(table)

    assert KEY not in repr((notifier.notify(notice), event(notice, table), table))
