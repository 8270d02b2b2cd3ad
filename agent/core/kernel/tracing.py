"""What the kernel's tracepoints say in text: which sockets it killed, and which it refused memory.

Mirrors include/trace/events/tcp.h (tcp_send_reset) and sock.h (sock_exceed_buf_limit), and of kernel/trace:
trace_output.c (trace_print_context, trace_print_lat_fmt), trace.c (print_trace_line), trace_events_hist.c (hist_show).
Samples, the first of them one line::

         python3-20257   [001] b..1.  5505.345442: tcp_send_reset: skbaddr=0000000000000000 skaddr=00000000fdcd7b81
        src=127.0.0.1:42102 dest=127.0.0.1:8898 state=TCP_CLOSE reason=TCP_ABORT_ON_MEMORY
    CPU:1 [LOST 12 EVENTS]

    { common_pid: python3         [     20257] } hitcount:        178  allocated:     216626

Any user chooses 15 bytes of such a text, the name of a process (PR_SET_NAME of prctl(2)), and the kernel escapes none
of them, not even a line break. So a line is read from its end: behind the process there is nothing but what the kernel
wrote, and 15 bytes are too few for a line, a mark of lost events or a row of their own.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime
from operator import itemgetter
from typing import Literal, NamedTuple

import msgspec

from agent.core.kernel.procfs import ParseError

KILL_EVENT = "tcp/tcp_send_reset"
KILL_REASON = "TCP_ABORT_ON_MEMORY"
REFUSAL_EVENT = "sock/sock_exceed_buf_limit"
# UDP's, and every other protocol's, are refused by the same function; TCPv6 is another name.
REFUSAL_FILTER = 'name ~ "TCP*"'
# TRACE_FLAG_HARDIRQ and TRACE_FLAG_SOFTIRQ (include/linux/trace_events.h).
_IN_INTERRUPT = "common_flags & 24"
# Writers a histogram tells apart before it is made anew; refusals of any others are still counted.
_WRITERS, _KINDS = 512, 128
# Of kills that differ in more ways than this, some of what differs is left out.
ROWS_AT_MOST = 256

RefusalKind = Literal["send", "receive"]
REFUSAL_KINDS: dict[str, RefusalKind] = {"SK_MEM_SEND": "send", "SK_MEM_RECV": "receive"}


class Kills(msgspec.Struct, frozen=True):
    """``count`` sockets that the kernel killed, all alike.

    ``name`` and ``pid`` (a thread's, as the host counts them) are None where the kernel acted in an interrupt, since
    the process is then only the one that was interrupted. ``address`` and ``port`` are the socket's own. Of the two
    ports the one that repeats is the service's, and the other is None if it does not. The rest is None where there were
    too many to tell apart.
    """

    name: str | None
    pid: int | None
    address: str | None
    port: int | None
    peer: str | None
    peer_port: int | None
    count: int


class Refusals(msgspec.Struct, frozen=True):
    """``count`` times that living sockets were refused memory; ``kind`` None: not known.

    ``name`` and ``pid`` are the writer's; None where the kernel acted in an interrupt, as it does for what is received.
    In a histogram the name is the first that this pid had. ``allocated`` is TCP's memory at that moment, on
    average, in the units of sockstat's mem: below the first limit of tcp_mem, a cgroup's own limit refused
    (mem_cgroup_sk_charge in __sk_mem_raise_allocated). ``limits`` is tcp_mem in pages, None where it was only counted
    (a histogram).
    """

    kind: RefusalKind | None
    name: str | None
    pid: int | None
    count: int
    allocated: int | None = None
    limits: tuple[int, int, int] | None = None


class Seen(NamedTuple):
    """What happened since the reading before: ``since`` is the time of the first of the kills.

    ``lost`` kills were overwritten before they were read; a refusal that was overwritten is one of no kind and no name.
    """

    kills: tuple[Kills, ...] = ()
    refusals: tuple[Refusals, ...] = ()
    lost: int = 0
    since: datetime | None = None


class Format(NamedTuple):
    """A tracepoint's ``format`` file: its fields, the text that it prints, and by field the names of numbers."""

    event: str
    fields: frozenset[str]
    template: str
    symbols: dict[str, dict[str, int]]


class KillText(NamedTuple):
    """Text of trace_pipe, read: ``first_uptime`` is in seconds of the trace's clock."""

    kills: tuple[Kills, ...]
    lost: int
    first_uptime: float | None


# The process and its thread; and address, port, peer and its port in text, empty where there is none.
_Who = tuple[str | None, int | None]
_Ends = tuple[bytes, bytes, bytes, bytes]

HistKey = tuple[RefusalKind | None, str | None, int | None]
# Refusals so far, and the sum of the pages that were allocated at each.
Hist = dict[HistKey, tuple[int, int]]
NO_ONE: HistKey = (None, None, None)

_NAME = re.compile(r"^name: (\w{1,64})$", re.MULTILINE | re.ASCII)
_FIELD = re.compile(r"^\tfield:([^;\n]*);", re.MULTILINE)
_PRINT = re.compile(r'^print fmt: "([^"\n]*)"([^\n]*)', re.MULTILINE)
_SYMBOLS = re.compile(r"__print_symbolic\(REC->(\w+), (\{[^()\n]*\})\)", re.ASCII)
_SYMBOL = re.compile(r'\{ ?([^,"{}\s]{1,64}), ?"([^"{}]*)" ?\}')
_NUMBER = re.compile(r"0[xX][0-9a-fA-F]{1,8}|\d{1,9}", re.ASCII)
_WORD = re.compile(r"(\w+[=:])%")

# What precedes the time of an event: read apart, so that an odd name of a process hides no kill.
_HEAD = rb"^([^\n]{0,64}) ([0-9.]{1,32}): "
# trace_print_context: comm, pid, perhaps the process of the thread, CPU, flags of which the third is about interrupts.
# On old kernels its "s" may mean only that softirqs were disabled: that names no one, rather than someone else.
_CONTEXT = re.compile(rb"(.*)-(\d{1,10}) +(?:\([ \d-]{1,12}\) +)?\[\d{1,6}\] \S\S(\S)\S* *", re.DOTALL)
_IN_PROCESS = b"."
_ENDPOINT = rb"(?:(?P<%s>[^ \n]*):(?P<%s>\d{1,5})|[^ \n]*)"
_KILL_KEYS = {"src": _ENDPOINT % (b"address", b"port"), "dest": _ENDPOINT % (b"peer", b"peer_port")}
_REFUSAL_KEYS = {
    "sysctl_mem": rb"(?P<limits>-?\d{1,19},-?\d{1,19},-?\d{1,19})",
    "allocated": rb"(?P<allocated>-?\d{1,19})",
}
_KIND_KEY = {"kind": rb"(?P<kind>\w{1,32})"}
_MARK = b" [LOST "
_LOST = re.compile(rb"^CPU:\d{1,6} \[LOST (?:(\d{1,19}) )?EVENTS\]$", re.MULTILINE)
_MAPPED = re.compile(rb"\[::ffff:(\d{1,3}(?:\.\d{1,3}){3})\]")
_FORGOTTEN = "<...>"

_BLOCK = b"# event histogram\n"
_ROW = re.compile(
    rb"^(?:\{ )?([^\n]{0,160})\} hitcount: {1,12}(\d{1,19}) {1,4}allocated: {1,12}(\d{1,19})$", re.MULTILINE
)
_ROW_PROCESS = re.compile(rb"(?:common_pid: )?([^\n]*?) *\[ *(\d{1,10})\] ")
_ROW_KIND = re.compile(rb"kind: *(\d{1,10}) ")
_DROPPED = re.compile(rb"^    Dropped: (\d{1,19})$", re.MULTILINE)


def parse_format(text: str, file: str = "format") -> Format:
    """Read a tracepoint's ``format`` file (f_show of kernel/trace/trace_events.c).

    A symbol that still has its enumerator's name for a number counts on from the one before, as in C.
    """
    name, printed = _NAME.search(text), _PRINT.search(text)
    if name is None or printed is None:
        raise ParseError(file, "not the format of a tracepoint", text.strip().partition("\n")[0])
    symbols = {field: _numbered(table) for field, table in _SYMBOLS.findall(printed[2])}
    fields = (declared.rpartition(" ")[2].partition("[")[0] for declared in _FIELD.findall(text))
    return Format(name[1], frozenset(fields), printed[1], symbols)


def _numbered(table: str) -> dict[str, int]:
    numbers, following = {}, 0
    for number, symbol in _SYMBOL.findall(table):
        base = 16 if number.lower().startswith("0x") else 10
        value = int(number, base) if _NUMBER.fullmatch(number) else following
        numbers[symbol], following = value, value + 1
    return numbers


def kill_reason(form: Format, symbol: str) -> int | None:
    """Return the number that this kernel gives a reason; None: its resets have no such reason, or none at all."""
    return form.symbols.get("reason", {}).get(symbol)


def kill_pattern(form: Format, symbol: str) -> re.Pattern[bytes]:
    """Make the expression for the lines of tcp_send_reset with this reason; ParseError if it prints no addresses."""
    return _pattern(form, {**_KILL_KEYS, "reason": re.escape(symbol.encode())})


def refusal_pattern(form: Format) -> re.Pattern[bytes]:
    """Make the expression for the lines of sock_exceed_buf_limit; ``kind`` is printed from 5.0 on."""
    return _pattern(form, _REFUSAL_KEYS | (_KIND_KEY if "kind" in form.fields else {}))


def _pattern(form: Format, keys: Mapping[str, bytes]) -> re.Pattern[bytes]:
    missing, words = set(keys), []
    for word in form.template.split(" "):
        match = _WORD.match(word)
        key = match[1] if match else word.partition("%")[0]
        if key[:-1] in missing:
            missing.remove(key[:-1])
            words.append(re.escape(key.encode()) + keys[key[:-1]])
        else:
            words.append(re.escape(key.encode()) + (rb"[^ \n]*" if "%" in word else b""))
    if missing:
        raise ParseError(form.event, f"prints no {', '.join(sorted(missing))}", form.template)
    head = _HEAD + re.escape(form.event.encode()) + b": "
    return re.compile(head + b" ".join(words) + b"$", re.MULTILINE)


def parse_kills(pattern: re.Pattern[bytes], text: bytes) -> KillText:
    """Count the kills in whole lines of trace_pipe, which come in the order of time; other lines are ignored."""
    fields = ("address", "port", "peer", "peer_port")
    rows = list(map(itemgetter(0, 1, *(pattern.groupindex[name] - 1 for name in fields)), pattern.findall(text)))
    return KillText(_alike(rows), parse_lost(text), _seconds(rows[0][1]) if rows else None)


def parse_lost(text: bytes) -> int:
    """Count the events that were overwritten before they could be read; a mark without a number is for one at least."""
    return sum(int(number or 1) for number in _LOST.findall(text)) if _MARK in text else 0


def _seconds(text: bytes) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _alike(rows: list[tuple[bytes, ...]]) -> tuple[Kills, ...]:
    who = {head: _who(head) for head in {row[0] for row in rows}}
    if len(set(who.values())) > ROWS_AT_MOST:
        who = _without_pids(who)
    counts = _counted(rows, who, peers=len({row[4] for row in rows}) <= ROWS_AT_MOST)
    if len(counts) > ROWS_AT_MOST:
        counts = _counted(rows, _without_pids(who), peers=False)
    told = counts.most_common(ROWS_AT_MOST)
    rest = len(rows) - sum(count for _, count in told)
    kills = tuple(_kills(*key, count) for key, count in told)
    return (*kills, Kills(None, None, None, None, None, None, rest)) if rest else kills


def _without_pids(who: dict[bytes, _Who]) -> dict[bytes, _Who]:
    return {head: (name, None) for head, (name, _) in who.items()}


def _counted(rows: list[tuple[bytes, ...]], who: dict[bytes, _Who], *, peers: bool) -> Counter[tuple[_Who, _Ends]]:
    by_port, by_peer_port = Counter(map(itemgetter(2, 3), rows)), Counter(map(itemgetter(2, 5), rows))
    counts: Counter[tuple[_Who, _Ends]] = Counter()
    for head, _, address, port, peer, peer_port in rows:
        ours, theirs = by_port[address, port], by_peer_port[address, peer_port]
        shown = port if ours >= theirs else b"", peer if peers else b"", peer_port if theirs >= ours else b""
        counts[who[head], (address, *shown)] += 1
    return counts


def _kills(who: _Who, ends: _Ends, count: int) -> Kills:
    address, port, peer, peer_port = ends
    return Kills(*who, _address(address), _int(port), _address(peer), _int(peer_port), count)


def _who(head: bytes) -> _Who:
    context = _CONTEXT.fullmatch(head)
    return (_name(context[1]), int(context[2])) if context and context[3] == _IN_PROCESS else (None, None)


def _name(comm: bytes) -> str | None:
    name = comm.decode(errors="replace").strip()
    return name if name not in {"", _FORGOTTEN} else None


def _int(digits: bytes) -> int | None:
    return int(digits) if digits else None


def _address(text: bytes) -> str | None:
    mapped = _MAPPED.fullmatch(text)
    return (mapped[1] if mapped else text.strip(b"[]")).decode(errors="replace") or None


def parse_refusals(pattern: re.Pattern[bytes], text: bytes) -> tuple[Refusals, ...]:
    """Count the refusals in whole lines of trace_pipe, with those that were lost before they could be read."""
    counts: Counter[HistKey] = Counter()
    pages: Counter[HistKey] = Counter()
    limits = None
    for match in pattern.finditer(text):
        kind = REFUSAL_KINDS.get(match["kind"].decode()) if "kind" in pattern.groupindex else None
        key = (kind, *(_who(match[1]) if kind == "send" else (None, None)))
        counts[key] += 1
        pages[key] += int(match["allocated"])
        limits = _limits(match["limits"])
    told = (Refusals(*key, count, pages[key] // count, limits) for key, count in counts.most_common())
    lost = parse_lost(text)
    return (*told, Refusals(None, None, None, lost)) if lost else tuple(told)


def _limits(text: bytes) -> tuple[int, int, int]:
    low, pressure, high = map(int, text.split(b","))
    return low, pressure, high


def hist_triggers(form: Format) -> tuple[str, ...]:
    """Return what makes the kernel count refusals by writer, and those of no writer by kind: parse_hist reads both.

    Whatever is received is refused in an interrupt, whose processes would fill the first.
    """
    send = form.symbols.get("kind", {}).get("SK_MEM_SEND")
    if send is None or "kind" not in form.fields:
        return (f"hist:keys=name:vals=allocated:size={_KINDS} if {REFUSAL_FILTER}",)
    by_writer = f"hist:keys=common_pid.execname:vals=allocated:size={_WRITERS}"
    by_kind = f"hist:keys=kind:vals=allocated:size={_KINDS}"
    return (
        f"{by_writer} if {REFUSAL_FILTER} && kind == {send} && !({_IN_INTERRUPT})",
        f"{by_kind} if {REFUSAL_FILTER} && (kind != {send} || {_IN_INTERRUPT})",
    )


def parse_hist(form: Format, text: bytes) -> Hist:
    """Read the histograms of refusals: by writer, and by kind. What a full one had no room for has no kind or name."""
    hist: Hist = {}
    for block in text.split(_BLOCK)[1:]:
        for key, count, pages in (*_rows(form, block), (NO_ONE, _dropped(block), 0)):
            before_count, before_pages = hist.get(key, (0, 0))
            hist[key] = (before_count + count, before_pages + pages)
    return hist


def _rows(form: Format, block: bytes) -> Iterator[tuple[HistKey, int, int]]:
    names = {number: REFUSAL_KINDS.get(symbol) for symbol, number in form.symbols.get("kind", {}).items()}
    for keys, count, pages in _ROW.findall(block):
        process, kind = _ROW_PROCESS.fullmatch(keys), _ROW_KIND.fullmatch(keys)
        key = NO_ONE
        if process:
            key = ("send", _name(process[1]), int(process[2]))
        elif kind:
            key = (names.get(int(kind[1])), None, None)
        yield key, int(count), int(pages)


def _dropped(block: bytes) -> int:
    # Not "Hits" less the rows: it is read after them, and is ahead.
    dropped = _DROPPED.search(block)
    return int(dropped[1]) if dropped else 0


def risen(before: Hist, now: Hist) -> tuple[Refusals, ...]:
    """Return what a histogram counted between two readings; one that fell was made anew in between."""
    refusals = []
    for key, (count, pages) in now.items():
        old_count, old_pages = before.get(key, (0, 0))
        if count < old_count:
            old_count, old_pages = 0, 0
        if more := count - old_count:
            allocated = (pages - old_pages) // more
            refusals.append(Refusals(*key, more, allocated if allocated > 0 else None))
    return tuple(sorted(refusals, key=lambda each: each.count, reverse=True))
