r"""Turn a Slack payload into a page that looks like Slack, to be photographed for the README.

    make demo DEMO_OPTIONS='--save-slack slack.json'
    .venv/bin/python -m contrib.picture slack.json > slack.html
    chromium --headless --no-sandbox --hide-scrollbars --force-device-scale-factor=1.5 \
        --window-size=760,550 --screenshot=docs/slack.png slack.html

What Slack does to mrkdwn is done as far as our messages use it: *bold*, `code`, blocks of code.
"""

# A script, run with -m from the top of the repository, that prints a page.

import json
import re
import sys
from pathlib import Path
from typing import Any

STYLE = """
body { margin: 0; padding: 18px 22px; background: #fff; color: #1d1c1d; font: 15px/1.46 "Liberation Sans", Arial; }
.message { display: grid; grid-template-columns: 36px 1fr; column-gap: 10px; max-width: 700px; }
.avatar { width: 36px; height: 36px; border-radius: 6px; background: #2f5d50; color: #fff; text-align: center; }
.avatar { font: bold 17px/36px Arial; }
.who i { background: #e8e8e8; color: #616061; border-radius: 3px; font: 10px Arial; padding: 1px 4px; }
.who span, .context { color: #616061; font-size: 12px; }
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
    """Render mrkdwn, whose &, < and > are escaped already."""
    parts = re.split(r"```(.*?)```\n?", text, flags=re.DOTALL)
    for number, part in enumerate(parts):
        if number % 2:
            parts[number] = f"<pre>{part.strip()}</pre>"
        else:
            coded = re.sub(r"`([^`\n]+)`", r"<code>\1</code>", part)
            parts[number] = re.sub(r"(?<![\w*])\*([^*\n]+)\*(?![\w*])", r"<b>\1</b>", coded).strip("\n")
    return "".join(parts)


def render(block: dict[str, Any]) -> str:
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


def main() -> None:
    """Print the page of the payload in the file that is named."""
    payload = json.loads(Path(sys.argv[1]).read_text())
    body = "".join(render(block) for block in payload["blocks"])
    since = re.search(r"\b(\d\d:\d\d):\d\d UTC", body)
    who = f"<div class=who><b>sockmem-agent</b> <i>APP</i> <span>{since[1] if since else ''}</span></div>"
    message = f"<div class=message><div class=avatar>s</div><div>{who}{body}</div></div>"
    print(f"<!doctype html><meta charset=utf-8><style>{STYLE}</style>{message}")


if __name__ == "__main__":
    main()
