"""``sockmem-agent incidents``: list, show, report, export and prune recorded incidents."""

import io
import os
import stat
import sys
import tarfile
from collections import deque
from datetime import datetime, timezone
from gzip import GzipFile
from pathlib import Path

import click
import msgspec

from agent.cli import config_option, json_option, log
from agent.cli.common import EX_FAILED, exits, id_argument, open_store
from agent.cli.incident_text import (
    BriefNotices,
    count_kinds,
    count_outcomes,
    deliveries,
    print_incidents,
    print_kinds,
    print_page,
    read_files,
    row_of,
)
from agent.cli.printing import Row, fail, print_json, stamp, to_json, warn
from agent.cli.since import since_option
from agent.core.format import counted
from agent.core.model import Incident
from agent.core.readings import Gap
from agent.core.recurrence import numbered
from agent.store import Store
from agent.store import prune as prune_store
from agent.store.disk import is_no_file, read_regular, reason, write_whole
from agent.store.incidents import INTERRUPTED

FILE_MODE = 0o640
output_option = click.option(
    "--output",
    type=click.Path(path_type=Path, readable=False),
    metavar="FILE",
    help="Write to this file or directory instead of a file here named after the ID; - is standard output.",
)


@click.group(name="incidents", epilog="Example: sockmem-agent incidents show last")
def command() -> None:
    """List, show, report, export and prune the recorded incidents."""


@command.command(name="list", epilog="Example: sockmem-agent incidents list --since yesterday --open")
@since_option("incidents last seen")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Show only the newest N.")
@click.option("--open", "only_open", is_flag=True, help="Show only open incidents.")
@click.option("--by-kind", is_flag=True, help="Group by kind: cause, mechanism and main holder.")
@config_option
@json_option
def list_(
    *,
    since: datetime | None,
    limit: int | None,
    only_open: bool,
    by_kind: bool,
    config_path: Path | None,
    as_json: bool,
) -> None:
    """List the incidents, oldest first.

    A kind is the cause, how the limit was hit, and who holds most of what ran out; the kind seen last comes last. JSON
    is a list of objects. Exit status: 0, 66 if an incident cannot be read: it is named on standard error, and the
    others are listed.
    """
    store, unread, gaps = open_store(config_path), dict[str, str](), list[Gap]()
    found = numbered(store.read_each(unread))
    wanted = (each for each in found if _is_wanted(each, since, only_open=only_open))
    rows, objects = list[Row](), list[msgspec.Raw]()
    with exits(os.EX_NOINPUT):
        kinds = count_kinds(wanted)[-(limit or 0) :] if by_kind else []
        # One whole incident at a time, or the few that are asked for.
        for each in deque(wanted, limit) if limit else wanted:
            notices = store.brief_notices(each, gaps)
            if as_json:
                objects.append(_summary(store, each, notices))
            else:
                rows.append(row_of(each, notices))
    # What a crash interrupted was never an incident; skipping it is no failure.
    failed = any(why != INTERRUPTED for why in unread.values())
    if as_json:
        print_json(kinds if by_kind else objects)
    elif kinds or rows:
        print_kinds(kinds) if by_kind else print_incidents(rows)
    else:
        click.echo(_none(store, since, only_open=only_open, unread=failed))
    for line in (*(gap.why for gap in gaps), *(f"incident {name}: {why}" for name, why in unread.items())):
        warn(line)
    if failed:
        sys.exit(os.EX_NOINPUT)


@command.command(epilog="Example: sockmem-agent incidents show last")
@id_argument
@config_option
@json_option
def show(incident_id: str, config_path: Path | None, *, as_json: bool) -> None:
    """Show what happened, why, what to do, and who was notified.

    JSON is incident.json with `path` and `deliveries` added. Exit status: 0, 66 no such incident or not readable.
    """
    store = open_store(config_path)
    with exits(os.EX_NOINPUT):
        files = read_files(store, store.load(store.resolve(incident_id)))
    for gap in files.unread:
        warn(gap.why)
    directory = store.path(files.incident.id)
    if as_json:
        added = {"path": str(directory), "deliveries": deliveries(files.notices, files.holdups)}
        print_json(msgspec.to_builtins(files.incident) | added)
    else:
        print_page(files, directory)


@command.command(epilog="Example: sockmem-agent incidents report last --output /tmp/incident.html")
@id_argument
@output_option
@config_option
def report(incident_id: str, output: Path | None, config_path: Path | None) -> None:
    """Write one incident as a self-contained HTML page.

    It has charts, the diagnosis, what to do, and the raw evidence, and loads nothing. Like an export it contains this
    host's name, log lines, addresses and sysctls, and no channel's secrets. Exit status: 0, 66 no such incident or not
    readable, 1 cannot write.
    """
    from agent.page.render import render  # noqa: PLC0415 - loads jinja2, and no other command needs them

    store = open_store(config_path)
    with exits(os.EX_NOINPUT):
        incident = store.load(store.resolve(incident_id))
        page = render(read_files(store, incident)).encode()
    _write(f"{incident.id}.html", output, page)


@command.command(epilog="Example: sockmem-agent incidents export last --output /tmp/incident.tar.gz")
@id_argument
@output_option
@config_option
def export(incident_id: str, output: Path | None, config_path: Path | None) -> None:
    """Pack one incident into a .tar.gz to send to someone.

    The same incident always gives the same bytes. They contain this host's name, log lines, addresses and sysctls, and
    no channel's secrets. Exit status: 0, 66 no such incident or not readable, 1 cannot write.
    """
    store = open_store(config_path)
    with exits(os.EX_NOINPUT):
        found = store.resolve(incident_id)
        archive = pack(store.path(found))
    _write(f"{found}.tar.gz", output, archive)


@command.command(epilog="Example: sockmem-agent incidents prune --dry-run")
@click.option("--dry-run", is_flag=True, help="Only print what would be removed.")
@config_option
@json_option
def prune(config_path: Path | None, *, dry_run: bool, as_json: bool) -> None:
    """Apply the limits of [store] now.

    Removes incidents beyond keep_days, keep_count, keep_bytes and min_free_bytes, as the service does. Where that took
    no sample in the last days, ages are counted from its newest one: the clock may be wrong. Open incidents
    and those with pending notifications stay. Where there are too many or space is short, claimed incidents go first,
    of the pending ones all but the newest 100. Exit status: 0, 66 not readable, 1 cannot remove.
    """
    store = open_store(config_path)
    with exits(EX_FAILED):
        now = datetime.now(timezone.utc)
        believed = store.samples.believe(now)
        if believed != now:
            why = "the service was stopped, or the clock is wrong"
            warn(f"no sample of the last days, so {why}: ages are counted from {stamp(believed)}, the newest before")
        removed = prune_store(store, believed, dry_run=dry_run)
    if as_json:
        print_json({"dry_run": dry_run, "removed": removed})
        return
    for incident_id in removed:
        click.echo(incident_id)
    verb = "would be removed" if dry_run else "removed"
    log.info("%s %s from %s", counted(len(removed), "incident"), verb, store.directory)


def pack(directory: Path) -> bytes:
    """Pack the files of an incident, sorted, with the time of its id and without owner names."""
    buffer = io.BytesIO()
    opened_at = datetime.strptime(directory.name[:16], "%Y%m%dT%H%M%S%z")
    with (
        GzipFile(fileobj=buffer, mode="wb", filename="", mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for path in sorted(directory.iterdir()):
            # A name that starts with a dot is a file being written.
            if path.name.startswith("."):
                continue
            try:
                data = read_regular(path)
            except OSError as error:
                if not is_no_file(error):
                    raise
                warn(f"{path}: skipped ({reason(error)})")
                continue
            member = tarfile.TarInfo(f"{directory.name}/{path.name}")
            member.size, member.mode, member.mtime = len(data), FILE_MODE, int(opened_at.timestamp())
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def _is_wanted(incident: Incident, since: datetime | None, *, only_open: bool) -> bool:
    if incident.closed_at is None:
        return True
    return not only_open and (since is None or incident.last_seen_at >= since)


def _none(store: Store, since: datetime | None, *, only_open: bool, unread: bool) -> str:
    kind = ("readable " if unread else "") + ("open " if only_open else "")
    from_then_on = f" since {stamp(since)}" if since else ""
    missing = "" if store.directory.is_dir() else ", which does not exist"
    return f"no {kind}incidents{from_then_on} in {store.directory}{missing}"


def _summary(store: Store, incident: Incident, notices: BriefNotices) -> msgspec.Raw:
    """Write the object of an incident at once: as text it takes a third of the memory."""
    names = ("id", "host", "opened_at", "last_seen_at", "closed_at", "cause", "confidence", "summary", "events")
    found = {name: getattr(incident, name) for name in names} | {
        "signature": incident.signature,
        "recurrence": incident.recurrence,
        "class": incident.class_,
        "suppressed_at_least": incident.suppressed_at_least,
        "provenance": incident.provenance,
        "notices": count_outcomes(notices),
        "path": str(store.path(incident.id)),
    }
    return msgspec.Raw(to_json(found))


def _write(name: str, output: Path | None, data: bytes) -> None:
    """Write to ``output`` (- is standard output), into it if it is a directory, or to ``name`` here; print the path."""
    if str(output) == "-":
        if name.endswith(".gz") and sys.stdout.isatty():
            fail(
                EX_FAILED,
                "sockmem-agent: refusing to write an archive to a terminal; redirect it, or use --output FILE",
            )
        sys.stdout.buffer.write(data)
        return
    target = Path(name) if output is None else output / name if _is_directory(output) else output
    with exits(EX_FAILED):
        if why := _why_not_overwrite(target):
            fail(EX_FAILED, f"sockmem-agent: {target}: not overwritten: {why}; remove it, or choose another --output")
        write_whole(target, data)
    click.echo(str(target))


def _is_directory(path: Path) -> bool:
    """Return whether this is a directory, and not another user's link to one."""
    return path.is_dir() and (not path.is_symlink() or path.lstat().st_uid in {0, os.geteuid()})


def _why_not_overwrite(path: Path) -> str | None:
    """Return why a file is not the caller's own; a link planted in /tmp would make root overwrite any file."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode):
        return "it is a symbolic link" if stat.S_ISLNK(status.st_mode) else "it is not a regular file"
    if status.st_uid != os.geteuid():
        return "it belongs to another user"
    return "it has another hard link" if status.st_nlink > 1 else None
