import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.sockets.cgroup_names import NAME_AT_MOST, Owner, name_cgroup, parse_proc_cgroup, with_pod_name

ID = "3f2a9c1be07d" + "0123456789abcdef" * 3 + "4567"
UID = "8c5e7b1a-0c3d-4e5f-8a9b-0c1d2e3f4a5b"
UID_ = UID.replace("-", "_")
SHORT = "3f2a9c1be07d"

PATHS = [
    ("/", Owner()),
    ("/system.slice/nginx.service", Owner("nginx.service")),
    ("/system.slice/system-getty.slice/getty@tty1.service", Owner("getty@tty1.service")),
    ("/system.slice/system-postgresql.slice/postgresql@15-main.service", Owner("postgresql@15-main.service")),
    ("/init.scope", Owner("init.scope")),
    ("/system.slice/snap.nextcloud.apache.service", Owner("snap.nextcloud.apache.service")),
    (f"/user.slice/user-1000.slice/{'a' * 150}.scope", Owner("a" * 100 + "… (user 1000)")),
    # A service that may make groups of its own does not get to choose another's name.
    ("/system.slice/evil.service/nginx.service", Owner("evil.service")),
    ("/system.slice/php-fpm.service/pool-www", Owner("php-fpm.service")),
    ("/system.slice/nginx.service (deleted)", Owner("nginx.service")),
    # A listener that systemd opens for a service is in the group of its socket unit.
    ("/system.slice/ssh.socket", Owner("ssh.socket")),
    ("/system.slice/srv-data.mount", Owner("srv-data.mount")),
    ("/user.slice/user-1000.slice/session-3.scope", Owner("session-3.scope (user 1000)")),
    (
        "/user.slice/user-1000.slice/user@1000.service/app.slice/proxy.service",
        Owner("proxy.service (user 1000)"),
    ),
    ("/user.slice/user-1000.slice/user@1000.service/nginx.service", Owner("nginx.service (user 1000)")),
    ("/user.slice/user-1000.slice/user@1000.service/init.scope", Owner("init.scope (user 1000)")),
    ("/user.slice/user-1000.slice/user@1000.service", Owner("user@1000.service (user 1000)")),
    ("/user.slice/user-1000.slice", Owner("user-1000.slice (user 1000)")),
    ("/system.slice", Owner("system.slice")),
    (f"/system.slice/docker-{ID}.scope", Owner(None, f"docker {SHORT}")),
    (f"/system.slice/docker-{ID}.scope/init", Owner(None, f"docker {SHORT}")),
    (f"/docker/{ID}", Owner(None, f"docker {SHORT}")),
    (f"/docker/{ID}/system.slice/nginx.service", Owner("nginx.service", f"docker {SHORT}")),
    (f"/docker/{ID}/docker/{'a' * 64}", Owner(None, f"docker {SHORT}")),
    (f"/actions_job/{ID}", Owner(None, f"container {SHORT}")),
    (f"/ecs/0123456789abcdef0123456789abcdef/{ID}", Owner(None, f"ecs {SHORT}")),
    (
        f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID_}.slice/cri-containerd-{ID}.scope",
        Owner(None, f"containerd {SHORT} (pod {UID})"),
    ),
    (
        f"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{UID_}.slice/crio-{ID}.scope",
        Owner(None, f"crio {SHORT} (pod {UID})"),
    ),
    (f"/kubepods.slice/kubepods-pod{UID_}.slice/docker-{ID}.scope", Owner(None, f"docker {SHORT} (pod {UID})")),
    # The kubelet limits the memory of a pod as a whole, too.
    (f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID_}.slice", Owner(None, f"pod {UID}")),
    (f"/kubepods/pod{UID}", Owner(None, f"pod {UID}")),
    (f"/../../kubepods-burstable-pod{UID_}.slice", Owner(None, f"pod {UID}")),
    ("/kubepods.slice/kubepods-burstable.slice", Owner("kubepods-burstable.slice")),
    (f"/kubepods/burstable/pod{UID}/{ID}", Owner(None, f"container {SHORT} (pod {UID})")),
    (
        f"/system.slice/containerd.service/kubepods-burstable-pod{UID_}.slice:cri-containerd:{ID}",
        Owner("containerd.service", f"containerd {SHORT} (pod {UID})"),
    ),
    (f"/machine.slice/libpod-{ID}.scope/container", Owner(None, f"libpod {SHORT}")),
    (f"/machine.slice/libpod-conmon-{ID}.scope", Owner(None, f"libpod {SHORT}")),
    # Of a Quadlet unit (--cgroups=split).
    (f"/system.slice/web.service/libpod-payload-{ID}", Owner("web.service", f"libpod {SHORT}")),
    # A pod of a cluster whose nodes are containers (kind).
    (
        f"/docker/{'a' * 64}/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{UID_}.slice/crio-{ID}.scope",
        Owner(None, f"docker {12 * 'a'} (pod {UID})"),
    ),
    (
        f"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope",
        Owner(None, f"libpod {SHORT} (user 1000)"),
    ),
    ("/lxc.payload.web", Owner(None, "lxc web")),
    ("/lxc.payload.web/system.slice/nginx.service", Owner("nginx.service", "lxc web")),
    ("/lxc.monitor.web", Owner(None, "lxc web")),
    ("/lxc/web/init.scope", Owner("init.scope", "lxc web")),
    (
        "/machine.slice/systemd-nspawn@web.service/payload/system.slice/nginx.service",
        Owner("nginx.service", "machine web"),
    ),
    (r"/machine.slice/machine-qemu\x2d1\x2dvm.scope/libvirt/emulator", Owner(None, "machine qemu-1-vm")),
    ("/mygroup/web", Owner("cgroup /mygroup/web")),
    ("/../../system.slice/nginx.service", Owner("nginx.service")),
]


@pytest.mark.parametrize(("path", "owner"), PATHS)
def test_path_gives_the_name_an_administrator_knows(path: str, owner: Owner) -> None:
    assert owner == name_cgroup(path)


@pytest.mark.parametrize(
    "hostile",
    [
        "/system.slice/\x1b[31mroot.service",
        "/system.slice/a\u202etxt.service",
        "/lxc.payload.\x9b2J",
        "/machine.slice/machine-\\x1b\\x5b2J.scope",
        "/\u2066<!channel>",
        "/system.slice/" + "a" * 5000 + ".service",
        "/user.slice/user-1000.slice/" + "a" * 5000 + ".service",
    ],
)
def test_hostile_names_are_plain_text_of_bounded_length(hostile: str) -> None:
    for name in filter(None, name_cgroup(hostile)):
        assert name.isprintable()
        assert len(name) <= NAME_AT_MOST + len("… (user 1000)")


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=200))
def test_any_path_has_a_name_or_is_the_root(path: str) -> None:
    owner = name_cgroup("/" + path)

    assert (owner == Owner()) == all(part in {"", ".", ".."} for part in path.removesuffix(" (deleted)").split("/"))


TEXTS = [
    ("0::/system.slice/nginx.service\n", "/system.slice/nginx.service"),
    ("0::/\n", None),
    ("9:name=systemd:/system.slice/a.service\n4:memory:/system.slice\n0::/\n", "/system.slice/a.service"),
    (f"9:name=systemd:/\n4:memory:/docker/{ID}\n3:cpu,cpuacct:/docker\n0::/\n", f"/docker/{ID}"),
    ("1:name=systemd:/a:b.service\n", "/a:b.service"),
    ("0::/x\n1:name=systemd:/y\n", "/x"),
    # Both versions of cgroups: an engine with the cgroupfs driver makes groups of version 1 alone.
    (f"12:memory:/docker/{ID}\n1:name=systemd:/docker/{ID}\n0::/system.slice/containerd.service\n", f"/docker/{ID}"),
    (f"4:memory:/docker/{ID}\n2:name=openrc:/docker\n0::/docker\n", f"/docker/{ID}"),
    (f"4:memory:/docker\n0::/machine.slice/libpod-{ID}.scope\n", f"/machine.slice/libpod-{ID}.scope"),
    ("", None),
    ("rubbish\n\n:\n", None),
    ("0::/a\x1b[0m\n", "/a\\x1b[0m"),
]


@pytest.mark.parametrize(("text", "path"), TEXTS)
def test_cgroup_of_a_process_is_the_most_telling_of_its_hierarchies(text: str, path: str | None) -> None:
    assert path == parse_proc_cgroup(text)


@pytest.mark.parametrize(
    ("container", "name"),
    [
        (f"containerd {SHORT} (pod {UID})", f"containerd {SHORT} (pod shop/web-0)"),
        (f"pod {UID}", "pod shop/web-0"),
        ("docker pod", "docker pod"),
        (None, None),
    ],
)
def test_pod_goes_by_its_name_where_that_is_known(container: str | None, name: str | None) -> None:
    assert name == with_pod_name(container, {UID: "shop/web-0"})
    assert container == with_pod_name(container, {})
