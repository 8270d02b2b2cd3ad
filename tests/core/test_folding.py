from datetime import datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from agent.core import folding
from agent.core.model import (
    Diagnosis,
    Event,
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

AT = datetime(2026, 11, 22, 15, 5, 39, tzinfo=timezone.utc)
QUIET = timedelta(seconds=300)


def opened(make_decided, **kwargs) -> Incident:
    _, event = make_decided(at=AT, **kwargs)
    diagnosis = Diagnosis(cause="orphans", confidence="likely", summary="s")
    return folding.open_incident(event, AT, Snapshot(taken_at=AT, trigger="event", host="web1"), diagnosis)


def told(incident: Incident, type_: NoticeType = "sockmem.incident.opened", at: datetime = AT) -> Notice:
    return Notice(id="msg", type=type_, at=at, reason="r", channels=("ops",), data=incident)


def test_the_id_sorts_by_time_and_can_be_typed_and_comes_from_the_first_record():
    first = folding.incident_id(AT, "line")

    assert first.startswith("20261122T150539Z-")
    assert len(first) == len("20261122T150539Z-7f3a")
    assert first == folding.incident_id(AT, "line")
    assert first != folding.incident_id(AT, "line", attempt=1)


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

    assert not folding.is_another(incident, AT + QUIET, QUIET)
    assert folding.is_another(incident, AT + QUIET + timedelta(seconds=1), QUIET)


def test_closing_is_dated_by_the_log_but_never_into_the_future(make_decided):
    incident = opened(make_decided)

    assert AT + QUIET == folding.close(incident, AT + timedelta(hours=5), QUIET).closed_at
    assert folding.close(incident, AT + timedelta(seconds=10), QUIET).closed_at == AT + timedelta(seconds=10)


def test_one_kernel_record_makes_the_incident_the_kernels(make_decided):
    incident = opened(make_decided, provenance="claimed")
    _, event = make_decided(provenance="kernel")

    assert "claimed" == incident.provenance
    assert "kernel" == folding.fold(incident, event, AT).provenance


def test_peaks_rise_and_never_fall():
    peak = Peak()
    for orphan, mem in ((5, 100), (9, 50), (7, None)):
        peak = folding.raise_peak(peak, Sample(at=AT, orphan=orphan, mem=mem))

    assert (9, 100) == (peak.orphan, peak.mem)


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
