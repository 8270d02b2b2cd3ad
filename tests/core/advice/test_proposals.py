"""Hosts of every size and era: what is proposed fits into their RAM and into each other, and has its price."""

import re
from typing import Any, cast

from hypothesis import example, given, settings
from hypothesis import strategies as st
from material import LINES, make_event, make_snapshot
from msgspec.structs import replace

from agent.core.diagnosis.diagnose import diagnose
from agent.core.format import bytes_text, count_text
from agent.core.kernel.limits import default_limits
from agent.core.kernel.release import parse_kernel
from agent.core.model import Diagnosis, Snapshot
from agent.core.readings import PressureStall, Sockstat, TcpSockstat

MIB = 1 << 20
ORPHANS, MEM = "net.ipv4.tcp_max_orphans", "net.ipv4.tcp_mem"
PASTED = {"tcp_mem_holds_buffer_sizes", "tcp_mem_above_ram", "tcp_mem_out_of_order", "orphan_limit_holds_pages"}
PUT_BACK = re.compile(r"Set (tcp_mem|tcp_max_orphans) (back to|above what TCP holds|to a sixteenth|as close to)")
KERNELS = ["2.6.18-419.el5", "2.6.32-754.el6.x86_64", "3.2.0", "3.10.0-1160.el7.x86_64", "4.1.6", "4.18.0-240.el8"]
PASTES = [(4096, 87380, 16777216), (4096, 16384, 4194304), (8388608, 12582912, 16777216), (381414, 254279, 190707)]


@st.composite
def hosts(draw: st.DrawFn) -> Snapshot:
    """Make a host of 256 MiB to 1 TiB, with limits that are its kernel's own, or lowered, raised or pasted."""
    ram = draw(st.sampled_from([256, 512, 1024, 4096, 16384, 65536, 262144, 1048576])) * MIB
    kernel = draw(st.sampled_from([*KERNELS, "5.10.0-30-amd64", "6.1.0", "6.12.1", "7.3.4"]))
    page = draw(st.sampled_from([4096, 4096, 65536]))
    meminfo = {"MemTotal": ram, "MemFree": draw(st.integers(0, ram // 2)), "Cached": draw(st.integers(0, ram // 2))}
    if parse_kernel(kernel) >= parse_kernel("3.14.0"):  # type: ignore[operator] - both are there
        meminfo["MemAvailable"] = draw(st.integers(0, ram))
    if draw(st.integers(0, 3)) == 0:
        low = min(ram, 800 * MIB)
        meminfo |= {"HighTotal": ram - low, "LowTotal": low, "LowFree": draw(st.integers(0, low))}
    if draw(st.integers(0, 3)) == 0:
        meminfo["Hugetlb"] = ram - ram // 8
    defaults = default_limits(parse_kernel(kernel), meminfo, page)
    usual, orphans = defaults.tcp_mem or (96, 128, 192), defaults.tcp_max_orphans or 16384
    factor = draw(st.sampled_from([1, 1, 1, 2, 8, 0.5, 0.01, 0]))
    limits = cast("tuple[int, int, int]", tuple(int(factor * each) for each in usual))
    limits = draw(st.sampled_from([limits, limits, limits, *PASTES]))
    limit = int(orphans * draw(st.sampled_from([1, 1, 1, 2, 8, 0.5, 0.001, 0])))
    mem = draw(st.integers(0, 11 * min(limits[2], ram // page) // 10 + 10))
    full = draw(st.floats(0, 9))
    orphan = draw(st.integers(0, 11 * limit // 10 + 10))
    return make_snapshot(
        orphan,
        mem * (page // 4096 if parse_kernel(kernel) == parse_kernel("4.18.0-240.el8") else 1),
        max_orphans=limit,
        tcp_mem=limits,
        alloc=orphan + draw(st.integers(1, 2**20) | st.integers(1, 999)),
        kernel=kernel,
        # How many CPUs keep memory back is not known: test_room.py has what that does to a price.
        cpus=None,
        page_size_bytes=page,
        meminfo=draw(st.sampled_from([meminfo, meminfo, meminfo, {}])),
        pressure={"memory full": PressureStall(avg10=full)} if draw(st.booleans()) else {},
        sysctls={"net.ipv4.tcp_orphan_retries": (0,), "net.ipv4.tcp_rmem": (4096, 131072, 6291456)},
    )


texts = st.sampled_from(sorted(LINES))


def changes(diagnosis: Diagnosis) -> list[tuple[str, Any, Any, str, str]]:
    return [
        (step.sysctl.key, step.sysctl.current, step.sysctl.proposed, step.action, f"{step.why} {step.risk}")
        for step in diagnosis.advice
        if step.sysctl and step.sysctl.key in (ORPHANS, MEM)
    ]


def available(meminfo: dict[str, int]) -> int:
    """What this host has to give at most, however it is counted."""
    free = meminfo.get("MemAvailable", meminfo["MemFree"] + meminfo["Cached"] // 2)
    return min(free, meminfo["LowFree"]) if meminfo.get("HighTotal") else free


@settings(max_examples=400, deadline=None)
@given(hosts(), texts)
def test_nothing_is_lowered_but_what_was_pasted(snapshot: Snapshot, text: str) -> None:
    diagnosis = diagnose(snapshot, (make_event(text),), ())
    if PASTED & {finding.claim for finding in diagnosis.findings}:
        return
    for _, current, proposed, _, _ in changes(diagnosis):
        pairs = zip(current, proposed, strict=True) if isinstance(proposed, tuple) else [(current, proposed)]
        assert all(after >= before for before, after in pairs)
        assert not isinstance(proposed, tuple) or list(proposed) == sorted(proposed)


@settings(max_examples=400, deadline=None)
@given(hosts(), texts)
def test_nothing_is_proposed_beyond_what_is_available(snapshot: Snapshot, text: str) -> None:
    diagnosis = diagnose(snapshot, (make_event(text),), ())
    page = snapshot.page_size_bytes or 0
    for key, current, proposed, action, _ in changes(diagnosis):
        if key == MEM:
            assert snapshot.meminfo
            # What is held already may be kept, and what is lowered costs nothing.
            held = min((snapshot.sockstat.tcp.mem or 0) * mem_unit(snapshot) // page, proposed[2])  # type: ignore[union-attr]
            more = (proposed[2] - max(current[2], held)) * page
            assert more <= available(snapshot.meminfo) or proposed[2] <= max(current)
        elif snapshot.meminfo and not PUT_BACK.match(action):
            assert (proposed - current) * mem_unit(snapshot) <= available(snapshot.meminfo)
    if (snapshot.pressure.get("memory full") or PressureStall(avg10=0)).avg10 >= 5:  # type: ignore[operator]
        assert all(
            PUT_BACK.match(action) for key, _, _, action, _ in changes(diagnosis) if snapshot.meminfo or key == MEM
        )


@settings(max_examples=400, deadline=None)
@given(hosts(), texts)
def test_tcp_mem_holds_the_orphans_that_are_proposed(snapshot: Snapshot, text: str) -> None:
    diagnosis = diagnose(snapshot, (make_event(text),), ())
    high = snapshot.sysctls[MEM][2]
    tcp = snapshot.sockstat.tcp if snapshot.sockstat else None
    assert tcp
    orphans, mem = tcp.orphan or 0, (tcp.mem or 0) * mem_unit(snapshot)
    each = min(16384, mem // orphans) if orphans >= 300 else 16384
    if orphans >= max(300, (tcp.alloc or 0) / 2):
        each = -(-mem // (tcp.alloc or 1))
    for key, _, proposed, action, _ in changes(diagnosis):
        high = proposed[2] if key == MEM else high
        # Of a default that is put back what was measured counts; what is assumed need not fit.
        is_assumed = orphans < max(300, (tcp.alloc or 0) / 2)
        if key == ORPHANS and not (PUT_BACK.match(action) and is_assumed):
            assert proposed * max(each, mem_unit(snapshot)) <= high * (snapshot.page_size_bytes or 0)


@settings(max_examples=400, deadline=None)
@given(hosts(), texts)
def test_every_number_of_orphans_has_the_price_that_was_measured_or_is_called_assumed(
    snapshot: Snapshot, text: str
) -> None:
    tcp = snapshot.sockstat.tcp if snapshot.sockstat else None
    assert tcp
    least, alloc, orphans, mem = mem_unit(snapshot), tcp.alloc or 0, tcp.orphan or 0, tcp.mem or 0
    mem *= least
    for key, _, _, action, said in changes(diagnose(snapshot, (make_event(text),), ())):
        if key == MEM and PUT_BACK.match(action):
            continue
        is_measured = alloc >= 300 if key == MEM and "tcp_max_orphans" not in action else orphans >= max(300, alloc / 2)
        price = max(least, min(16384, mem // orphans) if orphans >= 300 else 16384)
        if is_measured and -(-mem // alloc) < least:
            how = "one page" if least == snapshot.page_size_bytes else "the least"
            assert f"at {bytes_text(least)} a socket, {how}" in said
        elif is_measured:
            assert f"at {bytes_text(-(-mem // alloc))} a socket, measured here on {count_text(alloc)}" in said
        else:
            assert re.search(f"at ({bytes_text(price)}|{bytes_text(max(least, 16384))}) a socket, assumed", said)


@settings(max_examples=400, deadline=None)
@given(hosts(), texts)
def test_tcp_mem_is_never_said_to_hold_fewer_orphans_than_there_are(snapshot: Snapshot, text: str) -> None:
    tcp = snapshot.sockstat.tcp if snapshot.sockstat else None
    assert tcp
    high = snapshot.sysctls[MEM][2] * (snapshot.page_size_bytes or 0)
    # A page is the least that one takes, whatever the count of the moment says.
    if max(tcp.mem or 0, tcp.orphan or 0) * (snapshot.page_size_bytes or 0) > high or not tcp.orphan:
        return
    for step in diagnose(snapshot, (make_event(text),), ()).advice:
        for held in re.findall(
            r"tcp_mem holds (?:only |about )?([\d,]+) (?:of them|orphans)", f"{step.why} {step.risk}"
        ):
            if tcp.orphan >= 300:
                assert int(held.replace(",", "")) >= tcp.orphan


@settings(max_examples=400, deadline=None)
@given(hosts(), texts)
def test_a_higher_orphan_limit_is_twice_the_limit_or_as_much_as_there_is_room_for(
    snapshot: Snapshot, text: str
) -> None:
    for key, current, proposed, action, said in changes(diagnose(snapshot, (make_event(text),), ())):
        if key == ORPHANS and not PUT_BACK.match(action):
            assert proposed >= 2 * current or "This host has no room for that many" in said


@settings(max_examples=300, deadline=None)
@given(hosts(), texts)
def test_a_default_is_never_called_wrong(snapshot: Snapshot, text: str) -> None:
    usual = default_limits(parse_kernel(snapshot.kernel), snapshot.meminfo, snapshot.page_size_bytes)
    claims = {finding.claim for finding in diagnose(snapshot, (make_event(text),), ()).findings}
    if snapshot.sysctls[MEM] == usual.tcp_mem:
        assert set() == claims & {"tcp_mem_below_default", *PASTED - {"orphan_limit_holds_pages"}}
    if snapshot.sysctls[ORPHANS] == (usual.tcp_max_orphans,):
        assert set() == claims & {"orphan_limit_below_default", "orphan_limit_holds_pages"}


@settings(max_examples=300, deadline=None)
@given(hosts(), texts)
def test_a_wrong_setting_is_the_first_step(snapshot: Snapshot, text: str) -> None:
    diagnosis = diagnose(snapshot, (make_event(text),), ())
    claims = {finding.claim for finding in diagnosis.findings}
    wrong = {"tcp_mem_holds_buffer_sizes", "tcp_mem_above_ram", "tcp_mem_out_of_order"}
    if claims & wrong or ("orphan_limit_below_default" in claims and diagnosis.cause == "orphans"):
        first = diagnosis.advice[0].action
        assert PUT_BACK.match(first) or first.startswith("Find what set tcp_mem")


def mem_unit(snapshot: Snapshot) -> int:
    """4.10 to 5.19 count in 4096 bytes."""
    return 4096 if (snapshot.kernel or "").startswith(("4.18", "5.10")) else snapshot.page_size_bytes or 0


@settings(max_examples=400, deadline=None)
@example(make_snapshot(), ["orphans", "tcp_memory"])
@example(make_snapshot(65_600, 380_000, alloc=70_000), ["orphans", "tcp_memory"])
@given(hosts(), st.lists(texts, min_size=1, max_size=2))
def test_each_setting_that_is_proposed_is_written_by_a_command_and_kept_by_a_file(
    snapshot: Snapshot, texts: list[str]
) -> None:
    advice = diagnose(snapshot, tuple(map(make_event, texts)), ()).advice
    for step in advice:
        if step.sysctl:
            value, key = step.sysctl.proposed, step.sysctl.key
            numbers = " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
            written = [each for each in advice if any(f"{key}={numbers}" in c.replace("'", "") for c in each.commands)]
            assert [step] == written or "by the command of the step above" in step.action
            assert any(f"{key} = {numbers}\n" in (each.persist or "") for each in written)


def test_where_both_limits_are_raised_more_orphans_wait_for_more_memory() -> None:
    both = (make_event("orphans"), make_event("tcp_memory"))
    memory, orphans = (step for step in diagnose(make_snapshot(), both, ()).advice if step.sysctl)
    assert ("sysctl -w net.ipv4.tcp_mem='380910 507880 761820'",) == memory.commands
    assert ("sysctl -w net.ipv4.tcp_max_orphans=131072",) == orphans.commands
    assert orphans.risk.startswith("Unswappable memory: ")
    first = "Raise tcp_mem first: today's holds only 94,930 of them, and living connections would stall."
    assert orphans.risk.endswith(f" may go to sockets. {first}")
    *_, slim = (step for step in diagnose(make_snapshot(65_600, 70_000, alloc=66_000), both, ()).advice if step.sysctl)
    assert "Raise tcp_mem first" not in slim.risk


def test_the_last_proposal_wins_at_the_next_boot_whatever_was_kept_before() -> None:
    """Files are read by name, and a step writes its own anew: both limits first, then the second of them alone."""
    files: dict[str, str] = {}
    host = make_snapshot(20_000, 100_000, alloc=70_000)
    for orphan in (20_000, 100, 66_000, 150_000, 220_000):
        host = replace(host, sockstat=Sockstat(tcp=TcpSockstat(orphan=orphan, mem=100_000, alloc=orphan + 50_000)))
        kept = dict(host.sysctls)
        diagnosis = diagnose(host, (make_event("orphans"),), ())
        for step in diagnosis.advice:
            for text in filter(None, (step.persist or "").split("# sockmem-agent: ")):
                (file,) = re.findall(r"# Put this into ([^ ,]+)", text)
                files[file] = text
                kept |= settings_of(text)
        at_boot = {key: value for _, text in sorted(files.items()) for key, value in settings_of(text).items()}
        assert kept == host.sysctls | at_boot
        host = replace(host, sysctls=kept)
    assert 2 == len(files)


def settings_of(text: str) -> dict[str, tuple[int, ...]]:
    lines = (line.partition(" = ") for line in text.splitlines() if " = " in line and not line.startswith("#"))
    return {key: tuple(map(int, value.split())) for key, _, value in lines}
