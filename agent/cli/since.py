"""The times ``--since`` accepts, in the local zone unless they have their own.

Examples::

90s 30m 2h 3d 1w 1h30m               that long ago
14:00 14:00:30                       the most recent such time
today yesterday 2026-11-22           the start of that day
2026-11-22 14:00                     as ``incidents list`` shows it
2026-11-22T14:00:30.5Z               RFC 3339
"""

import re
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from typing import TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., object])
EXAMPLES = "2h, 3d, 14:00, today, yesterday, 2026-11-22, '2026-11-22 14:00' or 2026-11-22T14:00:00Z"
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_SPAN = re.compile(r"(?:\d{1,9}[smhdw])+", re.ASCII)
_CLOCK = re.compile(r"(?P<hour>\d\d?):(?P<minute>\d\d)(?::(?P<second>\d\d))?", re.ASCII)
_DATE = re.compile(
    rf"(?P<date>\d{{4}}-\d\d-\d\d)(?:[T ]{_CLOCK.pattern}(?:\.(?P<fraction>\d+))?)? ?(?P<zone>Z|UTC|[+-]\d\d:?\d\d)?",
    re.IGNORECASE | re.ASCII,
)


def read_option(ctx: click.Context, param: click.Parameter, value: str | None) -> datetime | None:
    """Parse the value of an option, or show examples of valid ones."""
    moment = None if value is None else read_time(value, datetime.now(timezone.utc))
    if value is not None and moment is None:
        message = f"{value!r} is not a time; use one like {EXAMPLES}"
        raise click.BadParameter(message, ctx, param)
    return moment


def since_option(what: str) -> Callable[[Command], Command]:
    """Create the option of a command that skips ``what``."""
    return click.option(
        "--since", metavar="TIME", callback=read_option, help=f"Skip {what} before this time: {EXAMPLES}."
    )


def read_time(text: str, now: datetime) -> datetime | None:
    """Return the time a text means at ``now`` (aware), or None."""
    text = text.strip()
    today = now.astimezone().date()
    try:
        if (span := read_span(text)) is not None:
            return now - span
        if text in ("today", "yesterday"):
            return datetime.combine(today - timedelta(days=text == "yesterday"), time()).astimezone()
        if clock := _CLOCK.fullmatch(text):
            moment = datetime.combine(today, _time(clock)).astimezone()
            return moment if moment <= now else datetime.combine(today - timedelta(days=1), _time(clock)).astimezone()
        if (match := _DATE.fullmatch(text)) is None:
            return None
        plain = datetime.combine(date.fromisoformat(match["date"]), _time(match) if match["hour"] else time())
        fraction = timedelta(microseconds=int((match["fraction"] or "")[:6].ljust(6, "0")))
        zone = datetime.strptime(match["zone"].upper().replace("UTC", "Z"), "%z").tzinfo if match["zone"] else None
        return (plain.replace(tzinfo=zone) if zone else plain.astimezone()) + fraction
    except (ValueError, OverflowError):
        return None


def read_span(text: str) -> timedelta | None:
    """Return the span of time that a text means, 30m or 1h30m; None if it is none. Raises OverflowError."""
    if not _SPAN.fullmatch(text):
        return None
    return timedelta(seconds=sum(int(part[:-1]) * _UNITS[part[-1]] for part in re.findall(r"\d+\D", text)))


def _time(match: re.Match[str]) -> time:
    return time(int(match["hour"]), int(match["minute"]), int(match["second"] or 0))
