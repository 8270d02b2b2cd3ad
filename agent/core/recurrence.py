"""Which kind of incident one is, and how many of its kind are on record.

A kind is the cause, how its limit was hit and who holds most of what ran out (else whose sockets were killed), without
numbers and without what changes in a name from start to start; its hash is the signature. A warning is another kind
than the event it warns of: twenty warnings do not make the first connections that are reset look like every day's. Nor
do lines that no number confirms, since any local user can write those. Hosts are counted apart.
"""

import hashlib
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta, timezone, tzinfo
from typing import Literal, NamedTuple

from msgspec.structs import replace

from agent.core.hosts import plain_name
from agent.core.model import Cause, Holder, Incident, Recurrence, Signed, WitnessedBy
from agent.core.sockets.holder_names import lasting_name, lasting_place, main_holder, main_victim
from agent.core.sockets.shares import FULL_GROUP

Manner = Literal["limit", "penalized", "group", "starvation", "warning", "claimed"]
# Who comes back after so long is no routine.
BACK_AFTER = timedelta(weeks=2)
_RHYTHMS = {"hourly": timedelta(hours=1), "daily": timedelta(days=1), "weekly": timedelta(weeks=1)}
_RHYTHM_FROM = 3
_STARVING = {"memory_short_between_readings", "data_dropped_without_message", "living_sockets_refused"}
_SIGNATURE_DIGITS = 12


class IncidentKind(NamedTuple):
    """What makes two incidents the same: ``holder`` is the lasting part of its name, None where nobody has most."""

    cause: Cause
    mechanism: Manner
    holder: str | None

    @property
    def signature(self) -> str:
        """Its hash, as incident.json has it."""
        return hashlib.sha256("\n".join((self.cause, self.mechanism, self.holder or "")).encode()).hexdigest()[
            :_SIGNATURE_DIGITS
        ]


class Past(NamedTuple):
    """The little of an incident that is kept to count it; ``host`` is "" for this host, ``generation`` its commit's."""

    opened_at: datetime
    id: str
    host: str
    signature: str
    last_seen_at: datetime
    generation: int


def kind_of(incident: Incident) -> IncidentKind:
    """Return the kind of an incident by its diagnosis, also of one that was stored before there were signatures."""
    manner = _manner(incident)
    return IncidentKind(incident.cause_shown, manner, _holder(incident, manner))


def past_of(incident: Incident | Signed) -> Past:
    """Return what is kept of an incident."""
    host = plain_name(incident.host) if incident.read_on else ""
    signature = incident.signature or (kind_of(incident).signature if isinstance(incident, Incident) else "")
    generation = incident.resume.generation if incident.resume else 0
    return Past(incident.opened_at, incident.id, host, signature, incident.last_seen_at, generation)


def numbered(incidents: Iterable[Incident]) -> Iterator[Incident]:
    """Give those that have none their signature and number of their kind and host; they come in the order they began.

    One at a time: there may be thousands.
    """
    counted: dict[tuple[str, str], tuple[int, datetime, datetime | None]] = {}
    for each in incidents:
        past = past_of(each)
        key = past.host, past.signature
        count, since, previous = counted.get(key, (0, past.opened_at, None))
        counted[key] = count + 1, since, max(previous or past.last_seen_at, past.last_seen_at)
        if each.recurrence and each.signature:
            yield each
        else:
            known = each.recurrence or Recurrence(count=count + 1, since=since, previous_at=previous)
            yield replace(each, signature=past.signature, recurrence=known)


def is_news(incident: Incident) -> bool:
    """Return whether it is the first of its kind, or back after weeks."""
    seen = incident.recurrence
    return seen is not None and (seen.count == 1 or _gap(incident, seen) >= BACK_AFTER)


def recurrence_words(incident: Incident) -> str | None:
    """Return how often it was before, for a title: "first of its kind", "back after 5 weeks", "9th since 3 Nov"."""
    seen = incident.recurrence
    if seen is None:
        return None
    if seen.count == 1:
        return "first of its kind"
    if is_news(incident):
        return f"back after {_gap(incident, seen).days // 7} weeks"
    return _nth_since(incident, seen, timezone.utc)


def recurrence_text(incident: Incident, zone: tzinfo | None = timezone.utc) -> str | None:
    """Return the whole of it: "first of its kind on record", "9th since 3 Nov, same unit: daily"; None if not known.

    The date is that of the ``zone`` in which the times beside it are shown; None is this host's.
    """
    seen = incident.recurrence
    if seen is None:
        return None
    if seen.count == 1:
        return "first of its kind on record"
    nth = f"{_nth_since(incident, seen, zone)}{_same(incident)}"
    return f"{recurrence_words(incident)} ({nth})" if is_news(incident) else f"{nth}{_rhythm(incident, seen)}"


# --- parts ----------------------------------------------------------------------------------------------------------


def _manner(incident: Incident) -> Manner:
    claims = [finding.claim for finding in incident.diagnosis.findings]
    if incident.is_unconfirmed:
        return "claimed"
    if claims[:1] == ["cgroup_limit"]:
        return "group"
    if incident.is_warning:
        return "starvation" if _STARVING.intersection(claims) else "warning"
    return "penalized" if claims[:1] == ["orphans_penalised"] else "limit"


def _holder(incident: Incident, manner: Manner) -> str | None:
    if manner == "group":
        evidence = incident.diagnosis.findings[0].evidence
        groups = [str(each.value).split(" in ") for each in evidence if each.name == FULL_GROUP]
        return " in ".join(filter(None, map(lasting_place, groups[0]))) if groups else None
    main = _main(incident)
    return lasting_name(main) if main else None


def _main(incident: Incident) -> Holder | WitnessedBy | None:
    """Find who is to blame as a title does: the main holder, else whose sockets the kernel killed."""
    main = main_holder(incident.diagnosis, incident.witness) if incident.cause_shown == incident.cause else None
    victim = main_victim(incident.witness)
    return main.holder if main else victim[1] if victim else None


def _same(incident: Incident) -> str:
    """Return what is the same: the name itself where it has * for a part that may be another each time."""
    _, manner, name = kind_of(incident)
    main = _main(incident)
    if name is None or "*" in name:
        return f", {name}" if name else ""
    if manner == "group" or main is None:
        return ", same group"
    if main.unit:
        return ", same unit"
    return ", same pod" if name.startswith("pod ") else ", same container" if main.container else ", same program"


def _nth_since(incident: Incident, seen: Recurrence, zone: tzinfo | None) -> str:
    since, now = (at.astimezone(zone) for at in (seen.since, incident.opened_at))
    year = "" if since.year == now.year else f" {since.year}"
    return f"{_ordinal(seen.count)} since {since.day} {since:%b}{year}"


def _ordinal(count: int) -> str:
    teen = count % 100 // 10 == 1
    return f"{count:,}{'th' if teen else {1: 'st', 2: 'nd', 3: 'rd'}.get(count % 10, 'th')}"


def _gap(incident: Incident, seen: Recurrence) -> timedelta:
    return incident.opened_at - (seen.previous_at or incident.opened_at)


def _rhythm(incident: Incident, seen: Recurrence) -> str:
    """Return how regular it is, where the mean and the last time between two agree on that."""
    if seen.count < _RHYTHM_FROM:
        return ""
    mean, last = (incident.opened_at - seen.since) / (seen.count - 1), _gap(incident, seen)
    fitting = (word for word, span in _RHYTHMS.items() if span / 2 <= mean <= 1.5 * span and last <= 2 * span)
    return f": {word}" if (word := next(fitting, None)) else ""
