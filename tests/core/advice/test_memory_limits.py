"""How far tcp_mem is raised: socket memory cannot be swapped, so that one page too many is one of somebody else's."""

from typing import Any

import pytest
from material import make_event, make_snapshot

from agent.core.advice.budget import Budget
from agent.core.advice.memory import raise_tcp_mem, raised_to
from agent.core.facts import Facts, gather_facts

LIMITS = (5000, 7500, 10_000)
AMPLE = Budget(1 << 40, "there is room")


def facts_of(mem: int | None = 10_000, limits: tuple[int, ...] | None = LIMITS, **host: Any) -> Facts:
    return gather_facts(make_snapshot(mem=mem, tcp_mem=limits, **host), (make_event("tcp_memory"),), ())


def pages(number: int) -> Budget:
    return Budget(number * 4096, "of that much")


@pytest.mark.parametrize(
    ("mem", "budget", "expected"),
    [
        # To twice of what was reached,
        (10_000, AMPLE, (10_000, 15_000, 20_000)),
        (9000, AMPLE, (10_000, 15_000, 20_000)),
        (12_000, AMPLE, (12_000, 18_000, 24_000)),
        # as far as RAM allows beyond what is held, and beyond the limit where more is held.
        (10_000, pages(5000), (7500, 11_250, 15_000)),
        (9000, pages(5000), (7000, 10_500, 14_000)),
        (12_000, pages(5000), (7500, 11_250, 15_000)),
        (-5, pages(15_000), (7500, 11_250, 15_000)),
        # A tenth more is worth a change, and less is not.
        (10_000, pages(1000), (5500, 8250, 11_000)),
        (10_000, pages(999), None),
        (10_000, pages(0), None),
        (10_000, Budget(None, "not known"), None),
        (None, AMPLE, None),
    ],
)
def test_tcp_mem_is_raised_to_twice_of_what_was_reached_as_far_as_ram_allows(
    mem: int | None, budget: Budget, expected: tuple[int, ...] | None
) -> None:
    advice = raise_tcp_mem(facts_of(mem), budget)
    assert expected == (advice.sysctl and advice.sysctl.proposed)


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ((30_000, 100, 10_000), (30_000, 30_000, 30_000)),
        ((100, 30_000, 10_000), (200, 30_000, 30_000)),
        ((15_000, 12_000, 10_000), (20_000, 20_000, 20_000)),
        ((1, 1, 1), (20_000, 20_000, 20_000)),
        ((0, 0, 0), None),
        (None, None),
    ],
)
def test_nothing_is_lowered_to_bring_the_three_into_order(
    limits: tuple[int, ...] | None, expected: tuple[int, ...] | None
) -> None:
    assert expected == raised_to(facts_of(limits=limits), AMPLE, 20_000)


@pytest.mark.parametrize(("target", "high"), [(10_000, None), (10_001, 10_001), (20_000, 20_000), (20_001, 20_000)])
def test_tcp_mem_is_raised_no_further_than_is_wanted(target: int, high: int | None) -> None:
    found = raised_to(facts_of(), AMPLE, target)
    assert high == (found and found[2])


def test_a_limit_of_one_page_is_raised_to_twice_of_what_is_held() -> None:
    advice = raise_tcp_mem(facts_of(limits=(1, 1, 1)), AMPLE)
    assert advice.sysctl
    assert (20_000, 20_000, 20_000) == advice.sysctl.proposed


@pytest.mark.parametrize(
    ("mem", "budget", "action"),
    [
        (10_000, Budget(4096, "", short=True), "Free RAM before you raise a limit further."),
        (10_000, Budget(4096, ""), "Leave tcp_mem as it is and fix what holds the memory."),
        (9, Budget(0, "", short=True), "Free RAM before you raise a limit further."),
        (9, Budget(4096, "", short=True), "Leave tcp_mem as it is and fix what holds the memory."),
    ],
)
def test_ram_is_to_be_freed_where_it_is_short_and_memory_full(mem: int, budget: Budget, action: str) -> None:
    assert action == raise_tcp_mem(facts_of(mem), budget).action


@pytest.mark.parametrize("host", [{"limits": (0, 0, 0)}, {"limits": None}, {"page_size_bytes": None}, {"mem": None}])
def test_no_number_is_proposed_where_none_can_be_known(host: dict[str, Any]) -> None:
    advice = raise_tcp_mem(facts_of(**host), AMPLE)
    assert advice.sysctl is None
    assert "could not be read, so this cannot propose a value" in advice.why
