"""Charts as inline SVG: shapes and texts with classes, which the page's style sheet paints in light and dark.

    <svg class="chart wide" viewBox="0 0 880 300" role="img" aria-label="Orphaned sockets. ...">
    <path class="area" d="M120.0 250.1 L121.6 249.0 ... Z"/>  <path class="limit" d="M120.0 23.9 L876.0 23.9"/>
    <circle class="peak" .../>  <g class="axis x"><text ...>14:30</text> ...

The classes, from the back to the front: events, area, base, the levels (limit, half, quarter, pressure, low), event,
line, alone, peak. The page's Content-Security-Policy allows no style, script, link or identifier in it.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta, tzinfo
from typing import NamedTuple

from markupsafe import Markup

from agent.page.series import Point, Track, thin

_POINTS = 480
_FEW = 30
_TOP = 1.06
# Labels closer than this share of the height would overlap.
_APART = 0.055
_SECONDS = (1, 2, 5, 10, 15, 30)
_MINUTES = (1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1440, 2880, 10080)
_STEPS = (*(timedelta(seconds=n) for n in _SECONDS), *(timedelta(minutes=n) for n in _MINUTES))
# Labels of 12 px: width of a letter, distance, and from the middle of a text to its baseline.
_LETTER, _SPACE, _BASELINE = 7.2, 10, 4
_ABOVE, _BELOW, _RIGHT = 6, 24, 6


class Size(NamedTuple):
    """The size of a chart in CSS pixels, and how many labels its time axis has."""

    name: str
    width: int
    height: int
    ticks: int


# Phones get their own drawing: a scaled one would have letters of four pixels.
SIZES = (Size("wide", 880, 300, 8), Size("narrow", 340, 230, 4))


class Frame(NamedTuple):
    """The time span drawn, and the known times of messages in it."""

    start: datetime
    end: datetime
    events: tuple[datetime, ...]
    zone: tzinfo | None


class _Label(NamedTuple):
    value: float
    text: str


class _Plane(NamedTuple):
    """Converts seconds since the epoch, and values in the gauge's unit, to pixels."""

    size: Size
    left: float
    start: float
    seconds: float
    top: float

    def x(self, second: float) -> float:
        return self.left + (second - self.start) / self.seconds * (self.size.width - _RIGHT - self.left)

    def y(self, value: float) -> float:
        bottom = self.size.height - _BELOW
        return bottom - value / self.top * (bottom - _ABOVE)

    def path(self, name: str, points: Sequence[tuple[float, float]], *, filled: bool = False) -> Markup:
        """Draw a line; a filled one is closed along the bottom."""
        if filled:
            points = [(points[0][0], 0.0), *points, (points[-1][0], 0.0)]
        line = " L".join(f"{self.x(second):.1f} {self.y(value):.1f}" for second, value in points)
        return Markup('<path class="{}" d="M{}{}"/>').format(name, line, "Z" if filled else "")

    def dot(self, name: str, point: tuple[float, float], radius: float) -> Markup:
        return Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="{}"/>').format(
            name, self.x(point[0]), self.y(point[1]), radius
        )


def draw_tracks(tracks: Sequence[tuple[Track, str]], frame: Frame, size: Size) -> list[Markup]:
    """Draw gauges against their levels on one time axis; the texts are for screen readers."""
    labels = [_level_labels(track) for track, _ in tracks]
    left = max(len(label.text) for each in labels for label in each) * _LETTER + _SPACE
    start, seconds = frame.start.timestamp(), (frame.end - frame.start).total_seconds()
    return [
        _draw(track, text, frame, each, _Plane(size, left, start, seconds, _top(track) * _TOP))
        for (track, text), each in zip(tracks, labels, strict=True)
    ]


# --- parts ----------------------------------------------------------------------------------------------------------


def _draw(track: Track, text: str, frame: Frame, labels: Sequence[_Label], plane: _Plane) -> Markup:
    size = plane.size
    times = (
        Markup('<text x="{:.1f}" y="{}">{}</text>').format(plane.x(at), size.height - _BASELINE, each)
        for at, each in _time_labels(frame, size.ticks)
    )
    levels = (
        Markup('<text{} x="{:.1f}" y="{:.1f}">{}</text>').format(
            Markup(' class="major"') if value == track.limit else "", plane.left - 6, plane.y(value) + _BASELINE, each
        )
        for value, each in labels
    )
    return Markup(
        '<svg class="chart {}" viewBox="0 0 {} {}" role="img" aria-label="{}">{}'
        '<g class="axis x">{}</g><g class="axis y">{}</g></svg>'
    ).format(
        size.name,
        size.width,
        size.height,
        text,
        Markup().join(_shapes(track, frame, plane)),
        Markup().join(times),
        Markup().join(levels),
    )


def _shapes(track: Track, frame: Frame, plane: _Plane) -> Iterator[Markup]:
    """Draw all shapes, from back to front."""
    sides = (frame.start.timestamp(), frame.end.timestamp())
    marks = [at.timestamp() for at in frame.events]
    began, ended = max(min(marks), sides[0]), min(max(marks), sides[1])
    if ended > began:
        yield plane.path("events", [(began, plane.top), (ended, plane.top)], filled=True)
    share = max(4, _POINTS // max(len(track.runs), 1))
    runs = [_coordinates(thin(run, share)) for run in track.runs]
    lines = [run for run in runs if len(run) > 1]
    yield from (plane.path("area", run, filled=True) for run in lines)
    for name, value in (("base", 0), *reversed(track.levels)):
        yield plane.path(name, [(x, value) for x in sides])
    yield from (plane.path("event", [(x, 0.0), (x, plane.top)]) for x in marks if sides[0] <= x <= sides[1])
    yield from (plane.path("line", run) for run in lines)
    # Few readings are marked one by one: the line between them is a guess.
    few = len(track.points) <= _FEW
    yield from (plane.dot("alone", point, 2.5) for run in runs for point in run if few or len(run) == 1)
    if track.peak:
        yield from (plane.dot("peak", point, 3.5) for point in _coordinates([track.peak]))


def _coordinates(points: Sequence[Point]) -> list[tuple[float, float]]:
    return [(point.at.timestamp(), float(point.value)) for point in points]


def _top(track: Track) -> int:
    return max([level.value for level in track.levels] + [point.value for point in track.points] + [1])


def _level_labels(track: Track) -> list[_Label]:
    """Label the levels on the axis, the limit first; one without room is in the legend only."""
    peak, top = track.peak.value if track.peak else 0, _top(track)
    labels: list[_Label] = []
    wanted = [_Label(level.value, f"{level.name} {track.text(level.value)}") for level in track.levels]
    for each in (*wanted, _Label(0, "0"), _Label(peak, track.text(peak))):
        if all(abs(each.value - other.value) > top * _APART for other in labels):
            labels.append(each)
    return labels


def _time_labels(frame: Frame, most: int) -> Iterator[_Label]:
    """Choose round times of the reader's clock; midnight shows its date."""
    step = next((each for each in _STEPS if (frame.end - frame.start) / each <= most), _STEPS[-1])
    local = frame.start.astimezone(frame.zone)
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0)
    moment = midnight + step * -((midnight - local) // step)
    while moment <= frame.end:
        form = "%d %b" if moment.hour == moment.minute == moment.second == 0 else "%H:%M"
        form = "%H:%M:%S" if step < timedelta(minutes=1) else form
        yield _Label(moment.timestamp(), f"{moment:{form}}")
        moment += step
