"""What the judges of suspects share: the table of a case, what is most of the memory, a claim with its owner."""

from msgspec.structs import replace

from agent.core.case import Case
from agent.core.model import Cause, Confidence, Evidence, Finding
from agent.core.owned import HELD_BY, SOCK_DIAG, Pick, Share, Where, totals
from agent.core.sockets import SocketTable

# Below an eighth of its limit, nobody's memory is the trouble.
WEIGHT = 8
_WEIGHT_WITHOUT_LIMIT_BYTES = 64 << 20


def table_of(case: Case) -> SocketTable:
    """Take the table of sockets; an empty one where there is none."""
    return case.snapshot.sockets or SocketTable()


def counted(what: str, wanted: Where = "orphaned") -> Pick:
    """Count only the sockets of a tally that are ``probing``, ``retransmitting`` or the like."""
    return lambda where, _, tally: replace(tally, sockets=getattr(tally, what)) if where == wanted else None


def is_most(case: Case, table: SocketTable, size: int) -> bool:
    """Say whether these bytes are at least half of all, and all of them enough to matter."""
    total, limits = totals(case, table).bytes, case.gauges.limits_bytes
    enough = limits[2] // WEIGHT if limits and limits[2] > 0 else _WEIGHT_WITHOUT_LIMIT_BYTES
    return total >= enough and 2 * size >= total


def finding_about(claim: str, cause: Cause, sure: Confidence, share: Share | None, *proof: Evidence) -> Finding:
    """Put a claim together with its numbers, and the name behind them where there is one."""
    named = share is not None and share.name is not None
    owner = (Evidence(name=HELD_BY, value=share.name or "", source=SOCK_DIAG),) if share and named else ()
    return Finding(claim=claim, cause=cause, confidence=sure, evidence=(*owner, *proof))
