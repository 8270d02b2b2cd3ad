"""Hosts that nobody here has: what is proposed on each of them, and what is done first.

A row of odd_hosts.txt: the host; the line; orphans, pages and sockets in use; tcp_max_orphans; tcp_mem; the kernel;
meminfo in MiB; and the limits that are proposed, "-" for none.
"""

from pathlib import Path
from typing import Any

import pytest
from material import GIB, make_event, make_snapshot

from agent.core.diagnosis.diagnose import diagnose
from agent.core.model import Diagnosis, Witness
from agent.core.readings import PressureStall

ORPHANS, MEM = "net.ipv4.tcp_max_orphans", "net.ipv4.tcp_mem"


def rows(title: str) -> list[Any]:
    table = Path(__file__).with_name("odd_hosts.txt").read_text().split(f"# {title}\n")[1].split("#")[0]
    cells = [[cell.strip() for cell in row.split("|")] for row in table.splitlines()]
    return [pytest.param(row[1:], id=row[0]) for row in cells]


def numbers(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in text.split())


def judge(row: list[str]) -> tuple[Diagnosis, dict[str, Any]]:
    """Diagnose a row's host; return the diagnosis and the limits that the row expects."""
    text, use, limit, limits, kernel, sizes, orphans, memory = row
    words = sizes.split()
    orphan, mem, alloc = numbers(use)
    snapshot = make_snapshot(
        orphan,
        mem,
        alloc=alloc,
        max_orphans=int(limit),
        tcp_mem=numbers(limits),
        kernel=kernel or None,
        meminfo={name: int(size) << 20 for name, size in zip(words[::2], words[1::2], strict=True)},
    )
    expected = {ORPHANS: None if orphans == "-" else int(orphans), MEM: None if memory == "-" else numbers(memory)}
    return diagnose(snapshot, (make_event(text),), ()), expected


def proposed(diagnosis: Diagnosis) -> dict[str, Any]:
    found = {step.sysctl.key: step.sysctl.proposed for step in diagnosis.advice if step.sysctl}
    return {key: found.get(key) for key in (ORPHANS, MEM)}


@pytest.mark.parametrize("row", rows("The limit is raised, as far as the host has room."))
def test_a_limit_is_raised_as_far_as_the_host_has_room(row: list[str]) -> None:
    diagnosis, expected = judge(row)
    assert expected == proposed(diagnosis)
    assert not any("back to" in step.action for step in diagnosis.advice)


@pytest.mark.parametrize("row", rows("A wrong setting is put back."))
def test_a_wrong_setting_is_put_back_first(row: list[str]) -> None:
    diagnosis, expected = judge(row)
    key = ORPHANS if expected[ORPHANS] else MEM
    assert expected[key] == proposed(diagnosis)[key]
    assert diagnosis.advice[0].action.startswith(f"Set {key.removeprefix('net.ipv4.')} back to")


@pytest.mark.parametrize(("full", "expected"), [(4.9, (380910, 507880, 761820)), (5.0, None)])
def test_nothing_is_raised_while_tasks_wait_for_memory(full: float, expected: tuple[int, ...] | None) -> None:
    snapshot = make_snapshot(mem=380000, alloc=9000, pressure={"memory full": PressureStall(avg10=full)})
    diagnosis = diagnose(snapshot, (make_event("tcp_memory"),), ())
    assert expected == proposed(diagnosis)[MEM]
    assert (expected is None) == any("tasks wait for memory 5 % of the time" in step.why for step in diagnosis.advice)


def test_pasted_units_are_told_on_a_calm_host_too() -> None:
    snapshot = make_snapshot(tcp_mem=(4096, 87380, 16777216), kernel="6.1.0", ram=256 * GIB)
    assert (3145728, 4194304, 6291456) == proposed(diagnose(snapshot, (), ()))[MEM]


def test_pages_in_tcp_rmem_do_not_make_tcp_mem_wrong() -> None:
    snapshot = make_snapshot(mem=380000, alloc=9000, sysctls={"net.ipv4.tcp_rmem": (190455, 253940, 380910)})
    assert (380910, 507880, 761820) == proposed(diagnose(snapshot, (make_event("tcp_memory"),), ()))[MEM]


def test_a_default_above_ram_is_not_called_wrong() -> None:
    # RHEL 5 gives itself 1.5 GiB from 512 MiB of RAM on.
    row = "timer|3 9000 9000|65536|196608 262144 393216|2.6.18-419.el5|MemTotal 512 MemFree 200|-|-"
    diagnosis, expected = judge(row.split("|"))
    assert expected == proposed(diagnosis)


def test_orphans_have_to_fit_into_the_tcp_mem_that_is_put_back() -> None:
    row = "orphans|131500 520000 150000|131072|4096 87380 16777216|6.12.0|MemTotal 24576 MemAvailable 12288|-|-"
    found = proposed(judge(row.split("|"))[0])
    assert (294912, 393216, 589824) == found[MEM]
    assert 131072 < found[ORPHANS] <= 589824 * 150000 // 520000


@pytest.mark.parametrize("text", ["orphans", "timer"])
@pytest.mark.parametrize(("orphans", "seconds_ago"), [(100, 0.2), (100, 9000.0), (60000, 9000.0)])
def test_no_limit_of_orphans_is_lowered_after_the_kernel_has_reached_it(
    text: str, orphans: int, seconds_ago: float
) -> None:
    kernel = "6.1.0" if text == "orphans" else "2.6.32-754.el6.x86_64"
    snapshot = make_snapshot(orphans, max_orphans=253940, kernel=kernel)
    found = diagnose(snapshot, (make_event(text, seconds_ago=seconds_ago),), ())
    assert "orphan_limit_holds_pages" in {finding.claim for finding in found.findings}
    assert (proposed(found)[ORPHANS] or 253940) >= 253940


@pytest.mark.parametrize("text", ["timer", "close"])
@pytest.mark.parametrize("kernel", ["2.6.32-754.el6.x86_64", "3.2.0-4-amd64", "2.6.18-419.el5"])
def test_a_lowered_limit_is_put_back_first_after_a_text_that_may_mean_it(text: str, kernel: str) -> None:
    first, *_ = diagnose(make_snapshot(6, max_orphans=64, kernel=kernel), (make_event(text),), ()).advice
    assert first.action.startswith(("Set tcp_max_orphans back to this kernel's default", "Set tcp_mem back"))
    high = diagnose(make_snapshot(6, max_orphans=4096, kernel=kernel), (make_event(text),), ())
    assert "orphan_limit_below_default" not in {finding.claim for finding in high.findings}


def test_a_lowered_limit_is_put_back_first_after_kills_without_a_line() -> None:
    witness = Witness(kills=9)
    first, *_ = diagnose(make_snapshot(6, max_orphans=64), (), (), witness).advice
    assert first.action.startswith("Set tcp_max_orphans back to this kernel's default")


def test_a_number_of_pages_is_left_where_more_orphans_are_there_now_than_the_default_is_sure_to_hold() -> None:
    found = diagnose(make_snapshot(40000, max_orphans=253940), (make_event("tcp_memory", seconds_ago=9000),), ())
    assert proposed(found)[ORPHANS] is None


def test_a_number_of_pages_is_left_where_orphans_need_it() -> None:
    row = "orphans|90000 120000 120000|190455|190455 253940 380910|6.1.0|MemTotal 16384 MemAvailable 9216|-|-"
    diagnosis = judge(row.split("|"))[0]
    assert "orphan_limit_holds_pages" in {finding.claim for finding in diagnosis.findings}
    assert (proposed(diagnosis)[ORPHANS] or 190455) >= 190455


def test_a_lowered_tcp_mem_is_put_back_before_more_orphans_have_to_fit_into_it() -> None:
    row = "orphans|65600 9600 70000|65536|6000 8000 12000|6.1.0|MemTotal 16384 MemAvailable 9216|-|-"
    diagnosis = judge(row.split("|"))[0]
    assert (196608, 262144, 393216) == proposed(diagnosis)[MEM]
    assert 263168 == proposed(diagnosis)[ORPHANS]
    assert diagnosis.advice[0].action.startswith("Set tcp_mem back")


@pytest.mark.parametrize(
    "row",
    [
        "orphans|65500 400000 68000|65536|786432 1048576 1572864|5.15.0|MemTotal 65536 MemAvailable 30720|-|-",
        "orphans|65500 400000 68000|65536|786432 1048576 1572864|6.1.0|MemTotal 65536 MemAvailable 30720|-|-",
        "orphans|21840 30000 23000|21844|196608 262144 393216|6.1.0|MemTotal 16384 MemAvailable 8192|-|-",
        "orphans|720 110000 800|0|196608 262144 393216|6.1.0|MemTotal 16384 MemAvailable 8192|-|-",
    ],
)
def test_many_orphans_are_looked_at_after_their_limit_is_put_back(row: str) -> None:
    steps = judge(row.split("|"))[0].advice
    assert steps[0].action.startswith("Set tcp_max_orphans back")
    assert steps[1].action.startswith("List the orphaned sockets")


def test_few_orphans_are_not_named_where_their_limit_was_lowered() -> None:
    row = "orphans|66 9000 1200|64|762837 1017118 1525674|6.1.0|MemTotal 65536 MemAvailable 30720|-|-"
    assert ["Set tcp_max_orphans back"] == [each.action[:24] for each in judge(row.split("|"))[0].advice]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        # 60 KiB each: the default of 262,144 would take 15 GiB, and tcp_mem holds 6.
        ("65500 1000000 68000|65536|786432 1048576 1572864|5.15.0|MemTotal 65536 MemAvailable 30720", 210_944),
        ("720 110000 800|720|196608 262144 393216|6.1.0|MemTotal 16384 MemAvailable 8192", 2752),
        # A limit of 0 is a mistake, and fixed first: with as many as tcp_mem holds.
        ("720 110000 800|0|196608 262144 393216|6.1.0|MemTotal 16384 MemAvailable 8192", 2779),
    ],
)
def test_no_default_is_put_back_that_orphans_as_fat_as_those_of_now_would_fill_tcp_mem_with(
    row: str, expected: int
) -> None:
    diagnosis = judge(f"orphans|{row}|-|-".split("|"))[0]
    assert expected == proposed(diagnosis)[ORPHANS]
    assert diagnosis.advice[0].action.startswith("Set tcp_max_orphans back to as many" if "|0|" in row else "List the")


@pytest.mark.parametrize(
    ("limit", "expected"), [("65536", "Free RAM before"), ("16384", "Free RAM before"), ("131072", "")]
)
def test_short_ram_is_what_to_free_where_orphans_are_at_their_limit(limit: str, expected: str) -> None:
    available = "300" if expected else "9216"
    orphans = int(limit) - 36
    ram = f"MemTotal 16384 MemAvailable {available}"
    row = f"orphans|{orphans} 200000 {orphans + 4500}|{limit}|196608 262144 393216|5.10.0|{ram}|-|-"
    said = [each.action for each in judge(row.split("|"))[0].advice]
    assert bool(expected) == any(action.startswith("Free RAM before") for action in said)
    assert not any(action.startswith("Leave tcp_max_orphans") for action in said)


@pytest.mark.parametrize(
    ("limits", "mem", "expected"),
    [
        # A fifth of RAM is no lowered limit, although three quarters were the default; it is raised within the budget.
        ((393216, 524288, 786432), 780000, (524288, 699050, 1048576)),
        ((100, 200, 300), 298, (196608, 262144, 393216)),
        ((4096, 87380, 16777216), 298, (196608, 262144, 393216)),
    ],
)
def test_no_default_of_2_6_is_put_back_that_leaves_no_ram_to_others(
    limits: tuple[int, ...], mem: int, expected: tuple[int, ...]
) -> None:
    ram = {"MemTotal": 16 * GIB, "MemFree": 9 * GIB}
    host = make_snapshot(mem=mem, alloc=90000, tcp_mem=limits, kernel="2.6.32-754.el6.x86_64", meminfo=ram)
    found = diagnose(host, (make_event("timer"),), ())
    assert expected == proposed(found)[MEM]
    assert "this kernel's default of 12 GiB" not in found.summary


@pytest.mark.parametrize(("mem", "press"), [(2500, True), (2500, False), (2000, True)])
def test_a_lowered_tcp_mem_is_put_back_too_where_the_pressure_that_it_made_lasts(mem: int, *, press: bool) -> None:
    found = diagnose(make_snapshot(mem=mem, tcp_mem=(2048, 3072, 4096), press=press), (), ())
    assert ((196608, 262144, 393216) if press and mem > 2048 else None) == proposed(found)[MEM]


@pytest.mark.parametrize(
    ("available", "expected", "actions"),
    [
        (9216, (196608, 262144, 393216), ["Set tcp_mem back"]),
        # As close to the default as what is available less a reserve.
        (1030, (27975, 37302, 55950), ["Set tcp_mem as close to", "Find", "Fix", "Free RAM before"]),
        (300, None, ["Find", "Fix", "Free RAM before"]),
        # Hardly more than is held is no more, however little is allowed today.
        (None, None, ["Find", "Fix", "Free RAM before"]),
    ],
)
def test_a_lowered_tcp_mem_is_put_back_as_far_as_there_is_ram(
    available: int | None, expected: tuple[int, ...] | None, actions: list[str]
) -> None:
    limits = "1000 1300 2000" if available else "0 0 0"
    row = f"tcp_memory|3 1990 900|65536|{limits}|6.1.0|MemTotal 16384 MemAvailable {available or 300}|-|-"
    diagnosis = judge(row.split("|"))[0]
    assert expected == proposed(diagnosis)[MEM]
    assert [] == [
        step.action
        for step, action in zip(diagnosis.advice, actions, strict=True)
        if not step.action.startswith(action)
    ]
    assert "far below the 1.5 GiB that this kernel would give itself" in diagnosis.advice[0].why or expected is None


@pytest.mark.parametrize(("available", "expected"), [(865, (37362, 49816, 74724)), (850, None)])
def test_a_limit_that_is_higher_by_a_tenth_is_worth_a_change(
    available: int, expected: tuple[int, int, int] | None
) -> None:
    row = f"tcp_memory|3 63000 900|65536|32768 43690 65535|6.1.0|MemTotal 16384 MemAvailable {available}|-|-"
    found = judge(row.split("|"))[0]
    assert expected == proposed(found)[MEM]
    assert (expected is not None) == found.advice[0].action.startswith("Set tcp_mem as close to")


def test_a_lowered_tcp_mem_is_put_back_though_tasks_wait_for_memory_where_much_is_available() -> None:
    lowered = make_snapshot(mem=1990, tcp_mem=(1000, 1300, 2000), pressure={"memory some": PressureStall(avg10=31.0)})
    found = diagnose(lowered, (make_event("tcp_memory"),), ())
    assert (196608, 262144, 393216) == proposed(found)[MEM]
    assert "8 GiB of 16 GiB are available, but tasks wait for memory 31 % of the time" in found.advice[0].risk


def test_huge_pages_are_no_room_for_a_default_that_is_put_back() -> None:
    sizes = "MemTotal 65536 MemAvailable 5120 Hugetlb 57344"
    found = judge(f"tcp_memory|5 99000 30000|262144|50000 75000 100000|6.8.0|{sizes}|-|-".split("|"))[0]
    assert (262143, 349525, 524286) == proposed(found)[MEM]


def test_free_huge_pages_are_named_where_they_leave_no_room() -> None:
    sizes = "MemTotal 65536 MemAvailable 3072 Hugetlb 58982 HugePages_Free 58982"
    row = f"orphans|262100 500000 265000|262144|786432 1048576 1572864|5.14.0-503.el9|{sizes}|-|-"
    said = next(each for each in judge(row.split("|"))[0].advice if each.action.startswith("Free RAM"))
    assert "give back the 58 GiB of huge pages that are free" in said.why
    assert [] == [command for command in said.commands if "/proc/pressure" in command]


@pytest.mark.parametrize(
    ("mem", "available", "expected"),
    [
        (9000, 2048, "Leave tcp_mem as it is"),
        (9000, 300, "Free RAM before you raise"),
        (1190000, 300, "Free RAM before you raise"),
    ],
)
def test_ram_is_to_be_freed_only_where_it_is_short(mem: int, available: int, expected: str) -> None:
    row = f"tcp_memory|3 {mem} 9000|65536|600000 800000 1200000|5.15.0|MemTotal 16384 MemAvailable {available}|-|-"
    said = [each.action for each in judge(row.split("|"))[0].advice]
    assert expected == said[-1][: len(expected)]
    if expected.startswith("Leave"):
        assert "already allows more than there is RAM for" in judge(row.split("|"))[0].advice[-1].why


def test_a_line_of_another_kernel_makes_no_limit_higher_on_a_calm_host() -> None:
    row = "tcp_memory|3 9000 700|262144|1500000 2000000 3000000|2.6.32-754.el6.x86_64|MemTotal 16384 MemFree 1638|-|-"
    actions = [each.action for each in judge(row.split("|"))[0].advice]
    assert [] == [action for action in actions if "RAM" in action or "tcp_mem" in action]


@pytest.mark.parametrize(("orphans", "expected"), [(16400, "twice today's limit"), (65500, "four times the peak")])
def test_a_peak_that_penalties_capped_is_no_measure(orphans: int, expected: str) -> None:
    row = f"orphans|{orphans} 20000 66000|65536|196608 262144 393216|6.1.0|MemTotal 16384 MemAvailable 9216|-|-"
    step = next(each for each in judge(row.split("|"))[0].advice if "tcp_max_orphans" in each.action)
    assert expected in step.why


@pytest.mark.parametrize("limits", [(2**64 - 1,) * 3, (196_608, 262_144, 2**64 - 1)])
@pytest.mark.parametrize("text", ["tcp_memory", None])
def test_the_largest_number_there_is_allows_nothing(limits: tuple[int, ...], text: str | None) -> None:
    """sysctl_tcp_mem is long: "mem > -1" holds always, so that every orphan with data is reset."""
    host = make_snapshot(mem=3000, tcp_mem=limits, kernel="6.1.0")
    diagnosis = diagnose(host, (make_event(text),) if text else (), ())
    assert {"memory_over_limit"} <= {finding.claim for finding in diagnosis.findings}
    assert (196_608, 262_144, 393_216) == proposed(diagnosis)[MEM]
    signed = " To the kernel a number from 2^63 on is negative: it allows nothing, not everything. Success:"
    assert signed in diagnosis.advice[0].why
    assert "-4 KiB" not in diagnosis.summary + diagnosis.advice[0].why


def test_zero_is_not_called_negative() -> None:
    why = (
        diagnose(make_snapshot(mem=3000, tcp_mem=(0, 0, 0), kernel="6.1.0"), (make_event("tcp_memory"),), ())
        .advice[0]
        .why
    )
    assert why.startswith("It allows 0 B, far below")
    assert "negative" not in why


def test_the_largest_signed_number_is_no_limit() -> None:
    host = make_snapshot(mem=3000, tcp_mem=(2**63 - 1,) * 3, kernel="6.1.0")
    assert "memory_over_limit" not in {finding.claim for finding in diagnose(host, (), ()).findings}


def test_low_memory_is_not_called_ram() -> None:
    """4 GiB on 32 bit, of which sockets can lie in 780 MiB."""
    sizes = {"MemTotal": 4096, "MemAvailable": 2048, "HighTotal": 3316, "LowTotal": 780, "LowFree": 400}
    meminfo = {name: size << 20 for name, size in sizes.items()}
    pasted = make_snapshot(mem=3000, tcp_mem=(200_000, 250_000, 300_000), kernel="5.10.103-v7l+", meminfo=meminfo)
    for diagnosis in (diagnose(pasted, (make_event("tcp_memory"),), ()), diagnose(pasted, (), ())):
        assert "tcp_mem allows more than this host's low memory: " in diagnosis.advice[0].why
        assert "host's RAM" not in f"{diagnosis.summary}{diagnosis.advice[0]}"
        proof = next(each.evidence for each in diagnosis.findings if each.claim == "tcp_mem_above_ram")
        assert "low memory" == proof[1].name
    full = make_snapshot(
        mem=18_200, alloc=5000, tcp_mem=(9000, 12_000, 18_000), kernel="5.10.103-v7l+", meminfo=meminfo
    )
    raised = next(step for step in diagnose(full, (make_event("tcp_memory"),), ()).advice if step.sysctl)
    assert "18 % of low memory" in raised.why
