"""status.json: what the service says of itself, for anyone on this host to read, foreign text made printable.

Mirrors pid_namespaces(7): a pid means something to those in the same namespace alone. Samples of what is read::

    /proc/sys/kernel/random/boot_id    0f7c2f3e-5a1d-4b7e-9a53-0d5f5a3f2c11
    /proc/self/ns/pid                  pid:[4026531836]
"""

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from agent import __version__
from agent.core.format import printable
from agent.core.model import Incident, Silence
from agent.core.status import HEARTBEAT_SECONDS, Channel, OpenIncident, Status
from agent.service.published import Published
from agent.store.disk import encode_json

if TYPE_CHECKING:
    from agent.service.courier import Courier

STATUS_FILE = "status.json"
PROC = Path("/proc")


def boot_id() -> str | None:
    """Read the id of this boot."""
    try:
        return (PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None


def pid_namespace() -> int | None:
    """Return the inode of this process's PID namespace."""
    try:
        return (PROC / "self/ns/pid").stat().st_ino
    except OSError:
        return None


class StatusFile:
    """Writes the file at every change, and every half minute."""

    def __init__(
        self,
        runtime: Path,
        state: Path,
        now: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._file = Published(runtime / STATUS_FILE, HEARTBEAT_SECONDS, monotonic)
        self._now, self._monotonic = now, monotonic
        self._blank = Status(
            version=__version__,
            is_running=True,
            written_at=_in_utc(now()),
            monotonic_seconds=0.0,
            boot_id=boot_id(),
            pid=os.getpid(),
            pid_namespace=pid_namespace(),
            started_at=_in_utc(now()),
            following="",
            directory=printable(str(state)),
            open=(),
            last=None,
            channels=(),
            silence=None,
            troubles=(),
        )

    def update(
        self,
        following: str,
        *,
        still_open: Iterable[Incident],
        last: Incident | None,
        channels: Iterable[Channel],
        silence: Silence | None,
        troubles: Sequence[str],
        is_running: bool = True,
    ) -> None:
        """Write what is so now; raises OSError."""
        status = replace(
            self._blank,
            is_running=is_running,
            following=printable(following),
            open=tuple(map(_open, still_open)),
            last=last.id if last else None,
            channels=tuple(channels),
            silence=silence,
            troubles=tuple(map(printable, troubles)),
        )
        self._file.update(status, lambda: encode_json(self._dated(status)))

    def _dated(self, status: Status) -> Status:
        return replace(status, written_at=_in_utc(self._now()), monotonic_seconds=self._monotonic())


def channel_of(courier: "Courier", types: Mapping[str, str], *, hangs: bool) -> Channel:
    """Say what waits for a channel; one that is no longer configured has no type."""
    notices, since, why = courier.waiting
    why = "hangs in an attempt" if hangs else printable(why) if why else None
    return Channel(name=courier.name, type=types.get(courier.name, ""), waiting=notices, since=since, why=why)


def _open(incident: Incident) -> OpenIncident:
    return OpenIncident(
        id=incident.id,
        class_=incident.class_,
        host=printable(incident.host) if incident.host else None,
        is_elsewhere=incident.read_on is not None,
        cause=incident.cause,
        confidence=incident.confidence,
        opened_at=incident.opened_at,
    )


def _in_utc(at: datetime) -> datetime:
    return at.astimezone(timezone.utc)
