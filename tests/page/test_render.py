import base64
import hashlib
import re
import subprocess
import sys
from datetime import timedelta
from html.parser import HTMLParser

import pytest
from msgspec.structs import replace
from stories import HOSTILE, LIMIT, OPENED, make_hostile_story, make_samples, make_snapshot, make_story

from agent.core.model import Diagnosis, Holder, Pressure, Recurrence
from agent.core.readings import Gap
from agent.page.incident_files import IncidentFiles
from agent.page.render import render

PAGE = render(make_story())


class Reader(HTMLParser):
    """What a browser makes of a page: its words, its elements with their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


@pytest.mark.parametrize(
    "part",
    [
        "shop-1",
        "Linux 6.1.0-30-amd64",
        "shop-1 reset TCP connections: orphan limit reached (16,391 of 16,384), most held by nginx.service",
        "2026-11-22 15:05:39 UTC",
        "7 min from the first to the last message",
        "16,391 orphaned sockets at the peak 100 % of the limit, 16,384",
        "136 MiB TCP memory at the peak 38 % of the limit, 360 MiB",
        "4,268 connections reset",
        "orphans, certain",
        "Source kernel Kernel messages",
        "37 x too many orphans, at least 4,071 suppressed by its rate limit",
        "kernel: [84211.114207] TCP: too many orphaned sockets",
        "Orphans at limit certain",
        "16,391 sockets of 16,384 net/sockstat",
        "nginx.service unit 13,120 orphans 92 MiB · 15,902 sockets · ports 443, 80 · peers 203.0.113.0/24",
        "unattributed 1,067 orphans",
        "Raise tcp_max_orphans to 59,392.",
        "Risk. Unswappable memory",
        "sysctl -w net.ipv4.tcp_max_orphans=59392",
        "Put this into /etc/sysctl.d/90-sockmem-tcp_max_orphans.conf",
        "/proc/pressure/memory not there: PSI is off in this kernel",
        "15:05:39 ops opened: the kernel hit a TCP limit delivered 15:05:40, 3 attempts: HTTP 200",
        "given up 15:17:40, 3 attempts: HTTP 503",
        "snapshot-001.json · orphan 16,391 · mem 34,285",
        "sys/net/ipv4/tcp_max_orphans 16384",
        "Incident 20261122T150539Z-7f3a",
    ],
)
def test_the_page_tells_the_whole_story(part: str) -> None:
    assert part in Reader(PAGE).text.replace("\u00a0", " ")


def test_the_steps_come_before_what_they_rest_on() -> None:
    places = [attrs["aria-labelledby"] for tag, attrs in Reader(PAGE).elements if tag == "section"]

    assert ["happened", "course", "who", "advice", "why", "gaps", "notifications", "raw"] == places


def test_the_same_story_is_always_the_same_page() -> None:
    assert PAGE == render(make_story())


def test_the_page_asks_nobody_for_anything() -> None:
    elements = Reader(PAGE).elements

    assert not {"link", "img", "iframe", "object", "embed", "base", "form", "a"} & {tag for tag, _ in elements}
    assert not [(tag, name) for tag, attributes in elements for name in attributes if name in ("src", "href", "style")]
    assert not re.search(r"https?:|//[a-z]+\.|@import|url\(", PAGE)


def test_the_policy_allows_this_style_and_this_script_alone() -> None:
    elements = Reader(PAGE).elements
    (policy,) = (each["content"] for tag, each in elements if each.get("http-equiv") == "Content-Security-Policy")
    digests = [
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for kind in ("style", "script")
        for text in re.findall(rf"<{kind}>(.*?)</{kind}>", PAGE, re.DOTALL)
    ]

    assert [2, 1] == [len(digests), sum(tag == "script" for tag, _ in elements)]
    assert policy == (
        f"default-src 'none'; style-src 'sha256-{digests[0]}'; script-src 'sha256-{digests[1]}'; "
        "base-uri 'none'; form-action 'none'"
    )


def test_charts_and_bars_say_themselves_to_a_screen_reader() -> None:
    drawings = [attributes for tag, attributes in Reader(PAGE).elements if tag == "svg"]
    labels = [str(each["aria-label"]) for each in drawings if each.get("role") == "img"]

    assert all("aria-label" in each or each.get("aria-hidden") == "true" for each in drawings)
    assert labels[0] == labels[1]
    assert labels[0].startswith("Orphaned sockets. From 14:05:39 to 15:25:29: 251 at first, 16,391 at the peak")
    assert "<caption" in PAGE or '<th scope="col">' in PAGE


@pytest.mark.parametrize(("orphans", "widths"), [((100, 50, 0), ["1.0000", "0.5000", "0.0000"]), ((0,), ["0.0000"])])
def test_bars_are_in_proportion_to_the_longest(orphans: tuple[int, ...], widths: list[str]) -> None:
    files = make_story()
    holders = tuple(replace(files.incident.diagnosis.holders[0], orphans=count) for count in orphans)
    incident = replace(files.incident, diagnosis=replace(files.incident.diagnosis, holders=holders))
    assert widths == re.findall(r'<rect width="([\d.]+)"', render(files._replace(incident=incident)))


def test_the_table_holds_the_peak() -> None:
    rows = re.findall(r"<tr><td>(.*?)</td><td>(.*?)</td><td>(.*?)</td></tr>", PAGE)

    assert 10 < len(rows) <= 48
    assert "16,391" in {orphans for _, orphans, _ in rows}
    assert "136 MiB" in {memory for _, _, memory in rows}


def test_the_gauge_of_the_cause_comes_first() -> None:
    memory = render(make_story("tcp_mem"))

    assert PAGE.index(">Orphaned sockets</h3>") < PAGE.index(">TCP memory</h3>")
    assert memory.index(">TCP memory</h3>") < memory.index(">Orphaned sockets</h3>")
    assert "limit 360 MiB" in memory


def test_an_open_incident_says_so() -> None:
    story = make_story(closed_at=None)

    assert "still open" in Reader(render(story)).text
    assert ">over<" not in render(story)


def test_how_often_it_was_before_is_said() -> None:
    first = Recurrence(count=1, since=OPENED)

    assert (
        "Cause orphans, certain Recurrence first of its kind on record"
        in Reader(render(make_story(recurrence=first))).text
    )
    assert "Recurrence" not in Reader(PAGE).text


def test_without_holders_a_sentence_stands_in_their_place() -> None:
    story = make_story()
    judged = replace(story.incident.diagnosis, holders=())
    text = Reader(render(story._replace(incident=replace(story.incident, diagnosis=judged)))).text

    assert "No holder identified" in text


def test_a_holder_that_is_a_guess_says_by_what() -> None:
    story = make_story()
    guessed = Holder(unit="haproxy.service", sockets=9, orphans=9, bytes=4096, ports=(443,), guess=True)
    diagnosis = replace(story.incident.diagnosis, holders=(guessed,))
    page = render(story._replace(incident=replace(story.incident, diagnosis=diagnosis)))

    assert "a guess: it serves port 443" in Reader(page).text
    assert "a guess" not in Reader(PAGE).text


def test_without_any_evidence_there_is_still_a_page() -> None:
    bare = replace(make_story().incident, diagnosis=Diagnosis(cause="none", confidence="possible", summary="Nothing."))
    why = Gap(what="a file of this incident", why="snapshot-001.json: cannot be read")
    page = Reader(render(IncidentFiles(replace(bare, host=None, kernel=None), unread=(why,)))).text

    for part in (
        "No readings from this time",
        "snapshot-001.json: cannot be read",
        "No snapshot could be read",
    ):
        assert part in page
    assert "None were due." in page


def test_a_claimed_line_is_called_a_claim() -> None:
    assert "any local user can write to" in Reader(render(make_story(provenance="claimed"))).text


def test_a_limit_changed_meanwhile_is_told() -> None:
    story = make_story()
    name, last = story.snapshots[-1]
    changed = replace(last, sysctls={**last.sysctls, "net.ipv4.tcp_max_orphans": (4 * LIMIT,)})
    text = Reader(render(story._replace(snapshots=(*story.snapshots[:-1], (name, changed))))).text

    assert "net.ipv4.tcp_max_orphans changed from 16,384 to 65,536, seen at 15:12:39." in text


@pytest.mark.parametrize(
    ("shift", "words"),
    [(1, "counted stuck sockets twice: it acted at 8,192"), (2, "counted stuck sockets four times: it acted at 4,096")],
)
def test_a_penalty_is_explained_at_the_chart(shift: int, words: str) -> None:
    story = make_story()
    mechanism = replace(story.incident.diagnosis.mechanism, penalty_shift=shift, limit_reached=LIMIT >> shift)
    judged = replace(story.incident.diagnosis, mechanism=mechanism)

    assert words in Reader(render(story._replace(incident=replace(story.incident, diagnosis=judged)))).text


def test_an_incident_that_the_gauges_opened_has_no_line() -> None:
    warning = Pressure(level=2, cause="orphans", claim="orphans_above_half", value=9_000, limit=8_192)
    story = make_story(class_="pressure", first_event=None, last_of_kind=(), events={}, pressure=warning)
    text = Reader(render(story)).text

    starving = replace(warning, claim="TCP starves", value=20_000, limit=100, unit="refused segments in 10 s")
    shown = Reader(render(make_story(class_="pressure", pressure=starving))).text
    assert "TCP starves: 20,000 refused segments in 10 s (threshold 100)" in shown
    for part in (
        "gauges (no kernel message)",
        "orphans above half: 9,000 of 8,192 sockets",
        "first and last sign",
    ):
        assert part in text
    assert "the first message" not in text


# --- what others chose ----------------------------------------------------------------------------------------------


def test_hostile_texts_make_no_element_and_no_attribute() -> None:
    hostile = Reader(render(make_hostile_story())).elements
    tame = {(tag, name) for tag, attributes in Reader(PAGE).elements for name in attributes}

    assert {(tag, name) for tag, attributes in hostile for name in attributes} <= tame
    assert 1 == sum(tag == "script" for tag, _ in hostile)


def test_hostile_texts_are_shown_as_they_are_with_what_hides_made_visible() -> None:
    page = render(make_hostile_story())

    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]", page)
    assert "<!channel>" not in page
    visible = HOSTILE.replace("\x1b", "\\x1b").replace("\u202e", "\\u202e").replace("\x00", "\\x00")
    # 28 places and more; each was found whole in the text that a reader sees.
    assert Reader(page).text.count(visible) >= 28


def test_a_template_in_a_text_is_not_run() -> None:
    assert "{{7*7}}" in render(make_hostile_story())


# --- size -----------------------------------------------------------------------------------------------------------


def test_a_day_long_incident_stays_below_a_megabyte() -> None:
    counters = "TcpExt: " + " ".join(f"Counter{n} & <{n}>" for n in range(900))
    snapshots = tuple(
        (f"snapshot-{n:03}.json", make_snapshot(60.0 * n, raw={"net/netstat": counters, "meminfo": counters}))
        for n in range(1, 61)
    )
    end = OPENED + timedelta(hours=24)
    story = make_story(last_seen_at=end, closed_at=end, opened_at=OPENED)
    samples = tuple(replace(each, at=each.at + timedelta(hours=24)) for each in make_samples(hours=24))
    page = render(story._replace(snapshots=snapshots, samples=samples))

    assert len(samples) > 8_000
    assert 300_000 < len(page.encode()) < 1_000_000
    assert "texts omitted for size" in page
    first = page.index('<details class="raw">')
    assert "Counter899" in page[first : page.index("</details>", first)]


# --- what it costs to have it ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "modules",
    [
        "agent.cli.run, agent.service.daemon, agent.service.recorder, agent.service.courier",
        "agent.cli.incidents",
        "agent.cli.diagnose",
    ],
)
def test_jinja2_is_not_loaded_before_a_page_is_asked_for(modules: str) -> None:
    program = f"import {modules}, sys; print(sorted({{'jinja2', 'markupsafe'}} & set(sys.modules)))"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"
