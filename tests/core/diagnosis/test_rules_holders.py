from typing import Any

import pytest
from material import NGINX, SHOP, make_event, make_group, make_sample, make_snapshot, make_table, tally

from agent.core.diagnosis.rules_cause import HOLDER_RULES, apply_rules
from agent.core.facts import gather_facts
from agent.core.model import Event, Finding, Sample
from agent.core.readings import Listener, PeerTally, SocketGroup
from agent.core.sockets.shares import HELD_BY

MB = 1 << 20
WAY = {"sockstat": None}


def found(
    *groups: SocketGroup,
    text: str | None = "orphans",
    history: tuple[Sample, ...] = (),
    snapshot: dict[str, Any] | None = None,
    **table: Any,
) -> dict[str, Finding]:
    said: tuple[Event, ...] = (make_event(text),) if text else ()
    taken = make_snapshot(sockets=make_table(*groups, **table), **(snapshot or {}))
    claims = {finding.claim: finding for finding in apply_rules(gather_facts(taken, said, history))}
    return {rule.__name__: claims[rule.__name__] for rule in HOLDER_RULES if rule.__name__ in claims}


def held_by(finding: Finding) -> list[Any]:
    return [each.value for each in finding.evidence if each.name == HELD_BY]


def test_without_a_table_nobody_is_suspected() -> None:
    assert {} == found()


@pytest.mark.parametrize(
    ("leaked", "others", "established", "expected"),
    [
        (300, 20, 1000, True),
        (255, 0, 1000, False),  # a proxy has some dozens in passing
        (300, 0, 40000, False),  # less than one in fifty
        (300, 301, 1000, True),  # the larger one is named
        (300, 299, 1000, True),
    ],
)
def test_a_leak_is_many_in_close_wait_most_of_one_owner(
    leaked: int, others: int, established: int, *, expected: bool
) -> None:
    claims = found(
        make_group(NGINX, 443, close_wait=tally(leaked), established=tally(established)),
        make_group(SHOP, 80, close_wait=tally(others)),
    )
    assert expected == ("one_owner_leaks_connections" in claims)
    if expected:
        owner = "nginx.service" if leaked > others else "shop.service"
        assert [owner] == held_by(claims["one_owner_leaks_connections"])


@pytest.mark.parametrize(
    ("sockets", "each", "expected"),
    [(52_000, 4096, True), (26_000, 8192, True), (26_000, 8193, False), (255, 4096, False), (40_000, 4096, False)],
)
def test_very_many_connections_are_most_of_the_memory_with_two_pages_each_at_most(
    sockets: int, each: int, *, expected: bool
) -> None:
    mem = (400 if sockets > 255 else 1) * MB // 4096
    claims = found(make_group(SHOP, None, to_port=6379, established=tally(sockets, each)), mem=mem, text="tcp_memory")
    assert expected == ("one_owner_holds_very_many_connections" in claims)
    assert not expected or ["shop.service"] == held_by(claims["one_owner_holds_very_many_connections"])


def test_a_leak_spread_over_three_owners_accuses_none() -> None:
    groups = [make_group(each, 80, close_wait=tally(300)) for each in (NGINX, SHOP, 77)]
    assert "one_owner_leaks_connections" not in found(*groups)


def test_close_wait_is_never_blamed_for_orphans() -> None:
    finding = found(make_group(NGINX, 443, close_wait=tally(9000)))["one_owner_leaks_connections"]
    assert "tcp_memory" == finding.cause


@pytest.mark.parametrize(("each", "expected"), [(2 * MB, True), (64 << 10, False)])
def test_a_reader_is_slow_only_where_the_memory_matters(each: int, *, expected: bool) -> None:
    slow = make_group(SHOP, 80, established=tally(150, each, rmem_bytes=150 * each, unread_bytes=140 * each))
    claims = found(slow, make_group(NGINX, 443, established=tally(100)), text="tcp_memory")
    assert expected == ("one_owner_does_not_read" in claims)
    assert not expected or ["shop.service"] == held_by(claims["one_owner_does_not_read"])


def test_a_reader_with_less_than_half_of_the_memory_is_not_slow() -> None:
    slow = make_group(SHOP, 80, established=tally(100, 2 * MB, rmem_bytes=200 * MB))
    assert "one_owner_does_not_read" not in found(slow, mem=500 * MB // 4096)


def test_peers_that_take_data_slowly_are_proved_by_closed_windows() -> None:
    sending = {"wmem_bytes": 400 * MB, "unsent_bytes": 390 * MB}
    closed = found(make_group(established=tally(200, 2 * MB, probing=100, **sending)))["peers_take_data_slowly"]
    moving = found(make_group(established=tally(200, 2 * MB, probing=3, **sending)))["peers_take_data_slowly"]
    assert ("likely", "possible") == (closed.confidence, moving.confidence)


def test_closed_windows_of_others_prove_nothing() -> None:
    others = make_group(SHOP, 80, established=tally(300, 1000, probing=300))
    writer = make_group(NGINX, 443, established=tally(200, 2 * MB, wmem_bytes=400 * MB, probing=3))
    assert "possible" == found(writer, others)["peers_take_data_slowly"].confidence


@pytest.mark.parametrize(
    ("waiting", "backlog", "expected"), [(2049, 2048, True), (128, 256, True), (127, 128, False), (128, 4096, False)]
)
def test_an_accept_queue_is_not_drained_when_many_wait_in_a_queue_half_full(
    waiting: int, backlog: int, *, expected: bool
) -> None:
    listener = Listener(port=80, cgroup=SHOP, waiting=waiting, backlog=backlog)
    group = make_group(None, 80, queued={"established": tally(waiting)})
    claims = found(group, listeners=(listener,))
    assert expected == ("accept_queue_not_drained" in claims)
    assert not expected or ["shop.service"] == held_by(claims["accept_queue_not_drained"])


def test_orphans_wait_for_stalled_peers_when_half_of_them_probe() -> None:
    assert "orphans_wait_for_stalled_peers" in found(make_group(fin_wait1=tally(300, probing=150)))
    assert "orphans_wait_for_stalled_peers" not in found(make_group(fin_wait1=tally(300, probing=149)))


def test_few_orphans_count_only_where_they_are_the_memory() -> None:
    assert "orphans_wait_for_stalled_peers" not in found(make_group(fin_wait1=tally(90, probing=90)))
    assert "orphans_wait_for_stalled_peers" in found(make_group(fin_wait1=tally(90, 4 * MB, probing=90)))


def test_vanished_peers_are_likely_when_sockets_gave_up_meanwhile() -> None:
    group = make_group(fin_wait1=tally(300, retransmitting=300))
    counters = {"counters": {"TCPAbortOnTimeout": 80}}
    gave_up = found(group, history=(make_sample(10, TCPAbortOnTimeout=10),), snapshot=counters)
    assert "likely" == gave_up["orphans_wait_for_vanished_peers"].confidence
    assert "possible" == found(group)["orphans_wait_for_vanished_peers"].confidence


def flood(each: int = 4096, last_ack: int = 4000, port: int | None = 443) -> set[str]:
    return set(found(make_group(NGINX, port, fin_wait1=tally(8000, each), last_ack=tally(last_ack, each))))


@pytest.mark.parametrize(("unanswered", "expected"), [(150, "likely"), (149, "possible")])
def test_vanished_peers_are_likely_when_half_have_not_answered_three_times(unanswered: int, expected: str) -> None:
    lost = make_group(fin_wait1=tally(300, retransmitting=300, unanswered=unanswered))
    finding = found(lost)["orphans_wait_for_vanished_peers"]
    assert expected == finding.confidence
    assert (unanswered, 300) in [(each.value, each.limit) for each in finding.evidence]


def test_short_connections_leave_small_orphans_in_mixed_states_on_one_port() -> None:
    assert "orphans_come_of_short_connections" in flood()
    assert "orphans_come_of_short_connections" not in flood(each=40_000)
    assert "orphans_come_of_short_connections" not in flood(last_ack=10)
    assert "orphans_come_of_short_connections" not in flood(port=None)


@pytest.mark.parametrize(
    ("network", "sockets", "expected"),
    [
        ("203.0.113.0/24", 1200, True),
        ("2001:db8:1::/64", 1200, True),
        ("203.0.113.0/24", 999, False),
        ("10.0.3.0/24", 1200, False),
        ("127.0.0.0/24", 1200, False),
        ("::1/128", 1200, False),
        ("fd00:1::/64", 1200, False),
        ("no network", 1200, False),
    ],
)
def test_a_foreign_network_with_most_connections_is_told_and_our_own_are_not(
    network: str, sockets: int, *, expected: bool
) -> None:
    peers = (PeerTally(network=network, sockets=sockets, orphans=3), PeerTally(network=None, sockets=700))
    claims = found(make_group(established=tally(sockets + 700), peers=peers))
    assert expected == ("one_network_holds_most" in claims)


def test_peers_of_connections_that_we_made_are_no_attack() -> None:
    peers = (PeerTally(network="203.0.113.0/24", sockets=9000),)
    assert "one_network_holds_most" not in found(
        make_group(NGINX, None, to_port=443, established=tally(9000), peers=peers)
    )


def test_a_network_is_blamed_for_orphans_only_when_most_of_its_sockets_are() -> None:
    peers = (PeerTally(network="203.0.113.0/24", sockets=2000, orphans=1900),)
    finding = found(make_group(fin_wait1=tally(2000), peers=peers))["one_network_holds_most"]
    assert "orphans" == finding.cause
