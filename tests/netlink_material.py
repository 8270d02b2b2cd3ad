"""Messages of sock_diag made by hand, byte for byte as inet_sk_diag_fill() of the kernel named writes them."""

import ipaddress
import struct

ESTABLISHED, SYN_RECV, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK, LISTEN = 1, 3, 4, 5, 8, 9, 10
RETRANSMIT, KEEPALIVE, TIMEWAIT, PROBE = 1, 2, 3, 4
AF_INET, AF_INET6 = 2, 10
SKMEMINFO, SHUTDOWN, MARK, ULP_INFO, CGROUP_ID, SOCKOPT = 7, 8, 15, 17, 21, 22
MULTI, INTERRUPTED = 2, 0x10


def attribute(kind: int, payload: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(payload), kind) + payload + bytes(-len(payload) % 4)


def skmeminfo(rmem: int = 0, wmem: int = 0, forward: int = 0, words: int = 9) -> bytes:
    values = struct.pack("=IIIIiIIII", rmem, 131072, 0, 2626560, forward, wmem, 0, 0, 0)
    return attribute(SKMEMINFO, values[: 4 * words])


def cgroup(number: int) -> bytes:
    return attribute(CGROUP_ID, struct.pack("=Q", number))


def message(kind: int, payload: bytes, flags: int = MULTI) -> bytes:
    return struct.pack("=IHHII", 16 + len(payload), kind, flags, 1, 0) + payload + bytes(-len(payload) % 4)


def done(errno: int = 0) -> bytes:
    return message(3, struct.pack("=i", -errno))


def error(errno: int) -> bytes:
    return message(2, struct.pack("=i", -errno) + bytes(16))


def tcp(
    *attributes: bytes,
    state: int = ESTABLISHED,
    timer: int = 0,
    retransmits: int = 0,
    sport: int = 443,
    dport: int = 51022,
    peer: str = "192.0.2.7",
    unread: int = 0,
    unsent: int = 0,
    inode: int = 77,
    family: int | None = None,
    flags: int = MULTI,
) -> bytes:
    """Make the message of one socket; without attributes it is a minisock."""
    address = ipaddress.ip_address(peer).packed
    family = family or (AF_INET if len(address) == 4 else AF_INET6)
    if family == AF_INET6 and len(address) == 4:
        address = bytes(10) + b"\xff\xff" + address
    body = struct.pack("=BBBB", family, state, timer, retransmits) + struct.pack("!HH", sport, dport)
    body += bytes(16) + address.ljust(16, b"\0") + struct.pack("=III", 0, 1, 0)
    body += struct.pack("=IIIII", 0, unread, unsent, 33, inode)
    return message(20, body + b"".join(attributes), flags)


def usual(group: int | None = 4242, **memory: int) -> list[bytes]:
    """List the attributes of a full socket on 6.1: shutdown, cgroup, options, memory."""
    named = [] if group is None else [cgroup(group), attribute(SOCKOPT, bytes(3))]
    return [attribute(SHUTDOWN, b"\0"), *named, skmeminfo(**memory)]
