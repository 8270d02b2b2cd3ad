import pytest
from material import make_sample, make_snapshot, make_table

from agent.core.advice.cgroup import raise_cgroup_limit, relieve_group
from agent.core.diagnosis.diagnose import diagnose
from agent.core.model import Evidence
from agent.core.readings import FullGroup


def test_of_a_full_group_is_said_what_sockets_hold_of_it_where_that_is_known() -> None:
    full = FullGroup(path="/system.slice/shop.service", current_bytes=3 << 30, limit_bytes=3 << 30, sock_bytes=1 << 30)
    unknown = FullGroup(path="/system.slice/shop.service", current_bytes=3 << 30, limit_bytes=3 << 30)

    assert "It uses 3 GiB of 3 GiB, 1 GiB of it in sockets, and has hit its limit." in relieve_group(full).why
    assert "It uses 3 GiB of 3 GiB, and has hit its limit." in relieve_group(unknown).why


@pytest.mark.parametrize(
    ("end", "name"),
    [("", "pod shop/web-0"), (f"/cri-containerd-{64 * 'a'}.scope", f"containerd {12 * 'a'} (pod shop/web-0)")],
)
def test_a_pod_is_named_as_its_owner_calls_it_and_its_limit_as_kubernetes_does(end: str, name: str) -> None:
    path = f"/kubepods.slice/kubepods-pod7b6ab6a2_1c5b_4a57_9a3c_0c3f1c1a1f10.slice{end}"
    full = FullGroup(
        path=path, current_bytes=99, limit_bytes=100, sock_bytes=60, refused=9, refused_meanwhile=9, pod="shop/web-0"
    )
    step = relieve_group(full)
    assert step.action == f"Raise the memory limit of {name}, or fix what fills it."
    assert "changes nothing. A pod's limit is resources.limits.memory of its containers. Success: " in step.why
    assert f"/sys/fs/cgroup{path}/memory.stat" in step.commands[0]

    counters = {"TCPRcvQDrop": 900}
    snapshot = make_snapshot(counters=counters, sockets=make_table(full_groups=(full,)))
    found = diagnose(snapshot, (), (make_sample(60, TCPRcvQDrop=0),))
    assert found.summary.startswith(f"{name} is at its own memory limit")
    assert name in [each.value for each in found.findings[0].evidence]


def test_a_service_is_not_told_of_pods() -> None:
    full = FullGroup(path="/system.slice/shop.service", current_bytes=99, limit_bytes=100)
    assert "pod" not in relieve_group(full).why


def test_the_commands_look_at_the_group_that_is_full_whatever_its_name_is() -> None:
    group = FullGroup(path="/it's; reboot", current_bytes=1, limit_bytes=1)

    assert relieve_group(group).commands[0].endswith("""'/sys/fs/cgroup/it'"'"'s; reboot'/memory.stat""")
    assert "reboot'/memory.events" in relieve_group(group).commands[1]


def test_where_a_limit_of_a_cgroup_was_hit_the_commands_show_which() -> None:
    advice = raise_cgroup_limit(Evidence(name="refused", value=12, source="memory.kmem.tcp.failcnt"))

    assert "cgroups refused 12 charges" in advice.why
    assert ["memory.kmem.tcp.failcnt", "memory.kmem.tcp.max_usage_in_bytes"] == [
        command.split()[3] for command in advice.commands
    ]
