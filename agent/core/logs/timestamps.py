"""The ways in which logs write when a line was written, and what moment that was.

No man page rules them all: RFC 3164 and RFC 5424, ctime(3), dmesg(1), journalctl(1), logread of OpenWrt, syslog-ng::

    Aug 18 08:33:14          Aug 18 2024 08:33:14      2024 Aug 18 08:33:14     Wed Feb 19 16:41:00 2020
    2024-08-18T08:33:14.204518+02:00                   Sun 2024-08-18 08:33:14 CEST
    1723962794.204518        [Mon Nov 16 14:55:04 2020]        2020-11-16T14:55:04,372320+00:00
    Aug 18, 2024 @ 08:33:14.204 (Kibana)
    août 14 15:39:19         11月 22 18:50:14
    Sun, 18 Aug 2024 06:33:14 GMT (HTTP)               8/18/2024, 8:33:14.204 AM (Azure)      1723962794204
    18.08.2024 08:33:14
    2024:08:18-08:33:14 (Sophos)           2024-08-18_06:33:14.20451, @4000000066c195b40c30a9f8 (svlogd and multilog)
"""

import re
from datetime import datetime, timedelta, timezone, tzinfo
from functools import lru_cache

from agent.core.times import YEARS, from_epoch

# dmesg -T and journalctl -o short write the months as the reader's LC_TIME abbreviates them. These are glibc's, less
# their dots: en de fr es it pt nl sv da nb fi pl cs sk hu ro tr id ru uk. Croatian is left out, where "srp" is July and
# not Czech for August. Chinese, Japanese and Korean count.
MONTHS = {
    name: number
    for number, names in enumerate(
        (
            "jan jän janv ene gen led sty tammi ian oca янв січ",
            "feb febr févr fev helmi lut úno şub фев лют",
            "mar mär mars mrt márc maalis bře мар бер",  # noqa: RUF001 - Cyrillic is meant
            "apr april avril abr ápr huhti kwi dub nis апр кві",
            "may mai mag maj máj mei touko kvě мая май тра",
            "jun juni juin giu jún iun kesä cze čen haz июн чер",
            "jul juli juil lug júl iul heinä lip čec tem июл лип",
            "aug août ago agu elo sie srp ağu авг сер",  # noqa: RUF001 - Cyrillic is meant
            "sep sept set szept syys wrz zář eyl сен вер",
            "oct okt ott out loka paź říj eki окт жов",
            "nov marras lis kas ноя лис",
            "dec déc dez dic des joulu gru pro ara дек гру",  # noqa: RUF001 - Cyrillic is meant
        ),
        start=1,
    )
    for name in names.split()
}
# A pattern of them for others' patterns, without the dot. The look-ahead is for speed: most words are no month.
MONTH = rf"(?:(?=[^\W\d_]{{2,6}}\.? *\d)(?:{'|'.join(MONTHS)})|\d{{1,2}}[月월])"
# Hours east of Greenwich, of the abbreviations that mean one thing in logs; any other is the local zone's or unknown.
ZONES = {
    name: hours
    for hours, names in (
        (0, "Z UTC GMT WET"),
        (1, "WEST CET"),
        (2, "CEST EET"),
        (3, "EEST MSK"),
        (9, "JST KST"),
        (10, "AEST"),
        (11, "AEDT"),
        (12, "NZST"),
        (13, "NZDT"),
        (-4, "EDT"),
        (-5, "EST CDT"),
        (-6, "MDT"),
        (-7, "MST PDT"),
        (-8, "PST"),
    )
    for name in names.split()
}
# A stamp without a year may lie this far behind "the newest moment": clocks and zones differ.
SLACK = timedelta(days=1)

_WEEKDAY = r"(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun),? +)"
# The narrow blank is what browsers and Java write before AM and PM since 2022.
_CLOCK = (
    r"(?P<hour>\d\d?):(?P<minute>\d\d):(?P<second>\d\d)(?:[.,](?P<fraction>\d{1,9}))?"
    r"(?:[ \u00a0\u202f](?P<half>(?-i:[AP]))(?-i:M)(?!\w))?"
)
_MONTH = rf"(?P<month>{MONTH})\.? +(?P<day>\d{{1,2}})"
_OFFSET = r"[Zz]|[+-]\d\d:?\d\d|[+-]\d\d"

NAMED = re.compile(
    rf"{_WEEKDAY}?(?:(?P<year>\d{{4}}) )?{_MONTH},? +(?:(?P<year2>\d{{4}}) +)?(?:@ )?{_CLOCK}"
    r"(?: (?P<zone>(?-i:[A-Z]{2,5}))(?= (?:19|20)\d\d(?![\w.:-])))?(?: (?P<year3>(?:19|20)\d\d)(?![\w.:-]))?",
    re.IGNORECASE,
)
NUMBERED = re.compile(
    rf"(?P<weekday>{_WEEKDAY})?(?P<year>\d{{4}})[-/:.](?P<month>\d\d)[-/:.](?P<day>\d\d)[Tt _-]{_CLOCK}"
    rf"(?:(?: (?!z))?(?P<zone>(?:{_OFFSET}|UTC|GMT)(?![\w.:-])|(?(weekday)[A-Z]{{2,5}}(?= )|(?!))))?"
)
DAY_FIRST = re.compile(
    rf"{_WEEKDAY}?(?P<day>\d{{1,2}}) (?P<month>{MONTH}) (?P<year>\d{{4}}) {_CLOCK}"
    rf"(?: (?P<zone>(?:{_OFFSET}|(?-i:[A-Z]{{2,5}}))(?![\w.:-])))?",
    re.IGNORECASE,
)
# Without AM or PM the day may come first.
AMERICAN = re.compile(rf"(?P<month>\d{{1,2}})/(?P<day>\d{{1,2}})/(?P<year>\d{{4}}),? {_CLOCK}(?(half)|(?!))")
DOTTED = re.compile(rf"(?P<day>\d{{1,2}})\.(?P<month>\d{{1,2}})\.(?P<year>\d{{4}}),? {_CLOCK}")
EPOCH = re.compile(
    r"(?:(?P<seconds>\d{9,10}(?:\.\d{1,9})?)|(?P<milliseconds>\d{13})|@(?P<tai>[0-9a-f]{16})[0-9a-f]{8})(?=\s)"
)
# TAI64N counts from 2**62, and its writers take the TAI of 1970: 10 seconds before UTC, leap seconds left out.
TAI_EPOCH = 2**62 + 10
# Only svlogd writes five digits, and its stamps are UTC.
SVLOGD_DIGITS = 5


def match_stamp(line: str, at: int = 0) -> re.Match[str] | None:
    """Match the stamp at a place in a line, in any of the ways, or None."""
    match = NAMED.match(line, at) or NUMBERED.match(line, at) or EPOCH.match(line, at)
    return match or DAY_FIRST.match(line, at) or AMERICAN.match(line, at) or DOTTED.match(line, at)


def is_zoned(stamp: re.Match[str]) -> bool:
    """Return whether a stamp is RFC 3339's to the letter: a ``T`` in its middle and a zone at its end."""
    return stamp.re is NUMBERED and bool(stamp["zone"]) and "T" in stamp[0].removesuffix(stamp["zone"]).upper()


def read_stamp(match: re.Match[str], now: datetime, zone: str | None = None) -> datetime | None:
    """Return the moment of a match of match_stamp, with its zone, or None when there is no such moment.

    Without a year it is the newest that fits before ``now`` and its slack; without a zone it is ``now``'s. ``zone`` is
    one that stood further on in the line.
    """
    return _read(match.re, match.groups(), zone, now, now.tzinfo)


# Most lines of a log share their second with the line before. Moments are equal in whatever zone, hence the zone.
@lru_cache(maxsize=16)
def _read(
    pattern: re.Pattern[str], groups: tuple[str | None, ...], zone: str | None, now: datetime, local: tzinfo | None
) -> datetime | None:
    parts = {name: groups[number - 1] for name, number in pattern.groupindex.items()}
    if "seconds" in parts:
        if parts["milliseconds"]:
            return from_epoch(int(parts["milliseconds"]) / 1000)
        return from_epoch(parts["seconds"] or int(parts["tai"] or "", 16) - TAI_EPOCH)
    year = parts["year"] or parts.get("year2") or parts.get("year3")
    utc = "weekday" in parts and len(parts["fraction"] or "") == SVLOGD_DIGITS
    zone = parts.get("zone") or zone or ("UTC" if utc else None)
    if year is not None:
        return _moment(int(year), parts, zone, local)
    newest_year, newest = _newest(now, local)
    for guess in range(newest_year, newest_year - 9, -1):
        moment = _moment(guess, parts, zone, local) if guess > 1 else None
        if moment is not None and moment <= newest:
            return moment
    return None


@lru_cache(maxsize=4)
def _newest(now: datetime, local: tzinfo | None) -> tuple[int, datetime]:
    """Return the local year and the moment that no stamp is behind; comparing with the local zone costs a call each."""
    del local
    newest = now + SLACK
    return newest.year, newest.astimezone(timezone.utc)


def _moment(year: int, parts: dict[str, str | None], zone: str | None, local: tzinfo | None) -> datetime | None:
    month = parts["month"] or ""
    fraction, half = (parts["fraction"] or "")[:6].ljust(6, "0"), parts.get("half")
    if year not in YEARS:
        return None
    try:
        plain = datetime(  # noqa: DTZ001 - the zone comes in the next step
            year,
            MONTHS.get(month.lower()) or int(month.rstrip("月월")),
            int(parts["day"] or 0),
            int(parts["hour"] or 0) % (12 if half else 24) + (12 if half == "P" else 0),
            int(parts["minute"] or 0),
            min(int(parts["second"] or 0), 59),
            int(fraction),
        )
        offset = _offset(plain, zone, local)
        return None if offset is None else plain.replace(tzinfo=timezone(offset))
    except (ValueError, OverflowError):
        return None


def _offset(plain: datetime, zone: str | None, local: tzinfo | None) -> timedelta | None:
    """Return how far east a zone lies; an unknown abbreviation makes the moment unknown."""
    if not zone:
        return local.utcoffset(plain) if local else None
    if zone[0] in "+-":
        digits = zone[1:].replace(":", "").ljust(4, "0")
        offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
        return -offset if zone[0] == "-" else offset
    here = plain.replace(tzinfo=local)
    if here.tzname() == zone:
        return here.utcoffset()
    hours = ZONES.get(zone.upper())
    return None if hours is None else timedelta(hours=hours)
