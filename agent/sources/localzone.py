"""The zone that logs without a zone are written in: this host's, with summer time as it was on each day. See tzset(3).

``Jul  1 12:00:00`` is +02:00 in Berlin whenever it is read; the offset of now, in November, would be +01:00.
"""

from datetime import datetime, timedelta, timezone, tzinfo


class LocalZone(tzinfo):
    """This host's zone, for reading stamps. It is no zone to reckon in: sums and differences would be the wall's."""

    def utcoffset(self, dt: datetime | None) -> timedelta | None:
        """Return how far east of Greenwich a local moment is."""
        return None if dt is None else dt.replace(tzinfo=None).astimezone().utcoffset()

    def dst(self, dt: datetime | None) -> timedelta | None:
        """Leave summer time to utcoffset."""
        del dt
        return None

    def tzname(self, dt: datetime | None) -> str | None:
        """Name the zone at a local moment."""
        return None if dt is None else dt.replace(tzinfo=None).astimezone().tzname()

    def fromutc(self, dt: datetime) -> datetime:
        """Bring a moment of Greenwich to this zone; the hour that comes twice in autumn is told apart by its fold."""
        there = dt.replace(tzinfo=timezone.utc).astimezone()
        local = there.replace(tzinfo=self)
        return local if local.utcoffset() == there.utcoffset() else local.replace(fold=1)
