import pytest
from material import GIB, make_event, make_sample, make_snapshot
from msgspec.structs import replace

from agent.core.diagnosis.rules_cause import REMARKS
from agent.core.facts import gather_facts
from agent.core.model import Event, Finding, Sample, Snapshot
from agent.core.readings import PressureStall

ROW = "MPTCP     2016     37      -1   NI       0   yes  kernel      y n y\n"


def found(snapshot: Snapshot, *said: Event, history: tuple[Sample, ...] = ()) -> dict[str, Finding]:
    facts = gather_facts(snapshot, said, history)
    return {finding.claim: finding for each in REMARKS if (finding := each(facts))}


@pytest.mark.parametrize(
    ("kernel", "share_of_ram", "expected"),
    [
        ("6.1.0", 0.09, False),
        ("6.1.0", 0.03, True),
        ("4.1.6", 0.09, False),
        ("3.10.0-1160.el7.x86_64", 0.05, True),
        # Three quarters of RAM were the default, which is no measure.
        ("2.6.32-431.el6", 0.2, False),
        ("2.6.32-431.el6", 0.03, True),
        (None, 0.001, False),
    ],
)
def test_tcp_mem_is_small_only_against_the_default_of_its_era(
    kernel: str | None, share_of_ram: float, *, expected: bool
) -> None:
    high = int(16 * GIB * share_of_ram) // 4096
    snapshot = make_snapshot(mem=high, tcp_mem=(high // 2, high // 4 * 3, high), kernel=kernel)
    assert expected == ("tcp_mem_below_default" in found(snapshot, make_event("tcp_memory")))


def test_limits_that_were_not_touched_are_not_called_small() -> None:
    assert {} == found(make_snapshot(tcp_mem=(1000, 2000, 30000), max_orphans=1024, mem=20))


@pytest.mark.parametrize(
    ("host", "claim", "shown"),
    [
        (
            make_snapshot(0, max_orphans=0),
            "orphan_limit_below_default",
            [("tcp_max_orphans", 0), ("default here", 65_536)],
        ),
        (
            make_snapshot(mem=4090, tcp_mem=(2048, 3072, 4096)),
            "tcp_mem_below_default",
            [("tcp_mem[2]", 16 << 20), ("default here", 1536 << 20)],
        ),
        (
            make_snapshot(tcp_mem=(4096, 87380, 16777216)),
            "tcp_mem_above_ram",
            [("tcp_mem[2]", 64 * GIB), ("RAM", 16 * GIB)],
        ),
    ],
)
def test_a_setting_stands_beside_its_measure_and_has_no_limit(host: Snapshot, claim: str, shown: object) -> None:
    finding = found(host)[claim]
    assert shown == [(each.name, each.value) for each in finding.evidence]
    assert {None} == {each.limit for each in finding.evidence}


@pytest.mark.parametrize(
    ("limit", "ram", "kernel", "expected"),
    [
        (65536, 16 * GIB, "6.1.0", False),
        (32768, 16 * GIB, "6.1.0", False),
        (16384, 16 * GIB, "6.1.0", True),
        (16384, 16 * GIB, "2.6.32", False),
        (262144, 1024 * GIB, "6.1.0", False),
        (0, 16 * GIB, "6.1.0", True),
    ],
)
def test_the_orphan_limit_is_small_against_half_the_hash_of_this_ram(
    limit: int, ram: int, kernel: str, *, expected: bool
) -> None:
    snapshot = make_snapshot(orphan=limit + 1, max_orphans=limit, ram=ram, kernel=kernel)
    assert expected == ("orphan_limit_below_default" in found(snapshot, make_event()))


@pytest.mark.parametrize(("high", "expected"), [(9 * GIB, True), (7 * GIB, False), (17 * GIB, False)])
def test_tcp_mem_above_half_of_ram_is_told(high: int, *, expected: bool) -> None:
    pages = high // 4096
    claims = found(make_snapshot(tcp_mem=(pages // 2, pages // 4 * 3, pages)))
    assert expected == ("tcp_mem_above_half_of_ram" in claims)


@pytest.mark.parametrize(("available", "expected"), [(90, False), (24, False), (20, True)])
def test_a_host_of_two_tib_is_not_short_of_ram_with_a_hundredth_of_it_available(
    available: int, *, expected: bool
) -> None:
    host = make_snapshot(press=True, meminfo={"MemTotal": 2048 * GIB, "MemAvailable": available * GIB})
    assert expected == ("host_ram_short" in found(host))


@pytest.mark.parametrize(("available", "expected"), [(4.0, False), (3.9, True), (None, True)])
def test_a_reset_that_could_not_be_sent_shows_no_lack_of_ram_where_much_is_available(
    available: float | None, *, expected: bool
) -> None:
    # It fails without a route and behind a firewall, too (tcp_send_active_reset).
    meminfo = {"MemTotal": 16 * GIB} | ({} if available is None else {"MemAvailable": int(available * GIB)})
    host = make_snapshot(press=True, meminfo=meminfo, counters={"TCPAbortFailed": 9})
    assert expected == ("host_ram_short" in found(host, history=(make_sample(60, TCPAbortFailed=2),)))


@pytest.mark.parametrize(("some", "full", "count"), [(9.9, 4.9, 0), (10.0, 0.0, 1), (30.0, 5.0, 2), (None, 6.0, 1)])
def test_a_host_that_waits_for_memory_is_told(some: float | None, full: float, count: int) -> None:
    pressure = {"memory some": PressureStall(avg10=some), "memory full": PressureStall(avg10=full)}
    claims = found(make_snapshot(pressure=pressure))
    assert count == len(claims["host_stalls_for_memory"].evidence if claims else ())


def test_mptcp_takes_part_only_when_it_has_sockets() -> None:
    rows = {"net/protocols": f"protocol size\n{ROW}"}
    assert "mptcp_takes_part" in found(make_snapshot(raw=rows), make_event("tcp_memory"))
    assert {} == found(make_snapshot(raw=rows))
    none = {"net/protocols": ROW.replace(" 37 ", "  0 ")}
    assert {} == found(make_snapshot(raw=none), make_event("tcp_memory"))


def test_the_container_that_openvz_names_is_told() -> None:
    event = make_event("close")
    claims = found(make_snapshot(kernel="2.6.32-042stab120"), replace(event, line=f"{event.line} (512 in CT1023)"))
    assert "orphans" == claims["openvz_container_limit"].cause
    assert "openvz_container_limit" not in found(make_snapshot(kernel="2.6.32-042stab120"), event)
