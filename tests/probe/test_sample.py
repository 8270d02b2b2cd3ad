from datetime import datetime, timezone
from pathlib import Path

from agent.core.model import Sample
from agent.probe import take_sample

NOW = datetime(2026, 11, 22, 15, 5, 39, tzinfo=timezone.utc)


def test_a_sample_holds_the_gauges_and_the_counters_that_matter(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net/sockstat").write_text("TCP: inuse 24 orphan 3 tw 58 alloc 863 mem 87916\n")
    (tmp_path / "net/netstat").write_text("TcpExt: TCPAbortOnMemory DelayedACKs\nTcpExt: 5 2\n")
    (tmp_path / "net/snmp").write_text("Tcp: OutRsts\nTcp: 3\nUdp: InDatagrams MemErrors\nUdp: 9 4\n")
    (tmp_path / "net/protocols").write_text("protocol size sockets memory press\nTCP 2240 863 87916 yes\n")
    (tmp_path / "sys/kernel/random").mkdir(parents=True)
    (tmp_path / "sys/kernel/random/boot_id").write_text("f7dee64d\n")

    expected = Sample(
        at=NOW,
        boot_id="f7dee64d",
        orphan=3,
        mem=87916,
        tw=58,
        alloc=863,
        inuse=24,
        press=True,
        counters={"TCPAbortOnMemory": 5, "UdpMemErrors": 4},
    )
    assert expected == take_sample(tmp_path, NOW)


def test_a_sample_of_nothing_is_absent_not_zero(tmp_path: Path) -> None:
    assert Sample(at=NOW) == take_sample(tmp_path, NOW)


def test_a_sample_of_this_host_has_numbers() -> None:
    sample = take_sample(Path("/proc"), NOW)

    assert sample.orphan is not None
    assert sample.press in (True, False)
    assert "TCPAbortOnMemory" in sample.counters
