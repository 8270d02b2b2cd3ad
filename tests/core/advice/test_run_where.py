"""Every command runs in the network namespace in which it shows something."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from material import NGINX, SHOP, make_event, make_group, make_snapshot, make_table, tally

from agent.core.diagnosis.diagnose import diagnose
from agent.core.model import Advice, Witness, WitnessedBy
from agent.core.readings import Namespace, Process, SocketTable, Sockstat, TcpSockstat

POD = Namespace(process=Process(pid=4711, name="pause", cgroup="/kubepods/pod1"), inuse=900, number=1)
KILLS = "nstat -az TcpExtTCPAbortOnMemory   # stops rising"


def advice(
    table: SocketTable | None, text: str = "orphans", mem: int = 9000, kernel: str = "5.10.0-30-amd64"
) -> tuple[Advice, ...]:
    settings = {"net.ipv4.tcp_orphan_retries": (0,), "net.ipv4.tcp_fin_timeout": (300,)}
    host = make_snapshot(65600, mem, sockets=table, sysctls=settings, kernel=kernel)
    return diagnose(host, (make_event(text),), ()).advice


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


@pytest.mark.parametrize(
    ("others", "there"),
    [
        ({0: 60_000}, "nsenter -t 4711 -n ss -tanoemi state last-ack"),
        (
            {0: 40_000, 2: 40_000},
            "for pid in $(lsns -t net -n -o PID); do nsenter -t $pid -n ss -tanoemi state last-ack",
        ),
    ],
)
def test_the_namespace_with_half_of_the_orphans_is_looked_at_and_all_where_none_has(
    others: dict[int, int], there: str
) -> None:
    shares = {1: 60_000, **others}
    groups = (make_group(NGINX, 443, namespace=number, fin_wait1=tally(each)) for number, each in shares.items())
    said = commands(advice(make_table(*groups, namespaces=(POD,))))
    assert [there] == [each.partition("; done")[0] for each in said if "last-ack" in each]


def test_the_hosts_own_namespace_needs_no_entering() -> None:
    said = commands(advice(make_table(make_group(fin_wait1=tally(60_000)))))
    assert KILLS in said
    assert "ss -tanoemi state closing" in said


@pytest.mark.parametrize(
    "table", [None, make_table(make_group(NGINX, 443, namespace=1, established=tally(9)), namespaces=(POD,))]
)
def test_where_no_orphan_was_seen_every_namespace_is_looked_at(table: SocketTable | None) -> None:
    said = commands(advice(table))
    assert f"for pid in $(lsns -t net -n -o PID); do nsenter -t $pid -n {KILLS.replace('   #', '; done   #')}" in said


@pytest.mark.parametrize(("orphans", "ours"), [(100, False), (70_000, True)])
def test_settings_of_this_namespace_are_not_changed_for_another(orphans: int, *, ours: bool) -> None:
    keys = {each.sysctl.key for each in advice(in_pod(orphans)) if each.sysctl}
    per_namespace = {"net.ipv4.tcp_orphan_retries", "net.ipv4.tcp_fin_timeout"}
    assert per_namespace & keys == (per_namespace if ours else set())


@pytest.mark.parametrize(
    ("kernel", "is_shared"), [("3.10.0-1160.el7.x86_64", True), ("4.4.0-210-generic", True), ("4.9.0-19-amd64", False)]
)
def test_up_to_4_4_the_settings_of_orphans_are_those_of_every_namespace(kernel: str, *, is_shared: bool) -> None:
    keys = {each.sysctl.key for each in advice(in_pod(100), kernel=kernel) if each.sysctl}
    assert is_shared == ({"net.ipv4.tcp_orphan_retries", "net.ipv4.tcp_fin_timeout"} <= keys)


def test_a_container_has_its_programs_settings_in_files_of_its_own() -> None:
    path = "/system.slice/docker-" + 64 * "ab".replace("ab", "a") + ".scope"
    table = make_table(make_group(77, 443, fin_wait1=tally(60_000)), paths={1: "/", 77: path})
    assert [] == [each for each in commands(advice(table)) if "nginx -T" in each]


def everywhere(kernel: str) -> list[str]:
    snapshot = make_snapshot(65600, 90000, kernel=kernel, sysctls={"net.ipv4.tcp_orphan_retries": (0,)})
    text = "close" if kernel < "3.3" else "orphans"
    return commands(diagnose(snapshot, (make_event(text),), ()).advice)


@pytest.mark.parametrize("kernel", ["2.6.18-419.el5", "2.6.32-754.el6.x86_64", "3.2.0-4-amd64"])
def test_kernels_without_nsenter_get_plain_commands(kernel: str) -> None:
    said = everywhere(kernel)
    assert KILLS in said
    assert "ss -tanoemi state last-ack" in said
    assert [] == [each for each in said if "nsenter" in each or "lsns" in each]


@pytest.mark.parametrize("kernel", ["2.6.32-754.el6.x86_64", "3.2.0-4-amd64", "3.13.0-170-generic"])
def test_kernels_without_nsenter_read_another_namespace_through_a_process_in_it(kernel: str) -> None:
    text = "orphans" if kernel.startswith("3.13.") else "close"
    said = commands(advice(in_pod(), text, kernel=kernel))
    assert "PROC_ROOT=/proc/4711 ss -tanoem state fin-wait-1 '( sport = :443 )' | head -20" in said
    assert f"PROC_ROOT=/proc/4711 {KILLS}" in said
    assert [] == [each for each in said if "nsenter" in each]


@pytest.mark.parametrize("kernel", ["4.1.12-124.48.6.el6uek.x86_64", "4.14.355-196.639.amzn1.x86_64"])
def test_newer_kernels_with_old_tools_need_neither_nsenter_nor_lsns(kernel: str) -> None:
    said = commands(advice(in_pod(), kernel=kernel))
    assert "PROC_ROOT=/proc/4711 ss -tanoem state fin-wait-1 '( sport = :443 )' | head -20" in said
    assert [] == [each for each in (*said, *everywhere(kernel)) if "lsns" in each or each.startswith("nsenter")]


@pytest.mark.skipif(not shutil.which("ss") or not shutil.which("nstat"), reason="needs iproute2")
def test_iproute2_reads_another_namespace_through_a_process_in_it(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    sockets = Path("/proc/net/tcp").read_text().splitlines()[:1]
    row = "   0: 0100007F:01BB 0100007F:B2F2 04 00000009:00000000 04:00000AA8 00000002 0 0 0 3 ffff 26 4 0 10 -1"
    (tmp_path / "net/tcp").write_text("\n".join([*sockets, row, ""]))
    (tmp_path / "net/netstat").write_text("TcpExt: TCPAbortOnMemory\nTcpExt: 4711\n")
    (tmp_path / "net/snmp").write_text("")
    for command, expected in (("ss -tanoem state fin-wait-1 '( sport = :443 )'", "127.0.0.1:45810"), (KILLS, "4711")):
        env = {"PATH": os.environ["PATH"], "PROC_ROOT": str(tmp_path), "NSTAT_HISTORY": str(tmp_path / "history")}
        assert expected in subprocess.check_output(["/bin/sh", "-c", command], env=env, text=True)


@pytest.mark.parametrize("kernel", ["3.10.0-1160.el7.x86_64", "3.13.0-170-generic", "4.1.6", "4.14.5-1.el6.elrepo"])
def test_kernels_before_lsns_get_a_loop_that_runs_without_it(kernel: str, tmp_path: Path) -> None:
    said = everywhere(kernel)
    assert [] == [each for each in said if "lsns" in each]
    for program in ("ls", "awk"):
        (tmp_path / program).symlink_to(shutil.which(program) or "")
    command = next(each for each in said if "ss -tanoemi state closing" in each)
    for tool, expected in (("ss", r"/proc/\d+ ss -tanoemi state closing\n"), ("nsenter", r" nsenter --net=/proc/\d+/")):
        (tmp_path / tool).write_text(f'#!/bin/sh\necho "$PROC_ROOT" {tool} "$@"\n')
        (tmp_path / tool).chmod(0o755)
        ran = subprocess.check_output(["/bin/sh", "-c", command], env={"PATH": str(tmp_path)}, text=True)
        assert re.match(expected, ran)


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [
        ("2.6.18-419.el5", "/etc/sysctl.conf, then run: sysctl -p\n"),
        ("2.6.32-754.el6.x86_64", "/etc/sysctl.conf, then run: sysctl -p\n"),
        ("3.2.0-4-amd64", "/etc/sysctl.conf, then run: sysctl -p\n"),
        # Oracle Linux 6 and Amazon Linux 1: a newer kernel, and the tools of RHEL 6.
        ("4.1.12-124.48.6.el6uek.x86_64", "/etc/sysctl.conf, then run: sysctl -p\n"),
        ("4.14.355-196.639.amzn1.x86_64", "/etc/sysctl.conf, then run: sysctl -p\n"),
        ("3.3.0", "/etc/sysctl.d/90-sockmem-tcp_orphan_retries.conf, then run: sysctl --system\n"),
        ("3.10.0-1160.el7.x86_64", "/etc/sysctl.d/90-sockmem-tcp_orphan_retries.conf, then run: sysctl --system\n"),
    ],
)
def test_a_setting_is_kept_where_its_time_keeps_settings(kernel: str, expected: str) -> None:
    snapshot = make_snapshot(65600, 90000, kernel=kernel, sysctls={"net.ipv4.tcp_orphan_retries": (0,)})
    steps = diagnose(snapshot, (make_event("close" if kernel < "3" else "orphans"),), ()).advice
    kept = next(each.persist for each in steps if each.sysctl and each.sysctl.key == "net.ipv4.tcp_orphan_retries")
    assert expected in (kept or "")
    # With --system the old value comes back where it stands: /etc/sysctl.conf is read last, as 99-sysctl.conf at boot.
    later = "# /etc/sysctl.conf and files with a later name override this setting: remove it there first.\n"
    assert ("--system" in expected) == (later in (kept or ""))


@pytest.mark.parametrize(
    ("kernel", "trigger", "expected"),
    [
        ("2.6.32-754.el6.x86_64", "command", False),
        ("4.1.12-124.48.6.el6uek.x86_64", "command", False),
        ("6.1.0", "command", True),
        # The service itself says it: it runs, and perhaps in a pod.
        ("6.1.0", "event", False),
    ],
)
def test_the_service_is_to_be_started_only_where_it_may_not_run_and_there_may_be_systemd(
    kernel: str, trigger: str, *, expected: bool
) -> None:
    snapshot = make_snapshot(3, 9000, kernel=kernel, counters={"TCPAbortOnMemory": 9}, trigger=trigger)
    diagnosis = diagnose(snapshot, (make_event("timer"),), ())
    assert "undetermined" == diagnosis.cause
    assert expected == any("systemctl" in each for each in commands(diagnosis.advice))


def test_peers_are_counted_without_the_names_of_columns() -> None:
    pipeline = next(each for each in everywhere("6.1.0") if "uniq -c" in each).partition("; done | ")[2]
    one = "Recv-Q Send-Q Local Address:Port Peer Address:Port Process\n0 1 10.0.0.1:80 192.0.2.7:5555\n"
    assert "2 192.0.2.7" == subprocess.check_output(["/bin/sh", "-c", pipeline], input=2 * one, text=True).strip()


def test_orphans_are_looked_for_where_most_of_them_are_and_memory_where_most_of_it_is() -> None:
    pod = (make_group(each, 443, namespace=1, fin_wait1=tally(20_000)) for each in (NGINX, SHOP, 77))
    table = make_table(*pod, make_group(SHOP, 80, established=tally(900, 1 << 20)), namespaces=(POD,))
    assert "nsenter -t 4711 -n ss -tanoemi state last-ack" in commands(advice(table))
    assert [] == [step.action for step in advice(table) if step.sysctl and "max_orphans" not in step.sysctl.key]
    assert "ss -tanp state close-wait" in commands(advice(table, "tcp_memory", 390_000))


def test_where_no_namespace_has_half_all_of_them_are_looked_at() -> None:
    spaces = [Namespace(process=Process(pid=100 + n, name="web"), inuse=900, number=n) for n in range(1, 5)]
    each = [make_group(n, 443, namespace=n, established=tally(900, (1 << 20) + n)) for n in range(1, 5)]
    said = commands(advice(make_table(*each, namespaces=tuple(spaces)), "tcp_memory", 390_000))
    assert "for pid in $(lsns -t net -n -o PID); do nsenter -t $pid -n ss -tanp state close-wait; done" in said
    half = make_table(*each[:2], make_group(SHOP, 80, established=tally(1801, 1 << 20)), namespaces=tuple(spaces))
    assert "ss -tanp state close-wait" in commands(advice(half, "tcp_memory", 390_000))


@pytest.mark.parametrize(("ours", "expected"), [(59_999, False), (60_000, True)])
def test_the_hosts_own_settings_hold_where_half_of_the_orphans_are_its_own(ours: int, *, expected: bool) -> None:
    spaces = [Namespace(process=Process(pid=100 + n, name="web"), inuse=900, number=n) for n in (1, 2)]
    pods = (make_group(n, 443, namespace=n, fin_wait1=tally(30_000)) for n in (1, 2))
    steps = advice(make_table(*pods, make_group(SHOP, 80, fin_wait1=tally(ours)), namespaces=tuple(spaces)))
    keys = {each.sysctl.key for each in steps if each.sysctl}
    assert expected == ("net.ipv4.tcp_orphan_retries" in keys)


@pytest.mark.parametrize(("ours", "expected"), [(32_799, False), (32_800, True)])
def test_orphans_that_no_table_shows_are_none_of_the_hosts_own(ours: int, *, expected: bool) -> None:
    counts = Sockstat(tcp=TcpSockstat(inuse=200, orphan=65_600, alloc=66_000, mem=9000))
    steps = advice(make_table(make_group(SHOP, 80, fin_wait1=tally(ours)), sockstat=counts))
    look = next(step for step in steps if step.action.startswith("List the orphaned"))
    assert expected == ("ss -tanoemi state fin-wait-1" in look.commands)
    assert expected == ("net.ipv4.tcp_orphan_retries" in {each.sysctl.key for each in steps if each.sysctl})


@pytest.mark.parametrize(("ours", "expected"), [(999, False), (1000, True)])
def test_memory_is_looked_for_where_half_of_it_is_however_many_orphans_no_table_shows(
    ours: int, *, expected: bool
) -> None:
    counts = Sockstat(tcp=TcpSockstat(inuse=200, orphan=65_600, alloc=66_000, mem=390_000))
    groups = [make_group(SHOP, 80, established=tally(9, ours))]
    groups += [make_group(n, 443, namespace=n, established=tally(9, size)) for n, size in ((1, 1), (2, 999))]
    spaces = [Namespace(process=Process(pid=100 + n, name="web"), inuse=900, number=n) for n in (1, 2)]
    table = make_table(*groups, namespaces=tuple(spaces), sockstat=counts)
    steps = diagnose(make_snapshot(65_600, 390_000, sockets=table), (make_event("tcp_memory"),), ()).advice
    assert expected == any(each.startswith("ss -") for each in commands(steps))


def test_kills_are_counted_where_most_orphans_are() -> None:
    pod = make_group(77, 443, namespace=1, fin_wait1=tally(60))
    table = make_table(pod, make_group(SHOP, 80, established=tally(900, 1 << 20)), namespaces=(POD,))
    witness = Witness(kills=90, by=(WitnessedBy(unit="nginx.service", process="nginx", kills=90),))
    found = diagnose(make_snapshot(65_600, sockets=table), (make_event(),), (), witness)
    assert found.advice[0].action.startswith("Fix nginx.service: 90 of 90")
    assert f"nsenter -t 4711 -n {KILLS}" in found.advice[0].commands


@pytest.mark.parametrize(("kernel", "part"), [("4.3.0", "lsns -t net"), ("4.2.0", "/ns/net"), ("3.8.0", "/ns/net")])
def test_each_tool_is_used_from_the_kernel_of_its_time_on(kernel: str, part: str) -> None:
    assert any(part in each for each in everywhere(kernel))


@pytest.mark.parametrize("text", ["orphans", "tcp_memory", "timer", None])
@pytest.mark.parametrize("kernel", ["3.10.0-1160.el7.x86_64", "4.4.0-210-generic", "4.9.0-19-amd64", "6.12.0"])
def test_what_is_advised_in_a_container_can_be_typed_there(kernel: str, text: str | None) -> None:
    own = {"net.ipv4.ip_forward": (1,)}
    own |= (
        {"net.ipv4.tcp_orphan_retries": (0,), "net.ipv4.tcp_fin_timeout": (300,)}
        if kernel in ("4.9.0-19-amd64", "6.12.0")
        else {}
    )
    inside = make_snapshot(65_600, 390_000, max_orphans=None, tcp_mem=None, kernel=kernel, sysctls=own, press=True)
    first, *others = diagnose(inside, (make_event(text),) if text else (), ()).advice
    assert first.action.startswith("Run sockmem-agent diagnose on the host")
    # It enters no namespace, reads no limit, and may not write to /proc/sys in most of them.
    wrong = re.compile(r"nsenter|lsns|tcp_max_orphans|tcp_mem\b|systemctl")
    assert [] == [each for each in commands(tuple(others)) if wrong.search(each)]
    for step in others:
        if step.sysctl:
            assert "docker run --sysctl" in (step.persist or "")
            assert all(command.endswith("# where /proc/sys is writable") for command in step.commands)


@pytest.mark.parametrize(
    "file",
    [
        "/etc/sysctl.conf",
        "/etc/sysctl.d/99-net.conf",
        "/etc/tuned/own/tuned.conf",
        "/usr/lib/tuned/network-latency/tuned.conf",
        # Red Hat's and everybody's place for one more line; what runs when a network comes up; systems with a /lib.
        "/etc/rc.d/rc.local",
        "/etc/rc.local",
        "/etc/NetworkManager/dispatcher.d/30-tune",
        "/etc/network/if-up.d/tune",
        "/etc/cron.d/tune",
        "/lib/sysctl.d/10-net.conf",
    ],
)
def test_what_set_a_limit_is_looked_for_wherever_settings_are_made(file: str) -> None:
    lowered = make_snapshot(40, 9000, max_orphans=16, kernel="5.14.0-427.el9.x86_64")
    said = next(each for each in commands(diagnose(lowered, (make_event(),), ()).advice) if each.startswith("grep -rs"))
    assert any(file.startswith(f"{folder}/") for folder in said.split() if folder.startswith("/"))


@pytest.mark.parametrize(("text", "key"), [("orphans", "net.ipv4.tcp_max_orphans"), ("tcp_memory", "net.ipv4.tcp_mem")])
def test_who_diagnoses_an_old_message_again_is_told_to_keep_what_it_led_to(text: str, key: str) -> None:
    """Each run of the command would double the limit: nothing there shows that it was raised since the message."""

    def why(trigger: str, orphan: int = 3, mem: int = 1200, *said: str) -> str:
        host = make_snapshot(orphan, mem, alloc=70_000, trigger=trigger)
        steps = diagnose(host, tuple(make_event(each) for each in said), ()).advice
        return next(step.why for step in steps if step.sysctl and step.sysctl.key == key)

    keep = ". If you raised it after that message, keep it: only a newer message shows that it is still too low."
    assert keep in why("command", 3, 1200, text)
    # The service has just read the line, and a gauge that is high now speaks for itself.
    assert keep not in why("event", 3, 1200, text)
    assert keep not in why("command", *((65_600, 90_000) if text == "orphans" else (3, 380_000)), text)


@pytest.mark.parametrize(
    ("seen", "complete", "expected"), [(100, True, True), (40_000, True, False), (100, False, False)]
)
def test_orphans_of_a_container_that_has_ended_are_looked_for_by_the_name_of_their_namespace(
    seen: int, *, complete: bool, expected: bool
) -> None:
    """An orphan keeps its network namespace, in which no process lives any more: lsns does not lead there."""
    counts = Sockstat(tcp=TcpSockstat(inuse=200, orphan=65_600, alloc=66_000, mem=9000))
    table = make_table(make_group(NGINX, 443, fin_wait1=tally(seen)), sockstat=counts, complete=complete)
    found = diagnose(make_snapshot(65_600, 9000, sockets=table), (make_event(),), ())
    look = next(step for step in found.advice if step.action.startswith("List the orphaned"))
    assert expected == ("Most of them are in network namespaces with no visible process" in found.summary)
    assert expected == ("65,500 of 65,600 orphans are in network namespaces with no visible process" in look.why)
    assert expected == (" one network namespace. 65,500 of 65,600 orphans " in look.why)
    for state in ("fin-wait-1", "last-ack"):
        assert expected == (f"ip -all netns exec ss -tanoe state {state}" in look.commands)
