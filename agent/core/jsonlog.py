"""Log records written as one JSON object a line: whether the kernel speaks, and what it said.

The shapes in the wild: journalctl -o json (systemd.journal-fields(7)), GELF, rsyslog's and syslog-ng's JSON templates,
the Elastic common schema, dmesg --json::

    {"_TRANSPORT":"kernel","SYSLOG_FACILITY":"0","SYSLOG_IDENTIFIER":"kernel","_HOSTNAME":"jp58","MESSAGE":"TCP: ..."}
    {"version":"1.1","host":"jp58","short_message":"TCP: ...","facility":"kern","_application_name":"kernel"}
    {"@timestamp":"2024-08-18T08:33:14+02:00","host":"jp58","programname":"kernel","message":" [85047.04] TCP: ..."}

Any program may write the text into a field of its own, so the object has to claim the kernel's tag or facility.
"""

from datetime import datetime
from typing import NamedTuple

import msgspec

from agent.core.stamps import NAMED, NUMBERED, from_epoch, read_stamp

MESSAGE_KEYS = ("message", "short_message", "msg")
TAG_KEYS = (
    "syslog_identifier",
    "syslog.identifier",
    "syslog.appname",
    "log.syslog.appname",
    "process.name",
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
HOST_KEYS = ("hostname", "host.hostname", "host.name", "host", "fromhost")
TIME_KEYS = ("@timestamp", "timereported", "timestamp", "time", "isodate", "date", "timegenerated")
# dmesg --json, and Fluent Bit's kmsg input: they read nothing but the kernel's ring, and other facilities into it.
RING_SHAPES = ({"pri", "time", "caller", "msg"}, {"priority", "sequence", "sec", "usec", "msg", "date"})
FACILITIES = {"0", "kern", "kernel"}
DEPTH = 3


class JsonRecord(NamedTuple):
    """What a JSON object says for the kernel: ``message`` may still begin with a printk stamp."""

    message: str
    at: datetime | None
    uptime: float | None
    host: str | None


def parse_json(line: str, now: datetime) -> JsonRecord | None:
    """Read one JSON object as a kernel record, or None when it is not one."""
    try:
        value = msgspec.json.decode(line)
    except (msgspec.DecodeError, RecursionError, ValueError):
        return None
    if not isinstance(value, dict):
        return None
    fields = _flatten(value)
    message = _message(fields)
    if message is None or not _kernel(fields):
        return None
    return JsonRecord(message, _at(fields, now), _uptime(fields), _first_text(fields, HOST_KEYS))


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


def _kernel(fields: dict[str, object]) -> bool:
    """Say whether the object claims to be the kernel's: every claim agrees, and there is proof of its being a record.

    A tag alone is what a monitor's own alert may carry too; a record has a host and a time besides.
    """
    transport = fields.get("transport")
    if transport is not None and transport != "kernel":
        return False
    tags = [str(fields[key]).strip().removesuffix(":") for key in TAG_KEYS if key in fields]
    if any(tag not in ("kernel", "kernel[0]") for tag in tags):
        return False
    facilities = [str(fields[key]).lower() for key in FACILITY_KEYS if key in fields]
    if any(facility not in FACILITIES for facility in facilities):
        return False
    if transport is not None or facilities:
        return True
    if any(set(fields) <= shape for shape in RING_SHAPES):
        return _kernel_priority(fields.get("pri", fields.get("priority")))
    return bool(tags) and any(key in fields for key in HOST_KEYS) and any(key in fields for key in TIME_KEYS)


def _kernel_priority(value: object) -> bool:
    """Say whether dmesg's ``pri`` has facility 0."""
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
            return from_epoch(value)
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
