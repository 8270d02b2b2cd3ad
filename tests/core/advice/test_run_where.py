"""Every command runs in the network namespace in which it shows something."""

import re

import pytest
from material import NGINX, SHOP, make_event, make_group, make_snapshot, make_table, tally

from agent.core.diagnosis.diagnose import diagnose
from agent.core.model import Advice
from agent.core.readings import Namespace, Process, SocketTable

POD = Namespace(process=Process(pid=4711, name="pause", cgroup="/kubepods/pod1"), inuse=900, number=1)
KILLS = "nstat -az TcpExtTCPAbortOnMemory   # stops rising"


def advice(table: SocketTable | None, text: str = "orphans", mem: int = 9000) -> tuple[Advice, ...]:
    settings = {"net.ipv4.tcp_orphan_retries": (0,), "net.ipv4.tcp_fin_timeout": (300,)}
    return diagnose(make_snapshot(65600, mem, sockets=table, sysctls=settings), (make_event(text),), ()).advice


def commands(steps: tuple[Advice, ...]) -> list[str]:
    return [command for step in steps for command in step.commands]


def in_pod(*others: int) -> SocketTable:
    groups = [make_group(NGINX, 443, namespace=1, fin_wait1=tally(60_000))]
    return make_table(*groups, *(make_group(SHOP, 80, fin_wait1=tally(each)) for each in others), namespaces=(POD,))


def test_a_holder_in_another_namespace_is_looked_at_and_checked_there() -> None:
    said = commands(advice(in_pod()))
    assert "nsenter -t 4711 -n ss -tanoem state fin-wait-1 '( sport = :443 )' | head -20" in said
    assert f"nsenter -t 4711 -n {KILLS}" in said
    assert [] == [each for each in said if re.match("ss |nstat ", each)]


def test_without_a_holder_the_namespace_with_most_orphans_is_looked_at() -> None:
    groups = (make_group(each, 443, namespace=1, fin_wait1=tally(20_000)) for each in (NGINX, SHOP, 77))
    said = commands(advice(make_table(*groups, namespaces=(POD,))))
    assert "nsenter -t 4711 -n ss -tanoemi state last-ack" in said


def test_the_hosts_own_namespace_needs_no_entering() -> None:
    said = commands(advice(make_table(make_group(fin_wait1=tally(60_000)))))
    assert KILLS in said
    assert "ss -tanoemi state closing" in said


def test_without_a_table_every_namespace_is_looked_at() -> None:
    said = commands(advice(None))
    assert f"for pid in $(lsns -t net -n -o PID); do nsenter -t $pid -n {KILLS.replace('   #', '; done   #')}" in said


@pytest.mark.parametrize(("orphans", "ours"), [(100, False), (70_000, True)])
def test_settings_of_this_namespace_are_not_changed_for_another(orphans: int, *, ours: bool) -> None:
    keys = {each.sysctl.key for each in advice(in_pod(orphans)) if each.sysctl}
    per_namespace = {"net.ipv4.tcp_orphan_retries", "net.ipv4.tcp_fin_timeout"}
    assert per_namespace & keys == (per_namespace if ours else set())


def test_a_container_has_its_programs_settings_in_files_of_its_own() -> None:
    path = "/system.slice/docker-" + 64 * "ab".replace("ab", "a") + ".scope"
    table = make_table(make_group(77, 443, fin_wait1=tally(60_000)), paths={1: "/", 77: path})
    assert [] == [each for each in commands(advice(table)) if "nginx -T" in each]
