import sys

import pytest

from agent.core.sockets.census import Census
from agent.core.sockets.grouping import group
from agent.core.sockets.nettcp import Lines, inode_of

LISTENING = b"0: 00000000:1F90 00000000:0000 0A 00000000:00000003 00:00000000 00000000     0        0 5150 1 ffff 100 0"
ORPHAN = b"1: 0100007F:1F90 {} 04 0000C350:00000000 01:00000014 00000003     0        0 0 4 ffff 20 4 28 10 -1"
OPEN = b"2: 0100007F:1F90 {} 01 00000000:00001001 00:00000000 00000000  1000        0 7001 1 ffff 20 4 30 10 -1"
QUEUED = b"3: 0100007F:1F90 {} 01 00000000:00000005 00:00000000 00000000     0        0 0 1 ffff 20 4 30 10 -1"
TIME_WAIT = b"4: 0100007F:1F90 {} 06 00000000:00000000 03:00001234 00000000     0        0 0 3 ffff"
FIN_WAIT2 = b"5: 0100007F:1F90 {} 05 00000000:00000000 03:00001234 00000000     0        0 0 3 ffff"
REQUEST = b"6: 0100007F:1F90 {} 03 00000000:00000000 01:00000014 00000000     0        0 0 1 ffff"
FAR = "0A000001:D4A2" if sys.byteorder == "big" else "0100000A:D4A2"
NETWORK = "10.0.0.0/24"


def read(*lines: bytes, far: str = FAR) -> Census:
    census = Census()
    reader = Lines(census, 3, (32768, 60999))
    for line in lines:
        reader.count(line.replace(b"{}", far.encode()))
    assert 0 == reader.malformed
    return census


def test_sockets_are_told_apart_by_state_timer_and_inode() -> None:
    found = group(read(LISTENING, ORPHAN, OPEN, QUEUED))
    [(each, inode)] = found.groups
    [(listener, _)] = found.listeners

    assert (3, 8080, 7001) == (each.namespace, each.port, inode)
    orphan, held, queued = (
        where[state]
        for where, state in ((each.orphaned, "fin_wait1"), (each.held, "established"), (each.queued, "established"))
    )
    assert (1, 50000, 53248, 1, 1) == (
        orphan.sockets,
        orphan.unsent_bytes,
        orphan.bytes,
        orphan.retransmitting,
        orphan.unanswered,
    )
    assert (1, 4097, 8192) == (held.sockets, held.unread_bytes, held.bytes)
    assert (1, 5) == (queued.sockets, queued.unread_bytes)
    assert (8080, 3, 3) == (listener.port, listener.waiting, listener.namespace)
    assert [NETWORK] == [peer.network for peer in each.peers]


def test_a_group_goes_by_its_oldest_socket() -> None:
    [(_, inode)] = group(read(OPEN, OPEN.replace(b"7001", b"6001"), OPEN.replace(b"7001", b"8001"))).groups

    assert 6001 == inode


def test_time_wait_and_pending_requests_are_no_sockets() -> None:
    census = read(TIME_WAIT, FIN_WAIT2, REQUEST)

    assert ({}, {6: 1, 5: 1, 3: 1}) == (census.rows, census.minisocks)


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("B80D0120000000000000000001000000", "2001:db8::/64"),
        ("0000000000000000FFFF00000100000A", "10.0.0.0/24"),
        ("00000000000000000000000001000000", "::1/128"),
    ],
)
def test_networks_of_ipv6_and_mapped_addresses_are_those_of_sock_diag(address: str, network: str) -> None:
    words = [bytes.fromhex(address[at : at + 8])[:: 1 if sys.byteorder == "little" else -1] for at in range(0, 32, 8)]
    far = "".join(word.hex() for word in words).upper() + ":D4A2"

    assert [network] == [peer.network for peer in group(read(ORPHAN, far=far)).peers]


@pytest.mark.parametrize(
    ("near", "far", "port", "to_port"), [(b"9C41", b"1538", None, 5432), (b"9C41", b"D4A2", None, None)]
)
def test_service_is_found_as_in_a_dump(near: bytes, far: bytes, port: int | None, to_port: int | None) -> None:
    line = OPEN.replace(b":1F90", b":" + near).replace(b"{}", b"0100000A:" + far)
    [(each, _)] = group(read(line)).groups

    assert (port, to_port) == (each.port, each.to_port)


def test_port_that_somebody_listens_on_is_a_service_although_ephemeral() -> None:
    [(each, _)] = group(read(LISTENING.replace(b"1F90", b"9C41"), OPEN.replace(b"1F90", b"9C41"))).groups

    assert 40001 == each.port


NEGATIVE = ORPHAN.replace(b"{}", b"-0000001" * 4 + b":D4A2")
ENDLESS = OPEN.replace(b"7001", b"9" * 5000)


@pytest.mark.parametrize(
    "line",
    [b"", b"\n", b"x", b"0: a b c d e f g h i j", OPEN[:40], b"0: \xff:1 0:1 01 0:0 00:0 0 0 0 x 1", NEGATIVE, ENDLESS],
)
def test_garbage_is_counted_and_not_raised(line: bytes) -> None:
    census = Census()
    reader = Lines(census, 1, (32768, 60999))
    reader.count(line)

    assert (1, {}) == (reader.malformed, census.rows)
    assert 0 == inode_of(line)


def test_inode_is_the_tenth_field() -> None:
    assert [5150, 0, 7001] == [inode_of(line) for line in (LISTENING, ORPHAN, OPEN)]
