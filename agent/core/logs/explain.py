"""Why a line that holds one of the kernel's messages became an event, or did not: ``scan --explain``.

What the reader decided stands; here its reason is found. A refused line without a reason does not exist.
"""

from typing import NamedTuple

from agent.core.kernel.messages import TEXT, detect
from agent.core.logs.envelope import CODE, Part, plain, split_head
from agent.core.logs.records import fields_of, why_refused
from agent.core.model import Event, LogRecord

NAMES = ("text", "envelope", "speaker", "message", "event")
NO_NEIGHBOR = "it counts only next to one of the other messages, or within 60 seconds of one"
_ODD_ORDER = "its parts stand in no order that a log of the kernel's has"


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
    return TEXT.search(plain(line)) is not None


def is_refused(line: str, record: LogRecord | None) -> bool:
    """Return whether a line holds one of the three messages of socket memory and yet makes no event."""
    text = TEXT.search(plain(line))
    is_count = text is not None and (text["messages"] or text["callbacks"]) is not None
    return text is not None and not is_count and (record is None or detect(record) is None)


def explain(line: str, record: LogRecord | None, event: Event | None) -> tuple[Step, ...]:
    """Return the steps of a line that holds a message, up to the one that refused it; the last is always the event.

    ``record`` is what the reader made of the line, ``event`` what the detector made of that.
    """
    line = plain(line)
    text = TEXT.search(line)
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
    details[1] = refusal.envelope or envelope
    passed = (Step(NAMES[number], details[number]) for number in range(refusal.step))
    steps = (*passed, Step(NAMES[refusal.step], refusal.reason, passed=False))
    return steps if waits else (*steps, Step("event", "none", passed=False))


def _refusal(line: str) -> _Refusal:
    """Find the first thing in a line that keeps it from being the kernel's."""
    fields = fields_of(line)
    if fields is not None:
        return _Refusal(2, why_refused(fields), "a record with fields")
    if line.lstrip().startswith("{"):
        return _Refusal(2, "it is no whole JSON object", "a JSON object")
    text = TEXT.search(line)
    head, behind = (line[: text.start()], line[text.end() :]) if text else (line, "")
    parts = split_head(head)
    for number, part in enumerate(parts):
        refusal = _refused_part(part, "".join(before.letter for before in parts[:number]))
        if refusal is not None:
            return refusal._replace(envelope=" ".join(before.text for before in parts[:number]))
    if behind.strip():
        return _Refusal(3, f"{behind.strip()[:60]!r} follows the message")
    return _refused_whole({part.letter: part for part in parts}, head) or _Refusal(
        1, "it is indented, as a quotation is" if line.startswith(CODE) else _ODD_ORDER
    )


def _refused_part(part: Part, before: str) -> _Refusal | None:
    """Say why a line of the kernel's does not have this part, behind the others."""
    letter, text, match, _ = part
    if letter == "P":
        return _Refusal(2, f"priority {text} is that of facility {int(match['priority']) // 8}; the kernel's is 0")
    if letter == "Y":
        return _Refusal(2, "the priority of its /dev/kmsg record is that of another facility than the kernel's")
    if letter == "F":
        return _Refusal(2, f"the facility is {match['facility']}; the kernel's is kern")
    if letter == "o":
        return _Refusal(2, f"{text!r} is the tag of another program; the kernel's is 'kernel:'")
    is_host = letter in "hHi" and not set(before) & set("hHik") and set(before) & set("ndzebBturv")
    return (
        None if is_host or letter not in "hHix" else _Refusal(1, f"{text[:60]!r} is no part of a line of the kernel's")
    )


def _refused_whole(parts: dict[str, Part], head: str) -> _Refusal | None:
    level = next((part for letter, part in parts.items() if letter in "sSlL"), None)
    if level is not None:
        return _Refusal(2, f"{level.text!r} is a level as other programs' logs have it", head.strip())
    if "w" in parts:
        return _Refusal(2, f"no date of its own stands behind {parts['w'].text!r}", head.strip())
    if parts.keys() & set("ndzebB") and not parts.keys() & set("kmKN"):
        return _Refusal(2, 'no "kernel:" and no printk stamp says that the kernel wrote it', head.strip())
    return None
