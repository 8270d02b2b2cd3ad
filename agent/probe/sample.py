"""The gauges and counters only, cheap enough to read every ten seconds."""

from datetime import datetime
from functools import partial
from pathlib import Path

from agent.core.kernel import procfs
from agent.core.kernel.limits import COUNTERS, make_sample
from agent.core.model import Sample
from agent.probe.counters import Counters
from agent.probe.pagesize import is_this_host
from agent.probe.reading import Reading
from agent.probe.snapshot import LIMITS, read_sysctl


def take_sample(proc_root: Path, now: datetime, counters: Counters | None = None) -> Sample:
    """Read sockstat, its limits, the counters and the pressure flag; what cannot be read is None.

    ``counters`` adds those of the other network namespaces, where the tree is this host's own.
    """
    reading = Reading(proc_root)
    sockstat = reading.parse("net/sockstat", procfs.parse_sockstat)
    netstat = reading.parse("net/netstat", partial(procfs.parse_netstat, only=COUNTERS)) or {}
    snmp = reading.parse("net/snmp", procfs.parse_udp_errors) or {}
    protocol = reading.parse("net/protocols", procfs.parse_protocols)
    sysctls = {key: value for key in LIMITS if (value := read_sysctl(reading, key)) is not None}
    boot_id = reading.parse("sys/kernel/random/boot_id", procfs.parse_word)
    elsewhere = counters.read() if counters and is_this_host(proc_root) else None
    return make_sample(now, boot_id, sockstat, sysctls, {**netstat, **snmp}, protocol=protocol, elsewhere=elsewhere)
