"""Socket memory of control groups: cgroups(7), the kernel's admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst.

Version 2: ``sock`` in memory.stat of the root and of the groups right below it, in bytes. Version 1: groups with a
limit of their own on TCP memory, ``memory.kmem.tcp.*``; hitting it prints the kernel's tcp_mem text on 3.3 to 4.4.
"""

import os
import re
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice, takewhile
from pathlib import Path

from agent.core.kernel import procfs
from agent.core.readings import FullGroup, Gap
from agent.probe.files import readable_name
from agent.probe.reading import Reading

CGROUP_ROOT = Path("/sys/fs/cgroup")
GROUPS_AT_MOST = 256
DEPTH_AT_MOST = 5
# Above this the kernel reclaims constantly, which affects sockets.
FULL = 0.9
# Unlimited is LONG_MAX rounded down to whole pages, or LLONG_MAX on older kernels: no host has an eighth of that.
UNLIMITED_BYTES = 2**60
# A directory has a link from each one in it, and two of its own; a group has thirty files and more that need no look.
_NO_CHILDREN = 2
_OUTSIDE = re.compile(r"^(?:/\.\.)+(?=/)")


def socket_memory(root: Path, gaps: list[Gap]) -> tuple[dict[str, int], int | None]:
    """Read bytes of socket memory by group, and the sum of refusals (failcnt) of version 1 groups with a limit."""
    is_unified = (root / "cgroup.controllers").exists()
    reading = Reading(root if is_unified else root / "memory")
    found = (_read_unified(reading), None) if is_unified else _read_version_1(reading)
    gaps += reading.gaps
    return found


def full_groups(root: Path, paths: Iterable[str], is_late: Callable[[], bool]) -> list[FullGroup]:
    """Find which of these version 2 cgroups and their parents use 90 % of their own memory limit, the fullest first.

    A group that has no limit or is gone does not count, and leaves no gap: only some groups have these files. Stops
    with what it has once ``is_late``.
    """
    above = {str(each) for path in paths for each in (Path(path), *Path(path).parents)} - {"/"}
    in_time = takewhile(lambda _: not is_late(), sorted(above))
    found = [group for path in in_time if (group := _full_group(root, path)) is not None]
    return sorted(found, key=lambda group: group.current_bytes / group.limit_bytes, reverse=True)


def below_mount(root: Path, paths: Iterable[str], is_late: Callable[[], bool]) -> set[str]:
    """Turn paths of /proc/PID/cgroup into those below the mount: cgroup_namespaces(7).

    A process in a cgroup namespace of its own, as in a pod, is shown "/../../kubepods-pod1.slice/app.scope" for one
    beside it: what is above both has no name there. Such a group is found by the end of its path, unless it
    ``is_late``.
    """
    found, ends = set[str](), defaultdict[str, set[str]](set)
    for path in paths:
        end = _OUTSIDE.sub("", path)
        if end == path:
            found.add(path)
        else:
            ends[end.rpartition("/")[2]].add(end)
    for group in takewhile(lambda _: not is_late(), _walk(root, DEPTH_AT_MOST)) if ends else ():
        path = _name(group)
        if any(path.endswith(end) for end in ends.get(path.rpartition("/")[2], ())):
            found.add(path)
    return found


def _full_group(root: Path, path: str) -> FullGroup | None:
    reading = Reading(root / path.lstrip("/"))
    current = _number(reading, "memory.current")
    # "max" is no number, and no limit.
    limits = [limit for name in ("memory.max", "memory.high") if (limit := _number(reading, name) or 0) > 0]
    if current is None or not limits or current < FULL * min(limits):
        return None
    some = (reading.parse("memory.pressure", procfs.parse_pressure) or {}).get("some")
    return FullGroup(
        path=path,
        current_bytes=current,
        limit_bytes=min(limits),
        sock_bytes=reading.parse("memory.stat", procfs.parse_memory_stat),
        refused=reading.parse("memory.events", procfs.parse_memory_events),
        stalled_percent=some.avg10 if some else None,
    )


def _number(reading: Reading, name: str) -> int | None:
    found = reading.parse(name, procfs.parse_sysctl)
    return found[0] if found else None


def _read_unified(reading: Reading) -> dict[str, int]:
    found = {each: reading.parse(f"{each}memory.stat", procfs.parse_memory_stat) for each in _groups(reading, depth=1)}
    return {_name(each): sock for each, sock in found.items() if sock is not None}


def _read_version_1(reading: Reading) -> tuple[dict[str, int], int | None]:
    found: dict[str, int] = {}
    failures: list[int] = []
    for group in _groups(reading, depth=DEPTH_AT_MOST):
        limit = _number(reading, f"{group}memory.kmem.tcp.limit_in_bytes")
        if limit is None or limit >= UNLIMITED_BYTES:
            continue
        usage = _number(reading, f"{group}memory.kmem.tcp.usage_in_bytes")
        if usage is not None:
            found[_name(group)] = usage
        failcnt = _number(reading, f"{group}memory.kmem.tcp.failcnt")
        if failcnt is not None:
            failures.append(failcnt)
    return found, sum(failures) if failures else None


def _groups(reading: Reading, *, depth: int) -> list[str]:
    """List the root, as "", and the groups below it, as "a/b/": GROUPS_AT_MOST, and a gap if there are more."""
    groups = list(islice(_walk(reading.root, depth), GROUPS_AT_MOST + 1))
    if len(groups) > GROUPS_AT_MOST:
        reading.miss("", f"more than {GROUPS_AT_MOST} groups: the others were not read")
    return groups[:GROUPS_AT_MOST]


def _walk(root: Path, depth: int) -> Iterator[str]:
    """Walk the groups level by level, sorted by name."""
    waiting = deque([("", depth)])
    while waiting:
        group, left = waiting.popleft()
        yield group
        if left:
            waiting.extend((f"{group}{child}/", left - 1) for child in _children(f"{root}/{group}"))


def _children(group: str) -> list[str]:
    try:
        if os.stat(group).st_nlink == _NO_CHILDREN:  # noqa: PTH116 - half the time of Path's
            return []
        with os.scandir(group) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except OSError:
        return []  # A group that was removed in the meantime holds nothing.


def _name(group: str) -> str:
    return "/" + readable_name(group.removesuffix("/"))
