"""What to do about a control group at a limit of its own: of all memory in version 2, of TCP memory in version 1.

Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst.
"""

import shlex

from agent.core.format import bytes_text, printable
from agent.core.model import Advice, Evidence
from agent.core.readings import FullGroup
from agent.core.sockets.cgroup_names import pod_of, text_of_group

_UNIFIED = "/sys/fs/cgroup"


def relieve_group(group: FullGroup) -> Advice:
    """Advise to find out what fills a group, or to raise its limit: the host's limits are not what ran out."""
    name, folder = text_of_group(group), shlex.quote(printable(f"{_UNIFIED}{group.path}"))
    where = " A pod's limit is resources.limits.memory of its containers." if pod_of(name) else ""
    sockets = f", {bytes_text(group.sock_bytes)} of it in sockets" if group.sock_bytes else ""
    return Advice(
        action=f"Raise the memory limit of {name}, or fix what fills it.",
        why=f"It uses {bytes_text(group.current_bytes)} of {bytes_text(group.limit_bytes)}{sockets}, and has hit its "
        f"limit. What its sockets receive counts towards it. Raising tcp_mem changes nothing.{where} Success: max and "
        "high in memory.events stop rising.",
        risk="A higher limit lets the group take more of the host's memory; what sockets hold cannot be swapped.",
        commands=(
            f"grep -E '^(anon|file|sock) ' {folder}/memory.stat",
            f"grep -H . {folder}/memory.current {folder}/memory.max {folder}/memory.high {folder}/memory.events",
        ),
    )


def raise_cgroup_limit(failed: Evidence) -> Advice:
    """Advise where a cgroup's own limit is what was hit; raising tcp_mem would not help."""
    return Advice(
        action="Find the cgroup whose TCP limit was reached; raise that limit or fix its program.",
        why=f"TCP is far below tcp_mem, and cgroups refused {failed.value} charges: kernels 3.3 to 4.4 log the same "
        "message for memory.kmem.tcp.limit_in_bytes. Raising tcp_mem would change nothing.",
        risk="A higher limit lets this cgroup hold more unswappable memory.",
        commands=(
            "find /sys/fs/cgroup -name memory.kmem.tcp.failcnt -exec grep -H -v '^0$' {} +",
            "find /sys/fs/cgroup -name memory.kmem.tcp.max_usage_in_bytes -exec grep -H -v '^0$' {} +",
        ),
    )
