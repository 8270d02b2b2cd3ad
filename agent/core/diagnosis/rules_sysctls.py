"""Settings that do not fit the host, whatever the cause: against RAM, and against what the kernel gives by default."""

from agent.core.facts import Facts
from agent.core.kernel.limits import are_buffer_sizes, is_far_below
from agent.core.model import Cause, Evidence, Finding

# MemTotal is a few percent off what the kernel computes its default from.
_SLACK_PERCENT = 10
_DEFAULT = "default here"
# What a host of 1 GiB gives itself.
_FEW = 4096


def tcp_mem_holds_buffer_sizes(facts: Facts) -> Finding | None:
    """Claim that tcp_mem has the three numbers of tcp_rmem or tcp_wmem."""
    limits = facts.limits
    if limits is None or _is_default(facts) or not are_buffer_sizes(limits, facts.snapshot.sysctls):
        return None
    return _about_tcp_mem(facts, "tcp_mem_holds_buffer_sizes")


def tcp_mem_above_ram(facts: Facts) -> Finding | None:
    """Claim that the third limit of tcp_mem is above RAM: of another host, in another unit, or unlimited."""
    ram, limits = facts.ram_bytes, facts.limits_bytes
    if not ram or limits is None or limits[2] <= ram or _is_default(facts):
        return None
    return _against("tcp_mem_above_ram", "none", ("tcp_mem[2]", limits[2]), (facts.ram_name, ram), "bytes")


def tcp_mem_out_of_order(facts: Facts) -> Finding | None:
    """Claim that the three limits do not rise: the kernel takes them as they are, and ends pressure where it began."""
    limits = facts.limits
    if limits is None or limits[0] <= limits[1] <= limits[2]:
        return None
    return _about_tcp_mem(facts, "tcp_mem_out_of_order")


def orphan_limit_holds_pages(facts: Facts) -> Finding | None:
    """Claim that tcp_max_orphans has a number of tcp_mem: pages were written where sockets are counted."""
    limit, default = facts.orphans.limit, facts.defaults.tcp_max_orphans
    # A power of two is a round number, and may be in both by chance.
    if limit is None or limit not in (facts.limits or ()) or limit in (0, default) or limit & (limit - 1) == 0:
        return None
    return _against("orphan_limit_holds_pages", "none", ("tcp_max_orphans", limit), (_DEFAULT, default), "sockets")


def tcp_mem_below_default(facts: Facts) -> Finding | None:
    """Claim that the last limit of tcp_mem is less than a third of what this kernel gives itself on this host."""
    limits, default, page = facts.limits, facts.usual_tcp_mem, facts.page_bytes or 0
    said, lasting = "tcp_memory" in facts.lines and not facts.is_alien, facts.press and facts.zone == "hysteresis"
    if (
        not (said or lasting or facts.memory.is_high)
        or limits is None
        or default is None
        or not is_far_below(limits[2], default[2])
    ):
        return None
    now, usual = ("tcp_mem[2]", limits[2] * page), (_DEFAULT, default[2] * page)
    return _against("tcp_mem_below_default", "tcp_memory", now, usual, "bytes")


def orphan_limit_below_default(facts: Facts) -> Finding | None:
    """Claim that tcp_max_orphans is less than a third of what this kernel gives itself on this host, or allows none."""
    limit, default = facts.orphans.limit, facts.defaults.tcp_max_orphans
    if limit is None or not (limit <= 0 or is_far_below(limit, default)):
        return None
    # Where the kernel does not say which limit it was, one that is this low is the likely one.
    unsaid = (facts.is_old or facts.killed_silently) and limit < _FEW
    said = not facts.is_alien and ("orphans" in facts.lines or unsaid)
    if not said and not facts.orphans.is_high:
        return None
    now, usual = ("tcp_max_orphans", limit), (_DEFAULT, default)
    return _against("orphan_limit_below_default", "orphans", now, usual, "sockets")


def tcp_mem_above_half_of_ram(facts: Facts) -> Finding | None:
    """Claim that TCP may take more than half of RAM, which cannot be swapped; no default since 3.0 does."""
    ram, limits = facts.ram_bytes, facts.limits_bytes
    # Up to 2.6.39 three quarters were the default.
    modern = facts.kernel is not None and facts.kernel.version >= (3, 0)
    if not ram or limits is None or not modern or not ram < 2 * limits[2] <= 2 * ram:
        return None
    return _against("tcp_mem_above_half_of_ram", "none", ("tcp_mem[2]", limits[2]), (facts.ram_name, ram), "bytes")


def _is_default(facts: Facts) -> bool:
    """Return whether tcp_mem is what the kernel gives itself here: that is never called wrong."""
    limits, default = facts.limits, facts.defaults.tcp_mem
    if limits is None or default is None:
        return False
    return all(100 * abs(now - usual) <= _SLACK_PERCENT * usual for now, usual in zip(limits, default, strict=True))


def _about_tcp_mem(facts: Facts, claim: str) -> Finding:
    numbers = " ".join(map(str, facts.limits or ()))
    proof = Evidence(name="tcp_mem", value=numbers, unit="pages", source="sys/net/ipv4/tcp_mem")
    return Finding(claim=claim, cause="none", confidence="likely", evidence=(proof,))


def _against(claim: str, cause: Cause, setting: tuple[str, int], measure: tuple[str, int | None], unit: str) -> Finding:
    """Put a claim together with the setting, which is a limit itself, and what it is measured by."""
    key = setting[0].removesuffix("[2]")
    proof = [Evidence(name=setting[0], value=setting[1], unit=unit, source=f"sys/net/ipv4/{key}")]
    if measure[1] is not None:
        proof.append(Evidence(name=measure[0], value=measure[1], unit=unit, source="meminfo"))
    return Finding(claim=claim, cause=cause, confidence="likely", evidence=tuple(proof))
