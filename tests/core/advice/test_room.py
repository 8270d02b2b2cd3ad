"""How much RAM sockets may still take, and what one costs: one number too many brings the OOM killer."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
from material import make_event, make_group, make_snapshot, make_table, tally

from agent.core.advice.budget import Price, find_budget, free_ram, price_of_orphans, price_of_sockets, room_for_orphans
from agent.core.diagnosis.diagnose import diagnose
from agent.core.facts import Facts, gather_facts
from agent.core.readings import FullGroup, Namespace, PressureStall, Process

MIB = 1 << 20
HUNDRED = 25_600  # MiB, in pages.


def facts_of(**host: Any) -> Facts:
    return gather_facts(make_snapshot(**host), (), ())


def sizes(text: str) -> dict[str, int]:
    words = text.split()
    return {name: int(size) * MIB for name, size in zip(words[::2], words[1::2], strict=True)}


@pytest.mark.parametrize(
    ("meminfo", "mem", "room", "is_short"),
    [
        # A twentieth of RAM stays free, and sockets get no more than a quarter with what they hold.
        ("MemTotal 2000 MemAvailable 1000", 0, 500, False),
        ("MemTotal 2000 MemAvailable 1000", None, 500, False),
        ("MemTotal 2000 MemAvailable 1000", HUNDRED, 400, False),
        ("MemTotal 2000 MemAvailable 500", HUNDRED, 400, False),
        ("MemTotal 2000 MemAvailable 499", HUNDRED, 399, True),
        ("MemTotal 2000 MemAvailable 101", 0, 1, True),
        ("MemTotal 2000 MemAvailable 100", 0, 0, True),
        ("MemTotal 2000 MemAvailable 1000", 5 * HUNDRED - 256, 1, False),
        ("MemTotal 2000 MemAvailable 1000", 5 * HUNDRED, 0, False),
        ("MemTotal 2000 MemAvailable 1000 HugePages_Free 1", 5 * HUNDRED, 0, True),
        # Huge pages and ZONE_MOVABLE are no room for sockets.
        ("MemTotal 2000 MemAvailable 1000 Hugetlb 1000 MovableTotal 500", 0, 125, False),
        ("MemTotal 2000 MemAvailable 400 Hugetlb 1000 MovableTotal 500 MovableFree 300", 0, 75, True),
        ("MemTotal 2000 MemAvailable 400 Hugetlb 1000 MovableTotal 500 MovableFree 500", 0, 0, True),
        ("MemTotal 2000 MemAvailable 400 Hugetlb 1500 MovableTotal 600", 0, 0, False),
        ("MemTotal 2000 MemAvailable 400 Hugetlb 1500 HugePages_Free 1 MovableTotal 600", 0, 0, True),
        # Nor is what is kept for CMA, where only what can be moved may lie meanwhile.
        ("MemTotal 2000 MemAvailable 1000 CmaTotal 800 CmaFree 100", 0, 300, False),
        ("MemTotal 2000 MemAvailable 500 CmaTotal 400 CmaFree 300", 0, 120, True),
        ("MemTotal 2000 MemAvailable 500 CmaTotal 400 CmaFree 500", 0, 0, True),
        # Before 3.14: free memory, and half of the file cache.
        ("MemTotal 2000 MemFree 200 Active(file) 80 Inactive(file) 120 Cached 900", 0, 200, True),
        ("MemTotal 2000 MemFree 200 Cached 300 Shmem 100", 0, 200, True),
        ("MemTotal 2000 MemFree 200 Cached 100", 0, 150, True),
        ("MemTotal 2000 MemFree 200 Cached 100 Shmem 300", 0, 100, True),
        ("MemTotal 2000 MemFree 200", 0, 100, True),
        # On 32 bit low memory alone, where some is high.
        ("MemTotal 3000 MemAvailable 800 HighTotal 2000 LowTotal 1000 LowFree 200", 0, 150, True),
        ("MemTotal 3000 MemAvailable 200 HighTotal 2000 LowTotal 1000 LowFree 700", 0, 150, True),
        ("MemTotal 2000 MemAvailable 400 HighTotal 0 LowTotal 2000 LowFree 200", 0, 300, True),
    ],
)
def test_sockets_get_what_is_available_and_no_more(meminfo: str, mem: int | None, room: int, *, is_short: bool) -> None:
    budget = find_budget(facts_of(mem=mem, meminfo=sizes(meminfo)))
    assert (room * MIB, is_short) == (budget.bytes, budget.short)


@pytest.mark.parametrize(
    ("ram", "available", "room"),
    [
        (65_536, 4000, 4000 - 3277),  # A twentieth of 64 GiB, and a hundredth of what is beyond.
        (65_536 + 100_000, 5000, 5000 - 3277 - 1000),
        (2_097_152, 92_160, 92_160 - 3277 - 20_316),
        (2_097_152, 20_480, 0),
    ],
)
def test_of_much_ram_a_smaller_part_stays_free(ram: int, available: int, room: int) -> None:
    budget = find_budget(facts_of(meminfo={"MemTotal": ram * MIB, "MemAvailable": available * MIB}, mem=0))
    assert room == -(-(budget.bytes or 0) // MIB) - bool(room)
    assert bool(room) != budget.why.endswith("RAM is what is short")


@pytest.mark.parametrize("meminfo", ["MemAvailable 1000", "MemTotal 2000", "MemTotal 2000 Cached 900", ""])
def test_no_room_is_made_up_where_ram_could_not_be_read(meminfo: str) -> None:
    budget = find_budget(facts_of(meminfo=sizes(meminfo)))
    assert (None, "how much RAM is available could not be read", False) == (budget.bytes, budget.why, budget.short)


@pytest.mark.parametrize(
    ("meminfo", "why"),
    [
        (
            "MemTotal 16384 MemAvailable 8192",
            "8 GiB of 16 GiB are available, but tasks wait for memory 12.5 % of the time: RAM is short, or a control",
        ),
        ("MemTotal 16384 MemAvailable 4096", "4 GiB of 16 GiB are available, but tasks wait for memory 12.5 % of"),
        (
            "MemTotal 16384 MemAvailable 4095",
            "4 GiB of 16 GiB are available and tasks wait for memory 12.5 % of the time: RAM is what is short",
        ),
        # A quarter of what can be available.
        (
            "MemTotal 16384 Hugetlb 8192 MemAvailable 2048",
            "2 GiB of 8 GiB that are not set aside are available, but tasks wait for memory",
        ),
    ],
)
def test_there_is_no_room_while_tasks_wait_for_memory_however_much_is_available(meminfo: str, why: str) -> None:
    budget = find_budget(facts_of(meminfo=sizes(meminfo), pressure={"memory some": PressureStall(avg10=12.5)}))
    assert (0, True) == (budget.bytes, budget.short)
    assert budget.why.startswith(why)


def test_where_a_group_at_its_own_limit_may_be_what_waits_the_step_says_how_to_see_it() -> None:
    waiting = facts_of(pressure={"memory some": PressureStall(avg10=12.5)})
    step = free_ram(waiting, find_budget(waiting))
    assert step is not None
    assert step.action == "Find out what waits for memory before you raise a limit further."
    assert (
        "Raise its memory limit or reduce its work; once it no longer stalls, the TCP limit may be raised." in step.why
    )
    assert any("memory.pressure" in command for command in step.commands)
    short = facts_of(meminfo=sizes("MemTotal 16384 MemAvailable 300"), pressure={"memory full": PressureStall(avg10=9)})
    step = free_ram(short, find_budget(short))
    assert step is not None
    assert step.action.startswith("Free RAM")
    assert [] == [command for command in step.commands if "memory.pressure" in command]


@pytest.mark.parametrize(("percent", "expected"), [(10.0, True), (9.9, False), (None, False)])
def test_a_group_that_is_seen_to_wait_at_its_own_limit_is_named(percent: float | None, *, expected: bool) -> None:
    def full(path: str, stalled: float | None) -> FullGroup:
        return FullGroup(path=path, current_bytes=99, limit_bytes=100, stalled_percent=stalled)

    groups = (full("/kubepods.slice", 3.0), full("/shop.slice", percent), full("/system.slice/b.service", None))
    pressure = {"memory some": PressureStall(avg10=12.5)}
    waiting = facts_of(pressure=pressure, sockets=make_table(full_groups=groups))
    step = free_ram(waiting, find_budget(waiting))
    said = "shop.slice is at its own limit and waits for memory 10 % of the time: start there. "
    assert expected == (f"its own limit. {said}The first" in (step.why if step else ""))
    short = facts_of(
        pressure=pressure, sockets=make_table(full_groups=groups), meminfo=sizes("MemTotal 9 MemAvailable 1")
    )
    step = free_ram(short, find_budget(short))
    assert step is not None
    assert "shop.slice" not in step.why


def test_the_groups_that_wait_most_are_listed_first(tmp_path: Path) -> None:
    waiting = facts_of(pressure={"memory some": PressureStall(avg10=12.5)})
    step = free_ram(waiting, find_budget(waiting))
    command = next(each for each in (step.commands if step else ()) if "memory.pressure" in each)
    for path, percent in (("a", "3.00"), ("web.slice/pod 1", "81.20"), ("c", "12.50"), ("d", "0.00")):
        file = tmp_path / path / "memory.pressure"
        file.parent.mkdir(parents=True)
        file.write_text(
            f"some avg10={percent} avg60=99.00 avg300=9.00 total=9\nfull avg10=99.00 avg60=0.00 avg300=0.00 total=0\n"
        )
    command = command.replace("/sys/fs/cgroup", str(tmp_path))
    said = subprocess.check_output(["/bin/sh", "-c", command], text=True).splitlines()
    assert ["web.slice/pod 1", "c", "a", "d"] == [
        line.split("/memory.")[0].removeprefix(f"{tmp_path}/") for line in said
    ]
    assert said[0].endswith("pressure:some avg10=81.20 avg60=99.00 avg300=9.00 total=9")


@pytest.mark.parametrize(
    ("meminfo", "why"),
    [
        ("MemTotal 2000 MemAvailable 90 Hugetlb 200", "Only 90 MiB of 1.8 GiB that are not set aside are available: "),
        ("MemTotal 2000 MemAvailable 90 Hugetlb 2000", "All of RAM is set aside."),
        ("MemTotal 2000 MemAvailable 0 MovableTotal 2000", "All of RAM is set aside."),
        ("MemTotal 2000 MemFree 200", "200 MiB of 2 GiB are available (free memory and half of the file cache), "),
        ("MemTotal 3000 MemAvailable 200 HighTotal 2000 LowTotal 1000 LowFree 200", "200 MiB of 1,000 MiB are avail"),
        ("MemTotal 3000 MemAvailable 200 HighTotal 2000 LowTotal 1000 LowFree 90", "90 MiB of 1,000 MiB are free in"),
    ],
)
def test_what_bounds_the_room_is_said(meminfo: str, why: str) -> None:
    assert find_budget(facts_of(mem=None, meminfo=sizes(meminfo))).sentence.startswith(why)


@pytest.mark.parametrize(
    ("mem", "alloc", "charged", "how"),
    [
        (1000, 300, 13_654, "measured here on 300"),  # Rounded up: a price that is too low fills RAM.
        (1000, 299, 16_384, "assumed"),
        (1000, None, 16_384, "assumed"),
        (None, 900, 16_384, "assumed"),
        (300, 300, 4096, "measured here on 300"),
        (299, 300, 4096, "one page"),
        (0, 300, 4096, "one page"),
        (-5, 300, 16_384, "assumed"),
    ],
)
def test_a_socket_costs_what_was_measured_on_enough_of_them(
    mem: int | None, alloc: int | None, charged: int, how: str
) -> None:
    assert Price(charged, how) == price_of_sockets(facts_of(mem=mem, alloc=alloc))


@pytest.mark.parametrize(
    ("mem", "charged", "how"),
    [
        # 16 CPUs may keep back 16 MiB either way: 4,096 pages.
        (16_384, 74_566, "measured here on 900"),
        (16_383, 16_384, "assumed"),
        (0, 16_384, "assumed"),
        # A bound below what is assumed still holds: here each CPU may keep back 16 pages.
        (600, 3896, "assumed"),
    ],
)
def test_a_socket_is_not_measured_by_a_sum_that_may_be_what_the_cpus_keep_back(
    mem: int, charged: int, how: str
) -> None:
    reserve = 16 if mem == 600 else 256
    host = {"kernel": "6.12.0", "cpus": 16, "sysctls": {"net.core.mem_pcpu_rsv": (reserve,)}}
    assert Price(max(charged, 4096), how) == price_of_sockets(facts_of(mem=mem, alloc=900, **host))
    assert how.replace("900", "300") == price_of_sockets(facts_of(mem=mem, alloc=300, **host)).how
    few = facts_of(orphan=600, mem=mem, alloc=900, **host)
    assert how == price_of_orphans(few).how


def test_orphans_are_bounded_by_all_that_tcp_may_hold_with_what_the_cpus_keep_back() -> None:
    host = {"kernel": "6.12.0", "cpus": 8, "sysctls": {"net.core.mem_pcpu_rsv": (256,)}}
    assert Price(6990, "assumed") == price_of_orphans(facts_of(orphan=2400, mem=2048, alloc=9000, **host))


def test_a_limit_of_orphans_is_put_back_whatever_the_cpus_keep_back() -> None:
    """192 CPUs may keep back 192 MiB: mem of 156 MiB is no price of 2,500 sockets."""
    host = make_snapshot(
        2000,
        40_000,
        max_orphans=2000,
        tcp_mem=(60_000, 80_000, 120_000),
        alloc=2500,
        cpus=192,
        kernel="6.12.0",
        ram=4 << 30,
        sysctls={"net.core.mem_pcpu_rsv": (256,)},
    )
    (step,) = (each for each in diagnose(host, (make_event(),), ()).advice if each.sysctl)
    assert 16_384 == step.sysctl.proposed


def test_a_socket_takes_a_page_at_least_however_large_that_is() -> None:
    host = {"page_size_bytes": 65_536, "kernel": "6.1.0"}
    assert Price(65_536, "assumed") == price_of_sockets(facts_of(alloc=11, **host))
    assert Price(65_536, "assumed") == price_of_orphans(facts_of(orphan=11, **host))


def test_a_socket_is_charged_in_units_of_4_kib_where_the_kernel_counts_in_them_whatever_a_page_is() -> None:
    host = {"page_size_bytes": 65_536, "kernel": "4.18.0-553.el8_10.aarch64"}
    assert Price(8192, "measured here on 300") == price_of_sockets(facts_of(mem=600, alloc=300, **host))
    assert Price(4096, "the least") == price_of_sockets(facts_of(mem=200, alloc=300, **host))
    assert Price(16_384, "assumed") == price_of_sockets(facts_of(alloc=11, **host))
    assert Price(16_384, "assumed") == price_of_orphans(facts_of(orphan=11, **host))


@pytest.mark.parametrize(
    ("orphan", "mem", "alloc", "charged", "how"),
    [
        (300, 1000, 600, 6827, "measured here on 600"),
        (300, 600, 601, 8192, "assumed"),
        (299, 600, 598, 16_384, "assumed"),
        (300, 150, 9000, 4096, "assumed"),
        (300, 6000, 9000, 16_384, "assumed"),
        (300, -9, 9000, 4096, "assumed"),
        (300, None, 9000, 16_384, "assumed"),
        (None, 6000, 9000, 16_384, "assumed"),
    ],
)
def test_an_orphan_costs_what_sockets_do_where_most_are_orphans_and_never_more_than_all_hold(
    orphan: int | None, mem: int | None, alloc: int, charged: int, how: str
) -> None:
    assert Price(charged, how) == price_of_orphans(facts_of(orphan=orphan, mem=mem, alloc=alloc))


def test_an_orphan_costs_what_the_table_shows_of_enough_of_them() -> None:
    def price(sockets: int, each: int = 5000, **host: Any) -> Price:
        table = make_table(make_group(fin_wait1=tally(sockets, each)))
        return price_of_orphans(facts_of(orphan=9, sockets=table, **host))

    assert Price(5000, "measured here on 300") == price(300)
    assert Price(16_384, "assumed") == price(299)
    # What nothing is charged for is not divided by.
    assert Price(1, "measured here on 300") == price(300, 0, page_size_bytes=None)


def test_an_orphan_whose_queue_alone_could_be_read_is_not_measured_by_that() -> None:
    # As in a pod, without privilege: the kernel charges up to twice what is queued.
    pod = Namespace(process=Process(pid=4711, name="web"), inuse=9000, number=1, queues_only=True)
    inside, ours = make_group(namespace=1, fin_wait1=tally(9000, 1000)), make_group(fin_wait1=tally(300, 6000))
    host = {"orphan": 9000, "mem": 20_000, "alloc": 10_000}
    assert Price(8192, "measured here on 10,000") == price_of_orphans(
        facts_of(sockets=make_table(inside, namespaces=(pod,)), **host)
    )
    assert Price(6000, "measured here on 300") == price_of_orphans(
        facts_of(sockets=make_table(inside, ours, namespaces=(pod,)), **host)
    )


def test_the_price_of_many_counts_what_the_kernel_keeps_beside_the_data() -> None:
    price = Price(8192, "assumed")
    assert 8192 + 2560 == price.ram_bytes
    assert "8 MiB at 8 KiB a socket, assumed, and 2.5 MiB for the sockets themselves" == price.of(1024)


@pytest.mark.parametrize(
    ("orphan", "mem", "expected"),
    [
        (0, 0, 100),
        (0, None, 100),
        (None, 20, 90),
        (10, 40, 90),  # 10 orphans hold half of it.
        (10, 10, 100),
        (0, 300, 0),
    ],
)
def test_orphans_have_to_fit_beside_the_other_sockets(orphan: int | None, mem: int | None, expected: int) -> None:
    facts = facts_of(orphan=orphan, mem=mem)
    assert expected == room_for_orphans(facts, Price(8192, "assumed"), 100 * 8192)
