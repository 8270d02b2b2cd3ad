from typing import cast

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from material import GIB, events, histories, make_event, make_sample, make_snapshot, snapshots

from agent.core.advice.orphans import orphan_life_seconds
from agent.core.diagnosis.diagnose import diagnose
from agent.core.model import Advice, Event, Sample, Snapshot

ORPHANS, MEM = "net.ipv4.tcp_max_orphans", "net.ipv4.tcp_mem"
IN_BYTES = (4096, 87380, 16777216)
RETRIES, FIN = "net.ipv4.tcp_orphan_retries", "net.ipv4.tcp_fin_timeout"


def advise(snapshot: Snapshot, *said: Event, history: tuple[Sample, ...] = ()) -> tuple[Advice, ...]:
    return diagnose(snapshot, said, history).advice


def step(advice: tuple[Advice, ...], key: str) -> Advice | None:
    return next((each for each in advice if each.sysctl and each.sysctl.key == key), None)


def proposed(advice: tuple[Advice, ...], key: str) -> int | tuple[int, ...] | None:
    found = step(advice, key)
    return found.sysctl.proposed if found and found.sysctl else None


def words(advice: tuple[Advice, ...]) -> str:
    return " ".join(f"{each.action} {each.why} {each.risk} {each.commands} {each.persist}" for each in advice)


@settings(max_examples=100, deadline=None)
@given(snapshots, events, histories)
def test_a_limit_that_is_raised_is_never_lowered(
    snapshot: Snapshot, said: tuple[Event, ...], history: tuple[Sample, ...]
) -> None:
    advice = diagnose(snapshot, said, history).advice
    orphans, memory = step(advice, ORPHANS), step(advice, MEM)
    if orphans and orphans.sysctl:
        assert cast("int", orphans.sysctl.proposed) > cast("int", orphans.sysctl.current)
        assert cast("int", orphans.sysctl.proposed) < 2**31
    if memory and memory.sysctl and "Raise" in memory.action:
        current, new = cast("tuple[int, ...]", memory.sysctl.current), cast("tuple[int, ...]", memory.sysctl.proposed)
        assert all(after >= before for before, after in zip(current, new, strict=True))
        assert list(new) == sorted(new)


@settings(max_examples=100, deadline=None)
@given(snapshots, events, histories)
def test_tw_recycle_is_named_only_to_switch_it_off(
    snapshot: Snapshot, said: tuple[Event, ...], history: tuple[Sample, ...]
) -> None:
    advice = diagnose(snapshot, said, history).advice
    named = [each for each in advice if "recycle" in words((each,))]
    on = snapshot.sysctls.get("net.ipv4.tcp_tw_recycle", (0,))[:1] not in ((), (0,))
    assert on == bool(named)
    assert all(each.sysctl and each.sysctl.proposed == 0 for each in named)
    assert "tw_reuse" not in words(advice)
    assert "tw_buckets" not in words(advice)


@settings(max_examples=100, deadline=None)
@given(
    peak=st.integers(0, 2**20),
    limit=st.integers(1, 2**20),
    mem=st.integers(0, 10**7),
    alloc=st.integers(1, 2**20),
    ram=st.integers(2**28, 2**42),
)
def test_room_for_orphans_fits_into_a_quarter_of_ram(peak: int, limit: int, mem: int, alloc: int, ram: int) -> None:
    snapshot = make_snapshot(peak, mem, max_orphans=limit, alloc=alloc, ram=ram)
    new = proposed(advise(snapshot, make_event()), ORPHANS)
    assume(isinstance(new, int))
    each = max(4096, mem * 4096 // alloc)
    assert cast("int", new) * each <= ram // 4


@settings(max_examples=100, deadline=None)
@given(
    limits=st.tuples(st.integers(1, 10**8), st.integers(1, 10**8), st.integers(1, 10**8)),
    mem=st.integers(0, 10**8),
    ram=st.integers(2**28, 2**42),
)
def test_tcp_mem_stays_within_a_quarter_of_ram(limits: tuple[int, int, int], mem: int, ram: int) -> None:
    advice = advise(make_snapshot(mem=mem, tcp_mem=limits, ram=ram), make_event("tcp_memory"))
    new = proposed(advice, MEM)
    assume(isinstance(new, tuple))
    # Limits out of order are put in order without lowering one, so the largest of today's may stay.
    assert cast("tuple[int, ...]", new)[2] * 4096 <= max(ram // 4, max(limits) * 4096)


def test_orphans_get_four_times_the_peak() -> None:
    advice = advise(make_snapshot(65600, 90000, alloc=70000), make_event())
    assert 263168 == proposed(advice, ORPHANS)
    found = step(advice, ORPHANS)
    assert found
    assert ("sysctl -w net.ipv4.tcp_max_orphans=263168",) == found.commands
    assert "net.ipv4.tcp_max_orphans = 263168\n" in (found.persist or "")


def test_the_peak_of_the_history_counts() -> None:
    history = (make_sample(2, orphan=70000),)
    assert 280576 == proposed(advise(make_snapshot(65600, 90000, alloc=70000), make_event(), history=history), ORPHANS)


def test_the_folklore_number_never_lowers_a_larger_limit() -> None:
    snapshot = make_snapshot(3, max_orphans=524288, ram=256 * GIB)
    assert 1048576 == proposed(advise(snapshot, make_event()), ORPHANS)


def test_the_price_is_measured_on_this_host() -> None:
    found = step(advise(make_snapshot(65600, 98000, alloc=70000), make_event()), ORPHANS)
    assert found
    assert "at 8.1 KiB per socket, as measured here" in found.risk
    assert "64" not in found.risk


def test_memory_that_would_run_out_first_is_told() -> None:
    found = step(advise(make_snapshot(65600, 300000, alloc=66000), make_event()), ORPHANS)
    assert found
    assert "TCP memory runs out first" in found.risk


def test_a_host_without_room_gets_no_higher_limit_and_is_told_so() -> None:
    advice = advise(make_snapshot(40000, 60000, max_orphans=40960, alloc=41000, ram=GIB), make_event())
    assert None is proposed(advice, ORPHANS)
    assert any("this host has no room for more" in each.action for each in advice)


@pytest.mark.parametrize("missing", ["limit", "alloc", "mem", "ram and tcp_mem"])
def test_without_inputs_the_advice_has_no_numbers(missing: str) -> None:
    snapshot = {
        "limit": make_snapshot(65600, max_orphans=None),
        "alloc": make_snapshot(65600, alloc=None),
        "mem": make_snapshot(65600, mem=None),
        "ram and tcp_mem": make_snapshot(65600, ram=None, tcp_mem=None),
    }[missing]
    advice = advise(snapshot, make_event())
    assert None is proposed(advice, ORPHANS)
    assert any("Compare tcp_max_orphans" in each.action for each in advice)


def test_without_ram_the_kernels_own_limit_on_memory_bounds_the_orphans() -> None:
    found = step(advise(make_snapshot(65600, 98000, alloc=70000, ram=None), make_event()), ORPHANS)
    assert found
    assert "More would not fit into tcp_mem" in found.why


@pytest.mark.parametrize(("current", "expected"), [(0, 5), (8, 5), (15, 5), (5, None), (3, None), (1, None)])
def test_orphan_retries_of_zero_are_eight(current: int, expected: int | None) -> None:
    advice = advise(make_snapshot(65600, sysctls={RETRIES: (current,)}), make_event())
    assert expected == proposed(advice, RETRIES)


@pytest.mark.parametrize(("current", "expected"), [(30, None), (60, None), (61, 60), (300, 60)])
def test_fin_timeout_is_mended_only_above_60(current: int, expected: int | None) -> None:
    assert expected == proposed(advise(make_snapshot(65600, sysctls={FIN: (current,)}), make_event()), FIN)


def test_tcp_mem_is_raised_in_proportion_and_in_pages() -> None:
    found = step(advise(make_snapshot(mem=380000), make_event("tcp_memory")), MEM)
    assert found
    assert found.sysctl
    assert (380910, 507880, 761820) == found.sysctl.proposed
    assert ("sysctl -w net.ipv4.tcp_mem='380910 507880 761820'",) == found.commands
    assert "1.5 GiB more" in found.risk


def test_tcp_mem_at_a_quarter_of_ram_is_not_raised() -> None:
    advice = advise(make_snapshot(mem=1040000, tcp_mem=(520000, 700000, 1048576)), make_event("tcp_memory"))
    assert None is proposed(advice, MEM)
    assert any("Leave tcp_mem as it is" in each.action for each in advice)


def test_tcp_mem_without_ram_is_advised_without_numbers() -> None:
    advice = advise(make_snapshot(mem=380000, ram=None), make_event("tcp_memory"))
    assert None is proposed(advice, MEM)
    assert any("Raise tcp_mem only after" in each.action for each in advice)


def test_tcp_mem_written_in_bytes_is_told_whatever_the_cause() -> None:
    advice = advise(make_snapshot(65600, tcp_mem=IN_BYTES), make_event())
    assert (196608, 262144, 393216) == proposed(advice, MEM)


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [
        ("2.6.32-754.el6.x86_64", (1572864, 2097152, 3145728)),
        ("3.10.0-1160.el7.x86_64", (393216, 524288, 786432)),
        ("4.1.6", (393216, 524288, 786432)),
        ("4.4.155", (196608, 262144, 393216)),
    ],
)
def test_tcp_mem_written_in_bytes_goes_back_to_the_default_of_its_kernel(
    kernel: str, expected: tuple[int, ...]
) -> None:
    found = step(advise(make_snapshot(65600, tcp_mem=IN_BYTES, kernel=kernel), make_event()), MEM)
    assert found
    assert found.sysctl
    assert expected == found.sysctl.proposed
    assert f"The kernel's own default for this host is about {' '.join(map(str, expected))}." in found.why


@pytest.mark.parametrize("kernel", ["4.2.0", "4.3.5", None])
def test_a_default_that_is_not_known_is_not_claimed(kernel: str | None) -> None:
    found = step(advise(make_snapshot(65600, tcp_mem=IN_BYTES, kernel=kernel), make_event()), MEM)
    assert found
    assert "default" not in words((found,))


def test_a_bound_where_there_was_none_lies_well_above_what_is_in_use_and_has_its_price() -> None:
    snapshot = make_snapshot(mem=600_000, tcp_mem=IN_BYTES, kernel="3.10.0-1160.el7.x86_64")
    found = step(advise(snapshot, make_event("tcp_memory")), MEM)
    assert found
    assert found.sysctl
    assert (450_000, 600_000, 900_000) == found.sysctl.proposed
    assert "about 393216 524288 786432" in found.why
    assert "3.4 GiB for all TCP, 22 % of RAM; the highest known use is 2.3 GiB" in found.risk


def test_a_bound_where_there_was_none_lies_above_what_was_in_use_an_hour_ago_too() -> None:
    history = (make_sample(3600, mem=400_001),)
    advice = advise(make_snapshot(tcp_mem=IN_BYTES), make_event("tcp_memory"), history=history)
    assert (300_003, 400_004, 600_006) == proposed(advice, MEM)


@settings(max_examples=100, deadline=None)
@given(
    mem=st.integers(0, 2**24),
    ram=st.integers(2**28, 2**36),
    kernel=st.sampled_from(["2.6.32-754.el6", "3.10.0-1160.el7.x86_64", "4.18.0-240.el8.aarch64", "6.12.1", None]),
    page=st.sampled_from([4096, 65536]),
)
def test_a_bound_where_there_was_none_is_below_ram_and_half_as_much_again_as_the_use(
    mem: int, ram: int, kernel: str | None, page: int
) -> None:
    snapshot = make_snapshot(mem=mem, ram=ram, kernel=kernel, tcp_mem=IN_BYTES, page_size_bytes=page)
    new = proposed(advise(snapshot, make_event("tcp_memory")), MEM)
    # Without a release nobody knows what mem counts in on a host of large pages.
    assume(isinstance(new, tuple) and (kernel or page == 4096))
    unit = 4096 if kernel and kernel.startswith("4.18") else page
    assert 3 * mem * unit <= 2 * cast("tuple[int, ...]", new)[2] * page <= 2 * ram
    assert list(cast("tuple[int, ...]", new)) == sorted(cast("tuple[int, ...]", new))


def test_where_tcp_holds_most_of_ram_its_holders_come_before_any_bound() -> None:
    advice = advise(make_snapshot(mem=3_000_000, tcp_mem=IN_BYTES), make_event("tcp_memory"))
    assert None is proposed(advice, MEM)
    assert any("Leave tcp_mem as it is and fix what holds the memory" in each.action for each in advice)


def test_a_cgroups_limit_is_not_cured_by_tcp_mem() -> None:
    snapshot = make_snapshot(kernel="3.10.0-1160.el7.x86_64", kmem_tcp_failcnt=912)
    advice = advise(snapshot, make_event("tcp_memory"))
    assert None is proposed(advice, MEM)
    assert "refused 912 charges" in words(advice)


def test_buffers_far_above_the_usual_are_trimmed() -> None:
    rmem = "net.ipv4.tcp_rmem"
    advice = advise(make_snapshot(mem=390000, sysctls={rmem: (4096, 131072, 33554432)}), make_event("tcp_memory"))
    assert (4096, 131072, 6291456) == proposed(advice, rmem)


@pytest.mark.parametrize(
    ("kernel", "mebibytes", "expected"),
    [
        ("6.14.0", 32, 6),
        ("6.15.2", 64, None),
        ("6.17.9", 64, None),
        ("6.18.2", 32, None),
        ("7.3.4-cloud-amd64", 64, 32),
        (None, 64, None),
    ],
)
def test_the_usual_ceiling_of_receive_buffers_is_that_of_the_kernel(
    kernel: str | None, mebibytes: int, expected: int | None
) -> None:
    rmem = "net.ipv4.tcp_rmem"
    snapshot = make_snapshot(mem=390000, sysctls={rmem: (4096, 131072, mebibytes << 20)}, kernel=kernel)
    after = None if expected is None else (4096, 131072, expected << 20)
    assert after == proposed(advise(snapshot, make_event("tcp_memory")), rmem)


def test_orphans_that_fill_the_memory_get_a_shorter_life_and_no_more_room() -> None:
    both = (make_event("orphans"), make_event("tcp_memory"))
    advice = advise(make_snapshot(40000, 390000, alloc=45000, sysctls={RETRIES: (0,)}), *both)
    keys = [each.sysctl.key for each in advice if each.sysctl]
    assert [RETRIES, MEM] == keys


def test_a_leak_is_named_where_memory_grew_slowly() -> None:
    history = (make_sample(3600, mem=1000), make_sample(1200, mem=180000))
    assert "like a leak" in words(advise(make_snapshot(mem=390000), make_event("tcp_memory"), history=history))


def test_the_first_step_is_to_look_and_each_step_names_its_risk() -> None:
    for text in ("orphans", "tcp_memory", "timer"):
        advice = advise(make_snapshot(65600, 390000), make_event(text))
        assert advice[0].sysctl is None
        assert advice[0].commands
        assert all(each.risk and each.why for each in advice)


def test_a_calm_host_gets_no_advice() -> None:
    assert () == advise(make_snapshot())


@pytest.mark.parametrize(
    ("retries", "seconds"), [(1, 0.6), (2, 1.4), (3, 3.0), (4, 6.2), (5, 12.6), (7, 51.0), (8, 102.2), (0, 102.2)]
)
def test_an_orphan_lives_as_long_as_its_retries_last(retries: int, seconds: float) -> None:
    assert seconds == pytest.approx(orphan_life_seconds(retries))


def test_retries_stop_doubling_at_two_minutes() -> None:
    assert 120.0 == pytest.approx(orphan_life_seconds(12) - orphan_life_seconds(11))
