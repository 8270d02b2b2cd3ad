"""A change of kernel settings as an advice: the commands for now, the sysctl.d text for good (sysctl.d(5)).

# sockmem-agent: orphaned TCP sockets have room here. It was 65536.
# Put this into /etc/sysctl.d/90-sockmem-tcp_max_orphans.conf, then run: sysctl --system
# /etc/sysctl.conf and files with a later name override this setting: remove it there first.
net.ipv4.tcp_max_orphans = 244736
"""

from agent.core.facts import Facts
from agent.core.gauge import Gauge
from agent.core.kernel.limits import limits_of
from agent.core.model import Advice, Sysctl

TCP_MEM, MAX_ORPHANS = "net.ipv4.tcp_mem", "net.ipv4.tcp_max_orphans"
# Up to this many seconds a socket in FIN-WAIT-2 is no orphan.
FIN_TIMEOUT, FIN_SECONDS = "net.ipv4.tcp_fin_timeout", 60
Value = int | tuple[int, ...]
# Of sysctl(8) and systemd-sysctl(8) alike; the value of today may well come from there.
_LATER = "# /etc/sysctl.conf and files with a later name override this setting: remove it there first.\n"
# Of an engine's container nothing is kept, and its /proc/sys is mostly read-only: network_namespaces(7).
_IN_CONTAINER = (
    "# Set it where this container is started: docker run --sysctl, or securityContext.sysctls of the pod.\n"
    "# In a container with its own init (LXC):\n"
)
# Where settings that outlast a restart are made: by sysctl.d, by TuneD, and by scripts that change one for a moment.
_SETTERS = "/etc /run/sysctl.d /usr/lib/sysctl.d /lib/sysctl.d /usr/lib/tuned /usr/local"


def change(
    facts: Facts,
    key: str,
    current: Value,
    proposed: Value,
    *,
    action: str,
    why: str,
    risk: str,
    reason: str,
    also: dict[str, Value] | None = None,
    checks: tuple[str, ...] = (),
) -> Advice:
    """Advise to set ``key`` to ``proposed``, and with it what is ``also`` to be set; ``checks`` show whether it worked.

    ``reason`` is the one line that the file keeps for those who find it. A file has one key: of two that had the same
    key, the one with the later name would win, whichever was advised last.
    """
    values = {key: proposed, **(also or {})}
    # procps before 3.3 has neither the folder nor the option.
    is_old = facts.kernel is not None and facts.kernel.has_old_tools
    file, load = f"/etc/sysctl.d/90-sockmem-{_name(key)}.conf", "--system"
    file, load = ("/etc/sysctl.conf", "-p") if is_old else (file, load)
    persist = (
        f"# sockmem-agent: {reason} It was {value_text(current)}.\n{_IN_CONTAINER if facts.lacks_limits else ''}"
        f"# Put this into {file}, then run: sysctl {load}\n{'' if is_old else _LATER}"
    )
    write = " ".join(["sysctl -w", *(f"{each}={_quoted(value_text(value))}" for each, value in values.items())])
    write += "   # where /proc/sys is writable" if facts.lacks_limits else ""
    return Advice(
        action=action,
        why=why,
        risk=risk,
        sysctl=Sysctl(key=key, current=current, proposed=proposed),
        commands=(write, *checks),
        persist=f"{persist}{key} = {value_text(proposed)}\n",
    )


def tcp_mem_after(facts: Facts, put_back: Advice | None) -> tuple[int, int, int] | None:
    """Return tcp_mem in pages as a step before sets it, or else as it is."""
    proposed = put_back.sysctl.proposed if put_back and put_back.sysctl else None
    return limits_of(proposed) if isinstance(proposed, tuple) else facts.limits


def unless_raised(facts: Facts, gauge: Gauge) -> str:
    """Say for whom a higher limit is not, where the command may be run again after it was raised."""
    if facts.follows_log or not facts.lines or gauge.is_high:
        return ""
    return " If you raised it after that message, keep it: only a newer message shows that it is still too low."


def find_setter(key: str) -> str:
    """Return the command that finds what sets a key at boot."""
    return f"grep -rs {_name(key)} {_SETTERS}   # what set it"


def value_text(value: Value) -> str:
    """Write a setting as its file has it."""
    return str(value) if isinstance(value, int) else " ".join(map(str, value))


def _name(key: str) -> str:
    return key.rpartition(".")[2]


def _quoted(value: str) -> str:
    return f"'{value}'" if " " in value else value
