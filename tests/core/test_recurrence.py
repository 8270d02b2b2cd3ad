from datetime import datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from material import GIB, make_incident, make_notice, make_sample, make_snapshot
from msgspec.structs import replace

from agent.core import model
from agent.core.diagnosis.diagnose import diagnose
from agent.core.folding import open_pressure
from agent.core.model import (
    Diagnosis,
    Evidence,
    Finding,
    Holder,
    Incident,
    Mechanism,
    Pressure,
    Recurrence,
    Witness,
    WitnessedBy,
)
from agent.core.recurrence import is_news, kind_of, numbered, recurrence_text
from agent.core.report import notice_text, title

OPENED_AT = datetime(2026, 11, 22, 15, 5, 39, tzinfo=timezone.utc)
DAY = timedelta(days=1)


def make_kind(
    unit: str | None = "nginx.service",
    *,
    days: float = 0,
    cause: Any = "orphans",
    claim: str = "orphans_at_limit",
    evidence: tuple[Evidence, ...] = (),
    holder: dict[str, Any] | None = None,
    **others: Any,
) -> Incident:
    held = (Holder(sockets=900, orphans=900, bytes=GIB, **(holder or {"unit": unit})),) if unit else ()
    diagnosis = Diagnosis(
        cause=cause,
        confidence="certain",
        summary="The limit was reached.",
        mechanism=Mechanism(orphan=1000, tcp_max_orphans=1000),
        findings=(Finding(claim=claim, cause=cause, confidence="certain", evidence=evidence),),
        holders=held,
    )
    at = OPENED_AT + days * DAY
    facts = {
        "id": f"{at:%Y%m%dT%H%M%SZ}-7f3a",
        "opened_at": at,
        "last_seen_at": at,
        "cause": cause,
        "confidence": "certain",
        "diagnosis": diagnosis,
    }
    return make_incident(**(facts | others))


def make_numbered(count: int, *, since_days: float, gap_days: float, **others: Any) -> Incident:
    recurrence = Recurrence(count=count, since=OPENED_AT - since_days * DAY, previous_at=OPENED_AT - gap_days * DAY)
    return make_kind(recurrence=recurrence, **others)


# --- what makes a kind ----------------------------------------------------------------------------------------------


def test_numbers_times_and_what_changes_in_a_name_make_no_other_kind() -> None:
    one = make_kind(holder={"unit": "run-812.scope", "ports": (443,)})
    other = make_kind(days=3, holder={"unit": "run-9.scope", "ports": (80,)}, host="web1.example.org", boot_id=None)
    other = replace(other, diagnosis=replace(other.diagnosis, mechanism=Mechanism(orphan=70, tcp_max_orphans=64)))

    assert ("orphans", "limit", "run-*.scope") == kind_of(one)
    assert kind_of(one).signature == kind_of(other).signature
    assert 12 == len(kind_of(one).signature)


def test_cause_mechanism_and_holder_each_make_another_kind() -> None:
    full = (Evidence(name="full cgroup", value="docker 3f2a9c1be07d", source="memory.current"),)
    pressure = Pressure(level=2, cause="orphans", claim="many orphans", value=1, limit=2)
    kinds = [
        kind_of(each)
        for each in (
            make_kind(),
            make_kind(None),
            make_kind("haproxy.service"),
            make_kind(claim="orphans_penalised"),
            make_kind(cause="tcp_memory", claim="memory_at_limit"),
            make_kind(cause="tcp_memory", claim="cgroup_limit", evidence=full),
            make_kind(cause="tcp_memory", claim="cgroup_limit"),
            make_kind(provenance="claimed", confidence="possible"),
            make_kind(class_="pressure", pressure=pressure),
            make_kind(class_="pressure", pressure=replace(pressure, cause="tcp_memory")),
            make_kind(class_="pressure", pressure=pressure, claim="memory_short_between_readings"),
            make_kind(class_="pressure", pressure=pressure, claim="living_sockets_refused", days=1),
        )
    ]

    assert [
        ("orphans", "limit", "nginx.service"),
        ("orphans", "limit", None),
        ("orphans", "limit", "haproxy.service"),
        ("orphans", "penalized", "nginx.service"),
        ("tcp_memory", "limit", "nginx.service"),
        ("tcp_memory", "group", "docker *"),
        ("tcp_memory", "group", None),
        ("orphans", "claimed", "nginx.service"),
        ("orphans", "warning", "nginx.service"),
        ("tcp_memory", "warning", None),
        *[("orphans", "starvation", "nginx.service")] * 2,
    ] == kinds
    assert len(kinds) - 1 == len({kind.signature for kind in kinds})


def test_without_a_main_holder_it_is_whose_sockets_were_killed() -> None:
    killed = Witness(kills=100, unseen=0, by=(WitnessedBy(unit="nginx@1.service", kills=90), WitnessedBy(kills=10)))
    seen = {"since_days": 3, "gap_days": 3, "witness": killed}

    assert "nginx@*.service" == kind_of(make_kind(None, witness=killed)).holder
    assert "haproxy.service" == kind_of(make_kind("haproxy.service", witness=killed)).holder
    assert "2nd since 19 Nov, nginx@*.service" == recurrence_text(make_numbered(2, unit=None, **seen))


@pytest.mark.parametrize("claim", ["orphans_at_limit", "orphans_burst_passed", "orphans_named_by_text"])
def test_whether_a_reading_saw_the_burst_makes_no_other_kind(claim: str) -> None:
    assert "limit" == kind_of(make_kind(claim=claim)).mechanism


def test_real_diagnoses_tell_limit_penalty_and_starvation_apart() -> None:
    at_limit = make_incident(make_snapshot(orphan=65600))
    penalized = make_incident(make_snapshot(orphan=33000))
    short = make_snapshot(mem=380_000, counters={"TCPAbortOnMemory": 37, "TCPRcvQDrop": 900})
    history = (make_sample(10, TCPAbortOnMemory=37, TCPRcvQDrop=0),)
    warning = Pressure(level=3, cause="tcp_memory", claim="TCP memory is at its limit", value=380_000, limit=361_864)
    starving = open_pressure(warning, OPENED_AT, short, diagnose(short, (), history))

    assert "limit" == kind_of(at_limit).mechanism
    assert "penalized" == kind_of(penalized).mechanism
    assert "starvation" == kind_of(starving).mechanism
    assert "warning" == kind_of(replace(starving, diagnosis=diagnose(make_snapshot(mem=380_000), (), ()))).mechanism


# --- how many there are ---------------------------------------------------------------------------------------------


def test_incidents_of_a_kind_are_numbered_by_host_in_the_order_they_began() -> None:
    first, haproxy = make_kind(), make_kind("haproxy.service", days=0.5)
    elsewhere = [
        make_kind(days=0.7, host="web-7", read_on="log1"),
        make_kind(days=0.9, host="WEB-7.local", read_on="log1"),
        make_kind(days=0.95, host="web-7.example.org", read_on="log1"),  # There may be one in each domain.
    ]

    found = [each.recurrence for each in numbered([first, haproxy, *elsewhere, make_kind(days=1), make_kind(days=2)])]

    assert [1, 1, 1, 2, 1, 2, 3] == [each and each.count for each in found]
    assert Recurrence(count=3, since=OPENED_AT, previous_at=OPENED_AT + DAY) == found[-1]
    assert Recurrence(count=1, since=OPENED_AT) == found[0]


def test_incidents_stored_before_there_were_signatures_are_numbered_by_their_diagnosis() -> None:
    old = msgspec.to_builtins(make_kind())
    del old["signature"], old["recurrence"]
    found = [
        model.INCIDENT.decode(msgspec.json.encode(old)),
        make_kind(days=1, signature=kind_of(make_kind()).signature),
    ]

    assert [1, 2] == [each.recurrence and each.recurrence.count for each in numbered(found)]
    assert 1 == len({each.signature for each in numbered(found)})


def test_the_number_an_incident_was_stored_with_stays_when_older_ones_are_gone() -> None:
    ninth = make_numbered(9, since_days=8, gap_days=1)

    assert [9] == [each.recurrence and each.recurrence.count for each in numbered([ninth])]


# --- in words -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "since_days", "gap_days", "words"),
    [
        (1, 0, 0, "first of its kind on record"),
        (2, 3, 3, "2nd since 19 Nov, same unit"),
        (3, 49, 36, "back after 5 weeks (3rd since 4 Oct, same unit)"),
        (2, 14, 14, "back after 2 weeks (2nd since 8 Nov, same unit)"),
        (9, 8, 1, "9th since 14 Nov, same unit: daily"),
        (9, 8, 8, "9th since 14 Nov, same unit"),
        (4, 21, 7, "4th since 1 Nov, same unit: weekly"),
        (21, 20 / 24, 1 / 24, "21st since 21 Nov, same unit: hourly"),
        (12, 300, 1, "12th since 26 Jan, same unit"),
        (1113, 360, 1, "1,113th since 27 Nov 2025, same unit"),
        (22, 340, 13, "22nd since 17 Dec 2025, same unit"),
    ],
)
def test_recurrence_in_words(count: int, since_days: float, gap_days: float, words: str) -> None:
    if count == 1:
        incident = make_kind(recurrence=Recurrence(count=1, since=OPENED_AT))
    else:
        incident = make_numbered(count, since_days=since_days, gap_days=gap_days)

    assert words == recurrence_text(incident)
    assert words.startswith(("first", "back")) == is_news(incident)


@pytest.mark.parametrize(
    ("holder", "words"),
    [
        ({"unit": "nginx.service"}, ", same unit"),
        ({"unit": "backup@nas-2.service"}, ", backup@*.service"),
        ({"unit": "run-12.scope"}, ", run-*.scope"),
        ({"unit": "cgroup 4711 (removed)"}, ", cgroup *"),
        ({"container": "pod kube-system/kube-proxy"}, ", same pod"),
        ({"container": "pod shop/web-6d4cf56db6-x7k2p"}, ", pod shop/web-*"),
        ({"container": "lxc web-2"}, ", same container"),
        ({"container": "docker 3f2a9c1be07d", "process": "nginx (pid 12)"}, ", docker * (nginx)"),
        ({"process": "nginx (pid 12)"}, ", same program"),
    ],
)
def test_what_is_the_same_goes_by_what_is_known_of_the_holder(holder: dict[str, str], words: str) -> None:
    assert f"2nd since 19 Nov{words}" == recurrence_text(make_numbered(2, since_days=3, gap_days=3, holder=holder))
    assert "2nd since 19 Nov" == recurrence_text(make_numbered(2, since_days=3, gap_days=3, unit=None))


def test_the_date_is_that_of_the_zone_in_which_times_are_shown() -> None:
    incident = make_numbered(9, since_days=8, gap_days=8)
    year_ago = make_numbered(9, since_days=325.5, gap_days=1)

    east = timezone(timedelta(hours=9))
    assert ["9th since 14 Nov, same unit", "9th since 15 Nov, same unit"] == [
        recurrence_text(incident, zone) for zone in (timezone.utc, east)
    ]
    assert ["9th since 31 Dec 2025, same unit", "9th since 1 Jan, same unit"] == [
        recurrence_text(year_ago, zone) for zone in (timezone(timedelta(hours=-4)), east)
    ]


def test_a_group_at_its_own_limit_is_the_same_group() -> None:
    full = (Evidence(name="full cgroup", value="nginx.service", source="memory.current"),)
    incident = make_numbered(2, since_days=3, gap_days=3, cause="tcp_memory", claim="cgroup_limit", evidence=full)

    assert "2nd since 19 Nov, same group" == recurrence_text(incident)


def test_nothing_is_said_of_what_is_not_known() -> None:
    incident = make_kind()

    assert recurrence_text(incident) is None
    assert not is_news(incident)
    assert "recurrence" not in notice_text(make_notice(incident))


def test_title_and_text_of_a_notice_say_it() -> None:
    first = make_kind(recurrence=Recurrence(count=1, since=OPENED_AT))
    daily = make_numbered(9, since_days=8, gap_days=1)
    over = replace(daily, last_seen_at=OPENED_AT + timedelta(minutes=5), closed_at=OPENED_AT + timedelta(minutes=10))

    assert title(make_notice(first)).endswith("(first of its kind)")
    assert title(make_notice(daily, "sockmem.incident.updated")).endswith("(update, 9th since 14 Nov)")
    assert title(make_notice(over, "sockmem.incident.resolved")).endswith("(resolved after 5 min, 9th since 14 Nov)")
    assert "recurrence  9th since 14 Nov, same unit: daily\n" in notice_text(make_notice(daily))
    assert "recurrence  9th since 14 Nov, same unit: daily\n" in notice_text(
        make_notice(over, "sockmem.incident.resolved")
    )
