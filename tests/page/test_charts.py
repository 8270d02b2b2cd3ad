import re
from datetime import datetime, timedelta, timezone
from xml.etree import ElementTree as ET

import pytest
from stories import OPENED, make_samples, make_snapshot, make_story

from agent.page.charts import SIZES, Frame, draw_tracks
from agent.page.series import Level, Point, Track, build_tracks

INCIDENT = make_story().incident
TRACKS = build_tracks(INCIDENT, [make_snapshot(0.2)], make_samples())


def frame(start: datetime, end: datetime, *events: datetime) -> Frame:
    return Frame(start, end, events or (OPENED,), timezone.utc)


def draw(track: Track, text: str = "a chart", size: int = 0, *events: datetime) -> ET.Element:
    start, end = track.points[0].at, max(track.points[-1].at, track.points[0].at + timedelta(seconds=1))
    (drawn,) = draw_tracks([(track, text)], frame(start, end, *events), SIZES[size])
    return ET.fromstring(str(drawn))


def classes(root: ET.Element) -> list[str]:
    return [path.get("class", "") for path in root.iter("path")]


def labels(root: ET.Element, axis: str) -> list[str | None]:
    return [
        text.text for g in root.iter("g") if g.get("class", "").startswith(f"axis {axis}") for text in g.iter("text")
    ]


def test_a_drawing_is_nothing_but_shapes_and_words() -> None:
    for drawn in draw_tracks([(TRACKS.orphans, "orphans")], frame(OPENED, OPENED + timedelta(minutes=1)), SIZES[0]):
        assert not re.search(r"<(script|style|defs|title|desc|!--)|style=|href|xmlns|url\(|\bid=|://", str(drawn))
        assert {"svg", "g", "path", "circle", "text"} == {each.tag for each in ET.fromstring(str(drawn)).iter()}


def test_every_level_is_drawn_and_named_on_the_axis() -> None:
    root = draw(TRACKS.orphans)

    assert {"limit", "half", "quarter", "line", "area", "event", "base"} <= set(classes(root))
    assert ["limit 16,384", "half 8,192", "quarter 4,096", "0"] == labels(root, "y")


def test_memory_is_labelled_in_bytes_with_its_peak() -> None:
    assert ["limit 360 MiB", "pressure 240 MiB", "low 180 MiB", "0", "136 MiB"] == labels(draw(TRACKS.memory), "y")


def test_labels_that_would_run_into_each_other_leave_room_for_the_limit() -> None:
    close = TRACKS.orphans._replace(levels=(Level("limit", 16_384), Level("half", 16_300), Level("quarter", 4_096)))

    assert ["limit 16,384", "quarter 4,096", "0"] == labels(draw(close), "y")


def test_a_phone_gets_fewer_labels_of_the_same_size() -> None:
    wide, narrow = draw(TRACKS.orphans), draw(TRACKS.orphans, size=1)

    assert ["14:10", "14:20", "14:30", "14:40", "14:50", "15:00", "15:10", "15:20"] == labels(wide, "x")
    assert ["14:30", "15:00"] == labels(narrow, "x")


def test_both_gauges_stand_under_one_clock() -> None:
    pair = [(TRACKS.orphans, "a"), (TRACKS.memory, "b")]
    drawn = draw_tracks(pair, frame(OPENED - timedelta(hours=1), OPENED + timedelta(minutes=17)), SIZES[0])

    sides = [re.search(r'class="limit" d="M([\d.]+) [\d.]+ L([\d.]+)', str(each)) for each in drawn]

    assert 1 == len({match.groups() for match in sides if match})
    assert None not in sides


def test_events_are_marked_and_the_time_between_them_shaded() -> None:
    one = classes(draw(TRACKS.orphans, "a", 0, OPENED))
    two = classes(draw(TRACKS.orphans, "a", 0, OPENED, OPENED + timedelta(minutes=7)))

    assert (1, 0) == (one.count("event"), one.count("events"))
    assert (2, 1) == (two.count("event"), two.count("events"))


def test_an_event_outside_of_the_readings_is_not_drawn_at_a_wrong_place() -> None:
    assert "event" not in classes(draw(TRACKS.orphans, "a", 0, OPENED - timedelta(days=1)))


def test_a_gap_is_a_gap() -> None:
    run = TRACKS.orphans.runs[0]
    broken = TRACKS.orphans._replace(runs=(run[:50], run[100:150], run[200:201]))

    root = draw(broken)

    assert 2 == classes(root).count("line")
    assert 1 == [circle.get("class") for circle in root.iter("circle")].count("alone")


def test_few_readings_are_marked_one_by_one_and_many_are_not() -> None:
    run = TRACKS.orphans.runs[0]
    few, many = (draw(TRACKS.orphans._replace(runs=(run[:number],))) for number in (5, 200))

    # The peak has a mark of its own.
    assert [5 + 1, 1] == [len(list(root.iter("circle"))) for root in (few, many)]


@pytest.mark.parametrize("value", [0, 1, 70_000])
def test_a_single_reading_is_drawn(value: int) -> None:
    root = draw(Track("orphan", ((Point(OPENED, value),),), ()))

    assert 2 == len(list(root.iter("circle")))


def test_a_day_of_samples_is_thinned_and_keeps_its_peak() -> None:
    run = tuple(Point(OPENED + timedelta(seconds=10 * n), 500 + n % 7) for n in range(8640))
    burst = run[4321]._replace(value=16_000)
    day = TRACKS.orphans._replace(runs=((*run[:4321], burst, *run[4322:]),))

    (drawn,) = draw_tracks([(day, "a day")], frame(run[0].at, run[-1].at), SIZES[0])

    assert len(drawn) < 30_000
    assert "23 Nov" in drawn


def test_the_text_alternative_is_escaped() -> None:
    (drawn,) = draw_tracks([(TRACKS.orphans, '"><script>')], frame(OPENED, OPENED + timedelta(minutes=1)), SIZES[0])

    assert "<script" not in drawn
    assert '"><script>' == ET.fromstring(str(drawn)).get("aria-label")
