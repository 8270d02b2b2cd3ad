"""How far attribution reaches on this host: what works, and which permission of the service would add what.

It is about the service, not about whoever runs the doctor: what the unit has, drop-ins included, is asked of systemd.
Mirrors sock_diag(7), capabilities(7), proc(5), setns(2). A sample of ``systemctl show``:

    User=sockmem-agent
    CapabilityBoundingSet=cap_sys_ptrace cap_dac_read_search
    AmbientCapabilities=cap_sys_ptrace cap_dac_read_search
    RestrictNamespaces=net
"""

import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from agent.cli.checks import Check
from agent.cli.unit import UNIT
from agent.core.format import count_text
from agent.core.readings import ROOT_CGROUP, Gap, Namespace
from agent.core.sockets.census import Census
from agent.core.sockets.holders import place_text
from agent.probe import sockdiag
from agent.probe.cgroups import CGROUP_ROOT, socket_memory
from agent.probe.namespaces import find_namespaces

PROPERTIES = ("LoadState", "User", "CapabilityBoundingSet", "AmbientCapabilities", "RestrictNamespaces")
PATIENCE_SECONDS = 5.0
# Opening the directory of open files takes the first, reading its links the second (fs/proc/fd.c, ptrace(2)).
TO_SEE_PROCESSES = ("CAP_DAC_READ_SEARCH", "CAP_SYS_PTRACE")
# setns(2) takes the first, opening another user's /proc/PID/ns/net the second.
TO_ENTER_NAMESPACES = ("CAP_SYS_ADMIN", "CAP_SYS_PTRACE")
_SHOWN = 3


class Rights(NamedTuple):
    """What the service may do beyond what everybody may; ``source`` says how that is known."""

    capabilities: frozenset[str]
    enters_namespaces: bool
    source: str


# What the unit has that comes with the program.
SHIPPED = Rights(frozenset(), enters_namespaces=False, source=f"{UNIT} as it is shipped (not installed here)")


def check_reach(rights: Rights, proc_root: Path = Path("/proc"), cgroup_root: Path = CGROUP_ROOT) -> list[Check]:
    """Check all that attribution rests on, the most valuable first."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    return [
        check_socket_cgroups(ask_own_cgroup()),
        check_group_memory(cgroup_root),
        check_processes(rights),
        check_namespaces(rights, find_namespaces(proc_root, deadline)),
    ]


def read_rights(show: Callable[[], str | None] | None = None) -> Rights:
    """Read what the unit has of systemd; where it is not installed, what it has as shipped."""
    facts = dict(line.split("=", 1) for line in ((show or ask_systemd)() or "").splitlines() if "=" in line)
    if facts.get("LoadState") != "loaded":
        return SHIPPED
    bounding, ambient = (
        frozenset(facts.get(name, "").upper().split()) for name in ("CapabilityBoundingSet", "AmbientCapabilities")
    )
    is_root = facts.get("User", "") in {"", "root", "0"}
    # A type that is listed is one that the service may still enter; "no" restricts none.
    allowed = facts.get("RestrictNamespaces", "no").split()
    return Rights(bounding if is_root else bounding & ambient, bool({"net", "no"} & set(allowed)), f"systemd's {UNIT}")


def ask_systemd() -> str | None:
    """Ask systemd for the properties of the unit; None where there is no systemd to ask."""
    command = ["systemctl", "show", UNIT, f"--property={','.join(PROPERTIES)}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def ask_own_cgroup() -> int | Gap | None:
    """Listen on loopback for a moment, and ask the kernel for the cgroup of that socket; None: it does not tell any."""
    try:
        listener = socket.create_server(("127.0.0.1", 0))
    except OSError as error:
        return Gap(what="loopback", why=f"no socket can be made at 127.0.0.1 to ask the kernel about: {error.strerror}")
    census = Census()
    with listener:
        netlink = sockdiag.open_socket()
        if isinstance(netlink, Gap):
            return netlink
        port = listener.getsockname()[1]
        # Listeners come first, so that a dump that is cut short has them.
        with netlink:
            gaps = sockdiag.dump(netlink, census, time.monotonic() + 1)
    found = [cgroup for _, its_port, cgroup in census.listeners if its_port == port]
    others = [cgroup for *_, cgroup in census.listeners]
    return next(iter([*found, *others, *gaps]), None)


def check_socket_cgroups(own: int | Gap | None) -> Check:
    """Check that the kernel tells the cgroup of a socket, which names the unit of an orphan, too."""
    name = "unit of orphans"
    guess = "orphans get the unit that listens on their port, a guess"
    if isinstance(own, Gap):
        return Check(name, "warn", own.why, "see sock_diag")
    if own is None:
        mend = "a kernel of 5.8 or newer, with CONFIG_SOCK_CGROUP_DATA"
        return Check(name, "warn", f"no cgroup ids: {guess}", mend)
    if own == ROOT_CGROUP:
        return Check(name, "warn", f"cgroup v1: {guess}", "boot with systemd.unified_cgroup_hierarchy=1")
    return Check(name, "ok", "the kernel tells the cgroup of every socket, orphans included")


def check_group_memory(root: Path) -> Check:
    """Check that some cgroup tells its socket memory."""
    name = "memory of groups"
    found, _ = socket_memory(root, [])
    if found:
        return Check(name, "ok", f"{_counted(len(found), 'cgroup')} with their socket memory")
    mend = "cgroup v2 with the memory controller, and no cgroup.memory=nosocket in /proc/cmdline"
    return Check(name, "warn", "no cgroup tells its socket memory (sock in memory.stat)", mend)


def check_processes(rights: Rights) -> Check:
    """Check whether the service may see which processes have sockets open; units are named without it."""
    name = "processes"
    missing = [each for each in TO_SEE_PROCESSES if each not in rights.capabilities]
    if not missing:
        return Check(name, "ok", "the service sees which process has a socket open")
    detail = f"units are named, but not their processes, without {' and '.join(missing)}"
    mend = "add the lines below to the unit to name processes, too"
    return Check(name, "ok", detail, mend, drop_in=_drop_in(TO_SEE_PROCESSES))


def check_namespaces(rights: Rights, spaces: Sequence[Namespace]) -> Check:
    """Check whether sockets of other network namespaces (containers) are out of the service's sight."""
    name = "other namespaces"
    holding = sorted((each for each in spaces if each.inuse), key=lambda each: each.inuse or 0, reverse=True)
    if not holding:
        return Check(name, "ok", "no sockets in network namespaces other than this one")
    total = f"{_counted(sum(each.inuse or 0 for each in holding), 'socket')} in {_counted(len(holding), 'other')}"
    names = ", ".join(f"{place_text(each)}: {count_text(each.inuse or 0)}" for each in holding[:_SHOWN])
    missing = [each for each in TO_ENTER_NAMESPACES if each not in rights.capabilities]
    if not rights.enters_namespaces:
        missing.append("RestrictNamespaces=net")
    if not missing:
        return Check(name, "ok", f"the service sees into them: {total} ({names})")
    detail = f"{total} are out of the service's sight ({names}) without {', '.join(missing)}"
    mend = "add the lines below where their owners matter to you; CAP_SYS_ADMIN is nearly root"
    return Check(name, "warn", detail, mend, drop_in=(*_drop_in(TO_ENTER_NAMESPACES), "RestrictNamespaces=net"))


def _drop_in(capabilities: Sequence[str]) -> tuple[str, ...]:
    both = " ".join(capabilities)
    return ("[Service]", f"CapabilityBoundingSet={both}", f"AmbientCapabilities={both}")


def _counted(number: int, what: str) -> str:
    return f"{count_text(number)} {what}{'' if number == 1 else 's'}"
