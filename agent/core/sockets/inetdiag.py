"""The wire of sock_diag(7): requests out, TCP sockets in, counted while they stream by.

Mirrors include/uapi/linux/inet_diag.h and net/ipv4/inet_diag.c (inet_sk_diag_fill): one netlink message a socket, host
byte order but for ports and addresses. What is read of one, with its offset::

    0 nlmsghdr      len(4) type(2) flags(2) ...
    16 inet_diag_msg family(1) state(1) timer(1) retrans(1) sport(2) dport(2) src(16) dst(16) if(4) cookie(8)
                    expires(4) rqueue(4) wqueue(4) uid(4) inode(4)
    88 attributes   len(2) type(2) payload: SKMEMINFO 7 = u32[7..9], CGROUP_ID 21 = u64 (5.8 and newer)

Time is spent per socket here and nowhere else, so the usual message is taken by one ``unpack_from``: kernels write all
full sockets alike. The first one of its length is walked attribute by attribute, and what was found is a Layout for
the next ones; each proves itself by its headers, or is walked as well.
"""

import struct
import sys
from collections.abc import Iterator
from typing import NamedTuple

from agent.core.sockets.census import LISTEN, OFTEN, SLASH_24, Census

AF_INET, AF_INET6, IPPROTO_TCP = 2, 10, 6
SOCK_DIAG_BY_FAMILY = 20
NLMSG_ERROR, NLMSG_DONE, NLMSG_OVERRUN = 2, 3, 4
NLM_F_REQUEST, NLM_F_DUMP, NLM_F_DUMP_INTR = 0x1, 0x300, 0x10
WANT_SKMEMINFO = 0x40
# Bits of the states in a request. TIME_WAIT and pending requests hold no socket memory and may be very many.
STATES_LISTEN = 1 << LISTEN
STATES_CONNECTED = 0xFFF & ~(1 << LISTEN | 1 << 6)
# Kernels dump into at most 32 KiB at a time.
BUFFER_BYTES = 64 * 1024

_HEADER, _MESSAGE = 16, 88
_SKMEMINFO, _CGROUP_ID = 7, 21
_TYPE_MASK = 0x3FFF
_SKMEMINFO_LEAST, _SKMEMINFO_WITH_DROPS = 4 + 6 * 4, 4 + 9 * 4
_CGROUP_BYTES = 4 + 8
_FAMILY_AT, _STATE_AT = 16, 17
_LENGTH_TYPE_FLAGS = struct.Struct("=IHH")
_ATTRIBUTE = struct.Struct("=HH")
_ERRNO = struct.Struct("=i")
_HEAD = struct.Struct("=Q")
_WORD = struct.Struct("=I")
_REQUEST = struct.Struct("=IHHIIBBBBI48s")

# Of an IPv4 address all 4 bytes; of an IPv6 address the upper half, and the last 4 bytes for a v4-mapped one. A
# field of no bytes keeps both shapes equal.
_FIXED = {AF_INET: "=Q9xHBHH16x0sI12x16xII4xI", AF_INET6: "=Q9xHBHH16xQ4xI16xII4xI"}


class End(NamedTuple):
    """How a dump ended: by its own end (0), or by an error of the kernel's (errno)."""

    errno: int


class _Layout(NamedTuple):
    """How to take a whole message of a kind by one unpacking, and what its headers must be."""

    fields: struct.Struct
    size: int
    memory_header: int
    cgroup_header: int | bytes


def request(family: int, states: int, sequence: int) -> bytes:
    """Write the request for one dump: ``inet_diag_req_v2`` for TCP of a family, in the states of a bit mask."""
    return _REQUEST.pack(
        _REQUEST.size,
        SOCK_DIAG_BY_FAMILY,
        NLM_F_REQUEST | NLM_F_DUMP,
        sequence,
        0,
        family,
        IPPROTO_TCP,
        WANT_SKMEMINFO,
        0,
        states,
        bytes(48),
    )


class Reader:
    """Counts the sockets of a dump into a census, one buffer of messages after the other."""

    def __init__(self, census: Census) -> None:
        self.interrupted = False
        self.malformed = 0
        self._census = census
        self._layouts: dict[tuple[int, int], _Layout] = {}

    def feed(self, buffer: bytes | bytearray, end: int) -> End | None:
        """Count the messages in the first ``end`` bytes; return the end of the dump. Garbage is counted, not raised."""
        offset = 0
        while offset + _HEADER <= end:
            length, kind, flags = _LENGTH_TYPE_FLAGS.unpack_from(buffer, offset)
            if length < _HEADER or offset + length > end:
                break
            self.interrupted |= bool(flags & NLM_F_DUMP_INTR)
            if kind == SOCK_DIAG_BY_FAMILY and length >= _MESSAGE:
                offset = self._count(buffer, offset, length, end)
                continue
            if kind in (NLMSG_DONE, NLMSG_ERROR):
                has_code = length >= _HEADER + _ERRNO.size
                return End(abs(_ERRNO.unpack_from(buffer, offset + _HEADER)[0]) if has_code else 0)
            self.interrupted |= kind == NLMSG_OVERRUN
            offset += _aligned(length)
        self.malformed += offset < end
        return None

    def _count(self, buffer: bytes | bytearray, offset: int, length: int, end: int) -> int:
        """Count one message and all that follow in the same layout; return where the next one begins."""
        head = _HEAD.unpack_from(buffer, offset)[0]
        family = buffer[offset + _FAMILY_AT]
        layout = self._layouts.get((head, family))
        if layout is not None:
            done = self._count_alike(buffer, offset, end, head, layout)
            if done > offset:
                return done
        found = self._walk(buffer, offset, length)
        if found is not None and buffer[offset + _STATE_AT] != LISTEN:
            # The caches stay small whatever a dump holds: kernels know a handful of lengths.
            if len(self._layouts) > 64:  # noqa: PLR2004 - as the comment says
                self._layouts.clear()
            self._layouts[head, family] = found
        return offset + _aligned(length)

    def _count_alike(self, buffer: bytes | bytearray, offset: int, end: int, head: int, layout: _Layout) -> int:
        """Count messages in a row whose headers are those of the layout; stop at the first that differs.

        A few microseconds a socket are what this program costs a busy host: everything is a local here.
        """
        census = self._census
        rows, admit, near, far = census.rows, census.admit, census.near, census.far
        unpack, size = layout.fields.unpack_from, layout.size
        memory_header, cgroup_header = layout.memory_header, layout.cgroup_header
        slash_24, often = SLASH_24, OFTEN
        last = end - size
        while offset <= last:
            (start, state, retrans, sport, dport, upper, lower, unread, unsent,
             inode, group, cgroup, memory, rmem, forward, wmem, drops) = unpack(buffer, offset)  # fmt: skip
            if start != head or memory != memory_header or group != cgroup_header:
                break
            key = (state, near[sport] or far[dport], ~upper if upper else lower & slash_24, cgroup, not inode)
            row = rows.get(key)
            if row is None:
                row = admit(key, inode)
            row[0] += 1
            row[1] += (rmem + wmem + (forward if forward > 0 else 0) + 4095) & -4096  # noqa: FURB136 - a call costs 60 ns
            row[2] += rmem
            row[3] += wmem
            row[4] += unread
            row[5] += unsent
            if inode < row[6]:  # noqa: PLR1730 - as above
                row[6] = inode
            if retrans >= often:
                row[7] += 1
            if drops:  # b"" where the kernel does not count them
                row[8] += drops
            offset += size
        return offset

    def _walk(self, buffer: bytes | bytearray, offset: int, length: int) -> _Layout | None:
        """Count one message attribute by attribute; return the layout for others of its kind, when there is one."""
        state, family = buffer[offset + _STATE_AT], buffer[offset + _FAMILY_AT]
        if family not in _FIXED:
            self.malformed += 1
            return None
        found = {kind: (at, size) for at, size, kind in _attributes(buffer, offset + _MESSAGE, offset + length)}
        memory_at, memory_size = found.get(_SKMEMINFO, (0, 0))
        group_at, group_size = found.get(_CGROUP_ID, (0, 0))
        group = bytes(buffer[group_at : group_at + _CGROUP_BYTES]) if group_size >= _CGROUP_BYTES else b""
        if state == LISTEN:
            self._listen(buffer, offset, int.from_bytes(group[4:], sys.byteorder) if group else None)
            return None
        if memory_size < _SKMEMINFO_LEAST:
            self._census.minisocks[state] = self._census.minisocks.get(state, 0) + 1
            return None
        # The message as every kernel known writes it, whatever order and company its attributes came in.
        usual = bytes(buffer[offset : offset + _MESSAGE]) + group + bytes(buffer[memory_at : memory_at + memory_size])
        head = _HEAD.unpack_from(buffer, offset)[0]
        at = (_MESSAGE, _MESSAGE + len(group))
        self._count_alike(usual, 0, len(usual), head, _layout(usual, family, len(usual), at))
        if group and memory_at < group_at:
            return None
        return _layout(usual, family, _aligned(length), (group_at - offset if group else _MESSAGE, memory_at - offset))

    def _listen(self, buffer: bytes | bytearray, offset: int, cgroup: int | None) -> None:
        """Note a listening socket: its queues are the accept queue and its limit."""
        _, _, _, sport, _, _, _, waiting, backlog, inode = struct.unpack_from(
            _FIXED[buffer[offset + _FAMILY_AT]], buffer, offset
        )
        self._census.listen(sport, cgroup, waiting=waiting, backlog=backlog, inode=inode)


def _layout(usual: bytes, family: int, size: int, at: tuple[int, int]) -> _Layout:
    """Return how messages look that have the attributes of ``usual``, a cgroup or none and memory, at these offsets."""
    group_at, memory_at = at
    group_header: int | bytes = b""
    fields, header_at = f"0s0s{memory_at - _MESSAGE}x", _MESSAGE
    if usual[_MESSAGE + 2] == _CGROUP_ID:
        group_header = _WORD.unpack_from(usual, header_at)[0]
        fields = f"{group_at - _MESSAGE}xIQ{memory_at - group_at - _CGROUP_BYTES}x"
        header_at += _CGROUP_BYTES
    memory_header = _WORD.unpack_from(usual, header_at)[0]
    drops = "8xI" if _ATTRIBUTE.unpack_from(usual, header_at)[0] >= _SKMEMINFO_WITH_DROPS else "0s"
    return _Layout(struct.Struct(f"{_FIXED[family]}{fields}II12xiI{drops}"), size, memory_header, group_header)


def _attributes(buffer: bytes | bytearray, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """List offset, length and type of the attributes, until the end or the first that cannot be one."""
    while at + _ATTRIBUTE.size <= end:
        size, kind = _ATTRIBUTE.unpack_from(buffer, at)
        if size < _ATTRIBUTE.size or at + size > end:
            return
        yield at, size, kind & _TYPE_MASK
        at += _aligned(size)


def _aligned(length: int) -> int:
    return (length + 3) & ~3
