"""Socket memory of control groups: cgroups(7), the kernel's admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst.

Version 2: ``sock`` in memory.stat of the root and of the groups right below it, in bytes. Version 1: groups with a
limit of their own on TCP memory, ``memory.kmem.tcp.*``; hitting it prints the kernel's tcp_mem text on 3.3 to 4.4.
"""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from agent.core.kernel import procfs
from agent.core.readings import FullGroup, Gap
from agent.probe.files import Unreadable, read_text, readable_name

CGROUP_ROOT = Path("/sys/fs/cgroup")
GROUPS_AT_MOST = 256
DEPTH_AT_MOST = 5
# Above this the kernel reclaims constantly, which affects sockets.
FULL = 0.9
# Unlimited is LONG_MAX rounded down to whole pages, or LLONG_MAX on older kernels: no host has an eighth of that.
UNLIMITED_BYTES = 2**60


def socket_memory(root: Path, gaps: list[Gap]) -> tuple[dict[str, int], int | None]:
    """Read bytes of socket memory by group, and the sum of refusals (failcnt) of version 1 groups with a limit."""
    if (root / "cgroup.controllers").exists():
        return _read_unified(root, gaps), None
    hierarchy = root / "memory"
    return _read_version_1(hierarchy, gaps) if hierarchy.is_dir() else ({}, None)


def full_groups(root: Path, paths: Iterable[str]) -> list[FullGroup]:
    """Find which of these version 2 cgroups and their parents use 90 % of their own memory limit, the fullest first.

    A group that has no limit or is gone does not count, and leaves no gap: only some groups have these files.
    """
    above = {str(each) for path in paths for each in (Path(path), *Path(path).parents)} - {"/"}
    found = [group for path in sorted(above)[:GROUPS_AT_MOST] if (group := _full_group(root, path)) is not None]
    return sorted(found, key=lambda group: group.current_bytes / group.limit_bytes, reverse=True)


def _full_group(root: Path, path: str) -> FullGroup | None:
    group = root / path.lstrip("/")
    current = _lenient(group / "memory.current")
    limits = [limit for name in ("memory.max", "memory.high") if (limit := _lenient(group / name))]
    if current is None or not limits or current < FULL * min(limits):
        return None
    stat = read_text(group / "memory.stat")
    events = read_text(group / "memory.events")
    return FullGroup(
        path=path,
        current_bytes=current,
        limit_bytes=min(limits),
        sock_bytes=None if isinstance(stat, Unreadable) else procfs.parse_memory_stat(stat),
        refused=None if isinstance(events, Unreadable) else _refusals(events),
        stalled_percent=_stalled(read_text(group / "memory.pressure")),
    )


def _lenient(path: Path) -> int | None:
    """Read a number; None for "max" and for what cannot be read."""
    text = read_text(path)
    return int(text) if not isinstance(text, Unreadable) and text.strip().isdecimal() and text.isascii() else None


def _refusals(events: str) -> int:
    """Sum how often the limits were hit, from lines like "high 3" and "max 12"."""
    counts = dict(line.split(" ", 1) for line in events.splitlines() if " " in line)
    return sum(int(counts[name]) for name in ("max", "high") if counts.get(name, "").isdecimal())


def _stalled(pressure: str | Unreadable) -> float | None:
    try:
        some = None if isinstance(pressure, Unreadable) else procfs.parse_pressure(pressure).get("some")
    except procfs.ParseError:
        return None
    return some.avg10 if some else None


def _read_unified(root: Path, gaps: list[Gap]) -> dict[str, int]:
    found: dict[str, int] = {}
    for group in _groups(root, depth=1, gaps=gaps):
        text = read_text(group / "memory.stat")
        if isinstance(text, Unreadable):
            _note(group / "memory.stat", text, gaps)
            continue
        try:
            sock = procfs.parse_memory_stat(text)
        except procfs.ParseError as error:
            gaps.append(Gap(what=readable_name(group / "memory.stat"), why=error.why))
            continue
        if sock is not None:
            found[_name(group, root)] = sock
    return found


def _read_version_1(root: Path, gaps: list[Gap]) -> tuple[dict[str, int], int | None]:
    found: dict[str, int] = {}
    failures: list[int] = []
    for group in _groups(root, depth=DEPTH_AT_MOST, gaps=gaps):
        limit = _number(group / "memory.kmem.tcp.limit_in_bytes", gaps)
        if limit is None or limit >= UNLIMITED_BYTES:
            continue
        usage = _number(group / "memory.kmem.tcp.usage_in_bytes", gaps)
        if usage is not None:
            found[_name(group, root)] = usage
        failcnt = _number(group / "memory.kmem.tcp.failcnt", gaps)
        if failcnt is not None:
            failures.append(failcnt)
    return found, sum(failures) if failures else None


def _groups(root: Path, *, depth: int, gaps: list[Gap]) -> list[Path]:
    """List the root and the groups below it, at most GROUPS_AT_MOST; leave a gap if there are more."""
    groups = list(islice(_walk(root, depth), GROUPS_AT_MOST + 1))
    if len(groups) > GROUPS_AT_MOST:
        gaps.append(Gap(what=readable_name(root), why=f"more than {GROUPS_AT_MOST} groups: the others were not read"))
    return groups[:GROUPS_AT_MOST]


def _walk(root: Path, depth: int) -> Iterator[Path]:
    """Walk the groups level by level, sorted by name."""
    waiting = deque([(root, depth)])
    while waiting:
        group, left = waiting.popleft()
        yield group
        if left:
            waiting.extend((child, left - 1) for child in _children(group))


def _children(group: Path) -> list[Path]:
    try:
        with os.scandir(group) as entries:
            return sorted(Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False))
    except OSError:
        return []  # A group that was removed in the meantime holds nothing.


def _number(path: Path, gaps: list[Gap]) -> int | None:
    text = read_text(path)
    if isinstance(text, Unreadable):
        _note(path, text, gaps)
        return None
    try:
        return procfs.parse_sysctl(text, path.name)[0]
    except procfs.ParseError as error:
        gaps.append(Gap(what=readable_name(path), why=error.why))
        return None


def _note(path: Path, reason: Unreadable, gaps: list[Gap]) -> None:
    if not reason.absent:
        gaps.append(Gap(what=readable_name(path), why=reason.why))


def _name(group: Path, root: Path) -> str:
    return "/" + ("" if group == root else readable_name(group.relative_to(root)))
