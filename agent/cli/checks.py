"""The checks of ``doctor``: each reads one thing as the service does and returns ok, warn or fail, with a fix.

Mirrors adjtimex(2), cgroups(7), journald.conf(5), and net/core/sysctl_net_core.c for the limiter of network messages.
Of rsyslog.conf(5) only the usual rules are understood, such as ::

    *.info;mail.none;authpriv.none;cron.none    -/var/log/messages
    kern.*                                      action(type="omfile" file="/var/log/kern.log")
"""

import ctypes
import os
import re
import shutil
import stat
import sys
import time
from collections import deque
from collections.abc import Callable
from configparser import Error, RawConfigParser
from contextlib import closing, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import msgspec
from msgspec.structs import asdict, replace

from agent.cli.credentials import as_written
from agent.cli.faults import (
    Fault,
    directory_fault,
    family_fault,
    kind_of,
    me,
    ownership_fault,
    read_fault,
    run_fault,
    way_fault,
)
from agent.cli.unit import PATIENCE_SECONDS, Unit, ask
from agent.config.load import SYSTEM_RUNTIME, mask_url
from agent.core.cursor import NOTHING_YET, Cursor
from agent.core.format import bytes_text
from agent.core.readings import Gap
from agent.core.settings import (
    ChannelSettings,
    CommandSettings,
    EmailSettings,
    JournalSettings,
    Settings,
    SourceSettings,
    StoreSettings,
    host_and_port,
    is_near,
)
from agent.core.sockets.census import Census
from agent.core.status import silence_text
from agent.notifiers import ChannelError, build
from agent.notifiers.journal import SOCKET as JOURNALD
from agent.probe import sockdiag, take_snapshot
from agent.probe.namespaces import hides_processes
from agent.probe.owners import unified_root
from agent.probe.pagesize import PROC
from agent.probe.reading import Reading
from agent.probe.snapshot import read_sysctl
from agent.service.status import STATUS_FILE
from agent.sources import Source, describe, local_now, open_source
from agent.sources.choose import choose, has_bindings, runs_systemd
from agent.store import StoreError, owner, read_silence, unusable

Status = Literal["ok", "warn", "fail"]
Opener = Callable[[SourceSettings, Cursor, Callable[[], datetime]], Source]
BELOW = "add the lines below to the unit"
CONTENTS = {"cursor.json": "file", "lock": "file", "incidents": "directory", "history": "directory"}
FIXES = {
    "file": "set [source] paths to the right logs",
    "journal": "usermod -aG systemd-journal {user}; see systemctl status systemd-journald, or set [source] kind",
    "kmsg": "give the service AmbientCapabilities=CAP_SYSLOG, or set [source] kind",
}
FIRST_YEAR = 2024
TIME_ERROR = 5
PYTHON = "python{}.{}".format(*sys.version_info)
BINDINGS_FIX = f"{PYTHON} -m pip install systemd-python (needs gcc and the headers of {PYTHON} and systemd)"
# journald ignores an unknown level.
LEVELS_ABOVE_INFO = {"emerg", "alert", "crit", "err", "warning", "notice", *"012345"}
OFF = {"0", "no", "n", "false", "f", "off"}
# The first selector takes kern.info, and the later ones are about other facilities.
_RULE = (
    r"^\s*(?:kern|\*)\.(?:\*|info|debug)(?:;(?:(?!kern\b)[\w,.=!])*)*\s+"
    r"(?:-?{log}(?:;\S*)?\s*$|action\(.*file=\"{log}\")"
)
_READS_KERNEL = re.compile(r"^[^#]*\b(imklog|imjournal)\b", re.MULTILINE)


class Check(msgspec.Struct, frozen=True, rename={"fix": "mend"}):
    """One line of the doctor; ``drop_in`` has the lines to add to the unit for more."""

    name: str
    status: Status
    detail: str
    fix: str = ""
    drop_in: tuple[str, ...] = ()


def check_host(settings: Settings, service: Unit | None, state: Check) -> list[Check]:
    """Check what the service reads and writes; ``state`` is the check of its directory."""
    chosen = choose(settings.source)
    textfile = settings.metrics.textfile
    return [
        check_source(settings.source, chosen, service=service),
        *check_bindings(settings.source),
        check_log_level(chosen),
        state,
        *([check_status_file(service)] if service else []),
        *([check_textfile(Path(textfile), service)] if textfile else []),
        check_proc(),
        check_sock_diag(),
        check_cgroup(),
    ]


def check_source(
    configured: SourceSettings, chosen: SourceSettings, service: Unit | None = None, opener: Opener = open_source
) -> Check:
    """Open and read the source as the service does; ``chosen`` has ``auto`` resolved. The unit must not hide it."""
    name = "source"
    how = " (chosen by auto)" if configured.kind == "auto" else ""
    paths = {"file": chosen.paths, "journal": (chosen.directory,), "kmsg": ("/dev/kmsg",)}[chosen.kind]
    for key, lines in service.hiding(paths).items() if service else ():
        detail = f"{key}= hides {', '.join(filter(None, paths))} from the service"
        return Check(name, "fail", detail, BELOW, drop_in=lines)
    try:
        with closing(opener(replace(chosen, start="now"), Cursor(), local_now)) as source:
            for _ in range(2):  # Which of a journal's files are skipped is known at the second look.
                deque(source.read(), maxlen=0)
            is_read, gaps = _is_read(source.position()), source.gaps()
    except ImportError as error:
        is_journal = chosen.kind == "journal"
        what, fix = ("read the journal", BINDINGS_FIX) if is_journal else ("run the program", "install it again")
        return Check(name, "fail", f"{PYTHON} cannot {what}: {error}", fix)
    except OSError as error:
        is_read, gaps = False, (Gap(what=describe(chosen), why=error.strerror or str(error)),)
    if is_read and not gaps:
        return Check(name, "ok", f"{describe(chosen)}{how} can be read")
    logs = [Path(path) for path in paths] if chosen.kind == "file" else []
    faults = [fault for log in logs if (fault := read_fault(log) or family_fault(log))]
    why = [fault.what for fault in faults] or [f"{gap.what}: {gap.why}" for gap in gaps]
    fix = next((fault.fix for fault in faults if fault.fix), FIXES[chosen.kind].format(user=me()))
    return Check(name, "warn" if is_read else "fail", "; ".join(why) or f"{describe(chosen)}{how} has no entry", fix)


def _is_read(position: Cursor) -> bool:
    has_file = any(each.inode for each in position.files.values())
    return has_file or position.kmsg is not None or position.journal not in {None, NOTHING_YET}


def check_bindings(configured: SourceSettings) -> list[Check]:
    """Warn where ``auto`` would be the journal if this Python could read it."""
    if configured.kind != "auto" or not runs_systemd() or has_bindings():
        return []
    detail = f"not followed: {PYTHON} lacks the systemd bindings; the lines of a text log are unverified"
    return [Check("journal", "warn", detail, BINDINGS_FIX)]


def check_log_level(chosen: SourceSettings, proc_root: Path = PROC, root: Path = Path("/")) -> Check:
    """Check that nothing between the kernel and the source drops a line of level info."""
    name = "log level"
    burst, cost = (read_sysctl(Reading(proc_root), f"net.core.message_{word}") for word in ("burst", "cost"))
    if burst == (0,) and cost != (0,):
        fix = "sysctl -w net.core.message_burst=10"
        return Check(name, "fail", "net.core.message_burst is 0: the kernel prints no network messages", fix)
    if chosen.kind == "kmsg":
        return Check(name, "ok", "/dev/kmsg has every level")
    if chosen.kind == "journal":
        return _check_journald(name, chosen.directory, root)
    unclear = [path for path in chosen.paths if not syslog_writes(root, path)]
    if not unclear:
        return Check(name, "ok", f"rsyslog writes kern.info to {', '.join(chosen.paths)}")
    fix = f"make sure that rsyslog loads imklog and has a line 'kern.info {unclear[0]}'; likewise for other daemons"
    return Check(name, "warn", f"cannot tell whether kern.info messages reach {', '.join(unclear)}", fix)


def _check_journald(name: str, directory: str, root: Path) -> Check:
    if directory:
        fix = "check MaxLevelStore= on the host that writes them"
        return Check(name, "warn", f"unknown for the journal files in {directory}", fix)
    try:
        setting = journal_drops_info(root)
    except (OSError, Error) as error:
        why = str(error).partition("\n")[0]
        return Check(name, "warn", f"cannot tell what journald stores: {why}", "see man journald.conf")
    if setting is None:
        return Check(name, "ok", "journald stores kern.info messages")
    fix = "remove the setting from journald.conf (see systemd-analyze cat-config systemd/journald.conf)"
    return Check(name, "fail", f"journald drops kern.info messages: {setting}", fix)


def journal_drops_info(root: Path) -> str | None:
    """Name the setting that keeps journald of the host at ``root`` from storing kern.info; raises OSError and Error."""
    settings = RawConfigParser(strict=False, delimiters=("=",), allow_no_value=True)
    text = ask("systemd-analyze", "cat-config", f"--root={root}", "systemd/journald.conf")
    settings.read_string(text.decode(errors="replace"))
    storage, reads, level = (
        settings.get("Journal", key, fallback=None) or "" for key in ("Storage", "ReadKMsg", "MaxLevelStore")
    )
    if storage.lower() == "none":
        return "Storage=none"
    if reads.lower() in OFF:
        return "ReadKMsg=no"
    return f"MaxLevelStore={level}" if level.lower() in LEVELS_ABOVE_INFO else None


def syslog_writes(root: Path, log: str) -> bool:
    """Return whether a usual rule of rsyslog on the host at ``root`` writes kern.info to ``log``."""
    text = ""
    for path in (root / "etc/rsyslog.conf", *sorted((root / "etc/rsyslog.d").glob("*.conf"))):
        with suppress(OSError):  # One that is not there, or that this user may not read.
            text += path.read_text(errors="replace") + "\n"
    rule = _RULE.replace("{log}", re.escape(log))
    return bool(_READS_KERNEL.search(text) and re.search(rule, text, re.MULTILINE))


def check_state(directory: Path, settings: StoreSettings, service: Unit | None = None) -> Check:
    """Check that the state directory and everything in it is usable and has space; leave nothing behind."""
    name = "state directory"
    fault = way_fault(directory)
    is_absent = fault is not None and not os.path.lexists(directory) and not fault.fix
    home = next(path for path in (directory, *directory.parents) if path.exists()) if is_absent else directory
    is_systemds = service is not None and directory == service.state_directory()
    if is_absent and is_systemds:
        return Check(name, "ok", f"{directory} will be created by systemd")
    if is_absent and not os.access(home, os.W_OK | os.X_OK):
        fix = f"install -d -m 0750 -o {me()} {directory}"
        return Check(name, "fail", f"{directory} does not exist, and {me()} cannot create it in {home}", fix)
    fault = (None if is_absent else fault) or directory_fault(home)
    if fault:
        return Check(name, "fail", *fault)
    if service and not is_systemds and not service.lets_write(directory):
        return _closed(name, directory)
    return _check_contents(name, directory, home, settings)


def _check_contents(name: str, directory: Path, home: Path, settings: StoreSettings) -> Check:
    paths = list(unusable(directory)) if home == directory else []
    if paths:
        others = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
        return Check(name, "fail", *ownership_fault(paths[0], directory, others))
    for path, kind in ((directory / inside, kind) for inside, kind in CONTENTS.items()):
        if os.path.lexists(path) and kind_of(path, follow=False) != kind:
            detail = f"{path} is a {kind_of(path, follow=False)}, not a {kind}: the service will set it aside"
            return Check(name, "warn", detail, f"mv {path} {path}.old")
    free = shutil.disk_usage(home).free
    if free < settings.min_free_bytes:
        detail = f"{directory}: {bytes_text(free)} free, less than min_free_bytes: old incidents will be removed"
        return Check(name, "warn", detail, "free space on that file system, or lower [store] min_free_bytes")
    state = "is writable" if home == directory else "will be created"
    return Check(name, "ok", f"{directory} {state}, {bytes_text(free)} free")


def check_silence(directory: Path) -> list[Check]:
    """Warn of a silence in effect, or of a file that cannot be read and silences nothing."""
    fix = "sudo sockmem-agent silence --end"
    try:
        silence, now = read_silence(directory), local_now()
    except StoreError as error:
        return [Check("silence", "warn", f"nothing is silenced: {error}", fix)]
    if silence is None or not silence.is_on(now):
        return []
    return [Check("silence", "warn", f"notifications are held back {silence_text(silence, now)}", fix)]


def check_textfile(path: Path, service: Unit | None = None) -> Check:
    """Check that the service can write the metrics file aside and rename it, and that the unit allows it."""
    name = "metrics file"
    folder = path.parent
    fault = way_fault(folder)
    if service and folder == service.runtime_directory() and not folder.exists():
        return Check(name, "ok", f"{folder} will be created by systemd")
    if fault is None and folder.is_dir() and not os.access(folder, os.W_OK | os.X_OK):
        # Another program's directory keeps its owner.
        detail = f"{me()} cannot write to {folder}, which belongs to {owner(folder)}"
        return Check(name, "fail", detail, f"setfacl -m u:{me()}:rwx {folder}")
    fault = fault or directory_fault(folder)
    if fault:
        return Check(name, "fail", fault.what, fault.fix or f"install -d -o {me()} {folder}, or choose another")
    if service and not service.lets_write(folder):
        return _closed(name, folder)
    unseen = _unseen(path)
    return Check(name, "warn", *unseen) if unseen else Check(name, "ok", f"{path} is writable")


def _unseen(path: Path) -> Fault | None:
    """Return why node_exporter does not read the metrics."""
    if path.suffix != ".prom":
        what = f"node_exporter ignores {path}: its name does not end in .prom"
        return Fault(what, f'set [metrics] textfile = "{path.with_suffix(".prom")}"')
    for folder in reversed(path.parents):
        if not folder.stat().st_mode & stat.S_IXOTH:
            what = f"node_exporter cannot read {path}: other users cannot enter {folder}"
            return Fault(what, f'set [metrics] textfile = "{SYSTEM_RUNTIME}/{path.name}"')
    return None


def check_status_file(service: Unit) -> Check:
    """Check that systemd makes a directory for status.json that every user can read."""
    name, folder = "status file", service.runtime_directory()
    if folder:
        return Check(name, "ok", f"{folder}/{STATUS_FILE}, for every user")
    lines = ("[Service]", "RuntimeDirectory=sockmem-agent", "RuntimeDirectoryMode=0755", "RuntimeDirectoryPreserve=yes")
    detail = f"the unit has no RuntimeDirectory=: {STATUS_FILE} is written to the state directory, for its group only"
    return Check(name, "warn", detail, BELOW, drop_in=lines)


def _closed(name: str, directory: Path) -> Check:
    lines = ("[Service]", f"ReadWritePaths={directory}")
    detail = f"{directory} is read-only for the service (ProtectSystem=strict)"
    return Check(name, "fail", detail, BELOW, drop_in=lines)


def check_proc(proc_root: Path = PROC) -> Check:
    """Take the service's snapshot of /proc; without sockstat there is nothing to watch."""
    snapshot = take_snapshot(proc_root, local_now(), "command", cgroup_root=None)
    if not snapshot.gaps and hides_processes(proc_root):
        fix = "mount /proc without hidepid=, or with gid= of a group that the service is in (SupplementaryGroups=)"
        return Check("/proc", "warn", "hidepid= hides other users' processes: no container or program is named", fix)
    if not snapshot.gaps:
        return Check("/proc", "ok", "sockstat, tcp_mem, tcp_max_orphans and the counters can be read")
    detail = "; ".join(f"{gap.what}: {gap.why}" for gap in snapshot.gaps)
    fix = "remove ProcSubset=pid from the unit; in a container, use the host's network, or run on the host"
    return Check("/proc", "fail" if snapshot.sockstat is None else "warn", detail, fix)


def check_sock_diag() -> Check:
    """Dump the TCP sockets of this network namespace as the service does."""
    gaps = dump_sockets(Census())
    if gaps:
        fix = "modprobe tcp_diag; the unit's RestrictAddressFamilies= must allow AF_NETLINK"
        return Check("sock_diag", "warn", gaps[0].why, fix)
    return Check("sock_diag", "ok", "the kernel lists the TCP sockets")


def dump_sockets(census: Census) -> list[Gap]:
    """Count the sockets of this network namespace; return why that could not be done."""
    netlink = sockdiag.open_socket()
    if isinstance(netlink, Gap):
        return [netlink]
    with netlink:
        return sockdiag.dump(netlink, census, time.monotonic() + PATIENCE_SECONDS)


def check_cgroup(proc_root: Path = PROC) -> Check:
    """Check that cgroup v2, whose ids attribute sockets to services and containers, is mounted."""
    place = unified_root(proc_root)
    if place:
        return Check("cgroup ids", "ok", f"cgroup v2 is mounted at {place}")
    fix = "boot with systemd.unified_cgroup_hierarchy=1, or mount cgroup2 at /sys/fs/cgroup"
    return Check("cgroup ids", "warn", "no cgroup v2: sockets cannot be attributed to services", fix)


def check_clock(now: datetime | None = None) -> Check:
    """Check that the clock is set and, as far as the kernel knows, synchronized."""
    now = now or datetime.now(timezone.utc)
    fix = "timedatectl set-ntp true, or install chrony"
    if now.year < FIRST_YEAR:
        return Check("clock", "fail", f"the clock says {now.year}; incidents would be misdated", fix)
    # A struct timex of zeros asks; it is shorter than this.
    if ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512)) == TIME_ERROR:
        return Check("clock", "warn", f"{now:%Y-%m-%d %H:%M:%S} UTC, but the kernel says it is not synchronized", fix)
    return Check("clock", "ok", f"{now:%Y-%m-%d %H:%M:%S} UTC")


def check_channel(channel: ChannelSettings, service: Unit | None = None) -> Check:
    """Check that a channel can work as configured, and does not send a secret unencrypted."""
    name = f"channel {channel.name}"
    program = [channel.command[0]] if isinstance(channel, CommandSettings) else []
    used = [*program, *(value for key, value in asdict(channel).items() if key.endswith("_file") and value)]
    for path in map(as_written, used):
        for key, lines in service.hiding([path]).items() if service else ():
            return Check(name, "fail", f"{key}= hides {path} from the service", BELOW, drop_in=lines)
    if isinstance(channel, JournalSettings) and not Path(JOURNALD).exists():
        return Check(name, "fail", f"{JOURNALD} does not exist: no journald runs here", "use another type of channel")
    fault = next((fault for path in program if (fault := run_fault(Path(path)))), None)
    try:
        build(channel)
    except ChannelError as error:
        fault = Fault(str(error).removeprefix(f"{channel.name}: "), "correct the file, or the key that names it")
    if fault:
        return Check(name, "fail", *fault)
    urls = channel.addresses
    shown = " ".join([channel.type, *program, *map(mask_url, urls)])
    if isinstance(channel, EmailSettings):
        shown += f" {channel.smtp}, tls {channel.tls}"
        if channel.tls == "none" and not is_near(host_and_port(channel.smtp)[0]):
            return Check(name, "warn", f"{shown}: sent unencrypted", 'set tls = "starttls" or "tls"')
    clear = [url for url in urls if urlsplit(url).scheme == "http" and not is_near(urlsplit(url).hostname or "")]
    if clear and channel.type != "alertmanager":
        return Check(name, "warn", f"{shown}: sent unencrypted", "use https://")
    return Check(name, "ok", shown)
