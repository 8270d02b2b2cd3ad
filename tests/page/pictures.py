"""Photograph what the program sends today, for README.md and docs/incident.md: `make pictures`

One made-up incident on a web server of 4 GiB becomes docs/slack.png and docs/incident-page.png, in headless Chromium.
What Slack does to mrkdwn is done as far as our messages use it: *bold*, `code`, blocks of code, times, links.
"""

import json
import re
import tempfile
from pathlib import Path
from typing import Any

from browser import Browser
from msgspec.structs import replace
from stories import HOLDERS, OPENED, make_event, make_samples, make_snapshot, make_story

from agent.core.diagnosis.diagnose import diagnose
from agent.core.model import Diagnosis, Notice
from agent.core.readings import Process, SocketGroup, SocketTable, Tally
from agent.notifiers.slack import message
from agent.page.render import render

DOCS = Path(__file__).parents[2] / "docs"

STYLE = """
body { margin: 0; padding: 18px 22px; background: #fff; color: #1d1c1d; font: 15px/1.46 "Liberation Sans", Arial; }
.message { display: grid; grid-template-columns: 36px 1fr; column-gap: 10px; max-width: 700px; }
.avatar { width: 36px; height: 36px; border-radius: 6px; background: #2f5d50; color: #fff; text-align: center; }
.avatar { font: bold 17px/36px Arial; }
.who i { background: #e8e8e8; color: #616061; border-radius: 3px; font: 10px Arial; padding: 1px 4px; }
.who span, .context { color: #616061; font-size: 12px; }
.sign { display: inline-block; width: 15px; height: 15px; border-radius: 8px; background: #dd2e44; }
h1 { font-size: 18px; line-height: 1.35; margin: 4px 0 8px; }
.section { margin: 0 0 8px; white-space: pre-line; }
.fields { display: grid; grid-template-columns: 1fr 1fr; gap: 8px 16px; }
code, pre { font: 12px/1.5 "Liberation Mono", monospace; background: #f8f8f8; }
code, pre { border: 1px solid #ddd; border-radius: 3px; }
code { color: #c01343; padding: 1px 3px; }
pre { padding: 8px; margin: 4px 0; white-space: pre-wrap; }
hr { border: 0; border-top: 1px solid #ddd; margin: 10px 0; }
"""


def markup(text: str) -> str:
    """Render mrkdwn, whose &, < and > are escaped already; the sign is drawn, for want of a font."""
    text = text.replace("🔴", "<i class=sign></i>")
    text = re.sub(r"<!date\^[^|]*\|([^>]*)>", r"\1", text)  # as for a reader in UTC
    text = re.sub(r"<([^|>]*)\|([^>]*)>", r'<a href="\1">\2</a>', text)
    parts = re.split(r"```(.*?)```\n?", text, flags=re.DOTALL)
    for number, part in enumerate(parts):
        if number % 2:
            parts[number] = f"<pre>{part.strip()}</pre>"
        else:
            coded = re.sub(r"`([^`\n]+)`", r"<code>\1</code>", part)
            parts[number] = re.sub(r"(?<![\w*])\*([^*\n]+)\*(?![\w*])", r"<b>\1</b>", coded).strip("\n")
    return "".join(parts)


def render_block(block: dict[str, Any]) -> str:
    """Render one block; a kind that we do not send is shown as it is."""
    match block["type"]:
        case "header":
            return f"<h1>{markup(block['text']['text'])}</h1>"
        case "section":
            text = f"<div class=section>{markup(block['text']['text'])}</div>" if "text" in block else ""
            fields = "".join(f"<div>{markup(field['text'])}</div>" for field in block.get("fields", []))
            return text + (f"<div class='section fields'>{fields}</div>" if fields else "")
        case "context":
            return f"<div class=context>{' '.join(markup(element['text']) for element in block['elements'])}</div>"
        case "divider":
            return "<hr>"
        case _:
            return f"<pre>{json.dumps(block)}</pre>"


def slack_page(payload: dict[str, Any]) -> str:
    """Render a Slack payload as a page that looks like Slack."""
    body = "".join(render_block(block) for block in payload["blocks"])
    who = f"<div class=who><b>sockmem-agent</b> <i>APP</i> <span>{OPENED:%H:%M}</span></div>"
    content = f"<div class=message><div class=avatar>s</div><div>{who}{body}</div></div>"
    return f"<!doctype html><meta charset=utf-8><style>{STYLE}</style>{content}"


def diagnosis() -> Diagnosis:
    """Diagnose the incident with the sockets of those that hold them."""
    nginx, api = HOLDERS[:2]
    groups = tuple(
        SocketGroup(
            cgroup=cgroup,
            port=holder.ports[0],
            held={"established": Tally(sockets=holder.sockets - holder.orphans)},
            orphaned={"fin_wait1": Tally(sockets=holder.orphans, bytes=holder.bytes, probing=holder.orphans)},
            process=Process(pid=cgroup, name=name, cgroup=path),
        )
        for cgroup, name, path, holder in (
            (812, "nginx", "/system.slice/nginx.service", nginx),
            (913, "shop-api", "/system.slice/shop-api.service", api),
        )
    )
    paths = {1: "/", 812: "/system.slice/nginx.service", 913: "/system.slice/shop-api.service"}
    snapshot = make_snapshot(0.2)
    table = SocketTable(groups=groups, paths=paths, sockstat=snapshot.sockstat, complete=True)
    return diagnose(replace(snapshot, sockets=table), (make_event(),), make_samples()[:360])


def main() -> None:
    """Make both pictures."""
    judged, story = diagnosis(), make_story()
    incident = replace(
        story.incident,
        diagnosis=judged,
        summary=judged.summary,
        cause=judged.cause,
        confidence=judged.confidence,
    )
    opened = replace(
        incident, closed_at=None, last_seen_at=OPENED, events={"too_many_orphans": 4}, suppressed_at_least=407
    )
    notice = Notice(id="msg", type="sockmem.incident.opened", at=OPENED, reason="", channels=("team",), data=opened)
    pages = {
        "slack.png": (slack_page(message(notice)), 760, 300),
        "incident-page.png": (render(story._replace(incident=incident)), 1000, 1417),
    }
    with tempfile.TemporaryDirectory() as folder, Browser(Path(folder)) as browser:
        for name, (page, width, height) in pages.items():
            file = Path(folder) / "page.html"
            file.write_text(page)
            browser.open(file, width=width, height=height)
            browser.photograph(DOCS / name, whole=name == "slack.png")


if __name__ == "__main__":
    main()
