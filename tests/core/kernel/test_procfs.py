import struct
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.kernel import procfs
from agent.core.kernel.procfs import ParseError
from agent.core.readings import PressureStall, Sockstat, TcpProtocol, TcpSockstat

SOCKSTAT = """\
sockets: used 48476
TCP: inuse 174950 orphan 126800 tw 153787 alloc 174954 mem 102910
UDP: inuse 34 mem 3
UDPLITE: inuse 0
RAW: inuse 1
FRAG: inuse 3 memory 4968
"""
NETSTAT_2_6_32 = """\
TcpExt: SyncookiesSent SyncookiesRecv EmbryonicRsts PruneCalled TCPAbortOnMemory TCPAbortOnTimeout
TcpExt: 0 0 5 12 117 30211
IpExt: InNoRoutes InTruncatedPkts InMcastPkts
IpExt: 0 0 2
"""
SNMP = """\
Ip: Forwarding DefaultTTL InReceives
Ip: 1 64 8312
Tcp: RtoAlgorithm RtoMin RtoMax MaxConn ActiveOpens OutRsts
Tcp: 1 200 120000 -1 118 26
Udp: InDatagrams NoPorts
Udp: 3 0
"""
PROTOCOLS_6_18 = """\
protocol  size sockets  memory press maxhdr  slab module     cl co di ac io in de sh ss gs se re bi br ha uh gp em
AF_VSOCK  1240      0      -1   NI       0   yes  kernel      y  n  n  n  n  n  n  n  n  n  n  n  n  n  n  n  n  n  n
MPTCP     1936      0     255   no       0   yes  kernel      y  y  y  n  y  y  y  y  y  y  y  y  n  n  y  y  y  n
UNIX-STREAM 1152      2      -1   NI       0   yes  kernel      y  n  n  n  n  n  n  n  n  n  n  n  n  n  n  n  n  n
TCPv6     2432      0     255   no     192   yes  kernel      y  y  y  y  y  y  y  y  y  y  y  y  n  y  y  y  y  y
TCP       2304    863   87916   yes    192   yes  kernel      y  y  y  y  y  y  y  y  y  y  y  y  n  y  y  y  y  y
"""
PROTOCOLS_2_6_24 = """\
protocol  size sockets  memory press maxhdr  slab module     cl co di ac io in de sh ss gs se re sp bi br ha uh gp em
TCP       1416      9       1   no     112   yes  kernel      y  y  y  y  y  y  y  y  y  y  y  y  y  n  y  y  y  y  y
"""
MEMINFO = """\
MemTotal:       24570628 kB
MemFree:        22000000 kB
Active(anon):       1564 kB
HugePages_Total:       0
DirectMap1G:    25769803 kB
"""
MEMINFO_2_4 = """\
        total:    used:    free:  shared: buffers:  cached:
Mem:  130183168 126595072  3588096        0  6352896 66887680
Swap: 271392768  1536000 269856768
MemTotal:       127132 kB
MemFree:          3504 kB
"""
PRESSURE = """\
some avg10=0.87 avg60=0.23 avg300=0.10 total=5798710
full avg10=0.00 avg60=0.00 avg300=0.00 total=0
"""


def test_sockstat_gives_every_field_of_the_tcp_line() -> None:
    tcp = TcpSockstat(inuse=174950, orphan=126800, tw=153787, alloc=174954, mem=102910)

    assert Sockstat(sockets_used=48476, tcp=tcp, udp_mem=3) == procfs.parse_sockstat(SOCKSTAT)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        pytest.param("TCP: inuse 5 orphan 0 tw 1 alloc 6", TcpSockstat(inuse=5, orphan=0, tw=1, alloc=6), id="no mem"),
        pytest.param("TCP: inuse 5 mem -3", TcpSockstat(inuse=5, mem=-3), id="negative mem"),
        pytest.param("TCP: inuse 5 orphan 7 frozen 9", TcpSockstat(inuse=5, orphan=7), id="a field of a later kernel"),
        pytest.param("TCP:", TcpSockstat(), id="no field at all"),
        pytest.param("TCP: inuse 5 mem 57350 <--", TcpSockstat(inuse=5, mem=57350), id="a mark behind it"),
        pytest.param("TCP: inuse 5 mem 57350 <-- see here", TcpSockstat(inuse=5, mem=57350), id="a remark behind it"),
        pytest.param("TCP: inuse 5 mem 57350 too high", TcpSockstat(inuse=5, mem=57350), id="words behind it"),
        pytest.param("TCP: inuse 5\r", TcpSockstat(inuse=5), id="copied over Windows"),
    ],
)
def test_sockstat_leaves_absent_fields_none(line: str, expected: TcpSockstat) -> None:
    assert Sockstat(tcp=expected) == procfs.parse_sockstat(f"{line}\nUDP: inuse\n")


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("TCP: inuse 5 orphan many tw 1\n", "'TCP: inuse 5 orphan many tw 1'"),
        ("TCP: inuse 5 orphan\n", "'TCP: inuse 5 orphan'"),
        ("TCP: inuse 1_000\n", "'1_000'"),
        ("TCP: inuse \u0661\n", "'\u0661'"),
        ("TCP: mem 99999999999999999999\n", "99999999999999999999"),
        ("UDP: inuse 3 mem 2\n", "no 'TCP:' line"),
        ("", "no 'TCP:' line"),
    ],
)
def test_a_broken_sockstat_is_named_and_quoted(text: str, quoted: str) -> None:
    with pytest.raises(ParseError, match="net/sockstat: ") as caught:
        procfs.parse_sockstat(text)

    assert quoted in str(caught.value)


def test_a_long_line_is_quoted_in_part() -> None:
    with pytest.raises(ParseError) as caught:
        procfs.parse_sockstat("TCP: inuse " + "x" * 100_000)

    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("text", "expected"), [("TCP6: inuse 3\nUDP6: inuse 8\n", 3), ("UDP6: inuse 8\n", None), ("", None)]
)
def test_sockstat6_gives_the_namespace_s_sockets(text: str, expected: int | None) -> None:
    assert expected == procfs.parse_sockstat6(text) == procfs.parse_inuse(text)


def test_netstat_counters_are_found_by_name() -> None:
    expected = {
        "SyncookiesSent": 0,
        "SyncookiesRecv": 0,
        "EmbryonicRsts": 5,
        "PruneCalled": 12,
        "TCPAbortOnMemory": 117,
        "TCPAbortOnTimeout": 30211,
    }

    assert expected == procfs.parse_netstat(NETSTAT_2_6_32)


def test_a_name_that_a_kernel_has_twice_costs_none_of_the_others() -> None:
    assert {"A": 1, "B": 3, "C": 4} == procfs.parse_netstat("TcpExt: A B B C\nTcpExt: 1 2 3 4\n")


def test_snmp_gives_tcp_alone_and_knows_negative_values() -> None:
    expected = {"RtoAlgorithm": 1, "RtoMin": 200, "RtoMax": 120000, "MaxConn": -1, "ActiveOpens": 118, "OutRsts": 26}

    assert expected == procfs.parse_snmp(SNMP)
    assert {} == procfs.parse_udp_errors(SNMP)
    assert {"PruneCalled": 12} == procfs.parse_netstat(NETSTAT_2_6_32, only=("PruneCalled", "TCPRcvQDrop"))
    assert expected | {"UdpMemErrors": 7} == procfs.parse_snmp(
        SNMP.replace("NoPorts", "MemErrors").replace("3 0", "3 7")
    )
    assert expected == procfs.parse_snmp(SNMP.replace("3 0", "x 0"))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("TcpExt: A B C\nTcpExt: 1 2\n", "3 names but 2 values: 'TcpExt: 1 2'"),
        ("TcpExt: A B\nTcpExt: 1 2 3\n", "2 names but 3 values"),
        ("TcpExt: A A B\nTcpExt: 1 2\n", "3 names but 2 values"),
        ("TcpExt: A B\n", "no pair of 'TcpExt:' lines"),
        ("IpExt: A\nIpExt: 1\n", "no pair of 'TcpExt:' lines"),
        ("TcpExt: A B\nTcpExt: 1 x\n", "'x' is not an integer: 'TcpExt: 1 x'"),
        ("TcpExt: A B\nTcpExt: 1 18446744073709551616\n", "does not fit a kernel word"),
    ],
)
def test_counters_that_cannot_be_told_apart_are_refused(text: str, why: str) -> None:
    with pytest.raises(ParseError) as caught:
        procfs.parse_netstat(text)

    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (PROTOCOLS_6_18, TcpProtocol(sockets=863, memory=87916, press=True)),
        (PROTOCOLS_2_6_24, TcpProtocol(sockets=9, memory=1, press=False)),
        ("protocol sockets memory press\nTCP 1 -1 NI\n", TcpProtocol(sockets=1)),
        ("protocol sockets\nTCP 1\n", TcpProtocol(sockets=1)),
        ("protocol sockets memory press\nTCPv6 1 2 no\n", None),
    ],
)
def test_protocols_gives_the_row_of_tcp(text: str, expected: TcpProtocol | None) -> None:
    assert expected == procfs.parse_protocols(text)


def test_protocols_refuses_a_flag_that_no_kernel_writes() -> None:
    with pytest.raises(ParseError, match="press is 'maybe'"):
        procfs.parse_protocols("protocol sockets memory press\nTCP 1 2 maybe\n")


def test_meminfo_is_in_bytes_and_holds_sizes_alone() -> None:
    expected = {
        "MemTotal": 25160323072,
        "MemFree": 22528000000,
        "Active(anon)": 1601536,
        "DirectMap1G": 25769803 * 1024,
    }

    assert expected == procfs.parse_meminfo(MEMINFO)


def test_meminfo_passes_over_the_table_of_2_4() -> None:
    assert {"MemTotal": 130183168, "MemFree": 3588096} == procfs.parse_meminfo(MEMINFO_2_4)


@pytest.mark.parametrize(
    "text", ["MemTotal: lots kB\n", "MemTotal: 1 2 kB\n", "MemTotal: 18446744073709551615 kB\n", "hello\n"]
)
def test_a_broken_meminfo_is_refused(text: str) -> None:
    with pytest.raises(ParseError, match="meminfo: "):
        procfs.parse_meminfo(text)


def test_pressure_gives_some_and_full() -> None:
    expected = {
        "some": PressureStall(avg10=0.87, avg60=0.23, avg300=0.10, total_usec=5798710),
        "full": PressureStall(avg10=0.0, avg60=0.0, avg300=0.0, total_usec=0),
    }

    assert expected == procfs.parse_pressure(PRESSURE)


def test_pressure_without_a_field_leaves_it_none() -> None:
    assert {"some": PressureStall(avg10=1.5)} == procfs.parse_pressure("some avg10=1.5 avg20=3\n")


@pytest.mark.parametrize("word", ["nan", "inf", "1e9", "-1", "1" * 400])
def test_pressure_refuses_what_no_kernel_writes(word: str) -> None:
    with pytest.raises(ParseError, match="is not a number"):
        procfs.parse_pressure(f"some avg10={word}")


@pytest.mark.parametrize(
    ("text", "count", "expected"),
    [
        ("3480768\t4641024\t6961536\n", 3, (3480768, 4641024, 6961536)),
        ("4096 87380  16777216", 3, (4096, 87380, 16777216)),
        ("-1\n", 1, (-1,)),
        ("4294967295\n", 1, (4294967295,)),
    ],
)
def test_sysctl_gives_its_integers(text: str, count: int, expected: tuple[int, ...]) -> None:
    assert expected == procfs.parse_sysctl(text, "sys/x", count)


@pytest.mark.parametrize(
    ("text", "within"),
    [("99999999999\n", procfs.INT), ("-2147483649\n", procfs.INT), ("-1\n", procfs.UNSIGNED_LONG)],
)
def test_sysctl_refuses_what_its_c_type_cannot_hold(text: str, within: tuple[int, int]) -> None:
    with pytest.raises(ParseError, match="sys/x: not a number that this setting can have"):
        procfs.parse_sysctl(text, "sys/x", within=within)


@pytest.mark.parametrize(("text", "count"), [("1 2\n", 3), ("1 2 3 4\n", 3), ("", 1), ("yes", 1), ("1,2,3", 3)])
def test_sysctl_refuses_another_number_of_values(text: str, count: int) -> None:
    with pytest.raises(ParseError, match="sys/x: "):
        procfs.parse_sysctl(text, "sys/x", count)


def test_uptime_is_the_first_number() -> None:
    assert procfs.parse_uptime("12624150.31 98765.43\n") == pytest.approx(12624150.31)
    with pytest.raises(procfs.ParseError):  # No moment is so far from any other.
        procfs.parse_uptime("100000000000000 0\n")


def test_stat_gives_the_cpus_online() -> None:
    text = "cpu  1 2 3\ncpu0 1 2 3\ncpu1 1 2 3\ncpu17 0 0 0\nintr 5\nbtime 1342000000\n"

    assert 3 == procfs.parse_stat_cpus(text)
    assert 1342000000 == procfs.parse_stat_boot(text)


def test_stat_without_the_lines_is_absent_not_zero() -> None:
    assert procfs.parse_stat_cpus("cpu  1 2 3\n") is None
    assert procfs.parse_stat_boot("cpu  1 2 3\nbtime -7\n") is None


@pytest.mark.parametrize(
    ("text", "expected"), [("anon 1\nsock 14732496896\nshmem 2\n", 14732496896), ("anon 1\n", None)]
)
def test_memory_stat_gives_socket_bytes(text: str, expected: int | None) -> None:
    assert expected == procfs.parse_memory_stat(text)


@pytest.mark.parametrize("text", ["", "\n", "two\nlines\n", "bell\a\n", "x" * 200])
def test_a_word_is_one_printable_line(text: str) -> None:
    with pytest.raises(ParseError, match="sys/kernel/hostname: "):
        procfs.parse_word(text, "sys/kernel/hostname")


def test_version_gives_the_release() -> None:
    text = "Linux version 2.6.32-754.el6.x86_64 (mockbuild@build.example) (gcc 4.4.7) #1 SMP\n"

    assert "2.6.32-754.el6.x86_64" == procfs.parse_version(text)


@pytest.mark.parametrize("text", ["FreeBSD 13\n", "Linux version", ""])
def test_another_version_text_is_refused(text: str) -> None:
    with pytest.raises(ParseError, match="version: "):
        procfs.parse_version(text)


@pytest.mark.parametrize("layout", ["<Q", ">Q", "<I", ">I"])
@pytest.mark.parametrize("size", [4096, 16384, 65536])
def test_auxv_gives_the_page_size_of_any_machine(layout: str, size: int) -> None:
    pairs = [(33, 0x7FFE5000), (16, 0xBFEBFBFF), (6, size), (17, 100), (0, 0)]
    data = b"".join(struct.pack(layout, number) for pair in pairs for number in pair)

    assert size == procfs.parse_auxv(data)


@pytest.mark.parametrize("data", [b"", b"\0" * 64, b"garbage " * 9, struct.pack("<4Q", 6, 4097, 0, 0)])
def test_auxv_without_a_page_size_is_absent(data: bytes) -> None:
    assert procfs.parse_auxv(data) is None


def test_smaps_gives_the_smallest_page() -> None:
    text = "Size: 8 kB\nKernelPageSize: 2048 kB\nKernelPageSize:       64 kB\nMMUPageSize: 64 kB\n"

    assert 65536 == procfs.parse_smaps(text)
    assert procfs.parse_smaps("Size: 8 kB\n") is None


@pytest.mark.parametrize(
    ("pages", "free_bytes", "expected"),
    [(1000, 4096 * 1010, 4096), (1000, 65536 * 980, 65536), (1000, 100, None), (0, 4096, None)],
)
def test_page_size_follows_from_free_memory_read_twice(pages: int, free_bytes: int, expected: int | None) -> None:
    assert expected == procfs.infer_page_size(f"nr_zone 1\nnr_free_pages {pages}\n", {"MemFree": free_bytes})


PARSERS: list[Callable[[str], Any]] = [
    procfs.parse_sockstat,
    procfs.parse_inuse,
    procfs.parse_sockstat6,
    procfs.parse_netstat,
    procfs.parse_snmp,
    procfs.parse_protocols,
    procfs.parse_meminfo,
    procfs.parse_pressure,
    partial(procfs.parse_sysctl, file="x", count=3),
    procfs.parse_uptime,
    procfs.parse_stat_cpus,
    procfs.parse_stat_boot,
    procfs.parse_memory_stat,
    procfs.parse_memory_events,
    procfs.parse_process_stat,
    partial(procfs.parse_word, file="x"),
    procfs.parse_version,
    procfs.parse_smaps,
    partial(procfs.infer_page_size, meminfo={"MemFree": 4096}),
]
KERNEL_WORDS = """sockets: TCP: TCP6: TcpExt: Tcp: inuse orphan mem kB MemTotal: some full TCP avg10= total=7 protocol
    sockets memory press NI yes btime cpu0 sock Linux version KernelPageSize: nr_free_pages -1 0 99999999999999999999"""
WORDS = st.sampled_from(KERNEL_WORDS.split())
KERNEL_LIKE = st.lists(
    st.tuples(st.one_of(WORDS, st.text(max_size=6), st.integers().map(str)), st.sampled_from([" ", "\n", "\t", "="]))
).map(lambda words: "".join(word + blank for word, blank in words))


@given(text=st.one_of(st.text(), KERNEL_LIKE))
def test_no_text_makes_a_parser_raise_anything_but_parse_error(text: str) -> None:
    for parser in PARSERS:
        try:
            value = parser(text)
        except ParseError:
            continue
        written = msgspec.json.encode(value)
        assert written == msgspec.json.encode(msgspec.json.decode(written))


@given(data=st.binary())
def test_no_bytes_make_auxv_raise(data: bytes) -> None:
    assert procfs.parse_auxv(data) in {None, *procfs.PAGE_SIZES}


ZONES = """Node 0, zone   Normal
  pages free     90000
        managed  2097152
      nr_zone_inactive_file 9000
Node 0, zone  Movable
  pages free     1000
        boost    0
        spanned  262144
        present  262144
        managed  260000
      nr_free_pages 1000
      nr_zone_inactive_anon 7
      nr_zone_inactive_file 20
      nr_zone_active_file 300
Node 1, zone  Movable
  per-node stats
      nr_inactive_file 20000
  pages free     4
        managed  5
      nr_zone_inactive_file 6
"""
OLD_ZONES = """Node 0, zone  Movable
  pages free     10
        present  4000
    nr_inactive_file 20
    nr_active_file 30
"""


@pytest.mark.parametrize(("text", "expected"), [(ZONES, (260005, 1330)), (OLD_ZONES, (4000, 60)), ("", (0, 0))])
def test_zone_movable_is_added_up_over_the_nodes(text: str, expected: tuple[int, int]) -> None:
    assert expected == procfs.parse_movable(text)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("HugePages_Total:     512\nHugePages_Free:      500\nHugepagesize:       2048 kB\n", 1 << 30),
        ("HugePages_Total:     512\nHugepagesize:       2048 kB\nHugetlb:         4194304 kB\n", 4 << 30),
        ("HugePages_Total:       0\nHugepagesize:       2048 kB\n", None),
        ("", None),
    ],
)
def test_huge_pages_set_aside_are_known_on_every_kernel(lines: str, expected: int | None) -> None:
    assert expected == procfs.parse_meminfo(f"MemTotal: 16777216 kB\n{lines}").get("Hugetlb")


def test_huge_pages_are_free_as_far_as_they_are_not_promised() -> None:
    lines = "HugePages_Total: 512\nHugePages_Free: 500\nHugePages_Rsvd: 100\nHugepagesize: 2048 kB\n"
    assert 400 << 21 == procfs.parse_meminfo(f"MemTotal: 16777216 kB\n{lines}")["HugePages_Free"]


def test_addresses_of_a_namespace_itself_are_read_and_no_others() -> None:
    routes = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 10.0.0.0\n        /24 link UNICAST\n"
    text = f"{routes}     |-- 10.0.0.5\n        /32 host LOCAL\n"
    assert {"10.0.0.5"} == procfs.parse_fib_trie(text)
    inet6 = "fd310000000000000000000000000007 01 80 00 80       lo\nnonsense\n"
    assert {"fd31::7"} == procfs.parse_if_inet6(inet6)


def test_start_of_a_process_is_read_behind_a_name_that_looks_like_fields() -> None:
    assert ("Z", 4711) == procfs.parse_process_stat(f"7 (a b) S 1) Z {'0 ' * 18}4711 0 0\n")
    with pytest.raises(procfs.ParseError):
        procfs.parse_process_stat("7 (cat) S 1\n")
    with pytest.raises(procfs.ParseError):
        procfs.parse_process_stat(f"7 (cat) S {'0 ' * 18}\n")
    with pytest.raises(procfs.ParseError):
        procfs.parse_process_stat(f"7 (cat) S {'0 ' * 18}{'9' * 5000} 0\n")


def test_hits_of_a_cgroups_limits_are_summed() -> None:
    assert 15 == procfs.parse_memory_events("low 0\nhigh 3\nmax 12\noom 0\n")
    assert 0 == procfs.parse_memory_events("oom_kill 7\n")
    with pytest.raises(procfs.ParseError):
        procfs.parse_memory_events(f"max {'9' * 5000}\n")
