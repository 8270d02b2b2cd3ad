"""The plain text of an incident, for a terminal and for ``less`` on a console without Unicode."""

import json
import re
import subprocess
from datetime import datetime, timedelta, timezone
from pathlib import Path

import msgspec
import pytest
import stories
from harness import lay_out, scenario_names
from material import make_incident, make_snapshot
from msgspec.structs import replace

from agent.core import folding
from agent.core.diagnosis.diagnose import diagnose
from agent.core.kernel import messages
from agent.core.logs.records import to_record
from agent.core.model import Advice, Event, Pressure, Recurrence, Sample
from agent.core.readings import SocketTable
from agent.page.incident_files import IncidentFiles
from agent.page.text import COLUMNS, fold_command, incident_text
from agent.probe import take_snapshot

NOW = stories.OPENED
WARNING = Pressure(level=2, claim="memory_pressure", cause="tcp_memory", value=70_000, limit=61_465)


def text_of(files: IncidentFiles, encoding: str = "ascii") -> list[str]:
    return [line.text for line in incident_text(files, encoding)]


def files_of(scenario: Path) -> IncidentFiles:
    """Make what the service has when it commits the incident of a scenario for the first time."""
    expected = json.loads((scenario / "expected.json").read_text())
    cgroup, sockets, history = (scenario / name for name in ("cgroup", "sockets.json", "history.json"))
    snapshot = take_snapshot(scenario / "proc", NOW, expected["trigger"], cgroup if cgroup.is_dir() else None)
    if sockets.exists():
        snapshot = replace(snapshot, sockets=msgspec.json.decode(sockets.read_bytes(), type=SocketTable))
    samples = msgspec.json.decode(history.read_bytes(), type=tuple[Sample, ...]) if history.exists() else ()
    events = [*events_of((scenario / "line").read_text())]
    judged = diagnose(snapshot, tuple(events), samples)
    incident = (
        folding.open_incident(events[0], events[0].at or NOW, snapshot, judged)
        if events
        else folding.open_pressure(WARNING, NOW, snapshot, judged)
    )
    name = "snapshot-001.json"
    return IncidentFiles(replace(incident, snapshots=(name,)), ((name, snapshot),), samples)


def events_of(lines: str) -> list[Event]:
    records = (to_record(line.encode(), now=NOW, source="x", ordinal=0) for line in lines.splitlines())
    return [event for record in records if record and (event := messages.detect(record))]


SCENARIOS = [lay_out(name) for name in scenario_names()]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda path: path.name)
def test_every_line_has_at_most_80_plain_columns_but_what_a_shell_cannot_continue(scenario: Path) -> None:
    lines = text_of(files_of(scenario))

    assert [] == [line for line in lines if not (line.isascii() and (line.isprintable()))]
    too_long = [line for line in lines if len(line) > COLUMNS]
    assert [] == [line for line in too_long if not re.fullmatch(r" +(\$ )?('[^']+'|\S+)( \\)?", line)]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda path: path.name)
def test_every_command_of_the_advice_can_be_copied(scenario: Path) -> None:
    files = files_of(scenario)
    shown = " ".join(" ".join(text_of(files)).replace(" \\ ", " ").split())

    for command in (each for step in files.incident.diagnosis.advice for each in step.commands):
        assert " ".join(command.partition("   # ")[0].split()) in shown


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda path: path.name)
def test_no_line_of_it_is_a_line_of_the_kernels(scenario: Path) -> None:
    assert [] == events_of("\n".join(text_of(files_of(scenario))))


@pytest.mark.parametrize(
    "words",
    [
        "TCP: too many orphaned sockets",
        "TCP: too many of orphaned sockets",
        "Out of socket memory",
        "TCP: out of memory -- consider tuning tcp_mem",
    ],
)
def test_wherever_a_quoted_line_breaks_grep_finds_the_kernels_words(words: str) -> None:
    story = stories.make_story()
    for length in range(1, COLUMNS):
        first = replace(stories.make_event(), line=f"{'x' * length} kernel: {words}")
        judged = replace(story.incident.diagnosis, findings=())
        lines = text_of(story._replace(incident=replace(story.incident, first_event=first, diagnosis=judged)))

        assert 1 == sum(words in line for line in lines), length


def test_a_long_quotation_stands_in_its_marks_on_every_line() -> None:
    line = f"{'a long name of a host ' * 5}kernel: [1.5] TCP: too many orphaned sockets"
    story = stories.make_story()
    incident = replace(story.incident, first_event=replace(stories.make_event(), line=line))

    lines = text_of(story._replace(incident=incident))

    place = next(number for number, each in enumerate(lines) if each.startswith("  Line "))
    quoted = [each.strip().removeprefix("Line").strip() for each in lines[place : place + 4]]
    assert ['""'] * 3 == [each[0] + each[-1] for each in quoted[:3]]
    assert " ".join(each.strip('"') for each in quoted[:3]) == line


@pytest.mark.parametrize(
    "command",
    [
        "for x in $(seq 12); do echo $x one two three four; grep nothing /dev/null; done | sort -rn | head   # largest",
        r"""printf '%s\n' 'one two' "three  four" a\ b five six seven eight nine ten eleven | awk '{print $1, "x"}'""",
        f"echo one | grep -v '{'a script in one piece ' * 6}' || echo two three four",
    ],
)
def test_a_folded_command_does_in_a_shell_what_it_did_before(command: str) -> None:
    lines = fold_command("    $ ", command)
    code = "\n".join(line.replace("    $ ", "", 1) for line in lines)

    whole, folded = (subprocess.run(["bash", "-c", each], capture_output=True, check=False) for each in (command, code))
    assert whole.stdout == folded.stdout
    assert whole.returncode == folded.returncode
    assert [] == [line for line in lines if len(line) > COLUMNS and "'" not in line and '"' not in line]


def test_the_first_screen_has_verdict_time_holder_and_numbers() -> None:
    screen = "\n".join(text_of(stories.make_story())[:24])

    for part in (
        "orphan limit reached (16,391 of 16,384)",
        "most held\nby nginx.service",
        "20261122T150539Z-7f3a",
        "First message    2026-11-22 15:05:39 UTC",
        "16,391 orphaned sockets at the peak (100 % of the limit, 16,384)",
    ):
        assert part in screen


def test_since_when_it_recurs_is_dated_in_the_zone_of_its_times() -> None:
    story, since = stories.make_story(), datetime(2026, 11, 3, 23, 30, tzinfo=timezone.utc)
    incident = replace(story.incident, recurrence=Recurrence(count=9, since=since, previous_at=since))
    tokyo = story._replace(incident=incident, zone=timezone(timedelta(hours=9), "JST"))

    assert any("9th since 4 Nov" in line for line in text_of(tokyo))


def test_the_steps_come_before_what_they_rest_on() -> None:
    lines = text_of(stories.make_story())

    order = ["Numbers", "Holders", "Advice, in the order to try it", "Findings", "Gauges", "Timeline", "Notifications"]
    assert order == [line for line in lines if line in order]


def test_it_has_sockstat_and_the_limits_of_the_newest_snapshot_as_the_kernel_wrote_them() -> None:
    story = stories.make_story()
    lines = text_of(story)

    name, newest = story.snapshots[-1]
    place = lines.index(f"Raw, below /proc at 2026-11-22 15:12:39 UTC ({name})")
    raw = lines[place + 1 : lines.index("", place)]
    assert [f"    {line}" for line in newest.raw["net/sockstat"].splitlines()] == raw[1:-2]
    assert ["sys/net/ipv4/tcp_mem          46098 61465 92196", "sys/net/ipv4/tcp_max_orphans  16384"] == [
        line.strip() for line in raw[-2:]
    ]


@pytest.mark.parametrize(
    ("seconds", "shown"), [(-65, "-1 min 5 s"), (-3.5, "-3.5 s"), (-0.25, "-0.250 s"), (0.5, "+0.500 s"), (20, "+20 s")]
)
def test_a_peak_is_as_long_before_or_after_the_first_event_as_the_timeline_says(seconds: float, shown: str) -> None:
    story = stories.make_story()
    opened_at = story.incident.opened_at
    peak = replace(story.incident.peak, orphan_at=opened_at + timedelta(seconds=seconds))

    lines = text_of(story._replace(incident=replace(story.incident, peak=peak)))

    [line] = [line for line in lines if "peak: orphan" in line]
    assert shown == line.partition("UTC")[2].partition("peak")[0].strip()


def test_of_a_notice_that_was_overtaken_no_count_of_attempts_is_claimed() -> None:
    story = stories.make_story()
    name, notice, receipts = story.notices[0]
    overtaken = replace(receipts["ops"], outcome="superseded", attempts=0, detail="notice-002")
    notices = ((name, notice, receipts | {"ops": overtaken}), *story.notices[1:])

    said = " ".join(" ".join(text_of(story._replace(notices=notices))).split())

    assert re.search(r"overtaken [0-9:]+: notice-002", said)


def test_it_ends_with_the_id_so_that_what_was_cut_shows() -> None:
    story = stories.make_story()

    assert text_of(story)[-1].endswith(story.incident.id)


def test_what_takes_all_files_is_left_out_of_the_summary() -> None:
    story = stories.make_story()
    whole, part = text_of(story), [line.text for line in incident_text(story, is_whole=False)]

    assert ["Gauges", "Timeline", "Notifications"] == [
        line for line in whole if line[:1].isupper() and line not in part
    ]
    assert [line for line in whole if line and line in part] == [line for line in part if line]


def test_of_another_host_no_reading_is_shown() -> None:
    snapshot = replace(make_snapshot(), raw={})
    incident = make_incident(snapshot, read_on="log1", host="web7", snapshots=("snapshot-001.json",))

    lines = text_of(IncidentFiles(incident, (("snapshot-001.json", snapshot),)))

    assert "nothing was measured on web7" in " ".join(lines)
    assert [] == [line for line in lines if line.startswith(("Raw", "Gauges"))]


def test_a_warning_says_that_no_message_was_logged() -> None:
    snapshot = make_snapshot()
    judged = diagnose(snapshot, (), ())
    lines = text_of(IncidentFiles(folding.open_pressure(WARNING, NOW, snapshot, judged)))

    assert "early warning" in lines[0]
    assert "  Kernel messages  none" in lines


def test_hostile_texts_are_shown_as_escapes() -> None:
    story = stories.make_hostile_story()
    text = "\n".join(text_of(story, "utf-8"))

    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text)
    assert [] == [line for line in text.splitlines() if len(line) > COLUMNS and "$" not in line]


def test_a_long_comment_of_a_file_stays_a_comment() -> None:
    story = stories.make_story()
    step = Advice(action="a", why="b", risk="c", persist=f"# {'word ' * 30}\nnet.ipv4.tcp_mem = 1 2 3")
    judged = replace(story.incident.diagnosis, advice=(step,))
    lines = text_of(story._replace(incident=replace(story.incident, diagnosis=judged)))

    file = [line.removeprefix("       | ") for line in lines if line.startswith("       | ")]
    assert [True, False] == [all(line.startswith("# word") for line in file[:-1]), file[-1].startswith("#")]
    assert len(file) > 2
    assert " ".join(line.removeprefix("# ") for line in file[:-1]).split() == ["word"] * 30
