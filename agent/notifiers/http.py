"""POST to a secret address, of which only ``host[:port]`` is shown: where to, and who we are there.

Files are read here, when the service starts; what sends is imported later (agent.notifiers.transport).
"""

import base64
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from agent import __version__
from agent.core.delivery import Rejected, Retry
from agent.core.settings import HttpChannel
from agent.notifiers import ChannelError, read_secret
from agent.notifiers.answer import Answer

if TYPE_CHECKING:
    from agent.notifiers.transport import Sender

DEADLINE_SECONDS = 20.0
HEADERS = {"User-Agent": f"sockmem-agent/{__version__}", "Content-Type": "application/json"}


class Poster:
    """Posts JSON to one address for one courier; not shared between threads."""

    def __init__(self, settings: HttpChannel, url: str, *, deadline_seconds: float = DEADLINE_SECONDS) -> None:
        self.place, self._url, login = _take_apart(settings.name, url)
        login = _login(settings) or login
        self._headers = HEADERS | settings.headers | ({"Authorization": login} if login else {})
        self._settings, self._deadline_seconds = settings, deadline_seconds
        # What reads certificates is needed at once: one that cannot be used is a mistake in the configuration.
        self._sender = self._make_sender() if settings.ca_file or settings.cert_file else None

    def post(self, body: bytes, headers: Mapping[str, str] | None = None) -> Answer | Retry | Rejected:
        """Make one attempt within the deadline; return the answer, or why there is none."""
        self._sender = self._sender or self._make_sender()
        return self._sender.post(body, headers or {})

    def _make_sender(self) -> "Sender":
        from agent.notifiers.transport import Sender  # noqa: PLC0415 - see agent.notifiers.import_late

        return Sender(self._settings, self._url, self._headers, self._deadline_seconds)


def _take_apart(channel: str, url: str) -> tuple[str, str, str | None]:
    """Split an address into the part that may be shown, the part to request, and what proves who we are."""
    try:
        parts = urlsplit(url.strip())
        host, port = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or parts.scheme not in {"http", "https"}:
        raise ChannelError(f"{channel}: the url is not well-formed: it must be http:// or https:// with a host")
    shown = f"[{host}]" if ":" in host else host
    place = f"{shown}:{port}" if port else shown
    bare = parts._replace(netloc=place).geturl()
    if parts.username is None and parts.password is None:
        return place, bare, None
    return place, bare, _basic(unquote(parts.username or ""), unquote(parts.password or ""))


def _login(settings: HttpChannel) -> str | None:
    """Return the value of the header Authorization."""
    if settings.token_file:
        return f"Bearer {read_secret(settings.name, 'token_file', settings.token_file)}"
    if settings.user:
        return _basic(settings.user, read_secret(settings.name, "password_file", settings.password_file))
    return None


def _basic(user: str, password: str) -> str:
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"
