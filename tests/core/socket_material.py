"""Tables of sockets for tests: small ones by hand, and any that the structs can hold."""

from typing import Any

from hypothesis import strategies as st

from agent.core.readings import (
    STATES,
    FullGroup,
    Listener,
    Namespace,
    PeerTally,
    Process,
    SocketGroup,
    SocketTable,
    Sockstat,
    State,
    Tally,
    TcpSockstat,
)

NGINX, SHOP = 3001, 3002
PATHS = {1: "/", NGINX: "/system.slice/nginx.service", SHOP: "/system.slice/shop.service"}


def tally(sockets: int, each: int = 4096, **others: int) -> Tally:
    return Tally(sockets=sockets, bytes=sockets * each, **others)


def make_group(cgroup: int | None = NGINX, port: int | None = 443, **states: Tally | Any) -> SocketGroup:
    """Make a group; a state goes to the orphans unless it is one that only open sockets have."""
    facts: dict[str, Any] = {"cgroup": cgroup, "port": port, "held": {}, "orphaned": {}}
    for name, value in states.items():
        if name in {"established", "close_wait"}:
            facts["held"][name] = value
        elif name in STATES:
            facts["orphaned"][name] = value
        else:
            facts[name] = value
    return SocketGroup(**facts)


def make_table(
    *groups: SocketGroup, orphan: int | None = None, mem: int | None = None, alloc: int | None = None, **others: Any
) -> SocketTable:
    """Make a whole table; what sockstat says is what the groups have, unless told."""
    tcp = TcpSockstat(
        orphan=sum(group.orphans for group in groups) if orphan is None else orphan,
        mem=sum(group.bytes for group in groups) // 4096 if mem is None else mem,
        alloc=sum(group.sockets for group in groups) if alloc is None else alloc,
    )
    facts: dict[str, Any] = {"paths": PATHS, "complete": True, "sockstat": Sockstat(tcp=tcp)}
    return SocketTable(groups=groups, **(facts | others))


counts = st.integers(0, 2**40) | st.integers(0, 5000)
cgroups = st.none() | st.sampled_from([1, NGINX, SHOP, 77])
ports = st.none() | st.integers(0, 65535)
names = st.text(max_size=20) | st.sampled_from(["nginx", "haproxy", "x (pid 1), y"])
processes = st.none() | st.builds(Process, pid=counts, name=names, cgroup=st.none() | names)
tallies: st.SearchStrategy[Tally] = st.builds(Tally, **dict.fromkeys(Tally.__struct_fields__, counts))
states: st.SearchStrategy[dict[State, Tally]] = st.dictionaries(st.sampled_from(STATES), tallies, max_size=3)
peers = st.builds(
    PeerTally,
    network=st.none() | st.text(max_size=8) | st.sampled_from(["203.0.113.0/24", "10.1.2.0/24", "2001:db8::/64"]),
    sockets=counts,
    orphans=counts,
    bytes=counts,
)
groups = st.builds(
    SocketGroup,
    cgroup=cgroups,
    port=ports,
    to_port=ports,
    held=states,
    queued=states,
    orphaned=states,
    peers=st.lists(peers, max_size=2).map(tuple),
    process=processes,
    folded=st.booleans(),
)
listeners = st.builds(
    Listener, port=st.integers(0, 65535), waiting=counts, backlog=counts, cgroup=cgroups, process=processes
)
sums = st.none() | counts
tables = st.builds(
    SocketTable,
    groups=st.lists(groups, max_size=4).map(tuple),
    listeners=st.lists(listeners, max_size=2).map(tuple),
    listening=counts,
    paths=st.dictionaries(st.sampled_from([1, NGINX, SHOP]), names | st.sampled_from(list(PATHS.values()))),
    namespaces=st.lists(st.builds(Namespace, process=processes.filter(bool), inuse=sums, number=sums), max_size=1).map(
        tuple
    ),
    full_groups=st.lists(
        st.builds(FullGroup, path=names, current_bytes=counts, limit_bytes=counts, sock_bytes=sums, refused=sums),
        max_size=2,
    ).map(tuple),
    sockstat=st.none() | st.builds(Sockstat, tcp=st.builds(TcpSockstat, orphan=sums, mem=sums, alloc=sums)),
    complete=st.booleans(),
)
