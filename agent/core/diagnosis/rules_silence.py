"""Who starves without a word: the kernel logs a message only when it kills a closing socket.

Data that is refused for lack of memory moves TcpExt counters of /proc/net/netstat (tcp_try_rmem_schedule and
tcp_data_queue, net/ipv4/tcp_input.c), and nothing else. The same counters move where a control group is at its own
limit, and where programs read too slowly.
"""

from collections import Counter

from agent.core.diagnosis.evidence import ELSEWHERE, build_finding, by_numbers, delta_evidence, where_moved
from agent.core.diagnosis.rules_host import host_ram_short
from agent.core.facts import Facts
from agent.core.format import count_text
from agent.core.gauge import CALM
from agent.core.kernel.limits import is_just_below, limits_of
from agent.core.kernel.procfs import UDP_ERRORS
from agent.core.model import Cause, Evidence, Finding
from agent.core.readings import FullGroup
from agent.core.sockets.cgroup_names import text_of_group
from agent.core.sockets.holder_names import LOSES, name_of
from agent.core.sockets.shares import FULL_GROUP, ITS_MEMORY, SOCK_DIAG, losers

_LOSERS_AT_MOST = 3
_COUNTERS = ("TCPRcvQDrop", "TCPOFODrop", "PruneCalled")


# --- verdicts -------------------------------------------------------------------------------------------------------


def memory_short_between_readings(facts: Facts) -> Finding | None:
    """Claim that TCP memory ran short again and again, and was calm whenever it was read."""
    entries = facts.deltas.get("TCPMemoryPressures", 0)
    if facts.lines or facts.zone not in CALM or not entries or not facts.refused or host_ram_short(facts):
        return None
    proof = (delta_evidence(facts, "TCPMemoryPressures"), *_moved(facts))
    return build_finding(facts, "memory_short_between_readings", "tcp_memory", by_numbers(facts, likely=True), *proof)


def cgroup_starves_alone(facts: Facts) -> Finding | None:
    """Claim that one control group of version 2 is at its limit and starves alone: no message tells of that."""
    group = facts.starving_group
    if facts.has_happened or group is None:
        return None
    proof = (*evidence_of_group(group), *_moved(facts))
    return build_finding(facts, "cgroup_limit", "tcp_memory", by_numbers(facts, likely=True), *proof)


# --- remarks --------------------------------------------------------------------------------------------------------


def receivers_too_slow(facts: Facts) -> Finding | None:
    """Claim that receive buffers are pruned while both gauges are calm: slow programs, or a cgroup's limit."""
    moved = [name for name in ("PruneCalled", "RcvPruned", "TCPRcvQDrop") if facts.deltas.get(name, 0) > 0]
    if facts.lines or not moved or not facts.calm or facts.deltas.get("TCPMemoryPressures"):
        return None
    proof = tuple(delta_evidence(facts, name) for name in moved)
    return Finding(claim="receivers_too_slow", cause="none", confidence="likely", evidence=proof)


def data_dropped_without_message(facts: Facts) -> Finding | None:
    """Claim that data is dropped without a word."""
    proof = _moved(facts)
    if facts.lines or not proof or not facts.refused or not (facts.memory.is_high or facts.press):
        return None
    return Finding(claim="data_dropped_without_message", cause="tcp_memory", confidence="likely", evidence=proof)


def cgroup_presses_its_sockets(facts: Facts) -> Finding | None:
    """Remark that data is refused while TCP as a whole is far below its limits, and which group has most sockets."""
    limits, mem = facts.limits_bytes, facts.memory.value
    if facts.deltas.get("TCPRcvQDrop", 0) <= 0 or limits is None or mem is None or facts.press is not False:
        return None
    groups = {name: size for name, size in facts.snapshot.cgroup_sock_bytes.items() if name.strip("/") and size > 0}
    full = facts.snapshot.sockets.full_groups if facts.snapshot.sockets else ()
    if 2 * mem >= limits[1] or facts.starving_group or not (groups or full or facts.snapshot.kmem_tcp_failcnt):
        return None
    proof = [delta_evidence(facts, "TCPRcvQDrop"), *(evidence_of_group(full[0]) if full else ())]
    if groups:
        name, size = max(groups.items(), key=lambda group: (group[1], group[0]))
        proof += [
            Evidence(name="socket memory of the largest cgroup", value=size, unit="bytes", source="memory.stat"),
            Evidence(name="which is", value=name, source="memory.stat"),
        ]
    return Finding(claim="cgroup_presses_its_sockets", cause="none", confidence="possible", evidence=tuple(proof))


def _moved(facts: Facts) -> tuple[Evidence, ...]:
    names = [name for name in _COUNTERS if facts.deltas.get(name, 0) > 0]
    return tuple(proof for name in names for proof in (delta_evidence(facts, name), *where_moved(facts, name)))


def udp_shortage(facts: Facts) -> str:
    """Return that UDP is out of memory, with its numbers: udp_mem is a limit of its own, and silent as well; "" if not.

    UdpMemErrors counts what __udp_enqueue_schedule_skb (net/ipv4/udp.c) refuses above udp_mem[2].
    """
    refused, limits = facts.deltas.get(UDP_ERRORS, 0), limits_of(facts.snapshot.sysctls.get("net.ipv4.udp_mem"))
    used = facts.pages(facts.snapshot.sockstat.udp_mem) if facts.snapshot.sockstat else None
    shown = [f"{count_text(refused)} packets were refused for lack of memory (UdpMemErrors)"] if refused else []
    if used is not None and limits and limits[2] > 0 and is_just_below(used, limits[2]):
        shown.append(f"it holds {count_text(used)} of {count_text(limits[2])} pages (udp_mem)")
    elsewhere = bool(facts.lines) or facts.memory.is_high or facts.orphans.is_high or facts.press or facts.refused
    who = "UDP is losing data, too" if elsewhere else "UDP, not TCP, is losing data"
    return f"{who}: {', '.join(shown)}" if shown else ""


def evidence_of_group(group: FullGroup) -> tuple[Evidence, ...]:
    """Show a cgroup: its name, its memory against its limit, the share of sockets, how often it was hit, its stalls."""
    limit, stat, events, stalls = (f"memory.{name}" for name in ("current", "stat", "events", "pressure"))
    shown: tuple[tuple[str, int | float | str | None, int | None, str | None, str], ...] = (
        (FULL_GROUP, text_of_group(group), None, None, limit),
        (ITS_MEMORY, group.current_bytes, group.limit_bytes, "bytes", limit),
        ("of sockets", group.sock_bytes, None, "bytes", stat),
        ("limit hit", group.refused, None, "times", events),
        ("limit hit between two looks", group.refused_meanwhile, None, "times", events),
        ("stalled for memory, avg10", group.stalled_percent, None, "% of time", stalls),
    )
    return tuple(
        Evidence(name=name, value=value, limit=most, unit=unit, source=source)
        for name, value, most, unit, source in shown
        if value is not None
    )


def sockets_lose_data(facts: Facts) -> Finding | None:
    """Claim whose sockets lost data: by their drops between two dumps; where no dump reaches, by the counters there.

    Drops count duplicates, too, so they tell something only where data is refused.
    """
    if not facts.refused:
        return None
    proof = [*_dropped(facts), *_refused_elsewhere(facts)]
    if not proof:
        return None
    cause: Cause = "tcp_memory" if facts.memory.is_high or facts.press else "none"
    return Finding(claim="sockets_lose_data", cause=cause, confidence="likely", evidence=tuple(proof))


def _dropped(facts: Facts) -> list[Evidence]:
    table, proof = facts.sockets, []
    for each in losers(table, _LOSERS_AT_MOST) if table.drops_seconds else ():
        ports = " ".join(map(str, each.ports))
        proof += [
            Evidence(name=LOSES, value=name_of(each) or "", source=SOCK_DIAG),
            Evidence(name=f"in {table.drops_seconds:g} s", value=each.sockets, unit="segments", source=SOCK_DIAG),
            *([Evidence(name="on ports", value=ports, source=SOCK_DIAG)] if ports else []),
        ]
    return proof


def _refused_elsewhere(facts: Facts) -> list[Evidence]:
    moved = Counter(facts.moved("TCPRcvQDrop")) + Counter(facts.moved("TCPOFODrop"))
    return [
        evidence
        for place, refused in moved.most_common(_LOSERS_AT_MOST)
        for evidence in (
            Evidence(name=LOSES, value=place, source=ELSEWHERE),
            Evidence(name="refused there", value=refused, unit="segments", source=ELSEWHERE),
        )
    ]
