"""Who holds the sockets: the groups of a dump under the names of units and containers, with an explicit remainder.

A cgroup names its sockets for certain, orphans too (INET_DIAG_CGROUP_ID, 5.8 and newer). Where it does not, sockets
go to the process that has one of them open, those of another network namespace to the cgroup that lives in it, and
orphans and unaccepted connections to the listener on their port: a guess, and marked as one.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Generic, Literal, NamedTuple, TypeVar

from agent.core.format import count_text, counted, printable
from agent.core.model import GaugeName, Holder
from agent.core.readings import (
    ROOT_CGROUP,
    Gap,
    Listener,
    Namespace,
    Process,
    SocketGroup,
    SocketTable,
    Sockstat,
    Tally,
    TcpSockstat,
    has_cgroup,
)
from agent.core.sockets.cgroup_names import NAME_AT_MOST, Owner, name_cgroup, pod_of, with_pod_name

T = TypeVar("T")
Order = Literal["orphans", "bytes", "sockets"]
# What holders are ranked by where a gauge is short.
BY: dict[GaugeName, Order] = {"orphans": "orphans", "tcp_memory": "bytes"}

PORTS_AT_MOST, PEERS_AT_MOST, NAMES_AT_MOST = 8, 5, 3
# What a dump may miss by being late, before its sums are called incomplete.
SLACK_ORPHANS = 64
_UNLISTED_SHARE = 50
_UNLISTED_LEAST = 10
# A service that is stopped leaves its clients some hundred in passing.
_UNLISTED_MOST = 500


class _Guess(NamedTuple):
    """Orphans that were given to a name by their port alone."""

    name: Owner
    port: int | None


class _Groups(NamedTuple):
    """The paths of cgroups; where none is that of a container, containers may be in groups of version 1 alone."""

    paths: dict[int, str]
    has_containers: bool


_NOBODY, _INIT = Owner(), 1
_SYSTEMD = re.compile(r"(?:init\.scope|.+\.socket)(?: \(user [0-9]+\))?")


class _Split(Generic[T]):
    """What of a holder's is on each port, say, while it is being added up."""

    def __init__(self) -> None:
        self._parts: dict[Order, Counter[T]] = {"orphans": Counter(), "bytes": Counter(), "sockets": Counter()}

    def add(self, part: T, sockets: int, orphans: int, size: int) -> None:
        self._parts["sockets"][part] += sockets
        self._parts["orphans"][part] += orphans
        self._parts["bytes"][part] += size

    def most(self, by: Order, most: int) -> tuple[T, ...]:
        """Return the parts that have most of what is short, then most sockets."""
        short, sockets = self._parts[by], self._parts["sockets"]
        return tuple(sorted(sockets, key=lambda part: (short[part], sockets[part]), reverse=True)[:most])


class _Share:
    """What one holder has, while it is being added up."""

    def __init__(self) -> None:
        self.sockets = self.orphans = self.bytes = 0
        self.guessed: dict[Order, int] = {"orphans": 0, "bytes": 0, "sockets": 0}
        self.guessed_ports, self.ports, self.namespaces = _Split[int](), _Split[int](), _Split[int]()
        self.peers = _Split[str]()
        self.processes: Counter[str] = Counter()

    def add(self, sockets: int, orphans: int, size: int) -> None:
        self.sockets += sockets
        self.orphans += orphans
        self.bytes += size

    def add_guess(self, group: SocketGroup, tallies: Iterable[Tally], *, orphaned: bool) -> None:
        """Note that these sockets, which are added as well, were given to this holder by their port alone."""
        for tally in tallies:
            self.guessed["sockets"] += tally.sockets
            self.guessed["orphans"] += tally.sockets * orphaned
            self.guessed["bytes"] += tally.bytes
            if group.port is not None:
                self.guessed_ports.add(group.port, tally.sockets, tally.sockets * orphaned, tally.bytes)

    def is_guess(self, by: Order) -> bool:
        """Return whether at least half of what puts it into the list was given by port: a few are no news."""
        sums: dict[Order, int] = {by: getattr(self, by), "sockets": self.sockets}
        ranked = next((each for each, total in sums.items() if total), by)
        return self.guessed[ranked] > 0 and 2 * self.guessed[ranked] >= sums[ranked]


def holders(
    table: SocketTable,
    sockstat: Sockstat | None,
    limit: int = 10,
    *,
    by: Order = "bytes",
    mem_unit_bytes: int | None = None,
) -> tuple[tuple[Holder, ...], tuple[Gap, ...]]:
    """Name at most ``limit`` holders, most first, then one for all others that have a name, then the remainder.

    ``by`` says what is short. ``sockstat`` (else the one read with the table) is the total that the remainder makes
    up to; ``mem_unit_bytes`` is what its ``mem`` counts in (None: bytes have no total). Without any socket table
    the answer is empty, and its gaps say why.
    """
    if not table.groups and not table.complete:
        return (), table.gaps
    tcp = (sockstat or table.sockstat or Sockstat()).tcp
    shares, guesses = _shares(table)
    _add_unlisted(shares, table, tcp, mem_unit_bytes)
    nobody = shares.pop(_NOBODY, _Share())
    ranked = sorted(shares.items(), key=lambda item: _rank(item[1], by), reverse=True)
    pids = {each.number: each.process.pid for each in table.namespaces}
    named = [_holder(_with_pod(name, table.pods), share, by, pids) for name, share in ranked[:limit]]
    if len(ranked) > limit:
        rest = _Share()
        for _, share in ranked[limit:]:
            rest.add(share.sockets, share.orphans, share.bytes)
        named.append(_holder(Owner(unit=f"{count_text(len(ranked) - limit)} others"), rest, by, {}))
    remainder, gaps = _remainder(tcp, named, nobody, by, mem_unit_bytes)
    return (*named, remainder), (*table.gaps, *_gaps_of_sight(table, tcp), *_gaps_of_guesses(guesses), *gaps)


def _with_pod(name: Owner, pods: Mapping[str, str]) -> Owner:
    return name._replace(container=with_pod_name(name.container, pods))


def _shares(table: SocketTable) -> tuple[dict[Owner, _Share], Counter[_Guess]]:
    """Add up the groups by name, and count the orphans that were given away by guess."""
    listeners: dict[tuple[int, int | None], Listener] = {}
    for listener in table.listeners:
        listeners.setdefault((listener.namespace, listener.port), listener)
    shares: defaultdict[Owner, _Share] = defaultdict(_Share)
    guesses: Counter[_Guess] = Counter()
    cgroups = _groups(table)
    places = {each.number: _name_of_sockets(each) for each in table.namespaces}
    for group in table.groups:
        listener_here, place = listeners.get((group.namespace, group.port)), places.get(group.namespace, _NOBODY)
        kept, left = _names(group, listener_here, place, cgroups)
        _add(shares[kept], group.held.values(), group, orphaned=False)
        _add(shares[left], group.queued.values(), group, orphaned=False)
        _add(shares[left], group.orphaned.values(), group, orphaned=True)
        _add_peers(shares[kept if group.held else left], group)
        if has_cgroup(group.cgroup) or left in (_NOBODY, place):
            continue
        shares[left].add_guess(group, group.orphaned.values(), orphaned=True)
        if group.process is None:
            shares[kept].add_guess(group, group.held.values(), orphaned=False)
        if group.orphans:
            guesses[_Guess(left, group.port)] += group.orphans
    for listener in table.listeners:
        share = shares[_name_of_listener(listener, places.get(listener.namespace, _NOBODY), cgroups)]
        share.add(listener.sockets, 0, 0)
        share.namespaces.add(listener.namespace, listener.sockets, 0, 0)
        share.ports.add(listener.port, listener.sockets, 0, 0)
    return {name: share for name, share in shares.items() if share.sockets}, guesses


def name_by_port(table: SocketTable, port: int | None, to_port: int | None, namespace: int | None = None) -> Owner:
    """Name who has most sockets of a service's own port, else of the port it connects to; nobody where none has.

    A guess, unless only one name serves that port. ``namespace``: the number of the only one to look at.
    """
    listeners: dict[tuple[int, int | None], Listener] = {}
    for listener in table.listeners:
        listeners.setdefault((listener.namespace, listener.port), listener)
    places = {each.number: _name_of_sockets(each) for each in table.namespaces}
    served, called, cgroups = Counter[Owner](), Counter[Owner](), _groups(table)
    for group in table.groups if port or to_port else ():
        if namespace not in (None, group.namespace):
            continue
        place = places.get(group.namespace, _NOBODY)
        kept, left = _names(group, listeners.get((group.namespace, group.port)), place, cgroups)
        if port and group.port == port:
            served[left] += group.sockets
        elif to_port and group.to_port == to_port:
            called[kept] += group.sockets
    for listener in table.listeners:
        if listener.port == port and namespace in (None, listener.namespace):
            name = _name_of_listener(listener, places.get(listener.namespace, _NOBODY), cgroups)
            served[name] += listener.sockets
    named = [each for each in (*_most(served, len(served)), *_most(called, len(called))) if each != _NOBODY]
    return _with_pod(named[0], table.pods) if named else _NOBODY


def name_place(namespace: Namespace, pods: Mapping[str, str]) -> Owner:
    """Name who lives in a network namespace: where several containers of a pod do, the pod."""
    return _with_pod(_name_of_place(namespace), pods)


def _add_unlisted(
    shares: dict[Owner, _Share], table: SocketTable, tcp: TcpSockstat, mem_unit_bytes: int | None
) -> None:
    """Give the sockets in no table to who has them open, with their part of the memory that no socket in sight has."""
    missing = count_unlisted(table, tcp)
    if not missing:
        return
    left = max(0, (tcp.mem or 0) * (mem_unit_bytes or 0) - sum(group.bytes for group in table.groups))
    for each in table.unlisted:
        share = shares.setdefault(_name_of_process(each.process), _Share())
        sockets = min(each.sockets, missing)
        share.add(sockets, 0, left * sockets // missing)
        share.processes[_process_text(each.process)] += sockets


def _groups(table: SocketTable) -> _Groups:
    return _Groups(table.paths, any(name_cgroup(path).container for path in table.paths.values()))


def _names(group: SocketGroup, listener: Listener | None, place: Owner, cgroups: _Groups) -> tuple[Owner, Owner]:
    """Name who has the open sockets of a group, and who gets those that nobody has open."""
    kept = _name_of_process(group.process)
    if group.cgroup is not None and has_cgroup(group.cgroup):
        listening = listener.process if listener and listener.cgroup == group.cgroup else None
        name = _name_of_cgroup(group.cgroup, cgroups, _name_of_process(listening), kept, place)
        return name, name
    if group.folded:
        return place, place
    if listener is None:
        # Their process had others like them open: without a listener it is the only trace.
        return _first(kept, place), _first(kept, place)
    # Unaccepted connections belong to no cgroup, whatever the kernel (inet_csk_accept): the listener's queue has them.
    left = _name_of_listener(listener, _NOBODY, cgroups)
    left = kept if _is_made_for(left, kept) else left
    return _first(_first(kept, left), place), _first(_first(left, kept), place)


def _is_made_for(name: Owner, other: Owner) -> bool:
    """Return whether sockets of the first are in use by the ``other``: systemd opens listeners for its services."""
    is_of_systemd = name.container in (None, other.container) and _SYSTEMD.fullmatch(name.unit or "")
    return bool(is_of_systemd and (other.unit or other.container) and not _SYSTEMD.fullmatch(other.unit or ""))


def _first(name: Owner, other: Owner) -> Owner:
    return other if name == _NOBODY else name


def _name_of_listener(listener: Listener, place: Owner, cgroups: _Groups) -> Owner:
    process = _name_of_process(listener.process)
    if listener.cgroup is not None and has_cgroup(listener.cgroup):
        return _name_of_cgroup(listener.cgroup, cgroups, process, place)
    return _first(process, place)


def _name_of_cgroup(cgroup: int, cgroups: _Groups, *users: Owner) -> Owner:
    """Name a cgroup, or the first of those who use its sockets where it is only that of who made them.

    With both versions of cgroups a container may be in a group of version 1 alone, and its sockets, which know version
    2, are its engine's.
    """
    path = cgroups.paths.get(cgroup)
    if not path:
        # The root stands for a walk through all groups that came to its end.
        return Owner(unit=f"cgroup {cgroup}" + (" (removed)" if ROOT_CGROUP in cgroups.paths else ""))
    name = name_cgroup(path)
    for user in users:
        is_in_version_1 = user.container and not name.container and not cgroups.has_containers
        name = user if is_in_version_1 or _is_made_for(name, user) else name
    return name


def _name_of_process(process: Process | None) -> Owner:
    if process is None:
        return _NOBODY
    owner = name_cgroup(process.cgroup or "/")
    return Owner(process=_process_text(process)) if owner == Owner() else owner


def _process_text(process: Process) -> str:
    return f"{printable(process.name, NAME_AT_MOST)} (pid {process.pid})"


def _add(share: _Share, tallies: Iterable[Tally], group: SocketGroup, *, orphaned: bool) -> None:
    for tally in tallies:
        amounts = tally.sockets, tally.sockets * orphaned, tally.bytes
        share.add(*amounts)
        share.namespaces.add(group.namespace, *amounts)
        if group.port is not None:
            share.ports.add(group.port, *amounts)


def _add_peers(share: _Share, group: SocketGroup) -> None:
    beyond = "" if group.to_port is None else f" port {group.to_port}"
    for peer in group.peers:
        if peer.network is not None:
            share.peers.add(peer.network + beyond, peer.sockets, peer.orphans, peer.bytes)
    if group.process is not None:
        share.processes[_process_text(group.process)] += group.sockets


def _rank(share: _Share, by: Order) -> tuple[int, int, int]:
    first = {"orphans": share.orphans, "bytes": share.bytes, "sockets": share.sockets}[by]
    return first, share.orphans if by != "orphans" else share.bytes, share.sockets


def _holder(name: Owner, share: _Share, by: Order, pids: dict[int | None, int]) -> Holder:
    guess = share.is_guess(by)
    # The port that the guess rests on comes first: it is shown with the guess.
    first = share.guessed_ports.most(by, 1) if guess else ()
    ports = dict.fromkeys([*first, *share.ports.most(by, PORTS_AT_MOST)])
    return Holder(
        unit=name.unit,
        container=name.container,
        process=name.process or ", ".join(_most(share.processes, NAMES_AT_MOST)) or None,
        sockets=share.sockets,
        orphans=share.orphans,
        bytes=share.bytes,
        ports=tuple(ports)[:PORTS_AT_MOST],
        peers=share.peers.most(by, PEERS_AT_MOST),
        guess=guess,
        netns_pid=next((pids.get(number) for number in share.namespaces.most(by, 1)), None),
    )


def _most(counts: Counter[T], most: int) -> tuple[T, ...]:
    return tuple(each for each, _ in counts.most_common(most))


def _remainder(
    tcp: TcpSockstat, named: Sequence[Holder], nobody: _Share, by: Order, mem_unit_bytes: int | None
) -> tuple[Holder, list[Gap]]:
    """Make the totals up to what the host counts; say where the dump counted more, which no remainder can fix."""
    gaps = []

    def left(what: str, total: int | None, of_named: int, unnamed: int) -> int:
        if total is None:
            return unnamed
        if of_named + unnamed > total and what != "bytes":
            more = count_text(of_named + unnamed - total)
            gaps.append(
                Gap(what=f"total of {what}", why=f"the dump, at another moment, found {more} more than sockstat")
            )
        return max(total - of_named, unnamed)

    size = None if tcp.mem is None or mem_unit_bytes is None else tcp.mem * mem_unit_bytes
    remainder = Holder(
        sockets=left("sockets", tcp.alloc, sum(each.sockets for each in named), nobody.sockets),
        orphans=left("orphans", tcp.orphan, sum(each.orphans for each in named), nobody.orphans),
        bytes=left("bytes", size, sum(each.bytes for each in named), nobody.bytes),
        ports=nobody.ports.most(by, PORTS_AT_MOST),
        peers=nobody.peers.most(by, PEERS_AT_MOST),
    )
    return remainder, gaps


def _gaps_of_sight(table: SocketTable, tcp: TcpSockstat) -> list[Gap]:
    """Return how many sockets of the host the dump did not see, and where they are if that is known."""
    gaps = []
    if known := [each for each in table.namespaces if each.queues_only]:
        sockets = sum(each.inuse or 0 for each in known)
        why = (
            f"only the data queued in {counted(sockets, 'socket')} of {_places_text(known, table.pods)} can be read "
            "without privilege: they hold more; sockmem-agent doctor tells how to see it"
        )
        gaps.append(Gap(what="memory of other network namespaces", why=why))
        gaps += _gaps_of_neighbours(known, table.pods)
    if tcp.alloc is None or not table.complete:
        return gaps
    elsewhere = [each for each in table.namespaces if each.number is None]
    total = count_text(tcp.alloc)
    if hidden := sum(each.inuse or 0 for each in elsewhere):
        number = counted(hidden, f"socket of {total} is", f"sockets of {total} are")
        why = f"{number} in {_places_text(elsewhere, table.pods)}, and could not be counted in time"
        gaps.append(Gap(what="sockets of other network namespaces", why=why))
    if unseen := count_unseen_orphans(table, tcp):
        number = counted(
            unseen, f"orphan of {count_text(tcp.orphan or 0)} is", f"orphans of {count_text(tcp.orphan or 0)} are"
        )
        why = f"{number} in network namespaces with no visible process, as of a container that has ended"
        gaps.append(Gap(what="orphans of other network namespaces", why=why))
    unlisted = count_unlisted(table, tcp) or 0
    if is_many_unlisted(unlisted, tcp.alloc):
        why = (
            f"{counted(unlisted, f'socket of {total} is', f'sockets of {total} are')} in no table: reset or closed by "
            "the peer, but still open in a program (ss and netstat do not list them), never connected, or in a network "
            "namespace without a visible process"
        )
        gaps.append(Gap(what="sockets in no table", why=why))
    return gaps


def count_unlisted(table: SocketTable, tcp: TcpSockstat) -> int | None:
    """Count the host's sockets that are in no table; None when not known.

    An orphan is in one: that of a namespace that no process in sight lives in.
    """
    if tcp.alloc is None or not table.complete:
        return None
    hidden = sum(each.inuse or 0 for each in table.namespaces if each.number is None)
    seen = table.listening + sum(group.sockets for group in table.groups)
    return max(0, tcp.alloc - hidden - seen - count_unseen_orphans(table, tcp))


def count_unseen_orphans(table: SocketTable, tcp: TcpSockstat) -> int:
    """Count the orphans that are in no namespace that a process in sight lives in: whole dumps of those lack them.

    Each keeps its namespace, as after a container has ended; a named one (ip-netns(8)) needs no process either.
    """
    is_whole = table.complete and all(each.number is not None for each in table.namespaces if each.inuse)
    unseen = (tcp.orphan or 0) - table.orphans
    return unseen if is_whole and unseen > SLACK_ORPHANS else 0


def are_most_unlisted(unlisted: int, sockstat: Sockstat | None) -> bool:
    """Return whether they are at least half of the host's sockets, and many."""
    alloc = sockstat.tcp.alloc if sockstat else None
    return alloc is not None and unlisted >= max(_UNLISTED_MOST, alloc // 2)


def is_many_unlisted(unlisted: int, alloc: int) -> bool:
    """Return whether these are more than come and go: sockets that are being made or closed are in no table."""
    return unlisted > max(_UNLISTED_LEAST, alloc // _UNLISTED_SHARE)


def _gaps_of_neighbours(spaces: list[Namespace], pods: Mapping[str, str]) -> list[Gap]:
    """Return who shares a network namespace with the holder that it goes by."""
    named = [(name_place(each, pods).text, _neighbours(each, pods)) for each in spaces]
    shared = "; ".join(f"{', '.join(others)} with {name}" for name, others in named[:NAMES_AT_MOST] if others)
    why = f"sockets are attributed to one of those that share a network namespace ({shared})"
    return [Gap(what="owners in shared network namespaces", why=why)] if shared else []


def _neighbours(namespace: Namespace, pods: Mapping[str, str]) -> list[str]:
    """Name the others in a network namespace, but for the containers of the pod that it goes by."""
    place = _name_of_place(namespace)
    owners = [name_cgroup(path) for path in namespace.others]
    others = (each for each in owners if not place.container or place.container != pod_of(each.container))
    return sorted({_with_pod(each, pods).text for each in others} - {"", name_place(namespace, pods).text})


def _places_text(spaces: list[Namespace], pods: Mapping[str, str]) -> str:
    """Name network namespaces, the largest first, each with the number of its sockets."""
    largest = sorted(spaces, key=lambda each: each.inuse or 0, reverse=True)[:NAMES_AT_MOST]
    names = "; ".join(f"{name_place(each, pods).text}: {count_text(each.inuse or 0)}" for each in largest)
    number = "another network namespace" if len(spaces) == 1 else f"{len(spaces)} other network namespaces"
    return f"{number} ({names})"


def program_text(process: Process) -> str:
    """Name a process by its unit or container, its own name and its PID."""
    return _name_of_process(process)._replace(process=_process_text(process)).text


def place_text(namespace: Namespace) -> str:
    """Name a network namespace by the unit, the container or the process that lives in it."""
    return _name_of_place(namespace).text


def network_text(namespace: Namespace) -> str:
    """Name a network namespace as a whole: a pod's by the pod."""
    return pod_of(_name_of_place(namespace).container) or place_text(namespace)


def _name_of_sockets(namespace: Namespace) -> Owner:
    """Name whose the sockets of a network namespace are; nobody for the host's own, where all others live, too."""
    return _NOBODY if namespace.process.pid == _INIT else _name_of_place(namespace)


def _name_of_place(namespace: Namespace) -> Owner:
    """Name who lives in a network namespace: where several containers of a pod do, the pod."""
    if namespace.process.pid == _INIT:
        return Owner(process="the host")
    name = _name_of_process(namespace.process)
    pod = pod_of(name.container)
    is_shared = any(pod_of(name_cgroup(path).container) == pod for path in namespace.others)
    return Owner(unit=name.unit, container=pod) if pod and is_shared else name


def _gaps_of_guesses(guesses: Counter[_Guess]) -> list[Gap]:
    if not guesses:
        return []
    largest = guesses.most_common(NAMES_AT_MOST)
    names = "; ".join(f"{count_text(n)} on port {guess.port or '?'} to {guess.name.text}" for guess, n in largest)
    why = (
        f"{counted(guesses.total(), 'orphan carries', 'orphans carry')} no cgroup (kernels before 5.8, hosts without "
        f"cgroup v2, connections that nobody accepted): attributed by their port, a guess ({names})"
    )
    return [Gap(what="owners of orphans", why=why)]
