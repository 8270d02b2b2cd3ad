"""Structured records in the host's journal: systemd.journal-fields(7), and systemd's docs/JOURNAL_NATIVE_PROTOCOL.md.

    MESSAGE_ID=0d9095ec438347f8996ffb69e3aa2471        journalctl -x explains it: systemd/sockmem-agent.catalog
    MESSAGE=web1 is resetting TCP connections: orphan limit reached (131,080 of 131,072)
    SOCKMEM_INCIDENT=20261122T150539Z-7f3a             journalctl SOCKMEM_INCIDENT=... shows the whole incident

The agent follows the records of the kernel alone, so that none of these is an event to it. The socket is our own, as
that of sd_notify: libsystemd's would wait while journald does not read.
"""

import fcntl
import os
import socket
from collections.abc import Mapping
from io import FileIO

from agent.core.delivery import Delivered, Delivery, Retry
from agent.core.format import printable
from agent.core.model import Notice, NoticeType
from agent.core.settings import JournalSettings
from agent.core.sockets.holder_names import main_holder
from agent.notifiers.body import encode, in_short

SOCKET = "/run/systemd/journal/socket"
ONGOING, OVER = "0d9095ec438347f8996ffb69e3aa2471", "3867666f6ea64e779ad96b5c57cb3d84"
MESSAGE_IDS: Mapping[NoticeType, str] = {
    "sockmem.incident.opened": ONGOING,
    "sockmem.incident.updated": ONGOING,
    "sockmem.incident.resolved": OVER,
    "sockmem.digest": "e45c68ecc28a4f56af28ab99f9556880",
    "sockmem.test": "9b61e42a15ce496ebfc87beed5bebc78",
}
SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
# syslog(3): critical, warning, notice, informational.
PRIORITIES = {"critical": "2", "warning": "4", "resolved": "5", "info": "6"}


class JournalNotifier:
    """Writes one record a notice."""

    def __init__(self, settings: JournalSettings) -> None:
        self.name = settings.name
        self._settings = settings

    def notify(self, notice: Notice) -> Delivery:
        """Hand the record to journald, without waiting; where it has no room it is tried again."""
        record = b"".join(_field(name, value) for name, value in fields(notice, self._settings).items() if value)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journald:
                journald.setblocking(False)  # noqa: FBT003 - has no name
                journald.connect(SOCKET)
                try:
                    journald.send(record)
                except OSError:  # Too large for a datagram, which EMSGSIZE says, or ENOBUFS.
                    _send_file(journald, record)
        except BlockingIOError:
            return Retry(why="journald does not read its socket, which is full")
        except OSError as error:
            return Retry(why=f"journald: {os.strerror(error.errno or 0).lower()}")
        return Delivered(detail="taken by journald")


def fields(notice: Notice, settings: JournalSettings) -> dict[str, str]:
    """Return the fields of a record; those that are empty are left out."""
    incident = notice.data
    holder = main_holder(incident.diagnosis, incident.witness) if incident else None
    short = in_short(notice)
    is_over = notice.type == "sockmem.incident.resolved"
    return {
        "MESSAGE_ID": MESSAGE_IDS[notice.type],
        "MESSAGE": short.pop("SOCKMEM_TITLE"),
        "PRIORITY": PRIORITIES["resolved" if is_over else short["SOCKMEM_SEVERITY"]],
        "SYSLOG_IDENTIFIER": "sockmem-agent",
        **short,
        "SOCKMEM_CONFIDENCE": incident.confidence if incident else "",
        "SOCKMEM_HOLDER": printable(holder.name) if holder else "",
        "SOCKMEM_RUNBOOK_URL": settings.runbook_url,
        **{f"SOCKMEM_LABEL_{name.upper()}": value for name, value in settings.labels.items()},
        "SOCKMEM_JSON": encode(notice, settings.labels, settings.runbook_url).decode(),
    }


def _field(name: str, value: str) -> bytes:
    """Encode a field with its length: whatever the value holds, it cannot begin another field."""
    data = value.encode("utf-8", "replace")
    return name.encode() + b"\n" + len(data).to_bytes(8, "little") + data + b"\n"


def _send_file(journald: socket.socket, record: bytes) -> None:
    """Hand over what is too large for a datagram as a sealed file in memory."""
    with FileIO(os.memfd_create("record", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING), "w") as file:
        file.write(record)
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, SEALS)
        socket.send_fds(journald, [b""], [file.fileno()])
