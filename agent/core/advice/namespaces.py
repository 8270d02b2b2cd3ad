"""Commands that run where they show something: ss and nstat show one network namespace (network_namespaces(7)).

nsenter -t 4711 -n ss -tanoem state fin-wait-1          the holder's namespace, by a process in it
PROC_ROOT=/proc/4711 ss -tanoem state fin-wait-1        the same before there was nsenter, without socket memory
for pid in $(lsns -t net -n -o PID); do ...; done       all of them, where it is not known which

The tools are of the time of the kernel: util-linux has nsenter from 2013 on (2.23; Linux 3.10), lsns from 2015 (2.27;
Linux 4.3). Ubuntu 14.04 has neither, with 3.13 and newer ones. ss and nstat of every iproute2 read the files below
PROC_ROOT.
"""

from collections import Counter
from collections.abc import Callable

from agent.core.facts import Facts
from agent.core.kernel.release import Kernel
from agent.core.model import GaugeName

Run = Callable[[str], str]
_FIRST_WITH_NAMESPACES, _FIRST_WITH_NSENTER, _FIRST_WITH_LSNS = (3, 8), (3, 14), (4, 3)
_EL_WITH_NSENTER = 7  # 3.10
CHECK_GAUGE: dict[GaugeName, str] = {
    "orphans": "grep TCP: /proc/net/sockstat   # orphan falls",
    "tcp_memory": "grep TCP: /proc/net/sockstat   # mem falls",
}


def check_kills(run: Run) -> str:
    """Return the command that shows whether the kernel still kills orphans: it counts in the namespace of each."""
    return f"{run('nstat -az TcpExtTCPAbortOnMemory')}   # stops rising"


def run_in(pid: int | None, kernel: Kernel | None) -> Run:
    """Run ss or nstat in the network namespace of a process; None: the host's own."""
    if not pid:
        return str
    is_before = kernel is not None and kernel.version < _FIRST_WITH_NSENTER and kernel.el != _EL_WITH_NSENTER
    if kernel is not None and (is_before or kernel.has_old_tools):
        return lambda command: f"PROC_ROOT=/proc/{pid} {command}"
    return lambda command: f"nsenter -t {pid} -n {command}"


def run_where(facts: Facts, gauge: GaugeName) -> Run:
    """Run a command in the namespace that has half of a gauge by the table of sockets; without one, in all of them."""
    held = _held(facts, gauge)
    total = held.total() + (facts.unseen_orphans if gauge == "orphans" else 0)
    number = next((number for number, most in held.most_common(1) if 2 * most >= total > 0), None)
    if number is None and facts.lacks_limits:
        return str  # A container, from which no other namespace is entered.
    pids = {each.number: each.process.pid for each in facts.sockets.namespaces}
    if number is None or (number and number not in pids):
        return _run_everywhere(facts.kernel)
    return run_in(pids.get(number), facts.kernel)


def _run_everywhere(kernel: Kernel | None) -> Run:
    if kernel is None or (kernel.version >= _FIRST_WITH_LSNS and not kernel.has_old_tools):
        return lambda command: f"for pid in $(lsns -t net -n -o PID); do nsenter -t $pid -n {command}; done"
    if kernel.version < _FIRST_WITH_NAMESPACES:
        return str
    names = "ls -l /proc/[0-9]*/ns/net 2>/dev/null | awk '/-> net:/ && !seen[$NF]++ {print $(NF-2)}'"
    return lambda command: (
        f"for ns in $({names}); do nsenter --net=$ns {command} || PROC_ROOT=${{ns%/ns/net}} {command}; done"
    )


def obey_our_settings(facts: Facts) -> bool:
    """Return whether the settings that were read hold for most orphans: they may be in the host's own namespace."""
    held = _held(facts, "orphans")
    total = held.total() + facts.unseen_orphans
    return (facts.kernel is not None and facts.kernel.shares_settings) or 2 * held[0] >= total


def _held(facts: Facts, gauge: GaugeName) -> Counter[int]:
    """Return what each namespace has of a gauge by the table of sockets, by its number: 0 for the host's own."""
    held: Counter[int] = Counter()
    for group in facts.sockets.groups:
        held[group.namespace] += group.orphans if gauge == "orphans" else group.bytes
    return held
