from datetime import timedelta
from math import inf
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from material import (
    NGINX,
    NOW,
    SHOP,
    events,
    histories,
    make_event,
    make_group,
    make_sample,
    make_snapshot,
    make_table,
    snapshots,
    tables,
    tally,
)

from agent.core.diagnosis.diagnose import diagnose
from agent.core.kernel.release import parse_kernel
from agent.core.model import Diagnosis, Event, Mechanism, Provenance, Sample, Snapshot, Witness
from agent.core.readings import Gap, SocketTable, UnreadLine
from agent.core.report import diagnosis_text


@settings(max_examples=100, deadline=None)
@given(snapshots, events, histories)
def test_diagnose_is_total_and_deterministic(
    snapshot: Snapshot, said: tuple[Event, ...], history: tuple[Sample, ...]
) -> None:
    diagnosis = diagnose(snapshot, said, history)
    assert diagnosis == diagnose(snapshot, said, history)
    assert diagnosis == msgspec.json.decode(msgspec.json.encode(diagnosis), type=Diagnosis)
    assert diagnosis.findings[0].cause == diagnosis.cause
    assert diagnosis.findings[0].confidence == diagnosis.confidence
    assert diagnosis.summary
    assert diagnosis_text(diagnosis)


@settings(max_examples=100, deadline=None)
@given(snapshots, events, histories)
def test_an_event_is_never_diagnosed_as_none_and_a_claim_never_as_certain(
    snapshot: Snapshot, said: tuple[Event, ...], history: tuple[Sample, ...]
) -> None:
    diagnosis = diagnose(snapshot, said, history)
    telling = [event for event in said if event.kind != "suppressed"]
    if telling:
        assert diagnosis.cause != "none"
        assert diagnosis.confidence != "certain" or any(event.provenance == "kernel" for event in telling)
    elif not {**snapshot.netstat, **snapshot.snmp}.get("TCPAbortOnMemory"):
        # Kills that only a counter shows stand for either cause.
        assert diagnosis.cause != "undetermined"


def test_diagnose_of_nothing_at_all_is_none_with_gaps() -> None:
    diagnosis = diagnose(Snapshot(taken_at=NOW, trigger="command"), (), ())
    assert ("none", "possible") == (diagnosis.cause, diagnosis.confidence)
    assert {"net/sockstat", "net.ipv4.tcp_mem", "net.ipv4.tcp_max_orphans", "page size", "holders"} == {
        gap.what for gap in diagnosis.gaps
    }


@pytest.mark.parametrize(("seconds", "cause"), [(0.0, "both"), (299.0, "both"), (301.0, "orphans"), (inf, "orphans")])
def test_both_is_the_cause_only_where_both_ran_out_in_one_burst(seconds: float, cause: str) -> None:
    snapshot = make_snapshot(orphan=65600, mem=379000)
    earlier = make_event("tcp_memory", seconds_ago=min(seconds, 1e6) + 0.2)
    assert cause == diagnose(snapshot, (make_event("orphans"), earlier), ()).cause
    assert cause == diagnose(snapshot, (earlier, make_event("orphans")), ()).cause


@pytest.mark.parametrize(
    ("ahead", "words"),
    [
        (3600, "the line's stamp is 1 h ahead of this host's clock (a log daemon that kept its time zone"),
        (-1800, "the line's stamp is 30 min behind this host's clock (a log daemon that kept its time zone"),
        (300, "the line's stamp is 5 min ahead of this host's clock (the clock that stamped it is wrong)"),
    ],
)
def test_a_stamp_that_is_off_is_a_gap_and_the_numbers_count(ahead: int, words: str) -> None:
    for host in ("web1", "db7"):
        event = msgspec.structs.replace(make_event(), ahead_seconds=ahead, host=host)
        diagnosis = diagnose(make_snapshot(orphan=65600), (event,), ())
        assert [True] == [gap.why.startswith(words) for gap in diagnosis.gaps if gap.what == "stamp of the line"]
        assert (65600 if host == "web1" else None) == diagnosis.mechanism.orphan


def test_lines_whose_stamps_cannot_be_compared_are_of_one_burst() -> None:
    said = (make_event(), make_event("tcp_memory", at=None, uptime=7.0))
    copy = make_snapshot(65_600, 390_000, uptime_seconds=None, trigger="command")
    assert "both" == diagnose(copy, said, ()).cause


def test_an_earlier_burst_is_told_with_the_times_of_both() -> None:
    summary = diagnose(make_snapshot(), (make_event(), make_event("tcp_memory", seconds_ago=4 * 3600)), ()).summary
    assert "4 h earlier (at 11:05 UTC; the newest message is from 15:05 UTC), in another burst, the kernel" in summary


def test_of_an_earlier_burst_that_only_a_text_log_claims_the_kernel_reported_nothing() -> None:
    before = msgspec.structs.replace(make_event("tcp_memory", seconds_ago=4 * 3600), provenance="claimed")
    assert ", in another burst, a text log claimed " in diagnose(make_snapshot(), (make_event(), before), ()).summary


def test_a_text_of_another_era_is_told_but_not_where_distributions_have_it_too() -> None:
    def told(text: str, kernel: str | None) -> bool:
        gaps = diagnose(make_snapshot(kernel=kernel), (make_event(text),), ()).gaps
        return "kernel of the line" in {gap.what for gap in gaps}

    assert [True, True, False] == [told(text, "3.10.0-1160.el7") for text in ("timer", "close", "orphans")]
    assert [False, True, True] == [told(text, "2.6.32-642.el6") for text in ("timer", "orphans", "tcp_memory")]
    assert [False, False] == [told(text, "3.2.0-4-amd64") for text in ("timer", "orphans")]
    assert not told("timer", None)


@pytest.mark.parametrize(
    ("what", "lacking"),
    [
        ("/copy/proc/sys/net/ipv4/tcp_mem", {"net.ipv4.tcp_max_orphans", "net/sockstat", "page size"}),
        ("/proc/net/sockstat", {"net.ipv4.tcp_mem", "net.ipv4.tcp_max_orphans", "page size"}),
        ("/proc/net/sockstat6", {"net.ipv4.tcp_mem", "net.ipv4.tcp_max_orphans", "net/sockstat", "page size"}),
        ("page size", {"net.ipv4.tcp_mem", "net.ipv4.tcp_max_orphans", "net/sockstat"}),
    ],
)
def test_what_the_probe_has_reported_is_not_reported_again(what: str, lacking: set[str]) -> None:
    known = Gap(what=what, why="permission denied")
    gaps = diagnose(Snapshot(taken_at=NOW, trigger="command", gaps=(known,)), (), ()).gaps
    assert {known.what, "holders", *lacking} == {gap.what for gap in gaps}


def test_all_is_well_only_where_nothing_else_was_found() -> None:
    assert diagnose(make_snapshot(), (), ()).summary.startswith("All is well: orphaned sockets")
    in_bytes = diagnose(make_snapshot(tcp_mem=(4096, 87380, 16777216)), (), ())
    claims = ["nothing_near_a_limit", "tcp_mem_holds_buffer_sizes", "tcp_mem_above_ram"]
    assert claims == [each.claim for each in in_bytes.findings]
    assert "Orphaned sockets and TCP memory are below their limits." == in_bytes.summary


@pytest.mark.parametrize(
    ("absent", "summary"),
    [
        (
            ("net.ipv4.tcp_mem", "net.ipv4.tcp_max_orphans"),
            "but neither orphaned sockets nor TCP memory can be compared with their limits",
        ),
        (
            ("net.ipv4.tcp_mem",),
            "and orphaned sockets are below their limit, but TCP memory cannot be compared with its limits",
        ),
        (
            ("net.ipv4.tcp_max_orphans",),
            "and TCP memory is below its limits, but orphaned sockets cannot be compared with their limit",
        ),
    ],
)
def test_what_has_no_limit_to_be_compared_with_is_not_called_far_from_it(absent: tuple[str, ...], summary: str) -> None:
    snapshot = make_snapshot()
    sysctls = {key: value for key, value in snapshot.sysctls.items() if key not in absent}

    said = diagnose(msgspec.structs.replace(snapshot, sysctls=sysctls), (), ()).summary

    assert f"No kernel message, {summary}: a reading or a limit is missing." == said


def test_a_suppressed_line_alone_adds_nothing() -> None:
    suppressed = msgspec.structs.replace(make_event(), kind="suppressed", line="net_ratelimit: 9 callbacks suppressed")
    assert diagnose(make_snapshot(), (), ()) == diagnose(make_snapshot(), (suppressed,), ())


def test_mechanism_shows_what_the_kernel_compared() -> None:
    mechanism = diagnose(make_snapshot(orphan=40000), (make_event(),), ()).mechanism
    assert (1, 40000, 65536, 32768) == (
        mechanism.penalty_shift,
        mechanism.orphan,
        mechanism.tcp_max_orphans,
        mechanism.limit_reached,
    )
    assert (1200, 1200 * 4096, 380910 * 4096) == (
        mechanism.mem_pages,
        mechanism.mem_bytes,
        (mechanism.tcp_mem_bytes or (0, 0, 0))[2],
    )


def test_mechanism_counts_in_pages_of_the_host_where_the_kernel_counts_in_4096_bytes() -> None:
    snapshot = make_snapshot(
        mem=16000, tcp_mem=(600, 800, 1000), kernel="4.18.0-240.el8.aarch64", page_size_bytes=65536
    )
    mechanism = diagnose(snapshot, (make_event("tcp_memory"),), ()).mechanism
    assert (1000, 16000 * 4096) == (mechanism.mem_pages, mechanism.mem_bytes)


def test_bytes_are_left_out_where_the_page_size_is_not_known() -> None:
    mechanism = diagnose(make_snapshot(page_size_bytes=None, kernel="6.12.1"), (), ()).mechanism
    assert (None, None, 1200) == (mechanism.mem_bytes, mechanism.tcp_mem_bytes, mechanism.mem_pages)


@settings(max_examples=200, deadline=None)
@given(snapshots, events, histories)
def test_nothing_is_said_in_bytes_of_a_guessed_unit(
    snapshot: Snapshot, said: tuple[Event, ...], history: tuple[Sample, ...]
) -> None:
    page = snapshot.page_size_bytes
    known = page is not None and page > 0 and (page == 4096 or parse_kernel(snapshot.kernel) is not None)
    diagnosis = diagnose(snapshot, said, history)
    proposed = {step.sysctl.key for step in diagnosis.advice if step.sysctl}
    named = {each.name for finding in diagnosis.findings for each in finding.evidence if each.unit == "bytes"}
    assert known or (diagnosis.mechanism.mem_bytes is None and diagnosis.mechanism.mem_unit_bytes is None)
    assert page in (4096, 65536) or (diagnosis.mechanism.tcp_mem_bytes is None and "net.ipv4.tcp_mem" not in proposed)
    assert page in (4096, 65536) or named <= {"MemAvailable"}


def test_a_reading_of_another_moment_is_not_used_by_the_service() -> None:
    diagnosis = diagnose(make_snapshot(orphan=65600), (make_event("timer", seconds_ago=7200),), ())
    assert "undetermined" == diagnosis.cause
    assert None is diagnosis.mechanism.orphan
    assert ["the line is 2 h older than the reading: not used"] == [
        gap.why for gap in diagnosis.gaps if gap.what == "the moment of the event"
    ]


def test_a_reading_of_another_moment_weighs_little_when_somebody_put_both_together() -> None:
    snapshot = make_snapshot(orphan=65600, trigger="command")
    diagnosis = diagnose(snapshot, (make_event("timer", seconds_ago=7200),), ())
    assert ("orphans", "possible") == (diagnosis.cause, diagnosis.confidence)


def test_a_copy_without_uptime_belongs_to_its_line() -> None:
    snapshot = make_snapshot(orphan=65600, trigger="command", uptime_seconds=None)
    diagnosis = diagnose(snapshot, (make_event("timer", seconds_ago=1e8),), ())
    assert ("orphans", "likely") == (diagnosis.cause, diagnosis.confidence)


def test_a_line_from_before_the_boot_is_told_as_such() -> None:
    event = make_event("tcp_memory", seconds_ago=20)
    diagnosis = diagnose(make_snapshot(uptime_seconds=5.0, counters={"TCPAbortOnMemory": 0}), (event,), ())
    assert ("tcp_memory", "likely") == (diagnosis.cause, diagnosis.confidence)
    assert any("earlier boot" in gap.why for gap in diagnosis.gaps)


def test_the_kernels_own_stamp_saves_a_line_whose_clock_is_wrong() -> None:
    event = msgspec.structs.replace(make_event("timer", seconds_ago=-3600), uptime=86399.5)
    assert "orphans" == diagnose(make_snapshot(orphan=65600), (event,), ()).cause


def test_samples_of_another_boot_are_not_compared() -> None:
    other = msgspec.structs.replace(make_sample(10, TCPAbortOnMemory=0), boot_id="another")
    diagnosis = diagnose(make_snapshot(), (make_event(),), (other,))
    assert "likely" == diagnosis.confidence
    assert any(gap.what == "counters from before the event" for gap in diagnosis.gaps)


def test_a_counter_that_moved_since_an_old_baseline_proves_nothing() -> None:
    diagnosis = diagnose(make_snapshot(), (make_event(),), (make_sample(4000, TCPAbortOnMemory=0),))
    assert "likely" == diagnosis.confidence


def test_kills_seen_by_a_follow_up_count() -> None:
    snapshot = make_snapshot(counters={"TCPAbortOnMemory": 0})
    history = (make_sample(10, TCPAbortOnMemory=0), make_sample(-5, TCPAbortOnMemory=8))
    assert "certain" == diagnose(snapshot, (make_event(),), history).confidence


def test_a_reading_at_sight_is_none_from_before_though_the_kernels_stamp_is_milliseconds_later() -> None:
    snapshot = make_snapshot(counters={"TCPAbortOnMemory": 4085})
    history = (make_sample(10, TCPAbortOnMemory=0), make_sample(0.209, TCPAbortOnMemory=100))
    findings = diagnose(snapshot, (make_event(seconds_ago=0.2),), history).findings
    killed = [each.value for each in findings[0].evidence if each.name == "TCPAbortOnMemory over the event"]
    assert [4085] == killed


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("orphans", "The kernel reset connections: orphaned sockets reached tcp_max_orphans."),
        ("tcp_memory", "TCP ran out of memory; the burst had passed by the reading."),
    ],
)
def test_summary_is_the_verdict_without_steps_and_without_the_titles_numbers(text: str, words: str) -> None:
    summary = diagnose(make_snapshot(orphan=65600), (make_event(text),), ()).summary
    assert words in summary
    assert "First" not in summary
    assert "65,5" not in summary


def test_summary_says_passed_when_the_burst_had_passed() -> None:
    assert "passed" in diagnose(make_snapshot(), (make_event(),), ()).summary
    assert "passed" in diagnose(make_snapshot(), (make_event("tcp_memory"),), ()).summary


def test_no_summary_names_a_claim_in_code_words() -> None:
    for orphan in (3, 17000, 40000, 65600):
        for mem in (1200, 300000, 379000, 390000):
            for text in ("timer", "close", "orphans", "tcp_memory"):
                snapshot = make_snapshot(orphan=orphan, mem=mem)
                assert "Verdict:" not in diagnose(snapshot, (make_event(text),), ()).summary
                assert "Verdict:" not in diagnose(snapshot, (), ()).summary


def test_an_undated_line_is_taken_as_of_now_and_compared_with_no_counter() -> None:
    event = msgspec.structs.replace(make_event(), at=None)
    diagnosis = diagnose(make_snapshot(), (event,), (make_sample(10, TCPAbortOnMemory=37),))
    assert "likely" == diagnosis.confidence
    assert timedelta(0) == NOW - make_snapshot().taken_at


@settings(max_examples=150, deadline=None)
@given(snapshots, events, histories, tables)
def test_diagnose_is_total_and_deterministic_with_any_table_of_sockets(
    snapshot: Snapshot, said: tuple[Event, ...], history: tuple[Sample, ...], table: SocketTable
) -> None:
    whole = msgspec.structs.replace(snapshot, sockets=table)
    diagnosis = diagnose(whole, said, history)
    assert diagnosis == diagnose(whole, said, history)
    assert diagnosis == msgspec.json.decode(msgspec.json.encode(diagnosis), type=Diagnosis)
    # Who holds the sockets explains a verdict, and never makes one.
    bare = diagnose(snapshot, said, history)
    assert (bare.cause, bare.confidence) == (diagnosis.cause, diagnosis.confidence)
    assert diagnosis_text(diagnosis)


def test_holders_come_by_what_is_short() -> None:
    table = make_table(
        make_group(NGINX, 443, fin_wait1=tally(900)), make_group(SHOP, 80, established=tally(200, 1 << 20))
    )
    by_orphans = diagnose(make_snapshot(orphan=65600, sockets=table), (make_event(),), ()).holders
    by_bytes = diagnose(make_snapshot(mem=390000, sockets=table), (make_event("tcp_memory"),), ()).holders
    assert ("nginx.service", "shop.service") == (by_orphans[0].unit, by_bytes[0].unit)


def test_a_witness_without_kills_says_why_though_a_holder_is_named() -> None:
    table = make_table(make_group(NGINX, 443, fin_wait1=tally(65600)))
    snapshot, untraced = make_snapshot(orphan=65600, sockets=table), (Gap(what="/run/kills", why="no such file"),)
    old, off = (diagnose(snapshot, (make_event(),), (), witness, untraced) for witness in (Witness(), None))
    assert "nginx.service holds" in old.summary
    [gap] = [gap.why for gap in old.gaps if gap.what == "the kernel's trace"]
    assert "from Linux 6.12 on" in gap
    assert "the kernel's trace" not in {gap.what for gap in off.gaps}


def test_a_snapshot_without_a_table_says_that_it_was_not_read() -> None:
    gaps = {gap.what: gap.why for gap in diagnose(make_snapshot(), (make_event(),), ()).gaps}
    assert "sock_diag was not read for this snapshot" == gaps["holders"]
    assert "holders" not in {gap.what for gap in diagnose(make_snapshot(sockets=make_table()), (), ()).gaps}


@pytest.mark.parametrize(("texts", "doubles"), [(("close",), False), (("close", "timer"), True), (("timer",), True)])
def test_the_text_of_close_is_explained_by_no_penalty(texts: tuple[str, ...], *, doubles: bool) -> None:
    snapshot = make_snapshot(40_000, alloc=42_000, kernel="3.2.0-4-amd64")
    summary = diagnose(snapshot, tuple(map(make_event, texts)), ()).summary
    assert doubles == ("counts stuck orphans double" in summary)
    assert "a moment earlier" in summary


@pytest.mark.parametrize(
    ("orphans", "words"),
    [(65_600, "TCP reached both limits"), (40_000, "half of theirs"), (20_000, "a quarter of theirs")],
)
def test_orphans_that_only_a_penalty_brings_to_their_limit_have_not_reached_it(orphans: int, words: str) -> None:
    snapshot = make_snapshot(orphans, 380_000, alloc=90_000, kernel="3.2.0-4-amd64", press=True)
    found = diagnose(snapshot, (make_event("timer"),), ())
    assert found.cause == "both"
    assert words in found.summary


def test_a_penalty_that_lasts_is_one_though_more_were_killed_in_time_than_the_limit_allows() -> None:
    # Ten minutes at 2,600 of 4,096, and timers kill 200 a second while others come: never were there 4,096.
    event, now = make_event(), make_snapshot().taken_at
    hovering = tuple(
        Sample(at=now - timedelta(seconds=s), orphan=2600, mem=100, counters={"TCPAbortOnMemory": 200_000 - 200 * s})
        for s in range(600, -1, -10)
    )
    for kernel in ("4.19.0-27-amd64", "6.1.0-50-amd64"):
        snapshot = make_snapshot(kernel=kernel, orphan=2600, max_orphans=4096, netstat={"TCPAbortOnMemory": 200_000})
        diagnosis = diagnose(snapshot, (event,), hovering)
        assert (1, 2048) == (diagnosis.mechanism.penalty_shift, diagnosis.mechanism.limit_reached)
        assert "a moment earlier" not in diagnosis.summary


def diagnose_line_of(named: str | None, provenance: Provenance = "claimed", **facts: Any) -> Diagnosis:
    event = msgspec.structs.replace(make_event(provenance=provenance), host=named)
    return diagnose(make_snapshot(orphan=65600, **({"host": "log1.example.org"} | facts)), (event,), ())


@pytest.mark.parametrize("provenance", ["claimed", "kernel"])
def test_of_a_line_of_another_host_nothing_of_this_one_is_told(provenance: Provenance) -> None:
    diagnosis = diagnose_line_of("db7", provenance)
    said = diagnosis_text(diagnosis)
    assert "orphans" == diagnosis.cause
    assert "Nothing was measured on db7." in diagnosis.summary
    assert diagnosis.mechanism == Mechanism()
    assert () == diagnosis.holders
    assert [] == [number for number in ("65,600", "65600", "65,536", "5.10.0", "tcp_max_orphans is") if number in said]
    (step,) = diagnosis.advice
    assert step.sysctl is None
    assert step.action.startswith("On db7, run ")
    assert [] == [command for command in step.commands if not command.endswith("# on db7")]


@pytest.mark.parametrize(
    ("text", "cause"), [("timer", "undetermined"), ("close", "undetermined"), ("tcp_memory", "tcp_memory")]
)
def test_of_a_line_of_another_host_the_text_is_all_there_is(text: str, cause: str) -> None:
    event = msgspec.structs.replace(make_event(text), host="db7")
    assert cause == diagnose(make_snapshot(orphan=65600, host="log1"), (event,), ()).cause


@pytest.mark.parametrize(
    "host", ["log1", "LOG1.example.org", "log1.lan", "localhost", "127.0.0.1", "3f2a9c1be07d", "(none)", None, ""]
)
def test_a_line_of_this_host_under_any_of_its_names_is_measured(host: str | None) -> None:
    diagnosis = diagnose_line_of(host)
    assert 65600 == diagnosis.mechanism.orphan
    assert "host of the line" not in {gap.what for gap in diagnosis.gaps}


def test_the_host_of_a_line_is_a_gap_where_somebody_put_both_together() -> None:
    diagnosis = diagnose_line_of("db7", trigger="command")
    assert 65600 == diagnosis.mechanism.orphan
    assert ["the line is from db7, the numbers are from log1.example.org: they belong together only on one host"] == [
        gap.why for gap in diagnosis.gaps if gap.what == "host of the line"
    ]
    assert 65600 == diagnose_line_of("db7", host=None).mechanism.orphan
    texts = (("orphans", "DB7.lan"), ("tcp_memory", "db7"))
    events = tuple(msgspec.structs.replace(make_event(text), host=host) for text, host in texts)
    gaps = diagnose(make_snapshot(host="log1", trigger="command"), events, ()).gaps
    assert 1 == sum("the line is from db7, the numbers" in gap.why for gap in gaps)


def test_in_an_incident_of_hours_the_gauges_are_those_of_now_and_the_counters_those_of_the_last_minutes() -> None:
    # Thinned, readings are a quarter of an hour apart: what was killed between two was never there at once.
    seconds = [*range(3 * 3600, 3600, -900), *range(3600, 0, -10)]
    history = tuple(make_sample(ago, orphan=900, TCPAbortOnMemory=40_000 - 3 * ago) for ago in seconds)
    history = (make_sample(3 * 3600 + 10, orphan=8190, mem=390_000, TCPAbortOnMemory=0), *history)
    snapshot = make_snapshot(
        orphan=900, max_orphans=8192, kernel="6.1.0-50-amd64", counters={"TCPAbortOnMemory": 40_000}
    )
    diagnosis = diagnose(snapshot, (make_event(), make_event(seconds_ago=3 * 3600)), history)
    [killed] = [each.value for each in diagnosis.findings[0].evidence if "over the event" in each.name]

    assert ("orphans_burst_passed", "certain") == (diagnosis.findings[0].claim, diagnosis.confidence)
    assert (900, None) == (diagnosis.mechanism.orphan, diagnosis.mechanism.penalty_shift)
    assert 1830 == killed
    assert "memory" not in diagnosis.summary


def test_a_line_passed_in_is_known_by_its_type_and_not_by_its_words() -> None:
    words = {"what": "--message 1", "why": "not a kernel message"}
    line, gap = (diagnose(make_snapshot(gaps=(each(**words),)), (), ()) for each in (UnreadLine, Gap))
    assert ["not a kernel message" in each.summary for each in (line, gap)] == [True, False]
    assert msgspec.to_builtins(line.gaps) == msgspec.to_builtins(gap.gaps)


def test_a_reading_that_came_late_is_told_with_its_lag() -> None:
    event, snapshot = make_event(), make_snapshot(orphan=0)
    for seconds, lag in ((2, None), (31, "31 s")):
        late = msgspec.structs.replace(event, at=snapshot.taken_at - timedelta(seconds=seconds), uptime=None)
        diagnosis = diagnose(snapshot, (late,), ())
        assert ("the burst had passed by the reading, 31 s later." in diagnosis.summary) == bool(lag)
        gaps = [gap.why for gap in diagnosis.gaps if gap.what == "the moment of the event"]
        assert [f"the first reading is {lag} later than the line: what ran out may have been freed by then"] * bool(
            lag
        ) == gaps
    assert "later" not in diagnose(snapshot, (late,), (make_sample(29, orphan=0),)).summary
