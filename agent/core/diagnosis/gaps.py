"""What is missing from the evidence of a diagnosis, and why."""

from math import inf

from agent.core.facts import Facts
from agent.core.format import duration_text
from agent.core.readings import Gap

_LIMIT_FILES = ("net.ipv4.tcp_max_orphans", "net.ipv4.tcp_mem")


def all_gaps(facts: Facts, unseen: tuple[Gap, ...]) -> tuple[Gap, ...]:
    """Return the gaps of the snapshot, its numbers, its events and its holders (``unseen``), each once."""
    return tuple(dict.fromkeys((*facts.snapshot.gaps, *_gaps_of_reading(facts), *_gaps_of_events(facts), *unseen)))


def _gaps_of_reading(facts: Facts) -> list[Gap]:
    """Tell what is missing from the snapshot, unless the probe has told already."""
    snapshot = facts.snapshot
    told = " ".join(gap.what for gap in snapshot.gaps)
    gaps = [
        Gap(what=key, why="not in the snapshot: its side of the question is judged without the limit")
        for key in _LIMIT_FILES
        if key not in snapshot.sysctls and key.rpartition(".")[2] not in told
    ]
    tcp = snapshot.sockstat.tcp if snapshot.sockstat else None
    if "sockstat" not in told and (tcp is None or tcp.orphan is None or tcp.mem is None):
        gaps.append(Gap(what="net/sockstat", why="no orphan or mem in the snapshot: how much was in use is not known"))
    if snapshot.page_size_bytes is None and "page size" not in told:
        gaps.append(Gap(what="page size", why="not in the snapshot: prices in bytes assume pages of 4096 bytes"))
    return gaps


def _gaps_of_events(facts: Facts) -> list[Gap]:
    if not facts.lines:
        return []
    gaps = []
    if facts.stale:
        gaps.append(Gap(what="the moment of the event", why=_stale_text(facts)))
    if any(event.provenance == "claimed" for event in facts.lines.values()):
        why = "a text log or a person says so, which any user can write; only /dev/kmsg and the journal prove it"
        gaps.append(Gap(what="proof that the kernel wrote the line", why=why))
    gaps += _gap_of_host(facts)
    if facts.kills == 0:
        why = (
            "TCPAbortOnMemory did not move in this network namespace: the sockets were in another namespace, the line "
            "is imported from another host or time, or it was not this kernel that wrote it"
        )
        gaps.append(Gap(what="confirmation by counters", why=why))
    elif facts.kills is None:
        why = "no reading of TCPAbortOnMemory from shortly before the event: what it counts may be older"
        gaps.append(Gap(what="counters from before the event", why=why))
    if (
        "tcp_memory" in facts.lines
        and facts.kernel is not None
        and facts.kernel.tests_memcg
        and facts.snapshot.kmem_tcp_failcnt is None
    ):
        why = (
            "kernels 3.3 to 4.4 print the same text for a cgroup's own memory.kmem.tcp limit, and no cgroup with one "
            "was seen: one that is gone or could not be read would explain the line as well"
        )
        gaps.append(Gap(what="cgroup limits", why=why))
    return gaps


def _gap_of_host(facts: Facts) -> list[Gap]:
    """Tell where the service follows a log that names another host, as on a log server: the numbers are of this one."""
    here = facts.snapshot.host
    if facts.snapshot.trigger != "event" or not here:
        return []
    claimed = [event.host for event in facts.lines.values() if event.provenance == "claimed" and event.host]
    others = sorted({host for host in claimed if _short_name(host) not in (_short_name(here), "localhost")})
    if not others:
        return []
    hosts = f"the line is of {', '.join(others)}, the numbers are of {here}"
    return [
        Gap(what="host of the line", why=f"{hosts}: if these are two hosts, the numbers say nothing about the line")
    ]


def _short_name(host: str) -> str:
    return host.partition(".")[0].casefold()


def _stale_text(facts: Facts) -> str:
    age = facts.age_seconds
    used = "the numbers are of another moment and weigh little" if facts.snapshot.trigger == "command" else "not used"
    if age is None or age == inf:
        return f"the line is from an earlier boot than the reading: {used}"
    when = "older than" if age > 0 else "later than"
    return f"the line is {duration_text(abs(age))} {when} the reading: {used}"
