import material as wire
import pytest
from material import tcp, usual

from agent.core.sockets import census as bounds
from agent.core.sockets.census import OUTGOING, UNKNOWN, Census
from agent.core.sockets.inetdiag import Reader


def feed(census: Census, *messages: bytes) -> Census:
    data = b"".join(messages)
    Reader(census).feed(data, len(data))
    return census


def service(*messages: bytes) -> int:
    census = feed(Census((32768, 60999)), *messages)
    return next(iter(census.rows))[1]


def listening(port: int) -> bytes:
    return tcp(*usual(), state=wire.LISTEN, sport=port, dport=0, peer="0.0.0.0")


def test_service_is_the_local_port_where_it_is_no_ephemeral_one() -> None:
    assert 443 == service(tcp(*usual(), sport=443, dport=51022))


def test_service_is_the_local_port_where_somebody_listens() -> None:
    assert 40001 == service(listening(40001), tcp(*usual(), sport=40001, dport=51022))


def test_service_is_the_peers_port_where_we_went_there() -> None:
    assert OUTGOING | 5432 == service(tcp(*usual(), sport=51022, dport=5432))


def test_service_is_the_peers_port_at_the_other_end_of_a_loopback_connection() -> None:
    assert OUTGOING | 40001 == service(listening(40001), tcp(*usual(), sport=51022, dport=40001))


def test_service_cannot_be_told_between_two_ephemeral_ports() -> None:
    assert UNKNOWN == service(tcp(*usual(), sport=40001, dport=51022))


def test_listeners_of_another_namespace_are_not_ours() -> None:
    census = feed(Census(), listening(40001))
    census.enter(1, (32768, 60999))
    feed(census, tcp(*usual(), sport=40001, dport=51022))

    assert [1 << bounds.NAMESPACE_SHIFT | UNKNOWN] == [key[1] for key in census.rows]


def test_listeners_beyond_the_bound_still_count_and_still_tell_services(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "LISTENERS_AT_MOST", 2)
    census = feed(Census(), *(listening(40000 + i) for i in range(5)), listening(40000), tcp(*usual(), sport=40004))

    assert (6, 2) == (census.listening, len(census.listeners))
    assert 2 == census.listeners[0, 40000, 4242].sockets
    assert 40004 == next(iter(census.rows))[1]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Census:
    monkeypatch.setattr(bounds, "NETWORKS_AT_MOST", 3)
    monkeypatch.setattr(bounds, "SERVICES_AT_MOST", 5)
    monkeypatch.setattr(bounds, "CGROUPS_AT_MOST", 7)
    return Census()


def test_networks_are_folded_first_and_services_stay(small: Census) -> None:
    feed(small, *(tcp(*usual(), peer=f"192.0.{i}.1") for i in range(10)))

    by_network = {key[2] == bounds.OTHER_NETWORK: 0 for key in small.rows}
    for key, row in small.rows.items():
        by_network[key[2] == bounds.OTHER_NETWORK] += row[0]
    assert {False: 3, True: 7} == by_network
    assert {443} == {key[1] for key in small.rows}


def test_network_with_a_row_counts_all_of_its_sockets_although_the_table_is_full(small: Census) -> None:
    feed(small, *(tcp(*usual(), peer=f"192.0.{i % 10}.1") for i in range(40)))

    assert [4, 4, 4, 28] == sorted(row[0] for row in small.rows.values())


def test_table_stays_bounded_and_sums_by_state_and_cgroup_exact_until_the_last_fold(small: Census) -> None:
    feed(small, *(tcp(*usual(), sport=1 + i, peer=f"192.0.{i % 250}.1") for i in range(500)))

    assert len(small.rows) <= 7
    assert 500 == sum(row[0] for row in small.rows.values())
    assert {4242} == {key[3] for key in small.rows}


def test_more_cgroups_than_room_are_counted_as_others(small: Census) -> None:
    feed(small, *(tcp(*usual(group=1000 + i), sport=1 + i, peer=f"192.0.{i % 250}.1") for i in range(100)))

    assert len(small.rows) <= 8
    assert 100 == sum(row[0] for row in small.rows.values())
    assert bounds.OTHER_CGROUP in {key[3] for key in small.rows}
