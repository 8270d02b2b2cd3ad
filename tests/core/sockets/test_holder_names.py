import pytest

from agent.core.model import Cause, Diagnosis, Holder, Mechanism, Witness, WitnessedBy
from agent.core.report import diagnosis_text, held_by
from agent.core.sockets.holder_names import largest_of, main_holder

MIB = 1 << 20


def diagnosis(*holders: Holder, cause: Cause = "orphans", limit: int | None = 131_072) -> Diagnosis:
    mechanism = Mechanism(tcp_max_orphans=limit, tcp_mem_bytes=(16 * MIB, 32 * MIB, 64 * MIB))
    return Diagnosis(cause=cause, confidence="likely", summary="s", mechanism=mechanism, holders=holders)


def holder(orphans: int, size: int = 0, unit: str | None = "nginx.service") -> Holder:
    return Holder(unit=unit, sockets=orphans + 3, orphans=orphans, bytes=size)


@pytest.mark.parametrize(
    ("expected", "found"),
    [
        (True, diagnosis(holder(9000), holder(9000, unit=None))),
        (False, diagnosis(holder(9000), holder(9001, unit=None))),
        (False, diagnosis(holder(61), holder(0, unit=None))),
        (False, diagnosis(holder(4095))),
        (True, diagnosis(holder(4096))),
        (False, diagnosis(holder(15), limit=64)),
        (True, diagnosis(holder(16), limit=64)),
        (True, diagnosis(holder(16), limit=None)),
        (False, diagnosis(holder(9000, unit=None))),
        (False, diagnosis()),
        (True, diagnosis(holder(0, 2 * MIB), cause="tcp_memory")),
        (False, diagnosis(holder(9000, 2 * MIB - 1), cause="tcp_memory")),
        (True, diagnosis(holder(9000), cause="both")),
        (False, diagnosis(holder(9000), cause="undetermined")),
        (False, diagnosis(holder(0, 64 * MIB), cause="none")),
    ],
)
def test_a_main_holder_has_half_of_what_is_short_and_enough_of_its_limit(found: Diagnosis, *, expected: bool) -> None:
    assert expected == (main_holder(found) is not None)
    assert expected == (held_by(found) is not None)
    assert expected == ("held by" in diagnosis_text(found))


def test_of_orphans_those_that_were_killed_count_for_who_had_most() -> None:
    def traced(own: int, others: int) -> Witness:
        by = (WitnessedBy(unit="nginx.service", kills=own), WitnessedBy(unit="shop.service", kills=others))
        return Witness(kills=own + others + 400, by=(*by, WitnessedBy(kills=400)))

    left = diagnosis(holder(22), limit=64)
    assert main_holder(left, traced(78, 150)) is None
    assert held_by(left, traced(78, 150)) is None
    assert main_holder(left, traced(128, 150)) is not None
    assert main_holder(diagnosis(holder(0, 2 * MIB), cause="tcp_memory"), traced(0, 150)) is not None


def test_who_is_no_main_holder_is_the_largest_known_one_in_the_details_alone() -> None:
    few = diagnosis(holder(61), holder(9, unit=None))
    found = largest_of(few)
    assert found
    assert (61, 70, "nginx.service") == (found.held, found.total, found.name)
    text = " ".join(diagnosis_text(few).split())
    assert "largest known holder nginx.service: 61 of 70 orphans, 64 sockets" in text
