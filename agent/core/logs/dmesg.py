"""The stamps that dmesg(1) and journalctl -o short-monotonic write before a record of the kernel's ring.

dmesg of util-linux has one stamp for each --time-format that it was given, in the language of the reader (LC_TIME);
journalctl fills up the first difference of -o short-delta with blanks::

    [  179.636034] [Sun Nov 22 18:50:14 2026] [  +0.000013] TCP: too many orphaned sockets
    [dim. nov. 22 18:50:14 2026 <    0,000000>] TCP: too many orphaned sockets
    [févr.27 06:53] TCP: too many orphaned sockets
    2026-11-22T18:50:14,636034+00:00 TCP: too many orphaned sockets
    [ 4999.000000                ] jp58 kernel: TCP: too many orphaned sockets
"""

import re
from datetime import datetime
from typing import NamedTuple

from agent.core.logs.headers import LEVEL
from agent.core.logs.timestamps import MONTH, NAMED, NUMBERED, read_stamp


class Stamps(NamedTuple):
    """What the stamps at the start of a line say, and where they end."""

    end: int
    at: datetime | None
    uptime: float | None


FACILITY = re.compile(r"(?P<facility>[a-z]+[0-7]?) *:(?:emerg|alert|crit|err|warn|notice|info|debug) *: ?")
_DELTA = r"<[ +]*-?\d+[.,]\d+ *>"
_WORD = r"[^\W\d_]{1,9}\.?"
# A month that we do not know costs the moment, not the record: weekday, clock and year are proof enough. Without them
# it has to be a month that we know: a chat has [alice 12 08:40].
STAMP = re.compile(
    rf" *(?:\[ *(?P<uptime>\d{{1,12}}\.\d{{1,9}})(?: +{_DELTA}| *)\]"
    rf"|\[(?P<clock>(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) [^\]<]{{15,26}}?)(?: +{_DELTA})?\]"
    rf"|\[(?!{LEVEL} ){_WORD} +(?P<local>(?:{_WORD}|\d{{1,2}}[月월]) +\d{{1,2}} \d\d:\d\d:\d\d \d{{4}})"
    rf"(?: +{_DELTA})?\]"
    rf"|\[ *(?:\+\d+[.,]\d+|{_DELTA}|(?i:{MONTH})\.? ?\d{{1,2}} \d\d:\d\d) *\]"
    # Only dmesg --time-format iso writes a comma before exactly six digits.
    r"|(?P<iso>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d,\d{6}[+-]\d\d:?\d\d)(?= ))"
)


def take_stamps(line: str, now: datetime) -> Stamps | None:
    """Read all stamps at the start of a line, or None when there is none; the first of each sort counts."""
    end, at, uptime = 0, None, None
    while (match := STAMP.match(line, end)) is not None:
        end = match.end()
        if uptime is None and match["uptime"]:
            uptime = float(match["uptime"])
        at = at or _moment(match, now)
    return Stamps(end, at, uptime) if end else None


def _moment(match: re.Match[str], now: datetime) -> datetime | None:
    name = match["clock"] or match["local"]
    stamp = NAMED.fullmatch(name.strip()) if name else NUMBERED.fullmatch(match["iso"] or "")
    return None if stamp is None else read_stamp(stamp, now)
