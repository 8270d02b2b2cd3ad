"""What a kernel release says of its arithmetic: the unit of ``mem``, per-CPU reserves, how orphans are counted.

    5.10.0-30-cloud-amd64        2.6.32-431.el6.x86_64        Linux version 6.1.0 (...)

Mirrors sk_prot_mem_limits and __sk_mem_raise_allocated (net/core/sock.c) and tcp_too_many_orphans (net/ipv4/tcp.c).
"""

import re
from typing import NamedTuple

from agent.core.readings import SMALL_PAGE_BYTES

_DEFAULT_RESERVE_BYTES = 1 << 20
_RELEASE = re.compile(r"(?:Linux version )?(\d{1,4})\.(\d{1,4})(?:\.(\d{1,5}))?")
# Architectures and flavors that are built with other pages than 4 KiB: 8, 16 or 64 KiB.
_OTHER_PAGES = re.compile(
    r"(?<![a-z0-9])(?:aarch64|arm64|ppc|powerpc|mips|loong|octeon|[45]kc|ia64|itanium|mckinley|sparc|alpha|hexagon|asahi"
    r"|rpi-2712|(?:8|16|64)k(?![a-z0-9]))",
    re.IGNORECASE,
)


class Kernel(NamedTuple):
    """A kernel release as far as its arithmetic depends on it; ``el`` is the Red Hat major release, if it is one.

    Amazon Linux 1 is made of RHEL 6, and counts as that.
    ``has_reserve_file``: net.core.mem_pcpu_rsv is there. The series that brought it also brought the reserves and took
    the units of 4096 bytes back, so an older release that has the file carries all three.
    """

    version: tuple[int, int, int]
    el: int | None
    has_reserve_file: bool = False

    @property
    def counts_in_4096(self) -> bool:
        """4.10 to 5.19 count ``mem`` in units of 4096 bytes, whatever the page size."""
        return (4, 10) <= self.version[:2] <= (5, 19) and not self.has_reserve_file

    @property
    def reserves_per_cpu(self) -> bool:
        """6.0 and newer keep part of ``mem`` back in per-CPU reserves."""
        return self.version[:2] >= (6, 0) or self.has_reserve_file

    @property
    def tests_memcg(self) -> bool:
        """3.3 to 4.4 (and el7's 3.10) hold a socket in a limited cgroup against the cgroup, not against tcp_mem."""
        return (3, 3) <= self.version[:2] <= (4, 4)

    @property
    def copies_tcp_mem(self) -> bool:
        """3.3 to 3.12 (and el7's 3.10) give each network namespace a tcp_mem, and hold TCP against the host's alone."""
        return (3, 3) <= self.version[:2] < (3, 13)

    @property
    def shares_settings(self) -> bool:
        """Up to 4.4 all network namespaces have one tcp_orphan_retries and tcp_fin_timeout."""
        return self.version[:2] <= (4, 4)

    @property
    def ambiguous_text(self) -> bool:
        """Up to 3.2 both texts are printed for both causes."""
        return self.version[:2] <= (3, 2)

    @property
    def counts_orphans_anew(self) -> bool:
        """5.16 and newer, and 5.10 and 5.15 stable, hold a count against the limit that is up to 100 ms old.

        An older one with the reserves, which are half a year younger, carries that, too.
        """
        return self.version[:2] == (5, 10) or self.version[:2] >= (5, 15) or self.has_reserve_file

    @property
    def has_old_tools(self) -> bool:
        """Whether the tools are of 2011 and before: RHEL 6 and its kin have theirs under newer kernels, too (UEK)."""
        return self.version < (3, 3) or self.el in (5, 6)

    @property
    def approximate_orphans(self) -> bool:
        """2.6.32 as shipped in el6 tests an approximate per-CPU sum of the orphans."""
        return self.version == (2, 6, 32) and self.el == 6  # noqa: PLR2004 - the number is the release's name


def parse_kernel(release: str | None, *, has_reserve_file: bool = False) -> Kernel | None:
    """Read ``uname -r`` or /proc/version ("5.10.0-30-cloud-amd64", "2.6.32-431.el6.x86_64"); None if neither."""
    match = _RELEASE.match((release or "").strip())
    if match is None or release is None:
        return None
    el = re.search(r"\.(?:el(\d{1,2})|amzn1\b)", release)
    major, minor, patch = match.groups(default="0")
    return Kernel((int(major), int(minor), int(patch)), int(el[1] or 6) if el else None, has_reserve_file)


def has_small_pages(release: str | None) -> bool:
    """Return whether pages are 4096 bytes as far as the release says: none that can have others is named in it."""
    return _OTHER_PAGES.search(release or "") is None


def units_per_page(kernel: Kernel | None, page_size_bytes: int | None) -> int | None:
    """How many units of sockstat's ``mem`` are a page, in which the limits of tcp_mem are; None where not known."""
    if kernel is not None and not kernel.counts_in_4096:
        return 1
    if not page_size_bytes or (kernel is None and page_size_bytes != SMALL_PAGE_BYTES):
        return None
    return page_size_bytes // SMALL_PAGE_BYTES or None


def inexact_pages(kernel: Kernel | None, cpus: int | None, page_size_bytes: int | None, reserve: int | None) -> int:
    """How far ``mem`` may be off either way, in pages: CPUs x reserve on 6.0 and newer, else 0; 0, too, if not known.

    ``reserve`` is net.core.mem_pcpu_rsv, in pages; without it the built-in 1 MiB counts.
    """
    if kernel is None or not kernel.reserves_per_cpu or cpus is None:
        return 0
    built_in = _DEFAULT_RESERVE_BYTES // page_size_bytes if page_size_bytes else 0
    return max(cpus, 0) * max(built_in if reserve is None else reserve, 0)


def orphan_error(kernel: Kernel | None, cpus: int | None) -> int:
    """How far the kernel's own orphan count may be off: CPUs x batch of percpu_counter on el6, else 0."""
    if kernel is None or not kernel.approximate_orphans or cpus is None:
        return 0
    return max(cpus, 0) * max(32, 2 * cpus)
