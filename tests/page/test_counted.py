from stories import HOSTILE, make_hostile_table, make_snapshot, make_story, make_table

from agent.core.readings import Listener, PeerTally, SocketGroup, SocketTable, Tally
from agent.page.render import render
from agent.page.socket_rows import GROUPS_AT_MOST, OTHERS_AT_MOST, socket_counts


def lists_of(table: SocketTable) -> dict[str, list[tuple[str, str, str]]]:
    found = socket_counts([make_snapshot(0.2, sockets=table)])
    assert found
    return {title: [tuple(row) for row in rows] for title, rows in found.lists}


def test_a_group_is_told_with_owner_port_states_trouble_and_peers() -> None:
    first = lists_of(make_table())["By cgroup and port"][0]

    assert ("/system.slice/nginx.service nginx (812)", "1,136 sockets, 399 MiB") == first[:2]
    parts = first[2].split(" · ")
    assert ["port 443", "236 orphaned", "established 900, fin wait1 236"] == parts[:3]
    assert "229 facing a closed window" in parts
    assert parts[-1].startswith("peers 198.51.100.0/24 189, ")


def test_states_add_up_over_all_groups() -> None:
    rows = lists_of(make_table())["By state"]
    assert ("fin wait1", "236 sockets, 392 MiB", "236 orphaned") in rows
    assert ("time wait", "210 sockets", "not in any memory total") in rows


def test_connections_out_and_groups_that_were_folded_are_told_apart() -> None:
    tally = {"established": Tally(sockets=1, bytes=4096)}
    groups = (
        SocketGroup(to_port=5432, held=tally),
        SocketGroup(held=tally),
        SocketGroup(held=tally, folded=True),
        SocketGroup(cgroup=1, port=80, queued=tally),
        SocketGroup(cgroup=9, port=81, held=tally),
    )
    rows = lists_of(SocketTable(groups=groups))["By cgroup and port"]
    assert ["to port 5432", "port unknown", "others", "port 80", "port 81"] == [r[2].split(" · ")[0] for r in rows]
    assert "1 not accepted" in rows[3][2]
    assert ["no cgroup", "cgroup 9, removed since"] == [row[0] for row in rows[3:]]


def test_rows_are_bounded_and_what_is_left_out_is_said() -> None:
    groups = tuple(
        SocketGroup(port=number, held={"established": Tally(sockets=1)}) for number in range(GROUPS_AT_MOST + 5)
    )
    listeners = tuple(Listener(port=number) for number in range(OTHERS_AT_MOST + 3))
    peers = (PeerTally(network="192.0.2.0/24", sockets=4), PeerTally(network=None, sockets=2))
    rows = lists_of(SocketTable(groups=groups, listeners=listeners, peers=peers))

    assert ("5 more", GROUPS_AT_MOST + 1) == (rows["By cgroup and port"][-1][0], len(rows["By cgroup and port"]))
    assert "3 more" == rows["Listening"][-1][0]
    assert "all other networks" == rows["By network of the peer"][1][0]


def test_a_part_is_called_a_part_and_nothing_is_nothing() -> None:
    groups = make_table().groups
    found = socket_counts([make_snapshot(0.2, sockets=SocketTable(groups=groups))])
    assert found
    assert "1,209 sockets, incomplete" == found.size
    assert None is socket_counts([make_snapshot(0.2), make_snapshot(1.2, sockets=SocketTable())])
    assert None is socket_counts([])


def test_the_newest_table_is_shown_folded_on_the_page() -> None:
    page = render(make_story())
    assert 1 == page.count("Socket counts")
    assert "/system.slice/jetty.service" in page


def test_hostile_names_in_the_table_stay_text() -> None:
    rows = lists_of(make_hostile_table(HOSTILE))
    assert HOSTILE in rows["By cgroup and port"][0][0]
    story = make_story()
    name, snapshot = story.snapshots[0]
    hostile = make_snapshot(0.2, sockets=make_hostile_table(HOSTILE))
    page = render(story._replace(snapshots=((name, hostile),)))
    assert snapshot.sockets is None
    assert "<img src=x" not in page
    assert "\x1b" not in page
