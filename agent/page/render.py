"""render(files) -> one self-contained HTML page: it loads nothing and contacts no one.

Everything that the host said (names, lines, units, peers, raw texts) may have been chosen by an attacker. Three things
stand against it: jinja2 escapes every value, ``finalize`` makes control and bidi characters visible in every value,
and a Content-Security-Policy allows the one style sheet and the one script whose digests it names, and nothing else.
"""

import base64
import hashlib
from datetime import datetime, timedelta
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from agent import __version__
from agent.core.format import bytes_text, count_text, printable
from agent.core.report import headline
from agent.page import rows
from agent.page.charts import SIZES, Frame, draw_tracks
from agent.page.incident_files import IncidentFiles
from agent.page.raw_texts import raw_evidence, visible
from agent.page.series import Tracks, build_tracks
from agent.page.socket_rows import socket_counts

_HERE = Path(__file__).parent
_TITLES = {"orphan": "Orphaned sockets", "mem": "TCP memory"}


def render(files: IncidentFiles) -> str:
    """Render the page of an incident: the same files always give the same text."""
    incident, clock = files.incident, rows.Clock(files.zone, files.incident.opened_at)
    snapshots = [snapshot for _, snapshot in files.snapshots]
    tracks = build_tracks(incident, snapshots, files.samples)
    environment = _environment()
    environment.filters["stamp"] = clock.stamp
    environment.filters["moment"] = clock.moment
    style, script = _source("page.css"), _source("page.js")
    return environment.get_template("page.html.j2").render(
        incident=incident,
        diagnosis=incident.diagnosis,
        headline=headline(incident),
        figures=rows.figures(files, tracks),
        facts=rows.facts(files, clock),
        charts=_charts(files, tracks, clock),
        penalty=rows.penalty(files),
        changes=list(rows.changes(files, clock)),
        table=rows.table(tracks, clock),
        holders=rows.holder_rows(incident),
        sockets=socket_counts(snapshots),
        notifications=rows.notifications(files, clock),
        gaps=(*files.unread, *incident.diagnosis.gaps),
        raw=raw_evidence(files.snapshots),
        style=style,
        script=script,
        policy=f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'",
        version=__version__,
    )


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        finalize=_finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["count"] = count_text
    environment.filters["bytes"] = bytes_text
    environment.filters["prose"] = rows.prose
    environment.filters["numbers"] = rows.numbers
    environment.filters["visible"] = visible
    return environment


def _finalize(value: object) -> object:
    """Make every value printable that is not our markup; jinja2 escapes it afterwards."""
    if isinstance(value, Markup):
        return value
    return printable(str(value)) if value is not None else ""


def _source(name: str) -> Markup:
    return Markup((_HERE / name).read_text(encoding="utf-8"))  # noqa: S704 - a file of this package


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _charts(files: IncidentFiles, tracks: Tracks, clock: rows.Clock) -> list[dict[str, object]]:
    shown = [track for track in (tracks.orphans, tracks.memory) if track.points]
    if files.incident.cause == "tcp_memory":
        shown.reverse()
    if not shown:
        return []
    start = min(track.points[0].at for track in shown)
    end = max(start + timedelta(seconds=1), *(track.points[-1].at for track in shown))
    frame = Frame(start, end, _moments(files), files.zone)
    said = [rows.caption(track, clock) for track in shown]
    texts = [f"{_TITLES[track.field]}. {each}" for track, each in zip(shown, said, strict=True)]
    drawn = [draw_tracks(list(zip(shown, texts, strict=True)), frame, size) for size in SIZES]
    return [
        {"title": _TITLES[track.field], "gauge": track.field, "caption": each, "drawings": drawings}
        for track, each, drawings in zip(shown, said, zip(*drawn, strict=True), strict=True)
    ]


def _moments(files: IncidentFiles) -> tuple[datetime, ...]:
    """Return the known times of messages."""
    incident = files.incident
    known = {incident.opened_at, incident.last_seen_at}
    return tuple(sorted(known | {event.at for event in incident.last_of_kind if event.at and event.at.tzinfo}))
