"""The words for people: a diagnosis for a terminal, a notice for a journal or a phone.

Plain text, no colour, 100 columns. Whatever comes from outside (host names, log lines) is made printable first, and
the kernel's lines stand in guillemets: our own output never looks like a kernel record to our own detector.
"""

import re
import textwrap
from collections.abc import Iterable

from agent.core.budget import MESSAGES_AN_HOUR
from agent.core.format import bytes_text, count_text, duration_text, moment_text, percent_text, printable
from agent.core.kernel.release import mem_unit_bytes, parse_kernel
from agent.core.model import (
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
    NoticeType,
    Provenance,
)
from agent.core.sockets.holder_names import LargestHolder, guess_text, largest_of, main_holder, marked, name_of
from agent.core.times import seconds_between

_COLUMNS = 100
_CAUSES: dict[Cause, str] = {
    "tcp_memory": "TCP memory limit hit",
    "orphans": "TCP orphan limit hit",
    "both": "TCP orphan and memory limits hit",
    "undetermined": "TCP socket limit hit, cause undetermined",
    "none": "no TCP limit hit",
}
_STATES: dict[NoticeType, str] = {
    "sockmem.incident.opened": "opened",
    "sockmem.incident.updated": "update",
    "sockmem.incident.resolved": "resolved",
    "sockmem.digest": "digest",
    "sockmem.test": "test",
}
KINDS: dict[Provenance, str] = {
    "claimed": "incidents that only a text log claims",
    "kernel": "incidents that the kernel or the gauges prove",
}
_KERNEL_TEXT = re.compile(r"Out of socket memory|TCP: (?=too many |out of memory)|callbacks suppressed")


def title(notice: Notice) -> str:
    """Say a notice in one line for a phone's lock screen."""
    if isinstance(notice, DigestNotice):
        return digest_title(notice)
    if notice.data is None:
        return "sockmem-agent: test notification, nothing is wrong"
    incident = notice.data
    host = printable(incident.host or "unknown host", 64)
    state = _STATES[notice.type]
    if notice.type == "sockmem.incident.resolved" and incident.closed_at is not None:
        lasted = seconds_between(incident.opened_at, incident.last_seen_at)
        state += f", lasted {duration_text(lasted)}" if lasted >= 1 else ""
    return f"{host}: {headline(incident)} ({state})"


def digest_title(notice: DigestNotice) -> str:
    """Say a digest in one line: how many, and since when."""
    count = notice.digest.count
    host = printable(notice.host or "unknown host", 64)
    incidents = "1 more incident" if count == 1 else f"{count_text(count)} more incidents"
    return f"{host}: {incidents} since {moment_text(notice.digest.since, notice.at)}"


def digest_facts(notice: DigestNotice, most: int) -> tuple[str, str, str]:
    """Say why incidents come in a digest, which they are (``most`` by name), and how to list them."""
    limits = ", ".join(f"{most_an_hour} for {KINDS[budget]}" for budget, most_an_hour in MESSAGES_AN_HOUR.items())
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
    """Say what ran out, and how far, in a few words; of a warning, what the gauges show."""
    if incident.class_ == "pressure" and incident.pressure:
        return f"early warning, {incident.pressure.claim}"
    mechanism = incident.diagnosis.mechanism
    said = _CAUSES[incident.cause]
    limits = mechanism.tcp_mem_pages
    if (
        incident.cause == "tcp_memory"
        and mechanism.mem_pages is not None
        and limits
        and mechanism.mem_pages < limits[1]
    ):
        return f"{said}, passed when read"
    if incident.cause == "tcp_memory" and (share := _memory_share(mechanism)):
        return f"{said}, {share} of tcp_mem"
    if incident.cause == "orphans" and mechanism.penalty_shift is None and mechanism.orphan is not None:
        return f"{said}, passed when read"
    if incident.cause in ("orphans", "both") and (share := _orphan_share(mechanism)):
        acts = f", which acts at {100 >> mechanism.penalty_shift} %" if mechanism.penalty_shift else ""
        return f"{said}, {share} of tcp_max_orphans{acts}"
    return said


def said_by(incident: Incident) -> str:
    """Say whose word an incident rests on."""
    if incident.class_ == "pressure":
        return "the gauges; the kernel has said nothing yet"
    return "the kernel" if incident.provenance == "kernel" else "a text log, which any local user can write to"


def held_by(diagnosis: Diagnosis) -> str | None:
    """Say who holds at least half of what ran out; None where that is nobody, or too little to matter."""
    main = main_holder(diagnosis)
    return _share_text(main) if main else None


def holder_row(diagnosis: Diagnosis) -> list[tuple[str, str]]:
    """Say in a row of the details who holds most, by which right: as the main holder, or as the largest known."""
    found = largest_of(diagnosis)
    if found is None:
        return []
    return [("held by" if found.is_main else "largest known holder", _share_text(found))]


def _share_text(found: LargestHolder) -> str:
    words, what = (count_text, "orphans") if found.gauge == "orphans" else (bytes_text, "TCP memory")
    share = f"{words(found.held)} of {words(found.total)} {what}"
    return f"{marked(found.name, found.holder)}: {share}, {count_text(found.holder.sockets)} sockets"


def notice_text(notice: Notice) -> str:
    """Say a notice as a readable block: what, where, since when, how far, what to do first, where to read on."""
    if isinstance(notice, DigestNotice):
        why, which, command = digest_facts(notice, most=10)
        lines = [title(notice), "", *_wrapped(why, "  "), "", *_wrapped(which, "  "), "", f"list them: {command}"]
        return "\n".join(lines) + "\n"
    if notice.data is None:
        return f"{title(notice)}\n  {printable(notice.reason)}\n  notice: {printable(notice.id)}\n"
    incident = notice.data
    lines = [_quoteless(title(notice)), ""]
    lines += _wrapped(_quoteless(printable(incident.summary)), "  ")
    lines += [""]
    lines += _table(
        [
            ("host", printable(incident.host or "unknown")),
            ("cause", f"{_cause_word(incident.cause)} ({incident.confidence})"),
            ("since", f"{incident.opened_at.isoformat(timespec='seconds')}{_span(incident)}"),
            ("events", _events_text(incident)),
            *_numbers(incident.diagnosis.mechanism),
            *_peak(incident),
            *([("held by", holder)] if (holder := held_by(incident.diagnosis)) else []),
            ("said by", said_by(incident)),
            *([("line", f"«{printable(incident.first_event.line, 200)}»")] if incident.first_event else []),
            ("reason", printable(notice.reason)),
        ],
    )
    if incident.diagnosis.advice and notice.type != "sockmem.incident.resolved":
        lines += ["", "First:", *_advice(1, incident.diagnosis.advice[0])]
    return "\n".join([*lines, "", _read_on(incident)]) + "\n"


def news_text(notice: Notice) -> str:
    """Say a notice to those who have read the one before: of an update what is new, of an end what it came to."""
    incident = notice.data
    if incident is None or notice.type == "sockmem.incident.opened":
        return notice_text(notice)
    lines = [_quoteless(title(notice)), ""]
    if notice.type == "sockmem.incident.updated":
        lines += _wrapped(_quoteless(printable(notice.reason)), "  ")
        lines += ["", *_wrapped(_quoteless(printable(incident.summary)), "  "), ""]
    lines += _table(
        [
            ("since", f"{incident.opened_at.isoformat(timespec='seconds')}{_span(incident)}"),
            ("events", _events_text(incident)),
            *_peak(incident),
            *([("held by", holder)] if (holder := held_by(incident.diagnosis)) else []),
        ],
    )
    return "\n".join([*lines, "", _read_on(incident)]) + "\n"


def diagnosis_text(diagnosis: Diagnosis) -> str:
    """Say a diagnosis for a terminal: verdict, numbers, findings with evidence, advice with commands, gaps."""
    lines = [f"Cause: {_cause_word(diagnosis.cause)} ({diagnosis.confidence})", ""]
    lines += _wrapped(_quoteless(printable(diagnosis.summary)), "")
    lines += _section("Numbers", _table(_numbers(diagnosis.mechanism)))
    lines += _section("Findings", [line for each in diagnosis.findings for line in _finding(each)])
    lines += _section("Holders", _table([*holder_row(diagnosis), *(_holder(each) for each in diagnosis.holders)]))
    lines += _section(
        "Advice, in the order to try it",
        [line for number, each in enumerate(diagnosis.advice, 1) for line in _advice(number, each)],
    )
    gaps = [line for gap in diagnosis.gaps for line in _bullet(f"{printable(gap.what)}: {printable(gap.why)}")]
    lines += _section("Not known", gaps)
    return "\n".join(lines) + "\n"


# --- parts ----------------------------------------------------------------------------------------------------------


def _read_on(incident: Incident) -> str:
    return f"incident {incident.id}; read on: sockmem-agent incidents show {incident.id}"


def _numbers(mechanism: Mechanism) -> list[tuple[str, str]]:
    rows = []
    if mechanism.orphan is not None or mechanism.tcp_max_orphans is not None:
        rows.append(("orphans", _of(mechanism.orphan, mechanism.tcp_max_orphans, _orphan_share(mechanism))))
    if mechanism.penalty_shift:
        times = 1 << mechanism.penalty_shift
        reached = count_text(mechanism.limit_reached) if mechanism.limit_reached is not None else "unknown"
        rows.append(("penalty", f"stuck ones count {times} times: the limit is reached at {reached}"))
    if mechanism.mem_pages is not None or mechanism.tcp_mem_pages is not None:
        limit = mechanism.tcp_mem_pages[2] if mechanism.tcp_mem_pages else None
        rows.append(("memory", _of(mechanism.mem_pages, limit, _memory_share(mechanism), " pages")))
    if mechanism.mem_bytes is not None:
        limit_text = bytes_text(mechanism.tcp_mem_bytes[2]) if mechanism.tcp_mem_bytes else "unknown"
        page = f", pages of {count_text(mechanism.page_size_bytes)} bytes" if mechanism.page_size_bytes else ""
        rows.append(("in bytes", f"{bytes_text(mechanism.mem_bytes)} of {limit_text}{page}"))
    if mechanism.tcp_mem_pages is not None:
        rows.append(("tcp_mem", " / ".join(count_text(each) for each in mechanism.tcp_mem_pages) + " pages"))
    return rows


def _of(value: int | None, limit: int | None, share: str | None, unit: str = "") -> str:
    used = "unknown" if value is None else count_text(value)
    allowed = "an unknown limit" if limit is None else f"{count_text(limit)}{unit} allowed"
    return f"{used} of {allowed}" + (f" ({share})" if share else "")


def _orphan_share(mechanism: Mechanism) -> str | None:
    if mechanism.orphan is None or mechanism.tcp_max_orphans is None:
        return None
    return percent_text(mechanism.orphan, mechanism.tcp_max_orphans)


def _memory_share(mechanism: Mechanism) -> str | None:
    if mechanism.mem_pages is None or mechanism.tcp_mem_pages is None:
        return None
    return percent_text(mechanism.mem_pages, mechanism.tcp_mem_pages[2])


def _finding(finding: Finding) -> list[str]:
    about = "" if finding.cause == "none" else f", {_cause_word(finding.cause)}"
    lines = _bullet(f"{finding.claim.replace('_', ' ')} ({finding.confidence}{about})")
    for evidence in finding.evidence:
        lines += _wrapped(_evidence(evidence), "    ", "      ")
    return lines


def _evidence(evidence: Evidence) -> str:
    value = _text(evidence.value) if isinstance(evidence.value, str) else _number(evidence.value)
    limit = f" (limit {_number(evidence.limit)})" if evidence.limit is not None else ""
    unit = f" {printable(evidence.unit)}" if evidence.unit else ""
    return f"{printable(evidence.name)}: {value}{unit}{limit}, from {printable(evidence.source)}"


def _text(value: str) -> str:
    # The kernel's lines are quoted; a flag is a word.
    return value if value.isalpha() else f"«{printable(value, 300)}»"


def _number(value: float) -> str:
    return count_text(value) if isinstance(value, int) else f"{value:g}"


def _advice(number: int, advice: Advice) -> list[str]:
    lines = _wrapped(f"{number}. {printable(advice.action)}", "  ", "     ")
    lines += _wrapped(printable(advice.why), "     ")
    lines += _wrapped(f"Risk: {printable(advice.risk)}", "     ", "           ")
    # A command is copied from the terminal, and so is never broken.
    lines += [f"       $ {printable(command)}" for command in advice.commands]
    if advice.persist:
        lines += ["     To keep it:"]
        lines += [f"       | {printable(line)}" for line in advice.persist.splitlines()]
    return lines


def _holder(holder: Holder) -> tuple[str, str]:
    name = name_of(holder) or "nobody that could be named"
    guess = f"{mark}; " if (mark := guess_text(holder)) else ""
    facts = (
        f"{guess}{count_text(holder.sockets)} sockets, {count_text(holder.orphans)} orphans, {bytes_text(holder.bytes)}"
    )
    ports = f", ports {' '.join(map(str, holder.ports))}" if holder.ports else ""
    peers = f", peers {' '.join(holder.peers)}" if holder.peers else ""
    return _quoteless(name), _quoteless(printable(facts + ports + peers))


def _events_text(incident: Incident) -> str:
    kinds = [f"{count_text(count)} x {kind}" for kind, count in sorted(incident.events.items()) if kind != "suppressed"]
    more = incident.suppressed_at_least
    swallowed = [f"and {count_text(more)} messages suppressed by the kernel's rate limit"] if more else []
    return ", ".join([*kinds, *swallowed]) or "none, the gauges showed it"


def _span(incident: Incident) -> str:
    seconds = seconds_between(incident.opened_at, incident.last_seen_at)
    word = "over, lasted" if incident.closed_at else "going on for"
    return f", {word} {duration_text(seconds)}" if seconds > 0 else ""


def _peak(incident: Incident) -> list[tuple[str, str]]:
    peak, mechanism = incident.peak, incident.diagnosis.mechanism
    rows = []
    if peak.orphan is not None and peak.orphan != mechanism.orphan:
        rows.append(("peak", f"{count_text(peak.orphan)} orphans"))
    if peak.mem is not None and (pages := _in_pages(incident, peak.mem)) != mechanism.mem_pages:
        rows.append(("peak", f"{count_text(pages)} pages of memory"))
    return rows


def _in_pages(incident: Incident, mem: int) -> int:
    # Some kernels count in 4096 bytes whatever the page: beside limits in pages that would be another number.
    page = incident.diagnosis.mechanism.page_size_bytes
    return mem * mem_unit_bytes(parse_kernel(incident.kernel), page) // page if page and page > 0 else mem


def _cause_word(cause: Cause) -> str:
    return cause.replace("_", " ").replace("tcp", "TCP")


# --- layout ---------------------------------------------------------------------------------------------------------


def _section(name: str, lines: list[str]) -> list[str]:
    return ["", f"{name}:", *lines] if lines else []


def _table(rows: Iterable[tuple[str, str]]) -> list[str]:
    rows = list(rows)
    width = max((len(name) for name, _ in rows), default=0) + 2
    return [line for name, text in rows for line in _wrapped(f"{name:<{width}}{text}", "  ", " " * (width + 2))]


def _bullet(text: str) -> list[str]:
    return _wrapped(text, "  - ", "    ")


def _wrapped(text: str, first: str, later: str | None = None) -> list[str]:
    # What is quoted stays in one piece: a break could leave the kernel's words alone on a line.
    if "«" in text:
        return [f"{first}{text}"]
    rest = first if later is None else later
    return textwrap.wrap(
        text,
        width=_COLUMNS,
        initial_indent=first,
        subsequent_indent=rest,
        break_on_hyphens=False,
        break_long_words=False,
    )


def _quoteless(text: str) -> str:
    """Take the kernel's own words out of prose, should a name or a summary hold them."""
    return _KERNEL_TEXT.sub("…", text)
