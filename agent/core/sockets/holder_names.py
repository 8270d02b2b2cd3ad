"""One name for each holder of sockets, and the one who holds most of what is short.

Names are chosen by anyone who may make a cgroup or a process: they are made printable, and the kernel's own words are
taken out, so that no text of ours can look like a kernel record to our own detector.

Somebody is named as the main holder who has at least half of what the host counts, and enough of the limit to matter.
What no dump could see counts against it, so that an incomplete attribution names no one. And no one is named for what
is left when a burst is over: half of three orphans says nothing about the thousands before, and the three may be our
own connections, closing behind a notification.

What makes tomorrow's incident one of the same kind is the part of a name that outlasts its processes, with * for what
changes from start to start::

    nginx.service                                       nginx.service
    user@1000.service, backup@nas-2.service             user@*.service, backup@*.service
    run-r5c1f0a7e.scope, session-12.scope               run-*.scope, session-*.scope
    containerd 3f2a9c1be07d (pod shop/web-6d4cf56db6-x7k2p), pod shop/web-0        pod shop/web-*
    docker 3f2a9c1be07d, in which runs nginx (pid 812)  docker * (nginx)
    nginx (pid 812), php-fpm (pid 90)                   nginx

A scope exists only while its processes do, and so does a unit of systemd-run (systemd.scope(5), systemd-run(1)): any
number in its name may be another next time. In a service's own name only long ones are: redis-6379.service stays.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from agent.core.format import printable
from agent.core.model import Cause, Diagnosis, Finding, GaugeName, Holder, Witness, WitnessedBy
from agent.core.sockets.cgroup_names import pod_of

# The least that anybody is named for: this part of the limit, and this many orphans where the limit is small. The
# kernel acts from a quarter of the limit on, so that half of what it acts on is four times as much.
_PART_WORTH_NAMING = 1 / 32
ORPHANS_WORTH_NAMING = 16
LOSES = "loses data"
# All those of a list that have a name and no place of their own.
OTHERS = "others"
_NAME_AT_MOST = 120
_KERNEL_TEXT = re.compile(
    r"out of socket memory|too many (of )?orphaned sockets|consider tuning tcp_mem|callbacks suppressed", re.IGNORECASE
)


_UUID = "(?:pod)?[0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}"
_HEX = "(?=[a-f]*[0-9])[0-9a-f]{8,}"
_WHOLE = r"(?:(?<=[-_:/.@#])|\A)(?:%s)(?=[-_:/.@#]|\Z)"
_NUMBER = re.compile(_WHOLE % f"{_UUID}|[a-z]?[0-9]+|[a-z]?{_HEX}", re.ASCII)
_LONG_NUMBER = re.compile(_WHOLE % f"{_UUID}|[0-9]{{6,}}|{_HEX}", re.ASCII)
_STARS = re.compile(r"\*(?:[-_:/.]\*)+")
# What is behind the workload's name: the hash of a ReplicaSet or the minute of a CronJob, then the pod's own five
# letters, or a StatefulSet's ordinal (k8s.io/apimachinery util/rand: no vowels, no 0, 1 and 3).
_RANDOM = "[bcdf-hj-np-tv-xz24-9]"
_POD_SUFFIX = re.compile(rf"(?:-{_RANDOM}{{6,10}}|-[0-9]{{8,}})?-(?:{_RANDOM}{{5}}|[0-9]+)\Z")
_USER = re.compile(r" \(user [0-9]+\)\Z")
_BY_ID = re.compile(r"([a-z][a-z0-9-]*) [0-9a-f]{12}\Z|(cgroup) [0-9]+( \(removed\))?\Z")
_LIBVIRT = re.compile(r"(?<=\Amachine qemu-)[0-9]+(?=-)")
_PID = re.compile(r" \(pid [0-9]+\)")


class LargestHolder(NamedTuple):
    """Who holds most of what is short, of those with a name: ``held`` of the ``total`` that the host counts."""

    gauge: GaugeName
    name: str
    holder: Holder
    held: int
    total: int
    is_main: bool


def largest_holder(
    holders: Sequence[Holder], gauge: GaugeName, limit: int | None, witness: Witness | None = None
) -> LargestHolder | None:
    """Find who holds most of one gauge: the first of the ``holders``, which add up to what the host counts.

    ``limit`` is in sockets or bytes. Of orphans the dump shows the survivors: with those that the trace saw killed, it
    has to be most of all.
    """
    amounts = [each.orphans if gauge == "orphans" else each.bytes for each in holders]
    name = name_of(holders[0]) if holders and amounts[0] else None
    if name is None:
        return None
    held, total = amounts[0], sum(amounts)
    least = max(ORPHANS_WORTH_NAMING if gauge == "orphans" else 0, _PART_WORTH_NAMING * (limit or 0))
    own, killed = _kills(witness, holders[0]) if gauge == "orphans" else (0, 0)
    is_most = 2 * held >= total and 2 * (held + own) >= total + killed
    return LargestHolder(gauge, name, holders[0], held, total, is_main=is_most and held >= least)


def _kills(witness: Witness | None, holder: Holder) -> tuple[int, int]:
    """Return how many sockets of a holder the trace saw killed, and of all those that it can name."""
    named = [each for each in (witness.by if witness else ()) if name_of(each)]
    place = lasting_name(holder)
    return sum(each.kills for each in named if lasting_name(each) == place), sum(each.kills for each in named)


def gauge_of(cause: Cause) -> GaugeName:
    """Return what holders are ranked by for a cause: orphans also where both were short, or either may have been."""
    return "orphans" if cause in ("orphans", "both", "undetermined") else "tcp_memory"


def largest_of(diagnosis: Diagnosis, witness: Witness | None = None) -> LargestHolder | None:
    """Find who holds most of what a diagnosis says was short; the main holder only where it knows what was."""
    gauge, mechanism = gauge_of(diagnosis.cause), diagnosis.mechanism
    limits = mechanism.tcp_mem_bytes
    limit = mechanism.tcp_max_orphans if gauge == "orphans" else limits[2] if limits else None
    found = largest_holder(diagnosis.holders, gauge, limit, witness)
    known = diagnosis.cause not in ("undetermined", "none")
    return found and found._replace(is_main=found.is_main and known)


def main_holder(diagnosis: Diagnosis, witness: Witness | None = None) -> LargestHolder | None:
    """Find who holds what ran out: None where no one has half of it, or too little is left of it to say."""
    found = largest_of(diagnosis, witness)
    return found if found and found.is_main else None


def main_victim(witness: Witness | None) -> tuple[str, WitnessedBy] | None:
    """Find whose sockets were most of those that the kernel killed, those unseen included, and many."""
    first = witness.by[0] if witness and witness.kills and witness.by else None
    name = name_of(first) if first else None
    if witness is None or first is None or name is None or first.unit == OTHERS:
        return None
    killed = (witness.kills or 0) + (witness.unseen or 0)
    return (name, first) if 2 * first.kills > killed and first.kills >= ORPHANS_WORTH_NAMING else None


def losers_named(findings: Sequence[Finding]) -> str:
    """Name the two whose sockets lose most data; "" where that is not known."""
    known = [finding.evidence for finding in findings if finding.claim == "sockets_lose_data"]
    # Whose namespace was entered is known both by its sockets and by its counters.
    names = dict.fromkeys(str(each.value) for evidence in known for each in evidence if each.name == LOSES)
    return " and ".join([*names][:2])


def name_of(holder: Holder | WitnessedBy) -> str | None:
    """Return one name for a holder that is safe in any text; None for the remainder."""
    place = " in ".join(filter(None, (holder.unit, holder.container)))
    if place and holder.unit is None and holder.process:
        place += f" ({holder.process})"
    return _shown(place or holder.process)


def _shown(name: str | None) -> str | None:
    """Make a name safe in any text; None for an empty one."""
    return _KERNEL_TEXT.sub("…", printable(name, _NAME_AT_MOST)) if name else None


def guess_text(holder: Holder | WitnessedBy) -> str:
    """Return that a holder is a guess, and from what; nothing where a cgroup or an open socket names it."""
    if not holder.guess:
        return ""
    return f"a guess: it serves port {holder.ports[0]}" if holder.ports else "a guess: no cgroup says so"


def marked(name: str, holder: Holder | WitnessedBy) -> str:
    """Put the mark of a guess behind the name of a holder."""
    return f"{name} ({mark})" if (mark := guess_text(holder)) else name


def lasting_name(holder: Holder | WitnessedBy) -> str | None:
    """Return one name for a holder that outlasts its processes, safe in any text; None for the remainder."""
    place = " in ".join(filter(None, map(lasting_place, (holder.unit, holder.container))))
    program = _unnumbered(_PID.split(holder.process)[0], _NUMBER) if holder.process else None
    if place.endswith(" *") and program:
        place += f" ({program})"
    return _shown(place or program)


def lasting_place(name: str | None) -> str | None:
    """Return the lasting part of the name of a unit or a container: one that is known by an id alone is "docker *"."""
    if name is None:
        return None
    if pod := pod_of(name):
        return _POD_SUFFIX.sub("-*", pod) if "/" in pod else "pod *"
    user = match[0] if (match := _USER.search(name)) else ""
    bare = name.removesuffix(user)
    if match := _BY_ID.match(bare):
        return f"{match[1] or match[2]} *"
    if bare.startswith("cgroup "):
        return _unnumbered(bare, _NUMBER) + user
    return (_lasting_unit(bare) if "." in bare else _LIBVIRT.sub("*", bare)) + user


def _lasting_unit(name: str) -> str:
    stem, _, kind = name.rpartition(".")
    template, at, _ = stem.partition("@")
    own = kind in ("service", "socket") and not stem.startswith(("run-", "dbus-"))
    lasting = _unnumbered(template, _LONG_NUMBER if own else _NUMBER)
    return f"{lasting}@*.{kind}" if at else f"{lasting}.{kind}"


def _unnumbered(name: str, numbers: re.Pattern[str]) -> str:
    """Put * for the numbers in a name; one that is a number as a whole was chosen, as Proxmox's 101.scope is."""
    found = _STARS.sub("*", numbers.sub("*", name))
    return found if any(char.isalpha() for char in found) else name
