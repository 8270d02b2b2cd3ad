import material as wire
import pytest
from hypothesis import given
from hypothesis import strategies as st
from material import tcp, usual

from agent.core.readings import Listener, PeerTally, SocketGroup, Tally
from agent.core.sockets import grouping
from agent.core.sockets.census import Census
from agent.core.sockets.grouping import Grouped, group, is_orphan
from agent.core.sockets.inetdiag import Reader


def grouped(*messages: bytes) -> Grouped:
    census = Census()
    data = b"".join(messages)
    Reader(census).feed(data, len(data))
    return group(census)


def only(*messages: bytes) -> SocketGroup:
    groups = grouped(*messages).groups
    assert 1 == len(groups)
    return groups[0][0]


@pytest.mark.parametrize("state", [4, 5, 9, 11])
def test_orphan_is_closed_in_a_state_that_waits_for_the_peer(state: int) -> None:
    assert is_orphan(state, 1, closed=True)
    assert not is_orphan(state, 1, closed=False)
    assert not is_orphan(state, 3, closed=True)


@pytest.mark.parametrize("state", [0, 1, 2, 3, 6, 7, 8, 10, 12, 200])
def test_no_other_state_is_an_orphan(state: int) -> None:
    assert not is_orphan(state, 1, closed=True)


def test_orphans_are_told_apart_by_what_they_wait_for() -> None:
    group = only(
        tcp(*usual(wmem=4096), state=wire.FIN_WAIT1, timer=wire.RETRANSMIT, inode=0, unsent=9),
        tcp(*usual(wmem=8192), state=wire.FIN_WAIT1, timer=wire.PROBE, inode=0, unsent=1),
        tcp(*usual(), state=wire.LAST_ACK, timer=wire.RETRANSMIT, inode=0, unsent=1),
    )

    assert {
        "fin_wait1": Tally(sockets=2, bytes=12288, wmem_bytes=12288, unsent_bytes=10, retransmitting=1, probing=1),
        "last_ack": Tally(sockets=1, unsent_bytes=1, retransmitting=1),
    } == group.orphaned
    assert (3, 3, {}) == (group.orphans, group.sockets, group.held)


def test_what_was_sent_again_three_times_is_unanswered_and_a_probe_is_not() -> None:
    waiting = {"state": wire.FIN_WAIT1, "inode": 0}
    group = only(
        *(tcp(*usual(), **waiting, timer=wire.RETRANSMIT, retransmits=number) for number in (0, 1, 2, 3, 4, 255)),
        tcp(*usual(), **waiting, timer=wire.PROBE, retransmits=9),
        tcp(*usual(), **waiting, timer=wire.RETRANSMIT, retransmits=3, peer="2001:db8::7"),
    )

    assert {"fin_wait1": Tally(sockets=8, retransmitting=7, unanswered=4, probing=1)} == group.orphaned


def test_half_closed_sockets_with_a_file_open_are_held() -> None:
    group = only(tcp(*usual(), state=wire.FIN_WAIT2, inode=5), tcp(*usual(), state=wire.CLOSE_WAIT, inode=6))

    assert {"fin_wait2": Tally(sockets=1), "close_wait": Tally(sockets=1)} == group.held
    assert 0 == group.orphans


def test_connections_nobody_accepted_are_queued() -> None:
    group = only(
        tcp(*usual(rmem=4096), inode=0, unread=100),
        tcp(*usual(), state=wire.CLOSE_WAIT, inode=0),
        tcp(*usual(), inode=9),
    )

    assert {
        "established": Tally(sockets=1, bytes=4096, rmem_bytes=4096, unread_bytes=100),
        "close_wait": Tally(sockets=1),
    } == group.queued
    assert {"established": Tally(sockets=1)} == group.held


def test_groups_are_by_cgroup_and_service_the_most_bytes_first() -> None:
    found = grouped(
        tcp(*usual(1001), sport=443),
        tcp(*usual(1001, rmem=4096), sport=80),
        tcp(*usual(1002, rmem=8192), sport=443),
        tcp(*usual(1002), sport=50000, dport=5432),
    )

    assert [(1002, 443, None), (1001, 80, None)] == [(g.cgroup, g.port, g.to_port) for g, _ in found.groups[:2]]
    assert {(1001, 443, None), (1002, None, 5432)} == {(g.cgroup, g.port, g.to_port) for g, _ in found.groups[2:]}


def test_group_keeps_the_inode_of_a_socket_that_somebody_has_open() -> None:
    found = grouped(tcp(*usual(), inode=0), tcp(*usual(), state=wire.FIN_WAIT1, inode=0), tcp(*usual(), inode=55))

    assert [55] == [inode for _, inode in found.groups]


def test_a_group_goes_by_its_oldest_socket_which_is_found_among_the_first_files_of_its_program() -> None:
    found = grouped(*(tcp(*usual(), peer=f"192.0.{n % 3}.7", inode=n) for n in (60, 81, 55, 70, 62)))

    assert [55] == [inode for _, inode in found.groups]


def test_kernel_without_cgroup_ids_leaves_none() -> None:
    assert only(tcp(*usual(None))).cgroup is None


def test_peers_are_networks_the_largest_first_and_the_others_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouping, "PEERS_OF_A_GROUP", 2)
    group = only(
        *(tcp(*usual(), peer=f"192.0.2.{i}") for i in range(1, 6)),
        *(tcp(*usual(), peer=f"2001:db8::{i}:1") for i in range(1, 4)),
        tcp(*usual(wmem=100), peer="198.51.100.9", state=wire.FIN_WAIT1, inode=0),
        tcp(*usual(), peer="::1"),
    )

    assert 4 == group.peers_counted
    assert {"192.0.2.0/24", "198.51.100.0/24"} == {peer.network for peer in group.peers[:2]}
    assert PeerTally(network=None, sockets=4) == group.peers[2]


def test_ipv6_networks_are_slash_64_and_loopback_is_itself() -> None:
    group = only(tcp(*usual(), peer="2001:db8:1:2:3:4:5:6"), tcp(*usual(), peer="::1"))

    assert {"2001:db8:1:2::/64", "::1/128"} == {peer.network for peer in group.peers}


def test_listeners_come_with_their_queues_in_the_order_of_ports() -> None:
    found = grouped(
        tcp(*usual(7), state=wire.LISTEN, sport=8080, dport=0, peer="0.0.0.0", unread=2, unsent=128, inode=8),
        tcp(*usual(7), state=wire.LISTEN, sport=80, dport=0, peer="::", unsent=511, inode=9),
    )

    assert (
        (Listener(port=80, backlog=511, cgroup=7), 9),
        (Listener(port=8080, waiting=2, backlog=128, cgroup=7), 8),
    ) == found.listeners


def test_groups_beyond_the_bound_are_folded_by_cgroup_and_no_socket_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouping, "GROUPS_AT_MOST", 2)
    found = grouped(
        tcp(*usual(1, rmem=9000), sport=1),
        tcp(*usual(2, rmem=9000), sport=2),
        *(tcp(*usual(cgroup), sport=port) for cgroup in (1, 3, 4) for port in range(100, 100 + 5 - cgroup)),
    )
    groups = [g for g, _ in found.groups]

    assert {(1, 1, False): 1, (2, 2, False): 1, (1, None, True): 4, (3, None, True): 2, (None, None, True): 1} == {
        (g.cgroup, g.port, g.folded): g.sockets for g in groups
    }


Sockets = st.tuples(
    st.sampled_from([1, 4, 5, 8, 9, 11]),
    st.sampled_from([0, 1, 2, 4]),
    st.sampled_from([0, 7]),
    st.integers(1, 65535),
    st.integers(0, 255),
    st.sampled_from([1, 5, 6]),
    st.integers(0, 20000),
)


@given(st.lists(Sockets, max_size=60))
def test_sums_over_groups_and_over_peers_are_those_of_the_sockets(sockets: list[tuple[int, ...]]) -> None:
    found = grouped(
        *(
            tcp(*usual(cgroup, rmem=rmem), state=state, timer=timer, inode=inode, sport=sport, peer=f"10.{net}.0.1")
            for state, timer, inode, sport, net, cgroup, rmem in sockets
        )
    )
    groups = [g for g, _ in found.groups]
    expected = (
        len(sockets),
        sum(state in {4, 5, 9, 11} and inode == 0 for state, _, inode, *_ in sockets),
        sum(-(-s[-1] // 4096) * 4096 for s in sockets),
    )

    assert expected == tuple(sum(getattr(g, name) for g in groups) for name in ("sockets", "orphans", "bytes"))
    every = [peer for g in groups for peer in g.peers]
    assert expected == tuple(sum(getattr(peer, name) for peer in every) for name in ("sockets", "orphans", "bytes"))
    assert expected == tuple(sum(getattr(p, name) for p in found.peers) for name in ("sockets", "orphans", "bytes"))
