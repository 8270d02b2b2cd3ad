"""How many orphans there would have been: the kernel resets what is above the limit, so that the peak is capped.

Little's law: resets per second (TCPAbortOnMemory) times the time that an orphan lives here. That time is the one of an
orphan whose peer is gone: net/ipv4/tcp_timer.c, tcp_orphan_retries(), and 200 ms doubled with every retry.
"""

from agent.core.case import Case, first_of
from agent.core.model import Evidence, Finding

RETRIES_OF_ZERO = 8
_RTO_SECONDS = 0.2
_RTO_MAX_SECONDS = 120.0
# The kernel doubles the first 200 ms with each retry, and stops doubling at 120 s.
_DOUBLINGS = 9
# A burst within one sampling interval is no rate.
_LEAST_SECONDS = 10.0


def orphan_life_seconds(retries: int) -> float:
    """Tell how long an orphan lives whose peer is gone; 0 retries mean 8."""
    count = RETRIES_OF_ZERO if retries == 0 else max(retries, 0)
    doubled = min(count, _DOUBLINGS)
    return ((2 << doubled) - 1) * _RTO_SECONDS + (count - doubled) * _RTO_MAX_SECONDS


def resets_per_second(case: Case) -> float | None:
    """Tell how many orphans the kernel reset a second; None where that is not known, or may be for the memory."""
    kills, seconds = case.kills, case.delta_seconds
    # An old text names no cause: then the count has to be near the limit, and the memory not.
    meant = "orphans" in case.said or (bool(case.said) and not case.named and case.gauges.shift is not None)
    about_memory = "tcp_memory" in case.said or case.gauges.memory_full
    if not meant or about_memory or not kills or seconds is None or case.stale:
        return None
    return kills / max(seconds, _LEAST_SECONDS)


def beyond_limit(case: Case) -> int | None:
    """Estimate how many orphans were not there because they had been reset; None where nothing tells."""
    retries, rate = first_of(case.snapshot, "net.ipv4.tcp_orphan_retries"), resets_per_second(case)
    if retries is None or rate is None:
        return None
    return round(rate * orphan_life_seconds(retries))


def orphan_demand_above_limit(case: Case) -> Finding | None:
    """Remark that the peak is capped, with the estimate of what was asked for."""
    more, rate, limit = beyond_limit(case), resets_per_second(case), case.gauges.orphan_limit
    retries = first_of(case.snapshot, "net.ipv4.tcp_orphan_retries")
    if not more or rate is None or retries is None or not limit or limit <= 0:
        return None
    return Finding(
        claim="orphan_demand_above_limit",
        cause="orphans",
        confidence="possible",
        evidence=(
            Evidence(name="resets", value=round(rate, 1), unit="a second", source="net/netstat"),
            Evidence(
                name="life of an orphan whose peer is gone",
                value=round(orphan_life_seconds(retries), 1),
                unit="seconds",
                source="sys/net/ipv4/tcp_orphan_retries",
            ),
            Evidence(name="orphans beyond the limit", value=more, limit=limit, unit="sockets", source="estimate"),
        ),
    )
