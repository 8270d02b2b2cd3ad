"""One line of a text log, in any of the formats in the wild: whether the kernel speaks, and what it said.

The envelope's grammar knows nothing of the messages. rsyslog, syslog-ng, busybox, OpenWrt, journalctl(1), dmesg(1),
RFC 3164, RFC 5424 and raw /dev/kmsg records all come down to: priority, stamp, host, facility, tag, printk's stamps::

    Dec 14 07:27:57 Home kernel: [3013902.907527] TCP: too many orphaned sockets
    <6>1 2024-08-18T08:33:14.204518+02:00 jp58 kernel - - [meta sequenceId="17"] TCP: too many orphaned sockets
    Wed Feb 19 16:41:00 2020 kern.info kernel: [104454.288966] TCP: too many orphaned sockets
    kern  :info  : [Mon Nov 16 14:55:04 2020] TCP: out of memory -- consider tuning tcp_mem
    [  520.897104] [     C3] TCP: too many orphaned sockets
    2024-08-18T06:33:14.20451 kern.info: [ 1234.567890] TCP: too many orphaned sockets

Metalog, F5, Chrome OS, NX-OS and svlogd write heads of their own; a container's or cloud's log adds one before another.
A stamp without the kernel's tag, another tag or another facility means another speaker. Nothing is searched for: the
line is read from its start, so a line that quotes a record is no record.
"""

import re
from collections.abc import Callable
from datetime import datetime

import msgspec

from agent.core.cursor import Cursor
from agent.core.kernel.devkmsg import parse_devkmsg
from agent.core.kernel.messages import REPEATED
from agent.core.logs.dmesg import FACILITY, take_stamps
from agent.core.logs.headers import (
    CARRIED,
    FILE,
    FLUENTD,
    METALOG,
    NXOS,
    PRINTK,
    REPEAT_LINE,
    REPEATED_INSIDE,
    SOCKLOG,
    TAG_ONLY,
    TAGGED,
    TALOS,
    UNTAGGED,
)
from agent.core.logs.jsonlog import parse_json
from agent.core.logs.timestamps import LOGREAD_EPOCH, NAMED, NUMBERED, ZONES, is_zoned, match_stamp, read_stamp
from agent.core.model import LogRecord


class Envelope(msgspec.Struct, frozen=True):
    """What the kernel said, and what stood around it; ``count`` is n for "message repeated n times"."""

    text: str
    at: datetime | None = None
    uptime: float | None = None
    host: str | None = None
    count: int = 1


COLOUR = re.compile(r"\x1b(?:\[[0-9;:]*[mK]|\(B)")
# Documents indent what they quote; dmesg -t and journalctl -o cat, which print bare text, do not.
CODE = ("    ", "\t")
# Extended netconsole may write the kernel's release before the record (Documentation/networking/netconsole).
DEVKMSG = re.compile(r"(?:\d{1,3}\.\d{1,5}[\w.+~-]{0,64},)?(?P<record>\d{1,4},\d+,\d+,[^;]*;.*)", re.DOTALL)
# An octet count may stand before the priority (RFC 6587).
PRIORITY = re.compile(r"(?:\d{1,6} )?<(\d{1,3})>")
# rsyslog leaves the blank before the text that RFC 3164 had behind the tag: there are two then.
RFC5424 = re.compile(
    r"1 (?P<stamp>\S+) (?P<host>\S+) kernel \S+ \S+ "
    r"(?:-|(?:\[[^\s\]=\"]+(?: [^\s\]=\"]+=\"(?:[^\"\\\]]|\\.)*\")*\])+)"
    r"(?: +\ufeff?(?P<text>.*))?",
    re.DOTALL,
)
CALLER = re.compile(r" *\[ *[TC]\d+\] ?")
PRINTK_STAMP = re.compile(r"\[ *(\d{1,12}\.\d{1,9})\] ?")


def parse(line: str, now: datetime) -> Envelope | None:
    """Take the envelope off one line; None when another than the kernel speaks.

    ``now`` is the newest moment that the line can stem from (the file's mtime, or the clock), for stamps without a
    year; its tzinfo is the zone of stamps without one. A line without any envelope is taken for bare kernel text.
    """
    line = (COLOUR.sub("", line) if "\x1b" in line else line).strip("\r\n\0\ufeff\x1e")
    quoted = line.startswith(CODE)
    line = line.strip().removeprefix("data: ")
    if line.startswith("{"):
        return _parse_json(line, now)
    devkmsg = DEVKMSG.match(line)
    if devkmsg is not None:
        return _parse_devkmsg(devkmsg["record"])
    file = FILE.match(line)
    rest = _behind_priority(line[file.end() :] if file else line)
    if rest is None or rest.startswith("1 "):
        return _parse_rfc5424(rest or "", now)
    envelope = _parse_text(rest, now)
    return None if quoted and envelope is not None and envelope.text == rest else envelope


def to_record(
    raw: bytes,
    *,
    now: datetime,
    source: str,
    ordinal: int,
    times: int = 1,
    position: Callable[[], Cursor] | None = None,
) -> LogRecord | None:
    """Make a record of one line of a text log, or None when it is not the kernel's; bad UTF-8 is replaced.

    ``times`` is for how many lines it stands; ``position`` tells the place behind it.
    """
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
        count=envelope.count * times,
        cursor=position() if position else None,
    )


def _parse_json(line: str, now: datetime, *, kern: bool = False) -> Envelope | None:
    record = parse_json(line, now, kern=kern)
    if record is None:
        return None
    message = record.message.strip()
    inner = _parse_carried(message, now)
    if inner is None:
        if record.carried:
            return None
        inner = _unwrap(message, None, None)
    uptime = record.uptime if inner.uptime is None else inner.uptime
    return msgspec.structs.replace(
        inner, at=record.at or inner.at, uptime=uptime, host=inner.host or _host(record.host)
    )


def _parse_carried(line: str, now: datetime) -> Envelope | None:
    """Read a line out of another's log; None unless it has a whole head of its own, with the kernel's tag."""
    rest = _behind_priority(line)
    if rest is None or rest.startswith("1 "):
        return _parse_rfc5424(rest or "", now)
    stamp = match_stamp(rest)
    return None if stamp is None else _tagged(rest[stamp.end() :], stamp, now)


def _behind_priority(line: str) -> str | None:
    """Take the priority off; None when its facility is not 0, the kernel's, which has the priorities 0 to 7."""
    match = PRIORITY.match(line)
    if match is None:
        return line
    return line[match.end() :].lstrip() if int(match[1]) <= 7 else None  # noqa: PLR2004 - eight levels a facility


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
    talos = TALOS.fullmatch(line)
    if talos is not None:
        stamp = NUMBERED.fullmatch(talos["stamp"])
        return _unwrap(talos["text"], read_stamp(stamp, now) if stamp else None, talos["host"])
    facility = FACILITY.match(line)
    if facility is not None:
        if facility["facility"] != "kern":
            return None
        line = line[facility.end() :]
    for parser in (_parse_dmesg, _parse_stamped):
        known, envelope = parser(line, now)
        if known:
            return envelope
    tag = TAG_ONLY.fullmatch(line)
    return _unwrap(line if tag is None else tag["text"], None, None)


def _parse_dmesg(line: str, now: datetime) -> tuple[bool, Envelope | None]:
    """Read what dmesg and journalctl -o short-monotonic write: stamps, and at once the text or host and tag."""
    stamps = take_stamps(line, now)
    if stamps is None:
        return False, None
    rest = line[stamps.end :]
    envelope = _tagged(rest, None, now) or _unwrap(rest.strip(), None, None)
    uptime = envelope.uptime if stamps.uptime is None else stamps.uptime
    return True, msgspec.structs.replace(envelope, at=stamps.at, uptime=uptime)


def _parse_stamped(line: str, now: datetime) -> tuple[bool, Envelope | None]:
    """Read a date, then optionally host and facility, then the kernel's tag: what syslog daemons write."""
    bracket = line.startswith("[")
    stamp = match_stamp(line[bracket:])
    if stamp is None or (bracket and not line.startswith("]", stamp.end() + 1)):
        return False, None
    rest = LOGREAD_EPOCH.sub("", line[stamp.end() + 2 * bracket :])
    envelope = _tagged(rest, stamp, now) or _parse_head(rest, stamp, now)
    if envelope is not None:
        return True, envelope
    untagged = UNTAGGED.fullmatch(rest)
    if untagged is not None:
        return True, _unwrap(untagged["text"], read_stamp(stamp, now), _host(untagged["host"]))
    repeat = REPEAT_LINE.fullmatch(rest)
    if repeat is not None and REPEATED.fullmatch(repeat["text"]):
        return True, Envelope(repeat["text"], at=read_stamp(stamp, now), host=_host(repeat["host"]))
    return True, _unwrap(rest.strip(), read_stamp(stamp, now), None) if bracket and is_zoned(stamp) else None


def _tagged(rest: str, stamp: re.Match[str] | None, now: datetime) -> Envelope | None:
    """Read host, facility and tag, in the orders that daemons have; None when the tag is not the kernel's."""
    match = TAGGED.fullmatch(rest) if "kernel" in rest else None
    if match is None or {match["before"], match["behind"]} - {None, "kern"}:
        return None
    zone, host = match["zone"], match["host"]
    named, zoned = (stamp.re is NAMED, is_zoned(stamp)) if stamp else (False, False)
    if (match["level"] and not zoned) or (match["severity"] and not named and not (host and zoned)):
        return None
    if host in ZONES and named:
        zone, host = host, None
    if zone and (stamp is None or stamp.groupdict().get("zone", "")):
        return None
    # Behind any stamp but RFC 3164's it is applications that write brackets: their levels, threads and modules. Where
    # printk's stamp follows, somebody has masked a host.
    if host and host[0] in "<[" and not named and not PRINTK.match(match["text"]):
        return None
    return _unwrap(match["text"], read_stamp(stamp, now, zone) if stamp else None, _host(host))


def _parse_head(rest: str, stamp: re.Match[str], now: datetime) -> Envelope | None:
    """Read metalog's head, NX-OS's, socklog's or fluentd's; behind a zone also another line with its own head."""
    heads = (METALOG, NXOS, SOCKLOG) if stamp.re is NAMED else (NXOS, SOCKLOG)
    match = next((match for head in heads if (match := head.fullmatch(rest))), None)
    fluentd = FLUENTD.fullmatch(rest)
    if fluentd is not None:
        match, envelope = fluentd, _parse_json(fluentd["object"], now, kern=True)
    elif match is not None:
        envelope = _parse_carried(match["text"], now) or _unwrap(match["text"], None, None)
    else:
        match = CARRIED.fullmatch(rest) if is_zoned(stamp) else None
        envelope = _parse_carried(match["text"], now) if match else None
    if match is None or envelope is None:
        return None
    # The outer stamp has a zone and a year, or it is all there is.
    host = envelope.host or match.groupdict().get("host") or None
    return msgspec.structs.replace(envelope, at=read_stamp(stamp, now) or envelope.at, host=host)


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
        name = name.strip(':,()"')
    return name.rpartition("@")[2] if name not in ("-", "(none)") else None
