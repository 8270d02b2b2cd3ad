"""The zone of logs that name none: this host's, with summer time as it was on each day. See tzset(3).

``Jul  1 12:00:00`` is +02:00 in Berlin whenever it is read; the offset of now, in November, would be +01:00.
"""

from datetime import datetime, timedelta, timezone, tzinfo


class LocalZone(tzinfo):
    """This host's zone, for reading times; not for arithmetic, which would be that of wall clocks."""

    def utcoffset(self, dt: datetime | None) -> timedelta | None:
        """Return the offset from UTC at a local time."""
        return None if dt is None else dt.replace(tzinfo=None).astimezone().utcoffset()

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
