import json
import platform
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from harness import schema_errors
from pytest_httpserver import HTTPServer

from agent.cli import group

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run ``notify test`` with this configuration."""
    path = tmp_path / "config.toml"

    def invoke(config: str, *args: str) -> Result:
        path.write_text(config)
        return CliRunner().invoke(group, ["notify", "test", "--config", str(path), *args])

    return invoke


def channel(name: str, kind: str, **keys: str) -> str:
    lines = [f'{key} = "{value}"' for key, value in ({"name": name, "type": kind} | keys).items()]
    return "\n".join(["[[notify]]", *lines, ""])


def test_without_channels_it_is_standard_output(run: Run) -> None:
    result = run("")

    assert 0 == result.exit_code
    assert "test notification" in result.stdout
    assert "stdout (stdout): delivered: printed" in result.stdout


def test_a_receiver_that_takes_it_is_exit_status_0(run: Run, httpserver: HTTPServer) -> None:
    httpserver.expect_request("/hook", method="POST").respond_with_data("", status=204)

    result = run(channel("ops", "webhook", url=httpserver.url_for("/hook")))

    assert (0, "") == (result.exit_code, result.stderr)
    assert result.stdout.startswith("ops (webhook): delivered: ")
    (request, _) = httpserver.log[0]
    assert "sockmem.test" == request.get_json()["type"]
    assert request.headers["webhook-id"].startswith("test-")


def test_the_exit_status_of_a_command_is_known_whatever_the_parent_does_with_its_own_children(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('[[notify]]\nname = "script"\ntype = "command"\ncommand = ["/bin/true"]\n')
    program = [sys.executable, "-m", "agent", "notify", "test", "--config", str(path)]
    # What is ignored stays so over execve(2), and then nobody's exit status is kept (wait(2)).
    ignored = ["env", "--ignore-signal=CHLD", *program]
    result = subprocess.run(ignored, capture_output=True, text=True, check=False)

    assert (0, "script (command): delivered: exit status 0\n") == (result.returncode, result.stdout)


def test_every_channel_is_tried_and_one_failure_is_exit_status_1(run: Run, httpserver: HTTPServer) -> None:
    httpserver.expect_request("/busy").respond_with_data("", status=503)
    httpserver.expect_request("/gone").respond_with_data("", status=410)
    httpserver.expect_request("/good").respond_with_data("", status=200)
    config = "".join(channel(name, "webhook", url=httpserver.url_for(f"/{name}")) for name in ("busy", "gone", "good"))

    result = run(config)

    lines = result.stdout.splitlines()
    assert 1 == result.exit_code
    assert ["busy (webhook)", "gone (webhook)", "good (webhook)"] == [line.split(":")[0] for line in lines]
    assert "NOT delivered" in lines[0]
    assert "would retry" in lines[0]
    assert "retrying will not help" in lines[1]
    assert " delivered: " in lines[2]


def test_a_surprise_in_one_channel_is_named_and_the_next_is_tried(
    run: Run, httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    httpserver.expect_request("/good").respond_with_data("ok", status=200)

    def slip(*args: object, **kwargs: object) -> None:
        raise KeyError("T0ken")

    monkeypatch.setattr("agent.notifiers.slack.message", slip)
    result = run(
        channel("bad", "slack", url="http://127.0.0.1:9/T0ken")
        + channel("good", "webhook", url=httpserver.url_for("/good"))
    )

    assert 1 == result.exit_code
    assert "bad (slack): NOT delivered: unexpected KeyError in test_notify.py:" in result.stdout
    assert "good (webhook): delivered" in result.stdout
    assert "T0ken" not in result.output


def test_one_channel_can_be_chosen(run: Run, httpserver: HTTPServer) -> None:
    httpserver.expect_request("/b").respond_with_data("", status=200)
    config = channel("a", "webhook", url=httpserver.url_for("/a")) + channel(
        "b", "webhook", url=httpserver.url_for("/b")
    )

    result = run(config, "--channel", "b")

    assert 0 == result.exit_code
    assert ["/b"] == [request.path for request, _ in httpserver.log]


def test_an_unknown_channel_is_one_line_that_names_the_known(run: Run) -> None:
    result = run(channel("ops", "stdout"), "--channel", "opps")

    assert (1, "") == (result.exit_code, result.stdout)
    assert "sockmem-agent: no channel 'opps'; configured channels: ops\n" == result.stderr


def test_json_is_one_document_even_beside_the_stdout_channel(run: Run, httpserver: HTTPServer) -> None:
    httpserver.expect_request("/x").respond_with_data("", status=500)

    result = run(channel("term", "stdout") + channel("x", "webhook", url=httpserver.url_for("/x")), "--json")

    document = json.loads(result.stdout)
    assert 1 == result.exit_code
    assert [("term", "delivered"), ("x", "retry")] == [(c["channel"], c["outcome"]) for c in document["channels"]]
    assert "test notification" in result.stderr


def test_nobody_listening_is_one_line_without_the_url(run: Run) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        result = run(channel("ops", "slack", url=f"http://127.0.0.1:{port}/services/verysecret"))

    assert 1 == result.exit_code
    assert "ops (slack): NOT delivered" in result.stdout
    assert "verysecret" not in result.output
    assert 1 == len(result.stdout.splitlines())


def test_a_bad_configuration_sends_nothing_and_says_every_mistake(run: Run, httpserver: HTTPServer) -> None:
    result = run(channel("ops", "webhook", url=httpserver.url_for("/x")) + "[incident]\nquiet_seconds = 0\nfoo = 1\n")

    assert (1, 2) == (result.exit_code, len(result.stderr.splitlines()))
    assert [] == httpserver.log


@pytest.mark.parametrize("args", [[], ["test"]])
def test_every_help_of_notify_has_an_example(args: list[str]) -> None:
    result = CliRunner().invoke(group, ["notify", *args, "--help"])

    assert 0 == result.exit_code
    assert "Example: sockmem-agent notify test" in result.stdout


# --- a whole incident -----------------------------------------------------------------------------------------------


def bodies(httpserver: HTTPServer, path: str) -> list[Any]:
    return [request.get_json() for request, _ in httpserver.log if request.path == path]


def test_a_test_incident_opens_changes_and_ends_in_every_channel(run: Run, httpserver: HTTPServer) -> None:
    httpserver.expect_request("/hook").respond_with_data("")
    httpserver.expect_request("/slack").respond_with_data("ok")
    httpserver.expect_request("/api/v2/alerts").respond_with_data("")
    result = run(
        channel("hook", "webhook", url=httpserver.url_for("/hook"))
        + channel("team", "slack", url=httpserver.url_for("/slack"))
        + f'[[notify]]\nname = "alerts"\ntype = "alertmanager"\nurls = ["{httpserver.url_for("/")}"]\n'
        + channel("term", "stdout"),
        "--incident",
    )
    told = bodies(httpserver, "/hook")
    alerts = [alert for alerts in bodies(httpserver, "/api/v2/alerts") for alert in alerts]
    texts = [json.dumps(body) for body in (*told, *bodies(httpserver, "/slack"), *alerts)]

    assert (0, "") == (result.exit_code, result.stderr)
    assert ["opened", "updated", "resolved"] == [body["type"].rpartition(".")[2] for body in told]
    assert 12 == sum(" delivered: " in line for line in result.stdout.splitlines())
    assert 1 == len({body["data"]["id"] for body in told} | {alert["labels"]["incident"] for alert in alerts})
    assert [] == [text for text in texts if "TEST, nothing is wrong" not in text]
    assert alerts[-1]["endsAt"] <= told[-1]["data"]["closed_at"]
    assert 3 == result.stdout.count("\nTEST, nothing is wrong: ") + result.stdout.startswith("TEST, nothing is wrong: ")


def test_a_test_incident_is_an_incident_as_any_other_but_for_its_mark(run: Run, httpserver: HTTPServer) -> None:
    httpserver.expect_request("/hook").respond_with_data("")
    run(channel("hook", "webhook", url=httpserver.url_for("/hook")), "--incident")
    opened, updated, resolved = (body["data"] for body in bodies(httpserver, "/hook"))

    assert [[], [], []] == [
        schema_errors("incident", json.dumps(data).encode()) for data in (opened, updated, resolved)
    ]
    assert opened["id"].startswith("test-")
    assert [1, 10, 10] == [sum(data["events"].values()) for data in (opened, updated, resolved)]
    assert resolved["closed_at"] >= resolved["opened_at"]
    assert platform.node() == opened["host"]


def test_nothing_of_a_test_incident_is_stored(run: Run, tmp_path: Path) -> None:
    run(f'[store]\ndirectory = "{tmp_path}/state"\n', "--incident")

    assert not (tmp_path / "state").exists()


def test_an_incident_that_one_channel_does_not_take_is_exit_status_1(run: Run, httpserver: HTTPServer) -> None:
    httpserver.expect_ordered_request("/hook").respond_with_data("")
    httpserver.expect_ordered_request("/hook").respond_with_data("", status=503)
    httpserver.expect_ordered_request("/hook").respond_with_data("")
    result = run(channel("hook", "webhook", url=httpserver.url_for("/hook")), "--incident", "--json")
    outcomes = [(each["notice"], each["outcome"]) for each in json.loads(result.stdout)["channels"]]

    assert 1 == result.exit_code
    assert [("opened", "delivered"), ("updated", "retry"), ("resolved", "delivered")] == outcomes


def test_a_test_incident_keeps_to_the_keys_of_a_channel(run: Run, httpserver: HTTPServer) -> None:
    httpserver.expect_request("/hook").respond_with_data("")
    config = channel("hook", "webhook", url=httpserver.url_for("/hook")) + "updates = false\nresolved = false\n"

    assert 0 == run(config, "--incident").exit_code
    assert ["sockmem.incident.opened"] == [body["type"] for body in bodies(httpserver, "/hook")]


def test_a_test_incident_can_be_held_open(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[int] = []
    monkeypatch.setattr("agent.cli.notify.time.sleep", slept.append)

    assert 0 == run("", "--incident", "--hold", "45").exit_code
    assert [45] == slept
    assert 2 == run("", "--hold", "45").exit_code


def test_ctrl_c_while_a_test_incident_is_held_open_resolves_it(
    run: Run, monkeypatch: pytest.MonkeyPatch, httpserver: HTTPServer
) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("agent.cli.notify.time.sleep", interrupt)
    httpserver.expect_request("/hook").respond_with_data("")

    run(channel("hook", "webhook", url=httpserver.url_for("/hook")), "--incident", "--hold", "600")

    assert "sockmem.incident.resolved" == bodies(httpserver, "/hook")[-1]["type"]
