"""Why a path cannot be used, and the fix: the first obstacle on the way from the root directory.

Mirrors path_resolution(7) and access(2). Samples::

    /var/lib/sockmem-agent is a FIFO, not a directory; fix: mv /var/lib/sockmem-agent /var/lib/sockmem-agent.old
    /srv/state is a loop of symbolic links; fix: rm /srv/state
"""

import errno
import grp
import os
import stat
import tempfile
from pathlib import Path
from typing import NamedTuple

from agent.store import owner, user

# By the first character of ls -l.
_KINDS = {
    "-": "file", "d": "directory", "p": "FIFO", "s": "socket", "b": "block device", "c": "device", "l": "symbolic link"
}  # fmt: skip


class Fault(NamedTuple):
    """What is wrong, and how to fix it."""

    what: str
    fix: str


def kind_of(path: Path, *, follow: bool = True) -> str:
    """Return what a path leads to: "directory", "FIFO"."""
    return _KINDS[stat.filemode(path.stat(follow_symlinks=follow).st_mode)[0]]


def is_missing(path: Path) -> bool:
    """Return whether a path leads nowhere; one behind a closed directory may lead somewhere."""
    try:
        path.stat()
    except PermissionError:
        return False
    except OSError:
        return True
    return False


def way_fault(path: Path) -> Fault | None:
    """Find what keeps a path from being reached; None if it leads to something of any kind."""
    for step in (*reversed(path.parents), path):
        try:
            mode = step.stat().st_mode
        except OSError as error:
            return _step_fault(step, error)
        if step != path and not stat.S_ISDIR(mode):
            return Fault(f"{step} is a {kind_of(step)}, not a directory", f"mv {step} {step}.old")
    return None


def _step_fault(step: Path, error: OSError) -> Fault:
    if error.errno == errno.ELOOP:
        return Fault(f"{step} is a loop of symbolic links", f"rm {step}")
    if error.errno == errno.EACCES:
        return _access_fault(step.parent, "x", f"{me()} cannot enter {step.parent}")
    if step.is_symlink():
        target = step.readlink()
        return Fault(f"{step} links to {target}, which does not exist", f"rm {step}, or create {target}")
    if error.errno in {errno.ENOENT, errno.ENOTDIR}:
        return Fault(f"{step} does not exist", "")
    return Fault(f"{step}: {error.strerror}", "see dmesg")


def read_fault(path: Path) -> Fault | None:
    """Return why this process cannot read a regular file."""
    return _file_fault(path, os.R_OK, "r", "read")


def family_fault(log: Path) -> Fault | None:
    """Return why this process cannot find the rotated files of a log that it can read."""
    for folder in (log.parent, Path(os.path.realpath(log)).parent):
        if not os.access(folder, os.R_OK):
            fault = _access_fault(folder, "r", f"{me()} cannot list {folder}")
            return fault._replace(what=f"{fault.what}: lines may be lost when a log in it is rotated")
    return None


def run_fault(path: Path) -> Fault | None:
    """Return why this process cannot execute a program."""
    return _file_fault(path, os.X_OK, "x", "execute")


def _file_fault(path: Path, mode: int, right: str, verb: str) -> Fault | None:
    fault = way_fault(path)
    if fault:
        return fault
    if not path.is_file():
        return Fault(f"{path} is a {kind_of(path)}, not a file", "")
    return None if os.access(path, mode) else _access_fault(path, right, f"{me()} cannot {verb} {path}")


def directory_fault(path: Path) -> Fault | None:
    """Return why no file can be created in a directory; try it, and leave nothing behind."""
    if not path.is_dir():
        return Fault(f"{path} is a {kind_of(path)}, not a directory", f"mv {path} {path}.old")
    try:
        with tempfile.TemporaryFile(dir=path) as file:
            file.write(b"x")
            file.flush()
    except OSError as error:
        return _write_fault(path, error)
    return None


def _write_fault(path: Path, error: OSError) -> Fault:
    if error.errno == errno.EROFS:
        mount = next(each for each in (path, *path.parents) if each.is_mount())
        return Fault(f"{path} is on a file system that is mounted read-only", f"mount -o remount,rw {mount}")
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return Fault(f"{path}: no space left", f"free some (df -h {path}; df -i {path}), or raise the quota")
    if error.errno == errno.EPERM:
        what = f"no file can be created in {path}, although its mode allows it"
        return Fault(what, f"chattr -i {path} (see lsattr -d)")
    if error.errno != errno.EACCES:
        return Fault(f"{path}: {error.strerror}", "see dmesg")
    return ownership_fault(path, path)


def ownership_fault(path: Path, tree: Path, others: str = "") -> Fault:
    """Return whose a path is that this process cannot use, with ``others`` in the same tree."""
    if owner(path) == me():
        return Fault(f"{path}{others}: its mode denies access to its owner, {me()}", f"chmod -R u+rwX {tree}")
    verb = "belong" if others else "belongs"
    return Fault(f"{path}{others} {verb} to {owner(path)}, not to {me()}", f"chown -hR {me()}: {tree}")


def _access_fault(path: Path, right: str, what: str) -> Fault:
    """Find the least invasive fix: membership in the file's group if the group has this right, else a new mode."""
    status = path.stat()
    bit = {"r": stat.S_IRGRP, "x": stat.S_IXGRP}[right]
    group = group_name(status.st_gid)
    what += f" ({owner(path)}:{group}, mode {status.st_mode & 0o7777:04o})"
    if status.st_mode & bit and status.st_gid != 0 and not group.startswith("gid "):
        return Fault(what, f"usermod -aG {group} {me()}")
    return Fault(what, f"chmod o+{right} {path}, or setfacl -m u:{me()}:{right} {path}")


def group_name(gid: int) -> str:
    """Return the name of a group."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return f"gid {gid}"


def me() -> str:
    """Return the user of this process."""
    return user(os.geteuid())
