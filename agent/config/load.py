"""config.toml -> Settings, with all mistakes reported at once; config.example.toml has every key.

A sample with a mistake, and its error::

    [incident]
    quiet_secnds = 300

    /etc/sockmem-agent/config.toml: [incident]: key `quiet_secnds` is unknown; did you mean `quiet_seconds`?
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import msgspec
import msgspec.toml

from agent.config.channels import read_channels, read_text
from agent.config.keys import SECTIONS, at, check_tables, header, read_section, why_unread
from agent.core.settings import ChannelSettings, Settings, StdoutSettings, StoreSettings

DEFAULT_PATH = Path("/etc/sockmem-agent/config.toml")
SYSTEM_STATE = "/var/lib/sockmem-agent"
SYSTEM_RUNTIME = Path("/run/sockmem-agent")
DEFAULT_CHANNEL = StdoutSettings(name="stdout")


class ConfigError(Exception):
    """All mistakes in a configuration: one line each, with the file, the key and the fix."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__("\n".join(errors))
        self.errors = errors


def load(path: Path | None, environ: Mapping[str, str]) -> Settings:
    """Read and check a configuration; the default is the system's file, or the built-in defaults if there is none.

    A ``url_file`` is read into ``url``; ``store.directory`` is "" when the file does not set it. Raises ConfigError
    with all errors.
    """
    document = _read_document(path)
    errors: list[str] = []
    say = at(str(path or DEFAULT_PATH), errors.append)
    check_tables(document, say)
    sections: dict[str, Any] = {
        name: read_section(struct, document.get(name, {}), at(header(name), say)) for name, struct in SECTIONS.items()
    }
    settings = Settings(**sections, notify=read_channels(document.get("notify", []), environ, say))
    if errors:
        raise ConfigError(errors)
    return settings


def load_store(path: Path | None) -> StoreSettings:
    """Read only ``[store]``: incidents must stay readable for users who may not read the channels' secrets."""
    errors: list[str] = []
    say = at(str(path or DEFAULT_PATH), errors.append)
    store = read_section(StoreSettings, _read_document(path).get("store", {}), at(header("store"), say))
    if errors:
        raise ConfigError(errors)
    return store


def state_directory(settings: Settings, environ: Mapping[str, str], euid: int) -> Path:
    """Return the state directory: systemd's, else the configured one, else root's or the user's default."""
    given = environ.get("STATE_DIRECTORY", "").split(":")[0] or settings.store.directory
    if given or euid == 0:
        return Path(given or SYSTEM_STATE)
    home = environ.get("XDG_STATE_HOME", "")
    # The XDG specification: a relative path is invalid and must be ignored.
    base = Path(home) if home.startswith("/") else Path(environ.get("HOME") or Path.home()) / ".local" / "state"
    return base / "sockmem-agent"


def runtime_directory(environ: Mapping[str, str], state: Path) -> Path:
    """Return the directory of status.json: systemd's, else /run/sockmem-agent if it is this user's, else ``state``."""
    given = environ.get("RUNTIME_DIRECTORY", "").split(":")[0]
    if given:
        return Path(given)
    try:
        is_own = SYSTEM_RUNTIME.stat().st_uid == os.geteuid()
    except OSError:
        is_own = False
    return SYSTEM_RUNTIME if is_own else state


def channels(settings: Settings) -> tuple[ChannelSettings, ...]:
    """Return the effective channels: those configured, else standard output."""
    return settings.notify or (DEFAULT_CHANNEL,)


def masked(settings: Settings) -> dict[str, Any]:
    """Turn the settings into plain data that is safe to show: of a URL only scheme and host, of a header its name."""
    data: dict[str, Any] = msgspec.to_builtins(settings)
    for channel in data["notify"]:
        if "url" in channel:
            channel["url"] = mask_url(channel["url"])
        if "urls" in channel:
            channel["urls"] = [mask_url(url) for url in channel["urls"]]
        if "headers" in channel:
            channel["headers"] = dict.fromkeys(channel["headers"], "…")
    return data


def mask_url(url: str) -> str:
    """Return scheme, host and port of a URL; "" stays ""."""
    if not url:
        return ""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/…"


def _read_document(path: Path | None) -> dict[str, Any]:
    """Read TOML; a file that was requested must exist."""
    where = path or DEFAULT_PATH
    try:
        return cast("dict[str, Any]", msgspec.toml.decode(read_text(where)))
    except FileNotFoundError:
        if path is None:
            return {}
        reason = "no such file"
    except OSError as error:
        reason = why_unread(where, error)
    except UnicodeDecodeError as error:
        reason = f"is not UTF-8 text (byte {error.start + 1})"
    except msgspec.DecodeError as error:
        reason = f"is not valid TOML: {error}; strings need quotes, lists need brackets, a key may appear only once"
    except RecursionError:
        reason = "is nested too deeply"
    except ValueError:  # Of int(), which takes no more than 4300 digits.
        reason = "has a number that is too long"
    raise ConfigError([f"{where}: {reason}"])
