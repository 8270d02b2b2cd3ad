import pytest

from agent.service.troubles import Troubles

WHAT = "evidence cannot be written"


def fail(troubles: Troubles, error: Exception) -> None:
    with troubles.survived(WHAT, ValueError):
        raise error


def test_a_failure_is_a_trouble_until_it_goes_well(caplog: pytest.LogCaptureFixture) -> None:
    troubles = Troubles()
    fail(troubles, OSError())
    fail(troubles, OSError())
    assert [WHAT] == list(troubles)
    with troubles.survived(WHAT):
        pass

    assert [] == list(troubles)
    assert 1 == len(caplog.records)


def test_a_part_that_goes_well_ends_nothing_and_the_whole_does() -> None:
    troubles = Troubles()
    fail(troubles, OSError())
    with troubles.survived(WHAT, is_part=True):
        pass
    assert WHAT in troubles
    troubles.end(WHAT)

    assert WHAT not in troubles


def test_a_slip_stays_whatever_fails_or_goes_well_after_it() -> None:
    troubles = Troubles()
    fail(troubles, ValueError())
    fail(troubles, OSError())
    with troubles.survived(WHAT):
        pass

    assert WHAT in troubles


def test_what_nobody_expected_is_raised() -> None:
    troubles = Troubles()
    with pytest.raises(ValueError, match="slip"), troubles.survived(WHAT):
        raise ValueError("slip")

    assert WHAT not in troubles
