"""Moments in arithmetic and in the reader's zone; one without a zone is better taken as UTC than left out."""

from datetime import datetime, timezone


def seconds_between(earlier: datetime, later: datetime) -> float:
    """Subtract two moments; one without a zone is taken as UTC, since a wrong hour is better than no diagnosis."""
    if earlier.tzinfo and later.tzinfo:
        return (later - earlier).total_seconds()
    first, second = (at if at.tzinfo else at.replace(tzinfo=timezone.utc) for at in (earlier, later))
    return (second - first).total_seconds()


def in_zone_of(at: datetime, now: datetime) -> datetime:
    """Turn a moment to the zone of another, if both have one; at the ends of the calendar it stays as it is."""
    try:
        return at.astimezone(now.tzinfo) if at.tzinfo and now.tzinfo else at
    except OverflowError:
        return at


def second_of(at: datetime) -> float:
    """Turn a moment into seconds since the epoch; one without a zone is taken as UTC."""
    return at.timestamp() if at.tzinfo else at.replace(tzinfo=timezone.utc).timestamp()
