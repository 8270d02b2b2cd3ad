r"""A record with named fields is the kernel's when a field of it holds the kernel's line, and no field says otherwise.

The shapes in the wild: journalctl -o json (systemd.journal-fields(7)), GELF, rsyslog's and syslog-ng's JSON templates,
the Elastic common schema, dmesg --json, Loki, and what cloud and container logs wrap round one of them or round a line.
agent.sources.multiline brings arrays, documents, exports and rows of CSV to one object a line::

    {"_TRANSPORT":"kernel","SYSLOG_FACILITY":"0","SYSLOG_IDENTIFIER":"kernel","_HOSTNAME":"jp58","MESSAGE":"TCP: ..."}
    {"@timestamp":"2024-08-18T08:33:14+02:00","host":"jp58","programname":"kernel","message":" [85047.04] TCP: ..."}
    {"jsonPayload":{"_TRANSPORT":"kernel","MESSAGE":"TCP: ..."},"timestamp":"2024-08-18T06:33:14Z"}
    {"log":"Aug 18 08:33:14 jp58 kernel: TCP: ...\n","stream":"stdout","time":"2024-08-18T06:33:14.2Z"}
    2024-05-06T07:08:09Z {host="web-7",job="systemd-journal"} TCP: ...

Any program may write the text into a field of its own. So the record has to say that it is the kernel's; or else the
line in it has to, by a date and the kernel's tag of its own.
"""

import re
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import TypeGuard

import msgspec

from agent.core.cursor import Cursor
from agent.core.logs.envelope import SENTENCE, Envelope, parse, plain, split_head
from agent.core.logs.timestamps import NAMED, NUMBERED, from_epoch, read_stamp
from agent.core.model import LogRecord

# Who wrote a record. A tag of the kernel's is proof together with a host and a time.
TAG = re.compile(
    r"(?:log\.)?(?:syslog[._]?)?(?:identifier|app_?name|program|tag)"
    r"|process\.?name|programname|application_name|ident|(?:(?:systemd_)?(?:user_)?unit|comm|exe|cmdline|process)"
)
FACILITY = re.compile(r"(?:log\.)?(?:syslog[._]?)?fac(?:ility)?(?:[._](?:code|name|label|text))*")
KERNEL = re.compile(r"\s*(?:0|kern|kernel(?:\[0\])?):?\s*", re.IGNORECASE)
# Logstash's "logsource" and its grok's "syslog_hostname" are the speaker's, its "host" may be the collector's.
HOSTS = ("hostname", "logsource", "syslog_hostname", "host.hostname", "host.name", "host", "fromhost", "computer")
TIMES = (
    "@timestamp",
    "timereported",
    "timestamp",
    "time",
    "isodate",
    "date",
    "eventtime",
    "timegenerated",
    "talos_time",
)
# What quotes a line: a monitor's rule or alert, a mail, a command.
QUOTING = re.compile(
    r"(?:.*\.)?(?:rule|alert(?:name)?|annotations|match(?:ed)?|pattern|query|search|trigger|check|subject|title|comment"
    r"|command|cmd|argv?s?|expr)(?:\..*)?"
)
# The labels of a Loki stream that name no speaker; a job has to be a journal's or the kernel's.
LABEL = re.compile(
    r"(?:host|node)(?:name)?|instance|(?:boot|machine)_id|cluster|region|env|(?:detected_)?level|severity|priority|job"
    r"|transport|(?:syslog_)?(?:facility|identifier)"
)
KERNEL_JOB = re.compile(r"(?i:.*(?:journal|kernel|kmsg|dmesg|syslog))")
# dmesg --json, and Fluent Bit's kmsg input: they read nothing but the kernel's ring, and other facilities into it.
DMESG = {"pri", "time", "caller", "msg", "fac"}
RINGS = (DMESG - {"fac"}, {"priority", "sequence", "sec", "usec", "msg", "date"})
DEPTH = 4
# Clouds count milliseconds, microseconds or nanoseconds.
LATEST_SECONDS = 1e11
_LABELLED = re.compile(r"(?P<time>\S+) +(?P<labels>\{\w+=\"[^{}]*\"\})\s+(?P<line>.*)", re.DOTALL)
_LABEL = re.compile(r"(\w+)=\"((?:[^\"\\]|\\.)*)\"")
# A log's stamp, a container's stream or fluentd's tag may stand before an object.
_HEADED = re.compile(r"(?:[ndzetb][OZ]?|[BE])+[wh]?[GK]?")
_WHOLE = msgspec.json.Decoder(dict[str, object])


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
    fields, is_kern = fields_of(line)
    envelope = parse(line, now, console=console) if fields is None else _parse_fields(fields, now, is_kern=is_kern)
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


def fields_of(line: str) -> tuple[dict[str, object] | None, bool]:
    """Return the fields of a line that is a record, and whether what stands before it names the kernel's facility."""
    line = plain(line).strip().removeprefix("data: ")
    if "{" not in line:
        return None, False
    labelled = _LABELLED.fullmatch(line)
    if labelled:
        labels = dict(_LABEL.findall(labelled["labels"]))
        return _flatten({"labels": labels, "line": labelled["line"], "timestamp": labelled["time"]}), False
    head, _, rest = line.partition("{")
    letters = "".join(part.letter for part in split_head(head))
    if not line.endswith("}") or (letters and not _HEADED.fullmatch(letters)):
        return None, False
    try:
        fields = _flatten(_WHOLE.decode("{" + rest))
    except (msgspec.DecodeError, RecursionError, ValueError):
        return None, False
    return {"timestamp": head.strip()} | fields if head.strip() else fields, letters.endswith(("G", "K"))


def why_refused(fields: dict[str, object]) -> str:
    """Say why a record that holds one of the kernel's messages is not the kernel's."""
    other = _another_speaker(fields)
    if other is not None:
        return f"the field {other} is {str(fields[other])[:60]!r}, not the kernel's"
    quoting = _quoting(fields)
    if quoting is not None:
        return f"a record with the field {quoting} quotes lines"
    bare = any(SENTENCE.match(text.strip()) for text in _texts(fields))
    return "no field says that the kernel wrote it" if bare else "the line in it has no date and kernel tag of its own"


def _parse_fields(fields: dict[str, object], now: datetime, *, is_kern: bool) -> Envelope | None:
    if _another_speaker(fields) or _quoting(fields):
        return None
    whole = not (is_kern or _is_kernels(fields))
    lines = (parse(text.strip(), now, whole=whole) for text in _texts(fields))
    inner = next((line for line in lines if line), None)
    if inner is None:
        return None
    uptime = _uptime(fields) if inner.uptime is None else inner.uptime
    host = inner.host or _first_text(fields, HOSTS)
    return msgspec.structs.replace(inner, at=_at(fields, now) or inner.at, uptime=uptime, host=host)


def _flatten(value: dict[str, object], prefix: str = "", depth: int = DEPTH) -> dict[str, object]:
    """Bring every field to one level under a name in small letters: ``_SYSLOG-Facility`` is ``syslog_facility``.

    What carries a record is left out of its names: Google's jsonPayload, Elasticsearch's _source, Loki's labels.
    """
    fields: dict[str, object] = {}
    for key, inner in value.items():
        name = prefix + key.lower().replace("-", "_").lstrip("_")
        if isinstance(inner, dict) and depth:
            inside = "" if name in {"jsonpayload", "source", "labels"} else f"{name}."
            fields |= _flatten(inner, inside, depth - 1)
        else:
            fields[name] = inner
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
    for name, value in fields.items():
        if name == "transport" and value not in (None, "kernel"):
            return name
        is_speaker = TAG.fullmatch(name) or FACILITY.fullmatch(name)
        if is_speaker and value not in (None, "") and not KERNEL.fullmatch(str(value)):
            return name
    return None


def _quoting(fields: dict[str, object]) -> str | None:
    return next((name for name in fields if QUOTING.fullmatch(name)), None)


def _is_kernels(fields: dict[str, object]) -> bool:
    """Return whether a record that is not another's claims to be the kernel's, with proof of its being a record.

    A tag alone is what a monitor's own alert may carry too; a record has a host and a time besides.
    """
    if fields.get("transport") is not None or any(map(FACILITY.fullmatch, fields)):
        return True
    if any(set(fields) <= ring for ring in RINGS):
        return _kernel_priority(fields.get("pri", fields.get("priority")))
    if "line" in fields and "timestamp" in fields:
        labels = fields.keys() - {"line", "timestamp"}
        job = KERNEL_JOB.match(str(fields.get("job", "kernel")))
        return bool(labels) and all(map(LABEL.fullmatch, labels)) and job is not None
    return (
        any(map(TAG.fullmatch, fields)) and not fields.keys().isdisjoint(HOSTS) and not fields.keys().isdisjoint(TIMES)
    )


def _kernel_priority(value: object) -> bool:
    """Return whether dmesg's ``pri`` has facility 0."""
    return isinstance(value, int) and 0 <= value < 8  # noqa: PLR2004 - eight levels a facility


def _at(fields: dict[str, object], now: datetime) -> datetime | None:
    micros = fields.get("source_realtime_timestamp") or fields.get("realtime_timestamp")
    if isinstance(micros, str | int):
        return from_epoch(_scaled(micros))
    if set(fields) <= DMESG:
        return None
    value = next((fields[key] for key in TIMES if key in fields), None)
    if isinstance(value, str):
        match = NUMBERED.match(value) or NAMED.match(value)
        return read_stamp(match, now) if match else from_epoch(_seconds(_number(value)))
    return from_epoch(_seconds(value))


def _seconds(value: object) -> object:
    """Scale what is too late to be seconds; anything but a number stays as it is."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    try:
        return next((value / scale for scale in (1, 1e3, 1e6, 1e9) if value / scale < LATEST_SECONDS), None)
    except OverflowError:  # An integer of hundreds of digits.
        return None


def _uptime(fields: dict[str, object]) -> float | None:
    micros = fields.get("source_monotonic_timestamp") or fields.get("monotonic_timestamp")
    if isinstance(micros, str | int):
        return _scaled(micros)
    seconds = fields.get("time")
    return seconds if isinstance(seconds, float) and set(fields) <= DMESG else None


def _number(value: str) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None


def _scaled(micros: str | int) -> float | None:
    try:
        return float(micros) / 1e6
    except (ValueError, OverflowError):
        return None


def _first_text(fields: dict[str, object], names: tuple[str, ...]) -> str | None:
    return next((value for name in names if isinstance(value := fields.get(name), str) and value), None)
