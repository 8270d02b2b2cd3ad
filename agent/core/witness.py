"""Whose sockets the kernel's trace saw killed or refused memory, added up over one incident.

The trace names who acted: the program that closed the socket, the writer that was refused. Where it cannot (in an
interrupt, or the program has ended), a port or an address may name the owner later; what nothing names is the rest.
Events that were overwritten before they were read are given to those that were read with them, by their share.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

from agent.core.format import printable
from agent.core.kernel.tracing import Kills, Refusals
from agent.core.model import Witness, WitnessedBy
from agent.core.sockets.cgroup_names import Owner
from agent.core.sockets.holder_names import OTHERS
from agent.core.sockets.holders import NAMES_AT_MOST, PEERS_AT_MOST, PORTS_AT_MOST

# Shown by name, and kept in memory: a host that forks has many programs, and a flood has any number of peers.
SHOWN_AT_MOST, KEPT_AT_MOST = 10, 64
PROGRAM_AT_MOST = 32
# The program that acted, and its thread; both None in an interrupt.
Who = tuple[str | None, int | None]
_NOBODY = Owner()
_OTHERS = Owner(unit=OTHERS)


class Place(NamedTuple):
    """By what a kill that has no name yet may get one; ``program`` acted, and has ended since."""

    program: str | None = None
    address: str | None = None
    port: int | None = None
    peer_port: int | None = None


class _Share:
    """What one name has."""

    def __init__(self) -> None:
        self.kills = self.refusals = self.guessed = 0
        self.is_pro_rata = False
        self.ports: Counter[int] = Counter()
        self.peers: Counter[str] = Counter()
        self.programs: Counter[str] = Counter()

    def add(self, other: "_Share", *, guess: bool = False) -> None:
        self.kills += other.kills
        self.refusals += other.refusals
        self.guessed += other.kills if guess else other.guessed
        self.is_pro_rata |= other.is_pro_rata
        for mine, its in ((self.ports, other.ports), (self.peers, other.peers), (self.programs, other.programs)):
            _add_bounded(mine, its)

    def shown(self, name: Owner) -> WitnessedBy:
        return WitnessedBy(
            unit=name.unit,
            container=name.container,
            process=name.process or ", ".join(each for each, _ in self.programs.most_common(NAMES_AT_MOST)) or None,
            kills=self.kills,
            refusals=self.refusals,
            ports=tuple(port for port, _ in self.ports.most_common(PORTS_AT_MOST)),
            peers=tuple(peer for peer, _ in self.peers.most_common(PEERS_AT_MOST)),
            guess=self.guessed > 0 and 2 * self.guessed >= self.kills,
            pro_rata=self.is_pro_rata,
        )


class Account:
    """What was seen over an incident so far; after a restart an open incident resumes from its file."""

    def __init__(self, before: Witness | None = None, *, sees_kills: bool = True) -> None:
        """Begin with nothing seen; not ``sees_kills``: that there are none would prove nothing."""
        self._sees_kills = sees_kills if before is None else before.kills is not None
        self.named: dict[Owner, _Share] = {}
        self.unnamed: dict[Place, _Share] = {}
        self.lost = before.lost if before else 0
        self._unseen = before.unseen if before else None
        for each in before.by if before else ():
            self._add_named(_owner_of(each), _share_of(each))

    @property
    def kills(self) -> int:
        """How many sockets were killed, lost events included."""
        return sum(share.kills for share in self._shares())

    @property
    def places(self) -> tuple[Place, ...]:
        """By what those may be named that have no name yet."""
        return tuple(self.unnamed)

    def take(self, kills: Sequence[Kills], lost: int, owners: Mapping[Who, Owner]) -> None:
        """Take in kills that were read together; ``owners`` are those who acted, as far as they could be asked."""
        self.lost += lost
        extra = share_out(lost, [each.count for each in kills])
        for each, more in zip(kills, extra, strict=True):
            self._add_kills(each, owners.get((each.name, each.pid), _NOBODY), more)
        if lost and not kills:
            share = _Share()
            share.kills, share.is_pro_rata = lost, True
            self._add_unnamed(Place(), share)

    def refuse(self, refusals: Iterable[Refusals], owners: Mapping[Who, Owner]) -> None:
        """Take in refusals; of those in an interrupt the trace names nobody."""
        for each in refusals:
            share = _Share()
            share.refusals = each.count
            self._add(owners.get((each.name, each.pid), _NOBODY), Place(_shown(each.name)), share)

    def merge(self, other: "Account") -> None:
        """Take in what another account has."""
        self.lost += other.lost
        for name, share in other.named.items():
            self._add_named(name, share)
        for place, share in other.unnamed.items():
            self._add_unnamed(place, share)

    def owner_of(self, port: int | None) -> Owner:
        """Return who alone acted on a local port by the trace itself: the rest of its sockets die in interrupts."""
        owners = [
            owner for owner, share in self.named.items() if port in share.ports and 2 * share.guessed < share.kills
        ]
        programs = {place.program for place in self.unnamed if place.program is not None and place.port == port}
        owners = owners or [Owner(process=each) for each in programs if port is not None]
        return owners[0] if len(owners) == 1 else _NOBODY

    def find_names(self, find: Callable[[Place], tuple[Owner, bool]]) -> None:
        """Name what ``find`` has an owner for, a guess or not."""
        found = {place: named for place in self.unnamed if (named := find(place))[0] != _NOBODY}
        for place, (owner, guess) in found.items():
            share = _Share()
            share.add(self.unnamed.pop(place), guess=guess)
            self._add_named(owner, share)

    def witness(self, risen: int | None) -> Witness:
        """Return it as it is stored; ``risen`` is how far TCPAbortOnMemory rose meanwhile, None where not known."""
        kills = self.kills
        is_seen = self._sees_kills or kills > 0
        if risen is not None:
            self._unseen = max(0, risen - kills)
        return Witness(
            kills=kills if is_seen else None,
            refusals=sum(share.refusals for share in self._shares()),
            lost=self.lost,
            unseen=self._unseen if is_seen else None,
            by=self._by(),
        )

    # --- parts ------------------------------------------------------------------------------------------------------

    def _shares(self) -> Iterable[_Share]:
        return chain(self.named.values(), self.unnamed.values())

    def _add_kills(self, kills: Kills, owner: Owner, lost: int) -> None:
        share = _Share()
        share.kills, share.is_pro_rata = kills.count + lost, lost > 0
        if kills.port is not None:
            share.ports[kills.port] = share.kills
        if kills.peer is not None:
            beyond = f" port {kills.peer_port}" if kills.port is None and kills.peer_port is not None else ""
            share.peers[f"{kills.peer}{beyond}"] = share.kills
        place = Place(_shown(kills.name), kills.address, kills.port, kills.peer_port)
        self._add(owner, place, share)

    def _add(self, owner: Owner, place: Place, share: _Share) -> None:
        if place.program is not None:
            share.programs[place.program] = share.kills + share.refusals
        if owner == _NOBODY:
            self._add_unnamed(place, share)
        else:
            self._add_named(owner, share)

    def _add_named(self, owner: Owner, share: _Share) -> None:
        if owner == _NOBODY:
            self._add_unnamed(Place(), share)
            return
        name = owner if owner in self.named or len(self.named) < KEPT_AT_MOST else _OTHERS
        self.named.setdefault(name, _Share()).add(share)

    def _add_unnamed(self, place: Place, share: _Share) -> None:
        kept = place if place in self.unnamed or len(self.unnamed) < KEPT_AT_MOST else Place()
        self.unnamed.setdefault(kept, _Share()).add(share)

    def _by(self) -> tuple[WitnessedBy, ...]:
        """Most first; then all others that have a name, then what has none."""
        shares: dict[Owner, _Share] = {}
        unnamed = ((Owner(process=place.program), share) for place, share in self.unnamed.items())
        for name, share in chain(self.named.items(), unnamed):
            shares.setdefault(name, _Share()).add(share)
        rest = [each for each in (shares.pop(_OTHERS, None),) if each]
        nobody = shares.pop(_NOBODY, None)
        ranked = sorted(shares.items(), key=lambda item: (item[1].kills, item[1].refusals), reverse=True)
        rest += [share for _, share in ranked[SHOWN_AT_MOST:]]
        others = _Share()
        for share in rest:
            others.add(share)
        shown = [
            *ranked[:SHOWN_AT_MOST],
            *([(_OTHERS, others)] if rest else []),
            *([(_NOBODY, nobody)] if nobody else []),
        ]
        return tuple(share.shown(name) for name, share in shown)


def share_out(total: int, parts: Sequence[int]) -> list[int]:
    """Give a number to parts by their size, in whole numbers that add up to it; the largest remainders first."""
    whole = sum(parts)
    if not total or not whole:
        return [0] * len(parts)
    given = [total * part // whole for part in parts]
    by_remainder = sorted(range(len(parts)), key=lambda index: -(total * parts[index] % whole))
    for index in by_remainder[: total - sum(given)]:
        given[index] += 1
    return given


def _shown(program: str | None) -> str | None:
    """Make the name of a program printable: any user chooses it, and ", " parts the names that are stored."""
    return None if program is None else printable(program, PROGRAM_AT_MOST).replace(",", ".")


def _owner_of(each: WitnessedBy) -> Owner:
    return Owner(each.unit, each.container) if each.unit or each.container else Owner(process=each.process)


def _share_of(each: WitnessedBy) -> _Share:
    """Read a share again: its ports and peers are in order, and no longer known by number."""
    share = _Share()
    share.kills, share.refusals, share.is_pro_rata = each.kills, each.refusals, each.pro_rata
    share.guessed = each.kills if each.guess else 0
    share.ports.update({port: len(each.ports) - index for index, port in enumerate(each.ports)})
    share.peers.update({peer: len(each.peers) - index for index, peer in enumerate(each.peers)})
    if each.process and (each.unit or each.container):
        share.programs.update(dict.fromkeys(each.process.split(", "), 1))
    return share


def _add_bounded(mine: Counter[int] | Counter[str], its: Counter[int] | Counter[str]) -> None:
    """Add up counts; of what comes when there are many, nothing is kept."""
    for key, count in its.items():
        if key in mine or len(mine) < KEPT_AT_MOST:
            mine[key] += count  # type: ignore[index]
