from material import make_table

from agent.core.readings import FullGroup, Listener, Process, SocketGroup, SocketTable, Tally
from agent.core.sockets.second_look import look_twice
from agent.core.sockets.shares import losers

PATHS = {1: "/", 7: "/system.slice/backup.service", 8: "/system.slice/web.service"}


def group(cgroup: int | None, drops: int, port: int = 80, *, folded: bool = False) -> SocketGroup:
    held = {"established": Tally(sockets=3, bytes=4096)}
    return SocketGroup(cgroup=cgroup, port=None if folded else port, held=held, drops=drops, folded=folded)


def between(first: list[SocketGroup], second: list[SocketGroup]) -> SocketTable:
    return look_twice(make_table(*first, paths=PATHS), make_table(*second, paths=PATHS), 5.0)


def test_what_was_dropped_between_two_dumps_is_the_difference() -> None:
    table = between([group(7, 900), group(8, 4)], [group(8, 310), group(7, 905)])

    assert [5, 306] == [each.drops for each in table.groups]
    assert [("web.service", 306), ("backup.service", 5)] == [(each.unit, each.sockets) for each in losers(table, 3)]
    assert [("web.service", 306)] == [(each.unit, each.sockets) for each in losers(table, 1)]
    assert 5.0 == table.drops_seconds


def test_sockets_that_closed_and_groups_of_one_dump_alone_lose_nothing() -> None:
    assert [0, 0] == [each.drops for each in between([group(7, 900), group(8, 4)], [group(7, 20)]).groups]
    assert [0] == [each.drops for each in between([group(7, 900)], [group(7, 900), group(8, 5_000)]).groups]
    assert () == losers(between([group(7, 900)], [group(7, 900)]), 3)


def test_what_nobody_can_be_named_for_has_no_name() -> None:
    assert () == losers(between([group(None, 0)], [group(None, 50)]), 3)


def test_a_loser_without_a_cgroup_goes_by_its_listener() -> None:
    listener = Listener(port=80, process=Process(pid=5, name="nginx", cgroup="/system.slice/nginx.service"))
    first, second = make_table(group(None, 0), listeners=(listener,)), make_table(group(None, 50))

    assert ["nginx.service"] == [each.unit for each in losers(look_twice(first, second, 5.0), 3)]


def test_how_often_a_cgroup_hit_its_limit_meanwhile_is_told_of_those_that_both_looks_saw() -> None:
    def full(path: str, refused: int | None) -> FullGroup:
        return FullGroup(path=path, current_bytes=99, limit_bytes=100, sock_bytes=1, refused=refused)

    first = make_table(full_groups=(full("/a", 10), full("/b", None), full("/gone", 1)))
    second = make_table(full_groups=(full("/a", 13), full("/b", 4), full("/new", 6)))
    table = look_twice(first, second, 5.0)

    assert [("/a", 3), ("/b", None), ("/new", None)] == [(e.path, e.refused_meanwhile) for e in table.full_groups]
    assert [3, 4, 6] == [each.hits for each in table.full_groups]
