"""What is behind the channels of the soak: one HTTP server that can fail in each of the ways receivers do."""

import contextlib
import http.server
import json
import threading
from collections import Counter, defaultdict
from typing import Any

OUTAGES = ("busy", "hangs", "gone", "odd")


class Receiver:
    """Takes what is posted to /CHANNEL, unless it is ``ill``; keeps the ids and types of what it answered 200."""

    def __init__(self) -> None:
        self.ill = ""
        self.answered: dict[str, Counter[str]] = defaultdict(Counter)
        self.types: dict[str, list[str]] = defaultdict(list)
        self._well = threading.Event()
        self._server = self._serve(0)
        self.port = self._server.server_address[1]

    def fall_ill(self, outage: str) -> None:
        """Fail from now on: answer 503, answer nothing, refuse connections, or answer what is no HTTP."""
        self._well.clear()
        self.ill = outage
        if outage == "gone":
            self.end()

    def recover(self) -> None:
        if self.ill == "gone":
            self._server = self._serve(self.port)
        self.ill = ""
        self._well.set()

    def end(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def take(self, channel: str, headers: Any, body: Any) -> None:
        if channel == "hook":
            self.answered[channel][headers["webhook-id"]] += 1
            if body["data"] and "id" in body["data"]:
                self.types[body["data"]["id"]].append(body["type"].rpartition(".")[2])
        else:
            self.answered[channel]["posts"] += 1

    def _serve(self, port: int) -> http.server.ThreadingHTTPServer:
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with contextlib.suppress(OSError):  # The agent hangs up on one that is slow.
                    receiver.answer(self, self.path.split("/")[1], body)

            def log_message(self, *_: object) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return server

    def answer(self, request: http.server.BaseHTTPRequestHandler, channel: str, body: Any) -> None:
        match self.ill:
            case "hangs":
                self._well.wait()
            case "odd":
                request.wfile.write(b"220 mail.example.org ESMTP\r\n")
            case "busy":
                request.send_error(503)
            case _:
                self.take(channel, request.headers, body)
                request.send_response(200)
                request.send_header("Content-Length", "2")
                request.end_headers()
                request.wfile.write(b"ok")
