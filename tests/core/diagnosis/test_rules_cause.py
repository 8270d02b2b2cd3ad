import msgspec
import pytest
from material import GIB, make_event, make_sample, make_snapshot

from agent.core.diagnosis.rules_cause import apply_rules
from agent.core.facts import gather_facts
from agent.core.history.look_back import look_back
from agent.core.model import Event, Finding, Provenance, Sample, Snapshot


def findings_of(
    snapshot: Snapshot, *events: Event, history: tuple[Sample, ...] = ()
) -> tuple[list[str], tuple[Finding, ...]]:
    facts = gather_facts(snapshot, events, history)
    findings = (*apply_rules(facts), *look_back(facts).findings)
    return [finding.claim for finding in findings], findings


def test_orphans_at_limit_is_silent_far_below_a_quarter() -> None:
    assert "orphans_at_limit" not in findings_of(make_snapshot(orphan=200), make_event())[0]


@pytest.mark.parametrize("text", ["orphans", "tcp_memory"])
def test_a_named_cause_stands_before_a_gauge_of_the_other(text: str) -> None:
    _, findings = findings_of(make_snapshot(orphan=65600, mem=390000), make_event(text))
    assert text == findings[0].cause
    assert "possible" == next(finding for finding in findings if finding.cause not in (text, "none")).confidence


@pytest.mark.parametrize(("provenance", "expected"), [("kernel", "certain"), ("claimed", "likely")])
def test_only_the_kernels_own_line_makes_certain(provenance: Provenance, expected: str) -> None:
    _, findings = findings_of(make_snapshot(orphan=65600), make_event("orphans", provenance))
    assert expected == findings[0].confidence


def test_the_words_of_the_line_tell_the_era_before_the_kernel_does() -> None:
    new_words = findings_of(make_snapshot(kernel="2.6.32-5-amd64"), make_event("orphans"))[1][0]
    old_words = findings_of(make_snapshot(kernel="6.1.0-1-amd64"), make_event("close"))[1][0]
    unknown = findings_of(make_snapshot(kernel=None), make_event("orphans"))[1][0]
    assert ["orphans", "undetermined", "orphans"] == [new_words.cause, old_words.cause, unknown.cause]


def test_the_kernel_tells_the_era_where_the_line_was_cut() -> None:
    cut = msgspec.structs.replace(make_event("orphans"), line="...")
    old, new = make_snapshot(kernel="2.6.32-5-amd64"), make_snapshot()
    assert ["undetermined", "orphans"] == [findings_of(old, cut)[1][0].cause, findings_of(new, cut)[1][0].cause]


def test_old_timer_text_and_penalised_orphans_at_full_memory_is_both() -> None:
    assert "both_limits_hit" == findings_of(make_snapshot(orphan=40000, mem=379000), make_event("timer"))[0][0]


def test_old_text_and_pressure_over_the_event_points_at_memory() -> None:
    snapshot = make_snapshot(counters={"TCPMemoryPressures": 4, "TCPAbortOnMemory": 1})
    history = (make_sample(10, TCPMemoryPressures=3, TCPAbortOnMemory=0),)
    claims, findings = findings_of(snapshot, make_event("timer"), history=history)
    assert ("memory_pressed_meanwhile", "possible") == (claims[0], findings[0].confidence)


def test_old_text_without_tcp_mem_points_at_memory_under_pressure() -> None:
    snapshot = make_snapshot(tcp_mem=None, press=True, kernel="2.6.32-5-amd64")
    assert "memory_left_over" == findings_of(snapshot, make_event("timer"))[0][0]


def test_old_text_without_tcp_mem_points_at_memory_when_much_of_ram_is_in_it() -> None:
    snapshot = make_snapshot(tcp_mem=None, press=None, mem=500000, kernel="2.6.32-5-amd64", ram=4 * GIB)
    assert "memory_left_over" == findings_of(snapshot, make_event("timer"))[0][0]


def test_few_orphans_of_an_unknown_limit_decide_nothing() -> None:
    assert "cause_undecided" == findings_of(make_snapshot(orphan=900, max_orphans=None), make_event("timer"))[0][0]


def test_a_cgroup_is_blamed_on_kernels_that_test_it_alone() -> None:
    old = make_snapshot(kernel="3.10.0-1160.el7.x86_64", kmem_tcp_failcnt=9)
    new = make_snapshot(kernel="4.9.0-1-amd64", kmem_tcp_failcnt=9)
    event = make_event("tcp_memory")
    assert ["cgroup_limit", "memory_burst_passed"] == [findings_of(old, event)[0][0], findings_of(new, event)[0][0]]


def test_memory_that_is_full_is_not_blamed_on_a_cgroup() -> None:
    snapshot = make_snapshot(mem=390000, kernel="3.10.0-1160.el7.x86_64", kmem_tcp_failcnt=9)
    assert ["memory_over_limit"] == findings_of(snapshot, make_event("tcp_memory"))[0]


def test_both_texts_are_as_sure_as_the_less_sure_of_them() -> None:
    events = (make_event("orphans"), make_event("tcp_memory", "claimed"))
    _, findings = findings_of(make_snapshot(orphan=65600, mem=390000), *events)
    assert ("both", "likely") == (findings[0].cause, findings[0].confidence)


def test_gauges_over_a_limit_warn_without_an_event() -> None:
    _, findings = findings_of(make_snapshot(mem=390000))
    assert ("tcp_memory", "likely") == (findings[0].cause, findings[0].confidence)


def test_a_calm_host_is_certain_only_when_everything_was_read() -> None:
    read = (make_snapshot(), make_snapshot(press=None), make_snapshot(max_orphans=None), make_snapshot(mem=None))
    confidences = [findings_of(snapshot)[1][0].confidence for snapshot in read]
    assert ["certain", "likely", "possible", "possible"] == confidences


def test_a_claim_is_contradicted_by_a_counter_that_was_never_moved() -> None:
    claims, findings = findings_of(make_snapshot(counters={"TCPAbortOnMemory": 0}), make_event("orphans", "claimed"))
    assert ("possible", "counters_contradict") == (findings[0].confidence, claims[-1])


def test_gauges_at_the_limit_outweigh_a_counter_that_stood_still() -> None:
    snapshot = make_snapshot(orphan=65600, counters={"TCPAbortOnMemory": 0})
    assert "likely" == findings_of(snapshot, make_event("orphans", "claimed"))[1][0].confidence


def test_evidence_shows_the_peak_the_reading_and_the_limit_that_counts() -> None:
    _, findings = findings_of(make_snapshot(orphan=40), make_event(), history=(make_sample(2, orphan=40000),))
    shown = {each.name: (each.value, each.limit) for each in findings[0].evidence}
    assert ((40000, 32768), (40, 32768)) == (shown["orphan at peak"], shown["orphan"])


def test_orphans_fill_memory_needs_orphans_to_be_most_of_the_sockets() -> None:
    few = make_snapshot(orphan=40000, alloc=90000, mem=390000)
    most = make_snapshot(orphan=40000, alloc=70000, mem=390000)
    both = (make_event("orphans"), make_event("tcp_memory"))
    assert [False, True] == ["orphans_fill_memory" in findings_of(each, *both)[0] for each in (few, most)]


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        ((make_sample(30, mem=1000),), ["memory_rose_at_once"]),
        (
            (make_sample(3600, mem=1000), make_sample(900, mem=150000), make_sample(10, mem=389000)),
            ["memory_rose_slowly"],
        ),
        ((make_sample(300, mem=1000), make_sample(200, mem=250000)), ["memory_rose_within_minutes"]),
        ((), []),
    ],
)
def test_how_fast_memory_rose_tells_a_burst_from_a_leak(history: tuple[Sample, ...], expected: list[str]) -> None:
    claims = findings_of(make_snapshot(mem=390000), make_event("tcp_memory"), history=history)[0]
    assert expected == [claim for claim in claims if "rose" in claim]


def test_of_a_long_incident_the_killed_of_its_last_ten_minutes_count() -> None:
    bursts = {3010: 0, 2990: 9000, 620: 9000, 10: 9200}
    history = tuple(make_sample(ago, TCPAbortOnMemory=killed) for ago, killed in bursts.items())
    snapshot = make_snapshot(orphan=65600, counters={"TCPAbortOnMemory": 9310})
    assert 310 == gather_facts(snapshot, (make_event(), make_event(seconds_ago=3000)), history).kills
