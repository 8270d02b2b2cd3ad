"""The zone of logs that name none: this host's, with summer time as it was on each day. See tzset(3).

``Jul  1 12:00:00`` is +02:00 in Berlin whenever it is read; the offset of now, in November, would be +01:00.
"""

from datetime import datetime, timedelta, timezone, tzinfo
from typing import Literal

from agent.core.model import LogRecord

# Lines of one moment may stand in another order.
_DISORDER = timedelta(seconds=5)
# Log daemons write at once, or a few seconds later where they buffer.
_WRITTEN_WITHIN = timedelta(seconds=10)


class LocalZone(tzinfo):
    """This host's zone, for reading times; not for arithmetic, which would be that of wall clocks.

    ``fold`` 1 takes the hour that comes twice, at the end of summer time, for its second pass.
    """

    def __init__(self, fold: Literal[0, 1] = 0) -> None:
        self._fold = fold

    def utcoffset(self, dt: datetime | None) -> timedelta | None:
        """Return the offset from UTC at a local time."""
        if dt is None:
            return None
        return dt.replace(tzinfo=None, fold=max(dt.fold, self._fold)).astimezone().utcoffset()

    def dst(self, dt: datetime | None) -> timedelta | None:
        """Return None: utcoffset includes summer time."""
        del dt
        return None

    def tzname(self, dt: datetime | None) -> str | None:
        """Name the zone at a local time."""
        return None if dt is None else dt.replace(tzinfo=None).astimezone().tzname()

    def fromutc(self, dt: datetime) -> datetime:
        """Convert from UTC; ``fold`` tells the two equal hours of autumn apart."""
        there = dt.replace(tzinfo=timezone.utc).astimezone()
        local = there.replace(tzinfo=self)
        return local if local.utcoffset() == there.utcoffset() else local.replace(fold=1)


def is_second_pass(
    first: datetime, second: datetime, uptime: float | None, before: LogRecord | None, written: datetime
) -> bool:
    """Return whether a stamp in the hour that comes twice is of its second pass, by the line before it in the log.

    By printk's stamps where both lines have one; else the log has gone back, as it does when the hour begins anew.
    Without a line before it, by when the log was last ``written``.
    """
    if first == second:
        return False
    if before is None or before.at is None:
        return timedelta(0) <= written - second <= _WRITTEN_WITHIN
    if uptime is not None and before.uptime is not None and uptime >= before.uptime:
        passed = uptime - before.uptime
        as_second, as_first = ((at - before.at).total_seconds() for at in (second, first))
        return abs(as_second - passed) < abs(as_first - passed)
    return first < before.at - _DISORDER <= second
