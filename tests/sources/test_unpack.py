import bz2
import gzip
import io
import lzma
import os
import random
import sys
import tracemalloc
from collections.abc import Callable
from contextlib import closing
from io import BufferedIOBase, BufferedReader
from pathlib import Path
from typing import cast

import pytest
from click.testing import CliRunner
from harness import wanting_4_gib
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.cli import group
from agent.sources.file.content import Content
from agent.sources.scanner import BLOCK_BYTES
from agent.sources.unpack import open_gzip, open_xz

LINES = b"".join(b"Nov 22 15:05:39 web1 kernel: line %d\n" % number for number in range(20_000))
SMALL = lzma.compress(LINES)


@pytest.mark.parametrize(
    "packed",
    [
        SMALL,
        lzma.compress(LINES, format=lzma.FORMAT_ALONE),
        lzma.compress(LINES[:99]) + lzma.compress(b"") + bytes(8) + lzma.compress(LINES[99:]) + bytes(4),
        lzma.compress(LINES[:99]) + bytes(200_000) + lzma.compress(LINES[99:]),
        lzma.compress(LINES, preset=9),
        SMALL + b"what does not belong to it",
    ],
    ids=["xz", "lzma", "several streams", "much padding", "largest dictionary of xz's presets", "garbage behind"],
)
def test_it_is_read_whole(packed: bytes) -> None:
    with open_xz(io.BytesIO(packed)) as file:
        assert LINES == file.read()


@pytest.mark.parametrize(("ending", "pack"), [(".gz", gzip.compress), (".xz", lzma.compress), (".bz2", bz2.compress)])
def test_a_compressed_log_is_read_at_any_offset(ending: str, pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    path = tmp_path / f"messages{ending}"
    path.write_bytes(pack(LINES))
    with closing(Content(str(path))) as content:
        for offset in (500_000, 1000, 0, len(LINES) - 10, 700_000):
            assert LINES[offset : offset + 20] == content.read_at(offset, 20)
        assert b"" == content.read_at(len(LINES) + 1, 20)


def test_a_file_without_anything_in_it_is_empty() -> None:
    with open_xz(io.BytesIO(b"")) as file:
        assert file.read() == b""


def test_what_is_cut_off_is_told_behind_what_is_whole() -> None:
    with open_xz(io.BytesIO(SMALL[:-500])) as file:
        assert LINES[:1000] == file.read1(1000)
        with pytest.raises(EOFError):
            file.read()


def test_an_xz_file_that_unpacks_to_thousands_of_times_its_size_is_read_in_flat_memory() -> None:
    packed = lzma.compress(bytes(40_000_000))
    tracemalloc.start()
    try:
        with open_xz(io.BytesIO(packed)) as file:
            assert 40_000_000 == sum(map(len, iter(lambda: file.read1(BLOCK_BYTES), b"")))
        assert tracemalloc.get_traced_memory()[1] < 10_000_000  # 8 MiB of it are the dictionary.
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "packed",
    [wanting_4_gib(LINES), wanting_4_gib(LINES, lzma.FORMAT_ALONE), SMALL + wanting_4_gib(LINES)],
    ids=["xz", "lzma", "second stream"],
)
def test_a_dictionary_beyond_the_limit_is_refused_with_the_fix(packed: bytes) -> None:
    with open_xz(io.BytesIO(packed)) as file, pytest.raises(OSError, match="more than 100 MiB of memory to unpack: xz"):
        file.read()


def test_scan_names_a_file_that_wants_too_much_memory_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "messages.xz"
    path.write_bytes(wanting_4_gib(LINES))
    result = CliRunner().invoke(group, ["scan", str(path)])
    why = "needs more than 100 MiB of memory to unpack: xzcat FILE | sockmem-agent scan -"
    assert (66, f"sockmem-agent: {path}: {why}\n") == (result.exit_code, result.stderr)


# --- gzip, unpacked by another library where there is one -----------------------------------------------------------

FAST = {"isal": "isal.igzip", "zlib-ng": "zlib_ng.gzip_ng"}
MEMBERS = [
    gzip.compress(text, level)
    for text in (b"", LINES[:99], LINES, random.Random(1).randbytes(200_000))
    for level in (0, 6)
]


@pytest.fixture(params=FAST)
def fast(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave only one of the libraries to be found."""
    pytest.importorskip(FAST[request.param])
    for name in FAST.keys() - {request.param}:
        monkeypatch.setitem(sys.modules, FAST[name], None)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Draw a file of some members, in which a piece is missing, too much or another one."""
    packed = b"".join(draw(st.lists(st.sampled_from(MEMBERS), min_size=1, max_size=3)))
    start = draw(st.integers(0, len(packed)) | st.integers(0, 9).map(lambda back: len(packed) - back))
    instead = draw(st.binary(max_size=30) | st.integers(0, 600).map(bytes))
    return packed[:start] + instead + packed[start + draw(st.sampled_from((0, 1, 4, len(packed)))) :]


def read_to_the_end(open_packed: Callable[[BufferedReader], BufferedIOBase], packed: bytes) -> tuple[bytes, str]:
    """Return what a file gives, and the error at its end; it begins where the one before it was left."""
    raw = BufferedReader(cast("io.RawIOBase", io.BytesIO(b"before" + packed)))
    raw.read(len(b"before"))
    given, file = [], open_packed(raw)
    try:
        while piece := file.read1(BLOCK_BYTES):
            given.append(piece)
    except Exception as error:  # noqa: BLE001 - what it is is compared
        return b"".join(given), repr(error)
    return b"".join(given), ""


@pytest.mark.usefixtures("fast")
def test_a_sound_file_is_unpacked_by_the_fast_library() -> None:
    assert not isinstance(open_gzip(BufferedReader(cast("io.RawIOBase", io.BytesIO(MEMBERS[0])))), gzip.GzipFile)
    assert (LINES * 2, "") == read_to_the_end(open_gzip, gzip.compress(LINES) * 2 + bytes(512))


@pytest.mark.usefixtures("fast")
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damaged())
def test_a_damaged_file_gives_no_less_and_says_the_same_as_by_pythons_own(packed: bytes) -> None:
    expected, why = read_to_the_end(lambda raw: gzip.GzipFile(fileobj=raw), packed)
    actual, said = read_to_the_end(open_gzip, packed)
    assert why == said
    assert actual.startswith(expected)


@pytest.mark.usefixtures("fast")
def test_a_damaged_file_from_a_pipe_gives_no_less() -> None:
    end, start = os.pipe()
    os.write(start, gzip.compress(LINES)[:5000])
    os.close(start)
    with os.fdopen(end, "rb") as raw, open_gzip(raw) as file:
        assert LINES[:100] == file.read1(100)
        with pytest.raises(EOFError):
            file.read()


@pytest.mark.usefixtures("fast")
def test_a_file_that_unpacks_to_a_thousand_times_its_size_is_read_in_flat_memory() -> None:
    packed = gzip.compress(bytes(40_000_000))
    tracemalloc.start()
    try:
        with open_gzip(BufferedReader(cast("io.RawIOBase", io.BytesIO(packed)))) as file:
            assert 40_000_000 == sum(map(len, iter(lambda: file.read1(BLOCK_BYTES), b"")))
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()
