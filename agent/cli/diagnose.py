"""``sockmem-agent diagnose``: one diagnosis now, without configuration or root."""

import os
import re
from datetime import datetime, timedelta
from pathlib import Path

import click
from msgspec.structs import replace

from agent.cli import config_option, json_option
from agent.cli.common import complete_id, exits, find_store, open_store
from agent.cli.printing import fail, print_json, warn
from agent.config.load import ConfigError
from agent.core.diagnosis.diagnose import diagnose
from agent.core.folding import events_to_diagnose
from agent.core.hosts import may_be_same, other_host
from agent.core.kernel.messages import detect, other_limit
from agent.core.kernel.procfs import parse_stat_boot
from agent.core.logs import pasted, records
from agent.core.model import Diagnosis, Event, LogRecord, Sample
from agent.core.readings import Gap, OtherLimit, UnreadLine
from agent.core.report import diagnosis_text
from agent.core.times import second_of
from agent.probe import Counters, take_snapshot, take_sockets
from agent.probe.files import read_head
from agent.probe.pagesize import PROC, is_this_host
from agent.sources import local_now
from agent.sources.multiline import lines_of
from agent.store import read_around

HISTORY = timedelta(hours=1)
WATCH_AT_MOST = 86400
ATTRIBUTION_SECONDS = 5.0
_ONLY_COUNTS = "a count of suppressed messages does not say which ones: pass the line next to it as well"
_OPTION = "--message"
_ELISION = re.compile(r"\[\s*(?:…|\.\.+)\s*\]\s*")


@click.command(
    name="diagnose",
    epilog="Example: sockmem-agent diagnose --message 'TCP: too many orphaned sockets'",
)
@click.option("--proc-root", metavar="DIR", help="Read this copy of a /proc tree instead of this host's.")
@click.option(
    "--message",
    "messages",
    metavar="LINE",
    multiple=True,
    help="Use this kernel log line as evidence, in any log format or typed by hand; may be repeated. Nothing "
    "is measured for the line of another host.",
)
@click.option(
    "--incident",
    metavar="ID",
    shell_complete=complete_id,
    help="Diagnose a stored incident again: its ID, the beginning of one, or last.",
)
@click.option(
    "--watch",
    "seconds",
    type=click.IntRange(1, WATCH_AT_MOST),
    metavar="SECONDS",
    help="Show for this long, as it happens, whose connections the kernel kills and whose sockets it refuses memory "
    "(root; kills: Linux 6.12 and newer).",
)
@config_option
@json_option
def command(
    *,
    proc_root: str | None,
    messages: tuple[str, ...],
    incident: str | None,
    seconds: int | None,
    config_path: Path | None,
    as_json: bool,
) -> None:
    """Diagnose why this host runs out of TCP socket memory, or how close it is.

    Exit status: 0 whatever the diagnosis, 2 usage error, 66 no such directory, incident or trace, or not readable.
    """
    if seconds is not None:
        from agent.cli.watch import watch  # noqa: PLC0415 - other diagnoses need nothing of the service

        if incident or proc_root or messages:
            raise click.UsageError("--watch cannot be combined with other evidence: it looks at this host from now on")
        watch(seconds, as_json=as_json)
        return
    if incident is None:
        found = _diagnose_tree(_find_tree(proc_root), messages, config_path)
    elif proc_root is None and not messages:
        found = _diagnose_incident(incident, config_path)
    else:
        raise click.UsageError("--incident cannot be combined with --proc-root or --message: it has its own evidence")
    if as_json:
        print_json(found)
    else:
        click.echo(diagnosis_text(found))


def _diagnose_tree(proc_root: Path, messages: tuple[str, ...], config_path: Path | None) -> Diagnosis:
    now = local_now()
    history = _read_history(config_path, now) if is_this_host(proc_root) else ()
    snapshot = take_snapshot(proc_root, now, "command", counters=Counters(proc_root, history))
    events, unread = _read_messages(messages, now)
    snapshot = replace(snapshot, gaps=(*snapshot.gaps, *unread))
    if not is_this_host(proc_root):
        taken_at = _moment_of_tree(proc_root, snapshot.uptime_seconds, events, now)
        return _doubt(diagnose(replace(snapshot, taken_at=taken_at), events, ()), unread)
    events, elsewhere, left = _of_one_host(events, snapshot.host)
    if elsewhere:
        # As in the service: a line of another host says nothing of what is measured here.
        found = diagnose(replace(snapshot, trigger="event"), events, ())
        return replace(found, gaps=(*found.gaps, *unread, *left))
    snapshot = replace(snapshot, sockets=take_sockets(proc_root, ATTRIBUTION_SECONDS), gaps=(*snapshot.gaps, *left))
    return _doubt(diagnose(snapshot, events, history), unread)


def _of_one_host(events: tuple[Event, ...], here: str | None) -> tuple[tuple[Event, ...], str | None, tuple[Gap, ...]]:
    """Keep the lines of this host, else those of the first other one, and name that; the rest become gaps."""
    said = [other_host(event.host, here) for event in events if event.kind != "suppressed"]
    elsewhere = said[0] if said and all(said) else None
    kept, left = [], dict[Gap, None]()
    for event in events:
        other = other_host(event.host, here)
        if bool(other) == bool(elsewhere) and may_be_same(other, elsewhere):
            kept.append(event)
        else:
            why = f"the line is from {event.host or here}: it is left out; run sockmem-agent diagnose there"
            left[Gap(what=_OPTION, why=why)] = None
    for gap in left:
        warn(f"{gap.what}: {gap.why}")
    return tuple(kept), elsewhere, tuple(left)


def _moment_of_tree(proc_root: Path, uptime: float | None, events: tuple[Event, ...], now: datetime) -> datetime:
    """Return when a tree was taken, by the clock of the lines; ``now`` without a dated one.

    The newest dated line is as of the tree, since the caller passes both as evidence of one event, unless a line that
    has a date and the time since boot shows a later moment. Beside a line with the time since boot alone the boot time
    shows it.
    """
    dated = [event.at for event in events if event.at]
    if not dated:
        return now
    newest = max(dated, key=second_of)
    booted = [second_of(each.at) - each.uptime for each in events if each.at and each.uptime is not None]
    if not booted and any(event.uptime is not None for event in events):
        by_host = parse_stat_boot(read_head(proc_root / "stat") or "")
        booted = [] if by_host is None else [by_host]
    later = max(booted, default=0.0) + (uptime or 0.0) - second_of(newest)
    try:
        return newest + timedelta(seconds=max(later, 0.0))
    except OverflowError:
        return newest


def _read_messages(messages: tuple[str, ...], now: datetime) -> tuple[tuple[Event, ...], tuple[Gap, ...]]:
    """Turn the lines into events, and those about something else into gaps."""
    # An argument that is not UTF-8 contains surrogates, which neither JSON nor a terminal accepts.
    texts = [os.fsencode(message).decode(errors="replace") for message in messages]
    lines = [line for text in texts for line in lines_of(text) or [text]]
    read = {number: _read_message(line, number, now) for number, line in enumerate(lines, 1)}
    found = {number: event for number, event in read.items() if isinstance(event, Event)}
    if all(event.kind == "suppressed" for event in found.values()):
        read |= {number: UnreadLine(what=f"{_OPTION} {number}", why=_ONLY_COUNTS) for number in found}
    gaps = tuple(gap for gap in read.values() if isinstance(gap, Gap))
    for gap in gaps:
        warn(f"{gap.what}: {gap.why}")
    return tuple(found.values()), gaps


def _read_message(line: str, number: int, now: datetime) -> Event | Gap:
    # People who copy a line often shorten its timestamp: kernel: [...] TCP: ...
    whole = _ELISION.sub("", line)
    record = _to_record(whole, number, now)
    event = detect(replace(record, line=line)) if record else None
    if event is not None:
        return event
    readings = pasted.respellings(whole)
    for reading in readings:
        respelled = _to_record(reading, number, now)
        # The rules infer the kernel's era from the words of the line, so these have to be the kernel's.
        event = detect(replace(respelled, line=readings[0])) if respelled else None
        if respelled is not None and event is not None:
            warn(f"{_OPTION} {number}: read as {respelled.text!r}")
            return event
    other = other_limit(line)
    what, why = f"{_OPTION} {number}", "not a kernel socket-memory message"
    if other:
        return OtherLimit(what=what, why=f"{why}; it is about another limit: {other}")
    return UnreadLine(what=what, why=f"{why}; ignored")


def _to_record(line: str, number: int, now: datetime) -> LogRecord | None:
    return records.to_record(line.encode(), now=now, source=_OPTION, ordinal=number, console=True)


def _doubt(found: Diagnosis, unread: tuple[Gap, ...]) -> Diagnosis:
    """Lower the confidence of "none" if a line was not understood: the caller saw something."""
    if found.cause != "none" or all(isinstance(gap, OtherLimit) for gap in unread):
        return found
    first, *others = found.findings
    return replace(found, confidence="possible", findings=(replace(first, confidence="possible"), *others))


def _diagnose_incident(text: str, config_path: Path | None) -> Diagnosis:
    store = open_store(config_path)
    with exits(os.EX_NOINPUT):
        incident_id = store.resolve(text)
        incident = store.load(incident_id)
        gaps: list[Gap] = []
        snapshots = [snapshot for _, snapshot in store.snapshots(incident_id, gaps)]
        end = incident.last_seen_at + HISTORY
        near = read_around(store, incident_id, incident.opened_at - HISTORY, end)
        history = {sample.at: sample for sample in (*store.samples.read_thinned(end), *near)}
    if not snapshots:
        fail(os.EX_NOINPUT, f"incident {incident_id} has no readable snapshot to diagnose")
    taken = [snapshot for snapshot in snapshots if snapshot.trigger in {"event", "pressure"}] or snapshots
    samples = tuple(history[at] for at in sorted(history))
    found = diagnose(taken[-1], events_to_diagnose(incident), samples, incident.witness)
    return replace(found, gaps=(*found.gaps, *gaps))


def _find_tree(proc_root: str | None) -> Path:
    if proc_root is None:
        return PROC
    if not os.path.isdir(proc_root):  # noqa: PTH112 - Path's raises EACCES, and takes "" for this directory
        fail(
            os.EX_NOINPUT, f"sockmem-agent: --proc-root: {proc_root!r} is not a directory; name a copy of a /proc tree"
        )
    if not os.access(proc_root, os.X_OK):
        fail(os.EX_NOINPUT, f"sockmem-agent: --proc-root: {proc_root!r}: permission denied; use sudo")
    return Path(proc_root)


def _read_history(config_path: Path | None, now: datetime) -> tuple[Sample, ...]:
    """Read the service's samples, which turn counters into rates; without them the diagnosis still works."""
    try:
        return find_store(config_path).samples.read_thinned(now)
    except ConfigError as error:
        warn(f"{error.errors[0]}; diagnosing without the service's samples")
    except OSError:
        pass  # Another user's state directory: a diagnosis needs neither privilege nor history.
    return ()
