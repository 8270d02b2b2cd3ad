import json
import re
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from material import OPENED_AT, make_digest_notice, make_sent_incident, make_sent_notice
from msgspec.structs import replace
from pytest_httpserver import HTTPServer
from slack_sdk.models.blocks import Block

from agent.core.delivery import Delivered, Delivery, Rejected, Retry
from agent.core.model import Advice, Diagnosis, Holder, Mechanism, Notice, NoticeType, Peak, Pressure, Recurrence
from agent.core.settings import SlackSettings
from agent.notifiers.answer import Answer
from agent.notifiers.slack import SlackNotifier, escape, message, sort_slack

NOW = datetime(2026, 11, 22, 15, 5, 39, tzinfo=timezone.utc)
TYPES: list[NoticeType] = [
    "sockmem.incident.opened",
    "sockmem.incident.updated",
    "sockmem.incident.resolved",
    "sockmem.digest",
    "sockmem.test",
]
HOSTILE = "<!channel> <@U1> <https://evil.example|x> & ``` ` @here \x1b[2J\x07\u202e\u2066\x85 #general"


def judge(sent: dict[str, Any]) -> None:
    """Hold a message against Slack's own models and its documented limits."""
    assert {"text", "blocks"} == set(sent)
    assert 1 <= len(sent["blocks"]) <= 50
    for block in Block.parse_all(sent["blocks"]):
        assert block is not None
        block.validate_json()
    for text in texts(sent):
        assert 1 <= len(text) <= 3000


def texts(node: Any) -> list[str]:
    """Collect every text of a message."""
    if isinstance(node, dict):
        own = [node["text"]] if isinstance(node.get("text"), str) else []
        return own + [text for value in node.values() for text in texts(value)]
    return [text for value in node for text in texts(value)] if isinstance(node, list) else []


def all_text(sent: dict[str, Any]) -> str:
    return "\n".join(texts(sent))


# --- the message ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", TYPES)
def test_slack_accepts_every_kind_of_notice(kind: NoticeType) -> None:
    judge(message(make_sent_notice(kind)))


def test_the_lock_screen_says_where_and_what() -> None:
    text = message(make_sent_notice())["text"]

    assert "web1" in text
    assert "orphan" in text
    assert len(text) < 120


def slack_time(minutes: int) -> str:
    """Give a moment after OPENED_AT as Slack is to show it, in the reader's zone, and as it falls back."""
    moment = OPENED_AT + timedelta(minutes=minutes)
    return f"<!date^{int(moment.timestamp())}^{{date_short}} {{time_secs}}|{moment:%d %b %H:%M:%S} UTC>"


def test_an_opened_incident_says_all_that_is_needed_at_night() -> None:
    said = all_text(message(make_sent_notice()))

    for part in (
        "web1 is resetting TCP connections: orphan limit reached (131,080 of 131,072)",
        "343 MiB of 2.2 GiB (15 %)",
        "orphans (certain)",
        f"*Since*\n{slack_time(0)}",
        "3 x too many orphans",
        "at least 273 suppressed",
        "*First step:* Raise the limit of orphans to 524,288",
        "```\nsysctl -w net.ipv4.tcp_max_orphans=524288\n```",
        "`sockmem-agent incidents show 20261122T150539Z-7f3a`",
        "Risk: up to 2.1 GiB of memory that cannot be swapped",
        "source: kernel",
    ):
        assert part in said


def test_a_digest_says_how_many_since_when_which_and_how_to_list_them() -> None:
    sent = message(make_sent_notice("sockmem.digest"))
    judge(sent)

    assert "🟣 web1: 37 more incidents since 14:05 UTC" == sent["text"]
    for part in (
        "6 for incidents that only a text log claims, 20 for incidents that the kernel or the gauges prove",
        "20261122T150039Z-7f3a, 20261122T150139Z-7f3a",
        "20261122T152939Z-7f3a and 7 more",
        "`sockmem-agent incidents list --since 2026-11-22T15:00:39Z`",
    ):
        assert part in all_text(sent), part


def test_a_digest_of_thousands_is_within_slacks_limits() -> None:
    judge(message(make_digest_notice(10_000, host="<!channel>" * 20)))


LOOK = Advice(action="See who holds them", why="", risk="None, it only reads.", commands=("ss -tan",))


def test_a_look_comes_first_and_the_setting_to_change_after_it() -> None:
    change = make_sent_incident().diagnosis.advice[0]
    diagnosis = Diagnosis(cause="orphans", confidence="certain", summary="x", advice=(LOOK, LOOK, change))

    said = all_text(message(make_sent_notice(diagnosis=diagnosis)))

    assert "*First step:* See who holds them\n```\nss -tan\n```" in said
    assert "only reads" not in said
    assert "*Then:* Raise the limit of orphans" in said


def test_once_it_is_over_only_the_setting_to_change_is_left_to_say() -> None:
    change = make_sent_incident().diagnosis.advice[0]
    both = Diagnosis(cause="orphans", confidence="certain", summary="x", advice=(LOOK, change))
    look = Diagnosis(cause="orphans", confidence="certain", summary="x", advice=(LOOK,))

    said = all_text(message(make_sent_notice("sockmem.incident.resolved", diagnosis=both)))

    assert "See who" not in said
    assert "*Durable fix:* Raise the limit" in said
    assert change.persist.rstrip() in said
    assert "See who" not in all_text(message(make_sent_notice("sockmem.incident.resolved", diagnosis=look)))


def test_an_update_says_what_changed() -> None:
    notice = make_sent_notice("sockmem.incident.updated", cause="both")

    assert "*What changed:* the kernel ran out" in all_text(message(notice))


def test_a_resolved_incident_says_how_long_and_the_peak() -> None:
    said = all_text(message(make_sent_notice("sockmem.incident.resolved")))

    assert f"*Time*\n{slack_time(0)} to {slack_time(12)}" in said
    assert "(resolved after 12 min)" in said
    assert "131,080" in said


def test_the_one_moment_of_a_single_line_is_said_once() -> None:
    said = all_text(message(make_sent_notice("sockmem.incident.resolved", last_seen_at=OPENED_AT)))

    assert f"*Time*\n{slack_time(0)}\n" in said


def test_a_test_says_that_it_is_one() -> None:
    said = all_text(message(make_sent_notice("sockmem.test")))

    assert "This is a test of sockmem-agent" in said
    assert "Nothing is wrong" in said


def test_a_line_that_anybody_could_write_is_told_as_such() -> None:
    assert "source: text log (unverified; any local user can write to it)" in all_text(
        message(make_sent_notice(provenance="claimed"))
    )


def test_an_unconfirmed_line_has_another_sign_than_the_red_circle() -> None:
    text = message(make_sent_notice(provenance="claimed", confidence="possible"))["text"]

    assert "⚪ web1: log claims orphan limit reached; this host's counters do not confirm it" == text
    assert message(make_sent_notice(provenance="claimed", confidence="likely"))["text"].startswith("🔴")


@pytest.mark.parametrize("kind", TYPES[:3])
def test_a_message_says_a_number_once(kind: NoticeType) -> None:
    blocks = all_text({"blocks": message(make_sent_notice(kind, summary="Too many orphans."))["blocks"]})
    numbers = re.findall(r"\d{1,3}(?:,\d{3})+", blocks)

    assert sorted(set(numbers)) == sorted(numbers)
    assert 1 == blocks.count("20261122T150539Z-7f3a")


def test_memory_is_counted_in_the_unit_of_the_kernel_that_counted_it() -> None:
    def notice_in(mem_unit_bytes: int) -> Notice:
        mechanism = Mechanism(
            page_size_bytes=65536, mem_unit_bytes=mem_unit_bytes, tcp_mem_bytes=(1 << 30, 2 << 30, 4 << 30)
        )
        diagnosis = Diagnosis(cause="tcp_memory", confidence="likely", summary="x", mechanism=mechanism)
        return make_sent_notice(diagnosis=diagnosis, peak=Peak(mem=262_144))

    in_4096, in_pages = notice_in(4096), notice_in(65536)

    assert "1 GiB of 4 GiB (25 %)" in all_text(message(in_4096))
    assert "16 GiB of 4 GiB" in all_text(message(in_pages))


def test_the_first_of_a_kind_looks_different_from_the_daily_one() -> None:
    def say(recurrence: Recurrence) -> dict[str, Any]:
        return message(make_sent_notice(recurrence=recurrence))

    first = say(Recurrence(count=1, since=OPENED_AT))
    daily = say(Recurrence(count=9, since=OPENED_AT - timedelta(days=8), previous_at=OPENED_AT - timedelta(days=1)))

    assert first["text"].startswith("🔴 🆕 web1 is resetting")
    assert "*Recurrence*\nfirst of its kind on record" in all_text(first)
    assert daily["text"].startswith("🔴 web1 is resetting")
    assert "*Recurrence*\n9th since 14 Nov: daily" in all_text(daily)


def test_what_is_not_known_is_left_out_and_not_made_up() -> None:
    diagnosis = Diagnosis(cause="undetermined", confidence="possible", summary="Something happened.")
    sent = message(make_sent_notice(host=None, kernel=None, diagnosis=diagnosis, peak=Peak(), events={}))

    judge(sent)
    said = all_text(sent)
    assert "peak" not in said
    assert "None" not in said
    assert "First step" not in said


def test_hostile_names_and_texts_stay_text() -> None:
    advice = Advice(action=HOSTILE, why="", risk="", commands=(HOSTILE,))
    diagnosis = Diagnosis(cause="orphans", confidence="likely", summary=HOSTILE, advice=(advice,))
    sent = message(make_sent_notice("sockmem.incident.updated", host=HOSTILE, summary=HOSTILE, diagnosis=diagnosis))

    judge(sent)
    header, *marked_up = sent["blocks"]
    assert "plain_text" == header["text"]["type"]
    for text in [sent["text"], *(text.replace(slack_time(0), "") for text in texts(marked_up))]:
        assert "<" not in text
        assert ">" not in text
        assert text.count("```") in (0, 2)
        assert text.replace("```", "").count("`") in (0, 2)
    for character in "\x1b\x07\u202e\u2066\x85":
        assert character not in all_text(sent)
    assert all(element.get("verbatim") for element in mrkdwn(sent["blocks"]))


def mrkdwn(node: Any) -> list[dict[str, Any]]:
    if isinstance(node, dict):
        own = [node] if node.get("type") == "mrkdwn" else []
        return own + [found for value in node.values() for found in mrkdwn(value)]
    return [found for value in node for found in mrkdwn(value)] if isinstance(node, list) else []


def test_escaping_keeps_lines_and_knows_entities() -> None:
    assert "a &amp; b\n&lt;c&gt;" == escape("a & b\n<c>")


@given(st.text(max_size=6000), st.text(max_size=300), st.text(max_size=6000))
def test_no_text_whatever_breaks_slacks_limits(long: str, host: str, command: str) -> None:
    advice = Advice(action=long, why=long, risk=long, commands=(command, long))
    diagnosis = Diagnosis(cause="orphans", confidence="likely", summary=long, advice=(advice,))
    sent = message(make_sent_notice("sockmem.incident.updated", host=host, summary=long, diagnosis=diagnosis))

    limits(sent)


@pytest.mark.parametrize("character", ["&", "<", "`", "\n", "\x1b", "é", "\U0001d54f"])
def test_much_of_one_character_breaks_no_limit(character: str) -> None:
    long = character * 5000
    advice = Advice(action=long, why=long, risk=long, commands=(long,) * 5)
    diagnosis = Diagnosis(cause="orphans", confidence="likely", summary=long, advice=(advice,))

    limits(message(make_sent_notice("sockmem.incident.updated", host=long, summary=long, diagnosis=diagnosis)))


def limits(sent: dict[str, Any]) -> None:
    header, *blocks = sent["blocks"]
    assert len(header["text"]["text"]) <= 150
    assert len(blocks) < 50
    for block in blocks:
        for field in block.get("fields", []):
            assert len(field["text"]) <= 2000
        assert len(block.get("fields", [])) <= 10
        assert len(block.get("text", {}).get("text", "")) <= 3000
    # Half an entity would be shown as it stands.
    assert "&am…" not in json.dumps(sent, ensure_ascii=False)


# --- what Slack answers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "delivery"),
    [
        (Answer(200, None, b"ok"), Delivered(detail="HTTP 200")),
        (Answer(404, None, b"no_team"), Rejected(why="HTTP 404 no_team")),
        (Answer(404, None, b"no_service"), Rejected(why="HTTP 404 no_service")),
        (Answer(410, None, b"channel_is_archived"), Rejected(why="HTTP 410 channel_is_archived")),
        (Answer(403, None, b"invalid_token"), Rejected(why="HTTP 403 invalid_token")),
        (Answer(403, None, b"action_prohibited"), Rejected(why="HTTP 403 action_prohibited")),
        (Answer(400, None, b"invalid_payload"), Rejected(why="HTTP 400 invalid_payload")),
        (Answer(200, None, b"invalid_payload"), Rejected(why="HTTP 200 invalid_payload")),
        (Answer(500, None, b"rollup_error"), Retry(why="HTTP 500 rollup_error")),
        (Answer(200, None, b"rollup_error"), Retry(why="HTTP 200 rollup_error")),
        (Answer(429, "30", b"rate_limited"), Retry(why="HTTP 429 rate_limited", after_seconds=30.0)),
        (Answer(429, "30", b""), Retry(why="HTTP 429", after_seconds=30.0)),
        (Answer(200, None, None), Retry(why="HTTP 200, but the answer broke off", may_be_taken=True)),
        (Answer(503, None, None), Retry(why="HTTP 503")),
    ],
)
def test_slacks_words_are_sorted(answer: Answer, delivery: Delivery) -> None:
    assert delivery == sort_slack(answer, NOW)


@pytest.mark.parametrize("body", [b"", b"OK", b"ok\n", b"okay", b"<html>T0ken</html>", b"\xff\xfe"])
def test_any_other_body_than_ok_is_no_delivery_and_is_not_repeated(body: bytes) -> None:
    delivery = sort_slack(Answer(200, None, body), NOW)

    assert isinstance(delivery, Rejected)
    assert "T0ken" not in delivery.why


def test_an_unknown_word_leaves_the_status_to_decide() -> None:
    assert sort_slack(Answer(500, None, b"T0ken"), NOW) == Retry(why="HTTP 500", may_be_the_notice=True)


def test_the_message_reaches_the_webhook(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/services/T/B/X", method="POST").respond_with_data("ok")

    delivery = SlackNotifier(SlackSettings(name="ops", url=httpserver.url_for("/services/T/B/X"))).notify(
        make_sent_notice()
    )

    assert delivery == Delivered(detail="HTTP 200")
    request = httpserver.log[0][0]
    assert "application/json; charset=utf-8" == request.headers["Content-Type"]
    assert message(make_sent_notice()) == request.json


def test_a_time_in_another_zone_is_told_in_utc() -> None:
    local = OPENED_AT.astimezone(tz=datetime.fromisoformat("2026-01-01T00:00:00+05:30").tzinfo)

    assert "22 Nov 15:05:39 UTC" in all_text(message(make_sent_notice(opened_at=local)))


def test_an_incident_of_the_gauges_alone_has_no_counts_to_tell() -> None:
    notice = make_sent_notice(class_="pressure", events={}, suppressed_at_least=0)

    assert "*Kernel messages*\nnone" in all_text(message(notice))


def test_who_holds_most_is_named_and_cannot_break_out() -> None:
    notice = make_sent_notice()
    hostile = Holder(unit="<!channel>`\x1b[31m.service", sockets=9000, orphans=7000, bytes=4096)
    diagnosis = replace(notice.data.diagnosis, holders=(hostile, Holder(sockets=1, orphans=0, bytes=0)), advice=())
    said = all_text(message(replace(notice, data=replace(notice.data, diagnosis=diagnosis))))

    assert "most held by &lt;!channel&gt;'" in said
    assert "*Held by*\n&lt;!channel&gt;'" in said
    assert "7,000 orphans, 9,000 sockets" in said
    assert "\x1b" not in said


# --- mentions and links ---------------------------------------------------------------------------------------------


WARNING = Pressure(level=2, cause="tcp_memory", claim="TCP memory is high", value=2, limit=1)


def mentioned(notice: Notice) -> bool:
    """Return whether a message mentions whom the configuration names; check that it stays a valid one."""
    sent = message(notice, "<!here> <@U123>")
    judge(sent)
    assert "<!here>" not in sent["text"]
    return {"type": "section", "text": {"type": "mrkdwn", "text": "<!here> <@U123>", "verbatim": True}} in sent[
        "blocks"
    ]


def test_only_an_incident_that_opens_mentions_anybody() -> None:
    assert mentioned(make_sent_notice())
    assert mentioned(make_sent_notice(class_="pressure", provenance="claimed", pressure=WARNING))
    assert not any(mentioned(make_sent_notice(kind)) for kind in TYPES if kind != "sockmem.incident.opened")
    assert "<!here>" not in all_text(message(make_sent_notice()))


def test_what_a_text_log_alone_claims_or_is_over_mentions_nobody() -> None:
    assert not mentioned(make_sent_notice(provenance="claimed"))
    assert not mentioned(make_sent_notice(provenance="claimed", confidence="certain"))
    assert not mentioned(make_sent_notice(closed_at=OPENED_AT + timedelta(minutes=17)))


def test_foreign_text_mentions_nobody_and_makes_no_time() -> None:
    _, *blocks = message(make_sent_notice(host="<!here>", summary="<!here> <!date^1^{date}|x> <@U1>"))["blocks"]
    said = all_text({"blocks": blocks})

    assert "<!here>" not in said
    assert "<@U1>" not in said
    assert 1 == said.count("<!date")


@pytest.mark.parametrize("kind", TYPES)
def test_the_runbook_is_a_link_in_every_message(kind: NoticeType) -> None:
    sent = message(make_sent_notice(kind), "", "https://wiki.example/a|b>c?x=1&y=%20#z")
    judge(sent)

    assert "<https://wiki.example/a%7Cb%3Ec?x=1%26y=%20#z|runbook>" in all_text(sent)


def test_mention_and_runbook_come_from_the_configuration(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/x", method="POST").respond_with_data("ok")
    keys = {"mention": "<!here>", "runbook_url": "https://wiki.example/x"}

    SlackNotifier(SlackSettings(name="ops", url=httpserver.url_for("/x"), **keys)).notify(make_sent_notice())

    assert message(make_sent_notice(), "<!here>", "https://wiki.example/x") == httpserver.log[0][0].json
