import json
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.kernel.messages import detect, other_limit
from agent.core.logs.envelope import Envelope, parse
from agent.core.logs.records import to_record
from agent.core.model import Event

CORPUS = [
    json.loads(line) for line in (Path(__file__).parent.parent.parent / "corpus/lines.jsonl").read_text().splitlines()
]
ACCEPTED_AMBIGUOUS = {37, 74, 103, 109}
CET = timezone(timedelta(hours=1), "CET")
NOW = datetime(2024, 11, 22, 12, tzinfo=CET)
TEXTS = {
    "Out of socket memory": "out_of_socket_memory",
    "TCP: too many of orphaned sockets": "too_many_orphans",
    "TCP: too many orphaned sockets": "too_many_orphans",
    "TCP: out of memory -- consider tuning tcp_mem": "tcp_mem",
    "printk: 58 messages suppressed.": "suppressed",
    "__ratelimit: 8552 callbacks suppressed": "suppressed",
    "net_ratelimit: 142 callbacks suppressed": "suppressed",
}
T = "TCP: too many orphaned sockets"
SUMMER = datetime(2024, 8, 18, 8, 33, 14, tzinfo=CET)


def event_of(line: str | bytes) -> Event | None:
    raw = line if isinstance(line, bytes) else line.encode(errors="surrogateescape")
    record = to_record(raw, now=NOW, source="log:1", ordinal=1)
    return None if record is None else detect(record)


@pytest.mark.parametrize("number", [n for n, row in enumerate(CORPUS) if not row.get("ambiguous")])
def test_every_labelled_line_of_the_corpus_is_judged_right(number: int) -> None:
    row = CORPUS[number]
    event = event_of(row["line"])
    if not row["match"]:
        assert event is None
        return
    assert event is not None
    expected = (row["kind"], row["suppressed"], row["host"], row.get("repeat_count", 1))
    assert expected == (event.kind, event.suppressed, event.host, event.count)


def test_ambiguous_lines_are_decided_as_the_corpus_readme_says() -> None:
    ambiguous = {n for n, row in enumerate(CORPUS) if row.get("ambiguous")}
    assert ACCEPTED_AMBIGUOUS == {n for n in ambiguous if event_of(CORPUS[n]["line"])}
    readme = (Path(__file__).parent.parent.parent / "corpus/README.md").read_text()
    decisions = [line.split("|") for line in readme.splitlines() if line.startswith("| ") and line[2].isdigit()]
    assert {n: n in ACCEPTED_AMBIGUOUS for n in ambiguous} == {int(d[1]): d[3].strip() == "yes" for d in decisions}


@pytest.mark.parametrize("row", [row for row in CORPUS if row["kind"] == "neighbour" and row["line"][0] != "<"])
def test_neighbours_of_the_corpus_have_a_name(row: dict[str, Any]) -> None:
    assert other_limit(row["line"])


@pytest.mark.parametrize(
    ("line", "at", "uptime", "host"),
    [
        (f"2024-08-18T08:33:14+01:00 jp58 kernel: [85047.045932] {T}", SUMMER, 85047.045932, "jp58"),
        (f"2024-08-18T08:33:14+0100 jp58 kernel: {T}", SUMMER, None, "jp58"),
        (f"2024-08-18 08:33:14 jp58 kernel: {T}", SUMMER, None, "jp58"),
        (f"2024/08/18 08:33:14 kernel: {T}", SUMMER, None, None),
        (f"Sun 2024-08-18 08:33:14 CEST jp58 kernel: {T}", SUMMER - timedelta(hours=1), None, "jp58"),
        (f"Sun 2024-08-18 08:33:14 XYZ jp58 kernel: {T}", None, None, "jp58"),
        (f"2024-08-18 08:33:14 UTC jp58 kernel: {T}", SUMMER + timedelta(hours=1), None, "jp58"),
        (f"Aug 18 08:33:14 OpenWrt kern.info kernel: [1.234567] {T}", SUMMER, 1.234567, "OpenWrt"),
        (f"Sun Aug 18 08:33:14 2024 [1723962794.123] kern.info kernel: [4.000001] {T}", SUMMER, 4.000001, None),
        (f"Aug 18 08:33:14 kern.info<6> jp58 kernel: {T}", SUMMER, None, "jp58"),
        (f"<6>Aug 18 08:33:14 jp58 kernel: {T}", SUMMER, None, "jp58"),
        (f"107 <6>1 2024-08-18T07:33:14Z jp58 kernel - - - \ufeff{T}", SUMMER, None, "jp58"),
        (f"<6>1 - - kernel - - - {T}", None, None, None),
        (f"1 2024-08-18T07:33:14Z jp58 kernel - - - [12.345678] {T}", SUMMER, 12.345678, "jp58"),
        (f"<6>1 2024-08-18T07:33:14Z jp58 kernel - - -  [   12.345678] {T}", SUMMER, 12.345678, "jp58"),
        (f"<6>1 2024-08-18T07:33:14Z jp58 kernel - - -  {T}", SUMMER, None, "jp58"),
        (f"Sun Aug 18 08:33:14 2024 jp58 kernel: {T}", SUMMER, None, "jp58"),
        (f"août 18 08:33:14 jp58 kernel: {T}", SUMMER, None, "jp58"),
        (f"Dez 31 23:59:59 jp58 kernel: {T}", datetime(2023, 12, 31, 23, 59, 59, tzinfo=CET), None, "jp58"),
        (f"févr. 29 11:00:00 jp58 kernel: {T}", datetime(2024, 2, 29, 11, tzinfo=CET), None, "jp58"),
        (f" 8月 18 08:33:14 jp58 kernel: [12.345678] {T}", SUMMER, 12.345678, "jp58"),
        (f"2024 Aug 18 08:33:14 jp58 kernel: {T}", SUMMER, None, "jp58"),
        (f"Aug 18 08:33:14 2024 jp58 kernel: {T}", SUMMER, None, "jp58"),
        (f"Aug 18 08:33:14 2001:db8::1 kernel: {T}", SUMMER, None, "2001:db8::1"),
        (f"Aug 18 08:33:14 (none) kernel: {T}", SUMMER, None, None),
        (f"Aug 18 08:33:14 kernel kernel: {T}", SUMMER, None, "kernel"),
        (f"Aug 18 08:33:14 U7P,f09fc2,v4.3.20: kernel: [12.345678] {T}", SUMMER, 12.345678, "U7P,f09fc2,v4.3.20"),
        (f"Aug 18 08:33:14 jp58 kernel: <6>[12.345678][   C3] {T}", SUMMER, 12.345678, "jp58"),
        (f"Aug 18 08:33:14 10.0.0.5 [ 123.456789] {T}", SUMMER, 123.456789, "10.0.0.5"),
        (f"1723966394 jp58 kernel: {T}", SUMMER, None, "jp58"),
        (f"Dec 31 23:59:59 jp58 kernel: {T}", datetime(2023, 12, 31, 23, 59, 59, tzinfo=CET), None, "jp58"),
        (f"Nov 23 11:00:00 jp58 kernel: {T}", datetime(2024, 11, 23, 11, tzinfo=CET), None, "jp58"),
        (f"Feb 29 11:00:00 jp58 kernel: {T}", datetime(2024, 2, 29, 11, tzinfo=CET), None, "jp58"),
        (f"Feb 30 11:00:00 jp58 kernel: {T}", None, None, "jp58"),
        (f"6,1234,5678,-,caller=T12;{T}", None, 0.005678, None),
        (f"6.1.0,6,1234,12345678901,-;{T}", None, 12345.678901, None),
        (f"5.14.0-427.el9.x86_64+debug,6,1234,12345678901,-,ncfrag=0/30;{T}", None, 12345.678901, None),
        (f"<6>[  123.456789] {T}", None, 123.456789, None),
        (f" kernel:{T}", None, None, None),
        (f"[Sun Aug 18 08:33:14 2024 <    0.000013>] {T}", SUMMER, None, None),
        (f"[<    0.000025>] {T}", None, None, None),
        (f"[    3.123456 <    0.000025 >] jp58 kernel: {T}", None, 3.123456, "jp58"),
        (f"kern  :info  : 2024-08-18T08:33:14,000000+01:00 {T}", SUMMER, None, None),
        (f"2024-08-18T08:33:14,000000+0100 {T}", SUMMER, None, None),
        (f"2024-08-18T08:33:14,000000+0100 jp58 kernel: {T}", SUMMER, None, "jp58"),
        (f"[ 4999.000000                ] jp58 kernel: {T}", None, 4999.0, "jp58"),
        (f"[12.345678] [Sun Aug 18 08:33:14 2024] {T}", SUMMER, 12.345678, None),
        (f"kern  :info  : [12.345678] 2024-08-18T08:33:14,000000+01:00 [  +0.000013] {T}", SUMMER, 12.345678, None),
        (f"[So Aug 18 08:33:14 2024 <    0,000013>] [   C3] {T}", SUMMER, None, None),
        (f"\x1b[0;1;38:5:185mAug 18 08:33:14 jp58 kernel: {T}\x1b[0m", SUMMER, None, "jp58"),
        ("\x1b[32m[Nov16 14:55] \x1b[0m\x1b[33mTCP: \x1b[0mtoo many orphaned sockets", None, None, None),
        (f"/var/log/messages-20240818:Aug 18 08:33:14 jp58 kernel: {T}", SUMMER, None, "jp58"),
        (f"./messages.1:1234:Aug 18 08:33:14 jp58 kernel: {T}", SUMMER, None, "jp58"),
        (f"dmesg.0:[12.345678] {T}", None, 12.345678, None),
        # What docker compose, docker service, kubectl --prefix and stern put before a line of a container.
        (f"rsyslog-1  | Aug 18 08:33:14 jp58 kernel: {T}", SUMMER, None, "jp58"),
        (f"\x1b[36mrsyslog_1    |\x1b[0m Aug 18 08:33:14 jp58 kernel: [12.345678] {T}", SUMMER, 12.345678, "jp58"),
        (f"rsyslog-1  | 2024-08-18T07:33:14Z Aug 18 08:33:12 jp58 kernel: {T}", SUMMER, None, "jp58"),
        (f"log.1.x8y7zq2k3l4m@node1    | <6>Aug 18 08:33:14 jp58 kernel: {T}", SUMMER, None, "jp58"),
        (f"[pod/node-log-x7k2p/journal] Aug 18 08:33:14 jp58 kernel: {T}", SUMMER, None, "jp58"),
        (f"[pod/a-0/b] 2024-08-18T07:33:14Z 2024-08-18T08:33:14+0100 jp58 kernel: {T}", SUMMER, None, "jp58"),
        (f"node-log-x7k2p journal Aug 18 08:33:14 jp58 kernel: {T}", SUMMER, None, "jp58"),
        (f"kube-system node-log-6c9f7b8d5-x7k2p journal Aug 18 08:33:14 jp58 kernel: {T}", SUMMER, None, "jp58"),
        (f'facility=kern hostname=jp58 message="{T}" timestamp=2024-08-18T07:33:14Z', SUMMER, None, "jp58"),
        (f'time=2024-08-18T07:33:14Z msg="Aug 18 08:33:14 jp58 kernel: [12.345678] {T}"', SUMMER, 12.345678, "jp58"),
        (f"10.0.0.21: kern:    info: [2024-08-18T07:33:14.000000Z]: {T}", SUMMER, None, "10.0.0.21"),
        (f"[Sun Aug 18 07:33:14 UTC 2024] {T}", SUMMER, None, None),
        (f'{{"facility":"kern","msg":"{T}","talos-time":"2024-08-18T07:33:14Z","clock":7}}', SUMMER, None, None),
        (f"\0\0\0\0Aug 18 08:33:14 jp58 kernel: {T}\r\n", SUMMER, None, "jp58"),
        ("[ 1.000001] TCP: too many of orphaned sockets (512 in CT1023)  ", None, 1.000001, None),
    ],
)
def test_formats_in_the_wild_are_read(line: str, at: datetime | None, uptime: float | None, host: str | None) -> None:
    event = event_of(line)
    assert event is not None
    assert ("too_many_orphans", at, uptime, host) == (event.kind, event.at, event.uptime, event.host)


SUMMER_UTC = datetime(2024, 8, 18, 8, 33, 14, tzinfo=timezone.utc)
CARRIED = f"Aug 18 08:33:14 jp58 kernel: [12.345678] {T}"


@pytest.mark.parametrize(
    ("line", "at", "uptime", "host"),
    [
        (f"Aug 18 08:33:14 [kernel] {T}", SUMMER, None, None),
        (f"Aug 18 08:33:14 [kernel] [ 1234.567890] {T}", SUMMER, 1234.56789, None),
        (f"Aug 18 08:33:14 bigip1 info kernel: {T}", SUMMER, None, "bigip1"),
        (f"Aug 18 08:33:14 slot1/bigip1 warning kernel: {T}", SUMMER, None, "slot1/bigip1"),
        (f"2024-08-18T08:33:14+01:00 jp58 notice kernel: [12.345678] {T}", SUMMER, 12.345678, "jp58"),
        (f"Aug 18 08:33:14 info kernel: {T}", SUMMER, None, None),
        (f"Aug 18 08:33:14 info-1 kernel: {T}", SUMMER, None, "info-1"),
        (f"2024-08-18T08:33:14.00000 kern.info: [ 1234.567890] {T}", SUMMER_UTC, 1234.56789, None),
        (f"2024-08-18_08:33:14.00000 kern.info: {T}", SUMMER_UTC, None, None),
        (f"2024-08-18T08:33:14.00000 kern.info: Aug 18 10:33:14 kernel: [12.345678] {T}", SUMMER_UTC, 12.345678, None),
        (f"2024-08-18T08:33:14.00000 10.0.0.5: kern.info: {T}", SUMMER_UTC, None, "10.0.0.5"),
        (f"@4000000066c1b1d40c30a9f8 kern.info: {T}", SUMMER_UTC, None, None),
        (f"2024:08:18-08:33:14 utm-1 kernel: [12.345678] {T}", SUMMER, 12.345678, "utm-1"),
        (f"2024-08-18 08:33:14 jp58 kernel: [12.34] {T}", SUMMER, 12.34, "jp58"),
        (f"2024-08-18T08:33:14+01:00 jp58 kernel: [123.456][    C3] {T}", SUMMER, 123.456, "jp58"),
        (f"[12.3] {T}", None, 12.3, None),
        (f"[2024-08-18T08:33:14+01:00] {T}", SUMMER, None, None),
        (f"[2024-08-18T07:33:14Z] [ 12.345678] {T}", SUMMER, 12.345678, None),
        (f"[2024-08-18T08:33:14+01:00] jp58 kernel: {T}", SUMMER, None, "jp58"),
        (f"[2024-08-18 08:33:14] [ 12.345678] {T}", SUMMER, 12.345678, None),
        (f"Aug 18 08:33:14 CEST jp58 kernel: {T}", SUMMER - timedelta(hours=1), None, "jp58"),
        (f"Aug 18 2024 08:33:14 UTC kernel: {T}", SUMMER_UTC, None, None),
        (f"Aug 18 08:33:14 +0100 jp58 kernel: {T}", SUMMER, None, "jp58"),
        (f"2024-08-18 08:33:14 CEST jp58 kernel: {T}", SUMMER - timedelta(hours=1), None, "jp58"),
        (f"Aug 18 08:33:14 XYZ jp58 kernel: {T}", None, None, "jp58"),
        (f"Aug 18 08:33:14 NAS kernel: {T}", SUMMER, None, "NAS"),
        (f"Aug 18 08:33:14 NAS info kernel: {T}", SUMMER, None, "NAS"),
        (f"Aug 18 08:33:14 NAS kern.info kernel: {T}", SUMMER, None, "NAS"),
        (f"Aug 18 08:33:14 jp58 kern:info kernel: {T}", SUMMER, None, "jp58"),
        (f"Aug 18 08:33:14 jp58 kernel [12.345678] {T}", SUMMER, 12.345678, "jp58"),
        (f"Aug 18 08:33:14 <6> jp58 kernel: {T}", SUMMER, None, "jp58"),
        (f"2024-08-18T08:33:14+01:00 jp58 <6>[12.345678] {T}", SUMMER, 12.345678, "jp58"),
        (f"2024-08-18 08:33:14 +01:00 <6> [ 12.345678] {T}", SUMMER, 12.345678, None),
        (f"83 <6>2024-08-18T08:33:14+01:00 jp58 kernel: {T}", SUMMER, None, "jp58"),
        (f"2024-08-18T07:33:14.000000Z INFO kernel: [12.345678] {T}", SUMMER, 12.345678, None),
        (f'<4>Aug 18 08:33:14 ("U7HD,f09fc2,v3.9.27") kernel: {T}', SUMMER, None, "U7HD,f09fc2,v3.9.27"),
        (f"2024 Aug 18 08:33:14 n9k %KERN-6-SYSTEM_MSG: [12.345678] {T} - kernel", SUMMER, 12.345678, "n9k"),
        (f"2024 Aug 18 08:33:14 n9k %$ VDC-1 %$ Aug 18 08:33:13 %KERN-6-SYSTEM_MSG: {T} - kernel", SUMMER, None, "n9k"),
        (
            f'2024-08-18 08:33:14.000000000 +0100 system.kern.info: {{"host":"jp58","ident":"kernel","message":"{T}"}}',
            SUMMER,
            None,
            "jp58",
        ),
        (
            f'2024-08-18T08:33:14+00:00\tsystem.kern.warn\t{{"ident":"kernel","message":"[12.345678] {T}"}}',
            SUMMER_UTC,
            12.345678,
            None,
        ),
        (f"2024-08-18T08:33:14Z {CARRIED}", SUMMER_UTC, 12.345678, "jp58"),
        (f"2024-08-18 08:33:14 {CARRIED}", SUMMER, 12.345678, "jp58"),
        (
            f"2024-08-18T08:33:14.123000+00:00 jp58/messages {CARRIED}",
            SUMMER_UTC.replace(microsecond=123000),
            12.345678,
            "jp58",
        ),
        (f'2024-08-18T08:33:14Z {{host="jp58",job="systemd-journal"}} {T}', SUMMER_UTC, None, "jp58"),
        (
            f'2024-08-18T08:33:14Z {{filename="/var/log/messages", job="varlogs"}} {CARRIED}',
            SUMMER_UTC,
            12.345678,
            "jp58",
        ),
        (f'{{"labels":{{"host":"jp58"}},"line":"{T}","timestamp":"2024-08-18T08:33:14Z"}}', SUMMER_UTC, None, "jp58"),
        (f"messages:1234:{CARRIED}", SUMMER, 12.345678, "jp58"),
        (f"web-7: kern: warning: [2024-08-18T08:33:14.000000000Z]: {T}", SUMMER_UTC, None, "web-7"),
        (f"2001:db8::21: kern:    info: [2024-08-18T08:33:14Z]: {T}", SUMMER_UTC, None, "2001:db8::21"),
        (f"12:[Sun Aug 18 08:33:14 2024] {T}", SUMMER, None, None),
        (f"./kern.log:77:[ 12.345678] {T}", None, 12.345678, None),
        (f"2024-08-18T08:33:14Z {{}} {CARRIED}", SUMMER_UTC, 12.345678, "jp58"),
        (f"2024-08-18T08:33:14Z jp58/messages [ 12.345678] {T}", SUMMER_UTC, 12.345678, "jp58/messages"),
        (f"Aug 18 08:33:14 2024-08-18T08:33:14Z jp58 kernel: {T}", SUMMER, None, "jp58"),
        (f"Aug 18 08:33:14 jp58 kern info kernel: {T}", SUMMER, None, "jp58"),
        (f"2024-08-18 08:33:14 jp58 kern kernel: {T}", SUMMER, None, "jp58"),
        (f"1234:{CARRIED}", SUMMER, 12.345678, "jp58"),
        (f"messages:{CARRIED}", SUMMER, 12.345678, "jp58"),
        (f"2024-08-18T08:33:14.000000000Z stdout F {CARRIED}", SUMMER_UTC, 12.345678, "jp58"),
        (f'{{"log":"{CARRIED}\\n","stream":"stdout","time":"2024-08-18T08:33:14Z"}}', SUMMER_UTC, 12.345678, "jp58"),
        (f'{{"timestamp":1723969994000,"message":"{CARRIED}"}}', SUMMER_UTC, 12.345678, "jp58"),
        (f'{{"log":"<6>1 2024-08-18T08:33:14Z jp58 kernel - - - {T}","stream":"stdout"}}', SUMMER_UTC, None, "jp58"),
        (
            f'{{"syslog_program":"kernel","host":"x","time":1723969994,"message":"{CARRIED}"}}',
            SUMMER_UTC,
            12.345678,
            "jp58",
        ),
        (f"/var/log/kern.log-Aug 18 08:33:14 jp58 kernel: {T}", SUMMER, None, "jp58"),
        (f"/var/log/kern.log-12-Aug 18 08:33:14 jp58 kernel: {T}", SUMMER, None, "jp58"),
        (f"12-Aug 18 08:33:14 jp58 kernel: {T}", SUMMER, None, "jp58"),
        (f"(standard input):[   12.345678] {T}", None, 12.345678, None),
        (f"(standard input):Aug 18 08:33:14 jp58 kernel: {T}", SUMMER, None, "jp58"),
        (f"     7\tAug 18 08:33:14 jp58 kernel: {T}", SUMMER, None, "jp58"),
        (f"      3 [   12.345678] {T}", None, 12.345678, None),
        (f"jp58: Aug 18 08:33:14 jp58 kernel: {T}", SUMMER, None, "jp58"),
        (f"jp58: kern  :info  : [Sun Aug 18 08:33:14 2024] {T}", SUMMER, None, "jp58"),
        (f"Sun 2024-08-18 08:33:14 CET jp58 init.scope kernel[0]: {T}", SUMMER, None, "jp58"),
        (f"Sun, 18 Aug 2024 07:33:14 GMT jp58 kernel: {T}", SUMMER, None, "jp58"),
        (f"18 Aug 2024 08:33:14 jp58 kernel: {T}", SUMMER, None, "jp58"),
        (f"8/18/2024, 8:33:14 AM jp58 kernel: {T}", SUMMER, None, "jp58"),
        (f"1723966394000 Jan 18 08:33:14 jp58 kernel: {T}", SUMMER, None, "jp58"),
        (f"2024-08-18t07:33:14z jp58 kernel: {T}", SUMMER, None, "jp58"),
        (f"2024-08-18T08:33:14.000000+01:00 jp58 kernel - - -  {T}", SUMMER, None, "jp58"),
        (f"2024-08-18T07:33:14Z jp58 kernel - - - [   12.345678] {T}", SUMMER, 12.345678, "jp58"),
        (f"2024 Aug 18 08:33:14.000000 leaf1 INFO kernel: [12.345678] {T}", SUMMER, 12.345678, "leaf1"),
        (f"Aug 18 08:33:14.000000 leaf1 WARNING kernel: [12.345678] {T}", SUMMER, 12.345678, "leaf1"),
        (f"kern.info: Aug 18 08:33:14 jp58 kernel: {T}", SUMMER, None, "jp58"),
        (f"kern.info<6> 2024-08-18T08:33:14+01:00 jp58 kernel: [12.345678] {T}", SUMMER, 12.345678, "jp58"),
        (f"2024 Aug 18 08:33:14 (web-7) any->/var/log/messages {CARRIED}", SUMMER, 12.345678, "jp58"),
        (f"2024 Aug 18 08:33:14 (web-7) 10.0.0.5->/var/log/messages {CARRIED}", SUMMER, 12.345678, "jp58"),
        (f"2024 Aug 18 08:33:14 manager->/var/log/kern.log {CARRIED}", SUMMER, 12.345678, "jp58"),
        (f"jp58 Aug 18 08:33:14.000000 jp58 kernel: {T}", SUMMER, None, "jp58"),
        (f"2024-08-18 08:33:14\tKernel.Info\t10.0.0.5\tkernel: [12.345678] {T}", SUMMER, 12.345678, "10.0.0.5"),
        (f"2024-08-18 08:33:14\tKernel.Warning\t10.0.0.5\t{CARRIED}", SUMMER, 12.345678, "jp58"),
        (
            f'2024-08-18T08:33:14Z {{host="jp58", job="systemd-journal", service_name="systemd-journal"}} {T}',
            SUMMER_UTC,
            None,
            "jp58",
        ),
        (
            f'2024-08-18T08:33:14Z {{filename="/var/log/kern.log", service_name="unknown_service"}} {CARRIED}',
            SUMMER_UTC,
            12.345678,
            "jp58",
        ),
        (
            f'2024-08-18T08:33:14Z {{instance="jp58", job="shop", service_name="shop", transport="kernel"}} {T}',
            SUMMER_UTC,
            None,
            "jp58",
        ),
        (f"kern  :info  : {T}", None, None, None),
        (f"kern  :info  : [   C3] {T}", None, None, None),
        (f"18.08.2024 08:33:14 jp58 kernel: {T}", SUMMER, None, "jp58"),
        (f"18.8.2024, 8:33:14 jp58 kernel: [12.345678] {T}", SUMMER, 12.345678, "jp58"),
        (f"8/18/2024, 8:33:14\u202fAM jp58 kernel: {T}", SUMMER, None, "jp58"),
        (f"Aug 18, 2024 8:33:14 AM jp58 kernel: {T}", SUMMER, None, "jp58"),
        (f"2024-08-18 08:33:14 AM jp58 kernel: {T}", SUMMER, None, "jp58"),
        (f"Sun Aug 18 08:33:14 AM CET 2024 jp58 kernel: {T}", SUMMER, None, "jp58"),
        (f"Sun 18 Aug 2024 08:33:14 AM CET jp58 kernel: {T}", SUMMER, None, "jp58"),
        (f"Aug 18 12:33:14 AM jp58 kernel: {T}", SUMMER.replace(hour=0), None, "jp58"),
        (f"Aug 18 02:33:14 PM jp58 kernel: {T}", SUMMER.replace(hour=14), None, "jp58"),
        (f"[  123.456789] (0)[1:init]{T}", None, 123.456789, None),
        (f"<6>[  123.456789]-(2)[0:swapper/2]{T}", None, 123.456789, None),
        (f"[  123.456789] .(7)[456:kworker/u16:3] {T}", None, 123.456789, None),
        (f"[  123.456789]  [0:  swapper/0:    0] {T}", None, 123.456789, None),
        (f"<6>[  123.456789] [2:      init:    1] {T}", None, 123.456789, None),
        (f"Aug 18 08:33:14 relay Aug 18 08:33:10 jp58 kernel: [12.345678] {T}", SUMMER, 12.345678, "jp58"),
        (f"Aug 18 08:33:14 jp58 Aug 18 08:33:10 jp58 kernel: [12.345678] {T}", SUMMER, 12.345678, "jp58"),
        (f"2024-08-18T07:33:14.000000+00:00 jp58 {CARRIED}", SUMMER, 12.345678, "jp58"),
        (f"Aug 18 08:33:14 10.0.0.5 2024-08-18T09:33:10+02:00 jp58 kernel: {T}", SUMMER, None, "jp58"),
    ],
)
def test_heads_of_appliances_and_clouds_are_read(
    line: str, at: datetime | None, uptime: float | None, host: str | None
) -> None:
    event = event_of(line)
    assert event is not None
    assert ("too_many_orphans", at, uptime, host) == (event.kind, event.at, event.uptime, event.host)


@pytest.mark.parametrize(
    "line",
    [
        f'2024-08-18 08:33:14.0 +0100 system.user.info: {{"host":"jp58","ident":"kernel","message":"{T}"}}',
        f'2024-08-18 08:33:14.0 +0100 system.kern.info: {{"host":"jp58","ident":"nagios","message":"{T}"}}',
        f'2024-08-18 08:33:14.0 +0100 system.kern.info: {{"ident":"kernel","message":"{T}"}} was said',
        f'2024-08-18 08:33:14.0 +0100 alert.kernel: {{"host":"jp58","ident":"kernel","message":"{T}"}}',
        f"2024-08-18 08:33:14.0 +0100 system.kern.info: {T}",
        f"août 18 08:33:14 jp58 sshd[1]: {T}",
        f"août 18 08:33:14 jp58 {T}",
        f"aoûts 18 08:33:14 jp58 kernel: {T}",
        f"11月 22 08:33:14 jp58 nagios: {T}",
        f"<6>1 2024-08-18T07:33:14Z jp58 logger - - -  {T}",
        f"<14>1 2024-08-18T07:33:14Z jp58 kernel - - -  {T}",
        f"[ 4999.000000                ] jp58 nagios: {T}",
        f"2024-08-18T08:33:14,000000+0100 nagios: {T}",
        f"2024-08-18T08:33:14,000+0100 {T}",
        f"Aug 18 08:33:14 [dockerd] {T}",
        f"Aug 18 08:33:14 [dockerd] [ 12.345678] {T}",
        f"Aug 18 08:33:14 [kernel-watch] {T}",
        f"2024-08-18 08:33:14,123 [kernel] {T}",
        f"2024-08-18 08:33:14,123 [kernel] INFO {T}",
        f"2024-08-18T08:33:14Z info kernel: {T}",
        f"2024-08-18 08:33:14 jp58 info kernel: {T}",
        f"2024-08-18T08:33:14Z INFO kernel: {T}",
        f"2024-08-18 08:33:14 INFO kernel: [12.345678] {T}",
        f"2024-08-18T08:33:14Z INFO app: [12.345678] {T}",
        f"Aug 18 08:33:14.000000 leaf1 INFO kernel: {T}",
        f"Aug 18 08:33:14.000000 leaf1 INFO swss#app: [12.345678] {T}",
        f"2024-08-18 08:33:14.000000 leaf1 INFO kernel: [12.345678] {T}",
        f"user.info: Aug 18 08:33:14 jp58 kernel: {T}",
        f"kern.info: Aug 18 08:33:14 jp58 shop: {T}",
        f"2024-08-18 08:33:14 ERR kernel: {T}",
        f"Aug 18 08:33:14 bigip1 info tmm[1]: {T}",
        f"Aug 18 08:33:14 bigip1 info logger: kernel: {T}",
        f"app: Aug 18 08:33:14 jp58 kernel: {T}",
        f"jp58: [   12.345678] {T}",
        f"jp58: user  :info  : [Sun Aug 18 08:33:14 2024] {T}",
        f"Sun 2024-08-18 08:33:14 CET jp58 shop.service kernel[7]: {T}",
        f"12 {T}",
        f"Sun, 18 Aug 2024 07:33:14 GMT {T}",
        f"2024-08-18T06:33:14.20451 {T}",
        f"2024-08-18T06:33:14.20451 user.info: {T}",
        f"2024-08-18T06:33:14.20451 user.info: Aug 18 08:33:14 kernel: {T}",
        f"2024-08-18T06:33:14.20451 kern.info: Aug 18 08:33:14 sshd[1]: {T}",
        f"@4000000066c195b40c30a9f8 {T}",
        f"2024:08:18-08:33:14 utm-1 httpd: {T}",
        f"[2024-08-18T08:33:14] {T}",
        f"[2024-08-18T08:33:14+02:00] app: {T}",
        f"[2024-08-18T08:33:14+02:00 {T}",
        f"[12] {T}",
        f"Aug 18 08:33:14 CEST jp58 sshd: {T}",
        f"Aug 18 08:33:14 CEST jp58 user.info kernel: {T}",
        f"2024-08-18T08:33:14Z CEST jp58 kernel: {T}",
        f"Aug 18 08:33:14 jp58 kernel {T}",
        f"2024 Aug 18 08:33:14 n9k %USER-6-SYSTEM_MSG: {T} - kernel",
        f"2024 Aug 18 08:33:14 n9k %KERN-6-SYSTEM_MSG: {T} - logger",
        f"2024-08-18T06:33:14.204Z In(182) vmkernel: cpu3:2097) {T}",
        f"Aug 18 08:33:14 esx1 vmkernel: {T}",
        f"2024-08-18T06:33:14Z <30>{CARRIED}",
        f"2024-08-18T06:33:14Z stdout F kernel: {T}",
        f"2024-08-18T06:33:14Z Aug 18 08:33:14 jp58 nagios: kernel: {T}",
        f'{{"log":"{T}","stream":"stdout","time":"2024-08-18T06:33:14Z"}}',
        f'{{"log":"kernel: {T}","stream":"stdout","time":"2024-08-18T06:33:14Z"}}',
        f'{{"log":"[12.345678] {T}","stream":"stdout","time":"2024-08-18T06:33:14Z"}}',
        f'{{"log":"Aug 18 08:33:14 jp58 app: {T}","stream":"stdout","time":"2024-08-18T06:33:14Z"}}',
        f'{{"jsonPayload":{{"message":"{T}"}},"timestamp":"2024-08-18T06:33:14Z"}}',
        f'{{"timestamp":1723969994000,"message":"<30>{CARRIED}"}}',
        f'{{"program":"kernel","host":"x","time":1,"message":"Aug 18 08:33:14 jp58 nagios: {T}"}}',
    ],
)
def test_heads_of_others_are_no_events(line: str) -> None:
    assert event_of(line) is None


LEVELS = [
    "INFO",
    "WARN",
    "ERROR",
    "SEVERE",
    "VERBOSE",
    "TRACE",
    "Info",
    "Warning",
    "Error",
    "severe",
    "fatal",
    "W",
    "I",
]


@pytest.mark.parametrize("stamp", ["2024-08-18 08:40:07", "2024-08-18T08:40:07.123Z", "Aug 18 08:40:07"])
@pytest.mark.parametrize("level", [*LEVELS, *(f"[{level}]" for level in LEVELS), "<info>", "<error>", "[12345]"])
def test_the_level_of_another_programs_log_is_no_host(stamp: str, level: str) -> None:
    assert event_of(f"{stamp} {level} kernel: {T}") is None


@pytest.mark.parametrize("stamp", ["2024-08-18T08:40:07+02:00", "Aug 18 08:40:07"])
@pytest.mark.parametrize("name", ["critical", "trace", "Error", "W"])
def test_a_host_may_have_a_levels_name_where_printks_stamp_shows_that_the_kernel_speaks(stamp: str, name: str) -> None:
    event = event_of(f"{stamp} {name} kernel: [12.345678] {T}")
    assert event is not None
    assert name == event.host


@pytest.mark.parametrize("stamp", ["2024-08-18 08:40:07", "2024-08-18T08:40:07+02:00", "1723962794", "[12.345678]"])
@pytest.mark.parametrize("name", ["[main]", "[Thread-1]", "[worker.1]", "[*]", "<module>"])
def test_a_name_in_brackets_is_a_masked_host_behind_rfc3164_stamps_or_before_printks(stamp: str, name: str) -> None:
    assert event_of(f"{stamp} {name} kernel: {T}") is None
    for line in (f"Aug 18 08:40:07 {name} kernel: {T}", f"{stamp} {name} kernel: [85047.045932] {T}"):
        masked = event_of(line)
        assert masked is not None
        assert name == masked.host


@pytest.mark.parametrize("level", ["INFO", "WARN", "ERROR", "FATAL"])
def test_a_level_is_no_zone_before_a_host(level: str) -> None:
    assert event_of(f"2024-08-18 08:40:07 {level} jp58 kernel: {T}") is None


@pytest.mark.parametrize("host", ["info-1", "warning.example", "wlan", "w", "errol", "tracer", "Vader", "Error7"])
def test_a_host_may_begin_as_a_level_does(host: str) -> None:
    event = event_of(f"2024-08-18 08:40:07 {host} kernel: {T}")
    assert event is not None
    assert host == event.host


@pytest.mark.parametrize(
    "line",
    [
        "2024-08-18T08:33:14Z " * 3000,
        "a." * 30000,
        "a." * 30000 + ":",
        "a.1:" * 15000,
        "Aug 18 08:33:14 " + "NAS " * 15000,
        "Aug 18 08:33:14 n9k" + " " * 60000 + "kernel",
        "[1.5] " * 10000,
        "[1.5" + " " * 60000 + "<",
        "[" + " " * 60000 + "nov.22 18:50",
        "[dim. nov." + " " * 60000,
        "2024-08-18T08:33:14Z " + "a." * 30000 + "kern",
        "2024-08-18T08:33:14Z" + " " * 60000 + "kern.info: {",
        "<6>1 - - kernel - - -" + " " * 60000,
        "Aug 18 08:33:14 n9k %KERN-6-SYSTEM_MSG: " + "- kerne" * 9000,
        "[1.5] " * 10000 + T,
        "[ 1.000001] " * 5000 + T,
        "2024-08-18T08:33:14Z " * 3000 + f"kernel: {T}",
        T + " " * 60000 + "x",
        T + " - kerne" * 7000,
        " " * 60000 + f"[12.345678] x {T}",
        ". " * 30000 + f"[12.345678] x {T}",
        "a:" * 30000 + f"[12.345678] x {T}",
        "Last message '" * 4000,
        "last message repeated 1 time" + " " * 60000 + "x",
    ],
)
def test_a_head_without_end_is_given_up(line: str) -> None:
    assert event_of(line) is None
    assert parse(line, NOW, console=True) is None


@pytest.mark.parametrize(
    "line",
    [
        f"user  :notice: [  12.345678] {T}",
        f"<14>{T}",
        f"<30>Aug 18 08:33:14 jp58 kernel: {T}",
        f"<134>1 2024-08-18T07:33:14Z jp58 kernel - - - {T}",
        f"<6>1 2024-08-18T07:33:14Z jp58 logger - - - {T}",
        f"<6>1 yesterday jp58 kernel - - - {T}",
        f"Wed Feb 19 16:41:01 2020 user.notice kernel: {T}",
        f"Aug 18 08:33:14 nagios: kernel: {T}",
        f"Aug 18 08:33:14 jp58 kernel[4211]: {T}",
        f"Aug 18 08:33:14 jp58 kernel-watch: {T}",
        f"Aug 18 08:33:14 jp58 dockerd[1]: [12.345678] {T}",
        f"/var/log/messages:Aug 18 08:33:14 jp58 sshd[7]: {T}",
        f"/var/log/messages:{T}",
        f"messages:{T}",
        f"10.0.0.21: user: warning: [2024-05-06T07:08:09.123456Z]: {T}",
        f"10.0.0.21: kern: info: [2024-05-06T07:08:09.123456Z]: [talos] saw {T}",
        f"2024-08-18 08:40:07 INFO kernel: {T}",
        f"2024-08-18 08:40:07 jp58 INFO kernel: {T}",
        f"2024-08-18T08:33:14.204518+02:00 {T}",
        f"[2024-08-18 08:40:07] {T}",
        f"[12.345678] systemd[1]: {T}",
        f"[12.345678] MP{T}",
        f"12,1234,5678,-;{T}",
        f"6.1.0,12,1234,12345678901,-;{T}",
        f"myapp,6,1234,12345678901,-;{T}",
        f"6.1.0;{T}",
        f"MESSAGE={T}",
        f"    MESSAGE={T}",
        f"kernel: MESSAGE={T}",
        f"6,123456789012345678901234,1,-;{T}",
        f"    {T}",
        f"\t{T}",
        f"- {T}",
        f"+{T}",
        f'"{T}"',
        f"{T}.",
        f"{T} (see below)",
        "TCP: too many orphaned socket",
        "tcp: too many orphaned sockets",
        "kernel: DCCP: too many orphaned sockets",
        "kernel: net_ratelimit:  142 callbacks suppressed",
        "kernel: tcp_ratelimit: 142 callbacks suppressed",
    ],
)
def test_other_speakers_and_quotations_are_no_events(line: str) -> None:
    assert event_of(line) is None


@pytest.mark.parametrize(
    "other",
    [
        "[  OK  ] Reached target Paths.",
        "web-7 login: ",
        "web-7 login: root",
        "Starting network services... ",
        "         Starting Foo... ",
        "root@web-7:~# ",
        "random crng init don",
        "* Mounting local filesystems ...done.",
    ],
)
@pytest.mark.parametrize("caller", ["", "[    C3] "])
def test_on_a_serial_console_another_writers_text_may_stand_before_printks_stamp(other: str, caller: str) -> None:
    line = f"{other}[   15.712345] {caller}{T}"

    assert Envelope(T, uptime=15.712345) == parse(line, NOW, console=True)
    assert parse(line, NOW) is None


@pytest.mark.parametrize(
    "sequence",
    [
        "\x1b[25;1H",
        "\x1b[?2004l",
        "\x1b[!p\x1b]104\x1b\\\x1b[?7h",
        "\x1b]0;root@web-7\x07",
        "\x1b]8;;file://jp58/x\x1b\\",
        "\x1b(0\x1b(B\x0f",
        "\x1b=",
        "\x1b7",
        "\x07",
    ],
)
def test_what_steers_a_terminal_is_no_part_of_a_line(sequence: str) -> None:
    for line in (f"{sequence}[   15.712345] {T}{sequence}", f"Aug 18 08:33:14 jp58 {sequence}kernel: {T}"):
        assert event_of(line) is not None
    assert event_of(f"Aug 18 08:33:14 jp58 shop: {sequence}{T}") is None
    assert event_of(f"Aug 18 08:33:14 jp58 shop: {sequence}kernel: {T}") is None


@pytest.mark.parametrize(
    "other",
    [
        "shop: ",
        "shop:",
        "shop[7]: ready.",
        "Aug 18 08:33:14 jp58 shop ready.",
        "08:33 <alice> look.",
        "[12.345678] shop ready.",
        "> ",
        "> He said.",
        "- ",
        "# ",
        "+",
        "I saw ",
        "echo '",
        'grep "x"',
        "x=",
        "msg ready=",
        '{"a":1}',
        "a | b.",
    ],
)
def test_what_speaks_or_quotes_on_a_console_is_no_event(other: str) -> None:
    assert parse(f"{other}[   15.712345] {T}", NOW, console=True) is None


def test_a_repeat_line_without_tag_is_kept_for_the_detector() -> None:
    expected = Envelope("last message repeated 6 times", at=datetime(2024, 11, 20, 2, 6, 48, tzinfo=CET), host="Server")
    assert expected == parse("Nov 20 02:06:48 Server last message repeated 6 times", NOW)


@pytest.mark.parametrize("said", ["- Last output repeated 6 times -", "- Last output repeated twice -"])
def test_a_repeat_line_of_metalog_is_indented(said: str) -> None:
    assert Envelope(said) == parse(f"                {said}", NOW)


def test_a_repeat_line_of_sysklogd_2_is_kept_in_both_its_formats() -> None:
    said, at = "last message buffered 6 times", datetime(2024, 11, 20, 2, 6, 48, tzinfo=CET)

    assert Envelope(said, at=at, host="jp58") == parse(f"Nov 20 02:06:48 jp58 {said}", NOW)
    assert Envelope(said, at=at, host="jp58") == parse(f"2024-11-20T02:06:48.000000+01:00 jp58 - - - - {said}", NOW)


def test_invalid_utf8_in_the_envelope_costs_no_event() -> None:
    event = event_of(b"Aug 18 08:33:14 j\xffp kernel: Out of socket memory")
    assert event is not None
    assert "Aug 18 08:33:14 j\ufffdp kernel: Out of socket memory" == event.line


HOSTS = st.from_regex(r"[a-z][a-z0-9-]{0,12}(\.[a-z]{2,8}){0,2}", fullmatch=True)
ENVELOPES = st.sampled_from(
    [
        "Aug 18 08:33:14 {host} kernel: {text}",
        "Aug 18 08:33:14 {host} kernel: [85047.045932] {text}",
        "Aug 18 08:33:14  kernel: {text}",
        "Aug 18 08:33:14 CEST {host} kernel: {text}",
        "Aug 18 08:33:14 {host} warning kernel: {text}",
        "Aug 18 08:33:14 [kernel] [ 85047.045932] {text}",
        "2024:08:18-08:33:14 {host} kernel: [85047.04] {text}",
        "2024-08-18T06:33:14.20451 kern.info: [85047.045932] {text}",
        "[2024-08-18T08:33:14+02:00] {text}",
        '{{"log":"Aug 18 08:33:14 {host} kernel: {text}\\n","stream":"stdout","time":"2024-08-18T06:33:14Z"}}',
        "Aug 18 08:33:14 s_all@{host} kernel: {text}",
        "2024-08-18T08:33:14.204518+02:00 {host} kernel: {text}",
        "Sun 2024-08-18 08:33:14 CEST {host} kernel: {text}",
        "Sun Aug 18 08:33:14 2024 kern.info kernel: [85047.045932] {text}",
        "1723962794.204518 {host} kernel: {text}",
        "[85047.045932] {host} kernel: {text}",
        "[85047.045932] [  T812] {text}",
        "[85047.045932] [Sun Aug 18 08:33:14 2024] {text}",
        "[dim. août 18 08:33:14 2024] {text}",
        "août 18 08:33:14 {host} kernel: {text}",
        "<6>1 2024-08-18T08:33:14Z {host} kernel - - -  {text}",
        "kern  :info  : [Sun Aug 18 08:33:14 2024] {text}",
        "<6>[85047.045932] {text}",
        "<6>1 2024-08-18T08:33:14Z {host} kernel - - - {text}",
        '<6>1 2024-08-18T08:33:14Z {host} kernel - - [a b="c \\" \\]"][d] {text}',
        "6,1,85047045932,-;{text}",
        "kernel: {text}",
        "{text}",
        "Aug 18 08:33:14 {host} kernel: message repeated 3 times: [ {text}]",
        '{{"_TRANSPORT":"kernel","_HOSTNAME":"{host}","MESSAGE":"{text}"}}',
    ]
)


@given(ENVELOPES, HOSTS, st.sampled_from(sorted(TEXTS)), st.sampled_from(["", "\r", "  ", "\n"]))
def test_a_kernel_message_comes_out_of_every_envelope_whole(envelope: str, host: str, text: str, tail: str) -> None:
    event = event_of(envelope.format(host=host, text=text) + tail)
    assert event is not None
    assert TEXTS[text] == event.kind
    assert ("{host}" in envelope) == (event.host == host)
    assert (3 if "repeated" in envelope else 1) == event.count


TAGS = st.from_regex(r"[A-Za-z/_][A-Za-z0-9/_.-]{0,12}(\[[0-9]{1,6}\])?", fullmatch=True).filter(
    lambda t: t != "kernel"
)


@given(HOSTS, TAGS, st.sampled_from(sorted(TEXTS)), st.sampled_from(["Aug 18 08:33:14", "2024-08-18T08:33:14+02:00"]))
def test_no_other_tag_is_ever_an_event(host: str, tag: str, text: str, stamp: str) -> None:
    assert event_of(f"{stamp} {host} {tag}: {text}") is None


@given(st.binary(), st.sampled_from([*(text.encode() for text in TEXTS), b""]), st.binary())
def test_parse_never_raises_whatever_the_bytes(before: bytes, text: bytes, behind: bytes) -> None:
    to_record(before + text + behind, now=NOW, source="log:1", ordinal=1)


PIECES = [
    "Aug 18",
    " 2024",
    "-08-18T",
    "08:33:14",
    ".5",
    "+99:99",
    " CEST",
    " jp58",
    " kernel:",
    " [",
    "1.000001",
    "] ",
    "<6>",
]


@given(
    st.lists(
        st.sampled_from([*PIECES, "{", '"MESSAGE":', '"', "}", "1 ", "6,1,1,-;", " :info: ", "1e999", T]), max_size=12
    )
)
def test_parse_never_raises_whatever_the_pieces(pieces: list[str]) -> None:
    parse("".join(pieces), NOW)
