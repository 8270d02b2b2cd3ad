"""How much a message channel says in an hour: what is sent, what waits for the hourly digest, what is not said at all.

2,000 old lines, ten minutes apart, are 2,000 incidents, and any local user can write them into a text log. All of them
are recorded; nobody reads 4,000 messages. So claimed incidents have a budget, the kernel's have another, which forged
lines cannot spend, and the rest is one message an hour:

    web1: 37 more incidents since 14:00 UTC

Forged lines of other hosts are as many hosts as somebody likes; what they cost must not delay this host's own.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Literal

from msgspec.structs import replace

from agent.core.delivery import Outcome
from agent.core.model import Digest, DigestNotice, Incident, Notice, Provenance

HOUR_SECONDS = 3600.0
MESSAGES_AN_HOUR: Mapping[Provenance, int] = {"claimed": 6, "kernel": 20}
# A line may name any host: at most this many others get incidents of their own in an hour; one more counts the rest.
OTHER_HOSTS_AN_HOUR = 20
THE_REST = "other hosts"
# A receiver takes some hundred kilobytes; the count is that of all.
IDS_AT_MOST = 10_000

Decision = Literal["send", "hold", "skip"]


def budget_of(notice: Notice, *, is_told: bool) -> Provenance | None:
    """Name the budget that a message is paid from: none for a test, nor for the end of an incident that was told."""
    if notice.data is None or (is_told and notice.type == "sockmem.incident.resolved"):
        return None
    return proof_of(notice.data)


def decide(notice: Notice, earlier: Collection[Outcome], *, is_held: bool, sent: Mapping[Provenance, int]) -> Decision:
    """Decide what becomes of the oldest notice that a channel still owes for an incident.

    ``earlier`` is what became of the incident's notices before it, as far as that is settled; ``is_held`` says that one
    of them waits for the digest; ``sent`` counts the messages of the last hour by budget. A channel that was not told
    that an incident opened is not told how it went on, unless the kernel itself speaks: see ``as_told``.
    """
    if is_unheard_of(earlier, is_held=is_held) and not _is_news_of_the_kernel(notice):
        return "hold" if is_held else "skip"
    budget = budget_of(notice, is_told="delivered" in earlier)
    return "send" if budget is None or sent[budget] < MESSAGES_AN_HOUR[budget] else "hold"


def is_unheard_of(earlier: Collection[Outcome], *, is_held: bool) -> bool:
    """Return whether the channel was not told that an incident opened, and will not be."""
    return "delivered" not in earlier and (is_held or bool(earlier))


def as_told(notice: Notice, earlier: Collection[Outcome], *, is_held: bool) -> Notice:
    """Make an opening of an update to what was not told: a forged line must not keep the kernel's from being read."""
    if notice.type != "sockmem.incident.updated" or not is_unheard_of(earlier, is_held=is_held):
        return notice
    return replace(notice, type="sockmem.incident.opened")


def proof_of(incident: Incident) -> Provenance:
    """Return what an incident rests on: what the gauges warn of is no claim, whatever a text log added."""
    return "kernel" if incident.pressure else incident.provenance


def _is_news_of_the_kernel(notice: Notice) -> bool:
    data = notice.data
    return data is not None and proof_of(data) == "kernel" and notice.type != "sockmem.incident.resolved"


def make_digest(held: Iterable[tuple[str, Notice]], channel: str, host: str | None, now: datetime) -> DigestNotice:
    """Make one message of held notices, each with its incident's id; the same ones always give the same id."""
    incidents, notices = zip(*held, strict=True)
    ids = tuple(sorted(set(incidents)))
    digest = hashlib.sha256("\n".join(sorted(notice.id for notice in notices)).encode()).hexdigest()
    return DigestNotice(
        id=f"msg_digest_{digest[:16]}",
        type="sockmem.digest",
        at=now,
        reason="beyond the messages of an hour",
        channels=(channel,),
        data=None,
        host=host,
        digest=Digest(since=min(notice.at for notice in notices), count=len(ids), ids=ids[:IDS_AT_MOST]),
    )
