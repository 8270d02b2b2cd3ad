"""Kernel text to structs: what the files below /proc (and a cgroup's memory.stat) say.

Mirrors sockstat_seq_show, netstat_seq_show and snmp_seq_show (net/ipv4/proc.c), proto_seq_printf (net/core/sock.c),
meminfo_proc_show (fs/proc/meminfo.c), psi_show (kernel/sched/psi.c), proc_dointvec (kernel/sysctl.c), getauxval(3).
Samples::

    sockets: used 48476
    TCP: inuse 174950 orphan 126800 tw 153787 alloc 174954 mem 102910

    TcpExt: SyncookiesSent SyncookiesRecv ... TCPAbortOnMemory
    TcpExt: 0 0 ... 117

    protocol  size sockets  memory press maxhdr  slab module     cl co di ac ...
    TCP       2304      1     255   no     192   yes  kernel      y  y  y  y ...

    MemTotal:       24570628 kB
    |-- 10.88.0.7
       /32 host LOCAL
    some avg10=0.87 avg60=0.23 avg300=0.10 total=5798710

Absent is None, never zero; unknown keys and lines are ignored; what is there and cannot be right is a ParseError.
"""

import re
import struct
from collections.abc import Collection, Iterator
from contextlib import suppress
from functools import lru_cache
from ipaddress import IPv6Address
from itertools import zip_longest

from agent.core.readings import PressureStall, Sockstat, TcpProtocol, TcpSockstat

QUOTE_LIMIT = 120
INTEGER_MIN, INTEGER_MAX = -(2**63), 2**64 - 1  # the kernel's long and unsigned long, and what JSON readers take
INT, UNSIGNED_LONG = (-(2**31), 2**31 - 1), (0, INTEGER_MAX)  # what proc_dointvec and proc_doulongvec_minmax print
ANY = (INTEGER_MIN, INTEGER_MAX)
UDP_ERRORS = "UdpMemErrors"  # as nstat(8) calls it
AT_NULL, AT_PAGESZ = 0, 6
AUXV_KEY_LIMIT = 1024
AUXV_LAYOUTS = ("<QQ", ">QQ", "<II", ">II")
PAGE_SIZES = tuple(2**power for power in range(12, 21))

_INTEGER = re.compile(r"[+-]?[0-9]{1,20}", re.ASCII)
_INTEGERS = re.compile(r"(?:[+-]?[0-9]{1,20} )*[+-]?[0-9]{1,20}", re.ASCII)
_DECIMAL = re.compile(r"[0-9]{1,10}(\.[0-9]{1,9})?", re.ASCII)
_BTIME = re.compile(r"^btime ([0-9]{1,12})$", re.MULTILINE | re.ASCII)
_OWN_ADDRESS = re.compile(r"\|-- ([0-9.]{7,15})\n +/32 host LOCAL\n", re.ASCII)
_IF_INET6 = re.compile(r"[0-9a-f]{32} ", re.ASCII)
_START_TIME = 19  # of the fields behind the name, the first of which is the state
_CACHE = ("active", "inactive")
_ZONE = re.compile(r"^ +(pages free|managed|present|nr_(?:zone_)?(?:in)?active_file) +([0-9]{1,16})$", re.MULTILINE)
_KIB = 1024
# UDP's numbers are read in passing: one that is broken takes nothing from TCP's.
_UDP_MEM = re.compile(r"^UDP: .*\bmem ([0-9]{1,18})$", re.MULTILINE | re.ASCII)
_INUSE = re.compile(r"^TCP6?: inuse ([0-9]{1,18})\b", re.MULTILINE | re.ASCII)
_SOCKSTAT_FIELDS = frozenset({"used", "inuse", "orphan", "tw", "alloc", "mem"})


class ParseError(ValueError):
    """A kernel file that does not read as one: names the file, says what is wrong and quotes the line."""

    def __init__(self, file: str, why: str, line: str = "") -> None:
        self.file = file
        quoted = line if len(line) <= QUOTE_LIMIT else line[:QUOTE_LIMIT] + "..."
        self.why = f"{why}: {quoted!r}" if line else why
        super().__init__(f"{file}: {self.why}")


def parse_sockstat(text: str, file: str = "net/sockstat") -> Sockstat:
    """Read /proc/net/sockstat: numbers of sockets, and ``mem`` in pages (any field may be missing, none is zero)."""
    rows = {label: (values, line) for label, values, line in _labelled(text)}
    if "TCP" not in rows:
        raise ParseError(file, "no 'TCP:' line in it", text.strip().partition("\n")[0])
    tcp = _pairs(*rows["TCP"], file)
    used = _pairs(*rows["sockets"], file).get("used") if "sockets" in rows else None
    udp = _UDP_MEM.search(text)
    return Sockstat(
        sockets_used=used,
        tcp=TcpSockstat(**{name: tcp.get(name) for name in TcpSockstat.__struct_fields__}),
        udp_mem=int(udp[1]) if udp else None,
    )


def parse_sockstat6(text: str, file: str = "net/sockstat6") -> int | None:
    """Read ``TCP6: inuse`` of /proc/net/sockstat6: sockets of this network namespace."""
    for label, values, line in _labelled(text):
        if label == "TCP6":
            return _pairs(values, line, file).get("inuse")
    return None


def parse_inuse(text: str) -> int | None:
    """Read only ``inuse`` of net/sockstat or net/sockstat6, of which an event reads those of every namespace."""
    found = _INUSE.search(text)
    return int(found[1]) if found else None


def parse_netstat(text: str, file: str = "net/netstat", *, only: Collection[str] = ()) -> dict[str, int]:
    """Read the TcpExt counters of /proc/net/netstat by name, or ``only`` some: every kernel has others."""
    return _counters(text, "TcpExt", file, only)


def parse_snmp(text: str, file: str = "net/snmp") -> dict[str, int]:
    """Read the Tcp counters of /proc/net/snmp by name, and ``UdpMemErrors`` (5.11 and newer)."""
    tcp = _counters(text, "Tcp", file)
    with suppress(ParseError):
        tcp |= parse_udp_errors(text, file)
    return tcp


def parse_udp_errors(text: str, file: str = "net/snmp") -> dict[str, int]:
    """Read ``UdpMemErrors`` of /proc/net/snmp alone."""
    found = _counters(text, "Udp", file, only=("MemErrors",))
    return {UDP_ERRORS: found["MemErrors"]} if found else {}


def parse_protocols(text: str, file: str = "net/protocols") -> TcpProtocol | None:
    """Read the TCP row of /proc/net/protocols; ``NI`` (not implemented) and a missing column are None."""
    # Of the other rows, forty on many hosts, nothing is wanted, and this is read every ten seconds.
    at = text.find("\nTCP ") + 1
    if not at:
        return None
    line = text[at:].partition("\n")[0]
    row = dict(zip(text.partition("\n")[0].split(), line.split(), strict=False))
    flag = row.get("press", "NI")
    if flag not in {"yes", "no", "NI"}:
        raise ParseError(file, f"press is {flag[:QUOTE_LIMIT]!r}, not yes, no or NI", line)
    return TcpProtocol(
        sockets=_integer(row["sockets"], line, file) if "sockets" in row else None,
        memory=_integer(row["memory"], line, file) if "memory" in row and flag != "NI" else None,
        press=None if flag == "NI" else flag == "yes",
    )


def parse_meminfo(text: str, file: str = "meminfo") -> dict[str, int]:
    """Read /proc/meminfo to bytes; lines that do not end in ``kB`` are no sizes and are left out.

    ``Hugetlb`` is the kernel's from 4.20 on; before that it is worked out of ``HugePages_Total: 512``.
    ``HugePages_Free`` is in bytes, too, without those that are promised (``HugePages_Rsvd``).
    """
    sizes: dict[str, int] = {}
    huge_pages: dict[str, int] = {}
    for label, values, line in _labelled(text):
        if label.startswith("HugePages_") and len(values) == 1:
            huge_pages[label] = _integer(values[0], line, file)
        if values[-1:] == ["kB"]:
            if len(values) != 2:  # noqa: PLR2004 - a number and its unit
                raise ParseError(file, "not one number of kB", line)
            sizes[label] = _bounded(_integer(values[0], line, file) * _KIB, line, file)
    if not sizes:
        raise ParseError(file, "no line of the form 'MemTotal: 1024 kB'", text.strip().partition("\n")[0])
    size, total = sizes.get("Hugepagesize", 0), huge_pages.get("HugePages_Total", 0)
    if total > 0:
        sizes.setdefault("Hugetlb", total * size)
        free = huge_pages.get("HugePages_Free", 0) - huge_pages.get("HugePages_Rsvd", 0)
        sizes["HugePages_Free"] = max(free, 0) * size
    return sizes


def parse_movable(text: str) -> tuple[int, int]:
    """Add up ZONE_MOVABLE of /proc/zoneinfo in pages: all that it has, and what is free or file cache in it.

    Node 0, zone  Movable
      pages free     9042
            managed  262144
          nr_zone_inactive_file 5021
    """
    total = spare = 0
    for zone in f"\n{text}".split("\nNode ")[1:]:
        if zone.partition("\n")[0].endswith(" Movable"):
            pages = {name: int(number) for name, number in _ZONE.findall(zone)}
            total += pages.get("managed", pages.get("present", 0))
            # Before 4.8 the zones counted the file cache, and nodes did not.
            cache = (pages.get(f"nr_zone_{part}_file", pages.get(f"nr_{part}_file", 0)) for part in _CACHE)
            spare += pages.get("pages free", 0) + sum(cache)
    return total, spare


def parse_pressure(text: str, file: str = "pressure") -> dict[str, PressureStall]:
    """Read one file of /proc/pressure: ``some`` and ``full``, percent of time stalled, total in microseconds."""
    return {
        words[0]: _stall(dict(word.partition("=")[::2] for word in words[1:]), line, file)
        for line in text.split("\n")
        if (words := line.split()) and words[0] in {"some", "full"}
    }


def parse_sysctl(text: str, file: str, count: int = 1, within: tuple[int, int] = ANY) -> tuple[int, ...]:
    """Read a file of /proc/sys that must hold ``count`` integers separated by blanks or tabs, each ``within`` two."""
    words = text.split()
    if len(words) != count:
        raise ParseError(file, f"{len(words)} values instead of {count}", text.strip())
    values = tuple(_integer(word, text.strip(), file) for word in words)
    if not all(within[0] <= value <= within[1] for value in values):
        raise ParseError(file, "not a number that this setting can have", text.strip())
    return values


def parse_uptime(text: str, file: str = "uptime") -> float:
    """Read the seconds since boot, the first number of /proc/uptime."""
    line = text.partition("\n")[0]
    return _decimal((line.split() or [""])[0], line, file)


def parse_stat_cpus(text: str) -> int | None:
    """Count the ``cpuN`` lines of /proc/stat: the CPUs online."""
    return sum(re.match(r"cpu[0-9]", line) is not None for line in text.split("\n")) or None


def parse_stat_boot(text: str) -> int | None:
    """Read ``btime`` of /proc/stat: when the host was booted, in seconds since the epoch."""
    found = _BTIME.search(text)
    return int(found[1]) if found else None


def parse_memory_stat(text: str, file: str = "memory.stat") -> int | None:
    """Read ``sock``, the bytes of socket memory, of a version 2 cgroup's memory.stat."""
    for line in text.split("\n"):
        key, _, value = line.partition(" ")
        if key == "sock":
            return _integer(value.strip(), line, file)
    return None


def parse_memory_events(text: str, file: str = "memory.events") -> int:
    """Sum how often the limits of a version 2 cgroup were hit, from lines like ``high 3`` and ``max 12``."""
    words = (line.partition(" ") for line in text.split("\n"))
    return sum(_integer(count.strip(), f"{name} {count}", file) for name, _, count in words if name in {"max", "high"})


def parse_word(text: str, file: str) -> str:
    """Read a file that holds one printable line: host name, kernel release, boot id."""
    line = text.removesuffix("\n")
    if not line.strip() or not line.isprintable() or len(line) > QUOTE_LIMIT:
        raise ParseError(file, f"not one printable line of at most {QUOTE_LIMIT} characters", line)
    return line.strip()


def parse_version(text: str, file: str = "version") -> str:
    """Read the kernel release of /proc/version, ``Linux version 2.6.32-754.el6.x86_64 (builder@...) ...``."""
    words = text.split(maxsplit=3)
    if words[:2] != ["Linux", "version"] or not words[2:]:
        raise ParseError(file, "does not begin with 'Linux version RELEASE'", text.partition("\n")[0])
    return parse_word(words[2], file)


def parse_fib_trie(text: str) -> set[str]:
    """Read the addresses of a network namespace itself, from the local table of net/fib_trie (net/ipv4/fib_trie.c)."""
    return set(_OWN_ADDRESS.findall(text))


def parse_if_inet6(text: str) -> set[str]:
    """Read the IPv6 addresses of a network namespace (net/if_inet6: if6_seq_show, net/ipv6/addrconf.c)."""
    return {str(IPv6Address(int(line[:32], 16))) for line in text.splitlines() if _IF_INET6.match(line)}


def parse_process_stat(text: str, file: str = "stat") -> tuple[str, int]:
    """Read a process's state and its start in clock ticks since boot, behind a name that may hold anything."""
    fields = text.rpartition(")")[2].split()
    if len(fields) <= _START_TIME:
        raise ParseError(file, "no start time", text)
    return fields[0], _integer(fields[_START_TIME], text, file)


def parse_auxv(data: bytes) -> int | None:
    """Find the page size in bytes (AT_PAGESZ) in a process's auxv, of either word size and byte order."""
    for layout in AUXV_LAYOUTS:
        entries = _auxv(data, layout)
        if entries.get(AT_PAGESZ) in PAGE_SIZES and max(entries) < AUXV_KEY_LIMIT:
            return entries[AT_PAGESZ]
    return None


def parse_smaps(text: str, file: str = "smaps") -> int | None:
    """Find the smallest KernelPageSize of a process's mappings, in bytes: the others are huge pages."""
    sizes = [
        _integer(values[0], line, file) * _KIB
        for label, values, line in _labelled(text)
        if label == "KernelPageSize" and values[1:] == ["kB"]
    ]
    return min((size for size in sizes if size in PAGE_SIZES), default=None)


def infer_page_size(vmstat: str, meminfo: dict[str, int], file: str = "vmstat") -> int | None:
    """Compare the same free memory in pages (vmstat) and in bytes (meminfo), read a moment apart."""
    for line in vmstat.split("\n"):
        key, _, value = line.partition(" ")
        if key == "nr_free_pages" and (pages := _integer(value.strip(), line, file)) > 0:
            ratio = meminfo.get("MemFree", 0) / pages
            return next((size for size in PAGE_SIZES if 0.75 * size < ratio < 1.5 * size), None)
    return None


def _labelled(text: str) -> Iterator[tuple[str, list[str], str]]:
    """Split ``LABEL: value value`` lines; others are none of ours."""
    for line in text.split("\n"):
        label, colon, rest = line.partition(":")
        if colon:
            yield label, rest.split(), line


def _pairs(values: list[str], line: str, file: str) -> dict[str, int]:
    """Pair names with numbers, up to the remark that somebody wrote behind them: ``mem 57350 <-- here``."""
    pairs: dict[str, int] = {}
    for name, value in zip_longest(values[::2], values[1::2], fillvalue=""):
        if name not in _SOCKSTAT_FIELDS and not _INTEGER.fullmatch(value):
            break
        if not value:
            raise ParseError(file, "a name without its number", line)
        pairs[name] = _integer(value, line, file)
    return pairs


def _counters(text: str, table: str, file: str, only: Collection[str] = ()) -> dict[str, int]:
    """Pair each line of names with the line of values below it; a few of them are read in a third of the time.

    Where the numbers of names and values differ, nobody can tell which value belongs to which name.
    """
    lines = [line for line in text.split("\n") if line.startswith(f"{table}:")]
    if not lines or len(lines) % 2:
        raise ParseError(file, f"no pair of '{table}:' lines in it", lines[-1] if lines else "")
    counters: dict[str, int] = {}
    for header, line in zip(lines[::2], lines[1::2], strict=True):
        (number, places), values = _places(header), line.split()[1:]
        if len(values) != number:
            raise ParseError(file, f"{number} names but {len(values)} values", line)
        names = [name for name in only or places if name in places]
        counters.update(zip(names, _integers([values[places[name]] for name in names], line, file), strict=True))
    return counters


# All namespaces of a host have the same.
@lru_cache(maxsize=32)
def _places(header: str) -> tuple[int, dict[str, int]]:
    """Return how many names a header has, and the place of each; one that is there twice has its last."""
    names = header.split()[1:]
    return len(names), {name: place for place, name in enumerate(names)}


def _stall(fields: dict[str, str], line: str, file: str) -> PressureStall:
    shares = {key: _decimal(fields[key], line, file) for key in ("avg10", "avg60", "avg300") if key in fields}
    total = _integer(fields["total"], line, file) if "total" in fields else None
    return PressureStall(**shares, total_usec=total)


def _auxv(data: bytes, layout: str) -> dict[int, int]:
    entries: dict[int, int] = {}
    size = struct.calcsize(layout)
    for key, value in struct.iter_unpack(layout, data[: len(data) - len(data) % size]):
        if key == AT_NULL:
            break
        entries[key] = value
    return entries


def _integers(words: list[str], line: str, file: str) -> list[int]:
    # One look at the joined line is five times cheaper than one at each of its 130 words.
    if not _INTEGERS.fullmatch(" ".join(words)):
        return [_integer(word, line, file) for word in words]
    numbers = list(map(int, words))
    _bounded(max(numbers, default=0), line, file)
    _bounded(min(numbers, default=0), line, file)
    return numbers


def _integer(word: str, line: str, file: str) -> int:
    # int() alone would take '1_000', other scripts' digits and numbers that no kernel word can hold.
    if not _INTEGER.fullmatch(word):
        raise ParseError(file, f"{word[:QUOTE_LIMIT]!r} is not an integer", line)
    return _bounded(int(word), line, file)


def _bounded(number: int, line: str, file: str) -> int:
    if not INTEGER_MIN <= number <= INTEGER_MAX:
        raise ParseError(file, f"{number} does not fit a kernel word", line)
    return number


def _decimal(word: str, line: str, file: str) -> float:
    if not _DECIMAL.fullmatch(word):
        raise ParseError(file, f"{word[:QUOTE_LIMIT]!r} is not a number", line)
    return float(word)
