"""The TcpExt counters of the other network namespaces: the kernel counts a killed socket in its own (NET_INC_STATS).

/proc/PID/net/netstat of one process a namespace, which any user may read, and snmp once a minute: of UDP's losses
nothing warns. A counter begins and ends with its namespace; the sums told here do neither: what ended is kept, and what
began counts from zero.
"""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from agent.core.kernel import procfs
from agent.core.kernel.limits import COUNTERS, REFUSALS
from agent.core.model import Sample
from agent.core.readings import Elsewhere, Namespace
from agent.core.sockets.cgroup_names import with_pod_name
from agent.core.sockets.holders import network_text
from agent.probe.namespaces import count_sockets, hides_processes, identity
from agent.probe.owners import find_pods, process_ids, read_process
from agent.probe.reading import Reading

DEADLINE_SECONDS = 0.25
# All processes are asked anew for their namespace so often: one that was seen before may have moved.
FULL_LOOKS = 30
# UDP's counter is read anew so often; in between it is as it was.
DATAGRAM_LOOKS = 6
NAMED_AT_MOST = 8

Clock = Callable[[], float]


class _Known(NamedTuple):
    """A namespace: a process that lives in it, its name, and what it had counted when it was read last."""

    pid: int
    name: str
    counters: dict[str, int]


class Counters:
    """Keeps from one reading to the next what each namespace had counted; for one thread."""

    def __init__(self, proc_root: Path, history: Sequence[Sample] = ()) -> None:
        """Begin, or go on where the last sample of this boot ended."""
        boot_id = Reading(proc_root).parse("sys/kernel/random/boot_id", procfs.parse_word)
        self._proc_root = proc_root
        self._gone = Counter(next((each.gone for each in history[-1:] if each.boot_id == boot_id), {}))
        self._known: dict[int, _Known] = {}
        self._pids: frozenset[int] = frozenset()
        self._looks = 0
        self._is_whole = False

    def read(
        self, deadline_seconds: float = DEADLINE_SECONDS, clock: Clock = time.monotonic, *, sockets: bool = False
    ) -> Elsewhere:
        """Read every namespace that a process lives in, and how far each moved since the last reading.

        Counting their ``sockets`` takes as long again.
        """
        deadline, was_whole, is_first = clock() + deadline_seconds, self._is_whole, not self._looks
        spaces = self._find(deadline, clock)
        moved: dict[str, Counter[str]] = {}
        inuse = 0
        for space, pid in spaces.items():
            if clock() > deadline:
                self._is_whole = False
                break
            known = self._known.get(space)
            counters = self._counters(pid, known)
            if counters is None:
                continue
            inuse += (count_sockets(self._proc_root, pid) or 0) if sockets else 0
            name = known.name if known else self._name(pid)
            grown = self._grown(known, counters)
            if known or was_whole:
                moved.setdefault(name, Counter()).update({each: grown[each] for each in REFUSALS if grown.get(each)})
            elif not is_first:
                # It may be old, and was not reached before: only what comes from now on has moved.
                self._gone.subtract(counters)
            self._known[space] = _Known(pid, name, counters)
        if self._is_whole:
            for space in self._known.keys() - spaces.keys():
                self._gone.update(self._known.pop(space).counters)
        return self._told(moved, inuse)

    def _find(self, deadline: float, clock: Clock) -> dict[int, int]:
        """Find a process of each namespace: of those known the same as before, else one among the new processes."""
        spaces = {
            space: each.pid for space, each in self._known.items() if identity(self._proc_root, each.pid) == space
        }
        is_full = self._looks % FULL_LOOKS == 0 or len(spaces) < len(self._known) or not self._is_whole
        self._looks += 1
        pids = process_ids(self._proc_root)
        home = identity(self._proc_root, "self")
        self._is_whole = True
        for pid in pids:
            if pid in self._pids and not is_full:
                continue
            if clock() > deadline:
                self._is_whole = False
                break
            space = identity(self._proc_root, pid)
            if space not in (None, home):
                spaces.setdefault(space, pid)
        self._pids = frozenset(pids)
        return spaces

    def _name(self, pid: int) -> str:
        process = read_process(self._proc_root, pid)
        name = network_text(Namespace(process=process))
        return with_pod_name(name, find_pods(process.cgroup or "")) or name

    def _counters(self, pid: int, known: _Known | None) -> dict[str, int] | None:
        reading = Reading(self._proc_root / str(pid))
        found = reading.parse("net/netstat", partial(procfs.parse_netstat, only=COUNTERS))
        if found is None:
            return None
        if known and known.pid == pid and self._looks % DATAGRAM_LOOKS:
            found[procfs.UDP_ERRORS] = known.counters.get(procfs.UDP_ERRORS, 0)
        else:
            found |= reading.parse("net/snmp", procfs.parse_udp_errors) or {}
        return {name: found[name] for name in COUNTERS if found.get(name)}

    def _grown(self, known: _Known | None, counters: dict[str, int]) -> dict[str, int]:
        """Return how far the counters moved; where one fell, another namespace has got the number of one that ended."""
        before = known.counters if known else {}
        if any(counters.get(name, 0) < value for name, value in before.items()):
            self._gone.update(before)
            before = {}
        return {name: value - before.get(name, 0) for name, value in counters.items()}

    def _told(self, moved: dict[str, Counter[str]], inuse: int) -> Elsewhere:
        total = Counter(self._gone)
        for each in self._known.values():
            total.update(each.counters)
        largest = sorted(moved, key=lambda name: moved[name].total(), reverse=True)[:NAMED_AT_MOST]
        hidden = hides_processes(self._proc_root)
        return Elsewhere(
            namespaces=len(self._known),
            inuse=inuse,
            counters={name: value for name, value in total.items() if value},
            gone={name: value for name, value in self._gone.items() if value},
            moved={name: dict(moved[name]) for name in largest if moved[name]},
            is_whole=self._is_whole and not hidden,
        )
