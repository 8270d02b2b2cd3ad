"""What times and names must be like when they come back from disk; msgspec checks it while it decodes.

Everything else may rely on it: a time can be compared, converted and added to, a name stays in its directory, and an
id fits into an HTTP header.
"""

from datetime import datetime
from functools import cache
from typing import Annotated

import msgspec
from msgspec.structs import fields

YEARS = range(1900, 2300)
# "$" alone lets a line break pass, and "\Z" means nothing in a JSON Schema.
_END = r"$(?!\n)"

Time = Annotated[datetime, msgspec.Meta(tz=True)]
SnapshotName = Annotated[str, msgspec.Meta(pattern=r"^snapshot-[0-9]{3,9}\.json" + _END)]
NoticeName = Annotated[str, msgspec.Meta(pattern=r"^notice-[0-9]{3,9}\.json" + _END)]
# The names that agent.config.channels lets pass: they are part of a receipt's name.
ChannelName = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}" + _END)]
HeaderText = Annotated[str, msgspec.Meta(pattern=r"^[!-~]{1,200}" + _END)]
# Positions are added to, and generations compared; both stay far below what JSON readers take.
Natural = Annotated[int, msgspec.Meta(ge=0, le=2**60)]


def check_years(value: msgspec.Struct) -> None:
    """Refuse a time so near to an end of the calendar that reckoning with it would overflow."""
    for name in _times_of(type(value)):
        time = getattr(value, name)
        if time is not None and time.year not in YEARS:
            raise ValueError(f"{name}: the year {time.year} cannot be right")


@cache
def _times_of(kind: type[msgspec.Struct]) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind) if field.type in (Time, Time | None))
