"""How much a message channel says in an hour; core.dispatch decides what that does to a notice.

2,000 old lines, ten minutes apart, are 2,000 incidents, and any local user can write them into a text log. All of them
are recorded; nobody reads 4,000 messages. So claimed incidents have a budget, the kernel's have another, which forged
lines cannot spend, and the rest is one message an hour:

    web1: 37 more incidents since 14:00 UTC

Forged lines of other hosts are as many hosts as somebody likes; what they cost must not delay this host's own.
"""

import hashlib
from collections.abc import Mapping
from datetime import datetime

from agent.core.model import Digest, DigestNotice, Incident, Provenance

HOUR_SECONDS = 3600.0
MESSAGES_AN_HOUR: Mapping[Provenance, int] = {"claimed": 6, "kernel": 20}
# A line may name any host: at most this many others get incidents of their own in an hour; one more counts the rest.
OTHER_HOSTS_AN_HOUR = 20
THE_REST = "other hosts"
# A receiver takes some hundred kilobytes; the count is that of all.
IDS_AT_MOST = 10_000


def proof_of(incident: Incident) -> Provenance:
    """Return what an incident rests on: what the gauges warn of is no claim, whatever a text log added."""
    return "kernel" if incident.pressure else incident.provenance


def make_digest(
    held: Mapping[tuple[str, str], datetime], channel: str, host: str | None, now: datetime
) -> DigestNotice:
    """Make one message of held notices: their incidents and files, with when each fell due.

    Its id is that of the first of them, whose receipt is written last: what a crash leaves of it has the same id.
    """
    ids = tuple(sorted({incident_id for incident_id, _ in held}))
    digest = hashlib.sha256("/".join(min(held)).encode()).hexdigest()
    return DigestNotice(
        id=f"msg_digest_{digest[:16]}",
        type="sockmem.digest",
        at=now,
        reason="beyond the messages of an hour",
        channels=(channel,),
        data=None,
        host=host,
        digest=Digest(since=min(held.values()), count=len(ids), ids=ids[:IDS_AT_MOST]),
    )
