"""Reads the host at one moment: what decays in milliseconds first; what is missing becomes a gap."""

from agent.probe.attribution import take_sockets
from agent.probe.counters import Counters
from agent.probe.owners import Names
from agent.probe.sample import take_sample
from agent.probe.snapshot import page_bytes, pages_per_unit, read_boot_id, take_snapshot

__all__ = [
    "Counters",
    "Names",
    "page_bytes",
    "pages_per_unit",
    "read_boot_id",
    "take_sample",
    "take_snapshot",
    "take_sockets",
]
