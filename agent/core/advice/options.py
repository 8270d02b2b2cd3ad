"""Socket options that bound what a connection holds, as far as this kernel has them: tcp(7), socket(7).

TCP_USER_TIMEOUT is in 2.6.37 and newer; of RHEL 6, 6.8 has it, 6.4 has not. TCP_NOTSENT_LOWAT came in 3.12 together
with its sysctl, as it did to the older kernels of distributions that have it.
"""

from agent.core.facts import Facts

_LOWAT_SYSCTL = "net.ipv4.tcp_notsent_lowat"


def socket_options(facts: Facts) -> str:
    """Return how a program bounds what it leaves unsent and gives up on dead peers, as a part of a sentence."""
    version = facts.kernel.version if facts.kernel else None
    has_lowat = version is None or version >= (3, 12) or _LOWAT_SYSCTL in facts.snapshot.sysctls
    has_timeout = version is None or version >= (2, 6, 37)
    lowat, timeout = "TCP_NOTSENT_LOWAT, " if has_lowat else "", "TCP_USER_TIMEOUT, " if has_timeout else ""
    return f"bound unsent data ({lowat}SO_SNDBUF), give up on dead peers ({timeout}keepalive)"
