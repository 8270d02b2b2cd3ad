"""Whose sockets they are that have grown: the units in the samples, and the one that grew while the gauge did.

A sample names the largest holders when a dump was made lately (agent.survey), some every five minutes. Who is not
among them is known only where all there were are listed.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Literal, NamedTuple

from agent.core.case import Case, seconds_between
from agent.core.holders import holders
from agent.core.model import Cause, Evidence, Finding, UnitShare
from agent.core.sockets import SocketTable
from agent.core.words import bytes_text, count_text, moment_text

UNITS_AT_MOST = 10
_BY_SOCKETS = 6
_ASKED_FOR = 40
# Twice as much, and enough of it to matter beside what the gauge has risen by.
_TIMES = 2
_LEAST_SOCKETS = 500
_LEAST_BYTES = 16 << 20
_SHARE_OF_RISE = 0.5
_LOW = 0.1
# The newest look has to be of the same state as the event.
_FRESH_SECONDS = 900.0

Measure = Literal["orphans", "bytes", "sockets"]


class Growth(NamedTuple):
    """One unit's way up: from ``before`` at ``since`` to ``now``, seen in so many looks."""

    unit: str
    measure: Measure
    since: datetime
    before: int
    now: int
    looks: int


class _Look(NamedTuple):
    """One look at who holds the sockets."""

    at: datetime
    shares: dict[str, UnitShare]


def shares_of(table: SocketTable) -> tuple[UnitShare, ...]:
    """Name the largest holders of a dump: by sockets, and of the others by bytes; at most ``UNITS_AT_MOST``."""
    found, _ = holders(table, table.sockstat, _ASKED_FOR, by="sockets")
    named = [
        UnitShare(name=name, sockets=each.sockets, orphans=each.orphans, bytes=each.bytes)
        for each in found[:_ASKED_FOR]
        if (name := each.unit or each.container or each.process)
    ]
    by_bytes = sorted(named[_BY_SOCKETS:], key=lambda share: share.bytes, reverse=True)
    chosen = [*named[:_BY_SOCKETS], *by_bytes[: UNITS_AT_MOST - _BY_SOCKETS]]
    return tuple(sorted(chosen, key=lambda share: share.sockets, reverse=True))


def unit_grew(growth: Growth, case: Case) -> Finding:
    """Claim that it is one unit's sockets that have multiplied: which, from how many to how many, since when."""
    unit = "bytes" if growth.measure == "bytes" else "sockets"
    cause: Cause = "orphans" if _about_orphans(case) else "tcp_memory"
    return Finding(
        claim="unit_grew",
        cause=cause,
        confidence="likely",
        evidence=(
            Evidence(name="unit", value=growth.unit, source="history"),
            Evidence(name="low until", value=growth.since.isoformat(timespec="seconds"), source="history"),
            Evidence(name=f"{growth.measure} then", value=growth.before, unit=unit, source="history"),
            Evidence(name=f"{growth.measure} now", value=growth.now, unit=unit, source="history"),
            Evidence(name="looked at", value=growth.looks, unit="times", source="history"),
        ),
    )


def growth_text(growth: Growth | None, case: Case) -> str:
    """Say in one sentence who has grown; "" where the history does not show it."""
    if growth is None:
        return ""
    words, what = (bytes_text, " of TCP memory") if growth.measure == "bytes" else (count_text, f" {growth.measure}")
    since = moment_text(growth.since, case.snapshot.taken_at)
    return f"{growth.unit} grew from {words(growth.before)} to {words(growth.now)}{what} since {since}."


def growth_of(case: Case) -> Growth | None:
    """Find the unit that grew most of what is short, else of sockets; None where none or no single one did."""
    looks = _looks(case)
    if len(looks) < _TIMES or not _is_asked(case):
        return None
    measures: tuple[Measure, ...] = ("orphans", "sockets") if _about_orphans(case) else ("bytes", "sockets")
    return next((found for measure in measures if (found := _most(looks, measure))), None)


def _is_asked(case: Case) -> bool:
    high = case.gauges.shift is not None or case.gauges.zone in ("pressure", "at_limit", "over")
    return high or bool(case.said) or case.snapshot.trigger == "pressure"


def _about_orphans(case: Case) -> bool:
    if case.named:
        return "orphans" in case.named
    return case.gauges.shift is not None


def _looks(case: Case) -> list[_Look]:
    """List who held what and when, oldest first; none where the newest is too old to speak of now."""
    now = case.snapshot.taken_at
    looks = [_look(each.at, each.units) for second, each in case.samples if each.units and second <= 0]
    table = case.snapshot.sockets
    if table is not None and table.complete and (shares := shares_of(table)):
        looks.append(_look(now, shares))
    looks.sort(key=lambda look: -seconds_between(look.at, now))
    return looks if looks and seconds_between(looks[-1].at, now) <= _FRESH_SECONDS else []


def _look(at: datetime, shares: Iterable[UnitShare]) -> _Look:
    return _Look(at, {share.name: share for share in shares})


def _most(looks: Sequence[_Look], measure: Measure) -> Growth | None:
    found = (_growth(name, _series(looks, name, measure), measure) for name in looks[-1].shares)
    best = max(filter(None, found), key=lambda growth: growth.now - growth.before, default=None)
    if best is None:
        return None
    # All that the named units have gained since then: one that brought less than half of it is not the one.
    then = next(look for look in looks if look.at == best.since)
    rise = _total(looks[-1], measure) - _total(then, measure)
    return best if best.now - best.before >= _SHARE_OF_RISE * rise else None


def _growth(name: str, series: list[tuple[datetime, int]], measure: Measure) -> Growth | None:
    """Tell since when a unit has grown: the last look at which it was low. The last of the series is now."""
    now = series[-1][1]
    before = [value for _, value in series[:-1]]
    least = _LEAST_BYTES if measure == "bytes" else _LEAST_SOCKETS
    if not before or now - min(before) < least or now < _TIMES * min(before):
        return None
    low = min(before) + _LOW * (now - min(before))
    since, value = next((at, value) for at, value in reversed(series[:-1]) if value <= low)
    return Growth(name, measure, since, value, now, len(series))


def _series(looks: Sequence[_Look], name: str, measure: Measure) -> list[tuple[datetime, int]]:
    found: list[tuple[datetime, int]] = []
    for at, shares in looks:
        if name in shares:
            found.append((at, getattr(shares[name], measure)))
        elif len(shares) < UNITS_AT_MOST:
            found.append((at, 0))
    return found


def _total(look: _Look, measure: Measure) -> int:
    return sum(getattr(share, measure) for share in look.shares.values())
