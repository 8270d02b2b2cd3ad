from collections.abc import Callable, Iterable
from datetime import timedelta

import pytest
from material import BOOT, NOW, make_event, make_snapshot

from agent.core.case import Case, build_case
from agent.core.growth import UNITS_AT_MOST, growth_of, growth_text, shares_of, unit_grew
from agent.core.model import Sample, Snapshot, UnitShare
from agent.core.sockets import SocketGroup, SocketTable, Tally

FULL = 65_600


def share(name: str, sockets: float, orphans: float = 0, size: float = 0) -> UnitShare:
    return UnitShare(name=name, sockets=round(sockets), orphans=round(orphans), bytes=round(size))


def looks(units: Callable[[int], Iterable[UnitShare]], minutes: int = 120, step: int = 5) -> tuple[Sample, ...]:
    """Make a look every five minutes: ``units`` of the minutes before the event."""
    return tuple(
        Sample(at=NOW - timedelta(minutes=ago), boot_id=BOOT, orphan=9, units=tuple(units(ago)))
        for ago in range(minutes, 0, -step)
    )


def case_of(samples: tuple[Sample, ...], text: str = "orphans", **snapshot: object) -> Case:
    taken: Snapshot = make_snapshot(**({"orphan": FULL} | snapshot))  # type: ignore[arg-type]  # words of the test
    return build_case(taken, (make_event(text),), samples)


def rising(ago: int, most: int = 40_000) -> float:
    return 2000 if ago > 45 else 2000 + (most - 2000) * (50 - ago) / 50


def said(case: Case) -> str:
    return growth_text(growth_of(case), case)


def test_the_unit_that_grew_is_named_with_then_and_now_and_since() -> None:
    case = case_of(looks(lambda ago: [share("api.service", rising(ago)), share("db.service", 1500)]))
    assert "api.service grew from 2,000 to 36,200 sockets since 14:15 UTC." == said(case)
    growth = growth_of(case)
    assert growth
    finding = unit_grew(growth, case)
    assert ("unit_grew", "orphans") == (finding.claim, finding.cause)
    assert {"unit": "api.service", "sockets then": 2000, "sockets now": 36_200}.items() <= {
        each.name: each.value for each in finding.evidence
    }.items()


def test_orphans_are_asked_for_first_and_bytes_for_the_memory() -> None:
    def both(ago: int) -> list[UnitShare]:
        return [share("a.service", rising(ago)), share("b.service", 9000, rising(ago, 8000), rising(ago) * 4096)]

    assert "b.service grew from 2,000 to 7,400 orphans" in said(case_of(looks(both)))
    assert "b.service grew from 7.8 MiB to 141 MiB of TCP memory" in said(
        case_of(looks(both), "tcp_memory", orphan=3, mem=390_000)
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
    assert None is growth_of(case_of(looks(units)))


def test_a_look_that_is_too_old_says_nothing_of_now() -> None:
    samples = tuple(
        sample
        for sample in looks(lambda ago: [share("a.service", rising(ago))])
        if sample.at < NOW - timedelta(minutes=16)
    )
    assert "" == said(case_of(samples))


def test_who_is_missing_from_a_full_list_is_not_taken_for_zero() -> None:
    others = [share(f"{n}.service", 50_000) for n in range(UNITS_AT_MOST)]
    samples = looks(lambda ago: [*others[1:], share("new.service", 60_000)] if ago <= 10 else others)
    assert None is growth_of(case_of(samples))
    samples = looks(lambda ago: [*others[5:], share("new.service", 60_000)] if ago <= 10 else others[5:])
    assert "new.service grew from 0 to 60,000 sockets" in said(case_of(samples))


def test_a_calm_host_is_left_alone() -> None:
    samples = looks(lambda ago: [share("a.service", rising(ago))])
    assert None is growth_of(build_case(make_snapshot(orphan=3), (), samples))


def test_the_dump_of_the_event_itself_is_the_newest_look() -> None:
    group = SocketGroup(cgroup=77, port=80, held={"established": Tally(sockets=30_000, bytes=1 << 20)})
    table = SocketTable(groups=(group,), paths={1: "/", 77: "/system.slice/api.service"}, complete=True)
    samples = looks(lambda _: [share("api.service", 900)])
    assert "api.service grew from 900 to 30,000 sockets since 15:00 UTC." == said(case_of(samples, sockets=table))
    part = SocketTable(groups=(group,), paths=table.paths, complete=False)
    assert "" == said(case_of(samples, sockets=part))


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
