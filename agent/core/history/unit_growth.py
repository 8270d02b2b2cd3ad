"""Whose sockets they are that have grown: the units in the samples, and the one that grew while the gauge did.

A sample names the largest holders when a dump was made lately (agent.service.survey), some every five minutes. Who is
not among them is known only where all there were are listed.

A unit that grew while the gauge did not is not the one: the gauge was low when the unit was, and the unit has got most
of its growth since the gauge began to rise.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from math import isfinite
from typing import NamedTuple

from msgspec.structs import replace

from agent.core.facts import Facts
from agent.core.format import bytes_text, count_text, moment_text
from agent.core.gauge import Reading
from agent.core.history.trend import Trend
from agent.core.model import Evidence, Finding, GaugeName, Holder, Sample, UnitShare
from agent.core.readings import SocketTable
from agent.core.sockets.holder_names import name_of
from agent.core.sockets.holders import BY, Order, holders

UNITS_AT_MOST = 10
_BY_SOCKETS = 6
# Twice as much, and enough of it to matter beside what the gauge has risen by.
_TIMES = 2
_LEAST_SOCKETS = 500
_LEAST_BYTES = 16 << 20
_SHARE_OF_RISE = 0.5
_LOW = 0.1
# The newest look has to be of the same state as the event.
_FRESH_SECONDS = 900.0
# The gauge was as low as this part of now: what core.history.trend calls low.
_GAUGE_LOW = 0.7


class Growth(NamedTuple):
    """One unit's way up: from ``start`` to ``now``, in ``looks`` readings of it."""

    unit: str
    measure: Order
    start: Reading
    now: int
    looks: int

    @property
    def grown(self) -> int:
        """How much more it holds now."""
        return self.now - self.start.value

    def finding(self, cause: GaugeName) -> Finding:
        """Claim that it is one unit's sockets that have multiplied: which, from how many to how many, since when."""
        unit = "bytes" if self.measure == "bytes" else "sockets"
        return Finding(
            claim="unit_grew",
            cause=cause,
            confidence="likely",
            evidence=(
                Evidence(name="unit", value=self.unit, source="history"),
                Evidence(name="low until", value=self.start.at.isoformat(timespec="seconds"), source="history"),
                Evidence(name=f"{self.measure} then", value=self.start.value, unit=unit, source="history"),
                Evidence(name=f"{self.measure} now", value=self.now, unit=unit, source="history"),
                Evidence(name="looked at", value=self.looks, unit="times", source="history"),
            ),
        )

    def sentence(self, now: datetime) -> str:
        """Say which unit has grown."""
        words, what = (bytes_text, " of TCP memory") if self.measure == "bytes" else (count_text, f" {self.measure}")
        grown = f"{self.unit} grew from {words(self.start.value)} to {words(self.now)}{what}"
        return f"{grown} since {moment_text(self.start.at, now)}."


class _Look(NamedTuple):
    """One look at who holds the sockets; ``is_whole``: all who do are among the shares; ``is_low``: the gauge was."""

    second: float
    at: datetime
    shares: dict[str, UnitShare]
    is_whole: bool
    is_low: bool


def shares_of(table: SocketTable) -> tuple[UnitShare, ...]:
    """Name the largest holders of a dump: by sockets, and of the others by bytes; at most ``UNITS_AT_MOST``.

    None of a dump that was cut short: a part of the sockets looks as if somebody had closed the others, and a part of
    the names as if somebody else had come.
    """
    if not table.complete or table.cut_short:
        return ()
    # Asked for all, so that none stands for others.
    found, _ = holders(table, table.sockstat, len(table.groups) + len(table.listeners) + 1, by="sockets")
    shares = (
        UnitShare(name=name, sockets=each.sockets, orphans=each.orphans, bytes=each.bytes)
        for each in found
        if (name := _lasting_name(each))
    )
    named = sorted(_by_name(shares).values(), key=lambda share: share.sockets, reverse=True)
    by_bytes = sorted(named[_BY_SOCKETS:], key=lambda share: share.bytes, reverse=True)
    chosen = [*named[:_BY_SOCKETS], *by_bytes[: UNITS_AT_MOST - _BY_SOCKETS]]
    return tuple(sorted(chosen, key=lambda share: share.sockets, reverse=True))


def growth_of(facts: Facts, known: Sequence[Trend]) -> Growth | None:
    """Find the unit that grew most of what is short, else of sockets; None where none or no single one did.

    ``known`` are the trends of the gauges.
    """
    looks = _looks(facts)
    if len(looks) < _TIMES or not _is_asked(facts):
        return None
    measures: tuple[Order, ...] = (BY[facts.gauge.name], "sockets")
    begun = _rise_began(facts, known)
    if begun is None:
        return None
    return next((found for measure in measures if (found := _most(looks, measure, begun))), None)


def _is_asked(facts: Facts) -> bool:
    return bool(facts.high) or bool(facts.lines) or facts.snapshot.trigger == "pressure"


def _rise_began(facts: Facts, known: Sequence[Trend]) -> float | None:
    """Return the second in which the gauge began to rise: as its trend says, else when it was low for the last time."""
    since = next((trend.start.second for trend in known if trend.gauge == facts.gauge), None)
    event = -facts.age_seconds if facts.age_seconds is not None and isfinite(facts.age_seconds) else 0.0
    lows = (second for second, each in facts.samples if second < min(event, 0.0) and _is_low(each, facts))
    return max(lows, default=None) if since is None else since


def _is_low(sample: Sample, facts: Facts) -> bool:
    """Return whether what is short was low when a sample was taken."""
    then, now = facts.gauge.of(sample), facts.gauge.value
    return then is not None and now is not None and then <= _GAUGE_LOW * now


def _looks(facts: Facts) -> list[_Look]:
    """List who held what and when, oldest first; none where the newest is too old to speak of now."""
    looks = [
        _look(second, each.at, each.units, is_low=_is_low(each, facts))
        for second, each in facts.samples
        if each.units and second <= 0
    ]
    if shares := shares_of(facts.sockets):
        looks.append(_look(0.0, facts.snapshot.taken_at, shares, is_low=False))
    looks.sort(key=lambda look: look.second)
    return looks if looks and -looks[-1].second <= _FRESH_SECONDS else []


def _look(second: float, at: datetime, shares: Sequence[UnitShare], *, is_low: bool) -> _Look:
    return _Look(second, at, _by_name(shares), is_whole=len(shares) < UNITS_AT_MOST, is_low=is_low)


def _by_name(shares: Iterable[UnitShare]) -> dict[str, UnitShare]:
    """Add up what goes by the same name."""
    found: dict[str, UnitShare] = {}
    for share in shares:
        if other := found.get(share.name):
            sums = {field: getattr(share, field) + getattr(other, field) for field in ("sockets", "orphans", "bytes")}
            found[share.name] = replace(share, **sums)
        else:
            found[share.name] = share
    return found


def _lasting_name(holder: Holder) -> str | None:
    """Name a holder for longer than one dump: a container goes by no process that was seen in it this time."""
    return name_of(replace(holder, process=None) if holder.container else holder)


def _most(looks: Sequence[_Look], measure: Order, begun: float) -> Growth | None:
    all_series = {name: _series(looks, name, measure) for name in looks[-1].shares}
    found = [growth for name, series in all_series.items() if (growth := _growth(name, series, measure))]
    low = {look.second for look in looks if look.is_low}
    fitting = [each for each in found if each.start.second in low and _grew_since(each, all_series[each.unit], begun)]
    best = max(fitting, key=lambda growth: growth.grown, default=None)
    if best is None:
        return None
    # All that the named units have gained since then: one that brought less than half of it is not the one.
    then = next(look for look in looks if look.second == best.start.second)
    rise = _total(looks[-1], measure) - _total(then, measure)
    return best if best.grown >= _SHARE_OF_RISE * rise else None


def _growth(name: str, series: list[Reading], measure: Order) -> Growth | None:
    """Return since when a unit has grown: the last look at which it was low. The last of the series is now."""
    *before, last = series
    low, now = min((each.value for each in before), default=last.value), last.value
    least = _LEAST_BYTES if measure == "bytes" else _LEAST_SOCKETS
    if now - low < least or now < _TIMES * low:
        return None
    start = next(each for each in reversed(before) if each.value <= low + _LOW * (now - low))
    return Growth(name, measure, start, now, len(series))


def _grew_since(growth: Growth, series: list[Reading], begun: float) -> bool:
    """Return whether a unit has got most of its growth since the gauge began to rise."""
    earlier = [each.value for each in series if each.second <= begun]
    start = earlier[-1] if earlier else growth.start.value
    return growth.now - start >= _SHARE_OF_RISE * growth.grown


def _series(looks: Sequence[_Look], name: str, measure: Order) -> list[Reading]:
    """List what a unit held; where not all who hold sockets are known, its absence says nothing."""
    return [
        Reading(look.second, look.at, getattr(look.shares[name], measure) if name in look.shares else 0)
        for look in looks
        if name in look.shares or look.is_whole
    ]


def _total(look: _Look, measure: Order) -> int:
    return sum(getattr(share, measure) for share in look.shares.values())
