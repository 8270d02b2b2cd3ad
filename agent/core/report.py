"""The words for people: a diagnosis for a terminal, a notice for a journal or a phone.

Plain text, no color, 80 columns. Whatever comes from outside (host names, log lines) is made printable first, and
the kernel's lines stand in guillemets: our own output never looks like a kernel record to our own detector.
"""

import re
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from functools import lru_cache
from typing import NamedTuple

from agent.core.budget import MESSAGES_AN_HOUR
from agent.core.format import (
    bytes_text,
    columns_of,
    count_text,
    counted,
    duration_text,
    moment_text,
    pad,
    percent_text,
    printable,
    wrap,
)
from agent.core.history.early_warning import REFUSALS_UNIT
from agent.core.kernel.limits import KILLED
from agent.core.model import (
    CAUSES,
    KINDS,
    Advice,
    Cause,
    Diagnosis,
    DigestNotice,
    Evidence,
    Finding,
    Holder,
    Incident,
    Mechanism,
    Notice,
    Provenance,
    Remark,
    Standing,
    Witness,
    WitnessedBy,
)
from agent.core.recurrence import recurrence_text, recurrence_words
from agent.core.sockets.holder_names import guess_text, largest_of, main_holder, main_victim, marked, name_of
from agent.core.sockets.shares import FULL_GROUP, ITS_MEMORY
from agent.core.times import seconds_between

_COLUMNS = 78  # `incidents show` indents by two
SOURCES: dict[Provenance, str] = {
    "kernel": "kernel",
    "claimed": "text log (unverified; any local user can write to it)",
}
# On everything that a test incident shows.
TEST_MARK = "TEST, nothing is wrong: "
_BUDGETS: dict[Provenance, str] = {
    "claimed": "incidents that only a text log claims",
    "kernel": "incidents that the kernel or the gauges prove",
}
_KERNEL_TEXT = re.compile(r"Out of socket memory|TCP: (?=too many |out of memory)|callbacks suppressed")


class _Consequence(NamedTuple):
    """What a cause does to connections, while it lasts and afterwards, and the limit that was reached."""

    does: str
    did: str
    limit: str


_CONSEQUENCES: dict[Cause, _Consequence] = {
    "orphans": _Consequence("is resetting TCP connections", "reset TCP connections", "orphan limit"),
    "tcp_memory": _Consequence("is dropping TCP data", "dropped TCP data", "TCP memory limit"),
    "both": _Consequence("is resetting TCP connections", "reset TCP connections", "orphan and TCP memory limits"),
    "undetermined": _Consequence("is resetting TCP connections", "reset TCP connections", "orphan or TCP memory limit"),
    "none": _Consequence("is fine", "was fine", "no TCP limit"),
}


def title(notice: Notice) -> str:
    """Return a notice in one line for a phone's lock screen."""
    if isinstance(notice, DigestNotice):
        host = printable(notice.host or "unknown host", 64)
        count = counted(notice.digest.count, "more incident")
        return f"{host}: {count} since {moment_text(notice.digest.since, notice.at.astimezone(timezone.utc))}"
    incident = notice.data
    if incident is None:
        return "sockmem-agent: test notification, nothing is wrong"
    marks = [recurrence_words(incident)]
    line = headline(incident)
    if isinstance(notice, Remark):
        line += _span(incident, notice.at.astimezone(timezone.utc))
        marks.insert(0, notice.remark)
    elif notice.type == "sockmem.incident.updated" and not isinstance(notice, Standing):  # A state is no news.
        marks.insert(0, "update")
    elif notice.type == "sockmem.incident.resolved":
        lasted = seconds_between(incident.opened_at, incident.last_seen_at)
        marks.insert(0, f"resolved after {duration_text(lasted)}" if lasted >= 1 else "resolved")
    shown = ", ".join(filter(None, marks))
    return f"{line} ({shown})" if shown else line


def _span(incident: Incident, now: datetime) -> str:
    """Return from when to when what is over lasted, in UTC, where the headline does not say it."""
    if incident.closed_at is None or (incident.is_past and not incident.is_warning):
        return ""
    start, end = (moment_text(at, now) for at in (incident.opened_at, incident.last_seen_at))
    if start == end:
        return f" at {start}"
    return f" from {start.removesuffix(' UTC')} to {end}"


def brief_text(incident: Incident, most: int) -> str:
    """Return what, who and the first command within a limit in bytes; the first of these is cut first."""
    commands = [command for advice in incident.diagnosis.advice for command in advice.commands]
    held = held_by(incident.diagnosis, incident.witness)
    parts = [printable(incident.summary)]
    parts += [f"Held by {held}."] if held else []
    parts += [f"First: {printable(commands[0], most // 2)}"] if commands else []
    room = most - len(_quoteless(" ".join(parts[1:])).encode()) - 1
    what = _quoteless(parts[0]).encode()
    if len(what) > room:
        parts[0] = what[: max(0, room - 3)].decode(errors="ignore") + "…"
    return _quoteless(" ".join(parts)).encode()[:most].decode(errors="ignore")


def digest_facts(notice: DigestNotice, most: int) -> tuple[str, str, str]:
    """Return why incidents come in a digest, which they are (``most`` by name), and how to list them."""
    limits = ", ".join(f"{most_an_hour} for {_BUDGETS[budget]}" for budget, most_an_hour in MESSAGES_AN_HOUR.items())
    ids, count = notice.digest.ids, notice.digest.count
    more = f" and {count_text(count - most)} more" if count > most else ""
    first = ids[0]
    since = f"{first[:4]}-{first[4:6]}-{first[6:8]}T{first[9:11]}:{first[11:13]}:{first[13:15]}Z"
    return (
        f"All are recorded. Messages per channel and hour: {limits}; the rest arrives in one digest.",
        ", ".join(ids[:most]) + more,
        f"sockmem-agent incidents list --since {since}",
    )


def headline(incident: Incident) -> str:
    """Return consequence, number and holder in one line; in the past tense once the incident is closed."""
    return f"{TEST_MARK}{_headline(incident)}" if incident.is_test else _headline(incident)


def read_on(incident: Incident) -> str | None:
    """Return the command that shows an incident, and on which other host; of a test there is nothing to show."""
    where = f"  # on {printable(incident.read_on, 64)}" if incident.read_on else ""
    return None if incident.is_test else f"sockmem-agent incidents show {incident.id}{where}"


def _headline(incident: Incident) -> str:
    host, over = printable(incident.host or "unknown host", 64), incident.closed_at is not None
    group = _limit_of_group(incident.diagnosis)
    if incident.is_warning and incident.pressure:
        claim = "over" if over else incident.pressure.claim
        about = f": {group} reached" if group else f"{_reading(incident, incident.pressure.cause)}{_held(incident)}"
        if incident.pressure.unit == REFUSALS_UNIT and not (over or group):  # The claim has the sizes of then.
            about = _held(incident)
        if incident.pressure.unit == "bytes" and not over:  # The claim names a group, and this is the group's memory.
            about = f" ({bytes_text(incident.pressure.value)} of {bytes_text(incident.pressure.limit)})"
        return f"{host} early warning: {claim}{about}"
    consequence = _CONSEQUENCES[incident.cause]
    # What the trace alone tells is that sockets were killed, not which limit it was.
    likely = "" if incident.first_event or incident.cause == "undetermined" else "probably "
    reached = f"{likely}{group or consequence.limit} reached"
    does = consequence.did if over else consequence.does
    claims, do = ("claimed", "did") if over else ("claims", "do")
    if incident.is_past:
        when = f"on {incident.last_seen_at.astimezone(timezone.utc):%d %b %Y at %H:%M UTC}; nothing was measured then"
        said = f"{host}: log claimed" if incident.is_unconfirmed else f"{host} {consequence.did}:"
        return f"{said} {reached} {when}"
    if incident.read_on:
        return f"{host}: log on {printable(incident.read_on, 64)} {claims} {reached}; nothing was measured on {host}"
    if incident.is_unconfirmed and any(each.claim == "trace_contradicts" for each in incident.diagnosis.findings):
        return f"{host}: log {claims} kills; the kernel {'reported' if over else 'reports'} none"
    if incident.is_unconfirmed:
        return f"{host}: log {claims} {reached}; this host's counters {do} not confirm it"
    # Of a group's own limit the host's readings say nothing, nor does who holds most of the host's memory.
    return f"{host} {does}: {reached}" + ("" if group else f"{_reading(incident, incident.cause)}{_held(incident)}")


def _limit_of_group(diagnosis: Diagnosis) -> str | None:
    """Return the limit of a control group, where that is the verdict, with its reading; None where it is not."""
    evidence = {each.name: each for finding in diagnosis.findings[:1] for each in finding.evidence}
    if [finding.claim for finding in diagnosis.findings[:1]] != ["cgroup_limit"]:
        return None
    name, memory = evidence.get(FULL_GROUP), evidence.get(ITS_MEMORY)
    if name is None or memory is None or not isinstance(memory.value, int) or not isinstance(memory.limit, int):
        return "a control group's TCP memory limit"
    return f"memory limit of {printable(str(name.value))} ({bytes_text(memory.value)} of {bytes_text(memory.limit)})"


def source_text(incident: Incident) -> str:
    """Return what an incident rests on."""
    where = f", on {printable(incident.read_on, 64)}" if incident.read_on else ""
    if incident.is_warning:
        is_traced = incident.pressure is not None and incident.pressure.unit == REFUSALS_UNIT
        source = "the kernel's trace" if is_traced else "gauges"
        return f"{source} (no kernel message)"
    if incident.witness and incident.witness.kills and not incident.is_logged_by_kernel:
        messages = SOURCES["claimed"] if incident.first_event else "none"
        return f"kernel, by its trace; messages: {messages}"
    return SOURCES[incident.provenance] + where


def held_by(diagnosis: Diagnosis, witness: Witness | None = None) -> str | None:
    """Return the main holder with what it holds; None where there is none."""
    main = main_holder(diagnosis, witness)
    if main is None:
        return None
    held = counted(main.held, "orphan") if main.gauge == "orphans" else f"{bytes_text(main.held)} of TCP memory"
    sockets = counted(main.holder.sockets, "socket")
    return f"{marked(main.name, main.holder)}: {held}, {sockets}"


def holder_row(diagnosis: Diagnosis, witness: Witness | None = None) -> list[tuple[str, str]]:
    """Return the largest holder as a row of the details: the main holder, or the largest known one."""
    found = largest_of(diagnosis, witness)
    if found is None:
        return []
    words, what = (count_text, "orphans") if found.gauge == "orphans" else (bytes_text, "TCP memory")
    share = f"{words(found.held)} of {words(found.total)} {what}, {counted(found.holder.sockets, 'socket')}"
    return [("held by" if found.is_main else "largest known holder", f"{marked(found.name, found.holder)}: {share}")]


def messages_text(incident: Incident, separator: str = ", ") -> str | None:
    """Return what the kernel logged, by kind, with what it suppressed; None where it logged nothing."""
    said = sorted(kind for kind, count in incident.events.items() if count and kind != "suppressed")
    kinds = [f"{count_text(incident.events[kind])} x {KINDS[kind]}" for kind in said]
    suppressed = dict(incident.suppressed)
    unattributed = suppressed.pop("suppressed", 0)
    if len(said) <= 1:
        suppressed = {"suppressed": incident.suppressed_at_least} if incident.suppressed_at_least else {}
    for kind, count in sorted(suppressed.items()):
        of = f" x {KINDS[kind]}" if len(said) > 1 else ""
        kinds.append(f"at least {count_text(count)}{of} suppressed by its rate limit")
    if unattributed:
        kinds.append(f"{count_text(unattributed)} of some network message suppressed")
    return separator.join(kinds) or None


def resets(incident: Incident) -> int | None:
    """Return how many connections the kernel reset, as its counter or trace showed; None where that is not known."""
    evidence = (each for finding in incident.diagnosis.findings for each in finding.evidence)
    counts = [each.value for each in evidence if each.name.startswith(KILLED) and isinstance(each.value, int)]
    witness = incident.witness
    traced = witness.kills + (witness.unseen or 0) if witness and witness.kills else None
    return max((each for each in (*counts, traced) if each is not None), default=None)


def witness_rows(incident: Incident) -> list[tuple[str, str]]:
    """Return who was reset and refused, as the kernel's trace showed; nothing where it showed none."""
    witness = incident.witness
    if witness is None:
        return []
    more = f"; {count_text(witness.unseen)} more only counted" if witness.unseen else ""
    rows = [
        ("resets of", [(each, each.kills) for each in witness.by if each.kills], more),
        ("memory refused", [(each, each.refusals) for each in witness.by if each.refusals], ""),
    ]
    return [(what, ", ".join(f"{count_text(n)} {_name(each)}" for each, n in by) + end) for what, by, end in rows if by]


def _name(each: WitnessedBy) -> str:
    name = name_of(each)
    return f"{marked(name, each)}{' (in part by share)' if each.pro_rata else ''}" if name else "unattributed"


def gauge_rows(incident: Incident) -> list[tuple[str, str]]:
    """Return the peaks that the title does not have: of the gauge that is not the cause."""
    shown = "none" if incident.is_unconfirmed else incident.cause_shown
    rows = []
    if shown not in ("orphans", "both") and (orphans := _orphans(incident)):
        rows.append(("Orphans at peak", orphans))
    if shown not in ("tcp_memory", "both") and (memory := _memory(incident)):
        rows.append(("TCP memory at peak", memory))
    return rows


def durable_fix(incident: Incident) -> Advice | None:
    """Return the first setting to change for good, once there is nothing to look at any more."""
    return next((advice for advice in incident.diagnosis.advice if advice.persist), None)


def notice_text(notice: Notice) -> str:
    """Return a notice as a readable block: what, since when, how far, the first step, where more is."""
    if isinstance(notice, DigestNotice):
        why, which, command = digest_facts(notice, most=10)
        lines = [title(notice), "", *_wrapped(why, "  "), "", *_wrapped(which, "  "), "", f"list them: {command}"]
        return "\n".join(lines) + "\n"
    incident = notice.data
    if incident is None:
        return f"{title(notice)}\n  {printable(notice.reason)}\n  notice: {printable(notice.id)}\n"
    if notice.type == "sockmem.incident.resolved":
        return _resolved_text(notice, incident)
    lines = _opening(notice, incident)
    first = incident.diagnosis.advice[:1]
    lines += _table(
        [
            *_facts(incident),
            # The first step is about the main holder, and has its numbers.
            *([] if first else _holder_row(incident)),
            ("source", source_text(incident)),
            *([("line", f"«{printable(incident.first_event.line, 200)}»")] if incident.first_event else []),
        ],
    )
    lines += ["", "First step:", *_advice(None, first[0])] if first else []
    return "\n".join([*lines, "", _read_on(incident)]) + "\n"


def news_text(notice: Notice, runbook_url: str = "") -> str:
    """Return a notice for readers of the one before it: of an update, what is new."""
    incident = notice.data
    text = notice_text(notice)
    if incident is not None and notice.type == "sockmem.incident.updated":
        lines = [*_opening(notice, incident), *_table([*_facts(incident), *_holder_row(incident)])]
        text = "\n".join([*lines, "", _read_on(incident)]) + "\n"
    return f"{text}runbook: {printable(runbook_url)}\n" if runbook_url else text


def body_text(notice: Notice, runbook_url: str = "") -> str:
    """Return the same without its first line, for media that have a place for the title."""
    return news_text(notice, runbook_url).partition("\n")[2].lstrip("\n")


def diagnosis_text(diagnosis: Diagnosis) -> str:
    """Return a diagnosis for a terminal: verdict, numbers, findings with evidence, advice with commands, gaps."""
    summary, parts = diagnosis_parts(diagnosis)
    lines = [f"Cause: {CAUSES[diagnosis.cause]} ({diagnosis.confidence})", "", *summary]
    return "\n".join([*lines, *(line for name, part in parts.items() for line in ("", f"{name}:", *part))]) + "\n"


def diagnosis_parts(diagnosis: Diagnosis, witness: Witness | None = None) -> tuple[list[str], dict[str, list[str]]]:
    """Return the lines of a diagnosis's summary, and of its other parts by name, each indented by two."""
    parts = {
        "Numbers": _table(_numbers(diagnosis.mechanism)),
        "Findings": [line for each in diagnosis.findings for line in _finding(each)],
        "Holders": _table([*holder_row(diagnosis, witness), *(_holder(each) for each in diagnosis.holders)]),
        "Advice, in the order to try it": [
            line for number, each in enumerate(diagnosis.advice, 1) for line in _advice(number, each)
        ],
        "Unknown": [line for gap in diagnosis.gaps for line in _bullet(f"{printable(gap.what)}: {printable(gap.why)}")],
    }
    return [*_wrapped(_quoteless(printable(diagnosis.summary)), "")], {
        name: part for name, part in parts.items() if part
    }


# --- parts ----------------------------------------------------------------------------------------------------------


def _opening(notice: Notice, incident: Incident) -> list[str]:
    lines = [_quoteless(title(notice)), ""]
    if notice.type == "sockmem.incident.updated" and not isinstance(notice, Remark):
        lines += [*_wrapped(f"What changed: {_quoteless(printable(notice.reason))}", "  "), ""]
    return [*lines, *_wrapped(_quoteless(printable(incident.summary)), "  "), ""]


def _resolved_text(notice: Notice, incident: Incident) -> str:
    lines = [_quoteless(title(notice)), "", *_table([*_facts(incident), *_holder_row(incident)])]
    if fix := durable_fix(incident):
        lines += ["", *_wrapped(f"Durable fix: {printable(fix.action)}", "  ", "    ")]
        lines += [f"    | {printable(line)}" for line in (fix.persist or "").splitlines()]
    return "\n".join([*lines, "", _read_on(incident)]) + "\n"


def _facts(incident: Incident) -> list[tuple[str, str]]:
    killed = resets(incident)
    moments = (incident.opened_at, incident.last_seen_at) if incident.closed_at else (incident.opened_at,)
    return [
        ("cause", f"{CAUSES[incident.cause]} ({incident.confidence})"),
        ("time" if incident.closed_at else "since", " to ".join(dict.fromkeys(map(_stamp, moments)))),
        *([("recurrence", often)] if (often := recurrence_text(incident)) else []),
        ("messages", messages_text(incident) or "none"),
        *([("resets", counted(killed, "connection"))] if killed is not None else []),
        *witness_rows(incident),
        *(
            (name.partition(" at ")[0].removeprefix("TCP ").lower(), f"{text} at peak")
            for name, text in gauge_rows(incident)
        ),
    ]


def _stamp(at: datetime) -> str:
    return f"{at.astimezone(timezone.utc):%Y-%m-%d %H:%M:%S} UTC"


def _holder_row(incident: Incident) -> list[tuple[str, str]]:
    return [("held by", holder)] if (holder := held_by(incident.diagnosis, incident.witness)) else []


def _held(incident: Incident) -> str:
    main = main_holder(incident.diagnosis, incident.witness) if incident.cause_shown == incident.cause else None
    if main:
        return f", most held by {marked(main.name, main.holder)}"
    victim = main_victim(incident.witness)
    return f", most resets hit {marked(*victim)}" if victim else ""


def _reading(incident: Incident, cause: Cause) -> str:
    """Return the highest readings of what ran out, in brackets; a burst that no reading saw is marked as such."""
    mechanism, limits = incident.diagnosis.mechanism, incident.diagnosis.mechanism.tcp_mem_pages
    orphans = _orphans(incident, share=False) if cause in ("orphans", "both") else None
    memory = _memory(incident, share=False) if cause in ("tcp_memory", "both") else None
    if orphans and mechanism.penalty_shift:
        orphans += f", {_penalty(mechanism)}"
    passed = (orphans is None or mechanism.penalty_shift is None) and (
        memory is None or (limits is not None and (mechanism.mem_pages or 0) < limits[1])
    )
    read = "; ".join(filter(None, (orphans, memory)))
    missed = "highest reading " if passed and not incident.is_warning else ""
    return f" ({missed}{read})" if read else ""


def _orphans(incident: Incident, *, share: bool = True) -> str | None:
    mechanism = incident.diagnosis.mechanism
    known = [each for each in (incident.peak.orphan, mechanism.orphan) if each is not None]
    return _against(max(known), mechanism.tcp_max_orphans, count_text, share=share) if known else None


def _memory(incident: Incident, *, share: bool = True) -> str | None:
    mechanism = incident.diagnosis.mechanism
    known = [] if mechanism.mem_bytes is None else [mechanism.mem_bytes]
    if incident.peak.mem is not None and mechanism.unit_bytes is not None:
        known.append(incident.peak.mem * mechanism.unit_bytes)
    limit = mechanism.tcp_mem_bytes[2] if mechanism.tcp_mem_bytes else None
    return _against(max(known), limit, bytes_text, share=share) if known else None


def _against(value: int, limit: int | None, words: Callable[[int], str], *, share: bool) -> str:
    if limit is None:
        return words(value)
    percent = percent_text(value, limit) if share else None
    return f"{words(value)} of {words(limit)}" + (f" ({percent})" if percent else "")


def _read_on(incident: Incident) -> str:
    command = read_on(incident)
    return f"details: {command}" if command else "This was a test of the channel; nothing is stored."


def _numbers(mechanism: Mechanism) -> list[tuple[str, str]]:
    rows = []
    if mechanism.orphan is not None or mechanism.tcp_max_orphans is not None:
        rows.append(("orphans", _of(mechanism.orphan, mechanism.tcp_max_orphans)))
    if mechanism.penalty_shift:
        reached = count_text(mechanism.limit_reached) if mechanism.limit_reached is not None else "unknown"
        rows.append(("penalty", f"{_penalty(mechanism)}: the limit is reached at {reached}"))
    if mechanism.mem_pages is not None or mechanism.tcp_mem_pages is not None:
        limit = mechanism.tcp_mem_pages[2] if mechanism.tcp_mem_pages else None
        rows.append(("memory", _of(mechanism.mem_pages, limit, " pages")))
    if mechanism.mem_bytes is not None:
        limit_text = bytes_text(mechanism.tcp_mem_bytes[2]) if mechanism.tcp_mem_bytes else "unknown"
        page = f", pages of {count_text(mechanism.page_size_bytes)} bytes" if mechanism.page_size_bytes else ""
        rows.append(("in bytes", f"{bytes_text(mechanism.mem_bytes)} of {limit_text}{page}"))
    if mechanism.tcp_mem_pages is not None:
        rows.append(("tcp_mem", " / ".join(count_text(each) for each in mechanism.tcp_mem_pages) + " pages"))
    return rows


def _penalty(mechanism: Mechanism) -> str:
    return f"stuck ones count {'double' if mechanism.penalty_shift == 1 else 'fourfold'}"


def _of(value: int | None, limit: int | None, unit: str = "") -> str:
    share = None if value is None or limit is None else percent_text(value, limit)
    used = "unknown" if value is None else f"{count_text(value)}{_unit_of(value, unit)}"
    most = "unknown" if limit is None else f"{count_text(limit)}{_unit_of(limit, unit)}"
    return f"{used}, limit {most}" + (f" ({share})" if share else "")


def _finding(finding: Finding) -> list[str]:
    about = "" if finding.cause == "none" else f", {CAUSES[finding.cause]}"
    lines = [*_bullet(f"{finding.claim.replace('_', ' ')} ({finding.confidence}{about})")]
    for evidence in finding.evidence:
        lines += _wrapped(_evidence(evidence), "    ", "      ")
    return lines


def _evidence(evidence: Evidence) -> str:
    value = _text(evidence.value) if isinstance(evidence.value, str) else _number(evidence.value)
    limit = f" (limit {_number(evidence.limit)})" if evidence.limit is not None else ""
    unit = f" {printable(_unit_of(evidence.value, evidence.unit))}" if evidence.unit else ""
    return f"{printable(evidence.name)}: {value}{unit}{limit}, from {printable(evidence.source)}"


def _unit_of(value: float | str, unit: str) -> str:
    """Return the unit in the singular where there is one: "byte of RAM"."""
    noun, blank, rest = unit.partition(" of ")
    return (noun.removesuffix("s") if value == 1 else noun) + blank + rest


def _text(value: str) -> str:
    # The kernel's lines are quoted; a flag is a word.
    return value if value.isalpha() else f"«{printable(value, 300)}»"


def _number(value: float) -> str:
    return count_text(value) if isinstance(value, int) else f"{value:g}"


def _advice(number: int | None, advice: Advice) -> list[str]:
    lines = [*_wrapped(f"{number}. {printable(advice.action)}" if number else printable(advice.action), "  ", "     ")]
    lines += _wrapped(printable(advice.why), "     ")
    lines += _wrapped(f"Risk: {printable(advice.risk)}", "     ", "           ")
    # A command is copied from the terminal, and so is never broken.
    lines += [f"       $ {printable(command)}" for command in advice.commands]
    if advice.persist:
        lines += ["     To make it permanent:"]
        lines += [f"       | {printable(line)}" for line in advice.persist.splitlines()]
    return lines


def _holder(holder: Holder) -> tuple[str, str]:
    name = name_of(holder) or "unattributed"
    guess = f"{mark}; " if (mark := guess_text(holder)) else ""
    facts = (
        f"{guess}{counted(holder.sockets, 'socket')}, {counted(holder.orphans, 'orphan')}, {bytes_text(holder.bytes)}"
    )
    ports = f", ports {' '.join(map(str, holder.ports))}" if holder.ports else ""
    peers = f", peers {', '.join(holder.peers)}" if holder.peers else ""
    return _quoteless(name), _quoteless(printable(facts + ports + peers))


# --- layout ---------------------------------------------------------------------------------------------------------


def _table(rows: Iterable[tuple[str, str]]) -> list[str]:
    """Lay out two columns; beside a name of half a line's length there is no room, so its text stands below."""
    sized, most = [(columns_of(name), name, text) for name, text in rows], _COLUMNS // 2
    width = max((size for size, _, _ in sized if size < most), default=0) + 2
    lines = []
    for size, name, text in sized:
        lines += [] if size < most else [f"  {name}"]
        lines += _wrapped(text, f"  {pad(name if size < most else '', width)}", " " * (width + 2))
    return lines


def _bullet(text: str) -> tuple[str, ...]:
    return _wrapped(text, "  - ", "    ")


# An incident's text is written while an event waits, and much of it is the same every time.
@lru_cache(maxsize=256)
def _wrapped(text: str, first: str, later: str | None = None) -> tuple[str, ...]:
    # What is quoted stays in one piece: a break could leave the kernel's words alone on a line.
    if "«" in text:
        return (f"{first}{text}",)
    return tuple(wrap(text, _COLUMNS, first, later))


def _quoteless(text: str) -> str:
    """Take the kernel's own words out of prose, should a name or a summary hold them."""
    return _KERNEL_TEXT.sub("…", text)
