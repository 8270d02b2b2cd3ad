"""What is put back where a setting is wrong: never below what TCP holds, nor below the orphans that there are."""

import re
from typing import Any

import pytest
from material import NGINX, SHOP, make_event, make_group, make_snapshot, make_table, tally

from agent.core.advice.budget import find_budget
from agent.core.advice.settings import restore_max_orphans, restore_tcp_mem
from agent.core.diagnosis.diagnose import diagnose
from agent.core.facts import Facts, gather_facts
from agent.core.model import Advice
from agent.core.readings import Namespace, Process

MIB = 1 << 20
PASTED, FALLING = (4096, 87_380, 16_777_216), (500_000, 253_940, 190_455)
POD = Namespace(process=Process(pid=4711, name="pause", cgroup="/kubepods/pod1"), inuse=900, number=1)


def facts_of(**host: Any) -> Facts:
    return gather_facts(make_snapshot(**host), (make_event("tcp_memory"),), ())


def tcp_mem(claim: str, **host: Any) -> Any:
    advice = restore_tcp_mem(facts := facts_of(**host), {claim}, find_budget(facts))
    return advice and advice.sysctl and advice.sysctl.proposed


def max_orphans(*claims: str, **host: Any) -> Advice | None:
    return restore_max_orphans(facts := facts_of(**host), {*claims}, find_budget(facts))


def available(mebibytes: int) -> dict[str, int]:
    return {"MemTotal": 16_384 * MIB, "MemAvailable": mebibytes * MIB}


def test_the_default_is_put_back_up_to_nine_tenths_of_it_in_use() -> None:
    ram = 262_140 * 16 * 4096
    assert (196_605, 262_140, 393_210) == tcp_mem("tcp_mem_holds_buffer_sizes", ram=ram, tcp_mem=PASTED, mem=353_889)
    assert 353_890 < tcp_mem("tcp_mem_holds_buffer_sizes", ram=ram, tcp_mem=PASTED, mem=353_890)[0]


@pytest.mark.parametrize(
    ("limits", "meminfo", "expected"),
    [
        # As much again as is in use, where there is room for it; of less room, all; a tenth in any case.
        (PASTED, available(8192), (475_000, 570_000, 760_000)),
        (PASTED, available(1219), (405_587, 431_174, 482_348)),
        (PASTED, available(100), (389_500, 399_000, 418_000)),
        (PASTED, {"MemTotal": 16_384 * MIB}, (389_500, 399_000, 418_000)),
        # But nothing above what is allowed today, which is the last number, whatever the others.
        (FALLING, available(8192), (475_000, 570_000, 760_000)),
        (FALLING, available(100), None),
        ((500_000, 253_940, 418_000), available(100), (389_500, 399_000, 418_000)),
        ((500_000, 253_940, 417_999), available(100), None),
    ],
)
def test_pasted_numbers_give_way_to_some_above_what_tcp_holds(
    limits: tuple[int, ...], meminfo: dict[str, int], expected: tuple[int, ...] | None
) -> None:
    claim = "tcp_mem_holds_buffer_sizes" if limits == PASTED else "tcp_mem_out_of_order"
    assert expected == tcp_mem(claim, tcp_mem=limits, mem=380_000, meminfo=meminfo)


def test_it_is_said_whether_the_default_or_the_ram_is_too_small_for_what_tcp_holds() -> None:
    falling = (393_216, 262_144, 196_608)
    for mem, why in [(380_000, "which the default would stall"), (196_000, "since there is no RAM for the default")]:
        room = available(100 if mem > falling[2] else 900)
        facts = facts_of(tcp_mem=PASTED if mem > falling[2] else falling, mem=mem, meminfo=room)
        claim = "tcp_mem_holds_buffer_sizes" if mem > falling[2] else "tcp_mem_out_of_order"
        advice = restore_tcp_mem(facts, {claim}, find_budget(facts))
        assert advice
        assert advice.action.startswith(f"Set tcp_mem above what TCP holds now, {why}: ")


def test_a_use_that_could_not_be_read_is_not_made_up() -> None:
    facts = facts_of(tcp_mem=PASTED, mem=None)
    advice = restore_tcp_mem(facts, {"tcp_mem_holds_buffer_sizes"}, find_budget(facts))
    assert advice
    assert "holds 0 B now" in advice.risk


def test_pages_are_taken_out_of_the_limit_of_orphans_only_where_four_times_those_of_now_fit() -> None:
    limits = {"max_orphans": 190_455, "alloc": 90_000}
    assert max_orphans("orphan_limit_holds_pages", orphan=16_384, **limits)
    assert None is max_orphans("orphan_limit_holds_pages", orphan=16_385, **limits)


def test_a_limit_of_orphans_that_is_far_too_low_is_put_back_however_many_there_are() -> None:
    both = max_orphans("orphan_limit_holds_pages", "orphan_limit_below_default", orphan=40_000, max_orphans=2048)
    assert both
    assert both.why.startswith("It is far below what this kernel would give itself")


@pytest.mark.parametrize(
    ("high", "said"),
    [
        (262_144, "tcp_mem keeps all TCP data below 1 GiB"),
        (262_140, "themselves, and today's tcp_mem holds about 65,535 of them: with more"),
    ],
)
def test_the_risk_says_whether_tcp_mem_holds_the_orphans_that_are_allowed_again(high: int, said: str) -> None:
    advice = max_orphans(
        "orphan_limit_below_default", orphan=0, mem=0, alloc=0, max_orphans=0, tcp_mem=(1000, 2000, high)
    )
    assert advice
    assert said in advice.risk


def test_orphans_are_held_against_the_tcp_mem_that_is_put_back_before_them() -> None:
    found = diagnose(make_snapshot(2, 400, max_orphans=0, tcp_mem=(0, 0, 0)), (make_event(),), ()).advice
    assert ["net.ipv4.tcp_mem", "net.ipv4.tcp_max_orphans"] == [each.sysctl.key for each in found if each.sysctl]
    assert "tcp_mem keeps all TCP data below 1.5 GiB" in found[1].risk


def test_every_sentence_of_a_risk_begins_with_a_capital() -> None:
    for meminfo in (available(8192), available(100)):
        facts = facts_of(tcp_mem=PASTED, mem=380_000, meminfo=meminfo)
        advice = restore_tcp_mem(facts, {"tcp_mem_holds_buffer_sizes"}, find_budget(facts))
        assert advice
        assert [] == re.findall(r"\. [a-z].*", advice.risk)


def test_it_is_checked_where_most_orphans_are_and_not_most_memory() -> None:
    pod = make_group(NGINX, 443, namespace=1, fin_wait1=tally(60, 4096))
    ours = make_group(SHOP, 80, established=tally(900, MIB))
    advice = max_orphans("orphan_limit_below_default", max_orphans=0, sockets=make_table(pod, ours, namespaces=(POD,)))
    assert advice
    assert advice.commands[-1].startswith("nsenter -t 4711 -n nstat ")


D = 262_143 * 4096


@pytest.mark.parametrize(
    ("limits", "is_put_back"),
    [
        # The second number is within a third and three times of the default, in bytes or in KiB.
        ((1000, D // 3, 2**40), True),
        ((1000, D // 3 - 1, 2**40), False),
        ((1000, 3 * D, 2**40), True),
        ((1000, 3 * D + 1, 2**40), False),
        ((1000, D // 3 // 1024, 2**40), True),
        ((1000, D // 3 // 1024 - 1, 2**40), False),
        ((1000, 3 * D // 1024, 2**40), True),
        ((1000, 3 * D // 1024 + 1, 2**40), False),
        # Numbers that do not rise are meant to switch the limit off.
        ((D, D, 2**40), False),
        ((1000, D, D), False),
    ],
)
def test_numbers_above_ram_are_left_on_a_calm_host_unless_they_are_its_default_in_another_unit(
    limits: tuple[int, ...], *, is_put_back: bool
) -> None:
    facts = gather_facts(make_snapshot(ram=262_143 * 16 * 4096, tcp_mem=limits, mem=9000), (), ())
    advice = restore_tcp_mem(facts, {"tcp_mem_above_ram"}, find_budget(facts))
    assert advice
    assert is_put_back == (advice.sysctl is not None)


def test_who_set_numbers_above_ram_is_to_be_found_though_the_use_could_not_be_read() -> None:
    facts = gather_facts(make_snapshot(tcp_mem=(2**40,) * 3, mem=None), (), ())
    advice = restore_tcp_mem(facts, {"tcp_mem_above_ram"}, find_budget(facts))
    assert advice
    assert "TCP holds 0 B." in advice.why


def test_numbers_that_may_be_meant_are_put_back_where_memory_is_high_or_the_kernel_ran_out() -> None:
    unbound, pressed = (2**31 - 1,) * 3, (1000, 2000, 2**40)
    assert (196_608, 262_144, 393_216) == tcp_mem("tcp_mem_above_ram", tcp_mem=unbound, mem=9000)
    facts = gather_facts(make_snapshot(tcp_mem=pressed, mem=9000), (), ())
    advice = restore_tcp_mem(facts, {"tcp_mem_above_ram"}, find_budget(facts))
    assert advice
    assert advice.action.startswith("Set tcp_mem back")
