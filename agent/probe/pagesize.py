"""The page size of the host that a tree was taken from: getauxval(3), proc(5).

``mem`` and ``tcp_mem`` count pages, and a page is 4 KiB on most hosts, but 16 or 64 KiB on others.
"""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

from agent.core.kernel import procfs
from agent.core.kernel.release import has_small_pages
from agent.core.readings import PAGE_SIZE, Gap
from agent.probe.files import Unreadable, read_bytes, read_head
from agent.probe.reading import Reading

PROC = Path("/proc")
ASSUMED_BYTES = 4096
PROCESSES_AT_MOST = 64


def is_this_host(proc_root: Path) -> bool:
    """Return whether a tree is the /proc of the running kernel, under any name."""
    try:
        return proc_root.samefile(PROC)
    except OSError:
        return False


def find_page_size(reading: Reading, meminfo: dict[str, int], release: str | None, *, live: bool) -> int | None:
    """Find the page size in bytes; if the tree does not show it, leave a gap.

    It is 4096 then, unless the kernel's release names an architecture or a flavor that can have larger pages: None.
    """
    if live:
        return os.sysconf("SC_PAGE_SIZE")
    found = _from_processes(reading.root) or _from_free_memory(reading.root, meminfo)
    if found is None:
        found = ASSUMED_BYTES if has_small_pages(release) else None
        assumed = f"assuming {found} bytes" if found else f"{release} may have larger pages; no sizes in bytes"
        reading.gaps.append(Gap(what=PAGE_SIZE, why=f"not in this tree: {assumed}"))
    return found


def _from_processes(root: Path) -> int | None:
    """Read it from a process of the tree; a kernel thread's files are empty, and others may be unreadable."""
    for process in itertools.islice(_processes(root), PROCESSES_AT_MOST):
        data = read_bytes(process / "auxv")
        found = None if isinstance(data, Unreadable) else procfs.parse_auxv(data)
        try:
            found = found or procfs.parse_smaps(read_head(process / "smaps") or "")
        except procfs.ParseError:
            continue
        if found:
            return found
    return None


def _processes(root: Path) -> Iterator[Path]:
    yield root / "self"
    try:
        # Directory order varies: the same tree must give the same answer.
        processes = [path for path in root.iterdir() if path.name.isascii() and path.name.isdecimal()]
    except OSError:
        return
    yield from sorted(processes, key=lambda path: (len(path.name), path.name))


def _from_free_memory(root: Path, meminfo: dict[str, int]) -> int | None:
    try:
        return procfs.infer_page_size(read_head(root / "vmstat") or "", meminfo)
    except procfs.ParseError:
        return None
