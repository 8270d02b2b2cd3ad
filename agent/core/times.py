"""Moments in arithmetic and in the reader's zone; one without a zone is better taken as UTC than left out."""

from datetime import datetime, timedelta, timezone

# By so much a line may come later than its stamp, or earlier by a clock that is not quite ours.
_DELAY = timedelta(seconds=5)
_AHEAD = timedelta(seconds=2)
# Zones and summer time differ by quarters of an hour (Nepal is +05:45), from -12:00 to +14:00.
_QUARTER = timedelta(minutes=15)
_ZONES_APART = timedelta(hours=26)
_NONE = timedelta(0)
# Over a longer time without a look nothing tells a zone's stamp from a late line.
_LOOK_AT_MOST = timedelta(seconds=60)
# No kernel said anything before or after: such a stamp is somebody's zero or infinity, and no moment to reckon with.
YEARS = range(1970, 2200)


def from_epoch(seconds: object) -> datetime | None:
    """Return the moment of seconds since 1970, given as number or text; None when it is neither or out of range."""
    if isinstance(seconds, bool) or not isinstance(seconds, str | int | float):
        return None
    try:
        moment = datetime.fromtimestamp(float(seconds), timezone.utc)
    except (ValueError, OverflowError, OSError):
        return None
    return moment if moment.year in YEARS else None


def put_right(at: datetime, after: datetime | None, now: datetime) -> tuple[datetime, int]:
    """Return when a line was written, and the seconds by which its stamp ``at`` is ahead of this host's clock.

    The line came between ``after`` and ``now``; None: it may be old. Off by quarters of an hour to the second, it has
    the stamp of another zone: a log daemon keeps the one it started with, and the hour at the end of summer time comes
    twice.
    Nothing is from the future. A line that came with any other stamp was delivered late.
    """
    if after is not None and after <= at <= now:
        return at, 0
    ahead = at - now
    if after is not None and _NONE <= now - after <= _LOOK_AT_MOST and -_ZONES_APART <= ahead <= _ZONES_APART:
        off = round(ahead / _QUARTER) * _QUARTER
        if off and after - _DELAY <= at - off <= now + _AHEAD:
            return at - off, int(off.total_seconds())
    return (now, round(ahead.total_seconds())) if ahead > _AHEAD else (at, 0)


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
