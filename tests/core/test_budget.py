from datetime import datetime, timedelta, timezone
from typing import get_args

from material import make_incident
from msgspec.structs import replace

from agent.core.budget import IDS_AT_MOST, MESSAGES_AN_HOUR, make_digest, proof_of
from agent.core.model import NoticeType, Pressure

AT = datetime(2026, 11, 22, 14, tzinfo=timezone.utc)


def test_six_claimed_and_twenty_proven_ones_are_sent_in_an_hour() -> None:
    assert {"claimed": 6, "kernel": 20} == MESSAGES_AN_HOUR


def test_what_the_gauges_warn_of_is_no_claim_whatever_forged_lines_say() -> None:
    pressure = Pressure(level=3, cause="tcp_memory", claim="TCP memory is at its limit", value=9, limit=9)
    claimed = replace(make_incident(), provenance="claimed")

    assert ("claimed", "kernel") == (proof_of(claimed), proof_of(replace(claimed, pressure=pressure)))


def test_a_digest_counts_incidents_and_has_the_time_of_the_oldest() -> None:
    held = {("b", "notice-002"): AT + timedelta(hours=1), ("a", "notice-001"): AT + timedelta(hours=1)}
    held |= {("b", "notice-001"): AT}
    digest = make_digest(held, "ops", "web1", AT + timedelta(hours=2))

    assert (AT, 2, ("a", "b")) == (digest.digest.since, digest.digest.count, digest.digest.ids)
    assert ("sockmem.digest", ("ops",), None) == (digest.type, digest.channels, digest.data)
    backwards = dict(reversed(held.items()))
    assert digest.id == make_digest(backwards, "ops", "web1", AT + timedelta(hours=9)).id
    first = {key: at for key, at in held.items() if key[0] == "a"}
    assert digest.id == make_digest(first, "ops", "web1", AT).id
    others = {key: at for key, at in held.items() if key[0] == "b"}
    assert digest.id != make_digest(others, "ops", "web1", AT).id


def test_a_digest_names_as_many_as_a_receiver_takes_and_counts_all() -> None:
    held = {(f"i{number:06}", "notice-001"): AT for number in range(IDS_AT_MOST + 5)}
    digest = make_digest(held, "ops", None, AT).digest

    assert (IDS_AT_MOST + 5, IDS_AT_MOST) == (digest.count, len(digest.ids))


def test_no_type_of_notice_is_forgotten() -> None:
    assert {f"sockmem.incident.{kind}" for kind in ("opened", "updated", "resolved")} | {
        "sockmem.digest",
        "sockmem.test",
    } == set(get_args(NoticeType))
