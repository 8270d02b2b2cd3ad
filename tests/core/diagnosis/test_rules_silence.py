from typing import Any

import pytest
from material import make_event, make_sample, make_snapshot, make_table
from msgspec.structs import replace

from agent.core.diagnosis.diagnose import diagnose
from agent.core.model import Diagnosis, Finding
from agent.core.readings import Elsewhere, FullGroup, SocketGroup, Tally

FULL = FullGroup(path="/system.slice/shop.service", current_bytes=99, limit_bytes=100, sock_bytes=60, refused=4)
DROPS = {"TCPRcvQDrop": 9, "PruneCalled": 30}


def judge(moved: dict[str, int], *full: FullGroup, line: bool = False, **others: Any) -> Diagnosis:
    """Diagnose a host whose counters moved by so much in ten seconds."""
    before = make_sample(10, **dict.fromkeys(moved, 1))
    counters = {name: 1 + delta for name, delta in moved.items()}
    snapshot = make_snapshot(counters=counters, sockets=make_table(full_groups=full), **others)
    return diagnose(snapshot, (make_event("tcp_memory"),) if line else (), (before,))


def found(*args: Any, **others: Any) -> dict[str, Finding]:
    return {each.claim: each for each in judge(*args, **others).findings}


GROUPS = {"/": 99, "/system.slice": 88}


def test_the_largest_cgroup_is_named_when_data_is_refused_far_below_the_limits() -> None:
    name = "cgroup_presses_its_sockets"
    assert name in found(DROPS, cgroup_sock_bytes=GROUPS)
    assert name not in found(DROPS, cgroup_sock_bytes=GROUPS, mem=200_000)
    assert name not in found(DROPS, cgroup_sock_bytes=GROUPS, press=True)
    assert name not in found(DROPS, cgroup_sock_bytes={"/": 99})
    assert name not in found({"TCPRcvQDrop": 0}, cgroup_sock_bytes=GROUPS)


def test_a_cgroup_that_hits_its_own_limit_and_starves_alone_is_the_verdict() -> None:
    diagnosis = judge(DROPS, replace(FULL, stalled_percent=31.5), cgroup_sock_bytes=GROUPS)
    first = diagnosis.findings[0]

    assert ("cgroup_limit", "tcp_memory", "likely") == (first.claim, diagnosis.cause, diagnosis.confidence)
    assert [
        ("full cgroup", "shop.service", None),
        ("its memory", 99, 100),
        ("of sockets", 60, None),
        ("limit hit", 4, None),
        ("stalled for memory, avg10", 31.5, None),
        ("TCPRcvQDrop moved by", 9, None),
    ] == [(each.name, each.value, each.limit) for each in first.evidence[:6]]
    assert diagnosis.summary.startswith("shop.service is at its own memory limit (100 B): the kernel holds ")
    assert "cgroup_presses_its_sockets" not in found(DROPS, FULL, cgroup_sock_bytes=GROUPS)


@pytest.mark.parametrize(
    ("moved", "group", "others"),
    [
        ({"TCPRcvQDrop": 0}, replace(FULL, sock_bytes=40), {}),
        ({"TCPRcvQDrop": 9, "RcvPruned": 9, "PruneCalled": 9}, replace(FULL, sock_bytes=40), {}),  # slow readers
        (DROPS, replace(FULL, refused=0), {}),
        (DROPS, replace(FULL, refused_meanwhile=0, sock_bytes=40), {}),
        (DROPS, replace(FULL, sock_bytes=0), {}),
        (DROPS, FULL, {"mem": 380_000}),
        (DROPS, FULL, {"press": True}),
        ({**DROPS, "TCPMemoryPressures": 1}, FULL, {}),
        (DROPS, FULL, {"line": True}),
    ],
)
def test_a_cgroup_is_no_verdict_where_it_is_not_it_that_starves(
    moved: dict[str, int], group: FullGroup, others: dict[str, Any]
) -> None:
    assert "cgroup_limit" not in found(moved, group, **others)


def test_a_cgroup_whose_sockets_fill_its_limit_needs_no_refusal_from_6_1_on() -> None:
    finding = found({"TCPRcvQDrop": 0}, replace(FULL, refused_meanwhile=0))["cgroup_limit"]

    assert "tcp_memory" == finding.cause


def test_a_cgroup_that_starves_alone_is_relieved_and_no_limit_of_the_host_is_touched() -> None:
    [step] = judge(DROPS, FULL).advice

    assert "Raise the memory limit of shop.service, or fix what fills it." == step.action
    assert step.sysctl is None
    assert any("/sys/fs/cgroup/system.slice/shop.service/memory.stat" in command for command in step.commands)
    assert "It uses 99 B of 100 B, 60 B of it in sockets" in step.why


def test_memory_that_is_short_between_readings_is_told_by_its_counters() -> None:
    diagnosis = judge({"TCPMemoryPressures": 50, "TCPRcvQDrop": 20_000, "PruneCalled": 20_000})

    assert ("tcp_memory", "likely") == (diagnosis.cause, diagnosis.confidence)
    assert "memory_short_between_readings" == diagnosis.findings[0].claim
    assert "memory_short_between_readings" not in found({"TCPMemoryPressures": 50, "TCPRcvQDrop": 0})
    short = {"meminfo": {"MemTotal": 1 << 34, "MemAvailable": 1 << 28}}
    assert "host_ram_short" in found({"TCPMemoryPressures": 50, "TCPRcvQDrop": 20_000}, **short)
    assert "tcp_memory" != judge({"TCPMemoryPressures": 50, "TCPRcvQDrop": 20_000}, **short).cause


def test_whose_sockets_lose_data_is_told_where_data_is_refused() -> None:
    def lost(drops: int, seconds: float | None = 5.0, moved: dict[str, int] = DROPS) -> Diagnosis:
        groups = [
            SocketGroup(cgroup=cgroup, port=port, held={"established": Tally(sockets=2, bytes=9)}, drops=each)
            for cgroup, port, each in ((7, 443, drops), (8, 5432, 3))
        ]
        paths = {1: "/", 7: "/system.slice/web.service", 8: "/system.slice/db.service"}
        before = make_sample(10, **dict.fromkeys(moved, 1))
        counters = {name: 1 + delta for name, delta in moved.items()}
        table = make_table(*groups, paths=paths, drops_seconds=seconds)
        return diagnose(make_snapshot(mem=380_000, counters=counters, sockets=table), (), (before,))

    [finding] = [each for each in lost(40).findings if each.claim == "sockets_lose_data"]
    assert [
        ("loses data", "web.service"),
        ("in 5 s", 40),
        ("on ports", "443"),
        ("loses data", "db.service"),
        ("in 5 s", 3),
        ("on ports", "5432"),
    ] == [(each.name, each.value) for each in finding.evidence]
    assert "Data is being lost by web.service and db.service." in lost(40).summary
    assert "being lost" not in lost(40, None).summary
    assert "being lost" not in lost(40, moved={"TCPRcvQDrop": 0}).summary


def test_a_pod_that_no_dump_reaches_loses_data_by_the_counters_of_its_namespace() -> None:
    pod = "pod 7b6ab6a2"
    elsewhere = Elsewhere(
        namespaces=2, counters={"TCPRcvQDrop": 9_000}, moved={pod: {"TCPRcvQDrop": 900}, "db": {"TCPOFODrop": 9}}
    )
    before = make_sample(10, TCPRcvQDrop=8_100, TCPOFODrop=0)
    snapshot = make_snapshot(counters={"TCPRcvQDrop": 0, "TCPOFODrop": 9}, elsewhere=elsewhere, mem=380_000)
    diagnosis = diagnose(snapshot, (), (before,))

    [finding] = [each for each in diagnosis.findings if each.claim == "sockets_lose_data"]
    assert [("loses data", pod), ("refused there", 900), ("loses data", "db"), ("refused there", 9)] == [
        (each.name, each.value) for each in finding.evidence
    ]
    assert f"Data is being lost by {pod} and db." in diagnosis.summary


def test_all_is_not_well_while_the_pressure_flag_is_up_or_data_is_refused() -> None:
    assert "All is well" in judge({}).summary
    assert "All is well" not in judge({}, trigger="pressure").summary
    flag = judge({}, press=True)
    assert ("none", True) == (flag.cause, "press flag is up" in flag.summary)
    assert "refused 20,000 received segments" in judge({"TCPRcvQDrop": 20_000}).summary


@pytest.mark.parametrize(
    ("errors", "mem", "others", "expected"),
    [
        (1_204, 500, {}, "UDP, not TCP, is losing data: 1,204 packets were refused for lack of memory (UdpMemErrors)"),
        (0, 9_990, {}, "UDP, not TCP, is losing data: it holds 9,990 of 10,000 pages (udp_mem)"),
        (
            7,
            9_990,
            {"press": True},
            "UDP is losing data, too: 7 packets were refused for lack of memory (UdpMemErrors), it holds 9,990 of",
        ),
        (0, 9_000, {}, None),
        (0, None, {}, None),
        (0, 9_990, {"sysctls": {}}, None),
    ],
)
def test_udp_that_runs_out_is_remarked(
    errors: int, mem: int | None, others: dict[str, Any], expected: str | None
) -> None:
    limits = {"sysctls": {"net.ipv4.udp_mem": (5_000, 7_500, 10_000)}} | others
    snapshot = make_snapshot(snmp={"UdpMemErrors": 50 + errors}, **limits)
    snapshot = replace(snapshot, sockstat=replace(snapshot.sockstat, udp_mem=mem))
    diagnosis = diagnose(snapshot, (), (make_sample(10, UdpMemErrors=50),))

    said = next((gap.why for gap in diagnosis.gaps if gap.what == "UDP"), None)
    assert (said or "").startswith(expected) if expected else said is None
    assert ("UDP, not TCP" in diagnosis.summary) == (expected is not None and not others)


def test_data_that_is_dropped_under_pressure_is_told() -> None:
    assert "data_dropped_without_message" in found(DROPS, mem=300_000, press=True)
    assert "data_dropped_without_message" in found(DROPS, mem=380_000)
    assert "data_dropped_without_message" not in found(DROPS)
    assert "drops received data and has logged nothing" in judge(DROPS, mem=300_000, press=True).summary
    assert "data_dropped_without_message" not in found({"PruneCalled": 9, "RcvPruned": 9}, mem=380_000)


RESET = {"TCPAbortOnMemory": 50}


@pytest.mark.parametrize(
    ("others", "claim", "expected"),
    [
        # Memory was never pressed: what was killed were orphans.
        ({"TCPMemoryPressures": 0}, "orphans_burst_passed", ("orphans", "likely")),
        ({"TCPMemoryPressures": 1}, "memory_pressed_meanwhile", ("tcp_memory", "possible")),
        ({}, "cause_undecided", ("undetermined", "possible")),
    ],
)
@pytest.mark.parametrize("trigger", ["command", "pressure"])
def test_a_host_whose_counters_show_kills_is_not_called_well_though_no_line_is_known(
    others: dict[str, int], claim: str, expected: tuple[str, str], trigger: str
) -> None:
    diagnosis = judge(RESET | others, trigger=trigger)
    assert (claim, *expected) == (diagnosis.findings[0].claim, diagnosis.cause, diagnosis.confidence)
    assert "the kernel reset connections" in diagnosis.summary.lower() or claim == "memory_pressed_meanwhile"
    assert "TCPAbortOnMemory counts 50 resets in the last 10 s." in diagnosis.summary
    assert "its trace" not in diagnosis.summary
    # Whoever asks by command may have a line; the service has read the log.
    first = diagnosis.advice[0].commands[0] if diagnosis.advice else ""
    assert ("sockmem-agent scan --journal --since 1h" in first) == (trigger == "command")


def test_kills_of_long_ago_leave_a_host_well() -> None:
    assert "All is well" in judge({"TCPAbortOnMemory": 0}, trigger="command").summary


@pytest.mark.parametrize(
    ("moved", "host"),
    [
        ({}, {"orphan": 65_600}),
        ({}, {"mem": 390_000, "press": True}),
        (DROPS, {"mem": 300_000, "press": True}),
        (DROPS | {"TCPMemoryPressures": 3}, {}),
    ],
)
def test_only_who_follows_the_log_says_that_the_kernel_has_logged_nothing(
    moved: dict[str, int], host: dict[str, Any]
) -> None:
    assert "has logged nothing" in judge(moved, trigger="pressure", **host).summary
    assert "logged" not in judge(moved, trigger="command", **host).summary
