"""The receivers, and what they may answer: each stands in for the network of one notifier, which is the real one."""

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from email.utils import format_datetime
from random import Random

import msgspec

from agent.core.delivery import Rejected, Retry
from agent.notifiers.answer import Answer
from agent.notifiers.slack import SIGNS

TAKEN = ("ok", "lost")
REFUSED = ("choked", "odd", "dead", "surprise")
BAD = ("busy", "broken", "choked", "refused", "hang", "lost", "odd", "dead", "surprise")


class Surprise(Exception):  # noqa: N818 - what it is
    """A slip in a library."""


class Receiver:
    """Takes the POSTs of one poster; ``judge`` is asked of each, ``hang`` lets time pass; its clock is right.

    ``answers`` are those that it draws from: "ok" takes what is sent, and "lost" does, too.
    """

    def __init__(
        self,
        place: str,
        chance: Random,
        judge: Callable[["Receiver", dict, str], None],
        hang: Callable[[float], None],
        now: Callable[[], datetime],
    ) -> None:
        self.place, self._chance, self._judge, self._hang, self._now = place, chance, judge, hang, now
        self.answers: tuple[str, ...] = ("ok",)
        self.answered = "ok"

    def post(self, body: bytes, headers: Mapping[str, str] | None = None) -> Answer | Retry | Rejected:
        """Answer as agent.notifiers.http.Poster does."""
        self._hang(self._chance.choice((0.0, 0.0, 0.01, 0.5, 5.0)))
        self.answered = self._chance.choice(self.answers)
        if body != b"[]":
            self._judge(self, msgspec.json.decode(body), (headers or {}).get("webhook-id", ""))
        date = format_datetime(self._now(), usegmt=True)
        match self.answered:
            case "busy":
                after = self._chance.choice((None, "7", "120", "Sun, 22 Nov 2026 15:20:00 GMT", "x"))
                return Answer(429, after, b"", date)
            case "broken" | "choked" | "dead":
                return Answer({"broken": 503, "choked": 500, "dead": 404}[self.answered], None, b"", date)
            case "refused":
                return Retry(why="connection refused")
            case "hang" | "lost":
                self._hang(20.0)
                return Retry(why="no answer within 20 s", may_be_taken=True)
            case "odd":
                # Who never saw this clock could only go by its own.
                date = date if body == b"[]" else "Tue, 99 Nov 9999"
                return Answer(self._chance.choice((100, 302, 999)), None, None, date)
            case "surprise":
                raise Surprise("http://secret")
        return Answer(200, None, b"ok", date)


def messages_of(kind: str, body: dict | list, identity: str, now: datetime) -> Iterator[tuple[str, str, str]]:
    """Name what a POST says: type, incident and id of each message; a state has no id."""
    if kind == "webhook":
        data = body["data"]
        yield body["type"].removeprefix("sockmem.").removeprefix("incident."), data.get("id", ""), identity
    elif kind == "slack":
        shown = re.search("incidents show ([0-9A-Za-z-]+)", body["blocks"][-1]["elements"][0]["text"])
        says = "resolve" if body["text"].startswith(SIGNS["sockmem.incident.resolved"]) else "trigger"
        yield (says, shown[1], "") if shown else ("digest", "", "")
    elif kind == "pagerduty":
        yield body["event_action"], body["dedup_key"].rpartition("/")[2], ""
    else:
        for alert in body:
            is_over = datetime.fromisoformat(alert["endsAt"].replace("Z", "+00:00")) <= now
            yield "over" if is_over else "firing", alert["labels"]["incident"], alert["labels"]["severity"]
