"""How many threads the service needs and may have: the unit's TasksMax=, a cgroup's pids.max.

Mirrors the kernel's admin-guide/cgroup-v2.rst and cgroup-v1/pids.rst, and proc_pid_cgroup(5), of which a sample is::

    0::/system.slice/sockmem-agent.service
"""

from pathlib import Path

from agent.core.settings import SourceSettings

# A courier, and the thread of its POST.
EACH_CHANNEL = 2


def needed(source: SourceSettings, channels: int) -> int:
    """Return how many threads the service has at most; the source has ``auto`` resolved."""
    # watchdog has one, and two a directory; the journal and /dev/kmsg are read without any.
    watching = 1 + 2 * len({Path(path).parent for path in source.paths}) if source.kind == "file" else 0
    # Main, the survey, and the one that enters another network namespace.
    return 3 + watching + EACH_CHANNEL * channels


def allowed(root: Path = Path("/")) -> int | None:
    """Read the limit of this process's cgroup; None if there is none, or it cannot be read."""
    try:
        lines = (root / "proc/self/cgroup").read_text(errors="surrogateescape").splitlines()
    except OSError:
        return None
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers in {"", "pids"}:
            limit = root / "sys/fs/cgroup" / controllers / path.lstrip("/") / "pids.max"
            try:
                return int(limit.read_text())
            except (OSError, ValueError):  # "max" is no number.
                continue
    return None
