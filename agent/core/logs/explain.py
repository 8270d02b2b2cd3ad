"""Why a line that holds one of the kernel's messages became an event, or did not: ``scan --explain``.

What the reader decided stands; here its reason is found. A refused line without a reason does not exist.
"""

import re
from typing import NamedTuple

from agent.core.kernel.messages import OTHER_DASH, TEXT, detect
from agent.core.logs.envelope import CODE, REFUSED, Part, plain, split_head
from agent.core.logs.prefilter import TOO_LONG
from agent.core.logs.records import fields_of, why_refused
from agent.core.model import Event, LogRecord

NAMES = ("text", "envelope", "speaker", "message", "event")
_COUNTS = ("suppressed", "suppressed.")
NO_NEIGHBOR = "it counts only next to one of the other messages, or within 60 seconds of one"


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


_OTHER_DASH = _Refusal(0, "the dash is not the kernel's, which writes --")
_ODD_ORDER = "its parts stand in no order that a log of the kernel's has"
_NO_TAG = 'no "kernel:" stands behind the host'
_NOT_SAID = 'no "kernel:" and no printk stamp says that the kernel wrote it'
# Why a line of the kernel's does not have a part, by its letter.
_REASONS = {
    "P": "priority {} is another facility's; the kernel's are <0> to <7>",
    "Y": "the priority of its /dev/kmsg record is that of another facility than the kernel's",
    "W": "the application and process are {speaker!r}; the kernel's are 'kernel -'",
    "F": "the facility is {facility}; the kernel's is kern",
    "o": "{!r} is the tag of another program; the kernel's is 'kernel:'",
    **dict.fromkeys("sSlL", "{!r} is a level as other programs' logs have it"),
    **dict.fromkeys("wq", "no date of its own stands behind {!r}"),
    "j": "no date and kernel tag of its own stand behind {!r}",
    "H": "{!r} is a thread or a module as other programs' logs have it",
}


def holds_text(line: str) -> bool:
    """Return whether one of the kernel's messages is somewhere in a line."""
    return _text_in(plain(line)) is not None


def is_refused(line: str, record: LogRecord | None) -> bool:
    """Return whether a line holds one of the three messages of socket memory and yet makes no event."""
    text = _text_in(plain(line))
    return text is not None and not text[0].endswith(_COUNTS) and (record is None or detect(record) is None)


def explain(line: str, record: LogRecord | None, event: Event | None) -> tuple[Step, ...]:
    """Return the steps of a line that holds a message, up to the one that refused it; the last is always the event.

    ``record`` is what the reader made of the line, ``event`` what the detector made of that.
    """
    line = plain(line)
    text = _text_in(line)
    said = text[0] if text else record.text if record else ""
    envelope = "none"
    if record is not None:
        found = (("time", record.at and record.at.isoformat()), ("uptime", record.uptime), ("host", record.host))
        envelope = ", ".join(f"{name} {value}" for name, value in found if value is not None) or envelope
    details = [said, envelope, "kernel", said, event.kind if event else "none"]
    if event is not None:
        return tuple(Step(name, detail) for name, detail in zip(NAMES, details, strict=True))
    waits = record is not None and detect(record) is not None
    refusal = _Refusal(4, NO_NEIGHBOR) if waits else _refusal(line)
    if OTHER_DASH.search(line):
        refusal = _OTHER_DASH
    if line.startswith(TOO_LONG.decode()):
        refusal = _Refusal(1, "the line is longer than 64 KiB")
    details[1] = refusal.envelope or envelope
    passed = (Step(NAMES[number], details[number]) for number in range(refusal.step))
    steps = (*passed, Step(NAMES[refusal.step], refusal.reason, passed=False))
    return steps if waits else (*steps, Step("event", "none", passed=False))


def _text_in(line: str) -> re.Match[str] | None:
    return TEXT.search(line) or OTHER_DASH.search(line)


def _refusal(line: str) -> _Refusal:
    """Find the first thing in a line that keeps it from being the kernel's."""
    fields = fields_of(line)
    if fields is not None or line.lstrip().startswith("{"):
        return _Refusal(2, why_refused(fields) if fields else "it is no whole JSON object", "a record with fields")
    text = TEXT.search(line)
    head, behind = (line[: text.start()], line[text.end() :].strip()) if text else (line, "")
    parts = split_head(head)
    odd = next((number for number, part in enumerate(parts) if _is_odd(parts[:number], part)), None)
    if odd is not None:
        letter, word, match, _ = parts[odd]
        reason = _REASONS.get(letter if letter in REFUSED else "", "{!r} is no part of a line of the kernel's")
        envelope = " ".join(part.text for part in parts[:odd])
        return _Refusal(2 if letter in _REASONS else 1, reason.format(word[:60], **match.groupdict()), envelope)
    if behind:
        return _Refusal(3, f"{behind[:60]!r} follows the message")
    if line.startswith(CODE) and not parts:
        return _Refusal(1, "it is indented, as a quotation is")
    unfit = next((part for part in parts if part.letter in _REASONS), None)
    if unfit is not None:
        return _Refusal(2, _REASONS[unfit.letter].format(unfit.text), head.strip())
    letters = {part.letter for part in parts}
    why = _ODD_ORDER if letters & set("kKmN") else _NO_TAG if letters & set("turv") else _NOT_SAID
    return _Refusal(2, why, head.strip())


def _is_odd(before: tuple[Part, ...], part: Part) -> bool:
    """Return whether a part is in no envelope, or a host where none can be: before a stamp, or behind another."""
    # A relay or a cloud may have put its own stamp and host before those of the line.
    is_relayed = before[:1] and before[0].letter in "nz"
    own = max((at for at, each in enumerate(before) if is_relayed and each.letter in "ndze"), default=0)
    letters = {each.letter for each in before[own:]}
    is_host = letters.isdisjoint("hHik") and not letters.isdisjoint("ndzebBturv")
    return part.letter in REFUSED or (part.letter in "hH" and not is_host)
