from agent.core.advice.cgroup import raise_cgroup_limit, relieve_group
from agent.core.model import Evidence
from agent.core.readings import FullGroup


def test_of_a_full_group_is_said_what_sockets_hold_of_it_where_that_is_known() -> None:
    full = FullGroup(path="/system.slice/shop.service", current_bytes=3 << 30, limit_bytes=3 << 30, sock_bytes=1 << 30)
    unknown = FullGroup(path="/system.slice/shop.service", current_bytes=3 << 30, limit_bytes=3 << 30)

    assert "It uses 3 GiB of 3 GiB, 1 GiB of it in sockets, and has hit its limit." in relieve_group(full).why
    assert "It uses 3 GiB of 3 GiB, and has hit its limit." in relieve_group(unknown).why


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
