"""What the host around TCP shows: limits against RAM, the host's memory, MPTCP, OpenVZ.

Default limits are those of tcp_init() (net/ipv4/tcp.c) by era. PSI is Documentation/accounting/psi.rst. OpenVZ kernels
add the container to the line:

    TCP: too many of orphaned sockets (512 in CT1023)
"""

import re

from agent.core.diagnosis.evidence import delta_evidence
from agent.core.facts import STALL_PERCENT, Facts
from agent.core.gauge import CALM
from agent.core.kernel.limits import is_much, reserve_bytes
from agent.core.model import Cause, Evidence, Finding

_OPENVZ = re.compile(r"\(\d+ in CT ?\d+\)")
_MPTCP_ROW = re.compile(r"^MPTCP(?:v6)?\s+\d+\s+(\d+)\s", re.MULTILINE)


def host_stalls_for_memory(facts: Facts) -> Finding | None:
    """Claim that tasks of this host wait for memory: TCP shares a shortage that is not its own."""
    stalls = tuple(
        Evidence(
            name=f"{kind}, avg10",
            value=percent,
            limit=STALL_PERCENT[kind],
            unit="% of time",
            source="pressure/memory",
        )
        for kind, percent in facts.stalls.items()
    )
    return (
        Finding(claim="host_stalls_for_memory", cause="none", confidence="likely", evidence=stalls) if stalls else None
    )


def mptcp_takes_part(facts: Facts) -> Finding | None:
    """Remark that MPTCP sockets are open: their memory is in the same account, and sock_diag does not show it whole."""
    full = facts.lines or facts.memory.is_high
    rows = _MPTCP_ROW.findall(facts.snapshot.raw.get("net/protocols", ""))
    sockets = sum(int(row) for row in rows if len(row) < len(str(2**63)))
    if not full or sockets == 0:
        return None
    proof = Evidence(name="MPTCP sockets", value=sockets, unit="sockets", source="net/protocols")
    return Finding(claim="mptcp_takes_part", cause="none", confidence="possible", evidence=(proof,))


def openvz_container_limit(facts: Facts) -> Finding | None:
    """Claim that an OpenVZ container hit a limit of its own: its kernel names the container in the line."""
    events = [event for event in facts.lines.values() if _OPENVZ.search(event.line)]
    proof = tuple(Evidence(name="line", value=event.line, source=event.source) for event in events)
    if not proof:
        return None
    cause: Cause = "tcp_memory" if events[0].kind == "tcp_mem" else "orphans"
    return Finding(claim="openvz_container_limit", cause=cause, confidence="possible", evidence=proof)


def host_ram_short(facts: Facts) -> Finding | None:
    """TCP's pressure flag is up although TCP is below its limits: an allocation failed, the host lacks RAM."""
    meminfo = facts.snapshot.meminfo
    pressed = facts.press is True or facts.deltas.get("TCPMemoryPressures", 0) > 0
    if not pressed or facts.zone not in CALM or "tcp_memory" in facts.lines:
        return None
    total, available = meminfo.get("MemTotal"), meminfo.get("MemAvailable")
    low = total is not None and available is not None and available < reserve_bytes(total)
    # A reset without a route fails as well (tcp_send_active_reset).
    plenty = total is not None and available is not None and is_much(available, total)
    failed = facts.deltas.get("TCPAbortFailed", 0) > 0 and not plenty
    if not low and not failed:
        return None
    proof = []
    if available is not None:
        proof.append(
            Evidence(name="MemAvailable", value=available, limit=total, unit="bytes", source="meminfo"),
        )
    if failed:
        proof.append(delta_evidence(facts, "TCPAbortFailed"))
    return Finding(claim="host_ram_short", cause="none", confidence="likely", evidence=tuple(proof))
