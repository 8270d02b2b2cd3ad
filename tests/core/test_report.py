from datetime import timedelta

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from material import LINES, NOW, events, histories, make_event, make_incident, make_notice, make_snapshot, snapshots
from msgspec.structs import replace

from agent.core.diagnosis.diagnose import diagnose
from agent.core.kernel import messages
from agent.core.logs import syslog
from agent.core.model import Diagnosis, Event, Holder, Peak, Sample, Snapshot
from agent.core.report import diagnosis_text, headline, news_text, notice_text, title

EVIL = "web1\x1b[2J\u202e\nTCP: too many orphaned sockets\n"


def kernel_records_in(text: str) -> list[str]:
    """The lines of our own output that our own detector would take for the kernel's."""
    records = [
        (line, syslog.to_record(line.encode(), now=NOW, source="own", ordinal=number))
        for number, line in enumerate(text.splitlines(), 1)
    ]
    return [line for line, record in records if record and messages.detect(record)]


@settings(max_examples=100, deadline=None)
@given(snapshots, events, histories)
def test_own_words_never_look_like_the_kernels(
    snapshot: Snapshot, said: tuple[Event, ...], history: tuple[Sample, ...]
) -> None:
    text = diagnosis_text(diagnose(snapshot, said, history))
    assert [] == kernel_records_in(text)


@pytest.mark.parametrize("text", LINES)
def test_a_line_that_is_shown_is_no_record(text: str) -> None:
    incident = make_incident(text=text)
    assert [] == kernel_records_in(notice_text(make_notice(incident)))
    assert f"«{incident.first_event.line}»" in notice_text(make_notice(incident))


@given(st.text(max_size=80))
def test_names_from_outside_neither_steer_nor_forge(name: str) -> None:
    event = replace(make_event(), host=EVIL + name, line=EVIL + name)
    incident = make_incident(host=EVIL + name, first_event=event, summary=EVIL + name)
    later = [news_text(make_notice(incident, f"sockmem.incident.{word}")) for word in ("updated", "resolved")]
    for shown in (notice_text(make_notice(incident)), title(make_notice(incident)), headline(incident), *later):
        assert "\x1b" not in shown
        assert "\u202e" not in shown
        assert [] == kernel_records_in(shown)


def test_title_fits_a_lock_screen() -> None:
    assert "web1: TCP orphan limit hit, 100 % of tcp_max_orphans (opened)" == title(make_notice(make_incident()))


def test_title_of_the_penalty_says_where_it_acts() -> None:
    incident = make_incident(make_snapshot(orphan=40000))
    assert "TCP orphan limit hit, 61 % of tcp_max_orphans, which acts at 50 %" == headline(incident)


def test_title_of_a_passed_burst_says_so() -> None:
    assert "TCP orphan limit hit, passed when read" == headline(make_incident(make_snapshot()))
    assert "TCP memory limit hit, passed when read" == headline(make_incident(make_snapshot(), "tcp_memory"))


def test_title_of_memory_names_its_share() -> None:
    incident = make_incident(make_snapshot(mem=390000), "tcp_memory")
    assert "TCP memory limit hit, 102 % of tcp_mem" == headline(incident)


def test_title_of_a_resolved_incident_says_how_long() -> None:
    incident = make_incident(closed_at=NOW + timedelta(seconds=612))
    longer = replace(incident, last_seen_at=incident.opened_at + timedelta(seconds=312))
    assert title(make_notice(longer, "sockmem.incident.resolved")).endswith("(resolved, lasted 5 min 12 s)")
    assert title(make_notice(incident, "sockmem.incident.resolved")).endswith("(resolved)")


def test_title_of_a_test_says_that_nothing_is_wrong() -> None:
    assert "test notification, nothing is wrong" in title(make_notice(None, "sockmem.test"))
    assert "test notification" in notice_text(make_notice(None, "sockmem.test"))


def test_notice_says_what_where_since_when_how_far_and_where_to_read_on() -> None:
    incident = make_incident(
        suppressed_at_least=273, last_seen_at=NOW + timedelta(seconds=90), peak=Peak(orphan=70000, orphan_at=NOW)
    )
    text = notice_text(make_notice(incident))
    for words in (
        "web1: TCP orphan limit hit",
        "2026-11-22T15:05:40+00:00, going on for 1 min 30 s",
        "1 x too_many_orphans, and 273 messages suppressed",
        "65,600 of 65,536 allowed (100 %)",
        "70,000 orphans",
        "said by   the kernel",
        "ss -tanoemi state fin-wait-1",
        "sockmem-agent incidents show 20261122T150539Z-7f3a",
    ):
        assert words in text


def test_resolved_notice_gives_no_more_advice() -> None:
    incident = make_incident(closed_at=NOW + timedelta(seconds=312))
    assert "First:" not in notice_text(make_notice(incident, "sockmem.incident.resolved")).splitlines()


def test_diagnosis_shows_every_part() -> None:
    text = diagnosis_text(diagnose(make_snapshot(orphan=40000), (make_event(),), ()))
    for words in (
        "Cause: orphans (certain)",
        "Numbers:",
        "Findings:",
        "Advice, in the order",
        "Not known:",
        "| net.ipv4",
    ):
        assert words in text


def test_diagnosis_names_holders_when_there_are_some() -> None:
    diagnosis = Diagnosis(
        cause="orphans",
        confidence="likely",
        summary="Many.",
        holders=(
            Holder(unit="nginx.service", sockets=70, orphans=60, bytes=4096, ports=(443,), peers=("192.0.2.1",)),
            Holder(unit="haproxy.service", sockets=9, orphans=9, bytes=0, ports=(80,), guess=True),
            Holder(sockets=1, orphans=1, bytes=0),
        ),
    )
    text = diagnosis_text(diagnosis)
    assert "nginx.service" in text
    assert "70 sockets, 60 orphans, 4 KiB, ports 443, peers 192.0.2.1" in text
    assert "a guess: it serves port 80; 9 sockets, 9 orphans" in text
    assert "nobody that could be named" in text


def test_notice_says_that_its_holder_is_a_guess() -> None:
    guess = Holder(unit="haproxy.service", sockets=9000, orphans=9000, bytes=0, ports=(80,), guess=True)
    incident = make_incident()
    diagnosis = replace(incident.diagnosis, holders=(guess, Holder(sockets=1, orphans=1, bytes=0)))
    text = notice_text(make_notice(replace(incident, diagnosis=diagnosis)))
    assert "haproxy.service (a guess: it serves port 80): 9,000 of 9,001 orphans, 9,000 sockets" in text


def test_holders_of_an_incident_from_before_there_were_guesses_can_be_read() -> None:
    old = b'{"unit": "nginx.service", "sockets": 9, "orphans": 7, "bytes": 1}'
    assert not msgspec.json.decode(old, type=Holder).guess


def test_prose_stays_within_a_hundred_columns() -> None:
    for text in LINES:
        shown = diagnosis_text(diagnose(make_snapshot(65600, 390000), (make_event(text),), ()))
        long = [line for line in shown.splitlines() if len(line) > 100 and not line.strip().startswith(("$", "|"))]
        assert [] == long


@pytest.mark.parametrize(("peak", "row"), [(96_000, None), (96_017, "6,001 pages of memory")])
def test_the_peak_of_memory_is_in_pages_where_the_kernel_counts_in_4096_bytes(peak: int, row: str | None) -> None:
    snapshot = make_snapshot(
        mem=96_000, tcp_mem=(4000, 5000, 6000), kernel="4.18.0-240.el8.aarch64", page_size_bytes=65536
    )
    incident = make_incident(snapshot, "tcp_memory", kernel=snapshot.kernel, peak=Peak(mem=peak, mem_at=NOW))
    text = notice_text(make_notice(incident))
    assert "6,000 of 6,000 pages allowed" in text
    assert ([row] if row else []) == [
        line.removeprefix("  peak").strip() for line in text.splitlines() if line.startswith("  peak")
    ]


def test_news_are_the_whole_notice_once_and_then_what_is_new() -> None:
    holder = Holder(unit="nginx.service", sockets=9000, orphans=8000, bytes=4096)
    incident = make_incident(diagnosis=replace(make_incident().diagnosis, holders=(holder,)), peak=Peak(orphan=70_000))
    opened = make_notice(incident)
    update = news_text(
        replace(make_notice(incident, "sockmem.incident.updated"), reason="largest holder: nginx.service")
    )
    over = news_text(make_notice(incident, "sockmem.incident.resolved"))

    assert notice_text(opened) == news_text(opened)
    for part in (
        "(update)",
        "largest holder: nginx.service",
        incident.summary[:40],
        "nginx.service: 8,000 of 8,000 orphans",
        "70,000",
    ):
        assert part in update
    for part in ("(resolved", "1 x too_many_orphans", "nginx.service: 8,000 of 8,000 orphans", "70,000 orphans"):
        assert part in over
    for told_before in ("First:\n", "«", "tcp_mem  "):
        assert told_before not in update + over
    assert incident.summary[:40] not in over
    assert {2} == {text.count(incident.id) for text in (update, over)}
