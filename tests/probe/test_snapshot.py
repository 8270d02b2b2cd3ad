import os
import struct
import tempfile
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.kernel.procfs import PAGE_SIZES
from agent.core.model import Snapshot
from agent.core.readings import TcpSockstat
from agent.probe import pages_per_unit, take_snapshot
from agent.probe import snapshot as module

NOW = datetime(2026, 11, 22, 15, 5, 39, tzinfo=timezone.utc)
SOCKSTAT = "sockets: used 1386\nTCP: inuse 24 orphan 3 tw 58 alloc 863 mem 87916\n"
WHOLE = {
    "net/sockstat": SOCKSTAT,
    "net/sockstat6": "TCP6: inuse 7\n",
    "net/netstat": "TcpExt: TCPAbortOnMemory PruneCalled\nTcpExt: 5 2\n",
    "net/snmp": "Tcp: MaxConn OutRsts\nTcp: -1 4\n",
    "net/protocols": "protocol size sockets memory press\nTCP 2304 863 87916 yes\n",
    "sys/net/ipv4/tcp_mem": "43257\t57676\t86514\n",
    "sys/net/ipv4/tcp_max_orphans": "32768\n",
    "sys/net/ipv4/tcp_fin_timeout": "60\n",
    "sys/net/core/mem_pcpu_rsv": "256\n",
    "sys/kernel/hostname": "web1\n",
    "sys/kernel/osrelease": "5.10.0-30-cloud-amd64\n",
    "sys/kernel/random/boot_id": "f7dee64d-85cd-47a7-8438-d4ccf300a561\n",
    "uptime": "1339.34 2553.93\n",
    "stat": "cpu  1 2\ncpu0 1 2\ncpu1 1 2\ncpu2 1 2\nbtime 1342000000\n",
    "meminfo": "MemTotal: 1024 kB\nMemFree: 64000 kB\n",
    "self/smaps": "Size: 128 kB\nKernelPageSize: 64 kB\n",
    "pressure/memory": "some avg10=0.87 avg60=0.23 avg300=0.10 total=5798710\n",
}


def plant(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def look(root: Path, cgroup_root: Path | None = None) -> Snapshot:
    taken = take_snapshot(root, NOW, "command", cgroup_root)
    # Whatever the tree holds, the snapshot can be written down and read back.
    assert taken == msgspec.json.decode(msgspec.json.encode(taken), type=Snapshot)
    return taken


def reasons(taken: Snapshot, root: Path) -> dict[str, str]:
    return {gap.what.removeprefix(f"{root}/"): gap.why for gap in taken.gaps}


def test_a_whole_tree_is_read_without_a_gap(tmp_path: Path) -> None:
    taken = look(plant(tmp_path, WHOLE))

    assert () == taken.gaps
    assert taken.sockstat is not None
    assert TcpSockstat(inuse=24, orphan=3, tw=58, alloc=863, mem=87916) == taken.sockstat.tcp
    assert 7 == taken.sockstat.tcp6_inuse
    assert {"TCPAbortOnMemory": 5, "PruneCalled": 2} == taken.netstat
    assert {"MaxConn": -1, "OutRsts": 4} == taken.snmp
    assert taken.protocol is not None
    assert taken.protocol.press is True
    expected = {
        "net.ipv4.tcp_mem": (43257, 57676, 86514),
        "net.ipv4.tcp_max_orphans": (32768,),
        "net.ipv4.tcp_fin_timeout": (60,),
        "net.core.mem_pcpu_rsv": (256,),
    }
    assert expected == taken.sysctls
    assert ("web1", "5.10.0-30-cloud-amd64", 1339.34, 3) == (
        taken.host,
        taken.kernel,
        taken.uptime_seconds,
        taken.cpus,
    )
    assert "f7dee64d-85cd-47a7-8438-d4ccf300a561" == taken.boot_id
    assert {"MemTotal": 1048576, "MemFree": 65536000} == taken.meminfo
    assert {"memory some"} == set(taken.pressure)
    assert 65536 == taken.page_size_bytes
    assert (NOW, "command") == (taken.taken_at, taken.trigger)


def test_what_is_mounted_over_the_kernel_s_files_is_not_the_host_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """lxcfs shows a container its own share and uptime there, while sockets and their limits are the host's."""
    covered = {"meminfo", "uptime", "pressure/memory"}
    files = {name: text for name, text in WHOLE.items() if name not in covered}
    plant(tmp_path, files | {"pressure/io": WHOLE["pressure/memory"]})
    for name in covered:
        (tmp_path / name).symlink_to("/proc/uptime" if name == "uptime" else "/proc/meminfo")
    monkeypatch.setattr(module, "is_this_host", lambda _: True)
    taken = look(tmp_path)

    assert ({}, None, {"io some"}) == (taken.meminfo, taken.uptime_seconds, set(taken.pressure))
    assert covered == {name for name, why in reasons(taken, tmp_path).items() if "lxcfs" in why}


def test_raw_text_is_kept_by_its_path(tmp_path: Path) -> None:
    taken = look(plant(tmp_path, WHOLE))

    assert SOCKSTAT == taken.raw["net/sockstat"]
    assert {name for name in WHOLE if name not in {"stat", "self/smaps"}} == set(taken.raw)


def test_sockstat_is_read_before_anything_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    real_open = os.open

    def spy(path: str | Path, *rest: int) -> int:
        opened.append(os.fspath(path))
        return real_open(path, *rest)

    monkeypatch.setattr("agent.probe.files.os.open", spy)
    take_snapshot(plant(tmp_path, WHOLE), NOW, "event")

    assert opened[0] == f"{tmp_path}/net/sockstat"


def test_an_empty_tree_gives_gaps_and_no_value_of_this_host(tmp_path: Path) -> None:
    taken = take_snapshot(tmp_path, NOW, "command")

    gaps = reasons(taken, tmp_path)
    assert Snapshot(taken_at=NOW, trigger="command", page_size_bytes=4096, gaps=taken.gaps) == taken
    for name in ("net/sockstat", "net/netstat", "sys/net/ipv4/tcp_mem", "sys/net/ipv4/tcp_max_orphans", "meminfo"):
        assert "does not exist" == gaps[name]
    assert "not in this tree: assuming 4096 bytes" == gaps["page size"]
    assert "kernel release" in gaps
    assert 7 == len(taken.gaps)


@pytest.mark.parametrize("root", ["nowhere", "file"])
def test_no_tree_at_all_gives_gaps(tmp_path: Path, root: str) -> None:
    (tmp_path / "file").write_text("x")

    assert 7 == len(look(tmp_path / root).gaps)


def test_what_this_kernel_does_not_have_is_no_gap(tmp_path: Path) -> None:
    optional = {"net/sockstat6", "net/protocols", "net/snmp", "pressure/memory", "sys/net/core/mem_pcpu_rsv"}

    assert () == look(plant(tmp_path, {k: v for k, v in WHOLE.items() if k not in optional})).gaps


def test_a_container_s_namespace_is_told_as_the_reason(tmp_path: Path) -> None:
    limits = {"sys/net/ipv4/tcp_mem", "sys/net/ipv4/tcp_max_orphans"}

    gaps = reasons(look(plant(tmp_path, {k: v for k, v in WHOLE.items() if k not in limits})), tmp_path)

    assert limits == set(gaps)
    assert all("network namespace" in why and "share" in why for why in gaps.values())


@pytest.mark.parametrize("copy", [False, True])
def test_a_container_of_before_4_9_has_no_setting_of_tcp_at_all(tmp_path: Path, *, copy: bool) -> None:
    # 3.3 to 3.12 give it a tcp_mem of its own; ip_forward is everywhere, without privilege, too.
    release = "3.10.0-1160.el7.x86_64" if copy else "4.4.0-210-generic"
    tree = {k: v for k, v in WHOLE.items() if not k.startswith("sys/net/") or (copy and k == "sys/net/ipv4/tcp_mem")}
    tree |= {"sys/net/ipv4/ip_forward": "1\n", "sys/kernel/osrelease": release}
    taken = look(plant(tmp_path, tree))
    gaps = reasons(taken, tmp_path)

    assert {"net.ipv4.ip_forward": (1,)} == taken.sysctls
    assert {"sys/net/ipv4/tcp_mem", "sys/net/ipv4/tcp_max_orphans"} == set(gaps)
    assert all("network namespace" in why for why in gaps.values())


def make_directory(path: Path) -> None:
    path.mkdir()


def make_circle(path: Path) -> None:
    path.symlink_to(path.name)


def make_link_to_nowhere(path: Path) -> None:
    path.symlink_to("gone")


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "directory": (make_directory, "a directory, not a file"),
    "circle": (make_circle, "a loop of symbolic links"),
    "link to nowhere": (make_link_to_nowhere, "a dangling symbolic link"),
    "pipe that nobody writes to": (make_pipe, "a named pipe, not a file"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "a device or socket, not a file"),
    "empty": (lambda path: path.write_bytes(b""), "empty"),
    "blank": (lambda path: path.write_bytes(b" \n\n"), "empty"),
    "no UTF-8": (lambda path: path.write_bytes(b"TCP: inuse \xff\xfe\n"), "invalid UTF-8"),
    "garbage": (lambda path: path.write_bytes(bytes(range(128)) * 9), "path-specific"),
    "NUL bytes": (lambda path: path.write_bytes(b"\0" * 512), "path-specific"),
    "huge": (lambda path: path.write_bytes(b"TCP: inuse 1\n" * 100_000), "larger than 256 KiB"),
}


@pytest.mark.parametrize("name", ["net/sockstat", "net/netstat", "meminfo", "sys/net/ipv4/tcp_mem", "uptime"])
@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_is_one_gap_with_its_reason(tmp_path: Path, kind: str, name: str) -> None:
    make, why = BROKEN[kind]
    plant(tmp_path, WHOLE)
    (tmp_path / name).unlink()
    make(tmp_path / name)

    gaps = reasons(look(tmp_path), tmp_path)

    assert [name] == list(gaps)
    if why != "path-specific":
        assert why in gaps[name]


def test_a_file_without_end_is_not_read_to_its_end(tmp_path: Path) -> None:
    plant(tmp_path, WHOLE)
    with (tmp_path / "net/sockstat").open("wb") as sparse:
        sparse.truncate(1 << 40)

    assert "larger than 256 KiB" in reasons(look(tmp_path), tmp_path)["net/sockstat"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can step down to a user without permission")
def test_permission_denied_says_what_to_do(tmp_path: Path) -> None:
    plant(tmp_path, WHOLE)
    (tmp_path / "net/netstat").chmod(0)
    for directory in (tmp_path, *tmp_path.parents):
        if directory.stat().st_uid == os.geteuid():
            directory.chmod(directory.stat().st_mode | 0o055)
    os.seteuid(65534)
    try:
        gaps = reasons(take_snapshot(tmp_path, NOW, "command"), tmp_path)
    finally:
        os.seteuid(0)

    assert {"net/netstat": "permission denied: run as root, or let this user read it"} == gaps


def test_a_file_that_stops_answering_is_a_gap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    plant(tmp_path, WHOLE)
    monkeypatch.setattr("agent.probe.files.os.read", fail)

    assert "cannot be read: Input/output error" in reasons(look(tmp_path), tmp_path)["net/sockstat"]


def test_a_number_of_ipv6_sockets_that_is_none_is_a_gap(tmp_path: Path) -> None:
    taken = look(plant(tmp_path, {**WHOLE, "net/sockstat6": "TCP6: inuse many\n"}))

    assert "many" in reasons(taken, tmp_path)["net/sockstat6"]


def test_one_broken_line_leaves_the_other_files_alone(tmp_path: Path) -> None:
    taken = look(plant(tmp_path, {**WHOLE, "net/sockstat": "TCP: inuse 5 orphan\n"}))

    assert taken.sockstat is None
    assert 5 == taken.netstat["TCPAbortOnMemory"]
    assert "a name without its number: 'TCP: inuse 5 orphan'" == reasons(taken, tmp_path)["net/sockstat"]
    assert "TCP: inuse 5 orphan\n" == taken.raw["net/sockstat"]


def test_a_limit_that_does_not_parse_is_told_once(tmp_path: Path) -> None:
    gaps = look(plant(tmp_path, {**WHOLE, "sys/net/ipv4/tcp_mem": "1 2\n"})).gaps

    assert ["2 values instead of 3: '1 2'"] == [gap.why for gap in gaps]


def test_a_tree_in_a_folder_that_is_no_utf_8_can_be_written_down(tmp_path: Path) -> None:
    root = Path(os.fsdecode(os.fsencode(tmp_path) + b"/tr\xffee"))
    root.mkdir()

    assert any("tr\\xffee/net/sockstat" in gap.what for gap in look(root).gaps)


def test_the_kernel_release_is_taken_from_version_if_need_be(tmp_path: Path) -> None:
    plant(tmp_path, {"version": "Linux version 2.6.32-754.el6.x86_64 (b@h) #1 SMP\n"})

    assert "2.6.32-754.el6.x86_64" == look(tmp_path).kernel


def test_a_host_that_nobody_named_has_no_name(tmp_path: Path) -> None:
    assert look(plant(tmp_path, {"sys/kernel/hostname": "(none)\n"})).host is None


NAMES = st.sampled_from([*WHOLE, "net/sockstat/x", "vmstat", "version", "self/auxv", "1/smaps", "pressure/io"])


@given(files=st.dictionaries(NAMES, st.one_of(st.binary(), st.sampled_from(list(WHOLE.values())).map(str.encode))))
@settings(max_examples=60, deadline=None)
def test_no_content_of_a_tree_makes_it_raise(files: dict[str, bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name, data in sorted(files.items(), reverse=True):
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.is_dir():
                path.write_bytes(data)

        assert look(Path(folder)).page_size_bytes in (*PAGE_SIZES, None)


def auxv(size: int) -> bytes:
    return struct.pack("<6Q", 33, 0x7FFE5000, 6, size, 0, 0)


def test_the_page_size_is_that_of_the_tree_s_processes(tmp_path: Path) -> None:
    plant(tmp_path, {"2/smaps": "", "17/smaps": "KernelPageSize: 4 kB\n", "meminfo": "MemFree: 4000 kB\n"})
    (tmp_path / "2/auxv").write_bytes(b"")
    (tmp_path / "17/auxv").write_bytes(auxv(65536))

    assert 65536 == look(tmp_path).page_size_bytes


def test_the_page_size_comes_from_smaps_without_auxv(tmp_path: Path) -> None:
    assert 16384 == look(plant(tmp_path, {"self/smaps": "KernelPageSize: 16 kB\n"})).page_size_bytes


def test_the_page_size_follows_from_free_memory_as_a_last_resort(tmp_path: Path) -> None:
    files = {"vmstat": "nr_free_pages 1000\n", "meminfo": "MemTotal: 96000 kB\nMemFree: 64000 kB\n"}

    assert 65536 == look(plant(tmp_path, files)).page_size_bytes


@pytest.mark.parametrize("files", [{"1/smaps": "KernelPageSize: x kB\n"}, {"vmstat": "nr_free_pages x\n"}])
def test_a_broken_hint_at_the_page_size_is_no_hint(tmp_path: Path, files: dict[str, str]) -> None:
    taken = look(plant(tmp_path, files))

    assert 4096 == taken.page_size_bytes
    assert "page size" in reasons(taken, tmp_path)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("sys/kernel/osrelease", "5.14.0-427.el9.aarch64+64k"),
        ("version", "Linux version 4.18.0-553.el8_10.ppc64le (x) #1"),
    ],
)
def test_the_page_size_of_a_kernel_that_may_have_larger_ones_is_not_assumed(
    tmp_path: Path, file: str, text: str
) -> None:
    taken = look(plant(tmp_path, {file: f"{text}\n"}))

    assert None is taken.page_size_bytes
    assert "may have larger pages; no sizes in bytes" in reasons(taken, tmp_path)["page size"]
    assert None is pages_per_unit(tmp_path)


def test_pages_are_what_the_kernel_counts_where_it_has_the_file_of_the_reserves(tmp_path: Path) -> None:
    files = {"sys/kernel/osrelease": "5.14.0-503.el9.aarch64+64k\n", "self/smaps": "KernelPageSize: 64 kB\n"}
    assert 1 / 16 == pages_per_unit(plant(tmp_path, files))

    assert 1 == pages_per_unit(plant(tmp_path, {"sys/net/core/mem_pcpu_rsv": "16\n"}))


def test_this_host_is_read_whole() -> None:
    taken = take_snapshot(Path("/proc"), NOW, "command", None)

    assert os.sysconf("SC_PAGE_SIZE") == taken.page_size_bytes
    assert os.uname().release == taken.kernel
    assert os.uname().nodename == taken.host
    assert taken.sockstat is not None
    assert taken.sockstat.tcp.mem is not None
    assert "TCPAbortOnMemory" in taken.netstat
    assert [] == [gap for gap in taken.gaps if "ipv4" not in gap.what]


def test_this_host_is_known_by_another_name(tmp_path: Path) -> None:
    (tmp_path / "proc").symlink_to("/proc")

    assert take_snapshot(tmp_path / "proc", NOW, "command", None).page_size_bytes == os.sysconf("SC_PAGE_SIZE")


def test_the_cgroups_of_this_host_are_not_those_of_a_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []
    monkeypatch.setattr(module, "socket_memory", lambda root, _gaps: (asked.append(root), ({}, None))[1])
    take_snapshot(tmp_path, NOW, "command")
    take_snapshot(tmp_path, NOW, "command", tmp_path / "cgroup")
    take_snapshot(Path("/proc"), NOW, "command")

    assert [tmp_path / "cgroup", Path("/sys/fs/cgroup")] == asked
