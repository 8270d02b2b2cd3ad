"""config.toml -> Settings, with every mistake told at once; config.example.toml has every key.

A sample of the text it reads, and of what it says of a mistake::

    [incident]
    quiet_secnds = 300

    /etc/sockmem-agent/config.toml: [incident]: key `quiet_secnds` is not known; did you mean `quiet_seconds`?
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import msgspec
import msgspec.toml

from agent.config.channels import read_channels, read_text
from agent.config.keys import SECTIONS, at, check_tables, header, read_section
from agent.core.settings import ChannelSettings, Settings, StdoutSettings, StoreSettings

DEFAULT_PATH = Path("/etc/sockmem-agent/config.toml")
SYSTEM_STATE = "/var/lib/sockmem-agent"
DEFAULT_CHANNEL = StdoutSettings(name="stdout")


class ConfigError(Exception):
    """Everything that is wrong with a configuration: one line each, naming the file, the key and the mend."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__("\n".join(errors))
        self.errors = errors


def load(path: Path | None, environ: Mapping[str, str]) -> Settings:
    """Read and check a configuration; without a path the system's file, or the built-in defaults if there is none.

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
    """Read ``[store]`` alone: what is on disk must stay readable to those who may not read the channels' secrets."""
    errors: list[str] = []
    say = at(str(path or DEFAULT_PATH), errors.append)
    store = read_section(StoreSettings, _read_document(path).get("store", {}), at(header("store"), say))
    if errors:
        raise ConfigError(errors)
    return store


def state_directory(settings: Settings, environ: Mapping[str, str], euid: int) -> Path:
    """Resolve where the state lives: systemd's choice, else the file's, else root's or the user's own."""
    given = environ.get("STATE_DIRECTORY", "").split(":")[0] or settings.store.directory
    if given or euid == 0:
        return Path(given or SYSTEM_STATE)
    home = environ.get("XDG_STATE_HOME", "")
    # The XDG specification: a relative path is invalid and has to be ignored.
    base = Path(home) if home.startswith("/") else Path(environ.get("HOME") or Path.home()) / ".local" / "state"
    return base / "sockmem-agent"


def channels(settings: Settings) -> tuple[ChannelSettings, ...]:
    """Name the channels in effect: those configured, else standard output."""
    return settings.notify or (DEFAULT_CHANNEL,)


def masked(settings: Settings) -> dict[str, Any]:
    """Turn the settings into plain data that may be shown: of a URL only scheme and host are left."""
    data: dict[str, Any] = msgspec.to_builtins(settings)
    for channel in data["notify"]:
        if "url" in channel:
            channel["url"] = mask_url(channel["url"])
        if "urls" in channel:
            channel["urls"] = [mask_url(url) for url in channel["urls"]]
    return data


def mask_url(url: str) -> str:
    """Leave scheme, host and port of a URL; "" stays ""."""
    if not url:
        return ""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/…"


def _read_document(path: Path | None) -> dict[str, Any]:
    """Read TOML; a file that was asked for must be there."""
    where = path or DEFAULT_PATH
    try:
        return cast("dict[str, Any]", msgspec.toml.decode(read_text(where)))
    except FileNotFoundError:
        if path is None:
            return {}
        reason = "no such file"
    except OSError as error:
        reason = f"cannot be read: {error.strerror}"
    except UnicodeDecodeError as error:
        reason = f"is not UTF-8 text (byte {error.start + 1})"
    except msgspec.DecodeError as error:
        reason = f"is not TOML: {error}; a text needs quotes, a list needs brackets, a key stands once"
    except RecursionError:
        reason = "is no configuration: lists within lists without end"
    raise ConfigError([f"{where}: {reason}"])
