"""The smallest words: what one kernel file said, and what could not be had.

A module of its own because both the snapshot and the table of sockets in it are made of them.
"""

import msgspec


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """Evidence that could not be had, and the reason."""

    what: str
    why: str


class TcpSockstat(msgspec.Struct, frozen=True, kw_only=True):
    """The ``TCP:`` line of /proc/net/sockstat. ``orphan alloc mem`` count the host, ``inuse tw`` the namespace.

    ``mem`` is in pages of the host (in 4096-byte units on kernels 4.10 to 5.19, whatever the page size).
    """

    inuse: int | None = None
    orphan: int | None = None
    tw: int | None = None
    alloc: int | None = None
    mem: int | None = None


class Sockstat(msgspec.Struct, frozen=True, kw_only=True):
    """/proc/net/sockstat and, where IPv6 is there, the TCP6 line of sockstat6."""

    sockets_used: int | None = None
    tcp: TcpSockstat = TcpSockstat()
    tcp6_inuse: int | None = None


class TcpProtocol(msgspec.Struct, frozen=True, kw_only=True):
    """The ``TCP`` row of /proc/net/protocols; ``press`` is the kernel's own memory pressure flag."""

    sockets: int | None = None
    memory: int | None = None
    press: bool | None = None


class PressureStall(msgspec.Struct, frozen=True, kw_only=True):
    """One line of /proc/pressure/*: share of time stalled, in percent over 10, 60 and 300 seconds."""

    avg10: float | None = None
    avg60: float | None = None
    avg300: float | None = None
    total_usec: int | None = None
