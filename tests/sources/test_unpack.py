import bz2
import gzip
import io
import lzma
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner
from harness import wanting_4_gib

from agent.cli import group
from agent.sources.file.content import Content
from agent.sources.unpack import open_xz

LINES = b"".join(b"Nov 22 15:05:39 web1 kernel: line %d\n" % number for number in range(20_000))
SMALL = lzma.compress(LINES)


@pytest.mark.parametrize(
    "packed",
    [
        SMALL,
        lzma.compress(LINES, format=lzma.FORMAT_ALONE),
        lzma.compress(LINES[:99]) + lzma.compress(b"") + bytes(8) + lzma.compress(LINES[99:]) + bytes(4),
        lzma.compress(LINES, preset=9),
        SMALL + b"what does not belong to it",
    ],
    ids=["xz", "lzma", "several streams", "largest dictionary of xz's presets", "garbage behind"],
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


def test_what_is_cut_off_is_told_behind_what_is_whole() -> None:
    with open_xz(io.BytesIO(SMALL[:-500])) as file:
        assert LINES[:1000] == file.read1(1000)
        with pytest.raises(EOFError):
            file.read()


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
