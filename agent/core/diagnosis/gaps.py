"""What is missing from the evidence of a diagnosis, and why."""

from math import inf

from agent.core.diagnosis.evidence import SOCKSTAT
from agent.core.diagnosis.rules_silence import udp_shortage
from agent.core.facts import BYPASS, Facts
from agent.core.format import counted, duration_text
from agent.core.hosts import may_be_same, other_host
from agent.core.readings import PAGE_SIZE, UNMEASURED, Gap

_TRACE = "the kernel's trace"
# SK_RST_REASON_TCP_ABORT_ON_MEMORY in tcp:tcp_send_reset (include/net/rstreason.h).
_TELLS_REASONS = (6, 12, 0)
_LIMITS = ("net.ipv4.tcp_max_orphans", "net.ipv4.tcp_mem")


def all_gaps(facts: Facts, unseen: tuple[Gap, ...], untraced: tuple[Gap, ...] = ()) -> tuple[Gap, ...]:
    """Return the gaps of the snapshot, its numbers, its events, its holders (``unseen``) and the trace, each once.

    ``untraced`` is what the kernel's trace did not show; without a reset or a refusal nothing is missed.
    """
    udp = (Gap(what="UDP", why=why),) if (why := udp_shortage(facts)) else ()
    found = (*facts.snapshot.gaps, *_gaps_of_reading(facts), *_gaps_of_events(facts), *udp, *unseen)
    found = (*found, *_gaps_of_trace(facts), *_gaps_beside_trace(facts, untraced))
    return tuple(dict.fromkeys(found))


def _gaps_of_reading(facts: Facts) -> list[Gap]:
    """Return what the snapshot lacks, unless the probe has already reported it."""
    snapshot = facts.snapshot
    lacks = [
        (f"sys/{key.replace('.', '/')}", Gap(what=key, why="not in the snapshot: nothing to compare the count with"))
        for key in _LIMITS
        if key not in snapshot.sysctls
    ]
    tcp = snapshot.sockstat.tcp if snapshot.sockstat else None
    if tcp is None or tcp.orphan is None or tcp.mem is None:
        why = "no orphan or mem in the snapshot: current use is unknown"
        lacks.append((SOCKSTAT, Gap(what=SOCKSTAT, why=why)))
    if snapshot.page_size_bytes is None:
        lacks.append((PAGE_SIZE, Gap(what=PAGE_SIZE, why="not in the snapshot: no sizes in bytes")))
    if facts.is_bypassed:
        why = "it is set: sockets made since take memory that tcp_mem does not limit, and mem does not show"
        lacks.append((BYPASS, Gap(what=BYPASS, why=why)))
    return [gap for file, gap in lacks if not any(known.is_about(file) for known in snapshot.gaps)]


def _gaps_of_events(facts: Facts) -> list[Gap]:
    if not facts.lines:
        return []
    gaps = []
    if facts.stale:
        gaps.append(Gap(what="the moment of the event", why=_stale_text(facts)))
        if facts.is_past:
            gaps.append(Gap(what=UNMEASURED, why="nothing was measured within a minute of the line"))
    elif lag := facts.lag_seconds:
        why = f"the first reading is {duration_text(lag)} later than the line: what ran out may have been freed by then"
        gaps.append(Gap(what="the moment of the event", why=why))
    if any(event.provenance == "claimed" for event in facts.lines.values()):
        why = "any user can write to a text log or type a line; only /dev/kmsg and the journal prove it"
        gaps.append(Gap(what="proof that the kernel wrote the line", why=why))
    if facts.is_alien:
        why = (
            f"kernel {facts.snapshot.kernel} does not print this text (the texts changed in 3.3): the line is from "
            "an earlier boot with another kernel, from another host, or forged"
        )
        gaps.append(Gap(what="kernel of the line", why=why))
    gaps += gap_of_clock(facts)
    gaps += _gap_of_host(facts)
    if facts.killed_in_sight == 0 and not facts.kills:
        gaps.append(Gap(what="confirmation by counters", why=_unconfirmed_text(facts)))
    elif facts.kills is None:
        why = "no reading of TCPAbortOnMemory shortly before the event: its count may be older"
        gaps.append(Gap(what="counters from before the event", why=why))
    if (
        "tcp_memory" in facts.lines
        and facts.kernel is not None
        and facts.kernel.tests_memcg
        and facts.snapshot.kmem_tcp_failcnt is None
    ):
        why = (
            "kernels 3.3 to 4.4 log the same message for a cgroup's own memory.kmem.tcp limit; no cgroup with one was "
            "found, but a removed or unreadable one would also explain the line"
        )
        gaps.append(Gap(what="cgroup limits", why=why))
    return gaps


def _gaps_of_trace(facts: Facts) -> list[Gap]:
    """Return how far the kernel's trace fell short of what happened."""
    witness, gaps = facts.witness, list[Gap]()
    if witness and witness.lost:
        resets = counted(witness.lost, "reset was", "resets were")
        why = f"{resets} overwritten before they were read: attributed to the others' owners, by their share"
        gaps.append(Gap(what=_TRACE, why=why))
    if witness and witness.unseen:
        why = (
            f"TCPAbortOnMemory counts {counted(witness.unseen, 'socket')} more than the trace shows: the kernel's "
            "timer may kill without a reset, or the trace was not read all the time"
        )
        gaps.append(Gap(what="owners of killed sockets", why=why))
    return gaps


def _gaps_beside_trace(facts: Facts, untraced: tuple[Gap, ...]) -> list[Gap]:
    """Return why the trace shows nothing, or no kills, of what it might have named."""
    if not untraced or not (facts.refused or (facts.has_happened and facts.killed_in_sight != 0)):
        return []
    if facts.witness is None:
        why = (
            f"not read ({untraced[0].why}): with it, whose connections were reset is known by name; "
            "sockmem-agent doctor has the commands"
        )
        return [Gap(what=_TRACE, why=why)]
    if facts.witness.kills is None:
        is_older = facts.kernel is not None and facts.kernel.version < _TELLS_REASONS
        why = "it tells why a connection is reset from Linux 6.12 on" if is_older else untraced[0].why
        return [Gap(what=_TRACE, why=f"only refusals are seen, no resets: {why}")]
    return []


def _unconfirmed_text(facts: Facts) -> str:
    """Tell where no socket was killed, and how many sockets are in namespaces of which that is not known."""
    elsewhere = facts.snapshot.elsewhere
    read = counted(1 + elsewhere.namespaces, "network namespace") if elsewhere else "this network namespace"
    if facts.sees_all_namespaces:
        where = "any network namespace" if elsewhere else read
        return (
            f"TCPAbortOnMemory did not rise in {where}: the line comes from another host or time, or this kernel did "
            "not write it"
        )
    unlisted = facts.unlisted
    hidden = "an unknown number of sockets are" if unlisted is None else counted(unlisted, "socket is", "sockets are")
    ipv6 = "IPv6 sockets (net/sockstat6 is missing), or " if facts.lacks_ipv6 else ""
    late = "" if elsewhere is None or elsewhere.is_whole else ", and not every process could be looked at"
    return (
        f"TCPAbortOnMemory did not rise in {read}, but {hidden} {ipv6}in the tables of none that was "
        f"read{late}: the kernel may have reset others there"
    )


def gap_of_clock(facts: Facts) -> list[Gap]:
    """Note how far a line's stamp was off this host's clock when the line came."""
    ahead = next((each.ahead_seconds for each in facts.lines.values() if each.ahead_seconds), 0)
    if not ahead:
        return []
    by, side = duration_text(abs(ahead)), "ahead of" if ahead > 0 else "behind"
    zone = "a log daemon that kept its time zone, or the repeated hour at the end of summer time"
    reason = zone if ahead % 1800 == 0 else "the clock that stamped it is wrong"
    why = f"the line's stamp is {by} {side} this host's clock ({reason}): the moment at which the line came counts"
    return [Gap(what="stamp of the line", why=why)]


def _gap_of_host(facts: Facts) -> list[Gap]:
    """Note that a line that was passed in names another host: the two may not belong together."""
    here, others = facts.snapshot.host, list[str]()
    for event in facts.lines.values():
        host = other_host(event.host, here)
        if host and not any(may_be_same(host, each) for each in others):
            others.append(host)
    named = ", ".join(sorted(others))
    why = f"the line is from {named}, the numbers are from {here}: they belong together only on one host"
    return [Gap(what="host of the line", why=why)] if others else []


def _stale_text(facts: Facts) -> str:
    age = facts.age_seconds
    used = (
        "the numbers are from another moment and carry little weight"
        if facts.snapshot.trigger == "command"
        else "not used"
    )
    if age is None or age == inf:
        return f"the line is from an earlier boot than the reading: {used}"
    when = "older than" if age > 0 else "later than"
    return f"the line is {duration_text(abs(age))} {when} the reading: {used}"
