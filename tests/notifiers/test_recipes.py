"""The recipes of docs/notifications.md as they stand there: the real Apprise, curl and jq, and servers on loopback."""

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec.toml
import pytest
from material import make_sent_notice
from pytest_httpserver import HTTPServer

from agent.core.delivery import Delivered, Retry
from agent.core.model import Advice, Diagnosis
from agent.core.report import body_text, title
from agent.core.settings import CommandSettings
from agent.notifiers.command import CommandNotifier

DOCUMENT = Path(__file__).parents[2] / "docs" / "notifications.md"
HOSTILE = """web1"; id; $(id) [x](https://evil.example) <b> *x*"""
NOTICE = make_sent_notice(host=HOSTILE, summary=HOSTILE)
TEXT = f"{title(NOTICE)}\n\n{body_text(NOTICE)}"


@pytest.fixture
def recipe(tmp_path: Path) -> Callable[[str, str], CommandNotifier]:
    """Make the channel of a recipe, with its file in the test's folder."""

    def make(name: str, content: str) -> CommandNotifier:
        section = DOCUMENT.read_text().partition("## Recipes")[2].partition("\n## ")[0]
        tables = [
            msgspec.toml.decode(block)["notify"][0] for block in re.findall(r"```toml\n(.*?)```", section, re.DOTALL)
        ]
        (table,) = [table for table in tables if table["name"] == name]
        (file,) = re.findall(r"/etc/sockmem-agent/(\S+)", " ".join(table["command"]))
        (tmp_path / file).write_text(content)
        apprise = str(Path(sys.executable).with_name("apprise"))
        places = {"/etc/sockmem-agent": str(tmp_path), "/usr/bin/apprise": apprise}
        words = [re.sub("|".join(places), lambda found: places[found[0]], word) for word in table["command"]]
        missing = [tool for tool in ("curl", "jq") if tool in words[-1] and shutil.which(tool) is None]
        if missing or (name == "apprise" and not Path(apprise).exists()):
            pytest.skip(f"not installed here: {missing or name}")
        return CommandNotifier(CommandSettings(name=name, command=tuple(words), input=table["input"]))

    return make


def test_ntfy_gets_title_and_text(recipe, httpserver: HTTPServer) -> None:
    httpserver.expect_request("/TOPIC", method="POST").respond_with_json({"id": "x", "event": "message"})

    delivery = recipe("ntfy", f'url = "{httpserver.url_for("/TOPIC")}"\n').notify(NOTICE)

    assert delivery == Delivered(detail="exit status 0")
    request = httpserver.log[0][0]
    assert title(NOTICE) == request.headers["Title"]
    assert TEXT == request.get_data().decode()


def test_teams_gets_a_card_whose_text_is_no_markdown(recipe, httpserver: HTTPServer) -> None:
    httpserver.expect_request("/workflow", method="POST").respond_with_data("", status=202)

    delivery = recipe("teams", f'url = "{httpserver.url_for("/workflow")}?sig=T0ken"\n').notify(NOTICE)

    assert delivery == Delivered(detail="exit status 0")
    request = httpserver.log[0][0]
    assert "application/json" == request.headers["Content-Type"]
    (attachment,) = request.json["attachments"]
    assert ("message", "application/vnd.microsoft.card.adaptive") == (request.json["type"], attachment["contentType"])
    (block,) = attachment["content"]["body"]
    assert ("AdaptiveCard", "RichTextBlock") == (attachment["content"]["type"], block["type"])
    assert [{"type": "TextRun", "text": TEXT, "fontType": "Monospace"}] == block["inlines"]


def test_telegram_gets_plain_text_within_its_limit(recipe, httpserver: HTTPServer) -> None:
    httpserver.expect_request("/botT0ken/sendMessage", method="POST").respond_with_json({"ok": True})
    advice = Advice(action="Look", why="", risk="", commands=("€" * 1000,) * 6)
    diagnosis = Diagnosis(cause="orphans", confidence="certain", summary="", advice=(advice,))
    long = make_sent_notice(diagnosis=diagnosis)
    channel = recipe("telegram", f'url = "{httpserver.url_for("/botT0ken/sendMessage")}"\n')

    assert [Delivered(detail="exit status 0")] * 2 == [channel.notify(NOTICE), channel.notify(long)]
    sent = [request.json for request, _ in httpserver.log]
    assert TEXT[:4096] == sent[0]["text"]
    assert 4096 == len(sent[1]["text"])
    assert [{"chat_id", "text", "link_preview_options"}] * 2 == [set(message) for message in sent]


@pytest.mark.parametrize("name", ["ntfy", "teams", "telegram"])
def test_a_receiver_that_refuses_is_tried_again(recipe, httpserver: HTTPServer, name: str) -> None:
    httpserver.expect_request("/T0ken").respond_with_data("", status=429)

    delivery = recipe(name, f'url = "{httpserver.url_for("/T0ken")}"\n').notify(NOTICE)

    assert delivery == Retry(why="exit status 22", may_be_the_notice=True)


def test_the_real_apprise_sends_it_on(recipe, httpserver: HTTPServer) -> None:
    httpserver.expect_request("/hook", method="POST").respond_with_data("")
    url = f"json://localhost:{httpserver.port}/hook"

    assert recipe("apprise", f"{url}\n").notify(NOTICE) == Delivered(detail="exit status 0")
    assert title(NOTICE) in json.loads(httpserver.log[0][0].get_data())["message"]


def test_apprise_says_when_it_cannot(recipe) -> None:
    delivery = recipe("apprise", "json://127.0.0.1:9/hook\n").notify(NOTICE)

    assert delivery == Retry(why="exit status 1", may_be_the_notice=True)
