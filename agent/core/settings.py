"""The typed configuration: one struct a table of config.toml, and one a type of channel.

The types say what is allowed. agent.config.keys checks a file against them, and docs/schemas/config.json is made from
them (packaging/schemas.py), so a pattern is written for Python's and ECMAScript's regular expressions alike. ``extra``
holds what JSON Schema has no word for: the ``unit`` of a number; of a text the ``rule`` that it broke, as people are
told, whether it may be quoted then (``public``: it cannot be a secret), and a ``test`` for what no pattern can say.
"""

import base64
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

SourceKind = Literal["auto", "journal", "file", "kmsg"]
Claimed = Literal["notify", "record"]
Severity = Literal["warning", "critical"]

NAME = r"^[a-z0-9][a-z0-9_-]{0,31}$"
PATH_RULE = "needs an absolute path, one that begins with /"
SECRET_PATH_RULE = "needs the absolute path of a file, one that begins with /"  # noqa: S105 - a rule, not a secret
URL_RULE = "must hold http:// or https:// and a host"
# Those that a POST needs as they are.
OWN_HEADERS = re.compile(
    r"(accept-encoding|connection|content-.*|expect|host|te|trailer|transfer-encoding|upgrade|webhook-.*)",
    re.IGNORECASE,
)
PAGERDUTY_URL = "https://events.pagerduty.com/v2/enqueue"


def is_url(text: str) -> bool:
    """Return whether this is an http or https URL with a host and, if any, a possible port."""
    if not text.isprintable() or " " in text:
        return False
    try:
        parts = urlsplit(text)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def signing_key(text: str) -> bytes:
    """Decode a secret of the Standard Webhooks specification, ``whsec_`` and base64; b"" when it is none."""
    try:
        return base64.b64decode(text.removeprefix("whsec_"), validate=True) if text.startswith("whsec_") else b""
    except ValueError:
        return b""


def host_and_port(text: str) -> tuple[str, int]:
    """Split ``localhost:25`` or ``[::1]:25``; ("", 0) where there is no host or no possible port."""
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        return "", 0
    return (host, port) if host and port else ("", 0)


def is_near(host: str) -> bool:
    """Return whether this is the host itself: no network is in between."""
    return host in {"localhost", "::1"} or host.startswith("127.")


def _number(low: int, high: int, unit: str) -> Meta:
    return Meta(ge=low, le=high, extra={"unit": unit})


def _text(pattern: str, rule: str, *, public: bool = False, test: Callable[[str], bool] | None = None) -> Meta:
    return Meta(pattern=pattern, extra={"rule": rule, "public": public, "test": test})


# TOML can write a NUL byte into a text; no path has one. "" stands for "not set".
AbsolutePath = Annotated[str, _text(r"^/[^\u0000]*$", PATH_RULE, public=True)]
AbsolutePathOrEmpty = Annotated[str, _text(r"^(/[^\u0000]*)?$", PATH_RULE, public=True)]
SecretPathOrEmpty = Annotated[
    str,
    _text(r"^((/|\$CREDENTIALS_DIRECTORY\b|\$\{CREDENTIALS_DIRECTORY\})[^\u0000]*)?$", SECRET_PATH_RULE),
]
SecretPath = Annotated[
    str,
    _text(r"^(/|\$CREDENTIALS_DIRECTORY\b|\$\{CREDENTIALS_DIRECTORY\})[^\u0000]*$", SECRET_PATH_RULE),
]
Url = Annotated[str, _text(r"^[Hh][Tt][Tt][Pp][Ss]?://[^ ]+$", URL_RULE, test=is_url)]
UrlOrEmpty = Annotated[
    str, _text(r"^([Hh][Tt][Tt][Pp][Ss]?://[^ ]+)?$", URL_RULE, test=lambda url: not url or is_url(url))
]
ChannelName = Annotated[str, _text(NAME, "must be 1 to 32 of a-z, 0-9, - and _, beginning with a letter or digit")]
Patience = Annotated[int, _number(60, 31_536_000, "seconds")]
# RFC 9110, section 5. A value may be a token.
Headers = dict[
    Annotated[
        str,
        _text(
            r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$",
            "must be the name of an HTTP header, other than those that the agent sets itself",
            public=True,
            test=lambda name: not OWN_HEADERS.fullmatch(name),
        ),
    ],
    Annotated[str, _text(r"^[!-~]([ -~]*[!-~])?$", "must be printable ASCII, without blanks around it")],
]
# The names are Prometheus' own, without those that the agent sets; with a prefix they fit into a journal's field.
Labels = dict[
    Annotated[
        str,
        _text(
            r"^(?!(alertname|severity|host|instance|cause|incident)$)[A-Za-z][0-9A-Za-z_]{0,47}$",
            "must be 1 to 48 of a-z, A-Z, 0-9 and _, beginning with a letter, and none of the agent's own labels "
            "(alertname, severity, host, instance, cause, incident)",
            public=True,
        ),
    ],
    Annotated[str, _text(r"^[^\u0000-\u001f\u007f]{1,200}$", "must be 1 to 200 characters on one line", public=True)],
]
# RFC 5321: an address, or the name of a local user. What else it allows, nobody has.
MailAddress = Annotated[
    str,
    _text(
        r"^[0-9A-Za-z!#$%&'*+/=?^_`{|}~.-]{1,64}(@[0-9A-Za-z]([0-9A-Za-z.-]{0,252}[0-9A-Za-z])?)?$",
        'must be a mail address such as "ops@example.org", or a local user',
        public=True,
    ),
]
MailServer = Annotated[
    str,
    _text(
        r"^([0-9A-Za-z._-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}$",
        'must be a host and a port, such as "localhost:25"',
        public=True,
        test=lambda server: host_and_port(server) != ("", 0),
    ),
]
Command = Annotated[
    tuple[Annotated[str, _text(r"^[^\u0000]*$", "must be a string without a NUL byte")], ...],
    Meta(
        min_length=1,
        extra={
            "rule": 'must be a list: the absolute path of a program, then its arguments, such as ["/usr/bin/x", "-v"]',
            "test": lambda words: words[0].startswith("/"),
        },
    ),
]
_MENTION = r"(<!(here|channel|everyone)>|<!subteam\^S[0-9A-Z]{1,30}>|<@[UW][0-9A-Z]{1,30}>)"
Mention = Annotated[
    str,
    _text(
        rf"^({_MENTION}( {_MENTION}){{0,9}})?$",
        'must be "<!here>", "<!channel>", "<!subteam^S123>" or "<@U123>", or several with a blank between them',
        public=True,
    ),
]


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the file: a key that is not in it is a mistake."""


class SourceSettings(Table, frozen=True, kw_only=True):
    """``[source]``: what is followed, and from where when there is no cursor yet."""

    kind: SourceKind = "auto"
    paths: Annotated[tuple[AbsolutePath, ...], Meta(min_length=1)] = ("/var/log/messages",)
    directory: AbsolutePathOrEmpty = ""
    start: Literal["now", "beginning"] = "now"


class StoreSettings(Table, frozen=True, kw_only=True):
    """``[store]``: where incidents live and how many are kept; an open incident is never pruned.

    ``directory`` is "" unless the file sets it: then agent.config.load.state_directory decides.
    """

    directory: AbsolutePathOrEmpty = ""
    keep_days: Annotated[int, _number(1, 36_500, "days")] = 365
    keep_count: Annotated[int, _number(1, 1_000_000, "incidents")] = 1000
    keep_bytes: Annotated[int, _number(1, 2**62, "bytes")] = 512 * 1024 * 1024
    min_free_bytes: Annotated[int, _number(0, 2**62, "bytes")] = 64 * 1024 * 1024


class IncidentSettings(Table, frozen=True, kw_only=True):
    """``[incident]``: when one ends, and whether the gauges, or lines that any local user can forge, notify anybody."""

    quiet_seconds: Annotated[int, _number(1, 86_400, "seconds")] = 300
    pressure: bool = True
    claimed: Claimed = "notify"

    @property
    def quiet(self) -> timedelta:
        """The quiet period as a span of time."""
        return timedelta(seconds=self.quiet_seconds)


class MetricsSettings(Table, frozen=True, kw_only=True):
    """``[metrics]``: where a text file for Prometheus is written; "" is nowhere."""

    textfile: AbsolutePathOrEmpty = ""


class BaseChannel(Table, frozen=True, kw_only=True, tag_field="type"):
    """What every ``[[notify]]`` table has."""

    name: ChannelName
    severity: Severity = "warning"
    runbook_url: UrlOrEmpty = ""

    @property
    def type(self) -> str:
        """Say what the file calls this type of channel."""
        return str(self.__struct_config__.tag)

    @property
    def addresses(self) -> tuple[str, ...]:
        """Return the URLs that are posted to; they are secrets."""
        return ()

    def __repr__(self) -> str:
        """Show what is no secret: a traceback or a log line may show this."""
        return f"{type(self).__name__}(name={self.name!r})"


class MessageChannel(BaseChannel, frozen=True, kw_only=True):
    """A message channel: people read what it says. What has none of these keys shows the state, whole and for ever."""

    updates: bool = True
    resolved: bool = True
    reminders: bool = True
    give_up_after: Patience = 86_400


class HttpChannel(BaseChannel, frozen=True, kw_only=True):
    """A channel that posts: whom it trusts, and who it says it is."""

    ca_file: SecretPathOrEmpty = ""
    cert_file: SecretPathOrEmpty = ""
    key_file: SecretPathOrEmpty = ""
    token_file: SecretPathOrEmpty = ""
    user: Annotated[str, _text(r"^[^\u0000-\u001f\u007f:]*$", "must not hold a colon or control characters")] = ""
    password_file: SecretPathOrEmpty = ""
    headers: Headers = {}


class UrlChannel(HttpChannel, frozen=True, kw_only=True):
    """A message channel with one address: the file has exactly one of the two keys.

    Once it is loaded ``url`` is set either way: what ``url_file`` names was read into it. The keys of MessageChannel
    again, since a struct has one base with keys.
    """

    url: UrlOrEmpty = ""
    url_file: SecretPathOrEmpty = ""
    updates: bool = True
    resolved: bool = True
    reminders: bool = True
    give_up_after: Patience = 86_400

    @property
    def addresses(self) -> tuple[str, ...]:
        """Return the one URL."""
        return (self.url,)


class SlackSettings(UrlChannel, frozen=True, kw_only=True, tag="slack"):
    """Slack, an incoming webhook."""

    mention: Mention = ""


class WebhookSettings(UrlChannel, frozen=True, kw_only=True, tag="webhook"):
    """Any HTTP receiver; with a secret the body is signed."""

    secret_file: SecretPathOrEmpty = ""
    labels: Labels = {}


class AlertmanagerSettings(HttpChannel, frozen=True, kw_only=True, tag="alertmanager"):
    """Every instance of a Prometheus Alertmanager cluster; ``urls`` is set as ``url`` of a UrlChannel is."""

    urls: tuple[Url, ...] = ()
    urls_file: SecretPathOrEmpty = ""
    labels: Labels = {}

    @property
    def addresses(self) -> tuple[str, ...]:
        """Return the URL of each instance."""
        return self.urls


class PagerDutySettings(HttpChannel, frozen=True, kw_only=True, tag="pagerduty"):
    """PagerDuty, the Events API v2."""

    routing_key_file: SecretPath
    url: Url = PAGERDUTY_URL
    labels: Labels = {}

    @property
    def addresses(self) -> tuple[str, ...]:
        """Return the one URL."""
        return (self.url,)


class CommandSettings(MessageChannel, frozen=True, kw_only=True, tag="command"):
    """A program of the administrator's own."""

    command: Command
    input: Literal["json", "text"] = "json"
    timeout_seconds: Annotated[int, _number(1, 60, "seconds")] = 20


class EmailSettings(MessageChannel, frozen=True, kw_only=True, tag="email"):
    """Mail, through an SMTP server."""

    to: Annotated[tuple[MailAddress, ...], Meta(min_length=1)]
    from_: MailAddress = msgspec.field(name="from")
    smtp: MailServer = "localhost:25"
    tls: Literal["none", "starttls", "tls"] = "none"
    ca_file: SecretPathOrEmpty = ""
    user: Annotated[str, _text(r"^[^\u0000-\u001f\u007f]*$", "must not hold control characters")] = ""
    password_file: SecretPathOrEmpty = ""


class JournalSettings(MessageChannel, frozen=True, kw_only=True, tag="journal"):
    """The host's own journal, one structured record a notice."""

    labels: Labels = {}


class StdoutSettings(MessageChannel, frozen=True, kw_only=True, tag="stdout"):
    """Standard output."""


ChannelSettings = (
    SlackSettings
    | WebhookSettings
    | AlertmanagerSettings
    | PagerDutySettings
    | CommandSettings
    | EmailSettings
    | JournalSettings
    | StdoutSettings
)


class Settings(Table, frozen=True, kw_only=True):
    """The whole configuration."""

    source: SourceSettings = SourceSettings()
    store: StoreSettings = StoreSettings()
    incident: IncidentSettings = IncidentSettings()
    metrics: MetricsSettings = MetricsSettings()
    notify: tuple[ChannelSettings, ...] = ()
