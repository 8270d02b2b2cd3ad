"""Tables and keys of config.toml against the structs of agent.core.settings: types, ranges, and what was meant.

An error is a line such as::

    [incident]: key `quiet_secnds` is not known; did you mean `quiet_seconds`?
    [incident]: key `quiet_seconds` must be 1 to 86400 seconds, not 0
"""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, get_args, get_origin

import msgspec

from agent.core.settings import ChannelSettings, IncidentSettings, MetricsSettings, SourceSettings, StoreSettings
from agent.core.words import printable

TABLES: dict[str, type[msgspec.Struct]] = {
    "source": SourceSettings,
    "store": StoreSettings,
    "incident": IncidentSettings,
    "metrics": MetricsSettings,
    "notify": ChannelSettings,
}
RANGES = {
    "quiet_seconds": (1, 86_400, "seconds"),
    "keep_days": (1, 36_500, "days"),
    "keep_count": (1, 1_000_000, "incidents"),
    "keep_bytes": (1, 2**62, "bytes"),
    "min_free_bytes": (0, 2**62, "bytes"),
    "give_up_after": (60, 31_536_000, "seconds"),
}
LONGEST_QUOTE = 200
WORD = re.compile(r"[A-Za-z0-9_-]{0,20}")

Say = Callable[[str], None]


def at(place: str, say: Say) -> Say:
    """Put a place in front of every error that is said."""
    return lambda text: say(f"{place}: {text}")


def check_tables(document: Mapping[str, Any], say: Say) -> None:
    """Find what stands at the top of the file and is no table of ours."""
    for key, value in document.items():
        home = next((name for name, struct in TABLES.items() if key in struct.__struct_fields__), None)
        if key in TABLES:
            continue
        if home and not isinstance(value, dict):
            say(f"key `{key}` stands outside its table; it belongs below {_header(home)}")
        elif isinstance(value, dict | list):
            say(f"table {shown(key)} is not known; {_hint(key, TABLES, _header)}")
        else:
            say(f"key {shown(key)} is not known; only tables stand here: {', '.join(map(_header, TABLES))}")


def read_keys(struct: type[msgspec.Struct], table: object, say: Say) -> dict[str, Any]:
    """Check the keys of one table one by one; what is returned is right by type and range."""
    if table is None:
        return {}
    if not isinstance(table, dict):
        say("must be a table, written once, in single brackets, with its keys below")
        return {}
    types = {field.name: field.type for field in msgspec.structs.fields(struct)}
    values = {}
    for key, value in table.items():
        error = _key_error(key, value, types)
        if error:
            say(f"key {shown(key)} {error}")
        else:
            values[key] = msgspec.convert(value, types[key])
    return values


def is_absolute(path: str) -> bool:
    """Tell whether this can be the path of a file, wherever the service was started."""
    return path.startswith("/") and "\0" not in path


def shown(text: str) -> str:
    """Quote what stood in the file: not without end, and without what could move a terminal's cursor."""
    return f"`{printable(text, LONGEST_QUOTE)}`"


def _key_error(key: str, value: object, types: Mapping[str, Any]) -> str | None:
    """Say what is wrong with a key, None when it is right; a free text is never quoted, it may be a secret."""
    if key not in types:
        return f"is not known; {_hint(key, types, shown)}"
    try:
        checked = msgspec.convert(value, types[key])
    except msgspec.ValidationError:
        return f"must be {_allowed(key, types[key])}, not {_described(value, types[key])}"
    if key in RANGES:
        low, high, unit = RANGES[key]
        if not low <= checked <= high:
            return f"must be {low} to {high} {unit}, not {checked}"
    return None


def _allowed(key: str, kind: object) -> str:
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(f'"{value}"' for value in get_args(kind))
    if kind is int:
        low, high, unit = RANGES[key]
        return f"a whole number, {low} to {high} {unit}"
    return "a text in quotes" if kind is str else 'a list of texts, such as ["…", "…"]'


def _described(value: object, kind: object) -> str:
    if isinstance(value, str):
        # A URL that landed in the wrong key is still a secret.
        return f'"{value}"' if get_origin(kind) is Literal and WORD.fullmatch(value) else "a text"
    if isinstance(value, bool | int | float):
        return str(value).lower()[:40]
    if isinstance(value, list):
        return "a list" if all(isinstance(item, str) for item in value) else "a list with other things in it"
    return "a table" if isinstance(value, dict) else "a date or time"


def _hint(key: str, known: Iterable[str], show: Callable[[str], str]) -> str:
    names = list(known)
    close = difflib.get_close_matches(key, names, n=1)
    return f"did you mean {show(close[0])}?" if close else f"known are {', '.join(map(show, names))}"


def _header(name: str) -> str:
    return "[[notify]]" if name == "notify" else f"[{name}]"
