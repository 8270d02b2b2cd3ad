"""What is said again is counted, not read: the same incidents, and no position within what was counted at once.

Beside the reader, line after line: each parsed, decided and folded by itself.
"""

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import NamedTuple
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core import folding
from agent.core.hosts import plain_name
from agent.core.kernel import detector
from agent.core.kernel.detector import Decided, Detector
from agent.core.logs.records import to_record
from agent.core.model import Diagnosis, Incident, LogRecord, Snapshot
from agent.sources.file import reader
from agent.sources.file import source as logfile
from agent.sources.file.source import LogFileSource

BEGUN = datetime(2026, 11, 1, 23, 59, tzinfo=timezone.utc)
READ_AT = BEGUN + timedelta(days=20)
QUIET = timedelta(seconds=300)
TEXTS = (
    "Out of socket memory",
    "TCP: too many orphaned sockets",
    "TCP: out of memory -- consider tuning tcp_mem",
    "net_ratelimit: 22 callbacks suppressed",
    "last message repeated 3 times",
    "Last message 'Out of socket memory' repeated 2 times",
    "message repeated 4 times: [ Out of socket memory]",
)
FORMS = (
    "{at:%b %d %H:%M:%S} {host} kernel: {text}",
    "{at:%b %d %H:%M:%S} {host} kernel: [{uptime:.6f}] {text}",
    "{at:%Y-%m-%dT%H:%M:%S}.{at:%f}+00:00 {host} kernel: {text}",
    '<6>1 {at:%Y-%m-%dT%H:%M:%S}.{at:%f}Z {host} kernel - - [meta sequenceId="{number}"] {text}',
    (
        '{{"__CURSOR":"s=5ad8;i={number:x}","__REALTIME_TIMESTAMP":"{micros}","_SOURCE_MONOTONIC_TIMESTAMP":"{number}",'
        '"_TRANSPORT":"kernel","SYSLOG_IDENTIFIER":"kernel","_HOSTNAME":"{host}","MESSAGE":"{text}"}}'
    ),
    "{at:%b %d %H:%M:%S} {host} app[{number}]: {text}",
    "kernel: {text}",
    "{at:%b %d %H:%M:%S} {host} sshd[{number}]: closed",
)
# What is said by whom in which form, how much later than the line before, and how often in a row.
SAID = st.tuples(
    st.sampled_from(FORMS),
    st.sampled_from(TEXTS),
    st.sampled_from(["web1", "web2", "WEB1.example.org"]),
    st.sampled_from([0, 0, 0, 0, 0, 1, 40, 61, 301, -20]),
)


class Line(NamedTuple):
    """A line, and the record that it is by itself."""

    raw: bytes
    record: LogRecord | None


def log_of(said: Sequence[tuple[str, str, str, int]]) -> list[Line]:
    lines, at = [], BEGUN
    for number, (form, text, host, seconds) in enumerate(said, start=1):
        at += timedelta(seconds=seconds, microseconds=17)
        uptime, micros = (at - BEGUN).total_seconds() + 100, int(at.timestamp() * 1e6)
        raw = form.format(at=at, host=host, text=text, number=number, uptime=uptime, micros=micros).encode()
        lines.append(Line(raw, to_record(raw, now=READ_AT, source="", ordinal=number)))
    return lines


def decided_of(records: Iterable[LogRecord]) -> Iterator[Decided]:
    decide = Detector()
    for record in records:
        yield from decide.feed(record)


def incidents_of(decided: Iterable[Decided]) -> dict[str, list[Incident]]:
    """Fold as the recorder does: one open incident a host, and a suppressed line opens none."""
    found: dict[str, list[Incident]] = {}
    snapshot = Snapshot(taken_at=READ_AT, trigger="event")
    diagnosis = Diagnosis(cause="undetermined", confidence="possible", summary="")
    for _, event in decided:
        at, incidents = event.at or READ_AT, found.setdefault(plain_name(event.host).partition(".")[0], [])
        if incidents and not folding.is_another(incidents[-1].last_seen_at, at, QUIET):
            incidents[-1] = folding.fold(incidents[-1], event, at)
        elif event.kind != "suppressed":
            incidents.append(folding.open_incident(event, at, snapshot, diagnosis))
    return found


def outcome(incidents: dict[str, list[Incident]]) -> object:
    return {
        host: [
            (
                each.id,
                each.events,
                each.suppressed,
                each.provenance,
                each.first_event and each.first_event.line,
                [(event.kind, event.line) for event in each.last_of_kind],
                each.last_seen_at.replace(microsecond=0),
            )
            for each in of_host
        ]
        for host, of_host in incidents.items()
    }


def read_in_pieces(log: Path, data: bytes, cut: int, chunk: int, batch: int) -> list[LogRecord]:
    """Read a log that is written in two pieces, through small blocks and in small batches."""
    records: list[LogRecord] = []
    with (
        mock.patch.object(reader, "CHUNK_BYTES", chunk),
        mock.patch.object(logfile, "BATCH_LINES", batch),
        closing(LogFileSource([str(log)], None, "beginning", lambda: READ_AT)) as source,
    ):
        for piece in (data[:cut], data[cut:]):
            with log.open("ab") as file:
                file.write(piece)
            whole = log.read_bytes().rfind(b"\n") + 1
            while (place := source.position().files.get(str(log))) is None or place.offset < whole:
                records += source.read()
    return records


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(SAID, st.integers(1, 6)).map(lambda each: [each[0]] * each[1]), max_size=20),
    st.lists(SAID, max_size=3),
    st.tuples(st.integers(0, 8000), st.integers(400, 2000), st.integers(1, 6)),
)
def test_the_incidents_are_those_of_each_line_by_itself(runs, mixed, sizes) -> None:
    said = [each for run in runs for each in run] + [
        *mixed,
        *[(form, text, host, 0) for form, text, host, _ in mixed],
    ] * 5
    lines = log_of(said)
    data = b"".join(line.raw + b"\n" for line in lines)
    with tempfile.TemporaryDirectory() as directory, mock.patch.object(detector, "MAX_RECENT", 1000):
        records = read_in_pieces(Path(directory) / "messages", data, *sizes)
        alone = list(decided_of(line.record for line in lines if line.record))
        counted = list(decided_of(records))

    assert outcome(incidents_of(alone)) == outcome(incidents_of(folding.together(counted, QUIET)))
    assert_nothing_is_before_a_position_but_what_was_counted(lines, alone, counted)


def assert_nothing_is_before_a_position_but_what_was_counted(
    lines: Sequence[Line], alone: Sequence[Decided], counted: Sequence[Decided]
) -> None:
    """Not of suppressed lines, which wait for a neighbor while others move the position on."""
    ends, total = dict(enumerate(offsets_of(lines), start=1)), 0
    said = [(ends[record.ordinal], event.count) for record, event in alone if event.kind != "suppressed"]
    for record, event in counted:
        if event.kind == "suppressed":
            continue
        total += event.count
        if record.cursor:
            (place,) = record.cursor.files.values()
            assert sum(count for end, count in said if end <= place.offset) == total
    assert not counted or counted[-1][0].cursor


def offsets_of(lines: Sequence[Line]) -> Iterator[int]:
    end = 0
    for line in lines:
        end += len(line.raw) + 1
        yield end
