"""One line of a text log, in any of the formats in the wild: whether the kernel speaks, and what it said.

The envelope's grammar knows nothing of the messages. rsyslog, syslog-ng, busybox, OpenWrt, journalctl(1), dmesg(1),
RFC 3164, RFC 5424 and raw /dev/kmsg records all come down to: priority, stamp, host, facility, tag, printk's stamps::

    Dec 14 07:27:57 Home kernel: [3013902.907527] TCP: too many orphaned sockets
    <6>1 2024-08-18T08:33:14.204518+02:00 jp58 kernel - - [meta sequenceId="17"] TCP: too many orphaned sockets
    Wed Feb 19 16:41:00 2020 kern.info kernel: [104454.288966] TCP: too many orphaned sockets
    kern  :info  : [Mon Nov 16 14:55:04 2020] TCP: out of memory -- consider tuning tcp_mem
    [  520.897104] [     C3] TCP: too many orphaned sockets

A stamp without the kernel's tag, another tag, or a facility that is not the kernel's means another speaker. Nothing is
searched for: the line is read from its start, so a line that quotes a record is no record.
"""

import re
from datetime import datetime

import msgspec

from agent.core.jsonlog import parse_json
from agent.core.kmsg import REPEATED, parse_devkmsg
from agent.core.model import Cursor, LogRecord
from agent.core.stamps import EPOCH, NAMED, NUMBERED, read_stamp


class Envelope(msgspec.Struct, frozen=True):
    """What the kernel said, and what stood around it; ``count`` is n for "message repeated n times"."""

    text: str
    at: datetime | None = None
    uptime: float | None = None
    host: str | None = None
    count: int = 1


COLOUR = re.compile(r"\x1b(?:\[[0-9;]*[mK]|\(B)")
# Documents indent what they quote; dmesg -t and journalctl -o cat, which print bare text, do not.
CODE = ("    ", "\t")
DEVKMSG = re.compile(r"\d{1,4},\d+,\d+,[^;]*;")
# An octet count may stand before the priority (RFC 6587).
PRIORITY = re.compile(r"(?:\d{1,6} )?<(\d{1,3})>")
RFC5424 = re.compile(
    r"1 (?P<stamp>\S+) (?P<host>\S+) kernel \S+ \S+ "
    r"(?:-|(?:\[[^\s\]=\"]+(?: [^\s\]=\"]+=\"(?:[^\"\\\]]|\\.)*\")*\])+)"
    r"(?: \ufeff?(?P<text>.*))?",
    re.DOTALL,
)
DMESG_FACILITY = re.compile(r"(?P<facility>[a-z]+[0-7]?) *:(?:emerg|alert|crit|err|warn|notice|info|debug) *: ?")
DMESG_STAMP = re.compile(
    r"\[ *(?P<uptime>\d{1,12}\.\d{3,9})(?: +<[ +]*-?\d+\.\d+ *>)?\]"
    r"|\[(?P<clock>(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) [^\]<]{15,22}?)(?: +<[ +]*-?\d+\.\d+ *>)?\]"
    r"|\[ *(?:\+\d+\.\d+|<[ +]*-?\d+\.\d+ *>|[A-Z][a-z]{2} ?\d{1,2} \d\d:\d\d) *\]"
)
# Only dmesg --time-format iso writes a comma before exactly six digits, an offset and then no host.
DMESG_ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d,\d{6}[+-]\d\d:\d\d(?= )")
CALLER = re.compile(r" *\[ *[TC]\d+\] ?")
PRINTK_STAMP = re.compile(r"\[ *(\d{1,12}\.\d{3,9})\] ?")
# logread -t of OpenWrt writes the epoch behind the date.
LOGREAD_EPOCH = re.compile(r"\s+\[\d{9,10}\.\d{3}\](?=\s)")
FACILITY = (
    r"[<\[(]?(?P<{}>kern|user|mail|daemon|auth|syslog|lpr|news|uucp|cron|authpriv|security|ftp|local[0-7])[.|]=?"
    r"(?:emerg|panic|alert|crit|err|error|warn|warning|notice|info|debug)(?:<\d+>)?[>\])]?:? +"
)
# No tag is taken for a host (they end in a colon), nor the level of an application's log.
HOST = (
    r"(?!(?:TRACE|DEBUG|INFO|NOTICE|WARN|WARNING|ERROR|CRIT|CRITICAL|ALERT|FATAL|EMERG)\b)"
    r"(?P<host>[\w.:@%/,~+*#$\ufffd-]+(?<![^:]:)|[\w.-]+,[\w.,-]+:|<[\w.-]+>|\[[\w.*-]+\]|\(none\)) +"
)
TAGGED = re.compile(
    rf"\s+(?:{FACILITY.format('before')})?(?:{HOST})?(?:{FACILITY.format('behind')})?"
    r"(?:kernel(?:\[0?\])?:(?: :)?\s*|kernel - - (?:- )?)(?P<text>.*)",
    re.DOTALL,
)
# netconsole through a syslog server, and dmesg through ts(1), have printk's stamp where the tag should be.
UNTAGGED = re.compile(rf"\s+(?:{HOST})?(?P<text>\[ *\d{{1,12}}\.\d{{6}}\].*)", re.DOTALL)
REPEAT_LINE = re.compile(r"\s+(?:(?P<host>\S+) +)??(?:kernel: )?(?P<text>[Ll]ast message .*)", re.DOTALL)
TAG_ONLY = re.compile(r"kernel(?:\[0?\])?:(?: :)?\s*(?P<text>.*)", re.DOTALL)
REPEATED_INSIDE = re.compile(r"message repeated (\d{1,9}) times?: \[ ?(.*)\]", re.DOTALL)


def parse(line: str, now: datetime) -> Envelope | None:
    """Take the envelope off one line; None when another than the kernel speaks.

    ``now`` is the newest moment that the line can stem from (the file's mtime, or the clock), for stamps without a
    year; its tzinfo is the zone of stamps without one. A line without any envelope is taken for bare kernel text.
    """
    line = COLOUR.sub("", line).strip("\r\n\0\ufeff\x1e")
    quoted = line.startswith(CODE)
    line = line.strip().removeprefix("data: ")
    if line.startswith("{"):
        return _parse_json(line, now)
    if DEVKMSG.match(line):
        return _parse_devkmsg(line)
    priority = PRIORITY.match(line)
    if priority is not None:
        if int(priority[1]) > 7:  # noqa: PLR2004 - facility 0, the kernel's, has the priorities 0 to 7
            return None
        line = line[priority.end() :].lstrip()
    if line.startswith("1 "):
        return _parse_rfc5424(line, now)
    envelope = _parse_text(line, now)
    return None if quoted and envelope is not None and envelope.text == line else envelope


def to_record(
    raw: bytes, *, now: datetime, source: str, ordinal: int, cursor: Cursor | None = None
) -> LogRecord | None:
    """Make a record of one line of a text log, or None when it is not the kernel's; bad UTF-8 is replaced."""
    line = raw.decode(errors="replace").lstrip("\0").rstrip("\r\n")
    envelope = parse(line, now)
    if envelope is None:
        return None
    return LogRecord(
        text=envelope.text,
        line=line,
        source=source,
        provenance="claimed",
        ordinal=ordinal,
        at=envelope.at,
        uptime=envelope.uptime,
        host=envelope.host,
        count=envelope.count,
        cursor=cursor,
    )


def _parse_json(line: str, now: datetime) -> Envelope | None:
    record = parse_json(line, now)
    if record is None:
        return None
    inner = _unwrap(record.message.strip(), record.at, _host(record.host))
    return inner if inner.uptime is not None else msgspec.structs.replace(inner, uptime=record.uptime)


def _parse_devkmsg(line: str) -> Envelope | None:
    try:
        record = parse_devkmsg(line)
    except ValueError:
        return None
    return Envelope(record.text.strip(), uptime=record.timestamp) if record.facility == 0 else None


def _parse_rfc5424(line: str, now: datetime) -> Envelope | None:
    match = RFC5424.fullmatch(line)
    if match is None:
        return None
    stamp = NUMBERED.fullmatch(match["stamp"])
    if stamp is None and match["stamp"] != "-":
        return None
    return _unwrap(match["text"] or "", read_stamp(stamp, now) if stamp else None, _host(match["host"]))


def _parse_text(line: str, now: datetime) -> Envelope | None:
    facility = DMESG_FACILITY.match(line)
    if facility is not None:
        if facility["facility"] != "kern":
            return None
        line = line[facility.end() :]
    for parser in (_parse_dmesg, _parse_stamped):
        known, envelope = parser(line, now)
        if known:
            return envelope
    tag = TAG_ONLY.fullmatch(line)
    text = line if tag is None else tag["text"]
    # journalctl -o export and -o verbose write one field a line; who spoke stands on another one.
    return _unwrap(text.removeprefix("MESSAGE="), None, None)


def _parse_dmesg(line: str, now: datetime) -> tuple[bool, Envelope | None]:
    """Read what dmesg and journalctl -o short-monotonic write: a bracket, and at once the text or host and tag."""
    iso = DMESG_ISO.match(line)
    if iso is not None:
        stamp = NUMBERED.fullmatch(iso[0])
        return True, _unwrap(line[iso.end() :].strip(), read_stamp(stamp, now) if stamp else None, None)
    match = DMESG_STAMP.match(line)
    if match is None:
        return False, None
    uptime = None if match["uptime"] is None else float(match["uptime"])
    clock = NAMED.fullmatch(match["clock"].strip()) if match["clock"] else None
    rest = line[match.end() :]
    tagged = _tagged(rest, None)
    envelope = tagged if tagged is not None else _unwrap(rest.strip(), None, None)
    if envelope.at is None and clock is not None:
        envelope = msgspec.structs.replace(envelope, at=read_stamp(clock, now))
    return True, envelope if uptime is None else msgspec.structs.replace(envelope, uptime=uptime)


def _parse_stamped(line: str, now: datetime) -> tuple[bool, Envelope | None]:
    """Read a date, then optionally host and facility, then the kernel's tag: what syslog daemons write."""
    match = NAMED.match(line) or NUMBERED.match(line) or EPOCH.match(line)
    if match is None:
        return False, None
    at = read_stamp(match, now)
    epoch = LOGREAD_EPOCH.match(line, match.end())
    rest = line[epoch.end() if epoch else match.end() :]
    tagged = _tagged(rest, at)
    if tagged is not None:
        return True, tagged
    untagged = UNTAGGED.fullmatch(rest)
    if untagged is not None:
        return True, _unwrap(untagged["text"], at, _host(untagged["host"]))
    repeat = REPEAT_LINE.fullmatch(rest)
    if repeat is not None and REPEATED.fullmatch(repeat["text"]):
        return True, Envelope(repeat["text"], at=at, host=_host(repeat["host"]))
    return True, None


def _tagged(rest: str, at: datetime | None) -> Envelope | None:
    """Read host, facility and tag, in the orders that daemons have; None when the tag is not the kernel's."""
    match = TAGGED.fullmatch(rest)
    if match is None or {match["before"], match["behind"]} - {None, "kern"}:
        return None
    return _unwrap(match["text"], at, _host(match["host"]))


def _unwrap(text: str, at: datetime | None, host: str | None) -> Envelope:
    """Take off what may stand between tag and text: "message repeated", a level, printk's stamp and its caller."""
    count = 1
    repeated = REPEATED_INSIDE.fullmatch(text.rstrip())
    if repeated is not None:
        count, text = int(repeated[1]), repeated[2].strip()
    level = PRIORITY.match(text)
    if level is not None and int(level[1]) <= 7:  # noqa: PLR2004 - a kernel level, left over in the text
        text = text[level.end() :]
    stamp = PRINTK_STAMP.match(text)
    uptime = None if stamp is None else float(stamp[1])
    text = text if stamp is None else text[stamp.end() :]
    caller = CALLER.match(text)
    text = text if caller is None else text[caller.end() :]
    return Envelope(text.rstrip(), at=at, uptime=uptime, host=host, count=count)


def _host(name: str | None) -> str | None:
    """Clean a host's name: syslog-ng writes ``s_all@jp58``, RFC 5424 ``-`` for none, UniFi ``U7P,f09fc2,v4.3:``."""
    if name is None:
        return None
    if "," in name:
        name = name.rstrip(":,")
    return name.rpartition("@")[2] if name not in ("-", "(none)") else None
