"""The host, as it is at one moment: what decays in milliseconds is read first, what is missing becomes a gap."""

from agent.probe.sample import take_sample
from agent.probe.snapshot import take_snapshot

__all__ = ["take_sample", "take_snapshot"]
