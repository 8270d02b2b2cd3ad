"""The scenarios: one file each, in the form of Go's txtar (a comment, then "path, then text"), over one common host.

    Row 2: stuck orphans count twice.

    -- expected.json --
    {"cause": "orphans", ...}
    -- proc/net/sockstat --
    sockets: used 1240
    ...
    -- proc/sys/net/ipv4/tcp_mem (absent) --
    -- proc/self/auxv (hex) --
    0600...

The comment says what the scenario is about. Its files replace those of base.txtar; ``(absent)`` takes a file of the
base away, or a folder; ``(hex)`` is for bytes that are no text.
"""

import functools
import re
import tempfile
from pathlib import Path

SCENARIOS = Path(__file__).parent / "scenarios"
BASE = "base"
_HEADER = re.compile(r"^-- (?P<path>\S+)(?: \((?P<how>absent|hex)\))? --\n", re.MULTILINE)


def scenario_names() -> list[str]:
    """Return the names of all scenarios."""
    return sorted(path.stem for path in SCENARIOS.glob("*.txtar") if path.stem != BASE)


@functools.cache
def reason(name: str) -> str:
    """Return what a scenario is about."""
    return _HEADER.split((SCENARIOS / f"{name}.txtar").read_text(), maxsplit=1)[0].strip()


@functools.cache
def lay_out(name: str) -> Path:
    """Write a scenario's files into a folder of their own, over the common host, and return the folder."""
    files = _read(BASE, {})
    files = _read(name, files)
    folder = Path(_folder().name, name)
    (folder / "proc").mkdir(parents=True)
    for path, data in files.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return folder


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="sockmem-scenarios-")


def _read(name: str, files: dict[str, bytes]) -> dict[str, bytes]:
    """Return ``files`` as an archive changes them."""
    text = (SCENARIOS / f"{name}.txtar").read_text()
    headers = list(_HEADER.finditer(text))
    for header, end in zip(headers, [*(later.start() for later in headers[1:]), len(text)], strict=True):
        path, how, body = header["path"], header["how"], text[header.end() : end]
        if how == "absent":
            kept = {known: data for known, data in files.items() if not f"{known}/".startswith(f"{path}/")}
            assert kept != files, f"{name}: the base has no {path}"
            files = kept
        else:
            files = {**files, path: bytes.fromhex(body) if how == "hex" else body.encode()}
    return files
