import base64
import json
from datetime import datetime, timezone
from pathlib import Path

import msgspec
import pytest
from material import make_sent_notice
from pytest_httpserver import HTTPServer
from standardwebhooks import Webhook

from agent.core.delivery import Delivered, Retry
from agent.core.model import Incident
from agent.core.settings import WebhookSettings
from agent.notifiers import ChannelError
from agent.notifiers.body import encode
from agent.notifiers.webhook import WebhookNotifier, sign

KEY = bytes(range(32))
SECRET = "whsec_" + base64.b64encode(KEY).decode()


def signed(url: str, directory: Path, secret: bytes = SECRET.encode()) -> WebhookSettings:
    file = directory / "secret"
    file.write_bytes(secret)
    return WebhookSettings(name="ops", url=url, secret_file=str(file))


def test_the_standards_own_library_verifies_the_signature(httpserver: HTTPServer, tmp_path: Path) -> None:
    httpserver.expect_request("/hook", method="POST").respond_with_data("", status=204)
    notice = make_sent_notice()

    delivery = WebhookNotifier(signed(httpserver.url_for("/hook"), tmp_path)).notify(notice)

    assert delivery == Delivered(detail="HTTP 204")
    request = httpserver.log[0][0]
    verified = Webhook(SECRET).verify(request.get_data(), dict(request.headers))
    assert "sockmem.incident.opened" == verified["type"]
    assert notice.id == request.headers["webhook-id"]
    assert "application/json" == request.headers["Content-Type"]


def test_a_retry_has_the_same_id_and_body_and_a_fresh_timestamp(httpserver: HTTPServer, tmp_path: Path) -> None:
    httpserver.expect_request("/hook").respond_with_data("", status=503, headers={"Retry-After": "9"})
    moments = iter(
        [datetime(2026, 11, 22, 15, 6, tzinfo=timezone.utc), datetime(2026, 11, 22, 15, 7, tzinfo=timezone.utc)]
    )
    notifier = WebhookNotifier(signed(httpserver.url_for("/hook"), tmp_path), now=lambda: next(moments))

    deliveries = [notifier.notify(make_sent_notice()) for _ in range(2)]

    assert [Retry(why="HTTP 503", after_seconds=9.0)] * 2 == deliveries
    first, second = (request for request, _ in httpserver.log)
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.get_data() == second.get_data()
    assert 60 == int(second.headers["webhook-timestamp"]) - int(first.headers["webhook-timestamp"])
    assert first.headers["webhook-signature"] != second.headers["webhook-signature"]


def test_without_a_secret_nothing_is_signed(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/hook").respond_with_data("")

    WebhookNotifier(WebhookSettings(name="ops", url=httpserver.url_for("/hook"))).notify(make_sent_notice())

    assert "webhook-signature" not in httpserver.log[0][0].headers


def test_data_is_the_content_of_incident_json() -> None:
    notice = make_sent_notice("sockmem.incident.resolved")
    body = json.loads(encode(notice))

    assert {"type", "timestamp", "data"} == set(body)
    assert "2026-11-22T15:22:39Z" == body["timestamp"]
    assert notice.data == msgspec.convert(body["data"], Incident)
    assert "event" == body["data"]["class"]


def test_labels_and_the_runbook_stand_in_data_where_they_are_configured(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/hook").respond_with_data("")
    settings = WebhookSettings(
        name="ops", url=httpserver.url_for("/hook"), labels={"team": "net"}, runbook_url="https://wiki.example/sockmem"
    )

    for kind in ("sockmem.incident.opened", "sockmem.digest", "sockmem.test"):
        WebhookNotifier(settings).notify(make_sent_notice(kind))

    sent = [json.loads(request.get_data()) for request, _ in httpserver.log]
    plain = [json.loads(encode(make_sent_notice(body["type"]))) for body in sent]
    added = {"labels": {"team": "net"}, "runbook_url": "https://wiki.example/sockmem"}
    assert [body | {"data": body["data"] | added} for body in plain] == sent


def test_a_digest_has_since_count_and_ids() -> None:
    body = json.loads(encode(make_sent_notice("sockmem.digest")))

    assert {"type": "sockmem.digest", "timestamp": "2026-11-22T15:05:39Z"} == {
        key: body[key] for key in body if key != "data"
    }
    assert {"since", "count", "ids"} == set(body["data"])
    assert ("2026-11-22T14:05:39Z", 37, 37) == (body["data"]["since"], body["data"]["count"], len(body["data"]["ids"]))


def test_a_test_is_marked_as_one() -> None:
    body = json.loads(encode(make_sent_notice("sockmem.test")))

    assert "sockmem.test" == body["type"]
    assert body["data"]["test"] is True


def test_the_signature_is_that_of_the_specifications_example() -> None:
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'

    signature = sign(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)

    assert "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=" == signature


@pytest.mark.parametrize("text", [SECRET, SECRET + "\n", SECRET + "\r\n", f"  {SECRET}\n\n"])
def test_a_secret_is_read_whatever_the_editor_put_behind_it(tmp_path: Path, text: str, httpserver: HTTPServer) -> None:
    httpserver.expect_request("/hook").respond_with_data("")

    WebhookNotifier(signed(httpserver.url_for("/hook"), tmp_path, text.encode())).notify(make_sent_notice())

    request = httpserver.log[0][0]
    assert Webhook(SECRET).verify(request.get_data(), dict(request.headers))


@pytest.mark.parametrize("text", [b"", b"whsec_", b"c2VjcmV0", b"whsec_s3cr3t!", b"whsec_c2VjcmV", b"\xff\xfes3cr3t"])
def test_a_bad_secret_is_told_without_quoting_it(tmp_path: Path, text: bytes) -> None:
    with pytest.raises(ChannelError) as caught:
        WebhookNotifier(signed("http://127.0.0.1:9/", tmp_path, text))
    assert str(caught.value).startswith(f"ops: secret_file {tmp_path}/secret: ")
    assert str(caught.value).endswith((": expected whsec_ and base64", ": not text"))
    assert "s3cr3t" not in str(caught.getrepr(style="short"))


def test_a_secret_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    settings = signed("http://127.0.0.1:9/", tmp_path)
    (tmp_path / "secret").unlink()

    with pytest.raises(ChannelError, match=r"ops: secret_file .*: No such file or directory"):
        WebhookNotifier(settings)
