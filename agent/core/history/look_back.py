"""What the history shows: since when, whose growth it is, and whether it was ever this high before."""

from typing import NamedTuple

from agent.core.facts import Facts
from agent.core.gauge import Gauge
from agent.core.history.trend import trends
from agent.core.history.unit_growth import growth_of
from agent.core.model import Evidence, Finding
from agent.core.readings import SMALL_PAGE_BYTES
from agent.core.times import in_zone_of

_DAY = 86_400.0
# What was in the last twelve hours is still the same incident.
_TODAY_SECONDS = _DAY / 2
_LEAST_DAYS = 3
_ABOVE = 1.25


class Past(NamedTuple):
    """Findings from the history, and the sentences for the summary; "" where it shows nothing."""

    findings: tuple[Finding, ...] = ()
    text: str = ""


def look_back(facts: Facts) -> Past:
    """Look for what the samples before the event show."""
    rises, now = trends(facts), facts.snapshot.taken_at
    growth = growth_of(facts, rises)
    records = [record for gauge in facts.high if (record := _record(gauge, facts))]
    grew = [growth.finding(facts.gauge.name)] if growth else []
    first = [each.sentence(now) for each in (*rises[:1], growth) if each]
    found = (*(each.finding for each in rises), *grew, *(finding for finding, _ in records))
    return Past(found, " ".join((*first, *(text for _, text in records[:1]))))


def _record(gauge: Gauge, facts: Facts) -> tuple[Finding, str] | None:
    """Claim that there was nothing like it in the days before, and say when it was highest."""
    # Another boot may have had pages of another size, and counted the memory in them.
    past = facts.past if gauge.name == "orphans" or facts.page_bytes == SMALL_PAGE_BYTES else facts.samples
    readings = gauge.over_time([*past, facts.last])
    before = [reading for reading in readings if reading.second < -_TODAY_SECONDS]
    now = max((reading.value for reading in readings if abs(reading.second) <= _TODAY_SECONDS), default=0)
    if not before or now <= 0:
        return None
    days = int(-min(each.second for each in before) / _DAY)
    highest = max(before, key=lambda reading: reading.value)
    if days < _LEAST_DAYS or now < _ABOVE * highest.value:
        return None
    finding = Finding(
        claim=f"{gauge.noun}_highest_in_days",
        cause=gauge.name,
        confidence="possible",
        evidence=(
            Evidence(name="peak", value=now, unit=gauge.unit, source="history"),
            Evidence(name="highest before", value=highest.value, unit=gauge.unit, source="history"),
            Evidence(name="which was at", value=highest.at.isoformat(timespec="seconds"), source="history"),
            Evidence(name="days known", value=days, unit="days", source="history"),
        ),
    )
    on = in_zone_of(highest.at, facts.snapshot.taken_at)
    return (
        finding,
        f"This is the highest in {days} days (previous high: {gauge.words(highest.value)} on {on.day} {on:%b}).",
    )
