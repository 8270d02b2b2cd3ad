"""What the kernel says when it runs out of socket memory, by era; and which record is one.

Mirrors ``tcp_out_of_resources()`` (net/ipv4/tcp_timer.c), ``tcp_close()`` and ``tcp_check_oom()`` (net/ipv4/tcp.c) and
the rate limiters of kernel/printk.c and lib/ratelimit.c, 2.6 to 6.19::

    Out of socket memory                                   up to 3.2
    TCP: too many of orphaned sockets                      up to 3.2; OpenVZ adds " (512 in CT1023)"
    TCP: too many orphaned sockets                         3.3 and later
    MPTCP: too many of orphaned sockets                    out-of-tree MPTCP of 3.x: the same test, in mptcp_close()
    TCP: out of memory -- consider tuning tcp_mem          3.3 and later
    printk: 58 messages suppressed.                        2.6.24
    __ratelimit: 8552 callbacks suppressed                 2.6.32
    net_ratelimit: 142 callbacks suppressed                2.6.35 and later
"""

import re

from agent.core.model import Event, Kind, LogRecord

TAIL = r"(?: \((?:-?\d+ in )?CT ?[\w-]+\))?(?:\s|#0\d\d)*"
_TEXTS: tuple[tuple[Kind, str], ...] = (
    ("out_of_socket_memory", r"Out of socket memory"),
    ("too_many_orphans", r"(?:TCP: too many (?:of )?|MPTCP: too many of )orphaned sockets"),
    ("tcp_mem", r"TCP: out of memory -- consider tuning tcp_mem"),
    (
        "suppressed",
        (
            r"(?:printk: (?P<messages>\d{1,10}) messages suppressed\."
            r"|(?:net_|__)ratelimit: (?P<callbacks>\d{1,10}) callbacks suppressed)"
        ),
    ),
)
MESSAGES: tuple[tuple[Kind, re.Pattern[str]], ...] = tuple((kind, re.compile(text + TAIL)) for kind, text in _TEXTS)
# One of them anywhere in a line of any origin. MPTCP's memory is another limit.
TEXT = re.compile(rf"(?<!MP)(?:{'|'.join(text for _, text in _TEXTS)})")
# Web pages and mails make one dash of the two.
OTHER_DASH = re.compile(r"(?<!MP)TCP: out of memory(?! -- ).{1,12}?consider tuning tcp_mem")
# syslogd and rsyslog, sysklogd 2; syslog-ng; metalog, which says "twice" for once more.
REPEATED = re.compile(
    r"last message (?:repeated|buffered) (\d{1,9}) times?\s*|Last message '[^']*' repeated (\d{1,9}) times.*"
    r"|- Last output repeated (?:(\d{1,9}) times|twice) -\s*"
)

# Other limits with the same symptoms, by era: the regex fully matches a text from one of its words on, the name is for
# people. None goes over what another word may begin: a line of n words would take n times n steps.
OTHER_LIMITS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"(?:TCP|DCCP): time wait bucket table overflow" + TAIL), "the TIME_WAIT table (tcp_max_tw_buckets)"),
    (re.compile(r"[Pp]ossible SYN flooding on port .*"), "the SYN backlog of a listener"),
    (re.compile(r"(?:nf|ip)_conntrack: table full.{0,80}dropping packet\.?"), "the connection tracking table"),
    (re.compile(r"nf_conntrack: expectation table full"), "the connection tracking expectations"),
    (re.compile(r"[Nn]eighbou?r table overflow[.!]?"), "the neighbour (ARP or NDP) table"),
    (re.compile(r"MPTCP: out of memory.*"), "memory of out-of-tree MPTCP"),
    (re.compile(r"SCTP: out of memory.*"), "SCTP memory"),
    (re.compile(r"\S*: page allocation failure[.:].*"), "the host's RAM (page allocation)"),
    (re.compile(r"SLUB: Unable to allocate memory on .*"), "the host's RAM (slab allocation)"),
    (re.compile(r"Out of memory: Kill(?:ed)? process .*"), "the host's RAM (OOM killer)"),
    (re.compile(r"Memory cgroup out of memory: Kill(?:ed)? process .*"), "a control group's memory (OOM killer)"),
)


def detect(record: LogRecord) -> Event | None:
    """Return which of the four kinds a record is, or None; only Detector decides a suppressed line."""
    for kind, pattern in MESSAGES:
        match = pattern.fullmatch(record.text)
        if match is not None:
            number = match["messages"] or match["callbacks"] if kind == "suppressed" else None
            return make_event(record, kind, suppressed=None if number is None else int(number))
    return None


def other_limit(line: str) -> str | None:
    """Name the other limit that the message at the end of a line speaks of, in plain English, or None."""
    line = line.rstrip()
    starts = [match.start() for match in re.finditer(r"(?<!\S)(?=\S)", line)]
    return next(
        (name for pattern, name in OTHER_LIMITS if any(pattern.fullmatch(line, start) for start in starts)), None
    )


def make_event(record: LogRecord, kind: Kind, *, suppressed: int | None, count: int | None = None) -> Event:
    """Make the event of a record; ``count`` replaces the record's own."""
    return Event(
        at=record.at,
        uptime=record.uptime,
        host=record.host,
        kind=kind,
        suppressed=suppressed,
        count=record.count if count is None else count,
        source=record.source,
        provenance=record.provenance,
        line=record.line,
        ahead_seconds=record.ahead_seconds,
    )
