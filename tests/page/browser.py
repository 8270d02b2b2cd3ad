"""A real headless Chromium, steered over a pipe (Chrome DevTools Protocol): no port, no driver.

Messages are JSON, each ended by a NUL byte; the browser reads descriptor 3 and writes descriptor 4.
"""

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import time
from pathlib import Path
from types import TracebackType
from typing import Any

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser")
PATIENCE_SECONDS = 60.0
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
_ABOVE_STANDARD = 10


class Browser:
    """One browser with one page; ``seen`` is everything that it reported by itself."""

    def __init__(self, profile: Path) -> None:
        """Start it, with ``profile`` as a directory of its own."""
        assert PROGRAM is not None
        to_browser, self._to = _pipe()
        self._from, from_browser = _pipe()
        null = os.open(os.devnull, os.O_RDWR)
        actions = [(os.POSIX_SPAWN_DUP2, null, number) for number in (0, 1, 2)]
        actions += [(os.POSIX_SPAWN_DUP2, to_browser, 3), (os.POSIX_SPAWN_DUP2, from_browser, 4)]
        arguments = [PROGRAM, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        environ = {**os.environ, "HOME": str(profile)}
        self._pid = os.posix_spawn(PROGRAM, arguments, environ, file_actions=actions, setpgroup=0)
        for descriptor in (to_browser, from_browser, null):
            os.close(descriptor)
        self._number, self._buffer, self._session = 0, b"", ""
        self.seen: list[dict[str, Any]] = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.ask(f"{domain}.enable")

    def __enter__(self) -> "Browser":  # noqa: PYI034 - Self is from 3.11
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        """End the browser and what it started: they are a process group of their own."""
        os.close(self._to)
        os.close(self._from)
        os.killpg(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        answer = self._until(lambda found: found.get("id") == self._number)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    def open(self, page: Path, *, width: int = 1200, height: int = 900, dark: bool = False) -> None:
        """Open a file as on a screen of this width, and wait until it is loaded."""
        self.ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", media="", features=[scheme])
        self.seen.clear()
        self.ask("Page.navigate", url=page.as_uri())
        self._until(lambda found: found.get("method") == "Page.loadEventFired")

    def run(self, expression: str) -> Any:
        """Evaluate an expression in the page; a promise is waited for."""
        result = self.ask(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True, userGesture=True
        )
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def complaints(self) -> list[str]:
        """List errors and warnings of the console, exceptions and breaches of the page's policy since it was opened."""
        self.run("new Promise((done) => setTimeout(done, 50))")
        kinds = {"Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled"}
        return [json.dumps(each["params"]) for each in self.seen if each["method"] in kinds]

    def requests(self) -> list[str]:
        """List the addresses that were asked for since the page was opened, the page itself included."""
        sent = [each for each in self.seen if each["method"] == "Network.requestWillBeSent"]
        return [each["params"]["request"]["url"] for each in sent]

    def photograph(self, target: Path, *, whole: bool = True) -> None:
        """Save the page as a picture: the whole of it, or what the screen shows."""
        shot = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        target.write_bytes(base64.b64decode(shot["data"]))

    def print_pdf(self) -> bytes:
        """Print the page on A4."""
        printed = self.ask("Page.printToPDF", paperWidth=8.27, paperHeight=11.69, preferCSSPageSize=True)
        return base64.b64decode(printed["data"])

    def _until(self, fits: Any) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            message, found, rest = self._buffer.partition(b"\0")
            if found:
                self._buffer = rest
                said = json.loads(message)
                if "method" in said:
                    self.seen.append(said)
                if fits(said):
                    return said
                continue
            ready, _, _ = select.select([self._from], [], [], max(0.0, deadline - time.monotonic()))
            data = os.read(self._from, 1 << 16) if ready else b""
            assert data, "the browser ended" if ready else f"the browser was silent for {PATIENCE_SECONDS} s"
            self._buffer += data


def _pipe() -> tuple[int, int]:
    """Make a pipe whose ends are out of the way of the descriptors that the browser wants."""
    ends = os.pipe()
    above = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, _ABOVE_STANDARD) for end in ends)
    for end in ends:
        os.close(end)
    return above[0], above[1]
