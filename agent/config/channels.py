"""The ``[[notify]]`` tables of config.toml, and the files that hold their secrets (systemd.exec(5), CREDENTIALS).

A channel's URL is a secret: no error quotes it. A sample::

    [[notify]]
    name = "ops"
    type = "webhook"
    url_file = "${CREDENTIALS_DIRECTORY}/ops-url"
    secret_file = "${CREDENTIALS_DIRECTORY}/ops-secret"
"""

import errno
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast, get_args

from msgspec.inspect import Field, LiteralType
from msgspec.structs import replace

from agent.config.keys import Say, at, keys_of, read_keys, shown
from agent.core.settings import (
    NAME,
    SECRET_PATH_RULE,
    URL_RULE,
    BaseChannel,
    ChannelSettings,
    UrlChannel,
    is_url,
    signing_key,
)

TYPES: dict[str, type[BaseChannel]] = {struct.__struct_config__.tag: struct for struct in get_args(ChannelSettings)}
TYPE = Field("type", "type", LiteralType(tuple(TYPES)))
CREDENTIALS = re.compile(r"\$\{CREDENTIALS_DIRECTORY\}|\$CREDENTIALS_DIRECTORY\b")
LARGEST_FILE = 1024 * 1024


def read_channels(tables: object, environ: Mapping[str, str], say: Say) -> tuple[ChannelSettings, ...]:
    """Check every channel and read its ``url_file``; report and skip invalid ones."""
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        say("[[notify]]: needs two brackets on each side, once per channel")
        return ()
    places: dict[str, int] = {}
    channels = []
    for number, table in enumerate(tables, start=1):
        name = table.get("name")
        named = isinstance(name, str) and re.fullmatch(NAME, name) is not None
        here = at(f"[[notify]] #{number} ({name})" if named else f"[[notify]] #{number}", say)
        first = places.setdefault(name, number) if named else number
        if first != number:
            here(f"key `name` must be unique; #{first} already has this name")
        channel = _read_channel(table, environ, here)
        channels += [channel] if channel else []
    return tuple(channels)


def read_text(path: Path) -> str:
    """Read a small UTF-8 file without its byte order mark."""
    if path.is_fifo() and path.parts[1:2] not in {("dev",), ("proc",)}:  # <(command) in a shell has a writer.
        raise OSError(errno.EINVAL, "it is a FIFO, which may never get a writer")
    with path.open("rb") as file:
        data = file.read(LARGEST_FILE + 1)
    if len(data) > LARGEST_FILE:
        raise OSError(0, f"larger than {LARGEST_FILE} bytes")
    return data.decode("utf-8-sig")


def _read_channel(table: dict[str, Any], environ: Mapping[str, str], say: Say) -> ChannelSettings | None:
    kind = table.get("type")
    struct = TYPES.get(kind) if isinstance(kind, str) else None
    if struct is None:
        values = read_keys({"type": TYPE, **_keys_of_any_type()}, table, say)
        _read_files(values, environ, say)
        return None
    keys = keys_of(struct)
    values = read_keys(keys, {k: v for k, v in table.items() if k != "type"}, say, unknown=f"is not for type {kind}")
    if issubclass(struct, UrlChannel) and bool(table.get("url")) == bool(table.get("url_file")):
        say(f"type {kind} needs exactly one of `url` and `url_file`")
    values |= _read_files(values, environ, say)
    complete = all(key in values for key, field in keys.items() if field.required)
    return cast("ChannelSettings", struct(**values)) if complete else None


def _keys_of_any_type() -> dict[str, Field]:
    """Return the keys of all types, to check a table of unknown type; only the common ones are required."""
    common = keys_of(BaseChannel)
    every = {name: replace(key, required=False) for struct in TYPES.values() for name, key in keys_of(struct).items()}
    return every | common


def _read_files(values: Mapping[str, Any], environ: Mapping[str, str], say: Say) -> dict[str, str]:
    """Read the secret files; the result replaces the values in the table."""
    found = {}
    if values.get("url_file"):
        found["url_file"], found["url"] = _read_secret("url_file", values["url_file"], environ, say)
        if found["url"] and not is_url(found["url"]):
            say(f"key `url_file`: its file {URL_RULE} (not shown: it may be a secret)")
    if values.get("secret_file"):
        found["secret_file"], secret = _read_secret("secret_file", values["secret_file"], environ, say)
        if secret and not signing_key(secret):
            say("key `secret_file`: its file must hold whsec_ and base64 (not shown: it is a secret)")
    return found


def _read_secret(key: str, value: str, environ: Mapping[str, str], say: Say) -> tuple[str, str]:
    """Resolve the path of a secret's file and read its one line; return ("", "") or (path, "") after an error."""
    directory = environ.get("CREDENTIALS_DIRECTORY", "")
    if CREDENTIALS.search(value) and not directory:
        say(
            f"key `{key}` uses $CREDENTIALS_DIRECTORY, which is not set here: systemd sets it for the service "
            "(LoadCredential=); in a shell, put CREDENTIALS_DIRECTORY=DIR before the command"
        )
        return "", ""
    path = CREDENTIALS.sub(lambda _: directory, value)
    if not path.startswith("/"):
        say(f"key `{key}` {SECRET_PATH_RULE}")
        return "", ""
    return path, _read_line(key, path, say)


def _read_line(key: str, path: str, say: Say) -> str:
    try:
        lines = [line.strip() for line in read_text(Path(path)).split("\n") if line.strip()]
    except OSError as error:
        say(f"key `{key}`: {shown(path)} cannot be read: {error.strerror}")
        return ""
    except UnicodeDecodeError:
        say(f"key `{key}`: {shown(path)} is not text")
        return ""
    if len(lines) != 1:
        say(f"key `{key}`: {shown(path)} must hold one line, not {len(lines)}")
        return ""
    return lines[0]
