"""Slack messages for an incoming webhook (docs.slack.dev: "Sending messages using incoming webhooks", "Block Kit").

    POST {"text": "the line on the lock screen", "blocks": [...]}  ->  200, body "ok"; else a word such as no_service

Slack's limits: 50 blocks, 150 characters a header, 3000 a text, 10 fields of 2000. ``& < >`` are markup: escaped.
"Formatting text for app surfaces" has mentions and ``<!date^UNIX^FORMAT|FALLBACK>``.
"""

import re
from datetime import datetime, timezone
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec.structs import replace

from agent.core.budget import proof_of
from agent.core.delivery import Delivered, Delivery, Rejected, Retry
from agent.core.format import counted, printable
from agent.core.model import CAUSES, Advice, DigestNotice, Incident, Notice, Remark
from agent.core.recurrence import is_news, recurrence_text
from agent.core.report import (
    digest_facts,
    durable_fix,
    gauge_rows,
    held_by,
    messages_text,
    read_on,
    resets,
    source_text,
    title,
)
from agent.core.settings import SlackSettings
from agent.notifiers import this_host
from agent.notifiers.answer import Answer, sort_answer
from agent.notifiers.http import DEADLINE_SECONDS, Poster

HEADER_LIMIT, TEXT_LIMIT, FIELD_LIMIT = 150, 3000, 2000
SENTENCE_LIMIT, COMMANDS_LIMIT = 600, 1500  # together well under TEXT_LIMIT
IN_LINKS = ":/?#[]@!$'()*+,;=%~"  # of a URL, as it is: not what is markup to Slack
BUSY_WORDS = re.compile("rollup_error|fatal_error|internal_error|service_unavailable|rate_limited")
DEAD_WORDS = re.compile(
    "account_inactive|action_prohibited|channel_is_archived|channel_not_found|invalid_(auth|blocks|blocks_format|payload"
    "|token)|missing_text_or_fallback_or_attachments|no_(active_hooks|service|service_id|team|text)|posting_to_general_"
    "channel_denied|team_disabled|token_revoked|too_many_attachments|user_not_found"
)
HEADERS = {"Content-Type": "application/json; charset=utf-8"}
SIGNS = {
    "sockmem.incident.opened": "🔴",
    "sockmem.incident.updated": "🟠",
    "sockmem.incident.resolved": "🟢",
    "sockmem.digest": "🟣",
    "sockmem.test": "🔵",
}
WARNING_SIGN, UNCONFIRMED_SIGN, NEWS_SIGN = "🟡", "⚪", "🆕"

Block = dict[str, Any]


class SlackNotifier:
    """Posts notices to one incoming webhook."""

    def __init__(self, settings: SlackSettings, *, deadline_seconds: float = DEADLINE_SECONDS) -> None:
        self.name = settings.name
        self._settings = settings
        self._poster = Poster(settings, settings.url, deadline_seconds=deadline_seconds)

    def notify(self, notice: Notice) -> Delivery:
        """Post the message; only 2xx with the body ``ok`` means delivered."""
        body = msgspec.json.encode(message(notice, self._settings.mention, self._settings.runbook_url))
        return sort_slack(self._poster.post(body, HEADERS), datetime.now(timezone.utc))


def sort_slack(answer: Answer | Retry | Rejected, now: datetime) -> Delivery:
    """Sort Slack's answer: even 200 may be a refusal, named by the word in the body.

    Only known words are repeated: a body may hold anything, even the address.
    """
    delivery = sort_answer(answer, now)
    if not isinstance(answer, Answer):
        return delivery
    body = (answer.body or b"").decode("utf-8", "replace").strip()
    if DEAD_WORDS.fullmatch(body):
        return Rejected(why=f"HTTP {answer.status} {body}")
    if BUSY_WORDS.fullmatch(body):
        return Retry(why=f"HTTP {answer.status} {body}", after_seconds=getattr(delivery, "after_seconds", None))
    if not isinstance(delivery, Delivered) or answer.body == b"ok":
        return delivery
    if answer.body is None:
        return Retry(why=f"HTTP {answer.status}, but the answer broke off", may_be_taken=True)
    return Rejected(why=f"HTTP {answer.status}, but not Slack's `ok`: is the url that of an incoming webhook?")


def message(notice: Notice, mention: str = "", runbook_url: str = "") -> dict[str, Any]:
    """Make the message: a lock screen shows ``text``, the channel ``blocks``.

    Only an incident that opens mentions anybody, and none that a text log alone claims, since anybody can forge that.
    """
    incident = notice.data
    new = f" {NEWS_SIGN}" if incident and is_news(incident) else ""
    headline = f"{_sign(notice)}{new} {title(notice)}"
    header = {"type": "plain_text", "text": printable(headline, HEADER_LIMIT - 1), "emoji": True}
    blocks: list[Block] = [{"type": "header", "text": header}]
    if isinstance(notice, DigestNotice):
        blocks += _digest_blocks(notice)
    else:
        blocks += _test_blocks(notice) if incident is None else _incident_blocks(notice, incident)
    if runbook_url:
        blocks[-1]["elements"].append(_mrkdwn(f"<{quote(runbook_url, safe=IN_LINKS)}|runbook>"))
    is_opening = notice.type == "sockmem.incident.opened" and incident is not None and incident.closed_at is None
    if mention and incident and is_opening and proof_of(incident) == "kernel":
        blocks.append(_section(mention))
    return {"text": _cut_escaped(headline, TEXT_LIMIT), "blocks": blocks}


def _sign(notice: Notice) -> str:
    incident = notice.data
    if incident is None or incident.closed_at is not None:
        return SIGNS[notice.type]
    if incident.is_unconfirmed:
        return UNCONFIRMED_SIGN
    return WARNING_SIGN if incident.is_warning else SIGNS[notice.type]


def escape(text: str) -> str:
    """Escape foreign text for mrkdwn: no mention, link, end of a code span or control character."""
    shown = "\n".join(printable(line, TEXT_LIMIT) for line in text.split("\n"))
    return shown.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("`", "'")


def _incident_blocks(notice: Notice, incident: Incident) -> list[Block]:
    blocks = []
    if notice.type == "sockmem.incident.updated" and not isinstance(notice, Remark):
        blocks.append(_section(f"*What changed:* {_cut_escaped(notice.reason, FIELD_LIMIT)}"))
    if incident.closed_at is None:
        blocks.append(_section(_cut_escaped(incident.summary, TEXT_LIMIT)))
    cause, *rest = [f"*{name}*\n{_cut_escaped(value, FIELD_LIMIT - 100)}" for name, value in _facts(incident)]
    blocks.append({"type": "section", "fields": [_mrkdwn(field) for field in (cause, _span(incident), *rest)]})
    blocks += [_section(_step(label, advice)) for label, advice in _steps(incident)]
    command = read_on(incident)
    context = f"source: {source_text(incident)} · " + (f"`{escape(command)}`" if command else "a test, stored nowhere")
    blocks.append({"type": "context", "elements": [_mrkdwn(context)]})
    return blocks


def _digest_blocks(notice: DigestNotice) -> list[Block]:
    why, which, command = digest_facts(notice, most=30)
    return [
        _section(escape(why)),
        _section(_cut_escaped(which, TEXT_LIMIT)),
        {"type": "context", "elements": [_mrkdwn(f"since {_clock(notice.digest.since)} · `{escape(command)}`")]},
    ]


def _test_blocks(notice: Notice) -> list[Block]:
    host = _cut_escaped(this_host(), FIELD_LIMIT)
    about = f"notice {_cut_escaped(notice.id, FIELD_LIMIT)} · {_clock(notice.at)}"
    return [
        _section(f"This is a test of sockmem-agent on *{host}*. Nothing is wrong."),
        {"type": "context", "elements": [_mrkdwn(about)]},
    ]


def _facts(incident: Incident) -> list[tuple[str, str]]:
    facts = [("Cause", f"{CAUSES[incident.cause]} ({incident.confidence})")]
    if often := recurrence_text(incident):
        facts.append(("Recurrence", often))
    facts.append(("Kernel messages", messages_text(incident, "\n") or "none"))
    if (killed := resets(incident)) is not None:
        facts.append(("Reset", counted(killed, "connection")))
    facts += gauge_rows(incident)
    # While it is open the first step is about the main holder, with its numbers.
    if (incident.closed_at or not incident.diagnosis.advice) and (
        holder := held_by(incident.diagnosis, incident.witness)
    ):
        facts.append(("Held by", holder))
    return facts


def _span(incident: Incident) -> str:
    if incident.closed_at is not None:
        return "*Time*\n" + " to ".join(dict.fromkeys(map(_clock, (incident.opened_at, incident.last_seen_at))))
    return f"*Since*\n{_clock(incident.opened_at)}"


def _steps(incident: Incident) -> list[tuple[str, Advice]]:
    """Choose what to do now and the first setting to change; once resolved, the durable fix."""
    change = durable_fix(incident)
    if incident.closed_at is not None:
        return [("Durable fix", replace(change, commands=(change.persist or "",)))] if change else []
    steps = incident.diagnosis.advice
    chosen = [("First step", steps[0])] if steps else []
    return [*chosen, ("Then", change)] if change and change is not steps[0] else chosen


def _step(label: str, advice: Advice) -> str:
    text = f"*{label}:* {_cut_escaped(advice.action, SENTENCE_LIMIT)}"
    if advice.commands:
        text += f"\n```\n{_cut_escaped(chr(10).join(advice.commands).rstrip(), COMMANDS_LIMIT)}\n```"
    return f"{text}\nRisk: {_cut_escaped(advice.risk, SENTENCE_LIMIT)}" if advice.sysctl and advice.risk else text


def _section(text: str) -> Block:
    return {"type": "section", "text": _mrkdwn(text)}


def _mrkdwn(text: str) -> Block:
    # Verbatim: Slack makes no links, channels or mentions out of log text.
    return {"type": "mrkdwn", "text": text, "verbatim": True}


def _clock(moment: datetime) -> str:
    """Let Slack show a moment in the reader's zone; where it cannot, it shows the text behind the bar."""
    text = moment.astimezone(timezone.utc).strftime("%d %b %H:%M:%S UTC")
    return f"<!date^{int(moment.timestamp())}^{{date_short}} {{time_secs}}|{text}>"


def _cut_escaped(text: str, limit: int) -> str:
    """Escape, then cut without leaving half an entity."""
    escaped = escape(text)
    if len(escaped) <= limit:
        return escaped
    return re.sub(r"&[a-z]{0,4}$", "", escaped[: limit - 1]) + "…"
