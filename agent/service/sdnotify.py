r"""Report the state of the service to systemd: sd_notify(3), in a datagram of our own.

    READY=1                                 STOPPING=1                              EXTEND_TIMEOUT_USEC=60000000
    WATCHDOG=1\nSTATUS=following the journal; no incident yet

libsystemd's sd_notify() blocks forever if systemd does not read and the queue is full (net.unix.max_dgram_qlen). Ours
does not block: READY is repeated every turn until taken, and of the others only the newest counts.
"""

import os
import socket

from agent.service.signals import asked

# systemd ignores a datagram that is larger than PIPE_BUF, the WATCHDOG=1 in it too (src/core/manager.c).
MOST_BYTES = 4096


def notify(state: str, *, patience_seconds: float = 0.0) -> bool:
    """Send newline-separated assignments; return whether systemd's socket took them, if there is one.

    Failure is no reason to stop watching: systemd's watchdog decides on silence.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagram:
            datagram.settimeout(patience_seconds)
            datagram.connect("\0" + address[1:] if address[0] == "@" else address)
            datagram.send(state.encode("utf-8", "backslashreplace")[:MOST_BYTES])
    except OSError:
        return False
    return True


def work_goes_on() -> None:
    """Ask for another minute to start, or feed the watchdog: for steps that may take minutes."""
    notify("WATCHDOG=1" if asked.started else "EXTEND_TIMEOUT_USEC=60000000")
