"""Everything that a rule may ask, worked out once from snapshot, events and history.

The kernel's texts, as in net/ipv4/tcp_timer.c and tcp.c. Up to 3.2 each of the first two stands for both causes; from
3.3 on the text names the test that failed:

    Out of socket memory                              <= 3.2, timer of an orphan: the penalty counts
    TCP: too many of orphaned sockets                 <= 3.2, close(): no penalty
    TCP: too many orphaned sockets                    >= 3.3
    TCP: out of memory -- consider tuning tcp_mem     >= 3.3
"""

from collections import Counter
from collections.abc import Callable
from functools import reduce
from math import inf, isfinite
from operator import itemgetter
from typing import Literal, NamedTuple

from agent.core.gauge import CALM, Gauge, Timed
from agent.core.hosts import other_host
from agent.core.kernel.limits import (
    KILLED,
    MOST_PERCENT,
    Defaults,
    Zone,
    counter_deltas,
    default_limits,
    low_memory,
    modest_limits,
    most_orphans,
    penalty_shift,
    refused_segments,
    sample_of,
    zone,
)
from agent.core.kernel.release import Kernel, inexact_pages, parse_kernel, units_per_page
from agent.core.model import Event, Finding, GaugeName, Holder, Kind, Sample, Snapshot, Witness
from agent.core.readings import Elsewhere, FullGroup, Gap, PressureStall, SocketTable, Sockstat
from agent.core.sockets.holders import BY, count_unseen_orphans, holders, is_many_unlisted
from agent.core.sockets.shares import Totals, totals
from agent.core.times import seconds_between

# Who holds most, with all that could not be named as the last, and what was not seen.
Held = tuple[tuple[Holder, ...], tuple[Gap, ...]]
Text = Literal["timer", "close", "orphans", "tcp_memory"]
# A reading belongs to an event when it is no further from it than this: readings decay within seconds.
NEAR_SECONDS = 60.0
# A reading that is no later than this is one at sight: stamps have whole seconds, and a storm is read once a second.
_LAG_SECONDS = 5.0
# /proc/uptime counts hundredths, and printk's clock strays from it: the reading at sight may look older than its line.
_STAMP_SECONDS = 0.1
# How old a baseline may be for a counter that moved since then to speak for this event.
_BASELINE_SECONDS = 600.0
# Two texts further apart than this are two bursts, each with a cause of its own.
BURST_SECONDS = 300.0
_BOOT_SLACK_SECONDS = 5.0
# From here on tasks wait for memory for longer than now and then, as /proc/pressure/memory calls it.
STALL_PERCENT = {"memory some": 10.0, "memory full": 5.0}
_RESERVE = "net.core.mem_pcpu_rsv"
BYPASS = "net.core.bypass_prot_mem"


class _Said(NamedTuple):
    """An event with the text that it was, and how many seconds before the snapshot; see ``_age_seconds``."""

    event: Event
    text: Text
    age: float | None


class _Log(NamedTuple):
    """What was logged: see Facts; ``ages`` are those of ``lines`` in seconds, by kind, the oldest first."""

    lines: dict[Text, Event]
    earlier: tuple[tuple[float, Event], ...]
    ages: list[tuple[Kind, float]]

    @property
    def age(self) -> float | None:
        """The age of the freshest, which decides: in a long incident the first of a kind may be hours old."""
        return min((each for _, each in self.ages), key=abs, default=None)

    @property
    def newest(self) -> list[float]:
        """The age of the newest of each kind; those of another boot are left out."""
        return list({kind: each for kind, each in self.ages if isfinite(each)}.values())

    @property
    def counted_from(self) -> float | None:
        """The age of the first that the counters cover: over hours with pauses they would show nothing."""
        ages = [each for _, each in self.ages if isfinite(each)]
        return min(ages[0], ages[-1] + _BASELINE_SECONDS) if ages else None


class Facts(NamedTuple):
    """All that is known, ready for the rules.

    ``reported_by`` is the other host that all lines are from: then nothing was measured, and ``snapshot`` has only its
    time and the host that it was read on. ``lines`` are the texts of the newest burst, ``earlier`` those of bursts
    before it, with the seconds from each to the newest line. ``deltas`` is how far the counters moved over the events,
    since the sample ``before`` them; of events that go on for longer those of the last ten minutes count. ``samples``
    are those of this boot, ``past`` are all that there are, for what outlasts a reboot. ``totals`` is what the table of
    sockets holds and what the host counts, ``holders`` who holds most of each gauge, ``defaults`` are the limits that
    this kernel gives itself on this host, ``witness`` what the kernel's trace showed.
    """

    snapshot: Snapshot
    reported_by: str | None
    kernel: Kernel | None
    lines: dict[Text, Event]
    now: Sample
    orphans: Gauge
    memory: Gauge
    press: bool | None
    deltas: dict[str, int]
    before: Timed | None
    last: Timed
    age_seconds: float | None
    samples: tuple[Timed, ...]
    past: tuple[Timed, ...]
    earlier: tuple[tuple[float, Event], ...]
    totals: Totals
    holders: dict[GaugeName, Held]
    units_per_page: int | None
    defaults: Defaults
    witness: Witness | None = None

    @property
    def sockets(self) -> SocketTable:
        """The table of sockets; an empty one where there is none."""
        return self.snapshot.sockets or SocketTable()

    @property
    def ram_bytes(self) -> int | None:
        """RAM of the host that sockets can lie in, None where it is not known."""
        return low_memory(self.snapshot.meminfo)

    @property
    def ram_name(self) -> str:
        """What that RAM is called: on 32 bit it is a part of all."""
        return "low memory" if self.snapshot.meminfo.get("HighTotal") else "RAM"

    @property
    def stalls(self) -> dict[str, float]:
        """How long tasks wait for memory, in percent of the time, where that is more than now and then (PSI)."""
        waits = {kind: self.snapshot.pressure.get(kind, PressureStall()).avg10 for kind in STALL_PERCENT}
        return {kind: each for kind, each in waits.items() if each is not None and each >= STALL_PERCENT[kind]}

    @property
    def usual_tcp_mem(self) -> tuple[int, int, int] | None:
        """The default of tcp_mem, or a newer kernel's where RAM is left to nobody else: up to 2.6.39 three quarters."""
        default, ram, page = self.defaults.tcp_mem, self.ram_bytes, self.page_bytes
        if default and ram and page and 100 * default[2] * page > MOST_PERCENT * ram:
            return modest_limits(ram, page)
        return default

    def pages(self, mem: int | None) -> int | None:
        """Return a count of sockstat's in pages; None where it is not known how many units are a page."""
        return None if mem is None or self.units_per_page is None else mem // self.units_per_page

    @property
    def shift(self) -> Literal[0, 1, 2] | None:
        """The penalty with which the orphans reach their limit."""
        return self.orphans.shift

    @property
    def zone(self) -> Zone | None:
        """Where memory stands among the three limits of tcp_mem."""
        return self.memory.zone

    @property
    def stale(self) -> bool:
        """Whether the numbers are of another time than the newest event."""
        return self.age_seconds is not None and abs(self.age_seconds) > NEAR_SECONDS

    @property
    def is_past(self) -> bool:
        """Whether nothing was measured near the line: it is of an earlier boot, or was read long after."""
        read = self.orphans.value is not None or self.memory.value is not None or bool(self.kills)
        return self.stale and not read and self.snapshot.trigger != "command"

    @property
    def lag_seconds(self) -> float | None:
        """How long after the newest line the first reading was, where that is longer than a stamp is exact."""
        age = self.age_seconds
        if age is None or not _LAG_SECONDS <= age <= NEAR_SECONDS:
            return None
        after = (second + age for second, _ in (*self.samples, (0.0, self.now)) if second + age >= 0)
        first = min(after, default=0.0)
        return first if first >= _LAG_SECONDS else None

    @property
    def page_bytes(self) -> int | None:
        """The page size, None where it is not known."""
        return _page_bytes(self.snapshot)

    @property
    def limits(self) -> tuple[int, int, int] | None:
        """The three limits of tcp_mem, in pages."""
        return self.now.tcp_mem

    @property
    def limits_bytes(self) -> tuple[int, int, int] | None:
        """The three limits of tcp_mem in bytes."""
        return _times(self.limits, self.page_bytes) if self.limits and self.page_bytes else None

    @property
    def is_bypassed(self) -> bool:
        """Whether sockets may take memory that ``mem`` does not show: 6.19 and newer, sk_bypass_prot_mem."""
        return bool(self.snapshot.sysctl(BYPASS))

    @property
    def inexact_pages(self) -> int:
        """How far the memory may be off, in pages."""
        return inexact_pages(self.kernel, self.snapshot.cpus, self.page_bytes, self.snapshot.sysctl(_RESERVE))

    @property
    def inexact_bytes(self) -> int:
        """How far the memory may be off."""
        return self.inexact_pages * (self.page_bytes or 0)

    @property
    def memory_full(self) -> bool:
        """Whether the third limit of tcp_mem was reached."""
        return self.zone in ("at_limit", "over")

    @property
    def refused(self) -> int:
        """How many received segments were refused for lack of memory, at least, as far as ``deltas`` look back."""
        return refused_segments(self.deltas)

    @property
    def starving_group(self) -> FullGroup | None:
        """The fullest cgroup whose sockets starve at its own limit, where TCP as a whole is calm."""
        if not self.calm or self.deltas.get("TCPMemoryPressures"):
            return None
        refuses = [each for each in self.sockets.full_groups if each.sock_bytes and each.hits and self.refused]
        return next(iter(refuses or [each for each in self.sockets.full_groups if each.is_of_sockets]), None)

    @property
    def calm(self) -> bool:
        """Whether both gauges were read, and neither is anywhere near a limit."""
        return self.limits_known and self.shift is None and self.zone in CALM and self.press is not True

    @property
    def gauge(self) -> Gauge:
        """The one that it is about: by the kernel's text, else by the numbers."""
        is_orphans = "orphans" in self.named_causes if self.named_causes else self.orphans.is_high
        return self.orphans if is_orphans else self.memory

    @property
    def high(self) -> tuple[Gauge, ...]:
        """The gauges that are high, the one of the named cause first."""
        both = (self.memory, self.orphans) if self.named_causes == {"tcp_memory"} else (self.orphans, self.memory)
        return tuple(gauge for gauge in both if gauge.is_high)

    @property
    def named_causes(self) -> frozenset[GaugeName]:
        """The causes that the kernel's own text names; empty for the texts up to 3.2 and without an event."""
        return frozenset(gauge.name for gauge in (self.orphans, self.memory) if gauge.name in self.lines)

    @property
    def is_alien(self) -> bool:
        """Whether a line has a text that this kernel does not print.

        The texts changed in 3.3; distributions may have put the new ones into 3.0 to 3.2, but not into 2.6.
        """
        if self.kernel is None:
            return False
        return bool(
            self.named_causes if self.kernel.version < (3, 0) else not self.kernel.ambiguous_text and self.is_old
        )

    @property
    def is_old(self) -> bool:
        """Whether a text is one of those up to 3.2."""
        return bool({"timer", "close"} & set(self.lines))

    @property
    def kills(self) -> int | None:
        """How many sockets were killed over the events, in every network namespace; None when that is not known.

        The trace sees those of all namespaces, but not every one of them; the counters see every one in sight.
        """
        killed, traced = self.killed_in_sight, self.witness.kills if self.witness else None
        if killed or traced:
            return max(killed or 0, traced or 0)
        return killed if self.sees_all_namespaces or self.is_denied else None

    @property
    def killed_silently(self) -> int:
        """How many sockets the trace or the counters show killed, where no line is known that reports any."""
        return 0 if self.lines else self.kills or 0

    @property
    def is_traced(self) -> bool:
        """Whether the kernel's trace shows kills, and not its counters alone."""
        return self.witness is not None and bool(self.witness.kills)

    @property
    def follows_log(self) -> bool:
        """Whether a line would be known if the kernel had logged one: who diagnoses by command has read no log."""
        return self.snapshot.trigger != "command"

    @property
    def has_happened(self) -> bool:
        """Whether the kernel ran out for certain or by a claim: a line says so, or its trace or counters show it."""
        return bool(self.lines or self.killed_silently)

    @property
    def is_denied(self) -> bool:
        """Whether a text log claims kills and the kernel reports none at all: neither its trace nor its counters do."""
        if not self.lines or self.stale or any(event.provenance == "kernel" for event in self.lines.values()):
            return False
        seen = self.witness
        return seen is not None and seen.kills == 0 and seen.lost == 0 and self.killed_in_sight == 0

    @property
    def unlisted(self) -> int | None:
        """How many of the host's sockets are in the tables of no namespace that was read; None when not known."""
        sockstat, elsewhere = self.snapshot.sockstat or Sockstat(), self.snapshot.elsewhere or Elsewhere()
        if sockstat.tcp.alloc is None or sockstat.tcp.inuse is None:
            return None
        return max(0, sockstat.tcp.alloc - sockstat.tcp.inuse - (sockstat.tcp6_inuse or 0) - elsewhere.inuse)

    @property
    def unseen_orphans(self) -> int:
        """How many orphans are in no namespace that a process in sight lives in, as after a container has ended."""
        return count_unseen_orphans(self.sockets, (self.sockets.sockstat or self.snapshot.sockstat or Sockstat()).tcp)

    @property
    def lacks_ipv6(self) -> bool:
        """Whether a copy of /proc has no net/sockstat6: what is unlisted may be IPv6 sockets of this namespace."""
        sockstat = self.snapshot.sockstat or Sockstat()
        return sockstat.tcp6_inuse is None and self.snapshot.elsewhere is None

    @property
    def sees_all_namespaces(self) -> bool:
        """Whether the counters are those of every network namespace: the sockets of all are in their tables."""
        elsewhere = self.snapshot.elsewhere
        is_whole = elsewhere is None or elsewhere.is_whole
        return is_whole and self.unlisted is not None and not is_many_unlisted(self.unlisted, self.now.alloc or 0)

    @property
    def killed_in_sight(self) -> int | None:
        """How many sockets were killed in the namespaces that were read; None when that is not known.

        The counter starts at zero with the namespace, so zero now means zero then, whatever the baseline.
        """
        if KILLED in self.deltas:
            return self.deltas[KILLED]
        never = self.age_seconds != inf and self.last[1].counters.get(KILLED) == 0
        return 0 if never else None

    def moved(self, counter: str) -> dict[str, int]:
        """Return which part of a counter's delta was in which other network namespace, the most first."""
        if self.before is None or counter not in self.deltas:
            return {}
        found = Counter[str]()
        # The snapshot's own reading may be among the samples, too.
        for second, sample in dict([*self.samples, (0.0, self.now)]).items():
            if self.before[0] < second <= self.last[0]:
                found.update({name: moved[counter] for name, moved in sample.moved.items() if counter in moved})
        return dict(found.most_common())

    @property
    def lacks_limits(self) -> bool:
        """Whether both limits are missing where other settings are there, as in a container's network namespace."""
        known = self.snapshot.sysctls
        return bool(known) and not {"net.ipv4.tcp_mem", "net.ipv4.tcp_max_orphans"} & known.keys()

    @property
    def limits_known(self) -> bool:
        """Return whether both gauges could be held against their limits."""
        return None not in (self.orphans.value, self.orphans.limit, self.zone)


# What a rule is: it claims something, or does not.
Rule = Callable[[Facts], Finding | None]


def host_elsewhere(snapshot: Snapshot, events: tuple[Event, ...]) -> str | None:
    """Return the other host that all these lines are from; None where one may be of this host.

    A person who diagnoses by command has put line and numbers together.
    """
    said = [] if snapshot.trigger == "command" else [event.host for event in events if event.kind != "suppressed"]
    return said[0] if said and all(other_host(host, snapshot.host) for host in said) else None


def unmeasured(snapshot: Snapshot) -> Snapshot:
    """Leave of a snapshot only when it was taken and where: it is no measurement of another host."""
    return Snapshot(taken_at=snapshot.taken_at, trigger=snapshot.trigger, host=snapshot.host)


def gather_facts(snapshot: Snapshot, events: tuple[Event, ...], history: tuple[Sample, ...]) -> Facts:
    """Work out what the rules need. Samples of another boot are left out; ``suppressed`` alone is no event."""
    reported_by = host_elsewhere(snapshot, events)
    if reported_by:
        snapshot, history = unmeasured(snapshot), ()
    kernel, now = parse_kernel(snapshot.kernel, has_reserve_file=_RESERVE in snapshot.sysctls), sample_of(snapshot)
    log = _read_log(events, kernel, snapshot)
    lines, age, newest = log.lines, log.age, log.newest
    past, timed = _timed(history, snapshot)
    near = _samples_near(timed, newest) if lines and (newest or age is None) else ()
    last = max((*near, (0.0, now)), key=itemgetter(0))
    before = _baseline(timed, log.counted_from) if newest or not lines else None
    # A person who diagnoses by command has put line and tree together; the service knows that they are apart.
    present = age is None or abs(age) <= NEAR_SECONDS or snapshot.trigger == "command"
    readings = (*near, (0.0, now)) if present else near
    deltas = _deltas(before, last, log.counted_from) if before else {}
    lead = _lead(timed, newest, near, before) if deltas.get(KILLED) else ()
    units = units_per_page(kernel, _page_bytes(snapshot))
    memory = _memory(now, readings, units, _page_bytes(snapshot))
    return Facts(
        snapshot=snapshot,
        reported_by=reported_by,
        kernel=kernel,
        lines=lines,
        now=now,
        orphans=_orphans(now, kernel, readings, (*lead, *readings) if lines.keys() == {"orphans"} else ()),
        memory=memory,
        press=snapshot.protocol.press if present and snapshot.protocol else None,
        deltas=deltas,
        before=before,
        last=last,
        age_seconds=age,
        samples=timed,
        past=past,
        earlier=log.earlier,
        totals=totals(snapshot.sockets or SocketTable(), snapshot.sockstat, memory.sample_unit),
        holders=_holders(snapshot, memory.sample_unit),
        units_per_page=units,
        defaults=default_limits(kernel, snapshot.meminfo, _page_bytes(snapshot)),
    )


def _holders(snapshot: Snapshot, unit: int | None) -> dict[GaugeName, Held]:
    """Name who holds most of each gauge; those of the dump's own moment are what its sums have to add up to."""
    table = snapshot.sockets or SocketTable()
    sockstat = table.sockstat or snapshot.sockstat
    return {gauge: holders(table, sockstat, by=by, mem_unit_bytes=unit) for gauge, by in BY.items()}


def _read_log(events: tuple[Event, ...], kernel: Kernel | None, snapshot: Snapshot) -> _Log:
    said = [each for each in events if each.kind != "suppressed"]
    newest, earlier = _newest_burst([_Said(e, _text_of(e, kernel), _age_seconds(e, snapshot)) for e in said])
    # Oldest first: of each kind the newest is kept.
    ages = sorted(((each.event.kind, each.age) for each in newest if each.age is not None), key=lambda pair: -pair[1])
    return _Log({each.text: each.event for each in reversed(newest)}, earlier, ages)


def _newest_burst(said: list[_Said]) -> tuple[list[_Said], tuple[tuple[float, Event], ...]]:
    """Part the events whose text was seen in the newest burst from the newest of each other text.

    Two lines of unknown distance belong together.
    """
    if not said:
        return [], ()
    newest = reduce(lambda one, other: other if _seconds_after(other, one) > 0 else one, said)
    ago = sorted(((_seconds_after(newest, each), each) for each in said), key=lambda pair: -pair[0])
    texts = {each.text for seconds, each in ago if seconds <= BURST_SECONDS}
    earlier = {each.text: (seconds, each.event) for seconds, each in ago if each.text not in texts}
    return [each for each in said if each.text in texts], tuple(earlier.values())


def _seconds_after(one: _Said, other: _Said) -> float:
    """Return how long after another event one was; 0 where that is not known."""
    ages = _age_in_burst(one), _age_in_burst(other)
    if ages[0] is not None and ages[1] is not None and isfinite(ages[0]):
        return ages[1] - ages[0]
    if one.event.at is not None and other.event.at is not None:
        return seconds_between(other.event.at, one.event.at)
    uptimes = one.event.uptime, other.event.uptime
    if uptimes[0] is not None and uptimes[1] is not None and isfinite(uptimes[0] - uptimes[1]):
        return uptimes[0] - uptimes[1]
    return 0.0


def _age_in_burst(said: _Said) -> float | None:
    """Return the age; a line without any stamp was passed in as evidence of what is read now."""
    return 0.0 if said.event.at is None and said.event.uptime is None else said.age


def _text_of(event: Event, kernel: Kernel | None) -> Text:
    """Return which text it was: by its words, else by its kind and the kernel."""
    if event.kind == "tcp_mem":
        return "tcp_memory"
    if event.kind == "out_of_socket_memory":
        return "timer"
    if "too many of orphaned" in event.line and "MPTCP: " not in event.line:
        return "close"
    by_kernel = "too many orphaned" not in event.line and kernel is not None and kernel.ambiguous_text
    return "close" if by_kernel else "orphans"


def _age_seconds(event: Event, snapshot: Snapshot) -> float | None:
    """How long before the snapshot the event was: inf for an earlier boot, None when that is not known.

    A tree without an uptime that is diagnosed by command is a copy, and the moment it was taken at is not known.
    """
    uptime = snapshot.uptime_seconds
    if snapshot.trigger == "command" and uptime is None:
        return None
    ages = []
    if event.uptime is not None and uptime is not None and isfinite(event.uptime) and isfinite(uptime):
        by_uptime = uptime - event.uptime
        ages.append(by_uptime if by_uptime >= -_BOOT_SLACK_SECONDS else inf)
    if event.at is not None:
        by_clock = seconds_between(event.at, snapshot.taken_at)
        ages.append(inf if uptime is not None and by_clock > uptime + _BOOT_SLACK_SECONDS else by_clock)
    # The kernel's stamp stands still over a suspend and a clock may be set: the one that fits is believed.
    return min(ages, key=abs) if ages else None


def _timed(history: tuple[Sample, ...], snapshot: Snapshot) -> tuple[tuple[Timed, ...], tuple[Timed, ...]]:
    """Return when the samples were taken, and those of this boot among them."""
    past = tuple((-seconds_between(sample.at, snapshot.taken_at), sample) for sample in history)
    return past, tuple(pair for pair in past if _same_boot(pair[1], snapshot))


def _same_boot(sample: Sample, snapshot: Snapshot) -> bool:
    return sample.boot_id is None or snapshot.boot_id is None or sample.boot_id == snapshot.boot_id


def _samples_near(samples: tuple[Timed, ...], ages: list[float]) -> tuple[Timed, ...]:
    """Find the readings around the newest event of each kind; the counters are compared from before the first one."""
    oldest, newest = max(ages, default=0.0), min(ages, default=0.0)
    return tuple(pair for pair in samples if newest - NEAR_SECONDS <= -pair[0] <= oldest + NEAR_SECONDS)


def _baseline(samples: tuple[Timed, ...], since: float | None) -> Timed | None:
    """Find the last sample before the first event; without an event the first one of the last ten minutes."""
    if since is None:
        return next((pair for pair in samples if 0 < -pair[0] <= _BASELINE_SECONDS), None)
    return max((pair for pair in samples if -pair[0] > since + _STAMP_SECONDS), key=itemgetter(0), default=None)


def _lead(
    samples: tuple[Timed, ...], newest: list[float], near: tuple[Timed, ...], before: Timed | None
) -> tuple[Timed, ...]:
    """Return the last sample before those that are near: the first of them shows what was killed since.

    Only where no other text was said were all that were killed orphans above the orphans' limit.
    """
    lead = _baseline(samples, max(newest) + NEAR_SECONDS) if newest else before
    return (lead,) if lead and lead not in near else ()


def _deltas(before: Timed, last: Timed, since: float | None) -> dict[str, int]:
    deltas = counter_deltas(before[1].counters, last[1].counters)
    if since is None or -before[0] - since <= _BASELINE_SECONDS:
        return deltas
    # What moved since an old baseline may have moved before the event; what stood still stood still.
    return {name: moved for name, moved in deltas.items() if moved == 0}


def _orphans(now: Sample, kernel: Kernel | None, readings: tuple[Timed, ...], rising: tuple[Timed, ...]) -> Gauge:
    """Hold the orphans against their limit; the readings in ``rising`` show how many were killed."""
    highest = max((each.orphan for _, each in readings if each.orphan is not None), default=None)
    limit, shift = now.tcp_max_orphans, None
    if highest is not None and limit is not None:
        exact = kernel is None or not kernel.counts_orphans_anew
        in_order = [each for _, each in sorted(rising, key=itemgetter(0))]
        shift = penalty_shift(highest, limit, most_orphans(in_order, limit), exact=exact)
    return Gauge("orphans", highest, now.orphan, limit, 1, shift=shift)


def _memory(now: Sample, readings: tuple[Timed, ...], units: int | None, page: int | None) -> Gauge:
    """Hold TCP's memory against the limits of tcp_mem, which needs no page size where the kernel counts in pages."""
    unit, limits = page // units if page and units else None, now.tcp_mem
    mem = max((each.mem for _, each in readings if each.mem is not None), default=None)
    where = zone(mem, _times(limits, units)) if mem is not None and limits and units else None
    used, highest = (each * unit if each is not None and unit else None for each in (now.mem, mem))
    limit = limits[2] * page if limits and page else None
    return Gauge(
        "tcp_memory", highest, used, limit, unit, zone=where, pages=mem // units if mem is not None and units else None
    )


def _page_bytes(snapshot: Snapshot) -> int | None:
    size = snapshot.page_size_bytes
    return size if size and size > 0 else None


def _times(limits: tuple[int, int, int], each: int) -> tuple[int, int, int]:
    return (limits[0] * each, limits[1] * each, limits[2] * each)
