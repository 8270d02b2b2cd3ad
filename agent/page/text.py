"""One incident as plain text: what ``incidents show`` prints, and summary.txt beside incident.json.

It is read in ``less`` at 3 a.m.: 80 columns, the verdict and what to do first, the raw readings behind it, no control
character. It shows what the HTML page shows, in the words of agent.page.rows and agent.core.report.

    web1 reset TCP connections: orphan limit reached (65,535 of 65,536)
      Incident         20261122T150539Z-7f3a
      ...
"""

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import NamedTuple

from agent.core.format import columns_of, count_text, duration_text, in_columns, printable, wrap
from agent.core.model import Snapshot
from agent.core.readings import TcpSockstat
from agent.core.report import diagnosis_parts, headline
from agent.page import rows
from agent.page.incident_files import IncidentFiles
from agent.page.series import BLOCKS, Tracks, build_tracks, sparkline

COLUMNS = 80
_INDENT = "  "
# Of a drawn gauge.
_MOST_COLUMNS, _LEAST_COLUMNS, _LABEL_COLUMNS = 72, 20, 10
_PLAIN = str.maketrans({"«": '"', "»": '"', "…": "...", "\u00a0": " "})
_LIMITS = ("sys/net/ipv4/tcp_mem", "sys/net/ipv4/tcp_max_orphans")
_LINE_CHARACTERS = 400
_QUOTED = re.compile(r"([^«]*)«(.*)»([^»]*)")
_COMMAND = re.compile(r"( *\$ )(.*)")
_WORDS = re.compile(r"""(?:'[^']*'|"(?:\\.|[^"])*"|\\.|[^\s'"\\])+|['"\\]\S*""")
_COMMENT = re.compile(r" *\| # ")
# For grep it stays on one line.
_KERNEL_TEXT = re.compile(
    r"(?:TCP: )?(?:too many (?:of )?orphaned sockets|[Oo]ut of (?:socket )?memory)(?: -- consider tuning tcp_mem)?"
)
# Where the text of a line begins: behind its bullet or number, or in the second column of a table.
_HANG = re.compile(r" *(?:(?:-|\d+\.) |(?:\S+ )*\S* {2,}(?=\S))?")
# What the verdict rests on can wait; the steps cannot.
_BEHIND = ("Findings", "Unknown")


class Line(NamedTuple):
    """A line without its end."""

    text: str
    is_title: bool = False


def incident_text(
    files: IncidentFiles, encoding: str = "ascii", columns: int = COLUMNS, *, is_whole: bool = True
) -> list[Line]:
    """Return an incident's text; only a command that has no place for a break is longer than ``columns``.

    Not ``is_whole``, it leaves out what takes all files, and most time: gauges, timeline and notifications. The last
    line names the incident, so that a file cut short shows. less shows ASCII in every locale.
    """
    incident, clock, found = files.incident, rows.Clock(files.zone, files.incident.opened_at), list[Line]()
    tracks = build_tracks(incident, [snapshot for _, snapshot in files.snapshots], files.samples)
    summary, parts = diagnosis_parts(incident.diagnosis, incident.witness)
    behind = [(name, parts.pop(name)) for name in _BEHIND if name in parts]
    for title, lines in (
        (headline(incident), _indented([*summary, "", *_facts(files, tracks, clock)])),
        *parts.items(),
        *_raw(files, clock),
        *behind,
        *(_course(files, tracks, clock, encoding, columns) if is_whole else []),
    ):
        found += [Line(text, is_title=True) for text in _fit([title], encoding, columns)]
        found += [Line(text) for text in _fit(lines, encoding, columns)]
        found.append(Line(""))
    return [*found, Line(f"One HTML page with charts: sockmem-agent incidents report {incident.id}")]


# --- what it says ---------------------------------------------------------------------------------------------------


def _facts(files: IncidentFiles, tracks: Tracks, clock: rows.Clock) -> list[str]:
    first = files.incident.first_event
    line = [("Log", first.source), ("Line", f"«{printable(first.line, _LINE_CHARACTERS)}»")] if first else []
    figures = [f"{number} {what} ({beside})" for number, what, beside in rows.figures(files, tracks)]
    return [*in_columns([("Incident", files.incident.id), *rows.facts(files, clock), *line]), *figures]


def _raw(files: IncidentFiles, clock: rows.Clock) -> list[tuple[str, list[str]]]:
    """Quote sockstat and the limits of the newest snapshot as the kernel wrote them."""
    name, snapshot = files.snapshots[-1] if files.snapshots else ("", None)
    if snapshot is None or not snapshot.raw:
        return []
    sockstat = _indented(snapshot.raw.get("net/sockstat", "does not exist").splitlines())
    limits = [(each, " ".join(snapshot.raw.get(each, "does not exist").split())) for each in _LIMITS]
    title = f"Raw, below /proc at {clock.stamp(snapshot.taken_at)} ({name})"
    return [(title, _indented(["net/sockstat", *sockstat, *in_columns(limits)]))]


def _course(
    files: IncidentFiles, tracks: Tracks, clock: rows.Clock, encoding: str, columns: int
) -> list[tuple[str, list[str]]]:
    # Of another host nothing is measured.
    gauges = [] if files.incident.read_on else [("Gauges", _indented(_drawn(tracks, clock, encoding, columns)))]
    return [
        *gauges,
        ("Timeline", _indented(_timeline(files, clock))),
        ("Notifications", _indented(in_columns(_notifications(files, clock)) or ["none"])),
    ]


def _drawn(tracks: Tracks, clock: rows.Clock, encoding: str, columns: int) -> list[str]:
    """Draw both gauges against their limits on one time axis."""
    shown = [track for track in (tracks.orphans, tracks.memory) if track.peak]
    if not shown:
        return ["no readings from this time: the service keeps 48 hours"]
    start, end = min(track.points[0].at for track in shown), max(track.points[-1].at for track in shown)
    plain, width = (
        bearable(BLOCKS, encoding) != BLOCKS,
        max(_LEAST_COLUMNS, min(_MOST_COLUMNS, columns - _LABEL_COLUMNS)),
    )
    lines = [f"{track.field:<8}{sparkline(track, start, end, width, ascii_only=plain)}" for track in shown]
    full = "the limit" if any(track.limit for track in shown) else "the peak"
    form = "%H:%M:%S" if end - start < timedelta(days=1) else "%Y-%m-%d %H:%M"
    return [*lines, f"{'':<8}{start.astimezone(clock.zone):{form}} to {clock.stamp(end)}; a full column is {full}"]


def _notifications(files: IncidentFiles, clock: rows.Clock) -> list[tuple[str, ...]]:
    """List the notifications so that a line that is broken, and with it its columns, can still be read."""
    return [(at, f"{channel}:", f"{what};", came) for at, channel, what, came in rows.notifications(files, clock)]


def _timeline(files: IncidentFiles, clock: rows.Clock) -> list[str]:
    """List everything that has a time in order."""
    incident, peak = files.incident, files.incident.peak
    moments: list[tuple[datetime | None, str]] = [
        (incident.opened_at, "first event"),
        *([(incident.last_seen_at, "last event")] if incident.last_seen_at != incident.opened_at else []),
        *((each.taken_at, f"{name} ({each.trigger}): {_gauges(each)}") for name, each in files.snapshots),
        (peak.orphan_at, f"peak: orphan {count_text(peak.orphan or 0)}"),
        (peak.mem_at, f"peak: mem {count_text(peak.mem or 0)}"),
        *((n.at, f"{name}: {n.type.rpartition('.')[2]}, {n.reason}") for name, n, _ in files.notices),
        (incident.closed_at, "closed"),
    ]
    known = sorted(((at, text) for at, text in moments if at), key=lambda moment: moment[0])
    return [f"{clock.stamp(at)}  {_since((at - incident.opened_at).total_seconds()):>12}  {text}" for at, text in known]


def _since(seconds: float) -> str:
    """Format the time since the first event; the first readings follow within milliseconds, which matters."""
    return f"{seconds:+.3f} s" if abs(seconds) < 1 else f"{'-' if seconds < 0 else '+'}{duration_text(abs(seconds))}"


def _gauges(snapshot: Snapshot) -> str:
    tcp = snapshot.sockstat.tcp if snapshot.sockstat else TcpSockstat()
    values = {"orphan": tcp.orphan, "mem": tcp.mem, "alloc": tcp.alloc}
    return ", ".join(f"{name} {count_text(n)}" for name, n in values.items() if n is not None) or "no numbers"


# --- how it fits ----------------------------------------------------------------------------------------------------


def _fit(lines: Sequence[str], encoding: str, columns: int) -> list[str]:
    """Break lines that are too long, and make all of them bearable; an event waits, so those that are so are let by."""
    return [
        text
        for line in lines
        for text in (
            [line] if len(line) <= columns and line.isascii() and line.isprintable() else _fold(line, encoding, columns)
        )
    ]


@lru_cache(maxsize=256)
def _fold(line: str, encoding: str, columns: int) -> tuple[str, ...]:
    """Break a line in the way of what it is: a command, a comment of a file, a quotation, prose.

    Most of them are the same in every incident.
    """
    line = printable(line, len(line))
    text = bearable(line, encoding)
    if columns_of(text) <= columns:
        return (text,)
    if match := _COMMAND.fullmatch(text):
        return tuple(fold_command(match[1], match[2], columns))
    if match := _QUOTED.fullmatch(line):
        before, quote, behind = (bearable(part, encoding) for part in match.groups())
        return tuple(_fold_quote(before, quote, behind, bearable("«»", encoding), columns))
    hang = match.end() if (match := _COMMENT.match(text) or _HANG.match(text)) else 0
    repeated = text[:hang] if _COMMENT.match(text) else " " * hang
    first, *others = _wrap(text[hang:], columns - hang)
    return (text[:hang] + first, *(repeated + piece for piece in others))


def fold_command(prompt: str, command: str, columns: int = COLUMNS) -> list[str]:
    """Continue a shell command on further lines, so that it can be copied: only behind a blank outside of quotes.

    A comment stands on a line before it. A word longer than a line, such as a script of awk's, stays whole.
    """
    words, comment = _WORDS.findall(command), list[str]()
    if (number := next((n for n, word in enumerate(words) if word.startswith("#")), None)) is not None:
        comment = _wrap(" ".join(words[number:]).lstrip("# "), columns - len(prompt) - len("# "))
        words = words[:number]
    lines = [f"{' ' * len(prompt)}# {piece}" for piece in comment]
    start, line = prompt, ""
    for word in words:
        if line and len(f"{start}{line} {word} \\") > columns:
            lines.append(f"{start}{line} \\")
            start, line = " " * (len(prompt) + len(_INDENT)), word
        else:
            line = f"{line} {word}".lstrip()
    return [*lines, f"{start}{line}"]


def _fold_quote(before: str, quote: str, behind: str, marks: str, columns: int) -> list[str]:
    """Keep a quotation in its marks on every line: a part of it alone could look like the kernel's own record."""
    hang = " " * (len(before) if len(before) < columns // 2 else 2 * len(_INDENT))
    whole = _KERNEL_TEXT.sub(lambda found: found[0].replace(" ", "\u00a0"), quote)
    pieces = [piece.replace("\u00a0", " ") for piece in _wrap(whole, columns - len(hang) - len(marks))]
    lines = [f"{hang}{marks[0]}{piece}{marks[1]}" for piece in pieces]
    if len(before) == len(hang):
        lines[0] = before + lines[0].lstrip()
    else:
        lines[:0] = [f"{_INDENT}{piece}" for piece in _wrap(before.strip(), columns - len(_INDENT))]
    if len(lines[-1] + behind) > columns:
        return [*lines, *(hang + piece for piece in _wrap(behind.lstrip(" ,"), columns - len(hang)))]
    return [*lines[:-1], lines[-1] + behind]


def _indented(lines: Sequence[str]) -> list[str]:
    return [f"{_INDENT}{line}".rstrip() for line in lines]


def _wrap(text: str, columns: int) -> list[str]:
    """Break prose at blanks, and a word that is longer than a line anywhere."""
    columns = max(columns, _LEAST_COLUMNS)
    whole = [word[start : start + columns] for word in text.split(" ") for start in range(0, len(word) or 1, columns)]
    return wrap(" ".join(whole), columns)


def bearable(text: str, encoding: str) -> str:
    """Replace characters that this encoding lacks by their numbers."""
    try:
        return text.encode(encoding).decode(encoding)
    except (UnicodeEncodeError, LookupError):
        return text.translate(_PLAIN).encode("ascii", "backslashreplace").decode("ascii")
