from collections.abc import Callable, Iterable
from datetime import timedelta

import pytest
from material import BOOT, NOW, make_event, make_snapshot
from msgspec.structs import replace

from agent.core.facts import Facts, gather_facts
from agent.core.history.trend import trends
from agent.core.history.unit_growth import UNITS_AT_MOST, Growth, growth_of, shares_of
from agent.core.model import Sample, Snapshot, UnitShare
from agent.core.readings import Listener, Process, SocketGroup, SocketTable, Tally

FULL = 65_600
FULL_PAGES = 390_000


def share(name: str, sockets: float, orphans: float = 0, size: float = 0) -> UnitShare:
    return UnitShare(name=name, sockets=round(sockets), orphans=round(orphans), bytes=round(size))


def with_it(ago: int) -> float:
    """Let the gauges rise while the units of these tests do."""
    return 0.05 if ago > 50 else 0.05 + 0.95 * (50 - ago) / 50


def looks(
    units: Callable[[int], Iterable[UnitShare]],
    minutes: int = 120,
    step: int = 5,
    *,
    gauge: Callable[[int], float] = with_it,
) -> tuple[Sample, ...]:
    """Make a look every five minutes: ``units`` of the minutes before the event, and the ``gauge`` as a part of now."""
    return tuple(
        Sample(
            at=NOW - timedelta(minutes=ago),
            boot_id=BOOT,
            orphan=round(FULL * gauge(ago)),
            mem=round(FULL_PAGES * gauge(ago)),
            units=tuple(units(ago)),
        )
        for ago in range(minutes, 0, -step)
    )


def facts_of(samples: tuple[Sample, ...], text: str = "orphans", **snapshot: object) -> Facts:
    taken: Snapshot = make_snapshot(**({"orphan": FULL} | snapshot))  # type: ignore[arg-type]  # words of the test
    return gather_facts(taken, (make_event(text),), samples)


def rising(ago: int, most: int = 40_000) -> float:
    return 2000 if ago > 45 else 2000 + (most - 2000) * (50 - ago) / 50


def grown(facts: Facts) -> Growth | None:
    return growth_of(facts, trends(facts))


def said(facts: Facts) -> str:
    growth = grown(facts)
    return growth.sentence(facts.snapshot.taken_at) if growth else ""


def test_the_unit_that_grew_is_named_with_then_and_now_and_since() -> None:
    facts = facts_of(looks(lambda ago: [share("api.service", rising(ago)), share("db.service", 1500)]))
    assert "api.service grew from 2,000 to 36,200 sockets since 14:15 UTC." == said(facts)
    growth = grown(facts)
    assert growth
    finding = growth.finding(facts.gauge.name)
    assert ("unit_grew", "orphans") == (finding.claim, finding.cause)
    assert {"unit": "api.service", "sockets then": 2000, "sockets now": 36_200}.items() <= {
        each.name: each.value for each in finding.evidence
    }.items()


def test_orphans_are_asked_for_first_and_bytes_for_the_memory() -> None:
    def both(ago: int) -> list[UnitShare]:
        return [share("a.service", rising(ago)), share("b.service", 9000, rising(ago, 8000), rising(ago) * 4096)]

    assert "b.service grew from 2,000 to 7,400 orphans" in said(facts_of(looks(both)))
    assert "b.service grew from 7.8 MiB to 141 MiB of TCP memory" in said(
        facts_of(looks(both), "tcp_memory", orphan=3, mem=390_000)
    )


@pytest.mark.parametrize(
    "units",
    [
        lambda _: [share("a.service", 30_000), share("b.service", 20_000)],
        lambda ago: [share("a.service", 30_000 - 100 * (120 - ago))],
        lambda ago: [share("a.service", 100 if ago > 20 else 400)],
        lambda ago: [share(f"{n}.service", rising(ago, 9000)) for n in range(5)],
        lambda ago: [share("a.service", 20_000 + rising(ago, 9000))],
    ],
    ids=["steady", "shrinking", "few", "all of them", "not twice as many"],
)
def test_where_no_single_unit_multiplied_nothing_is_said(units: Callable[[int], Iterable[UnitShare]]) -> None:
    assert None is grown(facts_of(looks(units)))


def test_a_look_that_is_too_old_says_nothing_of_now() -> None:
    samples = tuple(
        sample
        for sample in looks(lambda ago: [share("a.service", rising(ago))])
        if sample.at < NOW - timedelta(minutes=16)
    )
    assert "" == said(facts_of(samples))


def test_who_is_missing_from_a_full_list_is_not_taken_for_zero() -> None:
    others = [share(f"{n}.service", 50_000) for n in range(UNITS_AT_MOST)]
    samples = looks(lambda ago: [*others[1:], share("new.service", 60_000)] if ago <= 10 else others)
    assert None is grown(facts_of(samples))
    with_new = looks(
        lambda ago: [*others[5:], share("new.service", 60_000)] if ago <= 10 else others[5:],
        gauge=lambda ago: 0.1 if ago > 10 else 0.95,
    )
    assert "new.service grew from 0 to 60,000 sockets" in said(facts_of(with_new))


def test_a_calm_host_is_left_alone() -> None:
    samples = looks(lambda ago: [share("a.service", rising(ago))])
    assert None is grown(gather_facts(make_snapshot(orphan=3), (), samples))


def test_the_dump_of_the_event_itself_is_the_newest_look() -> None:
    group = SocketGroup(cgroup=77, port=80, held={"established": Tally(sockets=30_000, bytes=1 << 20)})
    table = SocketTable(groups=(group,), paths={1: "/", 77: "/system.slice/api.service"}, complete=True)
    samples = looks(lambda _: [share("api.service", 900)], gauge=lambda _: 0.1)
    assert "api.service grew from 900 to 30,000 sockets since 15:00 UTC." == said(facts_of(samples, sockets=table))
    part = SocketTable(groups=(group,), paths=table.paths, complete=False)
    assert "" == said(facts_of(samples, sockets=part))
    nameless = SocketTable(groups=(group,), complete=True, cut_short=True)
    assert "" == said(facts_of(samples, sockets=nameless))


def test_the_shares_of_a_dump_are_bounded_and_hold_the_largest_by_sockets_and_by_bytes() -> None:
    groups = [
        SocketGroup(cgroup=100 + n, port=80, held={"established": Tally(sockets=1000 - n, bytes=4096)})
        for n in range(30)
    ]
    groups.append(SocketGroup(cgroup=99, port=81, held={"established": Tally(sockets=2, bytes=1 << 30)}))
    paths = {1: "/"} | {number: f"/system.slice/u{number}.service" for number in range(99, 130)}
    found = shares_of(SocketTable(groups=tuple(groups), paths=paths, complete=True))

    assert UNITS_AT_MOST == len(found)
    assert "u100.service" == found[0].name
    assert "u99.service" in {each.name for each in found}


def grown_long_ago(ago: int) -> list[UnitShare]:
    return [share("old.service", 1000 if ago > 60 else 50_000), share("new.service", 900 if ago > 5 else 30_000)]


def test_growth_long_before_the_gauge_rose_is_not_the_one() -> None:
    calm_until_now = looks(lambda ago: grown_long_ago(ago)[:1], gauge=lambda _: 0.2)
    assert "" == said(facts_of(calm_until_now))
    both = looks(grown_long_ago, gauge=lambda ago: 0.2 if ago > 5 else 1.0)
    assert "new.service grew from 900 to 30,000 sockets" in said(facts_of(both))


def test_growth_while_the_gauge_was_high_already_is_not_the_one() -> None:
    def units(ago: int) -> list[UnitShare]:
        return [share("a.service", rising(ago))]

    assert "" == said(facts_of(looks(units, gauge=lambda ago: 0.1 if ago > 100 else 0.9)))
    assert "" == said(facts_of(looks(units, gauge=lambda _: 0.75)))


def test_a_gauge_without_a_trend_counts_from_when_it_was_low_for_the_last_time() -> None:
    def ragged(ago: int) -> float:
        return 0.05 if ago > 60 else 0.6 if ago > 30 else 0.95

    samples = looks(lambda ago: grown_long_ago(ago)[:1], gauge=ragged)
    assert not trends(facts_of(samples, max_orphans=FULL * 9))
    assert "" == said(facts_of(samples, max_orphans=FULL * 9))


def named(*paths: str, process: Process | None = None) -> SocketTable:
    """Make a table with a group of ten thousand sockets for each path, the first the largest."""
    groups = tuple(
        SocketGroup(cgroup=100 + n, port=80, process=process, held={"established": Tally(sockets=10_000 - n, bytes=1)})
        for n in range(len(paths))
    )
    return SocketTable(groups=groups, paths={1: "/"} | {100 + n: path for n, path in enumerate(paths)}, complete=True)


def test_equal_units_in_two_containers_are_two_and_equal_names_are_one() -> None:
    apart = shares_of(named("/lxc.payload.a/system.slice/nginx.service", "/lxc.payload.b/system.slice/nginx.service"))
    assert ["nginx.service in lxc a", "nginx.service in lxc b"] == [each.name for each in apart]
    both = shares_of(
        named("/system.slice/too many orphaned sockets.service", "/system.slice/Too many orphaned sockets.service")
    )
    assert [("….service", 19_999)] == [(each.name, each.sockets) for each in both]


def test_a_container_keeps_its_name_whatever_process_was_seen_in_it() -> None:
    path = f"/system.slice/docker-{'a' * 64}.scope"
    first, second = (shares_of(named(path, process=Process(pid=pid, name="nginx"))) for pid in (7, 8))
    assert first == second
    assert "nginx" not in first[0].name


def test_no_share_stands_for_others_however_many_there_are() -> None:
    table = named(*(f"/system.slice/u{n}.service" for n in range(90)))
    idle = tuple(Listener(port=n, cgroup=99, sockets=60_000) for n in range(9))
    found = shares_of(replace(table, listeners=idle, paths=table.paths | {99: "/system.slice/idle.service"}))
    assert UNITS_AT_MOST == len(found)
    assert [] == [each.name for each in found if "others" in each.name]


def test_a_full_list_with_equal_names_in_it_is_full_all_the_same() -> None:
    others = [share("same.service", 50_000) for _ in range(UNITS_AT_MOST)]
    samples = looks(lambda ago: [*others[1:], share("new.service", 60_000)] if ago <= 10 else others)
    assert "" == said(facts_of(samples))


@pytest.mark.parametrize("table", [SocketTable(), SocketTable(complete=True, cut_short=True)], ids=["sockets", "names"])
def test_of_a_dump_that_was_cut_short_nobody_is_named(table: SocketTable) -> None:
    whole = named("/system.slice/a.service")
    assert shares_of(whole)
    assert () == shares_of(replace(whole, complete=table.complete, cut_short=table.cut_short))
