"""The ``[[notify]]`` tables of config.toml, and the files that hold their secrets (systemd.exec(5), CREDENTIALS).

A URL of a channel is a secret: what is said of one never quotes it. A sample of what is read::

    [[notify]]
    name = "ops"
    type = "webhook"
    url_file = "${CREDENTIALS_DIRECTORY}/ops-url"
    secret_file = "${CREDENTIALS_DIRECTORY}/ops-secret"
"""

import base64
import binascii
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from agent.config_keys import Say, at, is_absolute, read_keys, shown
from agent.core.settings import ChannelSettings

KEYS_BY_TYPE: dict[str, tuple[str, ...]] = {
    "slack": ("url", "url_file"),
    "webhook": ("url", "url_file", "secret_file"),
    "alertmanager": ("urls",),
    "stdout": (),
}
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
CREDENTIALS = re.compile(r"\$\{CREDENTIALS_DIRECTORY\}|\$CREDENTIALS_DIRECTORY\b")
LARGEST_FILE = 1024 * 1024


def read_channels(tables: object, environ: Mapping[str, str], say: Say) -> tuple[ChannelSettings, ...]:
    """Check every channel and read its ``url_file``; those that are wrong are left out, and said."""
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        say("[[notify]]: is written with two brackets on each side, once for every channel")
        return ()
    places: dict[str, int] = {}
    channels = []
    for number, table in enumerate(tables, start=1):
        name = table.get("name")
        named = isinstance(name, str) and NAME.fullmatch(name) is not None
        here = at(f"[[notify]] #{number} ({name})" if named else f"[[notify]] #{number}", say)
        first = places.setdefault(name, number) if named else number
        if first != number:
            here(f"key `name` must be unique; #{first} has this name already")
        channel = _read_channel(table, environ, here)
        channels += [channel] if channel else []
    return tuple(channels)


def is_url(text: str) -> bool:
    """Tell whether this is an http or https URL with a host and, if any, a possible port."""
    if not text.isprintable() or " " in text:
        return False
    try:
        parts = urlsplit(text)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def read_text(path: Path) -> str:
    """Read a small UTF-8 file; a byte order mark of an editor is no part of it."""
    with path.open("rb") as file:
        data = file.read(LARGEST_FILE + 1)
    if len(data) > LARGEST_FILE:
        raise OSError(0, f"larger than {LARGEST_FILE} bytes")
    return data.decode("utf-8-sig")


def _read_channel(table: dict[str, Any], environ: Mapping[str, str], say: Say) -> ChannelSettings | None:
    values = read_keys(ChannelSettings, table, say)
    for key in ("name", "type"):
        if key not in table:
            say(f"key `{key}` is missing")
    if "name" in values and not NAME.fullmatch(values["name"]):
        say("key `name` must be 1 to 32 of a-z, 0-9, - and _, beginning with a letter or digit")
    if "type" in values:
        _check_what_type_takes(table, values["type"], say)
    values |= _read_addresses(values, environ, say)
    return ChannelSettings(**values) if {"name", "type"} <= values.keys() else None


def _read_addresses(values: Mapping[str, Any], environ: Mapping[str, str], say: Say) -> dict[str, str]:
    """Check the URLs and read the files of secrets; what comes back replaces what stood in the table."""
    found = {}
    if values.get("url"):
        _check_url("key `url`", values["url"], say)
    for number, url in enumerate(values.get("urls", ()), start=1):
        _check_url(f"key `urls`, entry {number},", url, say)
    if values.get("url_file"):
        found["url_file"], found["url"] = _read_secret("url_file", values["url_file"], environ, say)
        if found["url"]:
            _check_url("key `url_file`: its file", found["url"], say)
    if values.get("secret_file"):
        found["secret_file"], secret = _read_secret("secret_file", values["secret_file"], environ, say)
        _check_signing_secret(secret, say)
    return found


def _check_what_type_takes(table: Mapping[str, Any], kind: str, say: Say) -> None:
    """Check that a channel has what its type needs and nothing that its type would ignore."""
    wanted = KEYS_BY_TYPE[kind]
    for key in ("url", "url_file", "urls", "secret_file"):
        if table.get(key) and key not in wanted:
            say(f"key `{key}` is not for type {kind}; it takes {', '.join(wanted) or 'none of these'}")
    if "url" in wanted and bool(table.get("url")) == bool(table.get("url_file")):
        say(f"type {kind} needs exactly one of `url` and `url_file`")
    if "urls" in wanted and not table.get("urls"):
        say(f'type {kind} needs `urls`, a list such as ["http://alertmanager.example:9093"]')


def _check_url(what: str, url: str, say: Say) -> None:
    if not is_url(url):
        say(f"{what} must hold http:// or https:// and a host (what it holds is a secret, so not quoted here)")


def _read_secret(key: str, value: str, environ: Mapping[str, str], say: Say) -> tuple[str, str]:
    """Resolve the path of a secret's file and read its one line; ("", "") or (path, "") after an error was said."""
    directory = environ.get("CREDENTIALS_DIRECTORY", "")
    if CREDENTIALS.search(value) and not directory:
        say(
            f"key `{key}` uses $CREDENTIALS_DIRECTORY, which is not set here: systemd sets it for the service "
            "(LoadCredential=); by hand, put CREDENTIALS_DIRECTORY=DIR before the command"
        )
        return "", ""
    path = CREDENTIALS.sub(lambda _: directory, value)
    if not is_absolute(path):
        # Not quoted: it may be the secret itself, put where the path of its file belongs.
        say(f"key `{key}` needs the absolute path of a file, one that begins with /")
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


def _check_signing_secret(secret: str, say: Say) -> None:
    """Check a secret of the Standard Webhooks specification: whsec_ and then base64."""
    if not secret:
        return
    try:
        good = secret.startswith("whsec_") and bool(base64.b64decode(secret.removeprefix("whsec_"), validate=True))
    except (binascii.Error, ValueError):
        good = False
    if not good:
        say("key `secret_file`: its file must hold whsec_ and then base64 (a secret, so not quoted here)")
