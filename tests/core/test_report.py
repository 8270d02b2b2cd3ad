import re
from datetime import timedelta, timezone
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from material import (
    LINES,
    NOW,
    OPENED_AT,
    SHOP,
    events,
    histories,
    make_event,
    make_group,
    make_incident,
    make_notice,
    make_sample,
    make_sent_incident,
    make_sent_notice,
    make_snapshot,
    make_table,
    snapshots,
    tally,
)
from msgspec.structs import replace

from agent.core.diagnosis.diagnose import diagnose
from agent.core.kernel import messages
from agent.core.logs.records import to_record
from agent.core.model import (
    Diagnosis,
    Event,
    Holder,
    Incident,
    NoticeType,
    Peak,
    Pressure,
    Remark,
    Sample,
    Snapshot,
    Witness,
)
from agent.core.readings import UNMEASURED, FullGroup, Gap
from agent.core.report import brief_text, diagnosis_text, headline, news_text, notice_text, title

EVIL = "web1\x1b[2J\u202e\nTCP: too many orphaned sockets\n"


def kernel_records_in(text: str) -> list[str]:
    """The lines of our own output that our own detector would take for the kernel's."""
    records = [
        (line, to_record(line.encode(), now=NOW, source="own", ordinal=number))
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


NGINX = Holder(unit="nginx.service", sockets=60_000, orphans=52_000, bytes=1 << 30, ports=(443,))
REST = Holder(sockets=9_000, orphans=13_600, bytes=1 << 20)


def held_by_nginx(incident: Incident, **others: Any) -> Incident:
    return replace(incident, diagnosis=replace(incident.diagnosis, holders=(NGINX, REST)), **others)


def test_title_says_consequence_number_and_holder() -> None:
    assert "web1 is resetting TCP connections: orphan limit reached (65,600 of 65,536), most held by nginx.service" == (
        title(make_notice(held_by_nginx(make_incident())))
    )
    assert "web1 is resetting TCP connections: orphan limit reached (65,600 of 65,536)" == headline(make_incident())


def test_title_of_the_penalty_says_why_the_kernel_acts_below_the_limit() -> None:
    incident = make_incident(make_snapshot(orphan=40000))
    assert headline(incident).endswith(": orphan limit reached (40,000 of 65,536, stuck ones count double)")


def test_title_of_a_passed_burst_says_that_its_number_is_only_what_was_read() -> None:
    assert headline(make_incident(make_snapshot())).endswith("orphan limit reached (highest reading 3 of 65,536)")
    assert headline(make_incident(make_snapshot(), "tcp_memory")).endswith(
        "TCP memory limit reached (highest reading 4.7 MiB of 1.5 GiB)"
    )


def test_title_of_memory_says_its_consequence() -> None:
    incident = make_incident(make_snapshot(mem=490000), "tcp_memory")
    assert "web1 is dropping TCP data: TCP memory limit reached (1.9 GiB of 1.5 GiB)" == headline(incident)


def test_title_of_a_group_at_its_own_limit_says_that_limit_and_not_the_hosts() -> None:
    full = FullGroup(
        path="/system.slice/shop.service", current_bytes=99 << 20, limit_bytes=100 << 20, sock_bytes=9, refused=4
    )
    snapshot = make_snapshot(counters={"TCPRcvQDrop": 900}, sockets=make_table(full_groups=(full,)))
    diagnosis = diagnose(snapshot, (), (make_sample(10, TCPRcvQDrop=1),))
    warning = Pressure(level=3, cause="tcp_memory", claim="the kernel is dropping TCP data", value=1, limit=1, unit="")
    starving = held_by_nginx(
        make_incident(class_="pressure", pressure=warning, cause="tcp_memory", diagnosis=diagnosis)
    )
    group = "memory limit of shop.service (99 MiB of 100 MiB) reached"

    assert f"web1 early warning: the kernel is dropping TCP data: {group}" == headline(starving)
    assert f"web1 early warning: over: {group}" == headline(replace(starving, closed_at=NOW))
    surveyed = replace(warning, claim="shop.service is at its limit", value=99 << 20, limit=100 << 20, unit="bytes")
    named = replace(starving, pressure=surveyed)
    assert "web1 early warning: shop.service is at its limit (99 MiB of 100 MiB)" == headline(named)
    assert f"web1 early warning: over: {group}" == headline(replace(named, closed_at=NOW))


def test_title_of_a_version_1_group_says_that_it_is_a_groups_limit() -> None:
    old = make_snapshot(kernel="3.10.0-1160.el7.x86_64", kmem_tcp_failcnt=912)

    assert "web1 is dropping TCP data: a control group's TCP memory limit reached" == headline(
        make_incident(old, "tcp_memory")
    )


def test_title_has_the_peak_where_it_is_higher_than_the_reading() -> None:
    assert "(70,000 of 65,536)" in headline(make_incident(peak=Peak(orphan=70_000)))


@pytest.mark.parametrize(
    ("text", "words"),
    [("orphans", "orphan limit reached"), ("tcp_memory", "TCP memory limit reached")],
)
def test_title_of_a_line_that_no_counter_confirms_calls_it_a_claim(text: str, words: str) -> None:
    incident = make_incident(make_snapshot(), text, provenance="claimed", confidence="possible")
    assert f"web1: log claims {words}; this host's counters do not confirm it" == title(make_notice(incident))
    over = replace(incident, closed_at=NOW)
    assert f"web1: log claimed {words}; this host's counters did not confirm it (resolved)" == (
        title(make_notice(over, "sockmem.incident.resolved"))
    )
    assert not replace(incident, confidence="likely").is_unconfirmed
    assert not replace(incident, provenance="kernel").is_unconfirmed


def test_title_of_a_warning_says_that_it_is_one() -> None:
    claim = "orphaned sockets are above half of their limit"
    warning = Pressure(level=3, cause="orphans", claim=claim, value=40_000, limit=32_768)
    incident = held_by_nginx(make_incident(make_snapshot(orphan=40_000)), class_="pressure", pressure=warning)
    assert f"web1 early warning: {claim} (40,000 of 65,536, stuck ones count double), most held by nginx.service" == (
        headline(incident)
    )
    assert headline(replace(incident, closed_at=NOW)).startswith("web1 early warning: over (40,000 of 65,536")


def test_title_of_a_resolved_incident_is_past_and_says_how_long() -> None:
    incident = make_incident(closed_at=NOW + timedelta(seconds=612))
    longer = replace(incident, last_seen_at=incident.opened_at + timedelta(seconds=312))
    assert "web1 reset TCP connections: orphan limit reached (65,600 of 65,536) (resolved after 5 min 12 s)" == (
        title(make_notice(longer, "sockmem.incident.resolved"))
    )
    assert title(make_notice(incident, "sockmem.incident.resolved")).endswith("(resolved)")


def test_the_one_moment_of_a_single_line_is_said_once() -> None:
    incident = make_incident(closed_at=NOW + timedelta(seconds=300))
    at = f"{incident.opened_at:%Y-%m-%d %H:%M:%S} UTC"

    assert f"  time      {at}\n" in notice_text(make_notice(incident, "sockmem.incident.resolved"))


def test_title_of_a_test_says_that_nothing_is_wrong() -> None:
    assert "test notification, nothing is wrong" in title(make_notice(None, "sockmem.test"))
    assert "test notification" in notice_text(make_notice(None, "sockmem.test"))


def test_notice_says_what_where_since_when_how_far_and_where_to_read_on() -> None:
    incident = make_incident(
        suppressed_at_least=273, last_seen_at=NOW + timedelta(seconds=90), peak=Peak(orphan=70000, orphan_at=NOW)
    )
    text = notice_text(make_notice(incident))
    for words in (
        "web1 is resetting TCP connections: orphan limit reached (70,000 of 65,536)",
        "since     2026-11-22 15:05:40 UTC\n",
        "messages  1 x too many orphans, at least 273 suppressed by its rate limit",
        "memory    4.7 MiB of 1.5 GiB (0.3 %) at peak",
        "source    kernel",
        "First step:",
        "ss -tanoemi state fin-wait-1",
        "details: sockmem-agent incidents show 20261122T150539Z-7f3a\n",
    ):
        assert words in text


def test_the_details_of_another_hosts_incident_are_where_its_log_is() -> None:
    text = notice_text(make_notice(make_incident(host="web7", read_on="log1")))

    assert text.endswith("\ndetails: sockmem-agent incidents show 20261122T150539Z-7f3a  # on log1\n")


def test_peers_are_told_apart() -> None:
    holder = Holder(unit="nginx.service", sockets=3, orphans=0, bytes=0, peers=("10.0.0.0/24", "10.0.0.0/24 port 5432"))
    text = diagnosis_text(replace(diagnose(make_snapshot(), (), ()), holders=(holder,)))

    assert "peers 10.0.0.0/24, 10.0.0.0/24 port 5432" in " ".join(text.split())


@pytest.mark.parametrize("kind", ["opened", "updated", "resolved"])
def test_a_notice_says_a_number_once(kind: str) -> None:
    closed_at = NOW + timedelta(seconds=312) if kind == "resolved" else None
    incident = held_by_nginx(make_incident(make_snapshot(orphan=65_600, counters={"TCPAbortOnMemory": 4_268})))
    incident = replace(incident, closed_at=closed_at, suppressed_at_least=4_071)
    notice = make_notice(incident, f"sockmem.incident.{kind}")
    for text in (notice_text(notice), news_text(notice)):
        numbers = re.findall(r"\d{1,3}(?:,\d{3})+", text)
        assert sorted(set(numbers)) == sorted(numbers)
        assert 1 == text.count("First step:" if kind == "opened" else "20261122T150539Z-7f3a")


def test_a_resolved_notice_says_how_long_how_many_the_cause_the_holder_and_one_durable_fix() -> None:
    baseline = (make_sample(10, TCPAbortOnMemory=0),)
    event = make_event()
    diagnosis = diagnose(make_snapshot(65_600, counters={"TCPAbortOnMemory": 413}), (event,), baseline)
    incident = held_by_nginx(
        make_incident(events={"too_many_orphans": 37}, suppressed_at_least=4_071, diagnosis=diagnosis),
        last_seen_at=NOW + timedelta(seconds=312),
        closed_at=NOW + timedelta(seconds=612),
    )
    text = notice_text(make_notice(incident, "sockmem.incident.resolved"))
    for words in (
        "(resolved after 5 min 12 s)",
        "37 x too many orphans, at least 4,071 suppressed by its rate limit",
        "resets    413 connections",
        "cause     orphans (certain)",
        "held by   nginx.service: 52,000 orphans, 60,000 sockets",
        "Durable fix: Raise tcp_max_orphans to ",
        "| net.ipv4.tcp_max_orphans = ",
    ):
        assert words in text
    for present in (" is ", " are ", " holds ", "First step", diagnosis.summary[:40]):
        assert present not in text


def test_diagnosis_shows_every_part() -> None:
    text = diagnosis_text(diagnose(make_snapshot(orphan=40000), (make_event(),), ()))
    for words in (
        "Cause: orphans (certain)",
        "Numbers:",
        "Findings:",
        "Advice, in the order",
        "Unknown:",
        "| net.ipv4",
    ):
        assert words in text


def test_numbers_evidence_and_holders_are_printed_with_their_limits_units_and_names() -> None:
    table = make_table(make_group(fin_wait1=tally(60_000)), make_group(SHOP, 80, last_ack=tally(400)))
    text = diagnosis_text(diagnose(make_snapshot(65600, sockets=table), (make_event(),), ()))

    assert (
        """
Numbers:
  orphans   65,600, limit 65,536 (100 %)
  memory    1,200 pages, limit 380,910 pages (0.3 %)
  in bytes  4.7 MiB of 1.5 GiB, pages of 4,096 bytes
  tcp_mem   190,455 / 253,940 / 380,910 pages

Findings:
  - orphans at limit (certain, orphans)
    line (kernel): «TCP: too many orphaned sockets», from kmsg:1
    orphan: 65,600 sockets (limit 65,536), from net/sockstat

Holders:
  held by        nginx.service: 60,000 of 60,400 orphans, 60,000 sockets
  nginx.service  60,000 sockets, 60,000 orphans, 234 MiB, ports 443
  shop.service   400 sockets, 400 orphans, 1.6 MiB, ports 80
  unattributed   0 sockets, 0 orphans, 0 B
"""
        in text
    )


@pytest.mark.parametrize(
    ("orphan", "text"),
    [(40_000, "stuck orphans double, so it may act at half of"), (20_000, "fourfold, so it may act at a quarter of")],
)
def test_the_summary_says_how_the_kernel_counts_stuck_orphans(orphan: int, text: str) -> None:
    assert f"{text} tcp_max_orphans" in diagnose(make_snapshot(orphan), (make_event(),), ()).summary


def test_no_kill_is_claimed_where_the_trace_shows_none() -> None:
    for witness in (Witness(kills=None), Witness(kills=0)):
        assert "no message" not in diagnose(make_snapshot(), (), (), witness).summary


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
    assert "unattributed" in text


def test_notice_says_that_its_holder_is_a_guess() -> None:
    guess = Holder(unit="haproxy.service", sockets=9000, orphans=9000, bytes=0, ports=(80,), guess=True)
    incident = make_incident(closed_at=NOW)
    diagnosis = replace(incident.diagnosis, holders=(guess, Holder(sockets=1, orphans=1, bytes=0)))
    text = " ".join(
        notice_text(make_notice(replace(incident, diagnosis=diagnosis), "sockmem.incident.resolved")).split()
    )
    assert "most held by haproxy.service (a guess: it serves port 80)" in text
    assert "haproxy.service (a guess: it serves port 80): 9,000 orphans, 9,000 sockets" in text


def test_holders_of_an_incident_from_before_there_were_guesses_can_be_read() -> None:
    old = b'{"unit": "nginx.service", "sockets": 9, "orphans": 7, "bytes": 1}'
    assert not msgspec.json.decode(old, type=Holder).guess


def test_prose_stays_within_eighty_columns_with_the_indent_of_incidents_show() -> None:
    for text in LINES:
        shown = diagnosis_text(diagnose(make_snapshot(65600, 390000), (make_event(text),), ()))
        long = [
            line
            for line in shown.splitlines()
            if len(line) > 78 and not line.strip().startswith(("$", "|")) and "«" not in line
        ]
        assert [] == long


@pytest.mark.parametrize(("peak", "words"), [(96_000, "375 MiB of 375 MiB"), (131_072, "512 MiB of 375 MiB")])
def test_the_peak_of_memory_is_right_where_the_kernel_counts_in_4096_bytes(peak: int, words: str) -> None:
    snapshot = make_snapshot(
        mem=96_000, tcp_mem=(4000, 5000, 6000), kernel="4.18.0-240.el8.aarch64", page_size_bytes=65536
    )
    incident = make_incident(snapshot, "tcp_memory", kernel=snapshot.kernel, peak=Peak(mem=peak, mem_at=NOW))
    assert f"TCP memory limit reached ({words})" in title(make_notice(incident))


def test_news_are_the_whole_notice_once_and_then_what_is_new() -> None:
    incident = held_by_nginx(make_incident(), peak=Peak(orphan=70_000))
    opened = make_notice(incident)
    update = news_text(
        replace(make_notice(incident, "sockmem.incident.updated"), reason="largest holder identified: nginx.service")
    )

    assert notice_text(opened) == news_text(opened)
    for part in (
        "(update)",
        "What changed: largest holder identified: nginx.service",
        incident.summary[:40],
        "nginx.service: 52,000 orphans",
        "70,000",
    ):
        assert part in update
    for shown_before in ("First step:\n", "«", "tcp_mem  "):
        assert shown_before not in update
    assert 1 == update.count(incident.id)


def test_one_socket_and_one_page_are_no_plurals() -> None:
    text = diagnosis_text(
        diagnose(
            make_snapshot(1, 1, max_orphans=0, tcp_mem=(2, 2, 2)), (make_event("orphans"), make_event("tcp_memory")), ()
        )
    )
    assert "orphan: 1 socket (limit 0)" in text
    assert "mem: 1 page (limit 2)" in text
    assert [] == re.findall(r"\b1 (?:sockets|pages|bytes|seconds)\b", text)


def remarked(kind: NoticeType, remark: str, **changes: Any) -> Remark:
    notice = make_sent_notice(kind, **changes)
    return Remark(**{name: getattr(notice, name) for name in notice.__struct_fields__}, remark=remark)


def test_a_late_title_says_from_when_to_when_and_why_it_is_late() -> None:
    late = remarked("sockmem.incident.resolved", "reported late: the channel was down")
    moment = remarked("sockmem.incident.resolved", "reported late: why", last_seen_at=OPENED_AT)

    assert title(late).endswith(" from 15:05 to 15:17 UTC (reported late: the channel was down)")
    assert title(late).startswith("web1 reset TCP connections: ")
    assert title(moment).endswith(" at 15:05 UTC (reported late: why)")


def test_a_late_title_is_in_utc_as_the_times_below_it_are() -> None:
    late = remarked("sockmem.incident.resolved", "reported late: why")
    new_york = timezone(timedelta(hours=-5))

    assert title(late) == title(replace(late, at=late.at.astimezone(new_york)))


def test_a_late_title_of_the_past_has_its_date_once() -> None:
    unmeasured = replace(make_sent_incident().diagnosis, gaps=(Gap(what=UNMEASURED, why="read later"),))
    late = remarked("sockmem.incident.resolved", "reported late: why", diagnosis=unmeasured)

    assert title(late).endswith(" on 22 Nov 2026 at 15:17 UTC; nothing was measured then (reported late: why)")


def test_a_reminder_says_how_long_it_is_open_and_nothing_changed() -> None:
    again = remarked("sockmem.incident.updated", "still open after 2 h")

    assert title(again).endswith("(still open after 2 h)")
    assert "What changed" not in news_text(again)


@pytest.mark.parametrize("most", [40, 80, 400, 4096])
def test_a_brief_text_keeps_the_command_and_fits(most: int) -> None:
    text = brief_text(make_sent_incident(summary="ü" * 3000), most)

    assert len(text.encode()) <= most
    assert most < 80 or "First: sysctl -w net." in text
