r"""A record with named fields is the kernel's when one of them holds the kernel's line, and none says otherwise.

journalctl -o json (systemd.journal-fields(7)), GELF, rsyslog's and syslog-ng's templates, the Elastic common schema,
dmesg --json, Loki, and what clouds and containers wrap round one of them or round a line, such as::

    {"_TRANSPORT":"kernel","SYSLOG_FACILITY":"0","SYSLOG_IDENTIFIER":"kernel","_HOSTNAME":"jp58","MESSAGE":"TCP: ..."}
    {"@timestamp":"2024-08-18T08:33:14+02:00","host":"jp58","programname":"kernel","message":" [85047.04] TCP: ..."}
    {"log":"Aug 18 08:33:14 jp58 kernel: TCP: ...\n","stream":"stdout","time":"2024-08-18T06:33:14.2Z"}
    2024-05-06T07:08:09Z {host="web-7",job="systemd-journal"} TCP: ...

Any program may write the text into a field of its own: a field has to name the kernel, or else the line in the record
has a date and the kernel's tag of its own. agent.sources.multiline brings each record to one line of JSON.
"""

import re
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import chain
from typing import TypeGuard

import msgspec

from agent.core.cursor import Cursor
from agent.core.logs.envelope import SENTENCE, Envelope, parse, plain, split_head
from agent.core.logs.timestamps import NAMED, NUMBERED, from_epoch, read_stamp
from agent.core.model import LogRecord

# Who wrote a record. A tag of the kernel's is proof together with a host and a time.
TAG = re.compile(
    r"(?:log\.)?(?:syslog[._]?)?(?:identifier|app_?name|program|tag)|process\.?name|programname|application_name|ident"
    r"|(?:systemd_)?(?:user_)?unit|comm|exe|cmdline|process|app|logger(?:_name)?"
)
FACILITY = re.compile(r"(?:log\.)?(?:syslog[._]?)?fac(?:ility)?(?:[._](?:code|name|label|text))*")
KERNEL = re.compile(r"\s*(?:0|kern|kernel(?:\[0\])?):?\s*", re.IGNORECASE)
# Logstash's "logsource" and its grok's "syslog_hostname" are the speaker's, its "host" may be the collector's.
HOSTS = ("hostname", "logsource", "syslog_hostname", "host.hostname", "host.name", "host", "fromhost", "computer")
TIMES = (
    *("source_realtime_timestamp", "realtime_timestamp", "@timestamp", "timereported", "timestamp", "time", "isodate"),
    *("date", "eventtime", "timegenerated", "talos_time"),
)
# What quotes a line: a monitor's rule or alert, a mail, a command.
QUOTING = re.compile(
    r"(?:.*\.)?(?:rule|alert(?:name)?|annotations|match(?:ed)?|pattern|query|search|trigger|check|subject|title|comment"
    r"|user|author|sender|command|cmd|argv?s?|expr)(?:\..*)?"
)
# The labels of a Loki stream that name no speaker; a job has to be a journal's or the kernel's.
LABEL = re.compile(
    r"(?:host|node)(?:name)?|instance|(?:boot|machine)_id|cluster|region|env|(?:detected_)?level|severity|priority|job"
    r"|transport|(?:syslog_)?(?:facility|identifier)"
)
LOKI = {"labels", "line", "timestamp"}
KERNEL_JOB = re.compile(r"(?i:.*(?:journal|kernel|kmsg|dmesg|syslog))")
# dmesg --json, and Fluent Bit's kmsg input: they read nothing but the kernel's ring, and other facilities into it.
DMESG = {"pri", "time", "caller", "msg", "fac"}
RINGS = (DMESG - {"fac"}, {"priority", "sequence", "sec", "usec", "msg", "date"})
DEPTH = 4
# Clouds count milliseconds, microseconds or nanoseconds.
LATEST_SECONDS = 1e11
_LABELLED = re.compile(r"(?P<time>\S+)\s+(?P<labels>\{(?:\w+=\"[^{}]*\")?\})\s+(?P<line>.*)", re.DOTALL)
_LABEL = re.compile(r"(\w+)=\"((?:[^\"\\]|\\.)*)\"")
# A log's stamp, a container's stream or fluentd's tag may stand before an object.
_HEADED = re.compile(r"(?:[ndzetb][OZ]?|[BE])+[wh]?[GK]?")
_OBJECT = msgspec.json.Decoder(dict[str, object])


def to_record(
    raw: bytes,
    *,
    now: datetime,
    source: str,
    ordinal: int,
    times: int = 1,
    position: Callable[[], Cursor] | None = None,
    console: bool = False,
) -> LogRecord | None:
    """Make a record of one line of a log, or None when it is not the kernel's; bad UTF-8 is replaced.

    ``now`` and ``console`` are as for agent.core.logs.envelope.parse. ``times`` is for how many lines it stands;
    ``position`` returns the place behind it.
    """
    line = raw.decode(errors="replace").lstrip("\0").rstrip("\r\n")
    fields = fields_of(line) if "{" in line else None
    envelope = parse(line, now, console=console) if fields is None else _parse_fields(fields, now)
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


def fields_of(line: str) -> dict[str, object] | None:
    """Return the fields of a line that is a record, among them what stands before an object; None for other lines."""
    line = plain(line).strip()
    labelled = _LABELLED.fullmatch(line)
    if labelled:
        labels = dict(_LABEL.findall(labelled["labels"]))
        return _flatten({"labels": labels, "line": labelled["line"], "timestamp": labelled["time"]})
    head, _, rest = line.partition("{")
    letters = "".join(part.letter for part in split_head(head))
    if not rest.endswith("}") or (letters and not _HEADED.fullmatch(letters)):
        return None
    try:
        fields = _flatten(_OBJECT.decode("{" + rest))
    except (msgspec.DecodeError, RecursionError, ValueError):
        return None
    before = {"timestamp": head} if letters else {}
    return before | ({"facility": "kern"} if letters.endswith(("G", "K")) else {}) | fields


def why_refused(fields: dict[str, object]) -> str:
    """Say why a record that holds one of the kernel's messages is not the kernel's."""
    other = _another_speaker(fields)
    if other is not None:
        return f"the field {other} is {str(fields[other])[:60]!r}, not the kernel's"
    if quoting := next(filter(QUOTING.fullmatch, fields), None):
        return f"a record with the field {quoting} quotes lines"
    if _is_an_applications(fields):
        return f"the level {fields['level']!r} is that of another program's log"
    bare = any(SENTENCE.match(text.strip()) for text in _texts(fields))
    return "no field says that the kernel wrote it" if bare else "the line in it has no date and kernel tag of its own"


def _parse_fields(fields: dict[str, object], now: datetime) -> Envelope | None:
    whole = not _is_kernels(fields)
    if _another_speaker(fields) or any(map(QUOTING.fullmatch, fields)) or (whole and _is_an_applications(fields)):
        return None
    lines = (parse(text.strip(), now, whole=whole) for text in _texts(fields))
    inner = next((line for line in lines if line), None)
    if inner is None:
        return None
    host = inner.host or next((name for key in HOSTS if isinstance(name := fields.get(key), str) and name), None)
    uptime = _uptime(fields) if inner.uptime is None else inner.uptime
    return msgspec.structs.replace(inner, at=_at(fields, now) or inner.at, uptime=uptime, host=host)


def _flatten(value: dict[str, object], prefix: str = "", depth: int = DEPTH) -> dict[str, object]:
    """Bring every field to one level under a name in small letters: ``_SYSLOG-Facility`` is ``syslog_facility``.

    What carries a record or says whose it is keeps its name to itself: jsonPayload (Google), _source (Elasticsearch),
    result (Splunk), labels (Loki).
    """
    fields: dict[str, object] = {}
    for key, inner in value.items():
        name = prefix + key.lower().replace("-", "_").lstrip("_")
        if isinstance(inner, dict) and depth:
            is_record = name in {"jsonpayload", "source", "result", "labels"}
            fields |= _flatten(inner, "" if is_record else f"{name}.", depth - 1) | ({name: None} if is_record else {})
        else:
            fields[name] = inner[0] if isinstance(inner, list) and len(inner) == 1 else inner
    return fields


def _texts(fields: dict[str, object]) -> Iterator[str]:
    """Return the texts that hold a message; journald writes one that is not UTF-8 as a list of bytes."""
    for value in fields.values():
        text = bytes(value).decode(errors="replace") if _is_bytes(value) else value
        if isinstance(text, str) and SENTENCE.search(plain(text)):
            yield text


def _is_bytes(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(isinstance(byte, int) and 0 <= byte <= 255 for byte in value)  # noqa: PLR2004


def _another_speaker(fields: dict[str, object]) -> str | None:
    """Name the field that says another speaker than the kernel, or None."""
    speakers = ((name, value) for name, value in fields.items() if TAG.fullmatch(name) or FACILITY.fullmatch(name))
    other = (name for name, value in speakers if value not in (None, "") and not KERNEL.fullmatch(str(value)))
    return "transport" if fields.get("transport") not in (None, "kernel") else next(other, None)


def _is_an_applications(fields: dict[str, object]) -> bool:
    """Return whether a logger of a program wrote a record: it has a level in words, beside no labels of a stream."""
    return str(fields.get("level", "")).isalpha() and "labels" not in fields


def _is_kernels(fields: dict[str, object]) -> bool:
    """Return whether a record that is not another's claims to be the kernel's, with proof of its being a record.

    A tag alone is what a monitor's own alert may carry too; a record has a host and a time besides.
    """
    if fields.get("transport") is not None or any(map(FACILITY.fullmatch, fields)):
        return True
    names = fields.keys()
    if any(names <= ring for ring in RINGS):
        priority = fields.get("pri", fields.get("priority"))
        return isinstance(priority, int) and 0 <= priority < 8  # noqa: PLR2004 - eight levels a facility, the first is 0
    if names >= LOKI:
        is_job = KERNEL_JOB.match(str(fields.get("job", "kernel"))) is not None
        return names > LOKI and is_job and all(map(LABEL.fullmatch, names - LOKI))
    return any(map(TAG.fullmatch, fields)) and not names.isdisjoint(HOSTS) and not names.isdisjoint(TIMES)


def _at(fields: dict[str, object], now: datetime) -> datetime | None:
    named = (fields[key] for key in TIMES if key in fields)
    alike = (value for value in fields.values() if isinstance(value, str) and NUMBERED.fullmatch(value))
    value = next(chain(named, alike), None)
    stamp = (NUMBERED.match(value) or NAMED.match(value)) if isinstance(value, str) else None
    if stamp is not None:
        return read_stamp(stamp, now)
    number = None if fields.keys() <= DMESG else _number(value)
    if number is None:
        return None
    return from_epoch(next((number / scale for scale in (1, 1e3, 1e6, 1e9) if number / scale < LATEST_SECONDS), None))


def _uptime(fields: dict[str, object]) -> float | None:
    micros = _number(fields.get("source_monotonic_timestamp") or fields.get("monotonic_timestamp"))
    if micros is None and fields.keys() <= DMESG:
        return _number(fields.get("time"))
    return micros if micros is None else micros / 1e6


def _number(value: object) -> float | None:
    try:
        return float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else None
    except (ValueError, OverflowError):  # An integer of hundreds of digits.
        return None
