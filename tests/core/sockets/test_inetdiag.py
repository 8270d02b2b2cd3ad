import struct

import material as wire
import pytest
from hypothesis import given
from hypothesis import strategies as st
from material import tcp, usual

from agent.core.sockets.census import Census
from agent.core.sockets.inetdiag import AF_INET6, STATES_CONNECTED, End, Reader, request


def count(*messages: bytes) -> tuple[Census, Reader]:
    census = Census()
    reader = Reader(census)
    data = b"".join(messages)
    assert reader.feed(data, len(data)) is None
    return census, reader


def totals(census: Census) -> tuple[int, ...]:
    return tuple(sum(row[i] for row in census.rows.values()) for i in range(6))


def test_request_is_inet_diag_req_v2() -> None:
    asked = request(AF_INET6, STATES_CONNECTED, 3)

    assert (72, 20, 0x301, 3, 0) == struct.unpack_from("=IHHII", asked)
    assert (10, 6, 0x40, 0, 0xFFF & ~(1 << 10) & ~(1 << 6)) == struct.unpack_from("=BBBBI", asked, 16)
    assert 72 == len(asked)


def test_memory_is_charged_in_whole_pages_and_negative_forward_is_none() -> None:
    census, _ = count(
        tcp(*usual(rmem=4_235_456, forward=3904)),
        tcp(*usual(wmem=832, forward=3264)),
        tcp(*usual(wmem=4096, forward=-512)),
        tcp(*usual()),
    )

    assert (4, (1035 + 1 + 1) * 4096, 4_235_456, 832 + 4096, 0, 0) == totals(census)


def test_unread_and_unsent_are_summed() -> None:
    census, _ = count(tcp(*usual(), unread=10, unsent=3), tcp(*usual(), unread=5, unsent=4))

    assert (2, 0, 0, 0, 15, 7) == totals(census)


def test_drops_are_summed_where_the_kernel_counts_them() -> None:
    census, _ = count(
        tcp(*usual(drops=7)),
        tcp(*usual(drops=5)),
        tcp(*usual()),
        tcp(*usual(drops=9, words=8)),
        tcp(wire.skmeminfo(drops=3), peer="2001:db8::7"),
    )

    assert [3, 12] == sorted(row[8] for row in census.rows.values())


VARIANTS = {
    "3.10: seven words, no cgroup": [wire.attribute(wire.SHUTDOWN, b"\0"), wire.skmeminfo(4096, words=7)],
    "4.4: eight words": [wire.attribute(wire.SHUTDOWN, b"\0"), wire.skmeminfo(4096, words=8)],
    "4.19: nine words": [wire.attribute(wire.SHUTDOWN, b"\0"), wire.skmeminfo(4096)],
    "3.3: six words and nothing else": [wire.skmeminfo(4096, words=6)],
    "6.1: cgroup and options": usual(rmem=4096),
    "6.1 with CAP_NET_ADMIN: mark": [
        wire.attribute(wire.SHUTDOWN, b"\0"),
        wire.attribute(wire.MARK, bytes(4)),
        wire.cgroup(4242),
        wire.skmeminfo(4096),
    ],
    "kTLS: info behind": [*usual(rmem=4096), wire.attribute(wire.ULP_INFO, bytes(37))],
    "memory before cgroup": [wire.skmeminfo(4096), wire.cgroup(4242)],
    "attribute of the future between": [
        wire.cgroup(4242),
        wire.attribute(99, bytes(21)),
        wire.skmeminfo(4096, words=9),
    ],
    "longer memory of the future": [wire.attribute(wire.SKMEMINFO, struct.pack("=I", 4096) + bytes(44))],
    "nested and byte order bits in the type": [wire.attribute(wire.CGROUP_ID | 0x8000, bytes(8)), wire.skmeminfo(4096)],
}


@pytest.mark.parametrize("attributes", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("peer", ["192.0.2.7", "2001:db8::7"])
def test_every_kernels_message_is_counted_alike(attributes: list[bytes], peer: str) -> None:
    census, reader = count(*[tcp(*attributes, peer=peer)] * 3)

    assert (3, 3 * 4096, 3 * 4096, 0, 0, 0) == totals(census)
    assert 0 == reader.malformed
    assert 1 == len(census.rows)


def test_messages_of_all_kinds_mixed_are_each_counted_by_their_own_layout() -> None:
    mixed = [tcp(*attributes, peer=peer) for attributes in VARIANTS.values() for peer in ("192.0.2.7", "2001:db8::7")]
    census, _ = count(*mixed, *reversed(mixed))

    assert 4 * len(VARIANTS) == totals(census)[0]
    assert 4 * len(VARIANTS) * 4096 == totals(census)[1]


def test_same_length_with_attributes_elsewhere_is_not_misread() -> None:
    one = [wire.attribute(99, bytes(4)), wire.cgroup(5), wire.skmeminfo(4096)]
    other = [wire.cgroup(6), wire.attribute(99, bytes(4)), wire.skmeminfo(8192)]
    census, _ = count(tcp(*one), tcp(*other), tcp(*one), tcp(*other))

    assert {5: 2 * 4096, 6: 2 * 8192} == {key[3]: row[1] for key, row in census.rows.items()}


def test_without_a_cgroup_attribute_there_is_no_cgroup() -> None:
    census, _ = count(tcp(*usual(group=None, rmem=1)), tcp(*usual(group=None, rmem=1)))

    assert [b""] == [key[3] for key in census.rows]


def test_minisocks_and_requests_are_no_sockets() -> None:
    mark = wire.attribute(wire.MARK, bytes(4))
    census, _ = count(
        tcp(state=wire.FIN_WAIT2, timer=wire.TIMEWAIT, inode=0),
        tcp(mark, state=wire.FIN_WAIT2, timer=wire.TIMEWAIT, inode=0),
        tcp(mark, state=wire.SYN_RECV, timer=wire.RETRANSMIT, inode=0),
    )

    assert {wire.FIN_WAIT2: 2, wire.SYN_RECV: 1} == census.minisocks
    assert {} == census.rows


def test_listeners_are_noted_with_their_queues() -> None:
    listening = tcp(*usual(), state=wire.LISTEN, sport=8080, dport=0, peer="::", unread=3, unsent=128, inode=9)
    census, _ = count(listening, listening)

    assert {(0, 8080, 4242): (2, 6, 256, 9)} == census.listeners
    assert {} == census.rows


def test_mapped_addresses_are_networks_of_ipv4() -> None:
    mapped = tcp(*usual(), peer="192.0.2.200", family=AF_INET6)
    census, _ = count(
        tcp(*usual(), peer="192.0.2.7"), mapped, tcp(*usual(), peer="2001:db8::1"), tcp(*usual(), peer="::1")
    )

    assert [1, 1, 2] == sorted(row[0] for row in census.rows.values())


def test_upper_half_like_an_ipv4_network_is_another_network() -> None:
    census, _ = count(tcp(*usual(), peer="32.1.13.9"), tcp(*usual(), peer="2001:d00::9"))

    assert 2 == len(census.rows)


@pytest.mark.parametrize(("last", "end"), [(wire.done(), End(0)), (wire.done(5), End(5)), (wire.error(2), End(2))])
def test_end_of_a_dump_is_told_with_its_error(last: bytes, end: End) -> None:
    census = Census()
    data = tcp(*usual()) + last + tcp(*usual())

    assert end == Reader(census).feed(data, len(data))
    assert 1 == totals(census)[0]


def test_interrupted_dump_is_noticed_in_the_middle_of_a_row() -> None:
    plain, marked = tcp(*usual()), tcp(*usual(), flags=wire.MULTI | wire.INTERRUPTED)
    census, reader = count(plain, plain, marked, plain)

    assert reader.interrupted
    assert 4 == totals(census)[0]
    assert not count(plain, plain)[1].interrupted


def test_other_messages_and_families_are_skipped() -> None:
    unix = bytearray(tcp(*usual()))
    unix[16] = 1
    census, reader = count(wire.message(1, b""), wire.message(99, bytes(10)), bytes(unix), tcp(*usual()))

    assert 1 == totals(census)[0]
    assert 1 == reader.malformed


def test_cut_message_is_malformed_and_what_came_before_counts() -> None:
    data = tcp(*usual()) + tcp(*usual())[:-5]
    census = Census()
    reader = Reader(census)

    assert reader.feed(data, len(data)) is None
    assert (1, 1) == (totals(census)[0], reader.malformed)


def test_stale_bytes_behind_the_end_are_not_read() -> None:
    one = tcp(*usual())
    census = Census()
    Reader(census).feed(one + one, len(one))

    assert 1 == totals(census)[0]


@given(st.binary(max_size=600))
def test_garbage_never_raises(data: bytes) -> None:
    Reader(Census()).feed(data, len(data))


@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=12), st.integers(0, 500))
def test_damaged_messages_never_raise_and_never_count_too_many(damage: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(tcp(*usual()) + tcp(*usual(), peer="2001:db8::1") + tcp(state=5, timer=3))
    messages = 3
    for at, value in damage:
        if at < len(data):
            data[at] = value
    census = Census()
    Reader(census).feed(data, min(cut, len(data)))

    assert totals(census)[0] <= messages + len(damage)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2**32 - 1),
            st.integers(0, 2**32 - 1),
            st.integers(-(2**31), 2**31 - 1),
            st.sampled_from([6, 7, 8, 9]),
        ),
        max_size=40,
    )
)
def test_totals_are_the_sum_of_what_every_socket_says(sockets: list[tuple[int, int, int, int]]) -> None:
    census, _ = count(*(tcp(wire.cgroup(2), wire.skmeminfo(r, w, f, words)) for r, w, f, words in sockets))
    pages = sum(-(-(r + w + max(f, 0)) // 4096) for r, w, f, _ in sockets)

    assert (len(sockets), pages * 4096) == totals(census)[:2]
