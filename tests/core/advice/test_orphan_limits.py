"""How far tcp_max_orphans is raised, and when tcp_mem with it: what tcp_mem does not hold stalls living connections."""

from typing import Any

import pytest
from material import make_event, make_snapshot

from agent.core.advice.budget import Budget
from agent.core.advice.orphans import raise_max_orphans, shorten_orphan_retries
from agent.core.facts import Facts, gather_facts
from agent.core.model import Advice

# An orphan of 8 KiB, with what the kernel keeps beside it.
EACH = 8192 + 2560
AMPLE = Budget(1 << 40, "there is room")


def facts_of(orphans: int | None, high: int, *, limit: int | None = None, **host: Any) -> Facts:
    """Make a host whose sockets are orphans of two pages each, all that the limit allows."""
    usual: dict[str, Any] = {
        "mem": 2 * (orphans or 0),
        "alloc": orphans,
        "max_orphans": orphans if limit is None else limit,
        "tcp_mem": (high // 2, 2 * high // 3, high),
    }
    return gather_facts(make_snapshot(orphans, **(usual | host)), (make_event(),), ())


def raised(steps: tuple[Advice, ...]) -> list[Any]:
    return [step.sysctl.proposed if step.sysctl else step.action.partition(":")[0] for step in steps]


@pytest.mark.parametrize(
    ("high", "budget", "expected"),
    [
        # Four times the peak, as far as tcp_mem holds that.
        (16_384, AMPLE, [8192]),
        (16_380, AMPLE, [8128]),
        # Twice is enough to leave tcp_mem alone; less is not.
        (8000, AMPLE, [3968]),
        (7998, AMPLE, [(7998, 10_664, 15_996), 7936]),
        # More tcp_mem is no help where RAM is what bounds them.
        (7998, Budget(4000 * 4096, ""), [3520]),
        (16_384, Budget(1000 * EACH, ""), [2944]),
        (16_384, Budget(1000 * EACH - 1, ""), [2944]),
        (16_384, Budget(944 * EACH, ""), [2944]),
        (16_384, Budget(944 * EACH - 1, ""), [2880]),
        # What is not known bounds nothing.
        (16_384, Budget(None, ""), [8192]),
        (16_384, Budget(0, ""), ["Leave tcp_max_orphans at 2,000"]),
        (16_384, Budget(0, "", short=True), ["Free RAM before you raise a limit further."]),
    ],
)
def test_orphans_get_what_tcp_mem_and_ram_have_room_for(high: int, budget: Budget, expected: list[Any]) -> None:
    assert expected == raised(raise_max_orphans(facts_of(2000, high), budget, None))


@pytest.mark.parametrize(
    ("limit", "more", "expected"),
    [(2012, 100, 2112), (2015, 97, "Leave tcp_max_orphans at 2,015"), (500, 12, "Leave tcp_max_orphans at 500")],
)
def test_a_limit_that_is_hardly_higher_is_not_worth_a_change(limit: int, more: int, expected: Any) -> None:
    assert [expected] == raised(raise_max_orphans(facts_of(limit, 60_000), Budget(more * EACH, ""), None))


def test_tcp_mem_is_raised_to_what_the_orphans_take_beside_the_other_sockets() -> None:
    quiet = facts_of(0, 9000, limit=2000, mem=0, alloc=3000)
    assert [(8192, 10_922, 16_384), 4096] == raised(raise_max_orphans(quiet, AMPLE, None))
    busy = facts_of(0, 12_000, limit=2000, mem=6000, alloc=3000)
    assert [(11_192, 14_922, 22_384), 4096] == raised(raise_max_orphans(busy, AMPLE, None))


def test_the_budget_counts_from_the_orphans_that_there_are_up_to_the_limit() -> None:
    few, over = (facts_of(count, 60_000, limit=2000, mem=4000, alloc=2000) for count in (1000, 3000))
    few_more, over_more = (raise_max_orphans(each, Budget(2000 * EACH, ""), None) for each in (few, over))
    assert [[], ["Raise tcp_max_orphans to 3,968."]] == [
        [step.action for step in steps if step.action.startswith("Raise tcp_max_orphans to 3")]
        for steps in (few_more, over_more)
    ]


@pytest.mark.parametrize(
    ("facts", "action"),
    [
        (facts_of(2000, 0), "Compare tcp_max_orphans"),
        (facts_of(2000, 1), "Leave tcp_max_orphans"),
        (facts_of(2000, 16_384, max_orphans=None), "Compare tcp_max_orphans"),
        (facts_of(2000, 16_384, page_size_bytes=None), "Compare tcp_max_orphans"),
        (facts_of(0, 16_384, limit=0), "Leave tcp_max_orphans at 0"),
    ],
)
def test_no_number_is_proposed_where_none_can_be_known(facts: Facts, action: str) -> None:
    (step,) = raise_max_orphans(facts, Budget(0, ""), None)
    assert step.action.startswith(action)
    assert step.sysctl is None


@pytest.mark.parametrize(("retries", "expected"), [(5, None), (6, 5), (7, 5)])
def test_a_life_that_is_an_eighth_shorter_is_worth_a_change(retries: int, expected: int | None) -> None:
    settings = {"net.ipv4.tcp_orphan_retries": (retries,), "net.ipv4.tcp_rto_max_ms": (1000,)}
    step = shorten_orphan_retries(gather_facts(make_snapshot(sysctls=settings), (), ()))
    assert expected == (step and step.sysctl and step.sysctl.proposed)


@pytest.mark.parametrize(("orphans", "is_capped"), [(600, True), (900, True), (1000, False), (2000, False)])
def test_it_is_said_where_a_limit_at_which_each_counts_four_times_capped_the_peak(
    orphans: int, *, is_capped: bool
) -> None:
    (step,) = raise_max_orphans(facts_of(orphans, 60_000, limit=2000), AMPLE, None)
    said = "times, and capped the peak by that: twice today's limit is the least that helps. Success"
    assert is_capped == (said in step.why)
    assert is_capped != ("so a safe limit is four times the peak." in step.why)


def test_a_large_limit_is_a_round_number() -> None:
    assert [10_240] == raised(raise_max_orphans(facts_of(6000, 60_000), Budget(4304 * EACH, ""), None))
    assert [10_176] == raised(raise_max_orphans(facts_of(6000, 60_000), Budget(4239 * EACH, ""), None))


def test_the_price_is_of_the_orphans_beyond_those_of_now() -> None:
    (step,) = raise_max_orphans(facts_of(0, 60_000, limit=2000, mem=0, alloc=3000), AMPLE, None)
    assert "4,096 more orphans than now take 64 MiB" in step.risk
    (step,) = raise_max_orphans(facts_of(1000, 60_000, limit=2000), AMPLE, None)
    assert "3,096 more orphans than now take 24 MiB" in step.risk
