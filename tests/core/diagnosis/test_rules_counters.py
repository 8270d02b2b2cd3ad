"""Counters of all network namespaces: where they moved, and what it takes to say that they do not confirm a line."""

from typing import Any

import pytest
from material import NGINX, make_event, make_group, make_sample, make_snapshot, tally
from msgspec.structs import replace

from agent.core.diagnosis.diagnose import diagnose
from agent.core.model import Diagnosis, Sample, Witness, WitnessedBy
from agent.core.readings import Elsewhere, Process, SocketTable, Sockstat, TcpSockstat, Unlisted

KILLED = "TCPAbortOnMemory"
DOCKER = "docker 3f2a9c1be07d"


def judge(
    elsewhere: Elsewhere | None, *between: Sample, inuse: int = 400, witness: Witness | None = None, **others: Any
) -> Diagnosis:
    """Diagnose a line of a host of 900 sockets: so many of its own namespace, in which no socket was killed."""
    sockstat = Sockstat(tcp=TcpSockstat(inuse=inuse, orphan=12, tw=20, alloc=900, mem=1200))
    counters = {KILLED: 7}
    snapshot = make_snapshot(counters=counters, sockstat=sockstat, elsewhere=elsewhere, **others)
    before = make_sample(20, **{KILLED: 7})
    return diagnose(snapshot, (make_event("orphans", seconds_ago=15),), (before, *between), witness)


def killed(place: str, count: int, **others: Any) -> Elsewhere:
    facts = {"namespaces": 3, "inuse": 500, "is_whole": True, "counters": {KILLED: count}}
    return Elsewhere(**(facts | {"moved": {place: {KILLED: count}}} | others))


def test_kills_of_another_namespace_confirm_the_line_and_it_is_named() -> None:
    found = judge(killed(DOCKER, 150))
    proof = {each.name: each.value for each in found.findings[0].evidence}

    assert "certain" == found.confidence
    assert (150, 150) == (proof[f"{KILLED} over the event"], proof[f"{KILLED} in {DOCKER}"])
    assert f"150 of the 150 resets hit {DOCKER}." in found.summary
    assert not any("counters" in gap.what for gap in found.gaps)


def test_kills_are_added_up_by_namespace_over_all_readings_since_before_the_line() -> None:
    earlier = replace(make_sample(9, **{KILLED: 107}), moved={"shop.service": {KILLED: 100}})
    last = killed("shop.service", 150, moved={"shop.service": {KILLED: 30}, DOCKER: {KILLED: 20}})
    found = judge(last, earlier)
    places = {each.name: each.value for each in found.findings[0].evidence if " in " in each.name}

    assert {f"{KILLED} in shop.service": 130, f"{KILLED} in {DOCKER}": 20} == places
    assert "130 of the 150 resets hit shop.service." in found.summary


def test_counters_contradict_only_where_all_namespaces_were_read() -> None:
    found = judge(Elsewhere(namespaces=3, inuse=500, is_whole=True))

    assert "counters_contradict" in [each.claim for each in found.findings]
    [why] = [gap.why for gap in found.gaps if gap.what == "confirmation by counters"]
    assert "did not rise in any network namespace" in why


def test_counters_contradict_no_kill_that_the_trace_saw() -> None:
    found = judge(Elsewhere(namespaces=3, inuse=500, is_whole=True), witness=Witness(kills=5, unseen=2))

    assert "counters_contradict" not in [each.claim for each in found.findings]
    gaps = {gap.what: gap.why for gap in found.gaps}
    assert "confirmation by counters" not in gaps
    assert "or the trace was not read all the time" in gaps["owners of killed sockets"]


def test_a_share_of_lost_kills_is_no_exact_number() -> None:
    by = (WitnessedBy(unit="nginx.service", kills=4824, pro_rata=True), WitnessedBy(unit="shop.service", kills=176))
    found = judge(None, witness=Witness(kills=5000, lost=900, by=by))
    assert "5,000 connections, about 4,824 of nginx.service, 176 of shop.service, seen by the trace" in found.summary


@pytest.mark.parametrize(
    ("elsewhere", "inuse", "words"),
    [
        # No process lives in the others, or those that do are hidden.
        (Elsewhere(namespaces=1, inuse=20, is_whole=True), 400, "in 2 network namespaces, but 480 sockets are in"),
        (Elsewhere(namespaces=1, inuse=500), 400, "not every process could be looked at"),
        # A tree, or a container: nothing is known of others, but that they have sockets.
        (
            None,
            400,
            "in this network namespace, but 500 sockets are IPv6 sockets (net/sockstat6 is missing), or in the",
        ),
    ],
)
def test_where_not_all_were_read_it_is_told_how_many_sockets_are_elsewhere(
    elsewhere: Elsewhere | None, inuse: int, words: str
) -> None:
    found = judge(elsewhere, inuse=inuse)

    assert ("orphans", "likely") == (found.cause, found.confidence)
    assert "counters_contradict" not in [each.claim for each in found.findings]
    assert "do not confirm" not in found.summary
    assert any(words in gap.why for gap in found.gaps if gap.what == "confirmation by counters")


def judge_sockets(inuse: int, alloc: int, text: str = "tcp_memory", **others: Any) -> Diagnosis:
    """Diagnose a line of a host with so many sockets in its tables."""
    sockstat = Sockstat(tcp=TcpSockstat(inuse=inuse, orphan=5, tw=20, alloc=alloc, mem=400_000))
    return diagnose(make_snapshot(sockstat=sockstat, **others), (make_event(text),), ())


def test_sockets_in_no_table_are_told_with_a_command_that_shows_them() -> None:
    found = judge_sockets(9, 60_012)
    [finding] = [each for each in found.findings if each.claim == "sockets_in_no_table"]

    assert ("possible", 60_003, 60_012) == (finding.confidence, finding.evidence[0].value, finding.evidence[0].limit)
    assert "in no table of this network namespace: they are IPv6 (net/sockstat6 is missing), in" in found.summary
    assert "or reset or closed by the peer, but still open in a program, with unread data" in found.summary
    assert "(ss and netstat do not list them)" in found.summary
    assert any("/proc/[0-9]*/fd" in command for command in found.advice[0].commands)
    assert not any("ss -tanp" in command for command in found.advice[0].commands)


def test_program_that_has_them_open_is_named_first() -> None:
    tcp = TcpSockstat(inuse=9, orphan=5, alloc=60_012, mem=400_000)
    program = Unlisted(process=Process(pid=812, name="python3"), sockets=60_000)
    table = SocketTable(complete=True, listening=9, unlisted=(program,), sockstat=Sockstat(tcp=tcp))
    found = judge_sockets(9, 60_012, sockets=table)
    [finding] = [each for each in found.findings if each.claim == "sockets_in_no_table"]

    assert ("likely", "open in python3 (pid 812)") == (finding.confidence, finding.evidence[1].name)
    assert "in no table: reset or closed by the peer, but still open in python3 (pid 812), with" in found.summary
    assert not any("ss -tanp" in command for step in found.advice for command in step.commands)
    assert ("python3 (pid 812)", 60_000) == (found.holders[0].process, found.holders[0].sockets)
    assert "ls -l /proc/812/fd | grep -c socket:" == found.advice[0].commands[0]


def test_orphans_of_a_container_that_has_ended_are_not_taken_for_sockets_that_are_still_open() -> None:
    """They are in the tables of a network namespace in which no process lives, and fill the memory from there."""
    tcp = TcpSockstat(inuse=109, orphan=65_000, alloc=66_000, mem=400_000)
    group = make_group(NGINX, 443, established=tally(100))
    table = SocketTable(groups=(group,), complete=True, listening=9, sockstat=Sockstat(tcp=tcp))
    found = diagnose(make_snapshot(sockstat=Sockstat(tcp=tcp), sockets=table), (make_event("tcp_memory"),), ())
    claims = [each.claim for each in found.findings]

    assert "sockets_in_no_table" not in claims
    assert "orphans_fill_memory" in claims
    assert "still open in a program" not in found.summary


@pytest.mark.parametrize(
    ("inuse", "alloc", "others"),
    [
        (60_000, 60_012, {}),
        (31_000, 60_000, {}),
        (9, 400, {}),
        # It is orphans that ran out, and memory is calm.
        (9, 60_012, {"text": "orphans", "tcp_mem": (10**6, 2 * 10**6, 3 * 10**6)}),
        (9, 60_012, {"elsewhere": Elsewhere(namespaces=40, inuse=59_000, is_whole=True)}),
    ],
)
def test_few_sockets_in_no_table_are_no_finding(inuse: int, alloc: int, others: dict[str, Any]) -> None:
    assert "sockets_in_no_table" not in [each.claim for each in judge_sockets(inuse, alloc, **others).findings]
