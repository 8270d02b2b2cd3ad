from datetime import datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from agent.core import folding
from agent.core.cursor import Cursor, Resume
from agent.core.model import (
    KINDS,
    Diagnosis,
    Event,
    Evidence,
    Finding,
    Holder,
    Incident,
    LogRecord,
    Notice,
    NoticeType,
    Peak,
    Pressure,
    Sample,
    Snapshot,
    Witness,
    WitnessedBy,
)
from agent.core.sockets.holder_names import LOSES

AT = datetime(2026, 11, 22, 15, 5, 39, tzinfo=timezone.utc)
QUIET = timedelta(seconds=300)


def opened(make_decided, **kwargs) -> Incident:
    _, event = make_decided(at=AT, **kwargs)
    diagnosis = Diagnosis(cause="orphans", confidence="likely", summary="s")
    return folding.open_incident(event, AT, Snapshot(taken_at=AT, trigger="event", host="web1"), diagnosis)


def told(incident: Incident, type_: NoticeType = "sockmem.incident.opened", at: datetime = AT) -> Notice:
    return Notice(id="msg", type=type_, at=at, reason="r", channels=("ops",), data=incident)


def warned(level: int = 2, claim: str = "orphans are rising", at: datetime = AT) -> Incident:
    """Return an incident that the gauges opened."""
    snapshot = Snapshot(taken_at=at, trigger="pressure", host="web1")
    diagnosis = Diagnosis(cause="orphans", confidence="likely", summary="s")
    return folding.open_pressure(pressure(level, claim), at, snapshot, diagnosis)


def pressure(level: int, claim: str = "c") -> Pressure:
    return Pressure(level=level, cause="orphans", claim=claim, value=1, limit=1)


def test_the_line_of_another_host_opens_an_incident_of_that_host_that_says_where_it_was_read(make_decided):
    _, event = make_decided(at=AT)
    diagnosis = Diagnosis(cause="orphans", confidence="likely", summary="s")
    snapshot = Snapshot(taken_at=AT, trigger="event", host="log1", kernel="6.1.0", boot_id="b")

    def open_of(host):
        return folding.open_incident(replace(event, host=host), AT, snapshot, diagnosis)

    assert ("db7", "log1") == (open_of("db7").host, open_of("db7").read_on)
    assert ("log1", None) == (open_of(None).host, open_of(None).read_on)
    assert ("log1.example.org", None) == (open_of("log1.example.org").host, open_of("log1.example.org").read_on)
    own = open_of("log1")
    assert (own.first_event, own.last_of_kind) == (replace(event, host="log1"), (replace(event, host="log1"),))
    assert ("6.1.0", "b", "s", "likely") == (own.kernel, own.boot_id, own.summary, own.confidence)


def test_what_the_gauges_or_the_trace_opened_is_known_as_that_and_is_the_kernels(make_decided):
    snapshot = Snapshot(taken_at=AT, trigger="event", host="web1")
    killed = folding.open_killed(AT, snapshot, Diagnosis(cause="orphans", confidence="likely", summary="s"))

    assert ("pressure", "kernel", pressure(2, "orphans are rising"), {}) == (
        warned().class_,
        warned().provenance,
        warned().pressure,
        warned().events,
    )
    assert ("event", "kernel", None) == (killed.class_, killed.provenance, killed.first_event)
    assert dict.fromkeys(KINDS, 0) == killed.events


def test_the_worst_that_the_gauges_warned_of_is_kept_and_they_keep_the_incident_from_closing():
    later = AT + timedelta(seconds=60)
    worse, same, better = (folding.note_pressure(warned(2), pressure(level), later) for level in (3, 2, 1))

    assert pressure(3) == worse.pressure
    assert pressure(2, "orphans are rising") == same.pressure == better.pressure
    assert later == better.last_seen_at
    assert AT == folding.note_pressure(warned(2), pressure(1), AT - timedelta(seconds=60)).last_seen_at


def test_gauges_that_are_high_are_noted_in_an_incident_of_lines(make_decided):
    assert pressure(1) == folding.note_pressure(opened(make_decided), pressure(1), AT).pressure


def test_kills_in_the_trace_prove_a_warning_and_what_a_text_log_claims(make_decided):
    later = AT + timedelta(seconds=60)
    proven = folding.note_kills(warned(), later)
    claimed = folding.note_kills(opened(make_decided, provenance="claimed"), AT - timedelta(seconds=60))

    assert ("event", "kernel", later) == (proven.class_, proven.provenance, proven.last_seen_at)
    assert dict.fromkeys(KINDS, 0) == proven.events
    assert ("event", "kernel", AT) == (claimed.class_, claimed.provenance, claimed.last_seen_at)
    assert {"too_many_orphans": 1} == claimed.events


def test_a_line_makes_a_warning_the_kernels_own_incident_and_a_suppressed_one_does_not(make_decided):
    _, line = make_decided(at=AT, provenance="claimed")
    _, suppressed = make_decided("suppressed", at=AT, suppressed=3)

    lined = folding.fold(warned(), line, AT)
    assert ("event", line, "claimed") == (lined.class_, lined.first_event, lined.provenance)
    silent = folding.fold(warned(), suppressed, AT)
    assert ("pressure", None) == (silent.class_, silent.first_event)
    assert "kernel" == folding.fold(lined, suppressed, AT).provenance
    assert line == folding.fold(lined, replace(line, count=7), AT).first_event


def test_what_was_suppressed_is_of_the_lines_before_it_in_the_burst_and_else_of_any_message(make_decided):
    incident = opened(make_decided)
    _, suppressed = make_decided("suppressed", suppressed=10, count=2)

    def after(seconds, *, leading=False):
        return folding.fold(incident, suppressed, AT + timedelta(seconds=seconds), leading=leading)

    near = after(folding.BURST.total_seconds())
    assert ({"too_many_orphans": 20}, 20) == (near.suppressed, near.suppressed_at_least)
    assert {"too_many_orphans": 40} == folding.fold(near, suppressed, AT).suppressed
    far = after(folding.BURST.total_seconds() + 1)
    assert ({"suppressed": 20}, 0) == (far.suppressed, far.suppressed_at_least)
    assert {"suppressed": 20} == after(0, leading=True).suppressed
    undated = replace(incident, last_of_kind=(replace(incident.first_event, at=None),))
    assert {"too_many_orphans": 20} == folding.fold(undated, suppressed, AT + timedelta(hours=1)).suppressed
    assert {"suppressed": 20} == folding.fold(warned(), suppressed, AT).suppressed


def test_what_was_suppressed_counts_with_the_messages_and_the_line_that_says_so_does_not(make_decided):
    incident = replace(opened(make_decided), events={"too_many_orphans": 3, "suppressed": 7}, suppressed_at_least=20)

    assert 23 == folding.events_total(incident)


def test_a_new_diagnosis_replaces_every_part_of_the_old_one(make_decided):
    new = Diagnosis(cause="tcp_memory", confidence="certain", summary="new")
    incident = folding.with_diagnosis(opened(make_decided), new)

    assert ("tcp_memory", "certain", "new", new) == (
        incident.cause,
        incident.confidence,
        incident.summary,
        incident.diagnosis,
    )


def test_a_diagnosis_rests_on_the_newest_of_each_kind_and_the_first_under_the_incidents_name(make_decided):
    incident = opened(make_decided)
    first = incident.first_event
    _, later = make_decided(at=AT + timedelta(seconds=9), offset=200)

    assert (first,) == folding.events_to_diagnose(incident)
    assert (later, first) == folding.events_to_diagnose(folding.fold(incident, later, AT))
    assert () == folding.events_to_diagnose(warned())
    elsewhere = replace(incident, host="db7.example.org", read_on="log1")
    assert ["db7.example.org"] == [event.host for event in folding.events_to_diagnose(elsewhere)]


def test_a_notice_is_numbered_and_has_itself_in_it_and_no_position(make_decided):
    other = opened(make_decided)
    cursor = Resume(generation=7, cursor=Cursor())
    incident = replace(other, notices=("notice-001.json",), resume=cursor, beside=(other,))
    notice = folding.notice(incident, ("sockmem.incident.updated", "worse"), ("ops",), AT)

    assert (f"msg_{incident.id}_002", "sockmem.incident.updated", "worse") == (notice.id, notice.type, notice.reason)
    assert (AT, ("ops",)) == (notice.at, notice.channels)
    assert replace(other, notices=("notice-001.json", "notice-002.json")) == notice.data


def test_what_only_a_text_log_claims_is_told_by_the_configuration_and_what_the_gauges_warn_of_always(make_decided):
    claimed = opened(make_decided, provenance="claimed")

    claim = "a text log claims that the kernel hit a TCP limit"
    assert ("sockmem.incident.opened", claim) == folding.notify_reason(claimed, None, AT)
    assert folding.notify_reason(claimed, None, AT, "record") is None
    said = "sockmem.incident.opened", "the kernel hit a TCP limit"
    assert said == folding.notify_reason(opened(make_decided), None, AT, "record")
    opening = ("sockmem.incident.opened", "orphans are rising")
    assert opening == folding.notify_reason(warned(), None, AT)
    assert opening == folding.notify_reason(replace(warned(), provenance="claimed"), None, AT, "record")
    both = folding.note_pressure(claimed, pressure(2, "orphans are rising"), AT)
    assert opening == folding.notify_reason(both, None, AT, "record")


def test_the_end_says_what_has_ended(make_decided):
    resets = replace(opened(make_decided), events={}, witness=Witness(kills=3))
    lines = replace(resets, events={"too_many_orphans": 2})

    for incident, expected in ((resets, "no further resets"), (lines, "no further messages")):
        closed = folding.close(incident, AT + QUIET, QUIET)
        assert ("sockmem.incident.resolved", expected) == folding.notify_reason(closed, told(incident), AT)
    silent = folding.close(replace(resets, witness=None), AT + QUIET, QUIET)
    assert "no further messages" == folding.notify_reason(silent, told(resets), AT)[1]


def test_a_warning_that_gets_worse_is_told_and_one_that_stays_or_gets_better_is_not():
    for level, expected in ((3, ("sockmem.incident.updated", "at the limit")), (2, None), (1, None)):
        now = replace(warned(2), pressure=pressure(level, "at the limit"))
        assert expected == folding.notify_reason(now, told(warned(2)), AT)


def test_a_warning_that_the_kernel_or_a_text_log_bears_out_is_told_at_once_and_says_who_does(make_decided):
    _, kernel = make_decided(at=AT)
    _, text = make_decided(at=AT, provenance="claimed")
    claimed = opened(make_decided, provenance="claimed")
    expected = (
        (warned(), folding.fold(warned(), kernel, AT), "the kernel has confirmed the warning"),
        (warned(), folding.fold(warned(), text, AT), "a text log claims what the gauges warned of"),
        (claimed, folding.fold(claimed, kernel, AT), "confirmed by the kernel's own message"),
        (claimed, folding.note_kills(claimed, AT), "confirmed by the kernel's own trace"),
    )

    for before, after, reason in expected:
        last = told(before, "sockmem.incident.updated")
        assert ("sockmem.incident.updated", reason) == folding.notify_reason(after, last, AT)
        assert folding.notify_reason(before, last, AT) is None
        assert folding.notify_reason(after, told(after, "sockmem.incident.updated"), AT) is None


def test_a_cause_that_may_go_to_and_fro_waits_a_quarter_of_an_hour_and_both_do_not(make_decided):
    incident = opened(make_decided)
    last = told(incident, "sockmem.incident.updated")
    other, both = (
        folding.with_diagnosis(incident, Diagnosis(cause=cause, confidence="likely", summary="s"))
        for cause in ("tcp_memory", "both")
    )

    assert folding.notify_reason(other, last, AT + timedelta(minutes=14, seconds=59)) is None
    reason = "the cause is now TCP memory (was orphans)"
    assert reason == folding.notify_reason(other, last, AT + timedelta(minutes=15))[1]
    assert reason == folding.notify_reason(other, told(incident), AT)[1]
    assert "the cause is now orphans and TCP memory (was orphans)" == folding.notify_reason(both, last, AT)[1]


def test_what_the_gauges_warn_of_is_news_behind_unconfirmed_claims_and_not_behind_the_kernels_lines(make_decided):
    claimed = opened(make_decided, provenance="claimed")
    doubtful = replace(claimed, confidence="possible")
    for before, expected in ((doubtful, "orphans are rising"), (opened(make_decided), None)):
        after = folding.note_pressure(before, pressure(2, "orphans are rising"), AT)
        reason = folding.notify_reason(after, told(before), AT)
        assert expected == (reason and reason[1])


def test_who_loses_data_is_told_once_and_only_of_a_warning(make_decided):
    loses = Evidence(name=LOSES, value="shop.service", source="ss")
    finding = Finding(claim="sockets_lose_data", cause="tcp_memory", confidence="likely", evidence=(loses,))
    before = warned()
    after = folding.with_diagnosis(before, replace(before.diagnosis, findings=(finding,)))

    assert "data is being lost by shop.service" == folding.notify_reason(after, told(before), AT)[1]
    assert folding.notify_reason(after, told(after), AT) is None
    lines = folding.with_diagnosis(opened(make_decided), after.diagnosis)
    assert folding.notify_reason(lines, told(opened(make_decided)), AT) is None


def test_ten_times_the_resets_are_told_where_no_message_tells_of_them(make_decided):
    def reason(now, before):
        minute = AT + timedelta(minutes=1)
        found = folding.notify_reason(*(now, told(before), minute))
        return found and found[1]

    silent = replace(opened(make_decided), events={})
    none, one, nine, ten, unknown = (replace(silent, witness=Witness(kills=kills)) for kills in (0, 1, 9, 10, None))
    assert "10 resets so far, 1 at the last notification" == reason(ten, one)
    assert "10 resets so far, 0 at the last notification" == reason(ten, none)
    assert "10 resets so far, 0 at the last notification" == reason(ten, unknown)
    assert [None] * 4 == [reason(nine, one), reason(nine, none), reason(ten, nine), reason(none, none)]
    logged = replace(ten, events={"too_many_orphans": 10})
    assert "10 kernel messages so far, 0 at the last notification" == reason(logged, ten)


def test_the_id_sorts_by_time_and_can_be_typed_and_comes_from_the_first_record():
    first = folding.incident_id(AT, "line")

    assert first.startswith("20261122T150539Z-")
    assert len(first) == len("20261122T150539Z-7f3a")
    assert first == folding.incident_id(AT, "line")
    assert first != folding.incident_id(AT, "line", attempt=1)


def test_an_upgrade_changes_no_id_or_the_replay_of_a_record_would_open_it_again():
    assert "20261122T150539Z-b134" == folding.incident_id(AT, "line")


def test_folding_counts_by_kind_and_keeps_the_last_of_each(make_decided):
    incident = opened(make_decided)
    later = AT + timedelta(seconds=9)
    _, orphans = make_decided(at=later, count=3)
    _, memory = make_decided("tcp_mem", at=later)
    _, suppressed = make_decided("suppressed", at=later, suppressed=273)
    for event in (orphans, memory, suppressed):
        incident = folding.fold(incident, event, later)

    assert {"too_many_orphans": 4, "tcp_mem": 1, "suppressed": 1} == incident.events
    assert 273 == incident.suppressed_at_least
    assert incident.last_seen_at == later
    assert incident.last_of_kind[0] == orphans
    assert ["too_many_orphans", "tcp_mem", "suppressed"] == [e.kind for e in incident.last_of_kind]


def test_time_that_goes_backwards_does_not_move_last_seen(make_decided):
    incident = opened(make_decided)
    _, event = make_decided(at=AT - timedelta(microseconds=1))

    assert AT == folding.fold(incident, event, event.at).last_seen_at


def test_an_event_after_the_quiet_period_is_another_incident(make_decided):
    incident = opened(make_decided)

    assert not folding.is_another(incident.last_seen_at, AT + QUIET, QUIET)
    assert folding.is_another(incident.last_seen_at, AT + QUIET + timedelta(seconds=1), QUIET)


def test_closing_is_dated_by_the_log_but_never_into_the_future(make_decided):
    incident = opened(make_decided)

    assert AT + QUIET == folding.close(incident, AT + timedelta(hours=5), QUIET).closed_at
    assert folding.close(incident, AT + timedelta(seconds=10), QUIET).closed_at == AT + timedelta(seconds=10)


def test_one_kernel_record_makes_the_incident_the_kernels(make_decided):
    incident = opened(make_decided, provenance="claimed")
    _, event = make_decided(provenance="kernel")

    assert "claimed" == incident.provenance
    assert "kernel" == folding.fold(incident, event, AT).provenance
    assert "kernel" == folding.fold(opened(make_decided), make_decided(provenance="claimed")[1], AT).provenance


def test_peaks_rise_and_never_fall():
    peak = Peak()
    for orphan, mem in ((5, 100), (9, 50), (7, None)):
        peak = folding.raise_peak(peak, Sample(at=AT, orphan=orphan, mem=mem))

    assert (9, 100) == (peak.orphan, peak.mem)


def test_a_peak_is_dated_by_the_first_reading_that_reached_it():
    peak = Peak()
    for second in (0, 5):
        peak = folding.raise_peak(peak, Sample(at=AT + timedelta(seconds=second), orphan=9, mem=100))

    assert (AT, AT) == (peak.orphan_at, peak.mem_at)


def test_people_are_told_when_it_opens_and_when_it_is_over_and_not_between(make_decided):
    incident = opened(make_decided)
    _, event = make_decided()
    more = folding.fold(incident, event, AT)
    closed = folding.close(more, AT + QUIET, QUIET)

    assert "sockmem.incident.opened" == folding.notify_reason(incident, None, AT)[0]
    assert folding.notify_reason(more, told(incident), AT) is None
    assert "sockmem.incident.resolved" == folding.notify_reason(closed, told(incident), AT)[0]
    assert folding.notify_reason(closed, told(closed), AT) is None


def test_people_are_told_of_another_cause(make_decided):
    incident = opened(make_decided)
    worse = folding.with_diagnosis(incident, Diagnosis(cause="both", confidence="likely", summary="s"))

    assert (
        "sockmem.incident.updated",
        "the cause is now orphans and TCP memory (was orphans)",
    ) == folding.notify_reason(worse, told(incident), AT)


def test_people_are_told_of_ten_times_the_events_once_and_then_not_for_fifteen_minutes(make_decided):
    incident = opened(make_decided)
    ten = replace(incident, events={"too_many_orphans": 10})
    hundred = replace(incident, events={"too_many_orphans": 20}, suppressed_at_least=80)
    updated = told(ten, "sockmem.incident.updated")

    assert folding.notify_reason(replace(incident, events={"too_many_orphans": 9}), told(incident), AT) is None
    assert "sockmem.incident.updated" == folding.notify_reason(ten, told(incident), AT + timedelta(minutes=1))[0]
    assert folding.notify_reason(hundred, updated, AT + timedelta(minutes=14)) is None
    assert "sockmem.incident.updated" == folding.notify_reason(hundred, updated, AT - timedelta(days=365))[0]
    assert "sockmem.incident.updated" == folding.notify_reason(hundred, updated, AT + timedelta(minutes=15))[0]


def test_a_mere_count_does_not_ping_again_within_a_minute(make_decided):
    incident = opened(make_decided)
    many = replace(incident, events={"too_many_orphans": 293})

    assert folding.notify_reason(many, told(incident), AT + timedelta(seconds=59)) is None
    assert folding.notify_reason(many, told(incident), AT - timedelta(seconds=59)) is None
    assert folding.notify_reason(many, told(incident), AT + timedelta(seconds=60)) == (
        "sockmem.incident.updated",
        "293 kernel messages so far, 1 at the last notification",
    )


def test_who_holds_most_is_news_behind_whom_most_resets_hit_only_where_it_is_another(make_decided):
    incident = opened(make_decided)
    nginx = Holder(unit="nginx.service", sockets=90, orphans=60, bytes=10)
    known = folding.with_diagnosis(incident, replace(incident.diagnosis, holders=(nginx,)))

    def hit(unit):
        return Witness(kills=20, by=(WitnessedBy(unit=unit, kills=20),))

    same, other = (replace(known, witness=hit(unit)) for unit in ("nginx.service", "shop.service"))
    told_same, told_other = (told(replace(each, diagnosis=incident.diagnosis)) for each in (same, other))
    assert folding.notify_reason(same, told_same, AT) is None
    assert "largest holder identified: nginx.service" == folding.notify_reason(other, told_other, AT)[1]
    assert "most resets hit shop.service" == folding.notify_reason(told_other.data, told(incident), AT)[1]


def test_people_are_told_once_who_holds_most(make_decided):
    incident = opened(make_decided)
    nginx = Holder(unit="nginx.service", sockets=90, orphans=60, bytes=10)
    rest = Holder(sockets=90, orphans=40, bytes=90)
    known = folding.with_diagnosis(incident, replace(incident.diagnosis, holders=(nginx, rest)))

    assert folding.notify_reason(known, told(incident), AT) == (
        "sockmem.incident.updated",
        "largest holder identified: nginx.service",
    )
    assert folding.notify_reason(known, told(known, "sockmem.incident.updated"), AT) is None


def test_nobody_is_blamed_for_the_one_orphan_that_is_left_when_a_burst_is_over(make_decided):
    incident = opened(make_decided)
    ours = Holder(unit="sockmem-agent.service", sockets=1, orphans=1, bytes=832)
    mechanism = replace(incident.diagnosis.mechanism, tcp_max_orphans=64, tcp_mem_bytes=(10 << 20, 20 << 20, 40 << 20))
    left = folding.with_diagnosis(incident, replace(incident.diagnosis, holders=(ours,), mechanism=mechanism))

    assert folding.notify_reason(left, told(incident), AT) is None


def test_nobody_is_blamed_who_holds_less_than_half_or_has_no_name(make_decided):
    incident = opened(make_decided)
    small = Holder(unit="nginx.service", sockets=90, orphans=40, bytes=10)
    rest = Holder(sockets=90, orphans=60, bytes=90)
    unclear = folding.with_diagnosis(incident, replace(incident.diagnosis, holders=(small, rest)))

    assert folding.notify_reason(unclear, told(incident), AT) is None


def test_the_host_is_that_of_the_opening_whatever_later_lines_name(make_decided):
    _, event = make_decided(at=AT)
    pressure = Pressure(level=2, cause="orphans", claim="c", value=1, limit=1)
    snapshot = Snapshot(taken_at=AT, trigger="pressure", host="log1")
    diagnosis = Diagnosis(cause="orphans", confidence="likely", summary="s")
    warned = folding.open_pressure(pressure, AT, snapshot, diagnosis)
    unnamed = replace(opened(make_decided), host=None)

    assert "log1" == folding.fold(warned, replace(event, host="db7"), AT).host
    assert "web1" == folding.fold(opened(make_decided), replace(event, host="db7"), AT).host
    assert None is folding.fold(unnamed, event, AT).host


def incidents_of(decided):
    """Fold as the recorder does: when each opened and ended by the log's clock, and its counts."""
    found = []
    for _, event in decided:
        at = event.at or AT
        if not found or at - found[-1][1] > QUIET:
            found.append([at, at, {}])
        ended, events = found[-1][1:]
        found[-1][1] = max(ended, at)
        events[event.kind] = events.get(event.kind, 0) + event.count
    return found


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["too_many_orphans", "tcp_mem", "suppressed"]),
            st.sampled_from([None, -200, 0, 0, 0, 1, 150, 299, 301]),
            st.integers(1, 3),
        )
    )
)
def test_neighbours_counted_at_once_make_the_same_incidents(said):
    decided, at = [], AT
    for number, (kind, seconds, count) in enumerate(said):
        at += timedelta(seconds=seconds or 0)
        event = Event(
            at=None if seconds is None else at,
            uptime=None,
            host=None,
            kind=kind,
            suppressed=None,
            count=count,
            source=f"log@{number}",
            provenance="claimed",
            line="",
        )
        decided.append((LogRecord(text="", line="", source="", provenance="claimed", ordinal=number), event))
    counted = list(folding.together(decided, QUIET))

    assert incidents_of(decided) == incidents_of(counted)
    assert decided[:1] == counted[:1]
    assert [record for record, _ in decided[-1:]] == [record for record, _ in counted[-1:]]
    assert [e for _, e in decided if e.kind == "suppressed"] == [e for _, e in counted if e.kind == "suppressed"]


def test_a_flood_is_two_events_and_what_differs_stays_apart(make_decided, clock):
    flood = [make_decided(offset=n) for n in range(500)]
    mixed = [make_decided("tcp_mem"), make_decided(), make_decided("tcp_mem", provenance="claimed")]
    late = make_decided(at=clock.time + QUIET + timedelta(seconds=1))

    assert [1, 499] == [event.count for _, event in folding.together(flood, QUIET)]
    assert flood[-1][0] == list(folding.together(flood, QUIET))[-1][0]
    assert mixed == list(folding.together(mixed, QUIET))
    assert [flood[0], late] == list(folding.together([flood[0], late], QUIET))
    inside = make_decided(at=clock.time + QUIET)
    assert [1, 2] == [event.count for _, event in folding.together([flood[0], flood[1], inside], QUIET)]
    again = [*flood[:3], mixed[0], *flood[:3]]
    assert [1, 2, 1, 1, 2] == [event.count for _, event in folding.together(again, QUIET)]
    assert flood[2][0] == list(folding.together(again, QUIET))[1][0]


def test_neighbours_are_counted_at_once_only_where_all_or_none_have_a_time_and_it_does_not_go_back(make_decided, clock):
    record, event = make_decided()
    undated, dated = (record, replace(event, at=None)), (record, event)
    back = make_decided(at=clock.time - timedelta(seconds=1))

    def counts(*decided):
        return [event.count for _, event in folding.together(decided, QUIET)]

    assert [1, 2] == counts(undated, undated, undated)
    assert [1, 1, 1] == counts(dated, undated, dated)
    assert [1, 1, 1] == counts(undated, dated, undated)
    assert [1, 1, 1] == counts(dated, back, dated)
    assert [1, 1, 1] == counts(dated, (record, replace(event, host="db7")), dated)
    assert [1, 1, 1] == counts(*[make_decided("suppressed", suppressed=3)] * 3)
