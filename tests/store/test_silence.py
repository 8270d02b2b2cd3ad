from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from msgspec.json import Decoder

from agent.core.model import Silence
from agent.store import StoreError, end_silence, read_silence, silence, write_silence
from agent.store.disk import read_json

SINCE = datetime(2026, 11, 29, 14, 0, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)
SILENCE = Silence(since=SINCE, until=SINCE + HOUR, reason="deploying")


def test_what_was_written_is_read_until_it_is_ended(tmp_path: Path) -> None:
    assert read_silence(tmp_path) is None

    write_silence(tmp_path, SILENCE)

    assert SILENCE == read_silence(tmp_path)
    end_silence(tmp_path)
    end_silence(tmp_path)
    assert read_silence(tmp_path) is None


def test_one_that_ends_while_it_is_read_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_silence(tmp_path, SILENCE)

    def read_too_late(path: Path, decoder: Decoder[Silence]) -> Silence:
        path.unlink()
        return read_json(path, decoder)

    monkeypatch.setattr(silence, "read_json", read_too_late)

    assert read_silence(tmp_path) is None


@pytest.mark.parametrize(
    ("after", "is_on"),
    [
        (timedelta(0), True),
        (HOUR - timedelta(seconds=1), True),
        (HOUR, False),
        (timedelta(minutes=-4), True),  # NTP corrected the clock just after.
        (timedelta(days=-300), False),  # A clock set back must not silence for a year.
    ],
)
def test_a_silence_lasts_from_its_beginning_to_its_end_by_any_clock(after: timedelta, *, is_on: bool) -> None:
    assert is_on == SILENCE.is_on(SINCE + after)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        '{"since": "2026-11-29T14:00:00Z", "until": "2027-11-29T14:00:00Z", "reason": "for ever"}',
        '{"since": "2026-11-29T14:00:00Z", "until": "2026-11-29T14:00:00Z", "reason": "never"}',
        '{"since": "2026-11-29T14:00:00", "until": "2026-11-29T15:00:00", "reason": "of no zone"}',
        '{"since": "0001-01-01T00:00:00Z", "until": "0001-01-01T01:00:00Z", "reason": "long ago"}',
    ],
)
def test_damage_is_one_line_that_names_the_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "silence.json").write_text(text)

    with pytest.raises(StoreError, match=r"silence\.json: cannot be read"):
        read_silence(tmp_path)
