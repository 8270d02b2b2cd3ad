"""The typed configuration: what config.toml says once it is checked. Reading it is agent.config's work."""

from typing import Literal

import msgspec

SourceKind = Literal["auto", "journal", "file", "kmsg"]
ChannelType = Literal["slack", "webhook", "alertmanager", "stdout"]
Claimed = Literal["notify", "record"]


class SourceSettings(msgspec.Struct, frozen=True, kw_only=True):
    """``[source]``: what is followed, and from where when there is no cursor yet."""

    kind: SourceKind = "auto"
    paths: tuple[str, ...] = ("/var/log/messages",)
    directory: str = ""
    start: Literal["now", "beginning"] = "now"


class StoreSettings(msgspec.Struct, frozen=True, kw_only=True):
    """``[store]``: where incidents live and how many are kept; an open incident is never pruned.

    ``directory`` is "" unless the file sets it: then agent.config.state_directory decides.
    """

    directory: str = ""
    keep_days: int = 365
    keep_count: int = 1000
    keep_bytes: int = 512 * 1024 * 1024
    min_free_bytes: int = 64 * 1024 * 1024


class IncidentSettings(msgspec.Struct, frozen=True, kw_only=True):
    """``[incident]``: when one ends, and whether the gauges, or lines that any local user can forge, notify anybody."""

    quiet_seconds: int = 300
    pressure: bool = True
    claimed: Claimed = "notify"


class MetricsSettings(msgspec.Struct, frozen=True, kw_only=True):
    """``[metrics]``: where a text file for Prometheus is written; "" is nowhere."""

    textfile: str = ""


class ChannelSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One ``[[notify]]`` table. ``url`` is resolved: read from ``url_file`` where that was given. A secret.

    ``give_up_after`` is in seconds.
    """

    name: str
    type: ChannelType
    url: str = ""
    url_file: str = ""
    urls: tuple[str, ...] = ()
    secret_file: str = ""
    give_up_after: int = 86_400

    def __repr__(self) -> str:
        """Show what is no secret: a traceback or a log line may show this."""
        return f"ChannelSettings(name={self.name!r}, type={self.type!r})"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The whole configuration."""

    source: SourceSettings = SourceSettings()
    store: StoreSettings = StoreSettings()
    incident: IncidentSettings = IncidentSettings()
    metrics: MetricsSettings = MetricsSettings()
    notify: tuple[ChannelSettings, ...] = ()
