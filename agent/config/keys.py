"""Checks tables and keys of config.toml against the structs of agent.core.settings, with suggestions for misspellings.

Sample errors::

    [incident]: key `quiet_secnds` is unknown; did you mean `quiet_seconds`?
    [incident]: key `quiet_seconds` must be a whole number, 1 to 86400 seconds, not 0
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, cast, get_args

import msgspec
from msgspec.inspect import (
    BoolType,
    DictType,
    Field,
    IntType,
    LiteralType,
    Metadata,
    StrType,
    StructType,
    Type,
    VarTupleType,
    type_info,
)

from agent.core.format import printable
from agent.core.settings import ChannelSettings, Settings, Table

SECTIONS: dict[str, type[Table]] = {
    field.name: field.type for field in msgspec.structs.fields(Settings) if field.name != "notify"
}
TABLES = (*SECTIONS, "notify")
LONGEST_QUOTE = 200
RULES: Mapping[type[Type], str] = {
    BoolType: "must be true or false",
    StrType: "must be a string in quotes",
    VarTupleType: 'must be a list of strings, such as ["…", "…"]',
    DictType: 'must be a table of strings, such as {name = "…"}',
}
WORD = re.compile(r"[A-Za-z0-9_-]{0,20}")

Say = Callable[[str], None]
Keys = Mapping[str, Field]
AnyTable = TypeVar("AnyTable", bound=Table)


def at(place: str, say: Say) -> Say:
    """Prefix every error with its place."""
    return lambda text: say(f"{place}: {text}")


def header(name: str) -> str:
    """Format a table's name as in the file."""
    return "[[notify]]" if name == "notify" else f"[{name}]"


def check_tables(document: Mapping[str, Any], say: Say) -> None:
    """Report unknown keys and tables at the top level."""
    for key, value in document.items():
        if key in TABLES:
            continue
        home = next((name for name in TABLES if key in _every_key(name)), None)
        if home and not isinstance(value, dict):
            say(f"key `{key}` is outside its table; move it below {header(home)}")
        elif isinstance(value, dict | list):
            say(f"unknown table {shown(key)}; {_hint(key, TABLES, header)}")
        else:
            say(f"unknown key {shown(key)}; only tables are allowed here: {', '.join(map(header, TABLES))}")


def keys_of(struct: type[Table]) -> dict[str, Field]:
    """Return the keys that a table may have, in order, as the file spells them."""
    return {field.encode_name: field for field in cast("StructType", type_info(struct)).fields}


def read_section(struct: type[AnyTable], table: object, say: Say) -> AnyTable:
    """Read a table that appears once; report an invalid key and use its default."""
    if not isinstance(table, dict):
        say("must be a table: once, in single brackets, with its keys below")
        return struct()
    return struct(**read_keys(keys_of(struct), table, say))


def read_keys(
    keys: Keys,
    table: Mapping[str, Any],
    say: Say,
    unknown: str = "is unknown",
    unfit: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """Check the keys of one table; the values returned have the right type, range and pattern.

    ``unfit`` says of known keys why they cannot be here.
    """
    values = {}
    for key, value in table.items():
        if key in keys:
            faults = list(_faults(value, keys[key].type))
        else:
            faults = [f" {unfit.get(key) or f'{unknown}; {_hint(key, keys, shown)}'}"]
        for fault in faults:
            say(f"key {shown(key)}{fault}")
        if not faults:
            values[key] = tuple(value) if isinstance(value, list) else value
    for key, field in keys.items():
        if field.required and key not in table:
            say(f"key `{key}` is missing; it {_rule(field.type, {})}")
    return values


def shown(text: str) -> str:
    """Quote text from the file, shortened and without terminal control characters."""
    return f"`{printable(text, LONGEST_QUOTE)}`"


def why_unread(path: Path, error: OSError) -> str:
    """Return why a file cannot be read, and the fix where it is a matter of its owner and mode."""
    fix = ""
    if isinstance(error, PermissionError):
        fix = f"; use sudo, or let the service read it: chgrp sockmem-agent {path} && chmod 0640 {path}"
    return f"cannot be read: {error.strerror}{fix}"


def _faults(value: object, kind: Type, extra: Mapping[str, Any] | None = None) -> Iterator[str]:
    """Yield what is wrong with a value, to follow its key: `` must be ...``, or ``, entry 2, must be ...``."""
    extra = extra or {}
    if isinstance(kind, Metadata):
        yield from _faults(value, kind.type, kind.extra)
    elif not _fits(value, kind, extra):
        yield f" {_rule(kind, extra)}{_instead(value, kind, extra)}"
    elif isinstance(kind, VarTupleType) and isinstance(value, list):
        for number, entry in enumerate(value, start=1):
            yield from (f", entry {number},{fault}" for fault in _faults(entry, kind.item_type))
    elif isinstance(kind, DictType) and isinstance(value, dict):
        for number, (name, entry) in enumerate(value.items(), start=1):
            yield from (f", name {number},{fault}" for fault in _faults(name, kind.key_type))
            yield from (f", value {number},{fault}" for fault in _faults(entry, kind.value_type))


def _fits(value: object, kind: Type, extra: Mapping[str, Any]) -> bool:
    """Check as msgspec.convert does, except that a pattern must match the whole text, a final line break included."""
    if isinstance(kind, LiteralType):
        return isinstance(value, str) and value in kind.values
    if isinstance(kind, BoolType):
        return isinstance(value, bool)
    if isinstance(kind, IntType):
        low, high = kind.ge or 0, kind.le or 0
        return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
    test = extra.get("test") or (lambda _: True)
    if isinstance(kind, StrType):
        return isinstance(value, str) and bool(re.fullmatch(kind.pattern or "(?s:.*)", value)) and test(value)
    if isinstance(kind, VarTupleType):
        is_list = isinstance(value, list) and all(isinstance(entry, str) for entry in value)
        return is_list and len(cast("list[str]", value)) >= (kind.min_length or 0) and test(value)
    return isinstance(value, dict)


def _rule(kind: Type, extra: Mapping[str, Any]) -> str:
    """Return what is allowed."""
    if isinstance(kind, Metadata):
        return _rule(kind.type, kind.extra or {})
    if isinstance(kind, LiteralType):
        return "must be one of " + ", ".join(f'"{value}"' for value in kind.values)
    if isinstance(kind, IntType):
        return f"must be a whole number, {kind.ge} to {kind.le} {extra['unit']}"
    return str(extra.get("rule") or RULES[type(kind)])


def _instead(value: object, kind: Type, extra: Mapping[str, Any]) -> str:
    """Return the actual value; a free string is never quoted: it may be a secret in the wrong key."""
    if isinstance(value, str) and isinstance(kind, StrType):
        return f", not {shown(value)}" if extra.get("public") else " (not shown: it may be a secret)"
    if isinstance(value, str):
        return f', not "{value}"' if isinstance(kind, LiteralType) and WORD.fullmatch(value) else ", not a string"
    if isinstance(value, bool | int | float):
        return f", not {str(value).lower()[:40]}"
    if isinstance(value, list):
        if any(not isinstance(entry, str) for entry in value):
            return ", not a list with other values"
        return ", not an empty list" if not value else ", not this list" if "test" in extra else ", not a list"
    return ", not a table" if isinstance(value, dict) else ", not a date or time"


def _every_key(name: str) -> tuple[str, ...]:
    structs = get_args(ChannelSettings) if name == "notify" else (SECTIONS[name],)
    return tuple(key for struct in structs for key in struct.__struct_encode_fields__)


def _hint(key: str, known: Iterable[str], show: Callable[[str], str]) -> str:
    import difflib  # noqa: PLC0415 - memory that the service keeps, for a mistake that it may never see

    names = list(known)
    close = difflib.get_close_matches(key, names, n=1)
    return f"did you mean {show(close[0])}?" if close else f"known: {', '.join(map(show, names))}"
