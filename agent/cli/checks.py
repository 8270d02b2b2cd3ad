"""What ``doctor`` looks at: each check reads one thing of this host and says ok, warn or fail, with the mend.

Mirrors adjtimex(2), sock_diag(7), cgroups(7), and net/core/sysctl_net_core.c for the limiter of network messages.
"""

import ctypes
import os
import shutil
import socket
import struct
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from agent.cli.checks_logging import journal_drops_info, syslog_writes
from agent.cli.faults import directory_fault, kind_of, me, read_fault, way_fault
from agent.cli.unit import Unit
from agent.config.load import mask_url
from agent.core.format import bytes_text
from agent.core.settings import ChannelSettings, SourceSettings, StoreSettings
from agent.sources.choose import has_bindings, runs_systemd
from agent.store import owner, unusable

Status = Literal["ok", "warn", "fail"]
BELOW = "add the lines below to the unit"
CONTENTS = {"cursor.json": "file", "lock": "file", "incidents": "directory", "history": "directory"}
FIRST_YEAR = 2024
NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY, REQUEST_DUMP = 4, 20, 0x301
NLMSG_ERROR = 2
STA_UNSYNC = 0x40


class Check(msgspec.Struct, frozen=True):
    """One line of the doctor; ``drop_in`` is what to add to the unit for more."""

    name: str
    status: Status
    detail: str
    mend: str = ""
    drop_in: tuple[str, ...] = ()


class Timex(ctypes.Structure):
    """The beginning of struct timex; the rest is room for the kernel to write into."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("numbers", ctypes.c_long * 4),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_char * 512),
    )


def check_source(
    configured: SourceSettings, chosen: SourceSettings, root: Path = Path("/"), service: Unit | None = None
) -> Check:
    """Check that the source can be read, and is not hidden by the unit; ``chosen`` has ``auto`` resolved."""
    how = " (chosen by auto)" if configured.kind == "auto" else ""
    paths = {"file": chosen.paths, "journal": (chosen.directory,), "kmsg": ("/dev/kmsg",)}[chosen.kind]
    for key, lines in service.hiding(paths).items() if service else ():
        detail = f"the service does not see {', '.join(filter(None, paths))} ({key}=)"
        return Check("source", "fail", detail, BELOW, drop_in=lines)
    if chosen.kind == "file":
        return _check_files(chosen.paths, how)
    if chosen.kind == "journal":
        return _check_journal(chosen.directory, how, root)
    try:
        os.close(os.open(root / "dev/kmsg", os.O_RDONLY | os.O_NONBLOCK))
    except OSError as error:
        mend = "give the service AmbientCapabilities=CAP_SYSLOG, or set [source] kind"
        return Check("source", "fail", f"/dev/kmsg{how}: {error.strerror}", mend)
    return Check("source", "ok", f"/dev/kmsg{how} can be read")


def check_bindings(configured: SourceSettings) -> list[Check]:
    """Warn where ``auto`` would be the journal if this Python could read it."""
    if configured.kind != "auto" or not runs_systemd() or has_bindings():
        return []
    python = "python{}.{}".format(*sys.version_info)
    detail = f"not followed: {python} cannot read it without the systemd bindings; a log's lines prove less"
    mend = f"{python} -m pip install systemd-python (it needs gcc and the headers of {python} and systemd)"
    return [Check("journal", "warn", detail, mend)]


def _check_files(paths: tuple[str, ...], how: str) -> Check:
    faults = [fault for path in paths if (fault := read_fault(Path(path)))]
    if not faults:
        return Check("source", "ok", f"{', '.join(paths)}{how} can be read")
    mend = next((fault.fix for fault in faults if fault.fix), "name the right logs in [source] paths")
    status: Status = "fail" if len(faults) == len(paths) else "warn"
    return Check("source", status, "; ".join(fault.what for fault in faults), mend)


def _check_journal(directory: str, how: str, root: Path) -> Check:
    places = [Path(directory)] if directory else [root / "run/log/journal", root / "var/log/journal"]
    files = [path for place in places if place.is_dir() for path in place.glob("**/*.journal")]
    readable = [path for path in files if os.access(path, os.R_OK)]
    where = directory or "the journal"
    if readable:
        return Check("source", "ok", f"{where}{how} can be read, {len(readable)} of {len(files)} files")
    if files:
        mend = f"usermod -aG systemd-journal {me()}"
        return Check("source", "fail", f"{where}{how}: {me()} may read none of its {len(files)} files", mend)
    mend = "set [source] kind to file or kmsg, or see systemctl status systemd-journald"
    return Check("source", "fail", f"{where}{how}: no journal files in {' or '.join(map(str, places))}", mend)


def check_log_level(chosen: SourceSettings, root: Path = Path("/"), proc_root: Path = Path("/proc")) -> Check:
    """Check that nothing between the kernel and the source drops a line of level info."""
    name = "log level"
    burst, cost = (_number(proc_root / f"sys/net/core/message_{word}") for word in ("burst", "cost"))
    if burst == 0 and cost != 0:
        mend = "sysctl -w net.core.message_burst=10"
        return Check(name, "fail", "net.core.message_burst is 0: the kernel prints no network message at all", mend)
    if chosen.kind == "kmsg":
        return Check(name, "ok", "/dev/kmsg has every level")
    if chosen.kind == "journal":
        return _check_journald(name, chosen.directory, root)
    written = [(syslog_writes(root, path), path) for path in chosen.paths]
    for verdict, path in written:
        if verdict is False:
            mend = f"add a line 'kern.info {path}' to a file in /etc/rsyslog.d and restart rsyslog"
            return Check(name, "fail", f"rsyslog does not write the kernel's info lines into {path}", mend)
    if all(verdict for verdict, _ in written):
        return Check(name, "ok", f"rsyslog writes the kernel's info lines into {', '.join(chosen.paths)}")
    path = next(path for verdict, path in written if not verdict)
    mend = "see to it that the syslog daemon reads the kernel (rsyslog: imklog) and writes kern.info there"
    return Check(name, "warn", f"cannot tell whether the kernel's info lines reach {path}", mend)


def _check_journald(name: str, directory: str, root: Path) -> Check:
    if directory:
        return Check(name, "warn", f"cannot tell for the files in {directory}", "ask the host that writes them")
    setting = journal_drops_info(root)
    if setting is None:
        return Check(name, "ok", "journald stores the kernel's info lines")
    mend = "take the setting out of journald.conf (see systemd-analyze cat-config systemd/journald.conf)"
    return Check(name, "fail", f"journald does not store the kernel's info lines: {setting}", mend)


def check_state(directory: Path, settings: StoreSettings, service: Unit | None = None) -> Check:
    """Check that all in the state directory can be used, that it takes a file and has room; nothing is left behind."""
    name = "state directory"
    fault = way_fault(directory)
    is_absent = fault is not None and not os.path.lexists(directory) and not fault.fix
    home = next(path for path in (directory, *directory.parents) if path.exists()) if is_absent else directory
    is_systemds = service is not None and directory == service.state_directory()
    if is_absent and is_systemds:
        return Check(name, "ok", f"{directory} will be made by systemd")
    if is_absent and not os.access(home, os.W_OK | os.X_OK):
        mend = f"install -d -m 0750 -o {me()} {directory}"
        return Check(name, "fail", f"{directory} is not there, and {me()} may not make it in {home}", mend)
    fault = (None if is_absent else fault) or directory_fault(home)
    if fault:
        return Check(name, "fail", *fault)
    if service and not is_systemds and not service.lets_write(directory):
        return _closed(name, directory)
    return _check_contents(name, directory, home, settings)


def _check_contents(name: str, directory: Path, home: Path, settings: StoreSettings) -> Check:
    paths = list(unusable(directory)) if home == directory else []
    if paths:
        others, verb = (f" and {len(paths) - 1} more", "belong") if len(paths) > 1 else ("", "belongs")
        if owner(paths[0]) == me():
            detail = f"{paths[0]}{others}: the mode keeps out the owner, {me()}"
            return Check(name, "fail", detail, f"chmod -R u+rwX {directory}")
        detail = f"{paths[0]}{others} {verb} to {owner(paths[0])}, not to {me()}"
        return Check(name, "fail", detail, f"chown -hR {me()}: {directory}")
    for path, kind in ((directory / inside, kind) for inside, kind in CONTENTS.items()):
        if os.path.lexists(path) and kind_of(path, follow=False) != kind:
            detail = f"{path} is a {kind_of(path, follow=False)}, not a {kind}: the service will set it aside"
            return Check(name, "warn", detail, f"mv {path} {path}.old")
    free = shutil.disk_usage(home).free
    if free < settings.min_free_bytes:
        detail = f"{directory}: {bytes_text(free)} free, min_free_bytes is more: old incidents will be removed"
        return Check(name, "warn", detail, "make room on that file system, or lower [store] min_free_bytes")
    later = "" if home == directory else ", will be made"
    return Check(name, "ok", f"{directory} can be written to{later}, {bytes_text(free)} free")


def check_textfile(path: Path, service: Unit | None = None) -> Check:
    """Check that the file of the metrics can be written aside and renamed, and that the unit lets the service do so."""
    name = "metrics file"
    folder = path.parent
    fault = way_fault(folder)
    if fault is None and folder.is_dir() and not os.access(folder, os.W_OK | os.X_OK):
        # It is another program's directory: no reason to take it away.
        detail = f"{me()} may not write into {folder}, which belongs to {owner(folder)}"
        return Check(name, "fail", detail, f"setfacl -m u:{me()}:rwx {folder}")
    fault = fault or directory_fault(folder)
    if fault:
        return Check(name, "fail", fault.what, fault.fix or f"install -d -o {me()} {folder}, or name another")
    if service and not service.lets_write(folder):
        return _closed(name, folder)
    return Check(name, "ok", f"{path} can be written")


def _closed(name: str, directory: Path) -> Check:
    lines = ("[Service]", f"ReadWritePaths={directory}")
    detail = f"{directory} is read-only for the service (ProtectSystem=strict)"
    return Check(name, "fail", detail, BELOW, drop_in=lines)


def check_proc(proc_root: Path = Path("/proc")) -> Check:
    """Check that the gauges and the limits are there; in a network namespace of its own the limits are not."""
    name = "/proc"
    try:
        text = (proc_root / "net/sockstat").read_text()
    except OSError as error:
        return Check(name, "fail", f"{proc_root}/net/sockstat: {error.strerror}", "mount proc; unit: no ProcSubset=pid")
    if "TCP:" not in text:
        return Check(name, "fail", f"{proc_root}/net/sockstat has no TCP line", "run the agent on the host")
    missing = [key for key in ("tcp_mem", "tcp_max_orphans") if not (proc_root / "sys/net/ipv4" / key).is_file()]
    if missing:
        detail = f"net.ipv4.{' and '.join(missing)} not visible: this is not the host's network namespace"
        return Check(name, "warn", detail, "run the agent on the host, or the container with the host's network")
    return Check(name, "ok", "sockstat, tcp_mem and tcp_max_orphans can be read")


def check_sock_diag() -> Check:
    """Ask the kernel for the TCP sockets in no state at all: an empty answer, but an answer."""
    name = "sock_diag"
    header = struct.Struct("=IHHII")
    query = struct.pack("=BBBBI48x", socket.AF_INET, socket.IPPROTO_TCP, 0, 0, 0)
    mend = "modprobe tcp_diag; unit: RestrictAddressFamilies has to allow AF_NETLINK"
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_SOCK_DIAG) as diag:
            diag.settimeout(2)
            diag.send(header.pack(header.size + len(query), SOCK_DIAG_BY_FAMILY, REQUEST_DUMP, 1, 0) + query)
            answer = diag.recv(65_536)
    except OSError as error:
        return Check(name, "warn", f"no answer: {error.strerror or error}", mend)
    if header.unpack_from(answer)[1] == NLMSG_ERROR:
        (code,) = struct.unpack_from("=i", answer, header.size)
        return Check(name, "warn", f"refused: {os.strerror(-code)}", mend)
    return Check(name, "ok", "the kernel tells about TCP sockets")


def check_cgroup(root: Path = Path("/")) -> Check:
    """Check that there are cgroup v2 ids by which sockets are assigned to services and containers."""
    for place in (root / "sys/fs/cgroup", root / "sys/fs/cgroup/unified"):
        if (place / "cgroup.controllers").is_file():
            return Check("cgroup ids", "ok", f"cgroup v2 is mounted at {place}")
    mend = "boot with systemd.unified_cgroup_hierarchy=1, or mount cgroup2 at /sys/fs/cgroup"
    return Check("cgroup ids", "warn", "no cgroup v2: sockets cannot be assigned to services", mend)


def check_clock(now: datetime | None = None) -> Check:
    """Check that the clock is set and, where the kernel says, that it is synchronised."""
    now = now or datetime.now(timezone.utc)
    mend = "timedatectl set-ntp true, or install chrony"
    if now.year < FIRST_YEAR:
        return Check("clock", "fail", f"the clock says {now.year}; incidents would be misdated", mend)
    timex = Timex()
    if ctypes.CDLL(None).adjtimex(ctypes.byref(timex)) >= 0 and timex.status & STA_UNSYNC:
        return Check("clock", "warn", f"{now:%Y-%m-%d %H:%M:%S} UTC, not synchronized according to the kernel", mend)
    return Check("clock", "ok", f"{now:%Y-%m-%d %H:%M:%S} UTC")


def check_channel(channel: ChannelSettings) -> Check:
    """Check one channel, whose settings have been found well-formed: a secret should not travel in the clear."""
    name = f"channel {channel.name}"
    urls = channel.addresses
    shown = " ".join([channel.type, *map(mask_url, urls)])
    clear = [url for url in urls if urlsplit(url).scheme == "http" and not _is_near(urlsplit(url).hostname or "")]
    if clear and channel.type != "alertmanager":
        return Check(name, "warn", f"{shown}: sent in the clear", "use https://")
    return Check(name, "ok", shown)


def _is_near(host: str) -> bool:
    return host in {"localhost", "::1"} or host.startswith("127.")


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
