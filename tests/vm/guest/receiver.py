"""In the machine: what is behind the three channels of install.py.

The webhook can be slow, refuse, or be cut off; Slack and Alertmanager take what they are sent, each in its own words.
"""

import base64
import contextlib
import hmac
import http.server
import json
import threading
import time
from collections.abc import Callable

from install import PORT, SECRET

Post = dict[str, object]


def signature(webhook_id: str, timestamp: str, body: bytes) -> str:
    """Sign as the Standard Webhooks specification says, by its words and not by the agent's code."""
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    return "v1," + base64.b64encode(hmac.digest(key, f"{webhook_id}.{timestamp}.".encode() + body, "sha256")).decode()


CHANNEL = {"/hook": "hook", "/team": "team", "/api/v2/alerts": "pager"}


class Receiver:
    """Keeps what came; the webhook answers with the next of ``answers``, the last one for ever."""

    def __init__(self, answers: tuple[int, ...], *, keep: Callable[[list[Post]], None], reading: bool = True) -> None:
        """``keep`` is given all that came, whenever something came."""
        self.posts: list[Post] = []
        self.answers = list(answers)
        self.before_answer = lambda: None
        self.lock = threading.Lock()
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                text = self.rfile.read(int(self.headers["Content-Length"]))
                if len(text) < int(self.headers["Content-Length"]):
                    return  # The agent had given this one up.
                headers = {name.lower(): value for name, value in self.headers.items()}
                post = {"at": time.time(), "channel": CHANNEL[self.path], "headers": headers, "body": json.loads(text)}
                if post["channel"] == "hook":
                    receiver.before_answer()
                    post["answered"] = receiver.answers.pop(0) if len(receiver.answers) > 1 else receiver.answers[0]
                    signed = signature(headers["webhook-id"], headers["webhook-timestamp"], text)
                    post["signed"] = signed in headers.get("webhook-signature", "").split()
                else:
                    post["answered"] = 200
                with receiver.lock:  # Channels post at once, and the last to write must not know less.
                    receiver.posts.append(post)
                    keep(receiver.posts)
                answer = b"ok" if post["channel"] == "team" else b""
                self.send_response(post["answered"])
                if post["answered"] in (429, 503):
                    self.send_header("Retry-After", "1")
                self.send_header("Content-Length", str(len(answer)))
                with contextlib.suppress(OSError):  # The sender may have been killed.
                    self.end_headers()
                    self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Handler)
        if reading:
            self.read()

    def read(self) -> None:
        """Accept and read what comes from now on, and what waits."""
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def types(self, status: int = 200) -> list[str]:
        """Return the types of what the webhook took, in order: "opened", "updated", "resolved"."""
        taken = [post for post in list(self.posts) if (post["channel"], post["answered"]) == ("hook", status)]
        return [str(post["body"]["type"]).rpartition(".")[2] for post in taken]
