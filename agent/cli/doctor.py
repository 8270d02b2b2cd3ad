"""``sockmem-agent doctor``: check that the service will work on this host, one line per check, with the fix.

Whether another user may write somewhere depends on groups, access lists and mounts; root therefore becomes the
service's user in a child process and asks the kernel. Mirrors systemd.exec(5), User= and credentials(7).
"""

import grp
import multiprocessing
import os
import pwd
import stat
import sys
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from textwrap import wrap
from typing import NamedTuple

import click
import msgspec

from agent.cli import config_option, json_option, unencodable
from agent.cli.checks import BELOW, Check, check_channel, check_clock, check_host, check_silence, check_state
from agent.cli.checks_attribution import Rights, check_reach, read_rights
from agent.cli.checks_witness import check_witness
from agent.cli.common import EX_FAILED
from agent.cli.credentials import NextStart
from agent.cli.faults import group_name, read_fault, way_fault
from agent.cli.printing import console, print_json, to_json
from agent.cli.unit import Unit
from agent.config.load import DEFAULT_PATH, ConfigError, channels, state_directory
from agent.core.format import printable
from agent.core.settings import Settings, UrlChannel

WIDTH = 100
CONFIG_FIX = "see config.example.toml for every key, then run sockmem-agent config check"
CHECKS = msgspec.json.Decoder(list[Check])
# Of the package, or of the virtual environment that the program is installed in.
LIBRARIES = Path(__file__).parents[2]
SYSUSERS = "systemd-sysusers sockmem-agent.conf"
STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


class Identity(NamedTuple):
    """A user with all its groups."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]


@click.command(name="doctor", epilog="Example: sockmem-agent doctor")
@config_option
@json_option
def command(config_path: Path | None, *, as_json: bool) -> None:
    """Check that the service will work on this host: one line per check, ok, warn or fail, with the fix.

    As root, where the service is installed, it checks files as the service user; otherwise as the caller. The lines
    about attribution and the witness, just before the clock, show what the service can see. Exit status: 0 nothing
    failed, 1 otherwise.
    """
    start = NextStart()
    settings, mistakes = load_or_defaults(start, config_path)
    identity, user = find_user(start.service)
    rights = read_rights()
    is_own = os.geteuid() in {0, identity.uid if identity else 0}
    service = start.service if is_own else None  # Other users get a check of their own state directory.
    own = (service.state_directory() if service else None) or ""
    state = state_directory(settings, {"STATE_DIRECTORY": str(own), **os.environ}, os.geteuid())

    def look() -> list[Check]:
        first = mistakes or check_configuration(start, settings, config_path, identity)
        place = check_state(state, settings.store, service)
        return [*first, user, *check_host(settings, start.service, place), *check_silence(state)]

    found = [
        *look_as(identity, look),
        *check_reach(rights),
        check_witness(start.service),
        check_clock(),
        *look_as(identity, lambda: [check_channel(channel, service) for channel in channels(settings)]),
    ]
    checks = list(dict.fromkeys(found))
    good = all(check.status != "fail" for check in checks)
    if as_json:
        service_facts = rights._asdict() | {"capabilities": sorted(rights.capabilities)}
        print_json({"ok": good, "checks": checks, "service": service_facts})
    else:
        _print(checks, rights, identity)
    sys.exit(0 if good else EX_FAILED)


def load_or_defaults(start: NextStart, path: Path | None) -> tuple[Settings, list[Check]]:
    """Load the configuration; if it is broken, return the defaults and a failed check for every mistake."""
    try:
        return start.load(path), []
    except ConfigError as error:
        return Settings(), [_mistake(line) for line in error.errors]


def _mistake(line: str) -> Check:
    """Turn a mistake into a check; lines below the first are the fix: what to add to the unit."""
    said, *lines = line.splitlines()
    if not lines:
        return Check("configuration", "fail", said, CONFIG_FIX)
    detail = said.rpartition("; ")[0]
    return Check("configuration", "fail", detail, BELOW, drop_in=tuple(map(str.strip, lines)))


def check_configuration(
    start: NextStart, settings: Settings, path: Path | None, identity: Identity | None
) -> list[Check]:
    """Check that the service can read the configuration and its secrets, and that other users cannot."""
    name, where = "configuration", path or DEFAULT_PATH
    if path is None and not where.exists():
        return [Check(name, "ok", f"{where} does not exist: the built-in defaults apply")]
    fault = read_fault(where) if path is None else None
    if fault:
        is_closed = way_fault(where) is None and where.is_file()
        return [Check(name, "fail", fault.what, close_to_others(where, identity) if is_closed else fault.fix)]
    _, mistakes = load_or_defaults(start, path) if path is None else (settings, [])
    if mistakes:
        return mistakes
    inline = [channel.name for channel in settings.notify if isinstance(channel, UrlChannel) and not channel.url_file]
    if inline and where.stat().st_mode & stat.S_IROTH:
        detail = f"{where}: any local user can read the URL of {', '.join(inline)}, which is a secret"
        return [Check(name, "warn", detail, f"{close_to_others(where, identity)}, or use url_file")]
    return [Check(name, "ok", str(where))]


def close_to_others(path: Path, identity: Identity | None) -> str:
    """Return the commands after which the service reads a file and other users do not."""
    mode = f"chmod 0640 {path}"
    if identity is None or path.stat().st_uid == identity.uid:
        return mode
    return f"chgrp {group_name(identity.gid)} {path} && {mode}"


def find_user(service: Unit | None) -> tuple[Identity | None, Check]:
    """Find the service user; None where the service is not installed, runs as root, or has no existing user."""
    name = "service user"
    if service is None:
        return None, Check(name, "ok", "the service is not installed on this host")
    if service.is_set("DynamicUser"):
        return None, Check(name, "ok", "systemd allocates one at each start (DynamicUser=)")
    setting = service.last("User")
    if setting is None or setting.value in {"root", "0"}:
        return None, Check(name, "warn", "the service runs as root", "remove User= from the unit's drop-ins")
    missing = f"user {setting.value}"
    groups: dict[str, int] = {}
    try:
        found = pwd.getpwnam(setting.value)
        for group in [*service.words("Group"), *service.words("SupplementaryGroups")]:
            missing = f"group {group}"
            groups[group] = grp.getgrnam(group).gr_gid
    except KeyError:
        return None, Check(name, "fail", f"the {missing} does not exist: the service cannot start", SYSUSERS)
    gid = groups.get(next(iter(service.words("Group")), ""), found.pw_gid)
    every = {*os.getgrouplist(found.pw_name, gid), *groups.values()}
    detail = f"{found.pw_name}, in the groups {', '.join(sorted(map(group_name, every)))}"
    return Identity(found.pw_name, found.pw_uid, gid, tuple(sorted(every))), Check(name, "ok", detail)


def look_as(identity: Identity | None, look: Callable[[], list[Check]]) -> list[Check]:
    """Make the checks as this user, or as the caller if there is none or the caller is not root.

    A user who cannot read the program fails in that alone: whatever else is checked, may be imported late.
    """
    if identity is None or os.geteuid() != 0:
        return look()
    ours, theirs = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=_look_and_answer, args=(identity, look, theirs))
    child.start()
    theirs.close()
    try:
        return CHECKS.decode(ours.recv_bytes())
    except EOFError:
        sys.exit(1)  # The child has printed why.


def _look_and_answer(identity: Identity, look: Callable[[], list[Check]], pipe: Connection) -> None:
    os.setgroups(identity.groups)
    os.setresgid(identity.gid, identity.gid, identity.gid)
    os.setresuid(identity.uid, identity.uid, identity.uid)
    try:
        pipe.send_bytes(to_json(check_program() or look()))
    except UnicodeEncodeError as error:
        sys.exit(unencodable(error))


def check_program() -> list[Check]:
    """Return a failed check if this process, as the service's user, cannot read the program."""
    files = (getattr(module, "__file__", None) or "" for module in tuple(sys.modules.values()))
    closed = next((file for file in files if file.startswith(f"{LIBRARIES}/") and not os.access(file, os.R_OK)), None)
    fault = read_fault(Path(closed)) if closed else None
    if fault is None:
        return []
    top = LIBRARIES if sys.prefix == sys.base_prefix else Path(sys.prefix)
    is_below = os.access(top.parent, os.X_OK)
    return [Check("program", "fail", fault.what, f"chmod -R o+rX {top}" if is_below else fault.fix)]


def _print(checks: list[Check], rights: Rights, identity: Identity | None) -> None:
    from rich.text import Text  # noqa: PLC0415 - the service must not load it

    screen = console()
    for first, *below in as_lines(checks, min(WIDTH, screen.width)):
        status = first[:4]
        screen.print(Text(status, style=STYLES[status.strip()]).append(first[4:], style="default"), soft_wrap=True)
        for line in below:
            screen.print(line, soft_wrap=True)
    checker = f"{identity.name}, the service user" if identity else "root"
    notes = [f"Service permissions read from {rights.source}", *([f"Files checked as {checker}"] * (os.geteuid() == 0))]
    for line in (line for note in notes for line in wrap(note, min(WIDTH, screen.width), break_on_hyphens=False)):
        screen.print(line, style="dim", soft_wrap=True)


def as_lines(checks: list[Check], width: int) -> Iterator[list[str]]:
    """Lay out each check: detail and fix on one line if both fit, otherwise the fix below."""
    longest = max(len(check.name) for check in checks)
    for check in checks:
        head = f"{check.status:<4}  {check.name:<{longest}}  "
        detail, fix = printable(check.detail), printable(check.fix)
        lines = [f"{head}{detail}; fix: {fix}"]
        if not fix or len(lines[0]) > width:
            lines = _wrapped(head, detail, width)
            # A path stays in one piece, to be copied.
            lines += _wrapped("      fix: ", fix, width, break_long_words=False) if fix else []
        if check.drop_in:
            lines.append("      with systemctl edit sockmem-agent, then systemctl restart sockmem-agent:")
        yield [*lines, *(f"          {printable(added)}" for added in check.drop_in)]


def _wrapped(head: str, text: str, width: int, *, break_long_words: bool = True) -> list[str]:
    return wrap(
        text,
        width,
        initial_indent=head,
        subsequent_indent=" " * len(head),
        break_long_words=break_long_words,
        break_on_hyphens=False,
    )
