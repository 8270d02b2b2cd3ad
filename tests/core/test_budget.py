from datetime import datetime, timedelta, timezone
from typing import get_args

import pytest
from material import make_incident, make_notice
from msgspec.structs import replace

from agent.core.budget import IDS_AT_MOST, MESSAGES_AN_HOUR, as_told, budget_of, decide, make_digest
from agent.core.delivery import Outcome
from agent.core.model import Notice, NoticeType, Pressure, Provenance

AT = datetime(2026, 11, 22, 14, tzinfo=timezone.utc)
SPENT = dict(MESSAGES_AN_HOUR)
UNSPENT: dict[Provenance, int] = {"claimed": 0, "kernel": 0}


def notice(kind: str = "opened", provenance: Provenance = "claimed") -> Notice:
    return make_notice(replace(make_incident(), provenance=provenance), f"sockmem.incident.{kind}")


def decided(kind: str, *earlier: Outcome, provenance: Provenance = "claimed", spent: bool = False, held: bool = False):
    return decide(notice(kind, provenance), earlier, is_held=held, sent=SPENT if spent else UNSPENT)


@pytest.mark.parametrize("provenance", get_args(Provenance))
@pytest.mark.parametrize(
    ("expected", "kind", "earlier", "spent"),
    [
        ("send", "opened", (), False),
        ("hold", "opened", (), True),
        ("send", "updated", ("delivered",), False),
        ("hold", "updated", ("delivered",), True),
        ("send", "resolved", ("delivered",), True),
        ("send", "resolved", ("delivered", "digested"), True),
        ("skip", "resolved", ("digested",), False),
        ("skip", "resolved", ("gave_up",), False),
        ("send", "resolved", (), False),  # Its opening was refused, and still may be taken.
        ("hold", "resolved", (), True),
    ],
)
def test_what_becomes_of_a_notice(
    provenance: Provenance, expected: str, kind: str, earlier: tuple[Outcome, ...], *, spent: bool
) -> None:
    assert expected == decided(kind, *earlier, provenance=provenance, spent=spent)


def test_one_budget_is_not_spent_by_the_other() -> None:
    only_claimed = {"claimed": 1_000_000, "kernel": 19}

    assert "send" == decide(notice("opened", "kernel"), (), is_held=False, sent=only_claimed)
    assert "hold" == decide(notice("opened", "claimed"), (), is_held=False, sent=only_claimed)


def test_what_the_gauges_warn_of_is_sent_whatever_forged_lines_have_spent() -> None:
    pressure = Pressure(level=3, cause="tcp_memory", claim="TCP memory is at its limit", value=9, limit=9)
    incident = replace(make_incident(), provenance="claimed", pressure=pressure)
    warned = make_notice(incident, "sockmem.incident.updated")
    spent = {"claimed": 6, "kernel": 0}
    assert "send" == decide(warned, ("delivered",), is_held=False, sent=spent)
    assert "send" == decide(warned, (), is_held=True, sent=spent)


def test_the_sixth_is_sent_and_the_seventh_held() -> None:
    assert {"claimed": 6, "kernel": 20} == MESSAGES_AN_HOUR
    assert "send" == decide(notice(), (), is_held=False, sent={"claimed": 5, "kernel": 0})
    assert "hold" == decide(notice(), (), is_held=False, sent={"claimed": 6, "kernel": 0})


def test_what_follows_a_held_opening_joins_it_unless_the_kernel_speaks() -> None:
    assert "hold" == decided("updated", held=True)
    assert "hold" == decided("resolved", held=True, provenance="kernel")
    assert "send" == decided("updated", held=True, provenance="kernel")


def test_of_what_was_not_told_only_the_kernels_word_is_told_and_as_an_opening() -> None:
    assert "skip" == decided("updated", "digested")
    assert "send" == decided("updated", "digested", provenance="kernel")
    assert "hold" == decided("updated", "digested", provenance="kernel", spent=True)
    assert "sockmem.incident.opened" == as_told(notice("updated"), ("digested",), is_held=False).type
    assert "sockmem.incident.opened" == as_told(notice("updated"), (), is_held=True).type
    assert "sockmem.incident.updated" == as_told(notice("updated"), ("delivered",), is_held=True).type
    assert "sockmem.incident.updated" == as_told(notice("updated"), (), is_held=False).type


def test_a_test_costs_nothing() -> None:
    test = make_notice(None, "sockmem.test")

    assert budget_of(test, is_told=False) is None
    assert "send" == decide(test, (), is_held=False, sent=SPENT)


def test_a_digest_counts_incidents_and_has_the_time_of_the_oldest() -> None:
    first, second = replace(notice(), id="1", at=AT), replace(notice("resolved"), id="2", at=AT + timedelta(hours=1))
    held = [("b", second), ("a", second), ("b", first)]
    digest = make_digest(held, "ops", "web1", AT + timedelta(hours=2))

    assert (AT, 2, ("a", "b")) == (digest.digest.since, digest.digest.count, digest.digest.ids)
    assert ("sockmem.digest", ("ops",), None) == (digest.type, digest.channels, digest.data)
    assert digest.id == make_digest(reversed(held), "ops", "web1", AT + timedelta(hours=9)).id
    assert digest.id != make_digest(held[1:], "ops", "web1", AT).id


def test_a_digest_names_as_many_as_a_receiver_takes_and_counts_all() -> None:
    held = [(f"i{number:06}", replace(notice(), id=str(number))) for number in range(IDS_AT_MOST + 5)]
    digest = make_digest(held, "ops", None, AT).digest

    assert (IDS_AT_MOST + 5, IDS_AT_MOST) == (digest.count, len(digest.ids))


def test_no_type_of_notice_is_forgotten() -> None:
    assert {f"sockmem.incident.{kind}" for kind in ("opened", "updated", "resolved")} | {
        "sockmem.digest",
        "sockmem.test",
    } == set(get_args(NoticeType))
