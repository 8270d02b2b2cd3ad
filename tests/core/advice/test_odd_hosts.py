"""Hosts that nobody here has: what is proposed on each of them, and what is done first.

A row of odd_hosts.txt: the host; the line; orphans, pages and sockets in use; tcp_max_orphans; tcp_mem; the kernel;
meminfo in MiB; and the limits that are proposed, "-" for none.
"""

from pathlib import Path
from typing import Any

import pytest
from material import GIB, make_event, make_snapshot

from agent.core.diagnosis.diagnose import diagnose
from agent.core.model import Diagnosis
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
