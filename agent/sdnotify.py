r"""Tell systemd how the service is: sd_notify(3).

    READY=1                                 STOPPING=1
    WATCHDOG=1\nSTATUS=following the journal; no incident yet

Without $NOTIFY_SOCKET, or without systemd-python, nobody asked and nothing is said.
"""

try:
    from systemd.daemon import notify as send
except ImportError:  # A host without libsystemd has no systemd to talk to either.
    send = None


def notify(state: str) -> bool:
    """Send newline-separated assignments; tell whether they were sent.

    A refusing socket is no reason to stop watching the kernel: systemd's own watchdog judges our silence.
    """
    if send is None:
        return False
    try:
        return bool(send(state))
    except OSError:
        return False
