"""What the service says of itself in status.json, and whether that still holds.

The service is killed, hangs, or the host is rebooted, and the file stays: so it names the boot, the process and the
moment on the monotonic clock, which nobody can set and which stands still while the host is suspended.
"""

from datetime import datetime
from typing import Annotated, Literal, NamedTuple

import msgspec

from agent.core.format import duration_text, moment_text, printable
from agent.core.model import CAUSES, Cause, Confidence, Dated, Silence
from agent.core.stored import Time

# The file is rewritten at every change, and at least this often.
HEARTBEAT_SECONDS = 30.0
# systemd restarts a service that hangs for a minute.
STALE_SECONDS = 90.0
ONE_LINE = 80


class Waiting(NamedTuple):
    """What a channel has not delivered: how many notices, since when the oldest has been due, and why.

    What a silence or the hourly limit holds back is not due yet.
    """

    notices: int = 0
    since: datetime | None = None
    why: str | None = None


class OpenIncident(Dated, frozen=True, kw_only=True):
    """An open incident, without what only members of the service's group may read."""

    id: str
    class_: Literal["event", "pressure"] = msgspec.field(name="class")
    host: str | None
    is_elsewhere: bool
    cause: Cause
    confidence: Confidence
    opened_at: Time


class Channel(Dated, frozen=True, kw_only=True):
    """A channel, and what waits for it: ``since`` when, and ``why`` if not just for its turn."""

    name: str
    type: str
    waiting: int
    since: Time | None
    why: str | None


class Status(Dated, frozen=True, kw_only=True):
    """The content of status.json; ``last`` is the id of the newest incident.

    ``monotonic_seconds`` is CLOCK_MONOTONIC at the writing; ``pid`` counts in the PID namespace of this inode.
    """

    schema: Literal["sockmem-agent/status/1"] = "sockmem-agent/status/1"
    version: str
    is_running: bool
    written_at: Time
    monotonic_seconds: float
    boot_id: str | None
    pid: Annotated[int, msgspec.Meta(gt=0)]
    pid_namespace: int | None
    started_at: Time
    following: str
    directory: str
    open: tuple[OpenIncident, ...]
    last: str | None
    channels: tuple[Channel, ...]
    silence: Silence | None
    troubles: tuple[str, ...]


STATUS = msgspec.json.Decoder(Status)


class Reader(NamedTuple):
    """Where and when the file is read; ``has_process``: whether its pid is that of a process."""

    now: datetime
    monotonic_seconds: float
    boot_id: str | None
    pid_namespace: int | None
    has_process: bool


Level = Literal["OK", "WARNING", "CRITICAL", "UNKNOWN"]


def why_not_running(status: Status, reader: Reader) -> str | None:
    """Return why the service that wrote this is not running, or not known to be; None if it is."""
    last = moment_text(status.written_at, reader.now)
    if not status.is_running:
        return f"stopped {last}"
    if status.boot_id != reader.boot_id:
        return "not started since the host booted"
    if status.pid_namespace == reader.pid_namespace and not reader.has_process:
        return f"ended unexpectedly after {last}"
    age = reader.monotonic_seconds - status.monotonic_seconds
    if not -1 <= age <= STALE_SECONDS:
        return f"no sign of life for {duration_text(abs(age))}"
    return None


def check(status: Status, reader: Reader) -> tuple[Level, str]:
    """Judge the host by its open incidents, in one line of at most 80 characters."""
    why = why_not_running(status, reader)
    if why:
        return "UNKNOWN", one_line("UNKNOWN", f"not running: {why}")
    worst = min(status.open, key=lambda each: (each.class_ != "event", each.opened_at), default=None)
    level: Level = "OK" if worst is None else "CRITICAL" if worst.class_ == "event" else "WARNING"
    said = [open_text(worst, reader.now) if worst else "no open incident"]
    if len(status.open) > 1:
        said.append(f"{len(status.open) - 1} more")
    said += ["silenced"] if status.silence else []
    said += [f"{each.name}: {each.waiting} waiting" for each in status.channels if each.waiting]
    return level, one_line(level, "; ".join([*said, *status.troubles]))


def one_line(level: Level, text: str) -> str:
    """Join a level and a text in 80 characters that every terminal and log can bear."""
    line = printable(f"{level}: {text}").encode("ascii", "backslashreplace").decode()
    return line if len(line) <= ONE_LINE else f"{line[: ONE_LINE - 3]}..."


def open_text(incident: OpenIncident, now: datetime) -> str:
    """Say the cause of an open incident and since when it is open."""
    warning = "early warning, " if incident.class_ == "pressure" else ""
    where = f" on {incident.host}" if incident.is_elsewhere else ""
    since = moment_text(incident.opened_at, now)
    return f"{warning}{CAUSES[incident.cause]} ({incident.confidence}){where} since {since}"


def waiting_text(channel: Channel, now: datetime) -> str:
    """Say what waits for a channel: "2 waiting since 14:02 UTC: HTTP 503"."""
    since = f" since {moment_text(channel.since, now)}" if channel.since else ", held back by a silence or hourly limit"
    return f"{channel.waiting} waiting{since}" + (f": {channel.why}" if channel.why else "")


def silence_text(silence: Silence, now: datetime) -> str:
    """Say until when nothing new is notified, and why: "until 15:30 UTC: deploying"."""
    return f"until {moment_text(silence.until, now)}: {silence.reason}"
