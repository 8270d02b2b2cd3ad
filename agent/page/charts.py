"""Charts as inline SVG: pygal draws the geometry, the page's own style sheet paints it, and nothing else is left in.

pygal brings a style element, a script, links, tooltips and identifiers of its own; the page's Content-Security-Policy
allows none of that, and colours have to follow light and dark. So all of it is taken out, and every series gets a
class that says what it is: area, line, alone, limit, half, quarter, pressure, low, events, event.
"""

import re
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta, tzinfo
from typing import Any, NamedTuple

import pygal  # type: ignore[import-untyped]  # It ships no types.
from markupsafe import Markup
from pygal.etree import etree  # type: ignore[import-untyped]
from pygal.style import Style  # type: ignore[import-untyped]

from agent.core.words import bytes_text, count_text
from agent.page.series import Point, Track, thin

# pygal leaves an import hook behind, for plug-ins of maps, that Python 3.11 warns of at every import after it.
sys.meta_path[:] = [each for each in sys.meta_path if type(each).__module__ != "pygal"]

_POINTS = 480
_FEW = 30
_TOP = 1.06
# Two labels closer than this share of the height would run into each other.
_APART = 0.055
_SECONDS = (1, 2, 5, 10, 15, 30)
_MINUTES = (1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1440, 2880, 10080)
_STEPS = (*(timedelta(seconds=n) for n in _SECONDS), *(timedelta(minutes=n) for n in _MINUTES))
_LETTER = 12 * 0.6
_MARGIN = 2
# pygal leaves a margin of 2 % around what it draws; a bar has to begin where the words do.
_BAR, _BAR_HEIGHT, _BAR_MARGIN = 300, 10, 0.02
_NUMBER = re.compile(r"-?\d+\.\d+")
_PLAIN = {
    "js": [],
    "no_prefix": True,
    "disable_xml_declaration": True,
    "show_legend": False,
    "show_dots": False,
    "show_y_guides": False,
    "show_x_guides": False,
    "include_x_axis": True,
    "no_data_text": "",
    "spacing": 8,
    "margin": _MARGIN,
}


class Size(NamedTuple):
    """How large a chart is drawn, in CSS pixels, and how many labels its time axis bears."""

    name: str
    width: int
    height: int
    ticks: int


# A phone gets a drawing of its own: a scaled one would have letters of four pixels.
SIZES = (Size("wide", 880, 300, 8), Size("narrow", 340, 230, 4))


class Frame(NamedTuple):
    """The time that is drawn, and in it the first to the last event with each moment that a message is known of."""

    start: datetime
    end: datetime
    events: tuple[datetime, ...]
    zone: tzinfo | None


def draw_tracks(tracks: Sequence[tuple[Track, str]], frame: Frame, size: Size) -> list[Markup]:
    """Draw gauges against their levels, one below the other by one clock; the texts say them to screen readers."""
    labels = [_level_labels(track) for track, _ in tracks]
    gutters = [max(len(each["label"]) for each in every) for every in labels]
    return [
        _draw(track, frame, size, text, every, margin=_MARGIN + (max(gutters) - gutter) * _LETTER)
        for (track, text), every, gutter in zip(tracks, labels, gutters, strict=True)
    ]


def _draw(track: Track, frame: Frame, size: Size, text: str, labels: list[dict[str, Any]], *, margin: float) -> Markup:
    top = _top(track) * _TOP
    series = _series(track, frame, top)
    chart = pygal.XY(
        width=size.width,
        height=size.height,
        range=(0, top),
        xrange=(frame.start.timestamp(), frame.end.timestamp()),
        x_labels=_time_labels(frame, size.ticks),
        y_labels=labels,
        y_labels_major=[each["value"] for each in labels if each["value"] == track.limit],
        truncate_label=-1,
        style=Style(label_font_size=12, major_label_font_size=12),
        **_PLAIN,
    )
    for _, values, options in series:
        chart.add(None, values, **options)
    chart.margin_left = margin
    return _clean(chart, f"chart {size.name}", text, [name for name, _, _ in series])


def draw_bar(value: int, most: int) -> Markup:
    """Draw one bar, of a length in proportion to the longest; the words beside it say what it means."""
    chart = pygal.HorizontalBar(
        width=_BAR,
        height=_BAR_HEIGHT,
        range=(0, max(most, 1)),
        show_x_labels=False,
        show_y_labels=False,
        **(_PLAIN | {"margin": 0, "spacing": 0}),
    )
    chart.add(None, [max(value, 0)])
    return _clean(chart, "bar", "", ["area"])


# --- parts ----------------------------------------------------------------------------------------------------------


def _series(track: Track, frame: Frame, top: float) -> list[tuple[str, list[tuple[float, float]], dict[str, Any]]]:
    """List what is drawn, from the back to the front: class, coordinates, pygal's options."""
    found: list[tuple[str, list[tuple[float, float]], dict[str, Any]]] = []
    sides = (frame.start.timestamp(), frame.end.timestamp())
    marks = [at.timestamp() for at in frame.events]
    began, ended = max(min(marks), sides[0]), min(max(marks), sides[1])
    if ended > began:
        found.append(("events", [(began, top), (ended, top)], {"fill": True}))
    share = max(4, _POINTS // max(len(track.runs), 1))
    runs = [_coordinates(thin(run, share)) for run in track.runs]
    found += [("area", run, {"fill": True}) for run in runs if len(run) > 1]
    found.append(("base", [(x, 0.0) for x in sides], {}))
    found += [(level.name, [(x, level.value) for x in sides], {}) for level in reversed(track.levels)]
    found += [("event", [(x, 0.0), (x, top)], {}) for x in marks if sides[0] <= x <= sides[1]]
    found += [("line", run, {}) for run in runs if len(run) > 1]
    # Where readings are few, each is marked: the line between them is only a guess.
    few = len(track.points) <= _FEW
    alone = [point for run in runs for point in run if few or len(run) == 1]
    if alone:
        found.append(("alone", alone, {"stroke": False, "show_dots": True, "dots_size": 2.5}))
    if track.peak:
        found.append(("peak", _coordinates([track.peak]), {"stroke": False, "show_dots": True, "dots_size": 3.5}))
    return found


def _coordinates(points: Sequence[Point]) -> list[tuple[float, float]]:
    return [(point.at.timestamp(), float(point.value)) for point in points]


def _top(track: Track) -> int:
    return max([level.value for level in track.levels] + [point.value for point in track.points] + [1])


def _level_labels(track: Track) -> list[dict[str, Any]]:
    """Name the levels on the axis, the limit first: one that has no room is left to the legend."""
    words, top = bytes_text if track.gauge == "mem" else count_text, _top(track)
    labels: list[dict[str, Any]] = []
    zero = {"value": 0, "label": "0"}
    wanted = [{"value": level.value, "label": f"{level.name} {words(level.value)}"} for level in track.levels]
    peak = track.peak.value if track.peak else 0
    for each in [*wanted, zero, {"value": peak, "label": words(peak)}]:
        if all(abs(each["value"] - other["value"]) > top * _APART for other in labels):
            labels.append(each)
    return labels


def _time_labels(frame: Frame, most: int) -> list[dict[str, Any]]:
    """Choose round moments of the reader's clock; midnight is shown by its date."""
    step = next((each for each in _STEPS if (frame.end - frame.start) / each <= most), _STEPS[-1])
    local = frame.start.astimezone(frame.zone)
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0)
    moment = midnight + step * -((midnight - local) // step)
    labels = []
    while moment <= frame.end:
        form = "%d %b" if moment.hour == moment.minute == moment.second == 0 else "%H:%M"
        form = "%H:%M:%S" if step < timedelta(minutes=1) else form
        labels.append({"value": moment.timestamp(), "label": f"{moment:{form}}"})
        moment += step
    return labels


def _clean(chart: Any, classes: str, label: str, names: list[str]) -> Markup:  # noqa: ANN401 - pygal has no types
    """Render, and keep only shapes and words."""
    root = chart.render_tree()
    _strip(root, names)
    for name in ("id", "xmlns"):
        root.attrib.pop(name, None)
    root.set("class", classes)
    if label:
        root.set("role", "img")
        root.set("aria-label", label)
    else:
        inner = _BAR / (1 + 2 * _BAR_MARGIN)
        root.set("viewBox", f"{inner * _BAR_MARGIN:.2f} 1.5 {inner:.2f} 7")
        root.set("preserveAspectRatio", "none")
        root.set("aria-hidden", "true")
    # The namespace is implied in HTML; what goes in as text has been escaped by etree.
    text = etree.tostring(root, encoding="unicode")
    return Markup(re.sub(r"\s+xmlns(:\w+)?=\"[^\"]*\"", "", text))  # noqa: S704 - made by etree, from numbers and escaped text


def _strip(node: Any, names: list[str]) -> None:  # noqa: ANN401 - as above
    for child in list(node):
        kind = child.get("class", "") if isinstance(child.tag, str) else "comment"
        useless = {"comment", "background", "titles", "plot tooltip-overlay", "plot text-overlay"}
        if kind in useless or child.tag in ("defs", "title", "desc"):
            node.remove(child)
            continue
        if child.tag == "path" and "reactive" not in kind:
            node.remove(child)
            continue
        series = re.match(r"series serie-(\d+)", kind)
        if series:
            child.set("class", names[int(series[1])])
        for name in ("d", "x", "y", "cx", "cy", "width", "height"):
            if name in child.attrib:
                child.set(name, _NUMBER.sub(lambda n: f"{float(n[0]):.1f}".removesuffix(".0"), child.get(name)))
        _strip(child, names)
