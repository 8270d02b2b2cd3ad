r"""Log records written as one JSON object a line: whether the kernel speaks, and what it said.

The shapes in the wild: journalctl -o json (systemd.journal-fields(7)), GELF, rsyslog's and syslog-ng's JSON templates,
the Elastic common schema, dmesg --json, and what cloud and container logs wrap round one of them or round a text line::

    {"_TRANSPORT":"kernel","SYSLOG_FACILITY":"0","SYSLOG_IDENTIFIER":"kernel","_HOSTNAME":"jp58","MESSAGE":"TCP: ..."}
    {"version":"1.1","host":"jp58","short_message":"TCP: ...","facility":"kern","_application_name":"kernel"}
    {"@timestamp":"2024-08-18T08:33:14+02:00","host":"jp58","programname":"kernel","message":" [85047.04] TCP: ..."}
    {"jsonPayload":{"_TRANSPORT":"kernel","MESSAGE":"TCP: ..."},"timestamp":"2024-08-18T06:33:14Z"}
    {"log":"Aug 18 08:33:14 jp58 kernel: TCP: ...\n","stream":"stdout","time":"2024-08-18T06:33:14.2Z"}

dmesg --json and journalctl -o json-pretty spread an object over lines; agent.sources.multiline brings it to one for
`scan`.

Any program may write the text into a field of its own, so the object has to claim the kernel's tag or facility, or be
one that is known to carry lines: then the line has to claim them.
"""

from datetime import datetime
from typing import NamedTuple

import msgspec

from agent.core.logs.timestamps import NAMED, NUMBERED, from_epoch, read_stamp

MESSAGE_KEYS = ("message", "short_message", "msg", "syslogmessage")
TAG_KEYS = (
    "syslog_identifier",
    "syslog.identifier",
    "syslog.appname",
    "log.syslog.appname",
    "process.name",
    "processname",
    "syslog_program",
    "programname",
    "program",
    "syslogtag",
    "app_name",
    "appname",
    "application_name",
    "ident",
    "tag",
)
FACILITY_KEYS = (
    "syslog_facility",
    "syslog.facility",
    "syslog.facility.code",
    "log.syslog.facility.code",
    "log.syslog.facility.name",
    "syslogfacility",
    "syslogfacility_text",
    "facility",
    "facility_label",
    "fac",
)
# Logstash's "logsource" and its grok's "syslog_hostname" are the speaker's, its "host" may be the collector's.
HOST_KEYS = ("hostname", "logsource", "syslog_hostname", "host.hostname", "host.name", "host", "fromhost", "computer")
TIME_KEYS = (
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
# dmesg --json, and Fluent Bit's kmsg input: they read nothing but the kernel's ring, and other facilities into it.
RING_SHAPES = ({"pri", "time", "caller", "msg"}, {"priority", "sequence", "sec", "usec", "msg", "date"})
FACILITIES = {"0", "kern", "kernel"}
KERNEL_TAGS = {"kernel", "kernel[0]"}
DEPTH = 3
# What carries lines, by where the line is: Docker, CRI and Fluent Bit; CloudWatch's three ways; Google's textPayload.
CARRIERS = {
    "log": {"stream", "time", "date", "@timestamp", "attrs", "logtag", "p", "kubernetes", "docker"},
    "message": {"timestamp", "@timestamp", "date", "ingestiontime", "eventid", "id", "loggroup", "logstream"}
    | {"logstreamname", "loggroupname"},
    "@message": {"@timestamp", "@ingestiontime", "@logstream", "@log", "@ptr", "@entity"},
    "textpayload": {"timestamp", "receivetimestamp", "insertid", "logname", "resource", "labels", "severity"},
}
CARRIER_CLOCKS = {*TIME_KEYS, "stream"}
# An export of Elasticsearch has one document a line.
SEARCH_HIT = {"_index", "_type", "_id", "_score", "_version", "_ignored", "_source", "fields", "sort"}
# Clouds count milliseconds, microseconds or nanoseconds.
LATEST_SECONDS = 1e11


class JsonRecord(NamedTuple):
    """What a JSON object says for the kernel: ``message`` may still begin with a printk stamp.

    ``carried`` means that the object claims nothing: ``message`` is a line of a log, which must speak for itself.
    """

    message: str
    at: datetime | None
    uptime: float | None
    host: str | None
    carried: bool = False


def parse_json(line: str, now: datetime, *, kern: bool = False) -> JsonRecord | None:
    """Read one JSON object as a kernel record, or None when it is not one.

    ``kern`` says that what stood before the object named the kernel's facility, so that the object need not.
    """
    try:
        value = msgspec.json.decode(line)
    except (msgspec.DecodeError, RecursionError, ValueError):
        return None
    if not isinstance(value, dict):
        return None
    fields = _flatten(_unwrapped(value))
    message = _message(fields)
    if _another_speaker(fields):
        return None
    if message is not None and (kern or _kernel(fields)):
        return JsonRecord(message, _at(fields, now), _uptime(fields), _first_text(fields, HOST_KEYS))
    carried = _carried(fields)
    return None if carried is None else JsonRecord(carried, _at(fields, now), None, None, carried=True)


def why_refused(line: str) -> str:
    """Say why an object that holds one of the kernel's messages is no record of the kernel's."""
    try:
        value = msgspec.json.decode(line)
    except (msgspec.DecodeError, RecursionError, ValueError):
        return "it is no whole JSON object"
    fields = _flatten(_unwrapped(value)) if isinstance(value, dict) else {}
    other = _another_speaker(fields)
    if other is not None:
        return f"the field {other} is {str(fields[other])[:60]!r}, not the kernel's"
    if _carried(fields) is not None:
        return "the line in it has no date and kernel tag of its own"
    return "no field says that the kernel wrote it"


def _unwrapped(value: dict[str, object]) -> dict[str, object]:
    """Take the record out of Google's entry, which keeps its time, or out of a search hit."""
    payload, source = value.get("jsonPayload"), value.get("_source")
    if isinstance(payload, dict):
        clock = {"timestamp": value["timestamp"]} if "timestamp" in value else {}
        return clock | payload
    return source if isinstance(source, dict) and set(value) <= SEARCH_HIT else value


def _carried(fields: dict[str, object]) -> str | None:
    """Take the line out of an object that only carries lines; a monitor's alert has fields of its own besides."""
    names = {name.partition(".")[0] for name in fields}
    for key, others in CARRIERS.items():
        line = fields.get(key)
        if isinstance(line, str) and names <= {key, *others} and names & CARRIER_CLOCKS:
            return line
    # Beats, Elastic's agent and Vector say that they read the line from a file.
    return _message(fields) if "log.file.path" in fields or fields.get("source_type") == "file" else None


def _flatten(value: dict[str, object], prefix: str = "", depth: int = DEPTH) -> dict[str, object]:
    """Bring every field to one level under a name in small letters: ``_SYSLOG-Facility`` is ``syslog_facility``."""
    fields: dict[str, object] = {}
    for key, inner in value.items():
        name = prefix + key.lower().replace("-", "_").lstrip("_")
        if isinstance(inner, dict) and depth:
            fields |= _flatten(inner, f"{name}.", depth - 1)
        else:
            fields[name] = inner
    return fields


def _message(fields: dict[str, object]) -> str | None:
    """Take the message; journald writes one that is not UTF-8 as a list of bytes."""
    for key in MESSAGE_KEYS:
        value = fields.get(key)
        if isinstance(value, str):
            return value
        if isinstance(value, list) and value and all(isinstance(byte, int) and 0 <= byte <= 255 for byte in value):  # noqa: PLR2004 - a byte
            return bytes(value).decode(errors="replace")
    return None


def _another_speaker(fields: dict[str, object]) -> str | None:
    """Name the field that says another speaker than the kernel, or None."""
    if fields.get("transport") not in (None, "kernel"):
        return "transport"
    tags = (key for key in TAG_KEYS if key in fields)
    tag = next((key for key in tags if str(fields[key]).strip().removesuffix(":") not in KERNEL_TAGS), None)
    facilities = (key for key in FACILITY_KEYS if key in fields)
    return tag or next((key for key in facilities if str(fields[key]).lower() not in FACILITIES), None)


def _kernel(fields: dict[str, object]) -> bool:
    """Return whether an object that is not another's claims to be the kernel's, with proof of its being a record.

    A tag alone is what a monitor's own alert may carry too; a record has a host and a time besides.
    """
    if fields.get("transport") is not None or any(key in fields for key in FACILITY_KEYS):
        return True
    if any(set(fields) <= shape for shape in RING_SHAPES):
        return _kernel_priority(fields.get("pri", fields.get("priority")))
    return all(any(key in fields for key in keys) for keys in (TAG_KEYS, HOST_KEYS, TIME_KEYS))


def _kernel_priority(value: object) -> bool:
    """Return whether dmesg's ``pri`` has facility 0."""
    return isinstance(value, int) and 0 <= value < 8  # noqa: PLR2004 - eight levels a facility


def _at(fields: dict[str, object], now: datetime) -> datetime | None:
    micros = fields.get("source_realtime_timestamp") or fields.get("realtime_timestamp")
    if isinstance(micros, str | int):
        return from_epoch(_scaled(micros))
    if set(fields) <= {"pri", "time", "caller", "msg", "fac"}:
        return None
    for key in TIME_KEYS:
        value = fields.get(key)
        if isinstance(value, str):
            match = NUMBERED.match(value) or NAMED.match(value)
            if match is not None:
                return read_stamp(match, now)
        elif value is not None:
            return from_epoch(_seconds(value))
    return None


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
    if isinstance(seconds, float) and set(fields) <= {"pri", "time", "caller", "msg", "fac"}:
        return seconds
    return None


def _scaled(micros: str | int) -> float | None:
    try:
        return float(micros) / 1e6
    except (ValueError, OverflowError):
        return None


def _first_text(fields: dict[str, object], keys: tuple[str, ...]) -> str | None:
    return next((value for key in keys if isinstance(value := fields.get(key), str) and value), None)
