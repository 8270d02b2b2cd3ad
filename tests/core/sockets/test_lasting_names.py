import pytest

from agent.core.model import Holder
from agent.core.sockets.holder_names import lasting_name, lasting_place

HEX = "3f2a9c1be07d"
UID = "4f5c9f3e-2b9a-6f6a-7c10-5a8ad4f63f0e"
OTHER_UID = "0c3f1a55-0b1e-4a0c-8d3e-1f2a3b4c5d6e"


def make_holder(**place: str) -> Holder:
    return Holder(sockets=1, orphans=1, bytes=1, **place)


@pytest.mark.parametrize(
    ("one", "other", "lasting"),
    [
        ("user@1000.service", "user@1001.service", "user@*.service"),
        ("backup@nas-2.service", "backup@nas-3.service", "backup@*.service"),
        ("postgresql@14-main.service", "postgresql@15-main.service", "postgresql@*.service"),
        ("run-1234.scope", "run-98.scope", "run-*.scope"),
        ("run-r5c1f0a7e9d.scope", "run-rfe0911bc04.scope", "run-*.scope"),
        ("run-u12.service", "run-u13.service", "run-*.service"),
        ("run-p812-i1043.service", "run-p9-i10.service", "run-*.service"),
        ("session-12.scope (user 1000)", "session-c3.scope (user 1000)", "session-*.scope (user 1000)"),
        ("app-gnome-org.gnome.Maps-812.scope", "app-gnome-org.gnome.Maps-90.scope", "app-gnome-org.gnome.Maps-*.scope"),
        (f"tmux-spawn-{UID}.scope", f"tmux-spawn-{OTHER_UID}.scope", "tmux-spawn-*.scope"),
        ("dbus-:1.2-org.maps@0.service", "dbus-:1.17-org.maps@1.service", "dbus-:*-org.maps@*.service"),
        ("backup-1732873200.service", "backup-1732959600.service", "backup-*.service"),
        ("user-1000.slice", "user-1001.slice", "user-*.slice"),
        (f"kubepods-pod{UID.replace('-', '_')}.slice", f"kubepods-pod{OTHER_UID}.slice", "kubepods-*.slice"),
        ("cgroup 4711 (removed)", "cgroup 4712 (removed)", "cgroup *"),
        ("cgroup /batch/job-17", "cgroup /batch/job-18", "cgroup /batch/job-*"),
        (f"docker {HEX}", "docker 0123456789ab", "docker *"),
        (f"containerd {HEX} (pod {UID})", f"pod {OTHER_UID}", "pod *"),
        (f"containerd {HEX} (pod shop/web-6d4cf56db6-x7k2p)", "pod shop/web-86bf9c7d5c-qq4zt", "pod shop/web-*"),
        ("pod shop/node-exporter-x7k2p", "pod shop/node-exporter-9zvbc", "pod shop/node-exporter-*"),
        ("pod shop/db-0", "pod shop/db-12", "pod shop/db-*"),
        ("pod shop/report-29384640-x7k2p", "pod shop/report-29386080-bcdfg", "pod shop/report-*"),
        ("machine qemu-1-web-2", "machine qemu-7-web-2", "machine qemu-*-web-2"),
    ],
)  # fmt: skip
def test_what_changes_from_start_to_start_is_no_part_of_a_lasting_name(one: str, other: str, lasting: str) -> None:
    assert [lasting, lasting] == [lasting_place(one), lasting_place(other)]


@pytest.mark.parametrize(
    "name",
    [
        "nginx.service",
        "nginx.service (user 1000)",
        "redis-6379.service",
        "php7.4-fpm.service",
        "init.scope",
        "101.scope",
        "lxc 101",
        "lxc web-2",
        "machine web-2",
        "pod kube-system/kube-proxy",
        "system.slice",
    ],
)
def test_a_name_that_somebody_chose_lasts(name: str) -> None:
    assert name == lasting_place(name)


def test_a_holder_known_by_an_id_or_a_process_alone_goes_by_its_program() -> None:
    programs = "nginx (pid 812), php-fpm (pid 90)"

    assert "nginx" == lasting_name(make_holder(process=programs))
    assert "worker-*" == lasting_name(make_holder(process="worker-17 (pid 812)"))
    assert "docker * (nginx)" == lasting_name(make_holder(container=f"docker {HEX}", process=programs))
    assert "pod * (nginx)" == lasting_name(make_holder(container=f"crio {HEX} (pod {UID})", process=programs))
    assert "pod shop/web-*" == lasting_name(make_holder(container="pod shop/web-0", process=programs))
    assert "nginx.service in lxc web" == lasting_name(
        make_holder(unit="nginx.service", container="lxc web", process=programs)
    )
    assert lasting_name(make_holder()) is None


def test_a_hostile_name_is_made_safe() -> None:
    assert "a… b\\x1b.service" == lasting_name(make_holder(unit="atoo many orphaned sockets b\x1b.service"))
