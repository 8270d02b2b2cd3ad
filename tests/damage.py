"""Damage of every kind for every file of a state directory, and a healthy state directory to be damaged.

A case damages one thing. ``told``: the service has to say so, naming the file; damage of a field may leave a value that
is as good as any other, and is then left alone.
"""

import itertools
import json
import os
import random
import shutil
import socket
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, NamedTuple

from material import make_event
from msgspec.structs import replace

from agent.core import folding
from agent.core.cursor import Cursor, FileCursor, Resume
from agent.core.delivery import Receipt
from agent.core.diagnosis.diagnose import diagnose
from agent.core.model import Notice, Sample
from agent.probe import take_snapshot
from agent.store import Outbox, Store, keep_samples

CHANNEL = "ops"
SPARSE_BYTES = 3 * 1024**3
Do = Callable[[Path], object]


class State(NamedTuple):
    """A healthy state directory: one open incident, whose notice is still owed, and one that is closed and told."""

    directory: Path
    open: str
    closed: str
    hour: str
    day: str


class Case(NamedTuple):
    """One thing to damage: ``path`` below the state directory, and how."""

    name: str
    path: str
    damage: Do
    told: bool = False


def build_state(directory: Path, proc_root: Path, log: Path, now: datetime) -> State:
    """Make a healthy state directory, by the store's own means."""
    store = Store(directory)
    os.close(store.open_for_writing())
    for minutes in range(300, 0, -10):
        store.samples.append(Sample(at=now - timedelta(minutes=minutes), orphan=3, mem=150, tcp_mem=(1, 2, 3)))
    store.samples.write_hourly_extremes(now)
    closed = _keep(store, proc_root, log, now - timedelta(hours=3), generation=1)
    opened = _keep(store, proc_root, log, now - timedelta(minutes=2), generation=2, closed=False)
    store.save_cursor(Resume(generation=3, cursor=_cursor(log)))
    history = sorted(path.name for path in (directory / "history").iterdir())
    return State(directory, opened, closed, history[-2] if len(history) > 2 else history[0], history[-1])


def _cursor(log: Path) -> Cursor:
    status = log.stat()
    place = FileCursor(device=status.st_dev, inode=status.st_ino, offset=0, marker="", written_ns=0)
    return Cursor(files={str(log): place})


def _keep(store: Store, proc_root: Path, log: Path, at: datetime, *, generation: int, closed: bool = True) -> str:
    line = f"{at.isoformat()} web1 kernel: [{generation}.000001] TCP: too many orphaned sockets"
    event = make_event("orphans", "claimed", at=at, uptime=1.5, suppressed=3, count=2, source=f"{log}@0", line=line)
    snapshot = take_snapshot(proc_root, at, "event")
    incident = folding.open_incident(event, at.astimezone(timezone.utc), snapshot, diagnose(snapshot, (event,), ()))
    store.new_directory(incident.id)
    incident = replace(incident, snapshots=(store.write_snapshot(incident.id, 1, snapshot),))
    notice = folding.notice(incident, ("sockmem.incident.opened", "the kernel ran out"), (CHANNEL,), at)
    incident = replace(incident, notices=(store.write_notice(incident.id, 1, notice),))
    keep_samples(store.path(incident.id), [Sample(at=at, orphan=3, mem=150)])
    store.write_summary(incident.id, f"an incident: {incident.id}\n")
    if closed:
        incident = folding.close(incident, at + timedelta(hours=1), timedelta(seconds=300))
        _tell(store, incident.id, notice, at)
    store.commit(replace(incident, resume=Resume(generation=generation, cursor=_cursor(log))))
    return incident.id


def _tell(store: Store, incident_id: str, notice: Notice, at: datetime) -> None:
    receipt = Receipt(notice=notice.id, channel=CHANNEL, outcome="delivered", at=at, attempts=1, detail="taken")
    Outbox(store).write_receipt(incident_id, "notice-001", receipt)


# --- what can stand in the place of a file --------------------------------------------------------------------------


def clear(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _instead(make: Do) -> Do:
    def damage(path: Path) -> None:
        clear(path)
        make(path)

    return damage


def _nested(text: str) -> Do:
    return lambda path: path.write_text(text * 100_000)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        # The path of a socket is short: 108 bytes.
        here = os.open(path.parent, os.O_PATH)
        other.bind(f"/proc/self/fd/{here}/{path.name}")
        os.close(here)


def _directory(path: Path) -> None:
    path.mkdir()
    (path / "somebody-elses").write_text("kept")


def _link_to_file(path: Path) -> None:
    target = path.with_name("a-target")
    target.write_text("somebody else's")
    path.symlink_to(target)


def _device(path: Path) -> None:
    os.mknod(path, 0o600 | 0o020000, os.makedev(1, 5))  # /dev/zero: without end


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(SPARSE_BYTES)


def _random(path: Path) -> None:
    path.write_bytes(random.Random(9).randbytes(5000))


NO_FILES: dict[str, Do] = {
    "fifo": os.mkfifo,
    "directory": _directory,
    "dangling link": lambda path: path.symlink_to("nowhere/at/all"),
    "link to itself": lambda path: path.symlink_to(path.name),
    "link to a file": _link_to_file,
    "socket": _socket,
} | ({"device": _device} if os.geteuid() == 0 else {})

CONTENTS: dict[str, Do] = {
    "empty": lambda path: path.write_bytes(b""),
    "one byte": lambda path: path.write_bytes(b"{"),
    "NULs": lambda path: path.write_bytes(bytes(4096)),
    "random bytes": _random,
    "Latin-1": lambda path: path.write_bytes(b'{"schema": "caf\xe9"}\n'),
    "null": lambda path: path.write_text("null"),
    "a list": lambda path: path.write_text("[]"),
    "a text": lambda path: path.write_text('"text"'),
    "nothing in it": lambda path: path.write_text("{}"),
    "a number": lambda path: path.write_text("9" * 5000),
    "infinity": lambda path: path.write_text("Infinity"),
    "nested lists": _nested("["),
    "nested objects": _nested('{"a":'),
    "3 GB": _sparse,
}


def _cut(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


# --- what can stand in a field --------------------------------------------------------------------------------------

ANYTHING: tuple[object, ...] = (
    None,
    "",
    "text",
    -1,
    0,
    1.5,
    1e308,
    2**63,
    2**64 - 1,
    2**64,
    10**400,
    True,
    [],
    {},
    [None],
)
TIMES = ("2026-11-22T15:05:39", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "1901-01-01T00:00:00Z")
TEXTS = ("../../../../etc/passwd", "/etc/passwd", "a" * 300, "caf\xe9", "\u2028\x1b[2J", "line\nbreak", "nul\0byte")


def mutations(value: Any, depth: int) -> Iterator[tuple[str, Callable[[Any], Any]]]:
    """Name a change of each field of a JSON value, each with the function that makes it on a copy."""
    for steps, old in _fields(value, depth):
        others = [*ANYTHING]
        if isinstance(old, str):
            others += [*TIMES, *TEXTS]
        if isinstance(old, list):
            others += [[text] for text in TEXTS] + [old * 2, [old], old * 500]
        for number, other in enumerate(others):
            if other != old:
                yield f"{'.'.join(map(str, steps))}:{number}", _putter(steps, other)
        yield f"{'.'.join(map(str, steps))}:gone", _putter(steps, ...)


def _fields(value: Any, depth: int) -> Iterator[tuple[tuple[Any, ...], Any]]:
    items = value.items() if isinstance(value, dict) else [(0, value[0])] if isinstance(value, list) and value else []
    for key, inner in items:
        yield (key,), inner
        if depth > 1:
            yield from (((key, *steps), old) for steps, old in _fields(inner, depth - 1))


def _putter(steps: tuple[Any, ...], other: object) -> Callable[[Any], Any]:
    def put(document: Any) -> Any:
        place = document
        for step in steps[:-1]:
            place = place[step]
        if other is ...:
            del place[steps[-1]]
        else:
            place[steps[-1]] = other
        return document

    return put


def change(put: Callable[[Any], Any]) -> Do:
    """Make the damage of one field of a JSON file."""
    return lambda path: path.write_text(json.dumps(put(json.loads(path.read_text()))))


# --- all cases ------------------------------------------------------------------------------------------------------


def whole_files(state: State) -> Iterator[Case]:
    """Damage each file as a whole, and what stands beside it while it is written."""
    opened, closed = f"incidents/{state.open}", f"incidents/{state.closed}"
    read = ["cursor.json", *(f"{opened}/{name}-001.json" for name in ("snapshot", "notice"))]
    read += [f"{opened}/incident.json", f"{closed}/incident.json", f"history/{state.hour}", f"history/{state.day}"]
    unread = [f"{closed}/{name}" for name in ("snapshot-001.json", "notice-001.json", "notice-001.ops.json")]
    unread += [f"{closed}/samples.jsonl", f"{closed}/summary.txt", f"{opened}/summary.txt", "lock"]
    for path in (*read, *unread):
        kinds = NO_FILES | CONTENTS
        for kind, make in kinds.items():
            # What is empty, or an object without a sample, is no damage to a file of lines.
            harmless = kind == "empty" and path.startswith("history/")
            told = (path in read and not harmless) or (path == "lock" and kind in NO_FILES)
            yield Case(f"{kind}: {path}", path, _instead(make), told)
        yield Case(f"missing: {path}", path, clear)
        yield Case(f"cut: {path}", path, _cut)
    written = ["cursor.json", f"{opened}/incident.json", f"{opened}/snapshot-002.json", f"{opened}/notice-001.ops.json"]
    written += [f"{opened}/summary.txt", "incidents/last"]
    for path, (kind, make) in itertools.product(written, (NO_FILES | {"left": CONTENTS["random bytes"]}).items()):
        folder, _, name = path.rpartition("/")
        # An incident's own position may be as new as the cursor would be: then that is not written.
        told = kind != "left" and name not in {"cursor.json", "last"}
        yield Case(f"{kind} aside: {path}", f"{folder}/.{name}.new", _instead(make), told)
    for name, (kind, make) in itertools.product(("snapshot-002.json", "notice-002.json"), NO_FILES.items()):
        yield Case(f"{kind} ahead: {name}", f"{opened}/{name}", _instead(make))


def names(state: State) -> Iterator[Case]:
    """Put what is not ours under names like ours."""
    for name in ("20261399T250000Z-abcd", "00000000T000000Z-0000", "99991231T235959Z-ffff", "20260231T000000Z-0000"):
        yield Case(f"date: {name}", f"incidents/{name}", _directory, told=True)
    for kind, make in NO_FILES.items():
        if kind != "directory":
            yield Case(f"{kind} as an incident", "incidents/20261101T000000Z-0000", make, told=True)
            yield Case(f"{kind} as an hour", "history/20260101T00.jsonl", make, told=True)
    yield Case("left by a crash", "incidents/20261101T000000Z-0000", _directory)
    copied = state.directory / "incidents" / state.closed
    yield Case("a copy", "incidents/20261101T000000Z-0000", lambda path: shutil.copytree(copied, path), told=True)
    for kind, make in (NO_FILES | CONTENTS).items():
        yield Case(f"{kind}: last", "incidents/last", _instead(make), told="link" not in kind)
    for name in ("foo", "x" * 250, "20261101T000000Z-0000.broken", "-", "..."):
        yield Case(f"junk: {name[:30]}", f"incidents/{name}", _directory)
    for name in ("20261399T25.jsonl", "99999999T99.jsonl", "day-99999999.jsonl", "day-00000000.jsonl"):
        yield Case(f"junk: {name}", f"history/{name}", CONTENTS["random bytes"], told=True)
    for folder, (kind, make) in itertools.product(("incidents", "history"), NO_FILES.items()):
        if kind not in {"directory", "link to a file"}:
            yield Case(f"{kind}: {folder}", folder, _instead(make), told=True)


def known(state: State) -> Iterator[Case]:
    """Put into the fields what has ended the service in a loop, or would lead it astray."""
    opened = f"incidents/{state.open}"
    values: dict[str, dict[str, list[object]]] = {
        f"{opened}/incident.json": {
            "id": [state.closed, "../../etc"],
            "opened_at": [*TIMES[:3]],
            "last_seen_at": [*TIMES[:3]],
            "snapshots": [[], ["../../../../etc/passwd"], ["snapshot-999.json"]],
            "notices": [["../../../../etc/passwd"], ["notice-999.json"]],
        },
        f"{opened}/snapshot-001.json": {"taken_at": [*TIMES[:3]], "sysctls": [{"net.ipv4.tcp_mem": [10**400] * 3}]},
        f"{opened}/notice-001.json": {
            "id": ["caf\xe9", "\u20ac", "two\r\nlines", "a" * 300],
            "channels": [["a" * 300], ["../ops"], ["ops", "/"]],
            "at": [*TIMES[:3]],
        },
        "cursor.json": {"generation": [-1, 2**63, 2**64], "cursor": [None, {"files": {"/x": None}}]},
    }
    for path, changes in values.items():
        for field, others in changes.items():
            for other in others:
                told = other != ["notice-999.json"]
                yield Case(f"{path} {field}: {other!s:.40}", path, change(_putter((field,), other)), told)


def fields(state: State, paths: dict[str, int]) -> Iterator[Case]:
    """Damage each field of some files, down to a depth."""
    for path, depth in paths.items():
        document = json.loads((state.directory / path).read_text())
        for name, put in mutations(document, depth):
            yield Case(f"{path} {name}", path, change(put))


def multiply(state: State, cases: list[Case]) -> list[tuple[str, Case]]:
    """Copy the closed incident once for each case, under an id of its own, and damage each copy in one way."""
    source = state.directory / "incidents" / state.closed
    made = []
    for number, case in enumerate(cases):
        other = f"20261101T{number // 3600:02}{number // 60 % 60:02}{number % 60:02}Z-{number:04x}"
        copy = source.with_name(other)
        copy.mkdir()
        for path in source.iterdir():
            (copy / path.name).write_text(path.read_text().replace(state.closed, other))
        here = case._replace(path=case.path.replace(state.closed, other))
        here.damage(state.directory / here.path)
        made.append((other, here))
    return made
