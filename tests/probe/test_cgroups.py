from pathlib import Path

import pytest

from agent.core.readings import FullGroup, Gap
from agent.probe import cgroups
from agent.probe.cgroups import below_mount, full_groups, socket_memory


def plant(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_version_2_gives_the_root_and_one_level_below(tmp_path: Path) -> None:
    plant(
        tmp_path,
        {
            "cgroup.controllers": "memory",
            "memory.stat": "anon 1\nsock 900\n",
            "system.slice/memory.stat": "sock 700\n",
            "system.slice/nginx.service/memory.stat": "sock 650\n",
            "user.slice/memory.stat": "anon 1\n",
            "init.scope/cgroup.procs": "1\n",
        },
    )
    gaps: list[Gap] = []

    assert ({"/": 900, "/system.slice": 700}, None) == socket_memory(tmp_path, gaps)
    assert [] == gaps


def limited(usage: int, failcnt: int) -> dict[str, str]:
    return {"limit": "1048576\n", "usage": f"{usage}\n", "failcnt": f"{failcnt}\n"}


def plant_version_1(root: Path, groups: dict[str, dict[str, str]]) -> None:
    names = {"limit": "limit_in_bytes", "usage": "usage_in_bytes", "failcnt": "failcnt"}
    for group, files in groups.items():
        plant(root / "memory" / group, {f"memory.kmem.tcp.{names[key]}": text for key, text in files.items()})


def test_version_1_sums_the_refusals_of_groups_with_a_limit(tmp_path: Path) -> None:
    plant_version_1(
        tmp_path,
        {
            "": {"limit": "9223372036854771712\n", "usage": "0\n", "failcnt": "7\n"},
            "docker/abc": limited(8192, 41),
            "docker/def": limited(0, 2),
            "old": {"limit": "9223372036854775807\n", "usage": "0\n", "failcnt": "9\n"},
        },
    )
    gaps: list[Gap] = []

    assert ({"/docker/abc": 8192, "/docker/def": 0}, 43) == socket_memory(tmp_path, gaps)
    assert [] == gaps


def test_version_1_without_a_limit_is_absent_not_zero(tmp_path: Path) -> None:
    plant_version_1(tmp_path, {"": {"limit": "9223372036854771712\n", "failcnt": "0\n"}})

    assert ({}, None) == socket_memory(tmp_path, [])


@pytest.mark.parametrize("files", [{}, {"unified/cgroup.controllers": ""}])
def test_no_memory_controller_is_nothing(tmp_path: Path, files: dict[str, str]) -> None:
    assert ({}, None) == socket_memory(plant(tmp_path, files), [])


def test_groups_beyond_the_bound_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "GROUPS_AT_MOST", 3)
    plant(tmp_path, {"cgroup.controllers": "memory", **{f"{name}/memory.stat": "sock 1\n" for name in "abcd"}})
    gaps: list[Gap] = []

    assert ({"/a": 1, "/b": 1}, None) == socket_memory(tmp_path, gaps)
    assert [Gap(what=str(tmp_path), why="more than 3 groups: the others were not read")] == gaps


def test_a_broken_group_is_a_gap_and_no_more(tmp_path: Path) -> None:
    plant(
        tmp_path,
        {"cgroup.controllers": "memory", "a/memory.stat": "sock x\n", "b/memory.stat": "", "c/memory.stat": "sock 5\n"},
    )
    gaps: list[Gap] = []

    assert ({"/c": 5}, None) == socket_memory(tmp_path, gaps)
    assert [
        Gap(what=f"{tmp_path}/a/memory.stat", why="'x' is not an integer: 'sock x'"),
        Gap(what=f"{tmp_path}/b/memory.stat", why="empty"),
    ] == gaps


def test_a_broken_limit_of_version_1_is_a_gap(tmp_path: Path) -> None:
    plant_version_1(tmp_path, {"a": {"limit": "lots\n"}, "b": {"limit": ""}})
    gaps: list[Gap] = []

    assert ({}, None) == socket_memory(tmp_path, gaps)
    assert ["'lots' is not an integer: 'lots'", "empty"] == [gap.why for gap in gaps]


def in_time() -> bool:
    return False


def plant_limited(root: Path, path: str, current: int, **files: str) -> None:
    plant(root / path, {"memory.current": f"{current}\n", **{f"memory.{name}": text for name, text in files.items()}})


def test_full_groups_are_those_near_a_limit_of_their_own_or_of_a_group_above(tmp_path: Path) -> None:
    events, stalls = "low 0\nhigh 3\nmax 12\noom 0\n", "some avg10=31.50 avg60=4.00 avg300=1.00 total=9\n"
    plant_limited(tmp_path, "system.slice", 95, max="100\n", high="max\n")
    plant_limited(
        tmp_path,
        "system.slice/a.service",
        990,
        max="max\n",
        high="1000\n",
        events=events,
        stat="sock 7\n",
        pressure=stalls,
    )
    plant_limited(tmp_path, "system.slice/b.service", 899, max="1000\n")
    plant_limited(tmp_path, "system.slice/c.service", 9999, max="max\n")
    names = [f"/system.slice/{name}.service" for name in ("a", "b", "c", "gone")]

    assert [
        FullGroup(path=names[0], current_bytes=990, limit_bytes=1000, sock_bytes=7, refused=15, stalled_percent=31.5),
        FullGroup(path="/system.slice", current_bytes=95, limit_bytes=100),
    ] == full_groups(tmp_path, names, in_time)


@pytest.mark.parametrize("text", ["", "\u00b2\n", "-1\n", "0\n", "12 13\n", "x"])
def test_limit_that_is_no_number_is_none(tmp_path: Path, text: str) -> None:
    plant_limited(tmp_path, "a", 100, max=text)

    assert [] == full_groups(tmp_path, ["/a"], in_time)


def test_groups_that_a_namespace_of_cgroups_shows_from_inside_are_found_below_the_mount(tmp_path: Path) -> None:
    pod = "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice"
    plant_limited(tmp_path, f"{pod}/cri-containerd-a.scope", 99, max="100\n")
    plant_limited(tmp_path, pod, 98, max="100\n")
    plant_limited(tmp_path, "system.slice/shop.service", 97, max="100\n")
    # As /proc/PID/cgroup has them in a pod beside that one (cgroup_namespaces(7)).
    seen = ["/../../kubepods-burstable-pod1.slice/cri-containerd-a.scope", "/../../../../system.slice/shop.service"]
    seen += ["/", "/..", "/../../gone.slice/x.scope", "/../../../.."]

    found = full_groups(tmp_path, below_mount(tmp_path, seen, in_time), in_time)

    assert [f"/{pod}/cri-containerd-a.scope", f"/{pod}", "/system.slice/shop.service"] == [each.path for each in found]


def test_groups_of_hundreds_of_pods_are_all_looked_at(tmp_path: Path) -> None:
    paths = [f"/kubepods/pod{number:03}/app" for number in range(300)]
    plant_limited(tmp_path, paths[-1][1:], 99, max="100\n")

    assert [paths[-1]] == [each.path for each in full_groups(tmp_path, paths, in_time)]


def test_the_search_for_full_groups_ends_when_it_is_late(tmp_path: Path) -> None:
    names = [f"pod{number}.slice" for number in range(9)]
    for name in names:
        plant_limited(tmp_path, name, 99, max="100\n")
    looks = iter([False, False, True])
    found = full_groups(tmp_path, [f"/{name}" for name in names], lambda: next(looks))
    assert ["/pod0.slice", "/pod1.slice"] == [each.path for each in found]

    looks = iter([False, False, True])  # The root is the first that is walked.
    assert {"/pod0.slice"} == below_mount(tmp_path, [f"/../{name}" for name in names], lambda: next(looks))
