"""Two dumps a few seconds apart: whose sockets lose data now, and which cgroup hits its limit now."""

from msgspec.structs import replace

from agent.core.readings import SocketGroup, SocketTable


def look_twice(first: SocketTable, second: SocketTable, seconds: float) -> SocketTable:
    """Return the first dump with the drops between both, and the full cgroups of the second with what they hit since.

    Sockets that were closed meanwhile took their drops along, so it is the least that was lost. What only one dump has
    a group of its own for counts as nothing.
    """
    drops = {_key(each): each.drops for each in second.groups}
    refused = {each.path: each.refused for each in first.full_groups}
    return replace(
        first,
        groups=tuple(replace(each, drops=max(0, drops.get(_key(each), 0) - each.drops)) for each in first.groups),
        full_groups=tuple(
            each
            if (before := refused.get(each.path)) is None or each.refused is None
            else replace(each, refused_meanwhile=max(0, each.refused - before))
            for each in second.full_groups
        ),
        drops_seconds=round(seconds, 3),
    )


def _key(group: SocketGroup) -> tuple[int | None, ...]:
    return group.namespace, group.cgroup, group.port, group.to_port, group.folded
