"""What attribution works on this host, and which permission of the service would add what.

The checks are about the service, not the caller: they ask systemd what the unit has, drop-ins included.
Mirrors sock_diag(7), capabilities(7), proc(5), setns(2). A sample of ``systemctl show``:

    User=sockmem-agent
    CapabilityBoundingSet=cap_sys_ptrace cap_dac_read_search
    AmbientCapabilities=cap_sys_ptrace cap_dac_read_search
    RestrictNamespaces=net
"""

import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from agent.cli.checks import Check, dump_sockets
from agent.cli.unit import PATIENCE_SECONDS, UNIT, ask
from agent.core.format import count_text, counted
from agent.core.readings import ROOT_CGROUP, Gap, Namespace
from agent.core.sockets.census import Census
from agent.core.sockets.holders import place_text
from agent.probe.cgroups import CGROUP_ROOT, socket_memory
from agent.probe.namespaces import find_namespaces

PROPERTIES = ("LoadState", "User", "CapabilityBoundingSet", "AmbientCapabilities", "RestrictNamespaces")
# Opening the directory of open files takes the first, reading its links the second (fs/proc/fd.c, ptrace(2)).
TO_SEE_PROCESSES = ("CAP_DAC_READ_SEARCH", "CAP_SYS_PTRACE")
# setns(2) takes the first, opening another user's /proc/PID/ns/net the second.
TO_ENTER_NAMESPACES = ("CAP_SYS_ADMIN", "CAP_SYS_PTRACE")
_SHOWN = 3


class Rights(NamedTuple):
    """The privileges of the service; ``source`` says where they were read."""

    capabilities: frozenset[str]
    enters_namespaces: bool
    source: str


# The privileges of the shipped unit.
SHIPPED = Rights(frozenset(), enters_namespaces=False, source=f"{UNIT} as shipped (not installed on this host)")


def check_reach(rights: Rights, proc_root: Path = Path("/proc"), cgroup_root: Path = CGROUP_ROOT) -> list[Check]:
    """Check everything attribution needs, the most valuable first."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    return [
        check_socket_cgroups(ask_own_cgroup()),
        check_group_memory(cgroup_root),
        check_processes(rights),
        check_namespaces(rights, find_namespaces(proc_root, deadline)),
    ]


def read_rights(show: Callable[[], str] | None = None) -> Rights:
    """Read the privileges of the installed unit from systemd, else return those of the shipped one."""
    facts = dict(line.split("=", 1) for line in (show or ask_systemd)().splitlines() if "=" in line)
    if facts.get("LoadState") != "loaded":
        return SHIPPED
    bounding, ambient = (
        frozenset(facts.get(name, "").upper().split()) for name in ("CapabilityBoundingSet", "AmbientCapabilities")
    )
    is_root = facts.get("User", "") in {"", "root", "0"}
    # The service may enter a type that is listed; "no" restricts none.
    allowed = facts.get("RestrictNamespaces", "no").split()
    return Rights(bounding if is_root else bounding & ambient, bool({"net", "no"} & set(allowed)), f"systemd's {UNIT}")


def ask_systemd() -> str:
    """Ask systemd for the properties of the unit; "" where there is no systemd to ask."""
    with suppress(OSError):
        return ask("systemctl", "show", UNIT, f"--property={','.join(PROPERTIES)}").decode()
    return ""


def ask_own_cgroup() -> int | Gap | None:
    """Listen on loopback for a moment and ask the kernel for the cgroup of that socket; None: it reports none."""
    try:
        listener = socket.create_server(("127.0.0.1", 0))
    except OSError as error:
        return Gap(what="loopback", why=f"cannot open a test socket on 127.0.0.1: {error.strerror}")
    census = Census()
    with listener:
        port = listener.getsockname()[1]
        gaps = dump_sockets(census)
    found = [cgroup for _, its_port, cgroup in census.listeners if its_port == port]
    others = [cgroup for *_, cgroup in census.listeners]
    return next(iter([*found, *others, *gaps]), None)


def check_socket_cgroups(own: int | Gap | None) -> Check:
    """Check that the kernel reports the cgroup of a socket, by which an orphan is attributed to its unit."""
    name = "unit of orphans"
    guess = "orphans are attributed to the unit that listens on their port, a guess"
    if isinstance(own, Gap):
        return Check(name, "warn", own.why, "see sock_diag")
    if own is None:
        fix = "use kernel 5.8 or newer, with CONFIG_SOCK_CGROUP_DATA"
        return Check(name, "warn", f"no cgroup ids: {guess}", fix)
    if own == ROOT_CGROUP:
        return Check(name, "warn", f"cgroup v1: {guess}", "boot with systemd.unified_cgroup_hierarchy=1")
    return Check(name, "ok", "the kernel reports the cgroup of every socket, orphans included")


def check_group_memory(root: Path) -> Check:
    """Check that some cgroup reports its socket memory."""
    name = "memory of groups"
    found, _ = socket_memory(root, [])
    if found:
        return Check(name, "ok", f"socket memory of {counted(len(found), 'cgroup')} can be read")
    fix = "enable the memory controller of cgroup v2; boot without cgroup.memory=nosocket"
    return Check(name, "warn", "no cgroup reports its socket memory (sock in memory.stat)", fix)


def check_processes(rights: Rights) -> Check:
    """Check whether the service can see which process has a socket open; it can always see the unit."""
    name = "processes"
    missing = [each for each in TO_SEE_PROCESSES if each not in rights.capabilities]
    if not missing:
        return Check(name, "ok", "the service can see which process has a socket open")
    detail = f"holders are named by unit only: the service lacks {' and '.join(missing)}"
    fix = "add the lines below to the unit to name processes too"
    return Check(name, "ok", detail, fix, drop_in=_drop_in(TO_SEE_PROCESSES))


def check_namespaces(rights: Rights, spaces: Sequence[Namespace]) -> Check:
    """Check what the service sees of sockets in other network namespaces (containers): their memory is a privilege."""
    name = "other namespaces"
    holding = sorted((each for each in spaces if each.inuse), key=lambda each: each.inuse or 0, reverse=True)
    if not holding:
        return Check(name, "ok", "no sockets in other network namespaces")
    total = f"{counted(sum(each.inuse or 0 for each in holding), 'socket')} in {counted(len(holding), 'namespace')}"
    names = ", ".join(f"{place_text(each)}: {count_text(each.inuse or 0)}" for each in holding[:_SHOWN])
    missing = [each for each in TO_ENTER_NAMESPACES if each not in rights.capabilities]
    if not rights.enters_namespaces:
        missing.append("RestrictNamespaces=net")
    if not missing:
        return Check(name, "ok", f"the service can see into them: {total} ({names})")
    detail = f"the service sees {total} ({names}), but of their memory only queued data without {', '.join(missing)}"
    fix = "add the lines below if you need all their memory; CAP_SYS_ADMIN is nearly root"
    return Check(name, "ok", detail, fix, drop_in=(*_drop_in(TO_ENTER_NAMESPACES), "RestrictNamespaces=net"))


def _drop_in(capabilities: Sequence[str]) -> tuple[str, ...]:
    both = " ".join(capabilities)
    return ("[Service]", f"CapabilityBoundingSet={both}", f"AmbientCapabilities={both}")
