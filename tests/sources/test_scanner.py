import bz2
import gzip
import io
import json
import lzma
import os
import re
import sys
import time
import tracemalloc
import zlib
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.logs.explain import explain, holds_text
from agent.core.logs.prefilter import MAX_LINE_BYTES, TOO_LONG
from agent.core.model import LogRecord
from agent.sources.localzone import LocalZone
from agent.sources.multiline import PEEK_BYTES, Entries
from agent.sources.scanner import BLOCK_BYTES, Lines, Scanner, UnreadableError, blocks

NOW = datetime(2024, 11, 22, 12, tzinfo=timezone.utc)
ORDINARY = b"Aug 18 08:33:14 jp58 sshd[99]: Accepted publickey for deploy\n"
TEXT = "TCP: too many orphaned sockets"
EVENT = b"Aug 18 08:33:14 jp58 kernel: TCP: too many orphaned sockets\n"


def flipped(packed: bytes) -> bytes:
    return packed[:60] + bytes(255 - byte for byte in packed[60:80]) + packed[80:]


@pytest.fixture
def log(tmp_path: Path) -> Callable[..., str]:
    def write(content: bytes, name: str = "messages", year: int = 2020) -> str:
        path = tmp_path / name
        path.write_bytes(content)
        moment = datetime(year, 9, 1, tzinfo=timezone.utc).timestamp()
        os.utime(path, (moment, moment))
        return str(path)

    return write


def read(path: str) -> list[LogRecord]:
    return records(Scanner(), path)


def records(scanner: Scanner, path: str) -> list[LogRecord]:
    return [each.record for each in scanner.read(path, NOW) if each.record]


@pytest.mark.parametrize(
    ("pack", "name"),
    [
        (bytes, "messages"),
        (gzip.compress, "messages.2.gz"),
        (gzip.compress, "renamed"),
        (lzma.compress, "messages.3.xz"),
        (lzma.compress, "renamed"),
        (bz2.compress, "messages.4.bz2"),
        (lambda lines: lzma.compress(lines, format=lzma.FORMAT_ALONE), "messages.5.lzma"),
        (bz2.compress, "renamed"),
    ],
)
def test_plain_and_compressed_logs_give_numbered_lines(
    log: Callable[..., str], pack: Callable[..., bytes], name: str
) -> None:
    content = EVENT + ORDINARY * 5000 + EVENT + ORDINARY * 3 + EVENT + ORDINARY
    path = log(pack(content), name)
    assert [f"{path}:1", f"{path}:5002", f"{path}:5006"] == [each.source for each in read(path)]


def test_the_year_comes_from_the_files_mtime(log: Callable[..., str]) -> None:
    years = [each.at.year for each in read(log(EVENT, year=2019)) if each.at]
    assert [2019] == years


ENTRY = (
    b'{"timestamp":"2024-05-06T07:08:09.2Z",'
    b'"jsonPayload":{"MESSAGE":"TCP: too many orphaned sockets","_TRANSPORT":"kernel"}}'
)


@pytest.mark.parametrize("content", [b"[" + ENTRY + b"]", b"[" + ENTRY + b"]\n", b'[{"a":1},' + ENTRY + b"]"])
def test_an_array_of_objects_on_one_line_is_read(log: Callable[..., str], content: bytes) -> None:
    (record,) = [each for each in read(log(content)) if each.at]

    assert ("TCP: too many orphaned sockets", 2024, 1) == (record.text, record.at and record.at.year, record.ordinal)


@pytest.mark.parametrize("end", ["", "\n"])
@pytest.mark.parametrize("indent", [None, 4])
@pytest.mark.parametrize("name", ["@message", "user_agent"])
def test_a_pair_of_a_name_and_a_value_is_read_as_a_field_of_that_name(
    log: Callable[..., str], name: str, indent: int | None, end: str
) -> None:
    pairs = [{"field": "@timestamp", "value": "2024-08-18 06:33:14.000"}, {"field": name, "value": LINE}]
    found = read(log((json.dumps({"results": [pairs]}, indent=indent) + end).encode()))

    assert [TEXT] * (name == "@message") == [each.text for each in found]


@pytest.mark.parametrize("end", [b"", b"\n", b"\n{}\n"])
@pytest.mark.parametrize("size", [1, 5000])
def test_what_stands_around_a_list_in_a_line_is_heard_however_long_the_line_is(
    log: Callable[..., str], size: int, end: bytes
) -> None:
    items = b'"items":[{"facility":"kern","message":"%b"}]}' % TEXT.encode()
    others = b'{"app":"shop","pad":"%b",' % (b"x" * size) + items
    kernels = b'{"pad":"%b","host":"jp58",' % (b"x" * size) + items

    assert [] == read(log(others + end))
    assert ["jp58"] == [each.host for each in read(log(kernels + end))]


def test_every_object_of_an_array_is_read(log: Callable[..., str]) -> None:
    assert 3 == len(read(log(b"[" + b",".join([ENTRY] * 3) + b"]")))


@pytest.mark.parametrize("rest", [b"", b"],", b",{", b',{"a":"', b",{}}}]]\n\n"])
def test_every_whole_object_of_a_broken_array_is_read(log: Callable[..., str], rest: bytes) -> None:
    assert [TEXT] == [each.text for each in read(log(b"[" + ENTRY + rest))]


@pytest.mark.parametrize("content", [ENTRY[1:], b"[{" + b"[" * 9000 + EVENT, b"[" + ENTRY[:-9]])
def test_half_an_object_is_no_event(log: Callable[..., str], content: bytes) -> None:
    assert [] == read(log(content))


OTHER = b'{"message":"{ [\\"TCP: too many orphaned sockets\\\\","labels":{"a":[1,{"b":2}]}}'


@pytest.mark.parametrize("size", [1, 2000])
@pytest.mark.parametrize(
    "form",
    [
        b"[%b]",
        b"[\n  %b\n]\n",
        b'{"took":7,"hits":{"total":{"value":2},"hits":[%b]},"shards":{"a":1}}',
        b'{"took": 7,\n "hits": {\n  "hits": [\n   %b\n]\n}\n}\n',
        b"[[%b]]",
        b"\xef\xbb\xbf[%b]",
    ],
)
def test_every_object_of_an_array_is_read_however_long_its_line_is(
    log: Callable[..., str], form: bytes, size: int
) -> None:
    records = read(log(form % b",".join([OTHER, ENTRY] * size)))

    assert [(TEXT, 2024)] * size == [(each.text, each.at and each.at.year) for each in records]


def test_a_record_is_read_whatever_objects_are_in_it(log: Callable[..., str]) -> None:
    path = log(b'{\n"tags": [{"a": 1},\n{"b": [{}]}],' + ENTRY[1:] + b"\n")

    assert [(f"{path}:3", TEXT)] == [(each.source, each.text) for each in read(path)]


def test_a_string_of_megabytes_in_an_array_costs_nothing(log: Callable[..., str]) -> None:
    path = log(b'[{"core":"' + b"x\\\\" * 7_000_000 + b'"},' + ENTRY + b"]")
    tracemalloc.start()
    try:
        assert 1 == sum(1 for each in Scanner().read(path, NOW) if each.record)
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


LINE = EVENT.decode().strip()


@pytest.mark.parametrize(
    ("names", "row"),
    [
        ("timestamp,source,message", f'"2024-08-18T06:33:14.000Z","jp58","{LINE}"'),
        ('"_time",host,"_raw",index', f'"2024-08-18T06:33:14.000+0000",jp58,"{LINE}",main'),
        ('"@timestamp",host.name,message', f'"Aug 18, 2024 @ 06:33:14.000","jp58","{LINE}"'),
        ("\ufeffDate;Host;Message", f'2024-08-18 06:33:14;jp58;"{LINE}"'),
        ("time\tline\thost", f"1723962794\t{LINE}\tjp58"),
        ("TimeGenerated [UTC],HostName,SyslogMessage", f'2024-08-18T06:33:14Z,jp58,"{LINE}"'),
        (
            "insertId,jsonPayload.MESSAGE,jsonPayload._HOSTNAME,jsonPayload._TRANSPORT,timestamp",
            f"x,{TEXT},jp58,kernel,2024-08-18T06:33:14Z",
        ),
        (
            "labels,Time,Line,tsNs,labelTypes,id",
            f'"{{""host"":""jp58"",""transport"":""kernel""}}",1723962794000,{TEXT},1723962794000000000,"{{}}",x',
        ),
        ("time,host,facility,note,message", f'2024-08-18T06:33:14Z,jp58,kern,"a ""b"", c",{TEXT}'),
    ],
)
def test_csv_is_read_by_the_names_in_its_first_line(log: Callable[..., str], names: str, row: str) -> None:
    other = re.sub(
        r"kernel:|(?<=[,\"])kern(?:el)?(?=[,\"])", lambda said: "sshd[7]:" if ":" in said[0] else "user", row
    )
    path = log(f'{names}\n{other}\n{row}\n"a\n{LINE}\nb"\n{other}\n{row}\n'.encode())
    at = datetime(2024, 8, 18, 6, 33, 14, tzinfo=timezone.utc)

    assert [(f"{path}:{number}", TEXT, at, "jp58") for number in (3, 8)] == [
        (each.source, each.text, each.at, each.host) for each in read(path)
    ]


@pytest.mark.parametrize("damage", [b"\0", b"x" * 200_000, b"\xff", b'"' + b"x" * 200_000, b'"' + b"\n" * 200_000])
def test_damage_in_csv_costs_no_row_behind_it(log: Callable[..., str], damage: bytes) -> None:
    row = f'2024-08-18T06:33:14Z,jp58,"{LINE}"\n'.encode()

    assert 2 <= len(read(log(b"time,host,line\n" + row + damage + b"\n" + row * 2)))


@pytest.mark.parametrize("names", ["time", "hello, world", "Aug 18 08:33:14 jp58 shop: time,host", "time;1;2", ""])
def test_what_is_no_line_of_names_begins_no_csv(log: Callable[..., str], names: str) -> None:
    assert 1 == len(read(log(names.encode() + b"\n" + EVENT)))


@pytest.mark.parametrize(
    "names", ["a\rb", "time,host\rx", "GRUB\r, time", "10%\r100%", "Welcome\r to Linux; time", '"a\r']
)
def test_a_carriage_return_in_the_first_line_is_no_csv(log: Callable[..., str], names: str) -> None:
    assert [2] == [each.ordinal for each in read(log(names.encode() + b"\n" + EVENT))]


@pytest.mark.parametrize("before", ["sep=,\n", "\n", "\r\n\r\n", "\ufeffsep=,\r\n"])
def test_a_hint_or_blank_lines_may_stand_before_the_names(log: Callable[..., str], before: str) -> None:
    path = log(f'{before}time,host,line\n2024-08-18T06:33:14Z,jp58,"{LINE}"\n'.encode())

    assert [before.count("\n") + 2] == [each.ordinal for each in read(path)]


@pytest.mark.parametrize(
    ("content", "numbers"),
    [
        ("time,host\n{line}\n{line}\nlast message repeated 2 times\n", [2, 3, 4]),
        ("date\thost\tstate\n2024-05-06\tweb-7\tup\n{line}\n", [3]),
        ('time,host,line\n2024-08-18T06:33:14Z,jp58,"{line}",\n', [2]),
        ('{{"a": [\n{line}\n{line}\n', [2, 3]),
        ("[{{ booting\n{line}\n[  12.345678] {text}\n", [2, 3]),
        ('[{{"a":1}},\n{line}\n{{"b":2}}]\n{line}\n', [2, 4]),
        ('{{"msg":"start\n{line}\n', [2]),
        ("__CURSOR=s=1\n{line}\n{line}\n", [2, 3]),
    ],
)
def test_lines_among_records_are_read_as_lines(log: Callable[..., str], content: str, numbers: list[int]) -> None:
    path = log(content.format(line=LINE, text=TEXT).encode())

    assert numbers == [each.ordinal for each in read(path)]


@pytest.mark.parametrize(
    "content",
    [
        'time,host,line\n2024-08-18T06:33:14Z,jp58,"{line}",extra\n',
        'time,host,line\n2024-08-18T06:33:14Z,"{line}"\n',
        'time,host,line\n2024-08-18T06:33:14Z,jp58,"{line}"\rx\n',
        'time,host,line\n"{line}\n' + "x\n" * 200_000,
        '[\n{{"a": 1}},\n{{"transport": "kernel", "message": "{text}"',
        '[\n{{"a": 1, "b": "{text}\n"}}]\n',
        '[{{"transport": "kernel", "message": "{text}", "core": "' + "x" * 300_000 + '"}}]',
        "__CURSOR=s=1\n_TRANSPORT=kernel\nMESSAGE=" + "x" * 5000 + "{text}\n",
        "__CURSOR=s=1\n_TRANSPORT=kernel\nMESSAGE\n@\0\0\0\0\0\0\0as seen\n{text}\n................ \nA=b\n",
        "Sun 2024-08-18 06:33:14.2 UTC [s=5;m=13c;t=61f;x=8]\n    _TRANSPORT=kernel\n    MESSAGE=seen:\n     {line}\n",
    ],
)
def test_a_record_that_is_not_whole_is_refused_and_not_lost(log: Callable[..., str], content: str) -> None:
    found = list(Scanner().read(log(content.format(line=LINE, text=TEXT).encode()), NOW))

    assert [(True, None)] == [(holds_text(each.line), each.record) for each in found if holds_text(each.line)]


@pytest.mark.parametrize("word", [b"orphaned", b"TCP: too many orphaned sockets", b"kernel"])
def test_the_colors_of_grep_hide_no_line(log: Callable[..., str], word: bytes) -> None:
    colored = EVENT.replace(word, b"\x1b[01;31m\x1b[K" + word + b"\x1b[m\x1b[K")
    path = log((ORDINARY * 900 + colored) * 3 + EVENT)

    assert [901, 1802, 2703, 2704] == [each.ordinal for each in read(path)]


def test_zstd_is_read_where_its_library_is(log: Callable[..., str]) -> None:
    zstandard = pytest.importorskip("zstandard")
    content = EVENT + ORDINARY * 5000 + EVENT
    path = log(zstandard.compress(content) + zstandard.compress(EVENT), "messages.5.zst")

    assert [1, 5002, 5003] == [each.ordinal for each in read(path)]


@pytest.mark.parametrize(
    ("damage", "fix"),
    [
        (lambda packed: packed[: len(packed) // 2], "ends in the middle"),
        (lambda packed: packed + b"x" * 4000, "damaged compressed data"),
    ],
)
def test_zstd_that_is_cut_or_damaged_gives_every_line_before(
    log: Callable[..., str], damage: Callable[[bytes], bytes], fix: str
) -> None:
    zstandard = pytest.importorskip("zstandard")
    packed = zstandard.compress(b"".join(EVENT + os.urandom(300).hex().encode() + b"\n" for _ in range(3000)))
    found = []
    with pytest.raises(UnreadableError, match=fix):
        found.extend(each for each in Scanner().read(log(damage(packed)), NOW) if each.record)

    assert 1000 < len(found)


def test_zstd_without_its_library_is_named_with_the_mend(
    log: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    monkeypatch.setitem(sys.modules, "compression.zstd", None)

    with pytest.raises(UnreadableError, match=r"zstdcat FILE \| sockmem-agent scan -"):
        read(log(b"\x28\xb5\x2f\xfd" + b"x" * 99))


def test_a_last_line_without_newline_counts(log: Callable[..., str]) -> None:
    assert ["jp58"] == [each.host for each in read(log(ORDINARY + EVENT.rstrip()))]


@pytest.mark.parametrize("size", [10_000, MAX_LINE_BYTES + 1, 300_000])
def test_a_run_of_nul_bytes_before_a_line_is_stripped(log: Callable[..., str], size: int) -> None:
    records = read(log(ORDINARY + b"\0" * size + EVENT + EVENT))
    assert [EVENT.decode().rstrip()] * 2 == [each.line for each in records]
    assert [2, 3] == [each.ordinal for each in records]


@pytest.mark.parametrize("size", [MAX_LINE_BYTES + 1, BLOCK_BYTES * 5, 3_000_000])
def test_a_line_of_megabytes_is_skipped_and_counted(log: Callable[..., str], size: int) -> None:
    path = log(EVENT + b"x" * size + EVENT + ORDINARY + EVENT)
    assert [f"{path}:1", f"{path}:4"] == [each.source for each in read(path)]


@pytest.mark.parametrize("size", [MAX_LINE_BYTES + 1, 100_000, 3_000_000])
@pytest.mark.parametrize("form", [b"%b%b\n", b"%b%b", b"%b[  12.345678] %b\n"])
def test_a_message_in_a_line_that_is_too_long_is_refused_and_not_lost(
    log: Callable[..., str], size: int, form: bytes
) -> None:
    path = log(EVENT + form % (b"x" * size, EVENT.rstrip()))
    first, *refused = [each for each in Scanner().read(path, NOW) if holds_text(each.line)]

    assert first.record
    assert [(f"{path}:2", None)] == [(each.source, each.record) for each in refused]
    assert "longer than 64 KiB" in explain(refused[0].line, None, None)[-2].detail


def test_a_line_of_megabytes_at_the_end_is_nothing(log: Callable[..., str]) -> None:
    assert [] == read(log(b"x" * 300_000 + EVENT.rstrip()))


@given(
    st.lists(st.sampled_from([ORDINARY, EVENT, b"\n", b"\0" * 9, b"x" * 70_000, b"y" * 200_000]), max_size=12).map(
        b"".join
    )
)
def test_blocks_keep_every_newline_and_every_short_line(content: bytes) -> None:
    parts = list(blocks(io.BytesIO(content)))
    assert content.count(b"\n") == sum(block.count(b"\n") for block in parts)
    short = [line for line in content.replace(b"\0", b"").split(b"\n") if 0 < len(line) < MAX_LINE_BYTES]
    kept = b"".join(part for part in parts if not part.startswith(TOO_LONG))
    found = [line for line in kept.replace(b"\0", b"").split(b"\n") if 0 < len(line) < MAX_LINE_BYTES]
    assert [line for line in short if b"y" not in line and b"x" not in line] == [
        line for line in found if b"y" not in line and b"x" not in line
    ]


@given(
    st.lists(st.sampled_from([ORDINARY, ORDINARY * 700, EVENT, b"\n", b"x" * 70_000, b"y"]), max_size=12).map(b"".join)
)
def test_lines_have_the_numbers_that_an_editor_shows(content: bytes) -> None:
    lines = Lines(io.BufferedReader(cast("io.RawIOBase", io.BytesIO(content))))
    messages = [number for number, line in lines if line.endswith(TEXT.encode()) and not line.startswith(TOO_LONG)]
    shown = content.removesuffix(b"\n").split(b"\n") if content else []
    assert len(shown) == lines.read
    ends = [number for number, line in enumerate(shown, 1) if line.endswith(TEXT.encode())]
    assert [number for number in ends if len(shown[number - 1]) <= MAX_LINE_BYTES] == messages


def test_ordinals_go_on_over_rotated_files(log: Callable[..., str]) -> None:
    scanner = Scanner()
    paths = [
        log(ORDINARY * 2 + EVENT, "messages.2"),
        log(EVENT + ORDINARY, "messages.1"),
        log(gzip.compress(ORDINARY + EVENT), "messages.gz"),
        log(EVENT, "messages"),
    ]
    first, second, third, fourth = [each.ordinal for path in paths for each in records(scanner, path)]
    assert 1 == second - first
    assert 1 < third - second
    assert 1 == fourth - third


@pytest.mark.parametrize(
    ("content", "name", "fix"),
    [
        (gzip.compress(EVENT + os.urandom(300_000))[:-9000], "cut.gz", "ends in the middle"),
        (lzma.compress(EVENT + os.urandom(300_000))[:-9000], "cut.xz", "ends in the middle"),
        (EVENT, "plain.gz", "rename it if it is plain text"),
        (b"\0" * 4096, "zeroed.gz", "damaged"),
        (b"\xfd7zXZ\0" + b"\xff" * 64, "bad.xz", "damaged"),
        (b"BZh9" + b"\xff" * 64, "bad.bz2", "damaged"),
        (flipped(gzip.compress(ORDINARY * 999)), "bad.gz", "damaged"),
        (EVENT.decode().encode("utf-16"), "powershell.txt", "iconv -f UTF-16 -t UTF-8 FILE | sockmem-agent scan -"),
        (b"\xfe\xff" + EVENT.decode().encode("utf-16-be"), "big-endian.txt", "iconv -f UTF-16"),
        (EVENT.decode().encode("utf-16-le"), "no-mark.txt", "iconv -f UTF-16LE -t UTF-8 FILE"),
        (EVENT.decode().encode("utf-16-be"), "no-mark.txt", "iconv -f UTF-16BE -t UTF-8 FILE"),
        (
            ("日志文件内容\r\n" + EVENT.decode() * 9).encode("utf-16-le"),
            "no-mark.txt",
            "iconv -f UTF-16LE -t UTF-8 FILE",
        ),
        (
            gzip.compress(EVENT.decode().encode("utf-16")),
            "a.gz",
            "is UTF-16: unpack it, then iconv -f UTF-16 ",
        ),
        (lzma.compress(EVENT.decode().encode("utf-16-be")), "a.xz", "unpack it, then iconv -f UTF-16BE -t UTF-8 FILE"),
        (b"LPKSHHRH" + b"\0" * 200, "system.journal", "--directory"),
        (b"PK\x03\x04" + b"\x14" * 200, "logs.zip", "unzip -p FILE | sockmem-agent scan -"),
        (b"7z\xbc\xaf\x27\x1c" + b"\x14" * 200, "logs.7z", "7z x -so FILE | sockmem-agent scan -"),
        (b"\x1f\x9d\x90" + b"\x14" * 200, "messages.Z", "zcat FILE | sockmem-agent scan -"),
    ],
)
def test_input_that_cannot_be_read_is_named_with_the_mend(
    log: Callable[..., str], content: bytes, name: str, fix: str
) -> None:
    path = log(content, name)
    with pytest.raises(UnreadableError, match=fix) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_log_with_a_hole_and_something_of_utf_16_in_it_is_read(log: Callable[..., str]) -> None:
    odd = b"Aug 18 08:33:14 jp58 smbd: share " + "accounting".encode("utf-16-le") + b"\n"
    assert [3] == [each.ordinal for each in read(log(b"\0" * 3000 + ORDINARY + odd + EVENT))]


@pytest.mark.parametrize(
    ("pack", "unpack"),
    [
        (gzip.compress, lambda cut: zlib.decompressobj(31).decompress(cut)),
        (lzma.compress, lambda cut: lzma.LZMADecompressor().decompress(cut)),
    ],
)
def test_every_whole_line_before_the_damage_is_given(
    log: Callable[..., str], pack: Callable[..., bytes], unpack: Callable[..., bytes]
) -> None:
    cut = pack(b"".join(os.urandom(300).hex().encode() + b"\n" + EVENT for _ in range(2000)))[:-9000]
    found: list[int] = []
    with pytest.raises(UnreadableError):
        found.extend(each.record.ordinal for each in Scanner().read(log(cut), NOW) if each.record)
    assert unpack(cut).count(EVENT) == len(found)


def test_no_line_behind_a_damaged_input_is_the_neighbour_of_one_in_it(log: Callable[..., str]) -> None:
    scanner, found = Scanner(), list[int]()
    cut = log(gzip.compress(EVENT * 9)[:-4], "messages.1.gz")
    with pytest.raises(UnreadableError):
        found.extend(each.record.ordinal for each in scanner.read(cut, NOW) if each.record)
    found += [each.ordinal for each in records(scanner, log(EVENT * 3))]
    assert [1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13] == found


def test_missing_files_and_directories_are_named_with_the_mend(tmp_path: Path) -> None:
    with pytest.raises(UnreadableError, match="no-such: no such file; check the name"):
        read(str(tmp_path / "no-such"))
    with pytest.raises(UnreadableError, match="is a directory; name the files in it"):
        read(str(tmp_path))


def test_a_fifo_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    if os.fork() == 0:
        path.write_bytes(ORDINARY * 3000 + EVENT)
        os._exit(0)
    records = read(str(path))
    os.wait()
    assert [f"{path}:3001"] == [each.source for each in records]
    assert [2024] == [each.at.year for each in records if each.at]


def test_memory_stays_flat_whatever_the_size(log: Callable[..., str]) -> None:
    path = log(ORDINARY * 500_000 + b"x" * 20_000_000 + b"\n" + EVENT)
    tracemalloc.start()
    try:
        assert 1 == sum(1 for _ in Scanner().read(path, NOW))
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_local_stamps_follow_summer_time(monkeypatch: pytest.MonkeyPatch, log: Callable[..., str]) -> None:
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    try:
        winter = EVENT.replace(b"Aug", b"Jan")
        assert [1, 2] == [each.at.utcoffset().seconds // 3600 for each in read(log(winter + EVENT)) if each.at]  # type: ignore[union-attr]
        assert "CEST" == datetime(2024, 8, 18, tzinfo=LocalZone()).tzname()
    finally:
        monkeypatch.undo()
        time.tzset()


def test_the_hour_that_comes_twice_in_autumn_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    try:
        first = datetime(2024, 10, 27, 0, 30, tzinfo=timezone.utc)
        for moment in (first, first + timedelta(hours=1)):
            assert moment == moment.astimezone(LocalZone()).astimezone(timezone.utc)
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["02:59:50", "02:10:00", "03:10:00"], ["00:59:50", "01:10:00", "02:10:00"]),
        (["02:10:00 [100.0]", "02:50:00 [6100.0]"], ["00:10:00", "01:50:00"]),
        (["02:10:00 [100.0]", "02:50:00 [2500.0]"], ["00:10:00", "00:50:00"]),
        (["02:10:00", "02:09:58", "02:50:00"], ["00:10:00", "00:09:58", "00:50:00"]),
        (["01:59:00 [10.0]", "02:30:00 [5470.0]"], ["23:59:00", "01:30:00"]),
        (["01:59:00 [10.0]", "02:30:00 [999999999999.0]"], ["23:59:00", "01:30:00"]),
    ],
)
def test_a_line_of_the_hour_that_comes_twice_is_not_dated_an_hour_early(
    monkeypatch: pytest.MonkeyPatch, log: Callable[..., str], lines: list[str], expected: list[str]
) -> None:
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    try:
        said = (line.split() for line in lines)
        text = "".join(
            f"2024 Oct 27 {clock} web1 kernel: {' '.join(stamp)} TCP: too many orphaned sockets\n"
            for clock, *stamp in said
        )
        records = read(log(text.encode()))
        assert expected == [f"{each.at.astimezone(timezone.utc):%H:%M:%S}" for each in records if each.at]  # type: ignore[union-attr]
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(("written", "hour"), [(1, 1), (9, 1), (-1, 0), (60, 0), (-3599, 0)])
def test_a_single_line_of_the_hour_that_comes_twice_is_dated_by_when_it_was_written(
    monkeypatch: pytest.MonkeyPatch, log: Callable[..., str], written: int, hour: int
) -> None:
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    try:
        path = log(b"Oct 27 02:30:00 web1 kernel: TCP: too many orphaned sockets\n")
        second = datetime(2024, 10, 27, 1, 30, tzinfo=timezone.utc).timestamp()
        os.utime(path, (second + written,) * 2)
        assert [(hour, 30)] == [(at.hour, at.minute) for each in read(path) if (at := each.at.astimezone(timezone.utc))]  # type: ignore[union-attr]
    finally:
        monkeypatch.undo()
        time.tzset()


# --- entries that are spread over lines -----------------------------------------------------------------------------

# What systemd 252 wrote: the fields of an entry stand in the order of their first appearance in the journal file.
CURSOR = (
    "s=5ad8b61d008a47e6bb3099b1ad0eb821;i={};b=0123456789abcdef0123456789abcdef;m=13cd32ef2c;t=61fef5df45d66;x=8b68"
)
FIELDS = {
    "kernel": ("_TRANSPORT=kernel", "PRIORITY=6", "SYSLOG_FACILITY=0", "_HOSTNAME=jp58", f"MESSAGE={TEXT}"),
    "before": ("_TRANSPORT=stdout", "SYSLOG_IDENTIFIER=myapp", "_HOSTNAME=jp58", f"MESSAGE={TEXT}"),
    "behind": ("PRIORITY=6", "_HOSTNAME=jp58", f"MESSAGE={TEXT}", "_TRANSPORT=stdout", "SYSLOG_IDENTIFIER=myapp"),
    "forged": ("SYSLOG_FACILITY=0", "SYSLOG_IDENTIFIER=kernel", f"MESSAGE={TEXT}", "_TRANSPORT=journal"),
}


def exported(*entries: str) -> str:
    times = "__REALTIME_TIMESTAMP=1723962794204518\n__MONOTONIC_TIMESTAMP=85047045932\n"
    return "".join(
        f"__CURSOR={CURSOR.format(number)}\n{times}" + "\n".join(FIELDS[entry]) + "\n\n"
        for number, entry in enumerate(entries)
    )


def verbose(*entries: str) -> str:
    return "".join(
        f"Sun 2024-08-18 06:33:14.204518 UTC [{CURSOR.format(number)}]\n"
        + "".join(f"    {line}\n" for line in FIELDS[entry])
        for number, entry in enumerate(entries)
    )


def pretty(*entries: str) -> str:
    times = ['"__REALTIME_TIMESTAMP" : "1723962794204518"', '"__MONOTONIC_TIMESTAMP" : "85047045932"']
    fields = [
        [f'"{name}" : "{value}"' for name, _, value in (line.partition("=") for line in FIELDS[each])]
        for each in entries
    ]
    return "".join("{\n" + ",\n".join(f"\t{line}" for line in [*each, *times]) + "\n}\n" for each in fields)


class CountedReads(io.BufferedReader):
    """Counts how often something else than a line is read of it."""

    reads = 0

    def read(self, size: int | None = -1) -> bytes:
        self.reads += 1
        return super().read(size)


@pytest.mark.parametrize("more", [0, 1])
def test_backslashes_without_end_are_read_in_pieces_like_any_text(more: int) -> None:
    stream = CountedReads(io.BytesIO(b'{"MESSAGE":"%b' % TEXT.encode() + b"\\" * (4 * MAX_LINE_BYTES + more)))
    entries = Entries(stream)
    list(entries)

    assert entries.are_here
    assert stream.reads <= 4 + 2


@pytest.mark.parametrize("form", [exported, verbose, pretty])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_spread_entry_is_the_kernels_where_its_own_fields_say_so(
    log: Callable[..., str], form: Callable[..., str], pack: Callable[[bytes], bytes]
) -> None:
    content = form("before", "kernel", "behind", "forged", "kernel", "before")
    path = log(pack(content.encode()))
    records = read(path)
    messages = [number for number, line in enumerate(content.splitlines(), 1) if TEXT in line]
    assert [f"{path}:{messages[1]}", f"{path}:{messages[4]}"] == [each.source for each in records]
    at = datetime(2024, 8, 18, 6, 33, 14, 204518, tzinfo=timezone.utc)
    assert [(TEXT, at, 85047.045932, "jp58", "claimed")] * 2 == [
        (each.text, each.at, each.uptime, each.host, each.provenance) for each in records
    ]
    assert all(TEXT in each.line and "\n" not in each.line for each in records)


QUOTED = (b"_TRANSPORT=kernel", b"SYSLOG_IDENTIFIER=kernel", b"MESSAGE=" + TEXT.encode(), b"")


def test_what_a_message_of_several_lines_quotes_is_no_field_of_an_export(log: Callable[..., str]) -> None:
    value = b"as seen:\n\n" + b"\n".join(QUOTED)
    sized = b"MESSAGE\n" + len(value).to_bytes(8, "little") + value + b"\n"
    entry = b"__CURSOR=s=1\n_TRANSPORT=stdout\nSYSLOG_IDENTIFIER=myapp\n" + sized + b"\n"
    path = log(entry + exported("kernel").encode())
    number = (entry + exported("kernel").encode()).splitlines().index(f"MESSAGE={TEXT}".encode(), 12) + 1
    assert [f"{path}:{number}"] == [each.source for each in read(path)]


def test_what_a_message_of_several_lines_quotes_is_no_field_of_the_verbose_form(log: Callable[..., str]) -> None:
    heading = verbose("before").encode().splitlines()[0]
    value = b"\n".join(b" " * 12 + line for line in (heading, *QUOTED, heading, *QUOTED))
    entry = heading + b"\n    _TRANSPORT=stdout\n    SYSLOG_IDENTIFIER=myapp\n    MESSAGE=as seen:\n" + value + b"\n"
    assert 1 == len(read(log(entry + verbose("kernel").encode())))


def test_an_array_of_entries_is_read(log: Callable[..., str]) -> None:
    entries = pretty("kernel", "behind").replace("}\n{", "},\n{")
    assert 1 == len(read(log(f"[\n{entries}]\n".encode())))


def test_what_journalctl_says_before_the_first_entry_is_passed_over(log: Callable[..., str]) -> None:
    heading = "-- Journal begins at Sun 2024-08-18 06:33:14 UTC, ends at Sun 2024-08-18 06:33:15 UTC. --\n"
    assert 1 == len(read(log((heading + verbose("kernel")).encode())))


def test_dmesg_json_is_read(log: Callable[..., str]) -> None:
    path = log(
        b'{\n   "dmesg": [\n      {\n         "pri": 6,\n         "time":     0.000000,\n         "msg": "Linux {"\n'
        b'      },{\n         "pri": 6,\n         "time":   520.897104,\n         "msg": "%s"\n      }\n   ]\n}\n'
        % TEXT.encode()
    )
    assert [(f"{path}:10", TEXT, 520.897104)] == [(each.source, each.text, each.uptime) for each in read(path)]


def test_a_field_of_megabytes_and_an_entry_that_was_cut_off_cost_nothing(log: Callable[..., str]) -> None:
    dump = b"__CURSOR=s=1\n_TRANSPORT=journal\nCOREDUMP=" + b"x" * 20_000_000 + b"\n" * 2
    path = log(dump + b"a=b\n" * 300_000 + b"\n" + exported("kernel", "kernel").rstrip().encode())
    tracemalloc.start()
    try:
        assert 2 == sum(1 for _ in Scanner().read(path, NOW))
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "start",
    [b"", b"{", b'{\n"a": 1\n}\n', b"{}\n", b"-- x", b"\n", b"__CURSO", b"Sun 2024-08-18 06:33:14 UTC jp58 x\n"],
)
def test_what_does_not_begin_like_spread_entries_is_read_by_lines(log: Callable[..., str], start: bytes) -> None:
    assert 2 == len(read(log(start + b"\n" + EVENT + ORDINARY + b"[  12.345678] TCP: too many orphaned sockets\n")))
    assert len(start) < PEEK_BYTES


def test_a_file_written_in_a_year_that_no_calendar_has_is_scanned(log: Callable[..., str]) -> None:
    path = log(EVENT)
    with pytest.MonkeyPatch.context() as patch:
        real = os.fstat
        far = 300_000_000_000
        patch.setattr(os, "fstat", lambda fd: os.stat_result([*real(fd)[:7], far, far, far]))
        (record,) = read(path)

    assert "TCP: too many orphaned sockets" == record.text
