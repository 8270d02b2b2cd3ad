"""A line of text is the kernel's when one of its messages ends it and all before that is envelope in a known order.

The parts of an envelope are the same in all logs: stamps, a host, ``kernel:``, a facility with its level, a priority,
printk's brackets. What stands before the message is taken apart, one letter a part, and one regular expression over the
letters is the grammar. A word that is no such part (a program's tag, prose, a quotation) makes the line no record::

    Dec 14 07:27:57 Home kernel: [3013902.907527] TCP: too many orphaned sockets         nhku
    <6>1 2024-08-18T08:33:14.204518+02:00 jp58 kernel - - [meta x="17"] TCP: too ...      pVzha
    kern  :info  : [Mon Nov 16 14:55:04 2020] TCP: out of memory -- consider ...         Kt
    10.0.0.21: kern:    info: [2024-05-06T07:08:09.123Z]: TCP: too many orphaned ...     iKB
    Aug 18 08:33:14 jp58 sshd[7]: TCP: too many orphaned sockets                         nho, and no grammar has an o
"""

import re
from datetime import datetime
from functools import lru_cache
from typing import NamedTuple

import msgspec

from agent.core.kernel.messages import REPEATED, TAIL, TEXT
from agent.core.logs.timestamps import DOTTED, EPOCH, MONTH, NAMED, NUMBERED, ZONES, is_zoned, match_stamp, read_stamp

# rsyslog's "message repeated 3 times: [ ... ]" and NX-OS's "... - kernel" go on behind the message.
SENTENCE = re.compile(
    rf"(?<!\w)(?:(?P<text>{TEXT.pattern}{TAIL})|(?P<repeat>(?i:{REPEATED.pattern})))(?:(?P<behind>\]|- kernel)\s*)?\Z"
)
# What steers a terminal (ECMA-48): colors, the cursor of a console's capture, titles and links.
STEERING = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b\n]{0,400}(?:\x07|\x1b\\)|[ -/]+[0-~]|[0-Z\\^-~])|[\x07\x0e\x0f]"
)
# Documents indent what they quote; dmesg -t and journalctl -o cat, which print bare text, do not.
CODE = ("    ", "\t")
MAX_PARTS = 24
_GAP = r"[\s\ufeff]*(?:[|,;-]+\s+)*"
_END = r"(?=\s|\Z)"
_SEVERITY = r"(?:emerg|panic|alert|crit|err|error|warn|warning|notice|info|debug)"
_LEVEL = (
    r"(?:(?i:trace|verbose|debug|info|notice|warn|warning|err|error|crit|critical|severe|alert|fatal|panic|emerg)"
    r"|[VTDIWEF])"
)
_FACILITY = "[<\\[(]?{} *[.|:]=? *" + _SEVERITY + r"(?:<\d+>)?[>\])]? *:?(?=[\s\[]|\Z)"
_OTHERS = r"(?:user|mail|daemon|auth|syslog|lpr|news|uucp|cron|authpriv|security|ftp|local[0-7])"
# What dmesg -d and journalctl -o short-delta write behind another stamp, in the reader's language.
_DELTA = r"<[ +]*-?\d+[.,]\d+ *>"
_WORD = r"[^\W\d_]{1,9}\.?"
# Extended netconsole may put the release before a record of /dev/kmsg (Documentation/networking/netconsole).
_RELEASE = r"(?:\d{1,3}\.\d{1,5}[\w.+~-]{0,64},)?"
_DATE_BEHIND = r"(?=[A-Z][a-z]{2} [ \d]\d |\d{4}-\d\d-\d\d)"
_SPEAKER_BEHIND = r"(?=\S.{5,40} (?P=prefix) kernel(?:\[0?\])?: )"
_HEAD_BEHIND = r"(?=[A-Z][a-z]{2} [ \d]\d |\d{4}-\d\d-\d\d|\[(?: *\d|[A-Z][a-z]{2} )|<\d{1,3}>)"
_LETTERS = (
    ("y", rf"{_RELEASE}[0-7],\d{{1,20}},(?P<microseconds>\d{{1,20}}),[^;]*;"),
    ("Y", rf"{_RELEASE}\d{{1,4}},\d+,\d+,[^;]*;"),
    # A priority, and the octet count that may stand before it (RFC 6587); the kernel's facility is 0.
    ("p", r"(?:\d{1,6} )?<[0-7]>"),
    ("P", r"(?:\d{1,6} )?<\d{1,3}>"),
    ("V", r"1 (?=(?:\S+ ){2}kernel [-0] )"),
    ("W", r"1 (?=(?:\d{4}-\d\d-\S+|-) \S+ (?P<speaker>\S+ \S+) \S+ [\[-])"),
    # grep with several files, and with -n; a word alone may be a program's tag.
    (
        "f",
        (
            rf"(?:(?:[\w./~+@-]{{1,255}}:)?\d{{1,9}}|(?=[^:\s]*[./])[\w./~+@-]{{1,255}}):{_HEAD_BEHIND}"
            rf"|\(standard input\):{_HEAD_BEHIND}"
            rf"|[\w.-]{{1,255}}:{_DATE_BEHIND}"
            # The context of a match; numbered and counted lines; pdsh and oc, where the host speaks of itself.
            rf"|(?:(?=[^:\s]*[./])[\w./~+@-]{{1,255}}?-)?(?:\d{{1,9}}-)?{_DATE_BEHIND}(?<=-)"
            rf"|\d{{1,9}}[\t ]+(?:{_HEAD_BEHIND}|\Z)"
            rf"|(?P<prefix>[\w.-]{{1,255}}):? {_SPEAKER_BEHIND}"
        ),
    ),
    # What docker compose, docker service, kubectl --prefix and stern put before a container's line. A pod's own ending
    # has no vowels, so that it is no word.
    (
        "j",
        (
            r"[\w.-]{1,255}(?:[_-]\d{1,4}|\.\d{1,4}\.[0-9a-z]{12,25}@[\w.-]{1,255})(?= +\| )"
            r"|\[pod/[\w./-]{1,320}\](?= )"
            r"|(?:[a-z0-9-]{1,63} )?[a-z0-9][a-z0-9.-]{0,250}-[bcdf-hj-np-tv-xz2456789]{5} [a-z0-9-]{1,63}(?= )"
        ),
    ),
    ("R", r"message repeated (?P<count>\d{1,9}) times?: \["),
    ("E", r"\[\d{9,10}\.\d{3}\]"),
    ("u", rf"\[ *(?P<uptime>\d{{1,12}}\.\d{{6}})(?: +{_DELTA}| *)\]"),
    ("v", rf"\[ *(?P<short>\d{{1,12}}\.\d{{1,9}})(?: +{_DELTA}| *)\]"),
    ("r", rf"\[ *(?:\+\d+[.,]\d+|{_DELTA}|(?i:{MONTH})\.? ?\d{{1,2}} \d\d:\d\d) *\]"),
    # A month that we do not know costs the moment, not the record: weekday, clock and year are proof enough.
    (
        "t",
        (
            rf"\[(?!{_LEVEL} ){_WORD} +(?P<clock>(?:{_WORD}|\d{{1,2}}[月월]) +\d{{1,2}} \d\d:\d\d:\d\d"
            rf"(?: [A-Z]{{2,5}})? \d{{4}})(?: +{_DELTA})?\]"
        ),
    ),
    # Who was running: PRINTK_CALLER, and the kernels of MediaTek and Samsung, whose text may adjoin.
    (
        "c",
        (
            r"\[ *[TC]\d+\]|[-.]?\(\d{1,3}\)\[\d{1,7}:[^\]]{1,16}\]"
            r"|\[\d{1,3}: {0,15}[^\s\]][^\]]{0,15}: {0,7}\d{1,7}\]"
        ),
    ),
    ("G", rf"(?:[\w-]+\.)+kern\.{_SEVERITY}:?{_END}"),
    ("K", _FACILITY.format("kern") + rf"|kern (?:{_SEVERITY} )?(?=kernel:)|Kernel\.[A-Z][a-z]{{3,7}}{_END}"),
    ("F", _FACILITY.format(f"(?P<facility>{_OTHERS})")),
    ("N", r"(?:%\$ VDC-\d+ %\$ (?:[A-Z][a-z]{2} +\d+ [\d:.]+ )?)?%KERN-\d-SYSTEM_MSG:"),
    ("a", r"kernel [-0] \S+ (?:-|(?:\[[^\s\]=\"]+(?: [^\s\]=\"]+=\"(?:[^\"\\\]]|\\.)*\")*\])+)(?=\s|\Z)"),
    ("k", r"(?:init\.scope )?kernel(?:\[0?\])?:(?: :)?|kernel - -(?: -)?(?=\s|\Z)"),
    ("m", rf"\[kernel\]{_END}"),
    ("g", rf"kernel{_END}"),
    ("w", rf"std(?:out|err) F{_END}"),
    # Where OSSEC and Wazuh took a line of their archives from.
    ("q", rf"(?:\([\w.-]{{1,255}}\) )?[\w.:-]{{1,255}}->[\w./-]{{1,255}}{_END}"),
    ("s", rf"{_SEVERITY}{_END}"),
    ("S", rf"(?:EMERG|ALERT|CRIT|ERR|WARNING|NOTICE|INFO|DEBUG){_END}"),
    ("l", rf"{_LEVEL}{_END}"),
    ("L", rf"[\[<(]{_LEVEL}[\])>]:?{_END}"),
    ("Z", rf"[A-Z]{{2,5}}{_END}"),
    ("O", rf"[+-]\d\d:?\d\d{_END}"),
    ("i", rf"(?:[\d.]+|[\da-f:]*[\da-f]|[\w.-]+(?=: +kern *:)):{_END}"),
    # No tag is a host: they end in a colon; UniFi's hosts do, too.
    ("h", rf"[\w.:@%/,~+*#$\ufffd-]+(?<![^:]:){_END}|[\w.-]+,[\w.,-]+:{_END}|\(\"[\w.,+-]+\"\)|\(none\)"),
    # People mask a host with brackets. A number is a process or a thread.
    ("H", rf"<[\w.-]+>{_END}|\[(?!\d+\])[\w.*-]+\]{_END}"),
    ("o", r"[^\s:=\[\]]+(?:\[[^\]\s]*\])?:(?=\s|\Z)"),
    ("x", r"\S+"),
)
_PARTS = re.compile("(?:" + "|".join(f"(?P<{letter}>{pattern})" for letter, pattern in _LETTERS) + ")" + _GAP)
# No grammar has them: facilities of others, their tags, levels in brackets, and any other word.
REFUSED = frozenset("YPWFLox")
_PRINTK = re.compile(r"(?<=\s)\[ *\d{1,12}\.\d{6}\]\s*\Z")
_BLANK, _BRACKET_END = re.compile(_GAP), re.compile(r"\]:?" + _GAP)
# The look ahead is for speed: most words are no stamp.
_LIKE_STAMP = re.compile(r"(?:@?\d|(?:[^\W\d_]{1,9}[.,]? +){1,2}\d)")
# Stamps: a date by name (n), by number (d), with T and zone (z), in seconds (e), in brackets (b, with a zone B), a zone
# or an offset behind it (Z, O); what dmesg alone writes: the time since boot (u, shortened v), dates (t), others (r).
_DATES = r"(?:[nde][OZ]?|[zbB])(?:[nde][OZ]?|[zbBE])*"
# netconsole through a syslog server, and dmesg through ts(1), have printk's stamp where the tag should be (g, u).
_TAG = r"(?:[kN]|g(?=u))"
# What may be a host's name is a group of its own. Levels are applications', where the rest does not prove a log daemon.
_GRAMMAR = re.compile(
    rf"""(?:f(?=[ndzetuvp])|j(?=p?[ndze].*k))?p?(?:K(?=[ndz]))?(?:
        | y                                                     # /dev/kmsg
        | (?:V[zd]?|z)([hgZ])?a                                 # RFC 5424, with its version or as sysklogd 2 writes it
        | (?:(i)?K)?[tuvr]+ (?:([hg])?k)?                       # dmesg, journalctl -o short-monotonic
        | (i)?K?B                                               # talosctl dmesg
        | K?k | K                                               # dmesg -x -t
        | (?:z[fhw]?(?=[nde])|n[hfq](?=[ndz])|dKh(?=n))? (?:  # what a container, cloud, relay, Kiwi puts before a line
            {_DATES}(?:(i)?K)? (?:{_DATES})? p?K?([hgZ])?K? p?{_TAG}  # syslog daemons
          | n[OZ]?([hg])?s{_TAG} | z(h)sk | [nz]([sl])ku | zSk(?=u) | n(h)Sk(?=u)  # a level: F5, Chrome OS, SONiC
          | n(H)k | [dzebtuvr](H)k(?=u) | nm                    # a masked host; metalog
          | {_DATES}([hg])?p?(?=u)
          | {_DATES}(i)?K                                       # socklog
        )
    )R?p?[uv]?c?""",
    re.VERBOSE,
)
_REPEAT_GRAMMAR = re.compile(rf"f?p?(?:{_DATES})?([hgZ])?k?")
# A whole head of its own: what a line has to have that another program's record only carries.
_WHOLE = re.compile(r".*[ndzetbB].*[kamNK]|.*V")
# What another writer left on a serial console: a word that printk's stamp adjoins, a sentence's end, a prompt.
_CONSOLE = re.compile(
    r"(?P<other>\s*[^\s#+'\"`{}<>|=\\-][^\"`{}<>|=\\]*(?:[^\s\]:,;('\"`{}<>|=\\]|(?:[.#$%]|login:)\s+))"
    r"(?P<printk>\[ *\d{1,12}\.\d{6}\](?: *\[ *[TC]\d+\])?\s*)"
)
_STAMP_OR_TAG = re.compile(r"\d:\d\d|\[ *\d+\.\d+\]|(?<!\S)(?!login:)[^\s:]+:(?!\S)")


class Envelope(msgspec.Struct, frozen=True):
    """What the kernel said, and what stood around it; ``count`` is n for "message repeated n times"."""

    text: str
    at: datetime | None = None
    uptime: float | None = None
    host: str | None = None
    count: int = 1


class Part(NamedTuple):
    """One part of an envelope: its letter, its text, what was matched in it, and where the next part may begin."""

    letter: str
    text: str
    match: re.Match[str]
    end: int


def plain(line: str) -> str:
    """Take off what steers a terminal and what surrounds a line, also in a stream of events ("data: ")."""
    return (
        (STEERING.sub("", line) if "\x1b" in line or "\x07" in line else line)
        .strip("\r\n\0\ufeff\x1e")
        .removeprefix("data: ")
    )


def parse(
    line: str, now: datetime, *, whole: bool = False, dated: bool = False, console: bool = False
) -> Envelope | None:
    """Take the envelope off one line; None when no message ends it, or another than the kernel speaks.

    ``now`` is the newest moment that the line can stem from (the file's mtime, or the clock), for stamps without a
    year; its tzinfo is the zone of stamps without one. A line without any envelope is bare kernel text, but not where
    a ``whole`` head is asked for; ``dated``: its date stands elsewhere. ``console``: another writer's text may stand
    before printk's stamp.
    """
    line = plain(line)
    said = SENTENCE.search(line)
    if said is None:
        return None
    head = line[: said.start()]
    parts = split_head(_behind_console(head) if console else head)
    letters = ("z" if dated else "") + "".join([part.letter for part in parts])
    match = (_GRAMMAR if said["repeat"] is None else _REPEAT_GRAMMAR).fullmatch(letters)
    is_quoted = not letters and line.startswith(CODE) and said["repeat"] is None
    if match is None or is_quoted or (whole and not _WHOLE.match(letters)) or not _ends_right(letters, said["behind"]):
        return None
    host = match.start(match.lastindex) - dated if match.lastindex else None
    return _read((said["text"] or said["repeat"]).strip(), parts, host, now)


def _behind_console(head: str) -> str:
    """Leave out what another writer left before printk's stamp, if no other stamp and no program's tag is in it."""
    match = _CONSOLE.fullmatch(head)
    is_left = match and any(map(str.isalpha, match["other"])) and not _STAMP_OR_TAG.search(match["other"])
    return match["printk"] if match and is_left else head


def split_head(head: str) -> tuple[Part, ...]:
    """Take apart what stands before a message, up to the first part that a line of the kernel's does not have."""
    first = _stamp(head, 0)
    start = first.end if first else 0
    printk = _PRINTK.search(head, start)
    parts = _split(head[start : printk.start() if printk else None])
    return ((first,) if first else ()) + parts + (_split.__wrapped__(printk[0]) if printk else ())


# Between two stamps most lines of a log are the same.
@lru_cache(maxsize=16)
def _split(head: str) -> tuple[Part, ...]:
    parts: list[Part] = []
    at = len(head) - len(head.lstrip())
    while part := _stamp(head, at) or _part(head, at):
        parts.append(part if len(parts) < MAX_PARTS else part._replace(letter="x"))
        if parts[-1].letter in REFUSED:
            break
        at = part.end
    return tuple(parts)


def _stamp(head: str, at: int) -> Part | None:
    stamp = match_stamp(head, at) if _LIKE_STAMP.match(head, at) else None
    gap = _BLANK.match(head, stamp.end()) if stamp else None
    if stamp is None or gap is None or not (gap[0] or gap.end() == len(head)):
        return None
    zoned = is_zoned(stamp)
    letter = "z" if zoned else "d" if stamp.re in (NUMBERED, DOTTED) else "e" if stamp.re is EPOCH else "n"
    # Only dmesg --time-format iso writes a comma before exactly six digits.
    is_dmesg = zoned and "," in stamp[0] and len(stamp["fraction"]) == 6  # noqa: PLR2004
    return Part("t" if is_dmesg else letter, stamp[0], stamp, gap.end())


def _part(head: str, at: int) -> Part | None:
    match = _PARTS.match(head, at)
    if match is None or (letter := match.lastgroup) is None:
        return None
    stamp = match_stamp(head, at + 1) if letter in "Hx" and head[at] == "[" else None
    end = _BRACKET_END.match(head, stamp.end()) if stamp else None
    if stamp is None or end is None:
        return Part(letter, match[letter], match, match.end())
    return Part("B" if is_zoned(stamp) else "b", stamp[0], stamp, end.end())


def _ends_right(letters: str, behind: str | None) -> bool:
    ends = "]" if "R" in letters else "- kernel" if "N" in letters else None
    return behind == ends


def _read(text: str, parts: tuple[Part, ...], host_at: int | None, now: datetime) -> Envelope:
    """Read the parts: the first stamp that is a moment counts, the first time since boot, and the last host."""
    at = uptime = None
    count = 1
    for number, (letter, word, match, _) in enumerate(parts):
        if letter in "ndzebBt":
            stamp = match if letter != "t" or match.re is NUMBERED else NAMED.fullmatch(match["clock"])
            at = at or (read_stamp(stamp, now, _zone(parts, number + 1, host_at)) if stamp else None)
        elif letter in "uvy" and uptime is None:
            uptime = float(match["uptime"] or match["short"] or int(match["microseconds"]) / 1e6)
        elif letter == "R":
            count = int(match["count"])
        elif letter == "Z" and host_at is None and word not in ZONES:
            host_at = number
    host = None if host_at is None else _host(parts[host_at].text)
    return Envelope(text, at=at, uptime=uptime, host=host, count=count)


def _zone(parts: tuple[Part, ...], number: int, host_at: int | None) -> str | None:
    """Return the zone behind a stamp: a word in capitals is one before a host, or else where it is known as one."""
    if number == len(parts) or number == host_at or parts[number].letter not in "OZ":
        return None
    name = parts[number].text
    return name if parts[number].letter == "O" or host_at is not None or name in ZONES else None


def _host(name: str) -> str | None:
    """Clean a host's name: syslog-ng writes ``s_all@jp58``, RFC 5424 ``-`` for none, UniFi ``U7P,f09fc2,v4.3:``."""
    if "," in name or name.endswith(":"):
        name = name.rstrip(":").strip('(),"')
    return name.rpartition("@")[2] if name not in ("-", "(none)") else None
