"""Whether the service sees in the kernel's trace who is killed and who is refused memory, and if not, why: one check.

The unit's drop-in witness.conf makes the trace for the time in which the service runs, and shows it to nobody else. So
root tries out what this kernel can by making the same for a moment under another name, and a running service is looked
at through /proc/PID/root, and by what it has open: a trace has one reader.
"""

import os
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

from agent.cli.checks import Check
from agent.cli.unit import UNIT, Unit, ask
from agent.core.format import printable
from agent.core.kernel.tracing import REFUSAL_EVENT
from agent.core.readings import Gap
from agent.probe.owners import process_ids, read_process
from agent.probe.pagesize import PROC
from agent.probe.witness import HOST, NO_REASON, SERVICE, Instances, Reader, own_instances

NAME = "witness"
SHIPPED = "/usr/lib/sockmem-agent/witness.conf"
RESTART = "systemctl daemon-reload && systemctl restart sockmem-agent"
ENABLE = f"install -D -m 0644 -t /etc/systemd/system/{UNIT}.d {SHIPPED} && {RESTART}"
# What the drop-in adds to the unit; prefixes like "+" are left out.
LINES = (
    ("ExecStartPre", "/usr/bin/sockmem-agent witness start"),
    *(("BindReadOnlyPaths", f"{path}:{place}") for path, place in zip(HOST, SERVICE, strict=True)),
    ("ExecStopPost", "/usr/bin/sockmem-agent witness stop"),
)


def check_witness(service: Unit | None) -> Check:
    """Check what the service sees of the trace; without the drop-in that is nothing, which is no failure."""
    missing = [key for key, value in LINES if service is None or not _has(service, key, value)]
    if len(missing) == len(LINES):
        detail = "off; it would name each connection that the kernel kills, and show refusals that are not logged"
        return Check(NAME, "ok", detail, ENABLE)
    if missing:
        return Check(NAME, "warn", f"the unit lacks lines of {SHIPPED}: {', '.join(dict.fromkeys(missing))}", ENABLE)
    if os.geteuid() != 0:
        return Check(NAME, "ok", "on; only root can check what the service sees", "sudo sockmem-agent doctor")
    gaps = _try_out()
    cannot = next((gap.why for gap in gaps if gap.why != NO_REASON), None)
    if cannot:
        return Check(NAME, "warn", f"this host shows no trace: {cannot}", "see docs/witness.md: where it does not work")
    pid = ask_main_pid()
    seen = f"on: refusals, no kills: {NO_REASON}" if gaps else "on: kills and refusals"
    return check_running(pid, seen, sees_kills=not gaps) if pid else Check(NAME, "ok", seen)


def _has(service: Unit, key: str, value: str) -> bool:
    return any(setting.value.lstrip("-+") == value for setting in service.all(key))


def ask_main_pid() -> int | None:
    """Ask systemd for the process of the running service; one that is just starting has not opened its trace."""
    said = ""
    with suppress(OSError):
        said = ask("systemctl", "show", UNIT, "--property=ActiveState,MainPID").decode()
    facts = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
    return int(facts["MainPID"]) if facts.get("ActiveState") == "active" else None


def _try_out() -> tuple[Gap, ...]:
    """Return what cannot be witnessed on this host, made and opened as for the service."""
    with own_instances() as (them, gaps), closing(Reader(them)) as reader:
        return gaps or reader.gaps()


def check_running(pid: int, seen: str, *, sees_kills: bool, root: Path | None = None) -> Check:
    """Check that the running service is shown its trace, and is the one that reads it."""
    view = Instances(*((root or PROC / str(pid) / "root") / place.relative_to("/") for place in SERVICE))
    pipes = [_identity(path / "trace_pipe") for path in (view if sees_kills else (view.refusals,))]
    if None in pipes:
        return Check(NAME, "warn", "the service runs without its trace", f"{RESTART}; see journalctl -u sockmem-agent")
    if (view.refusals / "events" / REFUSAL_EVENT / "hist").exists():
        pipes.pop()  # The kernel counts refusals, for any number of readers.
    by = dict(_readers(set(pipes)))
    others = ", ".join(f"{name} (PID {other})" for other, name in by.items() if other != pid)
    if others:
        detail = f"in use by {others}: only one program can read it, and the service gets nothing"
        return Check(NAME, "warn", detail, "end that program; the service then resumes")
    if pipes and pid not in by:
        return Check(
            NAME, "warn", "the service has not opened its trace", f"{RESTART}; see journalctl -u sockmem-agent"
        )
    return Check(NAME, "ok", f"{seen}; in use by the service itself" if by else seen)


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what a file is, whatever a mount calls it."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _readers(pipes: set[tuple[int, int] | None]) -> Iterator[tuple[int, str]]:
    """Name the processes that have one of these files open."""
    for pid in process_ids(PROC):
        try:
            files = list((PROC / str(pid) / "fd").iterdir())
        except OSError:
            continue
        if any(_is_pipe(file) and _identity(file) in pipes for file in files):
            yield pid, printable(read_process(PROC, pid).name)


def _is_pipe(file: Path) -> bool:
    """Look by its name alone: to look at a file of a server that is gone may take for ever."""
    with suppress(OSError):
        return file.readlink().name.startswith("trace_pipe")
    return False
