import pytest
from material import make_event, make_group, make_snapshot, make_table, tally

from agent.core.diagnosis.rules_holders import attribution_incomplete, memory_without_sockets
from agent.core.facts import gather_facts
from agent.core.readings import Namespace, Process, SocketTable

GROUP = make_group(established=tally(1000, 8192), fin_wait1=tally(500))


def claims(table: SocketTable, kernel: str = "6.1.0-28-amd64", cpus: int = 4) -> list[str]:
    facts = gather_facts(make_snapshot(sockets=table, kernel=kernel, cpus=cpus), (make_event("tcp_memory"),), ())
    found = (attribution_incomplete(facts), memory_without_sockets(facts))
    return [finding.claim for finding in found if finding]


def test_sums_that_agree_are_complete() -> None:
    assert [] == claims(make_table(GROUP))
    assert [] == claims(make_table(GROUP, orphan=1000, mem=5000))


def test_orphans_out_of_sight_make_it_incomplete() -> None:
    assert ["attribution_incomplete"] == claims(make_table(GROUP, orphan=1065))


def test_memory_out_of_sight_is_the_kernels_own_only_when_all_sockets_are_seen() -> None:
    both = ["attribution_incomplete", "memory_without_sockets"]
    elsewhere = Namespace(process=Process(pid=1, name="x"), inuse=5)
    assert both == claims(make_table(GROUP, mem=50_000))
    assert both[:1] == claims(make_table(GROUP, mem=50_000, alloc=9000))
    assert both[:1] == claims(make_table(GROUP, mem=50_000, complete=False))
    assert both[:1] == claims(make_table(GROUP, mem=50_000, namespaces=(elsewhere,)))


@pytest.mark.parametrize(("kernel", "cpus", "expected"), [("5.10.0", 192, 2), ("6.1.0", 192, 0), ("6.1.0", 4, 2)])
def test_what_cpus_hold_back_is_not_missing(kernel: str, cpus: int, expected: int) -> None:
    assert expected == len(claims(make_table(GROUP, mem=50_000), kernel, cpus))
