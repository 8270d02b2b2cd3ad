import io
import lzma
from pathlib import Path

import pytest
from click.testing import CliRunner
from harness import wanting_4_gib

from agent.cli import group
from agent.sources.xz import open_xz

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
def test_it_is_read_whole_and_from_any_place(packed: bytes) -> None:
    with open_xz(io.BytesIO(packed)) as file:
        assert LINES == file.read()
        assert LINES[1000:1010] == (file.seek(1000), file.read(10))[1]
        assert LINES[-10:] == (file.seek(len(LINES) - 10), file.read())[1]
        assert len(LINES) == file.tell()


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
