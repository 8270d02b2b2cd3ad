"""The main holder of what is short, and what stops it there: the first step of the advice."""

import re
import shlex
from collections.abc import Mapping

from agent.core.advice.namespaces import CHECK_GAUGE, Run, check_kills, run_in, run_where
from agent.core.advice.options import socket_options
from agent.core.advice.orphans import life_text, orphan_states
from agent.core.advice.programs import find_program
from agent.core.facts import Facts
from agent.core.format import bytes_text, count_text, counted
from agent.core.model import Advice, Finding, GaugeName, Holder, WitnessedBy
from agent.core.sockets.holder_names import LargestHolder, largest_holder, main_victim, marked
from agent.core.sockets.shares import HELD_BY, largest, only

# Who holds most of what is short; a gauge without such a one is missing.
MainHolders = Mapping[GaugeName, LargestHolder]
_PORTS_SHOWN = 3
# What systemd takes as a unit's name; anything else in a group's name is no unit that systemctl could show.
_UNIT = re.compile(r"[A-Za-z0-9:_.@\\-]{1,250}\.(?:service|scope|socket)")
_SEEN = {
    "one_owner_leaks_connections": "Its peers have closed many connections that it still holds (CLOSE-WAIT): it forgot "
    "to close them, and only a restart frees them.",
    "one_owner_holds_very_many_connections": "It holds many nearly empty connections: their number fills the memory. "
    "Look for an unbounded pool, connections that are never closed, and idle ones kept too long.",
    "one_owner_does_not_read": "Most of the memory is received data that it does not read.",
    "accept_queue_not_drained": "It does not accept connections: they wait in its queue with the data they brought.",
    "peers_take_data_slowly": "Most of the memory is data that its peers do not read.",
    "orphans_wait_for_stalled_peers": "Most orphans wait for clients that have stopped reading (zero window), and hold "
    "their unread data.",
    "orphans_wait_for_vanished_peers": "Most orphans wait for an acknowledgement: their clients are gone, or a "
    "firewall drops the closing packets.",
    "orphans_come_of_short_connections": "The orphans are small and many: connections close faster than clients "
    "acknowledge. Let clients reuse connections (keep-alive).",
}
_CAME = {
    "orphans_rose_at_once": "They appeared at once, as when a program restarts or closes all its connections: close "
    "in small batches.",
    "memory_rose_slowly": "It grew slowly, like a leak: a higher limit only delays the next incident.",
}
# Closing a socket with unread data resets it (tcp_close): its memory is free at once.
_FREED_BY_CLOSING = frozenset({"one_owner_leaks_connections", "one_owner_does_not_read", "accept_queue_not_drained"})
_SUCCESS: dict[GaugeName, str] = {
    "orphans": "orphan falls in /proc/net/sockstat and TCPAbortOnMemory stops rising.",
    "tcp_memory": "mem falls in /proc/net/sockstat and TCPAbortOnMemory stops rising.",
}


def find_main_holders(facts: Facts, findings: tuple[Finding, ...]) -> MainHolders:
    """Find the main holder of each gauge that has one, with the sockets and the ports of what is short alone."""
    fills = any(finding.claim == "orphans_fill_memory" for finding in findings)
    # A few orphans may fill the memory: then their limit is not what ran out.
    few = fills and findings[0].cause != "orphans"
    limits: dict[GaugeName, int | None] = {
        "orphans": None if few else facts.orphans.limit,
        "tcp_memory": facts.memory.limit,
    }
    return {gauge: main for gauge, limit in limits.items() if (main := _main_holder(facts, gauge, limit))}


def _main_holder(facts: Facts, gauge: GaugeName, limit: int | None) -> LargestHolder | None:
    """Find the main holder of one gauge; a limit of 0 runs out no matter who holds what."""
    main = largest_holder(facts.holders[gauge][0], gauge, limit, facts.witness)
    if main is None or not main.is_main or (limit is not None and limit <= 0):
        return None
    pick = only("orphaned") if gauge == "orphans" else only("held", "queued", "orphaned")
    share = largest(facts.sockets, pick, by="sockets" if gauge == "orphans" else "bytes")
    return main._replace(holder=share.holder) if share and share.name == main.name else main


def fix_main_holder(facts: Facts, main: LargestHolder, findings: tuple[Finding, ...]) -> Advice:
    """Advise what stops it in this service, what that costs, and how to see that it worked."""
    run = run_in(main.holder.netns_pid, facts.kernel)
    # A name in which somebody hid the kernel's words is shown without them, and is no program that we know.
    orphans, program = main.gauge == "orphans", find_program(main.holder.unit, main.holder.process)
    seen = [claim for claim in _SEEN if any(_is_about(finding, claim, main) for finding in findings)]
    came = [_CAME[each.claim] for each in findings if each.claim in _CAME and each.cause == main.gauge]
    settings = _generic(facts) if program is None else program.orphans if orphans else program.memory
    guess = "The name is a guess from the port: no cgroup identifies the owner." if main.holder.guess else ""
    success = f"Success: {_SUCCESS[main.gauge]}"
    return Advice(
        action=f"Fix {marked(main.name, main.holder)}: it holds {_held_text(main)}.",
        why=" ".join(filter(None, (*(_SEEN[claim] for claim in seen), *came, guess, settings, success))),
        risk=(f"{program.price} " if program else "Requires changing and testing the program. ")
        + _restart_text(main, frozenset(seen), life_text(facts)),
        commands=(
            *_looks(facts, main, run),
            *(program.commands if program and not main.holder.container else ()),
            CHECK_GAUGE[main.gauge],
            check_kills(run),
        ),
    )


def fix_main_victim(facts: Facts) -> Advice | None:
    """Advise what stops it in the service whose connections were reset, where no dump names who holds most.

    Only closed sockets are killed, so the program with most kills had most orphans.
    """
    witness = facts.witness
    victim = main_victim(witness)
    if witness is None or victim is None:
        return None
    name, by = victim
    program = find_program(by.unit, by.process)
    killed = f"{count_text(by.kills)} of {count_text((witness.kills or 0) + (witness.unseen or 0))}"
    whose = f"connections that the kernel reset were its own{_ports_text(by.ports)}"
    return Advice(
        action=f"Fix {marked(name, by)}: {killed} {whose}.",
        why="The kernel's trace shows whose they were. It resets only what its program has closed: orphans. "
        f"{program.orphans if program else _generic(facts)} Success: {_SUCCESS['orphans']}",
        risk=program.price if program else "Requires changing and testing the program.",
        commands=(
            *_status(by),
            *(program.commands if program and not by.container else ()),
            CHECK_GAUGE["orphans"],
            check_kills(run_where(facts, "orphans")),
        ),
    )


def _generic(facts: Facts) -> str:
    return (
        f"Read and close promptly, {socket_options(facts)}, abort with SO_LINGER(1, 0) where the remaining data does "
        "not matter."
    )


def _restart_text(main: LargestHolder, seen: frozenset[str], kept: str) -> str:
    if main.gauge == "orphans":
        return f"A restart drops its open connections and frees no orphan: the memory stays in them {kept}."
    if seen & _FREED_BY_CLOSING and "peers_take_data_slowly" not in seen:
        return "A restart drops its open connections and frees their memory at once."
    if "peers_take_data_slowly" in seen:
        return f"A restart drops its open connections; the memory stays in orphans {kept}."
    return (
        "A restart drops its open connections. What it has not read is freed at once; what its peers have not read "
        f"stays in orphans {kept}."
    )


def _is_about(finding: Finding, claim: str, main: LargestHolder) -> bool:
    named = [each.value for each in finding.evidence if each.name == HELD_BY]
    return finding.claim == claim and named == [main.name] and (finding.cause == "orphans") == (main.gauge == "orphans")


def _held_text(main: LargestHolder) -> str:
    holder = main.holder
    if main.gauge == "orphans":
        return f"{count_text(holder.sockets)} of {count_text(main.total)} orphans{_ports_text(holder.ports)}"
    size = f"{bytes_text(holder.bytes)} of {bytes_text(main.total)} of TCP memory"
    return f"{size} in {counted(holder.sockets, 'socket')}{_ports_text(holder.ports)}"


def _ports_text(ports: tuple[int, ...]) -> str:
    shown = ", ".join(map(str, ports[:_PORTS_SHOWN]))
    more = " and others" if len(ports) > _PORTS_SHOWN else ""
    return f" on {'port' if len(ports) == 1 else 'ports'} {shown}{more}" if ports else ""


def _status(holder: Holder | WitnessedBy) -> list[str]:
    if holder.unit and holder.container is None and _UNIT.fullmatch(holder.unit):
        return [f"systemctl status --no-pager -- {shlex.quote(holder.unit)}"]
    return []


def _looks(facts: Facts, main: LargestHolder, run: Run) -> tuple[str, ...]:
    """Commands that show it: nothing of a foreign name gets into a shell that systemd would not take as a unit."""
    holder, commands = main.holder, _status(main.holder)
    if holder.ports:
        states = orphan_states(facts, holder.ports[0]) if main.gauge == "orphans" else []
        found = " ".join(["ss -tanoem", *(f"state {each}" for each in states), f"'( sport = :{holder.ports[0]} )'"])
        commands.append(f"{run(found)} | head -20")
    return tuple(commands)
