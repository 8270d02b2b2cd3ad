import re
from datetime import datetime, timedelta, timezone

import pytest

from agent.core.logs.timestamps import AMERICAN, EPOCH, NAMED, NUMBERED, from_epoch, is_zoned, match_stamp, read_stamp

NOW = datetime(2024, 3, 1, 12, tzinfo=timezone(timedelta(hours=2)))


def moment(pattern: re.Pattern[str], text: str) -> datetime | None:
    match = pattern.match(text)
    assert match is not None
    return read_stamp(match, NOW)


@pytest.mark.parametrize(
    ("text", "year"),
    [
        ("Mar  1 12:00:00 jp58", 2024),
        ("Mar  2 12:00:00 jp58", 2024),
        ("Mar  2 12:00:01 jp58", 2023),
        ("FEB 29 12:00:00 jp58", 2024),
        ("févr. 29 12:00:00 jp58", 2024),
        ("dez 31 23:59:59 jp58", 2023),
        ("Dec 31 23:59:59 jp58", 2023),
        ("Aug 18 2017 08:33:14 jp58", 2017),
        ("Aug 18, 2017 08:33:14 jp58", 2017),
        ("Aug 18 08:33:14 2017 jp58", 2017),
        ("Aug 18 08:33:14 2017:db8::1 kernel:", 2023),
    ],
)
def test_the_year_is_the_newest_that_fits(text: str, year: int) -> None:
    at = moment(NAMED, text)
    assert at is not None
    assert (year, timedelta(hours=2)) == (at.year, at.utcoffset())


# glibc's abmon of the languages that the table is for, as `locale abmon` prints it.
LANGUAGES = {
    "de_DE": "Jan;Feb;Mär;Apr;Mai;Jun;Jul;Aug;Sep;Okt;Nov;Dez",
    "de_AT": "Jän;Feb;Mär;Apr;Mai;Jun;Jul;Aug;Sep;Okt;Nov;Dez",
    "fr_FR": "janv.;févr.;mars;avril;mai;juin;juil.;août;sept.;oct.;nov.;déc.",
    "es_ES": "ene;feb;mar;abr;may;jun;jul;ago;sep;oct;nov;dic",
    "it_IT": "gen;feb;mar;apr;mag;giu;lug;ago;set;ott;nov;dic",
    "pt_BR": "jan;fev;mar;abr;mai;jun;jul;ago;set;out;nov;dez",
    "nl_NL": "jan;feb;mrt;apr;mei;jun;jul;aug;sep;okt;nov;dec",
    "sv_SE": "jan;feb;mar;apr;maj;jun;jul;aug;sep;okt;nov;dec",
    "nb_NO": "jan.;feb.;mars;april;mai;juni;juli;aug.;sep.;okt.;nov.;des.",
    "fi_FI": "tammi;helmi;maalis;huhti;touko;kesä;heinä;elo;syys;loka;marras;joulu",
    "pl_PL": "sty;lut;mar;kwi;maj;cze;lip;sie;wrz;paź;lis;gru",
    "cs_CZ": "led;úno;bře;dub;kvě;čen;čec;srp;zář;říj;lis;pro",
    "sk_SK": "jan;feb;mar;apr;máj;jún;júl;aug;sep;okt;nov;dec",
    "hu_HU": "jan;febr;márc;ápr;máj;jún;júl;aug;szept;okt;nov;dec",
    "ro_RO": "ian;feb;mar;apr;mai;iun;iul;aug;sep;oct;nov;dec",
    "tr_TR": "Oca;Şub;Mar;Nis;May;Haz;Tem;Ağu;Eyl;Eki;Kas;Ara",
    "id_ID": "Jan;Feb;Mar;Apr;Mei;Jun;Jul;Agu;Sep;Okt;Nov;Des",
    "ru_RU": "янв;фев;мар;апр;мая;июн;июл;авг;сен;окт;ноя;дек",
    "uk_UA": "січ;лют;бер;кві;тра;чер;лип;сер;вер;жов;лис;гру",  # noqa: RUF001 - Cyrillic is meant
    "ja_JP": " 1月; 2月; 3月; 4月; 5月; 6月; 7月; 8月; 9月;10月;11月;12月",
    "zh_CN": "1月;2月;3月;4月;5月;6月;7月;8月;9月;10月;11月;12月",
    "ko_KR": " 1월; 2월; 3월; 4월; 5월; 6월; 7월; 8월; 9월;10월;11월;12월",
}


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_months_of_a_language_are_read(language: str) -> None:
    for number, name in enumerate(LANGUAGES[language].split(";"), start=1):
        expected = datetime(2023, number, 12, 8, 33, 14, tzinfo=NOW.tzinfo)
        assert expected == moment(NAMED, f"{name.strip()} 12 2023 08:33:14 jp58")
        assert expected == moment(NAMED, f"{name.strip().upper()} 12 2023 08:33:14 jp58")


@pytest.mark.parametrize(
    "text", ["foo 12 08:33:14 x", "Novem 12 08:33:14 x", "13 12 08:33:14 x", "Nov 08:33:14 x", "Nov.. 12 08:33:14 x"]
)
def test_any_other_word_is_no_month(text: str) -> None:
    assert NAMED.match(text) is None


def test_a_month_beyond_the_twelfth_makes_no_moment() -> None:
    assert moment(NAMED, "13月 12 08:33:14 jp58") is None
    assert moment(NAMED, "0월 12 08:33:14 jp58") is None


@pytest.mark.parametrize(
    ("clock", "hour"), [("12:00:00 AM", 0), ("1:00:00 AM", 1), ("12:00:00 PM", 12), ("11:00:00 PM", 23)]
)
def test_twelve_comes_before_one_on_an_american_clock(clock: str, hour: int) -> None:
    at = moment(AMERICAN, f"8/18/2024, {clock}")

    assert (8, 18, hour) == (at and (at.month, at.day, at.hour))


def test_a_leap_day_waits_for_its_year() -> None:
    match = NAMED.match("Feb 29 12:00:00 jp58")
    assert match is not None
    assert datetime(2020, 2, 29, 12, tzinfo=timezone.utc) == read_stamp(
        match, datetime(2023, 6, 1, tzinfo=timezone.utc)
    )


@pytest.mark.parametrize(
    ("text", "hours"),
    [
        ("2024-02-18T08:33:14Z x", 0),
        ("2024-02-18T08:33:14,5+05:30 x", 5.5),
        ("2024-02-18T08:33:14-0330 x", -3.5),
        ("2024-02-18 08:33:14 UTC x", 0),
        ("2024-02-18 08:33:14 NAS x", 2),
        ("Sun 2024-02-18 08:33:14 CET x", 1),
        ("Sun 2024-02-18 08:33:14 -03 x", -3),
        ("2024-02-18T08:33:14 x", 2),
        ("2024:02:18-08:33:14 x", 2),
        ("2024.02.18 08:33:14.2045 x", 2),
        ("2024-02-18T08:33:14.20451 x", 0),
        ("2024-02-18_08:33:14.20451 x", 0),
        ("2024-02-18T08:33:14.20451+05:30 x", 5.5),
    ],
)
def test_zones_are_read_and_a_missing_one_is_the_readers(text: str, hours: float) -> None:
    at = moment(NUMBERED, text)
    assert at is not None
    assert timedelta(hours=hours) == at.utcoffset()


@pytest.mark.parametrize(
    "text",
    [
        "Sun 2024-02-18 08:33:14 IST x",
        "2024-02-30T08:33:14Z",
        "2024-02-18T08:33:14+99:99 x",
        "0001-01-01T00:00:00Z",
        "9999-12-31T23:59:59Z",
    ],
)
def test_a_moment_that_nobody_can_place_is_none(text: str) -> None:
    assert moment(NUMBERED, text) is None


def test_a_reader_without_a_zone_makes_no_moment_up() -> None:
    match = NAMED.match("Aug 18 08:33:14 jp58")
    assert match is not None
    assert read_stamp(match, datetime(2024, 3, 1)) is None  # noqa: DTZ001 - the naive clock is what is tested


@pytest.mark.parametrize(("zone", "hours"), [("CET", 1), ("-0330", -3.5), (None, 2)])
def test_a_zone_further_on_in_the_line_counts(zone: str | None, hours: float) -> None:
    match = NAMED.match("Feb 18 08:33:14 x")
    assert match is not None
    at = read_stamp(match, NOW, zone)
    assert at is not None
    assert timedelta(hours=hours) == at.utcoffset()


@pytest.mark.parametrize(
    "text", ["2024-02-18T08:33:14Z x", "2024-02-18T08:33:14.2+02:00 x", "2024-02-18T08:33:14-0330"]
)
def test_a_t_and_a_zone_make_a_stamp_zoned(text: str) -> None:
    stamp = match_stamp(text)
    assert stamp is not None
    assert is_zoned(stamp)


@pytest.mark.parametrize(
    "text",
    [
        "2024-02-18 08:33:14Z x",
        "Sun 2024-02-18 08:33:14 UTC x",
        "2024-02-18T08:33:14 x",
        "Feb 18 08:33:14 x",
        "123456789 x",
    ],
)
def test_any_other_stamp_is_not_zoned(text: str) -> None:
    stamp = match_stamp(text)
    assert stamp is not None
    assert not is_zoned(stamp)


def test_tai64n_labels_are_read() -> None:
    assert datetime(2024, 8, 18, 6, 33, 14, tzinfo=timezone.utc) == moment(
        EPOCH, "@4000000066c195b40c30a9f8 kern.info:"
    )
    assert moment(EPOCH, "@ffffffffffffffff0c30a9f8 kern.info:") is None


def test_seconds_since_1970_are_read() -> None:
    assert datetime(2024, 8, 18, 6, 33, 14, 500000, tzinfo=timezone.utc) == moment(EPOCH, "1723962794.5 jp58")
    assert [None] * 5 == [from_epoch(value) for value in ("x", True, None, 1e300, float("nan"))]
