"""config.toml -> Settings, with every mistake told at once; config.example.toml has every key.

A sample of the text it reads, and of what it says of a mistake::

    [incident]
    quiet_secnds = 300

    /etc/sockmem-agent/config.toml: [incident]: key `quiet_secnds` is not known; did you mean `quiet_seconds`?
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import msgspec
import msgspec.toml

from agent.config_channels import read_channels, read_text
from agent.config_keys import Say, at, check_tables, is_absolute, read_keys, shown
from agent.core.settings import (
    ChannelSettings,
    IncidentSettings,
    MetricsSettings,
    Settings,
    SourceSettings,
    StoreSettings,
)

DEFAULT_PATH = Path("/etc/sockmem-agent/config.toml")
SYSTEM_STATE = "/var/lib/sockmem-agent"
DEFAULT_CHANNEL = ChannelSettings(name="stdout", type="stdout")


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
    settings = Settings(
        source=_read_source(document, say),
        store=_read_store(document, say),
        incident=IncidentSettings(**read_keys(IncidentSettings, document.get("incident"), at("[incident]", say))),
        metrics=_read_metrics(document, say),
        notify=read_channels(document.get("notify", []), environ, say),
    )
    if errors:
        raise ConfigError(errors)
    return settings


def load_store(path: Path | None) -> StoreSettings:
    """Read ``[store]`` alone: what is on disk must stay readable to those who may not read the channels' secrets."""
    errors: list[str] = []
    store = _read_store(_read_document(path), at(str(path or DEFAULT_PATH), errors.append))
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
        channel["url"] = mask_url(channel["url"])
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


def _read_source(document: Mapping[str, Any], say: Say) -> SourceSettings:
    here = at("[source]", say)
    values = read_keys(SourceSettings, document.get("source"), here)
    _check_absolute("directory", [values.get("directory") or "/"], here)
    _check_absolute("paths", values.get("paths", ()), here)
    if values.get("paths") == ():
        here("key `paths` must name at least one log file")
    return SourceSettings(**values)


def _read_store(document: Mapping[str, Any], say: Say) -> StoreSettings:
    here = at("[store]", say)
    # Set to "" so that a directory which the file names can be told from the rule of state_directory().
    values = {"directory": "", **read_keys(StoreSettings, document.get("store"), here)}
    _check_absolute("directory", [values["directory"] or "/"], here)
    return StoreSettings(**values)


def _read_metrics(document: Mapping[str, Any], say: Say) -> MetricsSettings:
    here = at("[metrics]", say)
    values = read_keys(MetricsSettings, document.get("metrics"), here)
    _check_absolute("textfile", [values.get("textfile") or "/"], here)
    return MetricsSettings(**values)


def _check_absolute(key: str, paths: Iterable[str], say: Say) -> None:
    for path in paths:
        if not is_absolute(path):
            say(f"key `{key}` needs an absolute path, one that begins with /, not {shown(path)}")
