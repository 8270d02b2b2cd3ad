r"""Numbers, spans of time and foreign text in a form that people can read and terminals can bear.

65536 -> "65,536"; 359424000 -> "343 MiB"; 7384 -> "2 h 3 min"; an escape byte -> "\x1b".
"""

import unicodedata
from collections.abc import Collection, Sequence
from datetime import datetime

from agent.core.times import in_zone_of

_KIBI = 1024
_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_TEN = 10
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
# Cc: C0 and C1 controls; Cf: bidi overrides and zero-width marks; Cs, Co, Cn: nothing a terminal can show;
# Zl and Zp: line breaks to some readers.
_UNPRINTABLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def count_text(count: int) -> str:
    """Group the digits of a count in threes."""
    return f"{count:,}"


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """Return a count with what is counted; the plural is that with an "s" where it is not given."""
    return f"{count_text(count)} {noun if count == 1 else plural or noun + 's'}"


def bytes_text(size: int) -> str:
    """Say a size in bytes with a binary unit and two or three digits."""
    sign, rest = ("-" if size < 0 else ""), abs(size)
    if rest < _KIBI:
        return f"{sign}{rest} B"
    power = min((rest.bit_length() - 1) // 10, len(_UNITS))
    # 1023.6 KiB would be printed as 1024 KiB, and is 1 MiB to everybody.
    if power < len(_UNITS) and (rest * 2) // _KIBI**power >= 2 * _KIBI - 1:
        power += 1
    tenths = (rest * 10 + _KIBI**power // 2) // _KIBI**power
    number = f"{tenths // 10}.{tenths % 10}" if tenths < _TEN * 10 and tenths % 10 else count_text((tenths + 5) // 10)
    return f"{sign}{number} {_UNITS[power - 1]}"


def duration_text(seconds: float) -> str:
    """Say a span of time with its two largest units."""
    if seconds != seconds or abs(seconds) == float("inf"):  # noqa: PLR0124 - that is what NaN means
        return "an unknown time"
    if abs(seconds) < _TEN:
        return f"{seconds:.1f} s".replace(".0 s", " s")
    whole = round(abs(seconds))
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return _pair(whole // _MINUTE, "min", whole % _MINUTE, "s")
    if whole < _DAY:
        return _pair(whole // _HOUR, "h", whole % _HOUR // _MINUTE, "min")
    days = whole // _DAY
    hours = whole % _DAY // _HOUR
    return counted(days, "day") + (f" {hours} h" if hours else "")


def moment_text(at: datetime, now: datetime, *, seconds: bool = False) -> str:
    """Say a moment by its clock and zone, with the date on another day than ``now``."""
    local = in_zone_of(at, now)
    day = "" if local.date() == now.date() else f"{local.date().isoformat()} "
    return f"{day}{local:{'%H:%M:%S' if seconds else '%H:%M'}} {local.tzname() or 'UTC'}"


def percent_text(value: int, limit: int) -> str | None:
    """Say ``value`` as a share of ``limit``; None where the limit is no measure."""
    if limit <= 0:
        return None
    tenths = (2000 * abs(value) + limit) // (2 * limit)
    number = f"{tenths // 10}.{tenths % 10}" if tenths < _TEN * 10 else count_text((tenths + 5) // 10)
    return f"-{number} %" if value < 0 and tenths else f"{number} %"


def printable(text: str, most: int = 2000) -> str:
    """Escape whatever could steer a terminal or hide in a line, and cut what is too long."""
    if len(text) <= most and text.isprintable():
        return text  # Nearly always, and this knows the same categories, at a hundredth of the time.
    shown = "".join(_escape(char) if unicodedata.category(char) in _UNPRINTABLE else char for char in text[:most])
    return shown + "…" if len(text) > most else shown


def columns_of(text: str) -> int:
    """Return how many columns a terminal gives a printable text: two for a wide character, none for one that combines.

    Widths are those of Unicode Standard Annex 11.
    """
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(char) in "FW" for char in text)
    return len(text) + wide - sum(unicodedata.combining(char) > 0 for char in text)


def pad(text: str, columns: int) -> str:
    """Pad a text to a width in columns."""
    return text + " " * (columns - columns_of(text))


def in_columns(rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> list[str]:
    """Align the cells of each column, those of the columns ``right`` to the right."""
    columns = [_in_column(cells, is_right=number in right) for number, cells in enumerate(zip(*rows, strict=True))]
    return ["  ".join(row).rstrip() for row in zip(*columns, strict=True)]


def _in_column(cells: Sequence[str], *, is_right: bool) -> list[str]:
    widths = list(map(columns_of, cells))
    most = max(widths)
    blanks = [" " * (most - width) for width in widths]
    return [blank + cell if is_right else cell + blank for cell, blank in zip(cells, blanks, strict=True)]


def wrap(text: str, columns: int, first: str = "", later: str | None = None) -> list[str]:
    """Break prose at blanks behind ``first``, further lines behind ``later``; a word that is too long stays whole.

    textwrap takes ten times as long, and an incident's text is written while an event waits.
    """
    # A no-break space is none to break at.
    lines, lead, rest = list[str](), first, " ".join(filter(None, text.split(" ")))
    while columns_of(lead) + columns_of(rest) > columns:
        end = rest.rfind(" ", 0, _fitting(rest, columns - columns_of(lead)) + 1)
        end = rest.find(" ") if end < 0 else end
        if end < 0:
            break
        lines.append(lead + rest[:end])
        lead, rest = first if later is None else later, rest[end + 1 :]
    return [*lines, lead + rest]


def _fitting(text: str, columns: int) -> int:
    """Count the characters of a text that fit into a width in columns."""
    if text.isascii():
        return max(0, columns)
    for number, char in enumerate(text):
        columns -= columns_of(char)
        if columns < 0:
            return number
    return len(text)


def _escape(char: str) -> str:
    if char == "\t":
        return " "
    code = ord(char)
    return f"\\x{code:02x}" if code <= 0xFF else f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"  # noqa: PLR2004 - widths of Python's own escapes


def _pair(large: int, large_unit: str, small: int, small_unit: str) -> str:
    return f"{large} {large_unit} {small} {small_unit}" if small else f"{large} {large_unit}"
