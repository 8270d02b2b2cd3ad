"""Why a line that holds one of the kernel's messages became an event, or did not: ``scan --explain``.

What the reader decided stands; here its reason is found. A refused line without a reason does not exist.
"""

import re
from typing import NamedTuple

from agent.core.kernel.messages import TEXT, detect
from agent.core.logs.dmesg import STAMP
from agent.core.logs.headers import FACILITY, FILE, LEVEL
from agent.core.logs.jsonlog import why_refused
from agent.core.logs.syslog import CALLER, CODE, COLOUR, DEVKMSG, PRIORITY
from agent.core.logs.timestamps import EPOCH, NAMED, NUMBERED
from agent.core.model import Event, LogRecord

NAMES = ("text", "envelope", "speaker", "message", "event")
NO_NEIGHBOR = "it counts only next to one of the other messages, or within 60 seconds of one"
_ODD_ORDER = "its parts stand in no order that a log of the kernel's has"
# What may stand before a message, in the order in which it is tried; any other word belongs to no kernel's line.
_PARTS = (
    ("stamp", STAMP),
    ("stamp", NAMED),
    ("stamp", NUMBERED),
    ("stamp", EPOCH),
    ("bracket", re.compile(r"\[(?=\d{4}[-/])|\[\d{9,10}\.\d{3}\]")),
    ("end", re.compile(r"\](?=\s|$)")),
    ("priority", PRIORITY),
    ("facility", re.compile(FACILITY.format("facility").removesuffix(" +") + r"(?=\s|$)")),
    ("tag", re.compile(r"\[?kernel(?:\[0?\])?\]?(?::|(?= )|$)(?: - -)?")),
    ("caller", CALLER),
    ("other tag", re.compile(r"[^\s:=\[\]]+(?:\[[^\]\s]*\])?:(?=\s|$)")),
    ("level", re.compile(rf"[\[<(]?{LEVEL}[\])>]?:?(?=\s|$)")),
    ("host", re.compile(r"[\w.:@%/,~+*#$\ufffd-]+(?=\s|$)|\(none\)(?=\s|$)")),
    ("word", re.compile(r"\S+")),
)


class Step(NamedTuple):
    """One step from envelope to event."""

    name: str
    detail: str
    passed: bool = True


class _Refusal(NamedTuple):
    """Where a line was refused: the index of the step in NAMES, and why; and what was read until then."""

    step: int
    reason: str
    envelope: str = ""


def holds_text(line: str) -> bool:
    """Return whether one of the kernel's messages is somewhere in a line."""
    return TEXT.search(_plain(line)) is not None


def is_refused(line: str, record: LogRecord | None) -> bool:
    """Return whether a line holds one of the three messages of socket memory and yet makes no event."""
    text = TEXT.search(_plain(line))
    is_count = text is not None and (text["messages"] or text["callbacks"]) is not None
    return text is not None and not is_count and (record is None or detect(record) is None)


def explain(line: str, record: LogRecord | None, event: Event | None) -> tuple[Step, ...]:
    """Return the steps of a line that holds a message, up to the one that refused it; the last is always the event.

    ``record`` is what the reader made of the line, ``event`` what the detector made of that.
    """
    plain = _plain(line)
    text = TEXT.search(plain)
    said = text[0] if text else record.text if record else ""
    envelope = "none"
    if record is not None:
        found = (("time", record.at and record.at.isoformat()), ("uptime", record.uptime), ("host", record.host))
        envelope = ", ".join(f"{name} {value}" for name, value in found if value is not None) or envelope
    details = [said, envelope, "kernel", said, event.kind if event else "none"]
    if event is not None:
        return tuple(Step(name, detail) for name, detail in zip(NAMES, details, strict=True))
    waits = record is not None and detect(record) is not None
    refusal = _Refusal(4, NO_NEIGHBOR) if waits else _refusal(plain)
    details[1] = refusal.envelope or envelope
    passed = (Step(NAMES[number], details[number]) for number in range(refusal.step))
    steps = (*passed, Step(NAMES[refusal.step], refusal.reason, passed=False))
    return steps if waits else (*steps, Step("event", "none", passed=False))


def _plain(line: str) -> str:
    return COLOUR.sub("", line) if "\x1b" in line else line


def _refusal(line: str) -> _Refusal:
    """Find the first thing in a line that keeps it from being the kernel's."""
    bare = FILE.sub("", line.strip().removeprefix("data: "))
    if bare.startswith("{"):
        return _Refusal(2, why_refused(bare), "a JSON object")
    record = DEVKMSG.match(bare)
    if record is not None:
        return _Refusal(
            2,
            "the priority of its /dev/kmsg record is that of another facility than the kernel's",
            "a /dev/kmsg record",
        )
    text = TEXT.search(bare)
    head, behind = (bare[: text.start()], bare[text.end() :]) if text else (bare, "")
    return (
        _refused_head(head)
        or (_Refusal(3, f"{behind.strip()[:60]!r} follows the message") if behind.strip() else None)
        or (_Refusal(1, "it is indented, as a quotation is") if line.startswith(CODE) else None)
        or _Refusal(1, _ODD_ORDER)
    )


def _refused_head(whole: str) -> _Refusal | None:
    """Walk along what stands before the message, to the first part that a line of the kernel's does not have."""
    seen: dict[str, str] = {}
    head = whole.lstrip()
    while head:
        name, part = next((name, match) for name, pattern in _PARTS if (match := pattern.match(head)))
        if name in {"host", "end"} and ("stamp" not in seen or {name, "tag"} & set(seen)):
            name = "word"
        refusal = _refused_part(name, part)
        if refusal is not None:
            return refusal._replace(envelope=whole.removesuffix(head).strip())
        seen[name], head = part[0], head[part.end() :].lstrip()
    if "level" in seen:
        reason = f"{seen['level']!r} is a level as other programs' logs have it"
    elif "stamp" in seen and not {"tag", "facility"} & set(seen):
        reason = 'no "kernel:" and no printk stamp says that the kernel wrote it'
    else:
        return None
    return _Refusal(2, reason, whole.strip())


def _refused_part(name: str, part: re.Match[str]) -> _Refusal | None:
    if name == "priority" and int(part[1]) >= 8:  # noqa: PLR2004 - eight levels a facility
        return _Refusal(2, f"priority {part[0]} is that of facility {int(part[1]) // 8}; the kernel's is 0")
    if name == "facility" and part["facility"] != "kern":
        return _Refusal(2, f"the facility is {part['facility']}; the kernel's is kern")
    if name == "other tag":
        return _Refusal(2, f"{part[0]!r} is the tag of another program; the kernel's is 'kernel:'")
    return _Refusal(1, f"{part[0][:60]!r} is no part of a line of the kernel's") if name == "word" else None
