"""The kernel's trace in the main loop: read in every turn, its actors asked for while they live, kept for an incident.

What is seen while no incident is open waits here: kills until one opens, which is moments later, and refusals for as
long as a warning looks back. Without the trace a turn costs next to nothing.
"""

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from agent.core.facts import NEAR_SECONDS
from agent.core.history.early_warning import INTERVAL_SECONDS, REFUSALS_LOOK_BACK, Refused
from agent.core.kernel.limits import KILLED, counter_deltas
from agent.core.kernel.tracing import Refusals, Seen
from agent.core.model import Incident, Sample, Snapshot, Witness
from agent.core.readings import Gap, Namespace, SocketTable
from agent.core.sockets.cgroup_names import Owner, name_cgroup, with_pod_name
from agent.core.sockets.holders import name_by_port, name_place
from agent.core.witness import Account, Place, Who
from agent.probe.namespaces import find_by_address
from agent.probe.owners import find_pods, read_actor
from agent.probe.witness import Reader

# Asking who somebody is takes three small files: of a crowd those with most are asked, the others go by their port.
ACTORS_AT_MOST = 64
ADDRESSES_AT_MOST = 1024
INTERVAL = timedelta(seconds=INTERVAL_SECONDS)
# Kills that were seen this long after a line are not the ones it reports.
NEAR = timedelta(seconds=NEAR_SECONDS)
# A line's stamp has whole seconds.
STAMP = timedelta(seconds=1)


class _Refusals(NamedTuple):
    """What one look saw refused, and the owners of the writers."""

    at: datetime
    rows: tuple[Refusals, ...]
    owners: Mapping[Who, Owner]


class Traced:
    """What the trace shows of one open incident, and how far TCPAbortOnMemory rose meanwhile.

    ``account`` None: nobody reads the trace, or nobody did yet; ``gaps`` are what it does not show. ``before`` is the
    last sample before the incident, ``counted`` the newest that the trace has been read beyond.
    """

    def __init__(
        self, account: Account | None = None, before: Sample | None = None, gaps: tuple[Gap, ...] = ()
    ) -> None:
        self.account, self.before, self.gaps = account, before, gaps
        self.counted: Sample | None = None

    def take(self, account: Account) -> None:
        """Take in what was seen lately."""
        # The trace was not read when the incident began: of what happened until now it shows nothing.
        self.account = self.account or Account(sees_kills=False)
        self.account.merge(account)

    def witness(self) -> Witness | None:
        """Return it as an incident stores it."""
        return self.account.witness(self._risen()) if self.account else None

    def _risen(self) -> int | None:
        before, after = self.before, self.counted
        if before is None or after is None or before.boot_id != after.boot_id:
            return None
        return counter_deltas(before.counters, after.counters).get(KILLED)


class Watch:
    """Reads the trace, and holds what is not in an incident yet."""

    def __init__(self, proc_root: Path, reader: Reader) -> None:
        self._proc_root = proc_root
        self._reader = reader
        self._on_since: datetime | None = None
        self._kills: Account | None = None
        # When the first of the kills that wait here was, and what the host looked like when they were read.
        self.since: datetime | None = None
        self.at_sight: Snapshot | None = None
        # The refusals that wait here, and those that a warning looks back to.
        self._refusals: list[_Refusals] = []
        self.refused: deque[Refused] = deque()
        # Whose an address is, as far as it was asked since the last dump.
        self._homes: dict[str, Namespace | None] = {}

    @property
    def is_on(self) -> bool:
        """Whether somebody reads the trace of this host, or a part of it: we do."""
        return self._reader.sees_kills or self._reader.sees_refusals

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """What the trace does not show, and why."""
        return self._reader.gaps()

    @property
    def has_news(self) -> bool:
        """Whether something waits here that an incident should have."""
        return self._kills is not None or bool(self._refusals)

    def look(self, now: datetime) -> Seen:
        """Read what happened since the last look. Never waits."""
        seen = self._reader.read()
        # A clock that was set back would leave it in the future.
        self._on_since = min(self._on_since or now, now) if self.is_on else None
        self._refusals = [each for each in self._refusals if timedelta(0) <= now - each.at <= INTERVAL]
        while self.refused and not timedelta(0) <= now - self.refused[0].at <= REFUSALS_LOOK_BACK:
            self.refused.popleft()
        owners = self._find_owners(seen, now) if seen.kills or seen.refusals else {}
        if seen.refusals:
            self._refusals.append(_Refusals(now, seen.refusals, owners))
            self.refused.append(_sum_up(now, seen.refusals))
        if seen.kills or seen.lost:
            self.since = min(now, self.since or seen.since or now)
            self._kills = self._kills or Account()
            self._kills.take(seen.kills, seen.lost, owners)
        return seen

    def open(self, at: datetime, samples: Sequence[Sample]) -> Traced:
        """Begin what is shown of an incident that happened ``at``: the kills that wait here, and the last refusals.

        Of what was before we read the trace it shows nothing, not even that there was none.
        """
        since = self.since if self.since and at >= self.since - NEAR else None
        before = next((each for each in reversed(samples) if each.at < min(at, since or at)), None)
        is_in_sight = self._on_since is not None and at >= self._on_since - STAMP
        return Traced(self.take() if since or is_in_sight else None, before, self.gaps)

    def resume(self, incident: Incident, samples: Sequence[Sample]) -> Traced:
        """Go on with what is shown of an incident that was open when the process before us ended."""
        account = Account(incident.witness) if incident.witness else None
        before = next((each for each in reversed(samples) if each.at < incident.opened_at), None)
        return Traced(account, before, self.gaps)

    def take(self) -> Account:
        """Take what waits here."""
        account = self._kills or Account(sees_kills=self._reader.sees_kills)
        for each in self._refusals:
            account.refuse(each.rows, each.owners)
        self._kills, self._refusals, self.since = None, [], None
        return account

    def forget_homes(self) -> None:
        """Ask anew whose an address is: there is a new dump."""
        self._homes.clear()

    def name(self, account: Account, table: SocketTable) -> None:
        """Name by the sockets of a dump what has no name yet."""
        unknown = {each.address for each in account.places if each.address} - self._homes.keys()
        if unknown and len(self._homes) < ADDRESSES_AT_MOST:
            found = find_by_address(self._proc_root, table.namespaces, unknown)
            self._homes.update({each: found.get(each) for each in unknown})

        def find(place: Place) -> tuple[Owner, bool]:
            home = self._homes.get(place.address or "")
            if home is None:
                # A unit that has ended since has no name in the dump.
                acted = account.owner_of(place.port)
                found = acted if acted.unit or acted.container else name_by_port(table, place.port, place.peer_port)
                return (acted if found == Owner() and acted.process != place.program else found), True
            resident = name_place(home, table.pods)
            owner = name_by_port(table, place.port, place.peer_port, home.number) if home.number else Owner()
            return (resident, False) if owner in (Owner(), resident) else (owner, True)

        account.find_names(find)

    # --- parts ------------------------------------------------------------------------------------------------------

    def _find_owners(self, seen: Seen, now: datetime) -> dict[Who, Owner]:
        """Ask who acted, while they live: by the thread, the unit or container, else its name."""
        acted = Counter[Who]()
        for kills in seen.kills:
            acted[kills.name, kills.pid] += kills.count
        for refusals in seen.refusals:
            acted[refusals.name, refusals.pid] += refusals.count
        ago = (now - seen.since).total_seconds() if seen.since else 0.0
        owners: dict[Who, Owner] = {}
        for (name, pid), _ in acted.most_common(ACTORS_AT_MOST):
            process = read_actor(self._proc_root, pid, name, ago) if name is not None and pid is not None else None
            if process is None:
                continue
            owner = name_cgroup(process.cgroup or "/")
            pod = with_pod_name(owner.container, find_pods(process.cgroup or ""))
            owners[name, pid] = owner._replace(container=pod) if owner != Owner() else Owner(process=process.name)
        return owners


def _sum_up(at: datetime, rows: tuple[Refusals, ...]) -> Refused:
    """Make one of a look's refusals: the mean of what was allocated, weighted by their number."""
    measured = [(each.count, each.allocated) for each in rows if each.allocated is not None]
    counted = sum(count for count, _ in measured)
    mean = sum(count * pages for count, pages in measured) // counted if counted else None
    limits = next((each.limits for each in rows if each.limits), None)
    return Refused(at, sum(each.count for each in rows), mean, limits)
