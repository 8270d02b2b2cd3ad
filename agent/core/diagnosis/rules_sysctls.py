"""Settings that do not fit the host, whatever the cause: against RAM, and against what the kernel gives by default."""

from agent.core.facts import Facts
from agent.core.kernel.release import Kernel
from agent.core.model import Evidence, Finding

# Less than a third of the default is no rounding: somebody has lowered it, or copied it from a smaller host.
_SMALL = 3
_BYTES_OF_A_BUCKET = 128 << 10
_BUCKETS_AT_MOST = 524_288


def tcp_mem_above_ram(facts: Facts) -> Finding | None:
    """Claim that the third limit of tcp_mem is more than the host has: it was written in bytes, and is pages."""
    ram, limits = facts.ram_bytes, facts.limits_bytes
    if not ram or limits is None or limits[2] <= ram:
        return None
    proof = Evidence(name="tcp_mem[2]", value=limits[2], limit=ram, unit="bytes", source="sys/net/ipv4/tcp_mem")
    return Finding(claim="tcp_mem_above_ram", cause="none", confidence="likely", evidence=(proof,))


def tcp_mem_below_default(facts: Facts) -> Finding | None:
    """Claim that the last limit of tcp_mem is less than a third of what this kernel gives itself on this host."""
    ram, limits = facts.ram_bytes, facts.limits_bytes
    part = facts.kernel.default_part_of_ram if facts.kernel else None
    touched = "tcp_memory" in facts.lines or facts.memory.is_high
    if not touched or not ram or limits is None or part is None:
        return None
    # The last limit is half as much again as the second.
    default = 3 * ram // (2 * part)
    if _SMALL * limits[2] >= default:
        return None
    proof = Evidence(name="tcp_mem[2]", value=limits[2], limit=default, unit="bytes (default here)", source="meminfo")
    return Finding(claim="tcp_mem_below_default", cause="tcp_memory", confidence="likely", evidence=(proof,))


def orphan_limit_below_default(facts: Facts) -> Finding | None:
    """Claim that tcp_max_orphans is less than a third of what this kernel gives itself on this host."""
    ram, limit = facts.ram_bytes, facts.orphans.limit
    touched = "orphans" in facts.lines or facts.orphans.is_high
    if not touched or not ram or limit is None or not _hashes_by_128_kib(facts.kernel):
        return None
    buckets = min(1 << (-(-ram // _BYTES_OF_A_BUCKET) - 1).bit_length(), _BUCKETS_AT_MOST)
    default = buckets // 2
    if _SMALL * limit >= default:
        return None
    proof = Evidence(
        name="tcp_max_orphans", value=limit, limit=default, unit="sockets (default here)", source="meminfo"
    )
    return Finding(claim="orphan_limit_below_default", cause="orphans", confidence="likely", evidence=(proof,))


def tcp_mem_above_half_of_ram(facts: Facts) -> Finding | None:
    """Claim that TCP may take more than half of RAM, which cannot be swapped; no default since 3.0 does."""
    ram, limits = facts.ram_bytes, facts.limits_bytes
    # Up to 2.6.39 three quarters were the default.
    modern = facts.kernel is not None and facts.kernel.version >= (3, 0)
    if not ram or limits is None or not modern or not ram < 2 * limits[2] <= 2 * ram:
        return None
    proof = Evidence(name="tcp_mem[2]", value=limits[2], limit=ram, unit="bytes of RAM", source="sys/net/ipv4/tcp_mem")
    return Finding(claim="tcp_mem_above_half_of_ram", cause="none", confidence="likely", evidence=(proof,))


def _hashes_by_128_kib(kernel: Kernel | None) -> bool:
    return kernel is not None and kernel.version[:2] >= (3, 10)
