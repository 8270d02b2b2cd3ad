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
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast, get_args
from urllib.parse import urlsplit

from msgspec.inspect import Field, LiteralType
from msgspec.structs import replace

from agent.config.keys import Say, at, keys_of, read_keys, shown, why_unread
from agent.core.settings import (
    NAME,
    SECRET_PATH_RULE,
    URL_RULE,
    BaseChannel,
    ChannelSettings,
    EmailSettings,
    HttpChannel,
    host_and_port,
    is_near,
    is_url,
    signing_key,
)

TYPES: dict[str, type[BaseChannel]] = {struct.__struct_config__.tag: struct for struct in get_args(ChannelSettings)}
TYPE = Field("type", "type", LiteralType(tuple(TYPES)))
CREDENTIALS = re.compile(r"\$\{CREDENTIALS_DIRECTORY\}|\$CREDENTIALS_DIRECTORY\b")
LARGEST_FILE = 1024 * 1024
# What only message channels have, and why a state channel cannot have it.
FOR_MESSAGES = {
    "updates": "it always shows what is true now",
    "resolved": "an alert that is not resolved would stay up",
    "reminders": "it repeats alerts by its own rules",
    "give_up_after": "it is kept up to date for as long as the incident matters",
}
ONE_OF = (("url", "url_file"), ("urls", "urls_file"))


class Content(NamedTuple):
    """What the file of a key must hold; ``whole``: as a whole, not line by line. None: as many lines as there are."""

    rule: str
    test: Callable[[str], object]
    lines: int | None = 1
    whole: bool = False


def _holds(pattern: str) -> Callable[[str], object]:
    return re.compile(pattern).search


FILES = {
    "url_file": Content(URL_RULE, is_url),
    "urls_file": Content(f"{URL_RULE} on every line", is_url, lines=None),
    "secret_file": Content("must hold whsec_ and base64", signing_key),
    "routing_key_file": Content("must hold an integration key: letters and digits", _holds(r"^[0-9A-Za-z]+$")),
    "token_file": Content("must hold a token: printable ASCII without blanks", _holds(r"^[!-~]+$")),
    "password_file": Content("must hold no control characters", str.isprintable),
    "ca_file": Content("must hold certificates in PEM", _holds("-----BEGIN CERTIFICATE-----"), None, whole=True),
    "cert_file": Content("must hold a certificate in PEM", _holds("-----BEGIN CERTIFICATE-----"), None, whole=True),
    "key_file": Content(
        "must hold a private key in PEM", _holds("-----BEGIN [A-Z ]*PRIVATE KEY-----"), None, whole=True
    ),
}


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
    told = {key: f"is for message channels; type {kind} shows the state: {why}" for key, why in FOR_MESSAGES.items()}
    values = read_keys(
        keys,
        {key: value for key, value in table.items() if key != "type"},
        say,
        unknown=f"is not for type {kind}",
        unfit=told if keys.keys().isdisjoint(told) else {},
    )
    for one, other in ONE_OF:
        if {one, other} <= keys.keys() and bool(table.get(one)) == bool(table.get(other)):
            say(f"type {kind} needs exactly one of `{one}` and `{other}`")
    values |= _read_files(values, environ, say)
    missing = {field.name: "" for key, field in keys.items() if field.required and key not in values}
    content: dict[str, Any] = missing | {keys[key].name: value for key, value in values.items()}
    channel = cast("ChannelSettings", struct(**content))
    _check_together(channel, say)
    return None if missing else channel


def _check_together(channel: ChannelSettings, say: Say) -> None:
    """Report keys that need each other, or exclude each other."""
    if isinstance(channel, HttpChannel | EmailSettings) and bool(channel.user) != bool(channel.password_file):
        say("keys `user` and `password_file` need each other")
    if isinstance(channel, HttpChannel):
        if channel.key_file and not channel.cert_file:
            say("key `key_file` needs `cert_file`")
        ways = {
            "`user`": bool(channel.user),
            "`token_file`": bool(channel.token_file),
            "the URL": any("@" in urlsplit(url).netloc for url in channel.addresses),
            "`headers`": "authorization" in map(str.lower, channel.headers),
        }
        if sum(ways.values()) > 1:
            say(f"has more than one login: {', '.join(way for way, is_used in ways.items() if is_used)}; keep one")
    if isinstance(channel, EmailSettings) and channel.user and channel.tls == "none":
        host, _ = host_and_port(channel.smtp)
        if not is_near(host):
            say('key `password_file` needs `tls`: with "none" anybody on the way could read the password')


def _keys_of_any_type() -> dict[str, Field]:
    """Return the keys of all types, to check a table of unknown type; only the common ones are required."""
    common = keys_of(BaseChannel)
    every = {name: replace(key, required=False) for struct in TYPES.values() for name, key in keys_of(struct).items()}
    return every | common


def _read_files(values: Mapping[str, Any], environ: Mapping[str, str], say: Say) -> dict[str, Any]:
    """Read the files that keys name; the result replaces the values in the table, the paths resolved."""
    found: dict[str, Any] = {}
    for key, content in FILES.items():
        path = _resolved(key, values.get(key) or "", environ, say)
        found |= {key: path} if path else {}
        lines = _read_lines(key, path, content, say) if path else []
        if lines and not all(map(content.test, ["\n".join(lines)] if content.whole else lines)):
            say(f"key `{key}`: its file {content.rule} (not shown: it may be a secret)")
        elif lines and key == "url_file":
            found["url"] = lines[0]
        elif lines and key == "urls_file":
            found["urls"] = tuple(lines)
    return found


def _resolved(key: str, value: str, environ: Mapping[str, str], say: Say) -> str:
    """Return the path of a file, with $CREDENTIALS_DIRECTORY expanded; "" after an error."""
    directory = environ.get("CREDENTIALS_DIRECTORY", "")
    if CREDENTIALS.search(value) and not directory:
        say(
            f"key `{key}` uses $CREDENTIALS_DIRECTORY, which is not set here: systemd sets it for the service "
            "(LoadCredential=); in a shell, put CREDENTIALS_DIRECTORY=DIR before the command"
        )
        return ""
    path = CREDENTIALS.sub(lambda _: directory, value)
    if path and not path.startswith("/"):
        say(f"key `{key}` {SECRET_PATH_RULE}")
        return ""
    return path


def _read_lines(key: str, path: str, content: Content, say: Say) -> list[str]:
    """Return the lines that are not blank, as many as there must be; [] after an error."""
    try:
        lines = [line.strip() for line in read_text(Path(path)).split("\n") if line.strip()]
    except OSError as error:
        say(f"key `{key}`: {shown(path)} {why_unread(Path(path), error)}")
        return []
    except UnicodeDecodeError:
        say(f"key `{key}`: {shown(path)} is not text")
        return []
    if len(lines) != (content.lines or len(lines) or 1):
        say(f"key `{key}`: {shown(path)} must hold one line, not {len(lines)}")
        return []
    return lines
