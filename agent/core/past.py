"""What the history says about a case: since when, whose growth it is, how usual it is."""

from typing import NamedTuple

from agent.core.case import Case
from agent.core.growth import growth_of, growth_text, unit_grew
from agent.core.habits import habit_text, habits, habits_of
from agent.core.model import Finding
from agent.core.trend import rises, since_text, trends


class Past(NamedTuple):
    """Findings from the history, and the sentences for the summary; "" where it shows nothing."""

    findings: tuple[Finding, ...] = ()
    text: str = ""


def look_back(case: Case) -> Past:
    """Look for what the samples before the event show."""
    trend, days = trends(case), habits_of(case)
    growth = growth_of(case, trend)
    sentences = (since_text(trend, case), growth_text(growth, case), habit_text(days, case))
    grew = (unit_grew(growth, case),) if growth else ()
    return Past((*rises(trend), *grew, *habits(days, case)), " ".join(filter(None, sentences)))
