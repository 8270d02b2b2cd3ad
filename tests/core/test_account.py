"""Whose sockets were killed and refused: names, sums, bounds, and what a restart goes on from."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from agent.core.kernel.tracing import Kills, Refusals
from agent.core.model import Witness
from agent.core.sockets.cgroup_names import Owner
from agent.core.witness import SHOWN_AT_MOST, Account, share_out

NGINX, BACKUP = Owner(unit="nginx.service"), Owner(unit="backup.service")
OWNERS = {("nginx", 1): NGINX, ("rsync", 2): BACKUP}


def kills(count=1, name="nginx", pid=1, **ends):
    known = {"address": "10.0.0.5", "port": 443, "peer": "192.0.2.7", "peer_port": None} | ends
    return Kills(name=name, pid=pid, count=count, **known)


def counts(witness):
    return [(each.unit or each.process, each.kills, each.refusals) for each in witness.by]


def test_kills_are_added_up_by_name_with_ports_and_peers() -> None:
    account = Account()
    account.take([kills(5), kills(2, peer="192.0.2.9"), kills(3, "rsync", 2, port=873)], 0, OWNERS)
    account.take([kills(1, port=80)], 0, OWNERS)
    witness = account.witness(None)

    assert [("nginx.service", 8, 0), ("backup.service", 3, 0)] == counts(witness)
    assert ("nginx", (443, 80), ("192.0.2.7", "192.0.2.9")) == (
        witness.by[0].process,
        witness.by[0].ports,
        witness.by[0].peers,
    )


def test_a_connection_that_went_out_shows_the_port_it_went_to() -> None:
    account = Account()
    account.take([kills(4, port=None, peer_port=5432)], 0, OWNERS)
    [by] = account.witness(None).by
    assert ((), ("192.0.2.7 port 5432",)) == (by.ports, by.peers)


def test_refusals_of_receivers_have_no_name_and_those_of_writers_have() -> None:
    account = Account()
    account.refuse([Refusals("send", "rsync", 2, 120), Refusals("receive", None, None, 58)], OWNERS)
    assert [("backup.service", 0, 120), (None, 0, 58)] == counts(account.witness(None))


def test_a_program_that_has_ended_goes_by_its_name_until_a_port_names_it() -> None:
    account = Account()
    account.take([kills(9, "python3", 77, port=8080), kills(4, None, None, port=8080)], 0, {})
    assert [("python3", 9, 0), (None, 4, 0)] == counts(account.witness(None))
    account.find_names(lambda place: (Owner(unit="shop.service"), True) if place.port == 8080 else (Owner(), True))

    [by] = account.witness(None).by
    assert ("shop.service", "python3", 13, True) == (by.unit, by.process, by.kills, by.guess)


def test_a_name_of_which_most_is_known_is_no_guess() -> None:
    account = Account()
    account.take([kills(9), kills(4, None, None)], 0, OWNERS)
    account.find_names(lambda _: (NGINX, True))
    [by] = account.witness(None).by
    assert (13, False) == (by.kills, by.guess)


def test_a_port_is_of_who_alone_acted_on_it() -> None:
    account, others = Account(), {("nginx", 1): NGINX, ("caddy", 2): Owner(unit="caddy.service")}
    account.take([kills(9, port=80), kills(3, port=443), kills(2, "caddy", 2, port=443)], 0, others)
    assert [NGINX, Owner(), Owner()] == [account.owner_of(port) for port in (80, 443, None)]


def test_a_port_stays_of_who_acted_on_it_when_interrupts_were_added() -> None:
    account = Account()
    account.take([kills(9, port=80), kills(4, None, None, port=80)], 0, OWNERS)
    account.find_names(lambda place: (account.owner_of(place.port), True))
    assert NGINX == account.owner_of(80)


def test_a_guess_proves_no_port() -> None:
    account = Account()
    account.take([kills(4, None, None, port=80)], 0, {})
    account.find_names(lambda _: (NGINX, True))
    assert Owner() == account.owner_of(80)


def test_lost_kills_that_nothing_was_read_with_are_unattributed() -> None:
    account = Account()
    account.take([], 12, {})
    witness = account.witness(None)
    assert (12, 12, [(None, 12, 0)]) == (witness.kills, witness.lost, counts(witness))
    assert witness.by[0].pro_rata


def test_lost_kills_go_to_those_that_were_read_with_them_alone() -> None:
    account = Account()
    account.take([kills(50)], 0, OWNERS)
    account.take([kills(10, "rsync", 2)], 5, OWNERS)
    assert [("nginx.service", 50, False), ("backup.service", 15, True)] == [
        (each.unit, each.kills, each.pro_rata) for each in account.witness(None).by
    ]


def test_unseen_is_what_the_counter_rose_further_and_never_negative() -> None:
    account = Account()
    account.take([kills(10)], 0, OWNERS)
    assert None is account.witness(None).unseen
    assert 4 == account.witness(14).unseen
    assert 0 == account.witness(7).unseen


def test_before_6_12_kills_are_unknown_and_not_zero() -> None:
    account = Account(sees_kills=False)
    account.refuse([Refusals("send", "rsync", 2, 3)], OWNERS)
    witness = account.witness(14)
    assert (None, None, 3) == (witness.kills, witness.unseen, witness.refusals)


def test_a_restart_goes_on_from_what_is_stored() -> None:
    before = Account()
    before.take([kills(8), kills(3, "rsync", 2, port=873), kills(2, None, None)], 4, OWNERS)
    stored = msgspec.json.decode(msgspec.json.encode(before.witness(20)), type=Witness)
    after = Account(stored)

    assert stored == after.witness(None)
    after.take([kills(1, "rsync", 2, port=873)], 0, OWNERS)
    assert stored.kills + 1 == after.witness(None).kills


def test_many_names_end_in_one_for_all_others_that_stays_one_over_restarts() -> None:
    owners = {("app", pid): Owner(unit=f"app-{pid}.service") for pid in range(200)}
    account = Account()
    account.take([kills(200 - pid, "app", pid) for pid in range(200)], 0, owners)
    for _ in range(3):
        witness = account.witness(None)
        assert SHOWN_AT_MOST + 1 == len(witness.by)
        assert ("others", sum(range(201))) == (witness.by[-1].unit, witness.kills)
        assert sum(each.kills for each in witness.by) == witness.kills
        account = Account(witness)


def test_ports_and_peers_of_a_flood_stay_few() -> None:
    account = Account()
    for number in range(5000):
        account.take([kills(port=number, peer=f"10.0.{number // 250}.{number % 250}")], 0, OWNERS)
    [by] = account.witness(None).by
    assert (8, 5, 5000) == (len(by.ports), len(by.peers), by.kills)


def test_places_of_a_flood_stay_few_and_none_of_it_is_lost() -> None:
    account = Account()
    for number in range(5000):
        account.take([kills(name=None, pid=None, port=number)], 0, {})
    assert len(account.places) <= 65
    assert 5000 == account.witness(None).kills


def test_a_hostile_name_of_a_program_is_made_printable() -> None:
    account = Account()
    account.take([kills(1, "a\n, b\x1b", 9)], 0, {})
    [by] = account.witness(None).by
    assert by.process is not None
    assert not {"\n", "\x1b", ","} & set(by.process)


@given(st.integers(0, 10_000), st.lists(st.integers(0, 1000), max_size=20))
def test_shares_add_up_and_follow_the_parts(total: int, parts: list[int]) -> None:
    given_ = share_out(total, parts)
    assert (total if sum(parts) else 0) == sum(given_)
    assert all(abs(each * sum(parts) - total * part) <= sum(parts) for each, part in zip(given_, parts, strict=True))


names = st.sampled_from([("nginx", 1), ("rsync", 2), ("python3", 3), (None, None)])
rows = st.builds(
    lambda who, port, count: kills(count, *who, port=port), names, st.integers(1, 5) | st.none(), st.integers(1, 500)
)


@given(
    st.lists(st.tuples(st.lists(rows, max_size=6), st.integers(0, 50)), max_size=8), st.integers(0, 9000), st.booleans()
)
def test_names_remainder_and_unseen_add_up_to_the_counter(readings, risen, is_restarted) -> None:
    account = Account()
    for seen, lost in readings:
        account.take(seen, lost, OWNERS)
        account.find_names(lambda place: (NGINX, True) if place.port == 1 else (Owner(), True))
        account = Account(account.witness(None)) if is_restarted else account
    witness = account.witness(risen)

    events = sum(each.count for seen, _ in readings for each in seen)
    lost = sum(lost for _, lost in readings)
    assert events + lost == witness.kills == sum(each.kills for each in witness.by)
    assert lost == witness.lost
    assert max(risen, witness.kills) == witness.kills + witness.unseen
    assert all(each.kills or each.refusals for each in witness.by)
    assert witness.by == tuple(sorted(witness.by, key=lambda each: (each.unit is each.process is None, -each.kills)))
