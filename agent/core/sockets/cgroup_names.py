r"""The path of a cgroup to the name that an administrator knows it by: systemd.unit(5), and container engines' own.

Mirrors cg_path_get_unit() of systemd's src/basic/cgroup-util.c: slices are skipped, and the first unit below them is
it, for a service that may make groups of its own (Delegate=) could call one of them "nginx.service". Samples::

    /system.slice/nginx.service
    /user.slice/user-1000.slice/user@1000.service/app.slice/proxy.service
    /system.slice/docker-<64 hex digits>.scope                         /docker/<64 hex digits>
    /kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<uid>.slice/cri-containerd-<64 hex digits>.scope
    /machine.slice/libpod-<64 hex digits>.scope/container              /lxc.payload.web/system.slice/nginx.service

Paths are chosen by anyone who may make a cgroup: what is not plain text is escaped, and lengths are bounded.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from agent.core.format import printable
from agent.core.readings import FullGroup

NAME_AT_MOST = 100
PATH_AT_MOST = 1024
_SHORT_ID = 12
_DELETED = " (deleted)"

_HEX = "(?P<id>[0-9a-f]{64})"
_SCOPE = re.compile(rf"(?P<engine>[a-z][a-z0-9-]{{1,30}}?)[-:]{_HEX}(?:\.scope)?", re.ASCII)
# containerd below systemd's driver, misread by old runc: "kubepods-burstable-pod<uid>.slice:cri-containerd:<id>".
_TRIPLE = re.compile(rf"(?P<slice>.*\.slice):(?P<engine>[a-z][a-z0-9-]{{1,30}}):{_HEX}", re.ASCII)
_BARE = re.compile(rf"{_HEX}(?:-[0-9]{{1,12}})?", re.ASCII)
_POD = re.compile(
    r"(?:(?:kubelet-)?kubepods-(?:besteffort-|burstable-)?)?pod(?P<uid>[0-9a-f][0-9a-f_-]{30,35})(?:\.slice)?", re.ASCII
)
_IN_POD = re.compile(r"\(pod [^)]+\)|^pod .+")
_POD_UID = re.compile(r"\bpod ([0-9a-f-]{31,36})\b", re.ASCII)
_LXC = re.compile(r"lxc\.(?:payload|monitor)\.(?P<name>.+)", re.DOTALL)
_NSPAWN = re.compile(r"systemd-nspawn@(?P<name>.+)\.service", re.DOTALL)
_MACHINE = re.compile(r"machine-(?P<name>.+)\.scope", re.DOTALL)
_MANAGER = re.compile(r"user@(?P<uid>[0-9]{1,10})\.service", re.ASCII)
_USER_SLICE = re.compile(r"user-(?P<uid>[0-9]{1,10})\.slice", re.ASCII)
_ESCAPE = re.compile(r"\\x([0-9a-f]{2})", re.ASCII)
# Units that have a group of their own, but for slices: systemd opens the listener of a socket unit in that unit's.
_UNITS = (".service", ".scope", ".socket", ".mount", ".swap")
# What engines call their parent groups, where the container's own group is a bare id.
_ENGINES = {"docker": "docker", "libpod_parent": "libpod", "ecs": "ecs", "lxc": "lxc"}


class Owner(NamedTuple):
    """Whom a cgroup or a socket belongs to; ``process`` only where neither of the others is known.

    All are None for the root group and for a group without a known name.
    """

    unit: str | None = None
    container: str | None = None
    process: str | None = None

    @property
    def text(self) -> str:
        """All of it in one text."""
        return " in ".join(filter(None, self))


@lru_cache(maxsize=1024)
def name_cgroup(path: str) -> Owner:
    """Name the unit and the container of a cgroup by its path; a group of no known kind goes by its path."""
    parts = [part for part in path.removesuffix(_DELETED).split("/") if part not in {"", ".", ".."}]
    unit = container = user = None
    above = ""
    for part in parts:
        found = _container(part, above, parts)
        if container is None:
            slice_user = _USER_SLICE.fullmatch(part)
            user = user or (slice_user and slice_user["uid"])
            container = found
        if unit is None and _is_unit(part) and found is None:
            unit = part
        above = part
    if unit is None and container is None and (pod := _pod_text(parts)):
        container = pod.strip(" ()")
    if unit is None and container is None and parts:
        manager = next((part for part in parts if _MANAGER.fullmatch(part)), None)
        only_slices = all(part.endswith(".slice") for part in parts)
        unit = manager or (parts[-1] if only_slices else "cgroup /" + "/".join(parts))
    return Owner(_shown(unit, user), _shown(container, user))


def text_of_group(group: FullGroup) -> str:
    """Name a cgroup in one text: its unit and container, its pod by name where that is known; else its path."""
    owner = name_cgroup(group.path)
    pods = {uid: group.pod} if group.pod and (uid := uid_of_pod(owner.container)) else {}
    return owner._replace(container=with_pod_name(owner.container, pods)).text or group.path


def parse_proc_cgroup(text: str) -> str | None:
    """Read /proc/PID/cgroup: the path in the unified hierarchy, in systemd's own, or the longest of the others.

    The first of them that names a container goes before: where a host has both versions, an engine with the cgroupfs
    driver makes groups of version 1 alone, and in the unified hierarchy its containers are in the engine's own.
    Samples: "0::/system.slice/nginx.service", "1:name=systemd:/user.slice", "4:memory:/docker/<id>". None when the
    process is in the root of all.
    """
    paths: dict[str, str] = {}
    for line in text.splitlines():
        fields = line.split(":", 2)
        if len(fields) == 3 and fields[2].strip("/"):  # noqa: PLR2004 - hierarchy:controllers:path
            paths[fields[1]] = fields[2]
    longest = max(paths.values(), key=len, default=None)
    found = [printable(each, PATH_AT_MOST) for each in (paths.get(""), paths.get("name=systemd"), longest) if each]
    return next((each for each in found if name_cgroup(each).container), next(iter(found), None))


def pod_of(container: str | None) -> str | None:
    """Take "pod UID" out of the name of a container; None where it is in no pod."""
    match = _IN_POD.search(container or "")
    return match[0].strip("()") if match else None


def uid_of_pod(container: str | None) -> str | None:
    """Take the UID of the pod out of the name of a container; None where it is in none, or has its name already."""
    match = _POD_UID.search(container or "")
    return match[1] if match else None


def with_pod_name(container: str | None, pods: Mapping[str, str]) -> str | None:
    """Name the pod of a container, "containerd 3f2a9c1be07d (pod shop/web-0)", where its UID is among ``pods``."""
    uid = uid_of_pod(container)
    name = pods.get(uid) if uid else None
    return container.replace(uid, printable(name, NAME_AT_MOST)) if container and uid and name else container


def _container(part: str, above: str, parts: list[str]) -> str | None:
    """Name the container that a group is, if it is one."""
    match = _TRIPLE.fullmatch(part) or _SCOPE.fullmatch(part)
    if match:
        engine = match["engine"].removeprefix("cri-").removesuffix("-conmon").removesuffix("-payload")
        return f"{engine} {match['id'][:_SHORT_ID]}" + _pod_text(parts)
    match = _BARE.fullmatch(part)
    if match:
        engine = "ecs" if "ecs" in parts else _ENGINES.get(above, "container")
        return f"{engine} {match['id'][:_SHORT_ID]}" + _pod_text(parts)
    match = _LXC.fullmatch(part)
    if match or above in {"lxc", "lxc.payload"}:
        return f"lxc {match['name'] if match else part}"
    match = _NSPAWN.fullmatch(part) or _MACHINE.fullmatch(part)
    return f"machine {_unescaped(match['name'])}" if match else None


def _pod_text(parts: list[str]) -> str:
    for part in parts:
        triple = _TRIPLE.fullmatch(part)
        match = _POD.fullmatch(triple["slice"] if triple else part)
        if match:
            return f" (pod {match['uid'].replace('_', '-')})"
    return ""


def _is_unit(part: str) -> bool:
    return part.endswith(_UNITS) and not _MANAGER.fullmatch(part)


def _unescaped(name: str) -> str:
    r"""Undo systemd's escapes: "qemu\x2d1\x2dvm" is the machine "qemu-1-vm"."""
    return _ESCAPE.sub(lambda match: chr(int(match[1], 16)), name)


def _shown(name: str | None, user: str | None) -> str | None:
    """Bound a name, and say whose it is where it is a user's own choice."""
    if name is None:
        return None
    return printable(name, NAME_AT_MOST) + ("" if user is None else f" (user {user})")
