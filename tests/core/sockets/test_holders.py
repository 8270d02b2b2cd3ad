import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from agent.core.model import Holder
from agent.core.readings import (
    ROOT_CGROUP,
    Gap,
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
    Unlisted,
)
from agent.core.sockets.cgroup_names import Owner
from agent.core.sockets.holders import (
    Order,
    count_unlisted,
    count_unseen_orphans,
    holders,
    name_by_port,
    network_text,
)

NGINX, DOCKER = 4242, 4300
PATHS = {
    ROOT_CGROUP: "/",
    NGINX: "/system.slice/nginx.service",
    DOCKER: "/system.slice/docker-" + "3f2a9c1be07d" + "0" * 52 + ".scope",
}


def sockstat(orphan: int = 0, alloc: int = 0, mem: int = 0) -> Sockstat:
    return Sockstat(tcp=TcpSockstat(orphan=orphan, alloc=alloc, mem=mem))


def orphans(count: int, size: int = 0) -> dict[str, Tally]:
    return {"fin_wait1": Tally(sockets=count, bytes=size)}


def table(*groups: SocketGroup, **fields: object) -> SocketTable:
    return replace(SocketTable(groups=groups, paths=PATHS, complete=True), **fields)


def names(found: tuple[Holder, ...]) -> list[tuple[str | None, str | None, str | None]]:
    return [(each.unit, each.container, each.process) for each in found]


def test_unit_and_container_are_named_by_cgroup_orphans_too() -> None:
    found, gaps = holders(
        table(
            SocketGroup(cgroup=NGINX, port=443, orphaned=orphans(60, 8192), held={"established": Tally(sockets=10)}),
            SocketGroup(cgroup=DOCKER, to_port=5432, held={"established": Tally(sockets=5, bytes=4096)}),
        ),
        sockstat(orphan=60, alloc=75, mem=3),
    )

    assert [("nginx.service", None, None), (None, "docker 3f2a9c1be07d", None), (None, None, None)] == names(found)
    assert Holder(unit="nginx.service", sockets=70, orphans=60, bytes=8192, ports=(443,)) == found[0]
    assert () == gaps


def test_holder_in_another_network_namespace_carries_a_process_to_enter_it_by() -> None:
    space = Namespace(process=Process(pid=4711, name="pause"), inuse=9, number=1)
    found, _ = holders(
        table(
            SocketGroup(cgroup=NGINX, namespace=1, orphaned=orphans(9)),
            SocketGroup(cgroup=NGINX, held={"established": Tally(sockets=2)}),
            SocketGroup(cgroup=DOCKER, held={"established": Tally(sockets=5)}),
            namespaces=(space,),
        ),
        None,
    )

    assert [4711, None, None] == [each.netns_pid for each in found]


def test_remainder_makes_up_the_totals_of_the_host() -> None:
    found, _ = holders(
        table(SocketGroup(cgroup=NGINX, orphaned=orphans(60, 8192))),
        sockstat(orphan=100, alloc=400, mem=10),
        mem_unit_bytes=4096,
    )

    assert Holder(sockets=340, orphans=40, bytes=10 * 4096 - 8192) == found[-1]
    assert 100 == sum(each.orphans for each in found)


def test_unit_of_memory_is_the_hosts() -> None:
    found, _ = holders(table(), sockstat(mem=2), mem_unit_bytes=65536)

    assert [131072] == [each.bytes for each in found]


CONTAINERD, SOCKET_UNIT = 4400, 4500
MADE_BY = PATHS | {CONTAINERD: "/system.slice/containerd.service", SOCKET_UNIT: "/system.slice/web.socket"}
WITHOUT_CONTAINERS = {number: path for number, path in MADE_BY.items() if number != DOCKER}
IN_DOCKER = Process(pid=812, name="nginx", cgroup="/docker/" + "3f2a9c1be07d" + "0" * 52)
IN_UNIT = Process(pid=90, name="web", cgroup="/system.slice/web.service")
SYSTEMD = Process(pid=1, name="systemd", cgroup="/init.scope")


def test_container_is_named_where_version_2_of_cgroups_shows_its_engine_alone() -> None:
    """With both versions and the cgroupfs driver, a container is in the engine's own group of version 2."""
    place = Namespace(process=IN_DOCKER, inuse=40, number=1)
    here = table(
        SocketGroup(cgroup=CONTAINERD, namespace=1, port=80, orphaned=orphans(30)),
        SocketGroup(cgroup=CONTAINERD, port=443, orphaned=orphans(20), process=IN_DOCKER),
        SocketGroup(cgroup=CONTAINERD, port=8443, orphaned=orphans(10)),
        namespaces=(place,),
        listeners=(Listener(port=8443, cgroup=CONTAINERD, process=IN_DOCKER),),
        paths=WITHOUT_CONTAINERS,
    )
    found, _ = holders(here, None, by="orphans")

    assert [(None, "docker 3f2a9c1be07d"), (None, None)] == [each[:2] for each in names(found)]
    assert 60 == found[0].orphans
    assert "docker 3f2a9c1be07d" == name_by_port(here, 80, None).container
    assert "docker 3f2a9c1be07d" == name_by_port(here, 443, None).container


def test_engine_is_named_for_its_own_sockets_in_a_container_where_containers_have_groups() -> None:
    """kubectl port-forward: containerd connects inside the network namespace of the pod."""
    place = Namespace(process=IN_DOCKER, inuse=40, number=1)
    here = table(
        SocketGroup(cgroup=CONTAINERD, namespace=1, to_port=8080, orphaned=orphans(30)),
        SocketGroup(cgroup=DOCKER, namespace=1, port=8080, orphaned=orphans(20)),
        namespaces=(place,),
        paths=MADE_BY,
    )
    found, _ = holders(here, None, by="orphans")

    assert [("containerd.service", 30), (None, 20)] == [(each.unit, each.orphans) for each in found[:2]]


def test_orphans_of_no_namespace_in_sight_are_told_apart_from_sockets_that_are_still_open() -> None:
    """As of a container that has ended: an orphan is in a table, and in no program."""
    here = table(SocketGroup(cgroup=NGINX, held={"established": Tally(sockets=10)}), listening=2)
    left = sockstat(orphan=300, alloc=320)
    _, gaps = holders(here, left)

    assert 8 == count_unlisted(here, left.tcp)
    assert ["orphans of other network namespaces"] == [gap.what for gap in gaps]
    assert "300 orphans of 300 are in network namespaces with no visible process" in gaps[0].why
    uncounted = Namespace(process=Process(pid=4711, name="web"), inuse=400)
    assert 0 == count_unseen_orphans(replace(here, namespaces=(uncounted,)), left.tcp)
    assert 0 == count_unseen_orphans(here, sockstat(orphan=64).tcp)


def test_container_is_named_whose_listener_systemd_opened() -> None:
    """A Quadlet container that is started by its socket unit."""
    group = SocketGroup(cgroup=SOCKET_UNIT, port=80, orphaned=orphans(30), process=IN_DOCKER)

    assert "docker 3f2a9c1be07d" == holders(table(group, paths=MADE_BY), None)[0][0].container


def test_unit_of_the_engine_keeps_what_no_container_has() -> None:
    own = Process(pid=700, name="containerd", cgroup="/system.slice/containerd.service")
    group = SocketGroup(cgroup=CONTAINERD, to_port=443, held={"established": Tally(sockets=5)}, process=own)

    assert "containerd.service" == holders(table(group, paths=MADE_BY), None)[0][0].unit


@pytest.mark.parametrize("cgroup", [SOCKET_UNIT, None])
def test_service_is_named_whose_listener_systemd_opened(cgroup: int | None) -> None:
    """Its connections are clones of the listener, and in the listener's group (sk_clone_lock)."""
    here = table(
        SocketGroup(
            cgroup=cgroup, port=80, held={"established": Tally(sockets=2)}, orphaned=orphans(30), process=IN_UNIT
        ),
        listeners=(Listener(port=80, cgroup=cgroup, process=SYSTEMD),),
        listening=1,
        paths=MADE_BY,
    )
    found, _ = holders(here, sockstat(orphan=30, alloc=33), by="orphans")

    assert ("web.service", 30) == (found[0].unit, found[0].orphans)


def test_listening_service_is_named_before_the_session_that_one_connection_was_moved_to() -> None:
    """sshd of a socket unit: logind moves each connection's process to a scope of its user."""
    session = Process(pid=95, name="sshd", cgroup="/user.slice/user-1000.slice/session-3.scope")
    here = table(
        SocketGroup(cgroup=SOCKET_UNIT, port=22, orphaned=orphans(30), process=session),
        listeners=(Listener(port=22, cgroup=SOCKET_UNIT, process=IN_UNIT),),
        paths=MADE_BY,
    )
    assert "web.service" == holders(here, None, by="orphans")[0][0].unit


def test_init_of_a_container_gives_way_to_the_service_in_it_alone() -> None:
    paths = PATHS | {NGINX: "/lxc/web/init.scope"}
    inside, beside = (Process(pid=90, name="web", cgroup=f"/lxc/{lxc}/web.service") for lxc in ("web", "db"))
    units = [
        holders(table(SocketGroup(cgroup=NGINX, orphaned=orphans(3), process=each), paths=paths), None)[0][0].unit
        for each in (inside, beside, IN_UNIT)
    ]
    assert ["web.service", "init.scope", "init.scope"] == units


def test_socket_unit_is_named_where_its_service_has_ended() -> None:
    found, _ = holders(table(SocketGroup(cgroup=SOCKET_UNIT, port=80, orphaned=orphans(30)), paths=MADE_BY), None)

    assert "web.socket" == found[0].unit


def test_removed_cgroup_is_told_as_removed_only_when_all_were_looked_at() -> None:
    group = SocketGroup(cgroup=999, orphaned=orphans(1))

    assert "cgroup 999 (removed)" == holders(table(group), None)[0][0].unit
    assert "cgroup 999" == holders(table(group, paths={}), None)[0][0].unit


@pytest.mark.parametrize("cgroup", [None, ROOT_CGROUP])
def test_without_a_cgroup_orphans_go_to_the_listener_on_their_port_and_that_is_told_as_a_guess(
    cgroup: int | None,
) -> None:
    process = Process(pid=812, name="haproxy", cgroup="/system.slice/haproxy.service")
    found, gaps = holders(
        table(
            SocketGroup(cgroup=cgroup, port=443, orphaned=orphans(30)),
            listeners=(Listener(port=443, cgroup=cgroup, process=process),),
            listening=1,
        ),
        sockstat(orphan=30, alloc=31),
    )

    assert [("haproxy.service", None, None), (None, None, None)] == names(found)
    assert (31, 30, True) == (found[0].sockets, found[0].orphans, found[0].guess)
    assert ["owners of orphans"] == [gap.what for gap in gaps]
    assert "30 on port 443 to haproxy.service" in gaps[0].why


HAPROXY = Process(pid=812, name="haproxy", cgroup="/system.slice/haproxy.service")


def guesses(*groups: SocketGroup, by: Order = "orphans", limit: int = 10) -> dict[str | None, bool]:
    """Tell of every holder whether it is a guess, where haproxy listens on ports 80 and 443."""
    listeners = tuple(Listener(port=port, cgroup=ROOT_CGROUP, process=HAPROXY) for port in (80, 443))
    return {each.unit: each.guess for each in holders(table(*groups, listeners=listeners), None, limit, by=by)[0]}


def test_what_a_cgroup_names_is_no_guess_and_the_remainder_never_is() -> None:
    named = SocketGroup(cgroup=NGINX, port=8080, orphaned=orphans(30))
    lost = SocketGroup(cgroup=ROOT_CGROUP, port=9999, orphaned=orphans(30))

    assert {"nginx.service": False, "haproxy.service": False, None: False} == guesses(named, lost)


def test_open_sockets_of_a_process_are_no_guess_and_without_one_they_are() -> None:
    held = {"established": Tally(sockets=5, bytes=4096)}

    assert not guesses(SocketGroup(port=443, held=held, process=HAPROXY))["haproxy.service"]
    assert guesses(SocketGroup(port=443, held=held))["haproxy.service"]


def test_connections_that_wait_for_their_listener_are_no_guess() -> None:
    assert not guesses(SocketGroup(port=443, queued={"established": Tally(sockets=50)}))["haproxy.service"]


def test_guess_is_about_what_is_short() -> None:
    group = SocketGroup(
        port=443,
        process=HAPROXY,
        held={"established": Tally(sockets=900, bytes=90_000)},
        orphaned=orphans(40, 4096),
    )

    assert guesses(group, by="orphans")["haproxy.service"]
    assert not guesses(group, by="bytes")["haproxy.service"]
    assert not guesses(group, by="sockets")["haproxy.service"]


def test_port_of_a_guess_comes_first() -> None:
    listeners = tuple(Listener(port=port, process=HAPROXY) for port in (80, 443))
    groups = (
        SocketGroup(port=443, process=HAPROXY, held={"established": Tally(sockets=900)}),
        SocketGroup(port=80, orphaned=orphans(40)),
    )
    (found, _), _ = holders(table(*groups, listeners=listeners), None, by="orphans")

    assert (True, (80, 443)) == (found.guess, found.ports)


@pytest.mark.parametrize(("by", "expected"), [("sockets", 1), ("orphans", 2), ("bytes", 3)])
def test_port_peers_and_namespace_come_first_that_have_most_of_what_is_short(by: Order, expected: int) -> None:
    def group(number: int, **tallies: dict[State, Tally]) -> SocketGroup:
        group = SocketGroup(cgroup=NGINX, namespace=number, port=number, **tallies)
        network = f"10.0.{number}.0/24"
        peer = PeerTally(network=network, sockets=group.sockets, orphans=group.orphans, bytes=group.bytes)
        return msgspec.structs.replace(group, peers=(peer,))

    found, _ = holders(
        table(
            group(1, held={"established": Tally(sockets=900, bytes=900)}),
            group(2, orphaned=orphans(40, 4096)),
            group(3, held={"established": Tally(sockets=9, bytes=90_000)}),
            namespaces=tuple(Namespace(process=Process(pid=n, name="pause"), number=n) for n in (1, 2, 3)),
        ),
        None,
        by=by,
    )

    assert (expected, f"10.0.{expected}.0/24", expected) == (found[0].ports[0], found[0].peers[0], found[0].netns_pid)


def test_port_of_a_guess_is_the_one_with_most_of_what_is_short() -> None:
    listeners = tuple(Listener(port=port, process=HAPROXY) for port in (80, 443))
    groups = (
        SocketGroup(port=443, held={"established": Tally(sockets=900)}),
        SocketGroup(port=80, held={"established": Tally(sockets=9, bytes=90_000)}),
    )
    (found, _), _ = holders(table(*groups, listeners=listeners), None, by="bytes")

    assert (True, (80, 443)) == (found.guess, found.ports)


def test_guesses_beyond_the_limit_are_no_guess_together() -> None:
    first = SocketGroup(cgroup=NGINX, orphaned=orphans(30))

    assert {"nginx.service": False, "1 others": False, None: False} == guesses(
        first, SocketGroup(port=443, orphaned=orphans(5)), limit=1
    )


def test_process_outside_of_all_units_is_named_itself() -> None:
    process = Process(pid=812, name="python3", cgroup=None)
    found, _ = holders(table(SocketGroup(port=443, held={"established": Tally(sockets=2)}, process=process)), None)

    assert [(None, None, "python3 (pid 812)"), (None, None, None)] == names(found)


def test_connections_nobody_accepted_go_to_the_listener_of_their_port() -> None:
    found, _ = holders(
        table(
            SocketGroup(cgroup=ROOT_CGROUP, port=443, queued={"established": Tally(sockets=7, bytes=4096)}),
            listeners=(Listener(port=443, cgroup=NGINX),),
        ),
        None,
    )

    assert ("nginx.service", 8, 4096) == (found[0].unit, found[0].sockets, found[0].bytes)


def test_listener_of_another_namespace_gets_nothing() -> None:
    found, _ = holders(
        table(
            SocketGroup(port=443, orphaned=orphans(7)),
            listeners=(Listener(port=443, cgroup=NGINX, namespace=2),),
        ),
        None,
    )

    assert 7 == found[-1].orphans


def test_folded_sockets_without_a_cgroup_are_nobodys() -> None:
    process = Process(pid=1, name="x")
    found, _ = holders(table(SocketGroup(folded=True, orphaned=orphans(7), process=process)), None)

    assert [(None, None, None)] == names(found)


def test_most_comes_first_by_what_is_short() -> None:
    groups = table(
        SocketGroup(cgroup=NGINX, orphaned=orphans(60, 1)),
        SocketGroup(cgroup=DOCKER, held={"established": Tally(sockets=5, bytes=4096)}),
    )

    assert "nginx.service" == holders(groups, None, by="orphans")[0][0].unit
    assert "docker 3f2a9c1be07d" == holders(groups, None, by="bytes")[0][0].container
    assert "nginx.service" == holders(groups, None, by="sockets")[0][0].unit


def test_names_beyond_the_limit_are_together_before_the_remainder() -> None:
    groups = [SocketGroup(cgroup=n, held={"established": Tally(sockets=n, bytes=n)}) for n in range(2, 7)]
    found, _ = holders(table(*groups), sockstat(alloc=30), limit=2)

    assert ["cgroup 6 (removed)", "cgroup 5 (removed)", "3 others", None] == [each.unit for each in found]
    assert [6, 5, 9, 10] == [each.sockets for each in found]


def test_peers_of_outgoing_connections_carry_their_port() -> None:
    peers = (PeerTally(network="10.0.5.0/24", sockets=2), PeerTally(network=None, sockets=9))
    group = SocketGroup(cgroup=NGINX, to_port=5432, held={"established": Tally(sockets=11)}, peers=peers)
    found, _ = holders(table(group), None)

    assert (("10.0.5.0/24 port 5432",), ()) == (found[0].peers, found[0].ports)


def test_processes_are_named_beside_their_unit() -> None:
    process = Process(pid=812, name="nginx", cgroup="/system.slice/nginx.service")
    found, _ = holders(table(SocketGroup(cgroup=NGINX, held={"established": Tally(sockets=2)}, process=process)), None)

    assert ("nginx.service", "nginx (pid 812)") == (found[0].unit, found[0].process)


def test_sockets_out_of_sight_are_a_gap_with_their_number_and_place() -> None:
    process = Process(pid=9, name="redis", cgroup=PATHS[DOCKER])
    _, gaps = holders(
        table(
            SocketGroup(cgroup=NGINX, held={"established": Tally(sockets=100)}),
            listening=2,
            namespaces=(Namespace(process=process, inuse=1200), Namespace(process=process, inuse=5, number=1)),
        ),
        sockstat(alloc=1400),
    )

    assert ["sockets of other network namespaces", "sockets in no table"] == [gap.what for gap in gaps]
    assert (
        "1,200 sockets of 1,400 are in another network namespace (docker 3f2a9c1be07d: 1,200), and could not be "
        in gaps[0].why
    )
    assert "98 sockets of 1,400" in gaps[1].why


POD = "/kubepods.slice/kubepods-pod8c5e7b1a_0c3d_4e5f_8a9b_0c1d2e3f4a5b.slice/cri-containerd-{}.scope"


@pytest.mark.parametrize(
    ("cgroups", "name"),
    [
        (["/system.slice/shop.service"], ("shop.service", None)),
        (["/system.slice/docker-" + "ab" * 32 + ".scope"], (None, "docker abababababab")),
        (["/machine.slice/libpod-" + "ab" * 32 + ".scope/container"], (None, "libpod abababababab")),
        ([POD.format("ab" * 32)], (None, "containerd abababababab (pod 8c5e7b1a-0c3d-4e5f-8a9b-0c1d2e3f4a5b)")),
        # Whose of a pod's containers they are cannot be told.
        ([POD.format("ab" * 32), POD.format("cd" * 32)], (None, "pod 8c5e7b1a-0c3d-4e5f-8a9b-0c1d2e3f4a5b")),
    ],
)
def test_sockets_of_another_namespace_are_its_cgroups_for_certain(
    cgroups: list[str], name: tuple[str | None, str | None]
) -> None:
    process = Process(pid=9, name="redis", cgroup=cgroups[0])
    space = Namespace(process=process, inuse=49, number=1, queues_only=True, others=tuple(cgroups[1:]))
    found, gaps = holders(
        table(
            SocketGroup(port=6379, namespace=1, orphaned=orphans(40, 8192), held={"established": Tally(sockets=8)}),
            listeners=(Listener(port=6379, namespace=1),),
            namespaces=(space,),
        ),
        sockstat(orphan=40, alloc=49, mem=5),
    )

    assert [(*name, 49, 40, 9, False), (None, None, 0, 0, None, False)] == [
        (each.unit, each.container, each.sockets, each.orphans, each.netns_pid, each.guess) for each in found
    ]
    pods = {"8c5e7b1a-0c3d-4e5f-8a9b-0c1d2e3f4a5b": "shop/web-0"}
    (named, *_), _ = holders(table(SocketGroup(namespace=1, orphaned=orphans(9)), namespaces=(space,), pods=pods), None)
    assert ("pod 8c5e" in (name[1] or "")) == ("pod shop/web-0" in (named.container or ""))
    assert ["memory of other network namespaces"] == [gap.what for gap in gaps]
    assert "queued in 49 sockets of another network namespace" in gaps[0].why


def test_sockets_in_no_table_go_to_the_program_that_has_them_open_with_the_memory_nobody_in_sight_has() -> None:
    program = Unlisted(process=Process(pid=812, name="python3"), sockets=900)
    found, gaps = holders(
        table(SocketGroup(cgroup=NGINX, held={"established": Tally(sockets=10, bytes=40960)}), unlisted=(program,)),
        sockstat(alloc=1010, mem=1010),
        mem_unit_bytes=4096,
    )

    assert [(None, 1000 * 4096 * 9 // 10, 900), ("nginx.service", 40960, 10), (None, 409600, 100)] == [
        (each.unit, each.bytes, each.sockets) for each in found
    ]
    assert "python3 (pid 812)" == found[0].process
    assert ["sockets in no table"] == [gap.what for gap in gaps]
    assert "1,000 sockets of 1,010 are in no table: reset or closed by the peer, but still open" in gaps[0].why


def test_unit_that_shares_a_namespace_with_the_holder_is_told() -> None:
    process = Process(pid=9, name="redis", cgroup="/system.slice/shop.service")
    space = Namespace(
        process=process, inuse=9, number=1, queues_only=True, others=("/system.slice/phones.service", "/init.scope")
    )
    _, gaps = holders(table(SocketGroup(namespace=1, orphaned=orphans(9)), namespaces=(space,)), None)
    [why] = [gap.why for gap in gaps if gap.what == "owners in shared network namespaces"]

    assert "(init.scope, phones.service with shop.service)" in why


def test_a_pod_has_its_name_in_gaps_too() -> None:
    process = Process(pid=9, name="redis", cgroup=POD.format("ab" * 32))
    pods = {"8c5e7b1a-0c3d-4e5f-8a9b-0c1d2e3f4a5b": "shop/web-0"}
    seen = Namespace(process=process, inuse=49, number=1, queues_only=True, others=("/system.slice/phones.service",))
    hidden = Namespace(process=process, inuse=1200)
    groups = SocketGroup(namespace=1, orphaned=orphans(9))
    _, gaps = holders(table(groups, namespaces=(seen, hidden), pods=pods), sockstat(alloc=1400))

    named = [gap.why for gap in gaps if "pod" in gap.why]
    assert 3 == len(named)
    assert all("containerd abababababab (pod shop/web-0)" in why for why in named)


def test_init_is_not_named_for_all_that_share_the_hosts_namespace_with_it() -> None:
    # As a container sees the host that shows it its processes.
    host = Namespace(process=Process(pid=1, name="systemd", cgroup="/../../init.scope"), inuse=60, number=1)
    listener = Listener(port=443, process=Process(pid=7, name="haproxy"), namespace=1)
    sockets = SocketGroup(port=443, namespace=1, orphaned=orphans(60))
    assert [None] == [each.unit for each in holders(table(sockets, namespaces=(host,)), None)[0]]
    (named, *_), _ = holders(table(sockets, listeners=(listener,), namespaces=(host,)), None)
    assert ("haproxy (pid 7)", True) == (named.process, named.guess)
    assert Owner() == name_by_port(table(sockets, namespaces=(host,)), 443, None, 1)
    assert "the host" == network_text(host)


def test_few_sockets_that_come_and_go_are_no_gap() -> None:
    group = SocketGroup(cgroup=NGINX, held={"established": Tally(sockets=100)})

    assert () == holders(table(group), sockstat(alloc=110))[1]


def test_dump_that_found_more_than_the_host_counts_says_so() -> None:
    found, gaps = holders(table(SocketGroup(cgroup=NGINX, orphaned=orphans(12))), sockstat(orphan=10, alloc=12))

    assert 0 == found[-1].orphans
    assert [Gap(what="total of orphans", why="the dump, at another moment, found 2 more than sockstat")] == list(gaps)


def test_table_that_could_not_be_had_leaves_its_gaps_and_no_holders() -> None:
    gap = Gap(what="sockets (sock_diag)", why="not permitted")

    assert ((), (gap,)) == holders(SocketTable(gaps=(gap,)), sockstat(orphan=5))


def test_table_survives_json() -> None:
    process = Process(pid=812, name="nginx", cgroup="/system.slice/nginx.service")
    whole = table(
        SocketGroup(
            cgroup=NGINX, port=443, orphaned=orphans(60, 8192), process=process, peers=(PeerTally(network=None),)
        ),
        listeners=(Listener(port=443, process=process),),
        minisocks={"fin_wait2": 3},
        namespaces=(Namespace(process=process, inuse=4),),
    )

    assert whole == msgspec.json.decode(msgspec.json.encode(whole), type=SocketTable)


Groups = st.builds(
    SocketGroup,
    cgroup=st.sampled_from([None, 1, NGINX, DOCKER, 999]),
    port=st.sampled_from([None, 80, 443]),
    held=st.builds(lambda n, b: {"established": Tally(sockets=n, bytes=b)}, st.integers(1, 50), st.integers(0, 9999)),
    queued=st.builds(lambda n: {"established": Tally(sockets=n)}, st.integers(1, 50)),
    orphaned=st.builds(orphans, st.integers(1, 50), st.integers(0, 9999)),
    folded=st.booleans(),
    process=st.sampled_from([None, Process(pid=1, name="a"), Process(pid=2, name="b", cgroup="/b.service")]),
)


@given(
    st.lists(Groups, max_size=12), st.integers(0, 3000), st.integers(0, 3000), st.integers(0, 100), st.integers(1, 4)
)
def test_holders_and_remainder_add_up_to_the_host_or_to_what_was_seen(
    groups: list[SocketGroup], orphan: int, alloc: int, mem: int, limit: int
) -> None:
    listeners = (Listener(port=80, cgroup=NGINX), Listener(port=443, process=Process(pid=3, name="c")))
    there = table(*groups, listeners=listeners, listening=2)
    found, _ = holders(there, sockstat(orphan=orphan, alloc=alloc, mem=mem), limit, mem_unit_bytes=4096)

    assert max(orphan, sum(g.orphans for g in groups)) == sum(each.orphans for each in found)
    assert max(alloc, 2 + sum(g.sockets for g in groups)) == sum(each.sockets for each in found)
    assert max(mem * 4096, sum(g.bytes for g in groups)) == sum(each.bytes for each in found)
    assert (None, None, None) == names(found)[-1]
    assert len(found) <= limit + 2


def test_a_port_is_named_by_who_has_most_of_its_sockets_orphans_included() -> None:
    both = table(SocketGroup(cgroup=NGINX, port=443, orphaned=orphans(60)), SocketGroup(cgroup=DOCKER, port=443))
    assert Owner(unit="nginx.service") == name_by_port(both, 443, None)
    assert Owner() == name_by_port(both, 80, 443)
    assert Owner() == name_by_port(both, None, None)


def test_a_port_is_named_by_its_listener_when_its_connections_have_gone() -> None:
    listening = table(listeners=(Listener(port=8080, cgroup=DOCKER),))
    assert Owner(container="docker 3f2a9c1be07d") == name_by_port(listening, 8080, 40001)


def test_connections_that_went_out_are_named_by_the_port_they_went_to() -> None:
    gone = table(SocketGroup(cgroup=NGINX, to_port=5432, held={"established": Tally(sockets=4)}))
    assert Owner(unit="nginx.service") == name_by_port(gone, None, 5432)
    assert Owner(unit="nginx.service") == name_by_port(gone, 40123, 5432)


def test_a_port_is_named_in_its_own_network_namespace_alone() -> None:
    home = SocketGroup(cgroup=NGINX, port=443, orphaned=orphans(60))
    there = SocketGroup(port=443, orphaned=orphans(2), namespace=1)
    space = Namespace(process=Process(pid=9, name="app", cgroup=PATHS[DOCKER]), number=1)
    both = table(home, there, namespaces=(space,))
    assert Owner(container="docker 3f2a9c1be07d") == name_by_port(both, 443, None, 1)
    assert Owner(unit="nginx.service") == name_by_port(both, 443, None)
