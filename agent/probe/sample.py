"""The gauges and counters only, cheap enough to read every ten seconds."""

from datetime import datetime
from pathlib import Path

from agent.core.kernel import procfs
from agent.core.kernel.limits import make_sample
from agent.core.model import Sample
from agent.probe.reading import Reading
from agent.probe.snapshot import LIMITS, read_sysctl


def take_sample(proc_root: Path, now: datetime) -> Sample:
    """Read sockstat, its limits, the TcpExt counters and the pressure flag; what cannot be read is None."""
    reading = Reading(proc_root)
    sockstat = reading.parse("net/sockstat", procfs.parse_sockstat)
    netstat = reading.parse("net/netstat", procfs.parse_netstat) or {}
    protocol = reading.parse("net/protocols", procfs.parse_protocols)
    sysctls = {key: value for key in LIMITS if (value := read_sysctl(reading, key)) is not None}
    boot_id = reading.parse("sys/kernel/random/boot_id", procfs.parse_word)
    return make_sample(now, boot_id, sockstat, sysctls, netstat, protocol=protocol)
