"""The kernel's own witness: two tracing instances, made by root and read by the service without any privilege."""

from pathlib import Path
from typing import NamedTuple

from agent.core.kernel.tracing import Seen
from agent.core.readings import Gap

TRACEFS = Path("/sys/kernel/tracing")


class Instances(NamedTuple):
    """The directories of the two: one for kills, which a flood of refusals then cannot overwrite."""

    kills: Path
    refusals: Path


def instances(name: str = "sockmem-agent") -> Instances:
    """Name two instances of this host."""
    return Instances(*(TRACEFS / "instances" / f"{name}-{what}" for what in Instances._fields))


# As root sees them, and where the drop-in of the unit shows them to the service.
HOST = instances()
SERVICE = Instances(Path("/run/sockmem-agent/witness/kills"), Path("/run/sockmem-agent/witness/refusals"))


def make(them: Instances = HOST, gid: int | None = None) -> tuple[Gap, ...]:
    """Make the two instances, or set right what was left of them; return what they cannot see, and why.

    ``gid`` is the group that may read them. Takes root.
    """
    raise NotImplementedError


def remove(them: Instances = HOST) -> tuple[Gap, ...]:
    """Remove the two instances; a gap for one that somebody still reads: it is switched off and stays."""
    raise NotImplementedError


class Reader:
    """Reads the two instances; what cannot be opened is tried again at each reading, and is a gap until then."""

    def __init__(self, them: Instances = SERVICE) -> None:
        """Open what there is."""
        raise NotImplementedError

    @property
    def sees_kills(self) -> bool:
        """Whether kills are witnessed now."""
        raise NotImplementedError

    @property
    def sees_refusals(self) -> bool:
        """Whether refusals are witnessed now."""
        raise NotImplementedError

    def read(self) -> Seen:
        """Return what happened since the reading before. Never waits."""
        raise NotImplementedError

    def gaps(self) -> tuple[Gap, ...]:
        """Return what is out of sight now, and why."""
        raise NotImplementedError

    def close(self) -> None:
        """Close both."""
        raise NotImplementedError
