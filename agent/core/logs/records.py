r"""A record with named fields is the kernel's when one of them holds the kernel's line, and none says otherwise.

journalctl -o json (systemd.journal-fields(7)), GELF, rsyslog's and syslog-ng's templates, the Elastic common schema,
dmesg --json, Loki, and what clouds and containers wrap round one of them or round a line, such as::

    {"_TRANSPORT":"kernel","SYSLOG_FACILITY":"0","SYSLOG_IDENTIFIER":"kernel","_HOSTNAME":"jp58","MESSAGE":"TCP: ..."}
    {"@timestamp":"2024-08-18T08:33:14+02:00","host":"jp58","programname":"kernel","message":" [85047.04] TCP: ..."}
    {"log":"Aug 18 08:33:14 jp58 kernel: TCP: ...\n","stream":"stdout","time":"2024-08-18T06:33:14.2Z"}
    2024-05-06T07:08:09Z {host="web-7",job="systemd-journal"} TCP: ...

Any program may write the text into a field of its own: a field has to name the kernel, or else the line in the record
has a date and the kernel's tag of its own, in a field that holds lines. agent.sources.multiline brings each record to
one line of JSON.
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from functools import lru_cache
from itertools import chain
from typing import TypeGuard

import msgspec

from agent.core.kernel.messages import TEXT
from agent.core.logs.envelope import SENTENCE, Envelope, parse, plain, split_head
from agent.core.logs.timestamps import NUMBERED, match_stamp, read_stamp
from agent.core.model import LogRecord
from agent.core.times import from_epoch

# Who wrote a record. A tag of the kernel's is proof together with a host and a time.
TAG = re.compile(
    r"(?:log\.)?(?:syslog[._]?)?(?:identifier|app_?name|program|tag)|process\.?name|programname|application_name|ident"
    r"|(?:systemd_)?(?:user_)?unit|comm|exe|cmdline|process|app|logger(?:_name)?"
)
# What carries lines: a service, a container or a job of another name speaks itself.
CARRIER = re.compile(r"(?:[\w.]*[._])?(?:container|pod)(?:[._]?name)?|service(?:[._]name)?|job")
KERNEL_JOB = re.compile(r"(?i:.*(?:journal|kern|kmsg|dmesg|syslog|varlog).*)")
# Loki names every stream a service.
NO_SERVICE = "unknown_service"
# A process writes with its number; the kernel is none.
PROCESS = re.compile(r"(?:syslog_|process\.)?pid|uid|gid|proc_?id|process_?id")
NO_PROCESS = ("", "-", "0")
FACILITY = re.compile(r"(?:log\.)?(?:syslog[._]?)?fac(?:ility)?(?:[._](?:code|name|label|text))*")
SPEAKER = re.compile(f"{TAG.pattern}|{CARRIER.pattern}|{FACILITY.pattern}|{PROCESS.pattern}|transport")
KERNEL = re.compile(r"\s*(?:0|kern|kernel(?:\[0\])?):?\s*", re.IGNORECASE)
# Logstash's "logsource" and its grok's "syslog_hostname" are the speaker's, its "host" may be the collector's.
HOSTS = (
    *("hostname", "logsource", "syslog_hostname", "host.hostname", "host.name", "host", "fromhost", "computer"),
    *(
        "resource.host.name",
        "resource.attributes.host.name",
        "sourcehost",
        "source_name",
        "source",
        "nodename",
        "compute.googleapis.com/resource_name",
        "instance",
    ),
)
TIMES = (
    *("source_realtime_timestamp", "realtime_timestamp", "@timestamp", "timereported", "timestamp", "time", "isodate"),
    *("date", "eventtime", "timegenerated", "talos_time", "timeunixnano", "messagetime", "generated_at", "received_at"),
)
# Google's log of a machine's serial console.
CONSOLE = "/logs/serialconsole."
# What a stranger asked for: whatever stands beside it is what was sent.
REQUEST = re.compile(
    r"(?:.*\.)?(?:(?:http_?)?(?:method|user_?agent|referr?er|cookies?"
    r"|request(?:_?(?:object|parameters|params|body|uri|args|method))?)|remote_addr|verb|user)(?:\..*)?"
)
# What quotes a line: a monitor's rule or alert, a mail, a command, a request.
QUOTING = re.compile(
    rf"{REQUEST.pattern}|(?:.*\.)?(?:rule|alert(?:name)?|annotations|match(?:ed)?|pattern|query|search|trigger|check"
    r"|subject|title|comment|author|sender|command|cmd|argv?s?|expr)(?:\..*)?"
)
# What people and their tools say, where no field names the kernel: mail, chat, a ticket, a command's output.
SPOKEN = re.compile(
    r"(?:.*\.)?(?:from|to|cc|bcc|recipients?|role|prompt|completion|question|answer|reply|q|url|href|html|snippet|summary"
    r"|description|ts|thread_ts|channel|assignee|reporter|stdout|stderr|rc|(?:exit|return)_?code)(?:\..*)?"
)
# What holds a line of a log. Any other field may hold what a stranger chose: a user agent, a login, a file's name.
LINE = re.compile(
    r"(?:(?:fields|event|log|record|json|properties|payload|data)\.)*@?"
    r"(?:(?:(?:sys)?log|raw|short|full|original|event|text|message|msg)[._ ]?)?"
    r"(?:message|msg|(?:sys)?log|raw|original|line|text|string|payload|body|event|record|entry|data|content|value)"
)
_ROLES = {
    "line": LINE,
    "tag": TAG,
    "facility": FACILITY,
    "carrier": CARRIER,
    "process": PROCESS,
    "quoting": QUOTING,
    "spoken": SPOKEN,
}
_LONGEST_KNOWN = 64
# The labels of a Loki stream that name no speaker; a job has to be a journal's or the kernel's.
LABEL = re.compile(
    r"(?:host|node)(?:name)?|instance|(?:boot|machine)_id|cluster|region|env|(?:detected_)?level|severity|priority|job"
    r"|service_name|transport|(?:syslog_)?(?:facility|identifier)"
)
LOKI = {"labels", "line", "timestamp"}
# dmesg --json, and Fluent Bit's kmsg input: they read nothing but the kernel's ring, and other facilities into it.
DMESG = {"pri", "time", "caller", "msg", "fac"}
RINGS = (DMESG - {"fac"}, {"priority", "sequence", "sec", "usec", "msg", "date"})
DEPTH = 4
# What carries a record or says whose it is, and what only says of which type a value is.
TRANSPARENT = {"jsonpayload", "source", "result", "labels", "attributes", "content", "message", "map"}
AROUND_NAMES = TRANSPARENT - {"source", "content", "message"}
TYPES = {"stringvalue", "intvalue", "$date", "$numberlong"}
PAIRS = ({"field", "value"}, {"key", "value"}, {"name", "value"})
# Clouds count milliseconds, microseconds or nanoseconds.
LATEST_SECONDS = 1e11
_LABELLED = re.compile(r"(?P<time>\S+)\s+(?P<labels>\{(?:\w+=\"[^{}]*\")?\})\s+(?P<line>.*)", re.DOTALL)
_LABEL = re.compile(r"(\w+)=\"((?:[^\"\\]|\\.)*)\"")
# logfmt, as Vector and others write it.
_PAIR = r"([\w.@/-]+)=(?:\"((?:[^\"\\]|\\.)*)\"|([^\s\"]*))(?:\s+|\Z)"
_PAIRS = re.compile(rf"(?:{_PAIR}){{2,}}")
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
    console: bool = False,
) -> LogRecord | None:
    """Make a record of one line of a log, or None when it is not the kernel's; bad UTF-8 is replaced.

    ``now`` and ``console`` are as for agent.core.logs.envelope.parse. ``times`` is for how many lines it stands.
    """
    line = raw.decode(errors="replace").lstrip("\0").rstrip("\r\n")
    fields = fields_of(line) if "{" in line or '="' in line else None
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
    )


def fields_of(line: str) -> dict[str, object] | None:
    """Return the fields of a line that is a record, among them what stands before an object; None for other lines."""
    line = plain(line).strip()
    labelled = _LABELLED.fullmatch(line)
    if labelled:
        labels = dict(_LABEL.findall(labelled["labels"]))
        return _flatten({"labels": labels, "line": labelled["line"], "timestamp": labelled["time"]})
    if _PAIRS.fullmatch(line):
        return _flatten({name: quoted or bare for name, quoted, bare in re.findall(_PAIR, line)})
    head, brace, rest = line.partition("{")
    if not brace:
        return None
    letters = "".join(part.letter for part in split_head(head))
    if not rest.endswith("}") or (letters and not _HEADED.fullmatch(letters)):
        return None
    try:
        fields = _flatten(_OBJECT.decode("{" + rest))
    except (msgspec.DecodeError, RecursionError, ValueError):
        return None
    before = {"timestamp": head} if letters else {}
    return before | ({"facility": "kern"} if letters.endswith(("G", "K")) else {}) | fields


def spread(line: bytes) -> Iterator[bytes]:
    """Yield the records of a line of JSON that is a document of several, or else the line itself.

    Search engines, clouds and Loki answer like that. What an object around a record says of host and speaker is the
    record's, too.
    """
    records: list[dict[str, object]] = []
    if b"[" in line and line.lstrip()[:1] in {b"{", b"["}:
        with suppress(msgspec.DecodeError, RecursionError, ValueError):
            document = msgspec.json.decode(line)
            found = list(_records_in(_with_names(document), {}))
            records = found if found != [document] else []
    yield from [msgspec.json.encode(record) for record in records] or [line]


def _with_names(value: object) -> object:
    """Make fields of a list of names and values, as OpenTelemetry's attributes are."""
    if isinstance(value, dict):
        return {key: _with_names(inner) for key, inner in value.items()}
    if not isinstance(value, list):
        return value
    if value and all(isinstance(inner, dict) and inner.keys() in PAIRS for inner in value):
        return {name: _with_names(inner) for pair in value for name, inner in _named(pair).items()}
    return [_with_names(inner) for inner in value]


def _named(pair: dict[str, object]) -> dict[str, object]:
    """Make a field of a name and its value."""
    return {str(next(pair[key] for key in pair if key != "value")): pair["value"]}


def _records_in(value: object, around: dict[str, object]) -> Iterator[dict[str, object]]:
    """Find the objects that hold a message in a field of their own, in however deep lists."""
    if isinstance(value, list):
        for inner in value:
            yield from _records_in(inner, around)
    if not isinstance(value, dict):
        return
    fields = _flatten(value)
    stream, lines = value.get("stream"), value.get("values")
    if isinstance(stream, dict) and isinstance(lines, list):  # Loki's
        for at, text, *_ in (line for line in lines if isinstance(line, list) and len(line) > 1):
            yield from _records_in({"labels": stream, "timestamp": at, "line": text}, {})
        return
    if any(_texts(fields)):
        yield around | value
    said = {name: inner for name, inner in fields.items() if name in HOSTS or SPEAKER.fullmatch(name)}
    asked = dict.fromkeys(filter(REQUEST.fullmatch, fields), "of a request")
    for inner in _lists_in(value):
        yield from _records_in(inner, around | said | asked)


def _lists_in(value: dict[str, object]) -> Iterator[list[object]]:
    """Yield the lists of objects or of lists, in whatever object they are."""
    for inner in value.values():
        if isinstance(inner, dict):
            yield from _lists_in(inner)
        elif isinstance(inner, list) and any(isinstance(each, dict | list) for each in inner):
            yield inner


def why_refused(fields: dict[str, object]) -> str:
    """Say why a record that holds one of the kernel's messages is not the kernel's."""
    other = _another_speaker(fields)
    if other is not None:
        return f"the field {other} is {str(fields[other])[:60]!r}, not the kernel's"
    if quoting := next(filter(QUOTING.fullmatch, fields), None):
        return f"a record with the field {quoting} quotes lines"
    if _is_an_applications(fields):
        return f"the level {fields['level']!r} is that of another program's log"
    if spoken := next(filter(SPOKEN.fullmatch, fields), None):
        return f"a record with the field {spoken} is no log's"
    names = [name for name, _ in _texts(fields)]
    if names and not _is_kernels(fields) and not any("line" in _roles_of(name) for name in names):
        return f"the field {names[0][:60]} does not hold log lines"
    return _why_unread([plain(text).strip() for text in fields.values() if isinstance(text, str)])


def _why_unread(texts: list[str]) -> str:
    """Say why the line in a field is not the kernel's."""
    texts = [text for text in texts if TEXT.search(text)]
    if not texts:
        return "the message in it is no field's value"
    if any("\n" in text for text in texts):
        return "the field with the message holds several lines"
    if not any(map(SENTENCE.search, texts)):
        return "more follows the message in its field"
    bare = any(map(SENTENCE.match, texts))
    return "no field says that the kernel wrote it" if bare else "the line in it has no date and kernel tag of its own"


def _parse_fields(fields: dict[str, object], now: datetime) -> Envelope | None:
    whole = not _is_kernels(fields)
    roles = frozenset[str]().union(*map(_roles_of, fields))
    if _another_speaker(fields) or "quoting" in roles or (whole and "spoken" in roles):
        return None
    if whole and _is_an_applications(fields):
        return None
    lines = (
        parse(text.strip(), now, whole=whole)
        or (parse(text.strip(), now, whole=True, dated=True) if _says_when_and_where(fields) else None)
        or (_from_console(text, now) if CONSOLE in str(fields.get("logname")) else None)
        for name, text in _texts(fields)
        if not whole or "line" in _roles_of(name)
    )
    inner = next((line for line in lines if line), None)
    if inner is None:
        return None
    host = inner.host or next((name for key in HOSTS if (name := fields.get(key)) and _is_host(name)), None)
    uptime = _uptime(fields) if inner.uptime is None else inner.uptime
    return msgspec.structs.replace(inner, at=_at(fields, now) or inner.at, uptime=uptime, host=host)


def _from_console(text: str, now: datetime) -> Envelope | None:
    """Read a line of a serial console, where printk's stamp alone tells the kernel from a program."""
    line = parse(text.strip(), now, console=True)
    return line if line and line.uptime is not None else None


def _is_host(name: object) -> TypeGuard[str]:
    """Return whether a value can name a host: a source may be a file."""
    return isinstance(name, str) and "/" not in name


def _says_when_and_where(fields: dict[str, object]) -> bool:
    return _says_one_of(TIMES, fields) and _says_one_of(HOSTS, fields)


def _says_one_of(names: tuple[str, ...], fields: dict[str, object]) -> bool:
    return any(fields.get(name) not in (None, "") for name in names)


def _flatten(value: dict[str, object], prefix: str = "", depth: int = DEPTH) -> dict[str, object]:
    """Bring every field to one level under a name in small letters: ``_SYSLOG-Facility`` is ``syslog_facility``.

    What carries a record or says whose it is keeps its name to itself, and a type that of its value: jsonPayload
    (Google), _source (Elasticsearch), result (Splunk), labels (Loki), stringValue (OpenTelemetry). In CSV a name may
    be ``jsonPayload._HOSTNAME`` (Google), and the labels one cell of JSON (Grafana).
    """
    fields: dict[str, object] = {}
    for key, outer in (_named(value) if value.keys() in PAIRS else value).items():
        name = key.lower().replace("-", "_").lstrip("_")
        if "." in name:
            around, _, own = name.partition(".")
            name = own.lstrip("_") if around in AROUND_NAMES else name
        name = prefix[:-1] if prefix and name in TYPES else prefix + name
        inner = _object_in(outer) if name == "labels" else outer
        if isinstance(inner, dict) and depth:
            is_record = name in TRANSPARENT
            fields |= ({name: None} if is_record else {}) | _flatten(inner, "" if is_record else f"{name}.", depth - 1)
        else:
            fields[name] = inner[0] if isinstance(inner, list) and len(inner) == 1 else inner
    return fields


def _object_in(value: object) -> object:
    """Return the object that a text of JSON is, or else the value."""
    with suppress(msgspec.DecodeError, RecursionError, ValueError):
        return _OBJECT.decode(value) if isinstance(value, str) else value
    return value


def _texts(fields: dict[str, object]) -> Iterator[tuple[str, str]]:
    """Return the texts that hold a message, each with its field; journald writes one that is not UTF-8 as bytes."""
    for name, value in fields.items():
        text = bytes(value).decode(errors="replace") if _is_bytes(value) else value
        if isinstance(text, str) and SENTENCE.search(plain(text)):
            yield name, text


def _is_bytes(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(isinstance(byte, int) and 0 <= byte <= 255 for byte in value)  # noqa: PLR2004


def _another_speaker(fields: dict[str, object]) -> str | None:
    """Name the field that says another speaker than the kernel, or None."""
    transport = fields.get("transport")
    if transport not in (None, "kernel"):
        return "transport"
    # A job is who fetched a journal's record, and Loki's service_name repeats it; the transport is who wrote it.
    fetched_by = {"job", "service_name"} if transport else frozenset[str]()
    said = (name for name, value in fields.items() if value not in (None, "") and _is_anothers(name, value))
    return next((name for name in said if name not in fetched_by), None)


def _is_anothers(name: str, value: object) -> bool:
    roles = _roles_of(name)
    if not roles:
        return False
    text = str(value)
    if "tag" in roles or "facility" in roles:
        return KERNEL.fullmatch(text) is None
    if "carrier" in roles:
        return text != NO_SERVICE and KERNEL_JOB.fullmatch(text) is None
    return "process" in roles and text not in NO_PROCESS


def _roles_of(name: str) -> frozenset[str]:
    """Return what the name of a field says of its value; the names of a log are few, and a forged one may be long."""
    return _known_roles_of(name) if len(name) <= _LONGEST_KNOWN else _known_roles_of.__wrapped__(name)


@lru_cache(maxsize=512)
def _known_roles_of(name: str) -> frozenset[str]:
    return frozenset(role for role, pattern in _ROLES.items() if pattern.fullmatch(name))


def _is_an_applications(fields: dict[str, object]) -> bool:
    """Return whether a logger of a program wrote a record: it has a level in words, beside no labels of a stream."""
    return str(fields.get("level", "")).isalpha() and "labels" not in fields


def _is_kernels(fields: dict[str, object]) -> bool:
    """Return whether a record that is not another's claims to be the kernel's, with proof of its being a record.

    A tag alone is what a monitor's own alert may carry too; a record has a host and a time besides.
    """
    said = {name for name, value in fields.items() if KERNEL.fullmatch(str(value))}
    if fields.get("transport") is not None or any(map(FACILITY.fullmatch, said)):
        return True
    names = fields.keys()
    if any(names <= ring for ring in RINGS):
        priority = fields.get("pri", fields.get("priority"))
        return isinstance(priority, int) and 0 <= priority < 8  # noqa: PLR2004 - eight levels a facility, the first is 0
    if names >= LOKI:
        return names > LOKI and all(map(LABEL.fullmatch, names - LOKI))
    return any(map(TAG.fullmatch, said)) and _says_when_and_where(fields)


def _at(fields: dict[str, object], now: datetime) -> datetime | None:
    named = ((key, fields[key]) for time in TIMES for key in (time, f"{time} [utc]") if key in fields)
    alike = ((key, value) for key, value in fields.items() if isinstance(value, str) and _is_stamp(value))
    key, value = next(chain(named, alike), ("", None))
    stamp = match_stamp(value) if isinstance(value, str) else None
    if stamp is not None:
        # CloudWatch Insights writes @timestamp without its zone.
        is_utc = key.endswith("[utc]") or (key == "@timestamp" and stamp.re is NUMBERED)
        return read_stamp(stamp, now, "UTC" if is_utc else None)
    number = None if fields.keys() <= DMESG else _number(value)
    if number is None:
        return None
    return from_epoch(next((number / scale for scale in (1, 1e3, 1e6, 1e9) if number / scale < LATEST_SECONDS), None))


def _is_stamp(value: str) -> bool:
    stamp = match_stamp(value)
    return stamp is not None and stamp.end() == len(value)


def _uptime(fields: dict[str, object]) -> float | None:
    micros = _number(fields.get("source_monotonic_timestamp") or fields.get("monotonic_timestamp"))
    time = fields.get("time") if fields.keys() <= DMESG else None
    seconds = _number(time) if micros is None else micros / 1e6
    return seconds if seconds is not None and 0 <= seconds < LATEST_SECONDS else None


def _number(value: object) -> float | None:
    try:
        return float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else None
    except (ValueError, OverflowError):  # An integer of hundreds of digits.
        return None
