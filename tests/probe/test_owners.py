import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from harness import write_proc, write_process

from agent.core.readings import ROOT_CGROUP, Process
from agent.probe import owners
from agent.probe.owners import Names, find_paths, find_pods, find_processes, find_unlisted, read_process, unified_root


def now() -> float:
    return 0.0


def make_groups(root: Path, *paths: str) -> dict[str, int]:
    for path in paths:
        (root / path).mkdir(parents=True)
    return {path: (root / path).stat().st_ino for path in paths}


def test_paths_are_found_by_inode_and_the_root_stands_for_a_whole_walk(tmp_path: Path) -> None:
    ids = make_groups(tmp_path, "system.slice/nginx.service", "system.slice/b.service", "user.slice")
    nginx = ids["system.slice/nginx.service"]

    assert {nginx: "/system.slice/nginx.service", ROOT_CGROUP: "/"} == find_paths(tmp_path, {nginx, 2**40}, 1, now)


def test_path_out_of_time_is_not_called_removed(tmp_path: Path) -> None:
    ids = make_groups(tmp_path, "a/b/c")
    times = iter([0.0, 0.0, 2.0])

    assert {} == find_paths(tmp_path, ids.values(), 1, lambda: next(times))


def test_group_names_are_escaped(tmp_path: Path) -> None:
    ids = make_groups(tmp_path, "a\x1b[31m\u202e.service")

    (path,) = [path for number, path in find_paths(tmp_path, ids.values(), 1, now).items() if number != ROOT_CGROUP]
    assert "/a\\x1b[31m\\u202e.service" == path


def test_tree_that_cannot_be_read_has_no_paths(tmp_path: Path) -> None:
    assert {ROOT_CGROUP: "/"} == find_paths(tmp_path / "nowhere", {5}, 1, now)


def test_unified_hierarchy_is_where_mountinfo_says(tmp_path: Path) -> None:
    (tmp_path / "self").mkdir()
    mountinfo = tmp_path / "self/mountinfo"
    mountinfo.write_text(
        "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n"
        "rubbish\n"
        "41 31 0:38 / /sys/fs/cg\\040roup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
    )

    assert Path("/sys/fs/cg roup") == unified_root(tmp_path)
    mountinfo.write_text("31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n")
    assert unified_root(tmp_path) is None
    assert unified_root(tmp_path / "nowhere") is None


def test_removed_groups_are_remembered_and_the_oldest_forgotten() -> None:
    names = Names(most=2)
    names.remember({5: "/a", 6: "/b"})
    names.remember({5: "/a"})
    names.remember({7: "/c"})

    assert {5: "/a", 7: "/c"} == names.recall({5, 6, 7, 8})


def plant(proc: Path, pid: int, comm: str, cgroup: str, *targets: str) -> None:
    files = proc / str(pid) / "fd"
    files.mkdir(parents=True)
    (proc / str(pid) / "comm").write_text(comm + "\n")
    (proc / str(pid) / "cgroup").write_text(cgroup)
    for number, target in enumerate(targets):
        (files / str(number)).symlink_to(target)


def test_process_is_found_by_its_open_socket(tmp_path: Path) -> None:
    plant(tmp_path, 7, "cat", "0::/\n", "/dev/null", "pipe:[55]")
    plant(tmp_path, 812, "nginx", "0::/system.slice/nginx.service\n", "/dev/null", "socket:[55]", "socket:[56]")
    (tmp_path / "sys").mkdir()

    found = find_processes(tmp_path, {55, 99, 0}, 1, clock=now)
    assert {55: Process(pid=812, name="nginx", cgroup="/system.slice/nginx.service")} == found.processes
    assert (True, 0) == (found.whole, found.refused)


def test_service_is_found_for_a_listener_that_systemd_keeps_open_for_it(tmp_path: Path) -> None:
    plant(tmp_path, 1, "systemd", "0::/init.scope\n", "socket:[55]", "socket:[56]")
    plant(tmp_path, 812, "sshd", "0::/system.slice/ssh.service\n", "socket:[55]")

    found = find_processes(tmp_path, {55, 56}, 1, clock=now)
    assert {55: "sshd", 56: "systemd"} == {inode: each.name for inode, each in found.processes.items()}


def test_process_list_out_of_time_is_not_whole(tmp_path: Path) -> None:
    for pid in (1, 2):
        plant(tmp_path, pid, "x", "0::/\n", "socket:[55]")
    times = iter([0.0, 2.0, 2.0, 2.0])

    assert not find_processes(tmp_path, {99}, 1, clock=lambda: next(times)).whole


def test_names_of_processes_are_escaped(tmp_path: Path) -> None:
    plant(tmp_path, 7, "a\x1b[2J\nb", "0::/x\x07\n")

    assert Process(pid=7, name="a\\x1b[2J\\x0ab", cgroup="/x\\x07") == read_process(tmp_path, 7)


def test_process_that_ended_has_no_name() -> None:
    assert Process(pid=7, name="?") == read_process(Path("/nowhere"), 7)


def test_real_socket_of_this_process_is_found() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        inode = os.fstat(listener.fileno()).st_ino
        found = find_processes(Path("/proc"), {inode}, 1, clock=now)

    assert os.getpid() == found.processes[inode].pid


def test_only_so_many_files_of_a_process_are_looked_at(tmp_path: Path) -> None:
    plant(tmp_path, 7, "x", "0::/\n", *(f"socket:[{number}]" for number in range(100, 200)))

    assert 3 == len(find_processes(tmp_path, range(100, 200), 1, files_each=3, clock=now).processes)


def test_processes_of_others_are_counted_as_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: str) -> None:
        raise PermissionError

    for pid in (1, 2):
        plant(tmp_path, pid, "x", "0::/\n", "socket:[55]")
    monkeypatch.setattr(owners, "_sockets", refuse)

    assert ({}, True, 2) == find_processes(tmp_path, {55}, 1, clock=now)


@pytest.fixture
def reset_sockets() -> Iterator[int]:
    """Hold sockets that their peer has reset, with data that was not read, beside others of every kind."""
    with ExitStack() as held:
        server = held.enter_context(socket.create_server(("127.0.0.1", 0), backlog=64))
        for _ in range(60):
            held.enter_context(socket.create_connection(server.getsockname()))
            writer = server.accept()[0]
            writer.send(b"x" * 100)
            writer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.close()
        held.enter_context(socket.create_connection(server.getsockname()))
        for _ in range(20):
            held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            for each in socket.socketpair():
                held.enter_context(each)
        yield 60


def test_process_with_sockets_in_no_table_is_found_by_its_descriptors(reset_sockets: int) -> None:
    found, _ = find_unlisted(Path("/proc"), reset_sockets, 1, now)

    assert [reset_sockets] == [each.sockets for each in found if each.process.pid == os.getpid()]


def test_process_with_less_than_a_tenth_of_them_is_not_worth_a_name(reset_sockets: int) -> None:
    found, _ = find_unlisted(Path("/proc"), 11 * reset_sockets, 1, now)

    assert os.getpid() not in [each.process.pid for each in found]


def test_search_for_them_ends_when_its_time_is_over(reset_sockets: int) -> None:
    assert ([], 0) == find_unlisted(Path("/proc"), reset_sockets, 1, lambda: 2.0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_without_privilege_nobody_is_named_and_the_refused_are_counted(reset_sockets: int) -> None:
    code = (
        "import os; from pathlib import Path; from agent.probe.owners import find_unlisted\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        f"found, refused = find_unlisted(Path('/proc'), {reset_sockets}, 1, lambda: 0.0)\n"
        "print(len(found), refused > 0)"
    )

    assert "0 True\n" == subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_table_of_a_family_without_a_socket_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "7/net").mkdir(parents=True)
    for name, text in {
        "tcp": "head\none\n",
        "tcp6": "head\ntwo\n",
        "sockstat": "sockets: used 1\nTCP: inuse 10 orphan 0 tw 0 alloc 9 mem 0\n",
        "sockstat6": "TCP6: inuse 0\nUDP6: inuse 3\n",
    }.items():
        (tmp_path / "7/net" / name).write_text(text)

    assert [b"one\n"] == list(owners.table(tmp_path, 7))
    (tmp_path / "7/net/sockstat6").unlink()
    assert [b"one\n", b"two\n"] == list(owners.table(tmp_path, 7))


UID = "8c5e7b1a-0c3d-4e5f-8a9b-0c1d2e3f4a5b"


@pytest.mark.parametrize(
    "driver", [f"/kubepods/pod{UID}/x", f"/kubepods.slice/kubepods-pod{UID.replace('-', '_')}.slice"]
)
def test_pods_in_sight_are_named_by_the_directories_of_their_logs(tmp_path: Path, driver: str) -> None:
    for name in (f"shop_web-0_{UID}", "shop_other_11111111-2222-3333-4444-555555555555", "rubbish"):
        (tmp_path / name).mkdir()

    assert {UID: "shop/web-0"} == find_pods(f"/system.slice {driver}", tmp_path)
    assert {} == find_pods("/system.slice/nginx.service", tmp_path)
    assert {} == find_pods(driver, tmp_path / "nowhere")


def test_who_acted_is_asked_while_it_lives_whatever_it_is_called_by_now(tmp_path: Path) -> None:
    root = write_proc(tmp_path)
    write_process(root, 7, "worker", "/system.slice/app.service", started_seconds=86_000)
    expected = Process(pid=7, name="worker", cgroup="/system.slice/app.service")
    assert expected == owners.read_actor(root, 7, "python3", 300.0)
    assert owners.read_actor(root, 8, "python3", 300.0) is None


def test_who_started_after_the_act_and_has_another_name_did_not_do_it(tmp_path: Path) -> None:
    root = write_proc(tmp_path)
    write_process(root, 7, "cron job) S 1", "/system.slice/cron.service", started_seconds=86_399)
    assert owners.read_actor(root, 7, "python3", 300.0) is None
    assert owners.read_actor(root, 7, "cron job) S 1", 300.0) is not None


def test_a_zombie_that_left_its_cgroup_has_ended(tmp_path: Path) -> None:
    root = write_proc(tmp_path)
    for pid, cgroup in ((7, "/"), (8, "/system.slice/app.service")):
        write_process(root, pid, "worker", cgroup)
        stat = root / f"{pid}/stat"
        stat.write_text(stat.read_text().replace(") S ", ") Z "))
    assert owners.read_actor(root, 7, "worker", 1.0) is None
    assert owners.read_actor(root, 8, "worker", 1.0) is not None


def test_a_thread_is_asked_by_its_own_number() -> None:
    ready, done = threading.Event(), threading.Event()
    thread = threading.Thread(target=lambda: (ready.set(), done.wait()))
    thread.start()
    try:
        ready.wait()
        assert thread.native_id is not None
        found = owners.read_actor(Path("/proc"), thread.native_id, "whoever", 0.0)
        assert found is not None
        assert owners.read_process(Path("/proc"), os.getpid()).cgroup == found.cgroup
    finally:
        done.set()
        thread.join()
